//! `weft trace`: a packet in words becomes a frame, as its sender would make it, whose way is told.

use std::net::{IpAddr, SocketAddr};

use packet::{Mac, checksum};
use weft_control::{
    Code, Endpoint, Network, Result,
    api::TraceRequest,
    probe::{Probe, ProbeKind},
};

use super::{
    publishing::gateway_of,
    runtime::{Inner, unavailable},
};

/// Who sends from outside: a MAC of nobody.
const STRANGER: Mac = Mac([2, 0, 0, 0, 0, 0xfe]);

impl Inner {
    /// The way of a packet that a port would send, a step a line.
    pub(crate) fn trace(&self, request: &TraceRequest) -> Result<Vec<String>> {
        let probe: Probe = request.packet.parse()?;
        if request.port == "host" {
            return self.dataplane.explain(None, frame(&probe, STRANGER, STRANGER)).map_err(unavailable);
        }
        if let Some(uplink) = &self.uplink
            && let Some(port) = self.uplink_port(&request.port)?
        {
            return self.dataplane.explain(Some(port), frame(&probe, STRANGER, uplink.mac.get())).map_err(unavailable);
        }
        // A sandbox with one port stands for it.
        let name = match self.model.sandbox(&request.port) {
            Ok(sandbox) if sandbox.endpoints.len() == 1 => weft_control::port_name(sandbox, &sandbox.endpoints[0]),
            _ => request.port.clone(),
        };
        let (_, endpoint) = self.model.port(&name).map_err(|error| match error.code {
            Code::NotFound => error.hint("`weft port ls` lists them; `host` is what reaches the host, `uplink` an uplink of packets"),
            _ => error,
        })?;
        let network = self.model.network(&endpoint.network)?;
        let port = *self.ports.get(&endpoint.id).ok_or_else(|| unavailable("the port's device is gone"))?;
        let source: Mac = endpoint.mac.parse().unwrap_or(STRANGER);
        let mut steps = Vec::new();
        let Some(next) = self.first_hop(network, endpoint, probe.destination.ip(), &mut steps) else { return Ok(steps) };
        steps.extend(self.dataplane.explain(Some(port), frame(&probe, source, next)).map_err(unavailable)?);
        Ok(steps)
    }

    /// Whom the sender's own routing hands the packet to.
    fn first_hop(&self, network: &Network, endpoint: &Endpoint, to: IpAddr, steps: &mut Vec<String>) -> Option<Mac> {
        let gateway = gateway_of(network);
        let is_near = endpoint.addresses.iter().any(|own| own.contains(to));
        let is_vip = network.vips.values().flatten().any(|vip| *vip == to);
        let gateway_owns = is_vip || gateway.as_ref().is_some_and(|gateway| gateway.addresses.iter().any(|own| own.ip() == to));
        if is_near && !gateway_owns {
            let owner = self.model.members(&network.id).find(|(_, other)| other.addresses.iter().any(|own| own.ip() == to));
            return match owner {
                Some((sandbox, other)) => {
                    steps.push(format!("sender: {to} is on its link; ARP or ND finds {} at {}", weft_control::port_name(sandbox, other), other.mac));
                    other.mac.parse().ok()
                }
                None => {
                    steps.push(format!("sender: {to} is on its link; no endpoint of ours has it, so ARP or ND must find it"));
                    Some(Mac::BROADCAST)
                }
            };
        }
        let via = endpoint.gateways.iter().find(|via| via.is_ipv4() == to.is_ipv4());
        if let (Some(via), true) = (via, network.lan.is_some() && !gateway_owns) {
            steps.push(format!("sender: {to} is by way of the LAN's router {via}, which ARP or ND must find"));
            return Some(Mac::BROADCAST);
        }
        match (gateway, gateway_owns || is_near || (via.is_some() && network.lan.is_none())) {
            (Some(gateway), true) => {
                steps.push(format!("sender: {to} is by way of the gateway {}", gateway.mac.get()));
                Some(gateway.mac.get())
            }
            _ => {
                steps.push(format!("drop: the sandbox has no route to {to}"));
                None
            }
        }
    }
}

/// The probe as an Ethernet frame, its checksums right.
fn frame(probe: &Probe, source: Mac, destination: Mac) -> Vec<u8> {
    let payload = vec![0; probe.length.into()];
    let ports = |from: SocketAddr, to: SocketAddr| [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    let v4 = probe.source.is_ipv4();
    let (number, at, mut l4) = match probe.kind {
        ProbeKind::Tcp => (6, 16, [&ports(probe.source, probe.destination)[..], &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0], &payload].concat()),
        ProbeKind::Udp => (17, 6, [&ports(probe.source, probe.destination)[..], &(8 + probe.length).to_be_bytes(), &[0, 0], &payload].concat()),
        ProbeKind::Icmp => (if v4 { 1 } else { 58 }, 2, [&[if v4 { 8 } else { 128 }, 0, 0, 0, 0, 1, 0, 1][..], &payload].concat()),
    };
    let length = |extra: usize| u16::try_from(extra + l4.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut ip = match (probe.source.ip(), probe.destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let flags = if probe.df { 0x40 } else { 0 };
            [&[0x45, 0][..], &length(20), &[0, 1, flags, 0, probe.ttl, number, 0, 0], &from.octets(), &to.octets()].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => [&[0x60, 0, 0, 0][..], &length(0), &[number, probe.ttl], &from.octets(), &to.octets()].concat(),
        // The parser let none through.
        _ => Vec::new(),
    };
    let pseudo = if number == 1 { 0 } else { checksum::pseudo_header(&ip, number, l4.len()).unwrap_or(0) };
    let sum = !checksum::fold(checksum::sum(&l4) + pseudo);
    l4[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    if v4 {
        let sum = !checksum::fold(checksum::sum(&ip));
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let kind = if v4 { [8, 0] } else { [0x86, 0xdd] };
    [&destination.0[..], &source.0, &kind, &ip, &l4].concat()
}
