//! What the pipeline says, done in the order in which it is said (design 5, step 9).
//!
//! Each committed transaction is lived through by itself: the view moves to it; its events go out; its answer goes to
//! the one who asked; then whatever waited behind that answer runs, at this very view. So
//! 1. a client that pipelines write, read, write gets the read as of the first write, although both writes may have
//!    been committed in one batch;
//! 2. an event precedes every reply that shows what it tells of (W16), its own write's answer included (W17);
//! 3. a watch that a read leaves between two transactions of a batch fires for the second (W18).

use super::{
    connection::{Connection, Phase},
    core::{Core, TreeInterests},
    lists::Lists,
    outstanding::{Asked, Outcome, What},
};
use crate::{
    config::limits,
    cores::messages::{Asker, CloseReason, CommitBatch, ConnectionId, Delivery, Step, Submission},
};
use bytes::BufMut;
use zkfast_tree::{Answer, Change, ChangeKind, MultiAnswer, Reader, acl};
use zkfast_wire::{
    Decoder, ErrorCode, EventKind, OpCode, Perms, Request, SessionId, Xid, Zxid, jute, multi, reply, watch,
};

impl Core {
    /// Does everything that the pipeline has said so far; whether there was anything.
    pub fn drain(&mut self) -> bool {
        if self.deliveries.is_empty() {
            return false;
        }
        self.look_at_clock();
        // Bounded by the lane: what comes while this runs is for the next turn.
        for _ in 0..limits::COMMIT_LANE_SLOTS {
            let Some(delivery) = self.deliveries.pop() else { break };
            match delivery {
                Delivery::Batch(batch) => self.live_through(&batch),
                Delivery::Resumed { connection, session, timeout_ms } => {
                    self.resumed(connection, session, timeout_ms);
                }
                Delivery::Refused { connection } => self.refused(connection),
                Delivery::Synced { asker } => self.complete(asker, Asked::Sync, Completion::Synced),
                Delivery::Ephemerals { asker, paths } => {
                    self.complete(asker, Asked::Ephemerals, Completion::Ephemerals(paths));
                }
                Delivery::Failed { asker, code } => {
                    self.complete(asker, Asked::Write, Completion::Write(&Answer::Error(code)));
                }
                Delivery::Close { connection, reason } => self.close_at_once(connection, reason),
                Delivery::Serve(reader) => self.begin_serving(*reader, false),
                Delivery::ServeReadOnly(reader) => self.begin_serving(*reader, true),
                Delivery::NotReadOnly { connection } => self.not_read_only(connection),
                Delivery::LocalClosed { asker, session } => {
                    self.complete(asker, Asked::Write, Completion::Write(&Answer::SessionClosed));
                    self.session_ended(session, Some(asker.connection));
                }
                Delivery::StopServing => self.stop_serving(),
                Delivery::View(view) => self.reader.set_view(view),
                Delivery::Tree(reader) => {
                    self.reader = *reader;
                    // Of another history, maybe.
                    self.lists = Lists::default();
                }
                Delivery::Gather(gather) => self.add_rows(gather),
                Delivery::Gathered(gather) => self.gathered(&gather),
                Delivery::Stop => self.stop(),
            }
        }
        true
    }

    /// A member of an ensemble has found its place in it, or has looked for one in vain.
    fn begin_serving(&mut self, reader: Reader, is_read_only: bool) {
        assert!(self.watches.is_empty(), "watches went with their connections");
        self.is_read_only = is_read_only;
        self.reader = reader;
        self.lists = Lists::default();
        self.is_serving = true;
    }

    /// The role of this member ended: whoever is connected finds another server, or this one again when it serves
    /// (Q59). What was asked and not answered is lost with the connection, as it is with Apache's.
    fn stop_serving(&mut self) {
        self.is_serving = false;
        let ids: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter(|connection| matches!(connection.phase, Phase::Opening { .. } | Phase::Serving))
            .map(|connection| connection.id)
            .collect();
        for id in ids {
            if let Some(connection) = self.connections.get(id) {
                connection.kill();
            }
            // At once, not when the socket is closed: the watches' interests are noted in a tree that may be replaced
            // before that.
            let mut interests = TreeInterests { reader: &self.reader, core: self.index };
            self.watches.remove_connection(id.slot, &mut interests);
            self.counters.connections_dropped.increment();
            self.mark_dirty(id);
        }
        self.note_watches();
        self.by_session.clear();
        self.forget_touched();
        self.uplink.send(Submission::Quiet);
    }

