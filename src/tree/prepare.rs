//! From a request to a transaction (rows T1, T6-T8, T18, T23, T24, T27-T37, A13-A15, S6, S7).
//!
//! Runs on the core that decides the order: a leader's or a standalone server's pipeline core. The order of the checks
//! decides which error wins, so each function follows its row of section 3.2 line by line. Every call writes exactly
//! one record; a refused request becomes an ErrorTxn with the same zxid (T27).

use crate::{
    Tree,
    acl::{self, NodeAcl},
    digest::DIGEST_VERSION,
    overlay::{Overlay, Pending},
    owned::{Owner, TTL_MS_MAX},
    path,
    quota::Difference,
    znodes::{Key, NodeRef, Znodes},
};
use bytes::BufMut;
use std::borrow::Cow;
use zkfast_wire::{
    Acl, ErrorCode, Id, OpCode, Perms, Request, SessionId, StatPersisted, TxnHeader, Zxid, jute,
    request::{CreateRequest, PathVersion, SetAclRequest, SetDataRequest},
};

/// A request that is to become a transaction.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Who asks; the session to close for closeSession, the new id for createSession, 0 for the reaper.
    pub session: SessionId,
    /// The request's xid; 0 for the server's own.
    pub cxid: i32,
    /// The transaction's place: one above the last.
    pub zxid: Zxid,
    /// Wall clock, milliseconds since 1970 (T15).
    pub time_ms: i64,
    /// The operation; agrees with `request`.
    pub op: OpCode,
    /// What is asked for.
    pub request: &'a Request<'a>,
    /// Who the connection has proved to be (A1).
    pub identities: &'a [Id<'static>],
}

/// What became of an [`Ask`]. The record is in the caller's buffer either way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prepared {
    /// OK, or why the record is an ErrorTxn. A failed multi counts as OK here: its parts say what failed (T31, T34).
    pub error: ErrorCode,
}

/// A node as a request finds it: prepared changes win over the applied state.
enum Seen<'t> {
    Applied(NodeRef<'t>),
    /// With the applied node, where the entry says nothing of the ACL.
    Pending(&'t Pending, Option<NodeRef<'t>>),
}

fn look<'t>(znodes: &'t Znodes, overlay: &'t Overlay, key: Key<'_>) -> Option<Seen<'t>> {
    match overlay.get(key) {
        None => znodes.node(key).map(Seen::Applied),
        Some(pending) if !pending.exists => None,
        Some(pending) if pending.acl.is_some() => Some(Seen::Pending(pending, None)),
        Some(pending) => znodes.node(key).map(|node| Seen::Pending(pending, Some(node))),
    }
}

impl Seen<'_> {
    fn version(&self) -> i32 {
        match self {
            Self::Applied(node) => node.version(),
            Self::Pending(pending, _) => pending.stat.version,
        }
    }

    fn aversion(&self) -> i32 {
        match self {
            Self::Applied(node) => node.aversion(),
            Self::Pending(pending, _) => pending.stat.aversion,
        }
    }

    fn owner(&self) -> Owner {
        match self {
            Self::Applied(node) => node.owner(),
            Self::Pending(pending, _) => pending.owner,
        }
    }

    fn children(&self) -> i32 {
        match self {
            Self::Applied(node) => node.num_children(),
            Self::Pending(pending, _) => pending.children,
        }
    }

    fn acl(&self) -> &[Acl<'static>] {
        match self {
            Self::Applied(node) | Self::Pending(Pending { acl: None, .. }, Some(node)) => node.acl(),
            Self::Pending(pending, _) => pending.acl.as_ref().map_or(&acl::OPEN_LIST, acl::entries),
        }
    }

    fn pending(&self) -> Pending {
        match self {
            Self::Applied(node) => Pending::of(node),
            Self::Pending(pending, _) => (*pending).clone(),
        }
    }
}

