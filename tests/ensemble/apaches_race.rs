//! A race of Apache's own that loses acknowledged writes of an ensemble, and how to tell that it was that (ZOOKEEPER-3598,
//! open; seen in 3.8.0 and 3.9.5, also with three servers of Apache's and none of ours).
//!
//! A follower that loses its leader applies the rest of its log to its tree (`fastForwardDataBase`) without waiting for
//! the thread that applies commits (`CommitProcessor.shutdown` joins its workers alone). What that thread is just
//! applying then lands behind newer writes of the same node: the server's log has them, its tree does not, and if it
//! leads next, its tree is what counts.
//!
//! No member can keep another one from doing that. What is told apart here, so that a test need not fail for it: the
//! log of the server in question has that very write, its tree did not, and it says itself that it lost a leader
//! in the same life and came to another one after the epoch of the write. What is shown is left out of the history, write
//! by write; the rest must still be possible. A loss of which it cannot be shown is ours.

use crate::{
    cluster::Cluster,
    history::{History, Rewritten},
    peers::{Kind, tree::Tree},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};
use zkfast::storage::{DataDirs, history::LogReader};
use zkfast_wire::{Epoch, Txn, Zxid};

/// Of what it is shown. Whatever else is wrong is not excused, in the same register neither.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proven {
    /// What happened, in words, by register.
    words: BTreeMap<usize, String>,
    /// Register and zxid of what the tree of a leader lacked.
    lost: BTreeSet<(usize, i64)>,
    /// Register and zxid of the last write that an old tree shows of it.
    stale: BTreeSet<(usize, i64)>,
}

impl Proven {
    /// Adds what was shown elsewhere.
    pub fn extend(&mut self, other: Self) {
        self.words.extend(other.words);
        self.lost.extend(other.lost);
        self.stale.extend(other.stale);
    }

    /// What happened, if anything is shown.
    pub fn words(&self) -> Option<String> {
        let words: Vec<&str> = self.words.values().map(String::as_str).collect();
        (!words.is_empty()).then(|| words.join("; "))
    }

    /// What the history holds beside it.
    pub fn left_out_of(&self, history: &History) -> History {
        history.without(
            |key, zxid| self.lost.contains(&(key, zxid)),
            |key, zxid| self.stale.contains(&(key, zxid)),
        )
    }
}

/// Whether this record of a log is a setData of `path` that made it `version`.
fn is_write(record: &[u8], path: &str, version: i32) -> bool {
    matches!(
        Txn::decode_record(record),
        Ok((_, Txn::SetData(write), _)) if write.path == path && write.version == version
    )
}

/// Whether the log of a server has this write under this zxid.
fn logged(data_dir: &Path, zxid: i64, path: &str, version: i32) -> bool {
    let before = Zxid(zxid - 1);
    let Ok(mut reader) = LogReader::new(&DataDirs::new(data_dir, None), before, Zxid(zxid)) else {
        return false;
    };
    let found = reader.next_record();
    matches!(found, Ok(Some((found, record))) if found.0 == zxid && is_write(record, path, version))
}

/// The lines of the life of a server of Apache's in which one says `words`, through that one; of its last life if `words`
/// are nothing.
fn life<'a>(log: &'a str, words: &str) -> Vec<&'a str> {
    let mut life = Vec::new();
    for line in log.lines() {
        if line.contains("Starting quorum peer") {
            life.clear();
        }
        life.push(line);
        if !words.is_empty() && line.ends_with(words) {
            return life;
        }
    }
    if words.is_empty() { life } else { Vec::new() }
}

/// Whether these lines say that the server followed or led, and then looked for a leader again.
fn lost_a_leader(life: &[&str]) -> bool {
    let says = |line: &&str, role: &str| line.ends_with(role);
    let mut lines = life.iter().skip_while(|line| !says(line, " - FOLLOWING") && !says(line, " - LEADING"));
    lines.any(|line| says(line, " - LOOKING"))
}

