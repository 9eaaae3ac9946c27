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

/// Things that went wrong and are kept by name, of each core and of all.
const NOTES_LIMIT: usize = 5;

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

    /// Cuts it at `now`, for a run that is ended early. What is ended in its warm-up has measured nothing.
    fn end_at(&mut self, now: Nanos) {
        self.from = self.from.min(now);
        self.until = self.until.min(now);
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
    /// What throughput is taken of. In an open loop the successes whose answer came within the window: a server that
    /// needs twenty seconds for the requests of ten has answered half of them by then. In a closed loop, which sends no
    /// more than is answered, all successes.
    pub answered: u64,
    /// Answers within the window to whatever was sent, be it in the warm-up: what CPU time is divided by.
    pub handled: u64,
}

impl Default for OperationRecord {
    fn default() -> Self {
        Self { response: histogram(), service: histogram(), failed: 0, answered: 0, handled: 0 }
    }
}

impl OperationRecord {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.response.add(&other.response).expect("equal bounds");
        self.service.add(&other.service).expect("equal bounds");
        self.failed += other.failed;
        self.answered += other.answered;
        self.handled += other.handled;
    }

    /// Answered successfully.
    pub fn succeeded(&self) -> u64 {
        self.service.len()
    }
}

/// One second of one core.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Which core.
    pub core: usize,
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
    losses: BTreeMap<&'static str, u64>,
    notes: Vec<String>,
    interval: Interval,
    /// When the second 0 would have begun, if it were a whole one.
    begin: i128,
    lines: SyncSender<Interval>,
    open_loop: bool,
}

impl Recorder {
    /// A recorder for core `core`, whose seconds go to `lines`. Nothing counts before [`Recorder::start`].
    pub fn new(core: usize, open_loop: bool, lines: SyncSender<Interval>) -> Self {
        Self {
            window: Window { from: Nanos::MAX, until: Nanos::MAX },
            operations: vec![None; Operation::COUNT],
            errors: BTreeMap::new(),
            lag: histogram(),
            losses: BTreeMap::new(),
            notes: Vec::new(),
            interval: Interval { core, index: 0, response: histogram(), failed: 0, in_flight: 0 },
            begin: 0,
            lines,
            open_loop,
        }
    }

    /// The run (with its warm-up) begins at `begin`. Seconds are cut so that the window begins with a whole one: where
    /// the warm-up is a fraction of a second longer than whole ones, the fraction is the first.
    pub fn start(&mut self, begin: Nanos, window: Window) {
        let warmup = window.from - begin;
        self.begin = i128::from(window.from) - i128::from(warmup.div_ceil(SECOND) * SECOND);
        self.window = window;
    }

    /// The part of the run that counts.
    pub fn window(&self) -> Window {
        self.window
    }

    /// Cuts the window at `now`, for a run that is ended early.
    pub fn end_now(&mut self, now: Nanos) {
        self.window.end_at(now);
    }

    /// An operation belongs to the window in which it was meant to be sent (in a closed loop: was sent), however late
    /// its answer: what the warm-up has left behind is in no figure, and what the end cuts off is in them.
    fn counts(&self, intended: Nanos) -> bool {
        self.window.holds(intended)
    }

    fn of(operations: &mut [Option<Box<OperationRecord>>], operation: Operation) -> &mut OperationRecord {
        operations[operation as usize].get_or_insert_with(Box::default)
    }

    /// A success.
    #[inline]
    pub fn success(&mut self, operation: Operation, intended: Nanos, sent: Nanos, now: Nanos) {
        let response = now.saturating_sub(intended).max(1);
        self.interval.response.saturating_record(response);
        let within = self.window.holds(now);
        if within {
            Self::of(&mut self.operations, operation).handled += 1;
        }
        if self.counts(intended) {
            let record = Self::of(&mut self.operations, operation);
            record.answered += u64::from(within || !self.open_loop);
            record.service.saturating_record(now.saturating_sub(sent).max(1));
            if self.open_loop {
                record.response.saturating_record(response);
            }
        }
    }

    /// A failure, under the name that the report shows.
    pub fn failure(&mut self, operation: Operation, name: &str, intended: Nanos) {
        self.interval.failed += 1;
        if self.counts(intended) {
            Self::of(&mut self.operations, operation).failed += 1;
            match self.errors.get_mut(&(operation, name.to_owned())) {
                Some(count) => *count += 1,
                None => {
                    self.errors.insert((operation, name.to_owned()), 1);
                }
            }
        }
    }

    /// A failure because no answer will come, known at `now`. In a closed loop, where one that is never answered keeps
    /// its place from others, it counts also if it was sent in the warm-up.
    pub fn unanswered(&mut self, operation: Operation, name: &str, intended: Nanos, now: Nanos) {
        let counted = if self.open_loop { intended } else { intended.max(self.window.from.min(now)) };
        self.failure(operation, name, counted);
    }

