//! A member's pipeline for tests: it takes no turns by itself and has no role until the test says so. It has a log and
//! snapshots in a directory of its own; the test plays its one client core, and the server on the other end of its link.

use super::{MemberOptions, Pipeline};
use crate::{
    config::{JavaFlags, ZooCfg, ensemble::PeerAddress},
    cores::{
        clock::Clock,
        lanes::{BellEnd, LaneReceiver, LaneSender, doorbell, lane},
        messages::{Asker, ConnectionId, Delivery, Submission},
    },
    links::{LinkOptions, Links, PeerAddresses},
    pipeline::{CoreLanes, Duty, PipelineOptions, ReapPolicy, SnapshotPolicy},
    status::Board,
    storage::{
        DataDirs, LogConfig, TxnLog,
        disk::{Durability, LogDirectory, SegmentFile},
        preparer::{Preparer, REQUESTS_MAX, Shared},
        purge::PurgeMark,
        recovery::{RecoveryOptions, recover},
        ring::Ring,
        snapshot::SnapshotOptions,
        window::Half,
    },
};
use bytes::Bytes;
use std::{
    io::Write,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, mpsc::sync_channel},
    time::{Duration, Instant},
};
use zkfast_tree::{Ask, Tree, TreeConfig};
use zkfast_wire::{
    Acl, Ensemble, Epoch, OpCode, Packet, Request, ServerId, SessionId, Xid, Zxid, jute,
    quorum::SNAPSHOT_SIGNATURE, request::CreateRequest,
};
use zkfast_zab::{Config, Effect, Event, LinkId, Node, Recovered, Tail};

/// Nothing that a test waits for takes so long.
const DEADLINE: Duration = Duration::from_secs(30);

/// Ticks of a second, ten of them for whatever the links wait for.
const TICK_MS: u32 = 1000;
const LIMIT_TICKS: u32 = 10;

/// Half of the window of a log that takes nothing.
const HALF_BYTES: usize = 1 << 16;

pub(in crate::pipeline) struct Fixture {
    pub(in crate::pipeline) pipeline: Pipeline,
    pub(super) dirs: DataDirs,
    /// What the client core is told.
    pub(super) told: LaneReceiver<Delivery>,
    /// Prepares the records of the log's history.
    author: Tree,
    other_server: TcpListener,
    _asks: LaneSender<Submission>,
    _bells: [BellEnd; 2],
    home: tempfile::TempDir,
}

/// The zxid of epoch 1 with this counter.
pub(super) const fn zxid(counter: u32) -> Zxid {
    Zxid::new(Epoch(1), counter)
}

/// A request of the client core's connection 7.
pub(in crate::pipeline) const fn asker(xid: i32) -> Asker {
    Asker { connection: ConnectionId { core: 0, slot: 7, generation: 0 }, xid: Xid(xid) }
}

/// The record that creates `/name` in `author`, which has applied it afterwards.
pub(super) fn write_record(author: &mut Tree, zxid: Zxid, name: &str) -> Bytes {
    let path = format!("/{name}");
    let acl = Some(vec![Acl::OPEN]);
    let create = CreateRequest { path: path.into(), data: None, acl, flags: 0, ttl_ms: None };
    record(author, zxid, SessionId(9), &Request::Create(OpCode::Create, create))
}

/// A tree that takes writes of sessions that it does not know.
pub(super) fn author() -> Tree {
    Tree::new(TreeConfig { local_sessions: true, ..TreeConfig::default() })
}

fn record(author: &mut Tree, zxid: Zxid, session: SessionId, request: &Request<'_>) -> Bytes {
    let op = request.op();
    let ask = Ask { session, cxid: 1, zxid, time_ms: 1, op, request, identities: &[] };
    let mut record = Vec::new();
    author.prepare(&ask, &mut record);
    let record = record.into();
    author.apply(&record).expect("what was prepared");
    record
}

fn address(quorum_port: u16) -> Vec<PeerAddress> {
    vec![PeerAddress { host: "127.0.0.1".to_owned(), quorum_port, election_port: 0 }]
}

