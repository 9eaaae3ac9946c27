//! The lines of `mntr` (row O81): Apache's names, so that dashboards go on working.
//!
//! What Apache measures inside its processors and thread pools has no counterpart here and no line (`tests/ensemble/metrics`
//! names each, with the reason). Durations are in
//! milliseconds as there; since most of ours are far below one, means keep four decimals and the `_us` lines at the
//! end tell microseconds.

use super::counters::PipelineCounters;
use super::histogram::Reading;
use super::picture::{Picture, Spans};
use super::version;

/// One value of `mntr`.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A word or sentence.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Printed with at least one and at most four decimals.
    Double(f64),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(number) => number.fmt(f),
            Self::Double(number) => f.write_str(&decimal(*number)),
        }
    }
}

/// At most four decimals and at least one, as Apache prints means: `0.0`, `6.5714`.
pub fn decimal(number: f64) -> String {
    let text = format!("{number:.4}");
    let shorter = text.trim_end_matches('0');
    if shorter.ends_with('.') { format!("{shorter}0") } else { shorter.to_owned() }
}

/// Nanoseconds as whole milliseconds, rounded.
pub fn whole_ms(ns: u64) -> u64 {
    (ns + 500_000) / 1_000_000
}

/// Nanoseconds as milliseconds with decimals.
pub fn fractional_ms(ns: f64) -> f64 {
    ns / 1e6
}

/// All lines, without their `zk_`.
pub fn lines(picture: &Picture) -> Vec<(String, Value)> {
    let mut lines = Lines(Vec::with_capacity(160));
    lines.text("version", version::FULL);
    lines.text("server_state", picture.mode.name());
    if let Some(quorum) = &picture.quorum {
        lines.text("peer_state", &quorum.peer_state);
        if let Some(observed) = quorum.observed {
            lines.integer("observer_master_id", observed.0);
        }
    }
    gauges(picture, &mut lines);
    for (name, count) in picture.totals.counters() {
        // Apache keeps watch events as summaries: below.
        if !name.ends_with("_watch_count") {
            lines.integer(name, count as i64);
        }
    }
    // Counters of things that cannot happen here.
    lines.integer("stale_requests", 0);
    let totals = &picture.totals;
    for (name, count) in totals.counters().filter(|(name, _)| name.ends_with("_watch_count")) {
        lines.integer(&format!("cnt_{name}"), count as i64);
        lines.integer(&format!("sum_{name}"), count as i64);
    }
    let start = picture.start;
    lines.once("dbinittime", start.map(|start| start.whole_ms));
    lines.once("startup_snap_load_time", start.map(|start| start.snapshot_ms));
    lines.once("startup_txns_load_time", start.map(|start| start.whole_ms.saturating_sub(start.snapshot_ms)));
    lines.once("startup_txns_loaded", start.map(|start| start.records));
    lines.summary_ms("fsynctime", &totals.flush_latency);
    lines.summary_ms("snapshottime", &totals.snapshot_latency);
    lines.summary("sync_processor_batch_size", &totals.flush_records, 1.0);
    for (name, reading) in [("readlatency", &totals.read_latency), ("updatelatency", &totals.update_latency)]
    {
        lines.summary_ms(name, reading);
        lines.quantiles(name, reading, whole_ms);
    }
    for (name, reading) in PipelineCounters::LATENCIES.into_iter().zip(&totals.transaction_latencies) {
        lines.summary(name, reading, 1.0);
        lines.quantiles(name, reading, |ms| ms);
    }
    for (name, reading) in [
        ("readlatency_us", &totals.read_latency),
        ("updatelatency_us", &totals.update_latency),
        ("fsynctime_us", &totals.flush_latency),
    ] {
        lines.double(&format!("avg_{name}"), reading.mean() / 1e3);
        lines.integer(&format!("max_{name}"), (reading.max() / 1000) as i64);
        lines.quantiles(name, reading, |ns| ns / 1000);
    }
    lines.0
}

