//! What a learner is sent that is not live traffic: history from memory or from the files, or an image.

use super::{
    Pipeline,
    sources::{HistorySource, ImageSource},
};
use crate::{config::limits, storage::history::LogReader};
use std::io;
use zkfast_wire::Zxid;
use zkfast_zab::{Event, LinkId};

impl Pipeline {
    /// Queues the records above `after` through `through`, those up to `committed` with their COMMIT.
    pub(super) fn send_history(&mut self, link: LinkId, after: Zxid, through: Zxid, committed: Zxid) {
        let member = self.member.as_mut().expect("a member");
        let is_at_hand = after >= member.window.base();
        let records: Vec<_> =
            member.window.range(after.max(member.window.base()), through).cloned().collect();
        let bytes: usize = records.iter().map(|(_, record)| record.len()).sum();
        if is_at_hand && bytes <= limits::STREAM_PIECE_BYTES {
            for (zxid, record) in &records {
                member.links.send_proposal(link, *zxid, record);
                if *zxid <= committed {
                    member.links.send_commits(link, *zxid, *zxid);
                }
            }
            member.links.mark_transferred(link, through);
            return;
        }
        let dirs = self.options.dirs.clone();
        let files_end = member.window.base().min(through);
        let mut needs_files = !is_at_hand;
        let mut source = HistorySource::new(records, committed);
        let stream = move |out: &mut Vec<u8>| -> io::Result<bool> {
            if std::mem::take(&mut needs_files) {
                // Here and not before: to list and open files is the thread's work.
                source.begin_with(LogReader::new(&dirs, after, files_end)?);
            }
            source.next_piece(out).map_err(io::Error::other)
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
