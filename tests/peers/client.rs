//! A client that speaks raw bytes: it pipelines, keeps the order in which frames came, and never reconnects.
//!
//! It encodes its own requests with the jute primitives alone, so that an error in the server's request types cannot
//! hide behind the same error here.

use super::DEADLINE;
use bytes::BufMut;
use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};
use zkfast_wire::{Acl, Decoder, OpCode, SessionId, Stat, Xid, Zxid, jute};

/// What a client says first.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// Last zxid that the client has seen.
    pub last_zxid: Zxid,
    /// Wanted session timeout.
    pub timeout_ms: i32,
    /// 0 for a new session.
    pub session: SessionId,
    /// 16 bytes, or nothing.
    pub password: Vec<u8>,
    /// The last byte, which old clients do not send.
    pub read_only: Option<bool>,
}

impl Handshake {
    /// A new session.
    pub fn new(timeout_ms: i32) -> Self {
        Self {
            last_zxid: Zxid(0),
            timeout_ms,
            session: SessionId(0),
            password: vec![0; 16],
            read_only: Some(false),
        }
    }

    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.put_i32(0);
        body.put_i64(self.last_zxid.0);
        body.put_i32(self.timeout_ms);
        body.put_i64(self.session.0);
        jute::put_buffer(&mut body, Some(&self.password));
        if let Some(flag) = self.read_only {
            jute::put_bool(&mut body, flag);
        }
        frame(&body)
    }
}

/// How a server says no to a handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Session 0, timeout 0 and 16 zero bytes, then the end of the connection (C10).
    Expired,
    /// The end of the connection without a byte (C6).
    Closed,
}

/// A frame from the server, in the order of arrival.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Incoming {
    /// Answer to a request.
    Reply {
        /// The request's number.
        xid: i32,
        /// Last transaction that the server had processed.
        zxid: Zxid,
        /// 0, or an error code.
        err: i32,
        /// What follows the header.
        body: Vec<u8>,
    },
    /// A watch fired.
    Event {
        /// Header zxid: -1 from 3.8, the transaction's from 3.9 on (C19).
        zxid: Zxid,
        /// Event type (OP36).
        kind: i32,
        /// The watched path.
        path: String,
    },
}

/// An open connection with a session.
pub struct Client {
    /// The session.
    pub session: SessionId,
    /// Its password.
    pub password: Vec<u8>,
    /// Negotiated.
    pub timeout_ms: i32,
    /// Highest zxid in any reply, for the next handshake.
    pub last_zxid: Zxid,
    /// Events that came while a call waited for its reply.
    pub events: VecDeque<Incoming>,
    /// Length of the handshake's answer without the length itself: 36 or 37 (C3).
    pub handshake_bytes: usize,
    stream: TcpStream,
    inbox: Vec<u8>,
    inbox_read: usize,
    outbox: Vec<u8>,
    xid_next: i32,
}

/// `body` with its length before it.
pub fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 4);
    jute::put_buffer(&mut bytes, Some(body));
    bytes
}

/// A TCP connection that fails after the common deadline instead of hanging.
pub fn dial(address: SocketAddr) -> TcpStream {
    let stream =
        TcpStream::connect(address).unwrap_or_else(|error| panic!("no connection to {address}: {error}"));
    prepare(&stream);
    stream
}

fn prepare(stream: &TcpStream) {
    stream.set_nodelay(true).expect("TCP_NODELAY");
    stream.set_read_timeout(Some(DEADLINE)).expect("a read timeout");
    stream.set_write_timeout(Some(DEADLINE)).expect("a write timeout");
}

impl Client {
    /// A new session; it must be granted.
    pub fn connect(address: SocketAddr, timeout_ms: i32) -> Self {
        Self::handshake(address, &Handshake::new(timeout_ms)).expect("a new session")
    }

    /// The same session on a new connection, as a client library does it.
    pub fn again(&self, address: SocketAddr) -> Result<Self, Refusal> {
        Self::handshake(address, &self.ticket())
    }

