//! Checks while loading: what a server acknowledged must be so, and stay so.
//!
//! On each core a [`Witness`] compares replies as they come; when the run is over the witnesses are put together and
//! [`Witness::read_back`] reads everything that was acknowledged. Checked:
//! - zxids never go back within a session, and the reply to a set has the zxid of the set;
//! - a session never reads an older version of a node than it has read or written before, and versions grow with mzxids;
//! - each value that is read is one that was written, and that of the set whose mzxid and version it bears;
//! - the list of children that nobody changes is whole each time;
//! - the versions of a node grow by one from set to set;
//! - names and numbers of sequential nodes are unique, and the numbers grow with the zxids;
//! - an ephemeral node is there while its session lives, is owned by it, and is gone with it;
//! - a changed value is never read ahead of the watch event that announces it, and no event is missing;
//! - each acknowledged set, create and delete is there afterwards, with its value to the last byte, and nothing is there
//!   that nobody has written.

use crate::{
    client::Client,
    keys::KeySpace,
    operation::{put_path, put_read},
    stamp::{Expectation, Stamp},
    traffic::{put_created_path, put_ephemeral_directory, put_sequence_path},
};
mod reading;

use reading::List;
use std::collections::{BTreeMap, HashMap, HashSet};
use zkfast_wire::{ErrorCode, OpCode, SessionId, Stat, Zxid, jute::Decoder};

/// Versions remembered per core for the check within sessions; further nodes are not watched.
const SEEN_LIMIT: usize = 4_000_000;
/// Examples of each kind of violation that are kept.
const EXAMPLES: usize = 5;

/// The acknowledged sets of a key.
#[derive(Clone, Copy, Debug, Default)]
struct Sets {
    /// The newest one's.
    mzxid: Zxid,
    version: i32,
    stamp: Stamp,
    /// Version of the oldest one.
    first_version: i32,
    /// How many.
    count: u32,
    /// Sets that were sent and whose answer never came.
    in_doubt: u32,
}

/// What happened to the nodes that one connection created, by their number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Fate {
    #[default]
    Unknown,
    Created(Stamp, Zxid),
    Deleted,
}

/// A sequential node.
#[derive(Clone, Copy, Debug)]
struct Sequential {
    number: u64,
    stamp: Stamp,
    zxid: Zxid,
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
    sets: HashMap<u64, Sets>,
    /// Highest mzxid and version of a key that a link has read or written, and by what it was seen.
    seen: HashMap<(u64, u64), (Zxid, i32, &'static str)>,
    /// Sequential nodes that were acknowledged, and those whose answer never came.
    sequences: Vec<Sequential>,
    sequences_in_doubt: HashSet<Stamp>,
    /// By link number, then by the number of the node.
    created: HashMap<u64, Vec<Fate>>,
    /// Sessions, and whether their end was acknowledged.
    sessions: HashMap<SessionId, bool>,
    /// What the cores of the run write.
    values: Expectation,
    /// The children of the list, as they were first seen.
    list: Option<List>,
}

impl Witness {
    /// A reply's zxid after `before` on the same session.
    pub fn zxid(&mut self, link: u64, before: Zxid, after: Zxid) {
        self.findings.check(after >= before, "zxid went back within a session", || {
            format!("connection {link}: {after} after {before}")
        });
    }

    /// A set of `key` with `stamp` was acknowledged with `stat`, in a reply whose header says `zxid`.
    pub fn set(&mut self, link: u64, key: u64, stamp: Stamp, stat: &Stat, zxid: Zxid, by: &'static str) {
        self.version(link, key, stat, by);
        self.findings.check(stat.mzxid == zxid, "the answer to a set is not of that set", || {
            format!("connection {link}, key {key}: mzxid {} in an answer of zxid {zxid}", stat.mzxid)
        });
        let own = self.sets.entry(key).or_default();
        if own.count == 0 || stat.version < own.first_version {
            own.first_version = stat.version;
        }
        own.count += 1;
        // Two parts of one multi may set one key.
        if (stat.mzxid, stat.version) > (own.mzxid, own.version) {
            (own.mzxid, own.version, own.stamp) = (stat.mzxid, stat.version, stamp);
        }
    }

