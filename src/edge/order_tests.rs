//! Stories about order: a client core driven by bytes, with the real tree and a pipeline that the test plays.

use super::{EdgeOptions, EdgeShared, connection::Phase, core::Core};
use crate::{
    config::{JavaFlags, ZooCfg, limits},
    cores::{
        clock::Clock,
        lanes::{self, LaneReceiver, LaneSender},
        messages::{Asker, CloseReason, CommitBatch, ConnectionId, Delivery, Step, Submission, Write},
    },
    status::Board,
};
use bytes::Bytes;
use std::{path::Path, sync::Arc};
use zkfast_tree::{Answer, Ask, Tree, TreeConfig, session};
use zkfast_wire::{
    Acl, ConnectRequest, ConnectResponse, Decoder, ErrorCode, EventKind, Id, OpCode, Perms, Reply,
    ReplyHeader, Request, SessionId, WatcherEvent, Xid, Zxid, frame,
    request::{
        AuthRequest, CreateRequest, PathVersion, PathWatch, RequestHeader, SetDataRequest, SetWatchesRequest,
    },
};

mod strain;

/// A core, and the pipeline that the test plays.
struct Story {
    core: Core,
    tree: Tree,
    submissions: LaneReceiver<Submission>,
    deliveries: LaneSender<Delivery>,
    last: Zxid,
    /// Kept so that the bell's socket stays open.
    _bells: Vec<lanes::BellEnd>,
}

/// A packet that a client got.
#[derive(Debug, PartialEq)]
enum Got {
    Event(EventKind, String, Zxid),
    Reply(i32, ErrorCode, Zxid, Bytes),
}

impl Got {
    fn reply(&self) -> (i32, ErrorCode) {
        match self {
            Self::Reply(xid, err, ..) => (*xid, *err),
            Self::Event(..) => panic!("a reply was expected: {self:?}"),
        }
    }

    fn body(&self, op: OpCode) -> Reply<'_> {
        match self {
            Self::Reply(_, ErrorCode::OK, _, body) => Reply::decode(op, &mut Decoder::new(body)).unwrap(),
            _ => panic!("a good reply was expected: {self:?}"),
        }
    }
}

