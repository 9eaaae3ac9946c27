//! Stories about strain: bytes that cannot be, full lanes, clients that do not read.

use super::*;

/// R1, R14: frames that cannot be are closed without a reply, the connection alone.
#[test]
fn impossible_frames_close_their_connection() {
    for bytes in [
        (-1i32).to_be_bytes().to_vec(),
        i32::MAX.to_be_bytes().to_vec(),
        0i32.to_be_bytes().to_vec(),
        [&7i32.to_be_bytes()[..], &[0; 7]].concat(),
    ] {
        let mut story = Story::new();
        let id = story.client();
        story.core.received(id, &bytes);
        assert_eq!(story.core.output(id).unwrap(), (&[][..], Phase::Dead), "{bytes:?}");
    }
    for first in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0, 5], &[0, 16, 0, 0, 0], b"zzzz", &[0xff; 4]]
    {
        let mut story = Story::new();
        let id = story.core.accepted("127.0.0.1:4000".parse().unwrap());
        story.core.received(id, first);
        assert!(matches!(story.phase(id), Phase::Dead | Phase::Finishing), "{first:?}");
    }
}

/// R5: with the lane full no more is read, nothing is lost, and it goes on when there is room.
#[test]
fn a_full_lane_holds_requests_back_and_loses_none() {
    let mut story = Story::new();
    let id = story.client();
    story.ask(id, 0, &create("/a"));
    story.commit();
    story.got(id);
    let mut bytes = Vec::new();
    for xid in 1..=500 {
        set("/a", b"x").write(Xid(xid), &mut bytes);
    }
    story.core.received(id, &bytes);
    assert!(!story.core.wants_input(id), "the socket is read on although nothing can be taken in");
    let mut xids = Vec::new();
    for _ in 0..100 {
        story.commit();
        xids.extend(story.got(id).iter().map(|one| one.reply().0));
        if story.core.wants_input(id) && xids.len() == 500 {
            break;
        }
    }
    assert_eq!(xids, (1..=500).collect::<Vec<_>>());
}

/// R9: a client that asks for much and reads nothing is not answered without a bound.
#[test]
fn reads_wait_for_a_client_that_does_not_read() {
    let mut story = Story::new();
    let id = story.client();
    let large = vec![7; 500_000];
    story.ask(id, 1, &create("/a"));
    story.ask(id, 2, &set("/a", &large));
    story.commit();
    story.got(id);
    let mut bytes = Vec::new();
    for xid in 1..=1000 {
        get("/a", false).write(Xid(xid), &mut bytes);
    }
    story.core.received(id, &bytes);
    let mut answered = 0;
    for _ in 0..1000 {
        let unsent = story.core.output(id).unwrap().0.len();
        assert!(unsent <= limits::OUT_BUFFER_BYTES_PAUSE + 600_000, "{unsent} bytes wait");
        answered += story.got(id).len();
        story.core.end_turn();
    }
    assert_eq!(answered, 1000);
    assert!(story.core.wants_input(id));
}

/// R9: nor are events kept for it without a bound.
#[test]
fn a_watcher_that_never_reads_is_closed() {
    let mut story = Story::new();
    let (deaf, writer) = (story.client(), story.client());
    let name = format!("/{}", "n".repeat(200_000));
    story.ask(writer, 0, &create(&name));
    story.commit();
    story.ask(deaf, 1, &Request::AddWatch(name.as_str().into(), 0));
    for xid in 1..200 {
        story.ask(writer, xid, &set(&name, b"x"));
        story.commit();
        story.got(writer);
        if story.phase(deaf) == Phase::Dead {
            return;
        }
    }
    panic!("{} bytes of events wait for a deaf client", story.core.output(deaf).unwrap().0.len());
}

