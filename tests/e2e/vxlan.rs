//! Overlay networks: nodes on one underlay, each with a daemon of its own or a VXLAN device of the kernel. SPEC rows:
//! V1, V3, V11, and V13 to V15 without names.

mod encrypted;
mod hostile;
mod interop;
mod path;

use std::{fs, net::UdpSocket, path::PathBuf};

use libtest_mimic::Trial;
use netns_setup::Netns;
use serde_json::Value;
use weft_tests::{
    lab::Lab,
    ns::{Background, Ns},
    run::eventually,
    runner::{Need, test},
    vxlan::{broadcast, socket_in},
};

const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("ping"), Need::Tool("iperf3"), Need::Tool("python3")];
const PATH: &[Need] = &[Need::Root, Need::Tun, Need::Tool("ping"), Need::Tool("curl"), Need::Tool("python3")];
const KERNEL: &[Need] = &[Need::Root, Need::Tun, Need::Tool("ethtool"), Need::Tool("iperf3"), Need::Tool("bridge")];
const OVS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("ovs-vswitchd"), Need::Tool("ethtool"), Need::Tool("iperf3"), Need::Tool("tshark")];
const TSHARK: &[Need] = &[Need::Root, Need::Tun, Need::Tool("tshark"), Need::Tool("iperf3")];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("vxlan::two_nodes", NEEDS, || two_nodes(false)),
        test("vxlan::two_nodes_over_ipv6_without_io_uring", NEEDS, || two_nodes(true)),
        test("vxlan::v3_beside_the_kernel", KERNEL, beside_the_kernel),
        test("vxlan::a_group_with_the_kernel", KERNEL, group),
        test("vxlan::three_nodes_and_a_station_that_moves", NEEDS, three_nodes),
        test("vxlan::vnis_are_apart_and_strangers_unheard", NEEDS, hostile::apart),
        test("vxlan::nobody_speaks_for_a_resident", NEEDS, hostile::forged),
        test("vxlan::beside_open_vswitch", OVS, interop::open_vswitch),
        test("vxlan::kernels_meet_through_us", KERNEL, interop::kernels_through_us),
        test("vxlan::encrypted_two_nodes", NEEDS, || encrypted::two_nodes(false)),
        test("vxlan::encrypted_over_ipv6", NEEDS, || encrypted::two_nodes(true)),
        test("vxlan::encrypted_on_the_wire", TSHARK, encrypted::on_the_wire),
        test("vxlan::encrypted_with_new_keys", NEEDS, encrypted::rotation),
        test("vxlan::encrypted_refusals", &[Need::Root, Need::Tun], encrypted::refusals),
        test("vxlan::v1_what_is_on_the_wire", TSHARK, on_the_wire),
        test("vxlan::gateways_stay_at_home", NEEDS, gateways),
        test("vxlan::peers_outlive_the_daemon", NEEDS, restart),
        test("vxlan::v11_no_footprint_no_kernel_device", NEEDS, footprint),
        test("vxlan::a_smaller_path_is_named_and_told", NEEDS, path::smaller),
        test("vxlan::a_download_outlives_a_smaller_path", PATH, path::downloads),
        test("vxlan::a_port_that_is_taken_at_the_start", NEEDS, taken_at_the_start),
        test("vxlan::edited_live", NEEDS, edited),
        test("vxlan::words_and_refusals", &[Need::Root, Need::Tun], words),
    ]
}

/// Nodes on one underlay, 192.168.88.21N and fd88::N.
pub(crate) struct Fabric {
    wire: Ns,
    pub(crate) nodes: Vec<Node>,
}

pub(crate) struct Node {
    pub(crate) lab: Lab,
    number: usize,
}

