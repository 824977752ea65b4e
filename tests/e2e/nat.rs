//! The uplink of packets: NAT by packet, its presets, publishing as DNAT, routes between networks.
//! SPEC rows: P3, P4, P5 (not -P), P7, P8, P9, P10, P11, P14, C10, O9; RFC 5780 discovery.

use libtest_mimic::Trial;
use weft_tests::{
    lab::Lab,
    ns::{Background, Ns},
    run::{Ran, eventually},
    runner::{Need, test},
};

use crate::uplink::{ASK, ECHO, WHO};

const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("python3"), Need::Tool("curl")];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("nat::p9_out_by_tcp_udp_ping_and_fragments", NEEDS, out),
        test("nat::p3_p7_p8_published_ports_keep_the_client", NEEDS, published),
        test("nat::p10_hairpin_from_itself_its_peer_and_another_network", NEEDS, hairpin),
        test("nat::p4_p11_addresses_and_conflicts", NEEDS, conflicts),
        test("nat::a_range_that_takes_most_ports_is_warned_of", &[Need::Root, Need::Tun], crowded),
        test("nat::rfc5780_discovery_finds_each_preset", &[Need::Root, Need::Tun, Need::Tool("turnserver"), Need::Tool("turnutils_natdiscovery")], discovery),
        test("nat::a_smaller_link_is_told", &[Need::Root, Need::Tun, Need::Tool("iperf3")], smaller_link),
        test("nat::a_smaller_port_gets_packets_of_its_size", NEEDS, smaller_port),
        test("nat::errors_come_back_translated", NEEDS, errors),
        test("nat::nothing_inside_is_seen_outside", &[Need::Root, Need::Tun, Need::Tool("tshark"), Need::Tool("curl"), Need::Tool("python3")], nothing_inside),
        test("nat::bulk_arrives_whole_both_ways", &[Need::Root, Need::Tun, Need::Tool("openssl"), Need::Tool("curl"), Need::Tool("python3")], bulk),
        test("nat::kill_and_restart", NEEDS, restart),
        test("nat::o9_routed_networks_and_prefixes", NEEDS, routed),
        test("nat::a_tap_to_the_host", NEEDS, tap),
        test("nat::c10_routes_between_networks", &[Need::Root, Need::Tun], routes),
        test("nat::p12_x1_trace_tells_the_way", NEEDS, trace),
        test("nat::the_uplink_s_device_goes_and_comes_back", NEEDS, device),
        test("nat::flow_events_and_comments_in_captures", NEEDS, seen),
        test("nat::bad_uplinks_are_named", &[Need::Root, Need::Tun], bad),
    ]
}

/// A host whose eth1 leads to a WAN with a machine of two IPv4 addresses and one IPv6 address.
pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) wan: Ns,
    pub(crate) servers: Vec<Background>,
}

const UPLINK: &str = "--uplink dev:eth1,addr=192.0.2.9/24,addr=2001:db8::9/64";

fn cable() -> World {
    let lab = Lab::without_daemon();
    let wan = lab.ns("wan");
    let host = &lab.host.name;
    wan.sh(&format!(
        "ip link set lo up; ip link add w0 type veth peer name eth1 netns {host}; ip link set w0 up; ip -n {host} link set eth1 up; ip -n {host} link set lo up; \
         for a in 192.0.2.1/24 192.0.2.2/24; do ip addr add $a dev w0; done; ip addr add 2001:db8::1/64 dev w0 nodad"
    ))
    .ok();
    World { lab, wan, servers: Vec::new() }
}

pub(crate) fn world() -> World {
    let mut world = cable();
    world.lab.start_daemon_with(UPLINK);
    world.lab.weft("network create net --subnet 172.30.0.0/16 --subnet fd30::/64").ok();
    world
}

impl World {
    fn serve(&mut self, program: &str, port: u16) {
        let child = self.wan.command("python3").args(["-c", program, &port.to_string()]).spawn().expect("python3");
        self.servers.push(Background(child));
        eventually("the server outside listens", || self.wan.sh("ss -Hlun; ss -Hltn").stdout.contains(&format!(":{port} ")));
    }

    fn sandbox(&self, name: &str, network: &str, program: &str, port: u16, words: &[&str]) {
        let port_word = port.to_string();
        self.lab.weft_args(&[&["run", "-d", "--name", name, "--net", network], words, &["--", "python3", "-c", program, &port_word]].concat()).ok();
        eventually("the sandbox's server listens", || self.inside(name, "ss -Hlun; ss -Hltn").stdout.contains(&format!(":{port} ")));
    }

    pub(crate) fn idle(&self, name: &str, network: &str) {
        self.lab.weft(&format!("run -d --name {name} --net {network} -- sleep 1000")).ok();
    }

    fn inside(&self, name: &str, line: &str) -> Ran {
        self.lab.weft_args(&["exec", name, "sh", "-c", line])
    }

