//! `zoo.cfg`, read as Apache ZooKeeper 3.9 reads it (`QuorumPeerConfig`), as one plain value.
//!
//! What is fatal there is fatal here, with file and line (rows O4, O5); what is silently ignored there is named in
//! [`ZooCfg::warnings`]. Host names are not resolved here.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use zkfast_wire::ServerId;

use super::ensemble::{self, Ensemble, EnsembleSettings, HostPort, PeerType};
use super::error::ConfigError;
use super::java_flags::JavaFlags;
use super::keys::{self, Standing};
use super::limits;
use super::properties;
use super::protection::Protection;
use super::settings::Settings;
use super::whitelist::Whitelist;

/// Everything that the configuration says, with the defaults of Apache ZooKeeper 3.9 filled in.
#[derive(Clone, Debug)]
pub struct ZooCfg {
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// `dataDir`: snapshots, `myid`, epoch files.
    pub data_dir: PathBuf,
    /// `dataLogDir`: transaction logs. The same as `data_dir` unless set.
    pub data_log_dir: PathBuf,
    /// `clientPort`; 0 lets the system choose one. `None` if neither the file nor this server's line names one.
    pub client_port: Option<u16>,
    /// `clientPortAddress`, or the client host of this server's line; `None` stands for all addresses.
    pub client_host: Option<String>,
    /// `clientPortListenBacklog`; -1 leaves it to the system.
    pub client_listen_backlog: i32,
    /// `tickTime` in milliseconds.
    pub tick_ms: u32,
    /// `initLimit` in ticks; 0 if not set (a standalone server needs none).
    pub init_limit_ticks: u32,
    /// `syncLimit` in ticks; 0 if not set.
    pub sync_limit_ticks: u32,
    /// `connectToLearnerMasterLimit` in ticks; 0 stands for `initLimit`.
    pub connect_limit_ticks: u32,
    /// `minSessionTimeout` in milliseconds, 2 ticks unless set.
    pub session_timeout_ms_min: u32,
    /// `maxSessionTimeout` in milliseconds, 20 ticks unless set.
    pub session_timeout_ms_max: u32,
    /// `maxClientCnxns`: connections per client address; 0 is unlimited.
    pub connections_per_host_limit: u32,
    /// `maxCnxns`: connections in all; 0 is unlimited.
    pub connections_limit: u32,
    /// The `server.N`, `group.N` and `weight.N` lines. Empty without any.
    pub ensemble: Ensemble,
    /// `myid`, if the file exists in `data_dir`.
    pub server_id: Option<ServerId>,
    /// What this server is: from its line, else from `peerType` (row Q4).
    pub peer_type: PeerType,
    /// `standaloneEnabled`.
    pub standalone_enabled: bool,
    /// `multiAddress.enabled`: a server line may name several addresses.
    pub multi_address: bool,
    /// `quorumListenOnAllIPs`.
    pub quorum_listen_on_all_ips: bool,
    /// `electionPortBindRetry`: tries to bind the election port; 0 is for ever.
    pub election_bind_tries: u32,
    /// `quorumCnxnTimeoutMs`: milliseconds for the handshake of an election connection; `tickTime` x `syncLimit` unless
    /// set.
    pub election_handshake_timeout_ms: u32,
    /// `leaderConnectDelayDuringRetryMs`: milliseconds between two dials of a leader.
    pub dial_retry_ms: u32,
    /// `leader.maxConcurrentSnapSyncs`: observers that are sent images at once (Q78).
    pub image_transfers_max: u32,
    /// `leader.maxConcurrentDiffSyncs`: observers that are sent records at once (Q78).
    pub history_transfers_max: u32,
    /// `forceSnapshotSync`: learners are always sent a snapshot.
    pub force_snapshot: bool,
    /// `autopurge.snapRetainCount`, at least 3.
    pub purge_retain_count: u32,
    /// `autopurge.purgeInterval` in hours; 0 is off.
    pub purge_interval_hours: u32,
    /// `snapCount`: transactions between two snapshots.
    pub snap_count: u32,
    /// `snapSizeLimitInKb`: KiB of log between two snapshots; 0 or less is off.
    pub snap_log_kib: i64,
    /// `commitLogCount`: committed transactions kept for learners that were away.
    pub commit_log_count: u32,
    /// `snapshotSizeFactor`: a learner is sent log files up to this fraction of the snapshot; below 0 never.
    pub snapshot_size_factor: f64,
    /// `preAllocSize`: KiB by which a log file is extended ahead of its end; 0 is off.
    pub prealloc_kib: u32,
    /// `txnLogSizeLimitInKb`: KiB after which a log file is rolled; -1 is off.
    pub log_file_kib_max: i64,
    /// `forceSync`: a transaction is on the disk before it is acknowledged. Off only if the value is `no`.
    pub force_sync: bool,
    /// `fsync.warningthresholdms`: a slower flush is logged and counted.
    pub flush_warning_ms: u32,
    /// `snapshot.trust.empty`: start without any snapshot beside existing logs.
    pub trust_empty_snapshot: bool,
    /// `digest.enabled`.
    pub digest_enabled: bool,
    /// `datadir.autocreate`.
    pub create_data_dir: bool,
    /// `db.autocreate`: a member that finds its disk empty takes that for the beginning, even without a file `initialize`.
    pub create_database: bool,
    /// `globalOutstandingLimit`: requests in the server above which connections are not read.
    pub outstanding_limit: u32,
    /// `jute.maxbuffer`: bytes of the largest request packet.
    pub frame_bytes_limit: u32,
    /// `4lw.commands.whitelist`.
    pub whitelist: Whitelist,
    /// `extendedTypesEnabled`: TTL nodes.
    pub extended_types: bool,
    /// What holds clients back.
    pub protection: Protection,
    /// `enforceQuota`: a hard limit refuses.
    pub enforce_quota: bool,
    /// `skipACL`: only the value `yes` turns checks off.
    pub skip_acl: bool,
    /// `DigestAuthenticationProvider.superDigest`: `super:<base64 of sha1>`.
    pub super_digest: Option<String>,
    /// `localSessionsEnabled`: sessions that only this server of an ensemble knows (S15).
    pub local_sessions: bool,
    /// `localSessionsUpgradingEnabled`: a local session that makes an ephemeral becomes a global one.
    pub upgrades_local_sessions: bool,
    /// The Java property `readonlymode.enabled`: a member without a leader serves reads (S16).
    pub read_only_mode: bool,
    /// `testingonly.initialZxid`: the counter behind which a leader's first transaction comes; for tests of the end of
    /// an epoch (S25).
    pub first_counter: u32,
    /// `leaderServes`: does a leader take clients? Off only if the value is `no`.
    pub leader_serves: bool,
    /// `nio.sessionlessCnxnTimeout`: a connection that asks for no session is closed after this long.
    pub sessionless_timeout_ms: u32,
    /// `-Dznode.container.checkIntervalMs`.
    pub container_check_interval_ms: u32,
    /// `-Dznode.container.maxPerMinute`.
    pub container_deletes_per_minute_max: u32,
    /// `-Dznode.container.maxNeverUsedIntervalMs`; 0 keeps containers that never had a child.
    pub container_never_used_ms_max: i64,
    /// `fastleader.minNotificationInterval` in milliseconds.
    pub notification_interval_ms_min: u32,
    /// `fastleader.maxNotificationInterval` in milliseconds.
    pub notification_interval_ms_max: u32,
    /// `cnxTimeout`: milliseconds to open an election connection.
    pub election_dial_timeout_ms: u32,
    /// `tcpKeepAlive`: SO_KEEPALIVE on election connections.
    pub election_keep_alive: bool,
    /// What the operator should know: unknown keys, keys without effect, values replaced. One sentence or two each.
    pub warnings: Vec<String>,
}

