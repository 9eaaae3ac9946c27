//! The sockets between the servers of an ensemble, carrying Apache's own protocols: election connections (rows Q11-Q18)
//! and learner connections (rows Q30-Q46). Lives on the pipeline core, which sleeps here.
//!
//! A turn of the driver is: [`sleep`](Links::sleep), [`receive`](Links::receive), give the events to the order, carry
//! its effects out ([`send`](Links::send), [`notify`](Links::notify), ...), [`flush`](Links::flush). Nothing here waits
//! for another server, for a name or for a file: sockets do not block, names are looked up and files are read by threads
//! of their own, and everything that takes time has a deadline.
//!
//! Each queue is bounded: a learner that does not read is closed when too much waits for it ([`limits`]); an election
//! connection holds one message. What a peer claims is never believed: a packet beyond the bound, or bytes that are
//! none, close their link.
//!
//! ```text
//! mod        Links: the face to the pipeline     election, peer   votes: who keeps the connection, the newest message
//! ground     what all parts stand on             quorum           learners: packets, images, transfers
//! poller     one epoll, and its wake-up          inbox, outbox    bytes to packets; what waits to be sent
//! listener   the two ports                       stream, image    what threads read for a learner, and from a leader
//! dial       reaching a server                   names, threads   lookups, and where threads run
//! ```
//!
//! [`limits`]: crate::config::limits

mod dial;
mod election;
mod ground;
mod image;
mod inbox;
mod listener;
mod names;
mod options;
mod outbox;
mod peer;
mod poller;
mod quorum;
mod stream;
mod threads;

pub use image::{ImageEnd, ImageReader};
pub use names::{Names, SystemNames};
pub use options::{EXIT_CODE_OF_PORTS, LinkError, LinkOptions, PeerAddresses};
pub use poller::Waker;
pub use stream::Source;

use crate::{
    config::ensemble::{HostPort, PeerAddress},
    status::{links::LinksFigures, picture::LearnerPicture},
};
use bytes::Bytes;
use election::Election;
use ground::{DialOwner, Ground, Place};
use listener::{Listener, Port};
use quorum::{Quorum, put_packet};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};
use zkfast_wire::{Notification, Packet, ServerId, Zxid, quorum as wire};
use zkfast_zab::{Event, LinkId};

/// Every connection between this server and the others.
pub struct Links {
    ground: Ground,
    bell: OwnedFd,
    listeners: Vec<Listener>,
    election: Election,
    quorum: Quorum,
    /// What happened outside of `receive`.
    pending: Vec<Event>,
}

impl Links {
    /// Binds the election port and the quorum port, and begins to accept. `bell` is an eventfd or a socket that becomes readable when
    /// the pipeline is wanted; the links read from it whatever wakes them, and mean nothing by it.
    ///
    /// The threads that the links start later may run where the calling thread may: open them before pinning it.
    ///
    /// # Errors
    /// See [`LinkError`]. A port that is taken is tried again later, `bind_tries_max` times in all; an own name that does
    /// not resolve is looked up again until it does.
    pub fn open(options: LinkOptions, bell: impl AsFd) -> Result<Self, LinkError> {
        let me = options.me;
        let Some(own) = options.addresses.get(&me).cloned() else {
            return Err(LinkError::NotAMember(me));
        };
        let bell = bell.as_fd().try_clone_to_owned().map_err(LinkError::Poll)?;
        let mut ground = Ground::new(options).map_err(LinkError::Poll)?;
        ground.watch(&bell, Place::Bell, true, false).map_err(LinkError::Poll)?;
        let mut listeners = Self::listen(&own, &mut ground)?;
        open_up(&mut listeners, &mut ground)?;
        let mut election = Election::default();
        election.configure(&ground);
        Ok(Self { ground, bell, listeners, election, quorum: Quorum::default(), pending: Vec::new() })
    }

    fn listen(own: &[PeerAddress], ground: &mut Ground) -> Result<Vec<Listener>, LinkError> {
        let mut listeners: Vec<Listener> = Vec::new();
        for address in own {
            for (port, number) in
                [(Port::Election, address.election_port), (Port::Quorum, address.quorum_port)]
            {
                // On all addresses one listener serves all lines with that port.
                if ground.options.listen_on_all
                    && listeners.iter().any(|listener| listener.is_at(port, number))
                {
                    continue;
                }
                let host = HostPort { host: address.host.clone(), port: number };
                listeners.push(Listener::open(listeners.len(), port, host, ground)?);
            }
        }
        Ok(listeners)
    }

    /// Sleeps until a socket, the bell or a thread is ready, a deadline of the links has come, or `limit` is over. With a
    /// `limit` of zero it only looks. Call [`flush`](Self::flush) before.
    ///
    /// # Errors
    /// If the kernel refuses to wait: the process cannot go on.
    pub fn sleep(&mut self, limit: Duration) -> Result<(), LinkError> {
        let mut limit = if self.pending.is_empty() { limit } else { Duration::ZERO };
        if !limit.is_zero()
            && let Some(at) = self.look_at()
        {
            limit = limit.min(at.saturating_duration_since(Instant::now()));
        }
        self.ground.poller.wait(limit).map_err(LinkError::Poll)
    }

