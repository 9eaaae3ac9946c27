//! Makes the steps of a stream, at random but from a seed.
//!
//! Most requests are ones that an application would send and that succeed; some are wrong in one way, some in several.

use super::{
    guess::Guess,
    operation::{Entry, Field, Operation, Place, Seen},
    peers::Dice,
    stream::{Action, Lie, Reconnect},
};
use zkfast_wire::{OpCode, Xid};

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
    "/c/b",
    "/d",
    "/d/a",
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

/// Below these a stream may set quotas.
const UNDER_QUOTA: &[&str] = &["", "/a", "/a/a", "/b"];
/// Texts of limits: soft ones, and from [`SOFT`] on hard ones.
const LIMITS: &[&str] = &[
    "count=3,bytes=-1",
    "count=-1,bytes=40",
    "count=100,bytes=100000",
    "count=4,bytes=-1=;byteHardLimit=-1;countHardLimit=6",
    "count=-1,bytes=-1=;byteHardLimit=200;countHardLimit=-1",
    "count=2,bytes=10=;byteHardLimit=6000;countHardLimit=4",
];
const SOFT: usize = 3;

/// Families of operations and how often they are chosen by default.
const FAMILIES: &[(Family, usize)] = &[
    (Family::Create, 16),
    (Family::Delete, 10),
    (Family::SetData, 14),
    (Family::Read, 10),
    (Family::SetAcl, 3),
    (Family::GetAcl, 2),
    (Family::Watch, 16),
    (Family::WatchTable, 6),
    (Family::SetWatches, 3),
    (Family::Multi, 9),
    (Family::MultiRead, 2),
    (Family::Quota, 2),
    (Family::Auth, 2),
    (Family::Session, 3),
    (Family::Odd, 1),
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
    Quota,
    Auth,
    Session,
    Odd,
    Reconnect,
}

/// Which node a request wants.
#[derive(Clone, Copy)]
enum Aim {
    Existing,
    Leaf,
    Absent,
}

/// The maker of one stream.
pub struct Maker {
    dice: Dice,
    guess: Guess,
    /// Who asks next.
    slot: usize,
    /// Chosen for this stream: family and weight.
    weights: Vec<(Family, usize)>,
    /// Once in so many times a path, a version or an ACL is wrong.
    wrong: usize,
    /// Once in so many times an ACL is not the open one.
    closed: usize,
    /// Once in so many times several requests leave together.
    burst: usize,
    /// Hard quotas are set. Then each request waits for the last one: see `pending-quota` in the table of exceptions.
    has_hard_quotas: bool,
    /// Nodes below the stream's part of `/zookeeper/quota` that should be there.
    quotas: Vec<String>,
}

impl Maker {
    /// The maker of the stream of `seed`, and the number of its sessions.
    pub fn new(seed: u64) -> (Self, usize) {
        let mut dice = Dice::new(seed);
        let slots = 2 + dice.below(3);
        let has_hard_quotas = dice.one_in(6);
        let weights = FAMILIES
            .iter()
            .map(|(family, weight)| {
                let factor = [0, 1, 2, 2, 3, 8][dice.below(6)];
                let least = match family {
                    Family::Create | Family::SetData | Family::Watch => weight / 2,
                    Family::Quota if has_hard_quotas => 6,
                    _ => 0,
                };
                let is_multi = matches!(family, Family::Multi);
                (*family, if is_multi && has_hard_quotas { 0 } else { (weight * factor).max(least) })
            })
            .collect();
        let maker = Self {
            wrong: [8, 20, 60][dice.below(3)],
            closed: [4, 20, 1_000, 1_000][dice.below(4)],
            burst: if has_hard_quotas { usize::MAX } else { [2, 4, 12][dice.below(3)] },
            has_hard_quotas,
            quotas: Vec::new(),
            guess: Guess::new(),
            slot: 0,
            dice,
            weights,
        };
        (maker, slots)
    }

