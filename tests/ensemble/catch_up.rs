//! A follower that was away for long comes back while clients write: with the records it missed where they are cheaper
//! than an image, with an image where they are not (rows Q49, Q51).
//!
//! By hand, with figures: `ZKFAST_CATCH_UP=1000000 cargo test --release --test ensemble catch_up -- --nocapture`.

use crate::{
    cluster::{Cluster, Shape},
    load::gap_line,
    peers::{
        Client, DEADLINE, Kind,
        client::{self, Incoming},
    },
};
use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};
use zkfast_wire::{Acl, OpCode};

/// Bytes of data in each transaction.
const DATA_BYTES: usize = 100;

/// Clients that write what the follower misses, and how many requests each has under way.
const WRITERS: usize = 4;
const UNDER_WAY: usize = 256;

/// Clients whose latencies are measured, and the time between two writes of each: a thousand a second in all. One client
/// alone would measure its own backlog wherever a write takes longer than a millisecond.
const STEADY: u32 = 8;
const PACE: Duration = Duration::from_millis(8);

/// How many transactions the follower misses.
fn missed() -> usize {
    match std::env::var("ZKFAST_CATCH_UP") {
        Ok(text) => text.parse().expect("ZKFAST_CATCH_UP is a number"),
        Err(_) => 12_000,
    }
}

/// What the transactions are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Work {
    /// New znodes: the image grows with the log.
    Creates,
    /// New data of the same few znodes: the image stays small.
    Sets,
}

fn submit(client: &mut Client, work: Work, writer: usize, number: usize) {
    let data = Some(&[b'd'; DATA_BYTES][..]);
    match work {
        Work::Creates => {
            let path = format!("/bulk-{writer}/node-{number}");
            client.submit(OpCode::Create, &client::create(&path, data, &[Acl::OPEN], 0));
        }
        Work::Sets => {
            let path = format!("/bulk-{writer}");
            client.submit(OpCode::SetData, &client::set(&path, data, -1));
        }
    }
}

fn await_reply(client: &mut Client) {
    match client.next() {
        Some(Incoming::Reply { err: 0, .. }) => {}
        other => panic!("a write is answered with {other:?}"),
    }
}

/// Writes `count` transactions through one server.
fn write_bulk(address: SocketAddr, work: Work, count: usize) {
    let mut maker = Client::connect(address, 20_000);
    for writer in 0..WRITERS {
        maker.create(&format!("/bulk-{writer}"), b"", 0).expect("a parent of the bulk");
    }
    maker.close();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                let mut client = Client::connect(address, 20_000);
                let count = count / WRITERS;
                for number in 0..count + UNDER_WAY {
                    if number < count {
                        submit(&mut client, work, writer, number);
                    }
                    if number % 32 == 0 || number >= count {
                        client.flush().expect("the server reads");
                    }
                    if number >= UNDER_WAY && number - UNDER_WAY < count {
                        client.flush().expect("the server reads");
                        await_reply(&mut client);
                    }
                }
                client.close();
            });
        }
    });
}

/// Writes at a steady pace until told to stop. A write that is late because the one before it was slow counts as slow.
fn write_steadily(address: SocketAddr, steady: u32, is_over: &AtomicBool) -> Vec<(Instant, Duration)> {
    let mut client = Client::connect(address, 20_000);
    let begun = Instant::now() + PACE * steady / STEADY;
    let mut latencies = Vec::new();
    let path = format!("/steady-{}", client.session.0);
    client.create(&path, b"", 0).expect("a node to write");
    for number in 1_u32.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let due = begun + PACE * number;
        // It sleeps for the pace of the load; nothing is waited for.
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        client.set(&path, &[b's'; DATA_BYTES], -1).expect("a steady write");
        latencies.push((due, due.elapsed()));
    }
    client.close();
    latencies
}

