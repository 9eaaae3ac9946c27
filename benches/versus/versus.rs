//! zkfast against Apache ZooKeeper on this machine: both are started and loaded alternately, A B A B, and the tables of
//! tuning.md come out. `cargo run --release -p loadgen --bin versus`.
//!
//! Only the ratio of the two means something: machines differ and are noisy, so each measurement of the one is set
//! against that of the other right beside it, while the other is halted.

use anyhow::{bail, ensure};
use clap::Parser;
use loadgen::units::duration;
use std::{path::PathBuf, process::ExitCode, time::Duration};

mod faults;
mod group;
mod rows;
mod scale;
mod servers;
mod table;

use group::Group;
use rows::{Lengths, ROWS};
use servers::Make;
use table::Spread;

/// Ids of the rows that are not loads.
const OTHER_ROWS: [&str; 4] = ["znodes", "sessions", "three-leader-kill", "three-follower-kill"];

/// Compare zkfast with Apache ZooKeeper
#[derive(Debug, Parser)]
#[command(name = "versus", version, max_term_width = 110)]
struct Arguments {
    /// Rows to measure, separated by commas: an id or the beginning of one; all of them by default
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// List the rows
    #[arg(long)]
    list: bool,
    /// Measurements of each server and load row
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Length of a measurement in seconds
    #[arg(long, default_value = "2s", value_parser = duration)]
    seconds: Duration,
    /// Load before the first measurement of a server
    #[arg(long, default_value = "3s", value_parser = duration)]
    warmup: Duration,
    /// The zkfast binary
    #[arg(long, default_value = "target/release/zkfast")]
    zkfast: PathBuf,
    /// Cores of zkfast
    #[arg(long, default_value_t = 2)]
    cores: usize,
    /// Compare Apache with itself, to see how far the figures can be trusted
    #[arg(long)]
    self_test: bool,
    /// Nodes of the row `znodes`
    #[arg(long, default_value_t = 1_000_000)]
    znodes: u64,
    /// Sessions of the row `sessions`
    #[arg(long, default_value_t = 10_000)]
    sessions: usize,
    /// Repetitions of the rows about size
    #[arg(long, default_value_t = 1)]
    scale_pairs: usize,
    /// Where the servers keep their data: a directory on the disk that is meant
    #[arg(long, default_value = "/tmp")]
    directory: PathBuf,
}

