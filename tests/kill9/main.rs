//! kill -9 under write load, again and again, with a checker that knows each acknowledged write.
//!
//! Four workers, each with a session and a folder of its own, pipeline creates, sets, deletes and multis, nodes of every
//! kind and values of up to 200 KB among them; and all set one node, each time with its version. Every other round the
//! server has one core (the log is written through a ring) or two (the pipeline writes itself). A worker's requests are executed in order, so after a crash its folder must show
//! the effect of *some* prefix of what it sent, and that prefix must hold everything that was acknowledged: nothing
//! lost, nothing invented, nothing out of order. Snapshots roll during the run.
//!
//! `ZKFAST_KILLS=1000 cargo test --release --test kill9` runs longer; `ZKFAST_SEED` plays the same load again (the
//! instants of the kills depend on the machine).

#[path = "../peers/mod.rs"]
mod peers;

mod model;
mod worker;

use model::{Ledger, SHARED};
use peers::{Client, Dice, Kind, Server, Settings};
use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};
use worker::Worker;

const WORKERS: usize = 4;
const TICK_MS: u64 = 500;
const ABANDONED_TIMEOUT_MS: u64 = 1_000;

fn settings(round: u32) -> Settings {
    Settings {
        tick_ms: 500,
        cores: 1 + round % 2,
        // A snapshot and a new log file every few hundred transactions.
        snap_count: 600,
        // Long enough for the slowest restart of a busy machine; workers must never lose a session to a crash.
        lines: vec!["maxSessionTimeout=60000".into(), "extendedTypesEnabled=true".into()],
        ..Settings::default()
    }
}

fn kills() -> u32 {
    match std::env::var("ZKFAST_KILLS") {
        Ok(text) => text.parse().expect("ZKFAST_KILLS is a number"),
        Err(_) => 100,
    }
}

/// Danger: an acknowledged write is lost, an unsent or torn one appears, a session or ephemeral is lost or undead.
#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_invented() {
    let seed = Dice::seed();
    println!("ZKFAST_SEED={seed}");
    let mut dice = Dice::new(seed);
    let home = peers::directory();
    let kind = Kind::under_test();
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut workers: Vec<Worker> =
        (0..WORKERS).map(|index| Worker::new(index, seed, Arc::clone(&ledger))).collect();
    let mut server = Server::start(kind, home.path(), &settings(0));
    let mut setup = server.client(10_000);
    for path in ["/k", "/short", SHARED] {
        setup.create(path, b"", 0).expect("a fresh tree");
    }
    setup.close();
    let (mut acknowledged, mut unanswered) = (0_u64, 0_u64);
    for round in 0..kills() {
        let target = 50 + dice.below(3_000) as u64;
        acknowledged += load(&mut workers, server, target, round);
        if round % 5 == 4 {
            // Killed again in the middle of its recovery.
            Server::start_and_kill(
                kind,
                home.path(),
                &settings(round + 1),
                Duration::from_millis(dice.below(40) as u64),
            );
        }
        let spawned = Instant::now();
        server = Server::start(kind, home.path(), &settings(round + 1));
        let ready = Instant::now();
        unanswered += workers.iter().map(|worker| worker.pending() as u64).sum::<u64>();
        let mut checker = server.client(30_000);
        let sets: Vec<_> = workers.iter().flat_map(Worker::pending_sets).collect();
        let (data, stat) = checker.get(SHARED, false).expect("the shared node");
        ledger.lock().expect("the ledger").check(data.unwrap_or_default(), stat.version, &sets, round);
        for worker in &mut workers {
            worker.check(&server, &mut checker, round);
        }
        check_abandoned(&mut checker, round, spawned, ready);
        checker.close();
    }
    let status = server.stop();
    println!("{acknowledged} writes acknowledged, {unanswered} unanswered at a kill, then {status}");
    assert!(acknowledged > u64::from(kills()) * 50, "hardly any load");
}

/// Runs the workers until `target` writes are acknowledged in all, opens a session that nobody will come back for,
/// and kills the server at that moment.
fn load(workers: &mut [Worker], server: Server, target: u64, round: u32) -> u64 {
    let address = server.address;
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for worker in &mut *workers {
            let sender = sender.clone();
            scope.spawn(move || worker.run(address, &sender));
        }
        drop(sender);
        let mut acknowledged = 0;
        while acknowledged < target {
            acknowledged += receiver.recv_timeout(peers::DEADLINE).expect("the server answers writes");
        }
        let mut abandoned = server.client(i32::try_from(ABANDONED_TIMEOUT_MS).expect("small"));
        abandoned.create(&format!("/short/{round}"), b"", 1).expect("an ephemeral");
        server.kill();
        // What arrived before the end of the connections counts too.
        acknowledged + receiver.iter().sum::<u64>()
    })
}

/// The abandoned sessions: their ephemerals are there after the restart, for a whole timeout, and then they go.
fn check_abandoned(checker: &mut Client, round: u32, spawned: Instant, ready: Instant) {
    let path = format!("/short/{round}");
    let there = checker.exists(&path, true).is_ok();
    let looked = Instant::now();
    let timeout = Duration::from_millis(ABANDONED_TIMEOUT_MS);
    assert!(
        there || looked - spawned >= timeout,
        "round {round}: the ephemeral of a live session is gone {:?} after the restart began",
        looked - spawned
    );
    if round % 10 != 9 {
        return;
    }
    if there {
        assert_eq!(checker.event(), (2, path));
        assert!(spawned.elapsed() >= timeout, "round {round}: expired early");
    }
    // The sessions of earlier rounds got their timeout at the same restart, so they go in the same tick.
    while !checker.children("/short", true).expect("a folder").0.is_empty() {
        assert_eq!(checker.event(), (4, "/short".into()));
    }
    let limit = timeout + Duration::from_millis(2 * TICK_MS + 2_000);
    assert!(ready.elapsed() <= limit, "round {round}: expired only after {:?}", ready.elapsed());
}
