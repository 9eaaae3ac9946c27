//! The verbs of `zkServer.sh`: what scripts read of `start`, `stop`, `restart` and `status`, and that Debian's script
//! and zkfast stop and ask each other's servers.
//!
//! With `ZKFAST_UNDER_TEST=apache` the same expectations are held against Debian's `zkServer.sh`.

#[path = "../peers/mod.rs"]
mod peers;

use peers::{Client, DEADLINE, Kind, Settings, script, server};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Output},
};

const ZK_SERVER: &str = "/usr/share/zookeeper/bin/zkServer.sh";

/// A configuration, and the process that its pid file names, ended with the test.
struct Site {
    home: tempfile::TempDir,
    config: PathBuf,
    port: u16,
}

impl Site {
    fn new() -> Self {
        let home = peers::directory();
        let port = server::free_port();
        let config = server::write_config(home.path(), port, &Settings::default());
        Self { home, config, port }
    }

    fn pid_file(&self) -> PathBuf {
        self.home.path().join("data/zookeeper_server.pid")
    }

    fn pid(&self) -> Option<u32> {
        fs::read_to_string(self.pid_file()).ok().map(|text| text.parse().expect("a number and nothing else"))
    }

    /// Runs a verb of `kind`: exit code, standard output, standard error.
    fn verb(&self, kind: Kind, verb: &str) -> (Option<i32>, String, String) {
        let mut command = match kind {
            Kind::Zkfast => Command::new(env!("CARGO_BIN_EXE_zkfast")),
            Kind::Apache => Command::new(ZK_SERVER),
        };
        command.arg(verb).arg(&self.config).env("ZOO_LOG_DIR", self.home.path().join("logs"));
        if kind == Kind::Apache {
            // The package runs as its own user and would refuse to read another's files; the class path is its own.
            command.env("CLASSPATH", script::ZOOKEEPER_JAR).env("JVMFLAGS", "-Xmx384m -XX:+UseSerialGC");
        }
        let Output { status, stdout, stderr } = script::run(&mut command);
        (status.code(), script::text(&stdout), script::text(&stderr))
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(pid) = self.pid().filter(|pid| is_running(*pid)) {
            let _ = Command::new("/bin/kill").args(["-9", &pid.to_string()]).status();
        }
    }
}

fn is_running(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

/// `status` until it names a mode: `start` of Apache does not wait for the server to serve.
fn await_mode(site: &Site, kind: Kind) -> String {
    let deadline = std::time::Instant::now() + DEADLINE;
    loop {
        let (code, out, _) = site.verb(kind, "status");
        if code == Some(0) {
            return out;
        }
        assert!(std::time::Instant::now() < deadline, "no mode: {out}");
    }
}

/// The last line that a script would read; Debian's script prints the path of java first.
fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default()
}

