//! The times after which waiting ends: `initLimit`, `syncLimit`, `connectToLearnerMasterLimit`, `cnxTimeout` (rows Q5, Q17,
//! Q46, Q58), and a leader that drops what it was asked (Q45). The other servers are puppets of the test.

use crate::{
    cluster::{Cluster, Shape, TICK_MS},
    peers::{Client, DEADLINE, Kind, client},
    puppet::{DeafPort, Leader, Link, Voter},
};
use std::{
    net::{Ipv4Addr, TcpListener},
    time::{Duration, Instant},
};
use zkfast_wire::{
    Acl, Epoch, ErrorCode, OpCode, Packet, SessionId, Txn, TxnHeader, Zxid, quorum::ForwardedRequest,
    vote::ServerState,
};

/// A limit that the test is about, in ticks; all others are far longer.
const SHORT_TICKS: u32 = 3;
const LONG_TICKS: u32 = 200;

fn shape(short: &str) -> Shape {
    let ticks = |name: &str| if name == short { SHORT_TICKS } else { LONG_TICKS };
    let names = ["initLimit", "syncLimit"];
    // The last line of a name counts.
    let mut lines: Vec<String> = names.iter().map(|name| format!("{name}={}", ticks(name))).collect();
    lines.push("cnxTimeout=300".to_owned());
    Shape { lines, ..Shape::default() }
}

fn limit() -> Duration {
    Duration::from_millis(u64::from(SHORT_TICKS * TICK_MS))
}

/// Another limit, longer than the ten ticks that the protocol has without a configuration.
const CONNECT_TICKS: u32 = 12;

/// Servers count in whole milliseconds, from the beginning of the turn in which they hear of something.
const GRAIN: Duration = Duration::from_millis(10);

/// What waited for the limit ended with it: not before, and not only with one of the long ones.
#[track_caller]
fn assert_limited(time: Duration) {
    println!("ended after {time:.2?}, the limit is {:.2?}", limit());
    assert!(time + GRAIN >= limit(), "after {time:?}, before the limit");
    assert!(time < limit() * (LONG_TICKS / SHORT_TICKS) / 4, "after {time:?}, long after the limit");
}

/// Server 1 is real; 2 and 3 are puppets that say that 3 leads.
struct Stage {
    cluster: Cluster,
    /// Kept open.
    _second: Voter,
    third: Voter,
    quorum_port: Option<TcpListener>,
    /// When the votes that name the leader were about to be said.
    voted: Instant,
}

impl Stage {
    /// `is_deaf`: the leader's quorum port takes no connection.
    fn set(shape: Shape, is_deaf: bool) -> (Self, Option<DeafPort>) {
        let mut cluster = Cluster::new(&[Kind::Zkfast; 3], shape);
        let port = cluster.quorum_port(2);
        let deaf = is_deaf.then(|| DeafPort::at(port));
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port");
        let quorum_port = (!is_deaf).then(listen);
        cluster.launch(0);
        let mut second = Voter::call(2, cluster.election_port(0));
        let mut third = Voter::call(3, cluster.election_port(0));
        let voted = Instant::now();
        second.settled(ServerState::Following, 3, 1);
        third.settled(ServerState::Leading, 3, 1);
        (Self { cluster, _second: second, third, quorum_port, voted }, deaf)
    }

    /// The connection of the learner.
    fn link(&self) -> Link {
        Link::accept(self.quorum_port.as_ref().expect("a quorum port"))
    }

    /// The learner follows.
    fn lead(&self) -> Leader {
        Leader::lead(self.link(), 1)
    }
}

/// Q5, Q46. Danger: a leader that took the connection and says nothing keeps its learner for ever.
#[test]
fn a_leader_that_says_nothing_is_left_after_init_limit() {
    let (mut stage, _) = Stage::set(shape("initLimit"), false);
    let link = stage.link();
    let round = stage.third.hears(DEADLINE).map_or(0, |heard| heard.election_epoch);
    stage.third.await_search(round);
    assert_limited(stage.voted.elapsed());
    stage.cluster.server(0).await_log(&["looking for a leader", "nothing heard in time"]);
    drop(link);
}

