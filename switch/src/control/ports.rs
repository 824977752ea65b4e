//! Endpoints as ports: made, moved, closed, shown.

use std::net::IpAddr;

use dataplane::{Capabilities, Command, Guard, Identity, PortChange, PortConfig, Reservation, StormLimit, VlanMode};
use ipnetwork::IpNetwork;
use netns_setup::{
    Netns, PortFd,
    attach::{self, EndpointSpec, Kind},
    link::Links,
};
use packet::{Mac, PortId, UnicastMac, VlanId};
use serde_json::json;
use weft_control::{
    Code, ControlError, Endpoint, EndpointKind, Model, NetnsTarget, Result, Sandbox, Storm, Vlan,
    api::{EndpointCreate, PortMove, PortPatch},
    port_name,
};

use super::{
    publishing::autoconfigured,
    runtime::{Inner, new_id, target_name, unavailable},
};
use crate::{io::PortDevice, uplink::UplinkCommand};

impl Inner {
    /// Opens the namespace of a target; `None` for a device, which has none of its own.
    pub(crate) fn open_target(&self, target: &NetnsTarget) -> Result<Option<Netns>> {
        let opened = match target {
            NetnsTarget::New => return Err(unavailable("a new namespace is made, not opened")),
            NetnsTarget::Device(_) => return Ok(None),
            NetnsTarget::Host => Netns::current(),
            NetnsTarget::Name(name) => self.names.open(name),
            NetnsTarget::Pid(pid) => Netns::open_pid(*pid),
            NetnsTarget::Path(path) => Netns::open_path(path),
        };
        opened.map(Some).map_err(|error| {
            ControlError::new(Code::NotFound, target_name(target), error.to_string()).hint("want a sandbox, an `ip netns` name, a process id or a path")
        })
    }

    /// Opens the namespace of a sandbox that exists.
    pub(crate) fn open_sandbox(&self, sandbox: &Sandbox) -> Result<Option<Netns>> {
        if sandbox.is_ours() {
            return Netns::open_path(self.dirs.pins().join(&sandbox.id)).map(Some).map_err(unavailable);
        }
        self.open_target(&sandbox.netns)
    }

    pub(crate) fn switch_side(&mut self) -> Result<Netns> {
        if self.switch_side.is_none() {
            let pin = self.dirs.switch_pin();
            let netns = Netns::open_path(&pin).or_else(|_| {
                drop(std::fs::remove_file(&pin));
                Netns::create_pinned(&pin)
            });
            self.switch_side = Some(netns.map_err(unavailable)?);
        }
        Netns::open_path(self.dirs.switch_pin()).map_err(unavailable)
    }

    /// Chooses, makes and plugs in an endpoint; `model` is changed, nothing is saved.
    pub(crate) fn add_endpoint(&mut self, model: &mut Model, sandbox_id: &str, request: &EndpointCreate, netns: Option<&Netns>) -> Result<Endpoint> {
        let endpoint = self.claim_endpoint(model, sandbox_id, request)?;
        let sandbox = model.sandbox(sandbox_id)?.clone();
        let gso_most = model.network(&endpoint.network).ok().and_then(|network| network.overlay.as_ref()).map(|overlay| overlay.gso_most(endpoint.mtu));
        let device = self.make_device(&endpoint, gso_most, netns).inspect_err(|_| self.release_endpoint(&endpoint))?;
        let result = self.plug(&sandbox, &endpoint, device);
        if let Err(error) = result {
            self.delete_device(&endpoint, netns);
            self.release_endpoint(&endpoint);
            return Err(error);
        }
        Ok(endpoint)
    }

