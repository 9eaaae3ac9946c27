//! Makes segments ahead of need, gives them their names, and trims them when they are full.
//!
//! Lives on a helper thread, so that none of it delays a flush: `fallocate` at once, zeros ahead of use (a write into
//! zero-written space needs no journal commit: 65 us against 99 us for 4 KiB on ext4, tuning.md "The txlog"). A
//! prepared file already holds its durable file header, so that once it has its name it is a valid, empty log for
//! every reader. Zeros go out in small chunks at a quarter of the disk's time; a segment that is wanted before it is
//! zeroed is handed over as it is: the writer does not wait for zeros, it only writes a little slower without them,
//! unless the disk is nearly full.
//!
//! Promise: answers come in the order of the requests, and `Named` only when the name is durable.

use super::{
    disk::{Directory, ZERO_CHUNK_BYTES},
    failure::LogFailure,
    segment::{BLOCK_BYTES, log_name},
};
use crossbeam::queue::ArrayQueue;
use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering, fence},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};
use zkfast_wire::Zxid;

/// Name of a segment that has none yet. Neither `log.` nor `snapshot.`: other readers of the directory pass it over.
pub const PREPARED_PREFIX: &str = "prepared-";

/// Requests under way: a name, a trim and a stop for each of two segments, and room to spare.
pub const REQUESTS_MAX: usize = 8;

/// Answers not yet taken: one per request, and a prepared segment.
const ANSWERS_MAX: usize = 16;

/// Least size of a segment: one that cannot hold a few batches would be rolled at every flush.
pub const SEGMENT_BYTES_MIN: u64 = 8 << 20;

/// Bytes that a disk must have left behind the next segment for the one in use to grow past its end, or to be handed over
/// before it has its zeros: many times what is written in the milliseconds until the next one comes. The size of the
/// segment tells nothing: a small one (`preAllocSize`) fits into the last corner of a disk.
const GROWTH_BYTES: u64 = 64 << 20;

/// How long to wait before asking again for space that was not there.
const SPACE_RETRY: Duration = Duration::from_millis(500);

/// What the log asks of the helper.
#[derive(Debug)]
pub enum Request<F> {
    /// Name this segment after its first transaction.
    Name {
        /// The segment.
        sequence: u64,
        /// Its first transaction.
        first: Zxid,
    },
    /// Nothing more will be written to this segment: cut it to its used size and close it.
    Trim {
        /// The segment.
        segment: Segment<F>,
        /// Its used size.
        bytes: u64,
    },
    /// Remove what was prepared and not used, and end.
    Stop {
        /// A segment in the writer's hands that never got a name.
        unused: Option<u64>,
    },
}

/// What the helper answers.
#[derive(Debug)]
pub enum Answer<F> {
    /// A segment to write to.
    Prepared(Segment<F>),
    /// The name of this segment is durable.
    Named(u64),
    /// Fatal.
    Failed(LogFailure),
}

/// An open segment.
#[derive(Clone, Debug)]
pub struct Segment<F> {
    /// The open file.
    pub file: F,
    /// Counts segments of this process.
    pub sequence: u64,
    /// Bytes for which there is room on the disk.
    pub reserved_bytes: u64,
    /// Bytes from the start that are zero-written.
    pub zeroed_bytes: u64,
}

/// What both sides see.
#[derive(Debug)]
pub struct Shared<F> {
    answers: ArrayQueue<Answer<F>>,
    /// The writer wants the next segment even if it is not zeroed yet.
    wanted: AtomicBool,
    /// There was no room for the next segment.
    space_is_low: AtomicBool,
    /// The next segment has its room and the disk more ([`GROWTH_BYTES`]), or it is not for want of room that there is none:
    /// the one in use may grow past its end until it comes.
    may_grow: AtomicBool,
    /// The writer may sleep: wake it with the next answer.
    wake_wanted: AtomicBool,
    wake: Option<Arc<OwnedFd>>,
    /// So many looks find no room, whatever the helper says.
    #[cfg(test)]
    low_looks: std::sync::atomic::AtomicU32,
}

