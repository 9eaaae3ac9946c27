//! Packets of the learner link (rows Q30-Q45, ZooKeeper's `QuorumPacket`): what a leader and its learners say.
//!
//! One record, {int type, long zxid, buffer data, vector of ids}, carries twenty meanings. Here each meaning is a
//! variant with its own fields, so that nobody reads a session's bytes as an epoch. The records lie back to back on
//! the link, without framing (J7); after a `SNAP` the image follows raw, ended by [`SNAPSHOT_SIGNATURE`] (Q54).

use crate::{
    acl::Id,
    ids::{Epoch, ServerId, SessionId, Zxid},
    jute::{self, DecodeError, Decoder, Reason},
};
use bytes::{Buf, BufMut, Bytes};

/// The learner protocol that has LEADERINFO and ACKEPOCH (Q75); unchanged since ZooKeeper 3.4.
pub const PROTOCOL_VERSION: i32 = 0x10000;

/// The string after a snapshot stream (Q54, `LearnerHandler`).
pub const SNAPSHOT_SIGNATURE: &str = "BenWasHere";

/// Bytes of a packet before its data: type, zxid and the data's length.
pub const HEAD_BYTES: usize = 16;

/// What follows the data of a packet without identities: a null vector.
pub const TAIL: [u8; 4] = [0xff; 4];

/// One identity list is bounded: a connection holds a handful, and each costs at least eight bytes.
const IDENTITIES_MAX: usize = 4096;

/// A write that a learner forwards for one of its clients (Q30).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForwardedRequest {
    /// The client's session.
    pub session: SessionId,
    /// The request's xid in that session.
    pub cxid: i32,
    /// Operation number, as the client sent it; 9 is sync.
    pub op: i32,
    /// The request's body, still encoded.
    pub body: Bytes,
    /// Who the client is.
    pub identities: Vec<Id<'static>>,
}

/// How a learner introduces itself (Q40, `LearnerInfo`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LearnerInfo {
    /// The learner's `myid`; `None` where an observer without one asks to be numbered.
    pub server: Option<ServerId>,
    /// [`PROTOCOL_VERSION`], or less from a server older than 3.4.
    pub protocol_version: i32,
    /// Version of the learner's ensemble configuration; 0 where it did not say.
    pub config_version: i64,
    /// Whether it only observes.
    pub observer: bool,
    /// The highest epoch that it promised to a leader.
    pub accepted_epoch: Epoch,
}

