//! Ten thousand sessions that run out at the same tick.

use super::{
    EPHEMERAL,
    peers::{self, Client, Handshake, Kind, Server, Settings, client},
};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use zkfast_wire::{Acl, OpCode};

const SESSIONS: usize = 10_000;
/// Connections that are open at once while the sessions are made.
const TOGETHER: usize = 200;

/// Makes sessions that own an ephemeral node each and lose their connections.
fn abandon_sessions(server: &Server) {
    for batch in 0..SESSIONS / TOGETHER {
        let greeted: Vec<Client> = (0..TOGETHER)
            .map(|_| {
                let mut client = Client::over(client::dial(server.address));
                client.submit_raw(&Handshake::new(20_000).frame());
                client.flush().expect("an open connection");
                client
            })
            .collect();
        let mut owners: Vec<Client> =
            greeted.into_iter().map(|client| client.finish_handshake().expect("a new session")).collect();
        for (index, owner) in owners.iter_mut().enumerate() {
            let path = format!("/storm/e-{batch}-{index}");
            owner.submit(OpCode::Create, &client::create(&path, None, &[Acl::OPEN], EPHEMERAL));
            owner.flush().expect("an open connection");
        }
        for owner in &mut owners {
            owner.reply(1).expect("an ephemeral");
        }
    }
}

/// Danger: thousands of expiries are one piece of work, and whoever else is connected waits until it is done, so long
/// perhaps that he expires too (S6, ZOOKEEPER-1669).
#[test]
fn ten_thousand_expiries_let_the_others_through() {
    let home = peers::directory();
    let settings = Settings { tick_ms: 1_000, ..Settings::default() };
    let server = Server::start(Kind::under_test(), home.path(), &settings);
    server.client(20_000).create("/storm", b"", 0).expect("a node");
    abandon_sessions(&server);
    // After a restart all of them have their whole timeout before them: one tick will end them all.
    server.kill();
    let server = Server::start(Kind::under_test(), home.path(), &settings);
    let mut living = server.client(20_000);
    let all = living.exists("/storm", false).expect("a node").num_children;
    assert_eq!(all as usize, SESSIONS, "nobody has expired yet");

    let deadline = Instant::now() + Duration::from_secs(20) + peers::DEADLINE;
    let (mut slowest, mut seen) = (Duration::ZERO, BTreeSet::new());
    loop {
        let begun = Instant::now();
        living.set("/storm", b"alive", -1).expect("a set");
        let left = living.exists("/storm", false).expect("a node").num_children;
        slowest = slowest.max(begun.elapsed());
        seen.insert(left);
        if left == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{left} ephemerals of dead sessions are left");
    }
    assert!(slowest < Duration::from_secs(2), "a set and a read took {slowest:?} beside the expiries");
    if server.kind == Kind::Zkfast {
        // All, none, and what lay between: it was not one piece of work.
        assert!(seen.len() >= 6, "the others were let through at {seen:?} only");
    }
}
