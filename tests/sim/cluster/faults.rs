//! Nodes that end, and come again.

use packet::Duration;
use sim::cluster::ClusterConfig;

use super::{SOON, at, changes, crowd, reaches};

/// V18: what a node had that was killed is free when its lease has ended, and no entry of it is left anywhere.
#[test]
fn v18_a_dead_node_s_names_and_addresses_are_free_after_the_lease() {
    println!("{:>8} {:>12} {:>12}", "lease s", "settled s", "gone s");
    for (seed, lease) in [(1, 5), (2, 15), (3, 60)] {
        let config = ClusterConfig { lease: Duration::from_secs(lease), ..ClusterConfig::default() };
        let (mut cluster, nodes) = crowd(seed, config, 20, 20);
        // Somewhere between two renewals.
        cluster.run_for(Duration::from_millis(12_345));
        let mac = cluster.mac(nodes[7], "s7-3");
        let request = at("net", [10, 1, 7, 5].into());
        cluster.send(nodes[7], "s7-3", "net", None);
        cluster.run_for(Duration::from_millis(20));
        cluster.kill(nodes[7]);
        assert!(cluster.start(nodes[1], "s7-3", &request).expect_err("its lease lasts").contains("already"));
        let dead = cluster.settle(config.lease + Duration::from_secs(1));
        // It was renewed a third of the lease ago at most.
        assert!(dead > config.lease * 2 / 3 - Duration::from_secs(1), "{dead:?}");
        assert_eq!(cluster.believed(nodes[0], "net", mac), None);
        cluster.start(nodes[1], "s7-3", &request).expect("name and address are free");
        let settled = cluster.settle(SOON);
        assert!(reaches(&mut cluster, (nodes[0], "s0-0"), (nodes[1], "s7-3")));
        // One that says goodbye is forgotten as fast as news travel.
        cluster.leave(nodes[9]).expect("the store answers");
        let gone = cluster.settle(SOON);
        println!("{lease:>8} {:>12.3} {:>12.3}", dead.as_secs_f64(), gone.as_secs_f64());
        assert!(settled < Duration::from_secs(1) && gone < Duration::from_secs(1));
        // Whoever still sent there would be noticed.
        cluster.run_for(SOON);
        cluster.send(nodes[0], "s0-0", "net", None);
        cluster.send(nodes[0], "s0-0", "net", Some(mac));
        cluster.run_for(SOON);
    }
}

/// V18: a node that starts again before its lease ends is never gone for the others; nothing is done anywhere.
#[test]
fn v18_a_node_that_starts_again_in_time_was_never_gone() {
    let (mut cluster, nodes) = crowd(4, ClusterConfig::default(), 10, 5);
    changes(&mut cluster, &nodes);
    cluster.kill(nodes[4]);
    cluster.run_for(Duration::from_secs(3));
    cluster.restart(nodes[4]).expect("the name is its own");
    let settled = cluster.settle(SOON);
    let others: Vec<_> = nodes.iter().copied().filter(|node| *node != nodes[4]).collect();
    assert_eq!(changes(&mut cluster, &others), 0, "settled after {settled:?}");
    for other in &others {
        let name = cluster.model(*other).sandboxes.values().next().expect("a sandbox").name.clone();
        assert!(reaches(&mut cluster, (nodes[4], "s4-0"), (*other, &name)) && reaches(&mut cluster, (*other, &name), (nodes[4], "s4-4")));
    }
    // What hung on the lease of its first life has moved to the second's.
    cluster.run_for(Duration::from_secs(60));
    assert_eq!(changes(&mut cluster, &others), 0);
}

/// After its lease it comes back with what is still free; a node of its name that is another is refused while it lives.
#[test]
fn v2_v18_a_node_that_starts_again_late_takes_what_is_still_free() {
    let (mut cluster, nodes) = crowd(5, ClusterConfig::default(), 5, 3);
    assert!(cluster.join("n2").expect_err("it lives").contains("a node named n2 is in the cluster already, at 192.168.0.3"));
    cluster.kill(nodes[2]);
    assert!(cluster.join("n2").is_err(), "its lease lasts");
    cluster.settle(Duration::from_secs(16));
    cluster.start(nodes[0], "s2-1", &at("net", [10, 1, 9, 9].into())).expect("the name is free");
    cluster.settle(SOON);
    cluster.restart(nodes[2]).expect("the name is its own");
    cluster.settle(SOON);
    let lost = cluster.lost(nodes[2]);
    assert!(lost.len() == 1 && lost[0].why.contains("s2-1 on n0"), "{lost:?}");
    assert!(reaches(&mut cluster, (nodes[1], "s1-0"), (nodes[2], "s2-0")) && reaches(&mut cluster, (nodes[1], "s1-0"), (nodes[0], "s2-1")));
}
