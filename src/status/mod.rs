//! The server in numbers, and those numbers in the words that ZooKeeper's tools know.
//!
//! [`counters`] are written by the core that owns them and read by any; [`picture`] is a plain value put together from
//! them when somebody asks; [`four_letter`] turns a picture into text. Nothing here knows a socket.

pub mod board;
pub mod calendar;
pub mod counters;
pub mod environment;
pub mod four_letter;
pub mod gather;
pub mod histogram;
pub mod links;
pub mod metrics;
pub mod picture;
pub mod version;

pub use board::Board;
pub use counters::{CoreCounters, PipelineCounters};
pub use histogram::{Histogram, Reading};
pub use links::LinksFigures;
pub use picture::Picture;
