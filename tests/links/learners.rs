//! Learner connections between two of us: packets both ways, transfers, images, bounds.

use crate::fixture::{Host, ensemble, options, run};
use bytes::Bytes;
use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use zkfast::links::{PeerAddresses, Source};
use zkfast_wire::{
    Epoch, Id, Packet, ServerId, SessionId, Zxid,
    quorum::{Direction, ForwardedRequest, LearnerInfo},
};
use zkfast_zab::{Event, LinkId};

/// A leader (server 2) and a learner (server 1) that has dialled it; the links of both.
pub fn connected() -> (Host, LinkId, Host, LinkId) {
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
    run(&mut [&mut learner, &mut leader], "the end of the transfer", |hosts| {
        hosts[1].has(&Event::Transferred { link: down, through: Zxid(9) })
    });
    let figures = leader.links.figures();
    assert_eq!((figures.links[0].server, figures.links[0].queued_bytes), (Some(ServerId(1)), 0));
    assert_eq!(figures.links[0].queued_packets, 0);
}

/// Bytes of these packets, one behind the other.
fn encoded(packets: &[Packet]) -> Vec<u8> {
    let mut bytes = Vec::new();
    packets.iter().for_each(|packet| packet.encode(&mut bytes));
    bytes
}

fn acks(first: i64, last: i64) -> Vec<Packet> {
    (first..=last).map(|at| Packet::Ack { zxid: Zxid(at) }).collect()
}

/// A plain learner that has called this host.
fn caller(host: &mut Host, ensemble: &PeerAddresses) -> (TcpStream, LinkId) {
    let before = host.events.len();
    let stream = host.call_quorum_port(ensemble);
    stream.set_nodelay(true).expect("TCP_NODELAY");
    run(&mut [&mut *host], "a call", |hosts| hosts[0].events.len() > before);
    let link = host.link().expect("up");
    (stream, link)
}

fn is_down(link: LinkId) -> impl Fn(&mut [&mut Host]) -> bool {
    move |hosts| hosts[0].has(&Event::Down { link })
}

/// Danger: the end of a packet is guessed where its bytes come one by one, or many packets at once.
#[test]
fn packets_may_come_in_any_pieces() {
    let ensemble = ensemble(1);
    let mut host = Host::open(options(&ensemble, 1));
    let (mut stream, _) = caller(&mut host, &ensemble);
    let request = Packet::Request(Box::new(ForwardedRequest {
        session: SessionId(5),
        cxid: 6,
        op: 1,
        body: Bytes::from_static(b"a body"),
        identities: vec![Id::new("ip", "127.0.0.1"), Id::new("digest", "user:secret")],
    }));
    let mut packets =
        vec![request, Packet::Ping { zxid: Zxid(1), touched: Some(Bytes::from_static(&[1; 24])) }];
    packets.extend(acks(1, 3));
    for byte in encoded(&packets) {
        stream.write_all(&[byte]).expect("an open connection");
        host.turn();
    }
    run(&mut [&mut host], "all packets", |hosts| hosts[0].packets().count() == packets.len());
    assert!(host.packets().eq(&packets));
    let many = acks(4, 60_000);
    let bytes = encoded(&many);
    let writer =
        std::thread::spawn(move || stream.write_all(&bytes).map(|()| stream).expect("an open connection"));
    run(&mut [&mut host], "many packets", |hosts| hosts[0].packets().count() == packets.len() + many.len());
    writer.join().expect("the writer");
    assert!(host.packets().skip(packets.len()).eq(&many));
}

