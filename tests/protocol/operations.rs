//! Operations that succeed: the shapes of their answers and what they change.

use super::{
    peers::{Incoming, client},
    start,
};
use bytes::BufMut;
use zkfast_wire::{Acl, Decoder, OpCode, Stat, Xid, jute};

fn created_stat(body: &[u8]) -> (String, Stat) {
    let mut decoder = Decoder::new(body);
    let path = decoder.text("path").expect("a path").into_owned();
    let stat = Stat::decode(&mut decoder).expect("a stat");
    assert_eq!(decoder.remaining(), 0);
    (path, stat)
}

/// Danger: a kind of node is made as another kind, or its answer has another shape (OP1-OP4, OP34, T12, T15-T18, T24; G8,
/// ClickHouse 55595: no create2; G20).
#[test]
fn nodes_of_every_kind_are_created() {
    let (_home, server, mut client) = start();
    let plain =
        client.call(OpCode::Create, &client::create("/p", Some(b"x"), &[Acl::OPEN], 0)).expect("a node");
    assert_eq!(plain, [0, 0, 0, 2, b'/', b'p'], "create answers with the path alone");
    let mut ttl = client::create("/ttl", Some(b""), &[Acl::OPEN], 5);
    ttl.put_i64(60_000);
    let session = client.session.0;
    for (op, body, path, owner) in [
        (OpCode::Create2, client::create("/p/plain", Some(b"abc"), &[Acl::OPEN], 0), "/p/plain", 0),
        (OpCode::Create2, client::create("/p/e", Some(b"abc"), &[Acl::OPEN], 1), "/p/e", session),
        (OpCode::Create2, client::create("/p/s-", Some(b"abc"), &[Acl::OPEN], 2), "/p/s-0000000002", 0),
        (OpCode::Create2, client::create("/p/s-", Some(b"abc"), &[Acl::OPEN], 3), "/p/s-0000000003", session),
        (OpCode::CreateContainer, client::create("/c", Some(b"abc"), &[Acl::OPEN], 4), "/c", 0),
        (OpCode::CreateTtl, ttl, "/ttl", 0),
    ] {
        let (name, stat) = created_stat(&client.call(op, &body).expect("a node"));
        assert_eq!((name.as_str(), stat.ephemeral_owner.0), (path, owner), "{op:?}");
        assert_eq!(
            (stat.czxid, stat.mzxid, stat.pzxid),
            (client.last_zxid, client.last_zxid, client.last_zxid)
        );
        assert_eq!(stat.ctime_ms, stat.mtime_ms);
        let now = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_millis() as i64;
        assert!((now - 60_000..=now).contains(&stat.ctime_ms), "milliseconds of the wall clock (T15)");
        assert_eq!((stat.version, stat.cversion, stat.aversion, stat.num_children), (0, 0, 0, 0));
        assert_eq!(client.exists(path, false), Ok(stat), "what create says is what is there (OP7)");
    }
    client.close();
    let mut other = server.client(10_000);
    assert_eq!(other.exists("/p/e", false), Err(-101), "an ephemeral goes with its session (T24)");
    assert!(other.exists("/p/plain", false).is_ok() && other.exists("/c", false).is_ok());
}

