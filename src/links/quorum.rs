//! Learner connections (rows Q30-Q46, Q76): those that come to the quorum port, and the one to a leader.
//!
//! What they say and when is `zab`'s business. Here: bytes in, packets out, and the other way round, with bounds.

use super::{
    dial::{Dial, DialFailure, Opened},
    ground::{DialOwner, Ground, Place},
    image::{GivenUp, ImageEnd, ImageReader},
    inbox::{Garbage, Inbox},
    names::Found,
    outbox::{Outbox, WriteError, Written},
    poller::{Ready, Token},
    stream::{self, Source},
};
use crate::{
    config::{ensemble::HostPort, limits},
    status::{
        histogram::Histogram,
        links::{LinkFigures, LinkTroubles, Traffic},
        picture::LearnerPicture,
    },
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, PoisonError},
    time::Instant,
};
use zkfast_wire::{Packet, ServerId, Zxid, quorum, quorum::Direction};
use zkfast_zab::{Event, LinkId};

/// Why a link was closed by this side, or by itself.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the other side closed it")]
    Ended,
    #[error("{0}")]
    Broken(io::Error),
    #[error("what came is no packet: {0}")]
    Garbage(Garbage),
    #[error(
        "{0} bytes are kept for packets of learners that are not whole yet, and most of them for this one"
    )]
    Crowded(usize),
    #[error("{0} bytes wait to be sent to it, more than a link may hold: the other side reads too slowly")]
    Overflow(usize),
    #[error("what it was to be sent could not be read: {0}")]
    Transfer(io::Error),
    #[error("{0}")]
    Image(String),
}

/// What the bytes that come in are.
enum Incoming {
    Packets,
    /// SNAP was the last packet; the bytes behind it wait for who reads the image.
    ImageDue(Bytes),
    /// Somebody reads the image from the socket.
    ImageTaken,
}

struct Link {
    stream: Arc<TcpStream>,
    token: Token,
    address: SocketAddr,
    dialled: Option<ServerId>,
    /// Who the other side says it is.
    introduced: Option<ServerId>,
    up_at: Instant,
    incoming: Incoming,
    inbox: Inbox,
    outbox: Outbox,
    wants_write: bool,
    is_dirty: bool,
    traffic: Traffic,
}

impl Link {
    fn server(&self) -> Option<ServerId> {
        self.dialled.or(self.introduced)
    }

    /// Whether the epoll knows the socket.
    fn is_watched(&self) -> bool {
        matches!(self.incoming, Incoming::Packets)
    }
}

/// Of so many packets to a learner one is timed, as Apache's leader does (`LearnerHandler`, markerPacketInterval).
const TIMED_ONE_IN: u64 = 1000;

/// How a learner's queue does (row O105e).
#[derive(Default)]
struct Queue {
    /// Packets left in it, after each attempt to send.
    packets: Histogram,
    /// How long one in [`TIMED_ONE_IN`] packets waited, milliseconds.
    wait_ms: Histogram,
}

#[derive(Default)]
pub(super) struct Quorum {
    links: BTreeMap<LinkId, Link>,
    next: u64,
    dial: Option<(ServerId, Dial)>,
    /// Links with something to write that was not tried yet.
    dirty: Vec<LinkId>,
    /// Links that wait for a thread to produce the next piece.
    starved: BTreeSet<LinkId>,
    given_up: GivenUp,
    /// Links that overflowed while something was queued for them.
    overflowed: Vec<LinkId>,
    refusal_told: bool,
    pub(super) troubles: LinkTroubles,
    /// Of learners that have said who they are; they are kept when their links go.
    queues: BTreeMap<ServerId, Queue>,
    marks: Vec<Zxid>,
}

impl Quorum {
    // Coming up

    /// Somebody came to the quorum port.
    pub(super) fn accepted(
        &mut self,
        stream: TcpStream,
        address: SocketAddr,
        ground: &mut Ground,
        events: &mut Vec<Event>,
    ) {
        if self.links.len() >= ground.options.links_max {
            self.troubles.refused += 1;
            if !std::mem::replace(&mut self.refusal_told, true) {
                log::warn!("refusing learners: {} are connected already", self.links.len());
            }
            return;
        }
        self.refusal_told = false;
        let link = LinkId(self.next);
        let watched =
            stream.set_nonblocking(true).and_then(|()| ground.watch(&stream, Place::Link(link), true, false));
        match watched {
            Ok(token) => self.up(stream, token, address, None, ground, events),
            Err(error) => log::warn!("a learner at {address} cannot be served: {error}"),
        }
    }

