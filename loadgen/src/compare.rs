//! Two sets of runs against each other: by how much do they differ, and is it more than noise?
//!
//! With at least four runs on both sides, a run is a sample. With fewer, blocks of five seconds of the runs are. Blocks of
//! one run are not independent of each other, and what differs from run to run is not in them: the output says so, and
//! budgets of changes are not judged by them unless that is asked for. The test is Mann and Whitney's U, two-sided: it
//! asks nothing about how latencies are distributed. Several metrics are several chances to be wrong: their
//! probabilities are corrected by Holm's method. Failures are not tested: one more is one more.

use crate::{
    report::{Report, SCHEMA},
    units::{duration, rate, show_count, show_nanos, three_digits},
};
use anyhow::{Context, bail, ensure};
use std::{
    collections::{BTreeSet, HashSet},
    fmt::Write,
    path::{Path, PathBuf},
};

mod ranks;

pub use ranks::mann_whitney;

/// Below this probability of equal distributions a difference counts as one.
pub const SIGNIFICANT: f64 = 0.05;
/// Runs on each side from which on runs are the samples: with three no difference, however large, is significant.
const RUNS_ENOUGH: usize = 4;
/// Seconds that make one sample where runs are too few: neighbours share what one second has met.
const BLOCK_SECONDS: u64 = 5;

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Metric {
    /// Successes a second.
    Rate,
    /// Median response time.
    P50,
    /// 99th percentile.
    P99,
    /// 99.9th percentile.
    P999,
    /// Largest.
    Max,
    /// CPU time of the server per operation.
    Cpu,
    /// Failures.
    Errors,
    /// Established connections that were lost.
    Reconnects,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 8] =
        [Self::Rate, Self::P50, Self::P99, Self::P999, Self::Max, Self::Cpu, Self::Errors, Self::Reconnects];

    /// The name in tables and budgets.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rate => "ops/s",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Max => "max",
            Self::Cpu => "cpu",
            Self::Errors => "errors",
            Self::Reconnects => "reconnects",
        }
    }

    fn of(self, report: &Report) -> Option<f64> {
        let latency = &report.total.response_ns;
        Some(match self {
            Self::Rate => report.total.rate,
            Self::P50 => latency.p50 as f64,
            Self::P99 => latency.p99 as f64,
            Self::P999 => latency.p999 as f64,
            Self::Max => latency.max as f64,
            Self::Cpu => report.server_cpu_ns_per_operation?,
            Self::Errors => report.total.failed as f64,
            Self::Reconnects => report.losses.lost as f64,
        })
    }

    /// Whether this is a latency beyond `limit` for all who would have asked while there was no server. A closed loop
    /// asks nothing then; in an open one what was due is in the figures.
    fn hides_halt(self, report: &Report, limit: f64) -> bool {
        let tail = match self {
            Self::P50 => 0.5,
            Self::P99 => 0.01,
            Self::P999 => 0.001,
            Self::Max => 0.0,
            Self::Rate | Self::Cpu | Self::Errors | Self::Reconnects => return false,
        };
        let halt = report.losses.without_server_seconds;
        report.load.loop_kind == "closed" && halt > tail * report.seconds && halt * 1e9 > limit
    }

    /// One sample for each block of counted seconds: their mean. What is left at the end is left out.
    fn blocks(self, report: &Report) -> Vec<f64> {
        let seconds: Vec<(u64, f64)> = report
            .whole_seconds()
            .filter_map(|second| {
                let latency = &second.response_ns;
                let value = match self {
                    Self::Rate => second.succeeded as f64 / second.width as f64,
                    Self::P50 => latency.p50 as f64,
                    Self::P99 => latency.p99 as f64,
                    Self::P999 => latency.p999 as f64,
                    Self::Max => latency.max as f64,
                    Self::Errors => second.failed as f64 / second.width as f64,
                    Self::Cpu | Self::Reconnects => return None,
                };
                Some((second.width, value))
            })
            .collect();
        let (mut blocks, mut width, mut sum) = (Vec::new(), 0, 0.0);
        for (seconds, value) in seconds {
            width += seconds;
            sum += value * seconds as f64;
            if width >= BLOCK_SECONDS {
                blocks.push(sum / width as f64);
                (width, sum) = (0, 0.0);
            }
        }
        blocks
    }

    fn show(self, value: f64) -> String {
        match self {
            Self::Rate | Self::Errors | Self::Reconnects => show_count(value as u64),
            _ => show_nanos(value as u64),
        }
    }
}

