//! The loop of one core: sockets in, sockets out, and a load that decides what to send.
//!
//! One epoll set, one read buffer for all links, one `recv` and one `send` per link and wake-up however many requests
//! they carry. Sends follow some receives together: then a server that sleeps is woken once for all of them. Plain epoll and not glommio, because the generator shares the machine with the server it measures:
//! tuning.md, section "The load generator", has the figures.

use crate::{
    clock::{Clock, MILLISECOND, Nanos, SECOND},
    hosts::Hosts,
    link::{Link, Phase, Session},
    operation::Operation,
    reply::Reply,
};
use anyhow::{Context, bail};
use rustix::{
    event::{Timespec, epoll},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt},
};
use std::{
    borrow::Cow, collections::VecDeque, io, ops::RangeTo, os::fd::OwnedFd, sync::Arc, thread, time::Duration,
};
use zkfast_wire::{
    SessionId, Xid, Zxid, frame, handshake::ConnectResponse, jute::Decoder, watch::WatcherEvent,
};

/// Largest frame accepted: the children of a node with some million of them.
const FRAME_BYTES_LIMIT: usize = 256 << 20;
/// First size of the read buffer; a quarter of a megabyte holds 3,000 replies of a set.
const READ_BYTES: usize = 256 << 10;
/// TCP handshakes under way at once on a core: below the accept backlog of 50 that a Java server has.
const CONNECTING_LIMIT: usize = 32;
/// How often idle links are looked at for pings, timeouts and reconnects.
const SCAN_EVERY: Nanos = 100 * MILLISECOND;
/// Shortest and longest wait before another try at a lost connection.
const RETRY_MIN: Nanos = 50 * MILLISECOND;
const RETRY_MAX: Nanos = 2 * SECOND;
/// Links that may have received before what they answered with is sent. More would keep the first of them waiting, at
/// about 1 us each.
const SENDS_TOGETHER: usize = 16;
/// Below this a sleep costs more than it saves: poll without waiting.
const SPIN_BELOW: Nanos = 3_000;

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The server closed it.
    Closed,
    /// The operating system said so.
    Io(io::ErrorKind),
    /// What came was not the ZooKeeper protocol.
    Protocol(String),
    /// The server does not know the session any more.
    Expired,
    /// Nothing was heard for two thirds of the session timeout.
    Silent,
}

impl Loss {
    /// The name under which it is counted; one of few.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Closed | Self::Io(_) => "connection lost",
            Self::Protocol(_) => "protocol error",
            Self::Expired => "session expired",
            Self::Silent => "connection silent",
        }
    }

    /// What is known of it.
    pub fn told(&self) -> Cow<'static, str> {
        match self {
            Self::Protocol(what) => format!("protocol error: {what}").into(),
            _ => self.name().into(),
        }
    }
}

/// What a load wants after a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// To be called again at this time at the latest.
    Until(Nanos),
    /// To be called again at this time, and not to be woken before by what comes in: so many messages are on their way
    /// that a wake-up for each of them would cost the server more than the message.
    Gather(Nanos),
    /// Nothing more.
    Done,
}