/// Danger: a counter moves with the wrong operation, and a client's compare-and-set lets a change through
/// (OP5, OP8, OP9, OP11, OP12, OP13, T5, T9, T10, T11, T13, G39).
#[test]
fn each_operation_moves_its_own_counters() {
    let (_home, _server, mut client) = start();
    client.create("/n", b"1", 0).expect("a node");
    let before = client.exists("/n", false).expect("a node");
    let set = client.set("/n", b"22", 0).expect("version 0");
    assert_eq!((set.version, set.data_length, set.mzxid), (1, 2, client.last_zxid));
    assert_eq!((set.czxid, set.pzxid, set.cversion, set.aversion), (before.czxid, before.pzxid, 0, 0));
    let body = client.call(OpCode::SetAcl, &client::set_acl("/n", &[Acl::OPEN], 0)).expect("aversion 0");
    let acl = Stat::decode(&mut Decoder::new(&body)).expect("a stat");
    assert_eq!(acl, Stat { aversion: 1, ..set }, "setACL moves aversion alone (T11)");
    client.create("/n/child", b"", 0).expect("a child");
    let created = client.exists("/n", false).expect("a node");
    assert_eq!(created, Stat { cversion: 1, num_children: 1, pzxid: client.last_zxid, ..acl });
    client.set("/n/child", b"x", -1).expect("a child");
    client.create("/n/child/grandchild", b"", 0).expect("a grandchild");
    client.delete("/n/child/grandchild", -1).expect("a grandchild");
    assert_eq!(
        client.exists("/n", false),
        Ok(created),
        "children's data and grandchildren do not show (T13)"
    );
    client.delete("/n/child", 1).expect("version 1");
    let deleted = client.exists("/n", false).expect("a node");
    assert_eq!(deleted, Stat { cversion: 2, num_children: 0, pzxid: client.last_zxid, ..created });
    // Null is not empty.
    let null = client.call(OpCode::SetData, &client::set("/n", None, -1)).expect("a node");
    let null = Stat::decode(&mut Decoder::new(&null)).expect("a stat");
    assert_eq!(client.get("/n", false), Ok((None, null)));
    let empty = client.set("/n", b"", -1).expect("a node");
    assert_eq!(client.get("/n", false), Ok((Some(Vec::new()), empty)));
    // The lists of children, without and with the Stat, and the ACL.
    client.create("/n/b", b"", 0).expect("a child");
    client.create("/n/a", b"", 0).expect("a child");
    let stat = client.exists("/n", false).expect("a node");
    assert_eq!(client.children("/n", false), Ok((vec!["a".into(), "b".into()], stat)));
    let body = client.call(OpCode::GetChildren, &client::path_watch("/n", false)).expect("children");
    assert_eq!(Decoder::new(&body).texts("children").expect("names").len(), 2);
    let body = client.call(OpCode::GetAcl, &client::path_alone("/n")).expect("an ACL");
    let mut decoder = Decoder::new(&body);
    assert_eq!(Acl::decode_list(&mut decoder), Ok(Some(vec![Acl::OPEN])));
    assert_eq!(Stat::decode(&mut decoder), Ok(stat));
}