/// A limit of change, such as `p99>+10%`.
#[derive(Clone, PartialEq, Debug)]
pub struct Budget {
    metric: Metric,
    above: bool,
    /// Relative (0.1 for 10%) or, without a percent sign, absolute: nanoseconds, operations a second, a count.
    limit: f64,
    relative: bool,
    text: String,
}

/// Reads `p99>+10%`, `ops/s<-5%`, `p99>5ms` or `errors>0`.
pub fn budget(text: &str) -> Result<Budget, String> {
    let wrong = || {
        let names = Metric::ALL.map(Metric::name).join(", ");
        format!(
            "`{text}` is not a budget; write what fails: a change such as p99>+10% or ops/s<-5%, or a figure such as \
             p99>5ms, ops/s<40k or errors>0 (of {names})"
        )
    };
    let at = text.find(['<', '>']).ok_or_else(wrong)?;
    let metric =
        Metric::ALL.into_iter().find(|metric| metric.name() == text[..at].trim()).ok_or_else(wrong)?;
    let number = text[at + 1..].trim();
    let relative = number.ends_with('%');
    let plain = number.trim_end_matches('%').trim_start_matches('+').parse::<f64>();
    let has_unit = relative || matches!(metric, Metric::Rate | Metric::Errors | Metric::Reconnects);
    let limit = match (plain, metric) {
        (Ok(limit), _) if limit.is_finite() && has_unit => limit,
        (Ok(_), _) if !has_unit => {
            let sign = &text[at..=at];
            return Err(format!(
                "`{text}` needs a unit: write a time such as {0}{sign}5ms, or a change such as {0}{sign}+10%",
                metric.name()
            ));
        }
        (_, Metric::Rate) => rate(number).map_err(|_| wrong())?,
        (_, Metric::Errors | Metric::Reconnects) => return Err(wrong()),
        (_, _) => duration(number).map_err(|_| wrong())?.as_nanos() as f64,
    };
    Ok(Budget {
        metric,
        above: text.as_bytes()[at] == b'>',
        limit: if relative { limit / 100.0 } else { limit },
        relative,
        text: text.to_owned(),
    })
}

/// One compared metric.
#[derive(Clone, Debug)]
pub struct Line {
    /// Which.
    pub metric: Metric,
    /// Median of the first set.
    pub before: f64,
    /// Median of the second set.
    pub after: f64,
    /// Samples on each side: runs, or blocks of seconds where the runs are too few.
    pub samples: (usize, usize),
    /// Probability that a difference like this is noise; `None` with too few samples, or where nothing is tested.
    pub p: Option<f64>,
}

impl Line {
    /// Change relative to the first set.
    pub fn change(&self) -> f64 {
        if self.before == 0.0 {
            if self.after == 0.0 { 0.0 } else { f64::INFINITY }
        } else {
            self.after / self.before - 1.0
        }
    }

    /// Whether its samples are held against each other. Failures are not: a server that fails more is worse.
    fn is_tested(&self) -> bool {
        !matches!(self.metric, Metric::Errors | Metric::Reconnects)
    }

    /// Whether a difference, however large, can be told from noise among `family` metrics.
    fn can_be_significant(&self, family: usize) -> bool {
        least_p(self.samples.0, self.samples.1) * (family as f64) < SIGNIFICANT
    }
}

