//! The log read back while the server runs: for learners that missed a part of it, and at the start, to know how far
//! back this server can tell its history (rows Q49-Q51).
//!
//! Read with plain reads, not through a map: a log may be trimmed, cut or purged meanwhile, which makes a read come
//! back short and a map a fault. Only what is durable may be asked for; newer bytes of the same file may still be on
//! their way. Called on helpers; it blocks.

use super::{
    data_dirs::{DataDirs, NamedFile, first_log_for},
    records::{self, Ending},
    segment::{BLOCK_BYTES, LOG_HEADER, RECORD_OVERHEAD_BYTES, is_own},
    snapshot::SnapshotFile,
    tail,
};
use rustix::fs::Advice;
use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};
use zkfast_wire::Zxid;

/// Bytes read at a time; more for a longer record. A flush of the log waits behind what the disk is busy with, so it is
/// little, and the kernel is told not to read ahead: left to itself it asks for megabytes at once, 2.5 ms of a disk
/// (tuning.md, "A learner that comes back").
const READ_BYTES: usize = 128 << 10;

/// Checksum and length in front of a transaction; one byte stands behind it.
const PREFIX_BYTES: usize = RECORD_OVERHEAD_BYTES - 1;

/// Why a stretch of history cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Its beginning was purged, or a file was removed meanwhile.
    #[error("the log does not hold what follows {after}: the next record is {found:?}")]
    Gone {
        /// The last record that was found.
        after: Zxid,
        /// What came instead of the next one.
        found: Option<Zxid>,
    },
    /// A file operation failed.
    #[error("cannot read the logs: {0}")]
    Io(#[from] io::Error),
}

/// Reads the records above one zxid, through another one, oldest first.
#[derive(Debug)]
pub struct LogReader {
    files: std::vec::IntoIter<NamedFile>,
    file: Option<File>,
    /// Offset in the file of the byte behind the buffer's last one.
    offset: u64,
    buffer: Vec<u8>,
    at: usize,
    last: Zxid,
    through: Zxid,
    is_first: bool,
    /// The record that comes next is the first one of its file, which is this.
    opened: Option<PathBuf>,
}

impl LogReader {
    /// A reader of the records above `after`, through `through`, which must be durable.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn new(dirs: &DataDirs, after: Zxid, through: Zxid) -> io::Result<Self> {
        let mut logs = dirs.logs()?;
        let first = first_log_for(&logs, Zxid(after.0.saturating_add(1)));
        logs.drain(..first.min(logs.len()));
        Ok(Self {
            files: logs.into_iter(),
            file: None,
            offset: 0,
            buffer: Vec::new(),
            at: 0,
            last: after,
            through,
            is_first: true,
            opened: None,
        })
    }

    /// The next record: header, body and perhaps a digest. `None` behind the last one.
    ///
    /// # Errors
    /// [`HistoryError`]: what was handed out so far is right, and the rest cannot be told.
    pub fn next_record(&mut self) -> Result<Option<(Zxid, &[u8])>, HistoryError> {
        while self.last < self.through {
            match records::read(&self.buffer, self.at) {
                Ok(record) => {
                    let (zxid, end) = (record.zxid, record.end);
                    let opened = self.opened.take();
                    if zxid <= self.last {
                        self.at = end;
                        continue;
                    }
                    // Within a file nothing can be missing. Where a file does not go on with the very next zxid it must
                    // say itself that nothing came before; if it begins another epoch, it must not say that something
                    // did (`replay`).
                    let is_hole = match opened.filter(|_| zxid.0 != self.last.0 + 1) {
                        Some(path) => match previous_log(&path)? {
                            Some(previous) => previous > self.last,
                            None => zxid.epoch() == self.last.epoch(),
                        },
                        None => false,
                    };
                    if is_hole || zxid > self.through {
                        return Err(HistoryError::Gone { after: self.last, found: Some(zxid) });
                    }
                    self.last = zxid;
                    let begin = self.at;
                    self.at = end;
                    return Ok(Some((zxid, &self.buffer[begin + PREFIX_BYTES..end - 1])));
                }
                Err(Ending::EndOfFile) if self.file.is_some() => {
                    if !self.fill()? {
                        self.open_next()?;
                    }
                }
                Err(_) => self.open_next()?,
            }
        }
        Ok(None)
    }

    /// Reads on in the file; false at its end.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let kept = self.buffer.len();
        // Twice what is there where a record is longer than a read.
        self.buffer.resize(kept + READ_BYTES.max(kept), 0);
        let file = self.file.as_ref().expect("checked by the caller");
        let read = file.read_at(&mut self.buffer[kept..], self.offset);
        self.buffer.truncate(kept + *read.as_ref().unwrap_or(&0));
        self.offset += read? as u64;
        Ok(self.buffer.len() > kept)
    }

    fn open_next(&mut self) -> Result<(), HistoryError> {
        let Some(next) = self.files.next() else {
            return Err(HistoryError::Gone { after: self.last, found: None });
        };
        if !std::mem::take(&mut self.is_first) && next.zxid > self.through {
            return Err(HistoryError::Gone { after: self.last, found: Some(next.zxid) });
        }
        let file = File::open(&next.path)?;
        // Without this advice reading is no less right.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Random);
        self.file = Some(file);
        self.opened = Some(next.path);
        self.buffer.clear();
        self.at = 0;
        self.offset = LOG_HEADER.len() as u64;
        // `records::read` is told where to look, so the header need not be in the buffer.
        self.fill()?;
        Ok(())
    }
}

