//! The servers of an ensemble: `server.N`, `group.N` and `weight.N` lines (rows Q1, Q3, Q4, Q7, Q60).
//!
//! Host names are kept as written: they are resolved at each dial, never here, so a name that does not resolve yet is
//! no error. The same text form travels in votes and NEWLEADER packets and lies in `/zookeeper/config`.

use std::collections::BTreeMap;
use std::fmt;

use zkfast_wire::ServerId;

use super::error::ConfigError;

const SERVER_LINE_FORMS: &str = "Write server.<id>=<host>:<quorum port>:<election port>[:participant|:observer]\
                                 [;[<client host>:]<client port>], with IPv6 addresses in brackets.";

/// Does this server vote (row Q4)?
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PeerType {
    /// Votes, acknowledges, can lead.
    #[default]
    Participant,
    /// Learns and serves only.
    Observer,
}

impl PeerType {
    /// From `participant` or `observer` in any case.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "participant" => Some(Self::Participant),
            "observer" => Some(Self::Observer),
            _ => None,
        }
    }
}

impl fmt::Display for PeerType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Participant => "participant",
            Self::Observer => "observer",
        })
    }
}

/// Where one server listens for its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Name or address, without brackets.
    pub host: String,
    /// Port on which, as leader, it accepts learners.
    pub quorum_port: u16,
    /// Port of the election connections.
    pub election_port: u16,
}

/// A host as written, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", Bracketed(&self.host), self.port)
    }
}

/// One `server.N` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLine {
    /// The N.
    pub id: ServerId,
    /// At least one; several only with `multiAddress.enabled=true`.
    pub addresses: Vec<PeerAddress>,
    /// Its role, participant if the line does not say.
    pub role: PeerType,
    /// The part after `;`. A client host that is not written is 0.0.0.0.
    pub client: Option<HostPort>,
}

impl ServerLine {
    /// The value of `server.<id>`.
    pub fn parse(id: ServerId, text: &str, multi_address: bool) -> Result<Self, ConfigError> {
        let wrong = |why: String| ConfigError::new(format!("server.{id}={text}: {why}"), SERVER_LINE_FORMS);
        let port = |text: &str| -> Result<u16, ConfigError> {
            text.parse().map_err(|_| wrong(format!("'{text}' is not a port number")))
        };
        let mut parts = text.split(';');
        let servers = parts.next().unwrap_or_default();
        let client = match (parts.next().map(str::trim), parts.next()) {
            (None | Some(""), None) => None,
            (Some(client), None) => match colon_parts(client).map_err(&wrong)?.as_slice() {
                [number] => Some(HostPort { host: "0.0.0.0".to_owned(), port: port(number)? }),
                [host, number] => Some(HostPort { host: (*host).to_owned(), port: port(number)? }),
                _ => return Err(wrong(format!("the client part '{client}' is not <port> or <host>:<port>"))),
            },
            (_, Some(_)) => return Err(wrong("more than one ';'".to_owned())),
        };
        let mut addresses = Vec::new();
        let mut role = None;
        for server in servers.split('|') {
            let parts = colon_parts(server.trim()).map_err(&wrong)?;
            let (host, quorum, election) = match parts.as_slice() {
                [host, quorum, election] | [host, quorum, election, _] => (*host, *quorum, *election),
                _ => return Err(wrong("host, quorum port and election port are needed".to_owned())),
            };
            let address = PeerAddress {
                host: host.to_owned(),
                quorum_port: port(quorum)?,
                election_port: port(election)?,
            };
            if address.quorum_port == address.election_port {
                return Err(wrong("quorum port and election port must be different".to_owned()));
            }
            addresses.push(address);
            if let Some(text) = parts.get(3) {
                let this = PeerType::parse(text)
                    .ok_or_else(|| wrong(format!("'{text}' is not participant or observer")))?;
                if *role.get_or_insert(this) != this {
                    return Err(wrong("its addresses have different roles".to_owned()));
                }
            }
        }
        if addresses.len() > 1 && !multi_address {
            return Err(ConfigError::new(
                format!("server.{id}={text}: several addresses, but multiAddress.enabled is not true"),
                "Set multiAddress.enabled=true on every server of the ensemble, or write one address.",
            ));
        }
        Ok(Self { id, addresses, role: role.unwrap_or_default(), client })
    }
}