impl Story {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut EdgeOptions)) -> Self {
        let cfg = ZooCfg::standalone(Path::new("/nowhere"), 0, &JavaFlags::default()).unwrap();
        let mut options = EdgeOptions::new(&cfg, 1, false, Clock::start());
        change(&mut options);
        let throttle = cfg.protection.connection_throttle.clone();
        let board = Arc::new(Board::new(1, &cfg, 0));
        board.set_serving(true);
        let (to_pipeline, pipeline_end) = lanes::doorbell().unwrap();
        let (to_core, core_end) = lanes::doorbell().unwrap();
        let (up, submissions) = lanes::lane(64, to_pipeline);
        let (deliveries, down) = lanes::lane(64, to_core);
        let mut tree = Tree::new(TreeConfig::default());
        let counters = board.core(0);
        let core = Core::new(
            0,
            Arc::new(options),
            Arc::new(EdgeShared::new(board, throttle)),
            counters,
            tree.reader(),
            up,
            down,
        );
        Self { core, tree, submissions, deliveries, last: Zxid::ZERO, _bells: vec![pipeline_end, core_end] }
    }

    /// A connection with a session.
    fn client(&mut self) -> ConnectionId {
        let id = self.core.accepted("127.0.0.1:4000".parse().unwrap());
        self.core.received(id, &connect(SessionId(0), &[], Zxid::ZERO));
        self.commit();
        let response = self.take_bytes(id);
        assert_eq!(response.len(), 4 + 37);
        id
    }

    /// Sends one request.
    fn ask(&mut self, id: ConnectionId, xid: i32, request: &Request<'_>) {
        let mut out = Vec::new();
        request.write(Xid(xid), &mut out);
        self.core.received(id, &out);
    }

    /// Everything submitted so far becomes one batch; what is no transaction is answered behind it.
    fn commit(&mut self) {
        let mut steps = Vec::new();
        let mut behind = Vec::new();
        while let Some(submission) = self.submissions.pop() {
            match submission {
                Submission::OpenSession { connection, timeout_ms } => {
                    let session = SessionId(0x100 + self.last.0 + 1);
                    let asker = Asker { connection, xid: Xid(0) };
                    let request = Request::CreateSession(timeout_ms);
                    let mut step = self.step(asker, session, OpCode::CreateSession, &request, &[]);
                    step.opened_session = Some(session);
                    steps.push(step);
                }
                Submission::Write(Write { asker, session, op, body, identities }) => {
                    let request = Request::decode(op, &mut Decoder::new(&body)).unwrap();
                    let mut step = self.step(asker, session, op, &request, &identities);
                    step.closed_session = (op == OpCode::CloseSession).then_some(session);
                    steps.push(step);
                }
                Submission::Sync { asker, .. } => behind.push(Delivery::Synced { asker }),
                Submission::ResumeSession { connection, session, password, timeout_ms } => {
                    behind.push(if password == session::password(session) {
                        Delivery::Resumed { connection, session, timeout_ms }
                    } else {
                        Delivery::Refused { connection }
                    });
                }
                Submission::GetEphemerals { asker, .. } => {
                    behind.push(Delivery::Ephemerals { asker, paths: Arc::from([Box::from("/e")]) });
                }
                Submission::Gather(gather) => behind.push(Delivery::Gather(gather)),
                Submission::Gathered(gather) => behind.push(Delivery::Gathered(gather)),
                Submission::Touch(_) | Submission::Gone { .. } | Submission::Quiet => {}
            }
        }
        if !steps.is_empty() {
            self.deliver(Delivery::Batch(Arc::new(CommitBatch { steps })));
        }
        behind.into_iter().for_each(|delivery| self.deliver(delivery));
        self.core.drain();
        self.core.end_turn();
        self.core.publish();
    }

    fn deliver(&mut self, delivery: Delivery) {
        assert!(self.deliveries.push(delivery).is_ok(), "the test's lane is full");
    }

    fn step(
        &mut self,
        asker: Asker,
        session: SessionId,
        op: OpCode,
        request: &Request<'_>,
        identities: &[Id<'static>],
    ) -> Step {
        self.last = self.last.next().unwrap();
        let zxid = self.last;
        let mut record = Vec::new();
        let ask = Ask { session, cxid: asker.xid.0, zxid, time_ms: 1, op, request, identities };
        self.tree.prepare(&ask, &mut record);
        let applied = self.tree.apply(&Bytes::from(record)).unwrap();
        Step {
            zxid,
            changes: applied.changes,
            answer: Some((asker, applied.answer)),
            opened_session: None,
            closed_session: None,
        }
    }

    fn take_bytes(&mut self, id: ConnectionId) -> Vec<u8> {
        let bytes = self.core.output(id).unwrap().0.to_vec();
        self.core.sent(id, bytes.len());
        bytes
    }

    /// What the client got since the last time.
    fn got(&mut self, id: ConnectionId) -> Vec<Got> {
        let bytes = self.take_bytes(id);
        frame::decoders(&bytes, usize::MAX)
            .map(|decoder| {
                let mut decoder = decoder.unwrap();
                let header = ReplyHeader::decode(&mut decoder).unwrap();
                if header.xid == Xid::NOTIFICATION {
                    let event = WatcherEvent::decode(&mut decoder).unwrap();
                    Got::Event(event.kind, event.path.into_owned(), header.zxid)
                } else {
                    let body = Bytes::copy_from_slice(decoder.rest());
                    Got::Reply(header.xid.0, header.err, header.zxid, body)
                }
            })
            .collect()
    }

    fn phase(&mut self, id: ConnectionId) -> Phase {
        self.core.output(id).unwrap().1
    }

    fn data(&mut self, id: ConnectionId, path: &str) -> Vec<u8> {
        self.ask(id, 99, &get(path, false));
        let got = self.got(id);
        match got[0].body(OpCode::GetData) {
            Reply::Data(data, _) => data.unwrap().to_vec(),
            other => panic!("{other:?}"),
        }
    }
}