    fn ask(&self, name: &str, to: &str, port: u16, size: usize) -> String {
        self.lab.weft_args(&["exec", name, "python3", "-c", ASK, to, &port.to_string(), &size.to_string()]).ok().trim().to_owned()
    }
}

fn out() {
    let mut world = world();
    world.serve(WHO, 80);
    world.serve(ECHO, 53);
    world.idle("c", "net");
    assert!(world.inside("c", "curl -s -m 5 http://192.0.2.1/").ok().starts_with("192.0.2.9|"), "the uplink's address is seen");
    assert!(world.inside("c", "curl -s -m 5 http://[2001:db8::1]/").ok().starts_with("2001:db8::9|"));
    for (to, seen) in [("192.0.2.1", "192.0.2.9"), ("2001:db8::1", "2001:db8::9")] {
        world.inside("c", &format!("ping -c 2 -i 0.1 -W 2 {to}")).ok();
        for size in [1, 1000, 20_000, 60_000] {
            assert_eq!(world.ask("c", to, 53, size), format!("{seen} {size}"));
        }
    }
    let flows = world.lab.weft("nat flows").ok();
    for part in ["src=172.30.0.2 dst=192.0.2.1", "dst=192.0.2.9", "ASSURED", "icmp"] {
        assert!(flows.contains(part), "{part} in:\n{flows}");
    }
    let hops = world.inside("c", "traceroute -n -q 1 -m 2 192.0.2.1").stdout;
    assert!(hops.lines().nth(1).is_some_and(|line| line.contains("172.30.0.1")) && hops.lines().nth(2).is_some_and(|line| line.contains("192.0.2.1")), "P14:\n{hops}");
}

fn published() {
    let mut world = world();
    world.sandbox("web", "net", WHO, 80, &["-p", "8080:80", "-p", "5353:53/udp", "-p", "9000-9999:9000-9999"]);
    for (url, client, port) in [("http://192.0.2.9:8080/", "192.0.2.1", 25_678), ("http://[2001:db8::9]:8080/", "2001:db8::1", 25_679)] {
        let seen = world.wan.run(&format!("curl -s -m 5 --interface {client} --local-port {port} {url}")).ok();
        assert_eq!(seen, format!("{client}|{port}"), "{url}");
    }
    let server = world.lab.weft_command().args(["exec", "web", "python3", "-c", ECHO, "53"]).spawn().expect("python3");
    world.servers.push(Background(server));
    eventually("the echo listens", || world.inside("web", "ss -Hlun").stdout.contains(":53 "));
    let answer = world.wan.command("python3").args(["-c", ASK, "192.0.2.9", "5353", "30000"]).output().expect("python3");
    assert_eq!(String::from_utf8_lossy(&answer.stdout).trim(), "192.0.2.1 30000", "UDP, in fragments");
    let rules = world.lab.weft("nat show").ok();
    let row = rules.lines().find(|line| line.contains("dpt:8080 to:172.30.0.2:80")).expect("the rule");
    let counts: Vec<u64> = row.split_whitespace().take(3).map(|word| word.parse().expect("a counter")).collect();
    assert!(counts[0] == 1 && counts[1] >= 8 && counts[2] > 400, "P8: {row}");
    // Flows are shown from the side that opened them.
    let flows = world.lab.weft("nat flows").ok();
    assert!(flows.lines().any(|line| line.contains("src=192.0.2.1 dst=192.0.2.9 sport=") && line.contains("dport=5353") && line.contains("src=172.30.0.2 dst=192.0.2.1 sport=53") && line.ends_with("dir=in")), "{flows}");
    // How networks leave, with counters that grow.
    world.lab.weft("network create pool --subnet 172.27.0.0/16 --nat full-cone --nat-source 192.0.2.21").ok();
    world.lab.weft("network create open --subnet 172.26.0.0/16 -o com.docker.network.bridge.enable_ip_masquerade=false").ok();
    let row = |word: &str| {
        let rules = world.lab.weft("nat show").ok();
        rules.lines().find(|line| line.contains(word)).unwrap_or_else(|| panic!("{word} in:\n{rules}")).to_owned()
    };
    assert!(row("172.27.0.0/16").contains("SNAT") && row("172.27.0.0/16").contains("to:192.0.2.21 network pool full-cone"), "{}", row("172.27.0.0/16"));
    assert!(row("172.26.0.0/16").contains("RETURN"), "{}", row("172.26.0.0/16"));
    let packets = || row("172.30.0.0/16").split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok()).expect("a counter");
    let before = packets();
    world.inside("web", "ping -c 3 -i 0.1 -W 2 192.0.2.1").ok();
    assert_eq!(packets(), before + 6, "P8: {}", row("172.30.0.0/16"));
    assert!(row("172.30.0.0/16").contains("MASQUERADE") && row("172.30.0.0/16").contains("port-restricted"));
    // The uplink is a port like others.
    let ports = world.lab.weft("port ls").ok();
    assert!(ports.lines().any(|line| line.starts_with("uplink:eth1") && line.contains("192.0.2.9/24")), "{ports}");
    for line in ["link set uplink:eth1 mtu 1400", "port move uplink:eth1 1"] {
        let said = world.lab.weft(line).fails();
        assert!(said.contains("uplink:eth1 is the uplink's own port") && said.contains("ip link"), "{line}: {said}");
    }
    let capture = world.lab.dir().join("uplink");
    let running = world.lab.weft_command().args(["capture", "uplink", "-c", "2"]).stdout(std::fs::File::create(&capture).expect("a file")).spawn().expect("weft capture");
    let running = Background(running);
    eventually("the capture has a ping", || {
        drop(world.inside("web", "ping -c 1 -W 2 192.0.2.1"));
        std::fs::read_to_string(&capture).unwrap_or_default().contains("192.0.2.9")
    });
    drop(running);
    // P2: what is not published is not reachable.
    assert!(world.wan.run("curl -s -m 2 http://192.0.2.9:80/").stdout.is_empty());
}

