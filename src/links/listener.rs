//! Listening sockets of the election port and the quorum port, and what happens where a port is taken (row Q17).
//!
//! Both are bound as soon as the links are opened: a learner that elected this server before this server knows it waits
//! on an open link (`zab` parks it) instead of being refused. Apache binds its quorum port when it leads. While the
//! quorum port is taken the election port refuses: whoever is heard may be elected, and then nobody gets through to it.

use super::{
    LinkError,
    ground::{Ground, Place},
    names::Found,
    poller::Token,
};
use crate::config::{ensemble::HostPort, limits};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

/// Between two tries to bind a port, as in Apache.
const BIND_RETRY: Duration = Duration::from_secs(1);

/// How long the start waits for the lookup of this server's own name; after that it goes on without.
const OWN_NAME_LIMIT: Duration = Duration::from_secs(5);

/// Between two log lines about an own name that still does not resolve.
const NAME_REMINDER: Duration = Duration::from_secs(60);

/// How long nobody is accepted when the system has no descriptor left.
const DEAF_TIME: Duration = Duration::from_millis(100);

/// Which connections come in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Port {
    Election,
    Quorum,
}

impl Port {
    const fn purpose(self) -> &'static str {
        match self {
            Self::Election => "election connections",
            Self::Quorum => "learners",
        }
    }

    /// Which of the ports of a server.N line it is.
    const fn place(self) -> &'static str {
        match self {
            Self::Election => "second",
            Self::Quorum => "first",
        }
    }
}

/// Why a port is not bound yet.
enum Failure {
    /// The own name has no address yet: there is nothing to bind, and whoever writes names may come late.
    Name(String),
    Bind(String),
}

enum State {
    /// Nobody else has the port, and who calls is refused: an election port, until the others could follow, too.
    Reserved(Socket),
    Listening(TcpListener, Token),
    /// The system had no descriptor for who came; until then nobody is asked for.
    Deaf(TcpListener, Token, Instant),
    /// Another try is due.
    Waiting(Instant),
    /// Its own name is being looked up.
    LookingUp,
}

pub(super) struct Listener {
    pub(super) port: Port,
    index: usize,
    address: HostPort,
    on_all: bool,
    state: State,
    failures: u32,
    /// What was told about the last failure, so that it is not told twice.
    told: String,
    /// When to tell again that the own name does not resolve.
    remind_at: Option<Instant>,
}

impl Listener {
    /// Binds a port, or begins to try.
    ///
    /// # Errors
    /// If one try was all there was to be.
    pub(super) fn open(
        index: usize,
        port: Port,
        address: HostPort,
        ground: &mut Ground,
    ) -> Result<Self, LinkError> {
        let on_all = ground.options.listen_on_all;
        let mut listener = Self {
            port,
            index,
            address,
            on_all,
            state: State::LookingUp,
            failures: 0,
            told: String::new(),
            remind_at: None,
        };
        let found = if on_all {
            Ok(vec![Ipv6Addr::UNSPECIFIED.into()])
        } else {
            ground.lookups.ask_and_wait(&listener.address.host, OWN_NAME_LIMIT, &ground.threads)
        };
        listener.bind(&found, ground)?;
        Ok(listener)
    }

    pub(super) fn is_at(&self, port: Port, number: u16) -> bool {
        self.port == port && self.address.port == number
    }

    pub(super) fn is_bound(&self) -> bool {
        matches!(self.state, State::Reserved(_) | State::Listening(..) | State::Deaf(..))
    }

