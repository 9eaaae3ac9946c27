//! Path to slot: an open-addressing table in 1,024 shards that grow one at a time. Part of the version store.
//!
//! A shard is a run of 8-byte entries. An entry holds a slot's address and 20 bits of its path's hash, and those bits
//! are all that is needed to place it again: a shard grows by reading its old run and writing a new one, without
//! touching a single slot. At a million znodes that is about a thousand entries, 8 kB, a few microseconds, now and
//! then: there is no pause at any size. Shards grow by a quarter, so the table takes about 10 bytes per znode.
//!
//! Readers probe while the writer inserts, removes and grows: entries are atomic words, an entry never moves within
//! its run, and a superseded run is freed only after every reader passed a quiescent point (see [`super::retired`]).
//! Several incarnations of a path may stand in a shard; the reader's view picks the one that it sees.

use super::znode::{SLOT_ALIGN, Slot};
use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
};

const SHARD_BITS: u32 = 10;
const SHARDS: usize = 1 << SHARD_BITS;
/// Bits of the hash that an entry keeps. They are spread over the run in order, so a run of up to 2^20 entries works.
const TAG_BITS: u32 = 20;
/// Runs are this many entries long or a multiple of it: two cache lines.
const UNIT: usize = 16;
/// Bits of an address that are not zero: 48 bits of user space, on 16-byte boundaries.
const ADDRESS_BITS: u32 = 48;
const ADDRESS_SHIFT: u32 = SLOT_ALIGN.trailing_zeros();
const _: () = assert!(ADDRESS_BITS - ADDRESS_SHIFT + TAG_BITS == 64);

const EMPTY: u64 = 0;
/// A place whose slot is gone, while later entries may have been placed past it.
const GONE: u64 = 1;

/// The part that readers share.
pub(super) struct Table {
    /// Per shard: address of the run in the high 48 bits, its length in units in the low 16. 0: no run yet.
    runs: Box<[AtomicU64]>,
}

/// What the writer alone knows of a shard.
#[derive(Clone, Copy, Default)]
pub(super) struct Fill {
    /// Entries that hold a slot.
    live: u32,
    /// Entries that are not empty: live ones and gone ones.
    used: u32,
}

/// A run that was superseded: free it once no reader can be probing it.
pub(super) struct OldRun(u64);

/// Where a path belongs.
#[derive(Clone, Copy)]
struct Place {
    shard: usize,
    tag: u64,
}

fn place(hash: u64) -> Place {
    Place {
        shard: (hash >> (64 - SHARD_BITS)) as usize,
        tag: (hash >> (64 - SHARD_BITS - TAG_BITS)) & ((1 << TAG_BITS) - 1),
    }
}

fn entry_of(slot: NonNull<Slot>, tag: u64) -> u64 {
    let address = slot.as_ptr().expose_provenance() as u64;
    assert!(address < 1 << ADDRESS_BITS, "user space is 48 bits wide");
    (address >> ADDRESS_SHIFT) << TAG_BITS | tag
}

fn slot_of(entry: u64) -> *mut Slot {
    ptr::with_exposed_provenance_mut(((entry >> TAG_BITS) << ADDRESS_SHIFT) as usize)
}

fn tag_of(entry: u64) -> u64 {
    entry & ((1 << TAG_BITS) - 1)
}

/// A run as it is used: a slice of atomic words.
fn run_layout(units: usize) -> Layout {
    Layout::array::<AtomicU64>(units * UNIT).expect("a run has at most 2^20 entries")
}

fn run_parts(run: u64) -> (*mut AtomicU64, usize) {
    (ptr::with_exposed_provenance_mut((run >> 16) as usize), (run & 0xffff) as usize)
}

/// The entries of a run.
///
/// # Safety
/// The run is not freed during `'a`.
unsafe fn entries<'a>(run: u64) -> &'a [AtomicU64] {
    let (start, units) = run_parts(run);
    // SAFETY: a run is `units * UNIT` initialised words.
    unsafe { std::slice::from_raw_parts(start, units * UNIT) }
}

