//! S4: "解读docker容器网络". SPEC rows: N1, N13, N14, N15, O11, P3, P6, P8, P9, P10, P12, P14.

use super::{PAGE, Walk};
use weft_tests::{ns::Background, run::eventually};

pub(super) fn walk() {
    let walk = Walk::start();
    let routes = walk.run("ip route; ip -6 route").ok();
    let data = walk.docker.0.dir().join("webdata");
    std::fs::create_dir(&data).expect("a directory");
    std::fs::write(data.join("index.html"), "webdata\n").expect("a page");
    let volume = format!("-v {}:/usr/share/nginx/html", data.display());
    // "ifconfig" with docker0 and one veth (N1, N14): the bridge and its ports are the switch's.
    let ports = || walk.weft("bridge show").ok().matches(":eth0").count();
    assert_eq!(ports(), 0);
    // "docker run -d -p 8080:80 --name web01 -h web01 -v /data/webdata:/usr/share/nginx/html nginx"
    walk.nginx("web01", &format!("-p 8080:80 -h web01 {volume}"));
    assert_eq!(ports(), 1);
    // "docker ps -a" (P6): both families in PORTS.
    let listed = walk.run("docker ps -a").ok();
    for part in ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES", "Up ", "0.0.0.0:8080->80/tcp", "web01"] {
        assert!(listed.contains(part), "{part}:\n{listed}");
    }
    assert!(listed.contains(":::8080->80/tcp") || listed.contains("[::]:8080->80/tcp"), "{listed}");
    // "docker inspect web01"
    let seen = walk.run("docker inspect web01").json();
    assert_eq!((&seen[0]["Config"]["Hostname"], &seen[0]["Mounts"][0]["Destination"]), (&"web01".into(), &"/usr/share/nginx/html".into()));
    // "docker inspect web01 --format='{{.NetworkSettings.IPAddress}}'" (O11)
    assert_eq!(walk.docker.args(&["inspect", "web01", "--format={{.NetworkSettings.IPAddress}}"]).ok(), "172.17.0.2\n");
    // "docker run -d -p 8081:80 --name web02 -h web02 -v /data/webdata:/usr/share/nginx/html nginx", "docker ps"
    walk.nginx("web02", &format!("-p 8081:80 -h web02 {volume}:ro"));
    let names: Vec<String> = walk.docker.args(&["ps", "--format", "{{.Names}} {{.Ports}}"]).ok().lines().map(str::to_owned).collect();
    assert!(names.len() == 2 && names[0].starts_with("web02 0.0.0.0:8081->80/tcp") && names[1].starts_with("web01 0.0.0.0:8080->80/tcp"), "{names:?}");
    // "docker0网桥还是1个,「veth」xxxxxxx多了1个 ... 也会随着容器的销毁而销毁" (N13)
    assert_eq!(ports(), 2);
    walk.run("docker run -d --name brief host sleep 1000").ok();
    assert_eq!(ports(), 3);
    walk.run("docker rm -f brief").ok();
    assert_eq!(ports(), 2);
    // What is bound is what is served; outside the container that directory is as it was.
    assert_eq!(walk.curl("http://127.0.0.1:8080").ok(), "webdata\n");
    assert!(walk.run("cat /usr/share/nginx/html/index.html; ls /usr/share/nginx/html").ok().contains("nginx") && !PAGE.is_empty());
    walk.inside("web02", "echo no > /usr/share/nginx/html/index.html").fails();
    walk.inside("web01", "echo changed > /usr/share/nginx/html/index.html").ok();
    assert_eq!(walk.curl("http://127.0.0.1:8081").ok(), "changed\n");

    // "外部是如何访问到容器里提供的服务": from another machine, by the machine's address (P3, P6).
    for url in ["http://192.168.88.212:8080", "http://192.168.88.212:8081"] {
        assert_eq!(walk.pc.run(&format!("curl -s -m 5 {url}")).ok(), "changed\n");
    }
    assert_eq!(walk.curl("-6 http://[::1]:8080").ok(), "changed\n");
    // "发往172.17.0.0/16网络的数据包由docker0接收,再到veth,最终到达容器" (P12)
    let told = walk.docker.0.weft_args(&["trace", "host", "tcp 192.168.88.10:4000 > 192.168.88.212:8080"]).ok();
    let mut rest = told.as_str();
    for part in ["publish 0.0.0.0:8080: DNAT to 172.17.0.2:80", "network bridge", "out web01:eth0"] {
        rest = rest.split_once(part).unwrap_or_else(|| panic!("{part}:\n{told}")).1;
    }
    // "iptables -t nat -vnL DOCKER" (P8): a rule for each, and what it met.
    let hits = |port: u16| -> u64 {
        let rules = walk.weft("nat show").ok();
        let row = rules.lines().find(|line| line.contains("DNAT") && line.contains(&format!("dpt:{port} to:172.17.0."))).unwrap_or_else(|| panic!("{port}:\n{rules}")).to_owned();
        row.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a counter")
    };
    let before = (hits(8080), hits(8081));
    for _ in 0..3 {
        walk.pc.run("curl -s -m 5 http://192.168.88.212:8080").ok();
    }
    assert_eq!((hits(8080), hits(8081)), (before.0 + 3, before.1));
    // "ip route", "route -n" (N15): the machine's are as they were; inside, the default goes by docker0's address (P14).
    assert_eq!(walk.run("ip route; ip -6 route").ok(), routes);
    let inside = walk.run("docker exec web01 ip route").ok();
    assert!(inside.contains("default via 172.17.0.1 dev eth0") && inside.contains("172.17.0.0/16 dev eth0"), "{inside}");
    walk.run("docker exec web01 ping -c 1 -W 2 172.17.0.1").ok();
    // "iptables -t nat -vnL POSTROUTING" (P8, P9): what leaves does so as the machine.
    let rules = walk.weft("nat show").ok();
    assert!(rules.lines().any(|line| line.contains("MASQUERADE") && line.contains("172.17.0.0/16") && line.contains("anywhere")), "{rules}");
    let _server = Background(walk.pc.command("python3").args(["-c", crate::uplink::WHO, "80"]).spawn().expect("python3"));
    eventually("the server outside listens", || walk.pc.sh("ss -Hltn").stdout.contains(":80 "));
    assert!(walk.inside("web02", "curl -s -m 5 http://192.168.88.10/").ok().starts_with("192.168.88.212|"));
    // "MASQUERADE tcp 172.17.0.2 172.17.0.2 tcp dpt:80" (P10): to itself and a peer by the published port.
    for from in ["web01", "web02"] {
        assert_eq!(walk.inside(from, "curl -s -m 5 http://192.168.88.212:8080").ok(), "changed\n", "{from}");
    }
    walk.run("docker rm -f web01 web02").ok();
    assert_eq!(ports(), 0);
}
