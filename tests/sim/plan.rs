//! The shape of one schedule: how many servers, which faults, how often. Each seed enables another subset (swarm
//! testing): a fault that always hides another would hide it only in some seeds.

use crate::rng::Rng;
use zkfast_zab::Mutation;

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// One server loses power and comes back.
    Crash,
    /// The server that leads loses power.
    CrashLeader,
    /// All servers lose power at once.
    CrashAll,
    /// A disk operation is the last thing that a server does.
    CrashAtDisk,
    /// Two halves cannot speak.
    Partition,
    /// One direction between two servers is blocked.
    OneWay,
    /// Two halves that only one server sees both of.
    Bridge,
    /// The leader is alone.
    IsolateLeader,
    /// A link breaks.
    BreakLink,
    /// A disk takes a hundred times as long for a while.
    SlowDisk,
    /// A clock jumps ahead.
    ClockJump,
    /// A process is stopped for a while.
    Pause,
}

impl Fault {
    pub const ALL: [Self; 12] = [
        Self::Crash,
        Self::CrashLeader,
        Self::CrashAll,
        Self::CrashAtDisk,
        Self::Partition,
        Self::OneWay,
        Self::Bridge,
        Self::IsolateLeader,
        Self::BreakLink,
        Self::SlowDisk,
        Self::ClockJump,
        Self::Pause,
    ];
}

/// A precaution of the driver that is left out, to prove that somebody would notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// A flush that began before a cut is reported after it (ZOOKEEPER-4712).
    LateFlushCounts,
    /// An image is taken over before all of it is there (ZOOKEEPER-2872, 3642).
    HalfImageTaken,
    /// What an image takes the place of stays in the directory, and nobody looks at it twice (ZOOKEEPER-4925).
    HistoryAcrossImages,
    /// A leader whose disk hangs is not told to give up (ZOOKEEPER-2247).
    HangIsBorne,
    /// At the end of an epoch what clients asked is forgotten, and they are not told (S25).
    ForgottenOverEpochs,
    /// What is applied between two epochs is not taken for the answer to anything: it is asked twice.
    ReplayedUnclaimed,
}

/// Everything about a schedule that is decided before it starts.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub voters: usize,
    pub observers: usize,
    /// Voters in three groups with weights, instead of a majority.
    pub groups: bool,
    pub faults: Vec<Fault>,
    /// Mean time between faults, microseconds.
    pub fault_every_us: u64,
    /// Mean time between client requests, microseconds.
    pub write_every_us: u64,
    /// How long faults and load last, microseconds.
    pub active_us: u64,
    /// Slowest delivery of a message, microseconds.
    pub latency_us_max: u64,
    /// Slowest flush of a healthy disk, microseconds.
    pub flush_us_max: u64,
    pub join_records_max: u64,
    pub diff_records_max: u64,
    pub force_snapshot: bool,
    pub first_counter: u32,
    /// A snapshot and a purge after about so many transactions.
    pub snapshot_every: u64,
    pub mutation: Option<Mutation>,
    pub sabotage: Option<Sabotage>,
    /// Real trees and real files, on top of the model of them.
    pub real: bool,
    /// In the end a minority is dead and stays dead: the others must do without it.
    pub leaves_down: bool,
    /// Epoch files that say no more than the log are gone when a server starts, as with a directory that somebody copied
    /// without them.
    pub loses_epoch_files: bool,
}

/// Every so many seeds the servers have real trees and real files: such a schedule costs some twenty others.
pub const REAL_EVERY: u64 = 20;

impl Plan {
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let voters = *rng.pick(&[3, 3, 3, 3, 5, 5, 7]);
        let mut faults: Vec<_> = Fault::ALL.into_iter().filter(|_| rng.chance(40)).collect();
        if faults.is_empty() {
            faults.push(*rng.pick(&Fault::ALL));
        }
        Self {
            seed,
            voters,
            observers: usize::from(rng.chance(20)),
            groups: voters == 7 && rng.chance(50),
            faults,
            fault_every_us: *rng.pick(&[60_000, 150_000, 400_000]),
            write_every_us: *rng.pick(&[1_000, 5_000, 20_000]),
            active_us: rng.between(1_000_000, 3_000_000),
            latency_us_max: *rng.pick(&[300, 2_000, 15_000]),
            flush_us_max: *rng.pick(&[200, 3_000, 30_000]),
            join_records_max: *rng.pick(&[0, 2, 5, 1_000]),
            diff_records_max: *rng.pick(&[0, 3, 20, 100_000, 100_000]),
            force_snapshot: rng.chance(5),
            first_counter: if rng.chance(10) { u32::MAX - rng.between(3, 60) as u32 } else { 1 },
            snapshot_every: *rng.pick(&[10, 50, 100_000]),
            mutation: None,
            sabotage: None,
            real: seed % REAL_EVERY == REAL_EVERY - 1,
            // Dice of its own: the seeds that are known for something keep it.
            leaves_down: Rng::new(!seed).chance(50),
            loses_epoch_files: Rng::new(seed.rotate_left(32)).chance(30),
        }
    }

    /// A quiet world, for scenarios that bring their own faults.
    pub fn quiet(seed: u64, voters: usize) -> Self {
        Self {
            voters,
            observers: 0,
            groups: false,
            faults: Vec::new(),
            active_us: u64::MAX / 4,
            write_every_us: u64::MAX / 4,
            fault_every_us: u64::MAX / 4,
            latency_us_max: 300,
            flush_us_max: 200,
            join_records_max: 1_000,
            diff_records_max: 100_000,
            force_snapshot: false,
            first_counter: 1,
            snapshot_every: 100_000,
            real: false,
            leaves_down: false,
            loses_epoch_files: false,
            ..Self::from_seed(seed)
        }
    }

    pub fn servers(&self) -> usize {
        self.voters + self.observers
    }

    /// The configuration text that all servers share.
    pub fn ensemble_text(&self) -> String {
        let mut text = String::new();
        for id in 1..=self.servers() {
            let role = if id > self.voters { "observer" } else { "participant" };
            text += &format!("server.{id}=h{id}:2888:3888:{role}\n");
        }
        if self.groups {
            text += "group.1=1:2:3\ngroup.2=4:5\ngroup.3=6:7\nweight.1=2\nweight.5=2\n";
        }
        text + "version=0"
    }
}
