//! The L3 face of a network: one station that answers ARP, NDP and echo, and takes what is for the
//! outside. Where control says so it lends addresses (DHCP) and advertises itself as a router.
//!
//! What it hears: frames to its own address, ARP requests and neighbour solicitations for its own
//! addresses, DHCP clients, router solicitations. Everything else is the bridge's. What it does not answer itself it hands out as it is,
//! after the checks of a router (RFC 1812 5.3.7 martians, 5.3.1 hops), for an uplink to carry.

mod advertise;
pub(crate) mod answer;
pub(crate) mod balancer;
mod dhcp;
mod face;

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use packet::{Frame, Instant, IpView, Mac, Ndp, Parsed, Pool, UnicastMac, ethertype};

pub use self::{
    advertise::AdvertiseConfig,
    balancer::VipConfig,
    dhcp::{DhcpConfig, LeaseView, Reservation},
};
pub(crate) use self::face::Face;
use self::{
    advertise::Advertiser,
    balancer::Balancer,
    dhcp::{Served, Server},
};
use crate::{drop::DropReason, header::Header, rate::ErrorLimit};

/// The gateway of a network, as control wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// Its address on the link.
    pub mac: UnicastMac,
    /// Its IP addresses, each with the subnet it serves.
    pub addresses: Vec<IpNetwork>,
    /// What it is for.
    pub role: GatewayRole,
    /// Lends addresses of its first IPv4 subnet.
    pub dhcp: Option<DhcpConfig>,
    /// Advertises itself and its IPv6 subnets.
    pub advertise: Option<AdvertiseConfig>,
}

/// What a gateway is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GatewayRole {
    /// The way out of a network.
    #[default]
    Network,
    /// The router's own face on its uplink: all that comes is for it.
    Uplink,
    /// Names alone, on a link whose router is another: whoever is on the link may ask, and nothing is sent on.
    Resolver,
}

/// What a gateway does beside forwarding, with the state of it.
#[derive(Debug, Default)]
pub(crate) struct Services {
    pub(crate) dhcp: Option<Server>,
    pub(crate) advertiser: Option<Advertiser>,
    pub(crate) balancer: Option<Box<Balancer>>,
    pub(crate) errors: ErrorLimit,
}

impl Services {
    /// Whether the gateway answers for an address that is not its own.
    fn owns(&self, ip: IpAddr) -> bool {
        self.balancer.as_ref().is_some_and(|balancer| balancer.owns(ip))
    }

    /// What `gateway` wants; leases outlive a change.
    pub(crate) fn configure(&mut self, gateway: Option<&GatewayConfig>, now: Instant) {
        let own = gateway.and_then(|gateway| gateway.addresses.iter().find_map(|address| if let IpNetwork::V4(v4) = address { Some(*v4) } else { None }));
        let wanted = gateway.and_then(|gateway| Some((gateway.dhcp.clone()?, own?, gateway.mac)));
        self.dhcp = match (self.dhcp.take(), wanted) {
            (Some(mut server), Some((config, own, mac))) => {
                server.configure(config, own, mac);
                Some(server)
            }
            (None, Some((config, own, mac))) => Some(Server::new(config, own, mac)),
            (_, None) => None,
        };
        self.advertiser = gateway.and_then(|gateway| Some(Advertiser::new(gateway.advertise?, gateway.mac, &gateway.addresses, now)));
    }
}

/// What the gateway does with a frame.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Not for it: the bridge goes on.
    NotMine(Frame),
    /// Answered; the answer goes back into the network.
    Answer(Frame),
    /// Answered, if there is an answer; the frame is for others too, and the bridge goes on.
    AnswerBeside(Frame, Option<Frame>),
    /// For an uplink.
    Outside(Frame),
}

impl GatewayConfig {
    /// A gateway that answers and forwards, and no more.
    #[must_use]
    pub const fn new(mac: UnicastMac, addresses: Vec<IpNetwork>) -> Self {
        Self { mac, addresses, role: GatewayRole::Network, dhcp: None, advertise: None }
    }

