//! What `zoo.cfg` says and what it must not be allowed to say.

use super::*;

fn parse(text: &str) -> Result<ZooCfg, ConfigError> {
    ZooCfg::parse(Some(Path::new("zoo.cfg")), text.as_bytes(), &JavaFlags::default(), None)
}

fn good(text: &str) -> ZooCfg {
    parse(&format!("dataDir=/d\nclientPort=2181\n{text}")).expect(text)
}

#[test]
fn an_almost_empty_file_has_apache_s_defaults() {
    let cfg = good("");
    assert_eq!(cfg.data_dir, cfg.data_log_dir);
    assert_eq!((cfg.tick_ms, cfg.session_timeout_ms_min, cfg.session_timeout_ms_max), (3000, 6000, 60_000));
    assert_eq!((cfg.connections_per_host_limit, cfg.snap_count, cfg.prealloc_kib), (60, 100_000, 65_536));
    assert_eq!((cfg.frame_bytes_limit, cfg.purge_retain_count, cfg.purge_interval_hours), (1_048_575, 3, 0));
    assert!(cfg.force_sync && cfg.leader_serves && !cfg.skip_acl && !cfg.extended_types);
    assert!(cfg.whitelist.allows("srvr") && !cfg.whitelist.allows("ruok"));
    assert_eq!((cfg.client_port, cfg.client_host.as_deref()), (Some(2181), None));
    assert!(!cfg.is_distributed() && cfg.warnings.is_empty(), "{:?}", cfg.warnings);
}

#[test]
fn debian_s_sample_file_raises_no_warning() {
    let cfg = good(
        "tickTime=2000\ninitLimit=10\nsyncLimit=5\n#server.1=zookeeper1:2888:3888\nleaderServes=yes\n\
         maxClientCnxns = 0\npreAllocSize=65536\nsnapCount=100000\nforceSync=yes\n",
    );
    assert!(cfg.warnings.is_empty(), "{:?}", cfg.warnings);
    assert_eq!((cfg.tick_ms, cfg.connections_per_host_limit), (2000, 0));
}

#[test]
fn fatal_lines_are_named_with_file_line_and_cure() {
    let check = |text: &str, words: &[&str]| {
        let error = parse(text).expect_err(text).to_string();
        for word in words {
            assert!(error.contains(word), "{text:?} gives {error:?}, without {word:?}");
        }
    };
    check("clientPort=2181\n", &["zoo.cfg: ", "dataDir is not set", "Add a line"]);
    check("dataDir=/d\n\ntickTime=fast\n", &["zoo.cfg:3: ", "tickTime=fast", "whole number"]);
    check("dataDir=/d\ntickTime=0\n", &["zoo.cfg:2: ", "tickTime=0"]);
    check("dataDir=/d\ntickTime=-5\n", &["zoo.cfg:2: ", "negative"]);
    check("dataDir=/d\nclientPort=66000\n", &["zoo.cfg:2: ", "not a port"]);
    check("dataDir=/d\nstandaloneEnabled=yes\n", &["zoo.cfg:2: ", "neither true nor false"]);
    check("dataDir=/d\nelectionAlg=1\n", &["zoo.cfg:2: ", "electionAlg=1"]);
    check("dataDir=/d\npeerType=boss\n", &["zoo.cfg:2: ", "peerType=boss"]);
    check("dataDir=/d\nclientPortAddress=127.0.0.1\n", &["zoo.cfg:2: ", "clientPort is not"]);
    check("dataDir=/d\nminSessionTimeout=9\nmaxSessionTimeout=8\n", &["zoo.cfg:2: ", "9 ms", "8 ms"]);
    check("dataDir=/d\nmaxSessionTimeout=8\n", &["zoo.cfg:2: ", "6000 ms", "8 ms"]);
    check("dataDir=/d\nserver.1=here:2888\n", &["zoo.cfg:2: ", "needed", "Write server.<id>"]);
    check("dataDir=/d\nsslQuorum=true\n", &["zoo.cfg:2: ", "protection"]);
    check("dataDir=/d\nsessionRequireClientSASLAuth=TRUE\n", &["zoo.cfg:2: ", "protection"]);
    // A18: what would let nobody in stops the start, as in Apache.
    check("dataDir=/d\nenforce.auth.enabled=TRUE\n", &["zoo.cfg:2: ", "enforce.auth.schemes"]);
    let enforced = "dataDir=/d\nenforce.auth.enabled=true\nenforce.auth.schemes";
    check(&format!("{enforced}=digest, sasl\n"), &["zoo.cfg:3: ", "no scheme sasl"]);
    check(&format!("{enforced}=digest\nDigestAuthenticationProvider.enabled=false\n"), &["no scheme digest"]);
    check("dataDir=/d\nDigestAuthenticationProvider.digestAlg=MD2\n", &["zoo.cfg:2: ", "SHA-256"]);
    check("dataDir=\\u00\n", &["zoo.cfg:1: ", "\\u"]);
}

