//! Why the server did not start, in words for its operator.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::config::ConfigError;

/// What went wrong, why, and what to do about it. Printed on standard error; the process then ends with
/// [`StartError::exit_code`].
#[derive(Debug)]
pub struct StartError {
    what: String,
    cure: String,
    code: u8,
}

/// Exit codes that Apache's scripts and supervisors know (row O6, `ExitCode`).
mod code {
    pub(super) const UNEXPECTED: u8 = 1;
    pub(super) const CONFIGURATION: u8 = 2;
    pub(super) const DATA_DIRECTORY: u8 = 3;
    pub(super) const QUORUM_PORT: u8 = crate::links::EXIT_CODE_OF_PORTS;
}

impl StartError {
    /// `what` says what is wrong and why, without a full stop; `cure` what to do, in whole sentences.
    pub fn new(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { what: what.into(), cure: cure.into(), code: code::UNEXPECTED }
    }

    /// The configuration, as a whole, cannot be obeyed.
    pub fn configuration(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { code: code::CONFIGURATION, ..Self::new(what, cure) }
    }

    /// A data directory cannot be used.
    pub fn data_directory(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { code: code::DATA_DIRECTORY, ..Self::new(what, cure) }
    }

    /// A port for the other servers of the ensemble cannot be bound. `what` names it and says why.
    pub fn quorum_port(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { code: code::QUORUM_PORT, ..Self::new(what, cure) }
    }

    /// 1 unless Apache has a number of its own for it: 2 for a configuration, 3 for a data directory, 14 for a port of
    /// the ensemble (row O6).
    pub fn exit_code(&self) -> u8 {
        self.code
    }

    /// Waiting for SIGTERM and SIGINT cannot be arranged.
    pub fn signals(error: io::Error) -> Self {
        Self::new(format!("cannot wait for signals: {error}"), "Check the limit on open files (ulimit -n).")
    }

    /// An eventfd or an epoll instance cannot be had.
    pub fn descriptors(error: io::Error) -> Self {
        Self::new(
            format!("cannot open what wakes the cores: {error}"),
            "Raise the limit on open files (ulimit -n, or LimitNOFILE= of its service).",
        )
    }

    /// A thread did not start, or ended with an error.
    pub fn thread(error: impl fmt::Display) -> Self {
        Self::new(
            format!("a thread failed: {error}"),
            "If it speaks of resources, raise the limit on processes (ulimit -u, or TasksMax= of its service).",
        )
    }

    /// `address` cannot be listened on.
    pub fn listen(address: SocketAddr, error: io::Error) -> Self {
        let port = address.port();
        let what = match error.kind() {
            io::ErrorKind::AddrInUse => format!("port {port} is taken: something else listens on {address}"),
            io::ErrorKind::AddrNotAvailable => format!("{} is no address of this machine", address.ip()),
            io::ErrorKind::PermissionDenied => format!("not allowed to listen on {address}"),
            _ => format!("cannot listen on {address}: {error}"),
        };
        let cure = match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "See who it is with: ss -ltnp 'sport = :{port}'. Stop it, or choose another port with --client-port or \
                 clientPort."
            ),
            io::ErrorKind::AddrNotAvailable => {
                "Choose one of those that `ip address` shows, or 0.0.0.0 for all, with --client-address or \
                 clientPortAddress."
                    .to_owned()
            }
            io::ErrorKind::PermissionDenied if port < 1024 => {
                "Ports below 1024 need the capability CAP_NET_BIND_SERVICE; 2181 is ZooKeeper's usual port."
                    .to_owned()
            }
            _ => "Check --client-address and --client-port, or clientPortAddress and clientPort.".to_owned(),
        };
        Self::new(what, cure)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.", self.what.trim_end_matches('.'))?;
        if self.cure.is_empty() { Ok(()) } else { write!(f, " {}", self.cure) }
    }
}

impl std::error::Error for StartError {}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        let cure = error.cure.clone();
        let whole = error.to_string();
        // A config error reads "place: what. cure" already.
        let what = whole.strip_suffix(&format!(". {cure}")).unwrap_or(&whole).to_owned();
        Self::configuration(what, cure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_says_what_why_and_what_to_do() {
        let listen = |kind: io::ErrorKind, address: &str| {
            StartError::listen(address.parse().expect("address"), kind.into()).to_string()
        };
        let taken = listen(io::ErrorKind::AddrInUse, "127.0.0.1:2181");
        assert!(
            taken.contains("port 2181 is taken")
                && taken.contains("ss -ltnp")
                && taken.contains("--client-port")
        );
        assert!(
            listen(io::ErrorKind::AddrNotAvailable, "10.1.2.3:2181").contains("no address of this machine")
        );
        assert!(listen(io::ErrorKind::PermissionDenied, "127.0.0.1:80").contains("CAP_NET_BIND_SERVICE"));
        let config = ConfigError::new("dataDir is not set", "Add it.").at(Some("zoo.cfg".as_ref()), Some(3));
        assert_eq!(StartError::from(config.clone()).to_string(), "zoo.cfg:3: dataDir is not set. Add it.");
        assert_eq!(StartError::from(config).exit_code(), 2);
        assert_eq!(StartError::new("a lock is held.", "").to_string(), "a lock is held.");
    }
}
