//! One connection to a server and the session on it.
//!
//! Lives on one core. It writes requests into one out-buffer that is sent as a whole, and keeps one small record per
//! request in flight; replies come in the order of the requests (row C18), so the record at the front is the reply's.
//! It keeps no bytes of its own for reading: the engine reads into a buffer that all links share, and only an
//! unfinished frame is kept here. It knows nothing of what the load means.

use crate::{
    claim::Claim,
    clock::Nanos,
    operation::{Mode, Operation, put_create},
};
use bytes::BufMut;
use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::TcpStream,
    os::fd::OwnedFd,
};
use zkfast_wire::{OpCode, SessionId, Xid, Zxid, frame, handshake::ConnectRequest};

/// A request that is not yet answered.
#[derive(Clone, Copy, Debug)]
pub struct InFlight {
    /// What is measured.
    pub operation: Operation,
    /// Meaning is the load's: a key, a sequence number ...
    pub key: u64,
    /// A second number for the load, such as the stamp of the value written.
    pub note: u64,
    /// When it was meant to be sent.
    pub intended: Nanos,
    /// When it was written to the out-buffer.
    pub sent: Nanos,
    /// To compare with the reply's.
    pub xid: Xid,
}

/// What to ask, and what to remember until the answer comes.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// On the wire.
    pub op: OpCode,
    /// What is measured.
    pub operation: Operation,
    /// See [`InFlight::key`].
    pub key: u64,
    /// See [`InFlight::note`].
    pub note: u64,
    /// When it was meant to be sent.
    pub intended: Nanos,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Not connected, and nobody wants it to be.
    Idle,
    /// TCP handshake under way.
    Connecting,
    /// ConnectRequest sent.
    Handshaking,
    /// Session established.
    Ready,
    /// Lost; another try at this time.
    Waiting {
        /// When to try again.
        until: Nanos,
    },
}

/// Session to come back to after a lost connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Session {
    /// 0 before the first handshake.
    pub id: SessionId,
    /// From the server.
    pub password: [u8; 16],
    /// Negotiated timeout in milliseconds.
    pub timeout_ms: i32,
    /// Highest zxid seen in a reply.
    pub last_zxid: Zxid,
}

/// One connection.
#[derive(Debug)]
pub struct Link {
    /// Its number on this core.
    pub index: usize,
    /// Its number in the whole run.
    pub number: u64,
    /// Where it is in its life.
    pub phase: Phase,
    /// The session on it.
    pub session: Session,
    /// Requests not yet answered, oldest first.
    pub in_flight: VecDeque<InFlight>,
    /// Which server of the connect string is next (or is connected).
    pub host: usize,
    /// Tries since the last success.
    pub tries: u32,
    /// Counts connections, so that a late event of an older one is told apart.
    pub generation: u32,
    /// When something was last sent, for pings.
    pub last_sent: Nanos,
    /// When something was last received.
    pub last_heard: Nanos,
    /// The node by which this session holds a root for the run.
    pub claim: Option<Claim>,
    pub(crate) stream: Option<TcpStream>,
    pub(crate) partial: Vec<u8>,
    pub(crate) dirty: bool,
    pub(crate) wants_writable: bool,
    out: Vec<u8>,
    out_sent: usize,
    next_xid: i32,
}

impl Link {
    /// An idle link.
    pub fn new(index: usize, number: u64, host: usize) -> Self {
        Self {
            index,
            number,
            phase: Phase::Idle,
            session: Session::default(),
            in_flight: VecDeque::new(),
            host,
            tries: 0,
            generation: 0,
            last_sent: 0,
            last_heard: 0,
            claim: None,
            stream: None,
            partial: Vec::new(),
            dirty: false,
            wants_writable: false,
            out: Vec::new(),
            out_sent: 0,
            next_xid: 1,
        }
    }

    /// Whether requests may be sent.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Bytes that wait for room in the socket.
    pub fn unsent(&self) -> usize {
        self.out.len() - self.out_sent
    }

