//! A number that two equal trees share (rows P33, P34; Java's `DigestCalculator`, version 2, and `AdHash`).
//!
//! The digest of a tree is the sum of its nodes' digests, so a change of one node costs the hash of that node and not
//! a walk: what it counted before is taken off, what it counts now is added. Each node keeps its own part beside its
//! record, and CRC-32 is linear: where only counters change (a parent's, with each child that comes or goes) the new
//! part is the old one combined with the CRC of the *difference*, whatever the length of path and data.
//!
//! There are two sums: after the last applied transaction, and after the last prepared one, which is what a leader
//! writes into the transaction. Whoever applies it compares.

use crate::{
    Tree, path,
    znodes::{Children, NodeRef},
};
use crc32fast::Hasher;
use std::collections::VecDeque;
use zkfast_wire::{StatPersisted, Zxid, txn::TxnDigest};

/// The `digestVersion` that goes with it on disk and on the wire.
pub const DIGEST_VERSION: i32 = 2;
/// Every so many transactions the digest is remembered (Java's `DIGEST_LOG_INTERVAL`).
const LOG_INTERVAL: i64 = 128;
/// So many are remembered (Java's `DIGEST_LOG_LIMIT`): 24 kB.
const LOG_MAX: usize = 1024;
/// Bytes of a stat in a node's hash.
const STAT_BYTES: usize = 60;
/// Data up to this length is copied behind its path, so that one call hashes both: three short calls cost twice as much.
const COPIED_BYTES_MAX: usize = 4096;

/// Everything below `/zookeeper` counts 0: Apache's quota statistics differ between servers.
fn counts(path: &str) -> bool {
    !path.starts_with("/zookeeper/")
}

fn stat_bytes(stat: &StatPersisted) -> [u8; STAT_BYTES] {
    let mut bytes = [0; STAT_BYTES];
    bytes[0..8].copy_from_slice(&stat.czxid.0.to_be_bytes());
    bytes[8..16].copy_from_slice(&stat.mzxid.0.to_be_bytes());
    bytes[16..24].copy_from_slice(&stat.pzxid.0.to_be_bytes());
    bytes[24..32].copy_from_slice(&stat.ctime_ms.to_be_bytes());
    bytes[32..40].copy_from_slice(&stat.mtime_ms.to_be_bytes());
    bytes[40..44].copy_from_slice(&stat.version.to_be_bytes());
    bytes[44..48].copy_from_slice(&stat.cversion.to_be_bytes());
    bytes[48..52].copy_from_slice(&stat.aversion.to_be_bytes());
    bytes[52..60].copy_from_slice(&stat.ephemeral_owner.to_be_bytes());
    bytes
}

/// What one node counts.
fn node_crc(path: &str, data: Option<&[u8]>, stat: &StatPersisted, scratch: &mut Vec<u8>) -> u32 {
    if !counts(path) {
        return 0;
    }
    let path = if path == path::ROOT { "" } else { path };
    let data = data.unwrap_or_default();
    if data.len() <= COPIED_BYTES_MAX {
        scratch.clear();
        scratch.extend_from_slice(path.as_bytes());
        scratch.extend_from_slice(data);
        scratch.extend_from_slice(&stat_bytes(stat));
        return crc32fast::hash(scratch);
    }
    let mut crc = Hasher::new();
    crc.update(path.as_bytes());
    crc.update(data);
    crc.update(&stat_bytes(stat));
    crc.finalize()
}

/// What a node counts after its stat changed from `before` to `after`, if it counted `crc` before.
fn changed_crc(crc: u32, before: &StatPersisted, after: &StatPersisted) -> u32 {
    let (before, after) = (stat_bytes(before), stat_bytes(after));
    // Zeros in front change nothing where the register starts at 0; whole steps of 16 bytes are the fastest.
    let mut difference = [0; 64];
    for (at, (before, after)) in before.iter().zip(&after).enumerate() {
        difference[64 - STAT_BYTES + at] = before ^ after;
    }
    let from = difference.chunks(16).take_while(|chunk| chunk.iter().all(|&byte| byte == 0)).count() * 16;
    // The crate inverts the register at either end; a difference must go through without.
    let mut hasher = Hasher::new_with_initial(u32::MAX);
    hasher.update(&difference[from..]);
    crc ^ !hasher.finalize()
}

/// What one node of the tree counts, computed anew.
pub(crate) fn node_digest(node: &NodeRef<'_>, scratch: &mut Vec<u8>) -> u64 {
    node_crc(node.path(), node.data(), &node.persisted(), scratch).into()
}

