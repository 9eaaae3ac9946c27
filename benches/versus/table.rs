//! Medians, ratios and the Markdown tables.

use crate::rows::{Goal, Row};
use loadgen::units::{show_count, three_digits};
use std::fmt::Write;

/// One measurement of one server.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Operations a second.
    pub rate: f64,
    /// Server CPU per operation, microseconds.
    pub cpu_us: f64,
    /// Median latency, milliseconds.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// 99.9th percentile.
    pub p999_ms: f64,
    /// Largest.
    pub max_ms: f64,
    /// Generator CPU per operation, microseconds.
    pub client_cpu_us: f64,
}

/// Median, smallest and largest of some numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Middle one, or the mean of the two in the middle.
    pub median: f64,
    /// Smallest.
    pub least: f64,
    /// Largest.
    pub most: f64,
}

impl Spread {
    /// Of at least one number.
    ///
    /// # Panics
    /// If there is none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (values[0], values[values.len() - 1]);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Self { median, least, most }
    }

    /// `3.2 (2.9-3.4)`.
    pub fn show(&self) -> String {
        format!("{} ({}-{})", three_digits(self.median), three_digits(self.least), three_digits(self.most))
    }
}

/// Heading of the load rows.
pub const HEAD: &str = "\
| load (connections x in flight) | server | ops/s | CPU us/op | p50 ms | p99 ms | p99.9 ms | max ms | generator us/op |
|---|---|---|---|---|---|---|---|---|";

/// The lines of one row: each server's medians, then the ratios and the goal.
pub fn show_row(row: &Row, names: [&str; 2], samples: &[Vec<Sample>; 2]) -> (String, bool) {
    let mut out = String::new();
    let servers = if row.servers == 1 { String::new() } else { format!("{} servers, ", row.servers) };
    let title = format!("{servers}{} {} x {}", row.mix, row.connections, row.in_flight);
    for (name, samples) in names.iter().zip(samples) {
        let median = |of: fn(&Sample) -> f64| Spread::of(samples.iter().map(of)).median;
        let _ = writeln!(
            out,
            "| {title} | {name} | {} | {} | {} | {} | {} | {} | {} |",
            show_count(median(|s| s.rate) as u64),
            three_digits(median(|s| s.cpu_us)),
            three_digits(median(|s| s.p50_ms)),
            three_digits(median(|s| s.p99_ms)),
            three_digits(median(|s| s.p999_ms)),
            three_digits(median(|s| s.max_ms)),
            three_digits(median(|s| s.client_cpu_us)),
        );
    }
    let pairs: Vec<(Sample, Sample)> = samples[0].iter().copied().zip(samples[1].iter().copied()).collect();
    let ratio = |of: fn(&Sample) -> f64| Spread::of(pairs.iter().map(|(a, b)| of(a) / of(b).max(1e-9)));
    let rate = Spread::of(pairs.iter().map(|(a, b)| b.rate / a.rate.max(1e-9)));
    let (cpu, p99) = (ratio(|s| s.cpu_us), ratio(|s| s.p99_ms));
    let Goal { rate: rate_goal, p99: p99_goal, cpu: cpu_goal } = row.goal;
    let mut reached = true;
    let mut verdict = Vec::new();
    for (what, spread, goal) in
        [("ops/s x", rate, rate_goal), ("p99 /", p99, p99_goal), ("CPU /", cpu, cpu_goal)]
    {
        if goal > 0.0 {
            let holds = spread.median >= goal;
            reached &= holds;
            verdict.push(format!(
                "{what} {} >= {goal}: {}",
                spread.show(),
                if holds { "pass" } else { "**FAIL**" }
            ));
        } else {
            verdict.push(format!("{what} {}", spread.show()));
        }
    }
    let _ = writeln!(out, "| {title} | ratio | {} ||||||||", verdict.join(", "));
    (out, reached)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_the_middle() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { median: 2.0, least: 1.0, most: 3.0 });
        assert_eq!(Spread::of([1.0, 2.0]).median, 1.5);
    }
}
