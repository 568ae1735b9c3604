//! Opinion.
