//! The `zkfast` process: words on the command line in, exit code out.
//!
//! Exit codes (Apache's, row O6): 0 after an orderly stop, 1 if the server could not start or its log failed, 2 for a
//! wrong command line or configuration, 3 for a data directory that cannot be used, 14 for a port of the ensemble that
//! cannot be bound. The verbs of `zkServer.sh` have its exit codes.

use std::process::ExitCode;
use zkfast::command::{CommandLine, run};

/// The tree lives on many small blocks of a few sizes, made and freed by one core.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = run(&CommandLine::read(std::env::args_os()));
    log::logger().flush();
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("zkfast: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
