//! Who is connected from where, across all client cores (rows R3, R4): the only state that they share.

use super::{EdgeOptions, admission::Admission};
use crate::{config::protection::ConnectionThrottle, status::Board};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What the client cores share, and no request touches: who is connected from where, and the board of figures.
#[derive(Debug)]
pub struct EdgeShared {
    /// Figures of all cores, for four-letter words.
    pub board: Arc<Board>,
    /// Who may become a session now (R7).
    pub admission: Admission,
    /// Bytes of large requests in the server (R2); untouched while there are none.
    large_bytes: AtomicUsize,
    census: Mutex<Census>,
}

#[derive(Debug, Default)]
struct Census {
    all: u32,
    by_host: HashMap<IpAddr, u32>,
}

/// Why a connection was not let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// R3.
    #[error("there are {0} connections from this address already; the limit is maxClientCnxns")]
    Host(u32),
    /// R4.
    #[error("there are {0} connections already; the limit is maxCnxns")]
    All(u32),
    /// R6.
    #[error(
        "the limit on open files of this process leaves room for {0} connections; raise it (ulimit -n, or \
         LimitNOFILE= of its service)"
    )]
    Files(u32),
}

impl EdgeShared {
    /// Before the first connection.
    pub fn new(board: Arc<Board>, throttle: ConnectionThrottle) -> Self {
        let admission = Admission::new(throttle, u64::from(std::process::id()));
        Self { board, admission, large_bytes: AtomicUsize::new(0), census: Mutex::default() }
    }

    /// Counts a large request in, unless it would be too much (R2).
    pub fn take_large(&self, bytes: usize, max: usize) -> bool {
        let add = |held: usize| held.checked_add(bytes).filter(|held| *held <= max);
        self.large_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    /// Counts a large request out.
    pub fn give_back_large(&self, bytes: usize) {
        self.large_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts a connection from `host` in, unless a limit is reached.
    pub fn enter(&self, host: IpAddr, options: &EdgeOptions) -> Result<(), Refused> {
        let mut census = self.census.lock().unwrap_or_else(PoisonError::into_inner);
        if options.connections_limit > 0 && census.all >= options.connections_limit {
            return Err(Refused::All(census.all));
        }
        if census.all >= options.connections_by_files {
            return Err(Refused::Files(options.connections_by_files));
        }
        let here = census.by_host.get(&host).copied().unwrap_or(0);
        if options.connections_per_host_limit > 0 && here >= options.connections_per_host_limit {
            return Err(Refused::Host(here));
        }
        census.all += 1;
        census.by_host.insert(host, here + 1);
        Ok(())
    }

    /// Counts a connection out.
    pub fn leave(&self, host: IpAddr) {
        let mut census = self.census.lock().unwrap_or_else(PoisonError::into_inner);
        census.all -= 1;
        let here = census.by_host.get_mut(&host).expect("who leaves has entered");
        *here -= 1;
        if *here == 0 {
            census.by_host.remove(&host);
        }
    }
}

/// Says at most one line a second of what may happen a thousand times a second.
#[derive(Debug, Default)]
pub struct RareLine {
    last_ms: u64,
    unsaid: u64,
}

impl RareLine {
    /// Whether to say it now, and how often it was not said since the last time.
    pub fn may_say(&mut self, now_ms: u64) -> Option<u64> {
        if self.last_ms != 0 && now_ms.saturating_sub(self.last_ms) < 1000 {
            self.unsaid += 1;
            return None;
        }
        self.last_ms = now_ms;
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_refusals_is_one_line_a_second() {
        let mut line = RareLine::default();
        assert_eq!(line.may_say(5), Some(0));
        assert_eq!(line.may_say(6), None);
        assert_eq!(line.may_say(900), None);
        assert_eq!(line.may_say(1005), Some(2));
        assert_eq!(line.may_say(3000), Some(0));
    }
}
