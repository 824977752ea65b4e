//! Overlay networks: their tunnels, and what there is to see of them.

mod key_file;

use std::{collections::BTreeMap, path::Path};

use dataplane::{Command, PortConfig, Reply};
use packet::{NetworkId, PortId, UnicastMac, Vni};
use serde_json::json;
use vxlan::{RemoteKind, VniConfig, crypt::Keys};
use weft_control::{
    Code, ControlError, Network, Result,
    api::{Check, EncryptionInfo, OverlayInfo, Overlays, RemoteStation},
    overlay::{Overlay, Remote},
};

use super::{
    runtime::{Inner, random, unavailable},
    views,
};
use crate::{
    dataloop::AddPortError,
    tunnel::{MtuChange, TunnelCommand, TunnelConfig, TunnelError, TunnelReply, TunnelState, TunnelView},
};

impl Inner {
    /// Opens the tunnel of a network whose bridge was made, if it is an overlay. One that cannot be opened is tried again, see
    /// [`Inner::reopen_tunnels`].
    pub(super) fn open_tunnel(&mut self, network: &Network, bridge: NetworkId) -> Result<()> {
        let (Some(overlay), Some(name)) = (&network.overlay, network.tunnel_port()) else { return Ok(()) };
        let mut port = PortConfig::new(bridge, name);
        port.mtu = network.mtu;
        port.foreign = true;
        let opened = self.check_vni(network, overlay).and_then(|()| self.dataplane.add_tunnel(port, self.tunnel_of(network, overlay)?).map_err(refused));
        match opened {
            Ok(id) => {
                self.tunnels.insert(network.id.clone(), id);
                self.shut.remove(&network.id);
                self.install_secrets(network);
                Ok(())
            }
            Err(error) => {
                if self.shut.insert(network.id.clone(), error.clone()).as_ref() != Some(&error) {
                    tracing::error!(network = network.name, %error, "no way to the other nodes");
                }
                Err(error)
            }
        }
    }

    /// The cluster may have given a network the number of one that is this node's alone.
    fn check_vni(&self, network: &Network, overlay: &Overlay) -> Result<()> {
        let is_same = |other: &Overlay| other.vni == overlay.vni && self.udp_port(other) == self.udp_port(overlay);
        let open = self.model.networks.values().filter(|other| other.id != network.id && self.tunnels.contains_key(&other.id));
        match open.into_iter().find(|other| other.overlay.as_ref().is_some_and(is_same)) {
            Some(other) => Err(ControlError::new(Code::Conflict, &network.name, format!("VNI {} is already in use by network {}", overlay.vni, other.name)).hint("remove one of them, and make it with another --vni")),
            None => Ok(()),
        }
    }

    /// What was in the way may be gone: another program on the UDP port, another network with the number.
    pub(super) fn reopen_tunnels(&mut self) {
        for id in self.shut.keys().cloned().collect::<Vec<_>>() {
            let (Some(network), Some(&bridge)) = (self.model.networks.get(&id).cloned(), self.bridges.get(&id)) else { continue };
            if self.open_tunnel(&network, bridge).is_ok() {
                tracing::info!(network = network.name, "the way to the other nodes is open");
                self.serve_mesh();
            }
        }
    }

    /// What `weft doctor` says of those that are not open.
    pub(crate) fn tunnel_checks(&self) -> Vec<Check> {
        let shut = self.shut.iter().filter_map(|(id, error)| Some((&self.model.networks.get(id)?.name, error)));
        shut.map(|(name, error)| Check { ok: false, text: format!("network {name} has no way to the other nodes: {}", error.message), hint: error.hint.clone() }).collect()
    }

    /// Where its tunnel is.
    pub(super) fn udp_port(&self, overlay: &Overlay) -> u16 {
        overlay.port.unwrap_or(self.vxlan_port)
    }

