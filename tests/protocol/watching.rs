//! Watches: who is told what, and how long.

use super::{
    peers::{Client, Incoming, client},
    start,
};
use bytes::BufMut;
use zkfast_wire::{Acl, OpCode, jute};

const CREATED: i32 = 1;
const DELETED: i32 = 2;
const CHANGED: i32 = 3;
const CHILDREN: i32 = 4;

/// Events up to the answer of a ping, which follows all that were due.
fn events(client: &mut Client) -> Vec<(i32, String)> {
    client.ping();
    client
        .events
        .drain(..)
        .map(|event| match event {
            Incoming::Event { kind, path, .. } => (kind, path),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn of(pairs: &[(i32, &str)]) -> Vec<(i32, String)> {
    pairs.iter().map(|(kind, path)| (*kind, (*path).to_owned())).collect()
}

fn add(client: &mut Client, path: &str, mode: i32) {
    let body = client.call(OpCode::AddWatch, &client::path_version(path, mode)).expect("a watch");
    assert_eq!(body, [0; 4], "an error field of 0 as body (OP28)");
}

/// Danger: a persistent watch ends, a recursive one misses a descendant or tells of children, a one-shot watch fires
/// twice (OP28, OP36, W2, W4, W7, W8, W14, W19, G10; G7, ClickHouse 98499: an answer without its
/// four bytes).
#[test]
fn each_mode_is_told_of_what_it_watches() {
    let (_home, server, mut writer) = start();
    let (mut once, mut always, mut below) =
        (server.client(10_000), server.client(10_000), server.client(10_000));
    assert_eq!(once.exists("/w", true), Err(-101));
    assert_eq!(once.children("/w", true), Err(-101), "no watch after a failed read (W6)");
    add(&mut always, "/w", 0);
    add(&mut below, "/w", 1);
    writer.create("/w", b"", 0).expect("a node");
    writer.create("/w/c", b"", 0).expect("a node");
    writer.set("/w/c", b"1", -1).expect("a node");
    writer.set("/w", b"1", -1).expect("a node");
    // Nothing of this concerns anybody (W14).
    writer.call(OpCode::SetAcl, &client::set_acl("/w", &[Acl::OPEN], -1)).expect("a node");
    assert_eq!(writer.set("/w", b"2", 77), Err(-103));
    writer
        .call(OpCode::Multi, &client::multi(&[(OpCode::Check, client::path_version("/w", -1))]))
        .expect("a check");
    writer.delete("/w/c", -1).expect("a node");
    writer.delete("/w", -1).expect("a node");
    writer.create("/w", b"", 0).expect("a node");
    assert_eq!(events(&mut once), of(&[(CREATED, "/w")]));
    let expected = [
        (CREATED, "/w"),
        (CHILDREN, "/w"),
        (CHANGED, "/w"),
        (CHILDREN, "/w"),
        (DELETED, "/w"),
        (CREATED, "/w"),
    ];
    assert_eq!(events(&mut always), of(&expected));
    let expected = [
        (CREATED, "/w"),
        (CREATED, "/w/c"),
        (CHANGED, "/w/c"),
        (CHANGED, "/w"),
        (DELETED, "/w/c"),
        (DELETED, "/w"),
        (CREATED, "/w"),
    ];
    assert_eq!(events(&mut below), of(&expected));
}

/// Danger: the events of a multi come in another order than its parts, or carry another zxid (T35, C19).
#[test]
fn the_events_of_a_multi_follow_its_parts() {
    let (_home, server, mut writer) = start();
    let mut watcher = server.client(10_000);
    add(&mut watcher, "/", 1);
    let parts = [
        (OpCode::Create, client::create("/m", Some(b""), &[Acl::OPEN], 0)),
        (OpCode::SetData, client::set("/m", Some(b"x"), -1)),
        (OpCode::Delete, client::path_version("/m", -1)),
    ];
    writer.call(OpCode::Multi, &client::multi(&parts)).expect("a multi");
    for wanted in [CREATED, CHANGED, DELETED] {
        match watcher.next() {
            Some(Incoming::Event { zxid, kind, path }) => {
                assert_eq!((zxid, kind, path.as_str()), (writer.last_zxid, wanted, "/m"));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Danger: a watch is taken that was not meant, or one that was stays (OP20, OP21, OP35, W24, E29).
#[test]
fn a_watch_is_found_and_removed_by_its_kind() {
    let (_home, server, mut client) = start();
    let mut other = server.client(10_000);
    client.create("/k", b"", 0).expect("a node");
    client.get("/k", true).expect("a node");
    client.children("/k", true).expect("a node");
    add(&mut client, "/k", 0);
    add(&mut client, "/k", 1);
    let check =
        |client: &mut Client, kind| client.call(OpCode::CheckWatches, &client::path_version("/k", kind));
    let remove =
        |client: &mut Client, kind| client.call(OpCode::RemoveWatches, &client::path_version("/k", kind));
    for kind in 1..=5 {
        assert_eq!(check(&mut client, kind), Ok(vec![]), "{kind}");
        assert_eq!(check(&mut other, kind), Err(-121), "{kind}: watches are the connection's (W1)");
    }
    for kind in [2, 1, 4, 5] {
        assert_eq!(remove(&mut client, kind), Ok(vec![]), "{kind}");
        assert_eq!((check(&mut client, kind), remove(&mut client, kind)), (Err(-121), Err(-121)), "{kind}");
        assert_eq!(check(&mut client, 3).is_ok(), kind != 5, "the others stay until the last one goes");
    }
    other.set("/k", b"1", -1).expect("a node");
    assert_eq!(events(&mut client), []);
    add(&mut client, "/k", 0);
    client.get("/k", true).expect("a node");
    assert_eq!(remove(&mut client, 3), Ok(vec![]), "any kind means all of them");
    assert_eq!(check(&mut client, 4), Err(-121));
}

/// Danger: a client that comes back lives with the watches of its old connection, or without those that it names (OP23,
/// OP27, W1, W9, W20, W22, G6; G11, ClickHouse 93213).
#[test]
fn a_new_connection_begins_without_watches_and_names_its_own() {
    let (_home, server, mut client) = start();
    let mut writer = server.client(10_000);
    writer.create("/old", b"", 0).expect("a node");
    client.get("/old", true).expect("a node");
    add(&mut client, "/", 1);
    let mut again = client.again(server.address).expect("the session lives");
    assert_eq!(client.next(), None, "the old connection ends (C12)");
    writer.set("/old", b"1", -1).expect("a node");
    assert_eq!(events(&mut again), [], "nobody watches any more (W1)");
    let seen = again.last_zxid;
    writer.set("/old", b"2", -1).expect("a node");
    let mut body = Vec::new();
    body.put_i64(seen.0);
    for list in [&["/old"][..], &["/new"], &[], &["/old"], &["/"]] {
        jute::put_count(&mut body, list.len());
        list.iter().for_each(|path| jute::put_text(&mut body, path));
    }
    again.call(OpCode::SetWatches2, &body).expect("setWatches2");
    assert_eq!(events(&mut again), of(&[(CHANGED, "/old")]), "what was missed");
    writer.create("/new", b"", 0).expect("a node");
    writer.create("/old/c", b"", 0).expect("a node");
    let expected = [(CREATED, "/new"), (CREATED, "/old/c"), (CHILDREN, "/old")];
    assert_eq!(events(&mut again), of(&expected));
}

/// W20. Danger: a null among the paths costs the watches before it, or answers what Java does not.
#[test]
fn set_watches_goes_as_far_as_the_first_null() {
    let (_home, server, mut writer) = start();
    let mut client = server.client(10_000);
    let mut ask = |lists: [&[Option<&str>]; 5]| {
        let mut body = Vec::new();
        body.put_i64(0);
        for list in lists {
            jute::put_count(&mut body, list.len());
            list.iter().for_each(|path| jute::put_buffer(&mut body, path.map(str::as_bytes)));
        }
        let answer = client.call(OpCode::SetWatches2, &body);
        (answer.map(|_| ()), events(&mut client))
    };
    let null: &[Option<&str>] = &[None];
    assert_eq!(
        ask([&[Some("/gone"), None, Some("/late")], &[], &[], &[Some("/p")], &[]]),
        (Err(-5), of(&[(DELETED, "/gone")]))
    );
    assert_eq!(ask([&[], &[Some("/later"), None], &[], &[], &[]]), (Err(-5), vec![]));
    assert_eq!(ask([&[], &[], &[Some("/gone"), None], &[], &[]]), (Err(-5), of(&[(DELETED, "/gone")])));
    // The table of watches has a place for null.
    assert_eq!(ask([&[], &[], &[], null, &[Some("/r")]]), (Ok(()), vec![]));
    assert_eq!(ask([&[], &[], &[], &[], null]), (Ok(()), vec![]));
    for path in ["/late", "/later", "/p", "/r"] {
        writer.create(path, b"", 0).expect("a node");
    }
    assert_eq!(events(&mut client), of(&[(CREATED, "/later"), (CREATED, "/r")]));
}

/// R10. Danger: watches cost so much memory that a server with many clients runs out of it. 100,000 watches by default;
/// `ZKFAST_WATCHES=1000000 cargo test --release --test protocol watches_take_little -- --nocapture --test-threads 1`
/// measures a million of each kind.
#[test]
fn watches_take_little_memory() {
    million_of("one-shot", 1);
}

/// R10, W7, W8. Danger: the same for watches that stay, of one path or of all below it.
#[test]
fn persistent_watches_take_little_memory() {
    million_of("persistent", 3);
}

/// R10, W7, W8. Danger: what tells a recursive watch from others costs more than the watch.
#[test]
fn recursive_watches_take_little_memory() {
    million_of("persistent recursive", 4);
}

/// Leaves watches on paths that are not there, of the kind that the list of setWatches2 at `list` stands for.
fn million_of(kind: &str, list: usize) {
    const AT_ONCE: usize = 10_000;
    const LISTS: usize = 5;
    let (_home, server, mut client) = start();
    let count: usize = std::env::var("ZKFAST_WATCHES")
        .map_or(100_000, |text| text.parse().expect("ZKFAST_WATCHES is a number"));
    let before = server.resident_kib();
    let began = std::time::Instant::now();
    for first in (0..count).step_by(AT_ONCE) {
        let mut body = Vec::new();
        body.put_i64(0);
        for at in 0..LISTS {
            jute::put_count(&mut body, if at == list { AT_ONCE } else { 0 });
            if at == list {
                let paths = (first..first + AT_ONCE).map(|n| format!("/watched/node-{n:010}"));
                paths.for_each(|path| jute::put_text(&mut body, &path));
            }
        }
        client.call(OpCode::SetWatches2, &body).expect("watches on absent nodes");
    }
    let took = began.elapsed();
    let held: usize = server.monitor("zk_watch_count").expect("a figure").parse().expect("a number");
    let pairs = count.next_multiple_of(AT_ONCE);
    // A persistent watch is one of data and one of children.
    assert_eq!(held, if list == 3 { 2 * pairs } else { pairs });
    let held = pairs;
    let grown = server.resident_kib() - before;
    println!(
        "{held} {kind} watches, each on a path of 24 bytes: {} MB resident, {took:?}",
        grown * 1024 / 1_000_000
    );
    // Beside the watches, the buffers of the connection and of the reading core.
    let bound = (8 << 20) + 95 * held as u64;
    assert!(grown * 1024 < bound, "{grown} KiB for {held} watches, more than {bound} bytes");
    client.close();
}
