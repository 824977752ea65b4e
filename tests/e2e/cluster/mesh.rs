//! Services of a whole cluster: ports that each node answers, and virtual addresses that lead to all nodes. SPEC rows: C13,
//! O7, V17, X5.

use std::{collections::BTreeMap, fs, path::PathBuf, thread, time::Duration};

use weft_tests::{
    ns::{Background, Ns},
    run::{Ran, eventually, run},
};

use super::{Cluster, LEASE};

/// Answers over TCP with its own name and the client's address; of either family.
const WEB: &str = "import socket,sys\ns=socket.socket(socket.AF_INET6)\ns.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)\ns.bind(('::',80))\ns.listen(64)\nwhile True:\n c,a=s.accept()\n try:\n  c.recv(1000)\n  b=(sys.argv[1]+'|'+a[0].replace('::ffff:','')).encode()\n  c.sendall(b'HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n'%len(b)+b)\n except OSError: pass\n c.close()\n";
/// The same over UDP, followed by what it was asked.
const UDP: &str = "import socket,sys\ns=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)\ns.bind(('::',53))\nwhile True:\n d,a=s.recvfrom(65535)\n s.sendto((sys.argv[1]+'|'+a[0].replace('::ffff:','')+'|').encode()+d,a)\n";
const ASK: &str = "import socket,sys\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\ns.settimeout(5)\ns.connect((sys.argv[1],int(sys.argv[2])))\ns.send(b'x'*int(sys.argv[3]))\nd=s.recv(65535)\nprint(d.decode().rstrip('x').rstrip('|')+'|'+str(d.count(b'x')))\n";

/// Takes 5 MB, and then gives 20 MB.
const BULK: &str = "import socket\ns=socket.socket()\ns.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)\ns.bind(('',90))\ns.listen(64)\nwhile True:\n c,a=s.accept()\n n=0\n while n<5000000:\n  d=c.recv(65536)\n  if not d: break\n  n+=len(d)\n c.sendall(b'y'*20000000)\n c.close()\n";
const FETCH: &str = "import socket,sys\ns=socket.create_connection((sys.argv[1],int(sys.argv[2])),20)\ns.sendall(b'x'*5000000)\nn=0\nwhile True:\n d=s.recv(1<<20)\n if not d: break\n assert d==b'y'*len(d)\n n+=len(d)\nprint(n)\n";

/// How often each answered; whom all saw must be `from`.
fn hits(said: &str, from: &str) -> BTreeMap<String, usize> {
    let mut hits = BTreeMap::new();
    for line in said.lines().filter(|line| !line.is_empty()) {
        let (name, seen) = line.split_once('|').unwrap_or_else(|| panic!("{said}"));
        assert_eq!(seen, from, "{said}");
        *hits.entry(name.to_owned()).or_default() += 1;
    }
    hits
}

fn curls(count: usize, url: &str) -> String {
    format!("for i in $(seq {count}); do curl -gsS -m 10 {url} || exit 1; echo; done")
}

/// Curls without end, each line of what they say in a file.
struct Looping {
    shell: Background,
    said: PathBuf,
}

impl Looping {
    fn start(client: &Ns, said: PathBuf, url: &str) -> Self {
        let output = fs::File::create(&said).expect("a file");
        let script = format!("while true; do curl -gsS -m 10 {url} || echo lost; echo; sleep 0.02; done");
        let shell = client.command("sh").args(["-c", &script]).stdout(output).spawn().map(Background).expect("a loop");
        let this = Self { shell, said };
        this.goes_on();
        this
    }

    fn lines(&self) -> usize {
        fs::read_to_string(&self.said).map_or(0, |said| said.lines().count())
    }

    fn goes_on(&self) {
        let before = self.lines();
        eventually("the loop goes on", || self.lines() >= before + 10);
    }

    fn end(self) -> String {
        self.goes_on();
        drop(self.shell);
        fs::read_to_string(self.said).expect("the file")
    }
}

