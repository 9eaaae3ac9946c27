//! Sessions: granted, resumed, taken over, refused, expired on time, and kept over a restart.

#[path = "../peers/mod.rs"]
mod peers;

mod libraries;
mod storm;

use bytes::BufMut;
use peers::{Client, Handshake, Incoming, Kind, Refusal, Server, Settings, client};
use std::time::{Duration, Instant};
use zkfast_wire::{OpCode, SessionId, Xid, Zxid, jute};

const EPHEMERAL: i32 = 1;
const DELETED: i32 = 2;
const TICK_MS: u32 = 500;

fn settings() -> Settings {
    Settings { tick_ms: TICK_MS, ..Settings::default() }
}

fn server(home: &tempfile::TempDir) -> Server {
    Server::start(Kind::under_test(), home.path(), &settings())
}

/// Danger: the server is not where its configuration says (C1), the negotiated timeout is not what it allows (C5, S3),
/// or old clients without the last byte
/// get an answer of a length that they cannot read (C3, C4, C11).
#[test]
fn a_handshake_negotiates_the_timeout_and_the_length_of_its_answer() {
    let home = peers::directory();
    let server = server(&home);
    for (wanted, granted) in
        [(0, 1_000), (-5, 1_000), (1_500, 1_500), (1_000_000, 10_000), (i32::MAX, 10_000)]
    {
        let client = server.client(wanted);
        assert_eq!(client.timeout_ms, granted, "for {wanted}");
        // And for who comes back (C5).
        let other = Handshake { timeout_ms: wanted, ..server.client(5_000).ticket() };
        let again = Client::handshake(server.address, &other).expect("the session lives");
        assert_eq!(again.timeout_ms, granted, "for {wanted}, again");
    }
    for (password, read_only, bytes) in [
        (vec![0; 16], Some(false), 37),
        (vec![0; 16], None, 36),
        (Vec::new(), Some(true), 37),
        (Vec::new(), None, 36),
    ] {
        let handshake = Handshake { password, read_only, ..Handshake::new(5_000) };
        let client = Client::handshake(server.address, &handshake).expect("a new session");
        assert_eq!(client.handshake_bytes, bytes, "{handshake:?}");
        client.close();
    }
    let mut ids: Vec<i64> = (0..100).map(|_| server.client(5_000).session.0).collect();
    assert!(ids.iter().all(|id| *id != 0));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 100, "each session has its own id");
}

/// Danger: requests sent right behind the handshake, as the Java client does, are lost or overtake it (C13).
#[test]
fn what_is_pipelined_behind_the_handshake_is_served_in_order() {
    let home = peers::directory();
    let server = server(&home);
    let mut client = Client::over(client::dial(server.address));
    client.submit_raw(&Handshake::new(5_000).frame());
    let mut auth = Vec::new();
    auth.put_i32(0);
    jute::put_text(&mut auth, "digest");
    jute::put_buffer(&mut auth, Some(b"erin:pw"));
    client.submit_as(Xid::AUTH, OpCode::Auth.to_i32(), &auth);
    let mut watches = Vec::new();
    watches.put_i64(0);
    (0..3).for_each(|_| jute::put_count(&mut watches, 0));
    client.submit_as(Xid::SET_WATCHES, OpCode::SetWatches.to_i32(), &watches);
    let acl = zkfast_wire::Acl { perms: zkfast_wire::Perms::ALL, id: zkfast_wire::Id::new("auth", "") };
    let create = client.submit(OpCode::Create, &client::create("/mine", None, &[acl], 0));
    client.flush().expect("an open connection");
    let mut client = client.finish_handshake().expect("a new session");
    for wanted in [Xid::AUTH.0, Xid::SET_WATCHES.0, create] {
        match client.next() {
            Some(Incoming::Reply { xid, err: 0, .. }) => assert_eq!(xid, wanted),
            other => panic!("{other:?} instead of the reply to {wanted}"),
        }
    }
    let mut stranger = server.client(5_000);
    assert_eq!(stranger.get("/mine", false).map(|_| ()), Err(-102), "the identity was active for the create");
}

