//! One of the two sides, a server or an ensemble, with the connections of the stream's sessions to it.
//!
//! A request is sent on both sides before an answer is read on either, so that the two sides work at the same time.
//!
//! The servers of an ensemble have places, by role: the leader has the first one. What one server has applied another one
//! may not know yet; whoever asks next makes a write of its own there first, which is refused and changes nothing. Its answer
//! follows all transactions before it, on every server of either kind. (Apache's leader answers a sync ahead of them.)

use super::{
    answer::{self, Kind, Line, Token},
    cluster::{Cluster, Shape},
    operation::{Operation, QUOTAS},
    peers::{self, Client, Handshake, Server, client, server::Settings},
    stream::{Lie, Reconnect},
};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};
use zkfast_wire::{Acl, Decoder, OpCode, SessionId, Xid, Zxid};

/// Timeout of sessions that must not expire however slow the machine is.
pub const TIMEOUT_MS: i32 = 200_000;
/// The least timeout that the servers grant: how long a session that shall expire lives after it was heard of.
pub const EXPIRY_MS: i32 = 3_000;

/// After so long without a word a server that may have fallen asleep is woken.
const SLEEP_MAX: Duration = Duration::from_millis(400);

/// A node that is never there, below the root of all: who deletes it is refused, with a transaction.
const NOWHERE: &str = "/nowhere";

/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(8);

/// What the answer to a request is expected to be.
#[derive(Clone, Copy, Debug)]
enum Expected {
    Welcome,
    Reply { index: usize, op: Option<OpCode> },
    Fence { xid: i32 },
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
    /// The server that the session goes to.
    place: usize,
    /// Session and password.
    ticket: Option<(SessionId, Vec<u8>)>,
    zxid_seen: i64,
    /// What `zxid_seen` was after each step.
    seen_after: Vec<i64>,
}

/// The processes of a side, which end with it.
enum Processes {
    Server { _server: Server, _home: tempfile::TempDir },
    Ensemble(Cluster),
}

/// A server or an ensemble, with the stream's sessions.
pub struct Side {
    /// Whose.
    pub kind: peers::Kind,
    /// A session with each server, by place, that may do everything, for the start and the end of a stream.
    pub admins: Vec<Client>,
    addresses: Vec<SocketAddr>,
    slots: Vec<Slot>,
    /// How often the server of a place was woken: see `asleep` in the table of exceptions.
    pub woken: usize,
    may_sleep: bool,
    processes: Processes,
}

