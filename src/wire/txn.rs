//! Transactions: what the log stores, what a leader proposes and what every replica applies (rows P7, P17-P17j).
//!
//! `TxnHeader` (32 bytes), a body whose shape its type names, and optionally a [`TxnDigest`]. A transaction is encoded
//! once, by the server that proposes it; from then on log, peers and apply step read those same bytes.

use crate::{
    acl::Acl,
    error::ErrorCode,
    ids::{SessionId, Zxid},
    jute::{self, DecodeError, Decoder, Reason},
    op::OpCode,
};
use bytes::BufMut;
use std::borrow::Cow;

/// The first 32 bytes of each transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxnHeader {
    /// Session that asked; 0 for the server's own.
    pub session: SessionId,
    /// The request's xid in that session.
    pub cxid: i32,
    /// Place in the total order.
    pub zxid: Zxid,
    /// Leader's wall clock, milliseconds since 1970 (T15).
    pub time_ms: i64,
    /// Shape of the body.
    pub kind: OpCode,
}

impl TxnHeader {
    /// Encoded size in bytes.
    pub const ENCODED_BYTES: usize = 32;

    /// Reads the five fields. An unknown type is an error: nobody may skip a transaction (P17j).
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let session = SessionId(decoder.i64("TxnHeader.clientId")?);
        let cxid = decoder.i32("TxnHeader.cxid")?;
        let zxid = Zxid(decoder.i64("TxnHeader.zxid")?);
        let time_ms = decoder.i64("TxnHeader.time")?;
        let kind = decode_kind(decoder, "TxnHeader.type")?;
        Ok(Self { session, cxid, zxid, time_ms, kind })
    }

    /// The time alone of a record that begins with a header; `None` if that is cut short.
    pub fn time_of(record: &[u8]) -> Option<i64> {
        // Behind session, cxid and zxid.
        record.get(20..28).and_then(|bytes| bytes.try_into().ok()).map(i64::from_be_bytes)
    }

    /// Writes the five fields.
    pub fn encode(&self, out: &mut impl BufMut) {
        let mut bytes = [0; Self::ENCODED_BYTES];
        let mut cursor = &mut bytes[..];
        cursor.put_i64(self.session.0);
        cursor.put_i32(self.cxid);
        cursor.put_i64(self.zxid.0);
        cursor.put_i64(self.time_ms);
        cursor.put_i32(self.kind.to_i32());
        out.put_slice(&bytes);
    }
}

fn decode_kind(decoder: &mut Decoder<'_>, expected: &'static str) -> Result<OpCode, DecodeError> {
    let at = decoder.clone();
    let value = decoder.i32(expected)?;
    OpCode::from_i32(value).ok_or_else(|| at.error(expected, Reason::Value(value.into())))
}

/// Body of create and create2 (P17), container and TTL creations (P17b).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateTxn<'a> {
    /// Final path, sequence number included.
    pub path: Cow<'a, str>,
    /// Data; null is kept as null (T5).
    pub data: Option<&'a [u8]>,
    /// Access control list after fix-up.
    pub acl: Vec<Acl<'a>>,
    /// The parent's raw cversion after this creation; -1 in logs of 3.3 and before: count up by one.
    pub parent_cversion: i32,
    /// Which creation, with what only it carries.
    pub mode: CreateTxnMode,
}

/// The transaction types that create a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CreateTxnMode {
    /// create (1): owned by the header's session if `ephemeral`.
    Create {
        /// Owned by the session of the header.
        ephemeral: bool,
    },
    /// create2 (15): the same, the reply has a stat.
    Create2 {
        /// Owned by the session of the header.
        ephemeral: bool,
    },
    /// createContainer (19).
    Container,
    /// createTTL (21).
    Ttl {
        /// Time to live, milliseconds.
        ttl_ms: i64,
    },
}

