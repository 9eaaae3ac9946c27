//! Loads by name: published mixes, and what people use ZooKeeper for.

use crate::{
    args::{CommandLine, ScenarioArgs},
    clock::{Clock, SECOND, nanos},
    engine::{Engine, Load},
    fan_out::{FanOut, Watched},
    hosts::Hosts,
    link::Link,
    process,
    recipe::Recipe,
    report::{Latency, Report},
    run::{self, Watcher},
    storm::{Aftermath, Storm},
    units::{show_count, show_nanos, three_digits},
};
use anyhow::{anyhow, bail};
use clap::Parser;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Name and version of the JSON's schema.
pub const SCHEMA: &str = "loadgen-scenario/1";
/// Children of every published listing.
const SESSION_TIMEOUT_MS: i32 = 30_000;

/// What a scenario does.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Plain runs, one after the other: a label and the arguments of `loadgen`.
    Runs(&'static [(&'static str, &'static str)]),
    /// Sessions watch one node.
    FanOut(Watched),
    /// Contenders: how many share one lock; 0 means all of them.
    Recipe(usize),
    /// All sessions are cut and come back.
    ReconnectStorm,
    /// All sessions are abandoned and expire.
    ExpiryStorm,
}

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What to type.
    pub name: &'static str,
    /// What it reproduces.
    pub about: &'static str,
    /// Sessions if the user names no number.
    sessions: usize,
    kind: Kind,
}

/// Every scenario.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "lock",
        about: "Locks as Curator's InterProcessMutex takes them: 4 contenders a lock, ephemeral sequential nodes, each \
                watches the one in front; the holder gives up at once",
        sessions: 64,
        kind: Kind::Recipe(4),
    },
    Scenario {
        name: "election",
        about: "Leader election among all sessions: the leader resigns at once, the next one in line takes over",
        sessions: 32,
        kind: Kind::Recipe(0),
    },
    Scenario {
        name: "config-push",
        about: "A configuration node that every session watches: set, event, read of the new value, watch again",
        sessions: 1000,
        kind: Kind::FanOut(Watched::Data),
    },
    Scenario {
        name: "service-discovery",
        about: "An instance registers (ephemeral node) and leaves; every session watches the list and reads it again",
        sessions: 1000,
        kind: Kind::FanOut(Watched::Children),
    },
    Scenario {
        name: "service-latency-overview",
        about: "The operations of ZooKeeper's own service latency overview (smoketest): creates, sets, gets, deletes, \
                ephemeral nodes and watches, asynchronously, from 1, 10 and 20 clients",
        sessions: 0,
        kind: Kind::Runs(&[
            (
                "1 client",
                "--closed -c 1 --in-flight 100 --mix create=10,set=10,get=10,delete=10,ephemeral=20,watch=10",
            ),
            (
                "10 clients",
                "--closed -c 10 --in-flight 100 --mix create=10,set=10,get=10,delete=10,ephemeral=20,watch=10",
            ),
            (
                "20 clients",
                "--closed -c 20 --in-flight 100 --mix create=10,set=10,get=10,delete=10,ephemeral=20,watch=10",
            ),
        ]),
    },
    Scenario {
        name: "atc10",
        about: "Figure 5 of the USENIX ATC 2010 paper: 1 KB values, read ratio from 0 to 100%, 250 clients with 100 \
                requests in flight each",
        sessions: 0,
        kind: Kind::Runs(&[
            ("0% reads", "--closed -c 250 --in-flight 100 --value 1k --mix set=100"),
            ("20% reads", "--closed -c 250 --in-flight 100 --value 1k --mix set=80,get=20"),
            ("40% reads", "--closed -c 250 --in-flight 100 --value 1k --mix set=60,get=40"),
            ("60% reads", "--closed -c 250 --in-flight 100 --value 1k --mix set=40,get=60"),
            ("80% reads", "--closed -c 250 --in-flight 100 --value 1k --mix set=20,get=80"),
            ("100% reads", "--closed -c 250 --in-flight 100 --value 1k --mix get=100"),
        ]),
    },
    Scenario {
        name: "raftkeeper-create",
        about: "raftkeeper-bench, mode create: 100-byte creates from 10 to 300 threads, one request at a time",
        sessions: 0,
        kind: Kind::Runs(&[
            ("10 threads", "--closed -c 10 --mix create"),
            ("50 threads", "--closed -c 50 --mix create"),
            ("100 threads", "--closed -c 100 --mix create"),
            ("200 threads", "--closed -c 200 --mix create"),
            ("300 threads", "--closed -c 300 --mix create"),
        ]),
    },
    Scenario {
        name: "raftkeeper-mixed",
        about: "raftkeeper-bench 2.1, mode mix: create 1, set 8, get 45, list 45 (100 children of 50 bytes), delete 1",
        sessions: 0,
        kind: Kind::Runs(&[
            ("10 threads", "--closed -c 10 --value 50 --mix create=1,set=8,get=45,children=45,delete=1"),
            ("80 threads", "--closed -c 80 --value 50 --mix create=1,set=8,get=45,children=45,delete=1"),
            ("280 threads", "--closed -c 280 --value 50 --mix create=1,set=8,get=45,children=45,delete=1"),
        ]),
    },
    Scenario {
        name: "keeper-multi70",
        about: "keeper-benchmark of ClickHouse Keeper, the write mix: 70% multi, 5% create, 5% set, 20% list",
        sessions: 0,
        kind: Kind::Runs(&[
            ("10 clients", "--closed -c 10 --mix multi=70,create=5,set=5,children=20"),
            ("100 clients", "--closed -c 100 --mix multi=70,create=5,set=5,children=20"),
        ]),
    },
    Scenario {
        name: "reconnect-storm",
        about: "Every session loses its connection at the same moment and comes back with its id and password, as after \
                the loss of a server",
        sessions: 1000,
        kind: Kind::ReconnectStorm,
    },
    Scenario {
        name: "expiry-storm",
        about: "Every session is abandoned with an ephemeral node of its own; sets at 500/s from others show what they \
                feel while all of them expire",
        sessions: 1000,
        kind: Kind::ExpiryStorm,
    },
];

