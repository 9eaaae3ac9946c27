//! The pinned core: where `tree`, `zab` and the log meet.
//!
//! One owner, one turn at a time, and nothing here waits inside a turn:
//!
//! 1. A finished flush becomes the event Durable; what that commits is applied and sent to every client core
//!    ([`commit`]).
//! 2. The lanes are drained, a bounded number a turn: each write is prepared, ordered and laid into the log's window
//!    ([`submit`]).
//! 3. If no flush is in flight, one is started for all that lies in the window: group commit without a timer.
//! 4. With nothing to do the core sleeps until its bell rings, or looks for a moment if work is expected soon
//!    ([`Expectation`]).
//!
//! Always asserted: applied <= committed <= durable <= appended, and each zxid is the previous + 1 within an epoch.
//! An error of the log ends the process: nothing is acknowledged after it, and nothing is retried.

mod commit;
mod member;
mod reaper;
mod sessions;
mod snapshots;
mod submit;

use crate::{
    config::limits,
    cores::{
        clock::{self, Clock},
        expectation::{Expectation, LOOK_NS_MAX},
        lanes::{LaneReceiver, LaneSender, Sleeper},
        messages::{Asker, CommitBatch, Delivery, Step, Submission},
    },
    status::PipelineCounters,
    storage::{DataDirs, LogFailure, TxnLog, ring::IN_PLACE_BYTES_MAX},
};
use bytes::{Bytes, BytesMut};
use member::Member;
pub use member::MemberOptions;
pub use reaper::ReapPolicy;
use reaper::Reaper;
use sessions::SessionTable;
pub use snapshots::SnapshotPolicy;
use snapshots::Snapshots;
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering, fence},
    },
    time::Duration,
};
use zkfast_tree::{Tree, quota::Exceeded};
use zkfast_wire::{ErrorCode, ServerId, SessionId, Zxid};
use zkfast_zab::{Effect, Event, Node};

/// Longest sleep of the thread that the pipeline is on. It bounds how late a tick can be. Twenty wake-ups a second of an idle server are not to be seen in `top`.
pub const SLEEP_MAX: Duration = Duration::from_millis(50);

/// Sent batches whose memory waits for being used again. A core that lags by more than this many batches costs some
/// allocations.
const BATCHES_KEPT: usize = 16;

/// Waiting records of this many bytes are written before what has just become durable is applied. With fewer the disk
/// would be busy for nothing when the answers bring the next requests; and they would be written in place, which
/// would delay the answers.
const FLUSHED_AHEAD_BYTES: u64 = IN_PLACE_BYTES_MAX as u64;

/// Both lanes of one client core, seen from the pipeline.
#[derive(Debug)]
pub struct CoreLanes {
    /// What the core asks.
    pub submissions: LaneReceiver<Submission>,
    /// What it is told.
    pub deliveries: LaneSender<Delivery>,
}

/// What the pipeline needs to know of the configuration.
#[derive(Clone, Debug)]
pub struct PipelineOptions {
    /// Top byte of new session ids; 1 on a standalone server (S1).
    pub server_id: ServerId,
    /// Length of a tick, milliseconds: expiry works in whole ticks (S4).
    pub tick_ms: u32,
    /// `fsync.warningthresholdms`: a slower flush is logged and counted.
    pub flush_warning_ms: u32,
    /// Whether the thread may look for work for a moment before it sleeps: it has a CPU of its own.
    pub looks_out: bool,
    /// When containers and TTL nodes go.
    pub reaping: ReapPolicy,
    /// When to take snapshots.
    pub snapshots: SnapshotPolicy,
    /// Where snapshots go.
    pub dirs: DataDirs,
}

/// How the process learns that it must stop, and the pipeline's way to say that it cannot go on.
#[derive(Debug, Default)]
pub struct StopFlag {
    wanted: AtomicBool,
}

