//! The records that znodes are made of, as they lie in memory. Part of the version store, the one room with `unsafe`.
//!
//! ```text
//! Slot  84 bytes + path        one incarnation of a path, from its creation to its deletion; 8 more if it has an owner
//!   head ------> Version       28 bytes + data, or 56 + data once it was set: newest first
//!                  older ----> Version ...
//!   family ----> Family        32 bytes: what child creations and deletions change; null while there was none
//!   first_child, next, previous, parent: siblings are a list, so a child costs the same under 10 or 100,000
//! ```
//! A parent's counters are not in its `Version`, so a create does not copy the parent's data. A node that was never
//! set has no mzxid, mtime, version and aversion of its own: they follow from its creation, which saves 28 bytes on
//! almost every node of a real tree.
//!
//! Sizes: a node of a 24-byte path and 100 bytes of data takes 112 + 128 bytes here and about 10 in the path table.
//!
//! # Who may touch what
//! The writer alone creates, links, unlinks and frees. What readers can reach is immutable after it was linked, or
//! atomic, or (`previous`) never read by them. A record is freed only when no reader can reach it any more: see
//! [`super::retired`].

use crate::{
    acl::{AclList, NodeAcl, OPEN_LIST},
    owned::Owner,
};
use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    cell::UnsafeCell,
    mem::offset_of,
    ptr::{self, NonNull},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicPtr, AtomicU32, Ordering},
    },
};
use zkfast_wire::{Acl, SessionId, StatPersisted, Zxid};

/// `died` of a node that lives.
pub(super) const ALIVE: i64 = i64::MAX;
/// The view of the writer itself: whatever is newest.
pub(super) const NEWEST: i64 = i64::MAX - 1;
/// The zxid of what came from an image: visible to every view.
pub(super) const EVER: i64 = i64::MIN;

/// Slots lie on 16-byte boundaries: the path table keeps hash bits where an address has zeros.
pub(super) const SLOT_ALIGN: usize = 16;
/// Bit of `name_offset` that marks a slot loaded from an image, which no view is too old for.
const LOADED: u32 = 1 << 31;
/// Bit of `name_offset` that marks an ephemeral: what an owner means depends on the server's settings (T18), once.
const EPHEMERAL: u32 = 1 << 30;
/// Bit of `name_offset` that marks a node whose stored owner is not 0: it lies behind the path.
const OWNED: u32 = 1 << 29;

/// One incarnation of a path. The path's bytes follow `crc`, and those of the owner follow the path.
#[repr(C)]
pub(super) struct Slot {
    path_bytes: u32,
    name_offset_and_flags: u32,
    head: AtomicPtr<Version>,
    /// Transaction that deleted the node, or [`ALIVE`].
    died: AtomicI64,
    czxid: i64,
    family: AtomicPtr<Family>,
    first_child: AtomicPtr<Slot>,
    next: AtomicPtr<Slot>,
    /// The writer's own: never read by readers.
    previous: UnsafeCell<*mut Slot>,
    /// Null for the root. A parent outlives its children (a node with children cannot be deleted, and retired slots
    /// are freed in the order of their deletion).
    parent: *mut Slot,
    ctime_ms: i64,
    /// What the node counts in the tree's digest. The writer's own.
    crc: AtomicU32,
}

/// The padding at the end of the struct belongs to the path.
const PATH_OFFSET: usize = offset_of!(Slot, crc) + size_of::<AtomicU32>();
const _: () = assert!(PATH_OFFSET == 84);

/// Data and ACL from one transaction on. The data's bytes follow the struct.
#[repr(C)]
pub(super) struct Version {
    /// The transaction that made it, or [`EVER`].
    zxid: i64,
    older: AtomicPtr<Version>,
    /// An `Arc` turned into a pointer; null for the open list.
    acl: *const AclList,
    /// Bytes of data, [`CHANGED`] and [`NULL`].
    length_and_flags: u32,
    changed: ChangedRoom,
}

/// Where [`Changed`] lies in a version that has one. Zero-sized: a version without it is shorter.
#[repr(C)]
struct ChangedRoom([Changed; 0]);

/// What differs from the creation.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Changed {
    pub(super) mzxid: i64,
    pub(super) mtime_ms: i64,
    pub(super) version: i32,
    pub(super) aversion: i32,
}

