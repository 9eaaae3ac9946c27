//! Rules that the random streams of `against_naive` do not reach or do not show: the end of a counter, events' ACLs, whom to
//! wake, the reaper, records of old logs, damaged bytes.

use bytes::Bytes;
use proptest::prelude::*;
use zkfast_tree::{Answer, Applied, ApplyError, Ask, ChangeKind, ImageError, Tree, TreeConfig, image};
use zkfast_wire::{
    Acl, ErrorCode, Id, OpCode, Perms, Request, SessionId, Txn, TxnHeader, Zxid,
    request::{CreateRequest, PathVersion, SetAclRequest, SetDataRequest},
    txn::{CreateTxn, CreateTxnMode},
};

const SESSION: SessionId = SessionId(0x0100_0000_0000_0001);

struct Server {
    tree: Tree,
    zxid: i64,
}

impl Server {
    fn new() -> Self {
        let config = TreeConfig { extended_types: true, has_digests: true, ..TreeConfig::default() };
        let mut server = Self { tree: Tree::new(config), zxid: 0 };
        server.run(OpCode::CreateSession, Request::CreateSession(1_000));
        server
    }

    fn record(&mut self, op: OpCode, request: &Request<'_>) -> Bytes {
        self.zxid += 1;
        let ask = Ask {
            session: SESSION,
            cxid: 1,
            zxid: Zxid(self.zxid),
            time_ms: 1_000 * self.zxid,
            op,
            request,
            identities: &[Id::new("digest", "ann:h")],
        };
        let mut record = Vec::new();
        self.tree.prepare(&ask, &mut record);
        Bytes::from(record)
    }

    fn run(&mut self, op: OpCode, request: Request<'_>) -> Applied {
        let record = self.record(op, &request);
        self.tree.apply(&record).unwrap()
    }

    fn create(&mut self, path: &str, flags: i32) -> Applied {
        self.create_with(OpCode::Create, path, flags, None, vec![Acl::OPEN])
    }

    fn create_with(
        &mut self,
        op: OpCode,
        path: &str,
        flags: i32,
        ttl_ms: Option<i64>,
        acl: Vec<Acl<'static>>,
    ) -> Applied {
        let path = path.to_owned().into();
        let request = CreateRequest { path, data: Some(b"x"), acl: Some(acl), flags, ttl_ms };
        self.run(op, Request::Create(op, request))
    }

    fn delete(&mut self, path: &str) -> Applied {
        let path = path.to_owned().into();
        self.run(OpCode::Delete, Request::Delete(PathVersion { path, version: -1 }))
    }

    fn set(&mut self, path: &str) -> Applied {
        let path = path.to_owned().into();
        let set = SetDataRequest { path, data: Some(b"y"), version: -1 };
        self.run(OpCode::SetData, Request::SetData(set))
    }

    /// A record as another server wrote it.
    fn apply(&mut self, txn: &Txn<'_>) -> Applied {
        self.zxid += 1;
        let header =
            TxnHeader { session: SESSION, cxid: 1, zxid: Zxid(self.zxid), time_ms: 1, kind: txn.kind() };
        let mut record = Vec::new();
        txn.encode_record(&header, &mut record);
        self.tree.apply(&Bytes::from(record)).unwrap()
    }

    fn create_txn(&mut self, path: &str, parent_cversion: i32) -> Applied {
        let mode = CreateTxnMode::Create { ephemeral: false };
        let txn = CreateTxn { path: path.into(), data: None, acl: vec![Acl::OPEN], parent_cversion, mode };
        self.apply(&Txn::Create(txn))
    }
}

fn private() -> Vec<Acl<'static>> {
    vec![Acl { perms: Perms::ALL, id: Id::new("digest", "ann:h") }]
}

fn created(applied: &Applied) -> &str {
    match &applied.answer {
        Answer::Created { path, .. } => path,
        other => panic!("{other:?}"),
    }
}

