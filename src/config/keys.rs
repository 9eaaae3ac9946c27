//! Every key that ZooKeeper 3.9 knows, and what becomes of it here (rows O7-O71).
//!
//! Apache never rejects a key: what its parser does not know becomes a Java system property, so a misspelt key does
//! nothing, silently (row O2). Here each key has a standing, and whatever will not do what its writer hopes is named
//! in a warning at start.

/// What zkfast does with a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Read, and acted on.
    Obeyed,
    /// Tunes a part of Apache (JVM, thread pools, caches) that has no counterpart here. Accepted in silence.
    Moot,
    /// Asks for something that this version does not have. Named in a warning unless set to what is anyway the case.
    Absent {
        /// The value that asks for nothing, `""` if any value asks for something.
        harmless: &'static str,
        /// The missing feature, in words that complete "zkfast has no ...".
        feature: &'static str,
    },
    /// A Java property without the `zookeeper.` prefix: Apache ignores it in `zoo.cfg` (row O3).
    JavaFlagOnly,
}

use Standing::{JavaFlagOnly, Moot, Obeyed};

const fn absent(harmless: &'static str, feature: &'static str) -> Standing {
    Standing::Absent { harmless, feature }
}

const TLS: &str = "TLS";
const SASL: &str = "SASL authentication";
const ADMIN: &str = "AdminServer (HTTP)";
const METRICS: &str = "metrics provider but the four-letter word mntr";
const RECONFIG: &str = "dynamic reconfiguration";

