//! Overlay networks: those that span nodes, by VXLAN. What one is told of the other nodes; each node has a gateway,
//! with the same addresses, of its own.

mod changes;
mod keys;
mod scope;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

pub use changes::{TunnelChange, changes};
pub use keys::{parse_keys, parse_secret, show_secret};
pub use scope::{Membership, scoped};
use packet::{Mac, UnicastMac, Vni};
use serde::{Deserialize, Serialize};

use crate::{
    api::NetworkCreate,
    error::{Code, ControlError, Result},
    model::{Model, Network},
};

/// The driver's name.
pub const DRIVER: &str = "overlay";
/// The first VNI that is given without being asked for, as Docker has it.
const VNI_FIRST: u32 = 4096;
/// What the networks between nodes carry unless the user says otherwise, bytes.
const UNDERLAY_MTU: u16 = 1500;
/// How long the cluster uses a key, seconds, as Docker does.
const REKEY_S: u32 = 12 * 3600;
/// Other nodes of a network at most: each flooded frame is sent so often.
const PEERS_MOST: usize = 1024;

/// What makes a network an overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// Its number on the wire.
    pub vni: u32,
    /// UDP port of all nodes; the daemon's when missing.
    pub port: Option<u16>,
    /// Other nodes: floods go there, and they may speak.
    pub peers: Vec<Remote>,
    /// Stations that are behind a node, by address, whatever is learned.
    pub stations: BTreeMap<String, Remote>,
    /// Learns from what comes in which station is behind which node.
    pub learning: bool,
    /// Only peers may speak.
    pub strict: bool,
    /// Hops of outer packets.
    pub ttl: Option<u8>,
    /// Floods go to this group, which this node joins.
    pub group: Option<IpAddr>,
    /// Nothing clear goes between nodes, nor is it taken.
    #[serde(default)]
    pub encrypted: bool,
    /// Where this node has its keys.
    #[serde(default)]
    pub key_file: Option<String>,
    /// How long the cluster uses a key, seconds; 0 for ever.
    #[serde(default)]
    pub rekey_s: Option<u32>,
    /// The cluster's: peers, stations and neighbours are what the store says.
    #[serde(default)]
    pub global: bool,
    /// Ethernet addresses of stations behind other nodes, by IP address: answered for here.
    #[serde(default)]
    pub neighbours: BTreeMap<IpAddr, String>,
}

/// Another node, at a port of its own if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Remote {
    /// Its address.
    pub ip: IpAddr,
    /// Its UDP port; the network's when missing.
    pub port: Option<u16>,
}

impl Remote {
    /// Where it is reached when the network's port is `port`.
    #[must_use]
    pub fn at(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, self.port.unwrap_or(port))
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

impl From<Remote> for String {
    fn from(remote: Remote) -> Self {
        remote.to_string()
    }
}

impl TryFrom<String> for Remote {
    type Error = ControlError;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Remote {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self> {
        let remote = match (text.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
            (Ok(ip), _) => Self { ip, port: None },
            (_, Ok(at)) => Self { ip: at.ip(), port: Some(at.port()) },
            _ => return Err(invalid(text, format!("{text:?} is not the address of a node")).hint("want IP or IP:PORT, [IP]:PORT for IPv6; names are not looked up")),
        };
        let is_broadcast = matches!(remote.ip, IpAddr::V4(v4) if v4.is_broadcast());
        if remote.ip.is_unspecified() || remote.ip.is_multicast() || is_broadcast || remote.port == Some(0) {
            return Err(invalid(text, format!("{text}: no node can have that address")).hint("a multicast group is given with -o group="));
        }
        Ok(remote)
    }
}

impl Model {
    /// What `request` makes of a network as an overlay; `None` for other drivers.
    pub(crate) fn overlay_of(&self, request: &NetworkCreate) -> Result<Option<Overlay>> {
        if request.driver.as_deref() != Some(DRIVER) {
            let said = [
                ("vni", request.vni.is_some()),
                ("peers", !request.peers.is_empty()),
                ("learning", request.learning.is_some()),
                ("strict", request.strict.is_some()),
                ("vxlan-port", request.vxlan_port.is_some()),
                ("ttl", request.ttl.is_some()),
                ("group", request.group.is_some()),
                ("encrypted", request.encrypted),
                ("weft.key-file", request.key_file.is_some()),
                ("weft.rekey", request.rekey_s.is_some()),
                ("scope global", request.global == Some(true)),
            ];
            return match said.iter().find(|(_, said)| *said) {
                Some((what, _)) => Err(invalid(*what, format!("{what} is for overlay networks")).hint("add --driver overlay, or leave it out")),
                None => Ok(None),
            };
        }
        if let Some(group) = request.group.filter(|group| !group.is_multicast()) {
            return Err(invalid(group.to_string(), format!("group {group} is not a multicast address")).hint("want one such as 239.1.1.1"));
        }
        let global = request.global == Some(true);
        if global {
            check_global(request)?;
        }
        if request.vxlan_port == Some(0) || request.ttl == Some(0) {
            return Err(invalid(&request.name, "neither a port nor a ttl can be 0"));
        }
        if let Some(path) = &request.key_file {
            if !request.encrypted {
                return Err(invalid(path, format!("weft.key-file={path} is for encrypted overlays")).hint("add -o encrypted, or leave it out"));
            }
            if !path.starts_with('/') {
                return Err(invalid(path, format!("weft.key-file={path} is not an absolute path: the daemon reads it, wherever it runs")));
            }
        }
        if request.rekey_s.is_some() && !(global && request.encrypted) {
            return Err(invalid(&request.name, "weft.rekey is for encrypted networks of a cluster").hint("other keys are changed by who wrote them: see `weft vxlan rekey --help`"));
        }
        let mut overlay = Overlay {
            vni: self.choose_vni(request.vni)?,
            port: request.vxlan_port,
            peers: Vec::new(),
            stations: BTreeMap::new(),
            learning: request.learning.unwrap_or(true),
            // The members of a group are not known beforehand; else nobody may speak who was not named.
            strict: request.strict.unwrap_or(request.group.is_none()),
            ttl: request.ttl,
            group: request.group,
            encrypted: request.encrypted,
            key_file: request.key_file.clone(),
            rekey_s: request.rekey_s.or((global && request.encrypted).then_some(REKEY_S)),
            global,
            neighbours: BTreeMap::new(),
        };
        request.peers.iter().try_for_each(|peer| overlay.add_peer(*peer))?;
        Ok(Some(overlay))
    }

