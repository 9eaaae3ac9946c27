//! One measured run: probe, lay out, load, read back, tidy up.

use crate::{
    claim::Claim,
    client::Client,
    clock::{Clock, Nanos, SECOND},
    engine::Engine,
    facts::ServerFacts,
    hosts::Hosts,
    layout,
    link::Link,
    mix::{Pace, Plan},
    operation::{Operation, put_path},
    process::{self, Usage},
    record::{Interval, Measured, Recorder, histogram},
    stamp::Expectation,
    timeline::Timeline,
    traffic::{Phases, Shared, Traffic},
    verify::{Findings, Witness},
};
use anyhow::{Context, anyhow};
use hdrhistogram::Histogram;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    thread,
    time::{Duration, SystemTime},
};
use zkfast_wire::OpCode;

/// Seconds of lines, of all cores, that the collector may lag behind; a quarter of a megabyte each.
const LINES_LIMIT: usize = 64;

/// What a run is to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the servers are.
    pub hosts: Arc<Hosts>,
    /// What is sent.
    pub plan: Arc<Plan>,
    /// How long.
    pub phases: Phases,
    /// Threads that send.
    pub cores: usize,
    /// Wanted session timeout in milliseconds.
    pub timeout_ms: i32,
    /// Children of the node that `children` lists.
    pub list_children: u64,
    /// Local server processes to watch.
    pub pids: Vec<u32>,
    /// Leave the nodes on the server.
    pub keep: bool,
}

/// One second of the whole run.
#[derive(Clone, Debug)]
pub struct Second {
    /// Which second, counted from the begin of the warm-up.
    pub index: u64,
    /// Response times of what was answered in it.
    pub response: Histogram<u64>,
    /// Errors in it.
    pub failed: u64,
    /// In flight at its end.
    pub in_flight: u64,
    /// Whether it belongs to the warm-up.
    pub warmup: bool,
}

/// CPU time of server and generator over the counted part.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// Of the generator, all threads, nanoseconds.
    pub client_cpu: Nanos,
    /// Of the server, if it was named; nanoseconds.
    pub server_cpu: Option<Nanos>,
    /// Resident memory of the server at the end, bytes.
    pub server_resident_bytes: Option<u64>,
    /// Wall time between the two looks at the clocks, nanoseconds.
    pub elapsed: Nanos,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// All cores together.
    pub measured: Measured,
    /// Second by second.
    pub timeline: Timeline,
    /// CPU and memory.
    pub spent: Spent,
    /// With `--verify`: what was checked.
    pub findings: Option<Findings>,
    /// `mntr` of the servers before the load.
    pub server_before: ServerFacts,
    /// `mntr` of the servers after it.
    pub server_after: ServerFacts,
    /// When the load began.
    pub began: SystemTime,
    /// Of the counted part, nanoseconds without a connection to any server.
    pub without_server: Nanos,
    /// No connection was left at the end, and no server could be reached.
    pub server_gone: bool,
    /// Ended by Ctrl-C.
    pub interrupted: bool,
    /// What could not be done behind the load; whole sentences.
    pub troubles: Vec<String>,
}

impl Default for Outcome {
    fn default() -> Self {
        Self {
            measured: Measured::default(),
            timeline: Timeline::default(),
            spent: Spent::default(),
            findings: None,
            server_before: ServerFacts::default(),
            server_after: ServerFacts::default(),
            began: SystemTime::UNIX_EPOCH,
            without_server: 0,
            server_gone: false,
            interrupted: false,
            troubles: Vec::new(),
        }
    }
}

/// Sees a run while it goes on.
pub trait Watcher {
    /// A second is over.
    fn second(&mut self, second: &Second);
    /// The run takes a step worth a line.
    fn step(&mut self, text: &str);
}

