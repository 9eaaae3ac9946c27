//! Checks while loading: what a server acknowledged must be so, and stay so.
//!
//! On each core a [`Witness`] compares replies as they come; when the run is over the witnesses are put together and
//! [`Witness::read_back`] reads everything that was acknowledged. Checked:
//! - zxids never go back within a session;
//! - a session never reads an older version of a node than it has read or written before;
//! - sequence numbers are unique;
//! - a changed value is never read ahead of the watch event that announces it;
//! - each acknowledged set, create and delete is there afterwards, with the value of the newest set.

use crate::{client::Client, keys::KeySpace, operation::put_read};
use std::collections::{BTreeMap, HashMap};
use zkfast_wire::{ErrorCode, OpCode, Stat, Zxid, jute::Decoder};

/// Versions remembered per core for the check within sessions; further nodes are not watched.
const SEEN_LIMIT: usize = 4_000_000;
/// Examples of each kind of violation that are kept.
const EXAMPLES: usize = 5;

/// The newest acknowledged set of a key.
#[derive(Clone, Copy, Debug, Default)]
struct Acknowledged {
    mzxid: Zxid,
    stamp: u64,
    /// A set was sent whose answer never came.
    in_doubt: bool,
}

/// What happened to the nodes that one connection created, by their number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Fate {
    #[default]
    Unknown,
    Created,
    Deleted,
}

/// What was checked and what was wrong.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Facts compared.
    pub checks: u64,
    /// Violations by kind, with how many and some examples.
    pub violations: BTreeMap<&'static str, (u64, Vec<String>)>,
}

impl Findings {
    /// Notes a violation.
    pub fn violation(&mut self, kind: &'static str, example: impl FnOnce() -> String) {
        let (count, examples) = self.violations.entry(kind).or_default();
        *count += 1;
        if examples.len() < EXAMPLES {
            examples.push(example());
        }
    }

    /// Counts a check and notes a violation where it does not hold.
    pub fn check(&mut self, holds: bool, kind: &'static str, example: impl FnOnce() -> String) {
        self.checks += 1;
        if !holds {
            self.violation(kind, example);
        }
    }

    /// Number of violations.
    pub fn count(&self) -> u64 {
        self.violations.values().map(|(count, _)| count).sum()
    }

    fn add(&mut self, other: Self) {
        self.checks += other.checks;
        for (kind, (count, examples)) in other.violations {
            let own = self.violations.entry(kind).or_default();
            own.0 += count;
            own.1.extend(examples);
            own.1.truncate(EXAMPLES);
        }
    }
}

/// What one core (or, put together, the run) saw.
#[derive(Debug, Default)]
pub struct Witness {
    /// Result so far.
    pub findings: Findings,
    sets: HashMap<u64, Acknowledged>,
    /// Highest mzxid of a key that a link has read or written, and by what it was seen.
    seen: HashMap<(u64, u64), (Zxid, &'static str)>,
    /// Sequence numbers given out.
    sequences: Vec<u64>,
    /// By link number, then by the number of the node.
    created: HashMap<u64, Vec<Fate>>,
}

impl Witness {
    /// A reply's zxid after `before` on the same session.
    pub fn zxid(&mut self, link: u64, before: Zxid, after: Zxid) {
        self.findings.check(after >= before, "zxid went back within a session", || {
            format!("connection {link}: {after} after {before}")
        });
    }

    /// A set of `key` with `stamp` in its value was acknowledged with `stat`.
    pub fn set(&mut self, link: u64, key: u64, stamp: u64, stat: &Stat, by: &'static str) {
        self.version(link, key, stat.mzxid, by);
        let own = self.sets.entry(key).or_default();
        if stat.mzxid > own.mzxid {
            own.mzxid = stat.mzxid;
            own.stamp = stamp;
        }
    }

    /// A set was sent and its answer never came.
    pub fn set_in_doubt(&mut self, key: u64) {
        self.sets.entry(key).or_default().in_doubt = true;
    }

