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
