//! Paths between nodes that carry less than was thought.

use std::fs;

use serde_json::Value;
use weft_tests::{events::Events, ns::Ns, run::eventually};

use super::{Fabric, Node};

pub(super) fn smaller() {
    let fabric = Fabric::new(2, 2, "");
    fabric.overlay(2, false, "");
    let [one, two] = &fabric.nodes[..] else { panic!("two nodes") };
    let (a, _b) = (one.station(18), two.station(34));
    assert!(a.pings("10.0.0.34"));
    one.lab.host.ip("link set eth0 mtu 1400").ok();
    let events = Events::follow(&one.lab);
    // The first one finds out; the sender of the next is told by the gateway, and needs no further telling.
    let pings = a.run("ping -c 3 -i 0.2 -W 1 -M do -s 1400 10.0.0.34");
    assert!(pings.stdout.contains(" 100% packet loss") && format!("{pings:?}").contains("mtu = 1350") || format!("{pings:?}").contains("mtu=1350"), "{pings:?}");
    assert!(pings.stdout.contains("From 10.0.0.1 "), "{pings:?}");
    let drops = one.show()["networks"][0]["drops"].clone();
    assert_eq!((&drops["underlay_mtu"], &drops["too_big"]), (&1.into(), &Value::Null), "{drops}");
    assert_eq!(one.lab.api("/v1/stats")["drops"]["too_big"], 1);
    assert_eq!(one.show()["networks"][0]["mtu"], 1350);
    eventually("it was told", || events.tell(&["overlay mtu", "1350"]));
    assert!(a.run("ping -c 3 -i 0.1 -W 2 -M do -s 1322 10.0.0.34").stdout.contains(" 0% packet loss"), "what fits goes on");
    assert!(a.ip("route get 10.0.0.34").ok().contains("mtu 1350"));
    let six = a.run("ping -c 3 -i 0.2 -W 1 -M do -s 1400 fd0a::34");
    assert!(six.stdout.contains("From fd0a::1 "), "{six:?}");
    assert!(a.ip("route get fd0a::34").ok().contains("mtu 1350"));
}

/// Fetches some MiB from a station, within a time that black holes would exceed.
fn downloads_from(client: &Ns, server: &str) {
    let got = client.sh(&format!("curl -s -m 20 -o /dev/null -w '%{{size_download}}' http://{server}:8000/file"));
    assert_eq!(got.stdout, "8388608", "from {server}: {got:?}");
}

/// SPEC V13 and V15 where the network between nodes is another than it was: connections that are there go on, new ones
/// begin with segments that fit.
pub(super) fn downloads() {
    let fabric = Fabric::new(2, 2, "");
    fabric.overlay(2, false, "");
    let [one, two] = &fabric.nodes[..] else { panic!("two nodes") };
    let (a, b) = (one.station(18), two.station(34));
    fs::write(two.lab.dir().join("file"), vec![7; 8 << 20]).expect("a file");
    let serve = |address: &str| b.spawn(&format!("python3 -m http.server 8000 --bind {address} -d {}", two.lab.dir().display()));
    let _servers = [serve("10.0.0.34"), serve("fd0a::34")];
    eventually("both listen", || b.run("ss -ltn").stdout.matches(":8000").count() == 2);
    downloads_from(&a, "10.0.0.34");
    // One goes on while the path shrinks, at a rate that keeps it going.
    let running = a.spawn(&format!("curl -s -m 30 --limit-rate 2M -o {} http://10.0.0.34:8000/file", one.lab.dir().join("got").display()));
    std::thread::sleep(std::time::Duration::from_millis(700));
    let shrink = |node: &Node| node.lab.host.ip("link set eth0 mtu 1400").ok();
    shrink(one);
    shrink(two);
    downloads_from(&a, "10.0.0.34");
    downloads_from(&a, "[fd0a::34]");
    eventually("the first is complete", || fs::metadata(one.lab.dir().join("got")).is_ok_and(|file| file.len() == 8 << 20));
    drop(running);
    assert_eq!(two.show()["networks"][0]["mtu"], 1350);
    // New connections begin with segments that fit: nobody has to be told, though all have forgotten.
    let too_long = || two.lab.api("/v1/stats")["drops"]["too_big"].as_u64();
    let before = too_long();
    for ns in [&a, &b] {
        ns.sh("ip route flush cache && ip -6 route flush cache").ok();
    }
    downloads_from(&a, "10.0.0.34");
    downloads_from(&a, "[fd0a::34]");
    assert_eq!(too_long(), before);
}
