//! The watches of one client core's connections (rows W1-W15, W24).
//!
//! A record stands for one (connection, path) pair, whatever the number of modes in which that connection watches the
//! path: so an event reaches a connection once by construction (W3, W12). Records live in arrays that grow in pieces and
//! are chained by 32-bit index twice, with the other watchers of the path and with the other watches of the connection.
//! A hash index finds a path; another one finds a pair, but only where a path has several watchers: most have one, which
//! is then the first of the path's chain. In the same way a byte tells whether a path is watched recursively, and a count is
//! kept only where it is several times. So a million watches of any kind on paths of their own of 24 bytes stay below 95 MB.
//!
//! The table tells the tree which paths it cares about *before* the caller reads (see [`Interests`]), so that the
//! pipeline wakes this core for a change that comes later, and this core sees every change that came before.

use super::chunks::Chunks;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use std::hash::BuildHasher;
use zkfast_wire::{EventKind, watch::WatcherKind};

/// Index that stands for "none" in chains.
const NONE: u32 = u32::MAX;

/// In which ways a connection watches a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Modes(u8);

impl Modes {
    /// One-shot, left by exists and getData.
    pub const DATA: Self = Self(1);
    /// One-shot, left by getChildren.
    pub const CHILD: Self = Self(2);
    /// addWatch mode 0: data and children of the path.
    pub const PERSISTENT: Self = Self(4);
    /// addWatch mode 1: data of the path and all its descendants.
    pub const RECURSIVE: Self = Self(8);
    /// What the `wch*` words list: all but the child watches (W25).
    pub const DATA_TABLE: Self = Self(1 | 4 | 8);
    const CHILD_TABLE: Self = Self(2 | 4);
    const ALL: Self = Self(15);

    const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the two have a mode in common.
    pub const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// In how many of Apache's two tables, that of data and that of children, a pair with these modes stands. A recursive
    /// watch is among the data watches alone, as with 3.9; with 3.8 it was in both.
    const fn tables(self) -> usize {
        self.any(Self::DATA_TABLE) as usize + self.any(Self::CHILD_TABLE) as usize
    }

    /// The modes that removeWatches and checkWatches mean by `kind` (W24).
    pub const fn of_kind(kind: WatcherKind) -> Self {
        match kind {
            WatcherKind::Children => Self::CHILD,
            WatcherKind::Data => Self::DATA,
            WatcherKind::Any => Self::ALL,
            WatcherKind::Persistent => Self::PERSISTENT,
            WatcherKind::PersistentRecursive => Self::RECURSIVE,
        }
    }
}

/// Whom the table tells which paths are watched.
pub trait Interests {
    /// The first watch on `path`; `recursive` if it concerns all descendants too.
    fn watch(&mut self, path: &str, recursive: bool);
    /// The last watch (or last recursive watch) on `path` is gone.
    fn unwatch(&mut self, path: &str, recursive: bool);
}

#[derive(Clone, Debug)]
struct Watch {
    slot: u32,
    path: u32,
    next_of_path: u32,
    previous_of_path: u32,
    next_of_slot: u32,
    previous_of_slot: u32,
}

/// What else a record says, in a byte beside it.
#[derive(Clone, Copy, Debug)]
struct State {
    modes: Modes,
}

impl State {
    /// The bit of `modes` that stands for: it is in `by_pair`. One that is not has been alone on its path since it was
    /// made, so it is the first of the path's chain.
    const INDEXED: u8 = 1 << 7;
    const NEW: Self = Self { modes: Modes(0) };

    const fn modes(self) -> Modes {
        Modes(self.modes.0 & !Self::INDEXED)
    }

    const fn is_indexed(self) -> bool {
        self.modes.0 & Self::INDEXED != 0
    }

    const fn set_modes(&mut self, modes: Modes) {
        self.modes = Modes(modes.0 | self.modes.0 & Self::INDEXED);
    }

