//! Election connections (rows Q11-Q18; ZooKeeper's `QuorumCnxManager`): one for each pair of servers.
//!
//! The one that survives was opened by the server with the larger id (Q13). So the server with the smaller id only
//! knocks: it connects, says who it is, closes, and the other one dials back.
//!
//! For each peer one message at most waits, the newest (Q16): what a server said about an older vote is of no use.

use super::{
    dial::{Dial, DialFailure, Opened, address_told},
    ground::{DialOwner, Ground, Place},
    names::Found,
    peer::{Peer, Standing},
    poller::{Ready, Token},
    quorum::is_transient,
};
use crate::{
    config::{
        ensemble::{HostPort, PeerAddress},
        limits,
    },
    status::links::{LinkTroubles, PeerFigures},
};
use bytes::{BufMut, Bytes};
use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};
use zkfast_wire::{Notification, ServerId, vote::Greeting};
use zkfast_zab::Event;

/// A connection younger than this is not given up because its peer knocks: both have dialled at the same moment, and the
/// knock is older than the connection. A peer that really lost it knocks again.
const CROSSING: Duration = Duration::from_secs(1);

/// Bytes of the longest greeting.
const GREETING_BYTES_MAX: usize = Greeting::HEAD_BYTES + Greeting::ADDRESS_BYTES_MAX;

/// Somebody who has not said yet who it is.
struct Caller {
    stream: TcpStream,
    address: SocketAddr,
    bytes: Vec<u8>,
    deadline: Instant,
}

#[derive(Default)]
pub(super) struct Election {
    peers: BTreeMap<ServerId, Peer>,
    callers: BTreeMap<Token, Caller>,
    /// Observers without a number so far (Q14).
    nameless: i64,
    dirty: Vec<ServerId>,
    own_id_told: bool,
    pub(super) troubles: LinkTroubles,
}

impl Election {
    /// Takes over a set of servers. Connections of those that are in both stay; those that have gone stay as long as
    /// the other side keeps them.
    pub(super) fn configure(&mut self, ground: &Ground) {
        for peer in self.peers.values_mut() {
            peer.configured.clear();
        }
        for (&id, addresses) in &ground.options.addresses {
            if id != ground.options.me {
                let addresses = addresses.iter().map(election_address).collect();
                self.peers.entry(id).or_insert_with(|| Peer::new(id)).configured = addresses;
            }
        }
    }

    // What the order asks for

    /// Queues a message for a peer in place of the one that waits, and connects if there is no connection.
    pub(super) fn notify(&mut self, to: ServerId, notification: &Notification, ground: &mut Ground) {
        let mut message = Vec::with_capacity(
            4 + Notification::HEAD_BYTES + notification.config.as_ref().map_or(0, Bytes::len),
        );
        message.put_i32(0);
        notification.encode(&mut message);
        let length = message.len() - 4;
        if length > Notification::MESSAGE_BYTES_MAX {
            log::error!("a vote of {length} bytes is longer than the election port takes: not sent");
            return;
        }
        message[..4].copy_from_slice(&(length as i32).to_be_bytes());
        let Some(peer) = self.peers.get_mut(&to) else {
            log::debug!("server {to} is unknown and has no connection: nothing to send it a vote by");
            return;
        };
        peer.queued = Some(message.into());
        if peer.is_up() {
            self.mark_dirty(to);
        } else {
            peer.hurry(ground.now);
            self.tend_peer(to, ground);
        }
    }

    // Callers

    /// Somebody came to the election port.
    pub(super) fn accepted(&mut self, stream: TcpStream, address: SocketAddr, ground: &mut Ground) {
        if self.callers.len() >= limits::ELECTION_CALLERS_MAX
            && let Some(oldest) = self.callers.keys().next().copied()
        {
            self.troubles.refused += 1;
            self.hang_up(oldest, ground);
        }
        let watched =
            stream.set_nonblocking(true).and_then(|()| ground.watch(&stream, Place::Caller, true, false));
        match watched {
            Ok(token) => {
                let deadline = ground.now + ground.options.greeting_limit;
                self.callers.insert(token, Caller { stream, address, bytes: Vec::new(), deadline });
            }
            Err(error) => log::warn!("a caller at {address} cannot be served: {error}"),
        }
    }

    fn hang_up(&mut self, token: Token, ground: &mut Ground) {
        if let Some(caller) = self.callers.remove(&token) {
            ground.unwatch(&caller.stream, token);
        }
    }