fn percentile_99(latencies: &[(Instant, Duration)], from: Instant, to: Instant) -> Duration {
    let within = latencies.iter().filter(|(due, _)| (from..to).contains(due));
    let mut sorted: Vec<Duration> = within.map(|(_, latency)| *latency).collect();
    sorted.sort_unstable();
    *sorted.get(sorted.len() * 99 / 100).unwrap_or(&Duration::ZERO)
}

/// How the leader brings the follower up to date.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Records,
    Image,
}

fn catch_up(work: Work, lines: &[&str], expected: Way) {
    let shape = Shape { lines: lines.iter().map(|line| (*line).to_owned()).collect(), ..Shape::default() };
    let mut cluster = Cluster::start(&[Kind::under_test(); 3], shape);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let address = cluster.address(leader);
    cluster.kill(follower);
    let missed = missed();
    let begun = Instant::now();
    write_bulk(address, work, missed);
    println!(
        "{work:?} {lines:?}: {missed} transactions of {DATA_BYTES} bytes written in {:.2?}",
        begun.elapsed()
    );
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let is_over = &is_over;
        let steady: Vec<_> =
            (0..STEADY).map(|steady| scope.spawn(move || write_steadily(address, steady, is_over))).collect();
        let quiet_from = Instant::now() + Duration::from_millis(200);
        // It sleeps for a stretch of quiet, to compare with.
        std::thread::sleep(Duration::from_millis(if missed > 100_000 { 3000 } else { 500 }));
        let launched = Instant::now();
        cluster.launch(follower);
        cluster.await_all();
        let caught_up = Instant::now();
        is_over.store(true, Ordering::Relaxed);
        let latencies: Vec<_> =
            steady.into_iter().flat_map(|steady| steady.join().expect("steady writes")).collect();
        println!(
            "{work:?} {lines:?}: caught up {:.2?} after its start; p99 of writes {:.2?} before, {:.2?} meanwhile",
            caught_up - launched,
            percentile_99(&latencies, quiet_from, launched),
            percentile_99(&latencies, launched, caught_up),
        );
    });
    if Kind::under_test() == Kind::Zkfast {
        let words = match expected {
            Way::Records => "sending the records above",
            Way::Image => "sending an image of the state",
        };
        cluster.server(leader).await_log(&[words]);
    }
    assert_eq!(cluster.leader(), leader, "a follower that comes back changes no leader");
    same_state(&cluster);
}

/// Danger: what came through a catch-up or a change of leaders differs from what the leader has.
pub fn same_state(cluster: &Cluster) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let states: Vec<_> = (0..cluster.size())
            .map(|index| {
                let server = cluster.server(index);
                let text = server.four_letter("srvr").expect("srvr");
                let zxid = text.lines().find_map(|line| line.strip_prefix("Zxid: ").map(str::to_owned));
                (zxid, server.monitor("zk_znode_count"), server.monitor("zk_approximate_data_size"))
            })
            .collect();
        if states.iter().all(|state| *state == states[0]) {
            break;
        }
        assert!(Instant::now() < deadline, "the servers differ: {states:?}");
        // Polled: the last commits are on their way.
        std::thread::sleep(Duration::from_millis(5));
    }
    if Kind::under_test() == Kind::Zkfast {
        for index in 0..cluster.size() {
            let count = cluster.server(index).monitor("zk_digest_mismatches_count");
            assert_eq!(count.as_deref(), Some("0"), "wrong digests on server {}", index + 1);
            assert_eq!(gap_line(cluster, index), None, "of a leader that leaves out nothing");
        }
    }
}

/// Danger: a follower that missed much keeps its ensemble busy, or never catches up.
#[test]
fn a_follower_that_missed_much_is_sent_an_image() {
    catch_up(Work::Sets, &["snapCount=5000"], Way::Image);
    catch_up(Work::Creates, &["snapCount=5000"], Way::Image);
}

/// Danger: a long history is read from the files and sent while writes go on, and one of them is missed.
#[test]
fn a_follower_is_sent_the_records_that_it_missed() {
    catch_up(Work::Creates, &["snapshotSizeFactor=1000000"], Way::Records);
    catch_up(Work::Sets, &["commitLogCount=2000000"], Way::Records);
}
