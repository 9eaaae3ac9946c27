//! One of the two servers, with the connections of the stream's sessions to it.
//!
//! A request is sent on both sides before an answer is read on either, so that the two servers work side by side.

use super::{
    answer::{self, Kind, Line, Token},
    operation::{Operation, QUOTAS},
    peers::{self, Client, Handshake, Server, client, server::Settings},
    stream::{Lie, Reconnect},
};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};
use zkfast_wire::{Acl, Decoder, OpCode, SessionId, Xid, Zxid};

/// Timeout of sessions that must not expire however slow the machine is.
pub const TIMEOUT_MS: i32 = 200_000;
/// The least timeout that the servers grant: how long a session that shall expire lives after it was heard of.
pub const EXPIRY_MS: i32 = 3_000;

/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(8);

/// What the answer to a request is expected to be.
#[derive(Clone, Copy, Debug)]
enum Expected {
    Welcome,
    Reply { index: usize, op: Option<OpCode> },
    Fence,
}

/// A connection of a session.
struct Connection {
    client: Client,
    expected: VecDeque<Expected>,
}

/// A session as its client knows it.
#[derive(Default)]
struct Slot {
    connection: Option<Connection>,
    /// Session and password.
    ticket: Option<(SessionId, Vec<u8>)>,
    zxid_seen: i64,
    /// What `zxid_seen` was after each step.
    seen_after: Vec<i64>,
}

/// A server with the stream's sessions.
pub struct Side {
    /// The server.
    pub server: Server,
    /// A session that may do everything, for the start and the end of a stream.
    pub admin: Client,
    slots: Vec<Slot>,
    _home: tempfile::TempDir,
}

/// The configuration of both servers.
pub fn settings() -> Settings {
    Settings {
        lines: [
            "minSessionTimeout=3000",
            "maxSessionTimeout=240000",
            "extendedTypesEnabled=true",
            "enforceQuota=true",
            "DigestAuthenticationProvider.superDigest=super:D/InIHSb7yEEbrWz8b9l71RjZJU=",
            // The disk is not what is compared here.
            "forceSync=no",
        ]
        .map(String::from)
        .to_vec(),
        // Containers and TTL nodes are not reaped while a stream is at work.
        java_flags: vec!["-Dznode.container.checkIntervalMs=86400000".into()],
        ..Settings::default()
    }
}

impl Side {
    /// Starts a server on an empty directory.
    pub fn start(kind: peers::Kind) -> Self {
        let home = peers::directory();
        let server = Server::start(kind, home.path(), &settings());
        let mut admin = server.client(240_000);
        assert_eq!(admin.auth("digest", b"super:test"), 0, "the super user");
        Self { server, admin, slots: Vec::new(), _home: home }
    }

    /// Makes the root of a stream, and as many sessions as it needs when it needs them.
    pub fn begin(&mut self, root: &str, slots: usize) {
        self.admin.create(root, b"", 0).expect("a fresh root");
        self.slots = std::iter::repeat_with(Slot::default).take(slots).collect();
    }

    /// Deletes what the stream left below `root` and its quotas; all of it was open to the admin only.
    pub fn clean(&mut self, root: &str) {
        for root in [root.to_owned(), format!("{QUOTAS}{root}")] {
            if self.admin.exists(&root, false).is_err() {
                continue;
            }
            let tree = peers::tree::read(&mut self.admin, &root);
            let deletes: Vec<i32> = tree
                .keys()
                .rev()
                .map(|path| self.admin.submit(OpCode::Delete, &client::path_version(path, -1)))
                .collect();
            self.admin.flush().expect("an open connection");
            for xid in deletes {
                self.admin.reply(xid).expect("a node without children");
            }
        }
    }

    /// Whether the session is connected.
    pub fn is_connected(&self, slot: usize) -> bool {
        self.slots[slot].connection.is_some()
    }

    /// Whether there is a session to come back to.
    pub fn has_session(&self, slot: usize) -> bool {
        self.slots[slot].ticket.is_some()
    }

    /// Forgets a session that the server does not know any more.
    pub fn forget_session(&mut self, slot: usize) {
        self.slots[slot] =
            Slot { seen_after: std::mem::take(&mut self.slots[slot].seen_after), ..Slot::default() };
    }

