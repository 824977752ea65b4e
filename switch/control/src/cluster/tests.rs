//! Clusters in memory and virtual time.

use packet::Instant;

mod mesh;
mod secrets;

use super::*;
use crate::{
    api::{EndpointCreate, NetworkCreate, SandboxCreate},
    model::{EndpointKind, Model},
    names::Zone,
    store::{
        Change, Compare, Seen, Store, StoreError, Transaction,
        memory::{Link, MemoryHandle, MemoryStore},
    },
};
use std::{collections::BTreeMap, time::Duration};

const LEASE: Duration = Duration::from_secs(15);

/// A node without a data plane.
struct TestNode {
    store: MemoryHandle,
    member: Member,
    replica: Replica,
    model: Model,
    ids: u32,
}

impl TestNode {
    fn new(store: &MemoryStore, number: u8) -> Self {
        let node = NodeRecord { id: format!("state{number}"), name: format!("node{number}"), ip: [192, 168, 88, number].into(), api_port: None, vxlan_port: 4789, since_ns: 0, station: Some(format!("06:00:00:00:00:{number:02x}")) };
        let keys = Keys::new(PREFIX).unwrap();
        let mut this = Self { store: store.handle(), member: Member::new(keys.clone(), node, LEASE), replica: Replica::new(keys), model: Model::default(), ids: u32::from(number) << 24 };
        this.sync();
        this
    }

    fn id(&mut self) -> String {
        self.ids += 1;
        format!("{:064x}", self.ids)
    }

    /// As after a start, or when something was lost.
    fn sync(&mut self) -> Vec<Lost> {
        self.try_sync().unwrap()
    }

    fn try_sync(&mut self) -> Result<Vec<Lost>, ClusterError> {
        let all = self.member.keys.all();
        let old = self.member.join(&mut self.store)?;
        let snapshot = self.store.range(&all)?;
        let revision = snapshot.revision;
        self.replica.reset(snapshot);
        let lost = self.member.register(&mut self.store, &mut self.replica, &self.model)?;
        if let Some(old) = old {
            self.store.revoke(old)?;
        }
        for lost in &lost {
            let sandbox = self.model.sandboxes.get_mut(&lost.sandbox).unwrap();
            sandbox.endpoints.retain(|endpoint| endpoint.network != lost.network);
        }
        self.store.watch(&all, revision)?;
        self.reconcile();
        Ok(lost)
    }

    fn reconcile(&mut self) {
        self.reconcile_but(&Elsewhere::default());
    }

    fn reconcile_but(&mut self, spared: &Elsewhere) {
        reconcile(&mut self.model, &self.replica, &self.member.node.name, 4789, spared);
    }

    /// What the watch says.
    fn catch_up(&mut self) {
        for seen in self.store.poll() {
            assert!(!matches!(seen, Seen::Lost));
            self.replica.see(seen);
        }
        self.reconcile();
    }

    fn create_network(&mut self, name: &str) -> Result<String, String> {
        for _ in 0..8 {
            let mut model = self.model.clone();
            let request = NetworkCreate { name: name.into(), driver: Some("overlay".into()), global: Some(true), ..NetworkCreate::default() };
            let id = self.id();
            let id = model.create_network(&request, id).map_err(|error| error.message)?;
            if self.member.create_network(&mut self.store, &mut self.replica, &model.networks[&id], None).map_err(|error| error.to_string())? {
                self.model = model;
                return Ok(id);
            }
            self.read_again();
        }
        panic!("never done");
    }

    fn read_again(&mut self) {
        let snapshot = self.store.range(&self.member.keys.all()).unwrap();
        self.replica.reset(snapshot);
        self.reconcile();
    }

    fn start(&mut self, name: &str, network: &str, request: EndpointCreate) -> Result<IpAddr, String> {
        let sandbox = self.id();
        self.model.create_sandbox(&SandboxCreate { name: Some(name.into()), ..SandboxCreate::default() }, sandbox.clone()).unwrap();
        let result = self.join(&sandbox, &EndpointCreate { network: network.into(), ..request });
        if result.is_err() {
            self.model.sandboxes.remove(&sandbox);
        }
        result
    }