    fn live_through(&mut self, batch: &CommitBatch) {
        for step in &batch.steps {
            self.reader.set_view(step.zxid);
            if !self.watches.is_empty() {
                for change in step.changes.iter() {
                    self.fire_change(change, step.zxid);
                }
            }
            if let Some((asker, answer)) = &step.answer
                && asker.connection.core == self.index
            {
                self.answer_step(*asker, answer, step);
            }
            if let Some(session) = step.closed_session {
                let asked_by = step.answer.as_ref().map(|(asker, _)| asker.connection);
                self.session_ended(session, asked_by);
            }
        }
    }

    fn answer_step(&mut self, asker: Asker, answer: &Answer, step: &Step) {
        match (answer, step.opened_session) {
            (Answer::SessionCreated { timeout_ms }, Some(session)) => {
                self.session_made(asker.connection, session, *timeout_ms);
            }
            _ => self.complete(asker, Asked::Write, Completion::Write(answer)),
        }
    }

    fn session_made(&mut self, id: ConnectionId, session: SessionId, timeout_ms: i32) {
        match self.connections.borrow(id) {
            Some(mut connection) => {
                self.opened(&mut connection, session, timeout_ms);
                self.put_back(connection);
            }
            // The client did not wait. The session lives until it expires, as in Apache.
            None => self.uplink.send(Submission::Gone { connection: id, session, heard: None }),
        }
    }

    fn resumed(&mut self, id: ConnectionId, session: SessionId, timeout_ms: i32) {
        self.session_made(id, session, timeout_ms);
    }

    fn close_at_once(&mut self, id: ConnectionId, reason: CloseReason) {
        let Some(connection) = self.connections.get(id) else { return };
        let why = match reason {
            CloseReason::SessionMoved => "its session came in on another connection",
            CloseReason::ReadOnly => "this server is read-only now, and cannot ask for its session",
            CloseReason::PassedOver => "the leader did not order what it asked",
            CloseReason::LocalExpired => "its local session has expired",
            CloseReason::NoSpace => "its session cannot be made, because the log's disk is full",
        };
        log::info!("Closing {}: {why}.", connection.name());
        connection.kill();
        self.counters.connections_dropped.increment();
        self.mark_dirty(id);
    }

    /// The session is over, and its watches go. A client that asked for it gets what has been written to it, then its
    /// connection closes (C24). One whose session expired is gone: its connection closes at once, whatever it has not
    /// read (R13).
    fn session_ended(&mut self, session: SessionId, asked_by: Option<ConnectionId>) {
        let Some(id) = self.by_session.remove(&session) else { return };
        let Some(mut connection) = self.connections.borrow(id) else { return };
        self.forget_outstanding(&connection.outstanding);
        connection.outstanding = Default::default();
        if asked_by == Some(id) {
            connection.finish(self.now_ms());
        } else {
            connection.kill();
            self.counters.connections_dropped.increment();
        }
        self.put_back(connection);
        let mut interests = TreeInterests { reader: &self.reader, core: self.index };
        self.watches.remove_connection(id.slot, &mut interests);
        self.note_watches();
    }

    /// An answer has come: it leaves now if it is for the head of its queue, else when its turn comes.
    fn complete(&mut self, asker: Asker, asked: Asked, completion: Completion<'_>) {
        let Some(mut connection) = self.connections.borrow(asker.connection) else { return };
        if connection.is_ending() {
            return self.put_back(connection);
        }
        // A short request with a long answer: what the client has not read bounds it, not what it asked.
        if matches!(completion, Completion::Ephemerals(_)) {
            let waiting = connection.output.unsent().len() + connection.outstanding.kept_bytes();
            if waiting > limits::OUT_BUFFER_BYTES_MAX {
                log::warn!("Closing {}: it has not read {waiting} bytes of answers.", connection.name());
                connection.kill();
                self.counters.connections_dropped.increment();
                return self.put_back(connection);
            }
        }
        let position = connection.outstanding.find(asked, asker.xid);
        match position.expect("the pipeline answered what nobody asked") {
            0 => {
                let waiting = self.pop_waiting(&mut connection).expect("found at the head");
                match (waiting.what, completion) {
                    (What::Write(op), Completion::Write(answer)) => {
                        self.answer_write(&mut connection, op, waiting.xid, waiting.read_at_ns, answer);
                    }
                    (what, completion) => {
                        let outcome = completion.keep(what);
                        self.answer_outcome(&mut connection, waiting.xid, waiting.read_at_ns, outcome);
                    }
                }
                self.advance(&mut connection);
            }
            position => {
                connection.outstanding.keep(position, |what| completion.keep(what));
            }
        }
        self.put_back(connection);
    }

