//! The newest records of the log, kept in memory: what informs, short catch-ups and applying need at hand.
//!
//! Consecutive in the order of the log: what follows `base` and is in the log is here. So a learner that has `base` or
//! more is served from memory, and one that has less from the files, whose records below `base` are durable long ago.

use bytes::Bytes;
use std::collections::VecDeque;
use zkfast_wire::Zxid;

#[derive(Debug)]
pub(super) struct Window {
    records: VecDeque<(Zxid, Bytes)>,
    bytes: usize,
    bytes_max: usize,
    /// The last record that is not here any more.
    base: Zxid,
}

impl Window {
    /// An empty window behind a log that ends at `base`. It keeps about `bytes_max` bytes.
    pub(super) const fn new(base: Zxid, bytes_max: usize) -> Self {
        Self { records: VecDeque::new(), bytes: 0, bytes_max, base }
    }

    pub(super) const fn base(&self) -> Zxid {
        self.base
    }

    /// The last record, in the log or on its way there.
    fn last(&self) -> Zxid {
        self.records.back().map_or(self.base, |(zxid, _)| *zxid)
    }

    /// The zxid that was to come, if it is not `zxid`: somebody left out what lies between. A new epoch leaves out
    /// nothing.
    pub(super) fn gap_before(&self, zxid: Zxid) -> Option<Zxid> {
        let next = Zxid(self.last().0 + 1);
        (zxid.epoch() == self.last().epoch() && zxid != next).then_some(next)
    }

    pub(super) fn push(&mut self, zxid: Zxid, record: Bytes) {
        assert!(zxid > self.last(), "{zxid} after {}", self.last());
        self.bytes += record.len();
        self.records.push_back((zxid, record));
    }

    /// Forgets the oldest records beyond the bound, but none above `keep_above`: they are not durable or not applied.
    pub(super) fn trim(&mut self, keep_above: Zxid) {
        while self.bytes > self.bytes_max
            && let Some((zxid, record)) = self.records.pop_front_if(|(zxid, _)| *zxid <= keep_above)
        {
            self.bytes -= record.len();
            self.base = zxid;
        }
    }

    /// The log was cut behind `zxid`.
    pub(super) fn truncate(&mut self, zxid: Zxid) {
        while let Some((_, record)) = self.records.pop_back_if(|(last, _)| *last > zxid) {
            self.bytes -= record.len();
        }
        self.base = self.base.min(zxid);
    }

    /// The history was replaced by an image of `zxid`.
    pub(super) fn replace(&mut self, zxid: Zxid) {
        *self = Self::new(zxid, self.bytes_max);
    }

    /// The records above `after` and not above `through`, oldest first.
    ///
    /// # Panics
    /// If some of them are not here any more.
    pub(super) fn range(&self, after: Zxid, through: Zxid) -> impl ExactSizeIterator<Item = &(Zxid, Bytes)> {
        assert!(
            after >= self.base,
            "records after {after} are asked for, the window begins behind {}",
            self.base
        );
        let start = self.records.partition_point(|(zxid, _)| *zxid <= after);
        let end = self.records.partition_point(|(zxid, _)| *zxid <= through);
        self.records.range(start..end.max(start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zkfast_wire::Epoch;

    fn z(epoch: i64, counter: u32) -> Zxid {
        Zxid::new(Epoch(epoch), counter)
    }

    fn window() -> Window {
        let mut window = Window::new(z(1, 1), 30);
        for zxid in [z(1, 2), z(1, 3), z(2, 1), z(2, 2)] {
            window.push(zxid, Bytes::from_static(&[0; 10]));
        }
        window
    }

    fn zxids(window: &Window, after: Zxid, through: Zxid) -> Vec<Zxid> {
        window.range(after, through).map(|(zxid, _)| *zxid).collect()
    }

    #[test]
    fn ranges_cross_epochs() {
        let window = window();
        assert_eq!(zxids(&window, z(1, 1), z(2, 1)), [z(1, 2), z(1, 3), z(2, 1)]);
        assert_eq!(zxids(&window, z(1, 9), z(2, 9)), [z(2, 1), z(2, 2)]);
        assert_eq!(zxids(&window, z(2, 2), z(2, 1)), []);
    }

    /// Danger: a record leaves memory before its file can be read, and a learner is sent a hole.
    #[test]
    fn what_is_not_durable_stays() {
        let mut window = window();
        window.trim(z(1, 1));
        assert_eq!(window.base(), z(1, 1));
        window.trim(z(2, 2));
        assert_eq!((window.base(), zxids(&window, z(1, 2), z(2, 2)).len()), (z(1, 2), 3));
    }

    #[test]
    fn cuts_and_replacements_move_both_ends() {
        let mut cut = window();
        cut.truncate(z(1, 3));
        cut.push(z(3, 1), Bytes::from_static(&[0; 10]));
        assert_eq!(zxids(&cut, z(1, 2), z(9, 9)), [z(1, 3), z(3, 1)]);
        cut.truncate(z(1, 0));
        assert_eq!(cut.base(), z(1, 0));
        let mut replaced = window();
        replaced.replace(z(7, 7));
        assert_eq!((replaced.base(), zxids(&replaced, z(7, 7), z(9, 9)).len()), (z(7, 7), 0));
    }

    /// Danger: an operator reads of lost transactions where there are none.
    #[test]
    fn a_gap_is_what_was_left_out_within_an_epoch() {
        let mut window = window();
        assert_eq!(window.gap_before(z(2, 3)), None);
        assert_eq!(window.gap_before(z(2, 5)), Some(z(2, 3)));
        assert_eq!(window.gap_before(z(3, 9)), None);
        window.replace(z(7, 7));
        assert_eq!((window.gap_before(z(7, 8)), window.gap_before(z(7, 9))), (None, Some(z(7, 8))));
    }

    #[test]
    #[should_panic(expected = "are asked for")]
    fn a_hole_is_never_handed_out() {
        let _ = window().range(z(1, 0), z(2, 2));
    }
}
