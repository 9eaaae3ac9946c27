//! Takes away containers without children and TTL nodes whose time is over (rows T21-T23; Java's `ContainerManager`).
//!
//! Only where transactions are ordered: on a standalone server or a leader. A round begins every
//! `znode.container.checkIntervalMs`. It looks at a bounded number of candidates a turn and posts a deleteContainer for
//! each one that is due, no more of them than `znode.container.maxPerMinute` allows, so that neither many candidates nor
//! many deletions hold up anybody's request.

use super::{Duty, Pipeline};
use std::collections::VecDeque;
use zkfast_wire::{OpCode, Request, SessionId, Xid};

/// Candidates looked at in one turn: some 100 us on a tree that is not in the caches.
const LOOKS_PER_TURN: usize = 512;

/// When nodes are reaped.
#[derive(Clone, Copy, Debug)]
pub struct ReapPolicy {
    /// `znode.container.checkIntervalMs`: from one round to the next, milliseconds, at least 1. A round begins with the
    /// first turn after its time; an idle pipeline has some twenty turns a second, one a tick with `--cores 1`.
    pub interval_ms: i64,
    /// `znode.container.maxPerMinute`: most deletions a minute, at least 1.
    pub per_minute_max: i64,
    /// `znode.container.maxNeverUsedIntervalMs`: containers that never had a child go after so many milliseconds; 0
    /// keeps them.
    pub never_used_ms: i64,
}

/// Where the round stands.
#[derive(Debug)]
pub(super) struct Reaper {
    policy: ReapPolicy,
    /// Wall clock of the next round, milliseconds.
    next_round_ms: i64,
    /// Wall clock before which no further deletion is posted, milliseconds.
    next_delete_ms: i64,
    /// The last candidate looked at, while a round is on.
    after: Option<String>,
    /// Found due in this round and not posted yet, at most [`LOOKS_PER_TURN`].
    due: VecDeque<String>,
}

impl Reaper {
    pub(super) fn new(policy: ReapPolicy, wall_ms: i64) -> Self {
        Self {
            policy,
            next_round_ms: wall_ms.saturating_add(policy.interval_ms),
            next_delete_ms: wall_ms,
            after: None,
            due: VecDeque::new(),
        }
    }

    /// Whether this turn has anything to do; begins a round whose time has come.
    fn is_at_work(&mut self, wall_ms: i64) -> bool {
        // A wall clock that was set back must not put the next round off for that long.
        self.next_round_ms = self.next_round_ms.min(wall_ms.saturating_add(self.policy.interval_ms));
        self.next_delete_ms = self.next_delete_ms.min(wall_ms.saturating_add(self.spacing_ms()));
        let is_idle = self.after.is_none() && self.due.is_empty();
        if is_idle && wall_ms >= self.next_round_ms {
            self.next_round_ms = wall_ms.saturating_add(self.policy.interval_ms);
            self.after = Some(String::new());
        }
        self.after.is_some() || !self.due.is_empty()
    }

    fn spacing_ms(&self) -> i64 {
        60_000 / self.policy.per_minute_max
    }

    /// Whether the next deletion may be posted now; then the one after it has to wait.
    fn may_delete(&mut self, wall_ms: i64) -> bool {
        if wall_ms < self.next_delete_ms {
            return false;
        }
        // What was not used up while there were no turns may be made up for, but only a bit.
        self.next_delete_ms = self.next_delete_ms.max(wall_ms - 50) + self.spacing_ms();
        true
    }
}

impl Pipeline {
    /// A turn of the round, if one is on; whether the next turn should follow at once.
    pub(super) fn reap(&mut self) -> bool {
        if self.duty != Duty::Orders
            || !self.reaper.is_at_work(self.wall_ms)
            || self.is_backed_up()
            || self.log.space_is_low()
        {
            return false;
        }
        if self.reaper.due.is_empty()
            && let Some(after) = self.reaper.after.take()
        {
            let never_used_ms = self.reaper.policy.never_used_ms;
            let (due, rest) = self.tree.reapable(self.wall_ms, never_used_ms, &after, LOOKS_PER_TURN);
            self.reaper.due.extend(due);
            self.reaper.after = rest;
        }
        let mut any = false;
        while !self.reaper.due.is_empty() && !self.is_backed_up() && self.reaper.may_delete(self.wall_ms) {
            self.roll_over();
            if self.node.next_zxid().is_none() || self.await_reserve(0) {
                break;
            }
            let path = self.reaper.due.pop_front().expect("looked at above");
            // It may have changed since it was found due; what is only prepared, `prepare` sees (T23).
            if self.tree.is_reapable(&path, self.wall_ms, self.reaper.policy.never_used_ms) {
                log::debug!("deleting {path:?}, a container without children or a node whose time is over");
                let request = Request::DeleteContainer(path.as_bytes());
                self.propose(None, SessionId(0), Xid(0), OpCode::DeleteContainer, Ok(&request), &[]);
                any = true;
            }
        }
        any || self.reaper.after.is_some() && self.reaper.due.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T21: rounds keep their interval, deletions their spacing, and a clock that is set back stops neither.
    #[test]
    fn rounds_and_deletions_keep_their_distance() {
        let policy = ReapPolicy { interval_ms: 1_000, per_minute_max: 600, never_used_ms: 0 };
        let mut reaper = Reaper::new(policy, 10_000);
        assert!(!reaper.is_at_work(10_999));
        assert!(reaper.is_at_work(11_000));
        reaper.after = None;
        assert!(!reaper.is_at_work(11_999));
        assert!(reaper.is_at_work(12_000));
        let posted = (12_000..13_000).filter(|now_ms| reaper.may_delete(*now_ms)).count();
        assert!((10..=11).contains(&posted), "{posted} in a second, 600 a minute");
        reaper.after = None;
        assert!(!reaper.is_at_work(5_000), "set back by seven seconds");
        assert!(reaper.is_at_work(6_000));
        assert!((6_000..6_101).any(|now_ms| reaper.may_delete(now_ms)));
    }
}
