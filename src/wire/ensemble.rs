//! An ensemble's configuration as text (rows Q1, Q7, Q60; ZooKeeper's `QuorumServer`, `QuorumMaj`,
//! `QuorumHierarchical`): the member lines of `zoo.cfg`, what travels in notifications and NEWLEADER, and what lies in
//! `/zookeeper/config`.
//!
//! ```text
//! server.1=10.0.0.1:2888:3888:participant;0.0.0.0:2181
//! server.2=[fe80::1]:2888:3888:observer
//! version=100000000
//! ```
//! Host names stay as written: whoever dials them resolves them, at each dial anew (Q18). So a name that does not
//! resolve yet is no error here.

use crate::ids::ServerId;
use std::{collections::BTreeMap, fmt};

/// Where one server listens for its peers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddress {
    /// Name or address, without brackets.
    pub host: String,
    /// Port on which, as leader, it accepts learners.
    pub quorum_port: u16,
    /// Port of the election connections.
    pub election_port: u16,
}

/// A host as written, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// One `server.N` line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// N.
    pub id: ServerId,
    /// `host:quorumPort:electionPort`, at least one; several are joined with `|` in the text.
    pub addresses: Vec<PeerAddress>,
    /// Whether it only observes: learns and serves, never votes (Q4).
    pub observer: bool,
    /// `clientHost:clientPort`, where the line has it. A client host that is not written is 0.0.0.0.
    pub client: Option<HostPort>,
}

/// An ensemble's members and how they count.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ensemble {
    /// Members, by rising id.
    pub members: Vec<Member>,
    /// `group.G` lines: the group of each server in one. Empty: a majority decides (Q6, Q7).
    pub groups: BTreeMap<ServerId, i64>,
    /// `weight.N` lines. A voter without one weighs 1.
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
    pub reason: String,
}

impl Ensemble {
    /// Reads a configuration text. Unknown keys are passed over, as Java's parser does.
    ///
    /// # Errors
    /// A line without `=`, a number that is none, a server twice.
    pub fn parse(text: &str) -> Result<Self, EnsembleError> {
        let mut ensemble = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let wrong = |reason: String| EnsembleError { line: line.to_owned(), reason };
            let (key, value) =
                line.split_once('=').ok_or_else(|| wrong("key=value is missing its =".to_owned()))?;
            let (key, value) = (key.trim(), value.trim());
            if key == "version" {
                ensemble.version = i64::from_str_radix(value, 16)
                    .map_err(|_| wrong("a version is hexadecimal".to_owned()))?;
            } else if key.starts_with("server.") || key.starts_with("group.") || key.starts_with("weight.") {
                ensemble.take(key, value).map_err(wrong)?;
            }
        }
        Ok(ensemble)
    }

    /// Takes one `server.N`, `group.G` or `weight.N` line.
    ///
    /// # Errors
    /// What is wrong with it, in words: another key, a number that is none, an address without its ports, a server
    /// that was named before.
    pub fn take(&mut self, key: &str, value: &str) -> Result<(), String> {
        let (kind, number) = key.split_once('.').unwrap_or((key, ""));
        let id = || parse_id(number);
        match kind {
            "server" => {
                let member = Member::parse(id()?, value)?;
                let place = self.members.partition_point(|other| other.id < member.id);
                if self.members.get(place).is_some_and(|other| other.id == member.id) {
                    return Err("this server is listed twice".to_owned());
                }
                self.members.insert(place, member);
            }
            "group" => {
                let group = id()?.0;
                for text in value.split(':') {
                    if self.groups.insert(parse_id(text)?, group).is_some() {
                        return Err(format!("server {text} is in several groups"));
                    }
                }
            }
            "weight" => {
                let weight = value
                    .trim()
                    .parse()
                    .map_err(|_| format!("'{value}' is not a weight, a number from 0 up"))?;
                self.weights.insert(id()?, weight);
            }
            _ => return Err(format!("unknown key {key}")),
        }
        Ok(())
    }

    /// The member with this id.
    pub fn member(&self, id: ServerId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The servers that vote, by rising id.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !member.observer)
    }

    /// Are quorums counted by groups (Q7)?
    pub fn is_hierarchical(&self) -> bool {
        !self.groups.is_empty() || !self.weights.is_empty()
    }
}

impl Member {
    /// The value of a `server.N` line: `host:quorum:election[:participant|:observer][;[clientHost:]clientPort]`, IPv6
    /// hosts in brackets, several addresses joined with `|`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(id: ServerId, text: &str) -> Result<Self, String> {
        let mut parts = text.split(';');
        let servers = parts.next().unwrap_or_default();
        let client = match (parts.next().map(str::trim), parts.next()) {
            (None | Some(""), None) => None,
            (Some(client), None) => match colon_parts(client)?.as_slice() {
                [port] => Some(HostPort { host: "0.0.0.0".to_owned(), port: parse_port(port)? }),
                [host, port] => Some(HostPort { host: (*host).to_owned(), port: parse_port(port)? }),
                _ => return Err(format!("the client part '{client}' is not <port> or <host>:<port>")),
            },
            (_, Some(_)) => return Err("more than one ';'".to_owned()),
        };
        let mut addresses = Vec::new();
        let mut observer = None;
        for server in servers.split('|') {
            let parts = colon_parts(server.trim())?;
            let (host, quorum, election) = match parts.as_slice() {
                [host, quorum, election] | [host, quorum, election, _] => (*host, *quorum, *election),
                _ => return Err("host, quorum port and election port are needed".to_owned()),
            };
            if host.is_empty() {
                return Err("the host before the ports is empty".to_owned());
            }
            let address = PeerAddress {
                host: host.to_owned(),
                quorum_port: parse_port(quorum)?,
                election_port: parse_port(election)?,
            };
            if address.quorum_port == address.election_port {
                return Err("quorum port and election port must be different".to_owned());
            }
            addresses.push(address);
            if let Some(text) = parts.get(3) {
                let this = match text.trim().to_ascii_lowercase().as_str() {
                    "participant" => false,
                    "observer" => true,
                    _ => return Err(format!("'{text}' is not participant or observer")),
                };
                if *observer.get_or_insert(this) != this {
                    return Err("its addresses have different roles".to_owned());
                }
            }
        }
        Ok(Self { id, addresses, observer: observer.unwrap_or(false), client })
    }
}

