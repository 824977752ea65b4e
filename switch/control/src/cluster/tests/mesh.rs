//! Ports of the routing mesh: one service each, whoever comes first, dies or cannot be heard.

use proptest::collection::vec;

use super::*;
use crate::publish;

pub(super) fn ingress() -> NetworkCreate {
    NetworkCreate { name: "mesh".into(), driver: Some("overlay".into()), global: Some(true), ingress: true, ..NetworkCreate::default() }
}

fn serving(service: &str) -> EndpointCreate {
    EndpointCreate { aliases: vec![service.into()], ..plain() }
}

impl TestNode {
    pub(super) fn create_mesh(&mut self) -> String {
        let id = self.id();
        self.model.create_network(&ingress(), id.clone()).unwrap();
        assert_eq!(self.member.create_network(&mut self.store, &mut self.replica, &self.model.networks[&id], None), Ok(true));
        id
    }

    /// One try of the daemon's; nothing when another node was quicker.
    pub(super) fn try_publish(&mut self, name: &str, specs: &[&str]) -> Result<Option<Vec<u16>>, String> {
        let mut sandbox = self.model.sandbox(name).unwrap().clone();
        for request in specs.iter().flat_map(|spec| publish::parse(spec).unwrap()) {
            let host_port = self.model.choose_mesh_port(&sandbox, &sandbox.endpoints[0], &request).map_err(|error| error.message)?;
            sandbox.publishes.push(crate::Published { host_ip: None, host_port, port: request.port, protocol: request.protocol });
        }
        let done = self.member.update_endpoint(&mut self.store, &mut self.replica, &self.model, &sandbox, &sandbox.endpoints[0]).map_err(|error| error.to_string())?;
        let ports = sandbox.publishes.iter().map(|published| published.host_port).collect();
        Ok(done.then(|| {
            self.model.sandboxes.insert(sandbox.id.clone(), sandbox);
            self.reconcile();
            ports
        }))
    }

    fn publish(&mut self, name: &str, spec: &str) -> Result<Vec<u16>, String> {
        for _ in 0..8 {
            if let Some(ports) = self.try_publish(name, &[spec])? {
                return Ok(ports);
            }
            self.read_again();
        }
        panic!("never done");
    }

    /// A replica of a service that is called as it, or none of it.
    fn serve(&mut self, name: &str, service: &str, spec: &str) -> Result<Vec<u16>, String> {
        self.start(name, "mesh", serving(service))?;
        let published = self.publish(name, spec);
        if published.is_err() {
            self.end(name);
        }
        published
    }

    /// What the daemon does when a sandbox ends.
    fn end(&mut self, name: &str) {
        if self.stop(name).is_ok() {
            self.member.prune(&mut self.store, &mut self.replica).ok();
        }
        self.reconcile();
    }

    fn claims(&mut self) -> Vec<String> {
        let key = format!("{}weft/mesh/", self.member.keys.all());
        self.store.range(&key).unwrap().entries.into_iter().map(|entry| entry.key.rsplit('/').next().unwrap().to_owned()).collect()
    }

    /// Who has a port, and how many serve it.
    fn service(&self, port: u16) -> Option<(String, usize)> {
        self.model.mesh_services().get(&(Protocol::Tcp, port)).map(|service| (service.name.clone(), service.replicas.len()))
    }
}

fn three() -> (MemoryStore, Vec<TestNode>) {
    let store = MemoryStore::new();
    let mut nodes: Vec<_> = (1..=3).map(|number| TestNode::new(&store, number)).collect();
    nodes[0].create_mesh();
    nodes.iter_mut().for_each(TestNode::catch_up);
    (store, nodes)
}