/// One packet of the learner link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Packet {
    /// REQUEST (1), learner to leader.
    Request(Box<ForwardedRequest>),
    /// PROPOSAL (2), leader to follower: log this and acknowledge.
    Proposal {
        /// Its place in the order.
        zxid: Zxid,
        /// Header, body and digest: the bytes of the log record.
        record: Bytes,
    },
    /// ACK (3), learner to leader: this is on my disk. With counter 0 it acknowledges NEWLEADER or UPTODATE.
    Ack {
        /// What is acknowledged.
        zxid: Zxid,
    },
    /// COMMIT (4), leader to follower.
    Commit {
        /// The next transaction to apply.
        zxid: Zxid,
    },
    /// PING (5), both ways.
    Ping {
        /// The leader's last proposal, echoed by the learner.
        zxid: Zxid,
        /// From a learner: its touched sessions, see [`touches`].
        touched: Option<Bytes>,
    },
    /// REVALIDATE (6), learner to leader: is this session alive?
    RevalidateAsk {
        /// The session that reconnected.
        session: SessionId,
        /// Its timeout, milliseconds.
        timeout_ms: i32,
    },
    /// REVALIDATE (6), leader to learner.
    RevalidateAnswer {
        /// The session that was asked about.
        session: SessionId,
        /// Whether it is alive, and now owned by this learner.
        valid: bool,
    },
    /// SYNC (7), leader to learner: your oldest pending sync is complete.
    Sync,
    /// INFORM (8), leader to observer: proposed and committed in one.
    Inform {
        /// Its place in the order.
        zxid: Zxid,
        /// The bytes of the log record.
        record: Bytes,
    },
    /// COMMITANDACTIVATE (9), leader to follower: commit of a reconfiguration.
    CommitAndActivate {
        /// The reconfiguration's transaction.
        zxid: Zxid,
        /// Who should lead from now on.
        designated: ServerId,
    },
    /// NEWLEADER (10), leader to learner: you have all the history that my reign starts with.
    NewLeader {
        /// The reign.
        epoch: Epoch,
        /// The leader's last seen configuration (Q60).
        config: Option<Bytes>,
    },
    /// FOLLOWERINFO (11) or OBSERVERINFO (16), learner to leader: the first packet.
    LearnerInfo(LearnerInfo),
    /// UPTODATE (12), leader to learner: serve.
    UpToDate,
    /// DIFF (13): keep what you have, the rest follows.
    Diff {
        /// The last transaction of what follows.
        zxid: Zxid,
    },
    /// TRUNC (14): cut your log after this one.
    Trunc {
        /// The last transaction to keep.
        zxid: Zxid,
    },
    /// SNAP (15): forget what you have, an image follows raw on the link.
    Snap {
        /// The last transaction that the image holds for sure.
        zxid: Zxid,
    },
    /// LEADERINFO (17), leader to learner: the epoch that I propose.
    LeaderInfo {
        /// The proposed epoch.
        epoch: Epoch,
        /// [`PROTOCOL_VERSION`].
        protocol_version: i32,
    },
    /// ACKEPOCH (18), learner to leader: I shall follow nobody older.
    AckEpoch {
        /// The learner's last logged transaction.
        last: Zxid,
        /// The epoch whose history it holds; `None` (-1) where this epoch was accepted before and must not be
        /// counted again (Q44).
        current_epoch: Option<Epoch>,
    },
    /// INFORMANDACTIVATE (19), leader to observer: a reconfiguration, proposed and committed in one.
    InformAndActivate {
        /// Its place in the order.
        zxid: Zxid,
        /// Who should lead from now on.
        designated: ServerId,
        /// The bytes of the log record.
        record: Bytes,
    },
}

mod kind {
    pub(super) const REQUEST: i32 = 1;
    pub(super) const PROPOSAL: i32 = 2;
    pub(super) const ACK: i32 = 3;
    pub(super) const COMMIT: i32 = 4;
    pub(super) const PING: i32 = 5;
    pub(super) const REVALIDATE: i32 = 6;
    pub(super) const SYNC: i32 = 7;
    pub(super) const INFORM: i32 = 8;
    pub(super) const COMMITANDACTIVATE: i32 = 9;
    pub(super) const NEWLEADER: i32 = 10;
    pub(super) const FOLLOWERINFO: i32 = 11;
    pub(super) const UPTODATE: i32 = 12;
    pub(super) const DIFF: i32 = 13;
    pub(super) const TRUNC: i32 = 14;
    pub(super) const SNAP: i32 = 15;
    pub(super) const OBSERVERINFO: i32 = 16;
    pub(super) const LEADERINFO: i32 = 17;
    pub(super) const ACKEPOCH: i32 = 18;
    pub(super) const INFORMANDACTIVATE: i32 = 19;
}

/// Which way a packet travels. REVALIDATE has two shapes, one for each way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Sent by a learner.
    ToLeader,
    /// Sent by the leader.
    ToLearner,
}

/// The bytes before the record of a PROPOSAL; the record and [`TAIL`] follow. Lets a link send the one shared
/// encoding of a transaction without copying it.
///
/// # Panics
/// If the record is 2 GiB or longer.
pub fn proposal_head(zxid: Zxid, record_bytes: usize) -> [u8; HEAD_BYTES] {
    head(kind::PROPOSAL, zxid, record_bytes)
}

/// The same for an INFORM.
///
/// # Panics
/// If the record is 2 GiB or longer.
pub fn inform_head(zxid: Zxid, record_bytes: usize) -> [u8; HEAD_BYTES] {
    head(kind::INFORM, zxid, record_bytes)
}

