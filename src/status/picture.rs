//! The server at one moment, as plain values: everything that status commands print.
//!
//! [`super::Board::picture`] fills in the numbers. Lists (connections, watches, sessions) live with the cores that own
//! them; whoever answers a command that needs lists asks those cores and puts the answers here
//! ([`super::four_letter::Needs`]).

use std::net::SocketAddr;
use std::path::PathBuf;

use zkfast_wire::{ServerId, SessionId, Zxid};

use super::counters::{CoreCounters, PipelineCounters};
use super::histogram::Reading;

/// The role that `srvr` and `zkServer.sh status` tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// Runs alone.
    #[default]
    Standalone,
    /// Leads an ensemble.
    Leader,
    /// Follows a leader and votes.
    Follower,
    /// Follows a leader and does not vote.
    Observer,
    /// Serves reads without an ensemble.
    ReadOnly,
}

impl Mode {
    /// Apache's word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Observer => "observer",
            Self::ReadOnly => "read-only",
        }
    }
}

/// The server at one moment.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// False while looking for a leader, starting or stopping: most words then say so and nothing else.
    pub serving: bool,
    /// Its role.
    pub mode: Mode,
    /// The last transaction applied.
    pub last_zxid: Zxid,
    /// Znodes, those of /zookeeper included.
    pub znodes: u64,
    /// Ephemeral znodes.
    pub ephemerals: u64,
    /// Bytes of paths and data.
    pub data_bytes: u64,
    /// Sessions.
    pub sessions: u64,
    /// Sessions that only this server knows.
    pub local_sessions: u64,
    /// 1 while writes are refused because the log's disk is full, else 0.
    pub log_space_low: u64,
    /// Connections open now.
    pub connections_open: u64,
    /// Requests taken in and not yet answered.
    pub outstanding: u64,
    /// Watches set.
    pub watches_set: u64,
    /// Milliseconds since the start.
    pub uptime_ms: u64,
    /// Open file descriptors, and how many there may be.
    pub files: (u64, u64),
    /// What was counted since the start or the last `srst`.
    pub totals: Totals,
    /// Last, least and greatest reply in bytes, -1 if there was none.
    pub response_bytes: [i64; 3],
    /// Last, least and greatest transaction in bytes, -1 if there was none.
    pub record_bytes: [i64; 3],
    /// The configuration in use.
    pub settings: Settings,
    /// How this process began, once it is through with that.
    pub start: Option<StartPicture>,
    /// Bytes in data directory and log directory. Only filled in for the words that print them.
    pub directory_bytes: (u64, u64),
    /// What only a member of an ensemble has.
    pub quorum: Option<QuorumPicture>,
    /// All connections: for `stat` and `cons`.
    pub connections: Vec<ConnectionPicture>,
    /// Paths with data or persistent watches, by session: for `wchs`, `wchc` and `wchp`. Apache leaves child watches
    /// out of these words (`DataTree.dumpWatches`), so they stay out here.
    pub watches: Vec<(SessionId, Vec<String>)>,
    /// Sessions and ephemerals: for `dump`.
    pub sessions_dump: SessionsDump,
    /// Digests of the tree, each with the transaction behind which it had it, oldest first: for `hash`.
    pub digests: Vec<(Zxid, i64)>,
    /// What `stmk` said last.
    pub trace_mask: i64,
}

/// The configuration as `conf` shows it.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Port for clients, -1 if there is none.
    pub client_port: i32,
    /// Absolute, `version-2` included.
    pub data_dir: PathBuf,
    /// Absolute, `version-2` included.
    pub data_log_dir: PathBuf,
    /// Milliseconds.
    pub tick_ms: u32,
    /// Per client address, 0 is unlimited.
    pub connections_per_host_limit: u32,
    /// Milliseconds.
    pub session_timeout_ms_min: u32,
    /// Milliseconds.
    pub session_timeout_ms_max: u32,
    /// -1 leaves it to the system.
    pub client_listen_backlog: i32,
    /// `myid`, 0 for a standalone server.
    pub server_id: ServerId,
}

/// What it took to load the state at the start.
#[derive(Clone, Copy, Debug)]
pub struct StartPicture {
    /// All of it, milliseconds.
    pub whole_ms: u64,
    /// The snapshot alone, milliseconds.
    pub snapshot_ms: u64,
    /// Transactions of the log behind it.
    pub records: u64,
}

