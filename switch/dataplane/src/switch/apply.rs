//! Commands: the only door to control.

use packet::{CaptureId, Instant, Keyed, NetworkId, PortId, UnicastMac, VlanId};

use super::{Switch, announce};
use crate::{
    attachment::Attachment,
    bridge::Bridge,
    command::{
        BridgeConfig, BridgeView, CaptureConfig, CaptureScope, Command, CommandError, FdbKind, FdbView, L2Mode, PortChange, PortView, Reply,
        SwitchStats,
    },
    drop::DropReason,
    fdb,
    gateway::{VipConfig, balancer::Balancer},
    header::station_of,
    limits::MAX_CAPTURES,
    outbox::Outbox,
    port::PortConfig,
};

impl Switch {
    /// Carries out a command; a refused one changes nothing.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn apply(&mut self, command: Command, now: Instant, out: &mut Outbox) -> Result<Reply, CommandError> {
        self.deadline.set(None);
        match command {
            Command::AddBridge(config) => self.add_bridge(config, now),
            Command::RemoveBridge(network) => self.remove_bridge(network),
            Command::SetBridge(network, config) => self.set_bridge(network, config, now),
            Command::AddPort(config) => self.add_port(config, now),
            Command::RemovePort(port) => self.remove_port(port),
            Command::SetPort(port, change) => self.set_port(port, change, now),
            Command::AddFdb { network, mac, vlan, port } => {
                let slot = self.member_slot(network, port)?;
                let added = self.bridge_mut(network)?.fdb.add_static(fdb_key(vlan, mac), slot, now);
                if added { Ok(Reply::Done) } else { Err(CommandError::FdbFull(network)) }
            }
            Command::RemoveFdb { network, mac, vlan } => {
                let removed = self.bridge_mut(network)?.fdb.remove(fdb_key(vlan, mac), now);
                if removed { Ok(Reply::Done) } else { Err(CommandError::NoSuchAddress(mac)) }
            }
            Command::Announce { port, mac, ip } => {
                self.ports.get_mut(port.index(), port.generation()).ok_or(CommandError::NoSuchPort(port))?;
                match announce::frame(&self.pool, mac, ip) {
                    Some(frame) => self.ingress(port, frame, now, out),
                    None => self.ingress_error(port, DropReason::NoBuffer),
                }
                Ok(Reply::Done)
            }
            Command::FlushFdb { network, port } => {
                let slot = port.map(|port| self.member_slot(network, port)).transpose()?;
                self.bridge_mut(network)?.fdb.flush(slot, false);
                Ok(Reply::Done)
            }
            Command::SetReservation { network, mac, reservation } => {
                if let Some(server) = &mut self.bridge_mut(network)?.services.dhcp {
                    server.reserve(mac, reservation);
                }
                Ok(Reply::Done)
            }
            Command::RemoveReservation { network, mac } => {
                if let Some(server) = &mut self.bridge_mut(network)?.services.dhcp {
                    server.unreserve(mac);
                }
                Ok(Reply::Done)
            }
            Command::SetVips(network, vips) => self.set_vips(network, vips),
            Command::ShowVips(network) => {
                let balancer = self.bridge_mut(network)?.services.balancer.as_ref();
                Ok(Reply::Vips(balancer.map(|balancer| balancer.views(now)).unwrap_or_default()))
            }
            Command::StartCapture(config) => self.start_capture(config),
            Command::StopCapture(capture) => {
                self.captures.remove(capture.index(), capture.generation()).map(|_| Reply::Done).ok_or(CommandError::NoSuchCapture(capture))
            }
            Command::ShowBridges => Ok(Reply::Bridges(self.bridge_views())),
            Command::ShowPorts(network) => Ok(Reply::Ports(self.port_views(network))),
            Command::ShowFdb(network) => Ok(Reply::Fdb(self.fdb_views(network, now)?)),
            Command::ShowLeases(network) => Ok(Reply::Leases(self.bridge_mut(network)?.services.dhcp.as_ref().map_or_else(Vec::new, |server| server.views(now)))),
            Command::ShowStats => Ok(Reply::Stats(self.stats())),
        }
    }

    fn add_bridge(&mut self, config: BridgeConfig, now: Instant) -> Result<Reply, CommandError> {
        if self.bridges.len() >= self.config.max_bridges {
            return Err(CommandError::TooMany("networks"));
        }
        let secret = Keyed::new([self.next_secret(), self.next_secret()]);
        let bridge = self.bridges.insert_with(|index, generation| Bridge::new(NetworkId::new(index, generation), config, secret, now));
        Ok(Reply::Network(bridge.id))
    }

    fn set_bridge(&mut self, network: NetworkId, config: BridgeConfig, now: Instant) -> Result<Reply, CommandError> {
        let bridge = self.bridge_mut(network)?;
        bridge.fdb.set_ageing(config.ageing, now);
        if config.l2 == L2Mode::Hub {
            bridge.fdb.flush(None, false);
        }
        bridge.configure(config, now);
        Ok(Reply::Done)
    }

    fn remove_bridge(&mut self, network: NetworkId) -> Result<Reply, CommandError> {
        if !self.bridge_mut(network)?.ports.is_empty() {
            return Err(CommandError::NetworkInUse(network));
        }
        self.bridges.remove(network.index(), network.generation());
        Ok(Reply::Done)
    }

    fn set_vips(&mut self, network: NetworkId, vips: Vec<VipConfig>) -> Result<Reply, CommandError> {
        let seed = self.next_secret();
        let services = &mut self.bridge_mut(network)?.services;
        if vips.is_empty() {
            services.balancer = None;
        } else {
            services.balancer.get_or_insert_with(|| Box::new(Balancer::new(network, seed))).configure(vips);
        }
        let (is_balanced, ports) = (services.balancer.is_some(), self.bridge_mut(network)?.ports.clone());
        for port in ports {
            if let Some(state) = self.ports.get_mut(port.index(), port.generation()) {
                state.set_balanced(is_balanced);
            }
        }
        Ok(Reply::Done)
    }

    fn add_port(&mut self, config: PortConfig, now: Instant) -> Result<Reply, CommandError> {
        let network = config.network;
        self.bridge_mut(network)?;
        if self.ports.len() >= self.config.max_ports {
            return Err(CommandError::TooMany("ports"));
        }
        let bridge = u32::try_from(network.index()).unwrap_or(u32::MAX);
        let identity = config.identity.clone();
        let port = self.ports.insert_with(|index, generation| Attachment::new(PortId::new(index, generation), bridge, config, now)).id;
        let bridge = self.bridge_mut(network)?;
        bridge.ports.push(port);
        bridge.residents.add(&identity);
        // It may have been elsewhere until now, behind a tunnel say, and need not be the first to speak.
        identity.mac.iter().for_each(|mac| bridge.fdb.unlearn(fdb_key(None, *mac)));
        let is_balanced = bridge.services.balancer.is_some();
        if let Some(state) = self.ports.get_mut(port.index(), port.generation()) {
            state.set_balanced(is_balanced);
        }
        Ok(Reply::Port(port))
    }

    fn remove_port(&mut self, port: PortId) -> Result<Reply, CommandError> {
        let Some(removed) = self.ports.remove(port.index(), port.generation()) else { return Err(CommandError::NoSuchPort(port)) };
        self.retired.add(&removed.counters);
        let bridge = self.bridge_mut(removed.config().network)?;
        bridge.ports.retain(|&other| other != port);
        bridge.residents.remove(&removed.config().identity);
        bridge.fdb.flush(Some(removed.slot()), true);
        Ok(Reply::Done)
    }

    fn set_port(&mut self, port: PortId, change: PortChange, now: Instant) -> Result<Reply, CommandError> {
        let Some(state) = self.ports.get_mut(port.index(), port.generation()) else { return Err(CommandError::NoSuchPort(port)) };
        let mut config = state.config().clone();
        let forgets = matches!(change, PortChange::Up(false) | PortChange::Vlan(_));
        match change {
            PortChange::Up(up) => config.up = up,
            PortChange::Mtu(mtu) => config.mtu = mtu,
            PortChange::Guard(guard) => config.guard = guard,
            PortChange::Isolated(isolated) => config.isolated = isolated,
            PortChange::Horizon(horizon) => config.horizon = horizon,
            PortChange::Vlan(vlan) => config.vlan = vlan,
            PortChange::Storm(limit) => config.storm = limit,
            PortChange::Learning(learning) => config.learning = learning,
            PortChange::Capabilities(capabilities) => config.capabilities = capabilities,
            PortChange::Name(name) => config.name = name,
        }
        let (network, slot) = (config.network, state.slot());
        state.configure(config, now);
        if forgets {
            self.bridge_mut(network)?.fdb.flush(Some(slot), false);
        }
        Ok(Reply::Done)
    }

    fn start_capture(&mut self, config: CaptureConfig) -> Result<Reply, CommandError> {
        match config.scope {
            CaptureScope::All => {}
            CaptureScope::Network(network) => drop(self.bridge_mut(network)?),
            CaptureScope::Port(port) => drop(self.port(port)?),
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
        let wanted = self.ports.iter().filter(|(_, _, port)| network.is_none_or(|network| port.config().network == network));
        wanted.map(|(_, _, port)| PortView { id: port.id, config: port.config().clone(), counters: port.counters.clone() }).collect()
    }

    fn fdb_views(&mut self, network: NetworkId, now: Instant) -> Result<Vec<FdbView>, CommandError> {
        let found = self.bridge_mut(network)?.fdb.view(now);
        let views = found.into_iter().filter_map(|found| {
            Some(FdbView {
                mac: station_of(found.key)?,
                vlan: VlanId::new(u16::try_from(found.key >> 48).ok()?),
                port: self.ports.at(found.port)?.id,
                kind: if found.idle.is_some() { FdbKind::Learned } else { FdbKind::Static },
                idle: found.idle.unwrap_or_default(),
            })
        });
        Ok(views.collect())
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

    fn port(&self, port: PortId) -> Result<&Attachment, CommandError> {
        self.ports.get(port.index(), port.generation()).ok_or(CommandError::NoSuchPort(port))
    }

    fn bridge_mut(&mut self, network: NetworkId) -> Result<&mut Bridge, CommandError> {
        self.bridges.get_mut(network.index(), network.generation()).ok_or(CommandError::NoSuchNetwork(network))
    }

    /// The slot of a port that must be in a network.
    fn member_slot(&mut self, network: NetworkId, port: PortId) -> Result<fdb::PortSlot, CommandError> {
        self.bridge_mut(network)?;
        let state = self.port(port)?;
        if state.config().network == network { Ok(state.slot()) } else { Err(CommandError::PortElsewhere(port)) }
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

fn fdb_key(vlan: Option<VlanId>, mac: UnicastMac) -> u64 {
    fdb::key(vlan.map_or(0, VlanId::get), mac.get().as_u64())
}
