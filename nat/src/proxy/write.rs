//! Frames to sandboxes: Ethernet, IP, and TCP, UDP or ICMP, with the checksum left to the offload.

use std::net::{IpAddr, SocketAddr};

use packet::{BufferClass, Checksum, ETHERNET_LEN, Frame, Gso, Mac, Offload, Pool, VIRTIO_NET_HDR_LEN, checksum::{self, protocol}, ethertype};

/// Hops that packets of ours may still make.
const HOPS: u8 = 64;
/// An IPv6 and a TCP header with all options it can have, behind Ethernet: the most that comes before a payload.
const HEADERS: usize = ETHERNET_LEN + 40 + 60;

/// From whom and to whom, on which link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    pub(crate) from_mac: Mac,
    pub(crate) to_mac: Mac,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
}

/// A TCP header to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpHeader<'a> {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    /// A multiple of four bytes, at most 40.
    pub(crate) options: &'a [u8],
    /// Payload bytes per segment; larger payloads become super-frames.
    pub(crate) mss: u16,
}

/// A buffer for a payload of up to `length` bytes, which `fill` writes; how many it was.
pub(crate) fn with_payload<E>(pool: &Pool, length: usize, fill: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<Option<(Frame, usize)>, E> {
    let class = if HEADERS + length <= BufferClass::Small.frame_capacity() { BufferClass::Small } else { BufferClass::Large };
    let Some(mut frame) = pool.take(class).or_else(|| pool.take(BufferClass::Large)) else { return Ok(None) };
    // The longest payloads take some of the headroom.
    let room = frame.storage_mut().len();
    let start = (frame.headroom() + HEADERS).min(room.saturating_sub(length)).max(HEADERS + VIRTIO_NET_HDR_LEN);
    let length = length.min(room - start);
    let filled = fill(&mut frame.storage_mut()[start..start + length])?;
    frame.set_bounds(start, filled);
    Ok(Some((frame, filled)))
}

/// Puts the headers of a TCP segment before the payload in `frame`.
pub(crate) fn tcp(frame: &mut Frame, path: &Path, header: TcpHeader) {
    let payload = frame.len();
    let length = 20 + header.options.len();
    frame.push(length);
    let bytes = frame.bytes_mut();
    bytes[..2].copy_from_slice(&path.from.port().to_be_bytes());
    bytes[2..4].copy_from_slice(&path.to.port().to_be_bytes());
    bytes[4..8].copy_from_slice(&header.seq.to_be_bytes());
    bytes[8..12].copy_from_slice(&header.ack.to_be_bytes());
    bytes[12] = u8::try_from((length / 4) << 4).unwrap_or(0x50);
    bytes[13] = header.flags;
    bytes[14..16].copy_from_slice(&header.window.to_be_bytes());
    bytes[16..20].fill(0);
    bytes[20..length].copy_from_slice(header.options);
    let gso = match (payload > usize::from(header.mss), path.to.is_ipv4()) {
        (false, _) => Gso::None,
        (true, true) => Gso::Tcp4 { size: header.mss, ecn: false },
        (true, false) => Gso::Tcp6 { size: header.mss, ecn: false },
    };
    finish(frame, path, protocol::TCP, 16, gso);
}

/// Puts the headers of a datagram before the payload in `frame`.
pub(crate) fn udp(frame: &mut Frame, path: &Path) {
    frame.push(8);
    let length = u16::try_from(frame.len()).unwrap_or(u16::MAX);
    let bytes = frame.bytes_mut();
    bytes[..2].copy_from_slice(&path.from.port().to_be_bytes());
    bytes[2..4].copy_from_slice(&path.to.port().to_be_bytes());
    bytes[4..6].copy_from_slice(&length.to_be_bytes());
    bytes[6..8].fill(0);
    finish(frame, path, protocol::UDP, 6, Gso::None);
}

/// Puts the headers before an ICMP or ICMPv6 message in `frame`, and its checksum into it.
pub(crate) fn icmp(frame: &mut Frame, path: &Path) {
    let length = frame.len();
    let number = if path.to.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
    frame.bytes_mut()[2..4].fill(0);
    let message = checksum::sum(frame.bytes());
    ip(frame, path.from.ip(), path.to.ip(), number);
    let pseudo = if path.to.is_ipv4() { 0 } else { checksum::pseudo_header(frame.bytes(), number, length).unwrap_or_default() };
    let start = frame.len() - length;
    let value = !checksum::fold(message + pseudo);
    frame.bytes_mut()[start + 2..start + 4].copy_from_slice(&value.to_be_bytes());
    ethernet(frame, path);
}

/// Cuts an IPv4 packet that is longer than the MTU into fragments (RFC 791); an IPv6 one gets a
/// fragment header (RFC 8200 4.5). The checksum is finished first, since it covers the whole.
pub(crate) fn fragment(pool: &Pool, frame: &Frame, mtu: usize, mut sink: impl FnMut(Frame)) {
    let Some(mut whole) = frame.duplicate() else { return };
    checksum::complete(&mut whole);
    let bytes = whole.bytes();
    let is_v4 = bytes[12..14] == ethertype::IPV4.to_be_bytes();
    let header = if is_v4 { 20 } else { 40 };
    let (head, payload) = bytes.split_at(ETHERNET_LEN + header);
    let extra = if is_v4 { 0 } else { 8 };
    let step = (mtu - header - extra) / 8 * 8;
    #[expect(clippy::cast_possible_truncation, reason = "an identification of 16 or 32 bits, from what differs between datagrams")]
    let id = checksum::sum(payload) as u32 ^ payload.len() as u32;
    for (number, part) in payload.chunks(step).enumerate() {
        let offset = u16::try_from(number * step).unwrap_or(u16::MAX);
        let more = usize::from(offset) + part.len() < payload.len();
        let length = head.len() + extra + part.len();
        let Some(mut out) = pool.take_for(length) else { return };
        out.set_len(length);
        let to = out.bytes_mut();
        to[..head.len()].copy_from_slice(head);
        to[head.len() + extra..].copy_from_slice(part);
        let ip = &mut to[ETHERNET_LEN..];
        if is_v4 {
            ip[2..4].copy_from_slice(&u16::try_from(header + part.len()).unwrap_or(u16::MAX).to_be_bytes());
            ip[4..6].copy_from_slice(&id.to_be_bytes()[2..]);
            ip[6..8].copy_from_slice(&((offset / 8) | if more { 0x2000 } else { 0 }).to_be_bytes());
            ip[10..12].fill(0);
            let sum = !checksum::fold(checksum::sum(&ip[..20]));
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            ip[4..6].copy_from_slice(&u16::try_from(8 + part.len()).unwrap_or(u16::MAX).to_be_bytes());
            let number = std::mem::replace(&mut ip[6], 44);
            ip[40] = number;
            ip[41] = 0;
            ip[42..44].copy_from_slice(&(offset | u16::from(more)).to_be_bytes());
            ip[44..48].copy_from_slice(&id.to_be_bytes());
        }
        sink(out);
    }
}

fn finish(frame: &mut Frame, path: &Path, number: u8, field: u16, gso: Gso) {
    let length = frame.len();
    ip(frame, path.from.ip(), path.to.ip(), number);
    let pseudo = checksum::fold(checksum::pseudo_header(frame.bytes(), number, length).unwrap_or_default());
    let start = frame.len() - length;
    let at = start + usize::from(field);
    frame.bytes_mut()[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
    ethernet(frame, path);
    let start = u16::try_from(start + ETHERNET_LEN).unwrap_or_default();
    frame.offload = Offload { checksum: Checksum::Partial { start, offset: field }, gso };
}

fn ip(frame: &mut Frame, from: IpAddr, to: IpAddr, number: u8) {
    let length = frame.len();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.push(20);
            let total = u16::try_from(length + 20).unwrap_or(u16::MAX);
            let bytes = &mut frame.bytes_mut()[..20];
            bytes.fill(0);
            bytes[0] = 0x45;
            bytes[2..4].copy_from_slice(&total.to_be_bytes());
            // Don't fragment: what does not fit is told, not cut.
            bytes[6] = 0x40;
            bytes[8] = HOPS;
            bytes[9] = number;
            bytes[12..16].copy_from_slice(&from.octets());
            bytes[16..20].copy_from_slice(&to.octets());
            let sum = !checksum::fold(checksum::sum(bytes));
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.push(40);
            let bytes = &mut frame.bytes_mut()[..40];
            bytes.fill(0);
            bytes[0] = 0x60;
            bytes[4..6].copy_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
            bytes[6] = number;
            bytes[7] = HOPS;
            bytes[8..24].copy_from_slice(&from.octets());
            bytes[24..40].copy_from_slice(&to.octets());
        }
        // Flows have ends of one family; a frame without an IP header goes nowhere.
        _ => {}
    }
}