    fn choose_vni(&self, asked: Option<u32>) -> Result<u32> {
        let owner = |vni| self.networks.values().find(|network| network.overlay.as_ref().is_some_and(|overlay| overlay.vni == vni));
        let Some(vni) = asked else {
            let free = (VNI_FIRST..1 << 24).find(|vni| owner(*vni).is_none());
            return free.ok_or_else(|| ControlError::new(Code::Exhausted, "vni", "all VNIs are in use"));
        };
        if vni == 0 || Vni::new(vni).is_none() {
            return Err(invalid(vni.to_string(), format!("VNI {vni} is outside 1 to 16777215")));
        }
        match owner(vni) {
            Some(network) => Err(ControlError::new(Code::Conflict, vni.to_string(), format!("VNI {vni} is already in use by network {}", network.name)).hint("choose another --vni")),
            None => Ok(vni),
        }
    }

    /// An overlay network of this node, to change.
    fn overlay_mut(&mut self, reference: &str) -> Result<&mut Overlay> {
        let network = self.network(reference)?;
        let (id, no_overlay) = (network.id.clone(), no_overlay(network));
        if network.is_global() {
            let name = &network.name;
            return Err(ControlError::new(Code::Conflict, name, format!("network {name} is the cluster's: its peers and stations are what the store says")));
        }
        self.networks.get_mut(&id).and_then(|network| network.overlay.as_mut()).ok_or(no_overlay)
    }

    /// Adds or removes a node that a network spans.
    ///
    /// # Errors
    /// When there is no such overlay, or nothing changes.
    pub fn set_peer(&mut self, network: &str, peer: Remote, present: bool) -> Result<()> {
        let overlay = self.overlay_mut(network)?;
        if present {
            return overlay.add_peer(peer);
        }
        let before = overlay.peers.len();
        overlay.peers.retain(|known| *known != peer);
        if overlay.peers.len() < before {
            return Ok(());
        }
        Err(ControlError::new(Code::NotFound, peer.to_string(), format!("{peer} is no peer of network {network}")).hint(format!("`weft vxlan peer ls {network}` lists them")))
    }

