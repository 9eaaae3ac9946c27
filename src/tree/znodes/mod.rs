//! The version store: every znode with as many of its past versions as somebody may still read.
//!
//! One writer ([`Znodes`], on the pipeline core), any number of readers ([`Reading`], one per client core and one per
//! running image), no lock. A *view* is a zxid; a reader at view `v` sees of each node the newest version that is not
//! younger than `v`, and of each path the incarnation that existed at `v`.
//!
//! **The only room of this crate with `unsafe`.** Outside it, no call can break memory: every reference into the tree
//! borrows the writer or a reader, the writer's methods that change anything take `&mut`, and so do a reader's
//! `set_view` and `publish`. Files: [`znode`] the records, [`table`] path to slot, [`retired`] when memory is freed.
//!
//! Why a store of our own: see section 4 of the architecture text. A set of a node costs 6-12 us in path-copied
//! immutable maps and 2-3 us in a general lock-free map with a chain per key; the goal here is well below 1.5 us.

mod retired;
mod table;
mod znode;

use crate::{
    acl::{AclList, NodeAcl},
    growth::{Growth, GrowthListener},
    owned::Owner,
};
use bytes::BufMut;
use retired::{Leftovers, ReaderCell, Retirement};
use std::{
    hash::{BuildHasher, Hasher},
    marker::PhantomData,
    ptr::NonNull,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicPtr, AtomicU64, Ordering},
    },
};
use table::{Fill, Table};
use zkfast_wire::{Acl, StatPersisted, Zxid};
use znode::{Changed, EVER, Family, NEWEST, Slot, Version};

/// The newest complete state, on a cache line pair of its own: the writer stores it with every transaction.
#[repr(align(128))]
struct Newest(AtomicI64);

/// What writer and readers share.
struct Shared {
    newest: Newest,
    table: Table,
    hasher: foldhash::fast::FixedState,
    /// Advanced by the writer after it unlinked something; see [`retired`].
    epoch: AtomicU64,
    root: AtomicPtr<Slot>,
    /// Filled when the writer goes while readers stay. Never on the request path.
    leftovers: Mutex<Leftovers>,
}

impl Shared {
    fn hash(&self, path: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(path);
        hasher.finish()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let leftovers = match self.leftovers.get_mut() {
            Ok(leftovers) => std::mem::take(leftovers),
            Err(poisoned) => std::mem::take(poisoned.into_inner()),
        };
        // SAFETY: the last owner goes: neither writer nor reader is left.
        unsafe {
            self.table.free_all();
            leftovers.free();
        }
    }
}

/// Look-ups prepared side by side: about as many misses as a core can have under way.
const PREFETCH_MAX: usize = 32;

/// Asks the processor to fetch the line at `address`, which may be anything.
fn prefetch<T>(address: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch reads nothing and cannot fault.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

/// A path with its hash, computed once for however many look-ups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key<'a> {
    pub(crate) path: &'a str,
    pub(crate) hash: u64,
}

/// What only a child's creation or deletion changes in its parent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Children {
    /// Raw cversion (T6).
    pub(crate) cversion: i32,
    /// Transaction of the last creation or deletion (T13).
    pub(crate) pzxid: Zxid,
}

/// The writer's half.
pub(crate) struct Znodes {
    shared: Arc<Shared>,
    fill: Vec<Fill>,
    retirement: Retirement,
    newest: Zxid,
    count: usize,
    growth: Growth,
}

// SAFETY: the writer's raw pointers lead to records that it alone changes; nothing in them is bound to a thread.
unsafe impl Send for Znodes {}

impl Znodes {
    /// A store that holds only a root without ACL and data, all its fields 0.
    pub(crate) fn new(hash_seed: u64, growth: Option<GrowthListener>) -> Self {
        let (table, fill) = Table::new();
        let shared = Shared {
            newest: Newest(AtomicI64::new(0)),
            table,
            hasher: foldhash::fast::FixedState::with_seed(hash_seed),
            epoch: AtomicU64::new(0),
            root: AtomicPtr::new(std::ptr::null_mut()),
            leftovers: Mutex::default(),
        };
        let mut znodes = Self {
            shared: Arc::new(shared),
            fill,
            retirement: Retirement::new(),
            newest: Zxid::ZERO,
            count: 0,
            growth: Growth::new(growth),
        };
        let key = znodes.key(crate::path::ROOT);
        let head = Version::allocate(EVER, None, None, Some(&[]));
        let root = Slot::allocate(key.path, std::ptr::null_mut(), Zxid::ZERO, true, 0, Owner::Nobody, head);
        znodes.shared.root.store(root.as_ptr(), Ordering::Release);
        znodes.index(key.hash, root);
        znodes
    }

