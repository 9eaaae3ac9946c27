//! The append side of the log on real file systems.

use super::naive_log;
use std::{
    io::Read,
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use zkfast::storage::{Flushed, LogConfig, LogFailure, TxnLog, segment::FlushMark};
use zkfast_wire::{ErrorCode, OpCode, SessionId, Txn, TxnHeader, Zxid};

/// A transaction with this zxid and `padding` bytes behind it (readers ignore them).
fn transaction(zxid: i64, padding: usize) -> Vec<u8> {
    let header =
        TxnHeader { session: SessionId(7), cxid: 1, zxid: Zxid(zxid), time_ms: 5, kind: OpCode::Error };
    let mut out = Vec::new();
    Txn::Error(ErrorCode::NO_NODE).encode_record(&header, &mut out);
    out.extend((0..padding).map(|i| (i * 31 + zxid as usize) as u8));
    out
}

struct Fixture {
    log: TxnLog,
    wake: UnixStream,
    path: PathBuf,
    _sender: UnixStream,
    _directory: TempDir,
}

fn open_in(parent: &Path, change: impl FnOnce(&mut LogConfig)) -> Fixture {
    let directory = tempfile::tempdir_in(parent).unwrap();
    let (wake, sender) = UnixStream::pair().unwrap();
    wake.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut config = LogConfig::new(directory.path());
    config.prealloc_kib = 64;
    change(&mut config);
    let log = TxnLog::open(config, Zxid::ZERO, sender.as_raw_fd()).unwrap();
    Fixture { log, wake, path: directory.path().to_owned(), _sender: sender, _directory: directory }
}

fn open(change: impl FnOnce(&mut LogConfig)) -> Fixture {
    open_in(&std::env::temp_dir(), change)
}

/// Polls until something is reported.
fn flushed(log: &mut TxnLog) -> Flushed {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(flushed) = log.poll().unwrap() {
            return flushed;
        }
        assert!(Instant::now() < deadline, "no report");
        std::hint::spin_loop();
    }
}

fn expect_on_disk(path: &Path, transactions: &[Vec<u8>]) {
    let found = naive_log::read_all(path);
    assert_eq!(found.len(), transactions.len());
    for (found, expected) in found.iter().zip(transactions) {
        assert!(found.transaction == *expected, "zxid {:x} differs", found.zxid);
    }
}

/// A record that is reported durable must be readable by everybody else, whatever its size and place in a block.
#[test]
fn what_is_reported_is_in_the_file() {
    for parent in [std::env::temp_dir(), PathBuf::from("/dev/shm")] {
        let mut fixture = open_in(&parent, |_| {});
        let mut all = Vec::new();
        let mut reported = 0;
        for (zxid, padding) in (1..).zip([0, 1, 3000, 4096, 500, 80_000, 7, 0, 0, 1_048_000, 4052]) {
            let bytes = transaction(zxid, padding);
            assert!(fixture.log.room(bytes.len()));
            fixture.log.append(Zxid(zxid), &bytes);
            all.push(bytes);
            fixture.log.flush().unwrap();
            let flushed = flushed(&mut fixture.log);
            assert_eq!((flushed.through, flushed.records), (Zxid(zxid), 1));
            reported += flushed.bytes;
            expect_on_disk(&fixture.path, &all);
        }
        fixture.log.close().unwrap();
        expect_on_disk(&fixture.path, &all);
        let size = std::fs::metadata(fixture.path.join("log.1")).unwrap().len();
        assert_eq!(size, FlushMark::file_end(16 + reported), "trimmed to the end of its last mark");
        assert_eq!(std::fs::read_dir(&fixture.path).unwrap().count(), 1, "nothing prepared is left behind");
    }
}

