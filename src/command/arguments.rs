//! The words on the command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Parser;

/// A ZooKeeper server: Apache ZooKeeper's protocols, files and operations.
///
/// Runs in the foreground until SIGTERM or SIGINT. Without a configuration file it is a standalone server on
/// 127.0.0.1, port 2181, with its data in ./zkfast-data.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "zkfast", version = crate::status::version::FULL, max_term_width = 110)]
pub struct Arguments {
    /// Executors to run: one for the write pipeline, the rest for clients. With 1, one does both.
    /// [default: the CPUs this process may use, at most 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub cores: Option<u16>,

    /// Apache ZooKeeper's configuration file.
    #[arg(long, value_name = "ZOO_CFG")]
    pub config: Option<PathBuf>,

    /// The same as --config, as zkServer.sh and QuorumPeerMain take it.
    #[arg(value_name = "ZOO_CFG", conflicts_with = "config")]
    pub config_file: Option<PathBuf>,

    /// Where snapshots and logs are kept. Overrides dataDir. [default: ./zkfast-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Port for clients; 0 lets the system choose one. Overrides clientPort. [default: 2181]
    #[arg(long, value_name = "PORT")]
    pub client_port: Option<u16>,

    /// Address for clients; 0.0.0.0 opens the server to other hosts. Overrides clientPortAddress.
    /// [default: 127.0.0.1 without a configuration file, all addresses with one]
    #[arg(long, value_name = "ADDRESS")]
    pub client_address: Option<IpAddr>,

    /// Do not pin executors to CPUs and do not poll: for tests, laptops, and more executors than CPUs.
    #[arg(long)]
    pub overprovisioned: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_form_that_is_documented_is_read() {
        Arguments::command().debug_assert();
        let parse = |words: &str| Arguments::try_parse_from(words.split(' '));
        let all = parse(
            "zkfast --cores 8 --config zoo.cfg --data-dir /d --client-port 0 --client-address ::1 --overprovisioned",
        )
        .expect("all options");
        assert_eq!((all.cores, all.client_port, all.overprovisioned), (Some(8), Some(0), true));
        assert_eq!(parse("zkfast zoo.cfg").expect("positional").config_file, Some("zoo.cfg".into()));
        for wrong in [
            "zkfast --cores 0",
            "zkfast --cores 65",
            "zkfast --cores many",
            "zkfast --client-port 70000",
            "zkfast --client-address somewhere",
            "zkfast --config a b",
            "zkfast a b",
            "zkfast --core 2",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
