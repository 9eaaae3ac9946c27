//! The real tree against the naive one, over random streams of every operation: answers, events, the whole tree at
//! several views, images with replays from any earlier transaction.

mod naive;

use bytes::Bytes;
use naive::{Caller, Events, NaiveAnswer, NaiveTree};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use zkfast_tree::{
    Answer, Applied, Ask, ChangeKind, DIGEST_VERSION, ImageWriter, MultiAnswer, NodeRef, Reader, Tree,
    TreeConfig, image,
};
use zkfast_wire::{
    Acl, ErrorCode, Id, OpCode, Perms, Request, SessionId, Zxid,
    request::{CreateRequest, PathVersion, SetAclRequest, SetDataRequest},
};

/// A request with its own memory, as proptest makes it.
#[derive(Clone, Debug)]
enum Op {
    Create { op: OpCode, path: String, data: Option<Vec<u8>>, acl: usize, flags: i32, ttl_ms: i64 },
    Delete { path: String, version: i32 },
    DeleteContainer { path: String },
    SetData { path: String, data: Option<Vec<u8>>, version: i32 },
    SetAcl { path: String, acl: usize, version: i32 },
    Check { path: String, version: i32 },
    Multi(Vec<Op>),
    CreateSession(i32),
    CloseSession,
}

fn digest(perms: i32, id: &'static str) -> Acl<'static> {
    Acl { perms: Perms(perms), id: Id::new("digest", id) }
}

/// The lists that requests carry; the first is by far the most frequent.
fn lists() -> Vec<Option<Vec<Acl<'static>>>> {
    let auth = Acl { perms: Perms(31), id: Id::new("auth", "") };
    let bad = Acl { perms: Perms(31), id: Id::new("nonsense", "x") };
    vec![
        Some(vec![Acl::OPEN]),
        Some(vec![Acl::READ_ONLY]),
        Some(vec![digest(31, "ann:h")]),
        Some(vec![digest(31, "ann:h"), digest(3, "bob:h"), digest(31, "ann:h")]),
        Some(vec![auth]),
        Some(vec![bad]),
        Some(vec![]),
        None,
    ]
}

fn identities(who: usize) -> Vec<Id<'static>> {
    let ip = Id::new("ip", "10.0.0.1");
    match who {
        0 => vec![ip],
        1 => vec![ip, Id::new("digest", "ann:h")],
        2 => vec![ip, Id::new("digest", "bob:h")],
        _ => vec![Id::new("super", "")],
    }
}

impl Op {
    fn code(&self) -> OpCode {
        match self {
            Self::Create { op, .. } => *op,
            Self::Delete { .. } => OpCode::Delete,
            Self::DeleteContainer { .. } => OpCode::DeleteContainer,
            Self::SetData { .. } => OpCode::SetData,
            Self::SetAcl { .. } => OpCode::SetAcl,
            Self::Check { .. } => OpCode::Check,
            Self::Multi(_) => OpCode::Multi,
            Self::CreateSession(_) => OpCode::CreateSession,
            Self::CloseSession => OpCode::CloseSession,
        }
    }

    fn request(&self) -> Request<'_> {
        match self {
            Self::Create { op, path, data, acl, flags, ttl_ms } => Request::Create(
                *op,
                CreateRequest {
                    path: path.into(),
                    data: data.as_deref(),
                    acl: lists()[*acl].clone(),
                    flags: *flags,
                    ttl_ms: (*op == OpCode::CreateTtl).then_some(*ttl_ms),
                },
            ),
            Self::Delete { path, version } => {
                Request::Delete(PathVersion { path: path.into(), version: *version })
            }
            Self::DeleteContainer { path } => Request::DeleteContainer(path.as_bytes()),
            Self::SetData { path, data, version } => Request::SetData(SetDataRequest {
                path: path.into(),
                data: data.as_deref(),
                version: *version,
            }),
            Self::SetAcl { path, acl, version } => Request::SetAcl(SetAclRequest {
                path: path.into(),
                acl: lists()[*acl].clone(),
                version: *version,
            }),
            Self::Check { path, version } => {
                Request::Check(PathVersion { path: path.into(), version: *version })
            }
            Self::Multi(parts) => Request::Multi(parts.iter().map(Op::request).collect()),
            Self::CreateSession(timeout_ms) => Request::CreateSession(*timeout_ms),
            Self::CloseSession => Request::CloseSession,
        }
    }
}

