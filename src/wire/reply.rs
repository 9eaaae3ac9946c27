//! Replies (rows C15-C17, column "response" of section 2.2), written straight into a connection's out-buffer.
//!
//! A server calls [`write`] with the header and a closure that appends the body through the `put_*` functions here
//! and in [`crate::multi`]; a client decodes with [`ReplyHeader::decode`] and [`Reply::decode`].

use crate::{
    acl::{Acl, Id},
    error::ErrorCode,
    frame,
    ids::{Xid, Zxid},
    jute::{self, DecodeError, Decoder, Reason},
    multi::MultiResult,
    op::OpCode,
    stat::Stat,
};
use bytes::BufMut;
use std::borrow::Cow;

/// The first 16 bytes of every packet from the server but the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyHeader {
    /// The request's xid, or -1 for a notification.
    pub xid: Xid,
    /// Last transaction that the server had processed (C16).
    pub zxid: Zxid,
    /// 0, or why there is no body.
    pub err: ErrorCode,
}

impl ReplyHeader {
    /// Encoded size in bytes.
    pub const ENCODED_BYTES: usize = 16;

    /// Reads {xid, zxid, err}.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            xid: Xid(decoder.i32("ReplyHeader.xid")?),
            zxid: Zxid(decoder.i64("ReplyHeader.zxid")?),
            err: ErrorCode(decoder.i32("ReplyHeader.err")?),
        })
    }

    /// Writes {xid, zxid, err}.
    pub fn encode(&self, out: &mut impl BufMut) {
        let mut bytes = [0; Self::ENCODED_BYTES];
        bytes[..4].copy_from_slice(&self.xid.0.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.zxid.0.to_be_bytes());
        bytes[12..].copy_from_slice(&self.err.0.to_be_bytes());
        out.put_slice(&bytes);
    }
}

/// Writes a whole reply frame whose body `body` appends.
pub fn write(out: &mut Vec<u8>, header: ReplyHeader, body: impl FnOnce(&mut Vec<u8>)) {
    frame::write(out, |out| {
        header.encode(out);
        body(out);
    });
}

/// Writes a reply frame without a body: an error, or an operation that answers nothing.
pub fn write_empty(out: &mut Vec<u8>, header: ReplyHeader) {
    let mut bytes = [0; frame::LENGTH_BYTES + ReplyHeader::ENCODED_BYTES];
    let mut cursor = &mut bytes[..];
    cursor.put_i32(ReplyHeader::ENCODED_BYTES as i32);
    header.encode(&mut cursor);
    out.extend_from_slice(&bytes);
}

/// Writes a vector of names whose number is known only behind the last.
pub fn put_names<'n>(out: &mut Vec<u8>, names: impl Iterator<Item = &'n str>) {
    let count_at = out.len();
    out.put_i32(0);
    let mut count = 0i32;
    for name in names {
        jute::put_text(out, name);
        count = count.checked_add(1).expect("a jute vector has fewer than 2^31 elements");
    }
    out[count_at..count_at + 4].copy_from_slice(&count.to_be_bytes());
}

/// getData's body, and reconfig's.
pub fn put_data(out: &mut impl BufMut, data: Option<&[u8]>, stat: &Stat) {
    jute::put_buffer(out, data);
    stat.encode(out);
}

/// An identity as whoAmI reports it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientInfo<'a> {
    /// `ip`, `digest` ...
    pub scheme: Cow<'a, str>,
    /// User name within it, without secrets.
    pub user: Cow<'a, str>,
}

/// whoAmI's body (OP29).
pub fn put_client_infos<'n>(out: &mut Vec<u8>, infos: impl ExactSizeIterator<Item = Id<'n>>) {
    jute::put_count(out, infos.len());
    for info in infos {
        info.encode(out);
    }
}

