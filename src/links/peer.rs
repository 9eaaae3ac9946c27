//! One server on the election port: its connection, the one message that waits for it, and when to dial it again.

use super::{dial::Dial, ground::Ground, poller::Token};
use crate::{
    config::ensemble::HostPort,
    status::links::{PeerFigures, Traffic},
};
use bytes::Bytes;
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};
use zkfast_wire::{Notification, ServerId};

/// The least time between two dials of one peer, whatever the order asks for: notifications come in bursts.
const DIAL_PAUSE_MIN: Duration = Duration::from_millis(100);

/// The longest time between two dials of a peer that does not answer. New votes do not wait for it.
const DIAL_PAUSE_MAX: Duration = Duration::from_secs(10);

/// How long a knock may take to be answered with a connection before it is repeated.
const ANSWER_PAUSE: Duration = Duration::from_secs(1);

/// What is known of a peer, as far as an operator should know it. Each change is one log line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    Unknown,
    Up(SocketAddr),
    Lost(String),
    Unreachable(String),
}

struct Connection {
    stream: TcpStream,
    token: Token,
    address: SocketAddr,
    up_at: Instant,
    /// The beginning of a message that is not whole yet.
    inbox: Vec<u8>,
    /// What is being written, of which the first `sent` bytes have left.
    out: Bytes,
    wants_write: bool,
}

pub(super) struct Peer {
    pub(super) id: ServerId,
    /// Where the configuration says that it is. Empty: it is not in the configuration.
    pub(super) configured: Vec<HostPort>,
    /// Where it says itself that it is.
    pub(super) told: Vec<HostPort>,
    pub(super) queued: Option<Bytes>,
    last: Option<Bytes>,
    connection: Option<Connection>,
    pub(super) dial: Option<Dial>,
    /// When to dial again though nobody asked.
    pub(super) retry_at: Option<Instant>,
    dialled_at: Option<Instant>,
    pause: Duration,
    standing: Standing,
    connects: u64,
    traffic: Traffic,
}

impl Peer {
    pub(super) fn new(id: ServerId) -> Self {
        Self {
            id,
            configured: Vec::new(),
            told: Vec::new(),
            queued: None,
            last: None,
            connection: None,
            dial: None,
            retry_at: None,
            dialled_at: None,
            pause: DIAL_PAUSE_MIN,
            standing: Standing::Unknown,
            connects: 0,
            traffic: Traffic::default(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.connection.is_some()
    }

    pub(super) fn is_up_for(&self, now: Instant) -> Option<Duration> {
        self.connection.as_ref().map(|connection| now.saturating_duration_since(connection.up_at))
    }

    pub(super) fn holds(&self, token: Token) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.token == token)
    }

    /// Where to dial: first where it says that it is, which is newer than any file.
    pub(super) fn addresses(&self) -> Vec<HostPort> {
        let mut addresses = self.told.clone();
        addresses.extend(self.configured.iter().filter(|address| !self.told.contains(address)).cloned());
        addresses
    }

    /// Tells an operator what has changed.
    pub(super) fn say(&mut self, standing: Standing) {
        if self.standing == standing {
            return;
        }
        let id = self.id;
        match &standing {
            Standing::Unknown => {}
            Standing::Up(address) => {
                log::info!("the election connection with server {id} at {address} is up")
            }
            Standing::Lost(reason) => {
                log::warn!("the election connection with server {id} is lost: {reason}")
            }
            Standing::Unreachable(reason) => {
                log::warn!(
                    "server {id} cannot be reached on its election port: {reason}; trying again and again"
                );
            }
        }
        self.standing = standing;
    }

    // The connection

    /// Takes a connection in place of the one that there may be. `first` is sent before anything else.
    pub(super) fn connect(
        &mut self,
        stream: TcpStream,
        token: Token,
        address: SocketAddr,
        first: Vec<u8>,
        ground: &mut Ground,
    ) {
        self.disconnect(ground);
        if let Some(mut dial) = self.dial.take() {
            dial.cancel(ground);
        }
        if let Err(error) = tune(&stream, ground) {
            log::debug!("{address} refuses a socket option: {error}");
        }
        // With nothing new to say the last word is said again: it may have been lost with the last connection (Q16).
        if self.queued.is_none() {
            self.queued.clone_from(&self.last);
        }
        self.connection = Some(Connection {
            stream,
            token,
            address,
            up_at: ground.now,
            inbox: Vec::new(),
            out: first.into(),
            wants_write: false,
        });
        self.connects += 1;
        self.pause = DIAL_PAUSE_MIN;
        self.retry_at = None;
        self.say(Standing::Up(address));
    }

    /// Drops the connection; whether there was one.
    pub(super) fn disconnect(&mut self, ground: &mut Ground) -> bool {
        let Some(connection) = self.connection.take() else { return false };
        ground.unwatch(&connection.stream, connection.token);
        true
    }