fn path() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    prop_oneof![
        20 => prop::collection::vec(name, 1..4).prop_map(|names| format!("/{}", names.join("/"))),
        1 => prop::sample::select(vec![
            "/", "", "a", "/a/", "/a//b", "//", "/./a", "/a/..", "/a\0", "/\u{1}", "/zookeeper", "/zookeeper/x",
            "/zookeeper/config", "/a/0000000001", "/a/b-0000000000",
        ]).prop_map(str::to_owned),
    ]
}

fn data() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![1 => Just(None), 6 => prop::collection::vec(any::<u8>(), 0..20).prop_map(Some)]
}

fn list() -> impl Strategy<Value = usize> {
    prop_oneof![20 => Just(0_usize), 4 => 1_usize..5, 1 => 5_usize..8]
}

fn version() -> impl Strategy<Value = i32> {
    prop_oneof![3 => Just(-1), 2 => 0..3]
}

fn simple_op() -> impl Strategy<Value = Op> {
    let creation = prop::sample::select(vec![
        OpCode::Create,
        OpCode::Create,
        OpCode::Create2,
        OpCode::CreateContainer,
        OpCode::CreateTtl,
    ]);
    let flags = prop_oneof![30 => 0..7, 1 => Just(7), 1 => Just(-1)];
    let ttl_ms = prop_oneof![8 => 1_i64..100, 1 => Just(0), 1 => Just(-1), 1 => Just(1_i64 << 40)];
    prop_oneof![
        8 => (creation, path(), data(), list(), flags, ttl_ms, any::<bool>()).prop_map(
            |(op, path, data, acl, flags, ttl_ms, fitting)| {
                // Mostly flags that fit the operation, so that most creations are good.
                let flags = match op {
                    OpCode::CreateContainer if fitting => 4,
                    OpCode::CreateTtl if fitting => 5 + flags % 2,
                    OpCode::Create | OpCode::Create2 if fitting && flags > 3 => 0,
                    _ => flags,
                };
                Op::Create { op, path, data, acl, flags, ttl_ms }
            }
        ),
        4 => (path(), version()).prop_map(|(path, version)| Op::Delete { path, version }),
        1 => path().prop_map(|path| Op::DeleteContainer { path }),
        4 => (path(), data(), version()).prop_map(|(path, data, version)| Op::SetData { path, data, version }),
        2 => (path(), list(), version()).prop_map(|(path, acl, version)| Op::SetAcl { path, acl, version }),
        1 => (path(), version()).prop_map(|(path, version)| Op::Check { path, version }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let in_multi = simple_op().prop_filter("not part of a multi", |op| {
        !matches!(op, Op::SetAcl { .. } | Op::DeleteContainer { .. })
    });
    prop_oneof![
        20 => simple_op(),
        4 => prop::collection::vec(in_multi, 0..5).prop_map(Op::Multi),
        2 => (1..100).prop_map(Op::CreateSession),
        2 => Just(Op::CloseSession),
    ]
}

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// Prepare all, then apply all: (session, identities, request).
    Batch(Vec<(i64, usize, Op)>),
    /// A reader moves on by so many transactions and publishes or not.
    Move {
        reader: usize,
        by: usize,
        publish: bool,
    },
    NewReader,
    DropReader(usize),
    /// An image begins and is written up to some chunk.
    BeginImage,
    EndImage,
    /// The pending changes are lost: a batch is prepared, discarded, and other requests follow.
    Discard(Vec<(i64, usize, Op)>),
}

fn batch() -> impl Strategy<Value = Vec<(i64, usize, Op)>> {
    prop::collection::vec((1_i64..4, prop_oneof![6 => Just(0_usize), 4 => 1_usize..4], op()), 1..8)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => batch().prop_map(Step::Batch),
        6 => (0_usize..4, 0_usize..30, any::<bool>())
            .prop_map(|(reader, by, publish)| Step::Move { reader, by, publish }),
        1 => Just(Step::NewReader),
        1 => (0_usize..4).prop_map(Step::DropReader),
        1 => Just(Step::BeginImage),
        1 => Just(Step::EndImage),
        1 => batch().prop_map(Step::Discard),
    ]
}

