//! What a transaction is in this world: a number, or, in a world with real trees, the record that the leader's tree
//! prepared for a request.

use crate::{
    checks::Check,
    rng::{Rng, mix},
    world::World,
};
use bytes::Bytes;
use std::borrow::Cow;
use zkfast_tree::{Ask, Tree};
use zkfast_wire::{
    Acl, ErrorCode, OpCode, Request, SessionId, Zxid,
    request::{CreateRequest, PathVersion, SetAclRequest, SetDataRequest},
};

/// A client opens another session after so many requests, and closes the last but one.
const REQUESTS_PER_SESSION: u64 = 60;

/// The session of a client of `server` in its life `life` that asks with this payload.
pub fn session_of(server: usize, life: u32, payload: u64) -> SessionId {
    let era = payload / REQUESTS_PER_SESSION;
    SessionId((server as i64 + 1) << 48 | i64::from(life) << 24 | era as i64)
}

impl World {
    /// The number under which the world knows a record.
    pub fn payload_of(&mut self, record: &Bytes) -> u64 {
        if !self.plan.real {
            return u64::from_be_bytes((**record).try_into().expect("eight bytes"));
        }
        let payload = record.chunks(8).fold(record.len() as u64, |hash, chunk| {
            mix(hash, chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)))
        });
        self.library.entry(payload).or_insert_with(|| record.clone());
        payload
    }

    pub fn record_of(&self, payload: u64) -> Bytes {
        match self.library.get(&payload) {
            Some(record) => record.clone(),
            None => Bytes::copy_from_slice(&payload.to_be_bytes()),
        }
    }

    /// What the leader submits for a request.
    pub fn prepare(&mut self, server: usize, session: SessionId, payload: u64, zxid: Zxid) -> Bytes {
        let time_ms = (self.now_us / 1000) as i64;
        match &mut self.servers[server].store {
            Some(store) => prepare(&mut store.tree, session, payload, zxid, time_ms),
            None => Bytes::copy_from_slice(&payload.to_be_bytes()),
        }
    }

    /// Applies entries to the real tree; equal histories must lead to equal trees.
    pub fn apply_to_tree(&mut self, server: usize, from: usize, to: usize) -> Check {
        for index in from..to {
            let entry = self.servers[server].disk.entries()[index];
            let record = self.record_of(entry.payload);
            let store = self.servers[server].store.as_mut().expect("a real tree");
            if let Err(error) = store.tree.apply(&record) {
                return self.violated("Applicable", format!("server {server}: {}: {error}", entry.zxid));
            }
            self.compare_trees(server)?;
        }
        Ok(())
    }

    /// The tree of a server is that of every other at the same place of the same history.
    pub fn compare_trees(&mut self, server: usize) -> Check {
        let state = &self.servers[server];
        let Some(store) = &state.store else { return Ok(()) };
        let zxid = store.tree.last_applied();
        let shown = state.disk.count_through(zxid);
        let Some(last) = shown.checked_sub(1).map(|last| state.disk.entries()[last]) else { return Ok(()) };
        let digest = store.tree.digest();
        let known = *self.tree_digests.entry(last.digest).or_insert(digest);
        if last.zxid != zxid || known != digest {
            let story = format!("server {server} at {zxid} has digest {digest:x}, others {known:x}");
            return self.violated("EqualTrees", story);
        }
        let (mismatches, at) = store.tree.digest_mismatches();
        if mismatches > 0 {
            return self.violated("EqualTrees", format!("server {server}: a transaction says so at {at:?}"));
        }
        Ok(())
    }
}

fn prepare(tree: &mut Tree, session: SessionId, payload: u64, zxid: Zxid, time_ms: i64) -> Bytes {
    let mut rng = Rng::new(payload);
    let cxid = payload as i32;
    let mut out = Vec::new();
    let folder = format!("/n{}", rng.below(6));
    let data = vec![7; rng.below(40) as usize];
    let create = |path: String, flags: i32| {
        let request = CreateRequest {
            path: Cow::Owned(path),
            data: Some(&data),
            acl: Some(vec![Acl::OPEN]),
            flags,
            ttl_ms: None,
        };
        Request::Create(OpCode::Create2, request)
    };
    let set =
        |path: String| Request::SetData(SetDataRequest { path: path.into(), data: Some(&data), version: -1 });
    let mut asks_as = session;
    let (op, request) = match rng.below(100) {
        _ if payload % REQUESTS_PER_SESSION < 3 => (OpCode::CreateSession, Request::CreateSession(4000)),
        0..=3 => {
            asks_as = SessionId(session.0 - 2);
            (OpCode::CloseSession, Request::CloseSession)
        }
        4..=24 => (OpCode::Create2, create(folder, 0)),
        25..=44 => (OpCode::Create2, create(format!("{folder}/s-"), 2)),
        45..=59 => {
            if !tree.sessions().contains(session) {
                tree.prepare_error(session, cxid, zxid, time_ms, ErrorCode::SESSION_EXPIRED, &mut out);
                return out.into();
            }
            (OpCode::Create2, create(format!("{folder}/e{}", rng.below(20)), 1))
        }
        60..=74 => (OpCode::SetData, set(folder)),
        75..=84 => {
            let path = format!("{folder}/e{}", rng.below(20));
            (OpCode::Delete, Request::Delete(PathVersion { path: path.into(), version: -1 }))
        }
        85..=94 => {
            let check = Request::Check(PathVersion { path: folder.clone().into(), version: -1 });
            let parts = vec![create(format!("{folder}/m-"), 2), set(folder), check];
            (OpCode::Multi, Request::Multi(parts))
        }
        _ => {
            let acl = Some(vec![Acl::OPEN, Acl::READ_ONLY]);
            (OpCode::SetAcl, Request::SetAcl(SetAclRequest { path: folder.into(), acl, version: -1 }))
        }
    };
    let ask = Ask { session: asks_as, cxid, zxid, time_ms, op, request: &request, identities: &[] };
    tree.prepare(&ask, &mut out);
    out.into()
}
