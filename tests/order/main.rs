//! The order in which a client sees things: what programs rely on without knowing it.

#[path = "../peers/mod.rs"]
mod peers;

use bytes::BufMut;
use peers::{Incoming, Kind, Server, Settings, client};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};
use zkfast_wire::{Acl, Decoder, OpCode, Xid, jute};

const DATA_CHANGED: i32 = 3;
const CHILDREN_CHANGED: i32 = 4;
const CREATED: i32 = 1;
const DELETED: i32 = 2;

fn server(home: &tempfile::TempDir) -> Server {
    Server::start(Kind::under_test(), home.path(), &Settings::default())
}

fn number(data: Option<Vec<u8>>) -> u64 {
    let text = String::from_utf8(data.unwrap_or_default()).expect("digits");
    text.parse().unwrap_or_else(|_| panic!("{text:?} is not a number"))
}

fn open_create(path: &str, data: &[u8]) -> Vec<u8> {
    client::create(path, Some(data), &[Acl::OPEN], 0)
}

/// Danger: a read overtakes the write before it, or already shows the write behind it, when several writes of a
/// session commit in one batch (S18, S19; ZOOKEEPER-1863).
#[test]
fn a_pipelined_read_sees_exactly_the_writes_before_it() {
    // One thread plays both roles, or each has its own.
    for cores in [1, 2] {
        pipelined_reads(cores);
    }
}

fn pipelined_reads(cores: u32) {
    let home = peers::directory();
    let settings = Settings { cores, ..Settings::default() };
    let server = Server::start(Kind::under_test(), home.path(), &settings);
    thread::scope(|scope| {
        for session in 0..4 {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.client(10_000);
                for round in 0..100 {
                    let path = format!("/fifo-{session}-{round}");
                    let mut wanted =
                        vec![(client.submit(OpCode::Exists, &client::path_watch(&path, false)), None)];
                    client.submit(OpCode::Create, &open_create(&path, b"0"));
                    for value in 0..8 {
                        let get = client.submit(OpCode::GetData, &client::path_watch(&path, false));
                        wanted.push((get, Some(value)));
                        // A sync has no transaction of its own, but a place in the order all the same.
                        client.submit(OpCode::Sync, &client::path_alone(&path));
                        let get = client.submit(OpCode::GetData, &client::path_watch(&path, false));
                        wanted.push((get, Some(value)));
                        let next = (value + 1).to_string();
                        client.submit(OpCode::SetData, &client::set(&path, Some(next.as_bytes()), -1));
                    }
                    client.submit(OpCode::Delete, &client::path_version(&path, -1));
                    wanted.push((client.submit(OpCode::GetData, &client::path_watch(&path, false)), None));
                    client.flush().expect("an open connection");
                    let mut wanted = wanted.into_iter().peekable();
                    let mut last = 0;
                    while let Some((read, value)) = wanted.peek().copied() {
                        let Some(Incoming::Reply { xid, err, body, .. }) = client.next() else {
                            panic!("no watch was set and the connection is open")
                        };
                        assert!(
                            last == 0 || xid == last + 1,
                            "replies leave in the order of the requests (C18)"
                        );
                        last = xid;
                        if xid == read {
                            wanted.next();
                            let seen = (err == 0).then(|| number(client::data_and_stat(&body).0));
                            assert_eq!(seen, value, "{path}: request {xid} answered {err}");
                        } else {
                            assert_eq!(err, 0, "write {xid} of {path}");
                        }
                    }
                }
                client.close();
            });
        }
    });
}

/// Danger: the event of a watch leaves before the reply of the read that set it: clients then know no such watch and
/// drop the event for good (W18; G9, ClickHouse 18217 and 28197). And the mirror: new data is seen before its event
/// (W16).
#[test]
fn a_registration_is_answered_before_its_event_and_new_data_comes_after_it() {
    let home = peers::directory();
    let server = server(&home);
    server.client(10_000).create("/watched", b"0", 0).expect("a node");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = server.client(10_000);
            let mut value = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                value += 1;
                writer.set("/watched", value.to_string().as_bytes(), -1).expect("a set");
            }
        });
        let watchers: Vec<_> = (0..3).map(|_| scope.spawn(|| watch_many(&server))).collect();
        let results: Vec<_> = watchers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::Relaxed);
        results.into_iter().for_each(|result| result.expect("a watcher"));
    });
}