/// Whether a server of Apache's with this log led this epoch after it had lost a leader in the same life.
fn led_after_a_loss(log: &str, epoch: i64) -> bool {
    let life = life(log, &format!("setting last processed zxid: {:#x}", epoch << 32));
    life.iter().any(|line| line.contains("LEADING - LEADER ELECTION TOOK")) && lost_a_leader(&life)
}

/// The writes that a leader of Apache's lacked in its tree, and has in its log, when it ordered others in their place.
pub fn ordered_on_an_old_tree(cluster: &Cluster, paths: &[String], history: &History) -> Proven {
    let logs: Vec<String> = (0..cluster.size()).map(|index| cluster.log_text(index)).collect();
    let has_all = |pair: &Rewritten, lost: &BTreeSet<(i32, i64)>| {
        let epoch = Zxid(pair.later).epoch();
        let led = |index: &usize| led_after_a_loss(&logs[*index], epoch.0);
        let has_all = |index| {
            let (data_dir, path) = (cluster.data_dir(index), &paths[pair.key]);
            lost.iter().all(|(version, zxid)| logged(&data_dir, *zxid, path, *version))
        };
        (0..cluster.size()).find(led).is_some_and(has_all)
    };
    proven_of(history, has_all)
}

/// `has_all`: whether the leader that ordered the later transaction of the pair has all of these, versions and zxids, in
/// its log.
fn proven_of(history: &History, has_all: impl Fn(&Rewritten, &BTreeSet<(i32, i64)>) -> bool) -> Proven {
    let mut proven = Proven::default();
    for pair in history.rewritten() {
        let lost = history.lost_with(&pair);
        // Within one epoch nobody changed the tree that counts.
        if lost.contains(&(pair.version, pair.earlier)) && has_all(&pair, &lost) {
            let Rewritten { key, version, earlier, later } = pair;
            let words = format!(
                "key {key}: a leader of Apache's had {} writes in its log and not in its tree, first {earlier:#x} \
                 (version {version}), overwritten by {later:#x}",
                lost.len()
            );
            proven.words.entry(key).or_insert(words);
            proven.lost.extend(lost.into_iter().map(|(_, zxid)| (key, zxid)));
        }
    }
    proven
}

/// The registers in which the tree of a server of Apache's lacks what its log has; `None` if the trees differ in anything
/// else, or in nothing.
pub fn has_an_old_tree(
    cluster: &Cluster,
    index: usize,
    paths: &[String],
    theirs: &Tree,
    others: &Tree,
) -> Option<Proven> {
    if cluster.kind(index) != Kind::Apache || !lost_a_leader(&life(&cluster.log_text(index), "")) {
        return None;
    }
    let data_dir = cluster.data_dir(index);
    let joined = std::fs::read_to_string(data_dir.join("version-2/currentEpoch")).ok()?;
    let joined = Epoch(joined.trim().parse().ok()?);
    let is_logged = |path: &str, zxid, version| logged(&data_dir, zxid, path, version);
    let stale = old_registers(paths, theirs, others, joined, is_logged)?;
    let words = |key| format!("key {key}: server {} has what its log says, but not in its tree", index + 1);
    let words = stale.iter().map(|(key, _)| (*key, words(key))).collect();
    Some(Proven { words, lost: BTreeSet::new(), stale })
}