fn main() -> ExitCode {
    match measure_all(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("versus: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// `false` if a goal is missed.
fn measure_all(arguments: &Arguments) -> anyhow::Result<bool> {
    let ids = || ROWS.iter().map(|row| row.id).chain(OTHER_ROWS);
    if arguments.list {
        ids().for_each(|id| println!("{id}"));
        return Ok(true);
    }
    for wanted in &arguments.rows {
        ensure!(
            ids().any(|id| id.starts_with(wanted.as_str())),
            "there is no row `{wanted}`; --list shows all of them"
        );
    }
    ensure!(arguments.pairs > 0 && arguments.scale_pairs > 0, "at least one pair is needed");
    let wanted =
        |id: &str| arguments.rows.is_empty() || arguments.rows.iter().any(|row| id.starts_with(row.as_str()));
    let zkfast = Make::Zkfast { binary: std::path::absolute(&arguments.zkfast)?, cores: arguments.cores };
    let makes = [Make::Apache, if arguments.self_test { Make::Apache } else { zkfast }];
    for make in &makes {
        make.check()?;
    }
    let names = if arguments.self_test { ["Apache", "Apache again"] } else { ["Apache", "zkfast"] };
    let lengths =
        Lengths { pairs: arguments.pairs, measure: arguments.seconds, first_warmup: arguments.warmup };
    let mut reached = true;
    let mut head = false;
    for row in ROWS.iter().filter(|row| wanted(row.id)) {
        let directory = scratch(arguments)?;
        let samples = match rows::measure(row, &makes, directory.path(), lengths) {
            Ok(samples) => samples,
            // One that cannot form an ensemble yet must not keep the other rows from being measured.
            Err(error) if row.servers > 1 => {
                eprintln!("versus: {}: {error:#}", row.id);
                reached = false;
                continue;
            }
            Err(error) => return Err(error),
        };
        if !head {
            println!("{}", table::HEAD);
            head = true;
        }
        let (lines, row_reached) = table::show_row(row, names, &samples);
        print!("{lines}");
        reached &= row_reached;
    }
    if wanted("znodes") {
        reached &= nodes(arguments, &makes, names)?;
    }
    if wanted("sessions") {
        reached &= sessions(arguments, &makes, names)?;
    }
    if wanted("three-leader-kill") {
        reached &= leader_kills(arguments, &makes, names)?;
    }
    if wanted("three-follower-kill") {
        reached &= follower_kills(arguments, &makes, names)?;
    }
    Ok(reached)
}

fn scratch(arguments: &Arguments) -> anyhow::Result<tempfile::TempDir> {
    if !arguments.directory.is_dir() {
        bail!("{} is not a directory", arguments.directory.display());
    }
    Ok(tempfile::Builder::new().prefix("versus-").tempdir_in(&arguments.directory)?)
}

/// Prints one line of a row about size; `goal` limits the median of the second server.
fn line(what: &str, names: [&str; 2], values: &[Vec<f64>; 2], unit: &str, goal: f64) -> bool {
    let spreads = [0, 1].map(|at| Spread::of(values[at].iter().copied()));
    let holds = goal == 0.0 || spreads[1].median <= goal;
    let verdict = match goal {
        0.0 => String::new(),
        _ => format!("<= {goal} {unit}: {}", if holds { "pass" } else { "**FAIL**" }),
    };
    println!(
        "| {what} | {} {} {unit} | {} {} {unit} | {verdict} |",
        names[0],
        spreads[0].show(),
        names[1],
        spreads[1].show()
    );
    holds
}

fn nodes(arguments: &Arguments, makes: &[Make; 2], names: [&str; 2]) -> anyhow::Result<bool> {
    let mut all: [Vec<scale::Nodes>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..arguments.scale_pairs {
        for (make, all) in makes.iter().zip(&mut all) {
            let directory = scratch(arguments)?;
            all.push(scale::nodes(make, directory.path(), arguments.znodes)?);
        }
    }
    let pick = |of: fn(&scale::Nodes) -> f64| [0, 1].map(|at| all[at].iter().map(of).collect::<Vec<f64>>());
    println!("\n| {} znodes of 100 bytes | | | goal |\n|---|---|---|---|", arguments.znodes);
    let mut reached = line("RSS when loaded", names, &pick(|n| n.resident_mb), "MB", 300.0);
    reached &= line("RSS after restart", names, &pick(|n| n.restarted_mb), "MB", 300.0);
    reached &= line("restart to first read", names, &pick(|n| n.restart_s), "s", 1.0);
    reached &= line("loading through one connection", names, &pick(|n| n.load_s), "s", 5.0);
    Ok(reached)
}

fn sessions(arguments: &Arguments, makes: &[Make; 2], names: [&str; 2]) -> anyhow::Result<bool> {
    const ROUNDS: usize = 15;
    let mut all: [Vec<scale::Sessions>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..arguments.scale_pairs {
        for (make, all) in makes.iter().zip(&mut all) {
            let directory = scratch(arguments)?;
            all.push(scale::sessions(make, directory.path(), arguments.sessions, ROUNDS)?);
        }
    }
    let pick =
        |of: fn(&scale::Sessions) -> f64| [0, 1].map(|at| all[at].iter().map(of).collect::<Vec<f64>>());
    println!("\n| {} sessions | | | goal |\n|---|---|---|---|", arguments.sessions);
    let mut reached = true;
    type Picked = fn(&scale::Sessions) -> scale::LastEvent;
    let kinds: [(&str, Picked, f64); 2] = [
        ("set to last event, sessions watch again behind it", |s| s.events_alone, 60.0),
        ("set to last event, sessions read and watch again at once", |s| s.with_rereads, 0.0),
    ];
    for (what, of, goal) in kinds {
        let figures = |pick: fn(scale::LastEvent) -> f64| {
            [0, 1].map(|at| all[at].iter().map(|s| pick(of(s))).collect::<Vec<f64>>())
        };
        reached &= line(what, names, &figures(|e| e.median_ms), "ms", goal);
        line("- fastest round", names, &figures(|e| e.least_ms), "ms", 0.0);
        line("- slowest round", names, &figures(|e| e.most_ms), "ms", 0.0);
    }
    reached &= line("memory per idle session", names, &pick(|s| s.idle_kb), "KB", 8.0);
    line("sessions opened a second", names, &pick(|s| s.connects_per_s), "/s", 0.0);
    Ok(reached)
}

/// Kills leaders of three servers, `--pairs` of each kind.
fn leader_kills(arguments: &Arguments, makes: &[Make; 2], names: [&str; 2]) -> anyhow::Result<bool> {
    let mut all: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    for (make, all) in makes.iter().zip(&mut all) {
        let directory = scratch(arguments)?;
        let mut group = Group::start(make, directory.path(), 3)?;
        for round in 0..arguments.pairs {
            all.push(group.lose_leader(round)?.as_secs_f64() * 1e3);
        }
    }
    println!("\n| three servers | | | goal |\n|---|---|---|---|");
    Ok(line("kill -9 of the leader to the first accepted write", names, &all, "ms", 200.0))
}

/// Kills followers of three servers, `--pairs` of each kind.
fn follower_kills(arguments: &Arguments, makes: &[Make; 2], names: [&str; 2]) -> anyhow::Result<bool> {
    let mut all: [Vec<faults::Disturbance>; 2] = [Vec::new(), Vec::new()];
    for (make, all) in makes.iter().zip(&mut all) {
        let directory = scratch(arguments)?;
        let mut group = Group::start(make, directory.path(), 3)?;
        for round in 0..arguments.pairs {
            all.push(faults::lose_follower(&mut group, round)?);
        }
    }
    let pick =
        |of: fn(&faults::Disturbance) -> f64| [0, 1].map(|at| all[at].iter().map(of).collect::<Vec<f64>>());
    println!("\n| three servers, 1000 sets a second through two of them | | | goal |\n|---|---|---|---|");
    line("p99 before kill -9 of the third, a follower", names, &pick(|d| d.before_ms), "ms", 0.0);
    line("p99 after it", names, &pick(|d| d.after_ms), "ms", 0.0);
    let times = pick(|d| d.after_ms / d.before_ms.max(1e-3));
    Ok(line("p99 after / p99 before", names, &times, "", 2.0))
}
