//! io_uring for the log: one write in flight, and a wake-up for whoever sleeps.
//!
//! Lives on the pipeline core. Named room for `unsafe`: the kernel reads memory that Rust must not free or change
//! meanwhile. The promise rests on ownership: a [`Half`] that is being written belongs to the ring, is given back only
//! with its completion, and dropping the ring waits for it.
//!
//! Plain ring flags on purpose: with COOP_TASKRUN or DEFER_TASKRUN a completion shows up only after a system call,
//! and this ring is polled from user space while the pipeline is busy.

use super::{
    disk::{Durability, Flusher, SegmentFile},
    failure::{LogError, LogFailure},
    window::Half,
    writer::{Job, Writer, write_once},
};
use io_uring::{IoUring, opcode, squeue, types};
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::Arc,
};

/// A write, its fsync, a wake-up, and room to spare.
const ENTRIES: u32 = 8;
const FLUSH: u64 = 1;
const WAKE: u64 = 2;
const SYNC: u64 = 3;

/// Up to so many bytes, some 80 records of 200 bytes, a write is made in place: see [`Ring::in_place`].
pub const IN_PLACE_BYTES_MAX: usize = 16 * 1024;

/// What is added to the eventfd that wakes.
static WAKE_COUNT: [u8; 8] = 1u64.to_ne_bytes();

/// The log's own ring.
pub struct Ring {
    /// The kernel's; `None` where no write goes through it.
    ring: Option<IoUring>,
    wake: Arc<OwnedFd>,
    flight: Option<Flight>,
    /// Writes started so far.
    flights: u64,
    /// The table of registered files, if the kernel gave us one.
    file_slots: Option<FileSlots>,
    /// `flights` when the last wake-up was asked for.
    wake_armed_at: u64,
    /// Writes are made without the ring; see [`Ring::in_place`].
    writer: Option<Writer>,
    /// The writer has the write in flight.
    is_handed_over: bool,
    /// The submission queue holds entries that the kernel did not take yet (EAGAIN, EBUSY).
    unsubmitted: bool,
}

/// The two entries of the ring's table of registered files: the segment in use and the one before.
#[derive(Default)]
struct FileSlots {
    files: [Option<Arc<SegmentFile>>; 2],
    next: usize,
}

/// The write in flight.
struct Flight {
    half: Half,
    length: usize,
    /// Keeps the descriptor open; the kernel has its own reference once the write is submitted.
    _file: Arc<SegmentFile>,
    /// Result of the write.
    written: Option<i32>,
    /// Result of the fsync linked to it; 0 from the start if there is none.
    synced: Option<i32>,
}

impl Flight {
    fn is_over(&self) -> bool {
        self.written.is_some() && self.synced.is_some()
    }

    /// Bytes written or a negative error number. A failed or short write cancels the fsync, and it is the write that
    /// tells why.
    fn outcome(&self) -> i32 {
        let (written, synced) = (self.written.expect("it is over"), self.synced.expect("it is over"));
        let is_whole = usize::try_from(written).is_ok_and(|written| written == self.length);
        if is_whole && synced < 0 { synced } else { written }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("in_flight", &self.flight.is_some()).finish_non_exhaustive()
    }
}

impl Ring {
    /// Sets up the ring and registers the halves' memory.
    ///
    /// Where the memory cannot be registered (RLIMIT_MEMLOCK), plain writes are used: a little slower, as right.
    /// `wake` is duplicated; the caller keeps its own.
    ///
    /// # Errors
    /// [`LogError::RingRefused`], [`LogError::LockedMemory`] or [`LogError::Ring`].
    pub fn new(wake: RawFd, halves: &mut [Half; 2]) -> Result<Self, LogError> {
        let wake = duplicate(wake)?;
        let ring = IoUring::new(ENTRIES).map_err(|source| match source.raw_os_error() {
            Some(libc::EPERM | libc::ENOSYS | libc::EACCES) => LogError::RingRefused { source },
            Some(libc::ENOMEM) => LogError::LockedMemory { source },
            _ => LogError::Ring { source },
        })?;
        let vectors = halves.each_ref().map(|half| libc::iovec {
            iov_base: half.memory().as_ptr().cast_mut().cast(),
            iov_len: half.memory().len(),
        });
        // SAFETY: the kernel pins these pages, so they stay valid even if a half is dropped; they are addressed only
        // through the index stored in the half that owns the memory, while the ring owns that half.
        if unsafe { ring.submitter().register_buffers(&vectors) }.is_ok() {
            for (half, index) in halves.iter_mut().zip(0..) {
                half.set_registered(index);
            }
        }
        let file_slots = ring.submitter().register_files(&[-1, -1]).is_ok().then(FileSlots::default);
        Ok(Self::assemble(wake, Some(ring), file_slots, None))
    }

