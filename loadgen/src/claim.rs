//! Who works beneath a root: an ephemeral node that one session of a run holds, so that no second generator empties or
//! deletes what the first one uses.

use crate::client::Client;
use anyhow::bail;
use zkfast_wire::{ErrorCode, OpCode, SessionId};

/// The node of one run.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Beneath the root.
    pub path: String,
    /// Says who holds it.
    pub words: String,
    /// The session that has asked for it; 0 before the first.
    pub session: SessionId,
    state: State,
    root: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Asked,
    Held,
    Refused,
}

impl Claim {
    /// On `root`, for this process.
    pub fn of(root: &str) -> Self {
        Self {
            path: path(root),
            words: words(&host(), std::process::id()),
            session: SessionId(0),
            state: State::Asked,
            root: root.to_owned(),
        }
    }

    /// The server has answered. Once it is held, a session that expired gets it back when it can.
    pub(crate) fn answered(&mut self, code: ErrorCode) {
        self.state = match (self.state, code) {
            (State::Asked | State::Refused, ErrorCode::NODE_EXISTS) => State::Refused,
            _ => State::Held,
        };
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.state == State::Refused
    }

    pub(crate) fn refusal(&self) -> String {
        format!(
            "another loadgen has begun to work beneath {}; give each a root of its own with --root",
            self.root
        )
    }
}

fn path(root: &str) -> String {
    format!("{root}/running")
}

fn words(host: &str, process: u32) -> String {
    format!("loadgen, process {process} on {host}")
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The process that these words name, if it ran on this host.
fn process_here(words: &str) -> Option<u32> {
    let (process, on) = words.strip_prefix("loadgen, process ")?.split_once(" on ")?;
    (on == host()).then(|| process.parse().ok()).flatten()
}

/// Refuses a root that another generator is using. What a dead one on this host has left is taken away.
///
/// # Errors
/// If another one is using it, or the connection is lost.
pub fn check(client: &mut Client, root: &str) -> anyhow::Result<()> {
    let path = path(root);
    let Some((data, _)) = client.get(&path)? else { return Ok(()) };
    let words = String::from_utf8_lossy(&data);
    let lives = |process: u32| {
        process != std::process::id() && std::path::Path::new(&format!("/proc/{process}")).exists()
    };
    if process_here(&words).is_some_and(|process| !lives(process)) {
        client.call(OpCode::Delete, |out| {
            crate::operation::put_delete(out, |out| out.extend_from_slice(path.as_bytes()));
        })?;
        return Ok(());
    }
    bail!(
        "{root} is in use ({words}); give each loadgen a root of its own with --root. If that one is dead, its session \
         ends within its timeout (30 s unless --session-timeout says otherwise)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_words() {
        assert_eq!(process_here(&words(&host(), 42)), Some(42));
        assert_eq!(process_here(&words("elsewhere.example", 42)), None);
        assert_eq!(process_here("something else"), None);
    }

    /// A session that expires in the middle of a run must not end the run.
    #[test]
    fn only_the_first_answer_can_refuse() {
        let mut claim = Claim::of("/loadgen");
        assert_eq!(claim.path, "/loadgen/running");
        claim.answered(ErrorCode::OK);
        claim.answered(ErrorCode::NODE_EXISTS);
        assert!(!claim.is_refused());
        let mut other = Claim::of("/loadgen");
        other.answered(ErrorCode::NODE_EXISTS);
        assert!(other.is_refused() && other.refusal().contains("--root"));
    }
}
