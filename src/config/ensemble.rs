//! The servers of an ensemble in `zoo.cfg` (rows Q1-Q7): which lines belong together, and what one server of them is
//! started with. The text of the lines itself is `zkfast_wire`'s.

use std::collections::BTreeMap;
use std::fmt;

pub use zkfast_wire::ensemble::{Ensemble, HostPort, Member, PeerAddress};

use super::error::ConfigError;
use zkfast_wire::ServerId;

const LINE_FORMS: &str = "Write server.<id>=<host>:<quorum port>:<election port>[:participant|:observer]\
                          [;[<client host>:]<client port>] with IPv6 addresses in brackets, group.<id>=<id>:<id>..., \
                          or weight.<id>=<number>.";

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

    /// What its line says.
    pub fn of(member: &Member) -> Self {
        if member.observer { Self::Observer } else { Self::Participant }
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

/// What one server of an ensemble is started with, every default filled in. Made by
/// [`ZooCfg::ensemble_settings`](super::ZooCfg::ensemble_settings).
#[derive(Clone, Debug, PartialEq)]
pub struct EnsembleSettings {
    /// `myid`: a key of `addresses`, and a member of `ensemble`.
    pub me: ServerId,
    /// Everybody, and how votes count.
    pub ensemble: Ensemble,
    /// Where each server listens for its peers, `me` included; at least one address each.
    pub addresses: BTreeMap<ServerId, Vec<PeerAddress>>,
    /// Several addresses for a server are allowed (`multiAddress.enabled`): the election handshake is then Q11's V2.
    pub multi_address: bool,
    /// `quorumListenOnAllIPs`: bind the quorum and the election port on all addresses, not on those of `me`'s line.
    pub listens_on_all: bool,
    /// `electionPortBindRetry`: binds of a port that is taken, a second apart, before giving up; 0 is for ever (Q17).
    pub bind_tries: u32,
    /// `tickTime` in milliseconds.
    pub tick_ms: u32,
    /// `initLimit`, ticks, at least 1.
    pub init_limit_ticks: u32,
    /// `syncLimit`, ticks, at least 1.
    pub sync_limit_ticks: u32,
    /// `connectToLearnerMasterLimit`, ticks; `initLimit` unless set.
    pub connect_limit_ticks: u32,
    /// `leaderConnectDelayDuringRetryMs` (Q46).
    pub dial_retry_ms: u32,
    /// `leader.maxConcurrentSnapSyncs`: observers that a leader sends images to at once, from 1 (Q78).
    pub image_transfers_max: u32,
    /// `leader.maxConcurrentDiffSyncs`: the same with records, from 1 (Q78).
    pub history_transfers_max: u32,
    /// `cnxTimeout`: milliseconds to open an election connection (Q17).
    pub election_dial_timeout_ms: u32,
    /// `tcpKeepAlive`: SO_KEEPALIVE on election connections (Q11).
    pub election_keep_alive: bool,
    /// `quorumCnxnTimeoutMs`, else `tickTime` x `syncLimit`: milliseconds that the handshake of an election connection
    /// may take (Q17).
    pub election_handshake_timeout_ms: u32,
    /// `fastleader.minNotificationInterval`, milliseconds (Q26).
    pub notification_interval_ms_min: u32,
    /// `fastleader.maxNotificationInterval`, milliseconds, not below the least.
    pub notification_interval_ms_max: u32,
    /// `forceSnapshotSync`: every learner is sent a snapshot (Q49).
    pub force_snapshot: bool,
    /// `localSessionsEnabled` (S15).
    pub local_sessions: bool,
    /// `localSessionsUpgradingEnabled` (S15).
    pub upgrades_local_sessions: bool,
    /// `readonlymode.enabled` (S16).
    pub read_only_mode: bool,
    /// `testingonly.initialZxid`: the counter behind which a leader's first transaction comes.
    pub first_counter: u32,
    /// `leaderServes`: does a leader take clients (Q79)?
    pub leader_serves: bool,
    /// `commitLogCount`: committed transactions kept in memory for learners that were away (Q51).
    pub commit_log_count: u32,
    /// `snapshotSizeFactor`: a learner is sent log files up to this fraction of the snapshot; below 0 never (Q49).
    pub snapshot_size_factor: f64,
}

/// Is `key` one of the keys that [`take`] reads?
pub(super) fn is_member_key(key: &str) -> bool {
    key.starts_with("server.") || key.starts_with("group") || key.starts_with("weight")
}

/// Takes one member line. `key` must satisfy [`is_member_key`].
pub(super) fn take(
    ensemble: &mut Ensemble,
    key: &str,
    value: &str,
    multi_address: bool,
) -> Result<(), ConfigError> {
    ensemble
        .take(key, value)
        .map_err(|reason| ConfigError::new(format!("{key}={value}: {reason}"), LINE_FORMS))?;
    let is_crowded = |member: &Member| format!("server.{}", member.id) == key && member.addresses.len() > 1;
    if !multi_address && ensemble.members.iter().any(is_crowded) {
        return Err(ConfigError::new(
            format!("{key}={value}: several addresses, but multiAddress.enabled is not true"),
            "Set multiAddress.enabled=true on every server of the ensemble, or write one address.",
        ));
    }
    Ok(())
}

/// Checks the relations between lines, once all are read, and fills in the weights of voters in groups.
pub(super) fn settle(ensemble: &mut Ensemble, standalone_enabled: bool) -> Result<(), ConfigError> {
    let voters: Vec<ServerId> = ensemble.voters().map(|member| member.id).collect();
    let observers = ensemble.members.len() - voters.len();
    if voters.is_empty() && !standalone_enabled {
        return Err(ConfigError::new(
            "standaloneEnabled=false, but no server line names a participant",
            "Add server.<id> lines, or remove standaloneEnabled=false.",
        ));
    }
    if observers > 0 && (voters.is_empty() || (voters.len() == 1 && standalone_enabled)) {
        return Err(ConfigError::new(
            format!("{observers} observer(s) but {} participant(s)", voters.len()),
            "Observers need an ensemble: add participants, or set standaloneEnabled=false for one participant.",
        ));
    }
    if let Some((one, other, address)) = shared_address(ensemble) {
        return Err(ConfigError::new(
            format!("server.{one} and server.{other} have the same address {address}"),
            "Give each server a host or a port of its own.",
        ));
    }
    if ensemble.is_hierarchical() {
        if let Some(lost) = voters.iter().find(|id| !ensemble.groups.contains_key(id)) {
            return Err(ConfigError::new(
                format!("server.{lost} votes but is in no group"),
                "With group or weight lines, name every voter in exactly one group.<id> line.",
            ));
        }
        for id in &voters {
            ensemble.weights.entry(*id).or_insert(1);
        }
        if voters.iter().all(|id| ensemble.weights.get(id) == Some(&0)) {
            return Err(ConfigError::new(
                "every voter weighs 0, so nobody could ever be elected",
                "Give at least one server a weight.<id> above 0.",
            ));
        }
    }
    Ok(())
}

/// Two servers that name one host and port, which at most one of them can have.
fn shared_address(ensemble: &Ensemble) -> Option<(ServerId, ServerId, HostPort)> {
    let mut owners = BTreeMap::new();
    for member in &ensemble.members {
        for address in &member.addresses {
            for port in [address.quorum_port, address.election_port] {
                let owner = *owners.entry((address.host.as_str(), port)).or_insert(member.id);
                if owner != member.id {
                    return Some((owner, member.id, HostPort { host: address.host.clone(), port }));
                }
            }
        }
    }
    None
}

/// What Apache too says at the start of an ensemble whose size does not help its operator.
pub(super) fn size_notice(ensemble: &Ensemble) -> Option<&'static str> {
    match ensemble.voters().count() {
        0 | 1 => None,
        2 => Some("No server failure will be tolerated. You need at least 3 servers."),
        count if count % 2 == 0 => Some("Non-optimal configuration, consider an odd number of servers."),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ensemble(lines: &[(&str, &str)]) -> Result<Ensemble, ConfigError> {
        let mut ensemble = Ensemble::default();
        for (key, value) in lines {
            take(&mut ensemble, key, value, false)?;
        }
        settle(&mut ensemble, true).map(|()| ensemble)
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
        assert_eq!(
            good.to_string(),
            "server.1=a:1:2:participant\nserver.2=b:1:2:participant\nserver.3=c:1:2:observer\n\
             group.1=1:2\nweight.1=1\nweight.2=3\nversion=0"
        );
        assert!(ensemble(&lines[..4]).is_ok());
        assert!(ensemble(&[("server.1", "a:1:2"), ("server.2", "b:1:2"), ("group.1", "1")]).is_err());
        assert!(ensemble(&[("server.1", "a:1:2"), ("group.1", "1"), ("group.2", "1")]).is_err());
        assert!(ensemble(&[("server.1", "a:1:2"), ("server.2", "b:1:2:observer")]).is_err());
    }

    #[test]
    fn what_cannot_work_is_refused_in_words() {
        let check = |lines: &[(&str, &str)], word: &str| {
            let error = ensemble(lines).expect_err(word).to_string();
            assert!(error.contains(word), "{error:?} without {word:?}");
        };
        check(&[("server.x", "a:1:2")], "number");
        check(&[("groups", "1")], "unknown key");
        check(&[("server.1", "a:1:2|b:1:2")], "multiAddress.enabled");
        check(&[("server.1", "a:1:2"), ("server.2", "a:1:3"), ("server.3", "c:1:2")], "same address a:1");
        let weightless = [("server.1", "a:1:2"), ("group.1", "1"), ("weight.1", "0")];
        check(&weightless, "weighs 0");
    }

    #[test]
    fn sizes_that_do_not_help_are_noticed() {
        let notice = |count: u16| {
            let mut ensemble = Ensemble::default();
            for id in 1..=count {
                take(&mut ensemble, &format!("server.{id}"), &format!("h{id}:1:2"), false).expect("a line");
            }
            size_notice(&ensemble)
        };
        assert!(notice(2).is_some_and(|text| text.contains("No server failure")));
        assert!(notice(4).is_some_and(|text| text.contains("odd number")));
        assert!(notice(1).is_none() && notice(3).is_none() && notice(5).is_none());
    }
}
