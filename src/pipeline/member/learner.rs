//! A learner's clients: what they ask is forwarded to the leader, and answered when the transaction that came of it is
//! applied here (rows Q45, S10, S11, S23).

use super::{
    Pipeline,
    desk::{Asked, Claim, List, Listed},
};
use crate::{
    config::limits,
    cores::messages::{Asker, CloseReason, ConnectionId, Delivery, Touched, Write},
};
use zkfast_tree::session;
use zkfast_wire::{Decoder, ErrorCode, OpCode, Request, SessionId, TxnHeader};
use zkfast_zab::Event;

impl Pipeline {
    /// Whether the learner's clients have as much under way as may be.
    pub(in crate::pipeline) fn is_forwarding_full(&self) -> bool {
        let (requests, bytes) = self.member.as_ref().expect("a member").learner.load();
        requests >= limits::FORWARDED_REQUESTS || bytes >= limits::FORWARDED_BYTES
    }

    pub(in crate::pipeline) fn forward_write(&mut self, write: Write) {
        // A leader of Apache's drops a multi that has an operation without a path, and never answers it. What cannot be
        // read is refused, here as where this server leads; other kinds are the leader's to refuse.
        let is_readable =
            write.op != OpCode::Multi || Request::decode(write.op, &mut Decoder::new(&write.body)).is_ok();
        if is_readable {
            self.forward(Asked::Write(write));
        } else {
            self.the_member().learner.list(write.asker, write.session, Listed::Unreadable);
            self.answer_lists();
        }
    }

    /// What becomes a transaction goes to the leader, and is kept until that is applied here.
    pub(super) fn forward(&mut self, asked: Asked) {
        let request = asked.to_request();
        self.the_member().learner.forward(asked);
        self.step(Event::Forward { request });
    }

    /// A new session: its id is this server's to give, the rest is the leader's.
    pub(in crate::pipeline) fn forward_open(&mut self, connection: ConnectionId, timeout_ms: i32) {
        let session = self.sessions.new_id(&self.tree);
        self.sessions.connect_only(session, connection);
        self.forward(Asked::Open { session, connection, timeout_ms });
    }

    /// A sync goes through the leader, behind everything that this server has forwarded (S23).
    pub(in crate::pipeline) fn forward_sync(&mut self, asker: Asker, session: SessionId) {
        let request = self.the_member().learner.sync(asker, session).to_request();
        self.step(Event::Forward { request });
    }

    /// The leader's word that a sync is complete. Whatever was committed before it came before it on the link, so it is
    /// applied here.
    pub(super) fn synced(&mut self) {
        // None: it was asked in a former role.
        let Some(asker) = self.the_member().learner.synced() else { return };
        self.push_batch();
        self.cores[usize::from(asker.connection.core)].push_and_kick(Delivery::Synced { asker });
    }

    /// getEphemerals reads this server's tree, behind the writes that this server has forwarded.
    pub(in crate::pipeline) fn list_behind_forwarded(
        &mut self,
        asker: Asker,
        session: SessionId,
        prefix: Box<str>,
    ) {
        self.the_member().learner.list(asker, session, Listed::Ephemerals(prefix));
        self.answer_lists();
    }

    /// Answers the lists that need not wait any more.
    pub(in crate::pipeline) fn answer_lists(&mut self) {
        while let Some(list) = self.the_member().learner.ready_list() {
            // The reads behind it see what it saw.
            self.push_batch();
            let (asker, delivery) = self.answer_to(list);
            self.cores[usize::from(asker.connection.core)].push_and_kick(delivery);
        }
    }

    /// What a list has to say now.
    pub(super) fn answer_to(&self, list: List) -> (Asker, Delivery) {
        let List { asker, session, what, .. } = list;
        let delivery = match what {
            Listed::Ephemerals(prefix) => self.listed(asker, session, &prefix),
            Listed::LocalClosed => Delivery::LocalClosed { asker, session },
            Listed::Unreadable => Delivery::Failed { asker, code: ErrorCode::MARSHALLING_ERROR },
        };
        (asker, delivery)
    }

    /// Who asked for a transaction that has just been applied, if a client of this server did.
    pub(in crate::pipeline) fn claim(&mut self, header: &TxnHeader) -> Option<Asker> {
        if let Some(claim) = self.the_member().learner.claim(header) {
            return self.answered_by(claim, header.session);
        }
        // Nearly always it was asked through another server, and the session is not here.
        if !self.sessions.is_connected(header.session) {
            return None;
        }
        let (passed_over, claim) = self.the_member().learner.claim_later(header)?;
        log::warn!(
            "the leader did not order {} requests of this server's clients: closing their connections",
            passed_over.len()
        );
        self.push_batch();
        for Asker { connection, .. } in passed_over {
            let delivery = Delivery::Close { connection, reason: CloseReason::PassedOver };
            self.cores[usize::from(connection.core)].push_and_kick(delivery);
        }
        self.answered_by(claim, header.session)
    }

