//! What each operation of the client protocol answers, asked one by one: the rows of `tests/rows` that a random stream
//! meets too, here as examples to read.

#[path = "../peers/mod.rs"]
mod peers;

mod first_bytes;
mod operations;
mod pitfalls;
mod refusals;
mod watching;

use peers::{Client, Kind, Server, Settings};
use tempfile::TempDir;

/// A server with TTL nodes allowed, and a session.
fn start() -> (TempDir, Server, Client) {
    let home = peers::directory();
    let settings = Settings { lines: vec!["extendedTypesEnabled=true".into()], ..Settings::default() };
    let server = Server::start(Kind::under_test(), home.path(), &settings);
    let client = server.client(10_000);
    (home, server, client)
}
