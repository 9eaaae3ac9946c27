//! One arm for each effect. The texts of [`Effect`] are the contract; what can be asserted of them is.

use super::{Pipeline, end_process, latency::SyncKind, or_end};
use crate::{
    pipeline::{Duty, Pending},
    storage::epochs,
};
use bytes::{Bytes, BytesMut};
use zkfast_wire::{Packet, TxnHeader, Zxid, quorum::put_touch};
use zkfast_zab::{Effect, EpochFile, Event, LinkId, Trouble};

/// Sessions told in one PING: 12 bytes each, and Apache's leader takes packets of less than 1 MiB.
const TOUCHES_PER_PING: usize = 65_536;

/// Packets of the broadcast that one look at the clock is good for.
const EVENTS_A_LOOK: u32 = 31;

impl Pipeline {
    /// Delivers an event, carries out what it led to, then delivers the events that this led to.
    pub(in crate::pipeline) fn step_member(&mut self, event: Event) {
        self.step_of_many(event);
        self.apply_committed();
    }

    /// The same as one of many: what is committed may wait for [`apply_committed`](Self::apply_committed), so that it is
    /// applied together with what the next ones commit.
    pub(super) fn step_of_many(&mut self, event: Event) {
        self.step_once(event);
        self.follow_up();
    }

    pub(super) fn follow_up(&mut self) {
        while let Some(event) = self.the_member().follow_up.pop_front() {
            self.step_once(event);
        }
    }

    /// Applies what is committed and waits for it.
    pub(super) fn apply_committed(&mut self) {
        if let Some(through) = self.the_member().committed.take() {
            self.commit(through);
        }
    }

    fn step_once(&mut self, event: Event) {
        if let Event::Down { link } = event {
            self.link_is_gone(link);
        }
        let mut effects = std::mem::take(&mut self.effects);
        let now_ms = self.time_of(&event);
        self.node.step(now_ms, event, &mut effects);
        // Before the tree or the log may change.
        self.look_after_read_only();
        self.carry_out(&mut effects);
        self.effects = effects;
    }

    /// The server's clock in milliseconds. A look at it takes 25 ns, a fiftieth of what a set costs three servers, so the
    /// packets of the broadcast that came together share one.
    fn time_of(&mut self, event: &Event) -> u64 {
        let clock = self.clock;
        let (looked_ms, more) = &mut self.the_member().looked_at_clock;
        let is_broadcast = matches!(
            event,
            Event::Packet {
                packet: Packet::Proposal { .. }
                    | Packet::Commit { .. }
                    | Packet::Inform { .. }
                    | Packet::Ack { .. }
                    | Packet::Request(_),
                ..
            }
        );
        if is_broadcast && *more > 0 {
            *more -= 1;
        } else {
            *looked_ms = clock.now_ms();
            // Whatever else happens may take its time.
            *more = if is_broadcast { EVENTS_A_LOOK } else { 0 };
        }
        *looked_ms
    }

