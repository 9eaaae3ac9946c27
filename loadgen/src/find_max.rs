//! The highest rate at which a latency objective holds, found by bisection.

use crate::{
    clock::{Nanos, SECOND},
    mix::{Pace, Plan, Stream},
    report::Report,
    run::{self, Settings, Watcher},
    units::{show_count, show_nanos, three_digits},
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

/// How a tried rate went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The objective held, and all that was due was answered without a failure.
    Holds,
    /// It did not.
    Misses,
    /// It did not, and the generator was busy or late: the server is not to blame before it has one of its own.
    GeneratorLimits,
    /// Ended early: it says nothing.
    Interrupted,
}

impl Verdict {
    /// In tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Misses => "misses",
            Self::GeneratorLimits => "misses (the generator was the limit)",
            Self::Interrupted => "interrupted",
        }
    }
}

/// One tried rate.
#[derive(Debug)]
pub struct Step {
    /// Wanted operations a second.
    pub rate: f64,
    /// Response time at the objective's quantile.
    pub at_quantile: Nanos,
    /// How it went.
    pub verdict: Verdict,
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
    let mut repeated = None;
    while steps.len() < RUNS_LIMIT && !stop.load(Ordering::Relaxed) {
        let step = try_rate(settings, objective, rate, stop, watcher)?;
        let again = step.verdict == Verdict::GeneratorLimits && repeated != Some(rate);
        watcher.step(&format!(
            "{:>12}/s  p{} {:>8}  {}",
            show_count(rate as u64),
            objective.quantile * 100.0,
            show_nanos(step.at_quantile),
            step.verdict.name()
        ));
        let verdict = step.verdict;
        steps.push(step);
        if again {
            // Somebody else may have had the generator's CPU: once more, before the search goes by it.
            repeated = Some(rate);
            continue;
        }
        match verdict {
            Verdict::Holds => good = rate,
            Verdict::Misses | Verdict::GeneratorLimits => bad = Some(rate),
            Verdict::Interrupted => break,
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

/// Samples from which on a quantile is one, and not the largest of all.
fn samples_needed(quantile: f64) -> u64 {
    (1.0 / (1.0 - quantile)).round() as u64
}

/// How long to measure: as asked for, or (within a minute) until there are samples enough.
fn length(asked: Nanos, quantile: f64, rate: f64) -> Nanos {
    let needed = 1.2 * samples_needed(quantile) as f64 / rate * SECOND as f64;
    asked.max((needed as Nanos).min(60 * SECOND))
}

/// The rate at which nothing but the generator ended the search, if it did.
pub fn bounded_by_generator(steps: &[Step]) -> Option<&Step> {
    let knee = steps.iter().rposition(|step| step.verdict == Verdict::Holds)?;
    let next = steps.get(knee + 1)?;
    let mut tries = steps[knee + 1..].iter().filter(|step| step.rate == next.rate);
    tries.all(|step| step.verdict == Verdict::GeneratorLimits).then_some(next)
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
    let mut settings = Settings { plan: Arc::new(plan), ..settings.clone() };
    settings.phases.duration = length(settings.phases.duration, objective.quantile, rate);
    let outcome = run::run(&settings, stop.clone(), &mut Quiet(watcher))?;
    let at_quantile = outcome.measured.response_at(objective.quantile);
    let report = Report::new(&settings, &outcome);
    let verdict = verdict(&report, at_quantile, objective.limit);
    Ok(Step { rate, at_quantile, verdict, report })
}

/// What was due (with Poisson arrivals not exactly rate x time) is what succeeded and what failed, whenever it was
/// answered: whether that was soon enough, the objective says.
fn verdict(report: &Report, at_quantile: Nanos, limit: Nanos) -> Verdict {
    let answered = report.total.succeeded > 0 && report.total.failed == 0;
    if report.interrupted {
        Verdict::Interrupted
    } else if answered && at_quantile <= limit && report.verified() {
        Verdict::Holds
    } else if report.generator_was_the_limit() {
        Verdict::GeneratorLimits
    } else {
        Verdict::Misses
    }
}

/// Passes nothing on but the seconds.
struct Quiet<'a>(&'a mut dyn Watcher);

impl Watcher for Quiet<'_> {
    fn second(&mut self, second: &run::Second) {
        self.0.second(second);
    }
    fn step(&mut self, _text: &str) {}
}

/// The tried rates as a table, with the knee and what to know before quoting it.
pub fn show(steps: &[Step], objective: Objective) -> String {
    let mut out = String::new();
    let name = format!("p{}", objective.quantile * 100.0);
    let _ =
        writeln!(out, "{:>12}  {:>12}  {:>9}  {:>9}  {:>9}  ", "rate/s", "answered/s", "p50", name, "max");
    let knee = steps.iter().rposition(|step| step.verdict == Verdict::Holds);
    for (index, step) in steps.iter().enumerate() {
        let _ = writeln!(
            out,
            "{:>12}  {:>12}  {:>9}  {:>9}  {:>9}  {}{}",
            show_count(step.rate as u64),
            show_count(step.report.total.rate as u64),
            show_nanos(step.report.total.response_ns.p50),
            show_nanos(step.at_quantile),
            show_nanos(step.report.total.response_ns.max),
            step.verdict.name(),
            if Some(index) == knee { "  <- knee" } else { "" }
        );
    }
    match knee {
        Some(at) => {
            let _ = writeln!(
                out,
                "{} with {name} <= {}: {}/s",
                if bounded_by_generator(steps).is_some() {
                    "lower bound, set by the generator, of the highest rate"
                } else {
                    "highest rate"
                },
                show_nanos(objective.limit),
                show_count(steps[at].rate as u64)
            );
        }
        None => {
            let _ =
                writeln!(out, "no rate was found at which {name} <= {} holds", show_nanos(objective.limit));
        }
    }
    if steps.iter().any(|step| step.verdict == Verdict::Interrupted) {
        let _ = writeln!(
            out,
            "note: the search was interrupted after {} of its rates: the knee may be higher.",
            steps.iter().filter(|step| step.verdict != Verdict::Interrupted).count()
        );
    }
    let needed = samples_needed(objective.quantile);
    let few = |step: &&Step| step.report.total.succeeded < needed && step.verdict != Verdict::Interrupted;
    if let Some(step) = steps.iter().find(few) {
        let _ = writeln!(
            out,
            "note: at {}/s there were {} answers; {name} of fewer than {} is the largest of them. Measure longer (-d).",
            three_digits(step.rate),
            show_count(step.report.total.succeeded),
            show_count(needed)
        );
    }
    let above = &steps[knee.map_or(0, |at| at + 1)..];
    if let Some(step) = above.iter().find(|step| step.verdict == Verdict::GeneratorLimits) {
        let _ = writeln!(
            out,
            "note: at {}/s the generator was the limit, not the server; the server may hold more. {}",
            show_count(step.rate as u64),
            step.report.remarks.join(" ")
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::CommandLine;
    use clap::Parser;

    fn report() -> Report {
        let line = CommandLine::try_parse_from(["loadgen", "--writes", "1k/s", "--poisson"]).unwrap();
        let settings = line.run.settings().unwrap();
        let mut report = Report::new(&settings, &run::Outcome::default());
        report.total.succeeded = 940;
        report
    }

    /// Danger: a server is said to be at its end where the generator was, or where Poisson sent less than the mean.
    #[test]
    fn a_step_is_judged_by_what_was_due_and_by_whose_fault_it_was() {
        let (fast, limit) = (1_000_000, 5_000_000);
        assert_eq!(verdict(&report(), fast, limit), Verdict::Holds, "940 were due, and came, at 1,000/s");
        assert_eq!(verdict(&report(), 9_000_000, limit), Verdict::Misses);
        let mut failed = report();
        failed.total.failed = 1;
        assert_eq!(verdict(&failed, fast, limit), Verdict::Misses);
        for busy in [
            Report { client_utilisation: 0.9, ..report() },
            Report {
                schedule_lag_ns: crate::report::Latency { p99: 9_000_000, ..report().schedule_lag_ns },
                ..report()
            },
        ] {
            assert_eq!(verdict(&busy, 9_000_000, limit), Verdict::GeneratorLimits);
            assert_eq!(verdict(&busy, fast, limit), Verdict::Holds, "what holds, holds");
        }
        let cut = Report { interrupted: true, ..report() };
        assert_eq!(verdict(&cut, fast, limit), Verdict::Interrupted, "half a step proves nothing");
    }

    /// Danger: a user quotes the knee of a search that was ended, or that the generator ended.
    #[test]
    fn the_table_says_what_limits_the_answer() {
        let step = |rate, verdict| Step { rate, at_quantile: 1, verdict, report: report() };
        let objective = Objective { quantile: 0.99, limit: 5_000_000 };
        let text = show(&[step(1e3, Verdict::Holds), step(2e3, Verdict::GeneratorLimits)], objective);
        assert!(
            text.contains("1,000/s") && text.contains("at 2,000/s the generator was the limit"),
            "{text}"
        );
        let text = show(&[step(1e3, Verdict::Holds), step(2e3, Verdict::Interrupted)], objective);
        assert!(text.contains("interrupted after 1 of its rates") && text.contains("<- knee"), "{text}");
        assert!(!show(&[step(1e3, Verdict::Misses)], objective).contains("note"));
    }

    /// Danger: what the generator could not send is taken for what the server can hold.
    #[test]
    fn a_generator_that_ends_the_search_makes_a_lower_bound() {
        let step = |rate, verdict| Step { rate, at_quantile: 1, verdict, report: report() };
        let objective = Objective { quantile: 0.99, limit: 5_000_000 };
        let (holds, limits) = (Verdict::Holds, Verdict::GeneratorLimits);
        let twice = [step(1e3, holds), step(2e3, limits), step(2e3, limits), step(4e3, Verdict::Misses)];
        assert!(bounded_by_generator(&twice).is_some());
        assert!(show(&twice, objective).contains("lower bound, set by the generator"));
        let once = [step(1e3, holds), step(2e3, limits), step(2e3, Verdict::Misses)];
        assert!(bounded_by_generator(&once).is_none());
        assert!(bounded_by_generator(&[step(2e3, limits), step(2e3, holds)]).is_none());
    }

    /// Danger: a p99 of ten answers.
    #[test]
    fn a_quantile_has_samples_enough_or_it_is_said() {
        assert_eq!(length(2 * SECOND, 0.99, 1e3), 2 * SECOND);
        assert_eq!(length(2 * SECOND, 0.99, 10.0), 12 * SECOND);
        assert_eq!(length(2 * SECOND, 0.999, 0.1), 60 * SECOND);
        let mut few = report();
        few.total.succeeded = 99;
        let step = Step { rate: 1.5, at_quantile: 1, verdict: Verdict::Holds, report: few };
        let text = show(&[step], Objective { quantile: 0.99, limit: 5_000_000 });
        assert!(text.contains("at 1.50/s there were 99 answers"), "{text}");
    }
}