fn head(kind: i32, zxid: Zxid, data_bytes: usize) -> [u8; HEAD_BYTES] {
    let mut bytes = [0; HEAD_BYTES];
    let mut cursor = &mut bytes[..];
    cursor.put_i32(kind);
    cursor.put_i64(zxid.0);
    cursor.put_i32(i32::try_from(data_bytes).expect("a jute buffer is shorter than 2 GiB"));
    bytes
}

/// Writes an ACK for each zxid from `first` through `last`, which lie in one epoch (an Apache leader counts
/// acknowledgements per transaction).
pub fn encode_acks(first: Zxid, last: Zxid, out: &mut impl BufMut) {
    encode_run(kind::ACK, first, last, out);
}

/// Writes a COMMIT for each zxid from `first` through `last`, which lie in one epoch.
pub fn encode_commits(first: Zxid, last: Zxid, out: &mut impl BufMut) {
    encode_run(kind::COMMIT, first, last, out);
}

fn encode_run(kind: i32, first: Zxid, last: Zxid, out: &mut impl BufMut) {
    assert!(first <= last && first.epoch() == last.epoch());
    for zxid in first.0..=last.0 {
        put_bare(kind, Zxid(zxid), out);
    }
}

fn put_bare(kind: i32, zxid: Zxid, out: &mut impl BufMut) {
    out.put_i32(kind);
    out.put_i64(zxid.0);
    out.put_i32(-1);
    out.put_slice(&TAIL);
}

fn put_with(kind: i32, zxid: Zxid, data: &[u8], out: &mut impl BufMut) {
    out.put_slice(&head(kind, zxid, data.len()));
    out.put_slice(data);
    out.put_slice(&TAIL);
}

const fn epoch_zxid(epoch: Epoch) -> Zxid {
    Zxid::new(epoch, 0)
}

impl Packet {
    /// Writes the packet.
    ///
    /// # Panics
    /// If data of 2 GiB or more is sent; every record was bounded by `jute.maxbuffer` long before.
    pub fn encode(&self, out: &mut impl BufMut) {
        match self {
            Self::Request(request) => request.encode(out),
            Self::Proposal { zxid, record } => put_with(kind::PROPOSAL, *zxid, record, out),
            Self::Ack { zxid } => put_bare(kind::ACK, *zxid, out),
            Self::Commit { zxid } => put_bare(kind::COMMIT, *zxid, out),
            Self::Ping { zxid, touched: None } => put_bare(kind::PING, *zxid, out),
            Self::Ping { zxid, touched: Some(touched) } => put_with(kind::PING, *zxid, touched, out),
            Self::RevalidateAsk { session, timeout_ms } => {
                let mut data = [0; 12];
                data[..8].copy_from_slice(&session.0.to_be_bytes());
                data[8..].copy_from_slice(&timeout_ms.to_be_bytes());
                put_with(kind::REVALIDATE, Zxid(-1), &data, out);
            }
            Self::RevalidateAnswer { session, valid } => {
                let mut data = [0; 9];
                data[..8].copy_from_slice(&session.0.to_be_bytes());
                data[8] = u8::from(*valid);
                put_with(kind::REVALIDATE, Zxid(-1), &data, out);
            }
            Self::Sync => put_bare(kind::SYNC, Zxid::ZERO, out),
            Self::Inform { zxid, record } => put_with(kind::INFORM, *zxid, record, out),
            Self::CommitAndActivate { zxid, designated } => {
                put_with(kind::COMMITANDACTIVATE, *zxid, &designated.0.to_be_bytes(), out);
            }
            Self::NewLeader { epoch, config: None } => put_bare(kind::NEWLEADER, epoch_zxid(*epoch), out),
            Self::NewLeader { epoch, config: Some(config) } => {
                put_with(kind::NEWLEADER, epoch_zxid(*epoch), config, out);
            }
            Self::LearnerInfo(info) => info.encode(out),
            Self::UpToDate => put_bare(kind::UPTODATE, Zxid(-1), out),
            Self::Diff { zxid } => put_bare(kind::DIFF, *zxid, out),
            Self::Trunc { zxid } => put_bare(kind::TRUNC, *zxid, out),
            Self::Snap { zxid } => put_bare(kind::SNAP, *zxid, out),
            Self::LeaderInfo { epoch, protocol_version } => {
                put_with(kind::LEADERINFO, epoch_zxid(*epoch), &protocol_version.to_be_bytes(), out);
            }
            Self::AckEpoch { last, current_epoch } => {
                // Java writes the low half of the epoch (`wrappedEpochBytes.putInt`).
                let epoch = current_epoch.map_or(-1, |epoch| epoch.0 as i32);
                put_with(kind::ACKEPOCH, *last, &epoch.to_be_bytes(), out);
            }
            Self::InformAndActivate { zxid, designated, record } => {
                out.put_slice(&head(kind::INFORMANDACTIVATE, *zxid, 8 + record.len()));
                out.put_i64(designated.0);
                out.put_slice(record);
                out.put_slice(&TAIL);
            }
        }
    }

