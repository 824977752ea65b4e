//! The engine alone: instructions a frame, counted by callgrind, and nanoseconds.
//!
//! Counted as the difference of two runs divided by the difference of their frames, less what the
//! harness costs, so that neither set-up nor harness counts.
#![allow(clippy::print_stdout, reason = "results go to standard output")]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
    time::Instant as Clock,
};

use dataplane::{BridgeConfig, GatewayConfig, GatewayRole, Guard, Link, Outbox, PacketUplink, PortConfig, Reply, Router, Switch, SwitchConfig};
use nat::{Behaviour, Inside, NatConfig, Translation};
use packet::{Instant, Mac, NetworkId, Pool, PoolConfig, PortId, UnicastMac, Vni};
use vxlan::{
    Datagram, Outer, RemoteKind, VniConfig, Vtep, VtepConfig,
    crypt::{Keys, Secret},
};

struct Bench {
    switch: Switch,
    pool: Pool,
    ports: Vec<PortId>,
    out: Outbox,
    frame: Vec<u8>,
}

const CASES: &[&str] = &["unicast-64", "unicast-1500", "unicast-guarded", "flood-8", "unicast-1000-ports", "unicast-1M-fdb", "nat-established", "nat-1M-flows", "vxlan-encap", "vxlan-decap", "vxlan-both", "vxlan-encrypted-both-1400"];

fn mac(number: u32) -> Mac {
    let [a, b, c, d] = number.to_be_bytes();
    Mac([2, 0, a, b, c, d])
}

impl Bench {
    fn new(case: &str) -> Self {
        let pool = Pool::new(PoolConfig::default());
        let mut switch = Switch::new(SwitchConfig { seed: 1, ..SwitchConfig::default() }, pool.clone());
        let mut out = Outbox::new(4096);
        let stations = if case == "unicast-1M-fdb" { 1_000_000 } else { 0 };
        let config = BridgeConfig { fdb_capacity: 2_000_000, ..BridgeConfig::new("net") };
        let Ok(Reply::Network(network)) = switch.apply(dataplane::Command::AddBridge(config), Instant::ZERO, &mut out) else { unreachable!("a new switch takes a bridge") };
        let count = match case {
            "flood-8" => 9,
            "unicast-1000-ports" => 1000,
            _ => 10,
        };
        let ports = (0..count).map(|_| add_port(&mut switch, network, case, &mut out)).collect();
        let destination = if case == "flood-8" { Mac::BROADCAST } else { mac(2) };
        let mut frame = [&destination.0[..], &mac(1).0, &[8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 7, 0, 26, 0, 0]].concat();
        frame.resize(if case == "unicast-1500" { 1514 } else { 60 }, 0);
        if case == "unicast-1500" {
            frame[16..18].copy_from_slice(&1500_u16.to_be_bytes());
        }
        let mut bench = Self { switch, pool, ports, out, frame };
        let answer = [&mac(1).0[..], &mac(2).0, &[0x88, 0xb5], &[0; 46]].concat();
        bench.run_one(1, &answer);
        for number in 0..stations {
            let learned = [&mac(1).0[..], &mac(1000 + number).0, &[0x88, 0xb5], &[0; 46]].concat();
            bench.run_one(1 + number as usize % 8, &learned);
        }
        bench
    }

    fn run_one(&mut self, port: usize, bytes: &[u8]) {
        let frame = self.pool.copy_of(bytes).expect("a buffer");
        self.switch.ingress(self.ports[port], frame, Instant::from_nanos(1), &mut self.out);
        self.out.frames.clear();
        self.out.events.clear();
    }

    /// One frame goes round and round, so that the pool's work (the shell's) does not count.
    #[inline(never)]
    fn run(&mut self, frames: u32) {
        let mut frame = self.pool.copy_of(&self.frame).expect("a buffer");
        for _ in 0..frames {
            self.switch.ingress(self.ports[0], frame, Instant::from_nanos(2), &mut self.out);
            frame = self.out.frames.pop().expect("it was forwarded").1.into_frame();
            self.out.frames.clear();
        }
    }
}

/// Ethernet, IPv4 and UDP headers: what translation writes to.
const HEADERS: usize = 42;

