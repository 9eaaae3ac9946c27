//! How much a subtree holds and may hold (rows T39-T43; Java's `Quotas`, `StatsTrack`, `PathTrie`).
//!
//! A quota is two ordinary nodes that clients make: `/zookeeper/quota<path>/zookeeper_limits` says what is allowed and
//! switches the quota on, `.../zookeeper_stats` is where the server writes what there is. The apply step rewrites the
//! text of the second with each change below `<path>`: neither its version nor its times move, no watch fires and the
//! digest does not see it. Of nested quotas the innermost counts.
//!
//! Limits are checked when a request is prepared, and only with `enforceQuota`: a hard one refuses with -125, a soft one
//! is told of. Apache checks against what is applied, so that pipelined requests and the parts of a multi overshoot a
//! hard limit; here what is prepared counts too.

use crate::{Tree, path, znodes::NodeRef};
use hashbrown::{HashMap, HashSet};
use std::collections::VecDeque;
use zkfast_wire::{ErrorCode, Zxid};

/// The node that makes a quota: its data says how much is allowed.
pub const LIMITS: &str = "zookeeper_limits";
/// The node in which the server counts.
pub const STATS: &str = "zookeeper_stats";

/// Nodes and bytes of data; -1 for no limit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Track {
    /// `count`: nodes, the quota's own node included.
    pub count: i64,
    /// `bytes` of data.
    pub bytes: i64,
    /// `countHardLimit`.
    pub count_hard: i64,
    /// `byteHardLimit`.
    pub bytes_hard: i64,
    /// Anything else that a client wrote, kept: name and number.
    others: Vec<(String, i64)>,
}

impl Default for Track {
    fn default() -> Self {
        Self { count: -1, bytes: -1, count_hard: -1, bytes_hard: -1, others: Vec::new() }
    }
}

impl Track {
    /// Reads the text of either node (T40). What is no number counts as no limit; Java's parser throws there, and a
    /// server that applies a committed transaction must not.
    pub fn parse(text: &[u8]) -> Self {
        let mut track = Self::default();
        for pair in text.split(|byte| matches!(byte, b',' | b';')) {
            let mut words = pair.split(|byte| *byte == b'=');
            let (Some(name), Some(number)) = (words.next(), words.next()) else { continue };
            let Ok(name) = std::str::from_utf8(name) else { continue };
            let number =
                std::str::from_utf8(number).ok().and_then(|number| number.parse().ok()).unwrap_or(-1);
            match name {
                "count" => track.count = number,
                "bytes" => track.bytes = number,
                "countHardLimit" => track.count_hard = number,
                "byteHardLimit" => track.bytes_hard = number,
                "" => {}
                _ => {
                    track.others.retain(|(other, _)| other != name);
                    track.others.push((name.to_owned(), number));
                }
            }
        }
        track
    }

    /// The text (T40): count and bytes first, then, behind an `=` that keeps parsers of 3.4 at bay, the others by name.
    pub fn text(&self) -> String {
        let mut others: Vec<(&str, i64)> =
            self.others.iter().map(|(name, number)| (name.as_str(), *number)).collect();
        for (name, number) in [("byteHardLimit", self.bytes_hard), ("countHardLimit", self.count_hard)] {
            if number != -1 {
                others.push((name, number));
            }
        }
        others.sort_unstable();
        let mut text = format!("count={},bytes={}", self.count, self.bytes);
        if !others.is_empty() {
            text.push('=');
        }
        for (name, number) in others {
            text.push_str(&format!(";{name}={number}"));
        }
        text
    }
}

/// A limit that a request would exceed: for a line of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exceeded {
    /// The quota's path.
    pub path: String,
    /// `count` or `bytes`.
    pub what: &'static str,
    /// How much there would be.
    pub wanted: i64,
    /// How much is allowed.
    pub limit: i64,
    /// Whether the request was refused.
    pub is_hard: bool,
}

/// What a change adds; negative where it takes away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Difference {
    pub(crate) count: i64,
    pub(crate) bytes: i64,
}

/// Which subtrees have a quota, and what is on its way into them.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    /// Paths with a limits node.
    paths: HashSet<Box<str>>,
    /// Prepared and not applied, where limits are enforced.
    in_flight: HashMap<Box<str>, Difference>,
    order: VecDeque<(Zxid, Box<str>, Difference)>,
    exceeded: Option<Exceeded>,
    exceeded_count: u64,
}