    /// A set was sent and its answer never came.
    pub fn set_in_doubt(&mut self, key: u64) {
        self.sets.entry(key).or_default().in_doubt += 1;
    }

    /// `key` was read.
    pub fn read(&mut self, link: u64, key: u64, stat: &Stat, by: &'static str) {
        self.version(link, key, stat, by);
    }

    fn version(&mut self, link: u64, key: u64, stat: &Stat, by: &'static str) {
        let room = self.seen.len() < SEEN_LIMIT;
        let (mzxid, version) = (stat.mzxid, stat.version);
        match self.seen.get_mut(&(link, key)) {
            Some(seen) => {
                let (before, version_before, seen_by) = *seen;
                if mzxid >= before {
                    *seen = (mzxid, version, by);
                }
                let show = || {
                    format!(
                        "connection {link}, key {key}: {by} has mzxid {mzxid} and version {version} after {seen_by} \
                         had {before} and {version_before}"
                    )
                };
                self.findings.check(mzxid >= before, "a session read an older version than before", show);
                let grows = match mzxid.cmp(&before) {
                    std::cmp::Ordering::Greater => version > version_before,
                    std::cmp::Ordering::Equal => version >= version_before,
                    std::cmp::Ordering::Less => true,
                };
                self.findings.check(grows, "a version does not grow with its mzxid", show);
            }
            None if room => {
                self.seen.insert((link, key), (mzxid, version, by));
            }
            None => {}
        }
    }

    /// A sequential node got the name `path`, where `asked` and a number were wanted.
    pub fn sequence(&mut self, path: &str, asked: &[u8], stamp: Stamp, zxid: Zxid) {
        let digits = path.as_bytes().strip_prefix(asked).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|digits| digits.len() == 10).and_then(|digits| digits.parse().ok()) {
            Some(number) => self.sequences.push(Sequential { number, stamp, zxid }),
            None => self.findings.violation("a sequential node has another name than was asked for", || {
                format!("{path}: expected {} and ten digits", String::from_utf8_lossy(asked))
            }),
        }
    }

    /// A sequential create was sent and its answer never came.
    pub fn sequence_in_doubt(&mut self, stamp: Stamp) {
        self.sequences_in_doubt.insert(stamp);
    }

    /// Node `number` of `link` was created, by the transaction `zxid`.
    pub fn created(&mut self, link: u64, number: u64, stamp: Stamp, zxid: Zxid) {
        self.fate(link, number, Fate::Created(stamp, zxid));
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

    /// A session began.
    pub fn session(&mut self, id: SessionId) {
        self.sessions.entry(id).or_default();
    }

    /// The end of a session was acknowledged.
    pub fn session_closed(&mut self, id: SessionId) {
        self.sessions.insert(id, true);
    }

    /// A session looked at its ephemeral node: `owner` is whose it is, `None` if there is none. `must_be` says that
    /// nobody had asked to delete it by then.
    pub fn ephemeral(
        &mut self,
        link: u64,
        number: u64,
        must_be: bool,
        session: SessionId,
        owner: Option<SessionId>,
    ) {
        match owner {
            Some(owner) => {
                self.findings.check(owner == session, "an ephemeral node has another owner", || {
                    format!("node {number} of connection {link}: expected {session}, found {owner}")
                });
            }
            None => self.findings.check(!must_be, "an ephemeral node is gone before its session", || {
                format!("node {number} of connection {link}: expected one of {session}, found none")
            }),
        }
    }

    /// Puts another core's witness to this one.
    pub fn add(&mut self, other: Self) {
        self.findings.add(other.findings);
        for (key, theirs) in other.sets {
            let own = self.sets.entry(key).or_default();
            own.in_doubt += theirs.in_doubt;
            if theirs.count > 0 && (own.count == 0 || theirs.first_version < own.first_version) {
                own.first_version = theirs.first_version;
            }
            own.count += theirs.count;
            if (theirs.mzxid, theirs.version) > (own.mzxid, own.version) {
                (own.mzxid, own.version, own.stamp) = (theirs.mzxid, theirs.version, theirs.stamp);
            }
        }
        self.sequences.extend(other.sequences);
        self.sequences_in_doubt.extend(other.sequences_in_doubt);
        self.created.extend(other.created);
        self.sessions.extend(other.sessions);
    }

    /// Reads back all that was acknowledged by a run beneath `root`.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn read_back(
        &mut self,
        client: &mut Client,
        root: &str,
        keys: &KeySpace,
        values: &Expectation,
    ) -> anyhow::Result<()> {
        // What was acknowledged by one server is to be there in the one that is asked.
        client.call(OpCode::Sync, |out| put_path(out, |out| out.extend_from_slice(root.as_bytes())))?;
        self.read_sets(client, keys, values)?;
        self.read_created(client, root, values)?;
        self.read_sequences(client, root, values)?;
        self.look_for_ephemerals(client, root)
    }

