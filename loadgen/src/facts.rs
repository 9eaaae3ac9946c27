//! What the figures depend on: the machine of the generator, and what the server says about itself.

use crate::{client::four_letter_word, hosts::Hosts};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs};

/// The generator's machine.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Machine {
    /// Model of the first CPU.
    pub cpu: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Kernel name and release.
    pub kernel: String,
    /// Disk and file system that hold the working directory, as the kernel names them.
    pub disk: String,
    /// Seconds since 1970 when the run began.
    pub unix_time: u64,
}

impl Machine {
    /// This machine, now. What cannot be found out is empty.
    pub fn here() -> Self {
        let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let name = rustix::system::uname();
        Self {
            cpu: field(&cpu_info, "model name").unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: field(&memory, "MemTotal")
                .and_then(|text| text.split_ascii_whitespace().next()?.parse::<u64>().ok())
                .unwrap_or(0)
                * 1024,
            kernel: format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy()),
            disk: disk().unwrap_or_default(),
            unix_time: std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        }
    }
}

/// The value behind `name` and a colon.
fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Device and file system type of the longest mount point above the working directory.
fn disk() -> Option<String> {
    let here = std::env::current_dir().ok()?;
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (device, mount, kind) = (fields.next()?, fields.next()?, fields.next()?);
            here.starts_with(mount).then(|| (mount.len(), format!("{device} {kind}")))
        })
        .max()
        .map(|(_, text)| text)
}

/// `mntr` of each server: numbers and words by name.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct ServerFacts {
    /// By server of the connect string.
    pub mntr: BTreeMap<String, BTreeMap<String, String>>,
}

impl ServerFacts {
    /// Asks each server; one that does not answer `mntr` (it is not in the whitelist by default) is left out.
    pub fn ask(hosts: &Hosts) -> Self {
        let mut mntr = BTreeMap::new();
        for host in &hosts.list {
            let values = four_letter_word(host, "mntr").map(|text| parse(&text)).unwrap_or_default();
            if !values.is_empty() {
                mntr.insert(host.name.clone(), values);
            }
        }
        Self { mntr }
    }
}

fn parse(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, value)| (name.trim_start_matches("zk_").to_owned(), value.to_owned()))
        .collect()
}

/// What of `mntr` is worth a line in a report: the name and how it changed.
pub fn changes(before: &ServerFacts, after: &ServerFacts) -> Vec<(String, String, String)> {
    const SHOWN: &[&str] = &[
        "version",
        "server_state",
        "znode_count",
        "approximate_data_size",
        "watch_count",
        "ephemerals_count",
        "num_alive_connections",
        "outstanding_requests",
        "packets_received",
        "packets_sent",
        "open_file_descriptor_count",
        "cnt_fsynctime",
        "avg_fsynctime",
        "p99_fsynctime",
        "max_fsynctime",
        "avg_sync_processor_batch_size",
        "max_sync_processor_batch_size",
        "cnt_snapshottime",
        "max_snapshottime",
        "avg_latency",
        "max_latency",
    ];
    let mut rows = Vec::new();
    for (host, values) in &after.mntr {
        for name in SHOWN {
            let Some(value) = values.get(*name) else { continue };
            let old = before.mntr.get(host).and_then(|values| values.get(*name)).cloned().unwrap_or_default();
            rows.push((format!("{host} {name}"), old, value.clone()));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mntr_is_read_as_apache_writes_it() {
        let values = parse("zk_version\t3.8.0-1, built on x\nzk_znode_count\t5\nThis is not a pair\n");
        assert_eq!(values.get("znode_count").map(String::as_str), Some("5"));
        assert_eq!(values.len(), 2);
        // A server whose whitelist has no mntr says so in words.
        assert!(parse("mntr is not executed because it is not in the whitelist.\n").is_empty());
    }

    #[test]
    fn this_machine_has_a_kernel() {
        let machine = Machine::here();
        assert!(machine.kernel.starts_with("Linux"));
        assert!(machine.cpus > 0 && machine.memory_bytes > 0);
    }
}
