//! The requests of one connection that have not been answered, oldest first (rows C18, S18).
//!
//! A reply leaves only from the head. What stands behind an unanswered request waits, reads included, so a read sees
//! what the write before it did. An answer that comes for a request behind the head (a write behind a `sync` that the
//! pipeline still holds back) is kept here until its turn.

use bytes::Bytes;
use std::{collections::VecDeque, sync::Arc};
use zkfast_tree::Answer;
use zkfast_wire::{Id, OpCode, Xid};

/// A request that waits.
#[derive(Debug)]
pub struct Waiting {
    /// Its number.
    pub xid: Xid,
    /// When its frame was read, nanoseconds of the server's monotonic clock.
    pub read_at_ns: u64,
    /// Bytes of its body, for the bound on what one core holds.
    pub body_bytes: u32,
    /// For what it waits.
    pub what: What,
}

/// For what a request waits.
#[derive(Debug)]
pub enum What {
    /// The pipeline's answer to a write.
    Write(OpCode),
    /// The pipeline's word that everything proposed before is applied; the path goes into the reply.
    Sync(Bytes),
    /// The pipeline's list of ephemeral nodes.
    Ephemerals,
    /// Its turn: an operation that this core answers itself, with its body.
    Local(OpCode, Bytes),
    /// The same, with the identities that its connection had when it came: others have been proved since (G16).
    LocalAs(Box<(OpCode, Bytes, Arc<[Id<'static>]>)>),
    /// Its turn, to be told that it was held back for too long and was not done (R8).
    Throttled,
    /// Its turn, to be refused, whereupon the connection closes (C25).
    Refusal,
    /// Its turn: the answer is here.
    Answered(Outcome),
}

/// An answer of the pipeline that had to be kept.
#[derive(Debug)]
pub enum Outcome {
    /// To a write.
    Write(OpCode, Answer),
    /// To a `sync`.
    Synced(Bytes),
    /// To a `getEphemerals`.
    Ephemerals(Arc<[Box<str>]>),
}

/// What the pipeline has answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// A write.
    Write,
    /// A `sync`.
    Sync,
    /// A `getEphemerals`.
    Ephemerals,
}

impl What {
    fn is(&self, asked: Asked) -> bool {
        match self {
            Self::Write(_) => asked == Asked::Write,
            Self::Sync(_) => asked == Asked::Sync,
            Self::Ephemerals => asked == Asked::Ephemerals,
            Self::Local(..) | Self::LocalAs(_) | Self::Throttled | Self::Refusal | Self::Answered(_) => false,
        }
    }
}

fn kept_bytes_of(what: &What) -> usize {
    match what {
        What::Answered(Outcome::Ephemerals(paths)) => {
            paths.iter().map(|path| path.len() + size_of::<Box<str>>()).sum()
        }
        _ => 0,
    }
}

/// The queue.
#[derive(Debug, Default)]
pub struct Outstanding {
    queue: VecDeque<Waiting>,
    kept_bytes: usize,
}

impl Outstanding {
    /// Capacity that an empty queue may keep: idle sessions shall be small.
    const SLOTS_IDLE_MAX: usize = 4;

    /// Adds the newest request.
    pub fn push(&mut self, waiting: Waiting) {
        self.queue.push_back(waiting);
    }

    /// Number of unanswered requests.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether every request has been answered.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The request that may be answered next.
    pub fn head(&self) -> Option<&Waiting> {
        self.queue.front()
    }

    /// Takes the head out, to answer it now.
    pub fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.queue.pop_front()?;
        self.kept_bytes -= kept_bytes_of(&waiting.what);
        Some(waiting)
    }

    /// The place of the oldest request that waits for an answer such as `asked`, and whether it has this xid; the
    /// pipeline answers the requests of a connection in the order in which it got them.
    pub fn find(&self, asked: Asked, xid: Xid) -> Option<usize> {
        let position = self.queue.iter().position(|waiting| waiting.what.is(asked))?;
        assert_eq!(self.queue[position].xid, xid, "the pipeline answered out of order");
        Some(position)
    }

    /// The connection's identities are about to change: what waits keeps those that it came with.
    pub fn keep_identities(&mut self, identities: &Arc<[Id<'static>]>) {
        for waiting in &mut self.queue {
            if let What::Local(op, body) = &mut waiting.what {
                let kept = (*op, std::mem::take(body), identities.clone());
                waiting.what = What::LocalAs(Box::new(kept));
            }
        }
    }

    /// Whether a write waits for the pipeline.
    pub fn has_write(&self) -> bool {
        self.queue.iter().any(|waiting| matches!(waiting.what, What::Write(_) | What::Answered(_)))
    }

    /// The request at `position` has its answer, made of what it waited for; it is kept until its turn.
    pub fn keep(&mut self, position: usize, outcome: impl FnOnce(What) -> Outcome) {
        let waiting = &mut self.queue[position];
        let what = std::mem::replace(&mut waiting.what, What::Refusal);
        waiting.what = What::Answered(outcome(what));
        self.kept_bytes += kept_bytes_of(&waiting.what);
    }

    /// Bytes of kept answers that may be longer than what was asked.
    pub fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// All that wait, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.queue.iter()
    }

    /// Gives memory back once nothing waits.
    pub fn shrink(&mut self) {
        if self.queue.is_empty() && self.queue.capacity() > Self::SLOTS_IDLE_MAX {
            self.queue = VecDeque::new();
        }
    }
}
