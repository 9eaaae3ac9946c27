//! The image behind SNAP: found, read beside the pipeline, and given up without harm.

use crate::{
    fixture::{Host, ensemble, options, run, run_for},
    learners::connected,
};
use bytes::{BufMut, Bytes};
use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};
use zkfast::links::{ImageEnd, ImageReader, Waker};
use zkfast_wire::{Packet, ServerId, Zxid, quorum::SNAPSHOT_SIGNATURE};
use zkfast_zab::{Event, LinkId};

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_i32(i32::try_from(text.len()).expect("short"));
    out.put_slice(text.as_bytes());
}

/// An image of so many nodes.
fn image(nodes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_i32(1);
    out.put_bytes(3, 12);
    out.put_i32(1);
    out.put_i64(1);
    out.put_i32(1);
    out.put_i32(31);
    put_text(&mut out, "world");
    put_text(&mut out, "anyone");
    for node in 0..nodes {
        put_text(&mut out, &if node == 0 { String::new() } else { format!("/{node}") });
        out.put_i32(i32::try_from(node % 1000).expect("short"));
        out.put_bytes(node as u8, node % 1000);
        out.put_bytes(0, 68);
    }
    put_text(&mut out, "/");
    out
}

fn signed(mut image: Vec<u8>) -> Vec<u8> {
    put_text(&mut image, SNAPSHOT_SIGNATURE);
    image
}

/// Reads an image on a thread of its own, as the driver does.
fn read_beside(mut reader: ImageReader, waker: Waker) -> Receiver<io::Result<(Vec<u8>, ImageEnd)>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut image = Vec::new();
        let outcome = reader.read_to_end(&mut image).and_then(|_| reader.finish()).map(|end| (image, end));
        let _ = sender.send(outcome);
        waker.wake();
    });
    receiver
}

fn await_image(
    hosts: &mut [&mut Host],
    receiver: &Receiver<io::Result<(Vec<u8>, ImageEnd)>>,
) -> io::Result<(Vec<u8>, ImageEnd)> {
    let mut outcome = None;
    run(hosts, "the end of the image", |_| {
        outcome = outcome.take().or_else(|| receiver.try_recv().ok());
        outcome.is_some()
    });
    outcome.expect("awaited")
}

/// Danger: the packets behind an image are lost, read as nodes, or come before the image is installed.
#[test]
fn an_image_and_what_follows_it() {
    let (mut leader, down, mut learner, up) = connected();
    let expected = image(20_000);
    let mut bytes = signed(expected.clone());
    leader.links.send(down, &Packet::Snap { zxid: Zxid(9) });
    let source = move |out: &mut Vec<u8>| {
        let step = bytes.len().min(300_000);
        out.extend(bytes.drain(..step));
        Ok(!bytes.is_empty())
    };
    leader.links.stream(down, Zxid(9), Box::new(source)).expect("a thread");
    for counter in 10..20 {
        leader.links.send_proposal(down, Zxid(counter), &Bytes::from_static(b"record"));
    }
    run(&mut [&mut learner, &mut leader], "SNAP", |hosts| hosts[0].packets().count() == 1);
    let reader = learner.links.take_image(up).expect("an image");
    assert!(learner.links.take_image(up).is_none(), "there is one reader");
    let receiver = read_beside(reader, learner.links.waker());
    // What is sent meanwhile leaves.
    learner.links.send_acks(up, Zxid(1), Zxid(1));
    let (image, end) = await_image(&mut [&mut learner, &mut leader], &receiver).expect("an image");
    assert!(image == expected, "{} bytes came, {} were sent", image.len(), expected.len());
    run(&mut [&mut learner, &mut leader], "what the learner sent", |hosts| hosts[1].packets().count() == 1);
    run(&mut [&mut learner, &mut leader], "the end of the transfer", |hosts| {
        hosts[1].has(&Event::Transferred { link: down, through: Zxid(9) })
    });

    // Nothing comes before the image is installed.
    run_for(&mut [&mut learner, &mut leader], Duration::from_millis(20));
    assert_eq!(learner.packets().count(), 1);
    learner.links.resume(end);
    run(&mut [&mut learner, &mut leader], "what follows", |hosts| hosts[0].packets().count() == 11);
    leader.links.send(down, &Packet::UpToDate);
    run(&mut [&mut learner, &mut leader], "UPTODATE", |hosts| {
        hosts[0].packets().last() == Some(&Packet::UpToDate)
    });
}

