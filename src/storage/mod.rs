//! What survives: the transaction log, snapshots, epoch files, and the road back from them.
//!
//! | room | what it is | lives on |
//! |---|---|---|
//! | `txnlog` | the append side of the log: window, flush, report | the pipeline core |
//! | `window` | the memory in which a batch is laid out | the pipeline core |
//! | `ring` | io_uring: one write in flight, one wake-up | the pipeline core |
//! | `writer` | makes long writes while the pipeline goes on | a helper thread |
//! | `disk` | the few things that a log asks of a disk, and the real one | both |
//! | `preparer` | makes, names and trims segments ahead of need | a helper thread |
//! | `segment`, `records`, `tail` | the bytes of a log file, and what its end means | pure |
//! | `history` | reads the logs while the server runs, for learners | helpers |
//! | `replay` | reads the logs back, cuts a torn tail, truncates | before serving |
//! | `snapshot`, `compression` | writes, finds and verifies snapshots | a helper thread |
//! | `recovery` | newest valid snapshot and the log behind it | before serving |
//! | `purge`, `epochs`, `lock`, `data_dirs` | the rest of a data directory | helpers |
//! | `map` | files mapped for reading | whoever reads |
//!
//! Promises: nothing is reported durable before its bytes *and the name of its file* are; a failed or short write is
//! never retried; what Apache ZooKeeper wrote is read, and what is written here Apache reads. This room knows nothing
//! of sockets, clients or peers, and nothing of what a znode means.

pub mod compression;
pub mod data_dirs;
pub mod disk;
pub mod epochs;
pub mod failure;
pub mod history;
pub mod lock;
#[allow(unsafe_code)]
pub mod map;
pub mod preparer;
pub mod purge;
pub mod records;
pub mod recovery;
pub mod replay;
#[allow(unsafe_code)]
pub mod ring;
pub mod segment;
pub mod snapshot;
pub mod tail;
pub mod txnlog;
pub mod window;
mod writer;

pub use data_dirs::DataDirs;
pub use failure::{LogError, LogFailure};
pub use txnlog::{Flushed, LogConfig, TxnLog};