/// T7: Apache's counter of children never falls, so after 2^31 of them it stays, and a sequential name that was taken is
/// refused. Danger: the replicas of a mixed ensemble differ.
#[test]
fn sequence_numbers_end() {
    let mut server = Server::new();
    server.create("/q", 0);
    server.create_txn("/q/last-but-one", i32::MAX - 1);
    assert_eq!(created(&server.create("/q/n-", 2)), "/q/n-2147483646");
    assert_eq!(created(&server.create("/q/n-", 2)), "/q/n-2147483647");
    let pzxid = Zxid(server.zxid - 1);
    assert_eq!(server.create("/q/n-", 2).answer, Answer::Error(ErrorCode::NODE_EXISTS));
    assert_eq!(created(&server.create("/q/another-", 2)), "/q/another-2147483647");
    // P17: a creation of 3.3 counts up by one, which the counter cannot.
    server.create_txn("/q/old", -1);
    let stat = server.tree.node("/q").unwrap().persisted();
    assert_eq!((stat.cversion, stat.pzxid), (i32::MAX, pzxid));
    assert_eq!(server.tree.node("/q").unwrap().num_children(), 5);
}

/// T14, G32: a replay over an image that was taken meanwhile must not move a parent back, nor leave it behind.
#[test]
fn counters_only_move_forward() {
    let mut server = Server::new();
    server.create("/p", 0);
    server.create_txn("/p/a", 5);
    let pzxid = Zxid(server.zxid);
    server.create_txn("/p/b", 3);
    let stat = server.tree.node("/p").unwrap().persisted();
    assert_eq!((stat.cversion, stat.pzxid), (5, pzxid));
    assert_eq!(server.create_txn("/p/a", 9).answer, Answer::Error(ErrorCode::NODE_EXISTS));
    let stat = server.tree.node("/p").unwrap().persisted();
    assert_eq!((stat.cversion, stat.pzxid), (9, Zxid(server.zxid)));
    // The list is the transaction's (P30): what set it since comes again behind it.
    let mode = CreateTxnMode::Create { ephemeral: false };
    let txn = CreateTxn { path: "/p/a".into(), data: None, acl: private(), parent_cversion: 9, mode };
    assert_eq!(server.apply(&Txn::Create(txn)).answer, Answer::Error(ErrorCode::NODE_EXISTS));
    assert_eq!(server.tree.node("/p/a").unwrap().acl(), private());
    // ZOOKEEPER-3145: the delete of a node that is gone still moves the parent's pzxid.
    let applied = server.apply(&Txn::Delete { path: "/p/gone".into() });
    assert_eq!(applied.answer, Answer::Error(ErrorCode::NO_NODE));
    assert_eq!(server.tree.node("/p").unwrap().persisted().pzxid, Zxid(server.zxid));
}

/// W10 (CVE-2024-23944): who may hear of a change travels with it.
#[test]
fn changes_carry_the_lists_to_check() {
    let mut server = Server::new();
    let applied = server.create("/open", 0);
    assert!(applied.changes[0].acl.is_none() && applied.changes[0].parent_acl.is_none());
    let applied = server.create_with(OpCode::Create, "/mine", 0, None, private());
    assert_eq!(applied.changes[0].acl.as_deref(), Some(&*private()));
    let applied = server.create("/mine/open", 0);
    assert_eq!(applied.changes[0].kind, ChangeKind::Created);
    assert!(applied.changes[0].acl.is_none());
    assert_eq!(applied.changes[0].parent_acl.as_deref(), Some(&*private()));
    let applied = server.delete("/mine/open");
    assert!(applied.changes[0].acl.is_none() && applied.changes[0].parent_acl.is_some());
    let applied = server.set("/mine");
    assert!(applied.changes[0].acl.is_some() && applied.changes[0].parent_acl.is_none());
    let applied = server.delete("/mine");
    assert_eq!(applied.changes[0].acl.as_deref(), Some(&*private()), "the deleted node's old list");
    // World-readable lists need no check either.
    let applied = server.create_with(OpCode::Create, "/read", 0, None, vec![Acl::READ_ONLY]);
    assert!(applied.changes[0].acl.is_none());
}

