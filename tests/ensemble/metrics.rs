//! What members of an ensemble tell in `mntr`, beside what Apache's tell.

use crate::{
    cluster::{Cluster, Shape},
    peers::{Client, DEADLINE, Kind, client},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};
use zkfast_wire::{Acl, OpCode};

/// Names of Apache's, without what a summary or a set puts in front, that have no line here: they count or time what goes
/// on in its threads and queues (each with its own), in Java's, or in parts that this server does not have.
const ABSENT: &[(&str, &str)] = &[
    (
        "its request processors' threads, queues and batches; here one thread takes a request all the way",
        "\
        close_session_prep_time outstanding_changes_queued outstanding_changes_removed prep_process_time \
        prep_processor_queue_size prep_processor_queue_time_ms prep_processor_request_queued proposal_process_time \
        sync_process_time sync_processor_queue_and_flush_time_ms sync_processor_queue_flush_time_ms \
        sync_processor_queue_size sync_processor_queue_time_ms sync_processor_request_queued \
        commit_commit_proc_req_queued commit_process_time concurrent_request_processing_in_commit_processor \
        local_write_committed_time_ms server_write_committed_time_ms pending_session_queue_size \
        read_commit_proc_issued read_commit_proc_req_queued read_commitproc_time_ms read_final_proc_time_ms \
        reads_after_write_in_session_queue reads_issued_from_session_queue request_commit_queued \
        requests_in_session_queue session_queues_drained time_waiting_empty_pool_in_commit_processor_read_ms \
        write_batch_time_in_commit_processor write_commit_proc_issued write_commit_proc_req_queued \
        write_commitproc_time_ms write_final_proc_time_ms learner_request_processor_queue_size \
        requests_not_forwarded_to_commit_processor skip_learner_request_to_next_processor_count \
        request_throttle_queue_time_ms request_throttle_wait_count stale_replies",
    ),
    (
        "counted one by one; of how many a change fires at a time nothing is kept",
        "\
        node_changed_watch_count node_children_watch_count node_created_watch_count node_deleted_watch_count",
    ),
    (
        "a watcher that has gone is forgotten at once",
        "\
        add_dead_watcher_stall_time dead_watchers_cleaner_latency dead_watchers_cleared dead_watchers_queued",
    ),
    ("Java's garbage collector and Netty", "jvm_pause_time_ms netty_queued_buffer_capacity"),
    (
        "its cache of encoded replies",
        "\
        response_packet_cache_hits response_packet_cache_misses response_packet_get_children_cache_hits \
        response_packet_get_children_cache_misses",
    ),
    (
        "no TLS, no SASL, no admin server (README, Limits)",
        "\
        ensemble_auth_fail ensemble_auth_skip ensemble_auth_success insecure_admin_count tls_handshake_exceeded",
    ),
    (
        "a learner's observers: nobody observes through a follower here",
        "\
        om_commit_process_time_ms om_proposal_process_time_ms",
    ),
    ("tokens are taken at once or not at all", "connection_token_deficit"),
    (
        "a path's first name is the client's: one line for each of as many as there are",
        "\
        read_per_namespace write_per_namespace",
    ),
    (
        "sockets are closed by the kernel, and connections are taken when there is a server",
        "\
        socket_closing_time cnxn_closed_without_zk_server_running",
    ),
    ("a thread that fails ends the process", "unrecoverable_error_count"),
];

/// Names that a member has for its role. Of Apache's they are those of 3.8.0, and for an observer of 3.9.
const EVERY_MEMBER: &str = "peer_state quorum_size looking_count diff_count snap_count revalidate_count \
    quit_leading_due_to_disloyal_voter learner_proposal_received_count learner_commit_received_count proposal_count \
    commit_count avg_election_time cnt_election_time max_election_time min_election_time sum_election_time \
    cnt_unavailable_time cnt_leader_unavailable_time connection_revalidate_count";
const LEADER: &str = "learners synced_followers synced_non_voting_followers synced_observers pending_syncs leader_uptime \
    last_proposal_size max_proposal_size min_proposal_size";