    fn assemble(
        wake: Arc<OwnedFd>,
        ring: Option<IoUring>,
        file_slots: Option<FileSlots>,
        writer: Option<Writer>,
    ) -> Self {
        Self {
            ring,
            wake,
            flight: None,
            flights: 0,
            file_slots,
            wake_armed_at: 0,
            writer,
            is_handed_over: false,
            unsubmitted: false,
        }
    }

    /// Without io_uring: the calling thread makes short writes itself and waits for them; longer ones go to a helper
    /// thread.
    ///
    /// For a thread that could do nothing else meanwhile but let the next batch grow, which it does in the lanes
    /// anyway. A write that the ring cannot start without blocking, as ext4's synchronous ones, goes to a kernel
    /// worker: two more switches between threads, then the send and the receive that wake us. Measured (tuning.md,
    /// "The txlog"): that takes longer than the write. A long write comes with many requests behind it: then there is
    /// work to do meanwhile, and the switches are few for each.
    ///
    /// # Errors
    /// [`LogError::Helper`] if the thread cannot be started, [`LogError::Ring`] without a file descriptor for `wake`.
    pub fn in_place(wake: RawFd) -> Result<Self, LogError> {
        let wake = duplicate(wake)?;
        let writer = Writer::start(Arc::clone(&wake)).map_err(|source| LogError::Helper { source })?;
        Ok(Self::assemble(wake, None, None, Some(writer)))
    }

    fn kernel(&mut self) -> &mut IoUring {
        self.ring.as_mut().expect("whoever has no ring has a writer, and asks it alone")
    }

    /// The eventfd that wakes, for the helper.
    pub fn wake_event(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.wake)
    }

    /// Puts `file` into a slot of the registered table and returns the slot.
    fn slot_of(&mut self, file: &Arc<SegmentFile>) -> Option<u32> {
        let (ring, slots) = (self.ring.as_ref()?, self.file_slots.as_mut()?);
        let holds =
            |held: &Option<Arc<SegmentFile>>| held.as_ref().is_some_and(|held| Arc::ptr_eq(held, file));
        if let Some(slot) = slots.files.iter().position(holds) {
            return Some(slot as u32);
        }
        // A new segment takes the place of the one before the last; the last write to that one finished long ago.
        let slot = slots.next;
        if ring.submitter().register_files_update(slot as u32, &[file.batches.as_raw_fd()]).is_err() {
            self.file_slots = None;
            return None;
        }
        slots.files[slot] = Some(Arc::clone(file));
        slots.next = 1 - slot;
        Some(slot as u32)
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: entries come from `start` and `wake_when_finished` alone. A write points into a half that `flight`
        // owns until its completion was seen (`Drop` waits for it); an fsync points at nothing, a wake at a static.
        let pushed = unsafe { self.kernel().submission().push(entry) };
        assert!(
            pushed.is_ok(),
            "at most a write, its fsync and two wake-ups are queued in {ENTRIES} entries"
        );
    }

    fn submit(&mut self) -> Result<(), LogFailure> {
        for _ in 0..1000 {
            match self.kernel().submit() {
                Ok(_) => {
                    self.unsubmitted = false;
                    return Ok(());
                }
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => continue,
                // Out of memory for a moment, or completions to be reaped first: `finished` tries again.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) => {
                    self.unsubmitted = true;
                    return Ok(());
                }
                Err(error) => return Err(ring_failure("submit", error)),
            }
        }
        Err(ring_failure("submit", io::ErrorKind::Interrupted.into()))
    }

    /// Takes what the completion queue holds.
    fn reap(&mut self) {
        let Some(ring) = &mut self.ring else { return };
        for completion in ring.completion() {
            match completion.user_data() {
                FLUSH => {
                    let flight = self.flight.as_mut().expect("a completion belongs to the write in flight");
                    assert!(flight.written.replace(completion.result()).is_none());
                }
                SYNC => {
                    let flight = self.flight.as_mut().expect("a completion belongs to the write in flight");
                    assert!(flight.synced.replace(completion.result()).is_none());
                }
                WAKE => {}
                other => unreachable!("nobody submits user data {other}"),
            }
        }
    }
}

fn duplicate(wake: RawFd) -> Result<Arc<OwnedFd>, LogError> {
    // SAFETY: the caller owns `wake` and keeps it open during this call; it is duplicated before we return.
    let wake = unsafe { BorrowedFd::borrow_raw(wake) }.try_clone_to_owned();
    Ok(Arc::new(wake.map_err(|source| LogError::Ring { source })?))
}

/// What the caller is told of bytes written or a negative error number.
fn outcome_of(written: i32) -> io::Result<usize> {
    usize::try_from(written).map_err(|_| io::Error::from_raw_os_error(-written))
}

fn ring_failure(action: &'static str, source: io::Error) -> LogFailure {
    LogFailure::Ring { action, source: Arc::new(source) }
}