/// A core that is not woken keeps a client waiting for an event that it was promised.
#[test]
fn the_concerned_cores_are_woken() {
    let mut server = Server::new();
    server.create("/a", 0);
    let reader = server.tree.reader();
    let cores = |server: &Server, applied: &Applied| server.tree.interested_cores(&applied.changes, 0);
    reader.set_interest("/a", 3);
    reader.set_interest("/a/absent", 5);
    reader.set_interest("/a/absent", 5);
    let set = server.set("/a");
    assert_eq!(cores(&server, &set), 1 << 3);
    let create = server.create("/a/absent", 0);
    assert_eq!(cores(&server, &create), 1 << 3 | 1 << 5);
    reader.clear_interest("/a/absent", 5);
    assert_eq!(cores(&server, &create), 1 << 3 | 1 << 5, "one watch is left");
    reader.clear_interest("/a/absent", 5);
    assert_eq!(cores(&server, &create), 1 << 3);
    let below = server.set("/a/absent");
    assert_eq!(cores(&server, &below), 0, "setData of a child is no news for the parent (W13)");
    reader.set_recursive_interest("/a", 63);
    assert_eq!(cores(&server, &below), 1 << 63);
    reader.set_recursive_interest("/", 0);
    assert_eq!(cores(&server, &below), 1 << 63 | 1);
    reader.clear_recursive_interest("/a", 63);
    assert_eq!(cores(&server, &below), 1);
    drop(reader);
    assert_eq!(cores(&server, &create), 0, "a core that goes takes its interests along");
}

/// T21, T22, G21: the reaper takes only what is due.
#[test]
fn containers_and_ttl_nodes_become_due() {
    let mut server = Server::new();
    server.create_with(OpCode::CreateContainer, "/c-used", 4, None, vec![Acl::OPEN]);
    server.create("/c-used/child", 0);
    server.create_with(OpCode::CreateContainer, "/c-new", 4, None, vec![Acl::OPEN]);
    server.create_with(OpCode::CreateTtl, "/t", 5, Some(500), vec![Acl::OPEN]);
    let born_ms = 1_000 * server.zxid;
    let due = |server: &Server, now_ms, never_used_ms| {
        let (due, rest) = server.tree.reapable(now_ms, never_used_ms, "", 10);
        assert_eq!(rest, None, "three candidates are looked at in one go");
        due
    };
    assert!(due(&server, born_ms + 500, 0).is_empty());
    assert_eq!(due(&server, born_ms + 501, 0), ["/t"]);
    // T22: the time counts from the last setData, which this is, a transaction later.
    server.set("/t");
    assert!(due(&server, born_ms + 1_500, 0).is_empty());
    assert_eq!(due(&server, born_ms + 1_501, 0), ["/t"]);
    server.delete("/c-used/child");
    assert_eq!(due(&server, born_ms, 0), ["/c-used"]);
    assert_eq!(due(&server, born_ms + 10_000, 5_000), ["/c-new", "/c-used", "/t"]);
    let (part, rest) = server.tree.reapable(born_ms + 10_000, 5_000, "/c-new", 1);
    assert_eq!((part, rest.as_deref()), (vec!["/c-used".to_owned()], Some("/c-used")));
    let (part, rest) = server.tree.reapable(born_ms + 10_000, 5_000, "/c-used", 1);
    assert_eq!((part, rest), (vec!["/t".to_owned()], None));
    let reap = |server: &mut Server, path: &'static str| {
        server.run(OpCode::DeleteContainer, Request::DeleteContainer(path.as_bytes()))
    };
    assert_eq!(reap(&mut server, "/c-used").answer, Answer::Empty);
    assert_eq!(reap(&mut server, "/c-used").answer, Answer::Error(ErrorCode::NO_NODE));
    assert_eq!(server.tree.reapable_count(), 2);
    // T16: neither shows an owner.
    assert_eq!(server.tree.node("/t").unwrap().stat().ephemeral_owner, SessionId(0));
}

/// P17g, P18: a closeSession without a list, as logs of 3.5 have it, takes the session's ephemerals all the same.
#[test]
fn an_old_close_session_removes_the_ephemerals() {
    let mut server = Server::new();
    server.create("/e1", 1);
    server.create("/e2", 1);
    server.create("/kept", 0);
    let applied = server.apply(&Txn::CloseSession { paths: None });
    assert_eq!(applied.answer, Answer::SessionClosed);
    let gone: Vec<_> = applied.changes.iter().map(|change| change.path.to_string()).collect();
    assert_eq!(gone, ["/e1", "/e2"]);
    assert!(server.tree.node("/kept").is_some() && server.tree.sessions().is_empty());
    assert_eq!(server.create("/late", 0).answer, Answer::Error(ErrorCode::SESSION_EXPIRED));
}

