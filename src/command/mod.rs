//! The command line: arguments in, one value out, errors in words.

pub mod arguments;
pub mod checks;
pub mod logger;
pub mod options;
pub mod serve;
pub mod start_error;

pub use arguments::Arguments;
pub use options::ServeOptions;
pub use start_error::StartError;

use crate::config::JavaFlags;

/// Does what the command line asks for: reads the configuration, starts the log lines, tells what the configuration
/// warns of, serves.
///
/// # Errors
/// Why the server did not start.
pub fn run(arguments: &Arguments) -> Result<(), StartError> {
    let options = ServeOptions::resolve(arguments, &JavaFlags::from_environment())?;
    logger::start(options.cfg.server_id.map(|id| id.0))?;
    let place =
        options.cfg.file.as_deref().map_or("configuration".to_owned(), |file| file.display().to_string());
    for warning in &options.cfg.warnings {
        log::warn!("{place}: {warning}");
    }
    serve::serve(&options)
}
