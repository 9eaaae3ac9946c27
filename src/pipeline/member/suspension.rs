//! Clients over the end of an epoch (row S25): when the counter of an epoch is used up the leader steps down for the next
//! one, and nothing is wrong with anybody. Clients keep their connections, watches and sessions; what they asked and what
//! they ask meanwhile waits, and is answered in its order. (Apache's servers close all connections.)
//!
//! 1. The last transaction of the epoch is committed. The leader suspends its service, closes its links and looks for a
//!    leader; so does a learner whose link ends near the end of the counter.
//! 2. A request that a learner had forwarded is in the log of whoever leads next, or nobody ordered it: what was committed
//!    is in every history that a leader can begin with, and what a leader had not ordered it forgot.
//! 3. So, once the history of the next reign is applied, what is not found in it is asked again, once. What is found is
//!    answered.
//!
//! What is applied between the two roles may be taken back, as long as no reign stands (see [`Effect::Replay`]): it is
//! shown to clients when one does. If it is taken back, or replaced by an image, or if it takes too long, the clients'
//! connections are closed after all.
//!
//! [`Effect::Replay`]: zkfast_zab::Effect::Replay

use super::{
    LeaderDesk, Pipeline,
    desk::{Asked, List, Listed, Unanswered},
};
use crate::{
    config::limits,
    cores::messages::{Asker, Delivery, Step, Submission},
    pipeline::{BarrierKind, Duty},
};
use zkfast_tree::{Applied, session};
use zkfast_wire::ErrorCode;
use zkfast_zab::Event;

/// How long clients are kept waiting for the next reign, milliseconds: below the least session timeout with Apache's
/// tickTime (4000), so that a client whose server finds no leader has time for another.
const SUSPENDED_MS_MAX: u64 = 2000;

/// What clients do not know yet.
#[derive(Debug)]
pub(super) struct Suspension {
    since_ms: u64,
    /// To be told in this order when the next role stands.
    untold: Vec<Untold>,
}

#[derive(Debug)]
enum Untold {
    /// A transaction that was applied.
    Step(Step),
    /// An answer that stands between two of them.
    Answer(Asker, Delivery),
}

impl Pipeline {
    /// Whether clients wait for the next role of this server.
    pub(in crate::pipeline) fn is_suspended(&self) -> bool {
        self.member.as_ref().is_some_and(|member| member.suspension.is_some())
    }

    /// The epoch is at its end.
    pub(super) fn suspend(&mut self) {
        assert!(self.duty != Duty::Idle, "nobody was served");
        if self.duty == Duty::Orders && !self.the_member().options.leader_serves {
            return self.stop_serving();
        }
        self.push_batch();
        self.answer_barriers();
        let is_told = self.duty != Duty::Orders || self.pending.is_empty() && self.barriers.is_empty();
        assert!(is_told, "a leader steps down when all that it ordered is committed");
        self.duty = Duty::Idle;
        self.tree.discard_pending();
        self.sessions.forget_deadlines();
        let since_ms = self.clock.now_ms();
        let member = self.member.as_mut().expect("a member");
        // Learners ask again themselves what was not ordered.
        member.leader = LeaderDesk::default();
        member.viewed = self.tree.last_applied();
        member.suspension = Some(Suspension { since_ms, untold: Vec::new() });
        member.options.board.set_serving(false);
        log::info!("the counter of this epoch is used up: clients wait for the next epoch");
    }

    /// Notes what was applied and is to be told later.
    pub(super) fn note_replayed(&mut self, applied: Applied) {
        // A sync ahead of a request that was ordered was answered ahead of it: the reads behind it must not see more.
        while let Some(asker) = self.the_member().learner.synced_before(&applied.header) {
            self.keep_untold(Untold::Answer(asker, Delivery::Synced { asker }));
        }
        let asker = self.claim(&applied.header);
        self.add_step(asker, applied);
        let step = self.steps.pop().expect("added above");
        self.keep_untold(Untold::Step(step));
        while let Some(list) = self.the_member().learner.ready_list() {
            let answer = self.answer_to(list);
            self.keep_untold(Untold::Answer(answer.0, answer.1));
        }
    }

    fn keep_untold(&mut self, untold: Untold) {
        let suspension = self.the_member().suspension.as_mut().expect("asked by the caller");
        suspension.untold.push(untold);
    }

