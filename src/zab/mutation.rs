//! Deliberate faults, to prove that the simulator can see them. Compiled only with the feature `mutations`, which no
//! build of the server has; each removes one precaution that a worked failure in this crate explains.

/// One precaution that is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutation {
    /// A follower acknowledges a proposal when it is appended, not when it is durable.
    AckBeforeFlush,
    /// The leader counts itself when it appends, not when its disk has it.
    LeaderCountsItselfEarly,
    /// A learner stores currentEpoch and acknowledges NEWLEADER before the history is durable (ZOOKEEPER-3911, 4646).
    NewLeaderAckBeforeFlush,
    /// A learner stores currentEpoch before the history is durable (ZOOKEEPER-4643, 4785).
    EpochBeforeHistory,
    /// A learner acknowledges NEWLEADER without storing currentEpoch.
    CurrentEpochNotSaved,
    /// A learner answers LEADERINFO without storing acceptedEpoch.
    AcceptedEpochNotSaved,
    /// A learner that is told to cut its log keeps it (ZOOKEEPER-2845, 3701).
    TruncSkipped,
    /// The leader commits what one server less than a quorum holds.
    CommitWithoutQuorum,
    /// The first transaction of a DIFF is left out (ZOOKEEPER-4925).
    DiffWithGap,
    /// Elections and discovery compare zxids alone.
    EpochNotCompared,
    /// Elections and discovery compare epochs alone.
    ZxidNotCompared,
    /// The leader serves as soon as it is elected, before a quorum holds its history.
    ServeBeforeQuorum,
    /// Every server with a stray tail is sent DIFF (ZOOKEEPER-1154).
    DiffOverStrayTail,
    /// A follower that accepted this epoch before is counted again (two leaders share an epoch).
    EpochAckedTwice,
    /// Outstanding proposals are not sent to a learner that joins (ambiguity 1 of the specification).
    OutstandingForgotten,
    /// The leader keeps counting the acknowledgements of links that are gone, even of proposals since cut off.
    AcksOutliveLink,
    /// An isolated leader never steps down.
    NeverStepsDown,
    /// A follower commits whatever it appended as soon as anything is committed.
    CommitBeyondLeader,
    /// A leader stores currentEpoch, and counts itself, before its own log is durable (ZOOKEEPER-1319).
    LeaderVouchesEarly,
    /// A leader does not apply its own history before it shows it to others (ZOOKEEPER-1319, 3104).
    HistoryNotReplayed,
    /// The counter of an epoch runs into the next one (ZOOKEEPER-1277).
    RolloverForgotten,
    /// A leader calls its whole log committed to whoever joins its reign (ZOOKEEPER-1154).
    SyncWithUncommitted,
    /// A leader answers a sync at once, whatever it has proposed.
    SyncAnsweredEarly,
    /// A learner that is told to cut below its oldest snapshot does not ask for an image (ZOOKEEPER-1549).
    CutBelowSnapshot,
    /// The leader sends records because they are cheap, whether it has all of them or not.
    CheapIsEnough,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::AckBeforeFlush,
        Self::LeaderCountsItselfEarly,
        Self::NewLeaderAckBeforeFlush,
        Self::EpochBeforeHistory,
        Self::CurrentEpochNotSaved,
        Self::AcceptedEpochNotSaved,
        Self::TruncSkipped,
        Self::CommitWithoutQuorum,
        Self::DiffWithGap,
        Self::EpochNotCompared,
        Self::ZxidNotCompared,
        Self::ServeBeforeQuorum,
        Self::DiffOverStrayTail,
        Self::EpochAckedTwice,
        Self::OutstandingForgotten,
        Self::AcksOutliveLink,
        Self::NeverStepsDown,
        Self::CommitBeyondLeader,
        Self::LeaderVouchesEarly,
        Self::HistoryNotReplayed,
        Self::RolloverForgotten,
        Self::SyncWithUncommitted,
        Self::SyncAnsweredEarly,
        Self::CutBelowSnapshot,
        Self::CheapIsEnough,
    ];
}
