//! Servers of an ensemble that do what a test tells them: they vote, lead, follow or say nothing, in the words of
//! Apache's protocol.

use crate::peers::DEADLINE;
use bytes::{BufMut, Bytes, BytesMut};
use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};
use zkfast_tree::{Ask, Tree, TreeConfig};
use zkfast_wire::{
    Decoder, Epoch, Notification, OpCode, Packet, Request, ServerId, Zxid,
    quorum::{Direction, ForwardedRequest, LearnerInfo},
    vote::{Greeting, ServerState},
};

/// A listener that takes no connection, and refuses none: its queue is full, so that the kernel drops who knocks.
pub struct DeafPort {
    _listener: socket2::Socket,
    _queue: Vec<socket2::Socket>,
}

impl DeafPort {
    pub fn at(port: u16) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into();
        let socket =
            || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        let listener = socket();
        listener.bind(&address).expect("a free port");
        listener.listen(0).expect("a listener");
        // More than wait for a listener that wants none.
        let queue: Vec<_> = (0..4)
            .map(|_| {
                let caller = socket();
                let _ = caller.connect_timeout(&address, Duration::from_millis(100));
                caller
            })
            .collect();
        Self { _listener: listener, _queue: queue }
    }
}

/// One end of a connection in whole messages.
struct Wire {
    stream: TcpStream,
    bytes: BytesMut,
}

impl Wire {
    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket");
        Self { stream, bytes: BytesMut::new() }
    }

    /// The next message, as `cut` finds it at the start of what was read; `None` if it does not come within `limit`.
    ///
    /// # Errors
    /// The other side has closed.
    fn next<T>(
        &mut self,
        limit: Duration,
        cut: impl Fn(&Bytes) -> Option<(T, usize)>,
    ) -> io::Result<Option<T>> {
        let deadline = Instant::now() + limit;
        loop {
            let all = self.bytes.clone().freeze();
            if let Some((message, taken)) = cut(&all) {
                drop(self.bytes.split_to(taken));
                return Ok(Some(message));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left)).expect("a timeout");
            let mut chunk = [0; 16_384];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.bytes.extend_from_slice(&chunk[..read]),
                Err(error)
                    if [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind()) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A voter's election connection to the server under test, which has a smaller number.
pub struct Voter(Wire);

impl Voter {
    /// Voter `id` opens its connection with the server that listens at `port`.
    pub fn call(id: i64, port: u16) -> Self {
        let deadline = Instant::now() + DEADLINE;
        let stream = loop {
            match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "nobody listens for votes: {error}"),
            }
            // Polled: the server has just been started.
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut greeting = Vec::new();
        // Nobody needs to dial back to it.
        Greeting { server: Some(ServerId(id)), addresses: vec!["127.0.0.1:1".to_owned()] }
            .encode(&mut greeting);
        let mut wire = Wire::new(stream);
        wire.stream.write_all(&greeting).expect("an open connection");
        Self(wire)
    }

    /// Says that it follows, or is, the leader of this reign.
    pub fn settled(&mut self, state: ServerState, leader: i64, epoch: i64) {
        let notification = Notification {
            state,
            leader: ServerId(leader),
            zxid: Zxid::new(Epoch(epoch), 0),
            election_epoch: 1,
            peer_epoch: Epoch(epoch),
            version: Notification::VERSION,
            config: None,
        };
        let (mut body, mut message) = (Vec::new(), Vec::new());
        notification.encode(&mut body);
        message.put_i32(i32::try_from(body.len()).expect("a short vote"));
        message.extend(body);
        self.0.stream.write_all(&message).expect("an open connection");
    }

    /// What the server says next, if it says anything within `limit`.
    pub fn hears(&mut self, limit: Duration) -> Option<Notification> {
        let cut = |bytes: &Bytes| {
            let length = usize::try_from(i32::from_be_bytes(*bytes.first_chunk()?)).expect("a length");
            let message = (bytes.len() >= 4 + length).then(|| bytes.slice(4..4 + length))?;
            Some((Notification::decode(&message).expect("a vote"), 4 + length))
        };
        self.0.next(limit, cut).expect("the connection stays")
    }

    /// Waits until the server looks for a leader in a later round than `round`; in which.
    pub fn await_search(&mut self, round: i64) -> i64 {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let heard = self.hears(deadline.saturating_duration_since(Instant::now())).expect("a search");
            if heard.state == ServerState::Looking && heard.election_epoch > round {
                return heard.election_epoch;
            }
        }
    }
}

