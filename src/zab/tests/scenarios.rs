//! The data-loss bugs that others shipped, each as a short story that must end well. The simulator (`tests/sim`)
//! searches for such stories; these are the ones that are known.

#![allow(missing_docs, reason = "a test")]

mod story;

use story::*;
use zkfast_wire::{Ensemble, Epoch, Packet, ServerId, Zxid, vote::ServerState};
use zkfast_zab::{Config, Effect, EpochFile, Event, LinkId, Node, Recovered, Service, Tail, Trouble};

/// G34; ZOOKEEPER-3911, 3023, 4646, 4785, 2678: the ACK of NEWLEADER precedes the disk.
/// ZOOKEEPER-4643: currentEpoch precedes the history.
#[test]
fn zookeeper_3911_and_4643_history_then_epoch_then_ack() {
    let mut story = Story::start(&[z(1, 1)], 1).follow(2);
    story.packet(Packet::Diff { zxid: z(1, 3) });
    story.history(z(1, 2));
    story.history(z(1, 3));
    assert_eq!(story.new_leader(2), [], "the history is not durable");
    assert_eq!(story.durable(z(1, 2)), [], "half of it is");
    assert_eq!(story.durable(z(1, 3)), [save_current(2)]);
    assert_eq!(story.saved(2), [ack(z(2, 0))]);
}

/// ZOOKEEPER-4685: the ACK of a proposal precedes that of NEWLEADER, and the leader gives up on its follower.
/// ZOOKEEPER-4394: a COMMIT right after the ACK of NEWLEADER finds no proposal.
/// ZOOKEEPER-4925: and what was received so is missing when it is handed on. Q32, Q56: what is acknowledged, and when.
#[test]
fn zookeeper_4685_4394_and_4925_proposals_between_newleader_and_uptodate() {
    let mut story = Story::start(&[z(1, 1)], 1).follow(2);
    story.packet(Packet::Diff { zxid: z(1, 1) });
    story.packet(Packet::Proposal { zxid: z(2, 1), record: record() });
    story.new_leader(2);
    story.packet(Packet::Proposal { zxid: z(2, 2), record: record() });
    assert_eq!(story.durable(z(2, 2)), [save_current(2)], "no proposal is acknowledged yet");
    assert_eq!(story.saved(2), [ack(z(2, 0))]);
    assert_eq!(story.packet(Packet::Commit { zxid: z(2, 1) }), [Effect::Replay { through: z(2, 1) }]);
    let effects = story.packet(Packet::UpToDate).to_vec();
    let expected = [
        ack(z(2, 0)),
        Effect::Commit { through: z(2, 1) },
        Effect::Serve { service: Service::Following, epoch: Epoch(2) },
        Effect::SendAcks { link: LINK, first: z(2, 2), last: z(2, 2) },
    ];
    assert_eq!(effects, expected);
    assert_eq!(story.node.appended(), z(2, 2), "nothing is missing in what this server may hand on");
}

/// Row Q50: a leader of Apache's uses up zxids without a proposal, in its history and while it serves. Danger: the
/// server leaves the ensemble each time, or acknowledges what nobody proposed. What goes back is refused.
#[test]
fn zxids_that_a_leader_left_out_are_followed_and_not_acknowledged() {
    let mut story = Story::start(&[z(1, 1)], 1).follow(2);
    story.packet(Packet::Diff { zxid: z(1, 5) });
    story.history(z(1, 3));
    story.history(z(1, 5));
    story.new_leader(2);
    assert_eq!(story.durable(z(1, 5)), [save_current(2)]);
    assert_eq!(story.saved(2), [ack(z(2, 0))]);
    story.packet(Packet::UpToDate);
    for counter in [2, 3, 5] {
        story.packet(Packet::Proposal { zxid: z(2, counter), record: record() });
    }
    let acks = |first, last| Effect::SendAcks { link: LINK, first: z(2, first), last: z(2, last) };
    assert_eq!(story.durable(z(2, 5)), [acks(2, 3), acks(5, 5)]);
    for counter in [2, 3, 5] {
        let through = z(2, counter);
        assert_eq!(story.packet(Packet::Commit { zxid: through }), [Effect::Commit { through }]);
    }
    story.packet(Packet::Proposal { zxid: z(2, 4), record: record() });
    assert!(story.asks(&Effect::Close { link: LINK, because: Trouble::Gap }));
    assert_eq!(story.node.appended(), z(2, 5));
}

