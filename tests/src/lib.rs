//! What the end-to-end tests share: an outer namespace that plays the host, a daemon in it, further
//! namespaces, and real tools.

pub mod events;
pub mod lab;
pub mod naive;
pub mod ns;
pub mod operations;
pub mod run;
pub mod runner;
pub mod vxlan;
pub mod wire;