    fn make_device(&mut self, endpoint: &Endpoint, gso_most: Option<u32>, netns: Option<&Netns>) -> Result<PortFd> {
        let (kind, Some(netns)) = (endpoint.kind, netns) else {
            let host = Netns::current().map_err(unavailable)?;
            return attach::open_device(&host, &endpoint.ifname).map_err(unavailable);
        };
        let side = self.switch_side()?;
        let spec = EndpointSpec {
            kind: if kind == EndpointKind::Veth { Kind::Veth } else { Kind::Tap },
            ifname: endpoint.ifname.clone(),
            mac: endpoint.mac.parse::<Mac>().ok().map(|mac| mac.0),
            mtu: endpoint.mtu,
            gso_most,
            addresses: endpoint.addresses.iter().copied().chain(endpoint.link_local.iter().filter_map(|ip| IpNetwork::new(*ip, if ip.is_ipv4() { 16 } else { 64 }).ok())).collect(),
            gateways: endpoint.gateways.clone(),
            neighbours: self.neighbours_of(endpoint),
            persistent: true,
            peer_name: endpoint.peer_name(),
            sysctls: endpoint.sysctls.iter().filter_map(|word| weft_control::sysctl::file(word, &endpoint.ifname)).collect(),
        };
        // A device of that name would be taken over instead of made.
        if let Ok(index) = netns.run(|| Links::open()?.index_of(&endpoint.ifname)) {
            return Err(ControlError::new(Code::Exists, &endpoint.ifname, format!("an interface {} (index {index}) exists there already", endpoint.ifname)).hint("choose another with --ifname"));
        }
        attach::attach(netns, &side, &spec).map_err(unavailable)
    }

    /// Gives the device to the data plane.
    pub(crate) fn plug(&mut self, sandbox: &Sandbox, endpoint: &Endpoint, device: PortFd) -> Result<()> {
        let Some(&bridge) = self.bridges.get(&endpoint.network) else { return Err(unavailable("the network has no bridge")) };
        let (device, capabilities) = port_device(device);
        let mut config = PortConfig::new(bridge, port_name(sandbox, endpoint));
        config.mtu = endpoint.mtu;
        config.capabilities = capabilities;
        config.isolated = endpoint.isolated;
        config.horizon = endpoint.horizon;
        config.vlan = endpoint.vlan.as_ref().map_or(VlanMode::PassThrough, vlan_mode);
        config.guard = self.guard_of(endpoint);
        config.identity = self.identity_of(endpoint);
        config.storm = endpoint.storm.map(storm_limit);
        config.up = endpoint.up;
        self.reserve(sandbox, endpoint);
        let port = self.dataplane.add_port(config, device).map_err(|error| {
            self.unreserve(endpoint);
            unavailable(error)
        })?;
        self.ports.insert(endpoint.id.clone(), port);
        self.tell_mtu(endpoint, Some(endpoint.mtu));
        if let Some(mac) = station(endpoint).filter(|_| self.model.is_global(&endpoint.network)) {
            // It may have been elsewhere until now, under another address.
            for address in &endpoint.addresses {
                self.dataplane.apply(Command::Announce { port, mac, ip: address.ip() }).ok();
            }
        }
        self.event("port attach", json!({ "port": port_name(sandbox, endpoint) }));
        Ok(())
    }

    /// DHCP gives a station that we know the address that it has.
    pub(super) fn reserve(&self, sandbox: &Sandbox, endpoint: &Endpoint) {
        let ip = endpoint.addresses.iter().find_map(|address| if let IpNetwork::V4(v4) = address { Some(v4.ip()) } else { None });
        if let (Some(&network), Some(mac), Some(ip)) = (self.bridges.get(&endpoint.network), station(endpoint), ip) {
            let reservation = Reservation { ip, host_name: Some(sandbox.hostname.clone().unwrap_or_else(|| sandbox.name.clone())) };
            self.dataplane.apply(Command::SetReservation { network, mac, reservation }).ok();
        }
    }

    /// The uplink fits packets to a port that takes less than its network; without `mtu` it is gone.
    fn tell_mtu(&self, endpoint: &Endpoint, mtu: Option<u32>) {
        let (Some(&bridge), Some(network)) = (self.bridges.get(&endpoint.network), self.model.networks.get(&endpoint.network)) else { return };
        let mtu = mtu.filter(|mtu| *mtu < network.mtu).and_then(|mtu| u16::try_from(mtu).ok());
        for address in &endpoint.addresses {
            drop(self.dataplane.uplink(UplinkCommand::SetInsideMtu(bridge, address.ip(), mtu)));
        }
    }

