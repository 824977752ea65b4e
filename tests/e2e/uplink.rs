//! The way out and the way in: sandboxes, a host, a LAN with another machine. SPEC rows: P2, P3, P4, P5
//! (not -P), P6, P7, P8, P9, P10, P11, P13, P14, O6.

use libtest_mimic::Trial;
use weft_tests::{
    lab::Lab,
    ns::{Background, Ns},
    run::eventually,
    runner::{Need, test},
};

const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("python3"), Need::Tool("curl")];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("uplink::p14_the_gateway_answers", &[Need::Root, Need::Tun, Need::Tool("arping"), Need::Tool("traceroute")], gateway),
        test("uplink::p9_out_by_tcp_udp_and_ping", NEEDS, out),
        test("uplink::p3_p6_published_over_both_families_with_the_client_s_address", NEEDS, published),
        test("uplink::p3_nginx_logs_the_client_on_both_uplinks", &[Need::Root, Need::Tun, Need::Tool("nginx"), Need::Tool("curl")], nginx),
        test("uplink::p4_p5_one_address_random_port_and_conflict", NEEDS, bindings),
        test("uplink::p7_udp_and_ranges", NEEDS, udp_and_ranges),
        test("uplink::p10_hairpin", NEEDS, hairpin),
        test("uplink::p13_the_host_s_firewall_applies", &[Need::Root, Need::Tun, Need::Tool("nft"), Need::Tool("curl")], firewall),
        test("uplink::c10_o6_networks_and_internal_ones_are_apart", NEEDS, apart),
        test("uplink::bulk_arrives_whole_both_ways", &[Need::Root, Need::Tun, Need::Tool("openssl"), Need::Tool("curl"), Need::Tool("python3")], bulk),
        test("uplink::publish_add_rm_and_restart", NEEDS, live),
        test("uplink::refused_and_unreachable_are_told", NEEDS, errors),
        test("uplink::no_footprint_no_inside_address_outside", &[Need::Root, Need::Tun, Need::Tool("tshark"), Need::Tool("curl"), Need::Tool("python3")], footprint),
    ]
}

/// A host with a LAN leg, and a machine on that LAN.
struct World {
    lab: Lab,
    lan: Ns,
    servers: Vec<Background>,
}

fn world() -> World {
    let lab = Lab::start();
    let lan = lab.ns("lan");
    let (host, other) = (&lab.host.name, &lan.name);
    lan.sh(&format!(
        "ip link add eth0 type veth peer name lan0 netns {host} && ip addr add 192.168.88.2/24 dev eth0 && ip addr add fd88::2/64 dev eth0 nodad && ip link set eth0 up \
         && ip -n {host} addr add 192.168.88.1/24 dev lan0 && ip -n {host} addr add fd88::1/64 dev lan0 nodad && ip -n {host} link set lan0 up && echo {other}"
    ))
    .ok();
    eventually("the LAN is up", || lab.host.sh("ip -6 addr show dev lan0 scope link").stdout.contains("fe80") && !lab.host.sh("ip -6 addr show dev lan0").stdout.contains("tentative"));
    lab.weft("network create net --subnet 172.30.0.0/16 --ipv6").ok();
    World { lab, lan, servers: Vec::new() }
}