fn hairpin() {
    let world = world();
    world.lab.weft("network create other --subnet 172.31.0.0/16").ok();
    world.sandbox("web", "net", WHO, 80, &["-p", "8080:80"]);
    world.idle("peer", "net");
    world.idle("far", "other");
    for name in ["web", "peer", "far"] {
        let seen = world.inside(name, "curl -s -m 5 http://192.0.2.9:8080/").ok();
        assert!(seen.starts_with("192.0.2.9|"), "{name}: {seen}");
    }
    let rules = world.lab.weft("nat show").ok();
    let hits = |target: &str| {
        let row = rules.lines().find(|line| line.contains(target) && line.contains("172.30.0.0/16")).unwrap_or_else(|| panic!("{target} in:\n{rules}"));
        row.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).expect("a counter")
    };
    assert_eq!((hits("HAIRPIN"), hits("MASQUERADE")), (2, 0), "P8: what comes back in is told apart from what leaves:\n{rules}");
    assert!(world.inside("peer", "curl -s -m 5 http://[2001:db8::9]:8080/").ok().starts_with("2001:db8::9|"));
}

fn conflicts() {
    let world = world();
    world.sandbox("one", "net", WHO, 80, &["-p", "8080:80"]);
    let refused = world.lab.weft("run -d --name two --net net -p 8080:80 -- sleep 9");
    assert!(refused.code != Some(0) && refused.stderr.contains("port is already allocated"), "{}", refused.stderr);
    assert!(!world.lab.weft("ps -a").ok().contains("two"), "nothing half-made");
    let refused = world.lab.weft("publish add one 10.1.1.1:81:80");
    assert!(refused.code != Some(0) && refused.stderr.contains("10.1.1.1") && refused.stderr.contains("192.0.2.9"), "{}", refused.stderr);
    world.lab.weft("publish add one 192.0.2.9:81:80").ok();
    assert!(world.wan.run("curl -s -m 5 http://192.0.2.9:81/").ok().starts_with("192.0.2.1|"));
    assert!(world.wan.run("curl -s -g -m 2 http://[2001:db8::9]:81/").stdout.is_empty(), "P4: that address only");
    let random = world.lab.weft("publish add one 80").ok();
    let port = random.trim().rsplit(':').next().expect("a port").to_owned();
    assert!(world.wan.run(&format!("curl -s -m 5 http://192.0.2.9:{port}/")).ok().starts_with("192.0.2.1|"), "P5: {random}");
    world.lab.weft(&format!("publish rm one {port}:80")).ok();
    assert!(world.wan.run(&format!("curl -s -m 2 http://192.0.2.9:{port}/")).stdout.is_empty());
}

fn crowded() {
    const WARNING: &str = "published ports take most of those that NAT has";
    let world = world();
    world.idle("one", "net");
    world.lab.weft("publish add one 1000-33000:1000-33000").ok();
    assert!(!world.lab.log().contains(WARNING), "not yet half of them");
    world.lab.weft("publish add one 33001-33300:33001-33300/udp").ok();
    assert!(!world.lab.log().contains(WARNING), "UDP has its own");
    world.lab.weft("publish add one 33001-33300:33001-33300").ok();
    let log = world.lab.log();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains(WARNING)).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("32301") && warnings[0].contains("33234"), "how many, and how many are left: {warnings:?}");
}

