//! All integration tests in one binary, so that it links once.

mod spine;
mod support;
mod wrong_inputs;
