//! A DHCP server (RFC 2131) of one network, in virtual time.
//!
//! Stations that control made have their address by IPAM: a reservation says which, and they get no
//! other. All others share a range. Leases do not outlive the server: a client that asks for an address
//! which is free has it (RFC 2131 4.3.2 lets a server be silent about clients it does not know, which
//! would cost them their address after each restart).
//!
//! Only what clients send from their own hardware address is served; relays are not.

mod leases;
mod message;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnetwork::Ipv4Network;
use packet::{Checksum, Duration, Frame, Instant, IpView, Mac, Pool, UnicastMac, checksum};
use smoltcp::wire::DhcpMessageType;

use self::{
    leases::Leases,
    message::{Request, SERVER, option},
};
use super::answer;
use crate::drop::DropReason;

/// What DHCP clients of a network are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpConfig {
    /// First and last address for stations without a reservation; none when they are the wrong way round.
    pub range: (Ipv4Addr, Ipv4Addr),
    /// Addresses of the range that are never handed out.
    pub excluded: Vec<Ipv4Addr>,
    /// How long an address is lent.
    pub lease: Duration,
    /// Whether the gateway leads outside.
    pub is_router: bool,
    /// Largest packet of the network, bytes.
    pub mtu: u16,
}

/// The address of a station that control knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its name, for those who ask.
    pub host_name: Option<String>,
}

/// An offer is kept that long for the client's request.
const OFFER: Duration = Duration::from_secs(60);
/// An address that was found in use is not handed out for that long.
const DECLINED: Duration = Duration::from_secs(600);

/// An address that is lent, or kept for a station.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// The address.
    pub ip: Ipv4Addr,
    /// Who has it: a MAC address, or a client identifier (RFC 2132 section 9.14) in hexadecimal; nobody when a
    /// client found a stranger at it.
    pub client: Option<String>,
    /// The name that goes with it.
    pub host_name: Option<String>,
    /// How long still; for ever when it is kept for a station.
    pub left: Option<packet::Duration>,
}

/// What becomes of a message to the server.
#[derive(Debug)]
pub(super) enum Served {
    Answer(Frame),
    /// For another server: the bridge goes on.
    NotMine,
}

#[derive(Debug)]
pub(crate) struct Server {
    config: DhcpConfig,
    /// The gateway's address and subnet.
    own: Ipv4Network,
    mac: Mac,
    reservations: BTreeMap<UnicastMac, Reservation>,
    leases: Leases,
}

/// An answer before it is bytes.
struct Answer {
    kind: DhcpMessageType,
    yours: Ipv4Addr,
    /// With a lease, or configuration alone (DHCPINFORM).
    is_lease: bool,
    host_name: Option<String>,
}

impl Server {
    pub(super) fn new(config: DhcpConfig, own: Ipv4Network, mac: UnicastMac) -> Self {
        let leases = Leases::new(config.range, config.excluded.iter().copied().chain([own.ip()]).collect());
        Self { config, own, mac: mac.get(), reservations: BTreeMap::new(), leases }
    }

    /// Takes another configuration; leases and reservations stay.
    pub(super) fn configure(&mut self, config: DhcpConfig, own: Ipv4Network, mac: UnicastMac) {
        let reserved = self.reservations.values().map(|reservation| reservation.ip);
        let excluded: BTreeSet<_> = config.excluded.iter().copied().chain([own.ip()]).chain(reserved).collect();
        self.leases.configure(config.range, excluded);
        (self.config, self.own, self.mac) = (config, own, mac.get());
    }

    pub(crate) fn reserve(&mut self, station: UnicastMac, reservation: Reservation) {
        self.unreserve(station);
        self.leases.exclude(reservation.ip);
        self.reservations.insert(station, reservation);
    }

    pub(crate) fn unreserve(&mut self, station: UnicastMac) {
        if let Some(reservation) = self.reservations.remove(&station)
            && reservation.ip != self.own.ip()
            && !self.config.excluded.contains(&reservation.ip)
        {
            self.leases.include(reservation.ip);
        }
    }

