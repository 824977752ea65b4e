//! The same questions through our NAT and through the kernel's masquerade (RFC 4787, 5382, 5508): equal where
//! both claim a behaviour; where we mean to differ, the difference is a row here and in docs/nat.md.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use libtest_mimic::Trial;
use nat::Lifetimes;
use weft_tests::{
    ns::{Background, Ns},
    run::eventually,
    runner::{Need, test},
};

use crate::nat::{World, world};

pub(crate) fn tests() -> Vec<Trial> {
    let needs = &[Need::Root, Need::Tun, Need::Tool("python3"), Need::Tool("nft")];
    vec![test("beside_kernel::p9_p10_masquerade_is_alike_but_for_what_is_listed", needs, alike), test("beside_kernel::lifetimes_are_as_listed", needs, lifetimes)]
}

const INSIDE: &str = include_str!("beside_kernel/inside.py");
const OUTSIDE: &str = include_str!("beside_kernel/outside.py");
const DOCUMENT: &str = include_str!("../../docs/nat.md");

/// Key, the kernel's answer, ours.
type Difference = (&'static str, &'static str, &'static str);

/// What differs, by preset. Each has its row in docs/nat.md.
const DIFFERENCES: &[(&str, &[Difference])] = &[
    (
        "port-restricted",
        &[
            ("hairpin-itself", "gateway", "external"),
            ("hairpin-neighbour", "gateway", "external"),
            ("unsolicited-syn", "reset at once", "icmp 3/3 held"),
            ("error-quoted-sum-wrong", "passed", "dropped"),
        ],
    ),
    ("full-cone", &[("other-port", "False", "True"), ("other-address", "False", "True")]),
    ("symmetric", &[("preserves", "True", "False"), ("independent-mapping", "True", "False")]),
];

/// A router of the kernel's beside ours on the WAN, with two hosts behind it.
struct Kernel {
    router: Ns,
    hosts: [Ns; 2],
}

const KERNEL_EXTERNAL: &str = "198.18.1.2";
const KERNEL_INSIDE: &str = "10.77.0.1";

fn kernel(world: &World) -> Kernel {
    let (router, hosts) = (world.lab.ns("kr"), [world.lab.ns("k1"), world.lab.ns("k2")]);
    world.wan.sh(&format!("ip link add kw type veth peer name wan0 netns {}; ip link set kw up; ip addr add 198.18.1.1/24 dev kw", router.name)).ok();
    router
        .sh(&format!(
            "ip link set wan0 up; ip addr add {KERNEL_EXTERNAL}/24 dev wan0; ip route add default via 198.18.1.1; ip link add lan0 type bridge; ip addr add {KERNEL_INSIDE}/24 dev lan0; ip link set lan0 up; \
             sysctl -qw net.ipv4.ip_forward=1; sysctl -qw net.bridge.bridge-nf-call-iptables=0 2>/dev/null; nft add table ip n; nft 'add chain ip n out {{ type nat hook postrouting priority 100; }}; add chain ip n in {{ type nat hook prerouting priority -100; }}'; \
             nft add rule ip n out oifname wan0 masquerade; nft add rule ip n in ip daddr {KERNEL_EXTERNAL} tcp dport 8080 dnat to 10.77.0.2:80; \
             nft add rule ip n out ip saddr 10.77.0.0/24 ip daddr 10.77.0.0/24 masquerade"
        ))
        .ok();
    for (at, host) in hosts.iter().enumerate() {
        let (name, port) = (&host.name, format!("p{at}"));
        router.sh(&format!("ip link add {port} type veth peer name eth0 netns {name}; ip link set {port} master lan0; ip link set {port} up")).ok();
        host.sh(&format!("ip link set eth0 up; ip addr add 10.77.0.{}/24 dev eth0; ip route add default via {KERNEL_INSIDE}", at + 2)).ok();
    }
    Kernel { router, hosts }
}

/// Runs `inside.py` until it is done, and goes on telling it things.
struct Probe {
    _child: Background,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    seen: BTreeMap<String, String>,
}

impl Probe {
    fn start(mut command: Command, arguments: [&str; 3]) -> Self {
        let command = command.args(["python3", "-c", INSIDE]).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child: Child = command.spawn().expect("python3");
        let (input, output) = (child.stdin.take().expect("stdin"), BufReader::new(child.stdout.take().expect("stdout")));
        let mut this = Self { _child: Background(child), input, output, seen: BTreeMap::new() };
        while let Some((key, value)) = this.line().split_once(' ') {
            this.seen.insert(key.into(), value.into());
        }
        this
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("text");
        line.trim().to_owned()
    }

    fn tell(&mut self, word: &str) {
        writeln!(self.input, "{word}").expect("it listens");
        assert_eq!(self.line(), "ok", "{word}");
    }

    /// What it saw, addresses by what they are.
    fn seen(&self, external: &str, gateway: &str) -> BTreeMap<String, String> {
        let name = |value: &String| if value == external { "external".into() } else if value == gateway { "gateway".into() } else { value.clone() };
        self.seen.iter().map(|(key, value)| (key.clone(), name(value))).collect()
    }
}

fn alike() {
    let mut world = world();
    world.wan.sh("nft add table ip t; nft 'add chain ip t i { type filter hook input priority 0; }'; nft 'add rule ip t i tcp dport 7100 tcp flags & (syn | ack) == syn drop'").ok();
    world.servers.push(Background(world.wan.command("python3").args(["-c", OUTSIDE]).spawn().expect("python3")));
    eventually("the outside listens", || world.wan.sh("ss -Hlun").stdout.contains(":7001 "));
    let kernel = kernel(&world);
    // The kernel's.
    let host = |at: usize| kernel.hosts[at].command("env");
    let published = format!("{KERNEL_EXTERNAL}:8080");
    let mut first = Probe::start(host(0), ["40001", &published, "first"]);
    let second = Probe::start(host(1), ["40001", &published, "second"]);
    let mut theirs = first.seen(KERNEL_EXTERNAL, KERNEL_INSIDE);
    theirs.extend(second.seen(KERNEL_EXTERNAL, KERNEL_INSIDE));
    assert!(theirs.len() >= 27, "{theirs:?}");
    let left = || left_in_conntrack(&kernel.router, 40001);
    assert!(refreshes(&mut first, "refresh-out", left) && refreshes(&mut first, "refresh-in", left), "the kernel refreshes both ways");
    drop((first, second));
    // Ours, by preset.
    for (number, (preset, differences)) in (1_u32..).zip(DIFFERENCES) {
        let (base, port) = ((40_001 + 100 * number).to_string(), (8080 + number).to_string());
        let (one, two) = (format!("one-{preset}"), format!("two-{preset}"));
        world.lab.weft(&format!("network create {preset} --nat {preset} --subnet 172.{}.0.0/16", 20 + number)).ok();
        world.lab.weft(&format!("run -d --name {one} --net {preset} -p {port}:80 -- sleep 1000")).ok();
        world.idle(&two, preset);
        let inside = |name: &str| {
            let mut command = world.lab.weft_command();
            command.args(["exec", "-i", name]);
            command
        };
        let published = format!("192.0.2.9:{port}");
        let mut first = Probe::start(inside(&one), [&base, &published, "first"]);
        let second = Probe::start(inside(&two), [&base, &published, "second"]);
        let gateway = format!("172.{}.0.1", 20 + number);
        let mut ours = first.seen("192.0.2.9", &gateway);
        ours.extend(second.seen("192.0.2.9", &gateway));
        let mut expected = theirs.clone();
        // Every preset differs from the kernel as the default does.
        for (key, their, our) in DIFFERENCES[0].1.iter().chain(differences.iter()) {
            assert_eq!(theirs.get(*key).map(String::as_str), Some(*their), "the kernel's {key}");
            assert!(DOCUMENT.contains(&format!("| {key} |")), "docs/nat.md lacks a row of {key}");
            expected.insert((*key).into(), (*our).into());
        }
        assert_eq!(ours, expected, "{preset}: {theirs:?}");
        if *preset == "port-restricted" {
            let left = || left_in_ours(&world, &base);
            assert!(refreshes(&mut first, "refresh-out", left) && refreshes(&mut first, "refresh-in", left), "RFC 4787 REQ-6: both ways");
        }
    }
}

/// Whether a packet of that direction lengthens the life of the mapping.
fn refreshes(probe: &mut Probe, direction: &str, left: impl Fn() -> u64) -> bool {
    let fresh = left();
    eventually("some of its life is spent", || left() + 3 <= fresh);
    let spent = left();
    probe.tell(direction);
    left() > spent
}

/// Seconds of life: the third word but two of a line of /proc/net/nf_conntrack.
fn left_in_conntrack(router: &Ns, port: u16) -> u64 {
    let all = router.sh("cat /proc/net/nf_conntrack").ok();
    let line = all.lines().find(|line| line.contains("udp") && line.contains(&format!("src=10.77.0.2 dst=192.0.2.1 sport={port} dport=7000 ")));
    line.and_then(|line| line.split_whitespace().nth(4)).and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("port {port} in:\n{all}"))
}

