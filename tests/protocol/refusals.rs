//! Operations that are refused: which error, and which one of two.

use super::{peers::client, start};
use bytes::BufMut;
use zkfast_wire::{Acl, Id, OpCode, Perms};

/// Danger: another error than Apache's wins, and a client takes the wrong turn (T3, T8, T28-T30, G17); or a refusal
/// takes no zxid (T27, G14). The errors themselves: E6 -5, E7 -6, E9 -8, E15 -101, E16 -102, E17 -103, E18 -108, E19 -110,
/// E20 -111, E23 -114.
#[test]
fn the_first_fault_in_apaches_order_is_the_one_that_is_told() {
    let (_home, _server, mut client) = start();
    let read_only = [Acl::READ_ONLY];
    client.create("/open", b"", 0).expect("a node");
    client.create("/open/child", b"", 0).expect("a node");
    client.create("/eph", b"", 1).expect("a node");
    client.call(OpCode::Create, &client::create("/closed", Some(b""), &read_only, 0)).expect("a node");
    let no_list: [Acl<'static>; 0] = [];
    let open = [Acl::OPEN];
    let bad = [Acl { perms: Perms::ALL, id: Id::new("nosuch", "x") }];
    let create = |path: &str, acl: &[Acl<'_>], flags: i32| client::create(path, Some(b""), acl, flags);
    let ttl = |path: &str, flags: i32, ttl_ms: i64| {
        let mut body = create(path, &open, flags);
        body.put_i64(ttl_ms);
        body
    };
    let version = client::path_version;
    for (op, body, err, what) in [
        // T28: flags, path, list, parent, permission, whole path, existing node, ephemeral parent.
        (OpCode::Create, create("no slash", &no_list, 9), -8, "flags before everything"),
        (OpCode::CreateTtl, ttl("/none/x", 5, 0), -8, "a ttl before the parent"),
        (OpCode::CreateTtl, ttl("/t", 0, 5), -8, "a ttl with another mode"),
        (OpCode::Create, create("no slash", &no_list, 0), -8, "the path before the list"),
        (OpCode::Create, create("/none/x", &no_list, 0), -114, "the list before the parent"),
        (OpCode::Create, create("/none/x", &bad, 0), -114, "an unknown scheme"),
        (OpCode::Create, create("/none/x/", &open, 0), -101, "the parent before the whole path"),
        (
            OpCode::Create,
            create("/closed/x/", &open, 0),
            -101,
            "the parent is what stands before the last slash",
        ),
        (OpCode::Create, create("/closed/.", &open, 0), -102, "permission before the whole path"),
        (OpCode::Create, create("/open/..", &open, 0), -8, "the whole path"),
        (OpCode::Create, create("/open/", &open, 0), -8, "no name"),
        (OpCode::Create, create("/open/child", &open, 0), -110, "the node exists"),
        (OpCode::Create, create("/eph/x", &open, 0), -108, "an ephemeral has no children"),
        // T29: path, parent, permission, node, version, children.
        (OpCode::Delete, version("no slash", 5), -8, "no path"),
        (OpCode::Delete, version("/", 5), -8, "the root (T3)"),
        (OpCode::Delete, version("/zookeeper", 5), -8, "T3"),
        (OpCode::Delete, version("/zookeeper/quota", 5), -8, "T3"),
        (OpCode::Delete, version("/zookeeper/config", 5), -8, "T3"),
        (OpCode::Delete, version("/none/x", 5), -101, "the parent"),
        (OpCode::Delete, version("/closed/none", 5), -102, "permission on the parent before the node"),
        (OpCode::Delete, version("/open/none", 5), -101, "the node"),
        (OpCode::Delete, version("/open", 5), -103, "the version before the children"),
        (OpCode::Delete, version("/open", 0), -111, "children"),
        // T30.
        (OpCode::SetData, client::set("/open/", None, 5), -8, "the path"),
        (OpCode::SetData, client::set("/none", None, 5), -101, "the node"),
        (OpCode::SetData, client::set("/closed", None, 5), -102, "permission before the version"),
        (OpCode::SetData, client::set("/open", None, 5), -103, "the version"),
        (OpCode::SetAcl, client::set_acl("/open/", &no_list, 5), -8, "the path before the list"),
        (OpCode::SetAcl, client::set_acl("/none", &no_list, 5), -114, "the list before the node"),
        (OpCode::SetAcl, client::set_acl("/none", &open, 5), -101, "the node"),
        (OpCode::SetAcl, client::set_acl("/closed", &open, 5), -102, "permission before the version"),
        (OpCode::SetAcl, client::set_acl("/open", &open, 5), -103, "the version is that of the list"),
        // Reads do not look at the path (T1).
        (OpCode::GetData, client::path_watch("/open/", false), -101, "nonsense has no node"),
        (OpCode::GetData, client::path_watch("no slash", false), -101, "nonsense has no node"),
        (OpCode::Exists, client::path_watch("/a\0", false), -8, "but for exists and NUL"),
        (OpCode::GetData, client::path_watch("/a\0", false), -101, "which others do not mind"),
        (OpCode::AddWatch, version("/open", 7), -5, "no such mode"),
        (OpCode::CheckWatches, version("/open", 7), -5, "no such kind"),
    ] {
        let before = client.last_zxid;
        assert_eq!(client.call(op, &body), Err(err), "{op:?}: {what}");
        let taken = client.last_zxid.0 - before.0;
        assert_eq!(taken, i64::from(op.is_write()), "a refused write has a transaction too (T27)");
    }
    let (name, _) = client.create("/open/", b"", 2).expect("a sequence number makes a name (T8)");
    assert_eq!(name, "/open/0000000001");
}

/// The empty path is the root's key in Java's map, so that reads find the root there; writes refuse it (T1).
#[test]
fn the_empty_path_reads_the_root() {
    let (_home, _server, mut client) = start();
    let root = client.get("/", false);
    assert_eq!(client.get("", false), root);
    assert_eq!(client.exists("", false), root.map(|(_, stat)| stat));
    assert_eq!(client.set("", b"x", -1), Err(-8));
    assert_eq!(client.delete("", -1), Err(-8));
}

/// Danger: a multi lets through what it must not, or the whole fails where one part should (OP34).
#[test]
fn what_a_multi_cannot_have_fails_it_as_a_whole() {
    let (_home, _server, mut client) = start();
    let create = |flags: i32| client::create("/x", Some(b""), &[Acl::OPEN], flags);
    let mut ttl = create(0);
    ttl.put_i64(-1);
    for (op, part) in
        [(OpCode::Create, create(9)), (OpCode::Create2, create(5)), (OpCode::CreateContainer, create(6))]
    {
        assert_eq!(client.call(OpCode::Multi, &client::multi(&[(op, part)])), Err(-5), "{op:?}");
    }
    let read = client::multi(&[(OpCode::GetData, client::path_watch("/", false))]);
    assert_eq!(client.call(OpCode::Multi, &read), Err(-5));
    // Inside a multi the flags decide: createTTL without a TTL mode is a create, create with flags 4 a container.
    let parts =
        [(OpCode::CreateTtl, ttl), (OpCode::Create, client::create("/c", Some(b""), &[Acl::OPEN], 4))];
    let body = client.call(OpCode::Multi, &client::multi(&parts)).expect("a multi");
    assert_eq!(client::multi_errors(&body), None);
    assert_eq!(body[..4], 1i32.to_be_bytes());
    let second = 9 + 4 + 2;
    assert_eq!(body[second..second + 4], 15i32.to_be_bytes());
}
