//! The seconds of a run as an HdrHistogram interval log, for the tools that read those.

use crate::timeline::Timeline;
use hdrhistogram::serialization::{V2DeflateSerializer, interval_log::IntervalLogWriterBuilder};
use std::time::{Duration, SystemTime};

/// The log: one histogram of response times in nanoseconds per counted entry of the timeline.
///
/// # Errors
/// If a histogram cannot be encoded.
pub fn interval_log(timeline: &Timeline, begin: SystemTime) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment("response times in nanoseconds, one line per second")
        .with_start_time(begin)
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut out, &mut serializer)?;
    for entry in timeline.entries().iter().filter(|entry| !entry.warmup) {
        writer
            .write_histogram(
                &entry.response()?,
                Duration::from_secs(entry.second),
                Duration::from_secs(entry.width),
                None,
            )
            .map_err(|error| anyhow::anyhow!("cannot encode a histogram: {error:?}"))?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Second;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn what_is_written_can_be_read() {
        let mut response = crate::record::histogram();
        response.saturating_record(1_000_000);
        let mut timeline = Timeline::new(1);
        for (index, warmup) in [(0, true), (1, false)] {
            let second = Second { index, response: response.clone(), failed: 0, in_flight: 0, warmup };
            timeline.push(&second).unwrap();
        }
        let log = interval_log(&timeline, SystemTime::UNIX_EPOCH).unwrap();
        let intervals =
            IntervalLogIterator::new(&log).filter(|entry| matches!(entry, Ok(LogEntry::Interval(_)))).count();
        assert_eq!(intervals, 1);
    }
}
