//! Watch cycles: a read leaves a watch, a set from another connection makes it fire, the event ends the cycle.
//!
//! Each connection has some nodes of its own to watch, one for each cycle that it may have under way. Whatever fails
//! on the way (the read, the set, either connection, the event that never comes) ends the cycle and is counted.

use super::{Errand, Traffic};
use crate::{
    clock::{MILLISECOND, Nanos},
    engine::{Links, Loss},
    link::{Ask, InFlight, Link},
    missing::EVENT_PATIENCE,
    mix::{Pace, Plan},
    operation::{Operation, put_read, put_set},
    reply::Reply,
};
use zkfast_wire::{
    OpCode, Zxid,
    watch::{EventKind, WatcherEvent},
};

/// Keys from here on are not of the key space but watched nodes.
pub(super) const WATCHED_FROM: u64 = 1 << 62;
/// Most cycles that a connection has under way, and so the nodes that it may watch.
const CYCLES_LIMIT: usize = 100;
/// The same in an open loop, where there is no other number to take it from.
const CYCLES_OF_OPEN_LOOP: usize = 16;
/// How often overdue events are looked for.
const LOOK_EVERY: Nanos = 200 * MILLISECOND;
/// Name under which an event that never came is counted.
const NO_EVENT: &str = "no event";

/// Watch cycles that a connection may have under way.
pub fn cycles_of(plan: &Plan) -> usize {
    match &plan.pace {
        _ if !plan.pace.has(Operation::Watch) => 0,
        Pace::Closed { in_flight, .. } => (*in_flight).min(CYCLES_LIMIT),
        Pace::Open { .. } => CYCLES_OF_OPEN_LOOP,
    }
}

/// Where a cycle is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    /// None is under way.
    #[default]
    Free,
    /// The read that leaves the watch is on its way.
    Arming,
    /// The watch is there; a set is to be sent.
    Armed,
    /// The set was sent.
    Fired {
        at: Nanos,
        /// When its answer came.
        answered: Option<Nanos>,
    },
}

#[derive(Clone, Copy, Debug, Default)]
struct Cycle {
    state: State,
    /// mzxid at which the watch was left.
    zxid: Zxid,
}

/// The cycles of all connections of a core.
#[derive(Debug, Default)]
pub(super) struct Watches {
    /// By connection, `per_link` each.
    cycles: Vec<Cycle>,
    per_link: usize,
    next_look: Nanos,
    /// Cycles whose set was sent and whose event has not come.
    pub(super) awaited: u64,
}

impl Watches {
    pub(super) fn new(links: usize, per_link: usize) -> Self {
        Self { cycles: vec![Cycle::default(); links * per_link], per_link, next_look: 0, awaited: 0 }
    }

    /// A place for another cycle of this connection.
    pub(super) fn free(&self, link: usize) -> Option<usize> {
        let own = &self.cycles[link * self.per_link..(link + 1) * self.per_link];
        own.iter().position(|cycle| cycle.state == State::Free)
    }

    /// Ends a cycle; `true` if one was under way.
    fn end(&mut self, at: usize) -> bool {
        let state = std::mem::take(&mut self.cycles[at].state);
        self.awaited -= u64::from(matches!(state, State::Fired { .. }));
        state != State::Free
    }
}

impl Traffic {
    fn watched_path(&self, at: usize) -> String {
        let per_link = self.watches.per_link;
        let mut path = Vec::new();
        let number = (self.core + at / per_link * self.shared.cores) as u64;
        super::put_watched_path(&self.plan.root, number, (at % per_link) as u64, &mut path);
        String::from_utf8_lossy(&path).into_owned()
    }

    /// Begins a cycle on a connection that has a place for it.
    pub(super) fn begin_watch(&mut self, link: &mut Link, place: usize, intended: Nanos, now: Nanos) {
        let cycle = &mut self.watches.cycles[link.index * self.watches.per_link + place];
        // Until the answer says at which zxid the watch was left, nothing can be newer than it.
        *cycle = Cycle { state: State::Arming, zxid: Zxid(i64::MAX) };
        self.in_flight += 1;
        let (root, number) = (&self.plan.root, link.number);
        let ask =
            Ask { op: OpCode::GetData, operation: Operation::Watch, key: place as u64, note: 0, intended };
        link.request(now, ask, |out| {
            put_read(out, |out| super::put_watched_path(root, number, place as u64, out), true);
        });
    }

