//! Real traffic through the switch, offloads as the kernel leaves them (no `ethtool -K` anywhere).

use libtest_mimic::Trial;
use weft_tests::{
    lab::Lab,
    ns::Ns,
    run::{Ran, run},
    runner::{Need, test},
};

const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("iperf3"), Need::Tool("ping")];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("traffic::iperf3_tap_to_tap", NEEDS, || iperf3_all("tap", "tap", "")),
        test("traffic::iperf3_tap_to_veth", NEEDS, || iperf3_all("tap", "veth", "")),
        test("traffic::iperf3_veth_to_veth", NEEDS, || iperf3_all("veth", "veth", "")),
        test("traffic::iperf3_without_io_uring", NEEDS, || iperf3_all("tap", "veth", "--io epoll")),
        test("traffic::bulk_1gib_same_sha256", NEEDS, bulk_same_hash),
        test("traffic::jumbo_mtus", NEEDS, jumbo_mtus),
        test("traffic::mixed_mtus_drop_with_a_name", NEEDS, mixed_mtus),
        test("traffic::stuck_port_delays_nobody", NEEDS, stuck_port),
    ]
}

struct Pair {
    lab: Lab,
    one: Ns,
    two: Ns,
}

/// Two namespaces on one network, dual stack.
fn pair(kind_one: &str, kind_two: &str, network_options: &str, daemon_options: &str) -> Pair {
    let lab = Lab::with_options(daemon_options);
    let (one, two) = (lab.ns("one"), lab.ns("two"));
    lab.weft(&format!("network create net --subnet 10.9.0.0/24 --subnet fd09::/64 {network_options}")).ok();
    lab.weft(&format!("attach net {} --kind {kind_one} --ifname eth0 --ip 10.9.0.11 --ip6 fd09::11", one.path())).ok();
    lab.weft(&format!("attach net {} --kind {kind_two} --ifname eth0 --ip 10.9.0.12 --ip6 fd09::12", two.path())).ok();
    Pair { lab, one, two }
}

fn iperf3_all(kind_one: &str, kind_two: &str, daemon_options: &str) {
    let Pair { lab: _lab, one, two } = pair(kind_one, kind_two, "", daemon_options);
    for to in ["10.9.0.12", "fd09::12"] {
        assert!(one.pings(to), "ping {to}");
    }
    assert!(two.pings("10.9.0.11"), "ping back");
    let _server = two.iperf_server();
    for to in ["10.9.0.12", "fd09::12"] {
        for options in ["", "-R", "-P 4", "-P 4 -R"] {
            let report = one.iperf(to, options);
            let bytes = report["end"]["sum_received"]["bytes"].as_u64();
            assert!(bytes.is_some_and(|bytes| bytes > 1_000_000), "TCP {to} {options}: {bytes:?} bytes, {}", report["error"]);
        }
        for options in ["-u -b 10M", "-u -b 10M -R", "-u -b 5M -P 4", "-u -b 10M -l 8000"] {
            let report = one.iperf(to, options);
            let sum = &report["end"]["sum"];
            let (lost, packets) = (sum["lost_packets"].as_u64().unwrap_or(u64::MAX), sum["packets"].as_u64().unwrap_or(0));
            // A slow machine may lose some at its sockets; a switch that breaks UDP loses all.
            assert!(packets > 100 && lost * 4 < packets, "UDP {to} {options}: {lost} of {packets} lost, {}", report["error"]);
        }
    }
}

/// SPEC A-line: an scp-like bulk of 1 GiB arrives with equal SHA-256.
fn bulk_same_hash() {
    let Pair { lab, one, two } = pair("tap", "veth", "", "");
    let out = lab.dir().join("sha");
    let receive = format!("nc -l -p 7000 | sha256sum > {}", out.display());
    let receiver = two.command("sh").args(["-c", &receive]).spawn();
    let mut receiver = weft_tests::ns::Background(receiver.expect("receiver"));
    weft_tests::run::eventually("receiver listens", || two.run("ss -ltn").stdout.contains(":7000"));
    // Incompressible and repeatable without a 1 GiB file: a stream cipher over zeros.
    let source = "openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff -iv 0 -in /dev/zero 2>/dev/null | head -c 1073741824";
    let sent = one.sh(&format!("{source} | tee /dev/fd/3 3>&1 >/dev/null | nc -N 10.9.0.12 7000"));
    drop(sent);
    drop(receiver.0.wait());
    let expected: Ran = run(std::process::Command::new("sh").args(["-c", &format!("{source} | sha256sum")]));
    assert_eq!(std::fs::read_to_string(out).expect("hash of what arrived"), expected.ok());
}

fn jumbo_mtus() {
    for mtu in ["9000", "65520"] {
        let Pair { lab: _lab, one, two } = pair("tap", "tap", &format!("--mtu {mtu}"), "");
        assert!(one.ip("link show eth0").ok().contains(&format!("mtu {mtu}")));
        let payload = mtu.parse::<u32>().expect("number") - 28;
        assert!(one.run(&format!("ping -c 2 -i 0.1 -M do -s {payload} 10.9.0.12")).stdout.contains(" 0% packet loss"), "MTU {mtu}");
        let _server = two.iperf_server();
        assert!(one.iperf("10.9.0.12", "")["end"]["sum_received"]["bytes"].as_u64().is_some_and(|bytes| bytes > 1_000_000));
    }
}

/// A frame that cannot fit is dropped and counted as `too_big`, and the rest goes on.
fn mixed_mtus() {
    let lab = Lab::start();
    let (big, small) = (lab.ns("big"), lab.ns("small"));
    lab.weft("network create net --subnet 10.9.0.0/24 --mtu 9000").ok();
    lab.weft(&format!("attach net {} --ifname eth0 --ip 10.9.0.11 --mtu 9000", big.path())).ok();
    lab.weft(&format!("attach net {} --ifname eth0 --ip 10.9.0.12 --mtu 1500", small.path())).ok();
    assert!(big.pings("10.9.0.12"));
    assert!(big.run("ping -c 2 -i 0.1 -W 1 -M do -s 5000 10.9.0.12").stdout.contains("100% packet loss"));
    assert!(lab.weft("stats --json").ok().contains("too_big"), "the drop has a name");
    assert!(big.pings("10.9.0.12"), "and nothing broke");
}

/// A receiver that never reads fills its own queue only.
fn stuck_port() {
    let lab = Lab::start();
    lab.weft("network create net --subnet 10.9.0.0/24").ok();
    let (one, two, stuck) = (lab.ns("one"), lab.ns("two"), lab.ns("stuck"));
    for (ns, ip, kind) in [(&one, "10.9.0.11", "tap"), (&two, "10.9.0.12", "tap"), (&stuck, "10.9.0.13", "veth")] {
        lab.weft(&format!("attach net {} --ifname eth0 --kind {kind} --ip {ip}", ns.path())).ok();
    }
    assert!(one.pings("10.9.0.13"));
    // The device goes down under the port: every write to it now fails.
    stuck.ip("link set eth0 down").ok();
    stuck.ip("link set eth0 arp off").ok();
    one.ip("neigh replace 10.9.0.13 lladdr 02:00:00:00:00:99 dev eth0").ok();
    let _flood = one.spawn("ping -f -c 20000 10.9.0.13");
    assert!(one.run("ping -c 20 -i 0.05 10.9.0.12").stdout.contains(" 0% packet loss"));
}
