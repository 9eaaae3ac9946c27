//! Power cuts: whatever subset of the unsynced bytes reaches the disk, no acknowledged record is lost and the server
//! starts again.
//!
//! The real log (`TxnLog`, `Preparer`) runs over a simulated disk that remembers what was synced. At random moments the
//! power fails; directory images are built from the synced bytes, a random subset of the 512-byte sectors of the write
//! in flight, and a random prefix of the unsynced changes of names and sizes. Each image is recovered by the real
//! recovery, part of which is interrupted once; one image of each crash is carried on with, so that torn tails, cuts
//! and reused zxids of several generations pile up in one directory.
//!
//! `ZKFAST_CRASH_IMAGES=1000000 cargo test --release --test crash_images` for longer runs;
//! `ZKFAST_CRASH_SEED=n` repeats one seed.

mod support {
    pub mod simulated_disk;
    pub mod simulated_log;
}

use std::{collections::BTreeMap, fs, io, path::Path, time::Instant};
use support::{
    simulated_disk::{Disk, Image, Random},
    simulated_log::{SimulatedLog, Sizes},
};
use zkfast::storage::{
    LogFailure,
    data_dirs::DataDirs,
    replay::{ReplayError, repair, replay},
};
use zkfast_wire::{ErrorCode, OpCode, SessionId, Txn, TxnHeader, Zxid};

const SIZES: Sizes = Sizes { segment: 64 * 1024, half: 16 * 1024 };

/// What was appended, and how much of it was acknowledged.
#[derive(Clone, Default)]
struct Truth {
    appended: BTreeMap<i64, Vec<u8>>,
    acknowledged: i64,
}

/// The log of one life of a server, between two power cuts.
fn open(image: &Image, last: i64) -> SimulatedLog {
    SimulatedLog::open(Disk::new(image), Zxid(last), SIZES)
}

impl SimulatedLog {
    fn append(&mut self, random: &mut Random, truth: &mut Truth) {
        let zxid = self.log.appended().0 + 1;
        let bytes = transaction(zxid, random);
        if self.log.room(bytes.len()) {
            self.log.append(Zxid(zxid), &bytes);
            truth.appended.insert(zxid, bytes);
        }
    }

    fn poll(&mut self, truth: &mut Truth) -> Result<(), LogFailure> {
        if let Some(flushed) = self.log.poll()? {
            assert!(flushed.through.0 > truth.acknowledged);
            truth.acknowledged = flushed.through.0;
        }
        Ok(())
    }

    /// One random thing happens.
    fn turn(&mut self, random: &mut Random, truth: &mut Truth) -> Result<(), LogFailure> {
        match random.below(16) {
            0..=5 => self.append(random, truth),
            6..=8 => self.log.flush()?,
            9..=10 => self.disk.complete(),
            11..=12 => self.poll(truth)?,
            13..=14 => self.help(Instant::now()),
            _ if random.below(8) == 0 => self.log.roll(),
            _ => {}
        }
        Ok(())
    }
}

fn transaction(zxid: i64, random: &mut Random) -> Vec<u8> {
    let header = TxnHeader {
        session: SessionId(random.next() as i64),
        cxid: 1,
        zxid: Zxid(zxid),
        time_ms: 5,
        kind: OpCode::Error,
    };
    let mut out = Vec::new();
    Txn::Error(ErrorCode::NO_NODE).encode_record(&header, &mut out);
    let padding = match random.below(20) {
        0..=9 => random.below(200),
        10..=15 => random.below(1200),
        16..=18 => random.below(6000),
        _ => random.below(3 * SIZES.half as u64),
    };
    let is_zeros = random.below(6) == 0;
    out.extend((0..padding).map(|_| if is_zeros { 0 } else { random.next() as u8 }));
    out
}

fn write_image(image: &Image, path: &Path) {
    let _ = fs::remove_dir_all(path);
    fs::create_dir_all(path).unwrap();
    for (name, bytes) in image {
        fs::write(path.join(name), bytes).unwrap();
    }
}

