//! The first bytes of a connection: a ConnectRequest, a four-letter word, or somebody who has the wrong door
//! (rows C2-C14, S10, S14).

use super::{
    connection::{Connection, Phase},
    core::Core,
};
use crate::cores::messages::{ConnectionId, Submission};
use bytes::BufMut;
use zkfast_tree::session;
use zkfast_wire::{
    ConnectRequest, ConnectResponse, Decoder, ErrorCode, SessionId, Xid, frame, handshake::PASSWORD_BYTES,
};

/// Who might be at the door, by the first four bytes (a length in ZooKeeper's protocol).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Visitor {
    ZooKeeper,
    FourLetterWord([u8; 4]),
    Http,
    Tls,
}

impl Visitor {
    fn of(first: [u8; 4]) -> Self {
        match &first {
            b"GET " | b"POST" | b"HEAD" | b"PUT " | b"OPTI" | b"DELE" | b"PATC" | b"CONN" | b"PRI "
            | b"TRAC" => Self::Http,
            // A TLS record of type handshake, version 3.x.
            [0x16, 0x03, ..] => Self::Tls,
            word if word.iter().all(u8::is_ascii_lowercase) => Self::FourLetterWord(first),
            _ => Self::ZooKeeper,
        }
    }
}

impl Core {
    /// Looks at the first bytes of a connection; returns how many were taken.
    pub(super) fn greet(&mut self, connection: &mut Connection, bytes: &[u8]) -> usize {
        let Some(first) = bytes.first_chunk::<4>() else { return 0 };
        match Visitor::of(*first) {
            Visitor::ZooKeeper => self.greet_client(connection, bytes),
            Visitor::FourLetterWord(word) => self.answer_word(connection, word, &bytes[word.len()..]),
            Visitor::Http => {
                log::warn!(
                    "{} speaks HTTP to the client port; closed. Answers over HTTP are given on admin.serverPort.",
                    connection.peer
                );
                let text =
                    "This is the client port of a ZooKeeper server (zkfast). It does not speak HTTP.\n";
                let out = connection.output.tail();
                out.extend_from_slice(
                    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n",
                );
                out.extend_from_slice(format!("Content-Length: {}\r\n\r\n{text}", text.len()).as_bytes());
                self.turn_away(connection);
                connection.finish(self.now_ms());
                bytes.len()
            }
            Visitor::Tls => {
                log::warn!(
                    "{} speaks TLS to the plain client port; closed. TLS clients belong on secureClientPort.",
                    connection.peer
                );
                self.turn_away(connection);
                connection.kill();
                bytes.len()
            }
        }
    }

    fn turn_away(&mut self, _connection: &Connection) {
        self.counters.unsuccessful_handshakes.increment();
        self.counters.connections_dropped.increment();
    }

    fn greet_client(&mut self, connection: &mut Connection, bytes: &[u8]) -> usize {
        // As long as any other packet (R1): a password may be of any length, and what stands behind the flag is passed
        // over (J5). What has come of it is all that is kept.
        let payload = match frame::cut(bytes, self.options.frame_bytes_limit) {
            Ok(None) => return 0,
            Ok(Some(payload)) => payload,
            Err(error) => {
                log::warn!(
                    "{} does not begin as a ZooKeeper client does ({error}); closed.",
                    connection.peer
                );
                self.turn_away(connection);
                connection.kill();
                return bytes.len();
            }
        };
        self.counters.packets_received.increment();
        connection.figures.received += 1;
        match ConnectRequest::decode(&mut Decoder::new(payload)) {
            Ok(request) => {
                self.open(connection, &request);
                frame::LENGTH_BYTES + payload.len()
            }
            Err(error) => {
                log::warn!("{} sent an unreadable ConnectRequest ({error}); closed.", connection.peer);
                self.turn_away(connection);
                connection.kill();
                bytes.len()
            }
        }
    }

