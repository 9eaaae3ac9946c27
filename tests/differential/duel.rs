//! Both servers and one stream: each step is done on both, and what every session sees is compared at once.
//!
//! After each step every session sends a ping: its answer follows all events of the step, so that what a step tells a
//! session is known when the step is over, and the next one starts from a quiet state on both servers.

use super::{
    answer::{self, Kind, Line, Token},
    cluster::TICK_MS,
    exceptions::{self, Case, Excuse},
    ledger::Ledger,
    operation::{Field, Operation, Place, QUOTAS},
    peers::{self, Kind as Whose, tree},
    side::{EXPIRY_MS, Left, Side},
    stream::{Action, Lie, Reconnect, Step, Stream},
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use zkfast_wire::OpCode;

/// What was done and seen.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Streams that ended without a difference.
    pub streams: usize,
    /// Requests.
    pub operations: usize,
    /// Answers that were errors.
    pub errors: usize,
    /// Watch events, as Apache's server sent them.
    pub events: usize,
    /// Sessions that came again, and those of them whose old connection was still open.
    pub reconnects: usize,
    /// The second number.
    pub moves: usize,
    /// Sessions that came again to another server.
    pub shifts: usize,
    /// Sessions that expired.
    pub expiries: usize,
    /// How often one of Apache's servers was woken.
    pub woken: usize,
    /// How often each exception was needed.
    pub excused: BTreeMap<&'static str, usize>,
}

/// Where the two servers differ.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Index of the step; that of the end of the stream if it was found there.
    pub step: usize,
    /// Both sides, and what is not equal.
    pub words: String,
}

/// The two sides.
pub struct Duel {
    apache: Side,
    zkfast: Side,
    version: (u32, u32, u32),
    streams: usize,
    root: String,
    ledger: Ledger,
    /// Summed over all streams.
    pub tally: Tally,
}

impl Duel {
    /// Starts both on empty directories: `servers` of each, an ensemble if that is more than one.
    pub fn start(servers: usize) -> Self {
        let (apache, zkfast) = if servers > 1 {
            let apache = Side::launch(Whose::Apache, servers);
            let zkfast = Side::launch(Whose::under_test(), servers);
            (Side::await_ensemble(apache), Side::await_ensemble(zkfast))
        } else {
            (Side::start(Whose::Apache), Side::start(Whose::under_test()))
        };
        let (mut apache, mut zkfast) = (apache, zkfast);
        let version = version(&apache.four_letter("srvr"));
        for side in [&mut apache, &mut zkfast] {
            if servers > 1 && side.kind == Whose::Apache && exceptions::is_avoided("asleep", version) {
                side.wake_sleepers();
            }
        }
        Self {
            apache,
            zkfast,
            version,
            streams: 0,
            root: String::new(),
            ledger: Ledger::default(),
            tally: Tally::default(),
        }
    }

    /// Apache's version.
    pub fn version(&self) -> (u32, u32, u32) {
        self.version
    }

    /// Plays a stream below a root of its own. After a difference the two servers are no longer in the same state:
    /// start a new pair then.
    pub fn play(&mut self, stream: &Stream) -> Result<(), Difference> {
        self.root = format!("/d{:05}", self.streams);
        self.streams += 1;
        self.ledger = Ledger::default();
        let slots = stream.steps.iter().map(|step| step.slot + 1).max().unwrap_or(1);
        self.both(|side, root| side.begin(root, slots));
        for (index, step) in stream.steps.iter().enumerate() {
            self.step(step, slots).map_err(|words| Difference { step: index, words })?;
        }
        let end = |words| Difference { step: stream.steps.len(), words };
        for slot in 0..slots {
            let close = Operation::new(OpCode::CloseSession, vec![]);
            if self.apache.has_session(slot) {
                self.step(&Step { slot, action: Action::Ask(vec![close]) }, slots).map_err(end)?;
            }
        }
        for place in 0..self.apache.admins.len() {
            self.both(|side, _| side.settle(place));
            self.compare_trees(place).map_err(end)?;
        }
        for side in [&self.apache, &self.zkfast] {
            assert!(
                side.has_its_roles(),
                "{:?}: another server leads now: what was seen says nothing",
                side.kind
            );
        }
        self.both(Side::clean);
        self.tally.streams += 1;
        self.tally.woken += std::mem::take(&mut self.apache.woken);
        Ok(())
    }

    fn both(&mut self, mut act: impl FnMut(&mut Side, &str)) {
        act(&mut self.apache, &self.root);
        act(&mut self.zkfast, &self.root);
    }

