//! Addresses from the gateway: DHCP with a client of the real world, and the kernel's own SLAAC.

use libtest_mimic::Trial;
use weft_tests::{
    lab::Lab,
    ns::Ns,
    run::eventually,
    runner::{Need, test},
};

const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("udhcpc")];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("dhcp::a_station_that_nobody_knows_gets_an_address_of_the_range", NEEDS, dynamic),
        test("dhcp::a_sandbox_gets_its_own_address_past_the_guard", NEEDS, reserved),
        test("dhcp::without_it_nobody_answers", NEEDS, off),
        test("dhcp::a_refused_combination_is_explained", &[Need::Root, Need::Tun], refused),
        test("dhcp::slaac_and_a_default_route", &[Need::Root, Need::Tun], slaac),
        test("dhcp::a_guarded_sandbox_may_use_what_it_made_itself", &[Need::Root, Need::Tun], guarded_slaac),
    ]
}

/// What udhcpc runs: the address, the route, and what else it was told.
const SCRIPT: &str = "#!/bin/sh\ncase $1 in\n deconfig) ip addr flush dev $interface; ip link set $interface up;;\n bound|renew) ip addr replace $ip/$mask dev $interface; [ -n \"$router\" ] && ip route replace default via $router; [ -n \"$mtu\" ] && ip link set $interface mtu $mtu; set >DIR/told.$interface.$1;;\nesac\nexit 0\n";

/// A machine behind a device of the host: `dev` there, `eth0` inside, and no address.
fn machine(lab: &Lab, name: &str, mac: &str) -> Ns {
    let machine = lab.ns(name);
    let host = &lab.host.name;
    machine.sh(&format!("ip link add eth0 address {mac} type veth peer name dev{name} netns {host} && ip link set eth0 up && ip -n {host} link set dev{name} up")).ok();
    machine
}

/// Where the script is; it writes beside it.
fn script(lab: &Lab) -> String {
    let path = lab.dir().join("udhcpc.sh");
    std::fs::write(&path, SCRIPT.replace("DIR", &lab.dir().to_string_lossy())).expect("a script");
    lab.host.sh(&format!("chmod +x {}", path.display())).ok();
    path.to_string_lossy().into_owned()
}

/// Runs the client until it has a lease, or has given up.
fn udhcpc(script: &str, more: &str) -> String {
    format!("udhcpc -i eth0 -s {script} -f -q -n -t 5 -T 1 -O mtu {more}")
}

fn address(ns: &Ns) -> String {
    ns.sh("ip -4 -o addr show dev eth0 | awk '{print $4}'").ok().trim().to_owned()
}

