//! The texts are those that Apache ZooKeeper 3.8.0 (Debian 3.8.0-11+deb12u2) printed for one kazoo session with two
//! ephemerals and watches on /a and /nope, except where a comment says otherwise.

use super::*;
use crate::status::picture::{Mode, QuorumPicture, SessionPicture, SessionsDump, Settings, Totals};
use crate::status::{CoreCounters, PipelineCounters};
use zkfast_wire::{ServerId, Zxid};

const SESSION: SessionId = SessionId(0x0100_001e_e610_0000);

fn star() -> Whitelist {
    Whitelist::parse(Some("*"), false)
}

fn picture() -> Picture {
    let core = CoreCounters::default();
    core.packets_received.add(9);
    core.packets_sent.add(8);
    for ms in [1, 2, 2, 9, 9, 1, 22] {
        core.update_latency.record(ms * 1_000_000);
    }
    let connection = |port: u16, interest, session| ConnectionPicture {
        peer: ([127, 0, 0, 1], port).into(),
        interest,
        outstanding: 0,
        received: if interest == 1 { 7 } else { 1 },
        sent: if interest == 1 { 7 } else { 0 },
        session,
    };
    let session = SessionPicture {
        id: SESSION,
        last_operation: operation_name(OpCode::Exists),
        established_ms: 1_795_362_414_194,
        timeout_ms: 10_000,
        last_xid: 6,
        last_zxid: Zxid(4),
        last_response_ms: 2_044_041,
        latency_ms: [2, 0, 6, 22],
    };
    Picture {
        serving: true,
        last_zxid: Zxid(4),
        znodes: 8,
        connections_open: 2,
        totals: Totals::read([&core].into_iter(), &PipelineCounters::default()),
        settings: Settings {
            client_port: 23_181,
            data_dir: "/zk/data/version-2".into(),
            data_log_dir: "/zk/data/version-2".into(),
            tick_ms: 2000,
            connections_per_host_limit: 60,
            session_timeout_ms_min: 4000,
            session_timeout_ms_max: 40_000,
            client_listen_backlog: -1,
            server_id: ServerId(0),
        },
        directory_bytes: (67_109_337, 67_109_337),
        connections: vec![connection(44_934, 1, Some(session)), connection(44_978, 0, None)],
        watches: vec![(SESSION, vec!["/a".to_owned(), "/nope".to_owned()])],
        sessions_dump: SessionsDump {
            global: None,
            expiring: vec![(1_795_362_424_000, vec![]), (1_795_362_426_000, vec![SESSION])],
            ephemerals: vec![(SESSION, vec!["/a/e".to_owned(), "/a/f".to_owned()])],
        },
        digests: vec![(Zxid(0x80), 1_371_985_504), (Zxid(0x100), -5)],
        trace_mask: 306,
        ..Picture::default()
    }
}

fn check(word: Word, expected: &str) {
    // Apache's version line carries its own name.
    let own = format!("Zookeeper version: {}\n", version::FULL);
    assert_eq!(
        render(word, &picture(), &star()).replace(&own, "Zookeeper version: *\n"),
        expected,
        "{word:?}"
    );
}

#[test]
fn numbers_are_told_as_apache_tells_them() {
    const NUMBERS: &str = "Latency min/avg/max: 1/6.5714/22\nReceived: 9\nSent: 8\nConnections: 2\nOutstanding: 0\n\
                           Zxid: 0x4\nMode: standalone\nNode count: 8\n";
    check(Word::Ruok, "imok");
    check(Word::Isro, "rw");
    check(Word::Gtmk, "306");
    check(Word::Stmk, "306");
    check(Word::Srvr, &format!("Zookeeper version: *\n{NUMBERS}"));
    check(
        Word::Stat,
        &format!(
            "Zookeeper version: *\nClients:\n /127.0.0.1:44934[1](queued=0,recved=7,sent=7)\n \
             /127.0.0.1:44978[0](queued=0,recved=1,sent=0)\n\n{NUMBERS}"
        ),
    );
    check(
        Word::Conf,
        "clientPort=23181\nsecureClientPort=-1\ndataDir=/zk/data/version-2\ndataDirSize=67109337\n\
         dataLogDir=/zk/data/version-2\ndataLogSize=67109337\ntickTime=2000\nmaxClientCnxns=60\n\
         minSessionTimeout=4000\nmaxSessionTimeout=40000\nclientPortListenBacklog=-1\nserverId=0\n",
    );
    check(Word::Dirs, "datadir_size: 67109337\nlogdir_size: 67109337\n");
    check(Word::Crst, "Connection stats reset.\n");
    check(Word::Srst, "Server stats reset.\n");
}

