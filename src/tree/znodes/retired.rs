//! Who may still look at what: views, quiescent points, and the records that wait to be freed. Part of the version
//! store.
//!
//! Every reader publishes two numbers, and does so only while it holds no reference into the tree (`publish` takes
//! `&mut`, and every reference borrows the reader):
//! * its **view**: it will never read at an earlier one. A *pinned* reader (a running image) stays at exactly its view;
//! * the **epoch** that it saw: whatever was unlinked before that epoch began, it cannot reach any more.
//!
//! A superseded version V with successor S is needed by the views from V's zxid up to S's (exclusive). It is freed
//! when no reader is in that range or may still come into it. With an image running, versions that were born after
//! the image's view are of no use to it but may lie on its way to the one it needs, so they are first unlinked and
//! then freed after a quiescent point. So a node that is set a million times while an image is written keeps one old
//! version, not a million.
//!
//! A deleted slot goes the same way: once no view sees it, it leaves the path table and its parent's list, and is freed
//! after a quiescent point of every reader.
//!
//! Freeing is paced: a few records per transaction, so that no transaction pays for a million others.

use super::{
    Shared,
    table::{Fill, OldRun, Table},
    znode::{Family, Slot, Version},
};
use std::{
    collections::VecDeque,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
};

/// Transactions between two looks at the readers: each look fetches one cache line per core.
const LOOK_INTERVAL: u32 = 64;
/// Records freed per transaction. A transaction retires at most two or three; a multi's surplus drains over the next.
const FREED_PER_STEP: usize = 8;

/// The record this far behind the next one to be freed is fetched into the caches: it was last touched when it was
/// superseded, thousands of records ago.
const PREFETCHED_AHEAD: usize = 16;

/// What one reader publishes. On a cache line pair of its own: its core writes it once a turn.
#[repr(align(128))]
pub(super) struct ReaderCell {
    view: AtomicI64,
    epoch: AtomicU64,
    gone: AtomicBool,
    pinned: bool,
}

impl ReaderCell {
    pub(super) fn new(view: i64, epoch: u64, pinned: bool) -> Self {
        Self {
            view: AtomicI64::new(view),
            epoch: AtomicU64::new(epoch),
            gone: AtomicBool::new(false),
            pinned,
        }
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// The reader holds no reference now and will not read below `view`.
    pub(super) fn publish(&self, view: i64, epoch: u64) {
        self.view.store(view, Ordering::Release);
        self.epoch.store(epoch, Ordering::Release);
    }

    pub(super) fn leave(&self) {
        self.gone.store(true, Ordering::Release);
    }
}

/// A record that was superseded or deleted.
pub(super) struct Retired {
    /// The first view that sees it.
    from: i64,
    /// The first view that does not see it any more.
    until: i64,
    record: Record,
}

enum Record {
    Version { version: *mut Version, successor: *mut Version },
    Family { family: *mut Family, successor: *mut Family },
    Slot(NonNull<Slot>),
}

impl Record {
    /// Where it lies, for fetching it into the caches ahead of its end.
    fn address(&self) -> *const u8 {
        match self {
            Self::Version { version, .. } => version.cast_const().cast(),
            Self::Family { family, .. } => family.cast_const().cast(),
            Self::Slot(slot) => slot.as_ptr().cast_const().cast(),
        }
    }
}

/// A record that is unlinked and waits for the readers' next quiescent point.
enum Unlinked {
    Version(*mut Version),
    Family(*mut Family),
    Slot(NonNull<Slot>),
    Run(OldRun),
}

/// The writer's books about readers and retired records.
pub(super) struct Retirement {
    readers: Vec<Arc<ReaderCell>>,
    /// In the order of `until`.
    retired: VecDeque<Retired>,
    /// What a pinned reader still needs, in the order of `until`.
    kept: VecDeque<Retired>,
    /// With the epoch in which they were unlinked, in that order.
    unlinked: VecDeque<(u64, Unlinked)>,
    /// No reader that moves is below this view.
    moving_floor: i64,
    /// Views of the pinned readers.
    pins: Vec<i64>,
    /// Every reader has seen at least this epoch.
    epoch_floor: u64,
    steps_until_look: u32,
}

impl Retirement {
    pub(super) fn new() -> Self {
        Self {
            readers: Vec::new(),
            retired: VecDeque::new(),
            kept: VecDeque::new(),
            unlinked: VecDeque::new(),
            moving_floor: i64::MIN,
            pins: Vec::new(),
            epoch_floor: 0,
            steps_until_look: LOOK_INTERVAL,
        }
    }

