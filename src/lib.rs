//! Feedline.

pub mod cli;
pub mod dataset;
pub mod engine;
pub mod error;
pub mod feed;
pub mod plan;
pub mod progress;
pub mod quality;
pub mod sink;
pub mod source;
pub mod spec;
pub mod stages;
pub mod storage;
