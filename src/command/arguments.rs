//! The words on the command line.

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A ZooKeeper server: Apache ZooKeeper's protocols, files and operations.
///
/// Runs in the foreground until SIGTERM or SIGINT. Without a configuration file it is a standalone server on
/// 127.0.0.1, port 2181, with its data in ./zkfast-data.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "zkfast", version = crate::status::version::FULL, max_term_width = 110)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct CommandLine {
    /// A verb of zkServer.sh; without one the server runs in the foreground.
    #[command(subcommand)]
    pub verb: Option<Verb>,

    /// What to serve, without a verb.
    #[command(flatten)]
    pub serve: Arguments,
}

/// The verbs of `zkServer.sh`, with its outputs and exit codes (row O106).
///
/// A ZOO_CFG without a slash is looked for in $ZOOCFGDIR if that is set, else in the working directory, in ../conf
/// beside the program and in /etc/zookeeper/conf. Without ZOO_CFG it is $ZOOCFG, or zoo.cfg.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Start the server in the background; its process id goes into dataDir/zookeeper_server.pid.
    Start(Arguments),
    /// Run the server in the foreground.
    StartForeground(Arguments),
    /// Stop the server that start has started, and wait for its end.
    Stop(Arguments),
    /// stop, then start.
    Restart(Arguments),
    /// Ask the server on this machine what it is: leader, follower, observer or standalone.
    Status(Arguments),
    /// Print the version.
    Version,
    /// Print the command line that start would use.
    PrintCmd(Arguments),
}

impl CommandLine {
    /// Reads the words of a command line; on a wrong one (or `--help`) prints what is due and ends the process.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Self {
        Self::parse_from(verb_first(words.into_iter().collect()))
    }
}

/// `zkServer.sh --config DIR start`: its option stands before the verb. Here it belongs to the verb.
fn verb_first(mut words: Vec<OsString>) -> Vec<OsString> {
    let is_verb = |word: &OsStr| Verb::has_subcommand(&word.to_string_lossy());
    if words.get(1).is_some_and(|word| word == "--config") && words.get(3).is_some_and(|word| is_verb(word)) {
        words[1..4].rotate_right(1);
    }
    words
}

/// The words that a server is started with.
#[derive(Clone, Debug, Default, Args)]
pub struct Arguments {
    /// Executors to run: one for the write pipeline, the rest for clients. With 1, one does both.
    /// [default: the CPUs this process may use, at most 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub cores: Option<u16>,

    /// Apache ZooKeeper's configuration file. With a verb it may also be the directory of zoo.cfg.
    #[arg(long, value_name = "ZOO_CFG")]
    pub config: Option<PathBuf>,

    /// The same as --config, as zkServer.sh and QuorumPeerMain take it.
    #[arg(value_name = "ZOO_CFG")]
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

    /// Do not pin cores to CPUs: for tests, laptops, and more cores than CPUs.
    #[arg(long)]
    pub overprovisioned: bool,

    /// Set by `start`: leave the terminal's session, and say on standard output when the server is up.
    #[arg(long, hide = true)]
    pub detached: bool,
}

impl Arguments {
    /// The words that say the same, but for the configuration file and `--detached`.
    pub(super) fn options(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        let mut option = |name: &str, value: Option<OsString>| {
            if let Some(value) = value {
                words.extend([name.into(), value]);
            }
        };
        option("--cores", self.cores.map(|cores| cores.to_string().into()));
        option("--data-dir", self.data_dir.clone().map(PathBuf::into_os_string));
        option("--client-port", self.client_port.map(|port| port.to_string().into()));
        option("--client-address", self.client_address.map(|address| address.to_string().into()));
        if self.overprovisioned {
            words.push("--overprovisioned".into());
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(words: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(verb_first(words.split(' ').map(OsString::from).collect()))
    }

    #[test]
    fn every_form_that_is_documented_is_read() {
        CommandLine::command().debug_assert();
        let all = parse(
            "zkfast --cores 8 --config zoo.cfg --data-dir /d --client-port 0 --client-address ::1 --overprovisioned",
        )
        .expect("all options");
        let serve = all.serve;
        assert_eq!((serve.cores, serve.client_port, serve.overprovisioned), (Some(8), Some(0), true));
        let words: Vec<_> = serve.options().iter().map(|word| word.to_string_lossy().into_owned()).collect();
        assert_eq!(
            words.join(" "),
            "--cores 8 --data-dir /d --client-port 0 --client-address ::1 --overprovisioned"
        );
        assert_eq!(parse("zkfast zoo.cfg").expect("positional").serve.config_file, Some("zoo.cfg".into()));
        for wrong in [
            "zkfast --cores 0",
            "zkfast --cores many",
            "zkfast --client-port 70000",
            "zkfast --client-address somewhere",
            "zkfast a b",
            "zkfast --core 2",
            "zkfast start a b",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_verbs_of_zk_server_sh_are_read_with_its_order_of_words() {
        let verb = |words: &str| parse(words).expect(words).verb;
        assert!(matches!(verb("zkfast start"), Some(Verb::Start(_))));
        assert!(matches!(verb("zkfast start-foreground"), Some(Verb::StartForeground(_))));
        assert!(matches!(verb("zkfast version"), Some(Verb::Version)));
        assert!(matches!(verb("zkfast print-cmd"), Some(Verb::PrintCmd(_))));
        assert!(verb("zkfast ./start").is_none());
        for words in ["zkfast --config /etc/z status zoo1.cfg", "zkfast status --config /etc/z zoo1.cfg"] {
            let Some(Verb::Status(arguments)) = verb(words) else { panic!("{words}") };
            assert_eq!(
                (arguments.config, arguments.config_file),
                (Some("/etc/z".into()), Some("zoo1.cfg".into()))
            );
        }
    }
}