fn replica(cluster: &Cluster, node: usize, name: &str, options: &[&str], program: &str) -> Ran {
    let tail = ["host", "python3", "-c", program, name];
    cluster.docker_args(node, &[&["run", "-d", "--name", name, "--network", "mesh"], options, &tail].concat())
}

fn mesh_with(nodes: usize, options: &str) -> Cluster {
    let cluster = Cluster::start(nodes);
    cluster.docker(0, &format!("network create -d overlay --ingress {options} mesh")).ok();
    eventually("all have it", || (0..nodes).all(|node| cluster.has(node, "mesh")));
    cluster
}

fn at(cluster: &Cluster, node: usize, port: u16) -> String {
    format!("http://{}:{port}", cluster.fabric.nodes[node].underlay())
}

fn answers(client: &Ns, url: &str) -> bool {
    client.sh(&format!("curl -gs -m 3 {url}")).code == Some(0)
}

/// X5, V17, O7: each node answers; replicas on two of them, one of which may be elsewhere, see who it was.
pub(super) fn every_node_answers() {
    let mut cluster = mesh_with(3, "");
    let client = cluster.fabric.outsider(100);
    let from = "192.168.88.100";
    let error = cluster.docker(1, "network create -d overlay --ingress other").fails();
    assert!(error.contains("ingress network (mesh) is already present"), "{error}");
    replica(&cluster, 0, "w1", &["--network-alias", "web", "-p", "8080:80"], WEB).ok();
    replica(&cluster, 1, "w2", &["--network-alias", "web", "-p", "8080:80"], WEB).ok();
    let addresses = |cluster: &Cluster| cluster.weft(2, "publish ls --json").json()[0]["inside"].as_str().map_or(0, |inside| inside.split(',').count());
    eventually("the third knows both", || addresses(&cluster) == 2);
    for node in 0..3 {
        eventually("both answer by it", || hits(&client.sh(&curls(2, &at(&cluster, node, 8080))).stdout, from).len() == 2);
        let seen = hits(&client.sh(&curls(20, &at(&cluster, node, 8080))).ok(), from);
        assert_eq!(seen, BTreeMap::from([("w1".into(), 10), ("w2".into(), 10)]), "node {node}");
    }
    // Whom a replica could not answer is seen as the node that it came in by.
    let own = cluster.fabric.nodes[2].lab.host.sh(&curls(4, "http://localhost:8080")).ok();
    assert_eq!(hits(&own, "192.168.88.213").len(), 2, "{own}");
    let v6 = client.sh(&curls(4, "http://[fd88::3]:8080")).ok();
    assert_eq!(hits(&v6, "192.168.88.213").len(), 2, "{v6}");
    let shown = cluster.weft(2, "publish ls").ok();
    assert!(shown.contains("web") && shown.contains("0.0.0.0:8080"), "{shown}");
    let ps = cluster.docker(0, "ps").ok();
    assert!(ps.contains("8080->80/tcp"), "{ps}");
    // Another service cannot have that port, on whichever node; other ports it can.
    let error = replica(&cluster, 2, "other", &["-p", "8080:80"], WEB).fails();
    assert!(error.contains("port '8080' is already in use by service 'web' as an ingress port"), "{error}");
    cluster.docker(2, "rm other").ok();
    // The daemon of a replica's node is started again: connections go on to be made.
    cluster.fabric.nodes[0].lab.kill_daemon();
    cluster.start_daemon(0, LEASE);
    for node in 0..3 {
        eventually("it answers again", || answers(&client, &at(&cluster, node, 8080)));
        eventually("by both", || hits(&client.sh(&curls(20, &at(&cluster, node, 8080))).ok(), from).len() == 2);
    }
}

