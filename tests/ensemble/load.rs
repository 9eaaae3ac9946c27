//! Clients that write and read all the time, whatever happens to the servers, and record it.
//!
//! Each has a session, an ephemeral node that must live as long as the session, and a few registers that it shares with
//! the others. One more client watches: it must be told of a change before it sees the changed data.

use crate::{
    apaches_race::{Proven, has_an_old_tree, ordered_on_an_old_tree},
    cluster::Cluster,
    history::{Action, Entry, History, Outcome, Syncs},
    peers::{Client, DEADLINE, Dice, Kind, tree},
    session::{Failure, Session},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use zkfast_wire::OpCode;

/// What the clients do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Clients that write and read.
    pub clients: usize,
    /// Registers, shared by all.
    pub keys: usize,
    /// Session timeout that they ask for, milliseconds.
    pub timeout_ms: i32,
    /// How long an answer may take before a client tries another server.
    pub patience: Duration,
    /// One request in so many goes to another server than the last.
    pub moves_one_in: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self { clients: 6, keys: 4, timeout_ms: 8_000, patience: Duration::from_secs(2), moves_one_in: 100 }
    }
}

/// Every load of this process has nodes of its own.
static LOADS: AtomicUsize = AtomicUsize::new(0);

fn key_path(root: &str, key: usize) -> String {
    format!("{root}/key-{key}")
}

struct Shared {
    /// Below which the load has all of its nodes.
    root: String,
    begun: Instant,
    is_over: AtomicBool,
    entries: Mutex<Vec<Entry>>,
    /// What a client saw that cannot be, beside the registers.
    complaints: Mutex<Vec<String>>,
    expired: AtomicUsize,
}