    fn unreserve(&self, endpoint: &Endpoint) {
        if let (Some(&network), Some(mac)) = (self.bridges.get(&endpoint.network), station(endpoint)) {
            self.dataplane.apply(Command::RemoveReservation { network, mac }).ok();
        }
    }

    /// The addresses that an endpoint was given, and the one that the network's advertisements make it
    /// give itself.
    fn identity_of(&self, endpoint: &Endpoint) -> Identity {
        let mac = station(endpoint);
        let own = self.model.networks.get(&endpoint.network).zip(mac).and_then(|(network, mac)| autoconfigured(network, mac));
        Identity { mac, ips: endpoint.addresses.iter().map(IpNetwork::ip).chain(endpoint.link_local.iter().copied()).chain(own.map(IpAddr::V6)).collect() }
    }

    /// A guarded port speaks for its identity alone; on a LAN, whose routers and servers give addresses too, for its MAC.
    fn guard_of(&self, endpoint: &Endpoint) -> Option<Guard> {
        let Identity { mac, ips } = self.identity_of(endpoint);
        let is_lan = self.model.networks.get(&endpoint.network).is_some_and(|network| network.lan.is_some());
        endpoint.guard.then(|| Guard { macs: mac.into_iter().collect(), ips: if is_lan { Vec::new() } else { ips }, no_router: !is_lan })
    }

    /// Whom an endpoint reaches on its link though no subnet says so: who answers for names on a LAN.
    fn neighbours_of(&self, endpoint: &Endpoint) -> Vec<IpAddr> {
        self.model.networks.get(&endpoint.network).filter(|network| network.lan.is_some()).map(weft_control::Network::resolvers).unwrap_or_default()
    }

    /// Unplugs an endpoint and removes its device.
    pub(crate) fn close_endpoint(&mut self, sandbox: Option<&Sandbox>, endpoint: &Endpoint, netns: Option<&Netns>) {
        if let Some(port) = self.ports.remove(&endpoint.id) {
            self.dataplane.remove_port(port).ok();
            self.unreserve(endpoint);
            self.tell_mtu(endpoint, None);
        }
        self.end_flows_of(endpoint);
        self.delete_device(endpoint, netns);
        self.release_endpoint(endpoint);
        if let Some(sandbox) = sandbox {
            self.event("port detach", json!({ "port": port_name(sandbox, endpoint) }));
        }
    }

    /// Default routes of a sandbox that go another way than before.
    pub(crate) fn reroute(&self, before: &Sandbox, netns: Option<&Netns>) {
        let (Ok(now), Some(netns)) = (self.model.sandbox(&before.id), netns) else { return };
        for endpoint in &now.endpoints {
            let had = before.endpoints.iter().find(|other| other.id == endpoint.id).map_or(&[][..], |other| &other.gateways);
            let new: Vec<IpAddr> = endpoint.gateways.iter().filter(|gateway| !had.contains(gateway)).copied().collect();
            if !new.is_empty() && let Err(error) = attach::set_gateways(netns, &endpoint.ifname, &new) {
                tracing::warn!(sandbox = now.name, interface = endpoint.ifname, %error, "no default route");
            }
        }
    }

    /// Ends what a sandbox has open to the outside.
    pub(crate) fn end_flows(&self, sandbox: &Sandbox) {
        sandbox.endpoints.iter().for_each(|endpoint| self.end_flows_of(endpoint));
    }

    fn end_flows_of(&self, endpoint: &Endpoint) {
        if let Some(&bridge) = self.bridges.get(&endpoint.network) {
            for address in &endpoint.addresses {
                drop(self.dataplane.uplink(UplinkCommand::RemoveInside(bridge, address.ip())));
            }
        }
    }

