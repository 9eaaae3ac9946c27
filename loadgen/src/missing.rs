//! Events that never came: how long one is waited for, and what is said of those that stayed out.

use crate::clock::{Nanos, SECOND};
use zkfast_wire::SessionId;

/// How long an event may take behind the answer to the change that causes it. A server that lags may need some of it.
pub const EVENT_PATIENCE: Nanos = 5 * SECOND;
/// Events that are named.
const NAMED_LIMIT: usize = 5;

/// The events that one load has waited for in vain.
#[derive(Clone, Debug, Default)]
pub struct MissingEvents {
    count: u64,
    named: Vec<String>,
}

impl MissingEvents {
    /// One more: `session` watched `path`.
    pub fn note(&mut self, session: SessionId, path: &str) {
        self.count += 1;
        if self.named.len() < NAMED_LIMIT {
            self.named.push(format!("session {session}, watch on {path}"));
        }
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What to say of them, if there are any.
    pub fn failure(&self) -> Option<String> {
        (self.count > 0).then(|| {
            let more = if self.count > self.named.len() as u64 { "; ..." } else { "" };
            format!(
                "{} watch event(s) never came (the change was done, and the watch was left before it): {}{more}",
                self.count,
                self.named.join("; ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_named_and_all_are_counted() {
        let mut missing = MissingEvents::default();
        assert_eq!(missing.failure(), None);
        (0..7).for_each(|at| missing.note(SessionId(at + 16), "/n"));
        let words = missing.failure().unwrap();
        assert!(
            words.starts_with("7 watch event(s)") && words.contains("session 0x10, watch on /n"),
            "{words}"
        );
        assert!(words.ends_with("; ...") && !words.contains("0x16"), "{words}");
    }
}