/// Danger: bytes that are no packets, or claim to be huge ones, cost memory or the server.
#[test]
fn garbage_closes_its_link() {
    let ensemble = ensemble(1);
    let mut settings = options(&ensemble, 1);
    settings.packet_bytes_max = 4096;
    let mut host = Host::open(settings);
    let claimed = |length: i32| {
        let mut bytes = encoded(&acks(7, 7))[..12].to_vec();
        bytes.extend(length.to_be_bytes());
        bytes
    };
    // As long as is allowed, and then more and more identities: bounded as well.
    let mut endless = claimed(4096);
    endless.resize(endless.len() + 4096, 0);
    endless.extend(4000_i32.to_be_bytes());
    for _ in 0..100 {
        endless.extend(1000_i32.to_be_bytes());
        endless.resize(endless.len() + 1000, b'x');
    }
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: zoo1\r\n\r\n".to_vec(),
        claimed(4097),
        claimed(-2),
        claimed(i32::MAX),
        endless,
    ] {
        let (mut stream, link) = caller(&mut host, &ensemble);
        // The server may close before the last byte is written.
        let _ = stream.write_all(&bytes);
        run(&mut [&mut host], "the end of a stranger", is_down(link));
    }
    assert_eq!(host.links.figures().troubles.garbage, 5);
    assert_eq!(host.packets().count(), 0);
    let (mut stream, link) = caller(&mut host, &ensemble);
    stream.write_all(&encoded(&acks(1, 1))).expect("an open connection");
    run(&mut [&mut host], "a learner", |hosts| hosts[0].packets().count() == 1);
    assert_eq!(host.link(), Some(link));
}

fn ping(bytes: usize) -> Packet {
    Packet::Ping { zxid: Zxid(1), touched: Some(vec![1; bytes].into()) }
}

/// Danger: who only says that it is a learner has as much memory kept for it as one that is served.
#[test]
fn a_learner_says_nothing_long_before_it_is_served() {
    let ensemble = ensemble(1);
    let mut host = Host::open(options(&ensemble, 1));
    let long = encoded(&[ping(60_000)]);
    let half = long.len() / 2;
    let (mut stranger, link) = caller(&mut host, &ensemble);
    stranger.write_all(&encoded(&acks(1, 1))).expect("an open connection");
    stranger.write_all(&long[..half]).expect("room in the socket");
    run(&mut [&mut host], "the end of a stranger", is_down(link));

    let (mut learner, link) = caller(&mut host, &ensemble);
    host.links.send(link, &Packet::NewLeader { epoch: Epoch(1), config: None });
    host.links.send(link, &Packet::UpToDate);
    learner.write_all(&long[..half]).expect("an open connection");
    run(&mut [&mut host], "the first half", |hosts| {
        let learner = &hosts[0].links.figures().links[0];
        learner.traffic.bytes_received == half as u64
    });
    learner.write_all(&long[half..]).expect("an open connection");
    run(&mut [&mut host], "a long packet", |hosts| hosts[0].packets().any(|packet| *packet == ping(60_000)));
    assert_eq!(host.link(), Some(link));
}

/// Danger: learners that are served, or have the leader believe so, have it keep a long packet for each of a thousand
/// connections.
#[test]
fn learners_together_keep_no_more_than_the_bound() {
    let ensemble = ensemble(1);
    let mut settings = options(&ensemble, 1);
    settings.kept_bytes_max = 100_000;
    let mut host = Host::open(settings);
    let long = encoded(&[ping(70_000)]);
    let begun = |host: &mut Host, bytes: usize| {
        let (mut stream, link) = caller(host, &ensemble);
        host.links.send(link, &Packet::UpToDate);
        stream.write_all(&long[..bytes]).expect("an open connection");
        run(&mut [&mut *host], "a beginning", |hosts| {
            let figures = hosts[0].links.figures();
            let has_come =
                |at: &zkfast::status::links::LinkFigures| at.traffic.bytes_received == bytes as u64;
            figures.links.iter().find(|at| at.link == link.0).is_some_and(has_come)
        });
        (stream, link)
    };
    let (_first, largest) = begun(&mut host, 60_000);
    let (mut second, _) = begun(&mut host, 39_000);
    assert_eq!(host.links.figures().links.len(), 2);
    let (mut third, _) = begun(&mut host, 20_000);
    run(&mut [&mut host], "the end of the largest", is_down(largest));
    assert_eq!(host.links.figures().troubles.garbage, 1);
    second.write_all(&long[39_000..]).expect("an open connection");
    third.write_all(&long[20_000..]).expect("an open connection");
    run(&mut [&mut host], "the others", |hosts| hosts[0].packets().count() == 2);
}

