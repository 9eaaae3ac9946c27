//! Who waits for the leader's word: on a learner, the requests of its own clients that are under way (rows Q45, S10,
//! S11, S23); on a leader, the requests of its learners that are not ordered yet, and through whom each session speaks
//! (S12).

use crate::cores::messages::{Asker, ConnectionId, Write};
use bytes::{BufMut, BytesMut};
use std::collections::{HashMap, VecDeque};
use zkfast_wire::{OpCode, SessionId, TxnHeader, Xid, jute, quorum::ForwardedRequest};
use zkfast_zab::LinkId;

/// What a client of this server asked and the leader makes a transaction of. It is kept until that is applied: at the end
/// of an epoch it may have to be asked again (S25).
#[derive(Clone, Debug)]
pub(super) enum Asked {
    /// A write.
    Write(Write),
    /// A new session, by the id that this server gave it.
    Open { session: SessionId, connection: ConnectionId, timeout_ms: i32 },
    /// A local session becomes one of the ensemble (S15): nobody waits for that.
    Upgrade { session: SessionId, timeout_ms: i32 },
}

impl Asked {
    fn session(&self) -> SessionId {
        match self {
            Self::Write(write) => write.session,
            Self::Open { session, .. } | Self::Upgrade { session, .. } => *session,
        }
    }

    fn cxid(&self) -> i32 {
        match self {
            Self::Write(write) => write.asker.xid.0,
            Self::Open { .. } | Self::Upgrade { .. } => 0,
        }
    }

    /// Whether the transaction came of this.
    fn became(&self, header: &TxnHeader) -> bool {
        let is_kind = match self {
            Self::Write(_) => true,
            // The end of a session has no request number either, if the leader ends it.
            Self::Open { .. } | Self::Upgrade { .. } => {
                matches!(header.kind, OpCode::CreateSession | OpCode::Error)
            }
        };
        is_kind && self.session() == header.session && self.cxid() == header.cxid
    }

    fn asker(&self) -> Option<Asker> {
        match self {
            Self::Write(write) => Some(write.asker),
            Self::Open { connection, .. } => Some(Asker { connection: *connection, xid: Xid(0) }),
            Self::Upgrade { .. } => None,
        }
    }

    fn body_bytes(&self) -> usize {
        match self {
            Self::Write(write) => write.body.len(),
            Self::Open { .. } | Self::Upgrade { .. } => 4,
        }
    }

    /// As the leader gets it.
    pub(super) fn to_request(&self) -> Box<ForwardedRequest> {
        let (session, cxid) = (self.session(), self.cxid());
        Box::new(match self {
            Self::Write(write) => ForwardedRequest {
                session,
                cxid,
                op: write.op.to_i32(),
                body: write.body.clone(),
                identities: write.identities.to_vec(),
            },
            Self::Open { timeout_ms, .. } | Self::Upgrade { timeout_ms, .. } => {
                let mut body = BytesMut::with_capacity(4);
                body.put_i32(*timeout_ms);
                let op = OpCode::CreateSession.to_i32();
                ForwardedRequest { session, cxid, op, body: body.freeze(), identities: Vec::new() }
            }
        })
    }
}

/// Who hears of a transaction that one of this server's clients asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Claim {
    /// Nobody waits for it.
    Nobody,
    /// It is the answer.
    Answer(Asker),
    /// The leader made no session (its disk is full): no answer says so but the end of the connection.
    NotOpened(ConnectionId),
}

/// A sync of a client of this server.
#[derive(Clone, Copy, Debug)]
pub(super) struct AskedSync {
    /// Requests forwarded before it.
    behind: u64,
    pub(super) asker: Asker,
    pub(super) session: SessionId,
}

impl AskedSync {
    /// As the leader gets it; it never reads the path.
    pub(super) fn to_request(self) -> Box<ForwardedRequest> {
        let mut body = BytesMut::with_capacity(8);
        jute::put_text(&mut body, "/");
        Box::new(ForwardedRequest {
            session: self.session,
            cxid: self.asker.xid.0,
            op: ForwardedRequest::SYNC,
            body: body.freeze(),
            identities: Vec::new(),
        })
    }
}