/// ZOOKEEPER-4925: a COMMIT for what was never proposed. Who sees that closes the link.
#[test]
fn zookeeper_4925_a_commit_without_its_proposal_closes_the_link() {
    let mut story = Story::start(&[z(1, 1)], 1).follow(2);
    story.packet(Packet::Diff { zxid: z(1, 3) });
    story.packet(Packet::Proposal { zxid: z(1, 3), record: record() });
    story.packet(Packet::Commit { zxid: z(1, 2) });
    assert!(story.asks(&Effect::Close { link: LINK, because: Trouble::Gap }));
    assert!(story.looks());
}

/// Q33, ZOOKEEPER-4925. Danger: a follower that serves is told of a later commit first, and takes the ones before it for
/// committed; or its leader skips one, and nobody ever knows.
#[test]
fn zookeeper_4925_a_commit_out_of_order_closes_the_link_of_a_follower_that_serves() {
    for wrong in [z(2, 2), z(2, 4), z(1, 1)] {
        let mut story = Story::start(&[z(1, 1)], 1).follow(2);
        story.packet(Packet::Diff { zxid: z(1, 1) });
        story.new_leader(2);
        story.saved(2);
        story.packet(Packet::UpToDate);
        for counter in 1..=3 {
            story.packet(Packet::Proposal { zxid: z(2, counter), record: record() });
        }
        story.durable(z(2, 3));
        story.packet(Packet::Commit { zxid: wrong });
        assert!(story.asks(&Effect::Close { link: LINK, because: Trouble::Gap }), "{wrong}");
        assert!(story.looks() && story.node.committed() == z(1, 1), "{wrong}");
    }
}

/// ZOOKEEPER-2845, 1549: a transaction that was never committed survives in memory, log or snapshot.
#[test]
fn zookeeper_2845_and_1549_an_uncommitted_tail_is_cut() {
    let mut story = Story::start(&[z(1, 1), z(1, 2)], 1).follow(2);
    assert_eq!(story.node.committed(), Zxid::ZERO, "what was recovered is not known to be committed");
    assert_eq!(story.packet(Packet::Trunc { zxid: z(1, 1) }), [Effect::Truncate { zxid: z(1, 1) }]);
    story.on(Event::Truncated { zxid: z(1, 1) });
    assert_eq!(story.node.appended(), z(1, 1));
    assert_eq!(story.new_leader(2), [save_current(2)]);
}

/// ZOOKEEPER-1549: what must go is in a snapshot alone. The server asks for an image, and claims more than it has, so
/// that its promise counts (`waits`).
#[test]
fn zookeeper_1549_a_cut_below_the_snapshot_asks_for_an_image() {
    let mut story = Story::start(&[], 1).follow(2);
    story.packet(Packet::Snap { zxid: z(1, 9) });
    story.on(Event::Installed { zxid: z(1, 9) });
    story.on(Event::Down { link: LINK });
    let mut story = story.follow(3);
    story.packet(Packet::Trunc { zxid: z(1, 7) });
    assert!(story.asks(&Effect::Close { link: LINK, because: Trouble::CutBelowSnapshot }));
    assert_eq!(story.node.appended(), z(1, 9), "nothing is thrown away before the image is there");
    let story = story.follow(4);
    let packet = Packet::AckEpoch { last: z(4, 0), current_epoch: Some(Epoch(1)) };
    assert!(story.asks(&Effect::Send { link: LINK, packet }));
}

