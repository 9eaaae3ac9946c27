//! Several `Links` in one thread, each on its own ports of loopback, driven turn by turn.

use crate::peers::{DEADLINE, server::free_port};
use bytes::{BufMut, Bytes};
use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};
use zkfast::{
    config::ensemble::PeerAddress,
    links::{LinkOptions, Links, PeerAddresses},
};
use zkfast_wire::{Epoch, Notification, Packet, ServerId, Zxid, vote::ServerState};
use zkfast_zab::{Event, LinkId};

/// How long one turn waits when nothing happens: the others in this thread want their turns.
const TURN: Duration = Duration::from_millis(1);

/// One server's links and what came of them.
pub struct Host {
    pub id: ServerId,
    pub links: Links,
    /// Everything so far.
    pub events: Vec<Event>,
    pub bell: UnixStream,
}

/// Servers 1 to `count` on loopback.
pub fn ensemble(count: i64) -> PeerAddresses {
    (1..=count).map(|id| (ServerId(id), vec![address("127.0.0.1")])).collect()
}

/// Free ports of a host.
pub fn address(host: &str) -> PeerAddress {
    PeerAddress { host: host.to_owned(), quorum_port: free_port(), election_port: free_port() }
}

/// The options of most tests: ticks of 200 ms, five of them for everything.
pub fn options(ensemble: &PeerAddresses, id: i64) -> LinkOptions {
    LinkOptions::new(ServerId(id), ensemble.clone(), 200, 5, 5)
}

impl Host {
    pub fn open(options: LinkOptions) -> Self {
        let (bell, far) = UnixStream::pair().expect("a bell");
        let id = options.me;
        let links = Links::open(options, &far).unwrap_or_else(|error| panic!("server {id}: {error}"));
        Self { id, links, events: Vec::new(), bell }
    }

    /// One turn; the place of its first event in `events`.
    pub fn turn(&mut self) -> usize {
        let first = self.events.len();
        self.links.flush();
        self.links.sleep(TURN).expect("epoll");
        self.links.receive(&mut self.events).expect("bound ports");
        self.links.flush();
        first
    }

    pub fn ring(&mut self) {
        self.bell.write_all(&[1]).expect("the bell");
    }

    /// Votes heard, with who said them.
    pub fn votes(&self) -> impl Iterator<Item = (ServerId, &Notification)> {
        self.events.iter().filter_map(|event| match event {
            Event::Notification { from, notification } => Some((*from, notification)),
            _ => None,
        })
    }

    /// Packets received on any link.
    pub fn packets(&self) -> impl Iterator<Item = &Packet> {
        self.events.iter().filter_map(|event| match event {
            Event::Packet { packet, .. } => Some(packet),
            _ => None,
        })
    }

    /// The last link that came up and has not gone down.
    pub fn link(&self) -> Option<LinkId> {
        self.events.iter().rev().find_map(|event| match event {
            Event::Up { link, .. } if !self.events.contains(&Event::Down { link: *link }) => Some(*link),
            _ => None,
        })
    }

    pub fn has(&self, event: &Event) -> bool {
        self.events.contains(event)
    }

    /// A plain socket to this server's quorum port.
    pub fn call_quorum_port(&self, ensemble: &PeerAddresses) -> TcpStream {
        let line = &ensemble[&self.id][0];
        TcpStream::connect((line.host.as_str(), line.quorum_port)).expect("the quorum port")
    }

    /// A plain socket to this server's election port.
    pub fn call_election_port(&self, ensemble: &PeerAddresses) -> TcpStream {
        let line = &ensemble[&self.id][0];
        TcpStream::connect((line.host.as_str(), line.election_port)).expect("the election port")
    }
}

/// Takes turns until `done`; `what` says what did not come.
pub fn run(hosts: &mut [&mut Host], what: &str, mut done: impl FnMut(&mut [&mut Host]) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done(hosts) {
        for host in hosts.iter_mut() {
            host.turn();
        }
        if Instant::now() > deadline {
            let events: Vec<_> = hosts.iter().map(|host| (host.id, last(&host.events))).collect();
            panic!("{what}: not within {DEADLINE:?}; last events: {events:?}");
        }
    }
}

/// Takes turns for a while, where a test must see that something does not happen.
pub fn run_for(hosts: &mut [&mut Host], time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        for host in hosts.iter_mut() {
            host.turn();
        }
    }
}

fn last(events: &[Event]) -> &[Event] {
    &events[events.len().saturating_sub(8)..]
}

/// A vote for `leader` in round `round`.
pub fn vote(leader: i64, round: i64) -> Notification {
    Notification {
        state: ServerState::Looking,
        leader: ServerId(leader),
        zxid: Zxid(7),
        election_epoch: round,
        peer_epoch: Epoch(0),
        version: Notification::VERSION,
        config: Some(Bytes::from_static(b"version=0")),
    }
}

/// Appends a vote as it lies on an election connection.
pub fn send_vote(out: &mut Vec<u8>, notification: &Notification) {
    let mut message = Vec::new();
    notification.encode(&mut message);
    out.put_i32(i32::try_from(message.len()).expect("a short vote"));
    out.extend(message);
}

/// Reads one vote of an election connection.
pub fn read_vote(stream: &mut TcpStream) -> Notification {
    stream.set_nonblocking(false).expect("a socket");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("the length of a vote");
    let mut message = vec![0; usize::try_from(i32::from_be_bytes(length)).expect("a length")];
    stream.read_exact(&mut message).expect("a vote");
    Notification::decode(&Bytes::from(message)).expect("a vote")
}
