//! Quotas: what subtrees hold is counted without drift, what they may hold is enforced (rows T39-T43).

use bytes::Bytes;
use proptest::prelude::*;
use zkfast_tree::{Answer, Ask, MultiAnswer, Tree, TreeConfig, image, quota::Track};
use zkfast_wire::{
    Acl, ErrorCode, OpCode, Request, SessionId, Zxid,
    request::{CreateRequest, PathVersion, SetDataRequest},
};

const SESSION: SessionId = SessionId(0x0100_0000_0000_0001);

struct Server {
    tree: Tree,
    zxid: i64,
}

fn create(path: &str, bytes: usize, flags: i32) -> Request<'static> {
    const DATA: [u8; 64] = [b'x'; 64];
    let path = path.to_owned().into();
    let acl = Some(vec![Acl::OPEN]);
    Request::Create(
        OpCode::Create,
        CreateRequest { path, data: Some(&DATA[..bytes]), acl, flags, ttl_ms: None },
    )
}

fn set(path: &str, bytes: usize) -> Request<'static> {
    const DATA: [u8; 64] = [b'y'; 64];
    let path = path.to_owned().into();
    Request::SetData(SetDataRequest { path, data: Some(&DATA[..bytes]), version: -1 })
}

fn delete(path: &str) -> Request<'static> {
    Request::Delete(PathVersion { path: path.to_owned().into(), version: -1 })
}

fn op_of(request: &Request<'_>) -> OpCode {
    match request {
        Request::Create(op, _) => *op,
        Request::SetData(_) => OpCode::SetData,
        Request::Delete(_) => OpCode::Delete,
        Request::Multi(_) => OpCode::Multi,
        Request::CloseSession => OpCode::CloseSession,
        _ => OpCode::CreateSession,
    }
}

fn config() -> TreeConfig {
    TreeConfig { enforces_quotas: true, has_digests: true, ..TreeConfig::default() }
}

impl Server {
    fn new() -> Self {
        let mut server = Self { tree: Tree::new(config()), zxid: 0 };
        server.run(&Request::CreateSession(1_000));
        server
    }

    fn prepare(&mut self, request: &Request<'_>) -> Bytes {
        self.zxid += 1;
        let (zxid, time_ms) = (Zxid(self.zxid), 1_000 * self.zxid);
        let op = op_of(request);
        let ask = Ask { session: SESSION, cxid: 1, zxid, time_ms, op, request, identities: &[] };
        let mut record = Vec::new();
        self.tree.prepare(&ask, &mut record);
        Bytes::from(record)
    }

    fn run(&mut self, request: &Request<'_>) -> Answer {
        let record = self.prepare(request);
        self.tree.apply(&record).unwrap().answer
    }

    /// As zkCli's setquota does it: the path's folders, then the limits, then the statistics.
    fn quota(&mut self, path: &str, limits: &str) {
        let mut folder = String::from("/zookeeper/quota");
        for name in path[1..].split('/') {
            folder = format!("{folder}/{name}");
            self.run(&create(&folder, 0, 0));
        }
        let acl = Some(vec![Acl::OPEN]);
        let limits_path = format!("{folder}/zookeeper_limits").into();
        let data = Some(limits.as_bytes());
        let request = CreateRequest { path: limits_path, data, acl, flags: 0, ttl_ms: None };
        assert!(matches!(self.run(&Request::Create(OpCode::Create, request)), Answer::Created { .. }));
        let stats = self.run(&create(&format!("{folder}/zookeeper_stats"), 0, 0));
        assert!(matches!(stats, Answer::Created { .. }));
    }

    fn stats(&self, path: &str) -> String {
        let node = self.tree.node(&format!("/zookeeper/quota{path}/zookeeper_stats")).unwrap();
        String::from_utf8(node.data().unwrap().to_vec()).unwrap()
    }
}

/// The naive count of a subtree: every node whose path begins so.
fn counted(tree: &Tree, path: &str) -> String {
    let (mut count, mut bytes) = (0, 0);
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        let Some(node) = tree.node(&path) else { continue };
        count += 1;
        bytes += node.data().map_or(0, <[u8]>::len);
        let mut names = Vec::new();
        node.put_children(&mut names);
        let mut decoder = zkfast_wire::Decoder::new(&names);
        for name in decoder.texts("names").unwrap() {
            open.push(format!("{path}/{name}"));
        }
    }
    format!("count={count},bytes={bytes}")
}