    fn delete_device(&mut self, endpoint: &Endpoint, netns: Option<&Netns>) {
        match (endpoint.kind, netns) {
            (EndpointKind::Device, _) => {}
            (EndpointKind::Veth, _) => {
                // By our own end, which nobody can have renamed.
                if let Ok(side) = self.switch_side() {
                    drop(attach::delete(&side, &endpoint.peer_name()));
                }
            }
            (EndpointKind::Tap, Some(netns)) => drop(attach::delete(netns, &endpoint.ifname)),
            (EndpointKind::Tap, None) => {}
        }
        self.drop_switch_side_if_unused();
    }

    /// Our namespace goes with the last endpoint.
    pub(crate) fn drop_switch_side_if_unused(&mut self) {
        let used = self.model.sandboxes.values().flat_map(|sandbox| &sandbox.endpoints).any(|endpoint| endpoint.kind != EndpointKind::Device);
        if !used && self.switch_side.take().is_some() {
            drop(Netns::unpin(self.dirs.switch_pin()));
        }
    }

    // ---- changes of ports ----

    /// Changes a port: checked whole, then done, then saved.
    pub(crate) fn patch_port(&mut self, name: &str, patch: &PortPatch) -> Result<()> {
        self.check_is_not_the_uplink(name)?;
        let (sandbox, endpoint) = self.model.port(name)?;
        let (sandbox_id, mut endpoint) = (sandbox.id.clone(), endpoint.clone());
        let port = self.port_id(&endpoint)?;
        for change in patched(&mut endpoint, patch, |endpoint| self.guard_of(endpoint))? {
            if let PortChange::Mtu(mtu) = change
                && let Some(netns) = self.open_sandbox(self.model.sandbox(&sandbox_id)?)?
            {
                netns.run(|| Links::open()?.set_mtu(&endpoint.ifname, mtu)).map_err(unavailable)?;
            }
            if let PortChange::Up(up) = change {
                self.set_carrier(&endpoint, port, up)?;
            }
            if let PortChange::Mtu(mtu) = change {
                self.tell_mtu(&endpoint, Some(mtu));
            }
            self.set_port(port, change)?;
        }
        let mut model = self.model.clone();
        let stored = model.sandboxes.get_mut(&sandbox_id).and_then(|sandbox| sandbox.endpoints.iter_mut().find(|other| other.id == endpoint.id));
        if let Some(stored) = stored {
            *stored = endpoint;
        }
        self.commit(model)
    }

    fn set_carrier(&mut self, endpoint: &Endpoint, port: PortId, up: bool) -> Result<()> {
        match endpoint.kind {
            EndpointKind::Tap => self.dataplane.set_carrier(port, up).map_err(unavailable),
            EndpointKind::Veth => {
                let peer = endpoint.peer_name();
                self.switch_side()?.run(|| Links::open()?.set_up(&peer, up)).map_err(unavailable)
            }
            EndpointKind::Device => Ok(()),
        }
    }

    pub(super) fn set_port(&self, port: PortId, change: PortChange) -> Result<()> {
        self.dataplane.apply(Command::SetPort(port, change)).map(drop).map_err(unavailable)
    }

    /// The data plane's names of a sandbox's ports follow the sandbox's.
    pub(crate) fn rename_ports(&self, sandbox: &Sandbox) {
        for endpoint in &sandbox.endpoints {
            if let Ok(port) = self.port_id(endpoint) {
                drop(self.set_port(port, PortChange::Name(port_name(sandbox, endpoint))));
            }
            self.reserve(sandbox, endpoint);
        }
    }

