//! Starting and stopping the servers that are compared, each on its own port and directory.

use anyhow::{Context, bail};
use loadgen::{client::Client, hosts::Hosts};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a server may take to serve, with a million nodes to load.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// How long one try at a handshake may take: a server that loads its data accepts connections and forgets some of them.
pub const ANSWER_PATIENCE: Duration = Duration::from_millis(250);
/// How long it may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// Memory of the Java heap of a server alone, as in the published tables.
const JAVA_HEAP: &str = "2g";
/// The same of each of three servers on one machine.
const JAVA_HEAP_OF_MEMBER: &str = "800m";

/// Which server.
#[derive(Clone, Debug)]
pub enum Make {
    /// Apache ZooKeeper of Debian's package `zookeeper`.
    Apache,
    /// A zkfast binary and how many cores it gets.
    Zkfast {
        /// Path of the binary.
        binary: PathBuf,
        /// `--cores`.
        cores: usize,
    },
}

impl Make {
    /// The name in the tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Apache => "Apache",
            Self::Zkfast { .. } => "zkfast",
        }
    }

    /// Whether it can be started here.
    ///
    /// # Errors
    /// That say what to install or build.
    pub fn check(&self) -> anyhow::Result<()> {
        match self {
            Self::Apache if !Path::new("/usr/share/java/zookeeper.jar").exists() => {
                bail!("Apache ZooKeeper is not installed; run: apt-get install zookeeper")
            }
            Self::Zkfast { binary, .. } if !binary.exists() => {
                bail!("{} is not there; run: cargo build --release", binary.display())
            }
            _ => Ok(()),
        }
    }

    fn command(&self, place: &Place) -> anyhow::Result<Command> {
        let Place { directory, port, member } = place;
        let data = directory.join("data");
        fs::create_dir_all(&data)?;
        let mut text = format!(
            "tickTime=2000\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nmaxClientCnxns=0\n\
             admin.enableServer=false\n4lw.commands.whitelist=*\n",
            data.display()
        );
        if let Some(member) = member {
            fs::write(data.join("myid"), format!("{}\n", member.id))?;
            text += "initLimit=10\nsyncLimit=5\n";
            text += &member.server_lines;
        }
        let config = directory.join("zoo.cfg");
        fs::write(&config, text)?;
        match self {
            Self::Apache => {
                let heap = if member.is_some() { JAVA_HEAP_OF_MEMBER } else { JAVA_HEAP };
                let mut command = Command::new("java");
                command
                    .args([format!("-Xmx{heap}"), format!("-Xms{heap}")])
                    .args(["-cp", "/usr/share/java/zookeeper.jar:/usr/share/java/*"])
                    .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
                    .arg(config);
                Ok(command)
            }
            Self::Zkfast { binary, cores } => {
                let mut command = Command::new(binary);
                command.arg("--cores").arg(cores.to_string());
                if member.is_some() {
                    command.arg("--overprovisioned");
                }
                command.arg(config);
                Ok(command)
            }
        }
    }
}

/// Where a server runs.
#[derive(Clone, Debug)]
pub struct Place {
    /// Of its configuration, data and log.
    pub directory: PathBuf,
    /// For clients.
    pub port: u16,
    /// What it is in an ensemble, if it is in one.
    pub member: Option<Member>,
}

/// A member of an ensemble.
#[derive(Clone, Debug)]
pub struct Member {
    /// `myid`.
    pub id: u8,
    /// The lines `server.N=...` of all members.
    pub server_lines: String,
}

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    /// Which one.
    pub make: Make,
    /// How to reach it.
    pub hosts: Hosts,
    /// From the start of the process to the first answered handshake.
    pub start_time: Duration,
    place: Place,
    began: Instant,
    child: Child,
}

impl Server {
    /// Starts a server on `directory` and waits until it opens sessions.
    ///
    /// # Errors
    /// If it does not within two minutes; the end of its log is in the error.
    pub fn start(make: &Make, directory: &Path, port: u16) -> anyhow::Result<Self> {
        let mut server = Self::spawn(make, Place { directory: directory.to_owned(), port, member: None })?;
        server.wait()?;
        Ok(server)
    }

    /// Starts a server and does not wait for it.
    ///
    /// # Errors
    /// If there is no such program, or its directory cannot be written to.
    pub fn spawn(make: &Make, place: Place) -> anyhow::Result<Self> {
        fs::create_dir_all(&place.directory)?;
        let log = place.log();
        let began = Instant::now();
        let child = make
            .command(&place)?
            .current_dir(&place.directory)
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", make.name()))?;
        let hosts = Hosts::parse(&format!("127.0.0.1:{}", place.port))?;
        Ok(Self { make: make.clone(), hosts, start_time: Duration::ZERO, place, began, child })
    }

    /// Waits until it opens sessions.
    ///
    /// # Errors
    /// If it does not within two minutes; the end of its log is in the error.
    pub fn wait(&mut self) -> anyhow::Result<()> {
        let waiting = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {}", self.make.name(), tail(&self.place.log()));
            }
            if let Ok(client) = Client::connect_within(&self.hosts.list[0], 30_000, ANSWER_PATIENCE) {
                self.start_time = self.began.elapsed();
                client.close();
                return Ok(());
            }
            if waiting.elapsed() > START_PATIENCE {
                bail!(
                    "{} does not serve after {START_PATIENCE:?}: {}",
                    self.make.name(),
                    tail(&self.place.log())
                );
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// `kill -9`, and a new process on the same data, which is not waited for.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn_again(mut self) -> anyhow::Result<Self> {
        self.kill();
        Self::spawn(&self.make.clone(), self.place.clone())
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops the process in an orderly way and starts it again on the same data.
    ///
    /// # Errors
    /// If it does not stop or start.
    pub fn restart(mut self) -> anyhow::Result<Self> {
        self.terminate()?;
        let mut again = Self::spawn(&self.make.clone(), self.place.clone())?;
        again.wait()?;
        Ok(again)
    }

    /// Halts the process, so that it takes no CPU time while the other is measured.
    pub fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Lets it run again.
    pub fn resume(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        // A process that has ended shows at the next use of the server.
        let _ = rustix::process::kill_process(pid.expect("a child has a pid"), signal);
    }

    fn terminate(&mut self) -> anyhow::Result<()> {
        self.resume();
        self.signal(rustix::process::Signal::TERM);
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            if began.elapsed() > STOP_PATIENCE {
                bail!("{} does not stop", self.make.name());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The directory goes with the temporary one that holds it.
        self.kill();
    }
}

impl Place {
    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(8).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}
