//! The pipeline as a member of an ensemble: the driver of [`Node::step`], with the log, the tree, the client cores and
//! the links to the other servers.
//!
//! A turn, on the pinned thread:
//! 1. A finished flush becomes Durable; what the other servers said becomes events; each event's effects are carried
//!    out before the next event ([`effects`]).
//! 2. Requests of learners, then of the own clients, are ordered (leader) or forwarded (learner).
//! 3. The packets of the turn are written to the sockets, then the records of the turn to the log: network and disk run
//!    side by side.
//! 4. The flush is over: acknowledgements and commits leave, the client cores hear of what was applied.
//!
//! The disk operations of a change of role (cutting the log, taking an image over, the epoch files) are done here and
//! now, and waited for: nobody is served meanwhile, and no other event may come between. Only an image is read on a
//! thread of its own, and what a learner is sent from files.
//!
//! Rooms: [`effects`] one arm for each effect; [`install`] cuts and images; [`history`] what learners are sent;
//! [`learner`] and [`leader`] requests of clients in either role; [`local`] sessions that only this server knows;
//! [`read_only`] reads without a leader; [`desk`] who waits for what; [`service`] when clients
//! are served; [`suspension`] clients kept over the end of an epoch;
//! [`window`] records at hand; [`depth`] how much there is to send, [`pace`] how fast; [`sources`] bytes for learners; [`upkeep`] a leader whose disk
//! takes nothing; [`standing`] what status commands tell; [`latency`] how long things take.

mod depth;
mod desk;
mod effects;
#[cfg(test)]
pub(super) mod fixture;
mod history;
mod install;
mod latency;
mod leader;
mod learner;
mod local;
mod pace;
mod read_only;
mod service;
mod sources;
mod standing;
mod suspension;
mod upkeep;
mod window;

use super::{CoreLanes, Duty, Pipeline, PipelineOptions, SLEEP_MAX, StopFlag};
use crate::{
    config::limits,
    cores::{
        clock::Clock,
        lanes::{BellEnd, Doorbell},
        placement::Everywhere,
    },
    links::{LinkError, Links},
    status::{Board, PipelineCounters},
    storage::{LogConfig, LogFailure, TxnLog, purge::PurgeMark, recovery::RecoveryOptions},
};
use depth::LogDepth;
use desk::{LeaderDesk, LearnerDesk, Unanswered};
use install::Installing;
use latency::Latency;
pub(super) use latency::note_since;
use local::LocalSessions;
use pace::Appended;
use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};
use suspension::Suspension;
use window::Window;
use zkfast_tree::{Tree, TreeConfig};
use zkfast_wire::{Packet, Txn, Zxid};
use zkfast_zab::{Config, Effect, Event, Node, Recovered, Role, quorum::QuorumError};

/// How long a server that stops waits for what is in flight. Without a quorum it would wait for ever.
const STOP_PATIENCE_MS: u64 = 1000;

/// Between two writes of the log of a learner that catches up, unless [`CATCH_UP_FLUSH_BYTES`] wait.
const CATCH_UP_FLUSH_MS: u64 = 3;

/// So many are written at once.
const CATCH_UP_FLUSH_BYTES: u64 = 256 << 10;

/// What a member needs beyond a standalone server's pipeline.
#[derive(Debug)]
pub struct MemberOptions {
    /// The protocol's settings.
    pub config: Config,
    /// What recovery found.
    pub recovered: Recovered,
    /// As the log was opened: it is opened again after a cut.
    pub log: LogConfig,
    /// For trees that take the place of the first one.
    pub tree: TreeConfig,
    /// For a tree that is rebuilt from the disk.
    pub recovery: RecoveryOptions,
    /// `leaderServes` (Q79).
    pub leader_serves: bool,
    /// `localSessionsEnabled`, and whether they may become global: `localSessionsUpgradingEnabled` (S15).
    pub local_sessions: Option<bool>,
    /// `readonlymode.enabled` (S16).
    pub read_only: bool,
    /// `snapshotSizeFactor` (Q49).
    pub snapshot_size_factor: f64,
    /// The log files at the start, oldest first: the zxid before the first record of each, and its bytes.
    pub log_files: Vec<(Zxid, u64)>,
    /// How far the log was purged.
    pub purged: Arc<PurgeMark>,
    /// Where the role is shown.
    pub board: Arc<Board>,
}

