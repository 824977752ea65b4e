//! S0: "一篇文章带你详细学习Docker中网络知识体系". SPEC rows: N1, N2, N3, N5, N6, N8, N9, N14, N15, C2, C3, C4, C5, C6,
//! C11, C12, O1, O2, P3, P9, D5.

use super::{LISTING, Walk};
use weft_tests::{ns::Background, run::eventually};

/// Chapters 3.2 and 3.3.1: interfaces, addresses, namespaces, a veth pair.
pub(super) fn interfaces() {
    let walk = Walk::start();
    // "ip a" (N1, N2): the same facts as the kernel's own view, with state, link/ether and inet.
    let (ours, theirs) = (walk.weft("ip a").ok(), walk.run("ip a").ok());
    for part in ["1: lo: <", "LOOPBACK", "LOWER_UP> mtu 65536", "link/loopback 00:00:00:00:00:00", "inet 127.0.0.1/8", "eth0", "state UP", "link/ether ", "inet 192.168.88.212/24"] {
        assert!(ours.contains(part) && theirs.contains(part), "{part}:\n{ours}\n{theirs}");
    }
    // The daemon's networks are no devices of the host (N15): S0's docker0 and br-... are seen by `weft bridge`.
    assert!(!theirs.contains("docker0") && walk.weft("bridge show").ok().contains("bridge"));
    // "ip link show"
    for part in ["1: lo: <", "state UNKNOWN", "link/loopback", "eth0"] {
        assert!(walk.weft("ip link show").ok().contains(part), "{part}");
    }
    // "ls /sys/class/net": the container's own, and no other.
    walk.run("docker run -d --name box host sleep 1000").ok();
    assert_eq!(walk.run("docker exec box ls /sys/class/net").ok().split_whitespace().collect::<Vec<_>>(), ["eth0", "lo"]);
    // "ip addr add 192.168.0.10/24 dev eth0", "ip a" (N3)
    walk.run("docker exec box ip addr add 192.168.0.10/24 dev eth0").ok();
    for seen in [walk.run("docker exec box ip a").ok(), walk.weft("ip a -n box").ok()] {
        assert!(seen.contains("inet 192.168.0.10/24") && seen.contains("inet 172.17.0.2/16"), "{seen}");
    }
    // "ip addr delete 192.168.0.10/24 dev eth0", "ip a"
    walk.run("docker exec box ip addr delete 192.168.0.10/24 dev eth0").ok();
    assert!(!walk.weft("ip a -n box").ok().contains("192.168.0.10"));

    // "ip netns add ns1", "ip netns list" (N5); the names are the machine's, so they carry the test's.
    let names = ["ns1", "ns2"].map(|name| format!("{}{name}", walk.docker.0.host.name));
    let [ns1, ns2] = &names;
    walk.weft(&format!("netns add {ns1}")).ok();
    let lists = |name: &str| walk.run("ip netns list").ok().lines().any(|line| line.split(' ').next() == Some(name)) && walk.weft("netns ls").ok().lines().any(|line| line == name);
    assert!(lists(ns1));
    // "ip netns delete ns1"
    walk.weft(&format!("netns del {ns1}")).ok();
    assert!(!lists(ns1));
    walk.weft(&format!("netns add {ns1}")).ok();
    // "ip netns exec ns1 ip" (N6): only lo.
    assert_eq!(walk.weft(&format!("exec {ns1} ip -o link")).ok().lines().count(), 1);
    // "ip netns exec ns1 ifup lo", "ifdown lo", "ip link set lo up", "ip link set lo down" (N8)
    walk.weft(&format!("exec {ns1} ping -c 1 -W 1 127.0.0.1")).ok();
    walk.weft(&format!("exec {ns1} ip link set lo down")).ok();
    walk.weft(&format!("exec {ns1} ping -c 1 -W 1 127.0.0.1")).fails();
    walk.run(&format!("ip netns exec {ns1} ip link set lo up")).ok();
    walk.weft(&format!("exec {ns1} ping -c 1 -W 1 127.0.0.1")).ok();
    // "再添加一个namespace"; "ip link add veth-ns1 type veth peer name veth-ns2", "ip link set veth-ns1 netns ns1",
    // "ip netns exec ns1 ip addr add 192.168.10.10/24 dev veth-ns1", up, ping (N9, without the switch)
    walk.weft(&format!("netns add {ns2}")).ok();
    walk.run("ip link add veth-ns1 type veth peer name veth-ns2").ok();
    for (name, device, address) in [(ns1, "veth-ns1", "192.168.10.10/24"), (ns2, "veth-ns2", "192.168.10.11/24")] {
        walk.run(&format!("ip link set {device} netns {name}")).ok();
        assert!(walk.weft(&format!("ip link -n {name}")).ok().contains(device));
        walk.run(&format!("ip netns exec {name} ip addr add {address} dev {device}")).ok();
        // "再次查看网卡的状态,发现是down的状态" (N2)
        assert!(walk.weft(&format!("ip link -n {name}")).ok().contains("state DOWN"));
        walk.run(&format!("ip netns exec {name} ip link set {device} up")).ok();
    }
    walk.weft(&format!("exec {ns1} ping -c 3 -i 0.1 -W 2 192.168.10.11")).ok();
    walk.weft(&format!("exec {ns2} ping -c 3 -i 0.1 -W 2 192.168.10.10")).ok();
    // The same through the switch (N9).
    walk.run(&format!("ip netns exec {ns1} ip link del veth-ns1")).ok();
    walk.weft("network create pair --subnet 192.168.10.0/24").ok();
    for (name, address) in [(ns1, "192.168.10.10"), (ns2, "192.168.10.11")] {
        walk.weft(&format!("attach pair {name} --ip {address}")).ok();
    }
    for (name, other) in [(ns1, "192.168.10.11"), (ns2, "192.168.10.10")] {
        assert!(walk.weft(&format!("exec {name} ping -c 3 -i 0.1 -W 2 {other}")).ok().contains(" 0% packet loss"));
    }
    for name in [ns1, ns2] {
        walk.weft(&format!("detach pair {name}")).ok();
        walk.weft(&format!("netns del {name}")).ok();
    }
    walk.run("docker rm -f box").ok();
}

