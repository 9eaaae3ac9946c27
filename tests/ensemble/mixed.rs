//! Servers of both kinds in one ensemble, and the way from one kind to the other and back without a stop.

use crate::{
    cluster::{Cluster, Shape},
    history::Syncs,
    load::{Load, Plan, Report},
    partition,
    peers::Kind,
    rounds,
};
use std::time::Duration;

/// Under `ZKFAST_UNDER_TEST=apache` both kinds are Apache's: the scenes themselves are checked.
fn zkfast() -> Kind {
    Kind::under_test()
}

/// How a leader brings a learner up to date that was away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sync {
    /// With the transactions that it missed.
    Diff,
    /// With the whole tree, whatever it missed.
    Snapshot,
}

impl Sync {
    fn shape(self) -> Shape {
        let lines = match self {
            Self::Diff => vec!["commitLogCount=100000".into()],
            Self::Snapshot => vec!["forceSnapshotSync=true".into()],
        };
        Shape { lines, ..Shape::default() }
    }

    /// What a learner of Apache's says about it.
    fn words(self) -> &'static str {
        match self {
            Self::Diff => "Getting a diff from the leader",
            Self::Snapshot => "Getting a snapshot from leader",
        }
    }
}

/// Has this server lead, by restarting whoever else leads.
fn make_lead(cluster: &mut Cluster, wanted: impl Fn(&Cluster, usize) -> bool) -> usize {
    for _ in 0..20 {
        let leader = cluster.leader();
        if wanted(cluster, leader) {
            return leader;
        }
        cluster.stop(leader);
        cluster.leader();
        cluster.launch(leader);
        cluster.await_all();
    }
    panic!("20 elections, and never the wanted leader");
}

/// What came of a scene, which is set once more if a server of Apache's lost something by itself. Nothing excuses the loss
/// of a session.
fn play(scene: impl Fn() -> Report) -> Report {
    let set = || {
        let report = scene();
        assert_eq!(report.expired, 0, "seed {}: sessions are lost", report.seed);
        report
    };
    let mut report = set();
    if let Some(race) = report.apaches_own.take() {
        eprintln!("seed {}: the scene is set once more: {race}", report.seed);
        report = set();
    }
    assert_eq!(report.apaches_own, None, "seed {}: twice in a row is no coincidence", report.seed);
    report
}

/// A leader of `leading`, then every other server away for a while.
fn learners_come_back(cluster: &mut Cluster, load: &Load, leading: Kind, sync: Sync) {
    let leader = make_lead(cluster, |cluster, index| cluster.kind(index) == leading);
    for follower in (0..cluster.size()).filter(|index| *index != leader) {
        for missed in [20, 1_000] {
            cluster.kill(follower);
            load.await_writes(missed);
            cluster.launch(follower);
            cluster.await_all();
            if cluster.kind(follower) == Kind::Apache {
                cluster.server(follower).await_log(&[sync.words()]);
            }
        }
        assert_eq!(cluster.leader(), leader, "a follower's restart changes no leader");
    }
    load.await_writes(50);
}

fn mix(kinds: &[Kind; 3], sync: Sync) {
    let report = play(|| mixed(kinds, sync));
    println!("{kinds:?}: {} writes", report.history.acknowledged().len());
}

fn mixed(kinds: &[Kind; 3], sync: Sync) -> Report {
    let mut cluster = Cluster::start(kinds, sync.shape());
    let load = Load::start(&cluster, Plan { moves_one_in: 30, ..Plan::default() });
    let mut leading = vec![Kind::Apache];
    if zkfast() != Kind::Apache {
        leading.push(zkfast());
    }
    for kind in leading {
        learners_come_back(&mut cluster, &load, kind, sync);
    }
    load.end(&cluster, Syncs::AreFresh)
}

/// Danger: the two kinds do not agree on a packet, a vote or a digest, and the ensemble falls apart or its trees differ.
/// Apache's NEWLEADER has a configuration in it (G36). Led by either kind (Q72, Q74), with history and with images (Q54).
#[test]
fn one_zkfast_beside_two_of_apache() {
    mix(&[Kind::Apache, Kind::Apache, zkfast()], Sync::Diff);
    mix(&[Kind::Apache, Kind::Apache, zkfast()], Sync::Snapshot);
}

/// Danger: the same, with the majority on our side.
#[test]
fn two_zkfast_beside_one_of_apache() {
    mix(&[zkfast(), Kind::Apache, zkfast()], Sync::Diff);
    mix(&[zkfast(), Kind::Apache, zkfast()], Sync::Snapshot);
}

/// Danger: what only a dead leader of one kind logged is not cut off by a leader of the other (TRUNC, both ways).
#[test]
fn a_leader_of_either_kind_cuts_off_what_the_other_kind_logged_alone() {
    // The largest id leads an ensemble that is started whole.
    partition::cut_off(&[zkfast(), zkfast(), Kind::Apache]);
    partition::cut_off(&[Kind::Apache, Kind::Apache, zkfast()]);
}

/// Danger: an operator who migrates one server at a time loses writes, or has to stop the service.
#[test]
fn an_ensemble_is_migrated_server_by_server_and_back() {
    let report = play(migrated);
    let gap = report.history.longest_gap();
    println!(
        "migration there and back: {} writes, longest gap between two {:.3} s",
        report.history.acknowledged().len(),
        gap.as_secs_f64()
    );
    assert!(gap < Duration::from_secs(15), "seed {}: no write for {gap:?}", report.seed);
}

fn migrated() -> Report {
    let mut cluster = Cluster::start(&[Kind::Apache; 3], Shape::default());
    let load = Load::start(&cluster, Plan::default());
    for (kind, name) in [(zkfast(), "to zkfast"), (Kind::Apache, "back to Apache")] {
        let begun = load.now();
        // Followers first, the leader last, as one does it.
        let leader = cluster.leader();
        let followers = (0..cluster.size()).filter(|index| *index != leader);
        for index in followers.chain([leader]).collect::<Vec<_>>() {
            load.await_writes(50);
            cluster.stop(index);
            cluster.become_kind(index, kind);
            cluster.launch(index);
            cluster.await_all();
        }
        load.await_writes(50);
        println!("{name}: {:.1} s", (load.now() - begun).as_secs_f64());
    }
    load.end(&cluster, Syncs::AreFresh)
}

/// Danger: what a leader of one kind acknowledged is missing in the tree of the next one. Each leader is stopped soon
/// after it has begun, while clients write.
#[test]
fn leaders_of_both_kinds_take_turns() {
    for kinds in [[zkfast(), Kind::Apache, zkfast()], [Kind::Apache, zkfast(), Kind::Apache]] {
        let report = play(|| took_turns(&kinds));
        println!("{kinds:?}: {} writes", report.history.acknowledged().len());
    }
}

fn took_turns(kinds: &[Kind; 3]) -> Report {
    let mut cluster = Cluster::start(kinds, Shape::default());
    let load = Load::start(&cluster, Plan::default());
    for _ in 0..rounds(3) {
        load.await_writes(20);
        let leader = cluster.leader();
        cluster.stop(leader);
        cluster.leader();
        cluster.launch(leader);
        cluster.await_all();
    }
    load.end(&cluster, Syncs::AreFresh)
}