impl ZooCfg {
    /// Reads `path`, a dynamic file that it names, and `myid`. `data_dir` takes the place of `dataDir` (and of a
    /// `dataLogDir` that is not set).
    pub fn load(path: &Path, flags: &JavaFlags, data_dir: Option<&Path>) -> Result<Self, ConfigError> {
        let bytes = fs::read(path).map_err(|error| {
            ConfigError::new(
                format!("cannot read the configuration file {}: {error}", path.display()),
                "Check the path and its permissions.",
            )
        })?;
        let mut cfg = Self::parse(Some(path), &bytes, flags, data_dir)?;
        cfg.server_id = read_my_id(&cfg.data_dir)?;
        cfg.settle_role().map_err(|error| error.at(Some(path), None))?;
        Ok(cfg)
    }

    /// A standalone server without a file. As with Apache's `<port> <datadir>` arguments, connections per client
    /// address are not limited then (row O1).
    pub fn standalone(data_dir: &Path, client_port: u16, flags: &JavaFlags) -> Result<Self, ConfigError> {
        let mut cfg = Self::build(None, &[], flags, Some(data_dir))?;
        cfg.client_port = Some(client_port);
        cfg.connections_per_host_limit = 0;
        Ok(cfg)
    }

    /// The contents of a file, `myid` not yet looked at.
    pub fn parse(
        file: Option<&Path>,
        bytes: &[u8],
        flags: &JavaFlags,
        data_dir: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let properties = properties::parse(bytes).map_err(|malformed| {
            ConfigError::new(
                "\\u without four hexadecimal digits",
                "Write \\uXXXX, or \\\\u for a backslash.",
            )
            .at(file, Some(malformed.line))
        })?;
        Self::build(file, &properties, flags, data_dir)
    }

