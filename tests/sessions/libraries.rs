//! The same with the clients that people run: kazoo and Apache's Java client reconnect to a restarted server by
//! themselves and go on with their session.

use super::{peers, settings};
use peers::{Kind, Server, script, server};
use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

/// Starts the client program, restarts the server below it, and reads the program's verdict.
///
/// The program prints `ready` when its ephemeral is there, reads a line, waits for its library to reconnect and
/// prints `same session, same ephemeral`.
fn over_a_restart(mut command: Command) {
    let home = peers::directory();
    let first = Server::start(Kind::under_test(), home.path(), &settings());
    let port = first.address.port();
    let mut child = command
        .arg(first.address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut line = || lines.next().expect("another line").expect("text");
    assert_eq!(line(), "ready");
    first.kill();
    let second = Server::start_at(Kind::under_test(), home.path(), port, &settings());
    writeln!(stdin, "restarted").expect("the program reads");
    assert_eq!(line(), "same session, same ephemeral");
    writeln!(stdin, "end").expect("the program reads");
    let status = server::wait(&mut child, peers::DEADLINE).expect("the program ends");
    assert!(status.success(), "{status}");
    drop(second);
}

/// Danger: Patroni and the like (kazoo) lose their leader lock whenever the server restarts.
#[test]
fn kazoo_keeps_its_session_over_a_restart() {
    let mut command = Command::new(script::python());
    command.arg(script::test_file("sessions/kazoo_restart.py"));
    over_a_restart(command);
}

/// Danger: Kafka, HBase and the like (Java) lose their sessions whenever the server restarts.
#[test]
fn the_java_client_keeps_its_session_over_a_restart() {
    let classes = peers::directory();
    script::compile(&script::test_file("sessions/JavaRestart.java"), classes.path());
    over_a_restart(script::java("JavaRestart", classes.path()));
}
