//! The results of a run as values: what the table, the JSON and the pictures show.

use crate::{
    client::{REQUEST_BYTES_USUAL, too_large},
    clock::{MILLISECOND, Nanos},
    facts::{Machine, ServerFacts},
    mix::Pace,
    operation::Operation,
    record::{OperationRecord, histogram},
    run::{Outcome, Settings},
    timeline::Entry,
    units::{show_count, show_nanos, three_digits},
};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt::Write};

/// Name and version of the JSON's schema.
pub const SCHEMA: &str = "loadgen-run/1";

/// Share of its threads' time from which on the generator is the bottleneck.
const UTILISATION_MOST: f64 = 0.8;
/// How late requests may leave (99th percentile) for reasons of the generator.
const LAG_MOST: Nanos = 5 * MILLISECOND;

/// Latencies in nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Latency {
    /// Smallest.
    pub min: Nanos,
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: Nanos,
    /// 90th percentile.
    pub p90: Nanos,
    /// 99th percentile.
    pub p99: Nanos,
    /// 99.9th percentile.
    pub p999: Nanos,
    /// 99.99th percentile.
    pub p9999: Nanos,
    /// Largest.
    pub max: Nanos,
}

impl Latency {
    /// The usual figures of a histogram.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let quantile = |q| histogram.value_at_quantile(q);
        Self {
            min: if histogram.is_empty() { 0 } else { histogram.min() },
            mean: histogram.mean(),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            p9999: quantile(0.9999),
            max: histogram.max(),
        }
    }
}

/// One operation, or all together.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct OperationResult {
    /// Answered successfully.
    pub succeeded: u64,
    /// Answered with an error, or not at all.
    pub failed: u64,
    /// Successes a second whose answers came within the measured part.
    pub rate: f64,
    /// From the intended send; in a closed loop the same as `service_ns`.
    pub response_ns: Latency,
    /// From the actual send.
    pub service_ns: Latency,
    /// Response time by quantile, for drawing.
    pub response_curve: Vec<(f64, Nanos)>,
    /// Service time by quantile.
    pub service_curve: Vec<(f64, Nanos)>,
}

/// A kind of failure.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Failure {
    /// Of which operation.
    pub operation: String,
    /// Code or reason.
    pub name: String,
    /// How often.
    pub count: u64,
}

/// One second of the run, or several of a long one.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct SecondResult {
    /// Which is the first, from the begin of the warm-up.
    pub second: u64,
    /// How many it covers: 1, in runs of more than two hours more.
    #[serde(default = "one")]
    pub width: u64,
    /// Belongs to the warm-up.
    pub warmup: bool,
    /// Successes.
    pub succeeded: u64,
    /// Failures.
    pub failed: u64,
    /// In flight at its end.
    pub in_flight: u64,
    /// Response times.
    pub response_ns: Latency,
}

fn one() -> u64 {
    1
}

/// What `--verify` found.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Verification {
    /// Facts compared.
    pub checks: u64,
    /// By kind: how many, and examples.
    pub violations: BTreeMap<String, (u64, Vec<String>)>,
}

/// Connections that were lost in the counted part or behind it, and the server with them.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Losses {
    /// Established connections that were lost, whether or not something was in flight on them.
    pub lost: u64,
    /// The same by reason.
    pub reasons: BTreeMap<String, u64>,
    /// Seconds of the counted part without a connection to any server.
    pub without_server_seconds: f64,
    /// No server could be reached at the end.
    pub server_gone: bool,
}

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Version of this program.
    pub loadgen_version: String,
    /// What was asked for.
    pub load: LoadFacts,
    /// Where the generator ran.
    pub machine: Machine,
    /// `mntr` of the servers before the run.
    pub server_before: ServerFacts,
    /// `mntr` of the servers after it.
    pub server_after: ServerFacts,
    /// Counted seconds.
    pub seconds: f64,
    /// All operations together.
    pub total: OperationResult,
    /// By name.
    pub operations: BTreeMap<String, OperationResult>,
    /// Most frequent first.
    pub failures: Vec<Failure>,
    /// Connections that were lost.
    #[serde(default)]
    pub losses: Losses,
    /// Second by second.
    pub timeline: Vec<SecondResult>,
    /// CPU time of the server per operation in nanoseconds, if its process was named.
    pub server_cpu_ns_per_operation: Option<f64>,
    /// Resident memory of the server at the end, in bytes.
    pub server_resident_bytes: Option<u64>,
    /// CPU time of the generator per operation in nanoseconds.
    pub client_cpu_ns_per_operation: f64,
    /// CPU seconds of the generator per second and sending thread: above 0.8 it is the bottleneck.
    pub client_utilisation: f64,
    /// How late requests left for reasons of the generator.
    pub schedule_lag_ns: Latency,
    /// What `--verify` found.
    pub verification: Option<Verification>,
    /// Ended early.
    pub interrupted: bool,
    /// What the reader must know before quoting the figures.
    pub remarks: Vec<String>,
}