/// The probabilities of `lines` corrected by Holm's method: the least is multiplied by the number of tested metrics, the
/// next by one less, and so on, each at least as large as the one before.
pub fn holm(lines: &[&Line]) -> Vec<Option<f64>> {
    let mut order: Vec<(usize, f64)> =
        lines.iter().enumerate().filter_map(|(at, line)| Some((at, line.p?))).collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (count, mut least) = (order.len(), 0.0_f64);
    let mut corrected = vec![None; lines.len()];
    for (rank, (at, p)) in order.into_iter().enumerate() {
        least = least.max((p * (count - rank) as f64).min(1.0));
        corrected[at] = Some(least);
    }
    corrected
}

/// The least probability that samples of these sizes can have: all of one side beneath all of the other.
fn least_p(n: usize, m: usize) -> f64 {
    if n < 3 || m < 3 {
        return 1.0;
    }
    // 2 / (n + m over n)
    (1..=n).fold(2.0, |p, i| p * i as f64 / (m + i) as f64).min(1.0)
}

/// Runs on each side from which on a difference of one among `family` metrics can be significant.
fn runs_needed(family: usize) -> usize {
    (RUNS_ENOUGH..).find(|runs| least_p(*runs, *runs) * (family as f64) < SIGNIFICANT).unwrap_or(RUNS_ENOUGH)
}

/// Reads the runs of a comma-separated list of files.
///
/// # Errors
/// If a file is not a run of this schema.
fn read(files: &str) -> anyhow::Result<Vec<(PathBuf, Report)>> {
    files
        .split(',')
        .map(|file| {
            ensure!(
                !file.trim().is_empty(),
                "`{files}` names no file between two commas or at an end; write a1.json,a2.json"
            );
            let path = Path::new(file.trim());
            let report = read_one(path)?;
            Ok((path.canonicalize().unwrap_or_else(|_| path.to_owned()), report))
        })
        .collect()
}

/// Reads both sets of runs, each a comma-separated list of files.
///
/// # Errors
/// If a file is not a run of this schema, or is named twice: a run is no second sample of itself.
pub fn read_both(before: &str, after: &str) -> anyhow::Result<(Vec<Report>, Vec<Report>)> {
    let (before, after) = (read(before)?, read(after)?);
    let mut seen = HashSet::new();
    for (path, _) in before.iter().chain(&after) {
        ensure!(seen.insert(path), "{} is named twice; each run counts once", path.display());
    }
    let reports = |set: Vec<(PathBuf, Report)>| set.into_iter().map(|(_, report)| report).collect();
    drop(seen);
    Ok((reports(before), reports(after)))
}

fn read_one(file: &Path) -> anyhow::Result<Report> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let value: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))?;
    let schema = value.get("schema").and_then(serde_json::Value::as_str).unwrap_or("none");
    if schema != SCHEMA {
        bail!(
            "{} has the schema `{schema}`; this version reads `{SCHEMA}`, written with --json",
            file.display()
        );
    }
    serde_json::from_value(value).with_context(|| format!("{} does not fit `{SCHEMA}`", file.display()))
}

/// Compares two sets of runs.
///
/// # Errors
/// If one of them is empty or they measured different loads.
pub fn compare(before: &[Report], after: &[Report]) -> anyhow::Result<Vec<Line>> {
    ensure!(!before.is_empty() && !after.is_empty(), "there is nothing to compare");
    let runs = before.len().min(after.len()) >= RUNS_ENOUGH;
    Ok(Metric::ALL
        .into_iter()
        .filter_map(|metric| {
            let of = |set: &[Report]| set.iter().filter_map(|report| metric.of(report)).collect::<Vec<f64>>();
            let (one, two) = (of(before), of(after));
            if one.is_empty() || two.is_empty() {
                return None;
            }
            let blocks =
                |set: &[Report]| set.iter().flat_map(|report| metric.blocks(report)).collect::<Vec<f64>>();
            let (first, second) =
                if runs { (one.clone(), two.clone()) } else { (blocks(before), blocks(after)) };
            let samples = (first.len(), second.len());
            let p = if matches!(metric, Metric::Errors | Metric::Reconnects) {
                None
            } else {
                mann_whitney(&first, &second)
            };
            Some(Line { metric, before: median(one), after: median(two), samples, p })
        })
        .collect())
}