/// Each with the zxid of the write that `theirs` shows. What it lacks must be of an epoch before the one that the server
/// `joined` last: what a leader proposes and never commits, nobody has in its tree.
fn old_registers(
    paths: &[String],
    theirs: &Tree,
    others: &Tree,
    joined: Epoch,
    is_logged: impl Fn(&str, i64, i32) -> bool,
) -> Option<BTreeSet<(usize, i64)>> {
    let differs = |path: &&String| theirs.get(*path) != others.get(*path);
    let old = |path: &String| {
        let (theirs, others) = (theirs.get(path)?, others.get(path)?);
        let is_old = theirs.stat.mzxid < others.stat.mzxid
            && others.stat.mzxid.epoch() < joined
            && theirs.acl == others.acl
            && is_logged(path, others.stat.mzxid.0, others.stat.version);
        let key = paths.iter().position(|register| register == path).filter(|_| is_old);
        key.map(|key| (key, theirs.stat.mzxid.0))
    };
    let stale: Option<BTreeSet<_>> = theirs.keys().chain(others.keys()).filter(differs).map(old).collect();
    stale.filter(|stale| !stale.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Action, Entry, Outcome},
        peers::tree::Node,
    };
    use std::{borrow::Cow, time::Duration};
    use zkfast_wire::{OpCode, SessionId, Stat, TxnHeader, txn::SetDataTxn};

    fn record(txn: &Txn<'_>, kind: OpCode) -> Vec<u8> {
        let header = TxnHeader { session: SessionId(1), cxid: 2, zxid: Zxid(3), time_ms: 4, kind };
        let mut record = Vec::new();
        txn.encode_record(&header, &mut record);
        record
    }

    #[test]
    fn only_that_write_of_that_register_counts_as_logged() {
        let write = Txn::SetData(SetDataTxn { path: Cow::Borrowed("/a"), data: Some(b"x"), version: 7 });
        let written = record(&write, OpCode::SetData);
        assert!(is_write(&written, "/a", 7));
        assert!(!is_write(&written, "/a", 8) && !is_write(&written, "/b", 7));
        assert!(!is_write(&written[..written.len() - 1], "/a", 7));
        let deleted = record(&Txn::Delete { path: Cow::Borrowed("/a") }, OpCode::Delete);
        assert!(!is_write(&deleted, "/a", 7));
    }

    #[test]
    fn a_log_of_apache_s_is_read() {
        let data_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/apache-3.9.5-plain");
        assert!(logged(&data_dir, 0x170, "/golden/n065", 1));
        assert!(!logged(&data_dir, 0x171, "/golden/n065", 1) && !logged(&data_dir, 0x170, "/golden/n066", 1));
        assert!(
            !logged(&data_dir, 0x170, "/golden/n065", 2)
                && !logged(&data_dir, 0x1_0000_0170, "/golden/n065", 1)
        );
    }

    const START: &str = "[main] INFO o.a.z.QuorumPeerMain - Starting quorum peer, myid=2\n";
    const LOOKS: &str = "[QuorumPeer] INFO o.a.z.QuorumPeer - LOOKING\n";
    const FOLLOWS: &str = "[QuorumPeer] INFO o.a.z.QuorumPeer - FOLLOWING\n";
    const LEADS: &str = "[QuorumPeer] INFO o.a.z.QuorumPeer - LEADING\n\
                         [QuorumPeer] INFO o.a.z.Leader - LEADING - LEADER ELECTION TOOK - 241 MS\n\
                         [QuorumPeer] INFO o.a.z.Leader - Have quorum of supporters, sids: [[1, 2]]; starting up and \
                         setting last processed zxid: 0x200000000\n";

    #[test]
    fn a_leader_that_lost_none_in_the_same_life_is_not_excused() {
        let log = |lines: &[&str]| lines.concat();
        assert!(led_after_a_loss(&log(&[START, LOOKS, FOLLOWS, LOOKS, LEADS]), 2));
        assert!(!led_after_a_loss(&log(&[START, LOOKS, FOLLOWS, LOOKS, LEADS]), 3));
        assert!(!led_after_a_loss(&log(&[START, LOOKS, FOLLOWS, LOOKS]), 2));
        assert!(!led_after_a_loss(&log(&[START, LOOKS, LEADS]), 2));
        assert!(!led_after_a_loss(&log(&[START, LOOKS, FOLLOWS, START, LOOKS, LEADS]), 2));
        assert!(!led_after_a_loss(&log(&[START, LOOKS, LEADS, LOOKS]), 2));
        assert!(!led_after_a_loss("leading in epoch 2:", 2));
        assert!(lost_a_leader(&life(&log(&[START, LOOKS, FOLLOWS, LOOKS, FOLLOWS]), "")));
        assert!(!lost_a_leader(&life(&log(&[START, LOOKS, FOLLOWS, LOOKS, START, LOOKS, FOLLOWS]), "")));
    }

    const LATER: i64 = 1 << 32;

    fn history(seen: &[(usize, i32, i64)]) -> History {
        let entry = |(key, version, mzxid): &(usize, i32, i64)| Entry {
            client: 0,
            key: *key,
            begun: Duration::ZERO,
            ended: Duration::ZERO,
            action: Action::Read,
            outcome: Outcome::Done { version: *version, mzxid: *mzxid, value: 0 },
        };
        History { entries: seen.iter().map(entry).collect(), ..History::default() }
    }

    #[test]
    fn only_what_is_shown_is_left_out() {
        let seen = [
            (0, 1, 1),
            (0, 2, 2),
            (0, 3, 3),
            (0, 2, LATER + 1),
            (0, 3, LATER + 2),
            (3, 5, 4),
            (3, 6, 5),
            (3, 5, LATER + 3),
        ];
        let all = history(&seen);
        let proven = proven_of(&all, |_, _| true);
        assert_eq!(proven.lost, BTreeSet::from([(0, 2), (0, 3), (3, 4), (3, 5)]));
        assert!(proven.words.keys().eq([&0, &3]));
        assert_eq!(proven.left_out_of(&all).entries.len(), 4);
        // Version 6 of key 3 is not in that leader's log: its loss is ours, and that of version 5 is not explained either.
        let proven = proven_of(&all, |_, lost| !lost.contains(&(6, 5)));
        assert_eq!(proven.lost, BTreeSet::from([(0, 2), (0, 3)]));
        let proven = proven_of(&all, |pair, _| (pair.key, pair.version) == (0, 3));
        assert_eq!(proven.lost, BTreeSet::from([(0, 3)]));
        assert_eq!(proven.left_out_of(&all).rewritten().len(), 2, "of version 2, and of the other key");
        // Two of one epoch are no work of a new leader.
        let proven = proven_of(&history(&[(0, 1, LATER + 1), (0, 1, LATER + 2)]), |_, _| true);
        assert_eq!(proven, Proven::default());
    }

    #[test]
    fn a_tree_that_differs_in_anything_but_logged_writes_is_not_excused() {
        let paths = ["/key-0".to_owned(), "/key-1".to_owned()];
        let node = |mzxid, version| Node {
            data: None,
            acl: Vec::new(),
            stat: Stat { mzxid: Zxid(mzxid), version, ..Stat::default() },
        };
        let tree = |nodes: &[(&str, Node)]| {
            nodes.iter().cloned().map(|(path, node)| (path.to_owned(), node)).collect()
        };
        let old: Tree = tree(&[("/key-0", node(5, 1)), ("/key-1", node(6, 1))]);
        let new: Tree = tree(&[("/key-0", node(5, 1)), ("/key-1", node(7, 2))]);
        let has = |path: &str, zxid: i64, version: i32| (path, zxid, version) == ("/key-1", 7, 2);
        assert_eq!(old_registers(&paths, &old, &new, Epoch(1), has), Some(BTreeSet::from([(1, 6)])));
        assert_eq!(old_registers(&paths, &new, &old, Epoch(1), |_, _, _| true), None);
        assert_eq!(old_registers(&paths, &old, &new, Epoch(1), |_, _, _| false), None);
        assert_eq!(old_registers(&paths, &old, &old, Epoch(1), |_, _, _| true), None);
        assert_eq!(old_registers(&paths[..1], &old, &new, Epoch(1), |_, _, _| true), None);
        // Of the epoch in which the server is: a leader of ours may have proposed it and not committed it.
        assert_eq!(old_registers(&paths, &old, &new, Epoch(0), has), None);
        let more = tree(&[("/key-0", node(5, 1)), ("/key-1", node(7, 2)), ("/x", node(1, 0))]);
        assert_eq!(old_registers(&paths, &old, &more, Epoch(1), |_, _, _| true), None);
    }
}