    /// When to look again.
    pub(super) fn look_at(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(at) | State::Deaf(_, _, at) => Some(at),
            State::Reserved(_) | State::Listening(..) | State::LookingUp => None,
        }
    }

    /// Tries again where that is due.
    pub(super) fn tend(&mut self, ground: &mut Ground) -> Result<(), LinkError> {
        match &self.state {
            State::Waiting(at) if ground.now >= *at => {}
            State::Deaf(_, _, at) if ground.now >= *at => {
                self.listen_again(ground);
                return Ok(());
            }
            State::Waiting(_)
            | State::Reserved(_)
            | State::Deaf(..)
            | State::Listening(..)
            | State::LookingUp => return Ok(()),
        }
        if self.on_all {
            return self.bind(&Ok(vec![Ipv6Addr::UNSPECIFIED.into()]), ground);
        }
        match ground.look_up(&self.address.host) {
            Some(found) => self.bind(&found, ground),
            None => {
                self.state = State::LookingUp;
                Ok(())
            }
        }
    }

    /// A lookup has ended, perhaps the own one.
    pub(super) fn name_found(
        &mut self,
        host: &str,
        found: &Found,
        ground: &mut Ground,
    ) -> Result<(), LinkError> {
        if matches!(self.state, State::LookingUp) && self.address.host == host {
            return self.bind(found, ground);
        }
        Ok(())
    }

    fn bind(&mut self, found: &Found, ground: &mut Ground) -> Result<(), LinkError> {
        match self.try_bind(found) {
            Ok(socket) => {
                self.state = State::Reserved(socket);
                match self.port {
                    Port::Election => Ok(()),
                    Port::Quorum => self.open_up(ground),
                }
            }
            Err(Failure::Name(reason)) => {
                self.tell_of_name(&reason, ground);
                self.state = State::Waiting(ground.now + BIND_RETRY);
                Ok(())
            }
            Err(Failure::Bind(reason)) => self.bind_failed(reason, ground),
        }
    }

    /// Lets callers in, once the port is bound. An election port is opened when a quorum port is bound: who is called may be
    /// elected.
    ///
    /// # Errors
    /// If somebody else listens there meanwhile, and it was the last try.
    pub(super) fn open_up(&mut self, ground: &mut Ground) -> Result<(), LinkError> {
        let socket = match std::mem::replace(&mut self.state, State::LookingUp) {
            State::Reserved(socket) => socket,
            other => {
                self.state = other;
                return Ok(());
            }
        };
        let listening = socket.listen(limits::LINK_BACKLOG).and_then(|()| {
            let socket = TcpListener::from(socket);
            ground.watch(&socket, Place::Listener(self.index), true, false).map(|token| (socket, token))
        });
        match listening {
            Ok((socket, token)) => {
                let at = socket.local_addr().map_or(self.address.to_string(), |address| address.to_string());
                log::info!("listening on {at} for {}", self.port.purpose());
                self.state = State::Listening(socket, token);
                self.failures = 0;
                self.told.clear();
                self.remind_at = None;
                Ok(())
            }
            Err(error) => self.bind_failed(error.to_string(), ground),
        }
    }

    fn bind_failed(&mut self, reason: String, ground: &Ground) -> Result<(), LinkError> {
        self.failures += 1;
        let tries_max = ground.options.bind_tries_max;
        if tries_max > 0 && self.failures >= tries_max {
            return Err(LinkError::Bind {
                me: ground.options.me,
                place: self.port.place(),
                address: self.address.clone(),
                purpose: self.port.purpose(),
                tries: self.failures,
                reason,
            });
        }
        if self.told != reason {
            let (address, purpose) = (&self.address, self.port.purpose());
            log::warn!(
                "cannot listen on {address} for {purpose} yet: {reason}; trying every second. Until then this server takes \
                 no part in elections"
            );
            self.told = reason;
        }
        self.state = State::Waiting(ground.now + BIND_RETRY);
        Ok(())
    }

    /// Once when it begins, then seldom.
    fn tell_of_name(&mut self, reason: &str, ground: &Ground) {
        if self.remind_at.is_some_and(|at| ground.now < at) {
            return;
        }
        self.remind_at = Some(ground.now + NAME_REMINDER);
        let (me, address, purpose) = (ground.options.me, &self.address, self.port.purpose());
        log::warn!(
            "cannot listen on {address} for {purpose} yet: the host of this server's own line server.{me} has no address: \
             {reason}; looking it up every second. Until then this server calls nobody. With quorumListenOnAllIPs=true \
             it does not need the name"
        );
    }

    fn try_bind(&self, found: &Found) -> Result<Socket, Failure> {
        let found = found.as_ref().map_err(|reason| Failure::Name(reason.clone()))?;
        let mut last = String::new();
        for address in found {
            match reserve(*address, self.address.port) {
                Ok(socket) => return Ok(socket),
                Err(error) => last = format!("{}: {error}", SocketAddr::new(*address, self.address.port)),
            }
        }
        Err(Failure::Bind(last))
    }

    /// Takes what has come, at most a bounded number a turn.
    pub(super) fn accept(
        &mut self,
        ground: &mut Ground,
        mut take: impl FnMut(TcpStream, SocketAddr, &mut Ground),
    ) {
        let State::Listening(socket, _) = &self.state else { return };
        for _ in 0..limits::LINK_ACCEPTS_PER_TURN {
            match socket.accept() {
                Ok((stream, address)) => {
                    self.told.clear();
                    take(stream, address, ground);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The one that came has gone again.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                    ) => {}
                // Out of descriptors, or of memory: those that wait are taken when there are some.
                Err(error) => {
                    let words = error.to_string();
                    if self.told != words {
                        log::error!("cannot accept {} on {}: {error}", self.port.purpose(), self.address);
                        self.told = words;
                    }
                    return self.fall_deaf(ground);
                }
            }
        }
    }

    /// Who waits in the backlog stays "ready": without a pause this would be reported without end.
    fn fall_deaf(&mut self, ground: &mut Ground) {
        if let State::Listening(socket, token) = std::mem::replace(&mut self.state, State::LookingUp) {
            ground.poller.remove(&socket);
            self.state = State::Deaf(socket, token, ground.now + DEAF_TIME);
        }
    }

    fn listen_again(&mut self, ground: &mut Ground) {
        let State::Deaf(socket, token, _) = std::mem::replace(&mut self.state, State::LookingUp) else {
            return;
        };
        self.state = match ground.poller.add_again(&socket, token, false) {
            Ok(()) => State::Listening(socket, token),
            Err(_) => State::Deaf(socket, token, ground.now + DEAF_TIME),
        };
    }

    pub(super) fn close(self, ground: &mut Ground) {
        if let State::Listening(socket, token) | State::Deaf(socket, token, _) = self.state {
            ground.unwatch(&socket, token);
        }
    }
}

/// A wildcard listens on every address of both families, as Java does, or of IPv4 where there is no other.
fn reserve(address: IpAddr, port: u16) -> io::Result<Socket> {
    if !address.is_unspecified() {
        return bound(SocketAddr::new(address, port));
    }
    bound((Ipv6Addr::UNSPECIFIED, port).into()).or_else(|error| {
        let refused = error.kind() == io::ErrorKind::AddrInUse;
        if refused { Err(error) } else { bound((Ipv4Addr::UNSPECIFIED, port).into()) }
    })
}

fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
