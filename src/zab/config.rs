//! What a member of an ensemble is told at its start: who the others are, how long to wait, what its disk holds.

#[cfg(feature = "mutations")]
use crate::mutation::Mutation;
use crate::tail::Tail;
use zkfast_wire::{Ensemble, Epoch, ServerId};

/// Settings of a member.
#[derive(Clone, Debug)]
pub struct Config {
    /// This server's `myid`.
    pub server: ServerId,
    /// Everybody, and how votes count.
    pub ensemble: Ensemble,
    /// `tickTime`, milliseconds.
    pub tick_ms: u64,
    /// `initLimit`: ticks to connect and to catch up.
    pub init_limit_ticks: u64,
    /// `connectToLearnerMasterLimit`: ticks to reach a leader, all dials and the pauses between them (Q46).
    pub connect_limit_ticks: u64,
    /// `syncLimit`: ticks of silence, or of lag, that are borne afterwards.
    pub sync_limit_ticks: u64,
    /// `fastleader`'s wait for a better vote once a quorum agrees, milliseconds (Q22).
    pub finalize_wait_ms: u64,
    /// `fastleader.minNotificationInterval`, milliseconds (Q26).
    pub notification_interval_ms_min: u64,
    /// `fastleader.maxNotificationInterval`, milliseconds.
    pub notification_interval_ms_max: u64,
    /// `leaderConnectDelayDuringRetryMs` (Q46).
    pub dial_retry_ms: u64,
    /// Dials of a leader before another election (Q46).
    pub dial_tries_max: u32,
    /// `forceSnapshotSync`, for tests.
    pub force_snapshot: bool,
    /// Whether a server without a history votes. False: nobody vouches for its empty disk, which may have held a history
    /// once; it waits for a leader that the others elect, and takes that one's (Q23).
    pub votes_empty: bool,
    /// `commitLogCount`: a learner that misses more records than this is sent them only where the driver says that they
    /// are cheaper than a snapshot ([`Event::Cheaper`](crate::Event::Cheaper)).
    pub diff_records_max: u64,
    /// A learner that misses at most so many records joins the live traffic, which queues behind them on its link;
    /// before that it is sent history only. This bounds the queue of a link.
    pub join_records_max: u64,
    /// `leader.maxConcurrentSnapSyncs`: observers that are sent an image at once; another one is to come back later.
    pub image_transfers_max: usize,
    /// `leader.maxConcurrentDiffSyncs`: the same for those that are sent records before live traffic.
    pub history_transfers_max: usize,
    /// The counter of a reign's first transaction: 1. Apache's `testingonly.initialZxid`, for tests of the rollover.
    pub first_counter: u32,
    /// The precaution that this server leaves out.
    #[cfg(feature = "mutations")]
    pub mutation: Option<Mutation>,
}

impl Config {
    /// Apache's defaults, and tickTime 2000, initLimit 10, syncLimit 5 as in its sample configuration.
    pub fn new(server: ServerId, ensemble: Ensemble) -> Self {
        Self {
            server,
            ensemble,
            tick_ms: 2000,
            init_limit_ticks: 10,
            connect_limit_ticks: 10,
            sync_limit_ticks: 5,
            finalize_wait_ms: 200,
            notification_interval_ms_min: 200,
            notification_interval_ms_max: 60_000,
            dial_retry_ms: 100,
            dial_tries_max: 5,
            force_snapshot: false,
            votes_empty: true,
            diff_records_max: 2_000_000,
            join_records_max: 4096,
            image_transfers_max: 10,
            history_transfers_max: 100,
            first_counter: 1,
            #[cfg(feature = "mutations")]
            mutation: None,
        }
    }
}

/// What recovery found on disk.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The history. The tree shows all of it, committed or not (P31).
    pub tail: Tail,
    /// `acceptedEpoch`; `None` where the file is missing.
    pub accepted_epoch: Option<Epoch>,
    /// `currentEpoch`; `None` where the file is missing.
    pub current_epoch: Option<Epoch>,
}

impl Recovered {
    /// The two epochs that this disk stands for, accepted first.
    ///
    /// Missing files mean the epoch of the last zxid (Q71, `QuorumPeer.loadDataBase`). Two states that Apache refuses
    /// to start from are repaired, because a crash between two writes makes them and both readings are safe
    /// (ZOOKEEPER-1653, 2307):
    /// - A log whose end lies in a later epoch than currentEpoch. A learner logs before it stores currentEpoch, so
    ///   whoever holds a transaction of epoch e holds all the history that e began with: e is what it stands for.
    /// - acceptedEpoch below currentEpoch. To hold a history is to have accepted its epoch.
    pub fn epochs(&self) -> (Epoch, Epoch) {
        let of_log = self.tail.appended().epoch();
        let current = self.current_epoch.map_or(of_log, |current| current.max(of_log));
        let accepted = self.accepted_epoch.map_or(current, |accepted| accepted.max(current));
        (accepted, current)
    }
}
