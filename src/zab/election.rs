//! Fast leader election (Q20-Q28, `FastLeaderElection`): votes, a logical clock, and three ways out of it.
//!
//! A round is a shared counter. Within a round every server adopts the best vote that it hears of, and tells everybody
//! when it changed its mind; when a quorum names the same candidate and no better vote can still come, the round is
//! over. Servers that come late find a leader from what the others, who are not looking, answer.
//!
//! An election decides nothing that matters for safety: whoever wins must still win a quorum's promise in discovery
//! and a quorum's disks in synchronisation. It decides how soon.

use crate::{
    config::Config,
    effect::Effect,
    quorum::{Quorum, Voters},
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use zkfast_wire::{Epoch, Notification, ServerId, Zxid, vote::ServerState};

/// A candidate and its credentials.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vote {
    /// Whom.
    pub leader: ServerId,
    /// The candidate's last logged zxid, committed or not.
    pub zxid: Zxid,
    /// The candidate's currentEpoch.
    pub peer_epoch: Epoch,
}

impl Vote {
    /// The vote of a server that has none, before it has heard of a candidate (Q21: `Long.MIN_VALUE`, thrice).
    pub const NONE: Self =
        Self { leader: ServerId(i64::MIN), zxid: Zxid(i64::MIN), peer_epoch: Epoch(i64::MIN) };

    /// Whether this candidate is preferred to that one: later epoch, then more history, then larger id; never one
    /// that may not be elected (Q20, `totalOrderPredicate`).
    fn beats(&self, other: &Self, quorum: &Quorum) -> bool {
        let key = |vote: &Self| (vote.peer_epoch, vote.zxid, vote.leader);
        quorum.electable(self.leader) && key(self) > key(other)
    }
}

/// What a server said, and as what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Heard {
    vote: Vote,
    election_epoch: i64,
    state: ServerState,
    version: i32,
}

impl Heard {
    fn of(notification: &Notification) -> Self {
        let vote = Vote {
            leader: notification.leader,
            zxid: notification.zxid,
            peer_epoch: notification.peer_epoch,
        };
        Self {
            vote,
            election_epoch: notification.election_epoch,
            state: notification.state,
            version: notification.version,
        }
    }

    /// Whether two servers mean the same leadership (Q24, `Vote.equals`). Servers that are not looking may remember
    /// different rounds and zxids of it (ZOOKEEPER-1805), and those before 3.4.6 a different epoch (ZOOKEEPER-1732).
    fn agrees(&self, other: &Self) -> bool {
        if self.state == ServerState::Looking || other.state == ServerState::Looking {
            self.vote == other.vote && self.election_epoch == other.election_epoch
        } else if (self.version > 0) != (other.version > 0) {
            self.vote.leader == other.vote.leader
        } else {
            self.vote.leader == other.vote.leader && self.vote.peer_epoch == other.vote.peer_epoch
        }
    }
}

/// The result of a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Elected {
    pub(crate) vote: Vote,
    pub(crate) election_epoch: i64,
}

/// How long a server waits before it takes another role; times that are over are no pauses.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pauses {
    /// It listens and votes, and takes no role.
    pub(crate) hold_until_ms: u64,
    /// It does not take part.
    pub(crate) silent_until_ms: u64,
}

/// What a round rests on, whatever its state.
pub(crate) struct Ground<'a> {
    pub(crate) config: &'a Config,
    pub(crate) quorum: &'a Quorum,
    /// The text that travels with each notification.
    pub(crate) config_text: &'a Bytes,
    /// Peers with a live election link.
    pub(crate) peers_up: &'a BTreeSet<ServerId>,
}

/// One election, from LOOKING to a leader.
#[derive(Clone, Debug)]
pub(crate) struct Election {
    clock: i64,
    /// What this server stands for itself; [`Vote::NONE`] if it does not vote.
    own: Vote,
    proposal: Vote,
    heard: BTreeMap<ServerId, Heard>,
    out_of_election: BTreeMap<ServerId, Heard>,
    /// A quorum agrees: until when a better vote may still come.
    finalize_at_ms: Option<u64>,
    /// Nothing is concluded before: the last leaders that this server found led nowhere.
    hold_until_ms: u64,
    /// Nothing is said before: this server gave its leadership up, and the others elect among themselves.
    silent_until_ms: u64,
    resend_at_ms: u64,
    resend_interval_ms: u64,
}

