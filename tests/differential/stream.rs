//! Streams of operations, made from a seed.
//!
//! A stream belongs to a few sessions, works below one root node, and prefers some operations over others, as the
//! seed says: a stream that is mostly watches finds what one with a little of everything does not (swarm testing).

use super::{
    maker::Maker,
    operation::{Field, Operation, Place},
};
use std::fmt;
use zkfast_wire::OpCode;

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
    /// To the server so many places further.
    pub shift: usize,
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
    /// `null-watch`.
    pub null_watch: bool,
    /// `multi-remains`.
    pub multi_remains: bool,
    /// `null-in-multi`.
    pub null_in_multi: bool,
    /// `unread-in-ensemble`.
    pub unread_write: bool,
}

impl Action {
    fn avoid(&mut self, avoid: Avoid, slot: usize) {
        let operations = match self {
            Self::Ask(operations) => operations.as_mut_slice(),
            Self::Reconnect(reconnect) => reconnect.behind.as_mut_slice(),
            Self::Expire => &mut [],
        };
        let is_burst = operations.len() > 1;
        for operation in operations {
            if avoid.multi_remains && is_burst {
                operation.mend_parts();
            }
            if avoid.unread_write && operation.is_write() {
                operation.cut = 0;
            }
            if avoid.null_in_multi && operation.op() == Some(OpCode::Multi) {
                operation.mend_nulls();
            }
            if avoid.watch_modes {
                operation.keep_to_mode(slot % 3);
            }
            if avoid.null_watch
                && operation.op() == Some(OpCode::AddWatch)
                && operation.fields[0] == Field::Path(Place::Null)
            {
                operation.fields[0] = Field::Path(Place::Absolute("a".into()));
            }
            if avoid.check_alone && operation.op() == Some(OpCode::Check) {
                *operation = Operation::new(OpCode::WhoAmI, vec![]);
            }
        }
    }
}

impl Operation {
    /// Gives the creates of a multi flags that fit them, and lists.
    fn mend_parts(&mut self) {
        let mut part = None;
        for field in &mut self.fields {
            match (field, part) {
                (Field::Part(code), _) => part = OpCode::from_i32(*code),
                (Field::Int("flags", flags), Some(op)) => {
                    *flags = match op {
                        OpCode::CreateContainer => 4,
                        OpCode::CreateTtl if !matches!(*flags, 5 | 6) => 5,
                        OpCode::CreateTtl => *flags,
                        _ if !(0..4).contains(flags) => 0,
                        _ => *flags,
                    }
                }
                (Field::Acl(list @ None), Some(_)) => *list = Some(Vec::new()),
                _ => {}
            }
        }
    }

    /// Gives every part a path.
    fn mend_nulls(&mut self) {
        for field in self.fields.iter_mut().filter(|field| **field == Field::Path(Place::Null)) {
            *field = Field::Path(Place::Absolute("a".into()));
        }
    }

    fn keep_to_mode(&mut self, mode: usize) {
        let op = self.op();
        if op == Some(OpCode::AddWatch) && mode == 0 {
            self.code = OpCode::Exists.to_i32();
            self.fields[1] = Field::Watch(true);
        }
        let is_read =
            matches!(op, Some(OpCode::Exists | OpCode::GetData | OpCode::GetChildren | OpCode::GetChildren2));
        if is_read && mode != 0 && self.cut == 0 && self.fields.get(1) == Some(&Field::Watch(true)) {
            self.code = OpCode::AddWatch.to_i32();
            self.fields[1] = Field::Int("kind", i32::from(mode == 2));
        }
        for field in &mut self.fields {
            match field {
                Field::Watch(watch) if mode != 0 => *watch = false,
                Field::Int("kind", kind @ (0 | 1)) if op == Some(OpCode::AddWatch) => {
                    *kind = i32::from(mode == 2);
                }
                // Before, these took persistent watches too.
                Field::Int("kind", kind @ (1 | 2))
                    if op != Some(OpCode::AddWatch) && !is_read && mode != 0 =>
                {
                    *kind = 3;
                }
                Field::Paths("persistent", places) if mode != 1 => places.clear(),
                Field::Paths("recursive", places) if mode != 2 => places.clear(),
                Field::Paths("data" | "exist" | "child", places) if mode != 0 => places.clear(),
                _ => {}
            }
        }
    }
}

impl Stream {
    /// The stream of `seed` with about `operations` requests, for so many servers.
    pub fn of(seed: u64, operations: usize, servers: usize, avoid: Avoid) -> Self {
        let (mut maker, slots) = Maker::new(seed, servers);
        // It takes seconds: once in a stream, and not in each.
        let mut expires_in = if maker.one_in(5) { operations / 2 } else { usize::MAX };
        let mut steps = Vec::new();
        let mut asked = 0;
        while asked < operations {
            let (slot, mut action) = maker.step(slots);
            if asked >= expires_in {
                expires_in = usize::MAX;
                action = Action::Expire;
                maker.end(slot);
            }
            action.avoid(avoid, slot);
            asked += match &action {
                Action::Ask(operations) => operations.len(),
                Action::Reconnect(_) | Action::Expire => 1,
            };
            steps.push(Step { slot, action });
        }
        Self { seed, steps }
    }
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
                    "reconnect {} servers further, old connection {}, timeout {}, lie {:?}, readOnly {:?}",
                    reconnect.shift,
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