    fn up(
        &mut self,
        stream: TcpStream,
        token: Token,
        address: SocketAddr,
        dialled: Option<ServerId>,
        ground: &Ground,
        events: &mut Vec<Event>,
    ) {
        if let Err(error) = tune(&stream, ground) {
            // The link works without them, only slower, or longer when the other side is dead.
            log::debug!("{address} refuses a socket option: {error}");
        }
        let id = LinkId(self.next);
        self.next += 1;
        let direction = if dialled.is_some() { Direction::ToLearner } else { Direction::ToLeader };
        let link = Link {
            stream: Arc::new(stream),
            token,
            address,
            dialled,
            introduced: None,
            up_at: ground.now,
            incoming: Incoming::Packets,
            inbox: Inbox::new(direction, ground.options.packet_bytes_max),
            outbox: Outbox::default(),
            wants_write: false,
            is_dirty: false,
            traffic: Traffic::default(),
        };
        self.links.insert(id, link);
        events.push(Event::Up { link: id, dialled });
    }

    /// Connects to a leader; what was being dialled before is given up.
    pub(super) fn dial(&mut self, leader: ServerId, ground: &mut Ground) {
        if let Some((_, mut dial)) = self.dial.take() {
            dial.cancel(ground);
        }
        let addresses = ground.options.addresses.get(&leader).into_iter().flatten();
        let hosts: Vec<HostPort> = addresses
            .map(|address| HostPort { host: address.host.clone(), port: address.quorum_port })
            .collect();
        let limit = ground.options.leader_dial_limit;
        self.dial = Some((leader, Dial::start(DialOwner::Learner, hosts, limit, ground)));
    }

    pub(super) fn dial_ready(&mut self, ready: Ready, ground: &mut Ground, events: &mut Vec<Event>) {
        let Some((leader, dial)) = &mut self.dial else { return };
        let leader = *leader;
        if let Some(opened) = dial.ready(ready.token, ground) {
            self.opened(leader, opened, ground, events);
        }
    }

    pub(super) fn name_found(&mut self, host: &str, found: &Found) {
        if let Some((_, dial)) = &mut self.dial {
            dial.name_found(host, found);
        }
    }

    /// Moves the dial on.
    pub(super) fn tend(&mut self, ground: &mut Ground, events: &mut Vec<Event>) {
        let Some((leader, dial)) = &mut self.dial else { return };
        let leader = *leader;
        if let Err(failure) = dial.progress(ground) {
            self.dial_failed(leader, &failure, events);
        }
    }

    fn opened(&mut self, leader: ServerId, opened: Opened, ground: &mut Ground, events: &mut Vec<Event>) {
        if let Some((_, mut dial)) = self.dial.take() {
            dial.cancel(ground);
        }
        let Opened { stream, token, address } = opened;
        match ground.hand_over(&stream, token, Place::Link(LinkId(self.next))) {
            Ok(()) => self.up(stream, token, address, Some(leader), ground, events),
            Err(error) => {
                ground.unwatch(&stream, token);
                let failure = DialFailure::Connect(address, error.kind(), error.to_string());
                self.dial_failed(leader, &failure, events);
            }
        }
    }

    fn dial_failed(&mut self, leader: ServerId, failure: &DialFailure, events: &mut Vec<Event>) {
        self.dial = None;
        log::info!("server {leader}, the elected leader, cannot be reached yet: {failure}");
        events.push(Event::DialFailed { leader });
    }

    pub(super) fn look_at(&self) -> Option<Instant> {
        self.dial.as_ref().map(|(_, dial)| dial.look_at())
    }

    // Bytes in

