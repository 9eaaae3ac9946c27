//! What must be in order before a server starts, each with the error that its operator needs.
//!
//! Runs on the main thread before any other.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use io_uring::{IoUring, Probe, opcode};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::options::ServeOptions;
use super::start_error::StartError;
use crate::config::limits;

/// Checks limits, io_uring if the log is going to use it, and both data directories; raises the soft limits on open files and locked memory.
///
/// # Errors
/// The first thing that is not in order.
pub fn before_start(options: &ServeOptions) -> Result<(), StartError> {
    let files = raise_to_hard(Resource::Nofile);
    if files < limits::FILES_RESERVED * 2 + limits::FILES_PER_CORE * options.cores as u64 {
        return Err(StartError::new(
            format!("only {files} open files are allowed"),
            "Raise the limit (ulimit -n, or LimitNOFILE= of its service): each client needs one.",
        ));
    }
    // A pipeline with a thread of its own waits for its writes itself.
    if !options.has_own_pipeline_thread() {
        judge_memlock(raise_to_hard(Resource::Memlock))?;
        io_uring_works()?;
    }
    let cfg = &options.cfg;
    data_dir_works("dataDir", &cfg.data_dir, cfg.create_data_dir)?;
    if cfg.data_log_dir != cfg.data_dir {
        data_dir_works("dataLogDir", &cfg.data_log_dir, cfg.create_data_dir)?;
    }
    Ok(())
}

/// Raises the soft limit to the hard one where the kernel lets us. Gives the soft limit then in force.
fn raise_to_hard(resource: Resource) -> u64 {
    let now = getrlimit(resource);
    if now.current != now.maximum {
        // A refusal leaves the old limit, which is what the caller judges.
        let _ = setrlimit(resource, Rlimit { current: now.maximum, maximum: now.maximum });
    }
    getrlimit(resource).current.unwrap_or(u64::MAX)
}

fn judge_memlock(bytes: u64) -> Result<(), StartError> {
    if bytes >= limits::MEMLOCK_BYTES_MIN {
        return Ok(());
    }
    Err(StartError::new(
        format!(
            "only {} KiB of memory may be locked (RLIMIT_MEMLOCK), io_uring needs {} KiB",
            bytes / 1024,
            limits::MEMLOCK_BYTES_MIN / 1024
        ),
        "Start with --cores 2 or more, which needs none; or raise the hard limit: ulimit -l 8192 in the shell, \
         LimitMEMLOCK=8M in a systemd unit, --ulimit memlock=8388608 for a container.",
    ))
}

/// Opens a small ring and asks it for the operations that the log needs.
fn io_uring_works() -> Result<(), StartError> {
    let ring =
        IoUring::new(8).map_err(|error| judge_io_uring(&error, &kernel("io_uring_disabled"), &release()))?;
    let mut probe = Probe::new();
    let known = ring.submitter().register_probe(&mut probe).is_ok()
        && [opcode::Write::CODE, opcode::WriteFixed::CODE, opcode::Fsync::CODE]
            .iter()
            .all(|code| probe.is_supported(*code));
    if known { Ok(()) } else { Err(kernel_too_old(&release())) }
}

fn kernel(name: &str) -> String {
    fs::read_to_string(Path::new("/proc/sys/kernel").join(name))
        .map_or(String::new(), |text| text.trim().to_owned())
}

fn release() -> String {
    kernel("osrelease")
}

fn kernel_too_old(release: &str) -> StartError {
    StartError::new(
        format!("this kernel ({release}) lacks io_uring operations that zkfast needs"),
        "Use Linux 5.8 or newer; on 5.8 and newer a sandbox such as gVisor may be in the way.",
    )
}

/// Why a ring cannot be had. `disabled` is the value of kernel.io_uring_disabled, empty before Linux 6.6.
fn judge_io_uring(error: &io::Error, disabled: &str, release: &str) -> StartError {
    const ENOSYS: i32 = rustix::io::Errno::NOSYS.raw_os_error();
    const EPERM: i32 = rustix::io::Errno::PERM.raw_os_error();
    const EACCES: i32 = rustix::io::Errno::ACCESS.raw_os_error();
    const ENOMEM: i32 = rustix::io::Errno::NOMEM.raw_os_error();
    let sandbox = "Start with --cores 2 or more, which needs no io_uring; or allow io_uring_setup, io_uring_enter and io_uring_register in its seccomp profile (Docker: \
                   --security-opt seccomp=<profile>, or unconfined to try; systemd: SystemCallFilter=).";
    match error.raw_os_error() {
        Some(EPERM | EACCES) if matches!(disabled, "1" | "2") => StartError::new(
            format!("io_uring is switched off on this machine (kernel.io_uring_disabled is {disabled})"),
            "Start with --cores 2 or more, which needs no io_uring; or switch it on: sysctl -w kernel.io_uring_disabled=0 (or 1 with kernel.io_uring_group set to a group of \
             this user).",
        ),
        Some(EPERM | EACCES) => StartError::new(
            "io_uring is forbidden to this process, most likely by seccomp in a container",
            sandbox,
        ),
        Some(ENOSYS) if older_than(release, 5, 8) => kernel_too_old(release),
        Some(ENOSYS) => StartError::new(
            format!("io_uring is not there, though Linux {release} should have it: a sandbox hides it"),
            sandbox,
        ),
        Some(ENOMEM) => StartError::new(
            "no locked memory is left for io_uring",
            "Raise the limit (ulimit -l, or LimitMEMLOCK= of its service), or stop other users of io_uring of this \
             account.",
        ),
        _ => StartError::new(
            format!("io_uring does not work: {error}"),
            "Use Linux 5.8 or newer outside a sandbox.",
        ),
    }
}

