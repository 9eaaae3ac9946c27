//! Memory for znodes, made ready before it is needed, and memory that is needed no more.
//!
//! The first touch of fresh memory is a page fault, and the kernel clears a huge page in it: 0.1 ms on bare metal, 5 to 7
//! ms on a virtual machine whose host has to find the memory first. The pipeline would stand still for it, every few
//! thousand creates. So a thread touches the memory behind the newest node: allocators hand out fresh memory in the order
//! of addresses. If this one does otherwise, or is ahead of the thread, the fault happens where it happened before;
//! nothing else depends on it. What lies ahead is at most [`AHEAD_MAX`] huge pages, and one while the tree does not grow.
//!
//! What is freed is needed again soon: the allocator keeps it for [`KEPT_MS`] before the kernel gets it back. Else the same
//! pages are cleared again and again, and no huge page stays whole.
//!
//! Named room for `unsafe`: one call of madvise, with addresses that may belong to anybody, and two of the allocator.

use super::placement::Everywhere;
use rustix::mm::{Advice, madvise};
use std::{
    collections::VecDeque,
    ffi::c_void,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use zkfast_tree::GrowthListener;

/// Stretches that are made ready ahead of the newest node at most: 4 MiB, 15,000 znodes of the usual size. With twice as many
/// creates are no faster, and a million znodes take 10 MB more.
const AHEAD_MAX: usize = 2;

/// A tree that enters so many stretches within this time grows fast.
const RECENTLY: Duration = Duration::from_secs(1);

/// Stretches that are remembered as done.
const DONE_MAX: usize = 4 * AHEAD_MAX;

/// How long freed memory is kept; mimalloc's default is 10. While a tree grew by 200,000 znodes a second, pages came
/// and went 25 times as often with that (tuning.md, "Creates").
const KEPT_MS: std::ffi::c_long = 1000;

/// `mi_option_purge_delay` of mimalloc 2, for which libmimalloc-sys has no name: the option behind this one.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = libmimalloc_sys::mi_option_eager_commit_delay + 1;

/// Has the allocator keep freed memory for a while, unless `MIMALLOC_PURGE_DELAY` in the environment says how long.
pub fn keep_freed() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        // SAFETY: it stores one aligned word of the allocator's and touches no memory that was given out; a thread that
        // allocates meanwhile reads the old number or the new one, and is right with either.
        unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, KEPT_MS) }
    }
}

/// Starts the thread; the tree is to be told of the listener. The thread lives as long as the process: it sleeps until
/// the tree grows.
///
/// # Errors
/// If the system has no thread to give.
pub fn ready_ahead() -> io::Result<GrowthListener> {
    let newest = Arc::new(AtomicUsize::new(0));
    let heard = Arc::clone(&newest);
    let thread = Everywhere::like_this_thread().spawn("memory", move || work(&heard))?.thread().clone();
    Ok(GrowthListener::new(move |stretch| {
        newest.store(stretch, Ordering::Relaxed);
        thread.unpark();
    }))
}

fn work(newest: &AtomicUsize) {
    let mut seen = 0;
    let mut done = VecDeque::new();
    let mut entered = VecDeque::new();
    loop {
        let at = newest.load(Ordering::Relaxed);
        if at == seen {
            thread::park();
            continue;
        }
        seen = at;
        let now = Instant::now();
        entered.push_back(now);
        while entered.len() > AHEAD_MAX || entered.front().is_some_and(|&then| now - then > RECENTLY) {
            entered.pop_front();
        }
        done.push_back(at);
        for stretch in at + 1..=at + entered.len() {
            if done.contains(&stretch) {
                continue;
            }
            if !touch(stretch) {
                break;
            }
            done.push_back(stretch);
            if newest.load(Ordering::Relaxed) != at {
                break;
            }
        }
        while done.len() > DONE_MAX {
            done.pop_front();
        }
    }
}

/// Has the kernel find memory for a stretch; whether it did. It does not where nothing is mapped, where writing is not
/// allowed, and before Linux 5.14.
fn touch(stretch: usize) -> bool {
    let start: *mut c_void = std::ptr::without_provenance_mut(stretch * GrowthListener::STRETCH_BYTES);
    // SAFETY: this advice changes no byte and no mapping: it does what a write would do that leaves everything as it is,
    // and fails where that write would. So it is harmless whomever the addresses belong to, now or meanwhile.
    unsafe { madvise(start, GrowthListener::STRETCH_BYTES, Advice::LinuxPopulateWrite) }.is_ok()
}

/// Gives the kernel back what this thread has freed. The allocator does so by itself only when the thread goes on
/// allocating; told to do so always, it costs sets a quarter of their rate (tuning.md, "The tree").
pub fn give_back() {
    // SAFETY: it takes no pointer and works on the calling thread's own heap, which no other thread touches: pages without
    // a block that is given out go back to the kernel, and no block that is given out moves or ends.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Danger: memory in use is changed, or an address that belongs to nobody ends the process.
    #[test]
    fn bytes_stay_as_they_are() {
        const BYTES: usize = GrowthListener::STRETCH_BYTES;
        let mut memory = vec![0_u8; 3 * BYTES];
        let stretch = memory.as_ptr().addr().div_ceil(BYTES);
        let at = stretch * BYTES - memory.as_ptr().addr();
        memory[at + 5000] = 7;
        // False on kernels before 5.14.
        touch(stretch);
        assert_eq!(memory.iter().map(|&byte| u32::from(byte)).sum::<u32>(), 7);
        assert_eq!(memory[at + 5000], 7);
        assert!(!touch(0), "nothing is mapped at the start of the address space");
    }

    /// Danger: another version of the allocator has another option at this place.
    #[test]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: it reads one aligned word of the allocator's, which nobody else writes meanwhile.
        let kept_ms = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(kept_ms(), 10, "mimalloc's default");
        keep_freed();
        assert_eq!(kept_ms(), KEPT_MS);
    }

    #[test]
    fn a_growing_tree_is_followed() {
        let listener = ready_ahead().unwrap();
        let config = zkfast_tree::TreeConfig { growth: Some(listener), ..Default::default() };
        let tree = zkfast_tree::Tree::new(config);
        assert_eq!(tree.node_count(), 5, "as without a listener");
    }
}