impl Flusher for Ring {
    type File = Arc<SegmentFile>;

    fn start(&mut self, file: &Self::File, offset: u64, half: Half, length: usize) -> Result<(), LogFailure> {
        assert!(self.flight.is_none() && !self.is_handed_over, "one write at a time");
        assert!(length <= half.memory().len());
        if let Some(writer) = &self.writer {
            self.flights += 1;
            if length > IN_PLACE_BYTES_MAX {
                writer.ask(Job { file: Arc::clone(file), offset, half, length });
                self.is_handed_over = true;
                return Ok(());
            }
            let written = write_once(file, &half.memory()[..length], offset);
            let (file, written) = (Arc::clone(file), Some(written));
            self.flight = Some(Flight { half, length, _file: file, written, synced: Some(0) });
            return Ok(());
        }
        let bytes = u32::try_from(length)
            .map_err(|_| ring_failure("write more than 4 GiB at once", io::ErrorKind::FileTooLarge.into()))?;
        let memory = half.memory().as_ptr();
        let write = |slot: Option<u32>, registered: Option<u16>| match (slot, registered) {
            (Some(slot), Some(index)) => {
                opcode::WriteFixed::new(types::Fixed(slot), memory, bytes, index).offset(offset).build()
            }
            (Some(slot), None) => {
                opcode::Write::new(types::Fixed(slot), memory, bytes).offset(offset).build()
            }
            (None, Some(index)) => {
                let fd = types::Fd(file.batches.as_raw_fd());
                opcode::WriteFixed::new(fd, memory, bytes, index).offset(offset).build()
            }
            (None, None) => {
                let fd = types::Fd(file.batches.as_raw_fd());
                opcode::Write::new(fd, memory, bytes).offset(offset).build()
            }
        };
        let slot = self.slot_of(file);
        let mut entry = write(slot, half.registered()).user_data(FLUSH);
        let is_linked = file.durability == Durability::Fsync;
        let synced = (!is_linked).then_some(0);
        self.flights += 1;
        self.flight = Some(Flight { half, length, _file: Arc::clone(file), written: None, synced });
        if is_linked {
            entry = entry.flags(squeue::Flags::IO_LINK);
        }
        self.push(&entry);
        if is_linked {
            let datasync = types::FsyncFlags::DATASYNC;
            let sync = match slot {
                Some(slot) => opcode::Fsync::new(types::Fixed(slot)).flags(datasync).build(),
                None => opcode::Fsync::new(types::Fd(file.batches.as_raw_fd())).flags(datasync).build(),
            };
            self.push(&sync.user_data(SYNC));
        }
        self.submit()
    }

    fn finished(&mut self) -> Result<Option<(Half, io::Result<usize>)>, LogFailure> {
        if let (true, Some(writer)) = (self.is_handed_over, &self.writer) {
            return match writer.take() {
                Some((job, written)) => {
                    self.is_handed_over = false;
                    Ok(Some((job.half, outcome_of(written))))
                }
                None if writer.is_gone() => Err(LogFailure::HelperGone),
                None => Ok(None),
            };
        }
        if self.unsubmitted {
            self.submit()?;
        }
        self.reap();
        match self.flight.take_if(|flight| flight.is_over()) {
            None => Ok(None),
            Some(flight) => {
                let outcome = outcome_of(flight.outcome());
                Ok(Some((flight.half, outcome)))
            }
        }
    }

    fn wake_when_finished(&mut self) -> Result<(), LogFailure> {
        if let Some(writer) = &self.writer {
            if self.is_handed_over {
                writer.wake_when_finished();
            }
            return Ok(());
        }
        if self.flight.is_some() && self.wake_armed_at == self.flights {
            return Ok(());
        }
        // DRAIN: executed after everything that was submitted before it, that is, after the write in flight.
        let entry = opcode::Write::new(types::Fd(self.wake.as_raw_fd()), WAKE_COUNT.as_ptr(), 8)
            .build()
            .flags(squeue::Flags::IO_DRAIN)
            .user_data(WAKE);
        self.push(&entry);
        self.wake_armed_at = self.flights;
        self.submit()
    }

    fn wait(&mut self) -> Result<(), LogFailure> {
        if let (true, Some(writer)) = (self.is_handed_over, &self.writer) {
            return if writer.wait() { Ok(()) } else { Err(LogFailure::HelperGone) };
        }
        loop {
            self.reap();
            if self.flight.as_ref().is_none_or(Flight::is_over) {
                return Ok(());
            }
            match self.kernel().submit_and_wait(1) {
                Ok(_) => self.unsubmitted = false,
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
                Err(error) => return Err(ring_failure("wait", error)),
            }
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.wait().is_err() {
            // The kernel may still be reading: leak the memory rather than let something else be written from it.
            std::mem::forget(self.flight.take());
        }
    }
}
