//! Snapshot files: written from an image, found again, verified (rows P3, P5, P19-P29).
//!
//! Written on a helper thread, beside running traffic: the image is a view pinned at one zxid, so the writer of the
//! tree never waits for it. The bytes go out in bounded chunks, each made durable before the next, so that they never
//! pile up in the page cache in front of the log. The file gets its name last, when it is complete and durable: a
//! file named `snapshot.*` by us is whole (RaftKeeper 240: a half-written one was loaded after a kill).
//!
//! ```text
//! file header, 16 bytes: magic "ZKSN", int version 2, long dbid -1
//! image: sessions, ACL map, nodes, "/"
//! seal, 13 bytes: long Adler-32 of everything before, string "/"
//! and from others perhaps: long zxid, int 2, long digest, seal; long last zxid, seal
//! ```

use super::{
    compression::{Compression, Packer},
    data_dirs::{DataDirs, sync_names},
    map::FileMap,
};
use simd_adler32::Adler32;
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use zkfast_tree::{ImageError, ImageWriter, Tree, TreeConfig, image};
use zkfast_wire::Zxid;

/// First bytes of each snapshot.
pub const SNAPSHOT_HEADER: [u8; 16] = *b"ZKSN\x00\x00\x00\x02\xff\xff\xff\xff\xff\xff\xff\xff";

/// Bytes of a seal: checksum, length 1, '/'.
pub const SEAL_BYTES: usize = 13;

/// Prefix of a file that is being written.
const WRITING_PREFIX: &str = "writing-";

/// Written bytes that may wait in the page cache. 4 MiB take a disk of 200 MB/s 20 ms.
const SYNC_BYTES: u64 = 4 << 20;

/// How a snapshot is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SnapshotOptions {
    /// `snapshot.compression.method`.
    pub compression: Compression,
    /// Leave the disk to the log half of the time, and nothing in the page cache. Not while nobody is served.
    pub is_paced: bool,
    /// Append the digest trailer (P25), as Apache's default `digest.enabled=true` wants it.
    pub has_digest: bool,
}

/// A snapshot that is complete and durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// Last transaction in it.
    pub zxid: Zxid,
    /// Where it is.
    pub path: PathBuf,
    /// Plain bytes.
    pub bytes: u64,
    /// Time it took.
    pub elapsed: Duration,
    /// Whether the tree's digest, counted node by node while writing, is the one that was kept (P33).
    pub digest_agrees: bool,
}

