//! What one worker's folder must look like after each of its requests.

use super::peers::{Dice, client, tree};
use std::collections::BTreeMap;
use zkfast_wire::{Acl, Decoder, Id, OpCode, Perms, SessionId, Stat};

/// What a created node is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    /// Stays.
    Plain,
    /// Goes with its session.
    Ephemeral,
    /// Goes some time after its last child; it never has one here.
    Container,
    /// Goes when nobody wrote to it for ten minutes, which is longer than the test.
    Ttl,
    /// Stays, and has an ACL of two entries.
    Listed,
}

const TTL_MS: i64 = 600_000;

impl Kind {
    /// The owner that a Stat shows: containers and TTL nodes have theirs, but keep it to themselves.
    fn owner(self, session: SessionId) -> SessionId {
        if self == Self::Ephemeral { session } else { SessionId(0) }
    }

    fn acl(self) -> Vec<Acl<'static>> {
        let here = Acl { perms: Perms::ALL, id: Id::new("ip", "127.0.0.1") };
        if self == Self::Listed { vec![here, Acl::OPEN] } else { vec![Acl::OPEN] }
    }
}

/// A request of a worker; paths are names within its folder.
#[derive(Clone, Debug)]
pub enum Op {
    /// create2, createContainer or createTTL of a named node.
    Create { name: String, data: Vec<u8>, kind: Kind },
    /// setData of the node that all workers share, with the version that it may have.
    SetShared { data: Vec<u8>, version: i32 },
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
    kind: Kind,
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

/// The node that all workers write to.
pub const SHARED: &str = "/k/shared";

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
        let length = match dice.below(300) {
            // Longer together than one window of the log.
            0 => 50_000 + dice.below(150_000),
            1..=6 => 8_000,
            _ => dice.below(200),
        };
        data.resize(data.len() + length, b'.');
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
            (6, Some((name, _))) => Op::Create { name, data, kind: Kind::Plain },
            (7, _) => Op::Sequential { data },
            (8, _) => Op::Create { name: format!("e{serial}"), data, kind: Kind::Ephemeral },
            (9, _) => Op::Delete { name: format!("missing{serial}") },
            _ => {
                let kinds = [Kind::Plain, Kind::Plain, Kind::Container, Kind::Ttl, Kind::Listed];
                Op::Create { name: format!("n{serial}"), data, kind: kinds[dice.below(kinds.len())] }
            }
        }
    }

    /// Does `op`, or says with which code it must be refused; a refused one changes nothing.
    pub fn apply(&mut self, op: &Op) -> Result<(), i32> {
        match op {
            Op::Create { name, data, kind } => {
                if self.nodes.contains_key(name) {
                    return Err(-110);
                }
                self.insert(name.clone(), data, *kind);
            }
            Op::Sequential { data } => self.insert(format!("s{:010}", self.creates), data, Kind::Plain),
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
            // Nothing in the folder; the books about it are kept apart.
            Op::SetShared { .. } => {}
            Op::Close => {
                self.nodes.retain(|_, node| node.kind != Kind::Ephemeral);
                self.closed = true;
            }
        }
        Ok(())
    }

    fn insert(&mut self, name: String, data: &[u8], kind: Kind) {
        self.creates += 1;
        self.nodes.insert(name, Node { data: data.to_vec(), version: 0, kind, stat: None });
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
            Op::Delete { .. } | Op::Close | Op::Multi(_) | Op::SetShared { .. } => return,
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
            let owner = node.kind.owner(session);
            if found.data.as_ref() != Some(&node.data)
                || (found.stat.version, found.stat.ephemeral_owner) != (node.version, owner)
                || found.acl != node.kind.acl()
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
            Self::Create { name, data, kind } => {
                let (op, flags) = match kind {
                    Kind::Plain | Kind::Listed => (OpCode::Create2, 0),
                    Kind::Ephemeral => (OpCode::Create2, 1),
                    Kind::Container => (OpCode::CreateContainer, 4),
                    Kind::Ttl => (OpCode::CreateTtl, 5),
                };
                let mut body = client::create(&path(name), Some(data), &kind.acl(), flags);
                if *kind == Kind::Ttl {
                    body.extend_from_slice(&TTL_MS.to_be_bytes());
                }
                (op, body)
            }
            Self::SetShared { data, version } => (OpCode::SetData, client::set(SHARED, Some(data), *version)),
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

/// The books about the shared node: each version was made by exactly one set.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Acknowledged since the last check, and what that found.
    written: BTreeMap<i32, Vec<u8>>,
}

impl Ledger {
    /// A version that the node may well have.
    pub fn version(&self) -> i32 {
        self.written.last_key_value().map_or(0, |(version, _)| *version)
    }

    /// A set of `version` was acknowledged: it made the next one.
    pub fn acknowledge(&mut self, version: i32, data: Vec<u8>) {
        let before = self.written.insert(version + 1, data);
        assert!(before.is_none(), "two sets of version {version} of {SHARED} were acknowledged");
    }

    /// Compares with what a server shows; `unanswered` sets may have been done or not.
    pub fn check(&mut self, data: Vec<u8>, version: i32, unanswered: &[(i32, Vec<u8>)], round: u32) {
        let first = self.written.first_key_value().map_or(0, |(version, _)| *version);
        assert!(version >= self.version(), "round {round}: {SHARED} was {}, is {version}", self.version());
        for made in first + 1..=version {
            let known = self.written.contains_key(&made);
            let explained = known || unanswered.iter().any(|(before, _)| *before == made - 1);
            assert!(explained, "round {round}: nobody made version {made} of {SHARED}");
        }
        let is_right = match self.written.get(&version) {
            Some(written) => *written == data,
            None => version == 0 || unanswered.contains(&(version - 1, data.clone())),
        };
        assert!(
            is_right,
            "round {round}: version {version} of {SHARED} holds {:?}",
            String::from_utf8_lossy(&data)
        );
        self.written = BTreeMap::from([(version, data)]);
    }
}
