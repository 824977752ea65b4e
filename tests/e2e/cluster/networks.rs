//! Shared networks beside a node's own: made anew while a node was away, with a number that is taken, in configurations
//! and when unused ones are cleared away.

use std::fs;

use weft_tests::run::eventually;

use super::Cluster;

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