/// Flows that take turns: more than are remembered.
const SAMPLE: u32 = 8192;

/// The frame as it was before it was translated.
fn restore(frame: &mut packet::Frame, headers: &[u8; HEADERS]) {
    *frame.bytes_mut().first_chunk_mut().expect("headers") = *headers;
}

/// A sandbox's datagrams of one connection, through its gateway, translation and the uplink.
struct NatBench {
    switch: Switch,
    router: Router,
    pool: Pool,
    out: Outbox,
    routed: Vec<(NetworkId, packet::Frame)>,
    sandbox: PortId,
    /// Of some of the flows, evenly.
    frames: Vec<Vec<u8>>,
}

impl NatBench {
    fn new(flows: u32) -> Self {
        let pool = Pool::new(PoolConfig::default());
        let mut switch = Switch::new(SwitchConfig { seed: 1, ..SwitchConfig::default() }, pool.clone());
        let mut out = Outbox::new(4096);
        let mut face = |number: u32, address: &str, role| {
            let addresses: Vec<ipnetwork::IpNetwork> = vec![address.parse().expect("address")];
            let unicast = UnicastMac::new(mac(number)).expect("unicast");
            let gateway = GatewayConfig { role, ..GatewayConfig::new(unicast, addresses.clone()) };
            let config = BridgeConfig { gateway: Some(gateway), ..BridgeConfig::new("net") };
            let Ok(Reply::Network(network)) = switch.apply(dataplane::Command::AddBridge(config), Instant::ZERO, &mut out) else { unreachable!("a new switch takes a bridge") };
            let port = add_port(&mut switch, network, "nat", &mut out);
            (network, Link { mac: unicast, addresses, mtu: 1500 }, port)
        };
        let (inside, inside_link, sandbox) = face(100, "10.0.0.1/24", GatewayRole::Network);
        let (outside, outside_link, wan) = face(101, "192.0.2.9/24", GatewayRole::Uplink);
        let mut router = Router::new(pool.clone(), NatConfig { seed: 1, most: 2 << 20, ..NatConfig::default() });
        router.set_uplink(PacketUplink { network: outside, link: outside_link, gateways: vec!["192.0.2.1".parse().expect("address")] });
        let subnets = inside_link.addresses.clone();
        router.set_network(inside, inside_link, Some(Inside { subnets, translation: Translation::Masquerade, prefixes: None, behaviour: Behaviour::default() }));
        let frames = (0..flows).step_by((flows / SAMPLE).max(1) as usize).map(frame_of).collect();
        let mut bench = Self { switch, router, pool, out, routed: Vec::new(), sandbox, frames };
        // The first packet makes the connection and asks for the next hop, which answers.
        bench.step(&frame_of(0));
        let answer = [&mac(101).0[..], &mac(2).0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &mac(2).0, &[192, 0, 2, 1], &mac(101).0, &[192, 0, 2, 9]].concat();
        let answer = bench.pool.copy_of(&answer).expect("a buffer");
        bench.switch.ingress(wan, answer, Instant::from_nanos(1), &mut bench.out);
        bench.route();
        (1..flows).for_each(|flow| bench.step(&frame_of(flow)));
        bench
    }

    fn route(&mut self) {
        while let Some((network, frame)) = self.out.outside.pop() {
            drop(self.router.take(network, frame, Instant::from_nanos(2), &mut self.routed));
        }
        for (network, frame) in self.routed.drain(..) {
            self.switch.inject(network, frame, Instant::from_nanos(2), &mut self.out);
        }
    }

    fn step(&mut self, bytes: &[u8]) {
        let frame = self.pool.copy_of(bytes).expect("a buffer");
        self.switch.ingress(self.sandbox, frame, Instant::from_nanos(2), &mut self.out);
        self.route();
        self.out.frames.clear();
        self.out.events.clear();
    }