/// A transaction body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Txn<'a> {
    /// create, create2, createContainer, createTTL.
    Create(CreateTxn<'a>),
    /// delete (2).
    Delete {
        /// Node to remove.
        path: Cow<'a, str>,
    },
    /// deleteContainer (20), by the reaper.
    DeleteContainer {
        /// Node to remove.
        path: Cow<'a, str>,
    },
    /// setData (5).
    SetData(SetDataTxn<'a>),
    /// reconfig (16): setData of /zookeeper/config.
    Reconfig(SetDataTxn<'a>),
    /// setACL (7).
    SetAcl {
        /// Node.
        path: Cow<'a, str>,
        /// The new list.
        acl: Vec<Acl<'a>>,
        /// The new aversion.
        version: i32,
    },
    /// check (13), only inside a multi; ignored on apply.
    Check {
        /// Node.
        path: Cow<'a, str>,
        /// The checked version + 1.
        version: i32,
    },
    /// createSession (-10).
    CreateSession {
        /// Negotiated timeout in milliseconds.
        timeout_ms: i32,
    },
    /// closeSession (-11).
    CloseSession {
        /// Ephemerals that the leader decided to remove; `None` in logs written before 3.6 or with the list off.
        paths: Option<Vec<Cow<'a, str>>>,
    },
    /// multi (14). If any part is an error, nothing is applied (T34).
    Multi(Vec<Txn<'a>>),
    /// error (-1): no effect but the zxid.
    Error(ErrorCode),
}

/// Body of setData and reconfig.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetDataTxn<'a> {
    /// Node.
    pub path: Cow<'a, str>,
    /// The new data.
    pub data: Option<&'a [u8]>,
    /// The new version.
    pub version: i32,
}

/// Digest of the tree after a transaction (P33, P34): the last 12 bytes of a record, if present.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxnDigest {
    /// 2.
    pub version: i32,
    /// The tree digest.
    pub digest: i64,
}

impl<'a> Txn<'a> {
    /// The type number that the header, or the multi around it, carries.
    pub fn kind(&self) -> OpCode {
        match self {
            Self::Create(create) => match create.mode {
                CreateTxnMode::Create { .. } => OpCode::Create,
                CreateTxnMode::Create2 { .. } => OpCode::Create2,
                CreateTxnMode::Container => OpCode::CreateContainer,
                CreateTxnMode::Ttl { .. } => OpCode::CreateTtl,
            },
            Self::Delete { .. } => OpCode::Delete,
            Self::DeleteContainer { .. } => OpCode::DeleteContainer,
            Self::SetData(_) => OpCode::SetData,
            Self::Reconfig(_) => OpCode::Reconfig,
            Self::SetAcl { .. } => OpCode::SetAcl,
            Self::Check { .. } => OpCode::Check,
            Self::CreateSession { .. } => OpCode::CreateSession,
            Self::CloseSession { .. } => OpCode::CloseSession,
            Self::Multi(_) => OpCode::Multi,
            Self::Error(_) => OpCode::Error,
        }
    }

    /// Reads header, body and digest of one transaction.
    ///
    /// Bytes after the digest are ignored, as Java ignores them (J5).
    pub fn decode_record(bytes: &'a [u8]) -> Result<(TxnHeader, Self, Option<TxnDigest>), DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let header = TxnHeader::decode(&mut decoder)?;
        let body = Self::decode_body(header.kind, &mut decoder, true)?;
        let digest = match decoder.remaining() {
            12.. => Some(TxnDigest {
                version: decoder.i32("TxnDigest.version")?,
                digest: decoder.i64("TxnDigest.treeDigest")?,
            }),
            _ => None,
        };
        Ok((header, body, digest))
    }

    /// Reads a body of type `kind`. `multi_allowed` is false inside a multi, so that nesting cannot recurse.
    pub fn decode_body(
        kind: OpCode,
        decoder: &mut Decoder<'a>,
        multi_allowed: bool,
    ) -> Result<Self, DecodeError> {
        Ok(match kind {
            OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                Self::Create(CreateTxn::decode(kind, decoder)?)
            }
            OpCode::Delete => Self::Delete { path: decoder.text("DeleteTxn.path")? },
            OpCode::DeleteContainer => Self::DeleteContainer { path: decoder.text("DeleteTxn.path")? },
            OpCode::SetData => Self::SetData(SetDataTxn::decode(decoder)?),
            OpCode::Reconfig => Self::Reconfig(SetDataTxn::decode(decoder)?),
            OpCode::SetAcl => Self::SetAcl {
                path: decoder.text("SetACLTxn.path")?,
                acl: Acl::decode_list(decoder)?.unwrap_or_default(),
                version: decoder.i32("SetACLTxn.version")?,
            },
            OpCode::Check => Self::Check {
                path: decoder.text("CheckVersionTxn.path")?,
                version: decoder.i32("CheckVersionTxn.version")?,
            },
            OpCode::CreateSession => {
                Self::CreateSession { timeout_ms: decoder.i32("CreateSessionTxn.timeOut")? }
            }
            // Before 3.6 there was no body: nothing left, or a digest of 12 bytes alone, means no list (P17g).
            OpCode::CloseSession if decoder.remaining() < 4 => Self::CloseSession { paths: None },
            // 12 bytes that begin with 2 are a digest: as a list they would be two empty paths, which do not exist.
            OpCode::CloseSession if decoder.remaining() == 12 && decoder.clone().i32("")? == 2 => {
                Self::CloseSession { paths: None }
            }
            OpCode::CloseSession => {
                Self::CloseSession { paths: Some(decoder.texts("CloseSessionTxn.paths2Delete")?) }
            }
            OpCode::Multi if multi_allowed => {
                // Each part is an int type and a buffer: 8 bytes at least.
                let count = decoder.count(8, "MultiTxn.txns")?.unwrap_or(0);
                let mut parts = Vec::with_capacity(count);
                for _ in 0..count {
                    let part_kind = decode_kind(decoder, "Txn.type")?;
                    let body = decoder.buffer("Txn.data")?.unwrap_or_default();
                    parts.push(Self::decode_body(part_kind, &mut Decoder::new(body), false)?);
                }
                Self::Multi(parts)
            }
            OpCode::Error => Self::Error(ErrorCode(decoder.i32("ErrorTxn.err")?)),
            _ => return Err(decoder.error("a transaction type", Reason::Value(kind.to_i32().into()))),
        })
    }

    /// Writes header and body.
    pub fn encode_record(&self, header: &TxnHeader, out: &mut Vec<u8>) {
        debug_assert_eq!(header.kind, self.kind());
        header.encode(out);
        self.encode_body(out);
    }

    /// Writes the body alone.
    pub fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Create(create) => create.encode(out),
            Self::Delete { path } | Self::DeleteContainer { path } => jute::put_text(out, path),
            Self::SetData(set) | Self::Reconfig(set) => {
                jute::put_text(out, &set.path);
                jute::put_buffer(out, set.data);
                out.put_i32(set.version);
            }
            Self::SetAcl { path, acl, version } => {
                jute::put_text(out, path);
                Acl::encode_list(acl, out);
                out.put_i32(*version);
            }
            Self::Check { path, version } => {
                jute::put_text(out, path);
                out.put_i32(*version);
            }
            Self::CreateSession { timeout_ms } => out.put_i32(*timeout_ms),
            Self::CloseSession { paths: None } => {}
            Self::CloseSession { paths: Some(paths) } => {
                jute::put_count(out, paths.len());
                for path in paths {
                    jute::put_text(out, path);
                }
            }
            Self::Multi(parts) => {
                jute::put_count(out, parts.len());
                for part in parts {
                    out.put_i32(part.kind().to_i32());
                    // The length is known once the body is written: leave room and fill it in.
                    let length_at = out.len();
                    out.put_i32(0);
                    part.encode_body(out);
                    let length = i32::try_from(out.len() - length_at - 4).expect("bounded by jute.maxbuffer");
                    out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
                }
            }
            Self::Error(code) => out.put_i32(code.0),
        }
    }
}

