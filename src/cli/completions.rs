//! `feedline completions`

use clap::{Args, Command};
use clap_complete::Shell;

use super::print;
use crate::error::Result;

/// Options of `feedline completions`.
#[derive(Debug, Clone, Copy, Args)]
#[command(after_help = "Examples:
  feedline completions bash > ~/.local/share/bash-completion/completions/feedline
  feedline completions zsh > ~/.zfunc/_feedline
  feedline completions fish > ~/.config/fish/completions/feedline.fish")]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: CompletionsArgs, command: &mut Command) -> Result<u8> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, command, "feedline", &mut text);
    print(&String::from_utf8_lossy(&text))?;
    Ok(0)
}
