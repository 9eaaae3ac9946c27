//! Bad input and bad days: whoever misbehaves is closed with one line in the log, the others do not notice, and memory
//! stays bounded.

#[path = "../peers/mod.rs"]
mod peers;

mod confined;
mod descriptors;
mod full_disk;
mod slow;
mod slow_readers;
mod small_disk;
mod start_errors;

use bytes::BufMut;
use peers::{Client, Dice, Handshake, Kind, Server, Settings, client};
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};
use zkfast_wire::{Acl, OpCode};

/// `jute.maxbuffer` (R1).
const FRAME_BYTES_LIMIT: i32 = 1_048_575;

/// Something that must end its connection.
struct Offence {
    name: &'static str,
    /// After a good handshake.
    in_session: bool,
    bytes: Vec<u8>,
    /// Closes its sending side at the end, so that the server sees a truncated frame.
    half_close: bool,
}

fn offences(dice: &mut Dice) -> Vec<Offence> {
    let before = |name, bytes| Offence { name, in_session: false, bytes, half_close: false };
    let within = |name, bytes| Offence { name, in_session: true, bytes, half_close: false };
    let mut noise = vec![0; 512];
    dice.fill(&mut noise);
    // A positive length above the limit, whatever the dice say.
    noise[0] = 0x6f;
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03................................ ";
    let mut password_too_long = Handshake::new(5_000).frame();
    password_too_long[28..32].copy_from_slice(&i32::MAX.to_be_bytes());
    let mut password_negative = Handshake::new(5_000).frame();
    password_negative[28..32].copy_from_slice(&(-2_i32).to_be_bytes());
    let mut truncated = Handshake::new(5_000).frame();
    truncated.truncate(20);
    let mut half_request = 100_i32.to_be_bytes().to_vec();
    half_request.extend([0, 0, 0, 1, 0, 0, 0, 4]);
    vec![
        before("noise", noise),
        before("an HTTP request", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        before("a TLS ClientHello", hello.to_vec()),
        before("a length of 2 GiB", i32::MAX.to_be_bytes().to_vec()),
        before("a negative length", (-1_i32).to_be_bytes().to_vec()),
        before("an empty handshake", 0_i32.to_be_bytes().to_vec()),
        before("a handshake of 3 bytes", client::frame(&[0; 3])),
        before("a password longer than its frame", password_too_long),
        before("a password of negative length", password_negative),
        Offence { name: "half a handshake", in_session: false, bytes: truncated, half_close: true },
        within("a frame above the limit", (FRAME_BYTES_LIMIT + 1).to_be_bytes().to_vec()),
        within("a negative frame", i32::MIN.to_be_bytes().to_vec()),
        within("a frame without a whole header", client::frame(&[0, 0, 0, 1, 0])),
        Offence { name: "half a request", in_session: true, bytes: half_request, half_close: true },
    ]
}

/// Commits `offence` and waits until the server ends the connection. Returns the offender's port.
fn commit(server: &Server, offence: &Offence) -> u16 {
    let session = offence.in_session.then(|| server.client(5_000));
    let stream = match &session {
        Some(client) => client.stream().try_clone().expect("a second handle"),
        None => client::dial(server.address),
    };
    let port = stream.local_addr().expect("an address").port();
    let mut writer = &stream;
    // The server may close in the middle of what it is told.
    let _ = writer.write_all(&offence.bytes);
    if offence.half_close {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut rest = Vec::new();
    match (&stream).read_to_end(&mut rest) {
        // A browser may be told where it is; nobody else would understand an answer.
        Ok(_) if offence.bytes.starts_with(b"GET ") && rest.starts_with(b"HTTP/1.1 400 ") => {}
        Ok(_) => assert_eq!(rest, [], "{}: nothing is said to an offender", offence.name),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{}: the connection stays open: {error}", offence.name),
    }
    port
}

/// Runs `offend` beside a client that behaves, which must get answers all the time.
fn beside_a_good_client(server: &Server, offend: impl FnOnce(&AtomicU64)) {
    let stop = AtomicBool::new(false);
    let answers = AtomicU64::new(0);
    let mut good = server.client(10_000);
    good.create("/good", b"", 0).expect("a node");
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut slowest = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                good.set("/good", b"value", -1).expect("a set");
                good.get("/good", false).expect("a get");
                slowest = slowest.max(begun.elapsed());
                answers.fetch_add(1, Ordering::Relaxed);
            }
            slowest
        });
        let offended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| offend(&answers)));
        stop.store(true, Ordering::Relaxed);
        let slowest = worker.join().expect("the good client");
        if let Err(panic) = offended {
            std::panic::resume_unwind(panic);
        }
        assert!(slowest < Duration::from_secs(5), "the good client waited {slowest:?}");
    });
}

