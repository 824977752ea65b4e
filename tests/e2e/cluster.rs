//! Clusters: nodes on one underlay that share overlay networks through a real etcd, started as the tutorial has it. SPEC
//! rows: V2, V4, V5, V7 to V10, V12 to V18, X5, C13.

mod encrypted;
mod faults;
mod mesh;
mod networks;
mod reach;

use std::{
    fs,
    path::PathBuf,
    process::{Child, Stdio},
    thread,
};

use libtest_mimic::Trial;
use serde_json::Value;
use weft_tests::{
    events::Events,
    ns::Background,
    run::{Ran, eventually, run, words},
    runner::{Need, test},
};

use super::vxlan::{Fabric, Node};

const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("etcd"), Need::Tool("etcdctl"), Need::Tool("ping")];
const TUTORIAL: &[Need] = &[Need::Root, Need::Tun, Need::Tool("etcd"), Need::Tool("etcdctl"), Need::Tool("ping"), Need::Tool("docker"), Need::Tool("redis-server"), Need::Tool("curl"), Need::Tool("python3")];
const ENCRYPTED: &[Need] = &[Need::Root, Need::Tun, Need::Tool("etcd"), Need::Tool("etcdctl"), Need::Tool("ping"), Need::Tool("docker"), Need::Tool("iperf3"), Need::Tool("tshark")];
const MESH: &[Need] = &[Need::Root, Need::Tun, Need::Tool("etcd"), Need::Tool("etcdctl"), Need::Tool("docker"), Need::Tool("curl"), Need::Tool("python3")];
const FIREWALL: &[Need] = &[Need::Root, Need::Tun, Need::Tool("etcd"), Need::Tool("etcdctl"), Need::Tool("nft")];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("cluster::v4_v7_to_v10_v12_to_v16_the_tutorial", TUTORIAL, tutorial),
        test("cluster::v10_races_have_one_winner", NEEDS, races),
        test("cluster::v18_a_dead_node", NEEDS, dead_node),
        test("cluster::v2_node_names", NEEDS, node_names),
        test("cluster::v5_doctor", FIREWALL, doctor),
        test("cluster::the_store_away", NEEDS, store_away),
        test("cluster::three_nodes_lose_their_leader", NEEDS, leader),
        test("cluster::an_endpoint_moves", NEEDS, moves),
        test("cluster::encrypted_on_the_wire", ENCRYPTED, encrypted::on_the_wire),
        test("cluster::encrypted_with_new_keys", ENCRYPTED, encrypted::rotation),
        test("cluster::encrypted_with_new_keys_by_itself", ENCRYPTED, encrypted::periodic),
        test("cluster::encrypted_with_damaged_keys", ENCRYPTED, encrypted::damaged),
        test("cluster::faults_a_killed_node", NEEDS, faults::killed_node),
        test("cluster::faults_of_the_store", NEEDS, faults::store),
        test("cluster::faults_a_partition", &[NEEDS, &[Need::Tool("nft")]].concat(), faults::partition),
        test("cluster::faults_an_underlay_that_loses", &[NEEDS, &[Need::Tool("nft"), Need::Tool("ethtool"), Need::Tool("python3"), Need::Tool("curl")]].concat(), faults::loss),
        test("cluster::tls_and_users", &[NEEDS, &[Need::Tool("openssl")]].concat(), reach::tls_and_users),
        test("cluster::over_ipv6", NEEDS, reach::ipv6),
        test("cluster::a_node_without_root", &[NEEDS, &[Need::Tool("setpriv")]].concat(), reach::rootless),
        test("cluster::internal_and_own_networks", NEEDS, internal_and_own),
        test("cluster::a_network_is_made_anew_unheard", MESH, networks::made_anew),
        test("cluster::a_number_that_is_taken_on_one_node", NEEDS, networks::number_taken),
        test("cluster::configurations_leave_shared_networks", NEEDS, networks::configurations),
        test("cluster::unused_networks_go_without_the_store", NEEDS, networks::pruned_without_the_store),
        test("cluster::mesh_x5_v17_o7_every_node_answers", MESH, mesh::every_node_answers),
        test("cluster::mesh_x5_races_have_one_winner", MESH, mesh::races),
        test("cluster::mesh_x5_the_dead_leave", MESH, mesh::the_dead_leave),
        test("cluster::mesh_x5_datagrams_and_ipv6", MESH, mesh::datagrams_and_ipv6),
        test("cluster::mesh_x5_a_port_that_is_taken_on_one_node", MESH, mesh::a_port_that_is_taken_on_one_node),
        test("cluster::mesh_x5_the_store_goes_and_comes_back", &[MESH, &[Need::Tool("nft")]].concat(), mesh::the_store_goes_and_comes_back),
        test("cluster::mesh_x5_beside_uplinks_of_packets", MESH, mesh::beside_uplinks_of_packets),
        test("cluster::vip_c13_one_address_on_all_nodes", MESH, mesh::virtual_addresses),
    ]
}

