//! `docker_gwbridge`: a network of this node alone that gives sandboxes of shared networks their way to the outside.
//!
//! A shared network has no default route. Whoever is in one that is not internal, and in no other network with a way out,
//! gets a second interface, as Docker has it.

use netns_setup::Netns;
use weft_control::{
    Endpoint, Model, Result,
    api::{EndpointCreate, NetworkCreate},
    cluster::WAY_OUT,
};

use super::super::runtime::Inner;

impl Inner {
    /// Makes what a sandbox of `model` lacks; nothing is saved but the network itself.
    pub(in crate::control) fn add_way_out(&mut self, model: &mut Model, sandbox: &str, netns: Option<&Netns>) -> Result<Option<Endpoint>> {
        if !model.lacks_way_out(sandbox) {
            return Ok(None);
        }
        if model.network(WAY_OUT).is_err() {
            // Its sandboxes are strangers to one another.
            let request = NetworkCreate { name: WAY_OUT.into(), isolated_default: true, names: Some(false), ..NetworkCreate::default() };
            let network = self.create_network(&request)?;
            model.networks.insert(network.id.clone(), network);
        }
        self.add_endpoint(model, sandbox, &EndpointCreate { network: WAY_OUT.into(), ..EndpointCreate::default() }, netns).map(Some)
    }
}