    /// Says behind which node a station is, or (without one) no longer.
    ///
    /// # Errors
    /// When there is no such overlay or station.
    pub fn set_station(&mut self, network: &str, mac: &str, remote: Option<Remote>) -> Result<UnicastMac> {
        let overlay = self.overlay_mut(network)?;
        let parsed: Mac = mac.parse().map_err(|error| invalid(mac, format!("{mac}: {error}")))?;
        let station = UnicastMac::new(parsed).ok_or_else(|| invalid(mac, format!("{parsed} is a multicast address (or zero): no station has it")))?;
        match remote {
            Some(remote) => overlay.stations.insert(parsed.to_string(), remote),
            None => Some(overlay.stations.remove(&parsed.to_string()).ok_or_else(|| ControlError::new(Code::NotFound, mac, format!("{mac} was not set behind any node")))?),
        };
        Ok(station)
    }
}

impl Network {
    /// What makes it an overlay.
    ///
    /// # Errors
    /// When nothing does.
    pub fn as_overlay(&self) -> Result<&Overlay> {
        self.overlay.as_ref().ok_or_else(|| no_overlay(self))
    }
}

fn no_overlay(Network { name, .. }: &Network) -> ControlError {
    invalid(name, format!("network {name} is no overlay")).hint("make one with `weft network create -d overlay`")
}

impl Overlay {
    fn add_peer(&mut self, peer: Remote) -> Result<()> {
        match self.peers.binary_search(&peer) {
            Ok(_) => Err(ControlError::new(Code::Exists, peer.to_string(), format!("{peer} is a peer already"))),
            Err(_) if self.peers.len() >= PEERS_MOST => Err(ControlError::new(Code::Exhausted, peer.to_string(), format!("a network spans at most {PEERS_MOST} nodes")).hint("use a multicast group")),
            Err(at) => {
                self.peers.insert(at, peer);
                Ok(())
            }
        }
    }

    /// Largest packet inside that fits the usual network between nodes.
    #[must_use]
    pub fn mtu(&self) -> u32 {
        let is_ipv6 = self.peers.iter().map(|peer| peer.ip).chain(self.group).any(|ip| ip.is_ipv6());
        usual_mtu(is_ipv6, self.encrypted)
    }

