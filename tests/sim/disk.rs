//! A server's disk and the page cache before it: what was written, what of it is synced, what a loss of power leaves.
//!
//! The log, the snapshots and the two epoch files of the real server, reduced to what the protocol can notice. One
//! list of entries is the whole history of this disk; marks on it say which part is in a snapshot, which part is still
//! in the log, and which part is synced.

use crate::rng::{Rng, mix};
use std::rc::Rc;
use zkfast_wire::{Epoch, Zxid};
use zkfast_zab::{EpochFile, Recovered, Tail};

/// One transaction, and the digest of the history that ends with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub zxid: Zxid,
    pub payload: u64,
    pub digest: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// The history, as written; shared with the images made of it.
    entries: Rc<Vec<Entry>>,
    /// So many entries survive a loss of power, by the log.
    synced: usize,
    /// So many are in the newest snapshot, which is synced.
    snapshot: usize,
    /// The first so many are in no log file any more.
    purged: usize,
    pub accepted_epoch: Option<Epoch>,
    pub current_epoch: Option<Epoch>,
}

impl Disk {
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn last(&self) -> Zxid {
        self.entries.last().map_or(Zxid::ZERO, |entry| entry.zxid)
    }

    /// How many entries lie at or below `zxid`.
    pub fn count_through(&self, zxid: Zxid) -> usize {
        self.entries.partition_point(|entry| entry.zxid <= zxid)
    }

    pub fn contains(&self, zxid: Zxid) -> bool {
        zxid == Zxid::ZERO || self.entries.binary_search_by_key(&zxid, |entry| entry.zxid).is_ok()
    }

    /// How many entries the log has synced.
    pub fn synced(&self) -> usize {
        self.synced
    }

    /// How many entries a loss of power would leave.
    pub fn durable(&self) -> usize {
        self.synced.max(self.snapshot)
    }

    pub fn append(&mut self, zxid: Zxid, payload: u64) {
        assert!(zxid > self.last());
        let before = self.entries.last().map_or(0, |entry| entry.digest);
        let digest = mix(mix(before, zxid.0 as u64), payload);
        Rc::make_mut(&mut self.entries).push(Entry { zxid, payload, digest });
    }

    /// A flush that covered the first `count` entries is complete.
    pub fn flushed(&mut self, count: usize) {
        assert!(count <= self.entries.len());
        self.synced = self.synced.max(count);
    }

    pub fn save_epoch(&mut self, file: EpochFile, epoch: Epoch) {
        match file {
            EpochFile::Accepted => self.accepted_epoch = Some(epoch),
            EpochFile::Current => self.current_epoch = Some(epoch),
        }
    }

    /// Writes a snapshot of the first `count` entries, and purges log files before `purge`.
    pub fn snapshot(&mut self, count: usize, purge: usize) {
        assert!(purge <= count && count <= self.entries.len());
        self.snapshot = self.snapshot.max(count);
        self.purged = self.purged.max(purge);
    }

    /// The last zxid that is in no log file any more.
    pub fn floor(&self) -> Zxid {
        self.purged.checked_sub(1).map_or(Zxid::ZERO, |last| self.entries[last].zxid)
    }

    /// Cuts the log after `zxid` and syncs it.
    pub fn truncate(&mut self, zxid: Zxid) {
        let count = self.count_through(zxid);
        Rc::make_mut(&mut self.entries).truncate(count);
        self.synced = count;
        self.snapshot = self.snapshot.min(count);
        self.purged = self.purged.min(count);
    }

    /// Cuts the log after `zxid`, as an installation does; the snapshots stay until the new one has its name.
    pub fn cut_log(&mut self, zxid: Zxid) {
        let count = self.count_through(zxid);
        if count >= self.snapshot {
            return self.truncate(zxid);
        }
        let snapshot = self.snapshot;
        Rc::make_mut(&mut self.entries).truncate(snapshot);
        (self.synced, self.purged) = (snapshot, snapshot);
    }

    /// The history as an image for a learner.
    pub fn image(&self, zxid: Zxid) -> Rc<Vec<Entry>> {
        let count = self.count_through(zxid);
        if count == self.entries.len() {
            Rc::clone(&self.entries)
        } else {
            Rc::new(self.entries[..count].to_vec())
        }
    }

    /// The rename that makes an image the newest snapshot. What the log held is superseded.
    pub fn install(&mut self, image: Rc<Vec<Entry>>) {
        let count = image.len();
        self.entries = image;
        (self.synced, self.snapshot, self.purged) = (count, count, count);
    }

    /// Power is lost: of what was not synced, some whole records may have reached the medium; the next is torn and cut
    /// off at recovery.
    pub fn lose_power(&mut self, rng: &mut Rng) {
        let durable = self.durable();
        let unsynced = self.entries.len() - durable;
        let kept = match rng.below(3) {
            0 => 0,
            1 => unsynced,
            _ => rng.below(unsynced as u64 + 1) as usize,
        };
        Rc::make_mut(&mut self.entries).truncate(durable + kept);
        if durable > self.synced {
            // The snapshot is ahead of the log (a quorum committed before this disk flushed): whatever the log holds
            // does not follow on it, so nothing before it can be told.
            Rc::make_mut(&mut self.entries).truncate(durable);
            self.purged = durable;
        }
        self.synced = self.entries.len();
    }

    /// The real recovery found this: nothing durable is gone, nothing is there that was not written.
    pub fn recovered_as(&mut self, last: Zxid, history: &Recovered) {
        let kept = self.count_through(last);
        assert!(kept >= self.durable(), "{} of {} durable entries are left", kept, self.durable());
        assert!(self.contains(last), "{last} was never written");
        Rc::make_mut(&mut self.entries).truncate(kept);
        (self.synced, self.snapshot) = (kept, self.snapshot.min(kept));
        self.purged = self.count_through(history.tail.floor());
        assert!(self.contains(history.tail.floor()), "history is told from a state that never was");
        let told =
            Tail::with_records(self.floor(), self.entries[self.purged..].iter().map(|entry| entry.zxid));
        assert!(told == history.tail, "told is {:?}, written was {told:?}", history.tail);
        assert!(history.accepted_epoch == self.accepted_epoch && history.current_epoch == self.current_epoch);
    }

    /// Whether the next start finds the same number without the file.
    pub fn can_do_without(&self, file: EpochFile) -> bool {
        let of_log = self.last().epoch();
        match file {
            EpochFile::Accepted => {
                self.accepted_epoch == Some(self.current_epoch.unwrap_or(of_log).max(of_log))
            }
            EpochFile::Current => self.current_epoch == Some(of_log),
        }
    }

    /// Somebody removed the file.
    pub fn lose_epoch(&mut self, file: EpochFile) {
        match file {
            EpochFile::Accepted => self.accepted_epoch = None,
            EpochFile::Current => self.current_epoch = None,
        }
    }

    /// What the next start finds.
    pub fn recovered(&self) -> Recovered {
        let zxids = self.entries[self.purged..].iter().map(|entry| entry.zxid);
        Recovered {
            tail: Tail::with_records(self.floor(), zxids),
            accepted_epoch: self.accepted_epoch,
            current_epoch: self.current_epoch,
        }
    }
}
