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

/// A thread that panics takes the process with it, in builds for tests too (the release profile aborts by itself): a
/// server without its pipeline, or without one of its cores, would hold its ports and its votes and serve nobody.
fn abort_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        // What led there is still on its way to standard error.
        log::logger().flush();
        std::process::abort();
    }));
}

fn main() -> ExitCode {
    abort_on_panic();
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
