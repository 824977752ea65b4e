//! The one place that strings the stages of a frame's way together:
//!
//! ```text
//! ingress -> admit (port up, source, guard, VLAN) -> learn -> decide -> fit -> outbox
//! ```
//!
//! Every frame that comes in ends in exactly one way: queued to at least one port, or counted once
//! as dropped under its ingress port. Copies that a flood could not queue are counted under the
//! port they should have left by.

use packet::{CaptureId, EthernetView, Frame, Instant, NetworkId, Pool, PortId, UnicastMac};

use crate::{
    bridge::{Bridge, Forwarding},
    capture::{self, Sighting},
    command::{
        BridgeConfig, BridgeView, CaptureConfig, CaptureScope, Command, CommandError, Event, PortChange, PortView, Reply, SwitchStats,
        TimeoutReason,
    },
    drop::DropReason,
    egress::Fit,
    limits::{EVENT_INTERVAL, MAX_CAPTURES},
    outbox::{Direction, Outbox, Sendable},
    port::{PortConfig, PortCounters},
    slots::Slots,
    storm::Bucket,
    vlan::{Membership, TagEdit},
};

/// Bounds and seed of a switch.
#[derive(Clone, Copy, Debug)]
pub struct SwitchConfig {
    /// Seeds the keyed hashes and every random choice.
    pub seed: u64,
    /// Ports at most.
    pub max_ports: usize,
    /// Bridges at most.
    pub max_bridges: usize,
}

impl Default for SwitchConfig {
    fn default() -> Self {
        Self { seed: 0, max_ports: 65_536, max_bridges: 16_384 }
    }
}

#[derive(Debug)]
struct Port {
    config: PortConfig,
    counters: PortCounters,
    storm: Option<Bucket>,
    guard_reported: Option<Instant>,
    storm_reported: Option<Instant>,
}

impl Port {
    fn new(config: PortConfig, now: Instant) -> Self {
        let storm = config.storm.map(|limit| Bucket::new(limit, now));
        Self { config, counters: PortCounters::default(), storm, guard_reported: None, storm_reported: None }
    }

    fn fit(&self) -> Fit {
        Fit { mtu: self.config.mtu as usize, capabilities: self.config.capabilities }
    }
}

/// Where a frame came from, as far as later stages care.
#[derive(Clone, Copy, Debug)]
struct Origin {
    port: PortId,
    network: NetworkId,
    membership: Membership,
    /// The source, if it is to be learned.
    learn: Option<UnicastMac>,
    isolated: bool,
    horizon: Option<u32>,
}

impl Origin {
    /// Isolated ports talk only to ports that are not; ports of one horizon group never to one another.
    #[inline]
    fn is_separated_from(&self, target: &PortConfig) -> bool {
        (self.isolated && target.isolated) || (self.horizon.is_some() && self.horizon == target.horizon)
    }
}

/// The data plane.
#[derive(Debug)]
pub struct Switch {
    config: SwitchConfig,
    pool: Pool,
    ports: Slots<Port>,
    bridges: Slots<Bridge>,
    captures: Slots<CaptureConfig>,
    /// What ports that were removed had counted.
    retired: PortCounters,
    /// Targets of the flood in hand; kept so that flooding allocates nothing.
    targets: Vec<PortId>,
    secrets: u64,
}

impl Switch {
    /// An empty switch whose frames come from `pool`.
    #[must_use]
    pub fn new(config: SwitchConfig, pool: Pool) -> Self {
        Self {
            config,
            pool,
            ports: Slots::new(),
            bridges: Slots::new(),
            captures: Slots::new(),
            retired: PortCounters::default(),
            targets: Vec::new(),
            secrets: config.seed,
        }
    }

    /// A frame came in on a port.
    #[inline]
    pub fn ingress(&mut self, port: PortId, frame: Frame, now: Instant, out: &mut Outbox) {
        if self.captures.len() > 0 {
            return self.ingress_watched(port, frame, now, out);
        }
        if let Err(reason) = self.forward(port, frame, now, out) {
            self.ingress_error(port, reason);
        }
    }

