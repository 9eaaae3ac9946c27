//! Sessions that went to another server while their old connection stands.

use crate::{
    cluster::{Cluster, Shape, TICK_MS},
    peers::{Client, DEADLINE, Handshake, Incoming, Kind, Refusal, client},
};
use std::time::{Duration, Instant};
use zkfast_wire::{Acl, ErrorCode, OpCode, Xid, Zxid};

/// C28, E26, ZOOKEEPER-710. Danger: a client that is told that its session has moved asks the wrong server again and
/// again. It is told nothing, and the connection ends; the write does not happen.
#[test]
fn a_write_on_the_old_connection_of_a_session_ends_that_connection() {
    let cluster = Cluster::start(&[Kind::under_test(); 3], Shape::default());
    let leader = cluster.leader();
    let followers: Vec<usize> = (0..cluster.size()).filter(|index| *index != leader).collect();
    let ways = [(followers[0], followers[1]), (followers[0], leader), (leader, followers[0])];
    let mut reader = cluster.server(leader).client(8_000);
    reader.create("/there", b"", 0).expect("a node");
    reader.create("/there/child", b"", 0).expect("a node");
    let acl = [Acl::OPEN];
    let writes = [
        (OpCode::Create, client::create("/new", Some(b""), &acl, 0)),
        (OpCode::Create2, client::create("/new", Some(b""), &acl, 1)),
        (OpCode::SetData, client::set("/there", Some(b"new"), -1)),
        (OpCode::Multi, client::multi(&[(OpCode::SetData, client::set("/there", Some(b"new"), -1))])),
        (OpCode::Delete, client::path_version("/there/child", -1)),
    ];
    for (old, new) in ways {
        for (op, body) in &writes {
            let mut first = cluster.server(old).client(8_000);
            let mut second = cluster.resume(new, &first.ticket()).expect("the same session");
            second.call(OpCode::Sync, &client::path_alone("/")).expect("it speaks here now");
            first.submit(*op, body);
            first.flush().expect("an open connection");
            match first.next() {
                None => {}
                Some(Incoming::Reply { err, .. }) => panic!("{op:?} from {old} to {new}: answered {err}"),
                Some(event) => panic!("{event:?} without a watch"),
            }
            second.set("/there", b"still", -1).expect("the session lives on its new connection");
            second.close();
        }
    }
    reader.call(OpCode::Sync, &client::path_alone("/")).expect("sync");
    assert_eq!(reader.exists("/new", false).map(|_| ()), Err(ErrorCode::NO_NODE.0));
    assert_eq!(reader.get("/there", false).expect("the node").0.as_deref(), Some(&b"still"[..]));
    reader.exists("/there/child", false).expect("nothing was deleted");
}

/// S12 (`PrepRequestProcessor`: whoever ends a session need not own it). Danger: a client that ends its session, and does
/// not know that it has moved, hears that its connection is lost, and opens it again.
#[test]
fn the_end_of_a_session_on_its_old_connection_is_answered() {
    let zkfast = Kind::under_test();
    for kinds in [[zkfast; 3], [zkfast, zkfast, Kind::Apache], [zkfast, Kind::Apache, Kind::Apache]] {
        let cluster = Cluster::start(&kinds, Shape::default());
        let mut reader = cluster.server(cluster.leader()).client(8_000);
        let pairs = (0..cluster.size()).flat_map(|old| (0..cluster.size()).map(move |new| (old, new)));
        for (old, new) in pairs.filter(|(old, new)| old != new) {
            let mut first = cluster.server(old).client(8_000);
            let path = format!("/ends-{old}-{new}");
            first.create(&path, b"", 1).expect("an ephemeral");
            let mut second = cluster.resume(new, &first.ticket()).expect("the same session");
            second.call(OpCode::Sync, &client::path_alone("/")).expect("it speaks here now");
            first.call(OpCode::CloseSession, &[]).unwrap_or_else(|code| panic!("{old} to {new}: {code}"));
            assert_eq!(first.next(), None, "{old} to {new}: the connection ends behind the answer");
            assert_eq!(
                second.next(),
                None,
                "{old} to {new}: the session is over on its new connection as well"
            );
            reader.call(OpCode::Sync, &client::path_alone("/")).expect("sync");
            assert_eq!(reader.exists(&path, false).map(|_| ()), Err(ErrorCode::NO_NODE.0), "{old} to {new}");
        }
    }
}