    /// Appends one request; `body` writes what follows the header.
    ///
    /// # Panics
    /// If the link is not ready.
    pub fn request(&mut self, now: Nanos, ask: Ask, body: impl FnOnce(&mut Vec<u8>)) {
        assert!(self.is_ready(), "requests need a session");
        // The answer to a ping has its own number, whatever the request had (C20).
        let xid = if ask.op == OpCode::Ping { Xid::PING } else { Xid(self.next_xid) };
        self.next_xid = if self.next_xid == i32::MAX { 1 } else { self.next_xid + 1 };
        self.frame(xid, ask.op, body);
        let Ask { operation, key, note, intended, .. } = ask;
        self.in_flight.push_back(InFlight { operation, key, note, intended, sent: now, xid });
        self.last_sent = now;
    }

    /// Appends closeSession, counted from `intended` and, as service time, from `began`; the server closes the connection
    /// behind its answer.
    ///
    /// # Panics
    /// If the link is not ready.
    pub fn close_session(&mut self, intended: Nanos, began: Nanos, now: Nanos) {
        let ask = Ask { op: OpCode::CloseSession, operation: Operation::Session, key: 0, note: 0, intended };
        self.request(began, ask, |_| {});
        self.last_sent = now;
    }

    /// The session has begun, perhaps another than before: makes the node that says whose the root is.
    pub(crate) fn make_claim(&mut self, now: Nanos) {
        let Some(claim) = &mut self.claim else { return };
        if claim.session == self.session.id {
            return;
        }
        claim.session = self.session.id;
        let (path, words) = (claim.path.clone(), claim.words.clone());
        let ask = Ask { op: OpCode::Create, operation: Operation::Claim, key: 0, note: 0, intended: now };
        self.request(now, ask, |out| {
            put_create(out, |out| out.extend_from_slice(path.as_bytes()), words.as_bytes(), Mode::Ephemeral);
        });
    }

    /// Appends a keep-alive ping; its reply is not waited for.
    pub fn keep_alive(&mut self, now: Nanos) {
        self.frame(Xid::PING, OpCode::Ping, |_| {});
        self.last_sent = now;
    }

    fn frame(&mut self, xid: Xid, op: OpCode, body: impl FnOnce(&mut Vec<u8>)) {
        frame::write(&mut self.out, |out| {
            out.put_i32(xid.0);
            out.put_i32(op.to_i32());
            body(out);
        });
        self.dirty = true;
    }

    /// Starts a life on a new socket: forgets the bytes of the old one, greets the server.
    pub(crate) fn open(&mut self, socket: OwnedFd, timeout_ms: i32, now: Nanos) {
        self.forget();
        self.stream = Some(TcpStream::from(socket));
        self.phase = Phase::Connecting;
        self.generation = self.generation.wrapping_add(1);
        let Session { id, password, last_zxid, .. } = self.session;
        let hello = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: last_zxid,
            timeout_ms,
            session: id,
            password: &password,
            read_only: Some(false),
        };
        frame::write(&mut self.out, |out| hello.encode(out));
        self.last_sent = now;
        self.last_heard = now;
    }

    /// Drops the socket and what was on its way.
    pub(crate) fn forget(&mut self) {
        self.stream = None;
        self.partial.clear();
        self.out.clear();
        self.out_sent = 0;
        self.in_flight.clear();
        self.dirty = false;
        self.wants_writable = false;
    }

    /// Sends what it can. `true` means that everything is gone, `false` that the socket is full.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        let Some(stream) = &mut self.stream else { return Ok(true) };
        self.dirty = false;
        while self.out_sent < self.out.len() {
            match stream.write(&self.out[self.out_sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => self.out_sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // A server that is always behind must not make the bytes that it has taken pile up.
                    if self.out_sent > self.out.len() / 2 {
                        self.out.drain(..self.out_sent);
                        self.out_sent = 0;
                    }
                    return Ok(false);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.out_sent = 0;
        Ok(true)
    }

    /// Reads once into `buffer` behind what was kept; returns how many bytes of `buffer` are filled now.
    ///
    /// 0 new bytes (the server closed) is an error of kind `UnexpectedEof`; nothing to read is `WouldBlock`.
    pub(crate) fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let kept = self.partial.len();
        if buffer.len() < kept * 2 {
            buffer.resize(kept * 2, 0);
        }
        let read = stream.read(&mut buffer[kept..])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer[..kept].copy_from_slice(&self.partial);
        self.partial.clear();
        Ok(kept + read)
    }
}
