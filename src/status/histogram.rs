//! A histogram of durations (in nanoseconds) or sizes that one core fills while any other may read it.
//!
//! Eight buckets for each power of two, so a reported value is at most 12.5 % above the measured one; 312 buckets reach
//! from 1 ns to 36 minutes. hdrhistogram would be finer, but it cannot be read while it is written. Recording is a few
//! plain loads and stores (Relaxed), no atomic read-modify-write.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const SUB_BUCKET_BITS: u32 = 3;
const SUB_BUCKETS: usize = 1 << SUB_BUCKET_BITS;
/// Greater values count as this one: 36 minutes in nanoseconds.
const VALUE_MAX: u64 = (1 << 41) - 1;
const BUCKETS: usize = bucket_of(VALUE_MAX) + 1;

const fn bucket_of(value: u64) -> usize {
    if value < SUB_BUCKETS as u64 {
        return value as usize;
    }
    let exponent = value.ilog2() - SUB_BUCKET_BITS;
    exponent as usize * SUB_BUCKETS + (value >> exponent) as usize
}

/// The greatest value that falls into `bucket`.
const fn bucket_end(bucket: usize) -> u64 {
    if bucket < SUB_BUCKETS * 2 {
        return bucket as u64;
    }
    let exponent = bucket / SUB_BUCKETS - 1;
    let mantissa = bucket - exponent * SUB_BUCKETS;
    ((mantissa as u64 + 1) << exponent) - 1
}

/// Filled by exactly one thread, read by any.
#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; BUCKETS],
            sum: AtomicU64::new(0),
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// Counts one value. Only the owning thread may call this.
    #[inline]
    pub fn record(&self, value: u64) {
        self.record_many(value, 1);
    }

    /// Counts one value so many times. Only the owning thread may call this.
    #[inline]
    pub fn record_many(&self, value: u64, times: u64) {
        let value = if value > VALUE_MAX { VALUE_MAX } else { value };
        let count = &self.counts[bucket_of(value)];
        count.store(count.load(Relaxed) + times, Relaxed);
        self.sum.store(self.sum.load(Relaxed).wrapping_add(value.wrapping_mul(times)), Relaxed);
        if value > self.max.load(Relaxed) {
            self.max.store(value, Relaxed);
        }
        if value < self.min.load(Relaxed) {
            self.min.store(value, Relaxed);
        }
    }

    /// The numbers so far. A record made meanwhile may be half in it.
    pub fn read(&self) -> Reading {
        Reading {
            counts: self.counts.iter().map(|count| count.load(Relaxed)).collect(),
            sum: self.sum.load(Relaxed),
            min: self.min.load(Relaxed),
            max: self.max.load(Relaxed),
        }
    }

    /// Forgets least and greatest, from any thread. A record made at the same instant may be forgotten with them;
    /// counts cannot be reset like this, readers subtract an older reading instead ([`Reading::since`]).
    pub fn reset_extremes(&self) {
        self.min.store(u64::MAX, Relaxed);
        self.max.store(0, Relaxed);
    }
}

/// What a histogram held at some moment: a plain value that can be added up over cores and subtracted over time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    counts: Vec<u64>,
    sum: u64,
    min: u64,
    max: u64,
}

impl Default for Reading {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], sum: 0, min: u64::MAX, max: 0 }
    }
}

impl Reading {
    /// Adds another core's numbers.
    pub fn add(&mut self, other: &Self) {
        for (own, other) in self.counts.iter_mut().zip(&other.counts) {
            *own += other;
        }
        self.sum = self.sum.wrapping_add(other.sum);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// What came after `earlier`, a reading of the same histograms. Extremes are kept as they are.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            counts: self
                .counts
                .iter()
                .zip(&earlier.counts)
                .map(|(now, then)| now.saturating_sub(*then))
                .collect(),
            sum: self.sum.wrapping_sub(earlier.sum),
            min: self.min,
            max: self.max,
        }
    }

    /// Values counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Sum of all values.
    pub fn sum(&self) -> u64 {
        if self.count() == 0 { 0 } else { self.sum }
    }

    /// Mean, 0 if there is none.
    pub fn mean(&self) -> f64 {
        match self.count() {
            0 => 0.0,
            count => self.sum as f64 / count as f64,
        }
    }

    /// The least, 0 if there is none.
    pub fn min(&self) -> u64 {
        if self.min == u64::MAX || self.count() == 0 { 0 } else { self.min }
    }

    /// The greatest, 0 if there is none.
    pub fn max(&self) -> u64 {
        if self.count() == 0 { 0 } else { self.max }
    }

    /// The value that a fraction of all do not exceed: 0.99 gives p99. At most 12.5 % above the true value and
    /// never above the greatest; 0 if there is none.
    pub fn quantile(&self, fraction: f64) -> u64 {
        let count = self.count();
        if count == 0 {
            return 0;
        }
        let rank = ((count as f64 * fraction).ceil() as u64).clamp(1, count);
        let mut passed = 0;
        for (bucket, in_bucket) in self.counts.iter().enumerate() {
            passed += in_bucket;
            if passed >= rank {
                return match self.max {
                    0 => bucket_end(bucket),
                    max => bucket_end(bucket).min(max),
                };
            }
        }
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_into_a_bucket_at_most_an_eighth_wide() {
        let mut previous = None;
        for bucket in 0..BUCKETS {
            let end = bucket_end(bucket);
            assert_eq!(bucket_of(end), bucket);
            let start = previous.map_or(0, |previous: u64| previous + 1);
            assert_eq!(bucket_of(start), bucket);
            assert!(end - start <= start / 8, "{start}..={end}");
            previous = Some(end);
        }
        assert_eq!(previous, Some(VALUE_MAX));
    }

    #[test]
    fn quantiles_lie_within_an_eighth_of_the_true_ones() {
        let histogram = Histogram::default();
        for value in 1..=100_000 {
            histogram.record(value);
        }
        let reading = histogram.read();
        assert_eq!((reading.count(), reading.min(), reading.max()), (100_000, 1, 100_000));
        assert!((reading.mean() - 50_000.5).abs() < 0.01);
        for (fraction, truth) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.999, 99_900.0), (1.0, 100_000.0)] {
            let found = reading.quantile(fraction) as f64;
            assert!(found >= truth && found <= truth * 1.125, "{fraction}: {found}");
        }
        histogram.record(u64::MAX);
        assert_eq!(histogram.read().max(), VALUE_MAX);
    }

    #[test]
    fn readings_add_up_over_cores_and_subtract_over_time() {
        let (left, right) = (Histogram::default(), Histogram::default());
        left.record(10);
        right.record(1000);
        let mut all = left.read();
        all.add(&right.read());
        assert_eq!((all.count(), all.sum(), all.min(), all.max()), (2, 1010, 10, 1000));
        let before = left.read();
        left.reset_extremes();
        left.record(7);
        let after = left.read().since(&before);
        assert_eq!((after.count(), after.sum(), after.min(), after.max()), (1, 7, 7, 7));
        let empty = Reading::default();
        assert_eq!((empty.min(), empty.max(), empty.quantile(0.99)), (0, 0, 0));
        let nothing_since = before.since(&before);
        assert_eq!((nothing_since.count(), nothing_since.sum(), nothing_since.max()), (0, 0, 0));
    }
}