/// Does the run. `stop` ends it early, with the results so far.
///
/// # Errors
/// If the servers cannot be reached or prepared, or the generator lacks resources.
pub fn run(settings: &Settings, stop: Arc<AtomicBool>, watcher: &mut dyn Watcher) -> anyhow::Result<Outcome> {
    process::raise_open_files_limit();
    process::usage_of_all(&settings.pids)?;
    let plan = &settings.plan;
    let mut client = connect_any(&settings.hosts, settings.timeout_ms)?;
    watcher.step("laying out the nodes");
    layout::prepare(&mut client, plan, settings.list_children, &stop)?;
    client.close();
    catch_up(settings);
    let server_before = ServerFacts::ask(&settings.hosts);
    let began = SystemTime::now();

    let clock = Clock::start();
    let shared = Arc::new(Shared::new(settings.cores, stop.clone()));
    let (lines, received) = sync_channel(LINES_LIMIT);
    let mut threads = Vec::new();
    for core in 0..settings.cores {
        let recorder = Recorder::new(core, matches!(plan.pace, Pace::Open { .. }), lines.clone());
        let engine = engine(settings, clock, shared.clone(), core, recorder)?;
        let shared = shared.clone();
        let body = move || {
            let _ = rustix::thread::set_current_timer_slack(Some(1_000.try_into().expect("not zero")));
            // Finished here: the collector waits until the last core has let go of its end of the channel.
            engine.run().map(Traffic::finish).inspect_err(|error| shared.fail(format!("{error:#}")))
        };
        threads.push(thread::Builder::new().name(format!("loadgen-{core}")).spawn(body)?);
    }
    drop(lines);
    watcher.step(&format!("connecting {} sessions", plan.connections));
    let (timeline, spent) = collect(settings, clock, &shared, &received, watcher)?;
    let mut together: Option<(Measured, Option<Box<Witness>>)> = None;
    for thread in threads {
        let (measured, witness) =
            thread.join().map_err(|_| anyhow!("a core of the generator panicked"))??;
        match &mut together {
            None => together = Some((measured, witness)),
            Some((all, witnesses)) => {
                all.add(measured);
                if let (Some(own), Some(other)) = (witnesses.as_mut(), witness) {
                    own.add(*other);
                }
            }
        }
    }
    if let Some(why) = shared.failure.lock().expect("nobody panics with it").take() {
        return Err(anyhow!(why));
    }
    let (measured, witness) = together.context("no core ran")?;
    let server_after = ServerFacts::ask(&settings.hosts);
    let without_server = shared.presence.without(measured.window);
    // The connections may be on their way back.
    let server_gone = shared.presence.is_none_up()
        && connect_any(&settings.hosts, settings.timeout_ms).map(Client::close).is_err();
    let mut troubles = Vec::new();
    let findings = match witness {
        None => None,
        Some(witness) => {
            watcher.step("reading back what was acknowledged");
            read_back(settings, *witness)
                .map_err(|error| {
                    troubles.push(format!("What was acknowledged cannot be read back: {error:#}."))
                })
                .ok()
        }
    };
    if !settings.keep {
        watcher.step("deleting the nodes");
        if let Err(error) = remove(settings) {
            troubles.push(format!("The nodes of the load are left on the server: {error:#}."));
        }
    }
    let interrupted = stop.load(Ordering::Relaxed);
    Ok(Outcome {
        measured,
        timeline,
        spent,
        findings,
        server_before,
        server_after,
        began,
        without_server,
        server_gone,
        interrupted,
        troubles,
    })
}

fn remove(settings: &Settings) -> anyhow::Result<()> {
    let mut client = connect_any(&settings.hosts, settings.timeout_ms)?;
    layout::remove(&mut client, &settings.plan.root)?;
    client.close();
    Ok(())
}

/// Waits until every server has what was laid out through one of them, so that no read finds too little.
fn catch_up(settings: &Settings) {
    if settings.hosts.list.len() < 2 {
        return;
    }
    for host in &settings.hosts.list {
        // A server that is down now is the load's to find.
        let Ok(mut client) = Client::connect(host, settings.timeout_ms) else { continue };
        let root = settings.plan.root.as_bytes();
        let _ = client.call(OpCode::Sync, |out| put_path(out, |out| out.extend_from_slice(root)));
        client.close();
    }
}