/// ZOOKEEPER-4712: a flush that began before a cut vouches for what came after it.
#[test]
fn zookeeper_4712_a_late_completion_is_no_news() {
    let mut story = Story::start(&[z(1, 1)], 1).follow(2);
    story.packet(Packet::Diff { zxid: z(1, 3) });
    story.history(z(1, 2));
    story.history(z(1, 3));
    story.on(Event::Down { link: LINK });
    let mut story = story.follow(3);
    story.packet(Packet::Trunc { zxid: z(1, 2) });
    story.on(Event::Truncated { zxid: z(1, 2) });
    story.packet(Packet::Proposal { zxid: z(2, 1), record: record() });
    assert_eq!(story.new_leader(3), []);
    assert_eq!(story.durable(z(1, 3)), [], "a flush of what was cut off");
    assert_eq!(story.durable(z(2, 1)), [save_current(3)]);
}

/// ZOOKEEPER-1154, 1156: TRUNC to a transaction that this log never had takes away too much, or too little.
#[test]
fn zookeeper_1154_a_cut_outside_the_history_is_refused() {
    let mut story = Story::start(&[z(1, 1), z(3, 1)], 3).follow(4);
    story.packet(Packet::Trunc { zxid: z(1, 2) });
    assert!(story.asks(&Effect::Close { link: LINK, because: Trouble::CutOutsideHistory }));
    assert_eq!(story.node.appended(), z(3, 1));
}

/// ZOOKEEPER-2872, 3642: an image that was interrupted leaves a tree that is neither the old nor the new one.
#[test]
fn zookeeper_2872_half_an_image_is_no_image() {
    let mut story = Story::start(&[z(1, 1)], 1).follow(2);
    let install = Effect::Install { link: LINK, zxid: z(1, 9) };
    assert_eq!(story.packet(Packet::Snap { zxid: z(1, 9) }), [install]);
    story.on(Event::Down { link: LINK });
    assert!(story.looks());
    assert_eq!(story.node.appended(), z(1, 1), "it still stands for what it had");
}

/// ZOOKEEPER-1653, 2307: a crash between two files leaves a server that refuses to start.
#[test]
fn zookeeper_1653_every_order_of_epoch_files_can_be_started_from() {
    let epochs = |last: Zxid, accepted: Option<i64>, current: Option<i64>| {
        let tail = Tail::recovered(last);
        Recovered { tail, accepted_epoch: accepted.map(Epoch), current_epoch: current.map(Epoch) }.epochs()
    };
    assert_eq!(epochs(z(3, 5), None, None), (Epoch(3), Epoch(3)));
    assert_eq!(epochs(z(3, 5), Some(5), Some(4)), (Epoch(5), Epoch(4)));
    assert_eq!(epochs(z(3, 5), Some(3), Some(2)), (Epoch(3), Epoch(3)), "the history of 3 is here");
    assert_eq!(
        epochs(z(3, 5), Some(2), Some(3)),
        (Epoch(3), Epoch(3)),
        "a history is accepted before it is held"
    );
}

/// ZOOKEEPER-582: a server goes on in an epoch older than its snapshot's.
#[test]
fn zookeeper_582_the_log_never_goes_back_to_an_older_epoch() {
    let mut story = Story::start(&[], 4).follow(5);
    story.packet(Packet::Snap { zxid: z(4, 9) });
    story.on(Event::Installed { zxid: z(4, 9) });
    story.packet(Packet::Proposal { zxid: z(3, 1), record: record() });
    // What a snapshot shows already is passed over, as an Apache leader may repeat it.
    assert_eq!(story.effects, []);
    assert_eq!(story.node.appended(), z(4, 9));
    story.packet(Packet::Proposal { zxid: z(4, 10), record: record() });
    story.packet(Packet::Proposal { zxid: z(4, 10), record: record() });
    assert!(story.asks(&Effect::Close { link: LINK, because: Trouble::Gap }));
}

// The leader's side

