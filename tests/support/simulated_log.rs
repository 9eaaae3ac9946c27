//! The real log (`TxnLog`) and its helper (`Preparer`) over a simulated disk, one step at a time.

use super::simulated_disk::{Disk, SimulatedDirectory, SimulatedFile, SimulatedFlusher};
use std::{
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    time::Instant,
};
use zkfast::storage::{
    TxnLog,
    preparer::{Preparer, REQUESTS_MAX, Request, Shared},
    window::Half,
};
use zkfast_wire::Zxid;

/// Bytes, small enough that a test fills several.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub segment: u64,
    pub half: usize,
}

/// One life of a log: between a start, a cut or an installation and the next.
pub struct SimulatedLog {
    pub disk: Disk,
    pub log: TxnLog<SimulatedFlusher>,
    preparer: Preparer<SimulatedDirectory>,
    requests: Receiver<Request<SimulatedFile>>,
}

impl SimulatedLog {
    /// Goes on behind `last` with what the disk has.
    pub fn open(disk: Disk, last: Zxid, sizes: Sizes) -> Self {
        disk.remove_prepared();
        let shared = Shared::new(None);
        let mut preparer = Preparer::new(disk.directory(), Arc::clone(&shared), sizes.segment);
        let first = preparer.first_segment(sizes.segment / 4).expect("room");
        let (sender, requests) = sync_channel(REQUESTS_MAX);
        let halves = [Half::new(sizes.half).expect("memory"), Half::new(sizes.half).expect("memory")];
        let log = TxnLog::assemble(disk.flusher(), halves, shared, sender, first, last, None);
        Self { disk, log, preparer, requests }
    }

    /// One thing that the helper has to do, or its looking ahead at this time.
    pub fn help(&mut self, now: Instant) {
        if !self.serve() {
            self.preparer.step(now);
        }
    }

    /// Serves one request; false where there is none.
    pub fn serve(&mut self) -> bool {
        let request = self.requests.try_recv();
        request.map(|request| assert!(self.preparer.serve(request))).is_ok()
    }
}
