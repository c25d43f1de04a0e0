//! Feedline.

pub mod dataset;
pub mod error;
pub mod progress;
pub mod sink;
pub mod source;
pub mod spec;
pub mod stages;
pub mod storage;
