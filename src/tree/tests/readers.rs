//! Readers on other threads while the writer goes on: what design section 4 promises, under load and under Miri.
//!
//! The history is a formula: transaction z touches node (z - 1) % NODES, which goes through create, set, set, delete,
//! over and over. So a reader can tell from its view alone what every node must look like. A version that is freed too
//! early, a torn record, a sibling lost from the list: each shows as a wrong byte, or under Miri as an error.
//! To run it there: `cargo +nightly miri test -p zkfast-tree --test readers`.

use bytes::Bytes;
use std::{
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    thread,
};
use zkfast_tree::{Ask, ImageWriter, NodeRef, Reader, Tree, TreeConfig, image};
use zkfast_wire::{
    Acl, Id, OpCode, Perms, Request, SessionId, Zxid,
    request::{CreateRequest, PathVersion, SetDataRequest},
};

const NODES: i64 = if cfg!(miri) { 3 } else { 97 };
const TRANSACTIONS: i64 = if cfg!(miri) { 60 } else { 60_000 };
const READERS: usize = if cfg!(miri) { 1 } else { 3 };
const SESSION: SessionId = SessionId(7);

fn path(node: i64) -> String {
    format!("/parent/child-{node:04}")
}

/// What transaction `zxid` leaves in its node.
fn data(zxid: i64) -> Vec<u8> {
    let bytes = if zxid % 11 == 0 { 700 } else { zxid as usize % 150 };
    zxid.to_le_bytes().iter().copied().cycle().take(bytes + 8).collect()
}

/// Two lists, so that interned lists come, go and are freed on the way.
fn acl(zxid: i64) -> Vec<Acl<'static>> {
    let id = Id { scheme: "digest".into(), id: format!("user{}:x", zxid % 5).into() };
    vec![Acl::READ_ONLY, Acl { perms: Perms::ALL, id }]
}

/// The first transaction that touches nodes; the ones before make session and parent.
const FIRST: i64 = 3;

/// The last transaction up to `view` that touched `node`, and its place in the cycle.
fn last_touch(node: i64, view: i64) -> Option<(i64, i64)> {
    let since = view - FIRST - node;
    (since >= 0).then(|| (FIRST + node + since / NODES * NODES, since / NODES % 4))
}

fn write(tree: &mut Tree, zxid: i64) {
    let node = path((zxid - FIRST).rem_euclid(NODES));
    let data = data(zxid);
    let identities = [Id::new("super", "")];
    let create = |path: &str, acl| {
        let path = path.to_owned().into();
        Request::Create(
            OpCode::Create,
            CreateRequest { path, data: Some(&data), acl, flags: 0, ttl_ms: None },
        )
    };
    let request = match (zxid, (zxid - FIRST).div_euclid(NODES) % 4) {
        (1, _) => Request::CreateSession(1_000),
        (2, _) => create("/parent", Some(vec![Acl::OPEN])),
        (_, 0) => create(&node, Some(acl(zxid))),
        (_, 1 | 2) => Request::SetData(SetDataRequest { path: node.into(), data: Some(&data), version: -1 }),
        _ => Request::Delete(PathVersion { path: node.into(), version: -1 }),
    };
    let op = match request {
        Request::CreateSession(_) => OpCode::CreateSession,
        Request::Create(..) => OpCode::Create,
        Request::SetData(_) => OpCode::SetData,
        _ => OpCode::Delete,
    };
    let ask = Ask {
        session: SESSION,
        cxid: 0,
        zxid: Zxid(zxid),
        time_ms: zxid,
        op,
        request: &request,
        identities: &identities,
    };
    let mut record = Vec::new();
    assert!(tree.prepare(&ask, &mut record).error.is_ok());
    tree.apply(&Bytes::from(record)).unwrap();
}

