//! The load of mixes and rates: one per core.
//!
//! In open loop each request has a time at which it is meant to be sent, fixed before the run and independent of
//! replies. A request that cannot be sent then (the connections are full or gone) is sent as soon as it can; its
//! latency counts from the time it was meant for. There is no backlog in memory: the schedule just waits, also for a
//! server that takes no bytes ([`UNSENT_BYTES_LIMIT`]).

use crate::{
    clock::{MILLISECOND, Nanos, SECOND},
    engine::{Links, Load, Loss, Turn},
    gathering::Gathering,
    keys::Chooser,
    link::{InFlight, Link, Phase},
    mix::{Pace, Plan},
    operation::Operation,
    presence::Presence,
    record::{Measured, Recorder, Window},
    reply::Reply,
    stamp::{self, Expectation},
    verify::Witness,
};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};
use zkfast_wire::{Zxid, watch::WatcherEvent};

mod answer;
mod arrivals;
mod issue;
mod watching;

use arrivals::Schedule;
pub use issue::{put_created_path, put_ephemeral_directory, put_sequence_path, put_watched_path};
pub use watching::cycles_of;
use watching::{WATCHED_FROM, Watches};

/// How long sessions may take to be closed at the end.
const LEAVE_PATIENCE: Nanos = 5 * SECOND;

/// Bytes of requests, of all connections together, that may wait for room in the sockets.
const UNSENT_BYTES_LIMIT: usize = 128 << 20;
/// What each connection may keep at least.
const UNSENT_BYTES_EACH: usize = 64 << 10;
/// The name under which a closed loop counts what it cannot send.
const NO_CONNECTION: &str = "no connection";

/// What the cores of a run share.
#[derive(Debug)]
pub struct Shared {
    /// Cores of the run.
    pub cores: usize,
    /// Cores whose connections are all up.
    pub ready: AtomicUsize,
    /// When the run begins; `u64::MAX` until every core is ready.
    pub begin: AtomicU64,
    /// Ctrl-C, or a core that failed.
    pub stop: Arc<AtomicBool>,
    /// Why the run cannot be done.
    pub failure: Mutex<Option<String>>,
    /// Connections that are up.
    pub presence: Presence,
}

impl Shared {
    /// For a run on `cores` cores that `stop` ends.
    pub fn new(cores: usize, stop: Arc<AtomicBool>) -> Self {
        Self {
            cores,
            ready: AtomicUsize::new(0),
            begin: AtomicU64::new(Nanos::MAX),
            stop,
            failure: Mutex::new(None),
            presence: Presence::default(),
        }
    }