    /// Is this one server of several? Else it runs alone (row Q3).
    pub fn is_distributed(&self) -> bool {
        let voters = self.ensemble.voters().count();
        voters > 1 || (voters > 0 && !self.standalone_enabled)
    }

    /// What this server of an ensemble is started with; `None` if it runs alone.
    ///
    /// # Panics
    /// On a value that [`ZooCfg::load`] did not make: without `myid`, or with one that no line has.
    pub fn ensemble_settings(&self) -> Option<EnsembleSettings> {
        if !self.is_distributed() {
            return None;
        }
        let me = self.server_id.expect("load refuses an ensemble without myid");
        assert!(self.ensemble.member(me).is_some(), "load refuses a myid that no line has");
        let connect_limit_ticks = match self.connect_limit_ticks {
            0 => self.init_limit_ticks,
            ticks => ticks,
        };
        let addresses = self.ensemble.members.iter().map(|member| (member.id, member.addresses.clone()));
        Some(EnsembleSettings {
            me,
            ensemble: self.ensemble.clone(),
            addresses: addresses.collect(),
            multi_address: self.multi_address,
            listens_on_all: self.quorum_listen_on_all_ips,
            bind_tries: self.election_bind_tries,
            tick_ms: self.tick_ms,
            init_limit_ticks: self.init_limit_ticks,
            sync_limit_ticks: self.sync_limit_ticks,
            connect_limit_ticks,
            dial_retry_ms: self.dial_retry_ms,
            image_transfers_max: self.image_transfers_max,
            history_transfers_max: self.history_transfers_max,
            election_dial_timeout_ms: self.election_dial_timeout_ms,
            election_keep_alive: self.election_keep_alive,
            election_handshake_timeout_ms: self.election_handshake_timeout_ms,
            notification_interval_ms_min: self.notification_interval_ms_min,
            notification_interval_ms_max: self
                .notification_interval_ms_max
                .max(self.notification_interval_ms_min),
            force_snapshot: self.force_snapshot,
            local_sessions: self.local_sessions,
            upgrades_local_sessions: self.upgrades_local_sessions,
            read_only_mode: self.read_only_mode,
            first_counter: self.first_counter,
            leader_serves: self.leader_serves,
            commit_log_count: self.commit_log_count,
            snapshot_size_factor: self.snapshot_size_factor,
        })
    }

