//! S3: "Docker整理ノート(二)". Its daemon.json and listeners are tested elsewhere. SPEC rows: N1, N5, N6, N7, N10, N11,
//! N12, N13, N14, C3, C5, C7, C8, O4, O10, O12, O13, D3, P2, P4, P5, P8, P14.

use serde_json::Value;
use weft_tests::run::eventually;

use super::{PAGE, Walk};

/// `ip netns`, veth pairs and names, by the kernel and by the switch.
pub(super) fn by_hand() {
    let walk = Walk::start();
    // "ip netns help": each has its counterpart (N7).
    let help = walk.weft("netns --help").ok();
    for command in ["add", "del", "ls", "identify", "pids", "set", "list-id", "monitor", "exec"] {
        assert!(help.contains(&format!("  {command} ")), "{command}:\n{help}");
    }
    let names = ["r1", "r2"].map(|name| format!("{}{name}", walk.docker.0.host.name));
    let [r1, r2] = &names;
    // "ip netns add r1", "ip netns add r2", "ip netns list" (N5)
    for name in &names {
        walk.weft(&format!("netns add {name}")).ok();
    }
    let listed = walk.run("ip netns list").ok();
    assert!(names.iter().all(|name| listed.contains(name.as_str()) && walk.weft("netns ls").ok().contains(name.as_str())), "{listed}");
    // "ip netns set NAME NETNSID", "ip netns list-id" (N7)
    walk.weft(&format!("netns set {r2} 77")).ok();
    assert!(walk.weft("netns list-id").ok().contains("77"));
    // "ip netns exec r1 ifconfig -a": lo alone (N6).
    assert_eq!(walk.weft(&format!("exec {r1} ip -o link")).ok().lines().count(), 1);
    // "ip link add name eth1.1 type veth peer name veth1.2", "ip link" (N10): names that look like VLANs.
    walk.run("ip link add name eth1.1 type veth peer name veth1.2").ok();
    let links = walk.weft("ip link").ok();
    assert!(links.contains("eth1.1") && links.contains("veth1.2") && links.contains("state DOWN"), "{links}");
    // "ip link set dev veth1.2 netns r1"
    walk.run(&format!("ip link set dev veth1.2 netns {r1}")).ok();
    assert!(!walk.weft("ip link").ok().contains("veth1.2") && walk.weft(&format!("ip link -n {r1}")).ok().contains("veth1.2"));
    // "ip netns exec r1 ip link set dev veth1.2 name eth0"
    walk.run(&format!("ip netns exec {r1} ip link set dev veth1.2 name eth0")).ok();
    // "ifconfig eth1.1 192.168.0.1/24 up", "ip netns exec r1 ifconfig eth0 192.168.0.3/24", "ping 192.168.0.3"
    walk.run("ip addr add 192.168.0.1/24 dev eth1.1; ip link set eth1.1 up").ok();
    walk.run(&format!("ip -n {r1} addr add 192.168.0.3/24 dev eth0; ip -n {r1} link set eth0 up")).ok();
    walk.run("ping -c 2 -i 0.2 -W 2 192.168.0.3").ok();
    walk.run("ip link del eth1.1").ok();
    // The same by the switch: the machine is in the network (N11), r1's interface is renamed (N10), and the machine's
    // end goes on to r2 ("r1 r2を通信させ", N12).
    walk.weft("network create wire --subnet 192.168.0.0/24 --gateway 192.168.0.254").ok();
    walk.weft("attach wire --host-port --ifname eth1.1 --ip 192.168.0.1").ok();
    walk.weft(&format!("attach wire {r1} --ifname veth1.2 --ip 192.168.0.3")).ok();
    walk.run(&format!("ip netns exec {r1} ip link set dev veth1.2 down; ip netns exec {r1} ip link set dev veth1.2 name eth0; ip netns exec {r1} ip link set dev eth0 up")).ok();
    walk.run("ping -c 2 -i 0.2 -W 2 192.168.0.3").ok();
    let ports = walk.weft("port ls").ok();
    let end = ports.split_whitespace().find(|word| word.ends_with(":eth1.1")).expect("the machine's port").to_owned();
    walk.weft(&format!("port move {end} {r2}")).ok();
    assert!(!walk.weft("ip link").ok().contains("eth1.1"));
    walk.weft(&format!("exec {r2} ping -c 2 -i 0.2 -W 2 192.168.0.3")).ok();
    walk.weft(&format!("exec {r1} ping -c 2 -i 0.2 -W 2 192.168.0.1")).ok();
    // "ip netns identify [PID]", "pids NAME" (N7)
    let sleeper = weft_tests::ns::Background(walk.docker.0.host.command("ip").args(["netns", "exec", r1, "sleep", "1000"]).spawn().expect("a process"));
    let pid = sleeper.0.id().to_string();
    eventually("it is in r1", || walk.weft(&format!("netns identify {pid}")).stdout.trim() == r1);
    assert!(walk.weft(&format!("netns pids {r1}")).ok().lines().any(|line| line == pid));
    drop(sleeper);
    for name in &names {
        walk.weft(&format!("detach wire {name}")).ok();
        walk.weft(&format!("netns del {name}")).ok();
    }
    // The last line: "ip link set dev docker network create -d bridge --subnet 172.26.0.0/16 --gateway 172.26.0.1 mybr0"
    // is two commands run together (O13); the second is meant (O4), and its gateway answers (P14).
    walk.run("ip link set dev docker network create -d bridge --subnet 172.26.0.0/16 --gateway 172.26.0.1 mybr0").fails();
    walk.run("docker network create -d bridge --subnet 172.26.0.0/16 --gateway 172.26.0.1 mybr0").ok();
    walk.run("docker run -d --name user --network mybr0 host sleep 1000").ok();
    walk.run("docker exec user ping -c 1 -W 2 172.26.0.1").ok();
    assert!(walk.docker.args(&["exec", "user", "sh", "-c", "ip neigh show 172.26.0.1"]).ok().contains("lladdr 02:42:ac:1a:00:01"));
    walk.run("docker rm -f user").ok();
}

