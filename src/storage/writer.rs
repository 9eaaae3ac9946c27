//! A helper thread that makes one write of the log at a time and waits for it, so that the pipeline goes on meanwhile.
//!
//! Why not the ring: a synchronous write cannot be started without blocking, so the ring hands it to a worker of the
//! kernel's all the same, which may be bound to a busy CPU (see [`super::disk::Durability`]). This thread runs
//! wherever there is room. Why not always: to wake a thread and be woken by it costs some 10 us of CPU, so short
//! writes, which belong to few requests, are made by the pipeline itself ([`super::ring::Ring::in_place`]).
//!
//! No wake-up is lost: the pipeline (1) raises `wake_wanted`, (2) fences, (3) looks at `finished`; this thread (a)
//! raises `finished`, (b) fences, (c) looks at `wake_wanted`. Whoever comes second sees the other's flag.

use super::{
    disk::{Durability, SegmentFile},
    window::Half,
};
use std::{
    io,
    os::{fd::OwnedFd, unix::fs::FileExt},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering, fence},
    },
    thread::JoinHandle,
    time::Duration,
};

/// One write.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) file: Arc<SegmentFile>,
    pub(super) offset: u64,
    pub(super) half: Half,
    pub(super) length: usize,
}

/// What hands over, one at a time.
#[derive(Debug, Default)]
enum Desk {
    #[default]
    Empty,
    Asked(Box<Job>),
    /// The job with bytes written, or an error number below 0.
    Done(Box<Job>, i32),
    Stop,
}

#[derive(Debug)]
struct Shared {
    desk: Mutex<Desk>,
    /// For [`Writer::wait`] alone.
    done: Condvar,
    finished: AtomicBool,
    wake_wanted: AtomicBool,
    wake: Arc<OwnedFd>,
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().expect("nobody panics at the desk")
    }

    fn send_wake(&self) {
        if self.wake_wanted.swap(false, Ordering::Relaxed) {
            // A count that has no room left would wake the pipeline all the same.
            let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        }
    }
}

