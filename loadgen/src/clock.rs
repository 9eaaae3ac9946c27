//! Time within a run: nanoseconds since the run began, from the monotonic clock.

use std::time::{Duration, Instant};

/// Nanoseconds since the start of the run.
pub type Nanos = u64;

/// One second.
pub const SECOND: Nanos = 1_000_000_000;
/// One millisecond.
pub const MILLISECOND: Nanos = 1_000_000;

/// The zero point that all cores of a run share.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that reads zero now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> Nanos {
        nanos(self.start.elapsed())
    }
}

/// A duration in nanoseconds; 584 years at most.
pub fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}
