//! Valid frames of every kind, and small damages to them.

use super::dice::Dice;
use bytes::{BufMut, Bytes};
use zkfast_wire::{
    Acl, Epoch, ErrorCode, Id, OpCode, Perms, ServerId, SessionId, Stat, StatPersisted, Txn, TxnHeader, Xid,
    Zxid,
    handshake::{ConnectRequest, ConnectResponse},
    jute,
    multi::MultiResult,
    reply::{Reply, ReplyHeader},
    request::{MultiHeader, RequestHeader},
    txn::{CreateTxn, CreateTxnMode, SetDataTxn},
    vote::{Greeting, Notification, ServerState},
    watch::{EventKind, WatcherEvent},
};

const PATH: &str = "/some/path";

fn acls() -> Vec<Acl<'static>> {
    vec![Acl::OPEN, Acl { perms: Perms::READ, id: Id::new("digest", "user:aGFzaA==") }]
}

/// One frame of each kind at least.
pub fn valid_frames() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    requests(&mut frames);
    replies(&mut frames);
    transactions(&mut frames);
    peers(&mut frames);
    frames
}

fn requests(frames: &mut Vec<Vec<u8>>) {
    let connect = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid(7),
        timeout_ms: 10_000,
        session: SessionId(5),
        password: &[9; 16],
        read_only: Some(false),
    };
    let mut out = Vec::new();
    connect.encode(&mut out);
    frames.push(out);
    // Written by hand with the primitives: a body that the decoder takes apart field by field.
    let mut create = Vec::new();
    jute::put_text(&mut create, PATH);
    jute::put_buffer(&mut create, Some(b"data"));
    Acl::encode_list(&acls(), &mut create);
    create.put_i32(0);
    let mut ttl = create.clone();
    ttl.put_i64(1_000);
    let mut path = Vec::new();
    jute::put_text(&mut path, PATH);
    let mut path_number = path.clone();
    path_number.put_i32(1);
    let mut path_flag = path.clone();
    path_flag.put_u8(1);
    let mut set = path.clone();
    jute::put_buffer(&mut set, Some(b"data"));
    set.put_i32(-1);
    let mut set_acl = path.clone();
    Acl::encode_list(&acls(), &mut set_acl);
    set_acl.put_i32(-1);
    let mut watches = Vec::new();
    watches.put_i64(7);
    for _ in 0..5 {
        jute::put_count(&mut watches, 2);
        jute::put_text(&mut watches, PATH);
        jute::put_text(&mut watches, "/");
    }
    let mut auth = Vec::new();
    auth.put_i32(0);
    jute::put_text(&mut auth, "digest");
    jute::put_buffer(&mut auth, Some(b"user:password"));
    let mut reconfig = path.clone();
    jute::put_text(&mut reconfig, "1,2");
    jute::put_buffer(&mut reconfig, None);
    reconfig.put_i64(-1);
    let mut multi = Vec::new();
    for (op, body) in [
        (OpCode::Create, &create),
        (OpCode::CreateTtl, &ttl),
        (OpCode::SetData, &set),
        (OpCode::Check, &path_number),
        (OpCode::Delete, &path_number),
    ] {
        MultiHeader { kind: op.to_i32(), done: false, err: -1 }.encode(&mut multi);
        multi.extend_from_slice(body);
    }
    MultiHeader::END.encode(&mut multi);
    let mut reads = Vec::new();
    for op in [OpCode::GetData, OpCode::GetChildren] {
        MultiHeader { kind: op.to_i32(), done: false, err: -1 }.encode(&mut reads);
        reads.extend_from_slice(&path_flag);
    }
    MultiHeader::END.encode(&mut reads);
    for op in OpCode::ALL {
        let body: &[u8] = match op {
            OpCode::Create | OpCode::Create2 | OpCode::CreateContainer => &create,
            OpCode::CreateTtl => &ttl,
            OpCode::Exists | OpCode::GetData | OpCode::GetChildren | OpCode::GetChildren2 => &path_flag,
            OpCode::SetData => &set,
            OpCode::SetAcl => &set_acl,
            OpCode::Multi => &multi,
            OpCode::MultiRead => &reads,
            OpCode::Reconfig => &reconfig,
            OpCode::Auth => &auth,
            OpCode::SetWatches | OpCode::SetWatches2 => &watches,
            OpCode::Delete
            | OpCode::Check
            | OpCode::CheckWatches
            | OpCode::RemoveWatches
            | OpCode::AddWatch => &path_number,
            _ => &path,
        };
        frames.push(body.to_vec());
        let mut whole = Vec::new();
        RequestHeader { xid: Xid(1), op: op.to_i32() }.encode(&mut whole);
        whole.extend_from_slice(body);
        frames.push(whole);
    }
}

