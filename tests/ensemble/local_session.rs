//! Sessions that one server alone knows, and how they become the ensemble's (row S15).

use crate::{
    cluster::{Cluster, Shape},
    peers::{
        DEADLINE, Kind,
        client::{Handshake, Refusal},
    },
};
use std::time::{Duration, Instant};
use zkfast_wire::SessionId;

fn cluster(lines: &[&str]) -> Cluster {
    let lines = lines.iter().map(|line| (*line).to_owned()).collect();
    Cluster::start(&[Kind::under_test(); 3], Shape { lines, ..Shape::default() })
}

/// Whether the ensemble has the session, as the leader's `dump` tells it.
fn is_global(cluster: &Cluster, session: SessionId) -> bool {
    let dump = cluster.server(cluster.leader()).four_letter("dump").expect("dump");
    let sessions = dump.split("Connections dump").next().expect("the part about sessions");
    sessions.contains(&format!("0x{:x}", session.0))
}

fn zxid(cluster: &Cluster) -> String {
    let text = cluster.server(cluster.leader()).four_letter("srvr").expect("srvr");
    text.lines().find_map(|line| line.strip_prefix("Zxid: ")).expect("a zxid").to_owned()
}

/// How the server refuses the session.
fn came_back(cluster: &Cluster, index: usize, ticket: &Handshake) -> Refusal {
    match cluster.resume(index, ticket) {
        Err(refusal) => refusal,
        Ok(_) => panic!("server {} knows the session", index + 1),
    }
}

/// Q81. Danger: a session costs a transaction though it should not, or an ephemeral is made that nobody ever deletes.
#[test]
fn a_local_session_becomes_global_with_its_first_ephemeral() {
    let cluster = cluster(&["localSessionsEnabled=true", "localSessionsUpgradingEnabled=true"]);
    for index in [cluster.leader(), cluster.follower()] {
        let before = zxid(&cluster);
        let mut local = cluster.server(index).client(8_000);
        assert_eq!(zxid(&cluster), before, "a local session is no transaction");
        assert!(!is_global(&cluster, local.session));
        let path = format!("/plain-{index}");
        local.create(&path, b"1", 0).expect("a write of a local session");
        local.set(&path, b"2", -1).expect("another");
        assert!(!is_global(&cluster, local.session));
        // It can come back to its own server.
        let mut local = cluster.resume(index, &local.ticket()).expect("the same session on a new connection");
        let ephemeral = format!("/ephemeral-{index}");
        local.create(&ephemeral, b"", 1).expect("an ephemeral");
        assert!(is_global(&cluster, local.session), "the ephemeral's session is the ensemble's");
        assert_eq!(local.get(&ephemeral, false).expect("a read").1.ephemeral_owner, local.session);
        // The server that made it tells of it as a learner does, or as the leader.
        let dump = cluster.server(index).four_letter("dump").expect("dump");
        let words = if index == cluster.leader() { "Session Sets (" } else { "Global Sessions(" };
        assert!(dump.contains(words) && dump.contains(&format!("{ephemeral}\n")), "{dump}");
        // And from now on to any server.
        let other = (0..3).find(|other| *other != index).expect("three servers");
        let mut moved = cluster.resume(other, &local.ticket()).expect("the session elsewhere");
        moved.create(&format!("/second-{index}"), b"", 1).expect("another ephemeral");
        moved.close();
        let mut reader = cluster.server(index).client(8_000);
        reader.call(zkfast_wire::OpCode::Sync, &crate::peers::client::path_alone("/")).expect("sync");
        assert_eq!(reader.exists(&ephemeral, false).err(), Some(-101), "gone with its session");
        let before = zxid(&cluster);
        reader.close();
        assert_eq!(zxid(&cluster), before, "the end of a local session is no transaction");
    }
}

/// S15, E28: without upgrading an ephemeral is refused with -120, and the session goes on.
#[test]
fn without_upgrading_a_local_session_makes_no_ephemerals() {
    let cluster = cluster(&["localSessionsEnabled=true"]);
    for index in [cluster.leader(), cluster.follower()] {
        let mut local = cluster.server(index).client(1_600);
        assert_eq!(local.create("/ephemeral", b"", 1).err(), Some(-120));
        local.create(&format!("/container-{index}"), b"", 0).expect("the session goes on");
        // Another server does not know it.
        let other = (0..3).find(|other| *other != index).expect("three servers");
        let ticket = local.ticket();
        assert_eq!(came_back(&cluster, other, &ticket), Refusal::Expired);
        // Nor does its own after a while without a word.
        drop(local);
        let deadline = Instant::now() + DEADLINE;
        while cluster.server(index).monitor("zk_local_sessions").as_deref() != Some("0") {
            assert!(Instant::now() < deadline, "the session does not expire");
            // Polled: nobody is told of the end of a session without a connection.
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(came_back(&cluster, index, &ticket), Refusal::Expired);
    }
}