    /// Takes a new reader into account, whose view is not below the newest state.
    pub(super) fn add_reader(&mut self, cell: Arc<ReaderCell>) {
        if cell.pinned {
            self.pins.push(cell.view.load(Ordering::Relaxed));
        }
        self.readers.push(cell);
    }

    pub(super) fn reader_count(&self) -> usize {
        self.readers.len()
    }

    /// Records that wait: retired, kept for an image, or unlinked.
    pub(super) fn waiting(&self) -> usize {
        self.retired.len() + self.kept.len() + self.unlinked.len()
    }

    pub(super) fn retire_version(&mut self, version: *mut Version, successor: NonNull<Version>) {
        // SAFETY: both are linked, so they are valid.
        let (from, until) = unsafe { ((*version).zxid(), successor.as_ref().zxid()) };
        let record = Record::Version { version, successor: successor.as_ptr() };
        self.retired.push_back(Retired { from, until, record });
    }

    pub(super) fn retire_family(&mut self, family: *mut Family, successor: *mut Family) {
        // SAFETY: both are linked, so they are valid.
        let (from, until) = unsafe { ((*family).zxid, (*successor).zxid) };
        self.retired.push_back(Retired { from, until, record: Record::Family { family, successor } });
    }

    pub(super) fn retire_slot(&mut self, slot: NonNull<Slot>, died: i64) {
        // SAFETY: the slot is linked, so it is valid.
        let from = unsafe { slot.as_ref() }.born();
        self.retired.push_back(Retired { from, until: died, record: Record::Slot(slot) });
    }

    pub(super) fn retire_run(&mut self, run: OldRun, shared: &Shared) {
        if self.readers.is_empty() {
            // While an image is loaded all of them together would take four times the table.
            // SAFETY: the writer has taken it out of the table, and there is nobody else.
            unsafe { Table::free(run) };
            return;
        }
        self.unlinked.push_back((shared.epoch.load(Ordering::Relaxed), Unlinked::Run(run)));
    }

    /// Looks at the readers now and then, and frees a bounded number of records. `newest` is the last applied zxid.
    pub(super) fn step(&mut self, newest: i64, shared: &Shared, fill: &mut [Fill]) {
        self.steps_until_look -= 1;
        if self.steps_until_look == 0 {
            self.steps_until_look = LOOK_INTERVAL;
            self.look(newest, shared);
        }
        self.free_some(FREED_PER_STEP, shared, fill);
    }

    /// Frees everything that can go now: for tests, and before memory is measured.
    pub(super) fn settle(&mut self, newest: i64, shared: &Shared, fill: &mut [Fill]) {
        for _ in 0..3 {
            self.look(newest, shared);
            self.free_some(usize::MAX, shared, fill);
        }
    }

    fn look(&mut self, newest: i64, shared: &Shared) {
        self.readers.retain(|cell| !cell.gone.load(Ordering::Acquire));
        self.pins.clear();
        self.moving_floor = newest;
        for cell in &self.readers {
            let view = cell.view.load(Ordering::Acquire);
            if cell.pinned {
                self.pins.push(view);
            } else {
                self.moving_floor = self.moving_floor.min(view);
            }
        }
        let epoch = shared.epoch.load(Ordering::Relaxed);
        let seen = self.readers.iter().map(|cell| cell.epoch.load(Ordering::Acquire)).min();
        // With no reader, nobody can reach what was unlinked before now.
        self.epoch_floor = seen.unwrap_or(epoch + 1);
        if !self.unlinked.is_empty() && self.epoch_floor >= epoch {
            // What is unlinked from here on belongs to the next epoch. Release: who sees the new epoch sees the
            // unlinking before it.
            shared.epoch.store(epoch + 1, Ordering::Release);
        }
    }

