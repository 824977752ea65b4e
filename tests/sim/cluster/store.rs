//! A store that is away, from some or from all.

use control::{overlay::TunnelChange, store::memory::Link};
use packet::{Duration, UnicastMac};
use sim::cluster::{Cluster, ClusterConfig, NodeId};

use super::{SOON, at, changes, crowd, into, reaches};

fn everybody_reaches_everybody(cluster: &mut Cluster, nodes: &[NodeId]) -> bool {
    let pairs = (0..nodes.len()).flat_map(|from| (0..nodes.len()).filter(move |to| *to != from).map(move |to| (from, to)));
    pairs.into_iter().all(|(from, to)| reaches(cluster, (nodes[from], &format!("s{from}-0")), (nodes[to], &format!("s{to}-0"))))
}

/// A node that does not reach the store goes on as it was, and refuses what it would have to share; then it has what is new.
#[test]
fn a_node_without_the_store_goes_on() {
    let (mut cluster, nodes) = crowd(1, ClusterConfig::default(), 5, 2);
    changes(&mut cluster, &nodes);
    cluster.set_store_link(nodes[4], Link::Cut);
    cluster.run_for(Duration::from_secs(1));
    assert!(cluster.start(nodes[4], "new", &into("net")).expect_err("nobody can be asked").contains("cannot be used"));
    cluster.start(nodes[0], "new", &into("net")).expect("a free name");
    cluster.stop(nodes[4], "s4-1");
    cluster.run_for(Duration::from_secs(8));
    assert!(everybody_reaches_everybody(&mut cluster, &nodes));
    cluster.set_store_link(nodes[4], Link::Whole);
    let settled = cluster.settle(SOON);
    println!("a node that missed the store for 9 s: settled after {settled:?}");
    assert!(reaches(&mut cluster, (nodes[4], "s4-0"), (nodes[0], "new")));
}

/// V18: away for longer than its lease, it loses what others took meanwhile, and only that.
#[test]
fn v18_away_too_long_costs_what_others_took() {
    let (mut cluster, nodes) = crowd(2, ClusterConfig::default(), 5, 3);
    cluster.set_store_link(nodes[4], Link::Cut);
    cluster.settle(Duration::from_secs(16));
    let ip = cluster.mac(nodes[4], "s4-1").0;
    cluster.start(nodes[0], "taken", &at("net", [ip[2], ip[3], ip[4], ip[5]].into())).expect("the address is free");
    cluster.run_for(Duration::from_secs(30));
    cluster.set_store_link(nodes[4], Link::Whole);
    let settled = cluster.settle(SOON);
    println!("a node that missed the store for 45 s: settled after {settled:?}");
    let lost = cluster.lost(nodes[4]);
    assert!(lost.len() == 1 && lost[0].why.contains("taken on n0"), "{lost:?}");
    assert!(everybody_reaches_everybody(&mut cluster, &nodes));
    assert!(reaches(&mut cluster, (nodes[4], "s4-2"), (nodes[0], "taken")));
}

/// The store is down for a minute: networks go on, nothing new is shared, and when it is back nothing is done that was not needed.
#[test]
fn a_store_that_is_down_for_a_minute_costs_nothing() {
    let (mut cluster, nodes) = crowd(3, ClusterConfig::default(), 8, 3);
    changes(&mut cluster, &nodes);
    cluster.stop_store();
    for _ in 0..12 {
        cluster.run_for(Duration::from_secs(4));
        assert!(reaches(&mut cluster, (nodes[1], "s1-0"), (nodes[6], "s6-0")));
    }
    assert!(everybody_reaches_everybody(&mut cluster, &nodes));
    assert!(cluster.start(nodes[1], "new", &into("net")).is_err());
    cluster.run_for(Duration::from_secs(60).saturating_sub(Duration::from_secs(50)));
    cluster.start_store();
    let settled = cluster.settle(SOON);
    println!("a store that was down for 60 s: settled after {settled:?}");
    cluster.run_for(Duration::from_secs(60));
    assert_eq!(changes(&mut cluster, &nodes), 0);
    cluster.start(nodes[1], "new", &into("net")).expect("it answers again");
}

/// All are cut off from a store that lives, for a minute: all leases end, and everything is registered again. How long frames are
/// lost is measured.
#[test]
fn v18_all_cut_off_for_a_minute_register_again() {
    let (mut cluster, nodes) = crowd(4, ClusterConfig::default(), 8, 3);
    cluster.set_store_links(Link::Cut);
    cluster.run_for(Duration::from_secs(60));
    assert!(everybody_reaches_everybody(&mut cluster, &nodes));
    cluster.set_store_links(Link::Whole);
    let start = cluster.now();
    let mac = cluster.mac(nodes[6], "s6-0");
    let mut last_lost = Duration::ZERO;
    let mut lost = 0;
    while cluster.now().since(start) < SOON {
        let frame = cluster.send(nodes[1], "s1-0", "net", Some(mac));
        let sent = cluster.now().since(start);
        cluster.run_for(Duration::from_millis(5));
        if cluster.reached(frame) == 0 {
            (last_lost, lost) = (sent, lost + 1);
        }
    }
    println!("all cut off for 60 s: {lost} of 400 frames lost, the last {last_lost:?} after");
    assert!(last_lost < Duration::from_secs(1), "{last_lost:?}");
    cluster.settle(SOON);
    assert!(nodes.iter().all(|node| cluster.lost(*node).is_empty()) && everybody_reaches_everybody(&mut cluster, &nodes));
}

/// What happened while a node was cut off was forgotten by the store: it reads everything again, and does only what is new.
#[test]
fn a_compaction_during_a_partition_flaps_nothing() {
    let (mut cluster, nodes) = crowd(5, ClusterConfig::default(), 6, 10);
    cluster.set_store_link(nodes[5], Link::Cut);
    let gone = cluster.mac(nodes[0], "s0-0");
    cluster.stop(nodes[0], "s0-0");
    cluster.start(nodes[1], "new", &at("net", [10, 1, 7, 7].into())).expect("a free name");
    cluster.run_for(Duration::from_secs(2));
    changes(&mut cluster, &nodes);
    cluster.store().compact(cluster.store().revision());
    cluster.set_store_link(nodes[5], Link::Whole);
    let settled = cluster.settle(SOON);
    println!("a compaction during a partition: settled after {settled:?}");
    let station = |mac| UnicastMac::new(mac).expect("a station");
    let (new, gone) = (station(cluster.mac(nodes[1], "new")), station(gone));
    let expected = [
        TunnelChange::AddStation(new, "192.168.0.2:4789".parse().expect("an address")),
        TunnelChange::RemoveStation(gone),
        TunnelChange::AddNeighbour([10, 1, 7, 7].into(), new),
        TunnelChange::RemoveNeighbour([10, 1, gone.get().0[4], gone.get().0[5]].into()),
    ];
    assert_eq!(cluster.changes(nodes[5]), expected);
    assert_eq!(changes(&mut cluster, &nodes), 0, "and the others do nothing");
}
