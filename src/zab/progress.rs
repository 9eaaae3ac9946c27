//! One learner, as its leader sees it: how far the conversation on its link has come.

use crate::{
    deadlines::{Deadlines, overdue},
    effect::Trouble,
};
use zkfast_wire::{ServerId, Zxid};

/// Where the conversation stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Nothing was said.
    Greeting,
    /// It introduced itself; the epoch is not decided.
    AwaitEpoch,
    /// LEADERINFO was sent.
    AwaitAckEpoch,
    /// It promised; a quorum has not.
    AwaitElection { last: Zxid },
    /// DIFF, TRUNC or SNAP was sent and history flows, through this zxid.
    Transferring { through: Zxid, by: Transfer },
    /// NEWLEADER was sent; live traffic follows. Everything through `committed` was sent as committed.
    AwaitAck { committed: Zxid },
    /// It holds the history; the reign is not established.
    Synced,
    /// UPTODATE was sent.
    Active,
}

/// What brings a learner up to date before live traffic goes to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transfer {
    /// Records of the log.
    History,
    /// The whole tree.
    Image,
}

/// A proposal whose acknowledgement is watched (`SyncLimitCheck`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Watched {
    zxid: Zxid,
    since_ms: u64,
}

/// A learner's link.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) stage: Stage,
    pub(crate) server: Option<ServerId>,
    /// Whether it said that it only observes.
    pub(crate) observer: bool,
    /// Its place among the voters; `None` for observers and for followers that are not in the configuration.
    pub(crate) place: Option<usize>,
    pub(crate) acked: Zxid,
    heard_ms: u64,
    watched: Option<Watched>,
}

impl Progress {
    pub(crate) const fn new(now_ms: u64) -> Self {
        Self {
            stage: Stage::Greeting,
            server: None,
            observer: false,
            place: None,
            acked: Zxid::ZERO,
            heard_ms: now_ms,
            watched: None,
        }
    }

    pub(crate) const fn heard(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
    }

    /// Whether live traffic goes to it.
    pub(crate) const fn is_live(&self) -> bool {
        matches!(self.stage, Stage::AwaitAck { .. } | Stage::Synced | Stage::Active)
    }

    /// Whether PROPOSAL and COMMIT go to it, not INFORM.
    pub(crate) const fn is_follower(&self) -> bool {
        !self.observer
    }

    pub(crate) fn proposed(&mut self, zxid: Zxid, now_ms: u64) {
        if self.stage == Stage::Active && self.watched.is_none() {
            self.watched = Some(Watched { zxid, since_ms: now_ms });
        }
    }

    /// The learner holds everything through `zxid`; `last` is the leader's last proposal.
    pub(crate) fn acknowledged(&mut self, zxid: Zxid, last: Zxid, now_ms: u64) {
        self.acked = self.acked.max(zxid);
        if self.watched.is_some_and(|watched| self.acked >= watched.zxid) {
            self.watched = (self.acked < last).then_some(Watched { zxid: last, since_ms: now_ms });
        }
    }

    /// Whether it was heard from within syncLimit. Apache counts a learner that catches up for initLimit longer; a
    /// leader that is cut off would then serve for that much longer too.
    pub(crate) const fn is_present(&self, now_ms: u64, deadlines: &Deadlines) -> bool {
        !overdue(now_ms, self.heard_ms, deadlines.sync)
    }

    /// What is overdue on this link (Q58).
    pub(crate) fn overdue(&self, now_ms: u64, deadlines: &Deadlines) -> Option<Trouble> {
        let silence_ms = match self.stage {
            // The socket tells whether the transfer still moves.
            Stage::Transferring { .. } => return None,
            Stage::Active => deadlines.sync,
            Stage::Greeting
            | Stage::AwaitEpoch
            | Stage::AwaitAckEpoch
            | Stage::AwaitElection { .. }
            | Stage::AwaitAck { .. }
            | Stage::Synced => deadlines.init,
        };
        if overdue(now_ms, self.heard_ms, silence_ms) {
            return Some(Trouble::Silent);
        }
        let lags = self.watched.is_some_and(|watched| overdue(now_ms, watched.since_ms, deadlines.sync));
        lags.then_some(Trouble::Lagging)
    }
}
