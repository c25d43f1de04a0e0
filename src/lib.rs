//! Feedline.

pub mod dataset;
pub mod error;
pub mod feed;
pub mod spec;
pub mod stages;
pub mod storage;