/// Nodes with an etcd and a daemon each. The stores end first.
struct Cluster {
    stores: Vec<Option<Background>>,
    fabric: Fabric,
}

/// Short, so that a dead node is soon known to be.
const LEASE: &str = "--cluster-lease 4s";

impl Cluster {
    /// Stores alone.
    fn stores(nodes: usize) -> Self {
        let mut this = Self { stores: Vec::new(), fabric: Fabric::new(nodes, 0, "") };
        this.stores = (0..nodes).map(|_| None).collect();
        (0..nodes).for_each(|node| this.start_store(node));
        eventually("etcd is healthy", || this.etcdctl(0, "endpoint health --cluster").code == Some(0));
        this
    }

    fn start(nodes: usize) -> Self {
        let mut this = Self::stores(nodes);
        (0..nodes).for_each(|node| this.start_daemon(node, LEASE));
        eventually("all know all", || (0..nodes).all(|node| this.node_names(node).len() == nodes));
        this
    }

    /// The flags of the tutorial, and a directory.
    fn start_store(&mut self, index: usize) {
        let node = &self.fabric.nodes[index];
        let (name, ip) = (name(index), node.underlay());
        let all: Vec<_> = self.fabric.nodes.iter().enumerate().map(|(index, node)| format!("{}=http://{}:2380", self::name(index), node.underlay())).collect();
        self.stores[index] = Some(node.lab.host.spawn(&format!(
            "etcd --name {name} --initial-advertise-peer-urls http://{ip}:2380 --listen-peer-urls http://{ip}:2380 \
             --listen-client-urls http://{ip}:2379,http://127.0.0.1:2379 --advertise-client-urls http://{ip}:2379 \
             --initial-cluster-token etcd-cluster --initial-cluster {} --initial-cluster-state new --data-dir {}",
            all.join(","),
            node.lab.dir().join("etcd").display()
        )));
    }

    fn options(&self, index: usize, more: &str) -> String {
        let ip = self.fabric.nodes[index].underlay();
        // Its own member first; all, so that it outlives that one.
        let mut members = vec![format!("{ip}:2379")];
        members.extend(self.fabric.nodes.iter().map(Node::underlay).filter(|other| *other != ip).map(|other| format!("{other}:2379")));
        format!("--cluster-store etcd://{} --cluster-advertise {ip}:2375 --node {} {more}", members.join(","), name(index))
    }

    fn start_daemon(&mut self, index: usize, more: &str) {
        let options = self.options(index, more);
        self.fabric.nodes[index].lab.start_daemon_with(&options);
    }

    fn etcdctl(&self, index: usize, line: &str) -> Ran {
        run(self.fabric.nodes[index].lab.host.command("etcdctl").env("ETCDCTL_API", "3").args(words(line)))
    }

    fn weft(&self, index: usize, line: &str) -> Ran {
        self.fabric.nodes[index].lab.weft(line)
    }

    fn docker(&self, index: usize, line: &str) -> Ran {
        self.docker_args(index, &words(line))
    }

    fn docker_args(&self, index: usize, arguments: &[&str]) -> Ran {
        let lab = &self.fabric.nodes[index].lab;
        run(lab.host.command("docker").env("DOCKER_HOST", format!("unix://{}", lab.state_dir().join("api.sock").display())).env("DOCKER_CONFIG", lab.dir()).args(arguments))
    }