const CHANGED: u32 = 1 << 31;
const NULL: u32 = 1 << 30;
const LENGTH: u32 = NULL - 1;

const DATA_OFFSET_FRESH: usize = offset_of!(Version, length_and_flags) + 4;
const CHANGED_OFFSET: usize = offset_of!(Version, changed);
const DATA_OFFSET_CHANGED: usize = CHANGED_OFFSET + size_of::<Changed>();
const _: () = assert!(DATA_OFFSET_FRESH == 28 && CHANGED_OFFSET == 32 && DATA_OFFSET_CHANGED == 56);

/// What the creation and deletion of children change.
pub(super) struct Family {
    pub(super) zxid: i64,
    pub(super) older: AtomicPtr<Family>,
    pub(super) cversion: i32,
    pub(super) children: i32,
    pub(super) pzxid: i64,
}

/// Allocates `layout`, which is never empty here.
fn allocate(layout: Layout) -> NonNull<u8> {
    assert!(layout.size() > 0);
    // SAFETY: the size is not zero.
    let memory = unsafe { alloc(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}

impl Slot {
    fn layout(path_bytes: usize, flags: u32) -> Layout {
        let owner_bytes = if flags & OWNED == 0 { 0 } else { size_of::<i64>() };
        // At least as long as the struct, so that a reference to it is valid.
        let bytes = (PATH_OFFSET + path_bytes + owner_bytes).max(size_of::<Self>());
        Layout::from_size_align(bytes, SLOT_ALIGN).expect("a path is shorter than 1 GiB")
    }

    /// A slot that is not linked anywhere yet.
    pub(super) fn allocate(
        path: &str,
        parent: *mut Self,
        czxid: Zxid,
        loaded: bool,
        ctime_ms: i64,
        owner: Owner,
        head: NonNull<Version>,
    ) -> NonNull<Self> {
        assert!(path.len() < OWNED as usize);
        let stored_owner = owner.encode();
        let mut name_offset_and_flags = crate::path::name_offset(path) as u32;
        name_offset_and_flags |= if loaded { LOADED } else { 0 };
        name_offset_and_flags |= if matches!(owner, Owner::Session(_)) { EPHEMERAL } else { 0 };
        name_offset_and_flags |= if stored_owner == 0 { 0 } else { OWNED };
        let slot = allocate(Self::layout(path.len(), name_offset_and_flags)).cast::<Self>();
        let value = Self {
            path_bytes: path.len() as u32,
            name_offset_and_flags,
            head: AtomicPtr::new(head.as_ptr()),
            died: AtomicI64::new(ALIVE),
            czxid: czxid.0,
            family: AtomicPtr::new(ptr::null_mut()),
            first_child: AtomicPtr::new(ptr::null_mut()),
            next: AtomicPtr::new(ptr::null_mut()),
            previous: UnsafeCell::new(ptr::null_mut()),
            parent,
            ctime_ms,
            crc: AtomicU32::new(0),
        };
        // SAFETY: the memory is ours alone, aligned for Slot (16 >= 8) and as long as the struct, and as the path and
        // the owner behind `crc`. The struct's padding overlaps the path, so the path is written last.
        unsafe {
            slot.write(value);
            let start = slot.as_ptr().cast::<u8>().add(PATH_OFFSET);
            ptr::copy_nonoverlapping(path.as_ptr(), start, path.len());
            if name_offset_and_flags & OWNED != 0 {
                start.add(path.len()).cast::<i64>().write_unaligned(stored_owner);
            }
        }
        slot
    }

    /// Frees a slot with its newest version and family. Older ones were retired on their own when superseded.
    ///
    /// # Safety
    /// `slot` came from [`Slot::allocate`], is freed once, and nobody can reach it or its newest records any more.
    pub(super) unsafe fn free(slot: *mut Self) {
        // SAFETY: by the promise above all three records are valid and ours alone.
        unsafe {
            Version::free((*slot).head.load(Ordering::Relaxed));
            let family = (*slot).family.load(Ordering::Relaxed);
            if !family.is_null() {
                drop(Box::from_raw(family));
            }
            let layout = Self::layout((*slot).path_bytes as usize, (*slot).name_offset_and_flags);
            dealloc(slot.cast(), layout);
        }
    }

    /// The full path.
    ///
    /// # Safety
    /// `slot` came from [`Slot::allocate`] and is not freed during `'a`.
    pub(super) unsafe fn path<'a>(slot: *const Self) -> &'a str {
        // SAFETY: the path's bytes follow the struct in the same allocation, are never written after `allocate`, and
        // came from a &str.
        unsafe {
            let bytes = slot.cast::<u8>().add(PATH_OFFSET);
            let bytes = std::slice::from_raw_parts(bytes, (*slot).path_bytes as usize);
            std::str::from_utf8_unchecked(bytes)
        }
    }

    pub(super) fn name_offset(&self) -> usize {
        (self.name_offset_and_flags & !(LOADED | EPHEMERAL | OWNED)) as usize
    }

    /// Whether the node exists at `view`.
    pub(super) fn is_visible(&self, view: i64) -> bool {
        self.born() <= view && view < self.died.load(Ordering::Acquire)
    }

    /// The first view that may see the node.
    pub(super) fn born(&self) -> i64 {
        if self.name_offset_and_flags & LOADED != 0 { EVER } else { self.czxid }
    }

    pub(super) fn czxid(&self) -> Zxid {
        Zxid(self.czxid)
    }

    pub(super) fn ctime_ms(&self) -> i64 {
        self.ctime_ms
    }

    /// The owner in the stored form.
    ///
    /// # Safety
    /// `slot` came from [`Slot::allocate`] and is not freed.
    unsafe fn stored_owner(slot: *const Self) -> i64 {
        // SAFETY: a slot with the flag has the owner behind its path, never written after `allocate`.
        unsafe {
            if (*slot).name_offset_and_flags & OWNED == 0 {
                return 0;
            }
            let at = PATH_OFFSET + (*slot).path_bytes as usize;
            slot.cast::<u8>().add(at).cast::<i64>().read_unaligned()
        }
    }

    /// Who or what will take the node away.
    ///
    /// # Safety
    /// `slot` came from [`Slot::allocate`] and is not freed.
    pub(super) unsafe fn owner(slot: *const Self) -> Owner {
        // SAFETY: the caller's promise.
        let (flags, stored) = unsafe { ((*slot).name_offset_and_flags, Self::stored_owner(slot)) };
        if flags & EPHEMERAL != 0 {
            return Owner::Session(SessionId(stored));
        }
        Owner::decode(stored, true)
    }

    pub(super) fn crc(&self) -> u32 {
        self.crc.load(Ordering::Relaxed)
    }

    pub(super) fn set_crc(&self, crc: u32) {
        self.crc.store(crc, Ordering::Relaxed);
    }

    pub(super) fn parent(&self) -> *mut Self {
        self.parent
    }

    pub(super) fn first_child(&self) -> *mut Self {
        self.first_child.load(Ordering::Acquire)
    }

    pub(super) fn next(&self) -> *mut Self {
        self.next.load(Ordering::Acquire)
    }

    pub(super) fn head(&self) -> *mut Version {
        self.head.load(Ordering::Acquire)
    }

    pub(super) fn family_head(&self) -> *mut Family {
        self.family.load(Ordering::Acquire)
    }

    /// Marks the node deleted for every view from `zxid` on.
    pub(super) fn set_died(&self, zxid: Zxid) {
        self.died.store(zxid.0, Ordering::Release);
    }

    pub(super) fn has_died(&self) -> bool {
        self.died.load(Ordering::Relaxed) != ALIVE
    }

    /// Puts `version` in front of the chain; returns what it supersedes.
    pub(super) fn push_version(&self, version: NonNull<Version>) -> *mut Version {
        let older = self.head.load(Ordering::Relaxed);
        // SAFETY: `version` was just allocated and nobody else knows it.
        unsafe { version.as_ref() }.older.store(older, Ordering::Relaxed);
        self.head.store(version.as_ptr(), Ordering::Release);
        older
    }

    /// Puts `family` in front of the chain; returns what it supersedes, which may be null.
    pub(super) fn push_family(&self, family: Box<Family>) -> (*mut Family, *mut Family) {
        let older = self.family.load(Ordering::Relaxed);
        family.older.store(older, Ordering::Relaxed);
        let family = Box::into_raw(family);
        self.family.store(family, Ordering::Release);
        (older, family)
    }

    /// Puts `child` at the front of this node's children.
    ///
    /// # Safety
    /// Called by the writer; `child` is new, not linked, and its `parent` is this slot; this slot's children are valid.
    pub(super) unsafe fn link_child(&self, child: NonNull<Self>) {
        let first = self.first_child.load(Ordering::Relaxed);
        // SAFETY: by the promise above; `previous` is the writer's own.
        unsafe {
            child.as_ref().next.store(first, Ordering::Relaxed);
            if !first.is_null() {
                *(*first).previous.get() = child.as_ptr();
            }
        }
        self.first_child.store(child.as_ptr(), Ordering::Release);
    }

    /// Takes this slot out of its parent's list. A reader that stands on it finds its way on through `next`.
    ///
    /// # Safety
    /// Called once, by the writer, on a linked slot; the parent and both neighbours are valid.
    pub(super) unsafe fn unlink(&self) {
        let next = self.next.load(Ordering::Relaxed);
        // SAFETY: by the promise above; `previous` is the writer's own.
        unsafe {
            let previous = *self.previous.get();
            if previous.is_null() {
                (*self.parent).first_child.store(next, Ordering::Release);
            } else {
                (*previous).next.store(next, Ordering::Release);
            }
            if !next.is_null() {
                *(*next).previous.get() = previous;
            }
        }
    }

    /// The version that `view` sees, or null if the node is younger than that.
    ///
    /// # Safety
    /// Every version that `view` may walk over is valid: the caller's published view is not above `view`.
    pub(super) unsafe fn version_at(&self, view: i64) -> *const Version {
        let mut version = self.head();
        // SAFETY: by the promise above.
        unsafe {
            while !version.is_null() && (*version).zxid > view {
                version = (*version).older.load(Ordering::Acquire);
            }
        }
        version
    }

    /// The family that `view` sees, or null: no child was created or deleted up to `view`.
    ///
    /// # Safety
    /// As for [`Slot::version_at`].
    pub(super) unsafe fn family_at(&self, view: i64) -> *const Family {
        let mut family = self.family_head();
        // SAFETY: by the promise above.
        unsafe {
            while !family.is_null() && (*family).zxid > view {
                family = (*family).older.load(Ordering::Acquire);
            }
        }
        family
    }
}

impl Version {
    fn layout(length_and_flags: u32) -> Layout {
        let data_offset =
            if length_and_flags & CHANGED == 0 { DATA_OFFSET_FRESH } else { DATA_OFFSET_CHANGED };
        // At least as long as the struct, so that a reference to it is valid.
        let bytes = (data_offset + (length_and_flags & LENGTH) as usize).max(size_of::<Self>());
        Layout::from_size_align(bytes, align_of::<Self>()).expect("data is shorter than 1 GiB")
    }

    /// A version that is not linked anywhere yet. Without `changed`, the stat follows from the node's creation.
    pub(super) fn allocate(
        zxid: i64,
        acl: NodeAcl,
        changed: Option<Changed>,
        data: Option<&[u8]>,
    ) -> NonNull<Self> {
        let bytes = data.unwrap_or_default();
        assert!(bytes.len() <= LENGTH as usize, "data is bounded by jute.maxbuffer");
        let mut length_and_flags = bytes.len() as u32;
        length_and_flags |= if data.is_none() { NULL } else { 0 };
        length_and_flags |= if changed.is_some() { CHANGED } else { 0 };
        let version = allocate(Self::layout(length_and_flags)).cast::<Self>();
        let value = Self {
            zxid,
            older: AtomicPtr::new(ptr::null_mut()),
            acl: acl.map_or(ptr::null(), Arc::into_raw),
            length_and_flags,
            changed: ChangedRoom([]),
        };
        // SAFETY: the memory is ours alone, aligned, and `layout` made room for all three parts. The struct's padding
        // may overlap the data, so the data is written last.
        unsafe {
            version.write(value);
            let start = version.as_ptr().cast::<u8>();
            let data_offset = match changed {
                None => DATA_OFFSET_FRESH,
                Some(changed) => {
                    start.add(CHANGED_OFFSET).cast::<Changed>().write(changed);
                    DATA_OFFSET_CHANGED
                }
            };
            ptr::copy_nonoverlapping(bytes.as_ptr(), start.add(data_offset), bytes.len());
        }
        version
    }

    /// Frees a version.
    ///
    /// # Safety
    /// `version` came from [`Version::allocate`], is freed once, and nobody can reach it any more.
    pub(super) unsafe fn free(version: *mut Self) {
        // SAFETY: by the promise above; the pointer of the list came from `Arc::into_raw`.
        unsafe {
            if !(*version).acl.is_null() {
                drop(Arc::from_raw((*version).acl));
            }
            let layout = Self::layout((*version).length_and_flags);
            dealloc(version.cast(), layout);
        }
    }

    pub(super) fn zxid(&self) -> i64 {
        self.zxid
    }

    pub(super) fn older(&self) -> *mut Self {
        self.older.load(Ordering::Relaxed)
    }

    pub(super) fn set_older(&self, older: *mut Self) {
        self.older.store(older, Ordering::Release);
    }

    pub(super) fn data_bytes(&self) -> usize {
        (self.length_and_flags & LENGTH) as usize
    }

    /// The data.
    ///
    /// # Safety
    /// `version` came from [`Version::allocate`] and is not freed during `'a`.
    pub(super) unsafe fn data<'a>(version: *const Self) -> Option<&'a [u8]> {
        // SAFETY: the data follows in the same allocation, is never written after `allocate`, and has this length.
        unsafe {
            let flags = (*version).length_and_flags;
            if flags & NULL != 0 {
                return None;
            }
            let offset = if flags & CHANGED == 0 { DATA_OFFSET_FRESH } else { DATA_OFFSET_CHANGED };
            Some(std::slice::from_raw_parts(version.cast::<u8>().add(offset), (flags & LENGTH) as usize))
        }
    }

    /// What differs from the creation, if anything does.
    ///
    /// # Safety
    /// `version` came from [`Version::allocate`] and is not freed.
    pub(super) unsafe fn changed(version: *const Self) -> Option<Changed> {
        // SAFETY: a version with the flag has the struct at this place.
        unsafe {
            if (*version).length_and_flags & CHANGED == 0 {
                return None;
            }
            Some(version.cast::<u8>().add(CHANGED_OFFSET).cast::<Changed>().read())
        }
    }

    /// The entries of the ACL.
    ///
    /// # Safety
    /// `version` came from [`Version::allocate`] and is not freed during `'a`.
    pub(super) unsafe fn acl<'a>(version: *const Self) -> &'a [Acl<'static>] {
        // SAFETY: a version owns its list.
        unsafe { (*version).acl.as_ref() }.map_or(&OPEN_LIST, |list| &list.entries)
    }

    /// The shared list itself.
    ///
    /// # Safety
    /// `version` came from [`Version::allocate`] and is not freed during `'a`.
    pub(super) unsafe fn acl_list<'a>(version: *const Self) -> Option<&'a AclList> {
        // SAFETY: a version owns its list.
        unsafe { (*version).acl.as_ref() }
    }

    /// Another owner of the list.
    ///
    /// # Safety
    /// `version` came from [`Version::allocate`] and is not freed.
    pub(super) unsafe fn node_acl(version: *const Self) -> NodeAcl {
        // SAFETY: the pointer came from `Arc::into_raw` and the version holds one count.
        unsafe {
            let acl = (*version).acl;
            if acl.is_null() {
                return None;
            }
            Arc::increment_strong_count(acl);
            Some(Arc::from_raw(acl))
        }
    }
}

/// Puts a stat together.
///
/// # Safety
/// `slot` came from [`Slot::allocate`], `version` and `family` (which may be null) are records of it, and none is freed.
pub(super) unsafe fn persisted(
    slot: *const Slot,
    version: *const Version,
    family: *const Family,
) -> StatPersisted {
    // SAFETY: by the promise above.
    let (changed, family, ephemeral_owner, slot) =
        unsafe { (Version::changed(version), family.as_ref(), Slot::stored_owner(slot), &*slot) };
    let changed =
        changed.unwrap_or(Changed { mzxid: slot.czxid, mtime_ms: slot.ctime_ms, version: 0, aversion: 0 });
    StatPersisted {
        czxid: slot.czxid(),
        mzxid: Zxid(changed.mzxid),
        ctime_ms: slot.ctime_ms,
        mtime_ms: changed.mtime_ms,
        version: changed.version,
        cversion: family.map_or(0, |family| family.cversion),
        aversion: changed.aversion,
        ephemeral_owner,
        pzxid: Zxid(family.map_or(slot.czxid, |family| family.pzxid)),
    }
}
