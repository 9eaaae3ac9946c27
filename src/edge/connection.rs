//! One client's connection, and the table of a core's connections.
//!
//! A slot is used again after its connection has gone; the generation in a [`ConnectionId`] counts the uses, so that
//! an answer for the former user of a slot finds nobody.

use super::outstanding::Outstanding;
use crate::cores::{
    clock,
    messages::{ConnectionId, Touched},
};
use std::{net::SocketAddr, sync::Arc};
use zkfast_wire::{Id, SessionId, Zxid};

/// How far a connection has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Nothing complete has come yet.
    Fresh,
    /// The pipeline has been asked for a session; what the client sends meanwhile waits (C13).
    Opening {
        /// `readOnly` of the request; the response has it only if the request had (C3).
        read_only: Option<bool>,
    },
    /// The session is there.
    Serving,
    /// A four-letter word waits for rows of the other cores.
    Gathering,
    /// Nothing more is read; what lies in the out-buffer is sent, then the socket is closed.
    Finishing,
    /// To be closed at once.
    Dead,
}

/// What waits to be sent.
#[derive(Debug, Default)]
pub struct OutBuffer {
    bytes: Vec<u8>,
    sent: usize,
}

impl OutBuffer {
    /// Where replies and events are appended.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Bytes that have not been sent.
    pub fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Notes that the socket took `count` bytes.
    pub fn advance(&mut self, count: usize) {
        self.sent += count;
        assert!(self.sent <= self.bytes.len(), "more was sent than there was");
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
        } else if self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Puts in a buffer that was used before, if this one has none of its own.
    pub fn lend(&mut self, spare: &mut Vec<Vec<u8>>) {
        if self.bytes.capacity() == 0
            && let Some(buffer) = spare.pop()
        {
            self.bytes = buffer;
        }
    }

    /// Bytes of memory that it holds.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Gives the buffer back when everything has been sent, so that an idle connection has none. How many bytes of memory
    /// were freed.
    pub fn give_back(&mut self, spare: &mut Vec<Vec<u8>>) -> usize {
        /// Spare buffers of one core: one for each connection that a turn may answer.
        const SPARES_MAX: usize = 256;
        /// Larger buffers are freed.
        const SPARE_BYTES_MAX: usize = 16 << 10;
        if self.bytes.is_empty() && self.bytes.capacity() > 0 {
            let buffer = std::mem::take(&mut self.bytes);
            if spare.len() < SPARES_MAX && buffer.capacity() <= SPARE_BYTES_MAX {
                spare.push(buffer);
            } else {
                return buffer.capacity();
            }
        }
        0
    }
}

/// Figures of one connection, for `cons`.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Packets received.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
    /// Operation of the last answered request.
    pub last_op: i32,
    /// xid of the last request of the client's own: those of pings and the like, below 0, are passed over
    /// (`ServerCnxn.updateStatsForResponse`).
    pub last_cxid: i32,
    /// zxid of the last reply.
    pub last_zxid: Zxid,
    /// When the last reply was made, nanoseconds of the server's clock.
    pub last_response_ns: u64,
    /// Latency of the last reply, nanoseconds.
    pub last_latency_ns: u64,
    /// Shortest, nanoseconds; meaningless while `answered` is 0.
    pub min_latency_ns: u64,
    /// Longest, nanoseconds.
    pub max_latency_ns: u64,
    /// Sum of all, nanoseconds.
    pub latency_sum_ns: u64,
    /// Number of replies with a latency.
    pub answered: u64,
}

impl Figures {
    /// Figures of a new connection.
    pub fn new() -> Self {
        Self { last_cxid: -1, ..Self::default() }
    }

    /// Starts anew (`crst`). Java then shows -1 for the zxid too.
    pub fn reset(&mut self) {
        *self = Self { last_zxid: Zxid(-1), ..Self::new() };
    }

    /// Notes a reply.
    pub fn note(&mut self, op: i32, cxid: i32, zxid: Zxid, latency_ns: u64, now_ns: u64) {
        self.last_op = op;
        if cxid >= 0 {
            self.last_cxid = cxid;
        }
        self.last_zxid = zxid;
        self.last_response_ns = now_ns;
        self.last_latency_ns = latency_ns;
        self.min_latency_ns =
            if self.answered == 0 { latency_ns } else { self.min_latency_ns.min(latency_ns) };
        self.max_latency_ns = self.max_latency_ns.max(latency_ns);
        self.latency_sum_ns += latency_ns;
        self.answered += 1;
    }
}