    /// The same, with a recorder.
    #[cold]
    fn ingress_watched(&mut self, port: PortId, frame: Frame, now: Instant, out: &mut Outbox) {
        let Some(network) = self.port(port).map(|state| state.config.network) else { return };
        let seen = frame.share();
        let result = self.forward(port, frame, now, out);
        let sighting = Sighting { port, network, direction: Direction::Ingress, at: now, dropped: result.err() };
        capture::record(&self.captures, sighting, &seen, &self.pool, out);
        if let Err(reason) = result {
            self.ingress_error(port, reason);
        }
    }

    #[inline]
    fn forward(&mut self, port: PortId, frame: Frame, now: Instant, out: &mut Outbox) -> Result<(), DropReason> {
        let (from, ethernet) = self.admit(port, &frame, now, out)?;
        let network = from.network;
        let Some(bridge) = self.bridges.get_mut(network.index(), network.generation()) else { return Err(DropReason::PortDown) };
        bridge.admit(&ethernet)?;
        if let Some(source) = from.learn {
            bridge.learn(network, from.membership.vlan, source, port, now, &mut out.events);
        }
        match bridge.decide(from.membership.vlan, &ethernet, port, now) {
            Forwarding::Drop(reason) => Err(reason),
            Forwarding::Unicast(target) => self.emit(&from, target, frame, now, out),
            Forwarding::Flood => self.flood(&from, frame, now, out),
        }
    }

    /// The checks of the ingress port, and what later stages need of it.
    #[inline]
    fn admit(&mut self, port: PortId, frame: &Frame, now: Instant, out: &mut Outbox) -> Result<(Origin, EthernetView), DropReason> {
        let Some(state) = port_mut(&mut self.ports, port) else { return Err(DropReason::PortDown) };
        state.counters.rx_frames += 1;
        state.counters.rx_bytes += frame.len() as u64;
        if !state.config.up {
            return Err(DropReason::PortDown);
        }
        let bytes = frame.bytes();
        let ethernet = EthernetView::new(bytes).ok_or(DropReason::Runt)?;
        let source = UnicastMac::new(ethernet.source).ok_or(DropReason::BadSource)?;
        if let Some(guard) = &state.config.guard
            && let Err(reason) = guard.check(ethernet.source, bytes)
        {
            if due(&mut state.guard_reported, now) {
                out.events.push(Event::Guarded { port, reason, source: ethernet.source });
            }
            return Err(reason);
        }
        let config = &state.config;
        let membership = config.vlan.admit(&ethernet, bytes)?;
        let learn = config.learning.then_some(source);
        Ok((Origin { port, network: config.network, membership, learn, isolated: config.isolated, horizon: config.horizon }, ethernet))
    }

    fn flood(&mut self, from: &Origin, frame: Frame, now: Instant, out: &mut Outbox) -> Result<(), DropReason> {
        let Some(state) = port_mut(&mut self.ports, from.port) else { return Err(DropReason::PortDown) };
        if let Some(bucket) = &mut state.storm
            && !bucket.take(now)
        {
            if due(&mut state.storm_reported, now) {
                out.events.push(Event::Storm { port: from.port });
            }
            return Err(DropReason::Storm);
        }
        let mut targets = std::mem::take(&mut self.targets);
        targets.clear();
        targets.extend(self.flood_set(from));
        let mut queued = false;
        for &target in &targets {
            match self.emit(from, target, frame.share(), now, out) {
                Ok(()) => queued = true,
                Err(reason) => self.egress_error(target, reason, 1),
            }
        }
        self.targets = targets;
        if queued { Ok(()) } else { Err(DropReason::NoOtherPort) }
    }

    /// Ports of the network that a flood reaches: up, not separated, members of the VLAN.
    fn flood_set(&self, from: &Origin) -> impl Iterator<Item = PortId> {
        let network = from.network;
        let ports = self.bridges.get(network.index(), network.generation()).map_or(&[][..], |bridge| &bridge.ports);
        ports.iter().copied().filter(move |&target| {
            target != from.port
                && self.port(target).is_some_and(|target| {
                    target.config.up && !from.is_separated_from(&target.config) && target.config.vlan.egress(from.membership).is_some()
                })
        })
    }