    const fn set_indexed(&mut self) {
        self.modes.0 |= Self::INDEXED;
    }
}

/// How many recursive watches there are on a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Below {
    None,
    One,
    /// As many as `crowds` says.
    Several,
}

#[derive(Clone, Debug)]
struct Watcher {
    first: u32,
    count: u32,
    notified_at: u32,
}

const NO_WATCHER: Watcher = Watcher { first: NONE, count: 0, notified_at: 0 };

/// The table.
#[derive(Debug, Default)]
pub struct WatchTable {
    watches: Chunks<Watch>,
    /// By watch.
    states: Chunks<State>,
    free_watches: Vec<u32>,
    paths: Chunks<Box<str>>,
    /// By path: the first of its watches.
    firsts: Chunks<u32>,
    /// By path: what its recursive watches are.
    below: Chunks<Below>,
    free_paths: Vec<u32>,
    /// Paths that are watched recursively.
    recursive_paths: usize,
    /// Number of recursive watches by path, where there are several: where there is one, `below` says all.
    crowds: HashMap<u32, u32>,
    /// By connection slot.
    watchers: Vec<Watcher>,
    by_path: HashTable<u32>,
    by_pair: HashTable<u32>,
    /// See [`WatchTable::total`].
    total: usize,
    hasher: DefaultHashBuilder,
    /// Number of the event being fired, so that a connection is notified of it once.
    event: u32,
}

impl WatchTable {
    /// Adds `modes` of `slot` on `path`; adding what is there already changes nothing (W4).
    pub fn add(&mut self, slot: u32, path: &str, modes: Modes, interests: &mut impl Interests) {
        let path_index = match self.find_path(path) {
            Some(index) => index,
            None => {
                interests.watch(path, false);
                self.new_path(path)
            }
        };
        let watch_index = match self.find_pair(slot, path_index) {
            Some(index) => index,
            None => self.new_watch(slot, path_index),
        };
        let before = self.states[watch_index].modes();
        if modes.any(Modes::RECURSIVE) && !before.any(Modes::RECURSIVE) {
            self.add_recursive(path_index, interests);
        }
        let after = before.or(modes);
        self.total += after.tables() - before.tables();
        self.states[watch_index].set_modes(after);
    }

    /// Removes `modes` of `slot` from `path`; whether there were any (else -121).
    pub fn remove(&mut self, slot: u32, path: &str, modes: Modes, interests: &mut impl Interests) -> bool {
        let Some(index) = self.find_path(path).and_then(|path| self.find_pair(slot, path)) else {
            return false;
        };
        let had = self.states[index].modes().any(modes);
        self.reduce(index, modes, interests);
        had
    }

    /// Whether `slot` watches `path` in any of `modes`.
    pub fn contains(&self, slot: u32, path: &str, modes: Modes) -> bool {
        self.find_path(path)
            .and_then(|path| self.find_pair(slot, path))
            .is_some_and(|index| self.states[index].modes().any(modes))
    }

    /// Forgets all watches of a connection (W1).
    pub fn remove_connection(&mut self, slot: u32, interests: &mut impl Interests) {
        while let Some(watcher) = self.watchers.get(slot as usize)
            && watcher.first != NONE
        {
            self.reduce(watcher.first, Modes::ALL, interests);
        }
    }