    /// Ends the run with a reason.
    pub fn fail(&self, why: String) {
        self.failure.lock().expect("nobody panics with it").get_or_insert(why);
        self.stop.store(true, Ordering::Relaxed);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Lengths of the parts of a run.
#[derive(Clone, Copy, Debug)]
pub struct Phases {
    /// Not counted.
    pub warmup: Nanos,
    /// Counted.
    pub duration: Nanos,
    /// How long the last replies may take.
    pub drain: Nanos,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Links come up.
    Connecting,
    /// The other cores come up.
    Waiting,
    /// Requests are sent.
    Running,
    /// No more requests; replies come in.
    Draining { until: Nanos },
    /// Sessions are closed.
    Leaving { until: Nanos },
}

/// What a link remembers between operations.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// Nodes created so far; also the number of the next one.
    created: u64,
    /// Nodes deleted so far; the oldest goes first.
    deleted: u64,
    /// Whether its ephemeral node exists.
    ephemeral: bool,
    /// Ephemeral nodes created so far; the number of the newest.
    ephemerals: u64,
    /// When the session churn on this link was meant to begin.
    session_intended: Nanos,
    /// When it did begin.
    session_began: Nanos,
    /// For whom (closed loop).
    session_owner: usize,
    /// In a closed loop: requests and watch cycles of the mix that were begun here and are not complete.
    own: usize,
    /// The same of sessions, which have links of their own.
    own_sessions: usize,
    /// Of `own`, watch cycles that wait for a node to watch.
    waiting_watches: usize,
}

/// Something to do on another link than the one that called back.
#[derive(Clone, Copy, Debug)]
enum Errand {
    /// Fill up the requests in flight of this link (closed loop).
    Refill(usize),
    /// A watch cycle of this link is over (closed loop).
    Completed(usize),
    /// Begin the sessions that wait for a connection (closed loop).
    BeginSessions,
    /// Set the node of this watch cycle.
    SetWatched(usize),
    /// Read the node of this watch cycle.
    ReadWatched(usize),
}

/// One core's share of the load.
#[derive(Debug)]
pub struct Traffic {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    phases: Phases,
    stage: Stage,
    /// Of keys and sizes.
    random: fastrand::Rng,
    /// Of what follows an answer, whose order the server decides.
    random_of_cycles: fastrand::Rng,
    chooser: Chooser,
    schedule: Schedule,
    core: usize,
    /// Links `..regular` carry requests, those behind are for session churn.
    regular: usize,
    tallies: Vec<Tally>,
    errands: Vec<Errand>,
    gathering: Gathering,
    /// Bytes that may wait for room in the socket of a connection before it gets no more requests.
    unsent_limit: usize,
    /// Whether the counted part has begun.
    counting: bool,
    in_flight: u64,
    cursor: usize,
    churn_cursor: usize,
    /// A due request could not be sent, so lateness is not ours.
    blocked: bool,
    value: Vec<u8>,
    /// Values written so far.
    written: u64,
    watches: Watches,
    /// Sessions of a closed loop that wait for a connection: for whom and since when. No more than are wanted at once.
    waiting_sessions: VecDeque<(usize, Nanos)>,
    recorder: Recorder,
    witness: Option<Box<Witness>>,
}

impl Traffic {
    /// The share of core `core`: its first `regular` links carry requests, the rest open and close sessions.
    pub fn new(
        plan: Arc<Plan>,
        shared: Arc<Shared>,
        phases: Phases,
        core: usize,
        regular: usize,
        links: usize,
        recorder: Recorder,
    ) -> Self {
        let mut random =
            fastrand::Rng::with_seed(plan.seed.wrapping_add((core as u64).wrapping_mul(0x9E37_79B9)));
        let cores = shared.cores;
        let value = stamp::template(plan.seed, core, plan.values.most);
        Self {
            chooser: Chooser::new(plan.keys.count, plan.popularity),
            witness: plan
                .verify
                .then(|| Box::new(Witness::of(Expectation::new(plan.seed, shared.cores, plan.values.most)))),
            shared,
            phases,
            stage: Stage::Connecting,
            random_of_cycles: random.fork(),
            random,
            schedule: Schedule::default(),
            core,
            regular,
            tallies: vec![Tally::default(); links],
            errands: Vec::new(),
            gathering: Gathering::default(),
            unsent_limit: (UNSENT_BYTES_LIMIT / (cores * regular).max(1)).max(UNSENT_BYTES_EACH),
            counting: false,
            in_flight: 0,
            cursor: 0,
            churn_cursor: 0,
            blocked: false,
            value,
            written: 0,
            watches: Watches::new(regular, cycles_of(&plan)),
            waiting_sessions: VecDeque::new(),
            recorder,
            plan,
        }
    }

    /// What was measured and, with `--verify`, what was seen.
    pub fn finish(self) -> (Measured, Option<Box<Witness>>) {
        (self.recorder.finish(), self.witness)
    }

    fn begin(&mut self, begin: Nanos) {
        let from = begin + self.phases.warmup;
        let window = Window { from, until: from + self.phases.duration };
        self.recorder.start(begin, window);
        self.shared.presence.begin(window);
        if let Pace::Open { streams, poisson, .. } = &self.plan.pace {
            let (core, cores) = (self.core, self.shared.cores);
            self.schedule = Schedule::new(streams, *poisson, begin, core, cores, self.plan.seed);
        }
    }

    fn until(&self) -> Nanos {
        self.recorder.window().until
    }

    fn connecting(&mut self, links: &mut Links, now: Nanos) -> Turn {
        links.connect_idle(..self.regular);
        if self.gathering.ready() == self.regular {
            self.stage = Stage::Waiting;
            if self.shared.ready.fetch_add(1, Ordering::AcqRel) + 1 == self.shared.cores {
                self.shared.begin.store(now + 5 * MILLISECOND, Ordering::Release);
            }
        } else if let Some(why) = self.gathering.hopeless(self.regular, now) {
            self.shared.fail(why);
        }
        Turn::Until(now + 10 * MILLISECOND)
    }

