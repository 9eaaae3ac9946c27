//! What `serve` is asked to do: the command line and `zoo.cfg` put together, names resolved, nothing opened yet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;

use super::arguments::Arguments;
use super::start_error::StartError;
use crate::config::{EnsembleSettings, JavaFlags, ZooCfg, limits};
use crate::cores::placement;

/// Port for clients unless something says otherwise.
const CLIENT_PORT_DEFAULT: u16 = 2181;

/// Where data goes without a configuration file.
const DATA_DIR_DEFAULT: &str = "zkfast-data";

/// Cores unless the command line says: more than one pipeline can feed is no use, and a big machine has other
/// work to do.
const CORES_DEFAULT_MAX: usize = 8;

/// A server to be started.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Cores to start, at least 1. Without `overprovisioned` no more than the CPUs that the process may use. With
    /// 1, one thread plays both roles.
    pub cores: usize,
    /// No pinning to CPUs.
    pub overprovisioned: bool,
    /// Started by `zkfast start`, which waits to be told on standard output that the server is up.
    pub detached: bool,
    /// Where clients connect. Port 0 lets the system choose. `[::]` takes IPv4 clients too.
    pub client_address: SocketAddr,
    /// What a member of an ensemble is started with; `None` for a server that runs alone.
    pub ensemble: Option<EnsembleSettings>,
    /// The configuration, `--data-dir` and the like already merged in.
    pub cfg: ZooCfg,
}

impl ServeOptions {
    /// Reads the configuration that `arguments` name and puts the two together; the command line wins.
    ///
    /// # Errors
    /// A configuration that cannot be read or obeyed, a host that cannot be resolved, more cores than there are.
    pub fn resolve(arguments: &Arguments, flags: &JavaFlags) -> Result<Self, StartError> {
        let file = match (arguments.config.as_deref(), arguments.config_file.as_deref()) {
            (Some(one), Some(other)) => {
                return Err(StartError::configuration(
                    format!("two configuration files: {} and {}", one.display(), other.display()),
                    "Name one of them.",
                ));
            }
            (one, other) => one.or(other),
        };
        let mut cfg = match file {
            Some(file) => ZooCfg::load(file, flags, arguments.data_dir.as_deref())?,
            None => {
                let data_dir = arguments.data_dir.as_deref().unwrap_or(Path::new(DATA_DIR_DEFAULT));
                let mut cfg = ZooCfg::standalone(data_dir, CLIENT_PORT_DEFAULT, flags)?;
                cfg.client_host = Some(Ipv4Addr::LOCALHOST.to_string());
                cfg
            }
        };
        if let Some(port) = arguments.client_port {
            cfg.client_port = Some(port);
        }
        if let Some(address) = arguments.client_address {
            cfg.client_host = Some(address.to_string());
        }
        let Some(port) = cfg.client_port else {
            return Err(StartError::configuration(
                format!(
                    "{} names no port for clients",
                    file.unwrap_or(Path::new("the configuration")).display()
                ),
                "Add clientPort=2181, or start with --client-port 2181.",
            ));
        };
        let client_address = client_address(cfg.client_host.as_deref(), port)?;
        let cores = cores(arguments.cores.map(usize::from), arguments.overprovisioned)?;
        let ensemble = cfg.ensemble_settings();
        Ok(Self {
            cores,
            overprovisioned: arguments.overprovisioned,
            detached: arguments.detached,
            client_address,
            ensemble,
            cfg,
        })
    }

    /// Whether the pipeline runs on a thread of its own. A member's always does: it sleeps on its links.
    pub fn has_own_pipeline_thread(&self) -> bool {
        self.cores > 1 || self.ensemble.is_some()
    }
}

/// How many cores to run.
fn cores(wanted: Option<usize>, overprovisioned: bool) -> Result<usize, StartError> {
    let (allowed, usable) = (placement::allowed_cpus().len(), placement::usable_cpus());
    judge_cores(wanted, overprovisioned, allowed, usable)
}

fn judge_cores(
    wanted: Option<usize>,
    overprovisioned: bool,
    allowed: usize,
    usable: usize,
) -> Result<usize, StartError> {
    let most = limits::CLIENT_CORES_MAX + 1;
    match wanted {
        None => Ok(usable.clamp(limits::CORES_MIN, CORES_DEFAULT_MAX)),
        Some(wanted) if wanted > most => Err(StartError::new(
            format!("--cores {wanted} is more than {most}, the most that watch masks can tell apart"),
            format!("Use --cores {most} or less."),
        )),
        Some(wanted) if wanted > usable && !overprovisioned => {
            let quota = if usable < allowed { " because of its cgroup's CPU quota" } else { "" };
            let cure = format!(
                "Use --cores {usable} or less, give the process more CPUs (taskset, cpuset, container limits), or \
                 add --overprovisioned to run unpinned."
            );
            Err(StartError::new(
                format!("--cores {wanted} is more than the {usable} CPUs that this process may use{quota}"),
                cure,
            ))
        }
        Some(wanted) => Ok(wanted.max(limits::CORES_MIN)),
    }
}

