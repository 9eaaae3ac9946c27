//! What a member of an ensemble is, whatever its role: its settings, its history, its promises, its vote.

#[cfg(feature = "mutations")]
use crate::mutation::Mutation;
use crate::{
    config::{Config, Recovered},
    deadlines::Deadlines,
    effect::{Effect, EpochFile, Trouble},
    election::{Ground, Pauses, Vote},
    quorum::{Quorum, QuorumError},
    tail::Tail,
};
use bytes::Bytes;
use std::collections::BTreeSet;
use zkfast_wire::{Epoch, Notification, ServerId, Zxid, vote::ServerState};

/// The result of an act of a role: an error ends the role.
pub(crate) type Outcome = Result<(), Trouble>;

/// Between the beginnings of two roles in which nobody was served: from the second on this long, then twice as long each
/// time, up to the most.
const ROLE_PAUSE_MS_MIN: u64 = 40;
const ROLE_PAUSE_MS_MAX: u64 = 1000;

/// How long a server keeps out of elections after it has given its leadership up: several times what one takes.
const SILENCE_MS: u64 = 2000;

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) config: Config,
    pub(crate) quorum: Quorum,
    pub(crate) deadlines: Deadlines,
    /// This server's place among the voters; `None` observes.
    pub(crate) place: Option<usize>,
    pub(crate) tail: Tail,
    /// As handed to the disk; nothing is said to anybody before the disk has it.
    pub(crate) accepted_epoch: Epoch,
    /// As handed to the disk.
    pub(crate) current_epoch: Epoch,
    /// The last transaction known to be committed; 0 after a restart.
    pub(crate) committed: Zxid,
    /// The last transaction that the driver was told to apply.
    pub(crate) replayed: Zxid,
    /// What was to be cut off lies in a snapshot alone: only an image of the leader's helps.
    pub(crate) needs_snapshot: bool,
    /// Records above this one are cheaper to send than an image is.
    pub(crate) cheap_from: Zxid,
    /// The epoch whose end clients wait over, if they do.
    pub(crate) suspended_in: Option<Epoch>,
    /// Whom this server follows, or is, when it is not looking.
    pub(crate) vote: Vote,
    /// The election round of that vote (logical clock).
    pub(crate) election_epoch: i64,
    /// Peers with a live election link.
    pub(crate) peers_up: BTreeSet<ServerId>,
    /// Roles taken since clients were served last, and when the last of them began.
    fruitless: (u32, u64),
    /// The disk was empty at the start, nobody vouches for that, and no leader has given this server a history since.
    pub(crate) is_blank: bool,
    /// Until then it keeps out of elections.
    silent_until_ms: u64,
    config_text: Bytes,
}

impl Member {
    pub(crate) fn new(config: Config, recovered: Recovered) -> Result<Self, QuorumError> {
        let quorum = Quorum::new(&config.ensemble)?;
        let (accepted_epoch, current_epoch) = recovered.epochs();
        let replayed = recovered.tail.appended();
        let is_blank = !config.votes_empty && replayed == Zxid::ZERO;
        Ok(Self {
            is_blank,
            place: quorum.place(config.server),
            quorum,
            deadlines: Deadlines::new(&config),
            config_text: config.ensemble.to_string().into(),
            config,
            tail: recovered.tail,
            accepted_epoch,
            current_epoch,
            committed: Zxid::ZERO,
            replayed,
            needs_snapshot: false,
            cheap_from: Zxid(i64::MAX),
            suspended_in: None,
            vote: Vote::NONE,
            election_epoch: 0,
            peers_up: BTreeSet::new(),
            fruitless: (0, 0),
            silent_until_ms: 0,
        })
    }

    /// A role begins.
    pub(crate) const fn begin_role(&mut self, now_ms: u64) {
        self.fruitless = (self.fruitless.0.saturating_add(1), now_ms);
    }

    /// The role that ends served clients.
    pub(crate) const fn was_fruitful(&mut self) {
        self.fruitless.0 = 0;
    }

    /// The leadership was given up for the good of the others: they have a moment to elect among themselves, or this server,
    /// whose history is the longest, would be elected again.
    pub(crate) const fn keep_silent(&mut self, now_ms: u64) {
        self.silent_until_ms = now_ms + SILENCE_MS;
    }

    /// When the next role may begin.
    ///
    /// A learner that refuses its leader finds the same one again at once, for the others name it as soon as they are
    /// asked: without a pause that is thousands of elections and dials a second on both sides. (Apache's observers
    /// wait 200 ms before each search.) The first new attempt is free: a leader that has just died is replaced by one.
    pub(crate) fn pauses(&self) -> Pauses {
        let hold_until_ms = match self.fruitless {
            (0 | 1, _) => 0,
            (count, began_ms) => began_ms + (ROLE_PAUSE_MS_MIN << (count - 2).min(16)).min(ROLE_PAUSE_MS_MAX),
        };
        Pauses { hold_until_ms, silent_until_ms: self.silent_until_ms }
    }

