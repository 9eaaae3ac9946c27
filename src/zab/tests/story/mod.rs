//! One server under a test, told packet by packet what happens.

#![allow(missing_docs, dead_code, reason = "a test, of which each file uses a part")]

use bytes::Bytes;
use zkfast_wire::{
    Ensemble, Epoch, Notification, Packet, ServerId, Zxid, quorum::LearnerInfo, vote::ServerState,
};
use zkfast_zab::{Config, Effect, EpochFile, Event, LinkId, Node, Recovered, Role, Tail};

pub const LINK: LinkId = LinkId(7);
pub const ME: ServerId = ServerId(2);
pub const OTHER: ServerId = ServerId(3);

pub fn z(epoch: i64, counter: u32) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

pub fn record() -> Bytes {
    Bytes::from_static(b"record")
}

/// One server of three, and what it asked for last.
pub struct Story {
    pub node: Node,
    pub effects: Vec<Effect>,
    pub now_ms: u64,
}

impl Story {
    /// Server 2 of three, with this log and these epochs.
    pub fn start(zxids: &[Zxid], epoch: i64) -> Self {
        let tail = Tail::with_records(Zxid::ZERO, zxids.iter().copied());
        let recovered =
            Recovered { tail, accepted_epoch: Some(Epoch(epoch)), current_epoch: Some(Epoch(epoch)) };
        let text = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\nversion=0";
        let config = Config::new(ME, Ensemble::parse(text).unwrap());
        let mut effects = Vec::new();
        let node = Node::member(config, recovered, 0, &mut effects).unwrap();
        Self { node, effects, now_ms: 0 }
    }

    pub fn on(&mut self, event: Event) -> &[Effect] {
        self.effects.clear();
        self.now_ms += 1;
        self.node.step(self.now_ms, event, &mut self.effects);
        &self.effects
    }

    pub fn packet(&mut self, packet: Packet) -> &[Effect] {
        self.on(Event::Packet { link: LINK, packet })
    }

    pub fn hears(&mut self, from: ServerId, leader: ServerId, zxid: Zxid, state: ServerState) {
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
    pub fn follow(mut self, epoch: i64) -> Self {
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

    pub fn asks(&self, effect: &Effect) -> bool {
        self.effects.contains(effect)
    }

    pub fn history(&mut self, zxid: Zxid) {
        self.packet(Packet::Proposal { zxid, record: record() });
        assert!(self.asks(&Effect::Append { zxid, record: record() }));
        self.packet(Packet::Commit { zxid });
    }

    pub fn durable(&mut self, zxid: Zxid) -> &[Effect] {
        let epoch = self.node.epoch();
        self.on(Event::Durable { epoch, zxid })
    }

    pub fn saved(&mut self, epoch: i64) -> &[Effect] {
        self.on(Event::EpochSaved { file: EpochFile::Current, epoch: Epoch(epoch) })
    }

    pub fn new_leader(&mut self, epoch: i64) -> &[Effect] {
        self.packet(Packet::NewLeader { epoch: Epoch(epoch), config: None })
    }

    pub fn looks(&self) -> bool {
        self.node.role() == Role::Looking
    }
}

pub fn ack(zxid: Zxid) -> Effect {
    Effect::Send { link: LINK, packet: Packet::Ack { zxid } }
}

pub fn save_current(epoch: i64) -> Effect {
    Effect::SaveEpoch { file: EpochFile::Current, epoch: Epoch(epoch) }
}

/// Server 2 elected by itself and server 1, up to the end of discovery.
pub fn elected(zxids: &[Zxid], epoch: i64) -> Story {
    let mut story = Story::start(zxids, epoch);
    let last = story.node.appended();
    story.on(Event::PeerUp { peer: ServerId(1) });
    story.hears(ServerId(1), ME, last, ServerState::Looking);
    assert!(matches!(story.node.role(), Role::Leading { established: false, .. }), "{:?}", story.node.role());
    story
}

pub fn greet(story: &mut Story, link: LinkId, server: i64, accepted: i64) {
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

pub fn promise(story: &mut Story, link: LinkId, last: Zxid, current: i64) {
    let packet = Packet::AckEpoch { last, current_epoch: Some(Epoch(current)) };
    story.on(Event::Packet { link, packet });
}

/// Server 2 as leader of epoch 2, of the history z(1, 1): server 1 follows on [`LINK`].
pub fn established() -> Story {
    let mut story = elected(&[z(1, 1)], 1);
    greet(&mut story, LINK, 1, 1);
    story.on(Event::EpochSaved { file: EpochFile::Accepted, epoch: Epoch(2) });
    promise(&mut story, LINK, z(1, 1), 1);
    story.saved(2);
    story.packet(Packet::Ack { zxid: z(2, 0) });
    story
}
