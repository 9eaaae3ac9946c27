//! The load generator against a real server: every operation, a short form of every scenario, a server that stands
//! still. A healthy server must show no error and no broken promise.
//!
//! `ZKFAST_UNDER_TEST=apache cargo test --test load` asks the same of Apache ZooKeeper.

#[path = "../peers/mod.rs"]
mod peers;

use clap::Parser;
use loadgen::{
    args::{Command, CommandLine},
    report::Report,
    run::{self, Second, Watcher},
    scenario,
};
use peers::{Kind, Server, Settings};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Each operation that a mix may name.
const ALL: &str = "create=2,create-seq=1,set=3,get=3,exists=1,children=1,delete=1,multi=1,ephemeral=2,session=1,watch=1,\
                   sync=1,ping=1";

/// Acts once, when the first second is over.
struct Acts<'a>(Option<Box<dyn FnOnce() + 'a>>);

impl Watcher for Acts<'_> {
    fn second(&mut self, _second: &Second) {
        if let Some(act) = self.0.take() {
            act();
        }
    }
    fn step(&mut self, _text: &str) {}
}

fn start(home: &std::path::Path) -> Server {
    Server::start(Kind::under_test(), home, &Settings::default())
}

fn parse(line: &str, server: &Server) -> CommandLine {
    let line = format!("loadgen {line} --hosts {} --seed 7", server.address);
    CommandLine::try_parse_from(line.split(' ')).expect("a valid command line")
}

fn load(line: &str, server: &Server, watcher: &mut dyn Watcher) -> Report {
    let settings = parse(line, server).run.settings().expect("settings");
    let outcome = run::run(&settings, Arc::default(), watcher).expect("the run");
    Report::new(&settings, &outcome)
}

/// A generator that makes errors of its own, or checks that never fire, would blame the server or nobody.
#[test]
fn every_operation_runs_without_an_error() {
    let home = peers::directory();
    let server = start(home.path());
    for pace in [
        "--closed --in-flight 3",
        "--rate 3k/s",
        "--rate 3k/s --poisson --depth 3 --keys zipf --value 10..500",
    ] {
        let line = format!("{pace} --mix {ALL} --verify -c 8 -d 1500ms --warmup 300ms --cores 2");
        let report = load(&line, &server, &mut Acts(None));
        assert!(report.failures.is_empty(), "{pace}: {:?}", report.failures);
        assert!(report.verified(), "{pace}: {:?}", report.verification);
        assert!(report.verification.as_ref().is_some_and(|found| found.checks > 1_000), "{pace}");
        // Those of the mix, and the events of the watches.
        assert_eq!(report.operations.len(), 14, "{pace}: {:?}", report.operations.keys());
        assert!(!report.server_after.mntr.is_empty(), "mntr is asked");
    }
}

/// What a user types by name must run to its end and find nothing wrong.
#[test]
fn every_scenario_runs_without_an_error() {
    let home = peers::directory();
    let server = start(home.path());
    for scenario in scenario::SCENARIOS {
        let line = format!("scenario {} -c 24 -d 300ms --warmup 100ms", scenario.name);
        let Some(Command::Scenario(arguments)) = parse(&line, &server).command else {
            panic!("{line} is a scenario");
        };
        let outcome = scenario::run(scenario, &arguments, &Arc::default(), &mut Acts(None)).expect("the run");
        assert!(outcome.is_clean(), "{}", outcome.show());
        assert!(outcome.show().starts_with(scenario.name), "it says what it reproduces");
    }
}

/// Coordinated omission, against a real process: what was due while it stood still counts from when it was due.
#[test]
fn a_server_that_stands_still_is_seen_in_full() {
    let home = peers::directory();
    let server = start(home.path());
    let mut acts = Acts(Some(Box::new(|| {
        server.freeze(true);
        // It sleeps because the length of the halt is what is measured.
        thread::sleep(Duration::from_secs(1));
        server.freeze(false);
    })));
    let report = load("--writes 2k/s -c 8 -d 5s --warmup 0s", &server, &mut acts);
    assert_eq!(report.total.succeeded, 10_000, "rate x time: {:?}", report.failures);
    let latency = &report.total.response_ns;
    assert!(latency.p999 > 900_000_000 && latency.max > 950_000_000, "{latency:?}");
    assert!(latency.p50 < 900_000_000, "only a fifth of them was due meanwhile: {latency:?}");
}