fn parse_id(text: &str) -> Result<ServerId, String> {
    text.trim().parse().map(ServerId).map_err(|_| format!("'{text}' is not the number of a server or group"))
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.trim().parse().map_err(|_| format!("'{text}' is not a port number"))
}

/// Splits at colons, a leading `[...]` being one part (`ConfigUtils.getHostAndPort`).
fn colon_parts(text: &str) -> Result<Vec<&str>, String> {
    let Some(inner) = text.strip_prefix('[') else {
        return Ok(text.split(':').collect());
    };
    let (host, rest) = inner.split_once(']').ok_or_else(|| format!("'{text}' has '[' without ']'"))?;
    let rest = rest.strip_prefix(':').ok_or_else(|| format!("'{text}' has no port after ']'"))?;
    Ok(std::iter::once(host).chain(rest.split(':')).collect())
}

/// An IPv6 host in its brackets, any other as it is.
struct Bracketed<'a>(&'a str);

impl fmt::Display for Bracketed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(':') { write!(f, "[{}]", self.0) } else { f.write_str(self.0) }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", Bracketed(&self.host), self.port)
    }
}

impl fmt::Display for Member {
    /// The value of its line as Apache writes it: addresses sorted by host, the role always.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&PeerAddress> = self.addresses.iter().collect();
        sorted.sort_by(|left, right| left.host.cmp(&right.host));
        for (index, address) in sorted.into_iter().enumerate() {
            let bar = if index == 0 { "" } else { "|" };
            let (quorum, election) = (address.quorum_port, address.election_port);
            write!(f, "{bar}{}:{quorum}:{election}", Bracketed(&address.host))?;
        }
        f.write_str(if self.observer { ":observer" } else { ":participant" })?;
        match &self.client {
            Some(client) => write!(f, ";{client}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Ensemble {
    /// The text of row Q60: no newline at its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for member in &self.members {
            writeln!(f, "server.{}={member}", member.id)?;
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

    fn line(text: &str) -> Result<Member, String> {
        Member::parse(ServerId(1), text)
    }

    #[test]
    fn every_form_of_a_server_line_is_read_and_written_as_apache_writes_it() {
        let check = |text: &str, expected: &str| {
            assert_eq!(line(text).expect(text).to_string(), expected, "{text}");
        };
        check("zoo1:2888:3888", "zoo1:2888:3888:participant");
        check("zoo1:2888:3888:observer", "zoo1:2888:3888:observer");
        check("zoo1:2888:3888:PARTICIPANT;2181", "zoo1:2888:3888:participant;0.0.0.0:2181");
        check("10.0.0.1:2888:3888;10.0.0.2:2181", "10.0.0.1:2888:3888:participant;10.0.0.2:2181");
        check("[::1]:2888:3888;[fe80::1]:2181", "[::1]:2888:3888:participant;[fe80::1]:2181");
        check("b:1:2|a:3:4:observer", "a:3:4|b:1:2:observer");
    }

    #[test]
    fn a_bad_server_line_says_what_is_wrong() {
        let check = |text: &str, word: &str| {
            let error = line(text).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        };
        check("zoo1:2888", "needed");
        check(":2888:3888", "is empty");
        check("zoo1:2888:x", "'x' is not a port");
        check("zoo1:2888:70000", "'70000' is not a port");
        check("zoo1:2888:2888", "must be different");
        check("zoo1:2888:3888:boss", "'boss'");
        check("zoo1:2888:3888;a:b:1", "client part");
        check("zoo1:2888:3888;2181;2182", "more than one");
        check("[::1:2888:3888", "without ']'");
        check("a:1:2:observer|b:1:2:participant", "different roles");
    }

    /// Q60.
    #[test]
    fn a_text_comes_back_as_it_went() {
        for text in [
            "server.1=a:2888:3888:participant;0.0.0.0:2181\nserver.2=b:2888:3888:observer\nversion=100000000",
            "server.1=10.0.0.1:1:2|[::1]:1:2:participant\nversion=0",
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
        assert_eq!(ensemble.voters().map(|member| member.id).collect::<Vec<_>>(), [ServerId(2)]);
        assert_eq!(ensemble.member(ServerId(2)).map(|member| member.addresses.len()), Some(1));
        assert_eq!(ensemble.member(ServerId(3)), None);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (text, reason) in [
            ("server.1=a:1:2\nserver.1=b:1:2", "twice"),
            ("server.x=a:1:2", "number"),
            ("server.1=a", "needed"),
            ("group.1=1\ngroup.2=1", "several"),
            ("weight.1=-2", "weight"),
            ("version=xyz", "hexadecimal"),
            ("nonsense", "="),
        ] {
            let error = Ensemble::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
