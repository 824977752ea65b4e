//! Sandboxes as stations of a LAN (SPEC O3): a namespace plays its router, another a machine on it, and a bridge of the
//! kernel its switch. Rows: O3 (the lan driver, and its Docker names macvlan and ipvlan), O4, O5, O6, D1, N15.

mod parent;

use libtest_mimic::Trial;
use serde_json::json;
use weft_tests::{
    lab::Lab,
    ns::{Background, Ns},
    run::{eventually, run},
    runner::{Need, test},
};

use crate::{
    client::Docker,
    uplink::WHO,
};

const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("python3"), Need::Tool("curl"), Need::Tool("arping"), Need::Tool("tshark")];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("lan::o3_sandboxes_are_stations_of_the_lan", NEEDS, stations),
        test("lan::d1_names_and_nothing_of_them_on_the_wire", NEEDS, names),
        test("lan::o3_macvlan_ipvlan_and_vlans_by_the_stock_client", &[Need::Root, Need::Tun, Need::Tool("docker"), Need::Tool("python3"), Need::Tool("curl"), Need::Tool("tshark")], stock_client),
        test("lan::o3_o6_refusals_and_isolated_networks", &[Need::Root, Need::Tun, Need::Tool("docker"), Need::Tool("ping")], refusals),
        test("lan::over_ipv6_and_from_a_file", &[Need::Root, Need::Tun, Need::Tool("ping")], ipv6),
        test("lan::addresses_of_the_lan_s_own_dhcp_server", &[Need::Root, Need::Tun, Need::Tool("udhcpc"), Need::Tool("busybox")], dhcp),
        test("lan::the_device_goes_and_comes_back", &[Need::Root, Need::Tun, Need::Tool("ping")], device),
        test("lan::o3_a_device_leads_to_one_network", &[Need::Root, Need::Tun], parent::one_network),
        test("lan::o3_what_is_wrong_with_the_device_is_shown", &[Need::Root, Need::Tun], parent::trouble),
        test("lan::o3_another_device_whole_or_not_at_all", &[Need::Root, Need::Tun, Need::Tool("ping")], parent::another),
    ]
}

/// A switch with the host's eth1, a router (192.168.88.1, beyond it 203.0.113.9) and a machine (192.168.88.50) on it.
struct Wire {
    switch: Ns,
    router: Ns,
    pc: Ns,
    servers: Vec<Background>,
}

impl Wire {
    fn new(lab: &Lab) -> Self {
        let wire = Self { switch: lab.ns("wire"), router: lab.ns("router"), pc: lab.ns("pc"), servers: Vec::new() };
        wire.switch.sh("ip link add br0 type bridge && ip link set br0 up").ok();
        for (station, name) in [(&wire.router, "r"), (&wire.pc, "p")] {
            wire.switch.sh(&format!("ip link add {name} type veth peer name eth0 netns {} && ip link set {name} master br0 up && ip -n {} link set eth0 up", station.name, station.name)).ok();
        }
        wire.router.sh("ip addr add 192.168.88.1/24 dev eth0 && ip addr add 203.0.113.9/32 dev lo").ok();
        wire.pc.sh("ip addr add 192.168.88.50/24 dev eth0").ok();
        wire.plug(lab, 5);
        wire
    }

    /// A host's leg, with an address of the host's own.
    fn plug(&self, lab: &Lab, number: u8) {
        self.switch.sh(&format!("ip link add h{number} type veth peer name eth1 netns {} && ip link set h{number} master br0 up", lab.host.name)).ok();
        lab.host.sh(&format!("ip link set eth1 up && ip addr add 192.168.88.{number}/24 dev eth1")).ok();
        eventually("its own address is settled", || {
            let shown = lab.host.ip("-6 addr show dev eth1").stdout;
            shown.contains("fe80") && !shown.contains("tentative")
        });
    }

    /// What is on the wire, from here on.
    fn capture(&self, file: &std::path::Path) -> Background {
        let capture = self.switch.command("tshark").args(["-q", "-i", "br0", "-w", &file.to_string_lossy()]).stderr(std::process::Stdio::null()).spawn().expect("tshark");
        eventually("tshark captures", || self.pc.pings("192.168.88.1") && count(file, "icmp") > 0);
        Background(capture)
    }