impl<'a> CreateTxn<'a> {
    fn decode(kind: OpCode, decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        let path = decoder.text("CreateTxn.path")?;
        let data = decoder.buffer("CreateTxn.data")?;
        let acl = Acl::decode_list(decoder)?.unwrap_or_default();
        let (mode, parent_cversion) = match kind {
            OpCode::CreateContainer => {
                (CreateTxnMode::Container, decoder.i32("CreateContainerTxn.parentCVersion")?)
            }
            OpCode::CreateTtl => {
                let parent_cversion = decoder.i32("CreateTTLTxn.parentCVersion")?;
                (CreateTxnMode::Ttl { ttl_ms: decoder.i64("CreateTTLTxn.ttl")? }, parent_cversion)
            }
            _ => {
                let ephemeral = decoder.bool("CreateTxn.ephemeral")?;
                // CreateTxnV0 of 3.3 and before ends here (P17).
                let parent_cversion =
                    if decoder.remaining() < 4 { -1 } else { decoder.i32("CreateTxn.parentCVersion")? };
                let mode = match kind {
                    OpCode::Create => CreateTxnMode::Create { ephemeral },
                    _ => CreateTxnMode::Create2 { ephemeral },
                };
                (mode, parent_cversion)
            }
        };
        Ok(Self { path, data, acl, parent_cversion, mode })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        jute::put_text(out, &self.path);
        jute::put_buffer(out, self.data);
        Acl::encode_list(&self.acl, out);
        match self.mode {
            CreateTxnMode::Create { ephemeral } | CreateTxnMode::Create2 { ephemeral } => {
                jute::put_bool(out, ephemeral);
                out.put_i32(self.parent_cversion);
            }
            CreateTxnMode::Container => out.put_i32(self.parent_cversion),
            CreateTxnMode::Ttl { ttl_ms } => {
                out.put_i32(self.parent_cversion);
                out.put_i64(ttl_ms);
            }
        }
    }
}

impl<'a> SetDataTxn<'a> {
    fn decode(decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            path: decoder.text("SetDataTxn.path")?,
            data: decoder.buffer("SetDataTxn.data")?,
            version: decoder.i32("SetDataTxn.version")?,
        })
    }
}