impl Fabric {
    /// Of these, that many run a daemon, with `options`.
    pub(crate) fn new(nodes: usize, daemons: usize, options: &str) -> Self {
        let labs: Vec<_> = (0..nodes).map(|_| Lab::without_daemon()).collect();
        let wire = labs[0].ns("wire");
        wire.sh("ip link add br0 type bridge && ip link set br0 up").ok();
        let mut this = Self { wire, nodes: Vec::new() };
        for (number, mut lab) in (1..).zip(labs) {
            let wire = &this.wire.name;
            let host = &lab.host;
            host.sh(&format!(
                "ip link add eth0 type veth peer name n{number} netns {wire} && ip addr add 192.168.88.21{number}/24 dev eth0 && ip addr add fd88::{number}/64 dev eth0 nodad \
                 && ip link set eth0 up && ip route add 239.0.0.0/8 dev eth0 && ip -n {wire} link set n{number} master br0 up"
            ))
            .ok();
            if number <= daemons {
                lab.start_daemon_with(options);
            }
            this.nodes.push(Node { lab, number });
        }
        eventually("the underlay is up", || this.nodes[0].lab.host.pings(&format!("192.168.88.21{nodes}")) && this.nodes[0].lab.host.pings(&format!("fd88::{nodes}")));
        eventually("its addresses are settled", || this.nodes.iter().all(|node| node.lab.host.sh("ip -6 addr show dev eth0 tentative").stdout.is_empty()));
        this
    }

    /// A machine on the underlay that is no node: 192.168.88.LAST and fd88::LAST.
    pub(crate) fn outsider(&self, last: u8) -> Ns {
        let ns = self.nodes[0].lab.ns(&format!("o{last}"));
        let wire = &self.wire.name;
        ns.sh(&format!(
            "ip link add eth0 type veth peer name o{last} netns {wire} && ip addr add 192.168.88.{last}/24 dev eth0 && ip addr add fd88::{last}/64 dev eth0 nodad \
             && ip link set eth0 up && ip -n {wire} link set o{last} master br0 up"
        ))
        .ok();
        ns
    }

    /// An overlay on the first `daemons` nodes, each a peer of all.
    fn overlay(&self, daemons: usize, ipv6: bool, options: &str) {
        let peers: Vec<_> = self.nodes.iter().map(|node| format!("--peer {}", if ipv6 { format!("fd88::{}", node.number) } else { node.underlay() })).collect();
        for node in &self.nodes[..daemons] {
            // Of itself too: one configuration for all.
            node.overlay(&format!("{} {options}", peers.join(" ")));
        }
    }
}

impl Node {
    pub(crate) fn underlay(&self) -> String {
        format!("192.168.88.21{}", self.number)
    }

    fn overlay(&self, options: &str) {
        let number = self.number;
        self.lab.weft(&format!("network create -d overlay net --subnet 10.0.0.0/24 --subnet fd0a::/64 --ip-range 10.0.0.{}/28 {options}", number * 16)).ok();
    }

    /// A station 10.0.0.N and fd0a::N on the overlay.
    fn station(&self, last: u8) -> Ns {
        self.station_at(last, "net")
    }

    fn station_at(&self, last: u8, network: &str) -> Ns {
        let ns = self.lab.ns(&format!("s{last}{network}"));
        self.lab.weft(&format!("attach {network} {} --ifname eth0 --ip 10.0.0.{last} --ip6 fd0a::{last}", ns.path())).ok();
        ns
    }

    pub(crate) fn show(&self) -> Value {
        self.lab.weft("vxlan show --json").json()
    }

    /// A drop reason of the whole node.
    pub(crate) fn dropped(&self, reason: &str) -> u64 {
        self.show()["drops"][reason].as_u64().unwrap_or(0)
    }

    /// Another node that has the kernel's device, with a bridge on it and a station behind that.
    fn kernel(&self, vxlan: &str, last: u8) -> Ns {
        self.kernel_at(4096, vxlan, last)
    }