    fn step(&mut self, step: &Step, slots: usize) -> Result<(), String> {
        if let Action::Reconnect(reconnect) = &step.action {
            self.both(|side, _| side.shift(step.slot, reconnect.shift));
        }
        self.both(|side, _| side.settle(side.place(step.slot)));
        if !matches!(step.action, Action::Reconnect(_)) {
            self.connect(step.slot)?;
        }
        match &step.action {
            Action::Ask(operations) => self.ask(step.slot, operations, slots)?,
            Action::Reconnect(reconnect) => self.reconnect(step.slot, reconnect, slots)?,
            Action::Expire => self.expire(step.slot, slots)?,
        }
        self.both(|side, _| side.end_step());
        Ok(())
    }

    /// Makes sure that the session is connected: back on its old session, else with a new one.
    fn connect(&mut self, slot: usize) -> Result<(), String> {
        // Twice: the old session may turn out to be gone.
        for _ in 0..2 {
            if self.apache.is_connected(slot) && self.zkfast.is_connected(slot) {
                return Ok(());
            }
            self.both(|side, root| side.hello(slot, None, root));
            let lines = self.collect(slot);
            self.compare(slot, &[], &lines, false)?;
            if lines.0.iter().any(|line| line.kind == Kind::Welcome(false)) {
                self.both(|side, _| side.forget_session(slot));
            }
        }
        match self.apache.is_connected(slot) && self.zkfast.is_connected(slot) {
            true => Ok(()),
            false => Err("no session can be made".into()),
        }
    }

    fn collect(&mut self, slot: usize) -> (Vec<Line>, Vec<Line>) {
        (self.apache.collect(slot), self.zkfast.collect(slot))
    }

    fn ask(&mut self, slot: usize, operations: &[Operation], slots: usize) -> Result<(), String> {
        self.both(|side, root| side.ask(slot, operations, root));
        let mut lines = self.collect(slot);
        self.tally.operations += operations.len();
        let is_closed = operations.iter().enumerate().any(|(at, operation)| {
            let is_answer = |line: &Line| line.kind == Kind::Reply { index: at, err: 0 };
            operation.op() == Some(OpCode::CloseSession) && lines.0.iter().any(is_answer)
        });
        // Of a refusal that ends the connection (C25) too: see `behind-refusal` in the table of exceptions.
        let is_refused = lines.0.iter().any(|line| matches!(line.kind, Kind::Reply { err: -6, .. }));
        if is_closed || is_refused {
            // Nothing can be asked on it any more: it must end by itself (C24).
            let left = (self.apache.leave_behind(slot), self.zkfast.leave_behind(slot));
            lines.0.extend(left.0.map(Left::lines).unwrap_or_default());
            lines.1.extend(left.1.map(Left::lines).unwrap_or_default());
        }
        if is_closed {
            self.both(|side, _| side.forget_session(slot));
        }
        self.compare(slot, operations, &lines, is_closed)?;
        self.fence(slot, operations, slots, is_closed)
    }

    /// Asks every session for a sign of life, behind which nothing of this step can follow.
    fn fence(
        &mut self,
        actor: usize,
        operations: &[Operation],
        slots: usize,
        mixed: bool,
    ) -> Result<(), String> {
        // Those of an ensemble are transactions: one by one, so that their order is the same on both sides.
        let at_once = self.apache.admins.len() == 1;
        if at_once {
            (0..slots).for_each(|slot| self.both(|side, _| side.fence(slot)));
        }
        for slot in 0..slots {
            if !at_once {
                self.both(|side, _| side.fence(slot));
            }
            let lines = self.collect(slot);
            let operations = if slot == actor { operations } else { &[] };
            self.compare(slot, operations, &lines, mixed)?;
        }
        Ok(())
    }

    fn reconnect(&mut self, slot: usize, reconnect: &Reconnect, slots: usize) -> Result<(), String> {
        self.tally.operations += 1;
        self.tally.reconnects += 1;
        self.tally.moves += usize::from(!reconnect.hang_up);
        self.tally.shifts += usize::from(reconnect.shift > 0);
        let left = if reconnect.hang_up {
            self.both(|side, _| side.hang_up(slot));
            (None, None)
        } else {
            (self.apache.leave_behind(slot), self.zkfast.leave_behind(slot))
        };
        self.both(|side, root| side.hello(slot, Some(reconnect), root));
        let lines = self.collect(slot);
        let behind = reconnect.behind.as_slice();
        self.compare(slot, behind, &lines, false)?;
        if reconnect.lie == Lie::None && lines.0.iter().any(|line| line.kind == Kind::Welcome(false)) {
            self.both(|side, _| side.forget_session(slot));
        }
        if let (Some(mut apache), Some(mut zkfast)) = left {
            if reconnect.shift > 0 {
                apache.write();
                zkfast.write();
            }
            self.compare(slot, &[], &(apache.lines(), zkfast.lines()), false)?;
        }
        self.fence(slot, behind, slots, false)
    }