/// What came of one.
#[derive(Debug, Serialize)]
pub struct Outcome {
    schema: &'static str,
    scenario: &'static str,
    about: &'static str,
    sessions: usize,
    /// Single figures, such as the number of locks a second.
    figures: Vec<Figure>,
    /// Distributions.
    latencies: Vec<Distribution>,
    /// Whole runs.
    runs: Vec<(String, Report)>,
    /// What was wrong.
    failures: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
}

#[derive(Debug, Serialize)]
struct Distribution {
    name: &'static str,
    count: u64,
    latency_ns: Latency,
}

impl Outcome {
    fn figure(&mut self, name: &'static str, value: f64, unit: &'static str) {
        self.figures.push(Figure { name, value, unit });
    }

    fn latency(&mut self, name: &'static str, histogram: &Histogram<u64>) {
        self.latencies.push(Distribution {
            name,
            count: histogram.len(),
            latency_ns: Latency::of(histogram),
        });
    }

    /// Whether nothing failed.
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty() && self.runs.iter().all(|(_, report)| report.verified())
    }

    /// For people.
    pub fn show(&self) -> String {
        use std::fmt::Write;
        let mut out = format!("{}: {}\n", self.scenario, self.about);
        if self.sessions > 0 {
            let _ = writeln!(out, "{} sessions", show_count(self.sessions as u64));
        }
        if !self.runs.is_empty() {
            let _ = writeln!(
                out,
                "{:<14}{:>12}{:>10}{:>10}{:>10}{:>10}{:>9}",
                "", "ops/s", "p50", "p99", "p99.9", "max", "errors"
            );
        }
        for (label, report) in &self.runs {
            let latency = &report.total.response_ns;
            let _ = writeln!(
                out,
                "{label:<14}{:>12}{:>10}{:>10}{:>10}{:>10}{:>9}",
                show_count(report.total.rate as u64),
                show_nanos(latency.p50),
                show_nanos(latency.p99),
                show_nanos(latency.p999),
                show_nanos(latency.max),
                show_count(report.total.failed),
            );
        }
        for Distribution { name, count, latency_ns } in &self.latencies {
            let _ = writeln!(
                out,
                "{name}: {} times, p50 {}, p99 {}, p99.9 {}, max {}",
                show_count(*count),
                show_nanos(latency_ns.p50),
                show_nanos(latency_ns.p99),
                show_nanos(latency_ns.p999),
                show_nanos(latency_ns.max)
            );
        }
        for Figure { name, value, unit } in &self.figures {
            let _ = writeln!(out, "{name}: {} {unit}", three_digits(*value));
        }
        for failure in &self.failures {
            let _ = writeln!(out, "FAILED: {failure}");
        }
        out
    }
}

/// The scenario of this name.
///
/// # Errors
/// With all the names if there is none.
pub fn find(name: &str) -> anyhow::Result<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name).ok_or_else(|| {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        anyhow!("`{name}` is not a scenario; there are {}", names.join(", "))
    })
}

