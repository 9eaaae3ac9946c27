//! Reading the tree at a view, on a client core (section 4 of the architecture).
//!
//! A reader belongs to one core. It moves its view forward while it walks a batch, reads between, and once a turn
//! publishes where it is, so that the writer can free what nobody needs.

use crate::{
    path,
    watch::{InterestBooks, Reach},
    znodes::{NodeRef, Reading},
};
use zkfast_wire::{Stat, Zxid};

/// One core's eyes on the tree. `Send`, not shared: one for each client core.
pub struct Reader {
    reading: Reading,
    books: InterestBooks,
}

impl Reader {
    pub(crate) fn new(reading: Reading, books: InterestBooks) -> Self {
        Self { reading, books }
    }

    /// The zxid at which this core reads.
    pub fn view(&self) -> Zxid {
        self.reading.view()
    }

    /// Reads from here on see every transaction up to `view` and none after. A cheap local step.
    ///
    /// # Panics
    /// If the view would go back, or is not applied yet.
    pub fn set_view(&mut self, view: Zxid) {
        self.reading.set_view(view);
    }

    /// Tells the writer that this core will not read below its view and holds nothing from before: once a turn, and
    /// always before the core sleeps.
    pub fn publish(&mut self) {
        self.reading.publish();
    }

    /// The node at this view. Any text may be asked for; what is not a valid path has no node (T1), but for the empty
    /// one, which is the root's key in Java's map and finds it.
    pub fn node(&self, path: &str) -> Option<NodeRef<'_>> {
        let path = if path.is_empty() { path::ROOT } else { path };
        self.reading.node(self.reading.key(path))
    }

    /// Number of nodes below `path`, system nodes included (T25): `None` if there is no such node.
    pub fn all_children_number(&self, path: &str) -> Option<i32> {
        self.node(path).map(|node| node.descendant_count())
    }

    /// From now on the pipeline wakes `core` (below 64) when `path`, existing or absent, or its list of children
    /// changes. To be called before the read that leaves the watch. Counted: clear it as often.
    pub fn set_interest(&self, path: &str, core: u32) {
        self.books.set(Reach::Path, self.reading.key(path).hash, core);
    }

    /// Takes back one [`set_interest`](Self::set_interest).
    pub fn clear_interest(&self, path: &str, core: u32) {
        self.books.clear(Reach::Path, self.reading.key(path).hash, core);
    }

    /// The same for `path` and everything below it (W7).
    pub fn set_recursive_interest(&self, path: &str, core: u32) {
        self.books.set(Reach::Recursive, self.reading.key(path).hash, core);
    }

    /// Takes back one [`set_recursive_interest`](Self::set_recursive_interest).
    pub fn clear_recursive_interest(&self, path: &str, core: u32) {
        self.books.clear(Reach::Recursive, self.reading.key(path).hash, core);
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("view", &self.view()).finish_non_exhaustive()
    }
}

impl<'a> NodeRef<'a> {
    /// The stat as clients see it (J10): cversion counts creations and deletions (T9), only a session shows as owner
    /// (T16).
    pub fn stat(&self) -> Stat {
        let stored = self.persisted();
        let num_children = self.child_count();
        Stat {
            czxid: stored.czxid,
            mzxid: stored.mzxid,
            ctime_ms: stored.ctime_ms,
            mtime_ms: stored.mtime_ms,
            version: stored.version,
            cversion: stored.cversion.wrapping_mul(2).wrapping_sub(num_children),
            aversion: stored.aversion,
            ephemeral_owner: self.owner().visible(),
            data_length: self.data_bytes() as i32,
            num_children,
            pzxid: stored.pzxid,
        }
    }

    /// Number of children.
    pub fn num_children(&self) -> i32 {
        self.child_count()
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.path() == path::ROOT
    }
}
