//! When each request of an open loop is meant to be sent, and which operation it is: fixed by the seed alone.
//!
//! The schedule has random numbers of its own. What the server does, which connection has room and how large values
//! are changes nothing in it, so that two runs with one seed (and one number of `--cores`) ask for the same operations
//! at the same times.

use crate::{
    clock::{Nanos, SECOND},
    mix::{Mix, Stream},
    operation::Operation,
};

/// One request of the schedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due {
    /// When it is meant to be sent.
    pub at: Nanos,
    /// What.
    pub operation: Operation,
}

/// One stream on one core.
#[derive(Debug)]
struct Arrivals {
    mix: Mix,
    /// When the next request is meant to be sent.
    next: f64,
    /// Mean gap in nanoseconds.
    gap: f64,
    random: fastrand::Rng,
}

/// All streams of one core, earliest request first.
#[derive(Debug, Default)]
pub struct Schedule {
    streams: Vec<Arrivals>,
    poisson: bool,
    until: f64,
    due: Option<(usize, Due)>,
}

impl Schedule {
    /// The share of core `core` of `cores` of these streams from `begin` on, until [`Schedule::end_at`].
    pub fn new(
        streams: &[Stream],
        poisson: bool,
        begin: Nanos,
        core: usize,
        cores: usize,
        seed: u64,
    ) -> Self {
        let mut seeds =
            fastrand::Rng::with_seed(seed ^ (core as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let streams = streams
            .iter()
            .map(|Stream { rate, mix }| {
                let gap = SECOND as f64 * cores as f64 / rate;
                let mut random = seeds.fork();
                // Cores take turns, so that together they keep equal gaps. Independent Poisson processes add up to one.
                let first =
                    if poisson { gap * exponential(&mut random) } else { gap * core as f64 / cores as f64 };
                Arrivals { mix: mix.clone(), next: begin as f64 + first, gap, random }
            })
            .collect();
        Self { streams, poisson, until: f64::INFINITY, due: None }
    }

    /// Nothing is due from `until` on.
    pub fn end_at(&mut self, until: Nanos) {
        self.until = until as f64;
    }

    /// The earliest request that was not taken yet; `None` at the end of the schedule.
    pub fn peek(&mut self) -> Option<Due> {
        if self.due.is_none() {
            let earliest =
                self.streams.iter_mut().enumerate().min_by(|(_, a), (_, b)| a.next.total_cmp(&b.next));
            self.due = earliest.map(|(index, stream)| {
                let due = Due { at: stream.next as Nanos, operation: stream.mix.next(&mut stream.random) };
                (index, due)
            });
        }
        self.due.filter(|(_, due)| (due.at as f64) < self.until).map(|(_, due)| due)
    }

    /// Takes what [`Schedule::peek`] showed.
    pub fn take(&mut self) -> Option<Due> {
        let due = self.peek()?;
        let (index, _) = self.due.take()?;
        let stream = &mut self.streams[index];
        let factor = if self.poisson { exponential(&mut stream.random) } else { 1.0 };
        stream.next += stream.gap * factor;
        Some(due)
    }
}

/// Exponentially distributed with mean 1.
fn exponential(random: &mut fastrand::Rng) -> f64 {
    -(1.0 - random.f64()).ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mix::mix;

    fn schedule(rate: f64, text: &str, poisson: bool, core: usize, cores: usize, seed: u64) -> Vec<Due> {
        let streams = [Stream { rate, mix: mix(text).unwrap() }];
        let mut schedule = Schedule::new(&streams, poisson, 7 * SECOND, core, cores, seed);
        schedule.end_at(17 * SECOND);
        std::iter::from_fn(|| schedule.take()).collect()
    }

    /// Count = rate x time is the promise of an open loop.
    #[test]
    fn equal_gaps_give_exactly_rate_times_time() {
        for cores in [1, 2, 3] {
            let mut all: Vec<Nanos> = (0..cores)
                .flat_map(|core| schedule(5_000.0, "set", false, core, cores, 1))
                .map(|due| due.at)
                .collect();
            all.sort_unstable();
            assert_eq!(all.len(), 50_000, "{cores} cores");
            assert!(all.windows(2).all(|pair| pair[1] - pair[0] == 200_000), "{cores} cores");
        }
    }

    /// Arrivals that are called Poisson must be: exponential gaps, independent of each other, counts as scattered as
    /// their mean.
    #[test]
    fn poisson_arrivals_are_poisson() {
        for cores in [1, 3] {
            let mut all: Vec<Nanos> = (0..cores)
                .flat_map(|core| schedule(5_000.0, "set", true, core, cores, 11))
                .map(|due| due.at)
                .collect();
            all.sort_unstable();
            let count = all.len() as f64;
            assert!((count - 50_000.0).abs() < 4.0 * 50_000_f64.sqrt(), "{count}");
            let gaps: Vec<f64> = all.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 200_000.0).collect();
            // Kolmogorov and Smirnov's distance to 1 - exp(-x); 1.63 / sqrt(n) is passed by one sample in a hundred.
            let mut sorted = gaps.clone();
            sorted.sort_by(f64::total_cmp);
            let n = sorted.len() as f64;
            let distance = sorted
                .iter()
                .enumerate()
                .map(|(rank, gap)| ((1.0 - (-gap).exp()) - rank as f64 / n).abs())
                .fold(0.0, f64::max);
            assert!(distance < 1.63 / n.sqrt(), "{cores} cores: {distance}");
            let correlation =
                gaps.windows(2).map(|pair| (pair[0] - 1.0) * (pair[1] - 1.0)).sum::<f64>() / (n - 1.0);
            assert!(correlation.abs() < 4.0 / n.sqrt(), "{cores} cores: {correlation}");
            let mut counts = vec![0.0_f64; 1000];
            all.iter().for_each(|at| counts[((at - 7 * SECOND) / 10_000_000) as usize] += 1.0);
            let variance = counts.iter().map(|c| (c - 50.0) * (c - 50.0)).sum::<f64>() / 1000.0;
            assert!((variance / 50.0 - 1.0).abs() < 0.2, "{cores} cores: {variance}");
        }
    }

    /// Two runs with one seed must be the same load; with another seed they must not.
    #[test]
    fn a_seed_gives_one_schedule() {
        let of = |seed| schedule(1_000.0, "set=1,get=2,create=1", true, 0, 1, seed);
        assert_eq!(of(5), of(5));
        assert_ne!(of(5), of(6));
    }

    /// A request that cannot be sent now is looked at again and again: it must stay the same one.
    #[test]
    fn looking_changes_nothing() {
        let streams = [
            Stream { rate: 1_000.0, mix: mix("set=1,get=2").unwrap() },
            Stream { rate: 300.0, mix: mix("exists").unwrap() },
        ];
        let mut looked = Schedule::new(&streams, true, 0, 0, 1, 3);
        let mut taken = Schedule::new(&streams, true, 0, 0, 1, 3);
        let (mut before, mut exists) = (0, 0);
        for _ in 0..5_000 {
            let shown = looked.peek();
            assert_eq!(looked.peek(), shown);
            assert_eq!(looked.take(), shown);
            assert_eq!(taken.take(), shown);
            let due = shown.unwrap();
            assert!(due.at >= before, "in the order of time");
            before = due.at;
            exists += usize::from(due.operation == Operation::Exists);
        }
        assert!((1_000..1_300).contains(&exists), "300 of 1,300: {exists}");
    }
}