    fn node_names(&self, index: usize) -> Vec<String> {
        let nodes = self.fabric.nodes[index].lab.api("/v1/nodes");
        nodes.as_array().into_iter().flatten().filter_map(|node| node["name"].as_str().map(str::to_owned)).collect()
    }

    /// Name and first address of all who are in a network, as a node's Docker API has them.
    fn members(&self, index: usize, network: &str) -> Vec<(String, String)> {
        let view = self.fabric.nodes[index].lab.api(&format!("/v1.47/networks/{network}"));
        let text = |member: &Value, key: &str| member[key].as_str().unwrap_or_default().to_owned();
        let mut members: Vec<_> = view["Containers"].as_object().into_iter().flatten().map(|(_, member)| (text(member, "Name"), text(member, "IPv4Address"))).collect();
        members.sort();
        members
    }

    fn has(&self, index: usize, network: &str) -> bool {
        self.weft(index, "network ls").stdout.contains(&format!(" {network} "))
    }

    /// A sandbox that does nothing.
    fn sleeper(&self, index: usize, name: &str, net: &str) -> Ran {
        self.weft(index, &format!("run -d --name {name} --net {net} -- sleep 3600"))
    }

    fn pings(&self, index: usize, from: &str, to: &str) -> bool {
        self.weft(index, &format!("exec {from} ping -c 1 -W 1 {to}")).code == Some(0)
    }

    fn weft_args(&self, index: usize, arguments: &[&str]) -> Ran {
        self.fabric.nodes[index].lab.weft_args(arguments)
    }

    /// `weft LINE` that runs on, and the file that it writes to.
    fn background(&self, index: usize, line: &str, report: &str) -> (Child, PathBuf) {
        let lab = &self.fabric.nodes[index].lab;
        let path = lab.dir().join(report);
        let output = fs::File::create(&path).expect("a file");
        let mut command = lab.weft_command();
        (command.args(words(line)).stdin(Stdio::null()).stdout(output).stderr(Stdio::null()).spawn().expect("weft"), path)
    }

    fn log(&self, index: usize) -> String {
        self.fabric.nodes[index].lab.log()
    }
}

fn name(index: usize) -> String {
    format!("docker-node{}", index + 1)
}

/// A counter in redis, known by name alone, as the tutorial's flask has it: `GET /` counts.
const APP: &str = "import http.server, os, socket\n\
class App(http.server.BaseHTTPRequestHandler):\n\
\x20   def do_GET(self):\n\
\x20       s = socket.create_connection((os.environ['REDIS_HOST'], 6379), 5)\n\
\x20       s.sendall(b'INCR hits\\r\\n')\n\
\x20       hits = s.recv(99).decode().strip()[1:]\n\
\x20       body = f'Hello Container World! I have been seen {hits} times.\\n'.encode()\n\
\x20       self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)\n\
http.server.ThreadingHTTPServer(('', 5000), App).serve_forever()\n";

