//! A small network, for tests of the model.

use super::Model;
use crate::api::{EndpointCreate, NetworkCreate, SandboxCreate};

pub(super) fn id(number: u32) -> String {
    format!("{number:064x}")
}

pub(super) fn model_with(network: NetworkCreate) -> Model {
    let mut model = Model::default();
    model.create_network(&network, id(1)).unwrap();
    model.create_sandbox(&SandboxCreate { name: Some("a".into()), ..sandbox() }, id(2)).unwrap();
    model.create_sandbox(&SandboxCreate { name: Some("b".into()), ..sandbox() }, id(3)).unwrap();
    model
}

pub(super) fn sandbox() -> SandboxCreate {
    SandboxCreate::default()
}

pub(super) fn net(subnet: &str) -> NetworkCreate {
    NetworkCreate { name: "net".into(), subnets: vec![subnet.parse().unwrap()], ..NetworkCreate::default() }
}

pub(super) fn join_request() -> EndpointCreate {
    EndpointCreate { network: "net".into(), ..EndpointCreate::default() }
}