/// A reply body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply<'a> {
    /// delete, ping, closeSession, auth, setWatches, checkWatches, removeWatches.
    Empty,
    /// create: the final path; sync: the path as asked, null allowed.
    Path(Option<Cow<'a, str>>),
    /// create2, createContainer, createTTL.
    PathStat(Cow<'a, str>, Stat),
    /// exists, setData, setACL.
    Stat(Stat),
    /// getData, and reconfig, whose data is the new config.
    Data(Option<&'a [u8]>, Stat),
    /// getACL.
    Acl(Option<Vec<Acl<'a>>>, Stat),
    /// getChildren, getEphemerals.
    Names(Vec<Cow<'a, str>>),
    /// getChildren2.
    NamesStat(Vec<Cow<'a, str>>, Stat),
    /// getAllChildrenNumber.
    Count(i32),
    /// multi, multiRead.
    Multi(Vec<MultiResult<'a>>),
    /// addWatch (OP28): the four bytes must be there.
    Code(ErrorCode),
    /// sasl.
    Token(Option<&'a [u8]>),
    /// whoAmI.
    ClientInfos(Vec<ClientInfo<'a>>),
}

impl<'a> Reply<'a> {
    /// Reads the body of the reply to an `op` request whose header said 0.
    pub fn decode(op: OpCode, decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        Ok(match op {
            OpCode::Delete
            | OpCode::Ping
            | OpCode::CloseSession
            | OpCode::Auth
            | OpCode::SetWatches
            | OpCode::SetWatches2
            | OpCode::CheckWatches
            | OpCode::RemoveWatches => Self::Empty,
            OpCode::Create => Self::Path(Some(decoder.text("CreateResponse.path")?)),
            OpCode::Sync => Self::Path(decoder.string("SyncResponse.path")?),
            OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                Self::PathStat(decoder.text("Create2Response.path")?, Stat::decode(decoder)?)
            }
            OpCode::Exists | OpCode::SetData | OpCode::SetAcl => Self::Stat(Stat::decode(decoder)?),
            OpCode::GetData | OpCode::Reconfig => {
                Self::Data(decoder.buffer("GetDataResponse.data")?, Stat::decode(decoder)?)
            }
            OpCode::GetAcl => Self::Acl(Acl::decode_list(decoder)?, Stat::decode(decoder)?),
            OpCode::GetChildren | OpCode::GetEphemerals => {
                Self::Names(decoder.texts("GetChildrenResponse.children")?)
            }
            OpCode::GetChildren2 => {
                Self::NamesStat(decoder.texts("GetChildren2Response.children")?, Stat::decode(decoder)?)
            }
            OpCode::GetAllChildrenNumber => {
                Self::Count(decoder.i32("GetAllChildrenNumberResponse.totalNumber")?)
            }
            OpCode::Multi | OpCode::MultiRead => Self::Multi(MultiResult::decode_list(decoder)?),
            OpCode::AddWatch => Self::Code(ErrorCode(decoder.i32("ErrorResponse.err")?)),
            OpCode::Sasl => Self::Token(decoder.buffer("SetSASLResponse.token")?),
            OpCode::WhoAmI => {
                let count = decoder.count(Id::ENCODED_BYTES_MIN, "WhoAmIResponse.clientInfo")?.unwrap_or(0);
                let infos = (0..count).map(|_| {
                    Ok(ClientInfo {
                        scheme: decoder.text("ClientInfo.authScheme")?,
                        user: decoder.text("ClientInfo.user")?,
                    })
                });
                Self::ClientInfos(infos.collect::<Result<_, _>>()?)
            }
            OpCode::Check | OpCode::DeleteContainer | OpCode::CreateSession | OpCode::Error => {
                return Err(decoder.error("a reply type", Reason::Value(op.to_i32().into())));
            }
        })
    }

    /// Writes the body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Empty => {}
            Self::Path(path) => jute::put_buffer(out, path.as_ref().map(|path| path.as_bytes())),
            Self::PathStat(path, stat) => {
                jute::put_text(out, path);
                stat.encode(out);
            }
            Self::Stat(stat) => stat.encode(out),
            Self::Data(data, stat) => put_data(out, *data, stat),
            Self::Acl(acl, stat) => {
                match acl {
                    Some(acl) => Acl::encode_list(acl, out),
                    None => out.put_i32(-1),
                }
                stat.encode(out);
            }
            Self::Names(names) => put_names(out, names.iter().map(AsRef::as_ref)),
            Self::NamesStat(names, stat) => {
                put_names(out, names.iter().map(AsRef::as_ref));
                stat.encode(out);
            }
            Self::Count(count) => out.put_i32(*count),
            Self::Multi(results) => MultiResult::encode_list(results, out),
            Self::Code(code) => out.put_i32(code.0),
            Self::Token(token) => jute::put_buffer(out, *token),
            Self::ClientInfos(infos) => {
                put_client_infos(out, infos.iter().map(|info| Id::new(&info.scheme, &info.user)));
            }
        }
    }
}