    /// Moves the device behind a port to another namespace: the port, and what was learned, stay.
    pub(crate) fn move_port(&mut self, name: &str, request: &PortMove) -> Result<Sandbox> {
        self.check_is_not_the_uplink(name)?;
        let (sandbox, endpoint) = self.model.port(name)?;
        let (sandbox, endpoint) = (sandbox.clone(), endpoint.clone());
        if endpoint.kind == EndpointKind::Device {
            return Err(ControlError::new(Code::Invalid, name, "a device of the host is moved with `ip link set DEV netns NS`"));
        }
        let target = match &request.target {
            NetnsTarget::Name(other) if self.model.sandbox(other).is_ok_and(|other| other.is_ours()) => {
                NetnsTarget::Path(self.dirs.pins().join(&self.model.sandbox(other)?.id).to_string_lossy().into_owned())
            }
            other => other.clone(),
        };
        let from = self.open_sandbox(&sandbox)?.ok_or_else(|| unavailable("no namespace"))?;
        let to = self.open_target(&target)?.ok_or_else(|| ControlError::new(Code::Invalid, name, "a device is no place to move a port to"))?;
        let ifname = request.ifname.clone().unwrap_or_else(|| endpoint.ifname.clone());
        let mut model = self.model.clone();
        model.remove_endpoint(&sandbox.id, &endpoint.id);
        if !sandbox.is_ours() && sandbox.endpoints.len() == 1 {
            model.sandboxes.remove(&sandbox.id);
        }
        let to_name = match &request.target {
            NetnsTarget::Name(other) => other.clone(),
            other => target_name(other),
        };
        let to_id = match model.sandboxes.values().find(|other| other.name == to_name) {
            Some(existing) => existing.id.clone(),
            None => {
                let create = weft_control::api::SandboxCreate {
                    name: Some(to_name),
                    netns: target,
                    ..weft_control::api::SandboxCreate::default()
                };
                model.create_sandbox(&create, new_id()?)?
            }
        };
        let identity = to.identity().ok();
        let moved = Endpoint { ifname: ifname.clone(), ..endpoint.clone() };
        let destination = model.sandboxes.get_mut(&to_id).ok_or_else(|| unavailable("the target is gone"))?;
        if destination.endpoints.iter().any(|other| other.ifname == ifname) {
            return Err(ControlError::new(Code::Exists, &ifname, format!("{} already has an interface {ifname}", destination.name)).hint("give --ifname"));
        }
        destination.identity = identity;
        destination.endpoints.push(moved.clone());
        let neighbours = self.neighbours_of(&endpoint);
        attach::move_endpoint(&from, &to, &endpoint.ifname, &ifname, &neighbours, &endpoint.gateways).map_err(unavailable)?;
        if let Err(error) = self.commit(model) {
            drop(attach::move_endpoint(&to, &from, &ifname, &endpoint.ifname, &neighbours, &endpoint.gateways));
            return Err(error);
        }
        self.follow_endpoints(&sandbox);
        let destination = self.model.sandbox(&to_id)?.clone();
        self.reroute(&sandbox, Some(&from));
        let port = self.port_id(&moved)?;
        self.set_port(port, PortChange::Name(port_name(&destination, &moved)))?;
        self.reserve(&destination, &moved);
        self.event("port move", json!({ "from": name, "port": port_name(&destination, &moved) }));
        Ok(destination)
    }

    /// The device behind a port is gone. If its namespace is gone too, so is the sandbox.
    pub(crate) fn device_gone(&mut self, port: PortId) {
        if self.uplink.as_ref().and_then(|uplink| uplink.open).is_some_and(|device| device.port == port) {
            return self.uplink_gone();
        }
        if let Some(network) = self.network_behind(port) {
            return self.parent_gone(&network);
        }
        let Some(endpoint_id) = self.ports.iter().find(|(_, id)| **id == port).map(|(endpoint, _)| endpoint.clone()) else { return };
        let found = self.model.sandboxes.values().find(|sandbox| sandbox.endpoints.iter().any(|endpoint| endpoint.id == endpoint_id)).cloned();
        let Some(sandbox) = found else { return };
        let Some(endpoint) = sandbox.endpoints.iter().find(|endpoint| endpoint.id == endpoint_id).cloned() else { return };
        self.drop_endpoint(&sandbox, &endpoint, None);
    }