    fn join(&mut self, sandbox: &str, request: &EndpointCreate) -> Result<IpAddr, String> {
        for _ in 0..8 {
            let mut model = self.model.clone();
            let id = self.id();
            let endpoint = model.create_endpoint(sandbox, request, id, EndpointKind::Tap).map_err(|error| error.message)?;
            if self.member.create_endpoint(&mut self.store, &mut self.replica, &model.networks[&endpoint.network], &model.sandboxes[sandbox], &endpoint).map_err(|error| error.to_string())? {
                self.model = model;
                return Ok(endpoint.addresses[0].ip());
            }
            self.read_again();
        }
        panic!("never done");
    }

    fn stop(&mut self, name: &str) -> Result<(), ClusterError> {
        let sandbox = self.model.sandbox(name).unwrap().clone();
        self.model.sandboxes.remove(&sandbox.id);
        sandbox.endpoints.iter().try_for_each(|endpoint| self.member.remove_endpoint(&mut self.store, &mut self.replica, &endpoint.network, &endpoint.id))
    }

    fn resolves(&self, network: &str, name: &str) -> bool {
        Zone::of(&self.model, &BTreeSet::from([network.to_owned()])).has(name)
    }
}

fn two() -> (MemoryStore, TestNode, TestNode) {
    let store = MemoryStore::new();
    let (one, two) = (TestNode::new(&store, 1), TestNode::new(&store, 2));
    (store, one, two)
}

fn plain() -> EndpointCreate {
    EndpointCreate::default()
}

#[test]
fn v8_v12_what_one_makes_the_other_has() {
    let (_store, mut one, mut two) = two();
    let id = one.create_network("my-overlay").unwrap();
    two.catch_up();
    assert_eq!(one.model.networks[&id], two.model.networks[&id]);
    assert_eq!(one.model.networks[&id].pools[0].subnet, "10.0.0.0/24".parse().unwrap());
    one.start("redis", "my-overlay", EndpointCreate { aliases: vec!["db".into()], ..plain() }).unwrap();
    let second = two.start("test2", "my-overlay", plain()).unwrap();
    assert_eq!(second, IpAddr::from([10, 0, 0, 3]), "the next free, though nobody told of the first");
    one.catch_up();
    two.catch_up();
    let overlay = two.model.networks[&id].overlay.clone().unwrap();
    let there = "192.168.88.1".parse().unwrap();
    assert_eq!((overlay.peers, overlay.stations, overlay.neighbours), (vec![there], BTreeMap::from([("02:42:0a:00:00:02".into(), there)]), BTreeMap::from([([10, 0, 0, 2].into(), "02:42:0a:00:00:02".into())])));
    let before = two.model.clone();
    two.read_again();
    assert_eq!(before, two.model, "nothing moves that did not change");
    assert!(two.resolves(&id, "redis") && two.resolves(&id, "db.my-overlay") && one.resolves(&id, "test2"));
    assert_eq!(one.model.remote_members(&id).count(), 1);
    // In use by the other: not to be removed, here or there.
    let error = one.model.clone().remove_network("my-overlay").unwrap_err();
    assert!(error.message.contains("test2 on node2"), "{error}");
    one.stop("redis").unwrap();
    two.catch_up();
    assert!(!two.resolves(&id, "redis") && two.model.networks[&id].overlay.as_ref().unwrap().peers.is_empty());
}

#[test]
fn v10_one_wins_a_name_an_address_a_network() {
    let (_store, mut one, mut two) = two();
    // Neither has heard of the other's.
    one.create_network("net").unwrap();
    assert_eq!(two.create_network("net").unwrap_err(), "network with name net already exists");
    one.start("redis", "net", plain()).unwrap();
    assert_eq!(two.start("redis", "net", plain()).unwrap_err(), "endpoint with name redis already exists in network net");
    one.start("a", "net", EndpointCreate { ip: Some([10, 0, 0, 9].into()), ..plain() }).unwrap();
    let error = two.start("b", "net", EndpointCreate { ip: Some([10, 0, 0, 9].into()), ..plain() }).unwrap_err();
    assert_eq!(error, "address 10.0.0.9 is already in use by a on node1");
    let (first, second) = (one.create_network("x").unwrap(), two.create_network("y").unwrap());
    one.catch_up();
    two.catch_up();
    let of = |id: &str| (two.model.networks[id].overlay.as_ref().unwrap().vni, two.model.networks[id].pools[0].subnet);
    assert_ne!(of(&first).0, of(&second).0);
    assert_ne!(of(&first).1, of(&second).1);
    // Who enters while it is removed is not left without a network.
    let network = one.model.networks[&first].clone();
    two.start("c", "x", plain()).unwrap();
    let error = one.member.remove_network(&mut one.store, &mut one.replica, &network).unwrap_err().to_string();
    assert_eq!(error.lines().next(), Some("network x has active endpoints: c on node2"));
    two.stop("c").unwrap();
    one.member.remove_network(&mut one.store, &mut one.replica, &network).unwrap();
    assert!(two.start("d", "x", plain()).unwrap_err().contains("no such network"));
}

