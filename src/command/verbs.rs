//! The verbs of `zkServer.sh` (row O106): what they print and how they end is what scripts read.
//!
//! Words on standard output and standard error are Apache's. What is not there is not printed: a server without a JVM
//! has no JMX.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::arguments::{Arguments, Verb};
use super::daemon::Daemon;
use super::start_error::StartError;
use super::{probe, run_server};
use crate::config::properties::{self, Property};
use crate::status::version;

/// Where the packages of Debian keep the configuration.
const SYSTEM_CONFIG_DIR: &str = "/etc/zookeeper/conf";

/// Does what `verb` says.
///
/// # Errors
/// No configuration file, or, of `start-foreground`, why the server did not start.
pub fn run(verb: &Verb) -> Result<ExitCode, StartError> {
    match verb {
        Verb::Version => {
            println!("zkfast, version {}", version::FULL);
            Ok(ExitCode::SUCCESS)
        }
        Verb::StartForeground(arguments) => {
            let config = find_config(arguments)?;
            run_server(&Arguments { config: Some(config), config_file: None, ..arguments.clone() })
        }
        Verb::Start(arguments) => Ok(daemon(arguments)?.start()),
        Verb::Stop(arguments) => Ok(daemon(arguments)?.stop()),
        Verb::Restart(arguments) => {
            let daemon = daemon(arguments)?;
            daemon.stop();
            Ok(daemon.start())
        }
        Verb::Status(arguments) => {
            let config = find_config(arguments)?;
            Ok(probe::status(&Lines::read(&config)?, arguments))
        }
        Verb::PrintCmd(arguments) => {
            println!("{}", daemon(arguments)?.command_line());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn daemon(arguments: &Arguments) -> Result<Daemon, StartError> {
    let config = find_config(arguments)?;
    let lines = Lines::read(&config)?;
    let data_dir = arguments.data_dir.clone().or_else(|| lines.get("dataDir").map(PathBuf::from));
    let data_dir = data_dir.ok_or_else(|| {
        StartError::configuration(
            format!("{}: dataDir is not set", config.display()),
            "Add a line such as dataDir=/var/lib/zookeeper.",
        )
    })?;
    let log_dir = lines.get("dataLogDir").map(PathBuf::from);
    Ok(Daemon::new(config, arguments.options(), data_dir, log_dir))
}

/// The lines of a configuration file, unjudged: a verb must work on a file that the server would refuse.
pub struct Lines {
    properties: Vec<Property>,
}

impl Lines {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(file: &Path) -> Result<Self, StartError> {
        let unreadable = |why: String| {
            StartError::new(
                format!("cannot read the configuration file {}: {why}", file.display()),
                "Check the path and its permissions.",
            )
        };
        let bytes = std::fs::read(file).map_err(|error| unreadable(error.to_string()))?;
        let properties = properties::parse(&bytes)
            .map_err(|malformed| unreadable(format!("line {} has a broken \\u escape", malformed.line)))?;
        Ok(Self { properties })
    }

    /// The value of `key`, `None` if it is missing or empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.properties.iter().rev().find(|property| property.key == key)?;
        Some(found.value.as_str()).filter(|value| !value.is_empty())
    }
}

/// The configuration file that a verb means, told on standard error as `zkServer.sh` does.
fn find_config(arguments: &Arguments) -> Result<PathBuf, StartError> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let program = std::env::current_exe().ok();
    let beside = program.as_deref().and_then(Path::parent).map(|dir| dir.join("../conf"));
    let search =
        Search { config_dir: variable("ZOOCFGDIR"), name: variable("ZOOCFG"), beside_program: beside };
    let config = search.find(arguments, |path| path.is_file())?;
    // A relative path must not depend on where the daemon lives.
    let config = std::path::absolute(&config).unwrap_or(config);
    eprintln!("Using config: {}", config.display());
    Ok(config)
}

/// Where a configuration file is looked for (row O108).
struct Search {
    config_dir: Option<OsString>,
    name: Option<OsString>,
    beside_program: Option<PathBuf>,
}

impl Search {
    fn find(&self, arguments: &Arguments, exists: impl Fn(&Path) -> bool) -> Result<PathBuf, StartError> {
        let named = arguments.config_file.as_deref();
        let (config_dir, named) = match (&arguments.config, named) {
            // `--config FILE` alone, as without a verb.
            (Some(config), None) if exists(config) => return Ok(config.clone()),
            (Some(config), named) => (Some(config.clone()), named),
            (None, named) => (self.config_dir.as_ref().map(PathBuf::from), named),
        };
        let fallback = PathBuf::from(self.name.as_deref().unwrap_or("zoo.cfg".as_ref()));
        let name = named.unwrap_or(&fallback);
        let has_slash = name.components().count() > 1 || name.is_absolute();
        let places: Vec<PathBuf> = if has_slash {
            vec![name.to_owned()]
        } else if let Some(dir) = config_dir {
            vec![dir.join(name)]
        } else {
            let beside = self.beside_program.iter().cloned();
            let dirs = std::iter::once(PathBuf::new()).chain(beside).chain([SYSTEM_CONFIG_DIR.into()]);
            dirs.map(|dir| dir.join(name)).collect()
        };
        if let Some(found) = places.iter().find(|place| exists(place)) {
            return Ok(found.clone());
        }
        let shown: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        Err(StartError::new(
            format!("there is no configuration file {}", shown.join(", ")),
            "Name one: zkfast start /path/to/zoo.cfg.",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_found_where_zk_server_sh_finds_it() {
        let check =
            |dir: Option<&str>, config: Option<&str>, file: Option<&str>, there: &[&str], expected: &str| {
                let search = Search {
                    config_dir: dir.map(OsString::from),
                    name: None,
                    beside_program: Some("/opt/zk/conf".into()),
                };
                let arguments = Arguments {
                    config: config.map(PathBuf::from),
                    config_file: file.map(PathBuf::from),
                    ..Arguments::default()
                };
                let found = search.find(&arguments, |path| there.iter().any(|name| path == Path::new(name)));
                match found {
                    Ok(path) => assert_eq!(path, Path::new(expected)),
                    Err(error) => assert!(error.to_string().contains(expected), "{error} without {expected}"),
                }
            };
        check(None, None, Some("a.cfg"), &["a.cfg"], "a.cfg");
        check(None, None, Some("/x/a.cfg"), &["/x/a.cfg"], "/x/a.cfg");
        check(Some("/conf"), None, Some("a.cfg"), &["a.cfg", "/conf/a.cfg"], "/conf/a.cfg");
        check(Some("/conf"), None, Some("./x/a.cfg"), &["./x/a.cfg"], "./x/a.cfg");
        check(Some("/conf"), None, None, &["/conf/zoo.cfg"], "/conf/zoo.cfg");
        check(Some("/conf"), Some("/other"), None, &["/other/zoo.cfg"], "/other/zoo.cfg");
        check(None, Some("/other/x.cfg"), None, &["/other/x.cfg"], "/other/x.cfg");
        check(None, None, None, &["/opt/zk/conf/zoo.cfg"], "/opt/zk/conf/zoo.cfg");
        check(None, None, None, &["/etc/zookeeper/conf/zoo.cfg"], "/etc/zookeeper/conf/zoo.cfg");
        check(None, None, None, &[], "no configuration file zoo.cfg, /opt/zk/conf/zoo.cfg");
        check(None, None, Some("/x/a.cfg"), &[], "no configuration file /x/a.cfg");
    }
}
