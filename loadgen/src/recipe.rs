//! The lock and election recipes, as Curator and kazoo do them: an ephemeral sequential node per contender, a watch on
//! the one in front, a look at the children when it goes. The winner gives up at once and queues again.

use crate::{
    clock::{MILLISECOND, Nanos, SECOND},
    engine::{Links, Load, Loss, Turn},
    gathering::Gathering,
    link::{Ask, InFlight, Link, Phase},
    missing::{EVENT_PATIENCE, MissingEvents},
    operation::{Mode, Operation, put_create, put_delete, put_read},
    record::histogram,
    reply::Reply,
};
use hdrhistogram::Histogram;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use zkfast_wire::{OpCode, Zxid, jute::Decoder, watch::WatcherEvent};

/// How often overdue events are looked for.
const CHECK_EVERY: Nanos = 200 * MILLISECOND;

/// One contender.
#[derive(Clone, Debug, Default)]
struct Contender {
    /// Name of its node, without the parent; empty while it has none.
    node: String,
    /// When it queued.
    queued_at: Nanos,
    /// What it watches, while it waits for the event.
    watch: Option<Watch>,
    /// A look at the children is under way.
    looking: bool,
}

/// A watch on the node in front.
#[derive(Clone, Debug)]
struct Watch {
    /// Name of the node, without the parent.
    node: String,
    /// When it was left, or last looked after.
    since: Nanos,
    /// The server has said that it is left.
    is_left: bool,
}

/// One lock, or one election.
#[derive(Clone, Debug, Default)]
struct Group {
    /// When its last holder sent the release; 0 if nobody has yet.
    released_at: Nanos,
    /// The node of its last holder.
    last: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Connecting,
    Running {
        until: Nanos,
    },
    /// Who still waits looks whether it should have heard by now.
    Settling {
        until: Nanos,
    },
    Leaving {
        until: Nanos,
    },
}

/// Contenders for locks; link i contends in group i modulo the number of groups.
#[derive(Debug)]
pub struct Recipe {
    root: String,
    duration: Nanos,
    stage: Stage,
    gathering: Gathering,
    contenders: Vec<Contender>,
    groups: Vec<Group>,
    to_queue: Vec<usize>,
    stop: Arc<AtomicBool>,
    began: Nanos,
    /// How long they contended.
    pub ran: Nanos,
    /// From the wish to the lock.
    pub waits: Histogram<u64>,
    /// From the send of the release to the next holder's knowing.
    pub hand_overs: Histogram<u64>,
    /// Two held one lock at the same time.
    pub overlaps: u64,
    /// Events that never came; their sessions have looked again without them.
    pub missing: MissingEvents,
    next_check: Nanos,
    /// Connections lost and requests refused.
    pub failures: Vec<String>,
}

impl Recipe {
    /// Contenders in `groups` groups beneath `root`, for `duration` or until `stop` is set.
    pub fn new(root: String, links: usize, groups: usize, duration: Nanos, stop: Arc<AtomicBool>) -> Self {
        Self {
            root,
            duration,
            stage: Stage::Connecting,
            gathering: Gathering::default(),
            contenders: vec![Contender::default(); links],
            groups: vec![Group::default(); groups.max(1)],
            to_queue: Vec::new(),
            stop,
            began: 0,
            ran: 0,
            waits: histogram(),
            hand_overs: histogram(),
            overlaps: 0,
            missing: MissingEvents::default(),
            next_check: 0,
            failures: Vec::new(),
        }
    }

    /// The parent of group `group`.
    pub fn group_path(root: &str, group: usize) -> String {
        format!("{root}/g{group:05}")
    }

    fn group_of(&self, link: usize) -> usize {
        link % self.groups.len()
    }

    fn queue(&mut self, link: &mut Link, now: Nanos) {
        self.contenders[link.index] = Contender { queued_at: now, ..Contender::default() };
        let path = format!("{}/n-", Self::group_path(&self.root, self.group_of(link.index)));
        let ask = ask(OpCode::Create, Operation::Create, now);
        link.request(now, ask, |out| {
            put_create(out, |out| out.extend_from_slice(path.as_bytes()), b"", Mode::EphemeralSequential);
        });
    }

