//! The state of one client core, without sockets: bytes of requests in, bytes of replies and events out.
//!
//! Lives on its core's thread alone. Promises, by the order in which it does things: a session's requests are
//! answered in their order; an event stands before any reply that shows what it tells of (W16), and behind the reply
//! that set its watch (W18); a reply shows the tree as of one transaction, never between two.
//!
//! The view changes only in [`Core::drain`]; between two drains everything that a connection reads is of one moment.

use super::{
    EdgeOptions, EdgeShared,
    connection::{Connection, Connections, Phase},
    lists::Lists,
    outstanding::Outstanding,
    throttle::{Load, Uplink},
    watches::{Interests, WatchTable},
};
use crate::{
    config::limits,
    cores::{
        lanes::{LaneReceiver, LaneSender},
        messages::{ConnectionId, Delivery, Submission},
    },
    status::CoreCounters,
};
use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
};
use zkfast_tree::Reader;
use zkfast_wire::{ErrorCode, ReplyHeader, SessionId, Xid, Zxid, frame, reply};

/// The state of a client core.
pub struct Core {
    pub(super) index: u16,
    pub(super) options: Arc<EdgeOptions>,
    pub(super) shared: Arc<EdgeShared>,
    pub(super) counters: Arc<CoreCounters>,
    pub(super) reader: Reader,
    pub(super) uplink: Uplink,
    pub(super) deliveries: LaneReceiver<Delivery>,
    pub(super) connections: Connections,
    pub(super) watches: WatchTable,
    pub(super) by_session: HashMap<SessionId, ConnectionId>,
    pub(super) load: Load,
    pub(super) held: VecDeque<ConnectionId>,
    pub(super) rearm: Vec<ConnectionId>,
    answered: Vec<ConnectionId>,
    told: VecDeque<ConnectionId>,
    touched: Vec<ConnectionId>,
    pub(super) spare: Vec<Vec<u8>>,
    pub(super) notified: Vec<u32>,
    pub(super) lists: Lists,
    pub(super) event: Vec<u8>,
    /// Bytes of connections' buffers that were freed since the last sweep.
    freed_bytes: usize,
    pub(super) now_ns: u64,
    /// Short reads that were answered since the clock was last looked at.
    pub(super) reads_since_look: u32,
    /// When the last sweep was, milliseconds of the server's clock.
    swept_at_ms: u64,
    /// No connection counts as idle for longer than since then.
    idle_from_ms: u64,
    /// Whether clients may have sessions here now: always, alone; in an ensemble, while this server has a role.
    pub(super) is_serving: bool,
    /// They may only read (S16).
    pub(super) is_read_only: bool,
    is_stopping: bool,
}

/// The tree, told what a core watches.
pub(super) struct TreeInterests<'a> {
    pub(super) reader: &'a Reader,
    pub(super) core: u16,
}

impl Core {
    /// The state of client core `index`.
    pub fn new(
        index: u16,
        options: Arc<EdgeOptions>,
        shared: Arc<EdgeShared>,
        counters: Arc<CoreCounters>,
        reader: Reader,
        submissions: LaneSender<Submission>,
        deliveries: LaneReceiver<Delivery>,
    ) -> Self {
        assert!(usize::from(index) < limits::CLIENT_CORES_MAX, "watch masks have a bit for each core");
        let is_serving = options.serves_from_start;
        Self {
            index,
            options,
            shared,
            counters,
            reader,
            uplink: Uplink::new(submissions),
            deliveries,
            connections: Connections::new(index),
            watches: WatchTable::default(),
            by_session: HashMap::new(),
            load: Load::default(),
            held: VecDeque::new(),
            rearm: Vec::new(),
            answered: Vec::new(),
            told: VecDeque::new(),
            touched: Vec::new(),
            spare: Vec::new(),
            notified: Vec::new(),
            lists: Lists::default(),
            event: Vec::new(),
            freed_bytes: 0,
            now_ns: 0,
            reads_since_look: 0,
            swept_at_ms: 0,
            idle_from_ms: 0,
            is_serving,
            is_read_only: false,
            is_stopping: false,
        }
    }