fn watch_many(server: &Server) {
    let mut client = server.client(10_000);
    for _ in 0..300 {
        // Two reads at once: if the second shows more, the event belongs between them.
        let first = client.submit(OpCode::GetData, &client::path_watch("/watched", true));
        let second = client.submit(OpCode::GetData, &client::path_watch("/watched", false));
        client.flush().expect("an open connection");
        let mut armed_at = None;
        let mut fired = false;
        let mut answered = false;
        while !fired || !answered {
            match client.next().expect("an open connection") {
                Incoming::Reply { xid, err, body, .. } => {
                    assert_eq!(err, 0);
                    let value = number(client::data_and_stat(&body).0);
                    if xid == first {
                        armed_at = Some(value);
                    } else {
                        assert_eq!(xid, second);
                        let armed_at = armed_at.expect("replies in order");
                        assert_eq!(
                            value > armed_at,
                            fired,
                            "data {value} after {armed_at}, event seen: {fired}"
                        );
                        answered = true;
                    }
                }
                Incoming::Event { kind, path, .. } => {
                    assert!(armed_at.is_some(), "the event came before the reply that set the watch");
                    assert!(!fired, "a one-shot watch fired twice");
                    assert_eq!((kind, path.as_str()), (DATA_CHANGED, "/watched"));
                    fired = true;
                }
            }
        }
    }
    client.close();
}

/// Danger: a client's own write is answered before the events that it causes for itself (W17); recipes that read
/// after their own write would then act on an old view.
#[test]
fn the_event_of_an_own_write_precedes_its_reply() {
    let home = peers::directory();
    let server = server(&home);
    let mut client = server.client(10_000);
    client.create("/own", b"", 0).expect("a node");
    for round in 0..200 {
        let child = format!("/own/{round}");
        let exists = client.submit(OpCode::Exists, &client::path_watch(&child, true));
        let children = client.submit(OpCode::GetChildren, &client::path_watch("/own", true));
        let create = client.submit(OpCode::Create, &open_create(&child, b""));
        let get = client.submit(OpCode::GetData, &client::path_watch(&child, true));
        let set = client.submit(OpCode::SetData, &client::set(&child, Some(b"1"), -1));
        let again = client.submit(OpCode::GetData, &client::path_watch(&child, true));
        let delete = client.submit(OpCode::Delete, &client::path_version(&child, -1));
        client.flush().expect("an open connection");
        let own = "/own".to_owned();
        let expected = [
            Ok(exists),
            Ok(children),
            Err((CREATED, child.clone())),
            Err((CHILDREN_CHANGED, own)),
            Ok(create),
            Ok(get),
            Err((DATA_CHANGED, child.clone())),
            Ok(set),
            Ok(again),
            Err((DELETED, child)),
            Ok(delete),
        ];
        for step in expected {
            let seen = match client.next().expect("an open connection") {
                Incoming::Reply { xid, .. } => Ok(xid),
                Incoming::Event { kind, path, .. } => Err((kind, path)),
            };
            assert_eq!(seen, step, "round {round}");
        }
    }
}

