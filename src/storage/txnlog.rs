//! The append side of the transaction log (design: `src/ARCHITECTURE.md`, "The txlog").
//!
//! Lives on the pipeline core. Records are laid out in the filling half of the window; [`TxnLog::flush`] hands that
//! half to the flusher as one write if none is in flight, so whatever arrives during a flush is the next batch: group
//! commit without a timer.
//!
//! Promises: reported durable <= written <= appended, in zxid order; nothing is reported before the name of its file
//! is durable too; after the first failure every call fails. It must not know what a transaction means.
//!
//! The worked failure behind the name rule: 1. A segment is created as `prepared-7`. 2. Records are flushed into it
//! and acknowledged. 3. The power fails before the rename to `log.<zxid>` is durable. 4. Recovery looks for `log.*`
//! and finds nothing. So step 2 waits for the rename and the directory's fsync, which a helper does meanwhile.

use super::{
    disk::{Durability, Flusher, LogDirectory},
    failure::{LogError, LogFailure},
    preparer::{Answer, Preparer, REQUESTS_MAX, Request, SEGMENT_BYTES_MIN, Segment, Shared},
    ring::Ring,
    segment::{BLOCK_BYTES, FlushMark, LOG_HEADER, block_floor, log_name},
    window::{HALF_BYTES, Half},
};
use std::{
    io,
    os::fd::RawFd,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use zkfast_wire::Zxid;

/// Zeros written while the server starts; the helper makes a whole segment meanwhile.
const FIRST_ZEROED_BYTES: u64 = 8 * 1024 * 1024;

/// How long a record waits at most for a segment on a disk that is nearly full.
const HELPER_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at what the helper has.
const HELPER_POLL: Duration = Duration::from_micros(200);

/// How the log is kept.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `dataLogDir/version-2`. Must exist.
    pub log_dir: PathBuf,
    /// `preAllocSize`: KiB of each segment (P8). Apache's default is 65536.
    pub prealloc_kib: u64,
    /// `forceSync` (P11): without it writes keep their order but are not waited for to reach the medium.
    pub force_sync: bool,
    /// `txnLogSizeLimitInKb` (P12): a new file once this many KiB are in one.
    pub size_limit_kib: Option<u64>,
    /// The thread that flushes waits for short writes itself ([`Ring::in_place`]).
    pub writes_in_place: bool,
}

impl LogConfig {
    /// Apache's defaults in `log_dir`.
    pub fn new(log_dir: impl Into<PathBuf>) -> Self {
        Self {
            log_dir: log_dir.into(),
            prealloc_kib: 65536,
            force_sync: true,
            size_limit_kib: None,
            writes_in_place: false,
        }
    }

    /// `preAllocSize` may ask for less than the least (0 turns Apache's padding off).
    fn segment_bytes(&self) -> u64 {
        (self.prealloc_kib.saturating_mul(1024)).next_multiple_of(BLOCK_BYTES as u64).max(SEGMENT_BYTES_MIN)
    }
}

/// What has become durable since the last report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flushed {
    /// All records up to and including this zxid are durable.
    pub through: Zxid,
    /// Records.
    pub records: u64,
    /// Their bytes in the file.
    pub bytes: u64,
    /// Time from the start of the write to its completion being seen, nanoseconds; of several writes, the sum.
    pub elapsed_ns: u64,
}

/// Records that were laid out since the last flush was started.
#[derive(Clone, Copy, Debug, Default)]
struct Batch {
    records: u64,
    bytes: u64,
    last: Zxid,
}

/// A write in flight.
#[derive(Debug)]
struct Flight {
    batch: Batch,
    sequence: u64,
    offset: u64,
    length: usize,
    started: Instant,
}

/// The segment in use.
#[derive(Debug)]
struct Current<F> {
    segment: Segment<F>,
    /// `log.<hex>`, or the empty string before the first record.
    name: String,
    /// File offset of the filling half's first byte.
    base: u64,
    /// File offset behind the last byte of which the write was started.
    written: u64,
    records: u64,
    /// The last record of the log before this file's first.
    previous: Zxid,
}

