//! The examples run as a newcomer runs them: one command each, against a server that serves.

#[path = "../peers/mod.rs"]
mod peers;

use peers::{Kind, Server, Settings, script, server};
use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

fn example(name: &str, hosts: &str) -> Command {
    let file = format!("{}/examples/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(script::python());
    command.args([&file, "--hosts", hosts]);
    command
}

/// What an example prints against a fresh server.
fn run(name: &str) -> String {
    let home = peers::directory();
    let server = Server::start(Kind::under_test(), home.path(), &Settings::default());
    script::transcript(&mut example(name, &server.address.to_string()))
}

/// Danger: two leaders, or none.
#[test]
fn each_application_server_leads_once() {
    let told = run("election.py");
    let mut leaders: Vec<&str> =
        told.lines().filter_map(|line| Some(line.split_once(" leads;")?.0)).collect();
    leaders.sort_unstable();
    assert_eq!(leaders, ["server-0", "server-1", "server-2", "server-3"], "{told}");
    assert!(told.ends_with("each has led once\n"), "{told}");
}

/// Danger: a machine goes on with an old configuration.
#[test]
fn a_configuration_reaches_every_machine() {
    let told = run("configuration.py");
    let reached = told.lines().filter(|line| line.contains("is on all 20 machines")).count();
    assert_eq!(reached, 3, "{told}");
}

/// Danger: two workers inside a lock lose an update.
#[test]
fn nothing_is_lost_under_the_lock() {
    assert_eq!(run("lock.py"), "5 workers, 10 deposits each: the balance is 50\n");
}

/// Danger: a client gives up with the server that it knew, or comes back as somebody else.
#[test]
fn a_client_passes_over_dead_servers_and_keeps_its_session_over_a_restart() {
    let home = peers::directory();
    let settings = Settings::default();
    let first = Server::start(Kind::under_test(), home.path(), &settings);
    let hosts = format!("127.0.0.1:{},{}", server::free_port(), first.address);
    let mut child = example("failover.py", &hosts)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("Python runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut told = Vec::new();
    let mut until = |wanted: &str| {
        for line in lines.by_ref() {
            told.push(line.expect("text"));
            if told.last().is_some_and(|line| line == wanted) {
                return;
            }
        }
        panic!("{wanted:?} is not told: {told:?}");
    };
    until("write 3 is safe");
    let port = first.address.port();
    first.kill();
    until("looking for a server");
    let second = Server::start_at(Kind::under_test(), home.path(), port, &settings);
    until("connected");
    until("write 19 is safe");
    until("the session is the same");
    let status = server::wait(&mut child, peers::DEADLINE).expect("the example ends");
    assert!(status.success(), "{status}");
    drop(second);
}