/// Danger: a learner that stops reading makes the leader keep all that it ever sent (R17).
#[test]
fn a_learner_that_never_reads_is_closed() {
    let ensemble = ensemble(1);
    let mut settings = options(&ensemble, 1);
    settings.queue_bytes_max = 4 << 20;
    let mut host = Host::open(settings);
    let (stream, link) = caller(&mut host, &ensemble);
    let record = Bytes::from(vec![7; 100_000]);
    let mut queued_max = 0;
    for counter in 1..=10_000 {
        host.links.send_proposal(link, Zxid(counter), &record);
        host.turn();
        let figures = host.links.figures();
        let Some(figure) = figures.links.first() else { break };
        queued_max = queued_max.max(figure.queued_bytes);
        assert!(counter < 10_000, "a gigabyte waits");
    }
    run(&mut [&mut host], "the end of the learner", is_down(link));
    assert_eq!(host.links.figures().troubles.overflows, 1);
    assert!((3 << 20..5 << 20).contains(&queued_max), "{queued_max} bytes waited");
    drop(stream);
}

/// Danger: a learner at the end of a slow line is taken for one that does not read.
#[test]
fn a_learner_may_read_slowly() {
    let ensemble = ensemble(1);
    let mut host = Host::open(options(&ensemble, 1));
    let (mut stream, link) = caller(&mut host, &ensemble);
    stream.set_nonblocking(true).expect("a socket");
    let records: Vec<Bytes> =
        (0..100_usize).map(|index| Bytes::from(vec![index as u8; index * 997])).collect();
    for (record, counter) in records.iter().zip(1..) {
        host.links.send_proposal(link, Zxid(counter), record);
    }
    host.links.mark_transferred(link, Zxid(100));
    let mut bytes = Vec::new();
    let expected: usize = records.iter().map(|record| record.len() + 20).sum();
    run(&mut [&mut host], "a slow read", |_| {
        let mut chunk = [0; 20_011];
        if let Ok(read) = stream.read(&mut chunk) {
            bytes.extend_from_slice(&chunk[..read]);
        }
        bytes.len() >= expected
    });
    let mut rest = Bytes::from(bytes);
    for (expected, counter) in records.iter().zip(1..) {
        let (packet, taken) =
            Packet::decode(&rest, Direction::ToLearner, 1 << 20).expect("a packet").expect("a whole one");
        assert_eq!(packet, Packet::Proposal { zxid: Zxid(counter), record: expected.clone() });
        rest = rest.slice(taken..);
    }
    assert!(rest.is_empty());
    run(&mut [&mut host], "the end of the transfer", |hosts| {
        hosts[0].has(&Event::Transferred { link, through: Zxid(100) })
    });
}

