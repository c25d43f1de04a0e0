//! How passes run: rows of a segment as a DataFusion table, decisions, fits, the Polars crossing.

pub mod accounts;
pub mod apply;
pub mod bridge;
mod decide;
mod fits;
mod lines;
mod moments;
pub mod opener;
pub mod passes;
pub mod program;
pub mod report;
pub mod rows;
pub mod run;
mod session;
pub mod verdict;

pub use session::session;