    fn free_some(&mut self, limit: usize, shared: &Shared, fill: &mut [Fill]) {
        if let Some(next) = self.retired.get(PREFETCHED_AHEAD) {
            super::prefetch(next.record.address());
        }
        let mut left = limit;
        while left > 0
            && let Some(front) = self.retired.front()
            && front.until <= self.moving_floor
        {
            let retired = self.retired.pop_front().expect("there is a front");
            left -= 1;
            if self.pins.iter().any(|&pin| retired.from <= pin && pin < retired.until) {
                self.kept.push_back(retired);
            } else {
                self.let_go(retired, shared, fill);
            }
        }
        let pin_floor = self.pins.iter().copied().min().unwrap_or(i64::MAX);
        while left > 0
            && let Some(front) = self.kept.front()
            && front.until <= pin_floor
        {
            let retired = self.kept.pop_front().expect("there is a front");
            left -= 1;
            // No view is below `until`, so nobody walks past the successor: as if there were no pinned reader.
            self.let_go_unpinned(retired, shared, fill);
        }
        while left > 0
            && let Some(&(epoch, _)) = self.unlinked.front()
            && epoch < self.epoch_floor
        {
            let (_, unlinked) = self.unlinked.pop_front().expect("there is a front");
            left -= 1;
            // SAFETY: it was unlinked in an epoch that every reader has left at a quiescent point.
            unsafe { unlinked.free() };
        }
    }

    /// Disposes of a record that no view sees any more.
    fn let_go(&mut self, retired: Retired, shared: &Shared, fill: &mut [Fill]) {
        if self.pins.is_empty() {
            self.let_go_unpinned(retired, shared, fill);
            return;
        }
        let epoch = shared.epoch.load(Ordering::Relaxed);
        // A pinned reader below `from` may be walking over it: take it out of the chain, then wait.
        match retired.record {
            Record::Version { version, successor } => {
                // SAFETY: the successor is younger, so it is let go after this one: still valid.
                unsafe { (*successor).set_older((*version).older()) };
                self.unlinked.push_back((epoch, Unlinked::Version(version)));
            }
            Record::Family { family, successor } => {
                // SAFETY: the same.
                unsafe {
                    let older = (*family).older.load(Ordering::Relaxed);
                    (*successor).older.store(older, Ordering::Release);
                }
                self.unlinked.push_back((epoch, Unlinked::Family(family)));
            }
            Record::Slot(_) => self.let_go_unpinned(retired, shared, fill),
        }
    }

    /// Disposes of a record when every view is at or above its `until`: readers stop at its successor or before.
    fn let_go_unpinned(&mut self, retired: Retired, shared: &Shared, fill: &mut [Fill]) {
        match retired.record {
            // SAFETY: every reader's view is at or above the successor's zxid, so no walk goes past the successor; the
            // Acquire load of that view orders the reader's earlier walks before this.
            Record::Version { version, .. } => unsafe { Version::free(version) },
            // SAFETY: the same.
            Record::Family { family, .. } => unsafe { drop(Box::from_raw(family)) },
            Record::Slot(slot) => {
                // SAFETY: the slot is still linked, once; its parent and neighbours are valid because slots leave in
                // the order of their deletion and a parent is deleted after its children.
                unsafe {
                    let hash = shared.hash(Slot::path(slot.as_ptr()).as_bytes());
                    shared.table.remove(fill, hash, slot);
                    slot.as_ref().unlink();
                }
                self.unlinked.push_back((shared.epoch.load(Ordering::Relaxed), Unlinked::Slot(slot)));
            }
        }
    }

    /// What the last owner of the store must free beside the table: everything that is retired, but slots that are
    /// still in the table.
    pub(super) fn take_leftovers(&mut self) -> Leftovers {
        let mut records: Vec<Unlinked> = self.unlinked.drain(..).map(|(_, unlinked)| unlinked).collect();
        for retired in self.retired.drain(..).chain(self.kept.drain(..)) {
            match retired.record {
                Record::Version { version, .. } => records.push(Unlinked::Version(version)),
                Record::Family { family, .. } => records.push(Unlinked::Family(family)),
                Record::Slot(_) => {}
            }
        }
        Leftovers(records)
    }
}

/// Retired records that outlive the writer, because readers do.
#[derive(Default)]
pub(super) struct Leftovers(Vec<Unlinked>);

impl Leftovers {
    /// Frees them.
    ///
    /// # Safety
    /// There is no reader any more.
    pub(super) unsafe fn free(self) {
        for record in self.0 {
            // SAFETY: the caller's promise.
            unsafe { record.free() };
        }
    }
}

// SAFETY: the records belong to whoever holds the list; nothing in them is bound to a thread.
unsafe impl Send for Leftovers {}

impl Unlinked {
    /// # Safety
    /// Nobody can reach the record any more.
    unsafe fn free(self) {
        // SAFETY: the caller's promise; each record is in one list, once.
        unsafe {
            match self {
                Self::Version(version) => Version::free(version),
                Self::Family(family) => drop(Box::from_raw(family)),
                Self::Slot(slot) => Slot::free(slot.as_ptr()),
                Self::Run(run) => Table::free(run),
            }
        }
    }
}