fn replies(frames: &mut Vec<Vec<u8>>) {
    let stat = Stat { version: 3, num_children: 2, ..Stat::default() };
    let names = || vec!["a".into(), "b".into(), "ccc".into()];
    let results = vec![
        MultiResult::Created(PATH.into()),
        MultiResult::CreatedStat(PATH.into(), stat),
        MultiResult::Deleted,
        MultiResult::DataSet(stat),
        MultiResult::Checked,
        MultiResult::Data(Some(b"data"), stat),
        MultiResult::Children(names()),
        MultiResult::Error(ErrorCode::NO_NODE),
    ];
    for reply in [
        Reply::Path(Some(PATH.into())),
        Reply::PathStat(PATH.into(), stat),
        Reply::Stat(stat),
        Reply::Data(Some(b"data"), stat),
        Reply::Acl(Some(acls()), stat),
        Reply::Names(names()),
        Reply::NamesStat(names(), stat),
        Reply::Count(3),
        Reply::Multi(results),
        Reply::Code(ErrorCode::OK),
        Reply::Token(Some(b"token")),
    ] {
        let mut out = Vec::new();
        reply.encode(&mut out);
        frames.push(out);
    }
    let mut out = Vec::new();
    ReplyHeader { xid: Xid(1), zxid: Zxid(7), err: ErrorCode::OK }.encode(&mut out);
    frames.push(out);
    let mut out = Vec::new();
    let response = ConnectResponse {
        timeout_ms: 10_000,
        session: SessionId(5),
        password: [9; 16],
        read_only: Some(false),
    };
    response.encode(&mut out);
    frames.push(out);
    let mut out = Vec::new();
    WatcherEvent { kind: EventKind::NodeCreated, state: 3, path: PATH.into() }.encode(&mut out);
    frames.push(out);
    frames.push(stat_bytes(&stat));
    frames.push(StatPersisted::default().to_bytes().to_vec());
}

fn stat_bytes(stat: &Stat) -> Vec<u8> {
    let mut out = Vec::new();
    stat.encode(&mut out);
    out
}

fn transactions(frames: &mut Vec<Vec<u8>>) {
    let create = |mode| {
        let (path, acl) = (PATH.into(), acls());
        Txn::Create(CreateTxn { path, data: Some(b"data"), acl, parent_cversion: 4, mode })
    };
    let set = || SetDataTxn { path: PATH.into(), data: Some(b"data"), version: 2 };
    let parts = vec![
        create(CreateTxnMode::Create { ephemeral: true }),
        Txn::SetData(set()),
        Txn::Check { path: PATH.into(), version: 3 },
        Txn::Delete { path: PATH.into() },
        Txn::Error(ErrorCode::BAD_VERSION),
    ];
    for txn in [
        create(CreateTxnMode::Create { ephemeral: false }),
        create(CreateTxnMode::Create2 { ephemeral: true }),
        create(CreateTxnMode::Container),
        create(CreateTxnMode::Ttl { ttl_ms: 1_000 }),
        Txn::Delete { path: PATH.into() },
        Txn::DeleteContainer { path: PATH.into() },
        Txn::SetData(set()),
        Txn::Reconfig(set()),
        Txn::SetAcl { path: PATH.into(), acl: acls(), version: 1 },
        Txn::CreateSession { timeout_ms: 10_000 },
        Txn::CloseSession { paths: Some(vec![PATH.into(), "/b".into()]) },
        Txn::CloseSession { paths: None },
        Txn::Multi(parts),
        Txn::Error(ErrorCode::NO_AUTH),
    ] {
        let header =
            TxnHeader { session: SessionId(5), cxid: 1, zxid: Zxid(9), time_ms: 3, kind: txn.kind() };
        let mut out = Vec::new();
        txn.encode_record(&header, &mut out);
        frames.push(out.clone());
        out.put_i32(2);
        out.put_i64(-1);
        frames.push(out);
    }
}

fn peers(frames: &mut Vec<Vec<u8>>) {
    let mut out = Vec::new();
    let notification = Notification {
        state: ServerState::Looking,
        leader: ServerId(1),
        zxid: Zxid(9),
        election_epoch: 2,
        peer_epoch: Epoch(1),
        version: 2,
        config: Some(Bytes::from_static(b"server.1=a:1:2:participant\nversion=0")),
    };
    notification.encode(&mut out);
    frames.push(out);
    let mut out = Vec::new();
    Greeting { server: Some(ServerId(1)), addresses: vec!["a:1".into(), "b:2".into()] }.encode(&mut out);
    frames.push(out);
    // Quorum packets: {type, zxid, data, authinfo} for every type there is and some that are not.
    let mut data = Vec::new();
    data.put_i64(1);
    data.put_i32(0x10000);
    data.put_i64(0);
    for kind in 0..22 {
        for data in [None, Some(&data[..]), Some(&data[..12])] {
            let mut out = Vec::new();
            out.put_i32(kind);
            out.put_i64(9);
            jute::put_buffer(&mut out, data);
            out.put_i32(-1);
            frames.push(out);
        }
    }
}

/// Changes `bytes` a little: a bit, a length-like number, a cut, a piece of another frame.
pub fn mutate(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], dice: &mut Dice) {
    const NUMBERS: [i32; 12] =
        [0, 1, -1, -2, 4, 0x7f, 0xff, 0xffff, 0x0010_0000, 0x0fff_ffff, i32::MAX, i32::MIN];
    if bytes.is_empty() {
        bytes.push(0);
    }
    let at = dice.below(bytes.len());
    match dice.below(7) {
        0 => bytes[at] ^= 1 << dice.below(8),
        1 => bytes[at] = u8::try_from(dice.below(256)).expect("a byte"),
        2 | 3 if bytes.len() >= 4 => {
            let at = dice.below(bytes.len() - 3);
            bytes[at..at + 4].copy_from_slice(&NUMBERS[dice.below(NUMBERS.len())].to_be_bytes());
        }
        4 => bytes.truncate(at),
        5 => {
            let other = &corpus[dice.below(corpus.len())];
            let from = dice.below(other.len().max(1));
            bytes.truncate(at);
            bytes.extend_from_slice(other.get(from..).unwrap_or_default());
        }
        _ => {
            let mut noise = [0; 8];
            dice.fill(&mut noise);
            bytes.splice(at..at, noise);
        }
    }
}