    /// Looks at the clock: at the start of whatever happens.
    pub(super) fn look_at_clock(&mut self) {
        self.now_ns = self.options.clock.now_ns();
        self.reads_since_look = 0;
    }

    /// Milliseconds of the server's clock when it was last looked at.
    pub(super) fn now_ms(&self) -> u64 {
        self.now_ns / 1_000_000 + 1
    }

    /// The name of a connection of this core.
    pub fn id_of(&self, slot: u32, generation: u32) -> ConnectionId {
        ConnectionId { core: self.index, slot, generation }
    }

    /// A new connection. The caller has counted it against the limits.
    pub fn accepted(&mut self, peer: SocketAddr) -> ConnectionId {
        self.look_at_clock();
        let now_ms = self.now_ms();
        self.counters.connections.increment();
        self.connections.insert(|id| Connection::accepted(id, peer, now_ms))
    }

    /// Bytes came in.
    pub fn received(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(mut connection) = self.connections.borrow(id) else { return };
        self.look_at_clock();
        self.counters.bytes_received.add(bytes.len() as u64);
        self.touch(&mut connection);
        if connection.input.is_empty() {
            let taken = self.take_in(&mut connection, bytes);
            if taken < bytes.len() && !connection.is_ending() {
                connection.input.extend_from_slice(&bytes[taken..]);
            }
        } else {
            connection.input.extend_from_slice(bytes);
            self.go_on(&mut connection);
        }
        self.put_back(connection);
    }

    /// Takes in what lies in the connection's input, as far as may be.
    pub(super) fn go_on(&mut self, connection: &mut Connection) {
        if connection.input.is_empty() {
            return;
        }
        let mut input = std::mem::take(&mut connection.input);
        let taken = self.take_in(connection, &input);
        if connection.is_ending() || taken == input.len() {
            return;
        }
        input.drain(..taken);
        if input.capacity() > limits::READ_CHUNK_BYTES && input.len() < input.capacity() / 4 {
            input.shrink_to(limits::READ_CHUNK_BYTES.max(input.len()));
        }
        connection.input = input;
    }

    /// The socket has ended or broken.
    pub fn hung_up(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else { return };
        // A four-letter word is answered although its sender has closed its half (O124).
        if !matches!(connection.phase, Phase::Finishing | Phase::Gathering) {
            // Held-back frames are whole; half a frame is the sign of a broken client or of something in between.
            let rest = &connection.input;
            if !connection.is_ending()
                && !rest.is_empty()
                && !matches!(frame::cut(rest, usize::MAX), Ok(Some(_)))
            {
                log::warn!(
                    "{} (session {}) ended in the middle of a frame, {} bytes of it had come; closed.",
                    connection.peer,
                    connection.session,
                    rest.len()
                );
            }
            connection.kill();
        }
        self.mark_dirty(id);
    }

    /// The connection's socket is closed: forget it.
    pub fn closed(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(id) else { return };
        self.counters.connections.decrement();
        self.freed_bytes += connection.output.capacity() + connection.input.capacity();
        self.forget_outstanding(&connection.outstanding);
        if !self.watches.is_empty() {
            let mut interests = TreeInterests { reader: &self.reader, core: self.index };
            self.watches.remove_connection(id.slot, &mut interests);
            self.note_watches();
        }
        if self.by_session.get(&connection.session) == Some(&id) {
            self.by_session.remove(&connection.session);
            // The list of who was heard of finds it no more.
            let heard = connection.is_touched.then(|| connection.touched());
            self.uplink.send(Submission::Gone { connection: id, session: connection.session, heard });
        }
    }

    /// Behind each change of the table of watches: mntr tells how many there are.
    pub(super) fn note_watches(&self) {
        self.counters.watches.set(self.watches.total() as u64);
    }

    pub(super) fn forget_outstanding(&mut self, outstanding: &Outstanding) {
        for waiting in outstanding.iter() {
            self.load.requests -= 1;
            self.load.bytes -= waiting.body_bytes as usize;
            self.give_back_large(waiting.body_bytes as usize);
        }
        self.counters.outstanding.set(self.load.requests as u64);
    }

