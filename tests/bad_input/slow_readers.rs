//! Clients that ask faster than they read: they are held back, cost a bounded amount of memory, and miss nothing.

use super::{
    beside_a_good_client,
    peers::{self, Kind, Server, Settings, client},
    progress,
};
use std::{
    io::Read,
    thread,
    time::{Duration, Instant},
};
use zkfast_wire::{Acl, OpCode};

const VALUE_BYTES: usize = 500_000;

/// Danger: answers pile up in the server's memory; or a connection whose socket was full, or whose input was held back,
/// is never looked at again, for the kernel tells of each change once.
#[test]
fn a_client_that_does_not_read_is_held_back_and_misses_nothing() {
    const READS: usize = 300;
    // One thread plays both roles, or each has its own.
    for cores in [1, 2] {
        let home = peers::directory();
        let settings = Settings { cores, ..Settings::default() };
        let server = Server::start(Kind::under_test(), home.path(), &settings);
        let mut slow = server.client(10_000);
        slow.create("/large", &vec![7; VALUE_BYTES], 0).expect("a node");
        let before = server.resident_kib();
        let mut asked = Vec::new();
        beside_a_good_client(&server, |answers| {
            for index in 0..READS {
                asked.push(slow.submit(OpCode::GetData, &client::path_watch("/large", false)));
                if index % 10 == 9 {
                    // In several segments, so that some come while the connection is held back.
                    slow.flush().expect("a few small requests fit into the sockets");
                    progress(answers, "a client that does not read");
                }
            }
            if server.kind == Kind::Zkfast {
                let grown = server.resident_kib().saturating_sub(before);
                assert!(
                    grown < 32 * 1024,
                    "answers of {} MB cost {grown} KiB",
                    READS * VALUE_BYTES / 1_000_000
                );
            }
            for xid in asked {
                let body = slow.reply(xid).expect("a get");
                assert_eq!(client::data_and_stat(&body).0.map(|data| data.len()), Some(VALUE_BYTES));
            }
        });
        slow.close();
    }
}

/// Danger: requests that fill every buffer on their way are cut wrong when they go on, or block the core for others.
#[test]
fn a_client_that_writes_more_than_is_taken_is_answered_in_order() {
    // Their answers together stay below what one connection may leave unread: then each read shows its own write.
    const WRITES: usize = 24;
    for cores in [1, 2] {
        let home = peers::directory();
        let settings = Settings { cores, ..Settings::default() };
        let server = Server::start(Kind::under_test(), home.path(), &settings);
        let mut eager = server.client(20_000);
        eager.create("/large", b"", 0).expect("a node");
        beside_a_good_client(&server, |answers| {
            let mut asked = Vec::new();
            for index in 0..WRITES {
                let value = vec![index as u8; VALUE_BYTES + index];
                asked.push(eager.submit(OpCode::SetData, &client::set("/large", Some(&value), -1)));
                asked.push(eager.submit(OpCode::GetData, &client::path_watch("/large", false)));
            }
            let mut sending = eager.stream().try_clone().expect("a second handle");
            thread::scope(|scope| {
                // What was submitted is more than the sockets hold: one thread sends while this one reads.
                let bytes = eager.take_submitted();
                scope.spawn(move || {
                    std::io::Write::write_all(&mut sending, &bytes).expect("an open connection")
                });
                eager.patience(Duration::from_secs(30));
                for (index, pair) in asked.chunks(2).enumerate() {
                    eager.reply(pair[0]).expect("a set");
                    let body = eager.reply(pair[1]).expect("a get");
                    let data = client::data_and_stat(&body).0.expect("a value");
                    assert_eq!(data.len(), VALUE_BYTES + index, "a read sees the write before it");
                    assert!(data.iter().all(|byte| *byte == index as u8), "{index}: bytes were mixed");
                }
            });
            progress(answers, "large writes");
        });
        eager.close();
    }
}

/// R13, R9: Danger: who stops reading stays connected after its session has ended, with all that it has not read, until
/// its host may not connect any more.
#[test]
fn a_client_that_stopped_reading_is_closed_with_its_session() {
    const READS: usize = 40;
    let home = peers::directory();
    let lines = vec!["minSessionTimeout=1000".to_owned()];
    let server = Server::start(Kind::under_test(), home.path(), &Settings { lines, ..Settings::default() });
    let mut good = server.client(30_000);
    good.create("/large", &vec![7; 2 * VALUE_BYTES], 0).expect("a node");
    let mut deaf = Vec::new();
    for closes in [false, true, false, true] {
        let mut client = server.client(1_000);
        for _ in 0..READS {
            client.submit(OpCode::GetData, &client::path_watch("/large", false));
        }
        if closes {
            client.submit(OpCode::CloseSession, &[]);
        }
        client.flush().expect("small requests fit into the sockets");
        deaf.push(client);
    }
    let begun = Instant::now();
    // The good client, and the one that asks the word.
    while server.monitor("zk_num_alive_connections").is_none_or(|count| count.parse::<u32>().unwrap() > 2) {
        assert!(begun.elapsed() < Duration::from_secs(30), "ended sessions keep their connections");
        good.ping();
        // Polled: a connection's end is announced to nobody else.
        thread::sleep(Duration::from_millis(20));
    }
    drop(deaf);
    good.close();
}