    fn build(
        file: Option<&Path>,
        properties: &[properties::Property],
        flags: &JavaFlags,
        data_dir: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let mut set = Settings::new(file, properties, flags);
        let data_dir = match (data_dir, set.text("dataDir")) {
            (Some(given), _) => given.to_path_buf(),
            (None, Some(text)) if !text.is_empty() => PathBuf::from(text),
            (None, _) => {
                return Err(ConfigError::new(
                    "dataDir is not set",
                    "Add a line such as dataDir=/var/lib/zookeeper.",
                )
                .at(file, None));
            }
        };
        let data_log_dir =
            set.text("dataLogDir").filter(|text| !text.is_empty()).map_or(data_dir.clone(), PathBuf::from);
        for (key, dir) in [("dataDir", &data_dir), ("dataLogDir", &data_log_dir)] {
            if dir.is_relative() && set.text(key).is_some() {
                set.warnings.push(format!("{key}={} is relative to the working directory.", dir.display()));
            }
        }
        check_standings(&mut set)?;

        let client_port = set.port("clientPort")?;
        let client_host = set.text("clientPortAddress").filter(|text| !text.is_empty()).map(str::to_owned);
        if client_host.is_some() && client_port.is_none() {
            return Err(set.error(
                "clientPortAddress",
                "clientPortAddress is set but clientPort is not",
                "Add clientPort=2181.",
            ));
        }
        let tick_ms = set.count("tickTime", 3000)?;
        if tick_ms == 0 || tick_ms > limits::TICK_MS_MAX {
            return Err(set.error(
                "tickTime",
                format!("tickTime={tick_ms} is not from 1 to {} ms", limits::TICK_MS_MAX),
                "Write the length of a tick in milliseconds, such as tickTime=2000.",
            ));
        }
        let timeout = |key: &str, ticks: u32| -> Result<u32, ConfigError> {
            match set.number(key, -1)? {
                -1 => Ok(tick_ms * ticks),
                _ => set.count(key, -1),
            }
        };
        let session_timeout_ms_min = timeout("minSessionTimeout", 2)?;
        let session_timeout_ms_max = timeout("maxSessionTimeout", 20)?;
        if session_timeout_ms_min > session_timeout_ms_max {
            let key = if set.text("minSessionTimeout").is_some() {
                "minSessionTimeout"
            } else {
                "maxSessionTimeout"
            };
            return Err(set.error(
                key,
                format!(
                    "minSessionTimeout is {session_timeout_ms_min} ms, more than maxSessionTimeout, which is \
                     {session_timeout_ms_max} ms"
                ),
                format!("Unset, they are 2 and 20 times tickTime={tick_ms}. Set both so that min <= max."),
            ));
        }
        let algorithm = set.number("electionAlg", 3)?;
        if algorithm != 3 {
            return Err(set.error(
                "electionAlg",
                format!("electionAlg={algorithm} is not supported"),
                "Only 3, fast leader election, exists. Remove the line.",
            ));
        }
        let peer_type = match set.text("peerType") {
            None => PeerType::Participant,
            Some(text) => PeerType::parse(text).ok_or_else(|| {
                set.error("peerType", format!("peerType={text} is unknown"), "Write participant or observer.")
            })?,
        };
        let standalone_enabled = set.switch("standaloneEnabled", true)?;
        let ensemble = read_ensemble(&set, standalone_enabled)?;
        let purge_retain_count = match set.number("autopurge.snapRetainCount", 3)? {
            few if few < 3 => {
                set.warnings
                    .push(format!("autopurge.snapRetainCount={few} is below 3; 3 snapshots are kept."));
                3
            }
            count => count.unsigned_abs(),
        };
        let read_only_mode = set.java_property("readonlymode.enabled") == Some("true");
        let frame_limit =
            set.java_property("jute.maxbuffer").or(set.text("jute.maxbuffer")).map(str::to_owned);
        let frame_bytes_limit = set.number_within(
            "jute.maxbuffer",
            frame_limit.as_deref(),
            limits::FRAME_BYTES_DEFAULT.into(),
            limits::FRAME_BYTES_MIN.into(),
            limits::FRAME_BYTES_MAX.into(),
        ) as u32;
        if set.text("jute.maxbuffer").is_some() && set.java_property("jute.maxbuffer").is_none() {
            set.warnings.push(
                "jute.maxbuffer: obeyed here, but Apache ignores it in zoo.cfg and takes it only as \
                 -Djute.maxbuffer in JVMFLAGS; clients have a limit of their own."
                    .to_owned(),
            );
        }
        let snapshot_size_factor = match set.property("snapshotSizeFactor").map(str::parse::<f64>) {
            None => 0.33,
            Some(Ok(factor)) if factor.is_finite() => factor,
            Some(_) => {
                set.warnings.push("snapshotSizeFactor is not a number; 0.33 is used instead.".to_owned());
                0.33
            }
        };
        let container = |set: &mut Settings, name: &str, default: i64, least: i64| {
            let text = set.java_property(name).map(str::to_owned);
            set.number_within(name, text.as_deref(), default, least, i64::from(u32::MAX))
        };
        let most = i64::from(i32::MAX);
        let init_limit_ticks = set.count("initLimit", 0)?;
        let sync_limit_ticks = set.count("syncLimit", 0)?;
        let election_handshake_timeout_ms = match set.property_number("quorumCnxnTimeoutMs", -1, -1, most) {
            -1 | 0 => tick_ms.saturating_mul(sync_limit_ticks),
            set => set as u32,
        };
        let mut cfg = Self {
            file: file.map(Path::to_path_buf),
            data_dir,
            data_log_dir,
            client_port,
            client_host,
            client_listen_backlog: set.number("clientPortListenBacklog", -1)?,
            tick_ms,
            init_limit_ticks,
            sync_limit_ticks,
            connect_limit_ticks: set.count("connectToLearnerMasterLimit", 0)?,
            session_timeout_ms_min,
            session_timeout_ms_max,
            connections_per_host_limit: set.number("maxClientCnxns", 60)?.max(0).unsigned_abs(),
            connections_limit: set.property_number("maxCnxns", 0, 0, most) as u32,
            ensemble,
            server_id: None,
            peer_type,
            standalone_enabled,
            multi_address: set.switch("multiAddress.enabled", false)?,
            election_bind_tries: set.property_number("electionPortBindRetry", 3, 0, most) as u32,
            election_handshake_timeout_ms,
            dial_retry_ms: set.property_number("leaderConnectDelayDuringRetryMs", 100, 0, most) as u32,
            image_transfers_max: set.property_number("leader.maxConcurrentSnapSyncs", 10, 1, most) as u32,
            history_transfers_max: set.property_number("leader.maxConcurrentDiffSyncs", 100, 1, most) as u32,
            force_snapshot: set.property_switch("forceSnapshotSync", false),
            quorum_listen_on_all_ips: set.switch("quorumListenOnAllIPs", false)?,
            purge_retain_count,
            purge_interval_hours: set.number("autopurge.purgeInterval", 0)?.max(0).unsigned_abs(),
            snap_count: set.property_number("snapCount", 100_000, 2, most) as u32,
            snap_log_kib: set.property_number("snapSizeLimitInKb", 4_194_304, i64::MIN, i64::MAX / 1024),
            commit_log_count: set.property_number("commitLogCount", 500, 0, limits::COMMIT_LOG_COUNT_MAX)
                as u32,
            snapshot_size_factor,
            prealloc_kib: set.property_number("preAllocSize", 65_536, 0, limits::PREALLOC_KIB_MAX) as u32,
            log_file_kib_max: set.property_number("txnLogSizeLimitInKb", -1, -1, i64::MAX / 1024),
            force_sync: set.property("forceSync") != Some("no"),
            flush_warning_ms: set.property_number("fsync.warningthresholdms", 1000, 0, most) as u32,
            trust_empty_snapshot: set.property_switch("snapshot.trust.empty", false),
            digest_enabled: set.property_switch("digest.enabled", true),
            create_data_dir: set.property_switch("datadir.autocreate", true),
            create_database: set.property_switch("db.autocreate", true),
            outstanding_limit: set.property_number("globalOutstandingLimit", 1000, 1, most) as u32,
            frame_bytes_limit,
            whitelist: Whitelist::parse(set.property("4lw.commands.whitelist"), read_only_mode),
            protection: Protection::read(&mut set)?,
            enforce_quota: set.property_switch("enforceQuota", false),
            extended_types: set.property_switch("extendedTypesEnabled", false),
            skip_acl: set.property("skipACL") == Some("yes"),
            super_digest: set.property("DigestAuthenticationProvider.superDigest").map(str::to_owned),
            local_sessions: set.switch("localSessionsEnabled", false)?,
            upgrades_local_sessions: set.switch("localSessionsUpgradingEnabled", false)?,
            read_only_mode,
            first_counter: set.property_number("testingonly.initialZxid", 0, 0, i64::from(u32::MAX) - 1)
                as u32,
            leader_serves: set.property("leaderServes") != Some("no"),
            sessionless_timeout_ms: set.property_number("nio.sessionlessCnxnTimeout", 10_000, 1, most) as u32,
            container_check_interval_ms: container(&mut set, "znode.container.checkIntervalMs", 60_000, 1)
                as u32,
            container_deletes_per_minute_max: container(&mut set, "znode.container.maxPerMinute", 10_000, 1)
                as u32,
            container_never_used_ms_max: container(&mut set, "znode.container.maxNeverUsedIntervalMs", 0, 0),
            notification_interval_ms_min: set.property_number(
                "fastleader.minNotificationInterval",
                200,
                1,
                most,
            ) as u32,
            notification_interval_ms_max: set.property_number(
                "fastleader.maxNotificationInterval",
                60_000,
                1,
                most,
            ) as u32,
            election_dial_timeout_ms: set.property_number("cnxTimeout", 5000, 1, most) as u32,
            election_keep_alive: set.property_switch("tcpKeepAlive", false),
            warnings: Vec::new(),
        };
        cfg.warnings = set.warnings;
        Ok(cfg)
    }