    fn read_sets(
        &mut self,
        client: &mut Client,
        keys: &KeySpace,
        values: &Expectation,
    ) -> anyhow::Result<()> {
        let sets: Vec<(u64, Sets)> = self.sets.iter().map(|(key, set)| (*key, *set)).collect();
        let findings = &mut self.findings;
        client.pipeline(
            sets.len() as u64,
            OpCode::GetData,
            |index, out| put_read(out, |out| keys.put(sets[index as usize].0, out), false),
            |index, code, body| {
                let (key, set) = sets[index as usize];
                compare_sets(findings, &keys.path(key), set, values, code, body);
            },
        )
    }

    fn read_created(&mut self, client: &mut Client, root: &str, values: &Expectation) -> anyhow::Result<()> {
        let path = |link, number| {
            let mut out = Vec::new();
            put_created_path(root, link, number, &mut out);
            String::from_utf8_lossy(&out).into_owned()
        };
        let nodes: Vec<(u64, u64, Fate)> = self
            .created
            .iter()
            .flat_map(|(link, fates)| {
                fates.iter().enumerate().map(move |(number, fate)| (*link, number as u64, *fate))
            })
            .collect();
        let findings = &mut self.findings;
        client.pipeline(
            nodes.len() as u64,
            OpCode::GetData,
            |index, out| {
                let (link, number, _) = nodes[index as usize];
                put_read(out, |out| put_created_path(root, link, number, out), false);
            },
            |index, code, body| {
                let (link, number, fate) = nodes[index as usize];
                match fate {
                    Fate::Created(stamp, zxid) => {
                        compare_created(findings, || path(link, number), stamp, zxid, values, code, body);
                    }
                    Fate::Deleted => {
                        findings.check(
                            code == ErrorCode::NO_NODE,
                            "an acknowledged delete is undone",
                            || format!("{}: expected no node, found {}", path(link, number), found(code)),
                        );
                    }
                    Fate::Unknown => {}
                }
            },
        )?;
        let known: HashSet<String> = nodes.iter().map(|(link, number, _)| path(*link, *number)).collect();
        let parent = format!("{root}/created");
        for name in client.children(&parent)?.unwrap_or_default() {
            let path = format!("{parent}/{name}");
            self.findings.check(known.contains(&path), "a node that nobody has created", || {
                format!("{path}: expected no node, found one")
            });
        }
        Ok(())
    }

    fn read_sequences(
        &mut self,
        client: &mut Client,
        root: &str,
        values: &Expectation,
    ) -> anyhow::Result<()> {
        let mut prefix = Vec::new();
        put_sequence_path(root, &mut prefix);
        let prefix = String::from_utf8_lossy(&prefix).into_owned();
        let path = |number: u64| format!("{prefix}{number:010}");
        let sequences = &mut self.sequences;
        sequences.sort_unstable_by_key(|node| (node.number, node.zxid));
        let findings = &mut self.findings;
        for pair in sequences.windows(2) {
            let (one, two) = (pair[0], pair[1]);
            let show = || {
                format!(
                    "{} of zxid {} and {} of zxid {}",
                    path(one.number),
                    one.zxid,
                    path(two.number),
                    two.zxid
                )
            };
            findings.check(one.number != two.number, "a sequence number came twice", show);
            findings.check(one.zxid < two.zxid, "sequence numbers are not in the order of their zxids", show);
        }
        client.pipeline(
            sequences.len() as u64,
            OpCode::GetData,
            |index, out| {
                let path = path(sequences[index as usize].number);
                put_read(out, |out| out.extend_from_slice(path.as_bytes()), false);
            },
            |index, code, body| {
                let node = sequences[index as usize];
                compare_created(findings, || path(node.number), node.stamp, node.zxid, values, code, body);
            },
        )?;
        let known: HashSet<String> = sequences.iter().map(|node| path(node.number)).collect();
        let Some(parent) = prefix.rfind('/').map(|at| &prefix[..at]) else { return Ok(()) };
        for name in client.children(parent)?.unwrap_or_default() {
            let path = format!("{parent}/{name}");
            if known.contains(&path) {
                continue;
            }
            // One whose answer never came bears its stamp, unless its value is too short for one.
            let data = client.get(&path)?.map(|(data, _)| data).unwrap_or_default();
            let in_doubt = match Stamp::read(&data) {
                Some(stamp) => self.sequences_in_doubt.contains(&stamp),
                None => !self.sequences_in_doubt.is_empty(),
            };
            self.findings.check(in_doubt, "a node that nobody has created", || {
                format!("{path}: expected no node, found one with {} bytes", data.len())
            });
        }
        Ok(())
    }