    /// Reads the packet at the start of `bytes`, sharing its data with them, and says how many bytes it took.
    ///
    /// `Ok(None)` asks for more bytes: the link has no frames, so a packet ends where its fields end.
    ///
    /// # Errors
    /// A data length beyond `data_bytes_max` is refused before it is waited for; so is an unknown type, and data that
    /// does not have the shape of its type.
    pub fn decode(
        bytes: &Bytes,
        direction: Direction,
        data_bytes_max: usize,
    ) -> Result<Option<(Self, usize)>, DecodeError> {
        let Some(raw) = Raw::cut(bytes, data_bytes_max)? else { return Ok(None) };
        let taken = raw.taken_bytes;
        raw.packet(direction).map(|packet| Some((packet, taken)))
    }
}

impl ForwardedRequest {
    /// The op number of sync, which a leader answers with SYNC instead of a transaction.
    pub const SYNC: i32 = 9;

    fn encode(&self, out: &mut impl BufMut) {
        out.put_slice(&head(kind::REQUEST, Zxid(-1), 16 + self.body.len()));
        out.put_i64(self.session.0);
        out.put_i32(self.cxid);
        out.put_i32(self.op);
        out.put_slice(&self.body);
        jute::put_count(out, self.identities.len());
        for id in &self.identities {
            id.encode(out);
        }
    }
}

impl LearnerInfo {
    fn encode(&self, out: &mut impl BufMut) {
        let kind = if self.observer { kind::OBSERVERINFO } else { kind::FOLLOWERINFO };
        let Some(server) = self.server else {
            return put_bare(kind, epoch_zxid(self.accepted_epoch), out);
        };
        let mut data = [0; 20];
        data[..8].copy_from_slice(&server.0.to_be_bytes());
        data[8..12].copy_from_slice(&self.protocol_version.to_be_bytes());
        data[12..].copy_from_slice(&self.config_version.to_be_bytes());
        put_with(kind, epoch_zxid(self.accepted_epoch), &data, out);
    }

    /// Servers of 3.3 sent nothing or 8 bytes, early 3.4 sent 12.
    fn decode(observer: bool, zxid: Zxid, data: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(data);
        let mut info = Self {
            server: None,
            protocol_version: 0,
            config_version: 0,
            observer,
            accepted_epoch: zxid.epoch(),
        };
        if data.len() >= 8 {
            info.server = Some(ServerId(decoder.i64("LearnerInfo.serverid")?));
        }
        if data.len() >= 12 {
            info.protocol_version = decoder.i32("LearnerInfo.protocolVersion")?;
        }
        if data.len() >= 20 {
            info.config_version = decoder.i64("LearnerInfo.configVersion")?;
        }
        Ok(info)
    }
}

/// The sessions that a learner's PING reply touches: {session, timeout in milliseconds} (S11). A torn last entry is
/// left out.
pub fn touches(data: &[u8]) -> impl Iterator<Item = (SessionId, i32)> + '_ {
    data.chunks_exact(12).map(|entry| {
        let (session, timeout) = entry.split_at(8);
        let session = i64::from_be_bytes(session.try_into().expect("eight bytes"));
        (SessionId(session), i32::from_be_bytes(timeout.try_into().expect("four bytes")))
    })
}

/// Appends one touched session to the payload of a PING reply.
pub fn put_touch(session: SessionId, timeout_ms: i32, out: &mut impl BufMut) {
    out.put_i64(session.0);
    out.put_i32(timeout_ms);
}

