//! Facts about this process and its machine, read from /proc when somebody asks (`envi`, `mntr`, `conf`).
//!
//! Each call opens a few files of /proc or one directory: tens of microseconds, nothing that waits for a disk.

use std::fs;
use std::path::Path;

use super::version;

/// Java's word for a property that has no value (its own `java.compiler` shows it).
const NOT_APPLICABLE: &str = "<NA>";

/// The lines of `envi` after its title, in Apache's order (row O80). kazoo reads `zookeeper.version` here.
pub fn entries() -> Vec<(&'static str, String)> {
    let kernel = |name: &str| read_word(&format!("/proc/sys/kernel/{name}"));
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let memory = meminfo();
    let megabytes = |kib: u64| format!("{}MB", kib / 1024);
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        other => other,
    };
    vec![
        ("zookeeper.version", version::FULL.to_owned()),
        ("host.name", kernel("hostname")),
        ("java.version", NOT_APPLICABLE.to_owned()),
        ("java.vendor", NOT_APPLICABLE.to_owned()),
        ("java.home", NOT_APPLICABLE.to_owned()),
        ("java.class.path", NOT_APPLICABLE.to_owned()),
        ("java.library.path", NOT_APPLICABLE.to_owned()),
        ("java.io.tmpdir", std::env::temp_dir().display().to_string()),
        ("java.compiler", NOT_APPLICABLE.to_owned()),
        ("os.name", "Linux".to_owned()),
        ("os.arch", architecture.to_owned()),
        ("os.version", kernel("osrelease")),
        ("user.name", std::env::var("USER").unwrap_or_else(|_| user_name())),
        ("user.home", variable("HOME")),
        ("user.dir", std::env::current_dir().map_or(String::new(), |dir| dir.display().to_string())),
        ("os.memory.free", megabytes(memory.available_kib)),
        ("os.memory.max", megabytes(memory.total_kib)),
        ("os.memory.total", megabytes(memory.total_kib)),
    ]
}

fn read_word(path: &str) -> String {
    fs::read_to_string(path).map_or(String::new(), |text| text.trim().to_owned())
}

/// The name of the account that runs the server, where no variable says it: services and containers often have none.
/// `?`, as in Java, for a user without a name.
fn user_name() -> String {
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_of(rustix::process::geteuid().as_raw(), &accounts).unwrap_or("?").to_owned()
}

/// The name of a user in the text of /etc/passwd.
fn name_of(user: u32, accounts: &str) -> Option<&str> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(user)).then_some(name)
    })
}

struct Memory {
    total_kib: u64,
    available_kib: u64,
}

fn meminfo() -> Memory {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)).and_then(|kib| kib.parse().ok()).unwrap_or(0)
    };
    Memory { total_kib: field("MemTotal:"), available_kib: field("MemAvailable:") }
}

/// Open file descriptors of this process. Since Linux 6.2 the size of the directory says it; before, they are counted.
pub fn open_files() -> u64 {
    match fs::metadata("/proc/self/fd").map(|directory| directory.len()) {
        Ok(count) if count > 0 => count,
        _ => fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
    }
}

/// The soft limit on open file descriptors, `u64::MAX` if there is none.
pub fn max_files() -> u64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    line.split_whitespace().nth(3).and_then(|soft| soft.parse().ok()).unwrap_or(u64::MAX)
}

/// Bytes of all files below `dir`, as `ZooKeeperServer.getDirSize` counts them: the length that each file has, not the
/// space that it takes. 0 if the directory cannot be read.
pub fn directory_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(facts) if facts.is_dir() => directory_bytes(&entry.path()),
            Ok(facts) => facts.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_are_found() {
        let entries = entries();
        assert_eq!(entries.len(), 18);
        for name in ["zookeeper.version", "host.name", "os.name", "os.arch", "os.version", "os.memory.max"] {
            let value = &entries.iter().find(|(entry, _)| *entry == name).expect(name).1;
            assert!(!value.is_empty() && value != "0MB", "{name}");
        }
        assert!(open_files() >= 3 && max_files() >= open_files());
    }

    #[test]
    fn a_user_has_the_name_of_its_account() {
        let accounts =
            "root:x:0:0:root:/root:/bin/sh\nbroken\nzookeeper:x:117:125::/var/lib/zookeeper:/bin/false\n";
        assert_eq!(name_of(0, accounts), Some("root"));
        assert_eq!(name_of(117, accounts), Some("zookeeper"));
        assert_eq!(name_of(125, accounts), None, "a group");
        assert!(!user_name().is_empty());
    }

    #[test]
    fn a_directory_s_bytes_are_those_of_its_files() {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::create_dir(dir.path().join("version-2")).expect("directory");
        fs::write(dir.path().join("version-2/log.1"), [0; 700]).expect("file");
        fs::write(dir.path().join("myid"), "1\n").expect("file");
        assert_eq!(directory_bytes(dir.path()), 702);
        assert_eq!(directory_bytes(&dir.path().join("absent")), 0);
    }
}
