//! Servers that are gone or answer nonsense, and outputs that cannot be written: a run must not look good then.

use crate::fake::{Fake, Manner};
use clap::Parser;

use loadgen::{
    args::CommandLine,
    compare::{self, budget},
    report::Report,
    run::{self, Second, Watcher},
};
use std::{
    fs::{File, OpenOptions},
    process::{Command, Stdio},
    sync::Arc,
};

/// Acts when the first second is over.
struct Acts<F>(Option<F>);

impl<F: FnOnce()> Watcher for Acts<F> {
    fn second(&mut self, _second: &Second) {
        if let Some(act) = self.0.take() {
            act();
        }
    }
    fn step(&mut self, _text: &str) {}
}

fn load(line: &str, fake: &Fake, at_first_second: impl FnOnce()) -> Report {
    let words = ["loadgen", "--hosts", &fake.address, "--seed", "7"].into_iter().chain(line.split(' '));
    let settings = CommandLine::try_parse_from(words).unwrap().run.settings().unwrap();
    let outcome = run::run(&settings, Arc::default(), &mut Acts(Some(at_first_second))).unwrap();
    Report::new(&settings, &outcome)
}

fn failed(report: &Report, name: &str) -> u64 {
    report.failures.iter().filter(|failure| failure.name == name).map(|failure| failure.count).sum()
}

fn is_over(report: &Report, text: &str) -> bool {
    !compare::exceeded_alone(report, &[budget(text).unwrap()]).unwrap().is_empty()
}

/// Danger: a closed loop asks nothing of a server that is dead, and the figures of the time before look good.
#[test]
fn a_closed_loop_without_a_server_has_failed() {
    let fake = Fake::start(Manner::Honest);
    let line = "--closed -c 4 --znodes 10 -d 4s --warmup 0s --drain 200ms --keep";
    let report = load(line, &fake, || fake.shut());
    assert_eq!(failed(&report, "connection lost"), 4, "what was in flight: {:?}", report.failures);
    assert!(report.total.succeeded > 0 && report.losses.lost == 4, "{:?}", report.losses);
    let without = report.losses.without_server_seconds;
    assert!((0.5..4.0).contains(&without), "{without}");
    assert!(report.losses.server_gone && report.failed().is_some());
    assert!(is_over(&report, "p99>100ms") && is_over(&report, "errors>0"), "{:?}", report.total);
    assert!(!is_over(&report, "p99>10s"));
    let remarks = report.remarks.join(" ");
    assert!(remarks.contains("no server for") && remarks.contains("has failed"), "{remarks}");
    // Such a run is no better than another, whatever the figures say.
    assert_eq!(compare::dead(std::slice::from_ref(&report), &[]).len(), 1);
}

/// Danger: a server that dies in the warm-up leaves nothing to count, not even an error.
#[test]
fn a_server_that_dies_in_the_warmup_is_seen() {
    let fake = Fake::start(Manner::Honest);
    let line = "--closed --in-flight 3 -c 4 --znodes 10 -d 1s --warmup 3s --drain 200ms --keep";
    let report = load(line, &fake, || fake.shut());
    assert_eq!((report.total.succeeded, failed(&report, "no connection")), (0, 12), "{:?}", report.failures);
    assert!((0.99..=1.01).contains(&report.losses.without_server_seconds), "{:?}", report.losses);
    assert!(is_over(&report, "errors>0") && report.failed().is_some());
    assert_eq!(compare::dead(&[], &[report]).len(), 1);
}

/// The same of one that stands still: its connections stay, and what was sent in the warm-up is never answered.
#[test]
fn a_server_that_stands_still_from_the_warmup_on_is_seen() {
    let fake = Fake::start(Manner::Honest);
    let line = "--closed --in-flight 3 -c 4 --znodes 10 -d 500ms --warmup 3s --drain 200ms --keep";
    let report = load(line, &fake, || fake.stall(true));
    assert_eq!((report.total.succeeded, failed(&report, "not answered in time")), (0, 12));
    assert_eq!(report.failed(), Some("nothing succeeded"));
}