/// The append side of the log.
#[derive(Debug)]
pub struct TxnLog<F: Flusher = Ring> {
    flusher: F,
    shared: Arc<Shared<F::File>>,
    requests: SyncSender<Request<F::File>>,
    helper: Option<JoinHandle<()>>,
    /// Laid out from here. Always ours.
    filling: Half,
    /// The other half, while no write is in flight.
    spare: Option<Half>,
    /// Standard halves whose places oversized ones have taken.
    parked: Vec<Half>,
    pending: Batch,
    flight: Option<Flight>,
    current: Current<F::File>,
    /// The next segment, once the helper has handed it over.
    ready: Option<Segment<F::File>>,
    /// The segment before, until its last write is done.
    retiring: Option<(Segment<F::File>, u64)>,
    /// Segments below this have durable names.
    named_below: u64,
    roll_is_wanted: bool,
    /// Written, but not yet reported because of its file's name; with the segment it went to.
    held: Option<(Flushed, u64)>,
    appended: Zxid,
    written: Zxid,
    durable: Zxid,
    size_limit_bytes: u64,
    half_bytes: usize,
    failed: Option<LogFailure>,
}

impl TxnLog {
    /// Opens the log behind `last`, the last zxid that recovery found: the next record goes to a new file, an older
    /// one is never appended to. `wake` is an eventfd; see [`TxnLog::arm_wake`]. It is duplicated.
    ///
    /// Prepared files of an earlier process are removed, the first segment is made, the helper thread is started.
    ///
    /// # Errors
    /// [`LogError`]: no io_uring, no memory, no space, no access.
    pub fn open(config: LogConfig, last: Zxid, wake: RawFd) -> Result<Self, LogError> {
        let durability = match (config.force_sync, config.writes_in_place) {
            (false, _) => Some(Durability::None),
            // No worker takes part in a write that is waited for: O_DSYNC is one call.
            (true, true) => Some(Durability::Dsync),
            (true, false) => None,
        };
        Self::open_with(config, durability, last, wake)
    }

    /// The same with a chosen way to make batches durable; `None` for what suits the device.
    ///
    /// # Errors
    /// As [`TxnLog::open`].
    pub fn open_with(
        config: LogConfig,
        durability: Option<Durability>,
        last: Zxid,
        wake: RawFd,
    ) -> Result<Self, LogError> {
        let at = |action: &'static str| {
            let path = config.log_dir.clone();
            move |source| LogError::Io { action, path, source }
        };
        let mut halves = [new_half(&config.log_dir, HALF_BYTES)?, new_half(&config.log_dir, HALF_BYTES)?];
        let ring = match config.writes_in_place {
            true => Ring::in_place(wake)?,
            false => Ring::new(wake, &mut halves)?,
        };
        let shared = Shared::new(Some(ring.wake_event()));

        let mut directory = LogDirectory::open(&config.log_dir, durability)?;
        directory.remove_prepared().map_err(at("remove a prepared segment"))?;
        let segment_bytes = config.segment_bytes();
        let mut preparer = Preparer::new(directory, Arc::clone(&shared), segment_bytes);
        let first = preparer.first_segment(FIRST_ZEROED_BYTES).map_err(|source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                LogError::NoSpace { path: config.log_dir.clone(), bytes: SEGMENT_BYTES_MIN, source }
            }
            io::ErrorKind::FileTooLarge => {
                LogError::TooLarge { path: config.log_dir.clone(), bytes: segment_bytes, source }
            }
            _ => at("make a log segment")(source),
        })?;

        let (requests, receiver) = sync_channel(REQUESTS_MAX);
        let helper = std::thread::Builder::new()
            .name("log-preparer".into())
            .spawn(move || preparer.run(&receiver))
            .map_err(|source| LogError::Helper { source })?;
        let mut log = Self::assemble(ring, halves, shared, requests, first, last, config.size_limit_kib);
        log.helper = Some(helper);
        Ok(log)
    }
}

impl TxnLog {
    /// Goes on behind `last` in a new file, after [`TxnLog::shut`] and whatever was done to the files.
    ///
    /// # Errors
    /// As [`TxnLog::open`]; the log stays shut then.
    pub fn reopen(&mut self, config: LogConfig, last: Zxid, wake: RawFd) -> Result<(), LogError> {
        assert!(self.helper.is_none() && !self.is_busy(), "a log is shut before it is opened again");
        *self = Self::open(config, last, wake)?;
        Ok(())
    }
}