/// Q46. Danger: a leader whose host drops packets is dialled for all of initLimit, though the configuration says less.
#[test]
fn a_leader_out_of_reach_is_given_up_after_its_own_limit() {
    let mut shape = shape("none");
    shape.lines.push(format!("connectToLearnerMasterLimit={CONNECT_TICKS}"));
    let (mut stage, _deaf) = Stage::set(shape, true);
    let round = stage.third.hears(DEADLINE).map_or(0, |heard| heard.election_epoch);
    stage.third.await_search(round);
    let (time, limit) = (stage.voted.elapsed(), Duration::from_millis(u64::from(CONNECT_TICKS * TICK_MS)));
    println!("given up after {time:.2?}, the limit is {limit:.2?}");
    assert!(time + GRAIN >= limit, "after {time:?}, before the limit");
    assert!(time < limit * 5, "after {time:?}, long after the limit");
}

/// Q17. Danger: a peer whose host drops packets is waited for, and nobody is told.
#[test]
fn an_election_peer_out_of_reach_is_given_up_after_its_own_limit() {
    let mut cluster = Cluster::new(&[Kind::Zkfast; 3], shape("none"));
    let _deaf = DeafPort::at(cluster.election_port(2));
    cluster.launch(0);
    cluster.server(0).await_log(&["server 3", "nothing answered within 300 ms"]);
    // The others are none the worse for it.
    cluster.launch(1);
    cluster.await_all();
}

/// Q5, Q34, Q58. Danger: a leader that is gone without a word is followed on, and clients are served what is old.
#[test]
fn a_leader_that_falls_silent_is_left_after_sync_limit() {
    let (mut stage, _) = Stage::set(shape("syncLimit"), false);
    let mut leader = stage.lead();
    stage.cluster.await_modes("a follower", |modes| modes[0].as_deref() == Some("follower"));
    let mut round = 0;
    // For twice the limit it says that it is there; nothing is heard of a search meanwhile.
    let begun = Instant::now();
    while begun.elapsed() < limit() * 2 {
        leader.ping();
        let zxid = Zxid::new(Epoch(1), 0);
        let answer =
            |packet| matches!(packet, Packet::Ping { zxid: echoed, touched: Some(_) } if echoed == zxid);
        leader.link.expect("PING", |packet| answer(packet).then_some(()));
        if let Some(heard) = stage.third.hears(limit() / 5) {
            assert!(round == 0 || heard.election_epoch == round, "it looks for another one: {heard:?}");
            round = heard.election_epoch;
        }
    }
    let begun = Instant::now();
    leader.ping();
    stage.third.await_search(round);
    assert_limited(begun.elapsed());
    assert_eq!(stage.cluster.modes()[0], None, "nobody is served any more");
}

