//! The operations that a client core answers from its own view and its own watch table (column "L" of section 2.2).
//!
//! All of a read is of one view: the check of the ACL, the data and the stat. A watch is left after the read succeeded
//! at that view; whatever changes later lies in the lane, because the view moves only when the lane is drained (W18).

use super::{
    auth::user_name,
    connection::Connection,
    core::{Core, TreeInterests, write_reply},
    watches::Modes,
};
use crate::config::limits;
use bytes::BufMut;
use std::borrow::Cow;
use zkfast_tree::{NodeRef, Reader, acl};
use zkfast_wire::{
    Acl, Decoder, ErrorCode, EventKind, Id, OpCode, Perms, ReplyHeader, Request, Stat, Xid, Zxid, jute,
    multi, reply,
    request::{PathWatch, SetWatchesRequest},
    watch::{AddWatchMode, WatcherKind, put_notification},
};

/// The tree as one connection may see it.
struct Sight<'a> {
    reader: &'a Reader,
    identities: &'a [Id<'static>],
    skip_acl: bool,
}

impl<'a> Sight<'a> {
    fn may(&self, node: &NodeRef<'_>, wanted: Perms) -> bool {
        self.skip_acl || acl::allowed(node.acl(), wanted, self.identities)
    }

    /// The node at `path`, if it exists and the connection has any of `wanted` on it.
    fn node(&self, path: &str, wanted: Perms) -> Result<NodeRef<'a>, ErrorCode> {
        let node = self.reader.node(path).ok_or(ErrorCode::NO_NODE)?;
        if self.may(&node, wanted) { Ok(node) } else { Err(ErrorCode::NO_AUTH) }
    }
}

impl Core {
    /// Answers one of the operations of this room, now, at this core's view.
    pub(super) fn answer_local(
        &mut self,
        connection: &mut Connection,
        op: OpCode,
        xid: Xid,
        body: &[u8],
        read_at_ns: u64,
    ) {
        let before = connection.output.unsent().len();
        match Request::decode(op, &mut Decoder::new(body)) {
            Ok(request) => self.serve(connection, xid, request),
            // C27: the connection stays.
            Err(error) => {
                log::debug!("{}: {op:?} cannot be read: {error}.", connection.name());
                self.reply_code(connection, xid, ErrorCode::MARSHALLING_ERROR);
            }
        }
        let reply_bytes = connection.output.unsent().len() - before;
        assert!(reply_bytes > 0, "{op:?} was not answered");
        self.look_behind_read(op, reply_bytes);
        let latency_ns = self.note_answer(connection, op.to_i32(), xid, read_at_ns);
        self.counters.read_latency.record(latency_ns);
    }

    /// Looks at the clock behind a read, for its latency and for the share of the others. A look takes a tenth of a short
    /// read, so of those that follow each other at once every eighth has one: their latencies are up to 2 us too small.
    fn look_behind_read(&mut self, op: OpCode, reply_bytes: usize) {
        const SHORT_BYTES_MAX: usize = 1024;
        const SHORT_READS: u32 = 8;
        let is_short = matches!(op, OpCode::GetData | OpCode::Exists) && reply_bytes <= SHORT_BYTES_MAX;
        let reads = self.reads_since_look;
        if !is_short || reads.is_multiple_of(SHORT_READS) {
            self.look_at_clock();
        }
        self.reads_since_look = reads + 1;
    }

