//! Streams of operations, made from a seed.
//!
//! A stream belongs to a few sessions, works below one root node, and prefers some operations over others, as the
//! seed says: a stream that is mostly watches finds what one with a little of everything does not (swarm testing).

use super::{
    operation::{Entry, Field, Operation, Place, Seen},
    peers::Dice,
};
use std::fmt;
use zkfast_wire::{OpCode, Xid};

/// What a session does in one step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Asks, all at once, and waits for all answers.
    Ask(Vec<Operation>),
    /// Comes again on a new connection.
    Reconnect(Reconnect),
    /// Shortens its timeout, goes silent and expires.
    Expire,
}

/// How a session comes again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reconnect {
    /// The old connection is closed by the client first; else the server has to.
    pub hang_up: bool,
    /// Wanted timeout.
    pub timeout_ms: i32,
    /// What is said instead of the truth.
    pub lie: Lie,
    /// The last byte of the handshake.
    pub read_only: Option<bool>,
    /// Sent right behind the handshake, without waiting (C13).
    pub behind: Option<Operation>,
}

/// What a handshake says that is not so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// Nothing.
    None,
    /// Another password.
    Password,
    /// No password.
    NoPassword,
    /// A session that nobody has.
    Session,
    /// A zxid that the server has not reached.
    Zxid,
}

/// One step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Which session.
    pub slot: usize,
    /// What it does.
    pub action: Action,
}

/// A stream.
#[derive(Clone, Debug)]
pub struct Stream {
    /// What it was made from.
    pub seed: u64,
    /// What happens.
    pub steps: Vec<Step>,
}

/// What a stream leaves out, by rows of the table of exceptions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Avoid {
    /// `watch-modes`: a session keeps to one mode, by its number: one-shot, persistent, recursive.
    pub watch_modes: bool,
    /// `check-alone`.
    pub check_alone: bool,
}

impl Action {
    fn keep_to_mode(&mut self, mode: usize) {
        match self {
            Self::Ask(operations) => operations.iter_mut().for_each(|operation| operation.keep_to_mode(mode)),
            Self::Reconnect(reconnect) => {
                reconnect.behind.iter_mut().for_each(|operation| operation.keep_to_mode(mode));
            }
            Self::Expire => {}
        }
    }
}

impl Operation {
    fn keep_to_mode(&mut self, mode: usize) {
        let op = self.op();
        if op == Some(OpCode::AddWatch) && mode == 0 {
            self.code = OpCode::Exists.to_i32();
            self.fields[1] = Field::Watch(true);
        }
        for field in &mut self.fields {
            match field {
                Field::Watch(watch) if mode != 0 => *watch = false,
                Field::Int("kind", kind @ (0 | 1)) if op == Some(OpCode::AddWatch) => {
                    *kind = i32::from(mode == 2);
                }
                // Before, these took persistent watches too.
                Field::Int("kind", kind @ (1 | 2)) if mode != 0 => *kind = 3,
                Field::Paths("persistent", places) if mode != 1 => places.clear(),
                Field::Paths("recursive", places) if mode != 2 => places.clear(),
                Field::Paths("data" | "exist" | "child", places) if mode != 0 => places.clear(),
                _ => {}
            }
        }
    }
}

/// Names below the stream's root. Few and short, so that operations meet.
const VALID: &[&str] = &[
    "",
    "/a",
    "/b",
    "/c",
    "/a/a",
    "/a/b",
    "/a/c",
    "/b/a",
    "/b/b",
    "/a/a/a",
    "/a/a/b",
    "/a/b/a",
    "/c/a",
    "/ä",
    "/日本",
    "/a b",
    "/s0000000000",
    "/s0000000001",
    "/a/s0000000000",
    "/a/s0000000001",
    "/a/0000000000",
    "/a.",
    "/.a",
    "/a..b",
];
/// Names that are wrong in some way.
const INVALID: &[&str] = &[
    "/",
    "/a/",
    "//",
    "/a//b",
    "/.",
    "/..",
    "/a/.",
    "/a/..",
    "/a/../b",
    "/a/./b",
    "a",
    "/a\0",
    "/a\0b",
    "/\u{1}",
    "/a\u{1f}b",
    "/\u{7f}",
    "/\u{9f}",
    "/\u{e000}",
    "/\u{f8ff}",
    "/\u{fff0}",
    "/\u{fffd}",
    "/no/such/node",
    "/\u{1f600}",
];
/// Paths outside the root that can be asked for without harm to the next stream.
const OUTSIDE: &[&str] = &[
    "/",
    "/zookeeper",
    "/zookeeper/config",
    "/zookeeper/quota",
    "/zookeeper/none",
    "",
    "a",
    "none/such",
    "//",
];
/// Paths outside the root that every server refuses to change.
const PROTECTED: &[&str] =
    &["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota", "/zookeeper/none", "", "a", "a/b", "//"];

