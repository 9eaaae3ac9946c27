//! What was acknowledged is on the medium, and what is used is, too: the server is watched while it says so to the
//! kernel. No crash of a process shows the want of a sync, since the kernel goes on without it.

#[path = "../peers/mod.rs"]
mod peers;

#[allow(dead_code, reason = "the tests of ensembles look at more")]
mod trace;

use peers::{Kind, Server, Settings};
use std::{
    fs,
    path::{Path, PathBuf},
};
use trace::Call;

const O_DSYNC: u32 = 0o10000;

/// Flags with which the process has this file open, of each descriptor.
fn flags(server: &Server, is_wanted: impl Fn(&str) -> bool) -> Vec<u32> {
    let process = PathBuf::from(format!("/proc/{}", server.pid()));
    let descriptors = fs::read_dir(process.join("fd")).expect("a running server");
    let mut found = Vec::new();
    for descriptor in descriptors.map(|entry| entry.expect("an entry")) {
        let Ok(path) = fs::read_link(descriptor.path()) else { continue };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if is_wanted(&name) {
            let info =
                fs::read_to_string(process.join("fdinfo").join(descriptor.file_name())).expect("fdinfo");
            let line = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags");
            found.push(u32::from_str_radix(line.trim(), 8).expect("octal"));
        }
    }
    found
}

/// P11. Danger: batches are acknowledged from the page cache or the disk's own, and a power cut takes them back.
#[test]
fn the_log_is_written_through() {
    for (force_sync, is_through) in [("yes", true), ("no", false)] {
        let home = peers::directory();
        let settings = Settings { lines: vec![format!("forceSync={force_sync}")], ..Settings::default() };
        let server = Server::start(Kind::Zkfast, home.path(), &settings);
        let mut client = server.client(10_000);
        client.create("/a", b"", 0).expect("create");
        let flags = flags(&server, |name| name.starts_with("log."));
        assert!(!flags.is_empty(), "the log is not open");
        let synchronous = flags.iter().any(|flags| flags & O_DSYNC != 0);
        assert_eq!(synchronous, is_through, "forceSync={force_sync}: {flags:?}");
    }
}

fn settings(trace: &Path) -> Settings {
    Settings { snap_count: 60, launcher: trace::launcher(trace), ..Settings::default() }
}

fn is_log(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log."))
}

/// The first call at or behind `from` that makes the directory durable.
fn synced<'a>(calls: &'a [Call], from: usize, path: &Path) -> Option<&'a Call> {
    calls.iter().filter(|call| call.begin >= from && call.syncs(path)).min_by_key(|call| call.end)
}

/// One client, one request at a time: no answer leaves between the naming of a log and the sync of its directory,
/// since whatever is asked then is in that log.
fn check_names(calls: &[Call], directory: &Path) -> usize {
    let mut count = 0;
    for named in calls.iter().filter(|call| call.renames().is_some_and(|(_, to)| is_log(&to))) {
        let synced = synced(calls, named.end, directory).unwrap_or_else(|| panic!("never synced: {named:?}"));
        let early =
            calls.iter().find(|call| call.sends() && named.begin < call.begin && call.begin < synced.end);
        assert!(early.is_none(), "answered before {named:?} was durable: {early:?}");
        count += 1;
    }
    count
}

/// A snapshot is on the medium before it has a name to be found by, and the name is before the server ends.
fn check_snapshots(calls: &[Call], directory: &Path) -> usize {
    let mut count = 0;
    for named in calls {
        let Some((from, to)) = named.renames() else { continue };
        if !to.file_name().is_some_and(|name| name.to_string_lossy().starts_with("snapshot.")) {
            continue;
        }
        let written = calls.iter().filter(|call| call.writes(&from)).map(|call| call.end).max();
        let written = written.unwrap_or_else(|| panic!("nobody wrote {}", from.display()));
        let before = synced(calls, written, &from).filter(|synced| synced.end < named.begin);
        assert!(before.is_some(), "{} is named before it is durable", to.display());
        assert!(synced(calls, named.end, directory).is_some(), "the name of {} is not synced", to.display());
        count += 1;
    }
    count
}

/// Before the first word to anybody: what was cut or removed stays so, and what was read stays there.
fn check_repairs(calls: &[Call], directory: &Path, logs: &[PathBuf]) {
    let served = calls.iter().filter(|call| call.sends()).map(|call| call.begin).min().expect("it served");
    let start: Vec<Call> = calls.iter().filter(|call| call.end < served).cloned().collect();
    let cuts: Vec<_> = start.iter().filter_map(|call| Some((call, call.cuts()?))).collect();
    let cuts: Vec<_> = cuts.into_iter().filter(|(_, path)| is_log(path)).collect();
    assert_eq!(cuts.len(), 1, "one torn tail");
    for (cut, path) in &cuts {
        assert!(synced(&start, cut.end, path).is_some(), "the cut of {} is not durable", path.display());
    }
    let removals: Vec<_> =
        start.iter().filter(|call| call.removes().is_some_and(|path| is_log(&path))).collect();
    assert_eq!(removals.len(), 1, "one empty log");
    for removal in removals {
        assert!(synced(&start, removal.end, directory).is_some(), "{removal:?} is not durable");
    }
    for log in logs {
        let synced = start.iter().any(|call| call.syncs(log));
        assert!(synced, "{} was read, and served from, before it was durable", log.display());
    }
}

/// Danger: a name, a snapshot or a repair is relied on that the next power cut takes back.
#[test]
fn names_snapshots_and_repairs_are_synced_before_they_are_relied_on() {
    let temporary = peers::directory();
    let home = fs::canonicalize(temporary.path()).expect("a path");
    let directory = home.join("data/version-2");
    let write = |server: &Server, folder: &str| {
        let mut client = server.client(10_000);
        client.create(folder, b"", 0).expect("create");
        for index in 0..200 {
            client.create(&format!("{folder}/{index}"), &[b'x'; 100], 0).expect("create");
        }
        client
    };

    let first = home.join("first.trace");
    let server = Server::start(Kind::Zkfast, &home, &settings(&first));
    let client = write(&server, "/a");
    client.close();
    server.stop();
    let calls = trace::read(&first);
    let (names, snapshots) = (check_names(&calls, &directory), check_snapshots(&calls, &directory));
    assert!(names >= 2 && snapshots >= 2, "{names} logs and {snapshots} snapshots: too little was seen");

    // A torn tail, an empty log behind it, and a server that repairs both.
    let server =
        Server::start(Kind::Zkfast, &home, &Settings { snap_count: 1_000_000, ..Settings::default() });
    let client = write(&server, "/b");
    server.kill();
    drop(client);
    let mut logs: Vec<PathBuf> = fs::read_dir(&directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| is_log(path))
        .collect();
    let number = |path: &PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        u64::from_str_radix(&name["log.".len()..], 16).expect("hex")
    };
    logs.sort_by_key(number);
    let last = logs.pop().expect("a log");
    let bytes = fs::read(&last).expect("a log");
    let end = bytes.windows(5).rposition(|window| window == b"/b/19").expect("the last record");
    fs::write(&last, &bytes[..end]).expect("a torn tail");
    fs::write(directory.join("log.ffff"), b"").expect("an empty log");
    let second = home.join("second.trace");
    let server = Server::start(Kind::Zkfast, &home, &settings(&second));
    let mut client = server.client(10_000);
    client.create("/c", b"", 0).expect("create");
    client.close();
    server.stop();
    let calls = trace::read(&second);
    check_repairs(&calls, &directory, &[last]);
    assert!(check_names(&calls, &directory) >= 1);
}