    /// The read was answered: `left_at` is the mzxid of what it read, `None` if it failed.
    pub(super) fn watch_answered(&mut self, link: &mut Link, place: u64, left_at: Option<Zxid>, now: Nanos) {
        let at = link.index * self.watches.per_link + place as usize;
        match left_at {
            Some(zxid) => {
                self.watches.cycles[at] = Cycle { state: State::Armed, zxid };
                self.errands.push(Errand::SetWatched(at));
            }
            None => {
                self.watches.end(at);
                self.complete(link, now);
            }
        }
    }

    /// Sets a watched node, from a neighbour of the connection that watches it; `false` if there is none now.
    pub(super) fn set_watched(&mut self, links: &mut Links, at: usize, now: Nanos) -> bool {
        if self.watches.cycles[at].state != State::Armed {
            return true;
        }
        let watcher = at / self.watches.per_link;
        let place = (at % self.watches.per_link) as u64;
        let mut others = (1..=self.regular).map(|step| (watcher + step) % self.regular);
        let Some(writer) = others.find(|index| links.all[*index].is_ready()) else { return false };
        let stamp = self.next_stamp_of_cycle();
        let number = links.all[watcher].number;
        self.watches.cycles[at].state = State::Fired { at: now, answered: None };
        self.watches.awaited += 1;
        self.in_flight += 1;
        let root = &self.plan.root;
        // The key says which cycle, so that the answer finds it.
        let ask = Ask {
            op: OpCode::SetData,
            operation: Operation::Set,
            key: WATCHED_FROM + at as u64,
            note: stamp.0,
            intended: now,
        };
        links.to_write(writer).request(now, ask, |out| {
            put_set(
                out,
                |out| super::put_watched_path(root, number, place, out),
                &self.value[..stamp.bytes()],
            );
        });
        true
    }

    /// The set was answered.
    pub(super) fn watched_set_answered(&mut self, key: u64, is_ok: bool, now: Nanos) {
        let at = (key - WATCHED_FROM) as usize;
        if !is_ok {
            if self.watches.end(at) {
                self.errands.push(Errand::Completed(at / self.watches.per_link));
            }
            return;
        }
        if let State::Fired { answered, .. } = &mut self.watches.cycles[at].state {
            *answered = Some(now);
        }
        if self.witness.is_some() {
            self.errands.push(Errand::ReadWatched(at));
        }
    }

    /// Reads a watched node, to see whether the new value overtakes the event.
    pub(super) fn read_watched(&mut self, links: &mut Links, at: usize, now: Nanos) {
        let place = (at % self.watches.per_link) as u64;
        let index = at / self.watches.per_link;
        if !links.all[index].is_ready() {
            return;
        }
        let link = links.to_write(index);
        self.in_flight += 1;
        let (root, number) = (&self.plan.root, link.number);
        let key = WATCHED_FROM + at as u64;
        let ask = Ask { op: OpCode::GetData, operation: Operation::Check, key, note: 0, intended: now };
        link.request(now, ask, |out| {
            put_read(out, |out| super::put_watched_path(root, number, place, out), false);
        });
    }

    /// What [`Traffic::read_watched`] read has `mzxid`.
    pub(super) fn watched_read(&mut self, key: u64, mzxid: Zxid) {
        let at = (key - WATCHED_FROM) as usize;
        let Cycle { state, zxid } = self.watches.cycles[at];
        let ahead = matches!(state, State::Fired { .. }) && mzxid > zxid;
        let path = self.watched_path(at);
        let Some(witness) = &mut self.witness else { return };
        witness.findings.check(!ahead, "a value was read ahead of the event that announces it", || {
            format!("{path}: watched at mzxid {zxid}, read at {mzxid}, and no event between")
        });
    }

