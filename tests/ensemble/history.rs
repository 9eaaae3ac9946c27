//! What clients did and saw, and whether that can have happened.
//!
//! The keys are registers: every write has a value of its own, and the server numbers the writes of a key one by one
//! (Stat's version). That makes checking cheap and exact. In a linearizable history the versions of a key are the order
//! of its writes; so all there is to check is that every client was told the same order, that the order never
//! contradicts real time (what ended before another began comes before it), and that no write in it is missing. A
//! write without an answer may stand in it once, or not at all. Reads behind a sync are held to real time too, plain
//! reads only to the order of their session, as ZooKeeper promises.
//!
//! Two limits are ZooKeeper's. A sync asks the leader without asking whether it still leads: while a partition lasts, a
//! leader that does not know yet that it was deposed answers with what it has. [`Syncs`] says what a test may expect.
//! And a leader of Apache's answers the syncs of its own clients like reads: it has told its followers of a commit
//! before it applies it itself (`Leader.tryToCommit`), and its CommitProcessor waits for syncs of a learner's clients
//! only (`needCommit`, `matchSyncs`). Behind such a sync stands a plain [`Action::Read`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use zkfast_wire::Zxid;

/// What was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// setData without a version, with this value, which no other write has.
    Write(u64),
    /// getData.
    Read,
    /// sync, then getData on the same connection; the action begins with the sync.
    SyncedRead,
}

/// What came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The register after a write, or as a read saw it.
    Done {
        /// Number of writes so far.
        version: i32,
        /// The last of them.
        mzxid: i64,
        /// What it wrote; 0 before any.
        value: u64,
    },
    /// No answer: it may have happened, or happen yet.
    Unknown,
}

/// One action of one client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Whose. Its actions follow one another.
    pub client: usize,
    /// Which register.
    pub key: usize,
    /// Since the beginning of the history.
    pub begun: Duration,
    /// Not before `begun`.
    pub ended: Duration,
    /// What was asked.
    pub action: Action,
    /// What came back.
    pub outcome: Outcome,
}

/// Whether a read behind a sync is held to real time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Syncs {
    /// No leader was cut off from the others while it lived.
    AreFresh,
    /// One was.
    MayMeetADeposedLeader,
}

/// Everything that clients did.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In any order.
    pub entries: Vec<Entry>,
    /// The registers at the end, by key: version and value.
    pub last: BTreeMap<usize, (i32, u64)>,
}

impl History {
    /// Writes that were acknowledged: when they began and ended, by their ends.
    pub fn acknowledged(&self) -> Vec<(Duration, Duration)> {
        let done = self.entries.iter().filter(|entry| {
            matches!((entry.action, entry.outcome), (Action::Write(_), Outcome::Done { .. }))
        });
        let mut times: Vec<_> = done.map(|entry| (entry.begun, entry.ended)).collect();
        times.sort_unstable_by_key(|(_, ended)| *ended);
        times
    }

    /// From `moment` until the end of the first acknowledged write that began after it.
    pub fn first_write_after(&self, moment: Duration) -> Option<Duration> {
        let ends = self.acknowledged().into_iter().filter(|(begun, _)| *begun > moment);
        ends.map(|(_, ended)| ended - moment).min()
    }

    /// The longest time between the ends of two acknowledged writes that follow one another.
    pub fn longest_gap(&self) -> Duration {
        let times = self.acknowledged();
        times.windows(2).map(|pair| pair[1].1 - pair[0].1).max().unwrap_or_default()
    }

    /// Versions of a key that more than one transaction wrote. The tree on which the later one was ordered did not have the
    /// earlier one.
    pub fn rewritten(&self) -> Vec<Rewritten> {
        let mut zxids: BTreeMap<(usize, i32), BTreeSet<i64>> = BTreeMap::new();
        for (key, (version, mzxid, _)) in
            self.entries.iter().filter_map(|entry| Some((entry.key, seen(entry)?)))
        {
            zxids.entry((key, version)).or_default().insert(mzxid);
        }
        let mut found = Vec::new();
        for ((key, version), zxids) in zxids {
            let pairs = zxids.iter().zip(zxids.iter().skip(1));
            found.extend(pairs.map(|(earlier, later)| Rewritten {
                key,
                version,
                earlier: *earlier,
                later: *later,
            }));
        }
        found
    }

