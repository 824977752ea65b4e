//! Desired state and the words for it: model, IPAM, configuration, wire types. Pure.

pub mod api;
pub mod compose;
pub mod cluster;
pub mod config;
pub mod container;
pub mod defaults;
pub mod desired;
pub mod docker;
pub mod driver;
pub mod edit;
mod endpoint_options;
mod error;
mod ipam;
pub mod lan;
mod mesh;
mod model;
pub mod names;
pub mod overlay;
pub mod probe;
pub mod publish;
mod state;
pub mod store;
pub mod sysctl;
pub mod uplink;
mod vip;
pub mod volume;

pub use container::{Container, Phase};
pub use defaults::Defaults;
pub use driver::DriverOptions;
pub use error::{Code, ControlError, Result};
pub use model::{ConfigNetwork, port_name, Endpoint, EndpointKind, L2, Model, NatPreset, NetnsTarget, Network, Pool, Process, Sandbox, Storm, Vlan};
pub use mesh::{MeshPort, MeshReplica, MeshService, MeshServices};
pub use publish::{Protocol, Published};
pub use vip::Served;
pub use state::{Journal, StateError, decode};