/// [`tail::previous`] of a file, which is read from its end until a mark is found: it may have any size.
fn previous_log(path: &Path) -> io::Result<Option<Zxid>> {
    let file = File::open(path)?;
    let _ = rustix::fs::fadvise(&file, 0, None, Advice::Random);
    let mut buffer = vec![0; READ_BYTES];
    let header = file.read_at(&mut buffer, 0)?;
    if !is_own(&buffer[..header]) {
        return Ok(None);
    }
    let mut end = file.metadata()?.len() / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
    while end > 0 {
        let begin = end.saturating_sub(READ_BYTES as u64);
        // Shorter if the file was cut meanwhile.
        let read = file.read_at(&mut buffer[..(end - begin) as usize], begin)?;
        if let Some(previous) = tail::previous_of_blocks(&buffer[..read], begin) {
            return Ok(Some(previous));
        }
        end = begin;
    }
    Ok(None)
}

/// Consecutive zxids: the first and the last.
pub type Run = (Zxid, Zxid);

/// Adds a zxid to runs in rising order.
pub fn add_to_runs(runs: &mut Vec<Run>, zxid: Zxid) {
    match runs.last_mut() {
        Some((_, last)) if last.next() == Some(zxid) => *last = zxid,
        _ => runs.push((zxid, zxid)),
    }
}

/// How far back the history before the snapshot at `newest` can be told: the zxid of an older, valid snapshot, from
/// which the logs lead to the newer one without a hole, and the zxids between them. `None` if there is no such
/// snapshot. At most `bytes_max` bytes of log are read.
///
/// A server's own snapshots are of states that its log leads to. One whose zxid is not in the log came from a leader,
/// and what lies before it is another history, or lacks a part of this one (`snapshot::remove_superseded`).
///
/// # Errors
/// A directory cannot be read.
pub fn before(dirs: &DataDirs, newest: Zxid, bytes_max: u64) -> io::Result<Option<(Zxid, Vec<Run>)>> {
    let logs = dirs.logs()?;
    let bytes_from = |zxid: Zxid| -> u64 {
        let from = &logs[first_log_for(&logs, Zxid(zxid.0.saturating_add(1))).min(logs.len())..];
        let used = from.iter().take_while(|log| log.zxid <= newest);
        used.filter_map(|log| fs::metadata(&log.path).ok()).map(|metadata| metadata.len()).sum()
    };
    let snapshots = dirs.snapshots()?;
    for snapshot in &snapshots {
        if snapshot.zxid >= newest || bytes_from(snapshot.zxid) > bytes_max {
            continue;
        }
        let mut later = snapshots.iter().filter(|later| later.zxid > snapshot.zxid && later.zxid <= newest);
        if let Some(runs) = tell(dirs, snapshot.zxid, newest)?
            && later.all(|later| holds(&runs, later.zxid))
            && is_valid(&snapshot.path)
        {
            return Ok(Some((snapshot.zxid, runs)));
        }
    }
    Ok(None)
}

fn holds(runs: &[Run], zxid: Zxid) -> bool {
    runs.iter().any(|(first, last)| *first <= zxid && zxid <= *last)
}

fn is_valid(path: &Path) -> bool {
    SnapshotFile::open(path).is_ok()
}

/// The zxids above `after` through `through`; `None` if the logs have a hole there.
fn tell(dirs: &DataDirs, after: Zxid, through: Zxid) -> io::Result<Option<Vec<Run>>> {
    let mut reader = LogReader::new(dirs, after, through)?;
    let mut runs = Vec::new();
    loop {
        match reader.next_record() {
            Ok(Some((zxid, _))) => add_to_runs(&mut runs, zxid),
            Ok(None) => return Ok(Some(runs)),
            Err(HistoryError::Gone { .. }) => return Ok(None),
            Err(HistoryError::Io(error)) => return Err(error),
        }
    }
}
