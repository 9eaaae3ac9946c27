//! What ends a wait, and with whom a server does not go on: silence, lag, refusals, names that are taken. Ticks are of 2 s,
//! initLimit is 10 and syncLimit 5.

#![allow(missing_docs, reason = "a test")]

mod story;

use story::*;
use zkfast_wire::{Ensemble, Epoch, Packet, ServerId, Zxid, vote::ServerState};
use zkfast_zab::{Config, Effect, EpochFile, Event, LinkId, Node, Recovered, Role, Service, Tail, Trouble};

impl Story {
    /// The longest time after which nothing is given up yet, in ticks of the server; `None` if it is never given up.
    fn patience_ticks(&mut self, given_up: impl Fn(&[Effect]) -> bool) -> Option<u64> {
        let begun_ms = self.now_ms;
        for _ in 0..400 {
            self.now_ms += 99;
            self.on(Event::Tick);
            if given_up(&self.effects) {
                return Some((self.now_ms - begun_ms) / 2000);
            }
        }
        None
    }
}

/// Another server of three that found its leader, with an accepted epoch of 9, though the leader's is 8.
fn refuses(observer: bool) -> Story {
    let role = if observer { ":observer" } else { "" };
    let text = format!("server.1=a:1:2\nserver.2=b:1:2{role}\nserver.3=c:1:2\nserver.4=d:1:2\nversion=0");
    let config = Config::new(ME, Ensemble::parse(&text).unwrap());
    let tail = Tail::with_records(Zxid::ZERO, [z(7, 1)]);
    let recovered = Recovered { tail, accepted_epoch: Some(Epoch(9)), current_epoch: Some(Epoch(7)) };
    let mut effects = Vec::new();
    let node = Node::member(config, recovered, 0, &mut effects).unwrap();
    Story { node, effects, now_ms: 0 }
}

/// Danger: a server that cannot follow the leader that there is finds it again as soon as it asks, and both do nothing
/// else: thousands of elections a second, a line in the log for each.
#[test]
fn who_refuses_its_leader_asks_again_after_a_pause() {
    let mut story = refuses(false);
    let (mut dials, mut notified) = (Vec::new(), true);
    while story.now_ms < 20_000 {
        // Everybody answers at once.
        if std::mem::take(&mut notified) && story.looks() {
            for from in [1, 4, 3] {
                let state = if from == 3 { ServerState::Leading } else { ServerState::Following };
                story.hears(ServerId(from), OTHER, z(7, 1), state);
            }
        }
        if !story.looks() && story.effects.contains(&Effect::Dial { leader: OTHER }) {
            dials.push(story.now_ms);
            story.on(Event::Up { link: LINK, dialled: Some(OTHER) });
            story.packet(Packet::LeaderInfo { epoch: Epoch(8), protocol_version: 0x10000 });
            assert!(story.asks(&Effect::Close { link: LINK, because: Trouble::OldEpoch }));
        } else {
            story.now_ms += 9;
            story.on(Event::Tick);
        }
        notified = story.effects.iter().any(|effect| matches!(effect, Effect::Notify { .. }));
    }
    assert!((15..40).contains(&dials.len()), "{} dials in 20 s: {dials:?}", dials.len());
    assert!(dials[1] < dials[0] + 20, "one more attempt is free: {dials:?}");
}

/// Danger: an observer accepted the epoch of a leader that came to nothing, and stays outside for the whole of the reign
/// that came instead. Nobody counts its promise; but it never goes behind a history that it holds.
#[test]
fn an_observer_follows_an_older_leader_that_it_holds_nothing_against() {
    let mut story = refuses(true);
    for (epoch, is_followed) in [(8, true), (6, false)] {
        for from in [1, 4, 3] {
            let state = if from == 3 { ServerState::Leading } else { ServerState::Following };
            story.hears(ServerId(from), OTHER, z(7, 1), state);
        }
        story.on(Event::Up { link: LINK, dialled: Some(OTHER) });
        story.packet(Packet::LeaderInfo { epoch: Epoch(epoch), protocol_version: 0x10000 });
        let promise = Packet::AckEpoch { last: z(7, 1), current_epoch: None };
        assert_eq!(story.asks(&Effect::Send { link: LINK, packet: promise }), is_followed);
        let refused = Effect::Close { link: LINK, because: Trouble::OldEpoch };
        assert_eq!(story.asks(&refused), !is_followed);
        let saves = story.effects.iter().any(|effect| matches!(effect, Effect::SaveEpoch { .. }));
        assert!(!saves, "what it accepted stays accepted");
        if is_followed {
            story.packet(Packet::Diff { zxid: z(7, 1) });
            assert_eq!(story.new_leader(8), [save_current(8)]);
            story.saved(8);
            story.packet(Packet::UpToDate);
            assert!(story.asks(&Effect::Serve { service: Service::Observing, epoch: Epoch(8) }));
            story.on(Event::Down { link: LINK });
        }
    }
}

