//! Many sessions watch one node; one of them changes it; each reads it again, which leaves the next watch: as soon as it
//! is told, as clients do, or when all have been told, which shows the events alone.
//!
//! Measured per round: from the set to each event, to the last event, and to the last session that holds the new data.

use crate::{
    clock::{MILLISECOND, Nanos, SECOND},
    engine::{Links, Load, Loss, Turn},
    gathering::Gathering,
    link::{Ask, InFlight, Link, Phase},
    missing::{EVENT_PATIENCE, MissingEvents},
    operation::{Mode, Operation, put_create, put_delete, put_read, put_set},
    record::histogram,
    reply::Reply,
};
use hdrhistogram::Histogram;
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use zkfast_wire::{OpCode, Zxid, watch::WatcherEvent};

/// How long connecting, one round, or leaving may take.
const PATIENCE: Nanos = 120 * SECOND;

/// Reads sent before the sockets are looked at again: an event counts from its arrival, and while a thousand reads are
/// sent, at 5 to 10 us each, the next thousand events would wait for the generator.
const READS_PER_TURN: usize = 64;

/// While more events than this are awaited the sockets are looked at after pauses. A generator that sleeps is woken by
/// the server's `send`; one that is faster than the server would be woken for each event, and the wake-ups be measured.
const EVENTS_GATHERED: usize = 512;
/// The pause: what it adds to a round is a small part of what so many events take.
const GATHERING: Nanos = MILLISECOND / 5;

/// Rounds before the first that is measured. Linux acknowledges each of the first 16 packets that a new connection
/// receives by itself (TCP_MAX_QUICKACKS), two a round, which makes an event a third dearer; sessions are older than that.
const WARMUP_ROUNDS: usize = 10;

/// When it is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// After so many measured changes.
    Rounds(usize),
    /// With the first round that ends this long after the first measured change.
    Time(Nanos),
}

/// What is watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watched {
    /// The data of the node; it is set.
    Data,
    /// Its children; an ephemeral one comes and goes.
    Children,
}

/// When a session that was told reads again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rereads {
    /// As soon as it is told: reads and answers compete with the events that are still to come.
    AtOnce,
    /// When all have been told.
    BehindLastEvent,
}

/// One round's times from the send of the set, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// Until the last event arrived.
    pub last_event: Nanos,
    /// Until the last session had read the new data.
    pub last_data: Nanos,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Connecting,
    /// Sessions read the node and leave their watches.
    Arming,
    /// The change is sent; events and reads come in.
    Waiting {
        set_at: Nanos,
        /// When its answer came.
        answered: Option<Nanos>,
    },
    Leaving,
}

/// The fan-out of one node to every link.
pub struct FanOut {
    path: String,
    watched: Watched,
    rereads: Rereads,
    value: Vec<u8>,
    extent: Extent,
    /// Of those that are measured.
    first_change: Option<Nanos>,
    /// With the warm-up.
    rounds_done: usize,
    /// No event of this round was given up.
    round_is_whole: bool,
    stage: Stage,
    gathering: Gathering,
    /// By link: its event of this round has not come.
    awaited: Vec<bool>,
    /// How many of them.
    events_awaited: usize,
    /// Reads to be sent, and sent and not answered.
    reads_pending: usize,
    last_event: Nanos,
    deadline: Nanos,
    to_arm: VecDeque<usize>,
    on_connected: Option<Box<dyn FnOnce() + Send>>,
    stop: Arc<AtomicBool>,
    /// From the set to each event, without the warm-up.
    pub event_times: Histogram<u64>,
    /// One entry a round, without the warm-up.
    pub rounds: Vec<Round>,
    /// Events that never came; their sessions have read again without them.
    pub missing: MissingEvents,
    /// Why it ended early.
    pub failure: Option<String>,
}