    pub(super) fn caller_ready(&mut self, token: Token, ground: &mut Ground, events: &mut Vec<Event>) {
        let Some(caller) = self.callers.get_mut(&token) else { return };
        let read = match caller.stream.read(&mut ground.scratch[..GREETING_BYTES_MAX]) {
            Ok(0) => {
                log::debug!("{} called on the election port and said nothing", caller.address);
                return self.hang_up(token, ground);
            }
            Ok(read) => read,
            Err(error) if is_transient(&error) => return,
            Err(error) => {
                log::debug!("{} called on the election port: {error}", caller.address);
                return self.hang_up(token, ground);
            }
        };
        caller.bytes.extend_from_slice(&ground.scratch[..read]);
        match Greeting::decode(&caller.bytes) {
            Ok(None) => {}
            Ok(Some((greeting, taken))) => {
                let mut caller = self.callers.remove(&token).expect("looked up above");
                caller.bytes.drain(..taken);
                self.greeted(&greeting, caller, token, ground, events);
            }
            Err(error) => {
                self.troubles.garbage += 1;
                log::warn!("{} on the election port is no server of an ensemble: {error}", caller.address);
                self.hang_up(token, ground);
            }
        }
    }

    /// Row Q13.
    fn greeted(
        &mut self,
        greeting: &Greeting,
        caller: Caller,
        token: Token,
        ground: &mut Ground,
        events: &mut Vec<Event>,
    ) {
        let me = ground.options.me;
        let id = greeting.server.unwrap_or_else(|| {
            self.nameless -= 1;
            ServerId(self.nameless)
        });
        if id == me {
            ground.unwatch(&caller.stream, token);
            if !std::mem::replace(&mut self.own_id_told, true) {
                log::warn!(
                    "{} calls itself server {me}, as this one does: two servers have the same myid",
                    caller.address
                );
            }
            return;
        }
        if !self.peers.contains_key(&id) {
            if self.peers.len() >= limits::ELECTION_PEERS_MAX {
                self.troubles.refused += 1;
                ground.unwatch(&caller.stream, token);
                return;
            }
            self.peers.insert(id, Peer::new(id));
        }
        let peer = self.peers.get_mut(&id).expect("inserted above");
        peer.told = greeting.addresses.iter().filter_map(|address| address_told(address)).collect();
        // Whoever has no number counts as larger than all: it has Long.MAX_VALUE on the wire.
        if id > me || greeting.server.is_none() {
            let opened = Opened { stream: caller.stream, token, address: caller.address };
            return self.adopt(id, opened, &caller.bytes, Vec::new(), ground, events);
        }
        ground.unwatch(&caller.stream, token);
        drop(caller);
        if peer.is_up_for(ground.now).is_some_and(|age| age < CROSSING) {
            return;
        }
        // It dials because it has no connection; what this side takes for one is dead.
        if peer.disconnect(ground) {
            events.push(Event::PeerDown { peer: id });
        }
        peer.hurry(ground.now);
        self.tend_peer(id, ground);
    }

    // Connections

    /// A connection with this peer is up: the one that stays.
    fn adopt(
        &mut self,
        id: ServerId,
        opened: Opened,
        read_already: &[u8],
        first: Vec<u8>,
        ground: &mut Ground,
        events: &mut Vec<Event>,
    ) {
        let peer = self.peers.get_mut(&id).expect("only known peers are adopted");
        let Opened { stream, token, address } = opened;
        if let Err(error) = ground.hand_over(&stream, token, Place::Peer(id)) {
            log::warn!("the connection with server {id} at {address} cannot be used: {error}");
            ground.unwatch(&stream, token);
            return self.rest(id, ground);
        }
        peer.connect(stream, token, address, first, ground);
        events.push(Event::PeerUp { peer: id });
        self.mark_dirty(id);
        self.feed(id, read_already, ground, events);
    }

