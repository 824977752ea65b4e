//! Whatever a sandbox sends to its gateway: answered, handed to the uplink, or dropped by name; the proxy
//! behind it survives it all.

use std::{io, net::SocketAddr, path::Path};

use dataplane::{AdvertiseConfig, BridgeConfig, Command, DhcpConfig, GatewayConfig, Outbox, PortConfig, Reply, Switch, SwitchConfig};
use nat::proxy::{Network, NetworkError, Output, Proxy, Ready, Resolvers, SocketId, Sockets};
use packet::{Checksum, Duration, Instant, Mac, NetworkId, Pool, PoolConfig, PortId, UnicastMac, checksum};

const GATEWAY: Mac = Mac([2, 0x42, 10, 0, 0, 1]);
const INSIDE: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// A host that takes everything, says nothing, and runs out of sockets.
#[derive(Default)]
struct Dull(u32);

impl Dull {
    fn open(&mut self) -> io::Result<SocketId> {
        self.0 += 1;
        if self.0.is_multiple_of(7) { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(SocketId(self.0)) }
    }
}

impl Sockets for Dull {
    fn tcp_connect(&mut self, _: SocketAddr) -> io::Result<SocketId> {
        self.open()
    }
    fn tcp_outcome(&mut self, socket: SocketId) -> Option<io::Result<()>> {
        match socket.0 % 3 {
            0 => None,
            1 => Some(Ok(())),
            _ => Some(Err(io::ErrorKind::HostUnreachable.into())),
        }
    }
    fn tcp_accept(&mut self, _: SocketId) -> Option<(SocketId, SocketAddr)> {
        None
    }
    fn tcp_send(&mut self, _: SocketId, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len() / 2)
    }
    fn tcp_room(&mut self, socket: SocketId) -> usize {
        socket.0 as usize * 1000 % 100_000
    }
    fn tcp_peek(&mut self, socket: SocketId, _: usize, into: &mut [u8]) -> io::Result<usize> {
        match socket.0 % 4 {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            1 => Ok(0),
            2 => Err(io::ErrorKind::ConnectionReset.into()),
            _ => Ok(into.len()),
        }
    }
    fn tcp_discard(&mut self, _: SocketId, _: usize) {}
    fn tcp_shutdown(&mut self, _: SocketId) {}
    fn udp_open(&mut self, _: bool) -> io::Result<SocketId> {
        self.open()
    }
    fn ping_open(&mut self, _: bool) -> io::Result<SocketId> {
        self.open()
    }
    fn datagram_send(&mut self, socket: SocketId, _: SocketAddr, hops: u8, _: &[u8]) -> io::Result<()> {
        assert_ne!(hops, 0);
        if socket.0.is_multiple_of(5) { Err(io::ErrorKind::NetworkUnreachable.into()) } else { Ok(()) }
    }
    fn datagram_receive(&mut self, _: SocketId, _: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    fn datagram_error(&mut self, _: SocketId) -> Option<NetworkError> {
        None
    }
    fn close(&mut self, _: SocketId, _: bool) {}
}

struct World {
    switch: Switch,
    pool: Pool,
    out: Outbox,
    port: PortId,
    network: NetworkId,
    proxy: Proxy,
    host: Dull,
    now: Instant,
}

fn world() -> World {
    let pool = Pool::new(PoolConfig::default());
    let mut switch = Switch::new(SwitchConfig::default(), pool.clone());
    let mut out = Outbox::new(4096);
    let addresses = vec!["10.0.0.1/24".parse().expect("valid"), "fd00::1/64".parse().expect("valid")];
    let dhcp = DhcpConfig { range: ([10, 0, 0, 192].into(), [10, 0, 0, 254].into()), excluded: vec![], lease: Duration::from_secs(3600), is_router: true, mtu: 1500 };
    let advertise = AdvertiseConfig { is_router: true, mtu: 1500 };
    let gateway = GatewayConfig { dhcp: Some(dhcp), advertise: Some(advertise), ..GatewayConfig::new(UnicastMac::new(GATEWAY).expect("unicast"), addresses.clone()) };
    let config = BridgeConfig { gateway: Some(gateway), ..BridgeConfig::new("net") };
    let Ok(Reply::Network(network)) = switch.apply(Command::AddBridge(config), Instant::ZERO, &mut out) else { panic!("no bridge") };
    let Ok(Reply::Port(port)) = switch.apply(Command::AddPort(PortConfig::new(network, "a")), Instant::ZERO, &mut out) else { panic!("no port") };
    let mut proxy = Proxy::new(pool.clone());
    proxy.set_network(network, Network { gateway_mac: GATEWAY, gateways: addresses, mtu: 1500, resolvers: Resolvers::default(), masquerade: true, stand_in: Vec::new() });
    World { switch, pool, out, port, network, proxy, host: Dull::default(), now: Instant::ZERO }
}

