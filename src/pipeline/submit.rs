//! From the lanes into the order: each request of a client core is prepared, numbered and appended.

use super::{Barrier, BarrierKind, Duty, Pending, Pipeline};
use crate::{
    config::limits,
    cores::messages::{Asker, CloseReason, ConnectionId, Delivery, Submission, Write},
    status::{four_letter::Needs, gather::Gather},
};
use std::sync::Arc;
use zkfast_tree::Ask;
use zkfast_wire::{Decoder, Epoch, ErrorCode, Id, OpCode, Request, SessionId, Xid, Zxid};
use zkfast_zab::{Event, Node, ROLLOVER_MARGIN};

/// Room for records in one piece of the arena. At 200 bytes a record some 300 share one allocation.
const ARENA_BYTES: usize = 64 * 1024;

/// Bytes of a record that ends a session, besides the paths in it; more than its header and digest take.
pub(super) const END_BYTES: usize = 512;

/// The path with which the body of most requests begins: for prefetching, so anything may be in it.
fn path_of(submission: &Submission) -> Option<&[u8]> {
    match submission {
        Submission::Write(write) => leading_buffer(&write.body),
        _ => None,
    }
}

/// A length and as many bytes.
pub(super) fn leading_buffer(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.get(..usize::try_from(i32::from_be_bytes(*length)).ok()?)
}

impl Pipeline {
    /// Takes a bounded number of submissions from the lanes, from each core in turn; whether there were any.
    pub(super) fn drain_submissions(&mut self) -> bool {
        self.roll_over();
        let mut left = limits::SUBMITS_PER_TURN;
        let count = self.cores.len();
        let mut any = false;
        // What waited for the next epoch comes before what is in the lanes.
        while left > 0 && !self.is_backed_up() && self.submit_held() {
            any = true;
            left -= 1;
        }
        if self.has_held() {
            return any;
        }
        // A group is submitted whole: near the end of an epoch's counter there may be room for only one more.
        let counter = self.node.next_zxid().map_or(u32::MAX, Zxid::counter);
        let group_max = if counter > u32::MAX - ROLLOVER_MARGIN { 1 } else { limits::PREFETCHED };
        // A share for each core, so that a busy one cannot keep the others waiting.
        let share = left.div_ceil(count);
        for offset in 0..count {
            let index = (self.first_core + offset) % count;
            let mut own = share.min(left);
            while own > 0 && !self.is_backed_up() {
                let mut group = std::mem::take(&mut self.group);
                let submissions = &self.cores[index].lanes.submissions;
                group.extend(std::iter::from_fn(|| submissions.pop()).take(own.min(group_max)));
                let count = group.len();
                self.tree.prefetch(group.iter().filter_map(path_of));
                for submission in group.drain(..) {
                    self.submit(index, submission);
                }
                self.group = group;
                if count == 0 {
                    break;
                }
                any = true;
                own -= count;
                left -= count;
            }
        }
        self.first_core = (self.first_core + 1) % count;
        any
    }

    pub(super) fn submit(&mut self, core: usize, submission: Submission) {
        let Some(submission) = self.submit_local(core, submission) else { return };
        if self.cores[core].awaits_quiet || self.duty != Duty::Orders {
            return self.submit_elsewhere(core, submission);
        }
        match submission {
            Submission::Write(write) => self.submit_write(&write),
            Submission::OpenSession { connection, timeout_ms } => self.open_session(connection, timeout_ms),
            Submission::ResumeSession { connection, session, password, timeout_ms } => {
                self.resume_session(connection, session, &password, timeout_ms);
            }
            Submission::Sync { asker, .. } => self.add_barrier(BarrierKind::Sync { asker }),
            Submission::GetEphemerals { asker, session, prefix } => {
                self.add_barrier(BarrierKind::Ephemerals { asker, session, prefix });
            }
            Submission::Touch(touched) => self.touch(&touched),
            Submission::Gone { connection, session, heard } => {
                self.touch(heard.as_slice());
                self.sessions.disconnect(session, connection);
            }
            Submission::Gather(gather) => self.pass_round(gather),
            Submission::Gathered(gather) => self.pass_back(gather),
            Submission::Quiet => self.cores[core].awaits_quiet = false,
        }
    }

