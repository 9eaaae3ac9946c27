//! What must hold in every world. The names are those of the invariants in ZooKeeper's TLA+ specifications
//! (`Zab.tla`, `ZkV3_7_0.tla`); the rest say in their text what they add.

use crate::disk::{Disk, Entry};
use std::collections::{BTreeMap, HashSet};
use zkfast_wire::{Epoch, Zxid};
use zkfast_zab::{Quorum, quorum::Voters};

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Violation {
    pub invariant: &'static str,
    pub story: String,
}

pub type Check = Result<(), Violation>;

fn violated(invariant: &'static str, story: String) -> Check {
    Err(Violation { invariant, story })
}

/// What the world knows and no server does.
pub struct Checks {
    quorum: Quorum,
    first_counter: u32,
    /// Every transaction that any server called committed, in order.
    committed: Vec<Entry>,
    submitted: HashSet<(Zxid, u64)>,
    leaders: BTreeMap<Epoch, usize>,
}

impl Checks {
    pub fn new(quorum: Quorum, first_counter: u32) -> Self {
        Self {
            quorum,
            first_counter,
            committed: Vec::new(),
            submitted: HashSet::new(),
            leaders: BTreeMap::new(),
        }
    }

    pub fn committed(&self) -> &[Entry] {
        &self.committed
    }

    pub fn committed_last(&self) -> Zxid {
        self.committed.last().map_or(Zxid::ZERO, |entry| entry.zxid)
    }

    pub fn submitted(&mut self, zxid: Zxid, payload: u64) {
        self.submitted.insert((zxid, payload));
    }

    /// A server says that everything through `zxid` is committed.
    pub fn commit(&mut self, server: usize, disks: &[&Disk], zxid: Zxid) -> Check {
        let count = disks[server].count_through(zxid);
        let entries = &disks[server].entries()[..count];
        // Agreement, TotalOrder, PrefixConsistency: two servers' committed histories are prefixes of one. A digest
        // stands for the whole history before it.
        let shared = count.min(self.committed.len());
        if shared > 0 && entries[shared - 1] != self.committed[shared - 1] {
            let (ours, theirs) = (entries[shared - 1], self.committed[shared - 1]);
            return violated(
                "Agreement",
                format!("server {server} has {ours:?} where {theirs:?} is committed"),
            );
        }
        if entries.last().is_some_and(|last| last.zxid < zxid) && zxid.counter() != 0 {
            return violated("Agreement", format!("server {server} commits {zxid}, which it does not have"));
        }
        let known = self.committed.len();
        for (index, entry) in entries.iter().enumerate().take(count).skip(known) {
            self.extend(*entry, index, disks)?;
        }
        Ok(())
    }

    fn extend(&mut self, entry: Entry, index: usize, disks: &[&Disk]) -> Check {
        // Integrity: what is committed was proposed, by a leader.
        if !self.submitted.contains(&(entry.zxid, entry.payload)) {
            return violated("Integrity", format!("{entry:?} was never submitted"));
        }
        // LocalPrimaryOrder, GlobalPrimaryOrder: in the order of their leaders, and in each leader's own order.
        let last = self.committed_last();
        let follows = if entry.zxid.epoch() == last.epoch() {
            last.next() == Some(entry.zxid)
        } else {
            entry.zxid.epoch() > last.epoch() && entry.zxid.counter() == self.first_counter
        };
        if !follows {
            return violated("LocalPrimaryOrder", format!("{} committed after {last}", entry.zxid));
        }
        self.committed.push(entry);
        self.held_by_quorum(index, disks)
    }

    /// What makes a commit one: a quorum of disks would keep it through a loss of power, from now on for ever.
    fn held_by_quorum(&self, index: usize, disks: &[&Disk]) -> Check {
        let entry = self.committed[index];
        let mut holders = Voters::NONE;
        for (place, disk) in disks.iter().take(self.quorum.voters().len()).enumerate() {
            if index < disk.durable() && disk.entries()[index] == entry {
                holders = holders.with(place);
            }
        }
        if !self.quorum.decides(holders) {
            return violated(
                "CommittedIsDurable",
                format!("{} is on the disks of {holders:?} alone", entry.zxid),
            );
        }
        Ok(())
    }

    /// A server starts to order writes.
    pub fn lead(&mut self, server: usize, disk: &Disk, epoch: Epoch) -> Check {
        if let Some(other) = self.leaders.insert(epoch, server) {
            return violated("UniqueLeader", format!("servers {other} and {server} both lead in {epoch:?}"));
        }
        // PrimaryIntegrity: before a leader proposes, it has all that was committed before its epoch. It may come late:
        // the last ACK of NEWLEADER can reach a server that was stopped while others went on to later epochs. It then
        // commits nothing, for a quorum promised not to follow it.
        let entries = disk.entries();
        let older = self.committed.iter().take_while(|entry| entry.zxid.epoch() < epoch).count();
        if entries.len() < older || (older > 0 && entries[older - 1] != self.committed[older - 1]) {
            return violated(
                "PrimaryIntegrity",
                format!("server {server} leads in {epoch:?} without {older} commits"),
            );
        }
        Ok(())
    }

    /// A server cut its log, which has `kept` entries now. It may cut what is committed only where a quorum of others
    /// holds it.
    pub fn cut(&self, kept: usize, disks: &[&Disk]) -> Check {
        (kept..self.committed.len()).try_for_each(|index| self.held_by_quorum(index, disks))
    }

    /// A learner's sync is complete: it has applied what the leader had proposed when it took the sync.
    pub fn synced(&self, server: usize, committed: Zxid, promised: Zxid) -> Check {
        if committed < promised {
            return violated(
                "SyncIsCurrent",
                format!("server {server} at {committed}, sync promised {promised}"),
            );
        }
        Ok(())
    }

    /// Everybody is well again and has had time: one history, all of it, everywhere.
    pub fn converged(&self, disks: &[&Disk], down: &[usize]) -> Check {
        for (server, disk) in disks.iter().enumerate().filter(|(server, _)| !down.contains(server)) {
            if disk.entries() != &self.committed[..] {
                let (have, all) = (disk.entries().len(), self.committed.len());
                return violated(
                    "NoCommitLost",
                    format!("server {server} ends with {have} of {all} commits"),
                );
            }
        }
        Ok(())
    }
}