/// Danger: somebody at the quorum port says that it accepted the last epoch of all, and nobody can ever lead again.
#[test]
fn nobody_uses_up_the_epochs() {
    for accepted in [Epoch::LAST.0, Epoch::LAST.0 + 1, Epoch::LAST.0 - 1, 1 << 25, i64::from(i32::MIN), -1] {
        let mut story = elected(&[z(1, 1)], 1);
        greet(&mut story, LINK, 1, accepted);
        assert!(story.asks(&Effect::Close { link: LINK, because: Trouble::EpochsUsedUp }), "{accepted}");
        greet(&mut story, LinkId(LINK.0 + 1), 3, 1);
        assert!(story.asks(&Effect::SaveEpoch { file: EpochFile::Accepted, epoch: Epoch(2) }));
    }
    // A server that has accepted it itself leads nobody, and says why.
    let mut story = Story::start(&[z(1, 1)], 1);
    let text = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\nversion=0";
    let tail = Tail::with_records(Zxid::ZERO, [z(1, 1)]);
    let recovered = Recovered { tail, accepted_epoch: Some(Epoch::LAST), current_epoch: Some(Epoch(1)) };
    let config = Config::new(ME, Ensemble::parse(text).unwrap());
    story.node = Node::member(config, recovered, 0, &mut story.effects).unwrap();
    story.on(Event::PeerUp { peer: ServerId(1) });
    story.hears(ServerId(1), ME, z(1, 1), ServerState::Looking);
    assert!(matches!(story.node.role(), Role::Leading { .. }));
    greet(&mut story, LINK, 1, 1);
    assert!(story.asks(&Effect::Look { because: Trouble::EpochsUsedUp }));
}

/// Danger: a server's election ends early, for the link of a third one is not up yet; the others hear of a better vote and
/// elect that one; and this one waits for followers as long as initLimit allows, with its clients.
#[test]
fn a_leader_whom_its_voters_left_looks_again_at_once() {
    let (one, three) = (ServerId(1), ServerId(3));
    let votes_for = |story: &mut Story, from, leader| {
        story.hears(from, leader, z(1, 1), ServerState::Looking);
    };
    let outvoted = Effect::Look { because: Trouble::Outvoted };
    let mut story = elected(&[z(1, 1)], 1);
    votes_for(&mut story, three, three);
    assert!(!story.looks(), "one of three does not matter");
    votes_for(&mut story, one, three);
    assert!(story.asks(&outvoted) && story.looks());
    // Who changes its mind once more, or comes, is counted again.
    let mut story = elected(&[z(1, 1)], 1);
    votes_for(&mut story, one, three);
    votes_for(&mut story, one, ME);
    votes_for(&mut story, three, three);
    assert!(!story.looks());
    let mut story = elected(&[z(1, 1)], 1);
    votes_for(&mut story, one, three);
    greet(&mut story, LINK, 1, 1);
    votes_for(&mut story, three, three);
    assert!(!story.looks());
    // What is settled is told as well.
    let mut story = elected(&[z(1, 1)], 1);
    story.hears(three, three, z(1, 1), ServerState::Leading);
    story.hears(one, three, z(1, 1), ServerState::Following);
    assert!(story.asks(&outvoted));
    // Nobody's vote ends a reign: whoever comes back votes for itself first.
    let mut story = elected(&[z(1, 1)], 1);
    greet(&mut story, LINK, 1, 1);
    story.on(Event::EpochSaved { file: EpochFile::Accepted, epoch: Epoch(2) });
    promise(&mut story, LINK, z(1, 1), 1);
    story.saved(2);
    story.on(Event::Packet { link: LINK, packet: Packet::Ack { zxid: z(2, 0) } });
    assert!(matches!(story.node.role(), Role::Leading { established: true, .. }));
    votes_for(&mut story, three, three);
    votes_for(&mut story, one, one);
    assert!(!story.looks());
}