    pub(super) fn ready(&mut self, id: LinkId, ready: Ready, ground: &mut Ground, events: &mut Vec<Event>) {
        if ready.writable {
            self.mark_dirty(id);
        }
        let Some(link) = self.links.get_mut(&id).filter(|link| ready.readable && link.is_watched()) else {
            return;
        };
        let read = match (&*link.stream).read(&mut ground.scratch) {
            Ok(0) => return self.fall(id, &Trouble::Ended, ground, events),
            Ok(read) => read,
            Err(error) if is_transient(&error) => return,
            Err(error) => return self.fall(id, &Trouble::Broken(error), ground, events),
        };
        link.traffic.bytes_received += read as u64;
        let scratch = std::mem::take(&mut ground.scratch);
        self.feed(id, &scratch[..read], ground, events);
        ground.scratch = scratch;
    }

    fn feed(&mut self, id: LinkId, read: &[u8], ground: &mut Ground, events: &mut Vec<Event>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let (traffic, introduced) = (&mut link.traffic, &mut link.introduced);
        let fed = link.inbox.feed(read, |packet| {
            traffic.packets_received += 1;
            let is_snap = matches!(packet, Packet::Snap { .. });
            if let Packet::LearnerInfo(info) = &packet {
                *introduced = info.server;
            }
            events.push(Event::Packet { link: id, packet });
            !is_snap
        });
        match fed {
            Ok(None) if link.inbox.is_long() => {
                if let Some((largest, all)) = self.crowding(ground.options.kept_bytes_max) {
                    self.fall(largest, &Trouble::Crowded(all), ground, events);
                }
            }
            Ok(None) => {}
            // Not a packet more: what follows is an image.
            Ok(Some(behind)) => {
                link.incoming = Incoming::ImageDue(behind);
                link.wants_write = false;
                ground.poller.remove(&*link.stream);
            }
            Err(garbage) => self.fall(id, &Trouble::Garbage(garbage), ground, events),
        }
    }

