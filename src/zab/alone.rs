//! Role Alone: a standalone server. Its quorum is its own disk, so a transaction commits when it is durable.

use crate::{Effect, tail::Tail};
use bytes::Bytes;
use zkfast_wire::Zxid;

/// State of a standalone server.
#[derive(Clone, Debug)]
pub(crate) struct Alone {
    tail: Tail,
    committed: Zxid,
}

impl Alone {
    /// A server whose recovered history ends at `last`. All of it counts as committed: with one server, what is on
    /// its disk is what a quorum has.
    pub(crate) const fn new(last: Zxid) -> Self {
        Self { tail: Tail::recovered(last), committed: last }
    }

    pub(crate) const fn tail(&self) -> &Tail {
        &self.tail
    }

    pub(crate) const fn committed(&self) -> Zxid {
        self.committed
    }

    pub(crate) fn submit(&mut self, zxid: Zxid, record: Bytes, effects: &mut Vec<Effect>) {
        assert!(
            self.tail.appended().next() == Some(zxid),
            "{zxid} submitted where {} was the last",
            self.tail.appended()
        );
        self.tail.append(zxid);
        effects.push(Effect::Append { zxid, record });
    }

    pub(crate) fn durable(&mut self, zxid: Zxid, effects: &mut Vec<Effect>) {
        assert!(zxid <= self.tail.appended(), "{zxid} durable but only {} appended", self.tail.appended());
        if self.tail.flushed(zxid) {
            self.committed = zxid;
            effects.push(Effect::Commit { through: zxid });
        }
    }

    pub(crate) fn check(&self) {
        assert!(self.committed <= self.tail.durable());
        assert!(self.tail.durable() <= self.tail.appended());
    }
}