fn discovery() {
    let mut world = world();
    let database = world.lab.dir().join("turn");
    let server = world
        .wan
        .command("turnserver")
        .args(["-n", "--no-auth", "--no-cli", "--no-tls", "--no-dtls", "--log-file", "/dev/null", "--pidfile", "/dev/null", "--listening-ip", "192.0.2.1", "--listening-ip", "192.0.2.2", "--userdb"])
        .arg(&database)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("turnserver");
    world.servers.push(Background(server));
    eventually("the STUN server listens", || world.wan.sh("ss -Hlun").stdout.contains("192.0.2.2:3479"));
    for (preset, mapping, filtering) in [
        ("full-cone", "Endpoint Independent Mapping", "Endpoint Independent Filtering"),
        ("restricted", "Endpoint Independent Mapping", "Address Dependent Filtering"),
        ("port-restricted", "Endpoint Independent Mapping", "Address and Port Dependent Filtering"),
        ("symmetric", "Address and Port Dependent Mapping", "Address and Port Dependent Filtering"),
        ("cgnat", "Endpoint Independent Mapping", "Endpoint Independent Filtering"),
    ] {
        world.lab.weft(&format!("network create {preset} --nat {preset}")).ok();
        world.idle(&format!("in-{preset}"), preset);
        for (question, answer) in [("-m", mapping), ("-f", filtering)] {
            let seen = world.inside(&format!("in-{preset}"), &format!("turnutils_natdiscovery {question} 192.0.2.1 2>&1")).stdout;
            assert!(seen.contains(&format!("NAT with {answer}!")), "{preset} {question}:\n{seen}");
        }
    }
}

fn smaller_link() {
    let mut world = cable();
    world.wan.sh("ip link set w0 mtu 1300").ok();
    world.lab.host.sh("ip link set eth1 mtu 1300").ok();
    world.lab.start_daemon_with("--uplink dev:eth1,addr=192.0.2.9/24,addr=2001:db8::9/64,mtu=1300");
    world.lab.weft("network create net --subnet 172.30.0.0/16 --subnet fd30::/64").ok();
    world.idle("c", "net");
    let told = world.inside("c", "ping -c 1 -W 2 -M do -s 1400 192.0.2.1");
    assert!(told.stdout.contains("mtu = 1300") || told.stderr.contains("mtu=1300") || told.stdout.contains("mtu=1300"), "{} {}", told.stdout, told.stderr);
    world.inside("c", "ip route flush cache; ping -c 2 -i 0.2 -W 2 -M dont -s 4000 192.0.2.1").ok();
    world.inside("c", "ping -c 3 -i 0.3 -W 2 -s 1400 2001:db8::1").ok();
    let server = world.wan.command("iperf3").args(["-s"]).stdout(std::process::Stdio::null()).spawn().expect("iperf3");
    world.servers.push(Background(server));
    eventually("iperf3 listens", || world.wan.sh("ss -Hltn").stdout.contains(":5201 "));
    for words in ["-c 192.0.2.1", "-c 192.0.2.1 -R", "-c 2001:db8::1", "-c 2001:db8::1 -R"] {
        let sent = world.inside("c", &format!("iperf3 {words} -n 30M -J")).json();
        assert!(sent["end"]["sum_received"]["bytes"].as_u64().is_some_and(|bytes| bytes > 20_000_000), "{words}: {sent}");
    }
}

/// A port that takes less than its network gets packets of its size, on either uplink: in fragments, or as
/// segments; also when it shrinks later.
fn smaller_port() {
    for by_packets in [true, false] {
        let mut world = if by_packets { world() } else { cable() };
        if !by_packets {
            world.lab.host.sh("ip addr add 192.0.2.9/24 dev eth1").ok();
            world.lab.start_daemon();
        }
        // IPv6 would want 1280 bytes at least.
        world.lab.weft("network create small --subnet 172.25.0.0/16").ok();
        world.serve(ECHO, 53);
        world.serve(WHO, 80);
        world.lab.weft("run -d --name c --net small:mtu=1000 -- sleep 1000").ok();
        for size in [900, 1400, 20_000] {
            // By packets the first answer may be lost: its sender, who forbids fragments, is told of the size.
            eventually("MTU 1000", || world.ask("c", "192.0.2.1", 53, size) == format!("192.0.2.9 {size}"));
        }
        assert!(world.inside("c", "curl -s -m 5 http://192.0.2.1/").ok().starts_with("192.0.2.9|"));
        world.lab.weft("link set c:eth0 mtu 700").ok();
        eventually("MTU 700", || world.ask("c", "192.0.2.1", 53, 900) == "192.0.2.9 900");
    }
}

fn errors() {
    let world = world();
    world.idle("c", "net");
    for to in ["192.0.2.1", "2001:db8::1"] {
        assert_eq!(world.ask("c", to, 7999, 5), "ConnectionRefusedError", "port unreachable is told");
        let refused = world.inside("c", &format!("curl -s -g -m 5 'http://{}:81/'", if to.contains(':') { format!("[{to}]") } else { to.into() }));
        assert_eq!(refused.code, Some(7), "a reset is passed on");
    }
    // Nobody there: the router says so after three questions.
    let lost = world.inside("c", "ping -c 1 -W 6 192.0.2.77");
    assert!(lost.stdout.contains("Host Unreachable"), "{}", lost.stdout);
    let lost = world.inside("c", "ping -c 1 -W 2 203.0.113.1");
    assert!(lost.stdout.contains("Net Unreachable"), "no route: {}", lost.stdout);
}

