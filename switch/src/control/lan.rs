//! Ports of lan networks: a packet socket on a device of the host, for as long as there is one of that name. The host
//! keeps the device as it is, but for promiscuous mode, which ends with the socket.

use std::collections::BTreeMap;

use dataplane::{PortConfig, VlanMode};
use ipnetwork::IpNetwork;
use netns_setup::{
    Netns,
    attach,
    link::{LinkView, Links},
};
use packet::{NetworkId, PortId, VlanId};
use weft_control::{
    Code, ControlError, Network, Result,
    api::NetworkCreate,
    lan::{DRIVERS, vlan_of},
};

use super::{
    ports::port_device,
    runtime::{Inner, unavailable},
};

/// The devices of lan networks, by network id.
pub(super) type Parents = BTreeMap<String, Parent>;

/// A network's device.
#[derive(Clone, Debug, Default)]
pub(super) struct Parent {
    /// `None` while the device is not there.
    open: Option<OpenParent>,
    /// What was last told to be wrong with it.
    told: Option<ControlError>,
}

/// An open port on a device.
#[derive(Clone, Copy, Debug)]
struct OpenParent {
    port: PortId,
    /// Interface index: another one under the same name is another device.
    index: u32,
}

/// Where a parent leads now.
struct Device {
    link: LinkView,
    /// Its frames carry this tag there, which no device of the kernel takes off.
    vlan: Option<VlanId>,
}

/// What the host has.
fn look() -> Result<Vec<LinkView>> {
    Netns::current().and_then(|host| host.run(|| Links::open()?.list())).map_err(unavailable)
}

impl Device {
    fn find(parent: &str) -> Result<Self> {
        Self::among(&look()?, parent)
    }

    /// A device of that very name goes first, as in Docker; else `eth1.10` is a VLAN of eth1.
    fn among(links: &[LinkView], parent: &str) -> Result<Self> {
        let named = |name: &str| links.iter().find(|link| link.name == name).cloned();
        if let Some(link) = named(parent) {
            return Self { link, vlan: None }.with_frames(parent);
        }
        let (device, vlan) = vlan_of(parent)?.map_or((parent, None), |(device, vlan)| (device, VlanId::new(vlan)));
        let link = named(device).ok_or_else(|| {
            ControlError::new(Code::NotFound, parent, format!("-o parent={parent}: the host has no device {device}")).hint("`ip link` lists them; eth1.10 is VLAN 10 on eth1")
        })?;
        Self { link, vlan }.with_frames(parent)
    }

    /// Why frames of `network` do not pass, or not all.
    fn problem(&self, network: &Network) -> Option<ControlError> {
        let LinkView { name, flags, mtu, .. } = &self.link;
        let has = |flag: &str| flags.iter().any(|own| own == flag);
        let (what, hint) = if !has("UP") {
            (format!("{name} is down"), format!("`ip link set {name} up`"))
        } else if has("NO-CARRIER") {
            (format!("{name} has no carrier"), "look at its cable, and at the other end".into())
        } else if *mtu < network.mtu {
            (format!("{name} takes packets of {mtu} bytes at most, and the network's have up to {}", network.mtu), format!("`ip link set {name} mtu {}`, or `weft network edit {} --mtu {mtu}`", network.mtu, network.name))
        } else {
            return None;
        };
        Some(ControlError::new(Code::Unavailable, name, what).hint(hint))
    }

    /// Refuses what carries packets without frames: tun, WireGuard, PPP, tunnels of IP.
    fn with_frames(self, parent: &str) -> Result<Self> {
        if self.link.is_ethernet {
            return Ok(self);
        }
        let device = &self.link.name;
        Err(ControlError::new(Code::Invalid, device, format!("-o parent={parent}: {device} has no Ethernet addresses, and so no stations")).hint("want an Ethernet device: `ip link` shows link/ether"))
    }
}

/// Refuses what no lan network can be made on.
pub(super) fn check_parent(parent: &str) -> Result<()> {
    Device::find(parent).map(drop)
}

/// Why a network is not on its LAN as it should be.
fn problem(network: &Network, links: &[LinkView]) -> Option<ControlError> {
    match Device::among(links, network.parent()?) {
        Ok(device) => device.problem(network),
        Err(gone) => Some(gone),
    }
}

impl Inner {
    /// The request with what the device of a lan network says: its largest packet, and the addresses of the host there.
    pub(super) fn on_parent(&self, request: NetworkCreate) -> NetworkCreate {
        let is_lan = request.driver.as_deref().is_some_and(|driver| DRIVERS.contains(&driver));
        let parent = request.parent.as_deref().filter(|_| is_lan && !request.internal);
        let Some(device) = parent.and_then(|parent| Device::find(parent).ok()) else { return request };
        let host = device.link.addresses.iter().filter(|_| device.vlan.is_none()).map(IpNetwork::ip);
        NetworkCreate { mtu: request.mtu.or(Some(device.link.mtu)), host_addresses: host.collect(), ..request }
    }

    /// What is wrong with the devices of lan networks now, by network id.
    pub(crate) fn parent_problems(&self) -> BTreeMap<String, ControlError> {
        let on_devices = || self.model.networks.values().filter(|network| network.parent().is_some());
        if on_devices().next().is_none() {
            return BTreeMap::new();
        }
        let links = look().unwrap_or_default();
        on_devices().filter_map(|network| Some((network.id.clone(), problem(network, &links)?))).collect()
    }

