//! What is measured: latencies by operation, errors by name, one line per second.
//!
//! One recorder per core, merged when the run is over; a line of each second goes to the collector while it runs.
//! *Service* time runs from the write of a request to its reply. *Response* time runs from when the request was meant to
//! be sent: a request that had to wait because the server stalled counts its wait (no coordinated omission).

use crate::{
    clock::{Nanos, SECOND},
    operation::Operation,
};
use hdrhistogram::Histogram;
use std::{
    collections::BTreeMap,
    sync::mpsc::{SyncSender, TrySendError},
};

/// Longest latency that is told apart from longer ones: one hour.
const LATENCY_MAX: Nanos = 3600 * SECOND;
/// Significant digits of a latency.
const DIGITS: u8 = 3;

/// An empty histogram of nanoseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX, DIGITS).expect("the bounds are constants")
}

/// The part of a run that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// End of the warm-up.
    pub from: Nanos,
    /// End of the run.
    pub until: Nanos,
}

impl Window {
    /// Whether something at `at` counts.
    pub fn holds(&self, at: Nanos) -> bool {
        (self.from..self.until).contains(&at)
    }

    /// Length in seconds.
    pub fn seconds(&self) -> f64 {
        (self.until - self.from) as f64 / SECOND as f64
    }
}

/// Everything about one operation.
#[derive(Clone, Debug)]
pub struct OperationRecord {
    /// From the intended send to the reply.
    pub response: Histogram<u64>,
    /// From the actual send to the reply.
    pub service: Histogram<u64>,
    /// Answered with an error code, or not at all.
    pub failed: u64,
    /// Successes whose answer came within the window, whenever they were due: what throughput is taken of. A server that
    /// needs twenty seconds for the requests of ten has answered half of them by then.
    pub answered: u64,
}

impl Default for OperationRecord {
    fn default() -> Self {
        Self { response: histogram(), service: histogram(), failed: 0, answered: 0 }
    }
}

impl OperationRecord {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.response.add(&other.response).expect("equal bounds");
        self.service.add(&other.service).expect("equal bounds");
        self.failed += other.failed;
        self.answered += other.answered;
    }

    /// Answered successfully.
    pub fn succeeded(&self) -> u64 {
        self.service.len()
    }
}

/// One second of one core.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Which second of the run.
    pub index: u64,
    /// Response times of what was answered in it.
    pub response: Histogram<u64>,
    /// Errors in it.
    pub failed: u64,
    /// In flight at its end.
    pub in_flight: u64,
}

/// What one core measures.
#[derive(Debug)]
pub struct Recorder {
    window: Window,
    /// By `Operation as usize`; made at first use.
    operations: Vec<Option<Box<OperationRecord>>>,
    /// Failures by operation and name.
    errors: BTreeMap<(Operation, String), u64>,
    /// How late requests left, where the server was not the reason.
    pub lag: Histogram<u64>,
    interval: Interval,
    begin: Nanos,
    lines: SyncSender<Interval>,
    open_loop: bool,
}

impl Recorder {
    /// A recorder for one core, whose seconds go to `lines`. Nothing counts before [`Recorder::start`].
    pub fn new(open_loop: bool, lines: SyncSender<Interval>) -> Self {
        Self {
            window: Window { from: Nanos::MAX, until: Nanos::MAX },
            operations: vec![None; Operation::COUNT],
            errors: BTreeMap::new(),
            lag: histogram(),
            interval: Interval { index: 0, response: histogram(), failed: 0, in_flight: 0 },
            begin: 0,
            lines,
            open_loop,
        }
    }

    /// The run (with its warm-up) begins at `begin`.
    pub fn start(&mut self, begin: Nanos, window: Window) {
        self.begin = begin;
        self.window = window;
    }

    /// The part of the run that counts.
    pub fn window(&self) -> Window {
        self.window
    }

    /// Cuts the window at `now`, for a run that is ended early.
    pub fn end_now(&mut self, now: Nanos) {
        self.window.until = self.window.until.min(now.max(self.window.from));
    }

    /// In open loop an operation belongs to the window in which it was *meant* to be sent; in a closed loop to that in
    /// which it was answered.
    fn counts(&self, intended: Nanos, now: Nanos) -> bool {
        self.window.holds(if self.open_loop { intended } else { now })
    }

    fn of(operations: &mut [Option<Box<OperationRecord>>], operation: Operation) -> &mut OperationRecord {
        operations[operation as usize].get_or_insert_with(Box::default)
    }

    /// A success.
    #[inline]
    pub fn success(&mut self, operation: Operation, intended: Nanos, sent: Nanos, now: Nanos) {
        let response = now.saturating_sub(intended).max(1);
        self.interval.response.saturating_record(response);
        if self.window.holds(now) {
            Self::of(&mut self.operations, operation).answered += 1;
        }
        if self.counts(intended, now) {
            let record = Self::of(&mut self.operations, operation);
            record.service.saturating_record(now.saturating_sub(sent).max(1));
            if self.open_loop {
                record.response.saturating_record(response);
            }
        }
    }

    /// A failure, under the name that the report shows.
    pub fn failure(&mut self, operation: Operation, name: &str, intended: Nanos, now: Nanos) {
        self.interval.failed += 1;
        if self.counts(intended, now) {
            Self::of(&mut self.operations, operation).failed += 1;
            match self.errors.get_mut(&(operation, name.to_owned())) {
                Some(count) => *count += 1,
                None => {
                    self.errors.insert((operation, name.to_owned()), 1);
                }
            }
        }
    }