/// C12: the older connection of a session closes, the newer one keeps it.
#[test]
fn a_moved_session_leaves_its_old_connection() {
    let mut story = Story::new();
    let old = story.client();
    let session = SessionId(0x101);
    let new = story.core.accepted("127.0.0.1:4000".parse().unwrap());
    story.core.received(new, &connect(session, &session::password(session), Zxid::ZERO));
    story.deliver(Delivery::Close { connection: old, reason: CloseReason::SessionMoved });
    story.commit();
    assert_eq!(story.phase(old), Phase::Dead);
    story.core.closed(old);
    assert_eq!(story.phase(new), Phase::Serving);
    story.take_bytes(new);
    story.ask(new, 1, &create("/a"));
    story.commit();
    assert_eq!(story.got(new)[0].reply(), (1, ErrorCode::OK));
    assert_eq!(story.data(new, "/a"), b"0");
}

/// O124, C14: words are answered also when they need rows of every core, and the connection closes behind them.
#[test]
fn words_are_answered_and_close() {
    let whitelist = crate::config::Whitelist::parse(Some("*"), false);
    let mut story = Story::with(|options| options.whitelist = whitelist);
    let client = story.client();
    story.ask(client, 1, &exists("/a", true));
    for (word, part) in
        [("ruok", "imok"), ("srvr", "Mode: standalone"), ("cons", "127.0.0.1"), ("wchp", "/a")]
    {
        let id = story.core.accepted("127.0.0.1:4000".parse().unwrap());
        story.core.received(id, format!("{word}\n").as_bytes());
        story.core.hung_up(id);
        for _ in 0..3 {
            story.commit();
        }
        let text = String::from_utf8(story.take_bytes(id)).unwrap();
        assert!(text.contains(part), "{word}: {text}");
        assert_eq!(story.phase(id), Phase::Finishing);
    }
    let mut story = Story::new();
    let id = story.core.accepted("127.0.0.1:4000".parse().unwrap());
    story.core.received(id, b"ruok");
    let text = String::from_utf8(story.take_bytes(id)).unwrap();
    assert_eq!(text, "ruok is not executed because it is not in the whitelist.\n");
}

/// Decoders and dispatch never panic on bytes: mutated and random frames, cut anywhere.
#[test]
fn no_bytes_make_a_core_panic() {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = move |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    let mut story = Story::new();
    let mut id = story.client();
    let samples: Vec<Vec<u8>> = [
        create("/a"),
        set("/a", b"data"),
        get("/a", true),
        children("/", true),
        Request::Multi(vec![create("/m"), set("/m", b"x")]),
        Request::MultiRead(vec![get("/a", false)]),
        Request::GetAcl("/a".into()),
        Request::AddWatch("/".into(), 1),
        Request::RemoveWatches("/".into(), 3),
        Request::Sync(None),
        Request::Auth(AuthRequest { scheme: "digest".into(), auth: Some(b"a:b") }),
    ]
    .iter()
    .map(|request| {
        let mut out = Vec::new();
        request.write(Xid(1), &mut out);
        out
    })
    .collect();
    for _ in 0..20_000 {
        let mut bytes = samples[draw(samples.len())].clone();
        for _ in 0..draw(4) {
            let at = 4 + draw(bytes.len() - 4);
            bytes[at] = draw(256) as u8;
        }
        let cut = draw(bytes.len());
        story.core.received(id, &bytes[..cut]);
        story.core.received(id, &bytes[cut..]);
        drain_submissions(&mut story);
        story.take_bytes(id);
        if matches!(story.phase(id), Phase::Finishing | Phase::Dead) {
            story.core.closed(id);
            id = story.client();
        }
    }
}

