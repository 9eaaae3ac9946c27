//! One epoll for everything that can wake the pipeline: its bell, listeners, sockets, and the wake-up of the threads
//! that look up names and read files for the links.
//!
//! Level-triggered: a turn reads a bounded share of each socket, and what it leaves is reported again the next time, so
//! there is no list of half-read sockets that could lose one.

use rustix::event::{EventfdFlags, epoll, eventfd};
use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

/// Sockets reported by one call. More than that are ready: the next call reports them, round robin.
const READY_MAX: usize = 256;

/// Names one registered descriptor; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Token(pub(super) u64);

/// What a socket is ready for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) token: Token,
    /// Bytes, an end or an error can be read.
    pub(super) readable: bool,
    /// There is room to write, or the connection attempt has ended.
    pub(super) writable: bool,
}

pub(super) struct Poller {
    epoll: OwnedFd,
    ready: Vec<Ready>,
    token_next: u64,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, ready: Vec::with_capacity(READY_MAX), token_next: 0 })
    }

    /// Waits for `fd` to become readable, or writable where asked for.
    pub(super) fn add(&mut self, fd: impl AsFd, readable: bool, writable: bool) -> io::Result<Token> {
        let token = Token(self.token_next);
        self.token_next += 1;
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token.0), flags(readable, writable))?;
        Ok(token)
    }

    /// Registers again, under its old name, what [`remove`](Self::remove) took out.
    pub(super) fn add_again(&self, fd: impl AsFd, token: Token, writable: bool) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token.0), flags(true, writable))?)
    }

    pub(super) fn change(
        &self,
        fd: impl AsFd,
        token: Token,
        readable: bool,
        writable: bool,
    ) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(token.0), flags(readable, writable))?)
    }

    pub(super) fn remove(&self, fd: impl AsFd) {
        // A descriptor that the kernel has dropped already is as good as removed.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits at most `limit`, rounded up to a millisecond; a signal ends the wait too.
    pub(super) fn wait(&mut self, limit: Duration) -> io::Result<()> {
        self.ready.clear();
        let limit = rustix::event::Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX).min(86_400),
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; READY_MAX];
        match epoll::wait(&self.epoll, &mut events, Some(&limit)) {
            Ok((events, _)) => {
                self.ready.extend(events.iter().map(Ready::of));
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Number of reports of the last wait.
    pub(super) fn ready_count(&self) -> usize {
        self.ready.len()
    }

    /// One report of the last wait.
    pub(super) fn ready(&self, index: usize) -> Ready {
        self.ready[index]
    }

    /// Forgets the reports of the last wait: they are worked off.
    pub(super) fn clear(&mut self) {
        self.ready.clear();
    }
}

impl Ready {
    fn of(event: &epoll::Event) -> Self {
        let flags = event.flags;
        let broken = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
        Self {
            token: Token(event.data.u64()),
            readable: broken || flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP),
            writable: broken || flags.contains(epoll::EventFlags::OUT),
        }
    }
}

fn flags(readable: bool, writable: bool) -> epoll::EventFlags {
    let mut flags = epoll::EventFlags::empty();
    if readable {
        flags |= epoll::EventFlags::IN;
    }
    if writable {
        flags |= epoll::EventFlags::OUT;
    }
    flags
}

/// Ends the pipeline's sleep, from any thread.
#[derive(Clone, Debug)]
pub struct Waker {
    event: Arc<OwnedFd>,
}

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event: Arc::new(event) })
    }

    pub(super) fn event(&self) -> &OwnedFd {
        &self.event
    }

    /// Ends the present sleep, or the next one.
    pub fn wake(&self) {
        // Fails only where the counter is full, and then the sleeper wakes anyway.
        let _ = rustix::io::write(&*self.event, &1_u64.to_ne_bytes());
    }

    pub(super) fn silence(&self) {
        let _ = rustix::io::read(&*self.event, &mut [0; 8]);
    }
}
