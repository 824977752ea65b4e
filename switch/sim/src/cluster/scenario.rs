//! What scenarios do to a cluster.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use control::{
    Model,
    api::{EndpointCreate, NetworkCreate},
    cluster::Lost,
    overlay::TunnelChange,
    store::memory::Link,
};
use packet::Mac;
use vxlan::Drops;

use super::{
    Cluster, Happening, NodeId, Place,
    node::{Identity, Node, station},
};
use crate::link::Wire;

impl Cluster {
    /// A node joins.
    ///
    /// # Errors
    /// Another node has the name.
    pub fn join(&mut self, name: &str) -> Result<NodeId, String> {
        self.enter(name, true)
    }

    /// A node joins that only writes: it has a lease and what hangs on it, and does not keep up with the others, so that it
    /// needs little memory. What is sent to it is lost.
    ///
    /// # Errors
    /// Another node has the name.
    pub fn join_writing(&mut self, name: &str) -> Result<NodeId, String> {
        self.enter(name, false)
    }

    fn enter(&mut self, name: &str, follows: bool) -> Result<NodeId, String> {
        let number = self.places.len();
        let [_, _, high, low] = u32::try_from(number + 1).unwrap_or_default().to_be_bytes();
        let address = IpAddr::from(Ipv4Addr::new(192, 168, high, low));
        let identity = Identity { number, id: format!("state{number}"), name: name.into(), address };
        let place = Place { node: None, identity, follows, state: Model::default(), life: 0, wire: Wire::new(self.config.underlay), side: 0, link: Link::Whole };
        self.places.push(place);
        match self.live(number) {
            Ok(()) => {
                self.addresses.insert(address, number);
                Ok(NodeId(number))
            }
            Err(error) => {
                self.places.pop();
                Err(error)
            }
        }
    }

