//! What people write on a command line: `50k/s`, `30s`, `100..1k`. Each parser says what to write instead.

use crate::clock::{Nanos, SECOND, nanos};
use std::time::Duration;

/// Splits `12.5abc` into the number and the rest.
fn split_number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let number: f64 = text[..end].replace('_', "").parse().ok()?;
    number.is_finite().then_some((number, &text[end..]))
}

fn thousands(suffix: &str) -> Option<f64> {
    Some(match suffix {
        "" => 1.0,
        "k" | "K" => 1e3,
        "m" | "M" => 1e6,
        _ => return None,
    })
}

/// A rate such as `50k/s`, `1.5M/s` or `200/s`, in operations a second.
pub fn rate(text: &str) -> Result<f64, String> {
    let wrong = || {
        format!("`{text}` is not a rate; write a number, k or M if you like, and /s, such as 50k/s or 1.5M/s")
    };
    let (number, suffix) = split_number(text).ok_or_else(wrong)?;
    let factor = thousands(suffix.strip_suffix("/s").unwrap_or(suffix)).ok_or_else(wrong)?;
    let rate = number * factor;
    if !(0.001..=1e8).contains(&rate) {
        return Err(format!("`{text}` is out of range; a rate lies between 0.001/s and 100M/s"));
    }
    Ok(rate)
}

/// A length of time such as `30s`, `500ms`, `100us`, `2m` or `1h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("`{text}` is not a duration; write a number and ms, s, m or h, such as 500ms or 30s");
    let (number, suffix) = split_number(text).ok_or_else(wrong)?;
    let seconds = match suffix {
        "us" => number * 1e-6,
        "ms" => number * 1e-3,
        "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(wrong()),
    };
    if seconds > 30.0 * 86_400.0 {
        return Err(format!("`{text}` is longer than 30 days"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A count such as `1000`, `64k` or `1M`.
pub fn count(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("`{text}` is not a count; write a whole number, k or M if you like, such as 1000 or 1M");
    let (number, suffix) = split_number(text).ok_or_else(wrong)?;
    let value = number * thousands(suffix).ok_or_else(wrong)?;
    if value.fract() != 0.0 || value > 1e12 {
        return Err(wrong());
    }
    Ok(value as u64)
}

/// Where random numbers start: any number of 64 bits.
pub fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a seed; write a whole number from 0 to {}", u64::MAX))
}

/// Sizes in bytes, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByteRange {
    /// Smallest value in bytes.
    pub least: usize,
    /// Largest value in bytes.
    pub most: usize,
}

impl ByteRange {
    /// A size out of the range, each as likely as any other.
    pub fn choose(self, random: &mut fastrand::Rng) -> usize {
        if self.least == self.most { self.most } else { random.usize(self.least..=self.most) }
    }
}

/// Largest value that may be asked for: what `jute.maxbuffer` lets through by default, less room for the request.
pub const VALUE_BYTES_LIMIT: usize = 1_000_000;

/// A size such as `100` or `1k`, or a range such as `100..1k`.
pub fn byte_range(text: &str) -> Result<ByteRange, String> {
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    let one =
        |text: &str| count(text.trim_end_matches(['b', 'B'])).ok().and_then(|n| usize::try_from(n).ok());
    match (one(least), one(most)) {
        (Some(least), Some(most)) if least <= most && most <= VALUE_BYTES_LIMIT => {
            Ok(ByteRange { least, most })
        }
        _ => Err(format!(
            "`{text}` is not a size; write bytes such as 100 or 1k, or a range such as 100..1k, at most {VALUE_BYTES_LIMIT}"
        )),
    }
}

/// Nanoseconds as a person writes them: `350 us`, `1.24 ms`, `2.1 s`.
pub fn show_nanos(value: Nanos) -> String {
    let value = value as f64;
    match value {
        v if v < 1e3 => format!("{v:.0} ns"),
        v if v < 1e6 => format!("{} us", three_digits(v / 1e3)),
        v if v < 1e9 => format!("{} ms", three_digits(v / 1e6)),
        v => format!("{} s", three_digits(v / 1e9)),
    }
}

/// A number with three significant digits, or all digits before the point if there are more.
pub fn three_digits(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        v if v > 0.0 => format!("{value:.3}"),
        _ => "0".to_owned(),
    }
}

/// A count with thousands separated: `1,305,000`.
pub fn show_count(value: u64) -> String {
    let digits = value.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Nanoseconds to seconds.
pub fn seconds(value: Nanos) -> f64 {
    value as f64 / SECOND as f64
}

/// A parsed duration in nanoseconds.
pub fn duration_nanos(duration: Duration) -> Nanos {
    nanos(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A misread unit would measure a thousandth of what was asked for.
    #[test]
    fn rates_and_durations_read_as_people_write_them() {
        for (text, expected) in [("50k/s", 50e3), ("1.5M/s", 1.5e6), ("200/s", 200.0), ("7", 7.0)] {
            assert_eq!(rate(text), Ok(expected), "{text}");
        }
        for wrong in ["50x", "", "/s", "k/s", "50k/m", "0/s", "1e9/s", "-5/s"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        assert!(rate("50x").unwrap_err().contains("50k/s"), "the error says what to write");
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("10").is_err());
        assert_eq!(byte_range("100..1k"), Ok(ByteRange { least: 100, most: 1000 }));
        assert_eq!(byte_range("64"), Ok(ByteRange { least: 64, most: 64 }));
        assert!(byte_range("9..3").is_err());
        assert_eq!(count("1M"), Ok(1_000_000));
        assert!(count("1.5").is_err());
        assert_eq!(seed("7"), Ok(7));
        assert!(seed("-1").unwrap_err().contains("from 0 to"));
    }

    /// A range whose ends never come would measure another load than it says.
    #[test]
    fn sizes_cover_the_whole_range_evenly() {
        let mut random = fastrand::Rng::with_seed(3);
        let range = byte_range("10..13").unwrap();
        let mut seen = [0; 4];
        (0..40_000).for_each(|_| seen[range.choose(&mut random) - 10] += 1);
        assert!(seen.iter().all(|count| (9_600..10_400).contains(count)), "{seen:?}");
    }

    #[test]
    fn numbers_show_with_three_digits_and_their_unit() {
        assert_eq!(show_nanos(1_234_567), "1.23 ms");
        assert_eq!(show_nanos(999), "999 ns");
        assert_eq!(show_count(1_305_000), "1,305,000");
        assert_eq!(show_count(999), "999");
    }
}