fn gauges(picture: &Picture, lines: &mut Lines) {
    let latency = picture.totals.latency();
    lines.double("avg_latency", fractional_ms(latency.mean()));
    lines.integer("max_latency", whole_ms(latency.max()) as i64);
    lines.integer("min_latency", whole_ms(latency.min()) as i64);
    lines.integer("num_alive_connections", picture.connections_open as i64);
    lines.integer("outstanding_requests", picture.outstanding as i64);
    lines.integer("uptime", picture.uptime_ms as i64);
    lines.integer("znode_count", picture.znodes as i64);
    lines.integer("watch_count", picture.watches_set as i64);
    lines.integer("ephemerals_count", picture.ephemerals as i64);
    lines.integer("approximate_data_size", picture.data_bytes as i64);
    lines.integer("global_sessions", picture.sessions as i64);
    lines.integer("local_sessions", picture.local_sessions as i64);
    lines.integer("open_file_descriptor_count", picture.files.0 as i64);
    lines.integer("max_file_descriptor_count", picture.files.1.min(i64::MAX as u64) as i64);
    lines.integer("log_space_low", picture.log_space_low as i64);
    lines.double("connection_drop_probability", 0.0);
    let [last, min, max] = picture.response_bytes;
    lines.integer("last_client_response_size", last);
    lines.integer("max_client_response_size", max);
    lines.integer("min_client_response_size", min);
    for name in ["outstanding_tls_handshake", "non_mtls_remote_conn_count", "non_mtls_local_conn_count"] {
        lines.integer(name, 0);
    }
    let Some(quorum) = &picture.quorum else { return };
    lines.integer("quorum_size", quorum.quorum_size as i64);
    lines.integer("synced_observers", quorum.synced_observers as i64);
    lines.integer("looking_count", quorum.searches as i64);
    lines.integer("diff_count", quorum.diffs_sent as i64);
    lines.integer("snap_count", quorum.images_sent as i64);
    lines.integer("revalidate_count", quorum.revalidations as i64);
    lines.integer("quit_leading_due_to_disloyal_voter", 0);
    lines.spans("election_time", &quorum.elections);
    lines.spans("unavailable_time", &quorum.elections);
    lines.spans("leader_unavailable_time", &quorum.elections_won);
    lines.spans("follower_sync_time", &quorum.follower_syncs);
    lines.spans("observer_sync_time", &quorum.observer_syncs);
    lines.summary("inflight_diff_count", &quorum.diffs_at_a_time, 1.0);
    lines.summary("inflight_snap_count", &quorum.images_at_a_time, 1.0);
    for learner in &quorum.learners {
        let name = |what: &str| format!("{}_{what}", learner.server);
        lines.summary(&name("learner_handler_qp_size"), &learner.queued_packets, 1.0);
        for (what, reading) in
            [("learner_handler_qp_time_ms", &learner.queue_ms), ("ack_latency", &learner.ack_ms)]
        {
            lines.summary(&name(what), reading, 1.0);
            lines.quantiles(&name(what), reading, |ms| ms);
        }
    }
    let Some(leader) = &quorum.leader else { return };
    lines.integer("learners", leader.learners as i64);
    lines.integer("synced_followers", leader.synced_followers as i64);
    lines.integer("synced_non_voting_followers", leader.synced_non_voting_followers as i64);
    lines.integer("pending_syncs", leader.pending_syncs as i64);
    lines.integer("leader_uptime", leader.leader_uptime_ms as i64);
    let [last, min, max] = picture.record_bytes;
    lines.integer("last_proposal_size", last);
    lines.integer("max_proposal_size", max);
    lines.integer("min_proposal_size", min);
}

struct Lines(Vec<(String, Value)>);

impl Lines {
    fn text(&mut self, name: &str, text: &str) {
        self.0.push((name.to_owned(), Value::Text(text.to_owned())));
    }

    fn integer(&mut self, name: &str, number: i64) {
        self.0.push((name.to_owned(), Value::Integer(number)));
    }

    fn double(&mut self, name: &str, number: f64) {
        self.0.push((name.to_owned(), Value::Double(number)));
    }

    /// The five lines of a summary, values divided by `unit`.
    fn summary(&mut self, name: &str, reading: &Reading, unit: f64) {
        let rounded = |value: u64| (value as f64 / unit).round() as i64;
        self.double(&format!("avg_{name}"), reading.mean() / unit);
        self.integer(&format!("min_{name}"), rounded(reading.min()));
        self.integer(&format!("max_{name}"), rounded(reading.max()));
        self.integer(&format!("cnt_{name}"), reading.count() as i64);
        self.integer(&format!("sum_{name}"), rounded(reading.sum()));
    }