    pub(super) fn peer_ready(
        &mut self,
        id: ServerId,
        ready: Ready,
        ground: &mut Ground,
        events: &mut Vec<Event>,
    ) {
        if ready.writable {
            self.mark_dirty(id);
        }
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| ready.readable && peer.holds(ready.token))
        else {
            return;
        };
        match peer.read(&mut ground.scratch) {
            Ok(0) => self.fall(id, "the other side closed it", ground, events),
            Ok(read) => {
                let scratch = std::mem::take(&mut ground.scratch);
                self.feed(id, &scratch[..read], ground, events);
                ground.scratch = scratch;
            }
            Err(error) if is_transient(&error) => {}
            Err(error) => self.fall(id, &error.to_string(), ground, events),
        }
    }

    fn feed(&mut self, id: ServerId, read: &[u8], ground: &mut Ground, events: &mut Vec<Event>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let fed = peer.feed(read, |message| match Notification::decode(&message) {
            Ok(notification) => events.push(Event::Notification { from: id, notification }),
            // As in Apache: the message is dropped, the connection stays (Q19).
            Err(error) => log::warn!("a vote of server {id} cannot be read: {error}"),
        });
        if let Err(length) = fed {
            self.troubles.garbage += 1;
            self.fall(id, &format!("a vote of {length} bytes is impossible"), ground, events);
        }
    }

    fn mark_dirty(&mut self, id: ServerId) {
        if !self.dirty.contains(&id) {
            self.dirty.push(id);
        }
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self, ground: &mut Ground, events: &mut Vec<Event>) {
        for id in std::mem::take(&mut self.dirty) {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            if let Err(error) = peer.flush(ground) {
                self.fall(id, &error.to_string(), ground, events);
            }
        }
    }

    fn fall(&mut self, id: ServerId, reason: &str, ground: &mut Ground, events: &mut Vec<Event>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.disconnect(ground) {
            events.push(Event::PeerDown { peer: id });
            peer.say(Standing::Lost(reason.to_owned()));
        }
        self.rest(id, ground);
    }

    /// What becomes of a peer without a connection and without a dial.
    fn rest(&mut self, id: ServerId, ground: &Ground) {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| !peer.is_up() && peer.dial.is_none()) else {
            return;
        };
        if peer.configured.is_empty() {
            // Nobody knew it but for its connection.
            self.peers.remove(&id);
        } else {
            peer.dial_again(ground);
        }
    }

    // Dials

    pub(super) fn dial_ready(
        &mut self,
        id: ServerId,
        ready: Ready,
        ground: &mut Ground,
        events: &mut Vec<Event>,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Some(opened) = peer.dial.as_mut().and_then(|dial| dial.ready(ready.token, ground)) {
            self.opened(id, opened, ground, events);
        }
    }

    pub(super) fn name_found(&mut self, host: &str, found: &Found) {
        for dial in self.peers.values_mut().filter_map(|peer| peer.dial.as_mut()) {
            dial.name_found(host, found);
        }
    }

    /// Moves dials on, starts those that are due, and hangs up on who says nothing.
    pub(super) fn tend(&mut self, ground: &mut Ground) {
        let (now, may_call) = (ground.now, ground.is_reachable);
        let due: Vec<ServerId> = self
            .peers
            .values()
            .filter(|peer| peer.needs_tending(now, may_call))
            .map(|peer| peer.id)
            .collect();
        for id in due {
            self.tend_peer(id, ground);
        }
        let silent: Vec<Token> = self
            .callers
            .iter()
            .filter(|(_, caller)| ground.now >= caller.deadline)
            .map(|(token, _)| *token)
            .collect();
        for token in silent {
            self.troubles.silent += 1;
            self.hang_up(token, ground);
        }
    }

    fn tend_peer(&mut self, id: ServerId, ground: &mut Ground) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.dial.is_none() {
            if !ground.is_reachable || !peer.is_dial_due(ground.now) {
                return;
            }
            let limit = ground.options.election_dial_limit;
            peer.dial = Some(Dial::start(DialOwner::Peer(id), peer.addresses(), limit, ground));
            peer.retry_at = None;
        }
        let Some(dial) = &mut peer.dial else { return };
        if let Err(failure) = dial.progress(ground) {
            self.dial_failed(id, &failure, ground);
        }
    }

    fn dial_failed(&mut self, id: ServerId, failure: &DialFailure, ground: &mut Ground) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.dial = None;
        peer.say(Standing::Unreachable(failure.to_string()));
        self.rest(id, ground);
    }

    fn opened(&mut self, id: ServerId, opened: Opened, ground: &mut Ground, events: &mut Vec<Event>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Some(mut dial) = peer.dial.take() {
            dial.cancel(ground);
        }
        if peer.is_up() {
            // It was faster. To greet it now would make it give up the connection that stands.
            ground.unwatch(&opened.stream, opened.token);
            return;
        }
        let greeting = own_greeting(ground);
        if ground.options.me > id {
            return self.adopt(id, opened, &[], greeting, ground, events);
        }
        // Only a knock: who has the larger id dials back.
        let address = opened.address;
        ground.unwatch(&opened.stream, opened.token);
        match knock(opened.stream, &greeting) {
            Ok(()) => peer.knocked(ground.now),
            Err(error) => {
                let failure = DialFailure::Connect(address, error.kind(), error.to_string());
                self.dial_failed(id, &failure, ground);
            }
        }
    }

    pub(super) fn look_at(&self, ground: &Ground) -> Option<Instant> {
        let peers = self.peers.values().filter_map(|peer| peer.look_at(ground.is_reachable));
        peers.chain(self.callers.values().map(|caller| caller.deadline)).min()
    }

    pub(super) fn figures(&self, now: Instant) -> Vec<PeerFigures> {
        self.peers.values().map(|peer| peer.figures(now)).collect()
    }
}

fn election_address(address: &PeerAddress) -> HostPort {
    HostPort { host: address.host.clone(), port: address.election_port }
}

/// Row Q11. All of it in one write: Apache reads it with one read.
fn own_greeting(ground: &Ground) -> Vec<u8> {
    let me = ground.options.me;
    let addresses = ground.options.addresses[&me].iter().map(|address| election_address(address).to_string());
    let mut bytes = Vec::new();
    Greeting { server: Some(me), addresses: addresses.collect() }.encode(&mut bytes);
    bytes
}

fn knock(mut stream: TcpStream, greeting: &[u8]) -> io::Result<()> {
    // A new socket takes two kilobytes at once; one that does not is of no use.
    if stream.write(greeting)? == greeting.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