/// Runs one.
///
/// # Errors
/// If the servers cannot be reached or prepared.
pub fn run(
    scenario: &'static Scenario,
    arguments: &ScenarioArgs,
    stop: &Arc<AtomicBool>,
    watcher: &mut dyn Watcher,
) -> anyhow::Result<Outcome> {
    process::raise_open_files_limit();
    let hosts = Arc::new(Hosts::parse(&arguments.hosts)?);
    let sessions = arguments.sessions.map_or(Ok(scenario.sessions), usize::try_from)?;
    let mut outcome = Outcome {
        schema: SCHEMA,
        scenario: scenario.name,
        about: scenario.about,
        sessions: if matches!(scenario.kind, Kind::Runs(_)) { 0 } else { sessions },
        figures: Vec::new(),
        latencies: Vec::new(),
        runs: Vec::new(),
        failures: Vec::new(),
    };
    if let Kind::Runs(runs) = scenario.kind {
        for (label, line) in runs {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            watcher.step(&format!("{label}: loadgen {line}"));
            outcome.runs.push(((*label).to_owned(), plain_run(line, arguments, stop, watcher)?));
        }
        return Ok(outcome);
    }
    if sessions < 2 {
        bail!("--sessions is at least 2 here");
    }
    let root = format!("{}/loadgen-{}", hosts.chroot, scenario.name);
    let mut client = run::connect_any(&hosts, SESSION_TIMEOUT_MS)?;
    client.delete_tree(&root)?;
    for (at, _) in root.match_indices('/').skip(1) {
        client.ensure_node(&root[..at])?;
    }
    client.ensure_node(&root)?;
    let stage = Stage { hosts, root: root.clone(), sessions, arguments };
    match scenario.kind {
        Kind::FanOut(watched) => stage.fan_out(watched, &mut outcome)?,
        Kind::Recipe(contenders) => stage.recipe(contenders, &mut client, &mut outcome)?,
        Kind::ReconnectStorm => stage.reconnect(&mut outcome)?,
        Kind::ExpiryStorm => stage.expiry(&mut outcome, stop, watcher)?,
        Kind::Runs(_) => {}
    }
    let mut client = run::connect_any(&stage.hosts, SESSION_TIMEOUT_MS)?;
    client.delete_tree(&root)?;
    client.close();
    Ok(outcome)
}

fn plain_run(
    line: &str,
    arguments: &ScenarioArgs,
    stop: &Arc<AtomicBool>,
    watcher: &mut dyn Watcher,
) -> anyhow::Result<Report> {
    let words = std::iter::once("loadgen").chain(line.split(' '));
    let mut parsed = CommandLine::try_parse_from(words)?.run;
    parsed.hosts.clone_from(&arguments.hosts);
    parsed.duration = arguments.duration;
    parsed.warmup = arguments.warmup;
    parsed.seed = arguments.seed;
    parsed.pid.clone_from(&arguments.pid);
    let settings = parsed.settings()?;
    let outcome = run::run(&settings, stop.clone(), watcher)?;
    Ok(Report::new(&settings, &outcome))
}

/// Where a scenario that is not a plain run happens.
struct Stage<'a> {
    hosts: Arc<Hosts>,
    root: String,
    sessions: usize,
    arguments: &'a ScenarioArgs,
}