/// ZOOKEEPER-2247. Danger: a leader whose disk takes nothing leads for ever and serves nobody; or, having the longest
/// history, is elected again as soon as it steps down; or steps down where nobody can take its place.
#[test]
fn zookeeper_2247_a_leader_gives_up_for_others_and_lets_them_elect() {
    let mut story = elected(&[z(1, 1)], 1);
    let third = LinkId(LINK.0 + 1);
    let give_up = || Event::GiveUp { because: Trouble::DiskFull };
    story.on(Event::EpochSaved { file: EpochFile::Accepted, epoch: Epoch(2) });
    for (link, server) in [(LINK, 1), (third, 3)] {
        assert_eq!(story.on(give_up()), [], "the others are no quorum without it");
        greet(&mut story, link, server, 1);
        story.on(Event::EpochSaved { file: EpochFile::Accepted, epoch: Epoch(2) });
        promise(&mut story, link, z(1, 1), 1);
        story.saved(2);
        story.on(Event::Packet { link, packet: Packet::Ack { zxid: z(2, 0) } });
    }
    let because = Trouble::DiskFull;
    story.on(give_up());
    assert!(story.asks(&Effect::StopServing) && story.asks(&Effect::Look { because }));
    assert!(story.asks(&Effect::Close { link: third, because }));
    let is_silent =
        |story: &Story| !story.effects.iter().any(|effect| matches!(effect, Effect::Notify { .. }));
    assert!(is_silent(&story));
    let begun_ms = story.now_ms;
    for round in 0..19 {
        story.hears(OTHER, OTHER, z(1, 1), ServerState::Looking);
        assert!(is_silent(&story) && story.looks(), "round {round}");
        story.on(Event::PeerUp { peer: ServerId(3) });
        assert!(is_silent(&story));
        story.now_ms += 98;
        story.on(Event::Tick);
        assert_eq!(is_silent(&story), story.now_ms < begun_ms + 2000, "{} ms", story.now_ms - begun_ms);
    }
    story.now_ms = begun_ms + 2000;
    story.on(Event::Tick);
    let rounds: Vec<i64> = story
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Notify { notification, .. } => Some(notification.election_epoch),
            _ => None,
        })
        .collect();
    assert_eq!(rounds.len(), 2, "then it takes part again: {:?}", story.effects);
    // Whoever is still looking, in whatever round, answers a later one.
    assert!(rounds[0] > 1);
    story.on(Event::Tick);
    assert!(is_silent(&story), "once");
}

fn looks_because(because: Trouble) -> impl Fn(&[Effect]) -> bool {
    move |effects| effects.contains(&Effect::Look { because })
}

fn closes_because(because: Trouble) -> impl Fn(&[Effect]) -> bool {
    move |effects| effects.contains(&Effect::Close { link: LINK, because })
}

/// Q46. Danger: a learner dials a leader that is gone for all of initLimit, though it was told to give up sooner.
#[test]
fn a_leader_is_dialled_within_its_own_limit() {
    for ticks in [3, 10, 14] {
        let mut story = Story::start(&[z(1, 1)], 1);
        let text = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\nversion=0";
        let config = Config { connect_limit_ticks: ticks, ..Config::new(ME, Ensemble::parse(text).unwrap()) };
        let tail = Tail::with_records(Zxid::ZERO, [z(1, 1)]);
        let recovered = Recovered { tail, accepted_epoch: Some(Epoch(1)), current_epoch: Some(Epoch(1)) };
        story.node = Node::member(config, recovered, 0, &mut story.effects).unwrap();
        story.hears(ServerId(1), OTHER, z(1, 9), ServerState::Following);
        story.hears(OTHER, OTHER, z(1, 9), ServerState::Leading);
        assert!(story.asks(&Effect::Dial { leader: OTHER }));
        assert_eq!(story.patience_ticks(looks_because(Trouble::Silent)), Some(ticks));
    }
}

