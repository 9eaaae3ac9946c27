//! Election connections: who keeps which, what is said again, and what a stranger can do.

use crate::fixture::{Host, ensemble, options, run, vote};
use zkfast_wire::ServerId;
use zkfast_zab::Event;

/// Danger: two servers dial each other at the same moment and give up each other's connection for ever.
#[test]
fn all_of_five_hear_all_others() {
    let ensemble = ensemble(5);
    let mut hosts: Vec<Host> = (1..=5).map(|id| Host::open(options(&ensemble, id))).collect();
    for host in &mut hosts {
        for to in 1..=5 {
            host.links.notify(ServerId(to), vote(host.id.0, 1));
        }
    }
    let mut all: Vec<&mut Host> = hosts.iter_mut().collect();
    run(&mut all, "a vote of each with each", |hosts| {
        hosts.iter().all(|host| (1..=5).all(|from| host.votes().any(|(id, _)| id == ServerId(from))))
    });
    for host in &hosts {
        let figures = host.links.figures();
        assert!(figures.peers.iter().all(|peer| peer.up_ms.is_some()), "{figures:?}");
        assert!(
            !host.events.iter().any(|event| matches!(event, Event::PeerDown { .. })),
            "{:?}",
            host.events
        );
    }
}