fn home(tag: u64, length: usize) -> usize {
    ((tag * length as u64) >> TAG_BITS) as usize
}

impl Table {
    pub(super) fn new() -> (Self, Vec<Fill>) {
        let runs = (0..SHARDS).map(|_| AtomicU64::new(0)).collect();
        (Self { runs }, vec![Fill::default(); SHARDS])
    }

    /// The slot of `path` that exists at `view`.
    ///
    /// # Safety
    /// The caller is the writer, or a reader between two quiescent points whose published view is not above `view`.
    pub(super) unsafe fn find(&self, hash: u64, path: &str, view: i64) -> Option<NonNull<Slot>> {
        let Place { shard, tag } = place(hash);
        let run = self.runs[shard].load(Ordering::Acquire);
        if run == 0 {
            return None;
        }
        // SAFETY: runs are freed only after a quiescent point of every reader.
        let entries = unsafe { entries(run) };
        let mut at = home(tag, entries.len());
        // Bounded: a run always keeps an empty entry.
        loop {
            let entry = entries[at].load(Ordering::Acquire);
            if entry == EMPTY {
                return None;
            }
            if tag_of(entry) == tag && entry != GONE {
                let slot = slot_of(entry);
                // SAFETY: a slot is freed only after it left the table and every reader then passed a quiescent point.
                let matches = unsafe { (*slot).is_visible(view) && Slot::path(slot) == path };
                if matches {
                    return NonNull::new(slot);
                }
            }
            at += 1;
            if at == entries.len() {
                at = 0;
            }
        }
    }

    /// Asks the processor to fetch the entry where `hash` begins to be looked for.
    pub(super) fn prefetch_entry(&self, hash: u64) {
        let Place { shard, tag } = place(hash);
        let run = self.runs[shard].load(Ordering::Relaxed);
        let (start, units) = run_parts(run);
        if units != 0 {
            super::prefetch(start.wrapping_add(home(tag, units * UNIT)));
        }
    }

    /// The slot that [`find`](Self::find) will look at first, or null: for prefetching alone.
    ///
    /// # Safety
    /// Called by the writer.
    pub(super) unsafe fn first_candidate(&self, hash: u64) -> *mut Slot {
        let Place { shard, tag } = place(hash);
        let run = self.runs[shard].load(Ordering::Relaxed);
        if run == 0 {
            return ptr::null_mut();
        }
        // SAFETY: the writer's current run is valid.
        let entries = unsafe { entries(run) };
        let home = home(tag, entries.len());
        for entry in entries[home..].iter().take(UNIT) {
            let entry = entry.load(Ordering::Relaxed);
            if entry == EMPTY {
                break;
            }
            if tag_of(entry) == tag && entry != GONE {
                return slot_of(entry);
            }
        }
        ptr::null_mut()
    }

    /// Adds a slot. Returns a run to free later, if the shard grew.
    ///
    /// # Safety
    /// Called by the writer, with its `fill`.
    pub(super) unsafe fn insert(&self, fill: &mut [Fill], hash: u64, slot: NonNull<Slot>) -> Option<OldRun> {
        let Place { shard, tag } = place(hash);
        let fill = &mut fill[shard];
        let mut run = self.runs[shard].load(Ordering::Relaxed);
        let (_, units) = run_parts(run);
        let mut old = None;
        // At most seven eighths are used, so that a probe ends soon and always.
        if (fill.used as usize + 1) * 8 > units * UNIT * 7 {
            // SAFETY: the writer alone replaces runs.
            let grown = unsafe { Self::grow(run, fill.live as usize) };
            fill.used = fill.live;
            self.runs[shard].store(grown, Ordering::Release);
            old = (run != 0).then_some(OldRun(run));
            run = grown;
        }
        // SAFETY: the current run is valid.
        let entries = unsafe { entries(run) };
        let mut at = home(tag, entries.len());
        loop {
            match entries[at].load(Ordering::Relaxed) {
                EMPTY => {
                    fill.used += 1;
                    break;
                }
                GONE => break,
                _ => at = if at + 1 == entries.len() { 0 } else { at + 1 },
            }
        }
        entries[at].store(entry_of(slot, tag), Ordering::Release);
        fill.live += 1;
        old
    }