/// A learner connection.
pub struct Link {
    wire: Wire,
    /// What the other side sends.
    hears: Direction,
}

impl Link {
    /// The connection of the server under test, which dials its leader.
    pub fn accept(listener: &TcpListener) -> Self {
        listener.set_nonblocking(true).expect("a socket");
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(false).expect("a socket");
                return Self { wire: Wire::new(stream), hears: Direction::ToLeader };
            }
            assert!(Instant::now() < deadline, "nobody dials the leader");
            // Polled: std has no accept with a limit.
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A learner that dials the leader under test.
    pub fn dial(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the quorum port");
        Self { wire: Wire::new(stream), hears: Direction::ToLearner }
    }

    pub fn say(&mut self, packet: &Packet) {
        let mut bytes = Vec::new();
        packet.encode(&mut bytes);
        // Where the other side has closed, the next word that is waited for tells.
        let _ = self.wire.stream.write_all(&bytes);
    }

    /// All of a packet but its last byte.
    pub fn begin_to_say(&mut self, packet: &Packet) {
        let mut bytes = Vec::new();
        packet.encode(&mut bytes);
        let _ = self.wire.stream.write_all(&bytes[..bytes.len() - 1]);
    }

    /// The next packet within `limit`, if one comes.
    ///
    /// # Errors
    /// The other side has closed.
    pub fn hears(&mut self, limit: Duration) -> io::Result<Option<Packet>> {
        let direction = self.hears;
        self.wire.next(limit, |bytes| Packet::decode(bytes, direction, 1 << 20).expect("a packet"))
    }

    /// The next packet that `wanted` takes; others are passed over.
    pub fn expect<T>(&mut self, what: &str, wanted: impl Fn(Packet) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let packet = self.hears(left).unwrap_or_else(|error| panic!("{what}: {error}"));
            let packet = packet.unwrap_or_else(|| panic!("no {what} in time"));
            if let Some(found) = wanted(packet) {
                return found;
            }
        }
    }

    /// How long the other side goes on from `begun` before it closes, while this one answers each packet with what `answer`
    /// says.
    pub fn until_closed(
        &mut self,
        begun: Instant,
        mut answer: impl FnMut(Packet) -> Option<Packet>,
    ) -> Duration {
        loop {
            match self.hears(DEADLINE.saturating_sub(begun.elapsed())) {
                Ok(Some(packet)) => {
                    if let Some(packet) = answer(packet) {
                        self.say(&packet);
                    }
                }
                Ok(None) => panic!("not closed within {DEADLINE:?}"),
                Err(_) => return begun.elapsed(),
            }
        }
    }

    /// Follows the leader under test as voter `id`, up to NEWLEADER; the epoch.
    pub fn join(&mut self, id: i64) -> Epoch {
        self.introduce(id, false);
        let epoch = self.promise(Zxid::ZERO);
        self.expect("NEWLEADER", |packet| matches!(packet, Packet::NewLeader { .. }).then_some(()));
        epoch
    }

    /// The same as an observer.
    pub fn observe(&mut self, id: i64) -> Epoch {
        self.introduce(id, true);
        let epoch = self.promise(Zxid::ZERO);
        self.expect("NEWLEADER", |packet| matches!(packet, Packet::NewLeader { .. }).then_some(()));
        epoch
    }

    /// Asks for an image, and reads SNAP alone of what comes.
    pub fn ask_for_an_image(&mut self, id: i64) {
        self.introduce(id, false);
        self.promise(Zxid(-1));
        self.expect("SNAP", |packet| matches!(packet, Packet::Snap { .. }).then_some(()));
    }

    /// Whether the other side has not closed.
    pub fn is_open(&self) -> bool {
        self.wire.stream.set_nonblocking(true).expect("a socket");
        let open = !matches!(self.wire.stream.peek(&mut [0]), Ok(0));
        self.wire.stream.set_nonblocking(false).expect("a socket");
        open
    }

    /// FOLLOWERINFO or OBSERVERINFO.
    pub fn introduce(&mut self, id: i64, observer: bool) {
        self.say(&Packet::LearnerInfo(LearnerInfo {
            server: Some(ServerId(id)),
            protocol_version: 0x10000,
            config_version: 0,
            observer,
            accepted_epoch: Epoch(0),
        }));
    }

    fn promise(&mut self, last: Zxid) -> Epoch {
        let epoch = self.expect("LEADERINFO", |packet| match packet {
            Packet::LeaderInfo { epoch, .. } => Some(epoch),
            _ => None,
        });
        self.say(&Packet::AckEpoch { last, current_epoch: Some(Epoch(0)) });
        epoch
    }
}

