//! One client of the kill -9 test: a session, a folder, a pipeline of writes, and the books about them.

use super::{
    model::{Ledger, Model, Op},
    peers::{Client, Dice, Handshake, Incoming, Refusal, Server, tree},
};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, mpsc::Sender},
};
use zkfast_wire::SessionId;

const IN_FLIGHT_MAX: usize = 48;
const TIMEOUT_MS: i32 = 60_000;

/// A worker and its books.
pub struct Worker {
    folder: String,
    dice: Dice,
    serial: u64,
    session: SessionId,
    ticket: Option<Handshake>,
    client: Option<Client>,
    /// Everything acknowledged.
    acknowledged: Model,
    /// Sent and not answered, in order.
    unanswered: VecDeque<(i32, Op)>,
    /// About the node that all share.
    ledger: Arc<Mutex<Ledger>>,
}

impl Worker {
    /// A worker that has done nothing.
    pub fn new(index: usize, seed: u64, ledger: Arc<Mutex<Ledger>>) -> Self {
        Self {
            folder: format!("/k/w{index}"),
            dice: Dice::new(seed ^ (index as u64 + 1)),
            serial: 0,
            session: SessionId(0),
            ticket: None,
            client: None,
            acknowledged: Model::default(),
            unanswered: VecDeque::new(),
            ledger,
        }
    }

    /// Requests that were in flight when the connection ended.
    pub fn pending(&self) -> usize {
        self.unanswered.len()
    }

    /// Sets of the shared node that were in flight: the version that each wanted, and its data.
    pub fn pending_sets(&self) -> impl Iterator<Item = (i32, Vec<u8>)> + '_ {
        self.unanswered.iter().filter_map(|(_, op)| match op {
            Op::SetShared { data, version } => Some((*version, data.clone())),
            _ => None,
        })
    }

    fn invent(&mut self, sent: &Model) -> Op {
        if self.dice.one_in(20) {
            let data = format!("{} {}", self.folder, self.serial).into_bytes();
            return Op::SetShared { data, version: self.ledger.lock().expect("the ledger").version() };
        }
        sent.invent(&mut self.dice, self.serial)
    }

    /// Writes until the connection ends. Tells `progress` how many answers came.
    pub fn run(&mut self, address: SocketAddr, progress: &Sender<u64>) {
        let mut sent = self.acknowledged.clone();
        assert!(self.unanswered.is_empty(), "checked before it runs again");
        loop {
            let mut client = match self.client.take() {
                Some(client) => client,
                None => match Client::handshake_if_up(address, &Handshake::new(TIMEOUT_MS)) {
                    Some(Ok(client)) => {
                        self.session = client.session;
                        client
                    }
                    // Killed during the handshake: an empty session may be left, nothing else.
                    _ => return,
                },
            };
            self.ticket = Some(client.ticket());
            if self.serial == 0 {
                // The folder itself; a crash before its acknowledgement is cured by trying again.
                match client.try_create(&self.folder) {
                    Some(Ok(()) | Err(-110)) => self.serial = 1,
                    Some(Err(err)) => panic!("create {}: {err}", self.folder),
                    None => return,
                }
            }
            loop {
                while self.unanswered.len() < IN_FLIGHT_MAX && !sent.closed {
                    let op = self.invent(&sent);
                    self.serial += 1;
                    let _ = sent.apply(&op);
                    let (code, body) = op.request(&self.folder);
                    self.unanswered.push_back((client.submit(code, &body), op));
                }
                if client.flush().is_err() {
                    // Answers may still be on their way in: read them all, they are acknowledgements.
                    while self.receive(&mut client, progress) {}
                    return;
                }
                if !self.receive(&mut client, progress) {
                    return;
                }
                if self.acknowledged.closed {
                    assert_eq!(client.next(), None, "after closeSession the connection ends");
                    self.ticket = None;
                    self.acknowledged.closed = false;
                    sent = self.acknowledged.clone();
                    break;
                }
            }
        }
    }

    /// Takes one answer into the books; false at the end of the connection.
    fn receive(&mut self, client: &mut Client, progress: &Sender<u64>) -> bool {
        match client.next() {
            None => false,
            Some(Incoming::Reply { xid, err, body, .. }) => {
                let (wanted, op) = self.unanswered.pop_front().expect("an answer to a request");
                assert_eq!(xid, wanted, "replies leave in the order of the requests (C18)");
                // The server must never know less than it told: the next handshake says what was seen (C6).
                if let Some(ticket) = &mut self.ticket {
                    ticket.last_zxid = client.last_zxid;
                }
                if let Op::SetShared { data, version } = op {
                    match err {
                        0 => self.ledger.lock().expect("the ledger").acknowledge(version, data),
                        err => assert_eq!(err, -103, "another worker was faster"),
                    }
                    return progress.send(1).is_ok();
                }
                let expected = self.acknowledged.apply(&op);
                let answer = if err == 0 { Ok(body) } else { Err(err) };
                self.acknowledged.acknowledge(&op, &self.folder, expected, answer);
                // The receiver is gone once the test has failed elsewhere.
                progress.send(1).is_ok()
            }
            Some(event) => panic!("{event:?} without a watch"),
        }
    }

    /// After a restart: resumes the session and compares the folder with the books.
    pub fn check(&mut self, server: &Server, checker: &mut Client, round: u32) {
        let alive =
            self.ticket.as_ref().is_some_and(|ticket| match Client::handshake(server.address, ticket) {
                Ok(client) => {
                    assert_eq!(client.session, ticket.session);
                    assert_eq!(client.password, ticket.password);
                    self.client = Some(client);
                    true
                }
                Err(Refusal::Expired) => false,
                Err(Refusal::Closed) => {
                    panic!(
                        "round {round}: {} has seen zxid {}, the server has less",
                        self.folder, ticket.last_zxid
                    )
                }
            });
        let closing = self.unanswered.iter().any(|(_, op)| matches!(op, Op::Close));
        assert!(
            alive || closing || self.ticket.is_none(),
            "round {round}: {} lost session {} in a crash",
            self.folder,
            self.session
        );
        if self.serial == 0 {
            return;
        }
        let seen = tree::read(checker, &self.folder);
        let mut model = self.acknowledged.clone();
        let mut reasons = Vec::new();
        // Which prefix of the unanswered requests did the server keep?
        for kept in 0..=self.unanswered.len() {
            if kept > 0 {
                let _ = model.apply(&self.unanswered[kept - 1].1);
            }
            match model.difference(&self.folder, &seen, self.session) {
                None if self.ticket.is_none() || model.closed != alive => {
                    model.closed = false;
                    model.adopt(&self.folder, &seen);
                    self.acknowledged = model;
                    self.unanswered.clear();
                    if !alive {
                        self.ticket = None;
                        self.client = None;
                    }
                    return;
                }
                None => {
                    reasons.push(format!("{kept}: equal, but the session's life says otherwise ({alive})"))
                }
                Some(reason) => reasons.push(format!("{kept}: {reason}")),
            }
        }
        // Those that have the right number of nodes come nearest.
        reasons.sort_by_key(|reason| reason.contains("creations expected"));
        reasons.truncate(3);
        panic!(
            "round {round}: {} shows no prefix of what was sent ({} unanswered):\n{}",
            self.folder,
            self.unanswered.len(),
            reasons.join("\n")
        );
    }
}