/// A digest and the transaction behind which the tree had it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoggedDigest {
    /// The transaction.
    pub zxid: Zxid,
    /// The digest, of [`DIGEST_VERSION`].
    pub digest: i64,
}

/// The sums, kept by the writer.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    /// `digest.enabled`.
    pub(crate) is_enabled: bool,
    applied: u64,
    prepared: u64,
    /// A loaded image may be fuzzy up to this transaction (P30), behind which it has this digest (P25).
    expected: Option<LoggedDigest>,
    /// The image's digest was not the tree's behind this transaction: damage, or only an image that was one transaction
    /// ahead of what it says. The next transaction of another server decides.
    suspect: Option<Zxid>,
    mismatches: u64,
    last_mismatch: Option<Zxid>,
    log: VecDeque<LoggedDigest>,
    scratch: Vec<u8>,
}

impl Digests {
    pub(crate) fn new(is_enabled: bool) -> Self {
        Self { is_enabled, ..Self::default() }
    }

    /// A node as it is about to be: what it will count.
    pub(crate) fn crc(&mut self, path: &str, data: Option<&[u8]>, stat: &StatPersisted) -> u32 {
        if self.is_enabled { node_crc(path, data, stat, &mut self.scratch) } else { 0 }
    }

    /// The same for a node of which only the stat changes.
    pub(crate) fn crc_of_stat(
        &self,
        path: &str,
        crc: u32,
        before: &StatPersisted,
        after: &StatPersisted,
    ) -> u32 {
        if self.is_enabled && counts(path) { changed_crc(crc, before, after) } else { 0 }
    }

    /// A prepared transaction makes a node count `after` instead of `before`; 0 where there is none.
    pub(crate) fn prepare(&mut self, before: u32, after: u32) {
        self.prepared = self.prepared.wrapping_sub(before.into()).wrapping_add(after.into());
    }

    /// The same for one that is applied.
    pub(crate) fn apply(&mut self, before: u32, after: u32) {
        self.applied = self.applied.wrapping_sub(before.into()).wrapping_add(after.into());
    }

    /// The children of `parent` are about to change.
    pub(crate) fn apply_children(&mut self, parent: &NodeRef<'_>, children: Children) {
        if !self.is_enabled {
            return;
        }
        let before = parent.persisted();
        let after = StatPersisted { cversion: children.cversion, pzxid: children.pzxid, ..before };
        let crc = self.crc_of_stat(parent.path(), parent.crc(), &before, &after);
        self.apply(parent.crc(), crc);
        parent.set_crc(crc);
    }

    /// The sum after the last prepared transaction.
    pub(crate) fn prepared(&self) -> u64 {
        self.prepared
    }

    /// Takes back what was prepared since the sum was `prepared`.
    pub(crate) fn roll_back(&mut self, prepared: u64) {
        self.prepared = prepared;
    }

    /// Nothing is prepared that is not applied.
    pub(crate) fn meet(&mut self) {
        self.prepared = self.applied;
    }

    /// Compares behind a transaction that carried `digest` (P34). One that was prepared here says nothing of what
    /// others have.
    pub(crate) fn check(&mut self, zxid: Zxid, digest: Option<TxnDigest>, is_prepared_here: bool) {
        if !self.is_enabled {
            return;
        }
        if is_prepared_here {
            self.settle();
        }
        let digest = digest.filter(|digest| digest.version == DIGEST_VERSION);
        if let Some(expected) = self.expected {
            // Inside a fuzzy image the tree is ahead of its transactions: nothing can be compared.
            if zxid < expected.zxid {
                return;
            }
            self.expected = None;
            if zxid == expected.zxid && expected.digest != self.applied as i64 {
                self.suspect = Some(zxid);
            }
        }
        if zxid.0 % LOG_INTERVAL == 0 {
            if self.log.len() == LOG_MAX {
                self.log.pop_front();
            }
            self.log.push_back(LoggedDigest { zxid, digest: self.applied as i64 });
        }
        // What the suspect transaction itself carried is what the image said.
        let Some(digest) = digest.filter(|_| self.suspect != Some(zxid)) else { return };
        if digest.digest == self.applied as i64 {
            self.suspect = None;
        } else {
            self.settle();
            self.mismatches += 1;
            self.last_mismatch = Some(zxid);
        }
    }

    /// Nobody else will say what the tree should be: an open suspicion counts.
    fn settle(&mut self) {
        if let Some(zxid) = self.suspect.take() {
            self.mismatches += 1;
            self.last_mismatch = Some(zxid);
        }
    }
}

