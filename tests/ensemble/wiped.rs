//! A server whose directory was lost, and one whose peer does not read.

use crate::{
    catch_up::same_state,
    cluster::{Cluster, Shape},
    peers::Kind,
    proxy::Way,
};
use std::time::{Duration, Instant};
use zkfast_wire::OpCode;

/// Danger: a server that has lost its directory has the highest number and an empty history, leads because of the one or
/// has others cut theirs off because of the other.
#[test]
fn a_server_that_lost_its_directory_neither_leads_nor_cuts() {
    let mut cluster = Cluster::start(&[Kind::under_test(); 3], Shape::default());
    let mut client = cluster.server(cluster.leader()).client(20_000);
    for number in 0..50 {
        client.create(&format!("/kept-{number}"), b"there", 0).expect("a node");
    }
    client.close();
    same_state(&cluster);
    for index in 0..3 {
        cluster.stop(index);
    }
    std::fs::remove_dir_all(cluster.data_dir(2))
        .expect("the directory of the server with the highest number");
    // It is there first, and elects with one that has everything.
    cluster.launch(2);
    cluster.launch(0);
    cluster.await_all();
    assert_eq!(cluster.leader(), 0, "an empty history leads nobody");
    cluster.launch(1);
    cluster.await_all();
    for index in 0..3 {
        let mut client = cluster.server(index).client(20_000);
        let (children, _) = client.children("/", false).expect("the root");
        let kept = children.iter().filter(|name| name.starts_with("kept-")).count();
        assert_eq!(kept, 50, "on server {}", index + 1);
        client.close();
    }
    same_state(&cluster);
}

/// Bytes of each write while a peer does not read: far more in all than the sockets between hold.
const LONG_BYTES: usize = 900_000;
const LONG_WRITES: usize = 40;

/// Danger: a peer that reads nothing any more fills the socket to it, and the leader waits for it: whoever is connected
/// waits as well.
#[test]
fn a_peer_that_does_not_read_costs_the_others_nothing() {
    let cluster = Cluster::start(&[Kind::under_test(); 3], Shape { proxied: true, ..Shape::default() });
    let (leader, deaf) = (cluster.leader(), cluster.follower());
    let mut client = cluster.server(leader).client(20_000);
    client.create("/long", b"", 0).expect("a node");
    cluster.set_way(leader, deaf, Way::Hold);
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    for _ in 0..LONG_WRITES {
        let asked = Instant::now();
        client.set("/long", &vec![b'l'; LONG_BYTES], -1).expect("a write beside a deaf follower");
        longest = longest.max(asked.elapsed());
    }
    println!(
        "{LONG_WRITES} writes of {LONG_BYTES} bytes beside a deaf follower: {:.2?}, longest {longest:.2?}",
        begun.elapsed()
    );
    assert_eq!(cluster.leader(), leader, "a quorum hears it");
    client.close();
    cluster.heal();
    cluster.await_all();
    same_state(&cluster);
}

/// Sockets of the kernel's table with this port at either end that have the keepalive timer running.
fn kept_alive(port: u16) -> usize {
    let text = std::fs::read_to_string("/proc/net/tcp").expect("a table of sockets");
    let port = format!(":{port:04X}");
    text.lines()
        .filter(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            // Local and remote address, state (01: established), and which timer runs (02: keepalive).
            columns.len() > 5
                && (columns[1].ends_with(&port) || columns[2].ends_with(&port))
                && columns[3] == "01"
                && columns[5].starts_with("02:")
        })
        .count()
}

/// Danger: `tcpKeepAlive` is read and nothing follows of it (Q11): a firewall forgets the election connections.
#[test]
fn election_connections_are_kept_alive_where_the_configuration_says_so() {
    for (value, is_kept) in [("true", true), ("false", false)] {
        let lines = vec![format!("tcpKeepAlive={value}")];
        let cluster = Cluster::start(&[Kind::Zkfast; 3], Shape { lines, ..Shape::default() });
        let kept: usize = (0..3).map(|index| kept_alive(cluster.election_port(index))).sum();
        assert_eq!(kept > 0, is_kept, "tcpKeepAlive={value}: {kept} connections");
    }
}

/// P4, Q23. Danger: two servers of three come back without their directories and elect one of them; what the third holds is
/// cut off. With `db.autocreate=false` who is empty votes only if a file `initialize` vouches for it, once.
#[test]
fn empty_servers_do_not_elect_unless_vouched_for() {
    let lines = vec!["db.autocreate=false".to_owned()];
    let java_flags = vec!["-Dzookeeper.db.autocreate=false".to_owned()];
    let mut cluster = Cluster::new(&[Kind::under_test(); 3], Shape { lines, java_flags, ..Shape::default() });
    for index in 0..3 {
        std::fs::create_dir_all(cluster.data_dir(index)).expect("a directory");
        std::fs::write(cluster.data_dir(index).join("initialize"), "").expect("a file");
        cluster.launch(index);
    }
    cluster.await_all();
    let mut client = cluster.server(cluster.leader()).client(20_000);
    client.create("/kept", b"there", 0).expect("a node");
    client.close();
    let vouched = |cluster: &Cluster, index: usize| cluster.data_dir(index).join("initialize").exists();
    for index in 0..3 {
        assert!(!vouched(&cluster, index), "it vouches for one start");
        cluster.stop(index);
    }
    let wipe = |cluster: &Cluster, index: usize| {
        let files = std::fs::read_dir(cluster.data_dir(index).join("version-2")).expect("a directory");
        files.flatten().for_each(|file| std::fs::remove_file(file.path()).expect("a file"));
    };
    for index in 0..2 {
        wipe(&cluster, index);
        cluster.launch(index);
    }
    // Each has heard of the other one's vote, and they have had time to agree.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        assert_eq!(cluster.leaders(), [0; 0], "nobody of these two leads");
        // Sleeps: that nothing happens takes its time.
        std::thread::sleep(Duration::from_millis(100));
    }
    // One that has the history and one that is vouched for are a quorum; the other one joins them.
    cluster.stop(0);
    // Apache's does not start again from the epoch -1 that it has stored there.
    wipe(&cluster, 0);
    std::fs::write(cluster.data_dir(0).join("initialize"), "").expect("a file");
    cluster.launch(0);
    cluster.launch(2);
    cluster.await_all();
    for index in 0..3 {
        let mut client = cluster.server(index).client(20_000);
        client.call(OpCode::Sync, &crate::peers::client::path_alone("/")).expect("sync");
        client.get("/kept", false).expect("what the third server held");
        client.close();
    }
    // What the empty one was given is whole on its disk: a log without a snapshot before it would be none to start from.
    cluster.kill(1);
    cluster.launch(1);
    cluster.await_all();
    cluster.server(1).client(20_000).get("/kept", false).expect("what it was given");
}