/// W25: the words about watches list those of data, and persistent ones.
#[test]
fn lists_are_told_as_apache_tells_them() {
    check(
        Word::Cons,
        " /127.0.0.1:44934[1](queued=0,recved=7,sent=7,sid=0x100001ee6100000,lop=EXIS,est=1795362414194,to=10000,\
         lcxid=0x6,lzxid=0x4,lresp=2044041,llat=2,minlat=0,avglat=6,maxlat=22)\n \
         /127.0.0.1:44978[0](queued=0,recved=1,sent=0)\n\n",
    );
    check(Word::Hash, "80: 1371985504\n100: -5\n");
    check(Word::Wchs, "1 connections watching 2 paths\nTotal watches:2\n");
    check(Word::Wchc, "0x100001ee6100000\n\t/a\n\t/nope\n\n");
    check(Word::Wchp, "/a\n\t0x100001ee6100000\n/nope\n\t0x100001ee6100000\n\n");
    // Apache goes on with "Connections Sets (1)/(2):" and times at which it would close idle connections.
    check(
        Word::Dump,
        "SessionTracker dump:\nSession Sets (2)/(1):\n0 expire at Sun Nov 22 15:47:04 UTC 2026:\n\
         1 expire at Sun Nov 22 15:47:06 UTC 2026:\n\t0x100001ee6100000\nephemeral nodes dump:\n\
         Sessions with Ephemerals (1):\n0x100001ee6100000:\n\t/a/e\n\t/a/f\nConnections dump:\n\
         Connections Sets (0)/(2):\n\tip: /127.0.0.1:44934 sessionId: 0x100001ee6100000\n\
         \tip: /127.0.0.1:44978 sessionId: 0x0\n",
    );
}

#[test]
fn a_reset_connection_and_an_ipv6_peer_are_told_as_java_does() {
    let mut picture = picture();
    picture.connections.truncate(1);
    picture.connections[0].peer = "[::1]:5000".parse().expect("address");
    let session = picture.connections[0].session.as_mut().expect("session");
    (session.last_xid, session.last_zxid, session.last_operation) = (-1, Zxid(-1), "NA");
    assert_eq!(
        render(Word::Cons, &picture, &star()),
        " /[0:0:0:0:0:0:0:1]:5000[1](queued=0,recved=7,sent=7,sid=0x100001ee6100000,lop=NA,est=1795362414194,\
         to=10000,lzxid=0xffffffffffffffff,lresp=2044041,llat=2,minlat=0,avglat=6,maxlat=22)\n\n"
    );
    // A socket that takes both kinds hands over an IPv4 address in IPv6's clothes.
    picture.connections[0].peer = "[::ffff:127.0.0.1]:5000".parse().expect("address");
    assert!(render(Word::Cons, &picture, &star()).starts_with(" /127.0.0.1:5000[1]"));
}

