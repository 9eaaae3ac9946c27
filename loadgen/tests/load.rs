//! Whole runs against a server that is made for the purpose.

mod fake;

use clap::Parser;
use fake::{Fake, Manner};
use loadgen::{
    args::CommandLine,
    page::page,
    report::Report,
    run::{self, Second, Watcher},
};
use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

#[derive(Default)]
struct Calls {
    seconds: usize,
    /// Done when the first second is over.
    at_first_second: Option<Box<dyn FnOnce()>>,
}

impl Watcher for Calls {
    fn second(&mut self, _second: &Second) {
        self.seconds += 1;
        if let Some(act) = self.at_first_second.take() {
            act();
        }
    }
    fn step(&mut self, _text: &str) {}
}

fn load_with(line: &str, hosts: &str, calls: &mut Calls, stop: Arc<AtomicBool>) -> anyhow::Result<Report> {
    let words = ["loadgen", "--hosts", hosts, "--seed", "7"].into_iter().chain(line.split(' '));
    let settings = CommandLine::try_parse_from(words).unwrap().run.settings()?;
    let outcome = run::run(&settings, stop, calls)?;
    Ok(Report::new(&settings, &outcome))
}

fn load(line: &str, hosts: &str) -> Report {
    load_with(line, hosts, &mut Calls::default(), Arc::default()).unwrap()
}

/// Coordinated omission: a generator that waits with the server hides the server's stall. Each request that was due
/// counts, from when it was due.
#[test]
fn a_stalled_server_is_seen_in_full() {
    let fake = Fake::start(Manner::Honest);
    let stalling = fake.clone();
    let at_first_second = Some(Box::new(move || {
        stalling.stall(true);
        thread::spawn(move || {
            // Sleeps because the stall's length is what is measured.
            thread::sleep(Duration::from_secs(1));
            stalling.stall(false);
        });
    }) as Box<dyn FnOnce()>);
    let mut calls = Calls { seconds: 0, at_first_second };
    let report =
        load_with("--writes 2k/s -c 8 -d 4s --warmup 0s", &fake.address, &mut calls, Arc::default()).unwrap();
    assert_eq!(report.total.succeeded, 8_000, "rate x time");
    assert!(report.total.response_ns.max > 900_000_000, "{:?}", report.total.response_ns);
    assert!(report.total.response_ns.p90 > 100_000_000, "a quarter of the requests met the stall");
    assert!(report.timeline.len() >= 4);
}

/// A server that never comes back must not keep the run from its end, nor hide what it did not answer.
#[test]
fn a_server_that_stays_silent_ends_the_run() {
    let fake = Fake::start(Manner::Honest);
    let silenced = fake.clone();
    let at_first_second = Some(Box::new(move || silenced.stall(true)) as Box<dyn FnOnce()>);
    let mut calls = Calls { seconds: 0, at_first_second };
    let line = "--writes 2k/s -c 4 --in-flight 10 -d 3s --warmup 0s --drain 500ms --keep";
    let report = load_with(line, &fake.address, &mut calls, Arc::default()).unwrap();
    let failed =
        |name| report.failures.iter().find(|failure| failure.name == name).map_or(0, |failure| failure.count);
    assert_eq!(failed("not answered in time"), 40, "4 connections x 10 in flight");
    assert_eq!(report.total.succeeded + 40 + failed("not sent in time"), 6_000, "rate x time");
    assert!(report.total.succeeded > 1_500, "{}", report.total.succeeded);
}

/// Little's law: latency x throughput = requests in flight.
#[test]
fn the_figures_of_a_closed_loop_fit_each_other() {
    let fake = Fake::start(Manner::Honest);
    let report =
        load("--closed --mix set=1,get=1 -c 8 --in-flight 4 -d 1500ms --warmup 300ms", &fake.address);
    let in_flight = report.total.service_ns.mean * 1e-9 * report.total.rate;
    assert!((in_flight / 32.0 - 1.0).abs() < 0.05, "{in_flight}");
    assert_eq!(report.total.failed, 0);
    assert!(report.operations.contains_key("set") && report.operations.contains_key("get"));
}

/// Each operation that needs no events, with all that is acknowledged read back.
#[test]
fn an_honest_server_passes_verification() {
    let fake = Fake::start(Manner::Honest);
    let mix = "set=3,get=3,exists=1,create=2,delete=1,create-seq=1,ephemeral=1,ping=1,session=1";
    let line = format!("--verify --closed --mix {mix} -c 6 --in-flight 3 -d 1s --warmup 200ms --cores 2");
    let report = load(&line, &fake.address);
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert!(report.verified(), "{:?}", report.verification);
    assert!(report.verification.as_ref().unwrap().checks > 1000);
    assert_eq!(report.operations.len(), 9);
    let html = page(&report);
    assert!(html.contains("<svg") && !html.contains("http://127") && html.ends_with("</html>\n"));
    let json = serde_json::to_string(&report).unwrap();
    let again: Report = serde_json::from_str(&json).unwrap();
    assert_eq!(again.total, report.total);
    let described = include_str!("../README.md");
    let mut missing = Vec::new();
    names(&serde_json::from_str(&json).unwrap(), &mut missing);
    missing.retain(|name| !described.contains(&format!("`{name}`")));
    assert!(missing.is_empty(), "fields of the JSON that loadgen/README.md does not describe: {missing:?}");
}

