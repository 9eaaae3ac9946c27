//! Election connections: who keeps which, what is said again, and what a stranger can do.

use crate::fixture::{Host, address, ensemble, options, read_vote, run, run_for, send_vote, vote};
use bytes::Bytes;
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream},
    time::{Duration, Instant},
};
use zkfast::links::PeerAddresses;
use zkfast_wire::{Notification, ServerId, vote::Greeting};
use zkfast_zab::Event;

fn greeting(id: i64, addresses: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Greeting { server: Some(ServerId(id)), addresses: addresses.to_vec() }.encode(&mut bytes);
    bytes
}

/// Reads until the other side closes.
fn await_end(stream: &mut TcpStream, host: &mut Host) {
    stream.set_nonblocking(true).expect("a socket");
    run(&mut [host], "the end of a connection", |_| match stream.read(&mut [0; 1024]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    });
}

fn heard(host: &Host, from: i64, round: i64) -> bool {
    host.votes().any(|(id, vote)| id == ServerId(from) && vote.election_epoch == round)
}

/// Danger: two servers dial each other at the same moment and give up each other's connection for ever (G35).
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
        hosts.iter().all(|host| (1..=5).all(|from| heard(host, from, 1)))
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

/// Danger: a server that comes up late is told of votes that nobody holds any more, or of none at all (Q16).
#[test]
fn the_newest_vote_waits_and_the_last_one_is_said_again() {
    let ensemble = ensemble(2);
    let mut first = Host::open(options(&ensemble, 1));
    for round in 1..=3 {
        first.links.notify(ServerId(2), vote(1, round));
        first.turn();
    }
    let mut second = Host::open(options(&ensemble, 2));
    run(&mut [&mut first, &mut second], "a vote for who came late", |hosts| heard(hosts[1], 1, 3));
    assert_eq!(second.votes().count(), 1, "older votes were replaced");
    assert!(first.has(&Event::PeerUp { peer: ServerId(2) }));

    // The other server is started again: it hears the same word, though nobody said it anew.
    drop(second);
    run(&mut [&mut first], "the loss of a peer", |hosts| {
        hosts[0].has(&Event::PeerDown { peer: ServerId(2) })
    });
    let mut again = Host::open(options(&ensemble, 2));
    run(&mut [&mut first, &mut again], "the last vote once more", |hosts| heard(hosts[1], 1, 3));
    let peer = &first.links.figures().peers[0];
    assert_eq!((peer.connects, peer.traffic.packets_sent, &peer.trouble), (2, 2, &None));
}

/// Danger: bytes that come one by one, or all at once, are taken for other messages.
#[test]
fn greetings_and_votes_may_come_in_any_pieces() {
    let ensemble = ensemble(1);
    let mut host = Host::open(options(&ensemble, 1));
    let mut stream = host.call_election_port(&ensemble);
    stream.set_nodelay(true).expect("TCP_NODELAY");
    let mut bytes = greeting(7, &["127.0.0.1:1".to_owned()]);
    send_vote(&mut bytes, &vote(7, 1));
    let (slowly, rest) = bytes.split_at(bytes.len() - 10);
    for byte in slowly {
        stream.write_all(&[*byte]).expect("an open connection");
        host.turn();
    }
    assert_eq!(host.votes().count(), 0);
    assert!(host.has(&Event::PeerUp { peer: ServerId(7) }));
    let mut rest = rest.to_vec();
    for round in 2..=50 {
        send_vote(&mut rest, &vote(7, round));
    }
    stream.write_all(&rest).expect("an open connection");
    run(&mut [&mut host], "fifty votes", |hosts| hosts[0].votes().count() == 50);
    assert!(host.votes().map(|(_, vote)| vote.election_epoch).eq(1..=50));

    // A greeting of 3.4 is the number alone.
    let mut old = host.call_election_port(&ensemble);
    old.write_all(&8_i64.to_be_bytes()).expect("an open connection");
    run(&mut [&mut host], "an old server", |hosts| hosts[0].has(&Event::PeerUp { peer: ServerId(8) }));
}