    /// Ends [`Connections::borrow`], and remembers what must be sent or closed.
    pub(super) fn put_back(&mut self, mut connection: Box<Connection>) {
        let is_dirty = !connection.output.unsent().is_empty() || connection.is_ending();
        if is_dirty && !connection.is_dirty {
            connection.is_dirty = true;
            self.answered.push(connection.id);
        }
        connection.outstanding.shrink();
        self.connections.put_back(connection);
    }

    /// Has the connection looked at when the turn ends.
    pub fn mark_dirty(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get(id)
            && !connection.is_dirty
        {
            connection.is_dirty = true;
            self.answered.push(id);
        }
    }

    /// As [`Self::mark_dirty`], for a connection that was told of an event: it may wait for a later turn, so that an
    /// event with ten thousand watchers does not hold up everybody's answers.
    pub(super) fn mark_told(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get(id)
            && !connection.is_dirty
        {
            connection.is_dirty = true;
            self.told.push_back(id);
        }
    }

    /// Connections with something to send or to be closed; each is named once until it is dirty again. Whether some
    /// were left for the next turn.
    pub fn take_dirty(&mut self, out: &mut Vec<ConnectionId>) -> bool {
        let told = self.told.len().min(limits::TOLD_PER_TURN);
        for id in self.answered.drain(..).chain(self.told.drain(..told)) {
            if let Some(connection) = self.connections.get(id) {
                connection.is_dirty = false;
                out.push(id);
            }
        }
        !self.told.is_empty()
    }

    /// What a connection has to send, and whether it shall be closed behind that. Nothing to send means now.
    pub fn output(&mut self, id: ConnectionId) -> Option<(&[u8], Phase)> {
        let connection = self.connections.get(id)?;
        let unsent = if connection.phase == Phase::Dead { &[] } else { connection.output.unsent() };
        Some((unsent, connection.phase))
    }

    /// The socket took `count` bytes.
    pub fn sent(&mut self, id: ConnectionId, count: usize) {
        self.counters.bytes_sent.add(count as u64);
        let now_ms = self.now_ms();
        if let Some(connection) = self.connections.get(id) {
            connection.last_io_ms = now_ms;
            connection.output.advance(count);
            self.freed_bytes += connection.output.give_back(&mut self.spare);
        }
    }

    /// Whether the connection's socket should be read now.
    pub fn wants_input(&mut self, id: ConnectionId) -> bool {
        !self.is_stopping && self.connections.get(id).is_some_and(|connection| connection.wants_input())
    }

    /// Whether there is news from the pipeline.
    pub fn has_deliveries(&self) -> bool {
        !self.deliveries.is_empty()
    }

    /// Whether some input waits for room.
    pub fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether the pipeline has said that the server stops.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// The end of a turn, before the sockets are written to: what waited for room goes on, and the pipeline is woken.
    pub fn end_turn(&mut self) {
        self.uplink.pump();
        if !self.held.is_empty() {
            self.look_at_clock();
            self.release_held();
        }
        self.uplink.ring();
    }

    /// Tells the tree's writer what this core has seen: when nothing borrowed from the tree is held. Once a turn.
    pub fn publish(&mut self) {
        self.reader.publish();
    }

    /// Notes that the session has been heard of (S5).
    fn touch(&mut self, connection: &mut Connection) {
        connection.last_packet_ms = self.now_ms();
        connection.last_io_ms = connection.last_packet_ms;
        if !connection.is_touched && connection.session != SessionId(0) {
            connection.is_touched = true;
            self.touched.push(connection.id);
        }
    }

    /// Whether much memory was freed since this was last asked.
    pub fn has_freed_much(&mut self) -> bool {
        std::mem::take(&mut self.freed_bytes) > limits::FREED_BYTES_KEPT
    }

    /// What happens a few times a tick: sessions are touched, and connections that are idle for too long are closed.
    pub fn sweep(&mut self) {
        self.look_at_clock();
        self.sweep_at_this_moment();
    }

    /// The same at the moment when the clock was last looked at.
    pub(super) fn sweep_at_this_moment(&mut self) {
        self.send_touches();
        self.close_idle();
        self.uplink.pump();
    }

    /// Forgets who was heard of.
    pub(super) fn forget_touched(&mut self) {
        for id in std::mem::take(&mut self.touched) {
            if let Some(connection) = self.connections.get(id) {
                connection.is_touched = false;
            }
        }
    }