/// A connection. It does not know its socket.
#[derive(Debug)]
pub struct Connection {
    /// Its name.
    pub id: ConnectionId,
    /// Remote address.
    pub peer: SocketAddr,
    /// How far it has come.
    pub phase: Phase,
    /// Its session, 0 before there is one.
    pub session: SessionId,
    /// Negotiated timeout, milliseconds.
    pub timeout_ms: i32,
    /// Who the client has proved to be; shared with the writes that are under way (G16).
    pub identities: Arc<[Id<'static>]>,
    /// Bytes that came and have not been taken in: an incomplete frame, or frames that are held back.
    pub input: Vec<u8>,
    /// What waits to be sent.
    pub output: OutBuffer,
    /// What waits to be answered.
    pub outstanding: Outstanding,
    /// Whether its input is held back until there is room (see `throttle`).
    pub is_held: bool,
    /// Since when, nanoseconds of the server's clock; 0 while its input is taken in as it comes.
    pub held_since_ns: u64,
    /// While what was held back is taken in: whether it was held for longer than `throttled_op_wait_time` (R8).
    pub was_held_too_long: bool,
    /// Whether it is in the core's list of connections to flush.
    pub is_dirty: bool,
    /// Whether it is in the core's list of sessions to touch.
    pub is_touched: bool,
    /// When its last packet came, milliseconds of the server's clock.
    pub last_packet_ms: u64,
    /// When something last came or went, or when it began to finish, milliseconds of the server's clock.
    pub last_io_ms: u64,
    /// When it was accepted, milliseconds of the server's clock.
    pub accepted_ms: u64,
    /// When it was accepted, wall clock, milliseconds since 1970.
    pub accepted_wall_ms: i64,
    /// For `cons`.
    pub figures: Figures,
}

impl Connection {
    /// A connection from `peer`, of whom nothing is known but its address. `now_ms` is the core's clock.
    pub fn accepted(id: ConnectionId, peer: SocketAddr, now_ms: u64) -> Self {
        Self {
            id,
            peer,
            phase: Phase::Fresh,
            session: SessionId(0),
            timeout_ms: 0,
            identities: Arc::new([Id::of_address(peer.ip())]),
            input: Vec::new(),
            output: OutBuffer::default(),
            outstanding: Outstanding::default(),
            is_held: false,
            held_since_ns: 0,
            was_held_too_long: false,
            is_dirty: false,
            is_touched: false,
            last_packet_ms: now_ms,
            last_io_ms: now_ms,
            accepted_ms: now_ms,
            accepted_wall_ms: clock::wall_ms(),
            figures: Figures::new(),
        }
    }

    /// When it was heard of, for the pipeline.
    pub fn touched(&self) -> Touched {
        Touched {
            connection: self.id,
            session: self.session,
            timeout_ms: self.timeout_ms,
            at_ms: self.last_packet_ms,
        }
    }

    /// Whether anything more shall be read from its socket now.
    pub fn wants_input(&self) -> bool {
        matches!(self.phase, Phase::Fresh | Phase::Serving) && !self.is_held
    }

    /// Whether the socket shall be closed as soon as the out-buffer is empty, or at once.
    pub fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Finishing | Phase::Dead)
    }

    /// Sends what is there, then closes. From `now_ms` on, milliseconds of the server's clock, the client has its
    /// timeout to take some of it.
    pub fn finish(&mut self, now_ms: u64) {
        if self.phase != Phase::Dead {
            self.phase = Phase::Finishing;
            self.last_io_ms = now_ms;
        }
        self.input = Vec::new();
    }

    /// When it is to be closed if nothing comes or goes any more, milliseconds of the server's clock; `sessionless_ms`
    /// is `nio.sessionlessCnxnTimeout`.
    ///
    /// - Without a session: that long after it was accepted (S14).
    /// - With one: its timeout after the last byte, rounded up to whole sessionless timeouts as Apache does (S13). Its
    ///   session ends when its own time comes.
    /// - While it finishes: its timeout after the last byte that it took. A four-letter word's answer may be long, and
    ///   its reader slow.
    /// - A word that waits for the other cores waits for this server, not for its client.
    pub fn idle_until_ms(&self, sessionless_ms: u64) -> u64 {
        let has_session = self.session != SessionId(0);
        let session_ms = u64::from(self.timeout_ms.unsigned_abs());
        match self.phase {
            Phase::Gathering | Phase::Dead => u64::MAX,
            Phase::Finishing => self.last_io_ms + if has_session { session_ms } else { sessionless_ms },
            _ if has_session => (self.last_io_ms + session_ms + 1).next_multiple_of(sessionless_ms.max(1)),
            _ => self.accepted_ms + sessionless_ms,
        }
    }

    /// Closes at once.
    pub fn kill(&mut self) {
        self.phase = Phase::Dead;
        self.input = Vec::new();
    }

    /// Its user in words, for log lines.
    pub fn name(&self) -> String {
        match self.session {
            SessionId(0) => format!("{} (no session)", self.peer),
            session => format!("{} (session {session})", self.peer),
        }
    }
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    connection: Option<Box<Connection>>,
    is_used: bool,
}

