//! Reads the logs back, from the right file to the last record, and says what must be repaired (rows P9, P10, P15,
//! P31).
//!
//! Reading and repairing are two steps: nothing on the disk changes before everything was read and judged, and each
//! repair may be interrupted and done again.
//!
//! Promises: records come in strictly rising zxid order; none that was logged is missing, from the snapshot on, as far as
//! the files can tell; only the last log with anything in it may be torn.
//!
//! A zxid that is not there need not be lost. Apache's leader uses one up without logging anything when it fails to
//! prepare a multi (a part without a path, say), and its own followers and restarts take no notice. Within a file nothing
//! can be lost without being seen. Between two files the later one, if it is ours, says what was the last transaction
//! before it (`segment`): if that is there, nothing is lost; if not, a file is, and the server must not start. Where the
//! later file cannot say, it is told loudly, and what lies before the hole is not handed on to other servers.

use super::{
    data_dirs::{DataDirs, NamedFile, first_log_for, sync_names},
    map::FileMap,
    records::{Ending, Records},
    segment::LOG_HEADER,
    tail::{self, Verdict},
};
use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};
use zkfast_wire::Zxid;

/// Why the logs cannot be used as they are.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Acknowledged records may be lost.
    #[error(
        "{} is damaged at byte {offset}, behind zxid {after} ({ending:?}): acknowledged transactions may be gone, so it is not cut. \
         Restore the file from a backup; or, in an ensemble, move this server's version-2 directory away and let it \
         copy the state of the others; or cut the log there by hand and lose what follows",
        path.display()
    )]
    Damaged {
        /// The log file.
        path: PathBuf,
        /// Where reading stopped.
        offset: u64,
        /// The last good transaction before.
        after: Zxid,
        /// What was found there.
        ending: Ending,
    },
    /// A log that is not the last one is empty, or a file is no log at all.
    #[error("{} is not a transaction log ({reason}): restore it from a backup, or remove it if it is not one of this server's", path.display())]
    NotALog {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// Transactions are missing between two files, or between the snapshot and the first one.
    #[error(
        "transactions are missing: {found} in {} (byte {offset}) was logged behind {previous}, but what is there ends with \
         {after}; a log file is gone, or the end of the one before. Restore it from a backup; or, in an ensemble, move \
         this server's version-2 directory away and let it copy the state of the others",
        path.display()
    )]
    Missing {
        /// The log file.
        path: PathBuf,
        /// Where the later record lies.
        offset: u64,
        /// The last transaction before the hole.
        after: Zxid,
        /// The last transaction that was in the log when the file was begun.
        previous: Zxid,
        /// The first one behind it.
        found: Zxid,
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

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ReplayError + 'a {
    move |source| {
        let source = match source.kind() {
            io::ErrorKind::PermissionDenied => {
                let what = format!("{source}; give it to the user that runs the server (chown)");
                io::Error::new(source.kind(), what)
            }
            _ => source,
        };
        ReplayError::Io { action, path: path.to_owned(), source }
    }
}

/// Something on the disk that the next server must not find as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Repair {
    /// Cut a torn tail: nothing behind `bytes` was acknowledged.
    Cut {
        /// The log file.
        path: PathBuf,
        /// Its good bytes.
        bytes: u64,
    },
    /// Remove a log without a record. Its name is the zxid that the next transaction will get.
    Remove {
        /// The log file.
        path: PathBuf,
    },
}

/// Zxids of one epoch without a transaction, between two that have one. Of several that were never logged and whose
/// later neighbours are in one file, the first is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gap {
    /// The transaction before.
    pub after: Zxid,
    /// The one behind.
    pub found: Zxid,
    /// The file of the one behind.
    pub path: PathBuf,
    /// How it came about, as far as the files can tell.
    pub cause: GapCause,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, first, last) = (self.path.display(), Zxid(self.after.0 + 1), Zxid(self.found.0 - 1));
        let zxids = if first == last {
            format!("no transaction {first}")
        } else {
            format!("none of {first} to {last}")
        };
        match &self.cause {
            GapCause::NeverLogged { count } => write!(
                f,
                "{path} has {zxids}: nobody ever logged it ({count} such gaps in the file). Apache's leader uses up a zxid \
                 so when it cannot prepare a multi"
            ),
            GapCause::Unknown { before } => {
                let before = before.as_ref().map_or_else(
                    || format!("the snapshot at {}", self.after),
                    |before| format!("{}, which ends with {}", before.display(), self.after),
                );
                write!(
                    f,
                    "there is {zxids} between {before} and {path}, which begins with {}. Either an Apache leader used up \
                     those zxids without a transaction, which it does when it cannot prepare a multi; or a log file is \
                     GONE, and the state that is served now lacks what was in it: compare with the other servers of the \
                     ensemble, or with a backup",
                    self.found
                )
            }
        }
    }
}