/// Answers each connection with the address it came from.
pub(crate) const WHO: &str = "import socket,sys\ns=socket.socket(socket.AF_INET6)\ns.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)\ns.bind(('::',int(sys.argv[1])))\ns.listen(64)\nwhile True:\n c,a=s.accept()\n c.recv(1000)\n b=(a[0].replace('::ffff:','')+'|'+str(a[1])).encode()\n c.sendall(b'HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n'%len(b)+b)\n c.close()\n";
/// Echoes datagrams with the address they came from before them.
pub(crate) const ECHO: &str = "import socket,sys\ns=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)\ns.bind(('::',int(sys.argv[1])))\nwhile True:\n d,a=s.recvfrom(70000)\n s.sendto(a[0].replace('::ffff:','').encode()+b'|'+d,a)\n";
/// Sends a datagram of that many bytes and prints the answer.
pub(crate) const ASK: &str = "import socket,sys\na=socket.getaddrinfo(sys.argv[1],int(sys.argv[2]),0,socket.SOCK_DGRAM)[0]\ns=socket.socket(a[0],socket.SOCK_DGRAM)\ns.settimeout(3)\ns.connect(a[4])\ntry:\n s.send(b'x'*int(sys.argv[3])); d=s.recv(70000); print(d.split(b'|')[0].decode(),len(d.split(b'|')[1]))\nexcept OSError as e: print(type(e).__name__)\n";

impl World {
    fn serve_on_lan(&mut self, program: &str, port: u16) {
        let child = self.lan.command("python3").args(["-c", program, &port.to_string()]).spawn().expect("python3");
        self.servers.push(Background(child));
        let shown = if program == ECHO { "ss -Hlun" } else { "ss -Hltn" };
        eventually("the LAN's server listens", || self.lan.sh(shown).stdout.contains(&format!(":{port} ")));
    }

    /// A sandbox that runs `program` on `port`, with further words for `weft run`.
    fn sandbox(&self, name: &str, program: &str, port: u16, words: &[&str]) {
        let port_word = port.to_string();
        let command = [&["run", "-d", "--name", name, "--net", "net"], words, &["--", "python3", "-c", program, &port_word]].concat();
        self.lab.weft_args(&command).ok();
        let shown = if program == ECHO { "ss -Hlun" } else { "ss -Hltn" };
        eventually("the sandbox's server listens", || self.lab.weft_args(&["exec", name, "sh", "-c", shown]).stdout.contains(&format!(":{port} ")));
    }

    fn client(&self, words: &[&str]) {
        let command = [&["run", "-d", "--name", "c", "--net", "net"], words, &["--", "sleep", "1000"]].concat();
        self.lab.weft_args(&command).ok();
    }

    fn in_c(&self, line: &str) -> weft_tests::run::Ran {
        self.lab.weft_args(&["exec", "c", "sh", "-c", line])
    }
}

fn curl(ns: &Ns, url: &str) -> String {
    ns.run(&format!("curl -s -m 5 {url}")).stdout
}

fn gateway() {
    let world = world();
    world.client(&[]);
    world.in_c("ping -c 2 -i 0.1 -W 2 172.30.0.1").ok();
    let v6 = world.lab.weft("network inspect net").json()[0]["pools"][1]["gateway"].as_str().expect("an IPv6 gateway").to_owned();
    world.in_c(&format!("ping -c 2 -i 0.1 -W 2 {v6}")).ok();
    let seen = world.in_c("arping -c 3 -I eth0 172.30.0.1").stdout;
    assert_eq!(seen.matches("02:42:ac:1e:00:01").count() + seen.matches("02:42:AC:1E:00:01").count(), 3, "{seen}");
    let hops = world.in_c("traceroute -n -q 1 -m 2 192.168.88.2").stdout;
    assert!(hops.lines().nth(1).is_some_and(|line| line.contains("172.30.0.1")), "{hops}");
    assert!(hops.lines().nth(2).is_some_and(|line| line.contains("192.168.88.2")), "{hops}");
}