/// Q15. Danger: the longest vote is refused; or of two connections of one server the one that it left behind is kept.
#[test]
fn the_longest_vote_is_taken_and_the_newer_connection_kept() {
    let ensemble = ensemble(1);
    let mut host = Host::open(options(&ensemble, 1));
    let mut greeted = || {
        let mut stream = host.call_election_port(&ensemble);
        stream.write_all(&greeting(7, &["127.0.0.1:1".to_owned()])).expect("an open connection");
        let before = host.events.len();
        run(&mut [&mut host], "the greeting", |hosts| {
            hosts[0].events[before..].contains(&Event::PeerUp { peer: ServerId(7) })
        });
        stream
    };
    let mut older = greeted();
    let mut newer = greeted();
    await_end(&mut older, &mut host);
    let config = Bytes::from(vec![b'x'; Notification::MESSAGE_BYTES_MAX - Notification::HEAD_BYTES]);
    let mut bytes = Vec::new();
    send_vote(&mut bytes, &Notification { config: Some(config), ..vote(7, 3) });
    assert_eq!(bytes[..4], 524_288_i32.to_be_bytes());
    let writer = std::thread::spawn(move || newer.write_all(&bytes).map(|()| newer));
    run(&mut [&mut host], "the longest vote", |hosts| heard(hosts[0], 7, 3));
    let mut newer = writer.join().expect("the writer").expect("an open connection");
    host.links.notify(ServerId(7), vote(1, 9));
    host.turn();
    assert_eq!(read_vote(&mut newer).election_epoch, 9);
    assert_eq!(host.links.figures().troubles.garbage, 0);
}

/// Danger: a stranger on the election port costs memory, or a place that a server needs (R19).
#[test]
fn strangers_are_shown_the_door() {
    let ensemble = ensemble(2);
    let mut settings = options(&ensemble, 1);
    settings.greeting_limit = Duration::from_millis(50);
    let mut host = Host::open(settings);
    // Another protocol, a text that is too long, a message that is too long or has no length.
    let mut long = greeting(3, &[]);
    long[16..20].copy_from_slice(&4000_i32.to_be_bytes());
    for bytes in [(-1_i64).to_be_bytes().to_vec(), long] {
        let mut stream = host.call_election_port(&ensemble);
        stream.write_all(&bytes).expect("an open connection");
        await_end(&mut stream, &mut host);
    }
    for length in [0, -1, 524_289, i32::MAX] {
        let mut stream = host.call_election_port(&ensemble);
        let mut bytes = greeting(3, &["127.0.0.1:1".to_owned()]);
        bytes.extend(length.to_be_bytes());
        stream.write_all(&bytes).expect("an open connection");
        await_end(&mut stream, &mut host);
    }
    assert_eq!(host.links.figures().troubles.garbage, 6);
    assert!(
        host.links.figures().peers.iter().all(|peer| peer.server == ServerId(2)),
        "strangers are forgotten"
    );

    // One that says nothing, one that stops in the middle.
    let mut silent = host.call_election_port(&ensemble);
    await_end(&mut silent, &mut host);
    let mut half = host.call_election_port(&ensemble);
    half.write_all(&greeting(3, &["127.0.0.1:1".to_owned()])[..21]).expect("an open connection");
    await_end(&mut half, &mut host);
    assert_eq!(host.links.figures().troubles.silent, 2);

    // One that says that it is this server: a second one with its myid.
    let mut same = host.call_election_port(&ensemble);
    same.write_all(&greeting(1, &["127.0.0.1:1".to_owned()])).expect("an open connection");
    await_end(&mut same, &mut host);
    assert!(!host.has(&Event::PeerUp { peer: ServerId(1) }));
}

