//! Sessions as replicated state, and the arithmetic of their ids, passwords and deadlines (rows S1-S4).
//!
//! Pure: the caller brings the clock. Who is connected, and through which server, is not known here.

use hashbrown::HashMap;
use std::collections::BTreeMap;
use zkfast_wire::{ServerId, SessionId};

/// Java's `ZooKeeperServer.superSecret`: the same on every server, so that a session may move (S2).
const PASSWORD_SEED: i64 = 0xB341_5C00;

/// The password of a session (S2): the first 16 bytes of `java.util.Random` seeded with the id.
///
/// Not a secret worth the name, but the id must lead to the same bytes on Apache's servers and on ours.
pub fn password(session: SessionId) -> [u8; 16] {
    // The generator is specified by java.util.Random's contract: 48 bits, multiplier 0x5DEECE66D, addend 11.
    const MULTIPLIER: u64 = 0x5_DEEC_E66D;
    const MASK: u64 = (1 << 48) - 1;
    let mut state = ((session.0 ^ PASSWORD_SEED) as u64 ^ MULTIPLIER) & MASK;
    let mut bytes = [0; 16];
    for word in bytes.chunks_exact_mut(4) {
        state = (state.wrapping_mul(MULTIPLIER) + 11) & MASK;
        word.copy_from_slice(&((state >> 16) as u32).to_le_bytes());
    }
    bytes
}

/// The first session id that a server gives out after it started (S1); each further session adds 1.
///
/// `monotonic_ms` is the time since an arbitrary start, as Java's `nanoTime` gives it.
pub fn first_id(server: ServerId, monotonic_ms: i64) -> SessionId {
    let time = ((monotonic_ms << 24) as u64 >> 8) as i64;
    let id = time | (server.0 << 56);
    // Long.MIN_VALUE marks containers (T17).
    SessionId(if id == i64::MIN { id + 1 } else { id })
}

/// The sessions of the database with the timeout each was created with (S3).
///
/// Kept dense, so that an image copies them with one pass over plain memory.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    index: HashMap<SessionId, u32>,
    list: Vec<(SessionId, i32)>,
}

impl Sessions {
    /// Number of sessions.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether the session exists.
    pub fn contains(&self, session: SessionId) -> bool {
        self.index.contains_key(&session)
    }

    /// The timeout in milliseconds that the session was created with.
    pub fn timeout_ms(&self, session: SessionId) -> Option<i32> {
        self.index.get(&session).map(|&at| self.list[at as usize].1)
    }

    /// Every session with its timeout in milliseconds, in no particular order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (SessionId, i32)> + '_ {
        self.list.iter().copied()
    }

    pub(crate) fn as_slice(&self) -> &[(SessionId, i32)] {
        &self.list
    }

    /// Adds a session or changes its timeout; a replayed createSession does the latter.
    pub(crate) fn put(&mut self, session: SessionId, timeout_ms: i32) {
        let next = u32::try_from(self.list.len()).expect("fewer than 2^32 sessions");
        match self.index.entry(session) {
            hashbrown::hash_map::Entry::Occupied(at) => self.list[*at.get() as usize].1 = timeout_ms,
            hashbrown::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(next);
                self.list.push((session, timeout_ms));
            }
        }
    }

    /// Removes a session; whether it was there.
    pub(crate) fn remove(&mut self, session: SessionId) -> bool {
        let Some(at) = self.index.remove(&session) else { return false };
        self.list.swap_remove(at as usize);
        if let Some((moved, _)) = self.list.get(at as usize) {
            self.index.insert(*moved, at);
        }
        assert!(self.index.len() == self.list.len());
        true
    }
}

/// Nobody before or after in a bucket.
const NONE: u32 = u32::MAX;