    /// Addresses kept for stations, then those that are lent.
    pub(crate) fn views(&self, now: Instant) -> Vec<LeaseView> {
        let kept = self.reservations.iter().map(|(station, reservation)| LeaseView { ip: reservation.ip, client: Some(station.get().to_string()), host_name: reservation.host_name.clone(), left: None });
        let lent = self.leases.running(now).map(|(ip, client, left)| LeaseView { ip, client: client.name(), host_name: None, left: Some(left) });
        kept.chain(lent).collect()
    }

    /// Whether a packet is for a DHCP server that is us or anybody.
    pub(super) fn is_asked(&self, ip: &IpView, bytes: &[u8]) -> bool {
        let is_here = ip.destination == Ipv4Addr::BROADCAST || ip.destination == self.own.ip() || ip.destination == self.own.broadcast();
        let port = bytes.get(ip.l4_offset + 2..ip.l4_offset + 4);
        is_here && ip.protocol == checksum::protocol::UDP && !ip.is_fragment() && port == Some(&SERVER.to_be_bytes()[..])
    }

    /// Serves a packet that [`is_asked`](Self::is_asked) took.
    pub(super) fn serve(&mut self, ip: &IpView, frame: &Frame, now: Instant, pool: &Pool) -> Result<Served, DropReason> {
        let bytes = frame.bytes();
        let is_sound = answer::header_is_right(ip, bytes) && (frame.offload.checksum != Checksum::Complete || checksum::verify(bytes));
        let payload = bytes.get(ip.l4_offset + 8..ip.end()).filter(|_| is_sound);
        let request = payload.and_then(Request::parse).filter(|request| request.station.get().0 == bytes[6..12]).ok_or(DropReason::DhcpMalformed)?;
        if request.server.is_some_and(|server| server != self.own.ip()) {
            // Chosen was another server, and what we offered is free again (RFC 2131 4.3.2).
            if let Some((ip, _)) = self.leases.of(&request.client()).filter(|_| request.kind == DhcpMessageType::Request) {
                self.leases.release(&request.client(), ip, now);
            }
            return Ok(Served::NotMine);
        }
        let answer = self.decide(&request, now)?;
        self.emit(&request, &answer, pool).map(Served::Answer)
    }

    fn decide(&mut self, request: &Request, now: Instant) -> Result<Answer, DropReason> {
        match request.kind {
            DhcpMessageType::Discover => self.discover(request, now),
            DhcpMessageType::Request => self.request(request, now),
            DhcpMessageType::Inform => self.inform(request),
            DhcpMessageType::Release | DhcpMessageType::Decline => {
                self.give_back(request, now);
                // Neither has an answer.
                Err(DropReason::GatewayNothing)
            }
            DhcpMessageType::Offer | DhcpMessageType::Ack | DhcpMessageType::Nak | DhcpMessageType::Unknown(_) => Err(DropReason::DhcpMalformed),
        }
    }

    fn discover(&mut self, request: &Request, now: Instant) -> Result<Answer, DropReason> {
        if let Some(reservation) = self.reservations.get(&request.station) {
            return Ok(Answer::lease(DhcpMessageType::Offer, reservation.ip, reservation.host_name.clone()));
        }
        let client = request.client();
        let ip = self.leases.choose(&client, request.requested, now).ok_or(DropReason::DhcpFull)?;
        // A lease that runs is not cut short by an offer of it.
        let runs_until = self.leases.of(&client).filter(|(own, _)| *own == ip).map_or(now, |(_, end)| end);
        let is_held = self.leases.hold(client, ip, runs_until.max(now + OFFER), now);
        if is_held { Ok(Answer::lease(DhcpMessageType::Offer, ip, None)) } else { Err(DropReason::DhcpFull) }
    }

