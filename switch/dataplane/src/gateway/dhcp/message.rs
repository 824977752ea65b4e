//! DHCP messages (RFC 2131 figure 1, options of RFC 2132) as far as a server wants them; the bytes are
//! smoltcp's affair.

use std::net::Ipv4Addr;

use packet::{Mac, UnicastMac};
use smoltcp::wire::{DhcpFlags, DhcpMessageType, DhcpOption, DhcpPacket, EthernetAddress};

use super::leases::Client;

pub(super) const SERVER: u16 = 67;
pub(super) const CLIENT: u16 = 68;
/// What a client must take at least is 576 bytes of packet: with a client id of this length and a host
/// name of 63 bytes an answer keeps within.
const CLIENT_ID_LEN: usize = 128;
const MAGIC: u32 = 0x6382_5363;
const ETHERNET: u16 = 1;
/// Options begin behind the fixed fields and the magic number.
const OPTIONS: usize = 240;
/// BOOTP's own length (RFC 951), which old clients and relays insist on.
const SHORTEST: usize = 300;

/// Option numbers (RFC 2132).
pub(super) mod option {
    pub(crate) const SUBNET_MASK: u8 = 1;
    pub(crate) const ROUTER: u8 = 3;
    pub(crate) const NAME_SERVER: u8 = 6;
    pub(crate) const HOST_NAME: u8 = 12;
    pub(crate) const MTU: u8 = 26;
    pub(crate) const BROADCAST: u8 = 28;
    pub(crate) const REQUESTED: u8 = 50;
    pub(crate) const LEASE_TIME: u8 = 51;
    pub(crate) const KIND: u8 = 53;
    pub(crate) const SERVER_ID: u8 = 54;
    pub(crate) const WANTED: u8 = 55;
    pub(crate) const RENEWAL: u8 = 58;
    pub(crate) const REBINDING: u8 = 59;
    pub(crate) const CLIENT_ID: u8 = 61;
}

/// What a client says.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) kind: DhcpMessageType,
    pub(super) id: u32,
    /// Answers are to be broadcast.
    pub(super) broadcast: bool,
    /// `ciaddr`: the address it has.
    pub(super) current: Option<Ipv4Addr>,
    pub(super) station: UnicastMac,
    pub(super) client_id: Option<Vec<u8>>,
    pub(super) requested: Option<Ipv4Addr>,
    pub(super) server: Option<Ipv4Addr>,
    pub(super) wants_host_name: bool,
}

impl Request {
    /// `None` for what is no client's message, came through a relay, or cannot be answered.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let packet = DhcpPacket::new_checked(bytes).ok()?;
        let is_client = u8::from(packet.opcode()) == 1 && packet.magic_number() == MAGIC && packet.relay_agent_ip().is_unspecified();
        if !is_client || u16::from(packet.hardware_type()) != ETHERNET || packet.hardware_len() != 6 {
            return None;
        }
        let find = |kind: u8| packet.options().find(|option| option.kind == kind).map(|option| option.data);
        let address = |kind: u8| match find(kind)? {
            &[a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d)),
            _ => None,
        };
        let &[kind] = find(option::KIND)? else { return None };
        let client_id = find(option::CLIENT_ID).filter(|id| !id.is_empty());
        if client_id.is_some_and(|id| id.len() > CLIENT_ID_LEN) {
            return None;
        }
        Some(Self {
            kind: kind.into(),
            id: packet.transaction_id(),
            broadcast: packet.flags().contains(DhcpFlags::BROADCAST),
            current: Some(packet.client_ip()).filter(|ip| !ip.is_unspecified()),
            station: UnicastMac::new(Mac(packet.client_hardware_address().0))?,
            client_id: client_id.map(<[u8]>::to_vec),
            requested: address(option::REQUESTED),
            server: address(option::SERVER_ID),
            wants_host_name: find(option::WANTED).is_some_and(|wanted| wanted.contains(&option::HOST_NAME)),
        })
    }

    /// Who asks: by client identifier, or else by hardware address (RFC 2131 4.2).
    pub(super) fn client(&self) -> Client {
        self.client_id.clone().map_or(Client::Station(self.station), Client::Id)
    }

    /// The UDP datagram of an answer, checksum still to be set.
    pub(super) fn answer(&self, kind: DhcpMessageType, yours: Ipv4Addr, options: &[(u8, Vec<u8>)]) -> Vec<u8> {
        const UDP: usize = 8;
        let type_option = (option::KIND, vec![u8::from(kind)]);
        // A client finds its own identifier again (RFC 6842).
        let echoed = self.client_id.as_ref().map(|id| (option::CLIENT_ID, id.clone()));
        let all: Vec<_> = std::iter::once(&type_option).chain(options).chain(&echoed).collect();
        let length = OPTIONS + all.iter().map(|(_, data)| 2 + data.len()).sum::<usize>() + 1;
        let mut datagram = vec![0; UDP + length.max(SHORTEST)];
        let total = u16::try_from(datagram.len()).unwrap_or(u16::MAX).to_be_bytes();
        datagram[..2].copy_from_slice(&SERVER.to_be_bytes());
        datagram[2..4].copy_from_slice(&CLIENT.to_be_bytes());
        datagram[4..6].copy_from_slice(&total);
        let mut packet = DhcpPacket::new_unchecked(&mut datagram[UDP..]);
        packet.set_opcode(2.into());
        packet.set_hardware_type(ETHERNET.into());
        packet.set_hardware_len(6);
        packet.set_transaction_id(self.id);
        packet.set_flags(if self.broadcast { DhcpFlags::BROADCAST } else { DhcpFlags::empty() });
        if kind == DhcpMessageType::Ack {
            packet.set_client_ip(self.current.unwrap_or(Ipv4Addr::UNSPECIFIED));
        }
        packet.set_your_ip(yours);
        packet.set_client_hardware_address(EthernetAddress(self.station.get().0));
        packet.set_magic_number(MAGIC);
        let mut writer = packet.options_mut();
        for (kind, data) in all {
            // There is room: it was counted.
            writer.emit(DhcpOption { kind: *kind, data }).ok();
        }
        writer.end().ok();
        datagram
    }
}
