//! The storage rooms against real directories.

mod golden;
mod naive_log;
mod naive_snapshot;
mod recovery;
mod txnlog;
