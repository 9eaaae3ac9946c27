//! The turns of one client core: bytes between its sockets and its state.
//!
//! A turn waits in epoll if there is nothing to do, then reads each socket that has something, into a buffer that all
//! of them share. Behind all of them comes the turn's end: requests that waited for room go on, the pipeline is woken,
//! every connection with answers or events is written to, once, and the view is published. So whatever the turn brought
//! for a connection, answers of the pipeline and reads alike, leaves in one send.
//!
//! What the pipeline has said is done after bytes were received and before they are looked at: a client that learned
//! of a write from another client finds it here, for it was in the lane before anybody was told.

use super::{
    EdgeCore, EdgeOptions, EdgeShared,
    accept::{Door, Guest},
    connection::Phase,
    core::Core,
    socket::{Received, Sent, Socket, WATCHED},
};
use crate::{
    config::limits,
    cores::{
        expectation::{Expectation, LOOK_NS_MAX},
        lanes::{BellEnd, timespec},
        memory,
        messages::ConnectionId,
    },
    status::CoreCounters,
};
use rustix::{
    event::{
        PollFd, PollFlags,
        epoll::{self, EventData, EventFlags},
        poll,
    },
    io::Errno,
};
use std::{collections::VecDeque, io, mem::MaybeUninit, os::fd::OwnedFd, sync::Arc, time::Duration};

/// Full read buffers taken from one socket before the others have their turn.
const READS_PER_TURN: usize = 2;

/// What an event is about if not a connection; no slot has these numbers.
const BELL: u64 = u64::MAX;
const DOOR: u64 = u64::MAX - 1;

/// A client core with its sockets. Lives on one thread.
pub struct ClientCore {
    options: Arc<EdgeOptions>,
    shared: Arc<EdgeShared>,
    counters: Arc<CoreCounters>,
    core: Core,
    bell: BellEnd,
    door: Door,
    epoll: OwnedFd,
    /// By slot.
    sockets: Vec<Option<Socket>>,
    /// Sockets that may be read, each once, those first that have waited longest.
    queued: VecDeque<ConnectionId>,
    /// Into which every socket of this core is read.
    buffer: Box<[u8]>,
    guests: Vec<Guest>,
    ids: Vec<ConnectionId>,
    next_sweep_ms: u64,
    /// Something is left for the next turn, which therefore must not wait.
    must_go_on: bool,
    expectation: Expectation,
    /// The kernel last told of a single connection and nothing else.
    is_with_one: bool,
}