/// Danger: a few kilobytes of requests that cost much to answer keep the core from everybody else on it, whose pings are
/// then not noticed, and their sessions expire.
#[test]
fn costly_reads_of_one_client_leave_room_for_the_others() {
    const CHILDREN: usize = 20_000;
    const READS: usize = 1_500;
    /// Length, xid, zxid, error code and the count.
    const REPLY_BYTES: usize = 4 + 4 + 8 + 4 + 4;
    for cores in [1, 2] {
        let home = peers::directory();
        let settings = Settings {
            cores,
            lines: vec!["globalOutstandingLimit=100000".to_owned()],
            ..Settings::default()
        };
        let server = Server::start(Kind::under_test(), home.path(), &settings);
        let mut costly = server.client(20_000);
        costly.create("/wide", b"", 0).expect("a node");
        for numbers in (0..CHILDREN).collect::<Vec<_>>().chunks(500) {
            let created: Vec<i32> = numbers
                .iter()
                .map(|number| client::create(&format!("/wide/{number}"), None, &[Acl::OPEN], 0))
                .map(|body| costly.submit(OpCode::Create, &body))
                .collect();
            costly.flush().expect("an open connection");
            for xid in created {
                costly.reply(xid).expect("a create");
            }
        }
        let mut other = server.client(20_000);
        for _ in 0..READS {
            costly.submit(OpCode::GetAllChildrenNumber, &client::path_alone("/wide"));
        }
        costly.flush().expect("a few kilobytes fit into the sockets");
        // Past the client's buffer, so that the kernel can tell how much has come.
        let mut stream = costly.stream();
        let mut reply = [0; REPLY_BYTES];
        stream.read_exact(&mut reply).expect("a count");
        other.exists("/wide", false).expect("a node");
        let unread = rustix::io::ioctl_fionread(stream).expect("an open connection") as usize;
        assert!(
            unread / REPLY_BYTES < READS / 2,
            "{} of {READS} costly reads were answered before a short one of another client",
            unread / REPLY_BYTES
        );
        for _ in 1..READS {
            stream.read_exact(&mut reply).expect("a count");
            assert_eq!(reply[REPLY_BYTES - 4..], (CHILDREN as u32).to_be_bytes());
        }
    }
}

/// Danger: clients that did not read have gone, and the server is as large as ever: the allocator keeps what they had.
#[test]
fn memory_of_slow_readers_goes_back_to_the_system() {
    const CLIENTS: u64 = 20;
    const READS: u64 = 12;
    let home = peers::directory();
    let server = Server::start(Kind::under_test(), home.path(), &Settings::default());
    if server.kind != Kind::Zkfast {
        return;
    }
    let mut good = server.client(30_000);
    good.create("/large", &vec![7; 2 * VALUE_BYTES], 0).expect("a node");
    good.create("/small", b"", 0).expect("a node");
    let before = server.resident_kib();
    // Reads between two writes of one session, taken in together, are answered although nobody reads the answers.
    let held = CLIENTS * READS * 2 * VALUE_BYTES as u64 / 1024;
    let deaf: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = server.client(30_000);
            client.submit(OpCode::SetData, &client::set("/small", None, -1));
            for _ in 0..READS {
                client.submit(OpCode::GetData, &client::path_watch("/large", false));
            }
            client.submit(OpCode::SetData, &client::set("/small", None, -1));
            client.flush().expect("small requests fit into the sockets");
            client
        })
        .collect();
    let until = |what: &str, is_so: &dyn Fn(u64) -> bool, good: &mut client::Client| {
        let begun = Instant::now();
        while !is_so(server.resident_kib().saturating_sub(before)) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what}: {} KiB", server.resident_kib());
            good.ping();
            // Polled: nobody is told of the size of a process.
            thread::sleep(Duration::from_millis(20));
        }
    };
    until("nothing is held for them", &|grown| grown > held / 2, &mut good);
    drop(deaf);
    until("their memory is kept", &|grown| grown < 48 * 1024, &mut good);
    good.close();
}