#[test]
fn a_server_that_does_not_serve_says_so() {
    let idle = Picture::default();
    for word in Word::ALL {
        let text = render(*word, &idle, &star());
        match word {
            Word::Ruok => assert_eq!(text, "imok"),
            Word::Isro => assert_eq!(text, "null"),
            Word::Gtmk | Word::Stmk => assert_eq!(text, "0"),
            Word::Envi => assert!(text.starts_with("Environment:\n")),
            // O86: the one line that Apache does not end.
            Word::Hash => assert_eq!(text, "This ZooKeeper instance is not currently serving requests"),
            _ => assert_eq!(text, "This ZooKeeper instance is not currently serving requests\n"),
        }
    }
}

#[test]
fn only_listed_words_run() {
    let default = Whitelist::default();
    for word in Word::ALL.iter().filter(|word| **word != Word::Srvr) {
        let expected = format!("{} is not executed because it is not in the whitelist.\n", word.text());
        assert_eq!(render(*word, &picture(), &default), expected);
    }
    assert!(render(Word::Srvr, &picture(), &default).starts_with("Zookeeper version: "));
    assert!(is_command(b"ruok") && !is_command(b"zzzz") && !is_command(&[0, 0, 0, 45]));
}

#[test]
fn mntr_lines_are_tab_separated_and_complete() {
    let text = render(Word::Mntr, &picture(), &star());
    assert!(
        text.ends_with('\n')
            && text.lines().all(|line| line.starts_with("zk_") && line.matches('\t').count() == 1)
    );
    for line in
        ["zk_server_state\tstandalone", "zk_avg_latency\t6.5714", "zk_max_latency\t22", "zk_packets_sent\t8"]
    {
        assert!(text.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn kazoo_finds_a_version_in_envi() {
    let text = render(Word::Envi, &picture(), &star());
    let version = text.lines().find_map(|line| line.strip_prefix("zookeeper.version=")).expect("version");
    let digits: Vec<u32> = version.split(['.', '-']).map_while(|part| part.parse().ok()).collect();
    assert_eq!(digits, [3, 9, 5]);
}

#[test]
fn a_member_of_an_ensemble_tells_more() {
    let mut picture = picture();
    picture.mode = Mode::Leader;
    picture.record_bytes = [48, 36, 200];
    picture.quorum = Some(QuorumPicture {
        peer_state: "leading - broadcast".to_owned(),
        quorum_size: 3,
        init_limit_ticks: 10,
        sync_limit_ticks: 5,
        election_ports: "3888".to_owned(),
        quorum_ports: "2888".to_owned(),
        membership: "server.1=a:1:2:participant\nversion=0".to_owned(),
        leader: Some(crate::status::picture::LeaderPicture { learners: 2, ..Default::default() }),
        ..QuorumPicture::default()
    });
    assert!(
        render(Word::Srvr, &picture, &star())
            .ends_with("Node count: 8\nProposal sizes last/min/max: 48/36/200\n")
    );
    let conf = render(Word::Conf, &picture, &star());
    assert!(conf.ends_with(
        "serverId=0\ninitLimit=10\nsyncLimit=5\nelectionAlg=3\nelectionPort=3888\nquorumPort=2888\npeerType=0\n\
         membership: \nserver.1=a:1:2:participant\nversion=0"
    ));
    let mntr = render(Word::Mntr, &picture, &star());
    assert!(mntr.contains("zk_peer_state\tleading - broadcast\n") && mntr.contains("zk_learners\t2\n"));
}

#[test]
fn dates_are_java_s() {
    let check = |ms: i64, expected: &str| assert_eq!(java_date(ms), expected);
    check(0, "Thu Jan 01 00:00:00 UTC 1970");
    check(951_782_400_000, "Tue Feb 29 00:00:00 UTC 2000");
    check(1_795_362_424_000, "Sun Nov 22 15:47:04 UTC 2026");
    check(-1, "Wed Dec 31 23:59:59 UTC 1969");
}

#[test]
fn a_huge_answer_is_cut_with_a_notice() {
    let text = bounded("ä".repeat(limits::FOUR_LETTER_BYTES_MAX));
    assert!(text.len() < limits::FOUR_LETTER_BYTES_MAX + 64 && text.ends_with("too long\n"));
}
