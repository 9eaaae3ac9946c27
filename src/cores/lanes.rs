//! Lanes: bounded queues between two cores, and the doorbell that wakes a sleeping one.
//!
//! glommio's own cross-executor channel lost wake-ups in measurement (tuning.md, "Lanes"), so this is ours. A lane is a
//! ring of `slots` values with one producer and one consumer. A [`Doorbell`] belongs to the core that sleeps, whatever
//! the number of lanes that lead to it: one flag, and an eventfd among those that the core's epoll instance watches.
//! The producer makes that system call only if the flag says that the consumer sleeps.
//!
//! Why no wake-up is lost. The consumer: (1) sets `asleep`, (2) fence, (3) looks into its lanes once more, (4) sleeps
//! only if they are empty. The producer: (a) pushes, (b) fence, (c) reads `asleep`. With both fences sequentially
//! consistent, either (3) sees the push of (a), or (c) sees the flag of (1). There is no third order.
//!
//! The eventfd is watched edge-triggered and never read: each write wakes once, and its count of 64 bits does not run
//! full. So a wake-up costs one system call on either side.

use crossbeam::queue::ArrayQueue;
use rustix::{
    event::{EventfdFlags, Timespec, epoll, eventfd},
    io::Errno,
};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
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
    event: OwnedFd,
}

/// The sleeping side: for a core that waits in an epoll instance of its own, among other things for its bell.
#[derive(Debug)]
pub struct BellEnd {
    doorbell: Doorbell,
}

/// The sleeping side of a thread that waits for nothing but its bell.
#[derive(Debug)]
pub struct Sleeper {
    bell: BellEnd,
    epoll: OwnedFd,
}

/// Proof that whoever pushes will ring, for as long as it lives: the core may block.
#[derive(Debug)]
pub struct Asleep<'a> {
    flag: &'a AtomicBool,
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        self.flag.store(false, Ordering::Relaxed);
    }
}

/// Makes a bell.
///
/// # Errors
/// If the process has no file descriptors left.
pub fn doorbell() -> io::Result<(Doorbell, BellEnd)> {
    let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
    let shared = Arc::new(BellShared { asleep: AtomicBool::new(false), rings: AtomicU64::new(0), event });
    let doorbell = Doorbell { shared };
    Ok((doorbell.clone(), BellEnd { doorbell }))
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
        // A count that has no room left would wake the sleeper all the same.
        let _ = rustix::io::write(&self.shared.event, &1u64.to_ne_bytes());
    }

    /// System calls made to wake the core, since start.
    pub fn rings(&self) -> u64 {
        self.shared.rings.load(Ordering::Relaxed)
    }

    /// The eventfd to which 1 is added to wake the sleeper: for the kernel to write to when a flush completes.
    pub fn wake_fd(&self) -> RawFd {
        self.shared.event.as_raw_fd()
    }
}

impl AsFd for BellEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.doorbell.shared.event.as_fd()
    }
}

impl BellEnd {
    /// The ringing side of this bell.
    pub fn doorbell(&self) -> Doorbell {
        self.doorbell.clone()
    }

    /// Has `epoll` report each ring of this bell as an event with `data`; there is nothing to be read.
    ///
    /// # Errors
    /// If the kernel has no room for another watched descriptor (`fs.epoll.max_user_watches`).
    pub fn watch_in(&self, epoll: impl AsFd, data: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(epoll, self, epoll::EventData::new_u64(data), flags)?)
    }

    /// Before the core blocks: raises the flag, so that whoever pushes rings, unless `is_idle` denies, after the flag is
    /// up, that there is nothing to do. The flag is down again when the proof is dropped.
    pub fn fall_asleep(&self, is_idle: impl FnOnce() -> bool) -> Option<Asleep<'_>> {
        let flag = &self.doorbell.shared.asleep;
        flag.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let asleep = Asleep { flag };
        is_idle().then_some(asleep)
    }

    /// For a thread that waits for nothing else.
    ///
    /// # Errors
    /// If the process has no file descriptors left.
    pub fn into_sleeper(self) -> io::Result<Sleeper> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        self.watch_in(&epoll, 0)?;
        Ok(Sleeper { bell: self, epoll })
    }
}

