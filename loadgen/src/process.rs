//! What the kernel says about a process: CPU time and memory of the server, CPU time of the generator.

use crate::clock::{Nanos, SECOND};
use anyhow::Context;
use rustix::{
    param::clock_ticks_per_second,
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};
use std::fs;

/// A moment in the life of a local process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time of all its threads so far, in nanoseconds; the kernel counts ticks of 10 ms.
    pub cpu: Nanos,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Threads.
    pub threads: u64,
}

/// Reads `/proc/PID/stat` and `/proc/PID/status`.
///
/// # Errors
/// If there is no such process.
pub fn usage(pid: u32) -> anyhow::Result<Usage> {
    let no_process = || {
        format!(
            "there is no process {pid} on this machine; name the server's with --pid (a number, as `pgrep java` or \
             `pgrep zkfast` prints it), or leave --pid out if it runs elsewhere"
        )
    };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(no_process)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(no_process)?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("/proc/{pid}/stat has another shape"))?;
    Ok(Usage {
        cpu: ticks * SECOND / clock_ticks_per_second(),
        resident_bytes: status_field(&status, "VmRSS:").unwrap_or(0) * 1024,
        threads: status_field(&status, "Threads:").unwrap_or(0),
    })
}

/// The same of several processes together; `None` of none.
///
/// # Errors
/// If one of them does not exist.
pub fn usage_of_all(pids: &[u32]) -> anyhow::Result<Option<Usage>> {
    let mut all: Option<Usage> = None;
    for pid in pids {
        let own = usage(*pid)?;
        let sum = all.get_or_insert_default();
        sum.cpu += own.cpu;
        sum.resident_bytes += own.resident_bytes;
        sum.threads += own.threads;
    }
    Ok(all)
}

/// Largest resident memory so far, in bytes.
///
/// # Errors
/// If there is no such process.
pub fn resident_bytes_max(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(status_field(&status, "VmHWM:").unwrap_or(0) * 1024)
}

/// utime + stime: fields 14 and 15, counted behind the name, which may hold spaces and brackets.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn status_field(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().next()?.parse().ok()
}

/// CPU time of this process so far, in nanoseconds.
pub fn own_cpu() -> Nanos {
    cpu_time(ClockId::ProcessCPUTime)
}

/// CPU time of this thread so far, in nanoseconds.
pub fn own_thread_cpu() -> Nanos {
    cpu_time(ClockId::ThreadCPUTime)
}

fn cpu_time(clock: ClockId) -> Nanos {
    let time = clock_gettime(clock);
    time.tv_sec.cast_unsigned() * SECOND + time.tv_nsec.cast_unsigned()
}

/// Raises the limit of open files to what the system allows this user; returns it.
pub fn raise_open_files_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
    .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process may call itself anything; its name must not shift the fields.
    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 100 23 0 0 20";
        assert_eq!(cpu_ticks(stat), Some(123));
        assert_eq!(status_field("Name:\tx\nVmRSS:\t  2048 kB\n", "VmRSS:"), Some(2048));
    }

    #[test]
    fn this_process_is_seen() {
        let own = usage(std::process::id()).unwrap();
        assert!(own.resident_bytes > 0 && own.threads > 0);
        assert!(usage(u32::MAX).is_err());
        assert!(own_cpu() > 0);
    }
}
