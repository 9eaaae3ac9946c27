//! Where things lie in a data directory, and what its files are called (rows P1-P4).
//!
//! Only exact names count: `log.<hex>`, `snapshot.<hex>` with `.gz` or `.snappy`. Anything else in the directory (a
//! copy made by an operator, a half-written snapshot, a prepared segment) is left alone.

use std::{
    fs, io,
    path::{Path, PathBuf},
};
use zkfast_wire::Zxid;

/// The two directories of one server. They may be the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataDirs {
    /// `dataDir/version-2`: snapshots and epoch files.
    pub snapshots: PathBuf,
    /// `dataLogDir/version-2`: logs.
    pub logs: PathBuf,
}

/// A file whose name carries a zxid.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NamedFile {
    /// Log: its first transaction. Snapshot: the last one in it.
    pub zxid: Zxid,
    /// Where it is.
    pub path: PathBuf,
}

/// Why the directories cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirsError {
    /// A directory is missing and may not be made.
    #[error("{} does not exist and zookeeper.datadir.autocreate is false: create it, or correct dataDir or dataLogDir", .0.display())]
    Missing(PathBuf),
    /// A directory cannot be made, read or written.
    #[error("cannot {action} {}: {source}; check dataDir and dataLogDir, their owner and their mode", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Logs among the snapshots or snapshots among the logs, with two directories configured (P1).
    #[error(
        "{} holds {what} although dataDir and dataLogDir differ: one of them is probably set wrong; move its {what} to the other version-2 directory or correct zoo.cfg",
        path.display()
    )]
    Mixed {
        /// The directory.
        path: PathBuf,
        /// `logs` or `snapshots`.
        what: &'static str,
    },
}

impl DataDirs {
    /// The `version-2` directories below `dataDir` and `dataLogDir` (`dataDir` if unset).
    pub fn new(data_dir: &Path, data_log_dir: Option<&Path>) -> Self {
        Self {
            snapshots: data_dir.join("version-2"),
            logs: data_log_dir.unwrap_or(data_dir).join("version-2"),
        }
    }

    /// Makes what is missing (if `may_create`, P4) and refuses a mix-up (P1).
    ///
    /// # Errors
    /// [`DirsError`].
    pub fn prepare(&self, may_create: bool) -> Result<(), DirsError> {
        for path in [&self.snapshots, &self.logs] {
            let io_error = |action| move |source| DirsError::Io { action, path: path.clone(), source };
            if !path.try_exists().map_err(io_error("look for"))? {
                if !may_create {
                    return Err(DirsError::Missing(path.clone()));
                }
                fs::create_dir_all(path).map_err(io_error("create"))?;
                // The new names must survive a crash as well as what will be put below them.
                for parent in path.ancestors().skip(1).take(2).filter(|parent| !parent.as_os_str().is_empty())
                {
                    sync_names(parent).map_err(io_error("sync the parent of"))?;
                }
            }
        }
        if self.snapshots != self.logs {
            let reading = |path: &Path| {
                let path = path.to_owned();
                move |source| DirsError::Io { action: "read", path, source }
            };
            if !list(&self.snapshots, log_zxid).map_err(reading(&self.snapshots))?.is_empty() {
                return Err(DirsError::Mixed { path: self.snapshots.clone(), what: "logs" });
            }
            if !list(&self.logs, snapshot_zxid).map_err(reading(&self.logs))?.is_empty() {
                return Err(DirsError::Mixed { path: self.logs.clone(), what: "snapshots" });
            }
        }
        Ok(())
    }

    /// The file `initialize` beside the logs' `version-2`: the operator vouches that the disk may be empty (P4).
    pub fn initialize_file(&self) -> PathBuf {
        self.logs.with_file_name("initialize")
    }

    /// All logs, oldest first.
    pub fn logs(&self) -> io::Result<Vec<NamedFile>> {
        list(&self.logs, log_zxid)
    }

