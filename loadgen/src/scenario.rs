//! Loads by name: published mixes, and what people use ZooKeeper for.

use crate::{
    args::ScenarioArgs,
    fan_out::{Rereads, Watched},
    hosts::Hosts,
    layout, process,
    run::{self, Watcher},
};
use anyhow::{anyhow, bail};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

mod outcome;
mod stage;

pub use outcome::{Outcome, SCHEMA};
use stage::{Stage, plain_run};

/// Wanted by every session that is not to expire.
const SESSION_TIMEOUT_MS: i32 = 30_000;

/// What a scenario does.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Plain runs, one after the other: a label and the arguments of `loadgen`.
    Runs(&'static [(&'static str, &'static str)]),
    /// Sessions watch one node.
    FanOut(Watched, Rereads),
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
        kind: Kind::FanOut(Watched::Data, Rereads::AtOnce),
    },
    Scenario {
        name: "fan-out",
        about: "Events alone: a node that every session watches is set; when all have been told, they watch again",
        sessions: 1000,
        kind: Kind::FanOut(Watched::Data, Rereads::BehindLastEvent),
    },
    Scenario {
        name: "service-discovery",
        about: "An instance registers (ephemeral node) and leaves; every session watches the list and reads it again",
        sessions: 1000,
        kind: Kind::FanOut(Watched::Children, Rereads::AtOnce),
    },
    Scenario {
        name: "service-latency-overview",
        about: "The operations of ZooKeeper's own service latency overview (smoketest), asynchronously, from 1, 10 and 20 \
                clients: 50 writes (create, set, delete, ephemeral nodes) to 60 reads, as there; mixed instead of one \
                kind after the other, and one watched read with its event where it has five",
        sessions: 0,
        kind: Kind::Runs(&[
            (
                "1 client",
                "--closed -c 1 --in-flight 100 --mix create=10,get=50,delete=10,ephemeral=20,watch=10",
            ),
            (
                "10 clients",
                "--closed -c 10 --in-flight 100 --mix create=10,get=50,delete=10,ephemeral=20,watch=10",
            ),
            (
                "20 clients",
                "--closed -c 20 --in-flight 100 --mix create=10,get=50,delete=10,ephemeral=20,watch=10",
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
    let named = if matches!(scenario.kind, Kind::Runs(_)) { 0 } else { sessions };
    let mut outcome = Outcome::new(scenario.name, scenario.about, named);
    if let Kind::Runs(runs) = scenario.kind {
        for (label, line) in runs {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            watcher.step(&format!("{label}: loadgen {line}"));
            outcome.run(label, plain_run(line, arguments, stop, watcher)?);
        }
        outcome.interrupted(stop.load(Ordering::Relaxed));
        return Ok(outcome);
    }
    if sessions < 2 {
        bail!("--sessions is at least 2 here");
    }
    let root = format!("{}/loadgen-{}", hosts.chroot, scenario.name);
    let mut client = run::connect_any(&hosts, SESSION_TIMEOUT_MS)?;
    layout::remove(&mut client, &root)?;
    layout::own(&mut client, &root)?;
    let nodes = format!("{root}/nodes");
    client.ensure_node(&nodes)?;
    let stage = Stage { hosts, claim: root.clone(), root: nodes, sessions, arguments, stop };
    let done = match scenario.kind {
        Kind::FanOut(watched, rereads) => stage.fan_out(watched, rereads, &mut outcome),
        Kind::Recipe(contenders) => stage.recipe(contenders, &mut client, &mut outcome),
        Kind::ReconnectStorm => stage.reconnect(&mut outcome),
        Kind::ExpiryStorm => stage.expiry(&mut outcome, watcher),
        Kind::Runs(_) => Ok(()),
    };
    // Its nodes go also if it could not be done, or was ended early.
    let removed = run::connect_any(&stage.hosts, SESSION_TIMEOUT_MS).and_then(|mut client| {
        layout::remove(&mut client, &root)?;
        client.close();
        Ok(())
    });
    done?;
    if let Err(error) = removed {
        outcome.fail([format!("the nodes of the scenario are left on the server: {error:#}")]);
    }
    outcome.interrupted(stop.load(Ordering::Relaxed));
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::CommandLine;
    use clap::Parser;

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