/// Answers everything that was submitted with "cannot be read", whatever it was.
fn drain_submissions(story: &mut Story) {
    let mut steps = Vec::new();
    while let Some(submission) = story.submissions.pop() {
        match submission {
            Submission::Write(write) => {
                story.last = story.last.next().unwrap();
                let (zxid, mut record) = (story.last, Vec::new());
                story.tree.prepare_error(
                    write.session,
                    write.asker.xid.0,
                    zxid,
                    1,
                    ErrorCode::MARSHALLING_ERROR,
                    &mut record,
                );
                let applied = story.tree.apply(&Bytes::from(record)).unwrap();
                assert!(matches!(applied.answer, Answer::Error(_)));
                steps.push(Step {
                    zxid,
                    changes: applied.changes,
                    answer: Some((write.asker, applied.answer)),
                    opened_session: None,
                    closed_session: None,
                });
            }
            Submission::Sync { asker, .. } => {
                story.deliver(Delivery::Synced { asker });
            }
            Submission::GetEphemerals { asker, .. } => {
                story.deliver(Delivery::Ephemerals { asker, paths: Arc::from([]) });
            }
            _ => {}
        }
    }
    if !steps.is_empty() {
        story.deliver(Delivery::Batch(Arc::new(CommitBatch { steps })));
    }
    story.core.drain();
    story.core.end_turn();
    story.core.publish();
}

/// Sweeps in every one of so many milliseconds that every timeout of `hurry` is over. The milliseconds are made up: the
/// real ones may pass without this thread.
fn sweep_for_a_while(story: &mut Story) {
    story.core.look_at_clock();
    for _ in 0..20 {
        story.core.now_ns += 1_000_000;
        story.core.sweep_at_this_moment();
    }
}

/// Timeouts of a few milliseconds for those who have no session.
fn hurry(options: &mut EdgeOptions) {
    options.sessionless_timeout_ms = 5;
}

/// R13: Danger: a client that stopped reading expires, and its connection and what it has not read stay for good.
#[test]
fn an_expired_session_ends_at_once_whatever_was_not_read() {
    let mut story = Story::new();
    let (deaf, other) = (story.client(), story.client());
    story.ask(other, 1, &create("/a"));
    story.commit();
    story.ask(deaf, 1, &get("/a", false));
    assert!(!story.core.output(deaf).unwrap().0.is_empty());
    let session = story.core.connections.get(deaf).unwrap().session;
    let asker = Asker { connection: deaf, xid: Xid(0) };
    let mut step = story.step(asker, session, OpCode::CloseSession, &Request::CloseSession, &[]);
    step.answer = None;
    step.closed_session = Some(session);
    story.deliver(Delivery::Batch(Arc::new(CommitBatch { steps: vec![step] })));
    story.core.drain();
    assert_eq!(story.phase(deaf), Phase::Dead);
    assert_eq!(story.phase(other), Phase::Serving);
}

/// R9, R13: who asks for its end and does not read the answer has its timeout to do so, counted from what it took.
#[test]
fn a_closed_session_does_not_wait_for_ever_for_its_reader() {
    let mut story = Story::with(hurry);
    let id = story.client();
    story.ask(id, 1, &Request::CloseSession);
    story.commit();
    assert_eq!(story.phase(id), Phase::Finishing);
    sweep_for_a_while(&mut story);
    assert_eq!(story.phase(id), Phase::Finishing, "its timeout is ten seconds");
    story.core.connections.get(id).unwrap().timeout_ms = 5;
    sweep_for_a_while(&mut story);
    assert_eq!(story.phase(id), Phase::Dead);
    let mut ids = Vec::new();
    story.core.take_dirty(&mut ids);
    assert!(ids.contains(&id), "nobody closes its socket");
}

/// S13: a connection of which nothing is heard is closed; its session lives on until it expires.
#[test]
fn a_connection_without_traffic_is_closed() {
    let mut story = Story::with(hurry);
    let (silent, patient) = (story.client(), story.client());
    story.core.connections.get(silent).unwrap().timeout_ms = 5;
    sweep_for_a_while(&mut story);
    assert_eq!((story.phase(silent), story.phase(patient)), (Phase::Dead, Phase::Serving));
    story.core.closed(silent);
    let mut is_told = false;
    while let Some(submission) = story.submissions.pop() {
        is_told |= matches!(submission, Submission::Gone { connection, .. } if connection == silent);
    }
    assert!(is_told, "the session still has an owner");
}

