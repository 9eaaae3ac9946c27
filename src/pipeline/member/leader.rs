//! A leader and its learners' clients: each forwarded request becomes one transaction, in the order in which its learner
//! sent it (row Q45); sessions that are heard of elsewhere live on (S11); a session speaks through one server (S12).

use super::{Pipeline, desk::Owner};
use crate::{config::limits, pipeline::Duty};
use bytes::Bytes;
use zkfast_wire::{
    Decoder, ErrorCode, OpCode, Request, SessionId, Xid,
    quorum::{ForwardedRequest, touches},
};
use zkfast_zab::{Event, LinkId};

impl Pipeline {
    /// Takes a learner's request in; it is ordered in this turn or a later one, in its turn.
    pub(super) fn take_request(&mut self, link: LinkId, request: Box<ForwardedRequest>) {
        let desk = &mut self.the_member().leader;
        desk.push(link, request);
        if desk.requests.len() > limits::LEARNERS_REQUESTS
            || desk.request_bytes > limits::LEARNERS_REQUEST_BYTES
        {
            log::warn!(
                "closing link {}: {} requests of learners wait, with {} bytes",
                link.0,
                desk.requests.len(),
                desk.request_bytes
            );
            self.links().close(link);
            self.the_member().follow_up.push_back(Event::Down { link });
        }
    }

    /// Orders what learners have forwarded, a bounded number a turn; whether there was any.
    pub(super) fn submit_forwarded(&mut self) -> bool {
        let mut any = false;
        for _ in 0..limits::SUBMITS_PER_TURN {
            if self.duty != Duty::Orders || self.is_backed_up() {
                break;
            }
            let Some((link, request)) = self.the_member().leader.pop() else { break };
            self.submit_one_forwarded(link, &request);
            any = true;
        }
        any
    }

    fn submit_one_forwarded(&mut self, link: LinkId, request: &ForwardedRequest) {
        let session = request.session;
        let (cxid, owner) = (Xid(request.cxid), Owner::Learner(link));
        if request.op == ForwardedRequest::SYNC {
            return self.step(Event::Sync { link });
        }
        let op = OpCode::from_i32(request.op);
        let known = op.filter(|op| op.is_write() || *op == OpCode::CreateSession);
        let Some(op) = known else {
            // A transaction all the same: the learner waits for one (Q45).
            let op = op.unwrap_or(OpCode::Error);
            return self.propose(None, session, cxid, op, Err(ErrorCode::UNIMPLEMENTED), &[]);
        };
        let decoded = Request::decode(op, &mut Decoder::new(&request.body));
        let decoded = match &decoded {
            Ok(decoded) => Ok(decoded),
            Err(_) => Err(ErrorCode::MARSHALLING_ERROR),
        };
        let is_short = self.await_reserve(request.body.len());
        match (op, decoded) {
            (OpCode::CreateSession, Ok(Request::CreateSession(timeout_ms))) if !is_short => {
                let now_ms = self.clock.now_ms();
                self.sessions.track(session, *timeout_ms, now_ms);
                self.the_member().leader.own(session, owner);
                self.propose(None, session, cxid, op, decoded, &[]);
            }
            // Whoever ends a session need not own it (`PrepRequestProcessor`, closeSession).
            (OpCode::CloseSession, _) if !is_short || self.has_room_for_end(session) => {
                self.propose(None, session, cxid, op, decoded, &request.identities);
                self.sessions.closing(session);
            }
            _ if is_short => {
                self.counters.refused_for_space.increment();
                self.propose(None, session, cxid, op, Err(ErrorCode::SYSTEM_ERROR), &[]);
            }
            _ if !self.may_speak(session, owner) => {
                self.propose(None, session, cxid, op, Err(ErrorCode::SESSION_MOVED), &[]);
            }
            _ => self.propose(None, session, cxid, op, decoded, &request.identities),
        }
    }

    /// Whether a client of this server may write on behalf of the session: S12.
    pub(in crate::pipeline) fn may_speak_here(&mut self, session: SessionId) -> bool {
        self.member.is_none() || self.may_speak(session, Owner::Here)
    }

    /// Whether the session is known to live on another server than this one.
    pub(in crate::pipeline) fn is_elsewhere(&self, session: SessionId) -> bool {
        self.member.as_ref().is_some_and(|member| member.leader.is_elsewhere(session, Owner::Here))
    }

