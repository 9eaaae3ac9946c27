//! What every part of the links stands on: the epoll with the place of each token, the clock of this turn, settings,
//! lookups.

use super::{
    names::Lookups,
    options::LinkOptions,
    poller::{Poller, Token, Waker},
    threads::Threads,
};
use crate::config::limits;
use std::{collections::BTreeMap, io, os::fd::AsFd, time::Instant};
use zkfast_wire::ServerId;
use zkfast_zab::LinkId;

/// Whom a ready descriptor belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// The bell of the pipeline.
    Bell,
    /// A thread has something for the links.
    Waker,
    /// A listening socket, by its place in the list.
    Listener(usize),
    /// Somebody on the election port who has not said yet who it is.
    Caller,
    /// An election connection.
    Peer(ServerId),
    /// An attempt to reach somebody.
    Dial(DialOwner),
    /// A learner connection.
    Link(LinkId),
}

/// Who wants to reach somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DialOwner {
    /// The election connection with this peer.
    Peer(ServerId),
    /// This server, to learn from a leader.
    Learner,
}

pub(super) struct Ground {
    pub(super) options: LinkOptions,
    pub(super) poller: Poller,
    places: BTreeMap<Token, Place>,
    pub(super) lookups: Lookups,
    pub(super) threads: Threads,
    pub(super) waker: Waker,
    /// When this turn began.
    pub(super) now: Instant,
    /// Whether the others can reach this server. As long as they cannot it calls nobody and refuses callers:
    /// they might elect it, and then wait for a leader to whom nobody gets through.
    pub(super) is_reachable: bool,
    /// Where sockets are read into.
    pub(super) scratch: Vec<u8>,
}

impl Ground {
    pub(super) fn new(options: LinkOptions) -> io::Result<Self> {
        let mut poller = Poller::new()?;
        let waker = Waker::new()?;
        let token = poller.add(waker.event(), true, false)?;
        Ok(Self {
            lookups: Lookups::new(options.names.clone()),
            options,
            poller,
            places: BTreeMap::from([(token, Place::Waker)]),
            threads: Threads::like_this_one(),
            waker,
            now: Instant::now(),
            is_reachable: false,
            scratch: vec![0; limits::LINK_READ_BYTES],
        })
    }

    /// Registers a descriptor.
    pub(super) fn watch(
        &mut self,
        fd: impl AsFd,
        place: Place,
        readable: bool,
        writable: bool,
    ) -> io::Result<Token> {
        let token = self.poller.add(fd, readable, writable)?;
        self.places.insert(token, place);
        Ok(token)
    }

    /// Gives a registered descriptor to another owner, who reads it.
    pub(super) fn hand_over(&mut self, fd: impl AsFd, token: Token, place: Place) -> io::Result<()> {
        self.poller.change(fd, token, true, false)?;
        self.places.insert(token, place);
        Ok(())
    }

    pub(super) fn unwatch(&mut self, fd: impl AsFd, token: Token) {
        self.poller.remove(fd);
        self.places.remove(&token);
    }

    /// Whose token this is; nobody's if its descriptor was closed meanwhile.
    pub(super) fn place(&self, token: Token) -> Option<Place> {
        self.places.get(&token).copied()
    }

    /// Asks for the addresses of a host.
    pub(super) fn look_up(&mut self, host: &str) -> Option<super::names::Found> {
        self.lookups.ask(host, &self.threads, &self.waker)
    }
}
