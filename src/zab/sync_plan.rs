//! How a learner is brought to the leader's history (Q49, Q50; `LearnerHandler.syncFollower`), as a table.
//!
//! The inputs are three facts: where the learner's log ends, which zxids the leader's history has, and where that
//! history ends for this purpose. Rows are tried for every input in a test: exactly one holds.

use crate::tail::Tail;
use zkfast_wire::Zxid;

/// What the leader sends before NEWLEADER.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncPlan {
    /// DIFF, and the history after this zxid.
    Diff {
        /// The last transaction that both have.
        after: Zxid,
    },
    /// TRUNC to this zxid, and the history after it, which is empty where the learner was merely ahead.
    Trunc {
        /// The last transaction that both have.
        to: Zxid,
    },
    /// SNAP.
    Snapshot,
}

/// The facts.
#[derive(Clone, Copy, Debug)]
pub struct SyncInputs<'a> {
    /// The learner's last logged zxid, from ACKEPOCH.
    pub learner_last: Zxid,
    /// The leader's history.
    pub history: &'a Tail,
    /// Where it ends for this learner: the last committed transaction of an established leader, or all that a
    /// prospective leader begins with.
    pub end: Zxid,
    /// `forceSnapshotSync`.
    pub force_snapshot: bool,
    /// Above so many missing records a snapshot may be cheaper.
    pub diff_records_max: u64,
    /// Records above this one are cheaper than a snapshot, however many they are.
    pub cheap_from: Zxid,
}

/// A row: its name, when it holds, what follows.
struct Row {
    name: &'static str,
    holds: fn(&Facts) -> bool,
    plan: fn(&Facts) -> SyncPlan,
}

/// The inputs, looked up once.
struct Facts {
    forced: bool,
    last: Zxid,
    end: Zxid,
    /// The leader's last transaction that is not above the learner's last; `None` where the log does not reach.
    common: Option<Zxid>,
    too_many: bool,
}

impl Facts {
    fn new(inputs: &SyncInputs<'_>) -> Self {
        let common = inputs.history.at_or_below(inputs.learner_last.min(inputs.end));
        let missing = common.map_or(0, |common| inputs.history.records(common, inputs.end));
        Self {
            forced: inputs.force_snapshot,
            last: inputs.learner_last,
            end: inputs.end,
            common,
            too_many: missing > inputs.diff_records_max
                && common.is_some_and(|common| common < inputs.cheap_from),
        }
    }

    /// A zxid with counter 0 is no transaction: an Apache leader, or a learner that had SNAP from one, calls its
    /// state so at the start of an epoch. It means "all that this epoch began with, and nothing else".
    fn at_epoch_start(&self) -> bool {
        self.last.counter() == 0
    }

    fn shares_last(&self) -> bool {
        self.common == Some(self.last)
    }

    fn common(&self) -> Zxid {
        self.common.expect("the row says that the log reaches")
    }

    fn common_in_epoch(&self) -> bool {
        self.common.is_some_and(|common| common.epoch() == self.last.epoch())
    }
}

const ROWS: [Row; 10] = [
    Row { name: "forced", holds: |f| f.forced, plan: |_| SyncPlan::Snapshot },
    Row {
        name: "equal: empty DIFF",
        holds: |f| !f.forced && f.last == f.end,
        plan: |f| SyncPlan::Diff { after: f.end },
    },
    // The learner has what the leader lacks, or what is not committed: cut, then it comes again as a proposal.
    Row {
        name: "ahead: TRUNC",
        holds: |f| !f.forced && f.last > f.end && !f.at_epoch_start() && f.common.is_some(),
        plan: |f| SyncPlan::Trunc { to: f.end },
    },
    // It calls a state its own that this leader has no name for; Apache sends a snapshot too.
    Row {
        name: "ahead at the start of an epoch: SNAP",
        holds: |f| !f.forced && f.last > f.end && f.at_epoch_start() && f.common.is_some(),
        plan: |_| SyncPlan::Snapshot,
    },
    Row {
        name: "behind the log: SNAP",
        holds: |f| !f.forced && f.last != f.end && f.common.is_none(),
        plan: |_| SyncPlan::Snapshot,
    },
    Row {
        name: "too far behind: SNAP",
        holds: |f| !f.forced && f.last < f.end && f.common.is_some() && f.too_many,
        plan: |_| SyncPlan::Snapshot,
    },
    Row {
        name: "behind, last shared: DIFF",
        holds: |f| !f.forced && f.last < f.end && f.shares_last() && !f.too_many,
        plan: |f| SyncPlan::Diff { after: f.last },
    },
    Row {
        name: "behind, at the start of an epoch: DIFF",
        holds: |f| {
            !f.forced
                && f.last < f.end
                && f.common.is_some()
                && !f.shares_last()
                && f.at_epoch_start()
                && !f.too_many
        },
        plan: |f| SyncPlan::Diff { after: f.common() },
    },
    // A stray end within an epoch of which the leader has the beginning.
    Row {
        name: "stray end: TRUNC and DIFF",
        holds: |f| {
            !f.forced
                && f.last < f.end
                && f.common.is_some()
                && !f.shares_last()
                && !f.at_epoch_start()
                && f.common_in_epoch()
                && !f.too_many
        },
        plan: |f| SyncPlan::Trunc { to: f.common() },
    },
    // A stray epoch: Apache never lets a cut cross an epoch here.
    Row {
        name: "stray epoch: SNAP",
        holds: |f| {
            !f.forced
                && f.last < f.end
                && f.common.is_some()
                && !f.shares_last()
                && !f.at_epoch_start()
                && !f.common_in_epoch()
                && !f.too_many
        },
        plan: |_| SyncPlan::Snapshot,
    },
];

