//! Whether a run has any connection at all: what a load without a server measures is nothing.

use crate::{clock::Nanos, record::Window};
use std::sync::Mutex;

/// Connections of all cores that are up, and how long there was none.
#[derive(Debug, Default)]
pub struct Presence(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    up: usize,
    window: Option<Window>,
    /// Since when none is up; only behind one that was lost.
    since: Option<Nanos>,
    /// Of the window, nanoseconds without any, up to the last one that came back.
    without: Nanos,
}

impl State {
    fn of_window(&self, from: Nanos, until: Nanos) -> Nanos {
        let within = |window: Window| until.min(window.until).saturating_sub(from.max(window.from));
        self.window.map_or(0, within)
    }
}

impl Presence {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().expect("nobody panics with it"))
    }

    /// The part of the run that counts.
    pub fn begin(&self, window: Window) {
        self.with(|state| state.window = Some(window));
    }

    /// A connection is up.
    pub fn came(&self, now: Nanos) {
        self.with(|state| {
            state.up += 1;
            if let Some(since) = state.since.take() {
                state.without += state.of_window(since, now);
            }
        });
    }

    /// One that was up is lost.
    pub fn lost(&self, now: Nanos) {
        self.with(|state| {
            state.up -= 1;
            if state.up == 0 {
                state.since.get_or_insert(now);
            }
        });
    }

    /// Whether all that were up are lost.
    pub fn is_none_up(&self) -> bool {
        self.with(|state| state.since.is_some())
    }

    /// Nanoseconds of `window` (which may have been cut short) without any connection.
    pub fn without(&self, window: Window) -> Nanos {
        let still = |state: &mut State| state.since.map_or(0, |since| state.of_window(since, window.until));
        self.with(|state| state.without + still(state)).min(window.until.saturating_sub(window.from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only what lies in the window counts, and only while the last one is gone.
    #[test]
    fn the_time_without_any_connection_is_that_of_the_window() {
        let (presence, window) = (Presence::default(), Window { from: 100, until: 200 });
        presence.came(1);
        presence.came(2);
        presence.begin(window);
        presence.lost(80);
        assert!(!presence.is_none_up() && presence.without(window) == 0, "one is left");
        presence.lost(90);
        presence.came(120);
        assert_eq!((presence.without(window), presence.is_none_up()), (20, false));
        presence.lost(170);
        assert_eq!((presence.without(window), presence.is_none_up()), (50, true));
        assert_eq!(presence.without(Window { from: 100, until: 180 }), 30, "the run was ended early");
    }
}