fn nothing_inside() {
    let mut world = world();
    world.serve(WHO, 80);
    world.idle("c", "net");
    world.lab.weft("network create shut --internal").ok();
    world.idle("d", "shut");
    let mut capture = world.wan.command("tshark");
    capture.args(["-i", "w0", "-a", "duration:6", "-T", "fields", "-e", "ip.src", "-e", "ip.dst", "-e", "ipv6.src", "-e", "ipv6.dst"]);
    let mut running = capture.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().expect("tshark");
    let mut ready = String::new();
    let mut lines = std::io::BufReader::new(running.stderr.take().expect("stderr"));
    while !ready.contains("Capturing") && std::io::BufRead::read_line(&mut lines, &mut ready).is_ok_and(|read| read > 0) {}
    for line in ["curl -s -m 2 http://192.0.2.1/", "curl -s -g -m 2 http://[2001:db8::1]/", "ping -c 2 -i 0.2 -W 1 192.0.2.1", "ping -c 1 -W 1 10.1.2.3", "curl -s -m 1 http://192.0.2.1:81/"] {
        drop(world.inside("c", line));
    }
    assert_ne!(world.inside("d", "ping -c 1 -W 1 192.0.2.1").code, Some(0), "O6: internal");
    let seen = String::from_utf8_lossy(&running.wait_with_output().expect("tshark").stdout).into_owned();
    assert!(seen.contains("192.0.2.9") && seen.contains("2001:db8::9"), "{seen}");
    assert!(!seen.contains("172.") && !seen.contains("fd30") && !seen.contains("10.1.2.3"), "an inside address outside:\n{seen}");
}