    /// Fits a frame to a port and queues it. An error is about the whole frame.
    #[inline]
    fn emit(&mut self, from: &Origin, target: PortId, frame: Frame, now: Instant, out: &mut Outbox) -> Result<(), DropReason> {
        let Some(state) = port_mut(&mut self.ports, target) else { return Err(DropReason::EgressDown) };
        if !state.config.up {
            return Err(DropReason::EgressDown);
        }
        if from.is_separated_from(&state.config) {
            return Err(DropReason::Isolated);
        }
        let Some(edit) = state.config.vlan.egress(from.membership) else { return Err(DropReason::VlanNotAllowed) };
        if self.captures.len() > 0 {
            return self.emit_watched(from, target, frame, edit, now, out);
        }
        let (fit, counters) = (state.fit(), &mut state.counters);
        fit.fit(frame, from.membership, edit, &self.pool, |sendable| push(counters, target, sendable, out))
    }

    /// The same, with a recorder.
    #[cold]
    fn emit_watched(&mut self, from: &Origin, target: PortId, frame: Frame, edit: TagEdit, now: Instant, out: &mut Outbox) -> Result<(), DropReason> {
        let Some(state) = port_mut(&mut self.ports, target) else { return Err(DropReason::EgressDown) };
        let whole = frame.share();
        let (fit, counters, captures, pool) = (state.fit(), &mut state.counters, &self.captures, &self.pool);
        let mut sighting = Sighting { port: target, network: from.network, direction: Direction::Egress, at: now, dropped: None };
        let result = fit.fit(frame, from.membership, edit, pool, |sendable| {
            capture::record(captures, sighting, sendable.frame(), pool, out);
            push(counters, target, sendable, out);
        });
        if let Err(reason) = result {
            sighting.dropped = Some(reason);
            capture::record(captures, sighting, &whole, pool, out);
        }
        result
    }

    /// A frame was dropped under its ingress port: by the stages above, or because the device
    /// reported one that cannot be used.
    pub fn ingress_error(&mut self, port: PortId, reason: DropReason) {
        if let Some(state) = port_mut(&mut self.ports, port) {
            state.counters.drops.count(reason);
        }
    }

    /// Frames were dropped under the port they should have left by: by a flood, or by the shell.
    pub fn egress_error(&mut self, port: PortId, reason: DropReason, count: u64) {
        if let Some(state) = port_mut(&mut self.ports, port) {
            state.counters.drops.count_many(reason, count);
        }
    }

