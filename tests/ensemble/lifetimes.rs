//! Sessions whose clients die: somebody expires them, whatever happens to the servers meanwhile.

use crate::{
    cluster::{Cluster, Shape},
    peers::{DEADLINE, Incoming, Kind},
};
use std::time::{Duration, Instant};
use zkfast_wire::ErrorCode;

/// The shortest that the ensembles here grant, milliseconds.
const TIMEOUT_MS: i32 = 800;

/// S8, Q45. Danger: a session that nobody hears of lives for ever, and its locks with it: because its client died before
/// its first word on another server than the leader, or together with the leader.
#[test]
fn the_sessions_of_the_dead_end_whoever_led_when_they_died() {
    let mut cluster = Cluster::start(&[Kind::under_test(); 3], Shape::default());
    let follower = cluster.follower();
    let mut silent: Vec<_> = (0..3).map(|_| cluster.server(follower).client(TIMEOUT_MS)).collect();
    let sessions: Vec<String> = silent.iter().map(|client| format!("0x{:x}", client.session.0)).collect();
    let is_there = |session: &String| {
        cluster.server(follower).four_letter("dump").expect("dump").contains(session.as_str())
    };
    assert!(sessions.iter().all(is_there), "a follower tells of the ensemble's sessions");
    silent.clear();
    let deadline = Instant::now() + DEADLINE;
    while sessions.iter().any(is_there) {
        assert!(Instant::now() < deadline, "sessions that never said a word do not end");
        // Polled: nobody is told of the end of a session without a connection.
        std::thread::sleep(Duration::from_millis(20));
    }

    let old = cluster.leader();
    for (index, path) in [(old, "/of-the-leader"), (follower, "/of-a-follower")] {
        let mut owner = cluster.server(index).client(TIMEOUT_MS);
        owner.create(path, b"", 1).expect("an ephemeral");
    }
    cluster.kill(old);
    let mut reader = cluster.server(cluster.leader()).client(20_000);
    for path in ["/of-the-leader", "/of-a-follower"] {
        match reader.exists(path, true) {
            Ok(_) => {
                let event = reader.events.pop_front().or_else(|| reader.next());
                assert!(
                    matches!(&event, Some(Incoming::Event { kind: 2, path: gone, .. }) if gone == path),
                    "{event:?} in place of the end of {path}"
                );
            }
            Err(code) => assert_eq!(code, ErrorCode::NO_NODE.0),
        }
    }
}
