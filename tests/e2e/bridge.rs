//! The learning bridge as seen from outside. SPEC rows: N2, N3, N9, N10, N11, N12, N13, N14, N15.

use libtest_mimic::Trial;
use serde_json::Value;
use weft_tests::{
    lab::Lab,
    run::eventually,
    runner::{Need, test},
};

const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("ping"), Need::Tool("tshark")];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("bridge::n9_two_namespaces_through_the_switch", NEEDS, n9_through_the_switch),
        test("bridge::n9_direct_veth_still_works", NEEDS, n9_direct_veth),
        test("bridge::n10_odd_interface_names", NEEDS, n10_odd_names),
        test("bridge::n11_p1_the_host_is_a_member", NEEDS, n11_host_port),
        test("bridge::n12_live_rehoming", NEEDS, n12_rehoming),
        test("bridge::n13_port_dies_with_its_namespace", NEEDS, n13_lifecycle),
        test("bridge::n14_views", NEEDS, n14_views),
        test("bridge::n15_host_is_untouched", NEEDS, n15_footprint),
        test("bridge::n2_carrier_follows_the_port", NEEDS, n2_carrier),
        test("bridge::n3_second_address", NEEDS, n3_second_address),
        test("bridge::source_guard_blocks_spoofing", NEEDS, source_guard),
        test("bridge::isolated_ports", NEEDS, isolated),
        test("bridge::vlan_access_ports", NEEDS, vlans),
        test("bridge::static_fdb_entries", NEEDS, static_fdb),
        test("bridge::port_on_an_existing_device", NEEDS, existing_device),
    ]
}

fn n9_through_the_switch() {
    let lab = Lab::start();
    let (one, two) = (lab.ns("ns1"), lab.ns("ns2"));
    lab.weft("network create net --subnet 192.168.10.0/24").ok();
    lab.weft(&format!("attach net {} --ifname eth0 --ip 192.168.10.10", one.path())).ok();
    lab.weft(&format!("attach net {} --ifname eth0 --ip 192.168.10.11", two.path())).ok();
    let file = lab.dir().join("n9.pcapng");
    let mut capture = lab.weft_command().args(["capture", "net", "-w"]).arg(&file).spawn().expect("capture");
    eventually("the capture runs", || std::fs::metadata(&file).is_ok_and(|meta| meta.len() > 0));
    assert!(one.pings("192.168.10.11"));
    assert!(two.pings("192.168.10.10"));
    eventually("frames are in the file", || {
        weft_tests::run::run(std::process::Command::new("tshark").args(["-r", &file.to_string_lossy(), "-Y", "icmp"])).stdout.lines().count() >= 12
    });
    drop(capture.kill());
    drop(capture.wait());
    let shown = weft_tests::run::run(std::process::Command::new("tshark").args(["-r", &file.to_string_lossy()])).stdout;
    let (arp, icmp) = (shown.find(" ARP "), shown.find("Echo (ping)"));
    assert!(arp.is_some() && arp < icmp, "ARP, then ICMP:\n{shown}");
    let fdb = lab.weft("fdb show net --json").json();
    let learned: Vec<_> = fdb.as_array().expect("list").iter().map(|entry| (entry["mac"].clone(), entry["ifname"].clone())).collect();
    assert_eq!(learned.len(), 2, "{fdb}");
    assert_ne!(learned[0].1, learned[1].1, "two MACs on two ports: {fdb}");
    assert!(!lab.host.ip("-d link").ok().contains("bridge"), "no kernel bridge anywhere");
}

fn n9_direct_veth() {
    let lab = Lab::without_daemon();
    let (one, two) = (lab.ns("ns1"), lab.ns("ns2"));
    lab.host.ip(&format!("link add veth-ns1 netns {} type veth peer name veth-ns2 netns {}", one.name, two.name)).ok();
    one.ip("addr add 192.168.10.10/24 dev veth-ns1").ok();
    two.ip("addr add 192.168.10.11/24 dev veth-ns2").ok();
    one.ip("link set veth-ns1 up").ok();
    two.ip("link set veth-ns2 up").ok();
    assert!(one.pings("192.168.10.11"));
}

