//! A server of the ensemble, or a server alone: one value, one entrance, no I/O.
//!
//! Lives on the pipeline core. Promises, asserted in release builds too: acked <= durable <= appended; committed <=
//! acked by a quorum; commits are in zxid order; within an epoch each zxid is the previous + 1; nothing is said to a
//! peer that the own disk could forget.

use crate::{
    alone::Alone,
    config::{Config, Recovered},
    effect::{Effect, Trouble},
    election::{Elected, Election},
    event::{Event, LinkId},
    leader::{LINKS_MAX, Leading},
    learner::Learner,
    member::{Member, Outcome},
    quorum::QuorumError,
};
use zkfast_wire::{Epoch, Notification, Packet, ServerId, Zxid, quorum::LearnerInfo, vote::ServerState};

/// Transactions before the end of an epoch's counter from which on the end is near (S25): more than are under way at once.
pub const ROLLOVER_MARGIN: u32 = 1 << 20;

/// What a server is to the others at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// A standalone server.
    Alone,
    /// Without a leader.
    Looking,
    /// Elected. `established`: a quorum holds its history and writes are ordered.
    Leading {
        /// Whether the reign stands.
        established: bool,
        /// Voters that follow and are up to date.
        synced_followers: usize,
    },
    /// Learning, with a vote.
    Following {
        /// Whom.
        leader: ServerId,
        /// Whether it is up to date and serves.
        active: bool,
    },
    /// Learning, without a vote.
    Observing {
        /// Whom.
        leader: ServerId,
        /// Whether it is up to date and serves.
        active: bool,
    },
}

/// A leader's learners, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learners {
    /// Links of learners, in whatever stage.
    pub connected: usize,
    /// Followers that are up to date and do not vote in the current configuration.
    pub synced_non_voting_followers: usize,
    /// Observers that are up to date.
    pub synced_observers: usize,
    /// Syncs that wait for a commit.
    pub pending_syncs: usize,
}

/// The order, as one server holds it.
#[derive(Debug)]
pub struct Node {
    state: State,
}

#[derive(Debug)]
enum State {
    Alone(Alone),
    Member(Box<Member>, MemberState),
}

#[derive(Debug)]
enum MemberState {
    Looking(Looking),
    Leading(Leading),
    Learning(Learner),
}

/// Learners may come before this server knows that it leads: their links wait, as in Apache's accept backlog.
#[derive(Debug)]
struct Looking {
    election: Election,
    parked: Vec<(LinkId, Option<LearnerInfo>)>,
}

impl Node {
    /// A standalone server whose recovered history ends at `last`; it keeps the epoch of that zxid (S24).
    pub fn alone(last: Zxid) -> Self {
        Self { state: State::Alone(Alone::new(last)) }
    }

