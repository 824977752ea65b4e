//! Networks, endpoints, sandboxes. SPEC rows: C1, C2, C3, C6, C11, C12, and part of O4.

use libtest_mimic::Trial;
use weft_tests::{
    lab::Lab,
    runner::{Need, test},
};

const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("ping"), Need::Tool("arping")];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("model::c1_endpoints_do_not_route", NEEDS, c1_two_endpoints),
        test("model::c2_networks_are_broadcast_domains", NEEDS, c2_isolation),
        test("model::c3_default_networks", NEEDS, c3_defaults),
        test("model::c6_none_has_only_lo", NEEDS, c6_none),
        test("model::c11_c12_connect_and_swapped_arguments", NEEDS, c12_swapped),
        test("model::run_returns_the_command_s_code", NEEDS, run_codes),
        test("model::dry_run_makes_nothing", NEEDS, dry_run),
        test("model::prune", NEEDS, prune),
    ]
}

fn c1_two_endpoints() {
    let lab = Lab::start();
    lab.weft("network create net1 --subnet 10.1.0.0/24").ok();
    lab.weft("network create net2 --subnet 10.2.0.0/24").ok();
    lab.weft("run -d --name a --net net1:ip=10.1.0.10 -- sleep 1000").ok();
    lab.weft("run -d --name b --net net1:ip=10.1.0.20 --net net2:ip=10.2.0.20 -- sleep 1000").ok();
    lab.weft("run -d --name c --net net2:ip=10.2.0.30 -- sleep 1000").ok();
    for (from, to) in [("a", "10.1.0.20"), ("b", "10.1.0.10"), ("b", "10.2.0.30"), ("c", "10.2.0.20")] {
        lab.weft(&format!("exec {from} ping -c 2 -i 0.1 -W 2 {to}")).ok();
    }
    lab.weft("exec a ping -c 2 -i 0.1 -W 1 10.2.0.30").fails();
    lab.weft("exec c ping -c 2 -i 0.1 -W 1 10.1.0.10").fails();
    assert!(lab.weft("exec b ip -o link").ok().contains("eth1"));
}

fn c2_isolation() {
    let lab = Lab::start();
    lab.weft("network create net1 --subnet 10.1.0.0/24").ok();
    lab.weft("network create net2 --subnet 10.2.0.0/24").ok();
    lab.weft("run -d --name a --net net1:ip=10.1.0.10 -- sleep 1000").ok();
    lab.weft("run -d --name c --net net2:ip=10.2.0.30 -- sleep 1000").ok();
    let before = stat(&lab, "c:eth0");
    drop(lab.weft("exec a arping -c 3 -w 2 -I eth0 10.1.0.99"));
    drop(lab.weft("exec a ping -c 3 -i 0.1 -W 1 -b 10.1.0.255"));
    assert_eq!(stat(&lab, "c:eth0"), before, "nothing of net1 reaches a port of net2");
}

fn stat(lab: &Lab, port: &str) -> u64 {
    let ports = lab.weft("port ls --json").json();
    ports.as_array().expect("list").iter().find(|other| other["name"] == port).and_then(|port| port["tx_frames"].as_u64()).expect("counter")
}

fn c3_defaults() {
    let lab = Lab::start();
    let listed = lab.weft("network ls").ok();
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]);
    let names: Vec<_> = rows[1..].iter().map(|row| (row[1], row[2], row[3])).collect();
    assert_eq!(names, [("bridge", "bridge", "local"), ("host", "host", "local"), ("none", "null", "local")]);
    assert!(lab.weft("network rm bridge").fails().contains("pre-defined"));
    lab.weft("run -d --name a -- sleep 1000").ok();
    assert!(lab.weft("exec a ip addr").ok().contains("172.17.0.2/16"), "the default network");
}

fn c6_none() {
    let lab = Lab::start();
    let seen = lab.weft("run --net none -- ip -o link").ok();
    assert!(seen.lines().count() == 1 && seen.contains("lo"), "{seen}");
    lab.weft("run --net none -- ping -c 1 -W 1 10.9.0.1").fails();
    assert!(lab.weft("port ls --json").json().as_array().is_some_and(Vec::is_empty), "no port on the switch");
}

fn c12_swapped() {
    let lab = Lab::start();
    lab.weft("network create net1 --subnet 10.1.0.0/24").ok();
    lab.weft("network create net2 --subnet 10.2.0.0/24").ok();
    lab.weft("run -d --name a --net net1 -- sleep 1000").ok();
    lab.weft("run -d --name c --net net2:ip=10.2.0.30 -- sleep 1000").ok();
    let error = lab.weft("network connect a net2").fails();
    assert!(error.contains("swapped") && error.contains("net2 a"), "{error}");
    lab.weft("exec a ping -c 2 -i 0.1 -W 1 10.2.0.30").fails();
    lab.weft("network connect net2 a").ok();
    lab.weft("exec a ping -c 2 -i 0.1 -W 2 10.2.0.30").ok();
    lab.weft("network disconnect net2 a").ok();
    assert!(!lab.weft("exec a ip -o link").ok().contains("eth1"));
}

fn run_codes() {
    let lab = Lab::start();
    assert_eq!(lab.weft_args(&["run", "--net", "none", "--", "sh", "-c", "exit 3"]).code, Some(3));
    assert_eq!(lab.weft("run --net none -- no-such-program").code, Some(127));
    assert_eq!(lab.weft("run --net nowhere -- true").code, Some(125));
    assert_eq!(lab.weft("run --net none --hostname t1 -- hostname").ok().trim(), "t1");
    assert!(lab.weft("ps -aq").ok().is_empty(), "nothing is left");
}

fn dry_run() {
    let lab = Lab::start();
    let before = lab.footprint();
    let planned = lab.weft("network create lab --subnet 10.9.0.0/24 --dry-run").ok();
    assert!(planned.contains("10.9.0.1"), "the gateway it would have: {planned}");
    assert!(lab.weft("network inspect lab").fails().contains("lab"));
    lab.weft("network create lab --subnet 10.9.0.0/24").ok();
    assert!(lab.weft("run --dry-run --net lab:ip=10.9.0.7 -- true").ok().contains("10.9.0.7"));
    assert!(lab.weft("run --dry-run --net lab:ip=10.8.0.7 -- true").fails().contains("10.8.0.7"));
    assert!(lab.weft("attach lab --host-port --dry-run").ok().contains("10.9.0."));
    assert!(lab.weft("ps -aq").ok().is_empty() && lab.weft("port ls --json").json().as_array().is_some_and(Vec::is_empty));
    assert_eq!(before, lab.footprint());
}

fn prune() {
    let lab = Lab::start();
    for name in ["one", "two", "used"] {
        lab.weft(&format!("network create {name}")).ok();
    }
    lab.weft("run -d --name a --net used -- sleep 1000").ok();
    let pruned = lab.weft("network prune -f").ok();
    assert!(pruned.contains("one") && pruned.contains("two") && !pruned.contains("used"), "{pruned}");
    assert!(lab.weft("network ls").ok().contains("used"));
    assert!(lab.weft("network prune -f").ok().is_empty());
}
