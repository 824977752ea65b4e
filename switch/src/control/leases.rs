//! What DHCP has lent, for views.

use dataplane::{Command, Reply};
use weft_control::{Code, ControlError, Result, api::LeaseInfo};

use super::runtime::{Inner, unavailable};

impl Inner {
    /// Addresses of a network that its gateway lends, or keeps for stations.
    pub(crate) fn leases(&self, network: &str) -> Result<Vec<LeaseInfo>> {
        let network = self.model.network(network)?;
        if network.dhcp_hosts().is_none() {
            return Err(ControlError::new(Code::Invalid, &network.name, format!("network {} has no DHCP server", network.name)).hint("`weft network create --dhcp` makes one"));
        }
        let bridge = *self.bridges.get(&network.id).ok_or_else(|| unavailable("the network has no bridge"))?;
        let Reply::Leases(views) = self.dataplane.apply(Command::ShowLeases(bridge)).map_err(unavailable)? else { return Ok(Vec::new()) };
        let mut leases: Vec<_> = views.into_iter().map(|view| LeaseInfo { address: view.ip, client: view.client, host_name: view.host_name, expires_s: view.left.map(|left| left.as_secs()) }).collect();
        leases.sort_by_key(|lease| lease.address);
        Ok(leases)
    }
}