fn out() {
    let mut world = world();
    world.serve_on_lan(WHO, 80);
    world.serve_on_lan(ECHO, 53);
    world.client(&[]);
    assert!(world.in_c("curl -s -m 5 http://192.168.88.2/").ok().starts_with("192.168.88.1|"), "the host's address is seen");
    assert!(world.in_c("curl -s -m 5 http://[fd88::2]/").ok().starts_with("fd88::1|"));
    for (to, seen) in [("192.168.88.2", "192.168.88.1"), ("fd88::2", "fd88::1")] {
        world.in_c(&format!("ping -c 2 -i 0.1 -W 2 {to}")).ok();
        // The longest there are, with what the answer adds: fragments on the way out and on the way in.
        for size in [1, 1000, 20_000, if to.contains(':') { 65_519 } else { 65_494 }] {
            let answer = world.lab.weft_args(&["exec", "c", "python3", "-c", ASK, to, "53", &size.to_string()]).ok();
            assert_eq!(answer.trim(), format!("{seen} {size}"));
        }
    }
    let flows = world.lab.weft("nat flows").ok();
    for part in ["udp", "ASSURED", "dst=192.168.88.2", "dport=53", "icmp"] {
        assert!(flows.contains(part), "{part} in:\n{flows}");
    }
}

fn published() {
    let mut world = world();
    world.sandbox("web", WHO, 80, &["-p", "8080:80"]);
    world.serve_on_lan(WHO, 81);
    assert!(curl(&world.lab.host, "http://127.0.0.1:80/").is_empty(), "P2: not published, not reachable");
    // The sandbox sees who really asks, address and port.
    for (url, client, port) in [("http://192.168.88.1:8080/", "192.168.88.2", 25_678), ("http://[fd88::1]:8080/", "fd88::2", 25_679)] {
        let seen = world.lan.run(&format!("curl -s -m 5 --local-port {port} {url}")).ok();
        assert_eq!(seen, format!("{client}|{port}"), "{url}");
    }
    // Loopback clients cannot be answered under their own address: they are the gateway.
    assert!(curl(&world.lab.host, "http://127.0.0.1:8080/").starts_with("172.30.0.1|"));
    assert!(curl(&world.lab.host, "http://[::1]:8080/").starts_with("fd"));
    let rules = world.lab.weft("nat show").ok();
    assert!(rules.contains("dpt:8080 to:172.30.0.2:80") && rules.contains("MASQUERADE"), "{rules}");
    assert!(rules.lines().any(|line| line.starts_with('2') && line.contains("0.0.0.0")), "two connections were counted:\n{rules}");
}

/// X4: nginx as its users run it; its own log says who came.
fn nginx() {
    let by_packets = {
        let mut lab = Lab::without_daemon();
        let lan = lab.ns("lan");
        lan.sh(&format!("ip link add eth0 type veth peer name lan0 netns {0} && ip addr add 192.168.88.2/24 dev eth0 && ip addr add fd88::2/64 dev eth0 nodad && ip link set eth0 up && ip -n {0} link set lan0 up", lab.host.name)).ok();
        lab.start_daemon_with("--uplink dev:lan0,addr=192.168.88.1/24,addr=fd88::1/64");
        lab.weft("network create net --subnet 172.30.0.0/16 --ipv6").ok();
        World { lab, lan, servers: Vec::new() }
    };
    for world in [world(), by_packets] {
        let directory = world.lab.dir().join("nginx");
        std::fs::create_dir_all(directory.join("html")).expect("a directory");
        std::fs::write(directory.join("html/index.html"), "Welcome to nginx!\n").expect("a page");
        let at = directory.display();
        let config = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log; user root; events {{ }}\n\
             http {{ log_format who '$remote_addr $remote_port $request'; access_log {at}/access.log who; client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
             server {{ listen 80; listen [::]:80; root {at}/html; }} }}\n"
        );
        std::fs::write(directory.join("nginx.conf"), config).expect("a file");
        world.lab.weft_args(&["run", "-d", "--name", "web", "--net", "net", "-p", "8080:80", "--", "nginx", "-c", &format!("{at}/nginx.conf")]).ok();
        eventually("nginx listens", || world.lab.weft("exec web ss -Hltn").stdout.contains("[::]:80 "));
        for (url, client, port) in [("http://192.168.88.1:8080/", "192.168.88.2", 25_678), ("http://[fd88::1]:8080/", "fd88::2", 25_679)] {
            assert_eq!(world.lan.run(&format!("curl -s -g -m 5 --local-port {port} {url}")).ok(), "Welcome to nginx!\n");
            let line = format!("{client} {port} GET / HTTP/1.1");
            eventually("the log has the client", || std::fs::read_to_string(directory.join("access.log")).unwrap_or_default().contains(&line));
        }
    }
}

