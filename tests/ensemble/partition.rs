//! Networks that come apart and together again.

use crate::{
    cluster::{Cluster, SYNC_LIMIT_TICKS, Shape, TICK_MS},
    history::Syncs,
    load::{self, Load, Plan},
    peers::{Dice, Kind, client},
    proxy::Way,
    rounds,
};
use std::time::{Duration, Instant};

fn proxied() -> Shape {
    Shape { proxied: true, ..Shape::default() }
}

/// Connections of clients count as lost early, so that they leave a server that cannot answer.
fn impatient() -> Plan {
    Plan { patience: Duration::from_millis(700), ..Plan::default() }
}

/// Danger: a leader that nobody hears goes on serving for ever, and its clients with it.
#[test]
fn an_isolated_leader_stops_serving_within_sync_limit() {
    let cluster = Cluster::start(&[Kind::under_test(); 3], proxied());
    let load = Load::start(&cluster, impatient());
    load.await_writes(100);
    let old = cluster.leader();
    cluster.isolate(old);
    let begun = Instant::now();
    let moment = load.now();
    cluster.await_modes("end of the isolated leader", |modes| modes[old].as_deref() != Some("leader"));
    let time = begun.elapsed();
    // Two ticks for the leader to look, as it does once a tick, and for this test to ask.
    let limit = Duration::from_millis(u64::from(TICK_MS * (SYNC_LIMIT_TICKS + 2)));
    println!(
        "an isolated leader stopped after {:.3} s; the others took writes after {:.3} s",
        time.as_secs_f64(),
        load.await_write_after(moment).as_secs_f64()
    );
    assert!(time < limit, "{time:?} is more than {limit:?}");
    cluster.heal();
    cluster.await_all();
    let report = load.finish(&cluster, Syncs::MayMeetADeposedLeader);
    assert_eq!(report.expired, 0, "seed {}: sessions are lost", report.seed);
}

/// Danger: a network that fails in parts, one way or slowly, splits the ensemble's history or leaves it without a leader.
#[test]
fn partitions_and_healing_lose_nothing() {
    let cluster = Cluster::start(&[Kind::under_test(); 3], proxied());
    let load = Load::start(&cluster, impatient());
    let mut dice = Dice::new(Dice::seed());
    for round in 0..rounds(5) {
        load.await_writes(50);
        let leader = cluster.leader();
        let one = if dice.one_in(2) { leader } else { dice.below(3) };
        let other = (one + 1 + dice.below(2)) % 3;
        let story = match round % 5 {
            0 => {
                cluster.isolate(leader);
                format!("leader {} isolated", leader + 1)
            }
            1 => {
                cluster.set_way(one, other, Way::Hold);
                format!("{} does not reach {}", one + 1, other + 1)
            }
            2 => {
                cluster.isolate(one);
                format!("{} isolated", one + 1)
            }
            3 => {
                for to in (0..3).filter(|to| *to != one) {
                    cluster.set_way(one, to, Way::Delay(Duration::from_millis(30)));
                    cluster.set_way(to, one, Way::Delay(Duration::from_millis(5)));
                }
                format!("{} far away", one + 1)
            }
            _ => {
                cluster.set_way(one, other, Way::Hold);
                cluster.set_way(other, one, Way::Hold);
                format!("{} and {} apart, both reach the third", one + 1, other + 1)
            }
        };
        // Sleeps because the length of the fault is the point: from below to above syncLimit.
        std::thread::sleep(Duration::from_millis(300 + dice.below(3_000) as u64));
        if dice.one_in(3) {
            cluster.break_links(one);
        }
        cluster.heal();
        let healed = load.now();
        let writes = load.await_write_after(healed);
        cluster.await_all();
        println!("round {round}: {story}; a write {:.3} s after healing", writes.as_secs_f64());
    }
    let report = load.finish(&cluster, Syncs::MayMeetADeposedLeader);
    println!(
        "{} writes acknowledged, longest gap {:.3} s, {} sessions expired",
        report.history.acknowledged().len(),
        report.history.longest_gap().as_secs_f64(),
        report.expired
    );
    // No fault lasts half as long as a session, and a new leader gives every session its whole time again.
    assert_eq!(report.expired, 0, "seed {}: sessions are lost", report.seed);
}

/// Danger: what a leader logged alone comes back after its death, against what the others decided meanwhile.
#[test]
fn what_only_a_dead_leader_logged_is_cut_off() {
    let kind = Kind::under_test();
    cut_off(&[kind; 3]);
}

/// The scene of the test above, also for mixed ensembles: kills whoever leads, twice. The first one comes back before
/// anybody wrote, so that its log need only be cut (TRUNC); the second one after writes of a new epoch, which Apache
/// answers with a snapshot.
pub fn cut_off(kinds: &[Kind]) {
    // Enough transactions in memory that their number is no reason for a snapshot.
    let lines = vec!["commitLogCount=100000".into()];
    let shape = Shape { proxied: true, lines, ..Shape::default() };
    let mut cluster = Cluster::start(kinds, shape);
    for (path, others_write) in [("/never-committed", false), ("/never-committed-either", true)] {
        some_writes(&cluster);
        let old = cluster.leader();
        let mut client = cluster.server(old).client(8_000);
        for other in (0..cluster.size()).filter(|other| *other != old) {
            cluster.set_way(old, other, Way::Hold);
        }
        let body = client::create(path, Some(b""), &[zkfast_wire::Acl::OPEN], 0);
        client.submit(zkfast_wire::OpCode::Create, &body);
        client.flush().expect("an open connection");
        await_logged(&cluster, old, path.as_bytes());
        cluster.kill(old);
        drop(client);
        cluster.break_links(old);
        cluster.heal();
        cluster.await_all();
        if others_write {
            some_writes(&cluster);
        }
        cluster.launch(old);
        cluster.await_all();
        if cluster.kind(old) == Kind::Apache && !others_write {
            cluster.server(old).await_log(&["Truncating log to get in sync with the leader"]);
        }
        some_writes(&cluster);
        let tree = load::whole_tree(&cluster, old);
        assert!(!tree.contains_key(path), "it was never acknowledged, and two of three never had it");
    }
}

/// A load that ends, with all its checks.
fn some_writes(cluster: &Cluster) {
    let load = Load::start(cluster, impatient());
    load.await_writes(50);
    load.finish(cluster, Syncs::AreFresh);
}

/// Waits until a log file of this server has these bytes.
fn await_logged(cluster: &Cluster, index: usize, bytes: &[u8]) {
    let dir = cluster.data_dir(index).join("version-2");
    let deadline = Instant::now() + crate::peers::DEADLINE;
    loop {
        let files = std::fs::read_dir(&dir).expect("version-2").flatten().map(|file| file.path());
        let logs = files
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log.")));
        let mut texts = logs.filter_map(|path| std::fs::read(path).ok());
        if texts.any(|text| text.windows(bytes.len()).any(|window| window == bytes)) {
            return;
        }
        assert!(Instant::now() < deadline, "server {} does not log it", index + 1);
        // Polled: a log tells nobody what it has.
        std::thread::sleep(Duration::from_millis(2));
    }
}
