//! The end of an epoch's counter (row S25, ZOOKEEPER-1277): the ensemble goes on in the next epoch. Every reign here has
//! room for a hundred transactions (`testingonly.initialZxid`): a data directory alone brings nobody near the end, for each
//! reign begins a counter of its own.

use crate::{
    catch_up::same_state,
    cluster::{Cluster, Shape},
    peers::{
        Client, DEADLINE, Kind,
        client::{self, Incoming},
    },
    session::{Failure, Session},
};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};
use zkfast_wire::{Decoder, OpCode, Stat};

const HUNDRED_LEFT: &str = "testingonly.initialZxid=4294967195";

/// Requests that each client has under way.
const UNDER_WAY: usize = 24;

/// What a client asked, in its order.
enum Asked {
    /// setData that makes this version.
    Set(i32),
    /// getData behind it, which must see that version.
    Get(i32),
    Sync,
}

/// Writes, syncs and reads of one client on one connection that never ends. A set goes by the version before, so that
/// none can be left out, overtaken or done twice.
fn keep_busy(mut client: Client, path: &str, versions: i32) -> Client {
    let mut asked = VecDeque::new();
    let mut next = 0;
    let mut answered = 0;
    while answered < versions {
        while asked.len() < UNDER_WAY && next < versions {
            client.submit(OpCode::SetData, &client::set(path, Some(&next.to_be_bytes()), next));
            next += 1;
            asked.push_back(Asked::Set(next));
            if next % 5 == 0 {
                client.submit(OpCode::Sync, &client::path_alone(path));
                asked.push_back(Asked::Sync);
            }
            client.submit(OpCode::GetData, &client::path_watch(path, false));
            asked.push_back(Asked::Get(next));
        }
        client.flush().expect("the connection stays");
        let Some(Incoming::Reply { err, body, .. }) = client.next() else {
            panic!("{path}: the connection ended, or an event came, behind version {answered}")
        };
        assert_eq!(err, 0, "{path}: behind version {answered}");
        match asked.pop_front().expect("an answer to a request") {
            Asked::Set(version) => {
                let stat = Stat::decode(&mut Decoder::new(&body)).expect("a stat");
                assert_eq!(stat.version, version, "{path}: each write once, in its order");
                answered = version;
            }
            Asked::Get(version) => {
                let (_, stat) = client::data_and_stat(&body);
                assert_eq!(
                    stat.version, version,
                    "{path}: a read sees the writes before it and none behind it"
                );
            }
            Asked::Sync => {}
        }
    }
    for _ in asked {
        let answer = client.next();
        assert!(matches!(answer, Some(Incoming::Reply { err: 0, .. })), "{answer:?}");
    }
    client
}

/// Danger (S25): at the end of an epoch clients lose their connections, or a request that was under way is lost, done
/// twice or overtaken, or a watch or an ephemeral does not outlive it.
#[test]
fn clients_keep_their_connections_over_the_end_of_an_epoch() {
    let lines = vec![HUNDRED_LEFT.to_owned()];
    let shape = Shape { lines, observers: 1, ..Shape::default() };
    let cluster = Cluster::start(&[Kind::Zkfast; 4], shape);
    const VERSIONS: i32 = 150;
    let mut watchers: Vec<_> = (0..cluster.size())
        .map(|index| {
            let mut watcher = cluster.server(index).client(20_000);
            watcher.create(&format!("/alive-{index}"), b"", 1).expect("an ephemeral");
            watcher.create(&format!("/busy-{index}"), b"", 0).expect("a node");
            watcher.exists("/late", true).expect_err("not there yet");
            watcher
        })
        .collect();
    std::thread::scope(|scope| {
        for index in 0..cluster.size() {
            for copy in 0..2 {
                let client = cluster.server(index).client(20_000);
                scope.spawn(move || {
                    let path = format!("/busy-{index}-{copy}");
                    let mut client = client;
                    client.create(&path, b"", 0).expect("a node");
                    keep_busy(client, &path, VERSIONS).close();
                });
            }
        }
    });
    let (_, stat) = watchers[0].create("/late", b"", 0).expect("the last node");
    let epochs = stat.czxid.0 >> 32;
    println!("clients on all servers wrote over the ends of {} epochs", epochs - 1);
    assert!(epochs >= 8, "the last write has zxid {:#x}", stat.czxid.0);
    for (index, mut watcher) in watchers.into_iter().enumerate() {
        let (kind, path) = watcher.event();
        assert_eq!((kind, path.as_str()), (1, "/late"), "a watch of the first epoch");
        let stat =
            watcher.exists(&format!("/alive-{index}"), false).expect("an ephemeral of the first epoch");
        assert_eq!(stat.ephemeral_owner, watcher.ticket().session);
        watcher.close();
    }
    for index in 0..cluster.size() {
        let log = cluster.log_text(index);
        assert!(!log.contains("clients do not wait"), "server {} dropped its clients", index + 1);
    }
    same_state(&cluster);
}

/// Danger (S25, ZOOKEEPER-1277): the counter of an epoch is used up, and runs into the epoch, or nobody takes writes any
/// more. Every reign here has room for 100 transactions.
#[test]
fn the_last_counter_of_an_epoch_is_followed_by_the_next_epoch() {
    let lines = vec![HUNDRED_LEFT.to_owned()];
    let cluster = Cluster::start(&[Kind::under_test(); 3], Shape { lines, ..Shape::default() });
    let mut session = Session::new(cluster.addresses(), 20_000, Duration::from_secs(2));
    assert!(session.connect(DEADLINE), "a session");
    session.create("/counted", b"", 0).expect("a node");
    let mut last = 0;
    for number in 0..400_u64 {
        let deadline = Instant::now() + DEADLINE;
        // A write without an answer is done again: only its number counts.
        let stat = loop {
            assert!(Instant::now() < deadline, "nobody takes write {number}");
            if session.connect(Duration::from_millis(200)) {
                match session.set("/counted", &number.to_be_bytes()) {
                    Ok(stat) => break stat,
                    Err(Failure::Lost) => {}
                    Err(other) => panic!("write {number}: {other:?}"),
                }
            }
        };
        assert!(stat.mzxid.0 > last, "zxids rise over the end of an epoch");
        last = stat.mzxid.0;
    }
    println!("400 writes, the last in epoch {}", last >> 32);
    assert!(last >> 32 >= 4, "the last write has zxid {last:#x}");
    same_state(&cluster);
}
