//! How long transactions take on their way through the ensemble (row O105d), how long learners take to get in step, and how
//! many do at a time (row O105e).
//!
//! As in Apache's servers the time of a transaction counts from its header, which its leader wrote: between machines it is
//! as good as their clocks agree, and what would be negative is not counted. The clock is read once for many.

use super::Pipeline;
use crate::{
    config::limits,
    cores::clock,
    pipeline::Duty,
    status::{
        histogram::Histogram,
        picture::{LearnerPicture, Spans},
    },
};
use std::collections::{BTreeMap, VecDeque};
use zkfast_wire::{Packet, ServerId, TxnHeader, Zxid};
use zkfast_zab::{Event, LinkId, Role};

/// Of so many transactions the acknowledgements of one are timed (`zookeeper.leader.ackLoggingFrequency`).
const TIMED_ONE_IN: i64 = 1000;

/// Notes `count` transactions that were ordered at `time_ms`.
pub(in crate::pipeline) fn note_since(histogram: &Histogram, time_ms: i64, now_ms: i64, count: u64) {
    if let Ok(latency_ms) = u64::try_from(now_ms - time_ms) {
        histogram.record_many(latency_ms, count);
    }
}

/// How a learner is brought in step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SyncKind {
    Diff,
    Image,
}

/// What is being timed.
#[derive(Debug, Default)]
pub(super) struct Latency {
    /// Appended and not durable, oldest first, each with the time in its header.
    appended: VecDeque<(Zxid, i64)>,
    /// From the order of a transaction to its acknowledgement, milliseconds, by the one who acknowledged. (Apache's leader
    /// leaves out what comes behind a quorum's: whoever is slow has none.)
    acks: BTreeMap<ServerId, Histogram>,
    /// When the leader had taken this learner in, milliseconds of the server's clock.
    taken_in_ms: Option<u64>,
    follower_syncs: Spans,
    observer_syncs: Spans,
    /// Learners that are being brought in step.
    syncing: BTreeMap<LinkId, SyncKind>,
    /// How many at a time, noted when one begins and when one ends.
    diffs_at_a_time: Histogram,
    images_at_a_time: Histogram,
}

impl Latency {
    /// A record is on its way into the log.
    pub(super) fn append(&mut self, zxid: Zxid, time_ms: i64) {
        self.appended.push_back((zxid, time_ms));
    }

    /// What is appended and not durable will not be acknowledged.
    pub(super) fn forget_appended(&mut self) {
        self.appended.clear();
    }

    /// The leader begins to bring a learner in step.
    pub(super) fn begin_sync(&mut self, link: LinkId, kind: SyncKind) {
        self.syncing.insert(link, kind);
        self.note_syncing(kind);
    }

    /// The learner has it all, or has gone.
    pub(super) fn end_sync(&mut self, link: LinkId) {
        if let Some(kind) = self.syncing.remove(&link) {
            self.note_syncing(kind);
        }
    }

    fn note_syncing(&self, kind: SyncKind) {
        let count = self.syncing.values().filter(|other| **other == kind).count() as u64;
        match kind {
            SyncKind::Diff => self.diffs_at_a_time.record(count),
            SyncKind::Image => self.images_at_a_time.record(count),
        }
    }

    fn note_ack(&mut self, server: ServerId, time_ms: i64, now_ms: i64) {
        if self.acks.len() < limits::LEARNERS_TIMED || self.acks.contains_key(&server) {
            note_since(self.acks.entry(server).or_default(), time_ms, now_ms, 1);
        }
    }
}

impl Pipeline {
    /// Before an event of another server is delivered.
    pub(super) fn note_heard(&mut self, event: &Event) {
        match event {
            Event::Packet { packet: Packet::LeaderInfo { .. }, .. } => {
                self.the_member().latency.taken_in_ms = Some(self.clock.now_ms());
            }
            Event::Packet { link, packet: Packet::Ack { zxid } } if zxid.counter() == 0 => {
                self.the_member().latency.end_sync(*link);
            }
            Event::Packet { link, packet: Packet::Ack { zxid } } if zxid.0 % TIMED_ONE_IN == 0 => {
                if let Some(server) = self.links().server_at(*link) {
                    self.note_ack_of(server, *zxid);
                }
            }
            _ => {}
        }
    }

    fn note_ack_of(&mut self, server: ServerId, zxid: Zxid) {
        let (now_ms, before) = (clock::wall_ms(), Zxid(zxid.0 - 1));
        let member = self.member.as_mut().expect("a member");
        if self.duty != Duty::Orders || before < member.window.base() {
            return;
        }
        let time_ms =
            member.window.range(before, zxid).next().and_then(|(_, record)| TxnHeader::time_of(record));
        if let Some(time_ms) = time_ms {
            member.latency.note_ack(server, time_ms, now_ms);
        }
    }

    /// A leader has proposed this record to this server.
    pub(super) fn note_proposal(&mut self, time_ms: i64) {
        if self.duty == Duty::Forwards && matches!(self.node.role(), Role::Following { .. }) {
            note_since(&self.counters.proposal_latency, time_ms, self.wall_ms, 1);
        }
    }

    /// A flush is over: what it covers is acknowledged now, by those who vote.
    pub(in crate::pipeline) fn note_durable(&mut self, through: Zxid) {
        let Some(member) = &mut self.member else { return };
        let votes = match self.duty {
            Duty::Orders => true,
            Duty::Forwards => matches!(self.node.role(), Role::Following { .. }),
            Duty::Idle => false,
        };
        let me = member.options.config.server;
        let mut now_ms = None;
        while let Some((zxid, time_ms)) = member.latency.appended.pop_front_if(|(zxid, _)| *zxid <= through) {
            if !votes {
                continue;
            }
            let now_ms = *now_ms.get_or_insert_with(clock::wall_ms);
            note_since(&self.counters.proposal_ack_creation_latency, time_ms, now_ms, 1);
            if self.duty == Duty::Orders && zxid.0 % TIMED_ONE_IN == 0 {
                member.latency.note_ack(me, time_ms, now_ms);
            }
        }
    }

    /// This learner is in step with its leader.
    pub(super) fn note_in_step(&mut self, observes: bool) {
        let now_ms = self.clock.now_ms();
        let latency = &mut self.the_member().latency;
        if let Some(since_ms) = latency.taken_in_ms.take() {
            let syncs = if observes { &mut latency.observer_syncs } else { &mut latency.follower_syncs };
            syncs.note(now_ms.saturating_sub(since_ms));
        }
    }
}

/// What status commands tell of all this.
impl Latency {
    /// Times of this server as a follower and as an observer.
    pub(super) const fn syncs(&self) -> (Spans, Spans) {
        (self.follower_syncs, self.observer_syncs)
    }

    /// How many were brought in step at a time, by records and by an image.
    pub(super) const fn at_a_time(&self) -> (&Histogram, &Histogram) {
        (&self.diffs_at_a_time, &self.images_at_a_time)
    }

    /// Adds the acknowledgements to what is known of the queues.
    pub(super) fn add_acks(&self, learners: &mut Vec<LearnerPicture>) {
        for (server, acks) in &self.acks {
            let place = learners.iter().position(|learner| learner.server == *server).unwrap_or_else(|| {
                learners.push(LearnerPicture { server: *server, ..LearnerPicture::default() });
                learners.len() - 1
            });
            learners[place].ack_ms = acks.read();
        }
    }
}