/// The names of a JSON's fields; not what stands beneath names that the server or the mix gives.
fn names(value: &serde_json::Value, out: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                out.push(name.clone());
                match (name.as_str(), value) {
                    ("mntr" | "violations", _) => {}
                    ("operations", serde_json::Value::Object(each)) => {
                        each.values().for_each(|one| names(one, out))
                    }
                    _ => names(value, out),
                }
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| names(value, out)),
        _ => {}
    }
}

/// A verification that a lying server passes is worse than none.
#[test]
fn lies_are_found() {
    for (manner, kind) in
        [(Manner::ForgetsSets, "acknowledged set"), (Manner::GoesBack, "zxid went back within a session")]
    {
        let fake = Fake::start(manner);
        let line = "--verify --writes 5k/s -c 4 -d 1s --warmup 0s --znodes 2000";
        let report = load(line, &fake.address);
        assert!(!report.verified(), "{manner:?}");
        let found = report.verification.unwrap().violations;
        assert!(found.keys().any(|name| name.contains(kind)), "{manner:?}: {found:?}");
    }
}

/// Connections that are lost come back with their session; what was under way is counted as lost, never hidden.
#[test]
fn lost_connections_come_back() {
    let fake = Fake::start(Manner::HangsUp);
    // Laying out 4 nodes takes fewer than 200 requests.
    let report = load("--writes 4k/s -c 4 -d 2s --warmup 0s --znodes 4 --keep", &fake.address);
    let lost: u64 = report.failures.iter().map(|failure| failure.count).sum();
    assert_eq!(report.total.succeeded + lost, 8_000);
    assert!(report.total.succeeded > 4_000, "{}", report.total.succeeded);
    assert!(report.failures.iter().all(|failure| failure.name == "connection lost"), "{:?}", report.failures);
}

/// One of two servers goes away: its sessions go to the other.
#[test]
fn the_other_server_takes_over() {
    let (stays, goes) = (Fake::start(Manner::Honest), Fake::start(Manner::Honest));
    // Both have the nodes: the generator lays them out on one only.
    for fake in [&stays, &goes] {
        load("--writes 100/s -c 1 -d 100ms --warmup 0s --keep", &fake.address);
    }
    let (shutting, before) = (goes.clone(), stays.requests.load(Ordering::Relaxed));
    let mut calls = Calls { seconds: 0, at_first_second: Some(Box::new(move || shutting.shut())) };
    let hosts = format!("{},{}", stays.address, goes.address);
    let report =
        load_with("--writes 2k/s -c 8 -d 3s --warmup 0s --keep", &hosts, &mut calls, Arc::default()).unwrap();
    assert!(stays.requests.load(Ordering::Relaxed) - before > 3_500);
    let lost: u64 = report.failures.iter().map(|failure| failure.count).sum();
    assert_eq!(report.total.succeeded + lost, 6_000);
    assert!(lost < 600, "{:?}", report.failures);
}

/// Ctrl-C ends a run with the results so far.
#[test]
fn a_run_can_be_ended_early() {
    let fake = Fake::start(Manner::Honest);
    let stop = Arc::new(AtomicBool::new(false));
    let pressed = stop.clone();
    let mut calls =
        Calls { seconds: 0, at_first_second: Some(Box::new(move || pressed.store(true, Ordering::Relaxed))) };
    let report = load_with("--writes 1k/s -c 2 -d 10m --warmup 0s", &fake.address, &mut calls, stop).unwrap();
    assert!(report.interrupted && report.seconds < 10.0, "{}", report.seconds);
    assert!(report.total.succeeded > 900);
}

/// A user who mistypes a port must be told so, not shown an empty report.
#[test]
fn a_wrong_address_gets_an_answer_that_helps() {
    let strange = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = strange.local_addr().unwrap().to_string();
    thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in strange.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 100]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let refused = load_with("--writes 1/s", &address, &mut Calls::default(), Arc::default()).unwrap_err();
    assert!(format!("{refused:#}").contains("does not speak the ZooKeeper protocol"), "{refused:#}");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let refused = load_with("--writes 1/s", &nobody, &mut Calls::default(), Arc::default()).unwrap_err();
    assert!(refused.to_string().contains("--hosts"), "{refused}");
}