/// Families of operations and how often they are chosen by default.
const FAMILIES: &[(Family, usize)] = &[
    (Family::Create, 14),
    (Family::Delete, 8),
    (Family::SetData, 8),
    (Family::Read, 16),
    (Family::SetAcl, 3),
    (Family::GetAcl, 3),
    (Family::Watch, 8),
    (Family::WatchTable, 4),
    (Family::SetWatches, 2),
    (Family::Multi, 8),
    (Family::MultiRead, 2),
    (Family::Auth, 2),
    (Family::Session, 3),
    (Family::Odd, 2),
    (Family::Reconnect, 2),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Family {
    Create,
    Delete,
    SetData,
    Read,
    SetAcl,
    GetAcl,
    Watch,
    WatchTable,
    SetWatches,
    Multi,
    MultiRead,
    Auth,
    Session,
    Odd,
    Reconnect,
}

struct Maker {
    dice: Dice,
    /// Chosen for this stream: family and weight.
    weights: Vec<(Family, usize)>,
    /// Once in so many times a path, a version or an ACL is wrong.
    wrong: usize,
    /// Once in so many times an ACL is not the open one.
    closed: usize,
    /// Once in so many times several requests leave together.
    burst: usize,
    expiries_left: usize,
}

impl Stream {
    /// The stream of `seed` with about `operations` requests.
    pub fn of(seed: u64, operations: usize, avoid: Avoid) -> Self {
        let mut dice = Dice::new(seed);
        let slots = 2 + dice.below(3);
        let weights = FAMILIES
            .iter()
            .map(|(family, weight)| {
                let factor = [0, 1, 2, 2, 3, 8][dice.below(6)];
                let least = usize::from(matches!(family, Family::Create));
                (*family, (weight * factor).max(least))
            })
            .collect();
        let mut maker = Maker {
            wrong: [6, 12, 40][dice.below(3)],
            closed: [3, 8, 1_000][dice.below(3)],
            burst: [2, 6, 12][dice.below(3)],
            expiries_left: usize::from(dice.one_in(8)),
            dice,
            weights,
        };
        let mut steps = Vec::new();
        let mut asked = 0;
        while asked < operations {
            let slot = maker.dice.below(slots);
            let mut action = maker.action();
            if avoid.watch_modes {
                action.keep_to_mode(slot % 3);
            }
            if avoid.check_alone
                && let Action::Ask(operations) = &mut action
                && operations.iter().any(|operation| operation.op() == Some(OpCode::Check))
            {
                *operations = vec![Operation::new(OpCode::WhoAmI, vec![])];
            }
            asked += match &action {
                Action::Ask(operations) => operations.len(),
                Action::Reconnect(_) | Action::Expire => 1,
            };
            steps.push(Step { slot, action });
        }
        Self { seed, steps }
    }
}

impl Maker {
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.dice.below(from.len())]
    }

    fn family(&mut self) -> Family {
        let all: usize = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut left = self.dice.below(all);
        for (family, weight) in &self.weights {
            if left < *weight {
                return *family;
            }
            left -= weight;
        }
        unreachable!("below the sum of the weights")
    }

    fn action(&mut self) -> Action {
        let family = self.family();
        match family {
            Family::Reconnect => self.reconnect(),
            Family::Odd => Action::Ask(vec![self.odd()]),
            Family::Auth => Action::Ask(vec![self.auth()]),
            Family::Session if self.dice.one_in(6) => {
                if self.expiries_left > 0 && self.dice.one_in(2) {
                    self.expiries_left -= 1;
                    return Action::Expire;
                }
                let mut operations = self.several(3);
                operations.push(Operation::new(OpCode::CloseSession, vec![]));
                Action::Ask(operations)
            }
            _ if self.dice.one_in(self.burst) => {
                let count = 2 + self.dice.below(12);
                let mut operations = self.several(count);
                if self.dice.one_in(8) {
                    // Only as the first: its answer overtakes others by chance.
                    operations.insert(0, self.auth());
                }
                Action::Ask(operations)
            }
            family => Action::Ask(vec![self.operation(family)]),
        }
    }

    /// Requests that may stand together.
    fn several(&mut self, count: usize) -> Vec<Operation> {
        let mut operations = Vec::new();
        while operations.len() < count {
            let family = self.family();
            // For setACL see `pending-acl` in the table of exceptions.
            if !matches!(family, Family::Reconnect | Family::Odd | Family::Auth | Family::SetAcl) {
                operations.push(self.operation(family));
            }
        }
        operations
    }

    fn operation(&mut self, family: Family) -> Operation {
        let mut operation = match family {
            Family::Create => {
                let op = self.pick(&[
                    OpCode::Create,
                    OpCode::Create,
                    OpCode::Create2,
                    OpCode::Create2,
                    OpCode::CreateContainer,
                    OpCode::CreateTtl,
                ]);
                Operation::new(op, self.create(op))
            }
            Family::Delete => Operation::new(OpCode::Delete, self.path_version()),
            Family::SetData => Operation::new(OpCode::SetData, self.set_data()),
            Family::SetAcl => {
                let path = self.changed_path();
                let acl = self.acl();
                let acl = if is_plain(&path) { acl } else { without_null_ids(acl) };
                Operation::new(OpCode::SetAcl, vec![path, acl, self.version("aversion")])
            }
            Family::Read | Family::Watch => {
                let op =
                    self.pick(&[OpCode::Exists, OpCode::GetData, OpCode::GetChildren, OpCode::GetChildren2]);
                let watch = family == Family::Watch || self.dice.one_in(4);
                Operation::new(op, vec![self.read_path(), Field::Watch(watch)])
            }
            Family::GetAcl => Operation::new(OpCode::GetAcl, vec![self.read_path()]),
            Family::WatchTable => self.watch_table(),
            Family::SetWatches => self.set_watches(),
            Family::Multi => self.multi(),
            Family::MultiRead => self.multi_read(),
            Family::Session => self.about_the_session(),
            Family::Auth | Family::Odd | Family::Reconnect => unreachable!("made by themselves"),
        };
        if self.dice.one_in(150) {
            operation.cut = 1 + self.dice.below(24);
        }
        operation
    }

    fn read_path(&mut self) -> Field {
        Field::Path(match self.dice.below(self.wrong * 2) {
            0 => Place::Below(self.pick(INVALID).into()),
            1 => Place::Absolute(self.pick(OUTSIDE).into()),
            2 if self.dice.one_in(4) => Place::Null,
            _ => self.valid(),
        })
    }

    fn changed_path(&mut self) -> Field {
        Field::Path(match self.dice.below(self.wrong * 2) {
            0 => Place::Below(self.pick(INVALID).into()),
            1 => Place::Absolute(self.pick(&PROTECTED[2..]).into()),
            2 if self.dice.one_in(4) => Place::Null,
            _ => self.valid(),
        })
    }

    fn valid(&mut self) -> Place {
        // The first few most of the time: that is where streams meet themselves.
        let among = if self.dice.one_in(4) { VALID.len() } else { 11 };
        Place::Below(VALID[self.dice.below(among)].into())
    }

    fn version(&mut self, name: &'static str) -> Field {
        let version =
            if self.dice.one_in(3) { self.pick(&[0, 1, 2, 3, 7, -2, i32::MIN, i32::MAX]) } else { -1 };
        Field::Int(name, version)
    }

    fn path_version(&mut self) -> Vec<Field> {
        let path = match self.dice.below(self.wrong * 2) {
            0 => Field::Path(Place::Absolute(self.pick(PROTECTED).into())),
            _ => self.changed_path(),
        };
        vec![path, self.version("version")]
    }

    fn data(&mut self) -> Field {
        Field::Data(match self.dice.below(12) {
            0 => None,
            1 => Some(Vec::new()),
            2 => Some(vec![b'x'; 5_000]),
            3 => Some(b"0123456789abcdef".repeat(8)),
            _ => Some(format!("d{}", self.dice.below(100)).into_bytes()),
        })
    }

    fn set_data(&mut self) -> Vec<Field> {
        vec![self.changed_path(), self.data(), self.version("version")]
    }

    fn acl(&mut self) -> Field {
        const ALICE: &str = "alice:V55/p2T0OpjQ+low3NVAH4aLvm0=";
        const BOB: &str = "bob:ikIaKsbtGweaHnb/jKn7OHqbunM=";
        let entry = |perms, scheme, id| Entry { perms, scheme: Some(scheme), id: Some(id) };
        let open = entry(31, "world", "anyone");
        if !self.dice.one_in(self.closed) {
            return Field::Acl(Some(vec![open]));
        }
        let wrong = self.dice.one_in(4);
        let list = match (wrong, self.dice.below(10)) {
            (false, 0) => vec![entry(1, "world", "anyone")],
            (false, 1) => vec![entry(31, "auth", "")],
            (false, 2) => vec![entry(31, "digest", ALICE), entry(1, "world", "anyone")],
            (false, 3) => vec![entry(3, "digest", BOB), entry(31, "digest", ALICE)],
            (false, 4) => vec![entry(31, "ip", "127.0.0.1")],
            (false, 5) => vec![entry(31, "ip", "10.0.0.0/8"), entry(16, "world", "anyone")],
            (false, 6) => vec![open.clone(), open, entry(1, "auth", "ignored")],
            (false, 7) => vec![entry(31, "ip", "127.0.0.0/8")],
            (false, 8) => vec![entry(self.pick(&[0, 2, 4, 8, 16, 30, -1, 64]), "world", "anyone")],
            (false, _) => vec![entry(30, "world", "anyone"), entry(31, "auth", "")],
            (true, 0) => return Field::Acl(None),
            (true, 1) => vec![],
            (true, 2) => vec![entry(31, "world", "somebody")],
            (true, 3) => vec![entry(31, "digest", "nocolon")],
            (true, 4) => vec![entry(31, "digest", "a:b:c"), entry(31, "world", "anyone")],
            (true, 5) => vec![entry(31, "nosuch", "x")],
            (true, 6) => vec![entry(31, "ip", "127.0.0.1/33")],
            (true, 7) => vec![open, entry(31, "ip", "localhost")],
            (true, 8) => vec![Entry { perms: 31, scheme: None, id: Some("x") }],
            (true, _) => vec![Entry { perms: 31, scheme: Some("world"), id: None }],
        };
        Field::Acl(Some(list))
    }

    fn create(&mut self, op: OpCode) -> Vec<Field> {
        let wrong = self.dice.one_in(self.wrong);
        let flags = match op {
            OpCode::CreateContainer if !wrong => 4,
            OpCode::CreateTtl if !wrong => self.pick(&[5, 5, 6]),
            _ if wrong => self.pick(&[4, 5, 6, 7, -1, 8, i32::MAX]),
            _ => self.pick(&[0, 0, 0, 0, 1, 1, 2, 3]),
        };
        let mut path = match self.dice.below(self.wrong * 2) {
            0 => Field::Path(Place::Absolute(self.pick(PROTECTED).into())),
            _ => self.changed_path(),
        };
        let mut acl = self.acl();
        if wrong || !is_plain(&path) {
            // See `late-null` in the table of exceptions.
            acl = without_null_ids(acl);
            if path == Field::Path(Place::Null) {
                path = Field::Path(Place::Absolute("a".into()));
            }
        }
        if matches!(flags, 2 | 3 | 6)
            && let Field::Path(Place::Below(below)) = &mut path
            && below.len() < 5
        {
            below.push_str(self.pick(&["/s", "/", "s", ""]));
        }
        let mut fields = vec![path, self.data(), acl, Field::Int("flags", flags)];
        if op == OpCode::CreateTtl {
            let is_ttl = matches!(flags, 5 | 6);
            let ttl = match (is_ttl, wrong) {
                // See the table of exceptions: with another mode and a negative ttl Apache's server dies.
                (false, _) => self.pick(&[0, 1, 1 << 50]),
                (true, true) => self.pick(&[0, -1, i64::MIN, 1 << 40, i64::MAX]),
                (true, false) => self.pick(&[3_600_000, (1 << 40) - 1]),
            };
            fields.push(Field::Long("ttl", ttl));
        }
        fields
    }

    fn multi(&mut self) -> Operation {
        let mut fields = Vec::new();
        let count = self.pick(&[0, 1, 2, 2, 3, 3, 4, 5, 8]);
        let wrong = self.dice.one_in(self.wrong * 2);
        for part in 0..count {
            let op = match self.dice.below(12) {
                0..4 => {
                    self.pick(&[OpCode::Create, OpCode::Create2, OpCode::CreateContainer, OpCode::CreateTtl])
                }
                4..6 => OpCode::Delete,
                6..9 => OpCode::SetData,
                _ => OpCode::Check,
            };
            if wrong && part == count - 1 {
                let code = self.pick(&[4, 8, 3, 7, 9, 16, 20, 22, 99, -1, -11, 0]);
                fields.push(Field::Part(code));
                fields.push(self.read_path());
                fields.push(Field::Int("", 1));
                continue;
            }
            fields.push(Field::Part(op.to_i32()));
            fields.extend(match op {
                OpCode::Delete => self.path_version(),
                OpCode::SetData => self.set_data(),
                OpCode::Check => vec![self.read_path(), self.version("version")],
                create => self.create(create).into_iter().map(without_null_ids).collect(),
            });
        }
        fields.push(Field::End);
        Operation::new(OpCode::Multi, fields)
    }

    fn multi_read(&mut self) -> Operation {
        let mut fields = Vec::new();
        for _ in 0..self.dice.below(5) {
            let code =
                if self.dice.one_in(30) { self.pick(&[3, 12, 5, 1, 2, 13]) } else { self.pick(&[4, 8]) };
            fields.push(Field::Part(code));
            fields.push(self.read_path());
            fields.push(Field::Watch(self.dice.one_in(3)));
        }
        fields.push(Field::End);
        Operation::new(OpCode::MultiRead, fields)
    }

    fn watch_table(&mut self) -> Operation {
        let op =
            self.pick(&[OpCode::AddWatch, OpCode::AddWatch, OpCode::CheckWatches, OpCode::RemoveWatches]);
        let kind = match op {
            OpCode::AddWatch if self.dice.one_in(20) => self.pick(&[2, -1, 7]),
            OpCode::AddWatch => self.pick(&[0, 1]),
            _ if self.dice.one_in(20) => self.pick(&[0, 6, -1]),
            _ => self.pick(&[1, 2, 3, 4, 5]),
        };
        Operation::new(op, vec![self.read_path(), Field::Int("kind", kind)])
    }

    fn set_watches(&mut self) -> Operation {
        let op = self.pick(&[OpCode::SetWatches, OpCode::SetWatches2]);
        let zxid = match self.dice.below(8) {
            0 => Seen::Exactly(0),
            1 => Seen::Exactly(i64::MAX),
            2 => Seen::StepsAgo(0),
            _ => Seen::StepsAgo(self.dice.below(30)),
        };
        let mut fields = vec![Field::Zxid(zxid)];
        let mut names = vec!["data", "exist", "child"];
        if op == OpCode::SetWatches2 {
            names.extend(["persistent", "recursive"]);
        }
        for name in names {
            let mut places = Vec::new();
            for _ in 0..self.pick(&[0, 0, 1, 2, 4]) {
                if let Field::Path(place) = self.read_path()
                    && place != Place::Null
                {
                    places.push(place);
                }
            }
            fields.push(Field::Paths(name, places));
        }
        let mut operation = Operation::new(op, fields);
        operation.xid = Some(Xid::SET_WATCHES.0);
        operation
    }

    fn about_the_session(&mut self) -> Operation {
        match self.dice.below(7) {
            0 => {
                let prefix = match self.dice.below(5) {
                    0 => Place::Absolute(" ".into()),
                    1 => Place::Absolute("/".into()),
                    2 => Place::Null,
                    _ => self.valid(),
                };
                Operation::new(OpCode::GetEphemerals, vec![Field::Path(prefix)])
            }
            1 => Operation::new(OpCode::GetEphemerals, vec![Field::Path(Place::Null)]),
            2 => Operation::new(OpCode::WhoAmI, vec![]),
            3 => Operation::new(OpCode::GetAllChildrenNumber, vec![self.read_path()]),
            4 | 5 => Operation::new(OpCode::Sync, vec![self.read_path()]),
            _ => {
                let mut ping = Operation::new(OpCode::Ping, vec![]);
                ping.xid = self.pick(&[Some(Xid::PING.0), None]);
                ping
            }
        }
    }

    fn auth(&mut self) -> Operation {
        let (scheme, credentials): (_, Option<&[u8]>) = match self.dice.below(14) {
            0..5 => ("digest", Some(b"alice:pw")),
            5..8 => ("digest", Some(b"bob:pw")),
            8 => ("digest", Some(b"super:test")),
            9 => ("digest", Some(b"nocolon")),
            10 => ("ip", Some(b"127.0.0.1")),
            11 => ("nosuch", Some(b"x")),
            12 => ("world", Some(b"anyone")),
            _ => ("digest", self.pick(&[Some(b"".as_slice()), Some(b":")])),
        };
        let fields = vec![
            Field::Int("type", 0),
            Field::Text(Some(scheme)),
            Field::Data(credentials.map(<[u8]>::to_vec)),
        ];
        let mut operation = Operation::new(OpCode::Auth, fields);
        operation.xid = Some(if self.dice.one_in(4) { 5 } else { Xid::AUTH.0 });
        operation
    }

    /// What a well-behaved client does not send.
    fn odd(&mut self) -> Operation {
        match self.dice.below(9) {
            0 => {
                let code = self.pick(&[0, 10, 23, 99, 108, 1_000, -1, -2, -12, i32::MAX, i32::MIN]);
                Operation { code, fields: vec![], cut: 0, xid: None }
            }
            1 => Operation::new(OpCode::Check, vec![self.read_path(), self.version("version")]),
            2 => {
                // Where it exists Apache deletes it: see the table of exceptions.
                Operation::new(OpCode::DeleteContainer, vec![Field::Path(Place::Below("/no/such".into()))])
            }
            3 => Operation::new(
                OpCode::Sasl,
                vec![Field::Data(self.pick(&[None, Some("token")]).map(|token| token.into()))],
            ),
            4 => {
                let text = self.pick(&[None, Some("server.1=localhost:1:2;3")]);
                let fields =
                    vec![Field::Text(text), Field::Text(None), Field::Text(None), Field::Long("version", -1)];
                Operation::new(OpCode::Reconfig, fields)
            }
            5 => {
                // Just below and above jute.maxbuffer.
                let data = Some(vec![b'x'; self.pick(&[1_048_000, 1_049_000])]);
                let fields = vec![Field::Path(self.valid()), Field::Data(data), Field::Int("version", -1)];
                Operation::new(OpCode::SetData, fields)
            }
            6 => {
                let family = self.pick(&[Family::Create, Family::Read, Family::SetWatches, Family::Multi]);
                let mut operation = self.operation(family);
                operation.cut = 1 + self.dice.below(40);
                operation
            }
            7 => {
                let mut operation = self.operation(Family::Read);
                operation.xid = Some(self.pick(&[0, i32::MAX, i32::MIN, -3, -4, -5]));
                operation
            }
            _ => {
                let list = self.pick(&[-2, -1, i32::MAX, 5]);
                let fields = vec![
                    Field::Zxid(Seen::Exactly(0)),
                    Field::Int("count", list),
                    Field::Int("", 0),
                    Field::Int("", 0),
                ];
                Operation::new(OpCode::SetWatches, fields)
            }
        }
    }

    fn reconnect(&mut self) -> Action {
        let lie = match self.dice.below(12) {
            0 => Lie::Password,
            1 => Lie::NoPassword,
            2 => Lie::Session,
            3 => Lie::Zxid,
            _ => Lie::None,
        };
        let behind = match self.dice.below(3) {
            0 => Some(self.set_watches()),
            1 => Some(self.auth()),
            _ => None,
        };
        Action::Reconnect(Reconnect {
            // See `impostor` in the table of exceptions.
            hang_up: lie != Lie::None || self.dice.one_in(2),
            timeout_ms: self.pick(&[30_000, 30_000, 20_000, i32::MAX]),
            lie,
            read_only: self.pick(&[Some(false), Some(false), None, Some(true)]),
            behind: behind.filter(|_| lie == Lie::None),
        })
    }
}

/// Whether a path is one that no server refuses.
fn is_plain(field: &Field) -> bool {
    matches!(field, Field::Path(Place::Below(below)) if VALID.contains(&below.as_str()))
}

/// An ACL in which each entry has an id.
fn without_null_ids(mut field: Field) -> Field {
    if let Field::Acl(Some(entries)) = &mut field {
        entries.iter_mut().for_each(|entry| entry.id = entry.id.or(Some("")));
    }
    field
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "session {}: ", self.slot)?;
        match &self.action {
            Action::Ask(operations) => {
                for (index, operation) in operations.iter().enumerate() {
                    write!(out, "{}{operation}", if index == 0 { "" } else { "\n    and behind it " })?;
                }
                Ok(())
            }
            Action::Reconnect(reconnect) => {
                write!(
                    out,
                    "reconnect, old connection {}, timeout {}, lie {:?}, readOnly {:?}",
                    if reconnect.hang_up { "closed" } else { "open" },
                    reconnect.timeout_ms,
                    reconnect.lie,
                    reconnect.read_only
                )?;
                match &reconnect.behind {
                    Some(operation) => write!(out, "\n    and behind it {operation}"),
                    None => Ok(()),
                }
            }
            Action::Expire => write!(out, "expire"),
        }
    }
}