    /// Appends to `notified` every connection that watches for `kind` on `path`, each once, and uses up the one-shot
    /// watches that it finds.
    pub fn fire(
        &mut self,
        path: &str,
        kind: EventKind,
        interests: &mut impl Interests,
        notified: &mut Vec<u32>,
    ) {
        if self.by_path.is_empty() {
            return;
        }
        self.begin_event();
        let (concerned, consumed) = match kind {
            EventKind::NodeCreated | EventKind::NodeDataChanged => {
                (Modes::DATA.or(Modes::PERSISTENT).or(Modes::RECURSIVE), Modes::DATA)
            }
            EventKind::NodeDeleted => (Modes::ALL, Modes::DATA.or(Modes::CHILD)),
            EventKind::NodeChildrenChanged => (Modes::CHILD.or(Modes::PERSISTENT), Modes::CHILD),
        };
        if let Some(index) = self.find_path(path) {
            self.fire_path(index, concerned, consumed, interests, notified);
        }
        if self.recursive_paths > 0 && kind != EventKind::NodeChildrenChanged {
            for ancestor in ancestors(path) {
                if let Some(index) = self.find_path(ancestor)
                    && self.below[index] != Below::None
                {
                    self.fire_path(index, Modes::RECURSIVE, Modes(0), interests, notified);
                }
            }
        }
    }

    fn fire_path(
        &mut self,
        path: u32,
        concerned: Modes,
        consumed: Modes,
        interests: &mut impl Interests,
        notified: &mut Vec<u32>,
    ) {
        let mut index = self.firsts[path];
        while index != NONE {
            let Watch { slot, next_of_path, .. } = self.watches[index];
            let modes = self.states[index].modes();
            if modes.any(concerned) {
                let watcher = &mut self.watchers[slot as usize];
                if watcher.notified_at != self.event {
                    watcher.notified_at = self.event;
                    notified.push(slot);
                }
                if modes.any(consumed) {
                    self.reduce(index, consumed, interests);
                }
            }
            index = next_of_path;
        }
    }

    fn begin_event(&mut self) {
        self.event = self.event.wrapping_add(1);
        if self.event == 0 {
            // After four billion events the stamps start anew.
            self.watchers.iter_mut().for_each(|watcher| watcher.notified_at = 0);
            self.event = 1;
        }
    }

    /// Number of (connection, path) pairs.
    pub fn len(&self) -> usize {
        self.watches.len() - self.free_watches.len()
    }

    /// `watch_count` of mntr: the pairs that Apache's table of data watches and its table of child watches would hold
    /// together. A pair with a data and a child watch counts twice, one with a persistent watch too.
    pub const fn total(&self) -> usize {
        self.total
    }

    /// Whether nobody watches anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of paths that a connection watches.
    pub fn count_of(&self, slot: u32) -> usize {
        self.watchers.get(slot as usize).map_or(0, |watcher| watcher.count as usize)
    }

    /// What a connection watches.
    pub fn of_connection(&self, slot: u32) -> impl Iterator<Item = (&str, Modes)> {
        let mut index = self.watchers.get(slot as usize).map_or(NONE, |watcher| watcher.first);
        std::iter::from_fn(move || {
            let watch = self.watches.get(index)?;
            let modes = self.states[index].modes();
            index = watch.next_of_slot;
            Some((&*self.paths[watch.path], modes))
        })
    }

    fn path_hash(&self, path: &str) -> u64 {
        self.hasher.hash_one(path)
    }

    fn pair_hash(&self, slot: u32, path: u32) -> u64 {
        self.hasher.hash_one(u64::from(slot) << 32 | u64::from(path))
    }

    fn find_path(&self, path: &str) -> Option<u32> {
        self.by_path.find(self.path_hash(path), |index| *self.paths[*index] == *path).copied()
    }

    fn find_pair(&self, slot: u32, path: u32) -> Option<u32> {
        let first = self.firsts[path];
        if self.watches.get(first).is_some_and(|watch| watch.slot == slot) {
            return Some(first);
        }
        let is_pair = |index: &u32| {
            let watch = &self.watches[*index];
            watch.slot == slot && watch.path == path
        };
        self.by_pair.find(self.pair_hash(slot, path), is_pair).copied()
    }

    fn new_path(&mut self, path: &str) -> u32 {
        let index = match self.free_paths.pop() {
            Some(index) => {
                self.paths[index] = path.into();
                self.firsts[index] = NONE;
                index
            }
            None => {
                self.paths.push(path.into());
                self.firsts.push(NONE);
                self.below.push(Below::None);
                last_of(&self.paths)
            }
        };
        let hash = self.path_hash(path);
        let Self { by_path, paths, hasher, .. } = self;
        by_path.insert_unique(hash, index, |index| hasher.hash_one(&*paths[*index]));
        index
    }

