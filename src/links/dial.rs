//! One attempt to reach a server at any of its addresses: lookup, then non-blocking connects, all before one deadline.
//!
//! Addresses are tried one after the other, but the next one does not wait for a silent one to time out (RFC 8305): a
//! packet that is dropped by a firewall costs a quarter of a second, not `cnxTimeout`.

use super::{
    ground::{DialOwner, Ground, Place},
    names::Found,
    poller::Token,
};
use crate::config::{ensemble::HostPort, limits};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::VecDeque,
    fmt, io,
    net::{IpAddr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// How long a silent address keeps the next one waiting (RFC 8305, "Connection Attempt Delay").
const STAGGER: Duration = Duration::from_millis(250);

/// Why a server could not be reached, for one log line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum DialFailure {
    /// A name has no address.
    Name(String),
    /// An address does not take connections.
    Connect(SocketAddr, io::ErrorKind, String),
    /// Nothing answered in time.
    Deadline(Duration),
    /// There is nothing to dial.
    NoAddress,
}

impl fmt::Display for DialFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(reason) => f.write_str(reason),
            Self::Connect(address, _, reason) => write!(f, "{address}: {reason}"),
            Self::Deadline(limit) => write!(f, "nothing answered within {} ms", limit.as_millis()),
            Self::NoAddress => f.write_str("no address is known"),
        }
    }
}

/// A connection that a dial has opened.
pub(super) struct Opened {
    pub(super) stream: TcpStream,
    pub(super) token: Token,
    pub(super) address: SocketAddr,
}

struct Attempt {
    socket: Socket,
    token: Token,
    address: SocketAddr,
}

pub(super) struct Dial {
    owner: DialOwner,
    limit: Duration,
    deadline: Instant,
    unresolved: Vec<HostPort>,
    candidates: VecDeque<SocketAddr>,
    attempts: Vec<Attempt>,
    next_at: Option<Instant>,
    failure: Option<DialFailure>,
}

impl Dial {
    /// Begins to reach whoever listens at one of `hosts`. The caller asks for its [`progress`](Self::progress) next.
    pub(super) fn start(
        owner: DialOwner,
        hosts: impl IntoIterator<Item = HostPort>,
        limit: Duration,
        ground: &mut Ground,
    ) -> Self {
        let mut dial = Self {
            owner,
            limit,
            deadline: ground.now + limit,
            unresolved: Vec::new(),
            candidates: VecDeque::new(),
            attempts: Vec::new(),
            next_at: None,
            failure: None,
        };
        for host in hosts {
            match ground.look_up(&host.host) {
                Some(found) => dial.take_addresses(host.port, found),
                None => dial.unresolved.push(host),
            }
        }
        dial
    }

    fn take_addresses(&mut self, port: u16, found: Found) {
        match found {
            Ok(addresses) => {
                for address in addresses.into_iter().map(|ip| SocketAddr::new(ip, port)) {
                    if self.candidates.len() < limits::DIAL_ADDRESSES_MAX
                        && !self.candidates.contains(&address)
                    {
                        self.candidates.push_back(address);
                    }
                }
            }
            Err(reason) => self.failure = Some(DialFailure::Name(reason)),
        }
    }

    /// A lookup has ended, perhaps one that this dial waits for.
    pub(super) fn name_found(&mut self, host: &str, found: &Found) {
        let (these, others): (Vec<HostPort>, Vec<HostPort>) =
            self.unresolved.drain(..).partition(|wanted| wanted.host == host);
        self.unresolved = others;
        for wanted in these {
            self.take_addresses(wanted.port, found.clone());
        }
    }

    /// When to look again though nothing was reported.
    pub(super) fn look_at(&self) -> Instant {
        let stagger = self.next_at.filter(|_| !self.candidates.is_empty());
        stagger.map_or(self.deadline, |at| at.min(self.deadline))
    }