/// Danger: what comes live overtakes the history that it belongs behind; or Transferred is told too early.
#[test]
fn a_stream_goes_out_in_its_place() {
    let (mut leader, down, mut learner, _) = connected();
    leader.links.send(down, &Packet::Diff { zxid: Zxid(2000) });
    let mut at = 0;
    let source: Source = Box::new(move |out| {
        // Pieces of all sizes, some empty, one larger than a piece should be.
        let count = [0, 1, 50, 400][at as usize % 4];
        for _ in 0..count {
            at += 1;
            let record = Bytes::from(vec![at as u8; at as usize % 3000]);
            Packet::Proposal { zxid: Zxid(at), record }.encode(out);
        }
        if count == 0 {
            at += 1;
            Packet::Proposal { zxid: Zxid(at), record: Bytes::new() }.encode(out);
        }
        Ok(at < 2000)
    });
    leader.links.stream(down, Zxid(2000), source).expect("a thread");
    for counter in 10_000..10_100 {
        leader.links.send(down, &Packet::Commit { zxid: Zxid(counter) });
    }
    assert!(leader.links.figures().links[0].is_transferring);
    run(&mut [&mut learner, &mut leader], "the live traffic", |hosts| {
        hosts[0].packets().last() == Some(&Packet::Commit { zxid: Zxid(10_099) })
            && hosts[1].events.iter().any(|event| matches!(event, Event::Transferred { .. }))
    });
    let packets: Vec<&Packet> = learner.packets().collect();
    assert_eq!(packets[0], &Packet::Diff { zxid: Zxid(2000) });
    let (history, live) = packets[1..].split_at(packets.len() - 101);
    for (packet, counter) in history.iter().zip(1..) {
        let Packet::Proposal { zxid, record } = packet else { panic!("{packet:?} among the history") };
        assert_eq!(*zxid, Zxid(counter));
        assert!(record.iter().all(|byte| *byte == counter as u8));
    }
    assert!(history.len() >= 2000 && live.iter().all(|packet| matches!(packet, Packet::Commit { .. })));
    assert!(leader.has(&Event::Transferred { link: down, through: Zxid(2000) }));
    assert!(!leader.links.figures().links[0].is_transferring);
}

/// Danger: reading ahead for a learner that does not read fills the memory; its thread lives for ever.
#[test]
fn a_stream_waits_for_its_learner_and_ends_with_it() {
    let ensemble = ensemble(1);
    let mut host = Host::open(options(&ensemble, 1));
    let (stream, link) = caller(&mut host, &ensemble);
    let produced = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&produced);
    let source: Source = Box::new(move |out| {
        out.resize(100_000, 1);
        count.fetch_add(out.len(), Ordering::Relaxed);
        Ok(true)
    });
    host.links.stream(link, Zxid(1), source).expect("a thread");
    let mut before = usize::MAX;
    // Until the thread stands still: the kernel holds some megabytes, the channel some pieces.
    run(&mut [&mut host], "a stop", |_| {
        let now = produced.load(Ordering::Relaxed);
        now > 500_000 && std::mem::replace(&mut before, now) == now
    });
    assert!(produced.load(Ordering::Relaxed) < 64 << 20);
    drop(stream);
    run(&mut [&mut host], "the end of the learner", is_down(link));
    // The source is dropped with its thread.
    run(&mut [&mut host], "the end of the thread", |_| Arc::strong_count(&produced) == 1);
}

/// Danger: history that cannot be read is passed over in silence.
#[test]
fn a_stream_that_fails_closes_its_link() {
    let (mut leader, down, mut learner, up) = connected();
    let mut first = true;
    let source: Source = Box::new(move |out| {
        if std::mem::replace(&mut first, false) {
            Packet::Commit { zxid: Zxid(1) }.encode(out);
            return Ok(true);
        }
        Err(std::io::Error::from_raw_os_error(5))
    });
    leader.links.stream(down, Zxid(2), source).expect("a thread");
    run(&mut [&mut learner, &mut leader], "both ends down", |hosts| {
        hosts[0].has(&Event::Down { link: up }) && hosts[1].has(&Event::Down { link: down })
    });
    assert_eq!(leader.links.figures().troubles.failed_transfers, 1);
    assert!(!leader.events.iter().any(|event| matches!(event, Event::Transferred { .. })));

    let (mut leader, down, mut learner, up) = connected();
    leader.links.stream(down, Zxid(2), Box::new(|_| panic!("as the test wants"))).expect("a thread");
    run(&mut [&mut learner, &mut leader], "both ends down", |hosts| {
        hosts[0].has(&Event::Down { link: up }) && hosts[1].has(&Event::Down { link: down })
    });
}

