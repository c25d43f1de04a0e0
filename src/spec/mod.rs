//! YAML to a typed [`Pipeline`]. No I/O.

pub mod pipeline;

pub use pipeline::Pipeline;