/// The connections of one core.
#[derive(Debug)]
pub struct Connections {
    core: u16,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Connections {
    /// An empty table.
    pub fn new(core: u16) -> Self {
        Self { core, slots: Vec::new(), free: Vec::new() }
    }

    /// Puts a new connection, which `make` makes, into a free slot.
    pub fn insert(&mut self, make: impl FnOnce(ConnectionId) -> Connection) -> ConnectionId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, connection: None, is_used: false });
            u32::try_from(self.slots.len() - 1).expect("file descriptors are fewer than 2^32")
        });
        let entry = &mut self.slots[slot as usize];
        assert!(!entry.is_used, "a free slot has a connection");
        let id = ConnectionId { core: self.core, slot, generation: entry.generation };
        entry.connection = Some(Box::new(make(id)));
        entry.is_used = true;
        id
    }

    /// The connection of this name, if it is still there.
    pub fn get(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        assert_eq!(id.core, self.core, "a connection of another core");
        let entry = self.slots.get_mut(id.slot as usize)?;
        (entry.generation == id.generation).then_some(entry.connection.as_deref_mut()).flatten()
    }

    /// The connection in this slot, if there is one.
    pub fn at(&mut self, slot: u32) -> Option<&mut Connection> {
        self.slots.get_mut(slot as usize)?.connection.as_deref_mut()
    }

    /// Takes a connection out of its slot for a while, so that it can be worked on beside the table. It must come
    /// back through [`Self::put_back`] before anybody else looks for it.
    pub fn borrow(&mut self, id: ConnectionId) -> Option<Box<Connection>> {
        let entry = self.slots.get_mut(id.slot as usize)?;
        if entry.generation == id.generation { entry.connection.take() } else { None }
    }

    /// Ends [`Self::borrow`].
    pub fn put_back(&mut self, connection: Box<Connection>) {
        let entry = &mut self.slots[connection.id.slot as usize];
        assert!(entry.connection.is_none() && entry.generation == connection.id.generation);
        entry.connection = Some(connection);
    }

    /// Takes a connection out for good; its slot may be used again, under another generation.
    pub fn remove(&mut self, id: ConnectionId) -> Option<Box<Connection>> {
        let connection = self.borrow(id)?;
        let entry = &mut self.slots[id.slot as usize];
        entry.is_used = false;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(id.slot);
        Some(connection)
    }

    /// All connections.
    pub fn iter(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.slots.iter_mut().filter_map(|entry| entry.connection.as_deref_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(id: ConnectionId) -> Connection {
        Connection::accepted(id, "127.0.0.1:1".parse().unwrap(), 0)
    }

    /// Danger: an answer for a closed connection reaches whoever got its slot.
    #[test]
    fn a_late_answer_finds_nobody() {
        let mut table = Connections::new(3);
        let first = table.insert(connection);
        assert!(table.get(first).is_some());
        table.remove(first).unwrap();
        let second = table.insert(connection);
        assert_eq!(second.slot, first.slot);
        assert!(table.get(first).is_none());
        assert!(table.remove(first).is_none());
        assert!(table.get(second).is_some());
        assert_eq!(table.iter().count(), 1);
    }

    /// Danger: whoever looks for the last request of an idle client sees none, for it pings.
    #[test]
    fn a_ping_is_not_the_last_request() {
        let mut figures = Figures::new();
        figures.note(3, 7, Zxid(5), 10, 100);
        figures.note(11, -2, Zxid(6), 20, 200);
        assert_eq!((figures.last_op, figures.last_cxid, figures.last_zxid), (11, 7, Zxid(6)));
    }

    #[test]
    fn an_out_buffer_remembers_what_the_socket_took() {
        let mut output = OutBuffer::default();
        output.tail().extend_from_slice(b"abcdef");
        output.advance(2);
        assert_eq!(output.unsent(), b"cdef");
        output.advance(3);
        output.tail().extend_from_slice(b"gh");
        assert_eq!(output.unsent(), b"fgh");
        output.advance(3);
        assert_eq!(output.unsent(), b"");
        let mut spare = Vec::new();
        assert_eq!(output.give_back(&mut spare), 0);
        assert_eq!(spare.len(), 1);
        output.lend(&mut spare);
        assert!(spare.is_empty());
        output.tail().resize(1 << 20, 0);
        output.advance(1 << 20);
        assert!(output.give_back(&mut spare) >= 1 << 20);
        assert!(spare.is_empty() && output.capacity() == 0);
    }

    /// A core with 10,000 idle sessions shall need some 2-3 KiB for each, all in.
    #[test]
    fn a_connection_is_small() {
        assert!(size_of::<Connection>() <= 400, "{} bytes", size_of::<Connection>());
    }
}
