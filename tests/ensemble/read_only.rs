//! A member without a leader that serves reads (rows S16, S17, C7).

use crate::{
    cluster::{Cluster, Shape},
    peers::{
        Client, Kind,
        client::{self, Handshake, Incoming, Refusal, dial, path_alone},
        server,
    },
};
use zkfast_wire::{Acl, OpCode, SessionId};

const READ_ONLY: &str = "-Dreadonlymode.enabled=true";

fn reader() -> Handshake {
    Handshake { read_only: Some(true), ..Handshake::new(8_000) }
}

/// One server of three is left, and a node `/kept`.
fn left_alone(lines: &[&str]) -> (Cluster, usize, Handshake) {
    let shape = Shape {
        lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        java_flags: vec![READ_ONLY.to_owned()],
        ..Shape::default()
    };
    let mut cluster = Cluster::start(&[Kind::under_test(); 3], shape);
    let left = cluster.follower();
    let mut writer = cluster.server(left).client(8_000);
    writer.create("/kept", b"data", 0).expect("create");
    let ticket = writer.ticket();
    for other in (0..3).filter(|index| *index != left) {
        cluster.kill(other);
    }
    cluster.await_modes("read-only server", |modes| modes[left].as_deref() == Some("read-only"));
    (cluster, left, ticket)
}

/// E27, C7, G25. Danger: a minority takes a write, or clients that want to write are stuck with it.
#[test]
fn a_server_without_a_leader_serves_reads_and_nothing_else() {
    let (mut cluster, left, ticket) = left_alone(&["localSessionsEnabled=true"]);
    let address = cluster.address(left);
    assert_eq!(server::four_letter(address, "isro").as_deref(), Some("ro"));
    let text = server::four_letter(address, "srvr").expect("srvr");
    assert!(text.contains("READ-ONLY mode; serving only read-only clients\n"), "{text}");

    let refused = Client::handshake(address, &Handshake::new(8_000));
    assert_eq!(refused.err(), Some(Refusal::Closed), "a client that may want to write");
    let global = Client::handshake(address, &Handshake { read_only: Some(true), ..ticket });
    assert_eq!(global.err(), Some(Refusal::Closed), "a session of the whole ensemble");

    let mut client = Client::handshake(address, &reader()).expect("a session that only reads");
    assert_eq!(client.handshake_bytes, 37, "with the flag");
    assert_eq!(client.get("/kept", false).expect("a read").0.as_deref(), Some(&b"data"[..]));
    assert_eq!(client.set("/kept", b"other", -1), Err(-119));
    assert_eq!(client.create("/new", b"", 0), Err(-119));
    assert_eq!(client.call(OpCode::Sync, &path_alone("/kept")), Err(-119));
    // Its turn is kept among reads.
    let read = client.submit(OpCode::Exists, &client::path_watch("/kept", false));
    let write = client.submit(OpCode::Create, &client::create("/new", None, &[Acl::OPEN], 0));
    let last = client.submit(OpCode::Exists, &client::path_watch("/new", false));
    client.flush().expect("the server reads");
    for (xid, err) in [(read, 0), (write, -119), (last, -101)] {
        match client.next() {
            Some(Incoming::Reply { xid: found, err: code, .. }) => assert_eq!((found, code), (xid, err)),
            other => panic!("{other:?} in place of a reply"),
        }
    }
    let mut closed = Client::handshake(address, &reader()).expect("another session");
    closed.get("/kept", false).expect("a read");
    closed.close();

    // S17: the quorum comes back, and with it the clients that write.
    for other in (0..3).filter(|index| *index != left) {
        cluster.launch(other);
    }
    cluster.await_all();
    assert_eq!(client.next(), None, "who only reads is sent away, to find a server that takes writes");
    assert_eq!(server::four_letter(address, "isro").as_deref(), Some("rw"));
    let mut writer = cluster.server(left).client(8_000);
    assert_eq!(writer.get("/kept", false).expect("a read").0.as_deref(), Some(&b"data"[..]));
    writer.set("/kept", b"other", -1).expect("a write");
}

/// S16: without local sessions nobody can have a new session; the answer is a bare reply with -119.
#[test]
fn a_read_only_server_without_local_sessions_makes_none() {
    let (cluster, left, _) = left_alone(&[]);
    let mut client = Client::over(dial(cluster.address(left)));
    client.submit_raw(&reader().frame());
    client.flush().expect("the server reads");
    let frame = client.next_frame().expect("an answer").expect("a frame");
    assert_eq!(frame.len(), 16, "the header of a reply");
    assert_eq!(frame[12..], (-119_i32).to_be_bytes());
    assert_ne!(client.session, SessionId(-119));
}