    fn tunnel_of(&self, network: &Network, overlay: &Overlay) -> Result<TunnelConfig> {
        let udp_port = self.udp_port(overlay);
        // Without keys it is open, and carries nothing until they are there.
        let keys = keys_of(overlay).unwrap_or_else(|error| {
            tracing::error!(network = network.name, %error, "an encrypted overlay without keys carries nothing");
            None
        });
        let station = |(mac, node): (&String, &Remote)| Some((mac.parse().ok().and_then(UnicastMac::new)?, node.at(udp_port)));
        Ok(TunnelConfig {
            vni: Vni::new(overlay.vni).ok_or_else(|| unavailable("no such VNI"))?,
            rules: VniConfig {
                mtu: u16::try_from(network.mtu).map_err(unavailable)?,
                learning: overlay.learning,
                ageing: std::time::Duration::from_secs(network.ageing_s.into()),
                strict: overlay.strict,
                encrypted: overlay.encrypted,
                ..VniConfig::default()
            },
            keys,
            udp_port,
            ttl: overlay.ttl,
            group: overlay.group,
            peers: overlay.peers.iter().map(|peer| peer.at(udp_port)).collect(),
            stations: overlay.stations.iter().filter_map(station).collect(),
            neighbours: overlay.neighbours.iter().filter_map(|(ip, mac)| Some((*ip, mac.parse().ok().and_then(UnicastMac::new)?))).collect(),
        })
    }

    pub(super) fn close_tunnel(&mut self, network: &str) {
        self.shut.remove(network);
        if let Some(port) = self.tunnels.remove(network) {
            self.dataplane.remove_port(port).ok();
        }
    }

    /// The tunnel of an overlay network, with the UDP port of its nodes.
    fn tunnel(&self, reference: &str) -> Result<(PortId, u16)> {
        let network = self.model.network(reference)?;
        let overlay = network.as_overlay()?;
        let port = self.tunnels.get(&network.id).copied().ok_or_else(|| {
            let why = self.shut.get(&network.id).map_or("it is being made", |error| &error.message);
            unavailable(format!("the tunnel of network {} is not open: {why}", network.name))
        })?;
        Ok((port, self.udp_port(overlay)))
    }

    pub(crate) fn set_peer(&mut self, network: &str, peer: Remote, present: bool) -> Result<()> {
        let mut model = self.model.clone();
        model.set_peer(network, peer, present)?;
        let (port, udp_port) = self.tunnel(network)?;
        let at = peer.at(udp_port);
        let (change, undo) = (TunnelCommand::AddPeer(port, at), TunnelCommand::RemovePeer(port, at));
        let (change, undo) = if present { (change, undo) } else { (undo, change) };
        self.carry_out(change)?;
        if let Err(error) = self.commit(model) {
            self.carry_out(undo).ok();
            return Err(error);
        }
        self.event(if present { "overlay peer" } else { "overlay unpeer" }, json!({ "network": network, "peer": peer.to_string() }));
        Ok(())
    }

    pub(crate) fn set_station(&mut self, network: &str, mac: &str, node: Option<Remote>) -> Result<()> {
        let mut model = self.model.clone();
        let station = model.set_station(network, mac, node)?;
        let (port, udp_port) = self.tunnel(network)?;
        self.carry_out(match node {
            Some(node) => TunnelCommand::AddStation(port, station, node.at(udp_port)),
            None => TunnelCommand::RemoveStation(port, station),
        })?;
        self.commit(model)
    }

    /// Reads the key file of an overlay again; its tunnel goes over to what is there now. The keys of a shared network are made
    /// anew, and all nodes go over.
    pub(crate) fn rekey(&mut self, reference: &str) -> Result<EncryptionInfo> {
        let (port, _) = self.tunnel(reference)?;
        let network = self.model.network(reference)?.clone();
        if network.overlay.as_ref().is_some_and(|overlay| overlay.global && overlay.encrypted) {
            self.rekey_shared(&network)?;
            return self.encryption(&network)?.ok_or_else(|| unavailable("its tunnel is gone"));
        }
        let keys = network.overlay.as_ref().map(keys_of).transpose()?.flatten();
        let keys = keys.ok_or_else(|| ControlError::new(Code::Invalid, &network.name, format!("network {} is not encrypted", network.name)).hint("make it with -o encrypted"))?;
        let info = EncryptionInfo { epoch: Some(keys.current), accepted: keys.epochs.iter().map(|(epoch, _)| *epoch).collect(), sessions: 0, problem: None };
        let name = network.name.clone();
        self.carry_out(TunnelCommand::SetKeys(port, keys))?;
        self.event("overlay rekey", json!({ "network": name, "epoch": info.epoch }));
        Ok(info)
    }