    /// What follows from `myid`: this server's line gives client address and role (rows Q2, Q3, Q4).
    fn settle_role(&mut self) -> Result<(), ConfigError> {
        let distributed = self.is_distributed();
        if let Some(notice) = ensemble::size_notice(&self.ensemble) {
            self.warnings.push(notice.to_owned());
        }
        let needed = "An ensemble needs it: add the line, such as initLimit=10 and syncLimit=5.";
        if distributed && self.init_limit_ticks == 0 {
            return Err(ConfigError::new("initLimit is not set", needed));
        }
        if distributed && self.sync_limit_ticks == 0 {
            return Err(ConfigError::new("syncLimit is not set", needed));
        }
        let id = match self.server_id {
            Some(id) => id,
            None if distributed => {
                return Err(ConfigError::new(
                    format!("the file {} is missing", self.data_dir.join("myid").display()),
                    "Write this server's id into it: the N of its own server.N line.",
                ));
            }
            // Apache needs myid even here to find the port; with a single line there is nothing to choose.
            None => match self.ensemble.members.first() {
                Some(only) => only.id,
                None => return Ok(()),
            },
        };
        let Some(line) = self.ensemble.member(id) else {
            if distributed {
                let ids: Vec<String> =
                    self.ensemble.members.iter().map(|member| member.id.to_string()).collect();
                return Err(ConfigError::new(
                    format!(
                        "myid says {id}, but there is no server.{id} line (there are: {})",
                        ids.join(", ")
                    ),
                    format!("Correct {} or add the line.", self.data_dir.join("myid").display()),
                ));
            }
            return Ok(());
        };
        if self.extended_types && !(0..=0xfe).contains(&id.0) {
            return Err(ConfigError::new(
                format!("myid {id} is above 254, and extendedTypesEnabled=true"),
                "Give this server an id from 0 to 254: session ids begin with it, and 255 marks nodes with a TTL.",
            ));
        }
        let role = PeerType::of(line);
        if role != self.peer_type {
            self.warnings.push(format!(
                "peerType says {}, but server.{id} says {role}; the server line counts.",
                self.peer_type
            ));
            self.peer_type = role;
        }
        if let Some(HostPort { host, port }) = &line.client {
            let other_port = self.client_port.is_some_and(|own| own != *port);
            let other_host = self.client_host.as_ref().is_some_and(|own| own != "0.0.0.0" && own != host);
            if other_port || other_host {
                return Err(ConfigError::new(
                    format!(
                        "server.{id} says clients connect to {host}:{port}, clientPort and clientPortAddress differ"
                    ),
                    "Remove clientPort and clientPortAddress, or make them equal.",
                ));
            }
            self.client_port = Some(*port);
            self.client_host = Some(host.clone());
        }
        Ok(())
    }
}