impl FanOut {
    /// Changes of `path` as far as `extent` goes, or fewer if `stop` is set; `on_connected` is called when all sessions are up and before
    /// the first watch.
    pub fn new(
        path: String,
        watched: Watched,
        rereads: Rereads,
        value_bytes: usize,
        extent: Extent,
        on_connected: Box<dyn FnOnce() + Send>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Self {
            watched,
            rereads,
            path,
            value: vec![b'.'; value_bytes],
            extent,
            first_change: None,
            rounds_done: 0,
            round_is_whole: true,
            stage: Stage::Connecting,
            gathering: Gathering::default(),
            awaited: Vec::new(),
            events_awaited: 0,
            reads_pending: 0,
            last_event: 0,
            deadline: PATIENCE,
            to_arm: VecDeque::new(),
            on_connected: Some(on_connected),
            stop,
            event_times: histogram(),
            rounds: Vec::new(),
            missing: MissingEvents::default(),
            failure: None,
        }
    }

    fn arm(&self, link: &mut Link, now: Nanos) {
        let op = match self.watched {
            Watched::Data => OpCode::GetData,
            Watched::Children => OpCode::GetChildren2,
        };
        let ask = Ask { op, operation: Operation::Watch, key: 0, note: 0, intended: now };
        link.request(now, ask, |out| put_read(out, |out| out.extend_from_slice(self.path.as_bytes()), true));
    }

    fn change(&mut self, link: &mut Link, now: Nanos) {
        let comes = self.rounds_done.is_multiple_of(2);
        let ask = |op| Ask { op, operation: Operation::Set, key: 0, note: 0, intended: now };
        let path = &self.path;
        let child = |out: &mut Vec<u8>| {
            out.extend_from_slice(path.as_bytes());
            out.extend_from_slice(b"/instance");
        };
        match self.watched {
            Watched::Data => link.request(now, ask(OpCode::SetData), |out| {
                put_set(out, |out| out.extend_from_slice(path.as_bytes()), &self.value);
            }),
            Watched::Children if comes => link.request(now, ask(OpCode::Create), |out| {
                put_create(out, child, &self.value, Mode::Ephemeral);
            }),
            Watched::Children => link.request(now, ask(OpCode::Delete), |out| put_delete(out, child)),
        }
        self.stage = Stage::Waiting { set_at: now, answered: None };
        if !self.is_warming_up() {
            self.first_change.get_or_insert(now);
        }
        self.awaited.fill(true);
        self.events_awaited = self.awaited.len();
    }

    /// Whether the round under way is not measured.
    fn is_warming_up(&self) -> bool {
        self.rounds_done < WARMUP_ROUNDS
    }

    /// Whether the round that is over was the last.
    fn was_last(&self, now: Nanos) -> bool {
        match self.extent {
            Extent::Rounds(rounds) => self.rounds_done >= WARMUP_ROUNDS + rounds,
            Extent::Time(time) => now.saturating_sub(self.first_change.unwrap_or(now)) >= time,
        }
    }

    /// The sessions whose events have not come read again without them.
    fn give_up_events(&mut self, links: &Links) {
        for (index, awaited) in self.awaited.iter_mut().enumerate() {
            if std::mem::take(awaited) {
                self.missing.note(links.all[index].session.id, &self.path);
                self.to_arm.push_back(index);
                self.reads_pending += 1;
            }
        }
        self.events_awaited = 0;
    }

    fn leave(&mut self, links: &mut Links, now: Nanos) -> Turn {
        self.stage = Stage::Leaving;
        self.deadline = now + 10 * SECOND;
        links.close_all(now);
        Turn::Until(now)
    }
}

