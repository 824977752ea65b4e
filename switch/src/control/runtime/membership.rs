//! Sandboxes join networks and leave them; what is not ours becomes a sandbox by joining.

use serde_json::json;
use weft_control::{
    Code, ControlError, NetnsTarget, Result, Sandbox,
    api::{EndpointCreate, SandboxCreate},
    port_name,
};

use super::{Inner, new_id};

impl Inner {
    pub(crate) fn connect(&mut self, sandbox: &str, request: &EndpointCreate) -> Result<Sandbox> {
        let sandbox = self.model.sandbox(sandbox)?.clone();
        if sandbox.is_at_rest() {
            return Err(ControlError::new(Code::Conflict, &sandbox.name, format!("container {} does not run", sandbox.name)).hint("start it, or connect it with `docker network connect`"));
        }
        let netns = self.open_sandbox(&sandbox)?;
        let mut model = self.model.clone();
        let endpoint = self.add_endpoint(&mut model, &sandbox.id, request, netns.as_ref())?;
        let mut made = vec![endpoint.clone()];
        let done = self.add_way_out(&mut model, &sandbox.id, netns.as_ref()).and_then(|way_out| {
            made.extend(way_out);
            let after = model.sandbox(&sandbox.id)?.clone();
            self.commit(model).inspect_err(|_| self.reroute(&after, netns.as_ref()))
        });
        if let Err(error) = done {
            made.iter().for_each(|endpoint| self.close_endpoint(Some(&sandbox), endpoint, netns.as_ref()));
            return Err(error);
        }
        self.follow_endpoints(&sandbox);
        self.event("network connect", json!({ "network": self.network_name_of(&endpoint.network), "id": endpoint.network, "sandbox": sandbox.name, "sandbox_id": sandbox.id, "port": port_name(&sandbox, &endpoint) }));
        Ok(self.model.sandbox(&sandbox.id)?.clone())
    }

    /// Takes an endpoint away; a sandbox that was only attached goes with its last endpoint.
    pub(crate) fn disconnect(&mut self, sandbox: &str, network: &str) -> Result<Sandbox> {
        let network_id = self.model.network(network)?.id.clone();
        let sandbox = self.model.sandbox(sandbox)?.clone();
        let Some(endpoint) = sandbox.endpoints.iter().find(|endpoint| endpoint.network == network_id).cloned() else {
            return Err(ControlError::new(Code::NotFound, &sandbox.name, format!("{} is not connected to network {network}", sandbox.name)));
        };
        let mut model = self.model.clone();
        model.remove_endpoint(&sandbox.id, &endpoint.id);
        let way_out = model.remove_idle_way_out(&sandbox.id);
        if !sandbox.is_ours() && sandbox.endpoints.len() == 1 {
            model.sandboxes.remove(&sandbox.id);
        }
        self.commit(model)?;
        let netns = self.open_sandbox(&sandbox).ok().flatten();
        for endpoint in way_out.iter().chain([&endpoint]) {
            self.close_endpoint(Some(&sandbox), endpoint, netns.as_ref());
        }
        self.reroute(&sandbox, netns.as_ref());
        self.follow_endpoints(&sandbox);
        self.event("network disconnect", json!({ "network": self.network_name_of(&network_id), "id": network_id, "sandbox": sandbox.name, "sandbox_id": sandbox.id, "port": port_name(&sandbox, &endpoint) }));
        Ok(sandbox)
    }

    fn network_name_of(&self, id: &str) -> String {
        self.model.networks.get(id).map_or_else(String::new, |network| network.name.clone())
    }

    /// A namespace or device that is not ours joins a network; it becomes a sandbox of its own kind.
    pub(crate) fn attach(&mut self, target: NetnsTarget, endpoint: EndpointCreate) -> Result<Sandbox> {
        let target = match target {
            // A sandbox of ours by name is that sandbox.
            NetnsTarget::Name(name) if self.model.sandbox(&name).is_ok() => return self.connect(&name, &endpoint),
            other => other,
        };
        if target == NetnsTarget::Device("lo".into()) {
            return Err(ControlError::new(Code::Invalid, "lo", "lo is no device to attach: nothing but the host itself is behind it").hint("use --host-port to put the host on the network"));
        }
        let name = target_name(&target);
        if self.model.sandboxes.values().any(|sandbox| sandbox.name == name) {
            return self.connect(&name, &endpoint);
        }
        self.create_sandbox(&attached(target, endpoint))
    }

    /// The sandbox as `attach` would leave it.
    pub(crate) fn plan_attach(&self, target: NetnsTarget, endpoint: EndpointCreate) -> Result<Sandbox> {
        let name = target_name(&target);
        match self.model.sandbox(&name).map(|sandbox| sandbox.id.clone()) {
            Ok(id) => {
                let mut model = self.model.clone();
                model.create_endpoint(&id, &endpoint, new_id()?, self.default_kind)?;
                model.sandbox(&id).cloned()
            }
            Err(_) => self.plan_sandbox(&attached(target, endpoint)),
        }
    }
}

/// A sandbox that is not ours, to be made for its first endpoint.
fn attached(target: NetnsTarget, endpoint: EndpointCreate) -> SandboxCreate {
    SandboxCreate {
        name: Some(target_name(&target)),
        netns: target,
        endpoints: vec![endpoint],
        ..SandboxCreate::default()
    }
}

/// How a sandbox that is not ours is called.
pub(crate) fn target_name(target: &NetnsTarget) -> String {
    match target {
        NetnsTarget::New => "new".into(),
        NetnsTarget::Host => "host".into(),
        NetnsTarget::Name(name) => name.clone(),
        NetnsTarget::Pid(pid) => format!("pid{pid}"),
        NetnsTarget::Path(path) => match path.strip_prefix("/run/netns/") {
            Some(name) if !name.contains('/') => name.into(),
            _ => path.clone(),
        },
        NetnsTarget::Device(device) => format!("dev-{device}"),
    }
}
