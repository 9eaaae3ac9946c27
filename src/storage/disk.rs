//! The few things that a log asks of a disk, and the real disk that answers.
//!
//! The two traits are the lowest level of the segment writer; above them nothing knows whether a disk is real. The
//! crash tests put a simulated one here, which forgets what was not synced. With the real one both are compiled away.

use super::{
    failure::{LogError, LogFailure},
    segment::{BLOCK_BYTES, LOG_HEADER},
    window::Half,
};
use memmap2::MmapMut;
use rustix::fs::{FallocateFlags, RenameFlags};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Writes batches, one at a time. Lives on the pipeline core.
pub trait Flusher: Send {
    /// An open segment.
    type File: Clone + Send;

    /// Starts one write of the first `length` bytes of `half` at `offset` of `file`, durable when it has finished
    /// (unless the file was opened without sync).
    ///
    /// # Panics
    /// If a write is in flight.
    fn start(&mut self, file: &Self::File, offset: u64, half: Half, length: usize) -> Result<(), LogFailure>;

    /// The half and the outcome of the write in flight, once it has finished. Makes no system call.
    fn finished(&mut self) -> Result<Option<(Half, io::Result<usize>)>, LogFailure>;

    /// Adds 1 to the eventfd that wakes when the write in flight has finished (at once if there is none).
    fn wake_when_finished(&mut self) -> Result<(), LogFailure>;

    /// Waits until the write in flight has finished; returns at once if there is none.
    fn wait(&mut self) -> Result<(), LogFailure>;
}

/// Makes, names and trims segments in one directory. Lives on the helper thread.
pub trait Directory: Send + 'static {
    /// An open segment.
    type File: Clone + Send + 'static;

    /// Makes a new, empty file.
    fn create(&mut self, name: &str) -> io::Result<Self::File>;
    /// Makes sure that the first `bytes` bytes of the file have room on the disk; they read as zeros.
    fn reserve(&mut self, file: &Self::File, bytes: u64) -> io::Result<()>;
    /// Bytes that the file system has left for this process; quotas are not seen.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Writes the file header, durably.
    fn write_header(&mut self, file: &Self::File) -> io::Result<()>;
    /// Writes zeros; not durable before `sync`. Whole blocks, at most [`ZERO_CHUNK_BYTES`].
    fn write_zeros(&mut self, file: &Self::File, offset: u64, bytes: u64) -> io::Result<()>;
    /// Makes data and size of the file durable.
    fn sync(&mut self, file: &Self::File) -> io::Result<()>;
    /// Cuts the file to `bytes` bytes.
    fn trim(&mut self, file: &Self::File, bytes: u64) -> io::Result<()>;
    /// Gives a file its name. Fails if the name is taken.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Makes the names in the directory durable.
    fn sync_names(&mut self) -> io::Result<()>;
    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// Zeros are written this many bytes at a time, so that a flush never queues behind more than a fraction of a
/// millisecond of them.
pub const ZERO_CHUNK_BYTES: u64 = 256 * 1024;

/// An open log segment: the same file twice, since O_DSYNC is a property of the opening and zeros need none.
#[derive(Debug)]
pub struct SegmentFile {
    /// For batches: O_DIRECT where the file system has it, and O_DSYNC with [`Durability::Dsync`].
    pub batches: File,
    /// What makes a batch durable.
    pub durability: Durability,
    /// For zeros, trimming and sync.
    zeros: File,
}

/// What makes a batch durable.
///
/// O_DSYNC is one request to a device that writes through its cache on demand (FUA) or has none to write back. To any
/// other the kernel has to send a flush when the write is done, and does so from a worker that is bound to the CPU of
/// the interrupt; if that is the pipeline's and busy, the flush waits for the end of a time slice: 4 ms measured
/// (tuning.md, "The txlog"). There a linked fsync takes its place, which runs on whichever CPU is free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// `forceSync=no`: nothing does.
    None,
    /// The file is opened with O_DSYNC.
    Dsync,
    /// An fsync is linked to each write.
    Fsync,
}

impl Durability {
    /// What suits the device under `directory`.
    pub fn of_device(directory: &File) -> Self {
        let Ok(metadata) = directory.metadata() else { return Self::Fsync };
        let device = metadata.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let block = format!("/sys/dev/block/{major}:{minor}");
        // A partition has no queue of its own; its disk, one level up, has.
        let read = |name: &str| {
            let own = std::fs::read_to_string(format!("{block}/queue/{name}"));
            own.or_else(|_| std::fs::read_to_string(format!("{block}/../queue/{name}"))).unwrap_or_default()
        };
        let writes_through = read("fua").trim() == "1" || read("write_cache").trim() == "write through";
        if writes_through { Self::Dsync } else { Self::Fsync }
    }
}