impl StopFlag {
    /// Asks the pipeline to finish what is in flight, tell the client cores and end.
    pub fn raise(&self) {
        self.wanted.store(true, Ordering::Release);
    }

    /// Whether the server should stop.
    pub fn is_raised(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }
}

/// What this server does with its clients' writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Duty {
    /// It orders them: it is alone, or the leader.
    Orders,
    /// It forwards them to the leader.
    Forwards,
    /// Nothing: a member without a role serves nobody.
    Idle,
}

/// A transaction that is in the log and not applied yet.
#[derive(Debug)]
struct Pending {
    zxid: Zxid,
    record: Bytes,
    asker: Option<Asker>,
}

/// An answer that must not leave before everything proposed ahead of it is applied: `sync` and `getEphemerals`.
#[derive(Debug)]
struct Barrier {
    behind: Zxid,
    kind: BarrierKind,
}

#[derive(Debug)]
enum BarrierKind {
    Sync { asker: Asker },
    Failed { asker: Asker, code: ErrorCode },
    Ephemerals { asker: Asker, session: SessionId, prefix: Box<str> },
    LocalClosed { asker: Asker, session: SessionId },
}

/// One client core and what did not fit into its lane.
#[derive(Debug)]
struct CorePort {
    lanes: CoreLanes,
    /// Deliveries for which the lane had no room. While any core has some, no submission is taken, so this holds at
    /// most what was already proposed.
    overflow: VecDeque<Delivery>,
    /// Whether this turn pushed something that the core must see at once.
    kick: bool,
    /// The core was told to close its connections and has not said that it has: what it asks is of a role that ended.
    awaits_quiet: bool,
}

/// The state of the pinned core.
pub struct Pipeline {
    options: PipelineOptions,
    clock: Clock,
    tree: Tree,
    node: Node,
    duty: Duty,
    /// What a member of an ensemble has beyond a standalone server.
    member: Option<Box<Member>>,
    log: TxnLog,
    cores: Vec<CorePort>,
    sessions: SessionTable,
    reaper: Reaper,
    snapshots: Snapshots,
    counters: Arc<PipelineCounters>,
    /// Proposed, not applied, oldest first.
    pending: VecDeque<Pending>,
    /// Records that the window had no room for, oldest first; while there are some, no submission is taken.
    unappended: VecDeque<(Zxid, Bytes)>,
    barriers: VecDeque<Barrier>,
    /// Batches that were sent, oldest first: their memory is used again when the cores are through with them.
    sent: VecDeque<Arc<CommitBatch>>,
    /// Steps of the batch that is being made.
    steps: Vec<Step>,
    /// What is being applied, in runs with the same time in their headers: that time and how many.
    applied_times: Vec<(i64, u64)>,
    effects: Vec<Effect>,
    /// Submissions taken from a lane and not yet looked at.
    group: Vec<Submission>,
    /// Where `prepare` writes a record, before it becomes part of `arena`.
    scratch: Vec<u8>,
    /// Records are cut from this, so that a record costs no allocation of its own.
    arena: BytesMut,
    /// Wall clock of this turn.
    wall_ms: i64,
    /// The server's clock at the start of this turn.
    now_ms: u64,
    /// Core with which the next drain starts, so that none is always last.
    first_core: usize,
    /// When the next tick is due, milliseconds of the server's clock.
    next_tick_ms: u64,
    expectation: Expectation,
}

/// What a turn of the pipeline found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Something was done; there may be more.
    Done,
    /// There was nothing to do.
    None,
    /// The server stops, and everything in flight is answered.
    Over,
}