/// X5: of services that are started at the same moment for one port, each on a node of its own, one has it; the others are told
/// whose it is, and leave nothing behind. Those that name no port each get one.
pub(super) fn races() {
    let mut cluster = mesh_with(3, "");
    let client = cluster.fabric.outsider(100);
    let start_all = |round: usize, port: &str| -> Vec<Ran> {
        let start = |node: usize| {
            let (name, cluster) = (format!("r{round}n{node}"), &cluster);
            move || replica(cluster, node, &name, &["-p", port], WEB)
        };
        thread::scope(|scope| (0..3).map(|node| scope.spawn(start(node))).collect::<Vec<_>>().into_iter().map(|thread| thread.join().expect("docker")).collect())
    };
    let remove = |round: usize| {
        for node in 0..3 {
            cluster.docker(node, &format!("rm -f r{round}n{node}"));
        }
    };
    let claims = || cluster.etcdctl(0, "get --prefix --keys-only /docker/network/v1.0/weft/mesh/").ok().split_whitespace().count();
    for round in 0..8 {
        let ran = start_all(round, "8080:80");
        let winners: Vec<_> = (0..3).filter(|node| ran[*node].code == Some(0)).collect();
        assert_eq!(winners.len(), 1, "round {round}: {ran:?}");
        let winner = format!("r{round}n{}", winners[0]);
        let refused = format!("port '8080' is already in use by service '{winner}' as an ingress port");
        for node in (0..3).filter(|node| *node != winners[0]) {
            assert!(ran[node].stderr.contains(&refused), "round {round}: {ran:?}");
            assert!(!cluster.weft(node, "publish ls").ok().contains(&format!("r{round}n{node}")), "nothing of it is left");
        }
        assert_eq!(cluster.members(winners[0], "mesh").iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), [winner.as_str()]);
        for node in 0..3 {
            eventually("each leads to it", || hits(&client.sh(&curls(1, &at(&cluster, node, 8080))).stdout, "192.168.88.100").contains_key(&winner));
        }
        assert_eq!(claims(), 1);
        remove(round);
        eventually("the port is given back", || claims() == 0);
        for node in 0..3 {
            eventually("everybody knows", || cluster.weft(node, "publish ls --json").json() == serde_json::json!([]));
        }
    }
    let ran = start_all(8, "80");
    assert!(ran.iter().all(|ran| ran.code == Some(0)), "{ran:?}");
    let mut ports: Vec<_> = (0..3).map(|node| cluster.docker(node, &format!("port r8n{node} 80/tcp")).ok().lines().next().map(str::to_owned)).collect();
    ports.sort();
    assert_eq!(ports, ["0.0.0.0:30000", "0.0.0.0:30001", "0.0.0.0:30002"].map(|port| Some(port.to_owned())));
    remove(8);
    eventually("all are given back", || claims() == 0);
    // A node that dies keeps its port from others for no longer than its lease.
    replica(&cluster, 0, "dying", &["-p", "8080:80"], WEB).ok();
    cluster.fabric.nodes[0].lab.kill_daemon();
    eventually("the port is free again", || {
        cluster.docker(1, "rm -f next");
        replica(&cluster, 1, "next", &["-p", "8080:80"], WEB).code == Some(0)
    });
    eventually("it is answered", || answers(&client, &at(&cluster, 2, 8080)));
}

/// X5: a replica that ends loses no new connection; a node that dies none, but those that were open.
pub(super) fn the_dead_leave() {
    let mut cluster = mesh_with(3, "");
    let client = cluster.fabric.outsider(100);
    for node in 0..3 {
        replica(&cluster, node, &format!("w{node}"), &["--network-alias", "web", "-p", "8080:80"], WEB).ok();
    }
    let url = |cluster: &Cluster, node| at(cluster, node, 8080);
    eventually("all answer by all", || (0..3).all(|node| client.sh(&curls(6, &url(&cluster, node))).stdout.split("w2").count() > 1));
    let said = cluster.fabric.nodes[0].lab.dir().join("looping");
    let lost = |said: &str| said.lines().filter(|line| line.contains("lost")).count();
    let stopping = Looping::start(&client, said.clone(), &url(&cluster, 0));
    cluster.docker(2, "rm -f w2").ok();
    eventually("it left", || (0..3).all(|node| !cluster.weft(node, "publish ls").stdout.contains(',') || cluster.weft(node, "publish ls --json").json()[0]["inside"].as_str().is_some_and(|inside| inside.split(',').count() == 2)));
    client.sh(&curls(20, &url(&cluster, 2))).ok();
    let text = stopping.end();
    assert!(lost(&text) <= 1 && text.contains("w2|") && text.contains("w0|"), "at most the one that was open: {text}");
    // The node of a replica dies; what is asked in the meantime waits a moment, and goes to the other.
    let dying = Looping::start(&client, said, &url(&cluster, 0));
    cluster.fabric.nodes[1].lab.kill_daemon();
    cluster.fabric.nodes[1].lab.host.sh("ip link set eth0 down").ok();
    eventually("it is missed", || cluster.node_names(0).len() == 2);
    let said = dying.end();
    assert!(lost(&said) <= 1 && said.contains("w0|"), "at most the one that was open: {said}");
    for node in [0, 2] {
        eventually("w0 alone is left", || hits(&client.sh(&curls(10, &url(&cluster, node))).ok(), "192.168.88.100") == BTreeMap::from([("w0".into(), 10)]));
    }
    // With the last goes the port.
    cluster.docker(0, "rm -f w0").ok();
    eventually("nobody listens", || client.sh(&format!("curl -s -m 3 {}; echo $?", url(&cluster, 2))).stdout.trim() == "7");
}

