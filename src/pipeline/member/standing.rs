//! What status commands tell of a member: its role and what goes with it (rows O72, O74, O76).

use super::Pipeline;
use crate::{
    pipeline::Duty,
    status::picture::{LeaderPicture, Mode, QuorumPicture, Spans},
};
use zkfast_wire::ensemble::PeerAddress;
use zkfast_zab::Role;

/// When things began, milliseconds of the server's clock.
#[derive(Debug)]
pub(super) struct Standing {
    /// The present search for a leader, or the last one.
    looking_ms: u64,
    /// The present role.
    served_ms: u64,
    is_looking: bool,
    searches: u64,
    elections: Spans,
    elections_won: Spans,
    pub(super) diffs_sent: u64,
    pub(super) images_sent: u64,
    pub(super) revalidations: u64,
}

impl Standing {
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            looking_ms: now_ms,
            served_ms: now_ms,
            is_looking: true,
            searches: 0,
            elections: Spans::default(),
            elections_won: Spans::default(),
            diffs_sent: 0,
            images_sent: 0,
            revalidations: 0,
        }
    }

    /// A search for a leader begins.
    pub(super) const fn begin_search(&mut self) {
        self.searches += 1;
    }
}

impl Pipeline {
    /// A role has come to stand.
    pub(super) fn begin_standing(&mut self) {
        let now_ms = self.clock.now_ms();
        let leads = self.duty == Duty::Orders;
        let standing = &mut self.the_member().standing;
        standing.served_ms = now_ms;
        if std::mem::take(&mut standing.is_looking) {
            let election_ms = now_ms.saturating_sub(standing.looking_ms);
            standing.elections.note(election_ms);
            if leads {
                standing.elections_won.note(election_ms);
            }
        }
        self.show_standing();
    }

    /// Shows the role to whoever asks. Once a tick, and when it changes.
    pub(super) fn show_standing(&mut self) {
        let now_ms = self.clock.now_ms();
        let role = self.node.role();
        let is_served = self.duty != Duty::Idle;
        let member = self.member.as_mut().expect("a member");
        if !is_served && !member.standing.is_looking {
            member.standing.is_looking = true;
            member.standing.looking_ms = now_ms;
        }
        let mode = match role {
            Role::Leading { .. } => Mode::Leader,
            Role::Following { .. } => Mode::Follower,
            Role::Observing { .. } => Mode::Observer,
            _ if member.is_read_only => Mode::ReadOnly,
            _ => Mode::Standalone,
        };
        let peer_state = match role {
            Role::Leading { established: true, .. } => "leading - broadcast",
            Role::Leading { .. } => "leading - discovery",
            Role::Following { active: true, .. } => "following - broadcast",
            Role::Following { .. } => "following - synchronization",
            Role::Observing { active: true, .. } => "observing - broadcast",
            Role::Observing { .. } => "observing - synchronization",
            _ => "leader election",
        };
        let ensemble = &member.options.config.ensemble;
        let me = ensemble.members.iter().find(|other| other.id == member.options.config.server);
        let ports = |port: fn(&PeerAddress) -> u16| {
            let all = me.into_iter().flat_map(|me| &me.addresses).map(|address| port(address).to_string());
            all.collect::<Vec<_>>().join("|")
        };
        let observes = me.is_some_and(|me| me.observer);
        let leader = match role {
            Role::Leading { synced_followers, .. } => {
                let learners = self.node.learners();
                Some(LeaderPicture {
                    learners: learners.connected as u64,
                    synced_followers: synced_followers as u64,
                    synced_non_voting_followers: learners.synced_non_voting_followers as u64,
                    pending_syncs: learners.pending_syncs as u64,
                    leader_uptime_ms: if is_served { now_ms - member.standing.served_ms } else { 0 },
                })
            }
            _ => None,
        };
        let (follower_syncs, observer_syncs) = member.latency.syncs();
        let (diffs_at_a_time, images_at_a_time) = member.latency.at_a_time();
        let mut learners = member.links.learner_queues();
        member.latency.add_acks(&mut learners);
        let picture = QuorumPicture {
            peer_state: peer_state.to_owned(),
            quorum_size: ensemble.members.iter().filter(|member| !member.observer).count() as u64,
            init_limit_ticks: u32::try_from(member.options.config.init_limit_ticks).unwrap_or(u32::MAX),
            sync_limit_ticks: u32::try_from(member.options.config.sync_limit_ticks).unwrap_or(u32::MAX),
            quorum_ports: ports(|address| address.quorum_port),
            election_ports: ports(|address| address.election_port),
            observes,
            membership: ensemble.to_string(),
            synced_observers: self.node.learners().synced_observers as u64,
            leader,
            observed: match role {
                Role::Observing { leader, .. } => Some(leader),
                _ => None,
            },
            searches: member.standing.searches,
            elections: member.standing.elections,
            elections_won: member.standing.elections_won,
            diffs_sent: member.standing.diffs_sent,
            images_sent: member.standing.images_sent,
            revalidations: member.standing.revalidations,
            epoch: self.node.epoch().0,
            follower_syncs,
            observer_syncs,
            diffs_at_a_time: diffs_at_a_time.read(),
            images_at_a_time: images_at_a_time.read(),
            learners,
        };
        member.options.board.set_quorum(mode, picture);
    }
}
