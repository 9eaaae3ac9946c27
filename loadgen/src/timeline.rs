//! The seconds of a run, in bounded memory: each is encoded as it closes, and a long run has coarser ones.
//!
//! A histogram of nanoseconds takes a quarter of a megabyte, its encoding some kilobytes. When there are more than
//! [`ENTRIES_LIMIT`] entries, neighbours are put together and all later ones cover twice as long: no answer is lost.

use crate::run::Second;
use anyhow::anyhow;
use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer, V2DeflateSerializer},
};

/// Entries of a timeline: two hours of seconds, some 20 MB.
pub const ENTRIES_LIMIT: usize = 7_200;

/// One second of the run, or several that were put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which is the first, from the begin of the warm-up.
    pub second: u64,
    /// How many it covers.
    pub width: u64,
    /// Whether it belongs to the warm-up.
    pub warmup: bool,
    /// Answered successfully.
    pub succeeded: u64,
    /// Answered with an error, or not at all.
    pub failed: u64,
    /// In flight at its end.
    pub in_flight: u64,
    /// Response times in HdrHistogram's format V2, deflated.
    encoded: Vec<u8>,
}

impl Entry {
    /// Response times of what was answered in it, in nanoseconds.
    ///
    /// # Errors
    /// If the encoding is damaged, which it is not.
    pub fn response(&self) -> anyhow::Result<Histogram<u64>> {
        Deserializer::new()
            .deserialize(&mut self.encoded.as_slice())
            .map_err(|error| anyhow!("a histogram does not decode: {error:?}"))
    }
}

/// All of them, in order.
#[derive(Clone, Debug)]
pub struct Timeline {
    entries: Vec<Entry>,
    limit: usize,
    width: u64,
    /// The first second that counts: entries are put together from there on, so that none is half a warm-up.
    first_counted: u64,
}

impl Default for Timeline {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Timeline {
    /// An empty one of a run whose second `first_counted` is the first behind the warm-up.
    pub fn new(first_counted: u64) -> Self {
        Self { entries: Vec::new(), limit: ENTRIES_LIMIT, width: 1, first_counted }
    }

    /// The entries so far.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Adds the next second.
    ///
    /// # Errors
    /// If a histogram cannot be encoded.
    pub fn push(&mut self, second: &Second) -> anyhow::Result<()> {
        let entry = Entry {
            second: second.index,
            width: 1,
            warmup: second.warmup,
            succeeded: second.response.len(),
            failed: second.failed,
            in_flight: second.in_flight,
            encoded: encode(&second.response)?,
        };
        self.append(entry)?;
        while self.entries.len() > self.limit {
            self.width *= 2;
            for entry in std::mem::take(&mut self.entries) {
                self.append(entry)?;
            }
        }
        Ok(())
    }

    /// Puts an entry behind the others, or into the last one if both lie in one stretch of the present width.
    fn append(&mut self, entry: Entry) -> anyhow::Result<()> {
        let stretch = |entry: &Entry| {
            let from = if entry.warmup { 0 } else { self.first_counted };
            (entry.warmup, entry.second.saturating_sub(from) / self.width)
        };
        match self.entries.last_mut() {
            Some(last) if stretch(last) == stretch(&entry) => {
                let mut response = last.response()?;
                response.add(&entry.response()?).map_err(|error| anyhow!("{error:?}"))?;
                last.encoded = encode(&response)?;
                last.width = entry.second + entry.width - last.second;
                last.succeeded += entry.succeeded;
                last.failed += entry.failed;
                last.in_flight = entry.in_flight;
            }
            _ => self.entries.push(entry),
        }
        Ok(())
    }
}

fn encode(histogram: &Histogram<u64>) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    V2DeflateSerializer::new()
        .serialize(histogram, &mut out)
        .map_err(|error| anyhow!("a histogram cannot be encoded: {error:?}"))?;
    out.shrink_to_fit();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::histogram;

    fn counted(timeline: &Timeline) -> Histogram<u64> {
        let mut all = histogram();
        for entry in timeline.entries().iter().filter(|entry| !entry.warmup) {
            all.add(entry.response().unwrap()).unwrap();
        }
        all
    }

    fn second(index: u64, warmup: bool, random: &mut fastrand::Rng) -> Second {
        let mut response = histogram();
        (0..50).for_each(|_| response.saturating_record(random.u64(100_000..50_000_000)));
        Second { index, response, failed: index % 3, in_flight: index, warmup }
    }

    /// Danger: hours of seconds fill the memory, or a run loses answers when they are put together.
    #[test]
    fn a_long_run_has_fewer_entries_and_all_its_answers() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut timeline = Timeline { limit: 16, ..Timeline::new(3) };
        let mut total = histogram();
        for index in 0..203 {
            let second = second(index, index < 3, &mut random);
            if index >= 3 {
                total.add(&second.response).unwrap();
            }
            timeline.push(&second).unwrap();
            assert!(timeline.entries().len() <= 16, "{}", timeline.entries().len());
        }
        assert_eq!(counted(&timeline), total, "nothing is lost, to the last digit");
        let entries = timeline.entries();
        assert_eq!(entries.iter().map(|entry| entry.width).sum::<u64>(), 203);
        assert_eq!(
            entries.iter().map(|entry| entry.failed).sum::<u64>(),
            (0..203).map(|i| i % 3).sum::<u64>()
        );
        assert_eq!(entries.last().unwrap().in_flight, 202, "at the end");
        assert!(entries.windows(2).all(|pair| pair[0].second + pair[0].width == pair[1].second));
        assert_eq!(entries.iter().filter(|entry| entry.warmup).map(|entry| entry.width).sum::<u64>(), 3);
        assert_eq!(entries.iter().find(|entry| !entry.warmup).unwrap().second, 3, "the warm-up stays apart");
    }

    /// The bound that is promised: a second that was busy takes some kilobytes.
    #[test]
    fn an_entry_is_small() {
        let mut random = fastrand::Rng::with_seed(6);
        let mut response = histogram();
        for _ in 0..50_000 {
            response.saturating_record((200_000.0 * (1.0 - random.f64()).powf(-0.7)) as u64);
        }
        let mut timeline = Timeline::new(0);
        timeline
            .push(&Second { index: 0, response: response.clone(), failed: 0, in_flight: 0, warmup: false })
            .unwrap();
        let entry = &timeline.entries()[0];
        assert!(entry.encoded.len() < 6_000, "{} bytes", entry.encoded.len());
        assert_eq!(entry.response().unwrap(), response);
    }
}
