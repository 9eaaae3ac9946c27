//! Following and observing (Q46, Q50, Q53-Q56; ZooKeeper's `Learner`, `Follower`, `Observer`): dial, promise, catch
//! up, then log what is proposed and apply what is committed.

#[cfg(feature = "mutations")]
use crate::mutation::Mutation;
use crate::{
    catch_up::{CatchUp, take_in},
    deadlines::overdue,
    effect::{Effect, EpochFile, Service, Trouble},
    event::LinkId,
    member::{Member, Outcome},
    precautions::cuts_below_snapshot,
};
use zkfast_wire::{
    Epoch, Packet, ServerId, SessionId, Zxid,
    quorum::{ForwardedRequest, LearnerInfo, PROTOCOL_VERSION},
};

/// Where the conversation with the leader stands.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// No link yet. `retry_at_ms` is set while the next dial waits.
    Dialling { tries: u32, retry_at_ms: Option<u64> },
    /// FOLLOWERINFO or OBSERVERINFO was sent.
    AwaitLeaderInfo,
    /// acceptedEpoch is on its way to the disk; `counts` unless this epoch was accepted before (Q44).
    SavingAccepted { counts: bool },
    /// ACKEPOCH was sent.
    AwaitPlan,
    /// The log is being cut. The driver reads nothing from the link meanwhile.
    Truncating { zxid: Zxid },
    /// The image is being read and stored.
    Installing { zxid: Zxid },
    /// History comes.
    CatchingUp(CatchUp),
    /// NEWLEADER came; everything through `through` must be durable.
    Flushing { catch_up: CatchUp, through: Zxid },
    /// currentEpoch is on its way to the disk.
    SavingCurrent(CatchUp),
    /// NEWLEADER was acknowledged.
    AwaitUpToDate(CatchUp),
    /// Serving. Proposals through `acked` were acknowledged or need not be.
    Active { acked: Zxid },
}

#[derive(Debug)]
pub(crate) struct Learner {
    leader: ServerId,
    link: Option<LinkId>,
    stage: Stage,
    /// The leader's epoch, once it said so.
    epoch: Epoch,
    started_ms: u64,
    heard_ms: u64,
}

impl Learner {
    pub(crate) fn start(leader: ServerId, now_ms: u64, effects: &mut Vec<Effect>) -> Self {
        effects.push(Effect::Dial { leader });
        Self {
            leader,
            link: None,
            stage: Stage::Dialling { tries: 1, retry_at_ms: None },
            epoch: Epoch(0),
            started_ms: now_ms,
            heard_ms: now_ms,
        }
    }

    pub(crate) const fn leader(&self) -> ServerId {
        self.leader
    }