/// What a member of an ensemble tells beyond a standalone server.
#[derive(Clone, Debug, Default)]
pub struct QuorumPicture {
    /// Such as `leading - broadcast` or `following - synchronization - diff`.
    pub peer_state: String,
    /// Voters.
    pub quorum_size: u64,
    /// Ticks.
    pub init_limit_ticks: u32,
    /// Ticks.
    pub sync_limit_ticks: u32,
    /// Ports of the elections, joined with `|` if there are several.
    pub election_ports: String,
    /// Ports of the learner links, joined with `|` if there are several.
    pub quorum_ports: String,
    /// Does it only observe?
    pub observes: bool,
    /// The configuration text (row Q60).
    pub membership: String,
    /// Observers in sync with this server.
    pub synced_observers: u64,
    /// What only the leader has.
    pub leader: Option<LeaderPicture>,
    /// Whom it observes.
    pub observed: Option<ServerId>,
    /// Searches for a leader.
    pub searches: u64,
    /// From the loss of a role, or the start, until the next one stood.
    pub elections: Spans,
    /// Those of them after which this server led.
    pub elections_won: Spans,
    /// Learners that were sent records, or were told to cut theirs, when they came.
    pub diffs_sent: u64,
    /// Learners that were sent an image.
    pub images_sent: u64,
    /// Sessions that a learner asked about.
    pub revalidations: u64,
    /// The epoch that this server has accepted last.
    pub epoch: i64,
    /// As a follower: from when its leader took it in until it was in step.
    pub follower_syncs: Spans,
    /// The same as an observer.
    pub observer_syncs: Spans,
    /// Learners that were being sent records when one more was, or had been.
    pub diffs_at_a_time: Reading,
    /// The same of images.
    pub images_at_a_time: Reading,
    /// What was measured of each learner, and of this server's own acknowledgements, while it led.
    pub learners: Vec<LearnerPicture>,
}

/// What a leader measures of one server.
#[derive(Clone, Debug, Default)]
pub struct LearnerPicture {
    /// Which.
    pub server: ServerId,
    /// Packets that waited for its socket, looked at each time when something was sent.
    pub queued_packets: Reading,
    /// How long one in a thousand packets waited, milliseconds.
    pub queue_ms: Reading,
    /// From the order of one in a thousand transactions to its acknowledgement, milliseconds.
    pub ack_ms: Reading,
}

/// Times in milliseconds, summed up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spans {
    /// How many.
    pub count: u64,
    /// All together.
    pub sum_ms: u64,
    /// The shortest, 0 if there was none.
    pub min_ms: u64,
    /// The longest.
    pub max_ms: u64,
}

impl Spans {
    /// Adds one.
    pub fn note(&mut self, ms: u64) {
        self.min_ms = if self.count == 0 { ms } else { self.min_ms.min(ms) };
        self.max_ms = self.max_ms.max(ms);
        self.count += 1;
        self.sum_ms += ms;
    }
}

/// What only a leader tells.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeaderPicture {
    /// Learners connected.
    pub learners: u64,
    /// Followers in sync, voting or not.
    pub synced_followers: u64,
    /// Those that do not vote in the current configuration.
    pub synced_non_voting_followers: u64,
    /// `sync` requests that wait.
    pub pending_syncs: u64,
    /// Milliseconds since it began to lead.
    pub leader_uptime_ms: u64,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct ConnectionPicture {
    /// The client's end.
    pub peer: SocketAddr,
    /// Java's interest ops: 1 reads, 4 writes, 0 neither (a connection that asked a four-letter word).
    pub interest: u32,
    /// Requests not yet answered.
    pub outstanding: u64,
    /// Packets received.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
    /// What there is once it has a session.
    pub session: Option<SessionPicture>,
}

/// The session of a connection.
#[derive(Clone, Debug)]
pub struct SessionPicture {
    /// Its id.
    pub id: SessionId,
    /// Four letters for the last operation ([`super::four_letter::operation_name`]).
    pub last_operation: &'static str,
    /// When this connection was made, in milliseconds since 1970.
    pub established_ms: i64,
    /// Negotiated timeout in milliseconds.
    pub timeout_ms: u32,
    /// Last xid that the client chose; negative ones are not shown.
    pub last_xid: i64,
    /// Zxid of the last reply; -1 before the first.
    pub last_zxid: Zxid,
    /// When the last reply was written, in milliseconds of the monotonic clock.
    pub last_response_ms: u64,
    /// Latency in milliseconds: last, least, mean, greatest.
    pub latency_ms: [u64; 4],
}

/// Sessions and ephemerals for `dump`.
#[derive(Clone, Debug, Default)]
pub struct SessionsDump {
    /// On a learner, which expires none: the ensemble's sessions and their timeouts in milliseconds, by id.
    pub global: Option<Vec<(SessionId, i32)>>,
    /// When buckets of sessions expire, in milliseconds since 1970, and their sessions. Soonest first.
    pub expiring: Vec<(i64, Vec<SessionId>)>,
    /// Ephemeral paths by session.
    pub ephemerals: Vec<(SessionId, Vec<String>)>,
}

