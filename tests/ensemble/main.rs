//! Whole ensembles: three server processes, clients that never stop writing, and faults.
//!
//! The servers are zkfast, or Apache ZooKeeper 3.8.0 where a test mixes the two. With `ZKFAST_UNDER_TEST=apache` all of
//! them are Apache's: a test that fails then is wrong about ZooKeeper. Ensembles run one at a time.
//!
//! `ZKFAST_ENSEMBLE_ROUNDS=50` makes the tests that repeat a fault repeat it so often (README, "Test longer").

#[path = "../peers/mod.rs"]
mod peers;

mod apaches_race;
mod catch_up;
mod cluster;
mod disks;
mod failover;
mod guide;
mod history;
mod lifetimes;
mod limits;
mod load;
mod local_session;
mod metrics;
mod mixed;
mod moved;
mod namespaces;
mod oddities;
mod partition;
mod proxy;
mod puppet;
mod read_only;
mod rollover;
mod session;
mod sessions;
mod shapes;
#[allow(dead_code, reason = "the tests of one server use more media")]
#[path = "../bad_input/small_disk.rs"]
mod small_disk;
mod start;
#[allow(dead_code, reason = "the tests of one server look at more")]
#[path = "../durability/trace.rs"]
mod trace;
mod traced;
mod wiped;

use std::time::Duration;

/// How often a test repeats its fault: `few`, unless the environment asks for more.
fn rounds(few: usize) -> usize {
    match std::env::var("ZKFAST_ENSEMBLE_ROUNDS") {
        Ok(text) => text.parse().expect("ZKFAST_ENSEMBLE_ROUNDS is a number"),
        Err(_) => few,
    }
}

/// Median and maximum, for the figures that a test prints.
fn summary(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    match (sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(median), Some(most)) => {
            format!(
                "{} times, median {:.3} s, longest {:.3} s",
                sorted.len(),
                median.as_secs_f64(),
                most.as_secs_f64()
            )
        }
        _ => "never".to_owned(),
    }
}