/// X5: datagrams, with fragments; IPv6 clients of IPv6 replicas; large transfers.
pub(super) fn datagrams_and_ipv6() {
    let cluster = mesh_with(2, "--subnet 10.0.7.0/24 --subnet fd07::/64 --ipv6");
    let client = cluster.fabric.outsider(100);
    replica(&cluster, 0, "w1", &["-p", "8080:80", "-p", "5300:53/udp"], WEB).ok();
    eventually("IPv6", || answers(&client, "http://[fd88::2]:8080"));
    let seen = client.sh(&curls(5, "http://[fd88::2]:8080")).ok();
    assert_eq!(hits(&seen, "fd88::100"), BTreeMap::from([("w1".into(), 5)]));
    cluster.docker(0, "rm -f w1").ok();
    replica(&cluster, 0, "d1", &["-p", "5300:53/udp"], UDP).ok();
    let ask = |port: u16, bytes: usize| run(client.command("python3").args(["-c", ASK, &cluster.fabric.nodes[1].underlay(), &port.to_string(), &bytes.to_string()])).stdout;
    replica(&cluster, 0, "bulk", &["-p", "9000:90"], BULK).ok();
    let fetch = || run(client.command("python3").args(["-c", FETCH, &cluster.fabric.nodes[1].underlay(), "9000"])).stdout;
    eventually("all bytes come, by the tunnel", || fetch().trim() == "20000000");
    for bytes in [1, 1400, 9000] {
        eventually("a datagram comes back", || ask(5300, bytes).trim() == format!("d1|192.168.88.100|{bytes}"));
    }
    let answered = run(client.command("python3").args(["-c", ONE_BY_ONE, &cluster.fabric.nodes[1].underlay(), "5300"])).stdout;
    assert_eq!(answered.trim(), "20", "each has its answer before the next is asked");
}

/// Twenty questions of different lengths, and how many got the answer to themselves.
const ONE_BY_ONE: &str = "
import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(20)
answered = 0
for length in range(100, 120):
    client.sendto(b'x' * length, (sys.argv[1], int(sys.argv[2])))
    answered += client.recv(65535).count(b'x') == length
print(answered)
";