/// The state of a member.
pub(super) struct Member {
    options: MemberOptions,
    links: Links,
    doorbell: Doorbell,
    /// Where threads beside the pinned one may run.
    everywhere: Everywhere,
    /// What the node asked for when it was made; carried out when the thread runs.
    first_effects: Vec<Effect>,
    /// Events that effects led to: they come before any other.
    follow_up: VecDeque<Event>,
    received: Vec<Event>,
    /// When the clock was last looked at for an event, milliseconds of the server's clock, and for how many it may stand yet.
    looked_at_clock: (u64, u32),
    /// The links have just been waited for: there is no need to look at them again.
    has_looked: bool,
    /// What is committed and waits to be applied until the events at hand are delivered, or one needs the tree.
    committed: Option<Zxid>,
    window: Window,
    depth: LogDepth,
    appended: Appended,
    /// What the node was told last of where records are cheaper than an image.
    cheap_from: Zxid,
    /// Sessions that this server alone knows, where they are enabled.
    local: Option<LocalSessions>,
    /// Without a leader since then, milliseconds of the server's clock.
    looking_since_ms: Option<u64>,
    /// Clients are served that only read.
    is_read_only: bool,
    learner: LearnerDesk,
    leader: LeaderDesk,
    /// Clients keep their connections until the next role stands.
    suspension: Option<Suspension>,
    /// What clients of this server, now the leader, asked of the last one and nobody ordered.
    held: VecDeque<Unanswered>,
    installing: Option<Installing>,
    images: (Sender<install::Image>, Receiver<install::Image>),
    /// The last state that the client cores were told of while nobody was served.
    viewed: Zxid,
    purged: Zxid,
    /// Proposals before which a leader left out zxids (row Q50).
    gaps: u64,
    node_tick_ms: u64,
    /// The last write of the log, milliseconds of the server's clock.
    flushed_ms: u64,
    /// When what waits for the next one must be written.
    flush_at_ms: u64,
    standing: standing::Standing,
    latency: Latency,
    disk: upkeep::DiskWatch,
}

/// Ends the process: going on could acknowledge what is not there (house rule 16). The log of the start after it tells
/// what was found.
fn end_process(what: &str, why: impl fmt::Display) -> ! {
    log::error!(
        "{what}: {why}. The server stops now, so that it does not stand for a history that it may not have."
    );
    log::logger().flush();
    std::process::exit(1);
}

/// Ends the process, which cannot have a port of its ensemble: nothing is wrong with its history.
fn end_without_links(error: &LinkError) -> ! {
    log::error!("{error}. {}", error.cure());
    log::logger().flush();
    std::process::exit(error.exit_code().into());
}

/// The value, or the end of the process.
fn or_end<T, E: fmt::Display>(what: &str, outcome: Result<T, E>) -> T {
    outcome.unwrap_or_else(|error| end_process(what, error))
}

/// Whether the next event says what this one says and more: an acknowledgement covers all before it, and Apache's
/// protocol has one for each transaction. (That of NEWLEADER, which has counter 0, is one of its own.)
fn is_said_again(event: &Event, next: &Event) -> bool {
    match (event, next) {
        (
            Event::Packet { link, packet: Packet::Ack { zxid } },
            Event::Packet { link: next_link, packet: Packet::Ack { zxid: next } },
        ) => link == next_link && zxid.counter() != 0 && zxid.next() == Some(*next),
        _ => false,
    }
}

