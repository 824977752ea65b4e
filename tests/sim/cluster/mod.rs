//! Nodes that share networks, in virtual time. At every datagram and every delivery is asked: is it in its network, was it
//! relayed, does it come a second time by our doing, does it go to a node that has left (see `weft_sim::cluster`).

mod data;
mod faults;
mod race;
mod scale;
mod store;

use std::net::Ipv4Addr;

use control::api::{EndpointCreate, NetworkCreate};
use packet::Duration;
use sim::cluster::{Cluster, ClusterConfig, NodeId};

/// A bound that settling is far below, unless leases have to end.
const SOON: Duration = Duration::from_secs(2);

fn network(name: &str, subnet: &str) -> NetworkCreate {
    NetworkCreate { name: name.into(), subnets: vec![subnet.parse().expect("a subnet")], ..NetworkCreate::default() }
}

fn into(network: &str) -> EndpointCreate {
    EndpointCreate { network: network.into(), ..EndpointCreate::default() }
}

fn at(network: &str, ip: Ipv4Addr) -> EndpointCreate {
    EndpointCreate { ip: Some(ip), ..into(network) }
}

/// Nodes `n0`, `n1`, ...
fn nodes(seed: u64, config: ClusterConfig, count: usize) -> (Cluster, Vec<NodeId>) {
    let mut cluster = Cluster::new(seed, config);
    let nodes = (0..count).map(|number| cluster.join(&format!("n{number}")).expect("a free name")).collect();
    (cluster, nodes)
}

/// Nodes with the network `net`, settled, and on each as many sandboxes: `s0-0` at 10.1.0.2, `s0-1`, ... `s1-0` at 10.1.1.2, ...
fn crowd(seed: u64, config: ClusterConfig, count: usize, each: usize) -> (Cluster, Vec<NodeId>) {
    let (mut cluster, nodes) = nodes(seed, config, count);
    cluster.create_network(nodes[0], network("net", "10.1.0.0/16")).expect("a free network");
    cluster.settle(SOON);
    for (number, &node) in nodes.iter().enumerate() {
        for which in 0..each {
            let [third, fourth] = [number, which + 2].map(|octet| u8::try_from(octet).expect("small"));
            cluster.start(node, &sandbox(number, which), &at("net", [10, 1, third, fourth].into())).expect("a free name");
        }
    }
    cluster.settle(SOON);
    (cluster, nodes)
}

fn sandbox(node: usize, which: usize) -> String {
    format!("s{node}-{which}")
}

/// Whether a frame comes from one sandbox to another within 20 ms.
fn reaches(cluster: &mut Cluster, (from, sender): (NodeId, &str), (to, receiver): (NodeId, &str)) -> bool {
    let mac = cluster.mac(to, receiver);
    let frame = cluster.send(from, sender, "net", Some(mac));
    cluster.run_for(Duration::from_millis(20));
    cluster.reached(frame) == 1
}

/// All changes of all nodes since this was asked last.
fn changes(cluster: &mut Cluster, nodes: &[NodeId]) -> usize {
    nodes.iter().map(|node| cluster.changes(*node).len()).sum()
}