impl Quotas {
    /// The innermost quota that covers `path`.
    fn of<'p>(&self, path: &'p str) -> Option<&'p str> {
        if self.paths.is_empty() {
            return None;
        }
        std::iter::once(path).chain(path::ancestors(path)).find(|prefix| self.paths.contains(*prefix))
    }

    fn prepare(&mut self, zxid: Zxid, path: &str, difference: Difference) {
        let now = self.in_flight.entry(path.into()).or_default();
        now.count += difference.count;
        now.bytes += difference.bytes;
        self.order.push_back((zxid, path.into(), difference));
    }

    fn take_back(&mut self, path: &str, difference: Difference) {
        let Some(now) = self.in_flight.get_mut(path) else { return };
        now.count -= difference.count;
        now.bytes -= difference.bytes;
        if *now == Difference::default() {
            self.in_flight.remove(path);
        }
    }

    /// What transaction `zxid` prepared is in the stats node now.
    pub(crate) fn applied(&mut self, zxid: Zxid) {
        while self.order.front().is_some_and(|(prepared, ..)| *prepared <= zxid) {
            let (_, path, difference) = self.order.pop_front().expect("looked at above");
            self.take_back(&path, difference);
        }
    }

    /// The multi `zxid` failed.
    pub(crate) fn roll_back(&mut self, zxid: Zxid) {
        while self.order.back().is_some_and(|(prepared, ..)| *prepared == zxid) {
            let (_, path, difference) = self.order.pop_back().expect("looked at above");
            self.take_back(&path, difference);
        }
    }

    /// Nothing is prepared any more.
    pub(crate) fn clear_prepared(&mut self) {
        self.in_flight.clear();
        self.order.clear();
    }
}

/// `<path>` and the last element of `/zookeeper/quota<path>/<name>`.
fn quota_node(node: &str) -> Option<(&str, &str)> {
    let (path, name) = node.strip_prefix(path::QUOTA)?.rsplit_once('/')?;
    (!path.is_empty()).then_some((path, name))
}

fn stats_path(path: &str) -> String {
    format!("{}{path}/{STATS}", path::QUOTA)
}

impl Tree {
    /// A node is there that was not there before.
    pub(crate) fn quota_created(&mut self, zxid: Zxid, path: &str, bytes: usize) {
        if path.starts_with(path::QUOTA) {
            match quota_node(path) {
                Some((quota, LIMITS)) => {
                    self.quotas.paths.insert(quota.into());
                }
                Some((quota, STATS)) => self.recount_quota(zxid, quota),
                _ => {}
            }
        }
        self.quota_changed(zxid, path, Difference { count: 1, bytes: bytes as i64 });
    }

    /// A node is gone.
    pub(crate) fn quota_deleted(&mut self, zxid: Zxid, path: &str, bytes: usize) {
        if path.starts_with(path::QUOTA)
            && let Some((quota, LIMITS)) = quota_node(path)
        {
            self.quotas.paths.remove(quota);
        }
        self.quota_changed(zxid, path, Difference { count: -1, bytes: -(bytes as i64) });
    }

    /// T41: counts a change into the stats node of the quota that covers `path`.
    pub(crate) fn quota_changed(&mut self, zxid: Zxid, path: &str, difference: Difference) {
        let Some(quota) = self.quotas.of(path) else { return };
        let stats = stats_path(quota);
        let Some(node) = self.node(&stats) else { return };
        let mut track = Track::parse(node.data().unwrap_or_default());
        track.count += difference.count;
        track.bytes += difference.bytes;
        self.write_stats(zxid, &stats, &track);
    }

    fn write_stats(&mut self, zxid: Zxid, stats: &str, track: &Track) {
        let key = self.znodes.key(stats);
        if let Some(mut node) = self.znodes.node_mut(key) {
            let text = track.text();
            self.data_bytes = self.data_bytes - node.node().data_bytes() as u64 + text.len() as u64;
            node.rewrite_data(zxid, text.as_bytes());
        }
    }

    /// T39: counts a subtree anew, a walk over all its nodes.
    fn recount_quota(&mut self, zxid: Zxid, quota: &str) {
        let (mut count, mut bytes) = (0, 0);
        let top = self.node(quota);
        let mut at = top;
        while let (Some(node), Some(top)) = (at, top) {
            count += 1;
            bytes += node.data_bytes() as i64;
            at = node.next_in_walk(top);
        }
        self.write_stats(zxid, &stats_path(quota), &Track { count, bytes, ..Track::default() });
    }

