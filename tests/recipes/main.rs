//! The recipes that applications are built of, as the clients' own libraries have them, with several sessions that
//! contend: kazoo's, and Curator's where its packages are installed (`tests/run` installs them).
//!
//! Danger of all: a watch that comes late or not at all, a sequence number given twice, an ephemeral that outlives its
//! session. Then two hold a lock, nobody leads, or an entry is lost (D1-D3, X10).

#[path = "../peers/mod.rs"]
mod peers;

use peers::{Kind, Server, Settings, script};
use std::process::Command;

fn with_kazoo(story: &str) {
    let home = peers::directory();
    let server = Server::start(Kind::under_test(), home.path(), &Settings::default());
    let mut command = Command::new(script::python());
    command.arg(script::test_file("recipes/kazoo_recipes.py")).arg(server.address.to_string()).arg(story);
    assert_eq!(script::transcript(&mut command), format!("ok {story}\n"));
}

#[test]
fn kazoos_lock_has_one_holder() {
    with_kazoo("lock");
}

#[test]
fn kazoos_election_has_one_leader_at_a_time() {
    with_kazoo("election");
}

#[test]
fn kazoos_queues_lose_and_double_nothing() {
    with_kazoo("queue");
}

#[test]
fn kazoos_counter_loses_no_increment() {
    with_kazoo("counter");
}

#[test]
fn kazoos_party_knows_who_is_there() {
    with_kazoo("party");
}

#[test]
fn kazoos_double_barrier_lets_in_and_out_together() {
    with_kazoo("barrier");
}

#[test]
fn kazoos_tree_caches_come_to_the_same_tree() {
    with_kazoo("cache");
}

/// InterProcessMutex, SharedCount, PathChildrenCache, CuratorCache and LeaderLatch.
#[test]
fn curators_recipes_keep_their_promises() {
    let classes = peers::directory();
    let jars = ["curator-recipes", "curator-framework", "curator-client", "guava"];
    let jars: Vec<String> = jars.iter().map(|jar| format!("/usr/share/java/{jar}.jar")).collect();
    assert!(
        std::path::Path::new(&jars[0]).exists(),
        "{} is missing: install Debian's package libcurator-recipes-java, or run tests/run",
        jars[0]
    );
    let jars = jars.join(":");
    script::compile_with(&script::test_file("recipes/CuratorRecipes.java"), classes.path(), &jars);
    let home = peers::directory();
    let server = Server::start(Kind::under_test(), home.path(), &Settings::default());
    let mut command = script::java_with("CuratorRecipes", classes.path(), &jars);
    assert_eq!(script::transcript(command.arg(server.address.to_string())), "ok\n");
}