    /// Answers with the client's address on port 80.
    fn serve(&mut self) {
        for station in [&self.router, &self.pc] {
            let child = station.command("python3").args(["-c", WHO, "80"]).spawn().expect("python3");
            self.servers.push(Background(child));
            eventually("it listens", || station.sh("ss -Hltn").stdout.contains(":80 "));
        }
    }
}

/// Frames in a capture that match.
fn count(file: &std::path::Path, filter: &str) -> usize {
    run(std::process::Command::new("tshark").args(["-r", &file.to_string_lossy(), "-Y", filter])).stdout.lines().count()
}

const CREATE: &str = "network create -d lan -o parent=eth1 --subnet 192.168.88.0/24 --gateway 192.168.88.1 --ip-range 192.168.88.128/25 --aux-address nas=192.168.88.129 lan1";

fn in_sandbox(lab: &Lab, name: &str, line: &str) -> weft_tests::run::Ran {
    lab.weft_args(&["exec", name, "sh", "-c", line])
}

/// Both ways, with the addresses and MACs that each has; the gateway is the LAN's; over kill -9; and nothing is left.
fn stations() {
    let mut lab = Lab::start();
    let mut wire = Wire::new(&lab);
    wire.serve();
    let before = lab.footprint();
    lab.weft(CREATE).ok();
    assert!(lab.host.ip("-d link show eth1").ok().contains("promiscuity 1"));
    assert!(lab.host.ip("addr show eth1").ok().contains("192.168.88.5/24"), "its addresses are the host's");
    lab.weft_args(&["run", "-d", "--name", "a", "--net", "lan1", "--", "python3", "-c", WHO, "80"]).ok();
    lab.weft("run -d --name b --net lan1 -- sleep 1000").ok();
    eventually("a listens", || in_sandbox(&lab, "a", "ss -Hltn").stdout.contains(":80 "));
    assert!(in_sandbox(&lab, "a", "ip -o -4 addr show eth0").ok().contains("192.168.88.130/24"), "past the auxiliary address");
    assert!(in_sandbox(&lab, "b", "ip route").ok().starts_with("default via 192.168.88.1 dev eth0"));
    let talk = |lab: &Lab| {
        assert!(wire.pc.pings("192.168.88.130") && wire.router.pings("192.168.88.131"));
        for to in ["192.168.88.1", "192.168.88.50", "192.168.88.130", "203.0.113.9"] {
            in_sandbox(lab, "b", &format!("ping -c 2 -i 0.1 -W 2 {to}")).ok();
        }
        // Nothing is translated, on the link and beyond the router, and back.
        for to in ["192.168.88.50", "203.0.113.9"] {
            assert!(in_sandbox(lab, "b", &format!("curl -s -m 5 http://{to}/")).ok().starts_with("192.168.88.131|"));
        }
        assert!(wire.pc.run("curl -s -m 5 http://192.168.88.130/").ok().starts_with("192.168.88.50|"));
        // One owner of the gateway's address, which is the router.
        let mac = wire.router.sh("cat /sys/class/net/eth0/address").stdout;
        let router = wire.router.ip("-o link show eth0").ok();
        let mac = router.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap_or(mac.trim()).to_ascii_lowercase();
        let seen = in_sandbox(lab, "b", "arping -c 3 -I eth0 192.168.88.1").stdout.to_ascii_lowercase();
        assert_eq!((seen.matches(&mac).count(), seen.matches("reply from").count()), (3, 3), "{seen}");
        assert!(wire.pc.ip("neigh show 192.168.88.130").ok().contains("02:42:c0:a8:58:82"), "its own MAC is seen there");
        assert!(lab.weft("bridge fdb show lan1").ok().contains("lan1:eth1"));
    };
    talk(&lab);
    assert!(lab.host.cannot_ping("192.168.88.130"), "as with macvlan, the host is on the other side of its device");
    let steps = lab.weft_args(&["trace", "b", "tcp 192.168.88.131:4000 > 203.0.113.9:80"]).ok();
    assert!(steps.contains("the LAN's router 192.168.88.1"), "{steps}");
    let port = lab.weft("port ls").ok();
    assert!(port.lines().any(|line| line.contains("lan1:eth1") && line.contains("parent")), "{port}");
    assert!(!lab.weft("nat show").ok().contains("lan1"));
    let said = lab.weft("run --net lan1 -p 8080:80 -- true").fails();
    assert!(said.contains("own address"), "{said}");
    lab.kill_daemon();
    let is_left = |lab: &Lab| !lab.host.ip("-d link show eth1").ok().contains("promiscuity 1");
    eventually("the kernel has closed what the daemon had", || is_left(&lab));
    lab.start_daemon();
    talk(&lab);
    lab.weft("rm -f a b").ok();
    lab.weft("network rm lan1").ok();
    eventually("the device is left as it was", || is_left(&lab));
    assert_eq!(lab.footprint(), before);
    assert!(wire.pc.pings("192.168.88.5"), "the host is as it was");
}

