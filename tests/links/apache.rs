//! Together with Apache ZooKeeper: as its follower, its observer and its leader. The bytes on both ports are right if
//! Apache says that it leads, or follows, and if what a client writes at one server is read at another.

use crate::{
    fixture::{address, options},
    member::{Member, Report},
    peers::{
        self, Client, DEADLINE, Kind, Settings,
        server::{self, four_letter},
    },
};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Child,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use zkfast::links::PeerAddresses;
use zkfast_wire::{Ensemble, OpCode, ServerId};
use zkfast_zab::{Config, Role};

/// One ensemble at a time: two JVMs that start together take both CPUs.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const TICK_MS: u32 = 400;

/// A server of Apache's; killed when dropped.
struct Apache {
    id: i64,
    client: SocketAddr,
    child: Child,
    log: std::path::PathBuf,
}

impl Apache {
    fn mode(&self) -> Option<String> {
        // Where nobody listens yet there is nothing to wait for.
        TcpStream::connect(self.client).ok()?;
        let text = four_letter(self.client, "srvr")?;
        Some(text.lines().find_map(|line| line.strip_prefix("Mode: "))?.to_owned())
    }
}

impl Drop for Apache {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let text = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!(
                "--- Apache server {} ---\n{}",
                self.id,
                lines[lines.len().saturating_sub(60)..].join("\n")
            );
        }
    }
}

/// An ensemble on loopback; the test says who is whose.
struct Cluster {
    home: tempfile::TempDir,
    addresses: PeerAddresses,
    observer: Option<i64>,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    fn new(count: i64, observer: Option<i64>) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let addresses = (1..=count).map(|id| (ServerId(id), vec![address("127.0.0.1")])).collect();
        Self { home: peers::directory(), addresses, observer, _turn: turn }
    }

    fn lines(&self) -> Vec<String> {
        let line = |(id, addresses): (&ServerId, &Vec<zkfast::config::ensemble::PeerAddress>)| {
            let (address, role) = (&addresses[0], if self.observer == Some(id.0) { ":observer" } else { "" });
            format!("server.{id}={}:{}:{}{role}", address.host, address.quorum_port, address.election_port)
        };
        self.addresses.iter().map(line).collect()
    }

    fn apache(&self, id: i64, more: &[&str]) -> Apache {
        let home = self.home.path().join(id.to_string());
        let port = server::free_port();
        let mut lines = self.lines();
        lines.extend(["initLimit=20".to_owned(), "syncLimit=10".to_owned()]);
        lines.extend(more.iter().map(|line| (*line).to_owned()));
        let settings = Settings { tick_ms: TICK_MS, lines, ..Settings::default() };
        fs::create_dir_all(&home).expect("a home");
        let config = server::write_config(&home, port, &settings);
        fs::write(home.join("data/myid"), format!("{id}\n")).expect("myid");
        let log = home.join("log");
        let output = fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log");
        let child = server::command(Kind::Apache, &config, &settings)
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .expect("java");
        Apache { id, client: (Ipv4Addr::LOCALHOST, port).into(), child, log }
    }

    /// This project's server.
    fn member(&self, id: i64, force_snapshot: bool) -> Member {
        let mut links = options(&self.addresses, id);
        links.image_silence_limit = Duration::from_secs(8);
        let text = self.lines().join("\n");
        let ensemble = Ensemble::parse(&text).expect("good lines");
        let mut config = Config::new(ServerId(id), ensemble);
        config.tick_ms = TICK_MS.into();
        config.init_limit_ticks = 20;
        config.connect_limit_ticks = 20;
        config.sync_limit_ticks = 10;
        config.force_snapshot = force_snapshot;
        Member::start(links, config)
    }
}