    fn kernel_at(&self, vni: u32, vxlan: &str, last: u8) -> Ns {
        let host = &self.lab.host;
        let ns = self.lab.ns(&format!("k{last}"));
        // Between namespaces nothing ever makes the checksums that the kernel leaves to a device, and those inside
        // a tunnel reach a socket unfinished; without that offload it makes them, as for any real device.
        host.sh(&format!(
            "ethtool -K eth0 tx off >/dev/null && ip link add vxlan0 type vxlan id {vni} dstport 4789 {vxlan} && ip link add br0 type bridge && ip link set vxlan0 master br0 up && ip link set br0 up \
             && ip link add v0 type veth peer name eth0 netns {} && ip link set v0 master br0 up",
            ns.name
        ))
        .ok();
        ns.sh(&format!("ip link set eth0 mtu 1450 && ip addr add 10.0.0.{last}/24 dev eth0 && ip addr add fd0a::{last}/64 dev eth0 nodad && ip link set eth0 up")).ok();
        ns
    }
}

/// Pings over both families, and TCP and UDP both ways; how fast is for perf/ to say, on a machine that has time.
fn traffic(one: &Ns, two: &Ns, last: u8) {
    for to in [format!("10.0.0.{last}"), format!("fd0a::{last}")] {
        eventually("the first ping", || one.run(&format!("ping -c 1 -W 1 {to}")).code == Some(0));
        assert!(one.pings(&to), "ping {to}");
    }
    let _server = two.iperf_server();
    for to in [format!("10.0.0.{last}"), format!("fd0a::{last}")] {
        for options in ["", "-R", "-P 4"] {
            let report = one.iperf(&to, options);
            let bytes = report["end"]["sum_received"]["bytes"].as_u64();
            assert!(bytes.is_some_and(|bytes| bytes > 500_000), "TCP {to} {options}: {bytes:?} bytes, {}", report["error"]);
        }
        for options in ["-u -b 10M -l 1300", "-u -b 10M -l 1300 -R", "-u -b 1M -l 64", "-u -b 10M -l 8000"] {
            let report = one.iperf(&to, options);
            let sum = &report["end"]["sum"];
            let (lost, packets) = (sum["lost_packets"].as_u64().unwrap_or(u64::MAX), sum["packets"].as_u64().unwrap_or(0));
            assert!(packets > 100 && lost * 4 < packets, "UDP {to} {options}: {lost} of {packets} lost, {}", report["error"]);
        }
    }
}

/// What a station counted as wrong: checksums of TCP, UDP and IP.
fn checksum_errors(ns: &Ns) -> u64 {
    let counts = ns.sh("cat /proc/self/net/snmp6; nstat -az TcpInCsumErrors UdpInCsumErrors IpExtInCsumErrors IcmpInCsumErrors Udp6InCsumErrors | grep Csum").stdout;
    let lines = counts.lines().filter(|line| line.contains("Csum"));
    lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}