/// Why a snapshot could not be written. The log still has everything; the server goes on.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the snapshot {}: {source}; the log keeps growing until one succeeds", path.display())]
pub struct SnapshotError {
    /// What was attempted.
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Writes `image` as `snapshot.<zxid>`. Durable on return. Blocks: call it on a helper thread.
///
/// # Errors
/// [`SnapshotError`]; no file of that name appears then.
pub fn write(
    mut image: ImageWriter,
    dirs: &DataDirs,
    options: SnapshotOptions,
) -> Result<Written, SnapshotError> {
    let started = Instant::now();
    let zxid = image.zxid();
    let name = format!("snapshot.{:x}{}", zxid.0, options.compression.suffix());
    let path = dirs.snapshots.join(&name);
    let writing = dirs.snapshots.join(format!("{WRITING_PREFIX}{name}"));
    let mut action = "write";
    let mut attempt = || {
        let bytes = put(&mut image, &writing, zxid, options)?;
        action = "rename";
        fs::rename(&writing, &path)?;
        action = "make durable the name of";
        sync_names(&dirs.snapshots)?;
        Ok(bytes)
    };
    match attempt() {
        Ok(bytes) => {
            let digest_agrees = image.digest_agrees();
            Ok(Written { zxid, path, bytes, elapsed: started.elapsed(), digest_agrees })
        }
        Err(source) => {
            let _ = fs::remove_file(&writing);
            Err(SnapshotError { action, path, source })
        }
    }
}

fn put(image: &mut ImageWriter, path: &Path, zxid: Zxid, options: SnapshotOptions) -> io::Result<u64> {
    let mut out = Output {
        packer: Packer::new(options.compression, File::create(path)?)?,
        sum: Adler32::new(),
        bytes: 0,
        unsynced_bytes: 0,
        is_paced: options.is_paced,
    };
    out.put(&SNAPSHOT_HEADER)?;
    let mut chunk = Vec::new();
    loop {
        let has_more = image.next_chunk(&mut chunk);
        out.put(&chunk)?;
        chunk.clear();
        if !has_more {
            break;
        }
    }
    out.seal()?;
    if let Some(digest) = image.digest().filter(|_| options.has_digest) {
        out.put(&zxid.0.to_be_bytes())?;
        out.put(&ImageWriter::DIGEST_VERSION.to_be_bytes())?;
        out.put(&digest.to_be_bytes())?;
        out.seal()?;
    }
    let Output { packer, bytes, .. } = out;
    packer.finish()?.sync_all()?;
    Ok(bytes)
}

struct Output {
    packer: Packer<File>,
    sum: Adler32,
    bytes: u64,
    unsynced_bytes: u64,
    is_paced: bool,
}

impl Output {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.write(bytes);
        self.packer.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        self.unsynced_bytes += bytes.len() as u64;
        if self.unsynced_bytes >= SYNC_BYTES {
            self.unsynced_bytes = 0;
            let started = Instant::now();
            self.packer.inner().sync_data()?;
            if self.is_paced {
                // The next bytes are copied into the same pages then. Fresh ones for a whole image cost more than all the
                // rest of it where the machine is virtual, and take the place of what others have cached. Only advice.
                let _ = rustix::fs::fadvise(self.packer.inner(), 0, None, rustix::fs::Advice::DontNeed);
                std::thread::sleep(started.elapsed().min(Duration::from_millis(200)));
            }
        }
        Ok(())
    }

    fn seal(&mut self) -> io::Result<()> {
        let mut seal = [0; SEAL_BYTES];
        seal[..8].copy_from_slice(&u64::from(self.sum.finish()).to_be_bytes());
        seal[8..].copy_from_slice(b"\x00\x00\x00\x01/");
        self.put(&seal)
    }
}

/// A snapshot that comes from another server, as the bare image of row Q54: it is written as it comes and gets its name
/// only when everything that it replaces is gone. Dropped before that, its file is removed.
pub struct ForeignImage {
    output: Output,
    writing: Writing,
}

/// A foreign image that is complete and durable under its temporary name.
#[derive(Debug)]
pub struct StoredImage {
    writing: Writing,
    /// Plain bytes of the file.
    pub bytes: u64,
}

/// A file under its temporary name, which goes if nobody gives it another one.
#[derive(Debug)]
struct Writing {
    path: PathBuf,
    zxid: Zxid,
}

impl Drop for Writing {
    fn drop(&mut self) {
        // It may have its final name; and what is left lying is removed at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

impl ForeignImage {
    /// Begins a file for an image of the state at `zxid`; `attempt` tells it from other attempts.
    ///
    /// # Errors
    /// What the system says.
    pub fn begin(dirs: &DataDirs, zxid: Zxid, attempt: u64) -> io::Result<Self> {
        let path = dirs.snapshots.join(format!("{WRITING_PREFIX}snapshot.{:x}.{attempt}", zxid.0));
        let mut output = Output {
            packer: Packer::new(Compression::Plain, File::create(&path)?)?,
            sum: Adler32::new(),
            bytes: 0,
            unsynced_bytes: 0,
            is_paced: false,
        };
        output.put(&SNAPSHOT_HEADER)?;
        Ok(Self { output, writing: Writing { path, zxid } })
    }

    /// Adds the next bytes of the image.
    ///
    /// # Errors
    /// What the system says; the image is of no use then.
    pub fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.put(bytes)
    }

    /// Ends the file and makes it durable.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(mut self) -> io::Result<StoredImage> {
        self.output.seal()?;
        let bytes = self.output.bytes;
        self.output.packer.finish()?.sync_all()?;
        Ok(StoredImage { writing: self.writing, bytes })
    }
}

