//! What an answer means: latencies and failures, facts for the witness, the next step of a cycle.

use super::{Traffic, WATCHED_FROM, put_sequence_path, watching::data_mzxid};
use crate::{
    clock::Nanos,
    engine::Loss,
    link::{InFlight, Link, Phase},
    operation::Operation,
    reply::Reply,
    stamp::Stamp,
};
use zkfast_wire::{ErrorCode, Stat, jute::Decoder, multi::MultiResult};

/// The name of a success whose body is not that of such an answer.
const NOT_WHOLE: &str = "a reply does not decode";

impl Traffic {
    /// Measures an answer, checks it and follows up.
    pub(super) fn answered(&mut self, link: &mut Link, request: &InFlight, reply: &Reply<'_>, now: Nanos) {
        let code = match request.operation {
            Operation::Multi => reply.multi_code().unwrap_or(ErrorCode::MARSHALLING_ERROR),
            _ => reply.code,
        };
        let is_whole = !code.is_ok() || self.is_whole(request, reply);
        match request.operation {
            Operation::Check => return self.checked(link, request, reply),
            operation if !is_whole => self.recorder.failure(operation, NOT_WHOLE, request.intended),
            operation if code.is_ok() => {
                self.recorder.success(operation, request.intended, request.sent, now);
            }
            operation => self.recorder.failure(operation, &code.to_string(), request.intended),
        }
        if !is_whole {
            self.doubt(link.number, request);
            if let Some(witness) = &mut self.witness {
                witness.findings.violation(NOT_WHOLE, || request.operation.name().to_owned());
            }
        } else if self.witness.is_some() {
            self.testify(link, request, reply, code);
            if request.operation == Operation::Ephemeral && request.key == 0 && code.is_ok() {
                self.check_ephemeral(link, request.note, now);
            }
        }
        match request.operation {
            Operation::Watch => {
                let left_at = data_mzxid(reply).filter(|_| code.is_ok());
                self.watch_answered(link, request.key, left_at, now);
            }
            Operation::Set if request.key >= WATCHED_FROM => {
                self.watched_set_answered(request.key, code.is_ok() && is_whole, now);
            }
            // The server closes the connection behind this answer; so do we.
            Operation::Session => {
                link.phase = Phase::Idle;
                self.session_over(link.index);
            }
            _ => self.complete(link, now),
        }
    }

    /// Whether the body of a successful answer is what this operation is answered with.
    fn is_whole(&self, request: &InFlight, reply: &Reply<'_>) -> bool {
        let mut body = Decoder::new(reply.body);
        match request.operation {
            Operation::Set | Operation::Exists => Stat::decode(&mut body).is_ok(),
            Operation::Get | Operation::Watch => data_stat(reply).is_some(),
            Operation::Create | Operation::CreateSequential | Operation::Sync => {
                body.text("a path").is_ok_and(|path| path.starts_with('/'))
            }
            // Deletes the node of the last time, or creates another.
            Operation::Ephemeral if request.key == 1 => true,
            Operation::Ephemeral => body.text("a path").is_ok_and(|path| path.starts_with('/')),
            Operation::Multi => MultiResult::decode_list(&mut body)
                .is_ok_and(|results| results.len() == self.plan.multi_parts),
            Operation::Children => {
                let Ok(names) = body.i32("GetChildren2Response.children") else { return false };
                (0..names).all(|_| matches!(body.buffer("a name"), Ok(Some(_))))
                    && Stat::decode(&mut body).is_ok()
            }
            Operation::Delete
            | Operation::Ping
            | Operation::Session
            | Operation::Event
            | Operation::Step
            | Operation::Check
            | Operation::Claim => true,
        }
    }

    /// A read that `--verify` has added: of a watched node, or of an ephemeral one.
    fn checked(&mut self, link: &Link, request: &InFlight, reply: &Reply<'_>) {
        if request.key >= WATCHED_FROM {
            if let Some(mzxid) = data_mzxid(reply).filter(|_| reply.code.is_ok()) {
                self.watched_read(request.key, mzxid);
            }
            return;
        }
        let Some(witness) = &mut self.witness else { return };
        witness.zxid(link.number, link.session.last_zxid, reply.zxid);
        let owner = Stat::decode(&mut Decoder::new(reply.body)).ok().filter(|_| reply.code.is_ok());
        witness.ephemeral(
            link.number,
            request.key,
            request.note == 1,
            link.session.id,
            owner.map(|stat| stat.ephemeral_owner),
        );
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
                Ok(stat) => {
                    witness.set(connection, key, Stamp(request.note), &stat, reply.zxid, "set");
                }
                Err(error) => witness.findings.violation("a reply does not decode", || error.to_string()),
            },
            Operation::Get => match data_and_stat(reply) {
                Some((data, stat)) => {
                    witness.read(connection, key, &stat, request.operation.name());
                    witness.value(connection, Some(key), data, &stat);
                }
                None => witness.findings.violation("a reply does not decode", || "getData".to_owned()),
            },
            Operation::Watch => {
                if let Some((data, stat)) = data_and_stat(reply) {
                    witness.value(connection, None, data, &stat);
                }
            }
            Operation::Children => witness.listed(connection, reply.body),
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
                            Stamp(request.note + part),
                            stat,
                            reply.zxid,
                            "multi",
                        );
                        sets += 1;
                    }
                }
                witness.findings.check(sets == self.plan.multi_parts, "a multi has too few results", || {
                    format!("{sets} of {}", self.plan.multi_parts)
                });
            }
            Operation::Create => witness.created(connection, key, Stamp(request.note), reply.zxid),
            Operation::Delete => witness.deleted(connection, key),
            Operation::CreateSequential => match Decoder::new(reply.body).text("CreateResponse.path") {
                Ok(path) => {
                    let mut asked = Vec::new();
                    put_sequence_path(&self.plan.root, &mut asked);
                    witness.sequence(&path, &asked, Stamp(request.note), reply.zxid);
                }
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
            Operation::CreateSequential => witness.sequence_in_doubt(Stamp(request.note)),
            _ => {}
        }
    }

    /// A session of the churn that never came to be, or was cut.
    pub(super) fn session_lost(&mut self, link: &mut Link, why: &Loss, now: Nanos) {
        if link.in_flight.is_empty() {
            let intended = self.tallies[link.index].session_intended;
            self.recorder.unanswered(Operation::Session, why.name(), intended, now);
            self.in_flight -= 1;
        }
        link.phase = Phase::Idle;
        self.session_over(link.index);
    }
}

/// The stat behind the data of a getData reply.
pub(super) fn data_stat(reply: &Reply<'_>) -> Option<Stat> {
    data_and_stat(reply).map(|(_, stat)| stat)
}

fn data_and_stat<'a>(reply: &Reply<'a>) -> Option<(&'a [u8], Stat)> {
    let mut decoder = Decoder::new(reply.body);
    let data = decoder.buffer("GetDataResponse.data").ok()?.unwrap_or_default();
    Some((data, Stat::decode(&mut decoder).ok()?))
}