    fn look_at(&self) -> Option<Instant> {
        let listeners = self.listeners.iter().filter_map(Listener::look_at);
        listeners.chain(self.election.look_at(&self.ground)).chain(self.quorum.look_at()).min()
    }

    /// Appends what has happened since the last call: Up, Down, DialFailed, Packet, Transferred, PeerUp, PeerDown,
    /// Notification. Reads a bounded share of each socket that the last [`sleep`](Self::sleep) found ready.
    ///
    /// # Errors
    /// If a port cannot be bound for good: the server cannot take part.
    pub fn receive(&mut self, events: &mut Vec<Event>) -> Result<(), LinkError> {
        self.ground.now = Instant::now();
        events.append(&mut self.pending);
        for index in 0..self.ground.poller.ready_count() {
            let ready = self.ground.poller.ready(index);
            let Some(place) = self.ground.place(ready.token) else { continue };
            let ground = &mut self.ground;
            match place {
                Place::Bell => silence(&self.bell),
                Place::Waker => {
                    ground.waker.silence();
                    self.quorum.woken(ground, events);
                }
                Place::Listener(index) => self.accept(index, events),
                Place::Caller => self.election.caller_ready(ready.token, ground, events),
                Place::Peer(id) => self.election.peer_ready(id, ready, ground, events),
                Place::Dial(DialOwner::Peer(id)) => self.election.dial_ready(id, ready, ground, events),
                Place::Dial(DialOwner::Learner) => self.quorum.dial_ready(ready, ground, events),
                Place::Link(id) => self.quorum.ready(id, ready, ground, events),
            }
        }
        self.ground.poller.clear();
        for (host, found) in self.ground.lookups.take_finished() {
            self.election.name_found(&host, &found);
            self.quorum.name_found(&host, &found);
            for listener in &mut self.listeners {
                listener.name_found(&host, &found, &mut self.ground)?;
            }
        }
        self.election.tend(&mut self.ground);
        self.quorum.tend(&mut self.ground, events);
        for listener in &mut self.listeners {
            listener.tend(&mut self.ground)?;
        }
        open_up(&mut self.listeners, &mut self.ground)
    }

    fn accept(&mut self, index: usize, events: &mut Vec<Event>) {
        let Some(listener) = self.listeners.get_mut(index) else { return };
        let (ground, election, quorum) = (&mut self.ground, &mut self.election, &mut self.quorum);
        let port = listener.port;
        listener.accept(ground, |stream, address, ground| match port {
            Port::Election => election.accepted(stream, address, ground),
            Port::Quorum => quorum.accepted(stream, address, ground, events),
        });
    }

    /// Connects to a server's quorum port, resolving its names anew. Up or DialFailed follows, unless another dial is
    /// asked for before.
    pub fn dial(&mut self, leader: ServerId) {
        self.ground.now = Instant::now();
        self.quorum.dial(leader, &mut self.ground);
        self.quorum.tend(&mut self.ground, &mut self.pending);
    }

    /// Closes a link, what is queued for it included. No Down follows.
    pub fn close(&mut self, link: LinkId) {
        self.quorum.close(link, &mut self.ground);
    }

    /// Queues a message on a peer's election connection in place of the one that may wait there (row Q16), and dials if
    /// there is no connection. To this server itself it comes back with the next [`receive`](Self::receive).
    pub fn notify(&mut self, to: ServerId, notification: Notification) {
        self.ground.now = Instant::now();
        if to == self.ground.options.me {
            self.pending.push(Event::Notification { from: to, notification });
        } else {
            self.election.notify(to, &notification, &mut self.ground);
        }
    }

    /// Queues a packet. A record in it is not copied. On a link that has gone this does nothing: its Down is on the way.
    /// UPTODATE opens the link for what a learner's clients ask; before that a long packet of a learner closes it.
    pub fn send(&mut self, link: LinkId, packet: &Packet) {
        if matches!(packet, Packet::UpToDate) {
            self.quorum.serve(link);
        }
        self.quorum.put(link, 1, &self.ground, |outbox| put_packet(packet, outbox));
    }

    /// Queues a PROPOSAL; the record goes by reference (row Q31).
    pub fn send_proposal(&mut self, link: LinkId, zxid: Zxid, record: &Bytes) {
        let head = wire::proposal_head(zxid, record.len());
        self.quorum.put(link, 1, &self.ground, |outbox| outbox.put_record(head, record));
    }

    /// Queues an INFORM; the record goes by reference (row Q37).
    pub fn send_inform(&mut self, link: LinkId, zxid: Zxid, record: &Bytes) {
        let head = wire::inform_head(zxid, record.len());
        self.quorum.put(link, 1, &self.ground, |outbox| outbox.put_record(head, record));
    }

