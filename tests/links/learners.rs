//! Learner connections between two of us: packets both ways, transfers, images, bounds.

use crate::fixture::{Host, ensemble, options, run};
use bytes::Bytes;
use zkfast_wire::{Epoch, Packet, ServerId, Zxid, quorum::LearnerInfo};
use zkfast_zab::{Event, LinkId};

/// A leader (server 2) and a learner (server 1) that has dialled it; the links of both.
fn connected() -> (Host, LinkId, Host, LinkId) {
    let ensemble = ensemble(2);
    let (mut learner, mut leader) = (Host::open(options(&ensemble, 1)), Host::open(options(&ensemble, 2)));
    learner.links.dial(ServerId(2));
    run(&mut [&mut learner, &mut leader], "a learner link", |hosts| {
        hosts.iter().all(|host| host.link().is_some())
    });
    let (up, down) = (learner.link().expect("up"), leader.link().expect("up"));
    assert!(learner.has(&Event::Up { link: up, dialled: Some(ServerId(2)) }));
    assert!(leader.has(&Event::Up { link: down, dialled: None }));
    (leader, down, learner, up)
}

/// Danger: packets are lost, reordered or torn between small ones that are copied and large ones that are not.
#[test]
fn packets_of_all_sizes_arrive_in_order() {
    let (mut leader, down, mut learner, up) = connected();
    let info = LearnerInfo {
        server: Some(ServerId(1)),
        protocol_version: 0x10000,
        config_version: 0,
        observer: false,
        accepted_epoch: Epoch(0),
    };
    learner.links.send(up, &Packet::LearnerInfo(info));
    let mut expected = Vec::new();
    for (counter, bytes) in (1_u32..).zip([0, 1, 1023, 1024, 1025, 70_000, 3 << 20, 5]) {
        let (zxid, record) = (Zxid::new(Epoch(1), counter), Bytes::from(vec![counter as u8; bytes]));
        leader.links.send_proposal(down, zxid, &record);
        leader.links.send_commits(down, zxid, zxid);
        expected.extend([Packet::Proposal { zxid, record }, Packet::Commit { zxid }]);
    }
    leader.links.mark_transferred(down, Zxid(9));
    learner.links.send_acks(up, Zxid(1), Zxid(1000));
    run(&mut [&mut learner, &mut leader], "all packets", |hosts| {
        hosts[0].packets().count() == expected.len() && hosts[1].packets().count() == 1001
    });
    assert!(learner.packets().eq(&expected));
    assert!(
        leader.packets().skip(1).eq(&(1..=1000).map(|at| Packet::Ack { zxid: Zxid(at) }).collect::<Vec<_>>())
    );
    assert!(leader.has(&Event::Transferred { link: down, through: Zxid(9) }));
    let figures = leader.links.figures();
    assert_eq!((figures.links[0].server, figures.links[0].queued_bytes), (Some(ServerId(1)), 0));
    assert_eq!(figures.links[0].queued_packets, 0);
}
