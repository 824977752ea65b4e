//! Packets by hand, and a translator with two networks, in virtual time.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test uses its part, and fails by panic")]

use std::net::{IpAddr, SocketAddr};

use weft_nat::{Behaviour, Inside, Nat, NatConfig, NatDrop, Translated, Translation, Unwanted};
use packet::{Duration, Frame, Instant, NetworkId, Parsed, Pool, PoolConfig, checksum};

pub const A: NetworkId = NetworkId::new(0, 0);
pub const B: NetworkId = NetworkId::new(1, 0);
pub const EXTERNAL: &str = "198.51.100.1";
pub const EXTERNAL6: &str = "2001:db8:ffff::1";

pub const SYN: u8 = 2;
pub const ACK: u8 = 16;
pub const FIN: u8 = 1;
pub const RST: u8 = 4;

pub fn end(text: &str) -> SocketAddr {
    text.parse().expect("an end")
}

/// What a test sends.
#[derive(Clone, Copy, Debug)]
pub enum L4 {
    Udp(SocketAddr, SocketAddr),
    Tcp(SocketAddr, SocketAddr, u8),
    /// Identifier and whether it asks.
    Echo(IpAddr, IpAddr, u16, bool),
    Other(IpAddr, IpAddr, u8),
}

fn l4_bytes(l4: L4, payload: &[u8]) -> (IpAddr, IpAddr, u8, Vec<u8>) {
    match l4 {
        L4::Udp(from, to) => {
            let length = u16::try_from(8 + payload.len()).unwrap();
            let header = [from.port().to_be_bytes(), to.port().to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
            (from.ip(), to.ip(), 17, [&header, payload].concat())
        }
        L4::Tcp(from, to, flags) => {
            let mut header = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
            header.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            (from.ip(), to.ip(), 6, [&header, payload].concat())
        }
        L4::Echo(from, to, id, asks) => {
            let (number, kind) = match (from.is_ipv4(), asks) {
                (true, true) => (1, 8),
                (true, false) => (1, 0),
                (false, true) => (58, 128),
                (false, false) => (58, 129),
            };
            let header = [&[kind, 0, 0, 0][..], &id.to_be_bytes(), &[0, 7]].concat();
            (from, to, number, [&header, payload].concat())
        }
        L4::Other(from, to, number) => (from, to, number, payload.to_vec()),
    }
}

/// An IP header; `fragment` is identification, offset in bytes, more.
pub fn ip_packet(from: IpAddr, to: IpAddr, number: u8, fragment: Option<(u16, u16, bool)>, l4: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let (id, offset, more) = fragment.unwrap_or((0, 0, false));
            let mut header = vec![0x45, 0];
            header.extend(u16::try_from(20 + l4.len()).unwrap().to_be_bytes());
            header.extend(id.to_be_bytes());
            header.extend(((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
            header.extend([64, number, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = !checksum::fold(checksum::sum(&header));
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            [&header, l4].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let extension = fragment.map(|(id, offset, more)| [&[number, 0][..], &(offset | u16::from(more)).to_be_bytes(), &[0, 0], &id.to_be_bytes()].concat());
            let extension = extension.unwrap_or_default();
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(u16::try_from(extension.len() + l4.len()).unwrap().to_be_bytes());
            header.extend([if extension.is_empty() { number } else { 44 }, 64]);
            header.extend(from.octets());
            header.extend(to.octets());
            [&header[..], &extension, l4].concat()
        }
        _ => panic!("one family"),
    }
}

/// The L4 checksum written into `l4`.
pub fn summed(from: IpAddr, to: IpAddr, number: u8, mut l4: Vec<u8>) -> Vec<u8> {
    let at = match number {
        6 => 16,
        17 => 6,
        1 | 58 => 2,
        _ => return l4,
    };
    let header = ip_packet(from, to, number, None, &[]);
    let pseudo = if number == 1 { 0 } else { checksum::pseudo_header(&header, number, l4.len()).unwrap() };
    let sum = !checksum::fold(checksum::sum(&l4) + pseudo);
    l4[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    l4
}

pub fn ethernet(ip: &[u8]) -> Vec<u8> {
    let kind = if ip[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &kind, ip].concat()
}

pub fn bytes_of(l4: L4, payload: &[u8]) -> Vec<u8> {
    let (from, to, number, l4) = l4_bytes(l4, payload);
    ethernet(&ip_packet(from, to, number, None, &summed(from, to, number, l4)))
}

/// A UDP datagram in fragments of `size` bytes.
pub fn fragments_of(from: SocketAddr, to: SocketAddr, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
    let (source, destination, number, l4) = l4_bytes(L4::Udp(from, to), payload);
    let l4 = summed(source, destination, number, l4);
    let count = l4.len().div_ceil(size);
    l4.chunks(size)
        .enumerate()
        .map(|(at, part)| ethernet(&ip_packet(source, destination, number, Some((77, u16::try_from(at * size).unwrap(), at + 1 < count)), part)))
        .collect()
}

/// An ICMP error from `from` about `about` (an Ethernet frame).
pub fn icmp_error(from: &str, to: &str, kind: u8, code: u8, about: &[u8]) -> Vec<u8> {
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let number = if from.is_ipv4() { 1 } else { 58 };
    let quote = &about[14..about.len().min(14 + 60)];
    let message = [&[kind, code, 0, 0, 0, 0, 0, 0][..], quote].concat();
    ethernet(&ip_packet(from, to, number, None, &summed(from, to, number, message)))
}

/// What came out: where to, and from whom to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub to: Option<NetworkId>,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub bytes: Vec<u8>,
}

pub struct World {
    pub nat: Nat,
    pub now: Instant,
    pub pool: Pool,
    pub unwanted: Vec<Unwanted>,
}

impl World {
    pub fn new(behaviour: Behaviour) -> Self {
        Self::with(behaviour, NatConfig { seed: 7, most: 4096, ..NatConfig::default() })
    }

    pub fn with(behaviour: Behaviour, config: NatConfig) -> Self {
        let mut nat = Nat::new(config);
        nat.set_externals(vec![EXTERNAL.parse().unwrap(), EXTERNAL6.parse().unwrap()]);
        for (network, subnets) in [(A, ["10.0.0.0/24", "fd00:a::/64"]), (B, ["10.0.1.0/24", "fd00:b::/64"])] {
            let subnets = subnets.iter().map(|subnet| subnet.parse().unwrap()).collect();
            nat.set_network(network, Inside { subnets, translation: Translation::Masquerade, prefixes: None, behaviour });
        }
        Self { nat, now: Instant::from_nanos(1_000_000_000), pool: Pool::new(PoolConfig::default()), unwanted: Vec::new() }
    }

    pub fn frame(&self, bytes: &[u8]) -> Frame {
        self.pool.copy_of(bytes).expect("a buffer")
    }

    pub fn wait(&mut self, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        while let Some(at) = self.nat.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            let unwanted = &mut self.unwanted;
            self.nat.handle_timeout(self.now, |one| unwanted.push(one));
        }
        self.now = until;
    }

    pub fn out_bytes(&mut self, network: NetworkId, bytes: &[u8]) -> Result<Vec<Seen>, NatDrop> {
        let frame = self.frame(bytes);
        let mut out = Vec::new();
        self.nat.outbound(network, frame, self.now, &mut out).map_err(|refused| refused.reason)?;
        Ok(out.into_iter().map(seen).collect())
    }

    pub fn in_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Seen>, NatDrop> {
        let frame = self.frame(bytes);
        let mut out = Vec::new();
        self.nat.inbound(frame, self.now, &mut out).map_err(|refused| refused.reason)?;
        Ok(out.into_iter().map(seen).collect())
    }

    /// One packet out; what came of it.
    pub fn out(&mut self, l4: L4) -> Result<Seen, NatDrop> {
        self.out_bytes(A, &bytes_of(l4, b"payload!")).map(|seen| seen[0].clone())
    }

    /// One packet in.
    pub fn inwards(&mut self, l4: L4) -> Result<Seen, NatDrop> {
        self.in_bytes(&bytes_of(l4, b"payload!")).map(|seen| seen[0].clone())
    }

    pub fn udp_out(&mut self, from: &str, to: &str) -> Result<Seen, NatDrop> {
        self.out(L4::Udp(end(from), end(to)))
    }

    pub fn udp_in(&mut self, from: &str, to: SocketAddr) -> Result<Seen, NatDrop> {
        self.inwards(L4::Udp(end(from), to))
    }

    pub fn tcp_out(&mut self, from: &str, to: &str, flags: u8) -> Result<Seen, NatDrop> {
        self.out(L4::Tcp(end(from), end(to), flags))
    }

    pub fn tcp_in(&mut self, from: &str, to: SocketAddr, flags: u8) -> Result<Seen, NatDrop> {
        self.inwards(L4::Tcp(end(from), to, flags))
    }

    pub fn echo_out(&mut self, from: &str, to: &str, id: u16) -> Result<Seen, NatDrop> {
        self.out(L4::Echo(from.parse().unwrap(), to.parse().unwrap(), id, true))
    }

    pub fn echo_in(&mut self, from: &str, to: SocketAddr) -> Result<Seen, NatDrop> {
        self.inwards(L4::Echo(from.parse().unwrap(), to.ip(), to.port(), false))
    }

    pub fn is_empty(&self) -> bool {
        self.nat.sizes() == (0, 0)
    }
}

fn seen(one: Translated) -> Seen {
    let bytes = one.frame.bytes().to_vec();
    assert!(checksum::verify(&bytes), "a checksum is out of step: {bytes:02x?}");
    let parsed = Parsed::new(&bytes).unwrap();
    let ip = parsed.ip.unwrap();
    let word = |at: usize| bytes.get(at..at + 2).map_or(0, |word| u16::from_be_bytes([word[0], word[1]]));
    let (from, to) = match (ip.protocol, bytes.get(ip.l4_offset)) {
        (6 | 17, _) if ip.fragment_offset == 0 => (word(ip.l4_offset), word(ip.l4_offset + 2)),
        (1, Some(8)) | (58, Some(128)) => (word(ip.l4_offset + 4), 0),
        (1, Some(0)) | (58, Some(129)) => (0, word(ip.l4_offset + 4)),
        _ => (0, 0),
    };
    Seen { to: one.to, source: SocketAddr::new(ip.source, from), destination: SocketAddr::new(ip.destination, to), bytes }
}