fn bindings() {
    let world = world();
    world.sandbox("web", WHO, 80, &["-p", "192.168.88.1:5555:80", "-p", "80"]);
    assert!(curl(&world.lan, "http://192.168.88.1:5555/").starts_with("192.168.88.2|"));
    assert!(curl(&world.lab.host, "http://127.0.0.1:5555/").is_empty(), "only on that address");
    let listed = world.lab.weft("publish ls --json").json();
    let random = listed.as_array().expect("a list").iter().filter_map(|entry| entry["host"].as_str()?.strip_prefix("0.0.0.0:")).next().expect("a random port").to_owned();
    assert!(curl(&world.lan, &format!("http://192.168.88.1:{random}/")).starts_with("192.168.88.2|"));
    // P5: -P publishes what is exposed.
    world.lab.weft("run -d --name all --net net --expose 80 --expose 53/udp -P -- sleep 100").ok();
    let listed = world.lab.weft("publish ls --json").json();
    let of_all: Vec<_> = listed.as_array().expect("a list").iter().filter(|entry| entry["sandbox"] == "all").map(|entry| format!("{}", entry["protocol"])).collect();
    assert_eq!(of_all.len(), 4, "both ports over both families: {listed}");
    assert!(world.lab.weft("run -d --net net -P -- true").fails().contains("--expose"));
    // The port is taken: nothing of the second sandbox is left, the first goes on.
    let error = world.lab.weft(&format!("run -d --name two --net net -p 7000:80 -p {random}:80 -- sleep 100")).fails();
    assert!(error.contains("port is already allocated") && error.contains(&random), "{error}");
    assert!(!world.lab.weft("ps -a").ok().contains("two"));
    world.lab.weft("run -d --name three --net net -p 7000:80 -- sleep 100").ok();
    assert!(curl(&world.lan, "http://192.168.88.1:5555/").starts_with("192.168.88.2|"));
    for bad in ["x:80", "80:80/sctp", "1.2.3:80:80", "9-8:80"] {
        assert!(world.lab.weft(&format!("run -d --net net -p {bad} -- true")).fails().contains(bad));
    }
    let error = world.lab.weft("run -d --net net -p 203.0.113.9:99:80 -- true").fails();
    assert!(error.contains("203.0.113.9"), "{error}");
}

fn udp_and_ranges() {
    let world = world();
    world.sandbox("dns", ECHO, 53, &["-p", "5300:53/udp"]);
    for (to, seen) in [("192.168.88.1", "192.168.88.2"), ("fd88::1", "fd88::2")] {
        for size in [1, 9000] {
            let answer = world.lan.command("python3").args(["-c", ASK, to, "5300", &size.to_string()]).output().expect("python3");
            assert_eq!(String::from_utf8_lossy(&answer.stdout).trim(), format!("{seen} {size}"));
        }
    }
    world.lab.weft("run -d --name many --net net -p 9000-9999:9000-9999 -- sleep 1000").ok();
    assert_eq!(world.lab.weft("publish ls many --json").json().as_array().map(Vec::len), Some(2000), "a thousand ports over two families");
    world.lab.weft("rm -f many").ok();
    assert_eq!(world.lab.weft("publish ls --json").json().as_array().map(Vec::len), Some(2));
}

fn hairpin() {
    let world = world();
    world.sandbox("web", WHO, 80, &["-p", "8080:80"]);
    world.client(&[]);
    assert!(!world.in_c("curl -s -m 5 http://192.168.88.1:8080/").ok().is_empty(), "a peer, by the published port");
    assert!(!world.lab.weft("exec web curl -s -m 5 http://192.168.88.1:8080/").ok().is_empty(), "itself");
}