/// X5: a port that another program has on one node is said there; the others go on.
pub(super) fn a_port_that_is_taken_on_one_node() {
    let cluster = mesh_with(2, "");
    let client = cluster.fabric.outsider(100);
    let squatter = cluster.fabric.nodes[1].lab.host.spawn("python3 -m http.server 9090");
    eventually("it listens", || cluster.fabric.nodes[1].lab.host.sh("ss -Hltn").stdout.contains(":9090 "));
    replica(&cluster, 0, "w1", &["--network-alias", "web", "-p", "9090:80"], WEB).ok();
    eventually("the first answers", || answers(&client, &at(&cluster, 0, 9090)));
    eventually("the second says why not", || cluster.log(1).contains("does not answer a port of the mesh"));
    let doctor = cluster.weft(1, "doctor").stdout;
    assert!(doctor.contains("9090") && doctor.contains("web"), "{doctor}");
    let rules = cluster.weft(1, "nat show").ok();
    let rule = rules.lines().find(|line| line.contains("not answered here")).unwrap_or_else(|| panic!("{rules}"));
    assert!(rule.contains("0.0.0.0 ") && rule.contains("dpt:9090 to:10.0.0.2:80 (not answered here: Bind for 0.0.0.0:9090 failed: port is already allocated)"), "{rule}");
    let error = cluster.weft(0, "publish add w1 203.0.113.9:7000:80").fails();
    assert!(error.contains("203.0.113.9 is no address of this host") && error.contains("ip -brief address"), "{error}");
    drop(squatter);
    // With a later change, or the next renewal of its lease, it takes part.
    eventually("it answers too", || client.sh(&curls(1, &at(&cluster, 1, 9090))).stdout.contains("w1|"));
    // What names an address of the host is this node's alone.
    replica(&cluster, 0, "alone", &["-p", "192.168.88.211:7000:80"], WEB).ok();
    eventually("it answers", || answers(&client, &at(&cluster, 0, 7000)));
    assert_eq!(client.sh(&format!("curl -s -m 3 {}; echo $?", at(&cluster, 1, 7000))).stdout.trim(), "7");
}

/// Sends a byte and waits for it to come back, again and again, over one connection; a line for each, and `lost` at its end.
const HOLD: &str = "
import socket, sys, time
held = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
try:
    while held.send(b'x') and held.recv(1):
        print('.', flush=True)
        time.sleep(0.05)
except OSError as error:
    print(error)
print('lost', flush=True)
";
/// Sends back what it gets.
const ECHO: &str = "import socketserver
class Echo(socketserver.BaseRequestHandler):
 def handle(self):
  while d := self.request.recv(1000): self.request.sendall(d)
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(('', 90), Echo).serve_forever()
";