    /// Closes the connection without a word.
    pub fn hang_up(&mut self, slot: usize) {
        self.slots[slot].connection = None;
    }

    /// Takes the old connection out, to see later how it ended.
    pub fn leave_behind(&mut self, slot: usize) -> Option<Left> {
        self.slots[slot].connection.take().map(Left)
    }

    /// Says hello on a new connection: for a new session, or for the one that the slot has.
    pub fn hello(&mut self, slot: usize, reconnect: Option<&Reconnect>, root: &str) {
        let mut handshake = Handshake::new(TIMEOUT_MS);
        let state = &self.slots[slot];
        if let Some((session, password)) = &state.ticket {
            handshake.session = *session;
            handshake.password.clone_from(password);
            handshake.last_zxid = Zxid(state.zxid_seen);
        }
        let mut client = Client::over(client::dial(self.server.address));
        if let Some(reconnect) = reconnect {
            handshake.timeout_ms = reconnect.timeout_ms;
            handshake.read_only = reconnect.read_only;
            match reconnect.lie {
                Lie::None => {}
                Lie::Password => handshake.password = vec![7; 16],
                Lie::NoPassword => handshake.password = Vec::new(),
                Lie::Session => handshake.session = SessionId(0x7f00_0000_0000_0077),
                Lie::Zxid => handshake.last_zxid = Zxid(i64::MAX),
            }
        }
        client.patience(PATIENCE);
        client.submit_raw(&handshake.frame());
        let mut connection = Connection { client, expected: VecDeque::from([Expected::Welcome]) };
        if let Some(operation) = reconnect.and_then(|reconnect| reconnect.behind.as_ref()) {
            self.submit(slot, &mut connection, 0, operation, root);
        }
        connection.flush();
        self.slots[slot].connection = Some(connection);
    }

    /// Sends requests all at once.
    pub fn ask(&mut self, slot: usize, operations: &[Operation], root: &str) {
        let Some(mut connection) = self.slots[slot].connection.take() else { return };
        for (index, operation) in operations.iter().enumerate() {
            self.submit(slot, &mut connection, index, operation, root);
        }
        connection.flush();
        self.slots[slot].connection = Some(connection);
    }

    fn submit(
        &self,
        slot: usize,
        connection: &mut Connection,
        index: usize,
        operation: &Operation,
        root: &str,
    ) {
        let seen_after = &self.slots[slot].seen_after;
        let seen = |steps: usize| {
            seen_after.len().checked_sub(steps + 1).and_then(|at| seen_after.get(at)).copied().unwrap_or(0)
        };
        let body = operation.body(root, seen);
        match operation.xid {
            Some(xid) => connection.client.submit_as(Xid(xid), operation.code, &body),
            None => {
                connection.client.submit_code(operation.code, &body);
            }
        }
        connection.expected.push_back(Expected::Reply { index, op: operation.op() });
    }

    /// Sends a ping, whose answer follows everything that the session was to be told so far.
    pub fn fence(&mut self, slot: usize) {
        if let Some(connection) = &mut self.slots[slot].connection {
            connection.client.submit_as(Xid::PING, OpCode::Ping.to_i32(), &[]);
            connection.expected.push_back(Expected::Fence);
            connection.flush();
        }
    }

    /// Everything up to the last expected answer, or to the end of the connection.
    pub fn collect(&mut self, slot: usize) -> Vec<Line> {
        let mut lines = Vec::new();
        let state = &mut self.slots[slot];
        while let Some(connection) = &mut state.connection
            && !connection.expected.is_empty()
        {
            let line = connection.line();
            match &line.kind {
                Kind::End | Kind::Silence => state.connection = None,
                Kind::Welcome(false) => {
                    lines.push(line);
                    lines.extend(state.connection.take().map(Left).map(Left::lines).unwrap_or_default());
                    return lines;
                }
                Kind::Welcome(true) => {
                    state.ticket = Some((connection.client.session, connection.client.password.clone()));
                }
                Kind::Reply { .. } | Kind::Fence => {
                    if let Some(Token::Zxid(zxid)) = line.tokens.get(1) {
                        state.zxid_seen = state.zxid_seen.max(*zxid);
                    }
                }
                Kind::Event { .. } => {}
            }
            lines.push(line);
        }
        lines
    }