impl Sleeper {
    /// The ringing side of this bell.
    pub fn doorbell(&self) -> Doorbell {
        self.bell.doorbell()
    }

    /// Sleeps until the bell rings, for at most `limit`, unless `is_idle` denies, after the flag is up, that there is
    /// nothing to do. May return without reason; callers loop.
    ///
    /// # Panics
    /// If the kernel refuses to wait, which no state of this process explains.
    pub fn sleep(&self, limit: Duration, is_idle: impl FnOnce() -> bool) {
        let Some(_asleep) = self.bell.fall_asleep(is_idle) else { return };
        let mut events = [const { std::mem::MaybeUninit::uninit() }; 1];
        match epoll::wait(&self.epoll, &mut events, Some(&timespec(limit))) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("a thread cannot wait for its bell: {error}"),
        }
    }
}

/// A duration as the kernel takes it; what is longer than the kernel's longest is that.
pub fn timespec(duration: Duration) -> Timespec {
    Timespec::try_from(duration).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
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
    use std::{thread, time::Instant};

    /// Longer than any test takes: a lost wake-up hangs, and is not hidden by the time limit.
    const FOR_EVER: Duration = Duration::from_secs(3600);

    /// Danger: a value is pushed just as the consumer falls asleep, and nobody ever wakes it (seen with glommio's own
    /// channel). Two threads play a long ping-pong of random bursts, so that each falls asleep all the time; a lost
    /// wake-up hangs the test, which the runner's limit turns into a failure.
    #[test]
    fn no_wake_up_is_lost() {
        const ROUNDS: u64 = 20_000;
        let (ping_bell, ping_end) = doorbell().unwrap();
        let (pong_bell, pong_end) = doorbell().unwrap();
        let (to_pong, from_ping) = lane::<u64>(64, pong_bell);
        let (to_ping, from_pong) = lane::<u64>(64, ping_bell);

        let echo = thread::spawn(move || {
            let sleeper = pong_end.into_sleeper().unwrap();
            let mut echoed = 0;
            while echoed < ROUNDS {
                while let Some(value) = from_ping.pop() {
                    to_ping.push(value).unwrap();
                    to_ping.ring();
                    echoed += 1;
                }
                if echoed < ROUNDS {
                    sleeper.sleep(FOR_EVER, || from_ping.is_empty());
                }
            }
        });
        let source = thread::spawn(move || {
            let sleeper = ping_end.into_sleeper().unwrap();
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
                        None => sleeper.sleep(FOR_EVER, || from_pong.is_empty()),
                    }
                }
            }
            received
        });
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
        end.into_sleeper().unwrap().sleep(FOR_EVER, || receiver.is_empty());
    }

    /// Danger: the value comes after the consumer's second look, just as it falls asleep. Then the flag is up, and the
    /// producer must ring; without the flag this test hangs.
    #[test]
    fn a_push_behind_the_second_look_rings() {
        let (bell, end) = doorbell().unwrap();
        let (sender, receiver) = lane::<u8>(4, bell.clone());
        let sleeper = end.into_sleeper().unwrap();
        let looked = || {
            let was_empty = receiver.is_empty();
            sender.push(7).unwrap();
            sender.ring();
            was_empty
        };
        sleeper.sleep(FOR_EVER, looked);
        assert_eq!(receiver.pop(), Some(7));
        assert_eq!(bell.rings(), 1);
    }

    /// Danger: nobody reads the eventfd, so a second ring might be no news to epoll, and a first one for ever.
    #[test]
    fn each_ring_wakes_once() {
        let (bell, end) = doorbell().unwrap();
        let sleeper = end.into_sleeper().unwrap();
        for _ in 0..3 {
            bell.ring_always();
            sleeper.sleep(FOR_EVER, || true);
            let begun = Instant::now();
            sleeper.sleep(Duration::from_millis(20), || true);
            assert!(begun.elapsed() >= Duration::from_millis(20), "woken again by a ring that was heard");
        }
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