/// S8, ZOOKEEPER-1367: an ephemeral whose session is not in the database goes when everything is loaded.
#[test]
fn dead_ephemerals_go_after_a_load() {
    let mut server = Server::new();
    server.create("/alive", 1);
    let mode = CreateTxnMode::Create { ephemeral: true };
    let txn = CreateTxn { path: "/dead".into(), data: None, acl: vec![Acl::OPEN], parent_cversion: 3, mode };
    server.zxid += 1;
    let header = TxnHeader {
        session: SessionId(99),
        cxid: 0,
        zxid: Zxid(server.zxid),
        time_ms: 0,
        kind: OpCode::Create,
    };
    let mut record = Vec::new();
    Txn::Create(txn).encode_record(&header, &mut record);
    server.tree.apply(&Bytes::from(record)).unwrap();
    assert_eq!(server.tree.remove_dead_ephemerals(), Ok(1));
    assert!(server.tree.node("/alive").is_some() && server.tree.node("/dead").is_none());
    assert_eq!(server.tree.ephemerals_count(), 1);
}

/// A13, A15, A17: lists are completed, permissions are asked of the right node.
#[test]
fn lists_are_fixed_up_and_obeyed() {
    let mut server = Server::new();
    let auth = vec![Acl { perms: Perms(1), id: Id::new("auth", "") }];
    server.create_with(OpCode::Create, "/a", 0, None, auth.clone());
    let expected = [Acl { perms: Perms(1), id: Id::new("digest", "ann:h") }];
    assert_eq!(server.tree.node("/a").unwrap().acl(), expected);
    assert_eq!(server.set("/a").answer, Answer::Error(ErrorCode::NO_AUTH));
    assert_eq!(server.create("/a/b", 0).answer, Answer::Error(ErrorCode::NO_AUTH));
    assert_eq!(server.delete("/a/b").answer, Answer::Error(ErrorCode::NO_AUTH), "before NONODE (G17)");
    let set = SetAclRequest { path: "/a".into(), acl: Some(vec![Acl::OPEN]), version: -1 };
    assert_eq!(
        server.run(OpCode::SetAcl, Request::SetAcl(set.clone())).answer,
        Answer::Error(ErrorCode::NO_AUTH)
    );
    assert_eq!(server.delete("/a").answer, Answer::Empty, "the parent decides");
    // A17: skipACL passes every check, not the fix-up.
    let config = TreeConfig { skip_acl: true, ..TreeConfig::default() };
    let mut server = Server { tree: Tree::new(config), zxid: 0 };
    server.run(OpCode::CreateSession, Request::CreateSession(1_000));
    server.create_with(OpCode::Create, "/a", 0, None, auth);
    assert!(
        matches!(server.run(OpCode::SetAcl, Request::SetAcl(set)).answer, Answer::Stat(stat) if stat.aversion == 1)
    );
    let bad = vec![Acl { perms: Perms(1), id: Id::new("none", "") }];
    let applied = server.create_with(OpCode::Create, "/b", 0, None, bad);
    assert_eq!(applied.answer, Answer::Error(ErrorCode::INVALID_ACL));
}

/// S6, E21: a session whose end is prepared writes no more, also before that end is applied. S7: what it had prepared
/// until then goes with it.
#[test]
fn a_session_that_is_being_closed_writes_no_more() {
    let mut server = Server::new();
    let create = |path: &'static str, flags| CreateRequest {
        path: path.into(),
        data: Some(b""),
        acl: Some(vec![Acl::OPEN]),
        flags,
        ttl_ms: None,
    };
    let records = [
        server.record(OpCode::Create, &Request::Create(OpCode::Create, create("/eph", 1))),
        server.record(OpCode::CloseSession, &Request::CloseSession),
        server.record(OpCode::Create, &Request::Create(OpCode::Create, create("/late", 0))),
    ];
    let answers: Vec<Answer> =
        records.iter().map(|record| server.tree.apply(record).unwrap().answer).collect();
    assert!(matches!(answers[0], Answer::Created { .. }), "{answers:?}");
    assert_eq!(answers[1..], [Answer::SessionClosed, Answer::Error(ErrorCode::SESSION_EXPIRED)]);
    assert!(server.tree.node("/eph").is_none() && server.tree.node("/late").is_none());
}