/// What was asked and not answered, in the order in which it was asked.
#[derive(Debug)]
pub(super) enum Unanswered {
    Request(Asked),
    Sync(AskedSync),
    List(List),
    /// A client came back with its session, and the password was right.
    Resume {
        session: SessionId,
        connection: ConnectionId,
        timeout_ms: i32,
    },
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
    /// A request that cannot be read.
    Unreadable,
}

/// What a learner's clients wait for.
#[derive(Debug, Default)]
pub(super) struct LearnerDesk {
    /// In the order in which the leader gets and orders them.
    forwarded: VecDeque<Asked>,
    forwarded_bytes: usize,
    forwarded_count: u64,
    answered_count: u64,
    lists: VecDeque<List>,
    syncs: VecDeque<AskedSync>,
    revalidations: HashMap<SessionId, VecDeque<(ConnectionId, i32)>>,
    touched: HashMap<SessionId, i32>,
}

impl LearnerDesk {
    /// Notes a request that is on its way to the leader.
    pub(super) fn forward(&mut self, asked: Asked) {
        self.forwarded_bytes += asked.body_bytes();
        self.forwarded_count += 1;
        self.forwarded.push_back(asked);
    }

    /// Requests under way, and bytes of their bodies.
    pub(super) fn load(&self) -> (usize, usize) {
        (self.forwarded.len() + self.syncs.len(), self.forwarded_bytes)
    }

    /// Takes the oldest request, if the transaction came of it. The leader orders a learner's requests as they come and each
    /// becomes one transaction (Q45).
    pub(super) fn claim(&mut self, header: &TxnHeader) -> Option<Claim> {
        let claimed = self.forwarded.pop_front_if(|oldest| oldest.became(header))?;
        Some(self.claimed(&claimed, header))
    }

    /// Takes a younger request, if the transaction came of that. What was asked before it will not become a transaction
    /// any more: those who wait for it are returned too.
    ///
    /// Apache's leader drops a request that it stumbles over (a multi without a path, for one): to go on waiting for it
    /// would be to answer nobody ever after.
    pub(super) fn claim_later(&mut self, header: &TxnHeader) -> Option<(Vec<Asker>, Claim)> {
        let place = self.forwarded.iter().position(|asked| asked.became(header))?;
        let passed_over: Vec<Asked> = self.forwarded.drain(..place).collect();
        passed_over.iter().for_each(|asked| _ = self.claimed(asked, header));
        let claimed = self.forwarded.pop_front().expect("found above");
        let askers = passed_over.iter().filter_map(Asked::asker).collect();
        Some((askers, self.claimed(&claimed, header)))
    }

