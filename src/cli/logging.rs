//! The log, on stderr.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::{GlobalArgs, colored, progress};

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// Starts logging. `RUST_LOG` chooses what is logged; without it warnings on a terminal, which has progress bars, and otherwise what
/// Feedline does, phase by phase.
pub(super) fn start(global: GlobalArgs) {
    let default = match global.log_format {
        _ if global.quiet => "error",
        LogFormat::Text if io::stderr().is_terminal() => "warn",
        _ => "warn,feedline=info",
    };
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|v| !v.is_empty());
    let (filter, wrong) = match asked.map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(e)) => (EnvFilter::new(default), Some(e)),
        None => (EnvFilter::new(default), None),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Stderr);
    // A second start (tests run several command lines in one process) keeps the first log.
    let _ = match global.log_format {
        LogFormat::Text => log.with_ansi(colored()).with_target(false).try_init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
    if let Some(e) = wrong {
        tracing::warn!("RUST_LOG is not understood, so it is left out: {e}");
    }
}

/// Stderr, with the progress bars out of the way while a line is written.
#[derive(Debug, Clone, Copy)]
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        progress::suspend(|| io::stderr().lock().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl MakeWriter<'_> for Stderr {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}