    /// `path` with its hash.
    pub(crate) fn key<'a>(&self, path: &'a str) -> Key<'a> {
        Key { path, hash: self.shared.hash(path.as_bytes()) }
    }

    /// The hash of a path, which need not be text.
    pub(crate) fn hash(&self, path: &[u8]) -> u64 {
        self.shared.hash(path)
    }

    /// Number of nodes, the root counted once.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The newest state of a node.
    pub(crate) fn node(&self, key: Key<'_>) -> Option<NodeRef<'_>> {
        // SAFETY: this is the writer. `NEWEST` sees the head of each chain, which is never freed while linked; nothing
        // is changed or freed while `self` is borrowed.
        unsafe { self.shared.table.find(key.hash, key.path, NEWEST).map(|slot| NodeRef::new(slot, NEWEST)) }
    }

    /// Asks the processor to fetch what the next look-ups of these paths will touch. The three steps of a look-up,
    /// entry, slot, version, are each a cache miss on a large tree and depend on one another; done for many paths side
    /// by side, the misses overlap.
    pub(crate) fn prefetch(&self, hashes: &[u64]) {
        let mut slots = [std::ptr::null_mut(); PREFETCH_MAX];
        for group in hashes.chunks(PREFETCH_MAX) {
            for &hash in group {
                self.shared.table.prefetch_entry(hash);
            }
            for (slot, &hash) in slots.iter_mut().zip(group) {
                // SAFETY: this is the writer.
                *slot = unsafe { self.shared.table.first_candidate(hash) };
                prefetch(*slot);
                prefetch(slot.cast::<u8>().wrapping_add(64));
            }
            for &slot in slots.iter().take(group.len()) {
                // SAFETY: a slot in the table is valid, and nothing is freed while the writer is borrowed.
                if let Some(slot) = unsafe { slot.as_ref() } {
                    prefetch(slot.head());
                    prefetch(slot.family_head());
                }
            }
        }
    }

    /// A node to change.
    pub(crate) fn node_mut(&mut self, key: Key<'_>) -> Option<NodeMut<'_>> {
        // SAFETY: this is the writer.
        let slot = unsafe { self.shared.table.find(key.hash, key.path, NEWEST) }?;
        Some(NodeMut { znodes: self, slot })
    }

    /// The root.
    pub(crate) fn root_mut(&mut self) -> NodeMut<'_> {
        let root = NonNull::new(self.shared.root.load(Ordering::Relaxed)).expect("there is always a root");
        NodeMut { znodes: self, slot: root }
    }

    /// A new reader at the newest state. A pinned one stays there.
    pub(crate) fn reading(&mut self, pinned: bool) -> Reading {
        let epoch = self.shared.epoch.load(Ordering::Relaxed);
        let cell = Arc::new(ReaderCell::new(self.newest.0, epoch, pinned));
        self.retirement.add_reader(cell.clone());
        let (view, complete) = (self.newest, self.newest);
        Reading { shared: self.shared.clone(), cell, view, complete, not_sync: PhantomData }
    }

    /// Registered readers, including those that left since the last look.
    pub(crate) fn reader_count(&self) -> usize {
        self.retirement.reader_count()
    }

    /// Superseded records that wait for readers.
    pub(crate) fn waiting(&self) -> usize {
        self.retirement.waiting()
    }

    /// Everything up to `zxid` is in the store now. Frees a bounded number of records that nobody needs.
    pub(crate) fn finish(&mut self, zxid: Zxid) {
        assert!(zxid >= self.newest, "the newest state never goes back");
        self.newest = zxid;
        self.shared.newest.0.store(zxid.0, Ordering::Release);
        self.retirement.step(zxid.0, &self.shared, &mut self.fill);
    }

    /// Frees every record that nobody needs. Takes as long as it takes.
    pub(crate) fn settle(&mut self) {
        self.retirement.settle(self.newest.0, &self.shared, &mut self.fill);
    }

    fn index(&mut self, hash: u64, slot: NonNull<Slot>) {
        // SAFETY: this is the writer, with its own books.
        let old = unsafe { self.shared.table.insert(&mut self.fill, hash, slot) };
        if let Some(run) = old {
            self.retirement.retire_run(run, &self.shared);
        }
        self.count += 1;
    }
}

