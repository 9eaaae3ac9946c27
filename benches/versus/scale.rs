//! The rows about size: a million nodes, thousands of sessions.

use crate::{
    rows::free_port,
    servers::{Make, Server},
};
use anyhow::{Context, anyhow};
use loadgen::{
    client::Client,
    clock::Clock,
    engine::Engine,
    fan_out::{Extent, FanOut, Rereads, Round, Watched},
    keys::KeySpace,
    layout::{Values, create_all},
    link::Link,
    process,
    units::ByteRange,
};
use std::{
    path::Path,
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::{Duration, Instant},
};

/// Megabytes.
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// What a million nodes cost.
#[derive(Clone, Copy, Debug)]
pub struct Nodes {
    /// Loading them through one pipelined connection, seconds.
    pub load_s: f64,
    /// Resident memory when they are loaded, MB.
    pub resident_mb: f64,
    /// From the start of the process to the first read, seconds.
    pub restart_s: f64,
    /// Resident memory after the restart, MB.
    pub restarted_mb: f64,
}

/// Loads `count` nodes of 24-byte paths and 100-byte values, then restarts the server.
///
/// # Errors
/// If the server fails.
pub fn nodes(make: &Make, directory: &Path, count: u64) -> anyhow::Result<Nodes> {
    let server = Server::start(make, directory, free_port()?)?;
    let keys = KeySpace { root: "/loadgen/keys".to_owned(), count, depth: 1 };
    let mut client = Client::connect(&server.hosts.list[0], 30_000)?;
    for path in keys.directories() {
        client.ensure_node(&path)?;
    }
    let values = Values::new(ByteRange { least: 100, most: 100 }, 0);
    let began = Instant::now();
    create_all(&mut client, count, |key, out| keys.put(key, out), &values, &AtomicBool::new(false))?;
    let load_s = began.elapsed().as_secs_f64();
    client.close();
    let resident_mb = megabytes(process::usage(server.pid())?.resident_bytes);
    // The start is timed from the start of the process; the read comes right behind its first handshake.
    let server = server.restart()?;
    let began = Instant::now();
    let mut client = Client::connect(&server.hosts.list[0], 30_000)?;
    client.get(&keys.path(count - 1))?.context("the last node is lost")?;
    let restart_s = (server.start_time + began.elapsed()).as_secs_f64();
    client.close();
    let restarted_mb = megabytes(process::usage(server.pid())?.resident_bytes);
    Ok(Nodes { load_s, resident_mb, restart_s, restarted_mb })
}

/// What thousands of sessions cost.
#[derive(Clone, Copy, Debug)]
pub struct Sessions {
    /// Resident memory per idle session, KB.
    pub idle_kb: f64,
    /// Sessions opened a second.
    pub connects_per_s: f64,
    /// Sessions watch again when all have been told.
    pub events_alone: LastEvent,
    /// Each session reads and watches again as soon as it is told.
    pub with_rereads: LastEvent,
}

/// From a set to the last event, milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct LastEvent {
    /// Median of the rounds.
    pub median_ms: f64,
    /// Fastest round.
    pub least_ms: f64,
    /// Slowest round.
    pub most_ms: f64,
}

impl LastEvent {
    fn of(rounds: &[Round]) -> Self {
        let mut times: Vec<f64> = rounds.iter().map(|round| round.last_event as f64 / 1e6).collect();
        times.sort_by(f64::total_cmp);
        Self { median_ms: times[times.len() / 2], least_ms: times[0], most_ms: times[times.len() - 1] }
    }
}

/// Opens `count` sessions, lets them idle, then lets all of them watch one node for some rounds; then once more, with
/// sessions that watch again as soon as they are told.
///
/// # Errors
/// If the server fails or drops a session.
pub fn sessions(make: &Make, directory: &Path, count: usize, rounds: usize) -> anyhow::Result<Sessions> {
    let server = Server::start(make, directory, free_port()?)?;
    let mut client = Client::connect(&server.hosts.list[0], 30_000)?;
    client.ensure_node("/watched")?;
    client.close();
    process::raise_open_files_limit();
    let pid = server.pid();
    let before = process::usage(pid)?.resident_bytes;
    let seen = Arc::new(Mutex::new((0, Duration::ZERO)));
    let (began, noted) = (Instant::now(), seen.clone());
    let on_connected = Box::new(move || {
        let took = began.elapsed();
        let resident = process::usage(pid).map_or(0, |usage| usage.resident_bytes);
        *noted.lock().expect("nobody panics with it") = (resident, took);
    });
    let fan_out = |rereads, on_connected| -> anyhow::Result<Vec<Round>> {
        let links = (0..count).map(|index| Link::new(index, index as u64, 0)).collect();
        let (path, extent) = ("/watched".to_owned(), Extent::Rounds(rounds));
        let load = FanOut::new(path, Watched::Data, rereads, 100, extent, on_connected, Arc::default());
        let hosts = Arc::new(server.hosts.clone());
        let load = Engine::new(Clock::start(), hosts, 40_000, links, load)?.run()?;
        match load.failure.or_else(|| load.missing.failure()) {
            Some(why) => Err(anyhow!("{}: {why}", make.name())),
            None => Ok(load.rounds),
        }
    };
    let events_alone = fan_out(Rereads::BehindLastEvent, on_connected)?;
    let with_rereads = fan_out(Rereads::AtOnce, Box::new(|| {}))?;
    let (resident, took) = *seen.lock().expect("nobody panics with it");
    Ok(Sessions {
        idle_kb: (resident as f64 - before as f64) / 1e3 / count as f64,
        connects_per_s: count as f64 / took.as_secs_f64(),
        events_alone: LastEvent::of(&events_alone),
        with_rereads: LastEvent::of(&with_rereads),
    })
}