    /// Selecting, init-reboot, renewing and rebinding (RFC 2131 4.3.2) ask the same thing: may I have
    /// this address?
    fn request(&mut self, request: &Request, now: Instant) -> Result<Answer, DropReason> {
        let wanted = request.current.or(request.requested).ok_or(DropReason::DhcpMalformed)?;
        if let Some(reservation) = self.reservations.get(&request.station) {
            let is_it = reservation.ip == wanted;
            return Ok(if is_it { Answer::lease(DhcpMessageType::Ack, wanted, reservation.host_name.clone()) } else { Answer::refusal() });
        }
        let client = request.client();
        if !self.leases.may_have(&client, wanted, now) {
            return Ok(Answer::refusal());
        }
        let is_held = self.leases.hold(client, wanted, now + self.config.lease, now);
        if is_held { Ok(Answer::lease(DhcpMessageType::Ack, wanted, None)) } else { Err(DropReason::DhcpFull) }
    }

    fn inform(&self, request: &Request) -> Result<Answer, DropReason> {
        if !request.current.is_some_and(|ip| self.own.contains(ip)) {
            return Err(DropReason::DhcpMalformed);
        }
        let host_name = self.reservations.get(&request.station).and_then(|reservation| reservation.host_name.clone());
        Ok(Answer { kind: DhcpMessageType::Ack, yours: Ipv4Addr::UNSPECIFIED, is_lease: false, host_name })
    }

    fn give_back(&mut self, request: &Request, now: Instant) {
        let client = request.client();
        match (request.kind == DhcpMessageType::Release, request.current, request.requested) {
            (true, Some(ip), _) => self.leases.release(&client, ip, now),
            (false, _, Some(ip)) => self.leases.refuse(&client, ip, now + DECLINED, now),
            _ => {}
        }
    }

    fn emit(&self, request: &Request, answer: &Answer, pool: &Pool) -> Result<Frame, DropReason> {
        let own = self.own.ip();
        let options = if answer.kind == DhcpMessageType::Nak { vec![(option::SERVER_ID, own.octets().to_vec())] } else { self.options(request, answer) };
        let datagram = request.answer(answer.kind, answer.yours, &options);
        let everybody = (Mac::BROADCAST, Ipv4Addr::BROADCAST);
        // RFC 2131 4.1: a client that is refused may have no address that it may listen on.
        let (mac, to) = match request.current {
            _ if answer.kind == DhcpMessageType::Nak => everybody,
            Some(current) => (request.station.get(), current),
            None if request.broadcast => everybody,
            None => (request.station.get(), answer.yours),
        };
        answer::packet(pool, (mac, self.mac), own.into(), to.into(), answer::HOPS, checksum::protocol::UDP, &datagram)
    }

    fn options(&self, request: &Request, answer: &Answer) -> Vec<(u8, Vec<u8>)> {
        let own = self.own.ip().octets().to_vec();
        let mut options = vec![
            (option::SERVER_ID, own.clone()),
            (option::SUBNET_MASK, self.own.mask().octets().to_vec()),
            (option::BROADCAST, self.own.broadcast().octets().to_vec()),
            (option::MTU, self.config.mtu.to_be_bytes().to_vec()),
            (option::NAME_SERVER, own.clone()),
        ];
        if self.config.is_router {
            options.push((option::ROUTER, own));
        }
        if answer.is_lease {
            let seconds = u32::try_from(self.config.lease.as_secs()).unwrap_or(u32::MAX);
            // RFC 2131 4.4.5: renewal at half of it, rebinding at seven eighths.
            for (kind, seconds) in [(option::LEASE_TIME, seconds), (option::RENEWAL, seconds / 2), (option::REBINDING, seconds - seconds / 8)] {
                options.push((kind, seconds.to_be_bytes().to_vec()));
            }
        }
        let name = answer.host_name.as_ref().filter(|name| request.wants_host_name && (1..=63).contains(&name.len()));
        options.extend(name.map(|name| (option::HOST_NAME, name.clone().into_bytes())));
        options
    }
}

impl Answer {
    fn lease(kind: DhcpMessageType, yours: Ipv4Addr, host_name: Option<String>) -> Self {
        Self { kind, yours, is_lease: true, host_name }
    }

    fn refusal() -> Self {
        Self { kind: DhcpMessageType::Nak, yours: Ipv4Addr::UNSPECIFIED, is_lease: false, host_name: None }
    }
}
