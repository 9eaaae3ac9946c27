//! Which CPUs this process may use.

use std::num::NonZero;
use std::thread::available_parallelism;

/// The numbers of the CPUs in this thread's affinity mask, ascending. Never empty.
///
/// Read it before the first thread is pinned: a pinned thread, and those it starts, see their own CPU alone.
pub fn allowed_cpus() -> Vec<usize> {
    let Ok(mask) = rustix::thread::sched_getaffinity(None) else {
        return vec![0];
    };
    let cpus: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| mask.is_set(*cpu)).collect();
    if cpus.is_empty() { vec![0] } else { cpus }
}

/// How many CPUs' worth of time this process may use: the affinity mask, or the CPU quota of its cgroups (v1 and v2)
/// if that is less. At least 1.
pub fn usable_cpus() -> usize {
    available_parallelism().map_or(1, NonZero::get)
}

/// The CPUs that a thread had when this was made. A thread that a pinned thread starts is pinned to the same CPU; one
/// that shall not take that CPU's time asks for these.
#[derive(Clone, Copy, Debug)]
pub struct Everywhere(Option<rustix::thread::CpuSet>);

impl Everywhere {
    /// Wherever the calling thread may run now: ask before it is pinned.
    pub fn like_this_thread() -> Self {
        Self(rustix::thread::sched_getaffinity(None).ok())
    }

    /// Starts a thread that may run on all of them.
    ///
    /// # Errors
    /// If the system has no thread to give.
    pub fn spawn<T: Send + 'static>(
        self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::io::Result<std::thread::JoinHandle<T>> {
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            if let Some(cpus) = self.0 {
                // Where the system refuses, it runs beside the one that started it: slower, not wrong.
                let _ = rustix::thread::sched_setaffinity(None, &cpus);
            }
            work()
        })
    }

    /// The same for work that can wait: with more threads than CPUs, a tenth of what a core gets, so that it goes on
    /// but is not felt.
    ///
    /// # Errors
    /// As [`Self::spawn`].
    pub fn spawn_in_background<T: Send + 'static>(
        self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::io::Result<std::thread::JoinHandle<T>> {
        self.spawn(name, move || {
            // Of this thread alone, on Linux. Where the system refuses, it is felt.
            let _ = rustix::process::nice(BACKGROUND_NICE);
            work()
        })
    }
}

/// The scheduler gives it 110 shares; a core has 1024.
const BACKGROUND_NICE: i32 = 10;

/// Binds the calling thread to one CPU. Where the system refuses, the thread stays where the scheduler puts it.
pub fn pin_to(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        log::warn!("cannot bind a thread to CPU {cpu}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quota_never_gives_more_than_the_mask() {
        let allowed = allowed_cpus();
        assert!(allowed.is_sorted() && !allowed.is_empty());
        assert!((1..=allowed.len()).contains(&usable_cpus()));
    }
}
