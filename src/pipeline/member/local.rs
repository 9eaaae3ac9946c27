//! Sessions that this server alone knows (row S15; ZooKeeper's `UpgradeableSessionTracker`, ZOOKEEPER-1147): to begin and
//! to end one costs no transaction. It ends with the connection's server, and owns no ephemerals: the first one that it
//! asks for makes it a session of the whole ensemble, where that is allowed.

use super::Pipeline;
use crate::{
    cores::messages::{Asker, CloseReason, ConnectionId, Delivery, Submission, Touched, Write},
    pipeline::{
        BarrierKind, Duty,
        member::desk::{Asked, Listed, Unanswered},
        submit::END_BYTES,
    },
};
use std::collections::HashMap;
use zkfast_tree::session::{self, ExpiryQueue};
use zkfast_wire::{Decoder, ErrorCode, OpCode, Request, SessionId, Xid};

/// Expired sessions taken at a time.
const EXPIRED_AT_ONCE: usize = 1024;

/// The sessions, and when they expire.
#[derive(Debug)]
pub(super) struct LocalSessions {
    /// `localSessionsUpgradingEnabled`.
    upgrades: bool,
    tick_ms: u32,
    /// With their timeouts, milliseconds.
    sessions: HashMap<SessionId, i32>,
    expiry: ExpiryQueue,
    /// When the expired were looked for last, milliseconds of the server's clock.
    looked_ms: u64,
}

impl LocalSessions {
    pub(super) fn new(upgrades: bool, tick_ms: u32) -> Self {
        let expiry = ExpiryQueue::new(i64::from(tick_ms));
        Self { upgrades, tick_ms, sessions: HashMap::new(), expiry, looked_ms: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn contains(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Adds the session, or renews it with a timeout of its own.
    fn track(&mut self, session: SessionId, timeout_ms: i32, now_ms: u64) {
        self.sessions.insert(session, timeout_ms);
        self.expiry.touch(session, timeout_ms, now_ms.cast_signed());
    }

    /// Moves the deadline; false if the session is none of these.
    fn touch(&mut self, touched: &Touched) -> bool {
        let is_here = self.contains(touched.session);
        if is_here {
            self.expiry.touch(touched.session, touched.timeout_ms, touched.at_ms.cast_signed());
        }
        is_here
    }

    /// Forgets the session; its timeout, if it was one of these.
    fn remove(&mut self, session: SessionId) -> Option<i32> {
        self.expiry.remove(session);
        self.sessions.remove(&session)
    }

    /// Those that have run out, and are forgotten by this. After a pause of the whole process none: what clients said
    /// meanwhile lies unread in the sockets.
    fn expired(&mut self, now_ms: u64) -> Vec<SessionId> {
        let since_ms = now_ms - std::mem::replace(&mut self.looked_ms, now_ms);
        if since_ms > 2 * u64::from(self.tick_ms) {
            return Vec::new();
        }
        let expired = self.expiry.pop_expired(now_ms.cast_signed(), EXPIRED_AT_ONCE);
        for session in &expired {
            self.sessions.remove(session);
        }
        expired
    }

    /// The role of this server has ended, and with it its local sessions.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.upgrades, self.tick_ms);
    }
}

/// Whether the request hangs something on its session (`checkUpgradeSession`). Containers and TTL nodes do not.
fn makes_ephemerals(op: OpCode, body: &[u8]) -> bool {
    // EPHEMERAL and EPHEMERAL_SEQUENTIAL (OP34).
    let is_ephemeral = |request: &Request<'_>| match request {
        Request::Create(OpCode::Create | OpCode::Create2, create) => matches!(create.flags, 1 | 3),
        _ => false,
    };
    if !matches!(op, OpCode::Create | OpCode::Create2 | OpCode::Multi) {
        return false;
    }
    match Request::decode(op, &mut Decoder::new(body)) {
        Ok(Request::Multi(parts)) => parts.iter().any(is_ephemeral),
        Ok(request) => is_ephemeral(&request),
        Err(_) => false,
    }
}

impl Pipeline {
    /// Does what concerns local sessions, and what a read-only server answers by itself; hands back the rest.
    pub(in crate::pipeline) fn submit_local(
        &mut self,
        core: usize,
        submission: Submission,
    ) -> Option<Submission> {
        let Some(member) = &mut self.member else { return Some(submission) };
        if self.cores[core].awaits_quiet || !member.is_read_only && member.local.is_none() {
            return Some(submission);
        }
        if self.duty == Duty::Idle && !member.is_read_only {
            return Some(submission);
        }
        let is_local = |session| member.local.as_ref().is_some_and(|local| local.contains(session));
        match submission {
            Submission::OpenSession { connection, timeout_ms } if member.local.is_some() => {
                self.open_local(connection, timeout_ms);
                None
            }
            Submission::ResumeSession { connection, session, password, timeout_ms } if is_local(session) => {
                self.resume_local(connection, session, &password, timeout_ms);
                None
            }
            Submission::Write(write) if is_local(write.session) => self.write_local(write),
            Submission::Touch(mut touched) => {
                if let Some(local) = &mut member.local {
                    touched.retain(|touch| !local.touch(touch));
                }
                (!touched.is_empty()).then_some(Submission::Touch(touched))
            }
            Submission::Gone { session, heard: Some(touch), .. } if is_local(session) => {
                let is_here = member.local.as_mut().is_some_and(|local| local.touch(&touch));
                assert!(is_here, "it has just been found");
                self.sessions.disconnect(session, touch.connection);
                None
            }
            submission if member.is_read_only => self.answer_read_only(submission),
            submission => Some(submission),
        }
    }