    fn open(&mut self, connection: &mut Connection, request: &ConnectRequest<'_>) {
        if !self.is_serving {
            // As Apache does while its server is not running: the client shall find another one.
            log::debug!("Closing {}: this server has no role in its ensemble now.", connection.peer);
            self.counters.connections_rejected.increment();
            return connection.kill();
        }
        // C7: it shall find a server that takes writes.
        if self.is_read_only && request.read_only != Some(true) {
            log::info!("Refusing session request for not-read-only client {}.", connection.peer);
            self.counters.connections_rejected.increment();
            return connection.kill();
        }
        // C6: the client has seen what this server has not. It shall find another one.
        if request.last_zxid_seen > self.reader.view() {
            log::info!(
                "Closing {}: it has seen zxid {}, this server has only seen {}.",
                connection.peer,
                request.last_zxid_seen,
                self.reader.view()
            );
            self.counters.connections_rejected.increment();
            return connection.kill();
        }
        // R7: a client that is turned away tries again, here or on another server.
        let is_new = request.session == SessionId(0);
        if !self.shared.admission.admits(is_new, self.now_ms()) {
            log::debug!(
                "Closing {}: more sessions at once than connection_throttle_tokens.",
                connection.peer
            );
            self.counters.connections_rejected.increment();
            return connection.kill();
        }
        // The answer says whether this server is read-only, and only to a client that knows the field (C3).
        let read_only = request.read_only.map(|_| self.is_read_only);
        let timeout_ms = request
            .timeout_ms
            .clamp(self.options.session_timeout_ms_min, self.options.session_timeout_ms_max);
        connection.phase = Phase::Opening { read_only };
        let id = connection.id;
        if request.session == SessionId(0) {
            self.counters.connection_requests.increment();
            return self.uplink.send(Submission::OpenSession { connection: id, timeout_ms });
        }
        self.counters.session_renewals.increment();
        match <[u8; PASSWORD_BYTES]>::try_from(request.password) {
            Ok(password) => self.uplink.send(Submission::ResumeSession {
                connection: id,
                session: request.session,
                password,
                timeout_ms,
            }),
            Err(_) => self.refuse_session(connection),
        }
    }

    /// C10: the client reads this as "your session has expired".
    fn refuse_session(&mut self, connection: &mut Connection) {
        let Phase::Opening { read_only } = connection.phase else { return };
        self.put_response(connection, &ConnectResponse::refused(read_only));
        connection.finish(self.now_ms());
    }

    /// The pipeline will not let the session be resumed.
    pub(super) fn refused(&mut self, id: ConnectionId) {
        let Some(mut connection) = self.connections.borrow(id) else { return };
        log::info!(
            "Refusing the session that {} wants to resume: unknown, expired or wrong password.",
            connection.peer
        );
        self.refuse_session(&mut connection);
        self.put_back(connection);
    }

    /// S16: what `ReadOnlyRequestProcessor` answers to a request for a session: the header of a reply, and no more.
    pub(super) fn not_read_only(&mut self, id: ConnectionId) {
        let Some(mut connection) = self.connections.borrow(id) else { return };
        if matches!(connection.phase, Phase::Opening { .. }) {
            self.reply_code(&mut connection, Xid(0), ErrorCode::NOT_READ_ONLY);
            connection.finish(self.now_ms());
        }
        self.put_back(connection);
    }

    /// The connection has its session, a new one or its old one.
    pub(super) fn opened(&mut self, connection: &mut Connection, session: SessionId, timeout_ms: i32) {
        let Phase::Opening { read_only } = connection.phase else { return };
        connection.phase = Phase::Serving;
        connection.session = session;
        connection.timeout_ms = timeout_ms;
        self.by_session.insert(session, connection.id);
        let password = session::password(session);
        self.put_response(connection, &ConnectResponse { timeout_ms, session, password, read_only });
        log::debug!("Established session {session} with {}, timeout {timeout_ms} ms.", connection.peer);
        self.rearm.push(connection.id);
        self.go_on(connection);
    }

    fn put_response(&mut self, connection: &mut Connection, response: &ConnectResponse) {
        connection.output.lend(&mut self.spare);
        frame::write(connection.output.tail(), |out| response.encode(out));
        connection.figures.sent += 1;
        self.counters.packets_sent.increment();
    }

    /// Writes the text of a four-letter word and closes behind it.
    pub(super) fn put_text(&mut self, connection: &mut Connection, text: &str) {
        connection.output.tail().put_slice(text.as_bytes());
        self.counters.packets_sent.increment();
        connection.finish(self.now_ms());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Danger: a browser or a TLS client is taken for a frame of a gigabyte, or a real length for a word.
    #[test]
    fn visitors_are_told_apart_by_four_bytes() {
        for (first, visitor) in [
            (*b"GET ", Visitor::Http),
            (*b"POST", Visitor::Http),
            (*b"PRI ", Visitor::Http),
            ([0x16, 3, 1, 2], Visitor::Tls),
            (*b"ruok", Visitor::FourLetterWord(*b"ruok")),
            (45i32.to_be_bytes(), Visitor::ZooKeeper),
            (28i32.to_be_bytes(), Visitor::ZooKeeper),
            ([0xff, 0xf4, 0xff, 0xfd], Visitor::ZooKeeper),
        ] {
            assert_eq!(Visitor::of(first), visitor, "{first:?}");
        }
    }
}
