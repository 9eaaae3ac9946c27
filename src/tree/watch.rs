//! Which cores want to hear of a path: the masks that decide whom the pipeline wakes (section 4 of the architecture).
//!
//! Not the watches themselves: those live in the client core that owns the connection. A mask bit may be set for
//! nothing (two paths share a bucket), which costs one needless wake-up; it is never missing.
//!
//! The promise: a core sets its bit *before* it reads the node on which it leaves a watch; the pipeline reads the masks
//! *after* it pushed the batch. With a sequentially consistent fence on both sides, either the pipeline sees the bit,
//! or the core finds the batch in its lane before it sleeps.

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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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

    fn buckets(&self, reach: Reach) -> &[AtomicU64] {
        match reach {
            Reach::Path => &self.paths,
            Reach::Recursive => &self.recursive,
        }
    }

    fn bucket(&self, reach: Reach, hash: u64) -> (usize, &AtomicU64) {
        let buckets = self.buckets(reach);
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
    /// By core, of which a reader has one as a rule.
    cores: RefCell<Vec<(u32, Counts)>>,
}

/// The watches of one core.
#[derive(Debug)]
struct Counts {
    /// By bucket; empty until there is a watch.
    paths: Box<[u32]>,
    recursive: Box<[u32]>,
    all: u32,
    all_recursive: u32,
}

impl Counts {
    fn of(&mut self, reach: Reach) -> &mut Box<[u32]> {
        match reach {
            Reach::Path => &mut self.paths,
            Reach::Recursive => &mut self.recursive,
        }
    }
}

impl InterestBooks {
    pub(crate) fn new(interest: Arc<Interest>) -> Self {
        Self { interest, cores: RefCell::default() }
    }

    /// Lets `change` change the counts of a core.
    fn with_counts(&self, core: u32, change: impl FnOnce(&mut Counts)) {
        assert!(core < CORES_MAX, "a mask has {CORES_MAX} bits");
        let mut cores = self.cores.borrow_mut();
        let at = cores.iter().position(|(name, _)| *name == core).unwrap_or_else(|| {
            cores.push((core, Counts { paths: [].into(), recursive: [].into(), all: 0, all_recursive: 0 }));
            cores.len() - 1
        });
        change(&mut cores[at].1);
    }

    pub(crate) fn set(&self, reach: Reach, hash: u64, core: u32) {
        let (at, mask) = self.interest.bucket(reach, hash);
        self.with_counts(core, |counts| {
            counts.all += 1;
            self.interest.any.fetch_or(1 << core, Ordering::SeqCst);
            if reach == Reach::Recursive {
                counts.all_recursive += 1;
                self.interest.any_recursive.fetch_or(1 << core, Ordering::SeqCst);
            }
            let buckets = counts.of(reach);
            if buckets.is_empty() {
                *buckets = vec![0; self.interest.buckets(reach).len()].into();
            }
            buckets[at] += 1;
        });
        mask.fetch_or(1 << core, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn clear(&self, reach: Reach, hash: u64, core: u32) {
        let (at, mask) = self.interest.bucket(reach, hash);
        self.with_counts(core, |counts| {
            let count_down = |count: Option<&mut u32>, mask: &AtomicU64| {
                let count = count.filter(|count| **count > 0);
                let count = count.expect("an interest is cleared as often as it was set");
                *count -= 1;
                if *count == 0 {
                    mask.fetch_and(!(1 << core), Ordering::SeqCst);
                }
            };
            count_down(counts.of(reach).get_mut(at), mask);
            if reach == Reach::Recursive {
                count_down(Some(&mut counts.all_recursive), &self.interest.any_recursive);
            }
            count_down(Some(&mut counts.all), &self.interest.any);
        });
    }
}

impl Drop for InterestBooks {
    /// A core that goes takes its bits along.
    fn drop(&mut self) {
        for (core, counts) in self.cores.get_mut() {
            let forget = |mask: &AtomicU64| mask.fetch_and(!(1 << *core), Ordering::SeqCst);
            for reach in [Reach::Path, Reach::Recursive] {
                let masks = self.interest.buckets(reach);
                for (count, mask) in counts.of(reach).iter().zip(masks) {
                    if *count > 0 {
                        forget(mask);
                    }
                }
            }
            if counts.all_recursive > 0 {
                forget(&self.interest.any_recursive);
            }
            if counts.all > 0 {
                forget(&self.interest.any);
            }
        }
    }
}
