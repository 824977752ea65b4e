//! Answers of a gateway: ARP (RFC 826), neighbour advertisement (RFC 4861), echo and time exceeded (RFC
//! 792, RFC 4443). Those of the same length are made in place.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::{ETHERNET_LEN, Frame, IpView, Mac, Ndp, Offload, Parsed, Pool, UnicastMac, checksum::{self, protocol}, ethertype};

use crate::drop::DropReason;

/// Hops of our own packets; neighbour discovery demands 255.
pub(crate) const HOPS: u8 = 64;

/// The link-local address that a MAC gives (RFC 4291 section 2.5.6).
pub(crate) fn link_local(mac: UnicastMac) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(mac.interface_identifier()))
}

/// The address of ours that an ARP request asks for.
pub(crate) fn asked_by_arp(parsed: &Parsed, bytes: &[u8], owns: impl Fn(IpAddr) -> bool) -> Option<Ipv4Addr> {
    let arp = parsed.arp(bytes)?;
    let target = arp.get_target_proto_addr();
    (arp.get_operation().0 == 1 && owns(target.into())).then_some(target)
}

pub(crate) fn arp(mut frame: Frame, mac: Mac, own: Ipv4Addr) -> Result<Frame, DropReason> {
    if !frame.make_unique() {
        return Err(DropReason::NoBuffer);
    }
    frame.offload = Offload::NONE;
    let bytes = frame.bytes_mut();
    let (asker_mac, asker_ip): ([u8; 6], [u8; 4]) = match (bytes[22..28].try_into(), bytes[28..32].try_into()) {
        (Ok(mac), Ok(ip)) => (mac, ip),
        _ => return Err(DropReason::GatewayMalformed),
    };
    bytes[..6].copy_from_slice(&asker_mac);
    bytes[6..12].copy_from_slice(&mac.0);
    bytes[21] = 2;
    bytes[22..28].copy_from_slice(&mac.0);
    bytes[28..32].copy_from_slice(&own.octets());
    bytes[32..38].copy_from_slice(&asker_mac);
    bytes[38..42].copy_from_slice(&asker_ip);
    Ok(frame)
}

/// The address of ours that a neighbour solicitation asks for.
pub(crate) fn asked_by_ndp(parsed: &Parsed, bytes: &[u8], owns: impl Fn(IpAddr) -> bool) -> Option<Ipv6Addr> {
    let Some(Ndp::NeighborSolicitation(target)) = parsed.ndp(bytes) else { return None };
    let hops = parsed.ip.map(|ip| hops(&ip, bytes));
    (hops == Some(255) && owns(target.into())).then_some(target)
}

