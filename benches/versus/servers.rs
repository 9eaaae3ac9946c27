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
/// How long it may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// Memory of the Java heap, as in the published tables.
const JAVA_HEAP: &str = "2g";

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

    fn command(&self, directory: &Path, port: u16) -> anyhow::Result<Command> {
        let data = directory.join("data");
        fs::create_dir_all(&data)?;
        match self {
            Self::Apache => {
                let config = directory.join("zoo.cfg");
                fs::write(
                    &config,
                    format!(
                        "tickTime=2000\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\n\
                         maxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=*\n",
                        data.display()
                    ),
                )?;
                let mut command = Command::new("java");
                command
                    .arg(format!("-Xmx{JAVA_HEAP}"))
                    .arg(format!("-Xms{JAVA_HEAP}"))
                    .args(["-cp", "/usr/share/java/zookeeper.jar:/usr/share/java/*"])
                    .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
                    .arg(config);
                Ok(command)
            }
            Self::Zkfast { binary, cores } => {
                let config = directory.join("zoo.cfg");
                fs::write(
                    &config,
                    format!(
                        "tickTime=2000\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\n\
                         maxClientCnxns=0\n4lw.commands.whitelist=*\nadmin.enableServer=false\n",
                        data.display()
                    ),
                )?;
                let mut command = Command::new(binary);
                command.arg("--cores").arg(cores.to_string()).arg("--config").arg(config);
                Ok(command)
            }
        }
    }
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
    directory: PathBuf,
    port: u16,
    child: Child,
}

impl Server {
    /// Starts a server on `directory` and waits until it opens sessions.
    ///
    /// # Errors
    /// If it does not within two minutes; the end of its log is in the error.
    pub fn start(make: &Make, directory: &Path, port: u16) -> anyhow::Result<Self> {
        let log = directory.join("log");
        fs::create_dir_all(directory)?;
        let began = Instant::now();
        let child = make
            .command(directory, port)?
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", make.name()))?;
        let hosts = Hosts::parse(&format!("127.0.0.1:{port}"))?;
        let mut server = Self {
            make: make.clone(),
            hosts,
            start_time: Duration::ZERO,
            directory: directory.to_owned(),
            port,
            child,
        };
        loop {
            if let Some(status) = server.child.try_wait()? {
                bail!("{} ended with {status}: {}", make.name(), tail(&log));
            }
            if let Ok(client) = Client::connect(&server.hosts.list[0], 30_000) {
                server.start_time = began.elapsed();
                client.close();
                return Ok(server);
            }
            if began.elapsed() > START_PATIENCE {
                bail!("{} does not serve after {START_PATIENCE:?}: {}", make.name(), tail(&log));
            }
            thread::sleep(Duration::from_millis(2));
        }
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
        Self::start(&self.make.clone(), &self.directory.clone(), self.port)
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
        // Already gone is fine; the directory goes with the temporary one that holds it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(8).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}
