//! A host: a smoltcp stack on one port, told the time.

use std::collections::VecDeque;

use packet::{Instant, Mac};
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::{icmp, tcp},
    time::Instant as SmolInstant,
    wire::{EthernetAddress, HardwareAddress, Icmpv4Packet, Icmpv4Repr, IpAddress, IpCidr, Ipv4Address},
};

/// A bulk transfer as seen by its receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes received.
    pub bytes: u64,
    /// FNV-1a of them.
    pub hash: u64,
    /// The sender said that it was all.
    pub finished: bool,
}

/// A host with one IPv4 address.
pub struct Host {
    interface: Interface,
    sockets: SocketSet<'static>,
    device: Queues,
    ping: SocketHandle,
    listener: SocketHandle,
    sender: SocketHandle,
    to_send: u64,
    sent: u64,
    /// Answers to pings so far.
    pub replies: u32,
    /// What arrived on the listening socket.
    pub received: Transfer,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its IPv4 address.
    pub address: [u8; 4],
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Host({}, {} replies, {:?})", self.mac, self.replies, self.received)
    }
}

/// Frames between the stack and its wire.
#[derive(Default)]
pub(crate) struct Queues {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

const PING_IDENT: u16 = 0x5eed;
const PORT: u16 = 7;

/// Byte `at` of every bulk transfer.
fn pattern(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// FNV-1a of the first `length` bytes of the pattern.
#[must_use]
pub(crate) fn pattern_hash(length: u64) -> u64 {
    (0..length).fold(FNV, |hash, at| step(hash, pattern(at)))
}

const FNV: u64 = 0xcbf2_9ce4_8422_2325;

fn step(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
}

impl Host {
    /// A host with an address in 10.0.0.0/8.
    #[must_use]
    pub fn new(mac: Mac, address: [u8; 4], seed: u64) -> Self {
        let mut device = Queues::default();
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac.0)));
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut device, SmolInstant::ZERO);
        let [a, b, c, d] = address;
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(IpAddress::Ipv4(Ipv4Address::new(a, b, c, d)), 8)).ok();
        });
        let mut sockets = SocketSet::new(Vec::new());
        let metadata = || vec![icmp::PacketMetadata::EMPTY; 16];
        let mut ping = icmp::Socket::new(icmp::PacketBuffer::new(metadata(), vec![0; 4096]), icmp::PacketBuffer::new(metadata(), vec![0; 4096]));
        ping.bind(icmp::Endpoint::Ident(PING_IDENT)).ok();
        let stream = || tcp::Socket::new(tcp::SocketBuffer::new(vec![0; 65_535]), tcp::SocketBuffer::new(vec![0; 65_535]));
        let mut listener = stream();
        listener.listen(PORT).ok();
        Self {
            ping: sockets.add(ping),
            listener: sockets.add(listener),
            sender: sockets.add(stream()),
            interface,
            sockets,
            device,
            to_send: 0,
            sent: 0,
            replies: 0,
            received: Transfer { hash: FNV, ..Transfer::default() },
            mac,
            address,
        }
    }

    /// Sends one echo request.
    pub fn ping(&mut self, to: [u8; 4], sequence: u16) {
        let [a, b, c, d] = to;
        let socket = self.sockets.get_mut::<icmp::Socket<'_>>(self.ping);
        let repr = Icmpv4Repr::EchoRequest { ident: PING_IDENT, seq_no: sequence, data: b"weft" };
        if let Ok(buffer) = socket.send(repr.buffer_len(), IpAddress::Ipv4(Ipv4Address::new(a, b, c, d))) {
            repr.emit(&mut Icmpv4Packet::new_unchecked(buffer), &smoltcp::phy::ChecksumCapabilities::default());
        }
    }

    /// Begins to send `bytes` bytes to another host's listening socket.
    pub fn transfer(&mut self, to: [u8; 4], bytes: u64) {
        let [a, b, c, d] = to;
        self.to_send = bytes;
        let context = self.interface.context();
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.sender);
        socket.connect(context, (IpAddress::Ipv4(Ipv4Address::new(a, b, c, d)), PORT), 49_152).ok();
    }

    /// A frame arrived.
    pub(crate) fn deliver(&mut self, bytes: Vec<u8>) {
        self.device.incoming.push_back(bytes);
    }

    /// Lets the stack work; gives what it wants to send.
    pub(crate) fn poll(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let at = smol(now);
        // Application and stack take turns until neither has more to do.
        for _ in 0..64 {
            self.feed();
            self.interface.poll(at, &mut self.device, &mut self.sockets);
            if !self.drain() {
                break;
            }
        }
        self.interface.poll(at, &mut self.device, &mut self.sockets);
        self.device.outgoing.drain(..).collect()
    }

    /// When the stack wants to work again.
    pub(crate) fn poll_at(&mut self, now: Instant) -> Option<Instant> {
        let at = self.interface.poll_at(smol(now), &self.sockets)?;
        Some(Instant::from_nanos(u64::try_from(at.total_micros()).unwrap_or(0) * 1000).max(now))
    }

    fn feed(&mut self) {
        let (sent, to_send) = (&mut self.sent, self.to_send);
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.sender);
        while *sent < to_send && socket.can_send() {
            let start = *sent;
            let filled = socket.send(|buffer| {
                let length = buffer.len().min(usize::try_from(to_send - start).unwrap_or(usize::MAX));
                for (byte, at) in buffer[..length].iter_mut().zip(start..) {
                    *byte = pattern(at);
                }
                (length, length)
            });
            match filled {
                Ok(length) if length > 0 => *sent += length as u64,
                _ => break,
            }
        }
        if to_send > 0 && *sent == to_send {
            socket.close();
        }
    }

    /// Takes what arrived; true when there was something.
    fn drain(&mut self) -> bool {
        let mut busy = false;
        let received = &mut self.received;
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.listener);
        while socket.can_recv() {
            let took = socket.recv(|bytes| {
                received.hash = bytes.iter().fold(received.hash, |hash, &byte| step(hash, byte));
                (bytes.len(), bytes.len())
            });
            received.bytes += took.unwrap_or(0) as u64;
            busy = true;
        }
        if socket.state() == tcp::State::CloseWait {
            received.finished = true;
            socket.close();
            busy = true;
        }
        let socket = self.sockets.get_mut::<icmp::Socket<'_>>(self.ping);
        while socket.can_recv() {
            self.replies += u32::from(socket.recv().is_ok());
        }
        busy
    }
}

fn smol(now: Instant) -> SmolInstant {
    SmolInstant::from_micros(i64::try_from(now.as_nanos() / 1000).unwrap_or(i64::MAX))
}

impl Device for Queues {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _at: SmolInstant) -> Option<(Incoming, Outgoing<'_>)> {
        let frame = self.incoming.pop_front()?;
        Some((Incoming(frame), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _at: SmolInstant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities.checksum.ipv4 = Checksum::Both;
        capabilities
    }
}

pub(crate) struct Incoming(Vec<u8>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, work: F) -> R {
        work(&self.0)
    }
}

pub(crate) struct Outgoing<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, work: F) -> R {
        let mut frame = vec![0; length];
        let result = work(&mut frame);
        self.0.push_back(frame);
        result
    }
}
