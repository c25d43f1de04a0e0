//! Feedline.

pub mod dataset;
pub mod error;
pub mod quality;
pub mod spec;
pub mod stages;
pub mod storage;
