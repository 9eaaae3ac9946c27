//! What one worker's folder must look like after each of its requests.

use super::peers::{Dice, client, tree};
use std::collections::BTreeMap;
use zkfast_wire::{Acl, Decoder, OpCode, SessionId, Stat};

/// A request of a worker; paths are names within its folder.
#[derive(Clone, Debug)]
pub enum Op {
    /// create2 of a named node.
    Create { name: String, data: Vec<u8>, ephemeral: bool },
    /// create2 of a sequential node.
    Sequential { data: Vec<u8> },
    /// setData with the version that the model expects, or a wrong one.
    Set { name: String, data: Vec<u8>, version: i32 },
    /// delete.
    Delete { name: String },
    /// Several of the above at once.
    Multi(Vec<Op>),
    /// closeSession.
    Close,
}

/// A node of the folder.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    data: Vec<u8>,
    version: i32,
    ephemeral: bool,
    /// What the last acknowledgement said; `None` if it was never acknowledged with a Stat.
    stat: Option<Stat>,
}

/// The folder.
#[derive(Clone, Debug, Default)]
pub struct Model {
    nodes: BTreeMap<String, Node>,
    /// Creations in the folder: its raw cversion, from which sequential names come (T6).
    creates: i32,
    /// The worker's session ended.
    pub closed: bool,
}

const NODES_MAX: usize = 120;

impl Model {
    /// A request that fits the present state, most of the time.
    pub fn invent(&self, dice: &mut Dice, serial: u64) -> Op {
        if dice.one_in(400) {
            return Op::Close;
        }
        if dice.one_in(8) {
            let mut after = self.clone();
            let mut parts = Vec::new();
            for part in 0..2 + dice.below(4) as u64 {
                let op = after.invent_one(dice, serial * 100 + part);
                // A refused part refuses all: the later ones are refused whatever they are.
                let _ = after.apply(&op);
                parts.push(op);
            }
            return Op::Multi(parts);
        }
        self.invent_one(dice, serial)
    }

    fn invent_one(&self, dice: &mut Dice, serial: u64) -> Op {
        let mut data = format!("write {serial} ").into_bytes();
        data.resize(data.len() + if dice.one_in(50) { 8_000 } else { dice.below(200) }, b'.');
        let known = (!self.nodes.is_empty()).then(|| {
            let (name, node) = self.nodes.iter().nth(dice.below(self.nodes.len())).expect("within the map");
            (name.clone(), node.version)
        });
        match (dice.below(10), known) {
            (0..=1, Some((name, _))) => Op::Delete { name },
            (2..=3, Some((name, _))) if self.nodes.len() > NODES_MAX => Op::Delete { name },
            (2..=5, Some((name, version))) => {
                let version = if dice.one_in(10) { version + 1 } else { version };
                Op::Set { name, data, version }
            }
            (6, Some((name, _))) => Op::Create { name, data, ephemeral: false },
            (7, _) => Op::Sequential { data },
            (8, _) => Op::Create { name: format!("e{serial}"), data, ephemeral: true },
            (9, _) => Op::Delete { name: format!("missing{serial}") },
            _ => Op::Create { name: format!("n{serial}"), data, ephemeral: false },
        }
    }

    /// Does `op`, or says with which code it must be refused; a refused one changes nothing.
    pub fn apply(&mut self, op: &Op) -> Result<(), i32> {
        match op {
            Op::Create { name, data, ephemeral } => {
                if self.nodes.contains_key(name) {
                    return Err(-110);
                }
                self.insert(name.clone(), data, *ephemeral);
            }
            Op::Sequential { data } => self.insert(format!("s{:010}", self.creates), data, false),
            Op::Set { name, data, version } => {
                let node = self.nodes.get_mut(name).ok_or(-101)?;
                if node.version != *version {
                    return Err(-103);
                }
                node.version += 1;
                node.data.clone_from(data);
                node.stat = None;
            }
            Op::Delete { name } => {
                self.nodes.remove(name).ok_or(-101)?;
            }
            Op::Multi(parts) => {
                let mut after = self.clone();
                for part in parts {
                    after.apply(part)?;
                }
                *self = after;
            }
            Op::Close => {
                self.nodes.retain(|_, node| !node.ephemeral);
                self.closed = true;
            }
        }
        Ok(())
    }