/// X5: connections that are open when the store goes live on without it, and when it comes back.
pub(super) fn the_store_goes_and_comes_back() {
    let mut cluster = mesh_with(2, "");
    let client = cluster.fabric.outsider(100);
    replica(&cluster, 0, "echo", &["-p", "9100:90"], ECHO).ok();
    let ip = |cluster: &Cluster, node: usize| cluster.fabric.nodes[node].underlay();
    let said = |cluster: &Cluster, node: usize| cluster.fabric.nodes[node].lab.dir().join("held");
    let lines = |cluster: &Cluster, node: usize| fs::read_to_string(said(cluster, node)).unwrap_or_default();
    let holders: Vec<_> = (0..2)
        .map(|node| {
            eventually("it answers", || client.sh(&format!("python3 -c \"import socket; socket.create_connection(('{}', 9100), 3)\"", ip(&cluster, node))).code == Some(0));
            let output = fs::File::create(said(&cluster, node)).expect("a file");
            client.command("python3").args(["-c", HOLD, &ip(&cluster, node), "9100"]).stdout(output).spawn().map(Background).expect("a client")
        })
        .collect();
    let goes_on = |cluster: &Cluster| {
        for node in 0..2 {
            let before = lines(cluster, node).lines().count();
            eventually("the connection goes on", || lines(cluster, node).lines().count() >= before + 10);
            assert!(!lines(cluster, node).contains("lost"), "by node {node}: {}", lines(cluster, node));
        }
    };
    let hits = |cluster: &Cluster, node: usize| -> u64 { cluster.weft(node, "publish ls --json").json().as_array().into_iter().flatten().filter_map(|entry| entry["hits"].as_u64()).sum() };
    goes_on(&cluster);
    let before = [0, 1].map(|node| hits(&cluster, node));
    cluster.stores.iter_mut().for_each(|store| *store = None);
    eventually("the store is missed", || (0..2).all(|node| cluster.log(node).contains("store cannot be used")));
    // Longer than the lease.
    thread::sleep(Duration::from_secs(6));
    goes_on(&cluster);
    (0..2).for_each(|node| cluster.start_store(node));
    eventually("sharing goes on", || (0..2).all(|node| cluster.sleeper(node, &format!("s{node}"), "mesh").code == Some(0) || cluster.weft(node, &format!("inspect s{node}")).code == Some(0)));
    eventually("all see all", || (0..2).all(|node| cluster.members(node, "mesh").len() == 3));
    goes_on(&cluster);
    assert_eq!([0, 1].map(|node| hits(&cluster, node)), before, "the listeners are those from before");
    // Both are cut off from it until their leases have ended: what was theirs is gone from the store when they are back.
    let told = |cluster: &Cluster, what: &str| [0, 1].map(|node| cluster.log(node).matches(what).count());
    let more = |cluster: &Cluster, what: &str, before: [usize; 2]| told(cluster, what).iter().zip(before).all(|(now, before)| *now > before);
    let (away, joined) = (told(&cluster, "store cannot be used"), told(&cluster, "joined the cluster as"));
    // Its members still hear each other, and the test asks beside the wall.
    let cut = "nft add table inet fw && nft add chain inet fw in '{ type filter hook input priority 0; }' && nft add rule inet fw in ip daddr 192.168.88.0/24 tcp dport 2379 drop";
    cluster.fabric.nodes.iter().for_each(|node| drop(node.lab.host.sh(cut).ok()));
    eventually("the store is missed", || more(&cluster, "store cannot be used", away));
    eventually("the leases end", || !cluster.etcdctl(0, "get --prefix --keys-only /docker/network/v1.0/").ok().contains("/weft/node/"));
    goes_on(&cluster);
    cluster.fabric.nodes.iter().for_each(|node| drop(node.lab.host.sh("nft delete table inet fw").ok()));
    eventually("both have joined anew", || more(&cluster, "joined the cluster as", joined));
    eventually("all see all", || (0..2).all(|node| cluster.members(node, "mesh").len() == 3));
    goes_on(&cluster);
    assert_eq!([0, 1].map(|node| hits(&cluster, node)), before, "the listeners are those from before");
    // Who does not come back is missed when another lease has passed.
    cluster.fabric.nodes[0].lab.kill_daemon();
    eventually("it is missed", || cluster.node_names(1).len() == 1 && cluster.weft(1, "publish ls --json").json() == serde_json::json!([]));
    drop(holders);
}

/// X5 beside uplinks of packets: ports of the mesh are answered at the host's addresses, and that they are not at the uplink's is said.
pub(super) fn beside_uplinks_of_packets() {
    let mut cluster = Cluster::stores(3);
    for (node, uplink) in ["", "--uplink tap:weft0", "--uplink dev:eth0,addr=192.168.88.150/24"].into_iter().enumerate() {
        cluster.start_daemon(node, &format!("{LEASE} {uplink}"));
    }
    eventually("all know all", || (0..3).all(|node| cluster.node_names(node).len() == 3));
    cluster.docker(0, "network create -d overlay --ingress mesh").ok();
    eventually("all have it", || (0..3).all(|node| cluster.has(node, "mesh")));
    let client = cluster.fabric.outsider(100);
    for node in 0..3 {
        replica(&cluster, node, &format!("w{node}"), &["--network-alias", "web", "-p", "8080:80"], WEB).ok();
    }
    for node in 0..3 {
        eventually("all answer by it", || hits(&client.sh(&curls(6, &at(&cluster, node, 8080))).stdout, "192.168.88.100").len() == 3);
        let seen = hits(&client.sh(&curls(30, &at(&cluster, node, 8080))).ok(), "192.168.88.100");
        assert_eq!(seen, (0..3).map(|node| (format!("w{node}"), 10)).collect(), "node {node}");
        let own = cluster.fabric.nodes[node].lab.host.sh(&curls(6, "http://localhost:8080")).ok();
        assert_eq!(own.lines().filter(|line| !line.is_empty()).count(), 6, "{own}");
    }
    // The uplink's own address is another matter: there this node publishes for itself.
    assert!(!answers(&client, "http://192.168.88.150:8080"));
    for (node, not_at) in [(1, "not at 198.18.255.2 of uplink:weft0"), (2, "not at 192.168.88.150 of uplink:eth0")] {
        assert!(cluster.log(node).contains(not_at) && cluster.weft(node, "doctor").stdout.contains(not_at), "{}", cluster.log(node));
    }
    replica(&cluster, 2, "alone", &["-p", "192.168.88.150:7000:80"], WEB).ok();
    eventually("it answers", || answers(&client, "http://192.168.88.150:7000"));
}