/// Names as written in `zoo.cfg`. One that ends in `*` stands for all that begin so. The first match counts.
const KEYS: &[(&str, Standing)] = &[
    // Keys that Apache's parser reads (9.2).
    ("dataDir", Obeyed),
    ("dataLogDir", Obeyed),
    ("clientPort", Obeyed),
    ("clientPortAddress", Obeyed),
    ("secureClientPort", absent("", TLS)),
    ("secureClientPortAddress", absent("", TLS)),
    ("clientPortListenBacklog", Obeyed),
    ("tickTime", Obeyed),
    ("initLimit", Obeyed),
    ("syncLimit", Obeyed),
    ("connectToLearnerMasterLimit", Obeyed),
    ("minSessionTimeout", Obeyed),
    ("maxSessionTimeout", Obeyed),
    ("maxClientCnxns", Obeyed),
    ("server.*", Obeyed),
    ("group*", Obeyed),
    ("weight*", Obeyed),
    ("peerType", Obeyed),
    ("electionAlg", Obeyed),
    ("quorumListenOnAllIPs", Obeyed),
    ("dynamicConfigFile", Obeyed),
    ("standaloneEnabled", Obeyed),
    ("reconfigEnabled", absent("false", RECONFIG)),
    ("syncEnabled", absent("true", "observer without a log; observers here always write log and snapshots")),
    (
        "observer.syncEnabled",
        absent("true", "observer without a log; observers here always write log and snapshots"),
    ),
    ("observerMasterPort", absent("0", "observer master")),
    ("localSessionsEnabled", Obeyed),
    ("localSessionsUpgradingEnabled", Obeyed),
    ("autopurge.snapRetainCount", Obeyed),
    ("autopurge.purgeInterval", Obeyed),
    ("sslQuorum", absent("false", TLS)),
    ("portUnification", absent("false", TLS)),
    ("sslQuorumReloadCertFiles", absent("false", TLS)),
    (
        "metricsProvider.className",
        absent("org.apache.zookeeper.metrics.impl.DefaultMetricsProvider", METRICS),
    ),
    ("metricsProvider.*", Moot),
    ("multiAddress.enabled", Obeyed),
    ("multiAddress.reachabilityCheckEnabled", Moot),
    ("multiAddress.reachabilityCheckTimeoutMs", Moot),
    ("oraclePath", absent("", "quorum oracle")),
    ("jvm.pause.*", Moot),
    ("quorum.auth.enableSasl", absent("false", SASL)),
    ("quorum.auth.serverRequireSasl", absent("false", SASL)),
    ("quorum.auth.learnerRequireSasl", absent("false", SASL)),
    ("quorum.auth.*", Moot),
    ("quorum.cnxn.threads.size", Moot),
    // System properties, settable here without their prefix (9.3).
    ("snapCount", Obeyed),
    ("snapSizeLimitInKb", Obeyed),
    ("commitLogCount", Obeyed),
    ("snapshotSizeFactor", Obeyed),
    ("preAllocSize", Obeyed),
    ("txnLogSizeLimitInKb", Obeyed),
    ("forceSync", Obeyed),
    ("fsync.warningthresholdms", Obeyed),
    ("flushDelay", Moot),
    ("maxWriteQueuePollTime", Moot),
    ("maxBatchSize", Moot),
    (
        "snapshot.compression.method",
        absent("", "compressed snapshot writer; it reads gz and snappy, and writes plain"),
    ),
    ("snapshot.trust.empty", Obeyed),
    ("serializeLastProcessedZxid.enabled", absent("true", "snapshots without their last zxid")),
    ("digest.enabled", Obeyed),
    (
        "closeSessionTxn.enabled",
        absent("true", "closeSession transactions that do not name the nodes that end"),
    ),
    ("datadir.autocreate", Obeyed),
    ("db.autocreate", Obeyed),
    ("globalOutstandingLimit", Obeyed),
    ("maxCnxns", Obeyed),
    ("jute.maxbuffer", Obeyed),
    ("jute.maxbuffer.extrasize", JavaFlagOnly),
    ("4lw.commands.whitelist", Obeyed),
    ("extendedTypesEnabled", Obeyed),
    ("emulate353TTLNodes", absent("false", "3.5.3 layout of TTL nodes")),
    ("znode.container.*", JavaFlagOnly),
    ("leaderServes", Obeyed),
    ("leader.maxConcurrentSnapSyncs", Obeyed),
    ("leader.maxConcurrentDiffSyncs", Obeyed),
    ("leader.maxTimeToWaitForEpoch", Moot),
    ("leader.ackLoggingFrequency", Moot),
    ("leader.closeSocketAsync", Moot),
    ("learner.closeSocketAsync", Moot),
    ("learner.asyncSending", Moot),
    ("forceSnapshotSync", Obeyed),
    ("leader.nodelay", JavaFlagOnly),
    ("follower.nodelay", JavaFlagOnly),
    ("leaderConnectDelayDuringRetryMs", Obeyed),
    ("follower.skipLearnerRequestToNextProcessor", Moot),
    ("forward_learner_requests_to_commit_processor_disabled", Moot),
    ("fastleader.minNotificationInterval", Obeyed),
    ("fastleader.maxNotificationInterval", Obeyed),
    ("cnxTimeout", Obeyed),
    ("quorumCnxnTimeoutMs", Obeyed),
    ("electionPortBindRetry", Obeyed),
    ("tcpKeepAlive", Obeyed),
    ("observer.reconnectDelayMs", Moot),
    ("observer.election.DelayMs", Moot),
    ("observerMaster.sizeLimit", Moot),
    ("commitProcessor.*", Moot),
    ("nio.sessionlessCnxnTimeout", Obeyed),
    ("nio.*", Moot),
    ("serverCnxnFactory", Moot),
    ("netty.*", Moot),
    ("clientTcpKeepAlive", Moot),
    ("intBufferStartingSizeBytes", Moot),
    ("request_throttle_max_requests", Obeyed),
    ("throttled_op_wait_time", Obeyed),
    ("request_throttle_drop_stale", Obeyed),
    ("request_throttle_*", Moot),
    ("request_stale_latency_check", Obeyed),
    // What a connection asked ends with it, whatever the key says.
    ("request_stale_connection_check", Moot),
    ("request_throttler.shutdownTimeout", Moot),
    ("connection_throttle_*", Obeyed),
    ("largeRequestThreshold", Obeyed),
    ("largeRequestMaxBytes", Obeyed),
    ("maxResponseCacheSize", Moot),
    ("maxGetChildrenResponseCacheSize", Moot),
    ("watchManagerName", Moot),
    ("watcherCleanThreadsNum", Moot),
    ("watcherCleanThreshold", Moot),
    ("watcherCleanIntervalInSeconds", Moot),
    ("maxInProcessingDeadWatchers", Moot),
    ("bitHashCacheSize", Moot),
    ("enforceQuota", Obeyed),
    ("skipACL", Obeyed),
    ("enableEagerACLCheck", Moot),
    ("DigestAuthenticationProvider.superDigest", Obeyed),
    ("DigestAuthenticationProvider.enabled", Obeyed),
    ("DigestAuthenticationProvider.digestAlg", Obeyed),
    (
        "authProvider.*",
        absent("", "authentication provider but world, ip, digest and auth, which are built in"),
    ),
    ("superUser*", absent("", "superUser; use DigestAuthenticationProvider.superDigest")),
    ("X509AuthenticationProvider.superUser", absent("", TLS)),
    ("letAnySaslUserDoX", absent("", SASL)),
    ("ensembleAuthName", absent("", "ensemble name check")),
    ("IPAuthenticationProvider.usexforwardedfor", Moot),
    ("enforce.auth.enabled", Obeyed),
    ("enforce.auth.schemes", Obeyed),
    ("sessionRequireClientSASLAuth", absent("false", SASL)),
    ("allowSaslFailedClients", Moot),
    ("sasl.serverconfig", Moot),
    ("SASLAuthenticationProvider.superPassword", absent("", SASL)),
    ("kerberos.*", Moot),
    ("security.auth_to_local", Moot),
    ("requireKerberosConfig", Moot),
    ("kinit", Moot),
    ("ssl.*", absent("", TLS)),
    ("client.portUnification", absent("false", TLS)),
    ("client.certReload", Moot),
    ("fips-mode", Moot),
    ("admin.enableServer", absent("false", ADMIN)),
    ("admin.*", Moot),
    ("audit.enable", absent("false", "audit log")),
    ("audit.impl.class", Moot),
    ("messageTracker.*", Moot),
    ("pathStats.*", Moot),
    ("readonlymode.enabled", JavaFlagOnly),
    ("jmx.log4j.disable", Moot),
    ("controllerPort", Moot),
    ("testingonly.initialZxid", Obeyed),
    ("test.allowDiscontinuousProposals", Moot),
    ("java.security.auth.login.config", JavaFlagOnly),
];

