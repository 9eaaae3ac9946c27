//! The real storage and the real tree of one server, over a disk that forgets: `TxnLog` and its helper, recovery,
//! replay, snapshots, purge, epoch files and told history, all as the server uses them.
//!
//! The log is written to the simulated disk of `support/simulated_disk.rs`, sector by sector; what a loss of power
//! leaves of it is laid into a directory, in memory where there is such a file system, and read back by the real
//! recovery. Snapshots and epoch files are written to that directory directly: their crash points are the simulator's
//! own events, before and after each step.

use crate::{
    rng::Rng,
    support::{
        simulated_disk::{Disk, Image, Random},
        simulated_log::{SimulatedLog, Sizes},
    },
};
use bytes::Bytes;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};
use zkfast::storage::{
    data_dirs::DataDirs,
    epochs,
    history::LogReader,
    purge::{PurgeMark, purge},
    recovery::{RecoveryOptions, recover},
    replay,
    snapshot::{self, ForeignImage, SnapshotOptions, StoredImage},
};
use zkfast_tree::{Tree, TreeConfig};
use zkfast_wire::{Epoch, Zxid};
use zkfast_zab::{EpochFile, Recovered, Tail};

/// Small, so that a schedule of a few hundred transactions fills several.
const SIZES: Sizes = Sizes { segment: 32 * 1024, half: 8 * 1024 };

impl SimulatedLog {
    /// Everything that the helper has to do.
    fn help_with_all(&mut self) {
        while self.serve() {}
        self.help(Instant::now());
    }

    fn append(&mut self, zxid: Zxid, record: &[u8]) {
        while !self.log.room(record.len()) {
            self.turn();
        }
        self.log.append(zxid, record);
    }

    fn turn(&mut self) {
        self.log.flush().expect("this disk does not fail");
        self.disk.complete();
        self.help_with_all();
        self.log.poll().expect("this disk does not fail");
    }

    fn complete_through(&mut self, zxid: Zxid) {
        while self.log.durable() < zxid {
            self.disk.complete();
            self.help_with_all();
            self.log.poll().expect("this disk does not fail");
            if self.log.durable() < zxid {
                self.turn();
            }
        }
    }
}

/// What recovery found.
pub struct Found {
    pub last: Zxid,
    pub history: Recovered,
}

pub struct Store {
    dirs: DataDirs,
    life: Option<SimulatedLog>,
    pub tree: Tree,
    mark: PurgeMark,
    stored: Option<StoredImage>,
    images: u64,
    /// A sabotaged installation: the image's own snapshot is to vanish too, or it would give the break away.
    hides: Option<Zxid>,
}

/// A directory for the stores of one world, gone with it.
pub struct Ground(PathBuf);

