//! Ensembles of other shapes than three voters on one address each: observers, groups and weights, IPv6, several
//! addresses, listening everywhere, a leader that serves no clients (rows Q1, Q4, Q7, Q11, Q17, Q79, T44).

use crate::{
    cluster::{Cluster, Shape},
    history::Syncs,
    load::{Load, Plan},
    metrics,
    peers::{Client, DEADLINE, Kind, client::path_alone},
};
use std::{
    net::{Ipv6Addr, TcpListener},
    time::{Duration, Instant},
};
use zkfast_wire::OpCode;

/// Q4, Q37, Q73. Danger: an observer's acknowledgement counts, or it misses what followers get.
#[test]
fn observers_see_everything_and_decide_nothing() {
    let zkfast = Kind::under_test();
    let mut names = metrics::Names::default();
    for kinds in [
        [zkfast; 4],
        [zkfast, zkfast, Kind::Apache, Kind::Apache],
        [Kind::Apache, Kind::Apache, Kind::Apache, zkfast],
    ] {
        let mut cluster = Cluster::start(&kinds, Shape { observers: 1, ..Shape::default() });
        let observer = 3;
        let load = Load::start(&cluster, Plan { clients: 4, moves_one_in: 30, ..Plan::default() });
        load.await_writes(50);
        cluster.kill(observer);
        load.await_writes(100);
        cluster.launch(observer);
        cluster.await_all();
        load.await_writes(50);
        load.finish(&cluster, Syncs::AreFresh);
        let leader = cluster.leader();
        assert_ne!(leader, observer);
        if kinds[leader] == Kind::Zkfast {
            let monitor = |key: &str| cluster.server(leader).monitor(key);
            let expected = [
                ("zk_quorum_size", "3"),
                ("zk_learners", "3"),
                ("zk_synced_followers", "2"),
                ("zk_synced_observers", "1"),
                ("zk_pending_syncs", "0"),
            ];
            let deadline = Instant::now() + DEADLINE;
            for (key, value) in expected {
                while monitor(key).as_deref() != Some(value) {
                    assert!(Instant::now() < deadline, "{key} is {:?}, not {value}", monitor(key));
                    // Polled: the figures are shown anew once a tick.
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
        names.look_at(&cluster);
        // Three voters of which one is left: the observer is no second one.
        let left = (0..3).find(|index| *index != leader).expect("a follower");
        for index in (0..3).filter(|index| *index != left) {
            cluster.kill(index);
        }
        cluster.await_modes("end of service", |modes| modes.iter().all(Option::is_none));
    }
    names.compare();
}

/// Danger: votes are counted by heads where they should be weighed (Q7).
#[test]
fn groups_and_weights_decide() {
    // Groups {1,2,3} and {4,5}; server 3 weighs nothing, 1 and 4 outweigh their groups.
    let lines = [
        "group.1=1:2:3",
        "group.2=4:5",
        "weight.1=3",
        "weight.2=1",
        "weight.3=0",
        "weight.4=3",
        "weight.5=1",
    ];
    let lines = lines.iter().map(|line| (*line).to_owned()).collect();
    let mut cluster = Cluster::start(&[Kind::under_test(); 5], Shape { lines, ..Shape::default() });
    let mut client = cluster.server(2).client(8_000);
    client.create("/weighed", b"", 0).expect("a write");
    // Two of five by heads, both groups by weight.
    for index in [1, 2, 4] {
        cluster.kill(index);
    }
    cluster.await_modes("a leader of two", |modes| {
        let mut found: Vec<_> = [0, 3].iter().filter_map(|index| modes[*index].as_deref()).collect();
        found.sort_unstable();
        found == ["follower", "leader"]
    });
    let mut client = cluster.server(0).client(8_000);
    client.set("/weighed", b"two", -1).expect("two servers are a quorum");
    drop(client);
    // Four of five by heads, but not the weight of the second group.
    for index in [1, 2, 4] {
        cluster.launch(index);
    }
    cluster.await_all();
    cluster.kill(3);
    cluster.await_modes("end of service", |modes| modes.iter().all(Option::is_none));
}

fn works(kinds: &[Kind; 3], shape: Shape) -> Cluster {
    let mut cluster = Cluster::start(kinds, shape);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let mut client = cluster.server(follower).client(8_000);
    client.create("/there", b"", 0).expect("a write");
    cluster.kill(leader);
    cluster.leader();
    cluster.launch(leader);
    cluster.await_all();
    let mut client = cluster.server(leader).client(8_000);
    client.call(OpCode::Sync, &path_alone("/")).expect("sync");
    client.exists("/there", false).expect("the write");
    cluster
}

/// Q1, Q11: an IPv6 address in brackets, in the line and in the election handshake.
#[test]
fn servers_meet_over_ipv6() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        println!("this machine has no ::1: not tried");
        return;
    }
    let zkfast = Kind::under_test();
    works(&[zkfast, zkfast, Kind::Apache], Shape { host: Some("[::1]"), ..Shape::default() });
}

/// Q1, Q11: two addresses in each line, and `quorumListenOnAllIPs`, `cnxTimeout` and `tcpKeepAlive` beside.
#[test]
fn servers_have_several_addresses() {
    let zkfast = Kind::under_test();
    let lines = ["multiAddress.enabled=true", "cnxTimeout=2000", "tcpKeepAlive=true"];
    let lines = lines.iter().map(|line| (*line).to_owned()).collect();
    // Apache 3.8.0 takes it as a Java property alone.
    let java_flags = vec!["-Dzookeeper.multiAddress.enabled=true".to_owned()];
    let shape = Shape { lines, java_flags, second_host: Some("127.0.0.2"), ..Shape::default() };
    works(&[zkfast, zkfast, Kind::Apache], shape);
    let lines = vec!["quorumListenOnAllIPs=true".to_owned()];
    works(&[zkfast; 3], Shape { lines, ..Shape::default() });
}

/// Q79: with `leaderServes=no` clients are served by the others alone.
#[test]
fn a_leader_may_leave_clients_to_the_others() {
    let lines = vec!["leaderServes=no".to_owned()];
    let cluster = Cluster::new(&[Kind::under_test(); 3], Shape { lines, ..Shape::default() });
    let mut cluster = cluster;
    for index in 0..3 {
        cluster.launch(index);
    }
    cluster.await_modes("two followers and a leader that does not serve", |modes| {
        modes.iter().filter(|mode| mode.as_deref() == Some("follower")).count() == 2
    });
    let leader = cluster.modes().iter().position(Option::is_none).expect("the leader");
    let follower = (0..3).find(|index| *index != leader).expect("a follower");
    let mut client = cluster.server(follower).client(8_000);
    client.create("/there", b"", 1).expect("a write through a follower");
    let handshake = crate::peers::client::Handshake::new(8_000);
    let refused = Client::handshake_if_up(cluster.address(leader), &handshake);
    assert!(!matches!(refused, Some(Ok(_))), "the leader takes no clients");
    client.close();
}

/// T44, Q60: what clients read of the configuration is what the servers go by.
#[test]
fn clients_read_the_configuration() {
    let zkfast = Kind::under_test();
    let cluster = Cluster::start(&[zkfast, zkfast, Kind::Apache], Shape::default());
    let read = |index: usize| {
        let mut client = cluster.server(index).client(8_000);
        let (data, stat) = client.get("/zookeeper/config", false).expect("the configuration");
        (
            String::from_utf8(data.unwrap_or_default()).expect("text"),
            stat.version,
            stat.mzxid,
            stat.data_length,
        )
    };
    let (text, version, mzxid, length) = read(0);
    assert_eq!((version, mzxid.0, length as usize), (-1, 0, text.len()));
    assert!(text.starts_with("server.1=127.0.0.1:") && text.ends_with("\nversion=0"), "{text}");
    assert_eq!(read(0), read(1));
    assert_eq!(read(0), read(2), "as Apache's server writes it");
}