/// The real directory of logs.
#[derive(Debug)]
pub struct LogDirectory {
    path: PathBuf,
    names: File,
    durability: Durability,
    direct: bool,
    zero_chunk: MmapMut,
}

impl LogDirectory {
    /// Opens `path`, which must exist. Without `durability`, the one that suits its device is used.
    pub fn open(path: &Path, durability: Option<Durability>) -> Result<Self, LogError> {
        let io_error = |action| move |source| LogError::Io { action, path: path.to_owned(), source };
        let names = File::open(path).map_err(io_error("open the log directory"))?;
        let zero_chunk = MmapMut::map_anon(ZERO_CHUNK_BYTES as usize).map_err(io_error("map memory"))?;
        let durability = durability.unwrap_or_else(|| Durability::of_device(&names));
        let mut directory = Self { path: path.to_owned(), names, durability, direct: true, zero_chunk };
        directory.direct = directory.probe_direct().map_err(io_error("create a file"))?;
        Ok(directory)
    }

    /// Whether batches bypass the page cache here.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Whether this file system takes O_DIRECT: tmpfs before Linux 6.6 and some overlays refuse it at open, others
    /// only at the first write.
    fn probe_direct(&mut self) -> io::Result<bool> {
        let name = "probe-direct";
        let _ = self.remove(name);
        let outcome = self.create(name).and_then(|file| self.write_header(&file));
        let _ = self.remove(name);
        match outcome {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn flags(&self, synchronous: bool) -> i32 {
        // Of libc, for rustix's DSYNC is O_SYNC, which makes the file's times durable with each write too.
        let direct = if self.direct { libc::O_DIRECT } else { 0 };
        let sync = if synchronous { libc::O_DSYNC } else { 0 };
        direct | sync
    }

    /// Removes every prepared file that an earlier process left; they were never named, so nothing in them was
    /// reported durable.
    pub fn remove_prepared(&mut self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            if let Some(name) =
                name.to_str().filter(|name| name.starts_with(super::preparer::PREPARED_PREFIX))
            {
                self.remove(name)?;
            }
        }
        Ok(())
    }
}

impl Directory for LogDirectory {
    type File = Arc<SegmentFile>;

    fn create(&mut self, name: &str) -> io::Result<Self::File> {
        let path = self.path.join(name);
        let batches = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .custom_flags(self.flags(self.durability == Durability::Dsync))
            .open(&path)?;
        let zeros = OpenOptions::new().write(true).custom_flags(self.flags(false)).open(&path)?;
        Ok(Arc::new(SegmentFile { batches, durability: self.durability, zeros }))
    }

    fn reserve(&mut self, file: &Self::File, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&file.zeros, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => Ok(()),
            // NFS, FUSE and others have no fallocate: the zeros themselves reserve the space.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                let mut offset = 0;
                while offset < bytes {
                    let chunk = ZERO_CHUNK_BYTES.min(bytes - offset);
                    self.write_zeros(file, offset, chunk)?;
                    offset += chunk;
                }
                Ok(())
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let found = rustix::fs::fstatvfs(&self.names)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn write_header(&mut self, file: &Self::File) -> io::Result<()> {
        // The chunk is borrowed for one block of header and is all zeros again before anybody else sees it.
        self.zero_chunk[..LOG_HEADER.len()].copy_from_slice(&LOG_HEADER);
        let written = file.zeros.write_all_at(&self.zero_chunk[..BLOCK_BYTES], 0);
        self.zero_chunk[..LOG_HEADER.len()].fill(0);
        written?;
        self.sync(file)
    }

    fn write_zeros(&mut self, file: &Self::File, offset: u64, bytes: u64) -> io::Result<()> {
        assert!(offset.is_multiple_of(BLOCK_BYTES as u64) && bytes.is_multiple_of(BLOCK_BYTES as u64));
        file.zeros.write_all_at(&self.zero_chunk[..bytes as usize], offset)
    }

    fn sync(&mut self, file: &Self::File) -> io::Result<()> {
        if self.durability != Durability::None { file.zeros.sync_data() } else { Ok(()) }
    }

    fn trim(&mut self, file: &Self::File, bytes: u64) -> io::Result<()> {
        file.zeros.set_len(bytes)?;
        self.sync(file)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path.join(from), self.path.join(to));
        match rustix::fs::renameat_with(rustix::fs::CWD, &from, rustix::fs::CWD, &to, RenameFlags::NOREPLACE)
        {
            // File systems without the flag (NFS and others): look first. Nobody else writes here, the lock sees to it.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                if to.try_exists()? {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                std::fs::rename(from, to)
            }
            outcome => Ok(outcome?),
        }
    }

    fn sync_names(&mut self) -> io::Result<()> {
        if self.durability != Durability::None { self.names.sync_all() } else { Ok(()) }
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }
}
