//! When a member's clients are served, and what begins and ends with it (rows Q56, Q59, S8).

use super::{LeaderDesk, LearnerDesk, Pipeline};
use crate::{
    cores::{clock, messages::Delivery},
    pipeline::Duty,
};
use zkfast_wire::{Epoch, Zxid};
use zkfast_zab::Service;

impl Pipeline {
    /// A role has come to stand. Everything that clients will see is committed.
    pub(super) fn serve(&mut self, service: Service, epoch: Epoch) {
        let (shown, committed) = (self.tree.last_applied(), self.node.committed());
        assert!(self.duty == Duty::Idle, "a role ends before the next one begins");
        assert!(shown <= committed, "clients would see {shown}, and {committed} is committed");
        let serves_clients = service != Service::Leading || self.the_member().options.leader_serves;
        if self.is_suspended() && !serves_clients {
            self.end_suspension("this server leads now, and leaves clients to the others");
        }
        let is_resumed = self.is_suspended();
        assert!(self.steps.is_empty() && self.barriers.is_empty());
        self.duty = match service {
            Service::Leading => Duty::Orders,
            Service::Following | Service::Observing => Duty::Forwards,
        };
        self.tree.discard_pending();
        if !is_resumed {
            self.show_config();
        }
        if self.duty == Duty::Orders {
            assert!(self.pending.is_empty(), "a reign begins with its whole history applied");
            // S8: nobody expires for what happened under another leader.
            self.sessions.track_all(&self.tree, self.clock.now_ms());
        }
        if is_resumed {
            self.resume();
        } else if serves_clients {
            for core in &mut self.cores {
                core.push_and_kick(Delivery::Serve(Box::new(self.tree.reader())));
            }
        }
        let member = self.member.as_mut().expect("a member");
        member.options.board.set_serving(serves_clients);
        member.viewed = self.tree.last_applied();
        let role = match service {
            Service::Leading => "leading",
            Service::Following => "following",
            Service::Observing => "observing",
        };
        log::info!("{role} in epoch {}: serving clients at {shown}", epoch.0);
        if service != Service::Leading {
            self.note_in_step(service == Service::Observing);
        }
        self.begin_standing();
        self.publish();
    }

    /// Shows the ensemble's configuration to clients (T44). While nobody is served.
    pub(super) fn show_config(&mut self) {
        let ensemble = &self.member.as_ref().expect("a member").options.config.ensemble;
        let (text, version) = (ensemble.to_string(), Zxid(ensemble.version));
        self.tree.set_config(&text, version, clock::wall_ms());
    }

    /// The role ended. Clients are told by closing their connections, and nothing that they asked before will be
    /// answered or done any more, unless it is in the log already.
    pub(super) fn stop_serving(&mut self) {
        assert!(self.duty != Duty::Idle, "nobody was served");
        // What was committed is told to the end.
        self.push_batch();
        self.duty = Duty::Idle;
        for pending in &mut self.pending {
            pending.asker = None;
        }
        self.barriers.clear();
        self.tree.discard_pending();
        self.the_member().viewed = self.tree.last_applied();
        self.drop_clients();
    }

    /// Has all connections closed, and forgets what was asked on them.
    pub(super) fn drop_clients(&mut self) {
        self.sessions.clear();
        let member = self.member.as_mut().expect("a member");
        if let Some(local) = &mut member.local {
            local.clear();
        }
        member.learner = LearnerDesk::default();
        member.leader = LeaderDesk::default();
        member.held.clear();
        member.options.board.set_serving(false);
        for core in &mut self.cores {
            core.awaits_quiet = true;
            core.push_and_kick(Delivery::StopServing);
        }
        log::info!("not serving clients any more");
    }

    /// While nobody is served the client cores' views move along with the tree, so that old versions can go.
    pub(super) fn tell_view(&mut self) {
        let view = self.tree.last_applied();
        let member = self.member.as_mut().expect("a member");
        if self.duty != Duty::Idle || member.suspension.is_some() || member.viewed >= view {
            return;
        }
        member.viewed = view;
        for core in &mut self.cores {
            core.push(Delivery::View(view));
            core.kick |= core.lanes.deliveries.is_quarter_full();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{
        BarrierKind,
        member::{
            desk::{Asked, Owner, Unanswered},
            fixture::{Fixture, asker},
        },
    };
    use zkfast_wire::SessionId;
    use zkfast_zab::LinkId;

    /// Danger: what clients asked in one role is answered, or done, in the next one, after they were told that their
    /// connections are lost.
    #[test]
    fn what_was_asked_in_a_role_ends_with_it() {
        let mut fixture = Fixture::new(1);
        fixture.append(1);
        let pipeline = &mut fixture.pipeline;
        pipeline.duty = Duty::Orders;
        pipeline.pending[0].asker = Some(asker(1));
        pipeline.add_barrier(BarrierKind::Sync { asker: asker(2) });
        let connection = asker(3).connection;
        let open = Asked::Open { session: SessionId(7), connection, timeout_ms: 4000 };
        pipeline.the_member().held.push_back(Unanswered::Request(open));
        pipeline.sessions.connect_only(SessionId(8), connection);
        let (moved, learner) = (SessionId(9), Owner::Learner(LinkId(1)));
        pipeline.own_here(moved);
        pipeline.stop_serving();
        assert!(pipeline.the_member().leader.may_speak(moved, learner), "it moved under another leader");
        assert!(pipeline.pending[0].asker.is_none() && pipeline.barriers.is_empty() && !pipeline.has_held());
        assert!(!pipeline.sessions.is_connected(SessionId(8)));
        assert!(pipeline.cores.iter().all(|core| core.awaits_quiet), "they may not have heard of it yet");
        let told = fixture.take_told();
        assert!(matches!(&told[..], [Delivery::StopServing]), "{told:?}");
    }
}