impl fmt::Display for ServerLine {
    /// As Apache writes it (row Q60).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&PeerAddress> = self.addresses.iter().collect();
        sorted.sort_by(|left, right| left.host.cmp(&right.host));
        for (index, address) in sorted.into_iter().enumerate() {
            let bar = if index == 0 { "" } else { "|" };
            let (quorum, election) = (address.quorum_port, address.election_port);
            write!(f, "{bar}{}:{quorum}:{election}", Bracketed(&address.host))?;
        }
        write!(f, ":{}", self.role)?;
        match &self.client {
            Some(client) => write!(f, ";{client}"),
            None => Ok(()),
        }
    }
}

/// An IPv6 host in its brackets, any other as it is.
struct Bracketed<'a>(&'a str);

impl fmt::Display for Bracketed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(':') { write!(f, "[{}]", self.0) } else { f.write_str(self.0) }
    }
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

/// All members, and how their votes are counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ensemble {
    /// Members by id, so in the order in which Apache writes them.
    pub servers: BTreeMap<i64, ServerLine>,
    /// `group.G=sid:sid`: group of each server. Empty with plain majorities.
    pub group_of: BTreeMap<i64, i64>,
    /// `weight.S=n`, for servers in groups. A server without one weighs 1.
    pub weights: BTreeMap<i64, i64>,
    /// Version of a dynamic configuration, 0 for a static one.
    pub version: i64,
}

impl Ensemble {
    /// Is `key` one of the keys that [`Ensemble::take`] reads?
    pub fn is_member_key(key: &str) -> bool {
        key.starts_with("server.") || key.starts_with("group") || key.starts_with("weight")
    }

    /// Takes one member line. `key` must satisfy [`Ensemble::is_member_key`].
    pub fn take(&mut self, key: &str, value: &str, multi_address: bool) -> Result<(), ConfigError> {
        let number = |text: &str, what: &str| -> Result<i64, ConfigError> {
            text.trim().parse().map_err(|_| {
                ConfigError::new(
                    format!("{key}={value}: '{text}' is not {what}"),
                    "Write server.<id>, group.<id>=<id>:<id>... or weight.<id>=<number>, ids being whole numbers.",
                )
            })
        };
        let (kind, id) = key.split_once('.').unwrap_or((key, ""));
        let id = number(id, "an id")?;
        match kind {
            "server" => {
                self.servers.insert(id, ServerLine::parse(ServerId(id), value, multi_address)?);
            }
            "weight" => {
                self.weights.insert(id, number(value, "a weight")?);
            }
            "group" => {
                for member in value.split(':') {
                    if self.group_of.insert(number(member, "a server id")?, id).is_some() {
                        return Err(ConfigError::new(
                            format!("{key}={value}: server {member} is in several groups"),
                            "Name every voter in exactly one group.",
                        ));
                    }
                }
            }
            _ => {
                return Err(ConfigError::new(
                    format!("unknown key {key}"),
                    "Keys that begin with group or weight must read group.<id> or weight.<id>.",
                ));
            }
        }
        Ok(())
    }

    /// Are quorums counted by groups (row Q7)?
    pub fn is_hierarchical(&self) -> bool {
        !self.group_of.is_empty() || !self.weights.is_empty()
    }

    /// The servers that vote.
    pub fn voters(&self) -> impl Iterator<Item = &ServerLine> {
        self.servers.values().filter(|server| server.role == PeerType::Participant)
    }

    /// Weight of a server: 1 unless a line says otherwise.
    pub fn weight(&self, id: ServerId) -> i64 {
        self.weights.get(&id.0).copied().unwrap_or(1)
    }

