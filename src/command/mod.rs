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

/// Does what the command line asks for.
///
/// # Errors
/// Why the server did not start.
pub fn run(arguments: &Arguments) -> Result<(), StartError> {
    let options = ServeOptions::resolve(arguments, &JavaFlags::from_environment())?;
    logger::start(options.cfg.server_id.map(|id| id.0))?;
    for warning in &options.cfg.warnings {
        log::warn!("{warning}");
    }
    serve::serve(&options)
}