impl Pipeline {
    /// A pipeline over a recovered tree and a log that goes on behind it.
    pub fn new(
        options: PipelineOptions,
        clock: Clock,
        tree: Tree,
        log: TxnLog,
        cores: Vec<CoreLanes>,
        counters: Arc<PipelineCounters>,
    ) -> Self {
        let last = tree.last_applied();
        let next_tick_ms = clock.now_ms() + u64::from(options.tick_ms);
        let mut sessions = SessionTable::new(&options, clock::machine_monotonic_ms());
        sessions.track_all(&tree, clock.now_ms());
        let snapshots =
            Snapshots::new(options.snapshots.clone(), options.dirs.clone(), last, Arc::clone(&counters));
        let wall_ms = clock::wall_ms();
        let reaper = Reaper::new(options.reaping, wall_ms);
        let cores = cores
            .into_iter()
            .map(|lanes| CorePort { lanes, overflow: VecDeque::new(), kick: false, awaits_quiet: false })
            .collect();
        let this = Self {
            options,
            clock,
            node: Node::alone(last),
            duty: Duty::Orders,
            member: None,
            tree,
            log,
            cores,
            sessions,
            reaper,
            snapshots,
            counters,
            pending: VecDeque::new(),
            unappended: VecDeque::new(),
            barriers: VecDeque::new(),
            sent: VecDeque::new(),
            steps: Vec::new(),
            applied_times: Vec::new(),
            effects: Vec::new(),
            group: Vec::new(),
            scratch: Vec::new(),
            arena: BytesMut::new(),
            wall_ms,
            now_ms: clock.now_ms(),
            first_core: 0,
            next_tick_ms,
            expectation: Expectation::default(),
        };
        // Who asks before the first tick is told of the tree, too.
        this.publish();
        this
    }

    /// Runs on a thread of its own until `stop` is raised and everything in flight is answered.
    ///
    /// # Errors
    /// If the log failed: the process must end, for nothing may be acknowledged any more.
    pub fn run_on_thread(mut self, sleeper: &Sleeper, stop: &StopFlag) -> Result<(), LogFailure> {
        loop {
            match self.work(stop)? {
                Work::Done => {}
                Work::None => self.wait(sleeper, stop),
                Work::Over => break,
            }
        }
        while !self.tell_to_stop() {
            // A core whose lane is full is working it off.
            std::thread::yield_now();
        }
        self.finish()
    }

    /// Waits for the bell, after a look for work if that is expected soon.
    fn wait(&mut self, sleeper: &Sleeper, stop: &StopFlag) {
        let begun_ns = self.clock.now_ns();
        // A flush that a helper writes rings when it is over; who looks would not hear it.
        if self.options.looks_out && self.expectation.is_soon() && !self.log.is_in_flight() {
            while self.may_sleep(stop) {
                if self.clock.now_ns() - begun_ns >= LOOK_NS_MAX {
                    self.expectation.looked_in_vain();
                    break;
                }
                // Whoever else wants this CPU, a client on a small machine perhaps, has it now.
                std::thread::yield_now();
            }
            if !self.may_sleep(stop) {
                return;
            }
        }
        sleeper.sleep(SLEEP_MAX, || self.may_sleep(stop));
        self.expectation.slept(self.clock.now_ns() - begun_ns);
    }

    /// One turn. A thread that also runs a client core (`--cores 1`) takes turns itself, then calls
    /// [`Self::tell_to_stop`] and [`Self::finish`].
    ///
    /// # Errors
    /// As [`Pipeline::run_on_thread`].
    pub fn work(&mut self, stop: &StopFlag) -> Result<Work, LogFailure> {
        let now_ms = self.clock.now_ms();
        if now_ms >= self.next_tick_ms {
            self.tick();
            self.next_tick_ms = now_ms + u64::from(self.options.tick_ms);
        }
        if self.turn(!stop.is_raised())? {
            return Ok(Work::Done);
        }
        if stop.is_raised() && self.is_drained() {
            return Ok(Work::Over);
        }
        self.log.arm_wake()?;
        Ok(Work::None)
    }

    /// Whether there is nothing to do until the bell rings or the next tick: the last look before sleeping.
    pub fn may_sleep(&self, stop: &StopFlag) -> bool {
        self.is_idle() && !stop.is_raised()
    }