    /// A process starts where none is.
    fn live(&mut self, number: usize) -> Result<(), String> {
        self.advance_store();
        let seed = self.random.next_u64();
        let place = &mut self.places[number];
        let mut node = Node::new(place.identity.clone(), self.store.handle(), (self.config.lease, place.follows), (&self.pool, seed), self.now);
        node.restore(place.state.clone(), self.now);
        let pause = node.turn(self.config.watch, self.now).map_err(|error| error.to_string())?;
        let is_in_touch = node.is_in_touch();
        (place.node, place.link) = (Some(node), Link::Whole);
        place.life += 1;
        self.gone.remove(&number);
        self.set_in_touch(number, is_in_touch);
        // Nodes do not look at the watch all at once.
        let offset = self.random.below(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX).max(1));
        self.queue.push(self.now + Duration::from_nanos(offset), Happening::Turn(number, self.places[number].life));
        self.note(|| format!("node {number} starts"));
        Ok(())
    }

    /// A node ends without a word; its state stays.
    pub fn kill(&mut self, node: NodeId) {
        self.end(node.0, self.config.lease);
    }

    /// A node gives back what it has, and ends. Its state is lost.
    ///
    /// # Errors
    /// The store does not answer.
    pub fn leave(&mut self, node: NodeId) -> Result<(), String> {
        self.node(node).leave()?;
        self.end(node.0, Duration::ZERO);
        self.places[node.0].state = Model::default();
        Ok(())
    }

    fn end(&mut self, number: usize, known_for: Duration) {
        let place = &mut self.places[number];
        let Some(node) = place.node.take() else { panic!("node {number} has ended already") };
        place.life += 1;
        self.store.set_link(node.store.number(), Link::Cut);
        place.state = node.model;
        self.gone.insert(number, self.now + known_for);
        self.note(|| format!("node {number} ends"));
    }

    /// A node that was killed starts again.
    ///
    /// # Errors
    /// Another node has the name now.
    pub fn restart(&mut self, node: NodeId) -> Result<(), String> {
        self.live(node.0)
    }

    fn node(&mut self, node: NodeId) -> &mut Node {
        match self.places[node.0].node.as_mut() {
            Some(node) => node,
            None => panic!("node {} has ended", node.0),
        }
    }

    /// What a node acts on.
    #[must_use]
    pub fn model(&self, node: NodeId) -> &Model {
        let place = &self.places[node.0];
        place.node.as_ref().map_or(&place.state, |node| &node.model)
    }

    /// Changes to a node's tunnels since this was asked last.
    pub fn changes(&mut self, node: NodeId) -> Vec<TunnelChange> {
        std::mem::take(&mut self.node(node).changes)
    }

    /// Endpoints a node lost to others since this was asked last.
    pub fn lost(&mut self, node: NodeId) -> Vec<Lost> {
        std::mem::take(&mut self.node(node).lost)
    }

    /// What a node's tunnels dropped.
    #[must_use]
    pub fn drops(&self, node: NodeId) -> Option<&Drops> {
        self.places[node.0].node.as_ref().map(|node| node.plane.vtep.drops())
    }

    /// Makes a network of all nodes; gives its id.
    ///
    /// # Errors
    /// It is another's already, or the store does not answer.
    pub fn create_network(&mut self, node: NodeId, request: NetworkCreate) -> Result<String, String> {
        let request = NetworkCreate { driver: Some("overlay".into()), global: Some(true), ..request };
        let now = self.now;
        let made = self.node(node).create_network(&request, now);
        self.note(|| format!("node {} makes {}: {made:?}", node.0, request.name));
        made
    }

    /// Removes a network.
    ///
    /// # Errors
    /// Somebody is in it, or the store does not answer.
    pub fn remove_network(&mut self, node: NodeId, name: &str) -> Result<(), String> {
        let now = self.now;
        self.node(node).remove_network(name, now)
    }

    /// A sandbox starts with one endpoint; gives its address.
    ///
    /// # Errors
    /// Its name or its address is another's already, or the store does not answer.
    pub fn start(&mut self, node: NodeId, name: &str, request: &EndpointCreate) -> Result<IpAddr, String> {
        let now = self.now;
        let started = self.node(node).start(name, request, now);
        self.note(|| format!("node {} starts {name}: {started:?}", node.0));
        started
    }

    /// A sandbox ends.
    ///
    /// # Panics
    /// When it is not there.
    pub fn stop(&mut self, node: NodeId, name: &str) {
        let now = self.now;
        self.node(node).stop(name, now);
        self.note(|| format!("node {} stops {name}", node.0));
    }

    /// The link of a node to the store.
    pub fn set_store_link(&mut self, node: NodeId, link: Link) {
        let number = self.node(node).store.number();
        if link != Link::Whole {
            self.out_of_touch.insert(node.0);
        }
        self.store.set_link(number, link);
        self.places[node.0].link = link;
        self.note(|| format!("node {} to the store: {link:?}", node.0));
    }

    /// The store ends: nobody reaches it, and nothing in it changes.
    pub fn stop_store(&mut self) {
        self.is_stopped = true;
        self.set_store_links(Link::Cut);
    }

    /// It is there again. As etcd after an election, it gives all leases their whole time; watches have to begin anew.
    pub fn start_store(&mut self) {
        let backup = self.store.backup();
        self.store.advance(self.now);
        self.store.restore(&backup);
        self.is_stopped = false;
        self.set_store_links(Link::Whole);
    }

    /// The links of all nodes to the store.
    pub fn set_store_links(&mut self, link: Link) {
        for number in 0..self.places.len() {
            if self.places[number].node.is_some() {
                self.set_store_link(NodeId(number), link);
            }
        }
    }

    /// Moves a node to a side of the underlay: datagrams pass between nodes of one side only.
    pub fn set_side(&mut self, node: NodeId, side: u32) {
        self.places[node.0].side = side;
        self.note(|| format!("node {} is on side {side}", node.0));
    }

    /// A sandbox sends a frame to an address, or with none to all; gives the frame's number.
    ///
    /// # Panics
    /// When it is not in the network.
    pub fn send(&mut self, node: NodeId, sandbox: &str, network: &str, to: Option<Mac>) -> usize {
        let context = self.context();
        let now = self.now;
        let Some(place) = self.places[node.0].node.as_mut() else { panic!("{context}: node {} has ended", node.0) };
        let endpoint = place.model.network(network).ok().zip(place.model.sandbox(sandbox).ok());
        let endpoint = endpoint.and_then(|(network, sandbox)| sandbox.endpoints.iter().find(|endpoint| endpoint.network == network.id));
        let Some(&port) = endpoint.and_then(|endpoint| place.plane.ports.get(&endpoint.id)) else { panic!("{context}: {sandbox} is not in {network}") };
        let from = place.plane.stations[&port];
        let to = to.unwrap_or(Mac::BROADCAST);
        let Some((number, frame)) = self.ledger.frame(((node.0, port), from.vni), from.mac.get(), to, &self.pool) else { panic!("{context}: too many frames on their way") };
        let passed = place.plane.send(port, frame, now);
        self.pass(node.0, passed);
        number
    }

    /// How many stations that a frame was for have got it.
    #[must_use]
    pub fn reached(&self, frame: usize) -> u32 {
        self.ledger.reached(frame)
    }

    /// The Ethernet address of a sandbox's first endpoint.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn mac(&self, node: NodeId, sandbox: &str) -> Mac {
        match self.model(node).sandbox(sandbox).ok().and_then(|sandbox| sandbox.endpoints.first()) {
            Some(endpoint) => station(&endpoint.mac).get(),
            None => panic!("{sandbox} has no endpoint"),
        }
    }
}