impl<F> Shared<F> {
    /// State at start. `wake` is the eventfd to add to when the writer sleeps.
    pub fn new(wake: Option<Arc<OwnedFd>>) -> Arc<Self> {
        Arc::new(Self {
            answers: ArrayQueue::new(ANSWERS_MAX),
            wanted: AtomicBool::new(false),
            space_is_low: AtomicBool::new(false),
            may_grow: AtomicBool::new(false),
            wake_wanted: AtomicBool::new(false),
            wake,
            #[cfg(test)]
            low_looks: 0.into(),
        })
    }

    /// A helper that finds room for the next segment behind so many looks of the writer.
    #[cfg(test)]
    pub(crate) fn find_room_after(&self, looks: u32) {
        self.low_looks.store(looks, Ordering::Relaxed);
    }

    /// The next answer, without a system call.
    pub fn answer(&self) -> Option<Answer<F>> {
        self.answers.pop()
    }

    /// Says that the next segment is needed as it is.
    pub fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// Takes `want` back: there is one in hand.
    pub fn have(&self) {
        self.wanted.store(false, Ordering::Relaxed);
    }

    /// Whether the disk had no room for the next segment.
    pub fn space_is_low(&self) -> bool {
        #[cfg(test)]
        {
            let left = self.low_looks.load(Ordering::Relaxed);
            self.low_looks.store(left.saturating_sub(1), Ordering::Relaxed);
            if left > 0 {
                return true;
            }
        }
        self.space_is_low.load(Ordering::Relaxed)
    }

    /// Whether the segment in use may grow past its end: not on a disk that is nearly full, and not while nobody has
    /// looked.
    pub fn may_grow(&self) -> bool {
        self.may_grow.load(Ordering::Relaxed)
    }

    /// From now on the next answer wakes. If there is one already, it wakes at once.
    pub fn arm_wake(&self) {
        self.wake_wanted.store(true, Ordering::Relaxed);
        // Pairs with the fence in `push`: either the helper sees the flag or we see its answer.
        fence(Ordering::SeqCst);
        if !self.answers.is_empty() {
            self.send_wake();
        }
    }

    fn push(&self, answer: Answer<F>) {
        let kept = self.answers.push(answer);
        assert!(kept.is_ok(), "one answer for each of at most {REQUESTS_MAX} requests");
        fence(Ordering::SeqCst);
        if self.wake_wanted.load(Ordering::Relaxed) {
            self.send_wake();
        }
    }

    fn send_wake(&self) {
        if self.wake_wanted.swap(false, Ordering::Relaxed)
            && let Some(wake) = &self.wake
        {
            // A count that has no room left would wake the writer all the same.
            let _ = rustix::io::write(&**wake, &1u64.to_ne_bytes());
        }
    }
}

/// The segment being made.
#[derive(Debug)]
enum Stage<F> {
    /// None yet; not before this time if the disk was full.
    Absent { not_before: Option<Instant> },
    /// Reserved and with a header; zeros follow.
    Zeroing(Segment<F>),
    /// Handed over; the next is made when this one has got its name, that is, when it is in use.
    HandedOver { sequence: u64 },
}

/// The helper.
#[derive(Debug)]
pub struct Preparer<D: Directory> {
    directory: D,
    shared: Arc<Shared<D::File>>,
    stage: Stage<D::File>,
    segment_bytes: u64,
    next_sequence: u64,
    /// When the next segment was made there was room for [`GROWTH_BYTES`] more.
    is_roomy: bool,
    /// There was no file descriptor for the next segment, and that was said.
    lacks_files: bool,
}

/// What a step of the helper came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more to do, after this pause.
    More {
        /// Time to leave to others.
        pause: Duration,
    },
    /// Nothing to do before the next request, or before this long has passed.
    Idle {
        /// When to look again without a request.
        again: Option<Duration>,
    },
}