/// Waits until the good client got two more answers: at least one of them began after this call.
fn progress(answers: &AtomicU64, why: &str) {
    let wanted = answers.load(Ordering::Relaxed) + 2;
    let deadline = Instant::now() + peers::DEADLINE;
    while answers.load(Ordering::Relaxed) < wanted {
        assert!(Instant::now() < deadline, "the good client gets no answers beside {why}");
        thread::yield_now();
    }
}

/// Danger: one bad packet takes the server down, stalls the others, leaks memory, or floods the log (R1, R14).
#[test]
fn offenders_are_closed_and_the_others_do_not_notice() {
    let home = peers::directory();
    let server = Server::start(Kind::under_test(), home.path(), &Settings::default());
    let mut dice = Dice::new(7);
    beside_a_good_client(&server, |answers| {
        let mut ports = Vec::new();
        for offence in offences(&mut dice) {
            ports.push((commit(&server, &offence), offence.name));
            progress(answers, offence.name);
        }
        if server.kind == Kind::Zkfast {
            for (port, name) in ports {
                let offender = format!("127.0.0.1:{port}");
                server.await_log(&[&offender]);
                let text = server.log_text();
                let lines: Vec<&str> = text.lines().filter(|line| line.contains(&offender)).collect();
                assert_eq!(lines.len(), 1, "{name}: one line for one offender, found {lines:#?}\n{text}");
            }
        }
        // Warm, then again many times: memory must not grow with the number of offences.
        let before = server.resident_kib();
        for _ in 0..60 {
            for offence in offences(&mut dice) {
                commit(&server, &offence);
            }
        }
        progress(answers, "840 offences");
        let grown = server.resident_kib().saturating_sub(before);
        let limit = if server.kind == Kind::Zkfast { 16 * 1024 } else { 200 * 1024 };
        assert!(grown < limit, "840 offences cost {grown} KiB");
    });
    assert!(!server.log_text().contains("panicked"), "{}", server.log_text());
}

/// Danger: an operator sees a client disconnect again and again and nothing says why: the log must name the session,
/// the path and the size of a request above jute.maxbuffer (R1, T37).
#[test]
fn a_request_above_the_limit_is_named_in_the_log() {
    let home = peers::directory();
    let server = Server::start(Kind::under_test(), home.path(), &Settings::default());
    let mut big = server.client(10_000);
    // Exactly at the limit passes: header, path, data, acl and flags.
    let rest = 8 + client::create("/fits", Some(b""), &[Acl::OPEN], 0).len();
    let room = usize::try_from(FRAME_BYTES_LIMIT).expect("positive") - rest;
    let body = client::create("/fits", Some(&vec![b'x'; room]), &[Acl::OPEN], 0);
    big.call(OpCode::Create, &body).expect("a request at the limit");
    let body = client::create("/huge-path", Some(&vec![b'x'; room]), &[Acl::OPEN], 0);
    big.submit(OpCode::Create, &body);
    // Closed while it still writes, perhaps.
    let _ = big.flush();
    assert_eq!(big.next_frame().ok().flatten(), None, "a request above the limit ends the connection");
    if server.kind == Kind::Zkfast {
        let size = (body.len() + 8).to_string();
        server.await_log(&[&big.session.to_string(), "/huge-path", &size]);
    }
    big.again(server.address).expect("the session lives on").close();
}

