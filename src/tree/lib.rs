//! The replicated state: znodes, sessions, ACLs, and the three things one can do with them.
//!
//! * [`Tree::prepare`] turns a request into a transaction: it checks the request against the applied state with what is
//!   under way on top, and writes one record, always (a refusal is a record too, T27).
//! * [`Tree::apply`] is the only place where state changes. Leaders, followers and recovery apply the same bytes.
//! * [`Reader`] reads, on any core, at a view of its own, without a lock and without waiting for the writer.
//!
//! Pure: no clock, no randomness, no file, no socket, no thread. Time, session ids and zxids come in as arguments. The
//! crate has never heard of an epoch's meaning, a peer or a connection. Nothing depends on the order of a hash table.
//!
//! Rooms: `path` names; `acl` lists and checks; `session` ids, passwords, deadlines; `owned` who takes nodes away;
//! `overlay` what is prepared; `prepare`, `apply`, `read`; `watch` which core to wake; `image` snapshots; `digest`;
//! `quota` what subtrees hold; `growth` who is told of new memory; `znodes` the version store, the only room with `unsafe`.
#![deny(unsafe_code)]

pub mod acl;
pub mod apply;
mod digest;
mod growth;
pub mod image;
mod overlay;
pub mod owned;
pub mod path;
pub mod prepare;
pub mod quota;
pub mod read;
pub mod session;
mod watch;
#[allow(unsafe_code)]
mod znodes;

pub use apply::{Answer, Applied, ApplyError, Change, ChangeKind, Changes, MultiAnswer};
pub use digest::{DIGEST_VERSION, LoggedDigest};
pub use growth::GrowthListener;
pub use image::{EphemeralParent, ImageError, ImageWriter};
pub use prepare::{Ask, Prepared};
pub use read::Reader;
pub use session::{ExpiryQueue, Sessions};
pub use znodes::NodeRef;

use acl::{AclRules, AclTable};
use digest::Digests;
use overlay::Overlay;
use owned::{Owned, Owner};
use quota::Quotas;
use std::sync::Arc;
use watch::{Interest, InterestBooks};
use zkfast_wire::{SessionId, StatPersisted, Zxid};
use znodes::Znodes;

/// What an operator decides about the tree. Every server of an ensemble should have the same.
#[derive(Clone, Debug, Default)]
pub struct TreeConfig {
    /// Seed of the path hash: random per process, so that nobody can craft colliding paths.
    pub hash_seed: u64,
    /// `extendedTypesEnabled`: TTL nodes exist (T18).
    pub extended_types: bool,
    /// `skipACL=yes`: every permission check passes; lists are still fixed up (A17).
    pub skip_acl: bool,
    /// `reconfigEnabled`: without it a reconfig is refused with -123.
    pub reconfig_enabled: bool,
    /// `digest.enabled`: transactions carry the tree's digest, and those that come are compared (P34).
    pub has_digests: bool,
    /// `localSessionsEnabled`: whoever names a session that the database does not know may write, but make no ephemerals
    /// (S15): another server of the ensemble vouches for it.
    pub local_sessions: bool,
    /// `enforceQuota`: hard limits refuse (T42); without it they are only counted against.
    pub enforces_quotas: bool,
    /// Bytes of the longest transaction to be made; 0 for any. Who reads the log refuses longer ones: with Apache's
    /// defaults above 2 MiB (J6).
    pub record_bytes_max: usize,
    /// Which ACL schemes exist.
    pub acl_rules: AclRules,
    /// Who is told in which memory new nodes lie, if anybody.
    pub growth: Option<GrowthListener>,
}

/// The writer's half: owned by the pipeline core.
pub struct Tree {
    config: TreeConfig,
    znodes: Znodes,
    acls: AclTable,
    owned: Owned,
    sessions: Sessions,
    overlay: Overlay,
    interest: Arc<Interest>,
    digests: Digests,
    quotas: Quotas,
    last_applied: Zxid,
    last_prepared: Zxid,
    /// Sum of the lengths of all paths and data (`approximate_data_size`).
    data_bytes: u64,
    /// Where the names of sequential nodes are put together.
    path_scratch: String,
}

impl Tree {
    /// The tree of an empty disk: `/`, `/zookeeper`, its `quota` and `config` (T2).
    pub fn new(config: TreeConfig) -> Self {
        let mut tree = Self::empty(config);
        tree.load_node(path::ROOT, &StatPersisted::default(), None, Some(&[]));
        tree.add_system_nodes();
        tree
    }

    /// Adds what every tree has and an image of an old version may lack: clients read `/zookeeper/config` when they
    /// start (OP33).
    pub(crate) fn add_system_nodes(&mut self) {
        let stat = StatPersisted::default();
        self.load_node(path::ZOOKEEPER, &stat, None, Some(&[]));
        self.load_node(path::QUOTA, &stat, None, Some(&[]));
        let readable = self.acls.intern(&[zkfast_wire::Acl::READ_ONLY]);
        let stat = StatPersisted { aversion: -1, ..stat };
        self.load_node(path::CONFIG, &stat, readable, Some(&[]));
        self.digests.meet();
    }