/// What Apache's members have been seen to tell by their roles, and those under test.
#[derive(Default)]
pub struct Names {
    apache: BTreeMap<String, BTreeSet<String>>,
    zkfast: BTreeMap<String, BTreeSet<String>>,
}

impl Names {
    /// O72-O81, O105b, O105d, O105e. Danger: a dashboard that was made for Apache's ensembles shows nothing of ours, or
    /// shows another role than the server has.
    pub fn look_at(&mut self, cluster: &Cluster) {
        let leader = cluster.leader();
        for index in 0..cluster.size() {
            let mode = cluster.server(index).mode().expect("all of them serve");
            let text = cluster.server(index).four_letter("mntr").expect("mntr");
            let kind = cluster.kind(index);
            let told = if kind == Kind::Zkfast { &mut self.zkfast } else { &mut self.apache };
            let names = text.lines().filter_map(|line| line.strip_prefix("zk_")?.split('\t').next());
            told.entry(mode.clone()).or_default().extend(names.map(role_name));

            let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(&format!("zk_{name}\t")));
            let names =
                EVERY_MEMBER.split_whitespace().chain(LEADER.split_whitespace().filter(|_| index == leader));
            for name in names {
                assert!(value(name).is_some(), "{mode} {} ({kind:?}) has no zk_{name}", index + 1);
            }
            let state = match mode.as_str() {
                "leader" => "leading - broadcast",
                "follower" => "following - broadcast",
                _ => "observing - broadcast",
            };
            assert_eq!((value("server_state"), value("peer_state")), (Some(mode.as_str()), Some(state)));
            let observed = (mode == "observer").then(|| (leader + 1).to_string());
            assert_eq!(value("observer_master_id"), observed.as_deref());
            let is_positive = |name: &str| {
                value(name).is_some_and(|number| number.parse::<u64>().is_ok_and(|number| number > 0))
            };
            let counted = |name: &str, is_counted: bool| {
                assert_eq!(is_positive(name), is_counted, "{mode} {} ({kind:?}): {name}", index + 1);
            };
            counted("cnt_unavailable_time", true);
            counted("looking_count", true);
            counted("cnt_propagation_latency", true);
            if kind == Kind::Zkfast || mode != "leader" {
                // Of a former life as a follower nothing is left: the process is new, or has always led.
                counted("learner_commit_received_count", mode != "leader");
            }
            counted("cnt_commit_propagation_latency", mode != "leader");
            counted("cnt_observer_sync_time", mode == "observer");
            if mode == "observer" {
                counted("cnt_proposal_latency", false);
                counted("cnt_proposal_ack_creation_latency", false);
                counted("cnt_follower_sync_time", false);
            }
            if mode == "follower" {
                counted("cnt_proposal_latency", true);
                counted("cnt_proposal_ack_creation_latency", true);
                counted("cnt_follower_sync_time", true);
                assert_eq!(value("leader_uptime"), None, "only a leader has that");
            }
            if mode == "leader" {
                counted("cnt_quorum_ack_latency", true);
                counted("cnt_proposal_ack_creation_latency", true);
                assert!(is_positive("cnt_inflight_diff_count") || is_positive("cnt_inflight_snap_count"));
                for learner in (1..=cluster.size()).filter(|learner| learner - 1 != leader) {
                    counted(&format!("cnt_{learner}_learner_handler_qp_size"), true);
                }
            }
        }
    }

    /// What Apache's tell in a role, ours tell too; or it is named above with the reason.
    pub fn compare(&self) {
        if Kind::under_test() == Kind::Apache {
            return;
        }
        let absent: BTreeSet<&str> = ABSENT.iter().flat_map(|(_, names)| names.split_whitespace()).collect();
        let is_named = |name: &str| {
            let bare = ["avg_", "min_", "max_", "cnt_", "sum_", "p50_", "p95_", "p99_", "p999_"];
            let bare = bare.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
            absent.contains(bare)
                || absent.iter().any(|end| end.ends_with("_per_namespace") && bare.ends_with(end))
        };
        for role in ["leader", "follower", "observer"] {
            let missing: Vec<_> = self.apache[role].difference(&self.zkfast[role]).collect();
            assert!(missing.iter().all(|name| is_named(name)), "{role}: {missing:#?}");
        }
        let told = self.zkfast.values().flatten();
        let needless: Vec<_> =
            told.filter(|name| is_named(name) && !name.ends_with("_watch_count")).collect();
        assert!(needless.is_empty(), "named as absent, and told: {needless:?}");
    }
}