/// S7: the end of a session names what it leaves at that moment: what it had prepared to create, and not what it had
/// prepared to delete, or what somebody else had created in its place.
#[test]
fn the_end_of_a_session_names_what_it_leaves() {
    let mut server = Server::new();
    for path in ["/kept", "/deleted", "/replaced"] {
        server.create(path, 1);
    }
    let delete = |path: &'static str| Request::Delete(PathVersion { path: path.into(), version: -1 });
    let create = |path: &'static str, flags| {
        let acl = Some(vec![Acl::OPEN]);
        Request::Create(
            OpCode::Create,
            CreateRequest { path: path.into(), data: None, acl, flags, ttl_ms: None },
        )
    };
    for request in [delete("/deleted"), delete("/replaced"), create("/replaced", 0), create("/new", 1)] {
        server.record(request.op(), &request);
    }
    let record = server.record(OpCode::CloseSession, &Request::CloseSession);
    let (_, txn, _) = Txn::decode_record(&record).unwrap();
    let Txn::CloseSession { paths: Some(mut paths) } = txn else { panic!("{txn:?}") };
    paths.sort_unstable();
    assert_eq!(paths, ["/kept", "/new"]);
}

/// T28, T8 (G17): which of several things that are wrong with a create is told.
#[test]
fn the_first_fault_of_a_create_is_told() {
    let mut server = Server::new();
    server.create("/a", 0);
    server.create("/a/1", 0);
    let bobs = vec![Acl { perms: Perms::ALL, id: Id::new("digest", "bob:h") }];
    server.create_with(OpCode::Create, "/private", 0, None, bobs);
    server.create("/e", 1);
    let none = Vec::new();
    for (path, flags, acl, error) in [
        ("/a/1", 99, none.clone(), ErrorCode::BAD_ARGUMENTS),
        ("a", 0, none.clone(), ErrorCode::BAD_ARGUMENTS),
        ("/none/x", 0, none.clone(), ErrorCode::INVALID_ACL),
        ("/none/..", 0, vec![Acl::OPEN], ErrorCode::NO_NODE),
        ("/a//b", 0, vec![Acl::OPEN], ErrorCode::NO_NODE),
        ("/private/..", 0, vec![Acl::OPEN], ErrorCode::NO_AUTH),
        ("/a/", 0, vec![Acl::OPEN], ErrorCode::BAD_ARGUMENTS),
        ("/a/.", 0, vec![Acl::OPEN], ErrorCode::BAD_ARGUMENTS),
        ("/e/..", 0, vec![Acl::OPEN], ErrorCode::BAD_ARGUMENTS),
        ("/a/1", 0, vec![Acl::OPEN], ErrorCode::NODE_EXISTS),
        ("/e/1", 0, vec![Acl::OPEN], ErrorCode::NO_CHILDREN_FOR_EPHEMERALS),
    ] {
        let answer = server.create_with(OpCode::Create, path, flags, None, acl).answer;
        assert_eq!(answer, Answer::Error(error), "{path} {flags}");
    }
    let made = server.create("/a/", 2);
    assert_eq!(created(&made), "/a/0000000001", "the number is a name by itself (T8)");
}

/// T23: what was due when the reaper looked is checked again when its turn comes.
#[test]
fn a_container_that_was_used_again_is_not_reaped() {
    let mut server = Server::new();
    server.create_with(OpCode::CreateContainer, "/c", 4, None, vec![Acl::OPEN]);
    server.create("/c/child", 0);
    server.create("/eph", 1);
    for (path, error) in [
        ("/c", ErrorCode::NOT_EMPTY),
        ("/eph", ErrorCode::BAD_VERSION),
        ("/none", ErrorCode::NO_NODE),
        ("/zookeeper", ErrorCode::BAD_ARGUMENTS),
    ] {
        let request = Request::DeleteContainer(path.as_bytes());
        assert_eq!(server.run(OpCode::DeleteContainer, request).answer, Answer::Error(error), "{path}");
    }
}