    /// P32: switches on the quotas of a loaded image and counts their subtrees.
    pub(crate) fn load_quotas(&mut self) {
        let mut quotas = Vec::new();
        let top = self.node(path::QUOTA);
        let mut at = top;
        while let (Some(node), Some(top)) = (at, top) {
            // As in Java, a limits node with children is none.
            if node.name() == LIMITS
                && node.num_children() == 0
                && let Some((quota, _)) = quota_node(node.path())
            {
                quotas.push(quota.to_owned());
            }
            at = node.next_in_walk(top);
        }
        for quota in quotas {
            self.recount_quota(self.last_applied, &quota);
            self.quotas.paths.insert(quota.into());
        }
    }

    /// T42: whether the quota that covers `path` has room for a change.
    ///
    /// # Errors
    /// -125 if a hard limit would be exceeded.
    pub(crate) fn check_quota(&mut self, path: &str, difference: Difference) -> Result<(), ErrorCode> {
        let Some(quota) = self.quotas.of(path).filter(|_| self.config.enforces_quotas) else { return Ok(()) };
        let track_of = |node: NodeRef<'_>| Track::parse(node.data().unwrap_or_default());
        let limits = self.node(&format!("{}{quota}/{LIMITS}", path::QUOTA)).map(track_of);
        let stats = self.node(&stats_path(quota)).map(track_of);
        if let (Some(limits), Some(stats)) = (limits, stats) {
            let in_flight = self.quotas.in_flight.get(quota).copied().unwrap_or_default();
            for (what, soft, hard, now, more) in [
                ("count", limits.count, limits.count_hard, stats.count + in_flight.count, difference.count),
                ("bytes", limits.bytes, limits.bytes_hard, stats.bytes + in_flight.bytes, difference.bytes),
            ] {
                let is_hard = hard > -1;
                let limit = if is_hard { hard } else { soft };
                let wanted = now + more;
                if more == 0 || limit <= -1 || wanted <= limit {
                    continue;
                }
                let exceeded = Exceeded { path: quota.to_owned(), what, wanted, limit, is_hard };
                self.quotas.exceeded = Some(exceeded);
                self.quotas.exceeded_count += u64::from(is_hard);
                if is_hard {
                    return Err(ErrorCode::QUOTA_EXCEEDED);
                }
            }
        }
        Ok(())
    }

    /// Notes what a prepared change will add, so that requests behind it are checked against it.
    pub(crate) fn prepare_quota(&mut self, zxid: Zxid, path: &str, difference: Difference) {
        if self.config.enforces_quotas
            && let Some(quota) = self.quotas.of(path)
        {
            self.quotas.prepare(zxid, quota, difference);
        }
    }

    /// The last limit that was exceeded since this was asked, for a line of the log.
    pub fn take_quota_exceeded(&mut self) -> Option<Exceeded> {
        self.quotas.exceeded.take()
    }

    /// Requests refused because of a hard limit.
    pub fn quota_refusals(&self) -> u64 {
        self.quotas.exceeded_count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T40: zkCli and older servers parse this text; a byte more or less and they read other limits.
    #[test]
    fn limits_and_counts_are_written_as_java_writes_them() {
        for (text, count, bytes, count_hard, bytes_hard) in [
            ("count=3,bytes=100", 3, 100, -1, -1),
            ("count=-1,bytes=-1=;byteHardLimit=7;countHardLimit=5", -1, -1, 5, 7),
            ("count=-1,bytes=5=;countHardLimit=5", -1, 5, 5, -1),
        ] {
            let track = Track::parse(text.as_bytes());
            assert_eq!(
                (track.count, track.bytes, track.count_hard, track.bytes_hard),
                (count, bytes, count_hard, bytes_hard)
            );
            assert_eq!(track.text(), text);
        }
        for (text, expected) in [
            ("", "count=-1,bytes=-1"),
            ("bytes=4;count=9", "count=9,bytes=4"),
            ("count=x,bytes=,=,;", "count=-1,bytes=-1"),
            ("count=1,bytes=2,zeta=3,alpha=4", "count=1,bytes=2=;alpha=4;zeta=3"),
        ] {
            assert_eq!(Track::parse(text.as_bytes()).text(), expected, "{text}");
        }
        assert_eq!(Track::parse(b"\xff=\xff,count=2").count, 2);
    }

    #[test]
    fn a_quotas_nodes_are_told_by_their_place() {
        assert_eq!(quota_node("/zookeeper/quota/a/b/zookeeper_limits"), Some(("/a/b", LIMITS)));
        assert_eq!(quota_node("/zookeeper/quota/zookeeper_stats"), None);
        assert_eq!(quota_node("/zookeeper/quota"), None);
        assert_eq!(quota_node("/zookeeper/config"), None);
    }
}
