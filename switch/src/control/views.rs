//! What the data plane knows, in the words of the API; edits of the FDB.

use std::collections::BTreeMap;

use dataplane::{Command, DropCounters, PortView, Reply};
use packet::{Mac, PortId, UnicastMac, VlanId};
use weft_control::{
    Code, ControlError, Endpoint, Result, Sandbox,
    api::{BridgeInfo, FdbEdit, FdbEntry, PortInfo, Stats},
    port_name,
};

use super::runtime::{Inner, unavailable};

impl Inner {
    // ---- FDB ----

    pub(crate) fn edit_fdb(&self, edit: &FdbEdit, add: bool) -> Result<()> {
        let network = self.model.network(&edit.network)?;
        let bridge = *self.bridges.get(&network.id).ok_or_else(|| unavailable("the network has no bridge"))?;
        let mac: Mac = edit.mac.parse().map_err(|error| ControlError::new(Code::Invalid, &edit.mac, format!("{}: {error}", edit.mac)))?;
        let mac = UnicastMac::new(mac).ok_or_else(|| ControlError::new(Code::Invalid, &edit.mac, format!("{mac} is a multicast address (or zero): the FDB holds stations")))?;
        let vlan = match edit.vlan {
            Some(id) => Some(VlanId::new(id).ok_or_else(|| ControlError::new(Code::Invalid, id.to_string(), format!("VLAN {id} is outside 1 to 4094")))?),
            None => None,
        };
        let command = if add {
            let name = edit.port.as_deref().unwrap_or_default();
            let (_, endpoint) = self.model.port(name)?;
            if endpoint.network != network.id {
                return Err(ControlError::new(Code::Invalid, name, format!("port {name} is not in network {}", network.name)));
            }
            Command::AddFdb { network: bridge, mac, vlan, port: self.port_id(endpoint)? }
        } else {
            Command::RemoveFdb { network: bridge, mac, vlan }
        };
        self.dataplane.apply(command).map(drop).map_err(|error| ControlError::new(Code::NotFound, edit.mac.clone(), error.to_string()))
    }

    pub(crate) fn fdb(&self, network: Option<&str>) -> Result<Vec<FdbEntry>> {
        let networks: Vec<_> = match network {
            Some(reference) => vec![self.model.network(reference)?],
            None => self.model.networks.values().collect(),
        };
        let names = self.names_by_port();
        let mut entries = Vec::new();
        for network in networks {
            let Some(&bridge) = self.bridges.get(&network.id) else { continue };
            let Reply::Fdb(views) = self.dataplane.apply(Command::ShowFdb(bridge)).map_err(unavailable)? else { continue };
            entries.extend(views.into_iter().map(|view| FdbEntry {
                mac: view.mac.to_string(),
                ifname: names.get(&view.port).cloned().unwrap_or_default(),
                vlan: view.vlan.map(VlanId::get),
                flags: Vec::new(),
                master: network.name.clone(),
                state: if view.kind == dataplane::FdbKind::Static { "permanent".into() } else { String::new() },
                used: view.idle.as_secs(),
            }));
        }
        Ok(entries)
    }

    // ---- views ----

    fn names_by_port(&self) -> BTreeMap<PortId, String> {
        let all = self.model.sandboxes.values().flat_map(|sandbox| sandbox.endpoints.iter().map(move |endpoint| (sandbox, endpoint)));
        all.filter_map(|(sandbox, endpoint)| Some((*self.ports.get(&endpoint.id)?, port_name(sandbox, endpoint)))).chain(self.tunnel_names()).chain(self.parent_names()).collect()
    }

    pub(crate) fn port_infos(&self) -> Result<Vec<PortInfo>> {
        let Reply::Ports(views) = self.dataplane.apply(Command::ShowPorts(None)).map_err(unavailable)? else { return Ok(Vec::new()) };
        let views: BTreeMap<PortId, PortView> = views.into_iter().map(|view| (view.id, view)).collect();
        let mut infos = Vec::new();
        for sandbox in self.model.sandboxes.values() {
            for endpoint in &sandbox.endpoints {
                if let Some(view) = self.ports.get(&endpoint.id).and_then(|port| views.get(port)) {
                    infos.push(self.port_info(sandbox, endpoint, view));
                }
            }
        }
        infos.extend(self.uplink_info(&views));
        infos.extend(self.parent_ports().filter_map(|(port, network, parent)| {
            let own = PortInfo { network: network.name.clone(), ifname: parent.into(), kind: "parent".into(), ..PortInfo::default() };
            views.get(&port).map(|view| PortInfo { name: view.config.name.clone(), ..counted(own, view) })
        }));
        infos.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(infos)
    }

