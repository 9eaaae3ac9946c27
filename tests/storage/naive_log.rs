//! A second, naive reader of log files: the format as Apache documents it, one field after the other, nothing shared
//! with the code under test.

use std::{fs, path::Path};

/// One record of a log file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    pub zxid: i64,
    pub transaction: Vec<u8>,
}

/// Adler-32 by its definition.
pub fn adler32(bytes: &[u8]) -> u32 {
    let (mut a, mut b) = (1u64, 0u64);
    for chunk in bytes.chunks(5000) {
        for &byte in chunk {
            a += u64::from(byte);
            b += a;
        }
        a %= 65521;
        b %= 65521;
    }
    (b as u32) << 16 | a as u32
}

/// All records up to the first that ends the file; panics where Apache would refuse.
pub fn read(path: &Path) -> Vec<Record> {
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[..4], b"ZKLG", "{path:?}");
    // The dbid behind it is verified by nobody (P5).
    assert_eq!(bytes[4..8], [0, 0, 0, 2]);
    let mut records = Vec::new();
    let mut at = 16;
    while bytes.len() >= at + 12 {
        let sum = u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        let length = i32::from_be_bytes(bytes[at + 8..at + 12].try_into().unwrap());
        if length == 0 {
            break;
        }
        let length = usize::try_from(length).expect("a sane length");
        if bytes.len() < at + 13 + length || bytes[at + 12 + length] != b'B' {
            break;
        }
        let transaction = bytes[at + 12..at + 12 + length].to_vec();
        assert_eq!(sum, u64::from(adler32(&transaction)), "checksum at {at} of {path:?}");
        let zxid = i64::from_be_bytes(transaction[12..20].try_into().unwrap());
        records.push(Record { zxid, transaction });
        at += 13 + length;
    }
    records
}

/// Names of the log files in `directory` in zxid order.
pub fn names(directory: &Path) -> Vec<String> {
    let zxid = |name: &String| i64::from_str_radix(name.strip_prefix("log.").unwrap(), 16).unwrap();
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("log."))
        .collect();
    names.sort_by_key(zxid);
    names
}

/// All records of all log files; each file is named after its first record.
pub fn read_all(directory: &Path) -> Vec<Record> {
    let mut all = Vec::new();
    for name in names(directory) {
        let records = read(&directory.join(&name));
        if let Some(first) = records.first() {
            assert_eq!(name, format!("log.{:x}", first.zxid));
        }
        all.extend(records);
    }
    assert!(all.windows(2).all(|pair| pair[0].zxid < pair[1].zxid));
    all
}
