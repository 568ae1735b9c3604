//! The Dormant command line as a library.
