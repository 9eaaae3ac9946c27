//! The leader's precautions that a test can leave out. Without the feature `mutations` each is what its name says, and
//! costs nothing.

#[cfg(feature = "mutations")]
use crate::mutation::Mutation;
use crate::{
    discovery::StateSummary,
    member::Member,
    sync_plan::{SyncInputs, SyncPlan},
    tally::Tally,
};
use zkfast_wire::{Epoch, Zxid};

/// Whether a follower's history is ahead of the leader's (`StateSummary.isMoreRecentThan`).
pub(crate) fn ahead(member: &Member, follower: StateSummary) -> bool {
    #[allow(unused_mut, reason = "changed by mutations alone")]
    let (mut own, mut follower) =
        (StateSummary { current_epoch: member.current_epoch, last: member.tail.appended() }, follower);
    #[cfg(feature = "mutations")]
    {
        if member.mutated(Mutation::EpochNotCompared) {
            (own.current_epoch, follower.current_epoch) = (Epoch(0), Epoch(0));
        }
        if member.mutated(Mutation::ZxidNotCompared) {
            (own.last, follower.last) = (Zxid(0), Zxid(0));
        }
    }
    follower > own
}

#[cfg(feature = "mutations")]
mod left_out {
    use super::*;

    pub(crate) fn is_mutated(member: &Member) -> bool {
        member.config.mutation.is_some()
    }

    pub(crate) fn outlives(member: &Member) -> bool {
        member.mutated(Mutation::AcksOutliveLink)
    }

    pub(crate) fn counted(member: &Member, current_epoch: Option<Epoch>) -> Option<Epoch> {
        let again = member.mutated(Mutation::EpochAckedTwice).then_some(Epoch(0));
        current_epoch.or(again)
    }

    pub(crate) fn mutated_plan(member: &Member, inputs: &SyncInputs<'_>, plan: SyncPlan) -> SyncPlan {
        if member.mutated(Mutation::DiffOverStrayTail) {
            let common = inputs.history.at_or_below(inputs.learner_last.min(inputs.end));
            return common.map_or(plan, |after| SyncPlan::Diff { after });
        }
        if member.mutated(Mutation::CheapIsEnough) && inputs.learner_last >= inputs.cheap_from {
            return SyncPlan::Diff { after: inputs.learner_last };
        }
        plan
    }

    pub(crate) fn gap_after(member: &Member, sent: Zxid) -> Zxid {
        if member.mutated(Mutation::DiffWithGap) { member.tail.after(sent).unwrap_or(sent) } else { sent }
    }

    pub(crate) fn outstanding_end(member: &Member, committed: Zxid) -> Zxid {
        if member.mutated(Mutation::OutstandingForgotten) { committed } else { member.tail.appended() }
    }

    pub(crate) fn mutated_agreement(member: &Member, tally: &Tally, agreed: Option<Zxid>) -> Option<Zxid> {
        if member.mutated(Mutation::CommitWithoutQuorum) { tally.highest() } else { agreed }
    }

    pub(crate) fn serves_early(member: &Member) -> bool {
        member.mutated(Mutation::ServeBeforeQuorum)
    }

    pub(crate) fn never_steps_down(member: &Member) -> bool {
        member.mutated(Mutation::NeverStepsDown)
    }

    pub(crate) fn vouches_early(member: &Member) -> bool {
        member.mutated(Mutation::LeaderVouchesEarly)
    }

    pub(crate) fn shows_less(member: &Member) -> bool {
        member.mutated(Mutation::HistoryNotReplayed)
    }

    pub(crate) fn tells_uncommitted(member: &Member) -> bool {
        member.mutated(Mutation::SyncWithUncommitted)
    }

    pub(crate) fn answers_syncs_early(member: &Member) -> bool {
        member.mutated(Mutation::SyncAnsweredEarly)
    }

    pub(crate) fn cuts_below_snapshot(member: &Member) -> bool {
        member.mutated(Mutation::CutBelowSnapshot)
    }
}

#[cfg(not(feature = "mutations"))]
mod left_out {
    use super::*;

    pub(crate) const fn is_mutated(_: &Member) -> bool {
        false
    }

    pub(crate) const fn outlives(_: &Member) -> bool {
        false
    }

    pub(crate) const fn counted(_: &Member, current_epoch: Option<Epoch>) -> Option<Epoch> {
        current_epoch
    }

    pub(crate) const fn mutated_plan(_: &Member, _: &SyncInputs<'_>, plan: SyncPlan) -> SyncPlan {
        plan
    }

    pub(crate) const fn gap_after(_: &Member, sent: Zxid) -> Zxid {
        sent
    }

    pub(crate) const fn outstanding_end(member: &Member, _: Zxid) -> Zxid {
        member.tail.appended()
    }

    pub(crate) const fn mutated_agreement(_: &Member, _: &Tally, agreed: Option<Zxid>) -> Option<Zxid> {
        agreed
    }

    pub(crate) const fn serves_early(_: &Member) -> bool {
        false
    }

    pub(crate) const fn never_steps_down(_: &Member) -> bool {
        false
    }

    pub(crate) const fn vouches_early(_: &Member) -> bool {
        false
    }

    pub(crate) const fn shows_less(_: &Member) -> bool {
        false
    }

    pub(crate) const fn tells_uncommitted(_: &Member) -> bool {
        false
    }

    pub(crate) const fn answers_syncs_early(_: &Member) -> bool {
        false
    }

    pub(crate) const fn cuts_below_snapshot(_: &Member) -> bool {
        false
    }
}

pub(crate) use left_out::*;
