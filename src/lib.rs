//! Feedline.

pub mod dataset;
pub mod engine;
pub mod error;
pub mod spec;
pub mod stages;
pub mod storage;
