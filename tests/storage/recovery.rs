//! The road back: what is repaired, what is refused, and in which words.

use super::{
    golden::{config, copy, opened},
    naive_log,
};
use bytes::Bytes;
use std::{
    fs,
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::{Path, PathBuf},
};
use tempfile::TempDir;
use zkfast::storage::{
    LogConfig, TxnLog,
    data_dirs::DataDirs,
    history::{HistoryError, LogReader},
    purge::{PurgeMark, purge},
    recovery::{RecoveryError, RecoveryOptions, recover},
    replay::{GapCause, ReplayError, truncate},
    segment::put_record,
    snapshot::{self, SnapshotOptions},
};
use zkfast_tree::{Tree, TreeConfig};
use zkfast_wire::{
    Acl, OpCode, SessionId, Txn, TxnHeader, Zxid,
    txn::{CreateTxn, CreateTxnMode},
};

/// The file header of Apache's logs.
const LOG_HEADER: [u8; 16] = *b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0";

fn empty() -> (TempDir, DataDirs) {
    let root = tempfile::tempdir().unwrap();
    let dirs = DataDirs::new(root.path(), None);
    dirs.prepare(true).unwrap();
    (root, dirs)
}

/// Creates `/n<zxid>`; all of one length.
fn create(zxid: i64) -> Vec<u8> {
    create_with(zxid, b"some data")
}

fn create_with(zxid: i64, data: &[u8]) -> Vec<u8> {
    create_node(zxid, &format!("/n{zxid:04}"), data, CreateTxnMode::Create { ephemeral: false })
}

fn create_node(zxid: i64, path: &str, data: &[u8], mode: CreateTxnMode) -> Vec<u8> {
    let header = TxnHeader {
        session: SessionId(0),
        cxid: 1,
        zxid: Zxid(zxid),
        time_ms: 1_700_000_000_000,
        kind: if matches!(mode, CreateTxnMode::Ttl { .. }) { OpCode::CreateTtl } else { OpCode::Create },
    };
    let mut out = Vec::new();
    let path = path.to_owned().into();
    Txn::Create(CreateTxn { path, data: Some(data), acl: vec![Acl::OPEN], parent_cversion: -1, mode })
        .encode_record(&header, &mut out);
    out
}

/// A log file as another server would have written it.
fn write_log(dirs: &DataDirs, zxids: impl IntoIterator<Item = i64>, padding_bytes: usize) -> PathBuf {
    let mut bytes = LOG_HEADER.to_vec();
    let mut first = None;
    for zxid in zxids {
        first.get_or_insert(zxid);
        let transaction = create(zxid);
        let start = bytes.len();
        bytes.resize(start + transaction.len() + 13, 0);
        put_record(&mut bytes[start..], &transaction);
    }
    bytes.resize(bytes.len() + padding_bytes, 0);
    let path = dirs.logs.join(format!("log.{:x}", first.unwrap()));
    fs::write(&path, bytes).unwrap();
    path
}