/// Whether the loads of all runs of two sets are alike; the differences if not.
pub fn unlike(before: &[Report], after: &[Report]) -> Vec<String> {
    type Aspect = (&'static str, fn(&Report) -> String);
    let aspects: [Aspect; 13] = [
        ("loop", |run| run.load.loop_kind.clone()),
        ("mix", |run| format!("{:?}", run.load.mixes)),
        ("Poisson arrivals", |run| run.load.poisson.to_string()),
        ("connections", |run| run.load.connections.to_string()),
        ("in flight", |run| run.load.in_flight.to_string()),
        ("value bytes", |run| format!("{:?}", run.load.value_bytes)),
        ("znodes", |run| run.load.znodes.to_string()),
        ("keys", |run| run.load.keys.clone()),
        ("depth", |run| run.load.depth.to_string()),
        ("seconds of warm-up", |run| three_digits(run.load.warmup_seconds)),
        ("measured seconds", |run| three_digits(run.seconds)),
        ("verification", |run| run.verification.is_some().to_string()),
        ("being interrupted", |run| run.interrupted.to_string()),
    ];
    let mut differences = Vec::new();
    for (what, of) in aspects {
        let seen: BTreeSet<String> = before.iter().chain(after).map(of).collect();
        if seen.len() > 1 {
            differences.push(format!("{what}: {}", seen.into_iter().collect::<Vec<_>>().join(" and ")));
        }
    }
    differences
}

/// The lines as a table.
pub fn show(lines: &[Line], runs: (usize, usize)) -> String {
    let mut out = String::new();
    let all: Vec<&Line> = lines.iter().collect();
    let corrected = holm(&all);
    let runs_are_samples = runs.0.min(runs.1) >= RUNS_ENOUGH;
    let tested = lines.iter().filter(|line| line.is_tested()).count();
    let _ =
        writeln!(out, "{:<8}{:>14}{:>14}{:>10}  {:<8}{:<8}", "", "before", "after", "change", "p", "p Holm");
    for (line, corrected) in lines.iter().zip(&corrected) {
        let change = line.change();
        let probability = |p: Option<f64>| p.map_or("-".to_owned(), three_digits);
        let _ = writeln!(
            out,
            "{:<8}{:>14}{:>14}{:>10}  {:<8}{:<8}{}",
            line.metric.name(),
            line.metric.show(line.before),
            line.metric.show(line.after),
            if change.is_finite() { format!("{:+.1}%", change * 100.0) } else { "new".to_owned() },
            probability(line.p),
            probability(*corrected),
            match corrected {
                Some(p) if *p < SIGNIFICANT && runs_are_samples => "significant",
                Some(p) if *p < SIGNIFICANT => "differs within these runs",
                _ => "",
            }
        );
    }
    if corrected.iter().flatten().count() > 1 {
        let _ = writeln!(
            out,
            "note: {tested} metrics were tested; \"p Holm\" is corrected for that, and below {SIGNIFICANT} significant."
        );
    }
    if !runs_are_samples {
        let _ = writeln!(
            out,
            "note: {} and {} runs: blocks of {BLOCK_SECONDS} s of the runs were taken as samples. They are not independent, \
             and what differs from run to run is not in them: two runs of one server may differ as much. Compare {} runs on \
             each side.",
            runs.0,
            runs.1,
            runs_needed(tested.max(1))
        );
    }
    for (line, _) in lines.iter().zip(&corrected).filter(|(line, _)| line.is_tested()) {
        if !line.can_be_significant(tested.max(1)) {
            let _ = writeln!(
                out,
                "note: with {} and {} samples no difference of {}, however large, can be significant among {} metrics; \
                 compare {} runs with as many.",
                line.samples.0,
                line.samples.1,
                line.metric.name(),
                tested.max(1),
                runs_needed(tested.max(1))
            );
        }
    }
    out
}

/// The metrics whose changes these budgets limit, each once: those that are tested together.
fn family<'a>(lines: &'a [Line], budgets: &[Budget]) -> Vec<&'a Line> {
    let limited = |line: &&Line| budgets.iter().any(|budget| budget.relative && budget.metric == line.metric);
    lines.iter().filter(|line| line.is_tested()).filter(limited).collect()
}

