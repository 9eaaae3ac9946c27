//! The order: Zab, ZooKeeper's atomic broadcast, as a pure state machine.
//!
//! [`Node::step`] takes what happened (an [`Event`]) and says what must be done about it (a list of [`Effect`]s). This
//! crate knows no socket, file, clock, thread or random number, and it never decodes a transaction: it orders bytes.
//! Durability is an event, not an assumption: nothing is acknowledged before [`Event::Durable`] told so. That is why
//! the simulator can run this very code through years of crashes in minutes.
#![forbid(unsafe_code)]

mod alone;
pub mod effect;
pub mod event;
pub mod node;
pub mod tail;

pub use effect::Effect;
pub use event::Event;
pub use node::{Node, Role};
