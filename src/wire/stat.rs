//! Node metadata: what clients see (J10) and what is stored (J11).

use crate::{
    ids::{SessionId, Zxid},
    jute::{DecodeError, Decoder},
};
use bytes::BufMut;

/// Metadata of a znode as a client sees it: 68 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stat {
    /// Transaction that created the node.
    pub czxid: Zxid,
    /// Transaction that last set its data.
    pub mzxid: Zxid,
    /// Creation, milliseconds since 1970 by the leader's clock.
    pub ctime_ms: i64,
    /// Last setData, milliseconds since 1970.
    pub mtime_ms: i64,
    /// Number of setData calls.
    pub version: i32,
    /// Number of child creations plus deletions (T9).
    pub cversion: i32,
    /// Number of setACL calls.
    pub aversion: i32,
    /// Owning session of a normal ephemeral, else 0 (T16).
    pub ephemeral_owner: SessionId,
    /// Bytes of data; 0 for null.
    pub data_length: i32,
    /// Number of children.
    pub num_children: i32,
    /// Transaction that last created or deleted a child.
    pub pzxid: Zxid,
}

impl Stat {
    /// Encoded size in bytes.
    pub const ENCODED_BYTES: usize = 68;

    /// Reads the 11 fields.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            czxid: Zxid(decoder.i64("Stat.czxid")?),
            mzxid: Zxid(decoder.i64("Stat.mzxid")?),
            ctime_ms: decoder.i64("Stat.ctime")?,
            mtime_ms: decoder.i64("Stat.mtime")?,
            version: decoder.i32("Stat.version")?,
            cversion: decoder.i32("Stat.cversion")?,
            aversion: decoder.i32("Stat.aversion")?,
            ephemeral_owner: SessionId(decoder.i64("Stat.ephemeralOwner")?),
            data_length: decoder.i32("Stat.dataLength")?,
            num_children: decoder.i32("Stat.numChildren")?,
            pzxid: Zxid(decoder.i64("Stat.pzxid")?),
        })
    }

    /// Writes the 11 fields.
    pub fn encode(&self, out: &mut impl BufMut) {
        let mut bytes = [0; Self::ENCODED_BYTES];
        let mut cursor = &mut bytes[..];
        cursor.put_i64(self.czxid.0);
        cursor.put_i64(self.mzxid.0);
        cursor.put_i64(self.ctime_ms);
        cursor.put_i64(self.mtime_ms);
        cursor.put_i32(self.version);
        cursor.put_i32(self.cversion);
        cursor.put_i32(self.aversion);
        cursor.put_i64(self.ephemeral_owner.0);
        cursor.put_i32(self.data_length);
        cursor.put_i32(self.num_children);
        cursor.put_i64(self.pzxid.0);
        out.put_slice(&bytes);
    }
}

/// Metadata of a znode as it is stored: 60 bytes on disk and in the tree digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StatPersisted {
    /// Transaction that created the node.
    pub czxid: Zxid,
    /// Transaction that last set its data.
    pub mzxid: Zxid,
    /// Creation, milliseconds since 1970.
    pub ctime_ms: i64,
    /// Last setData, milliseconds since 1970.
    pub mtime_ms: i64,
    /// Number of setData calls.
    pub version: i32,
    /// Raw number of child creations; deletions do not count (T6).
    pub cversion: i32,
    /// Number of setACL calls.
    pub aversion: i32,
    /// Session id, or the container or TTL mark (T16-T18).
    pub ephemeral_owner: i64,
    /// Transaction that last created or deleted a child.
    pub pzxid: Zxid,
}

impl StatPersisted {
    /// Encoded size in bytes.
    pub const ENCODED_BYTES: usize = 60;

    /// Reads the 9 fields.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            czxid: Zxid(decoder.i64("StatPersisted.czxid")?),
            mzxid: Zxid(decoder.i64("StatPersisted.mzxid")?),
            ctime_ms: decoder.i64("StatPersisted.ctime")?,
            mtime_ms: decoder.i64("StatPersisted.mtime")?,
            version: decoder.i32("StatPersisted.version")?,
            cversion: decoder.i32("StatPersisted.cversion")?,
            aversion: decoder.i32("StatPersisted.aversion")?,
            ephemeral_owner: decoder.i64("StatPersisted.ephemeralOwner")?,
            pzxid: Zxid(decoder.i64("StatPersisted.pzxid")?),
        })
    }

    /// The 9 fields in order.
    pub fn to_bytes(&self) -> [u8; Self::ENCODED_BYTES] {
        let mut bytes = [0; Self::ENCODED_BYTES];
        let mut cursor = &mut bytes[..];
        cursor.put_i64(self.czxid.0);
        cursor.put_i64(self.mzxid.0);
        cursor.put_i64(self.ctime_ms);
        cursor.put_i64(self.mtime_ms);
        cursor.put_i32(self.version);
        cursor.put_i32(self.cversion);
        cursor.put_i32(self.aversion);
        cursor.put_i64(self.ephemeral_owner);
        cursor.put_i64(self.pzxid.0);
        bytes
    }
}