/// Danger: a frame that comes byte by byte is cut wrong, or blocks the core that reads it.
#[test]
fn slow_frames_are_whole_frames() {
    let home = peers::directory();
    let server = Server::start(Kind::under_test(), home.path(), &Settings::default());
    beside_a_good_client(&server, |answers| {
        let mut stream = client::dial(server.address);
        let mut bytes = Handshake::new(10_000).frame();
        for index in 0..3 {
            let body = client::create(&format!("/slow-{index}"), Some(b"slow"), &[Acl::OPEN], 0);
            let mut request = Vec::new();
            request.put_i32(index);
            request.put_i32(OpCode::Create.to_i32());
            request.extend(body);
            bytes.extend(client::frame(&request));
        }
        for byte in bytes {
            stream.write_all(&[byte]).expect("the server waits for the rest");
            progress(answers, "a slow client");
        }
        let mut slow = Client::over(stream).finish_handshake().expect("a session");
        for index in 0..3 {
            slow.reply(index).expect("a create");
        }
    });
}

/// Danger: connections that say nothing eat the files of the process; accepting fails, spins (R6) or ends the server,
/// and those who are inside suffer.
#[test]
fn silent_connections_up_to_the_file_limit_harm_nobody() {
    const CONNECTIONS: u32 = 3_000;
    const SERVER_FILES: u32 = 2_000;
    raise_own_file_limit();
    let home = peers::directory();
    let settings = Settings {
        open_files_limit: Some(SERVER_FILES),
        lines: vec!["nio.sessionlessCnxnTimeout=4000".into()],
        ..Settings::default()
    };
    let server = Server::start(Kind::under_test(), home.path(), &settings);
    let before = server.resident_kib();
    let mut silent: Vec<TcpStream> = Vec::new();
    beside_a_good_client(&server, |answers| {
        for index in 0..CONNECTIONS {
            // Beyond the limit a connect may succeed (the kernel's queue) or fail: both are fine.
            let address = server.address;
            silent.extend(TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok());
            if index % 500 == 0 {
                progress(answers, "silent connections");
            }
            if u32::try_from(silent.len()).expect("few") + 200 < index {
                break;
            }
        }
        progress(answers, "silent connections");
        let grown = server.resident_kib().saturating_sub(before);
        let limit = if server.kind == Kind::Zkfast { 64 * 1024 } else { 400 * 1024 };
        assert!(grown < limit, "{} silent connections cost {grown} KiB", silent.len());
    });
    assert!(silent.len() > 1_000, "only {} connections", silent.len());
    if server.kind == Kind::Zkfast {
        // With every file in use and nobody speaking the server has next to nothing to do: CPU time is polled twice.
        let window = Duration::from_millis(500);
        let used = cpu_time(server.pid());
        thread::sleep(window);
        let used = cpu_time(server.pid()) - used;
        assert!(used < window.mul_f64(0.6), "{used:?} of CPU in {window:?}: accepting spins");
    }
    // Who says nothing for the configured time is closed (S14); then there is room again.
    let first = silent.first_mut().expect("a connection");
    first.set_read_timeout(Some(peers::DEADLINE)).expect("a read timeout");
    let end = first.read(&mut [0; 1]);
    assert!(
        matches!(&end, Ok(0)) || end.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset),
        "{end:?}"
    );
    drop(silent);
    let deadline = Instant::now() + peers::DEADLINE;
    let mut late = loop {
        match Client::handshake_if_up(server.address, &Handshake::new(10_000)) {
            Some(Ok(client)) => break client,
            _ => assert!(Instant::now() < deadline, "no room after the silent ones left"),
        }
    };
    late.set("/good", b"late", -1).expect("a set");
    let text = server.log_text();
    assert!(!text.contains("panicked"), "{text}");
    if server.kind == Kind::Zkfast {
        let limit = usize::try_from(SERVER_FILES).expect("a count") + 200;
        assert!(text.lines().count() < limit, "{} log lines", text.lines().count());
    }
}

/// The tests of this process share its limit, whatever their order.
fn raise_own_file_limit() {
    let files = 8_000;
    let pid = std::process::id().to_string();
    let status =
        std::process::Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={files}:")]).status();
    assert!(status.is_ok_and(|status| status.success()), "prlimit cannot give this test {files} files");
}

/// User and system time that a process has used.
fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running server");
    let after_name = stat.rsplit_once(')').expect("a name in brackets").1;
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("ticks"))
        .sum();
    // USER_HZ is 100 on Linux.
    Duration::from_millis(ticks * 10)
}