    fn serve(&mut self, connection: &mut Connection, xid: Xid, request: Request<'_>) {
        match request {
            Request::GetData(PathWatch { path, watch }) => {
                let left = self.read(connection, xid, |sight, out| {
                    let node = sight.node(&path, Perms::READ)?;
                    reply::put_data(out, node.data(), &node.stat());
                    Ok(())
                });
                if watch && left.is_ok() {
                    self.add_watch(connection, &path, Modes::DATA);
                }
            }
            Request::Exists(PathWatch { path, watch }) => {
                let left = self.read(connection, xid, |sight, out| {
                    if path.contains('\0') {
                        return Err(ErrorCode::BAD_ARGUMENTS);
                    }
                    sight.node(&path, Perms::READ)?.stat().encode(out);
                    Ok(())
                });
                // W5: an absent node is watched too.
                if watch && matches!(left, Ok(()) | Err(ErrorCode::NO_NODE)) {
                    self.add_watch(connection, &path, Modes::DATA);
                }
            }
            Request::GetChildren(PathWatch { path, watch }) => {
                let mut lists = std::mem::take(&mut self.lists);
                let left = self.read(connection, xid, |sight, out| {
                    lists.put(out, &path, &sight.node(&path, Perms::READ)?);
                    Ok(())
                });
                self.lists = lists;
                if watch && left.is_ok() {
                    self.add_watch(connection, &path, Modes::CHILD);
                }
            }
            Request::GetChildren2(PathWatch { path, watch }) => {
                let mut lists = std::mem::take(&mut self.lists);
                let left = self.read(connection, xid, |sight, out| {
                    let node = sight.node(&path, Perms::READ)?;
                    lists.put(out, &path, &node);
                    node.stat().encode(out);
                    Ok(())
                });
                self.lists = lists;
                if watch && left.is_ok() {
                    self.add_watch(connection, &path, Modes::CHILD);
                }
            }
            Request::GetAcl(path) => {
                let _ = self.read(connection, xid, |sight, out| put_acl(sight, out, &path));
            }
            Request::GetAllChildrenNumber(path) => {
                let _ = self.read(connection, xid, |sight, out| {
                    // T25: Java counts the keys that begin with `path/`; with the empty path that is the root's too.
                    let itself = i32::from(path.is_empty());
                    let node = sight.node(&path, Perms::READ)?;
                    // By a walk, for the root too: the pipeline's count is of another moment than this core's view.
                    out.put_i32(itself + node.descendant_count());
                    Ok(())
                });
            }
            Request::MultiRead(parts) => {
                let bytes_max = limits::multi_read_bytes(self.options.frame_bytes_limit);
                let _ = self.read(connection, xid, |sight, out| put_parts(sight, out, &parts, bytes_max));
            }
            // C20: whatever the xid was.
            Request::Ping => self.reply_code(connection, Xid::PING, ErrorCode::OK),
            Request::AddWatch(path, mode) => match AddWatchMode::from_i32(mode) {
                Some(mode) => {
                    let modes = match mode {
                        AddWatchMode::Persistent => Modes::PERSISTENT,
                        AddWatchMode::PersistentRecursive => Modes::RECURSIVE,
                    };
                    self.add_watch(connection, &path, modes);
                    // G7: the four bytes of an ErrorResponse.
                    self.reply(connection, xid, ErrorCode::OK, |out| out.put_i32(0));
                }
                None => self.reply_code(connection, xid, ErrorCode::MARSHALLING_ERROR),
            },
            Request::CheckWatches(path, kind) => {
                let code = match WatcherKind::from_i32(kind) {
                    Some(kind) if self.watches.contains(connection.id.slot, &path, Modes::of_kind(kind)) => {
                        ErrorCode::OK
                    }
                    Some(_) => ErrorCode::NO_WATCHER,
                    None => ErrorCode::MARSHALLING_ERROR,
                };
                self.reply_code(connection, xid, code);
            }
            Request::RemoveWatches(path, kind) => {
                let code = match WatcherKind::from_i32(kind) {
                    Some(kind) => self.remove_watch(connection, &path, Modes::of_kind(kind)),
                    None => ErrorCode::MARSHALLING_ERROR,
                };
                self.reply_code(connection, xid, code);
            }
            Request::SetWatches(request) => self.set_watches(connection, xid, &request),
            Request::WhoAmI => {
                let infos: Vec<_> = connection
                    .identities
                    .iter()
                    .map(|id| Id { scheme: id.scheme.clone(), id: Cow::Owned(user_name(id)) })
                    .collect();
                self.reply(connection, xid, ErrorCode::OK, |out| {
                    reply::put_client_infos(out, infos.into_iter());
                });
            }
            _ => unreachable!("`dispatch` sends these elsewhere"),
        }
    }

