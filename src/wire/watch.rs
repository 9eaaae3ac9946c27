//! Watch events and modes (rows C19, OP35, OP36).

use crate::{
    error::ErrorCode,
    frame,
    ids::{Xid, Zxid},
    jute::{self, DecodeError, Decoder, Reason},
    reply::ReplyHeader,
};
use bytes::BufMut;
use std::borrow::Cow;

/// `SyncConnected`: the only state that a server sends.
pub const STATE_SYNC_CONNECTED: i32 = 3;

/// What happened to a watched path. Servers send the first four; 5-7 are made by clients for themselves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(i32)]
pub enum EventKind {
    /// The node came to be.
    NodeCreated = 1,
    /// The node went away.
    NodeDeleted = 2,
    /// setData.
    NodeDataChanged = 3,
    /// A child was created or deleted.
    NodeChildrenChanged = 4,
}

impl EventKind {
    /// The number on the wire.
    pub const fn to_i32(self) -> i32 {
        self as i32
    }

    /// The event with this number, if a server sends it.
    pub const fn from_i32(value: i32) -> Option<Self> {
        Some(match value {
            1 => Self::NodeCreated,
            2 => Self::NodeDeleted,
            3 => Self::NodeDataChanged,
            4 => Self::NodeChildrenChanged,
            _ => return None,
        })
    }
}

/// addWatch's mode (OP28).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(i32)]
pub enum AddWatchMode {
    /// The path itself, data and children.
    Persistent = 0,
    /// The path and all its descendants.
    PersistentRecursive = 1,
}

impl AddWatchMode {
    /// The mode with this number, if there is one.
    pub const fn from_i32(value: i32) -> Option<Self> {
        Some(match value {
            0 => Self::Persistent,
            1 => Self::PersistentRecursive,
            _ => return None,
        })
    }
}

/// checkWatches' and removeWatches' kind of watch (OP35).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(i32)]
pub enum WatcherKind {
    /// Left by getChildren.
    Children = 1,
    /// Left by exists or getData.
    Data = 2,
    /// Every kind and mode.
    Any = 3,
    /// Left by addWatch mode 0.
    Persistent = 4,
    /// Left by addWatch mode 1.
    PersistentRecursive = 5,
}

impl WatcherKind {
    /// The kind with this number, if there is one.
    pub const fn from_i32(value: i32) -> Option<Self> {
        Some(match value {
            1 => Self::Children,
            2 => Self::Data,
            3 => Self::Any,
            4 => Self::Persistent,
            5 => Self::PersistentRecursive,
            _ => return None,
        })
    }
}

/// The body of a notification.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatcherEvent<'a> {
    /// What happened.
    pub kind: EventKind,
    /// Connection state that the client shall assume; [`STATE_SYNC_CONNECTED`].
    pub state: i32,
    /// To which node.
    pub path: Cow<'a, str>,
}

impl<'a> WatcherEvent<'a> {
    /// Reads {type, state, path}.
    pub fn decode(decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        let at = decoder.clone();
        let kind = decoder.i32("WatcherEvent.type")?;
        Ok(Self {
            kind: EventKind::from_i32(kind)
                .ok_or_else(|| at.error("WatcherEvent.type", Reason::Value(kind.into())))?,
            state: decoder.i32("WatcherEvent.state")?,
            path: decoder.text("WatcherEvent.path")?,
        })
    }

    /// Writes {type, state, path}.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_i32(self.kind.to_i32());
        out.put_i32(self.state);
        jute::put_text(out, &self.path);
    }
}

/// Writes a whole notification frame. `zxid` is that of the triggering transaction, or -1 for an event that
/// setWatches fires (C19).
pub fn put_notification(out: &mut Vec<u8>, zxid: Zxid, kind: EventKind, path: &str) {
    frame::write(out, |out| {
        ReplyHeader { xid: Xid::NOTIFICATION, zxid, err: ErrorCode::OK }.encode(out);
        WatcherEvent { kind, state: STATE_SYNC_CONNECTED, path: Cow::Borrowed(path) }.encode(out);
    });
}