    /// What is needed to take up this session later.
    pub fn ticket(&self) -> Handshake {
        Handshake {
            last_zxid: self.last_zxid,
            timeout_ms: self.timeout_ms,
            session: self.session,
            password: self.password.clone(),
            read_only: Some(false),
        }
    }

    /// Says `handshake` and reads the answer.
    pub fn handshake(address: SocketAddr, handshake: &Handshake) -> Result<Self, Refusal> {
        let mut client = Self::over(dial(address));
        client.last_zxid = handshake.last_zxid;
        client.outbox.extend(handshake.frame());
        if client.flush().is_err() {
            return Err(Refusal::Closed);
        }
        client.finish_handshake()
    }

    /// The same where the server may be killed at any moment; `None` if nobody listens any more.
    pub fn handshake_if_up(address: SocketAddr, handshake: &Handshake) -> Option<Result<Self, Refusal>> {
        TcpStream::connect(address).ok().map(|stream| {
            prepare(&stream);
            let mut client = Self::over(stream);
            client.outbox.extend(handshake.frame());
            client.flush().map_err(|_| Refusal::Closed)?;
            client.finish_handshake()
        })
    }

    /// Creates an empty node where the server may be killed at any moment; `None` if it was.
    pub fn try_create(&mut self, path: &str) -> Option<Result<(), i32>> {
        self.submit(OpCode::Create, &create(path, Some(b""), &[Acl::OPEN], 0));
        self.flush().ok()?;
        match self.next()? {
            Incoming::Reply { err: 0, .. } => Some(Ok(())),
            Incoming::Reply { err, .. } => Some(Err(err)),
            event => panic!("{event:?} without a watch"),
        }
    }

    /// A connection on which nothing has been said.
    pub fn over(stream: TcpStream) -> Self {
        Self {
            session: SessionId(0),
            password: Vec::new(),
            timeout_ms: 0,
            last_zxid: Zxid(0),
            events: VecDeque::new(),
            handshake_bytes: 0,
            stream,
            inbox: Vec::new(),
            inbox_read: 0,
            outbox: Vec::new(),
            xid_next: 1,
        }
    }

    /// Reads the answer to a handshake that was sent.
    pub fn finish_handshake(mut self) -> Result<Self, Refusal> {
        let Some(answer) = self.next_frame().ok().flatten() else { return Err(Refusal::Closed) };
        let mut decoder = Decoder::new(&answer);
        assert_eq!(decoder.i32("protocolVersion"), Ok(0));
        self.timeout_ms = decoder.i32("timeOut").expect("a whole answer");
        self.session = SessionId(decoder.i64("sessionId").expect("a whole answer"));
        self.password = decoder.buffer("passwd").expect("a whole answer").expect("16 bytes").to_vec();
        self.handshake_bytes = answer.len();
        assert_eq!(self.password.len(), 16, "the C client relies on 16 bytes (C11)");
        if self.timeout_ms > 0 {
            return Ok(self);
        }
        assert_eq!(self.session, SessionId(0), "a refusal names no session (C10)");
        assert_eq!(self.password, [0; 16], "a refusal gives no password (C10)");
        assert_eq!(self.next_frame().ok().flatten(), None, "after a refusal the connection ends (C10)");
        Err(Refusal::Expired)
    }

    /// Puts a request into the out-buffer; `flush` sends it.
    pub fn submit(&mut self, op: OpCode, body: &[u8]) -> i32 {
        self.submit_code(op.to_i32(), body)
    }

    /// The same for a number that need not be an operation's.
    pub fn submit_code(&mut self, code: i32, body: &[u8]) -> i32 {
        let xid = self.xid_next;
        self.xid_next += 1;
        self.submit_as(Xid(xid), code, body);
        xid
    }

    /// The same with a number of the caller's choice.
    pub fn submit_as(&mut self, xid: Xid, op: i32, body: &[u8]) {
        self.outbox.put_i32(i32::try_from(body.len() + 8).expect("a small request"));
        self.outbox.put_i32(xid.0);
        self.outbox.put_i32(op);
        self.outbox.extend_from_slice(body);
    }