impl Tree {
    /// The digest of the tree behind the last applied transaction, version 2. Kept up to date by the apply step; with
    /// digests disabled it is counted anew, about 0.1 us a node.
    pub fn digest(&self) -> i64 {
        if self.digests.is_enabled { self.digests.applied as i64 } else { self.recounted_digest() }
    }

    /// The same by a walk over all nodes: to test the sum that is kept. An [`crate::ImageWriter`] computes it too.
    pub fn recounted_digest(&self) -> i64 {
        let root = self.node(path::ROOT).expect("there is always a root");
        let mut scratch = Vec::new();
        let mut sum = 0_u64;
        let mut at = Some(root);
        while let Some(node) = at {
            sum = sum.wrapping_add(node_digest(&node, &mut scratch));
            at = node.next_in_walk(root);
        }
        sum as i64
    }

    /// Transactions and images whose digest was not the tree's (`digest_mismatches_count`, P34), and the last of them.
    /// The tree goes on, as in Apache; the caller says so in its log.
    pub fn digest_mismatches(&self) -> (u64, Option<Zxid>) {
        (self.digests.mismatches, self.digests.last_mismatch)
    }

    /// The digests remembered for `hash` (P34), oldest first: behind every 128th transaction, at most 1024.
    pub fn digest_log(&self) -> impl Iterator<Item = LoggedDigest> {
        self.digests.log.iter().copied()
    }

    /// What a loaded image says of its digest (P25): the tree has it behind transaction `zxid`, which may be later than
    /// the image's own where the image is fuzzy. To be called after [`Tree::set_last_applied`].
    ///
    /// A difference counts only once a later transaction of another server says the same, or
    /// [`Tree::settle_digest`] is called. For Apache writes images while it applies transactions, and first changes the
    /// nodes, then remembers the digest: between the two an image ends with a digest that is one transaction behind its
    /// nodes. Applied again, that transaction changes nothing, and behind it the tree is as it should be. (Apache
    /// itself then counts one mismatch, or two.)
    pub fn expect_digest(&mut self, zxid: Zxid, version: i32, digest: i64) {
        // Apache may write one that is older than the image, or 0 for a tree that never saw a transaction: they say
        // nothing.
        let is_void = zxid < self.last_applied || zxid <= Zxid::ZERO;
        if is_void || version != DIGEST_VERSION || !self.digests.is_enabled {
            return;
        }
        if zxid > self.last_applied {
            self.digests.expected = Some(LoggedDigest { zxid, digest });
        } else if digest != self.digests.applied as i64 {
            self.digests.suspect = Some(zxid);
        }
    }

    /// There is nothing to be applied any more that could say whether an image's digest was only early
    /// ([`Tree::expect_digest`]): it counts as a mismatch.
    pub fn settle_digest(&mut self) {
        self.digests.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P33: the shortcut for a changed stat must give what the whole hash gives, or replicas would seem to differ.
    #[test]
    fn a_changed_stat_counts_as_if_hashed_anew() {
        let mut scratch = Vec::new();
        let mut stat = StatPersisted {
            czxid: Zxid(0x1_0000_0007),
            mzxid: Zxid(0x1_0000_0008),
            ctime_ms: 1_700_000_000_000,
            mtime_ms: 1_700_000_000_001,
            pzxid: Zxid(0x1_0000_0007),
            ..StatPersisted::default()
        };
        let data = vec![7; COPIED_BYTES_MAX + 1];
        for data in [None, Some(&data[..0]), Some(&data[..100]), Some(&data[..])] {
            for path in ["/", "/a", "/some/longer/path-0000000001", "/zookeeper"] {
                for step in 0..9 {
                    let before = stat;
                    match step {
                        0 => stat.czxid.0 += 1,
                        1 => stat.mzxid.0 = -5,
                        2 => stat.pzxid.0 <<= 3,
                        3 => stat.ctime_ms += 77,
                        4 => stat.mtime_ms -= 1,
                        5 => stat.version = stat.version.wrapping_sub(9),
                        6 => stat.cversion += 1,
                        7 => stat.aversion -= 3,
                        _ => stat.ephemeral_owner = i64::MIN + step,
                    }
                    let crc = node_crc(path, data, &before, &mut scratch);
                    let expected = node_crc(path, data, &stat, &mut scratch);
                    assert_eq!(changed_crc(crc, &before, &stat), expected, "{path} step {step}");
                }
            }
        }
        assert_eq!(node_crc("/zookeeper/quota", None, &stat, &mut scratch), 0);
    }
}