/// A learner (server 1) that has dialled a leader played by the test.
fn learner_of(settings: impl FnOnce(&mut zkfast::links::LinkOptions)) -> (Host, LinkId, TcpStream) {
    let mut ensemble = ensemble(2);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    ensemble.get_mut(&ServerId(2)).expect("server 2")[0].quorum_port = port;
    let mut options = options(&ensemble, 1);
    settings(&mut options);
    let mut learner = Host::open(options);
    learner.links.dial(ServerId(2));
    run(&mut [&mut learner], "a link", |hosts| hosts[0].link().is_some());
    let link = learner.link().expect("up");
    (learner, link, listener.accept().expect("a learner").0)
}

fn snap() -> Vec<u8> {
    let mut bytes = Vec::new();
    Packet::Snap { zxid: Zxid(9) }.encode(&mut bytes);
    bytes
}

/// Danger: the bytes of an image come one by one, or together with SNAP and all that follows.
#[test]
fn an_image_may_come_in_any_pieces() {
    for one_by_one in [true, false] {
        let (mut learner, link, mut leader) = learner_of(|_| {});
        let expected = image(3);
        let mut bytes = snap();
        bytes.extend(signed(expected.clone()));
        Packet::UpToDate.encode(&mut bytes);
        let writer = std::thread::spawn(move || {
            leader.set_nodelay(true).expect("TCP_NODELAY");
            let piece = if one_by_one { 1 } else { bytes.len() };
            bytes.chunks(piece).for_each(|piece| leader.write_all(piece).expect("an open connection"));
            leader
        });
        run(&mut [&mut learner], "SNAP", |hosts| hosts[0].packets().count() == 1);
        let reader = learner.links.take_image(link).expect("an image");
        let receiver = read_beside(reader, learner.links.waker());
        let (image, end) = await_image(&mut [&mut learner], &receiver).expect("an image");
        assert_eq!(image, expected);
        learner.links.resume(end);
        run(&mut [&mut learner], "UPTODATE", |hosts| hosts[0].packets().last() == Some(&Packet::UpToDate));
        writer.join().expect("the leader");
    }
}

/// Danger: a leader that dies, hangs or lies in the middle of an image leaves a learner that waits for ever.
#[test]
fn an_image_that_does_not_end_ends_its_link() {
    let limit = Duration::from_millis(100);
    let whole = image(10);
    let mut lying = whole.clone();
    lying[..4].copy_from_slice(&(-5_i32).to_be_bytes());
    let mut unsigned = whole.clone();
    put_text(&mut unsigned, "BenWasHerf");
    let cases = [
        (whole[..100].to_vec(), true, io::ErrorKind::UnexpectedEof),
        (whole.clone(), true, io::ErrorKind::UnexpectedEof),
        (whole[..100].to_vec(), false, io::ErrorKind::TimedOut),
        (lying, false, io::ErrorKind::InvalidData),
        (unsigned, false, io::ErrorKind::InvalidData),
    ];
    for (bytes, closes, expected) in cases {
        let (mut learner, link, mut leader) = learner_of(|options| options.image_silence_limit = limit);
        leader.write_all(&snap()).expect("an open connection");
        leader.write_all(&bytes).expect("an open connection");
        let _open = (!closes).then_some(leader);
        run(&mut [&mut learner], "SNAP", |hosts| hosts[0].packets().count() == 1);
        let reader = learner.links.take_image(link).expect("an image");
        let receiver = read_beside(reader, learner.links.waker());
        let error = await_image(&mut [&mut learner], &receiver).expect_err("no image");
        assert_eq!(error.kind(), expected, "{error}");
        run(&mut [&mut learner], "the end of the link", |hosts| hosts[0].has(&Event::Down { link }));
        assert_eq!(learner.links.figures().troubles.failed_transfers, 1);
    }
}

/// Danger: a reader waits for a link that the order has closed; or an image that nobody wants keeps its link.
#[test]
fn closing_ends_the_reader_and_dropping_ends_the_link() {
    let (mut learner, link, mut leader) = learner_of(|_| {});
    leader.write_all(&snap()).expect("an open connection");
    run(&mut [&mut learner], "SNAP", |hosts| hosts[0].packets().count() == 1);
    let receiver = read_beside(learner.links.take_image(link).expect("an image"), learner.links.waker());
    learner.links.close(link);
    let error = await_image(&mut [&mut learner], &receiver).expect_err("no image");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(!learner.has(&Event::Down { link }), "the order knows");

    let (mut learner, link, mut leader) = learner_of(|_| {});
    leader.write_all(&snap()).expect("an open connection");
    leader.write_all(&signed(image(2))).expect("an open connection");
    run(&mut [&mut learner], "SNAP", |hosts| hosts[0].packets().count() == 1);
    let receiver = read_beside(learner.links.take_image(link).expect("an image"), learner.links.waker());
    let (_, end) = await_image(&mut [&mut learner], &receiver).expect("an image");
    drop(end);
    run(&mut [&mut learner], "the end of the link", |hosts| hosts[0].has(&Event::Down { link }));
}
