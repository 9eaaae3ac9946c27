//! The two clocks: one that only goes forward, for deadlines, and the calendar, for ctime and mtime (R16).

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A monotonic clock that all cores share; cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts at a value of 1 ms, so that 0 can mean "never".
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Milliseconds since the server started, plus 1. Never goes back.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    /// Nanoseconds since the server started. Never goes back.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Milliseconds since 1970 by the wall clock; may jump. For ctime, mtime and TTL alone, and in few rooms:
/// `WALL_CLOCK_ROOMS` in `tests/tidy/rules.rs`.
pub fn wall_ms() -> i64 {
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    #[cfg(test)]
    let now_ms = now_ms + LEAPT_MS.get();
    now_ms
}

#[cfg(test)]
thread_local! {
    static LEAPT_MS: std::cell::Cell<i64> = const { std::cell::Cell::new(0) };
}

/// The wall clock leaps for this thread, forward or back, as when somebody sets it.
#[cfg(test)]
pub fn leap(by_ms: i64) {
    LEAPT_MS.set(LEAPT_MS.get() + by_ms);
}

/// Milliseconds of the machine's monotonic clock (CLOCK_MONOTONIC): the seed of session ids (S1), which must differ
/// between two runs of the server on one machine.
pub fn machine_monotonic_ms() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}