impl ClientCore {
    /// Sets a client core up. Nobody is let in before the first turn.
    ///
    /// # Errors
    /// If the process has no file descriptors left.
    pub fn new(parts: EdgeCore) -> io::Result<Self> {
        let EdgeCore { index, options, listener, reader, submissions, deliveries, bell, counters, shared } =
            parts;
        let door = Door::new(listener)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &door, EventData::new_u64(DOOR), EventFlags::IN | EventFlags::ET)?;
        bell.watch_in(&epoll, BELL)?;
        let next_sweep_ms = options.clock.now_ms() + sweep_interval_ms(&options);
        let core = Core::new(
            index,
            Arc::clone(&options),
            Arc::clone(&shared),
            Arc::clone(&counters),
            reader,
            submissions,
            deliveries,
        );
        Ok(Self {
            options,
            shared,
            counters,
            core,
            bell,
            door,
            epoll,
            sockets: Vec::new(),
            queued: VecDeque::new(),
            buffer: vec![0; limits::READ_CHUNK_BYTES].into_boxed_slice(),
            guests: Vec::new(),
            ids: Vec::new(),
            next_sweep_ms,
            must_go_on: false,
            expectation: Expectation::default(),
            is_with_one: false,
        })
    }

    /// Takes turns until the pipeline says that the server stops.
    ///
    /// # Panics
    /// As [`Self::turn`].
    pub fn run(mut self) {
        while !self.is_stopping() {
            self.turn(Duration::MAX, || true);
        }
        self.close_all();
    }

    /// Whether the pipeline has said that the server stops.
    pub fn is_stopping(&self) -> bool {
        self.core.is_stopping()
    }

    /// One turn. It waits for something to do, `limit` at most, unless `may_sleep`, asked after the bell was told that
    /// this core sleeps, denies that it may.
    ///
    /// # Panics
    /// If the kernel refuses to wait, which no state of this process explains.
    pub fn turn(&mut self, limit: Duration, may_sleep: impl FnOnce() -> bool) {
        self.wait(limit, may_sleep);
        self.core.drain();
        self.read_queued();
        let now_ms = self.options.clock.now_ms();
        self.let_in(now_ms);
        if now_ms >= self.next_sweep_ms {
            self.core.sweep();
            if self.core.has_freed_much() {
                memory::give_back();
            }
            self.next_sweep_ms = now_ms + sweep_interval_ms(&self.options);
        }
        self.end_turn();
    }

    /// Waits until there is something to do, and notes what the kernel tells.
    fn wait(&mut self, limit: Duration, may_sleep: impl FnOnce() -> bool) {
        let begun_ns = self.options.clock.now_ns();
        let asleep = match std::mem::take(&mut self.must_go_on) || self.look(begun_ns) {
            true => None,
            false => self.bell.fall_asleep(|| !self.core.has_deliveries() && may_sleep()),
        };
        let limit = match asleep {
            None => Duration::ZERO,
            Some(_) => {
                let until_ms = self.door.wants_turn_at_ms().unwrap_or(u64::MAX).min(self.next_sweep_ms);
                limit.min(Duration::from_millis(until_ms.saturating_sub(self.options.clock.now_ms())))
            }
        };
        let mut events = [const { MaybeUninit::uninit() }; limits::EVENTS_PER_TURN];
        let events = match epoll::wait(&self.epoll, &mut events, Some(&timespec(limit))) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => &mut [],
            Err(error) => panic!("a client core cannot wait for its sockets: {error}"),
        };
        if asleep.is_some() {
            self.expectation.slept(self.options.clock.now_ns() - begun_ns);
        }
        drop(asleep);
        self.is_with_one = matches!(events, [event] if !matches!(event.data.u64(), BELL | DOOR));
        for event in events {
            match event.data.u64() {
                BELL => {}
                DOOR => self.door.knocked(),
                name => {
                    let id = self.core.id_of(name as u32, (name >> 32) as u32);
                    let Some(socket) = socket(&mut self.sockets, id) else { continue };
                    let (must_queue, is_awaited) = socket.told(event.flags);
                    if must_queue {
                        self.queued.push_back(id);
                    }
                    if is_awaited {
                        self.core.mark_dirty(id);
                    }
                }
            }
        }
    }

    /// Before the core sleeps: looks for something to do, if one client alone has lately asked again and again. Whether
    /// there is something. With more clients the answers to those who ask meanwhile would not leave together, which
    /// costs more than a sleep.
    fn look(&mut self, begun_ns: u64) -> bool {
        if !(self.options.looks_out && self.is_with_one && self.expectation.is_soon()) {
            return false;
        }
        loop {
            let mut epoll = [PollFd::new(&self.epoll, PollFlags::IN)];
            if self.core.has_deliveries() || poll(&mut epoll, Some(&timespec(Duration::ZERO))) != Ok(0) {
                return true;
            }
            if self.options.clock.now_ns() - begun_ns >= LOOK_NS_MAX {
                self.expectation.looked_in_vain();
                return false;
            }
            // Whoever else wants this CPU, that client perhaps, has it now.
            std::thread::yield_now();
        }
    }

    /// Reads every socket that is queued, a bounded number of times each.
    fn read_queued(&mut self) {
        for _ in 0..self.queued.len() {
            let Some(id) = self.queued.pop_front() else { return };
            self.read(id);
        }
    }

    fn read(&mut self, id: ConnectionId) {
        let Some(socket) = socket(&mut self.sockets, id) else { return };
        socket.unqueue();
        for _ in 0..READS_PER_TURN {
            // A connection that is held back is queued again when it goes on: it stands among the rearmed then.
            if !socket.has_input() || !self.core.wants_input(id) {
                return;
            }
            let received = socket.receive(&mut self.buffer);
            self.core.drain();
            match received {
                Received::Bytes(count) => self.core.received(id, &self.buffer[..count]),
                Received::Nothing => return,
                Received::End => return self.core.hung_up(id),
            }
        }
        if socket.must_queue() {
            self.queued.push_back(id);
        }
    }

    fn let_in(&mut self, now_ms: u64) {
        let Self { door, options, shared, counters, guests, .. } = self;
        let refused = || counters.connections_rejected.increment();
        door.let_in(now_ms, options, shared, refused, guests);
        for guest in std::mem::take(&mut self.guests) {
            self.take_in(guest);
        }
    }

    fn take_in(&mut self, guest: Guest) {
        let Guest { stream, peer, host } = guest;
        let id = self.core.accepted(peer);
        let slot = id.slot as usize;
        if self.sockets.len() <= slot {
            self.sockets.resize_with(slot + 1, || None);
        }
        assert!(self.sockets[slot].is_none(), "a free slot has a socket");
        let name = EventData::new_u64(u64::from(id.slot) | u64::from(id.generation) << 32);
        let watched = epoll::add(&self.epoll, &stream, name, WATCHED);
        self.sockets[slot] = Some(Socket::new(stream, host, id));
        if let Err(error) = watched {
            log::warn!("Closing {peer}: the kernel does not watch one more socket: {error}.");
            self.close(id);
        }
    }

    /// Behind all that the turn brought.
    fn end_turn(&mut self) {
        self.core.end_turn();
        let mut ids = std::mem::take(&mut self.ids);
        self.must_go_on |= self.core.take_dirty(&mut ids);
        for id in ids.drain(..) {
            self.flush(id);
        }
        self.core.take_rearmed(&mut ids);
        for id in ids.drain(..) {
            if socket(&mut self.sockets, id).is_some_and(Socket::must_queue) {
                self.queued.push_back(id);
            }
        }
        self.ids = ids;
        self.must_go_on |= !self.queued.is_empty();
        self.core.publish();
    }

    /// Sends what a connection has to send, and closes it if that was all.
    fn flush(&mut self, id: ConnectionId) {
        let Some(socket) = socket(&mut self.sockets, id) else { return };
        let Some((unsent, phase)) = self.core.output(id) else { return };
        let is_ending = matches!(phase, Phase::Finishing | Phase::Dead);
        let is_all_sent = if unsent.is_empty() {
            true
        } else if socket.is_full() {
            // The kernel will say when there is room, and the connection is flushed again.
            return;
        } else {
            let wanted = unsent.len();
            match socket.send(unsent) {
                Sent::Bytes(count) => {
                    if count > 0 {
                        self.core.sent(id, count);
                        self.must_go_on |= self.core.has_held();
                    }
                    count == wanted
                }
                Sent::Broken => return self.close(id),
            }
        };
        if is_all_sent && is_ending {
            self.close(id);
        }
    }

    /// Closes a socket and forgets its connection.
    fn close(&mut self, id: ConnectionId) {
        let Some(socket) = self.sockets[id.slot as usize].take() else { return };
        self.shared.leave(socket.host);
        self.core.closed(id);
    }

    /// The server stops: what is written is sent as far as the sockets take it, then all are closed.
    pub fn close_all(&mut self) {
        for slot in 0..self.sockets.len() {
            if let Some(id) = self.sockets[slot].as_ref().map(|socket| socket.id) {
                self.flush(id);
                self.close(id);
            }
        }
        self.core.publish();
    }
}

/// The socket of a connection that is still there.
fn socket(sockets: &mut [Option<Socket>], id: ConnectionId) -> Option<&mut Socket> {
    let socket = sockets.get_mut(id.slot as usize)?.as_mut()?;
    (socket.id == id).then_some(socket)
}

/// Milliseconds between two sweeps.
fn sweep_interval_ms(options: &EdgeOptions) -> u64 {
    u64::from(options.tick_ms / limits::SWEEPS_PER_TICK).clamp(10, 500)
}