    /// Longest super-frame, bytes, that a tunnel of packets of `mtu` bytes takes in one send.
    #[must_use]
    pub fn gso_most(&self, mtu: u32) -> u32 {
        vxlan::gso_most(u16::try_from(mtu).unwrap_or(u16::MAX), self.encrypted)
    }
}

/// Largest packet inside that fits the usual network between nodes.
#[must_use]
pub fn usual_mtu(is_ipv6: bool, encrypted: bool) -> u32 {
    vxlan::inner_mtu(UNDERLAY_MTU, is_ipv6, encrypted).into()
}

/// All nodes have a network of the cluster, but each has its own gateway and translation.
fn check_global(request: &NetworkCreate) -> Result<()> {
    let own = [
        ("--peer", !request.peers.is_empty()),
        ("-o group", request.group.is_some()),
        ("-o weft.key-file", request.key_file.is_some()),
        ("own-addresses", !request.own_addresses.is_empty()),
        ("--dhcp", request.dhcp),
        ("--ra", request.ra),
        ("--nat-source", !request.nat_source.is_empty()),
        ("--nat-prefix", request.nat_prefix.is_some()),
        ("storm control", request.storm.is_some()),
    ];
    match own.iter().find(|(_, said)| *said) {
        Some((what, _)) => Err(invalid(&request.name, format!("{what} is for networks of one node")).hint("add --scope local, or leave it out")),
        None => Ok(()),
    }
}

fn invalid(subject: impl Into<String>, message: impl Into<String>) -> ControlError {
    ControlError::new(Code::Invalid, subject, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(name: &str) -> NetworkCreate {
        NetworkCreate { name: name.into(), driver: Some(DRIVER.into()), ..NetworkCreate::default() }
    }

    fn create(model: &mut Model, request: &NetworkCreate) -> Result<Network> {
        let id = format!("{:064x}", model.networks.len());
        let id = model.create_network(request, id)?;
        model.network(&id).cloned()
    }

    #[test]
    fn what_is_not_said_is_chosen() {
        let mut model = Model::default();
        let first = create(&mut model, &overlay("one")).unwrap();
        assert_eq!((first.mtu, first.overlay.as_ref().map(|overlay| (overlay.vni, overlay.strict, overlay.learning))), (1450, Some((4096, true, true))));
        create(&mut model, &NetworkCreate { vni: Some(4098), ..overlay("three") }).unwrap();
        let vni = |network: Network| network.overlay.unwrap().vni;
        assert_eq!(vni(create(&mut model, &overlay("two")).unwrap()), 4097);
        let over_ipv6 = create(&mut model, &NetworkCreate { peers: vec!["fd00::2".parse().unwrap()], ..overlay("six") }).unwrap();
        assert_eq!((over_ipv6.mtu, vni(over_ipv6)), (1430, 4099));
        let sealed = create(&mut model, &NetworkCreate { encrypted: true, ..overlay("sealed") }).unwrap();
        assert_eq!((sealed.mtu, sealed.overlay.unwrap().encrypted), (1414, true));
        let group = create(&mut model, &NetworkCreate { group: Some([239, 1, 1, 1].into()), mtu: Some(8950), ..overlay("group") }).unwrap();
        assert_eq!((group.mtu, group.overlay.unwrap().strict), (8950, false));
    }

    /// Two nodes that are told the same make the same network.
    #[test]
    fn chosen_addresses_are_those_of_the_other_nodes() {
        let made = |id: u32| {
            let mut model = Model::default();
            let id = model.create_network(&NetworkCreate { ipv6: true, vni: Some(77), subnets: vec!["10.0.9.0/24".parse().unwrap()], ..overlay("x") }, format!("{id:064x}")).unwrap();
            model.network(&id).unwrap().pools.clone()
        };
        assert_eq!(made(1), made(2));
    }

    #[test]
    fn refusals_name_the_culprit() {
        let mut model = Model::default();
        create(&mut model, &NetworkCreate { vni: Some(9), ..overlay("nine") }).unwrap();
        let before = serde_json::to_string(&model).unwrap();
        let peer: Remote = "192.0.2.1".parse().unwrap();
        for (request, culprit) in [
            (NetworkCreate { vni: Some(9), ..overlay("x") }, "VNI 9 is already in use by network nine"),
            (NetworkCreate { vni: Some(0), ..overlay("x") }, "VNI 0"),
            (NetworkCreate { vni: Some(1 << 24), ..overlay("x") }, "16777216"),
            (NetworkCreate { driver: None, vni: Some(5), ..overlay("x") }, "vni is for overlay"),
            (NetworkCreate { driver: Some("bridge".into()), peers: vec![peer], ..overlay("x") }, "peers is for overlay"),
            (NetworkCreate { peers: vec![peer, peer], ..overlay("x") }, "192.0.2.1"),
            (NetworkCreate { group: Some([10, 0, 0, 1].into()), ..overlay("x") }, "10.0.0.1"),
            (NetworkCreate { ttl: Some(0), ..overlay("x") }, "ttl"),
            (NetworkCreate { mtu: Some(65_500), ..overlay("x") }, "65500"),
            (NetworkCreate { mtu: Some(65_470), encrypted: true, ..overlay("x") }, "65449"),
            (NetworkCreate { driver: None, encrypted: true, ..overlay("x") }, "encrypted is for overlay"),
            (NetworkCreate { key_file: Some("/k".into()), ..overlay("x") }, "/k"),
            (NetworkCreate { key_file: Some("k".into()), encrypted: true, ..overlay("x") }, "absolute"),
        ] {
            let error = create(&mut model, &request).unwrap_err();
            assert!(error.message.contains(culprit), "{error}");
        }
        for text in ["node2", "0.0.0.0", "239.1.1.1", "255.255.255.255", "1.2.3.4:0", "1.2.3.4:99999", "::1:", "[fe80::1"] {
            assert!(text.parse::<Remote>().unwrap_err().message.contains(text));
        }
        assert_eq!(serde_json::to_string(&model).unwrap(), before);
    }

    #[test]
    fn peers_and_stations_come_and_go() {
        let mut model = Model::default();
        create(&mut model, &overlay("net")).unwrap();
        let plain = create(&mut model, &NetworkCreate { name: "plain".into(), ..NetworkCreate::default() }).unwrap();
        assert_eq!(plain.as_overlay().unwrap_err().message, "network plain is no overlay");
        let peers: [Remote; 3] = ["192.0.2.2", "192.0.2.3:4790", "[fd00::1]:1"].map(|text| text.parse().unwrap());
        peers.iter().for_each(|peer| model.set_peer("net", *peer, true).unwrap());
        assert_eq!(model.set_peer("net", peers[0], true).unwrap_err().code, Code::Exists);
        assert_eq!(model.set_peer("plain", peers[0], true).unwrap_err().code, Code::Invalid);
        assert_eq!((peers[0].at(4789).to_string(), peers[1].at(4789).to_string()), ("192.0.2.2:4789".into(), "192.0.2.3:4790".into()));
        model.set_station("net", "02:00:00:00:00:01", Some(peers[1])).unwrap();
        assert_eq!(model.set_station("net", "01:00:00:00:00:01", Some(peers[1])).unwrap_err().code, Code::Invalid);
        let saved = serde_json::to_string(&model).unwrap();
        assert_eq!(serde_json::from_str::<Model>(&saved).unwrap(), model);
        model.set_peer("net", peers[1], false).unwrap();
        assert_eq!(model.set_peer("net", peers[1], false).unwrap_err().code, Code::NotFound);
        model.set_station("net", "02:00:00:00:00:01", None).unwrap();
        assert_eq!(model.set_station("net", "02:00:00:00:00:01", None).unwrap_err().code, Code::NotFound);
    }
}
