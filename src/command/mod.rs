//! The command line: arguments in, an exit code out, errors in words.

pub mod arguments;
pub mod checks;
mod daemon;
pub mod logger;
mod member;
pub mod options;
mod probe;
pub mod serve;
pub mod start_error;
mod verbs;

pub use arguments::{Arguments, CommandLine};
pub use options::ServeOptions;
pub use start_error::StartError;

use crate::config::JavaFlags;
use std::process::ExitCode;

/// Does what the command line asks for: a verb of `zkServer.sh`, or to serve.
///
/// # Errors
/// Why the server did not start.
pub fn run(line: &CommandLine) -> Result<ExitCode, StartError> {
    match &line.verb {
        None => run_server(&line.serve),
        Some(verb) => verbs::run(verb),
    }
}

/// Reads the configuration, starts the log lines, tells what the configuration warns of, serves in the foreground.
fn run_server(arguments: &Arguments) -> Result<ExitCode, StartError> {
    if arguments.detached {
        daemon::detach();
    }
    let options = ServeOptions::resolve(arguments, &JavaFlags::from_environment())?;
    logger::start(options.cfg.server_id.map(|id| id.0))?;
    let place =
        options.cfg.file.as_deref().map_or("configuration".to_owned(), |file| file.display().to_string());
    for warning in &options.cfg.warnings {
        log::warn!("{place}: {warning}");
    }
    serve::serve(&options)?;
    Ok(ExitCode::SUCCESS)
}
