//! What can happen to a server, as seen by the order. A closed list: each variant is counted by the driver.

use bytes::Bytes;
use zkfast_wire::{Epoch, Zxid};

/// Something that happened. The driver (the pipeline core, or the simulator) delivers events one at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Time has passed. Delivered at least every half tick; between ticks no deadline is looked at.
    Tick,
    /// A transaction that this server, as leader or alone, has prepared under [`Node::next_zxid`](crate::Node::next_zxid).
    Submit {
        /// Its place in the order: what `next_zxid` returned last.
        zxid: Zxid,
        /// `TxnHeader`, body and digest, encoded once; opaque here.
        record: Bytes,
    },
    /// The log tells that every record appended so far through `zxid` survives a loss of power.
    ///
    /// One event acknowledges a whole group commit. It may come late (`zxid` already known durable): then it is
    /// ignored.
    Durable {
        /// [`Node::epoch`](crate::Node::epoch) when the flush was started. A completion that belongs to another epoch is
        /// ignored, for its records may have been cut off since.
        epoch: Epoch,
        /// The last record that the flush covered.
        zxid: Zxid,
    },
}