/// C13 on a shared network: one virtual address on all nodes, with replicas on two, whoever asks.
pub(super) fn virtual_addresses() {
    let mut cluster = Cluster::start(3);
    cluster.weft(0, "network create -d overlay net").ok();
    eventually("shared", || (0..3).all(|node| cluster.has(node, "net")));
    for node in 0..2 {
        let name = format!("w{node}");
        let lab = &cluster.fabric.nodes[node].lab;
        lab.weft_args(&["run", "-d", "--name", &name, "--net", "net", "--network-alias", "web", "--vip", "--", "python3", "-c", WEB, &name]).ok();
    }
    cluster.sleeper(2, "c", "net").ok();
    let vip = |cluster: &Cluster, node: usize| cluster.weft(node, "vip ls --json").json()[0]["addresses"][0].as_str().map(str::to_owned);
    let count = |cluster: &Cluster, node: usize| cluster.weft(node, "vip ls --json").json()[0]["endpoints"].as_array().map_or(0, Vec::len);
    eventually("all know both", || (0..3).all(|node| count(&cluster, node) == 2));
    assert!(vip(&cluster, 0).is_some() && vip(&cluster, 0) == vip(&cluster, 1) && vip(&cluster, 1) == vip(&cluster, 2));
    let own = cluster.weft(2, "inspect c").json()[0]["endpoints"][0]["addresses"][0].as_str().expect("an address").split('/').next().expect("an address").to_owned();
    let ask = |cluster: &Cluster, curls: &str| cluster.fabric.nodes[2].lab.weft_args(&["exec", "c", "sh", "-c", curls]);
    eventually("it answers", || ask(&cluster, &curls(2, "http://web/")).code == Some(0));
    assert_eq!(hits(&ask(&cluster, &curls(20, "http://web/")).ok(), &own), BTreeMap::from([("w0".into(), 10), ("w1".into(), 10)]));
    // A name is the service's on all nodes, and its address nobody else's.
    let error = cluster.sleeper(2, "web", "net").fails();
    assert!(error.contains("web is a service with a virtual address"), "{error}");
    let taken = vip(&cluster, 0).expect("an address");
    let error = cluster.sleeper(2, "x", &format!("net:ip={taken}")).fails();
    assert!(error.contains("virtual address of service web"), "{error}");
    // One ends: no new connection is lost. A node dies: those to it wait until it is missed.
    cluster.weft(0, "rm -f w0").ok();
    assert_eq!(hits(&ask(&cluster, &curls(20, "http://web/")).ok(), &own), BTreeMap::from([("w1".into(), 20)]));
    let lab = &cluster.fabric.nodes[0].lab;
    lab.weft_args(&["run", "-d", "--name", "w0", "--net", "net", "--network-alias", "web", "--vip", "--", "python3", "-c", WEB, "w0"]).ok();
    eventually("both again", || count(&cluster, 2) == 2);
    assert_eq!(vip(&cluster, 2), Some(taken.clone()), "the address stays");
    cluster.fabric.nodes[1].lab.kill_daemon();
    eventually("it is missed", || count(&cluster, 2) == 1);
    assert_eq!(hits(&ask(&cluster, &curls(10, "http://web/")).ok(), &own), BTreeMap::from([("w0".into(), 10)]));
    // With the last it is given back, everywhere and in the store.
    cluster.fabric.nodes[0].lab.kill_daemon();
    eventually("given back", || cluster.weft(2, "vip ls --json").stdout.trim() == "[]");
    let left = cluster.etcdctl(2, "get --prefix --keys-only /docker/network/v1.0/weft/vip").ok();
    assert!(left.trim().is_empty(), "{left}");
}
