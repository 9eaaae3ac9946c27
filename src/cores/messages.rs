//! What the cores say to one another: the only place where the pipeline and the client cores meet.
//!
//! A client core sends [`Submission`]s up its lane; the pipeline answers with [`Delivery`]s down each core's lane.
//! Both lanes keep their order, and that order is what makes session order and "watch before data" hold: a
//! client core does what it is told in the order in which it is told.

use crate::status::gather::Gather;
use bytes::Bytes;
use std::sync::Arc;
use zkfast_tree::{Answer, Changes, Reader};
use zkfast_wire::{ErrorCode, Id, OpCode, SessionId, Xid, Zxid};

/// Which connection: a slot of a client core's table, and the how-many-eth use of that slot, so that an answer that
/// comes late cannot reach a stranger.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnectionId {
    /// Index of the client core, from 0.
    pub core: u16,
    /// Slot in that core's connection table.
    pub slot: u32,
    /// Number of earlier uses of that slot (wrapping).
    pub generation: u32,
}

/// Who asked, and under which number the reply must go out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asker {
    /// Where the reply goes.
    pub connection: ConnectionId,
    /// The request's xid.
    pub xid: Xid,
}

/// From a client core to the pipeline.
#[derive(Debug)]
pub enum Submission {
    /// A client without a session: make one (C8). Answered by a step whose answer is `Answer::SessionCreated`; the
    /// header's session (in the step's `opened_session`) is the new id.
    OpenSession {
        /// Asking connection.
        connection: ConnectionId,
        /// Negotiated timeout, milliseconds.
        timeout_ms: i32,
    },
    /// A client that names its session (C9). Answered by [`Delivery::Resumed`] or [`Delivery::Refused`].
    ResumeSession {
        /// Asking connection.
        connection: ConnectionId,
        /// The session that it claims.
        session: SessionId,
        /// The password that it shows; the edge refuses any other length than 16 itself.
        password: [u8; 16],
        /// Re-negotiated timeout, milliseconds.
        timeout_ms: i32,
    },
    /// A request that becomes a transaction. Answered by a step, whatever its outcome.
    Write(Write),
    /// `sync`: answered by [`Delivery::Synced`] behind everything proposed before it (S23).
    Sync {
        /// Who asks.
        asker: Asker,
        /// On behalf of which session.
        session: SessionId,
    },
    /// `getEphemerals` (OP25): answered by [`Delivery::Ephemerals`].
    GetEphemerals {
        /// Who asks.
        asker: Asker,
        /// Whose nodes.
        session: SessionId,
        /// Plain string prefix; empty for all.
        prefix: Box<str>,
    },
    /// Sessions that sent a packet since the last touch of this core (S5).
    Touch(Vec<Touched>),
    /// The connection is gone without closing its session: the session lives on until it expires (R13).
    Gone {
        /// The closed connection.
        connection: ConnectionId,
        /// Its session.
        session: SessionId,
        /// Its last packet, if it came behind the last touch of this core.
        heard: Option<Touched>,
    },
    /// A four-letter word needs rows from every core: pass it round.
    Gather(Arc<Gather>),
    /// The last core has added its rows.
    Gathered(Arc<Gather>),
    /// The core has closed its clients' connections, as [`Delivery::StopServing`] told it: what comes behind this was
    /// asked afterwards.
    Quiet,
}

/// A request that becomes a transaction.
#[derive(Clone, Debug)]
pub struct Write {
    /// Who asks.
    pub asker: Asker,
    /// On behalf of which session.
    pub session: SessionId,
    /// Kind of request; `OpCode::is_write` holds.
    pub op: OpCode,
    /// The request's body, behind its header, still encoded.
    pub body: Bytes,
    /// Identities of the connection when the request was read (G16).
    pub identities: Arc<[Id<'static>]>,
}

/// A session that was heard of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Touched {
    /// Over which connection: what comes over one that the session has left says nothing of its timeout any more.
    pub connection: ConnectionId,
    /// Which.
    pub session: SessionId,
    /// Timeout of that connection, milliseconds.
    pub timeout_ms: i32,
    /// When its last packet came, milliseconds of the server's monotonic clock.
    pub at_ms: u64,
}