    /// Replies with what `body` writes, or with the code for which it gives up; nothing it wrote then remains.
    fn read(
        &mut self,
        connection: &mut Connection,
        xid: Xid,
        body: impl FnOnce(&Sight<'_>, &mut Vec<u8>) -> Result<(), ErrorCode>,
    ) -> Result<(), ErrorCode> {
        let identities = connection.identities.clone();
        let sight = Sight { reader: &self.reader, identities: &identities, skip_acl: self.options.skip_acl };
        let header = ReplyHeader { xid, zxid: self.reader.view(), err: ErrorCode::OK };
        let mut outcome = Ok(());
        write_reply(&mut self.spare, &self.counters, connection, header, |out| {
            let start = out.len();
            outcome = body(&sight, out);
            if let Err(code) = outcome {
                out.truncate(start);
                // The code is the last field of the header in front.
                out[start - 4..].copy_from_slice(&code.0.to_be_bytes());
            }
        });
        outcome
    }

    fn add_watch(&mut self, connection: &Connection, path: &str, modes: Modes) {
        let mut interests = TreeInterests { reader: &self.reader, core: self.index };
        self.watches.add(connection.id.slot, path, modes, &mut interests);
        self.note_watches();
    }

    fn remove_watch(&mut self, connection: &Connection, path: &str, modes: Modes) -> ErrorCode {
        let mut interests = TreeInterests { reader: &self.reader, core: self.index };
        let had = self.watches.remove(connection.id.slot, path, modes, &mut interests);
        self.note_watches();
        if had { ErrorCode::OK } else { ErrorCode::NO_WATCHER }
    }

    /// W20: what happened while the client was away is told now, before the reply; the rest is watched again.
    ///
    /// | list | node is gone | changed since | else |
    /// |---|---|---|---|
    /// | data | NodeDeleted | NodeDataChanged | watch |
    /// | exist | watch | NodeCreated (it is there) | - |
    /// | child | NodeDeleted | NodeChildrenChanged | watch |
    fn set_watches(&mut self, connection: &mut Connection, xid: Xid, request: &SetWatchesRequest<'_>) {
        let since = request.relative_zxid;
        for path in &request.data {
            let missed = match self.reader.node(path).map(|node| node.persisted().mzxid) {
                None => Some(EventKind::NodeDeleted),
                Some(mzxid) if mzxid > since => Some(EventKind::NodeDataChanged),
                Some(_) => None,
            };
            self.tell_or_watch(connection, path, missed, Modes::DATA);
        }
        for path in &request.exist {
            let missed = self.reader.node(path).map(|_| EventKind::NodeCreated);
            self.tell_or_watch(connection, path, missed, Modes::DATA);
        }
        for path in &request.child {
            let missed = match self.reader.node(path).map(|node| node.persisted().pzxid) {
                None => Some(EventKind::NodeDeleted),
                Some(pzxid) if pzxid > since => Some(EventKind::NodeChildrenChanged),
                Some(_) => None,
            };
            self.tell_or_watch(connection, path, missed, Modes::CHILD);
        }
        for path in &request.persistent {
            self.add_watch(connection, path, Modes::PERSISTENT);
        }
        for path in &request.persistent_recursive {
            self.add_watch(connection, path, Modes::RECURSIVE);
        }
        let code = if request.is_cut { ErrorCode::MARSHALLING_ERROR } else { ErrorCode::OK };
        self.reply_code(connection, xid, code);
    }

    fn tell_or_watch(
        &mut self,
        connection: &mut Connection,
        path: &str,
        missed: Option<EventKind>,
        modes: Modes,
    ) {
        match missed {
            // C19: there is no transaction to name.
            Some(kind) => {
                connection.output.lend(&mut self.spare);
                put_notification(connection.output.tail(), Zxid(-1), kind, path);
                connection.figures.sent += 1;
                self.counters.packets_sent.increment();
            }
            None => self.add_watch(connection, path, modes),
        }
    }
}

/// OP10: without ADMIN the secrets of digest entries are masked.
fn put_acl(sight: &Sight<'_>, out: &mut Vec<u8>, path: &str) -> Result<(), ErrorCode> {
    let node = sight.node(path, Perms::READ.or(Perms::ADMIN))?;
    if sight.may(&node, Perms::ADMIN) {
        Acl::encode_list(node.acl(), out);
    } else {
        jute::put_count(out, node.acl().len());
        node.acl().iter().for_each(|entry| acl::masked(entry).encode(out));
    }
    node.stat().encode(out);
    Ok(())
}

/// What one part of a multiRead found; its error stays its own (OP18).
enum Found<'a> {
    Data(NodeRef<'a>),
    Children(NodeRef<'a>),
    Error(ErrorCode),
}

impl<'a> Found<'a> {
    fn by(sight: &Sight<'a>, part: &Request<'_>) -> Self {
        let (Request::GetData(PathWatch { path, .. }) | Request::GetChildren(PathWatch { path, .. })) = part
        else {
            return Self::Error(ErrorCode::MARSHALLING_ERROR);
        };
        match sight.node(path, Perms::READ) {
            Ok(node) if matches!(part, Request::GetData(_)) => Self::Data(node),
            Ok(node) => Self::Children(node),
            Err(code) => Self::Error(code),
        }
    }

    /// Bytes of what was found; the frame around it is as long as the part that asked, more or less.
    fn bytes(&self) -> usize {
        match self {
            Self::Data(node) => node.data_bytes() + size_of::<Stat>(),
            Self::Children(node) => node.children().map(|name| name.len() + 4).sum(),
            Self::Error(_) => size_of::<ErrorCode>(),
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Data(node) => multi::put_data(out, node.data(), &node.stat()),
            Self::Children(node) => multi::put_children(out, node.children()),
            Self::Error(code) => multi::put_error(out, *code),
        }
    }
}

/// The results of a multiRead (OP18), or MarshallingError (-5) for the whole if they are more than `bytes_max`: a packet
/// of a megabyte can name fifty thousand nodes of a megabyte each. Apache has no such bound and no code for it. Looking
/// stops there, and nothing has been copied by then.
fn put_parts(
    sight: &Sight<'_>,
    out: &mut Vec<u8>,
    parts: &[Request<'_>],
    bytes_max: usize,
) -> Result<(), ErrorCode> {
    let mut left = bytes_max;
    let mut results = Vec::with_capacity(parts.len());
    for part in parts {
        let found = Found::by(sight, part);
        left = left.checked_sub(found.bytes()).ok_or(ErrorCode::MARSHALLING_ERROR)?;
        results.push(found);
    }
    out.reserve(bytes_max - left + 64 * parts.len());
    results.iter().for_each(|found| found.put(out));
    multi::put_end(out);
    Ok(())
}
