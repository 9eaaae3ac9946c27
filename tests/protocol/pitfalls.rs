//! Bugs that servers of this protocol have shipped, as their clients met them, by the number of the ticket: ZooKeeper's
//! own, ClickHouse Keeper's and etcd's.
//!
//! `tests/rows/pitfalls.txt` lists all of them, also those that are tested elsewhere or cannot happen here.

use super::{
    peers::{
        self, Client, Dice, Incoming, Kind, Server, Settings,
        client::{self, Handshake},
    },
    start,
};
use bytes::BufMut;
use std::collections::BTreeMap;
use zkfast_wire::{Acl, Decoder, Id, OpCode, Perms, Zxid, jute};

const DELETED: i32 = 2;
const CHANGED: i32 = 3;
const CHILDREN: i32 = 4;

/// `setWatches` with the one-shot lists.
fn set_watches(seen: Zxid, data: &[&str], exist: &[&str], child: &[&str]) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_i64(seen.0);
    for list in [data, exist, child] {
        jute::put_count(&mut body, list.len());
        list.iter().for_each(|path| jute::put_text(&mut body, path));
    }
    body
}

/// Events up to the answer of a ping.
fn events(client: &mut Client) -> Vec<(Zxid, i32, String)> {
    client.ping();
    client
        .events
        .drain(..)
        .map(|event| match event {
            Incoming::Event { zxid, kind, path } => (zxid, kind, path),
            other => panic!("{other:?}"),
        })
        .collect()
}

/// G1, G2 (ClickHouse 115457): a deletion moved neither cversion nor pzxid, so that setWatches had nothing to tell to a
/// client that had been away; and a deletion counted into the next sequence number.
#[test]
fn keeper_115457_a_deletion_shows_in_the_parent() {
    let (_home, server, mut client) = start();
    client.create("/p", b"", 0).expect("a node");
    client.create("/p/a", b"", 0).expect("a node");
    client.children("/p", true).expect("a watch");
    let seen = client.last_zxid;
    let mut writer = server.client(10_000);
    let before = writer.exists("/p", false).expect("a node");
    let mut again = client.again(server.address).expect("the session lives");
    writer.delete("/p/a", -1).expect("a node");
    let after = writer.exists("/p", false).expect("a node");
    assert_eq!((before.cversion, after.cversion, after.pzxid), (1, 2, writer.last_zxid));
    again.call(OpCode::SetWatches, &set_watches(seen, &[], &[], &["/p"])).expect("setWatches");
    assert_eq!(events(&mut again), [(Zxid(-1), CHILDREN, "/p".to_owned())], "what was missed");
    let (name, _) = writer.create("/p/s-", b"", 2).expect("a node");
    assert_eq!(name, "/p/s-0000000001", "one creation came before");
}

/// G10 (ClickHouse 28190): data of a child fired its parent's watch of children.
#[test]
fn keeper_28190_new_data_of_a_child_is_no_change_of_children() {
    let (_home, server, mut client) = start();
    let mut watcher = server.client(10_000);
    client.create("/p", b"", 0).expect("a node");
    client.create("/p/a", b"", 0).expect("a node");
    watcher.children("/p", true).expect("a watch");
    client.set("/p/a", b"1", -1).expect("a node");
    client.call(OpCode::SetAcl, &client::set_acl("/p/a", &[Acl::OPEN], -1)).expect("a node");
    client.create("/p/a/below", b"", 0).expect("a node");
    assert_eq!(events(&mut watcher), []);
    client.delete("/p/a/below", -1).expect("a node");
    client.delete("/p/a", -1).expect("a node");
    assert_eq!(
        events(&mut watcher),
        [(client.last_zxid, CHILDREN, "/p".to_owned())],
        "and the watch was still there"
    );
}

/// ZOOKEEPER-2623 (C25): a `check` outside a multi went through the log and corrupted the database.
#[test]
fn zookeeper_2623_a_check_alone_is_refused_and_changes_nothing() {
    let (_home, server, mut client) = start();
    client.create("/n", b"1", 0).expect("a node");
    let stat = client.exists("/n", false);
    assert_eq!(client.call(OpCode::Check, &client::path_version("/n", -1)), Err(-6));
    assert_eq!(client.next(), None, "and the connection ends");
    let mut again = client.again(server.address).expect("the session lives");
    assert_eq!(again.exists("/n", false), stat);
    again.set("/n", b"2", 0).expect("its version is what it was");
}