    /// Answers the head of a queue with what came for it.
    pub(super) fn answer_outcome(
        &mut self,
        connection: &mut Connection,
        xid: Xid,
        read_at_ns: u64,
        outcome: Outcome,
    ) {
        match outcome {
            Outcome::Write(op, answer) => self.answer_write(connection, op, xid, read_at_ns, &answer),
            Outcome::Synced(body) => {
                // The path is echoed as it came, null included.
                let Ok(Request::Sync(path)) = Request::decode(OpCode::Sync, &mut Decoder::new(&body)) else {
                    unreachable!("decoded before it was sent");
                };
                self.reply(connection, xid, ErrorCode::OK, |out| {
                    jute::put_buffer(out, path.as_deref().map(str::as_bytes));
                });
                self.note_answer(connection, OpCode::Sync.to_i32(), xid, read_at_ns);
            }
            Outcome::Ephemerals(paths) => {
                self.reply(connection, xid, ErrorCode::OK, |out| {
                    reply::put_names(out, paths.iter().map(AsRef::as_ref));
                });
                self.note_answer(connection, OpCode::GetEphemerals.to_i32(), xid, read_at_ns);
            }
        }
    }

    fn answer_write(
        &mut self,
        connection: &mut Connection,
        op: OpCode,
        xid: Xid,
        read_at_ns: u64,
        answer: &Answer,
    ) {
        if says_moved(answer) {
            return self.close_moved(connection);
        }
        let code = match answer {
            Answer::Error(code) => *code,
            _ => ErrorCode::OK,
        };
        self.reply(connection, xid, code, |out| put_answer(out, op, answer));
        let latency_ns = self.note_answer(connection, op.to_i32(), xid, read_at_ns);
        self.counters.update_latency.record(latency_ns);
        if matches!(answer, Answer::SessionClosed) {
            // Whatever the client sent behind it has no session to be done in (C26): nothing of it is done here, and
            // nothing is answered. The pipeline refuses writes by itself (S6).
            self.forget_outstanding(&connection.outstanding);
            connection.outstanding = Default::default();
            connection.finish(self.now_ms());
        }
    }

    /// The session speaks through another server by now (C28, E26): a client that was told so would go on asking here
    /// (ZOOKEEPER-710). It gets what was answered before, no answer to this, and the end of its connection.
    fn close_moved(&mut self, connection: &mut Connection) {
        log::info!("Closing {}: its session has moved to another server.", connection.name());
        self.forget_outstanding(&connection.outstanding);
        connection.outstanding = Default::default();
        connection.finish(self.now_ms());
        self.counters.connections_dropped.increment();
    }

    /// The events of one change: those of its own path, then those of the parent's children (W15).
    fn fire_change(&mut self, change: &Change, zxid: Zxid) {
        let (own, changes_children) = match change.kind {
            ChangeKind::Created => (EventKind::NodeCreated, true),
            ChangeKind::Deleted => (EventKind::NodeDeleted, true),
            ChangeKind::DataChanged => (EventKind::NodeDataChanged, false),
        };
        self.fire(&change.path, own, zxid, change.acl.as_deref());
        if changes_children && let Some(parent) = parent_of(&change.path) {
            self.fire(parent, EventKind::NodeChildrenChanged, zxid, change.parent_acl.as_deref());
        }
    }