/// Q46, Q58. Danger: a leader that says nothing any more holds its learners for ever.
#[test]
fn a_silent_leader_is_left() {
    let silent = || looks_because(Trouble::Silent);
    // It took the connection and said nothing at all.
    let mut story = Story::start(&[z(1, 1)], 1);
    story.hears(ServerId(1), OTHER, z(1, 9), ServerState::Following);
    story.hears(OTHER, OTHER, z(1, 9), ServerState::Leading);
    story.on(Event::Up { link: LINK, dialled: Some(OTHER) });
    assert_eq!(story.patience_ticks(silent()), Some(10));

    let mut story = Story::start(&[z(1, 1)], 1).follow(2);
    assert_eq!(story.patience_ticks(silent()), Some(10), "it promised, and was told no plan");

    let mut story = Story::start(&[z(1, 1)], 1).follow(2);
    story.packet(Packet::Diff { zxid: z(1, 1) });
    story.new_leader(2);
    story.saved(2);
    assert_eq!(story.patience_ticks(silent()), Some(10), "no UPTODATE");

    let mut story = Story::start(&[z(1, 1)], 1).follow(2);
    story.packet(Packet::Diff { zxid: z(1, 1) });
    story.new_leader(2);
    story.saved(2);
    story.packet(Packet::UpToDate);
    story.now_ms += 9_000;
    story.packet(Packet::Ping { zxid: z(2, 0), touched: None });
    assert_eq!(
        story.patience_ticks(silent()),
        Some(5),
        "an active learner counts in syncLimit, from the last word"
    );
}

/// Q58. Danger: a learner that is stuck keeps its place, and a quorum that counts on it stands still.
#[test]
fn a_silent_or_lagging_learner_is_closed() {
    let third = LinkId(LINK.0 + 1);
    let reigns = || {
        let mut story = elected(&[z(1, 1)], 1);
        greet(&mut story, third, 3, 1);
        story.on(Event::EpochSaved { file: EpochFile::Accepted, epoch: Epoch(2) });
        promise(&mut story, third, z(1, 1), 1);
        story.saved(2);
        story.on(Event::Packet { link: third, packet: Packet::Ack { zxid: z(2, 0) } });
        story
    };
    // The other follower answers pings all the time, so that the reign stands.
    let patience = |story: &mut Story, says: &[Packet], because| {
        let begun_ms = story.now_ms;
        for _ in 0..400 {
            story.now_ms += 99;
            story.on(Event::Tick);
            if closes_because(because)(&story.effects) {
                return Some((story.now_ms - begun_ms) / 2000);
            }
            story.on(Event::Packet { link: third, packet: Packet::Ping { zxid: z(2, 0), touched: None } });
            for packet in says {
                story.packet(packet.clone());
            }
        }
        None
    };
    let ping = Packet::Ping { zxid: z(2, 0), touched: None };

    let mut story = reigns();
    story.on(Event::Up { link: LINK, dialled: None });
    assert_eq!(patience(&mut story, &[], Trouble::Silent), Some(10), "it connected and said nothing");

    let mut story = reigns();
    greet(&mut story, LINK, 1, 1);
    promise(&mut story, LINK, z(1, 1), 1);
    assert_eq!(patience(&mut story, &[], Trouble::Silent), Some(10), "it never acknowledges NEWLEADER");

    let active = || {
        let mut story = reigns();
        greet(&mut story, LINK, 1, 1);
        promise(&mut story, LINK, z(1, 1), 1);
        story.packet(Packet::Ack { zxid: z(2, 0) });
        assert!(story.asks(&Effect::Send { link: LINK, packet: Packet::UpToDate }));
        story
    };
    assert_eq!(patience(&mut active(), &[], Trouble::Silent), Some(5), "an active one has syncLimit");
    assert_eq!(patience(&mut active(), std::slice::from_ref(&ping), Trouble::Silent), None, "it is there");

    let mut story = active();
    story.on(Event::Submit { zxid: z(2, 1), record: record() });
    let lags = patience(&mut story, &[ping], Trouble::Lagging);
    assert_eq!(lags, Some(5), "it answers, and stores nothing");
}

/// Q13, Q47. Danger: a server that comes in anew has lost its older link without this side noticing; both count, or the dead
/// one keeps the place.
#[test]
fn a_newer_link_of_a_server_takes_the_place_of_the_older() {
    let mut story = elected(&[z(1, 1)], 1);
    let newer = LinkId(LINK.0 + 1);
    greet(&mut story, LINK, 1, 1);
    greet(&mut story, newer, 1, 1);
    assert!(story.asks(&Effect::Close { link: LINK, because: Trouble::Superseded }), "{:?}", story.effects);
    story.on(Event::EpochSaved { file: EpochFile::Accepted, epoch: Epoch(2) });
    promise(&mut story, newer, z(1, 1), 1);
    assert!(story.asks(&save_current(2)), "the newer one counts");
    assert_eq!(story.node.learners().connected, 1);
}