/// G18, OP10, OP7, W10 (CVE-2024-23944, ZOOKEEPER-2590): who may not read a node learned of it by exists and by watches,
/// and who may not administer it read the hashes of its passwords.
#[test]
fn cve_2024_23944_what_one_may_not_read_one_does_not_hear_of() {
    let (_home, server, mut owner) = start();
    assert_eq!(owner.auth("digest", b"ann:secret"), 0);
    let ann = "ann:CDSDk8nVAqwFVhSKKwrj6nvwGEA=";
    let mut stranger = server.client(10_000);
    assert_eq!(stranger.exists("/private", true), Err(-101), "it watches what is not there");
    let all = |scheme, id| Acl { perms: Perms::ALL, id: Id::new(scheme, id) };
    let body = client::create("/private", Some(b""), &[all("auth", "")], 0);
    owner.call(OpCode::Create, &body).expect("a node");
    assert_eq!(events(&mut stranger), [], "the creation of a node that it may not read");
    assert_eq!(stranger.exists("/private", true), Err(-102));
    assert_eq!(stranger.get("/private", true), Err(-102));
    // What was refused leaves no watch behind, which would show once the node is open.
    owner.call(OpCode::SetAcl, &client::set_acl("/private", &[Acl::OPEN], -1)).expect("a node");
    owner.set("/private", b"1", -1).expect("a node");
    assert_eq!(events(&mut stranger), []);
    // What is closed behind a watch is not told of: neither data, nor children, nor the end (W10).
    owner.create("/private/c", b"", 0).expect("a node");
    for path in ["/private", "/private/c"] {
        stranger.exists(path, true).expect("it is open");
        stranger.children(path, true).expect("it is open");
    }
    let closed = [all("auth", "")];
    for path in ["/private", "/private/c"] {
        owner.call(OpCode::SetAcl, &client::set_acl(path, &closed, -1)).expect("a node");
    }
    owner.delete("/private/c", -1).expect("a node");
    owner.set("/private", b"1", -1).expect("a node");
    assert_eq!(events(&mut stranger), [], "deletion, change of children, data");
    // Who may read, but not administer, sees names and no hashes.
    let readable = [all("auth", ""), Acl { perms: Perms::READ, id: Id::new("world", "anyone") }];
    owner.call(OpCode::SetAcl, &client::set_acl("/private", &readable, -1)).expect("a node");
    let list = |client: &mut Client| {
        let body = client.call(OpCode::GetAcl, &client::path_alone("/private")).expect("a list");
        let list = Acl::decode_list(&mut Decoder::new(&body)).expect("a list").expect("a list");
        list.iter().map(|entry| entry.id.id.to_string()).collect::<Vec<_>>()
    };
    let hash = list(&mut owner).remove(0);
    assert!(hash.starts_with("ann:") && hash.len() == ann.len(), "{hash}");
    assert_eq!(list(&mut stranger), ["ann:x", "anyone"]);
    owner.set("/private", b"2", -1).expect("a node");
    assert_eq!(events(&mut stranger), []);
    assert_eq!(stranger.exists("/private", true).map(|stat| stat.version), Ok(3));
    owner.set("/private", b"3", -1).expect("a node");
    assert_eq!(events(&mut stranger).len(), 1);
}

/// G23 (C24, S7): the ephemerals of a session went one transaction after the other, so that others saw half of its end.
#[test]
fn ephemerals_go_in_one_transaction_with_an_event_each() {
    let (_home, server, mut owner) = start();
    let mut watcher = server.client(10_000);
    let mut wanted = Vec::new();
    for number in 0..20 {
        let path = format!("/e{number:02}");
        owner.create(&path, b"", 1).expect("a node");
        watcher.exists(&path, true).expect("a node");
        wanted.push(path);
    }
    owner.close();
    let mut told = events(&mut watcher);
    let zxid = told[0].0;
    told.sort_by(|one, other| one.2.cmp(&other.2));
    let wanted: Vec<_> = wanted.into_iter().map(|path| (zxid, DELETED, path)).collect();
    assert_eq!(told, wanted, "each once, all with the zxid of the session's end");
}