/// Danger: a client moves to a server that knows less than it has seen, and time runs backwards for it (C6).
#[test]
fn a_client_that_has_seen_more_than_the_server_is_closed_without_a_word() {
    let home = peers::directory();
    let server = server(&home);
    let client = server.client(5_000);
    for session in [SessionId(0), client.session] {
        let ahead = Handshake { last_zxid: Zxid(1 << 40), session, ..client.ticket() };
        assert_eq!(Client::handshake(server.address, &ahead).map(|_| ()), Err(Refusal::Closed));
    }
}

/// Danger: two connections of one session both believe to own it (C12).
#[test]
fn a_second_connection_of_a_session_ends_the_first() {
    let home = peers::directory();
    let server = server(&home);
    let mut first = server.client(5_000);
    first.create("/held", b"", EPHEMERAL).expect("an ephemeral");
    for _ in 0..20 {
        let mut second = first.again(server.address).expect("the session lives");
        assert_eq!((second.session, &second.password), (first.session, &first.password));
        assert_eq!(first.next(), None, "the older connection is closed");
        let stat = second.exists("/held", false).expect("the ephemeral stays");
        assert_eq!(stat.ephemeral_owner, second.session);
        first = second;
    }
}

/// Danger: a stranger takes a session over, or a refused client gets a fresh session and never learns that its
/// ephemerals are lost (C10, S27; G4, ClickHouse 44571 and 116690).
#[test]
fn wrong_passwords_and_unknown_sessions_are_refused() {
    let home = peers::directory();
    let server = server(&home);
    let mut client = server.client(10_000);
    client.create("/mine", b"", EPHEMERAL).expect("an ephemeral");
    let ticket = client.ticket();
    let mut almost = ticket.password.clone();
    almost[15] ^= 1;
    for password in [almost, vec![0; 16], Vec::new(), ticket.password[..15].to_vec(), vec![7; 100]] {
        let wrong = Handshake { password, ..ticket.clone() };
        assert_eq!(Client::handshake(server.address, &wrong).map(|_| ()), Err(Refusal::Expired), "{wrong:?}");
    }
    let unknown = Handshake { session: SessionId(ticket.session.0 + 1_000), ..ticket.clone() };
    assert_eq!(Client::handshake(server.address, &unknown).map(|_| ()), Err(Refusal::Expired));
    let mut again = client.again(server.address).expect("the right password still opens it");
    again.exists("/mine", false).expect("the ephemeral stays");
    again.close();
    assert_eq!(client.again(server.address).map(|_| ()), Err(Refusal::Expired), "a closed session is gone");
}

/// Danger: the reply to closeSession comes while the ephemerals are still there (C24, S7), so that a successor that was
/// told of it finds the old lock.
#[test]
fn ephemerals_are_gone_when_closing_is_answered() {
    let home = peers::directory();
    let server = server(&home);
    let mut other = server.client(5_000);
    for _ in 0..50 {
        let mut client = server.client(5_000);
        for name in ["/lock", "/lock-2", "/lock-3"] {
            client.create(name, b"", EPHEMERAL).expect("an ephemeral");
        }
        assert_eq!(other.exists("/lock", true).map(|stat| stat.ephemeral_owner), Ok(client.session));
        client.close();
        for name in ["/lock", "/lock-2", "/lock-3"] {
            assert_eq!(other.exists(name, false), Err(-101), "{name} after the close was answered");
        }
        assert_eq!(other.event(), (DELETED, "/lock".into()));
    }
}

