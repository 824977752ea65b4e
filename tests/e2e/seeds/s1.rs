//! S1: CNM, the modes, and the help of `docker network`. SPEC rows: C1, C2, C3, C4, C5, C6, C7, C8, C9, C10, C11, C12,
//! O1, O3, O4, O5, O6, O7, O8, O12.

use super::{LISTING, Walk};
use weft_tests::run::eventually;

/// Chapter one's picture (C1): A and B on network 1, B and C on network 2. The two ends of B have nothing to do
/// with each other.
pub(super) fn model() {
    let walk = Walk::start();
    walk.run("docker network create net1").ok();
    walk.run("docker network create net2").ok();
    walk.run("docker run -d --name a --network net1 host sleep 1000").ok();
    walk.run("docker run -d --name b --network net1 host sleep 1000").ok();
    walk.run("docker network connect net2 b").ok();
    walk.run("docker run -d --name c --network net2 host sleep 1000").ok();
    for (from, to) in [("a", "b"), ("b", "a"), ("b", "c"), ("c", "b")] {
        walk.run(&format!("docker exec {from} ping -c 1 -W 2 {to}")).ok();
    }
    let of_c = walk.docker.format("c", "{{.NetworkSettings.Networks.net2.IPAddress}}");
    assert!(walk.run(&format!("docker exec a ping -c 2 -i 0.2 -W 1 {of_c}")).stdout.contains(" 100% packet loss"));
    // "基于容器名(主机名)的方式在网络内访问" (C9): by name within a network, and not beyond.
    walk.run("docker exec a getent hosts c").fails();
    // "网络互通 - 实现不同子网之间的网络互通" (C10): when asked for.
    walk.weft("network route add net1 net2").ok();
    walk.run(&format!("docker exec a ping -c 1 -W 2 {of_c}")).ok();
    walk.weft("network route rm net1 net2").ok();
    walk.run(&format!("docker exec a ping -c 1 -W 1 {of_c}")).fails();
    walk.run("docker rm -f a b c").ok();
}

/// Every option that the printed help of `docker network create` has.
const OPTIONS: &[&str] = &[
    "--attachable", "--aux-address map", "--config-from string", "--config-only", "-d, --driver string", "--gateway strings", "--ingress", "--internal", "--ip-range strings", "--ipam-driver string", "--ipam-opt map",
    "--ipv6", "--label list", "-o, --opt map", "--scope string", "--subnet strings",
];

/// Chapters two and three, in their order.
pub(super) fn walk() {
    let walk = Walk::start();
    // "# docker network ls" (C3)
    let rows: Vec<Vec<String>> = walk.rows("docker network ls").into_iter().map(|row| row[1..].to_vec()).collect();
    assert_eq!(rows, [["bridge", "bridge", "local"], ["host", "host", "local"], ["none", "null", "local"]]);
    assert!(walk.rows("docker network ls").iter().all(|row| row[0].len() == 12), "short ids");
    // "创建容器时,默认使用的是Bridge模式": "--net=bridge" says the same (C4).
    walk.tomcat("default", "");
    walk.tomcat("bridged", "--net=bridge");
    for name in ["default", "bridged"] {
        assert_eq!(walk.docker.format(name, "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}"), "bridge");
        assert_eq!(walk.run(&format!("docker exec {name} ls /sys/class/net")).ok().split_whitespace().collect::<Vec<_>>(), ["eth0", "lo"]);
    }
    walk.run("docker exec bridged ping -c 1 -W 2 172.17.0.2").ok();
    walk.run("docker exec bridged ping -c 1 -W 2 172.17.0.1").ok();
    // "--net=host" (C5, C8): the machine's own stack, of which two servers cannot have one port.
    walk.tomcat("hosted", "--net=host");
    let namespace = walk.run("readlink /proc/self/ns/net").ok();
    assert_eq!(walk.run("docker exec hosted readlink /proc/self/ns/net").ok(), namespace);
    assert_eq!(walk.docker.format("hosted", "[{{.NetworkSettings.IPAddress}}{{.NetworkSettings.MacAddress}}]"), "[]");
    let second = walk.run("docker run --rm --net=host host python3 -m http.server 8080");
    assert!(second.code != Some(0) && second.stderr.contains("Address already in use"), "{second:?}");
    // "--net=none" (C6)
    walk.run("docker run -d --name alone --net=none host sleep 1000").ok();
    assert_eq!(walk.run("docker exec alone ls /sys/class/net").ok().trim(), "lo");
    // "--net=container:NAME_or_ID" (C7)
    let id = walk.docker.format("default", "{{.Id}}");
    for reference in ["default", &id, &id[..12]] {
        let joined = walk.docker.args(&["run", "--rm", &format!("--net=container:{reference}"), "host", "sh", "-c", "readlink /proc/self/ns/net; curl -s -m 5 http://127.0.0.1:8080/ | head -1"]).ok();
        assert!(joined.starts_with(walk.run("docker exec default readlink /proc/self/ns/net").ok().trim()) && joined.contains(LISTING), "{joined}");
    }
    assert!(walk.run("docker run --rm --net=container:nobody host true").fails().contains("No such container: nobody"));

    // "docker network" (O1): the commands of the printed usage.
    let usage = walk.run("docker network");
    let usage = format!("{}{}", usage.stdout, usage.stderr);
    assert!(usage.contains("Usage:  docker network COMMAND") && usage.contains("Manage networks"), "{usage}");
    for command in ["connect", "create", "disconnect", "inspect", "ls", "prune", "rm"] {
        assert!(usage.contains(&format!("  {command} ")), "{command}:\n{usage}");
        walk.run(&format!("docker network {command} --help")).ok();
        assert!(walk.weft(&format!("network {command} --help")).ok().contains("Usage: weft network"), "{command}");
    }
    // "docker network create --help" (O12 for `run`)
    let help = walk.run("docker network create --help").ok();
    for option in OPTIONS {
        assert!(help.contains(option), "{option}:\n{help}");
    }
    let help = walk.run("docker run --help").ok();
    assert!(help.contains("--network network") || help.contains("--network string"), "{help}");
    options(&walk);

    // "docker network connect liuqingxu net1" (C11, C12): here `liuqingxu` is a network and `net1` a container.
    walk.run("docker network create liuqingxu").ok();
    walk.tomcat("net1", "");
    walk.run("docker run -d --name inside --network liuqingxu host sleep 1000").ok();
    walk.run("docker exec inside ping -c 1 -W 1 net1").fails();
    let swapped = walk.run("docker network connect net1 liuqingxu").fails();
    assert!(swapped.contains("the arguments are swapped; did you mean `docker network connect liuqingxu net1`?"), "{swapped}");
    walk.run("docker network connect liuqingxu net1").ok();
    walk.run("docker exec inside ping -c 1 -W 2 net1").ok();
    walk.run("docker rm -f default bridged hosted alone net1 inside").ok();
}