    /// What comes while this server does not order writes: a learner forwards it. What was asked in a role that has
    /// ended is dropped, since its connection is closed.
    fn submit_elsewhere(&mut self, core: usize, submission: Submission) {
        match submission {
            Submission::Quiet => self.cores[core].awaits_quiet = false,
            Submission::Gather(gather) => self.pass_round(gather),
            Submission::Gathered(gather) => self.pass_back(gather),
            _ if self.cores[core].awaits_quiet || self.duty == Duty::Idle => {}
            Submission::Write(write) => self.forward_write(write),
            Submission::OpenSession { connection, timeout_ms } => self.forward_open(connection, timeout_ms),
            Submission::ResumeSession { connection, session, password, timeout_ms } => {
                self.forward_resume(connection, session, &password, timeout_ms);
            }
            Submission::Sync { asker, session } => self.forward_sync(asker, session),
            Submission::GetEphemerals { asker, session, prefix } => {
                self.list_behind_forwarded(asker, session, prefix);
            }
            Submission::Touch(touched) => self.touch_at_leader(&touched),
            Submission::Gone { connection, session, heard } => {
                self.touch_at_leader(heard.as_slice());
                self.sessions.disconnect(session, connection);
            }
        }
    }

    fn pass_round(&mut self, gather: Arc<Gather>) {
        match gather.word().needs() {
            Needs::Sessions => {
                gather.add_sessions(self.sessions_dump(self.wall_ms - self.now_ms.cast_signed()));
            }
            Needs::Digests => {
                let digests = self.tree.digest_log().map(|logged| (logged.zxid, logged.digest));
                gather.add_digests(digests.collect());
            }
            Needs::Numbers | Needs::Connections | Needs::Watches => {}
        }
        for core in &mut self.cores {
            core.push_and_kick(Delivery::Gather(gather.clone()));
        }
    }

    fn pass_back(&mut self, gather: Arc<Gather>) {
        let origin = usize::from(gather.origin().core);
        self.cores[origin].push_and_kick(Delivery::Gathered(gather));
    }

    fn submit_write(&mut self, write: &Write) {
        let is_short = self.await_reserve(write.body.len());
        let ends = write.op == OpCode::CloseSession;
        if is_short && !(ends && self.has_room_for_end(write.session)) {
            self.counters.refused_for_space.increment();
            // Answered in its turn, behind what the session asked before. Reads go on.
            self.add_barrier(BarrierKind::Failed { asker: write.asker, code: ErrorCode::SYSTEM_ERROR });
            return;
        }
        let asker = Some(write.asker);
        let cxid = write.asker.xid;
        if self.member.is_some() && write.op != OpCode::CloseSession && !self.may_speak_here(write.session) {
            let code = Err(ErrorCode::SESSION_MOVED);
            return self.propose(asker, write.session, cxid, write.op, code, &[]);
        }
        let request = Request::decode(write.op, &mut Decoder::new(&write.body));
        match &request {
            Ok(request) => {
                self.propose(asker, write.session, cxid, write.op, Ok(request), &write.identities);
            }
            // The body cannot be read: it takes a zxid all the same (C27), so that every request has one answer.
            Err(_) => self.propose(
                asker,
                write.session,
                cxid,
                write.op,
                Err(ErrorCode::MARSHALLING_ERROR),
                &write.identities,
            ),
        }
        if write.op == OpCode::CloseSession {
            self.sessions.closing(write.session);
        }
    }

    fn open_session(&mut self, connection: ConnectionId, timeout_ms: i32) {
        if self.await_reserve(0) {
            self.counters.refused_for_space.increment();
            let delivery = Delivery::Close { connection, reason: CloseReason::NoSpace };
            self.cores[usize::from(connection.core)].push_and_kick(delivery);
            return;
        }
        let session = self.sessions.new_id(&self.tree);
        self.sessions.connect(session, connection, timeout_ms, self.clock.now_ms());
        self.own_here(session);
        let asker = Some(Asker { connection, xid: Xid(0) });
        let request = Request::CreateSession(timeout_ms);
        self.propose(asker, session, Xid(0), OpCode::CreateSession, Ok(&request), &[]);
    }

    /// Looks for room in the log for what comes of a request of `bytes`, before it is taken; whether there is none, so that
    /// it is to be refused ([`TxnLog::await_reserve`]).
    ///
    /// [`TxnLog::await_reserve`]: crate::storage::TxnLog::await_reserve
    #[must_use = "a second look may see something else"]
    pub(super) fn await_reserve(&mut self, bytes: usize) -> bool {
        let waiting: usize = self.unappended.iter().map(|(_, record)| record.len()).sum();
        let is_short = self.log.await_reserve(waiting + bytes + END_BYTES);
        self.tell_of_space(is_short);
        is_short
    }

