//! The two shells that operators use: Apache's zkCli and the C client's `cli_mt`.

use super::peers::{DEADLINE, script};
use std::{
    collections::HashMap,
    io::{Read, Write},
    process::{Command, Stdio},
    sync::mpsc,
    time::Instant,
};

const ZK_CLI_COMMANDS: &str = "\
create /cli hello
create -s /cli/s- x
create -e /cli/e x
create -e -s /cli/es- x
create -c /cli/c
create -t 3600000 /cli/ttl x
create -s -t 3600000 /cli/ttl- x
create -t 0 /cli/never x
create -e -t 1000 /cli/never x
stat /cli/ttl
create /cli/no/parent
create /cli again
get /cli
get -s /cli
get /missing
ls /
ls -s /cli
ls -R /cli
stat /cli
stat /missing
set /cli you
set -s /cli them
set -v 7 /cli us
get -s /cli
delete -v 9 /cli/c
delete /cli
delete /cli/c
delete /cli/ttl
getAcl /cli
addauth digest carol:pw
setAcl /cli auth::cdrwa
getAcl -s /cli
whoami
getEphemerals
getEphemerals /cli/es
getAllChildrenNumber /cli
setquota -n 10 /cli
listquota /cli
delquota /cli
stat -w /cli
set /cli fired
addWatch -m PERSISTENT /cli
create /cli/w
removewatches /cli
sync /cli
config
deleteall /cli
ls /
close
quit
";

/// What zkCli prints for a fixed list of commands. Session ids are named, times are left out; transaction ids stay,
/// since the server is new.
pub fn zk_cli(address: &str) -> String {
    let words = script::java_words(&["org.apache.zookeeper.ZooKeeperMain", "-server", address]);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    let output = script::run_with_input(&mut command, ZK_CLI_COMMANDS);
    let mut text = script::text(&output.stdout);
    // Errors are printed on stderr, among the client's log lines.
    let log = |line: &&str| {
        !line.starts_with('[')
            && !line.starts_with('\t')
            && !line.contains("SLF4J")
            && !line.contains("Exception:")
    };
    let errors: Vec<String> = script::text(&output.stderr).lines().filter(log).map(String::from).collect();
    text.push_str("--- stderr\n");
    text.push_str(&errors.join("\n"));
    let mut owners = HashMap::new();
    let mut events = Vec::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        // The watcher's thread prints when it likes: its lines are compared apart from the answers.
        if line.starts_with("WatchedEvent") {
            // The last one comes from the client itself, which may have ended before it prints it.
            if !line.contains("state:Closed") {
                events.push(line.to_owned());
            }
        } else if let Some(owner) = line.strip_prefix("ephemeralOwner = ") {
            let count = owners.len();
            let number =
                if owner == "0x0" { 0 } else { *owners.entry(owner.to_owned()).or_insert(count + 1) };
            lines.push(format!("ephemeralOwner = {number}"));
        } else if !line.trim().is_empty()
            && !["ctime", "mtime", "WATCHER", "Connecting to"].iter().any(|word| line.starts_with(word))
        {
            lines.push(line.to_owned());
        }
    }
    // whoami's lines: identities have no order.
    for pair in 1..lines.len() {
        if lines[pair - 1].starts_with("ip: ") && lines[pair].starts_with("digest: ") {
            lines.swap(pair - 1, pair);
        }
    }
    lines.push("--- events".into());
    lines.extend(events);
    lines.join("\n")
}

const CLI_MT_COMMANDS: &[&str] = &[
    "create /c",
    "create +e /c/e",
    "create +s /c/s-",
    "create +es /c/es-",
    "create +c /c/container",
    "create +t=3600000 /c/ttl",
    "create +st=3600000 /c/ttl-",
    "create2 +e /c/two-e",
    "create2 /c/two",
    "create2 +s /c/two-",
    "create /c",
    "create /no/parent",
    "create /c/e/child",
    "set /c hello",
    "get /c",
    "get /missing",
    "exists /c",
    "exists /missing",
    "stat /c",
    "ls /c",
    "ls2 /c",
    "wexists /c/new",
    "create /c/new",
    "wexists /c/new",
    "set /c/new data",
    "wexists /c/new",
    "delete /c/new",
    "sync /c",
    "delete /missing",
    "delete /c",
    "delete /c/two",
    "addauth digest dave:pw",
    "aget /c",
    "als /c",
    "aset /c again",
    "acreate /c/async",
    "config",
];

/// What the C client's shell prints, command by command.
///
/// Its calls answer on another thread. After each command a question about a node named for that command is asked:
/// answers come in the order of the requests, so once that answer is printed the command's own is too.
pub fn cli_mt(address: &str) -> String {
    let mut child = Command::new(script::CLI_MT)
        .args(["-h", address])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{}: {error}: install Debian's package zookeeper-bin", script::CLI_MT)
        });
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut stderr = child.stderr.take().expect("a pipe");
    let (sender, receiver) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = stderr.read(&mut chunk) {
            if sender.send(chunk[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    let mut seen = String::new();
    let mut lines = Vec::new();
    let mut wait_for = |mark: &str| -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(at) = seen.find(mark) {
                let before = seen[..at].to_owned();
                seen.drain(..at + mark.len());
                return before;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let chunk = receiver
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("cli_mt never printed {mark:?}: {seen}"));
            seen.push_str(&script::text(&chunk));
        }
    };
    wait_for("Got a new session id: ");
    for (index, command) in CLI_MT_COMMANDS.iter().enumerate() {
        // One write: the shell mistreats a line that arrives in pieces.
        let text = format!("{command}\nget /fence-{index}-\n");
        stdin.write_all(text.as_bytes()).expect("cli_mt reads");
        let answer = wait_for(&format!("/fence-{index}-: rc = -101"));
        // The rest of the fence's own answer: the next command must not be printed into it.
        wait_for("Stat:\nnull\n");
        lines.push(format!("> {command}"));
        let mut names = Vec::new();
        for line in answer.lines() {
            let line = line.trim();
            if line.starts_with("time = ") || line.starts_with("0x") || line.is_empty() {
                continue;
            }
            if let Some(stat) = normal_stat(line) {
                lines.push(stat);
            } else if ["ls", "ls2", "als"].contains(&command.split(' ').next().unwrap_or("")) {
                // Children come in no order.
                names.push(line.to_owned());
            } else {
                lines.push(line.to_owned());
            }
        }
        names.sort_unstable();
        lines.extend(names);
    }
    writeln!(stdin, "quit").expect("cli_mt reads");
    drop(stdin);
    let status = super::peers::server::wait(&mut child, DEADLINE).expect("cli_mt quits");
    reader.join().expect("the reader of its stderr");
    lines.push(format!("status {status}"));
    lines.join("\n")
}

/// `ctime = ...`, `mtime = ...` and the owner's id differ between two servers; the rest of a stat must not.
fn normal_stat(line: &str) -> Option<String> {
    let (name, value) = line.split_once(" = ").or_else(|| line.split_once('='))?;
    match name.trim() {
        "ctime" | "mtime" => Some(format!("{} = a time", name.trim())),
        "ephemeralOwner" if value.trim() != "0" => Some("ephemeralOwner = a session".into()),
        _ => None,
    }
}
