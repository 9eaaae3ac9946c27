//! What a learner is sent that is not live traffic: history from memory or from the files, or an image.

use super::{
    Pipeline,
    pace::Pace,
    sources::{HistorySource, ImageSource},
};
use crate::{config::limits, storage::history::LogReader};
use std::{io, time::Instant};
use zkfast_wire::Zxid;
use zkfast_zab::{Event, LinkId};

/// Newest records of a long stretch that are sent from memory, and more of them where the disk is slower than the others'.
const FROM_MEMORY_MAX: usize = 32_768;

impl Pipeline {
    /// Queues the records above `after` through `through`, those up to `committed` with their COMMIT.
    pub(super) fn send_history(&mut self, link: LinkId, after: Zxid, through: Zxid, committed: Zxid) {
        let member = self.member.as_mut().expect("a member");
        let is_at_hand = after >= member.window.base();
        let few = is_at_hand && {
            // Looks no further than it must: the window may hold a hundred thousand records.
            let mut bytes = member.window.range(after, through).scan(0, |sum, (_, record)| {
                *sum += record.len();
                Some(*sum)
            });
            bytes.all(|bytes| bytes <= limits::STREAM_PIECE_BYTES)
        };
        if few {
            for (zxid, record) in member.window.range(after, through) {
                member.links.send_proposal(link, *zxid, record);
                if *zxid <= committed {
                    member.links.send_commits(link, *zxid, *zxid);
                }
            }
            member.links.mark_transferred(link, through);
            return;
        }
        log::info!("sending the records above {after} through {through} on link {}", link.0);
        let dirs = self.options.dirs.clone();
        // Only the newest are taken from memory: the thread reads the others, and the pinned one has clients to serve.
        let at_hand = member.window.range(after.max(member.window.base()), through);
        let durable = self.log.durable().min(through);
        let in_files = member.window.range(after.max(member.window.base()), durable).len();
        let from_files = at_hand.len().saturating_sub(FROM_MEMORY_MAX).min(in_files);
        let records: Vec<_> = at_hand.skip(from_files).cloned().collect();
        let mut files_end = member.window.base().min(through);
        if from_files > 0 {
            let mut at_hand = member.window.range(after.max(member.window.base()), through);
            files_end = at_hand.nth(from_files - 1).map_or(files_end, |(zxid, _)| *zxid);
        }
        assert!(files_end <= self.log.durable(), "what is read from the files is durable");
        let mut needs_files = files_end > after;
        let mut source = HistorySource::new(records, committed);
        let appended = member.appended.clone();
        let mut pace = Pace::new(Instant::now(), appended.get());
        let stream = move |out: &mut Vec<u8>| -> io::Result<bool> {
            if std::mem::take(&mut needs_files) {
                // Here and not before: to list and open files is the thread's work.
                source.begin_with(LogReader::new(&dirs, after, files_end)?);
            }
            let more = source.next_piece(out).map_err(io::Error::other)?;
            let pause = pace.pause(out.len(), Instant::now(), appended.get());
            if more && !pause.is_zero() {
                std::thread::sleep(pause);
            }
            Ok(more)
        };
        let started = member.links.stream(link, through, Box::new(stream));
        self.note_stream(link, started);
    }

    /// Queues SNAP, an image of the tree as it is now, and the signature.
    pub(super) fn send_snapshot(&mut self, link: LinkId, zxid: Zxid) {
        assert!(self.tree.last_applied() == zxid, "the tree shows {}, not {zxid}", self.tree.last_applied());
        let mut source = ImageSource::new(self.tree.image());
        let stream = Box::new(move |out: &mut Vec<u8>| Ok(source.next_piece(out)));
        let started = self.links().stream(link, zxid, stream);
        log::info!("sending an image of the state at {zxid} on link {}", link.0);
        self.note_stream(link, started);
    }