/// What was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadFacts {
    /// Connect string.
    pub hosts: String,
    /// `open` or `closed`.
    pub loop_kind: String,
    /// Mixes, each with its rate in an open loop.
    pub mixes: Vec<(String, Option<f64>)>,
    /// Poisson arrivals.
    pub poisson: bool,
    /// Length of the warm-up.
    #[serde(default)]
    pub warmup_seconds: f64,
    /// Sessions.
    pub connections: usize,
    /// In flight on each: number (closed) or limit (open).
    pub in_flight: usize,
    /// Smallest and largest value in bytes.
    pub value_bytes: (usize, usize),
    /// Nodes.
    pub znodes: u64,
    /// How keys are chosen.
    pub keys: String,
    /// Levels of directories.
    pub depth: u32,
    /// Threads of the generator.
    pub cores: usize,
    /// Random seed.
    pub seed: u64,
}

impl Report {
    /// Puts the figures together.
    pub fn new(settings: &Settings, outcome: &Outcome) -> Self {
        let measured = &outcome.measured;
        let open_loop = matches!(settings.plan.pace, Pace::Open { .. });
        let seconds = measured.window.seconds().max(1e-9);
        let mut all = OperationRecord::default();
        let mut operations = BTreeMap::new();
        for (operation, record) in measured.seen() {
            all.add(record);
            operations.insert(operation.name().to_owned(), result(record, seconds, open_loop));
        }
        let total = result(&all, seconds, open_loop);
        // What was answered while the CPU time was counted, not what was due in it.
        let handled = (all.handled as f64).max(1.0);
        let mut failures: Vec<Failure> = measured
            .errors
            .iter()
            .map(|((operation, name), count)| Failure {
                operation: operation.name().to_owned(),
                name: name.clone(),
                count: *count,
            })
            .collect();
        failures.sort_by_key(|failure| std::cmp::Reverse(failure.count));
        let spent = &outcome.spent;
        let elapsed = spent.elapsed.max(1) as f64;
        let mut report = Self {
            schema: SCHEMA.to_owned(),
            loadgen_version: env!("CARGO_PKG_VERSION").to_owned(),
            load: load_facts(settings),
            machine: Machine::here(),
            server_before: outcome.server_before.clone(),
            server_after: outcome.server_after.clone(),
            seconds,
            total,
            operations,
            failures,
            losses: Losses {
                lost: measured.losses.values().sum(),
                reasons: measured.losses.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
                without_server_seconds: outcome.without_server as f64 * 1e-9,
                server_gone: outcome.server_gone,
            },
            timeline: outcome.timeline.entries().iter().map(second_result).collect(),
            server_cpu_ns_per_operation: spent.server_cpu.map(|cpu| cpu as f64 / handled),
            server_resident_bytes: spent.server_resident_bytes,
            client_cpu_ns_per_operation: spent.client_cpu as f64 / handled,
            client_utilisation: spent.client_cpu as f64 / elapsed / settings.cores as f64,
            schedule_lag_ns: Latency::of(&measured.lag),
            verification: outcome.findings.as_ref().map(|findings| Verification {
                checks: findings.checks,
                violations: findings
                    .violations
                    .iter()
                    .map(|(kind, found)| ((*kind).to_owned(), found.clone()))
                    .collect(),
            }),
            interrupted: outcome.interrupted,
            remarks: outcome.troubles.iter().chain(&measured.notes).cloned().collect(),
        };
        report.remark(settings);
        report
    }

    /// The whole seconds of the measured part: neither of the warm-up, nor cut short by the end, nor behind it.
    pub fn whole_seconds(&self) -> impl Iterator<Item = &SecondResult> {
        let first = self.timeline.iter().find(|second| !second.warmup).map_or(0, |second| second.second);
        let end = first + (self.seconds + 1e-6) as u64;
        self.timeline.iter().filter(move |second| !second.warmup && second.second + second.width <= end)
    }

    /// When a second of the timeline ends, in seconds from the begin of the warm-up, whose first may be short.
    pub fn end_of(&self, second: &SecondResult) -> f64 {
        let warmup = self.load.warmup_seconds;
        (second.second + second.width) as f64 - (warmup.ceil() - warmup)
    }

    /// Whether nothing was found wrong (or nothing was checked).
    pub fn verified(&self) -> bool {
        self.verification.as_ref().is_none_or(|found| found.violations.is_empty())
    }