    /// A member of an ensemble. It looks for a leader at once: what that asks for is in `effects`.
    ///
    /// # Errors
    /// An ensemble in which nothing could ever be decided.
    pub fn member(
        config: Config,
        recovered: Recovered,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<Self, QuorumError> {
        let mut member = Box::new(Member::new(config, recovered)?);
        let looking = look(&mut member, Trouble::Started, now_ms, effects);
        Ok(Self { state: State::Member(member, looking) })
    }

    /// What this server is now.
    pub fn role(&self) -> Role {
        match &self.state {
            State::Alone(_) => Role::Alone,
            State::Member(_, MemberState::Looking(_)) => Role::Looking,
            State::Member(_, MemberState::Leading(leading)) => Role::Leading {
                established: leading.is_established(),
                synced_followers: leading.synced_followers(),
            },
            State::Member(member, MemberState::Learning(learner)) => {
                let (leader, active) = (learner.leader(), learner.is_active());
                match member.place {
                    Some(_) => Role::Following { leader, active },
                    None => Role::Observing { leader, active },
                }
            }
        }
    }

    /// The learners of a leader, in numbers; all zero in any other role.
    pub fn learners(&self) -> Learners {
        match &self.state {
            State::Member(_, MemberState::Leading(leading)) => leading.learners(),
            State::Alone(_) | State::Member(..) => Learners::default(),
        }
    }

    /// The epoch under which this server appends to its log; a driver puts it into [`Event::Durable`].
    pub fn epoch(&self) -> Epoch {
        match &self.state {
            State::Alone(alone) => alone.tail().appended().epoch(),
            State::Member(member, _) => member.accepted_epoch,
        }
    }

    /// The zxid that the next submitted transaction must carry.
    ///
    /// `None` when this server does not order writes, or when the counter of its epoch is used up (S25,
    /// ZOOKEEPER-1277): a member then steps down by itself, for a new epoch.
    pub fn next_zxid(&self) -> Option<Zxid> {
        match &self.state {
            State::Alone(alone) => alone.tail().appended().next(),
            State::Member(member, MemberState::Leading(leading)) => leading.next_zxid(member),
            State::Member(..) => None,
        }
    }

    /// The last committed transaction that this server knows of; zero on a member that has not caught up yet.
    pub fn committed(&self) -> Zxid {
        match &self.state {
            State::Alone(alone) => alone.committed(),
            State::Member(member, _) => member.committed,
        }
    }

    /// The last transaction handed to the log.
    pub fn appended(&self) -> Zxid {
        match &self.state {
            State::Alone(alone) => alone.tail().appended(),
            State::Member(member, _) => member.tail.appended(),
        }
    }

    /// How often [`Event::Tick`] must come, in milliseconds. Deadlines are met to within this.
    pub fn tick_every_ms(&self) -> u64 {
        match &self.state {
            State::Alone(_) => 1000,
            State::Member(_, MemberState::Looking(_)) => 10,
            State::Member(member, _) => member.deadlines.half_tick.min(50),
        }
    }

    /// Takes one event, pushes what must be done about it onto `effects`, which the caller empties and reuses.
    ///
    /// `now_ms` is a monotonic clock in milliseconds; it never decides what is safe, only what is overdue.
    ///
    /// # Panics
    /// If the driver broke its side: a zxid submitted that is not [`Node::next_zxid`]. To go on would be to
    /// acknowledge what may be lost.
    pub fn step(&mut self, now_ms: u64, event: Event, effects: &mut Vec<Effect>) {
        match &mut self.state {
            State::Alone(alone) => step_alone(alone, event, effects),
            State::Member(member, state) => {
                if let Err(because) = step_member(member, state, now_ms, event, effects) {
                    leave(member, state, because, now_ms, effects);
                }
            }
        }
        self.check();
    }

    /// Asserts what must hold between two events.
    ///
    /// # Panics
    /// If it does not hold.
    pub fn check(&self) {
        match &self.state {
            State::Alone(alone) => alone.check(),
            State::Member(member, state) => {
                member.check();
                match state {
                    MemberState::Looking(looking) => assert!(looking.parked.len() <= LINKS_MAX),
                    MemberState::Leading(leading) => leading.check(member),
                    MemberState::Learning(learner) => learner.check(member),
                }
            }
        }
    }
}

fn step_alone(alone: &mut Alone, event: Event, effects: &mut Vec<Effect>) {
    match event {
        Event::Submit { zxid, record } => alone.submit(zxid, record, effects),
        Event::Durable { epoch, zxid } if epoch == alone.tail().appended().epoch() => {
            alone.durable(zxid, effects)
        }
        // Nobody else speaks to a standalone server.
        _ => {}
    }
}

// Roles come and go

/// Opens an election.
fn look(member: &mut Member, because: Trouble, now_ms: u64, effects: &mut Vec<Effect>) -> MemberState {
    effects.push(Effect::Look { because });
    let own = member.own_vote();
    let election =
        Election::start(member.election_epoch, own, member.pauses(), now_ms, &member.ground(), effects);
    let mut looking = Looking { election, parked: Vec::new() };
    // A single voter needs no other word.
    match looking.election.tick(now_ms, &member.ground(), effects) {
        Some(elected) => take_role(member, &mut looking, elected, now_ms, effects),
        None => MemberState::Looking(looking),
    }
}

/// Gives up a role.
fn leave(
    member: &mut Member,
    state: &mut MemberState,
    because: Trouble,
    now_ms: u64,
    effects: &mut Vec<Effect>,
) {
    // A learner is not told why its leader is gone. Where it was wrong about the reason its clients wait for a moment in
    // vain.
    let (served, rolls_over, epoch) = match state {
        MemberState::Looking(_) => (false, false, member.accepted_epoch),
        MemberState::Leading(leading) => {
            leading.close_all(because, effects);
            (leading.is_established(), because == Trouble::Rollover, member.accepted_epoch)
        }
        MemberState::Learning(learner) => {
            if let Some(link) = learner.link() {
                effects.push(Effect::Close { link, because });
            }
            let is_near = member.tail.appended().counter() >= u32::MAX - ROLLOVER_MARGIN;
            (learner.is_active(), is_near && because == Trouble::LinkDown, learner.epoch())
        }
    };
    if served {
        member.was_fruitful();
        member.suspended_in = rolls_over.then_some(epoch);
        effects.push(if rolls_over { Effect::Suspend } else { Effect::StopServing });
    }
    *state = look(member, because, now_ms, effects);
}

/// The election is over.
fn take_role(
    member: &mut Member,
    looking: &mut Looking,
    elected: Elected,
    now_ms: u64,
    effects: &mut Vec<Effect>,
) -> MemberState {
    member.vote = elected.vote;
    member.election_epoch = elected.election_epoch;
    member.begin_role(now_ms);
    let parked = std::mem::take(&mut looking.parked);
    if elected.vote.leader == member.config.server {
        return match Leading::start(member, parked, now_ms, effects) {
            (leading, Ok(())) => MemberState::Leading(leading),
            (mut leading, Err(because)) => {
                leading.close_all(because, effects);
                look(member, because, now_ms, effects)
            }
        };
    }
    for (link, _) in parked {
        effects.push(Effect::Close { link, because: Trouble::NotLeading });
    }
    MemberState::Learning(Learner::start(elected.vote.leader, now_ms, effects))
}

// Events

fn step_member(
    member: &mut Member,
    state: &mut MemberState,
    now_ms: u64,
    event: Event,
    effects: &mut Vec<Effect>,
) -> Outcome {
    match event {
        Event::Tick => tick(member, state, now_ms, effects),
        Event::Notification { from, notification } => {
            hear(member, state, from, &notification, now_ms, effects)
        }
        Event::PeerUp { peer } => {
            member.peers_up.insert(peer);
            if let MemberState::Looking(looking) = state
                && !looking.election.is_silent(now_ms)
            {
                let notification = looking.election.notification(&member.ground());
                effects.push(Effect::Notify { to: peer, notification });
            }
            Ok(())
        }
        Event::PeerDown { peer } => {
            member.peers_up.remove(&peer);
            // It may have been the last one that the round waited for.
            if matches!(state, MemberState::Looking(_)) {
                tick(member, state, now_ms, effects)
            } else {
                Ok(())
            }
        }
        Event::Durable { zxid, .. } => durable(member, state, zxid, effects),
        Event::Cheaper { floor } => {
            member.cheap_from = floor;
            Ok(())
        }
        Event::Purged { floor } => {
            member.tail.purge(floor);
            Ok(())
        }
        Event::GiveUp { because } => match state {
            MemberState::Leading(leading) if leading.is_dispensable(member) => {
                member.keep_silent(now_ms);
                Err(because)
            }
            MemberState::Looking(_) | MemberState::Leading(_) | MemberState::Learning(_) => Ok(()),
        },
        Event::Up { link, dialled } => {
            up(member, state, link, dialled, now_ms, effects);
            Ok(())
        }
        Event::Down { link } => down(member, state, link, now_ms),
        Event::Packet { link, packet } => take_packet(member, state, link, packet, now_ms, effects),
        event => {
            match state {
                MemberState::Looking(_) => {}
                MemberState::Leading(leading) => step_leading(member, leading, event, now_ms, effects),
                MemberState::Learning(learner) => {
                    return step_learning(member, learner, event, now_ms, effects);
                }
            }
            Ok(())
        }
    }
}

fn step_leading(
    member: &mut Member,
    leading: &mut Leading,
    event: Event,
    now_ms: u64,
    effects: &mut Vec<Effect>,
) {
    match event {
        Event::Submit { zxid, record } => leading.submit(member, zxid, record, now_ms, effects),
        Event::EpochSaved { file, epoch } => leading.epoch_saved(member, file, epoch, now_ms, effects),
        Event::Transferred { link, through } => leading.transferred(member, link, through, now_ms, effects),
        Event::Sync { link } => leading.sync(member, link, effects),
        Event::RevalidateAnswer { link, session, valid } => {
            leading.answer_revalidation(link, Packet::RevalidateAnswer { session, valid }, effects);
        }
        // Asked for in a former role.
        _ => {}
    }
}

fn step_learning(
    member: &mut Member,
    learner: &mut Learner,
    event: Event,
    now_ms: u64,
    effects: &mut Vec<Effect>,
) -> Outcome {
    match event {
        Event::EpochSaved { file, epoch } => learner.epoch_saved(member, file, epoch, now_ms, effects),
        Event::Truncated { zxid } => learner.truncated(member, zxid, now_ms),
        Event::Installed { zxid } => learner.installed(member, zxid, now_ms),
        Event::DialFailed { leader } => return learner.unreachable(member, leader, now_ms),
        Event::Forward { request } => learner.forward(request, effects),
        Event::Revalidate { session, timeout_ms } => learner.revalidate(session, timeout_ms, effects),
        // Asked for in a former role.
        _ => {}
    }
    Ok(())
}

fn tick(member: &mut Member, state: &mut MemberState, now_ms: u64, effects: &mut Vec<Effect>) -> Outcome {
    match state {
        MemberState::Looking(looking) => {
            if let Some(elected) = looking.election.tick(now_ms, &member.ground(), effects) {
                *state = take_role(member, looking, elected, now_ms, effects);
            }
            Ok(())
        }
        MemberState::Leading(leading) => leading.tick(member, now_ms, effects),
        MemberState::Learning(learner) => learner.tick(member, now_ms, effects),
    }
}

/// Election messages are answered in every role (Q25).
fn hear(
    member: &mut Member,
    state: &mut MemberState,
    from: ServerId,
    notification: &Notification,
    now_ms: u64,
    effects: &mut Vec<Effect>,
) -> Outcome {
    let own_state = match state {
        MemberState::Looking(looking) => {
            let heard = looking.election.hear(from, notification, now_ms, &member.ground(), effects);
            member.election_epoch = looking.election.clock();
            if let Some(elected) = heard {
                *state = take_role(member, looking, elected, now_ms, effects);
            }
            return Ok(());
        }
        MemberState::Leading(leading) => {
            if leading.is_outvoted(member, from, notification.leader) {
                return Err(Trouble::Outvoted);
            }
            ServerState::Leading
        }
        MemberState::Learning(_) if member.place.is_some() => ServerState::Following,
        // Nobody counts what an observer says (Q27). Apache's observers answer all the same, and its voters answer
        // every message of an observer: each answer is answered, as fast as the network allows.
        MemberState::Learning(_) => return Ok(()),
    };
    if notification.state == ServerState::Looking {
        let notification = member.settled_notification(own_state);
        effects.push(Effect::Notify { to: from, notification });
    }
    Ok(())
}

fn durable(member: &mut Member, state: &mut MemberState, zxid: Zxid, effects: &mut Vec<Effect>) -> Outcome {
    if !member.tail.flushed(zxid) {
        return Ok(());
    }
    match state {
        MemberState::Looking(_) => Ok(()),
        MemberState::Leading(leading) => leading.durable(member, effects),
        MemberState::Learning(learner) => {
            learner.durable(member, effects);
            Ok(())
        }
    }
}

fn up(
    member: &Member,
    state: &mut MemberState,
    link: LinkId,
    dialled: Option<ServerId>,
    now_ms: u64,
    effects: &mut Vec<Effect>,
) {
    match (state, dialled) {
        (MemberState::Looking(looking), None) if looking.parked.len() < LINKS_MAX => {
            looking.parked.push((link, None));
        }
        (MemberState::Leading(leading), None) => leading.up(link, now_ms, effects),
        (MemberState::Learning(learner), dialled @ Some(_)) => {
            learner.up(member, link, dialled, now_ms, effects);
        }
        // Dialled in a former role, or by a server that takes this one for its leader.
        (MemberState::Looking(_) | MemberState::Leading(_) | MemberState::Learning(_), _) => {
            effects.push(Effect::Close { link, because: Trouble::NotLeading });
        }
    }
}

fn down(member: &mut Member, state: &mut MemberState, link: LinkId, now_ms: u64) -> Outcome {
    match state {
        MemberState::Looking(looking) => {
            looking.parked.retain(|(parked, _)| *parked != link);
            Ok(())
        }
        MemberState::Leading(leading) => {
            leading.down(link, member);
            Ok(())
        }
        MemberState::Learning(learner) => learner.down(member, link, now_ms),
    }
}

fn take_packet(
    member: &mut Member,
    state: &mut MemberState,
    link: LinkId,
    packet: Packet,
    now_ms: u64,
    effects: &mut Vec<Effect>,
) -> Outcome {
    match state {
        MemberState::Looking(looking) => {
            let Some(parked) = looking.parked.iter_mut().find(|(parked, _)| *parked == link) else {
                return Ok(());
            };
            match packet {
                Packet::LearnerInfo(info) if parked.1.is_none() => parked.1 = Some(info),
                _ => {
                    looking.parked.retain(|(parked, _)| *parked != link);
                    effects.push(Effect::Close { link, because: Trouble::OutOfPhase });
                }
            }
            Ok(())
        }
        MemberState::Leading(leading) => leading.packet(member, link, packet, now_ms, effects),
        MemberState::Learning(learner) => learner.packet(member, link, packet, now_ms, effects),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn zxid(counter: u32) -> Zxid {
        Zxid::new(Epoch(0), counter)
    }

    fn submit(node: &mut Node, effects: &mut Vec<Effect>) -> Zxid {
        let zxid = node.next_zxid().expect("room in the epoch");
        node.step(0, Event::Submit { zxid, record: Bytes::from_static(b"record") }, effects);
        zxid
    }

    /// Danger: an answer leaves before its transaction is on disk.
    #[test]
    fn alone_commits_only_what_is_durable() {
        let mut node = Node::alone(zxid(41));
        let mut effects = Vec::new();
        for counter in 42..=44 {
            assert_eq!(submit(&mut node, &mut effects), zxid(counter));
        }
        assert_eq!(effects.len(), 3);
        assert!(effects.iter().all(|effect| matches!(effect, Effect::Append { .. })));
        assert_eq!(node.committed(), zxid(41));

        effects.clear();
        node.step(0, Event::Durable { epoch: Epoch(0), zxid: zxid(43) }, &mut effects);
        assert_eq!(effects, [Effect::Commit { through: zxid(43) }]);
        assert_eq!(node.committed(), zxid(43));

        // Late or repeated completions are no news.
        effects.clear();
        node.step(0, Event::Durable { epoch: Epoch(0), zxid: zxid(42) }, &mut effects);
        assert_eq!(effects, []);
    }

    /// Danger: the counter wraps into the epoch and order is lost (ZOOKEEPER-1277).
    #[test]
    fn alone_stops_at_the_end_of_its_epoch() {
        let mut node = Node::alone(zxid(u32::MAX - 1));
        let mut effects = Vec::new();
        assert_eq!(submit(&mut node, &mut effects), zxid(u32::MAX));
        assert_eq!(node.next_zxid(), None);
    }

    #[test]
    #[should_panic(expected = "submitted where")]
    fn a_gap_in_the_order_stops_the_server() {
        let mut node = Node::alone(zxid(1));
        node.step(0, Event::Submit { zxid: zxid(3), record: Bytes::new() }, &mut Vec::new());
    }

    #[test]
    #[should_panic(expected = "durable but only")]
    fn a_log_that_confirms_the_future_stops_the_server() {
        let mut node = Node::alone(zxid(1));
        node.step(0, Event::Durable { epoch: Epoch(0), zxid: zxid(2) }, &mut Vec::new());
    }
}
