//! Feedline.

pub mod cli;
pub mod dataset;
pub mod error;
pub mod progress;
pub mod spec;
pub mod stages;
pub mod storage;
