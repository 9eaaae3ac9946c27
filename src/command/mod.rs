//! The command line: arguments in, one value out, errors in words.

pub mod arguments;
pub mod checks;
pub mod logger;
pub mod options;
pub mod start_error;

pub use arguments::Arguments;
pub use options::ServeOptions;
pub use start_error::StartError;