fn n10_odd_names() {
    let lab = Lab::start();
    let (one, two) = (lab.ns("r1"), lab.ns("r2"));
    lab.weft("network create net --subnet 192.168.0.0/24 --gateway 192.168.0.254").ok();
    lab.weft(&format!("attach net {} --ifname veth1.2 --ip 192.168.0.1", one.path())).ok();
    lab.weft(&format!("attach net {} --ifname eth1.1 --ip 192.168.0.3", two.path())).ok();
    assert!(one.pings("192.168.0.3"));
    one.ip("link set veth1.2 down").ok();
    one.ip("link set dev veth1.2 name eth0").ok();
    one.ip("link set eth0 up").ok();
    assert!(one.pings("192.168.0.3"), "a renamed interface goes on working");
    assert!(two.pings("192.168.0.1"));
}

fn n11_host_port() {
    let lab = Lab::start();
    let one = lab.ns("r1");
    lab.weft("network create net --subnet 192.168.0.0/24 --gateway 192.168.0.254").ok();
    lab.weft(&format!("attach net {} --ifname eth0 --ip 192.168.0.3", one.path())).ok();
    lab.weft("attach net --host-port --ifname weft0 --ip 192.168.0.100").ok();
    assert!(lab.host.pings("192.168.0.3"));
    assert!(one.pings("192.168.0.100"));
    // P1: the host reaches a sandbox by its address.
    let page = weft_tests::ns::Background(one.command("python3").args(["-c", crate::uplink::WHO, "80"]).spawn().expect("python3"));
    weft_tests::run::eventually("the server listens", || one.sh("ss -Hltn").stdout.contains(":80 "));
    assert!(lab.host.run("curl -s -m 5 http://192.168.0.3/").ok().starts_with("192.168.0.100|"));
    drop(page);
}

fn n12_rehoming() {
    let lab = Lab::start();
    let (one, two, peer) = (lab.ns("r1"), lab.ns("r2"), lab.ns("peer"));
    lab.weft("network create net --subnet 192.168.0.0/24 --gateway 192.168.0.254").ok();
    lab.weft(&format!("attach net {} --ifname eth0 --ip 192.168.0.1", one.path())).ok();
    lab.weft(&format!("attach net {} --ifname eth0 --ip 192.168.0.3", peer.path())).ok();
    assert!(one.pings("192.168.0.3"));
    let port = port_named(&lab, &one.name);
    lab.weft(&format!("port move {port} {}", two.path())).ok();
    assert!(!one.ip("link").ok().contains("eth0"), "it left the first namespace");
    assert!(two.pings("192.168.0.3"), "and works from the second");
    assert!(peer.pings("192.168.0.1"));
}

