//! Leading: discovery, synchronisation, broadcast (Q47, Q49-Q52, Q56-Q59; ZooKeeper's `Leader`, `LearnerHandler`).
//!
//! Three things are counted, each by a quorum with this server in it: promises (ACKEPOCH), histories (ACK of
//! NEWLEADER), and then proposals (ACK). This server counts as any other voter does: when its own disk has it.

#[cfg(feature = "mutations")]
use crate::mutation::Mutation;
use crate::{
    deadlines::overdue,
    discovery::{Discovery, StateSummary},
    effect::{Effect, EpochFile, Service, Trouble},
    event::LinkId,
    member::{Member, Outcome},
    node::Learners,
    precautions::{
        ahead, answers_syncs_early, counted, gap_after, is_mutated, mutated_agreement, mutated_plan,
        never_steps_down, outlives, outstanding_end, serves_early, shows_less, tells_uncommitted,
        vouches_early,
    },
    progress::{Progress, Stage, Transfer},
    quorum::Voters,
    sync_plan::{SyncInputs, SyncPlan, sync_plan},
    tally::Tally,
};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use zkfast_wire::{
    Epoch, Packet, ServerId, Zxid,
    quorum::{LearnerInfo, PROTOCOL_VERSION},
};

/// A server that has accepted an epoch further beyond this one's is none of this ensemble: an election takes one.
const EPOCH_LEAP_MAX: i64 = 1 << 16;

/// Links that a leader holds at once: every voter twice over (one link dying, one coming) and hundreds of observers.
pub(crate) const LINKS_MAX: usize = 1024;

/// Syncs that wait for a commit at once. Each belongs to a request of a learner's client, whose number in flight the
/// edge bounds; beyond this the learner's link is closed.
const PENDING_SYNCS_MAX: usize = 65_536;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Discovery(Discovery),
    /// A quorum promised. The own history must be durable before currentEpoch vouches for it.
    Flushing,
    /// currentEpoch is on its way to the own disk.
    SavingCurrent,
    /// A quorum of histories is counted; this server's own is among them.
    Synchronising,
    /// The reign stands: writes are ordered.
    Established,
}

#[derive(Debug)]
pub(crate) struct Leading {
    phase: Phase,
    phase_since_ms: u64,
    /// The reign; 0 until discovery has found it.
    epoch: Epoch,
    own_place: usize,
    /// Voters whose last word was for another leader, and who did not come since.
    elsewhere: Voters,
    links: BTreeMap<LinkId, Progress>,
    tally: Tally,
    /// The syncs of learners, each with the proposal that it waits for.
    pending_syncs: VecDeque<(Zxid, LinkId)>,
    looked_ms: u64,
}

