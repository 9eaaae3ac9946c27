//! A server of the ensemble, or a server alone: one value, one entrance, no I/O.
//!
//! Lives on the pipeline core. Promises, asserted in release builds too: acked <= durable <= appended; commits are in
//! zxid order; within an epoch each zxid is the previous + 1.

use crate::{Effect, Event, alone::Alone};
use zkfast_wire::{Epoch, Zxid};

/// What a server is to the others at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// A standalone server.
    Alone,
}

/// The order, as one server holds it.
#[derive(Debug)]
pub struct Node {
    state: State,
}

#[derive(Debug)]
enum State {
    Alone(Alone),
}

impl Node {
    /// A standalone server whose recovered history ends at `last`; it keeps the epoch of that zxid (S24).
    pub fn alone(last: Zxid) -> Self {
        Self { state: State::Alone(Alone::new(last)) }
    }

    /// What this server is now.
    pub fn role(&self) -> Role {
        match self.state {
            State::Alone(_) => Role::Alone,
        }
    }

    /// The epoch under which this server appends to its log; a driver puts it into [`Event::Durable`].
    pub fn epoch(&self) -> Epoch {
        match &self.state {
            State::Alone(alone) => alone.tail().appended().epoch(),
        }
    }

    /// The zxid that the next submitted transaction must carry.
    ///
    /// `None` when the counter of this epoch is used up (S25, ZOOKEEPER-1277): a new epoch is needed first.
    pub fn next_zxid(&self) -> Option<Zxid> {
        match &self.state {
            State::Alone(alone) => alone.tail().appended().next(),
        }
    }

    /// The last committed transaction that this server knows of.
    pub fn committed(&self) -> Zxid {
        match &self.state {
            State::Alone(alone) => alone.committed(),
        }
    }

    /// Takes one event, pushes what must be done about it onto `effects`, which the caller empties and reuses.
    ///
    /// `now_ms` is a monotonic clock in milliseconds; it never decides what is safe, only what is overdue.
    ///
    /// # Panics
    /// If the driver broke its side: a zxid submitted that is not [`Node::next_zxid`], a flush of what was never
    /// appended. To go on would be to acknowledge what may be lost.
    pub fn step(&mut self, now_ms: u64, event: Event, effects: &mut Vec<Effect>) {
        let _ = now_ms;
        match &mut self.state {
            State::Alone(alone) => match event {
                Event::Tick => {}
                Event::Submit { zxid, record } => alone.submit(zxid, record, effects),
                Event::Durable { epoch, zxid } => {
                    if epoch == alone.tail().appended().epoch() {
                        alone.durable(zxid, effects);
                    }
                }
            },
        }
        self.check();
    }

    /// Asserts what must hold between two events.
    ///
    /// # Panics
    /// If it does not hold.
    pub fn check(&self) {
        match &self.state {
            State::Alone(alone) => alone.check(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn zxid(counter: u32) -> Zxid {
        Zxid::new(Epoch(0), counter)
    }

    fn submit(node: &mut Node, effects: &mut Vec<Effect>) -> Zxid {
        let zxid = node.next_zxid().expect("room in the epoch");
        node.step(0, Event::Submit { zxid, record: Bytes::from_static(b"record") }, effects);
        zxid
    }

    /// Danger: an answer leaves before its transaction is on disk.
    #[test]
    fn alone_commits_only_what_is_durable() {
        let mut node = Node::alone(zxid(41));
        let mut effects = Vec::new();
        for counter in 42..=44 {
            assert_eq!(submit(&mut node, &mut effects), zxid(counter));
        }
        assert_eq!(effects.len(), 3);
        assert!(effects.iter().all(|effect| matches!(effect, Effect::Append { .. })));
        assert_eq!(node.committed(), zxid(41));

        effects.clear();
        node.step(0, Event::Durable { epoch: Epoch(0), zxid: zxid(43) }, &mut effects);
        assert_eq!(effects, [Effect::Commit { through: zxid(43) }]);
        assert_eq!(node.committed(), zxid(43));

        // Late or repeated completions are no news.
        effects.clear();
        node.step(0, Event::Durable { epoch: Epoch(0), zxid: zxid(42) }, &mut effects);
        assert_eq!(effects, []);
    }

    /// Danger: the counter wraps into the epoch and order is lost (ZOOKEEPER-1277).
    #[test]
    fn alone_stops_at_the_end_of_its_epoch() {
        let mut node = Node::alone(zxid(u32::MAX - 1));
        let mut effects = Vec::new();
        assert_eq!(submit(&mut node, &mut effects), zxid(u32::MAX));
        assert_eq!(node.next_zxid(), None);
    }

    #[test]
    #[should_panic(expected = "submitted where")]
    fn a_gap_in_the_order_stops_the_server() {
        let mut node = Node::alone(zxid(1));
        node.step(0, Event::Submit { zxid: zxid(3), record: Bytes::new() }, &mut Vec::new());
    }

    #[test]
    #[should_panic(expected = "durable but only")]
    fn a_log_that_confirms_the_future_stops_the_server() {
        let mut node = Node::alone(zxid(1));
        node.step(0, Event::Durable { epoch: Epoch(0), zxid: zxid(2) }, &mut Vec::new());
    }
}