    /// What somebody saw of the register of this pair that is lost with its earlier transaction: that one, and what was
    /// written on it in earlier epochs than the later one's. Versions and zxids.
    pub fn lost_with(&self, pair: &Rewritten) -> BTreeSet<(i32, i64)> {
        let is_lost = |(version, mzxid): &(i32, i64)| {
            *version >= pair.version
                && *mzxid >= pair.earlier
                && Zxid(*mzxid).epoch() < Zxid(pair.later).epoch()
        };
        let of_key = self.entries.iter().filter(|entry| entry.key == pair.key);
        of_key.filter_map(seen).map(|(version, mzxid, _)| (version, mzxid)).filter(is_lost).collect()
    }

    /// The same history without certain transactions, by key and zxid. Writes that `is_lost` may not have happened, and
    /// nobody saw them; reads that saw what `is_stale` were not made. Nothing else is forgiven.
    #[must_use]
    pub fn without(
        &self,
        is_lost: impl Fn(usize, i64) -> bool,
        is_stale: impl Fn(usize, i64) -> bool,
    ) -> Self {
        let rest = |entry: &Entry| {
            let Some((_, mzxid, _)) = seen(entry) else { return Some(*entry) };
            let (is_lost, is_write) = (is_lost(entry.key, mzxid), matches!(entry.action, Action::Write(_)));
            match is_write {
                true if is_lost => Some(Entry { outcome: Outcome::Unknown, ..*entry }),
                false if is_lost || is_stale(entry.key, mzxid) => None,
                _ => Some(*entry),
            }
        };
        Self { entries: self.entries.iter().filter_map(rest).collect(), last: self.last.clone() }
    }

    /// Whatever cannot have happened, by key, in words; nothing if all can.
    pub fn contradictions(&self, syncs: Syncs) -> BTreeMap<usize, Vec<String>> {
        let mut all = BTreeMap::new();
        let mut keys: BTreeMap<usize, Vec<&Entry>> = BTreeMap::new();
        for entry in &self.entries {
            keys.entry(entry.key).or_default().push(entry);
        }
        for (key, entries) in keys {
            let mut found = Vec::new();
            let register = Register { key, entries, last: self.last.get(&key).copied() };
            register.order(&mut found);
            register.values(&mut found);
            register.real_time(syncs, &mut found);
            register.client_order(&mut found);
            register.losses(&mut found);
            if !found.is_empty() {
                all.insert(key, found);
            }
        }
        all
    }
}

/// Two transactions that wrote the same version of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rewritten {
    /// The register.
    pub key: usize,
    /// Number of writes so far, for both.
    pub version: i32,
    /// The lower zxid.
    pub earlier: i64,
    /// The next higher one.
    pub later: i64,
}

struct Register<'a> {
    key: usize,
    entries: Vec<&'a Entry>,
    last: Option<(i32, u64)>,
}

fn seen(entry: &Entry) -> Option<(i32, i64, u64)> {
    match entry.outcome {
        Outcome::Done { version, mzxid, value } => Some((version, mzxid, value)),
        Outcome::Unknown => None,
    }
}

