//! `currentEpoch` and `acceptedEpoch` (row Q71; ZooKeeper's `QuorumPeer`).
//!
//! ASCII decimal in `dataDir/version-2`. Written to a `.tmp` file, synced, renamed, and the directory synced: after a
//! crash there is the old number or the new one (ZOOKEEPER-1653, 2307: half-written epochs kept servers from
//! starting). It blocks. What numbers mean that contradict one another or the log is decided by `zkfast_zab`.

use super::data_dirs::sync_names;
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};
use zkfast_wire::Epoch;

/// Which of the two numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EpochFile {
    /// Epoch whose history this server has taken over (persisted before it acknowledges NEWLEADER).
    Current,
    /// Highest epoch that this server promised to a leader.
    Accepted,
}

impl EpochFile {
    /// Its name in `version-2`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Current => "currentEpoch",
            Self::Accepted => "acceptedEpoch",
        }
    }

    /// What may be written into it where it is damaged. A promise must not be taken back, so an accepted epoch may be too
    /// high but not too low; the leader to whom it was made has accepted it too.
    const fn cure(self) -> &'static str {
        match self {
            Self::Current => "write the epoch of the newest zxid into it",
            Self::Accepted => {
                "write the highest number into it that the acceptedEpoch or currentEpoch of any server of the ensemble \
                 holds (look at all of them; one that is too low can cost committed transactions)"
            }
        }
    }
}

/// Why the epochs are unusable.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// Not a decimal number, or one that no zxid has room for.
    #[error("{} does not hold an epoch but {found:?}: {}, or remove the server's version-2 directory and let it copy the state of the others", path.display(), file.cure())]
    NotANumber {
        /// Which number.
        file: EpochFile,
        /// The file.
        path: PathBuf,
        /// Its first line, cut to 64 characters.
        found: String,
    },
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads one number; `None` if there is no such file.
///
/// # Errors
/// [`EpochError::NotANumber`], [`EpochError::Io`].
pub fn read(directory: &Path, file: EpochFile) -> Result<Option<Epoch>, EpochError> {
    let path = directory.join(file.name());
    let text = match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(EpochError::Io { action: "read", path, source }),
    };
    let line = text.lines().next().unwrap_or_default();
    match line.trim().parse() {
        Ok(number) if number <= Epoch::LAST.0 => Ok(Some(Epoch(number))),
        // No zxid of such an epoch can be made, and no leader follows on it.
        Ok(_) | Err(_) => Err(EpochError::NotANumber { file, path, found: line.chars().take(64).collect() }),
    }
}

/// Writes one number; durable on return.
///
/// # Errors
/// [`EpochError::Io`]: the old number is still there.
pub fn write(directory: &Path, file: EpochFile, epoch: Epoch) -> Result<(), EpochError> {
    let text = epoch.0.to_string();
    match replace(directory, file, &text) {
        Err(EpochError::Io { source, .. }) if is_full(&source) => overwrite(directory, file, &text),
        outcome => outcome,
    }
}

fn replace(directory: &Path, file: EpochFile, text: &str) -> Result<(), EpochError> {
    let path = directory.join(file.name());
    let temporary = directory.join(format!("{}.tmp", file.name()));
    let io_error = |action| {
        let path = path.clone();
        move |source| EpochError::Io { action, path, source }
    };
    let mut out = File::create(&temporary).map_err(io_error("write"))?;
    out.write_all(text.as_bytes()).map_err(io_error("write"))?;
    out.sync_all().map_err(io_error("sync"))?;
    fs::rename(&temporary, &path).map_err(io_error("rename"))?;
    sync_names(directory).map_err(io_error("sync the directory of"))
}

/// A full disk need not cost a server its vote: a number of as many digits is written over the old one. Both lie in one
/// sector, which is on the medium as a whole or not at all.
fn overwrite(directory: &Path, file: EpochFile, text: &str) -> Result<(), EpochError> {
    let path = directory.join(file.name());
    let temporary = directory.join(format!("{}.tmp", file.name()));
    let write = || {
        if fs::metadata(&path)?.len() != text.len() as u64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        // Empty, or half of a number.
        let _ = fs::remove_file(&temporary);
        let mut out = File::options().write(true).open(&path)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()
    };
    write().map_err(|source| EpochError::Io { action: "write", path: path.clone(), source })
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_plain_decimal_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(read(path, EpochFile::Current).unwrap(), None);
        write(path, EpochFile::Current, Epoch(12)).unwrap();
        write(path, EpochFile::Accepted, Epoch(13)).unwrap();
        assert_eq!(fs::read(path.join("currentEpoch")).unwrap(), b"12");
        assert_eq!(read(path, EpochFile::Accepted).unwrap(), Some(Epoch(13)));
        fs::write(path.join("currentEpoch"), b"7\nand a second line").unwrap();
        assert_eq!(read(path, EpochFile::Current).unwrap(), Some(Epoch(7)));
        for wrong in ["", "seven", "2147483648", "99999999999999999999"] {
            fs::write(path.join("currentEpoch"), wrong).unwrap();
            let read = read(path, EpochFile::Current);
            assert!(matches!(read, Err(EpochError::NotANumber { .. })), "{wrong}: {read:?}");
        }
    }

    /// Danger: who follows the advice takes back a promise that the server has made to a leader: the newest zxid may be of
    /// an older epoch.
    #[test]
    fn the_advice_for_a_damaged_promise_takes_none_back() {
        let directory = tempfile::tempdir().unwrap();
        let advice = |file: EpochFile| {
            fs::write(directory.path().join(file.name()), "seven").unwrap();
            read(directory.path(), file).unwrap_err().to_string()
        };
        let current = advice(EpochFile::Current);
        assert!(
            current.contains("currentEpoch does not") && current.contains("the newest zxid"),
            "{current}"
        );
        let accepted = advice(EpochFile::Accepted);
        assert!(accepted.contains("the highest number") && accepted.contains("any server"), "{accepted}");
        assert!(!accepted.contains("zxid"), "{accepted}");
    }

    /// Danger: half of a number is taken for it, or a longer one.
    #[test]
    fn a_number_is_written_over_one_of_as_many_digits() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        write(path, EpochFile::Accepted, Epoch(98)).unwrap();
        fs::write(path.join("acceptedEpoch.tmp"), b"").unwrap();
        overwrite(path, EpochFile::Accepted, "99").unwrap();
        assert_eq!(read(path, EpochFile::Accepted).unwrap(), Some(Epoch(99)));
        assert!(!path.join("acceptedEpoch.tmp").exists());
        assert!(overwrite(path, EpochFile::Accepted, "100").is_err());
        assert!(overwrite(path, EpochFile::Current, "1").is_err(), "there is none");
        assert_eq!(read(path, EpochFile::Accepted).unwrap(), Some(Epoch(99)));
    }
}
