//! What a read returns while the load runs: values that somebody has written, and lists that are whole.

use super::Witness;
use crate::{
    layout::FIRST_BYTE,
    stamp::{Expectation, Stamp},
};
use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
};
use zkfast_wire::{Stat, jute::Decoder};

/// What is known of the list that nobody changes while a run reads it: names, and a sum that their order does not touch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct List {
    names: usize,
    sum: u64,
}

impl Witness {
    /// For a run whose cores write these values.
    pub fn of(values: Expectation) -> Self {
        Self { values, ..Self::default() }
    }

    /// A read returned `value` with `stat`; `key` is that of the key space, if it is of it.
    pub fn value(&mut self, link: u64, key: Option<u64>, value: &[u8], stat: &Stat) {
        let what = || key.map_or("a watched node".to_owned(), |key| format!("key {key}"));
        self.findings.check(
            usize::try_from(stat.data_length) == Ok(value.len()),
            "a value has another length than its stat",
            || {
                format!(
                    "connection {link}, {}: expected {} bytes, found {}",
                    what(),
                    stat.data_length,
                    value.len()
                )
            },
        );
        let acknowledged = key
            .and_then(|key| self.sets.get(&key))
            .filter(|set| set.count > 0 && (set.mzxid, set.version) == (stat.mzxid, stat.version))
            .map(|set| set.stamp);
        let expected = match acknowledged {
            Some(stamp) => self.values.value(stamp),
            None if value.iter().all(|byte| *byte == FIRST_BYTE) => return,
            // Too short to name its write.
            None if value.len() < size_of::<Stamp>() => return,
            None => Stamp::read(value).and_then(|stamp| self.values.value(stamp)),
        };
        self.findings.check(
            expected.as_deref() == Some(value),
            "a read value is none that was written",
            || {
                let found = super::shown(value);
                let expected = expected.as_deref().map_or("one of this run".to_owned(), super::shown);
                format!(
                    "connection {link}, {}, mzxid {}: expected {expected}, found {found}",
                    what(),
                    stat.mzxid
                )
            },
        );
    }

    /// A list of children with its stat, of the node that nobody changes while the run lasts.
    pub fn listed(&mut self, link: u64, body: &[u8]) {
        let mut decoder = Decoder::new(body);
        let read = decoder.texts("GetChildren2Response.children").and_then(|names| {
            let sum = names.iter().fold(0_u64, |sum, name| {
                let mut hasher = DefaultHasher::new();
                name.hash(&mut hasher);
                sum.wrapping_add(hasher.finish())
            });
            Ok((List { names: names.len(), sum }, Stat::decode(&mut decoder)?.num_children))
        });
        let (list, children) = match read {
            Ok(read) => read,
            Err(error) => {
                return self.findings.violation("a reply does not decode", || error.to_string());
            }
        };
        self.findings.check(
            usize::try_from(children) == Ok(list.names),
            "a list has another length than its stat",
            || format!("connection {link}, /list: expected {children} names, found {}", list.names),
        );
        let first = *self.list.get_or_insert(list);
        self.findings.check(first == list, "a list that nobody changes has changed", || {
            format!(
                "connection {link}, /list: expected the {} names of before, found {}",
                first.names, list.names
            )
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zkfast_wire::{Zxid, reply::Reply};

    fn stat(mzxid: i64, version: i32, bytes: usize) -> Stat {
        Stat { mzxid: Zxid(mzxid), version, data_length: bytes as i32, ..Stat::default() }
    }

    fn kinds(witness: &Witness) -> Vec<&str> {
        witness.findings.violations.keys().copied().collect()
    }

    #[test]
    fn a_value_that_nobody_has_written_is_told() {
        let values = Expectation::new(3, 2, 100);
        let stamp = Stamp::new(1, 7, 40);
        let honest = values.value(stamp).unwrap();
        let mut witness = Witness::of(values);
        let read =
            |witness: &mut Witness, value: &[u8]| witness.value(1, Some(5), value, &stat(9, 2, value.len()));
        for value in [&honest[..], b"..........", b"", b"\x07\0\0"] {
            read(&mut witness, value);
        }
        assert_eq!(kinds(&witness), Vec::<&str>::new());
        for at in [5, 30, 39] {
            let mut wrong = honest.clone();
            wrong[at] ^= 0x55;
            read(&mut witness, &wrong);
        }
        read(&mut witness, &honest[..39]);
        read(&mut witness, b".....x....");
        assert_eq!(kinds(&witness), ["a read value is none that was written"]);
        assert_eq!(witness.findings.count(), 5);
        witness.value(1, None, &honest, &stat(9, 2, 41));
        assert_eq!(kinds(&witness).len(), 2);
    }

    /// The stat names a set that was acknowledged: its value and no other is due, however well written.
    #[test]
    fn the_value_of_an_acknowledged_set_is_that_set() {
        let values = Expectation::new(3, 1, 100);
        let (one, two) = (Stamp::new(0, 1, 40), Stamp::new(0, 2, 40));
        let (old, new) = (values.value(one).unwrap(), values.value(two).unwrap());
        let mut witness = Witness::of(values);
        witness.set(1, 5, two, &stat(9, 2, 40), Zxid(9), "set");
        witness.value(1, Some(5), &new, &stat(9, 2, 40));
        assert_eq!(witness.findings.count(), 0);
        witness.value(1, Some(5), &old, &stat(9, 2, 40));
        assert_eq!(kinds(&witness), ["a read value is none that was written"]);
    }

    #[test]
    fn a_list_that_lacks_a_child_is_told() {
        let body = |names: &[&str], children: i32| {
            let mut out = Vec::new();
            Reply::Names(names.iter().map(|name| (*name).into()).collect()).encode(&mut out);
            Stat { num_children: children, ..Stat::default() }.encode(&mut out);
            out
        };
        let mut witness = Witness::default();
        witness.listed(1, &body(&["a", "b"], 2));
        witness.listed(2, &body(&["b", "a"], 2));
        assert_eq!(witness.findings.count(), 0);
        witness.listed(1, &body(&["a"], 2));
        witness.listed(1, &body(&["a", "c"], 2));
        witness.listed(1, b"\0\0");
        assert_eq!(
            kinds(&witness),
            [
                "a list has another length than its stat",
                "a list that nobody changes has changed",
                "a reply does not decode",
            ]
        );
    }
}
