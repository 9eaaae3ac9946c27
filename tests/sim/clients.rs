//! What clients asked of a server and wait for, over the end of an epoch too (row S25).

use crate::{checks::Check, plan::Sabotage, records::session_of, world::World};
use bytes::Bytes;
use std::{
    collections::{HashSet, VecDeque},
    ops::Range,
};
use zkfast_wire::{Decoder, SessionId, TxnHeader, quorum::ForwardedRequest};
use zkfast_zab::{Event, Node, Service};

/// Requests that the clients of one server have under way at once.
const UNDER_WAY: usize = 48;

/// A request that is not answered.
#[derive(Clone, Copy, Debug)]
struct Asked {
    session: SessionId,
    payload: u64,
    op: i32,
}

impl Asked {
    const fn is_sync(&self) -> bool {
        self.op == ForwardedRequest::SYNC
    }

    fn to_event(self) -> Event {
        let Self { session, payload, op } = self;
        let body = Bytes::copy_from_slice(&payload.to_be_bytes());
        Event::Forward {
            request: Box::new(ForwardedRequest { session, cxid: 1, op, body, identities: Vec::new() }),
        }
    }
}

/// The clients of one server.
#[derive(Debug, Default)]
pub struct Clients {
    /// As the driver keeps it, in order.
    asked: VecDeque<Asked>,
    /// They wait for the next epoch: what is asked now is asked when a role stands.
    pub wait: bool,
    /// What the world knows that they wait for: nobody told them that it may be lost.
    owed: HashSet<u64>,
    /// How often they were told so.
    pub drops: u32,
}

impl Clients {
    /// Whether everything is answered.
    pub fn are_content(&self) -> bool {
        self.owed.is_empty()
    }
}

impl World {
    /// A client of this server asks something.
    pub fn client(&mut self, server: usize) -> Check {
        let service = self.servers[server].serving;
        let clients = &self.servers[server].clients;
        if service.is_none() && !clients.wait || clients.asked.len() >= UNDER_WAY {
            return Ok(());
        }
        self.next_payload += 1;
        let payload = self.next_payload;
        let session = session_of(server, self.servers[server].life, payload);
        let leads = service == Some(Service::Leading);
        if !leads && self.rng.chance(5) && !self.servers[server].clients.wait {
            return self.step(server, Event::Revalidate { session, timeout_ms: 4000 });
        }
        let op = if !leads && self.rng.chance(15) { ForwardedRequest::SYNC } else { 1 };
        let asked = Asked { session, payload, op };
        self.asked_by.insert(payload, session);
        let state = &mut self.servers[server];
        let is_full = leads && state.node.as_ref().and_then(Node::next_zxid).is_none();
        state.clients.asked.push_back(asked);
        state.clients.owed.insert(payload);
        // At the end of an epoch a leader takes nothing more.
        state.clients.wait |= is_full;
        if state.clients.wait {
            return Ok(());
        }
        if leads { self.submit(server, session, payload) } else { self.step(server, asked.to_event()) }
    }

    /// A role stands: what is not answered is asked again, in its order.
    pub fn ask_again(&mut self, server: usize) -> Check {
        let Some(service) = self.servers[server].serving else { return Ok(()) };
        if !std::mem::take(&mut self.servers[server].clients.wait) {
            return Ok(());
        }
        if service != Service::Leading {
            let events: Vec<_> =
                self.servers[server].clients.asked.iter().map(|asked| asked.to_event()).collect();
            return events.into_iter().try_for_each(|event| self.step(server, event));
        }
        let asked: Vec<_> = self.servers[server].clients.asked.iter().copied().collect();
        for asked in asked {
            if asked.is_sync() {
                // An ordered no-op of the leader's own.
                self.servers[server].clients.asked.retain(|other| other.payload != asked.payload);
                self.servers[server].clients.owed.remove(&asked.payload);
                continue;
            }
            if self.servers[server].node.as_ref().and_then(Node::next_zxid).is_none() {
                // The next one is used up too; the rest waits on. What was submitted is not asked again, for it is
                // applied by then.
                self.servers[server].clients.wait = true;
                break;
            }
            self.submit(server, asked.session, asked.payload)?;
        }
        Ok(())
    }

    /// The epoch is at its end.
    pub fn suspend(&mut self, server: usize) {
        let clients = &mut self.servers[server].clients;
        clients.wait = true;
        if self.plan.sabotage == Some(Sabotage::ForgottenOverEpochs) {
            clients.asked.clear();
        }
    }

    /// Connections are closed: whatever was asked on them may or may not have happened.
    pub fn drop_clients(&mut self, server: usize) {
        let drops = self.servers[server].clients.drops + 1;
        self.servers[server].clients = Clients { drops, ..Clients::default() };
    }

    /// Whoever asked for what was just applied is answered: the oldest write alone can be meant.
    pub fn answer(&mut self, server: usize, entries: Range<usize>) {
        let clients = &self.servers[server].clients;
        if clients.asked.is_empty() || clients.wait && self.plan.sabotage == Some(Sabotage::ReplayedUnclaimed)
        {
            return;
        }
        for index in entries {
            let payload = self.request_of(self.servers[server].disk.entries()[index].payload);
            let clients = &mut self.servers[server].clients;
            let oldest = clients.asked.iter().position(|asked| !asked.is_sync());
            if let Some(oldest) = oldest.filter(|oldest| clients.asked[*oldest].payload as i32 == payload) {
                let asked = clients.asked.remove(oldest).expect("found above");
                clients.owed.remove(&asked.payload);
            }
        }
    }

    /// The oldest sync is complete.
    pub fn sync_answered(&mut self, server: usize) {
        let clients = &mut self.servers[server].clients;
        if let Some(oldest) = clients.asked.iter().position(Asked::is_sync) {
            let asked = clients.asked.remove(oldest).expect("found above");
            clients.owed.remove(&asked.payload);
        }
    }

    /// The number of the request that a record came of.
    fn request_of(&self, payload: u64) -> i32 {
        if !self.plan.real {
            return payload as i32;
        }
        let record = self.record_of(payload);
        TxnHeader::decode(&mut Decoder::new(&record)).expect("a record of ours").cxid
    }

    /// Sessions are FIFO: what a client asked for first is committed first, and once.
    pub fn check_session_order(&mut self, from: usize) -> Check {
        for index in from..self.checks.committed().len() {
            let payload = self.checks.committed()[index].payload;
            let (session, cxid) = if self.plan.real {
                let record = self.record_of(payload);
                let header = TxnHeader::decode(&mut Decoder::new(&record)).expect("a record of ours");
                (header.session, header.cxid)
            } else {
                let Some(session) = self.asked_by.get(&payload) else { continue };
                (*session, payload as i32)
            };
            let last = self.session_order.entry(session).or_insert(i32::MIN);
            if cxid <= *last {
                let story = format!("{session:?}: {cxid} committed after {last}");
                return self.violated("SessionFifo", story);
            }
            *last = cxid;
        }
        Ok(())
    }

    /// Whoever was told nothing else is answered in the end.
    pub fn check_answered(&self) -> Check {
        for (server, state) in self.servers.iter().enumerate() {
            if !state.clients.are_content() {
                let story = format!("server {server}: {:?} wait for ever", state.clients.owed);
                return self.violated("KeptIsAnswered", story);
            }
        }
        Ok(())
    }
}
