//! The uplink of packets: its device, and the network that is the router's face on it.

use std::net::IpAddr;

use dataplane::{BridgeConfig, Command, GatewayConfig, GatewayRole, L2Mode, Link, PacketUplink, PortConfig, Reply};
use netns_setup::{
    Netns,
    attach::{self, EndpointSpec, Kind},
    link::Links,
};
use packet::{NetworkId, PortId, UnicastMac};
use weft_control::{
    Code, ControlError, Network, Result,
    uplink::{PacketSpec, UplinkSpec},
};

use super::{
    ports::port_device,
    runtime::{Inner, unavailable},
};
use crate::uplink::UplinkCommand;

/// What the uplink's network and port are called in views and captures.
const NAME: &str = "uplink";

/// The uplink of packets.
#[derive(Clone, Debug)]
pub(super) struct LiveUplink {
    spec: UplinkSpec,
    pub(super) link: PacketSpec,
    /// The router's address on it.
    pub(super) mac: UnicastMac,
    network: NetworkId,
    /// Nothing while its device is not there.
    pub(super) open: Option<OpenDevice>,
}

/// The device of an uplink.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenDevice {
    pub(super) port: PortId,
    /// Interface index: another one under the same name is another device.
    index: Option<u32>,
}

impl LiveUplink {
    pub(super) fn port_name(&self) -> String {
        format!("{NAME}:{}", self.link.name)
    }

    /// The router's face on the uplink, with `more` addresses than the link's own.
    fn bridge(&self, more: &[IpAddr]) -> BridgeConfig {
        bridge_of(&self.link, self.mac, more)
    }
}

impl Inner {
    /// Opens the uplink's device and lets packets leave by it.
    pub(super) fn start_uplink(&mut self, spec: &UplinkSpec) -> Result<()> {
        let Some(link) = spec.packet() else { return Ok(()) };
        let mac = mac_of(link);
        let Reply::Network(network) = self.dataplane.apply(Command::AddBridge(bridge_of(link, mac, &[]))).map_err(unavailable)? else {
            return Err(unavailable("no bridge for the uplink"));
        };
        let mut uplink = LiveUplink { spec: spec.clone(), link: link.clone(), mac, network, open: None };
        uplink.open = Some(self.open_uplink(&uplink)?);
        self.uplink = Some(uplink);
        let uplink = PacketUplink { network, link: Link { mac, addresses: link.addresses.clone(), mtu: link.mtu }, gateways: link.gateways.clone() };
        self.dataplane.uplink(UplinkCommand::SetPacketUplink(uplink)).map(drop).map_err(unavailable)
    }

    /// Addresses that networks leave under are answered for on the uplink, as its own are.
    pub(super) fn own_on_uplink(&self, network: &Network) -> Result<()> {
        let Some(uplink) = &self.uplink else { return Ok(()) };
        let more: Vec<IpAddr> = self.model.networks.values().chain([network]).flat_map(|network| network.nat_source.iter().copied()).collect();
        if more.is_empty() {
            return Ok(());
        }
        self.dataplane.apply(Command::SetBridge(uplink.network, uplink.bridge(&more))).map(drop).map_err(unavailable)
    }

    /// Opens the uplink's device and makes it a port.
    fn open_uplink(&mut self, uplink: &LiveUplink) -> Result<OpenDevice> {
        let link = &uplink.link;
        let host = Netns::current().map_err(unavailable)?;
        let device = match &uplink.spec {
            UplinkSpec::Tap(_) => self.make_uplink_tap(&host, link)?,
            UplinkSpec::Sockets | UplinkSpec::Device(_) => attach::open_device(&host, &link.name).map_err(|error| no_device(link, &error))?,
        };
        let (device, capabilities) = port_device(device);
        let mut port = PortConfig::new(uplink.network, uplink.port_name());
        port.mtu = link.mtu.into();
        port.capabilities = capabilities;
        let port = self.dataplane.add_port(port, device).map_err(unavailable)?;
        Ok(OpenDevice { port, index: index_of(&link.name) })
    }

    /// The uplink's port, by its name or as `uplink`.
    pub(crate) fn uplink_port(&self, name: &str) -> Result<Option<PortId>> {
        let Some(uplink) = self.uplink.as_ref().filter(|uplink| name == NAME || name == uplink.port_name()) else { return Ok(None) };
        uplink.open.map(|device| Some(device.port)).ok_or_else(|| unavailable(format!("the device of {} is gone", uplink.port_name())))
    }

    /// Only ports of sandboxes are changed.
    pub(super) fn check_is_not_the_uplink(&self, name: &str) -> Result<()> {
        match self.uplink.as_ref().map(LiveUplink::port_name).filter(|own| own == name) {
            Some(own) => Err(ControlError::new(Code::Invalid, name, format!("{own} is the uplink's own port: only ports of sandboxes are changed"))
                .hint("change the device on the host, with `ip link`; what leaves by it is said with --uplink when the daemon starts")),
            None => Ok(()),
        }
    }