/// ZOOKEEPER-1319: a leader vouches for a history that it did not log itself. ZOOKEEPER-3104: NEWLEADER overtakes it.
#[test]
fn zookeeper_1319_and_3104_the_leader_logs_first_and_newleader_comes_last() {
    let mut story = elected(&[z(1, 1), z(1, 2)], 1);
    greet(&mut story, LINK, 1, 1);
    let save = Effect::SaveEpoch { file: EpochFile::Accepted, epoch: Epoch(2) };
    assert_eq!(story.effects, [save], "LEADERINFO waits for the disk");
    story.on(Event::EpochSaved { file: EpochFile::Accepted, epoch: Epoch(2) });
    promise(&mut story, LINK, z(0, 0), 0);
    assert!(story.asks(&save_current(2)));
    let sent: Vec<_> = story
        .effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Send { .. } | Effect::SendHistory { .. }))
        .collect();
    assert!(
        matches!(
            sent[..],
            [
                Effect::Send { packet: Packet::Diff { .. }, .. },
                Effect::SendHistory { .. },
                Effect::Send { packet: Packet::NewLeader { .. }, .. }
            ]
        ),
        "{sent:?}"
    );
    // The follower is faster than the own disk: the reign does not stand before currentEpoch is saved.
    story.packet(Packet::Ack { zxid: z(2, 0) });
    assert_eq!(story.effects, []);
    assert_eq!(story.node.next_zxid(), None);
    story.saved(2);
    assert!(story.asks(&Effect::Commit { through: z(1, 2) }));
    assert_eq!(story.node.next_zxid(), Some(z(2, 1)));
}

/// ZOOKEEPER-4685: Apache's followers acknowledge each record that came before NEWLEADER, before or after NEWLEADER itself.
/// A leader that closes their links for it elects itself again and again.
#[test]
fn zookeeper_4685_a_follower_that_acknowledges_the_history_record_by_record_is_led() {
    let mut story = elected(&[z(1, 1), z(1, 2)], 1);
    greet(&mut story, LINK, 1, 1);
    story.on(Event::EpochSaved { file: EpochFile::Accepted, epoch: Epoch(2) });
    promise(&mut story, LINK, z(0, 0), 0);
    story.saved(2);
    assert_eq!(story.packet(Packet::Ack { zxid: z(1, 1) }), [], "it counts with NEWLEADER alone");
    assert_eq!(story.node.next_zxid(), None);
    story.packet(Packet::Ack { zxid: z(2, 0) });
    assert!(story.asks(&Effect::Commit { through: z(1, 2) }));
    assert_eq!(story.packet(Packet::Ack { zxid: z(1, 2) }), []);
    assert_eq!(story.packet(Packet::Ack { zxid: z(2, 0) }), []);

    // A proposal of this reign that another follower finds outstanding when it joins is acknowledged only once.
    story.on(Event::Submit { zxid: z(2, 1), record: record() });
    story.durable(z(2, 1));
    assert_eq!(story.node.committed(), z(1, 2), "one of three has it");
    let late = LinkId(LINK.0 + 1);
    greet(&mut story, late, 3, 1);
    promise(&mut story, late, z(1, 2), 1);
    story.on(Event::Packet { link: late, packet: Packet::Ack { zxid: z(2, 1) } });
    assert_eq!(story.effects, [], "it counts once NEWLEADER is acknowledged");
    story.on(Event::Packet { link: late, packet: Packet::Ack { zxid: z(2, 0) } });
    assert!(story.asks(&Effect::Commit { through: z(2, 1) }), "{:?}", story.effects);
}

/// Danger: SYNC comes behind the commit of a request that was sent after it. Apache's `CommitProcessor` has the learner's
/// requests in one queue, syncs among them: it takes that commit for somebody else's, and answers no write ever after.
#[test]
fn a_sync_is_answered_between_the_commits_where_it_was_asked() {
    let mut story = established();
    let sync = Effect::Send { link: LINK, packet: Packet::Sync };
    let commits = |first, last| Effect::SendCommits { link: LINK, first: z(2, first), last: z(2, last) };
    assert_eq!(story.on(Event::Sync { link: LINK }), std::slice::from_ref(&sync), "nothing is under way");
    for counter in 1..=5 {
        story.on(Event::Submit { zxid: z(2, counter), record: record() });
        if counter == 2 || counter == 4 {
            assert_eq!(story.on(Event::Sync { link: LINK }), []);
            assert_eq!(story.on(Event::Sync { link: LINK }), []);
        }
    }
    story.durable(z(2, 5));
    story.packet(Packet::Ack { zxid: z(2, 5) });
    let through = Effect::Commit { through: z(2, 5) };
    let expected = [
        commits(1, 2),
        sync.clone(),
        sync.clone(),
        commits(3, 4),
        sync.clone(),
        sync,
        commits(5, 5),
        through,
    ];
    assert_eq!(story.effects, expected);
}

