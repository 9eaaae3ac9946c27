//! Long lists of children, kept as they go out (row X4; Java's response cache).
//!
//! A hundred thousand names are a walk through as many places of memory. When such a list changes, those who watch it
//! all ask for it at once, so the second to ask leaves a copy for the others. What was listed is told by two numbers
//! of the node at the reader's view: its creation, and its last change of children (T13). A copy is never out of date:
//! other numbers are another list.
//!
//! One for each client core, bounded in lists and bytes. Whether the asker may read the node is checked before.

use crate::config::limits;
use std::collections::VecDeque;
use zkfast_tree::NodeRef;
use zkfast_wire::{Zxid, reply};

#[derive(Debug)]
struct List {
    path: Box<str>,
    czxid: Zxid,
    pzxid: Zxid,
    /// Encoded; empty while it was asked for once only.
    names: Vec<u8>,
}

/// The lists of one core, least recently made first.
#[derive(Debug, Default)]
pub struct Lists {
    lists: VecDeque<List>,
    bytes: usize,
}

impl Lists {
    /// Appends the names of the children of `node`, which `path` names, to `out`.
    pub fn put(&mut self, out: &mut Vec<u8>, path: &str, node: &NodeRef<'_>) {
        let count = node.num_children().unsigned_abs() as usize;
        if count < limits::LIST_KEPT_MIN {
            return reply::put_names(out, node.children());
        }
        let stat = node.persisted();
        let at = self.lists.iter().position(|list| *list.path == *path);
        let is_same =
            |list: &List| list.czxid == stat.czxid && list.pzxid == stat.pzxid && *list.path == *path;
        if let Some(list) = at.map(|at| &self.lists[at]).filter(|list| is_same(list))
            && !list.names.is_empty()
        {
            return out.extend_from_slice(&list.names);
        }
        let was_asked_for = at.is_some_and(|at| is_same(&self.lists[at]));
        if let Some(list) = at.and_then(|at| self.lists.remove(at)) {
            self.bytes -= list.names.len();
        }
        let start = out.len();
        // Names of one parent are of about one length.
        out.reserve(count * (4 + node.children().next().map_or(0, str::len)));
        reply::put_names(out, node.children());
        let names = &out[start..];
        let is_kept = was_asked_for && names.len() <= limits::LISTS_BYTES_MAX;
        let names = if is_kept { names.to_vec() } else { Vec::new() };
        self.bytes += names.len();
        self.lists.push_back(List { path: path.into(), czxid: stat.czxid, pzxid: stat.pzxid, names });
        while self.bytes > limits::LISTS_BYTES_MAX || self.lists.len() > limits::LISTS_MAX {
            self.bytes -= self.lists.pop_front().map_or(0, |list| list.names.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zkfast_tree::{Ask, Tree, TreeConfig};
    use zkfast_wire::{Acl, OpCode, Request, SessionId, request::CreateRequest, request::PathVersion};

    struct World {
        tree: Tree,
        zxid: i64,
    }

    impl World {
        fn change(&mut self, request: &Request<'_>) {
            self.zxid += 1;
            let ask = Ask {
                session: SessionId(0),
                cxid: 0,
                zxid: Zxid(self.zxid),
                time_ms: self.zxid,
                op: request.op(),
                request,
                identities: &[],
            };
            let mut record = Vec::new();
            assert!(self.tree.prepare(&ask, &mut record).error.is_ok());
            self.tree.apply(&record.into()).expect("just prepared");
        }

        fn create(&mut self, path: &str) {
            let acl = Some(vec![Acl::OPEN]);
            let create = CreateRequest { path: path.into(), data: None, acl, flags: 0, ttl_ms: None };
            self.change(&Request::Create(OpCode::Create, create));
        }

        fn delete(&mut self, path: &str) {
            self.change(&Request::Delete(PathVersion { path: path.into(), version: -1 }));
        }

        fn check(&self, lists: &mut Lists, path: &str) {
            let node = self.tree.node(path).expect("a node");
            let mut expected = Vec::new();
            reply::put_names(&mut expected, node.children());
            // Twice to be kept, and once more to be read.
            for time in 0..3 {
                let mut out = b"before".to_vec();
                lists.put(&mut out, path, &node);
                assert_eq!(out, [b"before", &expected[..]].concat(), "{path}, time {time}");
            }
            assert!(lists.lists.len() <= limits::LISTS_MAX && lists.bytes <= limits::LISTS_BYTES_MAX);
            assert_eq!(lists.bytes, lists.lists.iter().map(|list| list.names.len()).sum::<usize>());
        }
    }

    /// Danger: a client that was told of a change reads the list from before it (X4), also where a node was deleted
    /// and created again with as many children.
    #[test]
    fn a_kept_list_is_never_out_of_date() {
        let config = TreeConfig { local_sessions: true, ..TreeConfig::default() };
        let mut world = World { tree: Tree::new(config), zxid: 0 };
        let mut lists = Lists::default();
        world.create("/long");
        for child in 0..limits::LIST_KEPT_MIN {
            world.create(&format!("/long/{child}"));
        }
        world.check(&mut lists, "/long");
        assert!(lists.bytes > 0, "it is kept");
        world.create("/long/new");
        world.check(&mut lists, "/long");
        world.delete("/long/0");
        world.create("/long/1/grandchild");
        world.check(&mut lists, "/long");
        world.create("/short");
        world.check(&mut lists, "/short");
        assert_eq!(lists.lists.len(), 1, "a short list is made anew");
        for other in 0..=limits::LISTS_MAX {
            let path = format!("/other{other}");
            world.create(&path);
            for child in 0..limits::LIST_KEPT_MIN {
                world.create(&format!("{path}/{child}"));
            }
            world.check(&mut lists, &path);
        }
        assert!(lists.lists.iter().all(|list| *list.path != *"/long"), "the oldest one has made room");
        world.check(&mut lists, "/long");
    }
}