/// The record as it lies on the link, before its type gives it a meaning.
struct Raw {
    kind: i32,
    zxid: Zxid,
    data: Option<Bytes>,
    identities: Vec<Id<'static>>,
    taken_bytes: usize,
}

impl Raw {
    fn cut(bytes: &Bytes, data_bytes_max: usize) -> Result<Option<Self>, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        if decoder.remaining() < HEAD_BYTES {
            return Ok(None);
        }
        let kind = decoder.i32("QuorumPacket.type")?;
        let zxid = Zxid(decoder.i64("QuorumPacket.zxid")?);
        let length = decoder.i32("QuorumPacket.data")?;
        if length < -1 || usize::try_from(length).is_ok_and(|length| length > data_bytes_max) {
            return Err(decoder.error("QuorumPacket.data", Reason::Length(length)));
        }
        let data_bytes = usize::try_from(length).unwrap_or(0);
        let tail_at = HEAD_BYTES + data_bytes;
        if bytes.len() < tail_at + TAIL.len() {
            return Ok(None);
        }
        let data = (length >= 0).then(|| bytes.slice(HEAD_BYTES..tail_at));
        let Some((identities, identity_bytes)) = Self::identities(&bytes[tail_at..], data_bytes_max)? else {
            return Ok(None);
        };
        Ok(Some(Self { kind, zxid, data, identities, taken_bytes: tail_at + identity_bytes }))
    }

    /// The identities at the start of `bytes` and their encoded length; `None` where bytes are still missing.
    fn identities(
        bytes: &[u8],
        part_bytes_max: usize,
    ) -> Result<Option<(Vec<Id<'static>>, usize)>, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let count = decoder.i32("QuorumPacket.authinfo")?;
        let count = match usize::try_from(count) {
            Ok(count) if count <= IDENTITIES_MAX => count,
            Err(_) if count == -1 => 0,
            _ => return Err(decoder.error("QuorumPacket.authinfo", Reason::Length(count))),
        };
        let mut identities = Vec::new();
        for _ in 0..count {
            // Completeness first, so that a missing byte is not taken for a wrong one.
            let mut ahead = decoder.clone();
            for _ in 0..2 {
                if ahead.remaining() < 4 {
                    return Ok(None);
                }
                let length = ahead.i32("Id")?;
                let Ok(length) = usize::try_from(length.max(0)) else { unreachable!("not negative") };
                if length > part_bytes_max {
                    return Err(ahead.error("Id", Reason::Length(length as i32)));
                }
                if ahead.remaining() < length {
                    return Ok(None);
                }
                ahead = Decoder::new(&ahead.rest()[length..]);
            }
            identities.push(Id::decode(&mut decoder)?.into_owned());
        }
        Ok(Some((identities, decoder.offset())))
    }

    fn packet(mut self, direction: Direction) -> Result<Packet, DecodeError> {
        let zxid = self.zxid;
        Ok(match self.kind {
            kind::REQUEST => {
                let mut body = self.required("REQUEST")?;
                let mut decoder = Decoder::new(&body);
                let session = SessionId(decoder.i64("REQUEST.session")?);
                let cxid = decoder.i32("REQUEST.cxid")?;
                let op = decoder.i32("REQUEST.type")?;
                let head_bytes = decoder.offset();
                body.advance(head_bytes);
                Packet::Request(Box::new(ForwardedRequest {
                    session,
                    cxid,
                    op,
                    body,
                    identities: self.identities,
                }))
            }
            kind::PROPOSAL => Packet::Proposal { zxid, record: self.required("PROPOSAL")? },
            kind::ACK => Packet::Ack { zxid },
            kind::COMMIT => Packet::Commit { zxid },
            kind::PING => Packet::Ping { zxid, touched: self.data },
            kind::REVALIDATE => {
                let data = self.required("REVALIDATE")?;
                let mut decoder = Decoder::new(&data);
                let session = SessionId(decoder.i64("REVALIDATE.session")?);
                match direction {
                    Direction::ToLeader => {
                        Packet::RevalidateAsk { session, timeout_ms: decoder.i32("REVALIDATE.timeout")? }
                    }
                    Direction::ToLearner => {
                        Packet::RevalidateAnswer { session, valid: decoder.bool("REVALIDATE.valid")? }
                    }
                }
            }
            kind::SYNC => Packet::Sync,
            kind::INFORM => Packet::Inform { zxid, record: self.required("INFORM")? },
            kind::COMMITANDACTIVATE => {
                let data = self.required("COMMITANDACTIVATE")?;
                let designated = ServerId(Decoder::new(&data).i64("COMMITANDACTIVATE.leader")?);
                Packet::CommitAndActivate { zxid, designated }
            }
            kind::NEWLEADER => Packet::NewLeader { epoch: zxid.epoch(), config: self.data },
            kind @ (kind::FOLLOWERINFO | kind::OBSERVERINFO) => {
                let data = self.data.unwrap_or_default();
                Packet::LearnerInfo(LearnerInfo::decode(kind == kind::OBSERVERINFO, zxid, &data)?)
            }
            kind::UPTODATE => Packet::UpToDate,
            kind::DIFF => Packet::Diff { zxid },
            kind::TRUNC => Packet::Trunc { zxid },
            kind::SNAP => Packet::Snap { zxid },
            kind::LEADERINFO => {
                let data = self.required("LEADERINFO")?;
                let protocol_version = Decoder::new(&data).i32("LEADERINFO.protocolVersion")?;
                Packet::LeaderInfo { epoch: zxid.epoch(), protocol_version }
            }
            kind::ACKEPOCH => {
                let data = self.required("ACKEPOCH")?;
                let epoch = Decoder::new(&data).i32("ACKEPOCH.currentEpoch")?;
                let current_epoch = (epoch != -1).then_some(Epoch(epoch.into()));
                Packet::AckEpoch { last: zxid, current_epoch }
            }
            kind::INFORMANDACTIVATE => {
                let data = self.required("INFORMANDACTIVATE")?;
                let mut decoder = Decoder::new(&data);
                let designated = ServerId(decoder.i64("INFORMANDACTIVATE.leader")?);
                let record = data.slice(decoder.offset()..);
                Packet::InformAndActivate { zxid, designated, record }
            }
            unknown => {
                return Err(Decoder::new(&[]).error("QuorumPacket.type", Reason::Value(unknown.into())));
            }
        })
    }

    fn required(&mut self, expected: &'static str) -> Result<Bytes, DecodeError> {
        self.data.take().ok_or(DecodeError { expected, offset: HEAD_BYTES - 4, reason: Reason::Null })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DATA_BYTES_MAX: usize = 1 << 20;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn examples() -> Vec<(Packet, Direction)> {
        use Direction::{ToLeader, ToLearner};
        let zxid = Zxid::new(Epoch(5), 7);
        let record = Bytes::from_static(b"header and body");
        let request = ForwardedRequest {
            session: SessionId(0x0100_0000_0000_0001),
            cxid: 3,
            op: 1,
            body: Bytes::from_static(b"body"),
            identities: vec![Id::new("ip", "127.0.0.1"), Id::new("digest", "a:b")],
        };
        let info = LearnerInfo {
            server: Some(ServerId(2)),
            protocol_version: PROTOCOL_VERSION,
            config_version: 0x1_0000_0000,
            observer: false,
            accepted_epoch: Epoch(4),
        };
        vec![
            (Packet::Request(Box::new(request)), ToLeader),
            (Packet::Proposal { zxid, record: record.clone() }, ToLearner),
            (Packet::Ack { zxid }, ToLeader),
            (Packet::Commit { zxid }, ToLearner),
            (Packet::Ping { zxid, touched: None }, ToLearner),
            (Packet::Ping { zxid, touched: Some(Bytes::from_static(&[0; 24])) }, ToLeader),
            (Packet::RevalidateAsk { session: SessionId(9), timeout_ms: 4000 }, ToLeader),
            (Packet::RevalidateAnswer { session: SessionId(9), valid: true }, ToLearner),
            (Packet::Sync, ToLearner),
            (Packet::Inform { zxid, record: record.clone() }, ToLearner),
            (Packet::CommitAndActivate { zxid, designated: ServerId(3) }, ToLearner),
            (Packet::NewLeader { epoch: Epoch(5), config: None }, ToLearner),
            (
                Packet::NewLeader { epoch: Epoch(5), config: Some(Bytes::from_static(b"version=0")) },
                ToLearner,
            ),
            (Packet::LearnerInfo(info), ToLeader),
            (Packet::LearnerInfo(LearnerInfo { observer: true, ..info }), ToLeader),
            (Packet::UpToDate, ToLearner),
            (Packet::Diff { zxid }, ToLearner),
            (Packet::Trunc { zxid }, ToLearner),
            (Packet::Snap { zxid }, ToLearner),
            (Packet::LeaderInfo { epoch: Epoch(5), protocol_version: PROTOCOL_VERSION }, ToLearner),
            (Packet::AckEpoch { last: zxid, current_epoch: Some(Epoch(4)) }, ToLeader),
            (Packet::AckEpoch { last: zxid, current_epoch: None }, ToLeader),
            (Packet::InformAndActivate { zxid, designated: ServerId(3), record }, ToLearner),
        ]
    }

    /// Danger: a packet is read as another one, or its end is missed and everything behind it is garbage.
    #[test]
    fn packets_lie_back_to_back_and_end_where_their_fields_end() {
        let mut stream = Vec::new();
        for (packet, _) in examples() {
            packet.encode(&mut stream);
        }
        let mut rest = Bytes::from(stream);
        for (expected, direction) in examples() {
            let (packet, taken) = Packet::decode(&rest, direction, DATA_BYTES_MAX).unwrap().unwrap();
            assert_eq!(packet, expected);
            for short in 0..taken {
                let part = rest.slice(..short);
                assert_eq!(Packet::decode(&part, direction, DATA_BYTES_MAX), Ok(None), "{expected:?}");
            }
            rest = rest.slice(taken..);
        }
        assert!(rest.is_empty());
    }

    /// Each packet as `QuorumPacket.serialize` writes it: type, zxid, data, identities. The numbers are written by hand.
    /// Danger: both ends of our own links agree, and no server of Apache's understands either.
    #[test]
    fn bytes_are_those_of_apache() {
        // Q30: session, cxid, operation, body; then who the client is.
        let request = "00000001 ffffffffffffffff 00000014 0100000000000001 00000003 00000001 626f6479 \
             00000002 00000002 6970 00000009 3132372e302e302e31 00000006 646967657374 00000003 613a62";
        let record = "68656164657220616e6420626f6479";
        let expected = [
            request.to_owned(),
            // Q31: the bytes of the log record.
            format!("00000002 0000000500000007 0000000f {record} ffffffff"),
            // Q32, Q33: a zxid alone.
            "00000003 0000000500000007 ffffffff ffffffff".into(),
            "00000004 0000000500000007 ffffffff ffffffff".into(),
            // Q34: without data from the leader; from a learner {session, timeout} twice.
            "00000005 0000000500000007 ffffffff ffffffff".into(),
            format!("00000005 0000000500000007 00000018 {} ffffffff", "00".repeat(24)),
            // Q35: {session, timeout} asks, {session, bool} answers.
            "00000006 ffffffffffffffff 0000000c 0000000000000009 00000fa0 ffffffff".into(),
            "00000006 ffffffffffffffff 00000009 0000000000000009 01 ffffffff".into(),
            // Q36.
            "00000007 0000000000000000 ffffffff ffffffff".into(),
            // Q37.
            format!("00000008 0000000500000007 0000000f {record} ffffffff"),
            // Who should lead.
            "00000009 0000000500000007 00000008 0000000000000003 ffffffff".into(),
            // Q39: the zxid is the epoch's first, the data a configuration or nothing.
            "0000000a 0000000500000000 ffffffff ffffffff".into(),
            "0000000a 0000000500000000 00000009 76657273696f6e3d30 ffffffff".into(),
            // Q40, Q75: the epoch accepted; server, protocol, version of the configuration.
            "0000000b 0000000400000000 00000014 0000000000000002 00010000 0000000100000000 ffffffff".into(),
            "00000010 0000000400000000 00000014 0000000000000002 00010000 0000000100000000 ffffffff".into(),
            // Q41.
            "0000000c ffffffffffffffff ffffffff ffffffff".into(),
            // Q42: DIFF, TRUNC, SNAP.
            "0000000d 0000000500000007 ffffffff ffffffff".into(),
            "0000000e 0000000500000007 ffffffff ffffffff".into(),
            "0000000f 0000000500000007 ffffffff ffffffff".into(),
            // Q43, Q75.
            "00000011 0000000500000000 00000004 00010000 ffffffff".into(),
            // Q44: the last zxid, and currentEpoch or -1.
            "00000012 0000000500000007 00000004 00000004 ffffffff".into(),
            "00000012 0000000500000007 00000004 ffffffff ffffffff".into(),
            format!("00000013 0000000500000007 00000017 0000000000000003 {record} ffffffff"),
        ];
        assert_eq!(examples().len(), expected.len());
        for ((packet, _), expected) in examples().into_iter().zip(expected) {
            let mut out = Vec::new();
            packet.encode(&mut out);
            assert_eq!(hex(&out), expected.replace(' ', ""), "{packet:?}");
        }
    }

    #[test]
    fn runs_and_heads_equal_single_packets() {
        let (mut run, mut single) = (Vec::new(), Vec::new());
        encode_acks(Zxid(5), Zxid(7), &mut run);
        encode_commits(Zxid(8), Zxid(8), &mut run);
        for zxid in 5..=7 {
            Packet::Ack { zxid: Zxid(zxid) }.encode(&mut single);
        }
        Packet::Commit { zxid: Zxid(8) }.encode(&mut single);
        assert_eq!(run, single);

        let record = Bytes::from_static(b"record");
        let mut parts = proposal_head(Zxid(3), record.len()).to_vec();
        parts.extend_from_slice(&record);
        parts.extend_from_slice(&TAIL);
        let mut whole = Vec::new();
        Packet::Proposal { zxid: Zxid(3), record }.encode(&mut whole);
        assert_eq!(parts, whole);
    }

    /// Q40: 8 and 12 bytes of servers before 3.5.
    #[test]
    fn learners_of_old_introduce_themselves_in_fewer_bytes() {
        let decode = |data: &[u8]| {
            let mut out = Vec::new();
            put_with(kind::FOLLOWERINFO, Zxid::new(Epoch(3), 0), data, &mut out);
            match Packet::decode(&out.into(), Direction::ToLeader, 64).unwrap().unwrap().0 {
                Packet::LearnerInfo(info) => (info.server, info.protocol_version, info.config_version),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(decode(&[]), (None, 0, 0));
        assert_eq!(decode(&[0, 0, 0, 0, 0, 0, 0, 2]), (Some(ServerId(2)), 0, 0));
        assert_eq!(decode(&[0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 0]), (Some(ServerId(2)), 0x10000, 0));
    }

    /// Danger: a claimed length of two gigabytes makes a peer wait or allocate.
    #[test]
    fn a_claimed_length_is_refused_at_once() {
        let mut out = Vec::new();
        out.put_i32(kind::PROPOSAL);
        out.put_i64(1);
        out.put_i32(i32::MAX);
        assert!(Packet::decode(&Bytes::from(out), Direction::ToLearner, DATA_BYTES_MAX).is_err());
        let mut out = head(kind::ACK, Zxid(1), 0).to_vec();
        out.put_i32(i32::MAX);
        assert!(Packet::decode(&Bytes::from(out), Direction::ToLeader, DATA_BYTES_MAX).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>, kind in 0i32..21, length in -2i32..40) {
            let mut packet = Vec::new();
            packet.put_i32(kind);
            packet.put_i64(1);
            packet.put_i32(length);
            packet.extend_from_slice(&bytes);
            for direction in [Direction::ToLeader, Direction::ToLearner] {
                let _ = Packet::decode(&Bytes::from(packet.clone()), direction, DATA_BYTES_MAX);
            }
        }
    }
}