fn ethernet(frame: &mut Frame, path: &Path) {
    frame.push(ETHERNET_LEN);
    let kind = if path.to.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 };
    let bytes = frame.bytes_mut();
    bytes[..6].copy_from_slice(&path.to_mac.0);
    bytes[6..12].copy_from_slice(&path.from_mac.0);
    bytes[12..14].copy_from_slice(&kind.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use packet::PoolConfig;

    use super::*;

    fn path(from: &str, to: &str) -> Path {
        Path { from_mac: Mac([2, 0, 0, 0, 0, 1]), to_mac: Mac([2, 0, 0, 0, 0, 2]), from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    fn payload(pool: &Pool, bytes: &[u8]) -> Frame {
        let fill = |into: &mut [u8]| {
            into.copy_from_slice(bytes);
            Ok::<_, ()>(bytes.len())
        };
        with_payload(pool, bytes.len(), fill).unwrap().unwrap().0
    }

    #[test]
    fn checksums_are_right_once_finished() {
        let pool = Pool::new(PoolConfig::default());
        for (from, to) in [("10.0.0.1:80", "10.0.0.2:4000"), ("[fd00::1]:80", "[fd00::2]:4000")] {
            let path = path(from, to);
            let header = TcpHeader { seq: 1, ack: 2, flags: 0x18, window: 3, options: &[2, 4, 5, 180], mss: 1460 };
            let mut segment = payload(&pool, b"payload");
            tcp(&mut segment, &path, header);
            let mut datagram = payload(&pool, b"odd");
            udp(&mut datagram, &path);
            let mut echo = payload(&pool, &[8, 0, 0, 0, 1, 2, 3, 4, 5]);
            icmp(&mut echo, &path);
            for mut frame in [segment, datagram, echo] {
                checksum::complete(&mut frame);
                assert!(checksum::verify(frame.bytes()), "{frame:?}");
                assert!(packet::Parsed::new(frame.bytes()).unwrap().ip.is_some());
            }
        }
    }

    #[test]
    fn a_payload_above_the_segment_size_is_a_super_frame() {
        let pool = Pool::new(PoolConfig::default());
        let mut frame = payload(&pool, &[7; 5000]);
        tcp(&mut frame, &path("10.0.0.1:80", "10.0.0.2:4000"), TcpHeader { seq: 1, ack: 2, flags: 0x10, window: 3, options: &[], mss: 1460 });
        assert_eq!(frame.offload.gso, Gso::Tcp4 { size: 1460, ecn: false });
        assert!(packet::longest_segment(&frame).is_some_and(|longest| longest == 1514));
    }
}
