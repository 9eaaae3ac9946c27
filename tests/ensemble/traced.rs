//! What a follower has on its disk before it says so: the server is watched while it says so to the kernel
//! (PROTOCOL.md, "durable first"; ZOOKEEPER-4643, 3911, 3701).

use crate::{
    catch_up::same_state,
    cluster::{Cluster, Shape},
    peers::{Kind, client},
    proxy::Way,
    trace::{self, Call},
};
use std::{
    fs,
    path::{Path, PathBuf},
};
use zkfast_wire::OpCode;

/// The pipeline alone speaks to other servers, with writev.
fn tells_a_peer(call: &Call) -> bool {
    call.name == "writev" && call.sends()
}

/// The first call at or behind `from` that makes this durable.
fn synced<'a>(calls: &'a [Call], from: usize, path: &Path) -> &'a Call {
    let all = calls.iter().filter(|call| call.begin >= from && call.syncs(path));
    all.min_by_key(|call| call.end).unwrap_or_else(|| panic!("{} is never synced", path.display()))
}

/// Each new number of an epoch file is on the medium, then it has its name, then the name is on the medium, and only then
/// a peer hears a word. Returns where each change begins and is complete.
fn check_epochs(calls: &[Call], directory: &Path, name: &str) -> Vec<(usize, usize)> {
    let temporary = directory.join(format!("{name}.tmp"));
    let target = directory.join(name);
    let named = calls.iter().filter(|call| call.renames() == Some((temporary.clone(), target.clone())));
    let changes: Vec<_> = named
        .map(|named| {
            let written = calls.iter().filter(|call| call.end < named.begin && call.writes(&temporary));
            let written = written.max_by_key(|call| call.end).expect("somebody wrote it");
            let durable = synced(calls, written.end, &temporary);
            assert!(durable.end < named.begin, "{name} is named before it is durable");
            let complete = synced(calls, named.end, directory);
            let early = calls
                .iter()
                .find(|call| tells_a_peer(call) && written.begin < call.begin && call.begin < complete.end);
            assert!(early.is_none(), "a peer hears of {name} before it is durable: {early:?}");
            (written.begin, complete.end)
        })
        .collect();
    assert!(!changes.is_empty(), "{name} was never written");
    changes
}

/// Where the record with this text is in the log for good: written, under the log's name, and the name durable.
fn logged(calls: &[Call], directory: &Path, text: &str) -> usize {
    let in_log = |path: &Path| path.parent() == Some(directory);
    let (call, path) = calls
        .iter()
        .filter_map(|call| Some((call, call.writes_text(text)?)))
        .find(|(_, path)| in_log(path) && !path.to_string_lossy().contains("snapshot"))
        .unwrap_or_else(|| panic!("{text} is never logged"));
    // A segment that lay ready gets its name with its first records, maybe while they are written; another one is made
    // under it.
    let renamed = calls
        .iter()
        .filter_map(|named| named.renames().map(|(from, to)| (named, from, to)))
        .find(|(named, from, to)| *to == path || *from == path && named.end > call.begin);
    let (opened, log, name) = match &renamed {
        Some((named, ready, log)) => (ready, log, Some(*named)),
        None => (&path, &path, calls.iter().find(|open| open.creates(&path))),
    };
    assert!(is_log(log), "{} is no log", log.display());
    let name = name.unwrap_or_else(|| panic!("{} is nowhere made", log.display()));
    let is_synchronous = calls.iter().any(|open| open.end < call.begin && open.opens_synchronously(opened));
    let written = if is_synchronous { call.end } else { synced(calls, call.end, &path).end };
    written.max(synced(calls, name.end, directory).end)
}

/// Danger: a deposed leader vouches for a new epoch with a history that its disk does not have, or with a stray tail that
/// is still there after a loss of power (G33, G34; Q55, Q71).
#[test]
fn a_deposed_leader_cuts_and_promises_before_it_says_so() {
    let mut cluster = Cluster::start(&[Kind::Zkfast; 3], Shape { proxied: true, ..Shape::default() });
    let mut client = cluster.server(cluster.leader()).client(20_000);
    client.create("/kept", b"", 0).expect("a node");
    client.close();
    same_state(&cluster);
    let old = cluster.leader();
    let others: Vec<usize> = (0..3).filter(|index| *index != old).collect();
    let mut client = cluster.server(old).client(20_000);
    client.get("/kept", false).expect("a session");
    // They hear nothing, and the leader does not know it yet: what it is asked now only its own log gets.
    for other in &others {
        cluster.set_way(old, *other, Way::Hold);
    }
    for _ in 0..10 {
        client.submit(OpCode::SetData, &client::set("/kept", Some(b"stray"), -1));
    }
    client.flush().expect("a connection");
    let log_has = |words: &[u8]| {
        let files = fs::read_dir(cluster.data_dir(old).join("version-2")).expect("a directory");
        files
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| is_log(path))
            .any(|path| fs::read(path).expect("a log").windows(words.len()).any(|window| window == words))
    };
    let deadline = std::time::Instant::now() + crate::peers::DEADLINE;
    while !log_has(b"stray") {
        assert!(std::time::Instant::now() < deadline, "the leader logs what it proposes");
        // Polled: nobody is told when a record is in a file.
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    cluster.kill(old);
    // What was on its way is lost.
    cluster.break_links(old);
    cluster.heal();
    let mut client = cluster.server(cluster.leader()).client(20_000);
    client.create("/later", b"", 0).expect("a node of the next reign");
    let home = crate::peers::directory();
    let trace = home.path().join("trace");
    cluster.launch_traced(old, &trace);
    cluster.await_all();
    client.close();
    same_state(&cluster);
    cluster.stop(old);

    let calls = trace::read(&trace);
    let directory = fs::canonicalize(cluster.data_dir(old).join("version-2")).expect("a directory");
    let accepted = check_epochs(&calls, &directory, "acceptedEpoch");
    let current = check_epochs(&calls, &directory, "currentEpoch");
    assert!(accepted[0].1 <= current[0].0, "it promises before it vouches");
    let cuts: Vec<(&Call, PathBuf)> =
        calls.iter().filter_map(|call| Some((call, call.cuts()?))).filter(|(_, path)| is_log(path)).collect();
    let caught_up = logged(&calls, &directory, "/later");
    assert!(caught_up <= current[0].0, "it vouches before what it missed is on its disk");
    let in_time = |(cut, path): &&(&Call, PathBuf)| {
        accepted[0].1 <= cut.begin && synced(&calls, cut.end, path).end <= current[0].0
    };
    assert!(
        cuts.iter().any(|cut| in_time(&cut)),
        "the stray tail is cut, for good, before the epoch: {cuts:?}"
    );
}

fn is_log(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log."))
}
