//! A collector that travels round all client cores for the four-letter words that need lists from each of them
//! ([`super::four_letter::Needs`]), and for `crst`, which each of them must act on.
//!
//! The core that was asked makes it, the pipeline adds what it alone knows and hands it to every core, each adds its
//! rows, and whoever finds that none is missing sends it back. No core ever reads another's tables.

use super::{
    four_letter::Word,
    picture::{ConnectionPicture, Picture, SessionsDump},
};
use crate::cores::messages::ConnectionId;
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};
use zkfast_wire::{SessionId, Zxid};

/// What a core adds.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Its connections.
    pub connections: Vec<ConnectionPicture>,
    /// What each of its sessions watches through the data table (W25).
    pub watches: Vec<(SessionId, Vec<String>)>,
    /// What the pipeline knows of sessions.
    pub sessions_dump: SessionsDump,
    /// The digests that the pipeline remembers.
    pub digests: Vec<(Zxid, i64)>,
}

/// The collector.
#[derive(Debug)]
pub struct Gather {
    word: Word,
    origin: ConnectionId,
    missing: AtomicUsize,
    rows: Mutex<Rows>,
}

impl Gather {
    /// An empty collector for `cores` client cores, to be answered on `origin`.
    ///
    /// # Panics
    /// If there are no cores: nobody could ever send it back.
    pub fn new(word: Word, origin: ConnectionId, cores: usize) -> Self {
        assert!(cores > 0, "somebody must add the last rows");
        Self { word, origin, missing: AtomicUsize::new(cores), rows: Mutex::default() }
    }

    /// What is asked for.
    pub fn word(&self) -> Word {
        self.word
    }

    /// The connection that asked.
    pub fn origin(&self) -> ConnectionId {
        self.origin
    }

    /// Adds what the pipeline knows of sessions, for `dump`, before it hands the collector round.
    pub fn add_sessions(&self, dump: SessionsDump) {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).sessions_dump = dump;
    }

    /// Adds the digests that the pipeline remembers, for `hash`, before it hands the collector round.
    pub fn add_digests(&self, digests: Vec<(Zxid, i64)>) {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).digests = digests;
    }

    /// Adds a core's rows; each core calls this exactly once. True for the last, which then sends the collector back.
    pub fn add(&self, mut rows: Rows) -> bool {
        {
            let mut all = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
            all.connections.append(&mut rows.connections);
            all.watches.append(&mut rows.watches);
        }
        self.missing.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Moves the rows into a picture. Called once, when the collector has come back.
    pub fn fill(&self, picture: &mut Picture) {
        let rows = std::mem::take(&mut *self.rows.lock().unwrap_or_else(PoisonError::into_inner));
        picture.connections = rows.connections;
        picture.watches = rows.watches;
        picture.sessions_dump = rows.sessions_dump;
        picture.digests = rows.digests;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_core_sends_back_the_rows_of_all() {
        let origin = ConnectionId { core: 1, slot: 2, generation: 3 };
        let gather = Gather::new(Word::Wchs, origin, 3);
        for session in 1..=3 {
            let rows = Rows { watches: vec![(SessionId(session), vec!["/a".into()])], ..Rows::default() };
            assert_eq!(gather.add(rows), session == 3);
        }
        let mut picture = Picture::default();
        gather.fill(&mut picture);
        assert_eq!(picture.watches.len(), 3);
        assert_eq!(gather.origin(), origin);
    }
}