fn connect(session: SessionId, password: &[u8], last_zxid_seen: Zxid) -> Vec<u8> {
    let request = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen,
        timeout_ms: 10_000,
        session,
        password,
        read_only: Some(false),
    };
    let mut out = Vec::new();
    frame::write(&mut out, |out| request.encode(out));
    out
}

fn create(path: &str) -> Request<'_> {
    create_with(path, vec![Acl::OPEN])
}

fn create_with<'a>(path: &'a str, acl: Vec<Acl<'a>>) -> Request<'a> {
    Request::Create(
        OpCode::Create,
        CreateRequest { path: path.into(), data: Some(b"0"), acl: Some(acl), flags: 0, ttl_ms: None },
    )
}

fn set<'a>(path: &'a str, data: &'a [u8]) -> Request<'a> {
    Request::SetData(SetDataRequest { path: path.into(), data: Some(data), version: -1 })
}

fn get(path: &str, watch: bool) -> Request<'_> {
    Request::GetData(PathWatch { path: path.into(), watch })
}

fn exists(path: &str, watch: bool) -> Request<'_> {
    Request::Exists(PathWatch { path: path.into(), watch })
}

fn children(path: &str, watch: bool) -> Request<'_> {
    Request::GetChildren(PathWatch { path: path.into(), watch })
}

fn delete(path: &str) -> Request<'_> {
    Request::Delete(PathVersion { path: path.into(), version: -1 })
}