/// Danger: the root that a user names holds the nodes of his applications, and is deleted with them at the end.
#[test]
fn a_root_of_somebody_else_is_refused_and_kept() {
    let home = peers::directory();
    let server = start(home.path());
    let mut client = server.client(10_000);
    client.create("/prod", b"ours", 0).expect("a node");
    client.create("/prod/users", b"", 0).expect("a node");
    let settings =
        parse("--root /prod --reads 10/s --znodes 5 -d 200ms", &server).run.settings().expect("settings");
    let error = run::run(&settings, Arc::default(), &mut Acts(None)).expect_err("not loadgen's").to_string();
    assert!(error.contains("/prod") && error.contains("--root"), "{error}");
    assert_eq!(client.children("/prod", false).expect("there").0, ["users"]);
    // Beneath it there is room, and what was not made by the load stays.
    let report = load("--root /prod/load --reads 100/s --znodes 5 -d 200ms", &server, &mut Acts(None));
    let remarks = &report.remarks;
    assert!(
        report.failures.is_empty() && !remarks.iter().any(|remark| remark.contains("/prod")),
        "{remarks:?}"
    );
    assert_eq!(client.children("/prod", false).expect("there").0, ["users"]);
}

/// Danger: a server that dies under load takes the results of the run with it.
#[test]
fn a_server_that_dies_leaves_the_results_of_the_run() {
    let home = peers::directory();
    let server = start(home.path());
    let settings = parse("--writes 500/s -c 4 -d 2s --warmup 0s --drain 200ms", &server).run.settings();
    let settings = settings.expect("settings");
    let mut kill = Acts(Some(Box::new(move || server.kill())));
    let outcome = run::run(&settings, Arc::default(), &mut kill).expect("results");
    let report = Report::new(&settings, &outcome);
    assert!(
        report.total.succeeded > 0 && report.total.failed > 0,
        "{} and {}",
        report.total.succeeded,
        report.total.failed
    );
    assert!(
        report.remarks.iter().any(|remark| remark.contains("left on the server")),
        "{:?}",
        report.remarks
    );
}

/// Danger: a closed loop of sessions stops after the first of each connection.
#[test]
fn a_closed_loop_of_sessions_goes_on() {
    let home = peers::directory();
    let server = start(home.path());
    let report = load("--closed --mix session -c 4 -d 1s --warmup 0s", &server, &mut Acts(None));
    assert!(report.failures.is_empty() && report.total.succeeded > 40, "{} sessions", report.total.succeeded);
}

/// Danger: Ctrl-C in a recipe or a fan-out waits for its end, or leaves its nodes behind.
#[test]
fn scenarios_can_be_ended_early() {
    let home = peers::directory();
    let server = start(home.path());
    for (name, node) in [
        ("lock", "/loadgen-lock/nodes/g00000"),
        ("config-push", "/loadgen-config-push/nodes"),
        ("reconnect-storm", "/loadgen-reconnect-storm/running"),
    ] {
        let stop = Arc::new(AtomicBool::new(false));
        let mut eye = server.client(10_000);
        // Pressed when the node that it works on is there and is worked on.
        assert!(eye.exists(node, true).is_err(), "{node} is not there yet");
        let pressed = stop.clone();
        let presser = thread::spawn(move || {
            eye.event();
            pressed.store(true, Ordering::Relaxed);
        });
        let Some(Command::Scenario(arguments)) =
            parse(&format!("scenario {name} -c 400 -d 10m"), &server).command
        else {
            panic!("a scenario");
        };
        let begun = Instant::now();
        let scenario = scenario::find(name).expect("a scenario");
        let outcome = scenario::run(scenario, &arguments, &stop, &mut Acts(None)).expect("the run");
        presser.join().expect("the event came");
        assert!(begun.elapsed() < Duration::from_secs(60), "{name}: {:?}", begun.elapsed());
        assert!(outcome.is_clean(), "{}", outcome.show());
        // The others are over soon, perhaps before they are ended.
        assert!(name != "lock" || outcome.show().contains("ended early"), "{}", outcome.show());
        let mut eye = server.client(10_000);
        assert!(eye.exists(&format!("/loadgen-{name}"), false).is_err(), "{name} has left its nodes");
    }
}

/// The published mix, not what is left of it when a connection watches one node at a time.
#[test]
fn the_service_latency_overview_has_its_watches() {
    let home = peers::directory();
    let server = start(home.path());
    let line = "--closed -c 4 --in-flight 100 --mix create=10,get=50,delete=10,ephemeral=20,watch=10 -d 2s --warmup 0s";
    let report = load(line, &server, &mut Acts(None));
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let count = |name| report.operations.get(name).map_or(0, |result| result.succeeded) as f64;
    let all: f64 = ["create", "get", "delete", "ephemeral", "watch"].into_iter().map(count).sum();
    for (name, share) in [("get", 0.5), ("ephemeral", 0.2), ("watch", 0.1)] {
        let spread = 5.0 * (share * (1.0 - share) / all).sqrt() + 400.0 / all;
        assert!((count(name) / all - share).abs() < spread, "{name}: {} of {all}", count(name));
    }
    assert!((count("event") - count("watch")).abs() <= 400.0, "each has its event");
    assert!((count("set") - count("watch")).abs() <= 400.0, "and a set that caused it");
}