    /// A socket of this dial was reported.
    pub(super) fn ready(&mut self, token: Token, ground: &mut Ground) -> Option<Opened> {
        let index = self.attempts.iter().position(|attempt| attempt.token == token)?;
        let Attempt { socket, token, address } = self.attempts.swap_remove(index);
        let outcome = match socket.take_error() {
            Ok(None) => socket.peer_addr().map(|_| ()),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        match outcome {
            // TCP can connect a port to itself where nobody listens on it.
            Ok(()) if is_own_echo(&socket) => {
                self.fail(address, &io::ErrorKind::ConnectionRefused.into());
            }
            Ok(()) => return Some(Opened { stream: socket.into(), token, address }),
            Err(error) => self.fail(address, &error),
        }
        ground.unwatch(&socket, token);
        None
    }

    /// Starts what is due.
    ///
    /// # Errors
    /// When nothing is left to be tried: the dial is over.
    pub(super) fn progress(&mut self, ground: &mut Ground) -> Result<(), DialFailure> {
        if ground.now >= self.deadline {
            self.cancel(ground);
            return Err(self.failure.take().unwrap_or(DialFailure::Deadline(self.limit)));
        }
        while self.attempts.is_empty() || self.next_at.is_some_and(|at| ground.now >= at) {
            let Some(address) = self.candidates.pop_front() else { break };
            match self.connect(address, ground) {
                Ok(()) => self.next_at = Some(ground.now + STAGGER),
                Err(error) => self.fail(address, &error),
            }
        }
        if self.attempts.is_empty() && self.candidates.is_empty() && self.unresolved.is_empty() {
            return Err(self.failure.take().unwrap_or(DialFailure::NoAddress));
        }
        Ok(())
    }

    fn connect(&mut self, address: SocketAddr, ground: &mut Ground) -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        // Whether it is connected already or not, the kernel reports it as writable.
        let token = ground.watch(&socket, Place::Dial(self.owner), false, true)?;
        self.attempts.push(Attempt { socket, token, address });
        Ok(())
    }

    fn fail(&mut self, address: SocketAddr, error: &io::Error) {
        self.failure = Some(DialFailure::Connect(address, error.kind(), error.to_string()));
    }

    /// Gives up what is under way.
    pub(super) fn cancel(&mut self, ground: &mut Ground) {
        for attempt in self.attempts.drain(..) {
            ground.unwatch(&attempt.socket, attempt.token);
        }
        self.candidates.clear();
        self.unresolved.clear();
    }
}

fn is_own_echo(socket: &Socket) -> bool {
    match (socket.local_addr(), socket.peer_addr()) {
        (Ok(local), Ok(peer)) => local.as_socket() == peer.as_socket(),
        _ => false,
    }
}

/// Splits `host:port`, the host perhaps an IPv6 address in brackets. `None` for what is no address, and for the wildcard
/// addresses, which say nothing about where somebody is (row Q12).
pub(super) fn address_told(text: &str) -> Option<HostPort> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').map_or(Some(host), |host| host.strip_suffix(']'))?;
    let port = port.parse().ok()?;
    let wildcard = host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
    (!wildcard && !host.is_empty() && port != 0).then(|| HostPort { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Q12: wildcards name nobody.
    #[test]
    fn addresses_of_greetings() {
        let check = |text: &str, expected: Option<(&str, u16)>| {
            let address = address_told(text).map(|address| (address.host, address.port));
            assert_eq!(address, expected.map(|(host, port)| (host.to_owned(), port)), "{text}");
        };
        check("zoo1:3888", Some(("zoo1", 3888)));
        check("[fe80::1]:3888", Some(("fe80::1", 3888)));
        check("10.0.0.1:1", Some(("10.0.0.1", 1)));
        for nothing in ["0.0.0.0:3888", "[::]:3888", ":3888", "zoo1", "zoo1:x", "[::1:3888", "zoo1:0", ""] {
            check(nothing, None);
        }
    }
}
