//! All integration tests in one binary, so that it links once.

mod kill;
mod same_bytes;
mod spine;
mod support;