    pub(crate) fn owns(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|address| address.ip() == ip) || matches!(ip, IpAddr::V6(v6) if v6 == answer::link_local(self.mac))
    }

    /// Whether an address is of one of its subnets.
    fn serves(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|subnet| subnet.contains(ip))
    }

    /// Its addresses on the link and in the family of `to`, to speak with.
    pub(crate) fn speaker_to(&self, to: IpAddr) -> Option<(Mac, IpAddr)> {
        let own = self.addresses.iter().map(IpNetwork::ip).find(|own| own.is_ipv4() == to.is_ipv4());
        own.map(|own| (self.mac.get(), own))
    }

    /// Deals with a frame that may be for it: to its own address, or to a group and ARP, IPv6 or (for
    /// DHCP) IPv4.
    pub(crate) fn hear(&self, services: &mut Services, header: Header, frame: Frame, now: Instant, pool: &Pool) -> Result<Heard, DropReason> {
        let to_me = header.destination == self.mac.get().as_u64();
        let Some(parsed) = Parsed::new(frame.bytes()).filter(|parsed| parsed.tags == 0) else {
            return if to_me { Err(DropReason::GatewayMalformed) } else { Ok(Heard::NotMine(frame)) };
        };
        if let Some(asker) = answer::asked_by_arp(&parsed, frame.bytes(), |ip| self.owns(ip) || services.owns(ip)) {
            return answer::arp(frame, self.mac.get(), asker).map(Heard::Answer);
        }
        if let Some(target) = answer::asked_by_ndp(&parsed, frame.bytes(), |ip| self.owns(ip) || services.owns(ip)) {
            return answer::ndp(&parsed, &frame, self.mac, target, pool).map(Heard::Answer);
        }
        if let (Some(server), Some(ip)) = (&mut services.dhcp, &parsed.ip)
            && server.is_asked(ip, frame.bytes())
        {
            return server.serve(ip, &frame, now, pool).map(|served| match served {
                Served::Answer(answer) => Heard::Answer(answer),
                Served::NotMine => Heard::NotMine(frame),
            });
        }
        if let (Some(advertiser), Some(Ndp::RouterSolicitation)) = (&mut services.advertiser, parsed.ndp(frame.bytes())) {
            return advertiser.solicited(&parsed, &frame, now, pool).and_then(|answer| match answer {
                Some(answer) if to_me => Ok(Heard::Answer(answer)),
                None if to_me => Err(DropReason::GatewayNothing),
                answer => Ok(Heard::AnswerBeside(frame, answer)),
            });
        }
        if !to_me {
            return Ok(Heard::NotMine(frame));
        }
        match parsed.ip {
            Some(ip) => self.route(ip, frame, &mut services.errors, now, pool),
            // Answers to what the router asked.
            None if parsed.ethertype == ethertype::ARP => Ok(Heard::Outside(frame)),
            None => Err(DropReason::GatewayMalformed),
        }
    }

    /// What came in by the uplink.
    fn arrive(&self, ip: IpView, frame: Frame, errors: &mut ErrorLimit, now: Instant, pool: &Pool) -> Result<Heard, DropReason> {
        let bytes = frame.bytes();
        if self.owns(ip.source) {
            return Err(DropReason::Martian);
        }
        if self.owns(ip.destination) && answer::is_echo_request(&ip, bytes) {
            return answer::echo(&ip, frame, self.mac.get()).map(Heard::Answer);
        }
        if answer::hops(&ip, bytes) <= 1 {
            return self.time_exceeded(&ip, &frame, errors, now, pool);
        }
        Ok(Heard::Outside(frame))
    }

    fn time_exceeded(&self, ip: &IpView, frame: &Frame, errors: &mut ErrorLimit, now: Instant, pool: &Pool) -> Result<Heard, DropReason> {
        let own = self.addresses.iter().map(IpNetwork::ip).find(|own| own.is_ipv4() == ip.source.is_ipv4()).ok_or(DropReason::TtlExpired)?;
        if !errors.may_tell(now) {
            return Err(DropReason::TtlExpired);
        }
        answer::time_exceeded(ip, frame, self.mac.get(), own, pool).map(Heard::Answer)
    }

    fn route(&self, ip: IpView, frame: Frame, errors: &mut ErrorLimit, now: Instant, pool: &Pool) -> Result<Heard, DropReason> {
        let bytes = frame.bytes();
        if !answer::header_is_right(&ip, bytes) {
            return Err(DropReason::GatewayMalformed);
        }
        if ip.protocol == 58 && !ip.is_fragment() && bytes.get(ip.l4_offset) == Some(&136) {
            return Ok(Heard::Outside(frame));
        }
        if self.role == GatewayRole::Uplink {
            return self.arrive(ip, frame, errors, now, pool);
        }
        let is_neighbour = matches!(ip.source, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let is_served = is_neighbour || self.role == GatewayRole::Resolver || self.serves(ip.source);
        if !is_served || self.owns(ip.source) {
            return Err(DropReason::Martian);
        }
        if self.owns(ip.destination) {
            return match answer::is_echo_request(&ip, bytes) {
                true => answer::echo(&ip, frame, self.mac.get()).map(Heard::Answer),
                // Its ports: names, or a refusal, which is the uplink's to say.
                false if matches!(ip.protocol, 6 | 17) && !is_neighbour => Ok(Heard::Outside(frame)),
                false => Err(DropReason::GatewayNothing),
            };
        }
        if self.role == GatewayRole::Resolver {
            return Err(DropReason::GatewayNothing);
        }
        if is_neighbour {
            return Err(DropReason::Martian);
        }
        if answer::hops(&ip, bytes) <= 1 {
            return self.time_exceeded(&ip, &frame, errors, now, pool);
        }
        Ok(Heard::Outside(frame))
    }
}