    /// Sends what the schedule has due; returns when the next request is.
    fn open_loop(&mut self, links: &mut Links, now: Nanos) -> Turn {
        let Pace::Open { in_flight_limit, .. } = self.plan.pace else { unreachable!("asked by pace") };
        let until = self.until();
        self.schedule.end_at(until);
        loop {
            let Some(due) = self.schedule.peek() else {
                self.stage = Stage::Draining { until: now + self.phases.drain };
                return Turn::Until(now);
            };
            if due.at > now {
                // Whatever had to wait for room has been sent.
                self.blocked = false;
                return Turn::Until(due.at);
            }
            if !self.dispatch(links, due.operation, due.at, now, in_flight_limit) {
                self.blocked = true;
                if now >= until.saturating_add(self.phases.drain) {
                    self.give_up(now);
                }
                return Turn::Until(now + MILLISECOND);
            }
            self.schedule.take();
            if !self.blocked {
                self.recorder.lag.saturating_record(now.saturating_sub(due.at).max(1));
            }
        }
    }

    /// The run is over and the connections take nothing: what was due and never sent has failed.
    fn give_up(&mut self, now: Nanos) {
        while let Some(due) = self.schedule.take() {
            self.recorder.failure(due.operation, "not sent in time", due.at);
        }
        self.stage = Stage::Draining { until: now };
    }

    /// Gives an operation to the next connection that has room.
    fn dispatch(
        &mut self,
        links: &mut Links,
        operation: Operation,
        intended: Nanos,
        now: Nanos,
        limit: usize,
    ) -> bool {
        if operation == Operation::Session {
            return self.begin_session(links, usize::MAX, intended, now);
        }
        for _ in 0..self.regular {
            let index = self.cursor;
            self.cursor = if index + 1 == self.regular { 0 } else { index + 1 };
            let link = &links.all[index];
            if !link.is_ready() || link.in_flight.len() >= limit || link.unsent() >= self.unsent_limit {
                continue;
            }
            if operation == Operation::Watch {
                let Some(place) = self.watches.free(index) else { continue };
                self.begin_watch(links.to_write(index), place, intended, now);
            } else {
                self.issue(links.to_write(index), operation, intended, now);
            }
            return true;
        }
        false
    }

    fn run_errands(&mut self, links: &mut Links, now: Nanos) {
        let mut later = Vec::new();
        while let Some(errand) = self.errands.pop() {
            match errand {
                Errand::Refill(index) => self.refill(links, index, now),
                Errand::Completed(index) => {
                    if links.all[index].is_ready() {
                        self.complete(links.to_write(index), now);
                    }
                }
                Errand::BeginSessions => self.begin_waiting_sessions(links, now),
                Errand::SetWatched(at) => {
                    if !self.set_watched(links, at, now) {
                        later.push(errand);
                    }
                }
                Errand::ReadWatched(at) => self.read_watched(links, at, now),
            }
        }
        self.errands = later;
    }

    /// Brings a link of a closed loop to its number of operations under way.
    fn refill(&mut self, links: &mut Links, index: usize, now: Nanos) {
        if matches!(self.plan.pace, Pace::Closed { .. }) && links.all[index].is_ready() {
            self.fill(links.to_write(index), now);
        }
    }

    /// The counted part of a closed loop begins: what the connections that are gone should have in flight has failed,
    /// or nobody would learn that they never came back.
    fn count_missing(&mut self, links: &Links) {
        let plan = self.plan.clone();
        let Pace::Closed { mix, in_flight } = &plan.pace else { return };
        let from = self.recorder.window().from;
        let gone = links.all[..self.regular].iter().filter(|link| !link.is_ready()).count();
        for _ in 0..gone * in_flight {
            self.recorder.failure(mix.next(&mut self.random), NO_CONNECTION, from);
        }
    }