impl Stage<'_> {
    fn engine<L: Load>(&self, timeout_ms: i32, load: L) -> anyhow::Result<Engine<L>> {
        let links =
            (0..self.sessions).map(|index| Link::new(index, index as u64, index % self.hosts.list.len()));
        Engine::new(Clock::start(), self.hosts.clone(), timeout_ms, links.collect(), load)
    }

    fn fan_out(&self, watched: Watched, outcome: &mut Outcome) -> anyhow::Result<()> {
        const ROUNDS: usize = 50;
        let (began, took) = (Instant::now(), Arc::new(Mutex::new(Duration::ZERO)));
        let noted = took.clone();
        let on_connected = Box::new(move || *noted.lock().expect("nobody panics with it") = began.elapsed());
        let load = FanOut::new(self.root.clone(), watched, 100, ROUNDS, on_connected);
        let load = self.engine(SESSION_TIMEOUT_MS, load)?.run()?;
        outcome.failures.extend(load.failure);
        if load.rounds.is_empty() {
            return Ok(());
        }
        outcome.latency("from the change to an event", &load.event_times);
        let (mut last_events, mut last_reads) = (crate::record::histogram(), crate::record::histogram());
        for round in &load.rounds {
            last_events.saturating_record(round.last_event.max(1));
            last_reads.saturating_record(round.last_data.max(1));
        }
        outcome.latency("from the change to the last event", &last_events);
        outcome.latency("from the change until all have read it", &last_reads);
        let connects = self.sessions as f64 / took.lock().expect("nobody panics with it").as_secs_f64();
        outcome.figure("sessions opened", connects, "a second");
        Ok(())
    }

    fn recipe(
        &self,
        contenders: usize,
        client: &mut crate::client::Client,
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        let groups = self.sessions.checked_div(contenders).unwrap_or(1).max(1);
        for group in 0..groups {
            client.ensure_node(&Recipe::group_path(&self.root, group))?;
        }
        let duration = nanos(self.arguments.duration);
        let load = Recipe::new(self.root.clone(), self.sessions, groups, duration);
        let load = self.engine(SESSION_TIMEOUT_MS, load)?.run()?;
        outcome.latency("from the wish to the hold", &load.waits);
        outcome.latency("from the release to the next hold", &load.hand_overs);
        outcome.figure("held", load.waits.len() as f64 / (duration as f64 / SECOND as f64), "times a second");
        if load.overlaps > 0 {
            outcome.failures.push(format!("two held one lock at the same time, {} times", load.overlaps));
        }
        outcome.failures.extend(load.failures);
        Ok(())
    }

    fn reconnect(&self, outcome: &mut Outcome) -> anyhow::Result<()> {
        let mut engine = self.engine(SESSION_TIMEOUT_MS, Storm::new(self.sessions, Aftermath::Reconnect))?;
        engine.connecting_limit = usize::MAX;
        let load = engine.run()?;
        if !load.returns.is_empty() {
            outcome.latency("from the cut to the return of a session", &load.returns);
        }
        if load.failure.is_none() {
            outcome.figure("all were back after", load.returns.max() as f64 / 1e6, "ms");
        }
        if load.expired > 0 {
            outcome.failures.push(format!("{} sessions were lost", load.expired));
        }
        outcome.failures.extend(load.failure);
        Ok(())
    }

    fn expiry(
        &self,
        outcome: &mut Outcome,
        stop: &Arc<AtomicBool>,
        watcher: &mut dyn Watcher,
    ) -> anyhow::Result<()> {
        /// As short as Apache allows with its tick of 2 s.
        const TIMEOUT_MS: i32 = 4_000;
        let aftermath = Aftermath::Abandon { parent: self.root.clone() };
        let load = self.engine(TIMEOUT_MS, Storm::new(self.sessions, aftermath))?.run()?;
        outcome.failures.extend(load.failure);
        let cut = Instant::now();
        let (hosts, root) = (self.hosts.clone(), self.root.clone());
        let gone = thread::spawn(move || -> anyhow::Result<Option<(Duration, Duration)>> {
            let mut client = run::connect_any(&hosts, SESSION_TIMEOUT_MS)?;
            let all = client.get(&root)?.map_or(0, |(_, stat)| stat.num_children);
            let mut first = None;
            while cut.elapsed() < Duration::from_secs(60) {
                let left = client.get(&root)?.map_or(0, |(_, stat)| stat.num_children);
                if left < all && first.is_none() {
                    first = Some(cut.elapsed());
                }
                if left == 0 {
                    client.close();
                    return Ok(Some((first.unwrap_or_default(), cut.elapsed())));
                }
                thread::sleep(Duration::from_millis(20));
            }
            Ok(None)
        });
        let line = "-c 16 --writes 500/s";
        let report = plain_run(line, self.arguments, stop, watcher)?;
        outcome.runs.push(("the others".to_owned(), report));
        match gone.join().map_err(|_| anyhow!("the thread that counts panicked"))?? {
            Some((first, last)) => {
                outcome.figure("the first expired after", first.as_secs_f64(), "s");
                outcome.figure("the last expired after", last.as_secs_f64(), "s");
            }
            None => {
                outcome.failures.push("ephemeral nodes of dead sessions were there after a minute".to_owned())
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A preset that does not parse would be found by a user.
    #[test]
    fn every_published_run_is_a_valid_command_line() {
        for scenario in SCENARIOS {
            if let Kind::Runs(runs) = scenario.kind {
                for (label, line) in runs {
                    let words = std::iter::once("loadgen").chain(line.split(' '));
                    let parsed = CommandLine::try_parse_from(words);
                    let settings = parsed.unwrap_or_else(|error| panic!("{label}: {error}")).run.settings();
                    settings.unwrap_or_else(|error| panic!("{label}: {error}"));
                }
            }
            assert!(find(scenario.name).is_ok());
        }
        assert!(find("latency").unwrap_err().to_string().contains("atc10"));
    }
}