/// By name in the sandboxes (D1), where the LAN's router is asked nothing; no frame about our names leaves.
fn names() {
    let lab = Lab::start();
    let wire = Wire::new(&lab);
    let file = lab.dir().join("wire.pcap");
    lab.weft(CREATE).ok();
    lab.weft("network create side --subnet 10.9.0.0/24").ok();
    let capture = wire.capture(&file);
    lab.weft("run -d --name a --net lan1 --network-alias sea -- sleep 1000").ok();
    lab.weft("run -d --name b --net lan1 -- sleep 1000").ok();
    lab.weft("run -d --name c --net side -- sleep 1000").ok();
    lab.weft("network connect lan1 c").ok();
    for (from, to) in [("a", "b"), ("b", "sea"), ("c", "a"), ("b", "c"), ("a", "b.lan1")] {
        in_sandbox(&lab, from, &format!("ping -c 1 -W 2 {to}")).ok();
    }
    assert!(in_sandbox(&lab, "a", "cat /etc/resolv.conf").ok().contains("nameserver 169.254.0.53"));
    assert!(in_sandbox(&lab, "c", "getent hosts c").stdout.contains("10.9.0.2"));
    assert_eq!(in_sandbox(&lab, "a", "getent hosts nobody").code, Some(2));
    // It is no router, and it is not there for the LAN.
    assert!(!wire.pc.run("arping -c 2 -w 2 -I eth0 169.254.0.53").stdout.contains("reply from"));
    in_sandbox(&lab, "a", "ping -c 1 -W 2 169.254.0.53").ok();
    assert!(wire.pc.pings("192.168.88.130"));
    eventually("the LAN saw the sandboxes", || count(&file, "icmp && ip.addr == 192.168.88.130") > 1);
    drop(capture);
    assert_eq!(count(&file, "dns || arp.src.hw_mac == 02:42:a9:fe:00:35 || eth.addr == 02:42:a9:fe:00:35"), 0);
    lab.weft("rm -f a b c").ok();
}

