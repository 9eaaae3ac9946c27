//! One server per data directory.
//!
//! Two servers on one directory would write over each other's acknowledged records. An advisory lock (`flock`) on
//! `zkfast.lock` goes with the process, however it ends, so there is no stale lock to remove by hand. Apache takes no
//! lock and does not see this one.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

/// Name of the lock file in the data directory.
pub const LOCK_NAME: &str = "zkfast.lock";

/// Held as long as the server may touch the directory.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

/// Why the directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{} is in use by {holder}: stop that server first, or give this one another data directory", path.display())]
    Held {
        /// The directory.
        path: PathBuf,
        /// What the holder wrote about itself.
        holder: String,
    },
    /// A file operation failed.
    #[error("cannot lock {}: {source}; check that the directory exists and is writable", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DirectoryLock {
    /// Takes the lock of `directory` and writes there who has it.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn take(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join(LOCK_NAME);
        let io_error = |source| LockError::Io { path: path.clone(), source };
        // Not truncated before it is ours: the holder's words are for whoever comes second.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = (&file).take(200).read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "another process".to_owned(),
                    words => words.to_owned(),
                };
                return Err(LockError::Held { path: directory.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(io_error(source)),
        }
        let words = format!("zkfast, process {}\n", std::process::id());
        let written =
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(words.as_bytes()));
        // On a full disk the lock holds all the same; only the second comer learns less.
        drop(written);
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_comer_learns_who_holds_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let first = DirectoryLock::take(directory.path()).unwrap();
        let error = DirectoryLock::take(directory.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("zkfast, process {}", std::process::id())), "{error}");
        drop(first);
        DirectoryLock::take(directory.path()).unwrap();
    }
}
