//! The storage rooms against real directories.

mod naive_log;
mod txnlog;