    fn answered_by(&mut self, claim: Claim, session: SessionId) -> Option<Asker> {
        match claim {
            Claim::Nobody => None,
            Claim::Answer(asker) => Some(asker),
            Claim::NotOpened(connection) => {
                self.sessions.forget(session);
                self.push_batch();
                let delivery = Delivery::Close { connection, reason: CloseReason::NoSpace };
                self.cores[usize::from(connection.core)].push_and_kick(delivery);
                None
            }
        }
    }

    pub(in crate::pipeline) fn has_ready_list(&self) -> bool {
        self.member.as_ref().is_some_and(|member| member.learner.has_ready_list())
    }

    /// A client that names its session: the password is checked here (S2), the rest by the leader (S10).
    pub(in crate::pipeline) fn forward_resume(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        password: &[u8; 16],
        timeout_ms: i32,
    ) {
        if session::password(session) != *password {
            self.cores[usize::from(connection.core)].push_and_kick(Delivery::Refused { connection });
            return;
        }
        self.the_member().learner.revalidate(session, connection, timeout_ms);
        self.step(Event::Revalidate { session, timeout_ms });
    }

    pub(super) fn revalidated(&mut self, session: SessionId, valid: bool) {
        let Some((connection, timeout_ms)) = self.the_member().learner.revalidated(session) else { return };
        if !valid {
            self.cores[usize::from(connection.core)].push_and_kick(Delivery::Refused { connection });
            return;
        }
        let earlier = self.sessions.connect_only(session, connection);
        self.welcome(connection, earlier, session, timeout_ms);
    }

    /// The leader is told with the next PING (S11).
    pub(in crate::pipeline) fn touch_at_leader(&mut self, touched: &[Touched]) {
        for touch in touched {
            if self.sessions.is_current(touch) {
                self.the_member().learner.touch(touch.session, touch.timeout_ms);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fixture, asker, zxid};
    use crate::{cores::messages::Delivery, pipeline::Duty};
    use zkfast_tree::session;
    use zkfast_wire::SessionId;
    use zkfast_zab::{Effect, Node};

    /// S23. Danger: what was committed before a sync reaches the client's core behind the sync's answer, and the read
    /// behind the sync does not see it.
    #[test]
    fn a_sync_is_answered_behind_what_was_applied_before_it() {
        let mut fixture = Fixture::new(3);
        fixture.append(1);
        fixture.pipeline.duty = Duty::Forwards;
        fixture.pipeline.forward_sync(asker(1), SessionId(1));
        let record = fixture.pipeline.pending.pop_front().expect("the record").record;
        let applied = fixture.pipeline.tree.apply(&record).expect("a good record");
        fixture.pipeline.add_step(None, applied);
        fixture.pipeline.synced();
        let told = fixture.take_told();
        assert!(
            matches!(&told[..], [Delivery::Batch(_), Delivery::Synced { asker: answered }] if *answered == asker(1)),
            "{told:?}"
        );
    }

    /// S23. Danger: the leader's commits and its answer to a sync come in one turn, and the sync is answered before they are
    /// applied: the read behind it does not see what others have seen.
    #[test]
    fn a_sync_waits_for_the_commits_of_its_turn() {
        let mut fixture = Fixture::new(3);
        fixture.append(2);
        let pipeline = &mut fixture.pipeline;
        pipeline.duty = Duty::Forwards;
        // What it is told to commit is committed.
        pipeline.node = Node::alone(zxid(5));
        pipeline.the_member().learner.sync(asker(1), SessionId(1));
        let commit = |counter| Effect::Commit { through: zxid(counter) };
        pipeline.carry_out(&mut vec![commit(4), Effect::SyncDone, commit(5)]);
        assert_eq!(pipeline.tree.last_applied(), zxid(4), "the rest may wait for more");
        pipeline.apply_committed();
        pipeline.push_batch();
        let told = fixture.take_told();
        assert!(
            matches!(&told[..], [Delivery::Batch(before), Delivery::Synced { .. }, Delivery::Batch(_)]
                if before.through() == zxid(4)),
            "{told:?}"
        );
    }

    /// S2. Danger: whoever knows the number of a session takes it over on a server that does not lead.
    #[test]
    fn a_session_is_for_who_knows_its_password() {
        let mut fixture = Fixture::new(1);
        fixture.pipeline.duty = Duty::Forwards;
        let (session, connection) = (SessionId(0x100_0000_0000), asker(0).connection);
        let right = session::password(session);
        for place in 0..right.len() {
            let mut wrong = right;
            wrong[place] ^= 1;
            fixture.pipeline.forward_resume(connection, session, &wrong, 4000);
            let told = fixture.take_told();
            assert!(matches!(&told[..], [Delivery::Refused { .. }]), "{told:?}");
        }
        assert_eq!(fixture.pipeline.the_member().learner.awaited_revalidations(), []);
        fixture.pipeline.forward_resume(connection, session, &right, 4000);
        assert_eq!(fixture.pipeline.the_member().learner.awaited_revalidations(), [(session, 4000)]);
    }
}