    /// All files named as snapshots, oldest first.
    pub fn snapshots(&self) -> io::Result<Vec<NamedFile>> {
        list(&self.snapshots, snapshot_zxid)
    }
}

/// Makes the names in a directory durable.
pub fn sync_names(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

/// Index of the log in `logs` (oldest first) in which to start reading for `wanted` (P15): the newest whose name is
/// not above it, or else the oldest.
pub fn first_log_for(logs: &[NamedFile], wanted: Zxid) -> usize {
    logs.partition_point(|log| log.zxid <= wanted).saturating_sub(1)
}

fn hex(text: &str) -> Option<Zxid> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    // Parsed as unsigned, as Java prints negative longs.
    is_plain.then(|| u64::from_str_radix(text, 16).ok().map(|number| Zxid(number as i64)))?
}

fn log_zxid(name: &str) -> Option<Zxid> {
    hex(name.strip_prefix("log.")?)
}

fn snapshot_zxid(name: &str) -> Option<Zxid> {
    let rest = name.strip_prefix("snapshot.")?;
    hex(rest.strip_suffix(".gz").or_else(|| rest.strip_suffix(".snappy")).unwrap_or(rest))
}

fn list(directory: &Path, zxid: fn(&str) -> Option<Zxid>) -> io::Result<Vec<NamedFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if let Some(zxid) = entry.file_name().to_str().and_then(zxid) {
            files.push(NamedFile { zxid, path: entry.path() });
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_names_count() {
        for (name, log, snapshot) in [
            ("log.1", Some(1), None),
            ("log.2000000ab", Some(0x2_0000_00ab), None),
            ("log.", None, None),
            ("log.+1", None, None),
            ("log.1.bak", None, None),
            ("prepared-1", None, None),
            ("snapshot.0", None, Some(0)),
            ("snapshot.1f.gz", None, Some(0x1f)),
            ("snapshot.1f.snappy", None, Some(0x1f)),
            ("snapshot.1f.tmp", None, None),
            ("writing-snapshot.1f", None, None),
        ] {
            assert_eq!(log_zxid(name), log.map(Zxid), "{name}");
            assert_eq!(snapshot_zxid(name), snapshot.map(Zxid), "{name}");
        }
    }

    #[test]
    fn reading_starts_in_the_newest_log_not_above_the_wanted_zxid() {
        let log = |zxid| NamedFile { zxid: Zxid(zxid), path: PathBuf::new() };
        let logs = [log(5), log(10), log(20)];
        for (wanted, index) in [(1, 0), (5, 0), (9, 0), (10, 1), (19, 1), (20, 2), (99, 2)] {
            assert_eq!(first_log_for(&logs, Zxid(wanted)), index, "wanted {wanted}");
        }
        assert_eq!(first_log_for(&[], Zxid(3)), 0);
    }

    /// P1: with separate directories a mix-up means that one of them is wrong.
    #[test]
    fn logs_among_snapshots_are_refused_only_with_two_directories() {
        let root = tempfile::tempdir().unwrap();
        let one = DataDirs::new(&root.path().join("one"), None);
        one.prepare(true).unwrap();
        fs::write(one.logs.join("log.1"), b"").unwrap();
        one.prepare(true).unwrap();
        let two = DataDirs::new(&root.path().join("one"), Some(&root.path().join("two")));
        assert!(matches!(two.prepare(true), Err(DirsError::Mixed { what: "logs", .. })));
        let turned = DataDirs::new(&root.path().join("two"), Some(&root.path().join("one")));
        turned.prepare(true).unwrap();
        fs::write(turned.logs.join("snapshot.3"), b"").unwrap();
        assert!(matches!(turned.prepare(true), Err(DirsError::Mixed { what: "snapshots", .. })));
        let absent = DataDirs::new(&root.path().join("three"), None);
        assert!(matches!(absent.prepare(false), Err(DirsError::Missing(_))));
    }
}
