//! Changing networks while they are used: members' interfaces, the gateway and the uplink follow the model.

use dataplane::{Command, PortChange};
use netns_setup::link::Links;
use serde_json::{Value, json};
use weft_control::{
    Code, ControlError, EndpointKind, Model, Result,
    api::NetworkCreate,
    config::{DEFAULT_NETWORK, DefaultNetwork},
    edit::{MemberEdit, NetworkEdit},
};

use super::{
    ports::storm_limit,
    runtime::{Inner, bridge_config, unavailable},
};

impl Inner {
    /// What a patch of a network means; with `dry` nothing is done.
    pub(crate) fn patch_network(&mut self, reference: &str, patch: &Value, dry: bool) -> Result<Value> {
        let request = self.model.network(reference)?.patched(patch)?;
        let edit = if dry { self.plan_edit(&mut self.model.clone(), reference, &request)? } else { self.edit_network(reference, &request)? };
        Ok(json!({ "network": edit.after, "changes": edit.differences() }))
    }

    /// Makes a network what `request` says, live.
    pub(crate) fn edit_network(&mut self, reference: &str, request: &NetworkCreate) -> Result<NetworkEdit> {
        let mut model = self.model.clone();
        let edit = self.plan_edit(&mut model, reference, request)?;
        if model == self.model {
            return Ok(edit);
        }
        if let Err(error) = self.carry_out_edit(&edit).and_then(|()| self.commit(model)) {
            if let Err(undone) = self.carry_out_edit(&edit.clone().reversed()) {
                tracing::error!(network = edit.before.name, error = %undone, "a change that failed could not be undone whole");
            }
            return Err(error);
        }
        self.event("network edit", json!({ "network": edit.after.name, "id": edit.after.id, "changes": edit.differences() }));
        Ok(edit)
    }

    /// What `request` makes of a network in `model`, as far as this host allows.
    fn plan_edit(&self, model: &mut Model, reference: &str, request: &NetworkCreate) -> Result<NetworkEdit> {
        let moves = model.network(reference)?.lan.as_ref().is_some_and(|lan| lan.parent != request.parent);
        let edit = match moves {
            true => model.edit_network(reference, &self.on_parent(request.clone()))?,
            false => model.edit_network(reference, request)?,
        };
        self.check_against_uplink(&edit.after)?;
        if moves {
            edit.after.parent().map_or(Ok(()), super::lan::check_parent)?;
        }
        self.check_mtu_of_parent(&edit.after)?;
        Ok(edit)
    }

    fn carry_out_edit(&mut self, edit: &NetworkEdit) -> Result<()> {
        let NetworkEdit { before, after, members } = edit;
        if members.is_empty() {
            // Nobody sees it: made anew.
            self.drop_bridge(&before.id);
            let bridge = self.add_bridge(after)?;
            return self.open_wires(after, bridge);
        }
        let bridge = *self.bridges.get(&after.id).ok_or_else(|| unavailable("the network has no bridge"))?;
        self.dataplane.apply(Command::SetBridge(bridge, bridge_config(after))).map_err(unavailable)?;
        if after.overlay.is_some() && (before.mtu, before.ageing_s) != (after.mtu, after.ageing_s) {
            // What it learned it learns again.
            self.close_tunnel(&after.id);
            self.open_tunnel(after, bridge)?;
        }
        let served = |network: &weft_control::Network| {
            let pools: Vec<_> = network.pools.iter().map(|pool| (pool.subnet, pool.gateway)).collect();
            (pools, network.own_addresses.clone(), network.mtu, network.masquerade, network.nat, network.nat_source.clone(), network.nat_prefix)
        };
        if served(before) != served(after) {
            // It starts without resolvers: the next commit tells it of them.
            self.resolving.forget(bridge);
            self.serve_network(after, bridge)?;
        }
        members.iter().try_for_each(|member| self.change_member(member))
    }

    /// Brings a member's interface and port to what they are to be.
    fn change_member(&mut self, member: &MemberEdit) -> Result<()> {
        let MemberEdit { sandbox, before, after } = member;
        let sandbox = self.model.sandbox(sandbox)?.clone();
        if before != after && after.kind != EndpointKind::Device
            && let Some(netns) = self.open_sandbox(&sandbox)?
        {
            netns.run(|| {
                let mut links = Links::open()?;
                let name = &after.ifname;
                if before.mtu != after.mtu {
                    links.set_mtu(name, after.mtu)?;
                }
                for (old, new) in before.addresses.iter().zip(&after.addresses).filter(|(old, new)| old != new) {
                    // An IPv6 address is on an interface once, whatever its prefix.
                    if old.is_ipv6() {
                        links.delete_address(name, *old)?;
                        links.add_address(name, *new)?;
                    } else {
                        links.add_address(name, *new)?;
                        links.delete_address(name, *old)?;
                    }
                }
                if before.gateways != after.gateways || before.addresses != after.addresses {
                    for gateway in &after.gateways {
                        links.add_route(name, netns_setup::attach::default_route(*gateway), *gateway)?;
                    }
                }
                Ok(())
            })
            .map_err(|error| ControlError::new(Code::Unavailable, &sandbox.name, format!("{}: {error}", sandbox.name)))?;
        }
        let port = self.port_id(after)?;
        let changes = [
            (before.mtu != after.mtu).then_some(PortChange::Mtu(after.mtu)),
            (before.isolated != after.isolated).then_some(PortChange::Isolated(after.isolated)),
            (before.storm != after.storm).then(|| PortChange::Storm(after.storm.map(storm_limit))),
        ];
        changes.into_iter().flatten().try_for_each(|change| self.set_port(port, change))?;
        self.reserve(&sandbox, after);
        Ok(())
    }

    /// Makes the default network what the daemon's file says.
    pub(super) fn set_default_network(&mut self, wanted: &DefaultNetwork) -> Result<()> {
        if !wanted.is_none() {
            return self.edit_network(DEFAULT_NETWORK, &wanted.request()?).map(drop);
        }
        if self.model.network(DEFAULT_NETWORK).is_ok() { self.remove_default_network() } else { Ok(()) }
    }

    /// Docker has no default network with `"bridge": "none"`.
    pub(super) fn remove_default_network(&mut self) -> Result<()> {
        let network = self.model.network(DEFAULT_NETWORK)?.clone();
        if let Some((sandbox, _)) = self.model.members(&network.id).next() {
            return Err(ControlError::new(Code::Conflict, "bridge", format!("bridge: \"none\", but {} is in the default network", sandbox.name)).hint("start without that key, and disconnect it"));
        }
        let mut model = self.model.clone();
        model.networks.remove(&network.id);
        model.drop_routes(&network.id);
        self.commit(model)?;
        self.drop_bridge(&network.id);
        Ok(())
    }
}