impl Shared {
    fn complain(&self, what: String) {
        self.complaints.lock().expect("no holder panics").push(what);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// A load that runs.
pub struct Load {
    plan: Plan,
    seed: u64,
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

/// What a load did and saw.
pub struct Report {
    /// The registers' history, their ends included.
    pub history: History,
    /// Sessions that the servers did not know any more, though their clients never stopped.
    pub expired: usize,
    /// For the message of a failure.
    pub seed: u64,
    /// What a server of Apache's lost by itself, in words: of those writes the run proves nothing.
    pub apaches_own: Option<String>,
}

impl Load {
    /// Makes the registers and starts the clients.
    pub fn start(cluster: &Cluster, plan: Plan) -> Self {
        let seed = Dice::seed();
        let addresses = cluster.addresses();
        let mut maker = Session::new(addresses.clone(), plan.timeout_ms, plan.patience);
        let mut make = |path: &str| loop {
            assert!(maker.connect(DEADLINE), "no server takes a session");
            match maker.create(path, b"", 0) {
                // -110: it exists, from a try without an answer or from an earlier load.
                Ok(()) | Err(Failure::Refused(-110)) => return,
                Err(Failure::Lost) => {}
                Err(other) => panic!("create {path}: {other:?}"),
            }
        };
        let root = format!("/load-{}", LOADS.fetch_add(1, Ordering::Relaxed));
        make(&root);
        for key in 0..plan.keys {
            make(&key_path(&root, key));
        }
        let shared = Arc::new(Shared {
            root,
            begun: Instant::now(),
            is_over: AtomicBool::new(false),
            entries: Mutex::default(),
            complaints: Mutex::default(),
            expired: AtomicUsize::new(0),
        });
        let mut clients = Vec::new();
        for client in 0..plan.clients {
            let (plan, shared, addresses) = (plan.clone(), Arc::clone(&shared), addresses.clone());
            clients.push(std::thread::spawn(move || Worker::run(client, seed, plan, &addresses, &shared)));
        }
        let (watch_plan, watch_shared) = (plan.clone(), Arc::clone(&shared));
        clients.push(std::thread::spawn(move || {
            watch(&watch_plan, addresses, &watch_shared);
        }));
        maker.close(DEADLINE);
        Self { plan, seed, shared, clients }
    }

    /// Since the beginning of the history.
    pub fn now(&self) -> Duration {
        self.shared.begun.elapsed()
    }

    /// Waits until `count` writes are acknowledged that began after the call, at most the common deadline.
    pub fn await_writes(&self, count: usize) {
        let moment = self.now();
        self.await_enough(&format!("{count} writes"), || {
            (self.acknowledged_after(moment).len() >= count).then_some(())
        });
    }

    /// Waits until a write is acknowledged that began after `moment`; how long that took from `moment` on.
    pub fn await_write_after(&self, moment: Duration) -> Duration {
        self.await_enough("write", || {
            self.acknowledged_after(moment).into_iter().min().map(|ended| ended - moment)
        })
    }

    fn await_enough<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(result) = look() {
                return result;
            }
            assert!(Instant::now() < deadline, "no {what} within {DEADLINE:?}, seed {}", self.seed);
            // Polled: the clients are not to be slowed down by telling.
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends of the acknowledged writes that began after `moment`. Entries are in order of their ends, but for the time
    /// that a client may wait for the lock: looking from the back, the first that ended well before is far enough.
    fn acknowledged_after(&self, moment: Duration) -> Vec<Duration> {
        let entries = self.shared.entries.lock().expect("no holder panics");
        let recent = entries.iter().rev().take_while(|entry| entry.ended + Duration::from_secs(1) > moment);
        recent
            .filter(|entry| entry.begun > moment)
            .filter(|entry| matches!((entry.action, entry.outcome), (Action::Write(_), Outcome::Done { .. })))
            .map(|entry| entry.ended)
            .collect()
    }

    /// Ends the load and checks everything: the history, ephemerals, watches, and that all servers that run have the
    /// same tree.
    #[track_caller]
    pub fn finish(self, cluster: &Cluster, syncs: Syncs) -> Report {
        let report = self.end(cluster, syncs);
        assert_eq!(report.apaches_own, None, "seed {}", report.seed);
        report
    }

    /// The same, but what is shown to be Apache's own does not fail; the servers' directories are kept then.
    #[track_caller]
    pub fn end(self, cluster: &Cluster, syncs: Syncs) -> Report {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        let entries = std::mem::take(&mut *self.shared.entries.lock().expect("no holder panics"));
        let mut history = History { entries, ..History::default() };
        let mut trees = Vec::new();
        for index in (0..cluster.size()).filter(|index| cluster.is_running(*index)) {
            trees.push((index, whole_tree(cluster, index)));
        }
        let paths: Vec<String> = (0..self.plan.keys).map(|key| key_path(&self.shared.root, key)).collect();
        let mut proven = Proven::default();
        let (first, tree_of_first) = &trees[0];
        for (index, other) in &trees[1..] {
            let race = has_an_old_tree(cluster, *index, &paths, other, tree_of_first)
                .or_else(|| has_an_old_tree(cluster, *first, &paths, tree_of_first, other));
            if let Some(race) = race {
                proven.extend(race);
                continue;
            }
            let story = format!("server {} against server {}, seed {}", first + 1, index + 1, self.seed);
            tree::assert_equal(tree_of_first, other, &story);
        }
        for key in 0..self.plan.keys {
            // Where one of them is old, the others have what was written last.
            let nodes = trees.iter().map(|(_, tree)| &tree[&paths[key]]);
            let node = nodes.max_by_key(|node| node.stat.mzxid).expect("a server that runs");
            history.last.insert(key, (node.stat.version, value_of(node.data.as_deref().unwrap_or_default())));
        }
        let mut found = std::mem::take(&mut *self.shared.complaints.lock().expect("no holder panics"));
        proven.extend(ordered_on_an_old_tree(cluster, &paths, &history));
        let rest = proven.left_out_of(&history);
        found.extend(rest.contradictions(syncs).into_values().flatten());
        found.extend(
            tree_of_first
                .keys()
                .filter(|path| path.contains("/alive-"))
                .map(|path| format!("{path} outlives its session")),
        );
        // Apache 3.8.0 finds its own digests wrong after some restarts, so only our own ensembles are held to it.
        if (0..cluster.size()).all(|index| cluster.kind(index) == Kind::Zkfast) {
            for index in (0..cluster.size()).filter(|index| cluster.is_running(*index)) {
                let count = cluster.server(index).monitor("zk_digest_mismatches_count");
                if count.as_deref() != Some("0") {
                    found.push(format!("server {} met {count:?} wrong digests", index + 1));
                }
                found.extend(gap_line(cluster, index));
            }
        }
        found.truncate(20);
        assert!(found.is_empty(), "seed {}:\n{}", self.seed, found.join("\n"));
        assert!(!history.acknowledged().is_empty(), "a load without a write");
        let apaches_own = proven.words().inspect(|_| cluster.keep());
        let expired = self.shared.expired.load(Ordering::Relaxed);
        Report { history, expired, seed: self.seed, apaches_own }
    }
}

/// A line of any life of this server that tells of zxids which the leader left out. A leader of our own leaves out none.
pub fn gap_line(cluster: &Cluster, index: usize) -> Option<String> {
    let log = cluster.log_text(index);
    log.lines()
        .find(|line| line.contains("the leader used up"))
        .map(|line| format!("server {}: {line}", index + 1))
}

/// The tree of one server, once it has everything that was committed before.
pub fn whole_tree(cluster: &Cluster, index: usize) -> tree::Tree {
    let mut client = Client::connect(cluster.address(index), 8_000);
    client.call(OpCode::Sync, &crate::peers::client::path_alone("/")).expect("sync");
    let mut tree = tree::read(&mut client, "/");
    client.close();
    // Kept by each server for itself in Apache 3.8, and no part of the replicated state.
    tree.remove("/zookeeper/config");
    tree
}

fn value_of(data: &[u8]) -> u64 {
    data.try_into().map_or(0, u64::from_be_bytes)
}

struct Worker<'a> {
    client: usize,
    plan: Plan,
    dice: Dice,
    session: Session,
    shared: &'a Shared,
    writes: u64,
}

impl<'a> Worker<'a> {
    fn run(client: usize, seed: u64, plan: Plan, addresses: &[SocketAddr], shared: &'a Shared) {
        let mut session = Session::new(addresses.to_vec(), plan.timeout_ms, plan.patience);
        session.move_to(client);
        let dice = Dice::new(seed ^ (client as u64 + 1).wrapping_mul(0x9e37_79b9));
        let mut worker = Self { client, plan, dice, session, shared, writes: 0 };
        worker.work();
        shared.expired.fetch_add(worker.session.expired, Ordering::Relaxed);
        worker.session.close(DEADLINE);
    }

    fn work(&mut self) {
        let mut connections = 0;
        let mut alive = 0;
        while !self.shared.is_over() {
            if !self.session.connect(Duration::from_millis(200)) {
                continue;
            }
            if self.session.connections != connections {
                connections = self.session.connections;
                if self.check_ephemeral(alive).is_err() {
                    continue;
                }
                alive = self.session.id();
            }
            if self.dice.one_in(self.plan.moves_one_in) {
                let server = self.dice.below(64);
                self.session.move_to(server);
                continue;
            }
            let key = self.dice.below(self.plan.keys);
            match self.dice.below(10) {
                0..6 => self.write(key),
                6..8 => self.read(key, true),
                _ => self.read(key, false),
            }
        }
    }

    /// After a new connection: the session's node is there, or is made if the session is new.
    fn check_ephemeral(&mut self, alive: i64) -> Result<(), Failure> {
        let path = format!("{}/alive-{:x}", self.shared.root, self.session.id());
        if alive != self.session.id() {
            return match self.session.create(&path, b"", 1) {
                // A try without an answer has made it.
                Err(Failure::Refused(-110)) => Ok(()),
                other => other,
            };
        }
        self.session.sync(&path)?;
        match self.session.get(&path, false) {
            Ok(_) => Ok(()),
            Err(Failure::Lost) => Err(Failure::Lost),
            Err(Failure::Refused(err)) => {
                let complaint = format!("{path} of a living session is gone: {err}");
                self.shared.complain(complaint);
                Ok(())
            }
        }
    }

    fn record(&self, key: usize, begun: Duration, action: Action, outcome: Outcome) {
        let ended = self.shared.begun.elapsed();
        let entry = Entry { client: self.client, key, begun, ended, action, outcome };
        self.shared.entries.lock().expect("no holder panics").push(entry);
    }

    fn write(&mut self, key: usize) {
        self.writes += 1;
        let value = (self.client as u64 + 1) << 40 | self.writes;
        let begun = self.shared.begun.elapsed();
        let outcome = match self.session.set(&key_path(&self.shared.root, key), &value.to_be_bytes()) {
            Ok(stat) => Outcome::Done { version: stat.version, mzxid: stat.mzxid.0, value },
            Err(Failure::Lost) => Outcome::Unknown,
            // The session is at its end: it did not happen. That it moved no client is ever told.
            Err(Failure::Refused(-112)) => return,
            Err(Failure::Refused(err)) => panic!("setData of key {key}: {err}"),
        };
        self.record(key, begun, Action::Write(value), outcome);
    }

    fn read(&mut self, key: usize, is_synced: bool) {
        let path = key_path(&self.shared.root, key);
        let begun = self.shared.begun.elapsed();
        if is_synced && self.session.sync(&path).is_err() {
            return;
        }
        if let Ok((data, stat)) = self.session.get(&path, false) {
            let is_fresh = is_synced && self.session.sync_is_a_barrier;
            let action = if is_fresh { Action::SyncedRead } else { Action::Read };
            let value = value_of(&data);
            self.record(
                key,
                begun,
                action,
                Outcome::Done { version: stat.version, mzxid: stat.mzxid.0, value },
            );
        }
    }
}

/// Watches register 0: the event must come before any answer that shows a later version.
fn watch(plan: &Plan, addresses: Vec<SocketAddr>, shared: &Shared) {
    let path = key_path(&shared.root, 0);
    let mut session = Session::new(addresses, plan.timeout_ms, plan.patience);
    while !shared.is_over() {
        if !session.connect(Duration::from_millis(200)) {
            continue;
        }
        session.take_events();
        let Ok((_, watched)) = session.get(&path, true) else { continue };
        while !shared.is_over() {
            let Ok((_, stat)) = session.get(&path, false) else { break };
            let is_told = !session.take_events().is_empty();
            if let Some(complaint) = data_before_watch(watched.version, stat.version, is_told) {
                shared.complain(complaint);
            }
            if is_told {
                break;
            }
        }
    }
    shared.expired.fetch_add(session.expired, Ordering::Relaxed);
    session.close(DEADLINE);
}

fn data_before_watch(watched: i32, seen: i32, is_told: bool) -> Option<String> {
    (seen > watched && !is_told)
        .then(|| format!("version {seen} was seen before the watch on {watched} fired"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_that_comes_before_its_watch_is_noticed() {
        assert!(data_before_watch(3, 4, false).is_some());
        assert!(data_before_watch(3, 4, true).is_none() && data_before_watch(3, 3, false).is_none());
    }
}