struct World {
    tree: Tree,
    naive: NaiveTree,
    /// The naive tree after each transaction; the first is the fresh one, at zxid 0.
    history: Vec<NaiveTree>,
    records: Vec<Bytes>,
    readers: Vec<Reader>,
    image: Option<ImageWriter>,
}

fn config() -> TreeConfig {
    TreeConfig { hash_seed: 99, extended_types: true, has_digests: true, ..TreeConfig::default() }
}

impl World {
    fn new() -> Self {
        let mut tree = Tree::new(config());
        let naive = NaiveTree::new(true);
        let readers = vec![tree.reader()];
        let history = vec![naive.clone()];
        Self { tree, naive, history, records: Vec::new(), readers, image: None }
    }

    fn prepare(&mut self, batch: &[(i64, usize, Op)]) -> Vec<(Bytes, NaiveAnswer, Events, NaiveTree)> {
        let mut naive = self.naive.clone();
        let mut out = Vec::new();
        let mut prepared = Vec::new();
        for (position, (session, who, op)) in batch.iter().enumerate() {
            let zxid = (self.records.len() + 1 + position) as i64;
            let identities = identities(*who);
            let session = SessionId(*session);
            let time_ms = 1_000 + zxid;
            let request = op.request();
            let ask = Ask {
                session,
                cxid: zxid as i32,
                zxid: Zxid(zxid),
                time_ms,
                op: op.code(),
                request: &request,
                identities: &identities,
            };
            out.clear();
            self.tree.prepare(&ask, &mut out);
            let caller = Caller { session, zxid, time_ms, identities: &identities };
            let (answer, events) = naive.run(&caller, &request);
            prepared.push((Bytes::copy_from_slice(&out), answer, events, naive.clone()));
        }
        prepared
    }

    fn apply(&mut self, batch: &[(i64, usize, Op)]) {
        for (record, answer, events, naive) in self.prepare(batch) {
            let applied = self.tree.apply(&record).unwrap();
            assert_eq!(answer_of(&applied.answer), answer, "{:?}", self.records.len() + 1);
            assert_eq!(events_of(&applied), events);
            self.records.push(record);
            self.history.push(naive.clone());
            self.naive = naive;
        }
        assert_eq!(self.tree.pending_count(), 0, "the overlay holds only what is in flight");
        // P33, P34: the sum that is kept is that of a walk, and the one that was prepared is the one that came about.
        assert_eq!(self.tree.digest(), self.tree.recounted_digest());
        assert_eq!(self.tree.digest_mismatches(), (0, None));
    }

    fn check_newest(&self) {
        check_sessions(&self.tree, &self.naive);
        check_nodes(&self.naive, |path| self.tree.node(path));
        let bytes: usize = self
            .naive
            .nodes
            .iter()
            .map(|(path, node)| path.len() + node.data.as_ref().map_or(0, Vec::len))
            .sum();
        assert_eq!(self.tree.approximate_data_size() as usize, bytes);
        assert_eq!(self.tree.node_count(), self.naive.nodes.len() + 1);
    }

    fn check_reader(&self, reader: usize) {
        let reader = &self.readers[reader];
        check_nodes(&self.history[reader.view().0 as usize], |path| reader.node(path));
    }

