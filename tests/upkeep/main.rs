//! What the server does by itself: containers and TTL nodes go, quotas are counted and enforced, as Apache does it.

#[path = "../peers/mod.rs"]
mod peers;

use peers::{Client, Kind, Server, Settings, client, script};
use std::time::Instant;
use zkfast_wire::{Acl, OpCode};

const CONTAINER: i32 = 4;
const TTL: i32 = 5;
const NO_NODE: i32 = -101;
const QUOTA_EXCEEDED: i32 = -125;

fn settings(lines: &[&str]) -> Settings {
    Settings {
        tick_ms: 100,
        lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        java_flags: vec!["-Dznode.container.checkIntervalMs=100".to_owned()],
        ..Settings::default()
    }
}

/// Waits for the event of a node's deletion.
fn until_deleted(client: &mut Client, path: &str) {
    const DELETED: i32 = 2;
    if client.exists(path, true).is_ok() {
        assert_eq!(client.event(), (DELETED, path.to_owned()));
    }
}

/// T17, T21-T23: Danger: parents that recipes leave behind pile up for ever, or one goes that is still in use.
#[test]
fn containers_and_ttl_nodes_go_when_their_time_has_come() {
    let home = peers::directory();
    let server = Server::start(Kind::under_test(), home.path(), &settings(&["extendedTypesEnabled=true"]));
    let mut client = server.client(10_000);
    for name in ["/used", "/busy", "/new"] {
        let container = client::create(name, Some(b""), &[Acl::OPEN], CONTAINER);
        client.call(OpCode::CreateContainer, &container).expect("createContainer");
    }
    client.create("/busy/child", b"", 0).expect("create");
    client.create("/used/child", b"", 0).expect("create");
    client.delete("/used/child", -1).expect("delete");
    for (name, ttl_ms) in [("/short", 200_i64), ("/parent", 200), ("/long", 600_000)] {
        let mut ttl = client::create(name, Some(b""), &[Acl::OPEN], TTL);
        ttl.extend_from_slice(&ttl_ms.to_be_bytes());
        client.call(OpCode::CreateTtl, &ttl).expect("createTTL");
    }
    client.create("/parent/child", b"", 0).expect("create");
    let begun = Instant::now();
    until_deleted(&mut client, "/used");
    until_deleted(&mut client, "/short");
    assert!(begun.elapsed().as_millis() < 10_000);
    for name in ["/busy", "/new", "/parent", "/long"] {
        assert!(client.exists(name, false).is_ok(), "{name} is in use");
    }
    client.delete("/parent/child", -1).expect("delete");
    client.delete("/busy/child", -1).expect("delete");
    until_deleted(&mut client, "/parent");
    until_deleted(&mut client, "/busy");
    // The deletions are in the log: the next server finds them done.
    server.kill();
    let server = Server::start(Kind::under_test(), home.path(), &settings(&["extendedTypesEnabled=true"]));
    let mut client = server.client(10_000);
    for name in ["/used", "/short", "/parent", "/busy"] {
        assert_eq!(client.exists(name, false).map(|_| ()), Err(NO_NODE), "{name}");
    }
    assert!(client.exists("/new", false).is_ok() && client.exists("/long", false).is_ok());
}

/// T21: a container that never had a child goes only where the operator says so.
#[test]
fn a_container_that_was_never_used_goes_if_it_may() {
    let home = peers::directory();
    let mut settings = settings(&[]);
    settings.java_flags.push("-Dznode.container.maxNeverUsedIntervalMs=200".to_owned());
    let server = Server::start(Kind::under_test(), home.path(), &settings);
    let mut client = server.client(10_000);
    let container = client::create("/new", Some(b""), &[Acl::OPEN], CONTAINER);
    client.call(OpCode::CreateContainer, &container).expect("createContainer");
    until_deleted(&mut client, "/new");
}

/// What zkCli prints of a quota, without its log and prompts.
fn shell(server: &Server, commands: &[&str]) -> Vec<String> {
    let mut input = commands.join("\n");
    input.push_str("\nquit\n");
    let mut words = script::java_words(&["org.apache.zookeeper.ZooKeeperMain", "-server"]);
    words.push(server.address.to_string());
    let mut command = std::process::Command::new(&words[0]);
    command.args(&words[1..]);
    let output = script::run_with_input(&mut command, &input);
    let text = script::text(&output.stdout) + &script::text(&output.stderr);
    let is_told = |line: &&str| {
        ["Output ", "absolute path is", "count=", "quota for ", "Quota", "Exception"]
            .iter()
            .any(|start| line.contains(start))
            && !line.contains("[main")
            // Of its connection, which the server may close before the shell does.
            && !["EndOfStreamException", "java.io.", "java.net.", "java.nio."].iter().any(|of| line.contains(of))
    };
    text.lines().filter(is_told).map(str::to_owned).collect()
}

/// T39-T43 as the shell of Apache ZooKeeper shows them.
#[test]
fn the_shells_quotas_are_counted_and_enforced() {
    let story = |kind: Kind| {
        let home = peers::directory();
        let server = Server::start(kind, home.path(), &settings(&["enforceQuota=true"]));
        let mut client = server.client(30_000);
        client.create("/a", b"12345", 0).expect("create");
        client.create("/a/b", b"123", 0).expect("create");
        let mut told = shell(
            &server,
            &[
                "setquota -N 4 /a",
                "setquota -B 100 /a",
                "listquota /a",
                "setquota -n 3 /a/b",
                "listquota /none",
            ],
        );
        client.create("/a/c", b"1", 1).expect("create");
        client.create("/a/d", b"1", 0).expect("create");
        told.push(format!("{:?}", client.create("/a/e", b"", 0).map(|_| ())));
        assert_eq!(client.create("/a/e", b"", 0).map(|_| ()), Err(QUOTA_EXCEEDED));
        told.push(format!("{:?}", client.set("/a/b", &[0; 96], -1).map(|_| ())));
        client.set("/a/b", &[0; 93], -1).expect("within the limit");
        client.delete("/a/d", -1).expect("delete");
        let stats = client.get("/zookeeper/quota/a/zookeeper_stats", false).expect("stats");
        told.push(format!("{:?} {}", stats.0.map(|text| script::text(&text)), stats.1.version));
        told.extend(shell(
            &server,
            &["listquota /a", "delquota -N /a", "listquota /a", "delquota /a", "listquota /a"],
        ));
        client.create("/a/e", b"", 0).expect("no limit any more");
        told
    };
    let told = story(Kind::under_test());
    assert!(told.iter().any(|line| line.contains("Err(-125)")), "{told:#?}");
    assert_eq!(told, story(Kind::Apache));
}