/// A leader whose learner is the server under test; it orders what it wants.
pub struct Leader {
    pub link: Link,
    epoch: Epoch,
    tree: Tree,
    last: Zxid,
}

impl Leader {
    /// Brings a learner with an empty history up to UPTODATE.
    pub fn lead(mut link: Link, epoch: i64) -> Self {
        let epoch = Epoch(epoch);
        link.expect("FOLLOWERINFO", |packet| matches!(packet, Packet::LearnerInfo(_)).then_some(()));
        link.say(&Packet::LeaderInfo { epoch, protocol_version: 0x10000 });
        let last = link.expect("ACKEPOCH", |packet| match packet {
            Packet::AckEpoch { last, .. } => Some(last),
            _ => None,
        });
        assert_eq!(last, Zxid::ZERO, "it has no history");
        link.say(&Packet::Diff { zxid: Zxid::ZERO });
        link.say(&Packet::NewLeader { epoch, config: None });
        link.expect("ACK", |packet| matches!(packet, Packet::Ack { .. }).then_some(()));
        link.say(&Packet::UpToDate);
        Self { link, epoch, tree: Tree::new(TreeConfig::default()), last: Zxid::new(epoch, 0) }
    }

    /// The next request of a client of the learner.
    pub fn request(&mut self) -> ForwardedRequest {
        self.link.expect("REQUEST", |packet| match packet {
            Packet::Request(request) => Some(*request),
            _ => None,
        })
    }

    /// Makes it a transaction, and commits that.
    pub fn order(&mut self, request: &ForwardedRequest) {
        let zxid = self.last.next().expect("a short test");
        let op = OpCode::from_i32(request.op).expect("an operation");
        let decoded = Request::decode(op, &mut Decoder::new(&request.body)).expect("a request");
        let ask = Ask {
            session: request.session,
            cxid: request.cxid,
            zxid,
            time_ms: 1,
            op,
            request: &decoded,
            identities: &request.identities,
        };
        let mut record = Vec::new();
        self.tree.prepare(&ask, &mut record);
        let record = Bytes::from(record);
        self.tree.apply(&record).expect("a transaction");
        self.last = zxid;
        self.link.say(&Packet::Proposal { zxid, record });
        self.link.say(&Packet::Commit { zxid });
    }

    /// Says that it is there.
    pub fn ping(&mut self) {
        let zxid = Zxid::new(self.epoch, 0);
        self.link.say(&Packet::Ping { zxid, touched: None });
    }
}
