//! How fast history is read and sent while clients write: the leader, the learner and the disk of both have to do with it,
//! and clients wait for all three. Without writes it goes as fast as it can.
//!
//! Measured on two CPUs that three servers share (tuning.md, "A learner that comes back"): at full speed each write
//! took three times as long, and a client that writes at a fixed rate fell behind for as long as it lasted.

use crate::config::limits;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// History is sent so many times as fast as new transactions come at least, or the learner would never catch up.
const TIMES_LIVE: u64 = 4;

/// Without a new transaction for so long, nobody writes.
const QUIET: Duration = Duration::from_millis(20);

/// Bytes of all transactions that this server has appended; written by the pipeline, read by the threads that send.
#[derive(Clone, Debug, Default)]
pub(super) struct Appended(Arc<AtomicU64>);

impl Appended {
    /// Adds a record. Only the pipeline does.
    pub(super) fn add(&self, bytes: usize) {
        self.0.store(self.get() + bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One stretch of history on its way.
#[derive(Debug)]
pub(super) struct Pace {
    /// Since when clients write, and what was appended and sent by then.
    since: Instant,
    appended: u64,
    sent: u64,
    /// The last sight of a new transaction.
    last_appended: u64,
    last_new: Option<Instant>,
}

impl Pace {
    pub(super) fn new(now: Instant, appended: u64) -> Self {
        Self { since: now, appended, sent: 0, last_appended: appended, last_new: None }
    }

    /// How long to wait after a piece of `bytes`, when `appended` bytes of transactions have been appended in all.
    pub(super) fn pause(&mut self, bytes: usize, now: Instant, appended: u64) -> Duration {
        let was_quiet = self.last_new.is_none_or(|last_new| now - last_new >= QUIET);
        if appended != self.last_appended {
            self.last_appended = appended;
            self.last_new = Some(now);
        }
        if was_quiet {
            (self.since, self.appended, self.sent) = (now, appended, 0);
            if self.last_new != Some(now) {
                return Duration::ZERO;
            }
        }
        self.sent += bytes as u64;
        if self.sent <= TIMES_LIVE * (appended - self.appended) {
            return Duration::ZERO;
        }
        let due_ns = u128::from(self.sent) * 1_000_000_000 / u128::from(limits::HISTORY_BYTES_PER_SECOND);
        let due = Duration::from_nanos(u64::try_from(due_ns).unwrap_or(u64::MAX));
        due.saturating_sub(now - self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: usize = limits::HISTORY_PIECE_BYTES;

    /// Bytes sent in a second in which clients append `live` bytes a millisecond.
    fn sent_in_a_second(live: u64) -> u64 {
        let begun = Instant::now();
        let mut pace = Pace::new(begun, 0);
        let (mut now, mut sent) = (begun, 0);
        // To read and encode a piece takes 100 microseconds.
        while now - begun < Duration::from_secs(1) {
            now += Duration::from_micros(100);
            let appended = (now - begun).as_millis() as u64 * live;
            now += pace.pause(PIECE, now, appended);
            sent += PIECE as u64;
        }
        sent
    }

    /// Danger: writes are slow for as long as a learner catches up, or it never does.
    #[test]
    fn history_gives_way_to_writes_and_outruns_them() {
        let limit = limits::HISTORY_BYTES_PER_SECOND;
        assert_eq!(sent_in_a_second(0), 10_000 * PIECE as u64, "nobody writes");
        let beside_few = sent_in_a_second(200);
        assert!((limit * 8 / 10..limit * 12 / 10).contains(&beside_few), "{beside_few} beside few writes");
        let live = 50_000;
        let beside_many = sent_in_a_second(live);
        assert!(beside_many > 3 * 1000 * live, "{beside_many} beside {live} a millisecond");
    }
}