    #[inline(never)]
    fn run(&mut self, frames: u32) {
        let mut frame = self.pool.copy_of(&self.frames[0]).expect("a buffer");
        let headers: Vec<[u8; HEADERS]> = self.frames.iter().map(|frame| *frame.first_chunk().expect("headers")).collect();
        let now = Instant::from_nanos(2);
        for headers in headers.iter().cycle().take(frames as usize) {
            restore(&mut frame, headers);
            self.switch.ingress(self.sandbox, frame, now, &mut self.out);
            let (network, outside) = self.out.outside.pop().expect("its gateway hands it out");
            drop(self.router.take(network, outside, now, &mut self.routed));
            let (network, translated) = self.routed.pop().expect("it was translated");
            self.switch.inject(network, translated, now, &mut self.out);
            frame = self.out.frames.pop().expect("it was forwarded").1.into_frame();
        }
    }
}

/// A sandbox's datagram of a flow: some of the sandbox's addresses to many outside.
fn frame_of(flow: u32) -> Vec<u8> {
    let [_, a, b, c] = flow.to_be_bytes();
    let mut frame = [&mac(100).0[..], &mac(1).0, &[8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 2 + c % 4, 198, 51 + a, b, c, 0x30, 7, 0, 7, 0, 26, 0, 0]].concat();
    frame.resize(60, 0);
    let sum = !packet::checksum::fold(packet::checksum::sum(&frame[14..34]));
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// A frame into a tunnel, and out of it on another node: the buffer is the same all the way.
struct TunnelBench {
    near: Vtep,
    far: Option<Vtep>,
    frame: packet::Frame,
    sent: Vec<Datagram>,
}

const NEAR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

impl TunnelBench {
    fn new(case: &str) -> Self {
        let pool = Pool::new(PoolConfig::default());
        let vni = Vni::new(42).expect("a VNI");
        let encrypted = case.contains("encrypted");
        let node = |peer: IpAddr, station: u32, session: u64| {
            let mut vtep = Vtep::new(VtepConfig::default(), pool.clone(), [1, 2]);
            let peer = SocketAddr::new(peer, vxlan::PORT);
            vtep.add_vni(vni, VniConfig { encrypted, strict: true, ..VniConfig::default() }).expect("a new VNI");
            vtep.add_peer(vni, peer).expect("a peer");
            vtep.set_keys(vni, &Keys { epochs: vec![(1, Secret([7; 32]))], current: 1, session }).expect("keys");
            let station = UnicastMac::new(mac(station)).expect("unicast");
            vtep.set_remote(vni, station, peer, RemoteKind::Pushed, Instant::ZERO).expect("room");
            vtep
        };
        let (near, far) = (node(FAR, 2, 1), node(NEAR, 1, 2));
        let mut frame = [&mac(2).0[..], &mac(1).0, &[8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 7, 0, 26, 0, 0]].concat();
        frame.resize(if case.ends_with("1400") { 1414 } else { 60 }, 0);
        let length = u16::try_from(frame.len() - 14).expect("short");
        frame[16..18].copy_from_slice(&length.to_be_bytes());
        Self { near, far: (case != "vxlan-encap").then_some(far), frame: pool.copy_of(&frame).expect("a buffer"), sent: Vec::new() }
    }

    /// The same datagram comes again and again: its header is still before the frame.
    #[inline(never)]
    fn run_decap(self, frames: u32) {
        let Self { mut near, far, frame, mut sent } = self;
        let (vni, now, mut far) = (Vni::new(42).expect("a VNI"), Instant::from_nanos(1), far.expect("a receiver"));
        near.encap(vni, frame, now, &mut sent).expect("it is wrapped");
        let Datagram { frame: mut datagram, source_port, .. } = sent.pop().expect("one");
        let outer = Outer { from: SocketAddr::new(NEAR, source_port), to: FAR, ecn: 0 };
        for _ in 0..frames {
            datagram = far.decap(outer, datagram, |_, _, _| Ok(()), now).expect("it is taken").1;
            datagram.push(vxlan::header::HEADER_LEN);
        }
    }

    #[inline(never)]
    fn run(self, frames: u32) {
        let Self { mut near, mut far, mut frame, mut sent } = self;
        let (vni, now) = (Vni::new(42).expect("a VNI"), Instant::from_nanos(1));
        for _ in 0..frames {
            near.encap(vni, frame, now, &mut sent).expect("it is wrapped");
            let Datagram { frame: mut datagram, source_port, .. } = sent.pop().expect("one");
            frame = if let Some(far) = &mut far {
                let outer = Outer { from: SocketAddr::new(NEAR, source_port), to: FAR, ecn: 0 };
                far.decap(outer, datagram, |_, _, _| Ok(()), now).expect("it is taken").1
            } else {
                datagram.pull(vxlan::header::HEADER_LEN);
                datagram
            };
        }
    }
}

fn run(case: &str, frames: u32) {
    match case {
        "harness" => run_harness(frames),
        "harness-nat" => run_nat_harness(frames),
        "nat-established" => NatBench::new(1).run(frames),
        "nat-1M-flows" => NatBench::new(1 << 20).run(frames),
        "vxlan-decap" => TunnelBench::new(case).run_decap(frames),
        "vxlan-encap" | "vxlan-both" | "vxlan-encrypted-both-1400" => TunnelBench::new(case).run(frames),
        _ => Bench::new(case).run(frames),
    }
}

/// The loop of [`Bench::run`] with a queue in place of the switch: what the harness itself costs.
#[inline(never)]
fn run_harness(frames: u32) {
    let pool = Pool::new(PoolConfig::default());
    let mut frame = pool.copy_of(&[0; 60]).expect("a buffer");
    let mut queue = Vec::with_capacity(64);
    for _ in 0..frames {
        queue.push((PortId::new(1, 0), frame));
        frame = std::hint::black_box(&mut queue).pop().expect("just pushed").1;
        queue.clear();
    }
}

/// The same for [`NatBench::run`].
#[inline(never)]
fn run_nat_harness(frames: u32) {
    let pool = Pool::new(PoolConfig::default());
    let mut frame = pool.copy_of(&[0; 60]).expect("a buffer");
    let mut queue = Vec::with_capacity(64);
    let headers = vec![[1; HEADERS]; std::hint::black_box(1)];
    for headers in headers.iter().cycle().take(frames as usize) {
        restore(&mut frame, headers);
        queue.push((PortId::new(1, 0), frame));
        frame = std::hint::black_box(&mut queue).pop().expect("just pushed").1;
    }
}

fn add_port(switch: &mut Switch, network: NetworkId, case: &str, out: &mut Outbox) -> PortId {
    let mut config = PortConfig::new(network, "port");
    if case == "unicast-guarded" {
        config.guard = Some(Guard { macs: [mac(1), mac(2)].into_iter().filter_map(UnicastMac::new).collect(), ips: vec!["10.0.0.1".parse().expect("address")], no_router: true });
    }
    match switch.apply(dataplane::Command::AddPort(config), Instant::ZERO, out) {
        Ok(Reply::Port(port)) => port,
        other => unreachable!("a new switch takes a port: {other:?}"),
    }
}

fn main() -> Result<(), String> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [case, frames] = words.as_slice() {
        let frames = frames.parse().map_err(|_| "frames: want a number")?;
        run(case, frames);
        return Ok(());
    }
    let harnesses = ["harness", "harness-nat"].map(|case| per_frame(case).unwrap_or(0.0));
    println!("| case | instructions a frame | ns a frame |\n|---|---|---|");
    for case in CASES {
        let counted = per_frame(case).map_or_else(|| "- (valgrind is not installed)".into(), |count| format!("{:.0}", count - harnesses[usize::from(case.starts_with("nat"))]));
        // Set-up is in both runs, and cancels out.
        let time = |frames| {
            let start = Clock::now();
            run(case, frames);
            start.elapsed().as_secs_f64()
        };
        time(100_000);
        let (short, long) = (time(100_000), time(2_100_000));
        println!("| {case} | {counted} | {:.1} |", (long - short) * 1e9 / 2e6);
    }
    Ok(())
}

fn per_frame(case: &str) -> Option<f64> {
    Some((instructions(case, 11_000)? - instructions(case, 1000)?) / 10_000.0)
}

/// Instructions of a whole run, by callgrind.
fn instructions(case: &str, frames: u32) -> Option<f64> {
    let exe = std::env::current_exe().ok()?;
    let output = Command::new("valgrind").args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(exe).args([case, &frames.to_string()]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines().find_map(|line| line.split("Collected :").nth(1)).and_then(|count| count.trim().parse().ok())
}