    fn new_watch(&mut self, slot: u32, path: u32) -> u32 {
        if self.watchers.len() <= slot as usize {
            self.watchers.resize(slot as usize + 1, NO_WATCHER);
        }
        let next_of_path = self.firsts[path];
        let next_of_slot = self.watchers[slot as usize].first;
        let watch =
            Watch { slot, path, next_of_path, previous_of_path: NONE, next_of_slot, previous_of_slot: NONE };
        let index = match self.free_watches.pop() {
            Some(index) => {
                self.watches[index] = watch;
                self.states[index] = State::NEW;
                index
            }
            None => {
                self.watches.push(watch);
                self.states.push(State::NEW);
                last_of(&self.watches)
            }
        };
        if next_of_path != NONE {
            self.watches[next_of_path].previous_of_path = index;
        }
        if next_of_slot != NONE {
            self.watches[next_of_slot].previous_of_slot = index;
        }
        self.firsts[path] = index;
        let watcher = &mut self.watchers[slot as usize];
        watcher.first = index;
        watcher.count += 1;
        if next_of_path != NONE {
            self.index_pair(next_of_path);
            self.index_pair(index);
        }
        index
    }

    /// Puts a record into the index of pairs, if it is not there.
    fn index_pair(&mut self, index: u32) {
        let Watch { slot, path, .. } = self.watches[index];
        if !self.states[index].is_indexed() {
            self.states[index].set_indexed();
            let hash = self.pair_hash(slot, path);
            let Self { by_pair, watches, hasher, .. } = self;
            by_pair.insert_unique(hash, index, |index| {
                let watch = &watches[*index];
                hasher.hash_one(u64::from(watch.slot) << 32 | u64::from(watch.path))
            });
        }
    }

    /// Takes `modes` from a record, and the record and its path out of the table when nothing is left of them.
    fn reduce(&mut self, index: u32, modes: Modes, interests: &mut impl Interests) {
        let before = self.states[index].modes();
        let left = before.without(modes);
        self.states[index].set_modes(left);
        self.total -= before.tables() - left.tables();
        let path = self.watches[index].path;
        if before.any(Modes::RECURSIVE) && modes.any(Modes::RECURSIVE) {
            self.remove_recursive(path, interests);
        }
        if left.is_empty() {
            self.drop_watch(index);
            if self.firsts[path] == NONE {
                interests.unwatch(&self.paths[path], false);
                self.drop_path(path);
            }
            if self.is_empty() && self.watches.is_large() {
                self.give_back();
            }
        }
    }

    /// One more recursive watch on a path.
    fn add_recursive(&mut self, path: u32, interests: &mut impl Interests) {
        match self.below[path] {
            Below::None => {
                interests.watch(&self.paths[path], true);
                self.below[path] = Below::One;
                self.recursive_paths += 1;
            }
            Below::One => {
                self.crowds.insert(path, 2);
                self.below[path] = Below::Several;
            }
            Below::Several => *self.crowd(path) += 1,
        }
    }

    /// One less.
    fn remove_recursive(&mut self, path: u32, interests: &mut impl Interests) {
        match self.below[path] {
            Below::None => unreachable!("each recursive watch is counted"),
            Below::One => {
                self.below[path] = Below::None;
                self.recursive_paths -= 1;
                interests.unwatch(&self.paths[path], true);
            }
            Below::Several => {
                let crowd = self.crowd(path);
                *crowd -= 1;
                if *crowd == 1 {
                    self.crowds.remove(&path);
                    self.below[path] = Below::One;
                }
            }
        }
    }

    /// Number of recursive watches on a path that has several.
    fn crowd(&mut self, path: u32) -> &mut u32 {
        self.crowds.get_mut(&path).expect("several are counted")
    }