    /// Shows the ensemble's configuration to clients, in `/zookeeper/config` (T44). It is what this server goes by, no
    /// transaction: nothing else of the tree changes. To be called while nobody reads.
    pub fn set_config(&mut self, text: &str, version: Zxid, time_ms: i64) {
        let key = self.znodes.key(path::CONFIG);
        let last = self.last_applied;
        let Some(mut node) = self.znodes.node_mut(key) else { return };
        let before = node.node().data_bytes() as u64;
        node.set_system_data(last, version, time_ms, text.as_bytes());
        self.data_bytes = self.data_bytes - before + text.len() as u64;
    }

    /// A tree with a bare root.
    pub(crate) fn empty(config: TreeConfig) -> Self {
        let seed = config.hash_seed;
        let digests = Digests::new(config.has_digests);
        let znodes = Znodes::new(seed, config.growth.clone());
        Self {
            config,
            digests,
            quotas: Quotas::default(),
            znodes,
            acls: AclTable::new(seed),
            owned: Owned::default(),
            sessions: Sessions::default(),
            overlay: Overlay::default(),
            interest: Interest::new(),
            last_applied: Zxid::ZERO,
            last_prepared: Zxid::ZERO,
            data_bytes: 0,
            path_scratch: String::new(),
        }
    }

    /// A reader for one core, at the last applied transaction. It must [`publish`](Reader::publish) once a turn: until
    /// it does, the versions that it might need are kept.
    pub fn reader(&mut self) -> Reader {
        Reader::new(self.znodes.reading(false), InterestBooks::new(self.interest.clone()))
    }

    /// The last applied transaction.
    pub fn last_applied(&self) -> Zxid {
        self.last_applied
    }

    /// A loaded image holds every transaction up to `zxid`: the next one applied is younger.
    ///
    /// # Panics
    /// If something younger is applied already.
    pub fn set_last_applied(&mut self, zxid: Zxid) {
        assert!(zxid >= self.last_applied, "state never goes back");
        self.last_applied = zxid;
        self.last_prepared = self.last_prepared.max(zxid);
        self.digests.meet();
        self.znodes.finish(zxid);
    }

