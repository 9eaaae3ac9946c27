//! Bodies of client requests (section 2.2), borrowed from the frame they arrived in.

use crate::{
    acl::Acl,
    frame,
    ids::{Xid, Zxid},
    jute::{self, DecodeError, Decoder, Reason},
    op::OpCode,
};
use bytes::BufMut;
use std::borrow::Cow;

/// The first 8 bytes of each request (C15).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestHeader {
    /// Chosen by the client, echoed in the reply.
    pub xid: Xid,
    /// Operation number; may be unknown.
    pub op: i32,
}

impl RequestHeader {
    /// Encoded size in bytes.
    pub const ENCODED_BYTES: usize = 8;

    /// Reads {xid, type}.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { xid: Xid(decoder.i32("RequestHeader.xid")?), op: decoder.i32("RequestHeader.type")? })
    }

    /// Writes {xid, type}.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_i32(self.xid.0);
        out.put_i32(self.op);
    }
}

/// Path and version: delete and check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathVersion<'a> {
    /// Node.
    pub path: Cow<'a, str>,
    /// Expected version; -1 means any.
    pub version: i32,
}

/// Path and watch flag: exists, getData, getChildren, getChildren2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathWatch<'a> {
    /// Node.
    pub path: Cow<'a, str>,
    /// Leave a one-shot watch.
    pub watch: bool,
}

/// create, create2, createContainer and createTTL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateRequest<'a> {
    /// Wanted path; a sequence number may be added.
    pub path: Cow<'a, str>,
    /// Data; null stays null.
    pub data: Option<&'a [u8]>,
    /// Wanted ACL; null and empty are refused later with INVALIDACL.
    pub acl: Option<Vec<Acl<'a>>>,
    /// Create mode (OP34).
    pub flags: i32,
    /// Time to live in milliseconds: createTTL only.
    pub ttl_ms: Option<i64>,
}

/// setData.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetDataRequest<'a> {
    /// Node.
    pub path: Cow<'a, str>,
    /// New data.
    pub data: Option<&'a [u8]>,
    /// Expected version; -1 means any.
    pub version: i32,
}

/// setACL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetAclRequest<'a> {
    /// Node.
    pub path: Cow<'a, str>,
    /// New list; null and empty are refused later with INVALIDACL.
    pub acl: Option<Vec<Acl<'a>>>,
    /// Expected aversion; -1 means any.
    pub version: i32,
}

/// setWatches and setWatches2 (W20).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SetWatchesRequest<'a> {
    /// Last zxid that the client saw.
    pub relative_zxid: Zxid,
    /// One-shot data watches.
    pub data: Vec<Cow<'a, str>>,
    /// One-shot watches on absent nodes.
    pub exist: Vec<Cow<'a, str>>,
    /// One-shot child watches.
    pub child: Vec<Cow<'a, str>>,
    /// Persistent watches; setWatches2 only.
    pub persistent: Vec<Cow<'a, str>>,
    /// Persistent recursive watches; setWatches2 only.
    pub persistent_recursive: Vec<Cow<'a, str>>,
    /// Behind what the lists say there was a null that Java stumbles over: a path of the first three lists, or a list. What
    /// comes before it has been done by then; the answer is -5.
    pub is_cut: bool,
}

/// auth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthRequest<'a> {
    /// `digest`, ...
    pub scheme: Cow<'a, str>,
    /// Credentials, such as `user:password`.
    pub auth: Option<&'a [u8]>,
}

/// reconfig.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReconfigRequest<'a> {
    /// Incremental: servers to add or change.
    pub joining: Option<Cow<'a, str>>,
    /// Incremental: ids to remove.
    pub leaving: Option<Cow<'a, str>>,
    /// The whole new membership.
    pub members: Option<Cow<'a, str>>,
    /// Expected config version; -1 means any.
    pub config_id: i64,
}

