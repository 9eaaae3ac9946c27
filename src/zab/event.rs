//! What can happen to a server, as seen by the order. A closed list: each variant is counted by the driver.

use crate::effect::{EpochFile, Trouble};
use bytes::Bytes;
use zkfast_wire::{Epoch, Notification, Packet, ServerId, SessionId, Zxid, quorum::ForwardedRequest};

/// A connection of the quorum port, numbered by the driver; a number is never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// Something that happened. The driver (the pipeline core, or the simulator) delivers events one at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Time has passed. Delivered at least every [`Node::tick_every_ms`](crate::Node::tick_every_ms).
    Tick,

    // The server's own clients and disk.
    /// A transaction that this server, as leader or alone, has prepared under
    /// [`Node::next_zxid`](crate::Node::next_zxid).
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
        /// [`Node::epoch`](crate::Node::epoch) when the flush was started.
        epoch: Epoch,
        /// The last record that the flush covered.
        zxid: Zxid,
    },
    /// An epoch file is on disk: written, synced, renamed, directory synced.
    EpochSaved {
        /// Which file.
        file: EpochFile,
        /// Its content.
        epoch: Epoch,
    },
    /// The log ends at `zxid` now, all of it is durable, and the tree shows no later transaction.
    Truncated {
        /// The last record that is left.
        zxid: Zxid,
    },
    /// The image that followed SNAP is on disk and is the tree now.
    Installed {
        /// Its zxid.
        zxid: Zxid,
    },
    /// To send the records above `floor` is cheaper than to send an image (`snapshotSizeFactor`, Q49). Before the first
    /// word of it only the number of the missing records decides.
    Cheaper {
        /// Whose last record lies below is sent an image, unless it misses only few.
        floor: Zxid,
    },
    /// Records through `floor` are no longer in the log.
    Purged {
        /// The last record that is gone.
        floor: Zxid,
    },

    // Learner links.
    /// A connection of the quorum port is up.
    Up {
        /// Its number.
        link: LinkId,
        /// Whom this server dialled; `None` where the other side did.
        dialled: Option<ServerId>,
    },
    /// A connection is gone, whoever closed it. Nothing more comes from it.
    Down {
        /// Its number.
        link: LinkId,
    },
    /// The leader's quorum port could not be reached.
    DialFailed {
        /// Who was dialled.
        leader: ServerId,
    },
    /// A packet of a learner link.
    Packet {
        /// Where it came from.
        link: LinkId,
        /// What it says.
        packet: Packet,
    },
    /// What [`SendHistory`](crate::Effect::SendHistory) or [`SendSnapshot`](crate::Effect::SendSnapshot) asked for
    /// has left for the socket.
    Transferred {
        /// On which link.
        link: LinkId,
        /// The last transaction of it.
        through: Zxid,
    },

    // Election links.
    /// The election connection with this server is up.
    PeerUp {
        /// Who.
        peer: ServerId,
    },
    /// It is gone.
    PeerDown {
        /// Who.
        peer: ServerId,
    },
    /// A message of the election port.
    Notification {
        /// Who sent it.
        from: ServerId,
        /// What it says.
        notification: Notification,
    },

    // Plumbing between clients and the leader.
    /// On a learner: a client's write, sync, createSession or closeSession, for the leader.
    Forward {
        /// The request.
        request: Box<ForwardedRequest>,
    },
    /// On a learner: a client came back with this session; is it alive?
    Revalidate {
        /// The session.
        session: SessionId,
        /// The timeout it asks for.
        timeout_ms: i32,
    },
    /// On the leader: the answer to [`RevalidateAsked`](crate::Effect::RevalidateAsked).
    RevalidateAnswer {
        /// Who asked.
        link: LinkId,
        /// The session.
        session: SessionId,
        /// Whether it lives.
        valid: bool,
    },
    /// On the leader: the others can do better than this server, and shall. It steps down if they are a quorum without it, and
    /// keeps out of the next election.
    GiveUp {
        /// Why.
        because: Trouble,
    },
    /// On the leader: a learner's sync has come to the head of that learner's forwarded requests.
    Sync {
        /// Who asked.
        link: LinkId,
    },
}
