//! The command line.

use crate::{
    compare::{Budget, budget},
    hosts::Hosts,
    keys::{DEPTH_LIMIT, KeySpace, Popularity, popularity},
    mix::{Mix, Pace, Plan, Stream, mix},
    operation::Operation,
    run::Settings,
    traffic::Phases,
    units::{ByteRange, byte_range, count, duration, duration_nanos, rate, seed},
};
use anyhow::{Context, bail, ensure};
use clap::{Args, Parser, Subcommand};
use std::{path::PathBuf, sync::Arc, time::Duration};

/// A load generator for servers that speak the ZooKeeper protocol
#[derive(Debug, Parser)]
#[command(
    name = "loadgen",
    version,
    args_conflicts_with_subcommands = true,
    max_term_width = 110,
    after_help = "The exit code is 0 if all is well, 1 if --verify or a budget failed, nothing succeeded or the server was gone at \
                  the end, 2 if it could not be done."
)]
pub struct CommandLine {
    /// What else than a plain run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// A plain run.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What else loadgen does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Find the highest rate at which a latency objective holds
    FindMax(Box<FindMaxArgs>),
    /// Run a scenario by its name; without a name, list them
    Scenario(ScenarioArgs),
    /// Compare two runs, or two sets of runs, that were written with --json
    Compare(CompareArgs),
}

/// `loadgen find-max`.
#[derive(Debug, Args)]
pub struct FindMaxArgs {
    /// The median response time must not be above this
    #[arg(long, value_name = "TIME", value_parser = duration, group = "objective", help_heading = "Objective")]
    pub p50: Option<Duration>,
    /// The 99th percentile must not be above this, such as 5ms
    #[arg(long, value_name = "TIME", value_parser = duration, group = "objective", help_heading = "Objective")]
    pub p99: Option<Duration>,
    /// The 99.9th percentile must not be above this
    #[arg(long, value_name = "TIME", value_parser = duration, group = "objective", help_heading = "Objective")]
    pub p999: Option<Duration>,
    /// First rate tried
    #[arg(long, default_value = "1k/s", value_name = "RATE", value_parser = rate, help_heading = "Objective")]
    pub from: f64,
    /// Never try more than this
    #[arg(long, default_value = "10M/s", value_name = "RATE", value_parser = rate, help_heading = "Objective")]
    pub most: f64,
    /// Stop when the answer is known to this many percent
    #[arg(long, default_value_t = 5.0, value_name = "PERCENT", help_heading = "Objective")]
    pub precision: f64,
    /// What to load; rates are taken as proportions. Without one: setData.
    #[command(flatten)]
    pub run: RunArgs,
}

/// `loadgen scenario`.
#[derive(Clone, Debug, Args)]
pub struct ScenarioArgs {
    /// Which; without one, all are listed
    pub name: Option<String>,
    /// Servers, as in a ZooKeeper connect string
    #[arg(long, default_value = "127.0.0.1:2181", value_name = "HOSTS")]
    pub hosts: String,
    /// Sessions, where the scenario leaves it open
    #[arg(long, short = 'c', value_name = "N", value_parser = count)]
    pub sessions: Option<u64>,
    /// How long to measure each step
    #[arg(long, short = 'd', default_value = "10s", value_name = "TIME", value_parser = duration)]
    pub duration: Duration,
    /// How long to load before measuring
    #[arg(long, default_value = "3s", value_name = "TIME", value_parser = duration)]
    pub warmup: Duration,
    /// Start of the random numbers [default: from the clock]
    #[arg(long, allow_hyphen_values = true, value_parser = seed)]
    pub seed: Option<u64>,
    /// Process ids of local servers, separated by commas, to report their CPU time and memory together
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub pid: Vec<u32>,
    /// Write the results as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// No lines while it runs
    #[arg(long, short)]
    pub quiet: bool,
}

/// `loadgen compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// JSON of a run, or of several, separated by commas
    pub before: String,
    /// JSON of the runs to compare with it
    pub after: String,
    /// Exit with 1 on a significant change such as p99>+10% or ops/s<-5%, or a figure such as errors>0; may be repeated
    #[arg(long, value_name = "BUDGET", value_parser = budget)]
    pub fail_if: Vec<Budget>,
    /// Let --fail-if judge changes of fewer than 4 runs a side by blocks of 5 s; identical servers may fail it
    #[arg(long)]
    pub by_blocks: bool,
}