    fn note_stream(&mut self, link: LinkId, started: io::Result<()>) {
        if let Err(error) = started {
            log::error!("no thread can be had to send history: {error}; the learner has to come again");
            self.links().close(link);
            self.the_member().follow_up.push_back(Event::Down { link });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::fixture::{Fixture, zxid},
        FROM_MEMORY_MAX,
    };
    use bytes::Bytes;
    use std::io::Read;
    use zkfast_wire::{ErrorCode, OpCode, Packet, SessionId, Txn, TxnHeader, quorum::Direction};
    use zkfast_zab::{Effect, Event};

    /// Danger: the leader's disk hangs while the others commit more than is sent from memory, a learner joins, and is sent from
    /// the files what is not in them yet.
    #[test]
    fn what_is_not_durable_is_sent_from_memory() {
        let mut fixture = Fixture::new(10);
        let mut next = 10;
        let mut lay = |fixture: &mut Fixture| loop {
            let (kind, session) = (OpCode::Error, SessionId(9));
            let header = TxnHeader { session, cxid: 1, zxid: zxid(next + 1), time_ms: 1, kind };
            let mut record = Vec::new();
            Txn::Error(ErrorCode::NO_NODE).encode_record(&header, &mut record);
            if !fixture.pipeline.log.room(record.len()) {
                return next;
            }
            next += 1;
            fixture.pipeline.carry_out(&mut vec![Effect::Append { zxid: zxid(next), record: record.into() }]);
        };
        lay(&mut fixture);
        // Nobody asks how it ends, as if it hung.
        fixture.pipeline.log.flush().expect("a disk");
        let last = lay(&mut fixture);
        assert!(fixture.pipeline.log.durable() == zxid(10) && last as usize > FROM_MEMORY_MAX + 10);
        let (link, mut learner) = fixture.dial();
        fixture.pipeline.send_history(link, zxid(10), zxid(last), zxid(last));
        let end = Event::Transferred { link, through: zxid(last) };
        let reader = std::thread::spawn(move || std::io::copy(&mut learner, &mut std::io::sink()));
        fixture.await_event("the end of the history", |event| (*event == end).then_some(()));
        drop(fixture);
        assert!(reader.join().expect("no panic").is_ok_and(|bytes| bytes > 60 * u64::from(last)));
    }

    /// Row Q50. Danger: a learner that joins is told COMMIT of a proposal that has no quorum yet, and shows its clients
    /// what may never have happened.
    #[test]
    fn history_is_told_as_committed_as_far_as_it_is() {
        // From memory alone, and from the files first.
        for after in [10, 2] {
            let mut fixture = Fixture::new(10);
            fixture.append(5);
            let (link, mut learner) = fixture.dial();
            fixture.pipeline.send_history(link, zxid(after), zxid(15), zxid(13));
            let end = Event::Transferred { link, through: zxid(15) };
            fixture.await_event("the end of the history", |event| (*event == end).then_some(()));
            fixture.pipeline.links().close(link);
            let mut bytes = Vec::new();
            learner.read_to_end(&mut bytes).expect("all that was sent");
            let (mut bytes, mut told) = (Bytes::from(bytes), Vec::new());
            while let Some((packet, taken)) =
                Packet::decode(&bytes, Direction::ToLearner, 1 << 20).expect("packets")
            {
                told.push(match packet {
                    Packet::Proposal { zxid, .. } => ("PROPOSAL", zxid),
                    Packet::Commit { zxid } => ("COMMIT", zxid),
                    other => panic!("{other:?} is no history"),
                });
                bytes = bytes.slice(taken..);
            }
            assert!(bytes.is_empty());
            let mut expected = Vec::new();
            for counter in after + 1..=15 {
                expected.push(("PROPOSAL", zxid(counter)));
                if counter <= 13 {
                    expected.push(("COMMIT", zxid(counter)));
                }
            }
            assert_eq!(told, expected, "after {after}");
        }
    }
}
