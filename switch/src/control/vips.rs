//! Virtual addresses: told to the data plane with every change of the model, and shown.

use std::net::IpAddr;

use dataplane::{Command, Reply, VipConfig};
use ipnetwork::IpNetwork;
use packet::{Mac, UnicastMac};
use weft_control::{
    Result, Served,
    api::{VipEndpoint, VipInfo},
};

use super::runtime::{Inner, unavailable};
use crate::uplink::UplinkCommand;

fn config_of(served: Served) -> VipConfig {
    let station = |(ip, mac): (IpAddr, String)| Some((ip, mac.parse::<Mac>().ok().and_then(UnicastMac::new)?));
    VipConfig { address: served.address, endpoints: served.endpoints.into_iter().filter_map(station).collect() }
}

impl Inner {
    /// Makes what is balanced match the model. What fails is logged and tried again with the next change.
    pub(super) fn serve_vips(&mut self) {
        for network in self.model.networks.values() {
            let Some(&bridge) = self.bridges.get(&network.id) else { continue };
            if network.vips.is_empty() && !self.balanced.contains_key(&bridge) {
                continue;
            }
            let vips: Vec<_> = self.model.served(network).into_iter().map(config_of).collect();
            if self.balanced.get(&bridge).map_or(&[][..], Vec::as_slice) == vips {
                continue;
            }
            let addresses = vips.iter().map(|vip| vip.address).collect();
            let told = self.dataplane.apply(Command::SetVips(bridge, vips.clone())).map_err(unavailable);
            match told.and_then(|_| self.dataplane.uplink(UplinkCommand::SetVips(bridge, addresses)).map_err(unavailable)) {
                Ok(_) => drop(self.balanced.insert(bridge, vips)),
                Err(error) => tracing::error!(network = network.name, %error, "the data plane does not know its virtual addresses"),
            }
        }
    }

    pub(crate) fn vip_infos(&self) -> Result<Vec<VipInfo>> {
        let mut infos = Vec::new();
        for network in self.model.networks.values().filter(|network| !network.vips.is_empty()) {
            let Some(&bridge) = self.bridges.get(&network.id) else { continue };
            let Reply::Vips(views) = self.dataplane.apply(Command::ShowVips(bridge)).map_err(unavailable)? else { continue };
            let sandbox_at = |ip: IpAddr| {
                let has = |addresses: &[IpNetwork]| addresses.iter().any(|own| own.ip() == ip);
                let here = self.model.members(&network.id).find(|(_, endpoint)| has(&endpoint.addresses)).map(|(sandbox, _)| sandbox.name.clone());
                let elsewhere = || self.model.remote_members(&network.id).find(|(_, endpoint)| has(&endpoint.addresses)).map(|(_, endpoint)| endpoint.described());
                here.or_else(elsewhere).unwrap_or_default()
            };
            for (name, addresses) in &network.vips {
                let of = views.iter().filter(|view| addresses.contains(&view.address)).flat_map(|view| &view.endpoints);
                let endpoints = of.map(|&(address, connections, total)| VipEndpoint { sandbox: sandbox_at(address), address, connections, total });
                infos.push(VipInfo { network: network.name.clone(), name: name.clone(), addresses: addresses.clone(), endpoints: endpoints.collect() });
            }
        }
        infos.sort_by(|one, other| (&one.network, &one.name).cmp(&(&other.network, &other.name)));
        Ok(infos)
    }
}
