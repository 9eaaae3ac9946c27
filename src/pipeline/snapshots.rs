//! When snapshots are taken, and by whom: a helper thread writes an image that is pinned at one zxid, while
//! transactions go on (P13, P16).

use crate::{
    cores::placement::Everywhere,
    status::PipelineCounters,
    storage::{
        DataDirs,
        preparer::lacks_descriptors,
        snapshot::{self, SnapshotOptions},
    },
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use zkfast_tree::Tree;
use zkfast_wire::Zxid;

/// When a snapshot is due.
#[derive(Clone, Debug)]
pub struct SnapshotPolicy {
    /// `snapCount`: a snapshot after between half and all of this many transactions; at least 2.
    pub transactions: u64,
    /// `snapSizeLimitInKb` in bytes: after between half and all of this many bytes of log; 0 is no limit.
    pub log_bytes: u64,
    /// How it is written.
    pub snapshot: SnapshotOptions,
    /// Bytes of the snapshot with which this run began; 0 if there was none.
    pub loaded_bytes: u64,
}

/// How many times `snapCount` the replay may grow before a snapshot is taken whatever it costs.
const SNAPSHOT_DELAY_FACTOR: u64 = 5;

/// How long a snapshot for which there was no file descriptor rests before it is tried again (R6).
const FILES_RETRY: Duration = Duration::from_secs(5);

/// Counts transactions and runs one snapshot at a time.
#[derive(Debug)]
pub(super) struct Snapshots {
    policy: SnapshotPolicy,
    dirs: DataDirs,
    transactions: u64,
    log_bytes: u64,
    /// Thresholds of this round: half plus a random part, so that the servers of an ensemble do not all snapshot at once.
    transactions_due: u64,
    log_bytes_due: u64,
    random: u64,
    last: Zxid,
    /// Size of the last snapshot, bytes; 0 if there is none.
    last_bytes: Arc<AtomicU64>,
    /// The last one began then.
    begun: Instant,
    /// The last one found no file descriptor.
    lacked_files: Arc<AtomicBool>,
    counters: Arc<PipelineCounters>,
    /// Not beside the pipeline, which starts the thread.
    everywhere: Everywhere,
    running: Option<JoinHandle<()>>,
}

impl Snapshots {
    pub(super) fn new(
        policy: SnapshotPolicy,
        dirs: DataDirs,
        last: Zxid,
        counters: Arc<PipelineCounters>,
    ) -> Self {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64);
        let mut this = Self {
            dirs,
            transactions: 0,
            log_bytes: 0,
            transactions_due: 0,
            log_bytes_due: 0,
            random: seed | 1,
            last,
            last_bytes: Arc::new(AtomicU64::new(policy.loaded_bytes)),
            policy,
            begun: Instant::now(),
            lacked_files: Arc::default(),
            counters,
            everywhere: Everywhere::like_this_thread(),
            running: None,
        };
        this.draw();
        this
    }

    /// Draws the thresholds of the next round.
    fn draw(&mut self) {
        // Xorshift64: any spread will do.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let half = (self.policy.transactions / 2).max(1);
        self.transactions_due = half + self.random % half;
        self.log_bytes_due = match self.policy.log_bytes / 2 {
            0 => u64::MAX,
            half => half + self.random % half,
        };
        self.transactions = 0;
        self.log_bytes = 0;
    }

    /// Notes one more transaction of `bytes`.
    pub(super) fn count(&mut self, bytes: usize) {
        self.transactions += 1;
        self.log_bytes += bytes as u64;
    }

    /// Whether the log should roll and a snapshot begin.
    ///
    /// `snapCount` bounds the replay of a restart. On a large tree under heavy load it alone would have the server write
    /// the whole tree every second; so a snapshot also waits until the log has grown by the size of the last one (a tree
    /// that only grows is written once for each doubling), but for no more than [`SNAPSHOT_DELAY_FACTOR`] times
    /// `snapCount`, half a second of replay at the default.
    pub(super) fn is_due(&self) -> bool {
        if self.log_bytes > self.log_bytes_due {
            return true;
        }
        self.transactions > self.transactions_due
            && (self.log_bytes >= self.last_bytes.load(Ordering::Relaxed)
                || self.transactions > self.transactions_due.saturating_mul(SNAPSHOT_DELAY_FACTOR))
    }

    /// Whether to make up for one that found no file descriptor.
    pub(super) fn is_due_again(&self) -> bool {
        self.lacked_files.load(Ordering::Relaxed) && self.begun.elapsed() >= FILES_RETRY
    }

    /// Starts a snapshot of the tree as it is now, unless the previous one still runs.
    pub(super) fn take(&mut self, tree: &mut Tree) {
        self.start(tree, true);
    }

    fn start(&mut self, tree: &mut Tree, is_paced: bool) {
        self.draw();
        if self.running.as_ref().is_some_and(|running| !running.is_finished()) {
            log::info!("the previous snapshot is still being written: skipping this one");
            return;
        }
        self.join();
        self.last = tree.last_applied();
        self.begun = Instant::now();
        self.lacked_files.store(false, Ordering::Relaxed);
        let lacked_files = Arc::clone(&self.lacked_files);
        let image = tree.image();
        let dirs = self.dirs.clone();
        let counters = Arc::clone(&self.counters);
        let last_bytes = Arc::clone(&self.last_bytes);
        let options = SnapshotOptions { is_paced, ..self.policy.snapshot };
        let work = move || {
            match snapshot::write(image, &dirs, options) {
                Ok(written) => {
                    last_bytes.store(written.bytes, Ordering::Relaxed);
                    counters.snapshot_latency.record(written.elapsed.as_nanos() as u64);
                    if !written.digest_agrees {
                        log::error!(
                            "the digest of {}, counted node by node, is not the one that was kept: report this, please",
                            written.path.display()
                        );
                    }
                    log::info!(
                        "wrote {}: {} bytes in {} ms",
                        written.path.display(),
                        written.bytes,
                        written.elapsed.as_millis()
                    );
                }
                // The log still holds everything, so nothing is lost; but an operator must know.
                Err(error) => {
                    counters.snapshot_errors.increment();
                    if lacks_descriptors(&error.source) {
                        lacked_files.store(true, Ordering::Relaxed);
                        log::error!(
                            "{error}. It is tried again. Raise the limit on open files (ulimit -n, or LimitNOFILE= of \
                             its service)."
                        );
                    } else {
                        log::error!("{error}");
                    }
                }
            }
        };
        let spawned = match is_paced {
            true => self.everywhere.spawn_in_background("snapshot", work),
            false => self.everywhere.spawn("snapshot", work),
        };
        match spawned {
            Ok(running) => self.running = Some(running),
            Err(error) => log::error!("cannot start a thread for a snapshot: {error}"),
        }
    }

    /// A snapshot on an orderly stop, if there is anything that none holds yet: the next start then replays nothing.
    pub(super) fn take_last(&mut self, tree: &mut Tree) {
        self.join();
        if self.last < tree.last_applied() {
            self.start(tree, false);
            self.join();
        }
    }

    /// Size of the last snapshot, bytes; 0 if there is none.
    pub(super) fn last_bytes(&self) -> u64 {
        self.last_bytes.load(Ordering::Relaxed)
    }

    /// Another server's image of `bytes` bytes is the newest snapshot now.
    pub(super) fn adopted(&mut self, zxid: Zxid, bytes: u64) {
        self.draw();
        self.last = zxid;
        self.last_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Has a test's thread take the place of one that writes a snapshot.
    #[cfg(test)]
    pub(super) fn begin_with(&mut self, work: impl FnOnce() + Send + 'static) {
        self.running = Some(std::thread::spawn(work));
    }

    /// Waits for the snapshot that is being written, if there is one.
    pub(super) fn join(&mut self) {
        if let Some(running) = self.running.take()
            && running.join().is_err()
        {
            log::error!("the snapshot thread panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P13. Danger: the log grows without an end, or all servers of an ensemble write a snapshot at the same moment.
    #[test]
    fn a_snapshot_is_due_between_half_and_all_of_either_limit() {
        let data = tempfile::tempdir().unwrap();
        let mut thresholds = Vec::new();
        for (transactions, log_bytes) in [(1000, 0), (1_000_000, 100_000)] {
            let policy = SnapshotPolicy {
                transactions,
                log_bytes,
                snapshot: SnapshotOptions::default(),
                loaded_bytes: 0,
            };
            let dirs = DataDirs::new(data.path(), None);
            let mut snapshots = Snapshots::new(policy, dirs, Zxid::ZERO, Arc::default());
            for _ in 0..200 {
                let mut count = 0;
                while !snapshots.is_due() {
                    count += 1;
                    snapshots.count(100);
                }
                thresholds.push(count);
                snapshots.draw();
            }
        }
        // Above a threshold drawn from the upper half: 500 to 999 transactions, 50,000 to 99,999 bytes.
        assert!(thresholds[..200].iter().all(|count| (501..=1000).contains(count)), "{thresholds:?}");
        assert!(thresholds[200..].iter().all(|count| (501..=1000).contains(count)), "{thresholds:?}");
        for drawn in thresholds.chunks(200) {
            let (least, most) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
            assert!(most - least > 250, "not spread: {drawn:?}");
        }
    }

    /// Danger: the first snapshot after a restart writes a large tree anew for the sake of a short log.
    #[test]
    fn the_log_must_have_grown_by_the_loaded_image_before_the_next() {
        let data = tempfile::tempdir().unwrap();
        let check = |loaded_bytes, transactions, record_bytes, is_due| {
            let policy = SnapshotPolicy {
                transactions: 1000,
                log_bytes: 0,
                snapshot: SnapshotOptions::default(),
                loaded_bytes,
            };
            let dirs = DataDirs::new(data.path(), None);
            let mut snapshots = Snapshots::new(policy, dirs, Zxid::ZERO, Arc::default());
            (0..transactions).for_each(|_| snapshots.count(record_bytes));
            assert_eq!(snapshots.is_due(), is_due, "{loaded_bytes} {transactions} {record_bytes}");
        };
        check(0, 1000, 200, true);
        check(0, 400, 200, false);
        check(300_000, 1000, 200, false);
        check(300_000, 1500, 200, true);
        check(u64::MAX, 5000, 200, true);
    }
}
