//! A server process of either kind, on loopback and on a free port, from start to its end.
//!
//! Both kinds read the same zoo.cfg. Readiness is an answer to `srvr` with a mode in it, since that is the one sign
//! that both give; the end is the end of the process.

use super::{Client, DEADLINE};
use std::{
    fmt::Write as _,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

/// Whose server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Apache ZooKeeper 3.8.0, Debian's package `zookeeper`.
    Apache,
    /// The binary of this package.
    Zkfast,
}

impl Kind {
    /// The server that the tests are about: zkfast, unless the environment asks for Apache (see the module above).
    pub fn under_test() -> Self {
        match std::env::var("ZKFAST_UNDER_TEST").as_deref() {
            Ok("apache") => Self::Apache,
            Ok("zkfast") | Err(_) => Self::Zkfast,
            Ok(other) => panic!("ZKFAST_UNDER_TEST is {other:?}: apache and zkfast are known"),
        }
    }
}

/// What a test wants from its server; the rest of the configuration is the same for all.
#[derive(Clone, Debug)]
pub struct Settings {
    /// tickTime in milliseconds; sessions may be 2 to 20 ticks long.
    pub tick_ms: u32,
    /// Transactions between snapshots.
    pub snap_count: u32,
    /// Cores of a zkfast server; always `--overprovisioned`.
    pub cores: u32,
    /// Further lines of zoo.cfg.
    pub lines: Vec<String>,
    /// Java's flags, `-Dname=value`; zkfast reads them in `SERVER_JVMFLAGS`.
    pub java_flags: Vec<String>,
    /// Limit of open files, if the test wants one.
    pub open_files_limit: Option<u32>,
    /// Words in front of the server's command: a program that makes an environment and becomes the server (exec).
    pub launcher: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tick_ms: 500,
            snap_count: 100_000,
            cores: 2,
            lines: Vec::new(),
            java_flags: Vec::new(),
            open_files_limit: None,
            launcher: Vec::new(),
        }
    }
}

/// A running server. Dropping it kills it; its log is shown if the test is failing. A server that panicked fails the test,
/// however it ends.
pub struct Server {
    /// Whose.
    pub kind: Kind,
    /// Where it listens.
    pub address: SocketAddr,
    log: PathBuf,
    /// Where its words begin in that file, behind those of who listened there before, in bytes.
    log_begin: usize,
    child: Child,
}

static PORT_NEXT: AtomicU16 = AtomicU16::new(0);

