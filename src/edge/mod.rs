//! The client cores: sockets, sessions' queues, reads and watches.
//!
//! [`core::Core`] is the state of one client core; it knows no socket, so tests drive it with bytes and a pipeline of
//! their own. [`ClientCore`] moves the bytes between it and the sockets, in turns of one thread over one epoll
//! instance; `accept` lets connections in. Nothing here is shared with another core but the lanes, the counters and
//! [`EdgeShared`].
//!
//! Absent on purpose: locks on the request path, timers per connection, and any knowledge of how an order is reached.

mod accept;
pub mod admission;
mod auth;
pub mod census;
mod chunks;
mod connection;
pub mod core;
mod deliver;
mod dispatch;
mod handshake;
mod lists;
mod outstanding;
mod reads;
mod socket;
mod throttle;
mod turn;
pub mod watches;
mod words;

#[cfg(test)]
mod order_tests;

pub use census::EdgeShared;
pub use turn::ClientCore;

use crate::{
    config::{Whitelist, ZooCfg, limits, protection::DigestAlgorithm},
    cores::{
        clock::Clock,
        lanes::{BellEnd, LaneReceiver, LaneSender},
        messages::{Delivery, Submission},
    },
    status::{CoreCounters, environment},
};
use std::{net::TcpListener, sync::Arc};
use zkfast_tree::Reader;

/// Everything that a client core is made of.
pub struct EdgeCore {
    /// Its index, from 0.
    pub index: u16,
    /// What all client cores know.
    pub options: Arc<EdgeOptions>,
    /// Its own listener on the client port (SO_REUSEPORT).
    pub listener: TcpListener,
    /// Its view of the tree.
    pub reader: Reader,
    /// To the pipeline.
    pub submissions: LaneSender<Submission>,
    /// From the pipeline.
    pub deliveries: LaneReceiver<Delivery>,
    /// What the pipeline rings when this core sleeps.
    pub bell: BellEnd,
    /// Its figures.
    pub counters: Arc<CoreCounters>,
    /// What the client cores share.
    pub shared: Arc<EdgeShared>,
}

/// What a client core needs to know of the configuration.
#[derive(Clone, Debug)]
pub struct EdgeOptions {
    /// Number of client cores.
    pub client_cores: usize,
    /// Whether clients are served from the start. A member of an ensemble waits until it has a role.
    pub serves_from_start: bool,
    /// Whether a core may look for requests for a moment before it sleeps: it has a CPU and a thread of its own.
    pub looks_out: bool,
    /// The server's monotonic clock.
    pub clock: Clock,
    /// Length of a tick, milliseconds.
    pub tick_ms: u32,
    /// `jute.maxbuffer`, bytes (R1).
    pub frame_bytes_limit: usize,
    /// Shortest session timeout, milliseconds (C5).
    pub session_timeout_ms_min: i32,
    /// Longest session timeout, milliseconds.
    pub session_timeout_ms_max: i32,
    /// `maxClientCnxns`: connections of one address, 0 for any number (R3).
    pub connections_per_host_limit: u32,
    /// `maxCnxns`: connections in all, 0 for any number (R4).
    pub connections_limit: u32,
    /// Connections in all for which there are file descriptors (R6).
    pub connections_by_files: u32,
    /// How long a connection may be without a session, milliseconds (S14).
    pub sessionless_timeout_ms: u64,
    /// Unanswered requests that one core holds (O40).
    pub outstanding_limit: usize,
    /// Which four-letter words are answered.
    pub whitelist: Whitelist,
    /// `skipACL=yes` (A17).
    pub skip_acl: bool,
    /// Whether scheme `digest` exists (A2).
    pub digest_enabled: bool,
    /// How its digests are made (A4).
    pub digest_algorithm: DigestAlgorithm,
    /// `user:digest` of the one who may do everything (A6).
    pub super_digest: Option<String>,
    /// Schemes one of which a client must have proved before anything else; empty for none (A18).
    pub enforced_schemes: Vec<String>,
    /// `largeRequestThreshold`: requests of more bytes are large (R2).
    pub large_request_bytes: usize,
    /// `largeRequestMaxBytes`: bytes of large requests that all client cores hold at once.
    pub large_requests_bytes_max: usize,
    /// `throttled_op_wait_time`: a request that was held back for longer is answered -127 (R8), milliseconds.
    pub throttled_wait_ms: u64,
    /// `request_stale_latency_check`: a connection is closed if its requests were held back for longer than its
    /// session's timeout (R8).
    pub drops_stale: bool,
}

impl EdgeOptions {
    /// From the configuration.
    pub fn new(cfg: &ZooCfg, client_cores: usize, looks_out: bool, clock: Clock) -> Self {
        let ms = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        Self {
            client_cores,
            serves_from_start: !cfg.is_distributed(),
            looks_out,
            clock,
            tick_ms: cfg.tick_ms,
            frame_bytes_limit: cfg.frame_bytes_limit as usize,
            session_timeout_ms_min: ms(cfg.session_timeout_ms_min),
            session_timeout_ms_max: ms(cfg.session_timeout_ms_max),
            connections_per_host_limit: cfg.connections_per_host_limit,
            connections_limit: cfg.connections_limit,
            connections_by_files: connections_by_files(environment::max_files(), client_cores),
            sessionless_timeout_ms: cfg.sessionless_timeout_ms.into(),
            outstanding_limit: outstanding_limit(cfg, client_cores),
            whitelist: cfg.whitelist.clone(),
            skip_acl: cfg.skip_acl,
            digest_enabled: cfg.protection.digest_enabled,
            digest_algorithm: cfg.protection.digest_algorithm,
            super_digest: cfg.super_digest.clone(),
            enforced_schemes: cfg.protection.enforced_schemes.clone(),
            large_request_bytes: cfg.protection.large_request_bytes.unwrap_or(usize::MAX),
            large_requests_bytes_max: cfg.protection.large_requests_bytes_max,
            throttled_wait_ms: cfg.protection.throttled_wait_ms.unwrap_or(u64::MAX),
            drops_stale: cfg.protection.drops_stale,
        }
    }
}

/// What a limit of `files` open files leaves for connections, at least one.
fn connections_by_files(files: u64, client_cores: usize) -> u32 {
    let reserved = limits::FILES_RESERVED + limits::FILES_PER_CORE * client_cores as u64;
    u32::try_from(files.saturating_sub(reserved).max(1)).unwrap_or(u32::MAX)
}

/// Unanswered requests that one client core holds: its share of `request_throttle_max_requests` (R8), if the operator
/// set that, and no more than `globalOutstandingLimit` (O40).
fn outstanding_limit(cfg: &ZooCfg, client_cores: usize) -> usize {
    /// Apache's default of `globalOutstandingLimit`: who has not chosen another one gets ours.
    const APACHE_OUTSTANDING_DEFAULT: u32 = 1000;
    let limit = match cfg.outstanding_limit {
        APACHE_OUTSTANDING_DEFAULT => limits::OUTSTANDING_PER_CORE,
        chosen => chosen as usize,
    };
    let share = cfg.protection.requests_max.map_or(usize::MAX, |most| most.div_ceil(client_cores));
    limit.min(share)
}