    /// Puts any bytes into the out-buffer.
    pub fn submit_raw(&mut self, bytes: &[u8]) {
        self.outbox.extend_from_slice(bytes);
    }

    /// What was submitted, for somebody else to send.
    pub fn take_submitted(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outbox)
    }

    /// Sends what was submitted.
    pub fn flush(&mut self) -> io::Result<()> {
        let result = self.stream.write_all(&self.outbox);
        self.outbox.clear();
        result
    }

    /// Payload of the next frame; `None` when the server closed the connection. An error is a passed deadline.
    pub fn next_frame(&mut self) -> io::Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let unread = &self.inbox[self.inbox_read..];
            if let Some((length, rest)) = unread.split_first_chunk::<4>() {
                let length = usize::try_from(i32::from_be_bytes(*length)).expect("a frame length");
                if rest.len() >= length {
                    let payload = rest[..length].to_vec();
                    self.inbox_read += 4 + length;
                    return Ok(Some(payload));
                }
            }
            self.inbox.drain(..self.inbox_read);
            self.inbox_read = 0;
            let mut chunk = [0; 65_536];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => self.inbox.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    /// The next reply or event; `None` when the server closed the connection.
    ///
    /// # Panics
    /// If nothing comes within the deadline.
    pub fn next(&mut self) -> Option<Incoming> {
        self.try_next().unwrap_or_else(|error| panic!("session {}: no frame came: {error}", self.session))
    }

    /// The next reply or event, `Ok(None)` at the end of the connection, an error when the deadline passed.
    pub fn try_next(&mut self) -> io::Result<Option<Incoming>> {
        let Some(payload) = self.next_frame()? else { return Ok(None) };
        let mut decoder = Decoder::new(&payload);
        let xid = decoder.i32("xid").expect("a reply header");
        let zxid = Zxid(decoder.i64("zxid").expect("a reply header"));
        let err = decoder.i32("err").expect("a reply header");
        if xid == Xid::NOTIFICATION.0 && decoder.remaining() > 0 {
            let kind = decoder.i32("type").expect("an event");
            assert_eq!(decoder.i32("state"), Ok(3), "server events carry SyncConnected (OP36)");
            let path = decoder.text("path").expect("an event").into_owned();
            return Ok(Some(Incoming::Event { zxid, kind, path }));
        }
        // 0 comes from the network layer (auth), -1 from an unknown operation (C16, C25).
        assert!(
            zxid.0 == 0 || (zxid.0, err) == (-1, -6) || zxid >= self.last_zxid,
            "the zxid in replies went back (C16)"
        );
        self.last_zxid = self.last_zxid.max(zxid);
        Ok(Some(Incoming::Reply { xid, zxid, err, body: decoder.rest().to_vec() }))
    }

    /// How long a read may wait before `try_next` gives an error; for tests that must see that nothing comes.
    pub fn patience(&mut self, limit: Duration) {
        self.stream.set_read_timeout(Some(limit)).expect("a read timeout");
    }

    /// Whether nothing comes for so long; not even the end of the connection.
    #[allow(dead_code, reason = "each test uses a part")]
    pub fn is_silent_for(&mut self, limit: Duration) -> bool {
        let usual = self.stream.read_timeout().expect("a read timeout");
        self.patience(limit);
        let is_silent = self.inbox.len() == self.inbox_read && self.stream.peek(&mut [0]).is_err();
        self.stream.set_read_timeout(usual).expect("a read timeout");
        is_silent
    }

    /// Sends one request and waits for its reply; events before it are kept in `events`.
    pub fn call(&mut self, op: OpCode, body: &[u8]) -> Result<Vec<u8>, i32> {
        let wanted = self.submit(op, body);
        self.flush().expect("an open connection");
        self.reply(wanted)
    }

    /// Waits for the reply to `wanted`, which must be the next reply.
    pub fn reply(&mut self, wanted: i32) -> Result<Vec<u8>, i32> {
        loop {
            match self.next() {
                Some(Incoming::Reply { xid, err, body, .. }) => {
                    assert_eq!(xid, wanted, "replies leave in the order of the requests (C18)");
                    if err == 0 {
                        return Ok(body);
                    }
                    assert!(body.is_empty(), "an error reply is a header alone (C17)");
                    return Err(err);
                }
                Some(event) => self.events.push_back(event),
                None => panic!("session {}: closed before the reply to {wanted}", self.session),
            }
        }
    }

    /// create2 with an open ACL.
    pub fn create(&mut self, path: &str, data: &[u8], flags: i32) -> Result<(String, Stat), i32> {
        let body = self.call(OpCode::Create2, &create(path, Some(data), &[Acl::OPEN], flags))?;
        let mut decoder = Decoder::new(&body);
        let path = decoder.text("path").expect("a path").into_owned();
        Ok((path, Stat::decode(&mut decoder).expect("a stat")))
    }

    /// setData.
    pub fn set(&mut self, path: &str, data: &[u8], version: i32) -> Result<Stat, i32> {
        let body = self.call(OpCode::SetData, &set(path, Some(data), version))?;
        Ok(Stat::decode(&mut Decoder::new(&body)).expect("a stat"))
    }

    /// delete.
    pub fn delete(&mut self, path: &str, version: i32) -> Result<(), i32> {
        self.call(OpCode::Delete, &path_version(path, version)).map(|_| ())
    }

    /// getData.
    pub fn get(&mut self, path: &str, watch: bool) -> Result<(Option<Vec<u8>>, Stat), i32> {
        let body = self.call(OpCode::GetData, &path_watch(path, watch))?;
        Ok(data_and_stat(&body))
    }

    /// exists.
    pub fn exists(&mut self, path: &str, watch: bool) -> Result<Stat, i32> {
        let body = self.call(OpCode::Exists, &path_watch(path, watch))?;
        Ok(Stat::decode(&mut Decoder::new(&body)).expect("a stat"))
    }

    /// getChildren2; the names come sorted, since the server's order means nothing (T26).
    pub fn children(&mut self, path: &str, watch: bool) -> Result<(Vec<String>, Stat), i32> {
        let body = self.call(OpCode::GetChildren2, &path_watch(path, watch))?;
        Ok(children_and_stat(&body))
    }

    /// An auth packet; the reply's error.
    pub fn auth(&mut self, scheme: &str, credentials: &[u8]) -> i32 {
        let mut body = Vec::new();
        body.put_i32(0);
        jute::put_text(&mut body, scheme);
        jute::put_buffer(&mut body, Some(credentials));
        self.submit_as(Xid::AUTH, OpCode::Auth.to_i32(), &body);
        self.flush().expect("an open connection");
        match self.next() {
            Some(Incoming::Reply { xid, err, .. }) if xid == Xid::AUTH.0 => err,
            other => panic!("an auth packet was answered with {other:?}"),
        }
    }

    /// A ping.
    pub fn ping(&mut self) {
        self.submit_as(Xid::PING, OpCode::Ping.to_i32(), &[]);
        self.flush().expect("an open connection");
        loop {
            match self.next() {
                Some(Incoming::Reply { xid, err: 0, body, .. }) if xid == Xid::PING.0 => {
                    assert!(body.is_empty(), "a ping's answer has no body (C20)");
                    return;
                }
                Some(event @ Incoming::Event { .. }) => self.events.push_back(event),
                other => panic!("a ping was answered with {other:?}"),
            }
        }
    }

    /// The next event, kept or still to come.
    pub fn event(&mut self) -> (i32, String) {
        let event = self.events.pop_front().or_else(|| self.next());
        match event {
            Some(Incoming::Event { kind, path, .. }) => (kind, path),
            other => panic!("an event was expected, {other:?} came"),
        }
    }

    /// closeSession, its reply, and the end of the connection.
    pub fn close(mut self) {
        self.call(OpCode::CloseSession, &[]).expect("closeSession");
        assert_eq!(self.next(), None, "after the reply the server closes the connection (C24)");
    }

    /// The socket below, for tests that misbehave.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