/// Danger: a session expires early and its owner loses its locks while it works (S4, R16, G22), or late or never and nobody
/// else gets them (R13). A session that speaks in time does not expire at all (S5).
#[test]
fn a_silent_session_expires_on_time_and_a_pinging_one_does_not() {
    const TIMEOUT_MS: u64 = 2_000;
    let home = peers::directory();
    let server = server(&home);
    let mut observer = server.client(10_000);
    let mut alive = server.client(1_000);
    alive.create("/alive", b"", EPHEMERAL).expect("an ephemeral");
    let mut silent = server.client(i32::try_from(TIMEOUT_MS).expect("small"));
    silent.create("/silent", b"", EPHEMERAL).expect("an ephemeral");
    observer.exists("/silent", true).expect("an ephemeral");
    // The last sign of life is received after this instant, so no expiry before it plus the timeout is right.
    let last_sign = Instant::now();
    silent.ping();
    let answered = Instant::now();
    // Pinging is the clock: each ping and a look at the events follow one another without a pause in between.
    observer.patience(Duration::from_millis(50));
    let gone = loop {
        alive.ping();
        match observer.try_next() {
            Ok(Some(Incoming::Event { kind, path, .. })) => {
                assert_eq!((kind, path.as_str()), (DELETED, "/silent"));
                break Instant::now();
            }
            Ok(other) => panic!("{other:?} instead of an event"),
            Err(_) => assert!(answered.elapsed() < peers::DEADLINE, "the silent session never expired"),
        }
    };
    observer.patience(peers::DEADLINE);
    let early = gone - last_sign;
    assert!(early >= Duration::from_millis(TIMEOUT_MS), "expired after {early:?}, timeout {TIMEOUT_MS} ms");
    // Up to one tick of rounding and one of the expirer's own; the rest is for a busy machine.
    let late = gone - answered;
    let limit = Duration::from_millis(TIMEOUT_MS + 2 * u64::from(TICK_MS) + 1_500);
    assert!(late <= limit, "expired after {late:?}, limit {limit:?}");
    assert_eq!(silent.next(), None, "an expired session's connection is closed");
    assert_eq!(silent.again(server.address).map(|_| ()), Err(Refusal::Expired));
    assert!(observer.exists("/alive", false).is_ok(), "a session that pings in time lives");
}

/// Danger: a restart forgets sessions, and every client in the house loses its ephemerals at once (S8); or it keeps
/// those that were closed.
#[test]
fn sessions_survive_an_orderly_stop_and_a_kill() {
    for orderly in [true, false] {
        let home = peers::directory();
        let first = server(&home);
        let mut kept = first.client(10_000);
        let (_, created) = {
            let (path, stat) = kept.create("/kept", b"k", EPHEMERAL).expect("an ephemeral");
            (path, stat)
        };
        let mut closed = first.client(10_000);
        closed.create("/closed", b"", EPHEMERAL).expect("an ephemeral");
        let closed_ticket = closed.ticket();
        closed.close();
        // Longer than a start takes, so that half of it is seen to be too little.
        let mut lost = first.client(3_000);
        lost.create("/lost", b"", EPHEMERAL).expect("an ephemeral");
        if orderly {
            let status = first.stop();
            if Kind::under_test() == Kind::Zkfast {
                assert_eq!(status.code(), Some(0), "an orderly stop is no error");
            }
        } else {
            first.kill();
        }
        let restarted = Instant::now();
        let second = server(&home);
        let mut kept = kept.again(second.address).expect("the session survives");
        assert_eq!(kept.get("/kept", false), Ok((Some(b"k".to_vec()), created)));
        assert_eq!(Client::handshake(second.address, &closed_ticket).map(|_| ()), Err(Refusal::Expired));
        assert_eq!(kept.exists("/closed", false), Err(-101));
        // Nobody comes back for the third: it gets its whole timeout from the restart, then goes.
        if kept.exists("/lost", true).is_ok() {
            assert_eq!(kept.event(), (DELETED, "/lost".into()));
        }
        assert!(restarted.elapsed() >= Duration::from_millis(3_000), "a restart grants a whole timeout (S8)");
        assert!(kept.exists("/kept", false).is_ok());
        let (_, stat) = kept.create("/next", b"", EPHEMERAL).expect("the session can write");
        assert_eq!(stat.ephemeral_owner, kept.session);
    }
}