#[test]
fn v2_a_name_is_of_one_node() {
    let (store, one, _two) = two();
    let mut node = one.member.node.clone();
    node.id = "another".into();
    let mut other = Member::new(one.member.keys.clone(), node.clone(), LEASE);
    let error = other.join(&mut store.handle()).unwrap_err();
    assert_eq!(error.to_string(), "a node named node1 is in the cluster already, at 192.168.88.1");
    store.advance(Instant::ZERO + LEASE + Duration::from_secs(1));
    assert_eq!(other.join(&mut store.handle()), Ok(None), "its lease has ended");
}

#[test]
fn a_restarted_node_takes_over_what_it_left() {
    let (_store, mut one, mut two) = two();
    let id = one.create_network("net").unwrap();
    one.start("kept", "net", plain()).unwrap();
    one.start("ended", "net", plain()).unwrap();
    two.catch_up();
    // Killed, and started again from its state file; one of its sandboxes ended meanwhile.
    let mut model = one.model.clone();
    let ended = model.sandbox("ended").unwrap().id.clone();
    model.sandboxes.remove(&ended);
    let (old, before) = (one.member.lease().unwrap(), two.model.elsewhere.endpoints.clone());
    let mut again = TestNode { member: Member::new(one.member.keys.clone(), one.member.node.clone(), LEASE), replica: Replica::new(one.member.keys.clone()), model, ..one };
    assert_eq!(again.sync(), []);
    assert_eq!(again.store.keep_alive(old), Err(StoreError::LeaseEnded));
    let seen = two.store.poll();
    assert!(seen.iter().all(|seen| !matches!(seen, Seen::Deleted { key, .. } if key.contains("kept"))), "it was never gone: {seen:?}");
    for seen in seen {
        two.replica.see(seen);
    }
    two.reconcile();
    let names: Vec<_> = two.model.remote_members(&id).map(|(_, endpoint)| endpoint.name.as_str()).collect();
    assert_eq!((names, before.len()), (vec!["kept"], 2));
    assert!(two.start("ended", "net", plain()).is_ok());
}

#[test]
fn v18_what_a_dead_node_had_is_free_and_never_has_two_owners() {
    let (store, mut one, mut two) = two();
    let id = one.create_network("net").unwrap();
    two.catch_up();
    let address = two.start("redis", "net", plain()).unwrap();
    two.start("other", "net", plain()).unwrap();
    // Cut off, not dead: its sandboxes run on.
    store.set_link(two.store.number(), Link::Cut);
    for second in 1..=20 {
        store.advance(Instant::ZERO + Duration::from_secs(second));
        one.store.keep_alive(one.member.lease().unwrap()).unwrap();
    }
    one.catch_up();
    assert_eq!(one.model.elsewhere.nodes.keys().collect::<Vec<_>>(), ["node1"]);
    assert_eq!(one.start("redis", "net", EndpointCreate { ip: Some("10.0.0.2".parse().unwrap()), ..plain() }), Ok(address));
    assert!(matches!(two.try_sync(), Err(ClusterError::Store(StoreError::Away(_)))));
    assert!(two.start("new", "net", plain()).unwrap_err().contains("cannot be reached"));
    store.set_link(two.store.number(), Link::Whole);
    let lost = two.sync();
    assert_eq!(lost.len(), 1);
    assert!(lost[0].why.contains("was taken by redis on node1"), "{lost:?}");
    one.catch_up();
    let owners: Vec<_> = one.model.remote_members(&id).map(|(_, endpoint)| endpoint.name.as_str()).collect();
    assert_eq!(owners, ["other"]);
    assert!(two.model.sandbox("redis").unwrap().endpoints.is_empty());
}

