//! Starts of a member that cannot succeed, and one that must.

use crate::{
    cluster::{Cluster, Shape},
    peers::{self, Kind, Settings, script, server},
};
use std::{fs, net::TcpListener};

/// Danger: a member with a wrong configuration runs somehow, or stops without saying what is wrong. Words and exit codes
/// are ours (O5, O6): 2 for the configuration, 14 for a port of the ensemble.
#[test]
fn a_member_that_cannot_be_one_says_why() {
    if Kind::under_test() != Kind::Zkfast {
        return;
    }
    let home = peers::directory();
    let ports: Vec<u16> = (0..6).map(|_| server::free_port()).collect();
    let line = |id: usize| format!("server.{id}=127.0.0.1:{}:{}", ports[id * 2 - 2], ports[id * 2 - 1]);
    let lines: Vec<String> = [line(1), line(2), line(3), "initLimit=5".into(), "syncLimit=2".into()].into();
    let check = |my_id: Option<&str>, more: &str, code: i32, words: &[&str]| {
        let settings =
            Settings { lines: [lines.clone(), vec![more.to_owned()]].concat(), ..Settings::default() };
        let config = server::write_config(home.path(), server::free_port(), &settings);
        let file = home.path().join("data/myid");
        match my_id {
            Some(text) => fs::write(&file, text).expect("myid"),
            None => assert!(!file.exists(), "the first case has no myid"),
        }
        let output = script::run(&mut server::command(Kind::Zkfast, &config, &settings));
        let text = script::text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {text}");
        for word in words {
            assert!(text.contains(word), "{word:?} is not in: {text}");
        }
    };
    check(None, "", 2, &["data/myid is missing", "the N of its own server.N line"]);
    check(Some("nobody\n"), "", 2, &["myid:1: ", "'nobody' is not a server id"]);
    check(Some("9\n"), "", 2, &["myid says 9", "there are: 1, 2, 3"]);
    check(Some("1\n"), "server.2=127.0.0.1:1:2", 2, &["server.2 is listed twice"]);
    check(Some("1\n"), "server.4=127.0.0.1:1:1", 2, &["must be different"]);
    check(
        Some("1\n"),
        &line(1).replace("server.1", "server.4"),
        2,
        &["server.1 and server.4", "same address"],
    );
    check(Some("1\n"), "group.1=1:2", 2, &["server.3 votes but is in no group"]);
    for (which, place) in [(0, "the first port"), (1, "the second port")] {
        let taken = TcpListener::bind(("127.0.0.1", ports[which])).expect("a free port");
        // Without the key there are three tries, the last two of them of a server that runs already.
        for (retry, tries) in [("electionPortBindRetry=1", "after 1 tries"), ("", "after 3 tries")] {
            let port = ports[which].to_string();
            let words = [&port, place, "of the line server.1", tries, "electionPortBindRetry", "ss -ltnp"];
            check(Some("1\n"), retry, 14, &words);
        }
        drop(taken);
    }
}

/// Danger: one name that does not resolve yet, as in a cluster whose pods start one by one, keeps the others from
/// serving.
#[test]
fn a_name_that_does_not_resolve_is_no_reason_to_stop() {
    let kind = Kind::under_test();
    // The third server's line is replaced by a name that no resolver knows (RFC 6761).
    let mut cluster =
        Cluster::new(&[kind; 3], Shape { stranger: Some("nobody.invalid"), ..Shape::default() });
    cluster.launch(0);
    cluster.launch(1);
    cluster.await_all();
    cluster.server(1).client(6_000).close();
}

/// Danger: a server whom no learner can reach has the longest history, so the others elect it again and again.
#[test]
fn a_server_without_its_quorum_port_is_not_elected() {
    let lines = vec!["electionPortBindRetry=0".to_owned()];
    let mut cluster = Cluster::new(&[Kind::Zkfast; 3], Shape { lines, ..Shape::default() });
    cluster.launch(0);
    cluster.launch(1);
    cluster.await_all();
    let mut client = cluster.server(0).client(20_000);
    client.create("/history", b"", 0).expect("a quorum is there");
    client.close();
    cluster.kill(0);
    cluster.kill(1);

    let taken = TcpListener::bind(("127.0.0.1", cluster.quorum_port(0))).expect("a free port");
    cluster.launch(0);
    cluster.server(0).await_log(&["for learners yet", "takes no part in elections"]);
    cluster.launch(2);
    cluster.server(2).await_log(&["server 1 cannot be reached on its election port", "refused"]);
    for index in [0, 2] {
        let log = cluster.server(index).log_text();
        let searches: Vec<&str> =
            log.lines().filter(|line| line.contains("looking for a leader: ")).collect();
        assert_eq!(searches.len(), 1, "server {}: {searches:?}", index + 1);
    }
    drop(taken);
    cluster.await_all();
    assert_eq!(cluster.leader(), 0, "it has the history");
}