impl Pipeline {
    /// The pipeline of a member of an ensemble, to be run with [`Pipeline::run_member`]. `links` sleeps on `bell`'s end;
    /// the log's wake-up goes to the same bell.
    ///
    /// # Errors
    /// An ensemble in which nothing could ever be decided.
    #[allow(clippy::too_many_arguments, reason = "each is a part that somebody else has made")]
    pub fn member(
        options: PipelineOptions,
        member: MemberOptions,
        links: Links,
        clock: Clock,
        tree: Tree,
        log: TxnLog,
        cores: Vec<CoreLanes>,
        doorbell: Doorbell,
        counters: Arc<PipelineCounters>,
    ) -> Result<Self, QuorumError> {
        let appended = member.recovered.tail.appended();
        assert!(tree.last_applied() == appended, "recovery applies the whole log (P31)");
        assert!(log.appended() == appended && log.durable() == appended);
        let mut this = Self::new(options, clock, tree, log, cores, counters);
        this.duty = Duty::Idle;
        this.sessions.clear();
        let mut first_effects = Vec::new();
        let now_ms = clock.now_ms();
        let tick_ms = this.options.tick_ms;
        this.node =
            Node::member(member.config.clone(), member.recovered.clone(), now_ms, &mut first_effects)?;
        this.member = Some(Box::new(Member {
            links,
            doorbell,
            everywhere: Everywhere::like_this_thread(),
            first_effects,
            follow_up: VecDeque::new(),
            received: Vec::new(),
            looked_at_clock: (now_ms, 0),
            has_looked: false,
            committed: None,
            window: Window::new(appended, limits::RECENT_RECORD_BYTES),
            depth: LogDepth::of_files(&member.log_files, appended),
            appended: Appended::default(),
            cheap_from: Zxid(i64::MAX),
            local: member.local_sessions.map(|upgrades| LocalSessions::new(upgrades, tick_ms)),
            looking_since_ms: None,
            is_read_only: false,
            learner: LearnerDesk::default(),
            leader: LeaderDesk::default(),
            suspension: None,
            held: VecDeque::new(),
            installing: None,
            images: channel(),
            viewed: appended,
            purged: Zxid(i64::MIN),
            gaps: 0,
            node_tick_ms: 0,
            flushed_ms: 0,
            flush_at_ms: u64::MAX,
            standing: standing::Standing::new(now_ms),
            latency: Latency::default(),
            disk: upkeep::DiskWatch::default(),
            options: member,
        }));
        Ok(this)
    }

    /// Runs a member on a thread of its own until `stop` is raised.
    ///
    /// # Errors
    /// If the log failed: the process must end, for nothing may be acknowledged any more.
    pub fn run_member(mut self, bell: &BellEnd, stop: &StopFlag) -> Result<(), LogFailure> {
        let tick_ms = u64::from(self.options.tick_ms);
        let mut next_tick_ms = self.clock.now_ms() + tick_ms;
        let mut stop_by_ms = None;
        let mut first_effects = std::mem::take(&mut self.the_member().first_effects);
        self.carry_out(&mut first_effects);
        self.follow_up();
        loop {
            let now_ms = self.clock.now_ms();
            if now_ms >= next_tick_ms {
                self.member_tick();
                next_tick_ms = now_ms + tick_ms;
            }
            let stops = stop.is_raised();
            let busy = self.member_turn(!stops)?;
            if stops {
                let by_ms = *stop_by_ms.get_or_insert(now_ms + STOP_PATIENCE_MS);
                let is_answered = self.duty == Duty::Idle || self.is_drained() && self.asked_count() == 0;
                if is_answered || now_ms >= by_ms {
                    break;
                }
            }
            if busy {
                continue;
            }
            self.log.arm_wake()?;
            let next_ms = next_tick_ms.min(self.the_member().node_tick_ms).min(self.the_member().flush_at_ms);
            let limit = Duration::from_millis(next_ms.saturating_sub(now_ms)).min(SLEEP_MAX);
            let asleep = bell.fall_asleep(|| self.is_idle() && stops == stop.is_raised());
            if asleep.is_some() {
                or_end("the links cannot be waited for", self.links().sleep(limit));
                self.the_member().has_looked = true;
            }
        }
        self.leave()
    }