/// How zxids came to have no transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GapCause {
    /// Nobody ever logged them: both neighbours are in one file, which has so many gaps, or the later file says so.
    NeverLogged {
        /// Gaps in the file.
        count: u64,
    },
    /// They may have been in a file that is gone.
    Unknown {
        /// The file before, if any was read.
        before: Option<PathBuf>,
    },
}

/// What was read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Replayed {
    /// The last zxid in the logs, or the one to start behind.
    pub last: Zxid,
    /// Records handed out.
    pub records: u64,
    /// Records that were not above the one before, and skipped.
    pub repeated: u64,
    /// Zxids without a transaction: to be told in the server's log.
    pub gaps: Vec<Gap>,
    /// To be carried out with [`repair`], in this order.
    pub repairs: Vec<Repair>,
    /// Files that were read.
    pub files: Vec<PathBuf>,
}

/// Hands every record above `after` to `apply`, in order.
///
/// # Errors
/// `E` from [`ReplayError`] or from `apply`, which ends the reading.
pub fn replay<E: From<ReplayError>>(
    dirs: &DataDirs,
    after: Zxid,
    mut apply: impl FnMut(Place<'_>) -> Result<(), E>,
) -> Result<Replayed, E> {
    let logs = dirs.logs().map_err(io_error("list", &dirs.logs))?;
    let wanted = Zxid(after.0.saturating_add(1));
    let needed = &logs[first_log_for(&logs, wanted)..];
    let mut outcome = Replayed { last: after, ..Replayed::default() };
    // The newest zxid of any record seen, those below the snapshot included.
    let mut newest = None;

    let used = needed.len() - empty_at_the_end(needed)?;
    for (index, log) in needed[..used].iter().enumerate() {
        let bytes = FileMap::open(&log.path).map_err(io_error("open", &log.path))?;
        check_header(log, &bytes)?;
        let mut records = Records::new(&bytes);
        let previous = tail::previous(&bytes);
        let mut is_first = true;
        let mut gap_inside = None;
        for record in records.by_ref() {
            // Within a file the record before stands before: nothing is lost between the two.
            let is_first = std::mem::take(&mut is_first);
            if newest.is_some_and(|newest| record.zxid <= newest) {
                outcome.repeated += 1;
                continue;
            }
            newest = Some(record.zxid);
            if record.zxid <= after {
                continue;
            }
            if is_first && let Some(previous) = previous.filter(|previous| *previous > outcome.last) {
                Err(ReplayError::Missing {
                    path: log.path.clone(),
                    offset: record.offset as u64,
                    after: outcome.last,
                    previous,
                    found: record.zxid,
                })?;
            }
            let has_gap = record.zxid.epoch() == outcome.last.epoch() && record.zxid.0 != outcome.last.0 + 1;
            let is_behind_hole = has_gap && is_first && previous.is_none();
            if has_gap {
                let gap = Gap {
                    after: outcome.last,
                    found: record.zxid,
                    path: log.path.clone(),
                    cause: GapCause::NeverLogged { count: 1 },
                };
                if is_behind_hole {
                    let cause = GapCause::Unknown { before: outcome.files.last().cloned() };
                    outcome.gaps.push(Gap { cause, ..gap });
                } else if let Some(Gap { cause: GapCause::NeverLogged { count }, .. }) = &mut gap_inside {
                    *count += 1;
                } else {
                    gap_inside = Some(gap);
                }
            }
            apply(Place {
                zxid: record.zxid,
                transaction: record.transaction,
                path: &log.path,
                offset: record.offset as u64,
                is_behind_hole,
            })?;
            outcome.last = record.zxid;
            outcome.records += 1;
        }
        outcome.gaps.extend(gap_inside);
        let end = records.offset();
        let last = newest.unwrap_or(Zxid(log.zxid.0 - 1));
        let may_be_torn = index + 1 == used;
        match tail::judge(&bytes, end, records.ending(), last) {
            Verdict::Clean => {}
            Verdict::Torn if may_be_torn && end == LOG_HEADER.len() => {
                outcome.repairs.push(Repair::Remove { path: log.path.clone() });
            }
            Verdict::Torn if may_be_torn => {
                outcome.repairs.push(Repair::Cut { path: log.path.clone(), bytes: end as u64 });
            }
            Verdict::Torn | Verdict::Damage => Err(ReplayError::Damaged {
                path: log.path.clone(),
                offset: end as u64,
                after: last,
                ending: records.ending(),
            })?,
        }
        outcome.files.push(log.path.clone());
    }
    // Newest first, so that an interruption leaves no hole.
    let removals = needed[used..].iter().map(|log| Repair::Remove { path: log.path.clone() });
    outcome.repairs = removals.rev().chain(outcome.repairs).collect();
    Ok(outcome)
}

/// A record and where it was found.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// From its header.
    pub zxid: Zxid,
    /// Header, body and perhaps a digest.
    pub transaction: &'a [u8],
    /// The log file.
    pub path: &'a Path,
    /// Byte offset in it.
    pub offset: u64,
    /// What came before it may be gone ([`GapCause::Unknown`]).
    pub is_behind_hole: bool,
}

