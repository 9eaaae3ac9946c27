//! Four-letter words on the client port (rows C14, O43, O72-O84, O124): read here, rendered by `status`.

use super::{
    connection::{Connection, Phase},
    core::Core,
    watches::Modes,
};
use crate::{
    cores::messages::Submission,
    status::{
        four_letter::{self, Act, Needs, Word},
        gather::{Gather, Rows},
        picture::{ConnectionPicture, SessionPicture},
    },
};
use std::sync::Arc;
use zkfast_wire::{OpCode, SessionId};

impl Core {
    /// Answers a word, or finds that it is none. `behind` is what came with it. Returns how many bytes of all were
    /// taken.
    pub(super) fn answer_word(&mut self, connection: &mut Connection, word: [u8; 4], behind: &[u8]) -> usize {
        let all = word.len() + behind.len();
        self.counters.packets_received.increment();
        if Word::parse(&word).map(Word::act) == Some(Act::SetTraceMask) && self.allows(Word::Stmk) {
            // Apache looks once for the eight bytes of the mask (O87).
            let Some(mask) = behind.first_chunk() else {
                log::warn!("{} asks stmk without a mask of 8 bytes behind it; closed.", connection.peer);
                connection.kill();
                return all;
            };
            self.shared.board.set_trace_mask(i64::from_be_bytes(*mask));
        }
        self.answer_whole_word(connection, word);
        all
    }

    fn allows(&self, word: Word) -> bool {
        four_letter::refusal(word, &self.options.whitelist).is_none()
    }

    fn answer_whole_word(&mut self, connection: &mut Connection, word: [u8; 4]) {
        let Some(word) = Word::parse(&word) else {
            log::warn!(
                "{} begins with {:?}, which is neither a ZooKeeper client nor a four-letter word; closed.",
                connection.peer,
                String::from_utf8_lossy(&word)
            );
            self.counters.unsuccessful_handshakes.increment();
            return connection.kill();
        };
        log::debug!("{} asks {}.", connection.peer, word.text());
        let is_allowed = self.allows(word);
        let needs_cores = word.needs() != Needs::Numbers || word.act() == Act::ResetConnections;
        if is_allowed && needs_cores && self.shared.board.is_serving() {
            let gather = Gather::new(word, connection.id, self.options.client_cores);
            connection.phase = Phase::Gathering;
            return self.uplink.send(Submission::Gather(Arc::new(gather)));
        }
        let picture = self.shared.board.picture(word);
        if is_allowed && word.act() == Act::ResetServer {
            self.shared.board.reset();
        }
        let text = four_letter::render(word, &picture, &self.options.whitelist);
        self.put_text(connection, &text);
    }

    /// Adds this core's rows to a collector that passes by.
    pub(super) fn add_rows(&mut self, gather: Arc<Gather>) {
        let mut rows = Rows::default();
        if gather.word().act() == Act::ResetConnections {
            self.connections.iter().for_each(|connection| connection.figures.reset());
        }
        match gather.word().needs() {
            Needs::Numbers | Needs::Digests => {}
            Needs::Connections | Needs::Sessions => {
                rows.connections = self.connections.iter().map(|connection| picture(connection)).collect();
            }
            Needs::Watches => {
                for connection in self.connections.iter() {
                    let paths: Vec<String> = self
                        .watches
                        .of_connection(connection.id.slot)
                        .filter(|(_, modes)| modes.any(Modes::DATA_TABLE))
                        .map(|(path, _)| path.to_owned())
                        .collect();
                    if !paths.is_empty() {
                        rows.watches.push((connection.session, paths));
                    }
                }
            }
        }
        if gather.add(rows) {
            self.uplink.send(Submission::Gathered(gather));
        }
    }

    /// A collector has come back: its word can be answered.
    pub(super) fn gathered(&mut self, gather: &Gather) {
        let Some(mut connection) = self.connections.borrow(gather.origin()) else { return };
        if connection.phase == Phase::Gathering {
            let mut picture = self.shared.board.picture(gather.word());
            gather.fill(&mut picture);
            let text = four_letter::render(gather.word(), &picture, &self.options.whitelist);
            self.put_text(&mut connection, &text);
        }
        self.put_back(connection);
    }
}

fn picture(connection: &Connection) -> ConnectionPicture {
    let figures = &connection.figures;
    let ms = |ns: u64| ns / 1_000_000;
    ConnectionPicture {
        peer: connection.peer,
        interest: match (connection.phase, connection.output.unsent().is_empty()) {
            (Phase::Gathering | Phase::Finishing | Phase::Dead, _) => 0,
            (_, true) => 1,
            (_, false) => 5,
        },
        outstanding: connection.outstanding.len() as u64,
        received: figures.received,
        sent: figures.sent,
        session: (connection.session != SessionId(0)).then(|| SessionPicture {
            id: connection.session,
            last_operation: OpCode::from_i32(figures.last_op).map_or("NA", four_letter::operation_name),
            established_ms: connection.accepted_wall_ms,
            timeout_ms: connection.timeout_ms.unsigned_abs(),
            last_xid: figures.last_cxid.into(),
            last_zxid: figures.last_zxid,
            last_response_ms: ms(figures.last_response_ns),
            latency_ms: [
                ms(figures.last_latency_ns),
                ms(figures.min_latency_ns),
                ms(figures.latency_sum_ns.checked_div(figures.answered).unwrap_or(0)),
                ms(figures.max_latency_ns),
            ],
        }),
    }
}
