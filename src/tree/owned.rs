//! Nodes that somebody or something will take away: ephemerals by session, containers, TTL nodes (rows T16-T24).
//!
//! Lists of paths beside the tree, kept by the apply step. Ordered, so that what follows from them does not depend on
//! a hash.

use hashbrown::HashMap;
use std::collections::BTreeSet;
use zkfast_wire::SessionId;

/// Owner of a container in [`zkfast_wire::StatPersisted`]: Java's `CONTAINER_EPHEMERAL_OWNER` (T17).
pub const CONTAINER_OWNER: i64 = i64::MIN;
/// The longest time to live, in milliseconds: 40 bits (T18).
pub const TTL_MS_MAX: i64 = (1 << 40) - 1;
const EXTENDED_MASK: i64 = 0xff_u64.wrapping_shl(56) as i64;
const EXTENDED_TYPE_MASK: i64 = 0x00ff_ff00_0000_0000;

/// What the stored owner of a node means (Java's `EphemeralType`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// An ordinary, persistent node.
    Nobody,
    /// An ephemeral of this session.
    Session(SessionId),
    /// A container: may go once it has no children left.
    Container,
    /// May go when it has no children and was not set for so many milliseconds.
    Ttl(i64),
}

impl Owner {
    /// Reads the stored form. Without extended types even 0xff... is an ephemeral's session, as in Java.
    pub fn decode(stored: i64, extended_types: bool) -> Self {
        if extended_types && stored & EXTENDED_MASK == EXTENDED_MASK && stored & EXTENDED_TYPE_MASK == 0 {
            return Self::Ttl(stored & TTL_MS_MAX);
        }
        match stored {
            0 => Self::Nobody,
            CONTAINER_OWNER => Self::Container,
            session => Self::Session(SessionId(session)),
        }
    }

    /// The stored form.
    pub fn encode(self) -> i64 {
        match self {
            Self::Nobody => 0,
            Self::Session(session) => session.0,
            Self::Container => CONTAINER_OWNER,
            Self::Ttl(ttl_ms) => EXTENDED_MASK | (ttl_ms & TTL_MS_MAX),
        }
    }

    /// What clients see as `ephemeralOwner` (T16).
    pub fn visible(self) -> SessionId {
        match self {
            Self::Session(session) => session,
            Self::Nobody | Self::Container | Self::Ttl(_) => SessionId(0),
        }
    }
}

/// The paths by who owns them.
#[derive(Debug, Default)]
pub(crate) struct Owned {
    ephemerals: HashMap<SessionId, BTreeSet<Box<str>>>,
    ephemeral_count: usize,
    containers: BTreeSet<Box<str>>,
    ttls: BTreeSet<Box<str>>,
}

impl Owned {
    pub(crate) fn insert(&mut self, owner: Owner, path: &str) {
        match owner {
            Owner::Nobody => {}
            Owner::Session(session) => {
                let added = self.ephemerals.entry(session).or_default().insert(path.into());
                self.ephemeral_count += usize::from(added);
            }
            Owner::Container => {
                self.containers.insert(path.into());
            }
            Owner::Ttl(_) => {
                self.ttls.insert(path.into());
            }
        }
    }

    pub(crate) fn remove(&mut self, owner: Owner, path: &str) {
        match owner {
            Owner::Nobody => {}
            Owner::Session(session) => {
                if let Some(paths) = self.ephemerals.get_mut(&session) {
                    self.ephemeral_count -= usize::from(paths.remove(path));
                    if paths.is_empty() {
                        self.ephemerals.remove(&session);
                    }
                }
            }
            Owner::Container => {
                self.containers.remove(path);
            }
            Owner::Ttl(_) => {
                self.ttls.remove(path);
            }
        }
    }

    /// The ephemerals of a session, in path order.
    pub(crate) fn of(&self, session: SessionId) -> impl Iterator<Item = &str> {
        self.ephemerals.get(&session).into_iter().flatten().map(|path| &**path)
    }

    /// Sessions that own at least one ephemeral, ordered by id.
    pub(crate) fn owners(&self) -> Vec<SessionId> {
        let mut owners: Vec<_> = self.ephemerals.keys().copied().collect();
        owners.sort_unstable();
        owners
    }

    /// Number of ephemerals of all sessions.
    pub(crate) fn ephemeral_count(&self) -> usize {
        self.ephemeral_count
    }

    /// Containers and TTL nodes from `after` (exclusive) on, in path order: the reaper's round.
    pub(crate) fn reapable_from<'a>(&'a self, after: &'a str) -> impl Iterator<Item = &'a str> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = (Excluded(after), Unbounded);
        let mut containers = self.containers.range::<str, _>(range).peekable();
        let mut ttls = self.ttls.range::<str, _>(range).peekable();
        std::iter::from_fn(move || match (containers.peek(), ttls.peek()) {
            (Some(container), Some(ttl)) if ttl < container => ttls.next(),
            (Some(_), _) => containers.next(),
            (None, _) => ttls.next(),
        })
        .map(|path| &**path)
    }

    /// Number of containers and TTL nodes.
    pub(crate) fn reapable_count(&self) -> usize {
        self.containers.len() + self.ttls.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T17, T18: an owner read the wrong way deletes a container with a session, or keeps an ephemeral for ever.
    #[test]
    fn stored_owners_mean_what_java_means() {
        for (stored, extended, expected) in [
            (0, true, Owner::Nobody),
            (i64::MIN, false, Owner::Container),
            (i64::MIN, true, Owner::Container),
            (0x0100_0000_0000_0001, true, Owner::Session(SessionId(0x0100_0000_0000_0001))),
            (0xff00_0000_0000_03e8_u64 as i64, true, Owner::Ttl(1_000)),
            (0xff00_00ff_ffff_ffff_u64 as i64, true, Owner::Ttl(TTL_MS_MAX)),
        ] {
            assert_eq!(Owner::decode(stored, extended), expected);
            assert_eq!(expected.encode(), stored);
        }
        let ttl = Owner::Ttl(5).encode();
        assert_eq!(Owner::decode(ttl, false), Owner::Session(SessionId(ttl)));
        assert_eq!(Owner::Container.visible(), SessionId(0));
    }
}