    pub(super) fn carry_out(&self, command: TunnelCommand) -> Result<()> {
        match self.dataplane.tunnel(command).map_err(unavailable)? {
            TunnelReply::Done(result) => result.map_err(|error| refused(error.into())),
            TunnelReply::State(_) => Ok(()),
        }
    }

    fn tunnel_state(&self) -> Result<TunnelState> {
        match self.dataplane.tunnel(TunnelCommand::Show).map_err(unavailable)? {
            TunnelReply::State(state) => Ok(state),
            TunnelReply::Done(_) => Err(unavailable("unexpected answer")),
        }
    }

    /// All overlays, or one.
    pub(crate) fn overlays(&self, reference: Option<&str>) -> Result<Overlays> {
        let only = reference.map(|reference| self.model.network(reference).and_then(|network| network.as_overlay().map(|_| network.id.clone()))).transpose()?;
        let state = self.tunnel_state()?;
        let Reply::Ports(ports) = self.dataplane.apply(Command::ShowPorts(None)).map_err(unavailable)? else { return Err(unavailable("no ports")) };
        let mut infos = Vec::new();
        for network in self.model.networks.values().filter(|network| only.as_ref().is_none_or(|only| *only == network.id)) {
            let Some((overlay, port)) = network.overlay.as_ref().zip(self.tunnels.get(&network.id)) else { continue };
            let view = state.tunnels.iter().find(|view| view.port == *port);
            let drops = ports.iter().find(|view| view.id == *port).map(|view| views::drops(&view.counters.drops)).unwrap_or_default();
            infos.extend(view.map(|view| OverlayInfo { encryption: self.encryption_of(network, view), ..info(network, overlay, view, drops) }));
        }
        infos.sort_by(|one, other| one.network.cmp(&other.network));
        Ok(Overlays { networks: infos, drops: sum(state.drops.iter().flat_map(vxlan::Drops::iter)) })
    }

    /// How a network encrypts, if it does.
    pub(crate) fn encryption(&self, network: &Network) -> Result<Option<EncryptionInfo>> {
        if network.overlay.as_ref().is_none_or(|overlay| !overlay.encrypted) {
            return Ok(None);
        }
        let (state, port) = (self.tunnel_state()?, self.tunnels.get(&network.id));
        Ok(state.tunnels.iter().find(|view| Some(&view.port) == port).and_then(|view| self.encryption_of(network, view)))
    }

    fn encryption_of(&self, network: &Network, view: &TunnelView) -> Option<EncryptionInfo> {
        let crypt = view.crypt.as_ref()?;
        let missing = || network.overlay.as_ref().and_then(|overlay| keys_of(overlay).err()).map(|error| error.message);
        let problem = if network.is_global() { self.secrets_problem(network) } else { crypt.current.is_none().then(missing).flatten() };
        Some(EncryptionInfo { epoch: crypt.current, accepted: crypt.epochs.clone(), sessions: crypt.sessions, problem })
    }

    /// Drops inside tunnels, for the totals.
    pub(super) fn tunnel_drops(&self) -> Result<BTreeMap<String, u64>> {
        let state = self.tunnel_state()?;
        Ok(sum(state.drops.iter().flat_map(vxlan::Drops::iter)).into_iter().map(|(reason, count)| (format!("vxlan_{reason}"), count)).collect())
    }

    /// Tunnels with their names.
    pub(super) fn tunnel_names(&self) -> impl Iterator<Item = (PortId, String)> {
        self.tunnels.iter().filter_map(|(network, port)| Some((*port, self.model.networks.get(network)?.tunnel_port()?)))
    }

