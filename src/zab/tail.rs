//! The history as the order sees it: which zxids this server's log holds, and how far they are safe.
//!
//! Within an epoch zxids are consecutive, but for those that an Apache leader uses up without a proposal, so a log of a
//! million records over three epochs is three runs and few more. From them alone a leader plans how a learner catches
//! up, and a learner checks what it is told: no disk is asked. `appended` is the end that was handed to the log,
//! `durable` the end that survives a crash. The records themselves are the log's.

use std::collections::VecDeque;
use zkfast_wire::Zxid;

/// Consecutive zxids of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first.
    pub first: Zxid,
    /// The last.
    pub last: Zxid,
}

impl Run {
    const fn records(&self) -> u64 {
        (self.last.0 - self.first.0) as u64 + 1
    }
}

/// A log remembers at most so many epochs and gaps; beyond, the oldest are only in the snapshot. Each costs 16 bytes here
/// and one election to make, or one request that an Apache leader cannot prepare.
const RUNS_MAX: usize = 4096;

/// Which records the log holds after `floor`, and its two ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The state at this zxid is in the newest snapshot that the log follows on; records up to it may be gone.
    floor: Zxid,
    runs: VecDeque<Run>,
    appended: Zxid,
    durable: Zxid,
}

impl Tail {
    /// A log that was recovered from disk; what was read from there is durable. It holds no record that could be
    /// sent: everything through `last` is in the snapshot.
    pub const fn recovered(last: Zxid) -> Self {
        Self { floor: last, runs: VecDeque::new(), appended: last, durable: last }
    }

    /// A log that was recovered with its records after `floor`: *all* of them, in order.
    ///
    /// # Panics
    /// If a zxid does not follow on the one before it.
    pub fn with_records(floor: Zxid, zxids: impl IntoIterator<Item = Zxid>) -> Self {
        let mut tail = Self::recovered(floor);
        for zxid in zxids {
            tail.append(zxid);
        }
        tail.durable = tail.appended;
        tail
    }

    /// The zxid from which on this history can be told.
    pub const fn floor(&self) -> Zxid {
        self.floor
    }

    /// The last record handed to the log.
    pub const fn appended(&self) -> Zxid {
        self.appended
    }

    /// The last record that survives a crash.
    pub const fn durable(&self) -> Zxid {
        self.durable
    }

    /// Whether `zxid` may come next: above the last one. Only a leader of this kind also promises that none is left out
    /// within its epoch; Apache's followers (`Follower.processPacket`) warn where one is, and go on (row Q50). No leader
    /// orders anything with counter 0; a standalone server of Apache's, whose history this may be, does.
    pub fn follows(&self, zxid: Zxid) -> bool {
        zxid > self.appended && zxid.counter() > 0
    }

    /// The transactions after `after` up to the next gap or epoch, but not above `through`: the first and the last.
    pub fn stretch(&self, after: Zxid, through: Zxid) -> Option<Run> {
        let first = self.after(after).filter(|first| *first <= through)?;
        let run = self.runs.iter().rev().find(|run| run.first <= first)?;
        Some(Run { first, last: run.last.min(through) })
    }

    /// Notes a record on its way to the log.
    ///
    /// # Panics
    /// If `zxid` does not follow: the log would not be in order.
    pub fn append(&mut self, zxid: Zxid) {
        assert!(zxid > self.appended, "the log must be in order: {zxid} after {}", self.appended);
        self.appended = zxid;
        match self.runs.back_mut() {
            Some(run) if run.last.next() == Some(zxid) => run.last = zxid,
            _ => {
                self.runs.push_back(Run { first: zxid, last: zxid });
                if self.runs.len() > RUNS_MAX
                    && let Some(oldest) = self.runs.pop_front()
                {
                    self.floor = oldest.last;
                }
            }
        }
    }

    /// Notes that a flush covered everything through `zxid`; returns whether that is news. A completion for records
    /// that were cut off since is none.
    pub fn flushed(&mut self, zxid: Zxid) -> bool {
        let news = zxid > self.durable && zxid <= self.appended;
        if news {
            self.durable = zxid;
        }
        news
    }

    /// Whether this very transaction is part of the history, as far back as it can be told.
    pub fn contains(&self, zxid: Zxid) -> bool {
        self.at_or_below(zxid) == Some(zxid)
    }

    /// The last transaction of the history that is not above `zxid`; `None` below the floor.
    pub fn at_or_below(&self, zxid: Zxid) -> Option<Zxid> {
        if zxid < self.floor {
            return None;
        }
        // Newest first: a learner is seldom more than one epoch behind.
        let run = self.runs.iter().rev().find(|run| run.first <= zxid);
        Some(run.map_or(self.floor, |run| run.last.min(zxid)))
    }

    /// The transaction after `zxid` in the history.
    pub fn after(&self, zxid: Zxid) -> Option<Zxid> {
        // Newest first, and mostly within the last run.
        let mut found = None;
        for run in self.runs.iter().rev() {
            if run.last <= zxid {
                break;
            }
            found = Some(if run.first > zxid { run.first } else { Zxid(zxid.0 + 1) });
        }
        found
    }