/// G38 (R1, T37): a packet at the limit was refused, or one above it taken.
#[test]
fn a_packet_may_be_as_long_as_jute_maxbuffer_and_no_longer() {
    const LIMIT: usize = 1_048_575;
    let (_home, server, mut client) = start();
    client.create("/n", b"", 0).expect("a node");
    let around = 8 + client::set("/n", Some(b""), -1).len();
    for (bytes, is_taken) in [(LIMIT - 1, true), (LIMIT, true), (LIMIT + 1, false)] {
        let mut client = server.client(10_000);
        client.submit(OpCode::SetData, &client::set("/n", Some(&vec![b'x'; bytes - around]), -1));
        // The server closes as soon as it has read the length, and what is sent from then on breaks the connection.
        let sent = client.flush();
        match client.try_next() {
            Ok(Some(Incoming::Reply { err: 0, .. })) => assert!(is_taken, "{bytes}"),
            Ok(None) | Err(_) => assert!(!is_taken, "{bytes}: closed without a reply"),
            other => panic!("{bytes}: {other:?}"),
        }
        if is_taken {
            sent.expect("it is sent");
            let (data, _) = client.get("/n", false).expect("a node");
            assert_eq!(data.map(|data| data.len()), Some(bytes - around));
        }
    }
    // A multi of many small parts is one packet.
    let parts: Vec<_> = (0..60_000).map(|_| (OpCode::Check, client::path_version("/none", -1))).collect();
    let body = client::multi(&parts);
    assert!(body.len() > LIMIT);
    client.submit(OpCode::Multi, &body);
    // The server may close before all of it is sent.
    let _ = client.flush();
    assert!(matches!(client.try_next(), Ok(None) | Err(_)), "closed without a reply");
}

/// R1: a small limit holds as it is given, for the handshake too. Danger: who set it to protect the server is not
/// protected.
#[test]
fn a_small_jute_maxbuffer_is_obeyed() {
    for (limit, bytes, is_taken) in [(1000, 1000, true), (1000, 1001, false), (45, 45, true), (44, 0, false)]
    {
        let home = peers::directory();
        let settings =
            Settings { java_flags: vec![format!("-Djute.maxbuffer={limit}")], ..Settings::default() };
        let server = Server::start(Kind::under_test(), home.path(), &settings);
        let handshake = Handshake::new(10_000);
        assert_eq!(handshake.frame().len(), 4 + 45);
        let Ok(mut client) = Client::handshake(server.address, &handshake) else {
            assert!(limit == 44, "no handshake with {limit}");
            continue;
        };
        let path = "x".repeat(bytes - 8 - 4 - 1);
        client.submit(OpCode::Exists, &client::path_watch(&format!("/{}", &path[1..]), false));
        client.flush().expect("one packet");
        match client.try_next() {
            Ok(Some(Incoming::Reply { err: -101, .. })) => assert!(is_taken, "{bytes} with {limit}"),
            Ok(None) | Err(_) => assert!(!is_taken, "{bytes} with {limit}"),
            other => panic!("{bytes} with {limit}: {other:?}"),
        }
    }
}

/// J3: what is no UTF-8 comes back as Java's reader replaces it: half of a surrogate pair is one U+FFFD.
#[test]
fn bytes_that_are_no_text_are_replaced_as_java_does() {
    let (_home, _server, mut client) = start();
    for (bytes, expected) in
        [(&b"/\xed\xa0\x80"[..], "/\u{fffd}"), (b"/\xe0\x80\x80", "/\u{fffd}\u{fffd}\u{fffd}")]
    {
        let mut body = Vec::new();
        jute::put_buffer(&mut body, Some(bytes));
        let echo = client.call(OpCode::Sync, &body).expect("sync takes any path");
        assert_eq!(Decoder::new(&echo).text("path").expect("a path"), expected);
    }
}

/// G40 (T26): a list of children is a set; whoever takes it for sorted works with one server by chance.
#[test]
fn every_child_is_listed_once_in_whatever_order() {
    let (_home, _server, mut client) = start();
    client.create("/p", b"", 0).expect("a node");
    let mut names: Vec<String> = (0..500).map(|number| format!("n{}", number * 7919 % 500)).collect();
    for name in &names {
        client.create(&format!("/p/{name}"), b"", 0).expect("a node");
    }
    for name in names.split_off(250) {
        client.delete(&format!("/p/{name}"), -1).expect("a node");
    }
    let body = client.call(OpCode::GetChildren, &client::path_watch("/p", false)).expect("children");
    let mut listed = Decoder::new(&body).texts("children").expect("names");
    listed.sort_unstable();
    names.sort_unstable();
    assert_eq!(listed, names);
}