    /// Why the run as a whole has failed, whatever its figures are.
    pub fn failed(&self) -> Option<&'static str> {
        if self.losses.server_gone {
            Some("the server was gone at the end")
        } else if self.total.succeeded == 0 && self.total.failed > 0 {
            Some("nothing succeeded")
        } else {
            None
        }
    }

    /// Whether the generator was too busy, or too late, for its figures to be the server's.
    pub fn generator_was_the_limit(&self) -> bool {
        self.client_utilisation > UTILISATION_MOST || self.schedule_lag_ns.p99 > LAG_MOST
    }

    /// Says when the generator, not the server, set the figures.
    fn remark(&mut self, settings: &Settings) {
        let mut remarks = Vec::new();
        if self.interrupted {
            let ended = if self.total.succeeded + self.total.failed == 0 {
                "The run was ended before its measured part: there are no figures."
            } else {
                "The run was ended early."
            };
            remarks.push(ended.to_owned());
        }
        remarks.extend(self.losses.show(self.seconds));
        let plan = &settings.plan;
        let parts = if plan.pace.has(Operation::Multi) { plan.multi_parts } else { 1 };
        if self.total.failed > 0 && plan.values.most * parts > REQUEST_BYTES_USUAL {
            remarks.push(format!(
                "Requests were up to {} bytes long, {}.",
                plan.values.most * parts,
                too_large()
            ));
        }
        if self.client_utilisation > UTILISATION_MOST {
            remarks.push(format!(
                "The generator used {:.0}% of its {} thread(s): it was the bottleneck. Use --cores {} or another machine.",
                self.client_utilisation * 100.0,
                settings.cores,
                settings.cores + 1
            ));
        }
        if self.schedule_lag_ns.p99 > LAG_MOST {
            remarks.push(format!(
                "Requests left up to {} late (p99) because the generator was not scheduled in time.",
                show_nanos(self.schedule_lag_ns.p99)
            ));
        }
        match &settings.plan.pace {
            // What was due, not the rate of the command line: Poisson arrivals scatter about it. What was due last may
            // be on its way when the part ends, for as long as an answer takes and for a twentieth at most.
            Pace::Open { .. } => {
                let wanted = (self.total.succeeded + self.total.failed) as f64 / self.seconds;
                let on_its_way = (self.total.service_ns.p50 as f64 * 1e-9 / self.seconds).min(0.05);
                if self.total.rate < (0.99 - on_its_way) * wanted {
                    remarks.push(format!(
                        "The server answered {}/s of the {}/s that were due.",
                        show_count(self.total.rate as u64),
                        show_count(wanted as u64)
                    ));
                }
            }
            // Of a session or a watch cycle only a part is one request: the law says nothing of their mixture.
            pace if pace.has(Operation::Session) || pace.has(Operation::Watch) => {}
            // Ended in its warm-up, or never answered: there is nothing to multiply.
            Pace::Closed { .. } if self.total.succeeded == 0 => {}
            Pace::Closed { in_flight, .. } => {
                let expected = (in_flight * settings.plan.connections) as f64;
                let seen = self.total.service_ns.mean * 1e-9 * self.total.rate;
                if self.total.failed == 0 && (seen / expected - 1.0).abs() > 0.05 {
                    remarks.push(format!(
                        "Latency x throughput is {} requests in flight where {expected} were: the figures do not fit \
                         each other (Little's law).",
                        three_digits(seen)
                    ));
                }
            }
        }
        self.remarks.append(&mut remarks);
    }

    /// The figures as a table for people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let columns = ["operation", "ops", "ops/s", "errors", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
        let mut rows = vec![columns.map(str::to_owned)];
        let mut row = |name: &str, of: &OperationResult, latency: &Latency| {
            rows.push([
                name.to_owned(),
                show_count(of.succeeded),
                show_count(of.rate.round() as u64),
                show_count(of.failed),
                show_nanos(latency.p50),
                show_nanos(latency.p90),
                show_nanos(latency.p99),
                show_nanos(latency.p999),
                show_nanos(latency.p9999),
                show_nanos(latency.max),
            ]);
        };
        for (name, result) in &self.operations {
            row(name, result, &result.response_ns);
        }
        if self.operations.len() > 1 {
            row("total", &self.total, &self.total.response_ns);
        }
        if self.load.loop_kind == "open" {
            row("  service time", &self.total, &self.total.service_ns);
        }
        let widths: Vec<usize> =
            (0..columns.len()).map(|at| rows.iter().map(|row| row[at].len()).max().unwrap_or(0)).collect();
        for row in &rows {
            for (at, cell) in row.iter().enumerate() {
                let width = widths[at];
                let _ = if at == 0 { write!(out, "{cell:<width$}") } else { write!(out, "  {cell:>width$}") };
            }
            out.push('\n');
        }
        for failure in &self.failures {
            let _ = writeln!(
                out,
                "error: {} {} x {}",
                failure.operation,
                failure.name,
                show_count(failure.count)
            );
        }
        if let Some(cpu) = self.server_cpu_ns_per_operation {
            let memory = self.server_resident_bytes.unwrap_or(0) as f64 / 1e6;
            let _ = writeln!(
                out,
                "server: {} us CPU per operation, {} MB resident",
                three_digits(cpu / 1e3),
                three_digits(memory)
            );
        }
        let _ = writeln!(
            out,
            "generator: {} us CPU per operation, {:.0}% of its threads",
            three_digits(self.client_cpu_ns_per_operation / 1e3),
            self.client_utilisation * 100.0
        );
        if let Some(found) = &self.verification {
            let _ = writeln!(
                out,
                "verify: {} facts compared, {} kinds of violation",
                show_count(found.checks),
                found.violations.len()
            );
            for (kind, (count, examples)) in &found.violations {
                let _ = writeln!(
                    out,
                    "VIOLATION: {kind}: {} times, such as {}",
                    show_count(*count),
                    examples.join("; ")
                );
            }
        }
        for remark in &self.remarks {
            let _ = writeln!(out, "note: {remark}");
        }
        out
    }
}

