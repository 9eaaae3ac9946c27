//! What keeps clients out or holds them back: enforced authentication, digest algorithms, limits of requests and
//! connections (rows A2, A4, A6, A13, A17, A18, A21, R2, R4, R7, R8).

#[path = "../peers/mod.rs"]
mod peers;

use peers::{Client, DEADLINE, Handshake, Incoming, Kind, Refusal, Server, Settings, client};
use socket2::{Domain, Socket, Type};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use zkfast_wire::{Acl, Id, OpCode, Perms};

/// Event types.
const DATA_CHANGED: i32 = 3;
const CHILDREN_CHANGED: i32 = 4;

const NO_AUTH: i32 = -102;
const INVALID_ACL: i32 = -114;
const AUTH_FAILED: i32 = -115;
const REQUIRE_AUTH: i32 = -124;
const THROTTLED: i32 = -127;

fn server(home: &tempfile::TempDir, lines: &[&str]) -> Server {
    let lines = lines.iter().map(|line| (*line).to_owned()).collect();
    Server::start(Kind::under_test(), home.path(), &Settings { lines, ..Settings::default() })
}

/// Sends one request and returns the code of its reply, and whether the connection then ends.
fn ask(client: &mut Client, op: OpCode, body: &[u8]) -> (i32, bool) {
    let xid = client.submit(op, body);
    client.flush().expect("it is sent");
    let Some(Incoming::Reply { xid: answered, err, .. }) = client.next() else { panic!("no reply") };
    assert_eq!(answered, xid);
    if err == 0 {
        return (0, false);
    }
    client.patience(Duration::from_millis(300));
    (err, matches!(client.try_next(), Ok(None)))
}

/// A18, E32: Danger: an operator closed the server, and it is open.
#[test]
fn nobody_asks_before_authentication_where_it_is_enforced() {
    let home = peers::directory();
    let server = server(&home, &["enforce.auth.enabled=true", "enforce.auth.schemes=digest"]);
    let mut stranger = server.client(10_000);
    assert_eq!(ask(&mut stranger, OpCode::Exists, &client::path_watch("/", false)), (REQUIRE_AUTH, true));
    let mut stranger = server.client(10_000);
    let body = client::create("/a", Some(b""), &[Acl::OPEN], 0);
    assert_eq!(ask(&mut stranger, OpCode::Create, &body), (REQUIRE_AUTH, true));
    let mut known = server.client(10_000);
    assert_eq!(known.auth("digest", b"ann:secret"), 0);
    assert_eq!(ask(&mut known, OpCode::Create, &body), (0, false));
    // The word of an operator needs none.
    assert_eq!(server.four_letter("ruok").as_deref(), Some("imok"));
}

/// A17: with skipACL no list keeps anybody from reading, writing, or hearing of a node. Danger: an operator who has lost the
/// password is kept out of half of it.
#[test]
fn lists_can_be_passed_over() {
    let home = peers::directory();
    let server = server(&home, &["skipACL=yes"]);
    let mut client = server.client(10_000);
    let nobody = [Acl { perms: Perms::ALL, id: Id::new("ip", "10.1.1.1") }];
    client.call(OpCode::Create, &client::create("/a", Some(b"a"), &nobody, 0)).expect("a node");
    client.create("/a/b", b"", 0).expect("a child");
    assert_eq!(client.get("/a", true).expect("it reads").0.as_deref(), Some(&b"a"[..]));
    assert_eq!(client.children("/a", true).expect("it lists").0, ["b"]);
    client.call(OpCode::GetAcl, &client::path_alone("/a")).expect("it reads the list");
    client.set("/a", b"b", -1).expect("it writes");
    client.delete("/a/b", -1).expect("it deletes");
    assert_eq!([client.event(), client.event()].map(|(kind, _)| kind), [3, 4], "and it is told");
    client.call(OpCode::SetAcl, &client::set_acl("/a", &nobody, -1)).expect("it administers");
}

/// A2, A13, A19: a scheme that is switched off neither authenticates nor stands in an ACL.
#[test]
fn digest_can_be_switched_off() {
    let home = peers::directory();
    let server = server(&home, &["DigestAuthenticationProvider.enabled=false"]);
    let mut client = server.client(10_000);
    let list = [Acl { perms: Perms::ALL, id: Id::new("digest", "ann:h") }];
    let body = client::create("/a", Some(b""), &list, 0);
    assert_eq!(ask(&mut client, OpCode::Create, &body).0, INVALID_ACL);
    let mut client = server.client(10_000);
    assert_eq!(client.auth("digest", b"ann:secret"), AUTH_FAILED);
}

