//! A server made for tests: it answers as ZooKeeper does, and lies, stalls or hangs up when it is told to.
//!
//! One thread per connection, on loopback with a free port.

use bytes::BufMut;
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    thread,
};
use zkfast_wire::{
    ErrorCode, OpCode, Request, SessionId, Stat, Xid, Zxid, frame,
    handshake::{ConnectRequest, ConnectResponse},
    jute::Decoder,
    reply::{self, Reply, ReplyHeader},
    request::RequestHeader,
};

/// How the server misbehaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// It does not.
    Honest,
    /// Each 50th set is acknowledged and forgotten.
    ForgetsSets,
    /// Each 50th reply bears an old zxid.
    GoesBack,
    /// Each connection is closed after 200 requests.
    HangsUp,
}

#[derive(Default)]
struct Nodes {
    by_path: BTreeMap<String, (Vec<u8>, Stat)>,
    sequence: i32,
}

/// The server. It runs until the test process ends.
pub struct Fake {
    pub address: String,
    pub requests: AtomicU64,
    manner: Manner,
    zxid: AtomicI64,
    session: AtomicI64,
    nodes: Mutex<Nodes>,
    stalled: Mutex<bool>,
    released: Condvar,
    shut: AtomicBool,
}

impl Fake {
    pub fn start(manner: Manner) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fake = Arc::new(Self {
            address: listener.local_addr().unwrap().to_string(),
            requests: AtomicU64::new(0),
            manner,
            zxid: AtomicI64::new(1),
            session: AtomicI64::new(1),
            nodes: Mutex::default(),
            stalled: Mutex::new(false),
            released: Condvar::new(),
            shut: AtomicBool::new(false),
        });
        let server = fake.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                thread::spawn(move || server.serve(stream));
            }
        });
        fake
    }

    /// Stops or continues answering.
    pub fn stall(&self, stalled: bool) {
        *self.stalled.lock().unwrap() = stalled;
        self.released.notify_all();
    }

    /// Closes each connection at its next request, and every new one.
    pub fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
    }

    fn serve(&self, mut stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let (mut input, mut out, mut greeted, mut served) = (Vec::new(), Vec::new(), false, 0);
        let mut chunk = [0; 64 << 10];
        while let Ok(read @ 1..) = stream.read(&mut chunk) {
            input.extend_from_slice(&chunk[..read]);
            if input == b"mntr" {
                return;
            }
            let mut at = 0;
            let mut last = false;
            while let Ok(Some(payload)) = frame::cut(&input[at..], 1 << 20) {
                at += frame::LENGTH_BYTES + payload.len();
                if self.shut.load(Ordering::SeqCst) {
                    return;
                }
                if !greeted {
                    let hello = ConnectRequest::decode(&mut Decoder::new(payload)).unwrap();
                    let fresh = SessionId(self.session.fetch_add(1, Ordering::SeqCst));
                    let session = if hello.session.0 == 0 { fresh } else { hello.session };
                    let welcome = ConnectResponse {
                        timeout_ms: hello.timeout_ms,
                        session,
                        password: [7; 16],
                        read_only: hello.read_only,
                    };
                    frame::write(&mut out, |out| welcome.encode(out));
                    greeted = true;
                    continue;
                }
                served += 1;
                self.requests.fetch_add(1, Ordering::Relaxed);
                last = self.answer(payload, &mut out) || (self.manner == Manner::HangsUp && served >= 200);
                if last {
                    break;
                }
            }
            input.drain(..at);
            let mut stalled = self.stalled.lock().unwrap();
            while *stalled {
                stalled = self.released.wait(stalled).unwrap();
            }
            drop(stalled);
            if stream.write_all(&out).is_err() || last {
                return;
            }
            out.clear();
        }
    }

    /// Writes the reply; `true` if the connection ends with it.
    fn answer(&self, payload: &[u8], out: &mut Vec<u8>) -> bool {
        let mut decoder = Decoder::new(payload);
        let header = RequestHeader::decode(&mut decoder).unwrap();
        let op = OpCode::from_i32(header.op).unwrap();
        let request = Request::decode(op, &mut decoder).unwrap();
        let mut nodes = self.nodes.lock().unwrap();
        let zxid = if op.is_write() {
            self.zxid.fetch_add(1, Ordering::SeqCst) + 1
        } else {
            self.zxid.load(Ordering::SeqCst)
        };
        let (err, body) = self.act(&mut nodes, &request, zxid);
        let mut shown = zxid;
        if self.manner == Manner::GoesBack && zxid % 50 == 0 {
            shown -= 40;
        }
        let xid = if op == OpCode::Ping { Xid::PING } else { header.xid };
        reply::write(out, ReplyHeader { xid, zxid: Zxid(shown), err }, |out| {
            if let Some(body) = body {
                out.put_slice(&body);
            }
        });
        op == OpCode::CloseSession
    }

    fn act(&self, nodes: &mut Nodes, request: &Request<'_>, zxid: i64) -> (ErrorCode, Option<Vec<u8>>) {
        let encode = |reply: Reply<'_>| {
            let mut out = Vec::new();
            reply.encode(&mut out);
            (ErrorCode::OK, Some(out))
        };
        match request {
            Request::Create(_, create) => {
                let mut path = create.path.to_string();
                if create.flags & 2 != 0 {
                    nodes.sequence += 1;
                    path = format!("{path}{:010}", nodes.sequence);
                }
                if nodes.by_path.contains_key(&path) {
                    return (ErrorCode::NODE_EXISTS, None);
                }
                let stat = Stat { czxid: Zxid(zxid), mzxid: Zxid(zxid), ..Stat::default() };
                nodes.by_path.insert(path.clone(), (create.data.unwrap_or_default().to_vec(), stat));
                encode(Reply::Path(Some(path.into())))
            }
            Request::Delete(delete) => match nodes.by_path.remove(delete.path.as_ref()) {
                Some(_) => (ErrorCode::OK, None),
                None => (ErrorCode::NO_NODE, None),
            },
            Request::SetData(set) => {
                let Some((data, stat)) = nodes.by_path.get_mut(set.path.as_ref()) else {
                    return (ErrorCode::NO_NODE, None);
                };
                let new = Stat { mzxid: Zxid(zxid), version: stat.version + 1, ..*stat };
                if self.manner != Manner::ForgetsSets || zxid % 50 != 0 {
                    *stat = new;
                    *data = set.data.unwrap_or_default().to_vec();
                }
                encode(Reply::Stat(new))
            }
            Request::GetData(read) => match nodes.by_path.get(read.path.as_ref()) {
                Some((data, stat)) => encode(Reply::Data(Some(data), *stat)),
                None => (ErrorCode::NO_NODE, None),
            },
            Request::Exists(read) => match nodes.by_path.get(read.path.as_ref()) {
                Some((_, stat)) => encode(Reply::Stat(*stat)),
                None => (ErrorCode::NO_NODE, None),
            },
            Request::GetChildren(read) => {
                let parent = format!("{}/", read.path);
                let below = nodes.by_path.keys().filter_map(|path| path.strip_prefix(&parent));
                let names =
                    below.filter(|name| !name.contains('/')).map(|name| name.to_owned().into()).collect();
                encode(Reply::Names(names))
            }
            Request::Ping | Request::CloseSession => (ErrorCode::OK, None),
            _ => (ErrorCode::UNIMPLEMENTED, None),
        }
    }
}
