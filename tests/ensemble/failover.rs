//! Servers that are killed while clients write.

use crate::{
    cluster::{Cluster, Shape},
    history::Syncs,
    load::{Load, Plan},
    peers::{Dice, Kind},
    rounds, summary,
};
use std::time::Duration;

/// Danger: an acknowledged write dies with its leader, or nobody takes writes for long. Kills the leader again and
/// again; it comes back each time and the ensemble is whole before the next one dies.
#[test]
fn kill_9_of_the_leader_loses_nothing() {
    let mut cluster = Cluster::start(&[Kind::under_test(); 3], Shape::default());
    let load = Load::start(&cluster, Plan::default());
    let mut times = Vec::new();
    for _ in 0..rounds(5) {
        load.await_writes(200);
        let leader = cluster.leader();
        let moment = load.now();
        cluster.kill(leader);
        // Counted from the kill; but what the dying leader may have acknowledged still is no write that a survivor took.
        let dead = load.now();
        times.push(dead - moment + load.await_write_after(dead));
        cluster.launch(leader);
        cluster.await_all();
    }
    let report = load.finish(&cluster, Syncs::AreFresh);
    println!("kill -9 of the leader until a write is accepted again: {}", summary(&times));
    assert_eq!(report.expired, 0, "seed {}: sessions are lost", report.seed);
}

/// Danger: the death of one follower disturbs clients of the others.
#[test]
fn kill_9_of_a_follower_does_not_stop_writes() {
    let mut cluster = Cluster::start(&[Kind::under_test(); 3], Shape::default());
    let load = Load::start(&cluster, Plan::default());
    for _ in 0..rounds(2) {
        load.await_writes(200);
        let follower = cluster.follower();
        let leader = cluster.leader();
        cluster.kill(follower);
        load.await_writes(200);
        assert_eq!(cluster.leaders(), [leader], "one of three may die");
        cluster.launch(follower);
        cluster.await_all();
    }
    let report = load.finish(&cluster, Syncs::AreFresh);
    let gap = report.history.longest_gap();
    println!("kill -9 of a follower: longest gap between writes {:.3} s", gap.as_secs_f64());
    assert!(gap < Duration::from_secs(10), "seed {}: no write for {gap:?}", report.seed);
    assert_eq!(report.expired, 0, "seed {}: sessions are lost", report.seed);
}

/// Danger: a server that was only frozen goes on as leader beside the one that was elected meanwhile.
#[test]
fn a_frozen_leader_that_wakes_up_leads_no_more() {
    let mut cluster = Cluster::start(&[Kind::under_test(); 3], Shape::default());
    let load = Load::start(&cluster, Plan { patience: Duration::from_millis(500), ..Plan::default() });
    load.await_writes(100);
    let old = cluster.leader();
    cluster.server(old).freeze(true);
    let moment = load.now();
    cluster.await_modes("another leader", |modes| {
        modes.iter().enumerate().any(|(index, mode)| index != old && mode.as_deref() == Some("leader"))
    });
    println!("a frozen leader is replaced within {:.3} s", load.await_write_after(moment).as_secs_f64());
    cluster.server(old).freeze(false);
    cluster.await_all();
    assert_ne!(cluster.leader(), old);
    load.await_writes(100);
    load.finish(&cluster, Syncs::MayMeetADeposedLeader);
    cluster.stop(old);
}

/// Danger: a server that stands still for a while, or wakes up in a world that went on without it, loses, invents or
/// splits something. Freezes any server for as long as it takes from below to above syncLimit. Clients of a frozen one
/// come back through another with their sessions (S10), none of which may be lost.
#[test]
fn frozen_servers_lose_nothing() {
    let cluster = Cluster::start(&[Kind::under_test(); 3], Shape::default());
    let load = Load::start(&cluster, Plan { patience: Duration::from_millis(500), ..Plan::default() });
    let mut dice = Dice::new(Dice::seed());
    for round in 0..rounds(2) {
        load.await_writes(50);
        let leader = cluster.leader();
        let frozen = if round % 2 == 0 { leader } else { (leader + 1 + dice.below(2)) % 3 };
        cluster.server(frozen).freeze(true);
        // Sleeps because the length of the fault is the point.
        std::thread::sleep(Duration::from_millis(100 + dice.below(3_000) as u64));
        cluster.server(frozen).freeze(false);
        cluster.await_all();
        load.await_writes(50);
        println!(
            "round {round}: {} {} froze",
            if frozen == leader { "leader" } else { "follower" },
            frozen + 1
        );
    }
    let report = load.finish(&cluster, Syncs::MayMeetADeposedLeader);
    let gap = report.history.longest_gap();
    println!("frozen servers: longest gap between writes {:.3} s", gap.as_secs_f64());
    assert_eq!(report.expired, 0, "seed {}: sessions are lost", report.seed);
}
