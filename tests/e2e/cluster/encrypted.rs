//! Encrypted shared networks: keys that come through the store, change while traffic flows, and are missing.

use std::fs;

use serde_json::Value;
use weft_tests::{events::Events, run::eventually};

use super::{Cluster, LEASE, faults::Flood, super::vxlan::sniff};

/// In a payload, to be looked for on the wire.
const MARKER: &str = "706c61696e74657874";

impl Cluster {
    /// How a node encrypts the network.
    fn encryption(&self, index: usize, network: &str) -> Value {
        self.weft(index, &format!("vxlan show {network} --json")).json()["networks"][0]["encryption"].clone()
    }

    /// Epoch to send with, and those accepted.
    fn epochs(&self, index: usize, network: &str) -> (Option<u64>, Vec<u64>) {
        let encryption = self.encryption(index, network);
        (encryption["epoch"].as_u64(), encryption["accepted"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect())
    }

    /// Where the store has the keys of its one encrypted network, and what.
    fn secrets(&self) -> (String, String) {
        let all = self.etcdctl(0, "get --prefix /docker/network/v1.0/weft/secrets/").ok();
        let (key, value) = all.trim().split_once('\n').expect("a record");
        (key.to_owned(), value.to_owned())
    }
}

/// Two nodes with one sandbox each, `one` and `two`, on the encrypted network `sealed` that the stock client made.
fn start(options: &str) -> Cluster {
    let cluster = Cluster::start(2);
    cluster.docker(0, &format!("network create -d overlay -o encrypted {options} sealed")).ok();
    eventually("both have it, with its keys", || (0..2).all(|node| cluster.has(node, "sealed") && cluster.epochs(node, "sealed") == (Some(1), vec![1])));
    cluster.sleeper(0, "one", "sealed").ok();
    cluster.sleeper(1, "two", "sealed").ok();
    eventually("they talk", || cluster.pings(0, "one", "two") && cluster.pings(1, "two", "one"));
    cluster
}

/// What passes, what is seen on the wire, and that the key is shown nowhere. CVE-2023-28840: nothing clear comes in.
pub(super) fn on_the_wire() {
    let cluster = start("");
    let [one, two] = &cluster.fabric.nodes[..] else { panic!("two nodes") };
    assert!(cluster.weft(0, "exec one ip link show eth0").ok().contains("mtu 1414"));
    assert!(cluster.weft(0, "exec one ping -c 2 -i 0.1 -W 2 -M do -s 1386 two").ok().contains(" 0% packet loss"));
    let (file, sniffer) = sniff(one, 0);
    assert!(cluster.weft(0, &format!("exec one ping -c 5 -i 0.1 -W 2 -p {MARKER} -s 400 two")).ok().contains(" 0% packet loss"));
    cluster.weft(1, "run -d --name server --net sealed -- iperf3 -s").ok();
    eventually("iperf3 listens", || cluster.weft(1, "exec server ss -ltn").stdout.contains(":5201"));
    for options in ["", "-R"] {
        // A server that still winds up the run before refuses.
        eventually("iperf3 carries", || {
            let report = cluster.weft(0, &format!("exec one iperf3 -J -t 1 -c server {options}")).json();
            report["end"]["sum_received"]["bytes"].as_u64().is_some_and(|bytes| bytes > 500_000)
        });
    }
    let read = |options: &str| one.lab.host.sh(&format!("tshark -r {} {options} 2>/dev/null", file.display())).stdout;
    eventually("the capture has them", || read("-Y 'udp.dstport==4789 && udp.length>400'").lines().count() >= 10);
    drop(sniffer);
    let bytes = fs::read(&file).expect("the capture");
    assert!(!bytes.windows(9).any(|window| window == b"plaintext"), "the marker is on the wire");
    assert_eq!(read("-Y 'vxlan.flag_i==1'"), "", "for anybody who knows VXLAN there is none");
    one.takes_nothing_clear_from(two);
    // The key is in the store, and in nothing that a node shows or keeps.
    let (_, record) = cluster.secrets();
    let record: Value = serde_json::from_str(&record).expect("JSON");
    let key = record["epochs"][0]["key"].as_str().expect("a key");
    assert_eq!(key.len(), 64);
    for node in 0..2 {
        for line in ["network inspect sealed", "vxlan show --json", "vxlan show", "doctor --json"] {
            let shown = cluster.weft(node, line).stdout;
            assert!(!shown.is_empty() && !shown.contains(key), "{line}");
        }
        let inspected = cluster.docker(node, "network inspect sealed").ok();
        assert!(inspected.contains("\"encrypted\": \"\"") && !inspected.contains(key), "{inspected}");
        assert!(!cluster.log(node).contains(key));
        let state = cluster.fabric.nodes[node].lab.host.sh(&format!("grep -rl {key} {}", cluster.fabric.nodes[node].lab.state_dir().display()));
        assert_eq!(state.stdout, "", "no file has it");
        assert!(cluster.weft(node, "doctor").stdout.contains("network sealed encrypts with epoch 1"));
    }
}

/// Keys change on all nodes while traffic flows, and nothing is lost to it; a node that is killed comes back to them.
pub(super) fn rotation() {
    let mut cluster = start("");
    cluster.weft(1, "run -d --name server --net sealed -- iperf3 -s").ok();
    eventually("iperf3 listens", || cluster.weft(1, "exec server ss -ltn").stdout.contains(":5201"));
    let events = Events::follow(&cluster.fabric.nodes[1].lab);
    let flood = Flood::start(&cluster, 0, "one", "two");
    let (mut load, _) = cluster.background(0, "exec one iperf3 -t 60 -b 50M --bidir -c server", "load");
    let started = std::time::Instant::now();
    cluster.weft(1, "vxlan rekey sealed").ok();
    eventually("both accept both", || (0..2).all(|node| cluster.epochs(node, "sealed") == (Some(1), vec![1, 2])));
    let refused = cluster.weft(0, "vxlan rekey sealed").fails();
    assert!(refused.contains("are being changed"), "{refused}");
    eventually("both send with the new one", || (0..2).all(|node| cluster.epochs(node, "sealed").0 == Some(2)));
    let took = started.elapsed();
    assert!(took.as_secs() >= 4, "a lease at least: {took:?}");
    eventually("the old one ends", || (0..2).all(|node| cluster.epochs(node, "sealed") == (Some(2), vec![2])));
    eprintln!("rekey: new epoch sent with after {:.1} s, old one refused after {:.1} s (lease 4 s)", took.as_secs_f64(), started.elapsed().as_secs_f64());
    let (sent, lost) = flood.stop();
    load.kill().expect("it ends");
    load.wait().expect("it ends");
    eprintln!("rekey: {lost} of {sent} pings lost");
    assert!(sent > 300 && lost == 0, "{lost} of {sent}");
    for node in &cluster.fabric.nodes {
        for reason in ["no_key", "bad_tag", "replayed", "clear_text"] {
            assert_eq!(node.dropped(reason), 0, "{reason}: {}", node.show());
        }
    }
    eventually("it was told", || events.tell(&["overlay rekey"]));
    assert!(!events.text().contains("\"key\""), "{}", events.text());
    // Killed in an epoch, and back in the same: heard at once, by a session of its own.
    cluster.fabric.nodes[1].lab.kill_daemon();
    cluster.start_daemon(1, LEASE);
    eventually("the way is back", || cluster.pings(0, "one", "two") && cluster.pings(1, "two", "one"));
    assert_eq!((cluster.epochs(1, "sealed"), cluster.fabric.nodes[0].dropped("replayed"), cluster.fabric.nodes[0].dropped("bad_tag")), ((Some(2), vec![2]), 0, 0));
}

/// By itself, after the period of the network.
pub(super) fn periodic() {
    let cluster = start("-o weft.rekey=8s");
    eventually("two changes", || cluster.epochs(0, "sealed").0 >= Some(3));
    eventually("the other too", || cluster.epochs(1, "sealed").0 >= Some(3));
    assert!(cluster.pings(0, "one", "two") && cluster.pings(1, "two", "one"));
    for node in &cluster.fabric.nodes {
        assert_eq!(node.dropped("no_key") + node.dropped("bad_tag"), 0);
    }
}

/// A record that makes no sense is named, and changes nothing for who has keys; who has none carries nothing.
pub(super) fn damaged() {
    let mut cluster = start("");
    let (key, good) = cluster.secrets();
    for garbage in ["garbage", "{\"version\":9}", "{\"version\":1,\"epochs\":[{\"epoch\":1,\"key\":\"00\"}],\"current\":1}"] {
        run_etcdctl(&cluster, &["put", &key, garbage]);
        eventually("it is named", || (0..2).all(|node| cluster.encryption(node, "sealed")["problem"].as_str().is_some_and(|why| why.contains(&key))));
        assert!(cluster.pings(0, "one", "two"), "the old keys are still those of both");
    }
    for node in 0..2 {
        assert!(cluster.log(node).contains("goes on with the keys it has") && cluster.log(node).contains(&key), "{}", cluster.log(node));
        let doctor = cluster.weft(node, "doctor");
        assert!(doctor.code == Some(1) && doctor.stdout.contains("which may not be the others'") && doctor.stdout.contains("vxlan rekey sealed"), "{doctor:?}");
    }
    // One that starts now has none.
    cluster.fabric.nodes[1].lab.kill_daemon();
    cluster.start_daemon(1, LEASE);
    eventually("it says so", || cluster.weft(1, "doctor").stdout.contains("is encrypted, has no keys, and carries nothing"));
    assert!(!cluster.pings(0, "one", "two") && !cluster.pings(1, "two", "one"));
    assert!(cluster.fabric.nodes[1].dropped("no_key") > 0);
    assert!(cluster.weft(1, "vxlan show sealed").ok().contains("no keys: nothing passes"));
    assert!(cluster.docker(1, "network inspect sealed").ok().contains("weft.keys"));
    assert!(cluster.weft(1, "network inspect sealed").ok().contains(&key));
    // The right one again, and one made by whoever repairs it.
    run_etcdctl(&cluster, &["put", &key, &good]);
    eventually("they talk", || cluster.pings(0, "one", "two") && cluster.pings(1, "two", "one"));
    run_etcdctl(&cluster, &["put", &key, "garbage"]);
    eventually("it is named", || cluster.encryption(0, "sealed")["problem"].is_string());
    cluster.weft(0, "vxlan rekey sealed").ok();
    eventually("they talk with new ones", || cluster.pings(0, "one", "two") && cluster.pings(1, "two", "one"));
    assert_ne!(cluster.secrets().1, good);
    // Removed by hand: made anew.
    run_etcdctl(&cluster, &["del", &key]);
    eventually("there are new ones", || !cluster.etcdctl(0, &format!("get {key}")).stdout.is_empty());
    eventually("they talk again", || cluster.pings(0, "one", "two") && cluster.pings(1, "two", "one"));
    for (options, why) in [("-d overlay -o encrypted -o weft.key-file=/k", "weft.key-file"), ("-d overlay -o weft.rekey=1h", "weft.rekey"), ("-d overlay -o encrypted -o weft.rekey=soon", "soon"), ("-d overlay -o encrypted -o weft.rekey=1s", "at least 8s")] {
        let refused = cluster.weft(0, &format!("network create {options} x")).fails();
        assert!(refused.contains(why), "{options}: {refused}");
    }
}

fn run_etcdctl(cluster: &Cluster, arguments: &[&str]) {
    weft_tests::run::run(cluster.fabric.nodes[0].lab.host.command("etcdctl").env("ETCDCTL_API", "3").args(arguments)).ok();
}