fn new_half(log_dir: &Path, bytes: usize) -> Result<Half, LogError> {
    Half::new(bytes).map_err(|source| LogError::Io {
        action: "map memory for the log's window",
        path: log_dir.to_owned(),
        source,
    })
}

impl<F: Flusher> TxnLog<F> {
    /// Puts a log together from its parts. [`TxnLog::open`] does it with a real disk and a helper thread; the crash
    /// tests with a simulated disk and a [`Preparer`] that they step themselves.
    pub fn assemble(
        flusher: F,
        halves: [Half; 2],
        shared: Arc<Shared<F::File>>,
        requests: SyncSender<Request<F::File>>,
        first: Segment<F::File>,
        last: Zxid,
        size_limit_kib: Option<u64>,
    ) -> Self {
        let [mut filling, spare] = halves;
        let half_bytes = filling.memory().len().min(spare.memory().len());
        let named_below = first.sequence;
        filling.begin_file();
        Self {
            flusher,
            shared,
            requests,
            helper: None,
            filling,
            spare: Some(spare),
            parked: Vec::new(),
            pending: Batch::default(),
            flight: None,
            current: Current::new(first),
            ready: None,
            retiring: None,
            named_below,
            roll_is_wanted: false,
            held: None,
            appended: last,
            written: last,
            durable: last,
            size_limit_bytes: size_limit_kib.map_or(u64::MAX, |kib| kib.saturating_mul(1024)),
            half_bytes,
            failed: None,
        }
    }

    /// Last zxid appended.
    pub fn appended(&self) -> Zxid {
        self.appended
    }

    /// Last zxid reported durable.
    pub fn durable(&self) -> Zxid {
        self.durable
    }

    /// Whether a record of `transaction_bytes` can be appended now. If not, flush and poll until it can.
    ///
    /// A record larger than the window is taken when nothing else is pending.
    pub fn room(&self, transaction_bytes: usize) -> bool {
        // Nothing joins an oversized record: recovery relies on every longer write being a single record.
        let is_standard = self.filling.memory().len() == self.half_bytes;
        self.pending.records == 0 || (is_standard && self.filling.fits(transaction_bytes))
    }

    /// Whether the disk had no room for the next segment: refuse writes, go on with reads. The segment in use still
    /// has its reserved space. Checked again by the helper twice a second.
    pub fn space_is_low(&self) -> bool {
        self.shared.space_is_low()
    }

    /// Whether a record of `transaction_bytes` surely fits into what is reserved of the segment in use, behind
    /// everything that was appended. False before that segment has its name: on a full disk that may fail.
    pub fn has_reserve(&self, transaction_bytes: usize) -> bool {
        self.named_below > self.current.segment.sequence && self.is_reserved(transaction_bytes)
    }

    fn is_reserved(&self, transaction_bytes: usize) -> bool {
        // What is not written yet is at most a whole window, and the record may open a batch with a window of its own.
        let ahead = self.filling.memory().len() + Half::bytes_for(transaction_bytes) + self.half_bytes;
        self.current.written + ahead as u64 <= self.current.segment.reserved_bytes
    }

    /// Call before a record of `transaction_bytes` is accepted, `transaction_bytes` with all that was accepted and not
    /// appended. Where it does not surely fit into the segment in use and there is no next one, the segment would grow
    /// into space that nobody has reserved, and on a disk that is nearly full the log would fail in the middle of a
    /// record. There this blocks until the helper has the next segment, or has seen that there is no room: milliseconds,
    /// once in a segment.
    ///
    /// Whether the disk has no room for the next segment ([`space_is_low`](Self::space_is_low)), so that the record is to be
    /// refused. Go by this answer and do not look again: the helper may find room at any moment, of which nothing is
    /// reserved yet, and what the second look accepts would be without a reserve.
    #[must_use = "a second look may see something else"]
    pub fn await_reserve(&mut self, transaction_bytes: usize) -> bool {
        if self.is_reserved(transaction_bytes) || self.ready.is_some() {
            return self.shared.space_is_low();
        }
        self.await_next_segment()
    }

