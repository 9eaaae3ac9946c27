//! What an answer means: latencies and failures, facts for the witness, the next step of a cycle.

use super::{Errand, Traffic};
use crate::{
    clock::Nanos,
    engine::Loss,
    link::{InFlight, Link, Phase},
    operation::Operation,
    reply::Reply,
};
use zkfast_wire::{
    ErrorCode, Stat, Zxid,
    jute::Decoder,
    multi::MultiResult,
    watch::{EventKind, WatcherEvent},
};

/// Keys from here on are not of the key space but watched nodes.
const WATCHED_FROM: u64 = u64::MAX - (1 << 32);

impl Traffic {
    /// Measures an answer, checks it and follows up.
    pub(super) fn answered(&mut self, link: &mut Link, request: &InFlight, reply: &Reply<'_>, now: Nanos) {
        let code = match request.operation {
            Operation::Multi => reply.multi_code().unwrap_or(ErrorCode::MARSHALLING_ERROR),
            _ => reply.code,
        };
        if code.is_ok() {
            self.recorder.success(request.operation, request.intended, request.sent, now);
        } else {
            self.recorder.failure(request.operation, &code.to_string(), request.intended);
        }
        if self.witness.is_some() {
            self.testify(link, request, reply, code);
        }
        match request.operation {
            Operation::Watch if code.is_ok() => {
                self.tallies[link.index].watch_zxid = data_stat(reply).map_or(Zxid::ZERO, |stat| stat.mzxid);
                self.errands.push(Errand::SetWatched(link.index));
            }
            Operation::Watch => self.tallies[link.index].watching = false,
            Operation::Set if request.key > WATCHED_FROM => {
                let watching = (u64::MAX - request.key) as usize;
                if !code.is_ok() {
                    self.tallies[watching].watching = false;
                } else if self.witness.is_some() {
                    self.errands.push(Errand::ReadWatched(watching));
                }
            }
            // The server closes the connection behind this answer; so do we.
            Operation::Session => link.phase = Phase::Idle,
            _ => {}
        }
    }

    fn testify(&mut self, link: &mut Link, request: &InFlight, reply: &Reply<'_>, code: ErrorCode) {
        let Some(witness) = &mut self.witness else { return };
        witness.zxid(link.number, link.session.last_zxid, reply.zxid);
        let (connection, key) = (link.number, request.key);
        if !code.is_ok() {
            return;
        }
        match request.operation {
            Operation::Set if key < WATCHED_FROM => match Stat::decode(&mut Decoder::new(reply.body)) {
                Ok(stat) => witness.set(connection, key, request.note, &stat, "set"),
                Err(error) => witness.findings.violation("a reply does not decode", || error.to_string()),
            },
            Operation::Get if key < WATCHED_FROM => match data_stat(reply) {
                Some(stat) => witness.read(connection, key, &stat, request.operation.name()),
                None => witness.findings.violation("a reply does not decode", || "getData".to_owned()),
            },
            Operation::Get => {
                let tally = self.tallies[link.index];
                let newer = data_stat(reply).is_some_and(|stat| stat.mzxid > tally.watch_zxid);
                witness.findings.check(
                    !(tally.watching && newer),
                    "a value was read ahead of the event that announces it",
                    || format!("connection {connection}, watched at {}", tally.watch_zxid),
                );
            }
            Operation::Exists => match Stat::decode(&mut Decoder::new(reply.body)) {
                Ok(stat) => witness.read(connection, key, &stat, request.operation.name()),
                Err(error) => witness.findings.violation("a reply does not decode", || error.to_string()),
            },
            Operation::Multi => {
                let results = MultiResult::decode_list(&mut Decoder::new(reply.body)).unwrap_or_default();
                let mut sets = 0;
                for (part, result) in results.iter().enumerate() {
                    if let MultiResult::DataSet(stat) = result {
                        let part = part as u64;
                        witness.set(
                            connection,
                            (key + part) % self.plan.keys.count,
                            request.note + part,
                            stat,
                            "multi",
                        );
                        sets += 1;
                    }
                }
                witness.findings.check(sets == self.plan.multi_parts, "a multi has too few results", || {
                    format!("{sets} of {}", self.plan.multi_parts)
                });
            }
            Operation::Create => witness.created(connection, key),
            Operation::Delete => witness.deleted(connection, key),
            Operation::CreateSequential => match Decoder::new(reply.body).text("CreateResponse.path") {
                Ok(path) => witness.sequence(&path),
                Err(error) => witness.findings.violation("a reply does not decode", || error.to_string()),
            },
            _ => {}
        }
    }

    /// A request whose answer will never come may or may not have been done.
    pub(super) fn doubt(&mut self, link: u64, request: &InFlight) {
        let Some(witness) = &mut self.witness else { return };
        match request.operation {
            Operation::Set if request.key < WATCHED_FROM => witness.set_in_doubt(request.key),
            Operation::Multi => {
                for part in 0..self.plan.multi_parts as u64 {
                    witness.set_in_doubt((request.key + part) % self.plan.keys.count);
                }
            }
            Operation::Create | Operation::Delete => witness.node_in_doubt(link, request.key),
            _ => {}
        }
    }

    /// The event that ends a watch cycle.
    pub(super) fn watched_event(
        &mut self,
        link: &mut Link,
        zxid: Zxid,
        event: &WatcherEvent<'_>,
        now: Nanos,
    ) {
        let tally = &mut self.tallies[link.index];
        if event.kind != EventKind::NodeDataChanged || !tally.watching || tally.watch_set == 0 {
            return;
        }
        tally.watching = false;
        self.recorder.success(Operation::Event, tally.watch_set, tally.watch_set, now);
        // Servers before 3.9 put -1 here.
        if let Some(witness) = &mut self.witness
            && zxid.0 >= 0
        {
            let watched_at = tally.watch_zxid;
            witness.findings.check(zxid > watched_at, "an event is older than its watch", || {
                format!("connection {}: {zxid} for a watch at {watched_at}", link.number)
            });
        }
        self.errands.push(Errand::Refill(link.index));
    }

    /// A session of the churn that never came to be, or was cut.
    pub(super) fn session_lost(&mut self, link: &mut Link, why: &Loss) {
        if link.in_flight.is_empty() {
            let intended = self.tallies[link.index].session_intended;
            self.recorder.failure(Operation::Session, &why.name(), intended);
            self.in_flight -= 1;
        }
        link.phase = Phase::Idle;
    }
}

/// The stat behind the data of a getData reply.
fn data_stat(reply: &Reply<'_>) -> Option<Stat> {
    let mut decoder = Decoder::new(reply.body);
    decoder.buffer("GetDataResponse.data").ok()?;
    Stat::decode(&mut decoder).ok()
}