/// G28: a server that refuses an unknown key does not start with the file that Apache took for years.
#[test]
fn what_will_have_no_effect_is_named_and_what_is_known_is_not() {
    let check = |line: &str, words: &[&str]| {
        let cfg = good(line);
        if words.is_empty() {
            assert!(cfg.warnings.is_empty(), "{line}: {:?}", cfg.warnings);
        } else {
            let text = cfg.warnings.join("\n");
            assert!(words.iter().all(|word| text.contains(word)), "{line}: {text:?}");
        }
    };
    check("nio.numWorkerThreads=8", &[]);
    check("reconfigEnabled=false", &[]);
    check("admin.serverPort=8081", &[]);
    check("metricsProvider.httpPort=7000", &[]);
    check("reconfigEnabled=true", &["line 3", "dynamic reconfiguration"]);
    check("snapcounts=5", &["line 3", "unknown key", "snapCount"]);
    check("zookeeper.snapCount=5", &["unknown key", "Did you mean snapCount?"]);
    check("leader.nodelay=true", &["JVMFLAGS"]);
    check("snapCount=1", &["outside 2"]);
    check("snapCount=many", &["100000 is used"]);
    check("autopurge.snapRetainCount=1", &["3 snapshots"]);
    check("tickTime=1000\ntickTime=2000", &["line 3", "line 4"]);
    check("jute.maxbuffer=5000000", &["Apache ignores"]);
    check("jute.maxbuffer=-1", &["0 is used"]);
    check("dataLogDir=logs", &["relative"]);
}

#[test]
fn java_flags_count_and_the_file_wins_over_them() {
    let flags = JavaFlags::parse(
        "-Xmx1g -Djute.maxbuffer=0x400000 -Dzookeeper.snapCount=77 -Dzookeeper.4lw.commands.whitelist=*",
        "-Dzookeeper.forceSync=no -Dzookeeper.preAllocSize=64 -Dzookeeper.skipACL=yes -Dreadonlymode.enabled=true",
    );
    let cfg = ZooCfg::parse(None, b"dataDir=/d\npreAllocSize=128\njute.maxbuffer=9999\n", &flags, None)
        .expect("good");
    assert_eq!((cfg.frame_bytes_limit, cfg.snap_count, cfg.prealloc_kib), (0x40_0000, 77, 128));
    assert!(!cfg.force_sync && cfg.skip_acl && cfg.whitelist.allows("mntr"));
    let flags = JavaFlags::parse("-Djute.maxbuffer=1000", "");
    let cfg = ZooCfg::parse(None, b"dataDir=/d\n", &flags, None).unwrap();
    assert_eq!(cfg.frame_bytes_limit, 1000, "small values are obeyed");
}

fn with_my_id(text: &str, my_id: Option<&str>) -> Result<ZooCfg, ConfigError> {
    let dir = tempfile::tempdir().expect("temporary directory");
    if let Some(id) = my_id {
        fs::write(dir.path().join("myid"), id).expect("myid");
    }
    let file = dir.path().join("zoo.cfg");
    fs::write(&file, format!("dataDir={}\n{text}", dir.path().display())).expect("zoo.cfg");
    ZooCfg::load(&file, &JavaFlags::default(), None)
}

#[test]
fn one_server_line_is_a_standalone_server_with_that_line_s_client_port() {
    // The official Docker image relies on it (row Q3, G29).
    for my_id in [Some("1\n"), None] {
        let cfg = with_my_id("server.1=localhost:2888:3888;2181\n", my_id).expect("good");
        assert_eq!((cfg.client_port, cfg.client_host.as_deref()), (Some(2181), Some("0.0.0.0")));
        assert!(!cfg.is_distributed());
    }
    let distributed = with_my_id("server.1=localhost:2888:3888;2181\nstandaloneEnabled=false\n", Some("1"));
    assert!(distributed.expect_err("limits are missing").what.contains("initLimit"));
}

