//! The same script, run by an unchanged client library against Apache ZooKeeper 3.8.0 and against zkfast, must give
//! the same transcript.
//!
//! The scripts print what a program can see: results, error names, Stats with transaction ids counted from the first
//! write, watch events in their order. What differs on purpose is named in `exceptions`, and nowhere else.

#[path = "../peers/mod.rs"]
mod peers;

mod exceptions;
mod shells;
mod words;

use peers::{Kind, Server, Settings, script};

/// Runs `drive` against both servers, side by side, and compares line by line.
fn compare(name: &str, drive: impl Fn(&Server) -> String + Sync) {
    // The Java script asks for TTL nodes where there are none, the shells where there are.
    let extended_types = matches!(name, "zkCli" | "cli_mt");
    let transcript = |kind: Kind| {
        let home = peers::directory();
        let lines = extended_types.then(|| "extendedTypesEnabled=true".to_owned()).into_iter().collect();
        let server =
            Server::start(kind, home.path(), &Settings { tick_ms: 1000, lines, ..Settings::default() });
        drive(&server)
    };
    let (expected, seen) = std::thread::scope(|scope| {
        let apache = scope.spawn(|| transcript(Kind::Apache));
        let tested = transcript(Kind::under_test());
        (apache.join().expect("Apache's transcript"), tested)
    });
    assert!(expected.lines().count() > 10, "{name}: Apache's transcript is hardly a transcript:\n{expected}");
    let expected = exceptions::apply(name, &expected);
    let mut left = expected.lines();
    let mut right = seen.lines();
    let mut differences = Vec::new();
    loop {
        match (left.next(), right.next()) {
            (None, None) => break,
            (a, b) if a == b => {}
            (a, b) => {
                differences.push(format!("  Apache: {}\n  tested: {}", a.unwrap_or(""), b.unwrap_or("")))
            }
        }
    }
    differences.truncate(30);
    assert!(differences.is_empty(), "{name}: what a client sees differs:\n{}", differences.join("\n"));
}

/// Danger: kazoo (Patroni, ClickHouse tooling) meets another answer, error or event order than Apache's.
#[test]
fn kazoo_sees_what_apache_shows() {
    compare("kazoo", |server| {
        let mut command = std::process::Command::new(script::python());
        command.arg(script::test_file("drop_in/kazoo_script.py")).arg(server.address.to_string());
        script::transcript(&mut command)
    });
}

/// Danger: Apache's own Java client meets another answer, null instead of empty, or a watch that fires differently.
#[test]
fn the_java_client_sees_what_apache_shows() {
    let classes = peers::directory();
    script::compile(&script::test_file("drop_in/JavaClientScript.java"), classes.path());
    compare("java", |server| {
        let mut command = script::java("JavaClientScript", classes.path());
        script::transcript(command.arg(server.address.to_string()))
    });
}

/// Danger: an operator's zkCli session prints something else.
#[test]
fn zk_cli_sees_what_apache_shows() {
    compare("zkCli", |server| shells::zk_cli(&server.address.to_string()));
}

/// Danger: the C client, which hard-codes what the others parse, cannot talk to the server.
#[test]
fn the_c_client_sees_what_apache_shows() {
    compare("cli_mt", |server| shells::cli_mt(&server.address.to_string()));
}

/// Danger: an operator's script finds another shape behind a word (C14, W25, G27).
#[test]
fn four_letter_words_tell_what_apache_tells() {
    compare("words", words::tell);
}