    /// The learner may say from now on what its clients ask.
    pub(super) fn serve(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.inbox.serve();
        }
    }

    /// The learner that keeps most of the memory for packets that are not whole yet, and how much all of them keep, if that
    /// is too much.
    fn crowding(&self, kept_bytes_max: usize) -> Option<(LinkId, usize)> {
        let learners = || self.links.iter().filter(|(_, link)| link.dialled.is_none());
        let all = learners().map(|(_, link)| link.inbox.kept_bytes()).sum();
        let (largest, _) = learners().max_by_key(|(_, link)| link.inbox.kept_bytes())?;
        (all > kept_bytes_max).then_some((*largest, all))
    }

    // Bytes out

    /// Queues packets on a link. Whoever has gone needs none: its Down is on the way.
    pub(super) fn put(&mut self, id: LinkId, count: u64, ground: &Ground, put: impl FnOnce(&mut Outbox)) {
        let Some(link) = self.links.get_mut(&id) else { return };
        put(&mut link.outbox);
        let before = link.traffic.packets_sent;
        link.traffic.packets_sent += count;
        if before / TIMED_ONE_IN != link.traffic.packets_sent / TIMED_ONE_IN && link.introduced.is_some() {
            link.outbox.put_sample(Instant::now());
        }
        if link.outbox.waiting_bytes() > ground.options.queue_bytes_max {
            // Once is enough.
            if !self.overflowed.contains(&id) {
                self.overflowed.push(id);
            }
        }
        self.mark_dirty(id);
    }

    pub(super) fn stream(
        &mut self,
        id: LinkId,
        through: Zxid,
        source: Source,
        ground: &Ground,
    ) -> io::Result<()> {
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        link.outbox.put_stream(stream::start(source, &ground.threads, &ground.waker)?);
        link.outbox.put_mark(through);
        self.mark_dirty(id);
        Ok(())
    }

    fn mark_dirty(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id)
            && !std::mem::replace(&mut link.is_dirty, true)
        {
            self.dirty.push(id);
        }
    }

    /// A thread has something for a link, or has given one up.
    pub(super) fn woken(&mut self, ground: &mut Ground, events: &mut Vec<Event>) {
        for id in std::mem::take(&mut self.starved) {
            self.mark_dirty(id);
        }
        let given_up = std::mem::take(&mut *self.given_up.lock().unwrap_or_else(PoisonError::into_inner));
        for (id, reason) in given_up {
            self.fall(id, &Trouble::Image(reason), ground, events);
        }
    }

    /// Writes what waits: one call for each link.
    pub(super) fn flush(&mut self, ground: &mut Ground, events: &mut Vec<Event>) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            self.flush_link(id, ground, events);
        }
        // Those that could not even be watched stay dirty.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
        for id in std::mem::take(&mut self.overflowed) {
            // What the socket has just taken does not count.
            let waiting = self.links.get(&id).map_or(0, |link| link.outbox.waiting_bytes());
            if waiting > ground.options.queue_bytes_max {
                self.fall(id, &Trouble::Overflow(waiting), ground, events);
            }
        }
    }

    fn flush_link(&mut self, id: LinkId, ground: &mut Ground, events: &mut Vec<Event>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.is_dirty = false;
        let outcome = link.outbox.write(&link.stream, &mut self.marks);
        events.extend(self.marks.drain(..).map(|through| Event::Transferred { link: id, through }));
        let (written, bytes) = match outcome {
            Ok(outcome) => outcome,
            Err(WriteError::Socket(error)) => return self.fall(id, &Trouble::Broken(error), ground, events),
            Err(WriteError::Source(error)) => {
                return self.fall(id, &Trouble::Transfer(error), ground, events);
            }
        };
        link.traffic.bytes_sent += bytes as u64;
        if let Some(server) = link.introduced {
            note_queue(&mut self.queues, server, &mut link.outbox);
        }
        let wants_write = match written {
            Written::Some => true,
            Written::Starved => {
                self.starved.insert(id);
                false
            }
            Written::All => {
                link.outbox.shrink();
                false
            }
        };
        if !link.is_watched() {
            if wants_write {
                // Nobody tells when there is room: the next turn tries again.
                link.is_dirty = true;
                self.dirty.push(id);
            }
        } else if link.wants_write != wants_write {
            link.wants_write = wants_write;
            if let Err(error) = ground.poller.change(&*link.stream, link.token, true, wants_write) {
                self.fall(id, &Trouble::Broken(error), ground, events);
            }
        }
    }

    // Images

    /// Hands the incoming side of a link to who reads the image that follows SNAP.
    pub(super) fn take_image(&mut self, id: LinkId, ground: &Ground) -> Option<ImageReader> {
        let link = self.links.get_mut(&id)?;
        if !matches!(link.incoming, Incoming::ImageDue(_)) {
            return None;
        }
        let Incoming::ImageDue(behind) = std::mem::replace(&mut link.incoming, Incoming::ImageTaken) else {
            unreachable!("looked at above")
        };
        Some(ImageReader::new(
            id,
            Arc::clone(&link.stream),
            behind,
            ground.options.image_silence_limit,
            Arc::clone(&self.given_up),
            ground.waker.clone(),
        ))
    }

    /// Lets the packets behind an image in.
    pub(super) fn resume(&mut self, end: ImageEnd, ground: &mut Ground, events: &mut Vec<Event>) {
        let id = end.link();
        let behind = end.release();
        let Some(link) = self.links.get_mut(&id) else { return };
        if let Err(error) = ground.poller.add_again(&*link.stream, link.token, false) {
            return self.fall(id, &Trouble::Broken(error), ground, events);
        }
        link.incoming = Incoming::Packets;
        self.mark_dirty(id);
        self.feed(id, &behind, ground, events);
    }

    // Going down

    /// Closes a link at the order's word; nothing more comes from it.
    pub(super) fn close(&mut self, id: LinkId, ground: &mut Ground) {
        if let Some(link) = self.links.remove(&id) {
            // The thread that reads an image holds the socket too; this ends it.
            let _ = link.stream.shutdown(Shutdown::Both);
            ground.unwatch(&*link.stream, link.token);
            self.starved.remove(&id);
        }
    }

    fn fall(&mut self, id: LinkId, trouble: &Trouble, ground: &mut Ground, events: &mut Vec<Event>) {
        let Some(link) = self.links.get(&id) else { return };
        let who = link.server().map_or_else(|| "a server".to_owned(), |server| format!("server {server}"));
        let (address, kept) = (link.address, link.inbox.kept_bytes());
        match trouble {
            Trouble::Ended | Trouble::Broken(_) => {
                log::info!("learner connection with {who} at {address} is down: {trouble}")
            }
            Trouble::Garbage(_) | Trouble::Crowded(_) => {
                self.troubles.garbage += 1;
                log::error!(
                    "closing the learner connection with {who} at {address}: {trouble} ({kept} bytes kept)"
                );
            }
            Trouble::Overflow(_) => {
                self.troubles.overflows += 1;
                log::error!("closing the learner connection with {who} at {address}: {trouble}");
            }
            Trouble::Transfer(_) | Trouble::Image(_) => {
                self.troubles.failed_transfers += 1;
                log::error!("closing the learner connection with {who} at {address}: {trouble}");
            }
        }
        self.close(id, ground);
        events.push(Event::Down { link: id });
    }

    /// Closes all, so that no thread goes on reading for a server that has ended.
    pub(super) fn close_all(&mut self, ground: &mut Ground) {
        while let Some(id) = self.links.keys().next().copied() {
            self.close(id, ground);
        }
    }

    pub(super) fn server_at(&self, id: LinkId) -> Option<ServerId> {
        self.links.get(&id)?.server()
    }

    pub(super) fn learner_queues(&self) -> Vec<LearnerPicture> {
        let picture = |(server, queue): (&ServerId, &Queue)| LearnerPicture {
            server: *server,
            queued_packets: queue.packets.read(),
            queue_ms: queue.wait_ms.read(),
            ..LearnerPicture::default()
        };
        self.queues.iter().map(picture).collect()
    }

    pub(super) fn figures(&self, now: Instant) -> Vec<LinkFigures> {
        self.links
            .iter()
            .map(|(id, link)| LinkFigures {
                link: id.0,
                server: link.server(),
                address: link.address,
                is_leader: link.dialled.is_some(),
                up_ms: now.saturating_duration_since(link.up_at).as_millis() as u64,
                traffic: link.traffic,
                queued_packets: link.outbox.waiting_packets(),
                queued_bytes: link.outbox.waiting_bytes() as u64,
                is_transferring: link.outbox.is_streaming(),
            })
            .collect()
    }
}