/// Q2, Q4, Q5. Danger: a server waits for no time at all, or takes the place of another one, or votes though it observes.
#[test]
fn an_ensemble_needs_limits_and_a_matching_my_id() {
    let servers = "server.1=a:1:2;2181\nserver.2=b:1:2;2181\nserver.3=c:1:2:observer;2182\n";
    let limits = "initLimit=10\nsyncLimit=5\n";
    let check = |text: &str, my_id: Option<&str>, word: &str| {
        let error = with_my_id(text, my_id).expect_err(word).to_string();
        assert!(error.contains(word), "{error:?} without {word:?}");
    };
    check(servers, Some("1"), "initLimit is not set");
    check(&format!("{servers}initLimit=1"), Some("1"), "syncLimit is not set");
    check(&format!("{servers}{limits}"), None, "myid is missing");
    check(&format!("{servers}{limits}"), Some("one"), "'one' is not a server id");
    check(&format!("{servers}{limits}"), Some("\n1"), "'' is not a server id");
    check(&format!("{servers}{limits}"), Some("7"), "no server.7 line");
    check(&format!("{servers}{limits}clientPort=5"), Some("1"), "differ");
    let cfg = with_my_id(&format!("{servers}{limits}"), Some("3\nthe observer")).expect("good");
    assert!(cfg.is_distributed());
    assert_eq!((cfg.peer_type, cfg.client_port), (PeerType::Observer, Some(2182)));
    let warnings = cfg.warnings.join("\n");
    assert!(
        warnings.contains("peerType says participant") && warnings.contains("No server failure"),
        "{warnings}"
    );
}

#[test]
fn an_ensemble_s_settings_are_whole() {
    let text = "server.1=a:1:2;2181\nserver.2=[::1]:1:2;2181\nserver.3=c:1:2\ninitLimit=10\nsyncLimit=5\ntickTime=200\n";
    let settings = |more: &str| {
        with_my_id(&format!("{text}{more}"), Some("2"))
            .expect("good")
            .ensemble_settings()
            .expect("an ensemble")
    };
    let plain = settings("");
    assert_eq!((plain.me, plain.addresses.len(), plain.ensemble.version), (ServerId(2), 3, 0));
    assert_eq!(plain.addresses[&ServerId(2)][0].host, "::1");
    assert_eq!((plain.init_limit_ticks, plain.sync_limit_ticks, plain.connect_limit_ticks), (10, 5, 10));
    assert_eq!((plain.bind_tries, plain.election_handshake_timeout_ms, plain.dial_retry_ms), (3, 1000, 100));
    assert_eq!((plain.image_transfers_max, plain.history_transfers_max), (10, 100));
    assert!(plain.leader_serves && !plain.listens_on_all && !plain.multi_address && !plain.force_snapshot);
    let other = settings(
        "connectToLearnerMasterLimit=3\nelectionPortBindRetry=0\nquorumCnxnTimeoutMs=77\nleaderServes=no\n\
         quorumListenOnAllIPs=true\nforceSnapshotSync=true\nfastleader.minNotificationInterval=70000\n\
         leader.maxConcurrentSnapSyncs=3\nleader.maxConcurrentDiffSyncs=4\n",
    );
    assert_eq!((other.image_transfers_max, other.history_transfers_max), (3, 4));
    assert_eq!((other.connect_limit_ticks, other.bind_tries), (3, 0));
    assert_eq!((other.election_handshake_timeout_ms, other.notification_interval_ms_max), (77, 70_000));
    assert!(!other.leader_serves && other.listens_on_all && other.force_snapshot);
    assert_eq!(good("").ensemble_settings(), None);
}

#[test]
fn ids_that_cannot_be_are_refused() {
    let base = "server.1=a:1:2\nserver.300=b:1:2\ninitLimit=1\nsyncLimit=1\nclientPort=1\n";
    assert!(with_my_id(base, Some("300")).is_ok());
    let error = with_my_id(&format!("{base}extendedTypesEnabled=true\n"), Some("300"));
    assert!(error.expect_err("row T19").to_string().contains("0 to 254"));
    let error = with_my_id(&format!("{base}server.1=c:1:2\n"), Some("1")).expect_err("twice").to_string();
    assert!(error.contains("server.1 is listed twice, first on line 2"), "{error}");
}

/// Q67. Danger: an operator's file is taken for half of what it says.
#[test]
fn members_may_stand_in_a_dynamic_file_and_only_there() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let dynamic = dir.path().join("zoo.cfg.dynamic.10000001a");
    let text = |extra: &str| {
        format!(
            "dataDir={}\ninitLimit=1\nsyncLimit=1\ndynamicConfigFile={}\n{extra}",
            dir.path().display(),
            dynamic.display()
        )
    };
    assert!(parse(&text("")).expect_err("no file").to_string().contains("zoo.cfg:4: cannot read"));
    fs::write(&dynamic, "server.1=a:1:2\nserver.2=b:1:2\n").expect("dynamic file");
    let cfg = parse(&text("")).expect("good");
    assert_eq!((cfg.ensemble.members.len(), cfg.ensemble.version), (2, 0x1_0000_001a));
    assert!(
        parse(&text("server.3=c:1:2\n")).expect_err("both").to_string().contains("beside dynamicConfigFile")
    );
    fs::write(&dynamic, "server.1=a:1:2\nclientPort=2181\n").expect("dynamic file");
    assert!(parse(&text("")).expect_err("foreign key").to_string().contains("10000001a:2: clientPort"));
}
