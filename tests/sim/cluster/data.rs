//! Frames between nodes, and an underlay that does to them what underlays do.

use packet::{Duration, Mac};
use sim::{
    LinkConfig, Random,
    cluster::{ClusterConfig, NodeId},
};
use vxlan::DropReason;

use super::{SOON, at, changes, crowd, into, network, nodes, reaches, sandbox};

/// V13: whoever is in a network reaches everybody in it by address, and everybody at once; and nobody in another.
#[test]
fn v13_everybody_reaches_everybody_of_the_network() {
    let (mut cluster, nodes) = nodes(1, ClusterConfig::default(), 12);
    for (name, subnet) in [("net", "10.1.0.0/16"), ("other", "10.2.0.0/16")] {
        cluster.create_network(nodes[0], network(name, subnet)).expect("a free network");
    }
    cluster.settle(SOON);
    for (number, &node) in nodes.iter().enumerate() {
        cluster.start(node, &sandbox(number, 0), &into("net")).expect("a free name");
        cluster.start(node, &sandbox(number, 1), &into("net")).expect("a free name");
        cluster.start(node, &sandbox(number, 2), &into("other")).expect("a free name");
    }
    cluster.settle(SOON);
    for (number, &node) in nodes.iter().enumerate() {
        for (other, &there) in nodes.iter().enumerate() {
            assert!(reaches(&mut cluster, (node, &sandbox(number, 0)), (there, &sandbox(other, 1))), "{number} to {other}");
        }
    }
    let all = cluster.send(nodes[0], &sandbox(0, 0), "net", None);
    // Of another network, whose address is known: nobody is there by that address.
    let foreign = cluster.mac(nodes[5], &sandbox(5, 2));
    let lost = cluster.send(nodes[0], &sandbox(0, 0), "net", Some(foreign));
    cluster.run_for(Duration::from_millis(20));
    assert_eq!((cluster.reached(all), cluster.reached(lost)), (23, 0));
}

/// Datagrams that are lost, doubled and overtake one another: no frame goes wrong, and none is doubled by us.
#[test]
fn a_bad_underlay_costs_what_it_loses_and_no_more() {
    const FRAMES: u32 = 20_000;
    let underlay = LinkConfig { delay: Duration::from_micros(200), jitter: Duration::from_millis(5), loss_ppm: 50_000, duplicate_ppm: 50_000, bits_per_second: 0 };
    let (mut cluster, nodes) = crowd(2, ClusterConfig { underlay, ..ClusterConfig::default() }, 10, 5);
    let mut random = Random::new(2);
    let mut pick = |below: usize| usize::try_from(random.below(below as u64)).expect("small");
    let mut unicast = Vec::new();
    for number in 0..FRAMES {
        let (from, to) = (pick(10), pick(10));
        let (sender, receiver) = (sandbox(from, pick(5)), sandbox(to, pick(5)));
        if number % 50 == 0 {
            cluster.send(nodes[from], &sender, "net", None);
        } else if from != to {
            let mac = cluster.mac(nodes[to], &receiver);
            unicast.push(cluster.send(nodes[from], &sender, "net", Some(mac)));
        }
        cluster.run_for(Duration::from_micros(100));
    }
    cluster.run_for(Duration::from_secs(1));
    let traffic = cluster.traffic();
    let reached: u32 = unicast.iter().map(|frame| cluster.reached(*frame)).sum();
    let share = f64::from(reached) / unicast.len() as f64;
    println!("bad underlay: {traffic:?}; {reached} of {} unicast frames arrived", unicast.len());
    assert!((0.94..0.96).contains(&share), "{share}");
    assert!(traffic.lost > traffic.datagrams / 25 && traffic.duplicated > traffic.datagrams / 25, "{traffic:?}");
}

/// An underlay in two parts: each goes on, nothing flaps, and when it is whole all is well at once.
#[test]
fn a_parted_underlay_goes_on_in_parts() {
    let (mut cluster, nodes) = crowd(3, ClusterConfig::default(), 6, 2);
    changes(&mut cluster, &nodes);
    nodes[3..].iter().for_each(|node| cluster.set_side(*node, 1));
    cluster.run_for(Duration::from_secs(30));
    assert!(reaches(&mut cluster, (nodes[0], "s0-0"), (nodes[2], "s2-0")) && reaches(&mut cluster, (nodes[5], "s5-0"), (nodes[3], "s3-0")));
    assert!(!reaches(&mut cluster, (nodes[0], "s0-0"), (nodes[3], "s3-0")));
    nodes[3..].iter().for_each(|node| cluster.set_side(*node, 0));
    assert!(reaches(&mut cluster, (nodes[0], "s0-0"), (nodes[3], "s3-0")));
    assert_eq!(changes(&mut cluster, &nodes), 0);
}

