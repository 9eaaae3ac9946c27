//! Sessions over the servers of an ensemble: who keeps them alive, and who ends them.

use crate::{
    cluster::{Cluster, Shape},
    peers::{Client, DEADLINE, Kind, client},
};
use std::time::{Duration, Instant};
use zkfast_wire::OpCode;

/// Waits until this node is gone, as this client sees it.
fn await_gone(client: &mut Client, path: &str) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        client.call(OpCode::Sync, &client::path_alone("/")).expect("sync");
        if client.exists(path, false).is_err() {
            return;
        }
        assert!(Instant::now() < deadline, "{path} outlives its session");
        // Polled: a watch would come by another way.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// S9, S11. Danger: a learner ends sessions by itself; or keeps to itself that their clients are alive, and the leader,
/// which alone counts, ends them.
#[test]
fn a_learner_tells_its_leader_who_is_alive_and_ends_nobody() {
    let timeout = Duration::from_millis(2_000);
    let cluster = Cluster::start(&[Kind::under_test(); 3], Shape::default());
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let mut observer = cluster.server(leader).client(20_000);
    let open = |path: &str| {
        let mut client = cluster.server(follower).client(timeout.as_millis() as i32);
        client.create(path, b"", 1).expect("an ephemeral");
        client
    };
    let (mut alive, mute) = (open("/alive"), open("/mute"));
    // The leader has only the follower's word for one of them, three times as long as a session lives without it.
    let begun = Instant::now();
    while begun.elapsed() < timeout * 3 {
        alive.ping();
        observer.exists("/alive", false).expect("it is heard of through the follower");
        // Sleeps because time is the point: the client's own pace, six pings in a timeout.
        std::thread::sleep(timeout / 6);
    }
    alive.get("/alive", false).expect("the session");
    await_gone(&mut observer, "/mute");
    drop(mute);

    // Only the leader counts: while there is none the follower ends no session, however long its client is silent.
    let mut lines = String::new();
    for index in [leader, follower] {
        let dump = cluster.server(index).four_letter("dump").expect("dump");
        lines += &format!("{index}: {dump}\n");
        let is_tracker = dump.contains("expire at");
        assert_eq!(is_tracker, index == leader, "{dump}");
    }
    alive.close();
    observer.close();
}
