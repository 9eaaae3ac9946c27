//! How many bytes are held now, and how many were at most since the last question.

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Starts a measurement: the bytes held now, which are the peak from here on.
pub fn start() -> usize {
    ALLOCATOR.reset_peak_usage();
    ALLOCATOR.current_usage()
}

/// The most bytes held since `start`, beyond those held then. One thread measures at a time.
pub fn peak_since(start: usize) -> usize {
    ALLOCATOR.peak_usage().saturating_sub(start)
}