/// S14, O124: Danger: the long answer of a word is cut off while its client reads it, because the connection is old.
#[test]
fn a_word_is_not_cut_off_while_it_is_read() {
    let whitelist = crate::config::Whitelist::parse(Some("*"), false);
    let mut story = Story::with(|options| {
        hurry(options);
        options.whitelist = whitelist;
    });
    let [word, gathering, silent] = [(); 3].map(|()| story.core.accepted("127.0.0.1:4000".parse().unwrap()));
    story.core.received(word, b"srvr");
    story.core.received(gathering, b"cons");
    // It goes on reading, at a moment that is never as long ago as the timeout.
    story.core.connections.get(word).unwrap().last_io_ms = u64::MAX / 2;
    sweep_for_a_while(&mut story);
    assert_eq!(story.phase(word), Phase::Finishing);
    assert_eq!(story.phase(gathering), Phase::Gathering);
    assert_eq!(story.phase(silent), Phase::Dead);
    story.core.connections.get(word).unwrap().last_io_ms = 1;
    sweep_for_a_while(&mut story);
    assert_eq!(story.phase(word), Phase::Dead, "a word's reader that does not read");
}

/// R9: Danger: a packet of some kilobytes has the server copy gigabytes.
#[test]
fn a_multi_read_of_too_much_is_refused_before_anything_is_copied() {
    let mut story = Story::with(|options| options.frame_bytes_limit = 6 << 20);
    let id = story.client();
    let large = vec![7; 5 << 20];
    story.ask(id, 1, &create("/a"));
    story.ask(id, 2, &set("/a", &large));
    story.commit();
    story.got(id);
    for (parts, code) in
        [(600, ErrorCode::MARSHALLING_ERROR), (5, ErrorCode::MARSHALLING_ERROR), (4, ErrorCode::OK)]
    {
        story.ask(id, 3, &Request::MultiRead(vec![get("/a", false); parts]));
        let capacity = story.core.connections.get(id).unwrap().output.tail().capacity();
        assert_eq!(story.got(id)[0].reply(), (3, code), "{parts} parts");
        let limit = if code == ErrorCode::OK { 24 << 20 } else { 1 << 20 };
        assert!(capacity <= limit, "{parts} parts took {capacity} bytes");
    }
}

/// R9: Danger: short requests for long lists, which nobody reads, fill the memory.
#[test]
fn lists_of_ephemerals_are_not_kept_without_a_bound() {
    // Behind an unanswered write they are kept in the queue; else they lie in the out-buffer.
    for is_behind in [false, true] {
        let mut story = Story::new();
        let id = story.client();
        if is_behind {
            story.ask(id, 0, &create("/a"));
        }
        let paths: Arc<[Box<str>]> = vec![Box::from("/n".repeat(500)); 1000].into();
        for xid in 1..100 {
            story.ask(id, xid, &Request::GetEphemerals(None));
            while story.submissions.pop().is_some() {}
            let asker = Asker { connection: id, xid: Xid(xid) };
            if !story.core.wants_input(id) && story.phase(id) == Phase::Serving {
                // Held back: not read from, which bounds it as well.
                break;
            }
            story.deliver(Delivery::Ephemerals { asker, paths: Arc::clone(&paths) });
            story.core.drain();
            if story.phase(id) == Phase::Dead {
                break;
            }
        }
        let connection = story.core.connections.get(id).unwrap();
        let kept = connection.output.unsent().len() + connection.outstanding.kept_bytes();
        assert!(kept <= limits::OUT_BUFFER_BYTES_MAX + (2 << 20), "{kept} bytes are kept");
        if is_behind {
            assert_eq!(connection.phase, Phase::Dead);
        }
    }
}