    fn expire(&mut self, slot: usize, slots: usize) -> Result<(), String> {
        self.tally.operations += 1;
        self.tally.expiries += 1;
        let marker = format!("{}x", self.root);
        self.both(|side, _| side.mark(slot, &marker));
        self.fence(slot, &[], slots, false)?;
        let shorter = Reconnect {
            hang_up: true,
            timeout_ms: 1,
            lie: Lie::None,
            read_only: None,
            behind: None,
            shift: 0,
        };
        let heard_of = Instant::now();
        self.reconnect(slot, &shorter, slots)?;
        if self.apache.admins.len() > 1 {
            // Until no server of Apache's tells its leader any more what it heard with the old timeout.
            while heard_of.elapsed() < 2 * Duration::from_millis(u64::from(TICK_MS)) {
                self.fence(slot, &[], slots, false)?;
            }
        }
        let heard_of = Instant::now();
        self.fence(slot, &[], slots, false)?;
        self.both(|side, _| side.hang_up(slot));
        let deadline = Instant::now() + Duration::from_millis(EXPIRY_MS as u64) + peers::DEADLINE;
        let mut gone = (false, false);
        let mut seen: Vec<(Vec<Line>, Vec<Line>)> = vec![Default::default(); slots];
        while gone != (true, true) {
            for (is_gone, side) in [(&mut gone.0, &mut self.apache), (&mut gone.1, &mut self.zkfast)] {
                if !*is_gone && side.is_marker_gone(slot, deadline)? {
                    *is_gone = true;
                    let kind = side.kind;
                    if heard_of.elapsed() < Duration::from_millis(EXPIRY_MS as u64) {
                        return Err(format!(
                            "{kind:?}'s session expired {:?} after it was heard of",
                            heard_of.elapsed()
                        ));
                    }
                }
            }
            for other in 0..slots {
                self.both(|side, _| side.fence(other));
            }
            for (other, seen) in seen.iter_mut().enumerate() {
                let lines = self.collect(other);
                seen.0.extend(lines.0.into_iter().filter(|line| line.kind != Kind::Fence));
                seen.1.extend(lines.1.into_iter().filter(|line| line.kind != Kind::Fence));
            }
        }
        for (other, lines) in seen.iter().enumerate() {
            self.compare(other, &[], lines, true)?;
        }
        self.fence(slot, &[], slots, true)
    }

    /// Compares what one session saw. `mixed`: the events are those of a session's end, whose ephemerals go in no
    /// order.
    fn compare(
        &mut self,
        slot: usize,
        operations: &[Operation],
        lines: &(Vec<Line>, Vec<Line>),
        mixed: bool,
    ) -> Result<(), String> {
        let (mut apache, mut zkfast) = lines.clone();
        self.tally.events += apache.iter().filter(|line| matches!(line.kind, Kind::Event { .. })).count();
        self.tally.errors +=
            apache.iter().filter(|line| matches!(line.kind, Kind::Reply { err, .. } if err != 0)).count();
        if mixed {
            sort_events(&mut apache);
            sort_events(&mut zkfast);
        }
        let (mut left, mut right) = (0, 0);
        while left < apache.len() || right < zkfast.len() {
            let pair = (apache.get(left), zkfast.get(right));
            let reason = match pair {
                (Some(a), Some(b)) => match self.ledger.compare(a, b) {
                    Ok(()) => {
                        (left, right) = (left + 1, right + 1);
                        continue;
                    }
                    Err(reason) => reason,
                },
                _ => "only one of the two".into(),
            };
            let zxids = |line: Option<&Line>| match line?.tokens.get(1)? {
                Token::Zxid(zxid) => Some(*zxid),
                _ => None,
            };
            let zxids_fit = match (zxids(pair.0), zxids(pair.1)) {
                (Some(a), Some(b)) => self.ledger.clone().zxid(a, b).is_ok(),
                _ => true,
            };
            let version = self.version;
            let case = Case {
                apache: pair.0,
                zkfast: pair.1,
                operations,
                version,
                root: &self.root,
                zxids_fit,
                is_learner: self.zkfast.place(slot) > 0,
            };
            let Some((id, excuse)) = exceptions::excuse(&case) else {
                return Err(self.words(slot, lines, (left, right), &reason));
            };
            *self.tally.excused.entry(id).or_default() += 1;
            match excuse {
                Excuse::Both => (left, right) = (left + 1, right + 1),
                Excuse::As(line) => {
                    let apache = pair.0.expect("an excuse for two lines");
                    if let Err(reason) = self.ledger.compare(apache, &line) {
                        return Err(self.words(slot, lines, (left, right), &reason));
                    }
                    (left, right) = (left + 1, right + 1);
                }
                Excuse::HangUp { apache_zxid } => {
                    if let Some(zxid) = apache_zxid {
                        self.ledger.extra(0, zxid);
                    }
                    self.both(|side, _| side.hang_up(slot));
                    return Ok(());
                }
                Excuse::ExtraZxid(side, zxid) => {
                    if !self.ledger.extra(side, zxid) {
                        return Err(self.words(slot, lines, (left, right), &reason));
                    }
                }
                Excuse::WatchLeft(path) => {
                    (left, right) = (left + 1, right + 1);
                    self.remove_watch(slot, path)?;
                }
            }
        }
        Ok(())
    }