/// Decides what is sent. Called on one core only, never concurrently.
pub trait Load {
    /// Sends what is due. Called at least once a turn.
    fn turn(&mut self, links: &mut Links, now: Nanos) -> Turn;
    /// A session is established on this link.
    fn ready(&mut self, link: &mut Link, now: Nanos);
    /// A request was answered. `link.session.last_zxid` is still that of the reply before.
    fn reply(&mut self, link: &mut Link, request: crate::link::InFlight, reply: &Reply<'_>, now: Nanos);
    /// A watch fired.
    fn event(&mut self, link: &mut Link, zxid: Zxid, event: &WatcherEvent<'_>, now: Nanos);
    /// The connection is gone; what was in flight is still listed. Set the phase to Idle to give the link up.
    fn lost(&mut self, link: &mut Link, was_ready: bool, why: &Loss, now: Nanos);
}

/// The links of one core, and which of them have something to send.
#[derive(Debug, Default)]
pub struct Links {
    /// All of them, by index.
    pub all: Vec<Link>,
    dirty: Vec<usize>,
    wanted: VecDeque<usize>,
}

impl Links {
    /// The link to write requests to; it is flushed at the end of the turn.
    pub fn to_write(&mut self, index: usize) -> &mut Link {
        let link = &mut self.all[index];
        if !link.dirty {
            link.dirty = true;
            self.dirty.push(index);
        }
        link
    }

    /// Asks for a connection; it is opened as soon as few enough others are being opened.
    pub fn connect(&mut self, index: usize) {
        assert_eq!(self.all[index].phase, Phase::Idle, "only an idle link can be connected");
        self.all[index].phase = Phase::Waiting { until: Nanos::MAX };
        self.wanted.push_back(index);
    }

    /// Asks for connections of those links in `range` that are idle.
    pub fn connect_idle(&mut self, range: RangeTo<usize>) {
        for index in 0..range.end {
            if self.all[index].phase == Phase::Idle {
                self.connect(index);
            }
        }
    }

    /// Ends every session in an orderly way, and gives up the links that have none.
    pub fn close_all(&mut self, now: Nanos) {
        for index in 0..self.all.len() {
            if self.all[index].is_ready() {
                self.to_write(index).close_session(now, now, now);
            } else {
                self.all[index].phase = Phase::Idle;
            }
        }
    }

    /// Whether no session is up any more.
    pub fn are_closed(&self) -> bool {
        self.all.iter().all(|link| !link.is_ready())
    }

    /// Drops a link's connection without a word; its session stays with it.
    pub fn cut(&mut self, index: usize) {
        let link = &mut self.all[index];
        assert!(link.is_ready(), "only an established connection can be cut");
        link.forget();
        link.phase = Phase::Idle;
    }
}

/// One core's loop.
pub struct Engine<L> {
    epoll: OwnedFd,
    clock: Clock,
    hosts: Arc<Hosts>,
    timeout_ms: i32,
    links: Links,
    /// What is run.
    pub load: L,
    buffer: Vec<u8>,
    connecting: usize,
    /// TCP handshakes under way at once.
    pub connecting_limit: usize,
    next_scan: Nanos,
}

impl<L: Load> Engine<L> {
    /// An engine with `links`, all idle.
    ///
    /// # Errors
    /// If the kernel gives no epoll instance.
    pub fn new(
        clock: Clock,
        hosts: Arc<Hosts>,
        timeout_ms: i32,
        links: Vec<Link>,
        load: L,
    ) -> anyhow::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("cannot create an epoll instance")?;
        Ok(Self {
            epoll,
            clock,
            hosts,
            timeout_ms,
            links: Links { all: links, dirty: Vec::new(), wanted: VecDeque::new() },
            load,
            buffer: vec![0; READ_BYTES],
            connecting: 0,
            connecting_limit: CONNECTING_LIMIT,
            next_scan: 0,
        })
    }

    /// Runs until the load is done, and gives it back.
    ///
    /// # Errors
    /// If the operating system refuses sockets or polling, or another generator holds the root.
    pub fn run(mut self) -> anyhow::Result<L> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(1024);
        loop {
            let now = self.clock.now();
            if now >= self.next_scan {
                self.scan(now);
                self.next_scan = now + SCAN_EVERY;
            }
            let (until, is_deaf) = match self.load.turn(&mut self.links, now) {
                Turn::Until(until) => (until, false),
                Turn::Gather(until) => (until, true),
                Turn::Done => return Ok(self.load),
            };
            self.open_wanted(now)?;
            self.flush_dirty();
            let mut wait = until.min(self.next_scan).saturating_sub(self.clock.now());
            if is_deaf {
                thread::sleep(Duration::from_nanos(wait));
                wait = 0;
            }
            let wait = if wait < SPIN_BELOW { 0 } else { wait };
            let timeout =
                Timespec { tv_sec: (wait / SECOND).cast_signed(), tv_nsec: (wait % SECOND).cast_signed() };
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("epoll_wait failed"),
            }
            for event in &events {
                let (flags, data) = (event.flags, event.data.u64());
                let (generation, index) = ((data >> 32) as u32, (data & u64::from(u32::MAX)) as usize);
                if self.links.all[index].generation == generation {
                    self.serve(index, flags);
                }
                if self.links.dirty.len() >= SENDS_TOGETHER {
                    self.flush_dirty();
                }
            }
            self.flush_dirty();
            if let Some(claim) = self.links.all.first().and_then(|link| link.claim.as_ref())
                && claim.is_refused()
            {
                bail!("{}", claim.refusal());
            }
        }
    }

    /// Opens connections that were asked for, a bounded number at once.
    fn open_wanted(&mut self, now: Nanos) -> anyhow::Result<()> {
        while self.connecting < self.connecting_limit {
            let Some(index) = self.links.wanted.pop_front() else { break };
            let link = &mut self.links.all[index];
            let address = self.hosts.list[link.host % self.hosts.list.len()].address;
            let socket = socket(&address).context(
                "cannot open another socket; raise the limit of open files (ulimit -n) or use fewer --connections",
            )?;
            let refused = match rustix::net::connect(&socket, &address) {
                Ok(()) | Err(Errno::INPROGRESS) => None,
                Err(error) => Some(io::Error::from(error)),
            };
            link.open(socket, self.timeout_ms, now);
            self.connecting += 1;
            if let Some(error) = refused {
                self.lose(index, &Loss::Io(error.kind()));
                continue;
            }
            let stream = link.stream.as_ref().expect("just opened");
            let data = u64::from(link.generation) << 32 | index as u64;
            link.wants_writable = true;
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT;
            epoll::add(&self.epoll, stream, epoll::EventData::new_u64(data), flags)
                .context("epoll_ctl failed")?;
        }
        Ok(())
    }

    fn flush_dirty(&mut self) {
        while let Some(index) = self.links.dirty.pop() {
            self.flush(index);
        }
    }

    fn flush(&mut self, index: usize) {
        let link = &mut self.links.all[index];
        if matches!(link.phase, Phase::Connecting) {
            return;
        }
        match link.flush() {
            Ok(all_sent) => {
                if link.wants_writable == all_sent {
                    link.wants_writable = !all_sent;
                    let mut flags = epoll::EventFlags::IN;
                    flags.set(epoll::EventFlags::OUT, !all_sent);
                    let data = u64::from(link.generation) << 32 | index as u64;
                    if let Some(stream) = &link.stream {
                        // The descriptor was added when the link was opened; a failure shows at its next use.
                        let _ = epoll::modify(&self.epoll, stream, epoll::EventData::new_u64(data), flags);
                    }
                }
            }
            Err(error) => self.lose(index, &Loss::Io(error.kind())),
        }
    }

    /// Handles what epoll said about one link.
    fn serve(&mut self, index: usize, flags: epoll::EventFlags) {
        let link = &mut self.links.all[index];
        if link.phase == Phase::Connecting {
            let Some(stream) = &link.stream else { return };
            match sockopt::socket_error(stream) {
                Ok(Ok(())) => link.phase = Phase::Handshaking,
                Ok(Err(error)) | Err(error) => {
                    return self.lose(index, &Loss::Io(io::Error::from(error).kind()));
                }
            }
            self.flush(index);
        } else if flags.contains(epoll::EventFlags::OUT) {
            self.flush(index);
        }
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            self.receive(index);
        }
    }

    fn receive(&mut self, index: usize) {
        let link = &mut self.links.all[index];
        let filled = match link.read(&mut self.buffer) {
            Ok(filled) => filled,
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::NotConnected => {}
                    io::ErrorKind::UnexpectedEof => self.lose(index, &Loss::Closed),
                    kind => self.lose(index, &Loss::Io(kind)),
                };
            }
        };
        let now = self.clock.now();
        link.last_heard = now;
        let (handshaking, was_dirty) = (link.phase == Phase::Handshaking, link.dirty);
        let outcome = take_frames(link, &mut self.load, &self.buffer[..filled], now);
        if handshaking && link.phase != Phase::Handshaking {
            self.connecting -= 1;
        }
        match outcome {
            Err(why) => self.lose(index, &why),
            Ok(()) if link.phase == Phase::Idle => link.forget(),
            // The load wrote to it while it was answered.
            Ok(()) if link.dirty && !was_dirty => self.links.dirty.push(index),
            Ok(()) => {}
        }
    }

    /// Tells the load, forgets the socket and plans another try.
    fn lose(&mut self, index: usize, why: &Loss) {
        let now = self.clock.now();
        let link = &mut self.links.all[index];
        if matches!(link.phase, Phase::Connecting | Phase::Handshaking) {
            self.connecting -= 1;
        }
        let was_ready = link.is_ready();
        let wait = (RETRY_MIN << link.tries.min(8)).min(RETRY_MAX);
        link.tries = link.tries.saturating_add(1);
        link.host += 1;
        link.phase = Phase::Waiting { until: now + wait };
        if *why == Loss::Expired {
            link.session = Session::default();
        }
        link.in_flight.retain(|request| request.operation != Operation::Claim);
        self.load.lost(link, was_ready, why, now);
        link.forget();
    }

    /// Pings, silence and reconnects.
    fn scan(&mut self, now: Nanos) {
        for index in 0..self.links.all.len() {
            let link = &mut self.links.all[index];
            match link.phase {
                Phase::Waiting { until } if now >= until => {
                    link.phase = Phase::Waiting { until: Nanos::MAX };
                    self.links.wanted.push_back(index);
                }
                Phase::Ready => {
                    let timeout = link.session.timeout_ms.unsigned_abs() as Nanos * MILLISECOND;
                    // ZooKeeper's own clients give a third of it to the search for another server.
                    if now.saturating_sub(link.last_heard) > timeout / 3 * 2 {
                        self.lose(index, &Loss::Silent);
                    } else if now.saturating_sub(link.last_sent) > timeout / 3 {
                        self.links.to_write(index).keep_alive(now);
                    }
                }
                Phase::Connecting | Phase::Handshaking => {
                    // As they do, too: each server of the connect string gets its turn within one session timeout.
                    let timeout = self.timeout_ms.unsigned_abs() as Nanos * MILLISECOND;
                    if now.saturating_sub(link.last_sent) > timeout / self.hosts.list.len() as Nanos {
                        self.lose(index, &Loss::Silent);
                    }
                }
                Phase::Waiting { .. } | Phase::Idle => {}
            }
        }
    }
}

