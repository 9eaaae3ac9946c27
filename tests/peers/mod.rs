//! The peers of the integration tests: a server of either kind, a client that speaks raw bytes, and the tools
//! (Python with kazoo, javac and java with Debian's ZooKeeper jars, `cli_mt`) that drive unchanged clients.
//!
//! The tests run against zkfast. With `ZKFAST_UNDER_TEST=apache` in the environment they run against Apache
//! ZooKeeper instead: a test that fails there is wrong about ZooKeeper, not about zkfast.
#![allow(dead_code, unused_imports, reason = "each test binary uses its part of this module")]

pub mod client;
pub mod dice;
pub mod script;
pub mod server;
pub mod tree;

pub use client::{Client, Handshake, Incoming, Refusal};
pub use dice::Dice;
pub use server::{Kind, Server, Settings};

/// How long an event that must come may take before the test says that it did not come. Never how long a test takes.
pub const DEADLINE: std::time::Duration = std::time::Duration::from_secs(30);

/// A fresh directory for one test, removed at its end.
pub fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("zkfast-test-").tempdir().expect("a temporary directory")
}
