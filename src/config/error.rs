//! The one error of this room: where, what is wrong, and what to write instead.

use std::fmt;
use std::path::{Path, PathBuf};

/// A configuration that the server refuses to start with (rows O4, O5).
///
/// Displayed as `FILE:LINE: what is wrong. What to do.`, so that an editor can jump to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, if the value came from one.
    pub file: Option<PathBuf>,
    /// Line in that file, counted from 1.
    pub line: Option<usize>,
    /// What is wrong, naming key and value.
    pub what: String,
    /// What the operator can do about it.
    pub cure: String,
}

impl ConfigError {
    /// An error that is not about one line of a file.
    pub fn new(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { file: None, line: None, what: what.into(), cure: cure.into() }
    }

    /// The same error, said of `file` and, if known, of a line in it. A place that is already set stays.
    pub fn at(mut self, file: Option<&Path>, line: Option<usize>) -> Self {
        if self.file.is_none() {
            self.file = file.map(Path::to_path_buf);
            self.line = self.line.or(line);
        }
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{}:{line}: ", file.display())?,
            (Some(file), None) => write!(f, "{}: ", file.display())?,
            (None, _) => {}
        }
        write!(f, "{}. {}", self.what, self.cure)
    }
}

impl std::error::Error for ConfigError {}
