//! One request after the other: what is answered here and now, what goes to the pipeline, what is refused.
//!
//! Everything but authentication keeps its place in the connection's queue (C18). Authentication is answered at once
//! and holds from the very next packet on, while requests that are under way keep the identities that they came with
//! (C21, G16).

use super::{
    connection::{Connection, Phase},
    core::Core,
    outstanding::{Outcome, Waiting, What},
};
use crate::{
    config::limits,
    cores::messages::{Asker, Submission, Write},
};
use bytes::Bytes;
use std::{borrow::Cow, ops::Range};
use zkfast_tree::Answer;
use zkfast_wire::{Decoder, ErrorCode, OpCode, ReplyHeader, Request, RequestHeader, Xid, Zxid, frame};

/// Bytes read from one socket, of which parts must outlive the read buffer: bodies that go to the pipeline or wait.
///
/// Neighbouring bodies share one allocation; a block is small, because a single body keeps all of it alive.
struct Chunk<'a> {
    bytes: &'a [u8],
    block_start: usize,
    block: Bytes,
}

impl<'a> Chunk<'a> {
    const BLOCK_BYTES: usize = 16 << 10;

    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, block_start: 0, block: Bytes::new() }
    }

    fn share(&mut self, range: Range<usize>) -> Bytes {
        if range.is_empty() {
            return Bytes::new();
        }
        let is_inside = range.start >= self.block_start && range.end <= self.block_start + self.block.len();
        if !is_inside {
            let end = range.end.max((range.start + Self::BLOCK_BYTES).min(self.bytes.len()));
            self.block_start = range.start;
            self.block = Bytes::copy_from_slice(&self.bytes[range.start..end]);
        }
        self.block.slice(range.start - self.block_start..range.end - self.block_start)
    }
}

impl Core {
    /// Takes in what may be taken in of `bytes`; returns how many. The rest comes again.
    pub(super) fn take_in(&mut self, connection: &mut Connection, bytes: &[u8]) -> usize {
        let mut chunk = Chunk::new(bytes);
        let mut taken = 0;
        let until_ns = self.now_ns + limits::TIME_PER_CONNECTION_NS;
        while taken < bytes.len() {
            let rest = &bytes[taken..];
            match connection.phase {
                Phase::Fresh => {
                    if !self.uplink.has_room() {
                        self.hold(connection);
                        break;
                    }
                    match self.greet(connection, rest) {
                        0 => break,
                        greeted => taken += greeted,
                    }
                }
                Phase::Serving => {
                    if !self.may_take(connection) {
                        self.hold(connection);
                        break;
                    }
                    // The clock is looked at behind reads.
                    if self.now_ns > until_ns {
                        self.hold_for_others(connection);
                        break;
                    }
                    match frame::cut(rest, self.options.frame_bytes_limit) {
                        Ok(None) => break,
                        Ok(Some(payload)) => {
                            let start = taken + frame::LENGTH_BYTES;
                            taken = start + payload.len();
                            self.take_frame(connection, &mut chunk, start..taken);
                        }
                        Err(error) => {
                            self.refuse_frame(connection, rest, error);
                            return bytes.len();
                        }
                    }
                }
                // C13: what comes behind the ConnectRequest waits for its answer.
                Phase::Opening { .. } | Phase::Gathering => break,
                Phase::Finishing | Phase::Dead => return bytes.len(),
            }
        }
        taken
    }

    /// R1: closes without a reply, as Apache does, but says in the log who and what it was.
    fn refuse_frame(&mut self, connection: &mut Connection, bytes: &[u8], error: frame::FrameTooLong) {
        self.counters.large_requests_rejected.increment();
        self.counters.connections_dropped.increment();
        let what = describe(&bytes[frame::LENGTH_BYTES..]);
        log::warn!(
            "Closing {}: {error}{what}. The limit is jute.maxbuffer, to be raised here and in the client.",
            connection.name()
        );
        connection.kill();
    }

