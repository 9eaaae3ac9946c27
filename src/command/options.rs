//! What `serve` is asked to do: the command line and `zoo.cfg` put together, names resolved, nothing opened yet.

use std::net::SocketAddr;

use crate::config::ZooCfg;

/// A server to be started.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Executors to start, at least 1 and no more than the process may use. With 1, one executor plays both roles.
    pub cores: usize,
    /// No pinning and no busy polling.
    pub overprovisioned: bool,
    /// Where clients connect. Port 0 lets the system choose.
    pub client_address: SocketAddr,
    /// The configuration, `--data-dir` and the like already merged in.
    pub cfg: ZooCfg,
}