/// A17: Danger: `skipACL` opens writes and not reads, or not the events of what is read.
#[test]
fn without_acl_checks_everybody_may_everything() {
    for (lines, wanted) in [(&[][..], Err(NO_AUTH)), (&["skipACL=yes"], Ok(()))] {
        let home = peers::directory();
        let server = server(&home, lines);
        let anns = [Acl { perms: Perms::ALL, id: Id::new("digest", "ann:h") }];
        let mut client = server.client(10_000);
        client.call(OpCode::Create, &client::create("/a", Some(b"x"), &anns, 0)).expect("create");
        let watched = client.exists("/a", true).map(|_| ());
        assert_eq!(client.get("/a", true).map(|_| ()), wanted);
        assert_eq!(client.children("/a", true).map(|_| ()), wanted);
        assert_eq!(client.create("/a/b", b"", 0).map(|_| ()), wanted);
        assert_eq!(client.set("/a", b"y", -1).map(|_| ()), wanted);
        assert_eq!(client.call(OpCode::SetAcl, &client::set_acl("/a", &[Acl::OPEN], -1)).map(|_| ()), wanted);
        if wanted.is_ok() {
            assert_eq!(watched, Ok(()));
            assert_eq!(client.event(), (CHILDREN_CHANGED, "/a".into()));
            assert_eq!(client.event(), (DATA_CHANGED, "/a".into()));
        }
    }
}

/// A4, A6: the digests are those of the chosen algorithm, the super user's included.
#[test]
fn digests_are_made_as_the_operator_says() {
    let home = peers::directory();
    // `printf super:test | openssl dgst -sha256 -binary | base64`
    let server = server(
        &home,
        &[
            "DigestAuthenticationProvider.digestAlg=SHA-256",
            "DigestAuthenticationProvider.superDigest=super:wjySwxg860UATFtciuZ1lpzrCHrPeov6SPu/ZD56uig=",
        ],
    );
    // `printf ann:secret | openssl dgst -sha256 -binary | base64`
    let own = [Acl {
        perms: Perms::ALL,
        id: Id::new("digest", "ann:gW+b8HZum3TwTstGfpl32bPArFr4tjcyRtV13gDSyK0="),
    }];
    let mut ann = server.client(10_000);
    ann.call(OpCode::Create, &client::create("/a", Some(b"x"), &own, 0)).expect("create");
    assert_eq!(ann.get("/a", false).map(|_| ()), Err(NO_AUTH));
    assert_eq!(ann.auth("digest", b"ann:secret"), 0);
    assert!(ann.get("/a", false).is_ok());
    let mut root = server.client(10_000);
    assert_eq!(root.auth("digest", b"super:test"), 0);
    assert!(root.get("/a", false).is_ok());
}

/// A21: a client with SASL configured goes on with a server that has none.
#[test]
fn a_sasl_token_is_answered_by_none() {
    let home = peers::directory();
    let server = server(&home, &[]);
    let mut client = server.client(10_000);
    let body = client.call(OpCode::Sasl, b"\0\0\0\x02hi").expect("no error");
    assert_eq!(body, (-1_i32).to_be_bytes());
    assert!(client.exists("/", false).is_ok());
}

/// R2: Danger: a few clients with packets of a megabyte fill the memory.
#[test]
fn large_requests_are_bounded_together() {
    let home = peers::directory();
    let server = server(&home, &["largeRequestThreshold=1000", "largeRequestMaxBytes=5000"]);
    let mut small = server.client(10_000);
    small.create("/a", &[0; 900], 0).expect("not large");
    small.set("/a", &[1; 4_000], -1).expect("large, and there is room");
    small.set("/a", &[1; 4_000], -1).expect("what was answered is counted out");
    let mut large = server.client(10_000);
    large.submit(OpCode::SetData, &client::set("/a", Some(&[2; 6_000]), -1));
    large.flush().expect("it is sent");
    assert!(large.next().is_none(), "closed without a reply");
    assert!(small.exists("/a", false).is_ok());
    assert_eq!(server.monitor("zk_large_requests_rejected").as_deref(), Some("1"));
}

/// R7: Danger: ten thousand clients that come back at once bury the server under their sessions.
#[test]
fn sessions_are_let_in_at_the_rate_of_the_throttle() {
    let home = peers::directory();
    let lines = ["connection_throttle_tokens=3", "connection_throttle_fill_time=3600000"];
    let server = server(&home, &lines);
    let connect = || Client::handshake(server.address, &Handshake::new(10_000));
    let held: Vec<_> = (0..3).map(|_| connect().expect("a session")).collect();
    assert_eq!(connect().err(), Some(Refusal::Closed));
    assert_eq!(server.monitor("zk_connection_rejected").as_deref(), Some("1"));
    drop(held);
}