    #[cold]
    fn await_next_segment(&mut self) -> bool {
        let deadline = Instant::now() + HELPER_PATIENCE;
        loop {
            self.take_answers();
            let is_low = self.shared.space_is_low();
            let is_known = is_low || self.ready.is_some() || self.shared.may_grow();
            if is_known || self.failed.is_some() || Instant::now() > deadline {
                return is_low;
            }
            self.shared.want();
            std::thread::sleep(HELPER_POLL);
        }
    }

    /// Whether anything was appended that is not reported durable yet.
    pub fn is_busy(&self) -> bool {
        self.durable < self.appended
    }

    /// Bytes of records that wait for the next write.
    pub fn pending_bytes(&self) -> u64 {
        self.pending.bytes
    }

    /// Whether a write is in flight or one that is done waits for its file's name.
    pub fn is_in_flight(&self) -> bool {
        self.flight.is_some() || self.held.is_some()
    }

    /// Lays out one record: checksum, length, bytes, end byte.
    ///
    /// # Panics
    /// If `zxid` is not above the last one, the record is empty, or there is no [`room`](Self::room).
    pub fn append(&mut self, zxid: Zxid, transaction: &[u8]) {
        assert!(zxid > self.appended, "{zxid} after {}", self.appended);
        if self.pending.records == 0 {
            self.begin_batch(zxid, transaction.len());
        }
        let bytes = self.filling.append(transaction);
        self.pending.records += 1;
        self.pending.bytes += bytes as u64;
        self.pending.last = zxid;
        self.current.records += 1;
        self.appended = zxid;
    }

    /// Decides where the batch that begins with `first` goes.
    fn begin_batch(&mut self, first: Zxid, transaction_bytes: usize) {
        if self.wants_next_segment(transaction_bytes) {
            self.next_segment();
        }
        if self.current.records == 0 {
            self.current.name = log_name(first);
            self.current.previous = self.appended;
            self.request(Request::Name { sequence: self.current.segment.sequence, first });
        }
        if !self.filling.fits(transaction_bytes) {
            self.grow_for(transaction_bytes);
        }
    }

    /// Whether the next batch, which begins with a record of `transaction_bytes`, should go to a new file, if there is
    /// one.
    fn wants_next_segment(&mut self, transaction_bytes: usize) -> bool {
        // The first record's name must be durable before the next file may get one.
        if self.current.records == 0 || self.named_below <= self.current.segment.sequence {
            return false;
        }
        let end = self.current.written + self.half_bytes.max(Half::bytes_for(transaction_bytes)) as u64;
        let must = self.roll_is_wanted
            || end > self.current.segment.reserved_bytes
            || self.current.written >= self.size_limit_bytes;
        if self.ready.is_none() {
            self.take_answers();
        }
        if must && self.ready.is_none() {
            // Goes on in the old file meanwhile: past its end it grows, which is slower and just as right.
            self.shared.want();
        }
        self.ready.is_some() && (must || end > self.current.segment.zeroed_bytes)
    }

    fn next_segment(&mut self) {
        let next = self.ready.take().expect("checked by the caller");
        let old = std::mem::replace(&mut self.current, Current::new(next));
        assert!(old.segment.sequence < self.current.segment.sequence);
        assert!(self.retiring.is_none(), "a switch waits for the name, which waits for the trim before it");
        if self.flight.is_some() {
            self.retiring = Some((old.segment, FlushMark::file_end(old.written)));
        } else {
            self.request(Request::Trim { segment: old.segment, bytes: FlushMark::file_end(old.written) });
        }
        self.roll_is_wanted = false;
        self.shared.have();
        self.filling.begin_file();
    }

    /// Puts a larger half in the place of the filling one, for one batch.
    fn grow_for(&mut self, transaction_bytes: usize) {
        assert!(self.pending.records == 0);
        match Half::new(Half::bytes_for(transaction_bytes)) {
            Ok(mut half) => {
                half.begin_like(&self.filling);
                let standard = std::mem::replace(&mut self.filling, half);
                assert!(standard.memory().len() == self.half_bytes, "an oversized half serves one batch");
                self.parked.push(standard);
            }
            Err(source) => {
                panic!("no memory for a log record of {transaction_bytes} bytes: {source}");
            }
        }
    }