/// Danger: a reader sees one half of a transaction (S22).
#[test]
fn a_multi_is_never_seen_half_applied() {
    let home = peers::directory();
    let server = server(&home);
    let mut writer = server.client(10_000);
    writer.create("/a", b"0", 0).expect("a node");
    writer.create("/b", b"0", 0).expect("a node");
    let stop = AtomicBool::new(false);
    let mut several = Vec::new();
    for path in ["/a", "/b"] {
        several.put_i32(OpCode::GetData.to_i32());
        jute::put_bool(&mut several, false);
        several.put_i32(-1);
        several.extend(client::path_watch(path, false));
    }
    several.put_i32(-1);
    jute::put_bool(&mut several, true);
    several.put_i32(-1);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let mut reader = server.client(10_000);
                let (stop, several) = (&stop, &several);
                scope.spawn(move || {
                    let mut rounds = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let reads: Vec<i32> = ["/a", "/b", "/a"]
                            .map(|path| reader.submit(OpCode::GetData, &client::path_watch(path, false)))
                            .to_vec();
                        let both = reader.submit(OpCode::MultiRead, several);
                        reader.flush().expect("an open connection");
                        let values: Vec<u64> = reads
                            .into_iter()
                            .map(|xid| number(client::data_and_stat(&reader.reply(xid).expect("a node")).0))
                            .collect();
                        assert!(values.is_sorted(), "a, b, a were read as {values:?}");
                        let body = reader.reply(both).expect("a multiRead");
                        let mut decoder = Decoder::new(&body);
                        let mut value = || {
                            decoder.i32("type").expect("a result");
                            decoder.u8("done").expect("a result");
                            decoder.i32("err").expect("a result");
                            let data = decoder.buffer("data").expect("data").map(<[u8]>::to_vec);
                            zkfast_wire::Stat::decode(&mut decoder).expect("a stat");
                            number(data)
                        };
                        let (a, b) = (value(), value());
                        assert_eq!(a, b, "a multiRead saw one half of a multi");
                        rounds += 1;
                    }
                    rounds
                })
            })
            .collect();
        for value in 1..=1_500_u64 {
            let text = value.to_string();
            let parts =
                ["/a", "/b"].map(|path| (OpCode::SetData, client::set(path, Some(text.as_bytes()), -1)));
            let body = writer.call(OpCode::Multi, &client::multi(&parts)).expect("a multi");
            assert_eq!(client::multi_errors(&body), None);
        }
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            let rounds: u32 = reader.join().expect("a reader");
            assert!(rounds > 10, "a reader read only {rounds} times beside 1,500 writes");
        }
    });
}

/// Danger: a client is told of its write, tells another client, and that one does not find it (S20, S21: a standalone
/// server is linearizable; the cores of one server must be too).
#[test]
fn what_one_client_was_told_every_client_finds() {
    let home = peers::directory();
    let server = server(&home);
    server.client(10_000).create("/told", b"0", 0).expect("a node");
    let told = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = server.client(10_000);
            for value in 1..=2_000_u64 {
                writer.set("/told", value.to_string().as_bytes(), -1).expect("a set");
                told.store(value, Ordering::SeqCst);
            }
        });
        for _ in 0..4 {
            scope.spawn(|| {
                let mut reader = server.client(10_000);
                loop {
                    let before = told.load(Ordering::SeqCst);
                    let seen = number(reader.get("/told", false).expect("a node").0);
                    assert!(seen >= before, "write {before} was acknowledged, a later read shows {seen}");
                    if seen == 2_000 {
                        return;
                    }
                }
            });
        }
    });
}