    /// The end of a member: the others learn of it at once, then the log is closed.
    fn leave(mut self) -> Result<(), LogFailure> {
        // What was replayed and not committed must not get into a snapshot (ZOOKEEPER-1549).
        if self.is_suspended() {
            self.end_suspension("the server stops");
        }
        let is_committed = self.duty != Duty::Idle && self.tree.last_applied() <= self.node.committed();
        self.push_batch();
        while !self.tell_to_stop() {
            // A core whose lane is full is working it off.
            std::thread::yield_now();
        }
        self.member = None;
        self.log.settle()?;
        if is_committed {
            self.snapshots.take_last(&mut self.tree);
        }
        self.log.close()
    }

    fn member_turn(&mut self, takes_submissions: bool) -> Result<bool, LogFailure> {
        self.look_at_clocks();
        let mut busy = self.finish_flush()?;
        busy |= self.push_overflow();
        self.tick_node();
        busy |= self.hear_peers();
        busy |= self.take_image();
        if !self.is_backed_up() {
            busy |= self.expire_sessions();
            busy |= self.reap();
            busy |= self.submit_forwarded();
            if takes_submissions {
                busy |= self.drain_submissions();
            }
        }
        self.links().flush();
        self.append_rest();
        if self.is_flush_due() {
            self.log.flush()?;
            busy |= self.finish_flush()?;
            self.links().flush();
        }
        self.trim_window();
        self.tell_view();
        self.send_batch();
        Ok(busy || !self.unappended.is_empty())
    }

    /// Whether the records of the turn are written now. A learner that catches up, whom nobody waits for, writes a few
    /// hundred times a second, or when there is much: a disk that it shares with others makes them wait for each of its
    /// writes, and for all the bytes of one.
    fn is_flush_due(&mut self) -> bool {
        let (now_ms, waiting) = (self.clock.now_ms(), self.log.pending_bytes());
        let catches_up = matches!(
            self.node.role(),
            Role::Following { active: false, .. } | Role::Observing { active: false, .. }
        );
        let is_full = !self.unappended.is_empty();
        let member = self.the_member();
        let at_ms = member.flushed_ms + CATCH_UP_FLUSH_MS;
        if catches_up && waiting > 0 && waiting < CATCH_UP_FLUSH_BYTES && !is_full && now_ms < at_ms {
            member.flush_at_ms = at_ms;
            return false;
        }
        member.flush_at_ms = u64::MAX;
        if waiting > 0 {
            member.flushed_ms = now_ms;
        }
        true
    }

    fn the_member(&mut self) -> &mut Member {
        self.member.as_mut().expect("called for members alone")
    }

    fn links(&mut self) -> &mut Links {
        &mut self.the_member().links
    }

    /// Tells the node that time has passed, as often as it asks for.
    fn tick_node(&mut self) {
        let now_ms = self.clock.now_ms();
        if now_ms >= self.the_member().node_tick_ms {
            self.tell_cheap_from();
            self.step(Event::Tick);
            self.look_after_suspension();
            self.look_after_disk();
            self.look_for_read_only();
            let next_ms = now_ms + self.node.tick_every_ms();
            self.the_member().node_tick_ms = next_ms;
        }
    }

    /// Tells the node which records are cheaper to send than an image is.
    fn tell_cheap_from(&mut self) {
        let image_bytes = self.snapshots.last_bytes();
        let member = self.the_member();
        let floor = member.depth.cheap_from(image_bytes, member.options.snapshot_size_factor);
        if std::mem::replace(&mut member.cheap_from, floor) != floor {
            self.step(Event::Cheaper { floor });
        }
    }

    /// Once a tick of the server.
    fn member_tick(&mut self) {
        self.look_at_clocks();
        let floor = self.the_member().options.purged.floor();
        if floor > self.the_member().purged {
            self.the_member().purged = floor;
            self.step(Event::Purged { floor });
        }
        if self.duty == Duty::Orders {
            self.drain_touches();
            self.look_for_expired();
        }
        self.expire_local();
        self.show_standing();
        self.publish();
        // Client cores that nothing concerned learn of the latest view now: it frees old versions.
        for core in &mut self.cores {
            core.lanes.deliveries.ring();
        }
    }

