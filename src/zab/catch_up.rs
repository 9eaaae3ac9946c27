//! A learner between the leader's plan and UPTODATE: it takes in history and the first proposals (Q50, Q53, Q55).
//!
//! What must be durable when, and what happens otherwise:
//! 1. A leads with 1..9 committed by A and B; C, at 5, joins. A sends 6..9 and NEWLEADER.
//! 2. Suppose C acknowledges NEWLEADER with 6..9 still in memory (ZOOKEEPER-3023, 3911, 4646, 4785). A counts C.
//! 3. C loses power. So does B. C and B restart: both at 5 if B was synced the same way. 6..9 are lost.
//!
//! And if C stores currentEpoch first (ZOOKEEPER-4643), it comes back with an old history and a new epoch, wins the
//! election against B, which has 6..9 and the old epoch, and has B cut them off. Hence, in this order: history
//! durable, currentEpoch durable, ACK. No proposal is acknowledged before that (ZOOKEEPER-4685).
//!
//! Every proposal is logged as it comes, committed or not, and known to the tail, so a COMMIT right after NEWLEADER
//! finds it (ZOOKEEPER-4394) and nothing is left out of what this server may later hand on as leader (ZOOKEEPER-4925).

#[cfg(feature = "mutations")]
use crate::mutation::Mutation;
use crate::{
    effect::{Effect, Trouble},
    member::{Member, Outcome},
};
use bytes::Bytes;
use zkfast_wire::Zxid;

/// What has been taken in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CatchUp {
    /// Where the shared history ended when the taking in began: after TRUNC or SNAP, or as it was for DIFF.
    base: Zxid,
    /// The last transaction that the leader called committed.
    committed: Zxid,
}

impl CatchUp {
    pub(crate) const fn from(base: Zxid) -> Self {
        Self { base, committed: base }
    }

    /// Everything through this one is committed once the leader's reign stands.
    pub(crate) const fn committed(&self) -> Zxid {
        self.committed
    }

    /// `FollowerProcessPROPOSALInSync`. An Apache leader may repeat what a snapshot already shows.
    pub(crate) fn proposal(
        &self,
        member: &mut Member,
        zxid: Zxid,
        record: Bytes,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        if zxid <= self.base {
            return Ok(());
        }
        take_in(member, zxid, record, effects)
    }

    /// `FollowerProcessCOMMITInSync`. Applied at once, so that a long history need not be kept in memory; nobody is
    /// served before UPTODATE, and a cut takes it back.
    pub(crate) fn commit(&mut self, member: &mut Member, zxid: Zxid, effects: &mut Vec<Effect>) -> Outcome {
        if zxid <= self.base {
            return Ok(());
        }
        if member.tail.after(self.committed) != Some(zxid) {
            return Err(Trouble::Gap);
        }
        self.committed = zxid;
        member.replay(zxid, effects);
        Ok(())
    }

    /// INFORM between NEWLEADER and UPTODATE, on an observer.
    pub(crate) fn inform(
        &mut self,
        member: &mut Member,
        zxid: Zxid,
        record: Bytes,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        self.proposal(member, zxid, record, effects)?;
        self.commit(member, zxid, effects)
    }
}

/// Logs a proposal that must be above the last one. Where a leader of Apache's used up zxids without a proposal they are
/// not the next (row Q50); the driver tells. Who is sent something older closes the link.
pub(crate) fn take_in(member: &mut Member, zxid: Zxid, record: Bytes, effects: &mut Vec<Effect>) -> Outcome {
    if !member.tail.follows(zxid) {
        // Nothing can follow where a cut was left out; what is there already is then taken for the same.
        #[cfg(feature = "mutations")]
        if member.mutated(Mutation::TruncSkipped) && zxid <= member.tail.appended() {
            return Ok(());
        }
        return Err(Trouble::Gap);
    }
    member.append(zxid, record, effects);
    Ok(())
}