    /// Queues an ACK for each zxid from `first` through `last`, which are of one epoch.
    pub fn send_acks(&mut self, link: LinkId, first: Zxid, last: Zxid) {
        let count = (last.0 - first.0 + 1) as u64;
        self.quorum.put(link, count, &self.ground, |outbox| {
            outbox.put(count, |out| wire::encode_acks(first, last, out));
        });
    }

    /// Queues a COMMIT for each zxid from `first` through `last`, which are of one epoch.
    pub fn send_commits(&mut self, link: LinkId, first: Zxid, last: Zxid) {
        let count = (last.0 - first.0 + 1) as u64;
        self.quorum.put(link, count, &self.ground, |outbox| {
            outbox.put(count, |out| wire::encode_commits(first, last, out));
        });
    }

    /// Queues what `source` will produce on a thread of its own; what is queued later waits for its end. When the last
    /// byte was handed to the socket, Transferred with `through` follows. An error of the source closes the link.
    ///
    /// # Errors
    /// If no thread can be started; nothing is queued then.
    pub fn stream(&mut self, link: LinkId, through: Zxid, source: Source) -> io::Result<()> {
        self.quorum.stream(link, through, source, &self.ground)
    }

    /// Asks for Transferred with `through` when all that is queued on the link now was handed to its socket: for history
    /// that was at hand.
    pub fn mark_transferred(&mut self, link: LinkId, through: Zxid) {
        self.quorum.put(link, 0, &self.ground, |outbox| outbox.put_mark(through));
    }

    /// Hands over the image that follows SNAP on a learner's link, for a thread to read. The links have stopped at SNAP
    /// and read nothing more from this socket until [`resume`](Self::resume); what is sent still leaves.
    ///
    /// `None` if the link has gone, or SNAP was not the last packet that came from it.
    pub fn take_image(&mut self, link: LinkId) -> Option<ImageReader> {
        self.quorum.take_image(link, &self.ground)
    }

    /// Lets the packets behind an image in. They come with the next [`receive`](Self::receive).
    pub fn resume(&mut self, end: ImageEnd) {
        self.quorum.resume(end, &mut self.ground, &mut self.pending);
    }

    /// Takes over another set of servers and addresses. Connections stay; listeners stay too, unless this server's own
    /// addresses have changed.
    ///
    /// # Errors
    /// If this server is not in the set, or its new ports cannot be bound.
    pub fn set_config(&mut self, addresses: PeerAddresses) -> Result<(), LinkError> {
        let me = self.ground.options.me;
        let Some(own) = addresses.get(&me).cloned() else {
            return Err(LinkError::NotAMember(me));
        };
        let moved = self.ground.options.addresses[&me] != own;
        self.ground.options.addresses = addresses;
        self.election.configure(&self.ground);
        if moved {
            for listener in self.listeners.drain(..) {
                listener.close(&mut self.ground);
            }
            self.listeners = Self::listen(&own, &mut self.ground)?;
            open_up(&mut self.listeners, &mut self.ground)?;
        }
        Ok(())
    }

    /// Writes what is queued: one call for each socket that has something.
    pub fn flush(&mut self) {
        self.election.flush(&mut self.ground, &mut self.pending);
        self.quorum.flush(&mut self.ground, &mut self.pending);
    }

    /// Lets any thread end the pipeline's sleep.
    pub fn waker(&self) -> Waker {
        self.ground.waker.clone()
    }

    /// Who is at the other end of a link, as far as that is known.
    pub fn server_at(&self, link: LinkId) -> Option<ServerId> {
        self.quorum.server_at(link)
    }

    /// How the queues of learners have done since start, by server; of acknowledgements the links know nothing.
    pub fn learner_queues(&self) -> Vec<LearnerPicture> {
        self.quorum.learner_queues()
    }

    /// All connections in numbers.
    pub fn figures(&self) -> LinksFigures {
        let now = Instant::now();
        let (mut troubles, votes) = (self.quorum.troubles, self.election.troubles);
        troubles.garbage += votes.garbage;
        troubles.refused += votes.refused;
        troubles.silent += votes.silent;
        LinksFigures { links: self.quorum.figures(now), peers: self.election.figures(now), troubles }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.quorum.close_all(&mut self.ground);
    }
}

/// Lets callers in where each of the two ports is bound.
fn open_up(listeners: &mut [Listener], ground: &mut Ground) -> Result<(), LinkError> {
    if is_reachable(listeners) {
        for listener in listeners.iter_mut() {
            listener.open_up(ground)?;
        }
    }
    ground.is_reachable = is_reachable(listeners);
    Ok(())
}

/// Whether each of the two ports is bound at one address at least.
fn is_reachable(listeners: &[Listener]) -> bool {
    [Port::Election, Port::Quorum]
        .iter()
        .all(|port| listeners.iter().any(|listener| listener.port == *port && listener.is_bound()))
}

/// Takes what woke the pipeline: an eventfd's count, or a socket's bytes.
fn silence(bell: &OwnedFd) {
    let mut bytes = [0; 64];
    // It is readable, so this does not wait. An end or an error: the driver notices what matters.
    let _ = rustix::io::read(bell, &mut bytes);
}