impl Election {
    /// Opens the round after `clock` with a vote for `own`, and tells everybody. It ends when `pauses` allow.
    pub(crate) fn start(
        clock: i64,
        own: Vote,
        pauses: Pauses,
        now_ms: u64,
        ground: &Ground<'_>,
        effects: &mut Vec<Effect>,
    ) -> Self {
        let resend_interval_ms = ground.config.notification_interval_ms_min;
        let mut election = Self {
            clock: clock.wrapping_add(1),
            own,
            proposal: own,
            heard: BTreeMap::new(),
            out_of_election: BTreeMap::new(),
            finalize_at_ms: None,
            hold_until_ms: pauses.hold_until_ms,
            silent_until_ms: if now_ms < pauses.silent_until_ms { pauses.silent_until_ms } else { 0 },
            resend_at_ms: now_ms + resend_interval_ms,
            resend_interval_ms,
        };
        if !election.is_silent(now_ms) {
            election.propose(own, ground, effects);
        }
        election
    }

    pub(crate) const fn clock(&self) -> i64 {
        self.clock
    }

    /// Whether this server keeps out for now.
    pub(crate) const fn is_silent(&self, now_ms: u64) -> bool {
        now_ms < self.silent_until_ms
    }

    /// The silence is over: a round of its own, later than all that were heard of, so that who is still looking answers.
    fn break_silence(&mut self, now_ms: u64, ground: &Ground<'_>, effects: &mut Vec<Effect>) {
        self.silent_until_ms = 0;
        self.clock = self.clock.wrapping_add(1);
        self.heard.clear();
        self.resend_at_ms = now_ms + self.resend_interval_ms;
        self.propose(self.own, ground, effects);
    }

    pub(crate) fn notification(&self, ground: &Ground<'_>) -> Notification {
        Notification {
            state: ServerState::Looking,
            leader: self.proposal.leader,
            zxid: self.proposal.zxid,
            election_epoch: self.clock,
            peer_epoch: self.proposal.peer_epoch,
            version: Notification::VERSION,
            config: Some(ground.config_text.clone()),
        }
    }

    /// Adopts a vote, counts it as this server's own word, and tells everybody.
    fn propose(&mut self, vote: Vote, ground: &Ground<'_>, effects: &mut Vec<Effect>) {
        self.proposal = vote;
        self.finalize_at_ms = None;
        let own_word = Heard {
            vote,
            election_epoch: self.clock,
            state: ServerState::Looking,
            version: Notification::VERSION,
        };
        if ground.quorum.place(ground.config.server).is_some() {
            self.heard.insert(ground.config.server, own_word);
        }
        self.tell_everybody(ground, effects);
    }

    fn tell_everybody(&self, ground: &Ground<'_>, effects: &mut Vec<Effect>) {
        for &to in ground.quorum.voters().iter().filter(|voter| **voter != ground.config.server) {
            effects.push(Effect::Notify { to, notification: self.notification(ground) });
        }
    }

    /// Resends with growing intervals; ends the wait for a better vote.
    pub(crate) fn tick(
        &mut self,
        now_ms: u64,
        ground: &Ground<'_>,
        effects: &mut Vec<Effect>,
    ) -> Option<Elected> {
        if self.is_silent(now_ms) {
            return None;
        }
        if self.silent_until_ms != 0 {
            self.break_silence(now_ms, ground, effects);
        }
        if now_ms >= self.resend_at_ms {
            self.tell_everybody(ground, effects);
            let longest_ms = ground.config.notification_interval_ms_max;
            self.resend_interval_ms = self.resend_interval_ms.saturating_mul(2).min(longest_ms);
            self.resend_at_ms = now_ms + self.resend_interval_ms;
        }
        self.conclude(now_ms, ground).or_else(|| self.settle(now_ms, ground))
    }