/// The configuration of both sides.
fn settings() -> Settings {
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
        let address = server.address;
        Self::over(kind, vec![address], Processes::Server { _server: server, _home: home })
    }

    /// Starts an ensemble of `count` servers, which does not serve yet.
    pub fn launch(kind: peers::Kind, count: usize) -> Cluster {
        /// A leader goes on for so long without a quorum: the machine may be slow, and an election is not what is compared.
        const SYNC_LIMIT_TICKS: u32 = 60;
        let Settings { lines, java_flags, .. } = settings();
        let sync_limit_ticks = Some(SYNC_LIMIT_TICKS);
        let shape = Shape { lines, java_flags, sync_limit_ticks, beside: true, ..Shape::default() };
        let mut cluster = Cluster::new(&vec![kind; count], shape);
        (0..count).for_each(|index| cluster.launch(index));
        cluster
    }

    /// An ensemble once it serves.
    pub fn await_ensemble(cluster: Cluster) -> Self {
        cluster.await_all();
        let leader = cluster.leader();
        let others = (0..cluster.size()).filter(|index| *index != leader);
        let places = [leader].into_iter().chain(others);
        let addresses = places.map(|index| cluster.address(index)).collect();
        Self::over(cluster.kind(leader), addresses, Processes::Ensemble(cluster))
    }

    fn over(kind: peers::Kind, addresses: Vec<SocketAddr>, processes: Processes) -> Self {
        let admin = |address: &SocketAddr| {
            let mut admin = Client::connect(*address, 240_000);
            assert_eq!(admin.auth("digest", b"super:test"), 0, "the super user");
            admin
        };
        let admins = addresses.iter().map(admin).collect();
        Self { kind, admins, addresses, slots: Vec::new(), woken: 0, may_sleep: false, processes }
    }

    /// What the first server answers to a four-letter word.
    pub fn four_letter(&self, word: &str) -> String {
        peers::server::four_letter(self.addresses[0], word).expect("an answer")
    }

    /// Wakes its servers from now on when they say nothing for long.
    pub fn wake_sleepers(&mut self) {
        self.may_sleep = true;
    }

    /// Whether the servers still have the roles that they began with.
    pub fn has_its_roles(&self) -> bool {
        match &self.processes {
            Processes::Server { .. } => true,
            Processes::Ensemble(cluster) => {
                let leaders = cluster.leaders();
                leaders.len() == 1 && cluster.address(leaders[0]) == self.addresses[0]
            }
        }
    }

    /// Lets the server at a place apply everything that is known by now.
    pub fn settle(&mut self, place: usize) {
        if self.addresses.len() > 1 {
            // The ping behind it wakes a server that may have fallen asleep over it.
            let admin = &mut self.admins[place];
            let refused = admin.submit(OpCode::Delete, &client::path_version(NOWHERE, -1));
            // In a packet of its own, or both might be there before it sleeps.
            admin.flush().expect("an open connection");
            let mut pings = 0;
            if self.may_sleep {
                self.ping(place);
                pings = 1 + self.wake_while_silent(place);
            }
            let refused = self.admins[place].reply(refused);
            assert_eq!(refused, Err(zkfast_wire::ErrorCode::NO_NODE.0), "nobody makes this node");
            self.take_pings(place, pings);
        }
    }

    fn ping(&mut self, place: usize) {
        self.admins[place].submit_as(Xid::PING, OpCode::Ping.to_i32(), &[]);
        self.admins[place].flush().expect("an open connection");
    }

    /// A server that may sleep has been asked something: until it says something it is woken now and then. Returns how many
    /// pings wait to be answered behind what it was asked.
    fn wake_while_silent(&mut self, place: usize) -> usize {
        let deadline = Instant::now() + peers::DEADLINE;
        let mut pings = 0;
        while self.may_sleep && self.admins[place].is_silent_for(SLEEP_MAX) {
            assert!(Instant::now() < deadline, "{:?}: server {place} does not wake up", self.kind);
            self.ping(place);
            pings += 1;
            self.woken += 1;
        }
        pings
    }

    fn take_pings(&mut self, place: usize, count: usize) {
        for _ in 0..count {
            assert_eq!(self.admins[place].reply(Xid::PING.0), Ok(vec![]), "a ping");
        }
    }

    fn wake(&mut self, place: usize) {
        self.woken += 1;
        self.admins[place].ping();
    }

    /// The server that a session goes to.
    pub fn place(&self, slot: usize) -> usize {
        self.slots[slot].place
    }

    /// Lets a session go to the server so many places further from now on.
    pub fn shift(&mut self, slot: usize, places: usize) {
        self.slots[slot].place = (self.slots[slot].place + places) % self.addresses.len();
    }

    /// Makes the root of a stream, and as many sessions as it needs when it needs them.
    pub fn begin(&mut self, root: &str, slots: usize) {
        let created =
            self.admins[0].submit(OpCode::Create, &client::create(root, Some(b""), &[Acl::OPEN], 0));
        self.admins[0].flush().expect("an open connection");
        let pings = self.wake_while_silent(0);
        self.admins[0].reply(created).expect("a fresh root");
        self.take_pings(0, pings);
        let place = |slot| slot % self.addresses.len();
        self.slots = (0..slots).map(|slot| Slot { place: place(slot), ..Slot::default() }).collect();
    }

    /// Deletes what the stream left below `root` and its quotas; all of it was open to the admin only.
    pub fn clean(&mut self, root: &str) {
        self.settle(0);
        for root in [root.to_owned(), format!("{QUOTAS}{root}")] {
            let admin = &mut self.admins[0];
            if admin.exists(&root, false).is_err() {
                continue;
            }
            let tree = peers::tree::read(admin, &root);
            let deletes: Vec<i32> = tree
                .keys()
                .rev()
                .map(|path| admin.submit(OpCode::Delete, &client::path_version(path, -1)))
                .collect();
            admin.flush().expect("an open connection");
            let mut pings = 0;
            for xid in deletes {
                pings += self.wake_while_silent(0);
                self.admins[0].reply(xid).expect("a node without children");
            }
            self.take_pings(0, pings);
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
        let Slot { seen_after, place, .. } = std::mem::take(&mut self.slots[slot]);
        self.slots[slot] = Slot { seen_after, place, ..Slot::default() };
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
        let mut client = Client::over(client::dial(self.addresses[state.place]));
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
        client.patience(if self.may_sleep { SLEEP_MAX } else { PATIENCE });
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

    /// Asks for what follows everything that the session was to be told so far: a ping does with a single server, in an
    /// ensemble it takes a write.
    pub fn fence(&mut self, slot: usize) {
        let is_alone = self.addresses.len() == 1;
        if let Some(connection) = &mut self.slots[slot].connection {
            let client = &mut connection.client;
            let xid = if is_alone {
                client.submit_as(Xid::PING, OpCode::Ping.to_i32(), &[]);
                Xid::PING.0
            } else {
                client.submit(OpCode::Delete, &client::path_version(NOWHERE, -1))
            };
            connection.expected.push_back(Expected::Fence { xid });
            connection.flush();
        }
    }

    /// Everything up to the last expected answer, or to the end of the connection.
    pub fn collect(&mut self, slot: usize) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut nothing_for = Duration::ZERO;
        while let Some(connection) = &mut self.slots[slot].connection
            && !connection.expected.is_empty()
        {
            let line = match connection.line() {
                Some(line) => line,
                None if self.may_sleep && nothing_for < PATIENCE => {
                    nothing_for += SLEEP_MAX;
                    self.wake(self.slots[slot].place);
                    continue;
                }
                None => Line::of(Kind::Silence, "nothing"),
            };
            let state = &mut self.slots[slot];
            match &line.kind {
                Kind::End | Kind::Silence => state.connection = None,
                Kind::Welcome(false) => {
                    lines.push(line);
                    lines.extend(state.connection.take().map(Left).map(Left::lines).unwrap_or_default());
                    return lines;
                }
                Kind::Welcome(true) => {
                    let client = state.connection.as_ref().map(|connection| &connection.client);
                    state.ticket = client.map(|client| (client.session, client.password.clone()));
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
        self.admins[self.slots[slot].place].exists(path, true).expect("the marker");
    }

    /// Waits a moment for the event of the marker; whether it came, or what is wrong.
    pub fn is_marker_gone(&mut self, slot: usize, deadline: Instant) -> Result<bool, String> {
        let place = self.slots[slot].place;
        let admin = &mut self.admins[place];
        admin.patience(Duration::from_millis(300));
        let came = match admin.try_next() {
            Ok(Some(peers::Incoming::Event { kind: 2, .. })) => Ok(true),
            Err(_) if Instant::now() < deadline => Ok(false),
            other => Err(format!("{:?}, server {place}: no session expires: {other:?}", self.kind)),
        };
        admin.patience(peers::DEADLINE);
        came
    }
}

/// A connection that its session has left.
pub struct Left(Connection);

impl Left {
    /// Asks for a write, which a server that does not own the session any more neither does nor answers (C28).
    pub fn write(&mut self) {
        self.0.client.submit(OpCode::Delete, &client::path_version(NOWHERE, -1));
        self.0.expected.push_back(Expected::Reply { index: 0, op: Some(OpCode::Delete) });
        self.0.flush();
    }

    /// What still came on it.
    pub fn lines(mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        self.0.client.patience(PATIENCE);
        loop {
            lines.push(self.0.line().unwrap_or_else(|| Line::of(Kind::Silence, "nothing")));
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

    /// The next thing that the session sees; `None` if nothing came for long.
    fn line(&mut self) -> Option<Line> {
        Some(match self.client.next_frame() {
            Ok(Some(payload)) => self
                .read(&payload)
                .unwrap_or_else(|| Line::of(Kind::Silence, &format!("an unreadable frame {payload:02x?}"))),
            Ok(None) => Line::of(Kind::End, "the end of the connection"),
            Err(_) => return None,
        })
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
            Some(Expected::Fence { xid: wanted }) if xid == wanted => {
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
