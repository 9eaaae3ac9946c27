//! What a learner is sent beside the live traffic, made piece by piece on a helper thread: a stretch of history (DIFF)
//! or an image (SNAP).

use crate::{
    config::limits,
    storage::history::{HistoryError, LogReader},
};
use bytes::Bytes;
use zkfast_tree::ImageWriter;
use zkfast_wire::{
    Packet, Zxid, jute,
    quorum::{SNAPSHOT_SIGNATURE, TAIL, encode_commits, proposal_head},
};

/// A stretch of history: PROPOSAL and, for what is committed, COMMIT of each record (row Q50). First those of the
/// files, then those of the window.
pub(super) struct HistorySource {
    files: Option<LogReader>,
    records: std::vec::IntoIter<(Zxid, Bytes)>,
    committed: Zxid,
}

impl HistorySource {
    /// The stretch `records`; what is not above `committed` is told as committed.
    pub(super) fn new(records: Vec<(Zxid, Bytes)>, committed: Zxid) -> Self {
        Self { files: None, records: records.into_iter(), committed }
    }

    /// What `files` tell comes first.
    pub(super) fn begin_with(&mut self, files: LogReader) {
        self.files = Some(files);
    }

    /// Appends the next piece; true while there is more.
    ///
    /// # Errors
    /// The files do not hold what they should: the link must be closed.
    pub(super) fn next_piece(&mut self, out: &mut Vec<u8>) -> Result<bool, HistoryError> {
        let end = out.len() + limits::HISTORY_PIECE_BYTES;
        while out.len() < end {
            if let Some(files) = &mut self.files {
                match files.next_record()? {
                    Some((zxid, record)) => put(zxid, record, self.committed, out),
                    None => self.files = None,
                }
            } else if let Some((zxid, record)) = self.records.next() {
                put(zxid, &record, self.committed, out);
            } else {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn put(zxid: Zxid, record: &[u8], committed: Zxid, out: &mut Vec<u8>) {
    out.extend_from_slice(&proposal_head(zxid, record.len()));
    out.extend_from_slice(record);
    out.extend_from_slice(&TAIL);
    if zxid <= committed {
        encode_commits(zxid, zxid, out);
    }
}

/// SNAP, the image and the signature (row Q54).
pub(super) struct ImageSource {
    image: ImageWriter,
    is_begun: bool,
}

impl ImageSource {
    /// The image is pinned at the zxid that SNAP names.
    pub(super) const fn new(image: ImageWriter) -> Self {
        Self { image, is_begun: false }
    }

    /// Appends the next piece; true while there is more.
    pub(super) fn next_piece(&mut self, out: &mut Vec<u8>) -> bool {
        if !std::mem::replace(&mut self.is_begun, true) {
            Packet::Snap { zxid: self.image.zxid() }.encode(out);
        }
        if self.image.next_chunk(out) {
            return true;
        }
        jute::put_text(out, SNAPSHOT_SIGNATURE);
        false
    }
}
