//! Who holds how much: the last acknowledged zxid of each voter, and from that the zxid that a quorum holds.
//!
//! An acknowledgement covers everything before it, because links are FIFO and logs are written in order. A voter's
//! entry lives exactly as long as its link:
//! 1. F logs 7 and acknowledges it; its link breaks before a quorum has 7.
//! 2. F comes back. 7 is not committed, so F is told to cut it off (`TRUNC`) and to log it anew.
//! 3. F loses power between the cut and the new flush: it does not hold 7 any more.
//! 4. Had the leader kept the acknowledgement of step 1, one more voter would commit 7 with F counted in.

use crate::quorum::{Quorum, Voters};
use zkfast_wire::Zxid;

/// The acknowledgements of the voters.
#[derive(Clone, Debug)]
pub struct Tally {
    acked: Vec<Option<Zxid>>,
}

impl Tally {
    /// Nobody holds anything.
    pub fn new(quorum: &Quorum) -> Self {
        Self { acked: vec![None; quorum.voters().len()] }
    }

    /// The voter at `place` holds everything through `zxid`. Never takes back.
    pub fn raise(&mut self, place: usize, zxid: Zxid) {
        let acked = &mut self.acked[place];
        *acked = (*acked).max(Some(zxid));
    }

    /// The voter's link is gone; what it said counts no more.
    pub fn forget(&mut self, place: usize) {
        self.acked[place] = None;
    }

    /// The voters that hold everything through `zxid`.
    pub fn holders(&self, zxid: Zxid) -> Voters {
        let mut holders = Voters::NONE;
        for (place, acked) in self.acked.iter().enumerate() {
            if acked.is_some_and(|acked| acked >= zxid) {
                holders = holders.with(place);
            }
        }
        holders
    }

    /// The last zxid that anybody holds: what a leader that does not count would commit.
    #[cfg(feature = "mutations")]
    pub(crate) fn highest(&self) -> Option<Zxid> {
        self.acked.iter().copied().max().flatten()
    }

    /// The last zxid that a deciding set of voters holds; `None` where there is no such set.
    pub fn agreed(&self, quorum: &Quorum) -> Option<Zxid> {
        // Only an acknowledged zxid can be the answer. With n voters this takes n * n compares, n being 3 to 9.
        let mut best = None;
        for candidate in self.acked.iter().flatten() {
            if Some(*candidate) > best && quorum.decides(self.holders(*candidate)) {
                best = Some(*candidate);
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zkfast_wire::Ensemble;

    fn quorum(voters: usize) -> Quorum {
        let text: String = (1..=voters).map(|id| format!("server.{id}=h:1:2\n")).collect();
        Quorum::new(&Ensemble::parse(&text).unwrap()).unwrap()
    }

    proptest! {
        /// Q6. The naive answer: sort, take the one that a majority reaches.
        #[test]
        fn agreed_is_what_a_majority_reaches(acks in prop::collection::vec(prop::option::of(0i64..6), 1..8)) {
            let quorum = quorum(acks.len());
            let mut tally = Tally::new(&quorum);
            for (place, ack) in acks.iter().enumerate() {
                if let Some(ack) = ack {
                    tally.raise(place, Zxid(*ack));
                }
            }
            let mut sorted = acks.clone();
            sorted.sort_unstable();
            let expected = sorted[(acks.len() - 1) / 2].map(Zxid);
            prop_assert_eq!(tally.agreed(&quorum), expected);
        }
    }

    /// Danger: an acknowledgement of a proposal that the voter has since cut off commits it.
    #[test]
    fn acknowledgements_die_with_their_link() {
        let quorum = quorum(5);
        let mut tally = Tally::new(&quorum);
        tally.raise(0, Zxid(7));
        tally.raise(1, Zxid(7));
        tally.forget(1);
        tally.raise(2, Zxid(7));
        assert_eq!(tally.agreed(&quorum), None);
        tally.raise(1, Zxid(7));
        assert_eq!(tally.agreed(&quorum), Some(Zxid(7)));
    }
}