impl World {
    fn send(&mut self, bytes: &[u8]) {
        self.now = self.now + Duration::from_micros(100);
        let Some(mut frame) = self.pool.copy_of(bytes) else { panic!("no buffer for {} bytes: they leak", bytes.len()) };
        // As from a sandbox that leaves checksums to the device: then nobody looks at what is there.
        if let Some(ip) = packet::Parsed::new(bytes).and_then(|parsed| parsed.ip)
            && let Ok(start) = u16::try_from(ip.l4_offset)
            && ip.l4_offset + 18 <= bytes.len()
        {
            frame.offload.checksum = Checksum::Partial { start, offset: if ip.protocol == 6 { 16 } else { 6 } };
        }
        self.switch.ingress(self.port, frame, self.now, &mut self.out);
        let mut output = Output::new();
        for (network, frame) in self.out.outside.drain(..) {
            assert_eq!(network, self.network);
            self.proxy.frame(network, &frame, self.now, &mut self.host, &mut output);
        }
        self.proxy.flush(self.now, &mut self.host, &mut output);
        for (network, frame) in output {
            self.switch.inject(network, frame, self.now, &mut self.out);
        }
        for (port, sendable) in self.out.frames.drain(..) {
            assert_eq!(port, self.port);
            assert!(sendable.frame().offload.gso != packet::Gso::None || sendable.frame().len() <= 1514 + 8, "{sendable:?}");
        }
        self.out.events.clear();
    }
}

fn noise(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// A frame as whole as its headers say, so that it gets past the first checks.
fn mended(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[..6].copy_from_slice(&GATEWAY.0);
    bytes[6..12].copy_from_slice(&INSIDE.0);
    if bytes.len() >= 34 && bytes[12..14] == [8, 0] && usize::from(bytes[14] & 0xf) * 4 + 14 <= bytes.len() {
        let end = 14 + usize::from(bytes[14] & 0xf) * 4;
        bytes[26..30].copy_from_slice(&[10, 0, 0, 2]);
        bytes[24..26].fill(0);
        let sum = !checksum::fold(checksum::sum(&bytes[14..end]));
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

#[test]
fn the_corpus_and_its_relatives_are_survived() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/frame_parse");
    let mut seeds: Vec<Vec<u8>> = std::fs::read_dir(folder).expect("the corpus").map(|entry| std::fs::read(entry.expect("an entry").path()).expect("a file")).collect();
    seeds.sort();
    let mut world = world();
    let mut state = 0x5eed_u64;
    for round in 0..400 {
        for seed in seeds.iter().filter(|seed| seed.len() >= 14) {
            let mut bytes = mended(seed.clone());
            for _ in 0..round % 6 {
                let at = usize::try_from(noise(&mut state)).expect("64 bits") % bytes.len();
                bytes[at] = u8::try_from(noise(&mut state) & 0xff).expect("a byte");
            }
            if round % 5 == 4 {
                bytes.truncate(14 + usize::try_from(noise(&mut state)).expect("64 bits") % (bytes.len() - 13));
            }
            world.send(&bytes);
            world.send(&mended(bytes));
        }
        if round % 50 == 0 {
            let sockets: Vec<u32> = (0..world.host.0).collect();
            let mut output = Output::new();
            for socket in sockets {
                world.proxy.ready(SocketId(socket), Ready { read: true, write: true, error: true }, world.now, &mut world.host, &mut output);
            }
            world.now = world.now + Duration::from_secs(30);
            world.proxy.handle_timeout(world.now, &mut world.host, &mut output);
        }
    }
    assert!(world.host.0 > 10, "some of it opened sockets");
    let Ok(Reply::Stats(stats)) = world.switch.apply(Command::ShowStats, world.now, &mut world.out) else { panic!("no stats") };
    assert!(stats.drops.total() > 100);
    assert_eq!((stats.pool.small_used, stats.pool.large_used), (0, 0), "no buffer is lost");
}

#[test]
fn every_length_of_noise_is_survived() {
    let mut world = world();
    let mut state = 77;
    let source: Vec<u8> = (0..70_000).map(|_| u8::try_from(noise(&mut state) & 0xff).expect("a byte")).collect();
    for length in 0..=65_535_usize {
        let at = length % 4000;
        let mut bytes = source[at..at + length].to_vec();
        if length >= 40 {
            bytes = mended(bytes);
            // IP of either family, of that length, with TCP, UDP or ICMP inside.
            if length % 2 == 0 {
                bytes[12..15].copy_from_slice(&[8, 0, 0x45]);
                bytes[16..18].copy_from_slice(&u16::try_from(length - 14).expect("16 bits").to_be_bytes());
                bytes[20] &= 0x40;
                bytes[21] = 0;
                bytes[22] = 64;
                bytes[23] = [1, 6, 17][length / 2 % 3];
                bytes = mended(bytes);
            } else if length >= 60 {
                bytes[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
                bytes[18..20].copy_from_slice(&u16::try_from(length - 54).expect("16 bits").to_be_bytes());
                bytes[20] = [58, 6, 17, 44][length / 2 % 4];
                bytes[22..30].copy_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0]);
            }
        }
        world.send(&bytes);
    }
    assert!(world.host.0 > 1000, "{} sockets were asked for", world.host.0);
}
