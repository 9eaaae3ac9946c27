//! What is said when nothing goes wrong, packet by packet: by a server that looks, by a learner, and by a leader with a
//! follower and an observer.

#![allow(missing_docs, reason = "a test")]

mod story;

use bytes::Bytes;
use story::*;
use zkfast_wire::{
    Ensemble, Epoch, Notification, Packet, ServerId, SessionId, Zxid,
    quorum::{ForwardedRequest, LearnerInfo},
    vote::ServerState,
};
use zkfast_zab::{Config, Effect, EpochFile, Event, LinkId, Node, Recovered, Role, Service, Tail, Trouble};

const OBSERVER: ServerId = ServerId(9);

/// The configuration as it travels with votes and NEWLEADER.
const TEXT: &str =
    "server.1=a:1:2:participant\nserver.2=b:1:2:participant\nserver.3=c:1:2:participant\nversion=0";

fn notified(effects: &[Effect]) -> Vec<(i64, Notification)> {
    let told = effects.iter().filter_map(|effect| match effect {
        Effect::Notify { to, notification } => Some((to.0, notification.clone())),
        _ => None,
    });
    told.collect()
}

fn sent(story: &Story) -> Vec<Packet> {
    let sent = story.effects.iter().filter_map(|effect| match effect {
        Effect::Send { link: LINK, packet } => Some(packet.clone()),
        _ => None,
    });
    sent.collect()
}

/// Follows server 3 and serves, at z(1, 1).
fn following() -> Story {
    let mut story = Story::start(&[z(1, 1)], 1).follow(2);
    story.packet(Packet::Diff { zxid: z(1, 1) });
    story.new_leader(2);
    story.saved(2);
    story.packet(Packet::UpToDate);
    assert!(story.asks(&Effect::Serve { service: Service::Following, epoch: Epoch(2) }));
    story
}

/// Leads server 1, at z(1, 1).
fn leading() -> Story {
    let story = established();
    assert!(story.asks(&Effect::Serve { service: Service::Leading, epoch: Epoch(2) }));
    assert_eq!(sent(&story), [Packet::UpToDate]);
    story
}

fn info(server: ServerId, observer: bool, config_version: i64, accepted: i64) -> LearnerInfo {
    LearnerInfo {
        server: Some(server),
        protocol_version: 0x10000,
        config_version,
        observer,
        accepted_epoch: Epoch(accepted),
    }
}

/// Q20, Q21. Danger: a server stands for less than its log holds, or for more, and a history that was committed loses the
/// election; or somebody is not asked.
#[test]
fn a_round_opens_with_a_vote_for_the_whole_log() {
    let text = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\nserver.9=o:1:2:observer";
    let opened = |server: ServerId| {
        let tail = Tail::with_records(Zxid::ZERO, [z(2, 1), z(2, 2)]);
        let recovered = Recovered { tail, accepted_epoch: Some(Epoch(4)), current_epoch: Some(Epoch(3)) };
        let mut effects = Vec::new();
        let config = Config::new(server, Ensemble::parse(text).unwrap());
        Node::member(config, recovered, 0, &mut effects).unwrap();
        notified(&effects)
    };
    let vote = |leader, zxid, peer_epoch| Notification {
        state: ServerState::Looking,
        leader,
        zxid,
        election_epoch: 1,
        peer_epoch: Epoch(peer_epoch),
        version: 2,
        config: Some(Bytes::from(Ensemble::parse(text).unwrap().to_string())),
    };
    let own = vote(ME, z(2, 2), 3);
    assert_eq!(opened(ME), [(1, own.clone()), (3, own)]);
    let none = vote(ServerId(i64::MIN), Zxid(i64::MIN), i64::MIN);
    assert_eq!(opened(OBSERVER), [1, 2, 3].map(|voter| (voter, none.clone())));

    // The next round is the next number.
    let mut story = Story::start(&[z(1, 1)], 1).follow(2);
    story.on(Event::Down { link: LINK });
    let rounds: Vec<_> =
        notified(&story.effects).into_iter().map(|(to, vote)| (to, vote.election_epoch)).collect();
    assert_eq!(rounds, [(1, 2), (3, 2)]);
}