/// What a learner hears of a leader that is not there, in time for another try (Q46).
#[test]
fn dials_that_fail_say_so() {
    let ensemble = ensemble(2);
    let mut settings = options(&ensemble, 1);
    settings.leader_dial_limit = Duration::from_millis(200);
    let mut host = Host::open(settings);
    for leader in [2, 77] {
        host.links.dial(ServerId(leader));
        run(&mut [&mut host], "a failure", |hosts| {
            hosts[0].has(&Event::DialFailed { leader: ServerId(leader) })
        });
    }
    // A new dial takes the place of the old one, of which nothing is heard any more.
    let mut other = Host::open(options(&ensemble, 2));
    host.events.clear();
    host.links.dial(ServerId(77));
    host.links.dial(ServerId(2));
    run(&mut [&mut host, &mut other], "a link", |hosts| hosts[0].link().is_some());
    let ups = host.events.iter().filter(|event| matches!(event, Event::Up { .. })).count();
    assert_eq!(ups, 1, "{:?}", host.events);
}

/// Danger: a link that the order has closed still brings events, or its number comes back.
#[test]
fn a_closed_link_is_silent() {
    let (mut leader, down, mut learner, up) = connected();
    learner.links.send_acks(up, Zxid(1), Zxid(5));
    learner.links.flush();
    leader.links.close(down);
    leader.links.send(down, &Packet::UpToDate);
    run(&mut [&mut learner, &mut leader], "the other end", |hosts| hosts[0].has(&Event::Down { link: up }));
    assert_eq!(leader.events.len(), 1, "{:?}", leader.events);
    learner.links.dial(ServerId(2));
    run(&mut [&mut learner, &mut leader], "another link", |hosts| {
        hosts
            .iter()
            .all(|host| host.link().is_some_and(|link| link != up && link != down || host.id == ServerId(1)))
            && hosts[0].link().is_some()
    });
    assert!(leader.link() > Some(down));
}

/// Danger: a crowd on the quorum port takes all descriptors.
#[test]
fn learners_beyond_the_limit_are_refused() {
    let ensemble = ensemble(1);
    let mut settings = options(&ensemble, 1);
    settings.links_max = 3;
    let mut host = Host::open(settings);
    let mut crowd: Vec<TcpStream> = (0..8).map(|_| host.call_quorum_port(&ensemble)).collect();
    run(&mut [&mut host], "refusals", |hosts| hosts[0].links.figures().troubles.refused == 5);
    assert_eq!(host.links.figures().links.len(), 3);
    crowd.remove(0);
    run(&mut [&mut host], "room", |hosts| hosts[0].links.figures().links.len() == 2);
    caller(&mut host, &ensemble);
    assert_eq!(host.links.figures().links.len(), 3);
}

/// Danger: the pipeline sleeps though it is wanted, or is kept awake by a bell that was heard.
#[test]
fn the_bell_and_the_waker_end_a_sleep() {
    let ensemble = ensemble(1);
    let mut host = Host::open(options(&ensemble, 1));
    let long = Duration::from_secs(20);
    let slept = |host: &mut Host, limit: Duration| {
        let start = Instant::now();
        host.links.sleep(limit).expect("epoll");
        host.links.receive(&mut host.events).expect("bound ports");
        start.elapsed()
    };
    host.ring();
    assert!(slept(&mut host, long) < long);
    host.links.waker().wake();
    assert!(slept(&mut host, long) < long);
    let short = Duration::from_millis(30);
    assert!(slept(&mut host, short) >= short, "nothing is left of the ringing");
    let waker = host.links.waker();
    let thread = std::thread::spawn(move || waker.wake());
    assert!(slept(&mut host, long) < long);
    thread.join().expect("the waking thread");
}

/// The driver makes the links on one thread and uses them on another.
#[test]
fn links_may_move_to_their_thread() {
    fn is_send<T: Send>() {}
    is_send::<zkfast::links::Links>();
    is_send::<zkfast::links::ImageReader>();
    is_send::<zkfast::links::ImageEnd>();
}