    /// After the last answer: the log is closed, and a snapshot spares the next start the replay.
    ///
    /// # Errors
    /// As [`Pipeline::run_on_thread`].
    pub fn finish(mut self) -> Result<(), LogFailure> {
        self.log.settle()?;
        self.snapshots.take_last(&mut self.tree);
        self.log.close()
    }

    fn look_at_clocks(&mut self) {
        self.wall_ms = clock::wall_ms();
        self.now_ms = self.clock.now_ms();
    }

    /// One turn; whether anything was done.
    fn turn(&mut self, take_submissions: bool) -> Result<bool, LogFailure> {
        self.look_at_clocks();
        let mut busy = self.finish_flush()?;
        busy |= self.push_overflow();
        if take_submissions && !self.is_backed_up() {
            busy |= self.expire_sessions();
            busy |= self.reap();
            busy |= self.drain_submissions();
        }
        self.append_rest();
        self.log.flush()?;
        // A log that writes in place has finished by now; one with a ring costs a look at its memory here.
        busy |= self.finish_flush()?;
        self.send_batch();
        Ok(busy)
    }

    /// Turns a completed flush into commits, if one has completed.
    fn finish_flush(&mut self) -> Result<bool, LogFailure> {
        let Some(flushed) = self.log.poll()? else { return Ok(false) };
        let elapsed_ms = flushed.elapsed_ns / 1_000_000;
        self.counters.flush_latency.record(flushed.elapsed_ns);
        self.counters.flush_records.record(flushed.records);
        if elapsed_ms >= u64::from(self.options.flush_warning_ms) {
            self.counters.flushes_slow.increment();
            log::warn!(
                "fsync-ing the write ahead log took {elapsed_ms} ms for {} records, {} bytes, which will adversely \
                 effect operation latency: the disk of dataLogDir is slow or shared",
                flushed.records,
                flushed.bytes
            );
        }
        // A long batch that waits goes to the disk before this one is applied: the two then go on side by side.
        if self.log.pending_bytes() >= FLUSHED_AHEAD_BYTES {
            self.log.flush()?;
        }
        self.note_durable(flushed.through);
        let epoch = self.node.epoch();
        self.step(Event::Durable { epoch, zxid: flushed.through });
        self.send_batch();
        Ok(true)
    }

