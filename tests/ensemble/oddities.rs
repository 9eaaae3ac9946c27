//! Requests that a server can hardly read, or hardly carry out, from clients of a zkfast server that follows Apache's leader.

use crate::{
    cluster::{Cluster, Shape},
    peers::{Client, Incoming, Kind, client},
};
use bytes::BufMut;
use zkfast_wire::{Acl, OpCode, jute};

/// A part of a multi as it is on the wire.
fn part(kind: i32, is_last: bool, body: &[u8]) -> Vec<u8> {
    let mut part = Vec::new();
    part.put_i32(kind);
    jute::put_bool(&mut part, is_last);
    part.put_i32(-1);
    part.extend_from_slice(body);
    part
}

/// Multis with one part of which somebody might despair; each with its name.
fn multis() -> Vec<(String, Vec<u8>)> {
    let acl = [Acl::OPEN];
    let create = |path: &str| client::create(path, Some(b""), &acl, 0);
    let good = (OpCode::Create, create("/good"));
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |name: &str, body: Vec<u8>| all.push((name.to_owned(), body));
    add("nothing", client::multi(&[]));
    for op in [OpCode::GetData, OpCode::GetChildren, OpCode::Exists, OpCode::Sync, OpCode::Ping] {
        let read = (op, client::path_watch("/", false));
        add(&format!("{op:?} alone"), client::multi(std::slice::from_ref(&read)));
        add(&format!("a create and {op:?}"), client::multi(&[good.clone(), read.clone()]));
        add(&format!("{op:?} and a create"), client::multi(&[read, good.clone()]));
    }
    for flags in [-1, 7, 77, i32::MAX] {
        add(
            &format!("flags {flags}"),
            client::multi(&[(OpCode::Create, client::create("/f", None, &acl, flags))]),
        );
    }
    let no_path = |rest: &[u8]| [&(-1_i32).to_be_bytes()[..], rest].concat();
    add("delete of null", client::multi_without_path());
    for op in [
        OpCode::Create,
        OpCode::Create2,
        OpCode::CreateContainer,
        OpCode::SetData,
        OpCode::Check,
        OpCode::CreateTtl,
    ] {
        add(&format!("{op:?} of null"), client::multi(&[(op, no_path(&[0; 40]))]));
    }
    for path in ["", "no-slash", "/nul\0", "/double//slash", "/end/", "/.", "/..", "//"] {
        for op in [OpCode::Delete, OpCode::Check] {
            add(&format!("{op:?} of {path:?}"), client::multi(&[(op, client::path_version(path, -1))]));
        }
        add(&format!("Create of {path:?}"), client::multi(&[(OpCode::Create, create(path))]));
    }
    for code in [-11, -10, -1, 0, 7, 14, 16, 20, 21, 22, 99, 999] {
        let mut body = part(code, false, &create("/kind"));
        body.extend(part(-1, true, &[]));
        add(&format!("a part of kind {code}"), body);
    }
    let no_acl = {
        let mut body = client::create("/no-acl", Some(b""), &[], 0);
        let at = body.len() - 8;
        body[at..at + 4].copy_from_slice(&(-1_i32).to_be_bytes());
        body
    };
    add("no list of ACLs", client::multi(&[(OpCode::Create, no_acl)]));
    add("an empty list of ACLs", client::multi(&[(OpCode::Create, client::create("/no-acl", None, &[], 0))]));
    let whole = client::multi(std::slice::from_ref(&good));
    for length in [0, 1, 8, 12, 20, whole.len() - 9, whole.len() - 1] {
        add(&format!("cut off at {length}"), whole[..length].to_vec());
    }
    add("something behind the end", [&whole[..], b"more"].concat());
    all
}

/// What came of a request: an answer with its code, or the end of the connection.
fn outcome(client: &mut Client) -> Option<i32> {
    match client.next()? {
        Incoming::Reply { err, .. } => Some(err),
        event => panic!("{event:?} without a watch"),
    }
}

/// Q45, C27. Danger: Apache's leader passes a request over (it has no transaction, and no answer), and this server's client
/// waits for good, or loses its connection for what could have been refused. Of what Apache's 3.8.0 passes over, multis that
/// it stumbles over, nothing gets that far: its learner here refuses it. So what happens where a leader does pass
/// something over is tried with a puppet alone (`limits`).
#[test]
fn apaches_leader_passes_nothing_over_that_it_is_asked() {
    let zkfast = Kind::under_test();
    let cluster = Cluster::start(&[zkfast, Kind::Apache, Kind::Apache], Shape::default());
    let leader = cluster.leader();
    assert_eq!(cluster.kind(leader), Kind::Apache);
    let mut other = cluster.server(0).client(20_000);
    let mut odd = cluster.server(0).client(20_000);
    other.create("/other", b"", 0).expect("a node");
    let acl = [Acl::OPEN];
    let writes = [
        (OpCode::Create, client::create("/w", Some(b""), &acl, 0)),
        (OpCode::SetData, client::set("/other", Some(b""), -1)),
        (OpCode::Delete, client::path_version("/w", -1)),
        (OpCode::SetAcl, client::set_acl("/other", &acl, -1)),
    ];
    let cut = writes.iter().flat_map(|(op, body)| {
        let lengths = [0, 3, 4, 6, body.len() - 1];
        lengths.map(|length| (*op, format!("{op:?} cut off at {length}"), body[..length].to_vec()))
    });
    let asked = multis().into_iter().map(|(name, body)| (OpCode::Multi, name, body)).chain(cut);
    for (op, name, body) in asked {
        odd.submit(op, &body);
        odd.flush().expect("an open connection");
        other.set("/other", b"", -1).unwrap_or_else(|code| panic!("behind {name}: {code}"));
        assert!(outcome(&mut odd).is_some(), "{name}: the connection ended");
    }
    odd.set("/other", b"", -1).expect("it goes on as if nothing had been");
}

/// Q45. Danger: a client of an Apache server asks for what this leader does not know (a reconfig), and waits for good, with
/// everybody behind it on that server.
#[test]
fn what_this_leader_does_not_know_is_refused() {
    let zkfast = Kind::under_test();
    let cluster = Cluster::start(&[Kind::Apache, zkfast, zkfast], Shape::default());
    assert_eq!(cluster.kind(cluster.leader()), zkfast);
    let mut odd = cluster.server(0).client(20_000);
    let mut other = cluster.server(0).client(20_000);
    // reconfig: nobody joins, nobody leaves, no new members, whatever the configuration is.
    let nothing = (-1_i32).to_be_bytes();
    let body = [&nothing[..], &nothing, &nothing, &(-1_i64).to_be_bytes()].concat();
    odd.submit_code(16, &body);
    odd.flush().expect("an open connection");
    other.create("/other", b"", 0).expect("a node");
    let answer = outcome(&mut odd);
    assert!(answer.is_some_and(|code| code < 0), "{answer:?}");
    odd.set("/other", b"", -1).expect("it goes on");
}
