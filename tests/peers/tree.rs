//! A whole tree as a client sees it: each znode's data, ACL and Stat.

use super::client::{self, Client};
use std::collections::BTreeMap;
use zkfast_wire::{Acl, Decoder, OpCode, Stat};

/// One znode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Data; null and empty differ (T5).
    pub data: Option<Vec<u8>>,
    /// Sorted by path; the list itself in the server's order.
    pub acl: Vec<Acl<'static>>,
    /// All eleven fields.
    pub stat: Stat,
}

/// Everything below and including `root`, by path.
pub type Tree = BTreeMap<String, Node>;

/// Reads the tree below `root` over `client`, which must be allowed to read all of it.
pub fn read(client: &mut Client, root: &str) -> Tree {
    let mut tree = Tree::new();
    let mut wanted = vec![root.to_owned()];
    while let Some(path) = wanted.pop() {
        let get = client.submit(OpCode::GetData, &client::path_watch(&path, false));
        let acl = client.submit(OpCode::GetAcl, &client::path_alone(&path));
        let children = client.submit(OpCode::GetChildren2, &client::path_watch(&path, false));
        client.flush().expect("an open connection");
        let body = client.reply(get).unwrap_or_else(|err| panic!("getData {path}: {err}"));
        let (data, stat) = client::data_and_stat(&body);
        let body = client.reply(acl).unwrap_or_else(|err| panic!("getACL {path}: {err}"));
        let mut decoder = Decoder::new(&body);
        let acl = Acl::decode_list(&mut decoder).expect("a list").expect("a list");
        assert_eq!(Stat::decode(&mut decoder), Ok(stat), "the Stat of {path} depends on who asks");
        let body = client.reply(children).unwrap_or_else(|err| panic!("getChildren {path}: {err}"));
        let (names, children_stat) = client::children_and_stat(&body);
        assert_eq!(children_stat, stat, "the Stat of {path} depends on who asks");
        assert_eq!(names.len(), usize::try_from(stat.num_children).expect("a count"), "children of {path}");
        let prefix = if path == "/" { "" } else { path.as_str() };
        wanted.extend(names.iter().map(|name| format!("{prefix}/{name}")));
        let acl = acl.into_iter().map(Acl::into_owned).collect();
        tree.insert(path, Node { data, acl, stat });
    }
    tree
}

/// The differences between two trees, one line each, at most 20; empty if they are equal.
pub fn differences(left: &Tree, right: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    for path in left.keys().chain(right.keys().filter(|path| !left.contains_key(*path))) {
        match (left.get(path), right.get(path)) {
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b)) => {
                let lengths = |node: &Node| node.data.as_ref().map(Vec::len);
                let data = if a.data == b.data { "" } else { "data differs, " };
                lines.push(format!(
                    "{path}: {data}{:?} {:?} {:?}\n    against {:?} {:?} {:?}",
                    lengths(a),
                    a.acl,
                    a.stat,
                    lengths(b),
                    b.acl,
                    b.stat
                ));
            }
            (Some(_), None) => lines.push(format!("{path}: only in the first")),
            (None, Some(_)) => lines.push(format!("{path}: only in the second")),
            (None, None) => unreachable!("a path of either tree"),
        }
    }
    lines.truncate(20);
    lines
}

/// Asserts that two trees are equal in every field.
#[track_caller]
pub fn assert_equal(left: &Tree, right: &Tree, story: &str) {
    let lines = differences(left, right);
    assert!(lines.is_empty(), "{story}:\n{}", lines.join("\n"));
}
