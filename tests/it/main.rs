//! All integration tests in one binary, so that it links once.

// In a test a panic is how a fault is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod apply;
mod contract;
mod encryption;
mod fault_data;
mod faults;
mod faulty;
mod formats;
mod kill;
mod outages;
mod s3_faults;
mod s3_server;
mod same_bytes;
mod servers;
mod spine;
mod support;
mod told;
mod wrong_inputs;
