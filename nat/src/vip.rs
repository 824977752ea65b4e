//! Virtual addresses: one for several endpoints, of which each new connection gets the next in turn.

use std::{collections::BTreeMap, net::IpAddr};

/// A virtual address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// The address.
    pub address: IpAddr,
    /// Who answers for it; those of another family are left out.
    pub endpoints: Vec<IpAddr>,
}

/// A virtual address, with what it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipView {
    /// The address.
    pub address: IpAddr,
    /// Its endpoints, in order: connections that are open, and that were given to it.
    pub endpoints: Vec<(IpAddr, usize, u64)>,
}

#[derive(Debug)]
struct Endpoint {
    ip: IpAddr,
    /// Connections that it was given.
    given: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Vips {
    all: BTreeMap<IpAddr, (Vec<Endpoint>, usize)>,
    /// All endpoints, sorted.
    endpoints: Vec<IpAddr>,
}

impl Vips {
    /// These and no others. `dice` says who of a new one is first.
    pub(crate) fn set(&mut self, vips: Vec<Vip>, mut dice: impl FnMut() -> u64) {
        let mut before = std::mem::take(&mut self.all);
        self.endpoints.clear();
        for Vip { address, endpoints } in vips {
            let (known, next) = before.remove(&address).unwrap_or_else(|| (Vec::new(), usize::try_from(dice() >> 32).unwrap_or_default()));
            let given = |ip| known.iter().find(|endpoint| endpoint.ip == ip).map_or(0, |endpoint| endpoint.given);
            let endpoints: Vec<_> = endpoints.into_iter().filter(|ip| ip.is_ipv4() == address.is_ipv4()).map(|ip| Endpoint { ip, given: given(ip) }).collect();
            self.endpoints.extend(endpoints.iter().map(|endpoint| endpoint.ip));
            self.all.insert(address, (endpoints, next));
        }
        self.endpoints.sort_unstable();
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.all.keys().copied()
    }

    #[inline]
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.all.contains_key(&address)
    }

    #[inline]
    pub(crate) fn is_endpoint(&self, ip: IpAddr) -> bool {
        self.endpoints.binary_search(&ip).is_ok()
    }

    /// Whether `ip` answers for `address`.
    pub(crate) fn is_endpoint_of(&self, address: IpAddr, ip: IpAddr) -> bool {
        self.all.get(&address).is_some_and(|(endpoints, _)| endpoints.iter().any(|endpoint| endpoint.ip == ip))
    }

    pub(crate) fn count(&self, address: IpAddr) -> usize {
        self.all.get(&address).map_or(0, |(endpoints, _)| endpoints.len())
    }

    /// Whose turn it is.
    pub(crate) fn next(&mut self, address: IpAddr) -> Option<IpAddr> {
        let (endpoints, next) = self.all.get_mut(&address)?;
        let at = next.checked_rem(endpoints.len())?;
        *next = at + 1;
        let endpoint = endpoints.get_mut(at)?;
        endpoint.given += 1;
        Some(endpoint.ip)
    }

    /// Who comes after `ip`, which would not have a connection.
    pub(crate) fn after(&mut self, address: IpAddr, ip: IpAddr) -> Option<IpAddr> {
        let (endpoints, _) = self.all.get_mut(&address)?;
        let at = endpoints.iter().position(|endpoint| endpoint.ip == ip)?;
        let next = (at + 1) % endpoints.len();
        endpoints[at].given = endpoints[at].given.saturating_sub(1);
        endpoints[next].given += 1;
        Some(endpoints[next].ip)
    }

    pub(crate) fn views(&self, open: impl Fn(IpAddr, IpAddr) -> usize) -> Vec<VipView> {
        let view = |(address, (endpoints, _)): (&IpAddr, &(Vec<Endpoint>, usize))| VipView {
            address: *address,
            endpoints: endpoints.iter().map(|endpoint| (endpoint.ip, open(*address, endpoint.ip), endpoint.given)).collect(),
        };
        self.all.iter().map(view).collect()
    }
}
