//! The shell around the pure model: carries changes out, keeps them, serves them.

mod cluster;
mod configuring;
mod connections;
mod editing;
mod ending;
mod engine;
mod http;
mod lan;
mod leases;
pub(crate) mod listen;
mod mesh;
mod names;
mod nat_rules;
mod overlay;
mod ports;
mod publishing;
mod recover;
pub(crate) mod rootless;
mod runtime;
mod serve;
mod store;
mod trace;
mod uplink;
mod views;
mod vips;

pub(crate) use cluster::ClusterConfig;
pub(crate) use runtime::Runtime;
pub(crate) use serve::{Daemon, DaemonConfig, clear};