    /// The uplink's device was removed: nothing leaves until there is one of that name again.
    pub(super) fn uplink_gone(&mut self) {
        let Some(uplink) = &mut self.uplink else { return };
        let Some(device) = uplink.open.take() else { return };
        let name = uplink.spec.to_string();
        tracing::error!(uplink = name, "the uplink's device is gone; it is opened again when it is back");
        self.event("uplink gone", serde_json::json!({ "uplink": name }));
        self.dataplane.remove_port(device.port).ok();
    }

    /// Looks whether the uplink's device is the one it was, or back. (A packet socket whose device was down when
    /// it was removed is told nothing.)
    pub(super) fn reopen_uplink(&mut self) {
        let Some(uplink) = self.uplink.clone() else { return };
        if uplink.open.is_some_and(|device| index_of(&uplink.link.name) == device.index) {
            return;
        }
        self.uplink_gone();
        let Ok(device) = self.open_uplink(&uplink) else { return };
        let name = uplink.spec.to_string();
        self.uplink = Some(LiveUplink { open: Some(device), ..uplink });
        tracing::info!(uplink = name, "the uplink's device is back");
        self.event("uplink back", serde_json::json!({ "uplink": name }));
    }

    fn make_uplink_tap(&mut self, host: &Netns, link: &PacketSpec) -> Result<netns_setup::PortFd> {
        if host.run(|| Links::open()?.index_of(&link.name)).is_ok() {
            return Err(ControlError::new(Code::Exists, &link.name, format!("--uplink tap:{}: the host has an interface of that name", link.name)).hint("choose another name, or dev: to use that interface"));
        }
        // The host is the next hop: it gets that address, and nothing else of it changes.
        let addresses = link.gateways.iter().filter_map(|gateway| {
            let own = link.addresses.iter().find(|address| address.contains(*gateway))?;
            ipnetwork::IpNetwork::new(*gateway, own.prefix()).ok()
        });
        let spec = EndpointSpec {
            kind: Kind::Tap,
            ifname: link.name.clone(),
            mac: None,
            mtu: link.mtu.into(),
            gso_most: None,
            addresses: addresses.collect(),
            gateways: Vec::new(),
            neighbours: Vec::new(),
            persistent: false,
            peer_name: format!("wu{}", std::process::id()),
            sysctls: Vec::new(),
        };
        let side = self.switch_side()?;
        attach::attach(host, &side, &spec).map_err(|error| no_device(link, &error))
    }

    /// RFC 4787 REQ-7: an inside that overlaps the uplink would hide hosts of either.
    pub(super) fn check_against_uplink(&self, network: &Network) -> Result<()> {
        let Some(uplink) = &self.uplink else {
            // The sockets of the host decide: that is what they do.
            return match network.nat {
                Some(preset) if preset.name() != "port-restricted" => Err(wants_packets(&format!("--nat {}", preset.name()))),
                _ if !network.nat_source.is_empty() => Err(wants_packets("--nat-source")),
                _ if network.nat_prefix.is_some() => Err(wants_packets("--nat-prefix")),
                _ => Ok(()),
            };
        };
        // What is not translated may be the uplink's own LAN.
        if network.lan.is_some() {
            return Ok(());
        }
        let overlaps = |pool: &weft_control::Pool| uplink.link.addresses.iter().any(|own| own.contains(pool.subnet.network()) || pool.subnet.contains(own.network()));
        match network.pools.iter().find(|pool| overlaps(pool)) {
            Some(pool) => Err(ControlError::new(Code::Conflict, pool.subnet.to_string(), format!("subnet {} overlaps with the uplink", pool.subnet)).hint("choose another --subnet")),
            None => Ok(()),
        }
    }
}

/// Of a device of the host.
fn index_of(name: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(name).ok()
}

fn bridge_of(link: &PacketSpec, mac: UnicastMac, more: &[IpAddr]) -> BridgeConfig {
    let addresses = link.addresses.iter().copied().chain(more.iter().map(|ip| ipnetwork::IpNetwork::from(*ip))).collect();
    let gateway = GatewayConfig { role: GatewayRole::Uplink, ..GatewayConfig::new(mac, addresses) };
    BridgeConfig { l2: L2Mode::Bridge, gateway: Some(gateway), ..BridgeConfig::new(NAME) }
}

fn wants_packets(what: &str) -> ControlError {
    ControlError::new(Code::Invalid, what, format!("{what} needs an uplink of packets")).hint("start the daemon with --uplink tap:NAME or dev:NAME,addr=...; host sockets are port-restricted")
}

fn no_device(link: &PacketSpec, error: &dyn std::fmt::Display) -> ControlError {
    ControlError::new(Code::Unavailable, &link.name, format!("cannot open the uplink {}: {error}", link.name))
}

/// As a network's gateway has it: from the IPv4 address, else from the end of the IPv6 one.
fn mac_of(link: &PacketSpec) -> UnicastMac {
    let tail = link.addresses.first().map(|address| match address.ip() {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            [a, b, c, d]
        }
    });
    UnicastMac::numbered(tail.unwrap_or_default())
}