fn two_nodes(ipv6: bool) {
    let fabric = Fabric::new(2, 2, if ipv6 { "--io epoll" } else { "" });
    fabric.overlay(2, ipv6, "");
    let [one, two] = &fabric.nodes[..] else { panic!("two nodes") };
    let (a, b) = (one.station(18), two.station(34));
    let mtu = if ipv6 { 1430 } else { 1450 };
    assert!(a.ip("link show eth0").ok().contains(&format!("mtu {mtu}")));
    traffic(&a, &b, 34);
    assert!(b.pings("10.0.0.18"));
    // What fits, and no more; and the longest there is, in fragments.
    assert!(a.run(&format!("ping -c 2 -i 0.1 -W 2 -M do -s {} 10.0.0.34", mtu - 28)).stdout.contains(" 0% packet loss"));
    for (to, size) in [("10.0.0.34", 65_507), ("fd0a::34", 65_527)] {
        let ping = a.run(&format!("ping -c 3 -i 0.2 -W 2 -s {} {to}", size - 8));
        assert!(ping.stdout.contains(" 0% packet loss"), "{ping:?}");
    }
    // Everybody is reached by broadcast and by group.
    b.sh("echo 0 > /proc/sys/net/ipv4/icmp_echo_ignore_broadcasts").ok();
    assert!(a.run("ping -b -c 2 -i 0.1 -W 2 10.0.0.255").stdout.contains("from 10.0.0.34"));
    assert!(a.run("ping -c 2 -i 0.2 -W 2 ff02::1%eth0").stdout.matches("from fe80").count() > 2, "both answered");
    assert_eq!(checksum_errors(&a) + checksum_errors(&b), 0);
    let shown = one.show();
    let network = &shown["networks"][0];
    assert_eq!((&network["vni"], &network["port"], &network["mtu"], &network["strict"]), (&4096.into(), &4789.into(), &mtu.into(), &true.into()));
    assert_eq!(network["peers"].as_array().map(Vec::len), Some(1), "not itself: {network}");
    let remote = &network["remotes"][0];
    assert_eq!(remote["kind"], "learned");
    assert!(remote["node"].as_str().is_some_and(|node| node.ends_with(":4789") && node.contains(if ipv6 { "fd88::2" } else { "192.168.88.212" })), "{remote}");
    assert!(one.lab.weft("fdb show net").ok().contains("vxlan:net"), "remote stations are behind the tunnel's port");
}

fn beside_the_kernel() {
    let fabric = Fabric::new(2, 1, "");
    let [one, two] = &fabric.nodes[..] else { panic!("two nodes") };
    one.overlay(&format!("--vni 4096 --peer {}", two.underlay()));
    let a = one.station(18);
    let b = two.kernel(&format!("local {} nolearning", two.underlay()), 34);
    two.lab.host.sh(&format!("bridge fdb append 00:00:00:00:00:00 dev vxlan0 dst {}; ip link set vxlan0 type vxlan learning", one.underlay())).ok();
    traffic(&a, &b, 34);
    traffic(&b, &a, 18);
    for size in [1422, 8000, 65_000] {
        assert!(a.run(&format!("ping -c 2 -i 0.2 -W 2 -s {size} 10.0.0.34")).stdout.contains(" 0% packet loss"), "{size} bytes");
        assert!(b.run(&format!("ping -c 2 -i 0.2 -W 2 -s {size} 10.0.0.18")).stdout.contains(" 0% packet loss"), "{size} bytes back");
    }
    assert_eq!(checksum_errors(&a) + checksum_errors(&b), 0);
}

fn group() {
    let fabric = Fabric::new(3, 2, "");
    fabric.wire.ip("link set br0 type bridge mcast_snooping 0").ok();
    let [one, two, three] = &fabric.nodes[..] else { panic!("three nodes") };
    one.overlay("-o group=239.1.1.1");
    two.overlay("-o group=239.1.1.1");
    let (a, b) = (one.station(18), two.station(34));
    let c = three.kernel("group 239.1.1.1 dev eth0", 50);
    for (from, to) in [(&a, "10.0.0.34"), (&a, "10.0.0.50"), (&b, "fd0a::50"), (&c, "10.0.0.18"), (&c, "fd0a::34")] {
        eventually("the first ping", || from.run(&format!("ping -c 1 -W 1 {to}")).code == Some(0));
        assert!(from.pings(to), "{to}");
    }
    assert_eq!(one.show()["networks"][0]["strict"], false);
    assert!(one.lab.host.ip("maddr show dev eth0").ok().contains("239.1.1.1"));
    drop((a, b));
    eventually("nobody is in the network", || one.lab.weft("network rm net").code == Some(0));
    assert!(!one.lab.host.ip("maddr show dev eth0").ok().contains("239.1.1.1"), "the group was left");
}

