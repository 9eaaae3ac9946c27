//! What a durable flush costs: p50 and p99 of making N more bytes durable, one flush after the other.
//!
//! The window (what the server does: one io_uring write, O_DIRECT, into a segment prepared ahead, with O_DSYNC or a linked
//! fsync), with the writer polling and with the writer asleep until it is woken; and for comparison a store through a file mapping
//! and a `pwrite`, each with `fdatasync`, into a zero-written segment. The ways are interleaved, so that the machine's
//! noise meets all of them. `cargo bench --bench txlog_flush [-- DIRECTORY]`; the directory must lie on a disk.

use hdrhistogram::Histogram;
use memmap2::MmapMut;
use std::{
    fs::File,
    io::Read,
    os::{fd::AsRawFd, unix::fs::FileExt, unix::net::UnixStream},
    path::{Path, PathBuf},
    time::Instant,
};
use zkfast::storage::{LogConfig, TxnLog, disk::Durability};
use zkfast_wire::Zxid;

const SIZES: [usize; 4] = [200, 4096, 20_000, 128 * 1024];
/// Flushes of each way and size, in rounds.
const ROUNDS: usize = 20;
const FLUSHES_PER_ROUND: usize = 60;
const SEGMENT_BYTES: usize = 64 << 20;

/// A way to make bytes durable.
trait Way {
    fn name(&self) -> &'static str;
    fn flush(&mut self, record: &[u8]);
}

/// The server's log.
struct Window {
    log: TxnLog,
    zxid: i64,
    wake: UnixStream,
    _sender: UnixStream,
    sleeps: bool,
    durability: Durability,
}

impl Window {
    fn new(directory: PathBuf, durability: Durability, sleeps: bool) -> Self {
        std::fs::create_dir_all(&directory).expect("a writable directory");
        let (wake, sender) = UnixStream::pair().expect("a socket pair");
        let config = LogConfig::new(directory);
        let log = TxnLog::open_with(config, Some(durability), Zxid::ZERO, sender.as_raw_fd()).expect("a log");
        Self { log, zxid: 0, wake, _sender: sender, sleeps, durability }
    }
}

impl Way for Window {
    fn name(&self) -> &'static str {
        match (self.durability, self.sleeps) {
            (Durability::Dsync, false) => "window, O_DSYNC, polling",
            (Durability::Dsync, true) => "window, O_DSYNC, asleep",
            (_, false) => "window, fsync, polling",
            (_, true) => "window, fsync, asleep",
        }
    }

    fn flush(&mut self, record: &[u8]) {
        self.zxid += 1;
        self.log.append(Zxid(self.zxid), record);
        self.log.flush().expect("a disk that works");
        while self.log.poll().expect("a disk that works").is_none() {
            if self.sleeps {
                self.log.arm_wake().expect("a ring that works");
                self.wake.read_exact(&mut [0; 8]).expect("a wake-up");
            }
        }
    }
}

fn zeroed_file(path: &Path) -> File {
    let file = File::options().read(true).write(true).create_new(true).open(path).expect("a new file");
    let zeros = vec![0; 1 << 20];
    for offset in (0..SEGMENT_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, offset as u64).expect("space for a segment");
    }
    file.sync_all().expect("a disk that works");
    file
}

struct MappedFile {
    file: File,
    map: MmapMut,
    tail: usize,
}

impl MappedFile {
    fn new(path: &Path) -> Self {
        let file = zeroed_file(path);
        // SAFETY: nobody else has this new file; it is not cut while it is mapped.
        let map = unsafe { MmapMut::map_mut(&file) }.expect("a mapping");
        Self { file, map, tail: 0 }
    }
}

impl Way for MappedFile {
    fn name(&self) -> &'static str {
        "mmap + fdatasync"
    }

    fn flush(&mut self, record: &[u8]) {
        if self.tail + record.len() > SEGMENT_BYTES {
            self.tail = 0;
        }
        self.map[self.tail..self.tail + record.len()].copy_from_slice(record);
        self.tail += record.len();
        self.file.sync_data().expect("a disk that works");
    }
}

struct WrittenFile {
    file: File,
    tail: usize,
}

impl Way for WrittenFile {
    fn name(&self) -> &'static str {
        "pwrite + fdatasync"
    }

    fn flush(&mut self, record: &[u8]) {
        if self.tail + record.len() > SEGMENT_BYTES {
            self.tail = 0;
        }
        self.file.write_all_at(record, self.tail as u64).expect("a disk that works");
        self.tail += record.len();
        self.file.sync_data().expect("a disk that works");
    }
}

fn main() {
    let parent =
        std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_else(|| ".".into());
    let directory = tempfile::tempdir_in(parent).expect("a writable directory");
    println!("p50 / p99 in us of a durable flush of N bytes; {} flushes each", ROUNDS * FLUSHES_PER_ROUND);
    for size in SIZES {
        let at = directory.path().join(size.to_string());
        let mut ways: Vec<Box<dyn Way>> = vec![
            Box::new(Window::new(at.join("dsync-polling"), Durability::Dsync, false)),
            Box::new(Window::new(at.join("dsync-asleep"), Durability::Dsync, true)),
            Box::new(Window::new(at.join("fsync-polling"), Durability::Fsync, false)),
            Box::new(Window::new(at.join("fsync-asleep"), Durability::Fsync, true)),
            Box::new(MappedFile::new(&at.join("mapped"))),
            Box::new(WrittenFile { file: zeroed_file(&at.join("written")), tail: 0 }),
        ];
        let record: Vec<u8> = (0..size - 13).map(|index| (index % 251) as u8).collect();
        let mut histograms = vec![Histogram::<u64>::new(3).expect("3 digits"); ways.len()];
        // Let the helpers finish the segments ahead, as they have in a server that runs for a second.
        std::thread::sleep(std::time::Duration::from_secs(1));
        for round in 0..=ROUNDS {
            for (way, histogram) in ways.iter_mut().zip(&mut histograms) {
                for _ in 0..FLUSHES_PER_ROUND {
                    let started = Instant::now();
                    way.flush(&record);
                    // The first round warms up.
                    if round > 0 {
                        let elapsed_ns = started.elapsed().as_nanos() as u64;
                        histogram.record(elapsed_ns).expect("it resizes itself");
                    }
                }
            }
        }
        for (way, histogram) in ways.iter().zip(&histograms) {
            let us = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
            println!("{size:>7} B  {:<24} {:>7.0} / {:>7.0}", way.name(), us(0.5), us(0.99));
        }
    }
}