impl Losses {
    /// A sentence for each thing that a reader of figures must know.
    fn show(&self, seconds: f64) -> Vec<String> {
        let mut out = Vec::new();
        if self.lost > 0 {
            let each = |(name, count): (&String, &u64)| format!("{name} x {}", show_count(*count));
            let reasons = self.reasons.iter().map(each).collect::<Vec<_>>().join(", ");
            out.push(format!("{} established connections were lost: {reasons}.", show_count(self.lost)));
        }
        if self.without_server_seconds > 0.0 {
            out.push(format!(
                "There was no server for {:.1} s of {seconds:.1} s.",
                self.without_server_seconds
            ));
        }
        if self.server_gone {
            out.push("No server could be reached at the end: the run has failed.".to_owned());
        }
        out
    }
}

fn result(record: &OperationRecord, seconds: f64, open_loop: bool) -> OperationResult {
    let service_ns = Latency::of(&record.service);
    let service_curve = curve(&record.service);
    OperationResult {
        succeeded: record.succeeded(),
        failed: record.failed,
        rate: record.answered as f64 / seconds,
        response_ns: if open_loop { Latency::of(&record.response) } else { service_ns.clone() },
        response_curve: if open_loop { curve(&record.response) } else { service_curve.clone() },
        service_ns,
        service_curve,
    }
}

/// Quantiles closer and closer to 1, as far as there are values to tell them apart.
fn curve(histogram: &Histogram<u64>) -> Vec<(f64, Nanos)> {
    const STEPS_A_NINE: u32 = 10;
    let nines_most = (histogram.len().max(1) as f64).log10().min(6.0);
    (0..)
        .map(|step| f64::from(step) / f64::from(STEPS_A_NINE))
        .take_while(|nines| *nines <= nines_most)
        .map(|nines| 1.0 - 10_f64.powf(-nines))
        .map(|quantile| (quantile, histogram.value_at_quantile(quantile)))
        .collect()
}

fn second_result(entry: &Entry) -> SecondResult {
    SecondResult {
        second: entry.second,
        width: entry.width,
        warmup: entry.warmup,
        succeeded: entry.succeeded,
        failed: entry.failed,
        in_flight: entry.in_flight,
        response_ns: Latency::of(&entry.response().unwrap_or_else(|_| histogram())),
    }
}

fn load_facts(settings: &Settings) -> LoadFacts {
    let plan = &settings.plan;
    let (loop_kind, mixes, poisson, in_flight) = match &plan.pace {
        Pace::Open { streams, poisson, in_flight_limit } => {
            let mixes = streams.iter().map(|stream| (stream.mix.show(), Some(stream.rate))).collect();
            ("open", mixes, *poisson, *in_flight_limit)
        }
        Pace::Closed { mix, in_flight } => ("closed", vec![(mix.show(), None)], false, *in_flight),
    };
    LoadFacts {
        hosts: settings.hosts.show(),
        loop_kind: loop_kind.to_owned(),
        mixes,
        poisson,
        warmup_seconds: settings.phases.warmup as f64 * 1e-9,
        connections: plan.connections,
        in_flight,
        value_bytes: (plan.values.least, plan.values.most),
        znodes: plan.keys.count,
        keys: plan.popularity.show(),
        depth: plan.keys.depth,
        cores: settings.cores,
        seed: plan.seed,
    }
}
