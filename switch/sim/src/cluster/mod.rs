//! Clusters in virtual time: nodes that share networks through a store in memory, and an underlay between them that delays,
//! loses, doubles and reorders datagrams, and falls apart. One seed gives one run: the same log, line by line.
//!
//! Each [`Node`](node::Node) has what the daemon has: a member and a replica of the store (`control::cluster`), a switch, and a
//! VXLAN endpoint. What must hold is asked at every datagram and every delivery (`ledger.rs`).

mod ledger;
mod node;
mod plane;
mod scenario;
mod settled;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use control::store::memory::{Link, MemoryStore};
use packet::{Frame, Instant, Pool, PoolConfig, Vni};
use vxlan::{Datagram, Outer};

pub use ledger::Traffic;
use ledger::Ledger;
use node::Node;
use plane::Passed;

use crate::{
    link::{LinkConfig, Wire},
    queue::Queue,
    random::Random,
};

/// How long after a node's record has gone nobody sends there any more, given that the store answers.
const GRACE: Duration = Duration::from_secs(1);

/// A node of a cluster. The next life of a node that was restarted has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(usize);

/// How a cluster is.
#[derive(Clone, Copy, Debug)]
pub struct ClusterConfig {
    /// How long what a node has outlives it.
    pub lease: Duration,
    /// Pause between two looks at the watch: how late news come.
    pub watch: Duration,
    /// What happens to datagrams of a node.
    pub underlay: LinkConfig,
}

impl Default for ClusterConfig {
    /// The daemon's lease; news after up to 20 ms; 200 us between nodes.
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), watch: Duration::from_millis(20), underlay: LinkConfig { delay: Duration::from_micros(200), ..LinkConfig::default() } }
    }
}

enum Happening {
    /// The keeper of this life of a node looks around.
    Turn(usize, u32),
    /// A datagram arrives.
    Arrival(usize, Outer, Frame),
    /// The store's clock.
    LeaseEnds,
}

/// A place in the cluster, whoever is there.
struct Place {
    /// Nobody when it ended.
    node: Option<Node>,
    /// What its state directory has.
    identity: node::Identity,
    follows: bool,
    state: control::Model,
    life: u32,
    wire: Wire,
    /// Datagrams pass between nodes of one side only.
    side: u32,
    /// To the store.
    link: Link,
}

/// See the module.
pub struct Cluster {
    config: ClusterConfig,
    seed: u64,
    now: Instant,
    random: Random,
    pool: Pool,
    store: MemoryStore,
    /// The store stands still: its leases do not end.
    is_stopped: bool,
    places: Vec<Place>,
    addresses: BTreeMap<IpAddr, usize>,
    queue: Queue<Happening>,
    ledger: Ledger,
    /// Another whenever what a node knows is another.
    version: u64,
    log: Option<Vec<String>>,
    /// Whose records may be gone from the store, since when.
    gone: BTreeMap<usize, Instant>,
    out_of_touch: BTreeSet<usize>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cluster(seed {}, {} nodes, at {:?})", self.seed, self.places.len(), self.now)
    }
}

impl Cluster {
    /// An empty store, and no nodes.
    #[must_use]
    pub fn new(seed: u64, config: ClusterConfig) -> Self {
        Self {
            config,
            seed,
            now: Instant::ZERO,
            random: Random::new(seed),
            pool: Pool::new(PoolConfig { small: 200_000, large: 64 }),
            store: MemoryStore::new(),
            is_stopped: false,
            places: Vec::new(),
            addresses: BTreeMap::new(),
            queue: Queue::new(),
            ledger: Ledger::default(),
            version: 0,
            log: None,
            gone: BTreeMap::new(),
            out_of_touch: BTreeSet::new(),
        }
    }

