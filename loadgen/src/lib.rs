//! A load generator for servers that speak the ZooKeeper protocol.
//!
//! The map: `args` is the command line, `run` one measured run from the first connection to the report. On each core an
//! [`engine`] moves bytes for many [`link`]s and asks a load what to send: `mix` sends weighted operations at a rate or
//! in a closed loop. [`record`] holds what was measured. Of this project's crates it uses the wire crate
//! alone: it must measure any server, so it knows nothing about how ours is made.
#![forbid(unsafe_code)]

pub mod args;
pub mod chart;
pub mod claim;
pub mod client;
pub mod clock;
pub mod command;
pub mod compare;
pub mod engine;
pub mod facts;
pub mod fan_out;
pub mod find_max;
pub mod gathering;
pub mod hdr_log;
pub mod hosts;
pub mod keys;
pub mod layout;
pub mod link;
pub mod live;
pub mod missing;
pub mod mix;
pub mod operation;
pub mod page;
pub mod presence;
pub mod process;
pub mod recipe;
pub mod record;
pub mod reply;
pub mod report;
pub mod run;
pub mod scenario;
pub mod stamp;
pub mod storm;
pub mod timeline;
pub mod traffic;
pub mod units;
pub mod verify;
