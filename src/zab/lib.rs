//! The order: Zab, ZooKeeper's atomic broadcast, as a pure state machine.
//!
//! [`Node::step`] takes what happened (an [`Event`]) and says what must be done about it (a list of [`Effect`]s). This
//! crate knows no socket, file, clock, thread or random number, and it never decodes a transaction: it orders bytes.
//! Durability is an event, not an assumption: nothing is acknowledged before [`Event::Durable`] told so. That is why
//! the simulator can run this very code through years of crashes in minutes.
#![forbid(unsafe_code)]

mod alone;
mod catch_up;
pub mod config;
mod deadlines;
mod discovery;
pub mod effect;
pub mod election;
pub mod event;
mod leader;
mod learner;
mod member;
#[cfg(feature = "mutations")]
pub mod mutation;
pub mod node;
mod precautions;
mod progress;
pub mod quorum;
pub mod sync_plan;
pub mod tail;
pub mod tally;

pub use config::{Config, Recovered};
pub use effect::{Effect, EpochFile, Service, Trouble};
pub use event::{Event, LinkId};
#[cfg(feature = "mutations")]
pub use mutation::Mutation;
pub use node::{Learners, Node, ROLLOVER_MARGIN, Role};
pub use quorum::{Quorum, QuorumError};
pub use tail::Tail;
