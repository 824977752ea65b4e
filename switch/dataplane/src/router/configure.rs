//! What control asks for.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nat::{Forward, ForwardError, ForwardId, Inside};
use packet::NetworkId;

use super::{Link, PacketUplink, Router};

impl Router {
    /// Sets the uplink.
    pub fn set_uplink(&mut self, uplink: PacketUplink) {
        self.forget_ways();
        self.nat.set_externals(uplink.link.addresses.iter().map(IpNetwork::ip).collect());
        self.uplink = Some(uplink);
    }

    /// Serves a network; `inside` says how it leaves by the uplink, if it may.
    pub fn set_network(&mut self, id: NetworkId, link: Link, inside: Option<Inside>) {
        self.forget_ways();
        match inside {
            Some(inside) if self.uplink.is_some() => {
                self.leaving.insert(id);
                self.nat.set_network(id, inside);
            }
            _ => {
                self.leaving.remove(&id);
                self.nat.remove_network(id);
            }
        }
        self.links.insert(id, link);
    }

    /// Forgets a network.
    pub fn remove_network(&mut self, id: NetworkId) {
        self.forget_ways();
        self.links.remove(&id);
        self.mtus.retain(|(network, _), _| *network != id);
        self.leaving.remove(&id);
        self.routes.retain(|(from, to)| *from != id && *to != id);
        self.set_vips(id, &[]);
        self.neighbours.remove_network(id);
        self.nat.remove_network(id);
    }

    /// Forgets a sandbox's address.
    pub fn remove_inside(&mut self, network: NetworkId, ip: IpAddr) {
        self.forget_ways();
        self.neighbours.remove(&(network, ip));
        self.nat.remove_inside(network, ip);
    }

    /// Says what an address inside takes, where that is less than its network does.
    pub fn set_inside_mtu(&mut self, network: NetworkId, ip: IpAddr, mtu: Option<u16>) {
        self.forget_ways();
        match mtu {
            Some(mtu) => self.mtus.insert((network, ip), mtu),
            None => self.mtus.remove(&(network, ip)),
        };
    }

    /// Lets two networks reach each other, or not.
    pub fn set_route(&mut self, one: NetworkId, other: NetworkId, open: bool) {
        self.forget_ways();
        for pair in [(one, other), (other, one)] {
            if open { self.routes.insert(pair) } else { self.routes.remove(&pair) };
        }
    }

    /// The virtual addresses of a network, all of them.
    pub fn set_vips(&mut self, network: NetworkId, vips: &[IpAddr]) {
        self.forget_ways();
        self.vips.retain(|(of, _)| *of != network);
        self.vips.extend(vips.iter().map(|ip| (network, *ip)));
    }

    /// Forwards a port of the uplink.
    ///
    /// # Errors
    /// As [`Nat::add_forward`].
    pub fn add_forward(&mut self, forward: Forward) -> Result<ForwardId, ForwardError> {
        self.nat.add_forward(forward)
    }

    /// Stops.
    pub fn remove_forward(&mut self, id: ForwardId) {
        self.nat.remove_forward(id);
    }

    /// Tells of connections as they come and go, or no longer.
    pub fn watch(&mut self, on: bool) {
        self.nat.watch(on);
    }

    /// What was to tell since; answers how many events there was no room for.
    pub fn take_events(&mut self, each: impl FnMut(nat::FlowEvent)) -> u64 {
        self.nat.take_events(each)
    }
}
