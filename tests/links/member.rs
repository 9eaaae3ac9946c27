//! A member of an ensemble in little: the order, the links, a tree, and a log in memory that is durable at once. It
//! serves no clients; what it proves is that bytes and phases are those of Apache.

use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    io::Read,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};
use zkfast::links::{ImageEnd, LinkOptions, Links};
use zkfast_tree::{Ask, Tree, TreeConfig, image};
use zkfast_wire::{
    Decoder, Epoch, ErrorCode, OpCode, Packet, Request, Zxid, jute,
    quorum::{ForwardedRequest, SNAPSHOT_SIGNATURE},
};
use zkfast_zab::{Config, Effect, EpochFile, Event, LinkId, Node, Recovered, Role, Tail};

/// What the test sees of a member that runs.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub role: Option<Role>,
    /// The last transaction applied.
    pub applied: Zxid,
    /// Children of the root.
    pub names: Vec<String>,
    /// Images read, and sent.
    pub images: usize,
    pub images_sent: usize,
    /// Histories received: DIFF, TRUNC.
    pub diffs: usize,
    /// Zxids acknowledged while following.
    pub acked: u64,
    /// Why roles and links were given up.
    pub troubles: Vec<String>,
}

/// A member on a thread of its own.
pub struct Member {
    report: Arc<Mutex<Report>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Member {
    pub fn start(options: LinkOptions, config: Config) -> Self {
        let report = Arc::new(Mutex::new(Report::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&report), Arc::clone(&stop));
        let thread = std::thread::spawn(move || Driver::new(options, config, shared).run(&stopped));
        Self { report, stop, thread: Some(thread) }
    }

    pub fn report(&self) -> Report {
        self.report.lock().expect("the report").clone()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let outcome = self.thread.take().expect("one drop").join();
        assert!(outcome.is_ok() || std::thread::panicking(), "the member panicked");
    }
}

/// An image that was read: its bytes, and what lets the link go on.
type Image = std::io::Result<(Vec<u8>, ImageEnd)>;

struct Driver {
    links: Links,
    node: Node,
    tree: Tree,
    log: BTreeMap<Zxid, Bytes>,
    installing: Option<(Zxid, Receiver<Image>)>,
    started: Instant,
    report: Arc<Mutex<Report>>,
    _bell: UnixStream,
}

impl Driver {
    fn new(options: LinkOptions, config: Config, report: Arc<Mutex<Report>>) -> Self {
        let (bell, far) = UnixStream::pair().expect("a bell");
        let mut links = Links::open(options, &far).expect("free ports");
        let recovered =
            Recovered { tail: Tail::recovered(Zxid::ZERO), accepted_epoch: None, current_epoch: None };
        let mut effects = Vec::new();
        let node = Node::member(config, recovered, 0, &mut effects).expect("a good ensemble");
        links.flush();
        let mut driver = Self {
            links,
            node,
            tree: Tree::new(TreeConfig::default()),
            log: BTreeMap::new(),
            installing: None,
            started: Instant::now(),
            report,
            _bell: bell,
        };
        let follow_up = driver.carry_out(effects);
        driver.step_all(follow_up);
        driver
    }

    fn run(mut self, stop: &AtomicBool) {
        let mut events = Vec::new();
        while !stop.load(Ordering::Acquire) {
            self.links.flush();
            self.links.sleep(Duration::from_millis(self.node.tick_every_ms().min(20))).expect("epoll");
            self.links.receive(&mut events).expect("bound ports");
            self.install();
            events.push(Event::Tick);
            self.step_all(events.drain(..).collect());
            let mut report = self.report.lock().expect("the report");
            report.role = Some(self.node.role());
            report.applied = self.tree.last_applied();
            report.names = self.tree.node("/").expect("the root").children().map(str::to_owned).collect();
        }
    }

