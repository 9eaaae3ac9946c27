//! The data-loss bugs that others shipped, each as a short story that must end well. The simulator (`tests/sim`)
//! searches for such stories; these are the ones that are known.

#![allow(missing_docs, reason = "a test")]

use bytes::Bytes;
use zkfast_wire::{
    Ensemble, Epoch, Notification, Packet, ServerId, Zxid, quorum::LearnerInfo, vote::ServerState,
};
use zkfast_zab::{Config, Effect, EpochFile, Event, LinkId, Node, Recovered, Role, Service, Tail, Trouble};

const LINK: LinkId = LinkId(7);
const ME: ServerId = ServerId(2);
const OTHER: ServerId = ServerId(3);

fn z(epoch: i64, counter: u32) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

fn record() -> Bytes {
    Bytes::from_static(b"record")
}

/// One server of three, and what it asked for last.
struct Story {
    node: Node,
    effects: Vec<Effect>,
    now_ms: u64,
}

impl Story {
    /// Server 2 of three, with this log and these epochs.
    fn start(zxids: &[Zxid], epoch: i64) -> Self {
        let tail = Tail::with_records(Zxid::ZERO, zxids.iter().copied());
        let recovered =
            Recovered { tail, accepted_epoch: Some(Epoch(epoch)), current_epoch: Some(Epoch(epoch)) };
        let text = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\nversion=0";
        let config = Config::new(ME, Ensemble::parse(text).unwrap());
        let mut effects = Vec::new();
        let node = Node::member(config, recovered, 0, &mut effects).unwrap();
        Self { node, effects, now_ms: 0 }
    }

    fn on(&mut self, event: Event) -> &[Effect] {
        self.effects.clear();
        self.now_ms += 1;
        self.node.step(self.now_ms, event, &mut self.effects);
        &self.effects
    }

    fn packet(&mut self, packet: Packet) -> &[Effect] {
        self.on(Event::Packet { link: LINK, packet })
    }

    fn hears(&mut self, from: ServerId, leader: ServerId, zxid: Zxid, state: ServerState) {
        let notification = Notification {
            state,
            leader,
            zxid,
            election_epoch: 1,
            peer_epoch: zxid.epoch(),
            version: 2,
            config: None,
        };
        self.on(Event::Notification { from, notification });
    }

    /// Follows server 3, up to the plan of its leader.
    fn follow(mut self, epoch: i64) -> Self {
        self.hears(ServerId(1), OTHER, z(epoch - 1, 9), ServerState::Following);
        self.hears(OTHER, OTHER, z(epoch - 1, 9), ServerState::Leading);
        if self.looks() {
            // It came to nothing before, and waits a moment.
            self.now_ms += 1000;
            self.on(Event::Tick);
        }
        self.on(Event::Up { link: LINK, dialled: Some(OTHER) });
        self.packet(Packet::LeaderInfo { epoch: Epoch(epoch), protocol_version: 0x10000 });
        assert!(self.asks(&Effect::SaveEpoch { file: EpochFile::Accepted, epoch: Epoch(epoch) }));
        assert_eq!(self.effects.len(), 1, "a promise is on disk before it is given");
        self.on(Event::EpochSaved { file: EpochFile::Accepted, epoch: Epoch(epoch) });
        assert!(matches!(&self.effects[..], [Effect::Send { packet: Packet::AckEpoch { .. }, .. }]));
        self
    }

    fn asks(&self, effect: &Effect) -> bool {
        self.effects.contains(effect)
    }

    fn history(&mut self, zxid: Zxid) {
        self.packet(Packet::Proposal { zxid, record: record() });
        assert!(self.asks(&Effect::Append { zxid, record: record() }));
        self.packet(Packet::Commit { zxid });
    }

    fn durable(&mut self, zxid: Zxid) -> &[Effect] {
        let epoch = self.node.epoch();
        self.on(Event::Durable { epoch, zxid })
    }

    fn saved(&mut self, epoch: i64) -> &[Effect] {
        self.on(Event::EpochSaved { file: EpochFile::Current, epoch: Epoch(epoch) })
    }

    fn new_leader(&mut self, epoch: i64) -> &[Effect] {
        self.packet(Packet::NewLeader { epoch: Epoch(epoch), config: None })
    }

    fn looks(&self) -> bool {
        self.node.role() == Role::Looking
    }
}

fn ack(zxid: Zxid) -> Effect {
    Effect::Send { link: LINK, packet: Packet::Ack { zxid } }
}

fn save_current(epoch: i64) -> Effect {
    Effect::SaveEpoch { file: EpochFile::Current, epoch: Epoch(epoch) }
}

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
/// ZOOKEEPER-4925: and what was received so is missing when it is handed on.
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

/// ZOOKEEPER-1549: what must go is in a snapshot alone. The server asks for an image, and its word does not count.
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
    let packet = Packet::AckEpoch { last: Zxid(-1), current_epoch: None };
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

/// Server 2 elected by itself and server 1, up to the end of discovery.
fn elected(zxids: &[Zxid], epoch: i64) -> Story {
    let mut story = Story::start(zxids, epoch);
    let last = story.node.appended();
    story.on(Event::PeerUp { peer: ServerId(1) });
    story.hears(ServerId(1), ME, last, ServerState::Looking);
    assert!(matches!(story.node.role(), Role::Leading { established: false, .. }), "{:?}", story.node.role());
    story
}

fn greet(story: &mut Story, link: LinkId, server: i64, accepted: i64) {
    story.on(Event::Up { link, dialled: None });
    let info = LearnerInfo {
        server: Some(ServerId(server)),
        protocol_version: 0x10000,
        config_version: 0,
        observer: false,
        accepted_epoch: Epoch(accepted),
    };
    story.on(Event::Packet { link, packet: Packet::LearnerInfo(info) });
}

fn promise(story: &mut Story, link: LinkId, last: Zxid, current: i64) {
    let packet = Packet::AckEpoch { last, current_epoch: Some(Epoch(current)) };
    story.on(Event::Packet { link, packet });
}

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
    let mut story = elected(&[z(1, 1)], 1);
    greet(&mut story, LINK, 1, 1);
    story.on(Event::EpochSaved { file: EpochFile::Accepted, epoch: Epoch(2) });
    promise(&mut story, LINK, z(1, 1), 1);
    story.saved(2);
    story.packet(Packet::Ack { zxid: z(2, 0) });
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

// What ends a wait. Config::new has ticks of 2 s, initLimit 10, syncLimit 5.

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
    for accepted in [Epoch::LAST.0, Epoch::LAST.0 + 1, i64::from(i32::MIN), -1] {
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
