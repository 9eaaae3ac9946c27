//! Whether a core should look for work for a moment before it sleeps.
//!
//! To fall asleep and be woken costs two switches and, where the CPU has gone idle, an interrupt: with one client that
//! writes in a closed loop a quarter of the time between two flushes, with one that reads half of the time between two
//! requests. So after some waits that were short the next one is spent looking; a look that was in vain ends that at
//! once. A server with little to do never looks, and one with much to do has no waits. Pure: it is told how long the
//! waits were.

/// Longest look, nanoseconds: what a client on the same machine or switch takes from its answer to its next request.
pub const LOOK_NS_MAX: u64 = 60_000;

/// A wait that ended within this time, nanoseconds, would have been a look that pays: being woken takes time too.
const SHORT_WAIT_NS_MAX: u64 = 100_000;

/// So many short waits in a row make a core look. More than a coincidence, few enough to cost nothing.
const SHORT_WAITS: u32 = 4;

/// How soon work is expected.
#[derive(Debug, Default)]
pub struct Expectation {
    short_waits: u32,
}

impl Expectation {
    /// Whether to look before sleeping.
    pub fn is_soon(&self) -> bool {
        self.short_waits >= SHORT_WAITS
    }

    /// Work came after so many nanoseconds of sleep, or nothing came.
    pub fn slept(&mut self, ns: u64) {
        self.short_waits = if ns <= SHORT_WAIT_NS_MAX { (self.short_waits + 1).min(SHORT_WAITS) } else { 0 };
    }

    /// A look of [`LOOK_NS_MAX`] found nothing.
    pub fn looked_in_vain(&mut self) {
        self.short_waits = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Danger: an idle server burns a CPU.
    #[test]
    fn only_a_row_of_short_waits_makes_it_look_and_one_vain_look_ends_it() {
        let mut expectation = Expectation::default();
        for wait in [10_000, 100_000, 50_000, 100_001, 1, 2, 3] {
            expectation.slept(wait);
            assert!(!expectation.is_soon(), "{wait}");
        }
        expectation.slept(4);
        assert!(expectation.is_soon());
        expectation.slept(5);
        assert!(expectation.is_soon());
        expectation.looked_in_vain();
        assert!(!expectation.is_soon());
        expectation.slept(1);
        assert!(!expectation.is_soon(), "one short wait is no row");
    }
}
