//! Where zkfast answers otherwise than Apache 3.8.0: on purpose, because the reference is 3.9.5, or not yet equal.
//!
//! One row per difference: the script, the line's beginning, what 3.8.0 prints, what is right, and why. A row that no
//! longer matches a line of Apache's transcript fails the test, so the table cannot outlive its reason.

use super::peers::Kind;

/// A difference on purpose.
struct Exception {
    script: &'static str,
    apache_line: &'static str,
    expected_line: &'static str,
    reason: &'static str,
}

const EXCEPTIONS: &[Exception] = &[];

/// Apache's transcript with the intended differences put in.
pub fn apply(script: &str, transcript: &str) -> String {
    if Kind::under_test() == Kind::Apache {
        return transcript.to_owned();
    }
    let mut lines: Vec<&str> = transcript.lines().collect();
    for exception in EXCEPTIONS.iter().filter(|exception| exception.script == script) {
        let line = lines.iter_mut().find(|line| **line == exception.apache_line);
        *line.unwrap_or_else(|| {
            panic!("no line of {script} is {:?}: {}", exception.apache_line, exception.reason)
        }) = exception.expected_line;
    }
    lines.join("\n")
}
