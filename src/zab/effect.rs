//! What the order asks of its driver. The driver carries effects out in the order of the list, and decides nothing.

use bytes::Bytes;
use zkfast_wire::Zxid;

/// Something that must be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// Append this record to the log; answer with [`Event::Durable`](crate::Event::Durable) once a flush covered it.
    Append {
        /// Its place in the order, always above everything appended before.
        zxid: Zxid,
        /// The bytes to log.
        record: Bytes,
    },
    /// Every transaction through this one is committed: apply, in order, what is not applied yet.
    Commit {
        /// The last committed transaction; everything appended through it is committed with it.
        through: Zxid,
    },
}
