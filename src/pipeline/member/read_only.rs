//! Reads without a leader (rows S16, S17; ZooKeeper's `ReadOnlyZooKeeperServer`): a member that looks for a leader in vain
//! serves clients that said that they only want to read, from the state that it has, until there is a leader. What they
//! see may be old, and may hold what the log has and no quorum: as with Apache's.

use super::Pipeline;
use crate::{
    cores::messages::{CloseReason, Delivery, Submission},
    pipeline::Duty,
};
use zkfast_wire::ErrorCode;
use zkfast_zab::Role;

/// The least time without a leader before reads are served (`QuorumPeer.run`), milliseconds.
const LOOKING_MS_MIN: u64 = 2000;

impl Pipeline {
    /// Begins to serve reads once there was no leader for a while.
    pub(super) fn look_for_read_only(&mut self) {
        let now_ms = self.clock.now_ms();
        let patience_ms = LOOKING_MS_MIN.max(self.options.tick_ms.into());
        let is_looking = self.node.role() == Role::Looking;
        let view = self.tree.last_applied();
        let member = self.the_member();
        if !member.options.read_only || !is_looking {
            member.looking_since_ms = None;
            return;
        }
        let since_ms = *member.looking_since_ms.get_or_insert(now_ms);
        if member.is_read_only || now_ms - since_ms < patience_ms {
            return;
        }
        member.is_read_only = true;
        member.viewed = view;
        self.show_config();
        for core in &mut self.cores {
            core.push_and_kick(Delivery::ServeReadOnly(Box::new(self.tree.reader())));
        }
        self.the_member().options.board.set_serving(true);
        log::info!("no leader for {patience_ms} ms: serving clients that only read, at {view}");
        self.show_standing();
    }

    /// Ends that when the search is over: the clients come back, here or elsewhere, to a server that takes writes.
    pub(super) fn look_after_read_only(&mut self) {
        if !self.the_member().is_read_only || self.node.role() == Role::Looking {
            return;
        }
        assert!(self.duty == Duty::Idle, "no role was served");
        self.sessions.clear();
        let member = self.member.as_mut().expect("a member");
        member.is_read_only = false;
        if let Some(local) = &mut member.local {
            local.clear();
        }
        member.options.board.set_serving(false);
        for core in &mut self.cores {
            core.awaits_quiet = true;
            core.push_and_kick(Delivery::StopServing);
        }
        log::info!("there is a leader: not serving reads alone any more");
        self.count_local();
    }

    /// What is not of a local session, on a read-only server; hands back what is the same in every role.
    pub(super) fn answer_read_only(&mut self, submission: Submission) -> Option<Submission> {
        match submission {
            Submission::OpenSession { connection, .. } => {
                let delivery = Delivery::NotReadOnly { connection };
                self.cores[usize::from(connection.core)].push_and_kick(delivery);
            }
            // Apache tells who names a session that it does not know that it has expired (`ReadOnlyZooKeeperServer`,
            // validateSession). But it may be one that the others made since this server lost them.
            Submission::ResumeSession { connection, .. } => {
                let delivery = Delivery::Close { connection, reason: CloseReason::ReadOnly };
                self.cores[usize::from(connection.core)].push_and_kick(delivery);
            }
            Submission::Write(write) => {
                let (asker, code) = (write.asker, ErrorCode::NOT_READ_ONLY);
                self.cores[usize::from(asker.connection.core)]
                    .push_and_kick(Delivery::Failed { asker, code });
            }
            Submission::GetEphemerals { asker, session, prefix } => {
                let delivery = self.listed(asker, session, &prefix);
                self.cores[usize::from(asker.connection.core)].push_and_kick(delivery);
            }
            Submission::Gone { connection, session, .. } => self.sessions.disconnect(session, connection),
            // The client cores refuse it; sessions of the ensemble have no deadline here.
            Submission::Sync { .. } | Submission::Touch(_) => {}
            submission @ (Submission::Gather(_) | Submission::Gathered(_) | Submission::Quiet) => {
                return Some(submission);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixture::Fixture, LOOKING_MS_MIN, Role};

    /// Danger: at each change of leader clients that may read alone are served old state for a moment, and sent away again.
    #[test]
    fn reads_are_served_alone_after_a_while_only() {
        let mut fixture = Fixture::new(1);
        fixture.pipeline.the_member().options.read_only = true;
        assert_eq!(fixture.pipeline.node.role(), Role::Looking);
        for _ in 0..2 {
            fixture.pipeline.look_for_read_only();
        }
        let begun_ms = fixture.pipeline.the_member().looking_since_ms.expect("it looks");
        if fixture.pipeline.clock.now_ms() - begun_ms < LOOKING_MS_MIN {
            assert!(!fixture.pipeline.the_member().is_read_only, "that was no while");
            assert!(fixture.take_told().is_empty());
        }
    }
}