    /// The path of a tunnel was found smaller, or may be larger again.
    pub(crate) fn tunnel_mtu(&self, change: MtuChange) {
        if let Some((_, name)) = self.tunnel_names().find(|(port, _)| *port == change.port) {
            tracing::warn!(port = name, mtu = change.mtu, "the path between nodes carries another size");
            self.event("overlay mtu", json!({ "port": name, "mtu": change.mtu }));
        }
    }
}

/// What an encrypted overlay of this node encrypts with, in a session of its own; those of shared ones come later, from the store.
pub(super) fn keys_of(overlay: &Overlay) -> Result<Option<Keys>> {
    if !overlay.encrypted || overlay.global {
        return Ok(None);
    }
    let Some(path) = &overlay.key_file else {
        return Err(ControlError::new(Code::Invalid, "encrypted", "an encrypted overlay needs keys").hint("say -o weft.key-file=FILE, a file made with `(umask 077; openssl rand -hex 32 > FILE)`, the same on all nodes; or share the network through a cluster (`weft daemon --cluster-store`)"));
    };
    let epochs = key_file::read(Path::new(path))?;
    let current = epochs.first().map_or(0, |(epoch, _)| *epoch);
    Ok(Some(Keys { epochs, current, session: u64::from_ne_bytes(random()?) }))
}

fn refused(error: AddPortError) -> ControlError {
    let text = error.to_string();
    match error {
        AddPortError::Tunnel(TunnelError::Socket(port, _)) => {
            ControlError::new(Code::Conflict, port.to_string(), text).hint("another program, or a VXLAN device of the kernel, may have that port: give the daemon --vxlan-port, or the network -o port=")
        }
        AddPortError::Tunnel(TunnelError::Group(group, _)) => {
            ControlError::new(Code::Invalid, group.to_string(), text).hint(format!("want a route to the group, such as `ip route add {group} dev DEVICE`"))
        }
        AddPortError::Tunnel(TunnelError::Refused(_)) => ControlError::new(Code::Invalid, "", text),
        AddPortError::Tunnel(TunnelError::NoStation) => ControlError::new(Code::NotFound, "", text),
        _ => unavailable(text),
    }
}

fn sum(counts: impl Iterator<Item = (vxlan::DropReason, u64)>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (reason, count) in counts {
        *sums.entry(reason.name().to_owned()).or_default() += count;
    }
    sums
}

fn info(network: &Network, overlay: &Overlay, view: &TunnelView, mut drops: BTreeMap<String, u64>) -> OverlayInfo {
    let counters = &view.counters;
    for (reason, count) in sum(counters.drops.iter()) {
        *drops.entry(reason).or_default() += count;
    }
    let named = [
        ("frames_out", counters.frames_out),
        ("bytes_out", counters.bytes_out),
        ("flooded", counters.flooded),
        ("suppressed", counters.suppressed),
        ("frames_in", counters.frames_in),
        ("bytes_in", counters.bytes_in),
        ("learned", counters.learned),
        ("moved", counters.moved),
        ("evicted", counters.evicted),
    ];
    let remotes = view.remotes.iter().map(|remote| RemoteStation {
        mac: remote.mac.to_string(),
        node: remote.to.to_string(),
        kind: match remote.kind {
            RemoteKind::Static => "static",
            RemoteKind::Pushed => "pushed",
            RemoteKind::Learned => "learned",
        }
        .into(),
        idle: remote.idle.map(|idle| idle.as_secs()),
    });
    OverlayInfo {
        network: network.name.clone(),
        vni: overlay.vni,
        port: view.udp_port,
        mtu: view.mtu,
        learning: overlay.learning,
        strict: overlay.strict,
        ttl: overlay.ttl,
        group: overlay.group,
        encryption: None,
        peers: view.peers.iter().map(ToString::to_string).collect(),
        remotes: remotes.collect(),
        counters: named.into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
        drops,
    }
}
