//! dormant-data
