//! What an operator would otherwise do by hand, on helper threads beside the service.

pub mod purge;