/// Danger: a deployment script that parses these words takes a running server for a dead one, or starts a second.
#[test]
fn a_server_s_life_is_told_in_the_words_of_zk_server_sh() {
    let kind = Kind::under_test();
    let site = Site::new();
    let (code, out, err) = site.verb(kind, "status");
    assert_eq!((code, last_line(&out)), (Some(1), "Error contacting service. It is probably not running."));
    assert!(err.contains(&format!("Using config: {}\n", site.config.display())), "{err}");

    let (code, out, err) = site.verb(kind, "stop");
    let missing = format!(
        "Stopping zookeeper ... no zookeeper to stop (could not find file {})",
        site.pid_file().display()
    );
    assert_eq!((code, last_line(&out)), (Some(0), missing.as_str()), "{err}");

    let (code, out, err) = site.verb(kind, "start");
    assert_eq!((code, last_line(&out)), (Some(0), "Starting zookeeper ... STARTED"), "{err}");
    let pid = site.pid().expect("a pid file");
    assert!(is_running(pid));

    let out = await_mode(&site, kind);
    assert_eq!(last_line(&out), "Mode: standalone");
    let port = format!("Client port found: {}. Client address: 127.0.0.1. Client SSL: false.\n", site.port);
    assert!(out.contains(&port), "{out}");
    Client::connect(site.address(), 5_000).close();

    let (code, out, _) = site.verb(kind, "start");
    let again = format!("already running as process {pid}.");
    assert!(code == Some(1) && last_line(&out).ends_with(&again), "{code:?} {out}");

    let (code, out, err) = site.verb(kind, "restart");
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("Stopping zookeeper ... STOPPED\n"), "{out}");
    assert_eq!(last_line(&out), "Starting zookeeper ... STARTED");
    let next = site.pid().expect("a pid file");
    assert!(next != pid && !is_running(pid) && is_running(next));

    let (code, out, err) = site.verb(kind, "stop");
    assert_eq!((code, last_line(&out)), (Some(0), "Stopping zookeeper ... STOPPED"), "{err}");
    assert_eq!(site.pid(), None, "the pid file is gone");
    if kind == Kind::Apache {
        // Debian's package sets ZOO_LOG_DIR itself, and its script waits for a second only.
        return;
    }
    assert!(!is_running(next), "stop waits for the end");
    let log_dir = fs::read_dir(site.home.path().join("logs")).expect("ZOO_LOG_DIR");
    let names: Vec<_> =
        log_dir.map(|entry| entry.expect("a file").file_name().into_string().expect("a name")).collect();
    assert!(names.iter().any(|name| name.starts_with("zookeeper-") && name.ends_with(".out")), "{names:?}");
}

/// Danger: a host that is migrated cannot stop the server of the other kind, or does not see that it runs.
#[test]
fn each_kind_asks_and_stops_the_other_s_server() {
    if !Path::new(ZK_SERVER).exists() {
        panic!("{ZK_SERVER} is missing: install Debian's package zookeeper");
    }
    let site = Site::new();
    for (starter, stopper) in [(Kind::Zkfast, Kind::Apache), (Kind::Apache, Kind::Zkfast)] {
        let (code, out, err) = site.verb(starter, "start");
        assert_eq!((code, last_line(&out)), (Some(0), "Starting zookeeper ... STARTED"), "{err}");
        let pid = site.pid().expect("a pid file");
        assert_eq!(last_line(&await_mode(&site, stopper)), "Mode: standalone");
        let (code, out, _) = site.verb(stopper, "start");
        assert!(code == Some(1) && out.contains(&format!("already running as process {pid}.")), "{out}");
        let (code, out, err) = site.verb(stopper, "stop");
        assert_eq!((code, last_line(&out)), (Some(0), "Stopping zookeeper ... STOPPED"), "{err}");
        let deadline = std::time::Instant::now() + DEADLINE;
        while is_running(pid) {
            assert!(std::time::Instant::now() < deadline, "process {pid} does not end");
            // Polled: it is no child of this process, and the script waits one second only.
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// Danger: `start` says STARTED of a server that could not start, and nobody is told why.
#[test]
fn a_start_that_fails_is_not_called_started() {
    if Kind::under_test() != Kind::Zkfast {
        return;
    }
    let site = Site::new();
    fs::write(&site.config, fs::read_to_string(&site.config).expect("zoo.cfg") + "tickTime=fast\n")
        .expect("zoo.cfg");
    let (code, out, err) = site.verb(Kind::Zkfast, "start");
    assert_eq!((code, out.as_str()), (Some(1), "Starting zookeeper ... FAILED TO START\n"));
    assert!(err.contains("tickTime=fast") && err.contains(".out"), "{err}");
    assert_eq!(site.pid(), None);

    let output = script::run(Command::new(env!("CARGO_BIN_EXE_zkfast")).args(["start", "/nowhere/zoo.cfg"]));
    let err = script::text(&output.stderr);
    assert!(output.status.code() == Some(1) && err.contains("/nowhere/zoo.cfg"), "{err}");
}
