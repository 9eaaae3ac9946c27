//! A server without file descriptors: clients cannot use up those of the log and the snapshots, and if there are none for
//! another reason, the server waits for some (row R6).

use super::{
    peers::{self, Client, Kind, Server, Settings},
    raise_own_file_limit,
};
use std::{
    net::TcpStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

const VALUE_BYTES: usize = 256 << 10;
/// Together more than a segment of 8 MiB.
const VALUES: usize = 48;

/// Snapshots, and with them changes of segments, after few transactions.
fn settings(open_files_limit: Option<u32>) -> Settings {
    let lines = vec!["preAllocSize=8192".into(), "maxClientCnxns=0".into()];
    Settings { open_files_limit, snap_count: 20, lines, ..Settings::default() }
}

fn fill_a_segment(client: &mut Client, prefix: &str) {
    let value = vec![b'v'; VALUE_BYTES];
    for index in 0..VALUES {
        client.create(&format!("/{prefix}-{index}"), &value, 0).expect("a write beside the siege");
    }
}

fn all_are_there(client: &mut Client, prefix: &str) {
    for index in 0..VALUES {
        client.exists(&format!("/{prefix}-{index}"), false).expect("acknowledged");
    }
}

/// Files of the data directory whose names begin with `prefix`.
fn count(home: &Path, prefix: &str) -> usize {
    let entries = std::fs::read_dir(home.join("data/version-2")).expect("the data directory");
    entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).count()
}

/// Waits until there are more files of this name than `before`.
fn await_more(home: &Path, prefix: &str, before: usize, mut meanwhile: impl FnMut()) {
    let deadline = Instant::now() + peers::DEADLINE;
    while count(home, prefix) <= before {
        assert!(Instant::now() < deadline, "no new {prefix}* appears");
        meanwhile();
        // Polled: files make no noise.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Danger: silent connections take every descriptor; then the next segment of the log and every snapshot fail, and the
/// server ends.
#[test]
fn a_siege_leaves_the_log_its_descriptors() {
    if Kind::under_test() != Kind::Zkfast {
        return;
    }
    raise_own_file_limit();
    let home = peers::directory();
    let settings = settings(Some(300));
    let server = Server::start(Kind::Zkfast, home.path(), &settings);
    let mut client = server.client(10_000);
    let mut besiegers: Vec<TcpStream> = Vec::new();
    for _ in 0..500 {
        let besieger = TcpStream::connect_timeout(&server.address, Duration::from_millis(200));
        besiegers.extend(besieger.ok());
    }
    server.await_log(&["Refusing", "limit on open files", "ulimit -n"]);
    let snapshots = count(home.path(), "snapshot.");
    fill_a_segment(&mut client, "besieged");
    await_more(home.path(), "snapshot.", snapshots, || {});
    let text = server.log_text();
    assert!(!text.contains("Too many open files"), "{text}");
    drop(besiegers);
    server.kill();
    let server = Server::start(Kind::Zkfast, home.path(), &settings);
    all_are_there(&mut server.client(10_000), "besieged");
}

/// Danger: a moment without descriptors, whoever took them, ends the server with the advice to look at the disk.
#[test]
fn without_descriptors_writes_go_on_and_the_rest_waits() {
    if Kind::under_test() != Kind::Zkfast {
        return;
    }
    let home = peers::directory();
    let settings = settings(None);
    let mut server = Server::start(Kind::Zkfast, home.path(), &settings);
    let mut client = server.client(10_000);
    let limit = |limit: &str| {
        let pid = server.pid().to_string();
        let done = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={limit}:")]).status();
        assert!(done.is_ok_and(|status| status.success()), "prlimit limits a process of our own");
    };
    // What is open stays open; nothing more can be opened.
    limit("3");
    let snapshots = count(home.path(), "snapshot.");
    fill_a_segment(&mut client, "short");
    // One segment may have been on its way before the limit: then another write uses it, and the next one is missed.
    let deadline = Instant::now() + peers::DEADLINE;
    while !server.log_text().contains("no file descriptor for the next segment") {
        assert!(Instant::now() < deadline, "the next segment is missed: {}", server.log_text());
        client.set("/short-0", b"another write", -1).expect("writes go on");
        // Polled: a log makes no noise.
        std::thread::sleep(Duration::from_millis(20));
    }
    server.await_log(&["no file descriptor for the next segment", "ulimit -n"]);
    server.await_log(&["snapshot.", "It is tried again", "ulimit -n"]);
    fill_a_segment(&mut client, "still-short");
    let text = server.log_text();
    let said = text.lines().filter(|line| line.contains("no file descriptor for the next segment")).count();
    assert_eq!(said, 1, "said once: {text}");
    assert_eq!(count(home.path(), "snapshot."), snapshots);

    // Nobody writes: the failed snapshot is made up for all the same.
    let segments = count(home.path(), "log.");
    limit("1000");
    await_more(home.path(), "snapshot.", snapshots, || client.ping());
    fill_a_segment(&mut client, "after");
    await_more(home.path(), "log.", segments, || {});
    assert!(server.is_running());
    server.kill();
    let server = Server::start(Kind::Zkfast, home.path(), &settings);
    for prefix in ["short", "still-short", "after"] {
        all_are_there(&mut server.client(10_000), prefix);
    }
}
