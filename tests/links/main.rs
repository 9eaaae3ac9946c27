//! The sockets between servers: with each other, with peers that misbehave, and with Apache ZooKeeper.

#[path = "../peers/mod.rs"]
mod peers;

mod fixture;
mod learners;
mod votes;