/// `docker network create -d macvlan|ipvlan`, with a VLAN of the same device, to another host of that VLAN (O3).
fn stock_client() {
    let docker = Docker::start();
    let wire = Wire::new(&docker.0);
    let far = Lab::start();
    wire.plug(&far, 6);
    let file = docker.0.dir().join("wire.pcap");
    let capture = wire.capture(&file);
    docker.run("network create -d macvlan --subnet 192.168.88.0/24 --gateway 192.168.88.1 --ip-range 192.168.88.192/27 -o parent=eth1 -o macvlan_mode=bridge mac").ok();
    docker.run("network create -d ipvlan --subnet 10.20.0.0/24 --gateway 10.20.0.1 --ip-range 10.20.0.64/27 -o parent=eth1.20 -o ipvlan_mode=l2 vlan20").ok();
    let seen = docker.run("network inspect mac vlan20").json();
    assert_eq!((&seen[0]["Driver"], &seen[0]["Scope"], &seen[0]["Options"]), (&json!("macvlan"), &json!("local"), &json!({ "parent": "eth1", "macvlan_mode": "bridge" })));
    assert_eq!((&seen[1]["Driver"], &seen[1]["Options"], &seen[1]["Internal"]), (&json!("ipvlan"), &json!({ "parent": "eth1.20", "ipvlan_mode": "l2" }), &json!(false)));
    assert!(docker.run("network ls --filter driver=macvlan").ok().contains("mac "));
    docker.run("run -d --name m --network mac host sleep 1000").ok();
    docker.run("run -d --name v --network vlan20 host sleep 1000").ok();
    assert_eq!(docker.format("m", "{{.NetworkSettings.Networks.mac.IPAddress}} {{.NetworkSettings.Networks.mac.Gateway}}"), "192.168.88.193 192.168.88.1");
    assert!(wire.pc.pings("192.168.88.193"));
    docker.run("exec m ping -c 2 -i 0.1 -W 2 203.0.113.9").ok();
    // Another host of VLAN 20, with what is longer than a segment.
    far.weft("network create -d lan -o parent=eth1.20 --subnet 10.20.0.0/24 --gateway 10.20.0.1 --ip-range 10.20.0.128/27 far").ok();
    far.weft("run -d --name f --net far -- python3 -m http.server 8000 -d /usr/bin").ok();
    eventually("it listens", || in_sandbox(&far, "f", "ss -Hltn").stdout.contains(":8000 "));
    let wanted = docker.sh("sha256sum < /usr/bin/python3").ok();
    for (to, is_there) in [("v", true), ("m", false)] {
        assert_eq!(docker.run(&format!("exec {to} ping -c 1 -W 2 10.20.0.129")).code == Some(0), is_there, "{to}: VLAN 20 is apart");
    }
    assert_eq!(docker.args(&["exec", "v", "sh", "-c", "curl -s -m 60 http://10.20.0.129:8000/python3 | sha256sum"]).ok(), wanted);
    assert_eq!(in_sandbox(&far, "f", "ping -c 1 -W 2 10.20.0.65").code, Some(0));
    // A name of its container on either network, and a container of both.
    docker.run("run -d --name both --network mac --network vlan20 host sleep 1000").ok();
    for to in ["m", "v", "192.168.88.50", "10.20.0.129"] {
        docker.run(&format!("exec both ping -c 1 -W 2 {to}")).ok();
    }
    docker.run("network disconnect mac both").ok();
    docker.run("exec both ping -c 1 -W 2 v").ok();
    eventually("it was on the wire", || count(&file, "vlan.id == 20 && tcp.port == 8000") > 2);
    drop(capture);
    assert_eq!(count(&file, "!vlan && ip.src == 10.20.0.0/24"), 0, "only with its tag");
    assert_eq!(count(&file, "vlan && ip.src == 192.168.88.0/24"), 0);
    docker.run("rm -f m v both").ok();
    docker.run("network rm mac vlan20").ok();
    eventually("the device is left as it was", || !docker.0.host.ip("-d link show eth1").ok().contains("promiscuity 1"));
}