    pub(crate) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) const fn is_active(&self) -> bool {
        matches!(self.stage, Stage::Active { .. })
    }

    pub(crate) const fn link(&self) -> Option<LinkId> {
        self.link
    }

    // Connecting

    pub(crate) fn up(
        &mut self,
        member: &Member,
        link: LinkId,
        dialled: Option<ServerId>,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let expected = dialled == Some(self.leader) && matches!(self.stage, Stage::Dialling { .. });
        if !expected {
            effects.push(Effect::Close { link, because: Trouble::NotLeading });
            return;
        }
        self.link = Some(link);
        self.heard_ms = now_ms;
        self.stage = Stage::AwaitLeaderInfo;
        let packet = Packet::LearnerInfo(LearnerInfo {
            server: Some(member.config.server),
            protocol_version: PROTOCOL_VERSION,
            config_version: member.config.ensemble.version,
            observer: member.place.is_none(),
            accepted_epoch: member.accepted_epoch,
        });
        effects.push(Effect::Send { link, packet });
    }

    /// The leader may not know yet that it is one: try again for a while.
    pub(crate) fn unreachable(&mut self, member: &Member, leader: ServerId, now_ms: u64) -> Outcome {
        let Stage::Dialling { tries, retry_at_ms: None } = self.stage else { return Ok(()) };
        if leader != self.leader {
            return Ok(());
        }
        if tries >= member.config.dial_tries_max {
            return Err(Trouble::Unreachable);
        }
        self.stage = Stage::Dialling { tries, retry_at_ms: Some(now_ms + member.config.dial_retry_ms) };
        Ok(())
    }

    pub(crate) fn down(&mut self, member: &mut Member, link: LinkId, now_ms: u64) -> Outcome {
        if self.link != Some(link) {
            return Ok(());
        }
        self.link = None;
        if matches!(self.stage, Stage::AwaitLeaderInfo) {
            // Closed before a word: the server behind it does not lead, or does not know it yet.
            let tries = ((now_ms.saturating_sub(self.started_ms)) / member.config.dial_retry_ms.max(1)) + 1;
            self.stage = Stage::Dialling { tries: tries.min(u64::from(u32::MAX)) as u32, retry_at_ms: None };
            return self.unreachable(member, self.leader, now_ms);
        }
        if matches!(self.stage, Stage::AwaitPlan) {
            // A leader of the same current epoch refuses whoever claims to have more than it has. Such a one has all that
            // this server has: next time it hears what that is.
            member.needs_snapshot = false;
        }
        Err(Trouble::LinkDown)
    }

    // Packets

    pub(crate) fn packet(
        &mut self,
        member: &mut Member,
        link: LinkId,
        packet: Packet,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        if self.link != Some(link) {
            return Ok(());
        }
        self.heard_ms = now_ms;
        match &mut self.stage {
            Stage::AwaitLeaderInfo => match packet {
                Packet::LeaderInfo { epoch, .. } => self.leader_info(member, epoch, effects),
                _ => Err(Trouble::OutOfPhase),
            },
            Stage::AwaitPlan => self.plan(member, packet, effects),
            Stage::CatchingUp(catch_up) => match packet {
                Packet::NewLeader { epoch, config } if epoch == self.epoch => {
                    let catch_up = *catch_up;
                    if let Some(text) = config {
                        effects.push(Effect::ConfigSeen { text });
                    }
                    self.new_leader(member, catch_up, effects)
                }
                packet => Self::history(self.epoch, catch_up, member, packet, effects),
            },
            Stage::AwaitUpToDate(catch_up) => match packet {
                Packet::UpToDate => {
                    let catch_up = *catch_up;
                    self.up_to_date(member, catch_up, effects)
                }
                packet => Self::history(self.epoch, catch_up, member, packet, effects),
            },
            Stage::Flushing { catch_up, .. } | Stage::SavingCurrent(catch_up) => {
                Self::history(self.epoch, catch_up, member, packet, effects)
            }
            Stage::Active { .. } => self.live(member, packet, effects),
            Stage::Dialling { .. }
            | Stage::SavingAccepted { .. }
            | Stage::Truncating { .. }
            | Stage::Installing { .. } => Err(Trouble::OutOfPhase),
        }
    }

    /// `FollowerProcessLEADERINFO`. The promise is on disk before it is given.
    fn leader_info(&mut self, member: &mut Member, epoch: Epoch, effects: &mut Vec<Effect>) -> Outcome {
        if epoch >= Epoch::LAST {
            // A promise of this one could never be followed by another.
            return Err(Trouble::EpochsUsedUp);
        }
        if epoch < member.accepted_epoch {
            if member.place.is_some() || epoch < member.current_epoch {
                return Err(Trouble::OldEpoch);
            }
            // Nobody counts on an observer's promise (deviation: Apache's stays outside until an epoch overtakes it). The
            // leader of the epoch that it accepted may have come to nothing, and this one reigns for years.
            self.epoch = epoch;
            self.accepted_saved(member, false, effects);
            return Ok(());
        }
        self.epoch = epoch;
        // Where it was accepted before it is stored again: the first attempt may still be on its way.
        let counts = epoch > member.accepted_epoch;
        self.stage = Stage::SavingAccepted { counts };
        #[cfg(feature = "mutations")]
        if member.mutated(Mutation::AcceptedEpochNotSaved) {
            member.accepted_epoch = epoch;
            self.accepted_saved(member, counts, effects);
            return Ok(());
        }
        member.save_accepted(epoch, effects);
        Ok(())
    }

    fn accepted_saved(&mut self, member: &Member, counts: bool, effects: &mut Vec<Effect>) {
        self.stage = Stage::AwaitPlan;
        let last = match (member.needs_snapshot, counts) {
            // It has nothing, which says little of its promise. With records alone its disk would hold a log without the
            // snapshot that vouches for its beginning.
            _ if member.is_blank => Zxid(-1),
            (false, _) => member.tail.appended(),
            // Who asks for an image overstates its history, so that its promise counts: whoever leads in spite of that has
            // all of it that counts. A state "at the start of an epoch" is cut by nobody, and a leader that does not serve
            // yet answers it with an image. (Without its promise two of three might never come to a quorum.) One that
            // serves may think that there is nothing to send: then it is asked again, for everything.
            (true, true) => Zxid::new(self.epoch, 0),
            (true, false) => Zxid(-1),
        };
        let current_epoch = counts.then_some(member.current_epoch);
        self.send(Packet::AckEpoch { last, current_epoch }, effects);
    }

    /// `FollowerProcessSyncMessage`.
    fn plan(&mut self, member: &mut Member, packet: Packet, effects: &mut Vec<Effect>) -> Outcome {
        match packet {
            // Not an image after all: next time it says that it has nothing.
            Packet::Diff { .. } if member.needs_snapshot || member.is_blank => {
                return Err(Trouble::CutBelowSnapshot);
            }
            Packet::Diff { .. } => self.stage = Stage::CatchingUp(CatchUp::from(member.tail.appended())),
            // An image of a leader whose reign came to nothing holds what another leader lacks (ZOOKEEPER-1549).
            Packet::Trunc { zxid } if zxid < member.tail.floor() && !cuts_below_snapshot(member) => {
                member.needs_snapshot = true;
                return Err(Trouble::CutBelowSnapshot);
            }
            Packet::Trunc { zxid } => {
                if !member.tail.contains(zxid) {
                    // To cut there would leave out what lies between (ZOOKEEPER-1154, 1156).
                    return Err(Trouble::CutOutsideHistory);
                }
                self.stage = Stage::Truncating { zxid };
                #[cfg(feature = "mutations")]
                if member.mutated(Mutation::TruncSkipped) {
                    self.stage = Stage::CatchingUp(CatchUp::from(zxid));
                    return Ok(());
                }
                effects.push(Effect::Truncate { zxid });
            }
            // No history of this epoch's leader ends in a later one.
            Packet::Snap { zxid } if zxid.epoch() > self.epoch => return Err(Trouble::OutOfPhase),
            Packet::Snap { zxid } => {
                self.stage = Stage::Installing { zxid };
                effects.push(Effect::Install { link: self.expect_link(), zxid });
            }
            _ => return Err(Trouble::OutOfPhase),
        }
        Ok(())
    }

    pub(crate) fn truncated(&mut self, member: &mut Member, done: Zxid, now_ms: u64) {
        if let Stage::Truncating { zxid } = self.stage
            && zxid == done
        {
            self.heard_ms = now_ms;
            member.cut(zxid);
            self.stage = Stage::CatchingUp(CatchUp::from(zxid));
        }
    }

    pub(crate) fn installed(&mut self, member: &mut Member, done: Zxid, now_ms: u64) {
        if let Stage::Installing { zxid } = self.stage
            && zxid == done
        {
            self.heard_ms = now_ms;
            member.install(zxid);
            self.stage = Stage::CatchingUp(CatchUp::from(zxid));
        }
    }

    fn history(
        epoch: Epoch,
        catch_up: &mut CatchUp,
        member: &mut Member,
        packet: Packet,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        match packet {
            Packet::Proposal { zxid, .. }
            | Packet::Inform { zxid, .. }
            | Packet::InformAndActivate { zxid, .. }
                if zxid.epoch() > epoch =>
            {
                Err(Trouble::OutOfPhase)
            }
            // What observers are told is committed needs no quorum: a voter must not hear it.
            Packet::Inform { .. } | Packet::InformAndActivate { .. } if member.place.is_some() => {
                Err(Trouble::OutOfPhase)
            }
            Packet::Proposal { zxid, record } => catch_up.proposal(member, zxid, record, effects),
            Packet::Commit { zxid } | Packet::CommitAndActivate { zxid, .. } => {
                catch_up.commit(member, zxid, effects)
            }
            Packet::Inform { zxid, record } | Packet::InformAndActivate { zxid, record, .. } => {
                catch_up.inform(member, zxid, record, effects)
            }
            // An Apache leader pings from NEWLEADER on; its own learners do not answer before UPTODATE.
            Packet::Ping { .. } => Ok(()),
            _ => Err(Trouble::OutOfPhase),
        }
    }

    /// `FollowerProcessNEWLEADER`: see `catch_up.rs` for the order.
    fn new_leader(&mut self, member: &mut Member, catch_up: CatchUp, effects: &mut Vec<Effect>) -> Outcome {
        let through = member.tail.appended();
        self.stage = Stage::Flushing { catch_up, through };
        #[cfg(feature = "mutations")]
        {
            if member.mutated(Mutation::NewLeaderAckBeforeFlush) {
                self.stage = Stage::SavingCurrent(catch_up);
                member.save_current(self.epoch, effects);
            } else if member.mutated(Mutation::EpochBeforeHistory) {
                member.save_current(self.epoch, effects);
            }
        }
        self.durable(member, effects);
        Ok(())
    }

    // The disk

    pub(crate) fn durable(&mut self, member: &mut Member, effects: &mut Vec<Effect>) {
        let durable = member.tail.durable();
        match &mut self.stage {
            Stage::Flushing { catch_up, through } if durable >= *through => {
                let catch_up = *catch_up;
                self.stage = Stage::SavingCurrent(catch_up);
                #[cfg(feature = "mutations")]
                if member.mutated(Mutation::CurrentEpochNotSaved) {
                    self.current_saved(catch_up, effects);
                    return;
                }
                member.save_current(self.epoch, effects);
            }
            Stage::Active { .. } => self.acknowledge(member, durable, effects),
            _ => {}
        }
    }

    pub(crate) fn epoch_saved(
        &mut self,
        member: &Member,
        file: EpochFile,
        epoch: Epoch,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        if epoch != self.epoch {
            return;
        }
        match (self.stage, file) {
            (Stage::SavingAccepted { counts }, EpochFile::Accepted) => {
                self.heard_ms = now_ms;
                self.accepted_saved(member, counts, effects);
            }
            (Stage::SavingCurrent(catch_up), EpochFile::Current) => {
                self.heard_ms = now_ms;
                self.current_saved(catch_up, effects);
            }
            _ => {}
        }
    }

    fn current_saved(&mut self, catch_up: CatchUp, effects: &mut Vec<Effect>) {
        self.stage = Stage::AwaitUpToDate(catch_up);
        self.send(Packet::Ack { zxid: Zxid::new(self.epoch, 0) }, effects);
    }

    /// `FollowerProcessUPTODATE`: the history is committed; serve; then acknowledge what was proposed meanwhile.
    fn up_to_date(&mut self, member: &mut Member, catch_up: CatchUp, effects: &mut Vec<Effect>) -> Outcome {
        let committed = catch_up.committed();
        let outstanding = member.tail.after(committed);
        if committed < member.committed || outstanding.is_some_and(|first| first.epoch() != self.epoch) {
            // History that was not called committed is none.
            return Err(Trouble::Gap);
        }
        self.send(Packet::Ack { zxid: Zxid::new(self.epoch, 0) }, effects);
        member.commit(committed, effects);
        // Who asks from now on hears of this reign, not of the last one (ZOOKEEPER-1732).
        member.vote.peer_epoch = self.epoch;
        let service = if member.place.is_some() { Service::Following } else { Service::Observing };
        // The link broke and the epoch goes on: its leader may have ordered, or may yet order, what it was asked over the
        // old link, so nothing of it may be asked again.
        if member.suspended_in.take() == Some(self.epoch) {
            effects.push(Effect::StopServing);
        }
        effects.push(Effect::Serve { service, epoch: self.epoch });
        self.stage = Stage::Active { acked: committed };
        self.acknowledge(member, member.tail.durable(), effects);
        Ok(())
    }

    /// Acknowledges each proposal that became durable. What the leader called committed needs none.
    fn acknowledge(&mut self, member: &Member, durable: Zxid, effects: &mut Vec<Effect>) {
        let link = self.link;
        let Stage::Active { acked } = &mut self.stage else { return };
        if member.place.is_none() || durable <= *acked {
            return;
        }
        let link = link.expect("every stage after Dialling has a link");
        // What was purged from the log meanwhile is committed, without this disk.
        while let Some(run) = member.tail.stretch(*acked, durable) {
            assert!(run.first.epoch() == self.epoch && run.last.epoch() == self.epoch, "{run:?}");
            assert!(run.last <= member.tail.durable() || member_acks_early(member));
            *acked = run.last;
            effects.push(Effect::SendAcks { link, first: run.first, last: run.last });
        }
        *acked = durable;
    }

    // Broadcast

    fn live(&mut self, member: &mut Member, packet: Packet, effects: &mut Vec<Effect>) -> Outcome {
        let observer = member.place.is_none();
        match packet {
            Packet::Proposal { zxid, .. }
            | Packet::Inform { zxid, .. }
            | Packet::InformAndActivate { zxid, .. }
                if zxid.epoch() != self.epoch =>
            {
                Err(Trouble::OutOfPhase)
            }
            Packet::Proposal { zxid, record } if !observer => {
                take_in(member, zxid, record, effects)?;
                #[cfg(feature = "mutations")]
                if member.mutated(Mutation::AckBeforeFlush) {
                    self.acknowledge(member, zxid, effects);
                }
                Ok(())
            }
            Packet::Commit { zxid } | Packet::CommitAndActivate { zxid, .. } if !observer => {
                self.commit(member, zxid, effects)
            }
            Packet::Inform { zxid, record } | Packet::InformAndActivate { zxid, record, .. } if observer => {
                if zxid > member.tail.appended() {
                    take_in(member, zxid, record, effects)?;
                }
                self.commit(member, zxid, effects)
            }
            // An Apache leader sends observers none; older ones may.
            Packet::Proposal { .. } | Packet::Commit { .. } | Packet::CommitAndActivate { .. } => Ok(()),
            Packet::Ping { zxid, .. } => {
                effects.push(Effect::AnswerPing { link: self.expect_link(), zxid });
                Ok(())
            }
            Packet::Sync => {
                effects.push(Effect::SyncDone);
                Ok(())
            }
            Packet::RevalidateAnswer { session, valid } => {
                effects.push(Effect::Revalidated { session, valid });
                Ok(())
            }
            _ => Err(Trouble::OutOfPhase),
        }
    }

    /// `FollowerProcessCOMMIT`: the head of what is pending, and nothing else (Q33).
    fn commit(&self, member: &mut Member, zxid: Zxid, effects: &mut Vec<Effect>) -> Outcome {
        if member.tail.after(member.committed) != Some(zxid) {
            return Err(Trouble::Gap);
        }
        #[cfg(feature = "mutations")]
        if member.mutated(Mutation::CommitBeyondLeader) {
            member.commit(member.tail.appended(), effects);
            member.committed = zxid;
            return Ok(());
        }
        member.commit(zxid, effects);
        Ok(())
    }

    // Clients

    /// A request whose server is not following any more has no one to go to: its clients were told.
    pub(crate) fn forward(&self, request: Box<ForwardedRequest>, effects: &mut Vec<Effect>) {
        if self.is_active() {
            self.send(Packet::Request(request), effects);
        }
    }

    pub(crate) fn revalidate(&self, session: SessionId, timeout_ms: i32, effects: &mut Vec<Effect>) {
        if self.is_active() {
            self.send(Packet::RevalidateAsk { session, timeout_ms }, effects);
        }
    }

    // Time

    pub(crate) fn tick(&mut self, member: &Member, now_ms: u64, effects: &mut Vec<Effect>) -> Outcome {
        if let Stage::Dialling { tries, retry_at_ms: Some(retry_at_ms) } = self.stage
            && now_ms >= retry_at_ms
        {
            self.stage = Stage::Dialling { tries: tries + 1, retry_at_ms: None };
            effects.push(Effect::Dial { leader: self.leader });
        }
        let (since_ms, limit_ms) = match self.stage {
            Stage::Dialling { .. } => (self.started_ms, member.deadlines.connect),
            // The own disk is slow, or the image long: the socket tells whether it still moves.
            Stage::Truncating { .. } | Stage::Installing { .. } | Stage::SavingAccepted { .. } => {
                return Ok(());
            }
            Stage::AwaitLeaderInfo
            | Stage::AwaitPlan
            | Stage::CatchingUp(_)
            | Stage::Flushing { .. }
            | Stage::SavingCurrent(_)
            | Stage::AwaitUpToDate(_) => (self.heard_ms, member.deadlines.init),
            Stage::Active { .. } => (self.heard_ms, member.deadlines.sync),
        };
        if overdue(now_ms, since_ms, limit_ms) { Err(Trouble::Silent) } else { Ok(()) }
    }

    fn send(&self, packet: Packet, effects: &mut Vec<Effect>) {
        effects.push(Effect::Send { link: self.expect_link(), packet });
    }

    fn expect_link(&self) -> LinkId {
        self.link.expect("every stage after Dialling has a link")
    }

    pub(crate) fn check(&self, member: &Member) {
        if let Stage::Active { acked } = self.stage {
            let safe = acked <= member.tail.durable().max(member.committed);
            assert!(
                safe || member_acks_early(member),
                "acknowledged {acked}, durable {}",
                member.tail.durable()
            );
            assert!(member.current_epoch == self.epoch || member_acks_early(member));
        }
        assert!(self.link.is_some() || matches!(self.stage, Stage::Dialling { .. }));
    }
}

#[cfg(feature = "mutations")]
fn member_acks_early(member: &Member) -> bool {
    member.config.mutation.is_some()
}

#[cfg(not(feature = "mutations"))]
const fn member_acks_early(_: &Member) -> bool {
    false
}
