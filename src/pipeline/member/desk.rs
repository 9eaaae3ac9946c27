//! Who waits for the leader's word: on a learner, the requests of its own clients that are under way (rows Q45, S10,
//! S11, S23); on a leader, the requests of its learners that are not ordered yet, and through whom each session speaks
//! (S12).

use crate::cores::messages::{Asker, ConnectionId};
use std::collections::{HashMap, VecDeque};
use zkfast_wire::{SessionId, TxnHeader, quorum::ForwardedRequest};
use zkfast_zab::LinkId;

/// A forwarded request that becomes a transaction.
#[derive(Clone, Copy, Debug)]
struct Forwarded {
    session: SessionId,
    cxid: i32,
    asker: Asker,
    bytes: usize,
}

/// What must not be answered before the writes ahead of it.
#[derive(Debug)]
pub(super) struct List {
    /// Requests forwarded before it.
    behind: u64,
    pub(super) asker: Asker,
    pub(super) session: SessionId,
    pub(super) what: Listed,
}

/// What a client asks that this server answers by itself, in its turn.
#[derive(Debug)]
pub(super) enum Listed {
    /// getEphemerals with this prefix.
    Ephemerals(Box<str>),
    /// The end of a local session (S15).
    LocalClosed,
}

/// What a learner's clients wait for.
#[derive(Debug, Default)]
pub(super) struct LearnerDesk {
    /// In the order in which the leader gets and orders them.
    forwarded: VecDeque<Forwarded>,
    forwarded_bytes: usize,
    forwarded_count: u64,
    answered_count: u64,
    lists: VecDeque<List>,
    syncs: VecDeque<Asker>,
    revalidations: HashMap<SessionId, VecDeque<(ConnectionId, i32)>>,
    touched: HashMap<SessionId, i32>,
}

impl LearnerDesk {
    /// Notes a request that is on its way to the leader.
    pub(super) fn forward(&mut self, session: SessionId, cxid: i32, asker: Asker, bytes: usize) {
        self.forwarded.push_back(Forwarded { session, cxid, asker, bytes });
        self.forwarded_bytes += bytes;
        self.forwarded_count += 1;
    }

    /// Requests under way, and bytes of their bodies.
    pub(super) fn load(&self) -> (usize, usize) {
        (self.forwarded.len() + self.syncs.len(), self.forwarded_bytes)
    }

    /// Who asked for this transaction, if a client of this server did. The leader orders a learner's requests as they
    /// come and each becomes one transaction (Q45), so it can only be the oldest.
    pub(super) fn claim(&mut self, header: &TxnHeader) -> Option<Asker> {
        let is_it = |oldest: &mut Forwarded| oldest.session == header.session && oldest.cxid == header.cxid;
        let claimed = self.forwarded.pop_front_if(is_it)?;
        self.forwarded_bytes -= claimed.bytes;
        self.answered_count += 1;
        Some(claimed.asker)
    }

    pub(super) fn list(&mut self, asker: Asker, session: SessionId, what: Listed) {
        self.lists.push_back(List { behind: self.forwarded_count, asker, session, what });
    }

    /// A list for which nothing has to be waited any more.
    pub(super) fn ready_list(&mut self) -> Option<List> {
        self.lists.pop_front_if(|list| list.behind <= self.answered_count)
    }

    /// Whether [`ready_list`](Self::ready_list) has one.
    pub(super) fn has_ready_list(&self) -> bool {
        self.lists.front().is_some_and(|list| list.behind <= self.answered_count)
    }

    pub(super) fn sync(&mut self, asker: Asker) {
        self.syncs.push_back(asker);
    }

    /// The oldest sync is complete (Q36).
    pub(super) fn synced(&mut self) -> Option<Asker> {
        self.syncs.pop_front()
    }

    pub(super) fn revalidate(&mut self, session: SessionId, connection: ConnectionId, timeout_ms: i32) {
        self.revalidations.entry(session).or_default().push_back((connection, timeout_ms));
    }

    /// The connection that first asked for this session, with the timeout it asked for.
    pub(super) fn revalidated(&mut self, session: SessionId) -> Option<(ConnectionId, i32)> {
        let waiting = self.revalidations.get_mut(&session)?;
        let first = waiting.pop_front();
        if waiting.is_empty() {
            self.revalidations.remove(&session);
        }
        first
    }

    pub(super) fn touch(&mut self, session: SessionId, timeout_ms: i32) {
        self.touched.insert(session, timeout_ms);
    }

