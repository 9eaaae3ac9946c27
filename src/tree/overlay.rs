//! What prepared transactions will have changed once they are applied (Java's `outstandingChanges`).
//!
//! Lives on the core that prepares: the leader's or a standalone server's pipeline core. A request is checked against
//! the applied tree with these changes on top, so that a thousand requests can be under way at once. Entries leave when
//! the transaction that made them last is applied, so the overlay is as large as what is in flight.
//!
//! Nothing is allocated for an entry in the steady state: entries and their path buffers are used again.

use crate::{
    acl::NodeAcl,
    owned::Owner,
    znodes::{Key, NodeRef},
};
use hashbrown::{HashMap, HashTable};
use std::collections::VecDeque;
use zkfast_wire::{SessionId, StatPersisted, Zxid};

/// What the checks need to know of a node that prepared transactions touch.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    /// False once a delete is prepared.
    pub(crate) exists: bool,
    /// Its ephemeral owner is that of `owner`.
    pub(crate) stat: StatPersisted,
    pub(crate) children: i32,
    /// Length of the data.
    pub(crate) data_bytes: usize,
    pub(crate) owner: Owner,
    /// What the node counts in the digest.
    pub(crate) crc: u32,
    /// The ACL, if a prepared transaction gives the node one; otherwise the applied node's holds.
    pub(crate) acl: Option<NodeAcl>,
}

impl Pending {
    /// A node as it is applied.
    pub(crate) fn of(node: &NodeRef<'_>) -> Self {
        Self {
            exists: true,
            stat: node.persisted(),
            children: node.child_count(),
            data_bytes: node.data_bytes(),
            owner: node.owner(),
            crc: node.crc(),
            acl: None,
        }
    }
}

struct Entry {
    path: String,
    hash: u64,
    /// The last prepared transaction that touches the node; [`FREE`] while the entry is not in use.
    zxid: Zxid,
    pending: Pending,
}

const FREE: Zxid = Zxid(i64::MIN);

/// What an entry was before a part of a multi changed it.
struct Undo {
    at: u32,
    before: Option<(Zxid, Pending)>,
}

/// The prepared, not yet applied changes.
#[derive(Default)]
pub(crate) struct Overlay {
    index: HashTable<u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Which entries each transaction touched, in zxid order.
    order: VecDeque<(Zxid, u32)>,
    /// Prepared creations and closings of sessions: true while the session lives.
    sessions: HashMap<SessionId, (Zxid, bool)>,
    session_order: VecDeque<(Zxid, SessionId)>,
    /// Entries that hold a prepared ephemeral; an upper bound, exact when 0.
    ephemerals: usize,
    /// `Some` while the parts of a multi are prepared.
    undo: Option<Vec<Undo>>,
    undo_spare: Vec<Undo>,
}

impl Overlay {
    /// Nodes with prepared changes.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// What is prepared for a node: `None` if nothing.
    pub(crate) fn get(&self, key: Key<'_>) -> Option<&Pending> {
        if self.index.is_empty() {
            return None;
        }
        self.find(key).map(|at| &self.entries[at as usize].pending)
    }

    fn find(&self, key: Key<'_>) -> Option<u32> {
        let matches = |at: &u32| {
            let entry = &self.entries[*at as usize];
            entry.hash == key.hash && entry.path == key.path
        };
        self.index.find(key.hash, matches).copied()
    }

    /// Records that transaction `zxid` leaves the node as `pending`.
    pub(crate) fn put(&mut self, key: Key<'_>, zxid: Zxid, pending: Pending) {
        if pending.exists && matches!(pending.owner, Owner::Session(_)) {
            self.ephemerals += 1;
        }
        let at = match self.find(key) {
            Some(at) => {
                let entry = &mut self.entries[at as usize];
                let before = (entry.zxid, std::mem::replace(&mut entry.pending, pending));
                let touched_already = entry.zxid == zxid;
                entry.zxid = zxid;
                if let Some(undo) = &mut self.undo {
                    undo.push(Undo { at, before: Some(before) });
                }
                if touched_already {
                    return;
                }
                at
            }
            None => {
                let at = self.take_entry(key, zxid, pending);
                self.index.insert_unique(key.hash, at, |at| self.entries[*at as usize].hash);
                if let Some(undo) = &mut self.undo {
                    undo.push(Undo { at, before: None });
                }
                at
            }
        };
        self.order.push_back((zxid, at));
    }