    /// The summary of something that happens once.
    fn once(&mut self, name: &str, value: Option<u64>) {
        let count = value.iter().len() as i64;
        let value = value.unwrap_or_default();
        self.double(&format!("avg_{name}"), value as f64);
        for (prefix, number) in
            [("min", value as i64), ("max", value as i64), ("cnt", count), ("sum", value as i64)]
        {
            self.integer(&format!("{prefix}_{name}"), number);
        }
    }

    fn spans(&mut self, name: &str, spans: &Spans) {
        self.double(&format!("avg_{name}"), spans.sum_ms as f64 / spans.count.max(1) as f64);
        let Spans { count, sum_ms, min_ms, max_ms } = *spans;
        for (prefix, number) in [("min", min_ms), ("max", max_ms), ("cnt", count), ("sum", sum_ms)] {
            self.integer(&format!("{prefix}_{name}"), number as i64);
        }
    }

    /// A summary of nanoseconds in milliseconds.
    fn summary_ms(&mut self, name: &str, reading: &Reading) {
        self.summary(name, reading, 1e6);
    }

    fn quantiles(&mut self, name: &str, reading: &Reading, unit: fn(u64) -> u64) {
        for (prefix, fraction) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999)] {
            self.integer(&format!("{prefix}_{name}"), unit(reading.quantile(fraction)) as i64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::picture::StartPicture;
    use std::collections::BTreeSet;

    #[test]
    fn means_are_printed_as_apache_prints_them() {
        let check = |number: f64, expected: &str| assert_eq!(decimal(number), expected);
        check(0.0, "0.0");
        check(6.571_428_6, "6.5714");
        check(10.25, "10.25");
        check(71.0, "71.0");
        check(1e7, "10000000.0");
        check(0.000_04, "0.0");
    }

    #[test]
    fn no_name_occurs_twice() {
        let lines = lines(&Picture::default());
        let names: BTreeSet<&str> = lines.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.len(), lines.len());
    }

    /// O105a. Danger: what a start took is told in another unit, or as if it had been several.
    #[test]
    fn a_start_is_told_once() {
        let text = |start| {
            let lines = lines(&Picture { start, ..Picture::default() });
            let of_start = |name: &str| name.contains("startup") || name.contains("dbinit");
            let told = lines.into_iter().filter(|(name, _)| of_start(name));
            told.map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>()
        };
        let told = text(Some(StartPicture { whole_ms: 30, snapshot_ms: 20, records: 7 }));
        for line in [
            "avg_dbinittime 30.0",
            "cnt_dbinittime 1",
            "max_startup_snap_load_time 20",
            "sum_startup_txns_load_time 10",
            "avg_startup_txns_loaded 7.0",
            "cnt_startup_txns_loaded 1",
        ] {
            assert!(told.iter().any(|found| found == line), "{line}: {told:?}");
        }
        assert!(text(None).contains(&"cnt_dbinittime 0".to_owned()));
    }

    /// What monitoring reads: the gauges and latencies that Apache 3.8.0 printed on an idle standalone server.
    #[test]
    fn the_names_that_dashboards_read_are_there() {
        let lines = lines(&Picture::default());
        for name in "version server_state ephemerals_count num_alive_connections avg_latency outstanding_requests \
             znode_count global_sessions non_mtls_remote_conn_count last_client_response_size packets_sent \
             packets_received max_client_response_size connection_drop_probability watch_count auth_failed_count \
             min_latency max_file_descriptor_count approximate_data_size open_file_descriptor_count local_sessions \
             uptime max_latency outstanding_tls_handshake min_client_response_size non_mtls_local_conn_count \
             avg_fsynctime max_fsynctime cnt_fsynctime avg_snapshottime p99_updatelatency p999_readlatency \
             cnt_node_deleted_watch_count bytes_received_count response_bytes connection_rejected"
            .split_whitespace()
        {
            assert!(lines.iter().any(|(line, _)| line == name), "{name} is missing");
        }
    }
}
