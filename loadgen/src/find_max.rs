//! The highest rate at which a latency objective holds, found by bisection.

use crate::{
    clock::Nanos,
    mix::{Pace, Plan, Stream},
    report::Report,
    run::{self, Settings, Watcher},
    units::{show_count, show_nanos},
};
use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// What must hold.
#[derive(Clone, Copy, Debug)]
pub struct Objective {
    /// Which quantile, such as 0.99.
    pub quantile: f64,
    /// Response time at it, at most.
    pub limit: Nanos,
}

/// How the search goes.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// First rate tried, operations a second.
    pub from: f64,
    /// Never more than this.
    pub most: f64,
    /// Stop when the bounds are this close, such as 0.05 for 5%.
    pub precision: f64,
}

/// Runs that a search may take.
const RUNS_LIMIT: usize = 40;
/// Share of the wanted rate that must be answered.
const ANSWERED: f64 = 0.99;

/// One tried rate.
#[derive(Debug)]
pub struct Step {
    /// Wanted operations a second.
    pub rate: f64,
    /// Response time at the objective's quantile.
    pub at_quantile: Nanos,
    /// Whether the objective held, all was answered and nothing failed.
    pub holds: bool,
    /// The run.
    pub report: Report,
}

/// Bisects. The streams' proportions are kept.
///
/// # Errors
/// If a run cannot be done.
pub fn find_max(
    settings: &Settings,
    objective: Objective,
    search: Search,
    stop: &Arc<AtomicBool>,
    watcher: &mut dyn Watcher,
) -> anyhow::Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut good, mut bad): (f64, Option<f64>) = (0.0, None);
    let mut rate = search.from.min(search.most);
    while steps.len() < RUNS_LIMIT && !stop.load(Ordering::Relaxed) {
        let step = try_rate(settings, objective, rate, stop, watcher)?;
        watcher.step(&format!(
            "{:>12}/s  p{} {:>8}  {}",
            show_count(rate as u64),
            objective.quantile * 100.0,
            show_nanos(step.at_quantile),
            if step.holds { "holds" } else { "misses" }
        ));
        let holds = step.holds;
        steps.push(step);
        if holds {
            good = rate;
        } else {
            bad = Some(rate);
        }
        rate = match bad {
            None if good >= search.most => break,
            None => (good * 2.0).min(search.most),
            Some(bad) if good == 0.0 && bad < 1.0 => break,
            Some(bad) if good == 0.0 => bad / 4.0,
            Some(bad) if bad / good <= 1.0 + search.precision => break,
            Some(bad) => f64::midpoint(good, bad),
        };
    }
    steps.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    Ok(steps)
}

fn try_rate(
    settings: &Settings,
    objective: Objective,
    rate: f64,
    stop: &Arc<AtomicBool>,
    watcher: &mut dyn Watcher,
) -> anyhow::Result<Step> {
    let mut plan: Plan = (*settings.plan).clone();
    if let Pace::Open { streams, .. } = &mut plan.pace {
        let sum: f64 = streams.iter().map(|stream| stream.rate).sum();
        *streams = streams
            .iter()
            .map(|stream| Stream { rate: stream.rate / sum * rate, mix: stream.mix.clone() })
            .collect();
    }
    let settings = Settings { plan: Arc::new(plan), ..settings.clone() };
    let outcome = run::run(&settings, stop.clone(), &mut Quiet(watcher))?;
    let at_quantile = outcome.measured.response_at(objective.quantile);
    let report = Report::new(&settings, &outcome);
    // Of what was due: whether it was answered soon enough, the objective says.
    let answered =
        report.total.succeeded as f64 / report.seconds >= ANSWERED * rate && report.total.failed == 0;
    Ok(Step { rate, at_quantile, holds: answered && at_quantile <= objective.limit, report })
}

/// Passes nothing on but the seconds.
struct Quiet<'a>(&'a mut dyn Watcher);

impl Watcher for Quiet<'_> {
    fn second(&mut self, second: &run::Second) {
        self.0.second(second);
    }
    fn step(&mut self, _text: &str) {}
}

/// The tried rates as a table, with the knee.
pub fn show(steps: &[Step], objective: Objective) -> String {
    let mut out = String::new();
    let name = format!("p{}", objective.quantile * 100.0);
    let _ =
        writeln!(out, "{:>12}  {:>12}  {:>9}  {:>9}  {:>9}  ", "rate/s", "answered/s", "p50", name, "max");
    let knee = steps.iter().rposition(|step| step.holds);
    for (index, step) in steps.iter().enumerate() {
        let _ = writeln!(
            out,
            "{:>12}  {:>12}  {:>9}  {:>9}  {:>9}  {}{}",
            show_count(step.rate as u64),
            show_count(step.report.total.rate as u64),
            show_nanos(step.report.total.response_ns.p50),
            show_nanos(step.at_quantile),
            show_nanos(step.report.total.response_ns.max),
            if step.holds { "holds" } else { "misses" },
            if Some(index) == knee { "  <- knee" } else { "" }
        );
    }
    match knee {
        Some(at) => {
            let _ = writeln!(
                out,
                "highest rate with {name} <= {}: {}/s",
                show_nanos(objective.limit),
                show_count(steps[at].rate as u64)
            );
        }
        None => {
            let _ =
                writeln!(out, "no rate was found at which {name} <= {} holds", show_nanos(objective.limit));
        }
    }
    out
}