/// A log file of ours, begun behind `last`.
fn write_own_log(dirs: &DataDirs, last: i64, zxids: impl IntoIterator<Item = i64>) -> PathBuf {
    let (_wake, sender) = UnixStream::pair().unwrap();
    let mut settings = LogConfig::new(&dirs.logs);
    settings.prealloc_kib = 64;
    let mut log = TxnLog::open(settings, Zxid(last), sender.as_raw_fd()).unwrap();
    let mut first = None;
    for zxid in zxids {
        first.get_or_insert(zxid);
        log.append(Zxid(zxid), &create(zxid));
    }
    log.close().unwrap();
    dirs.logs.join(format!("log.{:x}", first.unwrap()))
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn refusal(dirs: &DataDirs) -> RecoveryError {
    match recover(dirs, &config(), &RecoveryOptions::default()) {
        Ok(recovered) => panic!("recovered {}", recovered.last),
        Err(error) => error,
    }
}

/// ZOOKEEPER-3644: an empty disk must be told from one whose snapshot was lost.
#[test]
fn an_empty_disk_gets_its_first_snapshot_before_its_first_log() {
    let (_root, dirs) = empty();
    let recovered = opened(&dirs);
    assert_eq!((recovered.last, recovered.snapshot), (Zxid::ZERO, None));
    assert_eq!(names(&dirs.snapshots), ["snapshot.0"]);
    write_log(&dirs, 1..=5, 100);
    let recovered = opened(&dirs);
    assert_eq!((recovered.last, recovered.replayed.records), (Zxid(5), 5));
    fs::remove_file(dirs.snapshots.join("snapshot.0")).unwrap();
    assert!(matches!(refusal(&dirs), RecoveryError::NoSnapshot { .. }));
    let trusting = RecoveryOptions { trusts_empty: true, ..RecoveryOptions::default() };
    assert_eq!(recover(&dirs, &config(), &trusting).unwrap().last, Zxid(5));
}

/// P31. Many lives: recover, log, snapshot now and then, end with or without a close; nothing is lost on the way.
#[test]
fn a_server_finds_everything_again_after_each_restart() {
    let (_root, dirs) = empty();
    let (_wake, sender) = UnixStream::pair().unwrap();
    let mut next = 1;
    for life in 0..12 {
        let mut recovered = opened(&dirs);
        assert_eq!(recovered.last, Zxid(next - 1), "life {life}");
        for zxid in 1..next {
            assert!(recovered.tree.node(&format!("/n{zxid:04}")).is_some(), "life {life}: /n{zxid}");
        }
        let mut settings = LogConfig::new(&dirs.logs);
        settings.prealloc_kib = 64;
        let mut log = TxnLog::open(settings, recovered.last, sender.as_raw_fd()).unwrap();
        for _ in 0..life * 7 {
            let transaction = create(next);
            recovered.tree.apply(&Bytes::copy_from_slice(&transaction)).unwrap();
            log.append(Zxid(next), &transaction);
            log.flush().unwrap();
            next += 1;
        }
        log.settle().unwrap();
        if life % 3 == 1 {
            log.roll();
            snapshot::write(recovered.tree.image(), &dirs, SnapshotOptions::default()).unwrap();
        }
        if life % 2 == 0 {
            log.close().unwrap();
        }
    }
    assert_eq!(naive_log::read_all(&dirs.logs).len() as i64, next - 1);
}

/// P10, ZOOKEEPER-2332: an empty log at the end must not keep the server from starting, nor take a name.
#[test]
fn empty_logs_at_the_end_are_removed() {
    for bytes in [&b""[..], &[0; 4096], &LOG_HEADER, &[&LOG_HEADER[..], &[0; 100]].concat()] {
        let (_root, dirs) = copy("apache-3.9.5-plain");
        let expected = opened(&dirs).last;
        let path = dirs.logs.join(format!("log.{:x}", expected.0 + 1));
        fs::write(&path, bytes).unwrap();
        let recovered = opened(&dirs);
        assert_eq!(recovered.last, expected);
        assert!(!path.exists());
    }
}

#[test]
fn an_empty_log_in_the_middle_is_refused() {
    let (_root, dirs) = empty();
    opened(&dirs);
    write_log(&dirs, 1..=5, 0);
    fs::write(dirs.logs.join("log.6"), b"").unwrap();
    write_log(&dirs, 7..=9, 0);
    let error = refusal(&dirs).to_string();
    assert!(error.contains("log.6") && error.contains("length 0"), "{error}");
}

/// R18: a torn tail is cut, once; the next server appends to a new file and the old one stays whole.
#[test]
fn a_torn_tail_is_cut_and_the_next_log_is_a_new_file() {
    let (_root, dirs) = empty();
    opened(&dirs);
    let path = write_log(&dirs, 1..=20, 5000);
    let whole = fs::read(&path).unwrap();
    let records = naive_log::read(&path);
    let end_of_19 = 16 + records[..19].iter().map(|record| record.transaction.len() + 13).sum::<usize>();
    for cut in [end_of_19 + 7, end_of_19 + 11, end_of_19 + 30] {
        fs::write(&path, &whole[..cut]).unwrap();
        let recovered = opened(&dirs);
        assert_eq!(recovered.last, Zxid(19));
        assert_eq!(recovered.cut(), Some((&path, end_of_19 as u64)));
        assert_eq!(fs::metadata(&path).unwrap().len(), end_of_19 as u64);
        assert!(opened(&dirs).cut().is_none(), "once");
    }
    // A file whose only record is torn goes: its name is the zxid that will be given out again.
    fs::write(dirs.logs.join("log.14"), [&LOG_HEADER[..], &[0, 0, 0, 0, 7, 7]].concat()).unwrap();
    assert_eq!(opened(&dirs).last, Zxid(19));
    assert_eq!(names(&dirs.logs), ["log.1", "snapshot.0"]);
}

/// G31, FAST'18: cutting at a bad checksum in the middle loses acknowledged writes. File, offset and zxid are named.
#[test]
fn damage_is_refused_by_file_offset_and_zxid() {
    let (_root, dirs) = empty();
    opened(&dirs);
    let first = write_log(&dirs, 1..=20, 5000);
    let good = fs::read(&first).unwrap();
    let record_bytes = create(1).len() + 13;
    let mut bytes = good.clone();
    bytes[16 + 4 * record_bytes + 40] ^= 1;
    fs::write(&first, &bytes).unwrap();
    let error = refusal(&dirs);
    let RecoveryError::Log(ReplayError::Damaged { path, offset, after, .. }) = &error else {
        panic!("{error}")
    };
    assert_eq!((path, *offset, *after), (&first, 16 + 4 * record_bytes as u64, Zxid(4)));
    let words = error.to_string();
    assert!(words.contains("log.1") && words.contains("0x4") && words.contains("byte"), "{words}");
    assert_eq!(fs::read(&first).unwrap(), bytes, "nothing was changed");

    // The same at the end of a file that is not the last one.
    fs::write(&first, &good[..16 + 19 * record_bytes + 30]).unwrap();
    write_log(&dirs, 21..=22, 0);
    assert!(matches!(refusal(&dirs), RecoveryError::Log(ReplayError::Damaged { after: Zxid(19), .. })));

    // Cut cleanly there: then zxid 20 is missing, and no file of this kind can say whether it ever was.
    fs::write(&first, &good[..16 + 19 * record_bytes]).unwrap();
    let found = opened(&dirs);
    assert_eq!((found.last, found.floor), (Zxid(22), Zxid(21)), "nobody is told what lies before the hole");
    let [gap] = &found.replayed.gaps[..] else { panic!("{:?}", found.replayed.gaps) };
    assert_eq!((gap.after, gap.found), (Zxid(19), Zxid(21)));
    assert_eq!(gap.cause, GapCause::Unknown { before: Some(first) });
    let words = gap.to_string();
    assert!(words.contains("log.1,") && words.contains("log.15") && words.contains("0x14"), "{words}");
}

/// Danger: Apache's leader used up a zxid without a transaction, its own server opens the directory in silence, and we
/// refuse it. Within a file nothing can be lost unseen; between two the later one says what came before it.
#[test]
fn zxids_that_were_never_used_are_no_hole() {
    let (_root, dirs) = empty();
    opened(&dirs);
    write_log(&dirs, [1, 2, 4, 5, 8], 100);
    write_own_log(&dirs, 8, [10, 11, 14]);
    let options = RecoveryOptions { told_bytes_max: u64::MAX, ..RecoveryOptions::default() };
    let found = recover(&dirs, &config(), &options).unwrap();
    assert_eq!((found.last, found.replayed.records, found.floor), (Zxid(14), 8, Zxid::ZERO));
    let runs = [(1, 2), (4, 5), (8, 8), (10, 11), (14, 14)].map(|(first, last)| (Zxid(first), Zxid(last)));
    assert_eq!(found.history, runs);
    let gaps: Vec<_> =
        found.replayed.gaps.iter().map(|gap| (gap.after.0, gap.found.0, gap.cause.clone())).collect();
    let never = |count| GapCause::NeverLogged { count };
    assert_eq!(gaps, [(2, 4, never(2)), (8, 10, never(2))]);
    let words = found.replayed.gaps[0].to_string();
    assert!(
        words.contains("log.1 ") && words.contains("0x3") && words.contains("nobody ever logged"),
        "{words}"
    );
    // What a learner is sent crosses them, too.
    let told = |after: i64| {
        let mut reader = LogReader::new(&dirs, Zxid(after), Zxid(14)).unwrap();
        let mut zxids = Vec::new();
        while let Some((zxid, _)) = reader.next_record().unwrap() {
            zxids.push(zxid.0);
        }
        zxids
    };
    assert_eq!(told(0), [1, 2, 4, 5, 8, 10, 11, 14]);
    assert_eq!(told(2), [4, 5, 8, 10, 11, 14]);
    assert_eq!(told(8), [10, 11, 14]);
}

/// Danger: a learner is sent half a record, or told that a record is lost which is longer than one read, or which begins or
/// ends where a read does.
#[test]
fn records_of_any_length_are_read_back() {
    let read_bytes = 128 << 10;
    let lengths =
        [10, read_bytes, 5, 3 * read_bytes, 9 << 20, 1, read_bytes - 14, read_bytes - 13, 0, 700_000];
    let (_root, dirs) = empty();
    let mut bytes = LOG_HEADER.to_vec();
    let mut transactions = Vec::new();
    for (length, zxid) in lengths.into_iter().cycle().zip(1..=200) {
        // Around the lengths at which a record ends with a read, and not the nine megabytes more than once.
        let length = if zxid > 10 { (length + zxid as usize * 4099) % 300_000 } else { length };
        let transaction = create_with(zxid, &vec![zxid as u8; length]);
        let start = bytes.len();
        bytes.resize(start + transaction.len() + 13, 0);
        put_record(&mut bytes[start..], &transaction);
        transactions.push(transaction);
    }
    fs::write(dirs.logs.join("log.1"), bytes).unwrap();
    for after in [0, 3, 4, 150] {
        let mut reader = LogReader::new(&dirs, Zxid(after), Zxid(200)).unwrap();
        for zxid in after + 1..=200 {
            let (found, transaction) = reader.next_record().unwrap().expect("a record");
            assert_eq!(found, Zxid(zxid));
            assert!(transaction == transactions[zxid as usize - 1], "other bytes at {zxid}");
        }
        assert!(reader.next_record().unwrap().is_none());
    }
}

/// T18, T21. Danger: a directory with TTL nodes is opened without `extendedTypesEnabled`, which was among the flags of the
/// other server, and the start panics, or nodes are lost.
#[test]
fn ttl_nodes_with_children_need_extended_types() {
    let (_root, dirs) = empty();
    let mut bytes = LOG_HEADER.to_vec();
    let plain = CreateTxnMode::Create { ephemeral: false };
    let nodes = [
        create_node(1, "/lease", b"", CreateTxnMode::Ttl { ttl_ms: 60_000 }),
        create_node(2, "/lease/holder", b"", plain),
    ];
    for transaction in nodes {
        let start = bytes.len();
        bytes.resize(start + transaction.len() + 13, 0);
        put_record(&mut bytes[start..], &transaction);
    }
    opened(&dirs);
    fs::write(dirs.logs.join("log.1"), bytes).unwrap();
    let before = names(&dirs.logs);
    let without = TreeConfig { extended_types: false, ..config() };
    let Err(error) = recover(&dirs, &without, &RecoveryOptions::default()) else { panic!("it was opened") };
    assert!(matches!(&error, RecoveryError::TtlNodes(_)), "{error}");
    let words = error.to_string();
    assert!(words.contains("/lease ") && words.contains("extendedTypesEnabled=true"), "{words}");
    assert_eq!(names(&dirs.logs), before, "nothing was changed");
    assert!(opened(&dirs).tree.node("/lease/holder").is_some());
}

/// A lost log file, between the snapshot and the oldest log or between two logs: the state would be wrong without
/// anybody knowing.
#[test]
fn a_lost_file_is_refused() {
    let lost_ways = [&[(0, 1..=2), (2, 3..=9)][..], &[(0, 1..=2), (2, 3..=5), (5, 6..=9)]];
    for (files, lost, found) in [(lost_ways[0], 0, 3), (lost_ways[1], 1, 6)] {
        let (_root, dirs) = empty();
        opened(&dirs);
        let paths: Vec<_> =
            files.iter().map(|(last, zxids)| write_own_log(&dirs, *last, zxids.clone())).collect();
        assert_eq!(opened(&dirs).last, Zxid(9));
        fs::remove_file(&paths[lost]).unwrap();
        let error = refusal(&dirs);
        let RecoveryError::Log(ReplayError::Missing { path, found: first, .. }) = &error else {
            panic!("{error}")
        };
        assert_eq!((path, *first), (paths.last().unwrap(), Zxid(found)));
    }
    // Behind the snapshot, in another server's log: told, not refused.
    let (_root, dirs) = empty();
    opened(&dirs);
    write_log(&dirs, 3..=9, 0);
    let found = opened(&dirs);
    assert_eq!((found.last, found.floor), (Zxid(9), Zxid(3)));
    assert_eq!(found.replayed.gaps[0].cause, GapCause::Unknown { before: None });
}

/// P17j: nobody may skip a transaction that he does not know.
#[test]
fn an_unknown_transaction_type_is_refused() {
    let (_root, dirs) = empty();
    opened(&dirs);
    let path = write_log(&dirs, 1..=3, 0);
    let mut transaction = create(4);
    transaction[28..32].copy_from_slice(&77i32.to_be_bytes());
    let mut bytes = fs::read(&path).unwrap();
    let start = bytes.len();
    bytes.resize(start + transaction.len() + 13, 0);
    put_record(&mut bytes[start..], &transaction);
    fs::write(&path, bytes).unwrap();
    let error = refusal(&dirs);
    assert!(matches!(&error, RecoveryError::Transaction { zxid: Zxid(4), .. }), "{error}");
}

#[test]
fn snapshots_that_are_all_damaged_are_refused() {
    let (_root, dirs) = copy("apache-3.9.5-plain");
    for file in dirs.snapshots().unwrap() {
        let bytes = fs::read(&file.path).unwrap();
        fs::write(&file.path, &bytes[..bytes.len() - 3]).unwrap();
    }
    let error = refusal(&dirs);
    assert!(matches!(&error, RecoveryError::NoValidSnapshot { tried: 3, .. }), "{error}");
    assert!(error.to_string().contains("snapshot.242"), "{error}");
}

/// A server killed while it wrote a snapshot (RaftKeeper 240) starts from the one before.
#[test]
fn a_half_written_snapshot_is_never_taken_for_one() {
    let (_root, dirs) = copy("apache-3.9.5-plain");
    let expected = opened(&dirs).last;
    let half = dirs.snapshots.join("writing-snapshot.fff");
    fs::write(&half, fs::read(dirs.snapshots.join("snapshot.242")).unwrap()).unwrap();
    assert_eq!(opened(&dirs).last, expected);
    assert!(!half.exists());
}

/// P14: what was never committed goes, and exactly that.
#[test]
fn truncate_keeps_everything_up_to_the_given_zxid() {
    for keep in [0, 1, 4, 5, 6, 11, 14, 15] {
        let (_root, dirs) = empty();
        opened(&dirs);
        write_log(&dirs, 1..=5, 3000);
        write_log(&dirs, 6..=10, 0);
        write_log(&dirs, 11..=15, 3000);
        let last = truncate(&dirs, Zxid(keep)).unwrap();
        assert_eq!(last.unwrap_or(Zxid::ZERO), Zxid(keep), "keep {keep}");
        let recovered = opened(&dirs);
        assert_eq!((recovered.last, recovered.replayed.records), (Zxid(keep), keep as u64));
    }
}

/// P36: N verified snapshots and every log that continues the oldest of them.
#[test]
fn purge_keeps_what_a_restart_from_any_kept_snapshot_needs() {
    let (_root, dirs) = empty();
    let mut tree = Tree::new(config());
    let mut zxid = 0;
    for _ in 0..6 {
        snapshot::write(tree.image(), &dirs, SnapshotOptions::default()).unwrap();
        // Two logs between snapshots; the second goes on behind the next one, as rolling is never exact.
        for _ in 0..2 {
            write_log(&dirs, zxid + 1..=zxid + 4, 0);
            for _ in 0..4 {
                zxid += 1;
                tree.apply(&Bytes::from(create(zxid))).unwrap();
            }
        }
    }
    // Snapshots at 0, 8, 16, 24, 32, 40; 24 is damaged and does not count.
    let damaged = dirs.snapshots.join("snapshot.18");
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[40] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let purged = purge(&dirs, 1, &PurgeMark::default()).unwrap();
    assert_eq!(purged.invalid, [damaged]);
    let expected = [
        "log.11",
        "log.15",
        "log.19",
        "log.1d",
        "log.21",
        "log.25",
        "log.29",
        "log.2d",
        "snapshot.10",
        "snapshot.18",
        "snapshot.20",
        "snapshot.28",
    ];
    assert_eq!(names(&dirs.logs), expected);
    for kept in ["snapshot.28", "snapshot.20", "snapshot.18", "snapshot.10"] {
        if kept != "snapshot.18" {
            assert_eq!(opened(&dirs).last, Zxid(48));
        }
        fs::remove_file(dirs.snapshots.join(kept)).unwrap();
    }

    // Fewer verified snapshots than to be kept: nothing goes.
    let (_root, dirs) = copy("apache-3.9.5-plain");
    fs::write(dirs.snapshots.join("snapshot.16d"), b"damaged").unwrap();
    let before = names(&dirs.logs);
    assert!(purge(&dirs, 3, &PurgeMark::default()).unwrap().removed.is_empty());
    assert_eq!(names(&dirs.logs), before);
}

/// Writes the snapshot of a tree in which `/n<zxid>` was created by each of these.
fn write_snapshot(dirs: &DataDirs, zxids: impl IntoIterator<Item = i64>) {
    let mut tree = Tree::new(config());
    for zxid in zxids {
        tree.apply(&Bytes::from(create(zxid))).unwrap();
    }
    snapshot::write(tree.image(), dirs, SnapshotOptions::default()).unwrap();
}

/// Danger: behind a damaged snapshot the server goes back to an older state that no log leads on from, as after an image
/// of the leader's, and serves it.
#[test]
fn a_damaged_snapshot_is_passed_over_only_where_the_logs_lead_to_its_state() {
    let damaged = |last_before: i64, first_behind: Option<i64>, shape: &dyn Fn(&mut Vec<u8>)| {
        let (root, dirs) = empty();
        write_snapshot(&dirs, 1..=2);
        write_log(&dirs, 3..=last_before, 100);
        write_snapshot(&dirs, 1..=9);
        if let Some(first) = first_behind {
            write_log(&dirs, first..first + 5, 100);
        }
        let path = dirs.snapshots.join("snapshot.9");
        let mut bytes = fs::read(&path).unwrap();
        shape(&mut bytes);
        fs::write(path, bytes).unwrap();
        (root, dirs)
    };
    let flipped = |bytes: &mut Vec<u8>| bytes[40] ^= 1;
    let short = |bytes: &mut Vec<u8>| bytes.truncate(40);

    // The log leads to it, or beyond it.
    for (last, first_behind) in [(9, None), (9, Some(10)), (12, None)] {
        for shape in [&flipped as &dyn Fn(&mut Vec<u8>), &short] {
            let (_root, dirs) = damaged(last, first_behind, shape);
            let recovered = opened(&dirs);
            assert_eq!(recovered.skipped[0].zxid, Zxid(9));
            assert_eq!(recovered.last.0, first_behind.map_or(last, |first| first + 4));
        }
    }
    // Its server was killed while it wrote it: the log never led there.
    let (_root, dirs) = damaged(5, None, &short);
    assert_eq!(opened(&dirs).last, Zxid(5));
    // It was whole once, and is the only place where these transactions were.
    for (first_behind, shape) in [
        (None, &flipped as &dyn Fn(&mut Vec<u8>)),
        (Some(10), &flipped),
        (Some(10), &short),
        (Some(12), &flipped),
    ] {
        let (_root, dirs) = damaged(5, first_behind, shape);
        let before = names(&dirs.logs);
        let error = refusal(&dirs);
        assert!(
            matches!(&error, RecoveryError::SnapshotLost { zxid: Zxid(9), before: Zxid(5), .. }),
            "{first_behind:?}: {error}"
        );
        assert_eq!(names(&dirs.logs), before, "a refusal changes nothing");
    }
}

/// ZOOKEEPER-3642, 4925. Danger: what was logged before an image of the leader's is told to others as if it led there.
#[test]
fn history_is_not_told_across_an_image_of_another_server() {
    const EPOCH_3: i64 = 3 << 32;
    let (_root, dirs) = empty();
    let options = RecoveryOptions { told_bytes_max: u64::MAX, ..RecoveryOptions::default() };
    write_snapshot(&dirs, []);
    write_log(&dirs, 1..=5, 0);
    write_snapshot(&dirs, 1..=2);
    assert_eq!(recover(&dirs, &config(), &options).unwrap().floor, Zxid::ZERO, "its own log is told");
    // The image of a leader, and what came behind it. A directory of Apache's looks like this.
    write_snapshot(&dirs, (1..=7).chain(EPOCH_3 + 1..=EPOCH_3 + 4));
    write_log(&dirs, EPOCH_3 + 5..=EPOCH_3 + 9, 0);
    write_snapshot(&dirs, (1..=7).chain(EPOCH_3 + 1..=EPOCH_3 + 9));
    let found = recover(&dirs, &config(), &options).unwrap();
    assert_eq!((found.floor, found.last), (Zxid(EPOCH_3 + 4), Zxid(EPOCH_3 + 9)));
    assert_eq!(found.history, [(Zxid(EPOCH_3 + 5), Zxid(EPOCH_3 + 9))]);
    // And nothing of the kind stays where an image is taken over.
    snapshot::remove_superseded(&dirs, Zxid(EPOCH_3 + 9)).unwrap();
    assert_eq!(names(&dirs.logs), ["snapshot.300000009"]);
    let found = recover(&dirs, &config(), &options).unwrap();
    assert_eq!((found.floor, found.last), (Zxid(EPOCH_3 + 9), Zxid(EPOCH_3 + 9)));
}

/// A file of ours is gone, and the one behind it begins a later epoch: its mark says what came before it.
/// Danger: a learner is sent history with a hole, and may lead with it.
#[test]
fn a_lost_file_before_a_new_epoch_is_a_hole() {
    let (epoch_2, epoch_3) = (2_i64 << 32, 3_i64 << 32);
    let (_root, dirs) = empty();
    opened(&dirs);
    write_own_log(&dirs, 0, 1..=10);
    let lost = write_own_log(&dirs, 10, (11..=20).chain(epoch_2 + 1..=epoch_2 + 50));
    write_own_log(&dirs, epoch_2 + 50, epoch_3 + 1..=epoch_3 + 5);
    let mut tree = opened(&dirs).tree;
    snapshot::write(tree.image(), &dirs, SnapshotOptions::default()).unwrap();
    let told = || {
        let mut reader = LogReader::new(&dirs, Zxid(5), Zxid(epoch_3 + 5)).unwrap();
        let mut count = 0;
        while reader.next_record()?.is_some() {
            count += 1;
        }
        Ok::<_, HistoryError>(count)
    };
    assert!(matches!(told(), Ok(70)), "{:?}", told());
    fs::remove_file(&lost).unwrap();
    let found = Some(Zxid(epoch_3 + 1));
    assert!(
        matches!(told(), Err(HistoryError::Gone { after: Zxid(10), found: at }) if at == found),
        "{:?}",
        told()
    );
    let options = RecoveryOptions { told_bytes_max: u64::MAX, ..RecoveryOptions::default() };
    let recovered = recover(&dirs, &config(), &options).unwrap();
    assert_eq!(
        recovered.floor,
        Zxid(epoch_3 + 5),
        "others must not be told that its history goes back to the beginning"
    );
}
