//! What can go wrong with the log, by name.
//!
//! [`LogError`] is met while opening: the operator can act, so each says what, why and what to do. [`LogFailure`] is
//! met while running: the process ends, because what the disk holds is no longer known (ATC'20, "Can Applications
//! Recover from fsync Failures?": after a failed write the cache may look fine while the medium is not).

use std::{io, path::PathBuf, sync::Arc};

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The kernel refuses io_uring altogether.
    #[error(
        "io_uring is refused by this kernel or sandbox ({source}): zkfast writes its log through io_uring. Allow the \
         io_uring_setup, io_uring_enter and io_uring_register system calls (container: a seccomp profile that has \
         them; host: sysctl kernel.io_uring_disabled=0), or use Linux 5.11 or newer"
    )]
    RingRefused {
        /// EPERM (seccomp, sysctl) or ENOSYS (kernel too old).
        source: io::Error,
    },
    /// The ring's memory does not fit into RLIMIT_MEMLOCK (kernels before 5.12 count it there).
    #[error(
        "not enough lockable memory for the log's io_uring ring ({source}): raise RLIMIT_MEMLOCK, for example \
         `ulimit -l 65536`, systemd LimitMEMLOCK=64M, docker --ulimit memlock=67108864"
    )]
    LockedMemory {
        /// ENOMEM.
        source: io::Error,
    },
    /// The ring could not be set up for another reason.
    #[error("cannot set up the log's io_uring ring: {source}; check the limits on open files and memory")]
    Ring {
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no room for the first segment.
    #[error(
        "no space for a log segment of {bytes} bytes in {}: {source}; free space there (zkCleanup.sh removes old \
         snapshots and logs)",
        path.display()
    )]
    NoSpace {
        /// The log directory.
        path: PathBuf,
        /// Bytes that were asked for.
        bytes: u64,
        /// ENOSPC or EDQUOT.
        source: io::Error,
    },
    /// The limit on the size of a file is below a segment.
    #[error(
        "a log segment of {bytes} bytes is not allowed in {}: {source}; raise the limit on file sizes (ulimit -f, \
         LimitFSIZE= of its service) or set a smaller preAllocSize",
        path.display()
    )]
    TooLarge {
        /// The log directory.
        path: PathBuf,
        /// Bytes that were asked for.
        bytes: u64,
        /// EFBIG.
        source: io::Error,
    },
    /// A file operation failed.
    #[error("cannot {action} in {}: {source}; check that the directory exists and is writable", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The log directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The helper thread could not be started.
    #[error("cannot start the log's helper thread: {source}; check the limit on processes and threads")]
    Helper {
        /// What the system said.
        source: io::Error,
    },
}

/// Why the log can no longer be trusted. Fatal: the process must end and nothing more may be acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogFailure {
    /// A write failed.
    #[error("writing {length} bytes at {offset} of {file} failed: {source}")]
    Write {
        /// Name of the segment.
        file: String,
        /// Byte offset of the write.
        offset: u64,
        /// Its length in bytes.
        length: usize,
        /// What the kernel said.
        source: Arc<io::Error>,
    },
    /// A write ended early.
    #[error("only {written} of {length} bytes were written at {offset} of {file}")]
    Short {
        /// Name of the segment.
        file: String,
        /// Byte offset of the write.
        offset: u64,
        /// Bytes asked for.
        length: usize,
        /// Bytes written.
        written: usize,
    },
    /// The ring itself failed.
    #[error("the log's io_uring ring failed to {action}: {source}")]
    Ring {
        /// What was attempted.
        action: &'static str,
        /// What the kernel said.
        source: Arc<io::Error>,
    },
    /// The helper could not name, trim or make a segment.
    #[error("cannot {action} {file}: {source}")]
    Segment {
        /// What was attempted.
        action: &'static str,
        /// Name of the file.
        file: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The helper thread is gone.
    #[error("the log's helper thread ended")]
    HelperGone,
}
