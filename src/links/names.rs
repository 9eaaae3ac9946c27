//! Looks up host names, anew for each dial (row Q18), on threads of their own: a resolver may hang for half a minute.
//!
//! One lookup per name runs at a time; whoever asks meanwhile waits for the same answer. A name that does not resolve is
//! an ordinary failure of a dial: in a cluster that is being started it is the rule.

use super::{poller::Waker, threads::Threads};
use crate::config::limits;
use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Duration,
};

/// Who turns names into addresses.
pub trait Names: Send + Sync {
    /// The addresses of `host`, best first. May block.
    ///
    /// # Errors
    /// If the name has none, or nobody could be asked.
    fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver (`getaddrinfo`).
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemNames;

impl Names for SystemNames {
    fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let mut addresses: Vec<IpAddr> =
            (host, 0).to_socket_addrs()?.map(|address| address.ip().to_canonical()).collect();
        // Java takes IPv4 first, and listens there.
        addresses.sort_by_key(IpAddr::is_ipv6);
        addresses.dedup();
        Ok(addresses)
    }
}

/// What came of a lookup.
pub(super) type Found = Result<Vec<IpAddr>, String>;

pub(super) struct Lookups {
    names: Arc<dyn Names>,
    running: BTreeSet<String>,
    finished: Arc<Mutex<Vec<(String, Found)>>>,
}

impl Lookups {
    pub(super) fn new(names: Arc<dyn Names>) -> Self {
        Self { names, running: BTreeSet::new(), finished: Arc::default() }
    }

    /// Asks for a name. `Some` where the answer is known at once: the host is an address, or nobody can be asked.
    pub(super) fn ask(&mut self, host: &str, threads: &Threads, waker: &Waker) -> Option<Found> {
        if let Ok(address) = host.parse() {
            return Some(Ok(vec![address]));
        }
        if self.running.contains(host) {
            return None;
        }
        if self.running.len() >= limits::LOOKUPS_MAX {
            return Some(Err("too many lookups hang".to_owned()));
        }
        let (names, finished, waker) = (Arc::clone(&self.names), Arc::clone(&self.finished), waker.clone());
        let name = host.to_owned();
        let started = threads.start("lookup", move || {
            let found = look_up(&*names, &name);
            finished.lock().unwrap_or_else(PoisonError::into_inner).push((name, found));
            waker.wake();
        });
        match started {
            Ok(()) => {
                self.running.insert(host.to_owned());
                None
            }
            Err(error) => Some(Err(format!("no thread for the lookup: {error}"))),
        }
    }

    /// Asks and waits, for the start of the server.
    pub(super) fn ask_and_wait(&self, host: &str, limit: Duration, threads: &Threads) -> Found {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let (sender, receiver) = mpsc::channel();
        let (names, name) = (Arc::clone(&self.names), host.to_owned());
        threads
            .start("lookup", move || {
                let _ = sender.send(look_up(&*names, &name));
            })
            .map_err(|error| format!("no thread for the lookup: {error}"))?;
        receiver.recv_timeout(limit).unwrap_or_else(|_| Err(format!("'{host}' is still being looked up")))
    }

    /// The lookups that have ended since the last call.
    pub(super) fn take_finished(&mut self) -> Vec<(String, Found)> {
        if self.running.is_empty() {
            return Vec::new();
        }
        let finished = std::mem::take(&mut *self.finished.lock().unwrap_or_else(PoisonError::into_inner));
        for (host, _) in &finished {
            self.running.remove(host);
        }
        finished
    }
}

fn look_up(names: &dyn Names, host: &str) -> Found {
    match names.addresses(host) {
        Ok(addresses) if addresses.is_empty() => Err(format!("'{host}' has no address")),
        Ok(addresses) => Ok(addresses),
        Err(error) => Err(format!("'{host}' does not resolve: {error}")),
    }
}
