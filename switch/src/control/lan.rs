//! Ports of lan networks: a packet socket on a device of the host, for as long as there is one of that name. The host
//! keeps the device as it is, but for promiscuous mode, which ends with the socket.

use std::{collections::BTreeMap, net::IpAddr};

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

/// Ports on the devices of lan networks, by network id; `None` while the device is not there.
pub(super) type Parents = BTreeMap<String, Option<Parent>>;

/// An open port on a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parent {
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

impl Device {
    /// A device of that very name goes first, as in Docker; else `eth1.10` is a VLAN of eth1.
    fn find(parent: &str) -> Result<Self> {
        let links = Netns::current().and_then(|host| host.run(|| Links::open()?.list())).map_err(unavailable)?;
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

    /// Refuses what carries packets without frames: tun, WireGuard, PPP, tunnels of IP.
    fn with_frames(self, parent: &str) -> Result<Self> {
        if self.link.is_ethernet {
            return Ok(self);
        }
        let device = &self.link.name;
        Err(ControlError::new(Code::Invalid, device, format!("-o parent={parent}: {device} has no Ethernet addresses, and so no stations")).hint("want an Ethernet device: `ip link` shows link/ether"))
    }
}

/// The device that a lan network is to be made on.
fn asked(request: &NetworkCreate) -> Option<Device> {
    let is_lan = request.driver.as_deref().is_some_and(|driver| DRIVERS.contains(&driver));
    Device::find(request.parent.as_deref().filter(|_| is_lan && !request.internal)?).ok()
}

impl Inner {
    /// The largest packet of the device that a lan network is to be made on.
    pub(super) fn mtu_of_parent(&self, request: &NetworkCreate) -> Option<u32> {
        asked(request).map(|device| device.link.mtu)
    }

    /// What the host is called there.
    pub(super) fn addresses_of_parent(&self, request: &NetworkCreate) -> Vec<IpAddr> {
        let device = asked(request).filter(|device| device.vlan.is_none());
        device.map(|device| device.link.addresses.iter().map(IpNetwork::ip).collect()).unwrap_or_default()
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
        self.parents.insert(network.id.clone(), opened.as_ref().ok().copied());
        opened.map(drop)
    }

    fn make_parent(&mut self, name: String, parent: &str, bridge: NetworkId) -> Result<Parent> {
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
        Ok(Parent { port, index: link.index })
    }

    pub(super) fn close_parent(&mut self, network: &str) {
        if let Some(Some(parent)) = self.parents.remove(network) {
            self.dataplane.remove_port(parent.port).ok();
        }
    }

    /// The id of the network whose device that port is.
    pub(super) fn network_behind(&self, port: PortId) -> Option<String> {
        self.parents.iter().find(|(_, parent)| parent.is_some_and(|parent| parent.port == port)).map(|(network, _)| network.clone())
    }

    /// A device was removed: its network is alone until there is one of that name again.
    pub(super) fn parent_gone(&mut self, network: &str) {
        let Some(parent) = self.parents.get_mut(network).and_then(Option::take) else { return };
        self.dataplane.remove_port(parent.port).ok();
        if let Some((network, device)) = self.model.networks.get(network).and_then(|network| Some((network, network.parent()?))) {
            tracing::error!(network = network.name, parent = device, "the device of a lan network is gone; it is opened again when it is back");
            self.event("network parent gone", serde_json::json!({ "network": network.name, "id": network.id, "parent": device }));
        }
    }

    /// Looks whether each device is the one it was, or back. (A packet socket whose device was down when it was removed is
    /// told nothing.)
    pub(super) fn reopen_parents(&mut self) {
        for (id, parent) in self.parents.clone() {
            let Some(network) = self.model.networks.get(&id).cloned() else { continue };
            let Some(device) = network.parent() else { continue };
            let index = Device::find(device).ok().map(|found| found.link.index);
            if index == parent.map(|parent| parent.index) {
                continue;
            }
            self.parent_gone(&id);
            let Some(&bridge) = self.bridges.get(&id).filter(|_| index.is_some()) else { continue };
            match self.open_parent(&network, bridge) {
                Ok(()) => {
                    tracing::info!(network = network.name, parent = device, "the device of a lan network is back");
                    self.event("network parent back", serde_json::json!({ "network": network.name, "id": network.id, "parent": device }));
                }
                Err(error) => tracing::debug!(network = network.name, %error, "not yet"),
            }
        }
    }

    /// Ports on devices of the host, with their networks.
    pub(super) fn parent_ports(&self) -> impl Iterator<Item = (PortId, &Network, &str)> {
        self.parents.iter().filter_map(|(id, parent)| {
            let network = self.model.networks.get(id)?;
            Some(((*parent)?.port, network, network.parent()?))
        })
    }

    /// The same, as ports are called.
    pub(super) fn parent_names(&self) -> impl Iterator<Item = (PortId, String)> {
        self.parent_ports().filter_map(|(port, network, _)| Some((port, network.parent_port()?)))
    }
}