/// C25, ZOOKEEPER-2623: a check outside a multi, and anything that is no write, is refused with one record.
#[test]
fn what_is_no_write_is_refused() {
    let mut server = Server::new();
    let check = Request::Check(PathVersion { path: "/".into(), version: -1 });
    assert_eq!(server.run(OpCode::Check, check).answer, Answer::Error(ErrorCode::UNIMPLEMENTED));
    assert_eq!(server.run(OpCode::Ping, Request::Ping).answer, Answer::Error(ErrorCode::UNIMPLEMENTED));
    let mut record = Vec::new();
    server.zxid += 1;
    let error = ErrorCode::MARSHALLING_ERROR;
    server.tree.prepare_error(SESSION, 7, Zxid(server.zxid), 1, error, &mut record);
    let record = Bytes::from(record);
    assert_eq!(server.tree.apply(&record).unwrap().answer, Answer::Error(error));
    // C27: Apache gives such a record its predecessor's zxid, so the same zxid twice is no gap; going back is.
    assert!(server.tree.apply(&record).is_ok());
    server.create("/a", 0);
    assert!(matches!(server.tree.apply(&record), Err(ApplyError::Order { .. })));
}

/// P32. Danger: after a restart locks outlive their sessions, containers and TTL nodes stay for ever, lists that nothing refers
/// to pile up.
#[test]
fn what_is_not_in_an_image_is_made_of_it() {
    let mut server = Server::new();
    server.create("/lock", 1);
    server.create_with(OpCode::Create, "/mine", 0, None, private());
    server.create_with(OpCode::CreateContainer, "/c", 4, None, vec![Acl::OPEN]);
    server.create("/c/child", 0);
    server.delete("/c/child");
    server.create_with(OpCode::CreateTtl, "/t", 5, Some(500), vec![Acl::OPEN]);
    let mut image = server.tree.image();
    let mut bytes = Vec::new();
    while image.next_chunk(&mut bytes) {}
    drop(image);
    // One more list in the map: {id, one entry: perms, scheme, id}. Before it lies one session.
    let map = 4 + 12;
    let count = i32::from_be_bytes(bytes[map..map + 4].try_into().unwrap());
    bytes[map..map + 4].copy_from_slice(&(count + 1).to_be_bytes());
    let entry = [
        &999_i64.to_be_bytes()[..],
        &1_i32.to_be_bytes(),
        &31_i32.to_be_bytes(),
        b"\0\0\0\x02ip",
        b"\0\0\0\x02::",
    ];
    bytes.splice(map + 4..map + 4, entry.concat());

    let config = TreeConfig { extended_types: true, ..TreeConfig::default() };
    let (loaded, used) = image::load(config, &bytes).unwrap();
    assert_eq!(used, bytes.len());
    assert_eq!(loaded.ephemerals_of(SESSION).collect::<Vec<_>>(), ["/lock"]);
    assert_eq!((loaded.ephemerals_count(), loaded.ephemeral_owners()), (1, vec![SESSION]));
    assert_eq!(loaded.reapable(1_000_000, 0, "", 10).0, ["/c", "/t"]);
    assert_eq!(loaded.reapable_count(), 2);
    // A list goes when others have come.
    let lists = server.tree.acl_count();
    let mut server = Server { tree: loaded, zxid: server.zxid };
    for perms in 1..=3 {
        let list = vec![Acl { perms: Perms(perms), id: Id::new("ip", "::1") }];
        server.create_with(OpCode::Create, &format!("/{perms}"), 0, None, list);
    }
    assert_eq!(server.tree.acl_count(), lists + 3);
}

/// Danger: a server that has just started holds the path table several times over, every size that it once had.
#[test]
fn loading_leaves_nothing_to_be_freed() {
    let mut server = Server::new();
    for number in 0..40_000 {
        server.create(&format!("/{number}"), 0);
    }
    let mut image = server.tree.image();
    let mut bytes = Vec::new();
    while image.next_chunk(&mut bytes) {}
    let (loaded, _) = image::load(TreeConfig::default(), &bytes).unwrap();
    assert!(loaded.node_count() > 40_000);
    assert_eq!(loaded.waiting_count(), 0);
}

