//! A data directory changes hands between Apache ZooKeeper 3.8.0 and zkfast, after an orderly stop and after a kill:
//! the tree is equal in every field, and the sessions go on.

#[path = "../peers/mod.rs"]
mod peers;

use peers::{Client, Kind, Server, Settings, client, tree};
use zkfast_wire::{Acl, Id, OpCode, Perms};

/// `SHA1("reader:secret")`: who may read everything that the tests write.
const READER: Acl<'static> =
    Acl { perms: Perms::ALL, id: Id::new("digest", "reader:TwMYkJISsEPORbrSYGWeRLjeNEk=") };

fn settings() -> Settings {
    // Snapshots and new log files during the writes: the next server reads both.
    Settings { snap_count: 150, ..Settings::default() }
}

/// A session of somebody who may read everything.
fn reader(server: &Server) -> Client {
    let mut client = server.client(10_000);
    assert_eq!(client.auth("digest", b"reader:secret"), 0);
    client
}

/// Writes a bit of everything below `root`, and leaves two ephemerals of `client` there.
fn write_everything(client: &mut Client, server: &Server, root: &str) {
    client.create(root, b"root", 0).expect("a new folder");
    let path = |name: &str| format!("{root}/{name}");
    for index in 0..120 {
        client
            .create(&path(&format!("many-{index}")), format!("value {index}").as_bytes(), 0)
            .expect("create");
        match index % 4 {
            0 => drop(client.set(&path(&format!("many-{index}")), b"changed", 0).expect("set")),
            1 => client.delete(&path(&format!("many-{index}")), 0).expect("delete"),
            _ => {}
        }
    }
    for _ in 0..5 {
        client.create(&path("sequence-"), b"", 2).expect("create");
    }
    let mut deep = root.to_owned();
    for level in 0..20 {
        deep = format!("{deep}/level-{level}");
        client.create(&deep, b"deep", 0).expect("create");
    }
    client.create(&path("b\u{fc}cher-\u{4e2d}\u{6587}"), "\u{e9}".as_bytes(), 0).expect("create");
    client.create(&path("empty"), b"", 0).expect("create");
    client.create(&path("large"), &vec![b'x'; 300_000], 0).expect("create");
    let null = client::create(&path("null"), None, &[Acl::OPEN], 0);
    client.call(OpCode::Create, &null).expect("create");
    // A container with a child: an empty one might be reaped.
    let container = client::create(&path("container"), Some(b"c"), &[Acl::OPEN], 4);
    client.call(OpCode::CreateContainer, &container).expect("createContainer");
    client.create(&path("container/child"), b"", 0).expect("create");
    let here = Acl { perms: Perms::READ.or(Perms::CREATE), id: Id::new("ip", "127.0.0.0/8") };
    let there = Acl { perms: Perms::WRITE, id: Id::new("ip", "10.1.2.3") };
    let lists = [
        vec![READER, here.clone()],
        vec![Acl::READ_ONLY, READER],
        vec![READER],
        vec![there, READER, Acl::READ_ONLY],
    ];
    for (index, list) in lists.iter().enumerate() {
        let name = path(&format!("acl-{index}"));
        client.call(OpCode::Create, &client::create(&name, Some(b"a"), list, 0)).expect("create");
        client.create(&path(&format!("open-{index}")), b"", 0).expect("create");
        let body = client::set_acl(&path(&format!("open-{index}")), list, 0);
        client.call(OpCode::SetAcl, &body).expect("setACL");
    }
    assert_eq!(client.create(&path("no/parent"), b"", 0).map(|_| ()), Err(-101));
    assert_eq!(client.set(&path("empty"), b"", 7).map(|_| ()), Err(-103));
    assert_eq!(client.delete(&path("container"), -1), Err(-111));
    let create = |name: &str| (OpCode::Create, client::create(&path(name), Some(b"m"), &[Acl::OPEN], 0));
    let good = [
        create("multi"),
        (OpCode::SetData, client::set(&path("multi"), Some(b"mm"), 0)),
        (OpCode::Check, client::path_version(&path("multi"), 1)),
        (OpCode::Delete, client::path_version(&path("empty"), -1)),
    ];
    let body = client.call(OpCode::Multi, &client::multi(&good)).expect("multi");
    assert_eq!(client::multi_errors(&body), None);
    let bad = [create("never"), (OpCode::Check, client::path_version(&path("multi"), 9)), create("never-2")];
    let body = client.call(OpCode::Multi, &client::multi(&bad)).expect("multi");
    assert_eq!(
        client::multi_errors(&body),
        Some(vec![0, -103, -2]),
        "a refused multi is in the log too (T34, G13)"
    );
    let mut guest = server.client(10_000);
    guest.create(&path("guest"), b"", 1).expect("create");
    guest.close();
    client.create(&path("mine"), b"e", 1).expect("create");
    client.create(&path("mine-"), b"es", 3).expect("create");
    // And something after the newest snapshot.
    for index in 0..10 {
        client.set(&path("multi"), format!("last {index}").as_bytes(), -1).expect("set");
    }
}