    /// The node as the last applied transaction left it: for the core that owns the writer.
    pub fn node(&self, path: &str) -> Option<NodeRef<'_>> {
        self.znodes.node(self.znodes.key(path))
    }

    /// Fetches into the caches what preparing or applying writes to these paths will touch. To be called with the paths
    /// of a batch before its first request is prepared; on a tree of a million znodes it takes most of the waiting for
    /// memory out of each (see tuning.md, "The tree"). Has no other effect.
    pub fn prefetch<P: AsRef<[u8]>>(&self, paths: impl IntoIterator<Item = P>) {
        let mut hashes = [0; 32];
        let mut paths = paths.into_iter();
        loop {
            let mut count = 0;
            for (hash, path) in hashes.iter_mut().zip(paths.by_ref()) {
                *hash = self.znodes.hash(path.as_ref());
                count += 1;
            }
            self.znodes.prefetch(&hashes[..count]);
            if count < hashes.len() {
                return;
            }
        }
    }

    /// The sessions of the database.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The paths of a session's ephemerals, in path order; getEphemerals (OP25) filters them by prefix.
    pub fn ephemerals_of(&self, session: SessionId) -> impl Iterator<Item = &str> {
        self.owned.of(session)
    }

    /// Sessions that own ephemerals, ordered by id; some may not exist any more after a load (S8).
    pub fn ephemeral_owners(&self) -> Vec<SessionId> {
        self.owned.owners()
    }

    /// Number of ephemeral nodes (`zk_ephemerals_count`).
    pub fn ephemerals_count(&self) -> usize {
        self.owned.ephemeral_count()
    }

    /// Number of nodes as Apache counts them, the root twice (`zk_znode_count`, T4): 5 when fresh.
    pub fn node_count(&self) -> usize {
        self.znodes.count() + 1
    }

    /// Bytes of all paths and all data (`zk_approximate_data_size`, T4): 44 when fresh.
    pub fn approximate_data_size(&self) -> u64 {
        self.data_bytes
    }

    /// Number of distinct ACLs, without the open one.
    pub fn acl_count(&self) -> usize {
        self.acls.len()
    }

    /// Nodes with prepared, not yet applied changes.
    pub fn pending_count(&self) -> usize {
        self.overlay.len()
    }

    /// Old versions and deleted nodes that readers may still need.
    pub fn waiting_count(&self) -> usize {
        self.znodes.waiting()
    }

    /// Registered readers and images, including those dropped since the writer last looked.
    pub fn reader_count(&self) -> usize {
        self.znodes.reader_count()
    }

    /// Frees at once every old version that no reader needs. Takes as long as it takes: for measurements and tests;
    /// a running server frees a few with each transaction.
    pub fn settle(&mut self) {
        self.znodes.settle();
    }

    /// Cores besides `known` that may have a watch on something that changed: OR of their bits (section 4 of the
    /// architecture). To be called after the batch was pushed to every lane.
    pub fn interested_cores<'c>(&self, changes: impl IntoIterator<Item = &'c Change>, known: u64) -> u64 {
        self.interest.fence();
        let mut cores = known;
        if self.interest.any() & !cores == 0 {
            return 0;
        }
        let any_recursive = self.interest.any_recursive();
        for change in changes {
            let hash = self.znodes.key(&change.path).hash;
            cores |= self.interest.cores(hash);
            if change.kind != ChangeKind::DataChanged
                && let Some(parent) = path::parent(&change.path)
            {
                cores |= self.interest.cores(self.znodes.key(parent).hash);
            }
            if any_recursive & !cores == 0 {
                continue;
            }
            cores |= self.interest.recursive_cores(hash);
            for ancestor in path::ancestors(&change.path) {
                cores |= self.interest.recursive_cores(self.znodes.key(ancestor).hash);
            }
        }
        cores & !known
    }

    /// Looks at up to `look_max` containers and TTL nodes behind `after` in path order (empty: from the start) and
    /// returns those that may go now (T21, T22), with the path to go on after: `None` when all have been looked at. The
    /// caller posts a deleteContainer for each. Each look costs a look-up, so a round over many is made in parts.
    pub fn reapable(
        &self,
        now_ms: i64,
        never_used_ms: i64,
        after: &str,
        look_max: usize,
    ) -> (Vec<String>, Option<String>) {
        let mut due = Vec::new();
        let mut last = None;
        for path in self.owned.reapable_from(after).take(look_max) {
            if self.is_reapable(path, now_ms, never_used_ms) {
                due.push(path.to_owned());
            }
            last = Some(path);
        }
        let rest = last.filter(|last| self.owned.reapable_from(last).next().is_some());
        (due, rest.map(str::to_owned))
    }

    /// Whether the node is a container or a TTL node that may go now: it has no children, and a container had one
    /// before, or was not touched for longer than `never_used_ms` (0 spares those that never had a child); a TTL node
    /// was not set for longer than its time. Time is the wall clock in milliseconds (R16).
    pub fn is_reapable(&self, path: &str, now_ms: i64, never_used_ms: i64) -> bool {
        let Some(node) = self.node(path) else { return false };
        let stat = node.persisted();
        let idle_ms = now_ms.saturating_sub(stat.mtime_ms);
        node.num_children() == 0
            && match node.owner() {
                Owner::Container => stat.cversion > 0 || (never_used_ms > 0 && idle_ms > never_used_ms),
                Owner::Ttl(ttl_ms) => ttl_ms > 0 && idle_ms > ttl_ms,
                Owner::Nobody | Owner::Session(_) => false,
            }
    }

    /// Number of containers and TTL nodes.
    pub fn reapable_count(&self) -> usize {
        self.owned.reapable_count()
    }

    /// Adds a node as an image holds it. The root replaces the bare root; any other node's parent must be there.
    /// False if it is not, or if the node is there already.
    pub(crate) fn load_node(
        &mut self,
        path: &str,
        stat: &StatPersisted,
        acl: acl::NodeAcl,
        data: Option<&[u8]>,
    ) -> bool {
        let bytes = (path.len() + data.map_or(0, <[u8]>::len)) as u64;
        if path == path::ROOT {
            // Java's map of nodes holds the root under "" and "/" (T4).
            self.data_bytes += bytes + bytes - 1;
            self.znodes.root_mut().load_root(stat, acl, data);
            let crc = self.digests.crc(path, data, stat);
            self.znodes.root_mut().node().set_crc(crc);
            self.digests.apply(0, crc);
            return true;
        }
        let owner = Owner::decode(stat.ephemeral_owner, self.config.extended_types);
        let key = self.znodes.key(path);
        if self.znodes.node(key).is_some() {
            return false;
        }
        let Some(parent) = path::parent(path) else { return false };
        let parent = self.znodes.key(parent);
        let Some(mut parent) = self.znodes.node_mut(parent) else { return false };
        let crc = self.digests.crc(path, data, stat);
        parent.load_child(key, stat, owner, acl, data).node().set_crc(crc);
        self.digests.apply(0, crc);
        self.data_bytes += bytes;
        self.owned.insert(owner, path);
        true
    }
}

#[cfg(test)]
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Tree>();
    is_send::<Reader>();
};
