//! Lanes: bounded queues between two cores, and the doorbell that wakes a sleeping one.
//!
//! glommio's own cross-executor channel lost wake-ups in measurement (tuning.md, "Lanes"), so this is ours. A lane is a
//! ring of `slots` values with one producer and one consumer. A [`Doorbell`] belongs to the core that sleeps, whatever
//! the number of lanes that lead to it: one flag, and one byte on a socket pair that the sleeping executor reads
//! through its own ring. The producer makes that system call only if the flag says that the consumer sleeps.
//!
//! Why no wake-up is lost. The consumer: (1) sets `asleep`, (2) fence, (3) looks into its lanes once more, (4) sleeps
//! only if they are empty. The producer: (a) pushes, (b) fence, (c) reads `asleep`. With both fences sequentially
//! consistent, either (3) sees the push of (a), or (c) sees the flag of (1). There is no third order.

#![allow(unsafe_code)] // one use: a descriptor changes its owner in `BellEnd::attach`

use crossbeam::queue::ArrayQueue;
use futures_lite::AsyncReadExt;
use glommio::net::UnixStream as GlommioUnixStream;
use std::{
    cell::Cell,
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
    time::Duration,
};

/// The ringing side of a core's bell; cheap to clone, one for each core that may wake it.
#[derive(Clone, Debug)]
pub struct Doorbell {
    shared: Arc<BellShared>,
}

#[derive(Debug)]
struct BellShared {
    asleep: AtomicBool,
    rings: AtomicU64,
    near: UnixStream,
}

/// The sleeping side, before it has been moved to its executor.
#[derive(Debug)]
pub struct BellEnd {
    doorbell: Doorbell,
    far: UnixStream,
    /// What the socket's read timeout is set to; zero for none.
    read_timeout: Cell<Duration>,
}

/// The sleeping side on its executor.
#[derive(Debug)]
pub struct Sleeper {
    doorbell: Doorbell,
    far: GlommioUnixStream,
}

/// Makes a bell.
///
/// # Errors
/// If the process has no file descriptors left for a socket pair.
pub fn doorbell() -> io::Result<(Doorbell, BellEnd)> {
    let (near, far) = UnixStream::pair()?;
    near.set_nonblocking(true)?;
    let doorbell = Doorbell {
        shared: Arc::new(BellShared { asleep: AtomicBool::new(false), rings: AtomicU64::new(0), near }),
    };
    Ok((doorbell.clone(), BellEnd { doorbell, far, read_timeout: Cell::new(Duration::ZERO) }))
}

impl Doorbell {
    /// Wakes the core if it sleeps. Call after pushing.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::Relaxed) && self.shared.asleep.swap(false, Ordering::AcqRel) {
            self.send();
        }
    }

    /// Wakes the core whatever the flag says: for wakers that do not push into a lane.
    pub fn ring_always(&self) {
        self.shared.asleep.store(false, Ordering::Release);
        self.send();
    }

    fn send(&self) {
        self.shared.rings.fetch_add(1, Ordering::Relaxed);
        // A full socket buffer holds unread bytes already, so the sleeper will wake; a closed one has no sleeper.
        let _ = (&self.shared.near).write(&[1]);
    }

    /// System calls made to wake the core, since start.
    pub fn rings(&self) -> u64 {
        self.shared.rings.load(Ordering::Relaxed)
    }

    /// The socket on which one byte wakes the sleeper: for the kernel to write to when a flush completes.
    pub fn wake_fd(&self) -> RawFd {
        self.shared.near.as_raw_fd()
    }
}

impl BellEnd {
    /// The ringing side of this bell.
    pub fn doorbell(&self) -> Doorbell {
        self.doorbell.clone()
    }