    /// Remembers what every session has seen when a step is over.
    pub fn end_step(&mut self) {
        for slot in &mut self.slots {
            slot.seen_after.push(slot.zxid_seen);
        }
    }

    /// Makes a node of the session that shall expire, and lets the admin watch it.
    pub fn mark(&mut self, slot: usize, path: &str) {
        let Some(connection) = &mut self.slots[slot].connection else { return };
        let body = client::create(path, Some(b""), &[Acl::OPEN], 1);
        connection.client.call(OpCode::Create, &body).expect("a marker");
        self.admin.exists(path, true).expect("the marker");
    }

    /// Waits a moment for the event of the marker; whether it came.
    pub fn is_marker_gone(&mut self, deadline: Instant) -> bool {
        self.admin.patience(Duration::from_millis(300));
        let came = match self.admin.try_next() {
            Ok(Some(peers::Incoming::Event { kind: 2, .. })) => true,
            Err(_) if Instant::now() < deadline => false,
            other => panic!("{:?}: the marker of an expiring session: {other:?}", self.server.kind),
        };
        self.admin.patience(peers::DEADLINE);
        came
    }
}

/// A connection that its session has left.
pub struct Left(Connection);

impl Left {
    /// What still came on it.
    pub fn lines(mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        loop {
            lines.push(self.0.line());
            if matches!(lines.last(), Some(Line { kind: Kind::End | Kind::Silence, .. })) {
                return lines;
            }
        }
    }
}

impl Connection {
    /// Sends; a failure shows as the end of the connection when it is read.
    fn flush(&mut self) {
        let _ = self.client.flush();
    }

    fn line(&mut self) -> Line {
        match self.client.next_frame() {
            Ok(Some(payload)) => self
                .read(&payload)
                .unwrap_or_else(|| Line::of(Kind::Silence, &format!("an unreadable frame {payload:02x?}"))),
            Ok(None) => Line::of(Kind::End, "the end of the connection"),
            Err(error) => Line::of(Kind::Silence, &format!("nothing: {error}")),
        }
    }

    fn read(&mut self, payload: &[u8]) -> Option<Line> {
        let mut decoder = Decoder::new(payload);
        if let Some(Expected::Welcome) = self.expected.front() {
            self.expected.pop_front();
            return self.welcome(payload);
        }
        let xid = decoder.i32("xid").ok()?;
        let zxid = decoder.i64("zxid").ok()?;
        let err = decoder.i32("err").ok()?;
        if xid == Xid::NOTIFICATION.0 && decoder.remaining() > 0 {
            let kind = decoder.i32("type").ok()?;
            let state = decoder.i32("state").ok()?;
            let path = decoder.buffer("path").ok()??;
            let (path, word) = answer::shown(path);
            let word = format!("event {kind} state={state} err={err} {word}");
            return Some(Line {
                kind: Kind::Event { kind, path },
                tokens: vec![Token::Word(word), Token::Zxid(zxid)],
            });
        }
        match self.expected.pop_front() {
            Some(Expected::Fence) if xid == Xid::PING.0 => {
                let word = format!("fence err={err} {} bytes", decoder.remaining());
                Some(Line { kind: Kind::Fence, tokens: vec![Token::Word(word), Token::Zxid(zxid)] })
            }
            Some(Expected::Reply { index, op }) => {
                Some(answer::reply(index, op, xid, zxid, err, decoder.rest()))
            }
            _ => None,
        }
    }

    fn welcome(&mut self, payload: &[u8]) -> Option<Line> {
        let mut decoder = Decoder::new(payload);
        let version = decoder.i32("protocolVersion").ok()?;
        let timeout_ms = decoder.i32("timeOut").ok()?;
        let session = decoder.i64("sessionId").ok()?;
        let password = decoder.buffer("passwd").ok()??;
        let rest = decoder.rest();
        let is_zero = password.iter().all(|byte| *byte == 0);
        self.client.session = SessionId(session);
        self.client.password = password.to_vec();
        self.client.timeout_ms = timeout_ms;
        let word = format!(
            "welcome version={version} timeout={timeout_ms} password={} bytes, zero {is_zero}, flag {rest:?}",
            password.len()
        );
        let mut tokens = vec![Token::Word(word)];
        tokens.push(Token::Session(session));
        Some(Line { kind: Kind::Welcome(timeout_ms > 0), tokens })
    }
}
