//! Two of three must come to a quorum, whatever the third left them with: two whole servers with instant links between them.

#![allow(missing_docs, reason = "a test")]

mod story;

use std::collections::VecDeque;
use story::*;
use zkfast_wire::{Ensemble, Epoch, Notification, Packet, ServerId, Zxid, vote::ServerState};
use zkfast_zab::{Config, Effect, EpochFile, Event, LinkId, Node, Recovered, Role, Tail, Trouble};

const TEXT: &str = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\nversion=0";

/// A server with this history, all of it in a snapshot.
fn member(me: ServerId, last: Zxid, accepted: i64, current: i64) -> Node {
    let tail = Tail::recovered(last);
    let recovered =
        Recovered { tail, accepted_epoch: Some(Epoch(accepted)), current_epoch: Some(Epoch(current)) };
    Node::member(Config::new(me, Ensemble::parse(TEXT).unwrap()), recovered, 0, &mut Vec::new()).unwrap()
}

/// The elections that servers 2 and 3 need until one of them leads the other, while server 1 is dead: as epochs that 3 has
/// accepted meanwhile. `None` if nobody does within 200 s.
fn epochs_until_served(follower: Node, leader: Node, now_ms: u64) -> Option<u32> {
    let ids = [ME, OTHER];
    let mut nodes = [follower, leader];
    let mut queue = VecDeque::from([(0, Event::PeerUp { peer: OTHER }), (1, Event::PeerUp { peer: ME })]);
    let (mut links, mut epochs) = (100_u64, 0);
    for step in 1..=2000 {
        queue.extend([(0, Event::Tick), (1, Event::Tick)]);
        while let Some((at, event)) = queue.pop_front() {
            let mut effects = Vec::new();
            nodes[at].step(now_ms + 100 * step, event, &mut effects);
            let other = 1 - at;
            for effect in effects {
                match effect {
                    Effect::Notify { to, notification } if to == ids[other] => {
                        queue.push_back((other, Event::Notification { from: ids[at], notification }));
                    }
                    Effect::Dial { leader } if leader == ids[other] => {
                        links += 1;
                        let link = LinkId(links);
                        queue.push_back((other, Event::Up { link, dialled: None }));
                        queue.push_back((at, Event::Up { link, dialled: Some(leader) }));
                    }
                    Effect::Send { link, packet } => queue.push_back((other, Event::Packet { link, packet })),
                    Effect::Close { link, .. } => queue.push_back((other, Event::Down { link })),
                    Effect::SaveEpoch { file, epoch } => {
                        epochs += u32::from(file == EpochFile::Accepted && at == 1);
                        queue.push_back((at, Event::EpochSaved { file, epoch }));
                    }
                    Effect::SendHistory { link, through, .. } => {
                        queue.push_back((at, Event::Transferred { link, through }));
                    }
                    Effect::SendSnapshot { link, zxid } => {
                        queue.push_back((other, Event::Packet { link, packet: Packet::Snap { zxid } }));
                        queue.push_back((at, Event::Transferred { link, through: zxid }));
                    }
                    Effect::Install { zxid, .. } => queue.push_back((at, Event::Installed { zxid })),
                    _ => {}
                }
            }
        }
        if nodes.iter().any(|node| matches!(node.role(), Role::Leading { established: true, .. })) {
            return Some(epochs);
        }
    }
    None
}

/// This server with 1:5 in a snapshot alone, whom the leader of epoch 2 told to cut behind 1:3, and who looks again.
fn in_need() -> Story {
    let mut story = Story::start(&[z(1, 1)], 1);
    story.node = member(ME, z(1, 5), 1, 1);
    let mut story = story.follow(2);
    story.packet(Packet::Trunc { zxid: z(1, 3) });
    assert!(story.asks(&Effect::Close { link: LINK, because: Trouble::CutBelowSnapshot }));
    story
}

/// Danger: a server that needed an image goes on to claim more than it has after it has led itself; every leader that has
/// what it has refuses it.
#[test]
fn a_need_ends_with_a_reign_of_ones_own() {
    let mut story = in_need();
    story.now_ms += 2000;
    story.on(Event::PeerUp { peer: ServerId(1) });
    let notification = Notification {
        state: ServerState::Looking,
        leader: ME,
        zxid: z(1, 5),
        election_epoch: 3,
        peer_epoch: Epoch(1),
        version: 2,
        config: None,
    };
    story.on(Event::Notification { from: ServerId(1), notification });
    story.now_ms += 2000;
    story.on(Event::Tick);
    let link = LinkId(20);
    greet(&mut story, link, 1, 2);
    story.on(Event::EpochSaved { file: EpochFile::Accepted, epoch: Epoch(3) });
    promise(&mut story, link, z(1, 3), 1);
    story.saved(3);
    story.on(Event::Transferred { link, through: z(1, 5) });
    story.on(Event::Packet { link, packet: Packet::Ack { zxid: z(3, 0) } });
    assert!(matches!(story.node.role(), Role::Leading { established: true, .. }));
    story.on(Event::PeerDown { peer: ServerId(1) });
    story.now_ms += 12_000;
    story.on(Event::Tick);
    assert!(story.looks());
    let other = || member(OTHER, z(1, 5), 3, 3);
    assert_eq!(epochs_until_served(member(ME, z(1, 5), 3, 3), other(), 0), Some(1), "started anew");
    assert_eq!(epochs_until_served(story.node, other(), story.now_ms), Some(1));
}

/// Danger: the same where the leader that asked for the cut came to nothing, and one of the old epoch has more than this
/// server.
#[test]
fn a_need_ends_when_its_claim_is_refused() {
    let story = in_need();
    let other = || member(OTHER, z(1, 7), 1, 1);
    assert_eq!(epochs_until_served(member(ME, z(1, 5), 2, 1), other(), 0), Some(1), "started anew");
    assert_eq!(epochs_until_served(story.node, other(), story.now_ms + 3000), Some(2), "one is refused");
}