/// Cuts and handles each whole frame of `bytes`, and keeps what is left over in the link.
fn take_frames<L: Load>(link: &mut Link, load: &mut L, bytes: &[u8], now: Nanos) -> Result<(), Loss> {
    let mut at = 0;
    while let Some(payload) = frame::cut(&bytes[at..], FRAME_BYTES_LIMIT).map_err(protocol)? {
        at += frame::LENGTH_BYTES + payload.len();
        match link.phase {
            Phase::Handshaking => {
                let welcome = ConnectResponse::decode(&mut Decoder::new(payload)).map_err(protocol)?;
                if welcome.timeout_ms <= 0 || welcome.session == SessionId(0) {
                    return Err(Loss::Expired);
                }
                link.session.id = welcome.session;
                link.session.password = welcome.password;
                link.session.timeout_ms = welcome.timeout_ms;
                link.phase = Phase::Ready;
                link.tries = 0;
                link.make_claim(now);
                load.ready(link, now);
            }
            Phase::Ready => take_reply(link, load, payload, now)?,
            Phase::Idle | Phase::Connecting | Phase::Waiting { .. } => return Ok(()),
        }
    }
    link.partial.extend_from_slice(&bytes[at..]);
    Ok(())
}

fn take_reply<L: Load>(link: &mut Link, load: &mut L, payload: &[u8], now: Nanos) -> Result<(), Loss> {
    let reply = Reply::decode(payload).map_err(protocol)?;
    if reply.xid == Xid::NOTIFICATION {
        let event = WatcherEvent::decode(&mut Decoder::new(reply.body)).map_err(protocol)?;
        load.event(link, reply.zxid, &event, now);
        return Ok(());
    }
    let keep_alive = reply.xid == Xid::PING && link.in_flight.front().is_none_or(|due| due.xid != Xid::PING);
    if !keep_alive {
        // What was due stays in flight, to be counted with all else that this connection loses.
        if let Some(due) = link.in_flight.front().filter(|due| due.xid != reply.xid) {
            let (xid, due) = (reply.xid.0, due.xid.0);
            return Err(Loss::Protocol(format!("a reply to request {xid} where one to {due} was due")));
        }
        match link.in_flight.pop_front() {
            Some(request) if request.operation == Operation::Claim => {
                if let Some(claim) = &mut link.claim {
                    claim.answered(reply.code);
                }
            }
            Some(request) => load.reply(link, request, &reply, now),
            None => {
                return Err(Loss::Protocol(format!(
                    "a reply to request {}, which was never sent",
                    reply.xid.0
                )));
            }
        }
    }
    link.session.last_zxid = link.session.last_zxid.max(reply.zxid);
    Ok(())
}

fn protocol(error: impl std::fmt::Display) -> Loss {
    Loss::Protocol(error.to_string())
}

fn socket(address: &std::net::SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    if address.ip().is_loopback() {
        // No network, no congestion: a control that paces (BBR) only costs timers. Reno is in every kernel and allowed
        // to everybody; where it is not, the default does as well.
        let _ = sockopt::set_tcp_congestion(&socket, "reno");
    }
    Ok(socket)
}
