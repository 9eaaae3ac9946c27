//! The operations that a load is made of, and how each is written to a connection.
//!
//! Requests are written straight into the connection's out-buffer: no allocation per operation.

use bytes::BufMut;
use zkfast_wire::{
    Acl, OpCode,
    jute::{put_bool, put_buffer, put_text},
    request::MultiHeader,
};

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// What is measured as one operation.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum Operation {
            $($(#[$doc])* $name,)*
        }

        impl Operation {
            /// Every operation, in the order of the reports.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name used in mixes and reports.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

operations! {
    /// Create a node.
    Create = "create";
    /// Create a node whose name gets a sequence number.
    CreateSequential = "create-seq";
    /// Replace a value.
    Set = "set";
    /// Read a value.
    Get = "get";
    /// Read the stat of a node.
    Exists = "exists";
    /// Read the names of the children.
    Children = "children";
    /// Delete a node that this connection created.
    Delete = "delete";
    /// Several setData as one transaction.
    Multi = "multi";
    /// Create an ephemeral node, or delete the one that this connection created before.
    Ephemeral = "ephemeral";
    /// Connect, open a session, close it.
    Session = "session";
    /// Read a value and leave a watch.
    Watch = "watch";
    /// sync.
    Sync = "sync";
    /// Ping.
    Ping = "ping";
    /// From the send of a set to the arrival of its watch event.
    Event = "event";
    /// A whole step of a recipe, such as one lock taken and given back.
    Step = "step";
    /// A read that `--verify` adds; it is in no figure.
    Check = "check";
    /// The node that says whose a root is; it is in no figure.
    Claim = "claim";
}

impl Operation {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The operation of this name, if it may appear in a mix.
    pub fn in_mix(name: &str) -> Option<Self> {
        let no_part = |operation| matches!(operation, Self::Event | Self::Step | Self::Check | Self::Claim);
        Self::ALL.iter().copied().find(|operation| operation.name() == name && !no_part(*operation))
    }

    /// Whether the operation changes the tree (or the sessions).
    pub const fn is_write(self) -> bool {
        matches!(
            self,
            Self::Create
                | Self::CreateSequential
                | Self::Set
                | Self::Delete
                | Self::Multi
                | Self::Ephemeral
                | Self::Session
        )
    }
}

/// A znode's mode at creation (row OP34).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Mode {
    /// Stays until it is deleted.
    Persistent = 0,
    /// Goes with its session.
    Ephemeral = 1,
    /// Gets a sequence number.
    Sequential = 2,
    /// Both.
    EphemeralSequential = 3,
}

/// Body of create: {path, data, acl, flags}, with the open ACL.
pub fn put_create(out: &mut Vec<u8>, path: impl FnOnce(&mut Vec<u8>), data: &[u8], mode: Mode) {
    put_path(out, path);
    put_buffer(out, Some(data));
    out.put_i32(1);
    Acl::OPEN.encode(out);
    out.put_i32(mode as i32);
}

/// Body of setData with any version.
pub fn put_set(out: &mut Vec<u8>, path: impl FnOnce(&mut Vec<u8>), data: &[u8]) {
    put_path(out, path);
    put_buffer(out, Some(data));
    out.put_i32(-1);
}

/// Body of getData, exists and the two getChildren.
pub fn put_read(out: &mut Vec<u8>, path: impl FnOnce(&mut Vec<u8>), watch: bool) {
    put_path(out, path);
    put_bool(out, watch);
}

/// Body of delete with any version.
pub fn put_delete(out: &mut Vec<u8>, path: impl FnOnce(&mut Vec<u8>)) {
    put_path(out, path);
    out.put_i32(-1);
}

/// Body of addWatch: mode 0 is persistent, 1 persistent recursive.
pub fn put_add_watch(out: &mut Vec<u8>, path: &str, mode: i32) {
    put_text(out, path);
    out.put_i32(mode);
}

/// One part of a multi: its header, then whatever `body` writes.
pub fn put_multi_part(out: &mut Vec<u8>, op: OpCode, body: impl FnOnce(&mut Vec<u8>)) {
    MultiHeader { kind: op.to_i32(), done: false, err: -1 }.encode(out);
    body(out);
}

/// The end of a multi.
pub fn put_multi_end(out: &mut Vec<u8>) {
    MultiHeader::END.encode(out);
}

/// A string that `path` appends, with its length patched in front.
pub fn put_path(out: &mut Vec<u8>, path: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.put_i32(0);
    path(out);
    let length = i32::try_from(out.len() - at - 4).expect("a path is shorter than 2 GiB");
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use zkfast_wire::{Request, jute::Decoder};

    /// What we write must be what the server's decoder reads.
    #[test]
    fn bodies_decode_as_the_requests_they_mean() {
        let path = |out: &mut Vec<u8>| out.extend_from_slice(b"/a/b");
        let mut out = Vec::new();
        put_create(&mut out, path, b"xy", Mode::EphemeralSequential);
        match Request::decode(OpCode::Create, &mut Decoder::new(&out)).unwrap() {
            Request::Create(OpCode::Create, create) => {
                assert_eq!((create.path.as_ref(), create.data, create.flags), ("/a/b", Some(&b"xy"[..]), 3));
                assert_eq!(create.acl, Some(vec![Acl::OPEN]));
            }
            other => panic!("{other:?}"),
        }
        out.clear();
        put_multi_part(&mut out, OpCode::SetData, |out| put_set(out, path, b"1"));
        put_multi_part(&mut out, OpCode::Delete, |out| put_delete(out, path));
        put_multi_end(&mut out);
        match Request::decode(OpCode::Multi, &mut Decoder::new(&out)).unwrap() {
            Request::Multi(parts) => assert_eq!(parts.len(), 2),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_operation_of_a_mix_has_its_own_name() {
        assert_eq!(Operation::in_mix("create-seq"), Some(Operation::CreateSequential));
        assert_eq!(Operation::in_mix("event"), None, "an event is an effect, not something to send");
        assert_eq!(Operation::in_mix("frobnicate"), None);
    }
}
