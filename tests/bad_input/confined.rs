//! A server in a sandbox that withholds what it would like to have: it works without, or says what is missing.

use super::{
    full_disk::DATA_DIRECTORY,
    peers::{self, Kind, Server, Settings, script},
};
use std::path::Path;

/// Exit code of a launcher that cannot make its environment here.
const CANNOT: i32 = 77;

/// Starts a server behind `launcher`, with one core and with two: either it serves as it should, or, with up to
/// `refused_cores`, ends with exit code 1 and `words`.
fn works_or_says_why(launcher: &[&str], words: &[&str], refused_cores: u32) {
    for cores in [1, 2] {
        let home = peers::directory();
        let launcher = launcher.iter().map(|word| (*word).to_owned()).collect();
        let settings = Settings { cores, launcher, ..Settings::default() };
        match Server::start_or_refuse(Kind::Zkfast, home.path(), &settings) {
            Ok(server) => {
                let mut client = server.client(10_000);
                client.create("/confined", b"value", 0).expect("a create");
                assert_eq!(client.get("/confined", false).expect("a get").0.as_deref(), Some(&b"value"[..]));
                server.kill();
                let server =
                    Server::start(Kind::Zkfast, home.path(), &Settings { cores, ..Settings::default() });
                server.client(10_000).get("/confined", false).expect("acknowledged before the kill");
            }
            Err((status, _)) if status.code() == Some(CANNOT) => {
                eprintln!(
                    "skipped: this kernel does not let a process be confined by {:?}",
                    settings.launcher
                );
                return;
            }
            Err((status, text)) => {
                assert!(cores <= refused_cores, "{cores} cores need nothing of it: {text}");
                assert_eq!(status.code(), Some(1), "{text}");
                assert!(!text.contains("panicked"), "{text}");
                assert!(text.lines().count() <= 5, "a message, not a story: {text}");
                for word in words {
                    assert!(text.contains(word), "{word:?} is not in: {text}");
                }
            }
        }
    }
}

/// Danger: in a container whose seccomp profile forbids io_uring, as Docker's does, the server hangs or panics.
#[test]
fn without_io_uring_it_works_or_says_why() {
    if Kind::under_test() != Kind::Zkfast {
        return;
    }
    let python = script::python().display().to_string();
    let forbid = script::test_file("bad_input/forbid_io_uring.py").display().to_string();
    for error in ["EPERM", "ENOSYS"] {
        works_or_says_why(&[&python, &forbid, error], &["io_uring", "seccomp", "--cores 2"], 1);
    }
}

/// Danger: the limit on locked memory of a plain container (64 KiB, or nothing) shows up as "Cannot allocate memory".
#[test]
fn with_little_lockable_memory_it_works_or_says_why() {
    if Kind::under_test() != Kind::Zkfast {
        return;
    }
    for limit in ["--memlock=0:0", "--memlock=65536:65536"] {
        works_or_says_why(
            &["prlimit", limit],
            &["may be locked", "ulimit -l", "LimitMEMLOCK", "--cores 2"],
            1,
        );
    }
}

/// Danger: a limit on the size of files kills the server by a signal that leaves no word.
#[test]
fn a_limit_on_file_sizes_is_named_at_start() {
    if Kind::under_test() != Kind::Zkfast {
        return;
    }
    works_or_says_why(&["prlimit", "--fsize=1048576:1048576"], &["File too large", "ulimit -f"], 2);
}

/// Danger: the unwritable directory of another user is met only when the first client writes.
#[test]
fn a_directory_of_somebody_else_is_named_at_start() {
    if Kind::under_test() != Kind::Zkfast {
        return;
    }
    let home = peers::directory();
    // Root may write anywhere: as root, become somebody who may not.
    let is_root = rustix::process::geteuid().is_root();
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let launcher = if is_root { nobody.map(String::from).to_vec() } else { Vec::new() };
    let settings = Settings { launcher, ..Settings::default() };
    let reachable = Path::new(env!("CARGO_BIN_EXE_zkfast"));
    if is_root && !may_be_reached_by_all(reachable) {
        eprintln!("skipped: another user cannot run {}", reachable.display());
        return;
    }
    make_home_readable(home.path(), is_root);
    let Err((status, text)) = Server::start_or_refuse(Kind::Zkfast, home.path(), &settings) else {
        panic!("a server started in a directory that it may not write to");
    };
    assert_eq!(status.code(), Some(DATA_DIRECTORY), "{text}");
    let data = home.path().join("data").display().to_string();
    assert!(text.contains("Permission denied") && text.contains(&data) && text.contains("chown"), "{text}");
}

/// Whether every directory above `path` lets everybody pass.
fn may_be_reached_by_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.ancestors().all(|at| at.metadata().is_ok_and(|facts| facts.permissions().mode() & 0o001 != 0))
}

/// The directory for data exists and is nobody's to write; zoo.cfg can be read.
fn make_home_readable(home: &Path, is_root: bool) {
    use std::{fs, os::unix::fs::PermissionsExt};
    let data = home.join("data");
    fs::create_dir_all(&data).expect("the data directory");
    fs::set_permissions(home, fs::Permissions::from_mode(0o755)).expect("our own directory");
    fs::set_permissions(&data, fs::Permissions::from_mode(if is_root { 0o755 } else { 0o555 }))
        .expect("our own");
}