/// Danger: a deep tree costs a stack, or is counted wrong (R12).
#[test]
fn a_path_may_be_deep() {
    const DEPTH: i32 = 1_000;
    let (_home, _server, mut client) = start();
    let mut path = String::new();
    for _ in 0..DEPTH {
        path.push_str("/d");
        client.submit(OpCode::Create, &client::create(&path, Some(b""), &[Acl::OPEN], 0));
    }
    client.flush().expect("an open connection");
    let mut last = None;
    for _ in 0..DEPTH {
        match client.next() {
            Some(Incoming::Reply { err: 0, body, .. }) => last = Some(body),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(last, Some(client::path_alone(&path)));
    let count = client.call(OpCode::GetAllChildrenNumber, &client::path_alone("/d")).expect("a number");
    assert_eq!(count, (DEPTH - 1).to_be_bytes());
}

/// Danger: half of a multi is applied, its answer has another shape, or its parts do not see each other (OP16, OP17,
/// OP32, T31-T33, E1, E3, G12).
#[test]
fn a_multi_is_done_whole_or_not_at_all() {
    let (_home, _server, mut client) = start();
    client.create("/m", b"", 0).expect("a node");
    let parts = [
        (OpCode::Create, client::create("/m/1", Some(b""), &[Acl::OPEN], 0)),
        (OpCode::SetData, client::set("/m/1", Some(b"x"), 0)),
        (OpCode::Check, client::path_version("/m/1", 1)),
        (OpCode::Create2, client::create("/m/s-", Some(b""), &[Acl::OPEN], 2)),
        (OpCode::CreateContainer, client::create("/m/c", Some(b""), &[Acl::OPEN], 4)),
        (OpCode::Delete, client::path_version("/m/c", 0)),
    ];
    let before = client.last_zxid;
    let body = client.call(OpCode::Multi, &client::multi(&parts)).expect("a multi");
    assert_eq!(client.last_zxid.0, before.0 + 1, "one transaction (T33)");
    let mut decoder = Decoder::new(&body);
    let mut kinds = Vec::new();
    loop {
        let (kind, done) = (decoder.i32("type").expect("a type"), decoder.bool("done").expect("done"));
        assert_eq!(decoder.i32("err"), Ok(if done { -1 } else { 0 }));
        if done {
            break;
        }
        kinds.push(kind);
        match kind {
            1 => assert_eq!(decoder.text("path").as_deref(), Ok("/m/1")),
            15 => {
                let path = decoder.text("path").expect("a path").into_owned();
                assert!(["/m/s-0000000001", "/m/c"].contains(&path.as_str()), "{path}");
                assert_eq!(Stat::decode(&mut decoder).expect("a stat").czxid, client.last_zxid);
            }
            5 => assert_eq!(Stat::decode(&mut decoder).expect("a stat").version, 1),
            2 | 13 => {}
            other => panic!("a result of type {other}"),
        }
    }
    assert_eq!(kinds, [1, 5, 13, 15, 15, 2], "createContainer answers as create2 (T32)");
    assert_eq!(decoder.remaining(), 0);
    let tree = client.children("/m", false);
    let failing = [
        (OpCode::Create, client::create("/m/2", Some(b""), &[Acl::OPEN], 0)),
        (OpCode::Check, client::path_version("/m/1", 7)),
        (OpCode::Delete, client::path_version("/m/1", -1)),
    ];
    let body = client.call(OpCode::Multi, &client::multi(&failing)).expect("the header says 0 (T31)");
    assert_eq!(client::multi_errors(&body), Some(vec![0, -103, -2]));
    assert_eq!(client.children("/m", false), tree, "nothing of it happened");
    // A part of type -1 is no end: the end says that it is done.
    let mut odd = vec![0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff];
    odd.extend(client::multi(&[]));
    assert_eq!(client.call(OpCode::Multi, &odd), Err(-5));
    let body = client.call(OpCode::Multi, &client::multi(&[])).expect("an empty multi");
    assert_eq!(body, client::multi(&[]), "just the end mark");
}

/// Danger: one missing node fails a whole multiRead (OP18).
#[test]
fn a_multi_read_answers_each_part_by_itself() {
    let (_home, _server, mut client) = start();
    client.create("/r", b"data", 0).expect("a node");
    client.create("/r/child", b"", 0).expect("a node");
    let parts = [
        (OpCode::GetData, client::path_watch("/r", false)),
        (OpCode::GetData, client::path_watch("/none", false)),
        (OpCode::GetChildren, client::path_watch("/r", false)),
    ];
    let body = client.call(OpCode::MultiRead, &client::multi(&parts)).expect("a multiRead");
    let mut decoder = Decoder::new(&body);
    let mut header = || (decoder.i32("type"), decoder.bool("done"), decoder.i32("err"));
    assert_eq!(header(), (Ok(4), Ok(false), Ok(0)));
    assert_eq!(decoder.buffer("data"), Ok(Some(&b"data"[..])));
    Stat::decode(&mut decoder).expect("a stat");
    let mut header = || (decoder.i32("type"), decoder.bool("done"), decoder.i32("err"));
    assert_eq!(header(), (Ok(-1), Ok(false), Ok(-101)));
    assert_eq!(decoder.i32("err"), Ok(-101));
    let mut header = || (decoder.i32("type"), decoder.bool("done"), decoder.i32("err"));
    assert_eq!(header(), (Ok(8), Ok(false), Ok(0)));
    assert_eq!(decoder.texts("children").expect("names"), ["child"]);
    assert_eq!(decoder.rest(), client::multi(&[]));
}

/// Danger: a session does not find its own ephemerals, or those of others (OP25).
#[test]
fn ephemerals_are_listed_by_how_their_paths_begin() {
    let (_home, server, mut client) = start();
    let mut other = server.client(10_000);
    client.create("/e", b"", 0).expect("a node");
    for path in ["/e/a", "/e/ab", "/e/b", "/x"] {
        client.create(path, b"", 1).expect("a node");
    }
    other.create("/e/aa", b"", 1).expect("a node");
    let mut list = |prefix: Option<&str>| {
        let mut body = Vec::new();
        jute::put_buffer(&mut body, prefix.map(str::as_bytes));
        let body = client.call(OpCode::GetEphemerals, &body).expect("a list");
        let names = Decoder::new(&body).texts("paths").expect("paths").into_iter();
        let mut names: Vec<String> = names.map(std::borrow::Cow::into_owned).collect();
        names.sort_unstable();
        names.join(" ")
    };
    for all in [None, Some(""), Some(" "), Some("/")] {
        assert_eq!(list(all), "/e/a /e/ab /e/b /x", "{all:?}");
    }
    assert_eq!(list(Some("/e/a")), "/e/a /e/ab", "of text, not of names");
    assert_eq!(list(Some("/e/")), "/e/a /e/ab /e/b");
    assert_eq!(list(Some("/none")), "");
}

/// Danger: a number that a client chose is not the one that it gets back (C15, C20, C22, C23, OP14, OP15, T38; G6,
/// ClickHouse 48141).
#[test]
fn replies_carry_the_number_of_their_request() {
    let (_home, _server, mut client) = start();
    let mut sync = client::path_alone("not a path");
    sync.extend_from_slice(b"and what follows a record is ignored (J5)");
    let mut set_watches = vec![0; 8];
    (0..3).for_each(|_| jute::put_count(&mut set_watches, 0));
    for (xid, op, body, wanted) in [
        (7, OpCode::Sync, &sync, 7),
        (0, OpCode::Sync, &sync, 0),
        (i32::MIN, OpCode::Sync, &sync, i32::MIN),
        (i32::MAX, OpCode::Sync, &sync, i32::MAX),
        (-8, OpCode::SetWatches, &set_watches, -8),
        (12, OpCode::SetWatches, &set_watches, 12),
        (-2, OpCode::Ping, &Vec::new(), -2),
        (99, OpCode::Ping, &Vec::new(), -2),
    ] {
        client.submit_as(Xid(xid), op.to_i32(), body);
        client.flush().expect("an open connection");
        match client.next() {
            Some(Incoming::Reply { xid, err: 0, body: answer, .. }) => {
                assert_eq!(xid, wanted, "{op:?}");
                let path = client::path_alone("not a path");
                assert_eq!(answer, if op == OpCode::Sync { path } else { Vec::new() }, "{op:?}");
            }
            other => panic!("{op:?}: {other:?}"),
        }
    }
}

/// Danger: sessions come and go without a trace in the order of transactions (C8, C29, OP31, S24, S26, S27).
#[test]
fn a_session_begins_and_ends_with_a_transaction() {
    let (_home, server, mut first) = start();
    first.ping();
    let at_first = first.last_zxid;
    let mut second = server.client(10_000);
    second.ping();
    assert_eq!(second.last_zxid.0, at_first.0 + 1, "the session of the second");
    assert_ne!(first.session, second.session);
    let ticket = second.ticket();
    second.close();
    first.ping();
    assert_eq!(first.last_zxid.0, at_first.0 + 2, "and its end");
    assert_eq!(first.last_zxid.epoch().0, 0, "a standalone server stays in its epoch (S24)");
    let again = super::peers::Client::handshake(server.address, &ticket);
    assert_eq!(again.err(), Some(super::peers::Refusal::Expired), "what is over does not come back (S27)");
}

/// Danger: Curator, which reads and watches the configuration at its start, finds nothing (OP19, OP33, T2, T44, E31).
#[test]
fn the_configuration_node_is_there_and_empty() {
    let (_home, _server, mut client) = start();
    let (data, stat) = client.get("/zookeeper/config", true).expect("the node");
    assert_eq!(data.unwrap_or_default(), b"");
    assert_eq!((stat.version, stat.aversion, stat.mzxid.0), (0, -1, 0));
    assert_eq!(client.set("/zookeeper/config", b"x", -1), Err(-102), "nobody may write it");
    let mut reconfig = Vec::new();
    (0..3).for_each(|_| jute::put_buffer(&mut reconfig, None));
    reconfig.put_i64(-1);
    assert_eq!(client.call(OpCode::Reconfig, &reconfig), Err(-123));
}

/// OP30 (G37): a client that asks for the server's own createSession gets -6, and no session.
#[test]
fn only_the_server_makes_sessions() {
    let (_home, server, mut client) = start();
    let before = server.monitor("zk_global_sessions");
    client.submit_code(OpCode::CreateSession.to_i32(), &10_000_i32.to_be_bytes());
    client.flush().expect("a packet");
    let answer = client.next();
    assert!(matches!(answer, Some(Incoming::Reply { err: -6, .. })), "{answer:?}");
    assert!(matches!(client.try_next(), Ok(None) | Err(_)), "and then the end");
    assert_eq!(server.monitor("zk_global_sessions"), before);
}

/// C26, S6, E21. Danger: a session that is over still reads or writes. Apache answers what stands behind a closeSession
/// with -112 or not at all; here it is never answered.
#[test]
fn nothing_behind_the_end_of_a_session_is_answered() {
    let (_home, server, mut other) = start();
    for with_write in [false, true] {
        let mut client = server.client(10_000);
        client.submit(OpCode::CloseSession, b"");
        if with_write {
            let open = [Acl::OPEN];
            client.submit(OpCode::Create, &client::create("/late", Some(b""), &open, 0));
        }
        for _ in 0..50 {
            client.submit(OpCode::Exists, &client::path_watch("/", false));
        }
        client.flush().expect("one burst");
        let first = client.next();
        assert!(matches!(first, Some(Incoming::Reply { err: 0, .. })), "{first:?}");
        assert!(matches!(client.try_next(), Ok(None) | Err(_)), "and then the end");
        assert_eq!(other.get("/late", false), Err(-101));
    }
}

/// Danger: an identity that was not proved is believed, or one that was is not (OP22, OP24, A1, A3, A4, A5, A8, A16,
/// A21, E16, E23, E24, G19).
#[test]
fn identities_are_proved_and_obeyed() {
    let (_home, server, mut client) = start();
    assert_eq!(client.auth("digest", b"bob:secret"), 0);
    // The base64 of SHA-1 of "bob:secret" (A4).
    let digest = "bob:fyVmFCwVbTJYrznoSu1koqYEYF0=";
    let only_auth = [Acl { perms: zkfast_wire::Perms::ALL, id: zkfast_wire::Id::new("auth", "") }];
    client.call(OpCode::Create, &client::create("/bobs", Some(b""), &only_auth, 0)).expect("a node");
    let body = client.call(OpCode::GetAcl, &client::path_alone("/bobs")).expect("an ACL");
    let list = Acl::decode_list(&mut Decoder::new(&body)).expect("a list").expect("a list");
    assert_eq!(list, [Acl { perms: zkfast_wire::Perms::ALL, id: zkfast_wire::Id::new("digest", digest) }]);
    client.create("/bobs/open", b"", 0).expect("bob may");
    let mut stranger = server.client(10_000);
    assert_eq!(stranger.get("/bobs", false), Err(-102));
    assert_eq!(stranger.create("/bobs/x", b"", 0).map(|_| ()), Err(-102));
    assert!(stranger.get("/bobs/open", false).is_ok(), "lists are not inherited (A16)");
    for wrong in [("digest", "bob"), ("digest", "a:b:c"), ("world", "bob"), ("nosuch", "x")] {
        let acl = [Acl { perms: zkfast_wire::Perms::ALL, id: zkfast_wire::Id::new(wrong.0, wrong.1) }];
        let body = client::create("/wrong", Some(b""), &acl, 0);
        assert_eq!(stranger.call(OpCode::Create, &body), Err(-114), "{wrong:?}");
    }
    for (id, may_read) in [("127.000.0.01", true), ("+127.0.0.0/+31", true), ("-0.0.0.1", false)] {
        let acl = [Acl { perms: zkfast_wire::Perms::ALL, id: zkfast_wire::Id::new("ip", id) }];
        let path = format!("/{}", id.replace('/', "-"));
        stranger.call(OpCode::Create, &client::create(&path, Some(b""), &acl, 0)).expect("an address (A8)");
        assert_eq!(stranger.get(&path, false).is_ok(), may_read, "{id}");
    }
    for id in ["::ffff:127.0.0.1", "::1.2.3.4", "127.0.0.256", "127.1"] {
        let acl = [Acl { perms: zkfast_wire::Perms::ALL, id: zkfast_wire::Id::new("ip", id) }];
        let body = client::create("/wrong", Some(b""), &acl, 0);
        assert_eq!(stranger.call(OpCode::Create, &body), Err(-114), "{id}");
    }
    let mut token = Vec::new();
    jute::put_buffer(&mut token, Some(b"token"));
    assert_eq!(stranger.call(OpCode::Sasl, &token), Ok(vec![0xff; 4]), "no token comes back (A21)");
    assert_eq!(stranger.auth("digest", b"bob:secret"), 0);
    assert!(stranger.get("/bobs", false).is_ok(), "from the very next request on (A1)");
    assert_eq!(stranger.auth("nosuch", b"x"), -115);
    assert_eq!(stranger.next(), None, "and then the connection ends (A19)");
}