/// Danger: a crowd of silent callers keeps the servers of the ensemble out.
#[test]
fn a_crowd_of_callers_does_not_keep_servers_out() {
    let ensemble = ensemble(2);
    let mut settings = options(&ensemble, 1);
    settings.greeting_limit = Duration::from_secs(3600);
    let mut host = Host::open(settings);
    let crowd: Vec<TcpStream> = (0..200)
        .map(|_| {
            let stream = host.call_election_port(&ensemble);
            host.turn();
            stream
        })
        .collect();
    let mut peer = Host::open(options(&ensemble, 2));
    peer.links.notify(ServerId(1), vote(2, 1));
    run(&mut [&mut host, &mut peer], "a vote through the crowd", |hosts| heard(hosts[0], 2, 1));
    assert!(host.links.figures().troubles.refused >= 100, "{:?}", host.links.figures().troubles);
    drop(crowd);
}

/// A vote that is no vote is dropped; the connection stays (Q19).
#[test]
fn a_vote_that_cannot_be_read_is_dropped() {
    let ensemble = ensemble(1);
    let mut host = Host::open(options(&ensemble, 1));
    let mut stream = host.call_election_port(&ensemble);
    let mut bytes = greeting(7, &["127.0.0.1:1".to_owned()]);
    bytes.extend(5_i32.to_be_bytes());
    bytes.extend([1, 2, 3, 4, 5]);
    send_vote(&mut bytes, &vote(7, 2));
    stream.write_all(&bytes).expect("an open connection");
    run(&mut [&mut host], "the vote behind", |hosts| heard(hosts[0], 7, 2));
    assert!(!host.has(&Event::PeerDown { peer: ServerId(7) }));
}

/// Danger: an observer without a number cannot take part, or two of them are mixed up (Q14).
#[test]
fn observers_without_a_number_are_numbered() {
    let ensemble = ensemble(1);
    let mut host = Host::open(options(&ensemble, 1));
    let mut bytes = Vec::new();
    Greeting { server: None, addresses: vec!["127.0.0.1:1".to_owned()] }.encode(&mut bytes);
    let mut streams = [0, 1].map(|_| {
        let mut stream = host.call_election_port(&ensemble);
        stream.write_all(&bytes).expect("an open connection");
        stream
    });
    run(&mut [&mut host], "two observers", |hosts| {
        [-1, -2].iter().all(|id| hosts[0].has(&Event::PeerUp { peer: ServerId(*id) }))
    });
    host.links.notify(ServerId(-2), vote(1, 9));
    host.turn();
    assert_eq!(read_vote(&mut streams[1]).election_epoch, 9);
    drop(streams);
    run(&mut [&mut host], "their end", |hosts| hosts[0].links.figures().peers.is_empty());
}

/// Danger: a server keeps a connection that is dead at the other end, and never hears of its peer again (Q13).
#[test]
fn a_knock_replaces_a_connection_that_stands_for_long() {
    let mut ensemble = ensemble(2);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    ensemble.get_mut(&ServerId(1)).expect("server 1")[0].election_port = port_of(&listener);
    let mut host = Host::open(options(&ensemble, 2));
    listener.set_nonblocking(true).expect("a socket");
    let accept = |host: &mut Host| {
        let mut accepted = None;
        run(&mut [host], "a dial", |_| {
            accepted = accepted.take().or_else(|| listener.accept().ok());
            accepted.is_some()
        });
        accepted.expect("accepted").0
    };
    host.links.notify(ServerId(1), vote(2, 1));
    let mut first = accept(&mut host);
    assert_eq!(read_greeting(&mut first, &mut host).server, Some(ServerId(2)));
    host.turn();
    assert_eq!(read_vote(&mut first).election_epoch, 1);

    // Both dialled at the same moment: the knock is older than the connection, which stays.
    let own = vec![format!("127.0.0.1:{}", port_of(&listener))];
    let mut knock = host.call_election_port(&ensemble);
    knock.write_all(&greeting(1, &own)).expect("an open connection");
    await_end(&mut knock, &mut host);
    assert!(!host.has(&Event::PeerDown { peer: ServerId(1) }));

    // A second later the same means that the peer has lost it. The time is what the test is about.
    run_for(&mut [&mut host], Duration::from_millis(1050));
    let mut knock = host.call_election_port(&ensemble);
    knock.write_all(&greeting(1, &own)).expect("an open connection");
    let mut second = accept(&mut host);
    read_greeting(&mut second, &mut host);
    host.turn();
    assert_eq!(read_vote(&mut second).election_epoch, 1, "the last word is said again (Q16)");
    await_end(&mut first, &mut host);
    let ups = host.events.iter().filter(|event| **event == Event::PeerUp { peer: ServerId(1) }).count();
    assert_eq!((ups, host.has(&Event::PeerDown { peer: ServerId(1) })), (2, true));
}

