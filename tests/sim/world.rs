//! The world: servers, links, disks and a clock on one thread. Whatever happens is an event in one queue, ordered by
//! time and, at equal times, by the order in which it was caused; everything else is chance from the seed.

use crate::{
    checks::{Check, Checks, Violation},
    clients::Clients,
    disk::{Disk, Entry},
    plan::Plan,
    rng::Rng,
    store::{Ground, Store},
};
use bytes::Bytes;
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    rc::Rc,
};
use zkfast_wire::{Ensemble, Epoch, Notification, Packet, ServerId, SessionId, Zxid};
use zkfast_zab::{Config, Effect, EpochFile, Event, LinkId, Node, Quorum, Recovered, Service, Trouble};

/// tickTime of all servers: short, so that a schedule of seconds holds many elections.
pub const TICK_MS: u64 = 100;
pub const INIT_LIMIT_TICKS: u64 = 10;
pub const SYNC_LIMIT_TICKS: u64 = 5;

/// More events than any schedule takes: somebody answers an answer with an answer.
const STEPS_MAX: u64 = 1_000_000;

/// Something that will happen.
#[derive(Debug)]
pub enum What {
    Tick,
    /// A flush of the first `count` entries completes.
    Flushed {
        generation: u32,
        count: usize,
        epoch: Epoch,
        /// The last of them when it began.
        zxid: Zxid,
    },
    EpochSaved {
        file: EpochFile,
        epoch: Epoch,
    },
    Truncated {
        zxid: Zxid,
    },
    /// The disk part of an installation: first the cut, then the rename.
    InstallCut {
        image: Rc<Vec<Entry>>,
        zxid: Zxid,
    },
    InstallRename {
        image: Rc<Vec<Entry>>,
        zxid: Zxid,
    },
    /// The dialler's connection succeeds or fails.
    Dialled {
        leader: usize,
    },
    Accepted {
        link: usize,
    },
    Connected {
        link: usize,
    },
    /// The next message on a link reaches the side `to`.
    Link {
        link: usize,
        to: usize,
    },
    /// A broken connection is noticed.
    LinkDown {
        link: usize,
    },
    Transferred {
        link: usize,
        through: Zxid,
    },
    Heard {
        from: usize,
        notification: Notification,
    },
    PeerUp {
        peer: usize,
    },
    PeerDown {
        peer: usize,
    },
    Resume,
    Healthy,
    /// A client comes with a request.
    Client,
    /// What clients asked in the last epoch is asked again.
    AskAgain,
    Snapshot,
}

/// Whom it happens to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whom {
    /// This server, in this life: a completion does not reach the next one.
    Server(usize, u32),
    /// The world itself.
    World(Deed),
}

/// What the world does to its servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    Fault,
    Load,
    Heal,
    Start(usize),
    /// The quiet time is over: faults end.
    EndFaults,
}

/// When, in which order at equal times, and where in `World::due` the rest is: a heap moves its entries a lot.
type Due = (u64, u64, u32);

/// A message on a learner link.
#[derive(Debug)]
pub enum Message {
    Packet(Packet),
    /// The raw bytes after SNAP, with the signature; the second are those of a real tree.
    Image(Rc<Vec<Entry>>, Bytes),
    /// The other side closed.
    Close,
}

/// A connection of the quorum port; side 0 dialled, side 1 accepted.
pub struct Link {
    pub ends: [usize; 2],
    pub lives: [u32; 2],
    pub open: [bool; 2],
    /// Messages on their way to each side, with the time of their arrival.
    pub wire: [VecDeque<(u64, Message)>; 2],
    /// Nothing overtakes on a link.
    pub free_at_us: [u64; 2],
    /// The reader of this side waits for its disk.
    pub held: [bool; 2],
    /// Nothing passes any more; the ends have yet to notice.
    pub broken: bool,
}

