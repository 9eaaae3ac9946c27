//! The only place where state changes (rows T9-T18, T34, T35, S7, P17, P18, P30, W10-W15).
//!
//! Runs on the pipeline core, in zxid order, on every replica, over the same bytes. What a transaction says was
//! decided when it was prepared; here nothing is checked, so that each replica arrives at the same state. Over an image
//! that already holds some of its effects (Apache's snapshots are written while the state moves on) a transaction
//! changes nothing back: T14, P30.

use crate::{
    Tree,
    acl::{self, NodeAcl},
    owned::Owner,
    path,
    quota::Difference,
    znodes::{Children, Newborn, NodeRef},
};
use bytes::Bytes;
use bytestring::ByteString;
use smallvec::SmallVec;
use std::{borrow::Cow, sync::Arc};
use zkfast_wire::{
    Acl, DecodeError, ErrorCode, Perms, SessionId, Stat, Txn, TxnHeader, Zxid,
    txn::{CreateTxn, CreateTxnMode, SetDataTxn},
};

/// What a transaction did.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Whose transaction it was, and when.
    pub header: TxnHeader,
    /// What the client that asked is told.
    pub answer: Answer,
    /// What watches may fire, in the order in which they fire (W15, T35).
    pub changes: Changes,
}

/// The reply that a transaction leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// A header with this code and no body (C17).
    Error(ErrorCode),
    /// No body: delete.
    Empty,
    /// create (no stat) and the other creations (with one).
    Created {
        /// The final path.
        path: ByteString,
        /// The new node's stat, where the reply has one (OP1, OP2).
        stat: Option<Stat>,
    },
    /// setData, setACL, reconfig.
    Stat(Stat),
    /// One result for each part, whether the multi succeeded or not (T31, T32).
    Multi(Vec<MultiAnswer>),
    /// createSession.
    SessionCreated {
        /// The negotiated timeout in milliseconds.
        timeout_ms: i32,
    },
    /// closeSession: its ephemerals are gone.
    SessionClosed,
}

/// The result of one part of a multi (T32).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MultiAnswer {
    /// The multi failed: this part's code, 0 for those before the failing one, -2 for those after it.
    Error(ErrorCode),
    /// create (type 1, no stat) or another creation (type 15, with stat).
    Created {
        /// The final path.
        path: ByteString,
        /// The new node's stat, if it was not a plain create.
        stat: Option<Stat>,
    },
    /// delete (2).
    Deleted,
    /// setData (5).
    Stat(Stat),
    /// check (13).
    Checked,
}

/// Something that a watch may fire on.
#[derive(Clone, Debug)]
pub struct Change {
    /// The node.
    pub path: ByteString,
    /// What happened to it.
    pub kind: ChangeKind,
    /// Who may hear of the node itself (W10): the created node's ACL, the deleted node's last one, the changed node's.
    /// `None`: everybody.
    pub acl: Option<Arc<[Acl<'static>]>>,
    /// Who may hear that the parent's children changed: the parent's ACL. `None`: everybody, or there is no such event.
    pub parent_acl: Option<Arc<[Acl<'static>]>>,
}

/// What happened to a node (W11-W13).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeKind {
    /// It exists now; the parent's children changed.
    Created,
    /// It is gone; the parent's children changed.
    Deleted,
    /// It has new data.
    DataChanged,
}

/// Why a record was not applied. The state did not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The bytes are no transaction (P17j): nobody may skip one, so the process cannot go on.
    #[error("the transaction cannot be decoded: {0}")]
    Decode(#[from] DecodeError),
    /// A zxid below the last applied one, or one that no leader gives out.
    #[error("transaction {zxid} after {last_applied}")]
    Order {
        /// The transaction's.
        zxid: Zxid,
        /// The last applied.
        last_applied: Zxid,
    },
}

/// Beyond any epoch that an ensemble will see; the numbers above have a meaning of their own in the version store.
const ZXID_MAX: Zxid = Zxid(i64::MAX - 16);

/// What every change of one transaction shares.
#[derive(Clone, Copy)]
struct Context<'a> {
    record: &'a Bytes,
    session: SessionId,
    zxid: Zxid,
    time_ms: i64,
}