/// Whether budgets of changes can be judged by so many runs.
///
/// # Errors
/// If the samples would be blocks of seconds, which find differences between runs of one server, and nobody has asked for
/// that.
pub fn check_runs(runs: (usize, usize), budgets: &[Budget], blocks_are_enough: bool) -> anyhow::Result<()> {
    let change = budgets
        .iter()
        .find(|budget| budget.relative && !matches!(budget.metric, Metric::Errors | Metric::Reconnects));
    if let Some(budget) = change {
        ensure!(
            blocks_are_enough || runs.0.min(runs.1) >= RUNS_ENOUGH,
            "`{}` cannot be judged by {} and {} runs: runs of one server differ from each other. Give at least {RUNS_ENOUGH} on \
             each side (a1.json,a2.json,...), or --by-blocks to judge by blocks of {BLOCK_SECONDS} s all the same",
            budget.text,
            runs.0,
            runs.1
        );
    }
    Ok(())
}

/// Whether these budgets can be exceeded at all.
///
/// # Errors
/// If there are too few samples for any difference to be significant: a budget that nothing can exceed guards nothing.
pub fn check_power(lines: &[Line], budgets: &[Budget]) -> anyhow::Result<()> {
    let family = family(lines, budgets);
    for line in &family {
        let (n, m) = line.samples;
        ensure!(
            line.can_be_significant(family.len()),
            "a change of {} cannot be told from noise with {n} and {m} samples and {} budget(s) of changes; give at \
             least {runs} runs on each side (a1.json,a2.json,...){}",
            line.metric.name(),
            family.len(),
            if line.metric == Metric::Cpu { "" } else { ", or longer ones with --by-blocks" },
            runs = runs_needed(family.len()),
        );
    }
    Ok(())
}

/// Whether a single run can be held against these budgets, so that nobody learns it after the run.
///
/// # Errors
/// If a budget compares two runs, or needs a figure that the run will not have.
pub fn check_alone(budgets: &[Budget], server_is_named: bool) -> anyhow::Result<()> {
    for budget in budgets {
        ensure!(
            !budget.relative,
            "`{}` compares two runs; write a figure such as p99>5ms, or use loadgen compare",
            budget.text
        );
        ensure!(
            budget.metric != Metric::Cpu || server_is_named,
            "`{}` needs the server's CPU time; name its process with --pid",
            budget.text
        );
    }
    Ok(())
}

/// The budgets with absolute limits that a single run exceeds.
///
/// # Errors
/// If a budget is relative: a single run has nothing to be compared with.
pub fn exceeded_alone(report: &Report, budgets: &[Budget]) -> anyhow::Result<Vec<String>> {
    let mut failed = Vec::new();
    for budget in budgets {
        ensure!(!budget.relative, "`{}` compares two runs; use loadgen compare", budget.text);
        let value = budget.metric.of(report).with_context(|| {
            format!("`{}`: this run has no such figure; the server's CPU time needs --pid", budget.text)
        })?;
        let counts_failures = matches!(budget.metric, Metric::Errors | Metric::Reconnects);
        if report.total.succeeded == 0 && !counts_failures {
            failed.push(format!("{}: nothing was answered", budget.text));
        } else if budget.metric.hides_halt(report, budget.limit) && budget.above {
            let halt = report.losses.without_server_seconds;
            failed.push(format!("{}: there was no server for {halt:.1} s", budget.text));
        } else if if budget.above { value > budget.limit } else { value < budget.limit } {
            failed.push(format!("{}: it is {}", budget.text, budget.metric.show(value)));
        }
    }
    Ok(failed)
}