    fn take_frame(&mut self, connection: &mut Connection, chunk: &mut Chunk<'_>, range: Range<usize>) {
        self.counters.packets_received.increment();
        connection.figures.received += 1;
        let payload = &chunk.bytes[range.clone()];
        let Ok(header) = RequestHeader::decode(&mut Decoder::new(payload)) else {
            log::warn!("Closing {}: a frame of {} bytes has no header.", connection.name(), payload.len());
            self.counters.connections_dropped.increment();
            return connection.kill();
        };
        let body = &payload[RequestHeader::ENCODED_BYTES..];
        let body_range = range.start + RequestHeader::ENCODED_BYTES..range.end;
        let op = OpCode::from_i32(header.op);
        if !self.may_ask(connection, op) {
            return self.refuse_unauthenticated(connection, header);
        }
        if payload.len() > self.options.large_request_bytes && !self.has_room_for_large(payload.len()) {
            return self.refuse_large(connection, payload.len());
        }
        if connection.was_held_too_long && op.is_some_and(may_be_throttled) {
            self.counters.throttled.increment();
            self.wait(connection, header.xid, 0, What::Throttled);
            return self.advance(connection);
        }
        // S16: the end of a session is all that a read-only server takes.
        if let Some(op) = op
            && self.is_read_only
            && (op == OpCode::Sync || op.is_write() && op != OpCode::CloseSession)
        {
            let refusal = Outcome::Write(op, Answer::Error(ErrorCode::NOT_READ_ONLY));
            self.wait(connection, header.xid, 0, What::Answered(refusal));
            return self.advance(connection);
        }
        match op {
            Some(OpCode::Auth) => self.authenticate(connection, header.xid, body),
            Some(OpCode::Sasl) => self.answer_sasl(connection, header.xid, body),
            Some(op) if op.is_write() => {
                let body = chunk.share(body_range);
                self.submit_write(connection, header.xid, op, body);
            }
            Some(OpCode::Sync) => {
                let body = chunk.share(body_range);
                self.submit_sync(connection, header.xid, body);
            }
            Some(OpCode::GetEphemerals) => self.submit_ephemerals(connection, header.xid, body),
            Some(op) if is_local(op) => {
                if connection.outstanding.is_empty() {
                    self.answer_local(connection, op, header.xid, body, self.now_ns);
                } else {
                    let body = chunk.share(body_range);
                    self.wait(connection, header.xid, body.len(), What::Local(op, body));
                }
            }
            // C25, G37: type 0, a bare check, the server's own operations, and what nobody knows.
            _ => {
                log::warn!(
                    "{} asks for operation {}, which no client may; refused.",
                    connection.name(),
                    header.op
                );
                self.wait(connection, header.xid, 0, What::Refusal);
                self.advance(connection);
            }
        }
    }

    /// Gives a request its place in the queue.
    fn wait(&mut self, connection: &mut Connection, xid: Xid, body_bytes: usize, what: What) {
        self.take_large(body_bytes);
        self.load.requests += 1;
        self.load.bytes += body_bytes;
        self.counters.outstanding.increment();
        let body_bytes = u32::try_from(body_bytes).expect("jute.maxbuffer is below 4 GiB");
        connection.outstanding.push(Waiting { xid, read_at_ns: self.now_ns, body_bytes, what });
    }

    /// Takes the head of the queue out, to be answered now.
    pub(super) fn pop_waiting(&mut self, connection: &mut Connection) -> Option<Waiting> {
        let waiting = connection.outstanding.pop()?;
        self.load.requests -= 1;
        self.load.bytes -= waiting.body_bytes as usize;
        self.give_back_large(waiting.body_bytes as usize);
        self.counters.outstanding.decrement();
        Some(waiting)
    }

