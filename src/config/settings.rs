//! Typed look-ups in the lines of one configuration file, with errors that name the line.
//!
//! Two tempers, as in Apache: a key that its parser reads must be well-formed or the server does not start (rows O4,
//! O5); a system property with an unreadable value falls back to its default, here with a warning.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::java_flags::JavaFlags;
use super::properties::Property;

/// The lines of a file, the Java flags beside it, and the warnings found so far.
#[derive(Debug)]
pub(super) struct Settings {
    file: Option<PathBuf>,
    by_key: BTreeMap<String, (String, usize)>,
    flags: JavaFlags,
    /// Keys that are set twice to different values, and the line of the first.
    twice: Vec<(String, usize)>,
    pub(super) warnings: Vec<String>,
}

impl Settings {
    pub(super) fn new(file: Option<&Path>, properties: &[Property], flags: &JavaFlags) -> Self {
        let mut by_key = BTreeMap::new();
        let mut warnings = Vec::new();
        let mut twice = Vec::new();
        for Property { key, value, line } in properties {
            if let Some((old, old_line)) = by_key.insert(key.clone(), (value.clone(), *line))
                && old != *value
            {
                twice.push((key.clone(), old_line));
                warnings.push(format!(
                    "{key} is set on line {old_line} to '{old}' and on line {line} to '{value}'; the last one counts."
                ));
            }
        }
        Self { file: file.map(Path::to_path_buf), by_key, flags: flags.clone(), twice, warnings }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = (&str, &str, usize)> {
        self.by_key.iter().map(|(key, (value, line))| (key.as_str(), value.as_str(), *line))
    }

    /// The first key of two different lines that satisfies `wanted`, and the number of its first line.
    pub(super) fn set_twice(&self, wanted: impl Fn(&str) -> bool) -> Option<(&str, usize)> {
        self.twice.iter().find(|(key, _)| wanted(key)).map(|(key, line)| (key.as_str(), *line))
    }

    /// A key of the file.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.by_key.get(key).map(|(value, _)| value.as_str())
    }

    /// `error`, said of the line that sets `key`.
    pub(super) fn blame(&self, key: &str, error: ConfigError) -> ConfigError {
        error.at(self.file.as_deref(), self.by_key.get(key).map(|(_, line)| *line))
    }

    /// `error`, said of the file, where it is not said of a line.
    pub(super) fn place(&self, error: ConfigError) -> ConfigError {
        error.at(self.file.as_deref(), None)
    }

    /// A new error about `key`.
    pub(super) fn error(&self, key: &str, what: impl Into<String>, cure: impl Into<String>) -> ConfigError {
        self.blame(key, ConfigError::new(what, cure))
    }

    /// A whole number that must be well-formed.
    pub(super) fn number(&self, key: &str, default: i32) -> Result<i32, ConfigError> {
        match self.text(key) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| {
                self.error(
                    key,
                    format!("{key}={text}: not a whole number"),
                    format!("Write a whole number, such as {key}={default}, or remove the line."),
                )
            }),
        }
    }

    /// As [`Settings::number`], and at least zero.
    pub(super) fn count(&self, key: &str, default: i32) -> Result<u32, ConfigError> {
        let number = self.number(key, default)?;
        u32::try_from(number).map_err(|_| {
            self.error(key, format!("{key}={number} is negative"), format!("Write {key}={default} or more."))
        })
    }

    /// A port that must be well-formed, `None` if the key is absent.
    pub(super) fn port(&self, key: &str) -> Result<Option<u16>, ConfigError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            self.error(key, format!("{key}={text}: not a port number"), "Write a number from 1 to 65535.")
        })
    }

    /// A switch that must be `true` or `false`, in any case (row O4).
    pub(super) fn switch(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        match self.text(key) {
            None => Ok(default),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(text) => Err(self.error(
                key,
                format!("{key}={text}: neither true nor false"),
                format!("Write {key}=true or {key}=false."),
            )),
        }
    }

    /// The system property `zookeeper.<key>`: the file's line wins over a `-D` flag (row O2).
    pub(super) fn property(&self, key: &str) -> Option<&str> {
        self.text(key).or_else(|| self.flags.get(&format!("zookeeper.{key}")))
    }

    /// A property with a name of its own, from a `-D` flag only (row O3).
    pub(super) fn java_property(&self, name: &str) -> Option<&str> {
        self.flags.get(name)
    }

    /// A number from a property, as `Long.getLong` reads it, kept within `least..=most`.
    pub(super) fn property_number(&mut self, key: &str, default: i64, least: i64, most: i64) -> i64 {
        let text = self.property(key).map(str::to_owned);
        self.number_within(key, text.as_deref(), default, least, most)
    }

    /// As [`Settings::property_number`], for the text of any property.
    pub(super) fn number_within(
        &mut self,
        name: &str,
        text: Option<&str>,
        default: i64,
        least: i64,
        most: i64,
    ) -> i64 {
        let Some(text) = text else { return default };
        let Some(number) = java_long(text) else {
            self.warnings.push(format!("{name}={text} is not a whole number; {default} is used instead."));
            return default;
        };
        let kept = number.clamp(least, most);
        if kept != number {
            self.warnings
                .push(format!("{name}={number} is outside {least} to {most}; {kept} is used instead."));
        }
        kept
    }

    /// `Boolean.getBoolean`: anything but `true` is false (row O4).
    pub(super) fn property_switch(&self, key: &str, default: bool) -> bool {
        self.property(key).map_or(default, |text| text.eq_ignore_ascii_case("true"))
    }
}

/// `Long.decode`: decimal, or hexadecimal after `0x`, `0X` or `#`, or octal after `0`.
fn java_long(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let hex = digits.strip_prefix("0x").or(digits.strip_prefix("0X")).or(digits.strip_prefix('#'));
    let (radix, digits) = match hex {
        Some(hex) => (16, hex),
        None if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        None => (10, digits),
    };
    if !digits.bytes().next()?.is_ascii_alphanumeric() {
        return None; // a second sign
    }
    let number = i64::from_str_radix(digits, radix).ok()?;
    Some(if negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_java_reads_properties() {
        let check = |text: &str, expected: Option<i64>| assert_eq!(java_long(text), expected, "{text}");
        check("10", Some(10));
        check("-10", Some(-10));
        check("+7", Some(7));
        check("0x400000", Some(0x40_0000));
        check("#ff", Some(255));
        check("010", Some(8));
        check("0", Some(0));
        check("", None);
        check("-", None);
        check("--1", None);
        check("ten", None);
        check("99999999999999999999", None);
    }
}