/// The name with another server's number in it, if there is one, taken out.
fn role_name(name: &str) -> String {
    let parts: Vec<&str> = name.split('_').collect();
    let is_number = |part: &&str| !part.is_empty() && part.chars().all(|char| char.is_ascii_digit());
    parts.into_iter().filter(|part| !is_number(part)).collect::<Vec<_>>().join("_")
}

/// O105d, O105e. Danger: the figures are there and show nothing: a follower that stands still for a while looks like one
/// that keeps up.
#[test]
fn a_follower_that_stands_still_shows_in_the_figures() {
    const PAUSE: Duration = Duration::from_millis(600);
    // A machine that is busy shall not cost the leadership here.
    let shape = Shape { sync_limit_ticks: Some(60), ..Shape::default() };
    let cluster = Cluster::start(&[Kind::under_test(); 3], shape);
    let leader = cluster.leader();
    let slow = cluster.follower();
    let other = (0..3).find(|index| ![leader, slow].contains(index)).expect("a third one");
    let mut writer = cluster.server(leader).client(20_000);
    write(&mut writer, 1, 100);
    cluster.server(slow).freeze(true);
    let frozen = Instant::now();
    // One in a thousand is timed on its way back.
    write(&mut writer, 1000, 1500);
    // Sleeps: the time is what is measured.
    std::thread::sleep(PAUSE.saturating_sub(frozen.elapsed()));
    cluster.server(slow).freeze(false);
    write(&mut writer, 3000, 100);

    let pause_ms = PAUSE.as_millis() as u64;
    let value = |index: usize, name: &str| {
        cluster.server(index).monitor(&format!("zk_{name}")).and_then(|text| text.parse::<u64>().ok())
    };
    let at_least = |index: usize, name: &str, least: u64| {
        let deadline = Instant::now() + DEADLINE;
        while value(index, name).is_none_or(|value| value < least) {
            assert!(Instant::now() < deadline, "{name} of {} is {:?}", index + 1, value(index, name));
            // Polled: some figures are shown anew once a tick.
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    for name in [
        "proposal_latency",
        "proposal_ack_creation_latency",
        "commit_propagation_latency",
        "propagation_latency",
    ] {
        at_least(slow, &format!("cnt_{name}"), 1600);
        at_least(slow, &format!("max_{name}"), pause_ms / 2);
        at_least(other, &format!("cnt_{name}"), 1600);
    }
    for name in ["quorum_ack_latency", "proposal_ack_creation_latency", "propagation_latency"] {
        at_least(leader, &format!("cnt_{name}"), 1600);
    }
    for server in [slow, other] {
        at_least(leader, &format!("cnt_{}_learner_handler_qp_time_ms", server + 1), 1);
    }
    // Apache's leader leaves out those that come behind the quorum's, and so whoever is slow.
    if Kind::under_test() == Kind::Zkfast {
        for server in [leader, slow, other] {
            at_least(leader, &format!("cnt_{}_ack_latency", server + 1), 1);
        }
        at_least(leader, &format!("max_{}_ack_latency", slow + 1), pause_ms / 2);
    }
    let quorum_ms = value(leader, "avg_quorum_ack_latency");
    assert!(quorum_ms.is_none_or(|ms| ms < pause_ms), "a quorum waits for no third one: {quorum_ms:?}");
}

/// Many writes at a time, each awaited at the end.
fn write(client: &mut Client, first: usize, count: usize) {
    let sent: Vec<i32> = (first..first + count)
        .map(|number| {
            let body = client::create(&format!("/{number}"), Some(b""), &[Acl::OPEN], 0);
            client.submit(OpCode::Create, &body)
        })
        .collect();
    client.flush().expect("a connection");
    for xid in sent {
        client.reply(xid).expect("a write");
    }
}
