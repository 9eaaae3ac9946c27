//! The scenarios that are more than plain runs, each on sessions of its own.

use super::{Outcome, SESSION_TIMEOUT_MS};
use crate::{
    args::{CommandLine, ScenarioArgs},
    claim::Claim,
    client::Client,
    clock::{Clock, SECOND, nanos},
    engine::{Engine, Load},
    fan_out::{Extent, FanOut, Rereads, Watched},
    hosts::Hosts,
    link::Link,
    recipe::Recipe,
    record::histogram,
    report::Report,
    run::{self, Watcher},
    storm::{Aftermath, Storm},
};
use anyhow::anyhow;
use clap::Parser;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// One run with the arguments of `loadgen` in `line`, on the servers and for the time that the scenario was given.
///
/// # Errors
/// If the servers cannot be reached or prepared.
pub(super) fn plain_run(
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
pub(super) struct Stage<'a> {
    pub(super) hosts: Arc<Hosts>,
    /// What no other generator may use meanwhile.
    pub(super) claim: String,
    pub(super) root: String,
    pub(super) sessions: usize,
    pub(super) arguments: &'a ScenarioArgs,
    pub(super) stop: &'a Arc<AtomicBool>,
}

impl Stage<'_> {
    fn engine<L: Load>(&self, timeout_ms: i32, load: L) -> anyhow::Result<Engine<L>> {
        let mut links: Vec<Link> = (0..self.sessions)
            .map(|index| Link::new(index, index as u64, index % self.hosts.list.len()))
            .collect();
        links[0].claim = Some(Claim::of(&self.claim));
        Engine::new(Clock::start(), self.hosts.clone(), timeout_ms, links, load)
    }

    pub(super) fn fan_out(
        &self,
        watched: Watched,
        rereads: Rereads,
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        let (began, took) = (Instant::now(), Arc::new(Mutex::new(Duration::ZERO)));
        let noted = took.clone();
        let on_connected = Box::new(move || *noted.lock().expect("nobody panics with it") = began.elapsed());
        let extent = Extent::Time(nanos(self.arguments.duration));
        let (path, stop) = (self.root.clone(), self.stop.clone());
        let load = FanOut::new(path, watched, rereads, 100, extent, on_connected, stop);
        let load = self.engine(SESSION_TIMEOUT_MS, load)?.run()?;
        outcome.fail(load.failure);
        outcome.fail(load.missing.failure());
        if load.rounds.is_empty() {
            return Ok(());
        }
        outcome.figure("rounds", load.rounds.len() as f64, "");
        outcome.latency("from the change to an event", &load.event_times);
        let (mut last_events, mut last_reads) = (histogram(), histogram());
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

    pub(super) fn recipe(
        &self,
        contenders: usize,
        client: &mut Client,
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        let groups = self.sessions.checked_div(contenders).unwrap_or(1).max(1);
        for group in 0..groups {
            client.ensure_node(&Recipe::group_path(&self.root, group))?;
        }
        let duration = nanos(self.arguments.duration);
        let load = Recipe::new(self.root.clone(), self.sessions, groups, duration, self.stop.clone());
        let load = self.engine(SESSION_TIMEOUT_MS, load)?.run()?;
        let seconds = load.ran.max(1) as f64 / SECOND as f64;
        outcome.latency("from the wish to the hold", &load.waits);
        outcome.latency("from the release to the next hold", &load.hand_overs);
        outcome.figure("held", load.waits.len() as f64 / seconds, "times a second");
        if load.overlaps > 0 {
            outcome.fail([format!("two held one lock at the same time, {} times", load.overlaps)]);
        }
        outcome.fail(load.missing.failure());
        outcome.fail(load.failures);
        Ok(())
    }

    pub(super) fn reconnect(&self, outcome: &mut Outcome) -> anyhow::Result<()> {
        let mut engine = self
            .engine(SESSION_TIMEOUT_MS, Storm::new(self.sessions, Aftermath::Reconnect, self.stop.clone()))?;
        engine.connecting_limit = usize::MAX;
        let load = engine.run()?;
        if !load.returns.is_empty() {
            outcome.latency("from the cut to the return of a session", &load.returns);
        }
        if load.failure.is_none() && !self.stop.load(Ordering::Relaxed) {
            outcome.figure("all were back after", load.returns.max() as f64 / 1e6, "ms");
        }
        if load.expired > 0 {
            outcome.fail([format!("{} sessions were lost", load.expired)]);
        }
        outcome.fail(load.failure);
        Ok(())
    }

    pub(super) fn expiry(&self, outcome: &mut Outcome, watcher: &mut dyn Watcher) -> anyhow::Result<()> {
        /// As short as Apache allows with its tick of 2 s.
        const TIMEOUT_MS: i32 = 4_000;
        let aftermath = Aftermath::Abandon { parent: self.root.clone() };
        let load = self.engine(TIMEOUT_MS, Storm::new(self.sessions, aftermath, self.stop.clone()))?.run()?;
        outcome.fail(load.failure);
        if self.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let cut = Instant::now();
        let (hosts, root, stop) = (self.hosts.clone(), self.root.clone(), self.stop.clone());
        let gone = thread::spawn(move || -> anyhow::Result<Option<(Duration, Duration)>> {
            let mut client = run::connect_any(&hosts, SESSION_TIMEOUT_MS)?;
            let all = client.get(&root)?.map_or(0, |(_, stat)| stat.num_children);
            let mut first = None;
            while cut.elapsed() < Duration::from_secs(60) && !stop.load(Ordering::Relaxed) {
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
        let report = plain_run(line, self.arguments, self.stop, watcher)?;
        outcome.run("the others", report);
        match gone.join().map_err(|_| anyhow!("the thread that counts panicked"))?? {
            Some((first, last)) => {
                outcome.figure("the first expired after", first.as_secs_f64(), "s");
                outcome.figure("the last expired after", last.as_secs_f64(), "s");
            }
            None if self.stop.load(Ordering::Relaxed) => {}
            None => outcome.fail(["ephemeral nodes of dead sessions were there after a minute".to_owned()]),
        }
        Ok(())
    }
}
