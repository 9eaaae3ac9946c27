//! A second, naive reader of plain snapshot files: the format as Apache documents it, nothing shared with the code
//! under test.

use super::naive_log::adler32;
use std::{collections::BTreeMap, fs, path::Path};

/// One node as it lies in the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    pub data: Option<Vec<u8>>,
    /// perms, scheme, id; `None` is the open list.
    pub acl: Option<Vec<(i32, String, String)>>,
    pub stat: Vec<u8>,
}

/// A whole snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    pub sessions: BTreeMap<i64, i32>,
    pub nodes: BTreeMap<String, Node>,
    /// zxid and digest.
    pub digest: Option<(i64, i64)>,
    pub last_zxid: Option<i64>,
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn take(&mut self, count: usize) -> &[u8] {
        self.at += count;
        &self.bytes[self.at - count..self.at]
    }

    fn int(&mut self) -> i32 {
        i32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    fn long(&mut self) -> i64 {
        i64::from_be_bytes(self.take(8).try_into().unwrap())
    }

    fn buffer(&mut self) -> Option<Vec<u8>> {
        let length = self.int();
        (length != -1).then(|| self.take(length as usize).to_vec())
    }

    fn text(&mut self) -> String {
        String::from_utf8(self.buffer().unwrap()).unwrap()
    }

    fn seal(&mut self) {
        let sum = adler32(&self.bytes[..self.at]);
        assert_eq!(self.long(), i64::from(sum));
        assert_eq!(self.text(), "/");
    }
}

/// Reads a plain snapshot; panics on anything that is not in the format.
pub fn read(path: &Path) -> Snapshot {
    let bytes = fs::read(path).unwrap();
    let mut cursor = Cursor { bytes: &bytes, at: 0 };
    assert_eq!(cursor.take(4), b"ZKSN");
    assert_eq!((cursor.int(), cursor.long()), (2, -1));
    let mut snapshot = Snapshot::default();
    for _ in 0..cursor.int() {
        let id = cursor.long();
        assert!(snapshot.sessions.insert(id, cursor.int()).is_none());
    }
    let mut lists = BTreeMap::new();
    for _ in 0..cursor.int() {
        let id = cursor.long();
        let list: Vec<_> = (0..cursor.int()).map(|_| (cursor.int(), cursor.text(), cursor.text())).collect();
        assert!(id != -1 && lists.insert(id, list).is_none());
    }
    loop {
        let path = cursor.text();
        if path == "/" {
            break;
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            assert!(snapshot.nodes.contains_key(parent), "{path} comes before its parent");
        }
        let data = cursor.buffer();
        let list = cursor.long();
        let acl = (list != -1).then(|| lists[&list].clone());
        let stat = cursor.take(60).to_vec();
        assert!(snapshot.nodes.insert(path, Node { data, acl, stat }).is_none());
    }
    cursor.seal();
    if bytes.len() - cursor.at >= 33 {
        let zxid = cursor.long();
        assert_eq!(cursor.int(), 2);
        snapshot.digest = Some((zxid, cursor.long()));
        cursor.seal();
    }
    if bytes.len() > cursor.at {
        snapshot.last_zxid = Some(cursor.long());
        cursor.seal();
    }
    assert_eq!(cursor.at, bytes.len());
    snapshot
}