    /// The sleep of a thread that runs no executor: like [`Sleeper::sleep`], but it blocks the thread, for at most
    /// `limit` (rounded up to a microsecond). One system call, where glommio's parking makes about ten.
    ///
    /// # Errors
    /// If the socket pair broke.
    pub fn sleep_thread(&self, limit: Duration, is_idle: impl FnOnce() -> bool) -> io::Result<()> {
        let asleep = &self.doorbell.shared.asleep;
        asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !is_idle() {
            asleep.store(false, Ordering::Relaxed);
            return Ok(());
        }
        let limit = limit.max(Duration::from_micros(1));
        if self.read_timeout.get() != limit {
            self.far.set_read_timeout(Some(limit))?;
            self.read_timeout.set(limit);
        }
        let outcome = (&self.far).read(&mut [0; 64]);
        asleep.store(false, Ordering::Relaxed);
        match outcome {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Attaches the bell to the current glommio executor.
    pub fn attach(self) -> Sleeper {
        // SAFETY: `into_raw_fd` gives up the only owner of the descriptor, which is an open stream socket.
        let far = unsafe { GlommioUnixStream::from_raw_fd(self.far.into_raw_fd()) };
        Sleeper { doorbell: self.doorbell, far }
    }
}

impl Sleeper {
    /// The ringing side of this bell.
    pub fn doorbell(&self) -> Doorbell {
        self.doorbell.clone()
    }

    /// Sleeps until the bell rings, unless `is_idle` denies, after the flag is up, that there is nothing to do.
    ///
    /// Returns at once in that case. May return without reason; callers loop.
    ///
    /// # Errors
    /// If the socket pair broke, which only happens when the process is being torn down.
    pub async fn sleep(&mut self, is_idle: impl FnOnce() -> bool) -> io::Result<()> {
        let asleep = &self.doorbell.shared.asleep;
        asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !is_idle() {
            asleep.store(false, Ordering::Relaxed);
            return Ok(());
        }
        // A buffer larger than what is there makes glommio register its next poll at once, which saves the receive
        // call that would find nothing.
        let mut bytes = [0; 64];
        let received = self.far.read(&mut bytes).await?;
        self.doorbell.shared.asleep.store(false, Ordering::Relaxed);
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// The producing end of a lane.
#[derive(Debug)]
pub struct LaneSender<T> {
    queue: Arc<ArrayQueue<T>>,
    doorbell: Doorbell,
}

/// The consuming end of a lane.
#[derive(Debug)]
pub struct LaneReceiver<T> {
    queue: Arc<ArrayQueue<T>>,
}

/// Makes a lane of `slots` values to the core that owns `doorbell`.
pub fn lane<T>(slots: usize, doorbell: Doorbell) -> (LaneSender<T>, LaneReceiver<T>) {
    let queue = Arc::new(ArrayQueue::new(slots));
    (LaneSender { queue: Arc::clone(&queue), doorbell }, LaneReceiver { queue })
}

impl<T> LaneSender<T> {
    /// Adds a value without waking anybody.
    ///
    /// # Errors
    /// Gives the value back if the lane is full.
    pub fn push(&self, value: T) -> Result<(), T> {
        self.queue.push(value)
    }

    /// Wakes the consumer if it sleeps. Once a turn, after the pushes.
    pub fn ring(&self) {
        self.doorbell.ring();
    }

    /// Free slots.
    pub fn room(&self) -> usize {
        self.queue.capacity() - self.queue.len()
    }

    /// Whether at least a quarter of the lane is taken: then the consumer should be woken whatever it sleeps for.
    pub fn is_quarter_full(&self) -> bool {
        self.queue.len() * 4 >= self.queue.capacity()
    }
}

impl<T> LaneReceiver<T> {
    /// The oldest value.
    pub fn pop(&self) -> Option<T> {
        self.queue.pop()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glommio::{LocalExecutorBuilder, Placement};

    /// Danger: a value is pushed just as the consumer falls asleep, and nobody ever wakes it (seen with glommio's own
    /// channel). Two executors play a long ping-pong of random bursts, so that each falls asleep all the time; a lost
    /// wake-up hangs the test, which the runner's limit turns into a failure.
    #[test]
    fn no_wake_up_is_lost() {
        const ROUNDS: u64 = 20_000;
        let (ping_bell, ping_end) = doorbell().unwrap();
        let (pong_bell, pong_end) = doorbell().unwrap();
        let (to_pong, from_ping) = lane::<u64>(64, pong_bell);
        let (to_ping, from_pong) = lane::<u64>(64, ping_bell);

        let echo = LocalExecutorBuilder::new(Placement::Unbound)
            .spawn(move || async move {
                let mut sleeper = pong_end.attach();
                let mut echoed = 0;
                while echoed < ROUNDS {
                    while let Some(value) = from_ping.pop() {
                        to_ping.push(value).unwrap();
                        to_ping.ring();
                        echoed += 1;
                    }
                    if echoed < ROUNDS {
                        sleeper.sleep(|| from_ping.is_empty()).await.unwrap();
                    }
                }
            })
            .unwrap();
        let source = LocalExecutorBuilder::new(Placement::Unbound)
            .spawn(move || async move {
                let mut sleeper = ping_end.attach();
                let mut random = 88_172_645_463_325_252_u64;
                let (mut sent, mut received) = (0, 0);
                while received < ROUNDS {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    for _ in 0..(random % 7 + 1).min(ROUNDS - sent) {
                        to_pong.push(sent).unwrap();
                        to_pong.ring();
                        sent += 1;
                    }
                    while received < sent {
                        match from_pong.pop() {
                            Some(value) => {
                                assert_eq!(value, received, "a lane keeps its order");
                                received += 1;
                            }
                            None => sleeper.sleep(|| from_pong.is_empty()).await.unwrap(),
                        }
                    }
                }
                received
            })
            .unwrap();
        assert_eq!(source.join().unwrap(), ROUNDS);
        echo.join().unwrap();
    }

    /// Danger: the value came between the consumer's last look and its flag, so nobody rang. The look after the flag
    /// is what finds it; without that look this test hangs.
    #[test]
    fn a_push_before_the_flag_is_found_by_the_second_look() {
        let (bell, end) = doorbell().unwrap();
        let (sender, receiver) = lane::<u8>(4, bell.clone());
        sender.push(1).unwrap();
        sender.ring();
        assert_eq!(bell.rings(), 0, "the consumer is awake: no system call");
        let slept = LocalExecutorBuilder::new(Placement::Unbound)
            .spawn(move || async move { end.attach().sleep(|| receiver.is_empty()).await })
            .unwrap();
        slept.join().unwrap().unwrap();
    }

    /// Danger: the value comes after the consumer's second look, just as it falls asleep. Then the flag is up, and the
    /// producer must ring; without the flag this test hangs.
    #[test]
    fn a_push_behind_the_second_look_rings() {
        let (bell, end) = doorbell().unwrap();
        let (sender, receiver) = lane::<u8>(4, bell.clone());
        let value = LocalExecutorBuilder::new(Placement::Unbound)
            .spawn(move || async move {
                let mut sleeper = end.attach();
                let looked = || {
                    let was_empty = receiver.is_empty();
                    sender.push(7).unwrap();
                    sender.ring();
                    was_empty
                };
                sleeper.sleep(looked).await.unwrap();
                receiver.pop()
            })
            .unwrap();
        assert_eq!(value.join().unwrap(), Some(7));
        assert_eq!(bell.rings(), 1);
    }

    #[test]
    fn a_full_lane_gives_the_value_back() {
        let (bell, _end) = doorbell().unwrap();
        let (sender, receiver) = lane::<u8>(4, bell);
        assert!(!sender.is_quarter_full());
        for value in 0..4 {
            sender.push(value).unwrap();
        }
        assert!(sender.is_quarter_full());
        assert_eq!(sender.room(), 0);
        assert_eq!(sender.push(4), Err(4));
        assert_eq!(receiver.pop(), Some(0));
        assert_eq!(sender.room(), 1);
    }

    /// Danger: waking costs a system call; a consumer that is awake must not be rung.
    #[test]
    fn nobody_rings_a_core_that_is_awake() {
        let (bell, _end) = doorbell().unwrap();
        let (sender, _receiver) = lane::<u8>(4, bell.clone());
        sender.push(1).unwrap();
        sender.ring();
        assert_eq!(bell.rings(), 0);
    }
}