/// Body of create and create2.
pub fn create(path: &str, data: Option<&[u8]>, acl: &[Acl<'_>], flags: i32) -> Vec<u8> {
    let mut body = Vec::new();
    jute::put_text(&mut body, path);
    jute::put_buffer(&mut body, data);
    Acl::encode_list(acl, &mut body);
    body.put_i32(flags);
    body
}

/// Body of setData.
pub fn set(path: &str, data: Option<&[u8]>, version: i32) -> Vec<u8> {
    let mut body = Vec::new();
    jute::put_text(&mut body, path);
    jute::put_buffer(&mut body, data);
    body.put_i32(version);
    body
}

/// Body of setACL.
pub fn set_acl(path: &str, acl: &[Acl<'_>], version: i32) -> Vec<u8> {
    let mut body = Vec::new();
    jute::put_text(&mut body, path);
    Acl::encode_list(acl, &mut body);
    body.put_i32(version);
    body
}

/// Body of delete and check.
pub fn path_version(path: &str, version: i32) -> Vec<u8> {
    let mut body = Vec::new();
    jute::put_text(&mut body, path);
    body.put_i32(version);
    body
}

/// Body of exists, getData, getChildren and getChildren2.
pub fn path_watch(path: &str, watch: bool) -> Vec<u8> {
    let mut body = Vec::new();
    jute::put_text(&mut body, path);
    jute::put_bool(&mut body, watch);
    body
}

/// Body of sync, getACL and getEphemerals.
pub fn path_alone(path: &str) -> Vec<u8> {
    let mut body = Vec::new();
    jute::put_text(&mut body, path);
    body
}

/// Body of a multi.
pub fn multi(parts: &[(OpCode, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (op, part) in parts {
        body.put_i32(op.to_i32());
        jute::put_bool(&mut body, false);
        body.put_i32(-1);
        body.extend_from_slice(part);
    }
    body.put_i32(-1);
    jute::put_bool(&mut body, true);
    body.put_i32(-1);
    body
}

/// Body of a multi of one delete without a path, which Apache's server cannot prepare: it uses up a zxid for which there
/// is no transaction, and answers with an error, or not at all in an ensemble.
pub fn multi_without_path() -> Vec<u8> {
    let mut part = Vec::new();
    part.put_i32(-1);
    part.put_i32(-1);
    multi(&[(OpCode::Delete, part)])
}

/// Error codes of a failed multi's parts; `None` if it succeeded.
pub fn multi_errors(body: &[u8]) -> Option<Vec<i32>> {
    let mut decoder = Decoder::new(body);
    let mut errors = Vec::new();
    loop {
        let kind = decoder.i32("type").expect("a multi header");
        let done = decoder.bool("done").expect("a multi header");
        let err = decoder.i32("err").expect("a multi header");
        match (kind, done) {
            (_, true) => return Some(errors),
            (-1, false) => {
                assert_eq!(decoder.i32("err"), Ok(err), "header and body of a refused part agree (T31)");
                errors.push(err);
            }
            _ => return None,
        }
    }
}

/// A reply to getData.
pub fn data_and_stat(body: &[u8]) -> (Option<Vec<u8>>, Stat) {
    let mut decoder = Decoder::new(body);
    let data = decoder.buffer("data").expect("data").map(<[u8]>::to_vec);
    (data, Stat::decode(&mut decoder).expect("a stat"))
}

/// A reply to getChildren2, names sorted.
pub fn children_and_stat(body: &[u8]) -> (Vec<String>, Stat) {
    let mut decoder = Decoder::new(body);
    let mut names: Vec<String> =
        decoder.texts("children").expect("names").into_iter().map(|name| name.into_owned()).collect();
    names.sort_unstable();
    (names, Stat::decode(&mut decoder).expect("a stat"))
}