    /// At most `max` of the sessions that were heard of; the others are told with the next PING.
    pub(super) fn take_touched(&mut self, max: usize) -> Vec<(SessionId, i32)> {
        if self.touched.len() <= max {
            return self.touched.drain().collect();
        }
        let taken: Vec<_> =
            self.touched.iter().take(max).map(|(session, timeout)| (*session, *timeout)).collect();
        for (session, _) in &taken {
            self.touched.remove(session);
        }
        taken
    }
}

/// Through whom a session speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// A connection of this server's own.
    Here,
    /// A learner.
    Learner(LinkId),
}

/// What a leader knows of its learners' clients.
#[derive(Debug, Default)]
pub(super) struct LeaderDesk {
    /// Not ordered yet, oldest first.
    pub(super) requests: VecDeque<(LinkId, Box<ForwardedRequest>)>,
    pub(super) request_bytes: usize,
    owners: HashMap<SessionId, Owner>,
}

impl LeaderDesk {
    pub(super) fn push(&mut self, link: LinkId, request: Box<ForwardedRequest>) {
        self.request_bytes += request.body.len();
        self.requests.push_back((link, request));
    }

    pub(super) fn pop(&mut self) -> Option<(LinkId, Box<ForwardedRequest>)> {
        let (link, request) = self.requests.pop_front()?;
        self.request_bytes -= request.body.len();
        Some((link, request))
    }

    /// What a lost learner's clients asked and what was not ordered yet is dropped: they were told of the loss.
    pub(super) fn forget(&mut self, link: LinkId) {
        self.requests.retain(|(from, _)| *from != link);
        self.request_bytes = self.requests.iter().map(|(_, request)| request.body.len()).sum();
    }

    /// From now on the session speaks through `owner`: it was made or revalidated there.
    pub(super) fn own(&mut self, session: SessionId, owner: Owner) {
        self.owners.insert(session, owner);
    }

    /// Whether `owner` may speak for the session; who speaks first, of a session that nobody spoke for in this reign,
    /// owns it (`SessionTrackerImpl.checkSession`).
    pub(super) fn may_speak(&mut self, session: SessionId, owner: Owner) -> bool {
        *self.owners.entry(session).or_insert(owner) == owner
    }

    pub(super) fn closed(&mut self, session: SessionId) {
        self.owners.remove(&session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zkfast_wire::{OpCode, Xid, Zxid};

    fn asker(slot: u32, xid: i32) -> Asker {
        Asker { connection: ConnectionId { core: 0, slot, generation: 0 }, xid: Xid(xid) }
    }

    fn header(session: i64, cxid: i32) -> TxnHeader {
        TxnHeader { session: SessionId(session), cxid, zxid: Zxid(9), time_ms: 0, kind: OpCode::Create }
    }

    /// Danger: a client is told of somebody else's transaction, or never of its own (Q45).
    #[test]
    fn a_transaction_belongs_to_the_oldest_request_or_to_nobody_here() {
        let mut desk = LearnerDesk::default();
        desk.forward(SessionId(1), 7, asker(1, 7), 10);
        desk.forward(SessionId(2), 7, asker(2, 7), 20);
        desk.list(asker(2, 8), SessionId(2), Listed::LocalClosed);
        assert_eq!(desk.claim(&header(2, 7)), None, "not the oldest");
        assert_eq!(desk.claim(&header(1, 6)), None, "another request of the session, through another server");
        assert_eq!(desk.claim(&header(1, 7)), Some(asker(1, 7)));
        assert!(!desk.has_ready_list());
        assert_eq!(desk.claim(&header(2, 7)), Some(asker(2, 7)));
        assert_eq!(desk.load(), (0, 0));
        assert_eq!(desk.ready_list().map(|list| list.asker), Some(asker(2, 8)));
    }

    /// S12: a session that moved must not be spoken for through the server that it left.
    #[test]
    fn a_session_speaks_through_one_server() {
        let mut desk = LeaderDesk::default();
        let (a, b) = (Owner::Learner(LinkId(1)), Owner::Learner(LinkId(2)));
        assert!(desk.may_speak(SessionId(1), a), "nobody spoke before");
        assert!(!desk.may_speak(SessionId(1), b));
        desk.own(SessionId(1), b);
        assert!(desk.may_speak(SessionId(1), b) && !desk.may_speak(SessionId(1), Owner::Here));
        desk.closed(SessionId(1));
        assert!(desk.may_speak(SessionId(1), Owner::Here));
    }
}