/// P8: `preAllocSize` is what a log takes of the disk while it is written; behind its records are zeros.
#[test]
fn a_log_in_use_is_as_long_as_the_configuration_says() {
    const SEGMENT_BYTES: u64 = 12 << 20;
    let mut fixture = open(|config| config.prealloc_kib = SEGMENT_BYTES / 1024);
    let bytes = transaction(1, 100);
    fixture.log.append(Zxid(1), &bytes);
    fixture.log.flush().unwrap();
    flushed(&mut fixture.log);
    let file = std::fs::read(fixture.path.join("log.1")).unwrap();
    assert_eq!(file.len() as u64, SEGMENT_BYTES);
    let end = FlushMark::file_end(16 + bytes.len() as u64 + 13) as usize;
    assert!(file[end..].iter().all(|byte| *byte == 0));
    expect_on_disk(&fixture.path, &[bytes]);
}

/// Group commit: what arrives during a flush is one batch behind it, and the report covers it whole.
#[test]
fn records_that_arrive_during_a_flush_are_the_next_batch() {
    let mut fixture = open(|_| {});
    let mut all = Vec::new();
    let (mut through, mut largest) = (0, 0);
    let mut poll = |log: &mut TxnLog| {
        if let Some(flushed) = log.poll().unwrap() {
            through += flushed.records as i64;
            largest = largest.max(flushed.records);
            assert_eq!(flushed.through, Zxid(through));
        }
    };
    for zxid in 1..=20_000i64 {
        let bytes = transaction(zxid, (zxid % 300) as usize);
        while !fixture.log.room(bytes.len()) {
            fixture.log.flush().unwrap();
            poll(&mut fixture.log);
        }
        fixture.log.append(Zxid(zxid), &bytes);
        all.push(bytes);
        if zxid % 7 == 0 {
            fixture.log.flush().unwrap();
        }
        // However fast the disk is: a flush is under way until somebody looks.
        if zxid % 50 == 0 {
            poll(&mut fixture.log);
        }
    }
    assert!(largest > 7, "one flush for several batches");
    fixture.log.close().unwrap();
    expect_on_disk(&fixture.path, &all);
}

/// A lost wake-up would leave the pipeline asleep with an answer in its hands.
#[test]
fn a_sleeper_is_woken_by_every_flush() {
    let mut fixture = open(|_| {});
    for zxid in 1..=2000i64 {
        fixture.log.append(Zxid(zxid), &transaction(zxid, 100));
        fixture.log.flush().unwrap();
        if zxid % 3 == 0 {
            // Sometimes the write is over before the wake-up is armed.
            let until = Instant::now() + Duration::from_micros(150);
            while Instant::now() < until {
                std::hint::spin_loop();
            }
        }
        let mut count = [0; 8];
        while fixture.log.poll().unwrap().is_none() {
            fixture.log.arm_wake().unwrap();
            fixture.wake.read_exact(&mut count).expect("a wake-up within ten seconds");
        }
    }
    fixture.log.close().unwrap();
}

/// Segments follow one another without a gap, also when the writer is faster than the helper.
#[test]
fn a_full_segment_is_followed_by_the_next() {
    let mut fixture = open(|_| {});
    let mut all = Vec::new();
    for zxid in 1..=600i64 {
        let bytes = transaction(zxid, 60_000);
        while !fixture.log.room(bytes.len()) {
            fixture.log.flush().unwrap();
            fixture.log.poll().unwrap();
        }
        fixture.log.append(Zxid(zxid), &bytes);
        all.push(bytes);
    }
    fixture.log.settle().unwrap();
    assert!(naive_log::names(&fixture.path).len() > 1);
    expect_on_disk(&fixture.path, &all);
    fixture.log.close().unwrap();
    expect_on_disk(&fixture.path, &all);
    let used: u64 = all.iter().map(|bytes| bytes.len() as u64 + 13).sum();
    let names = naive_log::names(&fixture.path);
    let sizes: u64 = names.iter().map(|name| std::fs::metadata(fixture.path.join(name)).unwrap().len()).sum();
    let spare = sizes - used - 16 * names.len() as u64;
    assert!(spare < 2 * 4096 * names.len() as u64, "finished segments are trimmed to their last mark");
}