/// What to load, how and for how long.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Servers, as in a ZooKeeper connect string: host:port,host:port/chroot
    #[arg(long, default_value = "127.0.0.1:2181", value_name = "HOSTS")]
    pub hosts: String,
    /// setData at this rate, such as 50k/s
    #[arg(long, value_name = "RATE", value_parser = rate, help_heading = "Load")]
    pub writes: Option<f64>,
    /// getData at this rate, such as 200k/s
    #[arg(long, value_name = "RATE", value_parser = rate, help_heading = "Load")]
    pub reads: Option<f64>,
    /// The operations of --mix at this rate
    #[arg(long, value_name = "RATE", value_parser = rate, help_heading = "Load")]
    pub rate: Option<f64>,
    /// Weights of operations, such as set=40,get=40,create=10,delete=10
    #[arg(long, value_name = "MIX", value_parser = mix, help_heading = "Load")]
    pub mix: Option<Mix>,
    /// Arrivals with exponential gaps instead of equal ones
    #[arg(long, help_heading = "Load")]
    pub poisson: bool,
    /// Closed loop: each connection keeps --in-flight requests in flight, as most tools do
    #[arg(long, conflicts_with_all = ["writes", "reads", "rate", "poisson"], help_heading = "Load")]
    pub closed: bool,
    /// Sessions, each on its own connection
    #[arg(long, short = 'c', default_value = "64", value_parser = count, help_heading = "Load")]
    pub connections: u64,
    /// Requests in flight on each connection: the number in a closed loop, the limit in an open one
    /// [default: 1 closed, 1000 open]
    #[arg(long, value_name = "N", value_parser = count, help_heading = "Load")]
    pub in_flight: Option<u64>,
    /// Bytes of a value: 100, or a range such as 100..1k
    #[arg(long, default_value = "100", value_name = "BYTES", value_parser = byte_range, help_heading = "Data")]
    pub value: ByteRange,
    /// Nodes that are read and set; they are made before the run
    #[arg(long, default_value = "1000", value_name = "N", value_parser = count, help_heading = "Data")]
    pub znodes: u64,
    /// How keys are chosen: uniform, zipf or zipf:EXPONENT
    #[arg(long, default_value = "uniform", value_name = "HOW", value_parser = popularity, help_heading = "Data")]
    pub keys: Popularity,
    /// Levels of directories: 1 puts all nodes under one parent
    #[arg(long, default_value = "1", value_name = "LEVELS", help_heading = "Data")]
    pub depth: u32,
    /// setData parts of a multi
    #[arg(long, default_value = "8", value_name = "N", value_parser = count, help_heading = "Data")]
    pub multi_parts: u64,
    /// Children of the node that `children` lists
    #[arg(long, default_value = "100", value_name = "N", value_parser = count, help_heading = "Data")]
    pub list_children: u64,
    /// Node under which everything happens
    #[arg(long, default_value = "/loadgen", value_name = "PATH", help_heading = "Data")]
    pub root: String,
    /// Leave the nodes on the server
    #[arg(long, help_heading = "Data")]
    pub keep: bool,
    /// How long to measure
    #[arg(long, short = 'd', default_value = "10s", value_name = "TIME", value_parser = duration, help_heading = "Run")]
    pub duration: Duration,
    /// How long to load before measuring
    #[arg(long, default_value = "3s", value_name = "TIME", value_parser = duration, help_heading = "Run")]
    pub warmup: Duration,
    /// How long to wait for the last replies
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = duration, help_heading = "Run")]
    pub drain: Duration,
    /// Threads that send
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Run")]
    pub cores: usize,
    /// Wanted session timeout
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = duration, help_heading = "Run")]
    pub session_timeout: Duration,
    /// Start of the random numbers [default: from the clock]
    #[arg(long, allow_hyphen_values = true, value_parser = seed, help_heading = "Run")]
    pub seed: Option<u64>,
    /// Process ids of local servers, separated by commas, to report their CPU time and memory together
    #[arg(long, value_name = "PID", value_delimiter = ',', help_heading = "Run")]
    pub pid: Vec<u32>,
    /// Check that what is acknowledged is so and stays so
    #[arg(long, help_heading = "Run")]
    pub verify: bool,
    /// Write the results as JSON to this file; - is standard output
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub json: Option<PathBuf>,
    /// Write a report with pictures to this file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub html: Option<PathBuf>,
    /// Write response times per second as an HdrHistogram log to this file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub hlog: Option<PathBuf>,
    /// Exit with 1 if a figure of this run is beyond a limit, such as errors>0, p99>5ms or ops/s<40k; may be repeated
    #[arg(long, value_name = "BUDGET", value_parser = budget, help_heading = "Output")]
    pub fail_if: Vec<Budget>,
    /// No lines while it runs
    #[arg(long, short, help_heading = "Output")]
    pub quiet: bool,
}

