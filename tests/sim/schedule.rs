//! One schedule from its seed to its verdict.

use crate::{
    checks::{Check, Violation},
    plan::Plan,
    world::{What, World},
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use zkfast_zab::quorum::Voters;

/// How long a healed ensemble may take until it is one again: elections, dials and syncs, each with its own timeouts.
const HEALING_US: u64 = 30_000_000;

/// What a schedule that held did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub steps: u64,
    pub commits: u64,
    pub elections: u64,
    pub simulated_us: u64,
}

impl Figures {
    pub fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.commits += other.commits;
        self.elections += other.elections;
        self.simulated_us += other.simulated_us;
    }
}

/// Runs a schedule. A failed assertion of the protocol is a violation too.
pub fn run(plan: &Plan) -> Result<Figures, Violation> {
    guarded(|| {
        let mut world = World::new(plan.clone());
        live(&mut world).map(|()| figures(&world))
    })
}

/// Makes a failed assertion a violation.
pub fn guarded<T>(act: impl FnOnce() -> Result<T, Violation>) -> Result<T, Violation> {
    let outcome = catch_unwind(AssertUnwindSafe(act));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Violation { invariant: "Assertion", story: text.unwrap_or_default() })
    })
}

/// The same with the last lines of what happened.
pub fn retell(plan: &Plan, lines: usize) -> String {
    let mut world = World::new(plan.clone());
    world.trace = Some(Vec::new());
    let outcome = catch_unwind(AssertUnwindSafe(|| live(&mut world)));
    let trace = world.trace.take().unwrap_or_default();
    let tail = &trace[trace.len().saturating_sub(lines)..];
    format!("{plan:#?}\n{}\n{outcome:?}", tail.join("\n"))
}

fn figures(world: &World) -> Figures {
    Figures {
        steps: world.steps,
        commits: world.checks.committed().len() as u64,
        elections: world.elections,
        simulated_us: world.now_us,
    }
}

/// Faults and load; then everything heals, and the ensemble must become one again, take a write, and agree.
fn live(world: &mut World) -> Check {
    let end_us = world.now_us + world.plan.active_us;
    if world.plan.leaves_down {
        world.run(end_us - 1, |_| false)?;
        leave_down(world);
    }
    world.run(end_us, |_| false)?;
    world.run(end_us + 1, |_| false)?;
    settle(world)
}

/// Kills as many voters as a quorum can do without, some seeds fewer, for good.
fn leave_down(world: &mut World) {
    let mut left = (0..world.plan.voters).fold(Voters::NONE, Voters::with);
    for _ in 0..2 * world.plan.voters {
        let place = world.rng.below(world.plan.voters as u64) as usize;
        if left.has(place) && world.quorum.decides(left.without(place)) {
            left = left.without(place);
            world.down.push(place);
        }
    }
    for place in world.down.clone() {
        world.kill(place);
    }
}

/// Liveness: an ensemble without faults elects, catches up, and commits.
pub fn settle(world: &mut World) -> Check {
    let limit_us = world.now_us + HEALING_US;
    let mut writes = 0;
    while writes < 2 {
        world.run(limit_us, World::is_settled)?;
        if !world.is_settled() {
            let roles: Vec<_> = world
                .servers
                .iter()
                .map(|server| {
                    server.node.as_ref().map(|node| (node.role(), node.committed(), node.appended()))
                })
                .collect();
            return world.violated("Liveness", format!("not one ensemble in {HEALING_US} us: {roles:?}"));
        }
        let leader = world.leader().expect("a settled ensemble has one");
        let whom = world.whom(leader);
        let before = world.checks.committed().len();
        world.after(0, whom, What::Client);
        world.run(limit_us, |world| world.checks.committed().len() > before)?;
        writes += usize::from(world.checks.committed().len() > before);
    }
    let is_over =
        |world: &World| world.is_settled() && world.servers.iter().all(|server| server.clients.are_content());
    // Where an epoch has room for two writes, a hundred that wait take fifty epochs.
    let mut before = None;
    while !is_over(world) && before != Some(world.checks.committed().len()) {
        before = Some(world.checks.committed().len());
        world.run(world.now_us + HEALING_US / 3, is_over)?;
    }
    world.check_answered()?;
    world.checks.converged(&world.disks(), &world.down)
}