impl Leading {
    /// Starts to lead. `parked` came while this server was still looking.
    pub(crate) fn start(
        member: &mut Member,
        parked: Vec<(LinkId, Option<LearnerInfo>)>,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> (Self, Outcome) {
        let own_place = member.place.expect("only voters are elected");
        let mut leading = Self {
            phase: Phase::Discovery(Discovery::new()),
            phase_since_ms: now_ms,
            epoch: Epoch(0),
            own_place,
            elsewhere: Voters::NONE,
            links: BTreeMap::new(),
            tally: Tally::new(&member.quorum),
            pending_syncs: VecDeque::new(),
            looked_ms: now_ms,
        };
        let outcome = leading.introduced(member, Some(own_place), member.accepted_epoch, now_ms, effects);
        if outcome.is_err() {
            return (leading, outcome);
        }
        for (link, info) in parked {
            leading.up(link, now_ms, effects);
            if let Some(info) = info {
                let outcome = leading.packet(member, link, Packet::LearnerInfo(info), now_ms, effects);
                if outcome.is_err() {
                    return (leading, outcome);
                }
            }
        }
        (leading, Ok(()))
    }

    pub(crate) const fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Established)
    }

    /// The place of the next proposal: e:1 opens the reign. The last counter of an epoch is never used (S25,
    /// `Leader.propose`).
    pub(crate) fn next_zxid(&self, member: &Member) -> Option<Zxid> {
        if !self.is_established() {
            return None;
        }
        let last = member.tail.appended();
        let next = if last.epoch() == self.epoch {
            #[cfg(feature = "mutations")]
            if member.mutated(Mutation::RolloverForgotten) {
                return Some(Zxid(last.0 + 1));
            }
            last.next()?
        } else {
            Zxid::new(self.epoch, member.config.first_counter)
        };
        (next.counter() != u32::MAX).then_some(next)
    }

    pub(crate) fn synced_followers(&self) -> usize {
        self.links
            .values()
            .filter(|progress| progress.is_follower() && progress.stage == Stage::Active)
            .count()
    }

    pub(crate) fn learners(&self) -> Learners {
        let synced = || self.links.values().filter(|progress| progress.stage == Stage::Active);
        Learners {
            connected: self.links.len(),
            synced_non_voting_followers: synced()
                .filter(|progress| progress.is_follower() && progress.place.is_none())
                .count(),
            synced_observers: synced().filter(|progress| !progress.is_follower()).count(),
            pending_syncs: self.pending_syncs.len(),
        }
    }

    /// A voter says whom it means. Whether too few are left who may yet come to this leader, before any quorum has: then
    /// the others have elected somebody else meanwhile. It happens where this server's election ended early because
    /// somebody's link was not up yet, and the others heard of a better vote; to wait for them would take initLimit.
    pub(crate) fn is_outvoted(&mut self, member: &Member, from: ServerId, leader: ServerId) -> bool {
        let Some(place) = member.quorum.place(from) else { return false };
        if place == self.own_place {
            return false;
        }
        let is_elsewhere = leader != member.config.server;
        self.elsewhere =
            if is_elsewhere { self.elsewhere.with(place) } else { self.elsewhere.without(place) };
        let places = 0..member.quorum.voters().len();
        let left = places.filter(|place| !self.elsewhere.has(*place)).fold(Voters::NONE, Voters::with);
        matches!(self.phase, Phase::Discovery(_)) && !member.quorum.decides(left)
    }

    // Links

    pub(crate) fn up(&mut self, link: LinkId, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.links.len() >= LINKS_MAX {
            effects.push(Effect::Close { link, because: Trouble::TooMany });
            return;
        }
        self.links.insert(link, Progress::new(now_ms));
    }

    pub(crate) fn down(&mut self, link: LinkId, member: &Member) {
        self.forget(link, member);
    }

    fn close(&mut self, link: LinkId, because: Trouble, member: &Member, effects: &mut Vec<Effect>) {
        if self.forget(link, member) {
            effects.push(Effect::Close { link, because });
        }
    }

    /// Drops everything that rests on a link, its acknowledgements above all: see `tally.rs`.
    fn forget(&mut self, link: LinkId, member: &Member) -> bool {
        let Some(progress) = self.links.remove(&link) else { return false };
        if let Some(place) = progress.place
            && !outlives(member)
        {
            self.tally.forget(place);
        }
        self.pending_syncs.retain(|(_, waiting)| *waiting != link);
        true
    }

    pub(crate) fn close_all(&mut self, because: Trouble, effects: &mut Vec<Effect>) {
        for (link, _) in std::mem::take(&mut self.links) {
            effects.push(Effect::Close { link, because });
        }
    }

    pub(crate) fn packet(
        &mut self,
        member: &mut Member,
        link: LinkId,
        packet: Packet,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        let Some(progress) = self.links.get_mut(&link) else { return Ok(()) };
        progress.heard(now_ms);
        match (progress.stage, packet) {
            (Stage::Greeting, Packet::LearnerInfo(info)) => {
                return self.learner_info(member, link, info, now_ms, effects);
            }
            (Stage::AwaitAckEpoch, Packet::AckEpoch { last, current_epoch }) => {
                self.ack_epoch(member, link, last, current_epoch, now_ms, effects);
            }
            (Stage::AwaitAck { committed }, Packet::Ack { zxid }) if zxid == Zxid::new(self.epoch, 0) => {
                return self.new_leader_acked(member, link, committed, now_ms, effects);
            }
            // Apache's followers log what came before NEWLEADER in a thread of their own and acknowledge each record of
            // it, before or after NEWLEADER (ZOOKEEPER-4685). What earlier reigns left is counted with NEWLEADER alone;
            // a proposal of this reign may be acknowledged only this once, so it is kept until NEWLEADER is.
            (Stage::AwaitAck { .. } | Stage::Synced | Stage::Active, Packet::Ack { zxid })
                if zxid.epoch() < self.epoch => {}
            (Stage::AwaitAck { .. }, Packet::Ack { zxid })
                if zxid.epoch() == self.epoch && zxid <= member.tail.appended() =>
            {
                progress.acked = progress.acked.max(zxid);
            }
            // The learner's answer to UPTODATE says nothing new.
            (Stage::Active, Packet::Ack { zxid }) if zxid.counter() == 0 => {}
            (Stage::Active, Packet::Ack { zxid }) => return self.acked(member, link, zxid, now_ms, effects),
            (Stage::Active | Stage::Synced, Packet::Ping { touched, .. }) => {
                if let Some(data) = touched {
                    effects.push(Effect::Touched { link, data });
                }
            }
            (Stage::Active, Packet::Request(request)) => effects.push(Effect::Request { link, request }),
            (Stage::Active, Packet::RevalidateAsk { session, timeout_ms }) => {
                effects.push(Effect::RevalidateAsked { link, session, timeout_ms });
            }
            // Whatever else a learner says here, it is not where this server believes it to be.
            _ => self.close(link, Trouble::OutOfPhase, member, effects),
        }
        Ok(())
    }

    // Discovery

    /// `LeaderProcessFOLLOWERINFO`.
    fn learner_info(
        &mut self,
        member: &mut Member,
        link: LinkId,
        info: LearnerInfo,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        if info.config_version > member.config.ensemble.version {
            self.close(link, Trouble::ConfigAhead, member, effects);
            return Ok(());
        }
        if info.protocol_version < PROTOCOL_VERSION {
            // Servers older than 3.4 know no LEADERINFO; nothing that old is migrated from.
            self.close(link, Trouble::OutOfPhase, member, effects);
            return Ok(());
        }
        if info.server == Some(member.config.server) {
            // Two servers with one myid: the other would be counted as this one.
            self.close(link, Trouble::SameServer, member, effects);
            return Ok(());
        }
        let plausible = 0..=member.accepted_epoch.0.saturating_add(EPOCH_LEAP_MAX).min(Epoch::LAST.0 - 2);
        if !plausible.contains(&info.accepted_epoch.0) {
            // To lead it would take the last epochs that zxids have room for: whoever says so must not end the ensemble.
            self.close(link, Trouble::EpochsUsedUp, member, effects);
            return Ok(());
        }
        if let Some(server) = info.server {
            self.supersede(link, server, member, effects);
        }
        let decided =
            !matches!(self.phase, Phase::Discovery(Discovery::Connecting { .. } | Discovery::Saving { .. }));
        let place = info.server.filter(|_| !info.observer).and_then(|server| member.quorum.place(server));
        let progress = self.links.get_mut(&link).expect("looked up by the caller");
        progress.server = info.server;
        progress.observer = info.observer;
        progress.place = place;
        progress.stage = Stage::AwaitEpoch;
        if let Some(place) = place {
            self.elsewhere = self.elsewhere.without(place);
        }
        if decided || matches!(self.phase, Phase::Discovery(Discovery::Saving { .. })) {
            if place.is_some() && info.accepted_epoch > self.epoch {
                // It promised a later epoch to a leader that came to nothing and may not follow this one: without a
                // new election it would stay outside for as long as this reign lasts.
                return Err(Trouble::OldEpoch);
            }
            if decided {
                self.send_leader_info(link, effects);
            }
            return Ok(());
        }
        self.introduced(member, place, info.accepted_epoch, now_ms, effects)
    }

    /// A server that comes in anew has lost its older link, even if this side has not noticed.
    fn supersede(&mut self, link: LinkId, server: ServerId, member: &Member, effects: &mut Vec<Effect>) {
        let older = self.links.iter().find(|(id, other)| **id != link && other.server == Some(server));
        if let Some(older) = older.map(|(id, _)| *id) {
            self.close(older, Trouble::Superseded, member, effects);
        }
    }

    fn introduced(
        &mut self,
        member: &mut Member,
        place: Option<usize>,
        accepted: Epoch,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        let Phase::Discovery(discovery) = &mut self.phase else { return Ok(()) };
        if let Some(epoch) = discovery.introduced(place, accepted, self.own_place, &member.quorum) {
            if epoch > Epoch::LAST {
                return Err(Trouble::EpochsUsedUp);
            }
            self.epoch = epoch;
            self.phase_since_ms = now_ms;
            member.save_accepted(epoch, effects);
        }
        Ok(())
    }

    fn send_leader_info(&mut self, link: LinkId, effects: &mut Vec<Effect>) {
        let progress = self.links.get_mut(&link).expect("a link of ours");
        progress.stage = Stage::AwaitAckEpoch;
        let packet = Packet::LeaderInfo { epoch: self.epoch, protocol_version: PROTOCOL_VERSION };
        effects.push(Effect::Send { link, packet });
    }

    pub(crate) fn epoch_saved(
        &mut self,
        member: &mut Member,
        file: EpochFile,
        epoch: Epoch,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        match file {
            EpochFile::Accepted => self.accepted_saved(member, epoch, now_ms, effects),
            EpochFile::Current if self.phase == Phase::SavingCurrent && epoch == self.epoch => {
                self.phase = Phase::Synchronising;
                self.phase_since_ms = now_ms;
                self.tally.raise(self.own_place, member.tail.durable());
                self.try_establish(member, now_ms, effects);
            }
            // A completion that a former reign asked for.
            EpochFile::Current => {}
        }
    }

    fn accepted_saved(&mut self, member: &mut Member, epoch: Epoch, now_ms: u64, effects: &mut Vec<Effect>) {
        let Phase::Discovery(discovery) = &mut self.phase else { return };
        if !discovery.saved(epoch, self.own_place) {
            return;
        }
        self.phase_since_ms = now_ms;
        for link in self.links_at(Stage::AwaitEpoch) {
            self.send_leader_info(link, effects);
        }
        self.try_finish_discovery(member, now_ms, effects);
    }

    fn links_at(&self, stage: Stage) -> Vec<LinkId> {
        self.links.iter().filter(|(_, progress)| progress.stage == stage).map(|(link, _)| *link).collect()
    }

    /// `LeaderProcessACKEPOCH`.
    fn ack_epoch(
        &mut self,
        member: &mut Member,
        link: LinkId,
        last: Zxid,
        current_epoch: Option<Epoch>,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let progress = self.links.get_mut(&link).expect("looked up by the caller");
        let place = progress.place;
        progress.stage = Stage::AwaitElection { last };
        if !matches!(self.phase, Phase::Discovery(_)) {
            self.synchronise(member, link, last, now_ms, effects);
            return;
        }
        if let Some(current_epoch) = counted(member, current_epoch) {
            if ahead(member, StateSummary { current_epoch, last }) {
                // It may hold what is committed and this server lacks; whoever it elects will have it.
                self.close(link, Trouble::FollowerAhead, member, effects);
                return;
            }
            if let (Phase::Discovery(discovery), Some(place)) = (&mut self.phase, place) {
                discovery.promised(place);
            }
        }
        self.try_finish_discovery(member, now_ms, effects);
    }

    fn try_finish_discovery(&mut self, member: &mut Member, now_ms: u64, effects: &mut Vec<Effect>) {
        let Phase::Discovery(discovery) = &self.phase else { return };
        if !discovery.complete(&member.quorum) {
            return;
        }
        self.phase = Phase::Flushing;
        self.phase_since_ms = now_ms;
        // The whole log is the history that this reign begins with, and snapshots for learners must show all of it
        // (ZOOKEEPER-1319).
        if !shows_less(member) {
            member.replay(member.tail.appended(), effects);
        }
        self.try_save_current(member, effects);
        let waiting: Vec<_> = self
            .links
            .iter()
            .filter_map(|(link, progress)| match progress.stage {
                Stage::AwaitElection { last } => Some((*link, last)),
                _ => None,
            })
            .collect();
        for (link, last) in waiting {
            self.synchronise(member, link, last, now_ms, effects);
        }
    }

    fn try_save_current(&mut self, member: &mut Member, effects: &mut Vec<Effect>) {
        let is_durable = member.tail.durable() == member.tail.appended() || vouches_early(member);
        if self.phase == Phase::Flushing && is_durable {
            self.phase = Phase::SavingCurrent;
            member.save_current(self.epoch, effects);
        }
    }

    // Synchronisation

    /// Where the history ends that a learner is brought to: all of it before the reign stands, for a quorum will hold
    /// it before anything else; afterwards what is committed, the rest comes as proposals.
    fn history_end(&self, member: &Member) -> Zxid {
        let is_open = self.is_established() && !tells_uncommitted(member);
        if is_open { member.committed } else { member.tail.appended() }
    }

    /// `SyncFollower`: how, and the first stretch.
    fn synchronise(
        &mut self,
        member: &mut Member,
        link: LinkId,
        last: Zxid,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let end = self.history_end(member);
        let inputs = SyncInputs {
            learner_last: last,
            history: &member.tail,
            end,
            force_snapshot: member.config.force_snapshot,
            diff_records_max: member.config.diff_records_max,
            cheap_from: member.cheap_from,
        };
        let plan = mutated_plan(member, &inputs, sync_plan(&inputs));
        let after = match plan {
            SyncPlan::Diff { after } => {
                effects.push(Effect::Send { link, packet: Packet::Diff { zxid: end } });
                after
            }
            SyncPlan::Trunc { to } => {
                effects.push(Effect::Send { link, packet: Packet::Trunc { zxid: to } });
                to
            }
            SyncPlan::Snapshot => {
                assert!(member.replayed == end, "the tree shows {}, not {end}", member.replayed);
                if self.transferring(member, link, end, Transfer::Image, effects) {
                    effects.push(Effect::SendSnapshot { link, zxid: end });
                }
                return;
            }
        };
        self.advance(member, link, after, now_ms, effects);
    }

    /// Whether a transfer may begin, or go on. If not, there are so many that the observer has to come back later (Q78):
    /// together they would take the leader's share of disk and processor. A voter never waits.
    fn transferring(
        &mut self,
        member: &mut Member,
        link: LinkId,
        through: Zxid,
        by: Transfer,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let most = match by {
            Transfer::History => member.config.history_transfers_max,
            Transfer::Image => member.config.image_transfers_max,
        };
        let is_such = |progress: &Progress| matches!(progress.stage, Stage::Transferring { by: other, .. } if other == by);
        let progress = &self.links[&link];
        let has_place = progress.is_follower() || matches!(progress.stage, Stage::Transferring { .. });
        if !has_place && self.links.values().filter(|progress| is_such(progress)).count() >= most {
            self.close(link, Trouble::TooManyTransfers, member, effects);
            return false;
        }
        self.links.get_mut(&link).expect("a link of ours").stage = Stage::Transferring { through, by };
        true
    }

    pub(crate) fn transferred(
        &mut self,
        member: &mut Member,
        link: LinkId,
        through: Zxid,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(progress) = self.links.get_mut(&link) else { return };
        if matches!(progress.stage, Stage::Transferring { through: expected, .. } if expected == through) {
            progress.heard(now_ms);
            self.advance(member, link, through, now_ms, effects);
        }
    }

    /// The learner has everything through `sent`. Far behind: another stretch of history, while live traffic goes to
    /// the others. Near: the rest, the outstanding proposals (ambiguity 1 of the specification: whoever is asked for
    /// an ACK of NEWLEADER is sent every proposal from here on), NEWLEADER, and live traffic, in one step.
    fn advance(
        &mut self,
        member: &mut Member,
        link: LinkId,
        sent: Zxid,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let committed = self.history_end(member);
        if member.tail.at_or_below(sent).is_none() {
            self.close(link, Trouble::HistoryGone, member, effects);
            return;
        }
        let after = gap_after(member, sent);
        if member.tail.records(after, committed) > member.config.join_records_max {
            if self.transferring(member, link, committed, Transfer::History, effects) {
                effects.push(Effect::SendHistory { link, after, through: committed, committed });
            }
            return;
        }
        let progress = self.links.get_mut(&link).expect("a link of ours");
        let through = if progress.is_follower() { outstanding_end(member, committed) } else { committed };
        if member.tail.after(after).is_some_and(|first| first <= through) {
            effects.push(Effect::SendHistory { link, after, through, committed });
        }
        let config = Some(member.config_text().clone());
        effects.push(Effect::Send { link, packet: Packet::NewLeader { epoch: self.epoch, config } });
        progress.stage = Stage::AwaitAck { committed };
        progress.heard(now_ms);
    }

    /// `LeaderProcessACKLD`.
    fn new_leader_acked(
        &mut self,
        member: &mut Member,
        link: LinkId,
        committed: Zxid,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        let progress = self.links.get_mut(&link).expect("looked up by the caller");
        progress.stage = Stage::Synced;
        progress.acked = progress.acked.max(committed);
        if let Some(place) = progress.place {
            self.tally.raise(place, progress.acked);
        }
        if !self.is_established() {
            self.try_establish(member, now_ms, effects);
            return Ok(());
        }
        self.up_to_date(link, effects);
        self.try_commit(member, effects)
    }

    fn up_to_date(&mut self, link: LinkId, effects: &mut Vec<Effect>) {
        self.links.get_mut(&link).expect("a link of ours").stage = Stage::Active;
        effects.push(Effect::Send { link, packet: Packet::UpToDate });
    }

    /// A quorum, this server in it, holds the history of the reign: all of it is committed.
    fn try_establish(&mut self, member: &mut Member, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.phase != Phase::Synchronising {
            return;
        }
        let mut holders = Voters::NONE.with(self.own_place);
        for progress in self.links.values().filter(|progress| progress.stage == Stage::Synced) {
            if let Some(place) = progress.place {
                holders = holders.with(place);
            }
        }
        if !member.quorum.decides(holders) && !serves_early(member) {
            return;
        }
        self.phase = Phase::Established;
        self.phase_since_ms = now_ms;
        member.commit(member.tail.appended(), effects);
        // Who asks from now on hears of this reign, not of the last one (ZOOKEEPER-1732).
        member.vote.peer_epoch = self.epoch;
        member.suspended_in = None;
        effects.push(Effect::Serve { service: Service::Leading, epoch: self.epoch });
        for link in self.links_at(Stage::Synced) {
            self.up_to_date(link, effects);
        }
    }

    // Broadcast

    /// `LeaderProcessRequest` and `LeaderBroadcastPROPOSE` in one: no learner joins in between.
    pub(crate) fn submit(
        &mut self,
        member: &mut Member,
        zxid: Zxid,
        record: Bytes,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let next = self.next_zxid(member);
        assert!(next == Some(zxid), "{zxid} submitted where {next:?} is next");
        for (link, progress) in &mut self.links {
            if progress.is_live() && progress.is_follower() {
                progress.proposed(zxid, now_ms);
                let packet = Packet::Proposal { zxid, record: record.clone() };
                effects.push(Effect::Send { link: *link, packet });
            }
        }
        member.append(zxid, record, effects);
        #[cfg(feature = "mutations")]
        if member.mutated(Mutation::LeaderCountsItselfEarly) {
            self.tally.raise(self.own_place, zxid);
        }
    }

    /// The own disk has more of the log.
    pub(crate) fn durable(&mut self, member: &mut Member, effects: &mut Vec<Effect>) -> Outcome {
        match self.phase {
            Phase::Flushing => self.try_save_current(member, effects),
            Phase::Established => {
                self.tally.raise(self.own_place, member.tail.durable());
                return self.try_commit(member, effects);
            }
            Phase::Discovery(_) | Phase::SavingCurrent | Phase::Synchronising => {}
        }
        Ok(())
    }

    /// `LeaderProcessACK`.
    fn acked(
        &mut self,
        member: &mut Member,
        link: LinkId,
        zxid: Zxid,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        let last = member.tail.appended();
        let progress = self.links.get_mut(&link).expect("looked up by the caller");
        if zxid.epoch() != self.epoch || zxid > last {
            self.close(link, Trouble::OutOfPhase, member, effects);
            return Ok(());
        }
        progress.acknowledged(zxid, last, now_ms);
        let Some(place) = progress.place else { return Ok(()) };
        self.tally.raise(place, zxid);
        self.try_commit(member, effects)
    }

    /// `LeaderTryToCommit`. An acknowledgement covers all before it, so commits are a range and in order by nature. A
    /// SYNC stands in it where it was asked: an Apache learner takes the answers to its clients' requests in the order
    /// of the requests, and answers no more if the commit of a later one comes before a SYNC.
    fn try_commit(&mut self, member: &mut Member, effects: &mut Vec<Effect>) -> Outcome {
        let agreed = mutated_agreement(member, &self.tally, self.tally.agreed(&member.quorum));
        let Some(last) = agreed.filter(|agreed| *agreed > member.committed) else { return Ok(()) };
        let first = member.tail.after(member.committed).expect("what is acknowledged was appended");
        assert!(first.epoch() == self.epoch, "history was committed when the reign was established");
        let mut next = first;
        while let Some((behind, link)) = self.pending_syncs.pop_front_if(|(behind, _)| *behind <= last) {
            if behind >= next {
                self.send_commits(next, behind, effects);
                next = Zxid(behind.0 + 1);
            }
            effects.push(Effect::Send { link, packet: Packet::Sync });
        }
        if next <= last {
            self.send_commits(next, last, effects);
        }
        member.commit(last, effects);
        if member.committed == member.tail.appended() && self.next_zxid(member).is_none() {
            return Err(Trouble::Rollover);
        }
        Ok(())
    }

    fn send_commits(&self, first: Zxid, last: Zxid, effects: &mut Vec<Effect>) {
        for (link, progress) in self.links.iter().filter(|(_, progress)| progress.is_live()) {
            let link = *link;
            if progress.is_follower() {
                effects.push(Effect::SendCommits { link, first, last });
            } else {
                effects.push(Effect::SendInforms { link, first, last });
            }
        }
    }

    /// `Leader.processSync`: at once if nothing is outstanding, else after the last proposal so far (S23).
    pub(crate) fn sync(&mut self, member: &Member, link: LinkId, effects: &mut Vec<Effect>) {
        if !self.links.contains_key(&link) {
            return;
        }
        if member.committed == member.tail.appended() || answers_syncs_early(member) {
            effects.push(Effect::Send { link, packet: Packet::Sync });
        } else if self.pending_syncs.len() < PENDING_SYNCS_MAX {
            self.pending_syncs.push_back((member.tail.appended(), link));
        } else {
            self.close(link, Trouble::TooMany, member, effects);
        }
    }

    pub(crate) fn answer_revalidation(&self, link: LinkId, packet: Packet, effects: &mut Vec<Effect>) {
        if self.links.contains_key(&link) {
            effects.push(Effect::Send { link, packet });
        }
    }

    // Time

    pub(crate) fn tick(&mut self, member: &Member, now_ms: u64, effects: &mut Vec<Effect>) -> Outcome {
        if !overdue(now_ms, self.looked_ms, member.deadlines.half_tick) {
            return Ok(());
        }
        self.looked_ms = now_ms;
        let late: Vec<_> = self
            .links
            .iter()
            .filter_map(|(link, progress)| Some((*link, progress.overdue(now_ms, &member.deadlines)?)))
            .collect();
        for (link, because) in late {
            self.close(link, because, member, effects);
        }
        if self.is_established() {
            self.hold_quorum(member, now_ms)?;
        } else if overdue(now_ms, self.phase_since_ms, member.deadlines.init) {
            return Err(Trouble::NoQuorum);
        }
        let zxid = member.tail.appended().max(Zxid::new(self.epoch, 0));
        for link in self.links_at(Stage::Active) {
            effects.push(Effect::Send { link, packet: Packet::Ping { zxid, touched: None } });
        }
        Ok(())
    }

    /// Without a quorum of voters that were heard in time, another leader may reign already: stop (Q58, Q59).
    fn hold_quorum(&self, member: &Member, now_ms: u64) -> Outcome {
        let mut present = Voters::NONE.with(self.own_place);
        for progress in self.links.values().filter(|link| link.is_present(now_ms, &member.deadlines)) {
            if let Some(place) = progress.place {
                present = present.with(place);
            }
        }
        if member.quorum.decides(present) || never_steps_down(member) {
            Ok(())
        } else {
            Err(Trouble::QuorumLost)
        }
    }

    /// Whether the others are a quorum without this server, and up to date.
    pub(crate) fn is_dispensable(&self, member: &Member) -> bool {
        let active = self.links.values().filter(|progress| progress.stage == Stage::Active);
        let others = active.filter_map(|progress| progress.place).fold(Voters::NONE, Voters::with);
        self.is_established() && member.quorum.decides(others)
    }

    pub(crate) fn check(&self, member: &Member) {
        if self.is_established() {
            assert!(
                member.committed >= self.tally.agreed(&member.quorum).unwrap_or_default()
                    || is_mutated(member)
            );
            assert!(member.current_epoch == self.epoch);
        }
        assert!(self.links.len() <= LINKS_MAX);
    }
}
