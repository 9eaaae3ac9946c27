//! The end of the log as the order sees it: three marks that only move together.
//!
//! `committed` is what may be applied, `durable` is what survives a crash, `appended` is what was handed to the log.
//! The marks are the whole knowledge; the records themselves are the log's.

use zkfast_wire::Zxid;

/// The marks of a log's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    appended: Zxid,
    durable: Zxid,
}

impl Tail {
    /// A log that was recovered from disk: what was read from there is durable.
    pub const fn recovered(last: Zxid) -> Self {
        Self { appended: last, durable: last }
    }

    /// The last record handed to the log.
    pub const fn appended(&self) -> Zxid {
        self.appended
    }

    /// The last record that survives a crash.
    pub const fn durable(&self) -> Zxid {
        self.durable
    }

    /// Notes a record on its way to the log.
    ///
    /// # Panics
    /// If `zxid` is neither the successor of the last one nor the start of a later epoch: a gap in the log would be
    /// handed on to other servers as if it were history (ZOOKEEPER-4925).
    pub fn append(&mut self, zxid: Zxid) {
        assert!(
            self.appended.next() == Some(zxid) || zxid.epoch() > self.appended.epoch(),
            "the log must not have a gap: {zxid} after {}",
            self.appended
        );
        self.appended = zxid;
    }

    /// Notes that a flush covered everything through `zxid`; returns whether that is news.
    ///
    /// # Panics
    /// If `zxid` was never appended: a log that confirms what it was not given cannot be trusted.
    pub fn flushed(&mut self, zxid: Zxid) -> bool {
        assert!(zxid <= self.appended, "{zxid} durable but only {} appended", self.appended);
        let news = zxid > self.durable;
        if news {
            self.durable = zxid;
        }
        news
    }
}