    /// An event came.
    pub(super) fn watched_event(
        &mut self,
        link: &mut Link,
        zxid: Zxid,
        event: &WatcherEvent<'_>,
        now: Nanos,
    ) {
        let digits = event.path.rsplit('-').next().unwrap_or_default();
        let Some(place) = digits.parse().ok().filter(|place: &usize| *place < self.watches.per_link) else {
            return;
        };
        let at = link.index * self.watches.per_link + place;
        let Cycle { state, zxid: watched_at } = self.watches.cycles[at];
        let (State::Fired { at: set_at, .. }, EventKind::NodeDataChanged) = (state, event.kind) else {
            if let Some(witness) = &mut self.witness
                && state == State::Armed
            {
                witness.findings.violation("an event without a change", || {
                    format!("{}: watched at mzxid {watched_at}, not set since, {:?}", event.path, event.kind)
                });
            }
            return;
        };
        self.watches.end(at);
        self.recorder.success(Operation::Event, set_at, set_at, now);
        // Servers before 3.9 put -1 here.
        if let Some(witness) = &mut self.witness
            && zxid.0 >= 0
        {
            witness.findings.check(zxid > watched_at, "an event is older than its watch", || {
                format!("{}: event of {zxid} for a watch left at {watched_at}", event.path)
            });
        }
        self.complete(link, now);
    }

    /// The connection that carried a set is gone: whether it was done, nobody knows. Another set makes the watch fire
    /// if it was not.
    pub(super) fn watched_set_lost(&mut self, request: &InFlight) {
        let at = (request.key - WATCHED_FROM) as usize;
        if let State::Fired { answered: None, .. } = self.watches.cycles[at].state {
            self.watches.cycles[at].state = State::Armed;
            self.watches.awaited -= 1;
            self.errands.push(Errand::SetWatched(at));
        }
    }

    /// A connection that watches is gone, and its watches with it.
    pub(super) fn watches_lost(&mut self, link: usize, why: &Loss) {
        for at in link * self.watches.per_link..(link + 1) * self.watches.per_link {
            if let State::Fired { at: set_at, .. } = self.watches.cycles[at].state {
                self.recorder.failure(Operation::Event, why.name(), set_at);
            }
            self.watches.end(at);
        }
    }

    /// Gives up the events that are overdue, which would block their cycles for ever.
    pub(super) fn give_up_events(&mut self, now: Nanos) {
        if self.watches.awaited == 0 || now < self.watches.next_look {
            return;
        }
        self.watches.next_look = now + LOOK_EVERY;
        for at in 0..self.watches.cycles.len() {
            if let State::Fired { at: set_at, answered: Some(answered) } = self.watches.cycles[at].state
                && now.saturating_sub(answered) > EVENT_PATIENCE
            {
                self.event_missing(at, set_at, now.saturating_sub(answered));
                self.errands.push(Errand::Completed(at / self.watches.per_link));
            }
        }
    }

    /// At the end: what has not come does not come any more.
    pub(super) fn leave_watches(&mut self, now: Nanos) {
        for at in 0..self.watches.cycles.len() {
            match self.watches.cycles[at].state {
                State::Fired { at: set_at, answered: Some(answered) } => {
                    self.event_missing(at, set_at, now.saturating_sub(answered));
                }
                // Of the request itself it is said elsewhere.
                State::Fired { answered: None, .. } | State::Free | State::Arming | State::Armed => {
                    self.watches.end(at);
                }
            }
        }
    }

    fn event_missing(&mut self, at: usize, set_at: Nanos, waited: Nanos) {
        self.watches.end(at);
        self.recorder.failure(Operation::Event, NO_EVENT, set_at);
        let words = format!(
            "{}: no event within {} of the answer to the set",
            self.watched_path(at),
            crate::units::show_nanos(waited)
        );
        if let Some(witness) = &mut self.witness {
            witness.findings.violation("a watch never fired", || words.clone());
        }
        self.recorder.note(words);
    }
}

/// The zxid of a getData reply's stat.
pub(super) fn data_mzxid(reply: &Reply<'_>) -> Option<Zxid> {
    super::answer::data_stat(reply).map(|stat| stat.mzxid)
}
