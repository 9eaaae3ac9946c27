//! The connections between the servers of an ensemble, in numbers: plain values, put together when somebody asks.

use std::net::SocketAddr;
use zkfast_wire::ServerId;

/// What went over one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Packets, or messages, received.
    pub packets_received: u64,
    /// Packets, or messages, handed to the queue.
    pub packets_sent: u64,
    /// Bytes received, those of an image not counted.
    pub bytes_received: u64,
    /// Bytes written to the socket.
    pub bytes_sent: u64,
}

/// One learner connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkFigures {
    /// Its number.
    pub link: u64,
    /// Who is at the other end, if it has said so.
    pub server: Option<ServerId>,
    /// Where the other end is.
    pub address: SocketAddr,
    /// Whether the other end is the leader that this server dialled.
    pub is_leader: bool,
    /// Milliseconds since it came up.
    pub up_ms: u64,
    /// What went over it.
    pub traffic: Traffic,
    /// Packets that wait to be written (`learner_handler_qp_size`).
    pub queued_packets: u64,
    /// Bytes that wait to be written.
    pub queued_bytes: u64,
    /// Whether history or an image is being sent.
    pub is_transferring: bool,
}

/// The election connection with one server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerFigures {
    /// Who.
    pub server: ServerId,
    /// Where it is connected.
    pub address: Option<SocketAddr>,
    /// Milliseconds since the connection came up; `None` if it is down.
    pub up_ms: Option<u64>,
    /// How often it came up.
    pub connects: u64,
    /// What went over all its connections.
    pub traffic: Traffic,
    /// Why it cannot be reached, if that was tried in vain.
    pub trouble: Option<String>,
}

/// Connections closed by this server, by reason, since start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkTroubles {
    /// Learners that let their queue overflow.
    pub overflows: u64,
    /// Bytes that are no packet, message or greeting, or a longer one than is due.
    pub garbage: u64,
    /// Callers refused because there were too many.
    pub refused: u64,
    /// Callers on the election port that did not say who they are in time.
    pub silent: u64,
    /// History or images that could not be read, here or there.
    pub failed_transfers: u64,
}

/// All connections between this server and others.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LinksFigures {
    /// Learner connections, oldest first.
    pub links: Vec<LinkFigures>,
    /// Election connections, by server.
    pub peers: Vec<PeerFigures>,
    /// What went wrong.
    pub troubles: LinkTroubles,
}