    fn request(&mut self, request: Request<F::File>) {
        // A switch of segments makes at most two requests and needs the answer to the ones before it.
        if self.requests.try_send(request).is_err() {
            self.failed.get_or_insert(LogFailure::HelperGone);
        }
    }

    /// Starts one write of everything appended, if none is in flight. Cheap when there is nothing to do.
    ///
    /// # Errors
    /// [`LogFailure`]: end the process.
    pub fn flush(&mut self) -> Result<(), LogFailure> {
        self.fail_if_failed()?;
        if self.flight.is_some() || self.pending.records == 0 {
            return Ok(());
        }
        let current = &mut self.current;
        let offset = current.base;
        let length = self.filling.seal(offset, current.written, current.previous);
        let end = offset + self.filling.filled_bytes() as u64;
        current.written = end;
        current.base = block_floor(end);

        let mut next = self.spare.take().expect("both halves are ours while nothing is in flight");
        next.begin_behind(&self.filling);
        let full = std::mem::replace(&mut self.filling, next);
        let batch = std::mem::take(&mut self.pending);
        assert!(batch.last > self.written && batch.last <= self.appended);
        let sequence = current.segment.sequence;
        self.flight = Some(Flight { batch, sequence, offset, length, started: Instant::now() });
        let started = self.flusher.start(&self.current.segment.file, offset, full, length);
        self.note(started)
    }

    /// What has become durable since the last call, if anything. Makes no system call.
    ///
    /// # Errors
    /// [`LogFailure`]: end the process; nothing that was not reported may be acknowledged.
    pub fn poll(&mut self) -> Result<Option<Flushed>, LogFailure> {
        self.fail_if_failed()?;
        if !self.is_in_flight() {
            return Ok(None);
        }
        if self.flight.is_some() {
            match self.flusher.finished() {
                Ok(None) => {}
                Ok(Some((half, outcome))) => self.finish(half, outcome)?,
                Err(failure) => return self.note(Err(failure)).map(|()| None),
            }
        }
        let Some((flushed, sequence)) = self.held else { return Ok(None) };
        if sequence >= self.named_below {
            self.take_answers();
            self.fail_if_failed()?;
            if sequence >= self.named_below {
                return Ok(None);
            }
        }
        self.held = None;
        assert!(self.durable < flushed.through && flushed.through <= self.written);
        self.durable = flushed.through;
        Ok(Some(flushed))
    }

    /// Takes the outcome of the write in flight.
    fn finish(&mut self, half: Half, outcome: io::Result<usize>) -> Result<(), LogFailure> {
        let flight = self.flight.take().expect("the flusher finishes what was started");
        let file = || match &self.retiring {
            Some(_) => format!("the log before {}", self.current.name),
            None => self.current.name.clone(),
        };
        let failure = match outcome {
            Ok(written) if written == flight.length => None,
            Ok(written) => Some(LogFailure::Short {
                file: file(),
                offset: flight.offset,
                length: flight.length,
                written,
            }),
            Err(source) => Some(LogFailure::Write {
                file: file(),
                offset: flight.offset,
                length: flight.length,
                source: Arc::new(source),
            }),
        };
        if let Some(failure) = failure {
            return self.note(Err(failure));
        }
        // An oversized half goes, the standard one it replaced comes back.
        self.spare = Some(if half.memory().len() == self.half_bytes {
            half
        } else {
            self.parked.pop().expect("an oversized half parked the one it replaced")
        });
        let Flight { batch, sequence, started, .. } = flight;
        assert!(batch.last > self.written);
        self.written = batch.last;
        let elapsed_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let (flushed, _) = self
            .held
            .take()
            .unwrap_or((Flushed { through: self.durable, records: 0, bytes: 0, elapsed_ns: 0 }, sequence));
        self.held = Some((
            Flushed {
                through: batch.last,
                records: flushed.records + batch.records,
                bytes: flushed.bytes + batch.bytes,
                elapsed_ns: flushed.elapsed_ns + elapsed_ns,
            },
            sequence,
        ));
        if let Some((segment, bytes)) = self.retiring.take() {
            self.request(Request::Trim { segment, bytes });
        }
        Ok(())
    }