impl Context<'_> {
    /// A path of the record, without a copy where it lies in the record as it is.
    fn path(&self, path: &str) -> ByteString {
        let lies_inside = self.record.as_ptr_range().contains(&path.as_ptr());
        if !lies_inside {
            return ByteString::from(path);
        }
        ByteString::try_from(self.record.slice_ref(path.as_bytes())).expect("a decoded path is UTF-8")
    }
}

/// What one transaction changed, in the order in which watches fire; most change one node.
pub type Changes = SmallVec<[Change; 1]>;

impl Tree {
    /// Applies one record: a `TxnHeader` and its body, as [`prepare`](Tree::prepare) wrote it here or on another server.
    ///
    /// # Errors
    /// If the bytes are no transaction, or one from before the last applied. The state is unchanged then.
    pub fn apply(&mut self, record: &Bytes) -> Result<Applied, ApplyError> {
        let (header, txn, digest) = Txn::decode_record(record)?;
        let zxid = header.zxid;
        // Equal is allowed: Apache gives the ErrorTxn of an undecodable request the zxid of its predecessor (C27).
        if zxid < self.last_applied || zxid > ZXID_MAX {
            return Err(ApplyError::Order { zxid, last_applied: self.last_applied });
        }
        let context = Context { record, session: header.session, zxid, time_ms: header.time_ms };
        let mut changes = Changes::new();
        let is_prepared_here = zxid <= self.last_prepared;
        let answer = self.apply_txn(context, &txn, &mut changes);
        self.last_applied = zxid;
        self.last_prepared = self.last_prepared.max(zxid);
        self.overlay.applied(zxid);
        self.quotas.applied(zxid);
        self.digests.check(zxid, digest, is_prepared_here);
        if self.last_prepared == zxid {
            self.digests.meet();
        }
        self.znodes.finish(zxid);
        Ok(Applied { header, answer, changes })
    }

    fn apply_txn(&mut self, context: Context<'_>, txn: &Txn<'_>, changes: &mut Changes) -> Answer {
        match txn {
            Txn::Create(create) => match self.apply_create(context, create, changes) {
                Ok((path, stat)) => Answer::Created { path, stat },
                Err(error) => Answer::Error(error),
            },
            Txn::Delete { path } | Txn::DeleteContainer { path } => {
                match self.apply_delete(context, path, changes) {
                    Ok(()) => Answer::Empty,
                    Err(error) => Answer::Error(error),
                }
            }
            Txn::SetData(set) | Txn::Reconfig(set) => answer_stat(self.apply_set_data(context, set, changes)),
            Txn::SetAcl { path, acl, version } => {
                answer_stat(self.apply_set_acl(context, path, acl, *version))
            }
            // Only a multi may hold one; alone it changes nothing (C25).
            Txn::Check { .. } => Answer::Empty,
            Txn::CreateSession { timeout_ms } => {
                self.sessions.put(context.session, *timeout_ms);
                Answer::SessionCreated { timeout_ms: *timeout_ms }
            }
            Txn::CloseSession { paths } => {
                self.apply_close_session(context, paths.as_deref().unwrap_or_default(), changes);
                Answer::SessionClosed
            }
            Txn::Multi(parts) => Answer::Multi(self.apply_multi(context, parts, changes)),
            Txn::Error(error) => Answer::Error(*error),
        }
    }