#[test]
fn what_got_no_answer_is_undone_when_the_store_is_back() {
    let (store, mut one, mut two) = two();
    let id = one.create_network("net").unwrap();
    two.catch_up();
    store.set_link(two.store.number(), Link::Deaf);
    assert!(two.start("ghost", "net", plain()).is_err() && two.create_network("ghost-net").is_err());
    one.catch_up();
    assert_eq!((one.model.remote_members(&id).count(), one.model.networks.len()), (1, 2), "it was carried out, and its maker not told");
    store.set_link(two.store.number(), Link::Whole);
    assert_eq!(two.sync(), []);
    one.catch_up();
    assert_eq!((one.model.remote_members(&id).count(), one.model.networks.len()), (0, 1));
    assert!(one.start("ghost", "net", plain()).is_ok() && one.create_network("ghost-net").is_ok());
}

/// After an outage that no lease outlived: what was known stays until it is back, or another's.
#[test]
fn who_is_missing_after_an_outage_may_come_back() {
    let (store, mut one, mut two) = two();
    let id = one.create_network("net").unwrap();
    for name in ["a", "b", "c"] {
        one.start(name, "net", plain()).unwrap();
    }
    two.catch_up();
    store.advance(Instant::ZERO + LEASE + Duration::from_secs(1));
    let before = two.model.clone();
    // The second is back first.
    two.sync();
    assert_eq!(two.model.remote_members(&id).count(), 0);
    let spared = missing(&before.elsewhere, &two.replica);
    two.reconcile_but(&spared);
    assert_eq!((&two.model.elsewhere, &two.model.networks), (&before.elsewhere, &before.networks), "nothing moves");
    // One name is another's now; one has ended meanwhile.
    two.reconcile();
    two.start("a", "net", EndpointCreate { ip: Some([10, 0, 0, 50].into()), ..plain() }).unwrap();
    let spared = missing(&spared, &two.replica);
    two.reconcile_but(&spared);
    let names = |node: &TestNode| node.model.remote_members(&id).map(|(_, endpoint)| endpoint.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&two), ["b", "c"]);
    let gone = one.model.sandbox("b").unwrap().id.clone();
    one.model.sandboxes.remove(&gone);
    one.sync();
    two.catch_up();
    let spared = missing(&spared, &two.replica);
    assert_eq!((spared.nodes.len(), spared.endpoints.values().map(|endpoint| endpoint.name.as_str()).collect::<Vec<_>>()), (0, vec!["b"]));
    two.reconcile();
    assert_eq!(names(&two), ["c"]);
}

#[test]
fn a_store_put_back_to_before_gets_what_is_there_now() {
    let (store, mut one, mut two) = two();
    let backup = store.backup();
    let id = one.create_network("net").unwrap();
    one.start("a", "net", plain()).unwrap();
    two.catch_up();
    two.start("b", "net", plain()).unwrap();
    store.restore(&backup);
    assert_eq!((one.sync(), two.sync()), (vec![], vec![]));
    one.catch_up();
    for node in [&one, &two] {
        assert_eq!((node.model.members(&id).count(), node.model.remote_members(&id).count()), (1, 1));
    }
}

#[test]
fn a_renamed_endpoint_moves_its_name() {
    let (_store, mut one, mut two) = two();
    let id = one.create_network("net").unwrap();
    one.start("old", "net", plain()).unwrap();
    two.catch_up();
    two.start("taken", "net", plain()).unwrap();
    let rename = |node: &mut TestNode, name: &str| {
        let mut sandbox = node.model.sandboxes.values().next().unwrap().clone();
        sandbox.name = name.into();
        node.model.sandboxes.insert(sandbox.id.clone(), sandbox.clone());
        node.member.update_endpoint(&mut node.store, &mut node.replica, &node.model, &sandbox, &sandbox.endpoints[0])
    };
    assert_eq!(rename(&mut one, "taken"), Ok(false));
    assert_eq!(rename(&mut one, "new"), Ok(true));
    two.catch_up();
    let names: Vec<_> = two.model.remote_members(&id).map(|(_, endpoint)| endpoint.name.as_str()).collect();
    assert!(two.resolves(&id, "new") && names == ["new"], "{names:?}");
    assert!(two.start("old", "net", plain()).is_ok());
}

