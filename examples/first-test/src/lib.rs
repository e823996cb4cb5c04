//! Your crate. See `tests/first_test.rs`.
