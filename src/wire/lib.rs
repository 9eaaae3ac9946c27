//! Bytes to values and back: every record that ZooKeeper clients, peers and disks exchange.
//!
//! One schema serves three readers: the client port, the learner link and the transaction log. This crate knows no
//! socket, file, clock or thread; it allocates only what a decoded value needs, never what a length field *claims*,
//! and no input makes it panic. Decoded values borrow from the bytes they came from.
#![forbid(unsafe_code)]

pub mod acl;
pub mod ensemble;
pub mod error;
pub mod frame;
#[cfg(test)]
mod golden;
pub mod handshake;
pub mod ids;
pub mod image;
pub mod jute;
pub mod multi;
pub mod op;
pub mod quorum;
pub mod reply;
pub mod request;
pub mod stat;
pub mod txn;
pub mod vote;
pub mod watch;

pub use acl::{Acl, Id, Perms};
pub use ensemble::Ensemble;
pub use error::ErrorCode;
pub use handshake::{ConnectRequest, ConnectResponse};
pub use ids::{Epoch, ServerId, SessionId, Xid, Zxid};
pub use image::ImageExtent;
pub use jute::{DecodeError, Decoder};
pub use multi::MultiResult;
pub use op::OpCode;
pub use quorum::Packet;
pub use reply::{Reply, ReplyHeader};
pub use request::{Request, RequestHeader};
pub use stat::{Stat, StatPersisted};
pub use txn::{Txn, TxnHeader};
pub use vote::Notification;
pub use watch::{EventKind, WatcherEvent};
