#![forbid(unsafe_code)]
//! The order: Zab as a pure state machine.
