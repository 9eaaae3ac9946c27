//! A client of an ensemble that does what client libraries do: it keeps its session, goes to the next server when a
//! connection ends, and says of a request that was under way that it may or may not have happened.

use crate::peers::{Client, Handshake, Incoming, Refusal, client, server::four_letter_within};
use std::{
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};
use zkfast_wire::{OpCode, Stat};

/// Why a request has no result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The server said no: an error code. It did not happen.
    Refused(i32),
    /// The connection ended first. It may have happened.
    Lost,
}

/// A session with an ensemble.
pub struct Session {
    addresses: Vec<SocketAddr>,
    next: usize,
    ticket: Handshake,
    client: Option<Client>,
    patience: Duration,
    /// Sessions that expired or were never granted to us again.
    pub expired: usize,
    /// Connections so far.
    pub connections: usize,
    /// Whether a sync on this connection brings what was committed before it.
    pub sync_is_a_barrier: bool,
}

/// Between two rounds of dials that all failed.
const PAUSE: Duration = Duration::from_millis(2);

impl Session {
    /// A session of `timeout_ms` that begins with the first of `addresses`. `patience` is how long an answer may take
    /// before the connection counts as lost.
    pub fn new(addresses: Vec<SocketAddr>, timeout_ms: i32, patience: Duration) -> Self {
        Self {
            addresses,
            next: 0,
            ticket: Handshake::new(timeout_ms),
            client: None,
            patience,
            expired: 0,
            connections: 0,
            sync_is_a_barrier: false,
        }
    }

    /// The session's id, 0 before the first connection.
    pub fn id(&self) -> i64 {
        self.ticket.session.0
    }

    /// Goes to this server with the next request.
    pub fn move_to(&mut self, server: usize) {
        self.leave();
        self.next = server % self.addresses.len();
    }

    /// Ends the connection, not the session.
    fn leave(&mut self) {
        if let Some(client) = self.client.take() {
            self.ticket.last_zxid = client.last_zxid;
        }
    }

    fn lost(&mut self) -> Failure {
        self.leave();
        self.next = (self.next + 1) % self.addresses.len();
        Failure::Lost
    }

    /// Connects unless connected, within `limit`; tries every server in turn. False if nobody takes the session.
    /// A session that has expired is replaced by a new one, and counted.
    pub fn connect(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.client.is_none() {
            match self.dial(self.addresses[self.next]) {
                Some(Ok(client)) => {
                    self.connections += 1;
                    self.ticket = client.ticket();
                    // Asked once: a server that begins or ceases to lead ends its connections.
                    self.sync_is_a_barrier = sync_is_a_barrier(self.addresses[self.next], self.patience);
                    self.client = Some(client);
                }
                Some(Err(Refusal::Expired)) => {
                    self.expired += 1;
                    self.ticket = Handshake {
                        last_zxid: self.ticket.last_zxid,
                        ..Handshake::new(self.ticket.timeout_ms)
                    };
                }
                Some(Err(Refusal::Closed)) | None => {
                    self.next = (self.next + 1) % self.addresses.len();
                    if Instant::now() > deadline {
                        return false;
                    }
                    if self.next == 0 {
                        // Polled: nobody tells a client when a server takes sessions again.
                        std::thread::sleep(PAUSE);
                    }
                }
            }
        }
        true
    }

    fn dial(&self, address: SocketAddr) -> Option<Result<Client, Refusal>> {
        let stream = TcpStream::connect_timeout(&address, self.patience).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(self.patience)).ok()?;
        stream.set_write_timeout(Some(self.patience)).ok()?;
        let mut client = Client::over(stream);
        client.last_zxid = self.ticket.last_zxid;
        client.submit_raw(&self.ticket.frame());
        client.flush().ok()?;
        Some(client.finish_handshake())
    }

    /// One request on the connection that is there, and its answer.
    ///
    /// # Errors
    /// [`Failure::Lost`] also when there was no connection: then it did not happen.
    pub fn call(&mut self, op: OpCode, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let Some(client) = &mut self.client else { return Err(Failure::Lost) };
        let wanted = client.submit(op, body);
        if client.flush().is_err() {
            return Err(self.lost());
        }
        loop {
            match client.try_next() {
                Ok(Some(Incoming::Reply { xid, err, body, .. })) => {
                    assert_eq!(xid, wanted, "replies leave in the order of the requests (C18)");
                    return if err == 0 { Ok(body) } else { Err(Failure::Refused(err)) };
                }
                Ok(Some(event)) => client.events.push_back(event),
                Ok(None) | Err(_) => return Err(self.lost()),
            }
        }
    }

    /// create with an open ACL.
    pub fn create(&mut self, path: &str, data: &[u8], flags: i32) -> Result<(), Failure> {
        let acl = [zkfast_wire::Acl::OPEN];
        self.call(OpCode::Create, &client::create(path, Some(data), &acl, flags)).map(|_| ())
    }

    /// setData whatever the version.
    pub fn set(&mut self, path: &str, data: &[u8]) -> Result<Stat, Failure> {
        let body = self.call(OpCode::SetData, &client::set(path, Some(data), -1))?;
        Ok(Stat::decode(&mut zkfast_wire::Decoder::new(&body)).expect("a stat"))
    }

    /// getData.
    pub fn get(&mut self, path: &str, watch: bool) -> Result<(Vec<u8>, Stat), Failure> {
        let body = self.call(OpCode::GetData, &client::path_watch(path, watch))?;
        let (data, stat) = client::data_and_stat(&body);
        Ok((data.unwrap_or_default(), stat))
    }

    /// sync.
    pub fn sync(&mut self, path: &str) -> Result<(), Failure> {
        self.call(OpCode::Sync, &client::path_alone(path)).map(|_| ())
    }

    /// Events that came before the last answer, removed.
    pub fn take_events(&mut self) -> Vec<Incoming> {
        self.client.as_mut().map_or_else(Vec::new, |client| client.events.drain(..).collect())
    }

    /// closeSession, wherever somebody takes it; the session is gone afterwards.
    pub fn close(mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.connect(limit) {
            match self.call(OpCode::CloseSession, &[]) {
                Ok(_) => return,
                // Closed or not: a session that is gone answers the next handshake with an expiry, and a new one is
                // closed in its place.
                Err(_) => assert!(Instant::now() < deadline, "no server closes the session"),
            }
        }
        panic!("no server takes the session within {limit:?}");
    }
}

/// False for a leader of Apache's (see [`history`](crate::history)), and where the server does not say what it is.
fn sync_is_a_barrier(address: SocketAddr, patience: Duration) -> bool {
    four_letter_within(address, "srvr", patience).is_some_and(|answer| {
        answer.contains("Mode: ") && (answer.contains("zkfast") || !answer.contains("Mode: leader"))
    })
}
