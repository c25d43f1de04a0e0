//! The `feedline` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    feedline::cli::main()
}