    /// A local session has no owner here: only its server knows it (S15). Nor gets one that is over an owner: nobody
    /// would forget that again.
    fn may_speak(&mut self, session: SessionId, owner: Owner) -> bool {
        let is_global = self.tree.sessions().contains(session);
        let member = self.the_member();
        match (is_global, &member.local) {
            (true, _) => member.leader.may_speak(session, owner),
            (false, Some(_)) => true,
            (false, None) => !member.leader.is_elsewhere(session, owner),
        }
    }

    /// The session lives on a connection of this server.
    pub(in crate::pipeline) fn own_here(&mut self, session: SessionId) {
        if let Some(member) = &mut self.member {
            member.leader.own(session, Owner::Here);
        }
    }

    /// The session is over.
    pub(in crate::pipeline) fn disown(&mut self, session: SessionId) {
        if let Some(member) = &mut self.member {
            member.leader.closed(session);
        }
    }

    /// A learner's client came back with a session (S10).
    pub(super) fn answer_revalidation(&mut self, link: LinkId, session: SessionId, timeout_ms: i32) {
        let valid = self.duty == Duty::Orders && self.sessions.is_alive(session, &self.tree);
        if valid {
            // The connection that it may have here ends with the next word on it (`touch`), as with Apache's leader; if
            // that is the end of the session, it is answered like that of whoever owns it.
            let now_ms = self.clock.now_ms();
            self.sessions.moved_away(session, timeout_ms, now_ms);
            self.the_member().leader.own(session, Owner::Learner(link));
        }
        self.the_member().follow_up.push_back(Event::RevalidateAnswer { link, session, valid });
    }