    /// Nobody watches anything any more: what a great many watches took is freed.
    fn give_back(&mut self) {
        let (watchers, hasher) = (std::mem::take(&mut self.watchers), self.hasher.clone());
        *self = Self { watchers, hasher, event: self.event, ..Self::default() };
    }

    fn drop_watch(&mut self, index: u32) {
        let watch = self.watches[index].clone();
        if self.states[index].is_indexed() {
            let hash = self.pair_hash(watch.slot, watch.path);
            self.by_pair
                .find_entry(hash, |found| *found == index)
                .expect("it says that it is indexed")
                .remove();
        }
        match watch.previous_of_path {
            NONE => self.firsts[watch.path] = watch.next_of_path,
            previous => self.watches[previous].next_of_path = watch.next_of_path,
        }
        if watch.next_of_path != NONE {
            self.watches[watch.next_of_path].previous_of_path = watch.previous_of_path;
        }
        let watcher = &mut self.watchers[watch.slot as usize];
        watcher.count -= 1;
        match watch.previous_of_slot {
            NONE => watcher.first = watch.next_of_slot,
            previous => self.watches[previous].next_of_slot = watch.next_of_slot,
        }
        if watch.next_of_slot != NONE {
            self.watches[watch.next_of_slot].previous_of_slot = watch.previous_of_slot;
        }
        self.free_watches.push(index);
    }

    fn drop_path(&mut self, index: u32) {
        let path = std::mem::take(&mut self.paths[index]);
        let hash = self.path_hash(&path);
        self.by_path.find_entry(hash, |found| *found == index).expect("each path is indexed").remove();
        self.free_paths.push(index);
    }
}

/// The ancestors of `path`, nearest first, itself not among them.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = path;
    std::iter::from_fn(move || {
        if rest.len() <= 1 {
            return None;
        }
        let end = rest.rfind('/')?;
        rest = if end == 0 { "/" } else { &rest[..end] };
        Some(rest)
    })
}