/// A request body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request<'a> {
    /// create (1), create2 (15), createContainer (19), createTTL (21); the code says which.
    Create(OpCode, CreateRequest<'a>),
    /// delete (2).
    Delete(PathVersion<'a>),
    /// check (13), inside a multi.
    Check(PathVersion<'a>),
    /// deleteContainer (20): internal, refused from clients.
    DeleteContainer(&'a [u8]),
    /// exists (3).
    Exists(PathWatch<'a>),
    /// getData (4).
    GetData(PathWatch<'a>),
    /// setData (5).
    SetData(SetDataRequest<'a>),
    /// getACL (6).
    GetAcl(Cow<'a, str>),
    /// setACL (7).
    SetAcl(SetAclRequest<'a>),
    /// getChildren (8).
    GetChildren(PathWatch<'a>),
    /// getChildren2 (12).
    GetChildren2(PathWatch<'a>),
    /// sync (9); the path is echoed, never checked.
    Sync(Option<Cow<'a, str>>),
    /// ping (11).
    Ping,
    /// multi (14): create family, delete, setData, check.
    Multi(Vec<Request<'a>>),
    /// multiRead (22): getData and getChildren.
    MultiRead(Vec<Request<'a>>),
    /// reconfig (16).
    Reconfig(ReconfigRequest<'a>),
    /// checkWatches (17): path and watcher type (OP35).
    CheckWatches(Cow<'a, str>, i32),
    /// removeWatches (18): path and watcher type.
    RemoveWatches(Cow<'a, str>, i32),
    /// auth (100).
    Auth(AuthRequest<'a>),
    /// setWatches (101), setWatches2 (105).
    SetWatches(SetWatchesRequest<'a>),
    /// sasl (102): a token.
    Sasl(Option<&'a [u8]>),
    /// getEphemerals (103): path prefix.
    GetEphemerals(Option<Cow<'a, str>>),
    /// getAllChildrenNumber (104).
    GetAllChildrenNumber(Cow<'a, str>),
    /// addWatch (106): path and mode (0 persistent, 1 persistent recursive).
    AddWatch(Cow<'a, str>, i32),
    /// whoAmI (107).
    WhoAmI,
    /// createSession (-10): timeout in milliseconds; internal.
    CreateSession(i32),
    /// closeSession (-11).
    CloseSession,
}

/// What separates the parts of a multi: {int type, bool done, int err}.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MultiHeader {
    /// Operation or result type; -1 at the end and for errors.
    pub kind: i32,
    /// No part follows.
    pub done: bool,
    /// Error of this part; -1 where none is meant.
    pub err: i32,
}

impl MultiHeader {
    /// Encoded size in bytes.
    pub const ENCODED_BYTES: usize = 9;
    /// The end mark.
    pub const END: Self = Self { kind: -1, done: true, err: -1 };

    /// Reads the three fields.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            kind: decoder.i32("MultiHeader.type")?,
            done: decoder.bool("MultiHeader.done")?,
            err: decoder.i32("MultiHeader.err")?,
        })
    }

    /// Writes the three fields.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_i32(self.kind);
        jute::put_bool(out, self.done);
        out.put_i32(self.err);
    }
}

impl<'a> Request<'a> {
    /// Reads the body of an `op` request. Bytes behind it are ignored, as in Java (J5).
    pub fn decode(op: OpCode, decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        Ok(match op {
            OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                let path = decoder.text("CreateRequest.path")?;
                let data = decoder.buffer("CreateRequest.data")?;
                let acl = Acl::decode_list(decoder)?;
                let flags = decoder.i32("CreateRequest.flags")?;
                let ttl_ms = match op {
                    OpCode::CreateTtl => Some(decoder.i64("CreateTTLRequest.ttl")?),
                    _ => None,
                };
                Self::Create(op, CreateRequest { path, data, acl, flags, ttl_ms })
            }
            OpCode::Delete => Self::Delete(PathVersion::decode(decoder)?),
            OpCode::Check => Self::Check(PathVersion::decode(decoder)?),
            OpCode::DeleteContainer => {
                Self::DeleteContainer(decoder.buffer("DeleteContainerRequest.path")?.unwrap_or_default())
            }
            OpCode::Exists => Self::Exists(PathWatch::decode(decoder)?),
            OpCode::GetData => Self::GetData(PathWatch::decode(decoder)?),
            // Java refuses a null path here as it refuses an empty one (-8), where others stumble over it (-5).
            OpCode::SetData => Self::SetData(SetDataRequest {
                path: decoder.string("SetDataRequest.path")?.unwrap_or_default(),
                data: decoder.buffer("SetDataRequest.data")?,
                version: decoder.i32("SetDataRequest.version")?,
            }),
            OpCode::GetAcl => Self::GetAcl(decoder.text("GetACLRequest.path")?),
            OpCode::SetAcl => Self::SetAcl(SetAclRequest {
                path: decoder.string("SetACLRequest.path")?.unwrap_or_default(),
                acl: Acl::decode_list(decoder)?,
                version: decoder.i32("SetACLRequest.version")?,
            }),
            OpCode::GetChildren => Self::GetChildren(PathWatch::decode(decoder)?),
            OpCode::GetChildren2 => Self::GetChildren2(PathWatch::decode(decoder)?),
            OpCode::Sync => Self::Sync(decoder.string("SyncRequest.path")?),
            OpCode::Ping => Self::Ping,
            OpCode::Multi => Self::Multi(decode_parts(decoder, |kind| {
                matches!(
                    kind,
                    OpCode::Create
                        | OpCode::Create2
                        | OpCode::CreateContainer
                        | OpCode::CreateTtl
                        | OpCode::Delete
                        | OpCode::SetData
                        | OpCode::Check
                )
            })?),
            OpCode::MultiRead => Self::MultiRead(decode_parts(decoder, |kind| {
                matches!(kind, OpCode::GetData | OpCode::GetChildren)
            })?),
            OpCode::Reconfig => Self::Reconfig(ReconfigRequest {
                joining: decoder.string("ReconfigRequest.joiningServers")?,
                leaving: decoder.string("ReconfigRequest.leavingServers")?,
                members: decoder.string("ReconfigRequest.newMembers")?,
                config_id: decoder.i64("ReconfigRequest.curConfigId")?,
            }),
            OpCode::CheckWatches => Self::CheckWatches(watched(decoder)?, decoder.i32("watcher type")?),
            OpCode::RemoveWatches => Self::RemoveWatches(watched(decoder)?, decoder.i32("watcher type")?),
            OpCode::Auth => {
                decoder.i32("AuthPacket.type")?;
                Self::Auth(AuthRequest {
                    scheme: decoder.string("AuthPacket.scheme")?.unwrap_or_default(),
                    auth: decoder.buffer("AuthPacket.auth")?,
                })
            }
            OpCode::SetWatches | OpCode::SetWatches2 => {
                let relative_zxid = Zxid(decoder.i64("SetWatches.relativeZxid")?);
                let mut is_cut = false;
                let mut missed = |decoder: &mut Decoder<'a>, expected| -> Result<_, DecodeError> {
                    let (paths, found_null) = missed_paths(decoder, expected)?;
                    let paths = if is_cut { Vec::new() } else { paths };
                    is_cut |= found_null;
                    Ok(paths)
                };
                let data = missed(decoder, "SetWatches.dataWatches")?;
                let exist = missed(decoder, "SetWatches.existWatches")?;
                let child = missed(decoder, "SetWatches.childWatches")?;
                let mut kept = |decoder: &mut Decoder<'a>, expected| -> Result<_, DecodeError> {
                    if op == OpCode::SetWatches {
                        return Ok(Vec::new());
                    }
                    let paths = kept_paths(decoder, expected)?;
                    let done = if is_cut { None } else { paths };
                    is_cut |= done.is_none();
                    Ok(done.unwrap_or_default())
                };
                let persistent = kept(decoder, "SetWatches2.persistentWatches")?;
                let persistent_recursive = kept(decoder, "SetWatches2.persistentRecursiveWatches")?;
                Self::SetWatches(SetWatchesRequest {
                    relative_zxid,
                    data,
                    exist,
                    child,
                    persistent,
                    persistent_recursive,
                    is_cut,
                })
            }
            OpCode::Sasl => Self::Sasl(decoder.buffer("GetSASLRequest.token")?),
            OpCode::GetEphemerals => Self::GetEphemerals(decoder.string("GetEphemeralsRequest.prefixPath")?),
            OpCode::GetAllChildrenNumber => {
                Self::GetAllChildrenNumber(decoder.text("GetAllChildrenNumberRequest.path")?)
            }
            OpCode::AddWatch => Self::AddWatch(watched(decoder)?, decoder.i32("AddWatchRequest.mode")?),
            OpCode::WhoAmI => Self::WhoAmI,
            OpCode::CreateSession => Self::CreateSession(decoder.i32("CreateSession.timeOut")?),
            OpCode::CloseSession => Self::CloseSession,
            OpCode::Error => return Err(decoder.error("a request type", Reason::Value(-1))),
        })
    }
}

impl Request<'_> {
    /// The operation's number.
    pub fn op(&self) -> OpCode {
        match self {
            Self::Create(op, _) => *op,
            Self::Delete(_) => OpCode::Delete,
            Self::Check(_) => OpCode::Check,
            Self::DeleteContainer(_) => OpCode::DeleteContainer,
            Self::Exists(_) => OpCode::Exists,
            Self::GetData(_) => OpCode::GetData,
            Self::SetData(_) => OpCode::SetData,
            Self::GetAcl(_) => OpCode::GetAcl,
            Self::SetAcl(_) => OpCode::SetAcl,
            Self::GetChildren(_) => OpCode::GetChildren,
            Self::GetChildren2(_) => OpCode::GetChildren2,
            Self::Sync(_) => OpCode::Sync,
            Self::Ping => OpCode::Ping,
            Self::Multi(_) => OpCode::Multi,
            Self::MultiRead(_) => OpCode::MultiRead,
            Self::Reconfig(_) => OpCode::Reconfig,
            Self::CheckWatches(..) => OpCode::CheckWatches,
            Self::RemoveWatches(..) => OpCode::RemoveWatches,
            Self::Auth(_) => OpCode::Auth,
            Self::SetWatches(request) => match request.has_persistent() {
                true => OpCode::SetWatches2,
                false => OpCode::SetWatches,
            },
            Self::Sasl(_) => OpCode::Sasl,
            Self::GetEphemerals(_) => OpCode::GetEphemerals,
            Self::GetAllChildrenNumber(_) => OpCode::GetAllChildrenNumber,
            Self::AddWatch(..) => OpCode::AddWatch,
            Self::WhoAmI => OpCode::WhoAmI,
            Self::CreateSession(_) => OpCode::CreateSession,
            Self::CloseSession => OpCode::CloseSession,
        }
    }

    /// Writes the body, without header and frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Create(_, create) => {
                jute::put_text(out, &create.path);
                jute::put_buffer(out, create.data);
                put_acl(out, create.acl.as_deref());
                out.put_i32(create.flags);
                if let Some(ttl_ms) = create.ttl_ms {
                    out.put_i64(ttl_ms);
                }
            }
            Self::Delete(request) | Self::Check(request) => {
                jute::put_text(out, &request.path);
                out.put_i32(request.version);
            }
            Self::DeleteContainer(path) => jute::put_buffer(out, Some(path)),
            Self::Exists(request)
            | Self::GetData(request)
            | Self::GetChildren(request)
            | Self::GetChildren2(request) => {
                jute::put_text(out, &request.path);
                jute::put_bool(out, request.watch);
            }
            Self::SetData(request) => {
                jute::put_text(out, &request.path);
                jute::put_buffer(out, request.data);
                out.put_i32(request.version);
            }
            Self::GetAcl(path) | Self::GetAllChildrenNumber(path) => jute::put_text(out, path),
            Self::SetAcl(request) => {
                jute::put_text(out, &request.path);
                put_acl(out, request.acl.as_deref());
                out.put_i32(request.version);
            }
            Self::Sync(path) | Self::GetEphemerals(path) => put_string(out, path.as_deref()),
            Self::Ping | Self::WhoAmI | Self::CloseSession => {}
            Self::Multi(parts) | Self::MultiRead(parts) => {
                for part in parts {
                    MultiHeader { kind: part.op().to_i32(), done: false, err: -1 }.encode(out);
                    part.encode(out);
                }
                MultiHeader::END.encode(out);
            }
            Self::Reconfig(request) => {
                put_string(out, request.joining.as_deref());
                put_string(out, request.leaving.as_deref());
                put_string(out, request.members.as_deref());
                out.put_i64(request.config_id);
            }
            Self::CheckWatches(path, value)
            | Self::RemoveWatches(path, value)
            | Self::AddWatch(path, value) => {
                jute::put_text(out, path);
                out.put_i32(*value);
            }
            Self::Auth(request) => {
                out.put_i32(0);
                jute::put_text(out, &request.scheme);
                jute::put_buffer(out, request.auth);
            }
            Self::SetWatches(request) => {
                out.put_i64(request.relative_zxid.0);
                put_texts(out, &request.data);
                put_texts(out, &request.exist);
                put_texts(out, &request.child);
                if request.has_persistent() {
                    put_texts(out, &request.persistent);
                    put_texts(out, &request.persistent_recursive);
                }
            }
            Self::Sasl(token) => jute::put_buffer(out, *token),
            Self::CreateSession(timeout_ms) => out.put_i32(*timeout_ms),
        }
    }

    /// Writes a whole request frame.
    pub fn write(&self, xid: Xid, out: &mut Vec<u8>) {
        frame::write(out, |out| {
            RequestHeader { xid, op: self.op().to_i32() }.encode(out);
            self.encode(out);
        });
    }
}

fn put_string(out: &mut Vec<u8>, text: Option<&str>) {
    jute::put_buffer(out, text.map(str::as_bytes));
}

fn put_texts(out: &mut Vec<u8>, texts: &[Cow<'_, str>]) {
    jute::put_count(out, texts.len());
    for text in texts {
        jute::put_text(out, text);
    }
}

fn put_acl(out: &mut Vec<u8>, acl: Option<&[Acl<'_>]>) {
    match acl {
        Some(acl) => Acl::encode_list(acl, out),
        None => out.put_i32(-1),
    }
}

impl SetWatchesRequest<'_> {
    /// Whether only setWatches2 can carry this request; clients send setWatches otherwise (W21).
    pub fn has_persistent(&self) -> bool {
        !self.persistent.is_empty() || !self.persistent_recursive.is_empty()
    }
}

/// A path for the table of watches, which in Java has a place for null too. No node can have the path that stands for it.
fn watched<'a>(decoder: &mut Decoder<'a>) -> Result<Cow<'a, str>, DecodeError> {
    Ok(decoder.string("a watched path")?.unwrap_or(Cow::Borrowed("\0")))
}

/// One of setWatches' lists of nodes to look at: its paths up to the first null, and whether there is one. A list that is
/// null is one itself.
fn missed_paths<'a>(
    decoder: &mut Decoder<'a>,
    expected: &'static str,
) -> Result<(Vec<Cow<'a, str>>, bool), DecodeError> {
    let count = decoder.count(4, expected)?;
    let (mut paths, mut found_null) = (Vec::new(), count.is_none());
    for _ in 0..count.unwrap_or(0) {
        match decoder.string(expected)? {
            Some(path) if !found_null => paths.push(path),
            Some(_) => {}
            None => found_null = true,
        }
    }
    Ok((paths, found_null))
}

/// One of setWatches2's lists that are watched unseen; `None` for a list that is null.
fn kept_paths<'a>(
    decoder: &mut Decoder<'a>,
    expected: &'static str,
) -> Result<Option<Vec<Cow<'a, str>>>, DecodeError> {
    let Some(count) = decoder.count(4, expected)? else { return Ok(None) };
    (0..count).map(|_| watched(decoder)).collect::<Result<_, _>>().map(Some)
}

/// Reads the parts of a multi up to its end mark.
fn decode_parts<'a>(
    decoder: &mut Decoder<'a>,
    allowed: impl Fn(OpCode) -> bool,
) -> Result<Vec<Request<'a>>, DecodeError> {
    let mut parts = Vec::new();
    loop {
        let at = decoder.clone();
        let header = MultiHeader::decode(decoder)?;
        if header.done {
            return Ok(parts);
        }
        let kind = OpCode::from_i32(header.kind)
            .filter(|kind| allowed(*kind))
            .ok_or_else(|| at.error("MultiHeader.type", Reason::Value(header.kind.into())))?;
        // Every part begins with its path, which Java looks at before any part is checked.
        decoder.clone().text("a part's path")?;
        parts.push(Request::decode(kind, decoder)?);
    }
}

impl<'a> PathVersion<'a> {
    fn decode(decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        Ok(Self { path: decoder.text("path")?, version: decoder.i32("version")? })
    }
}

impl<'a> PathWatch<'a> {
    fn decode(decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        Ok(Self { path: decoder.text("path")?, watch: decoder.bool("watch")? })
    }
}