/// A follower that is ahead holds what may be committed; to lead it would be to cut it off.
#[test]
fn a_follower_that_is_ahead_is_not_led() {
    let mut story = elected(&[z(1, 1)], 1);
    greet(&mut story, LINK, 1, 1);
    story.on(Event::EpochSaved { file: EpochFile::Accepted, epoch: Epoch(2) });
    promise(&mut story, LINK, z(1, 2), 1);
    assert!(story.asks(&Effect::Close { link: LINK, because: Trouble::FollowerAhead }));
}

/// ZOOKEEPER-1277: the counter wraps into the epoch.
#[test]
fn zookeeper_1277_the_leader_steps_down_before_the_counter_wraps() {
    let text = "server.2=b:1:2\nserver.9=o:1:2:observer";
    let config = Config { first_counter: u32::MAX - 1, ..Config::new(ME, Ensemble::parse(text).unwrap()) };
    let recovered = Recovered { tail: Tail::recovered(z(1, 5)), accepted_epoch: None, current_epoch: None };
    let mut effects = Vec::new();
    let mut node = Node::member(config, recovered, 0, &mut effects).unwrap();
    node.step(1, Event::EpochSaved { file: EpochFile::Accepted, epoch: Epoch(2) }, &mut effects);
    node.step(1, Event::EpochSaved { file: EpochFile::Current, epoch: Epoch(2) }, &mut effects);
    let last = z(2, u32::MAX - 1);
    assert_eq!(node.next_zxid(), Some(last), "a single voter needs nobody else");
    node.step(1, Event::Submit { zxid: last, record: record() }, &mut effects);
    assert_eq!(node.next_zxid(), None);
    effects.clear();
    node.step(1, Event::Durable { epoch: Epoch(2), zxid: last }, &mut effects);
    assert_eq!(effects[0], Effect::Commit { through: last });
    assert!(effects.contains(&Effect::Suspend) && !effects.contains(&Effect::StopServing));
    assert!(effects.contains(&Effect::Look { because: Trouble::Rollover }));
    assert!(effects.contains(&Effect::SaveEpoch { file: EpochFile::Accepted, epoch: Epoch(3) }));
}

/// S25. Danger: the link broke near the end of the counter, but the epoch goes on: what the leader was asked over the old
/// link may be ordered yet, and is asked once more, and done twice.
#[test]
fn clients_wait_for_a_new_epoch_and_not_for_the_same_one_again() {
    let last = z(2, u32::MAX - 9);
    for epoch in [2, 3] {
        let mut story = Story::start(&[z(1, 1)], 1).follow(2);
        story.packet(Packet::Diff { zxid: last });
        story.history(last);
        story.new_leader(2);
        story.durable(last);
        story.saved(2);
        story.packet(Packet::UpToDate);
        assert!(story.asks(&Effect::Serve { service: Service::Following, epoch: Epoch(2) }));
        assert!(!story.asks(&Effect::StopServing));
        story.on(Event::Down { link: LINK });
        assert!(story.asks(&Effect::Suspend));

        story.hears(ServerId(1), OTHER, last, ServerState::Following);
        story.hears(OTHER, OTHER, last, ServerState::Leading);
        story.on(Event::Up { link: LINK, dialled: Some(OTHER) });
        story.packet(Packet::LeaderInfo { epoch: Epoch(epoch), protocol_version: 0x10000 });
        story.on(Event::EpochSaved { file: EpochFile::Accepted, epoch: Epoch(epoch) });
        story.packet(Packet::Diff { zxid: last });
        story.new_leader(epoch);
        story.saved(epoch);
        story.packet(Packet::UpToDate);
        let served = story.effects.iter().position(|effect| matches!(effect, Effect::Serve { .. }));
        let told = story.effects.iter().position(|effect| *effect == Effect::StopServing);
        assert_eq!(told.is_some(), epoch == 2, "{:?}", story.effects);
        assert!(told < served, "{:?}", story.effects);
    }
}