    /// The image, loaded, is the tree at its zxid; with the log replayed from any earlier point it is the newest tree.
    fn end_image(&mut self) {
        let Some(mut image) = self.image.take() else { return };
        let zxid = image.zxid();
        let mut bytes = Vec::new();
        while image.next_chunk(&mut bytes) {}
        let digest = image.digest();
        assert!(image.digest_agrees());
        drop(image);
        let (loaded, consumed) = image::load(config(), &bytes).unwrap();
        assert_eq!(consumed, bytes.len());
        let then = &self.history[zxid.0 as usize];
        check_sessions(&loaded, then);
        check_nodes(then, |path| loaded.node(path));
        assert_eq!(Some(loaded.digest()), digest);
        drop(loaded);
        for from in [0, zxid.0 / 2, zxid.0] {
            let (mut loaded, _) = image::load(config(), &bytes).unwrap();
            loaded.set_last_applied(Zxid(from));
            // P30: the image is fuzzy for a replay from further back, and nothing may be compared until its end.
            loaded.expect_digest(zxid, DIGEST_VERSION, digest.unwrap());
            for record in &self.records[from as usize..] {
                loaded.apply(record).unwrap();
            }
            check_sessions(&loaded, &self.naive);
            check_nodes(&self.naive, |path| loaded.node(path));
            assert_eq!(loaded.digest(), self.tree.digest());
            assert_eq!(loaded.digest_mismatches(), (0, None));
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Batch(batch) => self.apply(batch),
            Step::Move { reader, by, publish } => {
                let newest = self.tree.last_applied().0;
                let Some(reader) = self.readers.get_mut(*reader) else { return };
                let view = Zxid((reader.view().0 + *by as i64).min(newest));
                reader.set_view(view);
                if *publish {
                    reader.publish();
                }
            }
            Step::NewReader if self.readers.len() < 4 => self.readers.push(self.tree.reader()),
            Step::NewReader => {}
            Step::DropReader(reader) if *reader < self.readers.len() => {
                self.readers.remove(*reader);
            }
            Step::DropReader(_) => {}
            Step::BeginImage => {
                let mut image = self.tree.image();
                assert_eq!(image.zxid(), self.tree.last_applied());
                // The writer goes on while the image is under way.
                image.next_chunk(&mut Vec::new());
                self.image = Some(self.tree.image());
            }
            Step::EndImage => self.end_image(),
            Step::Discard(batch) => {
                let _ = self.prepare(batch);
                self.tree.discard_pending();
                assert_eq!(self.tree.pending_count(), 0);
            }
        }
        // Memory is given back as eagerly as possible, so that a reader that still needs something would notice.
        self.tree.settle();
    }
}

fn answer_of(answer: &Answer) -> NaiveAnswer {
    match answer {
        Answer::Error(error) => NaiveAnswer::Error(*error),
        Answer::Empty => NaiveAnswer::Empty,
        Answer::Created { path, stat } => NaiveAnswer::Created(path.to_string(), *stat),
        Answer::Stat(stat) => NaiveAnswer::Stat(*stat),
        Answer::SessionCreated { .. } | Answer::SessionClosed => NaiveAnswer::Session,
        Answer::Multi(parts) => NaiveAnswer::Multi(
            parts
                .iter()
                .map(|part| match part {
                    MultiAnswer::Error(error) => NaiveAnswer::Error(*error),
                    MultiAnswer::Created { path, stat } => NaiveAnswer::Created(path.to_string(), *stat),
                    MultiAnswer::Deleted => NaiveAnswer::Empty,
                    MultiAnswer::Stat(stat) => NaiveAnswer::Stat(*stat),
                    MultiAnswer::Checked => NaiveAnswer::Checked,
                })
                .collect(),
        ),
    }
}

fn events_of(applied: &Applied) -> Events {
    let event = |change: &zkfast_tree::Change| {
        let kind = match change.kind {
            ChangeKind::Created => 'c',
            ChangeKind::Deleted => 'x',
            ChangeKind::DataChanged => 'd',
        };
        (kind, change.path.to_string())
    };
    applied.changes.iter().map(event).collect()
}

