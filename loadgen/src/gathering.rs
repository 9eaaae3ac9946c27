//! How the sessions of a run come up, and when to give up waiting for them.

use crate::{
    clock::{Nanos, SECOND},
    engine::Loss,
};

/// How long all sessions together may take to come up.
const PATIENCE: Nanos = 120 * SECOND;
/// How long none may come up while the server turns connections away: the rest will not come up either.
const STANDSTILL: Nanos = 5 * SECOND;

/// Counts the sessions that are up before a load begins.
#[derive(Debug, Default)]
pub struct Gathering {
    ready: usize,
    progress_at: Nanos,
    turned_away: u64,
    last: Option<Loss>,
}

impl Gathering {
    /// Sessions that are up.
    pub fn ready(&self) -> usize {
        self.ready
    }

    /// One more is up.
    pub fn came(&mut self, now: Nanos) {
        self.ready += 1;
        self.progress_at = now;
    }

    /// A connection ended; `was_ready` if a session was on it.
    pub fn lost(&mut self, was_ready: bool, why: &Loss) {
        if was_ready {
            self.ready -= 1;
        } else {
            self.turned_away += 1;
        }
        self.last = Some(why.clone());
    }

    /// Why there is no point in waiting for the rest of `all`, if there is none.
    pub fn hopeless(&self, all: usize, now: Nanos) -> Option<String> {
        let stands_still = self.turned_away > 0 && now.saturating_sub(self.progress_at) > STANDSTILL;
        if self.ready == all || !(stands_still || now > PATIENCE) {
            return None;
        }
        let why = self.last.as_ref().map_or("no answer".into(), Loss::told);
        Some(format!(
            "only {} of {all} connections came up, {} tries ended early (the last one: {why}). A server closes \
             connections beyond its maxClientCnxns, which is 60 for each client address unless zoo.cfg says otherwise: \
             raise it there (0 is unlimited) or use fewer connections (-c). Otherwise see whether it still serves.",
            self.ready, self.turned_away
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that is slow to accept is waited for; one that turns everybody else away is not.
    #[test]
    fn waiting_ends_when_nobody_comes_any_more() {
        let mut gathering = Gathering::default();
        (0..60).for_each(|_| gathering.came(SECOND));
        assert_eq!(gathering.hopeless(64, 30 * SECOND), None, "slow, but nobody was turned away");
        gathering.lost(false, &Loss::Closed);
        assert_eq!(gathering.hopeless(64, 2 * SECOND), None, "it may be busy for a moment");
        assert_eq!(gathering.hopeless(60, 30 * SECOND), None, "all are there");
        let words = gathering.hopeless(64, 7 * SECOND).expect("hopeless");
        assert!(
            words.contains("60 of 64") && words.contains("maxClientCnxns") && words.contains("-c"),
            "{words}"
        );
        assert!(Gathering::default().hopeless(1, PATIENCE + 1).is_some());
    }
}