    pub(crate) fn ground(&self) -> Ground<'_> {
        Ground {
            config: &self.config,
            quorum: &self.quorum,
            config_text: &self.config_text,
            peers_up: &self.peers_up,
        }
    }

    pub(crate) const fn config_text(&self) -> &Bytes {
        &self.config_text
    }

    /// The vote that this server stands for itself.
    pub(crate) fn own_vote(&self) -> Vote {
        if self.place.is_none() {
            return Vote::NONE;
        }
        let zxid = if self.is_blank { Zxid(-1) } else { self.tail.appended() };
        let mut own = Vote { leader: self.config.server, zxid, peer_epoch: self.current_epoch };
        #[cfg(feature = "mutations")]
        {
            if self.mutated(Mutation::EpochNotCompared) {
                own.peer_epoch = Epoch(0);
            }
            if self.mutated(Mutation::ZxidNotCompared) {
                own.zxid = Zxid::ZERO;
            }
        }
        own.peer_epoch = own.peer_epoch.max(Epoch(0));
        own
    }

    /// What this server tells of its vote while it is not looking (Q25).
    pub(crate) fn settled_notification(&self, state: ServerState) -> Notification {
        Notification {
            state,
            leader: self.vote.leader,
            zxid: self.vote.zxid,
            election_epoch: self.election_epoch,
            peer_epoch: self.vote.peer_epoch,
            version: Notification::VERSION,
            config: Some(self.config_text.clone()),
        }
    }

    pub(crate) fn save_accepted(&mut self, epoch: Epoch, effects: &mut Vec<Effect>) {
        assert!(epoch >= self.accepted_epoch, "a promise is never taken back");
        self.accepted_epoch = epoch;
        effects.push(Effect::SaveEpoch { file: EpochFile::Accepted, epoch });
    }

    pub(crate) fn save_current(&mut self, epoch: Epoch, effects: &mut Vec<Effect>) {
        assert!(epoch >= self.current_epoch);
        assert!(epoch <= self.accepted_epoch, "a history is accepted before it is held (ZOOKEEPER-1653)");
        self.current_epoch = epoch;
        // It has the history of a leader now.
        self.is_blank = false;
        self.needs_snapshot = false;
        effects.push(Effect::SaveEpoch { file: EpochFile::Current, epoch });
    }

    pub(crate) fn append(&mut self, zxid: Zxid, record: Bytes, effects: &mut Vec<Effect>) {
        self.tail.append(zxid);
        effects.push(Effect::Append { zxid, record });
    }

    pub(crate) fn commit(&mut self, through: Zxid, effects: &mut Vec<Effect>) {
        assert!(through <= self.tail.appended(), "{through} committed, {} appended", self.tail.appended());
        assert!(through >= self.committed, "commits are in order");
        self.committed = through;
        self.replayed = self.replayed.max(through);
        effects.push(Effect::Commit { through });
    }

    pub(crate) fn replay(&mut self, through: Zxid, effects: &mut Vec<Effect>) {
        assert!(through <= self.tail.appended());
        if through > self.replayed {
            self.replayed = through;
            effects.push(Effect::Replay { through });
        }
    }

    /// The log was cut after `zxid`.
    ///
    /// An Apache leader plans with what it has applied, not with what it has committed, and may have a follower cut
    /// off a transaction whose COMMIT it sent a moment ago; it then sends both again. Our leaders never do, which the
    /// simulator checks.
    pub(crate) fn cut(&mut self, zxid: Zxid) {
        self.tail.truncate(zxid);
        self.replayed = self.replayed.min(zxid);
        self.committed = self.committed.min(zxid);
    }

    /// A snapshot took the place of the history.
    pub(crate) fn install(&mut self, zxid: Zxid) {
        self.tail.replace(zxid);
        self.needs_snapshot = false;
        self.replayed = zxid;
        self.committed = self.committed.min(zxid);
    }

    /// Whether the test wants this precaution left out.
    #[cfg(feature = "mutations")]
    pub(crate) fn mutated(&self, mutation: Mutation) -> bool {
        self.config.mutation == Some(mutation)
    }

    pub(crate) fn check(&self) {
        self.tail.check();
        assert!(self.current_epoch <= self.accepted_epoch);
        assert!(self.committed <= self.tail.appended());
        assert!(self.replayed <= self.tail.appended());
    }
}