    /// The relations between lines that Apache checks once all are read.
    pub fn check(&self, standalone_enabled: bool) -> Result<(), ConfigError> {
        let voters = self.voters().count();
        let observers = self.servers.len() - voters;
        if voters == 0 && !standalone_enabled {
            return Err(ConfigError::new(
                "standaloneEnabled=false, but no server line names a participant",
                "Add server.<id> lines, or remove standaloneEnabled=false.",
            ));
        }
        if observers > 0 && (voters == 0 || (voters == 1 && standalone_enabled)) {
            return Err(ConfigError::new(
                format!("{observers} observer(s) but {voters} participant(s)"),
                "Observers need an ensemble: add participants, or set standaloneEnabled=false for one participant.",
            ));
        }
        if self.is_hierarchical()
            && let Some(lost) = self.voters().find(|server| !self.group_of.contains_key(&server.id.0))
        {
            return Err(ConfigError::new(
                format!("server.{} votes but is in no group", lost.id),
                "With group or weight lines, name every voter in exactly one group.<id> line.",
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Ensemble {
    /// The configuration text of row Q60: no newline at its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for server in self.servers.values() {
            writeln!(f, "server.{}={server}", server.id)?;
        }
        if self.is_hierarchical() {
            let mut groups: BTreeMap<i64, Vec<String>> = BTreeMap::new();
            for (server, group) in &self.group_of {
                groups.entry(*group).or_default().push(server.to_string());
            }
            for (group, members) in groups {
                writeln!(f, "group.{group}={}", members.join(":"))?;
            }
            let weighed: BTreeMap<i64, i64> = self
                .voters()
                .map(|server| (server.id.0, 1))
                .chain(self.weights.iter().map(|(id, weight)| (*id, *weight)))
                .collect();
            for (server, weight) in weighed {
                writeln!(f, "weight.{server}={weight}")?;
            }
        }
        write!(f, "version={:x}", self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<ServerLine, ConfigError> {
        ServerLine::parse(ServerId(1), text, false)
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
    }

    #[test]
    fn a_bad_server_line_says_what_is_wrong() {
        let check = |text: &str, word: &str| {
            let error = line(text).expect_err(text).to_string();
            assert!(error.contains(word), "{text}: {error}");
        };
        check("zoo1:2888", "needed");
        check("zoo1:2888:x", "'x' is not a port");
        check("zoo1:2888:70000", "'70000' is not a port");
        check("zoo1:2888:2888", "must be different");
        check("zoo1:2888:3888:boss", "'boss'");
        check("zoo1:2888:3888;a:b:1", "client part");
        check("zoo1:2888:3888;2181;2182", "more than one");
        check("[::1:2888:3888", "without ']'");
        check("a:1:2|b:1:2", "multiAddress");
        let several = ServerLine::parse(ServerId(1), "b:1:2|a:3:4:observer", true).expect("multi");
        assert_eq!(several.to_string(), "a:3:4|b:1:2:observer");
    }

    fn ensemble(lines: &[(&str, &str)]) -> Result<Ensemble, ConfigError> {
        let mut ensemble = Ensemble::default();
        for (key, value) in lines {
            ensemble.take(key, value, false)?;
        }
        ensemble.check(true).map(|()| ensemble)
    }

    #[test]
    fn groups_and_weights_are_read_and_checked() {
        let lines = [
            ("server.1", "a:1:2"),
            ("server.2", "b:1:2"),
            ("server.3", "c:1:2:observer"),
            ("group.1", "1:2"),
            ("weight.2", "3"),
        ];
        let good = ensemble(&lines).expect("good");
        assert_eq!((good.weight(ServerId(1)), good.weight(ServerId(2))), (1, 3));
        assert_eq!(
            good.to_string(),
            "server.1=a:1:2:participant\nserver.2=b:1:2:participant\nserver.3=c:1:2:observer\n\
             group.1=1:2\nweight.1=1\nweight.2=3\nversion=0"
        );
        assert!(ensemble(&lines[..4]).is_ok());
        assert!(ensemble(&[("server.1", "a:1:2"), ("server.2", "b:1:2"), ("group.1", "1")]).is_err());
        assert!(ensemble(&[("server.1", "a:1:2"), ("group.1", "1"), ("group.2", "1")]).is_err());
        assert!(ensemble(&[("server.1", "a:1:2"), ("server.2", "b:1:2:observer")]).is_err());
        assert!(ensemble(&[("server.x", "a:1:2")]).is_err());
        assert!(ensemble(&[("groups", "1")]).is_err());
    }
}