    /// T34: a failed multi holds ordinary parts before its first error part. They must not be applied.
    fn apply_multi(
        &mut self,
        context: Context<'_>,
        parts: &[Txn<'_>],
        changes: &mut Changes,
    ) -> Vec<MultiAnswer> {
        if parts.iter().any(|part| matches!(part, Txn::Error(_))) {
            let code_of = |part: &Txn<'_>| match part {
                Txn::Error(error) => *error,
                _ => ErrorCode::OK,
            };
            return parts.iter().map(|part| MultiAnswer::Error(code_of(part))).collect();
        }
        let mut answers = Vec::with_capacity(parts.len());
        for part in parts {
            answers.push(match self.apply_txn(context, part, changes) {
                Answer::Error(error) => MultiAnswer::Error(error),
                Answer::Created { path, stat } => MultiAnswer::Created { path, stat },
                Answer::Stat(stat) => MultiAnswer::Stat(stat),
                Answer::Empty if matches!(part, Txn::Check { .. }) => MultiAnswer::Checked,
                Answer::Empty | Answer::Multi(_) | Answer::SessionCreated { .. } | Answer::SessionClosed => {
                    MultiAnswer::Deleted
                }
            });
        }
        answers
    }

    fn apply_create(
        &mut self,
        context: Context<'_>,
        create: &CreateTxn<'_>,
        changes: &mut Changes,
    ) -> Result<(ByteString, Option<Stat>), ErrorCode> {
        let owner = match create.mode {
            CreateTxnMode::Create { ephemeral: true } | CreateTxnMode::Create2 { ephemeral: true } => {
                Owner::decode(context.session.0, self.config.extended_types)
            }
            CreateTxnMode::Create { ephemeral: false } | CreateTxnMode::Create2 { ephemeral: false } => {
                Owner::Nobody
            }
            CreateTxnMode::Container => Owner::Container,
            CreateTxnMode::Ttl { ttl_ms } => {
                Owner::decode(Owner::Ttl(ttl_ms).encode(), self.config.extended_types)
            }
        };
        let list = self.acls.intern(&create.acl);
        let parent_path = path::parent(&create.path).ok_or(ErrorCode::NO_NODE)?;
        let key = self.znodes.key(&create.path);
        let parent_key = self.znodes.key(parent_path);
        let mut parent = self.znodes.node_mut(parent_key).ok_or(ErrorCode::NO_NODE)?;
        if parent.other(key).is_some() {
            return Err(self.apply_create_again(context, create, list));
        }
        let parent_acl = list_to_check(&parent.node());
        let now = parent.node().children_state();
        let children = raised(now, create, context.zxid).unwrap_or(now);
        self.digests.apply_children(&parent.node(), children);
        let newborn =
            Newborn { czxid: context.zxid, ctime_ms: context.time_ms, owner, acl: list, data: create.data };
        let node = parent.create_child(key, newborn, children);
        if self.digests.is_enabled {
            let crc = self.digests.crc(&create.path, create.data, &node.persisted());
            self.digests.apply(0, crc);
            node.set_crc(crc);
        }
        let stat = match create.mode {
            CreateTxnMode::Create { .. } => None,
            CreateTxnMode::Create2 { .. } | CreateTxnMode::Container | CreateTxnMode::Ttl { .. } => {
                Some(node.stat())
            }
        };
        let acl = list_to_check(&node);
        self.owned.insert(owner, &create.path);
        let bytes = create.data.map_or(0, <[u8]>::len);
        self.data_bytes += (create.path.len() + bytes) as u64;
        self.quota_created(context.zxid, &create.path, bytes);
        let path = context.path(&create.path);
        changes.push(Change { path: path.clone(), kind: ChangeKind::Created, acl, parent_acl });
        Ok((path, stat))
    }