    fn send_touches(&mut self) {
        let mut touches = Vec::new();
        for id in std::mem::take(&mut self.touched) {
            let Some(connection) = self.connections.get(id) else { continue };
            connection.is_touched = false;
            touches.push(connection.touched());
            if touches.len() == limits::TOUCHES_PER_SUBMISSION {
                self.uplink.send(Submission::Touch(std::mem::take(&mut touches)));
            }
        }
        if !touches.is_empty() {
            self.uplink.send(Submission::Touch(touches));
        }
    }

    /// S13, S14, R9: closes the connections of which [`Connection::idle_until_ms`] says so. A sweep over all
    /// connections, a few times a tick: cheaper than a timer for each.
    fn close_idle(&mut self) {
        let now_ms = self.now_ms();
        // This process did not run for a while: what came meanwhile may not have been read yet.
        if now_ms.saturating_sub(self.swept_at_ms) > limits::SWEEP_LATE_MS {
            self.idle_from_ms = now_ms;
        }
        self.swept_at_ms = now_ms;
        let sessionless_ms = self.options.sessionless_timeout_ms;
        let mut idle = Vec::new();
        for connection in self.connections.iter() {
            connection.last_io_ms = connection.last_io_ms.max(self.idle_from_ms);
            if now_ms >= connection.idle_until_ms(sessionless_ms) {
                idle.push((connection.id, connection.phase, connection.name()));
                connection.kill();
            }
        }
        for (id, phase, name) in idle {
            let why = match phase {
                Phase::Finishing => "it does not take its last answers",
                Phase::Serving => "nothing came or went for longer than its session's timeout",
                _ => {
                    self.counters.sessionless_expired.increment();
                    "no session was asked for in time"
                }
            };
            self.counters.connections_dropped.increment();
            log::info!("Closing {name}: {why}.");
            self.mark_dirty(id);
        }
    }

    /// Writes a reply at this core's view.
    pub(super) fn reply(
        &mut self,
        connection: &mut Connection,
        xid: Xid,
        err: ErrorCode,
        body: impl FnOnce(&mut Vec<u8>),
    ) {
        let header = ReplyHeader { xid, zxid: self.reader.view(), err };
        write_reply(&mut self.spare, &self.counters, connection, header, body);
    }

    /// Writes a reply that is no more than its code.
    pub(super) fn reply_code(&mut self, connection: &mut Connection, xid: Xid, err: ErrorCode) {
        self.reply(connection, xid, err, |_| {});
    }

    /// Notes an answered request for `cons` and the latencies.
    pub(super) fn note_answer(
        &mut self,
        connection: &mut Connection,
        op: i32,
        xid: Xid,
        read_at_ns: u64,
    ) -> u64 {
        let latency_ns = self.now_ns.saturating_sub(read_at_ns);
        connection.figures.note(op, xid.0, self.reader.view(), latency_ns, self.now_ns);
        latency_ns
    }

    /// The zxid that replies carry now.
    pub fn view(&self) -> Zxid {
        self.reader.view()
    }
}

/// Writes one reply into a connection's out-buffer.
pub(super) fn write_reply(
    spare: &mut Vec<Vec<u8>>,
    counters: &CoreCounters,
    connection: &mut Connection,
    header: ReplyHeader,
    body: impl FnOnce(&mut Vec<u8>),
) {
    connection.output.lend(spare);
    let out = connection.output.tail();
    let before = out.len();
    reply::write(out, header, body);
    let reply_bytes = out.len() - before;
    connection.figures.sent += 1;
    counters.packets_sent.increment();
    counters.response_bytes.note(reply_bytes as u64);
}

impl Interests for TreeInterests<'_> {
    fn watch(&mut self, path: &str, recursive: bool) {
        let core = u32::from(self.core);
        if recursive {
            self.reader.set_recursive_interest(path, core);
        } else {
            self.reader.set_interest(path, core);
        }
    }

    fn unwatch(&mut self, path: &str, recursive: bool) {
        let core = u32::from(self.core);
        if recursive {
            self.reader.clear_recursive_interest(path, core);
        } else {
            self.reader.clear_interest(path, core);
        }
    }
}