    /// Delivers what the other servers said, one event after the other.
    fn hear_peers(&mut self) -> bool {
        let mut received = std::mem::take(&mut self.the_member().received);
        // Looks without waiting: after a busy turn nobody has slept.
        if !std::mem::take(&mut self.the_member().has_looked) {
            or_end("the links cannot be waited for", self.links().sleep(Duration::ZERO));
        }
        self.links().receive(&mut received).unwrap_or_else(|error| end_without_links(&error));
        let any = !received.is_empty();
        self.the_member().looked_at_clock.1 = 0;
        let mut events = received.drain(..).peekable();
        while let Some(event) = events.next() {
            self.note_heard(&event);
            let event = self.without_garbage(event);
            if !events.peek().is_some_and(|next| is_said_again(&event, next)) {
                self.step_of_many(event);
            }
        }
        drop(events);
        self.apply_committed();
        self.the_member().received = received;
        any
    }

    /// The event; or, if it brings as a transaction what is none, the end of its link: nothing of that may come into the
    /// log, from which this server could not start again. Apache's learners find it out before they log it, too.
    fn without_garbage(&mut self, event: Event) -> Event {
        let (link, zxid, record) = match &event {
            Event::Packet {
                link,
                packet:
                    Packet::Proposal { zxid, record }
                    | Packet::Inform { zxid, record }
                    | Packet::InformAndActivate { zxid, record, .. },
            } => (*link, *zxid, record),
            _ => return event,
        };
        let trouble = match Txn::decode_record(record) {
            Ok((header, ..)) if header.zxid == zxid => return event,
            Ok((header, ..)) => format!("is transaction {}", header.zxid),
            Err(error) => format!("cannot be decoded: {error}"),
        };
        log::error!("closing the link to the leader: what it sent as transaction {zxid} {trouble}");
        self.links().close(link);
        Event::Down { link }
    }

    /// Requests of own clients that wait for the leader.
    fn asked_count(&mut self) -> usize {
        self.the_member().learner.load().0
    }

    fn trim_window(&mut self) {
        let keep_above = self.log.durable().min(self.tree.last_applied());
        self.the_member().window.trim(keep_above);
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::{Fixture, zxid};
    use crate::storage::{purge, snapshot};
    use zkfast_wire::Zxid;

    /// Danger: a leader promises a learner history whose files were purged.
    #[test]
    fn the_order_hears_of_a_purge() {
        let mut fixture = Fixture::new(2);
        for _ in 0..4 {
            fixture.append(1);
            let record = fixture.pipeline.pending.pop_front().expect("the record").record;
            fixture.pipeline.tree.apply(&record).expect("a good record");
            let image = fixture.pipeline.tree.image();
            snapshot::write(image, &fixture.dirs, snapshot::SnapshotOptions::default()).expect("a disk");
        }
        fixture.pipeline.member_tick();
        assert_eq!(fixture.pipeline.the_member().purged, Zxid(i64::MIN), "nothing was purged");
        let mark = fixture.pipeline.the_member().options.purged.clone();
        purge::purge(&fixture.dirs, 3, &mark).expect("a disk");
        assert_eq!(fixture.snapshots(), [zxid(4), zxid(5), zxid(6)]);
        fixture.pipeline.member_tick();
        assert_eq!(fixture.pipeline.the_member().purged, zxid(4));
    }

    /// ZOOKEEPER-1549. Danger: a server that stops without a role leaves a snapshot of what was never committed, which
    /// no cut of the log takes back.
    #[test]
    fn what_nobody_committed_gets_into_no_snapshot() {
        let mut fixture = Fixture::new(3);
        fixture.append(1);
        let record = fixture.pipeline.pending.pop_front().expect("the record").record;
        fixture.pipeline.tree.apply(&record).expect("a good record");
        assert_eq!(fixture.pipeline.tree.last_applied(), zxid(4));
        let Fixture { pipeline, dirs, .. } = fixture;
        pipeline.leave().expect("a disk");
        let snapshots = dirs.snapshots().expect("a directory").into_iter();
        assert_eq!(snapshots.map(|file| file.zxid).collect::<Vec<_>>(), [Zxid::ZERO]);
    }
}