    /// A replay over a newer image finds the node there: it takes the transaction's list and nothing else, and the
    /// parent's counters are raised (T14). Apache raises them for type 1 alone, which leaves a create2's parent behind.
    fn apply_create_again(
        &mut self,
        context: Context<'_>,
        create: &CreateTxn<'_>,
        list: NodeAcl,
    ) -> ErrorCode {
        let key = self.znodes.key(&create.path);
        if let Some(mut node) = self.znodes.node_mut(key)
            && !same_list(&node.node(), &list)
        {
            // Neither ACL nor aversion changes what the node counts.
            let aversion = node.node().aversion();
            node.set_acl(context.zxid, aversion, list);
        }
        let parent_key = self.znodes.key(path::parent(&create.path).unwrap_or(path::ROOT));
        if let Some(mut parent) = self.znodes.node_mut(parent_key)
            && let Some(children) = raised(parent.node().children_state(), create, context.zxid)
        {
            self.digests.apply_children(&parent.node(), children);
            parent.set_children(context.zxid, children);
        }
        ErrorCode::NODE_EXISTS
    }

    fn apply_delete(
        &mut self,
        context: Context<'_>,
        path: &str,
        changes: &mut Changes,
    ) -> Result<(), ErrorCode> {
        let parent_path = path::parent(path).ok_or(ErrorCode::NO_NODE)?;
        if path::is_protected(path) {
            return Err(ErrorCode::NO_NODE);
        }
        let key = self.znodes.key(path);
        if self.znodes.node(key).is_none() {
            // A replay over a newer image: the parent's pzxid still counts (T14, ZOOKEEPER-3145).
            let parent_key = self.znodes.key(parent_path);
            if let Some(mut parent) = self.znodes.node_mut(parent_key) {
                let now = parent.node().children_state();
                if context.zxid > now.pzxid {
                    let children = Children { pzxid: context.zxid, ..now };
                    self.digests.apply_children(&parent.node(), children);
                    parent.set_children(context.zxid, children);
                }
            }
            return Err(ErrorCode::NO_NODE);
        }
        self.delete_descendants(context.zxid, path);
        let (acl, parent_acl) = self.delete_node(context.zxid, path).expect("looked up above");
        changes.push(Change { path: context.path(path), kind: ChangeKind::Deleted, acl, parent_acl });
        Ok(())
    }

    /// Removes one ephemeral of a session that does not exist (S8), at the last applied transaction; whether it was there.
    pub(crate) fn remove_ephemeral(&mut self, path: &str) -> bool {
        self.delete_node(self.last_applied, path).is_some()
    }

    /// Removes one node without children; the ACLs of node and parent.
    fn delete_node(&mut self, zxid: Zxid, path: &str) -> Option<(SharedList, SharedList)> {
        let node = self.znodes.node_mut(self.znodes.key(path))?;
        let (acl, parent_acl, owner, bytes, children) = {
            let node = node.node();
            let parent = node.parent()?;
            let bytes = node.data_bytes();
            let now = parent.children_state();
            // T13, T14.
            let children = Children { pzxid: now.pzxid.max(zxid), ..now };
            self.digests.apply(node.crc(), 0);
            self.digests.apply_children(&parent, children);
            (list_to_check(&node), list_to_check(&parent), node.owner(), bytes, children)
        };
        node.delete(zxid, children);
        self.owned.remove(owner, path);
        self.data_bytes -= (path.len() + bytes) as u64;
        self.quota_deleted(zxid, path, bytes);
        Some((acl, parent_acl))
    }

    /// Only a replay over a newer image meets children here: 1. /a is deleted. 2. /a and /a/b are created. 3. The image
    /// takes them in. 4. The log is replayed from before 1. What comes later in the log creates them again, with the
    /// same stat. (Apache leaves /a/b in its map without being its parent's child.)
    fn delete_descendants(&mut self, zxid: Zxid, path: &str) {
        loop {
            // The first leaf below, if any.
            let leaf = {
                let Some(top) = self.znodes.node(self.znodes.key(path)) else { return };
                let mut leaf = None;
                let mut at = top.child_nodes().next();
                while let Some(node) = at {
                    at = node.child_nodes().next();
                    leaf = Some(node.path().to_owned());
                }
                leaf
            };
            match leaf {
                Some(leaf) => self.delete_node(zxid, &leaf).expect("just found"),
                None => return,
            };
        }
    }

