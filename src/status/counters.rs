//! What each core counts. One writer each, Relaxed loads and stores, read by whoever answers `mntr`.
//!
//! Counters only grow; `srst` is a subtraction on the reader's side ([`super::picture::Totals`]). Each block is
//! aligned so that no two cores write to one cache line (128 bytes: adjacent lines are fetched in pairs).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::histogram::Histogram;

/// A number that only grows, written by one thread.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more. Only the owning thread may call this.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// `count` more. Only the owning thread may call this.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// The number now, from any thread.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down, written by one thread.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// One more. Only the owning thread may call this.
    #[inline]
    pub fn increment(&self) {
        self.0.store(self.0.load(Relaxed) + 1, Relaxed);
    }

    /// One less. Only the owning thread may call this.
    #[inline]
    pub fn decrement(&self) {
        let now = self.0.load(Relaxed);
        assert!(now > 0, "a gauge went below zero");
        self.0.store(now - 1, Relaxed);
    }

    /// This much. Only the owning thread may call this.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The number now, from any thread.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Last, least and greatest of a size in bytes, written by one thread; extremes are forgotten by `srst`.
#[derive(Debug)]
pub struct SizeGauge {
    last: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
}

impl Default for SizeGauge {
    fn default() -> Self {
        let none = || AtomicU64::new(u64::MAX);
        Self { last: none(), min: none(), max: none() }
    }
}

impl SizeGauge {
    /// Notes one size. Only the owning thread may call this.
    #[inline]
    pub fn note(&self, bytes: u64) {
        self.last.store(bytes, Relaxed);
        if bytes < self.min.load(Relaxed) {
            self.min.store(bytes, Relaxed);
        }
        let max = self.max.load(Relaxed);
        if max == u64::MAX || bytes > max {
            self.max.store(bytes, Relaxed);
        }
    }

    /// Last, least and greatest; -1 each if there was none (as Apache's `BufferStats` says it).
    pub fn read(&self) -> [i64; 3] {
        // u64::MAX, the mark for none, is -1.
        [&self.last, &self.min, &self.max].map(|size| size.load(Relaxed) as i64)
    }

    /// Forgets all, from any thread.
    pub fn reset(&self) {
        for size in [&self.last, &self.min, &self.max] {
            size.store(u64::MAX, Relaxed);
        }
    }
}

/// The numbers of one client core. Lives as long as the process, in an `Arc` shared with every other core.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct CoreCounters {
    /// Requests, pings and handshakes received.
    pub packets_received: Counter,
    /// Replies and watch events sent.
    pub packets_sent: Counter,
    /// Bytes of requests, length prefixes included.
    pub bytes_received: Counter,
    /// Bytes of replies and events, length prefixes included.
    pub bytes_sent: Counter,
    /// Bytes of watch events.
    pub watch_bytes: Counter,
    /// Connections open now, with and without a session.
    pub connections: Gauge,
    /// Requests taken in and not yet answered.
    pub outstanding: Gauge,
    /// Watches set now (a path watched by a connection counts once a kind).
    pub watches: Gauge,
    /// New sessions asked for.
    pub connection_requests: Counter,
    /// Sessions that came back on a new connection.
    pub session_renewals: Counter,
    /// Connections refused because of a limit.
    pub connections_rejected: Counter,
    /// Connections that the server closed (bad input, expired, slow reader, limits).
    pub connections_dropped: Counter,
    /// Connections closed because no session was asked for in time.
    pub sessionless_expired: Counter,
    /// Requests above `jute.maxbuffer`, and large ones above `largeRequestMaxBytes`.
    pub large_requests_rejected: Counter,
    /// Requests answered -127 because they were held back for too long (R8).
    pub throttled: Counter,
    /// Connections closed because what they asked was held back for longer than their timeout (R8).
    pub stale_requests_dropped: Counter,
    /// Handshakes that were not ZooKeeper's.
    pub unsuccessful_handshakes: Counter,
    /// Authentications that failed.
    pub auth_failed: Counter,
    /// Watch events delivered, by kind.
    pub watches_fired: WatchesFired,
    /// From frame read to reply written, requests answered from this core's view.
    pub read_latency: Histogram,
    /// From frame read to reply written, requests that went through the log.
    pub update_latency: Histogram,
    /// Sizes of replies.
    pub response_bytes: SizeGauge,
}