    /// One event to everybody who watches for it and may read the node (W10). It is encoded once.
    fn fire(&mut self, path: &str, kind: EventKind, zxid: Zxid, acl: Option<&[zkfast_wire::Acl<'static>]>) {
        let mut notified = std::mem::take(&mut self.notified);
        let mut interests = TreeInterests { reader: &self.reader, core: self.index };
        self.watches.fire(path, kind, &mut interests, &mut notified);
        if !notified.is_empty() {
            let mut event = std::mem::take(&mut self.event);
            event.clear();
            watch::put_notification(&mut event, zxid, kind, path);
            for slot in notified.drain(..) {
                self.put_event(slot, kind, &event, acl);
            }
            self.event = event;
            self.note_watches();
        }
        self.notified = notified;
    }

    fn put_event(
        &mut self,
        slot: u32,
        kind: EventKind,
        event: &[u8],
        acl: Option<&[zkfast_wire::Acl<'static>]>,
    ) {
        let Some(connection) = self.connections.at(slot) else { return };
        if connection.is_ending() {
            return;
        }
        let may_read = self.options.skip_acl
            || acl.is_none_or(|acl| acl::allowed(acl, Perms::READ, &connection.identities));
        if !may_read {
            return;
        }
        if connection.output.unsent().len() + event.len() > limits::OUT_BUFFER_BYTES_MAX {
            log::warn!(
                "Closing {}: it has not read {} bytes of answers and events.",
                connection.name(),
                connection.output.unsent().len()
            );
            connection.kill();
            self.counters.connections_dropped.increment();
        } else {
            connection.output.lend(&mut self.spare);
            connection.output.tail().put_slice(event);
            connection.figures.sent += 1;
            self.counters.packets_sent.increment();
            self.counters.watch_bytes.add(event.len() as u64);
            let fired = &self.counters.watches_fired;
            match kind {
                EventKind::NodeCreated => fired.created.increment(),
                EventKind::NodeDeleted => fired.deleted.increment(),
                EventKind::NodeDataChanged => fired.changed.increment(),
                EventKind::NodeChildrenChanged => fired.children.increment(),
            }
        }
        let id = connection.id;
        self.mark_told(id);
    }
}

/// What came for a request.
enum Completion<'a> {
    Write(&'a Answer),
    Synced,
    Ephemerals(std::sync::Arc<[Box<str>]>),
}

impl Completion<'_> {
    /// Something that can be kept in the queue, with what the request itself holds.
    fn keep(self, what: What) -> Outcome {
        match (self, what) {
            (Self::Write(answer), What::Write(op)) => Outcome::Write(op, answer.clone()),
            (Self::Synced, What::Sync(body)) => Outcome::Synced(body),
            (Self::Ephemerals(paths), What::Ephemerals) => Outcome::Ephemerals(paths),
            _ => unreachable!("`find` looked for a request of this kind"),
        }
    }
}

/// The body of a write's reply (T31, T32).
/// Whether the write was refused because its session speaks through another server; Apache's leader refuses a multi part
/// by part.
fn says_moved(answer: &Answer) -> bool {
    const MOVED: ErrorCode = ErrorCode::SESSION_MOVED;
    match answer {
        Answer::Error(code) => *code == MOVED,
        Answer::Multi(parts) => {
            parts.iter().any(|part| matches!(part, MultiAnswer::Error(code) if *code == MOVED))
        }
        _ => false,
    }
}

fn put_answer(out: &mut Vec<u8>, op: OpCode, answer: &Answer) {
    match answer {
        Answer::Error(_) | Answer::Empty | Answer::SessionCreated { .. } | Answer::SessionClosed => {}
        Answer::Created { path, stat } => {
            jute::put_text(out, path);
            if let (true, Some(stat)) = (op != OpCode::Create, stat) {
                stat.encode(out);
            }
        }
        Answer::Stat(stat) => stat.encode(out),
        Answer::Multi(answers) => {
            for answer in answers {
                put_multi_answer(out, answer);
            }
            multi::put_end(out);
        }
    }
}

fn put_multi_answer(out: &mut Vec<u8>, answer: &MultiAnswer) {
    match answer {
        MultiAnswer::Created { path, stat: None } => multi::put_created(out, path),
        MultiAnswer::Created { path, stat: Some(stat) } => multi::put_created_stat(out, path, stat),
        MultiAnswer::Deleted => multi::put_deleted(out),
        MultiAnswer::Stat(stat) => multi::put_data_set(out, stat),
        MultiAnswer::Checked => multi::put_checked(out),
        MultiAnswer::Error(code) => multi::put_error(out, *code),
    }
}

/// The parent in the sense of watches: that of "/x" is "/"; the root has none.
fn parent_of(path: &str) -> Option<&str> {
    match path.rfind('/')? {
        0 if path.len() == 1 => None,
        0 => Some("/"),
        end => Some(&path[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_has_no_parent() {
        assert_eq!(parent_of("/"), None);
        assert_eq!(parent_of("/a"), Some("/"));
        assert_eq!(parent_of("/a/b"), Some("/a"));
    }
}
