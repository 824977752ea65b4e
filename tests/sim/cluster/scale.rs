//! Many nodes.

use packet::Duration;
use sim::cluster::{Cluster, ClusterConfig};

use super::{SOON, at, crowd, network, sandbox};

/// A hundred nodes of twenty endpoints, each with all that a node has.
#[test]
fn v13_a_hundred_nodes_converge() {
    let (mut cluster, nodes) = crowd(1, ClusterConfig::default(), 100, 20);
    let everybody = cluster.send(nodes[50], &sandbox(50, 0), "net", None);
    let frames: Vec<_> = (0..1000)
        .map(|number| {
            let (from, to) = (number % 100, (number * 37 + 11) % 100);
            let mac = cluster.mac(nodes[to], &sandbox(to, 1));
            let frame = cluster.send(nodes[from], &sandbox(from, 0), "net", Some(mac));
            cluster.run_for(Duration::from_micros(100));
            frame
        })
        .collect();
    cluster.run_for(Duration::from_millis(20));
    assert_eq!(cluster.reached(everybody), 1999);
    assert!(frames.iter().all(|frame| cluster.reached(*frame) == 1));
    cluster.kill(nodes[99]);
    let dead = cluster.settle(Duration::from_secs(16));
    cluster.leave(nodes[98]).expect("the store answers");
    let gone = cluster.settle(SOON);
    println!("100 nodes x 20 endpoints: killed, settled after {:.3} s; left, {:.3} s", dead.as_secs_f64(), gone.as_secs_f64());
}

/// A thousand nodes of twenty endpoints in four networks. All are members with a lease, and register what they have; eight of
/// them, since each needs tens of megabytes, keep up with all the others and have a data plane.
#[test]
fn v13_a_thousand_nodes_of_twenty_endpoints_converge() {
    const NODES: usize = 1000;
    let mut cluster = Cluster::new(2, ClusterConfig { watch: Duration::from_millis(200), ..ClusterConfig::default() });
    let names = ["a", "b", "c", "d"];
    let is_full = |number: usize| number.is_multiple_of(125);
    let mut nodes = Vec::new();
    for number in 0..NODES {
        let name = format!("n{number}");
        nodes.push(if is_full(number) { cluster.join(&name) } else { cluster.join_writing(&name) }.expect("a free name"));
        if number == 0 {
            for (index, name) in names.iter().enumerate() {
                cluster.create_network(nodes[0], network(name, &format!("10.{index}.0.0/16"))).expect("a free network");
            }
        }
    }
    cluster.settle(SOON);
    // Within a second, all nodes start all they have.
    for which in 0..20_usize {
        for (number, &node) in nodes.iter().enumerate() {
            let [high, low] = u16::try_from(number * 5 + which / 4 + 2).expect("below 65536").to_be_bytes();
            let network = which % 4;
            let ip = [10, u8::try_from(network).expect("small"), high, low].into();
            cluster.start(node, &sandbox(number, which), &at(names[network], ip)).expect("a free name");
        }
        cluster.run_for(Duration::from_millis(50));
    }
    let settled = cluster.settle(SOON);
    assert!(settled < Duration::from_secs(1), "{settled:?}");
    let full: Vec<_> = (0..NODES).filter(|number| is_full(*number)).collect();
    for &from in &full {
        for &to in &full {
            let mac = cluster.mac(nodes[to], &sandbox(to, 4));
            let frame = cluster.send(nodes[from], &sandbox(from, 0), "a", Some(mac));
            cluster.run_for(Duration::from_millis(2));
            assert_eq!(cluster.reached(frame), 1, "{from} to {to}");
        }
    }
    // To 999 nodes, of which 7 look at it, with five stations each in this network; and four on its own.
    let everybody = cluster.send(nodes[0], &sandbox(0, 0), "a", None);
    cluster.run_for(Duration::from_millis(2));
    assert_eq!(cluster.reached(everybody), 7 * 5 + 4);
    cluster.kill(nodes[500]);
    let dead = cluster.settle(Duration::from_secs(16));
    println!("1000 nodes x 20 endpoints: all known after {:.3} s; killed, settled after {:.3} s", settled.as_secs_f64(), dead.as_secs_f64());
}