/// Danger: a peer that reads nothing makes votes pile up, and hears old ones when it reads again.
#[test]
fn a_peer_that_does_not_read_costs_two_votes() {
    let ensemble = ensemble(1);
    let mut host = Host::open(options(&ensemble, 1));
    let mut stream = host.call_election_port(&ensemble);
    stream.write_all(&greeting(7, &["127.0.0.1:1".to_owned()])).expect("an open connection");
    run(&mut [&mut host], "a peer", |hosts| hosts[0].has(&Event::PeerUp { peer: ServerId(7) }));
    let long = Bytes::from(vec![b'x'; 500_000]);
    for round in 1..=200 {
        let notification = Notification { config: Some(long.clone()), ..vote(1, round) };
        host.links.notify(ServerId(7), notification);
        host.links.flush();
    }
    stream.set_nonblocking(true).expect("a socket");
    let (mut bytes, mut heard) = (Vec::new(), Vec::new());
    run(&mut [&mut host], "the newest vote", |_| {
        let mut chunk = vec![0; 1 << 20];
        while let Ok(read @ 1..) = stream.read(&mut chunk) {
            bytes.extend_from_slice(&chunk[..read]);
        }
        while let Some(length) = bytes.first_chunk::<4>().map(|length| i32::from_be_bytes(*length) as usize)
            && bytes.len() >= 4 + length
        {
            let message = Bytes::from(bytes.drain(..4 + length).skip(4).collect::<Vec<u8>>());
            heard.push(Notification::decode(&message).expect("a vote").election_epoch);
        }
        heard.last() == Some(&200)
    });
    assert!(heard.is_sorted() && heard.len() < 100, "{heard:?}");
}

/// Danger: a port that is taken for a moment keeps the server out for ever, or is fought for for ever (Q17).
#[test]
fn a_taken_port_is_tried_again() {
    let ensemble = ensemble(1);
    let own = &ensemble[&ServerId(1)][0];
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, own.election_port)).expect("the port");
    let mut settings = options(&ensemble, 1);
    settings.bind_tries_max = 0;
    let mut host = Host::open(settings);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, own.quorum_port)).is_ok(), "the other port is bound");
    host.turn();
    drop(other);
    run(&mut [&mut host], "the port", |hosts| {
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, own.election_port)) else {
            return false;
        };
        stream.write_all(&greeting(9, &["127.0.0.1:1".to_owned()])).expect("an open connection");
        hosts[0].turn();
        hosts[0].turn();
        hosts[0].has(&Event::PeerUp { peer: ServerId(9) })
    });

    // With two tries the second one is the last.
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let mut ensemble = ensemble.clone();
    ensemble.get_mut(&ServerId(1)).expect("server 1")[0] = address("127.0.0.1");
    ensemble.get_mut(&ServerId(1)).expect("server 1")[0].quorum_port = port_of(&other);
    let mut settings = options(&ensemble, 1);
    settings.bind_tries_max = 2;
    let mut host = Host::open(settings);
    let start = Instant::now();
    let error = loop {
        host.links.sleep(Duration::from_secs(1)).expect("epoll");
        if let Err(error) = host.links.receive(&mut host.events) {
            break error.to_string();
        }
        assert!(start.elapsed() < Duration::from_secs(20), "tried for ever");
    };
    assert!(error.contains("after 2 tries") && error.contains("learners"), "{error}");
}

