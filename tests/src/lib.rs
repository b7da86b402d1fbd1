//! Tests that run flapsam as a user does; they are in `tests/`.