/// The index of the entry that was just appended.
fn last_of<T>(chunks: &Chunks<T>) -> u32 {
    let index = u32::try_from(chunks.len() - 1).ok().filter(|index| *index != NONE);
    index.expect("a core has fewer than 2^32 - 1 watches")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// What the tree was told.
    #[derive(Default)]
    struct Told(BTreeSet<(String, bool)>);

    impl Interests for Told {
        fn watch(&mut self, path: &str, recursive: bool) {
            assert!(self.0.insert((path.into(), recursive)), "{path} was told twice");
        }
        fn unwatch(&mut self, path: &str, recursive: bool) {
            assert!(self.0.remove(&(path.into(), recursive)), "{path} was never told");
        }
    }

    fn fired(table: &mut WatchTable, told: &mut Told, path: &str, kind: EventKind) -> Vec<u32> {
        let mut notified = Vec::new();
        table.fire(path, kind, told, &mut notified);
        notified.sort_unstable();
        notified
    }

    /// The trigger table W11-W13, one row a line; W2, W4, W7, W8: who is told once and who always.
    #[test]
    fn each_event_reaches_the_modes_that_it_concerns() {
        use EventKind::{NodeChildrenChanged, NodeCreated, NodeDataChanged, NodeDeleted};
        for (kind, data, child, persistent, recursive) in [
            (NodeCreated, true, false, true, true),
            (NodeDeleted, true, true, true, true),
            (NodeDataChanged, true, false, true, true),
            (NodeChildrenChanged, false, true, true, false),
        ] {
            let (mut table, mut told) = (WatchTable::default(), Told::default());
            table.add(1, "/a", Modes::DATA, &mut told);
            table.add(2, "/a", Modes::CHILD, &mut told);
            table.add(3, "/a", Modes::PERSISTENT, &mut told);
            table.add(4, "/a", Modes::RECURSIVE, &mut told);
            let expected: Vec<u32> = [(1, data), (2, child), (3, persistent), (4, recursive)]
                .iter()
                .filter_map(|(slot, reached)| reached.then_some(*slot))
                .collect();
            assert_eq!(fired(&mut table, &mut told, "/a", kind), expected, "{kind:?}");
            // One-shot watches are used up, the others stay.
            let still: Vec<u32> = expected.into_iter().filter(|slot| *slot >= 3).collect();
            assert_eq!(fired(&mut table, &mut told, "/a", kind), still, "{kind:?} again");
        }
    }

    /// G10, W3: a connection that watches a path in several ways hears of it once.
    #[test]
    fn a_connection_hears_of_an_event_once() {
        let (mut table, mut told) = (WatchTable::default(), Told::default());
        for (path, modes) in [
            ("/a/b", Modes::DATA),
            ("/a/b", Modes::CHILD),
            ("/a/b", Modes::PERSISTENT),
            ("/a", Modes::RECURSIVE),
            ("/", Modes::RECURSIVE),
        ] {
            table.add(7, path, modes, &mut told);
        }
        assert_eq!(fired(&mut table, &mut told, "/a/b", EventKind::NodeDeleted), [7]);
        assert!(!table.contains(7, "/a/b", Modes::DATA.or(Modes::CHILD)));
        assert!(table.contains(7, "/a/b", Modes::PERSISTENT));
        assert_eq!(fired(&mut table, &mut told, "/a/x/y", EventKind::NodeCreated), [7]);
        assert_eq!(fired(&mut table, &mut told, "/elsewhere", EventKind::NodeCreated), [7]);
        assert_eq!(fired(&mut table, &mut told, "/a", EventKind::NodeChildrenChanged), [0; 0]);
        table.remove_connection(7, &mut told);
        assert!(table.is_empty());
        assert!(told.0.is_empty());
        assert_eq!(fired(&mut table, &mut told, "/a/b", EventKind::NodeDeleted), [0; 0]);
    }

    /// Danger: a table that was large and is empty again has lost who watches, or keeps the memory.
    #[test]
    fn a_large_table_that_empties_begins_anew() {
        let (mut table, mut told) = (WatchTable::default(), Told::default());
        for round in 0..3 {
            for number in 0..6_000_u32 {
                table.add(number % 7, &format!("/{number}"), Modes::DATA, &mut told);
            }
            table.add(3, "/", Modes::RECURSIVE, &mut told);
            assert!(table.watches.is_large() && table.len() == 6_001);
            for number in 0..6_000_u32 {
                let expected = if number % 7 == 3 { vec![3] } else { [3, number % 7].into_iter().collect() };
                let mut found =
                    fired(&mut table, &mut told, &format!("/{number}"), EventKind::NodeDataChanged);
                found.sort_by_key(|slot| u32::from(*slot != 3));
                assert_eq!(found, expected, "round {round}");
            }
            assert_eq!((table.len(), table.watches.is_large()), (1, true));
            table.remove_connection(3, &mut told);
            assert!(table.is_empty() && !table.watches.is_large() && told.0.is_empty());
            assert_eq!((0..7).map(|slot| table.count_of(slot)).sum::<usize>(), 0);
        }
    }

    #[test]
    fn ancestors_end_at_the_root() {
        assert_eq!(ancestors("/a/b/c").collect::<Vec<_>>(), ["/a/b", "/a", "/"]);
        assert_eq!(ancestors("/a").collect::<Vec<_>>(), ["/"]);
        assert_eq!(ancestors("/").count(), 0);
        assert_eq!(ancestors("").count(), 0);
        assert_eq!(ancestors("no slash").count(), 0);
    }

    #[test]
    fn remove_watches_takes_what_its_kind_says() {
        let (mut table, mut told) = (WatchTable::default(), Told::default());
        let all = Modes::ALL;
        for (kind, left) in [
            (WatcherKind::Children, all.without(Modes::CHILD)),
            (WatcherKind::Data, all.without(Modes::DATA)),
            (WatcherKind::Persistent, all.without(Modes::PERSISTENT)),
            (WatcherKind::PersistentRecursive, all.without(Modes::RECURSIVE)),
            (WatcherKind::Any, Modes(0)),
        ] {
            table.add(1, "/a", all, &mut told);
            assert!(table.remove(1, "/a", Modes::of_kind(kind), &mut told));
            assert!(!table.remove(1, "/a", Modes::of_kind(kind), &mut told), "{kind:?} twice");
            assert_eq!(table.of_connection(1).next().map_or(Modes(0), |(_, modes)| modes), left, "{kind:?}");
        }
        assert!(told.0.is_empty());
    }

    /// Danger: an index or a chain goes wrong after many additions and removals. The naive table beside it is a map of
    /// (path, connection) to modes.
    #[test]
    fn it_agrees_with_a_naive_table() {
        let (mut table, mut told) = (WatchTable::default(), Told::default());
        let mut naive = BTreeMap::<(String, u32), u8>::new();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let paths = ["/", "/a", "/a/b", "/a/b/c", "/b", "/b/c"];
        for _ in 0..50_000 {
            let slot = draw(5) as u32;
            let path = paths[draw(paths.len() as u64) as usize];
            let modes = Modes(1 << draw(4));
            match draw(8) {
                0..3 => {
                    table.add(slot, path, modes, &mut told);
                    *naive.entry((path.into(), slot)).or_default() |= modes.0;
                }
                3 => {
                    let had = table.remove(slot, path, modes, &mut told);
                    let entry = naive.get_mut(&(path.to_owned(), slot));
                    assert_eq!(had, entry.as_ref().is_some_and(|bits| **bits & modes.0 != 0));
                    if let Some(bits) = entry {
                        *bits &= !modes.0;
                    }
                }
                4 if draw(10) == 0 => {
                    table.remove_connection(slot, &mut told);
                    naive.retain(|(_, watcher), _| *watcher != slot);
                }
                _ => {
                    let kind = EventKind::from_i32(draw(4) as i32 + 1).unwrap();
                    let (concerned, consumed) = match kind {
                        EventKind::NodeCreated | EventKind::NodeDataChanged => (1 | 4 | 8, 1),
                        EventKind::NodeDeleted => (15, 3),
                        EventKind::NodeChildrenChanged => (2 | 4, 2),
                    };
                    let mut expected = BTreeSet::new();
                    for ((watched, watcher), bits) in &mut naive {
                        let below = path.starts_with(&format!("{}/", watched.trim_end_matches('/')));
                        let recursive = below && *bits & 8 != 0 && kind != EventKind::NodeChildrenChanged;
                        if watched == path && *bits & concerned != 0 || recursive {
                            expected.insert(*watcher);
                        }
                        if watched == path {
                            *bits &= !consumed;
                        }
                    }
                    let found = fired(&mut table, &mut told, path, kind);
                    assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{path} {kind:?}");
                }
            }
            naive.retain(|_, bits| *bits != 0);
            assert_eq!(table.len(), naive.len());
            let tables = |bits: &u8| usize::from(bits & 13 != 0) + usize::from(bits & 6 != 0);
            assert_eq!(table.total(), naive.values().map(tables).sum::<usize>());
        }
        let watched: BTreeSet<_> = naive.keys().map(|(path, _)| (path.clone(), false)).collect();
        let recursive =
            naive.iter().filter(|(_, bits)| **bits & 8 != 0).map(|((path, _), _)| (path.clone(), true));
        assert_eq!(told.0, watched.into_iter().chain(recursive).collect());
        // Nothing is left of crowds that broke up.
        (0..5).for_each(|slot| table.remove_connection(slot, &mut told));
        assert!(told.0.is_empty() && table.crowds.is_empty() && table.recursive_paths == 0);
    }
}