/// P22: damaged images are refused by name, without panic and without trust in a length.
#[test]
fn a_damaged_image_is_refused() {
    let mut server = Server::new();
    server.create_with(OpCode::Create, "/a", 0, None, private());
    server.create("/a/b", 1);
    let mut image = server.tree.image();
    let mut bytes = Vec::new();
    while image.next_chunk(&mut bytes) {}
    for end in 0..bytes.len() {
        assert!(image::load(TreeConfig::default(), &bytes[..end]).is_err(), "{end}");
    }
    let loaded = image::load(TreeConfig::default(), &bytes).unwrap().0;
    assert_eq!(loaded.digest(), server.tree.digest());
    // An orphan: the parent's name is changed.
    let at = bytes.windows(2).position(|pair| pair == b"/a").unwrap();
    bytes[at + 1] = b'z';
    assert!(matches!(
        image::load(TreeConfig::default(), &bytes),
        Err(ImageError::Misplaced { path, .. }) if path == "/a/b"
    ));
}

proptest! {
    /// Any bytes from a disk or a peer may come here: refused, never a panic.
    #[test]
    fn mutated_bytes_never_panic(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut server = Server::new();
        server.create_with(OpCode::CreateTtl, "/a", 5, Some(10), private());
        let mut image = server.tree.image();
        let mut bytes = Vec::new();
        while image.next_chunk(&mut bytes) {}
        let mut record = server.record(OpCode::SetData, &Request::SetData(SetDataRequest {
            path: "/a".into(), data: Some(b"data"), version: -1,
        })).to_vec();
        for (at, byte) in &edits {
            let at_image = at.index(bytes.len());
            bytes[at_image] = *byte;
            let at_record = at.index(record.len());
            record[at_record] = *byte;
        }
        let _ = image::load(TreeConfig::default(), &bytes);
        let _ = server.tree.apply(&Bytes::from(record));
    }
}

/// P34: a server whose tree has gone another way must notice with the first transaction that says what it should be,
/// and go on.
#[test]
fn a_digest_that_does_not_match_is_counted_and_the_tree_goes_on() {
    let mut server = Server::new();
    server.create("/a", 0);
    assert_eq!(server.tree.digest_mismatches(), (0, None));
    let digest = server.tree.digest();
    let mut record_of = |digest: Option<(i32, i64)>| {
        server.zxid += 1;
        let txn = Txn::CreateSession { timeout_ms: 1_000 };
        let zxid = Zxid(server.zxid);
        let header = TxnHeader { session: SessionId(77), cxid: 0, zxid, time_ms: 1, kind: txn.kind() };
        let mut record = Vec::new();
        txn.encode_record(&header, &mut record);
        if let Some((version, digest)) = digest {
            record.extend_from_slice(&version.to_be_bytes());
            record.extend_from_slice(&digest.to_be_bytes());
        }
        server.tree.apply(&Bytes::from(record)).unwrap();
        (server.tree.digest_mismatches(), zxid)
    };
    // None, as from an old server or one without digests; another version's; the right one.
    for harmless in [None, Some((1, 5)), Some((2, digest))] {
        assert_eq!(record_of(harmless).0, (0, None), "{harmless:?}");
    }
    let (counted, zxid) = record_of(Some((2, digest + 1)));
    assert_eq!(counted, (1, Some(zxid)));
    assert_eq!(record_of(Some((2, digest))).0, (1, Some(zxid)));
    assert_eq!(server.tree.last_applied(), Zxid(server.zxid));
}