    fn take_entry(&mut self, key: Key<'_>, zxid: Zxid, pending: Pending) -> u32 {
        if let Some(at) = self.free.pop() {
            let entry = &mut self.entries[at as usize];
            entry.path.clear();
            entry.path.push_str(key.path);
            (entry.hash, entry.zxid, entry.pending) = (key.hash, zxid, pending);
            return at;
        }
        self.entries.push(Entry { path: key.path.to_owned(), hash: key.hash, zxid, pending });
        u32::try_from(self.entries.len() - 1).expect("what is in flight is bounded")
    }

    /// Whether a session is prepared to live or to be closed: `None` if neither.
    pub(crate) fn session(&self, session: SessionId) -> Option<bool> {
        if self.sessions.is_empty() {
            return None;
        }
        self.sessions.get(&session).map(|&(_, alive)| alive)
    }

    /// Records that transaction `zxid` creates or closes a session.
    pub(crate) fn put_session(&mut self, session: SessionId, zxid: Zxid, alive: bool) {
        self.sessions.insert(session, (zxid, alive));
        self.session_order.push_back((zxid, session));
    }

    /// The prepared ephemerals of a session, in path order.
    pub(crate) fn ephemerals_of(&self, session: SessionId) -> Vec<&str> {
        if self.ephemerals == 0 {
            return Vec::new();
        }
        let owner = Owner::Session(session);
        let mut paths: Vec<&str> = self
            .order
            .iter()
            .map(|&(_, at)| &self.entries[at as usize])
            .filter(|entry| entry.zxid != FREE && entry.pending.exists && entry.pending.owner == owner)
            .map(|entry| entry.path.as_str())
            .collect();
        paths.sort_unstable();
        paths.dedup();
        paths
    }

    /// Transaction `zxid` is applied: what it and earlier ones left is in the tree now.
    pub(crate) fn applied(&mut self, zxid: Zxid) {
        while let Some(&(touched, at)) = self.order.front()
            && touched <= zxid
        {
            self.order.pop_front();
            if self.entries[at as usize].zxid == touched {
                self.release(at);
            }
        }
        while let Some(&(touched, session)) = self.session_order.front()
            && touched <= zxid
        {
            self.session_order.pop_front();
            if self.sessions.get(&session).is_some_and(|&(last, _)| last == touched) {
                self.sessions.remove(&session);
            }
        }
        if self.index.is_empty() {
            self.ephemerals = 0;
        }
    }

    fn release(&mut self, at: u32) {
        let entry = &mut self.entries[at as usize];
        entry.zxid = FREE;
        entry.pending.acl = None;
        let found = self.index.find_entry(entry.hash, |held| *held == at);
        found.expect("an entry in use is in the index").remove();
        self.free.push(at);
    }

    /// From here on, changes can be taken back: the parts of a multi begin.
    pub(crate) fn begin(&mut self) {
        assert!(self.undo.is_none(), "a multi has no multi inside");
        self.undo = Some(std::mem::take(&mut self.undo_spare));
    }

    /// The parts of a multi are all good.
    pub(crate) fn keep(&mut self) {
        let mut undo = self.undo.take().expect("a multi began");
        undo.clear();
        self.undo_spare = undo;
    }

    /// A part of the multi `zxid` failed: everything is as before [`begin`](Self::begin) (T33).
    pub(crate) fn roll_back(&mut self, zxid: Zxid) {
        let mut undo = self.undo.take().expect("a multi began");
        while let Some(&(touched, _)) = self.order.back()
            && touched == zxid
        {
            self.order.pop_back();
        }
        for Undo { at, before } in undo.drain(..).rev() {
            match before {
                None => self.release(at),
                Some((zxid, pending)) => {
                    let entry = &mut self.entries[at as usize];
                    (entry.zxid, entry.pending) = (zxid, pending);
                }
            }
        }
        self.undo_spare = undo;
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
