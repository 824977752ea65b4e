//! Virtual addresses of a network: the gateway answers for them, and leads each connection to an endpoint.
//!
//! ```text
//! client --(gateway's MAC, virtual address)--> hear --> nat --> (endpoint's MAC and address) --> as any frame
//! endpoint --(client's MAC and address)--> emit, at the client's port --> nat --> source is the virtual address
//! endpoint --(gateway's MAC, client elsewhere)--> hear --> nat --> outside
//! ```
//!
//! To the endpoint it looks as if the client had sent to it: the client's MAC and address are kept, and hops.
//! So the endpoint may be behind a tunnel, where no gateway speaks. What a connection got is known at the
//! client's port alone, which is why the way back is taken there and not where the endpoint is.

use std::{collections::BTreeMap, net::IpAddr};

use nat::{Nat, NatConfig, NatDrop, Refused, Sent, Translated, Vip, VipView};
use packet::{Frame, Instant, IpView, Mac, NetworkId, Parsed, Pool, UnicastMac, checksum::protocol, ip_destination, ip_source};

use super::{GatewayConfig, answer};
use crate::{
    drop::DropReason,
    router::speech::{Problem, problem},
};

/// Connections of one network at most.
const MOST: usize = 65_536;

/// A virtual address, as control wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipConfig {
    /// The address, of one of the gateway's subnets.
    pub address: IpAddr,
    /// Who answers for it: addresses of its family, with their MACs. They may be on other nodes.
    pub endpoints: Vec<(IpAddr, UnicastMac)>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Balancer {
    pub(crate) network: NetworkId,
    nat: Nat,
    macs: BTreeMap<IpAddr, Mac>,
    translated: Vec<Translated>,
}

/// What became of a frame to the gateway.
#[derive(Debug)]
pub(crate) enum Balanced {
    /// It is not to a virtual address; of an endpoint's connection it comes from one.
    NotMine(Frame),
    /// To an endpoint, in the client's name.
    ToEndpoint(Frame),
    /// The gateway speaks.
    Spoken(Frame),
    /// It waits, or its endpoint's refusal is not the last word.
    Kept,
}

impl Balancer {
    pub(crate) fn new(network: NetworkId, seed: u64) -> Self {
        Self { network, nat: Nat::new(NatConfig { seed, most: MOST, ..NatConfig::default() }), macs: BTreeMap::new(), translated: Vec::new() }
    }

    pub(crate) fn configure(&mut self, vips: Vec<VipConfig>) {
        self.macs = vips.iter().flat_map(|vip| &vip.endpoints).map(|(ip, mac)| (*ip, mac.get())).collect();
        self.nat.set_vips(vips.into_iter().map(|vip| Vip { address: vip.address, endpoints: vip.endpoints.into_iter().map(|(ip, _)| ip).collect() }).collect());
    }

    pub(crate) fn owns(&self, ip: IpAddr) -> bool {
        self.nat.is_vip(ip)
    }

    pub(crate) fn views(&self, now: Instant) -> Vec<VipView> {
        self.nat.vips(now)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.nat.poll_timeout()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.nat.handle_timeout(now, drop);
    }

    /// A packet to the gateway's MAC. `is_inside` says that it came from a port, and so from a neighbour.
    pub(crate) fn hear(&mut self, gateway: &GatewayConfig, is_inside: bool, frame: Frame, now: Instant, pool: &Pool) -> Result<Balanced, DropReason> {
        let (Some(source), Some(destination)) = (ip_source(frame.bytes()), ip_destination(frame.bytes())) else { return Ok(Balanced::NotMine(frame)) };
        if !self.nat.is_vip(destination) {
            return match self.leave(frame, source, now)? {
                Some(frame) => Ok(Balanced::NotMine(frame)),
                None => Ok(Balanced::Kept),
            };
        }
        let ip = Parsed::new(frame.bytes()).filter(|parsed| parsed.tags == 0).and_then(|parsed| parsed.ip).ok_or(DropReason::GatewayMalformed)?;
        if !answer::header_is_right(&ip, frame.bytes()) {
            return Err(DropReason::GatewayMalformed);
        }
        if is_inside && !gateway.serves(source) || gateway.owns(source) || self.nat.is_vip(source) {
            return Err(DropReason::Martian);
        }
        if answer::is_echo_request(&ip, frame.bytes()) {
            return answer::echo(&ip, frame, gateway.mac.get()).map(Balanced::Spoken);
        }
        if answer::is_neighbour_discovery(&ip, frame.bytes()) {
            return Ok(Balanced::NotMine(frame));
        }
        match self.nat.to_vip(self.network, frame, now, &mut self.translated) {
            Ok(()) => self.lead(gateway.mac.get()),
            Err(refused) => refuse(&ip, &refused, gateway.mac.get(), destination, pool).map(Balanced::Spoken),
        }
    }