    /// `key` was read.
    pub fn read(&mut self, link: u64, key: u64, stat: &Stat, by: &'static str) {
        self.version(link, key, stat.mzxid, by);
    }

    fn version(&mut self, link: u64, key: u64, mzxid: Zxid, by: &'static str) {
        let room = self.seen.len() < SEEN_LIMIT;
        match self.seen.get_mut(&(link, key)) {
            Some(seen) => {
                let (before, seen_by) = *seen;
                if mzxid > before {
                    *seen = (mzxid, by);
                }
                self.findings.check(mzxid >= before, "a session read an older version than before", || {
                    format!(
                        "connection {link}, key {key}: {by} has mzxid {mzxid} after {seen_by} had {before}"
                    )
                });
            }
            None if room => {
                self.seen.insert((link, key), (mzxid, by));
            }
            None => {}
        }
    }

    /// A sequential node got this name.
    pub fn sequence(&mut self, path: &str) {
        let digits = path.len().checked_sub(10).and_then(|at| path.get(at..)).and_then(|d| d.parse().ok());
        match digits {
            Some(number) => self.sequences.push(number),
            None => self.findings.violation("a sequential node has no number", || path.to_owned()),
        }
    }

    /// Node `number` of `link` was created.
    pub fn created(&mut self, link: u64, number: u64) {
        self.fate(link, number, Fate::Created);
    }

    /// Node `number` of `link` was deleted.
    pub fn deleted(&mut self, link: u64, number: u64) {
        self.fate(link, number, Fate::Deleted);
    }

    /// A create or delete of it was sent and its answer never came.
    pub fn node_in_doubt(&mut self, link: u64, number: u64) {
        self.fate(link, number, Fate::Unknown);
    }

    fn fate(&mut self, link: u64, number: u64, fate: Fate) {
        let fates = self.created.entry(link).or_default();
        let index = usize::try_from(number).expect("numbers count nodes in memory");
        if fates.len() <= index {
            fates.resize(index + 1, Fate::Unknown);
        }
        fates[index] = fate;
    }

    /// Puts another core's witness to this one.
    pub fn add(&mut self, other: Self) {
        self.findings.add(other.findings);
        for (key, theirs) in other.sets {
            let own = self.sets.entry(key).or_default();
            own.in_doubt |= theirs.in_doubt;
            if theirs.mzxid > own.mzxid {
                own.mzxid = theirs.mzxid;
                own.stamp = theirs.stamp;
            }
        }
        self.sequences.extend(other.sequences);
        self.created.extend(other.created);
    }