    /// Feeds one event to the order and does what it says.
    fn step(&mut self, event: Event) {
        if self.member.is_some() {
            return self.step_member(event);
        }
        let mut effects = std::mem::take(&mut self.effects);
        self.node.step(self.now_ms, event, &mut effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Append { zxid, record } => self.append(zxid, record),
                Effect::Commit { through } => self.commit(through),
                other => unreachable!("a standalone server was told to {other:?}"),
            }
        }
        self.effects = effects;
    }

    /// Lays a record into the window, or keeps it until there is room.
    fn append(&mut self, zxid: Zxid, record: Bytes) {
        if self.unappended.is_empty() && self.log.room(record.len()) {
            self.log.append(zxid, &record);
        } else {
            self.unappended.push_back((zxid, record));
        }
    }

    fn append_rest(&mut self) {
        while let Some((zxid, record)) = self.unappended.front() {
            if !self.log.room(record.len()) {
                return;
            }
            self.log.append(*zxid, record);
            self.unappended.pop_front();
        }
    }

    /// Whether taking more work would only lengthen queues.
    fn is_backed_up(&self) -> bool {
        let orders = self.duty == Duty::Orders;
        !self.unappended.is_empty()
            || self.is_suspended()
            || orders && self.node.next_zxid().is_none() && !self.pending.is_empty()
            || orders && self.pending.len() >= limits::PENDING_TRANSACTIONS
            || self.duty == Duty::Forwards && self.is_forwarding_full()
            || self.cores.iter().any(|core| !core.overflow.is_empty())
    }

    /// Whether the lanes ask for nothing: the last look before sleeping. A finished flush needs no look, for the kernel
    /// sends the byte that wakes, however early it ends.
    fn is_idle(&self) -> bool {
        let backed_up = self.is_backed_up();
        (backed_up || !self.has_held())
            && self.cores.iter().all(|core| {
                (backed_up || core.lanes.submissions.is_empty())
                    && (core.overflow.is_empty() || core.lanes.deliveries.room() == 0)
            })
    }

    /// Whether everything proposed has been answered.
    fn is_drained(&self) -> bool {
        self.pending.is_empty()
            && self.barriers.is_empty()
            && self.cores.iter().all(|core| core.overflow.is_empty())
    }

    /// Gives every core what this turn made, then wakes those whom it concerns.
    fn send_batch(&mut self) {
        self.push_batch();
        self.answer_barriers();
        for core in &mut self.cores {
            if std::mem::take(&mut core.kick) {
                core.lanes.deliveries.ring();
            }
        }
    }

    /// Pushes the steps made so far to every core as one batch, and notes whom it concerns.
    fn push_batch(&mut self) {
        if self.steps.is_empty() {
            return;
        }
        let batch = Arc::new(CommitBatch { steps: std::mem::take(&mut self.steps) });
        self.steps = self.recycled_steps();
        self.sent.push_back(Arc::clone(&batch));
        for core in &mut self.cores {
            core.push(Delivery::Batch(Arc::clone(&batch)));
        }
        // Push to every lane, fence, read the masks, ring: a core that set its mask too late to be rung finds the batch
        // in its lane before it reads.
        fence(Ordering::SeqCst);
        let bit = |index: usize| 1_u64 << index.min(63);
        let kicked = self.cores.iter().enumerate().filter(|(_, core)| core.kick);
        let kicked = kicked.fold(0, |kicked, (index, _)| kicked | bit(index));
        let changes = batch.steps.iter().flat_map(|step| &step.changes);
        let interested = self.tree.interested_cores(changes, kicked);
        for (index, core) in self.cores.iter_mut().enumerate() {
            core.kick |= interested & bit(index) != 0 || core.lanes.deliveries.is_quarter_full();
        }
    }

    /// Memory of a batch that every core is through with. To make a new one for each batch, freed by another core, had
    /// the pipeline fault in fresh pages all the time: a seventh of its time under load.
    fn recycled_steps(&mut self) -> Vec<Step> {
        while self.sent.len() > BATCHES_KEPT {
            self.sent.pop_front();
        }
        match self.sent.front_mut().map(Arc::get_mut) {
            Some(Some(batch)) => {
                let mut steps = std::mem::take(&mut batch.steps);
                self.sent.pop_front();
                steps.clear();
                steps
            }
            _ => Vec::new(),
        }
    }

    /// Moves what did not fit into the lanes when there is room again.
    fn push_overflow(&mut self) -> bool {
        let mut moved = false;
        for core in &mut self.cores {
            while let Some(delivery) = core.overflow.pop_front() {
                if let Err(delivery) = core.lanes.deliveries.push(delivery) {
                    core.overflow.push_front(delivery);
                    break;
                }
                core.kick = true;
                moved = true;
            }
        }
        moved
    }

    /// Once a tick: time is told to the order, and sessions that ran out are closed.
    fn tick(&mut self) {
        self.look_at_clocks();
        self.step(Event::Tick);
        self.drain_touches();
        self.look_for_expired();
        self.is_short_of_space();
        self.publish();
        if self.duty != Duty::Idle && self.snapshots.is_due_again() {
            self.log.roll();
            self.snapshots.take(&mut self.tree);
        }
        self.tell_of_quota();
        // Client cores that nothing concerned learn of the latest view now: it frees old versions.
        for core in &mut self.cores {
            core.lanes.deliveries.ring();
        }
    }

    /// Whether the disk has no room for the next segment of the log, so that writes are refused while the segment in
    /// use still takes what is under way (row R15).
    fn is_short_of_space(&mut self) -> bool {
        let is_low = self.log.space_is_low();
        self.tell_of_space(is_low);
        is_low
    }

    /// Says so when the log's disk has become full, or is so no more.
    fn tell_of_space(&mut self, is_low: bool) {
        if is_low != (self.counters.log_space_low.get() != 0) {
            self.counters.log_space_low.set(u64::from(is_low));
            let directory = self.options.dirs.logs.display();
            if is_low && self.duty == Duty::Forwards {
                log::warn!(
                    "the disk of {directory} is full: this server follows, and ends when what its leader orders does not \
                     fit any more. Free space there; zkCleanup.sh and autopurge.purgeInterval remove old snapshots and \
                     logs."
                );
            } else if is_low {
                log::warn!(
                    "the disk of {directory} is full: writes and new sessions are refused until there is room for \
                     the next segment of the log, reads go on. Free space there; zkCleanup.sh and \
                     autopurge.purgeInterval remove old snapshots and logs."
                );
            } else {
                log::warn!("there is room in {directory} again: writes are taken");
            }
        }
    }

    /// T42: the last limit that was exceeded, at most one line a tick.
    fn tell_of_quota(&mut self) {
        if let Some(exceeded) = self.tree.take_quota_exceeded() {
            let Exceeded { path, what, wanted, limit, is_hard } = exceeded;
            let kind = if is_hard { "hard" } else { "soft" };
            log::warn!("Quota exceeded: {path} [current {what}={wanted}, {kind} limit={limit}]");
        }
    }

    /// Shows the numbers of the tree to whoever asks.
    fn publish(&self) {
        self.counters.last_applied.set(self.tree.last_applied().0.cast_unsigned());
        self.counters.znodes.set(self.tree.node_count() as u64);
        self.counters.ephemerals.set(self.tree.ephemerals_count() as u64);
        self.counters.data_bytes.set(self.tree.approximate_data_size());
        self.counters.sessions.set(self.tree.sessions().len() as u64);
        let (mismatches, last) = self.tree.digest_mismatches();
        if mismatches != self.counters.digest_mismatches.get() {
            self.tell_of_mismatch(mismatches, last);
        }
    }

    /// P34: the server goes on, as Apache's does, but its operator must know. The first is told of at once, the others
    /// with each power of two.
    #[cold]
    fn tell_of_mismatch(&self, mismatches: u64, last: Option<Zxid>) {
        let told = self.counters.digest_mismatches.get();
        self.counters.digest_mismatches.add(mismatches.wrapping_sub(told));
        if told.checked_ilog2() != mismatches.checked_ilog2() {
            log::error!(
                "Digests are not matching. Value is Zxid. {}: {mismatches} so far; this server's tree differs from the \
                 one of whoever wrote these transactions",
                last.unwrap_or(Zxid::ZERO)
            );
        }
    }

    /// Tells the client cores to end; whether all of them have been told.
    pub fn tell_to_stop(&mut self) -> bool {
        self.cores.retain_mut(|core| {
            let told = core.lanes.deliveries.push(Delivery::Stop).is_ok();
            core.lanes.deliveries.ring();
            !told
        });
        self.cores.is_empty()
    }
}

impl CorePort {
    /// Adds a delivery behind all earlier ones.
    fn push(&mut self, delivery: Delivery) {
        if !self.overflow.is_empty() {
            self.overflow.push_back(delivery);
        } else if let Err(delivery) = self.lanes.deliveries.push(delivery) {
            self.overflow.push_back(delivery);
        }
    }

    /// Adds a delivery that somebody waits for.
    fn push_and_kick(&mut self, delivery: Delivery) {
        self.push(delivery);
        self.kick = true;
    }
}