fn note_queue(queues: &mut BTreeMap<ServerId, Queue>, server: ServerId, outbox: &mut Outbox) {
    if queues.len() >= limits::LEARNERS_TIMED && !queues.contains_key(&server) {
        outbox.take_samples().for_each(drop);
        return;
    }
    let queue = queues.entry(server).or_default();
    queue.packets.record(outbox.waiting_packets());
    for queued in outbox.take_samples() {
        queue.wait_ms.record(queued.elapsed().as_millis() as u64);
    }
}

/// Row Q76, and what makes a dead peer's connection end.
fn tune(stream: &TcpStream, ground: &Ground) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    socket.set_keepalive(true)?;
    socket.set_tcp_user_timeout(Some(ground.options.unacknowledged_limit))
}

/// Whether an error of a read says nothing about the socket.
pub(super) fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Queues one packet; records of its data go by reference.
pub(super) fn put_packet(packet: &Packet, outbox: &mut Outbox) {
    match packet {
        Packet::Proposal { zxid, record } => {
            outbox.put_record(quorum::proposal_head(*zxid, record.len()), record)
        }
        Packet::Inform { zxid, record } => {
            outbox.put_record(quorum::inform_head(*zxid, record.len()), record)
        }
        other => outbox.put(1, |out| other.encode(out)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::{LinkOptions, PeerAddresses};
    use std::{net::TcpListener, time::Duration};

    /// Row Q76. Danger: a learner that lost its power is "connected" for a quarter of an hour, or its packets wait for
    /// each other.
    #[test]
    fn a_link_ends_when_its_other_side_is_gone() {
        for (tick_ms, expected) in [(100, Duration::from_secs(10)), (2000, Duration::from_secs(20))] {
            let options = LinkOptions::new(ServerId(1), PeerAddresses::new(), tick_ms, 10, 5);
            let ground = Ground::new(options).expect("an epoll");
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection");
            tune(&stream, &ground).expect("Linux has these");
            let socket = socket2::SockRef::from(&stream);
            assert_eq!(socket.tcp_user_timeout().expect("an option"), Some(expected));
            assert!(socket.keepalive().expect("an option"));
            assert!(stream.nodelay().expect("an option"));
        }
    }
}