    /// How many records lie above `after` and not above `through`.
    pub fn records(&self, after: Zxid, through: Zxid) -> u64 {
        let cut = |run: &Run| {
            let first = run.first.max(Zxid(after.0 + 1));
            let last = run.last.min(through);
            if first <= last { (Run { first, last }).records() } else { 0 }
        };
        self.runs.iter().map(cut).sum()
    }

    /// The history ends at `zxid` from now on, durably: who cuts a log syncs it.
    ///
    /// # Panics
    /// If `zxid` is not part of the history: what lies between would be missing (ZOOKEEPER-1154).
    pub fn truncate(&mut self, zxid: Zxid) {
        assert!(self.contains(zxid), "{zxid} is not in this history");
        while let Some(run) = self.runs.back_mut() {
            if run.first > zxid {
                self.runs.pop_back();
            } else {
                run.last = run.last.min(zxid);
                break;
            }
        }
        self.appended = zxid;
        self.durable = zxid;
    }

    /// The history was replaced by a snapshot that ends at `zxid`.
    pub fn replace(&mut self, zxid: Zxid) {
        *self = Self::recovered(zxid);
    }

    /// Records through `floor` are no longer in the log, only in a snapshot.
    pub fn purge(&mut self, floor: Zxid) {
        let Some(floor) = self.at_or_below(floor) else { return };
        self.floor = floor;
        while let Some(run) = self.runs.front_mut() {
            if run.last <= floor {
                self.runs.pop_front();
            } else {
                run.first = run.first.max(Zxid(floor.0 + 1));
                break;
            }
        }
    }

    /// Asserts what must hold between two events.
    ///
    /// # Panics
    /// If it does not hold.
    pub fn check(&self) {
        assert!(self.durable <= self.appended);
        assert!(self.floor <= self.appended);
        assert!(self.runs.back().is_none_or(|run| run.last == self.appended));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zkfast_wire::Epoch;

    fn z(epoch: i64, counter: u32) -> Zxid {
        Zxid::new(Epoch(epoch), counter)
    }

    fn tail() -> Tail {
        let zxids = (3..=5).map(|n| z(1, n)).chain((1..=2).map(|n| z(4, n))).chain([z(6, 1)]);
        Tail::with_records(z(1, 2), zxids)
    }

    /// Danger: the directory of a standalone server of Apache's that went over the end of its counter cannot become a
    /// member's.
    #[test]
    fn a_history_may_have_a_transaction_with_counter_0() {
        let last = Zxid::new(Epoch(1), u32::MAX);
        let tail = Tail::with_records(z(1, 7), [last, z(2, 0), z(2, 1)]);
        assert!(tail.contains(z(2, 0)) && tail.after(last) == Some(z(2, 0)));
        assert!(!tail.follows(z(3, 0)) && tail.follows(z(3, 1)), "no leader orders that");
    }

    #[test]
    fn lookups_agree_with_a_plain_list() {
        let tail = tail();
        let list = [z(1, 2), z(1, 3), z(1, 4), z(1, 5), z(4, 1), z(4, 2), z(6, 1)];
        for probe in (0..8).flat_map(|epoch| (0..8).map(move |counter| z(epoch, counter))) {
            assert_eq!(tail.contains(probe), list.contains(&probe), "{probe}");
            let below = list.iter().rev().copied().find(|zxid| *zxid <= probe);
            assert_eq!(tail.at_or_below(probe), below, "{probe}");
            let above = list[1..].iter().copied().find(|zxid| *zxid > probe);
            assert_eq!(tail.after(probe), above, "{probe}");
            let records = list[1..].iter().filter(|zxid| **zxid > probe && **zxid <= z(4, 2)).count();
            assert_eq!(tail.records(probe, z(4, 2)), records as u64, "{probe}");
        }
    }

    #[test]
    fn cuts_at_both_ends() {
        let mut cut = tail();
        cut.truncate(z(4, 1));
        assert_eq!((cut.appended(), cut.durable()), (z(4, 1), z(4, 1)));
        assert_eq!(cut.after(z(4, 1)), None);
        cut.append(z(4, 2));
        assert_eq!((cut.appended(), cut.durable()), (z(4, 2), z(4, 1)));
        cut.check();
        cut.truncate(z(1, 2));
        assert_eq!(cut, Tail::recovered(z(1, 2)));

        let mut purged = tail();
        purged.purge(z(3, 9));
        assert_eq!((purged.floor(), purged.after(z(1, 5))), (z(1, 5), Some(z(4, 1))));
        assert_eq!(purged.at_or_below(z(1, 4)), None);
        purged.check();
    }

    /// Danger: a truncation to a zxid that this log never had leaves a hole behind (ZOOKEEPER-1154, 1156).
    #[test]
    #[should_panic(expected = "not in this history")]
    fn a_cut_outside_the_history_is_refused() {
        tail().truncate(z(3, 1));
    }

    /// Danger: a completion of a flush that began before a cut vouches for records written after it.
    #[test]
    fn a_late_completion_is_no_news() {
        let mut tail = tail();
        tail.truncate(z(4, 1));
        assert!(!tail.flushed(z(6, 1)));
        assert_eq!(tail.durable(), z(4, 1));
    }
}
