//! The engines.

pub mod bridge;