    /// What was translated gets the MACs for its way. Only fragments that waited make it more than one, and
    /// these follow with the next.
    fn lead(&mut self, own: Mac) -> Result<Balanced, DropReason> {
        let Some(Translated { mut frame, .. }) = self.translated.pop() else { return Ok(Balanced::Kept) };
        let (Some(source), Some(destination)) = (ip_source(frame.bytes()), ip_destination(frame.bytes())) else { return Err(DropReason::Vip) };
        // Of a hairpin the virtual address is the client, or the client the destination.
        let is_hairpin = self.nat.is_vip(source);
        let mac = *self.macs.get(&destination).ok_or(DropReason::Vip)?;
        frame.bytes_mut()[..6].copy_from_slice(&mac.0);
        if is_hairpin {
            frame.bytes_mut()[6..12].copy_from_slice(&own.0);
            return Ok(Balanced::Spoken(frame));
        }
        Ok(Balanced::ToEndpoint(frame))
    }

    /// More of what the last packet led to.
    pub(crate) fn more(&mut self, own: Mac) -> Option<Balanced> {
        if self.translated.is_empty() { None } else { self.lead(own).ok() }
    }

    /// A packet that goes to a client, or to one elsewhere: if it is of a balanced connection, the virtual
    /// address is its source. Nothing is left of a refusal that is not the last word.
    pub(crate) fn leave(&mut self, frame: Frame, source: IpAddr, now: Instant) -> Result<Option<Frame>, DropReason> {
        if !self.nat.is_endpoint(source) {
            return Ok(Some(frame));
        }
        match self.nat.from_endpoint(self.network, frame, now) {
            Ok(Sent::Own(frame) | Sent::Translated(frame)) => Ok(Some(frame)),
            Ok(Sent::Declined) => Ok(None),
            Err(_) => Err(DropReason::Vip),
        }
    }

    /// What there is to tell of a packet to a virtual address, if it is one.
    pub(crate) fn explain(&self, frame: &Frame, now: Instant) -> Option<String> {
        let bytes = frame.bytes();
        let parsed = Parsed::new(bytes)?;
        let ip = parsed.ip.filter(|ip| self.nat.is_vip(ip.destination))?;
        let end = |ip, port| nat::End::new(ip, port);
        let known = parsed.l4_ports(bytes).and_then(|(from, to)| self.nat.connection_of(ip.protocol, end(ip.source, from), end(ip.destination, to), now));
        let view = self.views(now).into_iter().find(|view| view.address == ip.destination)?;
        Some(match known {
            Some(connection) => format!("vip {}: of a connection to {}", ip.destination, connection.inside),
            None if view.endpoints.is_empty() => format!("vip {}: nobody answers for it; refused", ip.destination),
            None => format!("vip {}: a new connection gets the next of {}", ip.destination, view.endpoints.iter().map(|(ip, ..)| ip.to_string()).collect::<Vec<_>>().join(", ")),
        })
    }
}

/// Tells the sender of a packet that was refused: TCP by a reset (RFC 9293 section 3.5.2), others by ICMP.
fn refuse(ip: &IpView, refused: &Refused, own: Mac, address: IpAddr, pool: &Pool) -> Result<Frame, DropReason> {
    let is_stray = refused.reason == NatDrop::NoConnection;
    if ip.protocol == protocol::TCP && (is_stray || refused.reason == NatDrop::NoEndpoint) {
        return answer::reset(ip, &refused.frame, own, pool);
    }
    let code = refused.reason.unreachable_code().ok_or(DropReason::Vip)?;
    problem(&refused.frame, own, address, Problem::unreachable(code), pool).ok_or(DropReason::Vip)
}