impl StoredImage {
    /// Reads the image back into a tree, its checksum verified.
    ///
    /// # Errors
    /// [`InvalidSnapshot`].
    pub fn load(&self, config: TreeConfig) -> Result<Tree, InvalidSnapshot> {
        SnapshotFile::open_as(&self.writing.path, Compression::Plain)?.load(config, self.writing.zxid)
    }

    /// Gives it its name, durably. The log must have been cut behind its zxid before (ZOOKEEPER-2872, 3642).
    ///
    /// # Errors
    /// What the system says.
    pub fn adopt(self, dirs: &DataDirs) -> io::Result<PathBuf> {
        let path = dirs.snapshots.join(format!("snapshot.{:x}", self.writing.zxid.0));
        fs::rename(&self.writing.path, &path)?;
        sync_names(&dirs.snapshots)?;
        Ok(path)
    }
}

/// Removes every snapshot of a state above `zxid`, valid or not, durably (ZOOKEEPER-1549). Returns how many.
///
/// # Errors
/// What the system says: then some are still there, and the history must not be called cut.
pub fn remove_above(dirs: &DataDirs, zxid: Zxid) -> io::Result<usize> {
    let mut removed = 0;
    for snapshot in dirs.snapshots()?.into_iter().rev().filter(|snapshot| snapshot.zxid > zxid) {
        fs::remove_file(&snapshot.path)?;
        removed += 1;
    }
    sync_names(&dirs.snapshots)?;
    Ok(removed)
}

/// Removes every snapshot and every log but the snapshot at `zxid`, durably: what an image of another server took the
/// place of is no part of the history that it begins.
///
/// The worked failure: 1. A learner with 1:1 to 1:5 takes an image of 3:4 and logs 3:5 behind it. 2. It snapshots,
/// restarts, and reads its logs from its oldest snapshot on, to know what it can tell to others: 1:1 to 1:5, then 3:5,
/// with no gap within an epoch. 3. It is elected and sends a learner that ends at 1:5 the rest, from 3:5. Four
/// transactions are lost there for ever (ZOOKEEPER-3642, 4925).
///
/// # Errors
/// What the system says: then some are still there, and the history must not be told.
pub fn remove_superseded(dirs: &DataDirs, zxid: Zxid) -> io::Result<()> {
    // The snapshots first: a log without a snapshot before it is never told from.
    for snapshot in dirs.snapshots()?.into_iter().filter(|snapshot| snapshot.zxid != zxid) {
        remove_if_there(&snapshot.path)?;
    }
    sync_names(&dirs.snapshots)?;
    for log in dirs.logs()?.into_iter().rev() {
        remove_if_there(&log.path)?;
    }
    sync_names(&dirs.logs)
}