fn three_nodes() {
    let fabric = Fabric::new(3, 3, "");
    fabric.overlay(3, false, "");
    let stations: Vec<_> = fabric.nodes.iter().zip([18, 34, 50]).map(|(node, last)| node.station(last)).collect();
    for from in &stations {
        for last in [18, 34, 50] {
            assert!(from.pings(&format!("10.0.0.{last}")) && from.pings(&format!("fd0a::{last}")));
        }
    }
    // The same station, by addresses, turns up on another node, and says so as moved ones do.
    let mac = "02:00:00:00:00:77";
    let at = |node: &Node| {
        let ns = node.lab.ns("mover");
        node.lab.weft(&format!("attach net {} --ifname eth0 --ip 10.0.0.77 --mac {mac}", ns.path())).ok();
        ns
    };
    let before = at(&fabric.nodes[1]);
    assert!(stations[0].pings("10.0.0.77") && stations[2].pings("10.0.0.77"));
    drop(before);
    eventually("the port is gone", || !fabric.nodes[1].lab.weft("port ls").ok().contains("mover"));
    let after = at(&fabric.nodes[2]);
    assert!(after.pings("10.0.0.18"));
    assert!(stations[0].pings("10.0.0.77") && stations[1].pings("10.0.0.77"), "where it was too");
    let shown = fabric.nodes[0].show();
    let remote = shown["networks"][0]["remotes"].as_array().and_then(|all| all.iter().find(|remote| remote["mac"] == mac)).cloned();
    assert_eq!(remote.expect("it is known")["node"], "192.168.88.213:4789");
    assert!(shown["networks"][0]["counters"]["moved"].as_u64().is_some_and(|moved| moved > 0));
}

/// Captures on a node's underlay device.
/// So many bytes of each frame, or all (0).
pub(crate) fn sniff(node: &Node, bytes: u32) -> (PathBuf, Background) {
    let file = node.lab.dir().join("underlay.pcap");
    let child = node.lab.host.command("tshark").args(["-q", "-i", "eth0", "-s", &bytes.to_string(), "-w"]).arg(&file).stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null()).spawn();
    let sniffer = Background(child.expect("tshark"));
    eventually("tshark captures", || {
        node.lab.host.run("ping -c 1 -W 1 192.168.88.212").ok();
        fs::metadata(&file).is_ok_and(|file| file.len() > 400)
    });
    (file, sniffer)
}

fn on_the_wire() {
    let fabric = Fabric::new(2, 2, "");
    fabric.overlay(2, false, "-o ttl=33");
    let [one, two] = &fabric.nodes[..] else { panic!("two nodes") };
    let (a, b) = (one.station(18), two.station(34));
    let (file, sniffer) = sniff(one, 256);
    let read = |options: &str| one.lab.host.sh(&format!("tshark -r {} {options} 2>/dev/null", file.display())).stdout;
    assert!(a.pings("10.0.0.34") && a.pings("fd0a::34"));
    {
        let _server = b.iperf_server();
        a.iperf("10.0.0.34", "-P 16 -b 2M");
        // Congestion inside is seen outside (RFC 6040).
        a.run("ping -c 2 -i 0.1 -W 1 -Q 3 10.0.0.34").ok();
    }
    eventually("the capture has the last datagrams", || read("-Y 'vxlan && icmp && ip.dsfield.ecn==3'").contains("10.0.0.34"));
    drop(sniffer);
    assert!(read("-Y 'vxlan.vni==4096 && ip.src==192.168.88.211 && ip.dst==192.168.88.212 && icmp' -T fields -e ip.src").contains("192.168.88.211,10.0.0.18"), "V3");
    // A sender's own capture sees checksums that the device is yet to make.
    let malformed = read("-o udp.check_checksum:FALSE -o tcp.check_checksum:FALSE -Y '_ws.malformed'");
    assert!(malformed.is_empty(), "{malformed}");
    let ours = "udp.dstport==4789 && ip.src==192.168.88.211";
    let mut ports: Vec<u32> = read(&format!("-Y '{ours}' -T fields -E occurrence=f -e udp.srcport")).lines().filter_map(|line| line.parse().ok()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert!(ports.len() > 3 && ports.iter().all(|port| (49_152..=65_535).contains(port)), "{ports:?}");
    let outer = read(&format!("-Y '{ours}' -T fields -E occurrence=f -e ip.ttl -e vxlan.flags -e vxlan.vni"));
    let mut kinds: Vec<_> = outer.lines().collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, ["33\t0x0800\t4096"], "one kind of outer header");
    assert_eq!(read(&format!("-Y '{ours} && ip.flags.df==0'")), "", "all with DF");
    let marks = read(&format!("-Y '{ours} && icmp && ip.dsfield.ecn==3' -T fields -e ip.dsfield.ecn"));
    assert!(marks.lines().count() >= 2 && marks.lines().all(|line| line == "3,3"), "{marks}");
}

