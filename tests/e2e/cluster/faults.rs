//! What faults cost on live nodes. Each prints its figures (`fault: ...`), which perf/RESULTS.md records; what it asserts does not
//! depend on the machine's speed. SPEC row: V18.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use weft_tests::run::eventually;

use super::{Cluster, name};

/// Seconds, for a record: `WEFT_FAULT_LEASE=15 WEFT_FAULT_AWAY=60`.
fn seconds(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn figure(fault: &str, what: &str, value: &str) {
    eprintln!("fault: {fault} | {what} | {value}");
}

fn took(fault: &str, what: &str, since: Instant) {
    figure(fault, what, &format!("{:.1} s", since.elapsed().as_secs_f64()));
}

/// A ping every 10 ms from one sandbox to another, until it is stopped.
pub(super) struct Flood {
    child: Child,
    report: PathBuf,
}

impl Flood {
    pub(super) fn start(cluster: &Cluster, node: usize, from: &str, to: &str) -> Self {
        let (child, report) = cluster.background(node, &format!("exec {from} ping -i 0.01 {to}"), &format!("flood-{from}-{to}"));
        let this = Self { child, report };
        eventually("it is answered", || this.heard().len() > 20);
        this
    }

    fn heard(&self) -> BTreeSet<u32> {
        let text = fs::read_to_string(&self.report).unwrap_or_default();
        // The last line may not be whole.
        let lines = text.rsplit_once('\n').map_or("", |(whole, _)| whole).lines();
        lines.filter_map(|line| line.split("icmp_seq=").nth(1)?.split(' ').next()?.parse().ok()).collect()
    }

    /// How many were sent up to the last answer, and how many of these were not answered.
    pub(super) fn stop(mut self) -> (usize, usize) {
        self.child.kill().expect("it ends");
        self.child.wait().expect("it ends");
        let heard = self.heard();
        let (first, last) = (heard.first().copied().unwrap_or(0), heard.last().copied().unwrap_or(0));
        let sent = (last - first + 1) as usize;
        (sent, sent - heard.len())
    }
}

fn lease() -> String {
    format!("--cluster-lease {}s", seconds("WEFT_FAULT_LEASE", 4))
}

/// Three nodes, `s0` to `s2` on an encrypted network.
fn start() -> Cluster {
    start_with(&lease())
}

/// The same; the last one's lease is another.
fn start_with(last: &str) -> Cluster {
    let mut cluster = Cluster::stores(3);
    let usual = lease();
    (0..3).for_each(|node| cluster.start_daemon(node, if node < 2 { &usual } else { last }));
    eventually("all know all", || (0..3).all(|node| cluster.node_names(node).len() == 3));
    cluster.weft(0, "network create -d overlay -o encrypted net").ok();
    eventually("shared", || (0..3).all(|node| cluster.has(node, "net")));
    (0..3).for_each(|node| drop(cluster.sleeper(node, &format!("s{node}"), "net").ok()));
    for (from, to) in [(0, 1), (0, 2), (1, 2)] {
        eventually("they talk", || cluster.pings(from, &format!("s{from}"), &format!("s{to}")) && cluster.pings(to, &format!("s{to}"), &format!("s{from}")));
    }
    cluster
}

/// V18: a node that is killed, and one that comes back at once.
pub(super) fn killed_node() {
    // Longer than it takes to start again, on however busy a machine.
    let mut cluster = start_with("--cluster-lease 60s");
    let known = |cluster: &Cluster, node: usize| cluster.fabric.nodes[node].show()["networks"][0]["remotes"].to_string().contains(&cluster.fabric.nodes[2].underlay());
    assert!(known(&cluster, 0) && known(&cluster, 1));
    // At once, under its name.
    let flood = Flood::start(&cluster, 0, "s0", "s1");
    cluster.fabric.nodes[2].lab.kill_daemon();
    let since = Instant::now();
    cluster.start_daemon(2, &lease());
    eventually("it is reached", || cluster.pings(0, "s0", "s2"));
    took("node killed and started again", "until its sandbox answers again", since);
    assert!((0..2).all(|node| !cluster.log(node).contains("left")), "for the others it was never gone");
    // For good.
    cluster.fabric.nodes[2].lab.kill_daemon();
    let since = Instant::now();
    eventually("its name and address are free", || cluster.sleeper(1, "s2", "net:ip=10.0.0.4").code == Some(0));
    took("node killed", "until its name and address are another's", since);
    eventually("nobody sends there any more", || (0..2).all(|node| !known(&cluster, node)));
    took("node killed", "until no node has an FDB entry of it", since);
    eventually("the new one is reached", || cluster.pings(0, "s0", "s2"));
    let (sent, lost) = flood.stop();
    figure("node killed", "pings lost between two others", &format!("{lost} of {sent}"));
    assert_eq!(lost, 0);
}

/// The store without its leader, and without anybody.
pub(super) fn store() {
    let mut cluster = start();
    let flood = Flood::start(&cluster, 0, "s0", "s1");
    let status = |node: usize| cluster.etcdctl(node, "endpoint status --write-out=json").json();
    let leader = (0..3).find(|node| status(*node)[0]["Status"]["leader"] == status(*node)[0]["Status"]["header"]["member_id"]).expect("a leader");
    let since = Instant::now();
    cluster.stores[leader] = None;
    eventually("a change", || cluster.sleeper(leader, "after", "net").code == Some(0));
    took("etcd's leader killed", "until the node beside it can change something", since);
    eventually("the others hear of it", || (0..3).all(|node| cluster.members(node, "net").len() == 4));
    cluster.start_store(leader);
    cluster.stores.iter_mut().for_each(|store| *store = None);
    eventually("the store is missed", || (0..3).all(|node| cluster.log(node).contains("store cannot be used")));
    let away = seconds("WEFT_FAULT_AWAY", 6);
    thread::sleep(Duration::from_secs(away));
    let fault = format!("all of etcd away for {away} s");
    let since = Instant::now();
    (0..3).for_each(|node| cluster.start_store(node));
    for node in 0..3 {
        eventually("sharing goes on", || cluster.sleeper(node, &format!("new{node}"), "net").code == Some(0));
    }
    took(&fault, "from etcd's start until all nodes can change something", since);
    eventually("all hear of it", || (0..3).all(|node| cluster.members(node, "net").len() == 7));
    assert!((0..3).all(|node| !cluster.log(node).contains("left")), "nobody was gone");
    let (sent, lost) = flood.stop();
    figure(&fault, "pings lost between nodes, over both", &format!("{lost} of {sent}"));
    assert_eq!(lost, 0);
}

/// A node that is cut off from the others, their tunnels and members of the store, for longer than its lease.
pub(super) fn partition() {
    let cluster = start();
    let flood = Flood::start(&cluster, 0, "s0", "s1");
    let wall = &cluster.fabric.nodes[2].lab.host;
    let since = Instant::now();
    wall.sh("nft add table inet cut && nft add chain inet cut in '{ type filter hook input priority 0; }' && nft add chain inet cut out '{ type filter hook output priority 0; }' && nft add rule inet cut in iifname eth0 drop && nft add rule inet cut out oifname eth0 drop").ok();
    eventually("it is missed", || (0..2).all(|node| cluster.node_names(node).len() == 2));
    took("a node cut off", "until the others have forgotten it", since);
    assert!(cluster.pings(2, "s2", "s2") && cluster.sleeper(2, "alone", "net").fails().contains("cannot be used"));
    let since = Instant::now();
    wall.sh("nft delete table inet cut").ok();
    eventually("it is back", || cluster.pings(0, "s0", "s2") && cluster.pings(2, "s2", "s1"));
    took("a node cut off", "from the end of it until all reach all", since);
    let (sent, lost) = flood.stop();
    figure("a node cut off", "pings lost between the others", &format!("{lost} of {sent}"));
    assert_eq!(lost, 0);
}

/// An underlay that loses 5 % of the datagrams of each node: what is sent arrives whole.
pub(super) fn loss() {
    let cluster = start();
    for node in &cluster.fabric.nodes {
        // What is lost is a datagram, never a train of them.
        node.lab.host.sh("ethtool -K eth0 gso off gro off tx-udp-segmentation off >/dev/null && nft add table inet lossy && nft add chain inet lossy in '{ type filter hook input priority 0; }' && nft add rule inet lossy in udp dport 4789 numgen random mod 100 '<' 5 drop").ok();
    }
    let ping = cluster.weft(0, "exec s0 ping -q -i 0.005 -c 2000 -W 1 s1").stdout;
    let percent = ping.lines().find_map(|line| line.split(", ").find_map(|part| part.strip_suffix(" packet loss"))).unwrap_or("?").to_owned();
    figure("5 % of the underlay's datagrams lost", "pings lost (two ways: 9.75 % expected)", &percent);
    let lost: f64 = percent.trim_end_matches('%').parse().expect("a share");
    assert!((5.0..15.0).contains(&lost), "what the underlay loses, and no more: {ping}");
    let files = cluster.fabric.nodes[1].lab.dir().display().to_string();
    cluster.fabric.nodes[1].lab.host.sh(&format!("head -c 8388608 /dev/urandom > {files}/big")).ok();
    cluster.weft_args(1, &["run", "-d", "--name", "files", "--net", "net", "--", "python3", "-m", "http.server", "80", "--directory", &files]);
    eventually("it serves", || cluster.weft(1, "exec files ss -ltn").stdout.contains(":80 "));
    let since = Instant::now();
    let got = cluster.weft_args(0, &["exec", "s0", "sh", "-c", "curl -s -m 120 http://files/big | sha256sum"]).ok();
    took("5 % of the underlay's datagrams lost", "8 MiB by HTTP, whole", since);
    let sum = cluster.fabric.nodes[1].lab.host.sh(&format!("sha256sum {files}/big")).ok();
    assert_eq!(got.split(' ').next(), sum.split(' ').next());
    for (index, node) in cluster.fabric.nodes.iter().enumerate() {
        for reason in ["bad_tag", "replayed", "no_key", "clear_text", "local_source"] {
            assert_eq!(node.dropped(reason), 0, "{reason} on {}", name(index));
        }
    }
}