fn firewall() {
    let world = world();
    world.sandbox("web", WHO, 80, &["-p", "8080:80"]);
    assert!(!curl(&world.lan, "http://192.168.88.1:8080/").is_empty());
    world.lab.host.sh("nft 'add table inet t; add chain inet t in { type filter hook input priority 0; }; add rule inet t in tcp dport 8080 drop'").ok();
    assert!(world.lan.run("curl -s -m 1 http://192.168.88.1:8080/").stdout.is_empty(), "the host's INPUT chain decides");
}

fn apart() {
    let mut world = world();
    world.serve_on_lan(WHO, 80);
    world.sandbox("web", WHO, 80, &[]);
    world.lab.weft("network create other --subnet 172.31.0.0/16").ok();
    world.lab.weft("network create inner --subnet 172.29.0.0/16 --internal").ok();
    world.lab.weft("run -d --name o --net other -- sleep 1000").ok();
    world.lab.weft("run -d --name i --net inner -- sleep 1000").ok();
    world.lab.weft("exec o curl -s -m 2 http://172.30.0.2/").fails();
    world.lab.weft("exec o curl -s -m 3 http://192.168.88.2/").ok();
    world.lab.weft("exec i ip route add default via 172.29.0.1").ok();
    world.lab.weft("exec i curl -s -m 2 http://192.168.88.2/").fails();
    world.lab.weft("exec i ping -c 1 -W 1 192.168.88.2").fails();
    world.lab.weft("exec o curl -s -m 2 http://127.0.0.1:8080/").fails();
    let error = world.lab.weft("run -d --net inner -p 80:80 -- true").fails();
    assert!(error.contains("internal"), "{error}");
}

fn bulk() {
    const FILES: &str = "import http.server,sys,hashlib\nclass H(http.server.SimpleHTTPRequestHandler):\n def do_PUT(s):\n  n=int(s.headers['Content-Length']); h=hashlib.sha256()\n  while n:\n   d=s.rfile.read(min(n,1<<20)); n-=len(d); h.update(d)\n  b=h.hexdigest().encode(); s.send_response(200); s.send_header('Content-Length',str(len(b))); s.end_headers(); s.wfile.write(b)\nhttp.server.ThreadingHTTPServer(('0.0.0.0',int(sys.argv[1])),lambda *a: H(*a,directory=sys.argv[2] if len(sys.argv)>2 else '.')).serve_forever()\n";
    let world = world();
    let dir = world.lab.dir().to_string_lossy().into_owned();
    let made = world.lab.host.sh(&format!("openssl rand 1073741824 > {dir}/big && sha256sum {dir}/big")).ok();
    let sum = made.split(' ').next().expect("a sum").to_owned();
    world.lab.weft_args(&["run", "-d", "--name", "web", "--net", "net", "-p", "8080:80", "--", "python3", "-c", FILES, "80", &dir]).ok();
    let lan = world.lan.command("python3").args(["-c", FILES, "80", &dir]).stderr(std::process::Stdio::null()).spawn().expect("python3");
    let _lan = Background(lan);
    world.client(&[]);
    eventually("both serve", || world.in_c("curl -s -m 2 -o /dev/null http://192.168.88.2/").code == Some(0) && world.lan.run("curl -s -m 2 -o /dev/null http://192.168.88.1:8080/").code == Some(0));
    let fetched = |text: String| text.split(' ').next().unwrap_or_default().to_owned();
    assert_eq!(fetched(world.in_c("curl -s -m 120 http://192.168.88.2/big | sha256sum").ok()), sum, "fetched from outside");
    assert_eq!(world.in_c(&format!("curl -s -m 60 -T {dir}/big http://192.168.88.2/x")).ok(), sum, "sent outside");
    assert_eq!(fetched(world.lan.sh("curl -s -m 120 http://192.168.88.1:8080/big | sha256sum").ok()), sum, "fetched from the sandbox");
    assert_eq!(world.lan.sh(&format!("curl -s -m 60 -T {dir}/big http://192.168.88.1:8080/x")).ok(), sum, "sent to the sandbox");
    assert_eq!(fetched(world.in_c("curl -s -m 120 http://192.168.88.1:8080/big | sha256sum").ok()), sum, "hairpin");
}