    pub(super) fn read(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        let connection = self.connection.as_mut().expect("only connected peers are read");
        let read = connection.stream.read(scratch)?;
        self.traffic.bytes_received += read as u64;
        Ok(read)
    }

    /// Cuts messages out of what was read (row Q15).
    ///
    /// # Errors
    /// A length that no message has.
    pub(super) fn feed(&mut self, read: &[u8], mut take: impl FnMut(Bytes)) -> Result<(), i32> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        connection.inbox.extend_from_slice(read);
        let mut at = 0;
        let checked = loop {
            let rest = &connection.inbox[at..];
            let Some((length, rest)) = rest.split_first_chunk::<4>() else { break Ok(()) };
            let length = i32::from_be_bytes(*length);
            let bytes = match usize::try_from(length) {
                Ok(bytes @ 1..=Notification::MESSAGE_BYTES_MAX) => bytes,
                _ => break Err(length),
            };
            let Some(message) = rest.get(..bytes) else { break Ok(()) };
            take(Bytes::copy_from_slice(message));
            self.traffic.packets_received += 1;
            at += 4 + bytes;
        };
        connection.inbox.drain(..at);
        if connection.inbox.is_empty() {
            connection.inbox = Vec::new();
        }
        checked
    }

    /// Writes what the socket takes.
    pub(super) fn flush(&mut self, ground: &mut Ground) -> io::Result<()> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        loop {
            if connection.out.is_empty() {
                let Some(message) = self.queued.take() else { break };
                self.last = Some(message.clone());
                self.traffic.packets_sent += 1;
                connection.out = message;
            }
            match connection.stream.write(&connection.out) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    self.traffic.bytes_sent += sent as u64;
                    let _ = connection.out.split_to(sent);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let wants_write = !connection.out.is_empty();
        if connection.wants_write != wants_write {
            connection.wants_write = wants_write;
            ground.poller.change(&connection.stream, connection.token, true, wants_write)?;
        }
        Ok(())
    }

    // When to dial

    /// The order has something to say, or the peer knocked: do not wait for the end of a long pause.
    pub(super) fn hurry(&mut self, now: Instant) {
        if self.is_up() || self.dial.is_some() {
            return;
        }
        let earliest = self.dialled_at.map_or(now, |at| at + DIAL_PAUSE_MIN).max(now);
        self.retry_at = Some(self.retry_at.map_or(earliest, |at| at.min(earliest)));
    }

    /// Dials again after a pause that grows.
    pub(super) fn dial_again(&mut self, ground: &Ground) {
        if self.is_up() || self.dial.is_some() {
            return;
        }
        // The one with the larger id opens the connection; the other one leaves it a little time to do so.
        let pause = if ground.options.me > self.id { self.pause } else { self.pause.max(ANSWER_PAUSE) };
        self.retry_at = Some(ground.now + pause);
        self.pause = (self.pause * 2).min(DIAL_PAUSE_MAX);
    }

    /// A knock was left; the peer dials back.
    pub(super) fn knocked(&mut self, now: Instant) {
        self.retry_at = Some(now + ANSWER_PAUSE.max(self.pause));
        self.pause = (self.pause * 2).min(DIAL_PAUSE_MAX);
    }

    pub(super) fn is_dial_due(&mut self, now: Instant) -> bool {
        let due = !self.is_up() && self.dial.is_none() && self.retry_at.is_some_and(|at| now >= at);
        if due {
            self.dialled_at = Some(now);
        }
        due
    }

    /// `may_call`: whether a new dial may begin.
    pub(super) fn needs_tending(&self, now: Instant, may_call: bool) -> bool {
        self.dial.is_some() || may_call && self.retry_at.is_some_and(|at| now >= at)
    }

    pub(super) fn look_at(&self, may_call: bool) -> Option<Instant> {
        self.dial.as_ref().map(Dial::look_at).or(self.retry_at.filter(|_| may_call))
    }

    pub(super) fn figures(&self, now: Instant) -> PeerFigures {
        PeerFigures {
            server: self.id,
            address: self.connection.as_ref().map(|connection| connection.address),
            up_ms: self.is_up_for(now).map(|age| age.as_millis() as u64),
            connects: self.connects,
            traffic: self.traffic,
            trouble: match &self.standing {
                Standing::Unknown | Standing::Up(_) => None,
                Standing::Lost(reason) | Standing::Unreachable(reason) => Some(reason.clone()),
            },
        }
    }
}

fn tune(stream: &TcpStream, ground: &Ground) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    socket.set_keepalive(ground.options.keep_alive)?;
    socket.set_tcp_user_timeout(Some(ground.options.unacknowledged_limit))
}