    /// A message of a server, voter or not.
    pub(crate) fn hear(
        &mut self,
        from: ServerId,
        notification: &Notification,
        now_ms: u64,
        ground: &Ground<'_>,
        effects: &mut Vec<Effect>,
    ) -> Option<Elected> {
        if self.is_silent(now_ms) {
            if ground.quorum.place(from).is_some() && notification.state == ServerState::Looking {
                self.clock = self.clock.max(notification.election_epoch);
            }
            return None;
        }
        if ground.quorum.place(from).is_none() {
            // Who does not vote only wants to know (Q25); who has found a leader does not even that.
            if notification.state == ServerState::Looking {
                effects.push(Effect::Notify { to: from, notification: self.notification(ground) });
            }
            return None;
        }
        let heard = Heard::of(notification);
        match heard.state {
            ServerState::Looking => {
                if heard.election_epoch < self.clock {
                    // It catches up with the round; an observer's word would only be answered in turn.
                    if ground.quorum.place(ground.config.server).is_some() {
                        effects.push(Effect::Notify { to: from, notification: self.notification(ground) });
                    }
                    return None;
                }
                ground.quorum.place(heard.vote.leader)?;
                self.hear_looking(from, heard, now_ms, ground, effects)
            }
            ServerState::Following | ServerState::Leading => {
                ground.quorum.place(heard.vote.leader)?;
                self.hear_settled(from, heard, now_ms, ground)
            }
            ServerState::Observing => None,
        }
    }

    fn hear_looking(
        &mut self,
        from: ServerId,
        heard: Heard,
        now_ms: u64,
        ground: &Ground<'_>,
        effects: &mut Vec<Effect>,
    ) -> Option<Elected> {
        // Zxid -1: an empty disk that the operator does not vouch for takes no part (Q23).
        if heard.vote.zxid == Zxid(-1) || self.own.zxid == Zxid(-1) {
            return None;
        }
        if heard.election_epoch > self.clock {
            self.clock = heard.election_epoch;
            self.heard.clear();
            let better = if heard.vote.beats(&self.own, ground.quorum) { heard.vote } else { self.own };
            self.propose(better, ground, effects);
        } else if heard.vote.beats(&self.proposal, ground.quorum) {
            self.propose(heard.vote, ground, effects);
        }
        self.heard.insert(from, heard);
        self.conclude(now_ms, ground)
    }

    /// The three answers: wait, wait a little for better, done. Done early when every voter that could still speak has
    /// said the same: a voter without a live link has nothing to say that a dead server would not.
    fn conclude(&mut self, now_ms: u64, ground: &Ground<'_>) -> Option<Elected> {
        if self.own.zxid == Zxid(-1) {
            return None;
        }
        let agreeing = self.supporters(ground);
        if !ground.quorum.decides(agreeing) {
            self.finalize_at_ms = None;
            return None;
        }
        let finalize_at_ms = *self.finalize_at_ms.get_or_insert(now_ms + ground.config.finalize_wait_ms);
        let unanimous = ground.quorum.voters().iter().enumerate().all(|(place, voter)| {
            agreeing.has(place) || (*voter != ground.config.server && !ground.peers_up.contains(voter))
        });
        if now_ms >= self.hold_until_ms && (unanimous || now_ms >= finalize_at_ms) {
            return Some(Elected { vote: self.proposal, election_epoch: self.clock });
        }
        None
    }

    fn supporters(&self, ground: &Ground<'_>) -> Voters {
        let mut set = Voters::NONE;
        for (voter, heard) in &self.heard {
            if heard.vote == self.proposal
                && heard.election_epoch == self.clock
                && let Some(place) = ground.quorum.place(*voter)
            {
                set = set.with(place);
            }
        }
        set
    }

