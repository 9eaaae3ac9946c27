//! Which cores want to hear of a path: the masks that decide whom the pipeline wakes (section 4 of the architecture).
//!
//! Not the watches themselves: those live in the client core that owns the connection. A mask bit may be set for
//! nothing (two paths share a bucket), which costs one needless wake-up; it is never missing.
//!
//! The promise: a core sets its bit *before* it reads the node on which it leaves a watch; the pipeline reads the masks
//! *after* it pushed the batch. With a sequentially consistent fence on both sides, either the pipeline sees the bit,
//! or the core finds the batch in its lane before it sleeps.

use hashbrown::HashMap;
use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering, fence},
    },
};

/// Buckets for watches on one path, existing or absent. 512 kB; with 65,536 watched paths two thirds of all other
/// paths' changes wake a core for nothing, if it sleeps at all.
const BUCKETS: usize = 1 << 16;
/// Buckets for recursive watches, which are few.
const RECURSIVE_BUCKETS: usize = 1 << 12;
/// Cores that a mask can name.
pub const CORES_MAX: u32 = 64;

/// Masks of cores by hash of the path. Shared by the writer and all readers.
#[derive(Debug)]
pub(crate) struct Interest {
    paths: Box<[AtomicU64]>,
    recursive: Box<[AtomicU64]>,
    /// Cores with any recursive watch: zero spares the walk over the ancestors.
    any_recursive: AtomicU64,
    /// Cores with any watch: zero spares looking at all.
    any: AtomicU64,
}

/// What kind of watch asks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Reach {
    /// The path itself and, for its children's coming and going, the path as a parent.
    Path,
    /// The path and everything below.
    Recursive,
}

impl Interest {
    pub(crate) fn new() -> Arc<Self> {
        let buckets = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self {
            paths: buckets(BUCKETS),
            recursive: buckets(RECURSIVE_BUCKETS),
            any_recursive: AtomicU64::new(0),
            any: AtomicU64::new(0),
        })
    }

    fn bucket(&self, reach: Reach, hash: u64) -> (usize, &AtomicU64) {
        let buckets = match reach {
            Reach::Path => &self.paths,
            Reach::Recursive => &self.recursive,
        };
        // The low bits: the path table uses the high ones.
        let at = hash as usize & (buckets.len() - 1);
        (at, &buckets[at])
    }

    /// To be called before the first mask of a batch is read, after the batch was pushed.
    pub(crate) fn fence(&self) {
        fence(Ordering::SeqCst);
    }

    /// Cores that watch this path.
    pub(crate) fn cores(&self, hash: u64) -> u64 {
        self.bucket(Reach::Path, hash).1.load(Ordering::Relaxed)
    }

    /// Cores that watch anything.
    pub(crate) fn any(&self) -> u64 {
        self.any.load(Ordering::Relaxed)
    }

    /// Cores that watch recursively somewhere.
    pub(crate) fn any_recursive(&self) -> u64 {
        self.any_recursive.load(Ordering::Relaxed)
    }

    /// Cores that watch this path recursively.
    pub(crate) fn recursive_cores(&self, hash: u64) -> u64 {
        self.bucket(Reach::Recursive, hash).1.load(Ordering::Relaxed)
    }
}

/// One reader's share in the masks: how many of its watches stand behind each bit.
#[derive(Debug)]
pub(crate) struct InterestBooks {
    interest: Arc<Interest>,
    counts: RefCell<HashMap<(Reach, usize, u32), u32>>,
    recursive_counts: RefCell<HashMap<u32, u32>>,
    all_counts: RefCell<HashMap<u32, u32>>,
}

impl InterestBooks {
    pub(crate) fn new(interest: Arc<Interest>) -> Self {
        Self {
            interest,
            counts: RefCell::default(),
            recursive_counts: RefCell::default(),
            all_counts: RefCell::default(),
        }
    }

    pub(crate) fn set(&self, reach: Reach, hash: u64, core: u32) {
        assert!(core < CORES_MAX, "a mask has {CORES_MAX} bits");
        let (at, mask) = self.interest.bucket(reach, hash);
        *self.all_counts.borrow_mut().entry(core).or_default() += 1;
        self.interest.any.fetch_or(1 << core, Ordering::SeqCst);
        if reach == Reach::Recursive {
            *self.recursive_counts.borrow_mut().entry(core).or_default() += 1;
            self.interest.any_recursive.fetch_or(1 << core, Ordering::SeqCst);
        }
        *self.counts.borrow_mut().entry((reach, at, core)).or_default() += 1;
        mask.fetch_or(1 << core, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn clear(&self, reach: Reach, hash: u64, core: u32) {
        assert!(core < CORES_MAX, "a mask has {CORES_MAX} bits");
        let (at, mask) = self.interest.bucket(reach, hash);
        let mut counts = self.counts.borrow_mut();
        let count =
            counts.get_mut(&(reach, at, core)).expect("an interest is cleared as often as it was set");
        *count -= 1;
        if *count == 0 {
            counts.remove(&(reach, at, core));
            mask.fetch_and(!(1 << core), Ordering::SeqCst);
        }
        if reach == Reach::Recursive {
            Self::count_down(&self.recursive_counts, core, &self.interest.any_recursive);
        }
        Self::count_down(&self.all_counts, core, &self.interest.any);
    }

    fn count_down(counts: &RefCell<HashMap<u32, u32>>, core: u32, mask: &AtomicU64) {
        let mut counts = counts.borrow_mut();
        let count = counts.get_mut(&core).expect("an interest is cleared as often as it was set");
        *count -= 1;
        if *count == 0 {
            counts.remove(&core);
            mask.fetch_and(!(1 << core), Ordering::SeqCst);
        }
    }
}

impl Drop for InterestBooks {
    /// A core that goes takes its bits along.
    fn drop(&mut self) {
        for &(reach, at, core) in self.counts.get_mut().keys() {
            let buckets = match reach {
                Reach::Path => &self.interest.paths,
                Reach::Recursive => &self.interest.recursive,
            };
            buckets[at].fetch_and(!(1 << core), Ordering::SeqCst);
        }
        for &core in self.recursive_counts.get_mut().keys() {
            self.interest.any_recursive.fetch_and(!(1 << core), Ordering::SeqCst);
        }
        for &core in self.all_counts.get_mut().keys() {
            self.interest.any.fetch_and(!(1 << core), Ordering::SeqCst);
        }
    }
}