/// Lets `chain` of servers take turns on one directory, each writing more, each ended in the same way.
fn hand_over(chain: &[Kind], orderly: bool) {
    let home = peers::directory();
    let mut held: Vec<Client> = Vec::new();
    let mut before: Option<tree::Tree> = None;
    for (turn, kind) in chain.iter().enumerate() {
        let server = Server::start(*kind, home.path(), &settings());
        let story = format!("turn {turn} of {chain:?}, orderly: {orderly}");
        let mut reader = reader(&server);
        if let Some(before) = &before {
            tree::assert_equal(before, &tree::read(&mut reader, "/"), &story);
        }
        // Each session goes on with its id and password, and its ephemerals are still its own.
        for (index, client) in held.iter_mut().enumerate() {
            let again = client.again(server.address);
            *client =
                again.unwrap_or_else(|refusal| panic!("{story}: session {index} is refused: {refusal:?}"));
            let stat = client.exists(&format!("/turn-{index}/mine"), false).expect("its ephemeral");
            assert_eq!(stat.ephemeral_owner, client.session, "{story}");
            client.set(&format!("/turn-{index}/mine"), story.as_bytes(), -1).expect("it can write");
        }
        let mut client = server.client(10_000);
        assert_eq!(client.auth("digest", b"reader:secret"), 0);
        write_everything(&mut client, &server, &format!("/turn-{turn}"));
        held.push(client);
        before = Some(tree::read(&mut reader, "/"));
        // P33, P34: each kind compares the digests that the other wrote into its log and snapshots with its own tree's.
        assert_eq!(server.monitor("zk_digest_mismatches_count").as_deref(), Some("0"), "{story}");
        if orderly {
            server.stop();
        } else {
            server.kill();
        }
    }
}

fn other(kind: Kind) -> Kind {
    match (kind, Kind::under_test()) {
        (_, Kind::Apache) | (Kind::Zkfast, _) => Kind::Apache,
        (Kind::Apache, tested) => tested,
    }
}

/// Danger: who tries zkfast cannot go back, or comes back to another tree.
#[test]
fn apache_opens_what_zkfast_left_in_order_and_the_other_way_round() {
    let tested = Kind::under_test();
    hand_over(&[tested, other(tested), tested], true);
}

/// The same where nobody had time to tidy up.
#[test]
fn apache_opens_what_a_killed_zkfast_left_and_the_other_way_round() {
    let tested = Kind::under_test();
    hand_over(&[tested, other(tested), tested], false);
}

/// Danger: a running installation's directory is not understood, orderly left or not.
#[test]
fn zkfast_opens_what_apache_left_and_apache_opens_it_again() {
    let tested = Kind::under_test();
    hand_over(&[Kind::Apache, tested, Kind::Apache], true);
    hand_over(&[Kind::Apache, tested, Kind::Apache], false);
}

/// Danger: Apache's server uses up a zxid without logging anything and thinks nothing of it; we refuse its directory.
#[test]
fn a_directory_with_a_zxid_that_apache_used_up_is_taken_over() {
    for is_orderly in [false, true] {
        let home = peers::directory();
        let server = Server::start(Kind::Apache, home.path(), &settings());
        let mut client = server.client(10_000);
        client.create("/a", b"", 0).expect("create");
        client.submit(OpCode::Multi, &client::multi_without_path());
        client.flush().expect("an open connection");
        assert!(client.next().is_some(), "an answer of any kind");
        let (_, stat) = client.create("/b", b"", 0).expect("create");
        let (_, before) = client.get("/a", false).expect("get");
        assert_eq!(stat.czxid.0, before.czxid.0 + 2, "no zxid was used up");
        if is_orderly {
            server.stop();
        } else {
            server.kill()
        }
        let server = Server::start(Kind::Zkfast, home.path(), &settings());
        assert!(server.client(10_000).exists("/b", false).is_ok());
        server.await_log(&["nobody ever logged"]);
    }
}