    /// Carries out effects in their order; `effects` is empty then.
    pub(super) fn carry_out(&mut self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            self.carry_out_one(effect);
        }
    }

    fn carry_out_one(&mut self, effect: Effect) {
        if !is_blind_to_the_tree(&effect) {
            self.apply_committed();
        }
        match effect {
            Effect::Append { zxid, record } => self.append_to_history(zxid, record),
            Effect::Commit { through } if self.duty == Duty::Idle => self.commit(through),
            Effect::Commit { through } => self.the_member().committed = Some(through),
            Effect::Replay { through } => self.replay(through),
            Effect::Truncate { zxid } => self.truncate(zxid),
            Effect::Install { link, zxid } => self.install(link, zxid),
            Effect::SaveEpoch { file, epoch } => {
                let stored = match file {
                    EpochFile::Accepted => epochs::EpochFile::Accepted,
                    EpochFile::Current => epochs::EpochFile::Current,
                };
                let saved = epochs::write(&self.options.dirs.snapshots, stored, epoch);
                or_end("an epoch cannot be stored", saved);
                self.the_member().follow_up.push_back(Event::EpochSaved { file, epoch });
            }
            Effect::Dial { leader } => self.links().dial(leader),
            Effect::Close { link, because } => {
                log::info!("closing {}: {because}", Named(link));
                self.link_is_gone(link);
                self.links().close(link);
            }
            Effect::Send { link, packet } => {
                if matches!(packet, Packet::Diff { .. } | Packet::Trunc { .. }) {
                    self.the_member().standing.diffs_sent += 1;
                    self.the_member().latency.begin_sync(link, SyncKind::Diff);
                }
                self.links().send(link, &packet);
            }
            Effect::SendAcks { link, first, last } => {
                assert!(last <= self.log.durable().max(self.node.committed()), "an ACK comes after the disk");
                self.links().send_acks(link, first, last);
            }
            Effect::SendCommits { link, first, last } => self.links().send_commits(link, first, last),
            Effect::SendInforms { link, first, last } => {
                let member = self.member.as_mut().expect("a member");
                for (zxid, record) in member.window.range(Zxid(first.0 - 1), last) {
                    member.links.send_inform(link, *zxid, record);
                }
            }
            Effect::SendHistory { link, after, through, committed } => {
                self.send_history(link, after, through, committed);
            }
            Effect::SendSnapshot { link, zxid } => {
                self.the_member().standing.images_sent += 1;
                self.the_member().latency.begin_sync(link, SyncKind::Image);
                self.send_snapshot(link, zxid);
            }
            Effect::Notify { to, notification } => self.links().notify(to, notification),
            Effect::Serve { service, epoch } => self.serve(service, epoch),
            Effect::StopServing if self.is_suspended() => {
                self.end_suspension("the last leader goes on in its epoch");
            }
            // They waited for too long, and were told so.
            Effect::StopServing if self.duty == Duty::Idle => {}
            Effect::StopServing => self.stop_serving(),
            Effect::Suspend => self.suspend(),
            Effect::Look { because } => {
                self.note_look(because);
            }
            Effect::AnswerPing { link, zxid } => {
                let touched = self.the_member().learner.take_touched(TOUCHES_PER_PING);
                let mut data = BytesMut::with_capacity(12 * touched.len());
                for (session, timeout_ms) in touched {
                    put_touch(session, timeout_ms, &mut data);
                }
                let touched = Some(data.freeze());
                self.links().send(link, &Packet::Ping { zxid, touched });
            }
            Effect::Touched { link, data } => self.touch_forwarded(link, &data),
            Effect::Request { link, request } => self.take_request(link, request),
            Effect::RevalidateAsked { link, session, timeout_ms } => {
                self.the_member().standing.revalidations += 1;
                self.answer_revalidation(link, session, timeout_ms);
            }
            Effect::Revalidated { session, valid } => self.revalidated(session, valid),
            Effect::SyncDone => self.synced(),
            Effect::ConfigSeen { text } => self.see_config(&text),
            other => {
                end_process("the order asks for what this driver does not know", format_args!("{other:?}"))
            }
        }
    }

    /// Lays a record into the log, and keeps it at hand until it is applied.
    fn append_to_history(&mut self, zxid: Zxid, record: Bytes) {
        self.note_gap_before(zxid);
        let time_ms = TxnHeader::time_of(&record).unwrap_or_default();
        let member = self.the_member();
        member.latency.append(zxid, time_ms);
        member.depth.append(zxid, record.len());
        member.appended.add(record.len());
        member.window.push(zxid, record.clone());
        // A leader's own proposal waits already, with the one who asked.
        if self.pending.back().is_none_or(|last| last.zxid < zxid) {
            self.snapshots.count(record.len());
            self.counters.learner_proposals.increment();
            self.note_proposal(time_ms);
            self.counters.record_bytes.note(record.len() as u64);
            self.pending.push_back(Pending { zxid, record: record.clone(), asker: None });
        }
        self.append(zxid, record);
    }

    /// Tells of zxids that the leader left out, as Apache's follower does; often, if there are many, but not each time.
    fn note_gap_before(&mut self, zxid: Zxid) {
        // Not of the log: records may wait for room in it.
        let Some(expected) = self.the_member().window.gap_before(zxid) else {
            return;
        };
        let gaps = &mut self.the_member().gaps;
        *gaps += 1;
        let gaps = *gaps;
        if gaps.is_power_of_two() {
            log::warn!(
                "got zxid {zxid}, expected {expected}: the leader used up what lies between without a proposal, as Apache's \
                 does for a multi that it cannot prepare ({gaps} times so far)"
            );
        }
    }

    /// Applies through `through` with nobody to tell: history that this server shares with its leader, or begins to
    /// lead with.
    pub(in crate::pipeline) fn replay(&mut self, through: Zxid) {
        assert!(self.duty == Duty::Idle, "what clients see is committed first");
        while let Some(oldest) = self.pending.pop_front_if(|oldest| oldest.zxid <= through) {
            match self.tree.apply(&oldest.record) {
                Ok(applied) if self.is_suspended() => self.note_replayed(applied),
                Ok(_) => {}
                Err(error) => {
                    end_process("a transaction cannot be applied", format_args!("{}: {error}", oldest.zxid));
                }
            }
        }
        assert!(self.tree.last_applied() <= self.node.appended(), "applied what is not in the log");
    }

    fn link_is_gone(&mut self, link: LinkId) {
        let member = self.the_member();
        member.leader.forget(link);
        member.latency.end_sync(link);
        if member.installing.as_ref().is_some_and(|installing| installing.link == link) {
            // Whatever its thread has read is dropped (ZOOKEEPER-2872).
            member.installing = None;
        }
    }

    fn see_config(&mut self, text: &Bytes) {
        let own = self.the_member().options.config.ensemble.to_string();
        if **text != *own.as_bytes() {
            log::warn!(
                "the leader's configuration is not this server's own; every server of an ensemble should be started \
                 with the same server lines. The leader's:\n{}\nThis server's:\n{own}",
                String::from_utf8_lossy(text)
            );
        }
    }

    fn note_look(&mut self, because: Trouble) {
        log::info!("looking for a leader: {because}");
        self.the_member().standing.begin_search();
        self.show_standing();
    }
}