/// C28, S12. Danger: a client whose session has moved goes on with its old connection to the leader as if nothing were, and
/// never comes to know.
#[test]
fn a_ping_to_the_leader_ends_the_old_connection() {
    let cluster = Cluster::start(&[Kind::under_test(); 3], Shape::default());
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let mut first = cluster.server(leader).client(8_000);
    let mut second = cluster.resume(follower, &first.ticket()).expect("the same session");
    second.call(OpCode::Sync, &client::path_alone("/")).expect("it speaks here now");
    let deadline = Instant::now() + DEADLINE;
    loop {
        assert!(Instant::now() < deadline, "the old connection stands");
        first.submit_as(Xid::PING, OpCode::Ping.to_i32(), &[]);
        // Apache's leader answers none; here those are answered that come before the leader hears of the first.
        if first.flush().is_err() || first.next().is_none() {
            break;
        }
    }
    second.create("/still", b"", 1).expect("the session lives on its new connection");
    second.close();
}

/// S3, S4, S10. Danger: what one server heard of a client before it came back counts as news of it afterwards, and gives the
/// session the timeout that it had before: its ephemerals stay for minutes, or go while it lives. (Apache's servers do.)
#[test]
fn a_session_that_comes_back_with_another_timeout_expires_by_it() {
    const SESSIONS: usize = 8;
    const LONG_MS: i32 = 100_000;
    let lines = vec!["maxSessionTimeout=100000".to_owned()];
    // A machine that stands still for some seconds shall not cost the leadership here.
    let shape = Shape { lines, sync_limit_ticks: Some(60), ..Shape::default() };
    let cluster = Cluster::start(&[Kind::under_test(); 3], shape);
    let leader = cluster.leader();
    let followers: Vec<usize> = (0..cluster.size()).filter(|index| *index != leader).collect();
    let mut reader = cluster.server(leader).client(LONG_MS);
    let ways = [
        (followers[0], followers[0]),
        (followers[0], followers[1]),
        (followers[0], leader),
        (leader, followers[0]),
    ];
    for (old, new) in ways {
        let names: Vec<String> = (0..SESSIONS).map(|index| format!("/{old}{new}-{index}")).collect();
        let mut clients: Vec<Client> = (0..SESSIONS).map(|_| cluster.server(old).client(LONG_MS)).collect();
        for (name, client) in names.iter().zip(&mut clients) {
            client.create(name, b"", 1).expect("an ephemeral");
        }
        reader.set("/", b"", -1).expect("a write, behind which the ephemerals are seen");
        for name in &names {
            reader.exists(name, true).expect("the ephemeral");
        }
        // They are heard of at all times between what servers tell each other of them.
        for client in &mut clients {
            let last = Instant::now() + Duration::from_millis(u64::from(TICK_MS) / SESSIONS as u64);
            while Instant::now() < last {
                client.ping();
            }
            // It does not say what it has seen: the other server may be behind, and would send it away (C6).
            let short = Handshake { timeout_ms: 1, last_zxid: Zxid(0), ..client.ticket() };
            let mut back = cluster.resume(new, &short).expect("the same session");
            back.ping();
        }
        drop(clients);
        let mut gone: Vec<String> = (0..SESSIONS).map(|_| reader.event().1).collect();
        gone.sort_unstable();
        assert_eq!(gone, names, "from {old} to {new}");
    }
}

/// S2, C10. Danger: whoever knows the number of a session, which every log and every `dump` tells, takes over the session
/// and its locks.
#[test]
fn a_session_moves_with_its_password_alone() {
    let cluster = Cluster::start(&[Kind::under_test(); 3], Shape::default());
    cluster.leader();
    for (old, new) in (0..cluster.size()).flat_map(|old| (0..cluster.size()).map(move |new| (old, new))) {
        let mut owner = cluster.server(old).client(8_000);
        let path = format!("/owned-{old}-{new}");
        owner.create(&path, b"", 1).expect("an ephemeral");
        let ticket = owner.ticket();
        let mut wrong = ticket.clone();
        wrong.password[15] ^= 1;
        let mut none = ticket.clone();
        none.password = vec![0; 16];
        for claim in [&wrong, &none] {
            assert_eq!(cluster.resume(new, claim).err(), Some(Refusal::Expired), "from {old} to {new}");
        }
        owner.set(&path, b"still", -1).expect("its connection is as it was");
        let mut moved = cluster.resume(new, &ticket).expect("the session");
        moved.call(OpCode::Sync, &client::path_alone("/")).expect("sync");
        if old == new {
            // C12.
            assert_eq!(owner.next(), None, "on {old}");
        } else {
            owner.call(OpCode::CloseSession, &[]).expect("the end of the session");
            assert_eq!(cluster.resume(new, &ticket).err(), Some(Refusal::Expired), "it is over");
            continue;
        }
        moved.close();
    }
}
