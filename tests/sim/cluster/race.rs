//! Several want the same at once.

use control::{api::NetworkCreate, store::memory::Link};
use packet::Duration;
use sim::{
    Random,
    cluster::{Cluster, ClusterConfig, NodeId},
};

use super::{SOON, at, into, network, nodes};

/// What is wanted.
#[derive(Clone, Copy, Debug)]
enum Prize {
    Name,
    Address,
    NetworkName,
    Vni,
}

impl Prize {
    /// The `which`th tries to get it.
    fn try_for(self, cluster: &mut Cluster, (which, node): (usize, NodeId)) -> Result<(), String> {
        match self {
            Self::Name => cluster.start(node, "redis", &into("net")).map(drop),
            Self::Address => cluster.start(node, &format!("of{which}"), &at("net", [10, 1, 0, 77].into())).map(drop),
            Self::NetworkName => cluster.create_network(node, NetworkCreate { name: "wanted".into(), ..NetworkCreate::default() }).map(drop),
            Self::Vni => cluster.create_network(node, NetworkCreate { name: format!("of{which}"), vni: Some(7000), ..NetworkCreate::default() }).map(drop),
        }
    }

    /// How many have it, as a node sees it.
    fn owners(self, cluster: &Cluster, node: NodeId) -> usize {
        let model = cluster.model(node);
        let (name, ip) = ("redis", std::net::IpAddr::from([10, 1, 0, 77]));
        let own = || model.sandboxes.values().flat_map(|sandbox| sandbox.endpoints.iter().map(move |endpoint| (&sandbox.name, &endpoint.addresses)));
        let others = || model.elsewhere.endpoints.values().map(|endpoint| (&endpoint.name, &endpoint.addresses));
        let all = || own().chain(others());
        match self {
            Self::Name => all().filter(|(other, _)| *other == name).count(),
            Self::Address => all().filter(|(_, addresses)| addresses.iter().any(|address| address.ip() == ip)).count(),
            Self::NetworkName => model.networks.values().filter(|network| network.name == "wanted").count(),
            Self::Vni => model.networks.values().filter(|network| network.overlay.as_ref().is_some_and(|overlay| overlay.vni == 7000)).count(),
        }
    }
}

/// V10: of two to four nodes that want one name, address, network or VNI at the same time, exactly one gets it, whatever they have
/// heard of each other; one whose question got no answer has nothing in the end.
#[test]
fn v10_exactly_one_wins() {
    let mut unanswered = 0;
    for seed in 0..1000 {
        let mut random = Random::new(seed);
        let prize = [Prize::Name, Prize::Address, Prize::NetworkName, Prize::Vni][usize::try_from(seed % 4).expect("small")];
        let count = 2 + usize::try_from(random.below(3)).expect("small");
        let (mut cluster, mut nodes) = nodes(seed, ClusterConfig::default(), count);
        cluster.create_network(nodes[0], network("net", "10.1.0.0/16")).expect("a free network");
        cluster.settle(SOON);
        for place in (1..count).rev() {
            nodes.swap(place, usize::try_from(random.below(place as u64 + 1)).expect("small"));
        }
        // The first one's answer may be lost: then it is carried out, and it does not know.
        let is_deaf = random.below(4) == 0;
        if is_deaf {
            unanswered += 1;
            cluster.set_store_link(nodes[0], Link::Deaf);
        }
        let mut winners = 0;
        for contender in nodes.iter().copied().enumerate() {
            winners += usize::from(prize.try_for(&mut cluster, contender).is_ok());
            cluster.run_for(Duration::from_micros(random.below(2) * random.below(15_000)));
        }
        assert_eq!(winners, usize::from(!is_deaf), "seed {seed}: {prize:?}");
        if is_deaf {
            cluster.set_store_link(nodes[0], Link::Whole);
            cluster.run_for(SOON);
            let again = nodes.iter().copied().enumerate().filter(|contender| prize.try_for(&mut cluster, *contender).is_ok()).count();
            assert_eq!(again, 1, "seed {seed}: {prize:?} is free again, and one has it");
        }
        cluster.settle(SOON);
        for &node in &nodes {
            assert_eq!(prize.owners(&cluster, node), 1, "seed {seed}: {prize:?} as {node:?} sees it");
        }
    }
    assert!(unanswered > 200);
}

/// V10: networks whose numbers nobody chose have different ones, and different subnets, though they were made at once.
#[test]
fn v10_what_is_chosen_for_them_differs() {
    for seed in 0..50 {
        let (mut cluster, nodes) = nodes(seed, ClusterConfig::default(), 8);
        for (number, &node) in nodes.iter().enumerate() {
            cluster.create_network(node, NetworkCreate { name: format!("net{number}"), ..NetworkCreate::default() }).expect("a free name");
        }
        for (number, &node) in nodes.iter().enumerate() {
            cluster.start(node, &format!("s{number}"), &into("net0")).expect("a free address");
        }
        cluster.settle(SOON);
        let model = cluster.model(nodes[0]);
        let mut taken: Vec<_> = model.networks.values().map(|network| (network.overlay.as_ref().expect("an overlay").vni, network.pools[0].subnet)).collect();
        taken.sort_unstable();
        assert!(taken.len() == 8 && taken.windows(2).all(|pair| pair[0].0 != pair[1].0 && pair[0].1 != pair[1].1), "seed {seed}: {taken:?}");
    }
}