/// Names in a warning every key that will not do what it says; refuses those that would leave a door open.
fn check_standings(set: &mut Settings) -> Result<(), ConfigError> {
    let mut warnings = Vec::new();
    for (key, value, line) in set.keys() {
        if keys::REFUSED_WHEN_TRUE.contains(&key) && value.eq_ignore_ascii_case("true") {
            return Err(set.error(
                key,
                format!("{key}=true asks for protection that zkfast does not have yet"),
                "To start would leave the server open. Set it to false if that is what you want.",
            ));
        }
        if !value.is_ascii() || !key.is_ascii() {
            warnings.push(format!(
                "{key} (line {line}) has letters outside ASCII. Java reads this file as ISO 8859-1; write them as \\uXXXX."
            ));
        }
        match keys::standing(key) {
            Some(Standing::Obeyed | Standing::Moot) => {}
            Some(Standing::Absent { harmless, .. }) if value.eq_ignore_ascii_case(harmless) => {}
            Some(Standing::Absent { feature, .. }) => {
                warnings.push(format!("{key}={value} (line {line}) has no effect: zkfast has no {feature}."));
            }
            Some(Standing::JavaFlagOnly) => warnings.push(format!(
                "{key}={value} (line {line}) has no effect in a file, as with Apache; put -D{key}={value} into JVMFLAGS."
            )),
            None => {
                let hint = keys::likely_meant(key).map_or(String::new(), |meant| format!(" Did you mean {meant}?"));
                warnings.push(format!("{key}={value} (line {line}): unknown key, it has no effect.{hint}"));
            }
        }
    }
    set.warnings.extend(warnings);
    Ok(())
}