/// What each option does, or by which name it is refused.
fn options(walk: &Walk) {
    let field = |network: &str, format: &str| walk.docker.args(&["network", "inspect", network, "--format", format]).ok().trim().to_owned();
    // --attachable, --label, --internal (O6, O7)
    walk.run("docker network create --attachable --label tier=back --label team --internal inner").ok();
    assert_eq!(field("inner", "{{.Attachable}} {{.Internal}} {{.Labels.tier}} {{.Scope}}"), "true true back local");
    for (filter, found) in [("label=tier=back", "inner"), ("label=team", "inner"), ("label=tier=front", ""), ("scope=local", "bridge host inner none"), ("scope=swarm", "")] {
        let names = walk.docker.args(&["network", "ls", "--filter", filter, "--format", "{{.Name}}"]).ok();
        assert_eq!(names.split_whitespace().collect::<Vec<_>>().join(" "), found, "{filter}");
    }
    walk.run("docker run -d --name in1 --network inner host sleep 1000").ok();
    walk.run("docker run --rm --network inner host ping -c 1 -W 2 in1").ok();
    assert!(!walk.run("docker exec in1 ip route").ok().contains("default"));
    walk.run("docker exec in1 ping -c 1 -W 1 192.168.88.10").fails();
    // --config-only, --config-from (O7), shown by either client
    walk.run("docker network create --config-only --subnet 10.44.0.0/24 -o com.docker.network.driver.mtu=1400 base").ok();
    for listed in [walk.run("docker network ls").ok(), walk.weft("network ls").ok()] {
        assert!(listed.lines().any(|line| line.split_whitespace().skip(1).eq(["base", "null", "local"])), "{listed}");
    }
    assert_eq!(field("base", "{{.ConfigOnly}} {{(index .IPAM.Config 0).Subnet}}"), "true 10.44.0.0/24");
    assert!(walk.run("docker run --rm --network base host true").fails().contains("configuration-only network base"));
    assert!(walk.run("docker network connect base in1").fails().contains("configuration-only network base"));
    walk.run("docker network create --config-from base made").ok();
    assert_eq!(field("made", "{{.ConfigFrom.Network}} {{.ConfigOnly}} {{(index .IPAM.Config 0).Subnet}}"), "base false 10.44.0.0/24");
    assert!(walk.run("docker run --rm --network made host ip link show eth0").ok().contains("mtu 1400"));
    assert!(walk.run("docker network create --config-from base --subnet 10.45.0.0/24 other").fails().contains("user specified configurations are not supported"));
    assert!(walk.run("docker network create --config-from nobody other").fails().contains("\"nobody\" not found"));
    assert!(walk.run("docker network create --config-only --internal other").fails().contains("configuration network can only contain network specific fields"));
    assert!(walk.run("docker network rm base").fails().contains("is in use"));
    walk.run("docker network rm made").ok();
    walk.run("docker network rm base").ok();
    // --aux-address, --gateway, --ip-range, --subnet (O4)
    walk.run("docker network create --subnet 10.46.0.0/29 --gateway 10.46.0.6 --ip-range 10.46.0.0/30 --aux-address printer=10.46.0.1 small").ok();
    assert_eq!(field("small", "{{with index .IPAM.Config 0}}{{.Gateway}} {{.IPRange}} {{.AuxiliaryAddresses.printer}}{{end}}"), "10.46.0.6 10.46.0.0/30 10.46.0.1");
    walk.run("docker run -d --name s1 --network small host sleep 1000").ok();
    assert_eq!(walk.docker.format("s1", "{{.NetworkSettings.Networks.small.IPAddress}}"), "10.46.0.2", "the auxiliary address is never handed out");
    walk.run("docker exec s1 ping -c 1 -W 2 10.46.0.6").ok();
    assert!(walk.run("docker network create --subnet 10.47.0.0/24 --gateway 10.48.0.1 bad").fails().contains("gateway 10.48.0.1"));
    // -d, --driver (O3)
    assert!(walk.run("docker network create -d foo bad").fails().contains("plugin \"foo\" not found"));
    // --ingress (O7, X5): an overlay's
    assert!(walk.run("docker network create --ingress bad").fails().contains("overlay"));
    walk.run("docker network create -d overlay --ingress mesh").ok();
    assert_eq!(field("mesh", "{{.Ingress}} {{.Driver}}"), "true overlay");
    assert!(walk.run("docker network create -d overlay --ingress mesh2").fails().contains("already present"));
    // --ipam-driver, --ipam-opt (O8)
    walk.run("docker network create --ipam-driver null bare").ok();
    assert_eq!(field("bare", "{{.IPAM.Driver}} {{len .IPAM.Config}}"), "null 0");
    let links = walk.run("docker run --rm --network bare host ip -o -4 addr").ok();
    assert!(links.lines().all(|line| line.contains(" lo ")), "{links}");
    assert!(walk.run("docker run --rm --network bare host ip -o link").ok().contains("eth0"));
    assert!(walk.run("docker network create --ipam-driver other bad").fails().contains("plugin \"other\" not found"));
    assert!(walk.run("docker network create --ipam-opt a=b bad").fails().contains("IPAM option a"));
    // --scope
    assert!(walk.run("docker network create --scope swarm bad").fails().contains("scope"));
    walk.run("docker network create --scope local scoped").ok();
    // --ipv6 (O5): unique local addresses, names, both families of a published port.
    walk.run("docker network create --ipv6 --subnet 10.49.0.0/24 --subnet fd49::/64 dual").ok();
    walk.run("docker run -d --name six --network dual --ip6 fd49::66 -p 8806:8080 host python3 -m http.server --bind :: 8080").ok();
    eventually("it listens", || walk.inside("six", "ss -Hltn").stdout.contains(":8080 "));
    walk.run("docker run -d --name seven --network dual host sleep 1000").ok();
    walk.run("docker exec seven ping -6 -c 1 -W 2 fd49::66").ok();
    walk.run("docker exec seven ping -6 -c 1 -W 2 six").ok();
    assert!(walk.run("docker exec seven getent ahostsv6 six").ok().starts_with("fd49::66"));
    walk.inside("seven", "curl -6 -s -m 5 -o /dev/null http://six:8080/").ok();
    assert!(walk.curl("-6 http://[::1]:8806/").ok().contains(LISTING));
    assert_eq!(field("dual", "{{.EnableIPv6}}"), "true");
    walk.run("docker network create --ipv6 --subnet 10.50.0.0/24 --subnet 2001:db8:50::/64 global").ok();
    walk.run("docker run -d --name g1 --network global host sleep 1000").ok();
    walk.run("docker run --rm --network global host ping -6 -c 1 -W 2 2001:db8:50::2").ok();
    // `prune` takes those that nobody is in (O1).
    walk.run("docker rm -f in1 s1 six seven g1").ok();
    let pruned = walk.run("docker network prune -f").ok();
    for name in ["inner", "small", "mesh", "bare", "scoped", "dual", "global"] {
        assert!(pruned.lines().any(|line| line == name), "{name}:\n{pruned}");
    }
    assert_eq!(walk.rows("docker network ls").len(), 3, "nothing is left of what was refused");
}