    /// The uplink of packets, as a port.
    fn uplink_info(&self, views: &BTreeMap<PortId, PortView>) -> Option<PortInfo> {
        let uplink = self.uplink.as_ref()?;
        let view = views.get(&uplink.open?.port)?;
        let own = PortInfo { network: "uplink".into(), ifname: uplink.link.name.clone(), kind: "uplink".into(), mac: uplink.mac.get().to_string(), addresses: uplink.link.addresses.clone(), ..PortInfo::default() };
        Some(PortInfo { name: uplink.port_name(), ..counted(own, view) })
    }

    fn port_info(&self, sandbox: &Sandbox, endpoint: &Endpoint, view: &PortView) -> PortInfo {
        let own = PortInfo {
            name: port_name(sandbox, endpoint),
            network: self.model.networks.get(&endpoint.network).map_or_else(String::new, |network| network.name.clone()),
            sandbox: sandbox.name.clone(),
            ifname: endpoint.ifname.clone(),
            kind: endpoint.kind.to_string(),
            mac: endpoint.mac.clone(),
            addresses: endpoint.addresses.clone(),
            vlan: endpoint.vlan.clone(),
            ..PortInfo::default()
        };
        counted(own, view)
    }

    pub(crate) fn bridge_infos(&self) -> Result<Vec<BridgeInfo>> {
        let Reply::Bridges(views) = self.dataplane.apply(Command::ShowBridges).map_err(unavailable)? else { return Ok(Vec::new()) };
        let names = self.names_by_port();
        let views: BTreeMap<_, _> = views.iter().map(|view| (view.id, view)).collect();
        let infos = self.model.networks.values().filter_map(|network| {
            let bridge = self.bridges.get(&network.id)?;
            let view = views.get(bridge)?;
            Some(BridgeInfo {
                name: network.name.clone(),
                id: format!("8000.{}", &network.id[..12]),
                stp: false,
                interfaces: view.ports.iter().filter_map(|port| names.get(port).cloned()).collect(),
                fdb_entries: view.fdb_entries,
            })
        });
        Ok(infos.collect())
    }

    pub(crate) fn stats(&self) -> Result<Stats> {
        match self.dataplane.apply(Command::ShowStats).map_err(unavailable)? {
            Reply::Stats(stats) => {
                let mut all = drops(&stats.drops);
                all.extend(self.uplink_drops()?);
                let busy = self.resolving.busy();
                all.extend((busy > 0).then(|| ("names_busy".to_owned(), busy)));
                all.extend(self.tunnel_drops()?);
                Ok(Stats {
                bridges: stats.bridges,
                ports: stats.ports,
                fdb_entries: stats.fdb_entries,
                rx_frames: stats.rx_frames,
                tx_frames: stats.tx_frames,
                drops: all,
                buffers: [stats.pool.small_used, stats.pool.large_used],
            })
            }
            other => Err(unavailable(format!("unexpected answer {other:?}"))),
        }
    }
}

/// A port with what the data plane says of it.
fn counted(port: PortInfo, view: &PortView) -> PortInfo {
    PortInfo {
        up: view.config.up,
        mtu: view.config.mtu,
        isolated: view.config.isolated,
        rx_frames: view.counters.rx_frames,
        rx_bytes: view.counters.rx_bytes,
        tx_frames: view.counters.tx_frames,
        tx_bytes: view.counters.tx_bytes,
        drops: drops(&view.counters.drops),
        ..port
    }
}

pub(super) fn drops(counters: &DropCounters) -> BTreeMap<String, u64> {
    counters.iter().map(|(reason, count)| (reason.name().to_owned(), count)).collect()
}