    /// The next role stands: what was applied meanwhile is told, and what is not answered by it is asked again.
    pub(super) fn resume(&mut self) {
        let suspension = self.the_member().suspension.take().expect("asked by the caller");
        let waited_ms = self.clock.now_ms() - suspension.since_ms;
        for untold in suspension.untold {
            match untold {
                Untold::Step(step) => self.steps.push(step),
                Untold::Answer(asker, delivery) => {
                    self.push_batch();
                    self.cores[usize::from(asker.connection.core)].push_and_kick(delivery);
                }
            }
            if self.steps.len() >= limits::STEPS_PER_BATCH {
                self.push_batch();
            }
        }
        self.push_batch();
        let asked = if self.duty == Duty::Orders { self.hold_unanswered() } else { self.ask_again() };
        log::info!("clients waited {waited_ms} ms for this epoch; {asked} requests are taken up again");
    }

    /// The former leader's learner leads: the requests of its clients come first.
    fn hold_unanswered(&mut self) -> usize {
        let learner = &mut self.the_member().learner;
        let (unanswered, revalidations) = (learner.take_unanswered(), learner.take_revalidations());
        learner.forget_touched();
        let held = &mut self.the_member().held;
        held.extend(unanswered);
        held.extend(revalidations);
        held.len()
    }

    /// The next leader is asked what the last one had not ordered.
    fn ask_again(&mut self) -> usize {
        let member = self.the_member();
        let requests = member.learner.to_ask_again();
        let count = requests.len();
        let forwards = requests.into_iter().map(|request| Event::Forward { request });
        member.follow_up.extend(forwards);
        for (session, timeout_ms) in member.learner.awaited_revalidations() {
            member.follow_up.push_back(Event::Revalidate { session, timeout_ms });
        }
        self.answer_lists();
        count
    }

    /// Closes the clients' connections after all.
    pub(super) fn end_suspension(&mut self, why: &str) {
        log::info!("clients do not wait for the next epoch: {why}");
        self.the_member().suspension = None;
        self.drop_clients();
    }

    /// Once a tick of the node: nobody waits for ever.
    pub(super) fn look_after_suspension(&mut self) {
        let now_ms = self.clock.now_ms();
        let since_ms = self.the_member().suspension.as_ref().map(|suspension| suspension.since_ms);
        let untold = self.the_member().suspension.as_ref().map_or(0, |suspension| suspension.untold.len());
        if since_ms.is_some_and(|since_ms| now_ms - since_ms >= SUSPENDED_MS_MAX) {
            self.end_suspension("no reign stands in time");
        } else if untold > limits::SUSPENDED_STEPS {
            self.end_suspension("too much was written meanwhile");
        }
    }

    /// Takes up the oldest of what clients asked before this server led; whether there was any.
    pub(in crate::pipeline) fn submit_held(&mut self) -> bool {
        let Some(held) = self.member.as_mut().and_then(|member| member.held.pop_front()) else {
            return false;
        };
        match held {
            Unanswered::Request(Asked::Write(write)) => {
                self.submit(write.asker.connection.core.into(), Submission::Write(write));
            }
            Unanswered::Request(Asked::Open { session, connection, timeout_ms }) => {
                // It gets another id; nobody has seen this one.
                self.sessions.forget(session);
                self.submit(connection.core.into(), Submission::OpenSession { connection, timeout_ms });
            }
            Unanswered::Request(Asked::Upgrade { session, timeout_ms }) => {
                self.make_global(session, timeout_ms);
            }
            Unanswered::Sync(sync) => {
                let (asker, session) = (sync.asker, sync.session);
                self.submit(asker.connection.core.into(), Submission::Sync { asker, session });
            }
            Unanswered::List(List { asker, session, what, .. }) => match what {
                Listed::Ephemerals(prefix) => {
                    let submission = Submission::GetEphemerals { asker, session, prefix };
                    self.submit(asker.connection.core.into(), submission);
                }
                Listed::LocalClosed => self.answer_local_closed(asker, session),
                Listed::Unreadable => {
                    self.add_barrier(BarrierKind::Failed { asker, code: ErrorCode::MARSHALLING_ERROR });
                }
            },
            Unanswered::Resume { session, connection, timeout_ms } => {
                // The password was right when this server forwarded the question.
                let password = session::password(session);
                let submission = Submission::ResumeSession { connection, session, password, timeout_ms };
                self.submit(connection.core.into(), submission);
            }
        }
        true
    }