/// Number of logs at the end of `logs` in which nothing was ever written: of length 0 (P10), all zeros, or a header
/// and zeros.
fn empty_at_the_end(logs: &[NamedFile]) -> Result<usize, ReplayError> {
    let mut count = 0;
    for log in logs.iter().rev() {
        let bytes = FileMap::open(&log.path).map_err(io_error("open", &log.path))?;
        let body = match bytes.first_chunk::<4>() {
            Some(b"ZKLG") => bytes.get(LOG_HEADER.len()..).unwrap_or_default(),
            _ => &bytes,
        };
        if !body.iter().all(|&byte| byte == 0) {
            break;
        }
        count += 1;
    }
    Ok(count)
}

fn check_header(log: &NamedFile, bytes: &[u8]) -> Result<(), ReplayError> {
    let reason = match bytes.first_chunk::<4>() {
        // P5: version and dbid are not verified.
        Some(b"ZKLG") if bytes.len() >= LOG_HEADER.len() => return Ok(()),
        None if bytes.is_empty() => "length 0, with newer logs behind it",
        _ => "its first bytes are not ZKLG",
    };
    Err(ReplayError::NotALog { path: log.path.clone(), reason })
}

/// Carries out the repairs and makes durable what was read: records that nobody was told of yet are about to be
/// applied and shown, so they must not vanish with the next power cut. Call it when all maps are gone.
///
/// # Errors
/// [`ReplayError::Io`]. Interrupted at any point, the next recovery finds the same records.
pub fn repair(dirs: &DataDirs, replayed: &Replayed) -> Result<(), ReplayError> {
    for repair in &replayed.repairs {
        match repair {
            Repair::Cut { path, bytes } => {
                let file = OpenOptions::new().write(true).open(path).map_err(io_error("open", path))?;
                file.set_len(*bytes).map_err(io_error("cut", path))?;
                file.sync_all().map_err(io_error("sync", path))?;
            }
            Repair::Remove { path } => {
                fs::remove_file(path).map_err(io_error("remove", path))?;
                sync_names(&dirs.logs).map_err(io_error("sync", &dirs.logs))?;
            }
        }
    }
    for path in &replayed.files {
        match File::open(path).and_then(|file| file.sync_all()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            outcome => outcome.map_err(io_error("sync", path))?,
        }
    }
    sync_names(&dirs.logs).map_err(io_error("sync", &dirs.logs))
}

/// Cuts the logs behind `keep`, the last transaction to stay (P14), as a leader demands of a follower whose tail was
/// never committed. Later files go first, newest first, so that an interruption leaves a longer log but never a hole
/// (ZOOKEEPER-3701: a truncation that fails must be seen to fail). No log may be open.
///
/// Returns the last zxid that the logs then hold, if any is left.
///
/// # Errors
/// [`ReplayError`]: nothing is cut unless the file in which `keep` lies can be read up to it.
pub fn truncate(dirs: &DataDirs, keep: Zxid) -> Result<Option<Zxid>, ReplayError> {
    let logs = dirs.logs().map_err(io_error("list", &dirs.logs))?;
    let Some(first) = logs.first() else { return Ok(None) };
    if first.zxid > keep {
        // Everything in the logs is above: all of them go.
        for log in logs.iter().rev() {
            fs::remove_file(&log.path).map_err(io_error("remove", &log.path))?;
        }
        sync_names(&dirs.logs).map_err(io_error("sync", &dirs.logs))?;
        return Ok(None);
    }
    let index = first_log_for(&logs, keep);
    let (end, last) = {
        let log = &logs[index];
        let bytes = FileMap::open(&log.path).map_err(io_error("open", &log.path))?;
        check_header(log, &bytes)?;
        let mut end = LOG_HEADER.len();
        let mut last = None;
        for record in Records::new(&bytes).take_while(|record| record.zxid <= keep) {
            end = record.end;
            last = Some(record.zxid);
        }
        (end as u64, last)
    };
    for log in logs[index + 1..].iter().rev() {
        fs::remove_file(&log.path).map_err(io_error("remove", &log.path))?;
    }
    sync_names(&dirs.logs).map_err(io_error("sync", &dirs.logs))?;
    let cut = match last {
        Some(_) => Repair::Cut { path: logs[index].path.clone(), bytes: end },
        None => Repair::Remove { path: logs[index].path.clone() },
    };
    repair(dirs, &Replayed { repairs: vec![cut], ..Replayed::default() })?;
    Ok(last)
}