    /// Takes a slot out.
    ///
    /// # Safety
    /// Called by the writer, with its `fill`; the slot is in the table.
    pub(super) unsafe fn remove(&self, fill: &mut [Fill], hash: u64, slot: NonNull<Slot>) {
        let Place { shard, tag } = place(hash);
        let fill = &mut fill[shard];
        // SAFETY: the current run is valid.
        let entries = unsafe { entries(self.runs[shard].load(Ordering::Relaxed)) };
        let wanted = entry_of(slot, tag);
        let mut at = home(tag, entries.len());
        loop {
            let entry = entries[at].load(Ordering::Relaxed);
            assert!(entry != EMPTY, "a slot leaves the table once");
            if entry == wanted {
                break;
            }
            at = if at + 1 == entries.len() { 0 } else { at + 1 };
        }
        fill.live -= 1;
        let following = if at + 1 == entries.len() { 0 } else { at + 1 };
        if entries[following].load(Ordering::Relaxed) != EMPTY {
            entries[at].store(GONE, Ordering::Release);
            return;
        }
        // Nothing was placed past this entry, nor past the gone ones right before it: they become empty.
        loop {
            entries[at].store(EMPTY, Ordering::Release);
            fill.used -= 1;
            at = if at == 0 { entries.len() - 1 } else { at - 1 };
            if entries[at].load(Ordering::Relaxed) != GONE {
                return;
            }
        }
    }

    /// A new run with the live entries of `run` and room for a third more.
    ///
    /// # Safety
    /// `run` is 0 or valid.
    unsafe fn grow(run: u64, live: usize) -> u64 {
        let units = ((live + 1) * 16 / 11 / UNIT + 1).max(1);
        assert!(units <= 0xffff, "a tree of 900 million znodes is beyond this table");
        let layout = run_layout(units);
        // SAFETY: the size is not zero; zeros are EMPTY.
        let start = unsafe { alloc_zeroed(layout) }.cast::<AtomicU64>();
        if start.is_null() {
            handle_alloc_error(layout);
        }
        let address = start.expose_provenance() as u64;
        assert!(address < 1 << 48, "user space is 48 bits wide");
        let grown = address << 16 | units as u64;
        // SAFETY: just made.
        let target = unsafe { entries(grown) };
        if run != 0 {
            // SAFETY: the caller's promise.
            for entry in unsafe { entries(run) } {
                let entry = entry.load(Ordering::Relaxed);
                if entry == EMPTY || entry == GONE {
                    continue;
                }
                let mut at = home(tag_of(entry), target.len());
                while target[at].load(Ordering::Relaxed) != EMPTY {
                    at = if at + 1 == target.len() { 0 } else { at + 1 };
                }
                target[at].store(entry, Ordering::Relaxed);
            }
        }
        grown
    }

    /// Frees a superseded run.
    ///
    /// # Safety
    /// No reader can be probing it any more.
    pub(super) unsafe fn free(run: OldRun) {
        let (start, units) = run_parts(run.0);
        // SAFETY: the run was allocated with this layout and is freed once: `OldRun` is not Copy.
        unsafe { dealloc(start.cast(), run_layout(units)) };
    }

    /// Frees every run and every slot in it.
    ///
    /// # Safety
    /// Nobody uses the table any more.
    pub(super) unsafe fn free_all(&mut self) {
        for shard in &mut self.runs {
            let run = std::mem::take(shard.get_mut());
            if run == 0 {
                continue;
            }
            // SAFETY: the caller's promise.
            unsafe {
                for entry in entries(run) {
                    let entry = entry.load(Ordering::Relaxed);
                    if entry != EMPTY && entry != GONE {
                        Slot::free(slot_of(entry));
                    }
                }
                Self::free(OldRun(run));
            }
        }
    }
}