fn await_that(what: &str, members: &[&Member], mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + 2 * DEADLINE;
    while !done() {
        let reports: Vec<Report> = members.iter().map(|member| member.report()).collect();
        assert!(Instant::now() < deadline, "{what} did not come about: {reports:?}");
        // Polled: another process tells nobody when it changes its role.
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is(apache: &Apache, mode: &str) -> bool {
    apache.mode().as_deref() == Some(mode)
}

/// Names below the root that a client of this server reads, once it has caught up.
fn read_names(apache: &Apache, expected: &[&str]) {
    let mut client = Client::connect(apache.client, 20_000);
    await_that("a write read elsewhere", &[], || {
        let (names, _) = client.children("/", false).expect("the root");
        expected.iter().all(|name| names.iter().any(|other| other == name))
    });
}

fn has_names(member: &Member, expected: &[&str]) -> bool {
    let names = member.report().names;
    expected.iter().all(|name| names.iter().any(|other| other == name))
}

/// Has a leader of Apache's use up a zxid; it leaves who asks without an answer, so a session of its own does.
fn use_up_zxid(leader: &Apache, client: &mut Client) {
    let mut stuck = Client::connect(leader.client, 20_000);
    let (_, mut last) = client.create("/n-", b"", 2).expect("created");
    stuck.submit(OpCode::Multi, &peers::client::multi_without_path());
    stuck.flush().expect("an open connection");
    await_that("a zxid without a transaction", &[], || {
        let (_, next) = client.create("/n-", b"", 2).expect("created");
        let has_gap = next.czxid.0 != last.czxid.0 + 1;
        last = next;
        has_gap
    });
}

/// Q72, Q73. Danger: an Apache leader does not take us for a follower, or counts an ACK of ours that it should not.
#[test]
fn as_follower_and_observer_of_apache() {
    let cluster = Cluster::new(4, Some(4));
    // The observer has the largest id and dials all; the follower has the smallest and is dialled back.
    let (second, third) = (cluster.apache(2, &[]), cluster.apache(3, &["forceSnapshotSync=true"]));
    let follower = cluster.member(1, false);
    let observer = cluster.member(4, false);
    await_that("an established leader", &[&follower, &observer], || {
        let modes = [second.mode(), third.mode()];
        modes.iter().all(Option::is_some) && modes.iter().any(|mode| mode.as_deref() == Some("leader"))
    });
    let (leader, other) = if is(&third, "leader") { (third, second) } else { (second, third) };
    let mut client = Client::connect(leader.client, 20_000);
    client.create("/a", b"1", 0).expect("created");
    let follows = |member: &Member, observes: bool| match member.report().role {
        Some(Role::Following { leader: id, active: true }) => !observes && id.0 == leader.id,
        Some(Role::Observing { leader: id, active: true }) => observes && id.0 == leader.id,
        _ => false,
    };
    await_that("a follower and an observer of ours", &[&follower, &observer], || {
        follows(&follower, false) && follows(&observer, true)
    });
    // A zxid is left out: we go on as Apache's followers do (Q50).
    use_up_zxid(&leader, &mut client);
    client.create("/b", &vec![b'x'; 200_000], 0).expect("created");
    let seen = |names: &[&str]| has_names(&follower, names) && has_names(&observer, names);
    await_that("the writes", &[&follower, &observer], || seen(&["a", "b"]));
    assert!(follower.report().acked > 0 && observer.report().acked == 0);

    // Without the other Apache a quorum is the leader and us: our ACK commits.
    drop(other);
    client.create("/c", b"3", 0).expect("created with our vote");
    await_that("the write that we committed", &[&follower, &observer], || seen(&["a", "b", "c"]));

    // Who comes anew finds the leader that is there, and is sent its history or an image.
    drop(observer);
    let observer = cluster.member(4, false);
    await_that("an observer that came late", &[&follower, &observer], || {
        follows(&observer, true) && has_names(&observer, &["a", "b", "c"])
    });
    let report = observer.report();
    assert_eq!(report.images + report.diffs, 1, "{report:?}");
    if leader.id == 3 {
        assert_eq!(report.images, 1, "forceSnapshotSync: {report:?}");
    }
}

/// Q54, Q74. Danger: Apache's followers do not take us for a leader, or read our history or image wrongly.
#[test]
fn as_leader_of_apache() {
    for force_snapshot in [false, true] {
        let cluster = Cluster::new(3, None);
        let leader = cluster.member(3, force_snapshot);
        let (first, second) = (cluster.apache(1, &[]), cluster.apache(2, &[]));
        await_that("two Apache followers", &[&leader], || is(&first, "follower") && is(&second, "follower"));
        let expected = Some(Role::Leading { established: true, synced_followers: 2 });
        await_that("both up to date", &[&leader], || leader.report().role == expected);
        let mut client = Client::connect(first.client, 20_000);
        for name in ["/a", "/b"] {
            client.create(name, &vec![b'x'; 100_000], 0).expect("created by way of us");
        }
        assert_eq!(
            client.create("/a", b"", 0).err(),
            Some(-110),
            "our error transactions are Apache's answers"
        );
        read_names(&second, &["a", "b"]);

        // One dies and comes back with what it has; one comes back with nothing.
        let back = if force_snapshot {
            drop(second);
            fs::remove_dir_all(cluster.home.path().join("2")).expect("an empty disk");
            cluster.apache(2, &[])
        } else {
            drop(second);
            client.create("/c", b"", 0).expect("created without it");
            cluster.apache(2, &[])
        };
        await_that("a follower that came back", &[&leader], || is(&back, "follower"));
        read_names(&back, if force_snapshot { &["a", "b"] } else { &["a", "b", "c"] });
        let report = leader.report();
        assert_eq!(report.images_sent, if force_snapshot { 3 } else { 0 }, "{report:?}");
        assert!(!report.troubles.iter().any(|words| words.contains("phase")), "{report:?}");
    }
}