/// What the text prints for `docker network inspect bridge`, whole.
pub(crate) const BRIDGE: &str = r#"[{"Name": "bridge", "Id": "dacbc276f6b07d734709317892d66abb045f88f0ff38fbbb5f8c78773ce36549", "Created": "2018-10-28T11:05:07.769121664+08:00",
"Scope": "local", "Driver": "bridge", "EnableIPv6": false, "IPAM": {"Driver": "default", "Options": null, "Config": [{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}]},
"Internal": false, "Attachable": false, "Ingress": false, "ConfigFrom": {"Network": ""}, "ConfigOnly": false, "Containers": {},
"Options": {"com.docker.network.bridge.default_bridge": "true", "com.docker.network.bridge.enable_icc": "true", "com.docker.network.bridge.enable_ip_masquerade": "true",
"com.docker.network.bridge.host_binding_ipv4": "0.0.0.0", "com.docker.network.bridge.name": "docker0", "com.docker.network.driver.mtu": "1500"}, "Labels": {}}]"#;

/// Takes away what differs from one machine, or day, to the next.
fn without_own(mut networks: Value) -> Value {
    for key in ["Id", "Created"] {
        assert!(networks[0][key].is_string());
        networks[0][key] = Value::Null;
    }
    networks
}

/// The containers of the text.
pub(super) fn containers() {
    let walk = Walk::start();
    // "ifconfig | grep -C5 docker0" (N14): the bridge is the switch's, and no device.
    assert!(!walk.run("ip -d link").ok().contains("bridge"));
    assert!(walk.weft("bridge show").ok().contains("bridge"));
    // "docker network ls" (C3)
    let rows: Vec<Vec<String>> = walk.rows("docker network ls").into_iter().map(|row| row[1..].to_vec()).collect();
    assert_eq!(rows, [["bridge", "bridge", "local"], ["host", "host", "local"], ["none", "null", "local"]]);
    // "docker container start web && ifconfig | grep veth" (N13): its port comes with it.
    walk.run("docker create --name web host sleep 1000").ok();
    assert!(!walk.weft("port ls").ok().contains("web"));
    assert_eq!(walk.run("docker container start web").ok(), "web\n");
    assert!(walk.weft("port ls").ok().contains("web:eth0"));
    assert!(walk.weft("bridge show").ok().contains("web:eth0"));
    walk.run("docker rm -f web").ok();
    assert!(!walk.weft("port ls").ok().contains("web"));
    // "docker container run --help | grep network" (O12)
    let help = walk.run("docker container run --help").ok();
    assert!(help.lines().any(|line| line.contains("--network ") && line.contains("Connect a container to a")), "{help}");
    // "docker network inspect bridge" (O10): key for key, value for value; EnableIPv4 is newer than the text.
    let mut seen = walk.run("docker network inspect bridge").json();
    assert_eq!(seen[0].as_object_mut().and_then(|fields| fields.remove("EnableIPv4")), Some(true.into()));
    assert_eq!(without_own(seen), without_own(serde_json::from_str(BRIDGE).expect("JSON")));

    // "docker run --name t1 -it --network bridged - -dns 8.8.8.8 --rm busybox:latest": three slips in a line (O13).
    walk.run("docker run --name t1 -it --network bridged - -dns 8.8.8.8 --rm busybox:latest").fails();
    assert!(walk.run("docker run --name t1 --network bridged host true").fails().contains("network bridged not found"));
    walk.run("docker rm t1").ok();
    assert_eq!(walk.run("docker network ls -q").ok().lines().count(), 3);
    walk.run("docker run -di --name t1 --network bridge --dns 8.8.8.8 --rm host busybox sh").ok();
    assert_eq!(walk.docker.format("t1", "{{.HostConfig.Dns}}"), "[8.8.8.8]");
    walk.run("docker rm -f t1").ok();
    // "docker run --name t1 -it -h t1 --add-host www.baidu.com:1.1.1.1 busybox:latest" (D3)
    walk.run("docker run -di --name t1 -h t1 --add-host www.baidu.com:1.1.1.1 host busybox sh").ok();
    assert_eq!(walk.run("docker exec t1 busybox hostname").ok(), "t1\n");
    assert!(walk.run("docker exec t1 getent hosts www.baidu.com").ok().starts_with("1.1.1.1"));
    assert!(walk.run("docker exec t1 busybox cat /etc/hosts").ok().lines().any(|line| line.split_whitespace().collect::<Vec<_>>() == ["1.1.1.1", "www.baidu.com"]));
    walk.run("docker rm -f t1").ok();

    // "docker run --name t1 -it -p 80 --rm nginx:1.14-alpine", "docker port t1" (P5)
    walk.nginx("t1", "-p 80 --rm");
    let ports = walk.run("docker port t1").ok();
    let port = ports.lines().next().and_then(|line| line.strip_prefix("80/tcp -> 0.0.0.0:")).expect("the text's shape").to_owned();
    assert!(ports.contains(&format!("80/tcp -> [::]:{port}")), "{ports}");
    let range = walk.run("cat /proc/sys/net/ipv4/ip_local_port_range").ok();
    let range: Vec<u16> = range.split_whitespace().map(|word| word.parse().expect("a port")).collect();
    assert!((range[0]..=range[1]).contains(&port.parse().expect("a port")), "{port} in {range:?}");
    assert!(walk.curl(&format!("http://127.0.0.1:{port}")).ok().contains(PAGE));
    // "iptables -t nat -vnL | grep dpt" (P8)
    let rules = walk.weft("nat show").ok();
    let to = format!("dpt:{port} to:{}:80", walk.ip_of("t1"));
    assert!(rules.lines().any(|line| line.contains("DNAT") && line.contains("tcp") && line.contains(&to)), "{to}:\n{rules}");
    assert!(rules.lines().any(|line| line.contains("MASQUERADE") && line.contains("172.17.0.0/16")), "{rules}");
    walk.run("docker rm -f t1").ok();
    // "docker run --name t1 -it -p 192.168.64.100:5555:80 --rm nginx:1.14-alpine", "docker port t1" (P4)
    walk.run("ip addr add 192.168.64.100/24 dev eth0").ok();
    walk.nginx("t1", "-p 192.168.64.100:5555:80 --rm");
    assert_eq!(walk.run("docker port t1").ok(), "80/tcp -> 192.168.64.100:5555\n");
    assert!(walk.curl("http://192.168.64.100:5555").ok().contains(PAGE));
    assert!(walk.curl("http://127.0.0.1:5555").fails().contains("Failed to connect"));
    walk.run("docker rm -f t1").ok();

    // "docker run --name b1 -it --rm busybox:latest", "docker run --name b2 --network container:b1 -it --rm busybox:latest" (C7)
    walk.run("docker run -di --name b1 --rm host busybox sh").ok();
    walk.run("docker run -di --name b2 --network container:b1 --rm host busybox sh").ok();
    for script in ["busybox ifconfig eth0 | head -2", "readlink /proc/self/ns/net", "busybox hostname"] {
        assert_eq!(walk.inside("b1", script).ok(), walk.inside("b2", script).ok(), "{script}");
    }
    walk.run("docker exec -d b1 busybox nc -ll -p 8000 -e echo served").ok();
    eventually("b2 reaches what b1 serves on 127.0.0.1", || walk.inside("b2", "busybox nc 127.0.0.1 8000 < /dev/null").stdout == "served\n");
    walk.run("docker rm -f b2").ok();
    // "docker run --name b2 --network host -it --rm busybox:latest" (C5, C8)
    walk.run("docker run -di --name b2 --network host --rm host busybox sh").ok();
    assert_eq!(walk.inside("b2", "busybox hostname; ip -o link").ok(), walk.run("busybox hostname; ip -o link").ok());
    walk.run("docker rm -f b1 b2").ok();
    assert_eq!(walk.run("docker ps -aq").ok(), "", "--rm and rm -f leave none");
}