pub(crate) fn ndp(parsed: &Parsed, asked: &Frame, mac: UnicastMac, target: Ipv6Addr, pool: &Pool) -> Result<Frame, DropReason> {
    let asker = match parsed.ip.map(|ip| ip.source) {
        Some(IpAddr::V6(asker)) => asker,
        _ => return Err(DropReason::GatewayMalformed),
    };
    // A solicitation from nobody is duplicate address detection: everybody is told (RFC 4861 7.2.4).
    let (to, flags) = if asker.is_unspecified() { (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 0xa0) } else { (asker, 0xe0) };
    let mut message = vec![136, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    // Target link-layer address option.
    message.extend([2, 1]);
    message.extend(mac.get().0);
    let mut to_mac = [0; 6];
    if asker.is_unspecified() { to_mac = [0x33, 0x33, 0, 0, 0, 1] } else { to_mac.copy_from_slice(&asked.bytes()[6..12]) }
    icmp(pool, (Mac(to_mac), mac.get()), target.into(), to.into(), 255, &message)
}

pub(crate) fn hops(ip: &IpView, bytes: &[u8]) -> u8 {
    bytes[ip.offset + if ip.source.is_ipv4() { 8 } else { 7 }]
}

/// IPv4 headers carry a checksum; a wrong one is a broken packet (RFC 1812 5.2.2).
pub(crate) fn header_is_right(ip: &IpView, bytes: &[u8]) -> bool {
    ip.source.is_ipv6() || checksum::fold(checksum::sum(&bytes[ip.offset..ip.l4_offset])) == 0xffff
}

pub(crate) fn is_echo_request(ip: &IpView, bytes: &[u8]) -> bool {
    let request = if ip.source.is_ipv4() { (protocol::ICMP, 8) } else { (protocol::ICMPV6, 128) };
    !ip.is_fragment() && ip.l4_len() >= 8 && (ip.protocol, bytes[ip.l4_offset]) == request
}

/// Router and neighbour discovery, which is never translated (RFC 4861 section 4).
pub(crate) fn is_neighbour_discovery(ip: &IpView, bytes: &[u8]) -> bool {
    ip.protocol == protocol::ICMPV6 && !ip.is_fragment() && matches!(bytes.get(ip.l4_offset), Some(133..=137))
}

/// The reset that refuses a segment (RFC 9293 section 3.5.2), from whom it was for.
pub(crate) fn reset(ip: &IpView, about: &Frame, mac: Mac, pool: &Pool) -> Result<Frame, DropReason> {
    const SYN_FIN: u8 = 3;
    let bytes = about.bytes();
    let header = bytes.get(ip.l4_offset..ip.end()).filter(|header| header.len() >= 20).ok_or(DropReason::GatewayMalformed)?;
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (flags, offset) = (header[13], usize::from(header[12] >> 4) * 4);
    if flags & 4 != 0 || offset > header.len() {
        return Err(DropReason::Vip);
    }
    let (sequence, acknowledgment, answer) = if flags & 16 != 0 {
        (word(8), 0, 4)
    } else {
        let length = u32::try_from(header.len() - offset).unwrap_or_default() + (flags & SYN_FIN).count_ones();
        (0, word(4).wrapping_add(length), 4 | 16)
    };
    let mut message = Vec::with_capacity(20);
    message.extend(header[2..4].iter().chain(&header[..2]));
    message.extend(u32::to_be_bytes(sequence).into_iter().chain(u32::to_be_bytes(acknowledgment)));
    message.extend([0x50, answer, 0, 0, 0, 0, 0, 0]);
    packet(pool, (Mac::source_of(bytes).ok_or(DropReason::GatewayMalformed)?, mac), ip.destination, ip.source, HOPS, protocol::TCP, &message)
}

pub(crate) fn echo(ip: &IpView, mut frame: Frame, mac: Mac) -> Result<Frame, DropReason> {
    if !frame.make_unique() {
        return Err(DropReason::NoBuffer);
    }
    let bytes = frame.bytes_mut();
    bytes.copy_within(6..12, 0);
    bytes[6..12].copy_from_slice(&mac.0);
    let (reply, at, length) = if ip.source.is_ipv4() { (0, ip.offset + 12, 4) } else { (129, ip.offset + 8, 16) };
    let (source, destination) = bytes[at..at + 2 * length].split_at_mut(length);
    source.swap_with_slice(destination);
    let request = bytes[ip.l4_offset];
    bytes[ip.l4_offset] = reply;
    let field = ip.l4_offset + 2;
    let old = u16::from_be_bytes([bytes[field], bytes[field + 1]]);
    let code = bytes[ip.l4_offset + 1];
    let new = checksum::update(old, &[request, code], &[reply, code]);
    bytes[field..field + 2].copy_from_slice(&new.to_be_bytes());
    Ok(frame)
}

/// Tells the sender of a packet of a problem, with the start of the packet (RFC 1812 4.3.2.3: as much as fits
/// in 576 bytes; RFC 4443 2.4: in 1280). `what` is type, code and the word behind the checksum.
pub(crate) fn error(ip: &IpView, bytes: &[u8], mac: Mac, own: IpAddr, what: (u8, u8, u32), pool: &Pool) -> Result<Frame, DropReason> {
    // No error about an error, a later fragment, or what went to or came from a group (RFC 1122 3.2.2).
    let first = bytes.get(ip.l4_offset).copied().unwrap_or(0);
    let is_error = match ip.protocol {
        protocol::ICMP => !matches!(first, 0 | 8 | 13 | 14),
        protocol::ICMPV6 => first < 128,
        _ => false,
    };
    if is_error || ip.fragment_offset > 0 || ip.source.is_multicast() || ip.source.is_unspecified() {
        return Err(DropReason::GatewayNothing);
    }
    let most = if own.is_ipv4() { 576 - 28 } else { 1280 - 48 };
    let quoted = &bytes[ip.offset..ip.end().min(ip.offset + most)];
    let (kind, code, rest) = what;
    let message = [&[kind, code, 0, 0][..], &rest.to_be_bytes(), quoted].concat();
    let mut to = [0; 6];
    to.copy_from_slice(&bytes[6..12]);
    icmp(pool, (Mac(to), mac), own, ip.source, HOPS, &message)
}

/// Tells the sender of a packet that its hops are used up.
pub(crate) fn time_exceeded(ip: &IpView, about: &Frame, mac: Mac, own: IpAddr, pool: &Pool) -> Result<Frame, DropReason> {
    let kind = if own.is_ipv4() { 11 } else { 3 };
    error(ip, about.bytes(), mac, own, (kind, 0, 0), pool).map_err(|_| DropReason::TtlExpired)
}

pub(crate) fn icmp(pool: &Pool, macs: (Mac, Mac), from: IpAddr, to: IpAddr, hops: u8, message: &[u8]) -> Result<Frame, DropReason> {
    let number = if from.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
    packet(pool, macs, from, to, hops, number, message)
}

/// A frame with a whole packet, both checksums set. `message` is ICMP, or UDP with its header.
pub(crate) fn packet(pool: &Pool, (to_mac, from_mac): (Mac, Mac), from: IpAddr, to: IpAddr, hops: u8, number: u8, message: &[u8]) -> Result<Frame, DropReason> {
    let mut ip = Vec::with_capacity(40);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = u16::try_from(20 + message.len()).unwrap_or(u16::MAX).to_be_bytes();
            ip.extend([0x45, 0, length[0], length[1], 0, 0, 0x40, 0, hops, number, 0, 0]);
            ip.extend(from.octets().into_iter().chain(to.octets()));
            let sum = !checksum::fold(checksum::sum(&ip));
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let length = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes();
            ip.extend([0x60, 0, 0, 0, length[0], length[1], number, hops]);
            ip.extend(from.octets().into_iter().chain(to.octets()));
        }
        _ => return Err(DropReason::GatewayMalformed),
    }
    let pseudo = if number == protocol::ICMP { 0 } else { checksum::pseudo_header(&ip, number, message.len()).unwrap_or_default() };
    let sum = match !checksum::fold(checksum::sum(message) + pseudo) {
        0 if number == protocol::UDP => 0xffff,
        sum => sum,
    };
    let field = match number {
        protocol::TCP => 16,
        protocol::UDP => 6,
        _ => 2,
    };
    let kind = if from.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 };
    let length = ETHERNET_LEN + ip.len() + message.len();
    let mut frame = pool.take_for(length).ok_or(DropReason::NoBuffer)?;
    frame.set_len(length);
    let bytes = frame.bytes_mut();
    bytes[..6].copy_from_slice(&to_mac.0);
    bytes[6..12].copy_from_slice(&from_mac.0);
    bytes[12..14].copy_from_slice(&kind.to_be_bytes());
    bytes[14..14 + ip.len()].copy_from_slice(&ip);
    let l4 = 14 + ip.len();
    bytes[l4..].copy_from_slice(message);
    bytes[l4 + field..l4 + field + 2].copy_from_slice(&sum.to_be_bytes());
    Ok(frame)
}
