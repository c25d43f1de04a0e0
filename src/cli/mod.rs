//! The command line: one file a command.
//!
//! Results go to stdout, everything else to stderr. Exit codes are those of [`Error::exit_code`](crate::error::Error::exit_code); wrong usage
//! is 64.

pub mod apply;
mod completions;
mod dataset_args;
pub mod diff;
mod doctor;
pub mod feed;
pub mod gc;
mod logging;
pub mod ls;
pub mod plan;
pub mod progress;
mod quickstart;
pub mod report;
pub mod run;
mod schema;
pub mod spec_args;
mod stages;
pub mod test;
mod validate;
pub mod verify;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::error::{Error, Result};
pub use dataset_args::{DatasetArgs, StoresArgs};
pub use logging::LogFormat;
pub use spec_args::SpecArgs;

/// From raw Parquet shards to training batches.
#[derive(Debug, Parser)]
#[command(
    name = "feedline",
    version,
    about,
    long_about = "Feedline turns raw shards into training batches.\n\nOne YAML file says where the shards lie, what happens to them, and how a trainer gets them.",
    after_help = "Begin with:\n  feedline quickstart\n\nExit codes: 0 done, 1 a check failed, 3 a run failed, 64 wrong usage, 75 try again later, 78 the spec is wrong.",
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What holds for every command.
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// What holds for every command.
#[derive(Debug, Clone, Copy, Args)]
pub struct GlobalArgs {
    /// How the log is written to stderr. RUST_LOG chooses what is logged.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "FEEDLINE_LOG_FORMAT")]
    pub log_format: LogFormat,
    /// No progress bars, and only errors in the log.
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a pipeline and publish a version of its dataset.
    Run(run::RunArgs),
    /// Check a spec: every mistake at once, each with its place.
    Validate(validate::ValidateArgs),
    /// Show what a run would do: stages, engines, columns, units and passes.
    Plan(plan::PlanArgs),
    /// Run the small cases that a spec brings along.
    Test(test::TestArgs),
    /// List the versions of a dataset.
    Ls(ls::LsArgs),
    /// Say what changed between two versions.
    Diff(diff::DiffArgs),
    /// Hash a version's shards again and compare.
    Verify(verify::VerifyArgs),
    /// Remove what no version needs.
    Gc(gc::GcArgs),
    /// Try whether a store is all that Feedline needs, and say what is wrong.
    Doctor(doctor::DoctorArgs),
    /// Send new data through a version's column stages, with what it learned.
    Apply(apply::ApplyArgs),
    /// Read batches as a trainer would, and say how fast they come.
    Feed(feed::FeedArgs),
    /// Show the quality report of a version.
    Report(report::ReportArgs),
    /// Write a small example to begin with, dirty data and a pipeline for it, and run it.
    Quickstart(quickstart::QuickstartArgs),
    /// List the stages, or show the page of one.
    Stages(stages::StagesArgs),
    /// Print the JSON Schema of a spec, for editors.
    Schema(schema::SchemaArgs),
    /// Print completions for a shell.
    Completions(completions::CompletionsArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    ExitCode::from(main_from(std::env::args_os()))
}

/// Runs a command line and gives its exit code.
fn main_from(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            // Printing fails only where the other end of a pipe has gone.
            let _ = e.print();
            return if e.use_stderr() { 64 } else { 0 };
        }
    };
    logging::start(cli.global);
    let json = cli.command.wants_json();
    match dispatch(cli.command, cli.global) {
        Ok(code) => code,
        Err(e) => {
            if json {
                // Where nobody reads stdout any more, stderr still tells.
                let _ = print(&format!("{:#}\n", serde_json::json!({ "error": error_json(&e) })));
            }
            print_error(&e, cli.global.log_format);
            e.exit_code()
        }
    }
}

impl Command {
    /// Whether stdout is read by a program: then it gets JSON, come what may.
    fn wants_json(&self) -> bool {
        match self {
            Self::Run(args) => args.json,
            Self::Validate(args) => args.json,
            Self::Ls(args) => args.json,
            Self::Diff(args) => args.json,
            Self::Verify(args) => args.json,
            Self::Feed(args) => args.json,
            Self::Doctor(args) => args.json,
            Self::Plan(_) | Self::Test(_) | Self::Gc(_) | Self::Apply(_) | Self::Report(_) => false,
            Self::Quickstart(_) | Self::Stages(_) | Self::Schema(_) | Self::Completions(_) => false,
        }
    }
}

fn dispatch(command: Command, global: GlobalArgs) -> Result<u8> {
    match command {
        Command::Run(args) => run::run(&args, global.quiet),
        Command::Plan(args) => plan::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Ls(args) => ls::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Gc(args) => gc::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Apply(args) => apply::run(&args),
        Command::Feed(args) => feed::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Validate(args) => validate::run(&args),
        Command::Quickstart(args) => quickstart::run(&args, global.quiet),
        Command::Stages(args) => stages::run(&args),
        Command::Schema(args) => schema::run(args),
        Command::Completions(args) => completions::run(args, &mut Cli::command()),
    }
}