    /// Deadlines up to `now` are due.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) {
        for (index, generation, bridge) in self.bridges.iter_mut() {
            let network = NetworkId::new(index, generation);
            let events = &mut out.events;
            bridge.fdb.sweep(now, |mac| events.push(Event::Aged { network, mac }));
        }
    }

    /// The next deadline, with its reason.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        self.bridges
            .iter()
            .filter_map(|(index, generation, bridge)| Some((bridge.fdb.poll_timeout()?, NetworkId::new(index, generation))))
            .min()
            .map(|(at, network)| (at, TimeoutReason::FdbAgeing(network)))
    }

    /// Carries out a command; a refused one changes nothing.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn apply(&mut self, command: Command, now: Instant, _out: &mut Outbox) -> Result<Reply, CommandError> {
        match command {
            Command::AddBridge(config) => self.add_bridge(config),
            Command::RemoveBridge(network) => self.remove_bridge(network),
            Command::SetBridge(network, config) => {
                let bridge = self.bridge_mut(network)?;
                bridge.fdb.set_ageing(config.ageing);
                let fdb_capacity = bridge.config.fdb_capacity;
                bridge.config = BridgeConfig { fdb_capacity, ..config };
                Ok(Reply::Done)
            }
            Command::AddPort(config) => self.add_port(config, now),
            Command::RemovePort(port) => self.remove_port(port),
            Command::SetPort(port, change) => self.set_port(port, change, now),
            Command::AddFdb { network, mac, vlan, port } => {
                self.check_member(network, port)?;
                let added = self.bridge_mut(network)?.fdb.add_static(vlan.map_or(0, packet::VlanId::get), mac, port);
                if added { Ok(Reply::Done) } else { Err(CommandError::FdbFull(network)) }
            }
            Command::RemoveFdb { network, mac, vlan } => {
                let removed = self.bridge_mut(network)?.fdb.remove(vlan.map_or(0, packet::VlanId::get), mac);
                if removed { Ok(Reply::Done) } else { Err(CommandError::NoSuchAddress(mac)) }
            }
            Command::FlushFdb { network, port } => {
                if let Some(port) = port {
                    self.check_member(network, port)?;
                }
                self.bridge_mut(network)?.fdb.flush(port, false);
                Ok(Reply::Done)
            }
            Command::StartCapture(config) => self.start_capture(config),
            Command::StopCapture(capture) => {
                self.captures.remove(capture.index(), capture.generation()).map(|_| Reply::Done).ok_or(CommandError::NoSuchCapture(capture))
            }
            Command::ShowBridges => Ok(Reply::Bridges(self.bridge_views())),
            Command::ShowPorts(network) => Ok(Reply::Ports(self.port_views(network))),
            Command::ShowFdb(network) => Ok(Reply::Fdb(self.bridge_mut(network)?.fdb.view(now))),
            Command::ShowStats => Ok(Reply::Stats(self.stats())),
        }
    }

    fn add_bridge(&mut self, config: BridgeConfig) -> Result<Reply, CommandError> {
        if self.bridges.len() >= self.config.max_bridges {
            return Err(CommandError::TooMany("networks"));
        }
        let secret = [self.next_secret(), self.next_secret() | 1];
        let (index, generation) = self.bridges.insert(Bridge::new(config, secret));
        Ok(Reply::Network(NetworkId::new(index, generation)))
    }

    fn remove_bridge(&mut self, network: NetworkId) -> Result<Reply, CommandError> {
        if !self.bridge_mut(network)?.ports.is_empty() {
            return Err(CommandError::NetworkInUse(network));
        }
        self.bridges.remove(network.index(), network.generation());
        Ok(Reply::Done)
    }

    fn add_port(&mut self, config: PortConfig, now: Instant) -> Result<Reply, CommandError> {
        let network = config.network;
        self.bridge_mut(network)?;
        if self.ports.len() >= self.config.max_ports {
            return Err(CommandError::TooMany("ports"));
        }
        let (index, generation) = self.ports.insert(Port::new(config, now));
        let port = PortId::new(index, generation);
        self.bridge_mut(network)?.ports.push(port);
        Ok(Reply::Port(port))
    }

    fn remove_port(&mut self, port: PortId) -> Result<Reply, CommandError> {
        let Some(removed) = self.ports.remove(port.index(), port.generation()) else { return Err(CommandError::NoSuchPort(port)) };
        self.retired.add(&removed.counters);
        let bridge = self.bridge_mut(removed.config.network)?;
        bridge.ports.retain(|&other| other != port);
        bridge.fdb.flush(Some(port), true);
        Ok(Reply::Done)
    }

    fn set_port(&mut self, port: PortId, change: PortChange, now: Instant) -> Result<Reply, CommandError> {
        let Some(state) = port_mut(&mut self.ports, port) else { return Err(CommandError::NoSuchPort(port)) };
        let config = &mut state.config;
        let network = config.network;
        let mut forget = false;
        match change {
            PortChange::Up(up) => {
                forget = !up;
                config.up = up;
            }
            PortChange::Mtu(mtu) => config.mtu = mtu,
            PortChange::Guard(guard) => config.guard = guard,
            PortChange::Isolated(isolated) => config.isolated = isolated,
            PortChange::Horizon(horizon) => config.horizon = horizon,
            PortChange::Vlan(vlan) => {
                forget = true;
                config.vlan = vlan;
            }
            PortChange::Storm(limit) => {
                config.storm = limit;
                state.storm = limit.map(|limit| Bucket::new(limit, now));
            }
            PortChange::Learning(learning) => config.learning = learning,
            PortChange::Capabilities(capabilities) => config.capabilities = capabilities,
            PortChange::Name(name) => config.name = name,
        }
        if forget {
            self.bridge_mut(network)?.fdb.flush(Some(port), false);
        }
        Ok(Reply::Done)
    }

    fn start_capture(&mut self, config: CaptureConfig) -> Result<Reply, CommandError> {
        match config.scope {
            CaptureScope::All => {}
            CaptureScope::Network(network) => drop(self.bridge_mut(network)?),
            CaptureScope::Port(port) => drop(self.port(port).ok_or(CommandError::NoSuchPort(port))?),
        }
        if self.captures.len() >= MAX_CAPTURES {
            return Err(CommandError::TooMany("captures"));
        }
        let (index, generation) = self.captures.insert(config);
        Ok(Reply::Capture(CaptureId::new(index, generation)))
    }

    fn bridge_views(&self) -> Vec<BridgeView> {
        let views = self.bridges.iter().map(|(index, generation, bridge)| BridgeView {
            id: NetworkId::new(index, generation),
            config: bridge.config.clone(),
            ports: bridge.ports.clone(),
            fdb_entries: bridge.fdb.len(),
        });
        views.collect()
    }

    fn port_views(&self, network: Option<NetworkId>) -> Vec<PortView> {
        let wanted = self.ports.iter().filter(|(_, _, port)| network.is_none_or(|network| port.config.network == network));
        wanted
            .map(|(index, generation, port)| PortView {
                id: PortId::new(index, generation),
                config: port.config.clone(),
                counters: port.counters.clone(),
            })
            .collect()
    }

    fn stats(&self) -> SwitchStats {
        let mut total = self.retired.clone();
        for (_, _, port) in self.ports.iter() {
            total.add(&port.counters);
        }
        SwitchStats {
            bridges: self.bridges.len(),
            ports: self.ports.len(),
            fdb_entries: self.bridges.iter().map(|(_, _, bridge)| bridge.fdb.len()).sum(),
            rx_frames: total.rx_frames,
            tx_frames: total.tx_frames,
            drops: total.drops,
            pool: self.pool.stats(),
        }
    }

    /// The buffers that frames come from.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    #[inline]
    fn port(&self, port: PortId) -> Option<&Port> {
        self.ports.get(port.index(), port.generation())
    }

    fn bridge_mut(&mut self, network: NetworkId) -> Result<&mut Bridge, CommandError> {
        self.bridges.get_mut(network.index(), network.generation()).ok_or(CommandError::NoSuchNetwork(network))
    }

    fn check_member(&self, network: NetworkId, port: PortId) -> Result<(), CommandError> {
        let state = self.port(port).ok_or(CommandError::NoSuchPort(port))?;
        if state.config.network == network { Ok(()) } else { Err(CommandError::PortElsewhere(port)) }
    }

    /// SplitMix64 (Steele, Lea, Flood 2014) over the seed.
    fn next_secret(&mut self) -> u64 {
        self.secrets = self.secrets.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.secrets;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[inline]
fn port_mut(ports: &mut Slots<Port>, port: PortId) -> Option<&mut Port> {
    ports.get_mut(port.index(), port.generation())
}

#[inline]
fn push(counters: &mut PortCounters, target: PortId, sendable: Sendable, out: &mut Outbox) {
    let length = sendable.frame().len() as u64;
    if out.push(target, sendable) {
        counters.tx_frames += 1;
        counters.tx_bytes += length;
    } else {
        counters.drops.count(DropReason::EgressFull);
    }
}

/// True at most once per interval; remembers when.
fn due(last: &mut Option<Instant>, now: Instant) -> bool {
    let due = last.is_none_or(|at| now.since(at) >= EVENT_INTERVAL);
    if due {
        *last = Some(now);
    }
    due
}
