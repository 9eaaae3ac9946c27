//! The command line: arguments in, one value out, errors in words.

pub mod options;