/// Watch events by what happened.
#[derive(Debug, Default)]
pub struct WatchesFired {
    /// NodeCreated.
    pub created: Counter,
    /// NodeDeleted.
    pub deleted: Counter,
    /// NodeDataChanged.
    pub changed: Counter,
    /// NodeChildrenChanged.
    pub children: Counter,
}

/// The numbers of the pipeline core.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PipelineCounters {
    /// The last transaction applied, as the bits of its zxid.
    pub last_applied: Gauge,
    /// Znodes in the tree.
    pub znodes: Gauge,
    /// Ephemeral znodes in the tree.
    pub ephemerals: Gauge,
    /// Bytes of paths and data, roughly.
    pub data_bytes: Gauge,
    /// Sessions in the tree.
    pub sessions: Gauge,
    /// Sessions that only this server knows (row S15).
    pub local_sessions: Gauge,
    /// 1 while the disk has no room for the next log segment and writes are refused, else 0.
    pub log_space_low: Gauge,
    /// Writes and new sessions refused because of that.
    pub refused_for_space: Counter,
    /// How often this server gave its leadership up because of its disk (ZOOKEEPER-2247).
    pub leaderships_given_up: Counter,
    /// Sessions that ran out of time.
    pub sessions_expired: Counter,
    /// Transactions and images whose digest was not the tree's (P34).
    pub digest_mismatches: Counter,
    /// Transactions that this server ordered.
    pub appended: Counter,
    /// Those of them, or of its history, that were committed.
    pub committed: Counter,
    /// Transactions that a leader proposed to this server.
    pub learner_proposals: Counter,
    /// Those that it committed.
    pub learner_commits: Counter,
    /// Flushes of the log: how long each took.
    pub flush_latency: Histogram,
    /// Flushes that took longer than `fsync.warningthresholdms`.
    pub flushes_slow: Counter,
    /// Records a flush made durable: one entry each.
    pub flush_records: Histogram,
    /// Snapshots written: how long each took.
    pub snapshot_latency: Histogram,
    /// Snapshots that failed.
    pub snapshot_errors: Counter,
    /// Sizes of transactions, in bytes.
    pub record_bytes: SizeGauge,
    /// From the time in a transaction's header to each of these, milliseconds (row O105d): it is applied here;
    pub propagation_latency: Histogram,
    /// a quorum has it, which its leader sees;
    pub quorum_ack_latency: Histogram,
    /// a follower is proposed it;
    pub proposal_latency: Histogram,
    /// it is durable at a voter, and acknowledged;
    pub proposal_ack_creation_latency: Histogram,
    /// a learner hears that it is committed.
    pub commit_propagation_latency: Histogram,
}

impl PipelineCounters {
    /// The names of [`latencies`](Self::latencies) in `mntr`.
    pub const LATENCIES: [&'static str; 5] = [
        "propagation_latency",
        "quorum_ack_latency",
        "proposal_latency",
        "proposal_ack_creation_latency",
        "commit_propagation_latency",
    ];

    /// What is counted from the time in a transaction's header, in milliseconds.
    pub const fn latencies(&self) -> [&Histogram; 5] {
        [
            &self.propagation_latency,
            &self.quorum_ack_latency,
            &self.proposal_latency,
            &self.proposal_ack_creation_latency,
            &self.commit_propagation_latency,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_cores_share_a_cache_line() {
        assert_eq!(align_of::<CoreCounters>(), 128);
        assert_eq!(size_of::<CoreCounters>() % 128, 0);
        assert_eq!(align_of::<PipelineCounters>(), 128);
    }

    #[test]
    fn sizes_are_minus_one_until_there_is_one() {
        let sizes = SizeGauge::default();
        assert_eq!(sizes.read(), [-1, -1, -1]);
        sizes.note(7);
        sizes.note(3);
        sizes.note(5);
        assert_eq!(sizes.read(), [5, 3, 7]);
        sizes.reset();
        assert_eq!(sizes.read(), [-1, -1, -1]);
    }

    #[test]
    fn counters_and_gauges_move_as_told() {
        let (counter, gauge) = (Counter::default(), Gauge::default());
        counter.increment();
        counter.add(4);
        gauge.increment();
        gauge.increment();
        gauge.decrement();
        assert_eq!((counter.get(), gauge.get()), (5, 1));
    }
}