/// What is wrong with runs as a whole, so that no budget may hold: figures of nothing look good.
pub fn dead(before: &[Report], after: &[Report]) -> Vec<String> {
    let of = |name: &str, set: &[Report]| {
        let why = |report: &Report| match report.failed() {
            None if report.total.succeeded == 0 => Some("nothing was answered"),
            why => why,
        };
        let each = set.iter().enumerate();
        each.filter_map(|(at, report)| Some(format!("run {} {name}: {}", at + 1, why(report)?)))
            .collect::<Vec<String>>()
    };
    [of("before", before), of("after", after)].concat()
}

/// The budgets that are exceeded: changes by a significant difference (Holm's method over the metrics that budgets
/// limit) or by any where significance cannot be told, figures and failures by any.
pub fn exceeded(lines: &[Line], budgets: &[Budget]) -> Vec<String> {
    let family = family(lines, budgets);
    let corrected = holm(&family);
    let mut failed = Vec::new();
    for budget in budgets {
        let Some(line) = lines.iter().find(|line| line.metric == budget.metric) else {
            failed.push(format!("{}: the runs do not have this figure", budget.text));
            continue;
        };
        let value = if budget.relative { line.change() } else { line.after };
        let beyond = if budget.above { value > budget.limit } else { value < budget.limit };
        let p = family
            .iter()
            .zip(&corrected)
            .find(|(other, _)| budget.relative && other.metric == line.metric)
            .and_then(|(_, p)| *p);
        if beyond && p.is_none_or(|p| p < SIGNIFICANT) {
            failed.push(format!(
                "{}: {} to {}{}",
                budget.text,
                line.metric.show(line.before),
                line.metric.show(line.after),
                p.map_or(String::new(), |p| format!(" (p {})", three_digits(p)))
            ));
        }
    }
    failed
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checked against scipy.stats.mannwhitneyu (exact without ties, asymptotic with continuity otherwise).
    #[test]
    fn the_test_says_what_others_say() {
        let near = |got: Option<f64>, expected: f64| {
            let got = got.unwrap();
            assert!((got - expected).abs() < 1e-4, "{got} where {expected} is due");
        };
        near(mann_whitney(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]), 0.1);
        near(mann_whitney(&[1.0, 2.0, 3.0, 4.0, 5.0], &[6.0, 7.0, 8.0, 9.0, 10.0]), 2.0 / 252.0);
        near(mann_whitney(&[1.0, 3.0, 5.0, 7.0], &[2.0, 4.0, 6.0, 8.0]), 0.685_714);
        near(mann_whitney(&[1.0, 1.0, 2.0], &[1.0, 1.0, 2.0]), 1.0);
        assert_eq!(mann_whitney(&[1.0, 2.0], &[3.0, 4.0]), None, "two samples prove nothing");
    }

    /// A budget that no difference can exceed guards nothing.
    #[test]
    fn as_many_runs_are_wanted_as_can_be_told_apart() {
        let apart = |runs: usize| {
            let before: Vec<f64> = (0..runs).map(|run| run as f64).collect();
            let after: Vec<f64> = before.iter().map(|value| value + 100.0).collect();
            mann_whitney(&before, &after).unwrap()
        };
        assert!(apart(RUNS_ENOUGH) < SIGNIFICANT);
        assert!(apart(RUNS_ENOUGH - 1) > SIGNIFICANT);
    }

    /// Holm (1979), checked against statsmodels' multipletests(method="holm").
    #[test]
    fn several_metrics_are_corrected_for() {
        let line = |p| Line { metric: Metric::P99, before: 1.0, after: 2.0, samples: (9, 9), p };
        let lines = [Some(0.01), Some(0.04), None, Some(0.03)].map(line);
        let corrected = holm(&lines.iter().collect::<Vec<_>>());
        let expected = [Some(0.03), Some(0.06), None, Some(0.06)];
        for (got, expected) in corrected.iter().zip(expected) {
            assert!((got.unwrap_or(9.0) - expected.unwrap_or(9.0)).abs() < 1e-12, "{corrected:?}");
        }
        // One of two budgets alone would fail; together with the other it is within chance.
        let two = [
            Line { metric: Metric::P50, ..line(Some(0.03)) },
            Line { metric: Metric::P99, ..line(Some(0.6)) },
        ];
        let budgets = ["p50>+10%", "p99>+10%"].map(|text| budget(text).unwrap());
        assert_eq!(exceeded(&two, &budgets[..1]).len(), 1);
        assert_eq!(exceeded(&two, &budgets).len(), 0);
    }

    /// A check that cannot fail must say so instead of passing.
    #[test]
    fn a_budget_that_nothing_can_exceed_is_refused() {
        let line = |metric, n| Line { metric, before: 1.0, after: 9.0, samples: (n, n), p: None };
        let budgets = ["p50>+10%", "p99>+10%", "errors>+0%"].map(|text| budget(text).unwrap());
        let lines = |n| [line(Metric::P50, n), line(Metric::P99, n), line(Metric::Errors, n)];
        let words = check_power(&lines(3), &budgets[..1]).unwrap_err().to_string();
        assert!(words.contains("3 and 3 samples") && words.contains("at least 4 runs"), "{words}");
        assert!(check_power(&lines(4), &budgets[..1]).is_ok());
        let words = check_power(&lines(4), &budgets[..2]).unwrap_err().to_string();
        assert!(words.contains("at least 5 runs"), "two metrics need more: {words}");
        assert!(check_power(&lines(1), &budgets[2..]).is_ok(), "failures need no test");
        assert!((least_p(4, 4) - 2.0 / 70.0).abs() < 1e-12 && (least_p(3, 3) - 0.1).abs() < 1e-12);
        assert!(show(&lines(3), (3, 3)).contains("can be significant"), "{}", show(&lines(3), (3, 3)));
    }

    fn report() -> Report {
        use clap::Parser;
        let line = crate::args::CommandLine::try_parse_from(["loadgen", "--writes", "1k/s", "--seed", "1"]);
        Report::new(&line.unwrap().run.settings().unwrap(), &crate::run::Outcome::default())
    }

    /// Danger: the example that users copy can find nothing.
    #[test]
    fn the_example_of_the_readme_has_runs_enough_for_all_metrics() {
        let readme = include_str!("../README.md");
        let line = readme.split("loadgen compare ").nth(1).unwrap();
        let needed = runs_needed(Metric::ALL.len() - 2);
        assert_eq!(needed, 5);
        for side in line.split(' ').take(2) {
            assert!(side.split(',').count() >= needed, "{side}: {needed} are needed");
        }
        assert!(least_p(needed, needed) * 6.0 < SIGNIFICANT && least_p(4, 4) * 6.0 > SIGNIFICANT);
    }

    #[test]
    fn seconds_are_no_samples_but_their_blocks_are() {
        let mut one = report();
        one.seconds = 12.0;
        let second = crate::report::SecondResult {
            second: 0,
            width: 1,
            warmup: false,
            succeeded: 0,
            failed: 0,
            in_flight: 0,
            response_ns: one.schedule_lag_ns.clone(),
        };
        one.timeline = (0..12)
            .map(|at| crate::report::SecondResult { second: at, succeeded: at, ..second.clone() })
            .collect();
        assert_eq!(Metric::Rate.blocks(&one), [2.0, 7.0]);
        let budgets = [budget("p99>+10%").unwrap()];
        let words = check_runs((1, 1), &budgets, false).unwrap_err().to_string();
        assert!(words.contains("--by-blocks") && words.contains("1 and 1 runs"), "{words}");
        assert!(check_runs((1, 1), &budgets, true).is_ok() && check_runs((4, 4), &budgets, false).is_ok());
        assert!(check_runs((1, 1), &[budget("errors>+0%").unwrap()], false).is_ok());
        let lines = compare(&[one.clone()], &[one]).unwrap();
        assert!(show(&lines, (1, 1)).contains("not independent"), "{}", show(&lines, (1, 1)));
    }

    /// Danger: one run among many was another load.
    #[test]
    fn every_run_of_both_sides_must_be_alike() {
        let like = || vec![report(), report()];
        assert_eq!(unlike(&like(), &like()), Vec::<String>::new());
        let changes: [fn(&mut Report); 5] = [
            |run| run.load.depth = 3,
            |run| run.load.poisson = true,
            |run| run.seconds = 99.0,
            |run| {
                run.verification =
                    Some(crate::report::Verification { checks: 1, violations: Default::default() })
            },
            |run| run.interrupted = true,
        ];
        for change in changes {
            let mut set = like();
            change(&mut set[1]);
            assert_eq!(unlike(&set, &like()).len(), 1);
            assert_eq!(unlike(&like(), &set).len(), 1);
        }
    }

    #[test]
    fn a_list_of_files_names_each_once_and_none_that_is_empty() {
        let words = read_both("a.json,,b.json", "c.json").unwrap_err().to_string();
        assert!(words.contains("a.json") && !words.contains("names no"), "the first is read first: {words}");
        assert!(read_both("", "c.json").unwrap_err().to_string().contains("names no file"));
        let file = std::env::temp_dir().join(format!("loadgen-compare-{}.json", std::process::id()));
        std::fs::write(&file, serde_json::to_string(&report()).unwrap()).unwrap();
        let name = file.to_str().unwrap();
        let words = read_both(name, name).unwrap_err().to_string();
        std::fs::remove_file(&file).unwrap();
        assert!(words.contains("is named twice"), "{words}");
    }

    /// Danger: a thousand failures more, in so few runs that they count as noise.
    #[test]
    fn failures_need_no_significance() {
        let errors = |p| Line { metric: Metric::Errors, before: 0.0, after: 3.0, samples: (3, 3), p };
        assert_eq!(exceeded(&[errors(Some(1.0))], &[budget("errors>+0%").unwrap()]).len(), 1);
        assert_eq!(exceeded(&[errors(None)], &[budget("errors>0").unwrap()]).len(), 1);
    }

    #[test]
    fn budgets_read_as_written_and_fail_only_beyond_noise() {
        let line = |p| Line { metric: Metric::P99, before: 100.0, after: 120.0, samples: (9, 9), p };
        let ten = budget("p99>+10%").unwrap();
        assert_eq!(exceeded(&[line(Some(0.01))], std::slice::from_ref(&ten)).len(), 1);
        assert_eq!(exceeded(&[line(Some(0.5))], std::slice::from_ref(&ten)).len(), 0, "within noise");
        assert_eq!(exceeded(&[line(None)], &[ten]).len(), 1, "no proof of innocence");
        assert_eq!(exceeded(&[line(Some(0.01))], &[budget("p99>+30%").unwrap()]).len(), 0);
        assert_eq!(exceeded(&[], &[budget("ops/s<-5%").unwrap()]).len(), 1);
        assert!(budget("p98>+10%").unwrap_err().contains("p99.9"));
        assert!(budget("p99").is_err());
        for (text, limit) in [("p99>5ms", 5e6), ("max>2s", 2e9), ("p50>700us", 7e5), ("ops/s<40k", 4e4)] {
            assert_eq!(
                budget(text).map(|budget| (budget.limit, budget.relative)),
                Ok((limit, false)),
                "{text}"
            );
        }
        assert!(budget("p99>5").unwrap_err().contains("needs a unit"));
        for wrong in ["p99>fast", "p99>5", "cpu<0", "errors>5ms", "ops/s<5ms", "p99>nan"] {
            assert!(budget(wrong).is_err(), "{wrong}");
        }
        assert!(check_alone(&[budget("p99>5ms").unwrap()], false).is_ok());
        assert!(check_alone(&[budget("p99>+10%").unwrap()], true).is_err());
        assert!(check_alone(&[budget("cpu>9us").unwrap()], false).is_err());
    }
}