fn left_in_ours(world: &World, port: &str) -> u64 {
    let flows = world.lab.weft("nat flows --json").json();
    let flow = flows.as_array().expect("a list").iter().find(|flow| flow["protocol"] == "udp" && flow["inside"] == format!("172.21.0.2:{port}") && flow["outside"] == "192.0.2.1:7000");
    flow.and_then(|flow| flow["expires_s"].as_u64()).unwrap_or_else(|| panic!("port {port} in {flows}"))
}

/// The kernel's numbers, from its sysctls, beside ours: which is longer, as docs/nat.md has it.
fn lifetimes() {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let world = world();
    let kernel = kernel(&world);
    // Conntrack's sysctls are there once something uses it in that namespace.
    let sysctl = |name: &str| -> u64 { kernel.router.sh(&format!("sysctl -n net.{name}")).ok().trim().parse().expect("a number") };
    let ours = Lifetimes::default();
    for (name, own, ours_is) in [
        ("netfilter.nf_conntrack_udp_timeout", ours.udp, Greater),
        ("netfilter.nf_conntrack_udp_timeout_stream", ours.udp, Greater),
        ("netfilter.nf_conntrack_icmp_timeout", ours.icmp, Greater),
        ("netfilter.nf_conntrack_tcp_timeout_established", ours.tcp_established, Less),
        ("netfilter.nf_conntrack_tcp_timeout_syn_sent", ours.tcp_transitory, Greater),
        ("netfilter.nf_conntrack_tcp_timeout_syn_recv", ours.tcp_incoming_syn, Less),
        ("netfilter.nf_conntrack_tcp_timeout_fin_wait", ours.tcp_transitory, Greater),
        ("netfilter.nf_conntrack_tcp_timeout_close_wait", ours.tcp_transitory, Greater),
        ("netfilter.nf_conntrack_tcp_timeout_time_wait", ours.tcp_transitory, Greater),
        ("netfilter.nf_conntrack_tcp_timeout_close", ours.tcp_transitory, Greater),
        ("netfilter.nf_conntrack_generic_timeout", ours.other, Equal),
        ("ipv4.ipfrag_time", ours.fragment, Less),
    ] {
        let (theirs, own) = (sysctl(name), own.as_secs());
        assert_eq!(own.cmp(&theirs), ours_is, "{name}: {theirs} s, ours {own} s");
        let row = format!("| {} | {theirs} | {own} |", name.rsplit('.').next().unwrap_or(name));
        assert!(DOCUMENT.contains(&row), "docs/nat.md lacks {row:?}");
    }
}