    /// Takes away a watch that one server alone has left, so that the stream can go on.
    fn remove_watch(&mut self, slot: usize, path: String) -> Result<(), String> {
        let fields = vec![Field::Path(Place::Absolute(path)), Field::Int("kind", 2)];
        let remove = Operation::new(OpCode::RemoveWatches, fields);
        self.both(|side, root| side.ask(slot, std::slice::from_ref(&remove), root));
        let (apache, zkfast) = self.collect(slot);
        match (&apache[..], &zkfast[..]) {
            ([Line { kind: Kind::Reply { .. }, .. }], [Line { kind: Kind::Reply { .. }, .. }]) => Ok(()),
            _ => Err(self.words(
                slot,
                &(apache, zkfast),
                (0, 0),
                "removing a watch that one of the two has left",
            )),
        }
    }

    fn words(&self, slot: usize, lines: &(Vec<Line>, Vec<Line>), at: (usize, usize), reason: &str) -> String {
        let show = |lines: &[Line], at: usize| {
            let from = at.saturating_sub(3);
            let mut words = String::new();
            for (index, line) in lines.iter().enumerate().skip(from).take(8) {
                let mark = if index == at { ">" } else { " " };
                words.push_str(&format!("    {mark} {line}\n"));
            }
            if at >= lines.len() {
                words.push_str("    > (nothing)\n");
            }
            words.replace(&self.root, "~")
        };
        format!(
            "session {slot} sees: {}\n  Apache {:?}:\n{}  zkfast:\n{}",
            reason.replace(&self.root, "~"),
            self.version,
            show(&lines.0, at.0),
            show(&lines.1, at.1)
        )
    }

    /// The whole tree below the root and the quotas there, once all sessions are closed.
    fn compare_trees(&mut self, place: usize) -> Result<(), String> {
        for root in [self.root.clone(), format!("{QUOTAS}{}", self.root)] {
            let read = |side: &mut Side| -> Vec<Line> {
                let admin = &mut side.admins[place];
                if admin.exists(&root, false).is_err() {
                    return Vec::new();
                }
                tree::read(admin, &root).iter().map(|(path, node)| answer::node(path, node)).collect()
            };
            let lines = (read(&mut self.apache), read(&mut self.zkfast));
            self.compare(0, &[], &lines, false)
                .map_err(|words| format!("the trees at the end of the stream, server {place}: {words}"))?;
        }
        Ok(())
    }
}

/// The events of a session's end come in no order: each run of events is sorted.
fn sort_events(lines: &mut [Line]) {
    for run in
        lines.chunk_by_mut(|a, b| matches!((&a.kind, &b.kind), (Kind::Event { .. }, Kind::Event { .. })))
    {
        run.sort_by_key(|line| match &line.kind {
            Kind::Event { kind, path } => (path.clone(), *kind),
            _ => Default::default(),
        });
    }
}

/// `Zookeeper version: 3.8.0-...`.
fn version(srvr: &str) -> (u32, u32, u32) {
    let text = srvr.split_once("version: ").map_or("", |(_, rest)| rest);
    let mut numbers =
        text.split(|char: char| !char.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next())
}