/// T39, T41, T43, G30: the text, what it counts, and that nothing else of the node moves.
#[test]
fn a_quota_counts_from_its_creation_to_its_end() {
    let mut server = Server::new();
    server.run(&create("/a", 5, 0));
    server.run(&create("/a/b", 7, 0));
    server.run(&create("/ab", 9, 0));
    server.quota("/a", "count=100,bytes=-1");
    assert_eq!(server.stats("/a"), "count=2,bytes=12");
    let node = "/zookeeper/quota/a/zookeeper_stats";
    let before = server.tree.node(node).unwrap().persisted();
    server.run(&create("/a/c", 1, 1));
    server.run(&set("/a/b", 0));
    server.run(&set("/a", 6));
    server.run(&create("/ab/c", 1, 0));
    assert_eq!(server.stats("/a"), "count=3,bytes=7");
    assert_eq!(server.tree.node(node).unwrap().persisted(), before, "neither version nor times move");
    server.run(&Request::CloseSession);
    server.run(&Request::CreateSession(1_000));
    assert_eq!(server.stats("/a"), "count=2,bytes=6", "the ephemeral went with its session");
    assert_eq!(server.tree.digest(), server.tree.recounted_digest(), "P33: the digest does not see it");
    server.run(&delete("/zookeeper/quota/a/zookeeper_limits"));
    server.run(&create("/a/d", 1, 0));
    assert_eq!(server.stats("/a"), "count=2,bytes=6", "switched off");
}

/// T42, T30, E33: hard limits refuse, soft ones tell, and requests that are under way count.
#[test]
fn hard_limits_refuse_and_soft_limits_tell() {
    let mut server = Server::new();
    server.run(&create("/a", 0, 0));
    server.quota("/a", "count=2,bytes=-1=;byteHardLimit=10;countHardLimit=3");
    let refused = Answer::Error(ErrorCode::QUOTA_EXCEEDED);
    assert!(matches!(server.run(&create("/a/1", 5, 0)), Answer::Created { .. }));
    assert_eq!(server.run(&create("/a/2", 6, 0)), refused, "bytes");
    let exceeded = server.tree.take_quota_exceeded().unwrap();
    assert_eq!((exceeded.what, exceeded.wanted, exceeded.limit, exceeded.is_hard), ("bytes", 11, 10, true));
    assert_eq!(server.run(&set("/a/1", 11)), refused);
    assert!(matches!(server.run(&set("/a/1", 10)), Answer::Stat(_)));
    assert!(matches!(server.run(&create("/a/2", 0, 0)), Answer::Created { .. }), "the hard limit wins");
    assert_eq!(server.run(&create("/a/3", 0, 0)), refused, "count");
    // What is under way counts: without it both would pass.
    server.run(&delete("/a/2"));
    let (first, second) = (server.prepare(&create("/a/4", 0, 0)), server.prepare(&create("/a/5", 0, 0)));
    assert!(matches!(server.tree.apply(&first).unwrap().answer, Answer::Created { .. }));
    assert_eq!(server.tree.apply(&second).unwrap().answer, refused);
    let deleting = server.prepare(&delete("/a/4"));
    let creating = server.prepare(&create("/a/6", 0, 0));
    server.tree.apply(&deleting).unwrap();
    assert!(matches!(server.tree.apply(&creating).unwrap().answer, Answer::Created { .. }));
    // A failed multi leaves nothing behind.
    server.run(&delete("/a/6"));
    let multi = Request::Multi(vec![create("/a/7", 0, 0), create("/a/8", 0, 0)]);
    assert_eq!(
        server.run(&multi),
        Answer::Multi(vec![MultiAnswer::Error(ErrorCode::OK), MultiAnswer::Error(ErrorCode::QUOTA_EXCEEDED)])
    );
    assert!(matches!(server.run(&create("/a/9", 0, 0)), Answer::Created { .. }));
    assert_eq!(server.stats("/a"), "count=3,bytes=10");
    // Nor while it is under way.
    server.run(&delete("/a/9"));
    let (failing, behind) = (server.prepare(&multi), server.prepare(&create("/a/9", 0, 0)));
    server.tree.apply(&failing).unwrap();
    assert!(matches!(server.tree.apply(&behind).unwrap().answer, Answer::Created { .. }));
    // T28, T30: before the quota whether the node exists, behind it the version.
    assert_eq!(server.run(&create("/a/9", 0, 0)), Answer::Error(ErrorCode::NODE_EXISTS));
    let other_version =
        |bytes| Request::SetData(SetDataRequest { path: "/a/9".into(), data: Some(bytes), version: 7 });
    assert_eq!(server.run(&other_version(&[0])), refused);
    assert_eq!(server.run(&other_version(&[])), Answer::Error(ErrorCode::BAD_VERSION));

    server.run(&create("/soft", 0, 0));
    server.quota("/soft", "count=1,bytes=-1");
    server.tree.take_quota_exceeded();
    assert!(matches!(server.run(&create("/soft/1", 0, 0)), Answer::Created { .. }));
    let exceeded = server.tree.take_quota_exceeded().unwrap();
    assert_eq!((exceeded.path.as_str(), exceeded.what, exceeded.is_hard), ("/soft", "count", false));
    assert_eq!(server.tree.take_quota_exceeded(), None);
}