impl Register<'_> {
    /// All are told the same: one transaction and one value for each version, and both orders agree.
    fn order(&self, found: &mut Vec<String>) {
        let mut versions = BTreeMap::new();
        for (version, mzxid, value) in self.entries.iter().filter_map(|entry| seen(entry)) {
            let known = *versions.entry(version).or_insert((mzxid, value));
            if known != (mzxid, value) {
                found.push(format!(
                    "key {}: version {version} is both {known:?} and {:?}",
                    self.key,
                    (mzxid, value)
                ));
            }
        }
        let mut before: Option<(i32, i64)> = None;
        for (version, (mzxid, _)) in versions {
            if let Some((earlier, earlier_mzxid)) = before.filter(|(_, earlier)| *earlier >= mzxid) {
                found.push(format!(
                    "key {}: version {earlier} has zxid {earlier_mzxid:#x}, version {version} only {mzxid:#x}",
                    self.key
                ));
            }
            before = Some((version, mzxid));
        }
        let mut writers = BTreeMap::new();
        for entry in &self.entries {
            if let (Action::Write(_), Some((version, ..))) = (entry.action, seen(entry))
                && let Some(other) = writers.insert(version, entry.client)
            {
                found.push(format!(
                    "key {}: version {version} was acknowledged to clients {other} and {}",
                    self.key, entry.client
                ));
            }
        }
    }

    /// A value was written by somebody before it was seen, and stands at one place.
    fn values(&self, found: &mut Vec<String>) {
        let mut written = BTreeMap::new();
        for entry in &self.entries {
            if let Action::Write(value) = entry.action {
                written.insert(value, entry.begun);
            }
        }
        let mut places = BTreeMap::new();
        for entry in &self.entries {
            let Some((version, _, value)) = seen(entry) else { continue };
            match written.get(&value) {
                _ if version == 0 && value == 0 => {}
                None => {
                    found.push(format!("key {}: nobody wrote the value {value:#x} that was seen", self.key))
                }
                Some(begun) if *begun > entry.ended => {
                    found.push(format!("key {}: value {value:#x} was seen before it was written", self.key));
                }
                Some(_) => {}
            }
            let place = *places.entry(value).or_insert(version);
            if place != version {
                found.push(format!("key {}: value {value:#x} is version {place} and {version}", self.key));
            }
        }
    }

    /// What ended before another began comes before it.
    fn real_time(&self, syncs: Syncs, found: &mut Vec<String>) {
        let is_held = |entry: &Entry| match entry.action {
            Action::Write(_) => true,
            Action::SyncedRead => syncs == Syncs::AreFresh,
            Action::Read => false,
        };
        // Whatever anybody saw of a version, that version existed then.
        let mut ends: Vec<(Duration, i32)> =
            self.entries.iter().filter_map(|entry| Some((entry.ended, seen(entry)?.0))).collect();
        ends.sort_unstable();
        let mut begins: Vec<&&Entry> = self.entries.iter().filter(|entry| is_held(entry)).collect();
        begins.sort_unstable_by_key(|entry| entry.begun);
        let (mut at, mut newest) = (0, i32::MIN);
        for entry in begins {
            while at < ends.len() && ends[at].0 < entry.begun {
                newest = newest.max(ends[at].1);
                at += 1;
            }
            let Some((version, ..)) = seen(entry) else { continue };
            let is_write = matches!(entry.action, Action::Write(_));
            if version < newest || (is_write && version == newest) {
                found.push(format!(
                    "key {}: version {newest} was seen by {:?}, but client {}'s {:?} that began then got version \
                     {version}",
                    self.key, entry.begun, entry.client, entry.action
                ));
            }
        }
    }

    /// A client never sees an older version than it has seen.
    fn client_order(&self, found: &mut Vec<String>) {
        let mut newest: BTreeMap<usize, i32> = BTreeMap::new();
        let mut entries = self.entries.clone();
        entries.sort_by_key(|entry| entry.begun);
        for entry in entries {
            let Some((version, ..)) = seen(entry) else { continue };
            let newest = newest.entry(entry.client).or_insert(version);
            if version < *newest {
                found.push(format!(
                    "key {}: client {} saw version {newest}, then version {version}",
                    self.key, entry.client
                ));
            }
            *newest = (*newest).max(version);
        }
    }

    /// Every acknowledged write is in the end's history, and the others are no more than what was asked for.
    fn losses(&self, found: &mut Vec<String>) {
        let Some((last, last_value)) = self.last else {
            found.push(format!("key {}: nothing is known of its end", self.key));
            return;
        };
        for entry in &self.entries {
            let Some((version, _, value)) = seen(entry) else { continue };
            if version > last || (version == last && value != last_value) {
                found.push(format!(
                    "key {}: client {}'s {:?} saw version {version}, value {value:#x}; at the end it is version \
                     {last}, value {last_value:#x}: acknowledged and lost",
                    self.key, entry.client, entry.action
                ));
            }
        }
        let writes = |wanted: fn(&Outcome) -> bool| {
            let is_write =
                |entry: &&&Entry| matches!(entry.action, Action::Write(_)) && wanted(&entry.outcome);
            self.entries.iter().filter(is_write).count()
        };
        let done = writes(|outcome| matches!(outcome, Outcome::Done { .. }));
        let unknown = writes(|outcome| matches!(outcome, Outcome::Unknown));
        let last = usize::try_from(last).unwrap_or_default();
        if !(done..=done + unknown).contains(&last) {
            found.push(format!(
                "key {}: {done} writes were acknowledged and {unknown} had no answer, but {last} happened",
                self.key
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two clients, times in milliseconds; `v` is version and zxid, and a write's value is what it writes.
    fn entry(client: usize, times: (u64, u64), action: Action, seen: Option<(i32, u64)>) -> Entry {
        let outcome = seen.map_or(Outcome::Unknown, |(version, value)| Outcome::Done {
            version,
            mzxid: 100 + i64::from(version),
            value,
        });
        let (begun, ended) = (Duration::from_millis(times.0), Duration::from_millis(times.1));
        Entry { client, key: 0, begun, ended, action, outcome }
    }

    fn good() -> History {
        let entries = vec![
            entry(0, (0, 10), Action::Write(7), Some((1, 7))),
            entry(1, (5, 12), Action::Read, Some((0, 0))),
            entry(1, (13, 20), Action::SyncedRead, Some((1, 7))),
            entry(0, (11, 30), Action::Write(8), None),
            entry(1, (21, 40), Action::Write(9), Some((3, 9))),
            entry(0, (41, 50), Action::Read, Some((2, 8))),
            entry(0, (51, 60), Action::SyncedRead, Some((3, 9))),
        ];
        History { entries, last: BTreeMap::from([(0, (3, 9))]) }
    }

    #[test]
    fn a_history_that_can_have_happened_has_no_contradiction() {
        assert_eq!(good().contradictions(Syncs::AreFresh), BTreeMap::new());
        assert_eq!(good().acknowledged().len(), 2);
        assert_eq!(good().longest_gap(), Duration::from_millis(30));
        assert_eq!(good().first_write_after(Duration::from_millis(10)), Some(Duration::from_millis(30)));
    }

    #[test]
    fn a_version_that_was_written_twice_is_told() {
        assert_eq!(good().rewritten(), []);
        let mut history = good();
        let again = Outcome::Done { version: 1, mzxid: 999, value: 5 };
        history.entries[4].outcome = again;
        history.entries[5].outcome = Outcome::Done { version: 1, mzxid: 1_000, value: 6 };
        let pair = |earlier, later| Rewritten { key: 0, version: 1, earlier, later };
        assert_eq!(history.rewritten(), [pair(101, 999), pair(999, 1_000)]);
        assert!(history.contradictions(Syncs::AreFresh).keys().eq([&0]));
    }

    /// A leader of the next epoch had version 1 and neither 2 nor 3, of which 3 was never written again.
    fn rewritten_once() -> (History, Rewritten) {
        let later = (1 << 32) + 1;
        let mut history = good();
        history.entries.push(entry(0, (61, 70), Action::Write(10), Some((2, 10))));
        history.entries[7].outcome = Outcome::Done { version: 2, mzxid: later, value: 10 };
        history.last = BTreeMap::from([(0, (2, 10))]);
        (history, Rewritten { key: 0, version: 2, earlier: 102, later })
    }

    #[test]
    fn what_is_left_out_forgives_nothing_else() {
        let (history, pair) = rewritten_once();
        assert_eq!(history.rewritten(), [pair]);
        assert!(!history.contradictions(Syncs::AreFresh).is_empty());
        let lost = history.lost_with(&pair);
        assert_eq!(lost, BTreeSet::from([(2, 102), (3, 103)]));
        let rest = |history: &History| {
            history.without(|key, zxid| key == 0 && lost.iter().any(|lost| lost.1 == zxid), |_, _| false)
        };
        assert_eq!(rest(&history).contradictions(Syncs::AreFresh), BTreeMap::new());
        // Another loss of the same register, which no transaction of the later epoch explains.
        let mut another = history.clone();
        another.entries[2].outcome = Outcome::Done { version: 1, mzxid: 101, value: 8 };
        assert!(!rest(&another).contradictions(Syncs::AreFresh).is_empty());
        let mut another = history.clone();
        another.entries.push(entry(1, (71, 80), Action::SyncedRead, Some((1, 7))));
        assert!(!rest(&another).contradictions(Syncs::AreFresh).is_empty());
        // Unless it is what an old tree shows; a write is forgiven by none.
        let shown = another.without(|_, zxid| [102, 103].contains(&zxid), |_, zxid| zxid == 101);
        assert_eq!(shown.contradictions(Syncs::AreFresh), BTreeMap::new());
        assert_eq!(shown.entries[0], history.entries[0]);
    }

    /// The checker is worth what it catches: each doctored history has one thing wrong.
    #[test]
    fn every_kind_of_contradiction_is_found() {
        let check = |what: &str, doctor: &dyn Fn(&mut History)| {
            let mut history = good();
            doctor(&mut history);
            let found = history.contradictions(Syncs::AreFresh).remove(&0).unwrap_or_default();
            assert!(found.iter().any(|line| line.contains(what)), "{what:?} is not found: {found:?}");
        };
        let done = |version, mzxid, value| Outcome::Done { version, mzxid, value };
        check("is both", &|history| history.entries[2].outcome = done(1, 101, 8));
        check("is both", &|history| history.entries[2].outcome = done(1, 999, 7));
        check("zxid", &|history| history.entries[4].outcome = done(3, 90, 9));
        check("acknowledged to clients", &|history| {
            history.entries[3].outcome = done(3, 103, 9);
        });
        check("nobody wrote", &|history| history.entries[2].outcome = done(1, 101, 77));
        check("before it was written", &|history| history.entries[1].outcome = done(3, 103, 9));
        check("is version", &|history| history.entries[5].outcome = done(2, 102, 7));
        check("that began then got version 0", &|history| history.entries[2].outcome = done(0, 100, 0));
        check("that began then got version", &|history| {
            history.entries[4] = entry(1, (51, 55), Action::Write(9), Some((3, 9)));
            history.entries.push(entry(2, (61, 70), Action::Write(10), Some((3, 10))));
        });
        check("then version", &|history| {
            history.entries.push(entry(1, (61, 62), Action::Read, Some((1, 7))))
        });
        check("acknowledged and lost", &|history| {
            history.last.insert(0, (2, 8));
        });
        check("acknowledged and lost", &|history| {
            history.last.insert(0, (3, 8));
        });
        check("but 9 happened", &|history| {
            history.last.insert(0, (9, 99));
        });
        check("nothing is known", &|history| history.last.clear());
        // A deposed leader's answer is no contradiction where one may have been met.
        let mut stale = good();
        stale.entries[2].outcome = done(0, 100, 0);
        assert_eq!(stale.contradictions(Syncs::MayMeetADeposedLeader), BTreeMap::new());
    }
}
