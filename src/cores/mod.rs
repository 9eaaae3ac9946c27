//! Between the cores: lanes, what travels on them, clocks, and where the cores are placed.

pub mod clock;
pub mod expectation;
pub mod lanes;
#[allow(unsafe_code)]
pub mod memory;
pub mod messages;
pub mod placement;