    /// A voter that is not looking names its leader. Join if a quorum does, and the leader itself says that it leads:
    /// of this round (the others were faster), or of whatever round made it (this server comes late).
    fn hear_settled(
        &mut self,
        from: ServerId,
        heard: Heard,
        now_ms: u64,
        ground: &Ground<'_>,
    ) -> Option<Elected> {
        let is_held = now_ms < self.hold_until_ms;
        if heard.election_epoch == self.clock {
            self.heard.insert(from, heard);
            if !is_held && self.settled(&self.heard, heard, ground) {
                return Some(Elected { vote: heard.vote, election_epoch: heard.election_epoch });
            }
        }
        self.out_of_election.insert(from, heard);
        if !is_held && self.settled(&self.out_of_election, heard, ground) {
            self.clock = heard.election_epoch;
            return Some(Elected { vote: heard.vote, election_epoch: heard.election_epoch });
        }
        None
    }

    /// What was heard of a settled ensemble while the end was held up.
    fn settle(&mut self, now_ms: u64, ground: &Ground<'_>) -> Option<Elected> {
        if self.hold_until_ms == 0 || now_ms < self.hold_until_ms {
            return None;
        }
        self.hold_until_ms = 0;
        let settled: Vec<_> = self.out_of_election.iter().map(|(from, heard)| (*from, *heard)).collect();
        settled.into_iter().find_map(|(from, heard)| self.hear_settled(from, heard, now_ms, ground))
    }

