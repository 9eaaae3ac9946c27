//! How much a client core takes in (rows R5, R9): the way up to the pipeline with its bound, and the question whether
//! one more request of a connection may be taken.
//!
//! Nothing is dropped and no queue grows without a bound: what cannot be taken stays in its socket. A connection whose
//! frames are held back is asked again at the end of each turn.

use super::{connection::Connection, core::Core};
use crate::{
    config::limits,
    cores::{
        lanes::LaneSender,
        messages::{ConnectionId, Submission},
    },
};
use std::collections::VecDeque;
use zkfast_wire::RequestHeader;

const HEADER_BYTES: usize = RequestHeader::ENCODED_BYTES;

/// The lane to the pipeline, and what did not fit into it.
#[derive(Debug)]
pub struct Uplink {
    lane: LaneSender<Submission>,
    /// Not empty only while the lane is full; then no request is taken in, so this holds at most one request and
    /// what the server itself must say of the connections that exist: bounded by their number.
    backlog: VecDeque<Submission>,
    must_ring: bool,
    /// Sent since the lane was last rung.
    unrung: usize,
}

impl Uplink {
    /// Around a lane.
    pub fn new(lane: LaneSender<Submission>) -> Self {
        Self { lane, backlog: VecDeque::new(), must_ring: false, unrung: 0 }
    }

    /// Sends, or keeps until there is room.
    pub fn send(&mut self, submission: Submission) {
        if !self.backlog.is_empty() {
            return self.backlog.push_back(submission);
        }
        self.must_ring = true;
        if let Err(submission) = self.lane.push(submission) {
            self.backlog.push_back(submission);
        }
        self.unrung += 1;
        if self.unrung >= limits::SUBMITS_PER_RING {
            self.ring();
        }
    }

    /// Whether a request may be taken in.
    pub fn has_room(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Sends what was kept, as far as there is room.
    pub fn pump(&mut self) {
        while let Some(submission) = self.backlog.pop_front() {
            if let Err(submission) = self.lane.push(submission) {
                return self.backlog.push_front(submission);
            }
            self.must_ring = true;
        }
    }

    /// Wakes the pipeline if it sleeps and there is something new. At the end of a turn, and in a long one before.
    pub fn ring(&mut self) {
        self.unrung = 0;
        if std::mem::take(&mut self.must_ring) {
            self.lane.ring();
        }
    }
}

/// What a core holds of requests that are not answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Requests.
    pub requests: usize,
    /// Bytes of their bodies.
    pub bytes: usize,
}

impl Core {
    /// Whether one more request of `connection` may be taken in now.
    pub(super) fn may_take(&self, connection: &Connection) -> bool {
        if !self.uplink.has_room() || connection.output.unsent().len() >= limits::OUT_BUFFER_BYTES_PAUSE {
            return false;
        }
        // As with Apache's globalOutstandingLimit, a connection that waits for nothing may always ask (O40).
        let own = connection.outstanding.len();
        own == 0
            || own < limits::OUTSTANDING_PER_CONNECTION
                && self.load.requests < self.options.outstanding_limit
                && self.load.bytes < limits::OUTSTANDING_BYTES_PER_CORE
    }

    /// R2: whether a large request may be taken in beside those that are in the server.
    pub(super) fn has_room_for_large(&self, bytes: usize) -> bool {
        // Looked at by its body, as it is counted; the header makes no difference at these sizes.
        let max = self.options.large_requests_bytes_max;
        self.shared.take_large(bytes, max) && {
            self.shared.give_back_large(bytes);
            true
        }
    }

    /// Counts a request that begins to wait, if it is large.
    pub(super) fn take_large(&mut self, body_bytes: usize) {
        if body_bytes + HEADER_BYTES > self.options.large_request_bytes {
            self.shared.take_large(body_bytes, usize::MAX);
        }
    }

    /// Counts it out again.
    pub(super) fn give_back_large(&self, body_bytes: usize) {
        if body_bytes + HEADER_BYTES > self.options.large_request_bytes {
            self.shared.give_back_large(body_bytes);
        }
    }

    /// R2: closes, as Apache does.
    pub(super) fn refuse_large(&mut self, connection: &mut Connection, bytes: usize) {
        self.counters.large_requests_rejected.increment();
        self.counters.connections_dropped.increment();
        log::warn!(
            "Closing {}: a request of {bytes} bytes beside the large ones that are in the server would be more than \
             largeRequestMaxBytes.",
            connection.name()
        );
        connection.kill();
    }

    /// Remembers that input of `connection` waits.
    pub(super) fn hold(&mut self, connection: &mut Connection) {
        if !connection.is_held {
            connection.is_held = true;
            if connection.held_since_ns == 0 {
                connection.held_since_ns = self.now_ns;
            }
            self.held.push_back(connection.id);
        }
    }

    /// As [`Self::hold`], for a connection that has had the core for long enough. It does not wait for room, so it has
    /// not waited too long (R8).
    pub(super) fn hold_for_others(&mut self, connection: &mut Connection) {
        connection.held_since_ns = 0;
        self.hold(connection);
    }

    /// Takes in what was held back, where there is room now. Each held connection is looked at once.
    pub(super) fn release_held(&mut self) {
        for _ in 0..self.held.len() {
            let Some(id) = self.held.pop_front() else { return };
            let Some(mut connection) = self.connections.borrow(id) else { continue };
            connection.is_held = false;
            let held_ms = self.now_ns.saturating_sub(connection.held_since_ns) / 1_000_000;
            if self.options.drops_stale && held_ms > u64::from(connection.timeout_ms.unsigned_abs()) {
                self.drop_stale(&mut connection, held_ms);
                self.put_back(connection);
                continue;
            }
            connection.was_held_too_long = held_ms > self.options.throttled_wait_ms;
            // Reads that waited behind a write may have found the out-buffer full: nothing else answers them.
            self.advance(&mut connection);
            if !connection.is_held {
                self.go_on(&mut connection);
            }
            connection.was_held_too_long = false;
            if !connection.is_held {
                connection.held_since_ns = 0;
                self.rearm.push(id);
            }
            self.put_back(connection);
        }
    }

    /// R8: nobody waits for the answers any more. The connection goes with its requests, as in Apache, so that none of
    /// its later ones is done without the earlier.
    fn drop_stale(&self, connection: &mut Connection, held_ms: u64) {
        self.counters.stale_requests_dropped.increment();
        self.counters.connections_dropped.increment();
        log::warn!(
            "Closing {}: its requests were held back for {held_ms} ms, its timeout is {} ms \
             (request_stale_latency_check).",
            connection.name(),
            connection.timeout_ms
        );
        connection.kill();
    }

    /// Connections whose sockets may be read again.
    pub fn take_rearmed(&mut self, out: &mut Vec<ConnectionId>) {
        out.append(&mut self.rearm);
    }
}
