//! A server in the background: `start` and `stop`, the file with its process id, the file with its output.
//!
//! Files are where `zkServer.sh` has them: `$ZOOPIDFILE` or `dataDir/zookeeper_server.pid`, without a newline, so that
//! either program stops what the other has started. Output goes to `zookeeper-<user>-server-<host>.out` in
//! `$ZOO_LOG_DIR`, or in `dataDir` if that is not set.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal, test_kill_process,
};

/// `zkServer.sh` looks after a second whether the process still lives, and calls that started.
const START_WAIT: Duration = Duration::from_secs(1);

/// How long `stop` waits for the end of the process.
const STOP_WAIT_S: i64 = 20;

/// An output file that is larger than this at a start is set aside as `.1`: log lines are not thrown away, and not
/// kept for ever.
const OUTPUT_BYTES_MAX: u64 = 256 << 20;

/// What the child says on its standard output when it is up.
const STARTED: &[u8] = b"STARTED\n";

/// A server that is started and stopped in the background.
pub struct Daemon {
    config: PathBuf,
    options: Vec<OsString>,
    data_dir: PathBuf,
    log_dir: Option<PathBuf>,
    pid_file: PathBuf,
    output: PathBuf,
}

impl Daemon {
    /// Of this configuration file; `options` are further words for its command line.
    pub fn new(config: PathBuf, options: Vec<OsString>, data_dir: PathBuf, log_dir: Option<PathBuf>) -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let pid_file =
            variable("ZOOPIDFILE").map_or_else(|| data_dir.join("zookeeper_server.pid"), PathBuf::from);
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let user = variable("USER").unwrap_or_default();
        let name = format!("zookeeper-{}-server-{host}.out", user.to_string_lossy());
        let output = variable("ZOO_LOG_DIR").map_or_else(|| data_dir.clone(), PathBuf::from).join(name);
        Self { config, options, data_dir, log_dir, pid_file, output }
    }

    /// The command line of the background process, as a shell would read it.
    pub fn command_line(&self) -> String {
        let command = self.command();
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let quoted: Vec<String> = words.map(|word| format!("\"{}\"", word.to_string_lossy())).collect();
        format!("{} > \"{}\" 2>&1 < /dev/null", quoted.join(" "), self.output.display())
    }

    fn command(&self) -> Command {
        let program = std::env::current_exe().unwrap_or_else(|_| "zkfast".into());
        let mut command = Command::new(program);
        command.args(&self.options).arg("--config").arg(&self.config);
        command
    }

    /// Starts the server unless it runs. Exit code 1 if it runs or ends at once.
    pub fn start(&self) -> ExitCode {
        if !std::env::var_os("ZOO_DATADIR_AUTOCREATE_DISABLE").unwrap_or_default().is_empty() {
            let txnlog = self.log_dir.as_deref().map(|dir| ("txnlog", dir));
            for (kind, dir) in [("data", self.data_dir.as_path())].into_iter().chain(txnlog) {
                if !dir.join("version-2").is_dir() {
                    let shown = dir.display();
                    println!(
                        "ZooKeeper {kind} directory is missing at {shown} fix the path or run initialize"
                    );
                    return ExitCode::FAILURE;
                }
            }
        }
        print!("Starting zookeeper ... ");
        flush();
        if let Some(pid) = self.read_pid().filter(|pid| is_alive(*pid)) {
            println!("already running as process {pid}.");
            return ExitCode::FAILURE;
        }
        match self.spawn() {
            Ok(true) => {
                println!("STARTED");
                ExitCode::SUCCESS
            }
            Ok(false) => {
                println!("FAILED TO START");
                eprintln!("zkfast: {}", self.last_words());
                ExitCode::FAILURE
            }
            Err(error) => {
                println!("SERVER DID NOT START");
                eprintln!("zkfast: {error}");
                ExitCode::FAILURE
            }
        }
    }

    /// Is the server up, or does it still live after a second?
    fn spawn(&self) -> io::Result<bool> {
        let named = |path: &Path, error: io::Error| {
            io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()))
        };
        for path in [&self.pid_file, &self.output] {
            let dir = path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(dir).map_err(|error| named(dir, error))?;
        }
        let output = self.open_output().map_err(|error| named(&self.output, error))?;
        let mut child = self
            .command()
            .arg("--detached")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(output)
            .spawn()?;
        if let Err(error) = fs::write(&self.pid_file, child.id().to_string()) {
            // Nobody could stop it by its verb.
            child.kill()?;
            child.wait()?;
            return Err(named(&self.pid_file, error));
        }
        let is_up = wait_until_up(&mut child)?;
        if !is_up {
            fs::remove_file(&self.pid_file).map_err(|error| named(&self.pid_file, error))?;
        }
        Ok(is_up)
    }

    fn open_output(&self) -> io::Result<File> {
        if fs::metadata(&self.output).is_ok_and(|facts| facts.len() > OUTPUT_BYTES_MAX) {
            let mut aside = self.output.clone().into_os_string();
            aside.push(".1");
            fs::rename(&self.output, aside)?;
        }
        OpenOptions::new().create(true).append(true).open(&self.output)
    }

    /// Why the server ended, for whoever started it.
    fn last_words(&self) -> String {
        let text = fs::read(&self.output).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let last = text.lines().rev().find_map(|line| line.strip_prefix("zkfast: "));
        let place = self.output.display();
        last.map_or_else(|| format!("see {place}"), |line| format!("{line} (from {place})"))
    }

    /// Stops the server and waits for its end. Always exit code 0, as scripts expect of `zkServer.sh stop`.
    pub fn stop(&self) -> ExitCode {
        print!("Stopping zookeeper ... ");
        flush();
        let Ok(text) = fs::read_to_string(&self.pid_file) else {
            println!("no zookeeper to stop (could not find file {})", self.pid_file.display());
            return ExitCode::SUCCESS;
        };
        match text.trim().parse().ok().and_then(pid_of) {
            None => eprintln!("zkfast: '{}' in {} is no process id", text.trim(), self.pid_file.display()),
            Some(pid) => terminate(pid),
        }
        if let Err(error) = fs::remove_file(&self.pid_file) {
            eprintln!("zkfast: cannot remove {}: {error}", self.pid_file.display());
        }
        println!("STOPPED");
        ExitCode::SUCCESS
    }

    fn read_pid(&self) -> Option<i32> {
        fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok()
    }
}