/// etcd 15271, 17247, 17529, 19179: a watch went back in time, told twice, starved, or missed a deletion. One that stays
/// is told of each change once and in order, whatever its core has to do for others meanwhile.
#[test]
fn etcd_17529_a_watch_that_stays_misses_nothing_and_tells_nothing_twice() {
    const CHANGES: usize = 6_000;
    let home = peers::directory();
    let server = Server::start(Kind::under_test(), home.path(), &Settings::default());
    let mut writer = server.client(30_000);
    writer.create("/w", b"", 0).expect("a node");
    let mut watchers: Vec<Client> = (0..3).map(|_| server.client(30_000)).collect();
    for watcher in &mut watchers {
        watcher.call(OpCode::AddWatch, &client::path_version("/w", 1)).expect("a watch");
    }
    let mut dice = Dice::new(17_529);
    let mut there = [false; 8];
    let mut wanted = Vec::new();
    for _ in 0..CHANGES {
        let node = dice.below(there.len());
        let path = format!("/w/{node}");
        let (op, body, kind) = match (there[node], dice.one_in(3)) {
            (false, _) => (OpCode::Create, client::create(&path, Some(b""), &[Acl::OPEN], 0), 1),
            (true, true) => (OpCode::Delete, client::path_version(&path, -1), DELETED),
            (true, false) => (OpCode::SetData, client::set(&path, Some(b"x"), -1), CHANGED),
        };
        there[node] = kind != DELETED;
        writer.submit(op, &body);
        wanted.push((kind, path));
    }
    writer.flush().expect("an open connection");
    let mut zxids = Vec::new();
    for _ in 0..CHANGES {
        match writer.next() {
            Some(Incoming::Reply { zxid, err: 0, .. }) => zxids.push(zxid),
            other => panic!("{other:?}"),
        }
    }
    for watcher in &mut watchers {
        let told: Vec<(i32, String)> =
            events(watcher).into_iter().map(|(_, kind, path)| (kind, path)).collect();
        assert_eq!(told.len(), wanted.len());
        assert!(told == wanted, "each change once, in order");
    }
    assert!(zxids.is_sorted());
}

/// The same for a client that comes and goes (G6, G11, W20): whatever happened while it was away, also a deletion with a
/// new creation behind it, it is told of, so that the last thing it knows of each node is how the node is.
#[test]
fn etcd_15271_who_comes_back_learns_how_things_are() {
    const ROUNDS: usize = 150;
    let (_home, server, mut writer) = start();
    let mut dice = Dice::new(15_271);
    let names: Vec<String> = (0..6).map(|number| format!("/n{number}")).collect();
    let mut client = server.client(10_000);
    // What the client knows: the zxid of the node's data, or that it is absent.
    let mut known: BTreeMap<String, Option<Zxid>> = BTreeMap::new();
    let look = |client: &mut Client, path: &str| client.exists(path, true).ok().map(|stat| stat.mzxid);
    for name in &names {
        known.insert(name.clone(), look(&mut client, name));
    }
    for round in 0..ROUNDS {
        let is_away = dice.one_in(2);
        let seen = client.last_zxid;
        let changes = 1 + dice.below(6);
        let mut change = |writer: &mut Client| {
            for _ in 0..changes {
                let name = &names[dice.below(names.len())];
                match dice.below(3) {
                    0 => drop(writer.create(name, b"", 0)),
                    1 => drop(writer.delete(name, -1)),
                    _ => drop(writer.set(name, b"x", -1)),
                }
            }
        };
        if is_away {
            let ticket = client.ticket();
            drop(client);
            change(&mut writer);
            client = Client::handshake(server.address, &ticket).expect("the session lives");
            let data: Vec<&str> =
                known.iter().filter(|(_, is)| is.is_some()).map(|(path, _)| path.as_str()).collect();
            let exist: Vec<&str> =
                known.iter().filter(|(_, is)| is.is_none()).map(|(path, _)| path.as_str()).collect();
            client.call(OpCode::SetWatches, &set_watches(seen, &data, &exist, &[])).expect("setWatches");
        } else {
            change(&mut writer);
            writer.ping();
        }
        let mut told: Vec<String> = events(&mut client).into_iter().map(|(_, _, path)| path).collect();
        let count = told.len();
        told.sort_unstable();
        told.dedup();
        assert_eq!(told.len(), count, "round {round}: a one-shot watch told twice");
        for path in told {
            let now = look(&mut client, &path);
            known.insert(path, now);
        }
        for name in &names {
            let is = writer.exists(name, false).ok().map(|stat| stat.mzxid);
            assert_eq!(
                known[name], is,
                "round {round}, away {is_away}: the client does not know how {name} is"
            );
        }
    }
}