/// Q58. Danger: a learner that is stuck keeps its place for ever, or costs the others something.
#[test]
fn a_learner_that_is_stuck_is_closed_and_the_others_go_on() {
    let ensemble = |short: &str| {
        let mut cluster = Cluster::new(&[Kind::Zkfast; 3], shape(short));
        cluster.launch(0);
        cluster.launch(1);
        cluster.await_all();
        cluster
    };
    let pings = |packet: Packet| matches!(packet, Packet::Ping { .. }).then_some(packet);
    let answered = |packet: Packet| match packet {
        Packet::Ping { zxid, .. } => Some(Packet::Ping { zxid, touched: Some(bytes::Bytes::new()) }),
        _ => None,
    };

    let cluster = ensemble("initLimit");
    let port = cluster.quorum_port(cluster.leader());
    let begun = Instant::now();
    let mut mute = Link::dial(port);
    assert_limited(mute.until_closed(begun, |_| None));
    let begun = Instant::now();
    let mut learner = Link::dial(port);
    learner.join(3);
    // It takes longer than initLimit to synchronise.
    assert_limited(learner.until_closed(begun, |_| None));
    drop(cluster);

    let cluster = ensemble("syncLimit");
    let port = cluster.quorum_port(cluster.leader());
    let mut writer = cluster.server(cluster.leader()).client(20_000);
    let active = || {
        let mut learner = Link::dial(port);
        let epoch = learner.join(3);
        learner.say(&Packet::Ack { zxid: Zxid::new(epoch, 0) });
        learner.expect("UPTODATE", |packet| matches!(packet, Packet::UpToDate).then_some(()));
        learner
    };
    let begun = Instant::now();
    let mut silent = active();
    writer.create("/beside-a-silent-learner", b"", 0).expect("a quorum is there");
    assert_limited(silent.until_closed(begun, |_| None));
    let mut lagging = active();
    let begun = Instant::now();
    writer.create("/beside-a-lagging-learner", b"", 0).expect("a quorum is there");
    // It answers, and acknowledges nothing.
    assert_limited(lagging.until_closed(begun, |packet| pings(packet).and_then(answered)));
    writer.create("/behind-both", b"", 0).expect("a quorum is there");
    writer.close();
}

/// Danger: whoever reaches the quorum port and says that it observes has the server keep the longest packets that there are.
#[test]
fn nothing_long_is_taken_from_a_learner_that_is_not_served() {
    let request = |body| {
        let (session, op) = (SessionId(5), ForwardedRequest::SYNC);
        Packet::Request(Box::new(ForwardedRequest { session, cxid: 6, op, body, identities: Vec::new() }))
    };
    let long = request(vec![0; 1 << 20].into());
    let is_closed_at_a_long_packet = |link: &mut Link| {
        link.begin_to_say(&long);
        link.until_closed(Instant::now(), |_| None);
    };
    let mut cluster = Cluster::new(&[Kind::Zkfast; 3], shape("none"));
    cluster.launch(0);
    cluster.server(0).await_log(&["looking for a leader: started"]);
    for id in 1000..1020 {
        let mut link = Link::dial(cluster.quorum_port(0));
        link.introduce(id, true);
        is_closed_at_a_long_packet(&mut link);
    }

    cluster.launch(1);
    cluster.await_all();
    let port = cluster.quorum_port(cluster.leader());
    let mut link = Link::dial(port);
    link.observe(1000);
    is_closed_at_a_long_packet(&mut link);

    let mut link = Link::dial(port);
    let epoch = link.observe(1001);
    link.say(&Packet::Ack { zxid: Zxid::new(epoch, 0) });
    link.expect("UPTODATE", |packet| matches!(packet, Packet::UpToDate).then_some(()));
    // A million sessions of a learner that is served do fit, and what its clients ask.
    let touched = Some(vec![0; 12_000_000].into());
    link.say(&Packet::Ping { zxid: Zxid::new(epoch, 0), touched });
    link.say(&request(client::path_alone("/").into()));
    link.expect("SYNC", |packet| matches!(packet, Packet::Sync).then_some(()));
}

/// ZOOKEEPER-3531. Danger: the leader holds something while it sends an image to a learner that does not read, and everybody
/// waits for both.
#[test]
fn zookeeper_3531_a_learner_that_does_not_read_its_image_keeps_nobody_waiting() {
    let mut cluster = Cluster::new(&[Kind::Zkfast; 3], shape("none"));
    cluster.launch(0);
    cluster.launch(1);
    cluster.await_all();
    let mut writer = cluster.server(cluster.leader()).client(20_000);
    // Far more than the sockets between hold.
    for number in 0..24 {
        writer.create(&format!("/long-{number}"), &vec![b'l'; 900_000], 0).expect("a node");
    }
    let mut learner = Link::dial(cluster.quorum_port(cluster.leader()));
    learner.ask_for_an_image(3);
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    for number in 0..200 {
        let asked = Instant::now();
        writer.create(&format!("/meanwhile-{number}"), b"", 0).expect("a node");
        longest = longest.max(asked.elapsed());
    }
    println!(
        "200 writes beside a learner that does not read: {:.2?}, longest {longest:.2?}",
        begun.elapsed()
    );
    assert!(learner.is_open(), "it may be slow");
    writer.close();
}

