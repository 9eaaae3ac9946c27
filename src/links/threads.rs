//! Threads beside the pipeline: lookups of names, and readers of what a learner is sent.
//!
//! A thread that a pinned thread starts is pinned to the same CPU. These must not take the pipeline's, so they are given
//! back the CPUs that the process had when the links were opened.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io;

#[derive(Clone, Copy)]
pub(super) struct Threads {
    cpus: Option<CpuSet>,
}

impl Threads {
    /// Threads that may run where the calling thread may.
    pub(super) fn like_this_one() -> Self {
        Self { cpus: sched_getaffinity(None).ok() }
    }

    /// Starts one; nobody waits for its end.
    pub(super) fn start(&self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let cpus = self.cpus;
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            if let Some(cpus) = cpus {
                // Where the system refuses, it runs beside the pipeline: slower, not wrong.
                let _ = sched_setaffinity(None, &cpus);
            }
            work();
        })?;
        Ok(())
    }
}