    /// An established connection is lost, whatever was in flight on it. That of the warm-up does not count.
    pub fn lost(&mut self, name: &'static str, now: Nanos) {
        if now >= self.window.from {
            *self.losses.entry(name).or_default() += 1;
        }
    }

    /// Names something that went wrong; the first few are kept.
    pub fn note(&mut self, words: String) {
        if self.notes.len() < NOTES_LIMIT {
            self.notes.push(words);
        }
    }

    /// Hands over the seconds that are over. Called each turn; `in_flight` is asked only when one is.
    #[inline]
    pub fn tick(&mut self, now: Nanos, in_flight: impl FnOnce() -> u64) {
        let index =
            u64::try_from((i128::from(now) - self.begin) / i128::from(SECOND)).unwrap_or(self.interval.index);
        if index > self.interval.index {
            self.hand_over(index, in_flight());
        }
    }

    fn hand_over(&mut self, next_index: u64, in_flight: u64) {
        let core = self.interval.core;
        let next = Interval { core, index: next_index, response: histogram(), failed: 0, in_flight: 0 };
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
        Measured {
            operations: self.operations,
            errors: self.errors,
            lag: self.lag,
            losses: self.losses,
            notes: self.notes,
            window: self.window,
        }
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
    /// Established connections that were lost behind the warm-up, by reason.
    pub losses: BTreeMap<&'static str, u64>,
    /// What went wrong, by name: the first few.
    pub notes: Vec<String>,
    /// The part of the run that counts.
    pub window: Window,
}

impl Default for Measured {
    fn default() -> Self {
        Self {
            operations: vec![None; Operation::COUNT],
            errors: BTreeMap::new(),
            lag: histogram(),
            losses: BTreeMap::new(),
            notes: Vec::new(),
            window: Window { from: 0, until: 0 },
        }
    }
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
        for (name, count) in other.losses {
            *self.losses.entry(name).or_default() += count;
        }
        self.lag.add(&other.lag).expect("equal bounds");
        self.notes.extend(other.notes);
        self.notes.truncate(NOTES_LIMIT);
        self.window.from = self.window.from.min(other.window.from);
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
        let mut recorder = Recorder::new(0, open_loop, lines);
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
        assert_eq!(set.answered, 0, "the one of the window was answered behind it");
        assert_eq!(set.handled, 1, "the CPU time of the window went to the one of the warm-up");
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

    /// What the warm-up has left behind is not of the window; what was sent in it is, also if the end cuts it off.
    #[test]
    fn a_closed_loop_counts_what_was_sent_in_the_window() {
        let (mut recorder, _lines) = recorder(false);
        recorder.success(Operation::Get, SECOND / 2, SECOND / 2, SECOND + 1);
        recorder.success(Operation::Get, 2 * SECOND, 2 * SECOND, 3 * SECOND);
        recorder.failure(Operation::Get, "NONODE (-101)", 2 * SECOND);
        let measured = recorder.finish();
        let (_, get) = measured.seen().next().unwrap();
        assert_eq!((get.succeeded(), get.answered, get.failed, get.handled), (1, 1, 1, 1));
    }

    /// Danger: 300 ms of warm-up make the first second a second of the warm-up, and 700 ms of the run with it.
    #[test]
    fn seconds_begin_where_the_window_does() {
        let (lines, receiver) = sync_channel(100);
        let mut recorder = Recorder::new(0, true, lines);
        let begin = 7_123_456_789;
        let from = begin + 3 * SECOND / 10;
        recorder.start(begin, Window { from, until: from + 2 * SECOND });
        for at in [begin, from - 1, from, from + SECOND - 1, from + SECOND] {
            recorder.tick(at, || 0);
            recorder.success(Operation::Set, at, at, at);
        }
        recorder.finish();
        let seen: Vec<(u64, u64)> = receiver.iter().map(|line| (line.index, line.response.len())).collect();
        assert_eq!(seen, [(0, 2), (1, 2), (2, 1)]);
    }

    /// Danger: Ctrl-C in a long warm-up waits for its end.
    #[test]
    fn a_run_that_is_ended_in_its_warmup_is_over() {
        let (mut recorder, _lines) = recorder(true);
        recorder.end_now(SECOND / 4);
        assert_eq!(recorder.window(), Window { from: SECOND / 4, until: SECOND / 4 });
        recorder.success(Operation::Set, SECOND / 8, SECOND / 8, SECOND / 4);
        assert_eq!(recorder.finish().seen().map(|(_, record)| record.succeeded()).sum::<u64>(), 0);
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