/// Writes of `/a`, all at once, and how many of them are answered how: 0, -127, or not at all.
fn burst(client: &mut Client, count: usize) -> (usize, usize, usize) {
    for _ in 0..count {
        client.submit(OpCode::SetData, &client::set("/a", Some(b"x"), -1));
    }
    client.flush().expect("an open connection");
    let (mut done, mut throttled) = (0, 0);
    while done + throttled < count {
        match client.next() {
            Some(Incoming::Reply { err: 0, .. }) => done += 1,
            Some(Incoming::Reply { err: THROTTLED, body, .. }) if body.is_empty() => throttled += 1,
            None => break,
            other => panic!("{other:?}"),
        }
    }
    (done, throttled, count - done - throttled)
}

/// R8, E34: Danger: a request that was answered -127, so that the client may send it again, was done all the same.
#[test]
fn a_request_that_waited_too_long_is_not_done() {
    let home = peers::directory();
    let server = server(&home, &["request_throttle_max_requests=1", "throttled_op_wait_time=1"]);
    let mut client = server.client(10_000);
    client.create("/a", b"", 0).expect("a node");
    let (done, throttled, unanswered) = burst(&mut client, 400);
    assert!(done > 0 && throttled > 0 && unanswered == 0, "{done} done, {throttled} throttled");
    let stat = client.exists("/a", false).expect("the connection goes on");
    assert_eq!(stat.version, done as i32, "{throttled} were not done");
    assert_eq!(server.monitor("zk_throttled_ops"), Some(throttled.to_string()));
}

/// R8: with `request_stale_latency_check` a connection goes whose requests were held back for longer than its session's
/// timeout, and none of its later requests is done without the earlier.
#[test]
fn stale_requests_end_with_their_connection() {
    let home = peers::directory();
    let lines =
        ["request_throttle_max_requests=1", "request_stale_latency_check=true", "minSessionTimeout=1"];
    let settings = Settings {
        lines: lines.map(str::to_owned).to_vec(),
        // The session of a millisecond expires with the tick, which must not come first.
        tick_ms: 20_000,
        ..Settings::default()
    };
    let server = Server::start(Kind::under_test(), home.path(), &settings);
    let mut other = server.client(60_000);
    other.create("/a", b"", 0).expect("a node");
    let mut client = server.client(1);
    assert_eq!(client.timeout_ms, 1);
    let (done, _, unanswered) = burst(&mut client, 400);
    assert!(unanswered > 0, "{done} of 400 were done in time");
    assert_eq!(server.monitor("zk_stale_requests_dropped").as_deref(), Some("1"));
    let version = other.exists("/a", false).expect("others go on").version;
    assert!((done as i32..400).contains(&version), "{done} answered, {version} done");
}

/// R3. Danger: one host with a broken client takes all connections, or the limit that keeps it out keeps others out, too.
#[test]
fn connections_of_one_address_are_bounded() {
    let home = peers::directory();
    let server = server(&home, &["maxClientCnxns=3"]);
    let dial = |from: [u8; 4]| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((from, 0)).into()).expect("an address of loopback");
        socket.connect(&server.address.into()).expect("somebody listens");
        Client::over(socket.into())
    };
    let greet = |from| {
        let mut client = dial(from);
        client.submit_raw(&Handshake::new(10_000).frame());
        // The server may have closed already.
        let _ = client.flush();
        matches!(client.next_frame(), Ok(Some(_))).then_some(client)
    };
    // The place of a closed connection is free when the server has seen its end, which nobody announces.
    let greet_in_time = || {
        let begun = Instant::now();
        loop {
            match greet([127, 0, 0, 1]) {
                Some(client) => break client,
                None => assert!(begun.elapsed() < DEADLINE, "no place within {DEADLINE:?}"),
            }
        }
    };
    let mut held: Vec<Client> = (0..3).map(|_| greet_in_time()).collect();
    assert!(greet([127, 0, 0, 1]).is_none(), "a fourth connection of one address");
    assert!(greet([127, 0, 0, 2]).is_some(), "another address");
    held.pop();
    held.push(greet_in_time());
    assert!(greet([127, 0, 0, 1]).is_none(), "again a fourth one");
}

/// R4: `maxCnxns` holds for all addresses together.
#[test]
fn connections_are_bounded_together() {
    let home = peers::directory();
    let server = server(&home, &["maxCnxns=2"]);
    let first = server.client(10_000);
    let _second = server.client(10_000);
    let connect = || Client::handshake(server.address, &Handshake::new(10_000));
    assert_eq!(connect().err(), Some(Refusal::Closed));
    first.close();
    // The place is free when the server has closed its side, which nobody announces.
    let begun = Instant::now();
    while connect().is_err() {
        assert!(begun.elapsed() < DEADLINE, "the place of a closed connection stays taken");
    }
}