    fn step_all(&mut self, mut events: VecDeque<Event>) {
        while let Some(event) = events.pop_front() {
            let mut effects = Vec::new();
            let now_ms = self.started.elapsed().as_millis() as u64;
            if matches!(event, Event::Packet { packet: Packet::Diff { .. } | Packet::Trunc { .. }, .. }) {
                self.report.lock().expect("the report").diffs += 1;
            }
            self.node.step(now_ms, event, &mut effects);
            // What an effect brings about comes before anything else that has happened.
            let follow_up = self.carry_out(effects);
            for event in follow_up.into_iter().rev() {
                events.push_front(event);
            }
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) -> VecDeque<Event> {
        let mut events = VecDeque::new();
        for effect in effects {
            self.effect(effect, &mut events);
        }
        events
    }

    fn effect(&mut self, effect: Effect, events: &mut VecDeque<Event>) {
        match effect {
            Effect::Append { zxid, record } => {
                self.log.insert(zxid, record);
                events.push_back(Event::Durable { epoch: self.node.epoch(), zxid });
            }
            Effect::Commit { through } | Effect::Replay { through } => self.apply(through),
            Effect::Truncate { zxid } => {
                self.log.split_off(&Zxid(zxid.0 + 1));
                if self.tree.last_applied() > zxid {
                    self.tree = Tree::new(TreeConfig::default());
                    self.apply(zxid);
                }
                events.push_back(Event::Truncated { zxid });
            }
            Effect::Install { link, zxid } => self.begin_install(link, zxid),
            Effect::SaveEpoch { file, epoch } => events.push_back(saved(file, epoch)),
            Effect::Dial { leader } => self.links.dial(leader),
            Effect::Close { link, because } => {
                self.trouble(format!("link: {because}"));
                self.links.close(link);
            }
            Effect::Send { link, packet } => self.links.send(link, &packet),
            Effect::SendAcks { link, first, last } => {
                self.report.lock().expect("the report").acked += (last.0 - first.0 + 1) as u64;
                self.links.send_acks(link, first, last);
            }
            Effect::SendCommits { link, first, last } => self.links.send_commits(link, first, last),
            Effect::SendInforms { link, first, last } => {
                for (zxid, record) in self.log.range(first..=last) {
                    self.links.send_inform(link, *zxid, record);
                }
            }
            Effect::SendHistory { link, after, through, committed } => {
                for (zxid, record) in self.log.range(Zxid(after.0 + 1)..=through) {
                    self.links.send_proposal(link, *zxid, record);
                    if *zxid <= committed {
                        self.links.send_commits(link, *zxid, *zxid);
                    }
                }
                self.links.mark_transferred(link, through);
            }
            Effect::SendSnapshot { link, zxid } => self.send_snapshot(link, zxid),
            Effect::Notify { to, notification } => self.links.notify(to, notification),
            Effect::AnswerPing { link, zxid } => {
                self.links.send(link, &Packet::Ping { zxid, touched: Some(Bytes::new()) });
            }
            Effect::Request { link, request } => self.request(link, &request, events),
            Effect::RevalidateAsked { link, session, .. } => {
                events.push_back(Event::RevalidateAnswer { link, session, valid: true });
            }
            Effect::Look { because } => self.trouble(because.to_string()),
            Effect::Serve { .. }
            | Effect::StopServing
            | Effect::Suspend
            | Effect::Touched { .. }
            | Effect::ConfigSeen { .. } => {}
            other => panic!("nobody asked for {other:?}"),
        }
    }

    fn trouble(&self, words: String) {
        self.report.lock().expect("the report").troubles.push(words);
    }

    fn apply(&mut self, through: Zxid) {
        let after = Zxid(self.tree.last_applied().0 + 1);
        if after > through {
            return;
        }
        for record in self.log.range(after..=through).map(|(_, record)| record) {
            self.tree.apply(record).expect("a transaction");
        }
    }

    fn begin_install(&mut self, link: LinkId, zxid: Zxid) {
        let mut reader = self.links.take_image(link).expect("SNAP was the last packet");
        let (sender, receiver) = channel();
        let waker = self.links.waker();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let outcome = reader.read_to_end(&mut bytes).and_then(|_| reader.finish());
            let _ = sender.send(outcome.map(|end| (bytes, end)));
            waker.wake();
        });
        self.installing = Some((zxid, receiver));
    }

    fn install(&mut self) {
        let Some((zxid, receiver)) = &self.installing else { return };
        let Ok(outcome) = receiver.try_recv() else { return };
        let zxid = *zxid;
        self.installing = None;
        // A link that fell in the middle brings its Down.
        let Ok((bytes, end)) = outcome else { return };
        let (mut tree, used) = image::load(TreeConfig::default(), &bytes).expect("an image");
        assert_eq!(used, bytes.len(), "the reader ends where the image ends");
        tree.set_last_applied(zxid);
        self.tree = tree;
        self.log.clear();
        self.report.lock().expect("the report").images += 1;
        self.step_all(VecDeque::from([Event::Installed { zxid }]));
        self.links.resume(end);
    }

    fn send_snapshot(&mut self, link: LinkId, zxid: Zxid) {
        assert_eq!(self.tree.last_applied(), zxid, "the tree shows what it should");
        self.links.send(link, &Packet::Snap { zxid });
        let mut image = self.tree.image();
        let source = move |out: &mut Vec<u8>| {
            let more = image.next_chunk(out);
            if !more {
                jute::put_text(out, SNAPSHOT_SIGNATURE);
            }
            Ok(more)
        };
        self.links.stream(link, zxid, Box::new(source)).expect("a thread");
        self.report.lock().expect("the report").images_sent += 1;
    }

    /// What the client of a follower asks of this leader.
    fn request(&mut self, link: LinkId, asked: &ForwardedRequest, events: &mut VecDeque<Event>) {
        if asked.op == ForwardedRequest::SYNC {
            events.push_back(Event::Sync { link });
            return;
        }
        let Some(zxid) = self.node.next_zxid() else { return };
        let time_ms = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_millis() as i64;
        let op = OpCode::from_i32(asked.op).expect("an operation");
        let mut record = Vec::new();
        match Request::decode(op, &mut Decoder::new(&asked.body)) {
            Ok(request) => {
                let ask = Ask {
                    session: asked.session,
                    cxid: asked.cxid,
                    zxid,
                    time_ms,
                    op,
                    request: &request,
                    identities: &asked.identities,
                };
                self.tree.prepare(&ask, &mut record);
            }
            Err(_) => {
                let code = ErrorCode::MARSHALLING_ERROR;
                self.tree.prepare_error(asked.session, asked.cxid, zxid, time_ms, code, &mut record);
            }
        }
        // At once, for the next request must not be given the same zxid.
        self.step_all(VecDeque::from([Event::Submit { zxid, record: record.into() }]));
    }
}

fn saved(file: EpochFile, epoch: Epoch) -> Event {
    Event::EpochSaved { file, epoch }
}