impl Load for FanOut {
    fn turn(&mut self, links: &mut Links, now: Nanos) -> Turn {
        let all = links.all.len();
        if now > self.deadline && self.stage != Stage::Leaving {
            self.failure.get_or_insert_with(|| {
                format!(
                    "gave up: {} of {all} connected, {} reads not answered, {} events awaited",
                    self.gathering.ready(),
                    self.reads_pending,
                    self.events_awaited
                )
            });
        }
        let is_over = self.failure.is_some() || self.stop.load(Ordering::Relaxed);
        if is_over && self.stage != Stage::Leaving {
            return self.leave(links, now);
        }
        match self.stage {
            Stage::Connecting => {
                links.connect_idle(..all);
                if let Some(why) = self.gathering.hopeless(all, now) {
                    self.failure.get_or_insert(why);
                } else if self.gathering.ready() == all {
                    if let Some(on_connected) = self.on_connected.take() {
                        on_connected();
                    }
                    (self.awaited, self.reads_pending) = (vec![false; all], all);
                    for index in 0..all {
                        self.arm(links.to_write(index), now);
                    }
                    self.stage = Stage::Arming;
                    self.deadline = now + PATIENCE;
                }
            }
            Stage::Arming if self.reads_pending == 0 => {
                self.deadline = now + PATIENCE;
                self.change(links.to_write(0), now);
            }
            Stage::Arming => {}
            Stage::Waiting { set_at, answered } => {
                let may_read = self.rereads == Rereads::AtOnce || self.events_awaited == 0;
                for _ in 0..if may_read { READS_PER_TURN } else { 0 } {
                    let Some(index) = self.to_arm.pop_front() else { break };
                    self.arm(links.to_write(index), now);
                }
                if may_read && !self.to_arm.is_empty() {
                    return Turn::Until(now);
                }
                if self.events_awaited > 0
                    && answered.is_some_and(|answered| now.saturating_sub(answered) > EVENT_PATIENCE)
                {
                    self.give_up_events(links);
                    self.round_is_whole = false;
                    return Turn::Until(now);
                }
                if self.events_awaited == 0 && self.reads_pending == 0 {
                    // What a round without all its events took is no time of the server's.
                    if std::mem::replace(&mut self.round_is_whole, true) && !self.is_warming_up() {
                        self.rounds.push(Round { last_event: self.last_event, last_data: now - set_at });
                    }
                    self.rounds_done += 1;
                    if self.was_last(now) {
                        return self.leave(links, now);
                    }
                    self.deadline = now + PATIENCE;
                    self.change(links.to_write(0), now);
                } else if self.events_awaited > EVENTS_GATHERED {
                    return Turn::Gather(now + GATHERING);
                }
            }
            Stage::Leaving => {
                if now > self.deadline || links.are_closed() {
                    return Turn::Done;
                }
            }
        }
        Turn::Until(now + 10 * MILLISECOND)
    }

    fn ready(&mut self, _link: &mut Link, now: Nanos) {
        self.gathering.came(now);
    }

    fn reply(&mut self, link: &mut Link, request: InFlight, reply: &Reply<'_>, now: Nanos) {
        match request.operation {
            Operation::Session => link.phase = Phase::Idle,
            _ if !reply.code.is_ok() => {
                self.failure.get_or_insert(format!(
                    "{} was refused: {}",
                    request.operation.name(),
                    reply.code
                ));
            }
            Operation::Watch => self.reads_pending = self.reads_pending.saturating_sub(1),
            Operation::Set => {
                if let Stage::Waiting { answered, .. } = &mut self.stage {
                    *answered = Some(now);
                }
            }
            _ => {}
        }
    }

    fn event(&mut self, link: &mut Link, _zxid: Zxid, _event: &WatcherEvent<'_>, now: Nanos) {
        if let Stage::Waiting { set_at, .. } = self.stage {
            // One that was given up and comes late has used up a watch all the same.
            self.to_arm.push_back(link.index);
            self.reads_pending += 1;
            if std::mem::take(&mut self.awaited[link.index]) {
                self.events_awaited -= 1;
                self.last_event = now - set_at;
                if !self.is_warming_up() {
                    self.event_times.saturating_record((now - set_at).max(1));
                }
            }
        }
    }

    fn lost(&mut self, link: &mut Link, was_ready: bool, why: &Loss, _now: Nanos) {
        if self.stage == Stage::Leaving {
            link.phase = Phase::Idle;
            return;
        }
        self.gathering.lost(was_ready, why);
        if was_ready {
            self.failure.get_or_insert(format!("a session was lost: {}", why.told()));
        }
    }
}