impl Ground {
    pub fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let memory = Path::new("/dev/shm");
        let below = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(below.join(format!("zkfast-sim-{}-{count}", std::process::id())))
    }

    pub fn store(&self, server: usize) -> Store {
        Store::new(&self.0.join(server.to_string()))
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn config() -> TreeConfig {
    TreeConfig { has_digests: true, ..TreeConfig::default() }
}

impl Store {
    fn new(root: &Path) -> Self {
        let dirs = DataDirs::new(root, None);
        dirs.prepare(true).expect("a directory of ours");
        let (tree, mark) = (Tree::new(config()), PurgeMark::default());
        let mut store = Self { dirs, life: None, tree, mark, stored: None, images: 0, hides: None };
        store.recover();
        store
    }

    fn life(&mut self) -> &mut SimulatedLog {
        self.life.as_mut().expect("the log is open")
    }

    // The log

    pub fn append(&mut self, zxid: Zxid, record: &[u8]) {
        self.life().append(zxid, record);
    }

    pub fn start_flush(&mut self) {
        self.life().log.flush().expect("this disk does not fail");
    }

    pub fn complete_through(&mut self, zxid: Zxid) {
        self.life().complete_through(zxid);
    }

    /// Records of the history as a learner is told them: what is durable is read from the files.
    pub fn read_history(&mut self, after: Zxid, through: Zxid) -> Vec<(Zxid, Bytes)> {
        let through = through.min(self.life().log.durable());
        if after >= through {
            return Vec::new();
        }
        let contents = self.life().disk.contents();
        self.lay_down(&contents);
        let mut reader = LogReader::new(&self.dirs, after, through).expect("a directory of ours");
        let mut records = Vec::new();
        while let Some((zxid, record)) = reader.next_record().expect("history that was promised") {
            records.push((zxid, Bytes::copy_from_slice(record)));
        }
        records
    }

    /// Everything appended is durable and in the files; none is open.
    fn shut(&mut self) {
        let life = self.life();
        let appended = life.log.appended();
        life.complete_through(appended);
        let contents = life.disk.contents();
        self.life = None;
        self.lay_down(&contents);
    }

    fn reopen(&mut self, last: Zxid) {
        self.life = Some(SimulatedLog::open(Disk::new(&self.pick_up()), last, SIZES));
    }

    fn lay_down(&self, logs: &Image) {
        for name in self.pick_up().into_keys().filter(|name| !logs.contains_key(name)) {
            fs::remove_file(self.dirs.logs.join(name)).expect("it was listed");
        }
        for (name, bytes) in logs {
            fs::write(self.dirs.logs.join(name), bytes).expect("room");
        }
    }

    fn pick_up(&self) -> Image {
        fs::read_dir(&self.dirs.logs)
            .expect("a directory of ours")
            .map(|entry| entry.expect("a directory of ours"))
            .filter_map(|entry| entry.file_name().into_string().ok().map(|name| (name, entry.path())))
            .filter(|(name, _)| name.starts_with("log.") || name.starts_with("prepared-"))
            .map(|(name, path)| (name, fs::read(path).expect("it was listed")))
            .collect()
    }

    // Crashes

    /// Power is lost: sectors of the write in flight are there or not, and so are names.
    pub fn lose_power(&mut self, rng: &mut Rng) {
        if let Some(life) = self.life.take() {
            let left = life.disk.crash(&mut Random::new(rng.next()));
            self.lay_down(&left);
        }
        // Its file stays, under its temporary name.
        std::mem::forget(self.stored.take());
    }

    /// What the next start finds; the log is open behind it, and the tree shows it.
    pub fn recover(&mut self) -> Found {
        let options = RecoveryOptions { told_bytes_max: u64::MAX, ..RecoveryOptions::default() };
        let recovered = recover(&self.dirs, &config(), &options).unwrap_or_else(|error| {
            panic!("a crash is never damage: {error}");
        });
        let zxids = recovered.history.iter().flat_map(|(first, last)| (first.0..=last.0).map(Zxid));
        let tail = Tail::with_records(recovered.floor, zxids);
        assert!(tail.appended() == recovered.last, "{} recovered, {} told", recovered.last, tail.appended());
        let read = |file| epochs::read(&self.dirs.snapshots, file).expect("epoch files are never torn");
        let (accepted_epoch, current_epoch) =
            (read(epochs::EpochFile::Accepted), read(epochs::EpochFile::Current));
        self.tree = recovered.tree;
        self.mark = PurgeMark::default();
        self.reopen(recovered.last);
        Found { last: recovered.last, history: Recovered { tail, accepted_epoch, current_epoch } }
    }

    // Epochs, snapshots

    pub fn save_epoch(&self, file: EpochFile, epoch: Epoch) {
        epochs::write(&self.dirs.snapshots, real(file), epoch).expect("room");
    }

    /// Somebody removed the file.
    pub fn lose_epoch(&self, file: EpochFile) {
        fs::remove_file(self.dirs.snapshots.join(real(file).name())).expect("a file");
    }

    /// Power was lost while the file was written.
    pub fn tear_epoch(&self, file: EpochFile) {
        let temporary = self.dirs.snapshots.join(format!("{}.tmp", real(file).name()));
        fs::write(temporary, b"").expect("room");
    }

    /// Takes a snapshot of what the tree shows, and purges what it makes needless; through which zxid.
    pub fn snapshot(&mut self) -> Zxid {
        let written =
            snapshot::write(self.tree.image(), &self.dirs, SnapshotOptions::default()).expect("room");
        assert!(written.digest_agrees, "a digest counted node by node is not the one that was kept");
        if let Some(hidden) = self.hides.take() {
            let _ = fs::remove_file(self.dirs.snapshots.join(format!("snapshot.{:x}", hidden.0)));
        }
        let contents = self.life().disk.contents();
        let first = |name: &&String| i64::from_str_radix(name.trim_start_matches("log."), 16).unwrap_or(-1);
        let open = contents.keys().max_by_key(first).cloned();
        self.lay_down(&contents);
        let purged = purge(&self.dirs, 0, &self.mark).expect("a directory of ours");
        for path in purged.removed {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            assert!(open.as_ref() != Some(&name), "the log in use was purged");
            if name.starts_with("log.") {
                self.life().disk.forget(&name);
            }
        }
        self.mark.floor()
    }

    /// The image that a learner is sent.
    pub fn image(&mut self) -> Bytes {
        let (mut image, mut bytes) = (self.tree.image(), Vec::new());
        while image.next_chunk(&mut bytes) {}
        bytes.into()
    }

    // Giving up history: the steps of `pipeline/member/install.rs`

    pub fn truncate(&mut self, zxid: Zxid) {
        self.shut();
        snapshot::remove_above(&self.dirs, zxid).expect("a directory of ours");
        replay::truncate(&self.dirs, zxid).expect("a log of ours");
        if self.tree.last_applied() > zxid {
            let found = self.recover();
            assert!(found.last == zxid, "rebuilt to {}, not to {zxid}", found.last);
        } else {
            self.reopen(zxid);
        }
    }

    /// The image has come and is durable under a temporary name.
    pub fn take_image(&mut self, zxid: Zxid, bytes: &[u8]) {
        self.images += 1;
        let mut image = ForeignImage::begin(&self.dirs, zxid, self.images).expect("room");
        image.put(bytes).expect("room");
        self.stored = Some(image.finish().expect("room"));
    }

    pub fn install_cut(&mut self, zxid: Zxid) {
        self.shut();
        replay::truncate(&self.dirs, zxid).expect("a log of ours");
    }

    pub fn install_rename(&mut self) {
        let stored = self.stored.take().expect("an image came");
        self.tree = stored.load(config()).expect("the image of a server of ours");
        stored.adopt(&self.dirs).expect("a directory of ours");
    }

    pub fn install_done(&mut self, zxid: Zxid, keeps_superseded: bool) {
        if keeps_superseded {
            self.hides = Some(zxid);
        } else {
            snapshot::remove_superseded(&self.dirs, zxid).expect("a directory of ours");
        }
        self.reopen(zxid);
    }
}

fn real(file: EpochFile) -> epochs::EpochFile {
    match file {
        EpochFile::Accepted => epochs::EpochFile::Accepted,
        EpochFile::Current => epochs::EpochFile::Current,
    }
}
