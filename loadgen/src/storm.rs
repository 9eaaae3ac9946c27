//! All sessions lose their connection at once: they come back together, or never.

use crate::{
    clock::{MILLISECOND, Nanos, SECOND},
    engine::{Links, Load, Loss, Turn},
    gathering::Gathering,
    link::{Ask, InFlight, Link, Phase},
    operation::{Mode, Operation, put_create},
    record::histogram,
    reply::Reply,
};
use hdrhistogram::Histogram;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use zkfast_wire::{OpCode, SessionId, Zxid, watch::WatcherEvent};

/// How long connecting or coming back may take.
const PATIENCE: Nanos = 120 * SECOND;

/// What follows the cut.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Aftermath {
    /// Every session comes back on a new connection.
    Reconnect,
    /// No session comes back; each leaves an ephemeral node beneath this path.
    Abandon {
        /// Parent of the ephemeral nodes.
        parent: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Connecting,
    /// Ephemeral nodes are made.
    Owning,
    /// Connections are being re-established.
    Returning {
        cut_at: Nanos,
    },
    Leaving {
        until: Nanos,
    },
}

/// The storm over all links.
#[derive(Debug)]
pub struct Storm {
    aftermath: Aftermath,
    stage: Stage,
    before: Vec<SessionId>,
    gathering: Gathering,
    owned: usize,
    stop: Arc<AtomicBool>,
    /// From the first connect to the last session, nanoseconds.
    pub connected_after: Nanos,
    /// From the cut to each session's return.
    pub returns: Histogram<u64>,
    /// Sessions that came back as another one.
    pub expired: u64,
    /// Why it ended early.
    pub failure: Option<String>,
}

impl Storm {
    /// A storm over `links` sessions, which end in an orderly way if `stop` is set.
    pub fn new(links: usize, aftermath: Aftermath, stop: Arc<AtomicBool>) -> Self {
        Self {
            aftermath,
            stage: Stage::Connecting,
            before: vec![SessionId(0); links],
            gathering: Gathering::default(),
            owned: 0,
            stop,
            connected_after: 0,
            returns: histogram(),
            expired: 0,
            failure: None,
        }
    }

    fn cut(&mut self, links: &mut Links, now: Nanos) {
        self.gathering = Gathering::default();
        self.stage = Stage::Returning { cut_at: now };
        for index in 0..links.all.len() {
            self.before[index] = links.all[index].session.id;
            links.cut(index);
        }
        links.connect_idle(..links.all.len());
    }
}

impl Load for Storm {
    fn turn(&mut self, links: &mut Links, now: Nanos) -> Turn {
        let all = links.all.len();
        if self.stop.load(Ordering::Relaxed) && !matches!(self.stage, Stage::Leaving { .. }) {
            links.close_all(now);
            self.stage = Stage::Leaving { until: now + 10 * SECOND };
        }
        match self.stage {
            Stage::Connecting => {
                links.connect_idle(..all);
                if let Some(why) = self.gathering.hopeless(all, now) {
                    self.failure.get_or_insert(why);
                } else if self.gathering.ready() == all {
                    self.connected_after = now;
                    match self.aftermath.clone() {
                        Aftermath::Reconnect => self.cut(links, now),
                        Aftermath::Abandon { parent } => {
                            for index in 0..all {
                                let ask = Ask {
                                    op: OpCode::Create,
                                    operation: Operation::Ephemeral,
                                    key: 0,
                                    note: 0,
                                    intended: now,
                                };
                                links.to_write(index).request(now, ask, |out| {
                                    let path = format!("{parent}/e{index:06}");
                                    put_create(
                                        out,
                                        |out| out.extend_from_slice(path.as_bytes()),
                                        b"",
                                        Mode::Ephemeral,
                                    );
                                });
                            }
                            self.stage = Stage::Owning;
                        }
                    }
                }
            }
            Stage::Owning if self.owned == all => {
                // Dropped without a word, as when the machine of a client dies.
                for index in 0..all {
                    links.cut(index);
                }
                return Turn::Done;
            }
            Stage::Owning => {}
            Stage::Returning { .. } if self.gathering.ready() == all => {
                links.close_all(now);
                self.stage = Stage::Leaving { until: now + 10 * SECOND };
            }
            Stage::Returning { .. } => {}
            Stage::Leaving { until } => {
                if now > until || links.are_closed() {
                    return Turn::Done;
                }
            }
        }
        if now > PATIENCE {
            self.failure.get_or_insert_with(|| {
                format!("gave up: {} of {all} sessions are up", self.gathering.ready())
            });
        }
        match self.failure {
            Some(_) => Turn::Done,
            None => Turn::Until(now + 5 * MILLISECOND),
        }
    }

    fn ready(&mut self, link: &mut Link, now: Nanos) {
        self.gathering.came(now);
        if let Stage::Returning { cut_at } = self.stage {
            self.returns.saturating_record((now - cut_at).max(1));
            self.expired += u64::from(link.session.id != self.before[link.index]);
        }
    }

    fn reply(&mut self, link: &mut Link, request: InFlight, reply: &Reply<'_>, _now: Nanos) {
        match request.operation {
            Operation::Session => link.phase = Phase::Idle,
            Operation::Ephemeral if reply.code.is_ok() => self.owned += 1,
            _ if matches!(self.stage, Stage::Leaving { .. }) => {}
            operation => {
                self.failure.get_or_insert(format!("{} was refused: {}", operation.name(), reply.code));
            }
        }
    }

    fn event(&mut self, _link: &mut Link, _zxid: Zxid, _event: &WatcherEvent<'_>, _now: Nanos) {}

    fn lost(&mut self, link: &mut Link, was_ready: bool, why: &Loss, _now: Nanos) {
        if matches!(self.stage, Stage::Leaving { .. }) {
            link.phase = Phase::Idle;
        } else {
            self.gathering.lost(was_ready, why);
        }
    }
}
