//! A start that cannot succeed ends with Apache's exit code (O6) and a message that says what, why and what to do.
//!
//! These are about zkfast's own words, so they do not run against Apache.

use super::peers::{self, DEADLINE, Kind, Server, Settings, script, server};
use std::{fs, path::Path, process::Command, thread};

/// Runs a start that must fail and compares its words, in any case of letters.
fn refused(command: &mut Command, code: i32, words: &[&str]) {
    let output = script::run(command);
    let text = script::text(&output.stderr) + &script::text(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{text}");
    assert!(!text.contains("panicked"), "{text}");
    for word in words {
        assert!(text.to_lowercase().contains(&word.to_lowercase()), "{word:?} is not in: {text}");
    }
    assert!(text.lines().count() <= 5, "a message, not a story: {text}");
}

fn zkfast(home: &Path, port: u16, settings: &Settings) -> Command {
    server::command(Kind::Zkfast, &server::write_config(home, port, settings), settings)
}

fn zkfast_with(home: &Path, name: &str, text: &str) -> Command {
    let config = home.join(name);
    fs::write(&config, text).expect("a config");
    server::command(Kind::Zkfast, &config, &Settings::default())
}

/// Danger: an operator is left with a stack trace, or with a server that runs somehow.
#[test]
fn a_start_that_cannot_succeed_says_what_why_and_what_to_do() {
    if Kind::under_test() != Kind::Zkfast {
        return;
    }
    let home = peers::directory();
    let settings = Settings::default();
    let running = Server::start(Kind::Zkfast, home.path(), &settings);

    let port = running.address.port();
    let other = peers::directory();
    refused(
        &mut zkfast(other.path(), port, &settings),
        1,
        &[&port.to_string(), "taken", "choose another port"],
    );

    let data = home.path().join("data").display().to_string();
    refused(&mut zkfast(home.path(), server::free_port(), &settings), 1, &[&data, "another"]);

    if thread::available_parallelism().is_ok_and(|cpus| cpus.get() < 64) {
        let cores = Settings { cores: 64, ..Settings::default() };
        let mut command = zkfast(other.path(), server::free_port(), &cores);
        // Without --overprovisioned: pinned cores must exist.
        let mut pinned = Command::new(command.get_program());
        pinned.args(command.get_args().filter(|word| *word != "--overprovisioned"));
        command = pinned;
        refused(&mut command, 1, &["64", "cores", "CPUs"]);
    }

    // The parent of the data directory is a file: nobody can write there, root included.
    let file = other.path().join("file");
    fs::write(&file, "").expect("a file");
    let text = format!("dataDir={}/data\nclientPort={}\ntickTime=500\n", file.display(), server::free_port());
    refused(&mut zkfast_with(other.path(), "unwritable.cfg", &text), 3, &[&file.display().to_string()]);

    drop(running);
}

/// Danger: a typing error in zoo.cfg starts a server with other values than its owner meant.
#[test]
fn a_bad_zoo_cfg_is_refused_and_an_unknown_key_is_named() {
    if Kind::under_test() != Kind::Zkfast {
        return;
    }
    let home = peers::directory();
    let data = home.path().join("data");
    let base = format!("dataDir={}\nclientPort={}\n", data.display(), server::free_port());
    for (line, words) in [
        ("tickTime=fast\n", &["tickTime", "fast"][..]),
        ("clientPort=99999\n", &["clientPort", "99999"]),
        ("tickTime=500\nminSessionTimeout=9000\nmaxSessionTimeout=100\n", &["minSessionTimeout"]),
    ] {
        let mut command = zkfast_with(home.path(), "bad.cfg", &format!("{base}{line}"));
        let output = script::run(&mut command);
        let text = script::text(&output.stderr) + &script::text(&output.stdout);
        // Row O5.
        assert_eq!(output.status.code(), Some(2), "{line:?}: {text}");
        assert!(!text.contains("panicked"), "{text}");
        for word in words {
            assert!(text.contains(word), "{line:?}: {word:?} is not in: {text}");
        }
    }
    let missing = home.path().join("missing.cfg");
    let output = script::run(&mut server::command(Kind::Zkfast, &missing, &Settings::default()));
    let text = script::text(&output.stderr) + &script::text(&output.stdout);
    assert!(output.status.code() == Some(2) && text.contains("missing.cfg"), "{text}");

    let settings = Settings { lines: vec!["nonsense.of.mine=1".into()], ..Settings::default() };
    let running = Server::start(Kind::Zkfast, home.path(), &settings);
    assert!(running.log_text().contains("nonsense.of.mine"), "{}", running.log_text());
    let status = running.stop();
    assert_eq!(status.code(), Some(0), "within {DEADLINE:?}");
}