    /// A packet that the device cannot take is lost, and no router is there to tell.
    pub(super) fn check_mtu_of_parent(&self, network: &Network) -> Result<()> {
        let device = network.parent().and_then(|parent| Device::find(parent).ok());
        match device.filter(|device| network.mtu > device.link.mtu) {
            Some(Device { link, .. }) => Err(ControlError::new(Code::Invalid, &network.name, format!("MTU {} of network {} is more than {} takes ({})", network.mtu, network.name, link.name, link.mtu)).hint("give a smaller one, or none")),
            None => Ok(()),
        }
    }

    /// Gives a lan network whose bridge was made its port on the host's device.
    pub(super) fn open_parent(&mut self, network: &Network, bridge: NetworkId) -> Result<()> {
        let (Some(parent), Some(name)) = (network.parent(), network.parent_port()) else { return Ok(()) };
        let opened = self.make_parent(name, parent, bridge);
        self.parents.entry(network.id.clone()).or_default().open = opened.as_ref().ok().copied();
        opened.map(drop)
    }

    fn make_parent(&mut self, name: String, parent: &str, bridge: NetworkId) -> Result<OpenParent> {
        if self.rootless {
            return Err(ControlError::new(Code::Unavailable, parent, format!("-o parent={parent}: a rootless daemon cannot open the host's devices (that takes CAP_NET_RAW in the host's own namespaces)"))
                .hint("run the daemon as root, or leave -o parent= out for an isolated network"));
        }
        let Device { link, vlan } = Device::find(parent)?;
        let device = Netns::current().and_then(|host| attach::open_device(&host, &link.name)).map_err(|error| ControlError::new(Code::Unavailable, parent, format!("-o parent={parent}: {error}")))?;
        let (device, capabilities) = port_device(device);
        let mut config = PortConfig::new(bridge, name);
        config.mtu = link.mtu;
        config.capabilities = capabilities;
        config.foreign = true;
        config.vlan = vlan.map_or(VlanMode::PassThrough, VlanMode::Tagged);
        let port = self.dataplane.add_port(config, device).map_err(unavailable)?;
        Ok(OpenParent { port, index: link.index })
    }

    pub(super) fn close_parent(&mut self, network: &str) {
        if let Some(open) = self.parents.remove(network).and_then(|parent| parent.open) {
            self.dataplane.remove_port(open.port).ok();
        }
    }

    /// The id of the network whose device that port is.
    pub(super) fn network_behind(&self, port: PortId) -> Option<String> {
        self.parents.iter().find(|(_, parent)| parent.open.is_some_and(|open| open.port == port)).map(|(network, _)| network.clone())
    }

    /// A device was removed: its network is alone until there is one of that name again.
    pub(super) fn parent_gone(&mut self, network: &str) {
        let Some(open) = self.parents.get_mut(network).and_then(|parent| parent.open.take()) else { return };
        self.dataplane.remove_port(open.port).ok();
        if let Some((network, device)) = self.model.networks.get(network).and_then(|network| Some((network, network.parent()?))) {
            tracing::error!(network = network.name, parent = device, "the device of a lan network is gone; it is opened again when it is back");
            self.event("network parent gone", serde_json::json!({ "network": network.name, "id": network.id, "parent": device }));
        }
    }

    /// Looks whether each device is the one it was, or back, and serves. (A packet socket whose device was down when it was
    /// removed is told nothing.)
    pub(super) fn watch_parents(&mut self) {
        if self.parents.is_empty() {
            return;
        }
        let Ok(links) = look() else { return };
        for id in self.parents.keys().cloned().collect::<Vec<_>>() {
            let Some(network) = self.model.networks.get(&id).cloned() else { continue };
            let Some(device) = network.parent() else { continue };
            let found = Device::among(&links, device).ok();
            let index = found.as_ref().map(|found| found.link.index);
            if index != self.parents[&id].open.map(|open| open.index) {
                self.parent_gone(&id);
                if index.is_some() {
                    self.reopen_parent(&network, device);
                }
            }
            self.tell_of_parent(&network, found.and_then(|found| found.problem(&network)));
        }
    }

    fn reopen_parent(&mut self, network: &Network, device: &str) {
        let Some(&bridge) = self.bridges.get(&network.id) else { return };
        match self.open_parent(network, bridge) {
            Ok(()) => {
                tracing::info!(network = network.name, parent = device, "the device of a lan network is back");
                self.event("network parent back", serde_json::json!({ "network": network.name, "id": network.id, "parent": device }));
            }
            Err(error) => tracing::debug!(network = network.name, %error, "not yet"),
        }
    }

    /// Says once what is wrong with a device that is there, and once that it no longer is.
    fn tell_of_parent(&mut self, network: &Network, problem: Option<ControlError>) {
        let Some(parent) = self.parents.get_mut(&network.id).filter(|parent| parent.told != problem) else { return };
        parent.told.clone_from(&problem);
        let (name, device) = (&network.name, network.parent());
        match &problem {
            Some(problem) => tracing::warn!(network = name, parent = device, "the device of a lan network does not serve: {}", problem.message),
            None => tracing::info!(network = name, parent = device, "nothing is wrong with the device of a lan network any longer"),
        }
        self.event("network parent problem", serde_json::json!({ "network": name, "id": network.id, "parent": device, "problem": problem.map(|problem| problem.message) }));
    }

    /// Ports on devices of the host, with their networks.
    pub(super) fn parent_ports(&self) -> impl Iterator<Item = (PortId, &Network, &str)> {
        self.parents.iter().filter_map(|(id, parent)| {
            let network = self.model.networks.get(id)?;
            Some((parent.open?.port, network, network.parent()?))
        })
    }

    /// The same, as ports are called.
    pub(super) fn parent_names(&self) -> impl Iterator<Item = (PortId, String)> {
        self.parent_ports().filter_map(|(port, network, _)| Some((port, network.parent_port()?)))
    }
}