/// P25, P30: an image that Apache wrote may be one transaction ahead of the digest at its end. That is no damage, and its
/// operator must not be told so. What is damaged must count, whether or not anybody says more.
#[test]
fn an_image_one_transaction_ahead_of_its_digest_is_not_damaged() {
    let mut server = Server::new();
    let mut records = Vec::new();
    let mut digests = Vec::new();
    for path in ["/a", "/b", "/c"] {
        let request = CreateRequest {
            path: path.into(),
            data: Some(b"x"),
            acl: Some(vec![Acl::OPEN]),
            flags: 0,
            ttl_ms: None,
        };
        let record = server.record(OpCode::Create, &Request::Create(OpCode::Create, request));
        server.tree.apply(&record).unwrap();
        records.push(record);
        digests.push((Zxid(server.zxid), server.tree.digest()));
    }
    let [(first, _), (second, behind_second), (third, _)] = digests[..] else { unreachable!() };
    // The image holds all three, and says that it is the second's.
    let mut image = server.tree.image();
    let mut bytes = Vec::new();
    while image.next_chunk(&mut bytes) {}
    drop(image);
    let load = |named: Zxid, digest: i64| {
        let config = TreeConfig { has_digests: true, ..TreeConfig::default() };
        let mut tree = image::load(config, &bytes).unwrap().0;
        tree.set_last_applied(named);
        tree.expect_digest(second, 2, digest);
        tree
    };
    for (named, rest) in [(second, &records[2..]), (first, &records[1..])] {
        let loaded = |digest: i64| {
            let mut tree = load(named, digest);
            rest.iter().for_each(|record| drop(tree.apply(record).unwrap()));
            tree.settle_digest();
            tree.digest_mismatches()
        };
        assert_eq!(loaded(behind_second), (0, None), "named {named}");
        // A digest that is wrong in another way cannot be told from that: the third transaction vouches for the tree.
        assert_eq!(loaded(behind_second + 1), (0, None), "named {named}");
    }
    // Nobody vouches for it.
    let mut silent = load(second, behind_second);
    assert_eq!(silent.digest_mismatches(), (0, None), "nothing is known yet");
    silent.settle_digest();
    assert_eq!(silent.digest_mismatches(), (1, Some(second)));
    // What this server makes of its own tree vouches for nothing.
    let tree = load(second, behind_second);
    let mut alone = Server { tree, zxid: second.0 };
    alone.create("/d", 0);
    assert_eq!(alone.tree.digest_mismatches(), (1, Some(second)));
    // The third says that the tree is another one.
    let mut damaged = load(second, behind_second);
    let mut record = records[2].to_vec();
    *record.last_mut().unwrap() ^= 1;
    damaged.apply(&Bytes::from(record)).unwrap();
    assert_eq!(damaged.digest_mismatches(), (2, Some(third)));
}

/// P34: `hash` shows the digest behind each 128th transaction.
#[test]
fn every_128th_digest_is_remembered() {
    let mut server = Server::new();
    while server.zxid < 300 {
        server.set("/zookeeper");
    }
    let zxids: Vec<i64> = server.tree.digest_log().map(|logged| logged.zxid.0).collect();
    assert_eq!(zxids, [128, 256]);
}

/// J6, ZOOKEEPER-3496: a short request must not become a transaction that nobody can read back.
#[test]
fn no_record_is_longer_than_a_reader_takes() {
    let config = TreeConfig { record_bytes_max: 4_000, ..TreeConfig::default() };
    let mut server = Server { tree: Tree::new(config), zxid: 0 };
    server.run(OpCode::CreateSession, Request::CreateSession(1_000));
    // 200 entries of 16 bytes, each to become one with the client's identity.
    let lists = |count: i32| (1..=count).map(|perms| Acl { perms: Perms(perms), id: Id::new("auth", "") });
    let refused = server.create_with(OpCode::Create, "/a", 0, None, lists(200).collect());
    assert_eq!(refused.answer, Answer::Error(ErrorCode::INVALID_ACL));
    let taken = server.create_with(OpCode::Create, "/a", 0, None, lists(20).collect());
    assert_eq!(created(&taken), "/a");
    for child in 0..100 {
        server.create(&format!("/ephemeral-with-a-long-name-{child}"), 1);
    }
    let record = server.record(OpCode::CloseSession, &Request::CloseSession);
    assert!(record.len() <= 4_000, "{}", record.len());
    server.tree.apply(&record).unwrap();
    assert_eq!(server.tree.ephemerals_count(), 0, "those that are not listed go too (P18)");
}
