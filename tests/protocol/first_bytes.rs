//! The first bytes of a connection: requests for a session of every length, and four-letter words.

use super::{
    peers::{self, Client, Handshake, Kind, Refusal, Server, Settings, client},
    start,
};
use bytes::BufMut;
use std::{
    io::{Read, Write},
    net::Shutdown,
};
use zkfast_wire::{SessionId, jute};

/// jute.maxbuffer, unless it is configured.
const FRAME_BYTES_MAX: usize = 0xf_ffff;
/// Bytes of a request for a session without a password and without the flag.
const BARE_BYTES: usize = 28;

/// What comes back for `bytes` up to the end of the connection.
fn answer(server: &Server, bytes: &[u8], half_closes: bool) -> Vec<u8> {
    let mut stream = client::dial(server.address);
    // The server may close in the middle of what it is told.
    let _ = stream.write_all(bytes);
    if half_closes {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{:?} is not answered: {error}", &bytes[..bytes.len().min(50)]),
    }
    answer
}

/// Danger: a client that leaves out the flag or the password, or sends a longer one, cannot connect; or is told of a flag
/// that it does not know, and loses its place in the stream (C2-C4, C10, C11, G24, J5, R1).
#[test]
fn requests_for_a_session_of_every_length_are_answered() {
    let (_home, server, _client) = start();
    let handshake = |password: usize, read_only| Handshake {
        password: vec![7; password],
        read_only,
        ..Handshake::new(10_000)
    };
    for (password, read_only, bytes, answered) in [
        (0, None, 28, 36),
        (0, Some(false), 29, 37),
        (16, None, 44, 36),
        (16, Some(true), 45, 37),
        (5, Some(false), 34, 37),
        (2_000, None, 2_028, 36),
        (FRAME_BYTES_MAX - BARE_BYTES, None, FRAME_BYTES_MAX, 36),
    ] {
        let handshake = handshake(password, read_only);
        assert_eq!(handshake.frame().len(), 4 + bytes);
        let mut client = Client::handshake(server.address, &handshake).expect("a session");
        assert_eq!((client.handshake_bytes, client.password.len()), (answered, 16), "{bytes} bytes");
        client.exists("/", false).expect("what follows is read from its begin");
        client.close();
        let unknown = Handshake { session: SessionId(77), ..handshake };
        let refused = Client::handshake(server.address, &unknown).map(|_| ());
        assert_eq!(refused, Err(Refusal::Expired), "{bytes} bytes");
    }
    // No password at all; and more behind the flag than this version knows.
    let mut without = Vec::new();
    without.put_i32(0);
    without.put_i64(0);
    without.put_i32(10_000);
    without.put_i64(0);
    jute::put_buffer(&mut without, None);
    let mut long = handshake(16, Some(false)).frame()[4..].to_vec();
    long.resize(3_000, 9);
    for (body, answered) in [(without, 36), (long, 37)] {
        let mut stream = client::dial(server.address);
        stream.write_all(&client::frame(&body)).expect("an open connection");
        let client = Client::over(stream).finish_handshake().expect("a session");
        assert_eq!(client.handshake_bytes, answered);
        client.close();
    }
    let above = handshake(FRAME_BYTES_MAX - BARE_BYTES + 1, None).frame();
    assert_eq!(answer(&server, &above, false), b"", "above the limit nothing is said");
}

/// Danger: a health check gets no answer because it closed its half first, as nc does, or because it did not; or another
/// text than it looks for (C14, G27).
#[test]
fn words_are_answered_whether_their_sender_closes_its_half_or_not() {
    let (_home, server, _client) = start();
    for half_closes in [true, false] {
        let ask = |bytes: &[u8]| String::from_utf8(answer(&server, bytes, half_closes)).expect("text");
        assert_eq!(ask(b"ruok"), "imok");
        assert_eq!(ask(b"ruok\r\n"), "imok", "as typed");
        assert_eq!(ask(b"isro"), "rw");
        let lines = ask(b"mntr\n");
        assert!(
            lines.lines().all(|line| line.starts_with("zk_") && line.matches('\t').count() == 1),
            "{lines}"
        );
        for word in
            ["conf", "cons", "crst", "dirs", "dump", "envi", "srst", "srvr", "stat", "wchc", "wchp", "wchs"]
        {
            let text = ask(word.as_bytes());
            assert!(text.ends_with('\n'), "{word}: {text:?}");
        }
        assert_eq!(ask(b"stmk\0\0\0\0\0\0\x01\x32"), "306");
        assert_eq!(ask(b"gtmk"), "306");
        // Closed at once, as what follows will never be a mask.
        for no_word in [&b"stmk"[..], b"stmk\n", b"stmk\0\0\0\0\0\0\x01", b"RUOK", b"\xff\xf4\xff\xfd\x06"] {
            assert_eq!(ask(no_word), "", "{no_word:?}");
        }
    }
}

/// Danger: a monitor is let in by default that Apache's server turns away, or is told so in other words (G27); or is told
/// that the server is empty because it asks early (G3, T4).
#[test]
fn one_word_is_answered_by_default_and_from_the_first_moment() {
    let home = peers::directory();
    let lines = vec!["4lw.commands.whitelist=".into()];
    // No tick comes to the aid of the figures.
    let settings = Settings { lines, tick_ms: 60_000, ..Settings::default() };
    let mut server = Server::start(Kind::under_test(), home.path(), &settings);
    for word in ["ruok", "isro", "mntr", "stmk", "conf"] {
        let text = format!("{word} is not executed because it is not in the whitelist.\n");
        assert_eq!(server.four_letter(word).as_deref(), Some(text.as_str()));
    }
    for (zxid, nodes) in [(0, 5), (2, 6)] {
        let text = server.four_letter("srvr").expect("the one that zkServer.sh asks");
        let end = format!("\nZxid: 0x{zxid:x}\nMode: standalone\nNode count: {nodes}\n");
        assert!(text.ends_with(&end), "{text:?} instead of {end:?}");
        if nodes == 5 {
            // A session and a node.
            server.client(120_000).create("/node", b"", 0).expect("a node");
            server.kill();
            server = Server::start(Kind::under_test(), home.path(), &settings);
        }
    }
}