    fn submit_write(&mut self, connection: &mut Connection, xid: Xid, op: OpCode, body: Bytes) {
        self.wait(connection, xid, body.len(), What::Write(op));
        self.uplink.send(Submission::Write(Write {
            asker: Asker { connection: connection.id, xid },
            session: connection.session,
            op,
            body,
            identities: connection.identities.clone(),
        }));
    }

    fn submit_sync(&mut self, connection: &mut Connection, xid: Xid, body: Bytes) {
        match Request::decode(OpCode::Sync, &mut Decoder::new(&body)) {
            Ok(_) => {
                self.wait(connection, xid, body.len(), What::Sync(body));
                let asker = Asker { connection: connection.id, xid };
                self.uplink.send(Submission::Sync { asker, session: connection.session });
            }
            Err(_) => self.answer_in_turn(connection, xid, OpCode::Sync, body),
        }
    }

    fn submit_ephemerals(&mut self, connection: &mut Connection, xid: Xid, body: &[u8]) {
        let Ok(Request::GetEphemerals(prefix)) =
            Request::decode(OpCode::GetEphemerals, &mut Decoder::new(body))
        else {
            let body = Bytes::copy_from_slice(body);
            return self.answer_in_turn(connection, xid, OpCode::GetEphemerals, body);
        };
        // OP25: null, blank and "/" mean all.
        let prefix = match prefix.as_deref().map(str::trim) {
            None | Some("" | "/") => Box::default(),
            Some(_) => prefix.map(Cow::into_owned).unwrap_or_default().into_boxed_str(),
        };
        self.wait(connection, xid, body.len(), What::Ephemerals);
        self.uplink.send(Submission::GetEphemerals {
            asker: Asker { connection: connection.id, xid },
            session: connection.session,
            prefix,
        });
    }

    /// An operation that this core answers itself, behind what is outstanding.
    fn answer_in_turn(&mut self, connection: &mut Connection, xid: Xid, op: OpCode, body: Bytes) {
        self.wait(connection, xid, body.len(), What::Local(op, body));
        self.advance(connection);
    }

    /// Answers from the head of the queue on, as far as nothing has to be waited for.
    ///
    /// Stops when the client does not take its answers: then they wait as requests, which are smaller. But a read in
    /// front of a write of its own session is answered as long as there is any room: the write may be applied soon,
    /// and the read must not show it (S18).
    ///
    /// Stops as well when the others have waited long enough, unless a write of its own session is behind the reads.
    pub(super) fn advance(&mut self, connection: &mut Connection) {
        let until_ns = self.now_ns + limits::TIME_PER_CONNECTION_NS;
        while let Some(head) = connection.outstanding.head() {
            let is_ready = match &head.what {
                What::Write(_) | What::Sync(_) | What::Ephemerals => false,
                What::Local(..) | What::LocalAs(_) => {
                    let unsent = connection.output.unsent().len();
                    unsent < limits::OUT_BUFFER_BYTES_PAUSE
                        || unsent < limits::OUT_BUFFER_BYTES_MAX && connection.outstanding.has_write()
                }
                What::Refusal | What::Throttled | What::Answered(_) => true,
            };
            if !is_ready || connection.is_ending() {
                if !connection.is_ending() && matches!(head.what, What::Local(..) | What::LocalAs(_)) {
                    // It goes on when the out-buffer has been taken.
                    self.hold(connection);
                }
                return;
            }
            if self.now_ns > until_ns && !connection.outstanding.has_write() {
                return self.hold_for_others(connection);
            }
            let Some(waiting) = self.pop_waiting(connection) else { return };
            match waiting.what {
                What::Local(op, body) => {
                    self.answer_local(connection, op, waiting.xid, &body, waiting.read_at_ns);
                }
                What::LocalAs(kept) => {
                    let (op, body, identities) = *kept;
                    let proved = std::mem::replace(&mut connection.identities, identities);
                    self.answer_local(connection, op, waiting.xid, &body, waiting.read_at_ns);
                    connection.identities = proved;
                }
                What::Answered(outcome) => {
                    self.answer_outcome(connection, waiting.xid, waiting.read_at_ns, outcome);
                }
                What::Throttled => {
                    self.reply_code(connection, waiting.xid, ErrorCode::THROTTLED_OP);
                }
                What::Refusal => {
                    let header =
                        ReplyHeader { xid: waiting.xid, zxid: Zxid(-1), err: ErrorCode::UNIMPLEMENTED };
                    super::core::write_reply(&mut self.spare, &self.counters, connection, header, |_| {});
                    self.end(connection);
                }
                What::Write(_) | What::Sync(_) | What::Ephemerals => unreachable!("looked at above"),
            }
        }
    }

