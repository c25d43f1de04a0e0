//! The quality report: what came in, what was dropped and why, what changed, and what a model would learn from it.
//!
//! ```text
//!  batches before ─▶ TableProfile ┐ (one a unit, merged in unit order)
//!  batches after  ─▶ TableProfile ┤
//!  row counts, fits, splits       ├─▶ Report ─▶ report.json | report.html | a few lines in the terminal
//!  keys by split  ─▶ leakage()    ┘
//! ```
//!
//! A [`profile::TableProfile`] is a bounded sketch of a table: it can be stored, merged and read again, and depends on the order of rows
//! alone, never on how they were cut into batches. A [`report::Report`] is a plain result model; the renderers ([`html`], [`text`]) only read it.

mod charts;
mod format;
pub mod html;
pub mod leakage;
pub mod profile;
pub mod report;
pub mod text;
pub mod withheld;