/// Danger: two servers have one myid, and the word of the other is taken for this one's own.
#[test]
fn a_server_with_this_number_is_shown_the_door() {
    let mut story = elected(&[z(1, 1)], 1);
    greet(&mut story, LINK, ME.0, 1);
    assert!(story.asks(&Effect::Close { link: LINK, because: Trouble::SameServer }), "{:?}", story.effects);
    assert_eq!(story.node.learners().connected, 0);
}

/// Q46. Danger: a leader that takes no connection is dialled again and again, while the others may have another one.
#[test]
fn a_leader_is_dialled_five_times() {
    let mut story = Story::start(&[z(1, 1)], 1);
    story.hears(ServerId(1), OTHER, z(1, 9), ServerState::Following);
    story.hears(OTHER, OTHER, z(1, 9), ServerState::Leading);
    for dial in 1..=5 {
        assert!(story.asks(&Effect::Dial { leader: OTHER }), "dial {dial}: {:?}", story.effects);
        story.on(Event::DialFailed { leader: ServerId(1) });
        assert_eq!(story.effects, [], "of another leader");
        story.on(Event::DialFailed { leader: OTHER });
        if dial < 5 {
            assert_eq!(story.on(Event::Tick), [], "not at once");
            story.now_ms += 100;
            story.on(Event::Tick);
        }
    }
    assert!(story.asks(&Effect::Look { because: Trouble::Unreachable }), "{:?}", story.effects);
}

/// Danger: a voter that promised a later epoch to a leader that came to nothing may follow nobody older, and stays outside
/// for the whole of this reign. An observer may.
#[test]
fn a_leader_makes_way_for_a_voter_that_promised_a_later_epoch() {
    for (decided, is_voter) in [(false, true), (true, true), (true, false)] {
        let mut story = elected(&[z(1, 1)], 1);
        greet(&mut story, LINK, 1, 1);
        if decided {
            story.on(Event::EpochSaved { file: EpochFile::Accepted, epoch: Epoch(2) });
            promise(&mut story, LINK, z(1, 1), 1);
        }
        greet(&mut story, LinkId(LINK.0 + 1), if is_voter { 3 } else { 9 }, 5);
        let looks = story.asks(&Effect::Look { because: Trouble::OldEpoch });
        assert_eq!(looks, is_voter, "decided: {decided}, voter: {is_voter}: {:?}", story.effects);
    }
}

/// Q44. Danger: a promise is given twice for one epoch, and two leaders lead it (one promise an epoch).
#[test]
fn a_promise_is_given_once() {
    let promised = |story: &Story| {
        story.effects.iter().find_map(|effect| match effect {
            Effect::Send { packet: Packet::AckEpoch { last, current_epoch }, .. } => {
                Some((*last, *current_epoch))
            }
            _ => None,
        })
    };
    let mut story = Story::start(&[z(1, 1)], 1).follow(2);
    assert_eq!(promised(&story), Some((z(1, 1), Some(Epoch(1)))));
    story.on(Event::Down { link: LINK });
    let story = story.follow(2);
    assert_eq!(promised(&story), Some((z(1, 1), None)), "it counts for nobody now");
}

/// Danger: a voter that needs an image makes no promise that counts: two of three never come to a quorum. What it says
/// instead of its history must be more than that, or a leader that lacks a part of it would lead.
#[test]
fn who_needs_an_image_promises_all_the_same() {
    let mut story = Story::start(&[z(1, 1)], 1);
    let tail = Tail::recovered(z(1, 5));
    let recovered = Recovered { tail, accepted_epoch: Some(Epoch(1)), current_epoch: Some(Epoch(1)) };
    let text = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\nversion=0";
    let config = Config::new(ME, Ensemble::parse(text).unwrap());
    story.node = Node::member(config, recovered, 0, &mut story.effects).unwrap();
    let mut story = story.follow(3);
    story.packet(Packet::Trunc { zxid: z(1, 3) });
    assert!(story.asks(&Effect::Close { link: LINK, because: Trouble::CutBelowSnapshot }));
    let mut story = story.follow(4);
    let overstated = Packet::AckEpoch { last: z(4, 0), current_epoch: Some(Epoch(1)) };
    assert!(story.asks(&Effect::Send { link: LINK, packet: overstated }));
    // No image after all: then it says that it has nothing, and does not count.
    story.packet(Packet::Diff { zxid: z(4, 0) });
    assert!(story.asks(&Effect::Close { link: LINK, because: Trouble::CutBelowSnapshot }));
    let story = story.follow(4);
    let nothing = Packet::AckEpoch { last: Zxid(-1), current_epoch: None };
    assert!(story.asks(&Effect::Send { link: LINK, packet: nothing }));
}