/// Danger: the request whose reply bears another's number is counted nowhere and stays in flight for ever.
#[test]
fn a_reply_to_another_request_loses_none() {
    let fake = Fake::start(Manner::WrongNumbers);
    let report = load("--verify --writes 1k/s -c 4 --znodes 10 -d 2s --warmup 0s", &fake, || {});
    let lost = failed(&report, "protocol error");
    assert!(lost >= 10, "{:?}", report.failures);
    assert_eq!(report.total.succeeded + report.total.failed, 2_000, "rate x time: {:?}", report.failures);
    assert_eq!(report.timeline.last().map(|second| second.in_flight), Some(0));
    assert!(report.timeline.len() <= 8, "nothing is waited for at the end: {}", report.timeline.len());
    assert!(report.losses.reasons["protocol error"] >= 10, "{:?}", report.losses);
    assert!(
        report.remarks.iter().any(|remark| remark.contains("a reply to request")),
        "{:?}",
        report.remarks
    );
    // The sets were done, and may have been: they are in doubt.
    assert!(report.verified(), "{:?}", report.verification);
}

/// Danger: a reply of nonsense is a success, unless somebody asks for `--verify`.
#[test]
fn a_reply_that_does_not_decode_has_failed() {
    let fake = Fake::start(Manner::ShortAnswers);
    let report = load("--writes 1k/s -c 4 --znodes 10 -d 1s --warmup 0s --keep", &fake, || {});
    assert_eq!(failed(&report, "a reply does not decode"), 20, "{:?}", report.failures);
    assert_eq!(report.total.succeeded, 980);
}

/// Danger: what a server does not take fills the memory. It waits in the schedule instead, and is counted.
#[test]
fn what_a_server_does_not_take_is_bounded() {
    let fake = Fake::start(Manner::Honest);
    let line = "--writes 500/s --value 900k -c 2 --znodes 2 -d 4s --warmup 0s --drain 200ms --keep";
    let report = load(line, &fake, || fake.stall(true));
    let (unanswered, unsent) = (failed(&report, "not answered in time"), failed(&report, "not sent in time"));
    assert_eq!(report.total.succeeded + unanswered + unsent, 2_000, "rate x time");
    assert!((1..300).contains(&unanswered), "128 MiB and what the sockets hold: {unanswered}");
    assert!(unsent > 500, "{unsent}");
}

/// Danger: a run of a few milliseconds is over before anybody looks at the clocks: no CPU time of anything.
#[test]
fn a_short_run_has_its_cpu_time() {
    let fake = Fake::start(Manner::Honest);
    for line in ["--writes 1k/s -d 10ms", "--closed -d 1ms", "--writes 200/s -d 100ms"] {
        let pid = std::process::id();
        let report = load(&format!("{line} --pid {pid} -c 1 --znodes 2 --warmup 0s --keep"), &fake, || {});
        assert!(report.client_cpu_ns_per_operation > 0.0 && report.client_utilisation > 0.0, "{line}");
        assert!(report.server_cpu_ns_per_operation.is_some(), "{line}");
    }
}

/// Danger: `| head`, or a full disk, and the report files of a long run are lost in a panic.
#[test]
fn an_output_that_cannot_be_written_takes_no_other_with_it() {
    let fake = Fake::start(Manner::Honest);
    let home = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    let closed: Stdio = writer.into();
    for (name, stdout, expected) in [("closed", closed, 0), ("full", full().into(), 2)] {
        let json = home.path().join(name);
        let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
            .args(["--hosts", &fake.address, "--writes", "100/s", "-d", "300ms", "--warmup", "0s", "--quiet"])
            .args(["--znodes", "2", "-c", "1"])
            .arg("--json")
            .arg(&json)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(expected), "{name}: {words}");
        assert!(!words.contains("panicked"), "{name}: {words}");
        assert_eq!(words.contains("standard output"), expected == 2, "{name}: {words}");
        let report: Report = serde_json::from_reader(File::open(&json).unwrap()).unwrap();
        assert!(report.total.succeeded > 0, "{name}");
    }
}
