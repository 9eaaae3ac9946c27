//! The sockets between servers: with each other, with peers that misbehave, and with Apache ZooKeeper.

#[path = "../peers/mod.rs"]
mod peers;

mod apache;
mod fixture;
mod images;
mod learners;
mod member;
mod names;
mod votes;