impl Drop for Znodes {
    fn drop(&mut self) {
        let leftovers = self.retirement.take_leftovers();
        match self.shared.leftovers.lock() {
            Ok(mut shared) => *shared = leftovers,
            Err(mut poisoned) => **poisoned.get_mut() = leftovers,
        }
    }
}

/// A node of the newest state that the writer is about to change.
pub(crate) struct NodeMut<'a> {
    znodes: &'a mut Znodes,
    slot: NonNull<Slot>,
}

/// A node that is about to be: what its creation decides for good.
pub(crate) struct Newborn<'a> {
    pub(crate) czxid: Zxid,
    pub(crate) ctime_ms: i64,
    pub(crate) owner: Owner,
    pub(crate) acl: NodeAcl,
    pub(crate) data: Option<&'a [u8]>,
}

impl<'a> NodeMut<'a> {
    /// The newest state.
    pub(crate) fn node(&self) -> NodeRef<'_> {
        // SAFETY: nothing is changed while `self` is borrowed.
        unsafe { NodeRef::new(self.slot, NEWEST) }
    }

    /// Another node of the newest state.
    pub(crate) fn other(&self, key: Key<'_>) -> Option<NodeRef<'_>> {
        self.znodes.node(key)
    }

    fn slot(&self) -> &Slot {
        // SAFETY: a slot that is linked is valid, and the writer is borrowed.
        unsafe { self.slot.as_ref() }
    }

    /// Replaces the data, from `zxid` on.
    pub(crate) fn set_data(&mut self, zxid: Zxid, mtime_ms: i64, version: i32, data: Option<&[u8]>) {
        let head = self.slot().head();
        // SAFETY: the head of a chain is valid.
        let (acl, aversion) = unsafe {
            (Version::node_acl(head), Version::changed(head).map_or(0, |changed| changed.aversion))
        };
        let changed = Changed { mzxid: zxid.0, mtime_ms, version, aversion };
        self.push_version(Version::allocate(zxid.0, acl, Some(changed), data));
    }

    /// Replaces the data and nothing else of the stat, from `zxid` on: what the server itself writes.
    pub(crate) fn rewrite_data(&mut self, zxid: Zxid, data: &[u8]) {
        let head = self.slot().head();
        // SAFETY: the head of a chain is valid.
        let (acl, changed) = unsafe { (Version::node_acl(head), Version::changed(head)) };
        self.push_version(Version::allocate(zxid.0, acl, changed, Some(data)));
    }

    /// Replaces what the server itself shows in a node of its own: data and mtime, with an mzxid that need not be when it
    /// appears. The version of such a node is always -1.
    pub(crate) fn set_system_data(&mut self, appears: Zxid, mzxid: Zxid, mtime_ms: i64, data: &[u8]) {
        let head = self.slot().head();
        // SAFETY: the head of a chain is valid.
        let (acl, aversion) = unsafe {
            (Version::node_acl(head), Version::changed(head).map_or(0, |changed| changed.aversion))
        };
        let changed = Changed { mzxid: mzxid.0, mtime_ms, version: -1, aversion };
        self.push_version(Version::allocate(appears.0, acl, Some(changed), Some(data)));
    }

    /// Replaces the ACL, from `zxid` on.
    pub(crate) fn set_acl(&mut self, zxid: Zxid, aversion: i32, acl: NodeAcl) {
        let slot = self.slot();
        let head = slot.head();
        // SAFETY: the head of a chain is valid, and stays so until the new one is in front of it.
        let version = unsafe {
            let changed = Version::changed(head).unwrap_or(Changed {
                mzxid: slot.czxid().0,
                mtime_ms: slot.ctime_ms(),
                version: 0,
                aversion: 0,
            });
            Version::allocate(zxid.0, acl, Some(Changed { aversion, ..changed }), Version::data(head))
        };
        self.push_version(version);
    }

    fn push_version(&mut self, version: NonNull<Version>) {
        let older = self.slot().push_version(version);
        self.znodes.retirement.retire_version(older, version);
    }

    /// Replaces cversion and pzxid, from `zxid` on.
    pub(crate) fn set_children(&mut self, zxid: Zxid, children: Children) {
        let count = self.node().child_count();
        self.push_family(self.slot, zxid.0, children, count);
    }

    fn push_family(&mut self, slot: NonNull<Slot>, zxid: i64, children: Children, count: i32) {
        let family = Box::new(Family {
            zxid,
            older: AtomicPtr::default(),
            cversion: children.cversion,
            children: count,
            pzxid: children.pzxid.0,
        });
        // SAFETY: the slot is this node's or its parent's: linked, so valid.
        let (older, family) = unsafe { slot.as_ref() }.push_family(family);
        if !older.is_null() {
            self.znodes.retirement.retire_family(older, family);
        }
    }

    /// Creates a child, from `newborn.czxid` on, and gives this node new counters. The child must not exist.
    pub(crate) fn create_child(
        &mut self,
        key: Key<'_>,
        newborn: Newborn<'_>,
        children: Children,
    ) -> NodeRef<'_> {
        let zxid = newborn.czxid;
        let head = Version::allocate(zxid.0, newborn.acl, None, newborn.data);
        let parent = self.slot.as_ptr();
        let child = Slot::allocate(key.path, parent, zxid, false, newborn.ctime_ms, newborn.owner, head);
        let count = self.node().child_count() + 1;
        self.push_family(self.slot, zxid.0, children, count);
        self.adopt(key.hash, child);
        // SAFETY: just linked.
        unsafe { NodeRef::new(child, NEWEST) }
    }

    /// Adds a child as an image describes it: visible to every view, with whatever stat it had. Only while a tree is
    /// built; the child must not exist.
    pub(crate) fn load_child(
        &mut self,
        key: Key<'_>,
        stat: &StatPersisted,
        owner: Owner,
        acl: NodeAcl,
        data: Option<&[u8]>,
    ) -> NodeMut<'_> {
        let head = Version::allocate(EVER, acl, changed_of(stat), data);
        let parent = self.slot.as_ptr();
        let child = Slot::allocate(key.path, parent, stat.czxid, true, stat.ctime_ms, owner, head);
        self.adopt(key.hash, child);
        self.count_loaded_child();
        let mut child = NodeMut { znodes: self.znodes, slot: child };
        child.load_counters(stat);
        child
    }

    /// One more child of a node that is being loaded.
    fn count_loaded_child(&mut self) {
        assert!(self.znodes.retirement.reader_count() == 0, "nobody reads a tree that is being built");
        let slot = self.slot();
        let family = slot.family_head();
        if family.is_null() {
            let counters = Children { cversion: 0, pzxid: slot.czxid() };
            self.push_family(self.slot, EVER, counters, 1);
        } else {
            // SAFETY: there is no reader, so the writer is the only one who knows the record.
            unsafe { (*family).children += 1 };
        }
    }

    /// What an image says of a loaded node's children, their number aside.
    fn load_counters(&mut self, stat: &StatPersisted) {
        let slot = self.slot();
        if stat.cversion != 0 || stat.pzxid != slot.czxid() {
            let counters = Children { cversion: stat.cversion, pzxid: stat.pzxid };
            self.push_family(self.slot, EVER, counters, 0);
        }
    }

    /// Gives the root what an image says of it. Only while a tree is built.
    pub(crate) fn load_root(self, stat: &StatPersisted, acl: NodeAcl, data: Option<&[u8]>) {
        let znodes = self.znodes;
        assert!(znodes.count == 1, "the root comes first");
        assert!(znodes.retirement.reader_count() == 0, "nobody reads a tree that is being built");
        let old = self.slot;
        let key = znodes.key(crate::path::ROOT);
        let head = Version::allocate(EVER, acl, changed_of(stat), data);
        let nobody = Owner::Nobody;
        let root =
            Slot::allocate(key.path, std::ptr::null_mut(), stat.czxid, true, stat.ctime_ms, nobody, head);
        // SAFETY: this is the writer, and nobody else knows a store that is being built.
        unsafe {
            znodes.shared.table.remove(&mut znodes.fill, key.hash, old);
            Slot::free(old.as_ptr());
        }
        znodes.count = 0;
        znodes.shared.root.store(root.as_ptr(), Ordering::Release);
        znodes.index(key.hash, root);
        NodeMut { znodes, slot: root }.load_counters(stat);
    }

    fn adopt(&mut self, hash: u64, child: NonNull<Slot>) {
        // SAFETY: the child is new and its parent is this slot, which is linked.
        unsafe { self.slot().link_child(child) };
        self.znodes.index(hash, child);
        self.znodes.growth.note(child);
    }

    /// Deletes the node, from `zxid` on, and gives its parent a new pzxid. It has no children and is not the root.
    pub(crate) fn delete(mut self, zxid: Zxid, parent_children: Children) {
        assert!(self.node().child_count() == 0, "only a node without children is deleted");
        let parent = NonNull::new(self.slot().parent()).expect("the root is never deleted");
        assert!(!self.slot().has_died());
        // SAFETY: a parent is valid while its child is linked.
        let count = unsafe { NodeRef::new(parent, NEWEST) }.child_count() - 1;
        self.push_family(parent, zxid.0, parent_children, count);
        self.slot().set_died(zxid);
        self.znodes.count -= 1;
        self.znodes.retirement.retire_slot(self.slot, zxid.0);
    }
}

