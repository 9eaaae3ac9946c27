//! Discovery on the leader's side (Q47): a quorum tells which epochs it accepted, the leader proposes one above them
//! all, and a quorum promises to follow nobody older. After that promise no older leader can commit anything, and the
//! histories of a quorum are known not to be ahead of the leader's.

use crate::quorum::{Quorum, Voters};
use zkfast_wire::{Epoch, Zxid};

/// What is still to be found out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Discovery {
    /// Voters introduce themselves (CEPOCH in the paper, FOLLOWERINFO on the wire).
    Connecting { voters: Voters, highest: Epoch },
    /// acceptedEpoch is on its way to the leader's own disk.
    Saving { epoch: Epoch },
    /// The epoch is proposed (LEADERINFO); voters promise (ACKEPOCH).
    Proposed { epoch: Epoch, promised: Voters },
}

/// Currency of a history: the epoch it began in, then its length (`StateSummary`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct StateSummary {
    pub(crate) current_epoch: Epoch,
    pub(crate) last: Zxid,
}

impl Discovery {
    pub(crate) const fn new() -> Self {
        Self::Connecting { voters: Voters::NONE, highest: Epoch(0) }
    }

    /// A server introduced itself; `place` is `None` for an observer, whose epoch counts and whose vote does not.
    /// Returns the epoch to propose once a quorum with the leader in it has come.
    pub(crate) fn introduced(
        &mut self,
        place: Option<usize>,
        accepted: Epoch,
        leader_place: usize,
        quorum: &Quorum,
    ) -> Option<Epoch> {
        let Self::Connecting { voters, highest } = self else { return None };
        *highest = accepted.max(*highest);
        if let Some(place) = place {
            *voters = voters.with(place);
        }
        if !voters.has(leader_place) || !quorum.decides(*voters) {
            return None;
        }
        let epoch = Epoch(highest.0 + 1);
        *self = Self::Saving { epoch };
        Some(epoch)
    }

    /// The leader's own promise is on disk; it may be proposed to others, and counts. Returns whether it was waited
    /// for.
    pub(crate) fn saved(&mut self, saved: Epoch, leader_place: usize) -> bool {
        let Self::Saving { epoch } = *self else { return false };
        if epoch != saved {
            return false;
        }
        *self = Self::Proposed { epoch, promised: Voters::NONE.with(leader_place) };
        true
    }

    /// A voter promised. A promise outlives its link: the voter's disk holds it.
    pub(crate) fn promised(&mut self, place: usize) {
        if let Self::Proposed { promised, .. } = self {
            *promised = promised.with(place);
        }
    }

    /// Whether a quorum promised.
    pub(crate) fn complete(&self, quorum: &Quorum) -> bool {
        matches!(self, Self::Proposed { promised, .. } if quorum.decides(*promised))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zkfast_wire::Ensemble;

    fn quorum() -> Quorum {
        let text: String = (1..=5).map(|id| format!("server.{id}=h:1:2\n")).collect();
        Quorum::new(&Ensemble::parse(&text).unwrap()).unwrap()
    }

    /// Q47. Danger: two leaders in one epoch. The new one is above everything that a quorum accepted, and no voter
    /// promises it twice.
    #[test]
    fn the_epoch_is_above_all_that_a_quorum_accepted() {
        let quorum = quorum();
        let mut discovery = Discovery::new();
        assert_eq!(discovery.introduced(Some(4), Epoch(7), 0, &quorum), None);
        assert_eq!(discovery.introduced(None, Epoch(8), 0, &quorum), None);
        assert_eq!(discovery.introduced(Some(3), Epoch(2), 0, &quorum), None);
        assert_eq!(discovery.introduced(Some(2), Epoch(2), 0, &quorum), None, "without the leader itself");
        assert_eq!(discovery.introduced(Some(0), Epoch(3), 0, &quorum), Some(Epoch(9)));
        assert_eq!(discovery.introduced(Some(1), Epoch(30), 0, &quorum), None, "decided already");
        assert!(!discovery.saved(Epoch(8), 0));
        discovery.promised(3);
        assert!(discovery.saved(Epoch(9), 0), "its own disk first");
        discovery.promised(3);
        discovery.promised(3);
        assert!(!discovery.complete(&quorum));
        discovery.promised(4);
        assert!(discovery.complete(&quorum));
    }

    #[test]
    fn a_summary_compares_the_epoch_first() {
        let summary = |epoch, last| StateSummary { current_epoch: Epoch(epoch), last: Zxid(last) };
        assert!(summary(2, 1) > summary(1, 9) && summary(2, 2) > summary(2, 1));
    }
}