fn read_image(path: &Path) -> Image {
    fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

/// Recovers the image in `path` and compares with the truth; returns the last zxid.
fn recover(dirs: &DataDirs, truth: &Truth, random: &mut Random) -> i64 {
    let read = || {
        replay::<ReplayError>(dirs, Zxid::ZERO, |place| {
            let expected = truth.appended.get(&place.zxid.0).expect("nothing is invented");
            assert!(expected == place.transaction, "zxid {} is not what was appended", place.zxid);
            Ok(())
        })
        .unwrap_or_else(|error| {
            for log in dirs.logs().unwrap() {
                let bytes = fs::read(&log.path).unwrap();
                let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
                eprintln!("{}: {} bytes, {used} used", log.path.display(), bytes.len());
            }
            panic!("a crash is never damage: {error}")
        })
    };
    let first = read();
    assert!(
        first.last.0 >= truth.acknowledged,
        "recovered {}, acknowledged {:x}",
        first.last,
        truth.acknowledged
    );
    assert_eq!(first.records, first.last.0 as u64, "none is missing");
    // The power fails again in the middle of the repair.
    let mut interrupted = first.clone();
    interrupted.repairs.truncate(random.below(interrupted.repairs.len() as u64 + 1) as usize);
    repair(dirs, &interrupted).unwrap();
    let second = read();
    assert_eq!((second.last, second.records), (first.last, first.records));
    repair(dirs, &second).unwrap();
    let third = read();
    assert_eq!((third.last, third.repairs), (first.last, vec![]), "a repaired directory needs no repair");
    third.last.0
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs one seed: several lives in one directory. Returns the number of images checked.
fn run(seed: u64, root: &Path) -> u64 {
    let mut random = Random::new(seed);
    let mut truth = Truth::default();
    let mut image = Image::new();
    let mut last = 0;
    let mut images = 0;
    // The directory of a server: `version-2` below a root.
    let dirs = DataDirs::new(root, None);
    for _ in 0..1 + random.below(5) {
        let mut life = open(&image, last);
        for _ in 0..random.below(400) {
            life.turn(&mut random, &mut truth).unwrap();
        }
        for _ in 0..4 {
            image = life.disk.crash(&mut random);
            write_image(&image, &dirs.logs);
            last = recover(&dirs, &truth, &mut random);
            images += 1;
        }
        image = read_image(&dirs.logs);
        // What was not recovered never happened; its zxids are given out again.
        truth.appended.split_off(&(last + 1));
        truth.acknowledged = last;
    }
    images
}

#[test]
fn no_acknowledged_record_is_lost_in_any_crash_image() {
    let root = tempfile::tempdir_in(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "." }).unwrap();
    if let Some(seed) = number("ZKFAST_CRASH_SEED") {
        run(seed, root.path());
        return;
    }
    let wanted = number("ZKFAST_CRASH_IMAGES").unwrap_or(10_000);
    let (mut seed, mut images) = (0, 0);
    while images < wanted {
        let outcome = std::panic::catch_unwind(|| run(seed, root.path()));
        match outcome {
            Ok(checked) => images += checked,
            Err(panic) => {
                eprintln!("ZKFAST_CRASH_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
        seed += 1;
    }
}

/// After a failed or a short write nothing more may be reported, ever: what the disk holds is unknown (ATC'20).
#[test]
fn a_failed_or_short_write_is_fatal_and_never_retried() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut truth = Truth::default();
        let mut life = open(&Image::new(), 0);
        let fatal_write = 1 + random.below(20);
        let is_short = random.below(2) == 0;
        life.disk.fail_write(fatal_write, is_short);
        let failure = (0..5000).find_map(|_| life.turn(&mut random, &mut truth).err());
        let failure = failure.expect("the fault was met");
        for _ in 0..100 {
            let _ = life.turn(&mut random, &mut truth);
            assert!(life.log.flush().is_err() && life.log.poll().is_err(), "failed for good");
        }
        let expected = match &failure {
            LogFailure::Short { written, length, .. } => is_short && written < length,
            LogFailure::Write { source, .. } => !is_short && source.raw_os_error() == Some(5),
            _ => false,
        };
        assert!(expected, "seed {seed}: {failure}");
        assert_eq!(life.disk.writes_started(), fatal_write, "seed {seed}: no write after the failed one");
    }
}

/// A full disk is met before it happens: writes can be refused while there is still room for what is under way.
#[test]
fn a_full_disk_is_reported_ahead_and_forgotten_when_there_is_space_again() {
    let mut random = Random::new(1);
    let mut truth = Truth::default();
    let mut life = open(&Image::new(), 0);
    life.disk.set_full(true);
    life.help(Instant::now());
    assert!(life.log.space_is_low());
    for _ in 0..50 {
        life.append(&mut random, &mut truth);
        life.log.flush().unwrap();
        life.disk.complete();
        while life.serve() {}
        life.poll(&mut truth).unwrap();
    }
    assert!(truth.acknowledged >= 20, "the segment in use still has its space");
    life.disk.set_full(false);
    life.help(Instant::now() + std::time::Duration::from_secs(1));
    assert!(!life.log.space_is_low());
}

/// A rename or directory sync that fails: the records are on the disk, but nobody would find them.
#[test]
fn a_segment_that_cannot_be_named_is_fatal() {
    let mut random = Random::new(2);
    let mut truth = Truth::default();
    let mut life = open(&Image::new(), 0);
    life.disk.fail_names();
    life.append(&mut random, &mut truth);
    life.log.flush().unwrap();
    life.disk.complete();
    life.help(Instant::now());
    let failure = life.poll(&mut truth).unwrap_err();
    assert!(
        matches!(&failure, LogFailure::Segment { source, .. } if source.kind() == io::ErrorKind::Other),
        "{failure}"
    );
    assert_eq!(truth.acknowledged, 0);
}