    /// Ephemeral nodes whose session has ended, or that are nobody's.
    fn look_for_ephemerals(&mut self, client: &mut Client, root: &str) -> anyhow::Result<()> {
        let mut parent = Vec::new();
        put_ephemeral_directory(root, &mut parent);
        let parent = String::from_utf8_lossy(&parent).into_owned();
        for name in client.children(&parent)?.unwrap_or_default() {
            let path = format!("{parent}/{name}");
            let Some((_, stat)) = client.get(&path)? else { continue };
            self.left(&path, stat.ephemeral_owner);
        }
        Ok(())
    }

    /// An ephemeral node is there when the run is over.
    fn left(&mut self, path: &str, owner: SessionId) {
        let show = |what: &str| format!("{path}: expected no node, found one of {what} {owner}");
        match self.sessions.get(&owner) {
            Some(false) => {
                // Its session was lost, not ended: it lives until the server's patience is over.
            }
            Some(true) => self
                .findings
                .check(false, "an ephemeral node outlives its session", || show("the ended session")),
            None => self.findings.check(false, "an ephemeral node is nobody's", || show("the owner")),
        }
    }
}

fn found(code: ErrorCode) -> String {
    if code.is_ok() { "a node".to_owned() } else { code.to_string() }
}

fn decoded(code: ErrorCode, body: &[u8]) -> Option<(&[u8], Stat)> {
    let mut decoder = Decoder::new(body);
    let data = decoder.buffer("data").ok()?.unwrap_or_default();
    let stat = Stat::decode(&mut decoder).ok()?;
    code.is_ok().then_some((data, stat))
}

/// A value as an example shows it: its length and its first bytes.
fn shown(value: &[u8]) -> String {
    let begin: String = value.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("{} bytes {begin}", value.len())
}

fn compare_created(
    findings: &mut Findings,
    path: impl Fn() -> String,
    stamp: Stamp,
    zxid: Zxid,
    values: &Expectation,
    code: ErrorCode,
    body: &[u8],
) {
    let Some((data, stat)) = decoded(code, body) else {
        return findings.check(false, "an acknowledged create is lost", || {
            format!("{}: expected the node of zxid {zxid}, found {}", path(), found(code))
        });
    };
    findings.check(
        (stat.czxid, stat.mzxid, stat.version) == (zxid, zxid, 0),
        "a created node is not the one acknowledged",
        || {
            format!(
                "{}: expected zxid {zxid} and version 0, found czxid {}, mzxid {} and version {}",
                path(),
                stat.czxid,
                stat.mzxid,
                stat.version
            )
        },
    );
    compare_value(findings, path, stamp, values, data);
}

fn compare_value(
    findings: &mut Findings,
    path: impl Fn() -> String,
    stamp: Stamp,
    values: &Expectation,
    data: &[u8],
) {
    let expected = values.value(stamp).unwrap_or_default();
    findings.check(data == expected, "a value is not the one acknowledged", || {
        format!("{}: expected {}, found {}", path(), shown(&expected), shown(data))
    });
}