/// The pipeline's side of the helper.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. `wake` is an eventfd to be raised, see [`Writer::wake_when_finished`].
    pub(super) fn start(wake: Arc<OwnedFd>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            desk: Mutex::default(),
            done: Condvar::new(),
            finished: AtomicBool::new(false),
            wake_wanted: AtomicBool::new(false),
            wake,
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("log-writer".to_owned()).spawn(move || run(&theirs))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Hands a write over. The one before has been taken back.
    pub(super) fn ask(&self, job: Job) {
        let before = std::mem::replace(&mut *self.shared.desk(), Desk::Asked(Box::new(job)));
        assert!(matches!(before, Desk::Empty), "one write at a time");
        self.unpark();
    }

    fn unpark(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// The job and its outcome, once it is done. Makes no system call while it is not.
    pub(super) fn take(&self) -> Option<(Job, i32)> {
        if !self.shared.finished.load(Ordering::Acquire) {
            return None;
        }
        self.shared.finished.store(false, Ordering::Relaxed);
        match std::mem::take(&mut *self.shared.desk()) {
            Desk::Done(job, outcome) => Some((*job, outcome)),
            other => unreachable!("finished with {other:?}"),
        }
    }

    /// Has the eventfd raised when the write is done, at once if it is. It may also be raised early; so arm again.
    pub(super) fn wake_when_finished(&self) {
        self.shared.wake_wanted.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.shared.finished.load(Ordering::Relaxed) {
            self.shared.send_wake();
        }
    }

    /// Waits until the write is done; false if the thread has gone instead.
    pub(super) fn wait(&self) -> bool {
        /// How soon it is seen that the thread has gone.
        const LOOK: Duration = Duration::from_millis(50);
        let mut desk = self.shared.desk();
        while !self.shared.finished.load(Ordering::Acquire) {
            if self.is_gone() {
                return false;
            }
            let waited = self.shared.done.wait_timeout(desk, LOOK);
            desk = waited.expect("nobody panics at the desk").0;
        }
        true
    }

    /// Whether the thread is gone although nobody stopped it: it panicked.
    pub(super) fn is_gone(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Writer {
    /// Waits for a write that is being made: its memory must not be given back before.
    fn drop(&mut self) {
        let before = std::mem::replace(&mut *self.shared.desk(), Desk::Stop);
        debug_assert!(!matches!(before, Desk::Asked(_)), "a log waits for its write before it goes");
        self.unpark();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared) {
    loop {
        let job = {
            let mut desk = shared.desk();
            match std::mem::take(&mut *desk) {
                Desk::Asked(job) => Some(job),
                Desk::Stop => return,
                other => {
                    *desk = other;
                    None
                }
            }
        };
        let Some(job) = job else {
            std::thread::park();
            continue;
        };
        let outcome = write_once(&job.file, &job.half.memory()[..job.length], job.offset);
        {
            let mut desk = shared.desk();
            if matches!(*desk, Desk::Stop) {
                return;
            }
            *desk = Desk::Done(job, outcome);
            shared.finished.store(true, Ordering::Release);
            shared.done.notify_one();
        }
        fence(Ordering::SeqCst);
        shared.send_wake();
    }
}

/// One `pwrite`, and what io_uring would have reported of it: bytes, or an error number below 0.
pub(super) fn write_once(segment: &SegmentFile, bytes: &[u8], offset: u64) -> i32 {
    loop {
        match segment.batches.write_at(bytes, offset) {
            Ok(written) if written == bytes.len() && segment.durability == Durability::Fsync => {
                return match segment.batches.sync_data() {
                    Ok(()) => i32::try_from(written).unwrap_or(i32::MAX),
                    Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
                };
            }
            Ok(written) => return i32::try_from(written).unwrap_or(i32::MAX),
            // Nothing was written yet: this is no failure of the disk.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return -error.raw_os_error().unwrap_or(libc::EIO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::{Directory, LogDirectory};
    use std::{
        os::fd::AsFd,
        time::{Duration, Instant},
    };

    fn writer() -> (tempfile::TempDir, Arc<SegmentFile>, Writer, Arc<OwnedFd>) {
        let directory = tempfile::tempdir().unwrap();
        let mut logs = LogDirectory::open(directory.path(), Some(Durability::Dsync)).unwrap();
        let file = logs.create("prepared-1").unwrap();
        let wake = Arc::new(rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).unwrap());
        (directory, file, Writer::start(Arc::clone(&wake)).unwrap(), wake)
    }

    fn sleep(wake: &OwnedFd) {
        let mut wait = [rustix::event::PollFd::new(wake, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut wait, Some(&limit)).unwrap(), 1, "nobody wakes the pipeline");
        rustix::io::read(wake.as_fd(), &mut [0; 8]).unwrap();
    }

    fn job(file: &Arc<SegmentFile>, offset: u64) -> Job {
        Job { file: Arc::clone(file), offset, half: Half::new(8192).unwrap(), length: 8192 }
    }

    /// Danger: the pipeline sleeps and nobody tells it that its write is done. Armed before and after the end.
    #[test]
    fn whoever_waits_for_a_write_is_woken() {
        let (_directory, file, writer, wake) = writer();
        for round in 0..200 {
            writer.ask(job(&file, round * 8192));
            if round % 2 == 0 {
                assert!(writer.wait());
            }
            // A wake-up of the round before may come late: whoever finds nothing arms again.
            let (job, outcome) = loop {
                writer.wake_when_finished();
                sleep(&wake);
                if let Some(done) = writer.take() {
                    break done;
                }
            };
            assert_eq!((outcome, job.offset), (8192, round * 8192));
            assert!(writer.take().is_none());
        }
    }

    /// Danger: an error of the disk is taken for a success.
    #[test]
    fn a_write_that_fails_says_so() {
        let (_directory, file, writer, _wake) = writer();
        let unaligned = Job { offset: 1, length: 511, ..job(&file, 0) };
        let is_direct = {
            writer.ask(unaligned);
            assert!(writer.wait());
            writer.take().unwrap().1
        };
        // Without O_DIRECT (tmpfs) an unaligned write is fine.
        assert!(is_direct == -libc::EINVAL || is_direct == 511, "{is_direct}");
    }

    /// Danger: a server that stops hangs on its helper.
    #[test]
    fn the_thread_ends_with_its_owner() {
        let (_directory, file, writer, _wake) = writer();
        writer.ask(job(&file, 0));
        assert!(writer.wait());
        let started = Instant::now();
        drop(writer);
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}
