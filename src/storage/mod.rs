//! What survives: the transaction log, snapshots, epoch files, and the road back from them.
//!
//! | room | what it is | lives on |
//! |---|---|---|
//! | `txnlog` | the append side of the log: window, flush, report | the pipeline core |
//! | `window` | the memory in which a batch is laid out | the pipeline core |
//! | `ring` | io_uring: one write in flight, one wake-up byte | the pipeline core |
//! | `disk` | the few things that a log asks of a disk, and the real one | both |
//! | `preparer` | makes, names and trims segments ahead of need | a helper thread |
//! | `segment` | the bytes of a log file: header, records, flush mark | pure |
//!
//! Promises: nothing is reported durable before its bytes *and the name of its file* are; a failed or short write is
//! never retried; what Apache ZooKeeper wrote is read, and what is written here Apache reads. This room knows nothing
//! of sockets, clients or peers, and nothing of what a znode means.

pub mod disk;
pub mod failure;
pub mod preparer;
#[allow(unsafe_code)]
pub mod ring;
pub mod segment;
pub mod txnlog;
pub mod window;

pub use failure::{LogError, LogFailure};
pub use txnlog::{Flushed, LogConfig, TxnLog};