fn dynamic() {
    let mut lab = Lab::start();
    lab.weft("network create net --subnet 10.9.0.0/24 --dhcp --dhcp-range 10.9.0.128/25 --mtu 1400").ok();
    let script = script(&lab);
    let machines = ["one", "two"].map(|name| machine(&lab, name, if name == "one" { "02:00:00:00:00:11" } else { "02:00:00:00:00:12" }));
    for (name, machine) in ["one", "two"].into_iter().zip(&machines) {
        lab.weft(&format!("attach net --dev dev{name}")).ok();
        machine.run(&udhcpc(&script, "")).ok();
    }
    assert_eq!(machines.each_ref().map(address), ["10.9.0.128/24", "10.9.0.129/24"]);
    // Who has what, and how long.
    let leases = lab.weft("dhcp leases net --json").json();
    assert_eq!((&leases[0]["address"], &leases[0]["client"]), (&"10.9.0.128".into(), &"02:00:00:00:00:11".into()), "{leases}");
    assert!(leases.as_array().is_some_and(|all| all.len() == 2) && leases[1]["expires_s"].as_u64().is_some_and(|left| (1..=3600).contains(&left)), "{leases}");
    let one = &machines[0];
    assert!(one.ip("route show default").ok().contains("via 10.9.0.1"));
    assert!(one.ip("link show eth0").ok().contains("mtu 1400"));
    assert!(one.pings("10.9.0.1") && one.pings("10.9.0.129"));
    let told = std::fs::read_to_string(lab.dir().join("told.eth0.bound")).expect("the script ran");
    for part in ["dns='10.9.0.1'", "lease='3600'", "serverid='10.9.0.1'", "broadcast='10.9.0.255'"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    // The same client, the same address; what it gives back, another may ask for.
    one.run(&udhcpc(&script, "")).ok();
    assert_eq!(address(one), "10.9.0.128/24");
    // Pinged before: a client that must ask for the gateway's MAC first is gone before it can release.
    one.ip("addr flush dev eth0 scope global").ok();
    let client = one.spawn(&format!("udhcpc -i eth0 -s {script} -f -R"));
    eventually("a lease of its own", || address(one) == "10.9.0.128/24");
    assert!(one.pings("10.9.0.1"));
    one.sh(&format!("kill -USR2 {}", client.0.id())).ok();
    eventually("its release was heard", || lab.weft("stats --json").ok().contains("gateway_nothing"));
    let three = machine(&lab, "three", "02:00:00:00:00:13");
    lab.weft("attach net --dev devthree").ok();
    three.run(&udhcpc(&script, "-r 10.9.0.128")).ok();
    assert_eq!(address(&three), "10.9.0.128/24");
    // After a restart of the daemon an address that is free is kept.
    lab.kill_daemon();
    lab.start_daemon();
    three.run(&udhcpc(&script, "-r 10.9.0.128")).ok();
    machines[1].run(&udhcpc(&script, "-r 10.9.0.129")).ok();
    assert_eq!([address(&three), address(&machines[1])], ["10.9.0.128/24", "10.9.0.129/24"]);
    // IPAM keeps out of the range, and says so.
    let error = lab.weft("run -d --net net:ip=10.9.0.140 -- sleep 1000").fails();
    assert!(error.contains("10.9.0.128/25"), "{error}");
}

fn reserved() {
    let mut lab = Lab::start();
    lab.weft("network create net --subnet 10.9.0.0/24 --dhcp").ok();
    let script = script(&lab);
    lab.weft("run -d --name web --net net:ip=10.9.0.77 -- sleep 1000").ok();
    let client = udhcpc(&script, "");
    let again = |lab: &Lab| {
        lab.weft("exec web ip addr flush dev eth0 scope global").ok();
        lab.weft(&format!("exec web {client}")).ok();
        assert!(lab.weft("exec web ip -4 -o addr show dev eth0").ok().contains("10.9.0.77/24"));
        assert!(lab.weft("exec web ip route show default").ok().contains("via 10.9.0.1"));
        lab.weft("exec web ping -c 1 -W 2 10.9.0.1").ok();
    };
    again(&lab);
    let leases = lab.weft("dhcp leases net").ok();
    assert!(leases.lines().any(|line| line.starts_with("10.9.0.77") && line.contains("kept") && line.ends_with("web")), "{leases}");
    lab.weft("network create plain").ok();
    assert!(lab.weft("dhcp leases plain").fails().contains("no DHCP server"));
    // It stays its own over a restart of the daemon.
    lab.kill_daemon();
    lab.start_daemon();
    again(&lab);
    assert_eq!(lab.weft("network inspect net").json()[0]["dhcp_range"], "10.9.0.192/26");
}

fn off() {
    let lab = Lab::start();
    lab.weft("network create net --subnet 10.9.0.0/24").ok();
    let script = script(&lab);
    let machine = machine(&lab, "one", "02:00:00:00:00:11");
    lab.weft("attach net --dev devone").ok();
    machine.run(&format!("udhcpc -i eth0 -s {script} -f -q -n -t 1 -T 1")).fails();
}

fn refused() {
    let lab = Lab::start();
    for (options, culprit) in [
        ("--subnet fd00::/64 --dhcp", "IPv4"),
        ("--subnet 10.9.0.0/24 --ra", "IPv6"),
        ("--l2 hub --dhcp", "bridge network"),
        ("--subnet 10.9.0.0/24 --dhcp --dhcp-range 10.8.0.0/25", "10.8.0.0/25"),
        ("--subnet 10.9.0.0/24 --dhcp-range 10.9.0.0/25", "--dhcp"),
    ] {
        let error = lab.weft(&format!("network create net {options}")).fails();
        assert!(error.contains(culprit), "{error}");
    }
}

fn slaac() {
    let lab = Lab::start();
    lab.weft("network create net --subnet 10.9.0.0/24 --subnet fd09::/64 --ra --mtu 1400").ok();
    lab.weft("network create inner --subnet 10.8.0.0/24 --subnet fd08::/64 --ra --internal").ok();
    for (name, network, mac) in [("one", "net", "02:00:00:00:00:11"), ("two", "inner", "02:00:00:00:00:12")] {
        let machine = lab.ns(name);
        machine.sh("sysctl -qw net.ipv6.conf.default.accept_ra=1 net.ipv6.conf.default.autoconf=1").ok();
        let host = &lab.host.name;
        machine.sh(&format!("ip link add eth0 address {mac} type veth peer name dev{name} netns {host} && ip -n {host} link set dev{name} up")).ok();
        lab.weft(&format!("attach {network} --dev dev{name}")).ok();
        machine.ip("link set eth0 up").ok();
        let (prefix, last) = if name == "one" { ("fd09", 11) } else { ("fd08", 12) };
        eventually("an address", || machine.ip("-6 addr show dev eth0 -tentative").stdout.contains(&format!("{prefix}::ff:fe00:{last}/64")));
        let default = machine.ip("-6 route show default").ok();
        if name == "one" {
            assert!(default.contains("via fe80::42:aff:fe09:1 dev eth0 proto ra"), "{default}");
            assert_eq!(machine.sh("cat /proc/sys/net/ipv6/conf/eth0/mtu").ok().trim(), "1400");
        } else {
            assert_eq!(default, "", "an internal network leads nowhere");
        }
        assert!(machine.pings(&format!("{prefix}::1")));
    }
}

fn guarded_slaac() {
    let lab = Lab::start();
    lab.weft("network create net --subnet 10.9.0.0/24 --subnet fd09::/64 --ra").ok();
    lab.weft("run -d --name web --net net -- sleep 1000").ok();
    // As the kernel does by default; a test machine may have turned it off.
    lab.weft_args(&["exec", "web", "sh", "-c", "sysctl -qw net.ipv6.conf.eth0.accept_ra=1 net.ipv6.conf.eth0.autoconf=1; ip link set eth0 down; ip link set eth0 up"]).ok();
    let made = "fd09::42:aff:fe09:2";
    eventually("an address", || lab.weft("exec web ip -6 addr show dev eth0 -tentative").stdout.contains(made));
    lab.weft(&format!("exec web ping -c 2 -i 0.1 -W 2 -I {made} fd09::1")).ok();
    lab.weft("exec web ip addr add fd09::bad/64 dev eth0 nodad").ok();
    lab.weft("exec web ping -c 1 -W 1 -I fd09::bad fd09::1").fails();
}