/// A session on the first server that gives one.
///
/// # Errors
/// The last server's error if none does.
pub fn connect_any(hosts: &Hosts, timeout_ms: i32) -> anyhow::Result<Client> {
    let mut last = anyhow!("no server is named");
    for host in &hosts.list {
        match Client::connect(host, timeout_ms) {
            Ok(client) => return Ok(client),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn engine(
    settings: &Settings,
    clock: Clock,
    shared: Arc<Shared>,
    core: usize,
    recorder: Recorder,
) -> anyhow::Result<Engine<Traffic>> {
    let plan = &settings.plan;
    let numbers: Vec<u64> =
        (core..plan.connections).step_by(settings.cores).map(|number| number as u64).collect();
    let regular = numbers.len();
    let churn = if plan.pace.has(Operation::Session) { regular } else { 0 };
    let mut links: Vec<Link> = numbers
        .iter()
        .copied()
        .chain(
            (0..churn as u64).map(|index| (plan.connections + core) as u64 + index * settings.cores as u64),
        )
        .enumerate()
        .map(|(index, number)| Link::new(index, number, number as usize % settings.hosts.list.len()))
        .collect();
    if core == 0
        && let Some(first) = links.first_mut()
    {
        first.claim = Some(Claim::of(&plan.root));
    }
    let traffic = Traffic::new(plan.clone(), shared, settings.phases, core, regular, links.len(), recorder);
    Engine::new(clock, settings.hosts.clone(), settings.timeout_ms, links, traffic)
}

/// Puts the cores' seconds together and looks at the clocks at both ends of the counted part.
fn collect(
    settings: &Settings,
    clock: Clock,
    shared: &Shared,
    received: &Receiver<Interval>,
    watcher: &mut dyn Watcher,
) -> anyhow::Result<(Timeline, Spent)> {
    // The measured part begins with a whole second: what is less than one of the warm-up comes first.
    let first_counted = settings.phases.warmup.div_ceil(SECOND);
    let mut timeline = Timeline::new(first_counted);
    let mut open: BTreeMap<u64, Second> = BTreeMap::new();
    // The next second of each core: what all of them have left behind is complete, also if one has skipped it.
    let mut next_of_core = vec![0; settings.cores];
    let mut started: Option<(Nanos, Nanos, Option<Usage>)> = None;
    let mut spent = None;
    // For a run that is over before this thread comes to look: the last look before its begin.
    let mut before = None;
    let look = || (clock.now(), process::own_cpu(), process::usage_of_all(&settings.pids).ok().flatten());
    loop {
        let begin = shared.begin.load(Ordering::Acquire);
        let from = begin.saturating_add(settings.phases.warmup);
        let until = from.saturating_add(settings.phases.duration);
        let now = clock.now();
        if started.is_none() && now >= from {
            started = Some(look());
        } else if started.is_none() {
            before = Some(look());
        }
        if let (Some(start), None) = (&started, &spent)
            && (now >= until || shared.stop.load(Ordering::Relaxed))
        {
            spent = Some(between(start, &look()));
        }
        let next = if started.is_none() { from } else { until };
        let wait = next.saturating_sub(now).clamp(1_000_000, SECOND / 20);
        match received.recv_timeout(Duration::from_nanos(wait)) {
            Ok(interval) => {
                let warmup = interval.index < first_counted;
                let second = open.entry(interval.index).or_insert_with(|| Second {
                    index: interval.index,
                    response: histogram(),
                    failed: 0,
                    in_flight: 0,
                    warmup,
                });
                second.response.add(&interval.response).expect("equal bounds");
                second.failed += interval.failed;
                second.in_flight += interval.in_flight;
                next_of_core[interval.core] = interval.index + 1;
                let complete = next_of_core.iter().copied().min().unwrap_or(0);
                while let Some(entry) = open.first_entry().filter(|entry| *entry.key() < complete) {
                    let second = entry.remove();
                    watcher.second(&second);
                    timeline.push(&second)?;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    for second in open.into_values() {
        timeline.push(&second)?;
    }
    // The cores may have been done before this thread came to look.
    let spent = spent.or_else(|| started.or(before).as_ref().map(|start| between(start, &look())));
    Ok((timeline, spent.unwrap_or_default()))
}

fn between(start: &(Nanos, Nanos, Option<Usage>), end: &(Nanos, Nanos, Option<Usage>)) -> Spent {
    Spent {
        client_cpu: end.1 - start.1,
        server_cpu: start.2.zip(end.2).map(|(start, end)| end.cpu.saturating_sub(start.cpu)),
        server_resident_bytes: end.2.map(|usage| usage.resident_bytes),
        elapsed: end.0 - start.0,
    }
}

fn read_back(settings: &Settings, mut witness: Witness) -> anyhow::Result<Findings> {
    let plan = &settings.plan;
    let mut client = connect_any(&settings.hosts, settings.timeout_ms)?;
    let values = Expectation::new(plan.seed, settings.cores, plan.values.most);
    witness
        .read_back(&mut client, &plan.root, &plan.keys, &values)
        .context("the connection was lost while reading back")?;
    client.close();
    Ok(witness.findings)
}
