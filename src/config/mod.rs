//! What the operator asked for, as plain values: `zoo.cfg`, Java-style `-D` flags, and the bounds of the server.
//!
//! Read once at start, on the main thread, then shared read-only. This room opens the configuration file, `myid` and
//! a dynamic configuration file, and nothing else; it knows no socket, no clock and no other room above `wire`.

pub mod ensemble;
pub mod error;
pub mod java_flags;
pub mod keys;
pub mod limits;
pub mod properties;
pub mod protection;
mod settings;
pub mod whitelist;
pub mod zoo_cfg;

pub use ensemble::{Ensemble, EnsembleSettings, Member, PeerAddress, PeerType};
pub use error::ConfigError;
pub use java_flags::JavaFlags;
pub use whitelist::Whitelist;
pub use zoo_cfg::ZooCfg;
