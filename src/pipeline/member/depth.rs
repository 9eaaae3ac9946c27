//! How deep the log lies above each transaction, in bytes: whether a learner that was away is sent the records that it
//! missed or an image (rows Q49, Q51).
//!
//! Apache's leader adds up the files that it would have to send, `snapshotSizeFactor` of the newest snapshot's file being
//! the most (`ZKDatabase.calculateTxnLogSizeLimit`). Here the records count, not the space that files were given ahead of
//! need; and a stretch of [`ALWAYS_BYTES`] is always worth sending, for a learner that takes an image over has no history
//! of its own to tell any more.

use std::collections::VecDeque;
use zkfast_wire::Zxid;

/// Bytes of log between two marks.
const MARK_BYTES: u64 = 256 << 10;

/// Marks that are kept: 16 GiB of log. What lies below is dearer than any image that a server's memory holds.
const MARKS_MAX: usize = 65_536;

/// A stretch of history that is sent whatever the image's size.
const ALWAYS_BYTES: u64 = 1 << 20;

/// Marks along the log, oldest first: a zxid, and the bytes appended up to it.
#[derive(Debug, Default)]
pub(super) struct LogDepth {
    marks: VecDeque<(Zxid, u64)>,
    bytes: u64,
}

impl LogDepth {
    /// Of a log that ends at `last`, and its files at the start: for each the zxid before its first record, and its
    /// bytes; oldest first.
    pub(super) fn of_files(files: &[(Zxid, u64)], last: Zxid) -> Self {
        let mut this = Self::default();
        for (before, bytes) in files {
            this.marks.push_back((*before, this.bytes));
            this.bytes += bytes;
        }
        this.marks.push_back((last, this.bytes));
        this
    }

    /// A record is appended.
    pub(super) fn append(&mut self, zxid: Zxid, bytes: usize) {
        self.bytes += bytes as u64;
        if self.marks.back().is_none_or(|(_, marked)| self.bytes - marked >= MARK_BYTES) {
            self.marks.push_back((zxid, self.bytes));
            if self.marks.len() > MARKS_MAX {
                self.marks.pop_front();
            }
        }
    }

    /// The log ends at `zxid` from now on.
    pub(super) fn truncate(&mut self, zxid: Zxid) {
        while self.marks.pop_back_if(|(marked, _)| *marked > zxid).is_some() {}
        self.bytes = self.marks.back().map_or(0, |(_, bytes)| *bytes);
    }

    /// The log was replaced by an image of `zxid`.
    pub(super) fn replace(&mut self, zxid: Zxid) {
        *self = Self { marks: VecDeque::from([(zxid, 0)]), bytes: 0 };
    }

    /// Records above this one are cheaper than an image of `image_bytes`, 0 if there is none yet. A negative `factor`
    /// never sends from the files.
    pub(super) fn cheap_from(&self, image_bytes: u64, factor: f64) -> Zxid {
        if factor < 0.0 {
            return Zxid(i64::MAX);
        }
        if image_bytes == 0 {
            return Zxid(i64::MIN);
        }
        let most = ((image_bytes as f64 * factor) as u64).max(ALWAYS_BYTES);
        let first = self.marks.partition_point(|(_, bytes)| self.bytes - bytes > most);
        self.marks.get(first).map_or(Zxid(i64::MAX), |(zxid, _)| *zxid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Danger: a learner is sent gigabytes of log where the image has some kilobytes, or an image of gigabytes for a few
    /// records.
    #[test]
    fn the_factor_of_the_image_is_the_most() {
        let mut depth = LogDepth::of_files(&[(Zxid(0), 8 << 20), (Zxid(100), 4 << 20)], Zxid(200));
        for zxid in 201..=300 {
            depth.append(Zxid(zxid), 64 << 10);
        }
        let mib = 1 << 20;
        let check = |image_bytes, factor, expected: std::ops::RangeInclusive<i64>| {
            let from = depth.cheap_from(image_bytes, factor).0;
            assert!(expected.contains(&from), "{image_bytes} bytes, factor {factor}: {from}");
        };
        check(100 * mib, 0.33, 0..=0);
        check(16 * mib, 0.75, 100..=100);
        check(8 * mib, 0.5, 232..=240);
        check(1, 0.33, 280..=290);
        check(1, -1.0, i64::MAX..=i64::MAX);
        check(0, 0.33, i64::MIN..=i64::MIN);
    }

    #[test]
    fn cuts_and_replacements_are_followed() {
        let mut depth = LogDepth::of_files(&[], Zxid(0));
        for zxid in 1..=100 {
            depth.append(Zxid(zxid), 64 << 10);
        }
        depth.truncate(Zxid(20));
        assert!((1 << 20..2 << 20).contains(&depth.bytes), "{}", depth.bytes);
        depth.replace(Zxid(500));
        depth.append(Zxid(501), 10);
        assert_eq!(depth.cheap_from(10, 0.0), Zxid(500));
    }
}