pub struct Server {
    pub node: Option<Node>,
    pub life: u32,
    pub disk: Disk,
    /// The real storage and the real tree, in a world that has them.
    pub store: Option<Box<Store>>,
    /// What the real recovery found, for the next start.
    pub found: Option<Recovered>,
    /// How many entries the tree shows.
    pub applied: usize,
    pub serving: Option<Service>,
    /// What this server's clock is ahead by, milliseconds.
    pub ahead_ms: u64,
    pub paused_until_us: u64,
    /// The disk rewrites the history: nothing else is delivered (see `Effect::Truncate`).
    pub busy: bool,
    /// What came while the server was paused or busy.
    pub inbox: VecDeque<What>,
    pub flush_generation: u32,
    pub flushing: bool,
    pub epochs_free_at_us: u64,
    pub slow_until_us: u64,
    /// How long each flush of the log takes, where a story says so; `u64::MAX`: the disk hangs.
    pub flush_us: Option<u64>,
    /// The disk has had so many entries, and something to write, since then.
    pub stuck_since_us: Option<(usize, u64)>,
    pub installing: Option<(LinkId, Zxid)>,
    /// Elected and not able to reach a quorum since then.
    pub alone_since_us: Option<u64>,
    pub clients: Clients,
}

pub struct World {
    pub plan: Plan,
    pub rng: Rng,
    pub now_us: u64,
    sequence: u64,
    queue: BinaryHeap<Reverse<Due>>,
    due: Vec<Option<(Whom, What)>>,
    free: Vec<u32>,
    pub servers: Vec<Server>,
    pub links: Vec<Link>,
    /// Whether messages from one server reach another.
    pub blocked: Vec<Vec<bool>>,
    pub checks: Checks,
    pub quorum: Quorum,
    ensemble: Ensemble,
    pub faults_on: bool,
    /// Voters that stay dead for good: the others are a quorum, and must do without them.
    pub down: Vec<usize>,
    pub next_payload: u64,
    /// Syncs that the leader took: what it had proposed by then, for each link in order.
    pub promised_syncs: HashMap<usize, VecDeque<Zxid>>,
    pub steps: u64,
    pub elections: u64,
    pub troubles: Vec<(Trouble, u32)>,
    pub trace: Option<Vec<String>>,
    effects: Vec<Effect>,
    /// Records by their number, in a world with real trees.
    pub library: HashMap<u64, Bytes>,
    /// The digest of the tree that a history leads to, by the digest of the history.
    pub tree_digests: HashMap<u64, i64>,
    /// The last request of each session that was committed.
    pub session_order: HashMap<SessionId, i32>,
    /// Whose request each number is.
    pub asked_by: HashMap<u64, SessionId>,
    ground: Option<Ground>,
}

impl World {
    pub fn new(plan: Plan) -> Self {
        let ensemble = Ensemble::parse(&plan.ensemble_text()).expect("a text of ours");
        let quorum = Quorum::new(&ensemble).expect("an ensemble of ours");
        let servers = plan.servers();
        let mut world = Self {
            rng: Rng::new(plan.seed ^ 0x77),
            now_us: 1_000_000,
            sequence: 0,
            queue: BinaryHeap::new(),
            due: Vec::new(),
            free: Vec::new(),
            servers: (0..servers).map(|_| Server::new()).collect(),
            links: Vec::new(),
            blocked: vec![vec![false; servers]; servers],
            checks: Checks::new(quorum.clone(), plan.first_counter),
            quorum,
            ensemble,
            faults_on: true,
            down: Vec::new(),
            next_payload: 1,
            promised_syncs: HashMap::new(),
            steps: 0,
            elections: 0,
            troubles: Vec::new(),
            trace: None,
            effects: Vec::new(),
            library: HashMap::new(),
            tree_digests: HashMap::new(),
            session_order: HashMap::new(),
            asked_by: HashMap::new(),
            ground: plan.real.then(Ground::new),
            plan,
        };
        if let Some(ground) = &world.ground {
            for (index, server) in world.servers.iter_mut().enumerate() {
                let mut store = Box::new(ground.store(index));
                server.found = Some(store.recover().history);
                server.store = Some(store);
            }
        }
        for server in 0..servers {
            let delay_us = world.rng.below(20_000);
            world.after(delay_us, Whom::World(Deed::Start(server)), What::Tick);
        }
        let end_us = world.plan.active_us;
        world.after(end_us, Whom::World(Deed::EndFaults), What::Tick);
        let (fault_us, load_us) = (world.plan.fault_every_us, world.plan.write_every_us);
        world.after(fault_us, Whom::World(Deed::Fault), What::Tick);
        world.after(load_us, Whom::World(Deed::Load), What::Tick);
        world
    }