/// S18, design 4: a client pipelines write, read, write, read; both writes are committed in one batch. Danger: the
/// first read shows the second write.
#[test]
fn a_read_between_two_writes_sees_the_first() {
    let mut story = Story::new();
    let id = story.client();
    story.ask(id, 1, &create("/a"));
    story.ask(id, 2, &set("/a", b"one"));
    story.ask(id, 3, &get("/a", false));
    story.ask(id, 4, &set("/a", b"two"));
    story.ask(id, 5, &get("/a", false));
    assert!(story.got(id).is_empty(), "nothing is answered before it is committed");
    story.commit();
    let got = story.got(id);
    assert_eq!(got.iter().map(|one| one.reply().0).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    let (Reply::Data(first, _), Reply::Data(second, _)) =
        (got[2].body(OpCode::GetData), got[4].body(OpCode::GetData))
    else {
        panic!("{got:?}")
    };
    assert_eq!((first, second), (Some(&b"one"[..]), Some(&b"two"[..])));
    // C16, G15: the header's zxid is the view, which only grows.
    let zxids: Vec<_> = got
        .iter()
        .map(|one| match one {
            Got::Reply(_, _, zxid, _) => zxid.0,
            Got::Event(..) => unreachable!(),
        })
        .collect();
    assert_eq!(zxids, [2, 3, 3, 4, 4]);
}

/// W18 (ClickHouse 28197): the reply that registers a watch stands before its event, and a watch that a queued read
/// leaves between two transactions of one batch fires for the second.
#[test]
fn a_watch_left_between_two_transactions_fires_for_the_second() {
    let mut story = Story::new();
    let id = story.client();
    story.ask(id, 1, &create("/a"));
    story.ask(id, 2, &get("/a", true));
    story.ask(id, 3, &set("/a", b"new"));
    story.commit();
    let got = story.got(id);
    assert_eq!(got.len(), 4, "{got:?}");
    assert_eq!(got[1].reply(), (2, ErrorCode::OK));
    assert_eq!(got[2], Got::Event(EventKind::NodeDataChanged, "/a".into(), Zxid(3)));
    // W17: the own write's event precedes its reply.
    assert_eq!(got[3].reply(), (3, ErrorCode::OK));
}

/// W16: another client's change is told before any reply shows it.
#[test]
fn an_event_precedes_the_data_that_it_tells_of() {
    let mut story = Story::new();
    let (watcher, writer) = (story.client(), story.client());
    story.ask(writer, 1, &create("/a"));
    story.commit();
    story.ask(watcher, 1, &get("/a", true));
    story.got(watcher);
    story.ask(writer, 2, &set("/a", b"new"));
    story.commit();
    story.ask(watcher, 2, &get("/a", false));
    let got = story.got(watcher);
    assert!(matches!(got[0], Got::Event(EventKind::NodeDataChanged, ..)), "{got:?}");
    assert!(matches!(got[1].body(OpCode::GetData), Reply::Data(Some(b"new"), _)));
    // One-shot: the second change is not told.
    story.ask(writer, 3, &set("/a", b"newer"));
    story.commit();
    assert!(story.got(watcher).is_empty());
}

/// W5, W6, W12, W15: absent nodes are watched by exists alone; a deletion reaches data and child watches of one
/// connection once, and the parent's watchers behind.
#[test]
fn creations_and_deletions_reach_whom_they_concern() {
    let mut story = Story::new();
    let (watcher, writer) = (story.client(), story.client());
    story.ask(watcher, 1, &exists("/a", true));
    story.ask(watcher, 2, &get("/b", true));
    story.ask(watcher, 3, &children("/", true));
    let got = story.got(watcher);
    assert_eq!(got[0].reply(), (1, ErrorCode::NO_NODE));
    assert_eq!(got[1].reply(), (2, ErrorCode::NO_NODE));
    story.ask(writer, 1, &create("/a"));
    story.ask(writer, 2, &create("/b"));
    story.commit();
    assert_eq!(
        story.got(watcher),
        [
            Got::Event(EventKind::NodeCreated, "/a".into(), Zxid(3)),
            Got::Event(EventKind::NodeChildrenChanged, "/".into(), Zxid(3)),
        ]
    );
    story.ask(watcher, 4, &get("/a", true));
    story.ask(watcher, 5, &children("/a", true));
    story.ask(watcher, 6, &children("/", true));
    story.got(watcher);
    story.ask(writer, 3, &delete("/a"));
    story.commit();
    assert_eq!(
        story.got(watcher),
        [
            Got::Event(EventKind::NodeDeleted, "/a".into(), Zxid(5)),
            Got::Event(EventKind::NodeChildrenChanged, "/".into(), Zxid(5)),
        ]
    );
}

/// C24, G23: the reply of closeSession leaves, then the connection closes; its watches are gone.
#[test]
fn close_session_answers_and_then_closes() {
    let mut story = Story::new();
    let (id, other) = (story.client(), story.client());
    story.ask(id, 1, &exists("/a", true));
    story.ask(id, 2, &Request::CloseSession);
    story.commit();
    let got = story.got(id);
    assert_eq!(got[1].reply(), (2, ErrorCode::OK));
    assert_eq!(story.phase(id), Phase::Finishing);
    story.core.closed(id);
    story.ask(other, 1, &create("/a"));
    story.commit();
    assert_eq!(story.got(other).len(), 1);
}

/// C26, S6: what stands behind a closeSession is neither done nor answered, reads no more than writes; what stands before
/// it is.
#[test]
fn nothing_is_done_behind_close_session() {
    let mut story = Story::new();
    let (id, other) = (story.client(), story.client());
    story.ask(id, 1, &create("/a"));
    story.ask(id, 2, &exists("/a", false));
    story.ask(id, 3, &Request::CloseSession);
    story.ask(id, 4, &exists("/a", true));
    story.ask(id, 5, &create("/b"));
    story.ask(id, 6, &Request::Ping);
    story.ask(id, 7, &exists("/b", false));
    story.commit();
    let got: Vec<_> = story.got(id).iter().map(Got::reply).collect();
    assert_eq!(got, [(1, ErrorCode::OK), (2, ErrorCode::OK), (3, ErrorCode::OK)]);
    assert_eq!(story.phase(id), Phase::Finishing);
    story.ask(other, 1, &exists("/b", false));
    assert_eq!(story.got(other)[0].reply(), (1, ErrorCode::NO_NODE));
    assert_eq!(story.core.load.requests, 0, "what is forgotten is not counted for ever");
}

/// Danger: an answer for a connection that went away reaches the one that got its slot.
#[test]
fn a_late_answer_does_not_reach_a_stranger() {
    let mut story = Story::new();
    let gone = story.client();
    story.ask(gone, 1, &create("/a"));
    story.core.hung_up(gone);
    story.core.closed(gone);
    let stranger = story.core.accepted("127.0.0.1:4001".parse().unwrap());
    assert_eq!(stranger.slot, gone.slot);
    story.core.received(stranger, &connect(SessionId(0), &[], Zxid::ZERO));
    story.commit();
    // Only its own handshake.
    assert_eq!(story.take_bytes(stranger).len(), 4 + 37);
}

/// C13: a client sends auth and requests right behind its ConnectRequest.
#[test]
fn what_stands_behind_the_handshake_waits_for_the_session() {
    let mut story = Story::new();
    let id = story.core.accepted("127.0.0.1:4000".parse().unwrap());
    let mut bytes = connect(SessionId(0), &[], Zxid::ZERO);
    let auth = AuthRequest { scheme: "digest".into(), auth: Some(b"u:p") };
    Request::Auth(auth).write(Xid::AUTH, &mut bytes);
    Request::Ping.write(Xid::PING, &mut bytes);
    for byte in bytes {
        story.core.received(id, &[byte]);
    }
    assert!(story.take_bytes(id).is_empty());
    assert!(!story.core.wants_input(id));
    story.commit();
    let bytes = story.take_bytes(id);
    let mut frames = frame::decoders(&bytes, 1000).map(Result::unwrap);
    let response = ConnectResponse::decode(&mut frames.next().unwrap()).unwrap();
    assert_eq!(response.timeout_ms, 10_000);
    let headers: Vec<_> = frames.map(|mut one| ReplyHeader::decode(&mut one).unwrap()).collect();
    assert_eq!(headers[0], ReplyHeader { xid: Xid::AUTH, zxid: Zxid::ZERO, err: ErrorCode::OK });
    assert_eq!(headers[1].xid, Xid::PING);
    assert!(story.core.wants_input(id));
}

/// C9, C10, S2: the right password resumes, a wrong or odd one is refused with zeroes.
#[test]
fn a_session_is_resumed_by_its_password_alone() {
    for (password, accepted) in [
        (session::password(SessionId(77)).to_vec(), true),
        (vec![0; 16], false),
        (vec![1; 15], false),
        (vec![], false),
    ] {
        let mut story = Story::new();
        let id = story.core.accepted("127.0.0.1:4000".parse().unwrap());
        story.core.received(id, &connect(SessionId(77), &password, Zxid::ZERO));
        story.commit();
        let bytes = story.take_bytes(id);
        let response =
            ConnectResponse::decode(&mut frame::decoders(&bytes, 1000).next().unwrap().unwrap()).unwrap();
        if accepted {
            assert_eq!(response.session, SessionId(77));
            assert_eq!(story.phase(id), Phase::Serving);
        } else {
            assert_eq!(response, ConnectResponse::refused(Some(false)));
            assert_eq!(story.phase(id), Phase::Finishing);
        }
    }
}

/// C6, G25: who has seen more than this server is sent away without a word.
#[test]
fn a_client_from_the_future_is_closed_silently() {
    let mut story = Story::new();
    let id = story.core.accepted("127.0.0.1:4000".parse().unwrap());
    story.core.received(id, &connect(SessionId(0), &[], Zxid(1)));
    assert_eq!(story.core.output(id).unwrap(), (&[][..], Phase::Dead));
}

/// C21, G16: auth is answered at once, ahead of older requests, which keep their old identities.
#[test]
fn auth_overtakes_and_does_not_reach_back() {
    let mut story = Story::new();
    let id = story.client();
    let auth = |text: &'static [u8]| Request::Auth(AuthRequest { scheme: "digest".into(), auth: Some(text) });
    let mine = || vec![Acl { perms: Perms::ALL, id: Id::new("auth", "") }];
    story.ask(id, 1, &create_with("/early", mine()));
    story.ask(id, -4, &auth(b"u:p"));
    story.ask(id, 2, &create_with("/late", mine()));
    let got = story.got(id);
    assert_eq!(got, [Got::Reply(-4, ErrorCode::OK, Zxid::ZERO, Bytes::new())]);
    story.commit();
    let got = story.got(id);
    assert_eq!(got[0].reply(), (1, ErrorCode::INVALID_ACL));
    assert_eq!(got[1].reply(), (2, ErrorCode::OK));
    // W10: another client may neither read it nor hear of it.
    let other = story.client();
    story.ask(other, 1, &get("/late", false));
    assert_eq!(story.got(other)[0].reply(), (1, ErrorCode::NO_AUTH));
    story.ask(other, 2, &Request::AddWatch("/late".into(), 0));
    story.got(other);
    story.ask(id, 3, &set("/late", b"secret"));
    story.commit();
    assert!(story.got(other).is_empty(), "an event tells of a node that the client may not read");
    // A19: an unknown scheme is refused, then the connection closes.
    story.ask(other, -4, &Request::Auth(AuthRequest { scheme: "host".into(), auth: Some(b"x") }));
    assert_eq!(story.got(other)[0].reply(), (-4, ErrorCode::AUTH_FAILED));
    assert_eq!(story.phase(other), Phase::Finishing);
}

/// C21, G16, A1. Danger: a read that waits behind a write is answered with what was proved behind it.
#[test]
fn a_read_that_waits_keeps_the_identities_that_it_came_with() {
    let mut story = Story::new();
    let (owner, id) = (story.client(), story.client());
    let auth = || Request::Auth(AuthRequest { scheme: "digest".into(), auth: Some(b"u:p") });
    story.ask(owner, -4, &auth());
    let mine = vec![Acl { perms: Perms::ALL, id: Id::new("auth", "") }];
    story.ask(owner, 1, &create_with("/mine", mine));
    story.commit();
    story.got(owner);
    story.ask(id, 1, &create("/a"));
    story.ask(id, 2, &get("/mine", true));
    story.ask(id, 3, &Request::WhoAmI);
    story.ask(id, -4, &auth());
    story.ask(id, 4, &get("/mine", false));
    story.ask(id, 5, &Request::WhoAmI);
    assert_eq!(story.got(id)[0].reply(), (-4, ErrorCode::OK));
    story.commit();
    let got = story.got(id);
    let errors: Vec<_> = got.iter().map(Got::reply).collect();
    let no_auth = ErrorCode::NO_AUTH;
    let ok = ErrorCode::OK;
    assert_eq!(errors, [(1, ok), (2, no_auth), (3, ok), (4, ok), (5, ok)]);
    let (Got::Reply(_, _, _, before), Got::Reply(_, _, _, after)) = (&got[2], &got[4]) else {
        panic!("{got:?}")
    };
    assert_eq!((before[..4].to_vec(), after[..4].to_vec()), (vec![0, 0, 0, 1], vec![0, 0, 0, 2]));
}

/// S18, C16, OP26, T25. Danger: the number of all nodes is that of another time than the reply says.
#[test]
fn the_number_of_all_nodes_is_of_its_place_among_the_writes() {
    let mut story = Story::new();
    let id = story.client();
    story.ask(id, 1, &create("/a"));
    story.ask(id, 2, &Request::GetAllChildrenNumber("/".into()));
    story.ask(id, 3, &Request::Delete(PathVersion { path: "/a".into(), version: -1 }));
    story.ask(id, 4, &Request::GetAllChildrenNumber("/".into()));
    story.commit();
    let got = story.got(id);
    let numbers = [1, 3].map(|at| match &got[at] {
        Got::Reply(_, ErrorCode::OK, _, body) => body.to_vec(),
        other => panic!("{other:?}"),
    });
    assert_eq!(numbers, [[0, 0, 0, 4].to_vec(), [0, 0, 0, 3].to_vec()]);
}

/// C25, G37: refused in turn with zxid -1, then closed.
#[test]
fn what_no_client_may_ask_is_refused_and_closes() {
    for op in [0, 13, 20, -1, -10, 4711] {
        let mut story = Story::new();
        let id = story.client();
        story.ask(id, 1, &create("/a"));
        let mut bytes = Vec::new();
        frame::write(&mut bytes, |out| {
            RequestHeader { xid: Xid(2), op }.encode(out);
            out.extend_from_slice(&[0; 40]);
        });
        story.core.received(id, &bytes);
        story.commit();
        let got = story.got(id);
        assert_eq!(got[0].reply(), (1, ErrorCode::OK));
        assert_eq!(got[1], Got::Reply(2, ErrorCode::UNIMPLEMENTED, Zxid(-1), Bytes::new()), "op {op}");
        assert_eq!(story.phase(id), Phase::Finishing);
    }
}

/// C27: a read whose body makes no sense is answered -5 and the connection stays.
#[test]
fn an_unreadable_body_is_answered() {
    for op in OpCode::ALL.iter().copied().filter(|op| !op.is_write()) {
        if matches!(
            op,
            OpCode::Check | OpCode::DeleteContainer | OpCode::CreateSession | OpCode::Error | OpCode::Auth
        ) || matches!(op, OpCode::Ping | OpCode::WhoAmI | OpCode::Sasl)
        {
            continue;
        }
        let mut story = Story::new();
        let id = story.client();
        let mut bytes = Vec::new();
        frame::write(&mut bytes, |out| {
            RequestHeader { xid: Xid(1), op: op.to_i32() }.encode(out);
            out.extend_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
        });
        story.core.received(id, &bytes);
        assert_eq!(story.got(id)[0].reply(), (1, ErrorCode::MARSHALLING_ERROR), "{op:?}");
        assert_eq!(story.phase(id), Phase::Serving);
    }
}

/// C20, S23, G26: pings and syncs keep their place behind earlier writes, and a write behind a sync waits for it.
#[test]
fn pings_and_syncs_keep_their_place() {
    let mut story = Story::new();
    let id = story.client();
    story.ask(id, 1, &create("/a"));
    story.ask(id, -2, &Request::Ping);
    story.ask(id, 2, &Request::Sync(Some("/no/such".into())));
    story.ask(id, 3, &set("/a", b"behind"));
    story.ask(id, 4, &get("/a", false));
    story.ask(id, 5, &Request::GetEphemerals(None));
    assert!(story.got(id).is_empty());
    story.commit();
    let got = story.got(id);
    assert_eq!(got.iter().map(|one| one.reply().0).collect::<Vec<_>>(), [1, -2, 2, 3, 4, 5]);
    assert_eq!(got[2].body(OpCode::Sync), Reply::Path(Some("/no/such".into())));
    assert_eq!(got[5].body(OpCode::GetEphemerals), Reply::Names(vec!["/e".into()]));
}

/// W20: what was missed is told before the reply, with zxid -1; the rest is watched.
#[test]
fn set_watches_tells_what_was_missed() {
    use EventKind::{NodeChildrenChanged, NodeCreated, NodeDataChanged, NodeDeleted};
    let mut story = Story::new();
    let (id, writer) = (story.client(), story.client());
    for (xid, path) in ["/old", "/changed", "/parent", "/there"].into_iter().enumerate() {
        story.ask(writer, xid as i32, &create(path));
    }
    story.commit();
    let since = story.last;
    story.ask(writer, 5, &set("/changed", b"1"));
    story.ask(writer, 6, &create("/parent/child"));
    story.commit();
    story.ask(
        id,
        -8,
        &Request::SetWatches(SetWatchesRequest {
            relative_zxid: since,
            data: vec!["/old".into(), "/changed".into(), "/gone".into()],
            exist: vec!["/there".into(), "/later".into()],
            child: vec!["/parent".into(), "/old".into(), "/gone".into()],
            persistent: vec!["/p".into()],
            persistent_recursive: vec!["/r".into()],
            is_cut: false,
        }),
    );
    let event = |kind, path: &str, zxid| Got::Event(kind, path.into(), zxid);
    let got = story.got(id);
    assert_eq!(
        got[..5],
        [
            event(NodeDataChanged, "/changed", Zxid(-1)),
            event(NodeDeleted, "/gone", Zxid(-1)),
            event(NodeCreated, "/there", Zxid(-1)),
            event(NodeChildrenChanged, "/parent", Zxid(-1)),
            event(NodeDeleted, "/gone", Zxid(-1)),
        ]
    );
    assert_eq!(got[5].reply(), (-8, ErrorCode::OK));
    story.got(writer);
    for (xid, path) in ["/later", "/old/child", "/p", "/r", "/r/deep"].into_iter().enumerate() {
        story.ask(writer, 10 + xid as i32, &create(path));
    }
    story.ask(writer, 20, &set("/old", b"1"));
    story.commit();
    let told: Vec<_> = story
        .got(id)
        .into_iter()
        .map(|one| match one {
            Got::Event(kind, path, _) => (kind, path),
            Got::Reply(..) => panic!("{one:?}"),
        })
        .collect();
    let expected = [
        (NodeCreated, "/later"),
        (NodeChildrenChanged, "/old"),
        (NodeCreated, "/p"),
        (NodeCreated, "/r"),
        (NodeCreated, "/r/deep"),
        (NodeDataChanged, "/old"),
    ];
    assert_eq!(told, expected.map(|(kind, path)| (kind, path.to_owned())));
}

/// W25: `watch_count` of mntr follows the table, whoever changes it, and counts as Apache 3.9's two tables do.
#[test]
fn the_count_of_watches_follows_the_table() {
    let mut story = Story::new();
    let board = story.core.counters.clone();
    let count = || board.watches.get();
    let (id, writer) = (story.client(), story.client());
    story.ask(writer, 1, &create("/a"));
    story.commit();
    let watch = |path: &'static str| PathWatch { path: path.into(), watch: true };
    let mut xid = 0;
    for (request, expected) in [
        (Request::GetData(watch("/a")), 1),
        (Request::GetChildren(watch("/a")), 2),
        (Request::AddWatch("/b".into(), 0), 4),
        (Request::AddWatch("/b".into(), 1), 4),
        (Request::RemoveWatches("/b".into(), 4), 3),
        (Request::AddWatch("/c".into(), 1), 4),
        (Request::RemoveWatches("/a".into(), 2), 3),
    ] {
        xid += 1;
        story.ask(id, xid, &request);
        story.commit();
        assert_eq!(count(), expected, "{request:?}");
    }
    story.ask(writer, 2, &create("/a/child"));
    story.commit();
    assert_eq!(count(), 2, "the child watch is used up");
    story.ask(id, 20, &Request::CloseSession);
    story.commit();
    assert_eq!(count(), 0);
}