/// Whether it makes no difference to an effect if what was committed ahead of it is applied already: it fills the log or
/// a socket, or waits in a queue itself. A packet cannot leave before the turn's flush of the links.
const fn is_blind_to_the_tree(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Append { .. }
            | Effect::Commit { .. }
            | Effect::Send { .. }
            | Effect::SendAcks { .. }
            | Effect::SendCommits { .. }
            | Effect::SendInforms { .. }
            | Effect::Request { .. }
    )
}

/// A link in a log line.
struct Named(LinkId);

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "link {}", self.0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fixture, author, write_record, zxid};
    use bytes::Bytes;
    use zkfast_wire::{Epoch, OpCode, SessionId, Zxid, quorum::ForwardedRequest};
    use zkfast_zab::{Effect, Event, LinkId, Trouble};

    /// How a link ends: by itself, or because the order says so.
    fn end(fixture: &mut Fixture, link: LinkId, is_closed_here: bool) {
        if is_closed_here {
            fixture.pipeline.carry_out(&mut vec![Effect::Close { link, because: Trouble::Silent }]);
        } else {
            fixture.pipeline.step_member(Event::Down { link });
        }
    }

    /// ZOOKEEPER-2872. Danger: the image of a leader that is gone takes the place of the history that the next leader
    /// knows of.
    #[test]
    fn an_image_whose_link_is_gone_is_dropped() {
        for is_closed_here in [false, true] {
            let mut fixture = Fixture::new(10);
            let mut leader = author();
            write_record(&mut leader, Zxid::new(Epoch(2), 1), "theirs");
            let (link, _stream) = fixture.read_image(&mut leader);
            end(&mut fixture, link, is_closed_here);
            assert!(fixture.pipeline.take_image(), "its thread has read it to the end");
            assert_eq!(fixture.pipeline.tree.last_applied(), zxid(10));
            assert_eq!(fixture.snapshots(), [Zxid::ZERO]);
            let names = std::fs::read_dir(&fixture.dirs.snapshots).expect("a directory");
            let names: Vec<_> = names.map(|entry| entry.expect("a name").file_name()).collect();
            let left: Vec<_> =
                names.iter().filter(|name| name.to_string_lossy().contains("snapshot.")).collect();
            assert_eq!(left, ["snapshot.0"], "nothing of it is left lying");
        }
    }

    /// Danger: what the clients of a lost learner asked happens after they were told that their connections are lost,
    /// and maybe after they asked it again elsewhere.
    #[test]
    fn what_a_lost_learner_asked_is_forgotten() {
        for is_closed_here in [false, true] {
            let mut fixture = Fixture::new(1);
            let request = |cxid| {
                let (op, body) = (OpCode::Delete.to_i32(), Bytes::from_static(b"body"));
                Box::new(ForwardedRequest { session: SessionId(1), cxid, op, body, identities: Vec::new() })
            };
            let (lost, other) = (LinkId(1), LinkId(2));
            for (link, cxid) in [(lost, 1), (other, 2), (lost, 3)] {
                fixture.pipeline.take_request(link, request(cxid));
            }
            end(&mut fixture, lost, is_closed_here);
            let desk = &mut fixture.pipeline.the_member().leader;
            assert_eq!(desk.pop().map(|(link, request)| (link, request.cxid)), Some((other, 2)));
            assert!(desk.pop().is_none());
            assert_eq!(desk.request_bytes, 0);
        }
    }
}
