//! Which number of one server corresponds to which number of the other.
//!
//! Zxids and session ids are counted by each server for itself. What must hold is that one of them stands for the same
//! transaction or session on both servers wherever it is seen, that later transactions have larger zxids on both, and
//! that each server gives one time to each of its transactions.

use super::answer::{Line, Token};
use std::collections::{BTreeMap, HashMap};

/// What has been seen so far.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    zxids: BTreeMap<i64, i64>,
    zxids_back: BTreeMap<i64, i64>,
    sessions: HashMap<i64, i64>,
    sessions_back: HashMap<i64, i64>,
    times: [HashMap<i64, i64>; 2],
    /// Zxids that one server took where the other took none, by side.
    extra: [Vec<i64>; 2],
}

impl Ledger {
    /// Compares two lines; what does not fit, if something does not.
    pub fn compare(&mut self, apache: &Line, zkfast: &Line) -> Result<(), String> {
        if apache.kind != zkfast.kind {
            return Err("another kind of answer".into());
        }
        if apache.tokens.len() != zkfast.tokens.len() {
            return Err("more or fewer fields".into());
        }
        for pair in apache.tokens.iter().zip(&zkfast.tokens) {
            match pair {
                (Token::Word(left), Token::Word(right)) if left == right => {}
                (Token::Word(left), Token::Word(right)) => return Err(format!("{left} against {right}")),
                (Token::Zxid(left), Token::Zxid(right)) => self.zxid(*left, *right)?,
                (Token::Session(left), Token::Session(right)) => self.session(*left, *right)?,
                // The configuration node of an ensemble: each server writes it when it takes up its role, without a
                // transaction.
                (Token::Time { zxid: 0, ms: left }, Token::Time { zxid: 0, ms: right })
                    if *left > 0 && *right > 0 => {}
                (Token::Time { zxid: a, ms: left }, Token::Time { zxid: b, ms: right }) => {
                    self.time(0, *a, *left)?;
                    self.time(1, *b, *right)?;
                }
                _ => return Err("other fields".into()),
            }
        }
        Ok(())
    }

    /// Two zxids that must stand for the same transaction.
    pub fn zxid(&mut self, apache: i64, zkfast: i64) -> Result<(), String> {
        // Apache uses up a zxid now and then for a multi that cannot be read. Right in front of one that it took for
        // itself it cannot be counted: then the last that was seen stands for the same.
        if self.extra[0].contains(&apache)
            && let Some((_, known)) = self.zxids.range(..apache).next_back()
            && *known == self.without_extra(1, zkfast)
        {
            return Ok(());
        }
        let (apache, zkfast) = (self.without_extra(0, apache), self.without_extra(1, zkfast));
        let words = || format!("zxid {apache:#x} against {zkfast:#x}");
        if apache <= 0 || zkfast <= 0 {
            return if apache == zkfast { Ok(()) } else { Err(words()) };
        }
        match (self.zxids.get(&apache), self.zxids_back.get(&zkfast)) {
            (Some(known), Some(_)) if *known == zkfast => return Ok(()),
            (None, None) => {}
            (Some(known), _) => return Err(format!("{}, which was {known:#x} before", words())),
            (None, Some(known)) => return Err(format!("{}, which was {known:#x} before", words())),
        }
        let in_order = self.zxids.range(..apache).next_back().is_none_or(|(_, below)| *below < zkfast)
            && self.zxids.range(apache..).next().is_none_or(|(_, above)| *above > zkfast);
        if !in_order {
            return Err(format!("{}, which is another order of transactions", words()));
        }
        self.zxids.insert(apache, zkfast);
        self.zxids_back.insert(zkfast, apache);
        Ok(())
    }

    /// A server (0 is Apache's) took `zxid` for what the other one gave none to; whether that is news.
    pub fn extra(&mut self, side: usize, zxid: i64) -> bool {
        let is_new = !self.extra[side].contains(&zxid);
        if is_new {
            self.extra[side].push(zxid);
        }
        is_new
    }

    fn without_extra(&self, side: usize, zxid: i64) -> i64 {
        zxid - self.extra[side].iter().filter(|extra| **extra <= zxid).count() as i64
    }

    fn session(&mut self, apache: i64, zkfast: i64) -> Result<(), String> {
        if apache == 0 || zkfast == 0 {
            return if apache == zkfast { Ok(()) } else { Err("an owner against none".into()) };
        }
        let left = *self.sessions.entry(apache).or_insert(zkfast);
        let right = *self.sessions_back.entry(zkfast).or_insert(apache);
        if (left, right) == (zkfast, apache) { Ok(()) } else { Err("another session".into()) }
    }

    fn time(&mut self, side: usize, zxid: i64, ms: i64) -> Result<(), String> {
        let known = *self.times[side].entry(zxid).or_insert(ms);
        if known != ms || (zxid == 0) != (ms == 0) {
            let name = ["Apache", "zkfast"][side];
            return Err(format!("{name} gives transaction {zxid:#x} the times {known} and {ms}"));
        }
        Ok(())
    }
}

/// Danger: a tester that compares numbers too kindly finds nothing.
#[test]
fn numbers_must_correspond() {
    let mut ledger = Ledger::default();
    assert_eq!(ledger.zxid(10, 20), Ok(()));
    assert_eq!(ledger.zxid(12, 22), Ok(()));
    assert_eq!(ledger.zxid(10, 20), Ok(()));
    for (apache, zkfast) in [(10, 21), (11, 20), (11, 23), (13, 21), (0, 20), (-1, 0), (9, 21)] {
        assert!(ledger.zxid(apache, zkfast).is_err(), "{apache} {zkfast}");
    }
    assert_eq!((ledger.zxid(0, 0), ledger.zxid(-1, -1)), (Ok(()), Ok(())));
    assert!(ledger.extra(1, 23) && !ledger.extra(1, 23));
    assert_eq!(ledger.zxid(12, 23), Ok(()));
    assert_eq!(ledger.zxid(13, 24), Ok(()));
    // Apache used up 14 and took 15 where zkfast took none.
    assert!(ledger.extra(0, 15));
    assert_eq!((ledger.zxid(15, 24), ledger.zxid(16, 25)), (Ok(()), Ok(())));
    assert!(ledger.zxid(15, 26).is_err());
    assert_eq!((ledger.session(1, 2), ledger.session(0, 0)), (Ok(()), Ok(())));
    assert!(ledger.session(1, 3).is_err() && ledger.session(3, 2).is_err() && ledger.session(0, 2).is_err());
    assert_eq!((ledger.time(0, 10, 500), ledger.time(0, 10, 500)), (Ok(()), Ok(())));
    assert!(ledger.time(0, 10, 501).is_err() && ledger.time(1, 0, 5).is_err());
}