/// What Docker refuses, what weft does not have, and networks without a device (O3, O6).
fn refusals() {
    let docker = Docker::start();
    let wire = Wire::new(&docker.0);
    docker.run("network create -d macvlan --subnet 192.168.88.0/24 -o parent=eth1 mac").ok();
    docker.0.host.ip("tuntap add tun9 mode tun").ok();
    for (words, part) in [
        ("-d ipvlan -o parent=eth1", "network mac is already using parent interface eth1"),
        ("-d macvlan -o parent=eth9", "the host has no device eth9"),
        ("-d macvlan -o parent=eth9.10", "the host has no device eth9"),
        ("-d macvlan -o parent=eth1.4095", "VLAN 1 to 4094"),
        ("-d macvlan -o parent=tun9", "tun9 has no Ethernet addresses"),
        ("-d macvlan -o parent=lo", "loopback interface is not a valid macvlan parent link"),
        ("-d macvlan -o macvlan_mode=passthru", "passthru"),
        ("-d macvlan -o macvlan_mode=odd", "requested macvlan mode 'odd' is not valid, 'bridge' mode is the macvlan driver default"),
        ("-d ipvlan -o ipvlan_mode=l3", "l3"),
        ("-d ipvlan -o ipvlan_mode=l3s", "l3s"),
        ("-d bridge -o parent=eth1.30", "parent is for lan networks"),
        ("-d lan -o com.docker.network.bridge.host_binding_ipv4=127.0.0.1 -o parent=eth1.30", "no port is published"),
        ("-d lan -o com.docker.network.driver.mtu=9000 -o parent=eth1.30", "is more than eth1 takes (1500)"),
    ] {
        let said = docker.run(&format!("network create {words} x")).fails();
        assert!(said.contains(part), "{words}: {said}");
    }
    assert_eq!(docker.run("network ls -q --filter type=custom").ok().lines().count(), 1, "nothing is half made");
    let said = docker.run("run --rm -p 80:80 --network mac host true").fails();
    assert!(said.contains("own address"), "{said}");
    // Without a device, or internal: they have one another, and nobody else has them.
    for (name, words) in [("alone", "-d ipvlan --subnet 10.7.0.0/24"), ("inner", "-d macvlan --internal --subnet 10.8.0.0/24 -o parent=eth1")] {
        docker.run(&format!("network create {words} {name}")).ok();
        assert_eq!(docker.run(&format!("network inspect {name}")).json()[0]["Internal"], json!(true));
        docker.run(&format!("run -d --name {name}1 --network {name} host sleep 1000")).ok();
        docker.run(&format!("run --rm --network {name} host ping -c 1 -W 2 {name}1")).ok();
        assert_eq!(docker.run(&format!("exec {name}1 ip route show default")).ok(), "");
        docker.run(&format!("exec {name}1 ip route add default dev eth0")).ok();
        assert_ne!(docker.run(&format!("exec {name}1 ping -c 1 -W 1 192.168.88.50")).code, Some(0));
        docker.run(&format!("rm -f {name}1")).ok();
    }
    drop(wire);
}

/// Both families, and IPv6 alone; networks of a file; addresses that the LAN gave are no forgeries (O4, O5, D1).
fn ipv6() {
    let lab = Lab::start();
    let wire = Wire::new(&lab);
    wire.router.ip("addr add fd88::1/64 dev eth0 nodad").ok();
    wire.pc.ip("addr add fd88::50/64 dev eth0 nodad").ok();
    let file = lab.dir().join("lan.toml");
    let text = "[[network]]\nname = \"both\"\ndriver = \"lan\"\nparent = \"eth1\"\nsubnets = [\"192.168.88.0/24\", \"fd88::/64\"]\ngateways = [\"192.168.88.1\", \"fd88::1\"]\nip-range = \"192.168.88.128/25\"\n";
    std::fs::write(&file, text).expect("a file");
    lab.weft(&format!("config apply {}", file.display())).ok();
    lab.weft(&format!("config diff {}", file.display())).ok();
    lab.weft("run -d --name a --net both:ip6=fd88::a -- sleep 1000").ok();
    lab.weft("run -d --name b --net both:ip6=fd88::b -- sleep 1000").ok();
    assert!(in_sandbox(&lab, "a", "ip -6 route").ok().contains("default via fd88::1"));
    for to in ["fd88::1", "fd88::50", "fd88::b", "-6 b", "-4 b"] {
        in_sandbox(&lab, "a", &format!("ping -c 1 -W 2 {to}")).ok();
    }
    assert!(wire.pc.pings("fd88::a"));
    // As a router's advertisement or a DHCP server might have said.
    in_sandbox(&lab, "a", "ip addr add fd88::aaaa/64 dev eth0 nodad && ip addr add 192.168.88.99/24 dev eth0").ok();
    for (from, to) in [("fd88::aaaa", "fd88::50"), ("192.168.88.99", "192.168.88.50")] {
        in_sandbox(&lab, "a", &format!("ping -c 1 -W 2 -I {from} {to}")).ok();
    }
    assert!(wire.pc.pings("192.168.88.99"));
    lab.weft("rm -f a b").ok();
    lab.weft("network rm both").ok();
    lab.weft("network create -d lan -o parent=eth1 --subnet fd88::/64 --gateway fd88::1 six").ok();
    lab.weft("run -d --name a --net six:ip6=fd88::a -- sleep 1000").ok();
    lab.weft("run -d --name b --net six:ip6=fd88::b -- sleep 1000").ok();
    assert!(in_sandbox(&lab, "a", "cat /etc/resolv.conf").ok().contains("nameserver fd77:6566:7400::53"));
    in_sandbox(&lab, "a", "ping -c 1 -W 2 b").ok();
    in_sandbox(&lab, "a", "ping -c 1 -W 2 fd88::50").ok();
    // A smaller link is the network's too.
    lab.host.ip("link set eth1 mtu 1400").ok();
    lab.weft("network create -d lan -o parent=eth1.30 small").ok();
    assert_eq!(lab.weft("network inspect small").json()[0]["mtu"], json!(1400));
    assert!(lab.weft("network edit small --mtu 1500").fails().contains("more than eth1 takes (1400)"));
    lab.weft("rm -f a b").ok();
}

