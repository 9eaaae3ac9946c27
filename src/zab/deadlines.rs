//! The times after which waiting ends. They decide what is overdue, never what is safe.

use crate::config::Config;

/// The limits of a member, all in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    /// Between two looks at the clock, and between two PINGs: half a tick (`Leader.lead`).
    pub(crate) half_tick: u64,
    /// Reaching a leader: connectToLearnerMasterLimit ticks (`Learner.connectToLeader`).
    pub(crate) connect: u64,
    /// A phase of catching up: initLimit ticks.
    pub(crate) init: u64,
    /// Silence or lag afterwards: syncLimit ticks.
    pub(crate) sync: u64,
}

impl Deadlines {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            half_tick: (config.tick_ms / 2).max(1),
            connect: config.tick_ms * config.connect_limit_ticks,
            init: config.tick_ms * config.init_limit_ticks,
            sync: config.tick_ms * config.sync_limit_ticks,
        }
    }
}

/// Whether `limit_ms` have passed since `since_ms`. A clock that jumped back has passed nothing.
pub(crate) const fn overdue(now_ms: u64, since_ms: u64, limit_ms: u64) -> bool {
    now_ms.saturating_sub(since_ms) >= limit_ms
}