    fn local(&mut self) -> &mut LocalSessions {
        self.the_member().local.as_mut().expect("asked for where local sessions are enabled")
    }

    fn open_local(&mut self, connection: ConnectionId, timeout_ms: i32) {
        let session = self.sessions.new_id(&self.tree);
        let now_ms = self.clock.now_ms();
        self.local().track(session, timeout_ms, now_ms);
        self.sessions.connect_only(session, connection);
        self.cores[usize::from(connection.core)].push_and_kick(Delivery::Resumed {
            connection,
            session,
            timeout_ms,
        });
        self.count_local();
    }

    fn resume_local(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        password: &[u8; 16],
        timeout_ms: i32,
    ) {
        let core = usize::from(connection.core);
        if session::password(session) != *password {
            self.cores[core].push_and_kick(Delivery::Refused { connection });
            return;
        }
        let now_ms = self.clock.now_ms();
        self.local().track(session, timeout_ms, now_ms);
        let earlier = self.sessions.connect_only(session, connection);
        self.welcome(connection, earlier, session, timeout_ms);
    }

    fn write_local(&mut self, write: Write) -> Option<Submission> {
        if write.op == OpCode::CloseSession {
            self.close_local(write.asker, write.session);
            return None;
        }
        if self.duty == Duty::Idle {
            return self.answer_read_only(Submission::Write(write));
        }
        if !makes_ephemerals(write.op, &write.body) {
            return Some(Submission::Write(write));
        }
        if !self.local().upgrades {
            let (asker, code) = (write.asker, ErrorCode::EPHEMERAL_ON_LOCAL_SESSION);
            self.cores[usize::from(asker.connection.core)].push_and_kick(Delivery::Failed { asker, code });
            return None;
        }
        // Who orders, refuses the write itself on a full disk. A learner's disk has no say in what is asked of its leader.
        if self.duty != Duty::Orders || !self.await_reserve(write.body.len() + END_BYTES) {
            self.upgrade(write.session);
            if self.duty == Duty::Orders && self.node.next_zxid().is_none() {
                // The session took the last zxid of this epoch: the request comes first in the next.
                self.the_member().held.push_back(Unanswered::Request(Asked::Write(write)));
                return None;
            }
        }
        Some(Submission::Write(write))
    }

    /// Makes the session known to the whole ensemble, in front of what it asks next.
    fn upgrade(&mut self, session: SessionId) {
        let Some(timeout_ms) = self.local().remove(session) else { return };
        log::info!("local session {session} becomes one of the whole ensemble");
        self.count_local();
        self.make_global(session, timeout_ms);
    }

    /// The session's createSession, for which nobody waits.
    pub(super) fn make_global(&mut self, session: SessionId, timeout_ms: i32) {
        if self.duty == Duty::Orders {
            self.sessions.track(session, timeout_ms, self.clock.now_ms());
            self.own_here(session);
            let request = Request::CreateSession(timeout_ms);
            return self.propose(None, session, Xid(0), OpCode::CreateSession, Ok(&request), &[]);
        }
        self.forward(Asked::Upgrade { session, timeout_ms });
    }

    /// Ends the session as its client asks; the answer keeps its turn.
    fn close_local(&mut self, asker: Asker, session: SessionId) {
        self.local().remove(session);
        self.sessions.forget(session);
        self.count_local();
        self.answer_local_closed(asker, session);
    }

    /// Tells the client that its local session is over, behind what it asked before.
    pub(super) fn answer_local_closed(&mut self, asker: Asker, session: SessionId) {
        match self.duty {
            Duty::Orders => self.add_barrier(BarrierKind::LocalClosed { asker, session }),
            Duty::Forwards => {
                self.the_member().learner.list(asker, session, Listed::LocalClosed);
                self.answer_lists();
            }
            Duty::Idle => {
                let delivery = Delivery::LocalClosed { asker, session };
                self.cores[usize::from(asker.connection.core)].push_and_kick(delivery);
            }
        }
    }