    fn claimed(&mut self, asked: &Asked, header: &TxnHeader) -> Claim {
        self.forwarded_bytes -= asked.body_bytes();
        self.answered_count += 1;
        match asked {
            Asked::Open { connection, .. } if header.kind == OpCode::Error => Claim::NotOpened(*connection),
            _ => asked.asker().map_or(Claim::Nobody, Claim::Answer),
        }
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

    /// Notes a sync that is on its way to the leader.
    pub(super) fn sync(&mut self, asker: Asker, session: SessionId) -> AskedSync {
        let sync = AskedSync { behind: self.forwarded_count, asker, session };
        self.syncs.push_back(sync);
        sync
    }

    /// The oldest sync is complete (Q36).
    pub(super) fn synced(&mut self) -> Option<Asker> {
        self.syncs.pop_front().map(|sync| sync.asker)
    }

    /// The oldest sync that was asked before the request that this transaction is, if it is the oldest one: the leader had
    /// answered it by then, and the answer did not come (S25).
    pub(super) fn synced_before(&mut self, header: &TxnHeader) -> Option<Asker> {
        let oldest = self.forwarded.front()?;
        let is_it = oldest.became(header);
        let answered = self.answered_count;
        self.syncs.pop_front_if(|sync| is_it && sync.behind <= answered).map(|sync| sync.asker)
    }

    /// What the leader has to be asked again: it is a new one, and nothing of this has become a transaction (S25).
    #[allow(clippy::vec_box, reason = "each becomes an event as it is")]
    pub(super) fn to_ask_again(&self) -> Vec<Box<ForwardedRequest>> {
        let mut syncs = self.syncs.iter().peekable();
        let mut requests = Vec::with_capacity(self.forwarded.len() + self.syncs.len());
        for (asked, number) in self.forwarded.iter().zip(self.answered_count..) {
            while let Some(sync) = syncs.next_if(|sync| sync.behind <= number) {
                requests.push(sync.to_request());
            }
            requests.push(asked.to_request());
        }
        requests.extend(syncs.map(|sync| sync.to_request()));
        requests
    }

    /// The same, and what hangs on it, for a server that has become the leader itself; nothing is left.
    pub(super) fn take_unanswered(&mut self) -> Vec<Unanswered> {
        let mut unanswered = Vec::with_capacity(self.forwarded.len() + self.syncs.len() + self.lists.len());
        for number in self.answered_count.. {
            while let Some(sync) = self.syncs.pop_front_if(|sync| sync.behind <= number) {
                unanswered.push(Unanswered::Sync(sync));
            }
            while let Some(list) = self.lists.pop_front_if(|list| list.behind <= number) {
                unanswered.push(Unanswered::List(list));
            }
            let Some(asked) = self.forwarded.pop_front() else { break };
            unanswered.push(Unanswered::Request(asked));
        }
        self.forwarded_bytes = 0;
        self.answered_count = self.forwarded_count;
        unanswered
    }

    /// The sessions whose clients came back and wait for the leader's word.
    pub(super) fn awaited_revalidations(&self) -> Vec<(SessionId, i32)> {
        let all = self.revalidations.iter();
        all.flat_map(|(session, waiting)| waiting.iter().map(|(_, timeout_ms)| (*session, *timeout_ms)))
            .collect()
    }

    /// The same with their connections, for a server that has become the leader itself; nothing is left.
    pub(super) fn take_revalidations(&mut self) -> Vec<Unanswered> {
        let all = self.revalidations.drain();
        all.flat_map(|(session, waiting)| {
            waiting.into_iter().map(move |(connection, timeout_ms)| Unanswered::Resume {
                session,
                connection,
                timeout_ms,
            })
        })
        .collect()
    }

    /// Forgets which sessions were heard of: this server leads, and gave all of them their full time.
    pub(super) fn forget_touched(&mut self) {
        self.touched.clear();
    }

    /// Notes a client that came back with a session. The leader hears of the new timeout: what was heard of the session
    /// with its old one is forgotten, or it would count again.
    pub(super) fn revalidate(&mut self, session: SessionId, connection: ConnectionId, timeout_ms: i32) {
        self.touched.remove(&session);
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

    /// A session was heard of, unless its client has come back and nobody knows yet what its timeout is.
    pub(super) fn touch(&mut self, session: SessionId, timeout_ms: i32) {
        if !self.revalidations.contains_key(&session) {
            self.touched.insert(session, timeout_ms);
        }
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

    /// Whether another one than `owner` is known to speak for the session.
    pub(super) fn is_elsewhere(&self, session: SessionId, owner: Owner) -> bool {
        self.owners.get(&session).is_some_and(|known| *known != owner)
    }

    pub(super) fn closed(&mut self, session: SessionId) {
        self.owners.remove(&session);
    }

    /// Sessions of which an owner is known.
    #[cfg(test)]
    pub(super) fn owners(&self) -> usize {
        self.owners.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zkfast_wire::Zxid;

    fn asker(slot: u32, xid: i32) -> Asker {
        Asker { connection: ConnectionId { core: 0, slot, generation: 0 }, xid: Xid(xid) }
    }

    fn header(session: i64, cxid: i32) -> TxnHeader {
        TxnHeader { session: SessionId(session), cxid, zxid: Zxid(9), time_ms: 0, kind: OpCode::Create }
    }

    fn write(session: i64, xid: i32, bytes: usize) -> Asked {
        Asked::Write(Write {
            asker: asker(session as u32, xid),
            session: SessionId(session),
            op: OpCode::Create,
            body: bytes::Bytes::from(vec![0; bytes]),
            identities: [].into(),
        })
    }

    /// Danger: a client is told of somebody else's transaction, or never of its own (Q45).
    #[test]
    fn a_transaction_belongs_to_the_oldest_request_or_to_nobody_here() {
        let mut desk = LearnerDesk::default();
        desk.forward(write(1, 7, 10));
        desk.forward(write(2, 7, 20));
        desk.list(asker(2, 8), SessionId(2), Listed::LocalClosed);
        assert_eq!(desk.claim(&header(2, 7)), None, "not the oldest");
        assert_eq!(desk.claim(&header(1, 6)), None, "another request of the session, through another server");
        assert_eq!(desk.claim(&header(1, 7)), Some(Claim::Answer(asker(1, 7))));
        assert!(!desk.has_ready_list());
        assert_eq!(desk.claim(&header(2, 7)), Some(Claim::Answer(asker(2, 7))));
        assert_eq!(desk.load(), (0, 0));
        assert_eq!(desk.ready_list().map(|list| list.asker), Some(asker(2, 8)));
    }

    /// Danger: the leader drops a request, and whoever asked anything behind it waits for ever.
    #[test]
    fn what_the_leader_passed_over_is_given_up() {
        let mut desk = LearnerDesk::default();
        for (session, xid) in [(1, 7), (2, 7), (3, 7), (4, 7)] {
            desk.forward(write(session, xid, 10));
        }
        desk.list(asker(1, 8), SessionId(1), Listed::LocalClosed);
        assert_eq!(desk.claim_later(&header(9, 7)), None, "of another server");
        assert_eq!(desk.load(), (4, 40));
        let passed_over = vec![asker(1, 7), asker(2, 7)];
        assert_eq!(desk.claim_later(&header(3, 7)), Some((passed_over, Claim::Answer(asker(3, 7)))));
        assert_eq!(desk.load(), (1, 10));
        assert!(!desk.has_ready_list(), "it came behind all of them");
        assert_eq!(desk.claim(&header(4, 7)), Some(Claim::Answer(asker(4, 7))));
        assert!(desk.has_ready_list());

        // Who opens a session is not answered by the end of one.
        let connection = asker(5, 0).connection;
        desk.forward(Asked::Open { session: SessionId(5), connection, timeout_ms: 1 });
        let end = TxnHeader { kind: OpCode::CloseSession, ..header(5, 0) };
        assert_eq!((desk.claim(&end), desk.claim_later(&end)), (None, None));
        let made = TxnHeader { kind: OpCode::CreateSession, ..header(5, 0) };
        assert_eq!(desk.claim(&made), Some(Claim::Answer(asker(5, 0))));
        // A leader whose disk is full makes none.
        desk.forward(Asked::Open { session: SessionId(5), connection, timeout_ms: 1 });
        let refused = TxnHeader { kind: OpCode::Error, ..header(5, 0) };
        assert_eq!(desk.claim(&refused), Some(Claim::NotOpened(connection)));
    }

    /// Danger (S25): at the end of an epoch a request is asked a second time, left out, or overtaken by a later one.
    #[test]
    fn what_is_not_answered_is_asked_again_in_its_order() {
        let mut desk = LearnerDesk::default();
        desk.forward(write(1, 1, 10));
        desk.sync(asker(1, 2), SessionId(1));
        desk.forward(write(1, 3, 10));
        desk.forward(Asked::Upgrade { session: SessionId(4), timeout_ms: 5 });
        desk.sync(asker(1, 4), SessionId(1));
        desk.list(asker(1, 5), SessionId(1), Listed::Ephemerals("".into()));
        let open = Asked::Open { session: SessionId(5), connection: asker(9, 0).connection, timeout_ms: 7 };
        desk.forward(open);
        assert_eq!(desk.synced_before(&header(1, 1)), None);
        assert_eq!(desk.claim(&header(1, 1)), Some(Claim::Answer(asker(1, 1))));
        assert_eq!(desk.synced_before(&header(2, 3)), None, "somebody else's");
        let create = OpCode::CreateSession.to_i32();
        let expected = [
            (1, 2, ForwardedRequest::SYNC),
            (1, 3, OpCode::Create.to_i32()),
            (4, 0, create),
            (1, 4, ForwardedRequest::SYNC),
            (5, 0, create),
        ];
        let again: Vec<_> =
            desk.to_ask_again().iter().map(|request| (request.session.0, request.cxid, request.op)).collect();
        assert_eq!(again, expected);
        assert_eq!(desk.load().0, 5, "asked again, and not answered yet");
        let kinds: String = desk
            .take_unanswered()
            .iter()
            .map(|unanswered| match unanswered {
                Unanswered::Sync(_) => 'S',
                Unanswered::List(_) => 'L',
                Unanswered::Resume { .. } => 'R',
                Unanswered::Request(Asked::Write(_)) => 'W',
                Unanswered::Request(Asked::Upgrade { .. }) => 'U',
                Unanswered::Request(Asked::Open { .. }) => 'O',
            })
            .collect();
        assert_eq!(kinds, "SWUSLO");
        assert_eq!(desk.load(), (0, 0));
        desk.list(asker(1, 9), SessionId(1), Listed::LocalClosed);
        assert!(desk.has_ready_list(), "nothing is ahead of it");
        desk.sync(asker(1, 10), SessionId(1));
        desk.forward(write(1, 11, 1));
        assert_eq!(desk.synced_before(&header(1, 11)), Some(asker(1, 10)));
        assert_eq!(desk.synced_before(&header(1, 11)), None);
    }

    /// S3, S11. Danger: a client comes back with a short timeout, and what was heard of it before gives it the long one again.
    #[test]
    fn what_was_heard_before_a_client_came_back_is_forgotten() {
        let mut desk = LearnerDesk::default();
        desk.touch(SessionId(1), 40_000);
        desk.touch(SessionId(2), 40_000);
        desk.revalidate(SessionId(1), asker(1, 0).connection, 1_000);
        desk.touch(SessionId(1), 40_000);
        assert_eq!(desk.take_touched(9), [(SessionId(2), 40_000)]);
        assert_eq!(desk.revalidated(SessionId(1)), Some((asker(1, 0).connection, 1_000)));
        desk.touch(SessionId(1), 1_000);
        assert_eq!(desk.take_touched(9), [(SessionId(1), 1_000)]);
    }

    /// S11. Danger: of more sessions than one PING takes the others are never told of, and expire.
    #[test]
    fn what_one_ping_does_not_take_the_next_one_does() {
        let mut desk = LearnerDesk::default();
        let all: Vec<_> = (1..=10).map(|session| (SessionId(session), 4_000)).collect();
        for (session, timeout_ms) in &all {
            desk.touch(*session, *timeout_ms);
        }
        let mut told = desk.take_touched(4);
        assert_eq!(told.len(), 4);
        told.extend(desk.take_touched(4));
        assert_eq!(told.len(), 8);
        told.extend(desk.take_touched(4));
        told.sort_unstable();
        assert_eq!(told, all);
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
        assert!(desk.is_elsewhere(SessionId(1), a) && !desk.is_elsewhere(SessionId(1), b));
        assert!(!desk.is_elsewhere(SessionId(2), a), "nobody knows");
        desk.closed(SessionId(1));
        assert!(desk.may_speak(SessionId(1), Owner::Here));
    }
}