    fn look(&mut self, link: &mut Link, now: Nanos) {
        self.contenders[link.index].looking = true;
        let path = Self::group_path(&self.root, self.group_of(link.index));
        let ask = ask(OpCode::GetChildren, Operation::Children, now);
        link.request(now, ask, |out| put_read(out, |out| out.extend_from_slice(path.as_bytes()), false));
    }

    /// The children, as they are: whether who still waits for an event should have it by now. The event of a node that is
    /// gone comes ahead of an answer that shows it gone.
    fn looked(&mut self, link: &mut Link, names: &[impl AsRef<str>], now: Nanos) {
        let contender = &mut self.contenders[link.index];
        contender.looking = false;
        if let Some(watch) = &mut contender.watch {
            if names.iter().any(|name| name.as_ref() == watch.node) {
                watch.since = now;
                return;
            }
            let node = std::mem::take(&mut watch.node);
            contender.watch = None;
            let parent = Self::group_path(&self.root, self.group_of(link.index));
            self.missing.note(link.session.id, &format!("{parent}/{node}"));
        }
        if matches!(self.stage, Stage::Running { .. }) {
            self.decide(link, names, now);
        }
    }

    /// Lets everyone look again who has waited for an event for `patience`.
    fn look_again(&mut self, links: &mut Links, patience: Nanos, now: Nanos) {
        for index in 0..self.contenders.len() {
            let Contender { watch: Some(watch), looking: false, .. } = &self.contenders[index] else {
                continue;
            };
            if watch.is_left && now.saturating_sub(watch.since) >= patience && links.all[index].is_ready() {
                self.look(links.to_write(index), now);
            }
        }
    }

    /// Whoever has the lowest number holds the lock; the others watch the one in front of them.
    fn decide(&mut self, link: &mut Link, names: &[impl AsRef<str>], now: Nanos) {
        let own = self.contenders[link.index].node.clone();
        let in_front = names.iter().map(AsRef::as_ref).filter(|name| *name < own.as_str()).max();
        let group = self.group_of(link.index);
        let parent = Self::group_path(&self.root, group);
        if let Some(in_front) = in_front {
            self.contenders[link.index].watch =
                Some(Watch { node: in_front.to_owned(), since: now, is_left: false });
            let path = format!("{parent}/{in_front}");
            let ask = ask(OpCode::Exists, Operation::Watch, now);
            link.request(now, ask, |out| put_read(out, |out| out.extend_from_slice(path.as_bytes()), true));
            return;
        }
        let state = &mut self.groups[group];
        // In the order of their numbers, each once, or two have held it together.
        self.overlaps += u64::from(own <= state.last);
        if state.released_at > 0 {
            self.hand_overs.saturating_record(now.saturating_sub(state.released_at).max(1));
        }
        self.waits.saturating_record(now.saturating_sub(self.contenders[link.index].queued_at).max(1));
        state.released_at = now;
        state.last.clone_from(&own);
        let path = format!("{parent}/{own}");
        let ask = ask(OpCode::Delete, Operation::Delete, now);
        link.request(now, ask, |out| put_delete(out, |out| out.extend_from_slice(path.as_bytes())));
    }
}

fn ask(op: OpCode, operation: Operation, now: Nanos) -> Ask {
    Ask { op, operation, key: 0, note: 0, intended: now }
}

