//! What the proxy knows of a network.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use packet::Mac;

/// What the proxy knows of a network.
#[derive(Clone, Debug)]
pub struct Network {
    /// Address of the gateway on the link.
    pub gateway_mac: Mac,
    /// The gateway's address and the subnet, by family.
    pub gateways: Vec<ipnetwork::IpNetwork>,
    /// Largest packet on the link, bytes.
    pub mtu: u16,
    /// Where questions to the gateway's port 53 go.
    pub resolvers: Resolvers,
    /// Whether sandboxes may open flows to the outside; published ports work either way.
    pub masquerade: bool,
    /// As whom sandboxes see clients that they could not answer to; as the gateway where there is none of the family.
    pub stand_in: Vec<IpAddr>,
}

impl Network {
    /// The gateway's address of a family.
    pub(super) fn gateway(&self, ipv4: bool) -> Option<IpAddr> {
        self.gateways.iter().map(ipnetwork::IpNetwork::ip).find(|ip| ip.is_ipv4() == ipv4)
    }

    pub(super) fn stand_in(&self, ipv4: bool) -> Option<IpAddr> {
        self.stand_in.iter().copied().find(|ip| ip.is_ipv4() == ipv4).or_else(|| self.gateway(ipv4))
    }

    pub(super) fn is_inside(&self, ip: IpAddr) -> bool {
        self.gateways.iter().any(|subnet| subnet.contains(ip))
    }
}

/// Who answers questions for names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolvers {
    /// Those of all; nobody when missing.
    pub common: Option<SocketAddr>,
    /// Those of addresses inside that have one of their own.
    pub own: BTreeMap<IpAddr, SocketAddr>,
}

impl Resolvers {
    pub(super) fn of(&self, inside: IpAddr) -> Option<SocketAddr> {
        self.own.get(&inside).copied().or(self.common)
    }
}