/// Danger: a ping's answer overtakes an unfinished write (C20), or an unknown operation does not end the connection
/// (C25).
#[test]
fn pings_wait_in_line_and_unknown_operations_end_the_connection() {
    let home = peers::directory();
    let server = server(&home);
    let mut client = server.client(10_000);
    let create = client.submit(OpCode::Create, &open_create("/line", b""));
    client.submit_as(Xid::PING, OpCode::Ping.to_i32(), &[]);
    let get = client.submit(OpCode::GetData, &client::path_watch("/line", false));
    client.flush().expect("an open connection");
    let order: Vec<i32> = (0..3)
        .map(|_| match client.next() {
            Some(Incoming::Reply { xid, err: 0, .. }) => xid,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(order, [create, Xid::PING.0, get]);
    client.submit_as(Xid(77), 4_711, &[]);
    client.flush().expect("an open connection");
    match client.next() {
        Some(Incoming::Reply { xid: 77, err: -6, body, .. }) => assert_eq!(body, []),
        other => panic!("operation 4711 was answered with {other:?}"),
    }
    assert_eq!(client.next(), None, "and then the connection ends");
}

/// Danger: a body that cannot be decoded kills the connection or shifts the stream (C27).
#[test]
fn an_undecodable_body_is_answered_and_the_connection_stays() {
    let home = peers::directory();
    let server = server(&home);
    let mut client = server.client(10_000);
    assert_eq!(client.call(OpCode::GetData, &[0, 0, 0, 9, b'/']), Err(-5));
    assert_eq!(client.call(OpCode::Create, &[0xff; 3]), Err(-5));
    client.create("/after", b"", 0).expect("the connection still works");
    client.close();
}

/// Danger: `nc` closes its sending side first; a server that takes that for the end answers nothing (O124), and a
/// health check restarts it.
#[test]
fn four_letter_words_are_answered_after_a_half_close() {
    let home = peers::directory();
    let server = server(&home);
    assert_eq!(server.four_letter("ruok").as_deref(), Some("imok"));
    for (word, part) in [
        ("srvr", "\nMode: standalone\n"),
        ("stat", "Clients:\n"),
        ("conf", "clientPort="),
        ("mntr", "zk_server_state\tstandalone\n"),
        ("isro", "rw"),
        ("envi", "zookeeper.version="),
    ] {
        let text = server.four_letter(word).unwrap_or_default();
        assert!(text.contains(part), "{word} answered {text:?}");
    }
    assert!(server.four_letter("srvr").is_some_and(|text| text.starts_with("Zookeeper version: 3.")));
}

/// Danger: a client that was away misses what happened meanwhile (W20): setWatches must tell it, before its answer.
#[test]
fn set_watches_tells_what_was_missed() {
    let home = peers::directory();
    let server = server(&home);
    let mut other = server.client(10_000);
    for path in ["/data", "/gone", "/parent", "/quiet"] {
        other.create(path, b"", 0).expect("a node");
    }
    let client = server.client(10_000);
    let seen = other.exists("/quiet", false).expect("a node").mzxid;
    other.set("/data", b"1", -1).expect("a set");
    other.delete("/gone", -1).expect("a delete");
    other.create("/parent/child", b"", 0).expect("a node");
    other.create("/new", b"", 0).expect("a node");
    let mut again = client.again(server.address).expect("the session lives");
    let mut body = Vec::new();
    body.put_i64(seen.0);
    for list in [&["/data", "/gone", "/quiet"][..], &["/new", "/never"], &["/parent", "/quiet"]] {
        jute::put_count(&mut body, list.len());
        list.iter().for_each(|path| jute::put_text(&mut body, path));
    }
    again.submit_as(Xid::SET_WATCHES, OpCode::SetWatches.to_i32(), &body);
    again.flush().expect("an open connection");
    let mut events = Vec::new();
    loop {
        match again.next().expect("an open connection") {
            Incoming::Event { zxid, kind, path } => {
                assert_eq!(zxid.0, -1, "an event of setWatches has no transaction (C19)");
                events.push((kind, path));
            }
            Incoming::Reply { xid, err, .. } => {
                assert_eq!((xid, err), (Xid::SET_WATCHES.0, 0));
                break;
            }
        }
    }
    events.sort_unstable();
    let expected =
        [(CREATED, "/new"), (DELETED, "/gone"), (DATA_CHANGED, "/data"), (CHILDREN_CHANGED, "/parent")];
    assert_eq!(events, expected.map(|(kind, path)| (kind, path.to_owned())));
    other.set("/quiet", b"1", -1).expect("a set");
    other.create("/quiet/child", b"", 0).expect("a node");
    other.create("/never", b"", 0).expect("a node");
    let later: Vec<(i32, String)> = (0..3).map(|_| again.event()).collect();
    let expected = [(DATA_CHANGED, "/quiet"), (CHILDREN_CHANGED, "/quiet"), (CREATED, "/never")];
    assert_eq!(later, expected.map(|(kind, path)| (kind, path.to_owned())));
}