    /// Whether there is some of that.
    pub(in crate::pipeline) fn has_held(&self) -> bool {
        self.member.as_ref().is_some_and(|member| !member.held.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::member::fixture::{Fixture, asker, zxid};
    use zkfast_wire::SessionId;

    /// A suspended server with a client that came back, and one that was heard of; what its core was told is taken.
    fn suspended() -> Fixture {
        let mut fixture = Fixture::new(3);
        fixture.pipeline.duty = Duty::Forwards;
        fixture.pipeline.suspend();
        let learner = &mut fixture.pipeline.the_member().learner;
        learner.touch(SessionId(6), 4000);
        learner.revalidate(SessionId(5), asker(0).connection, 4000);
        fixture.take_told();
        fixture
    }

    /// S25, S10. Danger: a client that came back with its session at the end of an epoch is never answered, whoever leads
    /// the next one; or what was heard under the last leader counts under this one.
    #[test]
    fn who_came_back_is_answered_in_the_next_epoch() {
        let mut fixture = suspended();
        fixture.pipeline.duty = Duty::Orders;
        fixture.pipeline.resume();
        let member = fixture.pipeline.the_member();
        let held = member.held.make_contiguous();
        assert!(
            matches!(held, [Unanswered::Resume { session: SessionId(5), timeout_ms: 4000, .. }]),
            "{held:?}"
        );
        assert_eq!(member.learner.take_touched(10), []);

        let mut fixture = suspended();
        fixture.pipeline.duty = Duty::Forwards;
        fixture.pipeline.resume();
        let member = fixture.pipeline.the_member();
        assert_eq!(member.follow_up, [Event::Revalidate { session: SessionId(5), timeout_ms: 4000 }]);
    }

    /// S25, S23. Danger: the answer to a sync overtakes what was applied before it, and the read behind it does not see that.
    #[test]
    fn what_was_kept_is_told_in_its_order() {
        let mut fixture = suspended();
        fixture.append(1);
        let record = fixture.pipeline.pending.pop_front().expect("the record").record;
        let applied = fixture.pipeline.tree.apply(&record).expect("a good record");
        fixture.pipeline.note_replayed(applied);
        let asker = asker(1);
        fixture.pipeline.keep_untold(Untold::Answer(asker, Delivery::Synced { asker }));
        assert!(fixture.take_told().is_empty(), "nobody is served");
        fixture.pipeline.duty = Duty::Forwards;
        fixture.pipeline.resume();
        let told = fixture.take_told();
        assert!(matches!(&told[..], [Delivery::Batch(_), Delivery::Synced { .. }]), "{told:?}");
    }

    /// S25. Danger: clients that wait for the next epoch are shown, and answered, what the next leader has cut off.
    #[test]
    fn a_cut_ends_the_wait() {
        let mut fixture = suspended();
        fixture.append(1);
        let record = fixture.pipeline.pending.pop_front().expect("the record").record;
        let applied = fixture.pipeline.tree.apply(&record).expect("a good record");
        fixture.pipeline.note_replayed(applied);
        fixture.pipeline.truncate(zxid(3));
        assert!(!fixture.pipeline.is_suspended(), "what was kept to be told is no more");
        let told = fixture.take_told();
        assert!(matches!(told.first(), Some(Delivery::StopServing)), "{told:?}");
    }

    /// Danger: a server that finds no leader keeps what is applied meanwhile without a bound.
    #[test]
    fn what_is_kept_is_bounded() {
        let mut fixture = suspended();
        fixture.pipeline.look_after_suspension();
        assert!(fixture.pipeline.is_suspended() && fixture.take_told().is_empty());
        let answer = || Untold::Answer(asker(1), Delivery::Synced { asker: asker(1) });
        for _ in 0..=limits::SUSPENDED_STEPS {
            fixture.pipeline.keep_untold(answer());
        }
        fixture.pipeline.look_after_suspension();
        assert!(!fixture.pipeline.is_suspended(), "too much was written");
        let told = fixture.take_told();
        assert!(matches!(&told[..], [Delivery::StopServing]), "{told:?}");
    }
}