    /// Sends what is written, then closes; whatever is outstanding is forgotten.
    pub(super) fn end(&mut self, connection: &mut Connection) {
        self.counters.connections_dropped.increment();
        self.forget_outstanding(&connection.outstanding);
        connection.outstanding = Default::default();
        connection.finish(self.now_ms());
    }
}

/// Operations that a client may be told to send again (R8): not those on which its session hangs, and not
/// authentication, which never waits.
const fn may_be_throttled(op: OpCode) -> bool {
    !matches!(
        op,
        OpCode::Ping
            | OpCode::CreateSession
            | OpCode::CloseSession
            | OpCode::Auth
            | OpCode::Sasl
            | OpCode::SetWatches
            | OpCode::SetWatches2
    )
}

/// Operations that a client core answers from its own view and tables.
const fn is_local(op: OpCode) -> bool {
    matches!(
        op,
        OpCode::Exists
            | OpCode::GetData
            | OpCode::GetAcl
            | OpCode::GetChildren
            | OpCode::GetChildren2
            | OpCode::GetAllChildrenNumber
            | OpCode::MultiRead
            | OpCode::Ping
            | OpCode::CheckWatches
            | OpCode::RemoveWatches
            | OpCode::SetWatches
            | OpCode::SetWatches2
            | OpCode::AddWatch
            | OpCode::WhoAmI
    )
}

/// What can be told of a request of which only the beginning is there: operation and path.
fn describe(payload: &[u8]) -> String {
    let mut decoder = Decoder::new(payload);
    let Ok(header) = RequestHeader::decode(&mut decoder) else { return String::new() };
    let Some(op) = OpCode::from_i32(header.op) else { return String::new() };
    let mut text = format!(", {op:?}");
    if op == OpCode::Multi {
        let _ = zkfast_wire::request::MultiHeader::decode(&mut decoder);
    }
    if let Ok(path) = decoder.text("path")
        && path.starts_with('/')
    {
        // Quoted, so that a path with a line break in it makes no line of its own.
        text.push_str(&format!(" of {:?}", path.chars().take(256).collect::<String>()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_frame_is_described_by_what_is_there() {
        let mut out = Vec::new();
        let request =
            zkfast_wire::request::SetDataRequest { path: "/a/b".into(), data: Some(&[7; 100]), version: -1 };
        Request::SetData(request).write(Xid(1), &mut out);
        assert_eq!(describe(&out[4..40]), ", SetData of \"/a/b\"");
        assert_eq!(describe(&out[4..12]), ", SetData");
        assert_eq!(describe(b"\0\0\0\x01zzzz"), "");
        assert_eq!(describe(b""), "");
    }

    /// Danger: one small write keeps a whole read buffer alive, or a body is cut at the wrong place.
    #[test]
    fn bodies_share_small_blocks() {
        let bytes: Vec<u8> = (0..100_000u32).map(|value| value as u8).collect();
        let mut chunk = Chunk::new(&bytes);
        for range in [3..9, 9..9, 9..200, 16_000..17_000, 20_000..90_000, 90_000..100_000, 5..7] {
            let body = chunk.share(range.clone());
            assert_eq!(body, &bytes[range.clone()], "{range:?}");
        }
    }
}
