//! An ensemble of server processes of either kind on loopback, each with a directory and ports of its own, and, if the
//! test wants to disturb it, a proxy for every directed pair of servers.

use crate::{
    peers::{
        self, Client, DEADLINE, Kind, Server, Settings,
        client::{Handshake, Refusal},
        server,
    },
    proxy::{Direction, Opening, Proxy, Way},
};
use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// tickTime of every ensemble here, milliseconds.
pub const TICK_MS: u32 = 400;

/// syncLimit in ticks: how long an isolated leader may go on.
pub const SYNC_LIMIT_TICKS: u32 = 5;

/// One ensemble at a time: each has three processes that would share two CPUs, and times are what some tests are about.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

struct Member {
    kind: Kind,
    home: PathBuf,
    client_port: u16,
    quorum_port: u16,
    election_port: u16,
    /// Of a second address in its line.
    second_ports: Option<(u16, u16)>,
    server: Option<Server>,
}

/// What a test wants of its ensemble beside the kinds.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// Servers dial each other through proxies.
    pub proxied: bool,
    /// The host of the last server's line, which then never runs.
    pub stranger: Option<&'static str>,
    /// Further lines of every zoo.cfg.
    pub lines: Vec<String>,
    /// Java's flags of every server.
    pub java_flags: Vec<String>,
    /// The last so many servers observe.
    pub observers: usize,
    /// The host of every line, if not 127.0.0.1.
    pub host: Option<&'static str>,
    /// A second address in every line, behind `|`, with ports of its own.
    pub second_host: Option<&'static str>,
    /// syncLimit, if not [`SYNC_LIMIT_TICKS`].
    pub sync_limit_ticks: Option<u32>,
    /// It runs beside others and waits for no turn.
    pub beside: bool,
    /// Where each server is, for its clients and the others, if not all are on 127.0.0.1.
    pub hosts: Vec<Ipv4Addr>,
    /// Words in front of the command of each server.
    pub launchers: Vec<Vec<String>>,
}

/// The proxies through which one server dials another, and the two directions of all their connections.
struct Pair {
    from: usize,
    to: usize,
    quorum: Proxy,
    election: Proxy,
}