    // Time

    pub fn at(&mut self, at_us: u64, whom: Whom, what: What) {
        self.sequence += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.due.push(None);
            self.due.len() as u32 - 1
        });
        self.due[place as usize] = Some((whom, what));
        self.queue.push(Reverse((at_us.max(self.now_us), self.sequence, place)));
    }

    pub fn after(&mut self, delay_us: u64, whom: Whom, what: What) {
        self.at(self.now_us + delay_us, whom, what);
    }

    pub fn whom(&self, server: usize) -> Whom {
        Whom::Server(server, self.servers[server].life)
    }

    /// Runs until `until_us`, or until `done` says so after an event.
    pub fn run(&mut self, until_us: u64, mut done: impl FnMut(&Self) -> bool) -> Check {
        while let Some(Reverse((at_us, _, place))) = self.queue.peek().copied() {
            if at_us > until_us {
                break;
            }
            self.queue.pop();
            self.now_us = at_us;
            let (whom, what) = self.due[place as usize].take().expect("due once");
            self.free.push(place);
            match whom {
                Whom::World(deed) => self.deed(deed)?,
                Whom::Server(server, life) => {
                    if self.servers[server].life == life && self.servers[server].node.is_some() {
                        self.happen(server, what)?;
                    } else if let What::Link { link, to } = what {
                        self.links[link].wire[to].clear();
                    }
                }
            }
            if done(self) {
                return Ok(());
            }
        }
        self.now_us = self.now_us.max(until_us);
        Ok(())
    }

    // Servers

    pub fn config(&self, server: usize) -> Config {
        Config {
            tick_ms: TICK_MS,
            init_limit_ticks: INIT_LIMIT_TICKS,
            connect_limit_ticks: INIT_LIMIT_TICKS,
            sync_limit_ticks: SYNC_LIMIT_TICKS,
            finalize_wait_ms: 40,
            notification_interval_ms_min: 40,
            notification_interval_ms_max: 1000,
            dial_retry_ms: 20,
            force_snapshot: self.plan.force_snapshot,
            diff_records_max: self.plan.diff_records_max,
            join_records_max: self.plan.join_records_max,
            first_counter: self.plan.first_counter,
            mutation: self.plan.mutation,
            ..Config::new(ServerId(server as i64 + 1), self.ensemble.clone())
        }
    }

    pub fn is_up(&self, server: usize) -> bool {
        self.servers[server].node.is_some()
    }

    pub fn start(&mut self, server: usize) -> Check {
        if self.is_up(server) || self.down.contains(&server) {
            return Ok(());
        }
        let config = self.config(server);
        let now_ms = self.clock_ms(server);
        let mut effects = std::mem::take(&mut self.effects);
        if self.plan.loses_epoch_files {
            self.lose_epoch_files(server);
        }
        let state = &mut self.servers[server];
        let recovered = state.found.take().unwrap_or_else(|| state.disk.recovered());
        let node = Node::member(config, recovered, now_ms, &mut effects).expect("an ensemble of ours");
        let state = &mut self.servers[server];
        state.applied = state.disk.entries().len();
        state.node = Some(node);
        self.servers.iter_mut().for_each(|other| other.alone_since_us = None);
        self.note(server, || "starts".to_owned());
        let whom = self.whom(server);
        let delay_us = self.rng.below(10_000);
        self.after(delay_us, whom, What::Tick);
        for peer in (0..self.servers.len()).filter(|peer| *peer != server) {
            self.connect_peers(server, peer);
        }
        self.carry_out(server, effects)
    }

    /// Before a start: none of the numbers that this server stands for changes. Later on they are what the log says then.
    fn lose_epoch_files(&mut self, server: usize) {
        // Dice of their own: what else happens in the schedule stays as it is.
        let mut rng = Rng::new(self.plan.seed ^ self.now_us.rotate_left(20) ^ server as u64);
        let state = &mut self.servers[server];
        for file in [EpochFile::Accepted, EpochFile::Current] {
            if !state.disk.can_do_without(file) || !rng.chance(60) {
                continue;
            }
            state.disk.lose_epoch(file);
            if let Some(store) = &state.store {
                store.lose_epoch(file);
            }
            if let Some(found) = &mut state.found {
                match file {
                    EpochFile::Accepted => found.accepted_epoch = None,
                    EpochFile::Current => found.current_epoch = None,
                }
            }
        }
    }

    pub fn clock_ms(&self, server: usize) -> u64 {
        self.now_us / 1000 + self.servers[server].ahead_ms
    }

    /// Something happens to a server that lives.
    fn happen(&mut self, server: usize, what: What) -> Check {
        let state = &mut self.servers[server];
        if matches!(what, What::Resume) {
            return self.resume(server);
        }
        let disk_done =
            matches!(what, What::Truncated { .. } | What::InstallCut { .. } | What::InstallRename { .. });
        let paused_until_us = state.paused_until_us;
        if disk_done && paused_until_us > self.now_us {
            // It is what the busy server waits for, so it must not wait behind the rest.
            let whom = self.whom(server);
            self.at(paused_until_us, whom, what);
            return Ok(());
        }
        if paused_until_us > self.now_us || (state.busy && !disk_done) {
            state.inbox.push_back(what);
            return Ok(());
        }
        self.dispatch(server, what)
    }

    pub fn resume(&mut self, server: usize) -> Check {
        self.servers.iter_mut().for_each(|other| other.alone_since_us = None);
        while self.servers[server].paused_until_us <= self.now_us && !self.servers[server].busy {
            let Some(what) = self.servers[server].inbox.pop_front() else { break };
            self.dispatch(server, what)?;
            if !self.is_up(server) {
                break;
            }
        }
        Ok(())
    }

    /// One event of the protocol, and all that follows from it at this server.
    pub fn step(&mut self, server: usize, event: Event) -> Check {
        let now_ms = self.clock_ms(server);
        let mut effects = std::mem::take(&mut self.effects);
        let Some(node) = self.servers[server].node.as_mut() else { return Ok(()) };
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return self.violated("Storm", format!("{STEPS_MAX} events by {} us", self.now_us));
        }
        if let Some(trace) = &mut self.trace
            && event != Event::Tick
        {
            trace.push(format!("{:9} {server} <- {event:?}", self.now_us));
        }
        node.step(now_ms, event, &mut effects);
        self.carry_out(server, effects)
    }

    fn carry_out(&mut self, server: usize, mut effects: Vec<Effect>) -> Check {
        let mut follow_up = Vec::new();
        for effect in effects.drain(..) {
            if let Some(trace) = &mut self.trace
                && !matches!(effect, Effect::Notify { .. })
            {
                trace.push(format!("{:9} {server} -> {effect:?}", self.now_us));
            }
            self.effect(server, effect, &mut follow_up)?;
        }
        if self.effects.capacity() == 0 {
            self.effects = effects;
        }
        self.start_flush(server);
        for event in follow_up {
            self.step(server, event)?;
        }
        Ok(())
    }

    pub fn submit(&mut self, server: usize, session: SessionId, payload: u64) -> Check {
        let Some(zxid) = self.servers[server].node.as_ref().and_then(Node::next_zxid) else { return Ok(()) };
        let record = self.prepare(server, session, payload, zxid);
        let payload = self.payload_of(&record);
        self.checks.submitted(zxid, payload);
        self.step(server, Event::Submit { zxid, record })
    }

    pub fn disks(&self) -> Vec<&Disk> {
        self.servers.iter().map(|server| &server.disk).collect()
    }

    pub fn note(&mut self, server: usize, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:9} {server} == {}", self.now_us, text()));
        }
    }

    pub fn violated(&self, invariant: &'static str, story: String) -> Check {
        Err(Violation { invariant, story })
    }
}

impl Server {
    fn new() -> Self {
        Self {
            node: None,
            life: 0,
            disk: Disk::default(),
            store: None,
            found: None,
            applied: 0,
            serving: None,
            ahead_ms: 0,
            paused_until_us: 0,
            busy: false,
            inbox: VecDeque::new(),
            flush_generation: 0,
            flushing: false,
            epochs_free_at_us: 0,
            slow_until_us: 0,
            flush_us: None,
            stuck_since_us: None,
            installing: None,
            alone_since_us: None,
            clients: Clients::default(),
        }
    }
}