#[test]
fn later_versions_and_damage_are_named_and_left_alone() {
    let (store, mut one, _) = two();
    let keys = one.member.keys.clone();
    let id = "e".repeat(64);
    for (value, expected) in [(r#"{"version":3,"new":1}"#, "has version 3"), (r#"{"version":1}"#, "cannot be read"), ("\u{0}", "cannot be read")] {
        let then = vec![Change::Put { key: keys.network(&id), value: value.into(), lease: None }];
        store.handle().transact(&Transaction { when: vec![], then }).unwrap();
        one.catch_up();
        let problems: Vec<_> = one.replica.problems().collect();
        assert!(problems.len() == 1 && problems[0].contains(expected) && problems[0].contains(&id), "{problems:?}");
        assert!(one.model.networks.is_empty());
    }
    // A field more is no harm.
    let name = one.create_network("net").unwrap();
    let key = keys.network(&name);
    let entry = one.store.range(&key).unwrap().entries.remove(0);
    let more = String::from_utf8(entry.value).unwrap().replacen('{', "{\"later\":[1],", 1);
    store.handle().transact(&Transaction { when: vec![Compare::Present(key.clone())], then: vec![Change::Put { key, value: more.into(), lease: None }] }).unwrap();
    one.catch_up();
    assert!(one.model.networks.contains_key(&name));
}

fn serving() -> EndpointCreate {
    EndpointCreate { vips: vec!["web".into()], ..plain() }
}

#[test]
fn c13_a_service_has_one_address_on_all_nodes() {
    let (store, mut one, mut two) = two();
    let id = one.create_network("net").unwrap();
    two.catch_up();
    let vip = |node: &TestNode| node.model.networks[&id].vips.get("web").cloned();
    // Neither has heard of the other's: who comes second takes the address of the first.
    one.start("w1", "net", serving()).unwrap();
    two.start("w2", "net", serving()).unwrap();
    one.catch_up();
    assert!(vip(&one).is_some() && vip(&one) == vip(&two));
    for node in [&one, &two] {
        let served = node.model.served(&node.model.networks[&id]);
        assert_eq!((served.len(), served[0].endpoints.len()), (1, 2));
        assert!(node.resolves(&id, "web"));
    }
    // Its name and address are nobody else's, though the other has not heard of them.
    let mut three = TestNode::new(&store, 3);
    assert!(three.start("web", "net", plain()).unwrap_err().contains("service"));
    let IpAddr::V4(taken) = vip(&one).unwrap()[0] else { panic!("IPv4") };
    assert!(three.start("x", "net", EndpointCreate { ip: Some(taken), ..plain() }).unwrap_err().contains("service web"));
    // Who dies leaves it to those that live, and the last one gives it back.
    store.advance(Instant::ZERO + LEASE / 2);
    one.store.keep_alive(one.member.lease().unwrap()).unwrap();
    store.advance(Instant::ZERO + LEASE + LEASE / 4);
    one.read_again();
    assert_eq!(one.model.served(&one.model.networks[&id])[0].endpoints.len(), 1);
    assert!(!one.member.prune(&mut one.store, &mut one.replica).unwrap());
    one.stop("w1").unwrap();
    assert!(one.member.prune(&mut one.store, &mut one.replica).unwrap());
    one.reconcile();
    assert_eq!(vip(&one), None);
    assert!(one.store.range(&one.member.keys.vip(&id, "")).unwrap().entries.is_empty());
    one.start("web", "net", EndpointCreate { ip: Some(taken), ..plain() }).unwrap();
}

#[test]
fn c13_who_joins_while_it_is_given_back_keeps_it() {
    let (_store, mut one, mut two) = two();
    let id = one.create_network("net").unwrap();
    two.catch_up();
    one.start("w1", "net", serving()).unwrap();
    two.catch_up();
    one.stop("w1").unwrap();
    two.start("w2", "net", serving()).unwrap();
    assert!(!one.member.prune(&mut one.store, &mut one.replica).unwrap(), "it has not heard of w2");
    one.catch_up();
    assert!(one.model.networks[&id].vips.contains_key("web"));
}

#[test]
fn x5_two_services_want_one_port_at_the_same_time() {
    let (_store, mut one, mut two) = two();
    let (request, id) = (mesh::ingress(), one.create_mesh());
    // O7: at most one, though the other has not heard of it.
    let mut model = two.model.clone();
    model.create_network(&NetworkCreate { name: "other".into(), subnets: vec!["10.77.0.0/24".parse().unwrap()], ..request }, "f".repeat(64)).unwrap();
    assert_eq!(two.member.create_network(&mut two.store, &mut two.replica, &model.networks[&"f".repeat(64)], None), Ok(false));
    two.read_again();
    // Each node's station is known to the other, before anybody is in the network.
    assert!(one.model.networks[&id].overlay.as_ref().unwrap().stations.is_empty());
    one.read_again();
    assert!(one.model.networks[&id].overlay.as_ref().unwrap().stations.contains_key("06:00:00:00:00:02"));
    one.start("a", "mesh", plain()).unwrap();
    two.start("b", "mesh", plain()).unwrap();
    one.catch_up();
    two.catch_up();
    assert_eq!(one.try_publish("a", &["8080:80"]), Ok(Some(vec![8080])));
    assert_eq!(two.try_publish("b", &["8080:80"]), Ok(None), "somebody came first");
    two.read_again();
    assert_eq!(two.try_publish("b", &["8080:80"]), Err("port '8080' is already in use by service 'a' as an ingress port".into()));
    let replicas = two.model.mesh_services()[&(Protocol::Tcp, 8080)].replicas.clone();
    assert_eq!((replicas.len(), replicas[0].node.as_deref()), (1, Some("node1")));
}

#[test]
fn news_that_is_older_than_what_is_known_is_none() {
    let (_store, mut one, mut two) = two();
    let id = one.create_network("net").unwrap();
    // Read before the watch told of it: then the watch tells of what is gone.
    two.read_again();
    let network = two.model.networks[&id].clone();
    two.member.remove_network(&mut two.store, &mut two.replica, &network).unwrap();
    two.catch_up();
    assert!(two.model.networks.is_empty());
    one.catch_up();
    one.reconcile();
    assert!(one.model.networks.is_empty());
}

proptest::proptest! {
    /// Whatever the order, cuts and deaths: no name and no address has two owners in the store, and who is in touch agrees.
    #[test]
    fn never_two_owners(steps in proptest::collection::vec((0..3_usize, 0..8_u8, 0..4_u8), 1..60)) {
        let store = MemoryStore::new();
        let mut nodes: Vec<_> = (1..=3).map(|number| TestNode::new(&store, number)).collect();
        nodes[0].create_network("net").unwrap();
        let mut seconds = 0;
        for (at, what, which) in steps {
            let node = &mut nodes[at];
            let name = format!("s{which}");
            match what {
                0 | 1 => drop(node.model.sandbox(&name).is_err().then(|| node.start(&name, "net", plain()).is_ok())),
                2 => drop(node.model.sandbox(&name).is_ok().then(|| node.stop(&name).is_ok())),
                3 => store.set_link(node.store.number(), Link::Cut),
                4 => store.set_link(node.store.number(), Link::Deaf),
                5 => {
                    store.set_link(node.store.number(), Link::Whole);
                    node.sync();
                }
                6 => {
                    seconds += u64::from(which) * 4;
                    store.advance(Instant::ZERO + Duration::from_secs(seconds));
                }
                _ => drop(node.member.lease().map(|lease| node.store.keep_alive(lease))),
            }
        }
        for node in &mut nodes {
            store.set_link(node.store.number(), Link::Whole);
            node.sync();
        }
        nodes.iter_mut().for_each(TestNode::read_again);
        let own: Vec<_> = nodes.iter().flat_map(|node| node.model.sandboxes.values()).filter_map(|sandbox| Some((sandbox.name.clone(), sandbox.endpoints.first()?.addresses[0].ip()))).collect();
        let (names, addresses): (BTreeSet<_>, BTreeSet<_>) = own.iter().cloned().unzip();
        proptest::prop_assert_eq!((names.len(), addresses.len()), (own.len(), own.len()), "{:?}", own);
        for node in &nodes {
            let network = node.model.network("net").unwrap().id.clone();
            proptest::prop_assert_eq!(node.model.members(&network).count() + node.model.remote_members(&network).count(), own.len());
        }
    }
}
