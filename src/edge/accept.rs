//! Letting connections in (rows R3, R4, R6, C30).

use super::{EdgeOptions, EdgeShared, census::RareLine};
use crate::config::limits;
use rustix::{
    io::Errno,
    net::{SocketFlags, acceptfrom_with, sockopt::set_tcp_nodelay},
};
use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

/// How long accepting rests after an error such as "too many open files" (R6), milliseconds.
const REST_AFTER_ERROR_MS: u64 = 10;

/// A client core's listener.
pub(super) struct Door {
    listener: TcpListener,
    /// Somebody may be waiting: the kernel said so, and has not said since that nobody is left.
    has_waiting: bool,
    /// Nobody is let in before this time, milliseconds of the server's clock; 0 for no rest.
    rests_until_ms: u64,
    refusals: RareLine,
    errors: RareLine,
}

/// A connection that was let in, and is counted.
pub(super) struct Guest {
    pub(super) stream: OwnedFd,
    pub(super) peer: SocketAddr,
    pub(super) host: IpAddr,
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Door {
    /// # Errors
    /// If the listener cannot be made non-blocking.
    pub(super) fn new(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let (refusals, errors) = (RareLine::default(), RareLine::default());
        Ok(Self { listener, has_waiting: false, rests_until_ms: 0, refusals, errors })
    }

    /// The kernel says that somebody waits.
    pub(super) fn knocked(&mut self) {
        self.has_waiting = true;
    }

    /// When the door wants its next turn, milliseconds of the server's clock: 0 is now, `None` when somebody knocks.
    pub(super) fn wants_turn_at_ms(&self) -> Option<u64> {
        self.has_waiting.then_some(self.rests_until_ms)
    }

    /// Takes in those who wait, a bounded number a turn, and refuses those who are too many. `refused` is called for
    /// each of these.
    pub(super) fn let_in(
        &mut self,
        now_ms: u64,
        options: &EdgeOptions,
        shared: &EdgeShared,
        mut refused: impl FnMut(),
        guests: &mut Vec<Guest>,
    ) {
        if !self.has_waiting || now_ms < self.rests_until_ms {
            return;
        }
        self.rests_until_ms = 0;
        for _ in 0..limits::ACCEPTS_PER_TURN {
            let (stream, address) =
                match acceptfrom_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                    Ok(accepted) => accepted,
                    Err(Errno::AGAIN) => {
                        self.has_waiting = false;
                        return;
                    }
                    // The one who waited has gone again; there may be others.
                    Err(Errno::INTR | Errno::CONNABORTED) => continue,
                    Err(error) => {
                        if let Some(unsaid) = self.errors.may_say(now_ms) {
                            log::warn!(
                                "Accepting connections fails ({unsaid} more since the last line): {error}."
                            );
                        }
                        self.rests_until_ms = now_ms + REST_AFTER_ERROR_MS;
                        return;
                    }
                };
            let Some(Ok(peer)) = address.map(SocketAddr::try_from) else { continue };
            let host = peer.ip().to_canonical();
            if let Err(reason) = shared.enter(host, options) {
                refused();
                if let Some(unsaid) = self.refusals.may_say(now_ms) {
                    log::warn!("Refusing {peer} ({unsaid} more since the last line): {reason}.");
                }
                reset(stream);
                continue;
            }
            if let Err(error) = set_tcp_nodelay(&stream, true) {
                log::debug!("{peer}: TCP_NODELAY cannot be set: {error}.");
            }
            guests.push(Guest { stream, peer, host });
        }
    }
}

/// Closes with a reset (R3), so that the client's connect does not look like a success that was then lost.
fn reset(stream: OwnedFd) {
    // If it fails the connection closes in the ordinary way.
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}