impl Load for Recipe {
    fn turn(&mut self, links: &mut Links, now: Nanos) -> Turn {
        let stopped = self.stop.load(Ordering::Relaxed);
        match self.stage {
            Stage::Connecting if stopped => {
                links.close_all(now);
                self.stage = Stage::Leaving { until: now + 10 * SECOND };
            }
            Stage::Connecting => {
                links.connect_idle(..links.all.len());
                if self.gathering.ready() == links.all.len() {
                    self.stage = Stage::Running { until: now + self.duration };
                    self.began = now;
                    self.to_queue = (0..links.all.len()).collect();
                } else if let Some(why) = self.gathering.hopeless(links.all.len(), now) {
                    self.failures.push(why);
                    return Turn::Done;
                }
            }
            Stage::Running { until } => {
                while let Some(index) = self.to_queue.pop() {
                    if links.all[index].is_ready() {
                        self.queue(links.to_write(index), now);
                    }
                }
                if now >= self.next_check {
                    self.next_check = now + CHECK_EVERY;
                    self.look_again(links, EVENT_PATIENCE, now);
                }
                if now >= until || stopped {
                    self.ran = now - self.began;
                    self.stage = Stage::Settling { until: now + EVENT_PATIENCE };
                    self.look_again(links, 0, now);
                }
            }
            Stage::Settling { until } => {
                let looking = |contender: &Contender| contender.looking;
                if now >= until || !self.contenders.iter().any(looking) {
                    links.close_all(now);
                    self.stage = Stage::Leaving { until: now + 10 * SECOND };
                }
            }
            Stage::Leaving { until } => {
                if now >= until || links.are_closed() {
                    return Turn::Done;
                }
            }
        }
        Turn::Until(now + 5 * MILLISECOND)
    }

    fn ready(&mut self, link: &mut Link, now: Nanos) {
        self.gathering.came(now);
        if matches!(self.stage, Stage::Running { .. }) {
            self.to_queue.push(link.index);
        }
    }

    fn reply(&mut self, link: &mut Link, request: InFlight, reply: &Reply<'_>, now: Nanos) {
        if request.operation == Operation::Session {
            link.phase = Phase::Idle;
            return;
        }
        if matches!(self.stage, Stage::Leaving { .. }) {
            return;
        }
        let is_running = matches!(self.stage, Stage::Running { .. });
        let mut decoder = Decoder::new(reply.body);
        match request.operation {
            Operation::Create if reply.code.is_ok() => {
                let path = decoder.text("CreateResponse.path").unwrap_or_default();
                path.rsplit('/').next().unwrap_or_default().clone_into(&mut self.contenders[link.index].node);
                if is_running {
                    self.look(link, now);
                }
            }
            Operation::Children if reply.code.is_ok() => {
                let names = decoder.texts("GetChildrenResponse.children").unwrap_or_default();
                self.looked(link, &names, now);
            }
            // The one in front is there: wait for the event. It is gone already: look again.
            Operation::Watch if reply.code.is_ok() => {
                if let Some(watch) = &mut self.contenders[link.index].watch {
                    (watch.since, watch.is_left) = (now, true);
                }
            }
            Operation::Watch => {
                self.contenders[link.index].watch = None;
                if is_running {
                    self.look(link, now);
                }
            }
            Operation::Delete if reply.code.is_ok() => {
                if is_running {
                    self.queue(link, now);
                }
            }
            operation => self.failures.push(format!("{} was refused: {}", operation.name(), reply.code)),
        }
    }

    fn event(&mut self, link: &mut Link, _zxid: Zxid, event: &WatcherEvent<'_>, now: Nanos) {
        let contender = &mut self.contenders[link.index];
        let node = event.path.rsplit('/').next().unwrap_or_default();
        if contender.watch.as_ref().is_none_or(|watch| watch.node != node) {
            // Of a watch that was given up: it has looked again already.
            return;
        }
        contender.watch = None;
        if matches!(self.stage, Stage::Running { .. }) && !contender.looking {
            self.look(link, now);
        }
    }

    fn lost(&mut self, link: &mut Link, was_ready: bool, why: &Loss, _now: Nanos) {
        self.gathering.lost(was_ready, why);
        if matches!(self.stage, Stage::Leaving { .. }) {
            link.phase = Phase::Idle;
        } else if was_ready {
            self.failures.push(why.told().into_owned());
        }
    }
}