    fn settled(&self, votes: &BTreeMap<ServerId, Heard>, heard: Heard, ground: &Ground<'_>) -> bool {
        let mut set = Voters::NONE;
        for (voter, vote) in votes {
            if heard.agrees(vote)
                && let Some(place) = ground.quorum.place(*voter)
            {
                set = set.with(place);
            }
        }
        let leader_says_so = if heard.vote.leader == ground.config.server {
            self.clock == heard.election_epoch
        } else {
            votes.get(&heard.vote.leader).is_some_and(|vote| vote.state == ServerState::Leading)
        };
        ground.quorum.decides(set) && leader_says_so
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zkfast_wire::Ensemble;

    struct Fixture {
        config: Config,
        quorum: Quorum,
        text: Bytes,
        peers_up: BTreeSet<ServerId>,
        effects: Vec<Effect>,
    }

    impl Fixture {
        fn new(server: i64, voters: usize) -> Self {
            let lines: String = (1..=voters).map(|id| format!("server.{id}=h:1:2\n")).collect();
            let ensemble = Ensemble::parse(&lines).unwrap();
            Self {
                quorum: Quorum::new(&ensemble).unwrap(),
                config: Config::new(ServerId(server), ensemble),
                text: Bytes::from_static(b"version=0"),
                peers_up: (1..=voters as i64).map(ServerId).filter(|id| id.0 != server).collect(),
                effects: Vec::new(),
            }
        }

        fn with<R>(&mut self, act: impl FnOnce(&Ground<'_>, &mut Vec<Effect>) -> R) -> R {
            let ground = Ground {
                config: &self.config,
                quorum: &self.quorum,
                config_text: &self.text,
                peers_up: &self.peers_up,
            };
            act(&ground, &mut self.effects)
        }

        fn start(&mut self, own: Vote) -> Election {
            self.with(|ground, effects| Election::start(0, own, Pauses::default(), 0, ground, effects))
        }

        /// Who was told of which vote, in which round, since the effects were cleared.
        fn told(&self) -> Vec<(i64, Vote, i64)> {
            let told = self.effects.iter().map(|effect| match effect {
                Effect::Notify { to, notification } => {
                    (to.0, Heard::of(notification).vote, notification.election_epoch)
                }
                other => panic!("{other:?} in an election"),
            });
            told.collect()
        }

        fn hear(
            &mut self,
            election: &mut Election,
            from: i64,
            n: &Notification,
            now_ms: u64,
        ) -> Option<Elected> {
            self.with(|ground, effects| election.hear(ServerId(from), n, now_ms, ground, effects))
        }
    }

    fn vote(leader: i64, zxid: i64, epoch: i64) -> Vote {
        Vote { leader: ServerId(leader), zxid: Zxid(zxid), peer_epoch: Epoch(epoch) }
    }

    fn says(vote: Vote, round: i64, state: ServerState) -> Notification {
        Notification {
            state,
            leader: vote.leader,
            zxid: vote.zxid,
            election_epoch: round,
            peer_epoch: vote.peer_epoch,
            version: 2,
            config: None,
        }
    }

    use ServerState::{Following, Leading, Looking};

    /// Q20. Danger: who has less history leads, and what others have more is cut off; or one leads that may not.
    #[test]
    fn epoch_counts_before_zxid_and_zxid_before_id() {
        let fixture = Fixture::new(1, 3);
        let order = [vote(3, 9, 1), vote(1, 2, 2), vote(2, 2, 2), vote(1, 3, 2)];
        for (low, one) in order.iter().enumerate() {
            for (high, other) in order.iter().enumerate() {
                assert_eq!(other.beats(one, &fixture.quorum), high > low);
            }
        }
        assert!(order[0].beats(&Vote::NONE, &fixture.quorum));
        assert!(!vote(9, 99, 99).beats(&order[0], &fixture.quorum), "not a member");
        let text = "server.1=h:1:2\nserver.2=h:1:2\nserver.3=h:1:2\ngroup.1=1:2:3\nweight.3=0";
        let weighed = Quorum::new(&Ensemble::parse(text).unwrap()).unwrap();
        assert!(!vote(3, 9, 9).beats(&order[0], &weighed), "of no weight");
        assert!(vote(2, 9, 9).beats(&order[0], &weighed));
    }

    /// Danger: the finalize wait of 200 ms is most of what a failover costs.
    #[test]
    fn a_round_ends_at_once_when_all_that_can_speak_agree() {
        let mut fixture = Fixture::new(1, 3);
        let best = vote(3, 5, 1);
        let mut election = fixture.start(vote(1, 4, 1));
        // Server 2 is down; 1 and 3 agree.
        fixture.peers_up.remove(&ServerId(2));
        let elected = fixture.hear(&mut election, 3, &says(best, 1, Looking), 10);
        assert_eq!(elected, Some(Elected { vote: best, election_epoch: 1 }));
    }

    /// Q22. Danger: a round ends before the best vote is heard, or never.
    #[test]
    fn a_round_waits_for_a_live_voter_that_has_not_spoken() {
        let mut fixture = Fixture::new(1, 3);
        let best = vote(3, 5, 1);
        let mut election = fixture.start(vote(1, 4, 1));
        assert_eq!(fixture.hear(&mut election, 3, &says(best, 1, Looking), 10), None);
        // A better vote restarts the wait, and is told to everybody.
        let better = vote(2, 6, 1);
        fixture.effects.clear();
        assert_eq!(fixture.hear(&mut election, 2, &says(better, 1, Looking), 100), None);
        assert_eq!(fixture.told(), [(2, better, 1), (3, better, 1)]);
        assert_eq!(fixture.with(|g, e| election.tick(299, g, e)), None);
        let elected = fixture.with(|g, e| election.tick(300, g, e));
        assert_eq!(elected.map(|elected| elected.vote), Some(better));
    }

    /// Q22. Danger: votes of two rounds are counted together, and two leaders are elected.
    #[test]
    fn an_older_round_is_answered_and_a_newer_one_adopted() {
        let mut fixture = Fixture::new(2, 5);
        let (own, better) = (vote(2, 4, 1), vote(3, 5, 1));
        let mut election = fixture.start(own);
        fixture.effects.clear();
        assert_eq!(fixture.hear(&mut election, 3, &says(vote(3, 9, 9), 0, Looking), 10), None);
        assert_eq!(fixture.told(), [(3, own, 1)]);
        assert_eq!(election.proposal, own);
        fixture.hear(&mut election, 4, &says(better, 1, Looking), 10);
        assert_eq!(election.heard.len(), 2);
        // The newer round begins with the own vote again, and forgets what was said in the older one.
        fixture.effects.clear();
        fixture.hear(&mut election, 1, &says(vote(1, 1, 1), 7, Looking), 10);
        assert_eq!((election.clock(), election.proposal), (7, own));
        assert_eq!(fixture.told(), [1, 3, 4, 5].map(|voter| (voter, own, 7)));
        assert!(election.heard.keys().eq(&[ServerId(1), ServerId(2)]));
        // One that comes with a better vote is followed at once.
        fixture.hear(&mut election, 1, &says(better, 8, Looking), 10);
        assert_eq!((election.clock(), election.proposal), (8, better));
    }

    /// Q24. Danger: a server that comes late joins a leader that leads nobody, or never finds the one that leads.
    #[test]
    fn late_comers_join_what_a_quorum_follows() {
        let mut fixture = Fixture::new(1, 3);
        let mut election = fixture.start(vote(1, 9, 1));
        let leader = vote(3, 5, 2);
        assert_eq!(fixture.hear(&mut election, 2, &says(leader, 40, Following), 10), None);
        // The leader remembers another zxid of the same reign (ZOOKEEPER-1805).
        let elected = fixture.hear(&mut election, 3, &says(vote(3, 7, 2), 40, Leading), 10);
        assert_eq!(elected.map(|elected| elected.vote.leader), Some(ServerId(3)));
        assert_eq!(election.clock(), 40);
    }

    /// Q24. Danger: the others remember a leader that is gone, and who comes follows nobody.
    #[test]
    fn followers_alone_do_not_make_a_leader() {
        let mut fixture = Fixture::new(1, 5);
        let mut election = fixture.start(vote(1, 9, 1));
        let leader = vote(5, 5, 2);
        for from in [2, 3, 4] {
            assert_eq!(fixture.hear(&mut election, from, &says(leader, 40, Following), 10), None);
        }
        assert!(fixture.hear(&mut election, 5, &says(leader, 40, Leading), 10).is_some());
    }

    /// Q24. Of two reigns of one server each is counted by itself; who speaks the format of before 3.4.6 may remember the
    /// epoch before this reign's (ZOOKEEPER-1732).
    #[test]
    fn a_leader_of_another_reign_is_another_leader() {
        for (version, is_joined) in [(2, false), (1, false), (0, true)] {
            let mut fixture = Fixture::new(1, 3);
            let mut election = fixture.start(vote(1, 9, 1));
            let older = Notification { version, ..says(vote(3, 5, 1), 40, Following) };
            assert_eq!(fixture.hear(&mut election, 2, &older, 10), None);
            let elected = fixture.hear(&mut election, 3, &says(vote(3, 5, 2), 40, Leading), 10);
            assert_eq!(elected.is_some(), is_joined, "version {version}");
        }
        // In the own round a quorum is enough if the leader is one of it.
        let mut fixture = Fixture::new(1, 5);
        let mut election = fixture.start(vote(1, 4, 1));
        let leader = vote(5, 5, 2);
        assert_eq!(fixture.hear(&mut election, 5, &says(leader, 1, Leading), 10), None);
        assert_eq!(fixture.hear(&mut election, 2, &says(leader, 1, Following), 10), None);
        let elected = fixture.hear(&mut election, 3, &says(leader, 1, Following), 10);
        assert_eq!(elected, Some(Elected { vote: leader, election_epoch: 1 }));
    }

    #[test]
    fn observers_and_strangers_are_answered_and_do_not_count() {
        let mut fixture = Fixture::new(1, 3);
        let mut election = fixture.start(vote(1, 9, 1));
        fixture.effects.clear();
        assert_eq!(fixture.hear(&mut election, 9, &says(vote(9, 99, 99), 99, Looking), 1), None);
        assert!(matches!(&fixture.effects[..], [Effect::Notify { to: ServerId(9), .. }]));
        assert_eq!((election.clock(), election.proposal), (1, vote(1, 9, 1)));
    }

    /// Q26. Danger: servers that are up and cannot hear each other yet find each other minutes later; or fill the network.
    #[test]
    fn silence_is_met_with_rarer_and_rarer_messages() {
        let mut fixture = Fixture::new(1, 3);
        let mut election = fixture.start(vote(1, 9, 1));
        let mut sent_at = Vec::new();
        for now_ms in 0..230_000 {
            fixture.effects.clear();
            fixture.with(|g, e| election.tick(now_ms, g, e));
            if !fixture.effects.is_empty() {
                sent_at.push(now_ms);
            }
        }
        assert_eq!(sent_at, [200, 600, 1400, 3000, 6200, 12600, 25400, 51000, 102200, 162200, 222200]);
    }
}
