//! Two sets of runs against each other: by how much do they differ, and is it more than noise?
//!
//! With at least four runs on both sides, a run is a sample. With fewer, the counted seconds of the runs are; seconds of
//! one run are not independent of each other, which the output says. The test is Mann and Whitney's U, two-sided: it
//! asks nothing about how latencies are distributed. Several metrics are several chances to be wrong: their
//! probabilities are corrected by Holm's method. Failures are not tested: one more is one more.

use crate::{
    report::{Report, SCHEMA},
    units::{duration, rate, show_count, show_nanos, three_digits},
};
use anyhow::{Context, bail, ensure};
use std::{fmt::Write, path::Path};

/// Below this probability of equal distributions a difference counts as one.
pub const SIGNIFICANT: f64 = 0.05;
/// Runs on each side from which on runs are the samples: with three no difference, however large, is significant.
const RUNS_ENOUGH: usize = 4;
/// Pairs of sizes up to which the distribution of U is counted instead of approximated.
const EXACT_LIMIT: usize = 20;

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

    /// One sample per counted second.
    fn seconds(self, report: &Report) -> Vec<f64> {
        report
            .whole_seconds()
            .filter_map(|second| {
                let latency = &second.response_ns;
                Some(match self {
                    Self::Rate => second.succeeded as f64 / second.width as f64,
                    Self::P50 => latency.p50 as f64,
                    Self::P99 => latency.p99 as f64,
                    Self::P999 => latency.p999 as f64,
                    Self::Max => latency.max as f64,
                    Self::Errors => second.failed as f64 / second.width as f64,
                    Self::Cpu | Self::Reconnects => return None,
                })
            })
            .collect()
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
    let limit = match (plain, metric) {
        (Ok(limit), _) if limit.is_finite() => limit,
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
    /// Samples on each side; fewer than runs times seconds where the figure is one of whole runs.
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
pub fn read(files: &str) -> anyhow::Result<Vec<Report>> {
    files.split(',').map(|file| read_one(Path::new(file))).collect()
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
            let seconds =
                |set: &[Report]| set.iter().flat_map(|report| metric.seconds(report)).collect::<Vec<f64>>();
            let (first, second) =
                if runs { (one.clone(), two.clone()) } else { (seconds(before), seconds(after)) };
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

/// Whether the loads of two sets are alike; the differences if not.
pub fn unlike(before: &[Report], after: &[Report]) -> Vec<String> {
    let (one, two) = (&before[0].load, &after[0].load);
    let mut differences = Vec::new();
    let mut note = |what: &str, one: String, two: String| {
        if one != two {
            differences.push(format!("{what}: {one} and {two}"));
        }
    };
    note("loop", one.loop_kind.clone(), two.loop_kind.clone());
    note("mix", format!("{:?}", one.mixes), format!("{:?}", two.mixes));
    note("connections", one.connections.to_string(), two.connections.to_string());
    note("in flight", one.in_flight.to_string(), two.in_flight.to_string());
    note("value bytes", format!("{:?}", one.value_bytes), format!("{:?}", two.value_bytes));
    note("znodes", one.znodes.to_string(), two.znodes.to_string());
    note("keys", one.keys.clone(), two.keys.clone());
    differences
}

/// The lines as a table.
pub fn show(lines: &[Line], runs: (usize, usize)) -> String {
    let mut out = String::new();
    let all: Vec<&Line> = lines.iter().collect();
    let corrected = holm(&all);
    let tested = corrected.iter().flatten().count();
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
            if corrected.is_some_and(|p| p < SIGNIFICANT) { "significant" } else { "" }
        );
    }
    if tested > 1 {
        let _ = writeln!(
            out,
            "note: {tested} metrics were tested; \"p Holm\" is corrected for that, and below {SIGNIFICANT} significant."
        );
    }
    if runs.0.min(runs.1) < RUNS_ENOUGH {
        let _ = writeln!(
            out,
            "note: {} and {} runs: the seconds of the runs were taken as samples; {RUNS_ENOUGH} runs on each side tell more.",
            runs.0, runs.1
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
            if line.metric == Metric::Cpu { "" } else { ", or runs of 10 seconds and more (-d 10s)" },
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

/// Two-sided probability of a difference like this between equal distributions; `None` below three samples a side.
pub fn mann_whitney(one: &[f64], two: &[f64]) -> Option<f64> {
    let (n, m) = (one.len(), two.len());
    if n < 3 || m < 3 {
        return None;
    }
    let mut all: Vec<(f64, bool)> =
        one.iter().map(|v| (*v, true)).chain(two.iter().map(|v| (*v, false))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut rank_sum, mut tie_sum, mut ties) = (0.0, 0.0, false);
    let mut at = 0;
    while at < all.len() {
        let end = at + all[at..].iter().take_while(|(value, _)| *value == all[at].0).count();
        let rank = (at + 1 + end) as f64 / 2.0;
        rank_sum += rank * all[at..end].iter().filter(|(_, first)| *first).count() as f64;
        let size = (end - at) as f64;
        tie_sum += size * size * size - size;
        ties |= end - at > 1;
        at = end;
    }
    let u = rank_sum - (n * (n + 1)) as f64 / 2.0;
    let u = u.min((n * m) as f64 - u);
    if !ties && n <= EXACT_LIMIT && m <= EXACT_LIMIT {
        return Some((2.0 * exact_tail(n, m, u as usize)).min(1.0));
    }
    let (n, m) = (n as f64, m as f64);
    let all = n + m;
    let deviation = (n * m / 12.0 * (all + 1.0 - tie_sum / (all * (all - 1.0)))).sqrt();
    if deviation == 0.0 {
        return Some(1.0);
    }
    let z = ((n * m / 2.0 - u).abs() - 0.5).max(0.0) / deviation;
    Some((2.0 * normal_tail(z)).min(1.0))
}

/// Share of the arrangements of n and m samples whose U is at most `u`.
fn exact_tail(n: usize, m: usize, u: usize) -> f64 {
    // counts[i][s]: ways to choose i of the ranks seen so far with U = s.
    let most = n * m;
    let mut counts = vec![vec![0.0_f64; most + 1]; n + 1];
    counts[0][0] = 1.0;
    for rank in 1..=n + m {
        for chosen in (1..=n.min(rank)).rev() {
            // Taken as the `chosen`-th smallest, a rank has rank - chosen of the others beneath it.
            let beneath = rank - chosen;
            for sum in beneath..=most {
                counts[chosen][sum] += counts[chosen - 1][sum - beneath];
            }
        }
    }
    let total: f64 = counts[n].iter().sum();
    counts[n][..=u.min(most)].iter().sum::<f64>() / total
}

/// Probability that a normal variable is above `z` (Abramowitz and Stegun 7.1.26, error below 1.5e-7).
fn normal_tail(z: f64) -> f64 {
    let x = z / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let poly = t
        * (0.254_829_592
            + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    0.5 * poly * (-x * x).exp()
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
        for (text, limit) in [("p99>5ms", 5e6), ("max>2s", 2e9), ("p50>700", 700.0), ("ops/s<40k", 4e4)] {
            assert_eq!(
                budget(text).map(|budget| (budget.limit, budget.relative)),
                Ok((limit, false)),
                "{text}"
            );
        }
        for wrong in ["p99>fast", "errors>5ms", "ops/s<5ms", "p99>nan"] {
            assert!(budget(wrong).is_err(), "{wrong}");
        }
        assert!(check_alone(&[budget("p99>5ms").unwrap()], false).is_ok());
        assert!(check_alone(&[budget("p99>+10%").unwrap()], true).is_err());
        assert!(check_alone(&[budget("cpu>9us").unwrap()], false).is_err());
    }
}
