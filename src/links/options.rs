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
    /// `electionPortBindRetry`: tries to bind a port, a second apart; 0 tries for ever (Q17). While this server's own name
    /// does not resolve there is nothing to bind, and nothing is counted.
    pub bind_tries_max: u32,
    /// Bytes of the data of one packet on a learner link. Larger: the link is closed.
    pub packet_bytes_max: usize,
    /// Bytes of packets that are not whole yet, of all learners together. More: the link that has most of them is closed.
    pub kept_bytes_max: usize,
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
            kept_bytes_max: limits::LINKS_KEPT_BYTES,
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
            kept_bytes_max: limits::LINKS_KEPT_BYTES.max(16 * frame_bytes_limit as usize),
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

/// Exit code of a server that cannot have a port of its ensemble, as Apache's (Q17, O6).
pub const EXIT_CODE_OF_PORTS: u8 = 14;

/// Why this server cannot take part in its ensemble.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The configuration has no line for this server.
    #[error("server.{0} is not among the servers of the configuration: add its line, or correct myid")]
    NotAMember(ServerId),
    /// A port could not be bound, however often it was tried.
    #[error(
        "cannot listen on {address} for {purpose} after {tries} tries, a second apart (electionPortBindRetry): {reason}. It \
         is the {place} port of the line server.{me}"
    )]
    Bind {
        /// Whose line it is: this server's.
        me: ServerId,
        /// What the configuration says.
        address: HostPort,
        /// Which connections were to come there.
        purpose: &'static str,
        /// Which of the two ports of the line.
        place: &'static str,
        /// How often it was tried.
        tries: u32,
        /// What the system said the last time.
        reason: String,
    },
    /// The kernel refuses what every kernel gives.
    #[error("cannot wait for sockets: {0}")]
    Poll(#[source] io::Error),
}

impl LinkError {
    /// What to do about it, in whole sentences.
    pub const fn cure(&self) -> &'static str {
        match self {
            Self::Bind { .. } => {
                "Stop whoever has it (ss -ltnp shows them), or change this server's server.<id> line on every server of \
                 the ensemble. The host of that line must be an address of this machine; behind NAT, set \
                 quorumListenOnAllIPs=true."
            }
            Self::NotAMember(_) | Self::Poll(_) => "The server cannot run.",
        }
    }

    /// What the process ends with.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Bind { .. } => EXIT_CODE_OF_PORTS,
            Self::NotAMember(_) | Self::Poll(_) => 1,
        }
    }
}