/// What of a stat does not follow from the creation.
fn changed_of(stat: &StatPersisted) -> Option<Changed> {
    let changed = Changed {
        mzxid: stat.mzxid.0,
        mtime_ms: stat.mtime_ms,
        version: stat.version,
        aversion: stat.aversion,
    };
    let fresh = Changed { mzxid: stat.czxid.0, mtime_ms: stat.ctime_ms, version: 0, aversion: 0 };
    (changed != fresh).then_some(changed)
}

/// A reader's half: a view, and the promise about what it will still look at.
pub(crate) struct Reading {
    shared: Arc<Shared>,
    cell: Arc<ReaderCell>,
    view: Zxid,
    /// The store is known to be complete up to here.
    complete: Zxid,
    /// A view is one thread's business.
    not_sync: PhantomData<std::cell::Cell<()>>,
}

impl Reading {
    /// The view.
    pub(crate) fn view(&self) -> Zxid {
        self.view
    }

    /// Moves the view forward. Nothing borrowed from this reader survives it.
    pub(crate) fn set_view(&mut self, view: Zxid) {
        assert!(view >= self.view, "a view never goes back");
        assert!(!self.cell.is_pinned() || view == self.view, "an image has one view");
        // A reader ahead of the writer could hold a version that the writer is just superseding and about to free.
        if view > self.complete {
            self.complete = Zxid(self.shared.newest.0.load(Ordering::Acquire));
            assert!(view <= self.complete, "a view is not ahead of the tree");
        }
        self.view = view;
    }