/// A purge may be removing the same.
fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Removes what a killed process was writing.
pub fn remove_unfinished(dirs: &DataDirs) -> io::Result<()> {
    for entry in fs::read_dir(&dirs.snapshots)? {
        let entry = entry?;
        let is_ours =
            |name: &str| name.strip_prefix(WRITING_PREFIX).is_some_and(|rest| rest.starts_with("snapshot."));
        if entry.file_name().to_str().is_some_and(is_ours) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Why a file is not a snapshot to start from.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSnapshot {
    /// It cannot be read or unpacked.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It fails the quick test (P27), as a file does that was cut short.
    #[error("it has no end mark: cut short, or never finished")]
    Unfinished,
    /// It does not begin with a snapshot's header.
    #[error("its first bytes are not ZKSN")]
    Magic,
    /// A checksum does not match.
    #[error("its checksum is {found:#x}, its bytes have {computed:#x}")]
    Checksum {
        /// In the file.
        found: u64,
        /// Of the bytes.
        computed: u64,
    },
    /// The image does not parse.
    #[error("{0}")]
    Image(#[from] ImageError),
    /// There is something else where the seal belongs.
    #[error("no seal behind the nodes")]
    Seal,
}

/// A whole snapshot file as plain bytes, its checksum verified.
pub struct SnapshotFile {
    plain: Plain,
}

enum Plain {
    Mapped(FileMap),
    Unpacked(Vec<u8>),
}

impl SnapshotFile {
    /// Opens, unpacks and verifies a snapshot.
    ///
    /// # Errors
    /// [`InvalidSnapshot`].
    pub fn open(path: &Path) -> Result<Self, InvalidSnapshot> {
        Self::open_as(path, Compression::of(path))
    }

    fn open_as(path: &Path, compression: Compression) -> Result<Self, InvalidSnapshot> {
        let file = FileMap::open(path)?;
        if !compression.looks_valid(&file) {
            return Err(InvalidSnapshot::Unfinished);
        }
        let plain = match compression {
            Compression::Plain => Plain::Mapped(file),
            packed => Plain::Unpacked(packed.unpack(&file)?),
        };
        let snapshot = Self { plain };
        let bytes = snapshot.bytes();
        // P5: version and dbid are not verified.
        if !bytes.starts_with(b"ZKSN") {
            return Err(InvalidSnapshot::Magic);
        }
        // The last seal covers all bytes before it, the other seals included.
        let seal_at = bytes.len().checked_sub(SEAL_BYTES).filter(|&at| at >= SNAPSHOT_HEADER.len());
        check_seal(bytes, seal_at.ok_or(InvalidSnapshot::Unfinished)?)?;
        Ok(snapshot)
    }

    fn bytes(&self) -> &[u8] {
        match &self.plain {
            Plain::Mapped(map) => map,
            Plain::Unpacked(bytes) => bytes,
        }
    }

    /// Plain bytes.
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Never: a valid snapshot has a header and a root.
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// Builds the tree. `zxid` comes from the file's name.
    ///
    /// # Errors
    /// [`InvalidSnapshot::Image`], [`InvalidSnapshot::Seal`], [`InvalidSnapshot::Checksum`].
    pub fn load(&self, config: TreeConfig, zxid: Zxid) -> Result<Tree, InvalidSnapshot> {
        let bytes = self.bytes();
        let (mut tree, consumed) = image::load(config, &bytes[SNAPSHOT_HEADER.len()..])?;
        let seal_at = SNAPSHOT_HEADER.len() + consumed;
        // With trailers behind it this is an inner seal; without, it was verified already.
        if seal_at + SEAL_BYTES != bytes.len() {
            check_seal(bytes, seal_at)?;
        }
        tree.set_last_applied(zxid);
        if let Some((zxid, version, digest)) = digest_trailer(&bytes[seal_at + SEAL_BYTES..]) {
            tree.expect_digest(zxid, version, digest);
        }
        Ok(tree)
    }
}

/// The digest behind the nodes' seal, if there is one (P25): zxid, version, digest. Behind it comes a seal of its own,
/// which tells it from the last zxid that may stand there instead (P26). Version 1 had a string, and is not compared.
fn digest_trailer(bytes: &[u8]) -> Option<(Zxid, i32, i64)> {
    const DIGEST_BYTES: usize = 8 + 4 + 8;
    if !bytes.get(DIGEST_BYTES..DIGEST_BYTES + SEAL_BYTES)?.ends_with(b"\x00\x00\x00\x01/") {
        return None;
    }
    let zxid = i64::from_be_bytes(*bytes.first_chunk()?);
    let version = i32::from_be_bytes(*bytes[8..].first_chunk()?);
    Some((Zxid(zxid), version, i64::from_be_bytes(*bytes[12..].first_chunk()?)))
}

fn check_seal(bytes: &[u8], at: usize) -> Result<(), InvalidSnapshot> {
    let seal = bytes.get(at..at + SEAL_BYTES).ok_or(InvalidSnapshot::Seal)?;
    if seal[8..] != *b"\x00\x00\x00\x01/" {
        return Err(InvalidSnapshot::Seal);
    }
    let found = u64::from_be_bytes(*seal.first_chunk().expect("13 bytes"));
    let computed = u64::from(super::segment::checksum(&bytes[..at]));
    if found != computed {
        return Err(InvalidSnapshot::Checksum { found, computed });
    }
    Ok(())
}
