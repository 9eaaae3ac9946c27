//! The rows of the two tables, of a server alone and of three: each a closed loop with a goal against Apache.

use crate::{group::Group, servers::Make, table::Sample};
use anyhow::ensure;
use loadgen::{
    keys::{KeySpace, Popularity},
    mix::{Pace, Plan, mix},
    report::Report,
    run::{self, Second, Settings, Watcher},
    traffic::Phases,
    units::ByteRange,
};
use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

/// A load and what zkfast must reach against Apache.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// For `--rows`.
    pub id: &'static str,
    /// On each side.
    pub servers: usize,
    /// As `loadgen --mix` takes it.
    pub mix: &'static str,
    /// Connections.
    pub connections: usize,
    /// In flight on each.
    pub in_flight: usize,
    /// Goal.
    pub goal: Goal,
}

/// Limits of a row; 0 where there is none.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// Ops/s at least this many times Apache's.
    pub rate: f64,
    /// p99 at most Apache's divided by this.
    pub p99: f64,
    /// CPU per operation at most Apache's divided by this.
    pub cpu: f64,
}

const fn row(
    id: &'static str,
    mix: &'static str,
    connections: usize,
    in_flight: usize,
    rate: f64,
    p99: f64,
    cpu: f64,
) -> Row {
    Row { id, servers: 1, mix, connections, in_flight, goal: Goal { rate, p99, cpu } }
}

/// The same load on an ensemble.
const fn three(row: Row) -> Row {
    Row { servers: 3, ..row }
}

/// Every load row.
pub const ROWS: &[Row] = &[
    row("set-1x1", "set", 1, 1, 2.0, 4.0, 2.0),
    row("set-64x1", "set", 64, 1, 2.2, 3.0, 3.0),
    row("set-64x16", "set", 64, 16, 10.0, 10.0, 15.0),
    row("create-64x16", "create", 64, 16, 12.0, 20.0, 20.0),
    row("get-1x1", "get", 1, 1, 5.0, 0.0, 4.0),
    row("get-64x1", "get", 64, 1, 2.2, 0.0, 4.0),
    row("get-64x16", "get", 64, 16, 12.0, 10.0, 20.0),
    row("mix-64x16", "get=70,set=30", 64, 16, 10.0, 0.0, 15.0),
    row("set-512x1", "set", 512, 1, 2.2, 0.0, 3.0),
    three(row("three-set-1x1", "set", 1, 1, 2.5, 2.0, 0.0)),
    three(row("three-set-64x1", "set", 64, 1, 4.0, 8.0, 0.0)),
    three(row("three-set-64x16", "set", 64, 16, 12.0, 0.0, 15.0)),
    three(row("three-create-64x16", "create", 64, 16, 12.0, 0.0, 15.0)),
    three(row("three-get-64x16", "get", 64, 16, 10.0, 0.0, 0.0)),
    three(row("three-mix-64x16", "get=70,set=30", 64, 16, 12.0, 0.0, 0.0)),
];

/// Lengths of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    /// Measurements of each server.
    pub pairs: usize,
    /// Of each measurement.
    pub measure: Duration,
    /// Load before the first measurement of a server, for the Java compiler.
    pub first_warmup: Duration,
}

/// Load before each measurement.
const WARMUP: Duration = Duration::from_millis(500);

struct Silent;

impl Watcher for Silent {
    fn second(&mut self, _second: &Second) {}
    fn step(&mut self, _text: &str) {}
}

/// Starts both servers, loads them alternately and returns the samples of each.
///
/// # Errors
/// If a server cannot be started or a load cannot be done.
pub fn measure(
    row: &Row,
    makes: &[Make; 2],
    directory: &Path,
    lengths: Lengths,
) -> anyhow::Result<[Vec<Sample>; 2]> {
    let first = Group::start(&makes[0], &directory.join("a"), row.servers)?;
    let second = Group::start(&makes[1], &directory.join("b"), row.servers)?;
    let mut groups = [first, second];
    let mut samples = [Vec::new(), Vec::new()];
    groups.iter().for_each(Group::pause);
    for pair in 0..=lengths.pairs {
        for (group, samples) in groups.iter_mut().zip(&mut samples) {
            group.resume()?;
            let (warmup, measure) = match pair {
                0 => (lengths.first_warmup, Duration::from_millis(100)),
                _ => (WARMUP, lengths.measure),
            };
            let sample = load(row, group, pair, warmup, measure);
            group.pause();
            if pair > 0 {
                samples.push(sample?);
            } else {
                sample?;
            }
        }
    }
    Ok(samples)
}

fn load(
    row: &Row,
    group: &Group,
    pair: usize,
    warmup: Duration,
    measure: Duration,
) -> anyhow::Result<Sample> {
    let creates = row.mix.contains("create");
    let root = if creates { format!("/loadgen{pair}") } else { "/loadgen".to_owned() };
    let nanos = loadgen::clock::nanos;
    let settings = Settings {
        hosts: Arc::new(group.hosts.clone()),
        plan: Arc::new(Plan {
            pace: Pace::Closed { mix: mix(row.mix).map_err(anyhow::Error::msg)?, in_flight: row.in_flight },
            keys: KeySpace { root: format!("{root}/keys"), count: 1000, depth: 1 },
            popularity: Popularity::Uniform,
            values: ByteRange { least: 100, most: 100 },
            multi_parts: 1,
            connections: row.connections,
            root,
            seed: pair as u64,
            verify: false,
        }),
        phases: Phases {
            warmup: nanos(warmup),
            duration: nanos(measure),
            drain: nanos(Duration::from_secs(20)),
        },
        cores: 1,
        timeout_ms: 30_000,
        list_children: 0,
        pids: group.pids(),
        keep: true,
    };
    let outcome = run::run(&settings, Arc::new(AtomicBool::new(false)), &mut Silent)?;
    let report = Report::new(&settings, &outcome);
    ensure!(report.total.failed == 0, "{} failed {} operations", group.make.name(), report.total.failed);
    let latency = &report.total.service_ns;
    Ok(Sample {
        rate: report.total.rate,
        cpu_us: report.server_cpu_ns_per_operation.unwrap_or(0.0) / 1e3,
        p50_ms: latency.p50 as f64 / 1e6,
        p99_ms: latency.p99 as f64 / 1e6,
        p999_ms: latency.p999 as f64 / 1e6,
        max_ms: latency.max as f64 / 1e6,
        client_cpu_us: report.client_cpu_ns_per_operation / 1e3,
    })
}

/// A port that nobody listens on now.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(free_ports(1)?[0])
}

/// So many of them, each another one: held until all are found.
pub fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let bind = |_| std::net::TcpListener::bind("127.0.0.1:0");
    let held = (0..count).map(bind).collect::<std::io::Result<Vec<_>>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
