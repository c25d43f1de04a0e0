//! The `feedline` command.

use std::process::ExitCode;

/// Batches are many allocations of a few sizes from many threads: mimalloc keeps them apart, and gives memory back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    feedline::cli::main()
}