/// From the pipeline to a client core.
#[derive(Debug)]
pub enum Delivery {
    /// Transactions that have been committed and applied, in zxid order. Every core gets the same allocation.
    Batch(Arc<CommitBatch>),
    /// The session is alive and the password right.
    Resumed {
        /// Asking connection.
        connection: ConnectionId,
        /// The session.
        session: SessionId,
        /// Its timeout, milliseconds.
        timeout_ms: i32,
    },
    /// The session cannot be resumed (C10).
    Refused {
        /// Asking connection.
        connection: ConnectionId,
    },
    /// `sync` is answered.
    Synced {
        /// Who asked.
        asker: Asker,
    },
    /// `getEphemerals` is answered.
    Ephemerals {
        /// Who asked.
        asker: Asker,
        /// The paths.
        paths: Arc<[Box<str>]>,
    },
    /// A write that could not become a transaction (the log's disk is full): answer it with this code.
    Failed {
        /// Who asked.
        asker: Asker,
        /// The reply's code.
        code: ErrorCode,
    },
    /// Close this connection without a reply.
    Close {
        /// Which.
        connection: ConnectionId,
        /// Why, for the log line and the counters.
        reason: CloseReason,
    },
    /// A member of an ensemble serves clients from here on, reading through this.
    Serve(Box<Reader>),
    /// It has no leader, and serves reads to clients that ask for no more (S16), through this.
    ServeReadOnly(Box<Reader>),
    /// This server is read-only and makes no sessions: say so with -119 in place of a session (S16).
    NotReadOnly {
        /// Asking connection.
        connection: ConnectionId,
    },
    /// A local session has ended, as its client asked (S15).
    LocalClosed {
        /// Who asked.
        asker: Asker,
        /// The session.
        session: SessionId,
    },
    /// It serves nobody any more: close the clients' connections, refuse new ones, and answer [`Submission::Quiet`].
    StopServing,
    /// Nobody is served and the state moved on: move the view along, so that old versions can go.
    View(Zxid),
    /// Nobody is served and the tree was replaced by another one: read through this.
    Tree(Box<Reader>),
    /// Add your rows.
    Gather(Arc<Gather>),
    /// Your four-letter word has all its rows.
    Gathered(Arc<Gather>),
    /// The server stops: close the listeners and the connections, then end.
    Stop,
}

/// Why the pipeline wants a connection closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// The same session came in on another connection (C12).
    SessionMoved,
    /// The session cannot be made, because the log's disk is full.
    NoSpace,
    /// A session of the whole ensemble, and this server is read-only (S16).
    ReadOnly,
    /// A session that only this server knew has expired (S15).
    LocalExpired,
    /// The leader passed over what it asked, and has ordered later requests.
    PassedOver,
}

/// Transactions committed together.
#[derive(Debug)]
pub struct CommitBatch {
    /// In zxid order, never empty.
    pub steps: Vec<Step>,
}

impl CommitBatch {
    /// The view that a core has when it has walked the whole batch.
    ///
    /// # Panics
    /// If the batch is empty, which the pipeline never sends.
    pub fn through(&self) -> Zxid {
        self.steps.last().expect("a commit batch is never empty").zxid
    }
}

/// One transaction, as a client core must live through it: the events of `changes`, then `answer`, then the reads
/// that waited for it, at view `zxid`.
#[derive(Debug)]
pub struct Step {
    /// Place in the order.
    pub zxid: Zxid,
    /// What changed, for the watches.
    pub changes: Changes,
    /// The answer for the connection that asked, if it came from a client of this server.
    pub answer: Option<(Asker, Answer)>,
    /// The session that this transaction made, if any.
    pub opened_session: Option<SessionId>,
    /// The session that this transaction ended, if any: its connection closes after the answer.
    pub closed_session: Option<SessionId>,
}