    /// Takes an endpoint away that cannot stay.
    pub(super) fn drop_endpoint(&mut self, sandbox: &Sandbox, endpoint: &Endpoint, netns: Option<&Netns>) {
        let mut model = self.model.clone();
        model.remove_endpoint(&sandbox.id, &endpoint.id);
        if !sandbox.is_ours() && sandbox.endpoints.len() == 1 {
            model.sandboxes.remove(&sandbox.id);
        }
        if let Err(error) = self.commit(model) {
            tracing::error!(%error, "cannot note that an endpoint is gone");
        }
        let open = match netns {
            Some(_) => None,
            None => self.open_sandbox(sandbox).ok().flatten(),
        };
        self.close_endpoint(Some(sandbox), endpoint, netns);
        self.reroute(sandbox, netns.or(open.as_ref()));
        self.follow_endpoints(sandbox);
    }

    pub(super) fn port_id(&self, endpoint: &Endpoint) -> Result<PortId> {
        self.ports.get(&endpoint.id).copied().ok_or_else(|| unavailable("the port's device is gone"))
    }
}

/// The loop's form of a descriptor, and what it can take.
pub(crate) fn port_device(device: PortFd) -> (PortDevice, Capabilities) {
    match device {
        PortFd::Tap(fd, features) => {
            let capabilities = Capabilities { checksum: features.tso, tso4: features.tso, tso6: features.tso, uso: features.uso };
            (PortDevice::Tap { fd, vnet_hdr: features.vnet_hdr }, capabilities)
        }
        PortFd::Packet(fd, features) => {
            let capabilities = if features.vnet_hdr { Capabilities::FULL } else { Capabilities::NONE };
            (PortDevice::Packet { fd, vnet_hdr: features.vnet_hdr }, capabilities)
        }
    }
}

fn vlan_mode(vlan: &Vlan) -> VlanMode {
    match vlan {
        Vlan::Access(id) => VlanId::new(*id).map_or(VlanMode::PassThrough, VlanMode::Access),
        Vlan::Trunk { allowed, native } => {
            VlanMode::Trunk { allowed: allowed.iter().filter_map(|id| VlanId::new(*id)).collect(), native: native.and_then(VlanId::new) }
        }
    }
}

/// Applies a request to an endpoint: what the data plane is to be told.
fn patched(endpoint: &mut Endpoint, patch: &PortPatch, guard_of: impl Fn(&Endpoint) -> Option<Guard>) -> Result<Vec<PortChange>> {
    let mut changes = Vec::new();
    if let Some(mtu) = patch.mtu {
        if !(68..=65_521).contains(&mtu) {
            return Err(ControlError::new(Code::Invalid, mtu.to_string(), format!("MTU {mtu} is outside 68 to 65521")));
        }
        endpoint.mtu = mtu;
        changes.push(PortChange::Mtu(mtu));
    }
    if let Some(isolated) = patch.isolated {
        endpoint.isolated = isolated;
        changes.push(PortChange::Isolated(isolated));
    }
    if let Some(vlan) = &patch.vlan {
        if let Some(vlan) = vlan {
            vlan.check()?;
        }
        endpoint.vlan.clone_from(vlan);
        changes.push(PortChange::Vlan(vlan.as_ref().map_or(VlanMode::PassThrough, vlan_mode)));
    }
    if let Some(horizon) = patch.horizon {
        endpoint.horizon = horizon;
        changes.push(PortChange::Horizon(horizon));
    }
    if let Some(guard) = patch.guard {
        endpoint.guard = guard;
        changes.push(PortChange::Guard(guard_of(endpoint)));
    }
    if let Some(storm) = patch.storm {
        endpoint.storm = storm;
        changes.push(PortChange::Storm(storm.map(storm_limit)));
    }
    if let Some(up) = patch.up {
        endpoint.up = up;
        changes.push(PortChange::Up(up));
    }
    Ok(changes)
}

fn station(endpoint: &Endpoint) -> Option<UnicastMac> {
    endpoint.mac.parse().ok().and_then(UnicastMac::new)
}

pub(super) fn storm_limit(storm: Storm) -> StormLimit {
    StormLimit { frames_per_second: storm.frames_per_second, burst: storm.burst.unwrap_or(storm.frames_per_second) }
}