/// A broken standard output is no reason to leave a server half started.
fn flush() {
    let _ = io::stdout().flush();
}

/// The process of this number, which is positive: 0 and below are groups of processes.
fn pid_of(number: i32) -> Option<Pid> {
    if number > 0 { Pid::from_raw(number) } else { None }
}

fn is_alive(pid: i32) -> bool {
    pid_of(pid).is_some_and(|pid| test_kill_process(pid).is_ok())
}

/// SIGTERM, and the end of the process, or a line that it is not there yet.
fn terminate(pid: Pid) {
    let shown = pid.as_raw_nonzero();
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => {
            if let Err(error) = pidfd_send_signal(&process, Signal::TERM) {
                eprintln!("zkfast: cannot stop process {shown}: {error}");
                return;
            }
            let mut wanted = [PollFd::new(&process, PollFlags::IN)];
            let limit = Timespec { tv_sec: STOP_WAIT_S, tv_nsec: 0 };
            if poll(&mut wanted, Some(&limit)) == Ok(0) {
                eprintln!("zkfast: process {shown} is still busy with its end after {STOP_WAIT_S} s");
            }
        }
        Err(_) => {
            if let Err(error) = kill_process(pid, Signal::TERM) {
                eprintln!("zkfast: cannot stop process {shown}: {error}");
            }
        }
    }
}

/// True as soon as the child says that it is up, or if it still lives after [`START_WAIT`]; false if it ended.
fn wait_until_up(child: &mut Child) -> io::Result<bool> {
    let mut words = child.stdout.take().expect("its standard output is a pipe");
    let (tell, told) = mpsc::channel();
    // Ends with the child's word, with the child, or with this process, which is about to end.
    std::thread::spawn(move || {
        let mut heard = [0; STARTED.len()];
        let is_up = words.read_exact(&mut heard).is_ok() && heard == STARTED;
        let _ = tell.send(is_up);
    });
    match told.recv_timeout(START_WAIT) {
        Ok(true) => Ok(true),
        Ok(false) => {
            child.wait()?;
            Ok(false)
        }
        Err(_) => Ok(child.try_wait()?.is_none()),
    }
}

/// Leaves the session of the terminal, so that its end is not ours.
pub fn detach() {
    if let Err(error) = rustix::process::setsid() {
        eprintln!("zkfast: cannot leave the terminal's session: {error}");
    }
}

/// Tells whoever waits in [`Daemon::start`] that the server is up.
pub fn announce(is_detached: bool) {
    if is_detached {
        // Nobody may be waiting any more.
        let _ = io::stdout().write_all(STARTED).and_then(|()| io::stdout().flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_pid_file_is_no_running_server() {
        assert!(is_alive(i32::try_from(std::process::id()).expect("a pid")));
        assert!(!is_alive(0) && !is_alive(-1) && !is_alive(i32::MAX));
    }

    #[test]
    fn a_command_line_is_printed_as_a_shell_reads_it() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let daemon =
            Daemon::new("/etc/zoo.cfg".into(), vec!["--cores".into(), "2".into()], dir.path().into(), None);
        let text = daemon.command_line();
        assert!(text.contains("\"--cores\" \"2\" \"--config\" \"/etc/zoo.cfg\" > \""), "{text}");
        assert!(text.ends_with("2>&1 < /dev/null") && text.contains("-server-"), "{text}");
    }
}