/// Q25, Q28. Danger: a server that comes late never hears of the reign that there is, or hears of the one before it
/// (ZOOKEEPER-1732), and looks for ever.
#[test]
fn who_looks_is_told_of_the_reign_that_there_is() {
    let told = |story: &mut Story, from: i64| {
        story.hears(ServerId(from), ServerId(from), z(1, 1), ServerState::Looking);
        let told = notified(&story.effects);
        let [(to, vote)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((*to, vote.election_epoch), (from, 1));
        assert_eq!(vote.config.as_deref(), Some(TEXT.as_bytes()));
        (vote.state, vote.leader, vote.peer_epoch)
    };
    let mut story = Story::start(&[z(1, 1)], 1).follow(2);
    assert_eq!(told(&mut story, 1), (ServerState::Following, OTHER, Epoch(1)), "it is not up to date yet");
    let mut story = following();
    for from in [1, OBSERVER.0] {
        assert_eq!(told(&mut story, from), (ServerState::Following, OTHER, Epoch(2)));
    }
    let mut story = leading();
    for from in [3, OBSERVER.0] {
        assert_eq!(told(&mut story, from), (ServerState::Leading, ME, Epoch(2)));
    }
}

/// Q40, Q47. Danger: a learner does not say what it accepted, and is led in an epoch that was promised to somebody else; or
/// is led by who knows an older configuration than its own.
#[test]
fn who_comes_says_what_it_accepted_and_decides_the_epoch() {
    let mut story = Story::start(&[z(1, 1)], 6);
    story.hears(ServerId(1), OTHER, z(1, 9), ServerState::Following);
    story.hears(OTHER, OTHER, z(1, 9), ServerState::Leading);
    story.on(Event::Up { link: LINK, dialled: Some(OTHER) });
    assert_eq!(sent(&story), [Packet::LearnerInfo(info(ME, false, 0, 6))]);

    let mut story = elected(&[z(1, 1)], 1);
    let newer = LinkId(8);
    story.on(Event::Up { link: newer, dialled: None });
    let packet = Packet::LearnerInfo(info(OTHER, false, 1, 1));
    story.on(Event::Packet { link: newer, packet });
    assert_eq!(story.effects, [Effect::Close { link: newer, because: Trouble::ConfigAhead }]);
    greet(&mut story, LINK, 1, 6);
    let saved = |file| Event::EpochSaved { file, epoch: Epoch(7) };
    assert_eq!(story.effects, [Effect::SaveEpoch { file: EpochFile::Accepted, epoch: Epoch(7) }]);
    story.on(saved(EpochFile::Accepted));
    assert_eq!(sent(&story), [Packet::LeaderInfo { epoch: Epoch(7), protocol_version: 0x10000 }]);
}

/// Q39, Q42, Q43. Danger: what the leader says that it will send is not what the learner lacks.
#[test]
fn a_learner_is_told_what_it_is_sent() {
    let config = Some(Bytes::from_static(TEXT.as_bytes()));
    let new_leader = Packet::NewLeader { epoch: Epoch(4), config };
    let end = z(3, 2);
    let history = |after| Effect::SendHistory { link: LINK, after, through: end, committed: end };
    let diff = Packet::Diff { zxid: end };
    for (last, packets, other) in [
        (end, vec![diff.clone(), new_leader.clone()], None),
        (z(1, 1), vec![diff, new_leader.clone()], Some(history(z(1, 1)))),
        (z(3, 9), vec![Packet::Trunc { zxid: end }, new_leader], None),
        (z(2, 1), Vec::new(), Some(Effect::SendSnapshot { link: LINK, zxid: end })),
    ] {
        let mut story = elected(&[z(1, 1), z(3, 1), end], 3);
        greet(&mut story, LINK, 1, 1);
        story.on(Event::EpochSaved { file: EpochFile::Accepted, epoch: Epoch(4) });
        promise(&mut story, LINK, last, 0);
        assert_eq!(sent(&story), packets, "{last}");
        let transfers: Vec<_> = story
            .effects
            .iter()
            .filter(|effect| matches!(effect, Effect::SendHistory { .. } | Effect::SendSnapshot { .. }))
            .cloned()
            .collect();
        assert_eq!(transfers, Vec::from_iter(other), "{last}");
    }
}

/// Q31, Q37, Q57. Danger: something is committed that a quorum has not on its disks, or out of order; an observer is asked,
/// or counted, or not told.
#[test]
fn what_a_quorum_has_on_its_disks_is_committed_in_order() {
    let mut story = leading();
    let observer = LinkId(9);
    story.on(Event::Up { link: observer, dialled: None });
    let packet = Packet::LearnerInfo(info(OBSERVER, true, 0, 1));
    story.on(Event::Packet { link: observer, packet });
    promise(&mut story, observer, z(1, 1), 1);
    story.on(Event::Packet { link: observer, packet: Packet::Ack { zxid: z(2, 0) } });
    assert!(story.asks(&Effect::Send { link: observer, packet: Packet::UpToDate }));

    for counter in 1..=3 {
        let zxid = z(2, counter);
        assert_eq!(story.node.next_zxid(), Some(zxid));
        let proposal = Packet::Proposal { zxid, record: record() };
        let expected =
            [Effect::Send { link: LINK, packet: proposal }, Effect::Append { zxid, record: record() }];
        assert_eq!(story.on(Event::Submit { zxid, record: record() }), expected);
    }
    let told = |first, last| {
        let (first, last) = (z(2, first), z(2, last));
        [
            Effect::SendCommits { link: LINK, first, last },
            Effect::SendInforms { link: observer, first, last },
            Effect::Commit { through: last },
        ]
    };
    assert_eq!(story.packet(Packet::Ack { zxid: z(2, 1) }), [], "one disk of three, and not the own one");
    assert_eq!(story.durable(z(2, 2)), told(1, 1));
    assert_eq!(
        story.on(Event::Packet { link: observer, packet: Packet::Ping { zxid: z(2, 3), touched: None } }),
        []
    );
    assert_eq!(story.packet(Packet::Ack { zxid: z(2, 3) }), told(2, 2));
    assert_eq!(story.durable(z(2, 3)), told(3, 3));
}

/// Q34. Danger: learners are taken for dead between two words, or the sessions that a learner tells of are lost.
#[test]
fn a_leader_pings_each_half_tick_and_is_answered() {
    let mut story = leading();
    story.on(Event::Submit { zxid: z(2, 1), record: record() });
    let ping = Packet::Ping { zxid: z(2, 1), touched: None };
    let mut pings = Vec::new();
    for _ in 0..5_000 {
        story.on(Event::Tick);
        if sent(&story) == [ping.clone()] {
            pings.push(story.now_ms);
        }
    }
    assert!(pings.len() >= 4 && pings.windows(2).all(|pair| pair[1] - pair[0] == 1_000), "{pings:?}");
    let data = Bytes::from_static(&[7; 24]);
    let answer = Packet::Ping { zxid: z(2, 1), touched: Some(data.clone()) };
    assert_eq!(story.packet(answer), [Effect::Touched { link: LINK, data }]);

    let mut story = following();
    let ping = Packet::Ping { zxid: z(2, 5), touched: None };
    assert_eq!(story.packet(ping), [Effect::AnswerPing { link: LINK, zxid: z(2, 5) }]);
}

/// Q30, Q35, Q36. Danger: what the clients of a learner ask does not come to the leader, or its answer does not come back.
#[test]
fn what_clients_of_a_learner_ask_goes_to_the_leader_and_back() {
    let (session, timeout_ms) = (SessionId(5), 4_000);
    let request = Box::new(ForwardedRequest {
        session,
        cxid: 6,
        op: 1,
        body: Bytes::from_static(b"body"),
        identities: Vec::new(),
    });
    let send = |packet| [Effect::Send { link: LINK, packet }];
    let ask = Packet::RevalidateAsk { session, timeout_ms };
    let answer = Packet::RevalidateAnswer { session, valid: true };

    let mut story = following();
    let forward = || Event::Forward { request: request.clone() };
    assert_eq!(story.on(forward()), send(Packet::Request(request.clone())));
    assert_eq!(story.on(Event::Revalidate { session, timeout_ms }), send(ask.clone()));
    assert_eq!(story.packet(answer.clone()), [Effect::Revalidated { session, valid: true }]);
    assert_eq!(story.packet(Packet::Sync), [Effect::SyncDone]);
    story.on(Event::Down { link: LINK });
    assert!(story.node.role() == Role::Looking);
    assert_eq!(story.on(forward()), [], "there is nobody to ask");

    let mut story = leading();
    let asked = Effect::Request { link: LINK, request: request.clone() };
    assert_eq!(story.packet(Packet::Request(request.clone())), [asked]);
    assert_eq!(story.packet(ask), [Effect::RevalidateAsked { link: LINK, session, timeout_ms }]);
    assert_eq!(story.on(Event::RevalidateAnswer { link: LINK, session, valid: true }), send(answer));
    assert_eq!(story.on(Event::Sync { link: LINK }), send(Packet::Sync));
}

/// Q78. Danger: hundreds of observers that come back at once take disk and processor from the leader, which is deposed for
/// that, and they all come back to the next one. A voter is waited for by others, and never refused.
#[test]
fn so_many_observers_are_brought_up_to_date_at_once() {
    let mut story = leading();
    let come = |story: &mut Story, link: u64, last: Zxid| {
        let link = LinkId(link);
        story.on(Event::Up { link, dialled: None });
        let is_voter = link == LinkId(1000);
        let server = if is_voter { OTHER } else { ServerId(100 + link.0 as i64) };
        story.on(Event::Packet { link, packet: Packet::LearnerInfo(info(server, !is_voter, 0, 1)) });
        promise(story, link, last, 1);
        let is_refused = story.asks(&Effect::Close { link, because: Trouble::TooManyTransfers });
        let is_sent = story.asks(&Effect::SendSnapshot { link, zxid: z(1, 1) });
        assert!(!(is_refused && is_sent));
        (is_refused, is_sent)
    };
    let nothing = Zxid(-1);
    for link in 10..20 {
        assert_eq!(come(&mut story, link, nothing), (false, true), "{link}");
    }
    assert_eq!(come(&mut story, 20, nothing), (true, false));
    assert_eq!(come(&mut story, 21, z(1, 1)), (false, false), "one that lacks nothing takes nothing");
    assert_eq!(come(&mut story, 1000, nothing), (false, true), "a voter");
    story.on(Event::Transferred { link: LinkId(10), through: z(1, 1) });
    story.on(Event::Down { link: LinkId(11) });
    assert_eq!(come(&mut story, 22, nothing), (false, true));
    assert_eq!(come(&mut story, 23, nothing), (true, false));
}