fn n13_lifecycle() {
    let lab = Lab::start();
    lab.weft("network create net --subnet 10.9.0.0/29").ok();
    let id = lab.weft("run -d --name gone --net net -- sleep 1000").ok();
    assert!(!id.trim().is_empty());
    let inspect = lab.weft("inspect gone --json").json();
    let first_ip = ip_of(&inspect);
    let pid = inspect["pid"].as_u64().or_else(|| inspect[0]["pid"].as_u64()).expect("pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid).expect("pid")), nix::sys::signal::Signal::SIGKILL).ok();
    eventually("the port is gone", || lab.weft("port ls --json").json().as_array().is_some_and(Vec::is_empty));
    assert!(lab.weft("fdb show net --json").json().as_array().is_some_and(Vec::is_empty), "FDB flushed");
    // The pool of five addresses can be handed out whole: the lease came back.
    for count in 0..5 {
        lab.weft(&format!("run -d --name s{count} --net net -- sleep 1000")).ok();
    }
    let all = lab.weft("port ls --json").ok();
    assert!(all.contains(&first_ip), "{first_ip} is handed out again:\n{all}");
}

fn n14_views() {
    let lab = Lab::start();
    let one = lab.ns("ns1");
    lab.weft("network create net --subnet 10.9.0.0/24").ok();
    lab.weft(&format!("attach net {} --ifname eth0", one.path())).ok();
    let shown = lab.weft("bridge show").ok();
    assert!(shown.starts_with("bridge name\tbridge id\t\tSTP enabled\tinterfaces"), "brctl's shape:\n{shown}");
    assert!(shown.contains("net"));
    eventually("the station is learned", || lab.weft("fdb show net").ok().lines().any(|line| line.contains(" dev ")));
}

fn n15_footprint() {
    let mut lab = Lab::without_daemon();
    // First use of nft or sysctl may load tables; look once before measuring.
    drop(lab.footprint());
    let before = lab.footprint();
    lab.start_daemon();
    lab.weft("network create net --subnet 10.9.0.0/24").ok();
    lab.weft("run -d --name a --net net -- sleep 1000").ok();
    lab.weft("run -d --name b --net net:kind=veth -- sleep 1000").ok();
    assert_eq!(before, lab.footprint(), "while running");
    let routes = lab.weft("exec a ip route").ok();
    assert!(routes.contains("default via 10.9.0.1") && routes.contains("10.9.0.0/24"), "{routes}");
    lab.weft("rm -f a b").ok();
    lab.weft("network rm net").ok();
    lab.stop_daemon();
    assert_eq!(before, lab.footprint(), "after");
}

fn n2_carrier() {
    for kind in ["tap", "veth"] {
        let lab = Lab::start();
        let one = lab.ns("ns1");
        lab.weft("network create net --subnet 10.9.0.0/24").ok();
        lab.weft(&format!("attach net {} --kind {kind} --ifname eth0", one.path())).ok();
        let port = port_named(&lab, &one.name);
        eventually("up", || one.ip("link show eth0").ok().contains("LOWER_UP"));
        lab.weft(&format!("link set {port} down")).ok();
        eventually("no carrier", || one.ip("link show eth0").ok().contains("NO-CARRIER"));
        lab.weft(&format!("link set {port} up")).ok();
        eventually("carrier again", || one.ip("link show eth0").ok().contains("LOWER_UP"));
    }
}

fn n3_second_address() {
    let lab = Lab::start();
    let (one, two) = (lab.ns("ns1"), lab.ns("ns2"));
    lab.weft("network create net --subnet 192.168.0.0/24 --gateway 192.168.0.254").ok();
    // The guard would refuse an address that nobody assigned: this is a trusted port.
    lab.weft(&format!("attach net {} --ifname eth0 --no-guard", one.path())).ok();
    lab.weft(&format!("attach net {} --ifname eth0 --no-guard", two.path())).ok();
    one.ip("addr add 192.168.0.110/24 dev eth0").ok();
    assert!(two.pings("192.168.0.110"));
    let before = lab.weft("fdb show net --json").json().as_array().map(Vec::len);
    one.ip("addr delete 192.168.0.110/24 dev eth0").ok();
    assert!(two.cannot_ping("192.168.0.110"));
    assert_eq!(before, lab.weft("fdb show net --json").json().as_array().map(Vec::len), "MAC table unchanged");
}

fn source_guard() {
    let lab = Lab::start();
    lab.weft("network create net --subnet 10.9.0.0/24").ok();
    lab.weft("run -d --name a --net net:ip=10.9.0.11 -- sleep 1000").ok();
    lab.weft("run -d --name b --net net:ip=10.9.0.12 -- sleep 1000").ok();
    assert!(lab.weft("exec a ping -c 2 -i 0.1 10.9.0.12").ok().contains(" 0% packet loss"));
    lab.weft("exec a ip addr add 10.9.0.99/24 dev eth0").ok();
    let spoofed = lab.weft("exec a ping -c 2 -i 0.1 -W 1 -I 10.9.0.99 10.9.0.12");
    assert!(spoofed.stdout.contains("100% packet loss"), "{spoofed:?}");
    let stats = lab.weft("stats --json").ok();
    assert!(stats.contains("guard_ip"), "{stats}");
    lab.weft("exec a ip link set eth0 address 02:00:00:00:00:99").ok();
    drop(lab.weft("exec a ping -c 2 -i 0.1 -W 1 10.9.0.12"));
    assert!(lab.weft("stats --json").ok().contains("guard_mac"));
}

fn isolated() {
    let lab = Lab::start();
    let (one, two, hub) = (lab.ns("one"), lab.ns("two"), lab.ns("hub"));
    lab.weft("network create net --subnet 10.9.0.0/24").ok();
    lab.weft(&format!("attach net {} --ifname eth0 --ip 10.9.0.11 --isolated", one.path())).ok();
    lab.weft(&format!("attach net {} --ifname eth0 --ip 10.9.0.12 --isolated", two.path())).ok();
    lab.weft(&format!("attach net {} --ifname eth0 --ip 10.9.0.13", hub.path())).ok();
    assert!(one.pings("10.9.0.13") && two.pings("10.9.0.13"));
    assert!(one.cannot_ping("10.9.0.12"));
}

fn vlans() {
    let lab = Lab::start();
    let spaces: Vec<_> = ["a10", "b10", "c20"].iter().map(|name| lab.ns(name)).collect();
    lab.weft("network create net --subnet 10.9.0.0/24").ok();
    for (index, (ns, vlan)) in spaces.iter().zip([10, 10, 20]).enumerate() {
        lab.weft(&format!("attach net {} --ifname eth0 --ip 10.9.0.1{index} --vlan {vlan}", ns.path())).ok();
    }
    assert!(spaces[0].pings("10.9.0.11"), "same VLAN");
    assert!(spaces[0].cannot_ping("10.9.0.12"), "another VLAN");
}

fn static_fdb() {
    let lab = Lab::start();
    let one = lab.ns("one");
    lab.weft("network create net --subnet 10.9.0.0/24").ok();
    lab.weft(&format!("attach net {} --ifname eth0", one.path())).ok();
    let port = port_named(&lab, &one.name);
    lab.weft(&format!("fdb add 02:00:00:00:00:77 net {port}")).ok();
    let shown = lab.weft("fdb show net").ok();
    assert!(shown.lines().any(|line| line.contains("02:00:00:00:00:77") && line.contains("permanent")), "{shown}");
    lab.weft("fdb del 02:00:00:00:00:77 net").ok();
    assert!(!lab.weft("fdb show net").ok().contains("02:00:00:00:00:77"));
    assert!(lab.weft("fdb del 02:00:00:00:00:77 net").fails().contains("02:00:00:00:00:77"));
}

fn existing_device() {
    let lab = Lab::start();
    let (inside, outside) = (lab.ns("in"), lab.ns("out"));
    lab.host.ip(&format!("link add eth1 type veth peer name eth0 netns {}", outside.name)).ok();
    lab.host.ip("link set eth1 up").ok();
    outside.ip("addr add 10.9.0.50/24 dev eth0").ok();
    outside.ip("link set eth0 up").ok();
    lab.weft("network create net --subnet 10.9.0.0/24").ok();
    lab.weft(&format!("attach net {} --ifname eth0 --ip 10.9.0.11", inside.path())).ok();
    lab.weft("attach net --dev eth1").ok();
    assert!(inside.pings("10.9.0.50"));
    lab.weft("detach net --dev eth1").ok();
    assert!(lab.host.ip("link show eth1").ok().contains("eth1"), "the device is the host's and stays");
    assert!(inside.cannot_ping("10.9.0.50"));
}

/// The port whose name or namespace mentions `namespace`.
fn port_named(lab: &Lab, namespace: &str) -> String {
    let ports = lab.weft("port ls --json").json();
    let found = ports.as_array().expect("list").iter().find(|port| port.to_string().contains(namespace));
    found.and_then(|port| port["name"].as_str()).unwrap_or_else(|| panic!("no port of {namespace} in {ports}")).to_owned()
}

fn ip_of(inspect: &Value) -> String {
    let text = inspect.to_string();
    let at = text.find("10.9.0.").expect("an address");
    text[at..].chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect()
}