    /// Lets the writer free what is older than the view and what was unlinked.
    pub(crate) fn publish(&mut self) {
        self.cell.publish(self.view.0, self.shared.epoch.load(Ordering::Acquire));
    }

    pub(crate) fn key<'a>(&self, path: &'a str) -> Key<'a> {
        Key { path, hash: self.shared.hash(path.as_bytes()) }
    }

    /// The node at this view.
    pub(crate) fn node(&self, key: Key<'_>) -> Option<NodeRef<'_>> {
        let view = self.view.0;
        // SAFETY: the published view is not above `view` and no quiescent point passes while `self` is borrowed.
        unsafe { self.shared.table.find(key.hash, key.path, view).map(|slot| NodeRef::new(slot, view)) }
    }

    /// The root at this view.
    pub(crate) fn root(&self) -> NodeRef<'_> {
        let root = NonNull::new(self.shared.root.load(Ordering::Acquire)).expect("there is always a root");
        // SAFETY: the same; the root is never deleted.
        unsafe { NodeRef::new(root, self.view.0) }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.cell.leave();
    }
}

/// A node at a view. Borrows the reader (or the writer), so it cannot outlive the view it belongs to.
#[derive(Clone, Copy)]
pub struct NodeRef<'a> {
    slot: NonNull<Slot>,
    version: *const Version,
    view: i64,
    borrowed: PhantomData<&'a ()>,
}