/// Chapters 3.3.2 to 3.6: containers on the default bridge, on one of their own, on host, none, published.
pub(super) fn containers() {
    let walk = Walk::start();
    let routes = walk.run("ip route").ok();
    // "先启动俩个tomcat容器" (C4): 172.17.0.2 and .3 reach each other.
    walk.tomcat("tomcat_ip_8080", "");
    walk.tomcat("tomcat02", "");
    assert_eq!(["tomcat_ip_8080", "tomcat02"].map(|name| walk.ip_of(name)), ["172.17.0.2", "172.17.0.3"]);
    for (from, to) in [("tomcat_ip_8080", "172.17.0.3"), ("tomcat02", "172.17.0.2"), ("tomcat02", "172.17.0.1")] {
        assert!(walk.run(&format!("docker exec {from} ping -c 3 -i 0.1 -W 2 {to}")).ok().contains(" 0% packet loss"));
    }
    // "brctl show" (N14): one bridge with both ports, in brctl's columns.
    let shown = walk.weft("bridge show").ok();
    assert!(shown.starts_with("bridge name\tbridge id\t\tSTP enabled\tinterfaces"), "{shown}");
    assert!(shown.contains("tomcat_ip_8080:eth0") && shown.contains("tomcat02:eth0"), "{shown}");
    // "容器中是可以访问互联网的": by NAT, and what is outside sees the machine (P9).
    let _server = Background(walk.pc.command("python3").args(["-c", crate::uplink::WHO, "80"]).spawn().expect("python3"));
    eventually("the server outside listens", || walk.pc.sh("ss -Hltn").stdout.contains(":80 "));
    assert!(walk.inside("tomcat02", "curl -s -m 5 http://192.168.88.10/").ok().starts_with("192.168.88.212|"));

    // "docker network create zookeeper_network", or with "--subnet=172.18.0.0/16" behind the name (O1, O2)
    walk.run("docker network create zookeeper_network").ok();
    assert!(walk.run("docker network create zookeeper_network --subnet=172.18.0.0/16").fails().contains("network with name zookeeper_network already exists"));
    // "docker network ls" (C3)
    let rows: Vec<Vec<String>> = walk.rows("docker network ls").into_iter().map(|row| row[1..].to_vec()).collect();
    assert_eq!(rows, [["bridge", "bridge", "local"], ["host", "host", "local"], ["none", "null", "local"], ["zookeeper_network", "bridge", "local"]]);
    // "docker network inspect zookeeper_network"
    let seen = walk.run("docker network inspect zookeeper_network").json();
    assert_eq!((&seen[0]["IPAM"]["Config"][0]["Subnet"], &seen[0]["Driver"]), (&"172.18.0.0/16".into(), &"bridge".into()));
    // "docker network rm zookeeper_network", and made again with the subnet.
    assert_eq!(walk.run("docker network rm zookeeper_network").ok().trim(), "zookeeper_network");
    walk.run("docker network create zookeeper_network --subnet=172.18.0.0/16").ok();
    // "docker run -d --name zookeeper_tomcat_net --network zookeeper_network -p 8082:8080 tomcat" (P3)
    walk.tomcat("zookeeper_tomcat_net", "--network zookeeper_network -p 8082:8080");
    assert!(walk.curl("http://127.0.0.1:8082/").ok().contains(LISTING));
    // "查看网卡接口信息"
    assert!(walk.run("docker exec zookeeper_tomcat_net ip a").ok().contains("inet 172.18.0.2/16"));
    // "docker exec -it zookeeper_tomcat_net ping 172.17.0.2": does not get there (C2, C11).
    assert!(walk.run("docker exec -i zookeeper_tomcat_net ping -c 2 -i 0.2 -W 1 172.17.0.2").stdout.contains(" 100% packet loss"));
    // "docker network connect zookeeper_tomcat_net tomcat_ip_8080": the text has a container for the network (C12).
    assert!(walk.run("docker network connect zookeeper_tomcat_net tomcat_ip_8080").fails().contains("network zookeeper_tomcat_net not found"));
    let swapped = walk.run("docker network connect tomcat_ip_8080 zookeeper_network").fails();
    assert!(swapped.contains("did you mean `docker network connect zookeeper_network tomcat_ip_8080`?"), "{swapped}");
    walk.run("docker network connect zookeeper_network tomcat_ip_8080").ok();
    let both = walk.run("docker exec tomcat_ip_8080 ip a").ok();
    assert!(both.contains("eth1") && both.contains("inet 172.18.0.3/16") && both.contains("inet 172.17.0.2/16"), "{both}");
    walk.run("docker exec -i zookeeper_tomcat_net ping -c 1 -W 2 172.18.0.3").ok();
    walk.run("docker exec -i zookeeper_tomcat_net ping -c 1 -W 2 tomcat_ip_8080").ok();
    walk.run("docker network disconnect zookeeper_network tomcat_ip_8080").ok();
    assert!(!walk.run("docker exec tomcat_ip_8080 ip a").ok().contains("eth1"));

    // "docker run -d --name tomcat-host --network host tomcat", "docker exec -it tomcat-host ip a" (C5)
    walk.tomcat("tomcat-host", "--network host");
    assert_eq!(walk.run("docker exec tomcat-host ip -o link").ok(), walk.run("ip -o link").ok());
    assert_eq!(walk.run("docker exec tomcat-host hostname").ok(), walk.run("hostname").ok());
    assert!(walk.curl("http://127.0.0.1:8080/").ok().contains(LISTING));
    // "docker network inspect host"
    let member = walk.docker.args(&["network", "inspect", "host", "--format", "{{range .Containers}}{{.Name}}[{{.MacAddress}}{{.IPv4Address}}]{{end}}"]).ok();
    assert_eq!(member.trim(), "tomcat-host[]");
    // "docker run -d --name tomcat-none --network none tomcat", "docker exec -it tomcat-none ..." (C6)
    walk.tomcat("tomcat-none", "--network none");
    let links = walk.run("docker exec tomcat-none ip -o addr").ok();
    assert!(links.lines().all(|line| line.contains(" lo ")), "{links}");
    walk.inside("tomcat-none", "curl -s -m 5 http://127.0.0.1:8080/ > /dev/null").ok();
    walk.run("docker exec tomcat-none ping -c 1 -W 1 172.17.0.1").fails();
    // "docker network inspect none"
    let member = walk.docker.args(&["network", "inspect", "none", "--format", "{{range .Containers}}{{.Name}}[{{.MacAddress}}{{.IPv4Address}}]{{end}}"]).ok();
    assert_eq!(member.trim(), "tomcat-none[]");
    assert!(!walk.weft("port ls").ok().contains("tomcat-none"));

    // "docker run -d --name tomcat8080 -p 8888:8080 tomcat" (P3)
    walk.tomcat("tomcat8080", "-p 8888:8080");
    for url in ["http://localhost:8888/", "http://192.168.88.212:8888/"] {
        assert!(walk.curl(url).ok().contains(LISTING), "{url}");
    }
    assert!(walk.pc.run("curl -s -m 5 http://192.168.88.212:8888/").ok().contains(LISTING));
    assert_eq!(walk.run("ip route").ok(), routes, "the machine's routes are as they were (N15)");
    walk.run("docker rm -f tomcat_ip_8080 tomcat02 zookeeper_tomcat_net tomcat-host tomcat-none tomcat8080").ok();
}