/// A port that nobody listens on, below the range from which the kernel gives ports to outgoing connections.
///
/// Two test processes start at different places of the range; a clash shows as "port taken" at the bind below.
pub fn free_port() -> u16 {
    const LOWEST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    let start = (std::process::id() % 199) as u16 * 100;
    for _ in 0..COUNT {
        let port = LOWEST + (start + PORT_NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on loopback");
}

/// The zoo.cfg that both kinds are started with, written into `home`; the data directory is `home/data`.
pub fn write_config(home: &Path, port: u16, settings: &Settings) -> PathBuf {
    let data = home.join("data");
    fs::create_dir_all(&data).expect("the data directory");
    let mut text = String::new();
    let lines = [
        format!("tickTime={}", settings.tick_ms),
        format!("dataDir={}", data.display()),
        format!("clientPort={port}"),
        "clientPortAddress=127.0.0.1".into(),
        format!("snapCount={}", settings.snap_count),
        "preAllocSize=1024".into(),
        "admin.enableServer=false".into(),
        "4lw.commands.whitelist=*".into(),
        "maxClientCnxns=0".into(),
    ];
    for line in lines.iter().chain(&settings.lines) {
        writeln!(text, "{line}").expect("a String takes everything");
    }
    let path = home.join(format!("zoo-{port}.cfg"));
    fs::write(&path, text).expect("zoo.cfg");
    path
}

/// Where the words of a server in `home` are that listens on `port`, of whatever kind it was.
pub fn log_path(home: &Path, port: u16) -> PathBuf {
    home.join(format!("server-{port}.log"))
}

/// The command that starts a server of `kind` with `config`, without its outputs.
pub fn command(kind: Kind, config: &Path, settings: &Settings) -> Command {
    let mut words: Vec<String> = match kind {
        Kind::Apache => {
            let mut words = super::script::java_words(&["org.apache.zookeeper.server.quorum.QuorumPeerMain"]);
            drop(words.splice(1..1, settings.java_flags.iter().cloned()));
            words
        }
        Kind::Zkfast => {
            let cores = settings.cores.to_string();
            [env!("CARGO_BIN_EXE_zkfast"), "--cores", &cores, "--overprovisioned"].map(String::from).to_vec()
        }
    };
    words.push(config.display().to_string());
    words.splice(0..0, settings.launcher.iter().cloned());
    let mut command = match settings.open_files_limit {
        None => Command::new(&words[0]),
        Some(limit) => {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")]).arg(&words[0]);
            shell
        }
    };
    command.args(&words[1..]).stdin(Stdio::null());
    if kind == Kind::Zkfast && !settings.java_flags.is_empty() {
        command.env("SERVER_JVMFLAGS", settings.java_flags.join(" "));
    }
    command
}

impl Server {
    /// Starts a server on `home/data` and waits until it serves.
    pub fn start(kind: Kind, home: &Path, settings: &Settings) -> Self {
        let server = Self::spawn(kind, home, free_port(), settings);
        server.ready()
    }

    /// Starts a server on a port that the test chose, and waits until it serves.
    pub fn start_at(kind: Kind, home: &Path, port: u16, settings: &Settings) -> Self {
        Self::spawn(kind, home, port, settings).ready()
    }

    /// Starts a server in an environment in which it may find that it cannot serve: its exit status and words then.
    pub fn start_or_refuse(
        kind: Kind,
        home: &Path,
        settings: &Settings,
    ) -> Result<Self, (ExitStatus, String)> {
        Self::spawn(kind, home, free_port(), settings).ready_or_ended()
    }

    /// Starts a server on a port that the test chose and does not wait: a member of an ensemble serves once a quorum of
    /// them runs.
    pub fn launch(kind: Kind, home: &Path, port: u16, settings: &Settings) -> Self {
        Self::spawn(kind, home, port, settings)
    }

    /// Starts a server and kills it after `life`, whatever it is doing then.
    pub fn start_and_kill(kind: Kind, home: &Path, settings: &Settings, life: Duration) {
        let server = Self::spawn(kind, home, free_port(), settings);
        // Nothing is polled or awaited: this is the instant of the kill.
        std::thread::sleep(life);
        server.kill();
    }

    fn spawn(kind: Kind, home: &Path, port: u16, settings: &Settings) -> Self {
        let config = write_config(home, port, settings);
        let log = log_path(home, port);
        let output = fs::OpenOptions::new().create(true).append(true).open(&log).expect("the server's log");
        let log_begin = output.metadata().expect("the length of the log").len() as usize;
        let child = command(kind, &config, settings)
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start a {kind:?} server: {error}"));
        Self { kind, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), log, log_begin, child }
    }

    fn ready(self) -> Self {
        let kind = self.kind;
        self.ready_or_ended().unwrap_or_else(|(status, text)| {
            panic!("the {kind:?} server ended before it served: {status}\n{text}")
        })
    }

    fn ready_or_ended(mut self) -> Result<Self, (ExitStatus, String)> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            // Apache leaves some connections that come while it starts without an answer: ask again soon.
            let answer = four_letter_within(self.address, "srvr", Duration::from_millis(500));
            if answer.is_some_and(|text| text.contains("\nMode: ")) {
                return Ok(self);
            }
            if let Some(status) = self.child.try_wait().expect("the state of a child") {
                return Err((status, self.log_text()));
            }
            assert!(
                Instant::now() < deadline,
                "the {:?} server does not serve\n{}",
                self.kind,
                self.log_text()
            );
            // Polled: the kernel tells nobody that a port opened.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A new session of `timeout_ms` with this server.
    pub fn client(&self, timeout_ms: i32) -> Client {
        Client::connect(self.address, timeout_ms)
    }

    /// The answer to a four-letter word, sent as `nc` sends it: the sending side is closed first (O124).
    pub fn four_letter(&self, word: &str) -> Option<String> {
        four_letter(self.address, word)
    }

    /// One value of `mntr`.
    pub fn monitor(&self, key: &str) -> Option<String> {
        let text = self.four_letter("mntr")?;
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('\t').map(String::from))
    }

    /// kill -9, and the end of the process.
    pub fn kill(mut self) {
        self.child.kill().expect("kill -9");
        self.child.wait().expect("the end of a killed server");
    }

    /// SIGTERM, and the exit status.
    pub fn stop(mut self) -> ExitStatus {
        terminate(&self.child);
        wait(&mut self.child, DEADLINE).unwrap_or_else(|| {
            panic!("the {:?} server ignores SIGTERM for {DEADLINE:?}\n{}", self.kind, self.log_text())
        })
    }

    /// The exit status of a server that should end by itself.
    pub fn ended(&mut self) -> ExitStatus {
        wait(&mut self.child, DEADLINE).unwrap_or_else(|| panic!("the {:?} server goes on", self.kind))
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the state of a child").is_none()
    }

    /// What it says that it is (`Mode:` of `srvr`): `None` while it serves nobody.
    pub fn mode(&self) -> Option<String> {
        let answer = four_letter_within(self.address, "srvr", Duration::from_millis(500))?;
        answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::to_owned)
    }

    /// Stops the process where it is (SIGSTOP), or lets it go on (SIGCONT).
    pub fn freeze(&self, is_frozen: bool) {
        send(&self.child, if is_frozen { "STOP" } else { "CONT" });
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a running server");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("KiB")
    }

    /// Waits for a line of this life that has all of these words: lines are written behind the answers.
    pub fn await_log(&self, words: &[&str]) {
        let deadline = Instant::now() + DEADLINE;
        while !self.log_text().lines().any(|line| words.iter().all(|word| line.contains(word))) {
            assert!(Instant::now() < deadline, "no line has {words:?}:\n{}", self.log_text());
            // Polled: the server tells nobody when a line is in the file.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Everything that the server wrote to stdout and stderr since this start. What it said in earlier lives is in the
    /// file at [`log_path`], and proves nothing of this one.
    pub fn log_text(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.log_begin..).unwrap_or_default()).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let text = self.log_text();
            let start = text.len().saturating_sub(8_000);
            let start = (start..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
            eprintln!(
                "--- end of the log of the {:?} server on {} ---\n{}",
                self.kind,
                self.address,
                &text[start..]
            );
        } else {
            // A panic in one thread need not show in what the others answer.
            let text = self.log_text();
            assert!(
                !text.contains("panicked at"),
                "the {:?} server on {} panicked ({}):\n{text}",
                self.kind,
                self.address,
                self.log.display()
            );
        }
    }
}

/// The answer of whoever listens on `address` to a four-letter word; `None` if nobody does or it is cut off.
pub fn four_letter(address: SocketAddr, word: &str) -> Option<String> {
    four_letter_within(address, word, DEADLINE)
}

/// The same with a limit on each wait.
pub fn four_letter_within(address: SocketAddr, word: &str, limit: Duration) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(limit)).expect("a read timeout");
    stream.write_all(word.as_bytes()).ok()?;
    stream.shutdown(Shutdown::Write).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// SIGTERM to a child that has not been waited for, so that its pid is still its own.
pub fn terminate(child: &Child) {
    send(child, "TERM");
}

fn send(child: &Child, signal: &str) {
    let status = Command::new("/bin/sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status();
    assert!(status.is_ok_and(|status| status.success()), "SIG{signal} to {}", child.id());
}

/// Waits for the end of a child, at most `limit`.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("the state of a child") {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        // Polled: std has no wait with a limit, and a helper thread per wait would outlive the test.
        std::thread::sleep(Duration::from_millis(2));
    }
}
