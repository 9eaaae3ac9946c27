//! What the death of one member does to clients of the others.

use crate::group::Group;
use anyhow::{Context, ensure};
use loadgen::{
    hosts::Hosts,
    keys::{KeySpace, Popularity},
    mix::{Pace, Plan, Stream, mix},
    run::{self, Second, Settings, Watcher},
    traffic::Phases,
    units::ByteRange,
};
use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

/// Writes a second: far from what three servers of either kind can do on two CPUs, so that the figures are about the
/// death and not about who has which CPU.
const RATE: f64 = 1000.0;
/// Connections, spread over the survivors.
const CONNECTIONS: usize = 32;
/// Warm-up, then as long before the death as after it, seconds.
const SECONDS: [u64; 3] = [2, 4, 4];

/// p99 of writes through the survivors, milliseconds from the moment when each was due.
#[derive(Clone, Copy, Debug)]
pub struct Disturbance {
    /// With all members.
    pub before_ms: f64,
    /// From the second in which one died.
    pub after_ms: f64,
}

/// Kills a member at the end of a second.
struct Killer<'a> {
    group: &'a mut Group,
    victim: usize,
    last_second: u64,
    is_done: bool,
}

impl Watcher for Killer<'_> {
    fn second(&mut self, second: &Second) {
        if !self.is_done && second.index >= self.last_second {
            self.group.kill(self.victim);
            self.is_done = true;
        }
    }

    fn step(&mut self, _text: &str) {}
}

/// `kill -9` of a follower while clients of the two other servers write at a steady rate; then takes the dead one back.
///
/// # Errors
/// If the load cannot be done, or a write fails.
pub fn lose_follower(group: &mut Group, round: usize) -> anyhow::Result<Disturbance> {
    let leader = group.leader()?;
    let victim = (leader + 1) % group.hosts.list.len();
    let list = group.hosts.list.iter().enumerate().filter(|(at, _)| *at != victim);
    let hosts = Hosts { list: list.map(|(_, host)| host.clone()).collect(), ..group.hosts.clone() };
    let [warmup, before, after] = SECONDS;
    let nanos = |seconds| loadgen::clock::nanos(Duration::from_secs(seconds));
    let stream = Stream { rate: RATE, mix: mix("set").map_err(anyhow::Error::msg)? };
    let settings = Settings {
        hosts: Arc::new(hosts),
        plan: Arc::new(Plan {
            pace: Pace::Open { streams: vec![stream], poisson: false, in_flight_limit: 100 },
            keys: KeySpace { root: "/loadgen/keys".to_owned(), count: 1000, depth: 1 },
            popularity: Popularity::Uniform,
            values: ByteRange { least: 100, most: 100 },
            multi_parts: 1,
            connections: CONNECTIONS,
            root: "/loadgen".to_owned(),
            seed: round as u64,
            verify: false,
        }),
        phases: Phases { warmup: nanos(warmup), duration: nanos(before + after), drain: nanos(20) },
        cores: 1,
        timeout_ms: 30_000,
        list_children: 0,
        pids: Vec::new(),
        keep: true,
    };
    let mut killer = Killer { group, victim, last_second: warmup + before - 1, is_done: false };
    let outcome = run::run(&settings, Arc::new(AtomicBool::new(false)), &mut killer)?;
    ensure!(killer.is_done, "the load ended before the follower was killed");
    let failed: u64 = outcome.timeline.entries().iter().map(|second| second.failed).sum();
    ensure!(failed == 0, "{failed} writes failed through servers that live");
    group.revive(victim)?;
    let p99_ms = |from: u64, to: u64| {
        let seconds = outcome.timeline.entries().iter();
        let mut chosen = seconds.filter(|second| (from..to).contains(&second.second));
        let mut all = chosen.next().context("a second of the load is missing")?.response()?;
        chosen.try_for_each(|second| anyhow::Ok(all.add(&second.response()?)?))?;
        anyhow::Ok(all.value_at_quantile(0.99) as f64 / 1e6)
    };
    let death = warmup + before;
    Ok(Disturbance { before_ms: p99_ms(warmup, death)?, after_ms: p99_ms(death, death + after)? })
}