/// A running ensemble. Servers are numbered from 0 here; their ids are one higher.
pub struct Cluster {
    members: Vec<Member>,
    /// By source and target: what the source sends, on connections of either side.
    ways: Vec<Vec<Arc<Direction>>>,
    pairs: Vec<Pair>,
    shape: Shape,
    /// Words in front of the command of the next server.
    launcher: Vec<String>,
    directory: tempfile::TempDir,
    is_kept: AtomicBool,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Cluster {
    /// Directories, ports and proxies of an ensemble; nothing runs yet.
    pub fn new(kinds: &[Kind], shape: Shape) -> Self {
        let turn = || ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (!shape.beside).then(turn);
        let home = peers::directory();
        let members = kinds.iter().enumerate().map(|(index, kind)| Member {
            kind: *kind,
            home: home.path().join((index + 1).to_string()),
            client_port: server::free_port(),
            quorum_port: server::free_port(),
            election_port: server::free_port(),
            second_ports: shape.second_host.map(|_| (server::free_port(), server::free_port())),
            server: None,
        });
        let members: Vec<Member> = members.collect();
        let ways = (0..kinds.len()).map(|_| (0..kinds.len()).map(|_| Direction::new()).collect()).collect();
        let mut cluster = Self {
            members,
            ways,
            pairs: Vec::new(),
            shape,
            launcher: Vec::new(),
            directory: home,
            is_kept: AtomicBool::new(false),
            _turn: turn,
        };
        if cluster.shape.proxied {
            cluster.connect();
        }
        cluster
    }

    fn connect(&mut self) {
        let count = self.members.len();
        let indexes: Vec<(usize, usize)> = (0..count)
            .flat_map(|from| (0..count).map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
            .collect();
        let listen = || {
            let port = server::free_port();
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port")
        };
        let election: Vec<TcpListener> = indexes.iter().map(|_| listen()).collect();
        let port_of = |from: usize, to: usize| {
            let place = indexes.iter().position(|pair| *pair == (from, to)).expect("a pair");
            election[place].local_addr().expect("bound").port()
        };
        let openings: Vec<Opening> =
            indexes.iter().map(|(from, to)| Opening::Election { back: port_of(*to, *from) }).collect();
        for (((from, to), election), opening) in indexes.into_iter().zip(election).zip(openings) {
            let (there, back) = (&self.ways[from][to], &self.ways[to][from]);
            let target = &self.members[to];
            self.pairs.push(Pair {
                from,
                to,
                quorum: Proxy::start(listen(), target.quorum_port, there, back, Opening::Plain),
                election: Proxy::start(election, target.election_port, there, back, opening),
            });
        }
    }

    /// An ensemble that serves: one leads, all others follow.
    pub fn start(kinds: &[Kind], shape: Shape) -> Self {
        let mut cluster = Self::new(kinds, shape);
        for index in 0..cluster.members.len() {
            cluster.launch(index);
        }
        cluster.await_all();
        cluster
    }

    /// Server lines as this server sees them: its own with the ports that it binds, the others behind their proxies.
    fn server_lines(&self, me: usize) -> Vec<String> {
        let line = |index: usize| {
            let member = &self.members[index];
            let pair = self.pairs.iter().find(|pair| (pair.from, pair.to) == (me, index));
            let (quorum, election) = pair.map_or((member.quorum_port, member.election_port), |pair| {
                (pair.quorum.port, pair.election.port)
            });
            let is_stranger = index + 1 == self.members.len();
            let own = self.shape.hosts.get(index).map(Ipv4Addr::to_string);
            let host = self.shape.host.map(str::to_owned).or(own).unwrap_or("127.0.0.1".to_owned());
            let host = self.shape.stranger.filter(|_| is_stranger).map_or(host, str::to_owned);
            let mut line = format!("server.{}={host}:{quorum}:{election}", index + 1);
            if let (Some(host), Some((quorum, election))) = (self.shape.second_host, member.second_ports) {
                line.push_str(&format!("|{host}:{quorum}:{election}"));
            }
            if self.observes(index) {
                line.push_str(":observer");
            }
            line
        };
        (0..self.members.len()).map(line).collect()
    }

    /// Starts a server that does not run, and does not wait for it.
    pub fn launch(&mut self, index: usize) {
        let mut lines = self.server_lines(index);
        lines.push("initLimit=25".to_owned());
        lines.push(format!("syncLimit={}", self.shape.sync_limit_ticks.unwrap_or(SYNC_LIMIT_TICKS)));
        lines.extend(self.shape.lines.iter().cloned());
        if self.observes(index) {
            lines.push("peerType=observer".to_owned());
        }
        if let Some(host) = self.shape.hosts.get(index) {
            lines.push(format!("clientPortAddress={host}"));
        }
        let address = self.address(index);
        let member = &mut self.members[index];
        assert!(member.server.is_none(), "server {} runs already", index + 1);
        let java_flags = self.shape.java_flags.clone();
        let own = self.shape.launchers.get(index).into_iter().flatten();
        let launcher = self.launcher.iter().chain(own).cloned().collect();
        let settings = Settings { tick_ms: TICK_MS, lines, java_flags, launcher, ..Settings::default() };
        std::fs::create_dir_all(member.home.join("data")).expect("a data directory");
        std::fs::write(member.home.join("data/myid"), format!("{}\n", index + 1)).expect("myid");
        let mut server = Server::launch(member.kind, &member.home, member.client_port, &settings);
        server.address = address;
        member.server = Some(server);
    }

    /// The same, behind a launcher that has another file system at its data directory; `myid` is the file there.
    pub fn launch_behind(&mut self, index: usize, launcher: Vec<String>, myid: &Path) {
        if !myid.exists() {
            std::fs::write(myid, format!("{}\n", index + 1)).expect("myid");
        }
        self.launcher = launcher;
        self.launch(index);
        self.launcher = Vec::new();
    }

    /// The same, with every word to the kernel written to `trace`.
    pub fn launch_traced(&mut self, index: usize, trace: &Path) {
        self.launcher = crate::trace::launcher(trace);
        self.launch(index);
        self.launcher = Vec::new();
    }

    /// Its directory, in which the data directory is.
    pub fn home(&self, index: usize) -> &Path {
        &self.members[index].home
    }

    /// What it has written to stdout and stderr in all its lives.
    pub fn log_text(&self, index: usize) -> String {
        let Member { home, client_port, .. } = &self.members[index];
        let bytes = std::fs::read(server::log_path(home, *client_port)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Where it listens for learners.
    pub fn quorum_port(&self, index: usize) -> u16 {
        self.members[index].quorum_port
    }

    /// Where it listens for votes.
    pub fn election_port(&self, index: usize) -> u16 {
        self.members[index].election_port
    }

    /// Keeps the directories of all servers beyond the end of the test, and says where they are.
    pub fn keep(&self) {
        if !self.is_kept.swap(true, Ordering::Relaxed) {
            eprintln!("kept: {}", self.directory.path().display());
        }
    }

    /// The number of servers, running or not.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// Whose server it is.
    pub fn kind(&self, index: usize) -> Kind {
        self.members[index].kind
    }

    /// From its next start on, the server is of this kind, on the same directory.
    pub fn become_kind(&mut self, index: usize, kind: Kind) {
        assert!(self.members[index].server.is_none(), "server {} runs", index + 1);
        self.members[index].kind = kind;
    }

    /// Where clients connect.
    pub fn address(&self, index: usize) -> SocketAddr {
        let host = self.shape.hosts.get(index).copied().unwrap_or(Ipv4Addr::LOCALHOST);
        SocketAddr::from((host, self.members[index].client_port))
    }

    /// Where clients of the whole ensemble connect.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        (0..self.members.len()).map(|index| self.address(index)).collect()
    }

    /// Takes a session up on this server, once it has seen what the client has: until then it says nothing (C6), and
    /// client libraries try again.
    pub fn resume(&self, index: usize, ticket: &Handshake) -> Result<Client, Refusal> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match Client::handshake(self.address(index), ticket) {
                Err(Refusal::Closed) if Instant::now() < deadline => {}
                outcome => return outcome,
            }
        }
    }

    /// A running server.
    pub fn server(&self, index: usize) -> &Server {
        self.members[index].server.as_ref().unwrap_or_else(|| panic!("server {} does not run", index + 1))
    }

    /// Does it run?
    pub fn is_running(&self, index: usize) -> bool {
        self.members[index].server.is_some()
    }

    /// Its data directory.
    pub fn data_dir(&self, index: usize) -> PathBuf {
        self.members[index].home.join("data")
    }

    /// kill -9.
    pub fn kill(&mut self, index: usize) {
        self.members[index].server.take().unwrap_or_else(|| panic!("server {} runs", index + 1)).kill();
    }

    /// SIGTERM, and the end of the process.
    pub fn stop(&mut self, index: usize) {
        self.members[index].server.take().unwrap_or_else(|| panic!("server {} runs", index + 1)).stop();
    }

    /// What every server says that it is; `None` for one that serves nobody.
    pub fn modes(&self) -> Vec<Option<String>> {
        self.members.iter().map(|member| member.server.as_ref().and_then(Server::mode)).collect()
    }

    /// The servers that say that they lead.
    pub fn leaders(&self) -> Vec<usize> {
        let modes = self.modes();
        (0..modes.len()).filter(|index| modes[*index].as_deref() == Some("leader")).collect()
    }

    /// The one leader, once there is one.
    pub fn leader(&self) -> usize {
        self.await_modes("one leader", |modes| {
            modes.iter().filter(|mode| mode.as_deref() == Some("leader")).count() == 1
        });
        self.leaders()[0]
    }

    /// Some server that runs and does not lead.
    pub fn follower(&self) -> usize {
        let leader = self.leader();
        let mut others = (0..self.size()).filter(|index| *index != leader && self.is_running(*index));
        others.next_back().expect("a second server runs")
    }

    /// Waits until one server leads and all others that run follow it, or observe.
    pub fn await_all(&self) {
        let running: Vec<usize> = (0..self.size()).filter(|index| self.is_running(*index)).collect();
        let observers = running.iter().filter(|index| self.observes(**index)).count();
        self.await_modes("a leader, followers and observers", |modes| {
            let count = |wanted: &str| modes.iter().filter(|mode| mode.as_deref() == Some(wanted)).count();
            count("leader") == 1
                && count("observer") == observers
                && count("follower") == running.len() - 1 - observers
        });
    }

    /// Whether the server has no vote.
    fn observes(&self, index: usize) -> bool {
        index + self.shape.observers >= self.size()
    }

    /// Waits until the modes of all servers are as wanted.
    pub fn await_modes(&self, what: &str, wanted: impl Fn(&[Option<String>]) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let modes = self.modes();
            if wanted(&modes) {
                return;
            }
            assert!(Instant::now() < deadline, "no {what}: {modes:?}");
            // Polled: servers tell nobody when their role changes.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Rules everything that `from` sends to `to`.
    pub fn set_way(&self, from: usize, to: usize, way: Way) {
        assert!(self.shape.proxied, "only a proxied ensemble has ways");
        self.ways[from][to].set(way);
    }

    /// Nothing between this server and all others.
    pub fn isolate(&self, index: usize) {
        for other in (0..self.size()).filter(|other| *other != index) {
            self.set_way(index, other, Way::Hold);
            self.set_way(other, index, Way::Hold);
        }
    }

    /// All directions pass.
    pub fn heal(&self) {
        for from in 0..self.size() {
            for to in 0..self.size() {
                self.set_way(from, to, Way::Pass);
            }
        }
    }

    /// Ends all connections of this server with others; what was held is lost.
    pub fn break_links(&self, index: usize) {
        for pair in self.pairs.iter().filter(|pair| pair.from == index || pair.to == index) {
            pair.quorum.break_all();
            pair.election.break_all();
        }
    }
}

/// The directories of a failed test are kept: what each server logged tells whose fault it was.
impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep();
        }
        // A server that panicked fails the test here at the latest.
        self.directory.disable_cleanup(true);
        self.members.iter_mut().for_each(|member| drop(member.server.take()));
        self.directory.disable_cleanup(self.is_kept.load(Ordering::Relaxed));
    }
}
