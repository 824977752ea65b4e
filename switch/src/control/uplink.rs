//! The uplink of packets: its device, and the network that is the router's face on it.

use std::net::IpAddr;

use dataplane::{BridgeConfig, Command, GatewayConfig, GatewayRole, L2Mode, Link, PacketUplink, PortConfig, Reply};
use netns_setup::{
    Netns,
    attach::{self, EndpointSpec, Kind},
    link::Links,
};
use packet::{Mac, UnicastMac};
use weft_control::{
    Code, ControlError, Network, Result,
    uplink::{PacketSpec, UplinkSpec},
};

use super::{
    ports::port_device,
    runtime::{Inner, unavailable},
    trace::UplinkPort,
};
use crate::uplink::UplinkCommand;

/// What the uplink's network and port are called in views and captures.
const NAME: &str = "uplink";

impl Inner {
    /// Opens the uplink's device and lets packets leave by it.
    pub(super) fn start_uplink(&mut self, spec: &UplinkSpec) -> Result<()> {
        let Some(link) = spec.packet() else { return Ok(()) };
        let mac = mac_of(link)?;
        let config = bridge_of(link, &[])?;
        let Reply::Network(network) = self.dataplane.apply(Command::AddBridge(config)).map_err(unavailable)? else { return Err(unavailable("no bridge for the uplink")) };
        self.packet_uplink = Some(link.clone());
        self.uplink_lost = Some((spec.clone(), network));
        self.open_uplink()?;
        let uplink = PacketUplink { network, link: Link { mac, addresses: link.addresses.clone(), mtu: link.mtu }, gateways: link.gateways.clone() };
        self.dataplane.uplink(UplinkCommand::SetPacketUplink(uplink)).map(drop).map_err(unavailable)
    }

    /// Addresses that networks leave under are answered for on the uplink, as its own are.
    pub(super) fn own_on_uplink(&self, network: &Network) -> Result<()> {
        let bridge = self.uplink_port.map(|uplink| uplink.network).or(self.uplink_lost.as_ref().map(|(_, network)| *network));
        let (Some(link), Some(bridge)) = (&self.packet_uplink, bridge) else { return Ok(()) };
        let more: Vec<IpAddr> = self.model.networks.values().chain([network]).flat_map(|network| network.nat_source.iter().copied()).collect();
        if more.is_empty() {
            return Ok(());
        }
        self.dataplane.apply(Command::SetBridge(bridge, bridge_of(link, &more)?)).map(drop).map_err(unavailable)
    }

    /// Opens the device that the uplink has not, or no longer has.
    fn open_uplink(&mut self) -> Result<()> {
        let Some((spec, network)) = self.uplink_lost.clone() else { return Ok(()) };
        let Some(link) = spec.packet() else { return Ok(()) };
        let host = Netns::current().map_err(unavailable)?;
        let device = match &spec {
            UplinkSpec::Tap(_) => self.make_uplink_tap(&host, link)?,
            UplinkSpec::Sockets | UplinkSpec::Device(_) => attach::open_device(&host, &link.name).map_err(|error| no_device(link, &error))?,
        };
        let (device, capabilities) = port_device(device);
        let mut port = PortConfig::new(network, format!("{NAME}:{}", link.name));
        port.mtu = link.mtu.into();
        port.capabilities = capabilities;
        let port = self.dataplane.add_port(port, device).map_err(unavailable)?;
        self.uplink_port = Some(UplinkPort { port, mac: mac_of(link)?.get(), network, index: index_of(&link.name) });
        self.uplink_lost = None;
        self.uplink_spec = Some(spec);
        Ok(())
    }

    /// The uplink's device was removed: nothing leaves until there is one of that name again.
    pub(super) fn uplink_gone(&mut self) {
        let (Some(uplink), Some(spec)) = (self.uplink_port.take(), self.uplink_spec.clone()) else { return };
        tracing::error!(uplink = %spec, "the uplink's device is gone; it is opened again when it is back");
        self.event("uplink gone", serde_json::json!({ "uplink": spec.to_string() }));
        self.dataplane.remove_port(uplink.port).ok();
        self.uplink_lost = Some((spec, uplink.network));
    }

    /// Looks whether the uplink's device is the one it was, or back. (A packet socket whose device was down when
    /// it was removed is told nothing.)
    pub(super) fn reopen_uplink(&mut self) {
        let watched = self.uplink_port.zip(self.packet_uplink.as_ref());
        if watched.is_some_and(|(uplink, link)| index_of(&link.name) != uplink.index) {
            self.uplink_gone();
        }
        if self.uplink_lost.is_some() && self.open_uplink().is_ok() {
            let name = self.uplink_spec.as_ref().map(ToString::to_string).unwrap_or_default();
            tracing::info!(uplink = name, "the uplink's device is back");
            self.event("uplink back", serde_json::json!({ "uplink": name }));
        }
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
            addresses: addresses.collect(),
            gateways: Vec::new(),
            persistent: false,
            peer_name: format!("wu{}", std::process::id()),
        };
        let side = self.switch_side()?;
        attach::attach(host, &side, &spec).map_err(|error| no_device(link, &error))
    }

    /// RFC 4787 REQ-7: an inside that overlaps the uplink would hide hosts of either.
    pub(super) fn check_against_uplink(&self, network: &Network) -> Result<()> {
        let Some(uplink) = &self.packet_uplink else {
            // The sockets of the host decide: that is what they do.
            return match network.nat {
                Some(preset) if preset.name() != "port-restricted" => Err(wants_packets(&format!("--nat {}", preset.name()))),
                _ if !network.nat_source.is_empty() => Err(wants_packets("--nat-source")),
                _ if network.nat_prefix.is_some() => Err(wants_packets("--nat-prefix")),
                _ => Ok(()),
            };
        };
        let overlaps = |pool: &weft_control::Pool| uplink.addresses.iter().any(|own| own.contains(pool.subnet.network()) || pool.subnet.contains(own.network()));
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

/// The router's face on the uplink, with `more` addresses than the link's own.
fn bridge_of(link: &PacketSpec, more: &[IpAddr]) -> Result<BridgeConfig> {
    let addresses = link.addresses.iter().copied().chain(more.iter().map(|ip| ipnetwork::IpNetwork::from(*ip))).collect();
    let gateway = GatewayConfig { role: GatewayRole::Uplink, ..GatewayConfig::new(mac_of(link)?, addresses) };
    Ok(BridgeConfig { l2: L2Mode::Bridge, gateway: Some(gateway), ..BridgeConfig::new(NAME) })
}

fn wants_packets(what: &str) -> ControlError {
    ControlError::new(Code::Invalid, what, format!("{what} needs an uplink of packets")).hint("start the daemon with --uplink tap:NAME or dev:NAME,addr=...; host sockets are port-restricted")
}

fn no_device(link: &PacketSpec, error: &dyn std::fmt::Display) -> ControlError {
    ControlError::new(Code::Unavailable, &link.name, format!("cannot open the uplink {}: {error}", link.name))
}

/// As a network's gateway has it: from the IPv4 address, else from the end of the IPv6 one.
fn mac_of(link: &PacketSpec) -> Result<UnicastMac> {
    let tail = link.addresses.iter().map(|address| match address.ip() {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            [a, b, c, d]
        }
    });
    let [a, b, c, d] = tail.into_iter().next().unwrap_or_default();
    UnicastMac::new(Mac([2, 0x42, a, b, c, d])).ok_or_else(|| unavailable("no address for the uplink"))
}