fn prepared_name(sequence: u64) -> String {
    format!("{PREPARED_PREFIX}{sequence}")
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether this process (EMFILE) or the machine (ENFILE) has no file descriptor left. Passes, like a full disk (R6).
pub fn lacks_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

impl<D: Directory> Preparer<D> {
    /// A helper for segments of `segment_bytes` bytes.
    pub fn new(directory: D, shared: Arc<Shared<D::File>>, segment_bytes: u64) -> Self {
        assert!(segment_bytes.is_multiple_of(BLOCK_BYTES as u64));
        let stage = Stage::Absent { not_before: None };
        Self {
            directory,
            shared,
            stage,
            segment_bytes,
            next_sequence: 0,
            is_roomy: false,
            lacks_files: false,
        }
    }

    /// Makes the first segment, zero-written up to `zeroed_bytes`, while the server starts.
    pub fn first_segment(&mut self, zeroed_bytes: u64) -> io::Result<Segment<D::File>> {
        let mut segment = self.create()?;
        while segment.zeroed_bytes < zeroed_bytes.min(segment.reserved_bytes) {
            self.zero_chunk(&mut segment)?;
        }
        self.directory.sync(&segment.file)?;
        Ok(segment)
    }

    /// The next segment, as large as it should be or, on a disk that is nearly full, as large as there is room for,
    /// down to [`SEGMENT_BYTES_MIN`]: what is left of the disk is used before writes are refused.
    fn create(&mut self) -> io::Result<Segment<D::File>> {
        let mut bytes = self.segment_bytes;
        loop {
            match self.create_sized(bytes) {
                Err(error) if is_full(&error) && bytes > SEGMENT_BYTES_MIN => {
                    let half = (bytes / 2).next_multiple_of(BLOCK_BYTES as u64);
                    bytes = half.max(SEGMENT_BYTES_MIN);
                }
                outcome => return outcome,
            }
        }
    }

    fn create_sized(&mut self, bytes: u64) -> io::Result<Segment<D::File>> {
        let sequence = self.next_sequence;
        let name = prepared_name(sequence);
        let file = self.directory.create(&name).inspect_err(|error| {
            // The file is opened twice: of the first time something may be left, in the way of the next attempt.
            if lacks_descriptors(error) {
                let _ = self.directory.remove(&name);
            }
        })?;
        let reserved = self.directory.reserve(&file, bytes).and_then(|()| self.directory.write_header(&file));
        if let Err(error) = reserved {
            let _ = self.directory.remove(&name);
            return Err(error);
        }
        self.next_sequence += 1;
        Ok(Segment { file, sequence, reserved_bytes: bytes, zeroed_bytes: BLOCK_BYTES as u64 })
    }

    fn zero_chunk(&mut self, segment: &mut Segment<D::File>) -> io::Result<()> {
        let bytes = ZERO_CHUNK_BYTES.min(segment.reserved_bytes - segment.zeroed_bytes);
        self.directory.write_zeros(&segment.file, segment.zeroed_bytes, bytes)?;
        segment.zeroed_bytes += bytes;
        Ok(())
    }

    fn fail(&self, action: &'static str, file: String, source: io::Error) {
        self.shared.push(Answer::Failed(LogFailure::Segment { action, file, source: Arc::new(source) }));
    }

    /// Does what was asked. Returns false when it was asked to end.
    pub fn serve(&mut self, request: Request<D::File>) -> bool {
        match request {
            Request::Name { sequence, first } => {
                let (from, to) = (prepared_name(sequence), log_name(first));
                let named = self.directory.rename(&from, &to).and_then(|()| self.directory.sync_names());
                match named {
                    Ok(()) => self.shared.push(Answer::Named(sequence)),
                    Err(error) => self.fail("name the log segment", to, error),
                }
                if matches!(self.stage, Stage::HandedOver { sequence: ready } if ready == sequence) {
                    self.shared.may_grow.store(false, Ordering::Relaxed);
                    self.stage = Stage::Absent { not_before: None };
                }
                true
            }
            Request::Trim { segment, bytes } => {
                // Zeros behind the last record are harmless, so a failure to cut them is too; a failure to sync is
                // not, but all records in it were durable before.
                let _ = self.directory.trim(&segment.file, bytes);
                true
            }
            Request::Stop { unused } => {
                if let Some(sequence) = unused {
                    let _ = self.directory.remove(&prepared_name(sequence));
                }
                match std::mem::replace(&mut self.stage, Stage::Absent { not_before: None }) {
                    Stage::Absent { .. } => {}
                    Stage::Zeroing(Segment { sequence, .. }) | Stage::HandedOver { sequence } => {
                        let _ = self.directory.remove(&prepared_name(sequence));
                    }
                }
                false
            }
        }
    }

    /// One small piece of the work on the next segment.
    pub fn step(&mut self, now: Instant) -> Step {
        match std::mem::replace(&mut self.stage, Stage::Absent { not_before: None }) {
            Stage::Absent { not_before: Some(time) } if now < time => {
                self.stage = Stage::Absent { not_before: Some(time) };
                Step::Idle { again: Some(time - now) }
            }
            Stage::Absent { .. } => match self.create() {
                Ok(segment) => {
                    self.is_roomy = self.directory.free_bytes().is_ok_and(|free| free >= GROWTH_BYTES);
                    self.shared.may_grow.store(self.is_roomy, Ordering::Relaxed);
                    self.shared.space_is_low.store(false, Ordering::Relaxed);
                    self.lacks_files = false;
                    self.stage = Stage::Zeroing(segment);
                    Step::More { pause: Duration::ZERO }
                }
                Err(error) if is_full(&error) => {
                    self.shared.space_is_low.store(true, Ordering::Relaxed);
                    self.stage = Stage::Absent { not_before: Some(now + SPACE_RETRY) };
                    Step::Idle { again: Some(SPACE_RETRY) }
                }
                // Writes are taken meanwhile: without a next segment the one in use grows.
                Err(error) if lacks_descriptors(&error) => {
                    self.shared.may_grow.store(true, Ordering::Relaxed);
                    if !std::mem::replace(&mut self.lacks_files, true) {
                        log::warn!(
                            "no file descriptor for the next segment of the log ({error}): the one in use grows until \
                             there is one. Raise the limit on open files (ulimit -n, or LimitNOFILE= of its service)."
                        );
                    }
                    self.stage = Stage::Absent { not_before: Some(now + SPACE_RETRY) };
                    Step::Idle { again: Some(SPACE_RETRY) }
                }
                Err(error) => {
                    self.fail("make the log segment", prepared_name(self.next_sequence), error);
                    Step::Idle { again: Some(SPACE_RETRY) }
                }
            },
            Stage::Zeroing(mut segment) => {
                let is_wanted = self.shared.wanted.load(Ordering::Relaxed);
                // On a disk that is nearly full a write into space without zeros may fail for want of a block to note them
                // in, and the log with it: such a segment is zeroed first.
                let may_lack_zeros = self.is_roomy;
                if is_wanted && may_lack_zeros || segment.zeroed_bytes == segment.reserved_bytes {
                    return self.hand_over(segment, is_wanted && may_lack_zeros);
                }
                match self.zero_chunk(&mut segment) {
                    Ok(()) => {
                        self.stage = Stage::Zeroing(segment);
                        // Three quarters of the disk's time are for flushes, unless they may have to wait for this.
                        Step::More { pause: if may_lack_zeros { now.elapsed() * 3 } else { Duration::ZERO } }
                    }
                    Err(error)
                        if is_full(&error)
                            && self.directory.remove(&prepared_name(segment.sequence)).is_ok() =>
                    {
                        self.shared.space_is_low.store(true, Ordering::Relaxed);
                        self.stage = Stage::Absent { not_before: Some(now + SPACE_RETRY) };
                        Step::Idle { again: Some(SPACE_RETRY) }
                    }
                    Err(error) => {
                        self.fail("write zeros to", prepared_name(segment.sequence), error);
                        Step::Idle { again: None }
                    }
                }
            }
            Stage::HandedOver { sequence } => {
                self.stage = Stage::HandedOver { sequence };
                Step::Idle { again: None }
            }
        }
    }

    fn hand_over(&mut self, segment: Segment<D::File>, is_wanted: bool) -> Step {
        // Zeros become initialised extents with this sync; without it the first flushes pay for it, which is better
        // than making a writer that is already out of space wait.
        if !is_wanted && let Err(error) = self.directory.sync(&segment.file) {
            self.fail("sync", prepared_name(segment.sequence), error);
            return Step::Idle { again: None };
        }
        self.shared.wanted.store(false, Ordering::Relaxed);
        self.stage = Stage::HandedOver { sequence: segment.sequence };
        self.shared.push(Answer::Prepared(segment));
        Step::Idle { again: None }
    }

    /// Runs until told to stop, or until the log is gone.
    pub fn run(mut self, requests: &Receiver<Request<D::File>>) {
        let mut wait = Some(Duration::ZERO);
        loop {
            let request = match wait {
                Some(wait) => requests.recv_timeout(wait),
                None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match request {
                Ok(request) => {
                    if !self.serve(request) {
                        return;
                    }
                    wait = Some(Duration::ZERO);
                }
                Err(RecvTimeoutError::Timeout) => {
                    wait = match self.step(Instant::now()) {
                        Step::More { pause } => Some(pause),
                        Step::Idle { again } => again,
                    };
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.serve(Request::Stop { unused: None });
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with so many bytes left behind what was reserved.
    struct Disk {
        free_bytes: u64,
    }

    impl Directory for Disk {
        type File = ();

        fn create(&mut self, _: &str) -> io::Result<()> {
            Ok(())
        }

        fn reserve(&mut self, (): &(), _: u64) -> io::Result<()> {
            Ok(())
        }

        fn free_bytes(&self) -> io::Result<u64> {
            Ok(self.free_bytes)
        }

        fn write_header(&mut self, (): &()) -> io::Result<()> {
            Ok(())
        }

        fn write_zeros(&mut self, (): &(), _: u64, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn sync(&mut self, (): &()) -> io::Result<()> {
            Ok(())
        }

        fn trim(&mut self, (): &(), _: u64) -> io::Result<()> {
            Ok(())
        }

        fn rename(&mut self, _: &str, _: &str) -> io::Result<()> {
            Ok(())
        }

        fn sync_names(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn remove(&mut self, _: &str) -> io::Result<()> {
            Ok(())
        }
    }

    /// Danger: a small segment fits into the last corner of a disk, the one in use grows meanwhile, and the log dies of a
    /// full disk in the middle of a record.
    #[test]
    fn a_segment_grows_only_where_there_is_room_behind_the_next_one() {
        for (free_bytes, is_roomy) in [(0, false), (GROWTH_BYTES - 1, false), (GROWTH_BYTES, true)] {
            let shared = Shared::new(None);
            let mut preparer = Preparer::new(Disk { free_bytes }, Arc::clone(&shared), SEGMENT_BYTES_MIN);
            let now = Instant::now();
            assert!(!shared.may_grow(), "nobody has looked");
            preparer.step(now);
            assert_eq!(shared.may_grow(), is_roomy, "{free_bytes} left");
            assert!(!shared.space_is_low());
            // Whoever must not grow gets the next one with all its zeros, and soon.
            shared.want();
            let mut steps = 0;
            let segment = loop {
                assert!(matches!(preparer.step(now), Step::More { .. } | Step::Idle { .. }));
                steps += 1;
                match shared.answer() {
                    Some(Answer::Prepared(segment)) => break segment,
                    Some(other) => panic!("{other:?}"),
                    None => assert!(steps < 1000),
                }
            };
            assert_eq!(segment.zeroed_bytes == segment.reserved_bytes, !is_roomy);
            assert!(preparer.serve(Request::Name { sequence: segment.sequence, first: Zxid(1) }));
            assert!(!shared.may_grow(), "nobody has looked for the one after it");
        }
    }
}
