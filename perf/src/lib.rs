//! Measurements beside peers, and instruction counts of the engine.

pub mod busy;
pub mod forward;
pub mod generate;
pub mod peer;
pub mod table;
pub mod workload;