    /// Whether there is room for the end of this session on a full disk: what is reserved of the segment in use serves for
    /// that alone, so that the locks of the dead are let go (row R15).
    pub(super) fn has_room_for_end(&self, session: SessionId) -> bool {
        // The record names what is deleted with the session.
        let paths: usize = self.tree.ephemerals_of(session).map(|path| 4 + path.len()).sum();
        self.unappended.is_empty() && self.log.has_reserve(END_BYTES + paths)
    }

    /// Ends a session by the server's own will: expiry (S6).
    pub(super) fn close_session(&mut self, session: SessionId) {
        self.sessions.closing(session);
        self.propose(None, session, Xid(0), OpCode::CloseSession, Ok(&Request::CloseSession), &[]);
    }

    /// Validates a request into a transaction (or an error transaction), gives it the next place in the order and
    /// appends it.
    pub(super) fn propose(
        &mut self,
        asker: Option<Asker>,
        session: SessionId,
        cxid: Xid,
        op: OpCode,
        request: Result<&Request<'_>, ErrorCode>,
        identities: &[Id<'static>],
    ) {
        let zxid = self.node.next_zxid().expect("callers ask `is_backed_up`, which sees a used-up counter");
        self.scratch.clear();
        match request {
            Ok(request) => {
                let ask = Ask { session, cxid: cxid.0, zxid, time_ms: self.wall_ms, op, request, identities };
                self.tree.prepare(&ask, &mut self.scratch);
            }
            Err(code) => {
                self.tree.prepare_error(session, cxid.0, zxid, self.wall_ms, code, &mut self.scratch);
            }
        }
        if self.arena.capacity() < self.scratch.len() {
            self.arena.reserve(ARENA_BYTES.max(self.scratch.len()));
        }
        self.arena.extend_from_slice(&self.scratch);
        let record = self.arena.split().freeze();
        self.snapshots.count(record.len());
        self.counters.appended.increment();
        self.counters.record_bytes.note(record.len() as u64);
        self.pending.push_back(Pending { zxid, record: record.clone(), asker });
        self.step(Event::Submit { zxid, record });
    }

    /// Goes on in the next epoch when this one's counter is used up and nothing is in flight (ZOOKEEPER-1277).
    ///
    /// A standalone server may do so by itself, as Apache's does: nobody else counts. Until the pipeline is empty
    /// `is_backed_up` keeps new work out.
    pub(super) fn roll_over(&mut self) {
        // A member steps down by itself, for another epoch.
        if self.member.is_none() && self.node.next_zxid().is_none() && self.pending.is_empty() {
            let epoch = self.node.committed().epoch();
            self.node = Node::alone(Zxid::new(Epoch(epoch.0 + 1), 0));
        }
    }

    pub(super) fn add_barrier(&mut self, kind: BarrierKind) {
        let behind = self.pending.back().map_or_else(|| self.tree.last_applied(), |pending| pending.zxid);
        self.barriers.push_back(Barrier { behind, kind });
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        cores::messages::{CloseReason, Delivery, Write},
        pipeline::{
            Duty, Pipeline,
            member::fixture::{Fixture, asker},
        },
    };
    use bytes::Bytes;
    use std::sync::Arc;
    use zkfast_wire::{OpCode, SessionId};

    /// R15. Danger: the log waits for the next segment and hears that there is no room; then there is some, of which
    /// nothing is reserved yet; and a second look accepts a record that the disk may not take.
    #[test]
    fn what_is_taken_goes_by_one_look_at_the_disk() {
        let check = |ask: fn(&mut Pipeline), is_refused: fn(&Delivery) -> bool| {
            let mut fixture = Fixture::new(1);
            let shared = fixture.use_up_the_log();
            fixture.pipeline.duty = Duty::Orders;
            shared.find_room_after(1);
            ask(&mut fixture.pipeline);
            assert!(!shared.space_is_low(), "there is room by now");
            assert_eq!(fixture.pipeline.counters.refused_for_space.get(), 1);
            assert!(fixture.pipeline.pending.is_empty());
            fixture.pipeline.answer_barriers();
            let told = fixture.take_told();
            assert!(told.len() == 1 && is_refused(&told[0]), "{told:?}");
        };
        let is_failed = |told: &Delivery| matches!(told, Delivery::Failed { .. });
        check(|pipeline| pipeline.submit_write(&write(OpCode::SetData)), is_failed);
        check(|pipeline| pipeline.submit_write(&write(OpCode::CloseSession)), is_failed);
        check(
            |pipeline| pipeline.open_session(asker(1).connection, 4000),
            |told| matches!(told, Delivery::Close { reason: CloseReason::NoSpace, .. }),
        );
    }

    fn write(op: OpCode) -> Write {
        Write { asker: asker(1), session: SessionId(1), op, body: Bytes::new(), identities: Arc::new([]) }
    }
}
