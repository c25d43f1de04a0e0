//! All integration tests in one binary, so that it links once.

// In a test a panic is how a fault is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fault_data;
mod faults;
mod faulty;
mod kill;
mod s3_faults;
mod s3_server;
mod same_bytes;
mod spine;
mod support;
mod wrong_inputs;