    /// Sessions that a learner has heard of (S11). One that has gone to another server since has perhaps another timeout
    /// there.
    pub(super) fn touch_forwarded(&mut self, link: LinkId, data: &Bytes) {
        if self.duty != Duty::Orders {
            return;
        }
        let now_ms = self.clock.now_ms();
        for (session, timeout_ms) in touches(data) {
            let is_elsewhere = self.the_member().leader.is_elsewhere(session, Owner::Learner(link));
            if !is_elsewhere && self.sessions.is_alive(session, &self.tree) {
                self.sessions.track(session, timeout_ms, now_ms);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        desk::Owner,
        fixture::{Fixture, asker},
    };
    use crate::{
        config::limits,
        cores::messages::{CloseReason, Delivery, Touched},
        pipeline::Duty,
    };
    use bytes::{Bytes, BytesMut};
    use zkfast_wire::{
        OpCode, SessionId,
        quorum::{ForwardedRequest, put_touch},
    };
    use zkfast_zab::{Event, LinkId};

    /// S11. Danger: a session that its server hears of, and the leader does not, expires under its client; or one that has
    /// moved lives as long as its old server says.
    #[test]
    fn sessions_heard_of_elsewhere_live_on() {
        let mut fixture = Fixture::new(1);
        let (idle, unknown, closing, moved) = (SessionId(5), SessionId(6), SessionId(7), SessionId(8));
        for session in [idle, closing, moved] {
            fixture.make_session(session, 4000);
        }
        fixture.pipeline.sessions.closing(closing);
        let (link, other) = (LinkId(1), LinkId(2));
        fixture.pipeline.the_member().leader.own(moved, Owner::Learner(other));
        let mut data = BytesMut::new();
        for session in [unknown, idle, closing, moved] {
            put_touch(session, 4000, &mut data);
        }
        let data = data.freeze();
        fixture.pipeline.touch_forwarded(link, &data);
        assert_eq!(
            fixture.pipeline.sessions_dump(0).expiring,
            [],
            "a server that does not lead expires nobody"
        );
        fixture.pipeline.duty = Duty::Orders;
        fixture.pipeline.touch_forwarded(link, &data);
        let expiring = fixture.pipeline.sessions_dump(0).expiring;
        let expiring: Vec<_> = expiring.into_iter().map(|(_, sessions)| sessions).collect();
        assert_eq!(expiring, [[idle]]);
    }

    /// S6, S10. Danger: a client comes back while the end of its session is on its way, is told that it has its session
    /// still, and loses it with the next transaction.
    #[test]
    fn a_session_whose_end_is_on_its_way_is_not_given_back() {
        let mut fixture = Fixture::new(1);
        let (alive, closing, unknown) = (SessionId(5), SessionId(6), SessionId(7));
        for session in [alive, closing] {
            fixture.make_session(session, 4000);
        }
        fixture.pipeline.sessions.closing(closing);
        let link = LinkId(1);
        for (duty, session, valid) in [
            (Duty::Orders, alive, true),
            (Duty::Orders, closing, false),
            (Duty::Orders, unknown, false),
            (Duty::Idle, alive, false),
        ] {
            fixture.pipeline.duty = duty;
            fixture.pipeline.answer_revalidation(link, session, 4000);
            let answer = fixture.pipeline.the_member().follow_up.pop_front();
            assert_eq!(answer, Some(Event::RevalidateAnswer { link, session, valid }));
        }
    }

    /// S12. Danger: a connection ends for what its client said before its session moved; or for the request that ends the
    /// session, and the answer to that is lost.
    #[test]
    fn an_old_connection_ends_with_a_word_behind_the_move() {
        let mut fixture = Fixture::new(1);
        fixture.pipeline.duty = Duty::Orders;
        let (session, connection) = (SessionId(5), asker(1).connection);
        fixture.make_session(session, 4000);
        let now_ms = fixture.pipeline.clock.now_ms();
        fixture.pipeline.sessions.connect(session, connection, 4000, now_ms);
        fixture.pipeline.answer_revalidation(LinkId(1), session, 4000);
        let moved_ms = fixture.pipeline.clock.now_ms();
        let touch = |at_ms| Touched { connection, session, timeout_ms: 4000, at_ms };
        fixture.pipeline.touch(&[touch(now_ms)]);
        assert!(fixture.take_told().is_empty(), "heard before it moved");
        fixture.pipeline.touch(&[touch(moved_ms + 1)]);
        let told = fixture.take_told();
        let is_closed = |told: &Delivery| matches!(told, Delivery::Close { connection: closed, reason: CloseReason::SessionMoved } if *closed == connection);
        assert!(told.len() == 1 && is_closed(&told[0]), "{told:?}");
        fixture.pipeline.sessions.closing(session);
        fixture.pipeline.touch(&[touch(moved_ms + 2)]);
        assert!(fixture.take_told().is_empty(), "its end is on its way, and is to be answered");
    }

    /// S12. Danger: two servers speak for one session; or a leader's memory grows with each session that a straggler speaks
    /// for.
    #[test]
    fn one_server_speaks_for_a_session_and_none_is_kept_for_one_that_is_over() {
        let mut fixture = Fixture::new(1);
        fixture.pipeline.duty = Duty::Orders;
        let (alive, over, starting) = (SessionId(5), SessionId(6), SessionId(7));
        fixture.make_session(alive, 4000);
        let (first, second) = (Owner::Learner(LinkId(1)), Owner::Learner(LinkId(2)));
        let pipeline = &mut fixture.pipeline;
        assert!(pipeline.may_speak(alive, first) && !pipeline.may_speak(alive, second));
        assert!(!pipeline.may_speak_here(alive));
        assert!(
            pipeline.may_speak(over, first) && pipeline.may_speak(over, second),
            "it is told by the order"
        );
        assert_eq!(pipeline.the_member().leader.owners(), 1);
        // Its creation is not applied yet.
        pipeline.the_member().leader.own(starting, first);
        assert!(pipeline.may_speak(starting, first) && !pipeline.may_speak(starting, second));
        for session in [alive, starting] {
            pipeline.disown(session);
        }
        assert_eq!(pipeline.the_member().leader.owners(), 0);
    }

    /// Danger: a learner that forwards long requests faster than they are ordered takes all of the leader's memory.
    #[test]
    fn what_learners_ask_is_bounded_in_bytes() {
        let mut fixture = Fixture::new(1);
        // The bytes are shared: only the count is so high.
        let body = Bytes::from(vec![0; 1 << 20]);
        let link = LinkId(1);
        let fits = limits::LEARNERS_REQUEST_BYTES / body.len();
        for number in 0..=fits {
            let follow_up = &fixture.pipeline.the_member().follow_up;
            assert!(follow_up.is_empty(), "closed after {number} MiB");
            let op = OpCode::SetData.to_i32();
            let (cxid, body, identities) = (1, body.clone(), Vec::new());
            let request = ForwardedRequest { session: SessionId(1), cxid, op, body, identities };
            fixture.pipeline.take_request(link, Box::new(request));
        }
        assert_eq!(fixture.pipeline.the_member().follow_up, [Event::Down { link }]);
        fixture.pipeline.follow_up();
        let desk = &fixture.pipeline.the_member().leader;
        assert!(desk.requests.is_empty() && desk.request_bytes == 0, "what it asked is forgotten");
    }
}
