//! A disk that is full or broken: what was acknowledged stays, what cannot be kept is refused, and the server says so.
//!
//! Apache ends with an exception where zkfast refuses writes, so these do not run against Apache.

use super::{
    peers::{self, Client, Handshake, Kind, Refusal, Server, Settings, client},
    small_disk::{Medium, SmallDisk},
};
use std::{
    process::Command,
    time::{Duration, Instant},
};
use zkfast_wire::{Acl, ErrorCode, OpCode};

/// Two segments of the log, each of 8 MiB, two files that take room and give it back, and some to roll.
const DISK_MEBIBYTES: u32 = 76;
/// Exit code of a server that cannot use its data directory (row O6).
pub const DATA_DIRECTORY: i32 = 3;
const VALUE_BYTES: usize = 64 << 10;
/// Flag of a node that goes with its session.
const EPHEMERAL: i32 = 1;

fn on(disk: &SmallDisk) -> Settings {
    Settings { launcher: disk.launcher(), ..Settings::default() }
}

/// Creates nodes until the server refuses or ends; the answers so far, and what the last one was.
fn create_until_refused(client: &mut Client, acknowledged: &mut Vec<String>) -> Option<i32> {
    let value = vec![b'v'; VALUE_BYTES];
    // Far more than the disk can hold.
    for _ in 0..4 * DISK_MEBIBYTES as usize * (1 << 20) / VALUE_BYTES {
        let path = format!("/kept-{}", acknowledged.len());
        client.submit(OpCode::Create, &client::create(&path, Some(&value), &[Acl::OPEN], 0));
        if client.flush().is_err() {
            return None;
        }
        match client.next()? {
            peers::Incoming::Reply { err: 0, .. } => acknowledged.push(path),
            peers::Incoming::Reply { err, .. } => return Some(err),
            event => panic!("{event:?} without a watch"),
        }
    }
    panic!("{} nodes of {VALUE_BYTES} bytes fit on a disk of {DISK_MEBIBYTES} MiB", acknowledged.len());
}

fn all_are_there(client: &mut Client, acknowledged: &[String]) {
    for path in acknowledged {
        let stat =
            client.exists(path, false).unwrap_or_else(|code| panic!("{path} was acknowledged: {code}"));
        assert_eq!(stat.data_length, VALUE_BYTES as i32, "{path}");
    }
}