    /// Virtual time since the start.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The store, to compact it.
    #[must_use]
    pub fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// What became of all frames.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.ledger.traffic
    }

    /// Notes what happens from now on; [`log`](Self::log) gives it.
    pub fn record(&mut self) {
        self.log = Some(Vec::new());
    }

    /// What happened, a line each, with its time.
    #[must_use]
    pub fn log(&self) -> &[String] {
        self.log.as_deref().unwrap_or_default()
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(format!("{} {}", self.now.as_nanos(), what()));
        }
    }

    /// Repeats the run.
    fn context(&self) -> String {
        format!("seed {} at {} ns", self.seed, self.now.as_nanos())
    }

    /// Runs for a while.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.queue.next_at().filter(|at| *at <= end) {
            let Some((_, happening)) = self.queue.pop() else { break };
            self.now = at;
            self.happen(happening);
        }
        self.now = end;
        self.advance_store();
    }

    fn advance_store(&self) {
        if !self.is_stopped {
            self.store.advance(self.now);
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Turn(place, life) if self.places[place].life == life => self.turn(place),
            // Of an earlier life.
            Happening::Turn(..) => {}
            Happening::Arrival(place, outer, datagram) => self.arrive(place, outer, datagram),
            Happening::LeaseEnds => self.advance_store(),
        }
    }

    fn turn(&mut self, place: usize) {
        self.advance_store();
        let context = self.context();
        let Some(node) = &mut self.places[place].node else { return };
        let (noted, before) = (node.changes.len(), (node.adopted, node.is_in_touch()));
        let pause = match node.turn(self.config.watch, self.now) {
            Ok(pause) => pause,
            Err(error) => panic!("{context}: {} cannot stay in the cluster: {error}", node.identity.name),
        };
        let is_in_touch = node.is_in_touch();
        self.version += u64::from(before != (node.adopted, is_in_touch));
        if let Some(log) = &mut self.log {
            log.extend(node.changes[noted..].iter().map(|change| format!("{} {} {change:?}", self.now.as_nanos(), node.identity.name)));
        }
        self.set_in_touch(place, is_in_touch);
        let life = self.places[place].life;
        self.queue.push(self.now + pause, Happening::Turn(place, life));
        if let Some(end) = self.store.next_end().filter(|end| *end < self.now + pause && *end > self.now) {
            self.queue.push(end, Happening::LeaseEnds);
        }
    }

    fn set_in_touch(&mut self, place: usize, is_in_touch: bool) {
        if is_in_touch {
            self.out_of_touch.remove(&place);
        } else {
            self.out_of_touch.insert(place);
        }
    }

    fn arrive(&mut self, place: usize, outer: Outer, datagram: Frame) {
        let now = self.now;
        let Some(node) = self.places[place].node.as_mut().filter(|node| node.follows) else { return };
        self.ledger.arrives(place, datagram.bytes());
        self.version += 1;
        let passed = node.plane.receive(outer, datagram, now);
        self.pass(place, passed);
    }

    /// Frames on their way out of a node's data plane.
    fn pass(&mut self, place: usize, passed: Passed) {
        let context = self.context();
        for (port, frame) in passed.delivered {
            let Some(station) = self.places[place].node.as_ref().and_then(|node| node.plane.stations.get(&port)).copied() else {
                panic!("{context}: a frame for {port}, where nobody is")
            };
            self.ledger.delivered(&context, (place, port), (station.vni, station.mac.get()), frame.bytes());
            self.note(|| format!("{} has a frame in {}", station.mac, station.vni.get()));
        }
        for (vni, datagram) in passed.datagrams {
            self.carry(&context, place, vni, &datagram);
        }
    }

    /// A datagram on the underlay.
    fn carry(&mut self, context: &str, from: usize, vni: Vni, datagram: &Datagram) {
        let Some(&to) = self.addresses.get(&datagram.to.ip()) else { panic!("{context}: {} is no node's address", datagram.to) };
        assert!(to != from, "{context}: node {from} sends to itself");
        self.ledger.leaves(context, from, datagram.to.ip(), datagram.frame.bytes());
        self.note(|| format!("datagram of {} from {from} to {to}", vni.get()));
        let is_gone = self.gone.get(&to).is_some_and(|since| self.now > *since + GRACE);
        assert!(!is_gone || self.out_of_touch.contains(&from), "{context}: node {from} sends to {to}, which has left");
        let (sender, target) = (&self.places[from], &self.places[to]);
        let source = SocketAddr::new(sender.identity.address, datagram.source_port);
        if sender.side != target.side || target.node.is_none() {
            self.ledger.traffic.lost += 1;
            return;
        }
        let outer = Outer { from: source, to: target.identity.address, ecn: datagram.ecn };
        let arrivals = self.places[from].wire.arrivals(datagram.frame.len(), self.now, &mut self.random);
        let copies = arrivals.iter().flatten().count() as u64;
        self.ledger.traffic.duplicated += copies.saturating_sub(1);
        self.ledger.traffic.lost += u64::from(copies == 0);
        for at in arrivals.into_iter().flatten() {
            let Some(frame) = self.pool.copy_of(datagram.frame.bytes()) else { panic!("{context}: too many datagrams on their way") };
            self.queue.push(at, Happening::Arrival(to, outer, frame));
        }
    }
}