fn gateways() {
    let fabric = Fabric::new(2, 2, "");
    fabric.overlay(2, false, "");
    let [one, two] = &fabric.nodes[..] else { panic!("two nodes") };
    let (a, b) = (one.station(18), two.station(34));
    assert!(a.pings("10.0.0.34"));
    let heard = two.lab.dir().join("heard");
    let tunnel = two.lab.weft_command().args(["capture", "vxlan:net", "-w"]).arg(&heard).stderr(std::process::Stdio::null()).spawn().expect("a capture");
    let tunnel = Background(tunnel);
    eventually("the capture runs", || fs::metadata(&heard).is_ok_and(|file| file.len() > 0));
    // Each station has the gateway of its own node, under one address.
    for ns in [&a, &b] {
        assert!(ns.pings("10.0.0.1") && ns.pings("fd0a::1"));
        assert!(ns.ip("neigh show 10.0.0.1").ok().contains("02:42:0a:00:00:01"));
    }
    // Published on one node: the client is a stranger to the other.
    two.lab.weft("run -d --name web --net net -p 8080:80 -- python3 -m http.server 80").ok();
    eventually("it is served", || one.lab.host.sh("curl -s -m 2 -o /dev/null http://192.168.88.212:8080/").code == Some(0));
    let web = two.lab.weft("inspect web").json()[0]["endpoints"][0]["addresses"][0].as_str().and_then(|address| address.split('/').next().map(str::to_owned)).expect("an address");
    eventually("from the other node's station", || a.sh(&format!("curl -s -m 2 -o /dev/null http://{web}/")).code == Some(0));
    // What claims to be the gateway does not come in by the tunnel.
    let socket = socket_in(&one.lab.host);
    let before = two.dropped("looped");
    let frame = broadcast(4096, [2, 0x42, 10, 0, 0, 1]);
    socket.send_to(&frame, "192.168.88.212:4789").expect("sent");
    eventually("it is counted", || two.dropped("looped") == before + 1);
    drop(tunnel);
    if Need::Tool("tshark").is_met() {
        let crossed = two.lab.host.sh(&format!("tshark -r {} -Y 'eth.addr==02:42:0a:00:00:01 || arp.dst.proto_ipv4==10.0.0.1' 2>/dev/null", heard.display())).stdout;
        assert!(crossed.is_empty(), "{crossed}");
    }
}