/// Danger: a broken leader proposes in an epoch that it does not lead: it is logged, the learner ends, and stands for that
/// epoch when it starts again. Or it tells a voter what only observers are told: that is committed without a quorum.
#[test]
fn what_a_leader_proposes_is_of_its_epoch() {
    let foreign = z(9, 1);
    let inform = |zxid| Packet::Inform { zxid, record: record() };
    let activate = |zxid| Packet::InformAndActivate { zxid, designated: OTHER, record: record() };
    for phase in ["history", "behind NEWLEADER", "serving"] {
        for packet in [
            Packet::Proposal { zxid: foreign, record: record() },
            inform(foreign),
            activate(foreign),
            inform(z(2, 1)),
            activate(z(2, 1)),
        ] {
            let mut story = Story::start(&[z(1, 1)], 1).follow(2);
            story.packet(Packet::Diff { zxid: z(1, 1) });
            if phase != "history" {
                story.new_leader(2);
                story.saved(2);
            }
            if phase == "serving" {
                story.packet(Packet::UpToDate);
            }
            story.packet(packet.clone());
            let refused = Effect::Close { link: LINK, because: Trouble::OutOfPhase };
            assert!(story.asks(&refused), "{phase}, {packet:?}: {:?}", story.effects);
            let done = |effect: &Effect| matches!(effect, Effect::Append { .. } | Effect::Commit { .. });
            assert!(!story.effects.iter().any(done), "{phase}, {packet:?}: {:?}", story.effects);
        }
    }
    let mut story = Story::start(&[z(1, 1)], 1).follow(2);
    story.packet(Packet::Snap { zxid: foreign });
    assert!(story.asks(&Effect::Close { link: LINK, because: Trouble::OutOfPhase }), "an image");
}

/// Q23. Danger: two servers that lost their directories elect one of them, and what the third holds is cut off. One alone
/// takes the history of the leader that the others have, and votes from then on.
#[test]
fn who_is_empty_without_being_vouched_for_does_not_vote() {
    let text = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\nversion=0";
    let config = Config { votes_empty: false, ..Config::new(ME, Ensemble::parse(text).unwrap()) };
    let recovered =
        Recovered { tail: Tail::recovered(Zxid::ZERO), accepted_epoch: None, current_epoch: None };
    let mut effects = Vec::new();
    let node = Node::member(config, recovered, 0, &mut effects).unwrap();
    let zxids = |effects: &[Effect]| -> Vec<Zxid> {
        let notified = effects.iter().filter_map(|effect| match effect {
            Effect::Notify { notification, .. } => Some(notification.zxid),
            _ => None,
        });
        notified.collect()
    };
    assert_eq!(zxids(&effects), [Zxid(-1); 2]);
    let mut story = Story { node, effects, now_ms: 0 };
    for peer in [1, 3] {
        story.on(Event::PeerUp { peer: ServerId(peer) });
        story.hears(ServerId(peer), ME, Zxid(0), ServerState::Looking);
    }
    story.now_ms += 60_000;
    story.on(Event::Tick);
    assert!(story.looks(), "nobody is elected by who has nothing");
    // Records alone would leave a log without the snapshot before it: such a disk is none to start from.
    let mut story = story.follow(2);
    let nothing = Packet::AckEpoch { last: Zxid(-1), current_epoch: Some(Epoch(0)) };
    assert!(story.asks(&Effect::Send { link: LINK, packet: nothing }));
    story.packet(Packet::Diff { zxid: Zxid::ZERO });
    assert!(story.asks(&Effect::Close { link: LINK, because: Trouble::CutBelowSnapshot }));
    let mut story = story.follow(2);
    story.packet(Packet::Snap { zxid: Zxid::ZERO });
    story.on(Event::Installed { zxid: Zxid::ZERO });
    story.new_leader(2);
    story.saved(2);
    story.on(Event::Down { link: LINK });
    assert!(story.looks());
    assert_eq!(zxids(&story.effects), [Zxid(0); 2], "it has a leader's history now");
}