    /// Hands over the seconds that are over. Called each turn; `in_flight` is asked only when one is.
    #[inline]
    pub fn tick(&mut self, now: Nanos, in_flight: impl FnOnce() -> u64) {
        let index = now.saturating_sub(self.begin) / SECOND;
        if index > self.interval.index {
            self.hand_over(index, in_flight());
        }
    }

    fn hand_over(&mut self, next_index: u64, in_flight: u64) {
        let next = Interval { index: next_index, response: histogram(), failed: 0, in_flight: 0 };
        let mut over = std::mem::replace(&mut self.interval, next);
        over.in_flight = in_flight;
        // The collector has room for minutes of lines; if it is gone the run is over. A line is not worth a stall.
        match self.lines.try_send(over) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }

    /// Hands over the last, unfinished second and gives what was measured.
    pub fn finish(mut self) -> Measured {
        let index = self.interval.index + 1;
        self.hand_over(index, 0);
        Measured { operations: self.operations, errors: self.errors, lag: self.lag, window: self.window }
    }
}

/// What was measured, of one core or of all.
#[derive(Clone, Debug)]
pub struct Measured {
    /// By `Operation as usize`.
    pub operations: Vec<Option<Box<OperationRecord>>>,
    /// Failures by operation and name.
    pub errors: BTreeMap<(Operation, String), u64>,
    /// How late requests left the generator for reasons of its own.
    pub lag: Histogram<u64>,
    /// The part of the run that counts.
    pub window: Window,
}

impl Measured {
    /// Adds another core's.
    pub fn add(&mut self, other: Self) {
        for (own, other) in self.operations.iter_mut().zip(other.operations) {
            match (own.as_mut(), other) {
                (Some(own), Some(other)) => own.add(&other),
                (None, Some(other)) => *own = Some(other),
                (_, None) => {}
            }
        }
        for (key, count) in other.errors {
            *self.errors.entry(key).or_default() += count;
        }
        self.lag.add(&other.lag).expect("equal bounds");
        self.window.until = self.window.until.min(other.window.until);
    }

    /// Response time of all operations together at a quantile; in a closed loop their service time.
    pub fn response_at(&self, quantile: f64) -> Nanos {
        let mut all = OperationRecord::default();
        self.seen().for_each(|(_, record)| all.add(record));
        let histogram = if all.response.is_empty() { &all.service } else { &all.response };
        histogram.value_at_quantile(quantile)
    }

    /// The operations that happened.
    pub fn seen(&self) -> impl Iterator<Item = (Operation, &OperationRecord)> {
        Operation::ALL.iter().zip(&self.operations).filter_map(|(op, record)| Some((*op, record.as_deref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    fn recorder(open_loop: bool) -> (Recorder, std::sync::mpsc::Receiver<Interval>) {
        let (lines, receiver) = sync_channel(100);
        let mut recorder = Recorder::new(open_loop, lines);
        recorder.start(0, Window { from: SECOND, until: 3 * SECOND });
        (recorder, receiver)
    }

    /// Coordinated omission: a reply that comes after the window to a request that was due inside it must count.
    #[test]
    fn a_request_due_in_the_window_counts_however_late_its_reply() {
        let (mut recorder, _lines) = recorder(true);
        recorder.success(Operation::Set, 2 * SECOND, 4 * SECOND, 5 * SECOND);
        recorder.success(Operation::Set, SECOND / 2, SECOND / 2, 2 * SECOND);
        let measured = recorder.finish();
        let (_, set) = measured.seen().next().unwrap();
        assert_eq!(set.succeeded(), 1, "the request of the warm-up does not count");
        assert!(set.response.max() >= 3 * SECOND - SECOND / 100);
        assert!(set.service.max() < SECOND + SECOND / 100);
        assert_eq!(set.answered, 1, "only the one of the warm-up was answered within the window");
    }

    /// Three digits, also of what took a minute: the report's percentiles are no better than their histogram.
    #[test]
    fn latencies_keep_three_digits() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..1_000 {
            let value = 10_f64.powf(random.f64() * 10.7) as Nanos + 1;
            let mut one = histogram();
            one.saturating_record(value);
            let shown = one.value_at_quantile(0.5);
            assert!(shown.abs_diff(value) as f64 <= value as f64 * 0.001 + 1.0, "{value}: {shown}");
        }
    }

    #[test]
    fn a_closed_loop_counts_by_reply() {
        let (mut recorder, _lines) = recorder(false);
        recorder.success(Operation::Get, SECOND / 2, SECOND / 2, SECOND + 1);
        recorder.success(Operation::Get, 2 * SECOND, 2 * SECOND, 3 * SECOND);
        recorder.failure(Operation::Get, "NONODE (-101)", 2 * SECOND, 2 * SECOND + 5);
        let measured = recorder.finish();
        let (_, get) = measured.seen().next().unwrap();
        assert_eq!((get.succeeded(), get.failed), (1, 1));
    }

    #[test]
    fn each_second_is_handed_over_once() {
        let (mut recorder, lines) = recorder(true);
        for at in [0, SECOND / 2, SECOND + 5, 3 * SECOND] {
            recorder.tick(at, || 7);
            recorder.success(Operation::Set, at, at, at + 10);
        }
        recorder.finish();
        let seen: Vec<(u64, u64)> = lines.iter().map(|line| (line.index, line.response.len())).collect();
        assert_eq!(seen, [(0, 2), (1, 1), (3, 1)]);
    }
}