impl Fixture {
    /// Server 1 of three, started on a log that holds 1:1 to 1:`records`, each of which creates a node of the root.
    pub(in crate::pipeline) fn new(records: u32) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let dirs = DataDirs::new(home.path(), None);
        dirs.prepare(true).expect("its directories");
        let recovery = RecoveryOptions::default();
        recover(&dirs, &TreeConfig::default(), &recovery).expect("an empty disk");
        let (bell, bell_end) = doorbell().expect("a bell");
        let log_config =
            LogConfig { prealloc_kib: 64, writes_in_place: true, ..LogConfig::new(dirs.logs.clone()) };
        let mut author = author();
        let mut log = TxnLog::open(log_config.clone(), Zxid::ZERO, bell.wake_fd()).expect("a log");
        for counter in 1..=records {
            log.append(zxid(counter), &write_record(&mut author, zxid(counter), &counter.to_string()));
        }
        log.flush().expect("a disk");
        log.settle().expect("a disk");
        log.close().expect("a disk");

        let recovered = recover(&dirs, &TreeConfig::default(), &recovery).expect("a good log");
        assert_eq!(recovered.last, if records == 0 { Zxid::ZERO } else { zxid(records) });
        let log = TxnLog::open(log_config.clone(), recovered.last, bell.wake_fd()).expect("a log");
        let (core_bell, core_end) = doorbell().expect("a bell");
        let (asks, submissions) = lane(64, bell.clone());
        let (deliveries, told) = lane(64, core_bell);
        let other_server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = other_server.local_addr().expect("bound").port();
        let addresses = PeerAddresses::from([(ServerId(1), address(0)), (ServerId(2), address(port))]);
        let links = LinkOptions::new(ServerId(1), addresses, TICK_MS, LIMIT_TICKS, LIMIT_TICKS);
        let links = Links::open(links, &bell_end).expect("ports");
        let cfg =
            ZooCfg::standalone(Path::new("/nowhere"), 0, &JavaFlags::default()).expect("Apache's defaults");
        let board = Arc::new(Board::new(1, &cfg, 0));
        let lines = "server.1=127.0.0.1:1:2\nserver.2=127.0.0.1:3:4\nserver.3=127.0.0.1:5:6\n";
        let config = Config::new(ServerId(1), Ensemble::parse(lines).expect("good lines"));
        let tail = Tail::with_records(recovered.floor, (1..=records).map(zxid));
        let member = MemberOptions {
            config,
            recovered: Recovered { tail, accepted_epoch: None, current_epoch: None },
            log: log_config,
            tree: TreeConfig::default(),
            recovery,
            leader_serves: true,
            local_sessions: None,
            read_only: false,
            snapshot_size_factor: 0.33,
            log_files: Vec::new(),
            purged: Arc::new(PurgeMark::default()),
            board: Arc::clone(&board),
        };
        let options = PipelineOptions {
            server_id: ServerId(1),
            tick_ms: TICK_MS,
            flush_warning_ms: 1000,
            looks_out: false,
            reaping: ReapPolicy { interval_ms: 60_000, per_minute_max: 100, never_used_ms: 0 },
            snapshots: SnapshotPolicy {
                transactions: 100_000,
                log_bytes: 0,
                snapshot: SnapshotOptions::default(),
                loaded_bytes: 0,
            },
            dirs: dirs.clone(),
        };
        let lanes = vec![CoreLanes { submissions, deliveries }];
        let (tree, counters) = (recovered.tree, board.pipeline());
        let pipeline =
            Pipeline::member(options, member, links, Clock::start(), tree, log, lanes, bell, counters)
                .expect("three servers");
        let bells = [bell_end, core_end];
        Self { pipeline, dirs, told, author, other_server, _asks: asks, _bells: bells, home }
    }

    /// Its pipeline as that of a server that runs alone. The rest stays with the caller: the log's directory and the ends
    /// of the lanes.
    pub(in crate::pipeline) fn alone(&mut self) -> &mut Pipeline {
        self.pipeline.member = None;
        self.pipeline.node = Node::alone(self.pipeline.tree.last_applied());
        self.pipeline.duty = Duty::Orders;
        &mut self.pipeline
    }

    /// Logs the next `count` records, as a follower does with what its leader proposes, and makes them durable. They are
    /// not applied.
    pub(super) fn append(&mut self, count: u32) {
        for _ in 0..count {
            let last = self.pipeline.log.appended();
            let next = if last == Zxid::ZERO { zxid(1) } else { last.next().expect("few") };
            let record = write_record(&mut self.author, next, &next.counter().to_string());
            self.pipeline.carry_out(&mut vec![Effect::Append { zxid: next, record }]);
        }
        self.pipeline.log.flush().expect("a disk");
        self.pipeline.log.settle().expect("a disk");
    }

    /// A log that has used up what is reserved for it, and a helper that does nothing but what the test says.
    pub(in crate::pipeline) fn use_up_the_log(&mut self) -> Arc<Shared<Arc<SegmentFile>>> {
        let shared = Shared::new(None);
        let elsewhere = self.home.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).expect("a directory");
        let directory = LogDirectory::open(&elsewhere, Some(Durability::None)).expect("a directory");
        let mut first = Preparer::new(directory, Arc::clone(&shared), HALF_BYTES as u64)
            .first_segment(0)
            .expect("a disk");
        first.reserved_bytes = 0;
        let halves = [Half::new(HALF_BYTES).expect("memory"), Half::new(HALF_BYTES).expect("memory")];
        let (requests, _) = sync_channel(REQUESTS_MAX);
        let (bell, _bell_end) = doorbell().expect("a bell");
        let ring = Ring::in_place(bell.wake_fd()).expect("a thread");
        let last = self.pipeline.log.appended();
        self.pipeline.log = TxnLog::assemble(ring, halves, Arc::clone(&shared), requests, first, last, None);
        shared
    }

    /// Makes a session behind the log's end: the tree has it, and nobody knows when it expires.
    pub(in crate::pipeline) fn make_session(&mut self, session: SessionId, timeout_ms: i32) {
        let next = self.pipeline.tree.last_applied().next().expect("few");
        let record = record(&mut self.author, next, session, &Request::CreateSession(timeout_ms));
        self.pipeline.tree.apply(&record).expect("what was prepared");
    }

    /// Begins to take over an image of `leader`'s state, whose bytes are all there. The next
    /// [`take_image`](Pipeline::take_image) finds it.
    pub(super) fn read_image(&mut self, leader: &mut Tree) -> (LinkId, TcpStream) {
        let zxid = leader.last_applied();
        let (link, mut stream) = self.dial();
        let mut bytes = Vec::new();
        Packet::Snap { zxid }.encode(&mut bytes);
        let mut image = leader.image();
        while image.next_chunk(&mut bytes) {}
        jute::put_text(&mut bytes, SNAPSHOT_SIGNATURE);
        stream.write_all(&bytes).expect("an open connection");
        self.await_event("SNAP", |event| match event {
            Event::Packet { packet: Packet::Snap { .. }, .. } => Some(()),
            _ => None,
        });
        self.pipeline.carry_out(&mut vec![Effect::Install { link, zxid }]);
        let (sender, receiver) = &self.pipeline.the_member().images;
        let image = receiver.recv_timeout(DEADLINE).expect("the image is read");
        sender.send(image).expect("its receiver is there");
        (link, stream)
    }

    /// A link to server 2, whose other end is the test's.
    pub(super) fn dial(&mut self) -> (LinkId, TcpStream) {
        self.pipeline.links().dial(ServerId(2));
        let link = self.await_event("a link", |event| match event {
            Event::Up { link, .. } => Some(*link),
            _ => None,
        });
        let (stream, _) = self.other_server.accept().expect("a caller");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        (link, stream)
    }

    /// Looks after the links, and nothing else, until one of their events is `wanted`. The order never hears of them.
    pub(super) fn await_event<T>(&mut self, what: &str, wanted: impl Fn(&Event) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        let mut events = Vec::new();
        loop {
            let links = self.pipeline.links();
            links.flush();
            links.sleep(Duration::from_millis(100)).expect("epoll");
            links.receive(&mut events).expect("ports");
            if let Some(found) = events.iter().find_map(&wanted) {
                return found;
            }
            assert!(Instant::now() < deadline, "{what} does not come: {events:?}");
        }
    }

    /// What the core was told since it was asked last.
    pub(in crate::pipeline) fn take_told(&self) -> Vec<Delivery> {
        std::iter::from_fn(|| self.told.pop()).collect()
    }

    /// The zxids in the names of the snapshots, oldest first.
    pub(super) fn snapshots(&self) -> Vec<Zxid> {
        self.dirs.snapshots().expect("a directory").into_iter().map(|file| file.zxid).collect()
    }
}
