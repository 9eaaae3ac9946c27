//! Removes snapshots and logs that nobody needs any more (row P36; ZooKeeper's `PurgeTxnLog`).
//!
//! Only *verified* snapshots count: each of the ones to keep is read and its checksum compared (ZOOKEEPER-3231: a purge
//! that counted files deleted the only good one). Kept are the N newest of them, every log from the one in which the
//! oldest of them is continued, and every snapshot newer than that, valid or not. Runs on a helper; it blocks.

use super::{
    data_dirs::{DataDirs, NamedFile, first_log_for, sync_names},
    snapshot::SnapshotFile,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicI64, Ordering},
};
use zkfast_wire::Zxid;

/// Fewest snapshots to keep, whatever `autopurge.snapRetainCount` says.
pub const KEPT_MIN: usize = 3;

/// How far the logs were purged, for whoever tells history from them.
#[derive(Debug)]
pub struct PurgeMark(AtomicI64);

impl Default for PurgeMark {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }
}

impl PurgeMark {
    /// The zxid of the oldest snapshot that is kept: records through this one may be gone. The smallest zxid before the
    /// first purge.
    pub fn floor(&self) -> Zxid {
        Zxid(self.0.load(Ordering::Acquire))
    }

    fn raise(&self, floor: Zxid) {
        self.0.fetch_max(floor.0, Ordering::Release);
    }
}

/// What a purge did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Purged {
    /// Removed snapshots and logs, oldest first.
    pub removed: Vec<PathBuf>,
    /// Snapshots that failed the check, newest first: to be logged as a warning.
    pub invalid: Vec<PathBuf>,
}

/// A file operation of a purge failed. What was removed before was not needed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct PurgeError {
    /// What was attempted.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Keeps the `kept` newest verified snapshots (at least three) and the logs that continue them; removes what is older.
/// With fewer verified snapshots than that, nothing is removed. `mark` is raised before anything goes.
///
/// # Errors
/// [`PurgeError`].
pub fn purge(dirs: &DataDirs, kept: usize, mark: &PurgeMark) -> Result<Purged, PurgeError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| PurgeError { action, path, source }
    };
    let snapshots = dirs.snapshots().map_err(failed("list", &dirs.snapshots))?;
    let logs = dirs.logs().map_err(failed("list", &dirs.logs))?;
    let mut outcome = Purged::default();
    let Some(oldest_kept) = oldest_to_keep(&snapshots, kept.max(KEPT_MIN), &mut outcome.invalid) else {
        return Ok(outcome);
    };
    mark.raise(oldest_kept);
    // The snapshots first: interrupted, there are logs too many, never too few.
    let old_snapshots = snapshots.iter().filter(|snapshot| snapshot.zxid < oldest_kept);
    let needed_from = first_log_for(&logs, Zxid(oldest_kept.0.saturating_add(1)));
    for file in old_snapshots.chain(&logs[..needed_from]) {
        match fs::remove_file(&file.path) {
            // An image of the leader's has just taken the place of everything.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            removed => removed.map_err(failed("remove", &file.path))?,
        }
        outcome.removed.push(file.path.clone());
    }
    for directory in [&dirs.snapshots, &dirs.logs] {
        sync_names(directory).map_err(failed("sync", directory))?;
    }
    Ok(outcome)
}

/// Zxid of the oldest snapshot to keep: the `kept`-th verified one from the newest.
fn oldest_to_keep(snapshots: &[NamedFile], kept: usize, invalid: &mut Vec<PathBuf>) -> Option<Zxid> {
    let mut verified = 0;
    for snapshot in snapshots.iter().rev() {
        match SnapshotFile::open(&snapshot.path) {
            Ok(_) => verified += 1,
            Err(_) => invalid.push(snapshot.path.clone()),
        }
        if verified == kept {
            return Some(snapshot.zxid);
        }
    }
    None
}
