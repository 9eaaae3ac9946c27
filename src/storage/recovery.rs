//! The road back: the newest valid snapshot and every transaction behind it (rows P10, P15, P29-P32).
//!
//! Runs once, before anybody is served. Nothing on the disk changes before snapshot and logs were read and judged;
//! what then changes (a torn tail is cut, an empty log removed) may be interrupted and done again.
//!
//! Promises: a tree that holds every acknowledged transaction, or a refusal that names file, offset and zxid.

use super::{
    data_dirs::DataDirs,
    history::{self, Run},
    map::FileMap,
    records::Records,
    replay::{self, GapCause, Repair, ReplayError, Replayed},
    snapshot::{self, InvalidSnapshot, SnapshotError, SnapshotFile, SnapshotOptions},
};
use bytes::Bytes;
use std::{
    io,
    path::PathBuf,
    time::{Duration, Instant},
};
use zkfast_tree::{ApplyError, EphemeralParent, Tree, TreeConfig};
use zkfast_wire::Zxid;

/// Snapshots tried, newest first (P29).
pub const SNAPSHOTS_TRIED_MAX: usize = 100;

/// Why the server must not start on these files.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The logs cannot be used as they are.
    #[error(transparent)]
    Log(#[from] ReplayError),
    /// There are snapshots, but none is valid.
    #[error(
        "none of {tried} snapshots in {} is valid; the newest, {newest}: {reason}. Restore one from a backup; or, in an \
         ensemble, move this server's version-2 directory away and let it copy the state of the others",
        path.display()
    )]
    NoValidSnapshot {
        /// The snapshot directory.
        path: PathBuf,
        /// How many were tried.
        tried: usize,
        /// Name of the newest.
        newest: String,
        /// What is wrong with it.
        reason: InvalidSnapshot,
    },
    /// The newest snapshot is damaged, and the logs do not lead from an older one to its state.
    #[error(
        "{} is damaged ({reason}), and the logs behind the next older snapshot do not lead to its state: they have \
         nothing between {before} and {zxid}, so acknowledged transactions would be gone. Restore the file from a backup; or, in an \
         ensemble, move this server's version-2 directory away and let it copy the state of the others; or move only \
         the snapshot away, and lose what it held",
        path.display()
    )]
    SnapshotLost {
        /// The snapshot.
        path: PathBuf,
        /// What is wrong with it.
        reason: InvalidSnapshot,
        /// Its last transaction, or an earlier one.
        zxid: Zxid,
        /// The last transaction before it that is still there.
        before: Zxid,
    },
    /// There are logs but no snapshot at all.
    #[error(
        "there are logs in {} but no snapshot: the state they continue is missing. Restore a snapshot from a backup; \
         or, if this server was upgraded from ZooKeeper 3.4 and never wrote one, start once with \
         zookeeper.snapshot.trust.empty=true",
        path.display()
    )]
    NoSnapshot {
        /// The log directory.
        path: PathBuf,
    },
    /// A transaction cannot be applied.
    #[error("transaction {zxid} at byte {offset} of {} cannot be applied: {source}", path.display())]
    Transaction {
        /// The log file.
        path: PathBuf,
        /// Byte offset of the record.
        offset: u64,
        /// The transaction.
        zxid: Zxid,
        /// What is wrong.
        source: ApplyError,
    },
    /// Nodes of a kind that is not enabled.
    #[error(
        "the znode {} has children and belongs to 0x{:x}, which is no session here: it was created as a TTL node. Start the \
         server with extendedTypesEnabled=true in zoo.cfg (or -Dzookeeper.extendedTypesEnabled=true in JVMFLAGS), as it had \
         when the znode was created",
        .0.path, .0.owner.0
    )]
    TtlNodes(#[from] EphemeralParent),
    /// The first snapshot of an empty disk cannot be written.
    #[error(transparent)]
    FirstSnapshot(#[from] SnapshotError),
    /// A directory cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// How to recover.
#[derive(Clone, Debug, Default)]
pub struct RecoveryOptions {
    /// `snapshot.trust.empty`: logs without any snapshot continue an empty tree.
    pub trusts_empty: bool,
    /// A disk with neither logs nor snapshots is not taken for the beginning (P4): it gets no snapshot.
    pub doubts_empty: bool,
    /// How the first snapshot of an empty disk is written.
    pub snapshot: SnapshotOptions,
    /// How many bytes of log before the snapshot may be read to learn how far back history can be told to others; 0
    /// on a server that has no others.
    pub told_bytes_max: u64,
}

/// The snapshot that the tree was built from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsedSnapshot {
    /// Last transaction in it.
    pub zxid: Zxid,
    /// The file.
    pub path: PathBuf,
    /// Plain bytes.
    pub bytes: u64,
    /// Time to read, verify and load it.
    pub elapsed: Duration,
}

/// A snapshot that was passed over: to be logged as a warning.
#[derive(Debug)]
pub struct SkippedSnapshot {
    /// The file.
    pub path: PathBuf,
    /// Its last transaction, or an earlier one, by its name.
    pub zxid: Zxid,
    /// What is wrong with it.
    pub reason: InvalidSnapshot,
}

/// What recovery found.
pub struct Recovered {
    /// The state behind the last transaction.
    pub tree: Tree,
    /// Last zxid on the disk, committed or not (P31).
    pub last: Zxid,
    /// `None` on a disk that was empty (a first snapshot was written then) or trusted to be.
    pub snapshot: Option<UsedSnapshot>,
    /// The state from which on the logs hold every transaction: that of the snapshot, or of an older one.
    pub floor: Zxid,
    /// The transactions after it.
    pub history: Vec<Run>,
    /// Snapshots that are not valid.
    pub skipped: Vec<SkippedSnapshot>,
    /// What was read from the logs, with the repairs that were carried out.
    pub replayed: Replayed,
    /// Time of the whole recovery.
    pub elapsed: Duration,
}

impl Recovered {
    /// Whether the disk held nothing.
    pub fn is_empty(&self) -> bool {
        self.snapshot.is_none() && self.replayed.records == 0
    }

    /// The torn tail that was cut, if there was one: file and its good bytes.
    pub fn cut(&self) -> Option<(&PathBuf, u64)> {
        self.replayed.repairs.iter().find_map(|repair| match repair {
            Repair::Cut { path, bytes } => Some((path, *bytes)),
            Repair::Remove { .. } => None,
        })
    }
}

/// Recovers the state from `dirs`, which must exist and be locked.
///
/// On an empty disk a first snapshot, of the initial tree, is written before this returns, so that logs are never
/// without a snapshot before them.
///
/// # Errors
/// [`RecoveryError`]: do not start.
pub fn recover(
    dirs: &DataDirs,
    config: &TreeConfig,
    options: &RecoveryOptions,
) -> Result<Recovered, RecoveryError> {
    let started = Instant::now();
    let reading = |path: &PathBuf| {
        let path = path.clone();
        move |source| RecoveryError::Io { path, source }
    };
    snapshot::remove_unfinished(dirs).map_err(reading(&dirs.snapshots))?;
    let (loaded, skipped) = newest_valid(dirs, config).map_err(reading(&dirs.snapshots))?;
    let mut skipped = skipped;
    let (mut tree, snapshot) = match loaded {
        Some((tree, used)) => (tree, Some(used)),
        None if !skipped.is_empty() => {
            let (tried, newest) = (skipped.len(), skipped.swap_remove(0));
            return Err(RecoveryError::NoValidSnapshot {
                path: dirs.snapshots.clone(),
                tried,
                newest: newest.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                reason: newest.reason,
            });
        }
        None if !options.trusts_empty && has_records(dirs).map_err(reading(&dirs.logs))? => {
            return Err(RecoveryError::NoSnapshot { path: dirs.logs.clone() });
        }
        None => (Tree::new(config.clone()), None),
    };
    let after = snapshot.as_ref().map_or(Zxid::ZERO, |used| used.zxid);
    let (mut floor, mut history) = (after, Vec::new());
    if let (Some(used), 1..) = (&snapshot, options.told_bytes_max)
        && let Some(told) =
            history::before(dirs, used.zxid, options.told_bytes_max).map_err(reading(&dirs.logs))?
    {
        (floor, history) = told;
    }
    let mut replayed = replay::replay::<RecoveryError>(dirs, after, |place| {
        if place.is_behind_hole {
            // Whether this follows on what was there before nobody knows: others must not be told that it does.
            history.clear();
            floor = place.zxid;
        } else {
            history::add_to_runs(&mut history, place.zxid);
        }
        // Copied: the tree may keep parts of a record, and must not keep the whole log mapped by them.
        let record = Bytes::copy_from_slice(place.transaction);
        match tree.apply(&record) {
            Ok(_) => Ok(()),
            Err(source) => Err(RecoveryError::Transaction {
                path: place.path.to_owned(),
                offset: place.offset,
                zxid: place.zxid,
                source,
            }),
        }
    })?;
    if let Some((index, before)) = first_lost(&skipped, &replayed) {
        let SkippedSnapshot { path, zxid, reason } = skipped.swap_remove(index);
        return Err(RecoveryError::SnapshotLost { path, reason, zxid, before });
    }
    replay::repair(dirs, &replayed)?;
    tree.settle_digest();
    tree.remove_dead_ephemerals()?;
    if snapshot.is_none() && replayed.records == 0 && !options.doubts_empty {
        snapshot::write(tree.image(), dirs, options.snapshot)?;
    }
    replayed.last = replayed.last.max(after);
    let last = replayed.last;
    Ok(Recovered { tree, last, floor, history, snapshot, skipped, replayed, elapsed: started.elapsed() })
}

/// A snapshot that was passed over and whose state the logs do not lead to, with the last transaction before it.
///
/// One that was never finished counts only if the logs go on behind it: its server died while it wrote it, maybe as a
/// learner whose log does not lead there, and had promised nothing on its strength yet.
fn first_lost(skipped: &[SkippedSnapshot], replayed: &Replayed) -> Option<(usize, Zxid)> {
    skipped.iter().enumerate().find_map(|(index, skipped)| {
        let hole = replayed.gaps.iter().find(|gap| {
            let is_unknown = matches!(gap.cause, GapCause::Unknown { .. });
            is_unknown && gap.after < skipped.zxid && skipped.zxid < gap.found
        });
        let is_behind_all =
            skipped.zxid > replayed.last && !matches!(skipped.reason, InvalidSnapshot::Unfinished);
        hole.map(|gap| gap.after).or(is_behind_all.then_some(replayed.last)).map(|before| (index, before))
    })
}

type Loaded = Option<(Tree, UsedSnapshot)>;

/// The newest snapshot that parses with a good checksum, and those passed over before it.
fn newest_valid(dirs: &DataDirs, config: &TreeConfig) -> io::Result<(Loaded, Vec<SkippedSnapshot>)> {
    let mut skipped = Vec::new();
    for candidate in dirs.snapshots()?.into_iter().rev().take(SNAPSHOTS_TRIED_MAX) {
        let started = Instant::now();
        let loaded = SnapshotFile::open(&candidate.path)
            .and_then(|file| Ok((file.load(config.clone(), candidate.zxid)?, file.len() as u64)));
        match loaded {
            Ok((tree, bytes)) => {
                let used = UsedSnapshot {
                    zxid: candidate.zxid,
                    path: candidate.path,
                    bytes,
                    elapsed: started.elapsed(),
                };
                return Ok((Some((tree, used)), skipped));
            }
            // Nothing is wrong with it that an older one would mend.
            Err(InvalidSnapshot::Io(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                let what = format!(
                    "{}: {error}; give it to the user that runs the server (chown)",
                    candidate.path.display()
                );
                return Err(io::Error::new(error.kind(), what));
            }
            Err(reason) => {
                skipped.push(SkippedSnapshot { path: candidate.path, zxid: candidate.zxid, reason });
            }
        }
    }
    Ok((None, skipped))
}

/// Whether any log holds a transaction.
fn has_records(dirs: &DataDirs) -> io::Result<bool> {
    for log in dirs.logs()? {
        if Records::new(&FileMap::open(&log.path)?).next().is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