/// Checks everything that a view shows.
fn check<'t>(view: i64, find: impl Fn(&str) -> Option<NodeRef<'t>>) {
    if view < FIRST {
        return;
    }
    let mut expected_children = Vec::new();
    for node in 0..NODES {
        let path = path(node);
        let found = find(&path);
        let Some((zxid, place)) = last_touch(node, view).filter(|(_, place)| *place != 3) else {
            assert!(found.is_none(), "{path} is there at view {view}");
            continue;
        };
        let found = found.unwrap_or_else(|| panic!("{path} is missing at view {view}"));
        let stat = found.stat();
        assert_eq!(found.data(), Some(&*data(zxid)), "{path} at view {view}");
        assert_eq!((stat.mzxid, stat.mtime_ms, i64::from(stat.version)), (Zxid(zxid), zxid, place));
        let czxid = zxid - place * NODES;
        assert_eq!(stat.czxid, Zxid(czxid));
        assert_eq!(found.acl(), acl(czxid));
        expected_children.push(found.name().to_owned());
    }
    let parent = find("/parent").unwrap();
    let mut children: Vec<_> = parent.children().map(str::to_owned).collect();
    children.sort_unstable();
    assert_eq!(children, expected_children, "children at view {view}");
    assert_eq!(parent.num_children() as usize, children.len());
}

fn read(reader: &mut Reader, applied: &AtomicI64, done: &AtomicBool) {
    let mut turn = 0_u64;
    while !done.load(Ordering::Acquire) {
        turn += 1;
        let newest = applied.load(Ordering::Acquire);
        // Some turns lag behind, as a busy core does.
        let view = if turn.is_multiple_of(3) { (newest + reader.view().0) / 2 } else { newest };
        reader.set_view(Zxid(view.max(reader.view().0)));
        check(reader.view().0, |path| reader.node(path));
        if turn.is_multiple_of(2) {
            reader.publish();
        }
        if cfg!(miri) {
            thread::yield_now();
        }
    }
}

fn write_image(mut image: ImageWriter) {
    let zxid = image.zxid();
    let mut bytes = Vec::new();
    while image.next_chunk(&mut bytes) {}
    drop(image);
    let (tree, _) = image::load(TreeConfig::default(), &bytes).unwrap();
    check(zxid.0, |path| tree.node(path));
}

/// Freed too early, a version turns into another node's bytes under a reader's eyes; never freed, memory grows with
/// every set.
#[test]
fn every_view_stays_whole_while_the_writer_goes_on() {
    let mut tree = Tree::new(TreeConfig { hash_seed: 3, ..TreeConfig::default() });
    let (applied, done) = (AtomicI64::new(0), AtomicBool::new(false));
    let readers: Vec<_> = (0..READERS).map(|_| tree.reader()).collect();
    thread::scope(|scope| {
        for mut reader in readers {
            let (applied, done) = (&applied, &done);
            scope.spawn(move || read(&mut reader, applied, done));
        }
        let image_interval = TRANSACTIONS / if cfg!(miri) { 2 } else { 20 };
        for zxid in 1..=TRANSACTIONS {
            write(&mut tree, zxid);
            applied.store(zxid, Ordering::Release);
            if zxid % image_interval == FIRST {
                let image = tree.image();
                scope.spawn(move || write_image(image));
            }
        }
        done.store(true, Ordering::Release);
    });
    check(TRANSACTIONS, |path| tree.node(path));
    tree.settle();
    assert_eq!(tree.waiting_count(), 0, "without readers nothing is kept");
    assert_eq!(tree.reader_count(), 0);
    // Readers may outlive the writer.
    let reader = tree.reader();
    write(&mut tree, TRANSACTIONS + 1);
    drop(tree);
    check(TRANSACTIONS, |path| reader.node(path));
}

/// An image pins one view. A million sets of one node under it must keep one old version, not a million.
#[test]
fn an_image_keeps_one_version_of_a_hot_node() {
    let mut tree = Tree::new(TreeConfig::default());
    let cycle = 4 * NODES;
    for zxid in 1..FIRST + cycle {
        write(&mut tree, zxid);
    }
    let mut image = tree.image();
    image.next_chunk(&mut Vec::new());
    for zxid in FIRST + cycle..FIRST + 6 * cycle {
        write(&mut tree, zxid);
    }
    // What the image may be walking over goes after its quiescent points.
    for _ in 0..3 {
        tree.settle();
        image.next_chunk(&mut Vec::new());
    }
    tree.settle();
    // The parent's counters at the image's view, and nothing else: the nodes of that view were all deleted before it.
    assert!(tree.waiting_count() <= 2, "{} records wait", tree.waiting_count());
    drop(image);
    tree.settle();
    assert_eq!(tree.waiting_count(), 0);
}