fn check_sessions(tree: &Tree, naive: &NaiveTree) {
    let sessions: BTreeMap<_, _> = tree.sessions().iter().collect();
    assert_eq!(sessions, naive.sessions);
    let mut count = 0;
    for session in (1..4).map(SessionId) {
        let paths: Vec<_> = tree.ephemerals_of(session).map(str::to_owned).collect();
        assert_eq!(paths, naive.ephemerals_of(session));
        count += paths.len();
    }
    assert_eq!(tree.ephemerals_count(), count);
}

fn check_nodes<'t>(naive: &NaiveTree, find: impl Fn(&str) -> Option<NodeRef<'t>>) {
    for (path, expected) in &naive.nodes {
        let node = find(path).unwrap_or_else(|| panic!("{path} is missing"));
        assert_eq!(node.path(), path);
        assert_eq!(node.data(), expected.data.as_deref(), "{path}");
        assert_eq!(node.acl(), &*expected.acl, "{path}");
        assert_eq!(node.stat(), naive.stat(path), "{path}");
        assert_eq!(node.persisted().ephemeral_owner, expected.owner.encode(), "{path}");
        let children: BTreeSet<_> = node.children().map(str::to_owned).collect();
        assert_eq!(children, naive.children(path), "{path}");
        assert_eq!(children.len(), node.num_children() as usize);
        let below = naive
            .nodes
            .keys()
            .filter(|other| other.as_str() != "/" && (path == "/" || other.starts_with(&format!("{path}/"))));
        assert_eq!(node.descendant_count() as usize, below.count(), "{path}");
    }
    for absent in ["/a", "/b", "/a/a", "/a/b", "/b/c", "/c/a/b", "/a/", "//", "x"] {
        assert_eq!(find(absent).is_some(), naive.nodes.contains_key(absent), "{absent:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    /// Any difference between replicas, views or a replay begins as a difference from this simple picture.
    #[test]
    fn the_tree_is_the_naive_tree(steps in prop::collection::vec(step(), 1..25)) {
        let mut world = World::new();
        world.apply(&[(1, 0, Op::CreateSession(10)), (2, 0, Op::CreateSession(20))]);
        for step in &steps {
            world.step(step);
            world.check_newest();
            for reader in 0..world.readers.len() {
                world.check_reader(reader);
            }
        }
        world.end_image();
    }
}

/// T27: the record of a refusal is one too, and it is the only one.
#[test]
fn a_refused_request_is_one_error_record() {
    let mut world = World::new();
    let (record, answer, ..) =
        world.prepare(&[(9, 0, Op::Delete { path: "/a".into(), version: -1 })]).remove(0);
    assert_eq!(answer, NaiveAnswer::Error(ErrorCode::SESSION_EXPIRED));
    assert_eq!(record.len(), 36);
    let applied = world.tree.apply(&record).unwrap();
    assert_eq!(applied.header.kind, OpCode::Error);
    assert_eq!(world.tree.last_applied(), Zxid(1));
}

/// T2, T4, T9, G3: what a monitoring page shows of a new server.
#[test]
fn a_fresh_tree_looks_like_a_fresh_apache() {
    let tree = Tree::new(config());
    assert_eq!(tree.node_count(), 5);
    assert_eq!(tree.approximate_data_size(), 44);
    for (path, cversion, aversion, num_children) in [
        ("/", -1, 0, 1),
        ("/zookeeper", -2, 0, 2),
        ("/zookeeper/quota", 0, 0, 0),
        ("/zookeeper/config", 0, -1, 0),
    ] {
        let stat = tree.node(path).unwrap().stat();
        let expected = zkfast_wire::Stat { cversion, aversion, num_children, ..zkfast_wire::Stat::default() };
        assert_eq!(stat, expected, "{path}");
    }
    assert_eq!(tree.node("/zookeeper/config").unwrap().acl(), [Acl::READ_ONLY]);
}
