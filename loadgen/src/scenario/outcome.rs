//! What came of a scenario: for people and as JSON.

use crate::{
    report::{Latency, Report},
    units::{show_count, show_nanos, three_digits},
};
use hdrhistogram::Histogram;
use serde::Serialize;

/// Name and version of the JSON's schema.
pub const SCHEMA: &str = "loadgen-scenario/1";

/// What came of one.
#[derive(Debug, Serialize)]
pub struct Outcome {
    schema: &'static str,
    scenario: &'static str,
    about: &'static str,
    sessions: usize,
    /// Single figures, such as the number of locks a second.
    figures: Vec<Figure>,
    /// Distributions.
    latencies: Vec<Distribution>,
    /// Whole runs.
    runs: Vec<(String, Report)>,
    /// What was wrong.
    failures: Vec<String>,
    /// Ended early.
    interrupted: bool,
}

#[derive(Debug, Serialize)]
struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
}

#[derive(Debug, Serialize)]
struct Distribution {
    name: &'static str,
    count: u64,
    latency_ns: Latency,
}

impl Outcome {
    /// Nothing yet; `sessions` is 0 where each run has its own number.
    pub(super) fn new(scenario: &'static str, about: &'static str, sessions: usize) -> Self {
        Self {
            schema: SCHEMA,
            scenario,
            about,
            sessions,
            figures: Vec::new(),
            latencies: Vec::new(),
            runs: Vec::new(),
            failures: Vec::new(),
            interrupted: false,
        }
    }

    /// Whether it was ended early.
    pub(super) fn interrupted(&mut self, interrupted: bool) {
        self.interrupted = interrupted;
    }

    /// A single figure.
    pub(super) fn figure(&mut self, name: &'static str, value: f64, unit: &'static str) {
        self.figures.push(Figure { name, value, unit });
    }

    /// A distribution.
    pub(super) fn latency(&mut self, name: &'static str, histogram: &Histogram<u64>) {
        self.latencies.push(Distribution {
            name,
            count: histogram.len(),
            latency_ns: Latency::of(histogram),
        });
    }

    /// A whole run; operations that failed in it make the scenario fail.
    pub(super) fn run(&mut self, label: &str, report: Report) {
        for failure in &report.failures {
            let words =
                format!("{label}: {} {} x {}", failure.operation, failure.name, show_count(failure.count));
            self.failures.push(words);
        }
        self.runs.push((label.to_owned(), report));
    }

    /// What was wrong.
    pub(super) fn fail(&mut self, whys: impl IntoIterator<Item = String>) {
        self.failures.extend(whys);
    }

    /// Whether nothing failed.
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty() && self.runs.iter().all(|(_, report)| report.verified())
    }

    /// For people.
    pub fn show(&self) -> String {
        use std::fmt::Write;
        let mut out = format!("{}: {}\n", self.scenario, self.about);
        if self.sessions > 0 {
            let _ = writeln!(out, "{} sessions", show_count(self.sessions as u64));
        }
        if !self.runs.is_empty() {
            let _ = writeln!(
                out,
                "{:<14}{:>12}{:>10}{:>10}{:>10}{:>10}{:>9}",
                "", "ops/s", "p50", "p99", "p99.9", "max", "errors"
            );
        }
        for (label, report) in &self.runs {
            let latency = &report.total.response_ns;
            let _ = writeln!(
                out,
                "{label:<14}{:>12}{:>10}{:>10}{:>10}{:>10}{:>9}",
                show_count(report.total.rate as u64),
                show_nanos(latency.p50),
                show_nanos(latency.p99),
                show_nanos(latency.p999),
                show_nanos(latency.max),
                show_count(report.total.failed),
            );
        }
        for Distribution { name, count, latency_ns } in &self.latencies {
            let _ = writeln!(
                out,
                "{name}: {} times, p50 {}, p99 {}, p99.9 {}, max {}",
                show_count(*count),
                show_nanos(latency_ns.p50),
                show_nanos(latency_ns.p99),
                show_nanos(latency_ns.p999),
                show_nanos(latency_ns.max)
            );
        }
        for Figure { name, value, unit } in &self.figures {
            let _ = writeln!(out, "{name}: {} {unit}", three_digits(*value));
        }
        for failure in &self.failures {
            let _ = writeln!(out, "FAILED: {failure}");
        }
        if self.interrupted {
            out.push_str("note: The scenario was ended early; these are the figures so far.\n");
        }
        out
    }
}