/// All orders of `steps` steps each of three.
fn orders(steps: [usize; 3]) -> Vec<Vec<usize>> {
    if steps == [0; 3] {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for who in (0..3).filter(|who| steps[*who] > 0) {
        let mut left = steps;
        left[who] -= 1;
        all.extend(orders(left).into_iter().map(|rest| [vec![who], rest].concat()));
    }
    all
}

/// X5: in whatever order three nodes join the network, choose, and are refused: one gets the port, and the others are told whose it
/// is. With `hears`, a node hears of the others between any two of its steps, as the keeper does; else only when it is refused.
fn race(hears: bool) {
    for order in orders([3; 3]) {
        let (_store, mut nodes) = three();
        let mut told: [Option<Result<u16, String>>; 3] = [None, None, None];
        let mut steps = [0; 3];
        for who in order.iter().copied() {
            let (node, name) = (&mut nodes[who], format!("s{who}"));
            if hears {
                node.catch_up();
            }
            match steps[who] {
                0 => drop(node.start(&name, "mesh", plain()).unwrap()),
                _ if told[who].is_some() => {}
                _ => match node.try_publish(&name, &["8080:80"]) {
                    Ok(Some(ports)) => told[who] = Some(Ok(ports[0])),
                    Ok(None) => node.read_again(),
                    Err(error) => told[who] = Some(Err(error)),
                },
            }
            steps[who] += 1;
        }
        let winners: Vec<_> = (0..3).filter(|who| matches!(told[*who], Some(Ok(8080)))).collect();
        assert_eq!(winners.len(), 1, "{order:?}: {told:?}");
        let refused = format!("port '8080' is already in use by service 's{}' as an ingress port", winners[0]);
        for who in (0..3).filter(|who| *who != winners[0]) {
            assert_eq!(told[who], Some(Err(refused.clone())), "{order:?}");
        }
        nodes.iter_mut().for_each(TestNode::read_again);
        assert!(nodes.iter().all(|node| node.service(8080) == Some((format!("s{}", winners[0]), 1))), "{order:?}");
    }
}

#[test]
fn x5_of_racing_services_one_gets_the_port() {
    race(false);
}

#[test]
fn x5_of_racing_services_that_hear_of_each_other_one_gets_the_port() {
    race(true);
}

#[test]
fn x5_who_was_refused_a_port_that_he_left_open_gets_another() {
    let (_store, mut nodes) = three();
    for (who, expected) in [30_000, 30_001, 30_002].into_iter().enumerate() {
        assert_eq!(nodes[who].serve(&format!("s{who}"), &format!("s{who}"), "80"), Ok(vec![expected]));
    }
}

#[test]
fn x5_a_port_is_given_back_with_the_last_replica() {
    let (_store, mut nodes) = three();
    nodes[0].serve("w0", "web", "8080:80").unwrap();
    nodes[1].serve("w1", "web", "8080:80").unwrap();
    nodes[0].end("w0");
    assert_eq!(nodes[0].claims(), ["8080"], "who ended had heard nothing of the other, and leaves him the port");
    let refused = "port '8080' is already in use by service 'web' as an ingress port";
    assert_eq!(nodes[2].serve("a", "api", "8080:80").unwrap_err(), refused);
    nodes[1].catch_up();
    nodes[1].end("w1");
    assert!(nodes[1].claims().is_empty());
    nodes[2].catch_up();
    assert_eq!(nodes[2].serve("a", "api", "8080:80"), Ok(vec![8080]));
    // TCP and UDP are two; and it goes with the network.
    nodes[0].catch_up();
    nodes[0].serve("u", "udp", "8080:80/udp").unwrap();
    assert_eq!(nodes[0].claims(), ["8080", "8080"]);
}

#[test]
fn x5_a_node_that_dies_leaves_its_ports_to_fellows_and_else_to_anybody() {
    let (store, mut nodes) = three();
    nodes[0].serve("w0", "web", "8080:80").unwrap();
    nodes[1].serve("w1", "web", "8080:80").unwrap();
    nodes[0].serve("a0", "api", "9090:80").unwrap();
    for second in 1..=20 {
        store.advance(Instant::ZERO + Duration::from_secs(second));
        for node in &mut nodes[1..] {
            node.store.keep_alive(node.member.lease().unwrap()).unwrap();
        }
    }
    nodes[2].catch_up();
    // Nobody has given back what the dead node had alone: it keeps nobody from it.
    assert_eq!(nodes[2].claims(), ["8080", "9090"]);
    nodes[2].start("x", "mesh", EndpointCreate { ip: Some([10, 0, 0, 50].into()), ..serving("other") }).unwrap();
    assert_eq!(nodes[2].publish("x", "9090:80"), Ok(vec![9090]));
    assert!(nodes[2].serve("y", "other2", "8080:80").is_err());
    // It comes back: what was taken meanwhile is not its any more, its replicas go on.
    assert_eq!(nodes[0].sync(), []);
    nodes.iter_mut().for_each(TestNode::read_again);
    for node in &nodes {
        assert_eq!((node.service(8080), node.service(9090)), (Some(("web".into(), 2)), Some(("other".into(), 1))));
    }
    let late = |node: &TestNode| node.model.mesh_latecomers(&node.model.mesh_services()).len();
    assert_eq!((late(&nodes[0]), late(&nodes[2])), (1, 0));
    // It waits, and has it when the other ends.
    nodes[2].end("x");
    nodes[0].sync();
    assert_eq!((nodes[0].service(9090), late(&nodes[0])), (Some(("api".into(), 1)), 0));
    assert!(nodes[1].serve("z", "third", "9090:80").is_err());
}

#[test]
fn x5_many_ports_are_all_or_none() {
    let (_store, mut nodes) = three();
    nodes[1].start("many", "mesh", plain()).unwrap();
    nodes[0].serve("one", "one", "8200:80").unwrap();
    let spec = ["8000-8299:8000-8299"];
    assert_eq!(nodes[1].try_publish("many", &spec), Ok(None));
    nodes[1].read_again();
    assert!(nodes[1].try_publish("many", &spec).unwrap_err().contains("'8200' is already in use by service 'one'"));
    nodes[1].end("many");
    assert_eq!(nodes[1].claims(), ["8200"]);
    nodes[0].end("one");
    nodes[1].catch_up();
    nodes[1].start("many", "mesh", plain()).unwrap();
    assert_eq!(nodes[1].publish("many", spec[0]).map(|ports| ports.len()), Ok(300));
    assert_eq!(nodes[2].serve("late", "late", "8299:80").unwrap_err(), "port '8299' is already in use by service 'many' as an ingress port");
}

#[test]
fn x5_a_service_that_is_renamed_takes_its_port_along() {
    let (_store, mut nodes) = three();
    nodes[0].serve("w0", "w0", "8080:80").unwrap();
    let mut sandbox = nodes[0].model.sandbox("w0").unwrap().clone();
    sandbox.name = "renamed".into();
    sandbox.endpoints[0].aliases.clear();
    let node = &mut nodes[0];
    assert_eq!(node.member.update_endpoint(&mut node.store, &mut node.replica, &node.model, &sandbox, &sandbox.endpoints[0]), Ok(true));
    assert!(nodes[1].serve("x", "x", "8080:80").unwrap_err().contains("service 'renamed'"));
}

proptest::proptest! {
    /// Whatever the order, cuts and deaths: a port has one service, all nodes agree whose it is, and nobody has what nobody serves.
    #[test]
    fn x5_never_two_services(steps in vec((0..3_usize, 0..10_u8, 0..3_u8), 1..60)) {
        let (store, mut nodes) = three();
        let mut seconds = 0;
        for (at, what, which) in steps {
            let node = &mut nodes[at];
            let name = format!("s{at}-{which}");
            match what {
                0..=2 => drop(node.model.sandbox(&name).is_err().then(|| node.serve(&name, &format!("web{which}"), "8080:80").is_ok())),
                3 => drop(node.model.sandbox(&name).is_ok().then(|| node.end(&name))),
                4 => store.set_link(node.store.number(), Link::Cut),
                5 => store.set_link(node.store.number(), Link::Deaf),
                6 => {
                    store.set_link(node.store.number(), Link::Whole);
                    node.sync();
                }
                7 => {
                    seconds += u64::from(which) * 4;
                    store.advance(Instant::ZERO + Duration::from_secs(seconds));
                }
                8 => drop(node.member.lease().map(|lease| node.store.keep_alive(lease))),
                _ => node.member.prune(&mut node.store, &mut node.replica).map_or((), |_| node.reconcile()),
            }
        }
        for node in &mut nodes {
            store.set_link(node.store.number(), Link::Whole);
            node.sync();
        }
        let first = &mut nodes[0];
        first.read_again();
        first.member.prune(&mut first.store, &mut first.replica).unwrap();
        // Who waits is told that the port is free, and asks.
        for node in &mut nodes {
            node.sync();
        }
        nodes.iter_mut().for_each(TestNode::read_again);
        let claims = nodes[0].claims();
        let service = nodes[0].service(8080);
        proptest::prop_assert_eq!(claims.len(), usize::from(service.is_some()));
        for node in &nodes {
            proptest::prop_assert_eq!(node.service(8080), service.clone());
            let claim = node.model.elsewhere.mesh.get("tcp/8080").map(|claim| claim.service.clone());
            proptest::prop_assert_eq!(claim, service.clone().map(|(name, _)| name));
        }
    }
}