fn live() {
    let mut world = world();
    world.sandbox("web", WHO, 80, &["-p", "8080:80"]);
    world.lab.weft("publish add web 8081:80 8082:80").ok();
    assert!(!curl(&world.lan, "http://192.168.88.1:8082/").is_empty());
    world.lab.weft("publish rm web 8081:80").ok();
    assert!(curl(&world.lan, "http://192.168.88.1:8081/").is_empty());
    assert!(world.lab.weft("publish rm web 8081:80").fails().contains("8081"));
    // What is published outlives the daemon, however it ends.
    world.lab.kill_daemon();
    assert!(curl(&world.lan, "http://192.168.88.1:8080/").is_empty());
    world.lab.start_daemon();
    eventually("it is published again", || !curl(&world.lan, "http://192.168.88.1:8080/").is_empty());
    assert!(!curl(&world.lan, "http://192.168.88.1:8082/").is_empty() && curl(&world.lan, "http://192.168.88.1:8081/").is_empty());
    world.lab.weft("rm -f web").ok();
    assert!(curl(&world.lan, "http://192.168.88.1:8080/").is_empty());
    assert!(!world.lab.host.sh("ss -Hltn").stdout.contains(":8080 "), "the listener went with it");
}

fn errors() {
    let world = world();
    world.client(&[]);
    assert_eq!(world.in_c("curl -s -m 5 http://192.168.88.2:81/").code, Some(7), "refused at once");
    assert_eq!(world.in_c("curl -s -m 9 http://192.168.88.77/").code, Some(7), "no such host: told, not timed out");
    let answer = world.lab.weft_args(&["exec", "c", "python3", "-c", ASK, "192.168.88.2", "7777", "10"]).ok();
    assert_eq!(answer.trim(), "ConnectionRefusedError", "the port's refusal came back");
    assert_eq!(world.in_c("curl -s -m 5 http://172.30.0.1/").code, Some(7), "the gateway has no ports of its own");
}

fn footprint() {
    let mut world = world();
    world.serve_on_lan(WHO, 80);
    let before = world.lab.footprint();
    let capture = world.lab.dir().join("lan.pcap");
    let sniffer = world.lan.command("tshark").args(["-q", "-i", "eth0", "-w"]).arg(&capture).stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null()).spawn().expect("tshark");
    let sniffer = Background(sniffer);
    eventually("tshark captures", || {
        world.lan.run("ping -c 1 -W 1 192.168.88.1").ok();
        std::fs::metadata(&capture).is_ok_and(|file| file.len() > 400)
    });
    world.sandbox("web", WHO, 80, &["-p", "8080:80"]);
    world.client(&[]);
    assert_eq!(before, world.lab.footprint(), "while it runs");
    for _ in 0..5 {
        world.in_c("curl -s -m 5 http://192.168.88.2/").ok();
        assert!(!curl(&world.lan, "http://192.168.88.1:8080/").is_empty());
    }
    world.in_c("ping -c 1 -W 2 192.168.88.2").ok();
    eventually("the capture has the last packets", || world.lan.run(&format!("tshark -r {} -Y icmp", capture.display())).stdout.contains("192.168.88.1"));
    drop(sniffer);
    let leaked = world.lan.run(&format!("tshark -r {} -Y ip.addr==172.30.0.0/16||ipv6.addr==fd00::/9&&!ipv6.addr==fd88::/16", capture.display())).stdout;
    assert!(leaked.is_empty(), "{leaked}");
    world.lab.weft("rm -f web c").ok();
    assert_eq!(before, world.lab.footprint(), "afterwards");
}