/// A sandbox moves to another node with its name and address, while everybody talks to it: found again within a second, and
/// nowhere a stale entry. Over a steady and over a bad underlay.
#[test]
fn v13_an_address_that_moves_is_found_again_within_a_second() {
    for (seed, jitter) in [(4, 0), (5, 5), (6, 30)] {
        let underlay = LinkConfig { delay: Duration::from_micros(200), jitter: Duration::from_millis(jitter), ..LinkConfig::default() };
        let (mut cluster, nodes) = crowd(seed, ClusterConfig { underlay, ..ClusterConfig::default() }, 8, 2);
        let request = at("net", [10, 1, 9, 9].into());
        let mut home = 0;
        cluster.start(nodes[home], "web", &request).expect("a free name");
        cluster.settle(SOON);
        let mac = cluster.mac(nodes[home], "web");
        for next in [3, 0, 7] {
            for _ in 0..20 {
                talk(&mut cluster, &nodes, mac, home);
            }
            cluster.stop(nodes[home], "web");
            let (moved_at, mut refused) = (cluster.now(), 0);
            while let Err(error) = cluster.start(nodes[next], "web", &request) {
                assert!(error.contains("already"), "{error}");
                refused += 1;
                cluster.run_for(Duration::from_millis(5));
            }
            home = next;
            // As a host does when it comes up.
            cluster.send(nodes[home], "web", "net", None);
            let settled = cluster.settle(Duration::from_secs(1));
            let mut reached = false;
            while !reached {
                reached = talk(&mut cluster, &nodes, mac, home);
                assert!(cluster.now().since(moved_at) < Duration::from_secs(1), "seed {seed}: still not found");
            }
            println!("move, jitter {jitter} ms: refused {refused} times, settled after {settled:?}, all frames arrive after {:?}", cluster.now().since(moved_at));
            let believed: Vec<_> = nodes.iter().map(|node| cluster.believed(*node, "net", mac)).collect();
            let expected: Vec<_> = nodes.iter().map(|node| (*node != nodes[home]).then_some(nodes[home])).collect();
            assert_eq!(believed, expected, "seed {seed}");
        }
    }
}

/// All others send to `mac`, and it to them; true when all of the former arrive within 40 ms.
fn talk(cluster: &mut sim::cluster::Cluster, nodes: &[NodeId], mac: Mac, home: usize) -> bool {
    let frames: Vec<_> = (0..nodes.len()).filter(|number| *number != home).map(|number| cluster.send(nodes[number], &sandbox(number, 0), "net", Some(mac))).collect();
    cluster.send(nodes[home], "web", "net", None);
    cluster.run_for(Duration::from_millis(40));
    frames.iter().all(|frame| cluster.reached(*frame) == 1)
}

/// One seed is one run, line by line.
#[test]
fn one_seed_is_one_log() {
    let run = |seed| {
        let underlay = LinkConfig { delay: Duration::from_micros(100), jitter: Duration::from_millis(2), loss_ppm: 50_000, duplicate_ppm: 20_000, bits_per_second: 0 };
        let (mut cluster, nodes) = nodes(seed, ClusterConfig { underlay, ..ClusterConfig::default() }, 4);
        cluster.record();
        cluster.create_network(nodes[0], network("net", "10.1.0.0/16")).expect("a free network");
        cluster.settle(SOON);
        for (number, &node) in nodes.iter().enumerate() {
            cluster.start(node, &sandbox(number, 0), &into("net")).expect("a free name");
        }
        cluster.settle(SOON);
        for number in 0..100 {
            cluster.send(nodes[number % 3], &sandbox(number % 3, 0), "net", None);
            cluster.run_for(Duration::from_millis(1));
        }
        cluster.kill(nodes[3]);
        cluster.settle(Duration::from_secs(16));
        cluster.log().to_vec()
    };
    let log = run(7);
    assert!(log.len() > 400, "{} lines", log.len());
    assert!(run(7) == log && run(8) != log);
}

/// Who is no peer is not heard: a node that left, and speaks all the same.
#[test]
fn a_node_that_was_forgotten_is_not_heard() {
    let (mut cluster, nodes) = crowd(9, ClusterConfig::default(), 3, 1);
    cluster.set_store_link(nodes[2], control::store::memory::Link::Cut);
    cluster.run_for(Duration::from_secs(20));
    assert!(!reaches(&mut cluster, (nodes[2], "s2-0"), (nodes[0], "s0-0")));
    assert!(cluster.drops(nodes[0]).expect("it lives").get(DropReason::UnknownRemote) > 0);
}
