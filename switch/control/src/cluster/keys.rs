//! Where things are in the store: libnetwork's layout, and beside it `weft/` for what it has no place for.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::{
    error::{Code, ControlError, Result},
    mesh::MeshClaim,
};

/// What Docker's nodes used: a path as etcd's old interface showed it, so with a slash in front.
pub const PREFIX: &str = "docker/network/v1.0";

/// The keys of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

/// What a key is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Node,
    Network,
    Endpoint,
    Secrets,
    Vip,
    MeshClaim,
    /// Taken: a name, an address, a number, or a count of changes.
    Claim,
}

impl Keys {
    /// Under this prefix.
    ///
    /// # Errors
    /// When it is no path.
    pub fn new(prefix: &str) -> Result<Self> {
        let path = prefix.trim_matches('/');
        if path.is_empty() || path.split('/').any(str::is_empty) || path.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(ControlError::new(Code::Invalid, prefix, format!("--cluster-prefix {prefix:?} is no path")).hint(format!("want one such as {PREFIX}")));
        }
        Ok(Self { prefix: format!("/{path}") })
    }

    /// Everything of the cluster is under this.
    #[must_use]
    pub fn all(&self) -> String {
        format!("{}/", self.prefix)
    }

    /// A node, by name.
    pub(super) fn node(&self, name: &str) -> String {
        format!("{}/weft/node/{name}", self.prefix)
    }

    /// A network, by id.
    pub(super) fn network(&self, id: &str) -> String {
        format!("{}/network/{id}", self.prefix)
    }

    /// How it spans nodes.
    pub(super) fn overlay(&self, network: &str) -> String {
        format!("{}/overlay/network/{network}", self.prefix)
    }

    /// What an encrypted network encrypts with.
    pub(super) fn secrets(&self, network: &str) -> String {
        format!("{}/weft/secrets/{network}", self.prefix)
    }

    /// Who has this name.
    pub(super) fn network_name(&self, name: &str) -> String {
        format!("{}/weft/name/{name}", self.prefix)
    }

    /// Who has this number on the wire.
    pub(super) fn vni(&self, vni: u32) -> String {
        format!("{}/idm/vni/{vni}", self.prefix)
    }

    /// Whose subnet this is.
    pub(super) fn pool(&self, subnet: IpNetwork) -> String {
        format!("{}/ipam/pool/{}_{}", self.prefix, subnet.network(), subnet.prefix())
    }

    /// Changes whenever a network comes or goes.
    pub(super) fn networks_changed(&self) -> String {
        format!("{}/ipam/changed", self.prefix)
    }

    /// Changes whenever an endpoint comes into a network.
    pub(super) fn endpoints_changed(&self, network: &str) -> String {
        format!("{}/weft/members/{network}", self.prefix)
    }

    /// Endpoints of a network.
    pub(super) fn endpoints(&self, network: &str) -> String {
        format!("{}/endpoint/{network}/", self.prefix)
    }

    /// An endpoint, by ids.
    pub(super) fn endpoint(&self, network: &str, id: &str) -> String {
        format!("{}{id}", self.endpoints(network))
    }

    /// Who has this name in a network.
    pub(super) fn endpoint_name(&self, network: &str, name: &str) -> String {
        format!("{}/weft/endpoint/{network}/name/{name}", self.prefix)
    }

    /// Who has this Ethernet address in a network.
    pub(super) fn mac(&self, network: &str, mac: &str) -> String {
        format!("{}/weft/endpoint/{network}/mac/{mac}", self.prefix)
    }

    /// Who has this address in a network.
    pub(super) fn address(&self, network: &str, ip: IpAddr) -> String {
        format!("{}/ipam/address/{network}/{ip}", self.prefix)
    }

    /// The virtual address of a service in a network.
    pub(super) fn vip(&self, network: &str, service: &str) -> String {
        format!("{}/weft/vip/{network}/{service}", self.prefix)
    }

    /// Whose a port of the routing mesh is.
    pub(super) fn mesh_port(&self, network: &str, claim: &MeshClaim) -> String {
        format!("{}/weft/mesh/{network}/{}", self.prefix, claim.id())
    }

    /// Which network is the routing mesh's.
    pub(super) fn ingress(&self) -> String {
        format!("{}/weft/ingress", self.prefix)
    }

    pub(super) fn kind(&self, key: &str) -> Kind {
        let Some(path) = key.strip_prefix(&self.prefix) else { return Kind::Claim };
        let parts: Vec<_> = path.split('/').skip(1).collect();
        match parts[..] {
            ["weft", "node", _] => Kind::Node,
            ["weft", "secrets", _] => Kind::Secrets,
            ["network", _] => Kind::Network,
            ["endpoint", _, _] => Kind::Endpoint,
            ["weft", "vip", _, _] => Kind::Vip,
            ["weft", "mesh", _, _, _] => Kind::MeshClaim,
            _ => Kind::Claim,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::Protocol;

    #[test]
    fn v9_libnetwork_s_layout() {
        let keys = Keys::new(PREFIX).unwrap();
        assert_eq!(keys, Keys::new("/docker/network/v1.0/").unwrap());
        assert_eq!(keys.network("ab"), "/docker/network/v1.0/network/ab");
        assert_eq!(keys.endpoint("ab", "cd"), "/docker/network/v1.0/endpoint/ab/cd");
        assert_eq!(keys.overlay("ab"), "/docker/network/v1.0/overlay/network/ab");
        assert!(keys.vni(4096).starts_with("/docker/network/v1.0/idm/") && keys.pool("10.0.0.0/24".parse().unwrap()).starts_with("/docker/network/v1.0/ipam/"));
        let kinds = [keys.node("n"), keys.network("a"), keys.endpoint("a", "b"), keys.vip("a", "web"), keys.mesh_port("a", &MeshClaim { protocol: Protocol::Tcp, port: 80, service: "web".into() }), keys.overlay("a"), keys.networks_changed(), keys.secrets("a")].map(|key| keys.kind(&key));
        assert_eq!(kinds, [Kind::Node, Kind::Network, Kind::Endpoint, Kind::Vip, Kind::MeshClaim, Kind::Claim, Kind::Claim, Kind::Secrets]);
        for bad in ["", "/", "a//b", "a b"] {
            assert!(Keys::new(bad).unwrap_err().message.contains("--cluster-prefix"));
        }
    }
}