impl<'a> NodeRef<'a> {
    /// # Safety
    /// The slot is visible at `view`, and neither it nor what `view` sees of it is freed during `'a`.
    unsafe fn new(slot: NonNull<Slot>, view: i64) -> Self {
        // SAFETY: the caller's promise.
        let version = unsafe { slot.as_ref().version_at(view) };
        assert!(!version.is_null(), "a visible node has a version");
        Self { slot, version, view, borrowed: PhantomData }
    }

    fn slot(&self) -> &'a Slot {
        // SAFETY: the promise of `new`.
        unsafe { self.slot.as_ref() }
    }

    fn family(&self) -> *const Family {
        // SAFETY: the promise of `new`.
        unsafe { self.slot().family_at(self.view) }
    }

    /// The full path; `/` for the root.
    pub fn path(&self) -> &'a str {
        // SAFETY: the promise of `new`.
        unsafe { Slot::path(self.slot.as_ptr()) }
    }

    /// The last element of the path; empty for the root.
    pub fn name(&self) -> &'a str {
        &self.path()[self.slot().name_offset()..]
    }

    /// The data; null and empty differ (T5).
    pub fn data(&self) -> Option<&'a [u8]> {
        // SAFETY: the promise of `new`.
        unsafe { Version::data(self.version) }
    }

    /// Bytes of data; 0 for null.
    pub fn data_bytes(&self) -> usize {
        // SAFETY: the promise of `new`.
        unsafe { (*self.version).data_bytes() }
    }

    /// The entries of the ACL.
    pub fn acl(&self) -> &'a [Acl<'static>] {
        // SAFETY: the promise of `new`.
        unsafe { Version::acl(self.version) }
    }

    /// The shared list behind [`acl`](Self::acl); `None` is the open list.
    pub(crate) fn acl_list(&self) -> Option<&'a AclList> {
        // SAFETY: the promise of `new`.
        unsafe { Version::acl_list(self.version) }
    }

    /// The stat as it is stored.
    pub fn persisted(&self) -> StatPersisted {
        // SAFETY: the promise of `new`.
        unsafe { znode::persisted(self.slot.as_ptr(), self.version, self.family()) }
    }

    /// The data version.
    pub fn version(&self) -> i32 {
        // SAFETY: the promise of `new`.
        unsafe { Version::changed(self.version) }.map_or(0, |changed| changed.version)
    }

    /// The ACL version.
    pub fn aversion(&self) -> i32 {
        // SAFETY: the promise of `new`.
        unsafe { Version::changed(self.version) }.map_or(0, |changed| changed.aversion)
    }

    /// Who or what will take the node away.
    pub fn owner(&self) -> Owner {
        // SAFETY: the promise of `new`.
        unsafe { Slot::owner(self.slot.as_ptr()) }
    }

    /// What the node counts in the digest of the newest state: the writer's own note, whatever this view is.
    pub(crate) fn crc(&self) -> u32 {
        self.slot().crc()
    }

    /// Notes what the node counts. Only the writer does.
    pub(crate) fn set_crc(&self, crc: u32) {
        self.slot().set_crc(crc);
    }

    /// Raw cversion and pzxid.
    pub(crate) fn children_state(&self) -> Children {
        // SAFETY: the promise of `new`.
        match unsafe { self.family().as_ref() } {
            Some(family) => Children { cversion: family.cversion, pzxid: Zxid(family.pzxid) },
            None => Children { cversion: 0, pzxid: self.slot().czxid() },
        }
    }

    /// Number of children.
    pub(crate) fn child_count(&self) -> i32 {
        // SAFETY: the promise of `new`.
        unsafe { self.family().as_ref() }.map_or(0, |family| family.children)
    }

    /// The parent at the same view; `None` for the root.
    pub(crate) fn parent(&self) -> Option<Self> {
        // SAFETY: a parent lives as long as its child is visible.
        NonNull::new(self.slot().parent()).map(|parent| unsafe { Self::new(parent, self.view) })
    }

    /// The children at this view, in no particular order (T26).
    pub(crate) fn child_nodes(&self) -> impl Iterator<Item = Self> + use<'a> {
        let view = self.view;
        // SAFETY: `child_slots` gives what is visible at this view.
        self.child_slots().map(move |slot| unsafe { Self::new(slot, view) })
    }

    /// The names of the children at this view, in no particular order (T26). Nothing else of a child is looked at: a
    /// list of a hundred thousand is a walk through memory that no cache holds.
    pub fn children(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        // SAFETY: what a reader reaches between two quiescent points is valid until the second.
        self.child_slots().map(|slot| unsafe { &Slot::path(slot.as_ptr())[slot.as_ref().name_offset()..] })
    }

    /// The walk of both: the children that are visible at this view.
    fn child_slots(&self) -> impl Iterator<Item = NonNull<Slot>> + use<'a> {
        let view = self.view;
        let mut next = first_visible(self.slot().first_child(), view);
        std::iter::from_fn(move || {
            let slot = next?;
            // SAFETY: what a reader reaches between two quiescent points is valid until the second.
            next = first_visible(unsafe { slot.as_ref() }.next(), view);
            Some(slot)
        })
    }

    /// Number of nodes below this one (T25), by the same walk as [`next_in_walk`](Self::next_in_walk), which looks at
    /// what each of them holds.
    pub fn descendant_count(&self) -> i32 {
        let view = self.view;
        let mut count = 0;
        let mut at = self.slot;
        // SAFETY: what a reader reaches between two quiescent points is valid until the second, and so are the
        // ancestors of a visible node.
        unsafe {
            loop {
                let mut next = first_visible(at.as_ref().first_child(), view);
                while next.is_none() && at != self.slot {
                    next = first_visible(at.as_ref().next(), view);
                    if next.is_none() {
                        at = NonNull::new(at.as_ref().parent()).expect("below a node that has none above it");
                    }
                }
                let Some(found) = next else { return count };
                count += 1;
                at = found;
            }
        }
    }

    /// The node after this one in a walk that visits each parent before its children, below and including `top`.
    pub(crate) fn next_in_walk(&self, top: Self) -> Option<Self> {
        let view = self.view;
        let mut at = self.slot;
        // SAFETY: what a reader reaches between two quiescent points is valid until the second, and so are the
        // ancestors of a visible node.
        unsafe {
            if let Some(child) = first_visible(at.as_ref().first_child(), view) {
                return Some(Self::new(child, view));
            }
            while at != top.slot {
                if let Some(sibling) = first_visible(at.as_ref().next(), view) {
                    return Some(Self::new(sibling, view));
                }
                at = NonNull::new(at.as_ref().parent())?;
            }
        }
        None
    }

    /// Writes the names of the children as a jute vector and returns their number: the body of getChildren, without a
    /// copy in between.
    pub fn put_children(&self, out: &mut impl BufMut) -> usize {
        let count = self.child_count();
        out.put_i32(count);
        let mut written = 0;
        for name in self.children() {
            zkfast_wire::jute::put_text(out, name);
            written += 1;
        }
        assert!(written == count as usize, "a node has as many children as it counts");
        written
    }
}

/// The first node of a list of siblings, from `slot` on, that exists at `view`.
fn first_visible(mut slot: *mut Slot, view: i64) -> Option<NonNull<Slot>> {
    while let Some(found) = NonNull::new(slot) {
        // SAFETY: called for slots that a reader reached since its last quiescent point, or by the writer.
        let found_ref = unsafe { found.as_ref() };
        if found_ref.is_visible(view) {
            return Some(found);
        }
        slot = found_ref.next();
    }
    None
}
