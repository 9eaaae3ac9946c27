//! The `zkfast` process: words on the command line in, exit code out.
//!
//! Exit codes: 0 after an orderly stop, 1 if the server could not start or its log failed, 2 for a wrong command line.

use clap::Parser;
use std::process::ExitCode;
use zkfast::command::{Arguments, run};

/// The tree lives on many small blocks of a few sizes, made and freed by one core.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = run(&Arguments::parse());
    log::logger().flush();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zkfast: {error}");
            ExitCode::FAILURE
        }
    }
}
