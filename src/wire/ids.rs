//! The numbers that must not be mistaken for one another.

use std::fmt;

/// Transaction id: epoch in the high 32 bits, counter in the low 32 (feature row S24).
///
/// Signed because Java compares it signed and peers send -1 for "none".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Zxid(pub i64);

impl Zxid {
    /// The state of an empty disk.
    pub const ZERO: Self = Self(0);

    /// The transaction `counter` of `epoch`.
    pub const fn new(epoch: Epoch, counter: u32) -> Self {
        Self((epoch.0 << 32) | counter as i64)
    }

    /// The epoch in the high 32 bits (arithmetic shift, as Java's `ZxidUtils` does).
    pub const fn epoch(self) -> Epoch {
        Epoch(self.0 >> 32)
    }

    /// The counter in the low 32 bits.
    pub const fn counter(self) -> u32 {
        self.0 as u32
    }

    /// The zxid after this one, or `None` where the counter would wrap into the epoch (ZOOKEEPER-1277).
    pub const fn next(self) -> Option<Self> {
        if self.counter() == u32::MAX { None } else { Some(Self(self.0 + 1)) }
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

impl fmt::Debug for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Number of a leader's reign; 0 on a standalone server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Epoch(pub i64);

impl Epoch {
    /// The last one that zxids have room for. Behind it they would be negative, and older than all others.
    pub const LAST: Self = Self(i32::MAX as i64);
}

/// Client session id. The top byte is the id of the server that made it (S1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub i64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Request number chosen by a client, echoed in its reply.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Xid(pub i32);

impl Xid {
    /// Watch event from the server (C19).
    pub const NOTIFICATION: Self = Self(-1);
    /// Ping and its reply (C20).
    pub const PING: Self = Self(-2);
    /// Authentication packet of the Java and C clients (C21).
    pub const AUTH: Self = Self(-4);
    /// setWatches of the Java and C clients (C22).
    pub const SET_WATCHES: Self = Self(-8);
}

/// `myid` of a server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct ServerId(pub i64);

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S24, S25: what follows the last counter is no zxid of this epoch (ZOOKEEPER-1277).
    #[test]
    fn zxid_never_wraps_into_the_epoch() {
        let last = Zxid::new(Epoch(3), u32::MAX);
        assert_eq!(last.next(), None);
        assert_eq!(Zxid::new(Epoch(3), 7).next(), Some(Zxid::new(Epoch(3), 8)));
        assert_eq!(last.epoch(), Epoch(3));
        assert_eq!(format!("{}", Zxid::new(Epoch(1), 2)), "0x100000002");
    }
}
