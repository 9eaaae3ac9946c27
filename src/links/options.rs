//! What the links are told at their start, and why they may refuse to.

use super::names::{Names, SystemNames};
use crate::config::{
    ensemble::{EnsembleSettings, HostPort, PeerAddress},
    limits,
};
use std::{collections::BTreeMap, io, sync::Arc, time::Duration};
use zkfast_wire::ServerId;

/// Where each server listens for the others; at least one address each.
pub type PeerAddresses = BTreeMap<ServerId, Vec<PeerAddress>>;

/// Settings of the links of one server.
#[derive(Clone)]
pub struct LinkOptions {
    /// This server's `myid`.
    pub me: ServerId,
    /// Everybody, this server included.
    pub addresses: PeerAddresses,
    /// `quorumListenOnAllIPs`: both ports listen on every address of the machine.
    pub listen_on_all: bool,
    /// `cnxTimeout`: how long opening an election connection may take, the lookup of the name included (row Q17).
    pub election_dial_limit: Duration,
    /// How long a caller on the election port may take to say who it is: `quorumCnxnTimeoutMs`, else syncLimit (Q17).
    pub greeting_limit: Duration,
    /// How long opening a learner connection may take: syncLimit, and no longer than connectToLearnerMasterLimit, which is
    /// for all dials together (row Q46). Apache gives all of it to the first dial; a second one sends another SYN.
    pub leader_dial_limit: Duration,
    /// How long an image may make no progress: initLimit.
    pub image_silence_limit: Duration,
    /// `tcpKeepAlive`: SO_KEEPALIVE on election connections. Learner connections always have it.
    pub keep_alive: bool,
    /// How long sent bytes may stay unacknowledged before TCP gives the connection up: initLimit, at least 10 s. Without
    /// it a peer that lost its power is "connected" for a quarter of an hour.
    pub unacknowledged_limit: Duration,
    /// `electionPortBindRetry`: tries to bind a port, a second apart; 0 tries for ever (Q17).
    pub bind_tries_max: u32,
    /// Bytes of the data of one packet on a learner link. Larger: the link is closed.
    pub packet_bytes_max: usize,
    /// Bytes that may wait for one learner. More: the link is closed.
    pub queue_bytes_max: usize,
    /// Learner connections at once. More: closed as they come.
    pub links_max: usize,
    /// Who looks up names.
    pub names: Arc<dyn Names>,
}

impl LinkOptions {
    /// Apache's defaults for a member of this ensemble, with ticks of `tick_ms`.
    pub fn new(
        me: ServerId,
        addresses: PeerAddresses,
        tick_ms: u32,
        init_limit_ticks: u32,
        sync_limit_ticks: u32,
    ) -> Self {
        let ticks = |count: u32| milliseconds(tick_ms) * count.max(1);
        Self {
            me,
            addresses,
            listen_on_all: false,
            election_dial_limit: milliseconds(5000),
            greeting_limit: ticks(sync_limit_ticks),
            leader_dial_limit: ticks(sync_limit_ticks),
            image_silence_limit: ticks(init_limit_ticks),
            keep_alive: false,
            unacknowledged_limit: ticks(init_limit_ticks).max(milliseconds(10_000)),
            bind_tries_max: 3,
            packet_bytes_max: limits::LINK_PACKET_BYTES,
            queue_bytes_max: limits::LINK_QUEUE_BYTES,
            links_max: limits::QUORUM_LINKS_MAX,
            names: Arc::new(SystemNames),
        }
    }

    /// What the configuration says about the links. `frame_bytes_limit` is `jute.maxbuffer`.
    pub fn of(settings: &EnsembleSettings, frame_bytes_limit: u32) -> Self {
        let (tick_ms, init, sync) = (settings.tick_ms, settings.init_limit_ticks, settings.sync_limit_ticks);
        Self {
            listen_on_all: settings.listens_on_all,
            election_dial_limit: milliseconds(settings.election_dial_timeout_ms.max(1)),
            keep_alive: settings.election_keep_alive,
            greeting_limit: milliseconds(settings.election_handshake_timeout_ms.max(1)),
            leader_dial_limit: milliseconds(tick_ms) * sync.min(settings.connect_limit_ticks).max(1),
            bind_tries_max: settings.bind_tries,
            // Java reads up to twice jute.maxbuffer between servers (`jute.maxbuffer.extrasize`).
            packet_bytes_max: limits::LINK_PACKET_BYTES.max(2 * frame_bytes_limit as usize),
            ..Self::new(settings.me, settings.addresses.clone(), tick_ms, init, sync)
        }
    }
}

fn milliseconds(count: u32) -> Duration {
    Duration::from_millis(count.into())
}

impl std::fmt::Debug for LinkOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkOptions").field("me", &self.me).finish_non_exhaustive()
    }
}

/// Why this server cannot take part in its ensemble. Apache ends with exit code 14 where a port cannot be bound (Q17).
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The configuration has no line for this server.
    #[error("server.{0} is not among the servers of the configuration: add its line, or correct myid")]
    NotAMember(ServerId),
    /// A port could not be bound, however often it was tried.
    #[error(
        "cannot listen on {address} for {purpose} after {tries} tries: {reason}. Is another server running there? If the \
         address is not one of this machine's, set quorumListenOnAllIPs=true"
    )]
    Bind {
        /// What the configuration says.
        address: HostPort,
        /// Which connections were to come there.
        purpose: &'static str,
        /// How often it was tried.
        tries: u32,
        /// What the system said the last time.
        reason: String,
    },
    /// The kernel refuses what every kernel gives.
    #[error("cannot wait for sockets: {0}")]
    Poll(#[source] io::Error),
}