/// Create modes (OP34).
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mode {
    sequential: bool,
    kind: ModeKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ModeKind {
    Persistent,
    Ephemeral,
    Container,
    Ttl,
}

impl Mode {
    fn from_flags(flags: i32) -> Option<Self> {
        let (sequential, kind) = match flags {
            0 => (false, ModeKind::Persistent),
            1 => (false, ModeKind::Ephemeral),
            2 => (true, ModeKind::Persistent),
            3 => (true, ModeKind::Ephemeral),
            4 => (false, ModeKind::Container),
            5 => (false, ModeKind::Ttl),
            6 => (true, ModeKind::Ttl),
            _ => return None,
        };
        Some(Self { sequential, kind })
    }
}

/// The next version, if `expected` (-1: any) allows it.
fn next_version(current: i32, expected: i32) -> Result<i32, ErrorCode> {
    if expected == -1 || expected == current {
        Ok(current.wrapping_add(1))
    } else {
        Err(ErrorCode::BAD_VERSION)
    }
}

/// `Err(error)` unless `good`.
fn require(good: bool, error: ErrorCode) -> Result<(), ErrorCode> {
    if good { Ok(()) } else { Err(error) }
}

impl Tree {
    /// Turns a request into the record of a transaction, appended to `out`.
    ///
    /// # Panics
    /// If zxids do not rise, or `ask.op` is not the operation of `ask.request`.
    pub fn prepare(&mut self, ask: &Ask<'_>, out: &mut Vec<u8>) -> Prepared {
        assert!(ask.zxid > self.last_prepared, "each transaction has a zxid of its own");
        self.last_prepared = ask.zxid;
        let start = out.len();
        header(ask, ask.op).encode(out);
        let outcome = match ask.request {
            Request::Multi(parts) => self.prepare_multi(ask, parts, out),
            request => self.prepare_body(ask, request, out),
        };
        match outcome {
            Ok(()) => {
                if self.digests.is_enabled {
                    out.put_i32(DIGEST_VERSION);
                    out.put_u64(self.digests.prepared());
                }
                Prepared { error: ErrorCode::OK }
            }
            Err(error) => {
                out.truncate(start);
                write_error(ask.session, ask.cxid, ask.zxid, ask.time_ms, error, out);
                Prepared { error }
            }
        }
    }

    /// Writes the ErrorTxn of a request that never became an [`Ask`]: one that could not be decoded (C27), or that the
    /// pipeline refuses.
    ///
    /// # Panics
    /// If zxids do not rise.
    pub fn prepare_error(
        &mut self,
        session: SessionId,
        cxid: i32,
        zxid: Zxid,
        time_ms: i64,
        error: ErrorCode,
        out: &mut Vec<u8>,
    ) -> Prepared {
        assert!(zxid > self.last_prepared, "each transaction has a zxid of its own");
        self.last_prepared = zxid;
        write_error(session, cxid, zxid, time_ms, error, out);
        Prepared { error }
    }

    /// Forgets what is prepared and not applied: the leader's reign ended.
    pub fn discard_pending(&mut self) {
        self.overlay.clear();
        self.digests.meet();
        self.quotas.clear_prepared();
        self.last_prepared = self.last_applied;
    }

    /// Writes the body of anything but a multi.
    fn prepare_body(
        &mut self,
        ask: &Ask<'_>,
        request: &Request<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), ErrorCode> {
        match request {
            Request::Create(op, create) => self.prepare_create(ask, *op, create, out),
            Request::Delete(delete) => self.prepare_delete(ask, delete, out),
            Request::SetData(set) => self.prepare_set_data(ask, set, out),
            Request::SetAcl(set) => self.prepare_set_acl(ask, set, out),
            Request::Check(check) => self.prepare_check(ask, check, out),
            Request::DeleteContainer(path) => self.prepare_delete_container(ask, path, out),
            Request::CreateSession(timeout_ms) => {
                self.overlay.put_session(ask.session, ask.zxid, true);
                out.put_i32(*timeout_ms);
                Ok(())
            }
            Request::CloseSession => {
                self.prepare_close_session(ask, out);
                Ok(())
            }
            // A change of membership is decided above this crate; alone there is none (OP19).
            Request::Reconfig(_) if !self.config.reconfig_enabled => Err(ErrorCode::RECONFIG_DISABLED),
            Request::Reconfig(_) => Err(ErrorCode::UNIMPLEMENTED),
            Request::Multi(_)
            | Request::Exists(_)
            | Request::GetData(_)
            | Request::GetAcl(_)
            | Request::GetChildren(_)
            | Request::GetChildren2(_)
            | Request::Sync(_)
            | Request::Ping
            | Request::MultiRead(_)
            | Request::CheckWatches(..)
            | Request::RemoveWatches(..)
            | Request::Auth(_)
            | Request::SetWatches(_)
            | Request::Sasl(_)
            | Request::GetEphemerals(_)
            | Request::GetAllChildrenNumber(_)
            | Request::AddWatch(..)
            | Request::WhoAmI => Err(ErrorCode::UNIMPLEMENTED),
        }
    }

    /// T33, T34: the parts are checked one after the other, each seeing the ones before; if one fails, none counts, and
    /// the record says so with error parts from there on.
    fn prepare_multi(
        &mut self,
        ask: &Ask<'_>,
        parts: &[Request<'_>],
        out: &mut Vec<u8>,
    ) -> Result<(), ErrorCode> {
        // OP34: creates that mean nothing fail the whole request, as when Java decodes it.
        let is_create = |part: &Request<'_>| !matches!(part, Request::Create(op, create) if part_of_multi(*op, create).is_none());
        require(parts.iter().all(is_create), ErrorCode::MARSHALLING_ERROR)?;
        jute::put_count(out, parts.len());
        self.overlay.begin();
        let digest_before = self.digests.prepared();
        let mut failed = false;
        for part in parts {
            let start = out.len();
            if !failed {
                out.put_i32(part_kind(part).to_i32());
                out.put_i32(0);
                let outcome = match part_kind(part) {
                    OpCode::Error => Err(ErrorCode::UNIMPLEMENTED),
                    kind => match part {
                        Request::Create(_, create) => self.prepare_create(ask, kind, create, out),
                        part => self.prepare_body(ask, part, out),
                    },
                };
                match outcome {
                    // J6: only lists of ACLs can have grown so much.
                    Ok(()) if self.is_too_long(out.len()) => {
                        failed = true;
                        out.truncate(start);
                        put_error_part(ErrorCode::INVALID_ACL, out);
                    }
                    Ok(()) => {
                        let bytes = i32::try_from(out.len() - start - 8).expect("bounded by jute.maxbuffer");
                        out[start + 4..start + 8].copy_from_slice(&bytes.to_be_bytes());
                    }
                    Err(error) => {
                        failed = true;
                        out.truncate(start);
                        put_error_part(error, out);
                    }
                }
            } else {
                put_error_part(ErrorCode::RUNTIME_INCONSISTENCY, out);
            }
        }
        if failed {
            self.overlay.roll_back(ask.zxid);
            self.digests.roll_back(digest_before);
            self.quotas.roll_back(ask.zxid);
        } else {
            self.overlay.keep();
        }
        Ok(())
    }

    /// T28, line by line.
    fn prepare_create(
        &mut self,
        ask: &Ask<'_>,
        op: OpCode,
        create: &CreateRequest<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), ErrorCode> {
        let mode = Mode::from_flags(create.flags).ok_or(ErrorCode::BAD_ARGUMENTS)?;
        let ttl_ms = if op == OpCode::CreateTtl { create.ttl_ms.unwrap_or(-1) } else { -1 };
        if mode.kind == ModeKind::Ttl {
            require(self.config.extended_types, ErrorCode::UNIMPLEMENTED)?;
            require((1..=TTL_MS_MAX).contains(&ttl_ms), ErrorCode::BAD_ARGUMENTS)?;
        } else {
            // Apache accepts createTTL with another mode and a negative ttl, and then cannot apply what it logged.
            require(ttl_ms < 0 && op != OpCode::CreateTtl, ErrorCode::BAD_ARGUMENTS)?;
        }
        if mode.kind == ModeKind::Ephemeral {
            self.require_global_session(ask.session)?;
        } else {
            self.require_session(ask.session)?;
        }
        let parent_path = path::parent(&create.path).ok_or(ErrorCode::BAD_ARGUMENTS)?;
        let fixed = self.fix_up(create.acl.as_deref(), ask.identities)?;

        let Self { znodes, overlay, .. } = &*self;
        let parent_key = znodes.key(parent_path);
        let parent = look(znodes, overlay, parent_key).ok_or(ErrorCode::NO_NODE)?;
        self.require_permission(&parent, Perms::CREATE, ask.identities)?;
        let mut parent_after = parent.pending();
        let parent_owner = parent.owner();

        let mut final_path = std::mem::take(&mut self.path_scratch);
        final_path.clear();
        final_path.push_str(&create.path);
        if mode.sequential {
            path::push_sequence(&mut final_path, parent_after.stat.cversion);
        }
        let data_bytes = create.data.map_or(0, <[u8]>::len);
        let difference = Difference { count: 1, bytes: data_bytes as i64 };
        let outcome = self
            .check_create_target(&final_path, parent_owner)
            .and_then(|()| self.check_quota(&final_path, difference));
        if outcome.is_ok() {
            let parent_before = parent_after.stat;
            // At its end the counter stays (T7), and a sequential name that was taken is refused from then on.
            let parent_cversion = parent_before.cversion.wrapping_add(1);
            if parent_cversion > parent_before.cversion {
                parent_after.stat.cversion = parent_cversion;
                parent_after.stat.pzxid = ask.zxid;
            }
            parent_after.children += 1;
            jute::put_text(out, &final_path);
            jute::put_buffer(out, create.data);
            Acl::encode_list(&fixed, out);
            let owner = match (op, mode.kind) {
                (OpCode::CreateContainer, _) => Owner::Container,
                (OpCode::CreateTtl, _) => Owner::Ttl(ttl_ms),
                (_, ModeKind::Ephemeral) => Owner::Session(ask.session),
                // The plain operations carry no more than the ephemeral flag: a container asked for with `create`
                // becomes a persistent node, in Apache too.
                _ => Owner::Nobody,
            };
            if matches!(op, OpCode::Create | OpCode::Create2) {
                jute::put_bool(out, mode.kind == ModeKind::Ephemeral);
            }
            out.put_i32(parent_cversion);
            if op == OpCode::CreateTtl {
                out.put_i64(ttl_ms);
            }
            let stat = StatPersisted {
                czxid: ask.zxid,
                mzxid: ask.zxid,
                pzxid: ask.zxid,
                ctime_ms: ask.time_ms,
                mtime_ms: ask.time_ms,
                ephemeral_owner: owner.encode(),
                ..StatPersisted::default()
            };
            let crc = self.digests.crc(&final_path, create.data, &stat);
            self.digests.prepare(0, crc);
            let acl = Some(self.acls.intern(&fixed));
            let node = Pending { exists: true, stat, children: 0, data_bytes, owner, crc, acl };
            self.prepare_quota(ask.zxid, &final_path, difference);
            self.put_stat(parent_key, ask.zxid, parent_before, parent_after);
            let key = self.znodes.key(&final_path);
            self.overlay.put(key, ask.zxid, node);
        }
        self.path_scratch = final_path;
        outcome
    }

    /// The last third of T28.
    fn check_create_target(&self, path: &str, parent_owner: Owner) -> Result<(), ErrorCode> {
        require(path::is_valid(path), ErrorCode::BAD_ARGUMENTS)?;
        let found = look(&self.znodes, &self.overlay, self.znodes.key(path));
        require(found.is_none(), ErrorCode::NODE_EXISTS)?;
        require(!matches!(parent_owner, Owner::Session(_)), ErrorCode::NO_CHILDREN_FOR_EPHEMERALS)
    }

    /// T29.
    fn prepare_delete(
        &mut self,
        ask: &Ask<'_>,
        delete: &PathVersion<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), ErrorCode> {
        self.require_session(ask.session)?;
        let parent_path = deletable_parent(&delete.path)?;
        let Self { znodes, overlay, .. } = &*self;
        let parent_key = znodes.key(parent_path);
        let parent = look(znodes, overlay, parent_key).ok_or(ErrorCode::NO_NODE)?;
        self.require_permission(&parent, Perms::DELETE, ask.identities)?;
        let key = znodes.key(&delete.path);
        let node = look(znodes, overlay, key).ok_or(ErrorCode::NO_NODE)?;
        next_version(node.version(), delete.version)?;
        require(node.children() == 0, ErrorCode::NOT_EMPTY)?;
        let (parent, node) = (parent.pending(), node.pending());
        self.put_delete(ask.zxid, (parent_key, parent), (key, node));
        jute::put_text(out, &delete.path);
        Ok(())
    }

    /// T23: the reaper's request is checked again, without session and ACL.
    fn prepare_delete_container(
        &mut self,
        ask: &Ask<'_>,
        path: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), ErrorCode> {
        let path = std::str::from_utf8(path).map_err(|_| ErrorCode::BAD_ARGUMENTS)?;
        let parent_path = deletable_parent(path)?;
        let Self { znodes, overlay, .. } = &*self;
        let key = znodes.key(path);
        let node = look(znodes, overlay, key).ok_or(ErrorCode::NO_NODE)?;
        require(node.children() == 0, ErrorCode::NOT_EMPTY)?;
        require(!matches!(node.owner(), Owner::Session(_)), ErrorCode::BAD_VERSION)?;
        let parent_key = znodes.key(parent_path);
        let parent = look(znodes, overlay, parent_key).ok_or(ErrorCode::NO_NODE)?;
        let (parent, node) = (parent.pending(), node.pending());
        self.put_delete(ask.zxid, (parent_key, parent), (key, node));
        jute::put_text(out, path);
        Ok(())
    }

    fn put_delete(&mut self, zxid: Zxid, parent: (Key<'_>, Pending), node: (Key<'_>, Pending)) {
        let (parent_key, mut parent) = parent;
        let before = parent.stat;
        parent.children -= 1;
        parent.stat.pzxid = zxid;
        self.put_stat(parent_key, zxid, before, parent);
        let (key, node) = node;
        self.digests.prepare(node.crc, 0);
        let difference = Difference { count: -1, bytes: -(node.data_bytes as i64) };
        self.prepare_quota(zxid, key.path, difference);
        self.overlay.put(key, zxid, Pending { exists: false, acl: None, ..node });
    }

    /// Records a change of a node's stat alone.
    fn put_stat(&mut self, key: Key<'_>, zxid: Zxid, before: StatPersisted, mut node: Pending) {
        let crc = self.digests.crc_of_stat(key.path, node.crc, &before, &node.stat);
        self.digests.prepare(node.crc, crc);
        node.crc = crc;
        self.overlay.put(key, zxid, node);
    }

    /// T30. A path that names a node is valid, so it is looked at only when it does not.
    fn prepare_set_data(
        &mut self,
        ask: &Ask<'_>,
        set: &SetDataRequest<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), ErrorCode> {
        self.require_session(ask.session)?;
        let Self { znodes, overlay, .. } = &*self;
        let key = znodes.key(&set.path);
        let node = look(znodes, overlay, key).ok_or_else(|| missing(&set.path))?;
        self.require_permission(&node, Perms::WRITE, ask.identities)?;
        let mut pending = node.pending();
        let data_bytes = set.data.map_or(0, <[u8]>::len);
        let difference = Difference { count: 0, bytes: data_bytes as i64 - pending.data_bytes as i64 };
        // T30: the quota before the version.
        self.check_quota(&set.path, difference)?;
        let version = next_version(pending.stat.version, set.version)?;
        self.prepare_quota(ask.zxid, &set.path, difference);
        pending.data_bytes = data_bytes;
        (pending.stat.version, pending.stat.mzxid, pending.stat.mtime_ms) = (version, ask.zxid, ask.time_ms);
        let crc = self.digests.crc(&set.path, set.data, &pending.stat);
        self.digests.prepare(pending.crc, crc);
        pending.crc = crc;
        self.overlay.put(key, ask.zxid, pending);
        jute::put_text(out, &set.path);
        jute::put_buffer(out, set.data);
        out.put_i32(version);
        Ok(())
    }

    /// T30.
    fn prepare_set_acl(
        &mut self,
        ask: &Ask<'_>,
        set: &SetAclRequest<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), ErrorCode> {
        self.require_session(ask.session)?;
        require(path::is_valid(&set.path), ErrorCode::BAD_ARGUMENTS)?;
        let fixed = self.fix_up(set.acl.as_deref(), ask.identities)?;
        let Self { znodes, overlay, .. } = &*self;
        let key = znodes.key(&set.path);
        let node = look(znodes, overlay, key).ok_or(ErrorCode::NO_NODE)?;
        self.require_permission(&node, Perms::ADMIN, ask.identities)?;
        let aversion = next_version(node.aversion(), set.version)?;
        let mut pending = node.pending();
        let before = pending.stat;
        pending.stat.aversion = aversion;
        let list: NodeAcl = self.acls.intern(&fixed);
        self.put_stat(key, ask.zxid, before, Pending { acl: Some(list), ..pending });
        jute::put_text(out, &set.path);
        Acl::encode_list(&fixed, out);
        out.put_i32(aversion);
        Ok(())
    }

    /// T30, inside a multi.
    fn prepare_check(
        &mut self,
        ask: &Ask<'_>,
        check: &PathVersion<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), ErrorCode> {
        // Alone it is refused (C25): ZOOKEEPER-2623.
        require(matches!(ask.request, Request::Multi(_)), ErrorCode::UNIMPLEMENTED)?;
        self.require_session(ask.session)?;
        let Self { znodes, overlay, .. } = &*self;
        let node = look(znodes, overlay, znodes.key(&check.path)).ok_or_else(|| missing(&check.path))?;
        self.require_permission(&node, Perms::READ, ask.identities)?;
        let version = next_version(node.version(), check.version)?;
        jute::put_text(out, &check.path);
        out.put_i32(version);
        Ok(())
    }

    /// S7: the leader decides which ephemerals go, those of prepared transactions included.
    fn prepare_close_session(&mut self, ask: &Ask<'_>, out: &mut Vec<u8>) {
        let owner = Owner::Session(ask.session);
        let mut paths: Vec<String> = self
            .owned
            .of(ask.session)
            .filter(|path| {
                // Deleted, or deleted and created by somebody else, in what is prepared?
                let pending = self.overlay.get(self.znodes.key(path));
                pending.is_none_or(|pending| pending.exists && pending.owner == owner)
            })
            .map(str::to_owned)
            .collect();
        paths.extend(self.overlay.ephemerals_of(ask.session).into_iter().map(str::to_owned));
        paths.sort_unstable();
        paths.dedup();
        // J6: what does not fit into a readable record is left out; whoever applies it removes what the session still
        // owns behind the listed ones (P18).
        let mut bytes = 0;
        let listed = paths.iter().take_while(|path| {
            bytes += path.len() + 4;
            !self.is_too_long(2 * bytes)
        });
        let listed = listed.count();
        jute::put_count(out, listed);
        for path in &paths[..listed] {
            jute::put_text(out, path);
        }
        for path in &paths {
            let Self { znodes, overlay, .. } = &*self;
            let (key, parent_key) = (znodes.key(path), znodes.key(path::parent(path).unwrap_or(path::ROOT)));
            let node = look(znodes, overlay, key).map(|node| node.pending());
            let parent = look(znodes, overlay, parent_key).map(|parent| parent.pending());
            if let (Some(node), Some(parent)) = (node, parent) {
                self.put_delete(ask.zxid, (parent_key, parent), (key, node));
            }
        }
        self.overlay.put_session(ask.session, ask.zxid, false);
    }

    /// S6, E21: a session that is gone or about to be closed may not write.
    fn require_session(&self, session: SessionId) -> Result<(), ErrorCode> {
        let known = self.overlay.session(session);
        let alive = known.unwrap_or_else(|| self.config.local_sessions || self.sessions.contains(session));
        require(alive, ErrorCode::SESSION_EXPIRED)
    }

    /// What hangs on a session needs one that the whole ensemble knows (`SessionTracker.checkGlobalSession`, S15).
    fn require_global_session(&self, session: SessionId) -> Result<(), ErrorCode> {
        let alive = self.overlay.session(session).unwrap_or_else(|| self.sessions.contains(session));
        require(alive, ErrorCode::SESSION_EXPIRED)
    }

    fn require_permission(
        &self,
        node: &Seen<'_>,
        perms: Perms,
        identities: &[Id<'_>],
    ) -> Result<(), ErrorCode> {
        require(self.config.skip_acl || acl::allowed(node.acl(), perms, identities), ErrorCode::NO_AUTH)
    }

    fn fix_up<'a>(
        &self,
        wanted: Option<&'a [Acl<'a>]>,
        identities: &'a [Id<'static>],
    ) -> Result<Cow<'a, [Acl<'a>]>, ErrorCode> {
        match wanted {
            Some([only]) if *only == Acl::OPEN => Ok(Cow::Borrowed(wanted.unwrap_or_default())),
            _ => {
                let fixed = acl::fix_up(&self.config.acl_rules, wanted, identities)?;
                // J6: each `auth` became as many entries as the client has identities.
                let bytes_of = |acl: &Acl<'_>| 12 + acl.id.scheme.len() + acl.id.id.len();
                require(
                    !self.is_too_long(2 * fixed.iter().map(bytes_of).sum::<usize>()),
                    ErrorCode::INVALID_ACL,
                )?;
                Ok(Cow::Owned(fixed))
            }
        }
    }

    fn is_too_long(&self, bytes: usize) -> bool {
        self.config.record_bytes_max > 0 && bytes > self.config.record_bytes_max
    }
}