/// When each session would expire if it stayed silent (S4; Java's `ExpiryQueue`).
///
/// Deadlines are rounded up to the next tick, so a whole bucket expires at once, at most one tick late and never
/// early. A touch that does not change the bucket, by far the most frequent one, costs one look-up.
#[derive(Debug)]
pub struct ExpiryQueue {
    tick_ms: i64,
    index: HashMap<SessionId, u32>,
    entries: Vec<ExpiryEntry>,
    free: Vec<u32>,
    /// Deadline in milliseconds to the first and last entry of its list.
    buckets: BTreeMap<i64, (u32, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct ExpiryEntry {
    session: SessionId,
    deadline_ms: i64,
    previous: u32,
    next: u32,
}

impl ExpiryQueue {
    /// An empty queue whose buckets are `tick_ms` (at least 1) wide: the server's tickTime.
    pub fn new(tick_ms: i64) -> Self {
        assert!(tick_ms >= 1, "a tick lasts at least a millisecond");
        Self {
            tick_ms,
            index: HashMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            buckets: BTreeMap::new(),
        }
    }

    /// Number of sessions in the queue.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether no session is in the queue.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Adds a session or renews it: it now expires `timeout_ms` after `now_ms`, rounded up to the next tick.
    pub fn touch(&mut self, session: SessionId, timeout_ms: i32, now_ms: i64) {
        let deadline_ms = ((now_ms + i64::from(timeout_ms)) / self.tick_ms + 1) * self.tick_ms;
        if let Some(&at) = self.index.get(&session) {
            if self.entries[at as usize].deadline_ms != deadline_ms {
                self.unlink(at);
                self.link(at, deadline_ms);
            }
            return;
        }
        let entry = ExpiryEntry { session, deadline_ms, previous: NONE, next: NONE };
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at as usize] = entry;
                at
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 sessions")
            }
        };
        self.index.insert(session, at);
        self.link(at, deadline_ms);
    }

    /// Forgets a session; whether it was there.
    pub fn remove(&mut self, session: SessionId) -> bool {
        let Some(at) = self.index.remove(&session) else { return false };
        self.unlink(at);
        self.free.push(at);
        true
    }

    /// Takes out up to `max` sessions whose deadline is not after `now_ms`, oldest bucket first. Call it again until
    /// it returns none, with other work in between: after a long pause a hundred thousand may be due at once.
    pub fn pop_expired(&mut self, now_ms: i64, max: usize) -> Vec<SessionId> {
        let mut expired = Vec::new();
        while expired.len() < max
            && let Some((&deadline_ms, &(first, _))) = self.buckets.first_key_value()
            && deadline_ms <= now_ms
        {
            let session = self.entries[first as usize].session;
            assert!(self.remove(session), "a bucket holds only tracked sessions");
            expired.push(session);
        }
        expired
    }

    /// The next moment at which [`pop_expired`](Self::pop_expired) may return something, in milliseconds.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.buckets.first_key_value().map(|(&deadline_ms, _)| deadline_ms)
    }

    /// Deadlines with the sessions that share them, soonest first: the `dump` command.
    pub fn buckets(&self) -> impl Iterator<Item = (i64, Vec<SessionId>)> + '_ {
        self.buckets.iter().map(|(&deadline_ms, &(first, _))| {
            let mut at = first;
            let mut sessions = Vec::new();
            while at != NONE {
                let entry = self.entries[at as usize];
                sessions.push(entry.session);
                at = entry.next;
            }
            (deadline_ms, sessions)
        })
    }

    fn link(&mut self, at: u32, deadline_ms: i64) {
        let bucket = self.buckets.entry(deadline_ms).or_insert((at, NONE));
        let last = std::mem::replace(&mut bucket.1, at);
        let entry = &mut self.entries[at as usize];
        (entry.deadline_ms, entry.previous, entry.next) = (deadline_ms, last, NONE);
        if last != NONE {
            self.entries[last as usize].next = at;
        }
    }

    fn unlink(&mut self, at: u32) {
        let ExpiryEntry { deadline_ms, previous, next, .. } = self.entries[at as usize];
        if previous == NONE && next == NONE {
            self.buckets.remove(&deadline_ms);
            return;
        }
        let bucket = self.buckets.get_mut(&deadline_ms).expect("a linked entry has a bucket");
        match previous {
            NONE => bucket.0 = next,
            _ => self.entries[previous as usize].next = next,
        }
        match next {
            NONE => bucket.1 = previous,
            _ => self.entries[next as usize].previous = previous,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// S2, G5: a client that moves between Apache's servers and ours must find its session. Values printed by OpenJDK's
    /// java.util.Random.
    #[test]
    fn passwords_are_javas() {
        for (session, expected) in [
            (0, "f22acd4a97e69d6d20a49bb638eadb38"),
            (1, "054cc74a37327db215e702e20c73f005"),
            (0x0100_0000_0000_0000, "f22acd4a97e69d6d20a49bb638eadb38"),
            (0x0100_00ab_cdef_0001, "76b39f6d54c3bc4f6ebe2fdff1198ecf"),
            (-1, "20f62cb5648dc2d771471c8a2486a9ee"),
            (i64::MIN + 1, "054cc74a37327db215e702e20c73f005"),
            (i64::MAX, "20f62cb5648dc2d771471c8a2486a9ee"),
        ] {
            assert_eq!(hex(&password(SessionId(session))), expected, "{session:#x}");
        }
    }

    /// S1, T17: the container mark is no session id. Values printed by a Java program with the same shifts.
    #[test]
    fn first_ids_are_javas() {
        for (monotonic_ms, server, expected) in [
            (0, 0, 0),
            (0, 1, 0x0100_0000_0000_0000_u64),
            (0, 128, 0x8000_0000_0000_0001),
            (1, 255, 0xff00_0000_0001_0000),
            (123_456_789, 1, 0x0100_075b_cd15_0000),
            (1_795_355_477_801, 128, 0x80a2_0386_8729_0000),
            ((1 << 40) + 5, 0, 0x50000),
        ] {
            assert_eq!(first_id(ServerId(server), monotonic_ms), SessionId(expected as i64));
        }
    }

    /// S4: never early, at most one tick late, whole buckets.
    #[test]
    fn deadlines_are_rounded_up_to_the_next_tick() {
        let mut queue = ExpiryQueue::new(2_000);
        queue.touch(SessionId(1), 4_000, 100);
        queue.touch(SessionId(2), 4_000, 1_999);
        queue.touch(SessionId(3), 4_000, 2_000);
        assert_eq!(queue.next_deadline_ms(), Some(6_000));
        assert_eq!(queue.pop_expired(5_999, 10), []);
        assert_eq!(queue.pop_expired(6_000, 1), [SessionId(1)]);
        assert_eq!(queue.pop_expired(6_000, 10), [SessionId(2)]);
        assert_eq!(queue.next_deadline_ms(), Some(8_000));
        assert!(queue.remove(SessionId(3)) && !queue.remove(SessionId(3)));
        assert!(queue.is_empty() && queue.next_deadline_ms().is_none());
    }

    proptest! {
        /// A lost or doubled entry would be a session that never, or twice, expires: compare with a plain map.
        #[test]
        fn the_queue_is_a_map_of_deadlines(steps in prop::collection::vec((0_i64..12, 0_i32..4, 0_u8..8), 1..200)) {
            let mut queue = ExpiryQueue::new(10);
            let mut model = BTreeMap::new();
            let mut now_ms = 0;
            for (session, timeout, kind) in steps {
                let session = SessionId(session);
                match kind {
                    0 => prop_assert_eq!(queue.remove(session), model.remove(&session.0).is_some()),
                    1 | 2 => {
                        now_ms += i64::from(timeout) * 7;
                        let mut popped: Vec<_> = queue.pop_expired(now_ms, 100).iter().map(|s| s.0).collect();
                        popped.sort_unstable();
                        let due: Vec<_> =
                            model.iter().filter(|(_, at)| **at <= now_ms).map(|(id, _)| *id).collect();
                        model.retain(|_, at| *at > now_ms);
                        prop_assert_eq!(popped, due);
                    }
                    _ => {
                        queue.touch(session, timeout * 9, now_ms);
                        model.insert(session.0, ((now_ms + i64::from(timeout) * 9) / 10 + 1) * 10);
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.next_deadline_ms(), model.values().min().copied());
                prop_assert_eq!(queue.buckets().map(|(_, list)| list.len()).sum::<usize>(), model.len());
            }
        }
    }
}