    fn take_answers(&mut self) {
        while let Some(answer) = self.shared.answer() {
            match answer {
                Answer::Prepared(segment) => assert!(self.ready.replace(segment).is_none(), "one ahead"),
                Answer::Named(sequence) => self.named_below = self.named_below.max(sequence + 1),
                Answer::Failed(failure) => {
                    self.failed.get_or_insert(failure);
                }
            }
        }
    }

    /// Call before sleeping with [`is_in_flight`](Self::is_in_flight): 1 is added to the eventfd that wakes when
    /// there is something to poll for. Where that is already so, this happens at once; so: arm, then sleep.
    /// A wake-up may also come without a report to poll; poll, arm again, sleep again.
    ///
    /// # Errors
    /// [`LogFailure`]: end the process.
    pub fn arm_wake(&mut self) -> Result<(), LogFailure> {
        self.fail_if_failed()?;
        if self.flight.is_some() {
            let armed = self.flusher.wake_when_finished();
            self.note(armed)?;
        }
        if self.held.is_some() {
            self.shared.arm_wake();
        }
        Ok(())
    }

    /// The next record starts a new file (P12). The records before it go to the old one.
    ///
    /// The file changes at the next batch for which a prepared segment is at hand, usually at once; never by waiting.
    pub fn roll(&mut self) {
        self.roll_is_wanted = self.current.records > 0;
    }

    /// Makes everything appended durable and waits for it. For shutdown and changes of role only: it blocks.
    ///
    /// # Errors
    /// [`LogFailure`]: end the process.
    pub fn settle(&mut self) -> Result<(), LogFailure> {
        while self.is_busy() {
            self.flush()?;
            let waited = self.flusher.wait();
            self.note(waited)?;
            self.poll()?;
            if self.flight.is_none() && self.held.is_some() {
                if self.helper.as_ref().is_some_and(JoinHandle::is_finished) {
                    return self.note(Err(LogFailure::HelperGone));
                }
                // The rename takes a millisecond or so; nobody but a stopping server waits for it here.
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        Ok(())
    }

    /// Makes everything appended durable, trims the file to its used size and ends the helper. Blocks.
    ///
    /// # Errors
    /// [`LogFailure`]: what was not reported before may be lost.
    pub fn close(mut self) -> Result<(), LogFailure> {
        self.settle()?;
        self.stop_helper();
        self.fail_if_failed()
    }

    /// Ends this log so that its files may be cut: everything appended is durable, no file is open for writing, the
    /// helper has ended. Blocks. What comes next is [`TxnLog::reopen`].
    ///
    /// # Errors
    /// [`LogFailure`].
    pub fn shut(&mut self) -> Result<(), LogFailure> {
        self.settle()?;
        self.stop_helper();
        self.fail_if_failed()
    }

    fn stop_helper(&mut self) {
        let Some(helper) = self.helper.take() else { return };
        let segment = self.current.segment.clone();
        let is_unused = self.current.records == 0;
        let unused = is_unused.then_some(segment.sequence);
        // Blocking sends: the helper is alive and takes them, or gone and refuses them.
        if !is_unused && self.failed.is_none() {
            let _ = self
                .requests
                .send(Request::Trim { segment, bytes: FlushMark::file_end(self.current.written) });
        }
        let _ = self.requests.send(Request::Stop { unused });
        let _ = helper.join();
    }

    fn fail_if_failed(&self) -> Result<(), LogFailure> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn note(&mut self, outcome: Result<(), LogFailure>) -> Result<(), LogFailure> {
        if let Err(failure) = &outcome {
            self.failed.get_or_insert_with(|| failure.clone());
        }
        outcome
    }
}

impl<F: Flusher> Drop for TxnLog<F> {
    fn drop(&mut self) {
        // Without `close` the file keeps its zeros, as Apache's does. The write in flight must be over before the file
        // may be cut or its memory given back.
        if let Err(failure) = self.flusher.wait() {
            self.failed.get_or_insert(failure);
        }
        self.stop_helper();
    }
}

impl<F> Current<F> {
    fn new(segment: Segment<F>) -> Self {
        let written = LOG_HEADER.len() as u64;
        Self { segment, name: String::new(), base: 0, written, records: 0, previous: Zxid::ZERO }
    }
}
