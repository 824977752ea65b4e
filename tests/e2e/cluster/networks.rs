//! Shared networks beside a node's own: made anew while a node was away, with a number that is taken, in configurations
//! and when unused ones are cleared away.

use std::fs;

use weft_tests::run::eventually;

use super::{Cluster, LEASE};

/// A network that is removed and made anew, under its name and with its number, while a node is away.
pub(super) fn made_anew() {
    let mut cluster = Cluster::start(2);
    let create = "network create -d overlay --ingress --vni 5000 mesh";
    cluster.weft(0, create).ok();
    eventually("shared", || cluster.has(1, "mesh"));
    cluster.fabric.nodes[1].lab.kill_daemon();
    cluster.weft(0, "network rm mesh").ok();
    let id = cluster.weft(0, create).ok();
    cluster.start_daemon(1, LEASE);
    eventually("it has heard", || cluster.weft(1, "network inspect mesh").json()[0]["id"] == id.trim());
    let shown = cluster.fabric.nodes[1].show()["networks"].clone();
    assert!(shown.as_array().is_some_and(|all| all.len() == 1), "its tunnel is open: {shown}");
    for wrong in ["no way to the other nodes", "use ids"] {
        assert!(!cluster.log(1).contains(wrong), "{}", cluster.log(1));
    }
    // The node's station is in the new one.
    cluster.weft(0, "run -d --name web --net mesh -p 8080:80 -- python3 -m http.server 80").ok();
    let at = format!("http://{}:8080", cluster.fabric.nodes[1].underlay());
    let client = cluster.fabric.outsider(100);
    eventually("it answers by the other node", || client.sh(&format!("curl -gs -m 3 {at}")).code == Some(0));
}

/// The cluster gives a network the number of one that is a node's own: that is said there, and over when one of them goes.
pub(super) fn number_taken() {
    let cluster = Cluster::start(2);
    cluster.weft(0, "network create -d overlay --vni 6000 --subnet 10.66.0.0/24 --peer 192.168.88.99 own").ok();
    cluster.weft(1, "network create -d overlay --vni 6000 wide").ok();
    eventually("shared", || cluster.has(0, "wide"));
    (0..2).for_each(|node| drop(cluster.sleeper(node, &format!("s{node}"), "wide").ok()));
    let why = "network wide has no way to the other nodes: VNI 6000 is already in use by network own";
    let doctor = cluster.weft(0, "doctor");
    assert!(doctor.code == Some(1) && doctor.stdout.contains(why), "{doctor:?}");
    assert!(!cluster.weft(1, "doctor").stdout.contains("no way to the other nodes"));
    assert_eq!(cluster.log(0).matches("no way to the other nodes").count(), 1, "{}", cluster.log(0));
    cluster.weft(0, "network rm own").ok();
    eventually("the way is open", || cluster.pings(0, "s0", "s1") && cluster.pings(1, "s1", "s0"));
    assert!(!cluster.weft(0, "doctor").stdout.contains("no way to the other nodes"));
}

/// A file is about what this node has of its own: it neither takes networks from the others, nor fails over who is in them, nor
/// takes away what leads out of them.
pub(super) fn configurations() {
    let cluster = Cluster::start(2);
    cluster.weft(0, "network create -d overlay used").ok();
    cluster.weft(0, "network create -d overlay unused").ok();
    cluster.sleeper(0, "there", "used").ok();
    eventually("known", || cluster.members(1, "used").len() == 1 && cluster.has(1, "unused"));
    let file = cluster.fabric.nodes[1].lab.dir().join("desired.toml");
    let line = |verb: &str| format!("config {verb} {}", file.display());
    fs::write(&file, "[[network]]\nname = \"lab\"\ninternal = true\n").expect("a file");
    assert_eq!(cluster.weft(1, &line("diff")).stdout, "+ network lab\n");
    cluster.weft(1, &line("apply")).ok();
    assert!((0..2).all(|node| cluster.has(node, "used") && cluster.has(node, "unused")));
    let shared = "[[network]]\nname = \"made\"\ndriver = \"overlay\"\n[[sandbox]]\nname = \"here\"\nendpoint = [{ network = \"made\" }, { network = \"used\" }]\ncommand = [\"sleep\", \"3600\"]\n";
    fs::write(&file, format!("{shared}[[network]]\nname = \"used\"\ndriver = \"overlay\"\n")).expect("a file");
    assert_eq!(cluster.weft(1, &line("apply")).ok(), "- network lab\n+ network made\n+ sandbox here\n");
    eventually("it is everybody's", || cluster.has(0, "made"));
    assert!(cluster.weft(1, "exec here ip route show default").ok().contains("eth2"), "by docker_gwbridge");
    assert!(cluster.pings(1, "here", "there"));
    let again = cluster.weft(1, &line("diff"));
    assert!(again.code == Some(0) && again.stdout.is_empty(), "{again:?}");
}

/// Unused networks of this node go without the store; those that cannot go stay.
pub(super) fn pruned_without_the_store() {
    let mut cluster = Cluster::start(2);
    cluster.weft(1, "network create -d overlay wide").ok();
    cluster.weft(0, "network create plain").ok();
    eventually("shared", || cluster.has(0, "wide"));
    cluster.stores.iter_mut().for_each(|store| *store = None);
    eventually("the store is missed", || cluster.log(0).contains("store cannot be used"));
    assert!(cluster.weft(0, "network prune -f").ok().contains("plain"));
    assert!(!cluster.has(0, "plain") && cluster.has(0, "wide"));
    assert!(cluster.weft(0, "network prune -f").fails().contains("cannot be used"), "nothing else was to go");
    (0..2).for_each(|node| cluster.start_store(node));
    eventually("it goes", || cluster.weft(0, "network prune -f").code == Some(0) && !cluster.has(0, "wide"));
    eventually("everywhere", || !cluster.has(1, "wide"));
}