/// P12: after a snapshot began, its log must start in a file of its own, or purge could never remove the old one.
#[test]
fn roll_starts_a_new_file() {
    let mut fixture = open(|_| {});
    let mut zxid = 0;
    let mut all = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    while naive_log::names(&fixture.path).len() < 5 {
        assert!(Instant::now() < deadline);
        zxid += 1;
        all.push(transaction(zxid, 50));
        fixture.log.append(Zxid(zxid), all.last().unwrap());
        fixture.log.flush().unwrap();
        flushed(&mut fixture.log);
        fixture.log.roll();
    }
    fixture.log.close().unwrap();
    expect_on_disk(&fixture.path, &all);
}

/// P12: `txnLogSizeLimitInKb`. Danger: an operator who limits the files by it finds one that fills the disk, or one for each
/// transaction.
#[test]
fn a_file_that_has_its_limit_is_followed_by_another() {
    const LIMIT_BYTES: usize = 64 << 10;
    let mut fixture = open(|config| config.size_limit_kib = Some(LIMIT_BYTES as u64 / 1024));
    let (mut all, mut bytes) = (Vec::new(), 16);
    while naive_log::names(&fixture.path).len() < 2 {
        // Without a limit the second file comes behind some seven megabytes.
        assert!(all.len() < 3000, "no other file");
        let record = transaction(all.len() as i64 + 1, 1_000);
        bytes += record.len() + 13;
        fixture.log.append(Zxid(all.len() as i64 + 1), &record);
        all.push(record);
        fixture.log.flush().unwrap();
        flushed(&mut fixture.log);
        // The helper makes the next file meanwhile: it has some seconds.
        let until = Instant::now() + Duration::from_millis(if bytes < LIMIT_BYTES { 0 } else { 2 });
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    }
    fixture.log.close().unwrap();
    expect_on_disk(&fixture.path, &all);
    let first = naive_log::read(&fixture.path.join("log.1"));
    let bytes: usize = 16 + first.iter().map(|record| record.transaction.len() + 13).sum::<usize>();
    assert!(bytes >= LIMIT_BYTES, "the first file has {bytes} bytes");
}

/// A close of a session with many ephemerals is one transaction that can outgrow any window.
#[test]
fn a_record_larger_than_the_window_passes() {
    let mut fixture = open(|_| {});
    let mut all = Vec::new();
    for (zxid, padding) in (1..).zip([10, 5_000_000, 6_000_000, 20, 3_000_000, 30]) {
        let bytes = transaction(zxid, padding);
        while !fixture.log.room(bytes.len()) {
            fixture.log.flush().unwrap();
            fixture.log.poll().unwrap();
        }
        fixture.log.append(Zxid(zxid), &bytes);
        all.push(bytes);
        fixture.log.flush().unwrap();
    }
    fixture.log.close().unwrap();
    expect_on_disk(&fixture.path, &all);
}

/// P11: without sync the order stays.
#[test]
fn without_force_sync_everything_is_still_written() {
    let mut fixture = open(|config| config.force_sync = false);
    let all: Vec<_> = (1..500).map(|zxid| transaction(zxid, 200)).collect();
    for (zxid, bytes) in (1..).zip(&all) {
        fixture.log.append(Zxid(zxid), bytes);
        fixture.log.flush().unwrap();
    }
    fixture.log.settle().unwrap();
    expect_on_disk(&fixture.path, &all);
}

/// Two processes that name the same file would overwrite acknowledged records.
#[test]
fn a_taken_file_name_is_a_failure_and_nothing_is_reported() {
    let mut fixture = open(|_| {});
    std::fs::write(fixture.path.join("log.1"), b"somebody else's").unwrap();
    fixture.log.append(Zxid(1), &transaction(1, 0));
    fixture.log.flush().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let failure = loop {
        match fixture.log.poll() {
            Ok(report) => assert_eq!(report, None),
            Err(failure) => break failure,
        }
        assert!(Instant::now() < deadline);
    };
    assert!(matches!(failure, LogFailure::Segment { .. }), "{failure}");
    assert!(fixture.log.flush().is_err() && fixture.log.poll().is_err(), "failed for good");
    assert_eq!(std::fs::read(fixture.path.join("log.1")).unwrap(), b"somebody else's");
}