/// A client may write anything into the nodes: no transaction may fail for it.
#[test]
fn nonsense_in_the_nodes_is_no_limit() {
    let mut server = Server::new();
    server.run(&create("/a", 0, 0));
    server.quota("/a", "count=,bytes==;byteHardLimit;;=,x=9999999999999999999999");
    assert!(matches!(server.run(&create("/a/1", 5, 0)), Answer::Created { .. }));
    assert_eq!(server.stats("/a"), "count=2,bytes=5");
    server.run(&set("/zookeeper/quota/a/zookeeper_stats", 3));
    server.run(&create("/a/2", 5, 0));
    assert_eq!(Track::parse(server.stats("/a").as_bytes()).count, 0, "as Java counts on from what is there");
    server.run(&create("/zookeeper/quota/zookeeper_limits", 0, 0));
    server.run(&create("/zookeeper/quota/zookeeper_stats", 0, 0));
    server.run(&delete("/zookeeper/quota/zookeeper_limits"));
}

fn steps() -> impl Strategy<Value = Vec<(u8, u8, u8, bool)>> {
    prop::collection::vec((0..6_u8, 0..40_u8, 0..64_u8, any::<bool>()), 1..80)
}

proptest! {
    /// Danger: a counter that drifts refuses writes that fit, or lets in those that do not, until the next restart.
    #[test]
    fn counters_are_what_a_recount_gives(steps in steps()) {
        let mut server = Server::new();
        for top in ["/a", "/b"] {
            server.run(&create(top, 3, 0));
            server.quota(top, "count=20,bytes=300=;byteHardLimit=400;countHardLimit=15");
        }
        let mut records = Vec::new();
        for (kind, place, bytes, settles) in steps {
            let top = if place % 2 == 0 { "/a" } else { "/b" };
            let path = match place / 2 % 10 {
                0 => top.to_owned(),
                leaf @ 1..5 => format!("{top}/{leaf}"),
                leaf => format!("{top}/{}/{leaf}", leaf % 4),
            };
            let request = match kind {
                0 | 1 => create(&path, bytes.into(), i32::from(bytes) % 2),
                2 => set(&path, bytes.into()),
                3 => delete(&path),
                4 => Request::Multi(vec![create(&format!("{path}/m"), 2, 0), set(&path, bytes.into())]),
                _ if bytes % 8 == 0 => Request::CloseSession,
                _ => create(&format!("{path}/s-"), bytes.into(), 3),
            };
            let reopens = matches!(request, Request::CloseSession);
            records.push(server.prepare(&request));
            if reopens {
                records.push(server.prepare(&Request::CreateSession(1_000)));
            }
            if settles {
                for record in records.drain(..) {
                    server.tree.apply(&record).unwrap();
                }
                for top in ["/a", "/b"] {
                    prop_assert_eq!(server.stats(top), counted(&server.tree, top));
                    let track = Track::parse(server.stats(top).as_bytes());
                    prop_assert!(track.count <= 15 && track.bytes <= 400, "{:?}", track);
                }
            }
        }
        // P32: whoever loads the image counts the same.
        for record in records {
            server.tree.apply(&record).unwrap();
        }
        let mut bytes = Vec::new();
        let mut writer = server.tree.image();
        while writer.next_chunk(&mut bytes) {}
        drop(writer);
        let (loaded, _) = image::load(config(), &bytes).unwrap();
        let loaded = Server { tree: loaded, zxid: server.zxid };
        for top in ["/a", "/b"] {
            prop_assert_eq!(loaded.stats(top), server.stats(top));
        }
        prop_assert_eq!(loaded.tree.approximate_data_size(), server.tree.approximate_data_size());
    }
}
