//! What the tests share with the fuzzer. The tests themselves, which run flapsam as a user does, are in `tests/`.

pub mod counted;
pub mod hostile;