fn compare_sets(
    findings: &mut Findings,
    path: &str,
    sets: Sets,
    values: &Expectation,
    code: ErrorCode,
    body: &[u8],
) {
    if sets.count == 0 {
        return;
    }
    let Some((data, stat)) = decoded(code, body) else {
        return findings.check(false, "an acknowledged set is lost", || {
            format!("{path}: expected mzxid {}, found {}", sets.mzxid, found(code))
        });
    };
    let show = || {
        format!(
            "{path}: expected mzxid {} and version {}, found {} and {}",
            sets.mzxid, sets.version, stat.mzxid, stat.version
        )
    };
    findings.check(stat.mzxid >= sets.mzxid, "an acknowledged set is lost", show);
    if stat.mzxid == sets.mzxid {
        findings.check(stat.version == sets.version, "a version changed without a set", show);
        compare_value(findings, || path.to_owned(), sets.stamp, values, data);
    } else if stat.mzxid > sets.mzxid && sets.in_doubt == 0 {
        findings.check(false, "a value was set by nobody here", show);
    }
    let grown = i64::from(sets.version) - i64::from(sets.first_version) + 1;
    let (count, in_doubt) = (i64::from(sets.count), i64::from(sets.in_doubt));
    findings.check(
        (count..=count + in_doubt).contains(&grown),
        "versions do not grow by one from set to set",
        || {
            format!(
                "{path}: expected {count} sets (and {in_doubt} unanswered) to make versions {} to {}, found {}",
                sets.first_version,
                i64::from(sets.first_version) + count - 1,
                sets.version
            )
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use zkfast_wire::jute::put_buffer;

    fn stat(mzxid: i64, version: i32) -> Stat {
        Stat { mzxid: Zxid(mzxid), czxid: Zxid(mzxid), version, ..Stat::default() }
    }

    fn values() -> Expectation {
        Expectation::new(3, 1, 100)
    }

    fn body(value: &[u8], stat: Stat) -> Vec<u8> {
        let mut out = Vec::new();
        put_buffer(&mut out, Some(value));
        stat.encode(&mut out);
        out
    }

    fn kinds(findings: &Findings) -> Vec<&'static str> {
        findings.violations.keys().copied().collect()
    }

    /// A checker that cannot fail proves nothing: each lie of a server must be told, with the path.
    #[test]
    fn each_lie_about_a_set_is_told() {
        let stamp = Stamp::new(0, 7, 20);
        let value = values().value(stamp).unwrap();
        let mut other = value.clone();
        other[19] ^= 1;
        let mut witness = Witness::default();
        witness.set(1, 3, Stamp::new(0, 6, 20), &stat(9, 4), Zxid(9), "set");
        witness.set(1, 3, stamp, &stat(10, 5), Zxid(10), "set");
        let sets = witness.sets[&3];
        for (sets, code, bytes, kind) in [
            (sets, ErrorCode::OK, body(&value, stat(9, 5)), "an acknowledged set is lost"),
            (sets, ErrorCode::OK, body(&other, stat(10, 5)), "a value is not the one acknowledged"),
            (sets, ErrorCode::OK, body(&value[..19], stat(10, 5)), "a value is not the one acknowledged"),
            (sets, ErrorCode::OK, body(&value, stat(10, 6)), "a version changed without a set"),
            (sets, ErrorCode::OK, body(&value, stat(11, 6)), "a value was set by nobody here"),
            (sets, ErrorCode::NO_NODE, Vec::new(), "an acknowledged set is lost"),
            (
                Sets { count: 1, ..sets },
                ErrorCode::OK,
                body(&value, stat(10, 5)),
                "versions do not grow by one from set to set",
            ),
            (
                Sets { count: 3, ..sets },
                ErrorCode::OK,
                body(&value, stat(10, 5)),
                "versions do not grow by one from set to set",
            ),
        ] {
            let mut findings = Findings::default();
            compare_sets(&mut findings, "/k", sets, &values(), code, &bytes);
            assert_eq!(kinds(&findings), [kind]);
            let (_, examples) = &findings.violations[kind];
            assert!(examples[0].starts_with("/k: expected") && examples[0].contains("found"), "{examples:?}");
        }
        for sets in [sets, Sets { count: 1, in_doubt: 1, ..sets }] {
            let mut findings = Findings::default();
            compare_sets(&mut findings, "/k", sets, &values(), ErrorCode::OK, &body(&value, stat(10, 5)));
            assert_eq!((findings.count(), findings.checks), (0, 4));
        }
    }

    #[test]
    fn each_lie_about_a_create_is_told() {
        let stamp = Stamp::new(0, 7, 20);
        let value = values().value(stamp).unwrap();
        for (code, bytes, kind) in [
            (ErrorCode::NO_NODE, Vec::new(), "an acknowledged create is lost"),
            (ErrorCode::OK, body(b"", stat(10, 0)), "a value is not the one acknowledged"),
            (ErrorCode::OK, body(&value, stat(10, 1)), "a created node is not the one acknowledged"),
            (ErrorCode::OK, body(&value, stat(11, 0)), "a created node is not the one acknowledged"),
        ] {
            let mut findings = Findings::default();
            compare_created(&mut findings, || "/c".into(), stamp, Zxid(10), &values(), code, &bytes);
            assert_eq!(kinds(&findings), [kind]);
        }
        let mut findings = Findings::default();
        let honest = body(&value, stat(10, 0));
        compare_created(&mut findings, || "/c".into(), stamp, Zxid(10), &values(), ErrorCode::OK, &honest);
        assert_eq!((findings.count(), findings.checks), (0, 2));
    }

    #[test]
    fn each_lie_within_a_session_is_told() {
        let mut witness = Witness::default();
        witness.zxid(1, Zxid(7), Zxid(6));
        witness.set(1, 3, Stamp(9), &stat(10, 5), Zxid(10), "set");
        witness.read(1, 3, &stat(9, 4), "get");
        witness.read(1, 3, &stat(11, 5), "get");
        witness.set(2, 4, Stamp(9), &stat(12, 1), Zxid(13), "set");
        assert_eq!(
            kinds(&witness.findings),
            [
                "a session read an older version than before",
                "a version does not grow with its mzxid",
                "the answer to a set is not of that set",
                "zxid went back within a session",
            ]
        );
    }

    #[test]
    fn each_lie_about_an_ephemeral_node_is_told() {
        let (own, others) = (SessionId(5), SessionId(6));
        let mut witness = Witness::default();
        witness.ephemeral(1, 1, true, own, Some(own));
        witness.ephemeral(1, 2, false, own, None);
        witness.session(own);
        witness.left("/e", own);
        assert_eq!(witness.findings.count(), 0, "{:?}", witness.findings);
        witness.ephemeral(1, 3, true, own, Some(others));
        witness.ephemeral(1, 4, true, own, None);
        witness.session_closed(own);
        witness.left("/e", own);
        witness.left("/f", others);
        assert_eq!(
            kinds(&witness.findings),
            [
                "an ephemeral node has another owner",
                "an ephemeral node is gone before its session",
                "an ephemeral node is nobody's",
                "an ephemeral node outlives its session",
            ]
        );
    }

    #[test]
    fn the_newest_set_of_all_cores_is_expected() {
        let (mut one, mut two) = (Witness::default(), Witness::default());
        one.set(1, 3, Stamp(11), &stat(5, 7), Zxid(5), "set");
        two.set(2, 3, Stamp(22), &stat(8, 8), Zxid(8), "set");
        two.set_in_doubt(3);
        one.add(two);
        let sets = one.sets[&3];
        assert_eq!((sets.stamp, sets.in_doubt, sets.first_version, sets.count), (Stamp(22), 1, 7, 2));
        // Two parts of one multi: one zxid, the later version.
        one.set(1, 3, Stamp(33), &stat(9, 9), Zxid(9), "multi");
        one.set(1, 3, Stamp(34), &stat(9, 10), Zxid(9), "multi");
        assert_eq!(one.sets[&3].stamp, Stamp(34));
    }

    #[test]
    fn a_sequential_name_is_what_was_asked_for_and_a_number() {
        let mut witness = Witness::default();
        witness.sequence("/q/s-0000000042", b"/q/s-", Stamp(1), Zxid(1));
        for wrong in ["/q/s-42", "/r/s-0000000042", "/q/s-00000000x2"] {
            witness.sequence(wrong, b"/q/s-", Stamp(1), Zxid(1));
        }
        assert_eq!((witness.sequences.len(), witness.findings.count()), (1, 3));
    }
}