    /// Counts what is still unanswered and closes the sessions.
    fn leave(&mut self, links: &mut Links, now: Nanos) {
        for index in 0..links.all.len() {
            let unanswered: Vec<InFlight> = links.all[index].in_flight.iter().copied().collect();
            for request in unanswered {
                if request.operation != Operation::Check {
                    let name = "not answered in time";
                    self.recorder.unanswered(request.operation, name, request.intended, now);
                }
                self.doubt(links.all[index].number, &request);
            }
            links.all[index].in_flight.clear();
        }
        self.leave_watches(now);
        links.close_all(now);
        self.stage = Stage::Leaving { until: now + LEAVE_PATIENCE };
    }
}

impl Load for Traffic {
    fn turn(&mut self, links: &mut Links, now: Nanos) -> Turn {
        match self.stage {
            Stage::Connecting | Stage::Waiting if self.shared.stopped() => {
                self.leave(links, now);
                Turn::Until(now)
            }
            Stage::Connecting => self.connecting(links, now),
            Stage::Waiting => {
                let begin = self.shared.begin.load(Ordering::Acquire);
                if begin == Nanos::MAX {
                    return Turn::Until(now + MILLISECOND);
                }
                if now >= begin {
                    self.begin(begin);
                    self.stage = Stage::Running;
                    if matches!(self.plan.pace, Pace::Closed { .. }) {
                        self.errands.extend((0..self.regular).map(Errand::Refill));
                    }
                    return self.turn(links, now);
                }
                Turn::Until(begin)
            }
            Stage::Running => {
                if !self.counting && now >= self.recorder.window().from {
                    self.counting = true;
                    self.count_missing(links);
                }
                self.run_errands(links, now);
                self.give_up_events(now);
                let in_flight = self.in_flight;
                self.recorder.tick(now, || in_flight);
                if self.shared.stopped() {
                    self.recorder.end_now(now);
                }
                let turn = match self.plan.pace {
                    Pace::Open { .. } => self.open_loop(links, now),
                    Pace::Closed { .. } => Turn::Until(self.until()),
                };
                if self.stage == Stage::Running
                    && now >= self.until()
                    && !matches!(self.plan.pace, Pace::Open { .. })
                {
                    self.stage = Stage::Draining { until: now + self.phases.drain };
                }
                match turn {
                    // Ctrl-C and the second's line are looked at often enough.
                    Turn::Until(at) => Turn::Until(at.min(now + 50 * MILLISECOND)),
                    other => other,
                }
            }
            Stage::Draining { until } => {
                self.run_errands(links, now);
                self.give_up_events(now);
                let in_flight = self.in_flight;
                self.recorder.tick(now, || in_flight);
                // An event that is awaited belongs to a set that was due.
                let is_over = self.in_flight == 0 && self.watches.awaited == 0 && self.errands.is_empty();
                if is_over || now >= until {
                    self.leave(links, now);
                    return Turn::Until(now);
                }
                Turn::Until(until.min(now + 10 * MILLISECOND))
            }
            Stage::Leaving { until } => {
                if links.are_closed() || now >= until {
                    Turn::Done
                } else {
                    Turn::Until(now + MILLISECOND)
                }
            }
        }
    }

    fn ready(&mut self, link: &mut Link, now: Nanos) {
        if link.index < self.regular {
            self.gathering.came(now);
            self.shared.presence.came(now);
            self.errands.push(Errand::Refill(link.index));
            if let Some(witness) = &mut self.witness {
                witness.session(link.session.id);
            }
        } else {
            self.session_ready(link, now);
        }
    }

    fn reply(&mut self, link: &mut Link, request: InFlight, reply: &Reply<'_>, now: Nanos) {
        if matches!(self.stage, Stage::Leaving { .. }) {
            if reply.code.is_ok() && link.in_flight.is_empty() {
                link.phase = Phase::Idle;
                if let Some(witness) = &mut self.witness {
                    witness.session_closed(link.session.id);
                }
            }
            return;
        }
        self.in_flight -= 1;
        self.answered(link, &request, reply, now);
    }

    fn event(&mut self, link: &mut Link, zxid: Zxid, event: &WatcherEvent<'_>, now: Nanos) {
        self.watched_event(link, zxid, event, now);
    }

    fn lost(&mut self, link: &mut Link, was_ready: bool, why: &Loss, now: Nanos) {
        if matches!(self.stage, Stage::Leaving { .. }) {
            link.phase = Phase::Idle;
            return;
        }
        let requests: Vec<InFlight> = link.in_flight.iter().copied().collect();
        for request in requests {
            self.in_flight -= 1;
            if request.operation != Operation::Check {
                self.recorder.unanswered(request.operation, why.name(), request.intended, now);
            }
            self.doubt(link.number, &request);
            if request.operation == Operation::Set && request.key >= WATCHED_FROM {
                self.watched_set_lost(&request);
            }
        }
        if let Loss::Protocol(what) = why {
            self.recorder.note(format!("Connection {} was given up: {what}.", link.number));
        }
        if link.index < self.regular {
            if was_ready {
                self.recorder.lost(why.name(), now);
                self.shared.presence.lost(now);
            }
            self.gathering.lost(was_ready, why);
            self.watches_lost(link.index, why);
            let tally = &mut self.tallies[link.index];
            (tally.own, tally.waiting_watches) = (0, 0);
            tally.ephemeral = false;
        } else {
            self.session_lost(link, why, now);
        }
    }
}