/// Connections that may be asked for; each needs a descriptor.
const CONNECTIONS_LIMIT: u64 = 1_000_000;

/// Threads that may be asked for: each core of the generator takes part in the stamps of values.
const CORES_LIMIT: usize = 256;

impl RunArgs {
    /// Turns the arguments into settings.
    ///
    /// # Errors
    /// If they contradict each other or a server's name does not resolve.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let hosts = Arc::new(Hosts::parse(&self.hosts)?);
        ensure!(
            (1..=CONNECTIONS_LIMIT).contains(&self.connections),
            "--connections lies between 1 and {CONNECTIONS_LIMIT}"
        );
        ensure!((1..=DEPTH_LIMIT).contains(&self.depth), "--depth lies between 1 and {DEPTH_LIMIT}");
        ensure!((1..=1000).contains(&self.multi_parts), "--multi-parts lies between 1 and 1000");
        ensure!((1..=999_999_999).contains(&self.znodes), "--znodes lies between 1 and 999999999");
        ensure!(
            (1..=CORES_LIMIT).contains(&self.cores),
            "--cores lies between 1 and {CORES_LIMIT}; write the number of threads that send, such as --cores 2"
        );
        ensure!(self.in_flight != Some(0), "--in-flight is at least 1");
        ensure!(!self.duration.is_zero(), "--duration is longer than nothing");
        ensure!(
            self.root.starts_with('/') && self.root.len() > 1 && !self.root.ends_with('/'),
            "--root is a path such as /loadgen"
        );
        let connections = usize::try_from(self.connections)?;
        let cores = self.cores.min(connections);
        let root = format!("{}{}", hosts.chroot, self.root);
        let plan = Plan {
            pace: self.pace()?,
            keys: KeySpace { root: format!("{root}/keys"), count: self.znodes, depth: self.depth },
            popularity: self.keys,
            values: self.value,
            multi_parts: usize::try_from(self.multi_parts)?,
            connections,
            root,
            seed: self.seed.unwrap_or_else(|| fastrand::u64(..)),
            verify: self.verify,
        };
        let phases = Phases {
            warmup: duration_nanos(self.warmup),
            duration: duration_nanos(self.duration),
            drain: duration_nanos(self.drain),
        };
        let timeout_ms = i32::try_from(self.session_timeout.as_millis()).ok().filter(|ms| *ms > 0);
        let timeout_ms = timeout_ms.context(
            "--session-timeout lies between 1ms and 596h (the server narrows it to what it allows)",
        )?;
        Ok(Settings {
            hosts,
            plan: Arc::new(plan),
            phases,
            cores,
            timeout_ms,
            list_children: self.list_children,
            pids: self.pid.clone(),
            keep: self.keep,
        })
    }

    fn pace(&self) -> anyhow::Result<Pace> {
        let in_flight = self.in_flight.map(usize::try_from).transpose()?;
        if self.closed {
            let mix = self.mix.clone().unwrap_or_else(|| Mix::only(Operation::Set));
            return Ok(Pace::Closed { mix, in_flight: in_flight.unwrap_or(1) });
        }
        let mut streams = Vec::new();
        for (rate, operation) in [(self.writes, Operation::Set), (self.reads, Operation::Get)] {
            streams.extend(rate.map(|rate| Stream { rate, mix: Mix::only(operation) }));
        }
        match (self.rate, &self.mix) {
            (Some(rate), Some(mix)) => streams.push(Stream { rate, mix: mix.clone() }),
            (Some(_), None) => bail!("--rate needs --mix to say of what, such as --mix set=40,get=60"),
            (None, Some(_)) => {
                bail!("--mix needs --rate to say how often, such as --rate 50k/s, or --closed")
            }
            (None, None) => {}
        }
        ensure!(
            !streams.is_empty(),
            "say what to load: --writes 50k/s, --reads 200k/s, --rate 10k/s --mix set=40,get=60, or --closed"
        );
        Ok(Pace::Open { streams, poisson: self.poisson, in_flight_limit: in_flight.unwrap_or(1000) })
    }
}
