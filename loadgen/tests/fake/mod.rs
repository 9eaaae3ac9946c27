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
    jute::{Decoder, put_text},
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
    /// Each 10th create is acknowledged and forgotten.
    ForgetsCreates,
    /// Each 10th create loses its data.
    EmptiesCreates,
    /// Each 10th create makes another node beside its own.
    InventsNodes,
    /// Each 50th set counts two versions.
    SkipsVersions,
    /// Each 50th set is answered with the stat of the one before.
    OldStats,
    /// Sequence numbers come twice.
    RepeatsNumbers,
    /// Ephemeral nodes belong to somebody else.
    WrongOwner,
    /// Ephemeral nodes stay when their session ends.
    KeepsEphemerals,
    /// Each 50th value that is read has a wrong byte.
    GarblesReads,
    /// Each 10th event is never sent.
    LosesEvents,
    /// Each 50th set is answered with the number of another request.
    WrongNumbers,
    /// The answer to each 50th set is cut short.
    ShortAnswers,
}

/// Where replies and events of one connection are written.
type Wire = Arc<Mutex<TcpStream>>;

#[derive(Default)]
struct Nodes {
    by_path: BTreeMap<String, (Vec<u8>, Stat)>,
    sequence: i32,
    writes: u64,
    events: u64,
    /// Watches, by path and whether they are on the children: the connections that left them.
    watches: BTreeMap<(String, bool), Vec<Wire>>,
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
        let (mut input, mut out, mut own, mut served) = (Vec::new(), Vec::new(), None, 0);
        let wire: Wire = Arc::new(Mutex::new(stream.try_clone().unwrap()));
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
                let Some(session) = own else {
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
                    own = Some(session);
                    continue;
                };
                served += 1;
                self.requests.fetch_add(1, Ordering::Relaxed);
                last = self.answer(payload, session, &wire, &mut out)
                    || (self.manner == Manner::HangsUp && served >= 200);
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
            let written = wire.lock().unwrap().write_all(&out);
            if written.is_err() || last {
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
            out.clear();
        }
    }

    /// Writes the reply; `true` if the connection ends with it.
    fn answer(&self, payload: &[u8], session: SessionId, wire: &Wire, out: &mut Vec<u8>) -> bool {
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
        let (err, body) = self.act(&mut nodes, &request, zxid, session, wire);
        let mut shown = zxid;
        if self.manner == Manner::GoesBack && zxid % 50 == 0 {
            shown -= 40;
        }
        let mut xid = if op == OpCode::Ping { Xid::PING } else { header.xid };
        let is_set = op == OpCode::SetData;
        if is_set && self.lies(&mut nodes, Manner::WrongNumbers, 50) {
            xid.0 += 1;
        }
        let cut = is_set && self.lies(&mut nodes, Manner::ShortAnswers, 50);
        reply::write(out, ReplyHeader { xid, zxid: Zxid(shown), err }, |out| {
            if let Some(body) = body {
                out.put_slice(if cut { &body[..9] } else { &body });
            }
        });
        if op == OpCode::CloseSession && self.manner != Manner::KeepsEphemerals {
            nodes.by_path.retain(|_, (_, stat)| stat.ephemeral_owner != session);
        }
        op == OpCode::CloseSession
    }

    /// Whether this is the write (of its kind) to lie about.
    fn lies(&self, nodes: &mut Nodes, manner: Manner, each: u64) -> bool {
        nodes.writes += u64::from(self.manner == manner);
        self.manner == manner && nodes.writes.is_multiple_of(each)
    }

    fn create(
        &self,
        nodes: &mut Nodes,
        path: &str,
        data: &[u8],
        flags: i32,
        zxid: i64,
        session: SessionId,
    ) -> Result<String, ErrorCode> {
        let mut path = path.to_owned();
        if flags & 2 != 0 {
            nodes.sequence += 1;
            let twice = self.lies(nodes, Manner::RepeatsNumbers, 10);
            path = format!("{path}{:010}", nodes.sequence - i32::from(twice));
            if twice {
                nodes.by_path.remove(&path);
            }
        }
        if nodes.by_path.contains_key(&path) {
            return Err(ErrorCode::NODE_EXISTS);
        }
        let owner = match (flags & 1, self.manner) {
            (0, _) => SessionId(0),
            (_, Manner::WrongOwner) => SessionId(session.0 + 1),
            _ => session,
        };
        let stat = Stat { czxid: Zxid(zxid), mzxid: Zxid(zxid), ephemeral_owner: owner, ..Stat::default() };
        // Not of the layout, which is not checked.
        let of_the_load = path.contains("/created/c") || path.contains("/sequence/s");
        let data = if of_the_load && self.lies(nodes, Manner::EmptiesCreates, 10) { &[] } else { data };
        if of_the_load && self.lies(nodes, Manner::InventsNodes, 10) {
            nodes.by_path.insert(format!("{path}-too"), (Vec::new(), stat));
        }
        if !(of_the_load && self.lies(nodes, Manner::ForgetsCreates, 10)) {
            nodes.by_path.insert(path.clone(), (data.to_vec(), stat));
        }
        self.fire_parent(nodes, &path, zxid);
        Ok(path)
    }

    fn set(&self, nodes: &mut Nodes, path: &str, data: &[u8], zxid: i64) -> Option<Stat> {
        let skips = i32::from(self.lies(nodes, Manner::SkipsVersions, 50));
        let forgets = self.lies(nodes, Manner::ForgetsSets, 50);
        let old_stat = self.lies(nodes, Manner::OldStats, 50);
        let (own, stat) = nodes.by_path.get_mut(path)?;
        let before = *stat;
        let new = Stat { mzxid: Zxid(zxid), version: stat.version + 1 + skips, ..*stat };
        if !forgets {
            *stat = new;
            *own = data.to_vec();
        }
        // Type 3 is a change of data.
        self.fire(nodes, path, false, 3, zxid);
        Some(if old_stat { before } else { new })
    }

    /// Sends the event of this type to whoever watches `path`, or its children.
    fn fire(&self, nodes: &mut Nodes, path: &str, children: bool, kind: i32, zxid: i64) {
        for watcher in nodes.watches.remove(&(path.to_owned(), children)).unwrap_or_default() {
            nodes.events += 1;
            if self.manner == Manner::LosesEvents && nodes.events.is_multiple_of(10) {
                continue;
            }
            let mut out = Vec::new();
            let header = ReplyHeader { xid: Xid::NOTIFICATION, zxid: Zxid(zxid), err: ErrorCode::OK };
            reply::write(&mut out, header, |out| {
                out.put_i32(kind);
                // State 3 is a connected session.
                out.put_i32(3);
                put_text(out, path);
            });
            // A watcher that is gone hears nothing.
            let _ = watcher.lock().unwrap().write_all(&out);
        }
    }

    /// The children of its parent have changed.
    fn fire_parent(&self, nodes: &mut Nodes, path: &str, zxid: i64) {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
        self.fire(nodes, &parent, true, 4, zxid);
    }

    fn act(
        &self,
        nodes: &mut Nodes,
        request: &Request<'_>,
        zxid: i64,
        session: SessionId,
        wire: &Wire,
    ) -> (ErrorCode, Option<Vec<u8>>) {
        let encode = |reply: Reply<'_>| {
            let mut out = Vec::new();
            reply.encode(&mut out);
            (ErrorCode::OK, Some(out))
        };
        let watch = |nodes: &mut Nodes, path: &str, children| {
            nodes.watches.entry((path.to_owned(), children)).or_default().push(wire.clone());
        };
        match request {
            Request::Create(_, create) => {
                let data = create.data.unwrap_or_default();
                match self.create(nodes, &create.path, data, create.flags, zxid, session) {
                    Ok(path) => encode(Reply::Path(Some(path.into()))),
                    Err(code) => (code, None),
                }
            }
            Request::Delete(delete) => match nodes.by_path.remove(delete.path.as_ref()) {
                Some(_) => {
                    self.fire(nodes, &delete.path, false, 2, zxid);
                    self.fire_parent(nodes, &delete.path, zxid);
                    (ErrorCode::OK, None)
                }
                None => (ErrorCode::NO_NODE, None),
            },
            Request::SetData(set) => match self.set(nodes, &set.path, set.data.unwrap_or_default(), zxid) {
                Some(stat) => encode(Reply::Stat(stat)),
                None => (ErrorCode::NO_NODE, None),
            },
            Request::GetData(read) => {
                if read.watch {
                    watch(nodes, &read.path, false);
                }
                let garbles = read.path.contains("/keys/") && self.lies(nodes, Manner::GarblesReads, 50);
                match nodes.by_path.get(read.path.as_ref()) {
                    Some((data, stat)) => {
                        let mut data = data.clone();
                        if let Some(byte) = data.get_mut(30).filter(|_| garbles) {
                            *byte ^= 0x55;
                        }
                        let stat = Stat { data_length: data.len() as i32, ..*stat };
                        encode(Reply::Data(Some(&data), stat))
                    }
                    None => (ErrorCode::NO_NODE, None),
                }
            }
            Request::Exists(read) => {
                if read.watch {
                    watch(nodes, &read.path, false);
                }
                match nodes.by_path.get(read.path.as_ref()) {
                    Some((_, stat)) => encode(Reply::Stat(*stat)),
                    None => (ErrorCode::NO_NODE, None),
                }
            }
            Request::GetChildren(read) | Request::GetChildren2(read) => {
                if read.watch {
                    watch(nodes, &read.path, true);
                }
                if !nodes.by_path.contains_key(read.path.as_ref()) {
                    return (ErrorCode::NO_NODE, None);
                }
                let parent = format!("{}/", read.path);
                let below = nodes.by_path.keys().filter_map(|path| path.strip_prefix(&parent));
                let names =
                    below.filter(|name| !name.contains('/')).map(|name| name.to_owned().into()).collect();
                encode(Reply::Names(names))
            }
            Request::Ping | Request::CloseSession => (ErrorCode::OK, None),
            Request::Sync(path) => encode(Reply::Path(path.clone())),
            _ => (ErrorCode::UNIMPLEMENTED, None),
        }
    }
}