/// The parent of a node that may be deleted.
fn deletable_parent(path: &str) -> Result<&str, ErrorCode> {
    let parent = path::parent(path).ok_or(ErrorCode::BAD_ARGUMENTS)?;
    require(!path::is_protected(path), ErrorCode::BAD_ARGUMENTS)?;
    Ok(parent)
}

/// Why a path that should name a node does not.
fn missing(path: &str) -> ErrorCode {
    if path::is_valid(path) { ErrorCode::NO_NODE } else { ErrorCode::BAD_ARGUMENTS }
}

/// The transaction type of a part of a multi; Error for what may not be part of one.
fn part_kind(part: &Request<'_>) -> OpCode {
    match part {
        Request::Create(op, create) => part_of_multi(*op, create).unwrap_or(OpCode::Error),
        Request::Delete(_) => OpCode::Delete,
        Request::SetData(_) => OpCode::SetData,
        Request::Check(_) => OpCode::Check,
        _ => OpCode::Error,
    }
}

/// What a create in a multi is: there the flags decide rather than the operation (Java's `MultiOperationRecord` and
/// `Op.Create`). `None` if Java cannot decode it.
///
/// | operation | no TTL mode | TTL mode | unknown flags |
/// |---|---|---|---|
/// | create, create2, createContainer | itself, but a container with flags 4 | - | - |
/// | createTTL | create, or a container with flags 4; the ttl is dropped | createTTL | create, refused later |
fn part_of_multi(op: OpCode, create: &CreateRequest<'_>) -> Option<OpCode> {
    let mode = Mode::from_flags(create.flags).map(|mode| mode.kind);
    match (op, mode) {
        (OpCode::CreateTtl, Some(ModeKind::Ttl)) => Some(op),
        (OpCode::CreateTtl, Some(ModeKind::Container)) => Some(OpCode::CreateContainer),
        (OpCode::CreateTtl, _) => Some(OpCode::Create),
        // Java's CreateOptions has no create without a list.
        (_, None | Some(ModeKind::Ttl)) => None,
        (_, _) if create.acl.is_none() => None,
        (_, Some(ModeKind::Container)) => Some(OpCode::CreateContainer),
        (_, Some(ModeKind::Persistent | ModeKind::Ephemeral)) => Some(op),
    }
}

fn put_error_part(error: ErrorCode, out: &mut Vec<u8>) {
    out.put_i32(OpCode::Error.to_i32());
    out.put_i32(4);
    out.put_i32(error.0);
}

fn header(ask: &Ask<'_>, kind: OpCode) -> TxnHeader {
    TxnHeader { session: ask.session, cxid: ask.cxid, zxid: ask.zxid, time_ms: ask.time_ms, kind }
}

fn write_error(session: SessionId, cxid: i32, zxid: Zxid, time_ms: i64, error: ErrorCode, out: &mut Vec<u8>) {
    TxnHeader { session, cxid, zxid, time_ms, kind: OpCode::Error }.encode(out);
    out.put_i32(error.0);
}
