//! A number that two equal trees share (rows P33, P34; Java's `DigestCalculator`, version 2).

use crate::{Tree, path, znodes::NodeRef};
use crc32fast::Hasher;

/// The `digestVersion` that goes with it on disk and on the wire.
pub const DIGEST_VERSION: i32 = 2;

/// What one node adds. Everything below `/zookeeper` counts 0: Apache's quota statistics differ between servers.
pub(crate) fn node_digest(node: &NodeRef<'_>) -> u64 {
    let path = match node.path() {
        path::ROOT => "",
        path if path.starts_with("/zookeeper/") => return 0,
        path => path,
    };
    let stat = node.persisted();
    let mut fields = [0; 60];
    let mut rest = &mut fields[..];
    let mut put = |bytes: &[u8]| {
        let (start, after) = std::mem::take(&mut rest).split_at_mut(bytes.len());
        start.copy_from_slice(bytes);
        rest = after;
    };
    for field in [stat.czxid.0, stat.mzxid.0, stat.pzxid.0, stat.ctime_ms, stat.mtime_ms] {
        put(&field.to_be_bytes());
    }
    for field in [stat.version, stat.cversion, stat.aversion] {
        put(&field.to_be_bytes());
    }
    put(&stat.ephemeral_owner.to_be_bytes());
    let mut crc = Hasher::new();
    crc.update(path.as_bytes());
    crc.update(node.data().unwrap_or_default());
    crc.update(&fields);
    crc.finalize().into()
}

impl Tree {
    /// The digest of the whole tree, by a walk over all nodes: about 0.2 us each. An [`crate::ImageWriter`] computes
    /// the same on the side.
    pub fn digest(&self) -> i64 {
        let root = self.node(path::ROOT).expect("there is always a root");
        let mut sum = 0_u64;
        let mut at = Some(root);
        while let Some(node) = at {
            sum = sum.wrapping_add(node_digest(&node));
            at = node.next_in_walk(root);
        }
        sum as i64
    }
}