    fn insert(&mut self, name: String, data: &[u8], ephemeral: bool) {
        self.creates += 1;
        self.nodes.insert(name, Node { data: data.to_vec(), version: 0, ephemeral, stat: None });
    }

    /// Compares the answer to `op`, which was just applied here, and remembers the Stat it gave.
    pub fn acknowledge(
        &mut self,
        op: &Op,
        folder: &str,
        expected: Result<(), i32>,
        answer: Result<Vec<u8>, i32>,
    ) {
        if let Op::Multi(parts) = op {
            let body = answer.expect("a multi's header is 0 even when it fails (T31)");
            let errors = client::multi_errors(&body);
            let refused =
                errors.as_ref().map(|errors| errors.iter().copied().find(|err| *err != 0).expect("a reason"));
            assert_eq!(refused, expected.err(), "{op:?} was answered with {errors:?}");
            assert!(errors.is_none_or(|errors| errors.len() == parts.len()), "one result per part");
            return;
        }
        assert_eq!(answer.as_ref().map(|_| ()).map_err(|err| *err), expected, "{op:?}");
        let Ok(body) = answer else { return };
        let mut decoder = Decoder::new(&body);
        let name = match op {
            Op::Create { .. } | Op::Sequential { .. } => {
                let path = decoder.text("path").expect("a path").into_owned();
                path.strip_prefix(folder).expect("a path in the folder")[1..].to_owned()
            }
            Op::Set { name, .. } => name.clone(),
            Op::Delete { .. } | Op::Close | Op::Multi(_) => return,
        };
        let node =
            self.nodes.get_mut(&name).unwrap_or_else(|| panic!("{op:?} made {name}, the model did not"));
        node.stat = Some(Stat::decode(&mut decoder).expect("a stat"));
    }

    /// What differs between this model and the folder that a server shows; `None` if nothing does.
    pub fn difference(&self, folder: &str, seen: &tree::Tree, session: SessionId) -> Option<String> {
        let root = &seen[folder].stat;
        let count = i32::try_from(self.nodes.len()).expect("a small folder");
        if (root.num_children, root.cversion) != (count, 2 * self.creates - count) {
            return Some(format!(
                "{count} nodes of {} creations expected, {} children and cversion {} seen",
                self.creates, root.num_children, root.cversion
            ));
        }
        for (name, node) in &self.nodes {
            let Some(found) = seen.get(&format!("{folder}/{name}")) else {
                return Some(format!("{name} is missing"));
            };
            let owner = if node.ephemeral { session } else { SessionId(0) };
            if found.data.as_ref() != Some(&node.data)
                || (found.stat.version, found.stat.ephemeral_owner) != (node.version, owner)
                || found.acl != [Acl::OPEN]
                || node.stat.is_some_and(|stat| stat != found.stat)
            {
                return Some(format!("{name}: expected {node:?}, seen {found:?}"));
            }
        }
        None
    }

    /// Takes the Stats of what survived without an acknowledgement: from now on they must not change.
    pub fn adopt(&mut self, folder: &str, seen: &tree::Tree) {
        for (name, node) in &mut self.nodes {
            node.stat = Some(seen[&format!("{folder}/{name}")].stat);
        }
    }
}

impl Op {
    /// The request.
    pub fn request(&self, folder: &str) -> (OpCode, Vec<u8>) {
        let path = |name: &str| format!("{folder}/{name}");
        match self {
            Self::Create { name, data, ephemeral } => {
                let flags = i32::from(*ephemeral);
                (OpCode::Create2, client::create(&path(name), Some(data), &[Acl::OPEN], flags))
            }
            Self::Sequential { data } => {
                (OpCode::Create2, client::create(&path("s"), Some(data), &[Acl::OPEN], 2))
            }
            Self::Set { name, data, version } => {
                (OpCode::SetData, client::set(&path(name), Some(data), *version))
            }
            Self::Delete { name } => (OpCode::Delete, client::path_version(&path(name), -1)),
            Self::Multi(parts) => {
                let parts: Vec<_> = parts.iter().map(|part| part.request(folder)).collect();
                (OpCode::Multi, client::multi(&parts))
            }
            Self::Close => (OpCode::CloseSession, Vec::new()),
        }
    }
}
