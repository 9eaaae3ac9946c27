//! What a server asked of the kernel, as strace tells it, and in which order.

use super::peers::DEADLINE;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Calls that open files, change them or their names, make them durable, or send to a peer.
const CALLS: &str = "trace=openat,write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,ftruncate,rename,renameat,renameat2,\
                     unlink,unlinkat,sendto,sendmsg";

/// One call. Begin and end are positions in the trace: of two calls that overlap neither is before the other.
#[derive(Clone, Debug)]
pub struct Call {
    pub name: String,
    /// With the paths of descriptors in angle brackets.
    pub arguments: String,
    pub begin: usize,
    pub end: usize,
}

impl Call {
    /// Whether data leaves for a client.
    pub fn sends(&self) -> bool {
        let descriptor = self.arguments.split(',').next().unwrap_or_default();
        ["write", "writev", "sendto", "sendmsg"].contains(&&*self.name)
            && (descriptor.contains("<TCP") || descriptor.contains("<socket:"))
    }

    /// Whether this file or directory is made durable.
    pub fn syncs(&self, path: &Path) -> bool {
        ["fsync", "fdatasync"].contains(&&*self.name)
            && self.arguments.contains(&format!("<{}>", path.display()))
    }

    /// Whether something is written into this file.
    pub fn writes(&self, path: &Path) -> bool {
        self.name.contains("write") && self.arguments.contains(&format!("<{}>", path.display()))
    }

    /// The file into which these bytes are written, if strace shows them: text, near the begin of what is written.
    pub fn writes_text(&self, text: &str) -> Option<PathBuf> {
        let (_, rest) = self.arguments.split_once('<')?;
        let (path, data) = rest.split_once('>')?;
        (self.name.contains("write") && data.contains(text)).then(|| PathBuf::from(path))
    }

    /// Whether this file is opened so that each write is durable when it returns.
    pub fn opens_synchronously(&self, path: &Path) -> bool {
        self.opens_with("O_DSYNC", path)
    }

    /// Whether this file is opened, and made if it is not there.
    pub fn creates(&self, path: &Path) -> bool {
        self.opens_with("O_CREAT", path)
    }

    fn opens_with(&self, flag: &str, path: &Path) -> bool {
        let name = format!("\"{}\"", path.display());
        self.name == "openat" && self.arguments.contains(&name) && self.arguments.contains(flag)
    }

    /// Where a rename leads from and to.
    pub fn renames(&self) -> Option<(PathBuf, PathBuf)> {
        let mut names = self.arguments.split('"').skip(1).step_by(2).map(PathBuf::from);
        self.name.starts_with("rename").then(|| (names.next().expect("from"), names.next().expect("to")))
    }

    /// The file that is cut.
    pub fn cuts(&self) -> Option<PathBuf> {
        let (_, rest) = self.arguments.split_once('<')?;
        (self.name == "ftruncate").then(|| PathBuf::from(rest.split('>').next().expect("a path")))
    }

    /// The file that is removed.
    pub fn removes(&self) -> Option<PathBuf> {
        let name = self.arguments.split('"').nth(1)?;
        self.name.starts_with("unlink").then(|| PathBuf::from(name))
    }
}

/// Words in front of a server's command: strace, which stays beside the server and is not its parent.
pub fn launcher(trace: &Path) -> Vec<String> {
    let words =
        ["strace", "-D", "-f", "--seccomp-bpf", "-y", "-s", "256", "-e", CALLS, "-e", "signal=none", "-o"];
    words.map(String::from).into_iter().chain([trace.display().to_string()]).collect()
}

/// The calls of a server that has ended, those that failed left out.
pub fn read(path: &Path) -> Vec<Call> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let text = fs::read_to_string(path).expect("a trace");
        // The process that was started first ends last.
        let first = text.split_whitespace().next().unwrap_or_default();
        let is_end = |line: &str| line.starts_with(first) && line.contains(" +++ ");
        if text.ends_with('\n') && text.lines().any(is_end) {
            return parse(&text);
        }
        assert!(Instant::now() < deadline, "strace does not end");
        // Polled: strace tells nobody when its file is complete.
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn parse(text: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut unfinished = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, (at, begun.to_owned()));
            continue;
        }
        let (begin, whole) = match rest.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            Some((_, more)) => {
                let Some((begin, begun)) = unfinished.remove(thread) else { continue };
                (begin, begun + more)
            }
            None => (at, rest.to_owned()),
        };
        let Some((call, result)) = whole.rsplit_once(" = ") else { continue };
        let Some((name, arguments)) = call.split_once('(') else { continue };
        if !result.starts_with('-') {
            calls.push(Call { name: name.to_owned(), arguments: arguments.to_owned(), begin, end: at });
        }
    }
    calls
}

#[test]
fn calls_that_overlap_are_put_together() {
    let text = "7 fsync(3</d/log.1> <unfinished ...>\n8 sendto(9<TCP:[1->2]>, \"\", 0) = 5\n\
                7 <... fsync resumed>)   = 0\n7 rename(\"/d/a\", \"/d/b\") = -1 ENOENT (none)\n7 +++ exited with 0 +++\n";
    let calls = parse(text);
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert!(calls[0].sends());
    assert!(calls[1].syncs(Path::new("/d/log.1")) && (calls[1].begin, calls[1].end) == (0, 2));
}
