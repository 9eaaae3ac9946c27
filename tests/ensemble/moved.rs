//! Sessions that went to another server while their old connection stands.

use crate::{
    cluster::{Cluster, Shape},
    peers::{Client, Incoming, Kind, client},
};
use zkfast_wire::{Acl, ErrorCode, OpCode};

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
            let mut second =
                Client::handshake(cluster.address(new), &first.ticket()).expect("the same session");
            second.call(OpCode::Sync, &client::path_alone("/")).expect("it speaks here now");
            first.submit(*op, body);
            // The leader ends its own connection as soon as it hears of the move.
            if first.flush().is_ok() {
                match first.next() {
                    None => {}
                    Some(Incoming::Reply { err, .. }) => panic!("{op:?} from {old} to {new}: answered {err}"),
                    Some(event) => panic!("{event:?} without a watch"),
                }
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