/// Q45. Danger: a leader drops a request, as Apache's does with what it stumbles over, and whoever asks anything behind it
/// on the same server waits for ever.
#[test]
fn what_the_leader_passes_over_costs_its_own_client_alone() {
    let (stage, _) = Stage::set(shape("none"), false);
    let mut leader = stage.lead();
    stage.cluster.await_modes("a follower", |modes| modes[0].as_deref() == Some("follower"));
    let address = stage.cluster.address(0);
    let mut open = || {
        let stream = std::thread::spawn(move || Client::connect(address, 20_000));
        let request = leader.request();
        leader.order(&request);
        stream.join().expect("a session")
    };
    let (mut passed_over, mut other) = (open(), open());

    // What no leader could read is refused here.
    let code = passed_over.call(OpCode::Multi, &client::multi_without_path()).map(|_| ());
    assert_eq!(code, Err(ErrorCode::MARSHALLING_ERROR.0));

    let create = |path: &str| client::create(path, Some(b""), &[Acl::OPEN], 0);
    passed_over.submit(OpCode::Create, &create("/dropped"));
    passed_over.flush().expect("a connection");
    let dropped = leader.request();
    let wanted = other.submit(OpCode::Create, &create("/ordered"));
    other.submit(OpCode::Create, &create("/behind"));
    other.flush().expect("a connection");
    let ordered = leader.request();
    assert_eq!((dropped.session, ordered.session), (passed_over.session, other.session));
    leader.order(&ordered);
    other.reply(wanted).expect("the answer of the one that was ordered");
    let behind = leader.request();
    leader.order(&behind);
    other.reply(wanted + 1).expect("and of what came behind it");
    assert!(passed_over.next().is_none(), "the other's connection ends, so that its client asks again");
}

/// Danger: a leader of another version, or a broken one, proposes what is no transaction. It is logged and acknowledged; all its
/// learners end at the COMMIT, and cannot start again.
#[test]
fn what_is_no_transaction_is_not_logged() {
    let header = TxnHeader {
        session: SessionId(9),
        cxid: 1,
        zxid: Zxid::new(Epoch(1), 7),
        time_ms: 1,
        kind: OpCode::Error,
    };
    let mut of_another_zxid = Vec::new();
    Txn::Error(ErrorCode::NO_NODE).encode_record(&header, &mut of_another_zxid);
    for record in [vec![0x55; 60], vec![0x55; 10], Vec::new(), of_another_zxid] {
        let (mut stage, _) = Stage::set(shape("none"), false);
        let mut leader = stage.lead();
        stage.cluster.await_modes("a follower", |modes| modes[0].as_deref() == Some("follower"));
        let zxid = Zxid::new(Epoch(1), 1);
        leader.link.say(&Packet::Proposal { zxid, record: record.into() });
        leader.link.until_closed(Instant::now(), |packet| {
            assert!(
                !matches!(packet, Packet::Ack { zxid: acknowledged } if acknowledged == zxid),
                "it was logged"
            );
            None
        });
        stage.cluster.server(0).await_log(&["closing the link to the leader", "0x100000001"]);
        stage.cluster.kill(0);
        stage.cluster.launch(0);
        stage.cluster.server(0).await_log(&["recovered from", "and 0 transactions of the log"]);
        stage.cluster.server(0).await_log(&["looking for a leader: started"]);
    }
}