/// Runs a future on so many threads.
pub(crate) fn block_on<T>(threads: usize, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads.max(1)).enable_all().build()?.block_on(work)
}

/// Writes a result to stdout. A reader that has gone (`feedline … | head`) is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

/// Whether stderr takes colours: it is a terminal, and `NO_COLOR` is unset or empty (no-color.org).
pub(crate) fn colored() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// What went wrong, where, why, and what to do: on stderr, or as one event in a JSON log.
fn print_error(e: &Error, format: LogFormat) {
    if format == LogFormat::Json {
        let cause = Some(causes(e).join(": ")).filter(|c| !c.is_empty());
        let mistakes = e.mistakes().map(serde_json::Value::to_string);
        tracing::error!(kind = ?e.kind(), place = e.place(), cause, hint = e.to_do(), mistakes, exit_code = e.exit_code(), "{}", e.summary());
        return;
    }
    let mut err = std::io::stderr().lock();
    // There is nobody left to tell where stderr is closed.
    let _ = err.write_all(error_text(e, colored()).as_bytes());
}

fn error_json(e: &Error) -> serde_json::Value {
    let kind = format!("{:?}", e.kind()).to_lowercase();
    serde_json::json!({
        "kind": kind, "message": e.summary(), "place": e.place(), "causes": causes(e), "hint": e.to_do(), "mistakes": e.mistakes(),
        "exit_code": e.exit_code(),
    })
}

fn error_text(e: &Error, color: bool) -> String {
    let paint = |code: &str, word: &str| if color { format!("\u{1b}[{code}m{word}\u{1b}[0m") } else { word.to_owned() };
    let mut text = format!("{} {}\n", paint("1;31", "error:"), e.message());
    if let Some(place) = e.place() {
        text += &format!("  {} {place}\n", paint("2", "at:"));
    }
    for cause in causes(e) {
        text += &format!("  {} {cause}\n", paint("2", "caused by:"));
    }
    if let Some(hint) = e.to_do() {
        text += &format!("  {} {hint}\n", paint("1;36", "hint:"));
    }
    text
}

/// The causes' texts, outermost first, without those that only repeat what was said.
fn causes(e: &Error) -> Vec<String> {
    let mut said = e.message().to_owned();
    let mut out = Vec::new();
    let mut next = std::error::Error::source(e);
    while let Some(cause) = next {
        let text = cause.to_string();
        if !said.contains(&text) {
            out.push(text.clone());
            said = text;
        }
        next = cause.source();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_sound_and_shows_an_example() {
        let command = Cli::command();
        command.clone().debug_assert();
        for sub in command.get_subcommands() {
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("feedline {}", sub.get_name())), "`feedline {}` has no example", sub.get_name());
        }
    }

    /// What is left out of `wants_json` would print nothing where it fails.
    #[test]
    fn every_command_with_json_is_known_to_want_it() {
        let mut seen = 0;
        for sub in Cli::command().get_subcommands().filter(|s| s.get_arguments().any(|a| a.get_id() == "json")) {
            let asked =
                |args: &[&str]| Cli::try_parse_from([&["feedline", sub.get_name(), "x"], args].concat()).unwrap().command.wants_json();
            assert!(asked(&["--json"]) && !asked(&[]), "{}", sub.get_name());
            seen += 1;
        }
        assert!(seen >= 6);
    }

    #[test]
    fn usage_errors_are_64_and_help_is_0() {
        let code = |args: &[&str]| main_from(std::iter::once("feedline").chain(args.iter().copied()).map(OsString::from));
        assert_eq!((code(&["--help"]), code(&["--version"]), code(&["stages", "--help"])), (0, 0, 0));
        assert_eq!((code(&["nonsense"]), code(&["validate"]), code(&["validate", "x", "--set", "y"])), (64, 64, 64));
        assert_eq!(code(&["validate", "/no/such/file.yaml"]), 64);
    }

    #[test]
    fn errors_say_what_where_why_and_what_to_do() {
        let cause = std::io::Error::other("the disk said no");
        let e = Error::storage("cannot write").at("out/x").hint("free space").because(cause);
        assert_eq!(error_text(&e, false), "error: cannot write\n  at: out/x\n  caused by: the disk said no\n  hint: free space\n");
        assert!(error_text(&e, true).starts_with("\u{1b}[1;31merror:\u{1b}[0m cannot write"));
        let repeating = Error::storage("failed: why").because(std::io::Error::other("why"));
        assert_eq!(error_text(&repeating, false), "error: failed: why\n");
    }
}