    /// Closes the connections of local sessions that ran out, once a tick.
    pub(super) fn expire_local(&mut self) {
        if self.is_suspended() {
            // What was heard of them waits in the lanes.
            return;
        }
        let now_ms = self.clock.now_ms();
        let Some(local) = &mut self.the_member().local else { return };
        for session in local.expired(now_ms) {
            log::info!("local session {session} expired");
            self.counters.sessions_expired.increment();
            if let Some(connection) = self.sessions.forget(session) {
                let delivery = Delivery::Close { connection, reason: CloseReason::LocalExpired };
                self.cores[usize::from(connection.core)].push_and_kick(delivery);
            }
        }
        self.count_local();
    }

    pub(super) fn count_local(&mut self) {
        let count = self.the_member().local.as_ref().map_or(0, LocalSessions::len);
        self.counters.local_sessions.set(count as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::member::fixture::{Fixture, asker, zxid};
    use zkfast_wire::request::CreateRequest;
    use zkfast_zab::Node;

    fn touched(session: i64) -> Touched {
        let connection = ConnectionId { core: 0, slot: 0, generation: 0 };
        Touched { connection, session: SessionId(session), timeout_ms: 300, at_ms: 1200 }
    }

    #[test]
    fn a_local_session_lives_as_long_as_it_is_heard_of() {
        let mut local = LocalSessions::new(true, 100);
        for now_ms in (0..1000).step_by(100) {
            assert_eq!(local.expired(now_ms), []);
        }
        local.track(SessionId(1), 300, 1000);
        local.track(SessionId(2), 300, 1000);
        assert!(local.touch(&touched(1)));
        assert!(!local.touch(&touched(3)));
        assert_eq!(local.expired(1100).len() + local.expired(1200).len() + local.expired(1300).len(), 0);
        assert_eq!(local.expired(1400), [SessionId(2)]);
        assert!(local.contains(SessionId(1)) && !local.contains(SessionId(2)));
        // The process stood still: the sockets are read first.
        assert_eq!(local.expired(9000), []);
        assert_eq!(local.expired(9100), [SessionId(1)]);
        assert_eq!(local.len(), 0);
    }

    /// Danger: an ephemeral of a session that the leader does not know outlives its client.
    #[test]
    fn only_ephemerals_need_a_session_of_the_ensemble() {
        use zkfast_wire::request::CreateRequest;
        let body = |op: OpCode, flags: i32| {
            let create = CreateRequest { path: "/a".into(), data: None, acl: None, flags, ttl_ms: None };
            let mut out = Vec::new();
            Request::Create(op, create).write(Xid(1), &mut out);
            out.split_off(12)
        };
        for (flags, expected) in [(0, false), (1, true), (2, false), (3, true), (4, false)] {
            assert_eq!(makes_ephemerals(OpCode::Create, &body(OpCode::Create, flags)), expected, "{flags}");
            assert_eq!(makes_ephemerals(OpCode::Create2, &body(OpCode::Create2, flags)), expected, "{flags}");
        }
        assert!(!makes_ephemerals(OpCode::SetData, &body(OpCode::Create, 1)));
        assert!(!makes_ephemerals(OpCode::Create, b"\0"));
    }

    /// S15. Danger: the request that makes a local session global takes two zxids, and there is one left: the leader ends.
    #[test]
    fn an_upgrade_may_take_the_last_zxid_of_an_epoch() {
        let mut fixture = Fixture::new(1);
        let pipeline = &mut fixture.pipeline;
        pipeline.duty = Duty::Orders;
        pipeline.node = Node::alone(zxid(u32::MAX - 1));
        let mut local = LocalSessions::new(true, 100);
        local.track(SessionId(5), 4000, 1);
        pipeline.the_member().local = Some(local);
        let create = CreateRequest { path: "/e".into(), data: None, acl: None, flags: 1, ttl_ms: None };
        let mut body = Vec::new();
        Request::Create(OpCode::Create, create).write(Xid(1), &mut body);
        // Without length, xid and type.
        let body = bytes::Bytes::from(body.split_off(12));
        let write =
            Write { asker: asker(1), session: SessionId(5), op: OpCode::Create, body, identities: [].into() };
        pipeline.submit(0, Submission::Write(write));
        assert_eq!(pipeline.node.next_zxid(), None, "the session has it");
        let held = pipeline.the_member().held.make_contiguous();
        assert!(matches!(held, [Unanswered::Request(Asked::Write(_))]), "{held:?}");
    }
}