/// The member lines, from this file or from the dynamic file that it names (row Q67).
fn read_ensemble(set: &Settings, standalone_enabled: bool) -> Result<Ensemble, ConfigError> {
    let multi_address = set.switch("multiAddress.enabled", false)?;
    let mut members = Ensemble::default();
    let dynamic = set.text("dynamicConfigFile");
    // Apache takes the last of them. But one of the two servers would then be no member, which no operator means.
    if let Some((key, line)) = set.set_twice(ensemble::is_member_key) {
        return Err(set.error(
            key,
            format!("{key} is listed twice, first on line {line} with another value"),
            "Give every server an id of its own, and remove the line that is wrong.",
        ));
    }
    for (key, value, _) in set.keys().filter(|(key, ..)| ensemble::is_member_key(key)) {
        if dynamic.is_some() {
            return Err(set.error(
                key,
                format!("{key} stands beside dynamicConfigFile"),
                "Move the server, group and weight lines into the dynamic file.",
            ));
        }
        ensemble::take(&mut members, key, value, multi_address).map_err(|error| set.blame(key, error))?;
    }
    if let Some(dynamic) = dynamic {
        let path = Path::new(dynamic);
        let bytes = fs::read(path).map_err(|error| {
            set.error(
                "dynamicConfigFile",
                format!("cannot read the dynamic configuration file {dynamic}: {error}"),
                "Check the path and its permissions.",
            )
        })?;
        let properties = properties::parse(&bytes).map_err(|malformed| {
            ConfigError::new("\\u without four hexadecimal digits", "Write \\uXXXX.")
                .at(Some(path), Some(malformed.line))
        })?;
        for property in &properties {
            let blame = |error: ConfigError| error.at(Some(path), Some(property.line));
            if !ensemble::is_member_key(&property.key) {
                return Err(blame(ConfigError::new(
                    format!("{} does not belong into a dynamic file", property.key),
                    "Only server, group and weight lines do; the version is the end of the file's name.",
                )));
            }
            ensemble::take(&mut members, &property.key, &property.value, multi_address).map_err(blame)?;
        }
        let suffix = dynamic.rsplit_once('.').map_or("", |(_, suffix)| suffix);
        members.version = i64::from_str_radix(suffix, 16).unwrap_or(0);
    }
    ensemble::settle(&mut members, standalone_enabled).map_err(|error| set.place(error))?;
    Ok(members)
}

/// The first line of `myid`, `None` if there is no such file.
fn read_my_id(data_dir: &Path) -> Result<Option<ServerId>, ConfigError> {
    let path = data_dir.join("myid");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => {
            return Err(ConfigError::new(
                format!("cannot read {}: {error}", path.display()),
                "Check its permissions.",
            ));
        }
    };
    let first = text.lines().next().unwrap_or_default();
    first.trim().parse().map(|id| Some(ServerId(id))).map_err(|_| {
        ConfigError::new(
            format!("'{first}' is not a server id"),
            "The first line must be this server's number and nothing else.",
        )
        .at(Some(&path), Some(1))
    })
}

#[cfg(test)]
#[path = "zoo_cfg_tests.rs"]
mod tests;