/// Danger: a server whom no learner can reach is heard, and elected again and again.
#[test]
fn callers_are_refused_while_the_quorum_port_is_taken() {
    let ensemble = ensemble(2);
    let own = &ensemble[&ServerId(1)][0];
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, own.quorum_port)).expect("the port");
    let mut settings = options(&ensemble, 1);
    settings.bind_tries_max = 0;
    let mut host = Host::open(settings);
    let call = || TcpStream::connect((Ipv4Addr::LOCALHOST, own.election_port));
    assert_eq!(call().map(|_| ()).map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionRefused));
    let mut larger = Host::open(options(&ensemble, 2));
    for (host, to) in [(&mut host, 2), (&mut larger, 1)] {
        host.links.notify(ServerId(to), vote(1, 1));
    }
    run(&mut [&mut host, &mut larger], "a call in vain", |hosts| {
        hosts[1].links.figures().peers[0].trouble.as_ref().is_some_and(|words| words.contains("refused"))
    });
    assert_eq!((host.votes().count(), larger.votes().count()), (0, 0));
    // Nobody listens there, so somebody else may; then the port is taken, as any.
    let thief = TcpListener::bind((Ipv4Addr::LOCALHOST, own.election_port)).expect("the port");
    drop(other);
    run(&mut [&mut host, &mut larger], "the quorum port", |_| {
        TcpStream::connect((Ipv4Addr::LOCALHOST, own.quorum_port)).is_ok()
    });
    assert_eq!((host.votes().count(), larger.votes().count()), (0, 0));
    drop(thief);
    run(&mut [&mut host, &mut larger], "votes", |hosts| heard(hosts[0], 2, 1) && heard(hosts[1], 1, 1));
}

/// IPv6, several addresses for a server, and a name: the first that answers is taken.
#[test]
fn peers_are_reached_at_any_of_their_addresses() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        eprintln!("this machine has no IPv6 loopback: nothing to test");
        return;
    }
    let nobody =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map(|listener| port_of(&listener)).expect("a port");
    let mut ensemble = PeerAddresses::new();
    ensemble.insert(ServerId(1), vec![address("::1"), address("127.0.0.1")]);
    let mut second = address("localhost");
    ensemble.insert(ServerId(2), vec![second.clone()]);
    let (mut one, mut two) = (Host::open(options(&ensemble, 1)), Host::open(options(&ensemble, 2)));
    one.links.notify(ServerId(2), vote(1, 1));
    two.links.notify(ServerId(1), vote(2, 1));
    run(&mut [&mut one, &mut two], "votes", |hosts| heard(hosts[0], 2, 1) && heard(hosts[1], 1, 1));

    // Nobody is at the first of its addresses any more; then its only one has changed.
    drop(one);
    let mut moved = ensemble.clone();
    moved.get_mut(&ServerId(1)).expect("server 1")[0].election_port = nobody;
    second = address("127.0.0.1");
    moved.insert(ServerId(2), vec![second]);
    two.links.set_config(moved.clone()).expect("new ports");
    let mut own = moved.clone();
    own.insert(ServerId(1), moved[&ServerId(1)][1..].to_vec());
    let mut one = Host::open(options(&own, 1));
    two.links.notify(ServerId(1), vote(2, 2));
    one.links.notify(ServerId(2), vote(1, 2));
    run(&mut [&mut one, &mut two], "votes at other addresses", |hosts| {
        heard(hosts[0], 2, 2) && heard(hosts[1], 1, 2)
    });
}

fn port_of(listener: &TcpListener) -> u16 {
    listener.local_addr().expect("a bound listener").port()
}

fn read_greeting(stream: &mut TcpStream, host: &mut Host) -> Greeting {
    stream.set_nonblocking(true).expect("a socket");
    let mut bytes = Vec::new();
    let mut greeting = None;
    run(&mut [host], "a greeting", |_| {
        // Byte by byte: what follows is not for this function.
        let mut byte = [0];
        while greeting.is_none() && stream.read(&mut byte).is_ok_and(|read| read == 1) {
            bytes.push(byte[0]);
            greeting = Greeting::decode(&bytes).expect("a greeting").map(|(greeting, _)| greeting);
        }
        greeting.is_some()
    });
    greeting.expect("a whole greeting")
}