    /// Whether something happens that happens once in `count` times.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.dice.one_in(count)
    }

    /// The session of `slot` will have ended.
    pub fn end(&mut self, slot: usize) {
        self.guess.end(slot);
    }

    /// What some session does next, and which.
    pub fn step(&mut self, slots: usize) -> (usize, Action) {
        self.slot = self.dice.below(slots);
        (self.slot, self.action())
    }

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
            Family::Quota => Action::Ask(vec![self.quota()]),
            Family::Session if self.dice.one_in(8) => {
                if self.has_hard_quotas {
                    return Action::Ask(vec![Operation::new(OpCode::CloseSession, vec![])]);
                }
                let mut operations = self.several(3);
                operations.push(Operation::new(OpCode::CloseSession, vec![]));
                self.guess.end(self.slot);
                Action::Ask(operations)
            }
            // Who watches, watches much: one event for each answer is not enough.
            Family::Watch if self.dice.one_in(3) => {
                let count = 2 + self.dice.below(6);
                Action::Ask((0..count).map(|_| self.operation(Family::Watch)).collect())
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
            let is_alone = matches!(
                family,
                Family::Reconnect | Family::Odd | Family::Auth | Family::SetAcl | Family::Quota
            );
            if !is_alone {
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
                let path = self.changed_path(Aim::Existing);
                let acl = self.acl();
                let acl = if is_plain(&path) { acl } else { without_null_ids(acl) };
                let guess = self.guess.version(Some(&path), true);
                Operation::new(OpCode::SetAcl, vec![path, acl, self.version("aversion", guess)])
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
            Family::Auth | Family::Odd | Family::Quota | Family::Reconnect => {
                unreachable!("made by themselves")
            }
        };
        if self.dice.one_in(300) {
            operation.cut = 1 + self.dice.below(24);
        } else if let Some(op) = operation.op() {
            self.guess.note(self.slot, op, &operation.fields);
        }
        operation
    }

    fn read_path(&mut self) -> Field {
        Field::Path(match self.dice.below(self.wrong * 2) {
            0 => Place::Below(self.pick(INVALID).into()),
            1 => Place::Absolute(self.pick(OUTSIDE).into()),
            2 if self.dice.one_in(4) => Place::Null,
            _ => self.valid(Aim::Existing),
        })
    }

    fn changed_path(&mut self, aim: Aim) -> Field {
        Field::Path(match self.dice.below(self.wrong * 2) {
            0 => Place::Below(self.pick(INVALID).into()),
            1 => Place::Absolute(self.pick(&PROTECTED[2..]).into()),
            2 if self.dice.one_in(4) => Place::Null,
            _ => self.valid(aim),
        })
    }

    /// A good path: most of the time one that the request is right for.
    fn valid(&mut self, aim: Aim) -> Place {
        if self.dice.one_in(8) {
            return Place::Below(self.pick(VALID).into());
        }
        let aimed = match aim {
            Aim::Existing => Some(self.guess.existing(&mut self.dice)),
            Aim::Leaf => self.guess.leaf(&mut self.dice),
            Aim::Absent => self.guess.absent(VALID, &mut self.dice),
        };
        Place::Below(aimed.unwrap_or_else(|| self.pick(VALID).into()))
    }

    /// Any version, the guessed one, or a wrong one.
    fn version(&mut self, name: &'static str, guess: Option<i32>) -> Field {
        Field::Int(
            name,
            match self.dice.below(8) {
                0 => self.pick(&[0, 1, 2, 3, 7, -2, i32::MIN, i32::MAX]),
                1 | 2 => guess.unwrap_or(0),
                _ => -1,
            },
        )
    }

    fn path_version(&mut self) -> Vec<Field> {
        let path = match self.dice.below(self.wrong * 2) {
            0 => Field::Path(Place::Absolute(self.pick(PROTECTED).into())),
            _ => self.changed_path(Aim::Leaf),
        };
        let guess = self.guess.version(Some(&path), false);
        vec![path, self.version("version", guess)]
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
        let path = self.changed_path(Aim::Existing);
        let guess = self.guess.version(Some(&path), false);
        vec![path, self.data(), self.version("version", guess)]
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
            _ => self.pick(&[0, 0, 0, 0, 0, 1, 1, 2, 3]),
        };
        let mut path = match self.dice.below(self.wrong * 2) {
            0 => Field::Path(Place::Absolute(self.pick(PROTECTED).into())),
            _ => self.changed_path(Aim::Absent),
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
                OpCode::Check => {
                    let path = self.read_path();
                    let guess = self.guess.version(Some(&path), false);
                    vec![path, self.version("version", guess)]
                }
                create => self.create(create).into_iter().map(without_null_ids).collect(),
            });
            let from = fields.iter().rposition(|field| matches!(field, Field::Part(_))).unwrap_or(0) + 1;
            self.guess.note(self.slot, op, &fields[from..]);
        }
        fields.push(Field::End);
        Operation::new(OpCode::Multi, fields)
    }

    /// A quota, from a multi that makes its nodes to a change of them.
    fn quota(&mut self) -> Operation {
        let under = self.pick(UNDER_QUOTA);
        let at = |name: &str| Field::Path(Place::Quota(format!("{under}{name}")));
        let limits = if self.has_hard_quotas { LIMITS } else { &LIMITS[..SOFT] };
        let limit = self.pick(limits);
        let text = |text: &str| Field::Data(Some(text.as_bytes().to_vec()));
        let leaf = self.pick(&["/zookeeper_limits", "/zookeeper_stats"]);
        if self.quotas.contains(&format!("{under}/zookeeper_stats")) && !self.dice.one_in(12) {
            return match self.dice.below(8) {
                0 => Operation::new(
                    OpCode::SetData,
                    vec![at("/zookeeper_limits"), text(limit), Field::Int("version", -1)],
                ),
                1 => {
                    self.quotas.retain(|known| *known != format!("{under}{leaf}"));
                    Operation::new(OpCode::Delete, vec![at(leaf), Field::Int("version", -1)])
                }
                _ => Operation::new(
                    self.pick(&[OpCode::GetData, OpCode::GetData, OpCode::Exists]),
                    vec![at(leaf), Field::Watch(self.dice.one_in(3))],
                ),
            };
        }
        let mut fields = Vec::new();
        let parents =
            UNDER_QUOTA.iter().filter(|name| under.starts_with(**name)).map(|name| (*name).to_owned());
        let leaves = ["/zookeeper_limits", "/zookeeper_stats"].map(|leaf| format!("{under}{leaf}"));
        for name in parents.chain(leaves) {
            if self.quotas.contains(&name) {
                continue;
            }
            let data = if name.ends_with("limits") { limit } else { "count=0,bytes=0" };
            let open = vec![Entry { perms: 31, scheme: Some("world"), id: Some("anyone") }];
            fields.push(Field::Part(OpCode::Create.to_i32()));
            fields.push(Field::Path(Place::Quota(name.clone())));
            fields.extend([text(data), Field::Acl(Some(open)), Field::Int("flags", 0)]);
            self.quotas.push(name);
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
                    _ => self.valid(Aim::Existing),
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
        let (scheme, credentials): (_, Option<&[u8]>) = match self.dice.below(20) {
            0..7 => ("digest", Some(b"alice:pw")),
            7..14 => ("digest", Some(b"bob:pw")),
            14 => ("digest", Some(b"super:test")),
            15 => ("digest", Some(b"nocolon")),
            16 => ("ip", Some(b"127.0.0.1")),
            17 => ("nosuch", Some(b"x")),
            18 => ("world", Some(b"anyone")),
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
            1 => Operation::new(OpCode::Check, vec![self.read_path(), self.version("version", None)]),
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
                let fields = vec![
                    Field::Path(self.valid(Aim::Existing)),
                    Field::Data(data),
                    Field::Int("version", -1),
                ];
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
        let lie = match self.dice.below(20) {
            0 => Lie::Password,
            1 => Lie::NoPassword,
            2 => Lie::Session,
            3 => Lie::Zxid,
            _ => Lie::None,
        };
        let behind = match self.dice.below(6) {
            0..4 => Some(self.set_watches()),
            4 => Some(self.auth()),
            _ => None,
        };
        Action::Reconnect(Reconnect {
            // See `impostor` in the table of exceptions.
            hang_up: lie != Lie::None || self.dice.one_in(2),
            timeout_ms: self.pick(&[200_000, 200_000, 150_000, i32::MAX]),
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