    /// Reads back all that was acknowledged. `created_path` names the node of (link, number).
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn read_back(
        &mut self,
        client: &mut Client,
        keys: &KeySpace,
        mut created_path: impl FnMut(u64, u64, &mut Vec<u8>),
    ) -> anyhow::Result<()> {
        let findings = &mut self.findings;
        self.sequences.sort_unstable();
        for pair in self.sequences.windows(2) {
            findings.check(pair[0] != pair[1], "a sequence number came twice", || format!("{}", pair[0]));
        }
        let sets: Vec<(u64, Acknowledged)> = self.sets.iter().map(|(key, set)| (*key, *set)).collect();
        client.pipeline(
            sets.len() as u64,
            OpCode::GetData,
            |index, out| put_read(out, |out| keys.put(sets[index as usize].0, out), false),
            |index, code, body| {
                let (key, set) = sets[index as usize];
                compare_set(findings, key, set, code, body);
            },
        )?;
        let nodes: Vec<(u64, u64, Fate)> = self
            .created
            .iter()
            .flat_map(|(link, fates)| {
                fates.iter().enumerate().map(move |(number, fate)| (*link, number as u64, *fate))
            })
            .filter(|(_, _, fate)| *fate != Fate::Unknown)
            .collect();
        client.pipeline(
            nodes.len() as u64,
            OpCode::Exists,
            |index, out| {
                let (link, number, _) = nodes[index as usize];
                put_read(out, |out| created_path(link, number, out), false);
            },
            |index, code, _| {
                let (link, number, fate) = nodes[index as usize];
                let show = || format!("node {number} of connection {link}: {code}");
                match fate {
                    Fate::Created => findings.check(code.is_ok(), "an acknowledged create is lost", show),
                    _ => findings.check(code == ErrorCode::NO_NODE, "an acknowledged delete is undone", show),
                }
            },
        )
    }
}

fn compare_set(findings: &mut Findings, key: u64, set: Acknowledged, code: ErrorCode, body: &[u8]) {
    if set.mzxid == Zxid::ZERO {
        return;
    }
    let mut decoder = Decoder::new(body);
    let read = decoder.buffer("data").ok().flatten().zip(Stat::decode(&mut decoder).ok());
    let Some((data, stat)) = read.filter(|_| code.is_ok()) else {
        findings.check(false, "an acknowledged set is lost", || format!("key {key}: {code}"));
        return;
    };
    let stamp = data.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
    let show = || format!("key {key}: mzxid {} acknowledged, {} read", set.mzxid, stat.mzxid);
    findings.check(stat.mzxid >= set.mzxid, "an acknowledged set is lost", show);
    if stat.mzxid == set.mzxid {
        findings.check(
            stamp.is_none_or(|stamp| stamp == set.stamp),
            "a value is not the one acknowledged",
            show,
        );
    } else if stat.mzxid > set.mzxid && !set.in_doubt {
        findings.check(false, "a value was set by nobody here", show);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zkfast_wire::jute::put_buffer;

    fn stat(mzxid: i64) -> Stat {
        Stat { mzxid: Zxid(mzxid), ..Stat::default() }
    }

    fn body(stamp: u64, mzxid: i64) -> Vec<u8> {
        let mut out = Vec::new();
        put_buffer(&mut out, Some(&stamp.to_be_bytes()));
        stat(mzxid).encode(&mut out);
        out
    }

    /// A checker that cannot fail proves nothing: each lie of a server must be told.
    #[test]
    fn each_lie_is_told() {
        let mut witness = Witness::default();
        witness.zxid(1, Zxid(7), Zxid(6));
        witness.set(1, 3, 99, &stat(10), "set");
        witness.read(1, 3, &stat(9), "get");
        assert_eq!(witness.findings.count(), 2);
        let set = witness.sets[&3];
        for (code, bytes, kind) in [
            (ErrorCode::OK, body(99, 9), "an acknowledged set is lost"),
            (ErrorCode::OK, body(98, 10), "a value is not the one acknowledged"),
            (ErrorCode::OK, body(98, 11), "a value was set by nobody here"),
            (ErrorCode::NO_NODE, Vec::new(), "an acknowledged set is lost"),
        ] {
            let mut findings = Findings::default();
            compare_set(&mut findings, 3, set, code, &bytes);
            assert_eq!(findings.violations.keys().collect::<Vec<_>>(), [&kind]);
        }
        let mut findings = Findings::default();
        compare_set(&mut findings, 3, set, ErrorCode::OK, &body(99, 10));
        assert_eq!((findings.count(), findings.checks), (0, 2));
    }

    #[test]
    fn the_newest_set_of_all_cores_is_expected() {
        let (mut one, mut two) = (Witness::default(), Witness::default());
        one.set(1, 3, 11, &stat(5), "set");
        two.set(2, 3, 22, &stat(8), "set");
        two.set_in_doubt(3);
        one.add(two);
        assert_eq!((one.sets[&3].stamp, one.sets[&3].in_doubt), (22, true));
    }

    #[test]
    fn a_number_is_read_from_the_end_of_the_name() {
        let mut witness = Witness::default();
        witness.sequence("/q/s-0000000042");
        witness.sequence("short");
        assert_eq!((witness.sequences.as_slice(), witness.findings.count()), (&[42][..], 1));
    }
}