/// Everything that only grows: what `srst` starts anew, as a difference of two of these.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// By counter, in the order of [`Totals::NAMES`].
    counts: [u64; Totals::NAMES.len()],
    /// Latency of reads in nanoseconds.
    pub read_latency: Reading,
    /// Latency of writes in nanoseconds.
    pub update_latency: Reading,
    /// Flushes in nanoseconds.
    pub flush_latency: Reading,
    /// Records per flush.
    pub flush_records: Reading,
    /// Snapshots in nanoseconds.
    pub snapshot_latency: Reading,
    /// In the order of [`PipelineCounters::LATENCIES`], milliseconds.
    pub transaction_latencies: [Reading; PipelineCounters::LATENCIES.len()],
}

impl Totals {
    /// The plain counters by their names in `mntr`.
    pub const NAMES: [&'static str; 29] = [
        "packets_received",
        "packets_sent",
        "bytes_received_count",
        "response_bytes",
        "watch_bytes",
        "connection_request_count",
        "connection_revalidate_count",
        "connection_rejected",
        "connection_drop_count",
        "sessionless_connections_expired",
        "large_requests_rejected",
        "throttled_ops",
        "stale_requests_dropped",
        "unsuccessful_handshake",
        "auth_failed_count",
        "node_created_watch_count",
        "node_deleted_watch_count",
        "node_changed_watch_count",
        "node_children_watch_count",
        "stale_sessions_expired",
        "digest_mismatches_count",
        "proposal_count",
        "commit_count",
        "fsync_threshold_exceed_count",
        "snapshot_error_count",
        "log_space_refused_count",
        "leadership_given_up_count",
        "learner_proposal_received_count",
        "learner_commit_received_count",
    ];

    /// Adds up what all cores counted since the process started.
    pub fn read<'a>(cores: impl Iterator<Item = &'a CoreCounters>, pipeline: &PipelineCounters) -> Self {
        let mut totals = Self {
            flush_latency: pipeline.flush_latency.read(),
            flush_records: pipeline.flush_records.read(),
            snapshot_latency: pipeline.snapshot_latency.read(),
            transaction_latencies: pipeline.latencies().map(|latency| latency.read()),
            ..Self::default()
        };
        for core in cores {
            let fired = &core.watches_fired;
            let counters = [
                &core.packets_received,
                &core.packets_sent,
                &core.bytes_received,
                &core.bytes_sent,
                &core.watch_bytes,
                &core.connection_requests,
                &core.session_renewals,
                &core.connections_rejected,
                &core.connections_dropped,
                &core.sessionless_expired,
                &core.large_requests_rejected,
                &core.throttled,
                &core.stale_requests_dropped,
                &core.unsuccessful_handshakes,
                &core.auth_failed,
                &fired.created,
                &fired.deleted,
                &fired.changed,
                &fired.children,
            ];
            for (total, counter) in totals.counts.iter_mut().zip(counters) {
                *total += counter.get();
            }
            totals.read_latency.add(&core.read_latency.read());
            totals.update_latency.add(&core.update_latency.read());
        }
        let counters = [
            &pipeline.sessions_expired,
            &pipeline.digest_mismatches,
            &pipeline.appended,
            &pipeline.committed,
            &pipeline.flushes_slow,
            &pipeline.snapshot_errors,
            &pipeline.refused_for_space,
            &pipeline.leaderships_given_up,
            &pipeline.learner_proposals,
            &pipeline.learner_commits,
        ];
        let start = totals.counts.len() - counters.len();
        for (total, counter) in totals.counts[start..].iter_mut().zip(counters) {
            *total = counter.get();
        }
        totals
    }

    /// What was counted after `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut counts = self.counts;
        for (count, before) in counts.iter_mut().zip(earlier.counts) {
            *count = count.wrapping_sub(before);
        }
        Self {
            counts,
            read_latency: self.read_latency.since(&earlier.read_latency),
            update_latency: self.update_latency.since(&earlier.update_latency),
            flush_latency: self.flush_latency.since(&earlier.flush_latency),
            flush_records: self.flush_records.since(&earlier.flush_records),
            snapshot_latency: self.snapshot_latency.since(&earlier.snapshot_latency),
            transaction_latencies: std::array::from_fn(|index| {
                self.transaction_latencies[index].since(&earlier.transaction_latencies[index])
            }),
        }
    }

    /// Packets received.
    pub fn received(&self) -> u64 {
        self.counts[0]
    }

    /// Packets sent.
    pub fn sent(&self) -> u64 {
        self.counts[1]
    }

    /// All counters with their names.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::NAMES.into_iter().zip(self.counts)
    }

    /// Latency of all requests in nanoseconds.
    pub fn latency(&self) -> Reading {
        let mut all = self.read_latency.clone();
        all.add(&self.update_latency);
        all
    }
}