/// Waits until a create is taken.
fn create_when_there_is_room(client: &mut Client, path: &str) {
    let deadline = Instant::now() + peers::DEADLINE;
    while let Err(code) = client.create(path, b"", 0) {
        assert_eq!(code, ErrorCode::SYSTEM_ERROR.0);
        assert!(Instant::now() < deadline, "there is room, and writes are refused");
        // Polled: the server looks for room twice a second.
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn a_disk_runs_full(medium: Medium) {
    if Kind::under_test() != Kind::Zkfast {
        return;
    }
    let home = peers::directory();
    let Some(disk) = SmallDisk::mount(home.path(), medium, DISK_MEBIBYTES, "rw") else { return };
    disk.fill("filler", 10 << 20);
    disk.fill("second filler", 24 << 20);
    let settings = on(&disk);
    let mut server = Server::start(Kind::Zkfast, home.path(), &settings);
    assert_eq!(server.monitor("zk_log_space_low").as_deref(), Some("0"));

    // Locks of two clients: one leaves when the disk is full, one is never heard of again.
    let mut leaving = server.client(10_000);
    leaving.create("/lock-of-leaving", b"", EPHEMERAL).expect("a lock");
    let mut dying = server.client(5_000);
    dying.create("/lock-of-dying", b"", EPHEMERAL).expect("a lock");

    // Full: refused by its name, while everything that was taken is there and the reads go on.
    let mut client = server.client(10_000);
    let mut acknowledged = Vec::new();
    let code = create_until_refused(&mut client, &mut acknowledged);
    assert_eq!(code, Some(ErrorCode::SYSTEM_ERROR.0), "refused, not cut off");
    assert!(!acknowledged.is_empty());
    all_are_there(&mut client, &acknowledged);
    let refused = format!("/kept-{}", acknowledged.len());
    assert_eq!(client.exists(&refused, false).map(|_| ()), Err(ErrorCode::NO_NODE.0), "refused is not done");
    assert_eq!(server.monitor("zk_log_space_low").as_deref(), Some("1"));
    assert!(server.monitor("zk_log_space_refused_count").is_some_and(|count| count != "0"));
    let newcomer = Client::handshake(server.address, &Handshake::new(10_000)).map(|_| ());
    assert_eq!(newcomer, Err(Refusal::Closed), "a session is a write");
    let said = "writes and new sessions are refused";
    server.await_log(&[said, "is full", "Free space"]);
    let text = server.log_text();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(said)).collect();
    assert_eq!(lines.len(), 1, "said once: {text}");
    assert!(server.is_running());

    // The locks are let go all the same: a session's end is the one write that is still taken.
    leaving.close();
    drop(dying);
    for lock in ["/lock-of-leaving", "/lock-of-dying"] {
        let deadline = Instant::now() + peers::DEADLINE;
        while client.exists(lock, false).is_ok() {
            assert!(Instant::now() < deadline, "{lock} is still there");
            // Polled: a watch would say so only once, and hide a second try.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    assert_eq!(server.monitor("zk_log_space_low").as_deref(), Some("1"), "still full");

    // Room again: writes go on in the same process.
    std::fs::remove_file(disk.file("filler")).expect("the filler");
    create_when_there_is_room(&mut client, "/again");
    assert_eq!(server.monitor("zk_log_space_low").as_deref(), Some("0"));
    server.await_log(&["there is room in"]);

    // Full once more, and killed in that state. On a disk without a free byte the start says what is wrong.
    let code = create_until_refused(&mut client, &mut acknowledged);
    assert_eq!(code, Some(ErrorCode::SYSTEM_ERROR.0));
    server.kill();
    disk.fill("rest", usize::MAX);
    match Server::start_or_refuse(Kind::Zkfast, home.path(), &settings) {
        Ok(_) => panic!("a server started on a disk without a free byte"),
        Err((status, text)) => {
            assert_eq!(status.code(), Some(DATA_DIRECTORY), "{text}");
            let said = text.lines().last().unwrap_or_default();
            assert!(said.contains("is full") && said.contains("make room"), "{text}");
            assert!(said.contains(&home.path().join("data").display().to_string()), "{text}");
            assert!(!text.contains("panicked"), "{text}");
        }
    }
    std::fs::remove_file(disk.file("rest")).expect("the filler");
    std::fs::remove_file(disk.file("second filler")).expect("the filler");
    let server = match Server::start_or_refuse(Kind::Zkfast, home.path(), &settings) {
        Ok(server) => server,
        Err((status, text)) => panic!("there is room, and the start fails with {status}: {text}"),
    };
    let mut client = server.client(10_000);
    all_are_there(&mut client, &acknowledged);
    client.exists("/again", false).expect("acknowledged before the kill");
    create_when_there_is_room(&mut client, "/after");
}

/// Danger: writes are acknowledged that the full disk never took, or the server dies of it and takes the reads along
/// (R15).
#[test]
fn on_a_full_disk_in_memory_reads_go_on_and_nothing_is_lost() {
    a_disk_runs_full(Medium::Tmpfs);
}

/// The same with a journal, extents and direct writes beneath.
#[test]
fn on_a_full_ext4_reads_go_on_and_nothing_is_lost() {
    a_disk_runs_full(Medium::Ext4);
}

/// Danger: a server on a disk that was remounted read-only after an error seems to start.
#[test]
fn a_read_only_disk_is_named_at_start() {
    if Kind::under_test() != Kind::Zkfast {
        return;
    }
    let home = peers::directory();
    let Some(disk) = SmallDisk::mount(home.path(), Medium::Tmpfs, 1, "ro") else { return };
    let Err((status, text)) = Server::start_or_refuse(Kind::Zkfast, home.path(), &on(&disk)) else {
        panic!("a server started on a read-only disk");
    };
    assert_eq!(status.code(), Some(DATA_DIRECTORY), "{text}");
    assert!(text.contains("read-only") && text.contains("remount"), "{text}");
}

/// Danger: the disk fails under a running server, which goes on acknowledging, or ends as if all were well (R15, P35).
#[test]
fn a_write_that_fails_ends_the_server_and_loses_nothing() {
    if Kind::under_test() != Kind::Zkfast {
        return;
    }
    // With one core the log is written through a ring, with two by the pipeline's own thread.
    for cores in [1, 2] {
        let home = peers::directory();
        let settings = Settings { cores, ..Settings::default() };
        let mut server = Server::start(Kind::Zkfast, home.path(), &settings);
        let mut client = server.client(10_000);
        let mut acknowledged = Vec::new();
        wait_until_nothing_is_written(server.pid());
        // From here on every write behind the first megabyte of a file fails with EFBIG.
        let limit = "--fsize=1048576:1048576";
        let limited = Command::new("prlimit").args(["--pid", &server.pid().to_string(), limit]).status();
        assert!(limited.is_ok_and(|status| status.success()), "prlimit limits a process of our own");
        let end = create_until_refused(&mut client, &mut acknowledged);
        assert_eq!(end, None, "no answer, since nobody knows what the disk holds");
        let status = server.ended();
        let text = server.log_text();
        assert_eq!(status.code(), Some(1), "{status:?}: {text}");
        let line = text.lines().find(|line| line.contains("the transaction log failed"));
        // The kernel may write what fits before it fails: then the write is short.
        let is_told = |line: &str| line.contains("File too large") || line.contains("bytes were written");
        assert!(line.is_some_and(|line| line.contains(" of log.") && is_told(line)), "{text}");
        assert!(!text.contains("panicked"), "{text}");

        let server = Server::start(Kind::Zkfast, home.path(), &settings);
        all_are_there(&mut server.client(10_000), &acknowledged);
    }
}

/// The helper that prepares the next segment must be through, or it would be the one that meets the limit.
fn wait_until_nothing_is_written(pid: u32) {
    let written = || {
        let text = std::fs::read_to_string(format!("/proc/{pid}/io")).expect("a running server");
        text.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse::<u64>().ok()).expect("wchar")
    };
    let deadline = Instant::now() + peers::DEADLINE;
    let (mut last, mut same) = (written(), 0);
    while same < 10 {
        assert!(Instant::now() < deadline, "an idle server goes on writing");
        // Polled: nobody tells when the segment is ready.
        std::thread::sleep(Duration::from_millis(20));
        let now = written();
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
}