/// Chapters 3 and 4 of the tutorial, step by step: docker-node1 is index 0, docker-node2 index 1.
fn tutorial() {
    // V4: etcd with every flag; its health and its members.
    let mut cluster = Cluster::stores(2);
    let members = cluster.etcdctl(0, "member list").ok();
    assert!(members.contains("docker-node1") && members.contains("docker-node2"), "{members}");
    assert_eq!(cluster.etcdctl(1, "endpoint health --cluster").stderr.matches("is healthy").count(), 2);
    // V7: the first node tells of the second.
    cluster.start_daemon(0, LEASE);
    let events = Events::follow(&cluster.fabric.nodes[0].lab);
    cluster.start_daemon(1, LEASE);
    eventually("the log tells of it", || cluster.log(0).contains("docker-node2 joined"));
    eventually("an event tells of it", || events.tell(&["\"node join\"", "docker-node2"]));
    let list = cluster.weft(0, "node ls").ok();
    assert!(list.contains("docker-node1 *") && list.contains("192.168.88.212"), "{list}");
    // V8: a network of one is everybody's. V9: and in the store where Docker had it.
    let id = cluster.docker(0, "network create -d overlay my-overlay").ok().trim().to_owned();
    eventually("the other node has it", || cluster.has(1, "my-overlay"));
    assert_eq!(cluster.docker_args(1, &["network", "ls", "--no-trunc", "--filter", "name=my-overlay", "--format", "{{.ID}} {{.Driver}} {{.Scope}}"]).ok().trim(), format!("{id} overlay global"));
    let keys = cluster.etcdctl(1, "get --prefix --keys-only /docker/network/v1.0/network").ok();
    assert_eq!(keys.trim(), format!("/docker/network/v1.0/network/{id}"));
    assert!(!cluster.weft(0, "network ls").stdout.contains("docker_gwbridge"), "nobody needs it yet");
    // V10: redis on node 1, and on no other.
    cluster.docker_args(0, &["run", "-d", "--name", "redis", "--net", "my-overlay", "host", "redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""]).ok();
    let refused = cluster.docker(1, "run -d --name redis --net my-overlay host redis-server").fails();
    assert!(refused.contains("endpoint with name redis already exists in network my-overlay"), "{refused}");
    cluster.docker(1, "rm redis").ok();
    cluster.docker(0, "run -d --name test1 --network my-overlay host sleep 3600").ok();
    let refused = cluster.docker(1, "run -d --name test1 --network my-overlay host sleep 3600").fails();
    assert!(refused.contains("endpoint with name test1 already exists in network my-overlay"), "{refused}");
    cluster.docker(1, "rm test1").ok();
    cluster.docker(1, "run -d --name test2 --network my-overlay host sleep 3600").ok();
    for path in ["endpoint", "overlay/network", "ipam", "idm"] {
        assert!(!cluster.etcdctl(0, &format!("get --prefix --keys-only /docker/network/v1.0/{path}/")).ok().trim().is_empty(), "{path}");
    }
    // V12: all three, on both.
    let all = [("redis", "10.0.0.2/24"), ("test1", "10.0.0.3/24"), ("test2", "10.0.0.4/24")].map(|(name, ip)| (name.to_owned(), ip.to_owned()));
    for node in 0..2 {
        eventually("all are seen", || cluster.members(node, "my-overlay") == all);
    }
    // V13: the six pings of 3.5.8.
    for (node, from, to) in [(0, "test1", "10.0.0.4"), (1, "test2", "10.0.0.3"), (0, "test1", "test2"), (1, "test2", "test1"), (0, "test1", "redis"), (1, "test2", "redis")] {
        cluster.docker(node, &format!("exec {from} ping -c 2 -W 2 {to}")).ok();
    }
    // V14: the app on node 2 counts in redis on node 1.
    let app = cluster.fabric.nodes[1].lab.dir().join("app.py");
    fs::write(&app, APP).expect("a file");
    let app = app.to_string_lossy().into_owned();
    let run_app = |ports: &str| {
        cluster.docker(1, &format!("run -d {ports} --name flask-redis --network my-overlay -e REDIS_HOST=redis host python3 {app}")).ok();
        eventually("the app listens", || cluster.docker(1, "exec flask-redis ss -ltn").stdout.contains(":5000 "));
    };
    run_app("");
    cluster.docker(1, "exec flask-redis ping -c 1 -W 2 redis").ok();
    for count in 1..=3 {
        let seen = cluster.docker(1, "exec flask-redis curl -s -m 5 http://localhost:5000").ok();
        assert_eq!(seen, format!("Hello Container World! I have been seen {count} times.\n"));
    }
    // V15: without -p nobody outside is answered; with it, the host itself and the other node are.
    let curl = |node: usize, url: &str| cluster.fabric.nodes[node].lab.host.run(&format!("curl -s -m 5 {url}"));
    assert_eq!(curl(1, "http://localhost:5000").code, Some(7), "refused");
    cluster.docker(1, "rm -f flask-redis").ok();
    run_app("-p 5000:5000");
    let local = curl(1, "http://localhost:5000").ok();
    assert!(local.contains("seen 4 times"), "{local}");
    let other = curl(0, "http://192.168.88.212:5000").ok();
    assert!(other.contains("seen 5 times"), "{other}");
    // V16: the way out is a network of each node, and a second interface.
    for node in 0..2 {
        let list = cluster.docker_args(node, &["network", "ls", "--filter", "name=docker_gwbridge", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"]).ok();
        assert_eq!(list.trim(), "docker_gwbridge bridge local");
    }
    assert!(cluster.docker(0, "exec test1 ip route show default").ok().contains("dev eth1"));
    assert!(cluster.docker(0, "exec test1 ip -4 addr show eth0").ok().contains("10.0.0.3/24"));
    cluster.docker(0, "exec test1 curl -s -m 5 http://192.168.88.212:5000").ok();
    // V7: and of its leaving.
    for name in ["test2", "flask-redis"] {
        cluster.docker(1, &format!("rm -f {name}")).ok();
    }
    cluster.fabric.nodes[1].lab.stop_daemon();
    eventually("its leaving is told", || events.tell(&["\"node leave\"", "docker-node2"]));
    drop(events);
}

/// V10: of two nodes that ask at the same time, exactly one is given what there is once.
fn races() {
    let cluster = Cluster::start(2);
    let both = |line: &(dyn Fn(usize) -> String + Sync)| -> Vec<Ran> {
        thread::scope(|scope| {
            let ran: Vec<_> = (0..2).map(|node| (node, line(node))).map(|(node, line)| { let cluster = &cluster; scope.spawn(move || cluster.weft(node, &line)) }).collect();
            ran.into_iter().map(|thread| thread.join().expect("a command")).collect()
        })
    };
    let winners = |ran: &[Ran]| ran.iter().filter(|ran| ran.code == Some(0)).count();
    for round in 0..5 {
        let ran = both(&|_| format!("network create -d overlay n{round}"));
        assert_eq!(winners(&ran), 1, "{ran:?}");
        assert!(ran.iter().any(|ran| ran.stderr.contains(&format!("network with name n{round} already exists"))), "{ran:?}");
        eventually("both have it", || (0..2).all(|node| cluster.has(node, &format!("n{round}"))));
        // Different networks at the same time: both, and not the same number or subnet.
        let ran = both(&|node| format!("network create -d overlay m{round}x{node}"));
        assert_eq!(winners(&ran), 2, "{ran:?}");
        let ran = both(&|_| format!("run -d --name r{round} --net n0 -- sleep 3600"));
        assert_eq!(winners(&ran), 1, "{ran:?}");
        assert!(ran.iter().any(|ran| ran.stderr.contains(&format!("endpoint with name r{round} already exists in network n0"))), "{ran:?}");
        // Each wants the next free address.
        assert_eq!(winners(&both(&|node| format!("run -d --name s{round}x{node} --net n0 -- sleep 3600"))), 2);
        let ran = both(&|node| format!("run -d --name t{round}x{node} --net n0:ip=10.0.0.{} -- sleep 3600", 200 + round));
        assert_eq!(winners(&ran), 1, "{ran:?}");
    }
    eventually("both see the same", || cluster.members(0, "n0") == cluster.members(1, "n0") && cluster.members(0, "n0").len() == 20);
    let mut addresses: Vec<_> = cluster.members(0, "n0").into_iter().map(|(_, address)| address).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 20);
    let unique = |key: &dyn Fn(&Value) -> String| {
        let networks = cluster.weft(0, "network inspect n0 n1 n2 n3 n4 m0x0 m0x1 m1x0 m1x1 m2x0 m2x1 m3x0 m3x1 m4x0 m4x1").json();
        let mut all: Vec<_> = networks.as_array().into_iter().flatten().map(key).collect();
        all.sort();
        all.dedup();
        all.len()
    };
    eventually("all networks are here", || cluster.has(0, "m4x1") && cluster.has(0, "m4x0"));
    assert_eq!((unique(&|network| network["overlay"]["vni"].to_string()), unique(&|network| network["pools"][0]["subnet"].to_string())), (15, 15));
}

/// V18: what a killed node had is free after its lease; what is another's then is not taken back.
fn dead_node() {
    let mut cluster = Cluster::stores(2);
    cluster.start_daemon(0, LEASE);
    // Longer than a command takes on a busy machine.
    cluster.start_daemon(1, "--cluster-lease 10s");
    eventually("both are there", || (0..2).all(|node| cluster.node_names(node).len() == 2));
    cluster.weft(0, "network create -d overlay net").ok();
    eventually("shared", || cluster.has(1, "net"));
    cluster.sleeper(1, "kept", "net").ok();
    cluster.sleeper(1, "taken", "net:ip=10.0.0.77").ok();
    cluster.sleeper(0, "here", "net").ok();
    eventually("seen", || cluster.members(0, "net").len() == 3 && cluster.pings(0, "here", "taken"));
    cluster.fabric.nodes[1].lab.kill_daemon();
    assert!(cluster.sleeper(0, "taken", "net").fails().contains("endpoint with name taken already exists"), "its lease lasts still");
    eventually("it is missed", || cluster.node_names(0) == ["docker-node1"] && cluster.log(0).contains("docker-node2 left"));
    assert_eq!(cluster.members(0, "net").len(), 1);
    let left = cluster.etcdctl(0, "get --prefix --keys-only /docker/network/v1.0/endpoint/").ok();
    assert_eq!(left.split_whitespace().count(), 1, "{left}");
    cluster.sleeper(0, "taken", "net:ip=10.0.0.77").ok();
    // Its sandboxes ran on: it comes back to what is still its own.
    cluster.start_daemon(1, "--cluster-lease 60s");
    eventually("both are there", || cluster.node_names(0).len() == 2 && cluster.members(0, "net").len() == 3);
    assert!(cluster.log(1).contains("taken by taken on docker-node1"), "{}", cluster.log(1));
    let own = cluster.weft(1, "inspect taken").json();
    assert_eq!(own[0]["endpoints"].as_array().map(Vec::len), Some(0), "{own}");
    eventually("what it kept works", || cluster.pings(1, "kept", "taken") && cluster.pings(0, "here", "kept"));
    // Killed and back within the lease: nothing is told of to the others.
    let before = cluster.log(0).matches("left").count();
    cluster.fabric.nodes[1].lab.kill_daemon();
    cluster.start_daemon(1, LEASE);
    eventually("it works again", || cluster.pings(1, "kept", "here"));
    assert_eq!(cluster.log(0).matches("left").count(), before);
}

/// V2: a name is of one node, and a node that restarts is itself.
fn node_names() {
    let mut cluster = Cluster::start(2);
    cluster.fabric.nodes[1].lab.stop_daemon();
    eventually("it left", || cluster.node_names(0).len() == 1);
    let options = cluster.options(1, LEASE).replace("docker-node2", "docker-node1");
    let error = run(cluster.fabric.nodes[1].lab.weft_command().arg("daemon").args(words(&options))).fails();
    assert!(error.contains("a node named docker-node1 is in the cluster already, at 192.168.88.211") && error.contains("--node"), "{error}");
    cluster.fabric.nodes[0].lab.kill_daemon();
    cluster.start_daemon(0, LEASE);
    cluster.start_daemon(1, LEASE);
    eventually("both", || (0..2).all(|node| cluster.node_names(node).len() == 2));
    for (line, why) in [("network create --scope global x", "overlay"), ("network create -d overlay --dhcp x", "one node")] {
        let error = cluster.weft(0, line).fails();
        assert!(error.contains(why), "{error}");
    }
}

/// V5: what does not answer is named, with its port.
fn doctor() {
    let cluster = Cluster::start(2);
    let ok = cluster.weft(0, "doctor").ok();
    for line in ["KV 192.168.88.211:2379 answers", "KV 192.168.88.212:2379 answers", "VTEP peer docker-node2 192.168.88.212 listens when there is a shared network"] {
        assert!(ok.contains(line), "{line}: {ok}");
    }
    cluster.weft(0, "network create -d overlay net").ok();
    eventually("the tunnel is open there", || cluster.weft(0, "doctor").stdout.contains("VTEP peer docker-node2 192.168.88.212 answers (udp 4789)"));
    let wall = &cluster.fabric.nodes[1].lab.host;
    wall.sh("nft add table inet fw && nft add chain inet fw in '{ type filter hook input priority 0; }' && nft add rule inet fw in ip saddr 192.168.88.211 udp dport 4789 drop && nft add rule inet fw in ip saddr 192.168.88.211 tcp dport 2379 drop").ok();
    let ran = cluster.weft(0, "doctor");
    assert_eq!(ran.code, Some(1));
    for line in ["KV 192.168.88.212:2379 unreachable (tcp 2379): timed out", "VTEP peer docker-node2 192.168.88.212 unreachable (udp 4789): timed out", "KV 192.168.88.211:2379 answers"] {
        assert!(ran.stdout.contains(line), "{line}: {ran:?}");
    }
    wall.sh("nft flush chain inet fw in && nft add rule inet fw in udp dport 4789 reject && nft add rule inet fw in tcp dport 2379 reject with tcp reset").ok();
    let ran = cluster.weft(0, "doctor --json").stdout;
    let said: Value = serde_json::from_str(&ran).expect("JSON");
    let texts: Vec<_> = said["cluster"].as_array().into_iter().flatten().filter(|check| check["ok"] == false).map(|check| check["text"].as_str().unwrap_or_default()).collect();
    assert_eq!(texts, ["KV 192.168.88.212:2379 unreachable (tcp 2379): refused", "VTEP peer docker-node2 192.168.88.212 unreachable (udp 4789): refused"]);
}

/// Everything but sharing goes on without the store, over a restart too; what happened meanwhile is told when it is back.
fn store_away() {
    let mut cluster = Cluster::start(2);
    cluster.weft(0, "network create -d overlay net").ok();
    eventually("shared", || cluster.has(1, "net"));
    cluster.sleeper(0, "one", "net").ok();
    cluster.sleeper(1, "two", "net").ok();
    cluster.sleeper(1, "ended", "net").ok();
    eventually("they talk", || cluster.pings(0, "one", "two") && cluster.pings(1, "two", "one"));
    cluster.stores.iter_mut().for_each(|store| *store = None);
    eventually("the store is missed", || (0..2).all(|node| cluster.log(node).contains("store cannot be used")));
    assert!(cluster.pings(0, "one", "two") && cluster.pings(1, "two", "one"), "by name, as before");
    for line in ["network create -d overlay other", "network rm net", "run -d --name three --net net -- sleep 9"] {
        let started = std::time::Instant::now();
        let error = cluster.weft(0, line).fails();
        assert!(error.contains("the cluster's store etcd://192.168.88.211:2379") || error.contains("active endpoints"), "{line}: {error}");
        assert!(started.elapsed().as_secs() < 10, "{line} is refused at once");
    }
    cluster.weft(0, "network create plain").ok();
    cluster.sleeper(0, "local", "plain").ok();
    cluster.weft(1, "rm -f ended").ok();
    cluster.weft(0, "publish add one 9090:4242").ok();
    // A daemon that starts now has what it had.
    cluster.fabric.nodes[1].lab.kill_daemon();
    cluster.start_daemon(1, LEASE);
    eventually("they still talk", || cluster.pings(1, "two", "one") && cluster.pings(0, "one", "two"));
    (0..2).for_each(|node| cluster.start_store(node));
    eventually("sharing goes on", || cluster.sleeper(1, "new", "net").code == Some(0));
    let expected = ["new", "one", "two"];
    for node in 0..2 {
        eventually("what ended is gone, what is new is there", || cluster.members(node, "net").iter().map(|(name, _)| name.as_str()).eq(expected));
    }
    eventually("they talk", || cluster.pings(0, "one", "new") && cluster.pings(1, "two", "one"));
    let told = || cluster.etcdctl(0, "get --prefix --print-value-only /docker/network/v1.0/endpoint/").stdout;
    eventually("what was published meanwhile is told, though the lease outlived the pause", || told().contains("4242"));
}

/// Three nodes: the store's leader dies, and nobody notices but the store.
fn leader() {
    let mut cluster = Cluster::start(3);
    cluster.weft(0, "network create -d overlay net").ok();
    eventually("shared", || (0..3).all(|node| cluster.has(node, "net")));
    (0..3).for_each(|node| drop(cluster.sleeper(node, &format!("s{node}"), "net").ok()));
    let leader = (0..3).find(|node| {
        let status = cluster.etcdctl(*node, "endpoint status --write-out=json").json();
        status[0]["Status"]["leader"] == status[0]["Status"]["header"]["member_id"]
    });
    let leader = leader.expect("a leader");
    cluster.stores[leader] = None;
    // Also the daemon beside the dead member goes on: it knows the others.
    for node in 0..3 {
        eventually("a node can share", || cluster.sleeper(node, &format!("after{node}"), "net").code == Some(0));
    }
    for node in 0..3 {
        eventually("all see all", || cluster.members(node, "net").len() == 6);
        for other in 0..3 {
            eventually("all reach all", || cluster.pings(node, &format!("s{node}"), &format!("after{other}")));
        }
        assert!(!cluster.log(node).contains("left"), "{}", cluster.log(node));
    }
}

/// The same address on another node, with another MAC: whoever remembered the old one is told.
fn moves() {
    let cluster = Cluster::start(3);
    cluster.weft(0, "network create -d overlay --subnet 10.0.0.0/24 --subnet fd0a::/64 net").ok();
    eventually("shared", || (0..3).all(|node| cluster.has(node, "net")));
    cluster.sleeper(0, "watcher", "net").ok();
    cluster.sleeper(2, "far", "net").ok();
    let start = |node: usize, mac: u8| cluster.sleeper(node, "db", &format!("net:ip=10.0.0.50,ip6=fd0a::50,mac=02:00:00:00:00:{mac:02x}"));
    let neighbour = |node: usize, from: &str, ip: &str| cluster.weft(node, &format!("exec {from} ip neigh show {ip}")).stdout;
    let mut home = 1;
    start(home, 1).ok();
    for (mac, next) in [(2, 2), (3, 0), (4, 1)] {
        for (node, from) in [(0, "watcher"), (2, "far")] {
            for to in ["10.0.0.50", "fd0a::50", "db"] {
                eventually("it is reached", || cluster.pings(node, from, to));
            }
        }
        cluster.weft(home, "rm -f db").ok();
        eventually("its name is free", || start(next, mac).code == Some(0));
        for (node, from) in [(0, "watcher"), (2, "far")] {
            for ip in ["10.0.0.50", "fd0a::50"] {
                eventually("who remembered it is told", || neighbour(node, from, ip).contains(&format!("02:00:00:00:00:{mac:02x}")));
            }
        }
        home = next;
    }
    assert!(cluster.pings(0, "watcher", "db") && cluster.pings(2, "far", "10.0.0.50"));
}

/// An internal network has no way out; a network with peers of its own is this node's; bridges stay at home.
fn internal_and_own() {
    let cluster = Cluster::start(2);
    cluster.weft(0, "network create -d overlay --internal inner").ok();
    eventually("shared", || cluster.has(1, "inner"));
    cluster.sleeper(1, "in", "inner").ok();
    assert!(!cluster.has(1, "docker_gwbridge"), "V16: nobody has a way out");
    assert_eq!(cluster.weft(1, "exec in ip route show default").stdout, "");
    cluster.weft(0, "network create -d overlay --vni 5000 --subnet 10.99.0.0/24 --peer 192.168.88.212 own").ok();
    cluster.weft(0, "network create plain").ok();
    cluster.weft(0, "network create -d overlay mark").ok();
    eventually("shared", || cluster.has(1, "mark"));
    assert!(!cluster.has(1, "own") && !cluster.has(1, "plain"));
    // Out of the last shared network, the way out goes too; and back.
    cluster.sleeper(0, "s", "mark").ok();
    assert!(cluster.weft(0, "exec s ip route show default").stdout.contains("eth1"));
    let error = cluster.weft(1, "network rm mark").fails();
    assert!(error.contains("active endpoints: s on docker-node1"), "{error}");
    cluster.weft(0, "network disconnect mark s").ok();
    assert_eq!(cluster.weft(0, "inspect s").json()[0]["endpoints"].as_array().map(Vec::len), Some(0));
    eventually("nobody is in it", || cluster.weft(1, "network rm mark").code == Some(0));
    eventually("it is gone", || !cluster.has(0, "mark"));
    let left = cluster.etcdctl(0, "get --prefix --keys-only /docker/network/v1.0").ok();
    let networks = left.lines().filter(|key| key.contains("/network/v1.0/network/")).count();
    assert_eq!(networks, 1, "{left}");
}