/// Decides.
pub fn sync_plan(inputs: &SyncInputs<'_>) -> SyncPlan {
    let facts = Facts::new(inputs);
    let row = ROWS.iter().find(|row| (row.holds)(&facts)).expect("every input meets a row");
    (row.plan)(&facts)
}

/// The name of the row that holds, for the log line.
pub fn sync_plan_name(inputs: &SyncInputs<'_>) -> &'static str {
    let facts = Facts::new(inputs);
    ROWS.iter().find(|row| (row.holds)(&facts)).expect("every input meets a row").name
}

#[cfg(test)]
mod tests {
    use super::*;
    use zkfast_wire::Epoch;

    fn z(epoch: i64, counter: u32) -> Zxid {
        Zxid::new(Epoch(epoch), counter)
    }

    fn inputs(history: &Tail, learner_last: Zxid) -> SyncInputs<'_> {
        SyncInputs {
            learner_last,
            history,
            end: history.appended(),
            force_snapshot: false,
            diff_records_max: 6,
            cheap_from: Zxid(i64::MAX),
        }
    }

    #[test]
    fn every_input_meets_exactly_one_row() {
        let histories = [
            Tail::recovered(Zxid::ZERO),
            Tail::recovered(z(3, 2)),
            Tail::recovered(z(3, 0)),
            Tail::with_records(z(2, 1), [z(2, 2), z(2, 3), z(4, 1), z(4, 2), z(4, 3), z(6, 1), z(6, 2)]),
            Tail::with_records(Zxid::ZERO, (1..=8).map(|n| z(1, n))),
        ];
        let zxids = || (0..8).flat_map(|epoch| (0..6).map(move |counter| z(epoch, counter)));
        let mut met = [false; ROWS.len()];
        for history in &histories {
            let ends = zxids().filter(|end| history.contains(*end));
            for (end, learner_last) in ends.flat_map(|end| zxids().map(move |last| (end, last))) {
                let never = Zxid(i64::MAX);
                let limits = [(0, never), (3, never), (0, z(4, 1)), (99, never)];
                let limits = limits.map(|limit| (false, limit)).into_iter().chain([(true, (99, never))]);
                for (force_snapshot, (diff_records_max, cheap_from)) in limits {
                    let inputs = SyncInputs {
                        learner_last,
                        history,
                        end,
                        force_snapshot,
                        diff_records_max,
                        cheap_from,
                    };
                    let facts = Facts::new(&inputs);
                    let rows: Vec<_> = (0..ROWS.len()).filter(|row| (ROWS[*row].holds)(&facts)).collect();
                    assert_eq!(rows.len(), 1, "{inputs:?} meets {rows:?}");
                    met[rows[0]] = true;
                    // Whatever is kept is common to both: a plan never leaves a stray transaction or a hole behind.
                    match sync_plan(&inputs) {
                        SyncPlan::Snapshot => {}
                        SyncPlan::Diff { after } => {
                            assert!(after == learner_last || learner_last.counter() == 0);
                            assert!(history.contains(after) && after <= end);
                        }
                        SyncPlan::Trunc { to } => {
                            assert!(to < learner_last && history.contains(to) && to <= end);
                        }
                    }
                }
            }
        }
        assert_eq!(met, [true; ROWS.len()], "a row that nothing meets");
    }

    #[test]
    fn rows_decide_as_apache_does() {
        let history = Tail::with_records(z(2, 1), [z(2, 2), z(2, 3), z(4, 1), z(4, 2), z(6, 1)]);
        let check = |last, expected| assert_eq!(sync_plan(&inputs(&history, last)), expected, "{last}");
        check(z(6, 1), SyncPlan::Diff { after: z(6, 1) });
        check(z(6, 2), SyncPlan::Trunc { to: z(6, 1) });
        check(z(7, 3), SyncPlan::Trunc { to: z(6, 1) });
        check(z(7, 0), SyncPlan::Snapshot);
        check(z(2, 3), SyncPlan::Diff { after: z(2, 3) });
        check(z(2, 4), SyncPlan::Trunc { to: z(2, 3) });
        check(z(3, 1), SyncPlan::Snapshot);
        check(z(4, 0), SyncPlan::Diff { after: z(2, 3) });
        check(z(1, 9), SyncPlan::Snapshot);
    }

    /// Danger: a learner that missed much is sent a log that is larger than the image, or an image for one record (Q49,
    /// Q51).
    #[test]
    fn many_missing_records_are_sent_only_where_they_are_cheaper() {
        let history = Tail::with_records(z(2, 0), (1..=9).map(|n| z(2, n)));
        let check = |last, cheap_from, expected| {
            let inputs = SyncInputs { diff_records_max: 3, cheap_from, ..inputs(&history, last) };
            assert_eq!(sync_plan(&inputs), expected, "{last}, cheap from {cheap_from}");
        };
        check(z(2, 6), z(2, 9), SyncPlan::Diff { after: z(2, 6) });
        check(z(2, 5), z(2, 9), SyncPlan::Snapshot);
        check(z(2, 5), z(2, 5), SyncPlan::Diff { after: z(2, 5) });
        check(z(2, 4), z(2, 5), SyncPlan::Snapshot);
    }

    /// Danger (ZOOKEEPER-1154): a leader with a lower zxid sends DIFF to a learner with a transaction that was never
    /// committed. An established leader sends its committed end, not the end of its log.
    #[test]
    fn what_is_not_committed_is_cut_and_comes_again() {
        let history = Tail::with_records(z(2, 1), [z(2, 2), z(2, 3)]);
        let inputs = SyncInputs { end: z(2, 2), ..inputs(&history, z(2, 3)) };
        assert_eq!(sync_plan(&inputs), SyncPlan::Trunc { to: z(2, 2) });
    }
}
