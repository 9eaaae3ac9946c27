//! Out of the order into the tree: the only place where a transaction is applied.

use super::{BarrierKind, Duty, Pipeline, member::note_since, submit::leading_buffer};
use crate::{
    config::limits,
    cores::{
        clock,
        messages::{Asker, Delivery, Step},
    },
};
use zkfast_tree::{Answer, Applied};
use zkfast_wire::{OpCode, SessionId, TxnHeader, Zxid};

impl Pipeline {
    /// Applies everything proposed through `through`, oldest first, and adds a step for each to the batch.
    ///
    /// # Panics
    /// If what is committed is not what was proposed, or cannot be applied: the state would be wrong from here on.
    pub(super) fn commit(&mut self, through: Zxid) {
        if self.duty == Duty::Idle {
            return self.replay(through);
        }
        let before = self.pending.len();
        let heard_ms = clock::wall_ms();
        let mut fetched = 0;
        while let Some(oldest) = self.pending.front()
            && oldest.zxid <= through
        {
            // A `sync` between two writes of one session: the reads behind it must see the first and not the second.
            // So what was applied so far leaves as a batch of its own, then the answer, then the rest.
            let zxid = oldest.zxid;
            if self.barriers.front().is_some_and(|barrier| barrier.behind < zxid) {
                self.push_batch();
                self.answer_barriers();
            }
            if fetched == 0 {
                fetched = limits::PREFETCHED;
                let bodies = self.pending.iter().take(fetched).map(|pending| &pending.record[..]);
                self.tree.prefetch(
                    bodies.filter_map(|record| leading_buffer(record.get(TxnHeader::ENCODED_BYTES..)?)),
                );
            }
            fetched -= 1;
            let pending = self.pending.pop_front().expect("looked at above");
            let applied = match self.tree.apply(&pending.record) {
                Ok(applied) => applied,
                Err(error) => panic!("transaction {} cannot be applied: {error}", pending.zxid),
            };
            assert_eq!(applied.header.zxid, pending.zxid, "applied out of order");
            match self.applied_times.last_mut() {
                Some((time_ms, count)) if *time_ms == applied.header.time_ms => *count += 1,
                _ => self.applied_times.push((applied.header.time_ms, 1)),
            }
            let asker = match self.duty {
                Duty::Forwards => self.claim(&applied.header),
                Duty::Orders | Duty::Idle => pending.asker,
            };
            self.add_step(asker, applied);
            if self.duty == Duty::Forwards && self.has_ready_list() {
                self.answer_lists();
            }
            if self.steps.len() >= limits::STEPS_PER_BATCH {
                self.send_batch();
            }
        }
        assert!(self.tree.last_applied() <= self.node.committed(), "applied what is not committed");
        let committed = match self.duty {
            Duty::Forwards => &self.counters.learner_commits,
            Duty::Orders | Duty::Idle => &self.counters.committed,
        };
        committed.add((before - self.pending.len()) as u64);
        self.note_applied(heard_ms);
        self.publish();
        if self.snapshots.is_due() {
            self.log.roll();
            self.snapshots.take(&mut self.tree);
        }
    }

    /// O105d: how long what was applied just now has been on its way. `heard_ms`: when it was known to be committed.
    fn note_applied(&mut self, heard_ms: i64) {
        let applied_ms = clock::wall_ms();
        let heard = match self.duty {
            Duty::Orders if self.member.is_some() => Some(&self.counters.quorum_ack_latency),
            Duty::Forwards => Some(&self.counters.commit_propagation_latency),
            Duty::Orders | Duty::Idle => None,
        };
        for (time_ms, count) in self.applied_times.drain(..) {
            if let Some(heard) = heard {
                note_since(heard, time_ms, heard_ms, count);
            }
            note_since(&self.counters.propagation_latency, time_ms, applied_ms, count);
        }
    }

    pub(super) fn add_step(&mut self, asker: Option<Asker>, applied: Applied) {
        let Applied { header, answer, changes } = applied;
        let (opened_session, closed_session) = self.session_change(header.kind, header.session, &answer);
        if let Some(asker) = asker {
            self.cores[usize::from(asker.connection.core)].kick = true;
        }
        if closed_session.is_some() {
            // Whichever core holds its connection must close it now.
            for core in &mut self.cores {
                core.kick = true;
            }
        }
        self.steps.push(Step {
            zxid: header.zxid,
            changes,
            answer: asker.map(|asker| (asker, answer)),
            opened_session,
            closed_session,
        });
    }

    fn session_change(
        &mut self,
        kind: OpCode,
        session: SessionId,
        answer: &Answer,
    ) -> (Option<SessionId>, Option<SessionId>) {
        match (kind, answer) {
            (OpCode::CreateSession, Answer::SessionCreated { .. }) => (Some(session), None),
            (OpCode::CloseSession, _) => {
                self.sessions.closed(session);
                self.disown(session);
                (None, Some(session))
            }
            _ => (None, None),
        }
    }

    /// Answers what waited for everything ahead of it to be applied. Called when the batch with all that has been
    /// pushed and nothing later has, so that the answer stands in the lane just where it stands in the order.
    pub(super) fn answer_barriers(&mut self) {
        let applied = self.tree.last_applied();
        while let Some(barrier) = self.barriers.front()
            && barrier.behind <= applied
        {
            let barrier = self.barriers.pop_front().expect("looked at above");
            let (asker, delivery) = match barrier.kind {
                BarrierKind::Sync { asker } => (asker, Delivery::Synced { asker }),
                BarrierKind::Failed { asker, code } => (asker, Delivery::Failed { asker, code }),
                BarrierKind::Ephemerals { asker, session, prefix } => {
                    (asker, self.listed(asker, session, &prefix))
                }
                BarrierKind::LocalClosed { asker, session } => {
                    (asker, Delivery::LocalClosed { asker, session })
                }
            };
            self.cores[usize::from(asker.connection.core)].push_and_kick(delivery);
        }
    }

    /// The answer to getEphemerals, from the tree as it is now (OP25).
    pub(super) fn listed(&self, asker: Asker, session: SessionId, prefix: &str) -> Delivery {
        let paths = self.tree.ephemerals_of(session).filter(|path| path.starts_with(prefix));
        Delivery::Ephemerals { asker, paths: paths.map(Box::from).collect() }
    }
}