fn restart() {
    let mut fabric = Fabric::new(2, 2, "");
    fabric.overlay(2, false, "");
    let third = "192.168.88.219:4790";
    let (a, b) = (fabric.nodes[0].station(18), fabric.nodes[1].station(34));
    fabric.nodes[0].lab.weft(&format!("vxlan peer add net {third}")).ok();
    fabric.nodes[0].lab.weft("vxlan fdb append 02:00:00:00:00:99 net 192.168.88.212").ok();
    assert!(a.pings("10.0.0.34"));
    fabric.nodes[0].lab.kill_daemon();
    assert!(b.cannot_ping("10.0.0.18"));
    fabric.nodes[0].lab.start_daemon();
    eventually("the way is back", || b.run("ping -c 1 -W 1 10.0.0.18").code == Some(0));
    assert!(a.pings("fd0a::34"));
    let node = &fabric.nodes[0];
    let peers = node.lab.weft("vxlan peer ls net").ok();
    assert_eq!(peers.lines().collect::<Vec<_>>(), ["192.168.88.212:4789", third]);
    let remotes = node.show()["networks"][0]["remotes"].clone();
    let known = remotes.as_array().and_then(|all| all.iter().find(|remote| remote["mac"] == "02:00:00:00:00:99")).cloned().expect("the station");
    assert_eq!((&known["kind"], &known["node"]), (&"static".into(), &"192.168.88.212:4789".into()));
    node.lab.weft(&format!("vxlan peer rm net {third}")).ok();
    node.lab.weft("vxlan fdb del 02:00:00:00:00:99 net").ok();
    assert!(a.pings("10.0.0.34"));
    // And the other way: without its only peer nothing crosses.
    node.lab.weft("vxlan peer rm net 192.168.88.212").ok();
    assert!(a.cannot_ping("10.0.0.34") && node.dropped("no_remote") > 0);
    node.lab.weft("vxlan peer add net 192.168.88.212").ok();
    assert!(a.pings("10.0.0.34"));
}

/// A daemon that starts while another program has the UDP port says so, and takes it when it is free.
fn taken_at_the_start() {
    let mut fabric = Fabric::new(2, 2, "");
    fabric.overlay(2, false, "");
    let (a, b) = (fabric.nodes[0].station(18), fabric.nodes[1].station(34));
    assert!(a.pings("10.0.0.34"));
    fabric.nodes[0].lab.kill_daemon();
    let taken = Netns::open_path(fabric.nodes[0].lab.host.path()).expect("the namespace").run(|| Ok(UdpSocket::bind("0.0.0.0:4789"))).expect("the namespace").expect("the port");
    fabric.nodes[0].lab.start_daemon();
    let lab = &fabric.nodes[0].lab;
    let doctor = lab.weft("doctor");
    assert!(doctor.code == Some(1) && doctor.stdout.contains("network net has no way to the other nodes: UDP port 4789"), "{doctor:?}");
    assert!(lab.weft("vxlan peer add net 192.168.88.77").fails().contains("UDP port 4789"));
    drop(taken);
    eventually("the way is open", || b.run("ping -c 1 -W 1 10.0.0.18").code == Some(0));
    assert!(a.pings("fd0a::34") && !lab.weft("doctor").stdout.contains("no way to the other nodes"));
}

/// What an edit of a network in use says of its packets and stations is its tunnel's too.
fn edited() {
    let fabric = Fabric::new(2, 2, "");
    for node in &fabric.nodes {
        node.lab.host.sh("ip link set eth0 mtu 9000").ok();
    }
    fabric.wire.sh("for link in n1 n2 br0; do ip link set $link mtu 9000; done").ok();
    fabric.overlay(2, false, "");
    for (node, last) in fabric.nodes.iter().zip([18, 34]) {
        node.lab.weft(&format!("run -d --name s --net net:ip=10.0.0.{last} -- sleep 1000")).ok();
        node.lab.weft("network edit net --mtu 8900 --ageing 60").ok();
    }
    let lab = &fabric.nodes[0].lab;
    let crosses = |bytes: u32| lab.weft(&format!("exec s ping -c 1 -W 1 -M do -s {bytes} 10.0.0.34")).code == Some(0);
    eventually("large packets cross", || crosses(8800));
    assert_eq!(fabric.nodes[0].show()["networks"][0]["mtu"], 8900);
    lab.weft("network edit net --mtu 1300").ok();
    assert!(!crosses(1300) && crosses(1200));
    assert_eq!(fabric.nodes[0].show()["networks"][0]["mtu"], 1300);
}

