//! zkfast: a ZooKeeper server with a thread per core. The map of the house is `src/ARCHITECTURE.md`.
#![deny(unsafe_code)]

pub mod command;
pub mod config;
pub mod cores;
pub mod edge;
pub mod links;
pub mod ops;
pub mod pipeline;
pub mod status;
pub mod storage;
