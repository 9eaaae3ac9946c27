//! Makes the steps of a stream, at random but from a seed.
//!
//! Most requests are ones that an application would send and that succeed; some are wrong in one way, some in several.
//!
//! Each stream has a theme, by its seed, so that every few streams are about each of the rules that hardly show in a
//! stream of everything: who may do what, what a quota counts, and what setWatches tells.

mod access;
mod quota;
mod vocabulary;
mod watching;

use super::{
    guess::Guess,
    operation::{Field, Operation, Place, Seen},
    peers::Dice,
    stream::{Action, Lie, Reconnect},
};
use access::without_null_ids;
use std::collections::VecDeque;
use vocabulary::{INVALID, OUTSIDE, PROTECTED, VALID};
use zkfast_wire::{OpCode, Xid};

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

/// What a stream is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Theme {
    /// Whatever the dice say.
    Anything,
    /// Lists that are not open, and sessions with and without credentials.
    Access,
    /// Hard quotas.
    Quotas,
    /// Sessions that come again and set their watches.
    Returns,
}

impl Theme {
    fn of(seed: u64) -> Self {
        [Self::Anything, Self::Access, Self::Quotas, Self::Returns][(seed % 4) as usize]
    }

    /// The least weight of a family.
    fn least(self, family: Family) -> usize {
        match (self, family) {
            (Self::Access, Family::SetAcl | Family::Create | Family::Delete) => 16,
            (Self::Access, Family::GetAcl) => 20,
            (Self::Access, Family::Read) => 10,
            (Self::Access, Family::Session) => 6,
            (Self::Access | Self::Returns, Family::Watch) => 24,
            (Self::Access, Family::Auth) => 2,
            (Self::Quotas, Family::Quota) => 30,
            (Self::Quotas, Family::Create | Family::SetData) => 24,
            (Self::Quotas, Family::Delete) => 12,
            (Self::Returns, Family::SetWatches) => 20,
            (Self::Returns, Family::Reconnect) => 8,
            (_, Family::Create) => 8,
            (_, Family::SetData | Family::Watch) => 7,
            _ => 0,
        }
    }

    /// The largest weight of a family.
    fn most(self, family: Family) -> usize {
        match (self, family) {
            // See `pending-quota` in the table of exceptions.
            (Self::Quotas, Family::Multi) => 0,
            (Self::Quotas, Family::SetAcl | Family::Odd) => 1,
            _ => usize::MAX,
        }
    }
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
    servers: usize,
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
    theme: Theme,
    /// What has to come first.
    first: VecDeque<(usize, Action)>,
    /// Names below the root that each step so far may have changed.
    changes: Vec<Vec<String>>,
    /// Where watches were left.
    watched: Vec<Place>,
}

impl Maker {
    /// The maker of the stream of `seed` for so many servers, and the number of its sessions.
    pub fn new(seed: u64, servers: usize) -> (Self, usize) {
        let mut dice = Dice::new(seed);
        let slots = 2 + dice.below(3);
        let theme = Theme::of(seed);
        let has_hard_quotas = theme == Theme::Quotas;
        let weights = FAMILIES
            .iter()
            .map(|(family, weight)| {
                let factors = if theme == Theme::Anything { [0, 1, 2, 2, 3, 8] } else { [0, 0, 1, 1, 2, 2] };
                let factor = factors[dice.below(6)];
                (*family, (weight * factor).max(theme.least(*family)).min(theme.most(*family)))
            })
            .collect();
        let mut maker = Self {
            wrong: if theme == Theme::Access { 60 } else { [8, 20, 60][dice.below(3)] },
            closed: if theme == Theme::Access { 3 } else { [4, 20, 1_000, 1_000][dice.below(4)] },
            burst: if has_hard_quotas { usize::MAX } else { [2, 4, 12][dice.below(3)] },
            has_hard_quotas,
            quotas: Vec::new(),
            guess: Guess::new(),
            slot: 0,
            dice,
            servers,
            weights,
            theme,
            first: VecDeque::new(),
            changes: Vec::new(),
            watched: Vec::new(),
        };
        match theme {
            Theme::Access => {
                let users = (0..2).map(|slot| (slot, Action::Ask(vec![access::credentials(slot)])));
                maker.first.extend(users);
            }
            Theme::Quotas => {
                let quota = maker.quota_of("");
                maker.first.push_back((0, Action::Ask(vec![quota])));
            }
            Theme::Anything | Theme::Returns => {}
        }
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
        let (slot, action) = match self.first.pop_front() {
            Some(step) => step,
            None => {
                self.slot = self.dice.below(slots);
                (self.slot, self.action())
            }
        };
        if let Action::Ask(operations) = &action {
            operations.iter().for_each(|operation| self.note_watch(operation));
            self.note_changes(operations);
        } else {
            self.changes.push(Vec::new());
        }
        (slot, action)
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
                let mut path = self.changed_path(Aim::Existing);
                // A closed root is the end of most of a stream.
                if path == Field::Path(Place::Below(String::new())) && !self.dice.one_in(8) {
                    path = Field::Path(self.valid(Aim::Leaf));
                }
                let acl = match self.theme {
                    Theme::Access => {
                        // What a list forbids below a node shows where there is something below it.
                        if let Field::Path(Place::Below(name)) = &mut path
                            && let Some(end) = name.rfind('/').filter(|end| *end > 0)
                            && self.dice.one_in(2)
                        {
                            name.truncate(end);
                        }
                        self.closed_acl()
                    }
                    _ => self.acl(),
                };
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
        if self.has_hard_quotas {
            return Field::Data(Some(vec![b'q'; self.dice.below(48)]));
        }
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

    fn about_the_session(&mut self) -> Operation {
        match self.dice.below(7) {
            0 | 1 => {
                let prefix = self.prefix();
                Operation::new(OpCode::GetEphemerals, vec![Field::Path(prefix)])
            }
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
            1..4 if self.theme == Theme::Access => Some(access::credentials(self.slot % 2)),
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
            shift: if self.servers > 1 { self.dice.below(self.servers) } else { 0 },
        })
    }
}

/// Whether a path is one that no server refuses.
fn is_plain(field: &Field) -> bool {
    matches!(field, Field::Path(Place::Below(below)) if VALID.contains(&below.as_str()))
}