/// The address to listen on. All addresses means IPv6 and IPv4, as with Java, where the machine has IPv6.
fn client_address(host: Option<&str>, port: u16) -> Result<SocketAddr, StartError> {
    match host {
        None | Some("0.0.0.0") => {
            let any = if has_ipv6() {
                IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            } else {
                IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            };
            Ok(SocketAddr::new(any, port))
        }
        Some(host) => {
            let found = (host, port).to_socket_addrs().map_err(|error| {
                StartError::new(
                    format!("cannot resolve the client address {host}: {error}"),
                    "Write an address of this machine, or a name that it can resolve, as clientPortAddress.",
                )
            })?;
            found.into_iter().next().ok_or_else(|| {
                StartError::new(
                    format!("{host} resolves to no address"),
                    "Write an address of this machine as clientPortAddress.",
                )
            })
        }
    }
}

fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(arguments: Arguments) -> Result<ServeOptions, StartError> {
        ServeOptions::resolve(&arguments, &JavaFlags::default())
    }

    #[test]
    fn without_a_file_it_is_a_loopback_server_in_the_working_directory() {
        let options = resolve(Arguments::default()).expect("defaults");
        assert_eq!(options.client_address, "127.0.0.1:2181".parse().expect("address"));
        assert_eq!(options.cfg.data_dir, Path::new("zkfast-data"));
        assert_eq!(options.cfg.data_log_dir, options.cfg.data_dir);
        assert_eq!(options.cfg.connections_per_host_limit, 0);
        assert!(options.cores >= 1 && options.cores <= 8);
    }

    #[test]
    fn a_file_is_obeyed_and_the_command_line_wins_over_it() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("zoo.cfg");
        let text = format!("dataDir={}\nclientPort=2190\n", dir.path().display());
        std::fs::write(&file, &text).expect("zoo.cfg");
        let from_file =
            |arguments: Arguments| resolve(Arguments { config_file: Some(file.clone()), ..arguments });
        let plain = from_file(Arguments::default()).expect("good");
        assert!(plain.client_address.ip().is_unspecified() && plain.client_address.port() == 2190);
        assert_eq!((plain.cfg.data_dir.as_path(), plain.cfg.connections_per_host_limit), (dir.path(), 60));
        let overridden = from_file(Arguments {
            data_dir: Some("/elsewhere".into()),
            client_port: Some(0),
            client_address: Some(Ipv6Addr::LOCALHOST.into()),
            ..Arguments::default()
        });
        let overridden = overridden.expect("good");
        assert_eq!(overridden.client_address, "[::1]:0".parse().expect("address"));
        assert_eq!(overridden.cfg.data_dir, Path::new("/elsewhere"));
        assert_eq!(overridden.cfg.data_log_dir, Path::new("/elsewhere"));
        std::fs::write(&file, format!("{text}clientPortAddress=127.0.0.1\n")).expect("zoo.cfg");
        let bound = from_file(Arguments::default()).expect("good").client_address;
        assert_eq!(bound, "127.0.0.1:2190".parse().expect("address"));
        std::fs::write(&file, format!("dataDir={}\n", dir.path().display())).expect("zoo.cfg");
        let error = from_file(Arguments::default()).expect_err("no port").to_string();
        assert!(error.contains("names no port") && error.contains("clientPort=2181"), "{error}");
        let ensemble = "server.1=a:1:2;2181\nserver.2=b:1:2;2181\ninitLimit=1\nsyncLimit=1\n";
        std::fs::write(&file, format!("dataDir={}\n{ensemble}", dir.path().display())).expect("zoo.cfg");
        std::fs::write(dir.path().join("myid"), "1\n").expect("myid");
        let member = from_file(Arguments::default()).expect("a member").ensemble.expect("an ensemble");
        assert_eq!((member.me.0, member.addresses.len()), (1, 2));
        let error = resolve(Arguments { config: Some("absent.cfg".into()), ..Arguments::default() });
        assert!(error.expect_err("no file").to_string().contains("absent.cfg"));
    }

    #[test]
    fn more_cores_than_cpus_is_an_error_that_names_both() {
        let judge = |wanted, overprovisioned, allowed, usable| {
            judge_cores(wanted, overprovisioned, allowed, usable).map_err(|error| error.to_string())
        };
        assert_eq!(judge(None, false, 2, 2), Ok(2));
        assert_eq!(judge(None, false, 64, 64), Ok(8));
        assert_eq!(judge(Some(4), false, 4, 4), Ok(4));
        assert_eq!(judge(Some(64), true, 2, 2), Ok(64));
        let error = judge(Some(8), false, 2, 2).expect_err("too many");
        assert!(
            error.contains("--cores 8") && error.contains("2 CPUs") && !error.contains("quota"),
            "{error}"
        );
        let error = judge(Some(3), false, 4, 2).expect_err("quota");
        assert!(error.contains("--cores 3") && error.contains("quota"), "{error}");
        assert!(judge(Some(65), true, 128, 128).expect_err("masks").contains("more than 64"));
    }
}