/// In a user namespace, without the kernel's tunnels.
fn footprint() {
    let fabric = Fabric::new(2, 0, "");
    let before: Vec<_> = fabric.nodes.iter().map(|node| node.lab.footprint()).collect();
    let mut fabric = fabric;
    fabric.nodes.iter_mut().for_each(|node| node.lab.start_daemon_with("--rootless"));
    fabric.overlay(2, false, "");
    let [one, two] = &fabric.nodes[..] else { panic!("two nodes") };
    one.lab.weft("run -d --name a --net net:ip=10.0.0.18 -- sleep 1000").ok();
    two.lab.weft("run -d --name b --net net:ip=10.0.0.34 -- sleep 1000").ok();
    one.lab.weft("exec a ping -c 3 -i 0.2 -W 2 10.0.0.34").ok();
    for (node, before) in fabric.nodes.iter().zip(&before) {
        assert_eq!(*before, node.lab.footprint(), "while it runs");
        assert!(node.lab.host.ip("-d link show type vxlan").ok().is_empty());
    }
    one.lab.weft("rm -f a").ok();
    two.lab.weft("rm -f b").ok();
    for (node, before) in fabric.nodes.iter().zip(&before) {
        node.lab.weft("network rm net").ok();
        assert_eq!(*before, node.lab.footprint(), "afterwards");
        assert!(!node.lab.host.run("ss -Hlun").stdout.contains(":4789 "), "the socket went with the network");
    }
}

fn words() {
    let lab = Lab::with_options("--vxlan-port 4790");
    let create = |options: &str| lab.weft(&format!("network create -d overlay {options}"));
    create("one --subnet 10.1.0.0/24 --opt com.docker.network.driver.overlay.vxlanid_list=4096").ok();
    create("two --subnet 10.2.0.0/24").ok();
    create("three --subnet 10.3.0.0/24 -o port=4800 -o strict=false -o learning=false --mtu 8950").ok();
    let vni = |name: &str| lab.weft(&format!("network inspect {name}")).json()[0]["overlay"]["vni"].as_u64();
    assert_eq!((vni("one"), vni("two"), vni("three")), (Some(4096), Some(4097), Some(4098)));
    let sockets = lab.host.run("ss -Hlun").stdout;
    assert!(sockets.contains("0.0.0.0:4790 ") && sockets.contains("[::]:4790 ") && sockets.contains("0.0.0.0:4800 ") && !sockets.contains(":4789 "), "{sockets}");
    for (options, culprit) in [
        ("x --vni 4096", "4096"),
        ("x --vni 16777216", "16777216"),
        ("x -o ttl=0", "ttl"),
        ("x -o group=10.0.0.1", "10.0.0.1"),
        ("x --peer node2", "node2"),
        ("x --mtu 65500", "65500"),
        ("x -o group=239.9.9.9", "route"),
    ] {
        let error = create(options).fails();
        assert!(error.contains(culprit), "{options}: {error}");
    }
    assert!(lab.weft("network create x --vni 5").fails().contains("vni"));
    for line in ["peer add bridge 10.0.0.2", "peer ls bridge", "show bridge"] {
        assert!(lab.weft(&format!("vxlan {line}")).fails().contains("no overlay"), "{line}");
    }
    assert!(lab.weft("vxlan peer rm one 10.0.0.2").fails().contains("10.0.0.2"));
    assert!(lab.weft("vxlan fdb del 02:00:00:00:00:01 one").fails().contains("02:00:00:00:00:01"));
    // A port that is taken: nothing is left over, and the reason is said.
    let taken = Netns::open_path(lab.host.path()).expect("the namespace").run(|| Ok(UdpSocket::bind("0.0.0.0:4801"))).expect("the namespace");
    assert!(create("x -o port=4801").fails().contains("4801"));
    drop(taken);
    create("x -o port=4801").ok();
    lab.weft("network rm one two three x").ok();
    assert!(!lab.host.run("ss -Hlun").stdout.contains(":48"));
}