/// Without addresses of weft's: a client inside asks the LAN's own server, from its own MAC.
fn dhcp() {
    let lab = Lab::start();
    let wire = Wire::new(&lab);
    let conf = lab.dir().join("udhcpd.conf");
    let leases = lab.dir().join("leases");
    std::fs::write(&leases, "").expect("a file");
    std::fs::write(&conf, format!("interface eth0\nstart 192.168.88.60\nend 192.168.88.79\nstatic_lease 02:00:00:00:00:77 192.168.88.77\noption router 192.168.88.1\noption subnet 255.255.255.0\nlease_file {}\npidfile {}.pid\n", leases.display(), leases.display())).expect("a file");
    let _server = wire.router.spawn(&format!("busybox udhcpd -f {}", conf.display()));
    eventually("the server listens", || wire.router.sh("ss -Hlun").stdout.contains(":67 "));
    lab.weft("network create -d lan -o parent=eth1 --ipam-driver null lan1").ok();
    lab.weft("run -d --name a --net lan1:mac=02:00:00:00:00:77 -- sleep 1000").ok();
    let script = lab.dir().join("udhcpc.sh");
    std::fs::write(&script, "#!/bin/sh\ncase $1 in bound) ip addr replace $ip/$mask dev $interface; ip route replace default via $router;; esac\n").expect("a script");
    lab.host.sh(&format!("chmod +x {}", script.display())).ok();
    in_sandbox(&lab, "a", &format!("udhcpc -i eth0 -n -q -t 10 -T 1 -s {}", script.display())).ok();
    assert!(in_sandbox(&lab, "a", "ip -o -4 addr show eth0").ok().contains("192.168.88.77/24"));
    in_sandbox(&lab, "a", "ping -c 2 -i 0.1 -W 2 203.0.113.9").ok();
    assert!(wire.pc.pings("192.168.88.77"));
    lab.weft("rm -f a").ok();
}

/// The device is removed and made again, and is not there when the daemon starts.
fn device() {
    let mut lab = Lab::start();
    let wire = Wire::new(&lab);
    lab.weft(CREATE).ok();
    lab.weft("run -d --name a --net lan1 -- sleep 1000").ok();
    lab.weft("run -d --name b --net lan1 -- sleep 1000").ok();
    let reached = || eventually("a is a station of the LAN", || wire.pc.run("ping -c 1 -W 1 192.168.88.130").code == Some(0));
    reached();
    lab.host.ip("link del eth1").ok();
    eventually("it is told", || lab.log().contains("the device of a lan network is gone") && lab.log().contains("eth1"));
    lab.weft("network inspect lan1").ok();
    in_sandbox(&lab, "a", "ping -c 1 -W 2 192.168.88.131").ok();
    wire.plug(&lab, 5);
    reached();
    lab.kill_daemon();
    lab.host.ip("link del eth1").ok();
    lab.start_daemon();
    eventually("it is told again", || lab.log().contains("the host has no device eth1"));
    in_sandbox(&lab, "a", "ping -c 1 -W 2 b").ok();
    wire.plug(&lab, 5);
    reached();
    // Down and up: the same device.
    lab.host.ip("link set eth1 down").ok();
    lab.host.ip("link set eth1 up").ok();
    reached();
    lab.weft("rm -f a b").ok();
    lab.weft("network rm lan1").ok();
}