    fn apply_set_data(
        &mut self,
        context: Context<'_>,
        set: &SetDataTxn<'_>,
        changes: &mut Changes,
    ) -> Result<Stat, ErrorCode> {
        let key = self.znodes.key(&set.path);
        let mut node = self.znodes.node_mut(key).ok_or(ErrorCode::NO_NODE)?;
        let bytes_before = node.node().data_bytes();
        node.set_data(context.zxid, context.time_ms, set.version, set.data);
        let after = node.node();
        let (stat, acl) = (after.stat(), list_to_check(&after));
        if self.digests.is_enabled {
            let crc = self.digests.crc(&set.path, set.data, &after.persisted());
            self.digests.apply(after.crc(), crc);
            after.set_crc(crc);
        }
        let bytes = after.data_bytes();
        self.data_bytes = self.data_bytes - bytes_before as u64 + bytes as u64;
        let difference = Difference { count: 0, bytes: bytes as i64 - bytes_before as i64 };
        self.quota_changed(context.zxid, &set.path, difference);
        let path = context.path(&set.path);
        changes.push(Change { path, kind: ChangeKind::DataChanged, acl, parent_acl: None });
        Ok(stat)
    }

    /// T11: nothing but ACL and aversion, and no watch fires (W14).
    fn apply_set_acl(
        &mut self,
        context: Context<'_>,
        path: &str,
        acl: &[Acl<'_>],
        aversion: i32,
    ) -> Result<Stat, ErrorCode> {
        let list = self.acls.intern(acl);
        let key = self.znodes.key(path);
        let mut node = self.znodes.node_mut(key).ok_or(ErrorCode::NO_NODE)?;
        let before = node.node().persisted();
        node.set_acl(context.zxid, aversion, list);
        let after = node.node();
        let crc = self.digests.crc_of_stat(path, after.crc(), &before, &after.persisted());
        self.digests.apply(after.crc(), crc);
        after.set_crc(crc);
        Ok(after.stat())
    }

    /// P18, S7: the listed paths first, then whatever else the session still owns.
    fn apply_close_session(&mut self, context: Context<'_>, paths: &[Cow<'_, str>], changes: &mut Changes) {
        for path in paths {
            // Missing ones are fine: a replay (P30).
            let _ = self.apply_delete(context, path, changes);
        }
        let left: Vec<String> = self.owned.of(context.session).map(str::to_owned).collect();
        for path in left {
            let _ = self.apply_delete(context, &path, changes);
        }
        self.sessions.remove(context.session);
    }
}

/// The parent's counters after a creation, if it moves them (T14: only forward). So they end at 2147483647, as in Apache's
/// servers, whose replicas of the tree must be like this one (T7).
fn raised(now: Children, create: &CreateTxn<'_>, zxid: Zxid) -> Option<Children> {
    let cversion = match create.parent_cversion {
        // CreateTxnV0 of 3.3 and before (P17).
        -1 => now.cversion.wrapping_add(1),
        cversion => cversion,
    };
    (cversion > now.cversion).then_some(Children { cversion, pzxid: zxid })
}

fn answer_stat(outcome: Result<Stat, ErrorCode>) -> Answer {
    match outcome {
        Ok(stat) => Answer::Stat(stat),
        Err(error) => Answer::Error(error),
    }
}

type SharedList = Option<Arc<[Acl<'static>]>>;

/// The list that W10's filter has to check, unless everybody may read.
fn list_to_check(node: &NodeRef<'_>) -> SharedList {
    let list = node.acl_list()?;
    if acl::allowed(&list.entries, Perms::READ, &[]) {
        return None;
    }
    Some(list.entries.clone())
}

fn same_list(node: &NodeRef<'_>, list: &NodeAcl) -> bool {
    match (node.acl_list(), list) {
        (None, None) => true,
        (Some(held), Some(list)) => std::ptr::eq(held, &raw const **list),
        (None, Some(_)) | (Some(_), None) => false,
    }
}
