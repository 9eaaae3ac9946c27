//! The simulator without end: `cargo run --release --example sim -- --help` tells how.

#![allow(missing_docs, dead_code, reason = "the simulator is shared with tests/sim/main.rs")]

mod checks;
mod clients;
mod disk;
mod driver;
mod faults;
mod network;
mod plan;
mod records;
mod rng;
mod schedule;
mod store;
#[path = "../support"]
mod support {
    pub mod simulated_disk;
    pub mod simulated_log;
}
mod world;

use crate::{plan::Plan, schedule::Figures};
use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};
use zkfast_zab::Mutation;

const HELP: &str = "\
Runs fault schedules of a simulated ensemble until one breaks an invariant.

  sim                      seeds 0, 1, 2 ... without end
  sim --seeds N            so many seeds
  sim --from S             starting there
  sim --seed S             one seed, with the last events before its end
  sim --lines N            so many events of it (100)
  sim --mutation NAME      with a fault in the protocol, to see it caught
";

/// The schedule that runs.
static AT: AtomicU64 = AtomicU64::new(0);

struct Options {
    from: u64,
    seeds: u64,
    replay: bool,
    lines: usize,
    mutation: Option<Mutation>,
}

fn options() -> Result<Options, String> {
    let mut options = Options { from: 0, seeds: u64::MAX, replay: false, lines: 100, mutation: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--help" {
            return Err(HELP.to_owned());
        }
        let value = words.next().ok_or(format!("{word} needs a value\n\n{HELP}"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{word} {value}: not a number"));
        match word.as_str() {
            "--seeds" => options.seeds = number()?,
            "--from" => options.from = number()?,
            "--lines" => options.lines = number()? as usize,
            "--seed" => (options.from, options.seeds, options.replay) = (number()?, 1, true),
            "--mutation" => {
                let named = Mutation::ALL.into_iter().find(|mutation| format!("{mutation:?}") == value);
                options.mutation = Some(named.ok_or(format!("mutations: {:?}", Mutation::ALL))?);
            }
            _ => return Err(format!("{word}: unknown\n\n{HELP}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::FAILURE;
        }
    };
    // A release build ends at the first panic: it must have said in which schedule.
    std::panic::set_hook(Box::new(|panic| {
        if cfg!(panic = "abort") {
            let at = AT.load(Ordering::Relaxed);
            println!("seed {at}: Assertion: {}", panic.payload_as_str().unwrap_or("a failed assertion"));
        }
    }));
    let started = Instant::now();
    let mut total = Figures::default();
    for count in 0..options.seeds {
        let seed = options.from + count;
        AT.store(seed, Ordering::Relaxed);
        let plan = Plan { mutation: options.mutation, ..Plan::from_seed(seed) };
        match schedule::run(&plan) {
            Ok(figures) => total.add(figures),
            Err(violation) => {
                println!("{}", schedule::retell(&plan, options.lines));
                println!("seed {seed} after {count} others: {}: {}", violation.invariant, violation.story);
                return ExitCode::FAILURE;
            }
        }
        if options.replay {
            println!("{}", schedule::retell(&plan, options.lines));
        }
        if (count + 1) % 10_000 == 0 || count + 1 == options.seeds {
            let elapsed = started.elapsed().as_secs_f64();
            println!(
                "{} schedules in {elapsed:.1} s ({:.0}/s), {} events, {} commits, {} elections, {:.1} h simulated: no violation",
                count + 1,
                (count + 1) as f64 / elapsed,
                total.steps,
                total.commits,
                total.elections,
                total.simulated_us as f64 / 3.6e9,
            );
        }
    }
    ExitCode::SUCCESS
}