fn bulk() {
    let mut world = world();
    const SIZE_MIB: u64 = 1024;
    let (sent, there) = (world.lab.dir().join("sent"), world.lab.dir().join("there"));
    world.lab.host.sh(&format!("openssl rand -out {} {}", sent.display(), SIZE_MIB << 20)).ok();
    let server = |ns: &mut std::process::Command| ns.args(["-m", "http.server", "8000", "--directory"]).arg(world.lab.dir()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().expect("python3");
    let outside = Background(server(&mut world.wan.command("python3")));
    world.servers.push(outside);
    eventually("the server listens", || world.wan.sh("ss -Hltn").stdout.contains(":8000 "));
    let directory = world.lab.dir().display().to_string();
    world.lab.weft_args(&["run", "-d", "--name", "web", "--net", "net", "-p", "8080:8000", "--", "python3", "-m", "http.server", "8000", "--bind", "::", "--directory", &directory]).ok();
    eventually("the sandbox's server listens", || world.inside("web", "ss -Hltn").stdout.contains(":8000 "));
    world.idle("c", "net");
    let fetch = format!("curl -s -m 120 -o {} ", there.display());
    let same = || world.lab.host.sh(&format!("cmp {} {}", sent.display(), there.display())).ok();
    world.inside("c", &format!("{fetch} http://192.0.2.1:8000/sent")).ok();
    same();
    world.wan.sh(&format!("{fetch} http://192.0.2.9:8080/sent")).ok();
    same();
    world.inside("c", &format!("{fetch} http://192.0.2.9:8080/sent")).ok();
    same();
    world.wan.sh(&format!("{fetch} -g http://[2001:db8::9]:8080/sent")).ok();
    same();
}

fn restart() {
    let mut world = world();
    world.sandbox("web", "net", WHO, 80, &["-p", "8080:80"]);
    assert!(world.wan.run("curl -s -m 5 http://192.0.2.9:8080/").ok().starts_with("192.0.2.1|"));
    world.lab.kill_daemon();
    world.lab.start_daemon();
    assert_eq!(world.lab.weft("nat flows").ok().trim(), "", "no stale mappings");
    assert!(world.wan.run("curl -s -m 5 http://192.0.2.9:8080/").ok().starts_with("192.0.2.1|"), "the port is back");
    world.serve(WHO, 81);
    assert!(world.inside("web", "curl -s -m 5 http://192.0.2.1:81/").ok().starts_with("192.0.2.9|"));
}

fn routed() {
    let mut world = world();
    world.serve(WHO, 80);
    world.lab.weft("network create open --subnet 172.29.0.0/16 -o com.docker.network.bridge.enable_ip_masquerade=false").ok();
    world.lab.weft("network create npt --subnet 172.28.0.0/16 --subnet fd28::/64 --nat-prefix 2001:db8:28::/64").ok();
    world.wan.sh("ip route add 172.29.0.0/16 via 192.0.2.9; ip -6 route add 2001:db8:28::/64 via 2001:db8::9").ok();
    world.idle("open", "open");
    world.idle("npt", "npt");
    assert!(world.inside("open", "curl -s -m 5 http://192.0.2.1/").ok().starts_with("172.29.0.2|"), "O9: the sandbox's own address");
    world.wan.run("ping -c 2 -i 0.2 -W 2 172.29.0.2").ok();
    let seen = world.inside("npt", "curl -s -g -m 5 http://[2001:db8::1]/").ok();
    assert!(seen.starts_with("2001:db8:28:"), "{seen}");
    let outside = seen.split('|').next().expect("an address").to_owned();
    world.wan.run(&format!("ping -c 2 -i 0.2 -W 2 {outside}")).ok();
    // A pool: each sandbox keeps to one of its addresses, which the uplink answers for.
    world.lab.weft("network create pool --subnet 172.27.0.0/16 --nat-source 192.0.2.21 --nat-source 192.0.2.22").ok();
    world.idle("p1", "pool");
    let seen: Vec<_> = (0..4).map(|_| world.inside("p1", "curl -s -m 5 http://192.0.2.1/").ok().split('|').next().expect("an address").to_owned()).collect();
    assert!(seen[0].starts_with("192.0.2.2") && seen[0].len() == 10 && seen.iter().all(|one| *one == seen[0]), "{seen:?}");
    world.lab.weft("network create tight -o com.docker.network.bridge.enable_icc=false -o com.docker.network.container_iface_prefix=lan").ok();
    world.sandbox("t1", "tight", WHO, 80, &["-p", "8090:80"]);
    world.idle("t2", "tight");
    let address = world.lab.weft("inspect t1").json()[0]["endpoints"][0]["addresses"][0].as_str().expect("an address").split('/').next().expect("ip").to_owned();
    assert_ne!(world.inside("t2", &format!("ping -c 1 -W 1 {address}")).code, Some(0), "O9: peers are apart");
    assert!(world.wan.run("curl -s -m 5 http://192.0.2.9:8090/").ok().starts_with("192.0.2.1|"), "but published ports work");
    assert!(world.inside("t2", "ip link show lan0").code == Some(0));
}

fn tap() {
    let mut lab = Lab::without_daemon();
    lab.host.sh("ip link set lo up").ok();
    let before = lab.footprint();
    lab.start_daemon_with("--uplink tap:weft0");
    lab.weft("network create net").ok();
    let server = Background(lab.host.command("python3").args(["-c", WHO, "80"]).spawn().expect("python3"));
    eventually("the host's server listens", || lab.host.sh("ss -Hltn").stdout.contains(":80 "));
    lab.weft("run -d --name c --net net -p 8080:80 -- sleep 1000").ok();
    let seen = lab.weft_args(&["exec", "c", "sh", "-c", "curl -s -m 5 http://198.18.255.1/"]).ok();
    assert!(seen.starts_with("198.18.255.2|"), "{seen}");
    let inside = Background(lab.weft_command().args(["exec", "c", "python3", "-c", WHO, "80"]).spawn().expect("python3"));
    eventually("the sandbox's server listens", || lab.weft("exec c ss -Hltn").stdout.contains(":80 "));
    assert!(lab.host.run("curl -s -m 5 http://198.18.255.2:8080/").ok().starts_with("198.18.255.1|"), "the host is a client as any other");
    drop((server, inside));
    lab.weft("rm -f c").ok();
    lab.stop_daemon();
    // The kernel closes a ring, and the TAP with it, a moment after its process.
    eventually("nothing is left on the host", || before == lab.footprint());
}

fn routes() {
    let lab = Lab::start();
    lab.weft("network create one --subnet 172.18.0.0/16 --subnet fd18::/64").ok();
    lab.weft("network create two --subnet 172.19.0.0/16 --subnet fd19::/64").ok();
    lab.weft("run -d --name a --net one -- sleep 1000").ok();
    lab.weft("run -d --name b --net two -- sleep 1000").ok();
    let ping = |from: &str, to: &str| lab.weft(&format!("exec {from} ping -c 1 -W 1 {to}"));
    assert_ne!(ping("a", "172.19.0.2").code, Some(0), "off by default");
    lab.weft("network route add one two").ok();
    for (from, to) in [("a", "172.19.0.2"), ("b", "172.18.0.2"), ("a", "fd19::2"), ("b", "fd18::2")] {
        let seen = ping(from, to).ok();
        assert!(seen.contains("ttl=63"), "one hop: {seen}");
    }
    let mut lab = lab;
    lab.kill_daemon();
    lab.start_daemon();
    ping_of(&lab, "a", "172.19.0.2").ok();
    assert_eq!(lab.weft("network route ls --json").json(), serde_json::json!([{ "networks": ["one", "two"] }]).as_array().map(|pairs| ordered(pairs, &lab)).expect("pairs"));
    let again = lab.weft("network route add two one");
    assert!(again.code != Some(0) && again.stderr.contains("already"), "{}", again.stderr);
    lab.weft("network route rm two one").ok();
    assert_ne!(ping_of(&lab, "a", "172.19.0.2").code, Some(0), "apart again");
    lab.weft("network create shut --internal").ok();
    assert!(lab.weft("network route add one shut").stderr.contains("internal"));
}

fn ping_of(lab: &Lab, from: &str, to: &str) -> Ran {
    lab.weft(&format!("exec {from} ping -c 1 -W 1 {to}"))
}

/// The pair in the order of the networks' ids, which are random.
fn ordered(pairs: &[serde_json::Value], lab: &Lab) -> serde_json::Value {
    let id = |name: &str| lab.weft(&format!("network inspect {name}")).json()[0]["id"].as_str().expect("an id").to_owned();
    let turned = id("one") > id("two");
    serde_json::Value::Array(pairs.iter().map(|_| if turned { serde_json::json!({ "networks": ["two", "one"] }) } else { serde_json::json!({ "networks": ["one", "two"] }) }).collect())
}

fn bad() {
    let lab = Lab::without_daemon();
    for (uplink, part) in [("nat:eth0", "nat"), ("dev:eth77,addr=10.0.0.2/24", "eth77"), ("dev:eth1", "addr="), ("tap:x,addr=1.2.3.4/99", "1.2.3.4/99"), ("tap:lo", "lo"), ("dev:lo,addr=192.0.2.9/24", "lo")] {
        let refused = lab.weft_args(&["daemon", "--uplink", uplink]);
        assert!(refused.code.is_some_and(|code| code != 0) && refused.stderr.contains(part), "{uplink}: {}", refused.stderr);
    }
    let world = world();
    let refused = world.lab.weft("network create x --subnet 192.0.2.0/25");
    assert!(refused.code != Some(0) && refused.stderr.contains("overlaps with the uplink"), "{}", refused.stderr);
    let refused = world.lab.weft("network create x --nat hard");
    assert!(refused.code != Some(0) && refused.stderr.contains("full-cone"), "{}", refused.stderr);
    let refused = world.lab.weft("network create x --nat-prefix 2001:db8::/64");
    assert!(refused.code != Some(0) && refused.stderr.contains("same length"), "{}", refused.stderr);
    let file = lab.dir().join("short.toml");
    std::fs::write(&file, "[nat]\nudp-s = 20\n").expect("a file");
    let refused = lab.weft_args(&["daemon", "--config", &file.to_string_lossy()]);
    assert!(refused.code.is_some_and(|code| code != 0) && refused.stderr.contains("udp-s") && refused.stderr.contains("120"), "{}", refused.stderr);
    let plain = Lab::start();
    let refused = plain.weft("network create x --nat symmetric");
    assert!(refused.code != Some(0) && refused.stderr.contains("--uplink"), "{}", refused.stderr);
}

/// P12, X1: each decision is told, in order, and nothing happens.
fn trace() {
    let world = world();
    world.lab.weft("network create other --subnet 172.31.0.0/16").ok();
    world.sandbox("web", "net", WHO, 80, &["-p", "8080:80"]);
    world.idle("c", "net");
    world.idle("far", "other");
    drop(world.inside("c", "ping -c 1 172.30.0.2; ping -c 1 192.0.2.1"));
    drop(world.inside("web", "ping -c 1 192.0.2.1"));
    let flows = world.lab.weft("nat flows --json").json();
    let told = |port: &str, packet: &str, parts: &[&str]| {
        let text = world.lab.weft_args(&["trace", port, packet]).ok();
        let mut rest = text.as_str();
        for part in parts {
            rest = rest.split_once(part).unwrap_or_else(|| panic!("{part:?} is not told of {packet:?}, in this order:\n{text}")).1;
        }
    };
    told("c", "tcp 172.30.0.3:4000 > 172.30.0.2:80", &["sender:", "web:eth0", "port c:eth0", "guard:", "fdb:", "out web:eth0"]);
    told("c", "udp 172.30.0.3:4000 > 192.0.2.1:53", &["gateway", "port c:eth0", "nat: a new connection; SNAT", "192.0.2.9", "neighbour: 192.0.2.1", "out uplink:eth1"]);
    told("uplink", "tcp 192.0.2.1:4000 > 192.0.2.9:8080", &["port uplink:eth1", "nat: a new connection; DNAT", "172.30.0.2", "neighbour", "network net", "fdb:", "out web:eth0"]);
    told("c", "tcp 172.30.0.3:4000 > 192.0.2.9:8080", &["hairpin", "out web:eth0"]);
    told("c", "tcp 172.30.0.99:4000 > 192.0.2.1:80", &["drop: guard"]);
    told("c", "icmp 172.30.0.3 > 172.31.0.2", &["nat: drop: martian: ", "networks do not reach each other without a route"]);
    for (bad, part) in [("icmp 172.30.0.3 > 192.0.2.1 ttl 0", "from 1 to 255"), ("172.30.0.3 192.0.2.1", "not tcp, udp or icmp"), ("udp 172.30.0.3:0 > 192.0.2.1:53", "port 0")] {
        let refused = world.lab.weft_args(&["trace", "c", bad]).fails();
        assert!(refused.contains(part), "{bad}: {refused}");
    }
    told("c", "icmp 172.30.0.3 > 172.30.0.1", &["answers with"]);
    told("c", "icmp 172.30.0.3 > 192.0.2.1 ttl 1", &["answers with", "type 11"]);
    let refused = world.lab.weft_args(&["trace", "nobody", "icmp 1.1.1.1 > 2.2.2.2"]);
    assert!(refused.code != Some(0) && refused.stderr.contains("nobody") && refused.stderr.contains("host"), "{}", refused.stderr);
    assert_eq!(flows.as_array().map(Vec::len), world.lab.weft("nat flows --json").json().as_array().map(Vec::len), "nothing was made");
    // With host sockets.
    let plain = Lab::start();
    plain.weft("network create net --subnet 172.30.0.0/16").ok();
    plain.weft("run -d --name web --net net -p 8080:80 -- sleep 1000").ok();
    let text = plain.weft_args(&["trace", "host", "tcp 192.168.88.2:4000 > 192.168.88.1:8080"]).ok();
    for part in ["publish 0.0.0.0:8080: DNAT to 172.30.0.2:80", "network net", "out web:eth0"] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let text = plain.weft_args(&["trace", "web", "tcp 172.30.0.2:4000 > 1.1.1.1:80"]).ok();
    assert!(text.contains("the host connects to 1.1.1.1:80"), "{text}");
}

/// Flows come and go as events for whoever watches; a capture says what a packet is called outside.
fn seen() {
    for with_packets in [true, false] {
        let mut world = if with_packets { world() } else { cable() };
        if !with_packets {
            world.lab.host.sh("ip addr add 192.0.2.9/24 dev eth1").ok();
            world.lab.start_daemon();
            world.lab.weft("network create net --subnet 172.30.0.0/16").ok();
        }
        world.serve(WHO, 80);
        world.idle("c", "net");
        let events = world.lab.dir().join("events");
        let watcher = Background(world.lab.weft_command().args(["events", "--flows"]).stdout(std::fs::File::create(&events).expect("a file")).spawn().expect("weft events"));
        let capture = world.lab.dir().join("capture");
        let capturing = world.lab.weft_command().args(["capture", "c", "-c", "6"]).stdout(std::fs::File::create(&capture).expect("a file")).spawn().expect("weft capture");
        let capturing = Background(capturing);
        let text = || std::fs::read_to_string(&events).unwrap_or_default();
        let shown = || std::fs::read_to_string(&capture).unwrap_or_default();
        let comment = if with_packets { "nat: 172.30.0.2" } else { "by a socket of the host" };
        eventually("events and comments come", || {
            drop(world.inside("c", "curl -s -m 5 http://192.0.2.1/"));
            text().contains("flow new") && shown().contains(comment)
        });
        let line = text().lines().find(|line| line.contains("flow new")).expect("an event").to_owned();
        for part in ["172.30.0.2", "192.0.2.1:80", "protocol=tcp", "network=net", if with_packets { "external=192.0.2.9" } else { "external=null" }] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(!with_packets || shown().contains("192.0.2.9"), "{}", shown());
        world.lab.weft("rm -f c").ok();
        eventually("the flows end", || text().contains("flow end"));
        drop((watcher, capturing));
    }
}

/// A device that is removed is missed, by name, and taken up again when it is back.
fn device() {
    let world = world();
    world.idle("c", "net");
    world.inside("c", "ping -c 1 -W 2 192.0.2.1").ok();
    world.lab.host.sh("ip link del eth1").ok();
    eventually("it is missed", || world.lab.log().contains("the uplink's device is gone"));
    assert!(world.lab.weft_args(&["trace", "c", "icmp 172.30.0.2 > 192.0.2.1"]).ok().contains("drop"), "nobody is told that it leaves");
    let host = &world.lab.host.name;
    world.wan.sh(&format!("ip link add w0 type veth peer name eth1 netns {host}; ip addr add 192.0.2.1/24 dev w0; ip link set w0 up; ip -n {host} link set eth1 up")).ok();
    eventually("it is back", || world.lab.log().contains("the uplink's device is back"));
    eventually("and packets leave", || world.inside("c", "ping -c 1 -W 2 192.0.2.1").code == Some(0));
}
