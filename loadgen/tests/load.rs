//! Whole runs against a server that is made for the purpose.

mod fake;
mod faults;

use clap::Parser;
use fake::{Fake, Manner};
use loadgen::{
    args::{Command, CommandLine},
    compare,
    page::page,
    report::Report,
    run::{self, Second, Watcher},
    scenario,
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
    let report = Report::new(&settings, &outcome);
    assert!(report.client_cpu_ns_per_operation > 0.0 || report.total.succeeded == 0, "work costs CPU time");
    Ok(report)
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
    assert!(html.contains("Curves of the 5 most frequent of 9 operations"));
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

/// A verification that a lying server passes is worse than none. Each lie is named with where it was found.
#[test]
fn lies_are_found() {
    for (manner, mix, kind) in [
        (Manner::ForgetsSets, "set", "an acknowledged set is lost"),
        (Manner::GoesBack, "set", "zxid went back within a session"),
        (Manner::SkipsVersions, "set", "versions do not grow by one from set to set"),
        (Manner::OldStats, "set", "the answer to a set is not of that set"),
        (Manner::ForgetsCreates, "create", "an acknowledged create is lost"),
        (Manner::EmptiesCreates, "create", "a value is not the one acknowledged"),
        (Manner::InventsNodes, "create", "a node that nobody has created"),
        (Manner::ForgetsCreates, "create-seq", "an acknowledged create is lost"),
        (Manner::EmptiesCreates, "create-seq", "a value is not the one acknowledged"),
        (Manner::InventsNodes, "create-seq", "a node that nobody has created"),
        (Manner::RepeatsNumbers, "create-seq", "a sequence number came twice"),
        (Manner::WrongOwner, "ephemeral", "an ephemeral node has another owner"),
        (Manner::KeepsEphemerals, "ephemeral", "an ephemeral node outlives its session"),
        (Manner::LosesEvents, "watch", "a watch never fired"),
        (Manner::GarblesReads, "get", "a read value is none that was written"),
        (Manner::GarblesReads, "get=2,set=1", "a read value is none that was written"),
    ] {
        let fake = Fake::start(manner);
        let line =
            format!("--verify --rate 2010/s --mix {mix} -c 4 -d 500ms --warmup 0s --drain 1s --znodes 50");
        let report = load(&line, &fake.address);
        assert!(!report.verified(), "{manner:?} {mix}");
        let found = report.verification.unwrap().violations;
        let (_, examples) = found.get(kind).unwrap_or_else(|| panic!("{manner:?} {mix}: {found:?}"));
        assert!(examples[0].contains("/loadgen/") || examples[0].contains("connection "), "{examples:?}");
    }
}

/// Danger: an event that never comes keeps its watch, and in a closed loop its connection, waiting for ever.
#[test]
fn events_that_never_come_are_counted_and_named_and_hold_nobody_up() {
    let fake = Fake::start(Manner::LosesEvents);
    let report =
        load("--closed --mix watch -c 2 --in-flight 2 -d 6500ms --warmup 0s --drain 1s", &fake.address);
    let missing =
        report.failures.iter().find(|failure| failure.operation == "event" && failure.name == "no event");
    // Four cycles at once, a tenth loses its event and waits for five seconds: all wait within a moment, twice.
    assert!(missing.is_some_and(|failure| failure.count > 4), "{:?}", report.failures);
    assert!(
        report.remarks.iter().any(|remark| remark.contains("/loadgen/watched/w00000-00")),
        "{:?}",
        report.remarks
    );
}

fn scenario_with(line: &str, hosts: &str) -> scenario::Outcome {
    let words = ["loadgen", "scenario", "--hosts", hosts].into_iter().chain(line.split(' '));
    let Some(Command::Scenario(arguments)) = CommandLine::try_parse_from(words).unwrap().command else {
        panic!("a scenario");
    };
    let named = scenario::find(arguments.name.as_deref().unwrap()).unwrap();
    scenario::run(named, &arguments, &Arc::default(), &mut Calls::default()).unwrap()
}

/// Danger: one event that is lost hangs a scenario, or leaves it standing still and content.
#[test]
fn scenarios_go_on_without_the_events_that_never_come_and_name_them() {
    // All at once, because each waits for some seconds.
    let runs = [
        ("config-push -c 20 -d 1s", "/nodes"),
        ("fan-out -c 20 -d 1s", "/nodes"),
        ("service-discovery -c 20 -d 1s", "/nodes"),
        ("election -c 10 -d 7s", "/nodes/g00000/n-"),
        // Ends while everybody waits: the last look finds it.
        ("lock -c 8 -d 1s", "/nodes/g0000"),
    ]
    .map(|(line, path)| {
        thread::spawn(move || {
            let outcome = scenario_with(line, &Fake::start(Manner::LosesEvents).address);
            let shown = outcome.show();
            assert!(!outcome.is_clean() && shown.contains("watch event(s) never came"), "{shown}");
            assert!(shown.contains("session 0x") && shown.contains(path), "{shown}");
            let honest = scenario_with(&line.replace("7s", "1s"), &Fake::start(Manner::Honest).address);
            assert!(honest.is_clean(), "{}", honest.show());
            shown
        })
    });
    let [_, _, _, election, _] = runs.map(|run| run.join().unwrap());
    let missing: u64 = election.split("FAILED: ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(missing > 1, "it has gone on after the first one: {election}");
}

/// Danger: a length that is asked for is not kept.
#[test]
fn a_fan_out_lasts_as_long_as_it_is_told() {
    let fake = Fake::start(Manner::Honest);
    let begun = std::time::Instant::now();
    let outcome = scenario_with("config-push -c 4 -d 1500ms", &fake.address);
    assert!(outcome.is_clean() && begun.elapsed() > Duration::from_millis(1500), "{}", outcome.show());
}

/// Danger: the connection that was to make a watch fire is lost, and the one that watches waits for ever.
#[test]
fn a_lost_setter_leaves_no_watcher_waiting() {
    let fake = Fake::start(Manner::HangsUp);
    let report = load("--closed --mix watch -c 4 --in-flight 4 -d 3s --warmup 0s --drain 2s", &fake.address);
    assert!(report.failures.iter().all(|failure| failure.name == "connection lost"), "{:?}", report.failures);
    let last = report.whole_seconds().last().expect("three seconds");
    assert!(last.succeeded > 0, "it went on to the end: {:?}", report.timeline);
}

/// Danger: operations that must wait (a second watch, a session without a connection) are left out, and another mix is
/// measured than was asked for.
#[test]
fn a_closed_loop_keeps_its_mix() {
    let fake = Fake::start(Manner::Honest);
    let line = "--closed --mix watch=20,get=60,session=20 -c 2 --in-flight 20 -d 2s --warmup 0s";
    let report = load(line, &fake.address);
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let count = |name| report.operations.get(name).map_or(0, |result| result.succeeded) as f64;
    let all = count("watch") + count("get") + count("session");
    for (name, share) in [("watch", 0.2), ("get", 0.6), ("session", 0.2)] {
        let spread = (share * (1.0 - share) / all).sqrt();
        // What is under way at the end is not counted: twenty on each connection.
        assert!(
            (count(name) / all - share).abs() < 5.0 * spread + 40.0 / all,
            "{name}: {} of {all}",
            count(name)
        );
    }
    assert!(all > 500.0, "{all}");
    assert!((count("watch") - count("event")).abs() <= 40.0, "{} and {}", count("watch"), count("event"));
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
    assert!(report.losses.lost > 10, "also those with nothing in flight: {:?}", report.losses);
    assert!(report.failed().is_none(), "it is there: {:?}", report.losses);
    assert_eq!(
        compare::exceeded_alone(&report, &[compare::budget("reconnects>0").unwrap()]).unwrap().len(),
        1
    );
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

/// Danger: Ctrl-C in a long warm-up (or while connections come up) waits for its end, or shows figures of nothing.
#[test]
fn a_run_can_be_ended_in_its_warmup() {
    for line in ["--writes 1k/s -c 2 -d 10m --warmup 10m", "--closed --mix get -c 2 -d 10m --warmup 10m"] {
        let fake = Fake::start(Manner::Honest);
        let stop = Arc::new(AtomicBool::new(false));
        let pressed = stop.clone();
        let mut calls = Calls {
            seconds: 0,
            at_first_second: Some(Box::new(move || pressed.store(true, Ordering::Relaxed))),
        };
        let report = load_with(line, &fake.address, &mut calls, stop).unwrap();
        assert!(report.interrupted && report.total.succeeded == 0, "{:?}", report.total);
        assert!(report.remarks.iter().any(|remark| remark.contains("no figures")), "{:?}", report.remarks);
        assert!(!report.remarks.iter().any(|remark| remark.contains("Latency x")), "{:?}", report.remarks);
        assert!(report.timeline.iter().all(|second| second.warmup) && !report.timeline.is_empty());
        assert!(page(&report).ends_with("</html>\n"), "a page of nothing is a page");
    }
}

/// A warm-up of a fraction of a second takes no whole second with it.
#[test]
fn the_measured_part_begins_with_a_whole_second() {
    let fake = Fake::start(Manner::Honest);
    let report = load("--writes 1k/s -c 2 -d 2s --warmup 300ms", &fake.address);
    let whole: Vec<u64> = report.whole_seconds().map(|second| second.succeeded).collect();
    assert_eq!(whole.len(), 2, "{:?}", report.timeline);
    assert!(whole.iter().all(|count| (900..=1_100).contains(count)), "{whole:?}");
    let first = &report.timeline[0];
    assert!(first.warmup && first.succeeded <= 310, "{first:?}");
}

/// Danger: a second generator empties and deletes what the first one works on.
#[test]
fn a_root_that_another_generator_uses_is_refused() {
    use loadgen::{
        client::Client,
        hosts::Hosts,
        operation::{Mode, put_create},
    };
    let fake = Fake::start(Manner::Honest);
    load("--writes 100/s -c 1 -d 100ms --warmup 0s --keep", &fake.address);
    let host = Hosts::parse(&fake.address).unwrap().list[0].clone();
    let mut other = Client::connect(&host, 10_000).unwrap();
    let mut hold = |words: &str| {
        let body = |out: &mut Vec<u8>| {
            put_create(
                out,
                |out| out.extend_from_slice(b"/loadgen/running"),
                words.as_bytes(),
                Mode::Ephemeral,
            );
        };
        other.call(zkfast_wire::OpCode::Create, body).unwrap();
    };
    hold("loadgen, process 1 on another.example");
    let run = |line| load_with(line, &fake.address, &mut Calls::default(), Arc::default());
    let refused = run("--writes 100/s -c 1 -d 100ms --warmup 0s").unwrap_err().to_string();
    assert!(refused.contains("/loadgen is in use") && refused.contains("--root"), "{refused}");
    assert!(run("--root /mine --writes 100/s -c 1 -d 100ms --warmup 0s").is_ok());
    other.close();
    let report = run("--writes 100/s -c 1 -d 100ms --warmup 0s").unwrap();
    assert!(report.failures.is_empty() && report.remarks.is_empty(), "{:?}", report.remarks);
}

/// Danger: both have looked before either held the root.
#[test]
fn of_two_generators_that_begin_at_once_one_goes_on() {
    let fake = Fake::start(Manner::Honest);
    let line = "--writes 100/s -c 1 -d 3s --warmup 0s --keep";
    let address = fake.address.clone();
    // The other begins when the first has laid out its nodes and looks for trouble no more.
    let other = Arc::new(std::sync::Mutex::new(None));
    let (kept, second) = (other.clone(), fake.address.clone());
    let mut calls = Calls {
        seconds: 0,
        at_first_second: Some(Box::new(move || {
            let line = "--writes 100/s -c 1 -d 100ms --warmup 0s";
            *kept.lock().unwrap() = Some(load_claimed_elsewhere(line, &second));
        })),
    };
    let report = load_with(line, &address, &mut calls, Arc::default()).unwrap();
    assert_eq!((report.total.succeeded, report.total.failed), (300, 0));
    let refused = other.lock().unwrap().take().expect("the other ran").unwrap_err().to_string();
    assert!(refused.contains("another loadgen has begun"), "{refused}");
}

/// The sessions of a run whose claim meets another one's: what is left when both have looked at the same moment.
fn load_claimed_elsewhere(line: &str, hosts: &str) -> anyhow::Result<()> {
    use loadgen::{claim::Claim, clock::Clock, engine::Engine, hosts::Hosts, link::Link, recipe::Recipe};
    let settings = CommandLine::try_parse_from(["loadgen"].into_iter().chain(line.split(' '))).unwrap();
    let plan = settings.run.settings()?.plan;
    let mut link = Link::new(0, 0, 0);
    link.claim = Some(Claim::of(&plan.root));
    let load = Recipe::new(plan.root.clone(), 1, 1, 1_000_000_000, Arc::default());
    Engine::new(Clock::start(), Arc::new(Hosts::parse(hosts)?), 10_000, vec![link], load)?.run()?;
    Ok(())
}

/// What cannot be done is known before the load, with what to write instead.
#[test]
fn wrong_arguments_are_refused_before_the_load() {
    let fake = Fake::start(Manner::Honest);
    let words =
        |line| load_with(line, &fake.address, &mut Calls::default(), Arc::default()).unwrap_err().to_string();
    let refused = words("--writes 1/s --pid 4194999");
    assert!(refused.contains("no process 4194999") && refused.contains("--pid"), "{refused}");
    let refused = words("--writes 1/s --cores 0");
    assert!(refused.contains("--cores 2"), "{refused}");
    let refused = words("--writes 1/s --session-timeout 600h");
    assert!(refused.contains("--session-timeout lies between 1ms and 596h"), "{refused}");
    for (line, hint) in [
        ("find-max --p99 5ms --precision nan", "--precision"),
        ("find-max --p99 5ms --from 2k/s --most 1k/s", "--from is not above --most"),
    ] {
        let words = ["loadgen"].into_iter().chain(line.split(' ')).chain(["--hosts", &fake.address]);
        let line = CommandLine::try_parse_from(words).unwrap();
        let refused = loadgen::command::execute(line).unwrap_err().to_string();
        assert!(refused.contains(hint), "{refused}");
    }
    let seed = CommandLine::try_parse_from(["loadgen", "--seed", "-1"]).unwrap_err().to_string();
    assert!(seed.contains("`-1` is not a seed"), "{seed}");
}

/// A port that accepts and says nothing, such as one of another protocol that waits for a greeting.
#[test]
fn a_silent_port_is_told_soon() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let kept = thread::spawn(move || silent.accept().unwrap());
    let begun = std::time::Instant::now();
    let refused = load_with("--writes 1/s", &address, &mut Calls::default(), Arc::default()).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(refused.to_string().contains("not one byte"), "{refused}");
    drop(kept.join());
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
