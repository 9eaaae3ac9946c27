//! The text of an ensemble's configuration (row Q60; ZooKeeper's `QuorumMaj` and `QuorumHierarchical`): what travels
//! in notifications and NEWLEADER and lies in `/zookeeper/config`.
//!
//! ```text
//! server.1=10.0.0.1:2888:3888:participant;0.0.0.0:2181
//! server.2=10.0.0.2:2888:3888:observer
//! version=100000000
//! ```
//! Addresses stay text here; who dials them parses them.

use crate::ids::ServerId;
use std::{collections::BTreeMap, fmt};

/// One `server.N` line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// N.
    pub id: ServerId,
    /// `host:quorumPort:electionPort`, several joined with `|`.
    pub addresses: String,
    /// Whether it only observes.
    pub observer: bool,
    /// `clientHost:clientPort`, where the line has it.
    pub client_address: Option<String>,
}

/// An ensemble's members and how they count.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ensemble {
    /// Members, by rising id.
    pub members: Vec<Member>,
    /// `group.G` lines: the group of each server in one. Empty: a majority decides (Q6, Q7).
    pub groups: BTreeMap<ServerId, i64>,
    /// `weight.N` lines.
    pub weights: BTreeMap<ServerId, u64>,
    /// The last line; the zxid of the reconfiguration that made it, 0 for one from a file.
    pub version: i64,
}

/// A line of a configuration text that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("configuration line '{line}': {reason}")]
pub struct EnsembleError {
    /// The line.
    pub line: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Ensemble {
    /// Reads a configuration text. Unknown keys are passed over, as Java's parser does.
    ///
    /// # Errors
    /// A line without `=`, a number that is none, a server twice.
    pub fn parse(text: &str) -> Result<Self, EnsembleError> {
        let mut ensemble = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            ensemble.take_line(line).map_err(|reason| EnsembleError { line: line.to_owned(), reason })?;
        }
        ensemble.members.sort_by_key(|member| member.id);
        Ok(ensemble)
    }

    fn take_line(&mut self, line: &str) -> Result<(), &'static str> {
        let (key, value) = line.split_once('=').ok_or("key=value is missing its =")?;
        let (key, value) = (key.trim(), value.trim());
        if let Some(id) = key.strip_prefix("server.") {
            let member = Member::parse(ServerId(number(id)?), value)?;
            if self.members.iter().any(|other| other.id == member.id) {
                return Err("this server is listed twice");
            }
            self.members.push(member);
        } else if let Some(group) = key.strip_prefix("group.") {
            let group = number(group)?;
            for id in value.split(':') {
                if self.groups.insert(ServerId(number(id)?), group).is_some() {
                    return Err("a server is in several groups");
                }
            }
        } else if let Some(id) = key.strip_prefix("weight.") {
            let weight = value.parse().map_err(|_| "a weight is a number from 0 up")?;
            self.weights.insert(ServerId(number(id)?), weight);
        } else if key == "version" {
            self.version = i64::from_str_radix(value, 16).map_err(|_| "a version is hexadecimal")?;
        }
        Ok(())
    }
}

impl Member {
    fn parse(id: ServerId, value: &str) -> Result<Self, &'static str> {
        let (server, client_address) = match value.split_once(';') {
            Some((server, client)) => (server, Some(client.to_owned())),
            None => (value, None),
        };
        let (addresses, observer) = match server.rsplit_once(':') {
            Some((addresses, "observer")) => (addresses, true),
            Some((addresses, "participant")) => (addresses, false),
            Some(_) => (server, false),
            None => return Err("host:quorumPort:electionPort is missing its ports"),
        };
        Ok(Self { id, addresses: addresses.to_owned(), observer, client_address })
    }
}

fn number(text: &str) -> Result<i64, &'static str> {
    text.trim().parse().map_err(|_| "a server or group is a number")
}

impl fmt::Display for Ensemble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for member in &self.members {
            let role = if member.observer { "observer" } else { "participant" };
            write!(f, "server.{}={}:{role}", member.id, member.addresses)?;
            match &member.client_address {
                Some(client) => writeln!(f, ";{client}")?,
                None => writeln!(f)?,
            }
        }
        let mut groups = BTreeMap::<i64, Vec<String>>::new();
        for (id, group) in &self.groups {
            groups.entry(*group).or_default().push(id.to_string());
        }
        for (group, ids) in groups {
            writeln!(f, "group.{group}={}", ids.join(":"))?;
        }
        for (id, weight) in &self.weights {
            writeln!(f, "weight.{id}={weight}")?;
        }
        write!(f, "version={:x}", self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_comes_back_as_it_went() {
        for text in [
            "server.1=a:2888:3888:participant;0.0.0.0:2181\nserver.2=b:2888:3888:observer\nversion=100000000",
            "server.1=[::1]:1:2|10.0.0.1:1:2:participant\nversion=0",
            "server.1=a:1:2:participant\nserver.2=b:1:2:participant\ngroup.1=1:2\nweight.1=1\nweight.2=0\nversion=0",
        ] {
            assert_eq!(Ensemble::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn roles_and_defaults() {
        let ensemble =
            Ensemble::parse("server.2=b:1:2\nserver.1=a:1:2:observer\nother=1\nversion=a\n").unwrap();
        assert_eq!(ensemble.version, 10);
        assert_eq!(ensemble.members[0].id, ServerId(1));
        assert!(ensemble.members[0].observer && !ensemble.members[1].observer);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (text, reason) in [
            ("server.1=a:1:2\nserver.1=b:1:2", "twice"),
            ("server.x=a:1:2", "number"),
            ("server.1=a", "ports"),
            ("group.1=1\ngroup.2=1", "several"),
            ("version=xyz", "hexadecimal"),
            ("nonsense", "="),
        ] {
            let error = Ensemble::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
