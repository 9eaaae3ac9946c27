//! The seconds of a run as an HdrHistogram interval log, for the tools that read those.

use crate::run::Second;
use hdrhistogram::serialization::{V2DeflateSerializer, interval_log::IntervalLogWriterBuilder};
use std::time::{Duration, SystemTime};

/// The log: one histogram of response times in nanoseconds per counted second.
///
/// # Errors
/// If a histogram cannot be encoded.
pub fn interval_log(seconds: &[Second], begin: SystemTime) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment("response times in nanoseconds, one line per second")
        .with_start_time(begin)
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut out, &mut serializer)?;
    for second in seconds.iter().filter(|second| !second.warmup) {
        writer
            .write_histogram(
                &second.response,
                Duration::from_secs(second.index),
                Duration::from_secs(1),
                None,
            )
            .map_err(|error| anyhow::anyhow!("cannot encode a histogram: {error:?}"))?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn what_is_written_can_be_read() {
        let mut response = crate::record::histogram();
        response.saturating_record(1_000_000);
        let second =
            |index, warmup| Second { index, response: response.clone(), failed: 0, in_flight: 0, warmup };
        let log = interval_log(&[second(0, true), second(1, false)], SystemTime::UNIX_EPOCH).unwrap();
        let intervals =
            IntervalLogIterator::new(&log).filter(|entry| matches!(entry, Ok(LogEntry::Interval(_)))).count();
        assert_eq!(intervals, 1);
    }
}
