//! One connection's socket, and what the kernel has told of it.
//!
//! Sockets are watched edge-triggered: the kernel says once that there is something to read or room to write, and what
//! it said is remembered here until a call finds otherwise. So a connection whose input is held back costs nothing, and
//! nothing is asked of the kernel but what moves bytes.

use crate::cores::messages::ConnectionId;
use rustix::{
    event::epoll::EventFlags,
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};
use std::{
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// What is watched of each socket.
pub(super) const WATCHED: EventFlags =
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);

/// One connection's socket.
pub(super) struct Socket {
    stream: OwnedFd,
    /// Who is connected, for the census.
    pub(super) host: IpAddr,
    pub(super) id: ConnectionId,
    /// There may be something to read.
    has_input: bool,
    /// The kernel has said that the other side is gone or sends no more: behind the last byte there is an end to be
    /// found, of which nothing more will be said.
    has_end: bool,
    /// It took no more; the kernel will say when it does again.
    is_full: bool,
    /// It stands in the queue of sockets to be read.
    is_queued: bool,
}

/// What reading a socket gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Received {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// The other side has ended, or the connection is broken.
    End,
}

/// What writing to a socket gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sent {
    /// So many bytes were taken; if not all, the kernel will say when there is room.
    Bytes(usize),
    /// The connection is broken.
    Broken,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Socket {
    pub(super) fn new(stream: OwnedFd, host: IpAddr, id: ConnectionId) -> Self {
        Self { stream, host, id, has_input: false, has_end: false, is_full: false, is_queued: false }
    }

    /// The kernel tells something new. Whether the socket must be queued for reading, and whether there is room to write
    /// for which somebody waited.
    pub(super) fn told(&mut self, flags: EventFlags) -> (bool, bool) {
        let ends = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        self.has_end |= flags.intersects(ends);
        self.has_input |= flags.intersects(ends | EventFlags::IN);
        let is_awaited = flags.contains(EventFlags::OUT) && std::mem::take(&mut self.is_full);
        (self.must_queue(), is_awaited)
    }

    /// Whether the socket must be queued, which is noted: there may be something to read, and it is not queued yet.
    pub(super) fn must_queue(&mut self) -> bool {
        self.has_input && !std::mem::replace(&mut self.is_queued, true)
    }

    /// It was taken from the queue.
    pub(super) fn unqueue(&mut self) {
        self.is_queued = false;
    }

    /// Whether there may be something to read.
    pub(super) fn has_input(&self) -> bool {
        self.has_input
    }

    /// Whether it took no more when it was last written to.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Reads once.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Received {
        if !self.has_input {
            return Received::Nothing;
        }
        loop {
            match recv(&self.stream, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Received::End,
                Ok((count, _)) => {
                    // Less than would fit: that was all, and the kernel will tell of what comes next (epoll(7)).
                    self.has_input = count == buffer.len() || self.has_end;
                    return Received::Bytes(count);
                }
                Err(Errno::AGAIN) => {
                    self.has_input = false;
                    return Received::Nothing;
                }
                Err(Errno::INTR) => {}
                Err(_) => return Received::End,
            }
        }
    }

    /// Writes once.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Sent {
        loop {
            match send(&self.stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(0) => return Sent::Broken,
                Ok(count) => {
                    // A short write finds the buffer full just as EAGAIN does, and the kernel notes that we wait.
                    self.is_full = count < bytes.len();
                    return Sent::Bytes(count);
                }
                Err(Errno::AGAIN) => {
                    self.is_full = true;
                    return Sent::Bytes(0);
                }
                Err(Errno::INTR) => {}
                Err(_) => return Sent::Broken,
            }
        }
    }
}