/// Keys of `zoo.cfg` without which a server would be open where its operator asked for it to be closed. Set to
/// `true` they stop the start instead of being warned about: a lock that is missing must not go unnoticed.
pub const REFUSED_WHEN_TRUE: &[&str] = &[
    "sslQuorum",
    "quorum.auth.serverRequireSasl",
    "quorum.auth.learnerRequireSasl",
    "sessionRequireClientSASLAuth",
];

/// The standing of `key`, `None` if neither ZooKeeper nor zkfast knows it.
pub fn standing(key: &str) -> Option<Standing> {
    KEYS.iter()
        .find(|(name, _)| match name.strip_suffix('*') {
            Some(start) => key.starts_with(start),
            None => key == *name,
        })
        .map(|(_, standing)| *standing)
}

/// The known key that `key` was probably meant to be: equal but for case, prefix or one or two letters.
pub fn likely_meant(key: &str) -> Option<&'static str> {
    let bare = key.strip_prefix("zookeeper.").unwrap_or(key).to_ascii_lowercase();
    KEYS.iter()
        .map(|(name, _)| *name)
        .filter(|name| !name.ends_with('*'))
        .map(|name| (edits(&bare, &name.to_ascii_lowercase()), name))
        .min_by_key(|(edits, _)| *edits)
        .filter(|(edits, name)| *edits <= 2 && *edits * 3 < name.len())
        .map(|(_, name)| name)
}

/// Levenshtein distance.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let substitute = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_match_counts_and_no_name_is_shadowed() {
        assert_eq!(standing("nio.sessionlessCnxnTimeout"), Some(Obeyed));
        assert_eq!(standing("nio.numWorkerThreads"), Some(Moot));
        assert_eq!(standing("server.12"), Some(Obeyed));
        assert_eq!(standing("tickTimes"), None);
        for (index, (name, wanted)) in KEYS.iter().enumerate() {
            let probe = name.strip_suffix('*').map_or((*name).to_owned(), |start| format!("{start}x"));
            let earlier = KEYS[..index].iter().any(|(other, _)| other == name);
            assert!(!earlier && standing(&probe) == Some(*wanted), "{name} is shadowed");
        }
    }

    #[test]
    fn a_misspelt_key_is_recognised() {
        assert_eq!(likely_meant("tickTimes"), Some("tickTime"));
        assert_eq!(likely_meant("clientport"), Some("clientPort"));
        assert_eq!(likely_meant("zookeeper.snapCount"), Some("snapCount"));
        assert_eq!(likely_meant("autopurge.snapRetaincounts"), Some("autopurge.snapRetainCount"));
        assert_eq!(likely_meant("something.else"), None);
    }
}
