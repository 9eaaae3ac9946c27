//! The deterministic simulator: N servers of the real `zab` on one thread, over a network that delays and breaks,
//! disks that forget what was not synced, and a clock that is made up. Each schedule comes from a seed; in every
//! twentieth the servers have the real tree and the real storage too. `src/zab/PROTOCOL.md` tells what is checked.

#![allow(missing_docs, reason = "a test")]
#![allow(dead_code, reason = "the endless mode, a crate of its own, uses more of these rooms")]

mod checks;
mod clients;
mod disk;
mod driver;
mod faults;
mod network;
mod plan;
mod records;
mod rng;
mod scenarios;
mod schedule;
mod store;
#[path = "../support"]
mod support {
    pub mod simulated_disk;
    pub mod simulated_log;
}
mod world;

use crate::{plan::Plan, schedule::Figures};
use zkfast_zab::Mutation;

/// Danger: everything that this simulator knows. A failure prints its seed; `cargo run --release --example sim --
/// --seed S` tells the story.
#[test]
fn no_schedule_breaks_an_invariant() {
    let mut total = Figures::default();
    for seed in 0..600 {
        match schedule::run(&Plan::from_seed(seed)) {
            Ok(figures) => total.add(figures),
            Err(violation) => panic!("seed {seed}: {}: {}", violation.invariant, violation.story),
        }
    }
    println!("{total:?}");
    assert!(total.commits > 1_000 && total.elections > 1_000);
}

/// Danger: a simulator that sees nothing. Each precaution of the protocol is left out in turn; a few schedules must
/// tell.
#[test]
fn every_mutation_is_caught() {
    // Chance seldom makes a snapshot of a state that is taken back: `scenarios` does.
    for mutation in Mutation::ALL.into_iter().filter(|mutation| *mutation != Mutation::CutBelowSnapshot) {
        // Rare ones are looked for where they were found once.
        let from = match mutation {
            Mutation::AcceptedEpochNotSaved | Mutation::EpochBeforeHistory => 3_400,
            Mutation::EpochNotCompared => 3_000,
            Mutation::EpochAckedTwice => 2_000,
            _ => 0,
        };
        let caught = (from..from + 800).find_map(|seed| {
            let plan = Plan { mutation: Some(mutation), ..Plan::from_seed(seed) };
            schedule::run(&plan).err().map(|violation| (seed, violation))
        });
        let (seed, violation) = caught.unwrap_or_else(|| panic!("{mutation:?} went unnoticed"));
        println!("{mutation:?}: seed {seed}: {}", violation.invariant);
    }
}
