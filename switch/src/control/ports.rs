//! Endpoints as ports: made, moved, closed, shown.

use std::collections::BTreeMap;

use dataplane::{Capabilities, Command, DropCounters, Guard, PortChange, PortConfig, PortView, Reply, VlanMode};
use ipnetwork::IpNetwork;
use netns_setup::{
    Netns, PortFd,
    attach::{self, EndpointSpec, Kind},
    link::Links,
};
use packet::{Mac, PortId, UnicastMac, VlanId};
use serde_json::json;
use weft_control::{
    Code, ControlError, Endpoint, EndpointKind, Model, NetnsTarget, Result, Sandbox, Vlan,
    api::{BridgeInfo, EndpointCreate, FdbEdit, FdbEntry, PortInfo, PortMove, PortPatch, Stats},
    port_name,
};

use super::runtime::{Inner, new_id, target_name, unavailable};
use crate::io::PortDevice;

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
        let endpoint = model.create_endpoint(sandbox_id, request, new_id()?, self.default_kind)?;
        let sandbox = model.sandbox(sandbox_id)?.clone();
        let device = self.make_device(&endpoint, netns)?;
        let result = self.plug(&sandbox, &endpoint, device);
        if let Err(error) = result {
            self.delete_device(&endpoint, netns);
            return Err(error);
        }
        Ok(endpoint)
    }

    fn make_device(&mut self, endpoint: &Endpoint, netns: Option<&Netns>) -> Result<PortFd> {
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
            addresses: endpoint.addresses.clone(),
            gateways: endpoint.gateways.clone(),
            persistent: true,
            peer_name: endpoint.peer_name(),
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
        config.guard = endpoint.guard.then(|| Guard {
            macs: endpoint.mac.parse().ok().and_then(UnicastMac::new).into_iter().collect(),
            ips: endpoint.addresses.iter().map(IpNetwork::ip).collect(),
            no_router: true,
        });
        let port = self.dataplane.add_port(config, device).map_err(unavailable)?;
        self.ports.insert(endpoint.id.clone(), port);
        self.event("port attach", json!({ "port": port_name(sandbox, endpoint) }));
        Ok(())
    }

    /// Unplugs an endpoint and removes its device.
    pub(crate) fn close_endpoint(&mut self, sandbox: Option<&Sandbox>, endpoint: &Endpoint, netns: Option<&Netns>) {
        if let Some(port) = self.ports.remove(&endpoint.id) {
            self.dataplane.remove_port(port).ok();
        }
        self.delete_device(endpoint, netns);
        if let Some(sandbox) = sandbox {
            self.event("port detach", json!({ "port": port_name(sandbox, endpoint) }));
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

    pub(crate) fn patch_port(&mut self, name: &str, patch: &PortPatch) -> Result<()> {
        let (sandbox, endpoint) = self.model.port(name)?;
        let (sandbox_id, endpoint) = (sandbox.id.clone(), endpoint.clone());
        let port = self.port_id(&endpoint)?;
        let mut model = self.model.clone();
        let stored = model.sandboxes.get_mut(&sandbox_id).and_then(|sandbox| sandbox.endpoints.iter_mut().find(|other| other.id == endpoint.id));
        if let (Some(mtu), Some(stored)) = (patch.mtu, stored) {
            if !(68..=65_521).contains(&mtu) {
                return Err(ControlError::new(Code::Invalid, mtu.to_string(), format!("MTU {mtu} is outside 68 to 65521")));
            }
            stored.mtu = mtu;
            if let Some(netns) = self.open_sandbox(self.model.sandbox(&sandbox_id)?)? {
                netns.run(|| Links::open()?.set_mtu(&endpoint.ifname, mtu)).map_err(unavailable)?;
            }
            self.set_port(port, PortChange::Mtu(mtu))?;
        }
        if let Some(isolated) = patch.isolated {
            if let Some(stored) = model.sandboxes.get_mut(&sandbox_id).and_then(|sandbox| sandbox.endpoints.iter_mut().find(|other| other.id == endpoint.id)) {
                stored.isolated = isolated;
            }
            self.set_port(port, PortChange::Isolated(isolated))?;
        }
        if let Some(up) = patch.up {
            self.set_port(port, PortChange::Up(up))?;
            self.set_carrier(&endpoint, port, up)?;
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

    fn set_port(&self, port: PortId, change: PortChange) -> Result<()> {
        self.dataplane.apply(Command::SetPort(port, change)).map(drop).map_err(unavailable)
    }

    /// Moves the device behind a port to another namespace: the port, and what was learned, stay.
    pub(crate) fn move_port(&mut self, name: &str, request: &PortMove) -> Result<Sandbox> {
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
                    endpoints: Vec::new(),
                    command: Vec::new(),
                    env: BTreeMap::new(),
                    hostname: None,
                    auto_remove: false,
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
        attach::move_endpoint(&from, &to, &endpoint.ifname, &ifname, &endpoint.gateways).map_err(unavailable)?;
        if let Err(error) = self.commit(model) {
            drop(attach::move_endpoint(&to, &from, &ifname, &endpoint.ifname, &endpoint.gateways));
            return Err(error);
        }
        let destination = self.model.sandbox(&to_id)?.clone();
        let port = self.port_id(&moved)?;
        self.set_port(port, PortChange::Name(port_name(&destination, &moved)))?;
        self.event("port move", json!({ "from": name, "port": port_name(&destination, &moved) }));
        Ok(destination)
    }

    /// The device behind a port is gone. If its namespace is gone too, so is the sandbox.
    pub(crate) fn device_gone(&mut self, port: PortId) {
        let Some(endpoint_id) = self.ports.iter().find(|(_, id)| **id == port).map(|(endpoint, _)| endpoint.clone()) else { return };
        let found = self.model.sandboxes.values().find(|sandbox| sandbox.endpoints.iter().any(|endpoint| endpoint.id == endpoint_id)).cloned();
        let Some(sandbox) = found else { return };
        let Some(endpoint) = sandbox.endpoints.iter().find(|endpoint| endpoint.id == endpoint_id).cloned() else { return };
        let mut model = self.model.clone();
        model.remove_endpoint(&sandbox.id, &endpoint.id);
        if !sandbox.is_ours() && sandbox.endpoints.len() == 1 {
            model.sandboxes.remove(&sandbox.id);
        }
        if let Err(error) = self.commit(model) {
            tracing::error!(%error, "cannot note that a device is gone");
        }
        self.close_endpoint(Some(&sandbox), &endpoint, None);
    }

    fn port_id(&self, endpoint: &Endpoint) -> Result<PortId> {
        self.ports.get(&endpoint.id).copied().ok_or_else(|| unavailable("the port's device is gone"))
    }

    // ---- FDB ----

    pub(crate) fn edit_fdb(&self, edit: &FdbEdit, add: bool) -> Result<()> {
        let network = self.model.network(&edit.network)?;
        let bridge = *self.bridges.get(&network.id).ok_or_else(|| unavailable("the network has no bridge"))?;
        let mac: Mac = edit.mac.parse().map_err(|error| ControlError::new(Code::Invalid, &edit.mac, format!("{}: {error}", edit.mac)))?;
        let mac = UnicastMac::new(mac).ok_or_else(|| ControlError::new(Code::Invalid, &edit.mac, format!("{mac} is a multicast address (or zero): the FDB holds stations")))?;
        let vlan = match edit.vlan {
            Some(id) => Some(VlanId::new(id).ok_or_else(|| ControlError::new(Code::Invalid, id.to_string(), format!("VLAN {id} is outside 1 to 4094")))?),
            None => None,
        };
        let command = if add {
            let name = edit.port.as_deref().unwrap_or_default();
            let (_, endpoint) = self.model.port(name)?;
            if endpoint.network != network.id {
                return Err(ControlError::new(Code::Invalid, name, format!("port {name} is not in network {}", network.name)));
            }
            Command::AddFdb { network: bridge, mac, vlan, port: self.port_id(endpoint)? }
        } else {
            Command::RemoveFdb { network: bridge, mac, vlan }
        };
        self.dataplane.apply(command).map(drop).map_err(|error| ControlError::new(Code::NotFound, edit.mac.clone(), error.to_string()))
    }

    pub(crate) fn fdb(&self, network: Option<&str>) -> Result<Vec<FdbEntry>> {
        let networks: Vec<_> = match network {
            Some(reference) => vec![self.model.network(reference)?],
            None => self.model.networks.values().collect(),
        };
        let names = self.names_by_port();
        let mut entries = Vec::new();
        for network in networks {
            let Some(&bridge) = self.bridges.get(&network.id) else { continue };
            let Reply::Fdb(views) = self.dataplane.apply(Command::ShowFdb(bridge)).map_err(unavailable)? else { continue };
            entries.extend(views.into_iter().map(|view| FdbEntry {
                mac: view.mac.to_string(),
                ifname: names.get(&view.port).cloned().unwrap_or_default(),
                vlan: view.vlan.map(VlanId::get),
                flags: Vec::new(),
                master: network.name.clone(),
                state: if view.kind == dataplane::FdbKind::Static { "permanent".into() } else { String::new() },
                used: view.idle.as_secs(),
            }));
        }
        Ok(entries)
    }

    // ---- views ----

    fn names_by_port(&self) -> BTreeMap<PortId, String> {
        let all = self.model.sandboxes.values().flat_map(|sandbox| sandbox.endpoints.iter().map(move |endpoint| (sandbox, endpoint)));
        all.filter_map(|(sandbox, endpoint)| Some((*self.ports.get(&endpoint.id)?, port_name(sandbox, endpoint)))).collect()
    }

    pub(crate) fn port_infos(&self) -> Result<Vec<PortInfo>> {
        let Reply::Ports(views) = self.dataplane.apply(Command::ShowPorts(None)).map_err(unavailable)? else { return Ok(Vec::new()) };
        let views: BTreeMap<PortId, PortView> = views.into_iter().map(|view| (view.id, view)).collect();
        let mut infos = Vec::new();
        for sandbox in self.model.sandboxes.values() {
            for endpoint in &sandbox.endpoints {
                if let Some(view) = self.ports.get(&endpoint.id).and_then(|port| views.get(port)) {
                    infos.push(self.port_info(sandbox, endpoint, view));
                }
            }
        }
        infos.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(infos)
    }

    fn port_info(&self, sandbox: &Sandbox, endpoint: &Endpoint, view: &PortView) -> PortInfo {
        PortInfo {
            name: port_name(sandbox, endpoint),
            network: self.model.networks.get(&endpoint.network).map_or_else(String::new, |network| network.name.clone()),
            sandbox: sandbox.name.clone(),
            ifname: endpoint.ifname.clone(),
            kind: endpoint.kind.to_string(),
            up: view.config.up,
            mtu: view.config.mtu,
            mac: endpoint.mac.clone(),
            addresses: endpoint.addresses.clone(),
            isolated: view.config.isolated,
            vlan: endpoint.vlan.clone(),
            rx_frames: view.counters.rx_frames,
            rx_bytes: view.counters.rx_bytes,
            tx_frames: view.counters.tx_frames,
            tx_bytes: view.counters.tx_bytes,
            drops: drops(&view.counters.drops),
        }
    }

    pub(crate) fn bridge_infos(&self) -> Result<Vec<BridgeInfo>> {
        let Reply::Bridges(views) = self.dataplane.apply(Command::ShowBridges).map_err(unavailable)? else { return Ok(Vec::new()) };
        let names = self.names_by_port();
        let infos = self.model.networks.values().filter_map(|network| {
            let bridge = self.bridges.get(&network.id)?;
            let view = views.iter().find(|view| view.id == *bridge)?;
            Some(BridgeInfo {
                name: network.name.clone(),
                id: format!("8000.{}", &network.id[..12]),
                stp: false,
                interfaces: view.ports.iter().filter_map(|port| names.get(port).cloned()).collect(),
                fdb_entries: view.fdb_entries,
            })
        });
        Ok(infos.collect())
    }

    pub(crate) fn stats(&self) -> Result<Stats> {
        match self.dataplane.apply(Command::ShowStats).map_err(unavailable)? {
            Reply::Stats(stats) => Ok(Stats {
                bridges: stats.bridges,
                ports: stats.ports,
                fdb_entries: stats.fdb_entries,
                rx_frames: stats.rx_frames,
                tx_frames: stats.tx_frames,
                drops: drops(&stats.drops),
                buffers: [stats.pool.small_used, stats.pool.large_used],
            }),
            other => Err(unavailable(format!("unexpected answer {other:?}"))),
        }
    }
}

fn drops(counters: &DropCounters) -> BTreeMap<String, u64> {
    counters.iter().map(|(reason, count)| (reason.name().to_owned(), count)).collect()
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