/// Is a release such as `6.1.0-18-amd64` before `major.minor`? One that cannot be read is not.
fn older_than(release: &str, major: u32, minor: u32) -> bool {
    let mut numbers = release.split(|byte: char| !byte.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(found_major)), Some(Ok(found_minor))) => (found_major, found_minor) < (major, minor),
        _ => false,
    }
}

/// Is `dir` a directory that takes a new file? Created if it is missing and may be.
fn data_dir_works(key: &str, dir: &Path, create: bool) -> Result<(), StartError> {
    let shown = dir.display();
    match fs::metadata(dir) {
        Ok(facts) if !facts.is_dir() => {
            return Err(StartError::data_directory(
                format!("{key} {shown} is not a directory"),
                "Name a directory, or remove what is there.",
            ));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound && !create => {
            return Err(StartError::data_directory(
                format!("{key} {shown} does not exist, and datadir.autocreate is false"),
                "Create it, or remove datadir.autocreate=false.",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(dir).map_err(|error| {
                StartError::data_directory(format!("cannot create {key} {shown}: {error}"), cure_for(&error))
            })?
        }
        Err(error) => {
            return Err(StartError::data_directory(
                format!("cannot look at {key} {shown}: {error}"),
                cure_for(&error),
            ));
        }
    }
    let probe = dir.join(format!(".zkfast-write-test-{}", std::process::id()));
    let written = File::create(&probe).and_then(|mut file| {
        file.write_all(&[0; 4096])?;
        file.sync_all()
    });
    // Whatever came of it, the file must go; if it cannot, the next start overwrites or reports it.
    let _ = fs::remove_file(&probe);
    written.map_err(|error| {
        StartError::data_directory(format!("cannot write to {key} {shown}: {error}"), cure_for(&error))
    })
}

fn cure_for(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "Give it to the user that runs the server (chown), or name another."
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "Its file system is mounted read-only: remount it, or name another."
        }
        io::ErrorKind::StorageFull => {
            "Its file system is full: make room (zkCleanup.sh removes old snapshots)."
        }
        io::ErrorKind::QuotaExceeded => "The disk quota of this user is used up: make room, or raise it.",
        _ => "Check the path and the disk, or name another directory with --data-dir or in zoo.cfg.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn each_way_to_lack_io_uring_has_its_own_words() {
        let check = |errno: Errno, disabled: &str, release: &str, words: &[&str]| {
            let error = judge_io_uring(&io::Error::from(errno), disabled, release).to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{errno:?}: {error}");
        };
        check(Errno::PERM, "2", "6.18.0", &["switched off", "sysctl -w kernel.io_uring_disabled=0"]);
        check(Errno::PERM, "0", "6.18.0", &["forbidden", "seccomp"]);
        check(Errno::ACCESS, "", "6.1.0", &["forbidden", "seccomp"]);
        check(Errno::NOSYS, "", "4.19.0-27-amd64", &["4.19.0-27-amd64", "5.8 or newer"]);
        check(Errno::NOSYS, "", "6.1.0-18-amd64", &["sandbox", "seccomp"]);
        check(Errno::NOMEM, "", "5.10.0", &["locked memory", "LimitMEMLOCK"]);
        check(Errno::INVAL, "", "6.1.0", &["does not work"]);
        assert!(judge_memlock(64 << 10).expect_err("too small").to_string().contains("only 64 KiB"));
        assert!(judge_memlock(512 << 10).is_ok());
    }

    #[test]
    fn releases_are_compared_as_numbers() {
        assert!(older_than("5.4.0", 5, 8) && older_than("4.19.0-27-amd64", 5, 8));
        assert!(!older_than("5.10.0", 5, 8) && !older_than("6.1.0", 5, 8) && !older_than("strange", 5, 8));
    }

    #[test]
    fn a_data_directory_must_exist_or_be_made_and_take_a_file() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let check = |path: &Path, create, word: &str| {
            let error = data_dir_works("dataDir", path, create).expect_err(word).to_string();
            assert!(error.contains(word) && error.contains(&path.display().to_string()), "{error}");
        };
        let deep = dir.path().join("a/b");
        check(&deep, false, "datadir.autocreate");
        data_dir_works("dataDir", &deep, true).expect("created");
        assert_eq!(fs::read_dir(&deep).expect("there").count(), 0, "the test file is gone");
        let file = dir.path().join("file");
        fs::write(&file, "").expect("file");
        check(&file, true, "is not a directory");
        check(&file.join("below"), true, "cannot look at");
        check(Path::new("/proc/sys/zkfast"), true, "cannot create");
        check(Path::new("/proc/self"), true, "cannot write");
    }

    #[test]
    fn this_machine_passes() {
        io_uring_works().expect("io_uring");
        assert!(raise_to_hard(Resource::Nofile) > 0);
    }
}
