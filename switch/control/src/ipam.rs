//! Address management: which address next. Leases are not kept here: the endpoints are the leases,
//! so there is nothing to leak.

use std::{collections::BTreeSet, net::{IpAddr, Ipv4Addr, Ipv6Addr}};

use ipnetwork::IpNetwork;

/// The next free address after `cursor`, going round once: what was just given back is not handed
/// out at once. What is in `except` is left to others. Work is bounded by the addresses in use, whatever
/// the size of the pool.
pub(crate) fn next_free(range: IpNetwork, except: Option<IpNetwork>, cursor: Option<IpAddr>, used: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let (first, last) = usable(range);
    let start = cursor.map(number).filter(|&at| at >= first && at < last).map_or(first, |at| at + 1);
    let free = |mut at: u128, end: u128| {
        while at <= end {
            let address = address(range, at);
            if let Some(except) = except.filter(|except| except.contains(address)) {
                at = number(except.broadcast()) + 1;
                continue;
            }
            if !used.contains(&address) {
                return Some(address);
            }
            at += 1;
        }
        None
    };
    free(start, last).or_else(|| free(first, start.saturating_sub(1)))
}

/// First and last address that a host may have. IPv4 keeps the network and broadcast addresses out
/// (but for /31 and /32, RFC 3021); IPv6 the subnet-router anycast address (RFC 4291 2.6.1).
fn usable(range: IpNetwork) -> (u128, u128) {
    let (first, last) = (number(range.network()), number(range.broadcast()));
    match range {
        IpNetwork::V4(v4) if v4.prefix() >= 31 => (first, last),
        IpNetwork::V4(_) => (first + 1, last - 1),
        IpNetwork::V6(v6) if v6.prefix() >= 127 => (first, last),
        IpNetwork::V6(_) => (first + 1, last),
    }
}

/// The first usable address: the gateway unless another is given.
pub(crate) fn first_usable(subnet: IpNetwork) -> IpAddr {
    address(subnet, usable(subnet).0)
}

/// True when a host of the subnet may have the address.
pub(crate) fn is_usable(subnet: IpNetwork, at: IpAddr) -> bool {
    let (first, last) = usable(subnet);
    at.is_ipv4() == subnet.is_ipv4() && (first..=last).contains(&number(at))
}

/// First and last address of a part of a subnet that hosts may have.
pub(crate) fn host_range(part: IpNetwork, subnet: IpNetwork) -> Option<(IpAddr, IpAddr)> {
    let (first, last) = usable(subnet);
    let (first, last) = (first.max(number(part.network())), last.min(number(part.broadcast())));
    (first <= last).then(|| (address(subnet, first), address(subnet, last)))
}

/// The upper quarter of a subnet.
pub(crate) fn upper_quarter(subnet: IpNetwork) -> Option<IpNetwork> {
    let IpNetwork::V4(v4) = subnet else { return None };
    let prefix = v4.prefix().checked_add(2).filter(|prefix| *prefix <= 32)?;
    let quarter = ipnetwork::Ipv4Network::new(v4.broadcast(), prefix).ok()?;
    IpNetwork::new(quarter.network().into(), prefix).ok()
}

/// True when the two share an address.
pub(crate) fn overlap(one: IpNetwork, other: IpNetwork) -> bool {
    one.contains(other.network()) || other.contains(one.network())
}

/// Docker's default pools: 172.17/16 ... 172.31/16, then 192.168.0/20 ... 192.168.240/20.
pub(crate) fn default_pools() -> impl Iterator<Item = IpNetwork> {
    let large = (17..=31).map(|second| (Ipv4Addr::new(172, second, 0, 0), 16));
    let small = (0..16).map(|third| (Ipv4Addr::new(192, 168, third * 16, 0), 20));
    large.chain(small).filter_map(|(network, prefix)| IpNetwork::new(network.into(), prefix).ok())
}

/// All subnets of length `size` in `base`, in order.
pub(crate) fn pieces(base: IpNetwork, size: u8) -> impl Iterator<Item = IpNetwork> {
    let bits = if base.is_ipv4() { 32 } else { 128 };
    let (first, last, step) = (number(base.network()), number(base.broadcast()), 1u128 << (bits - u32::from(size).min(bits)).min(127));
    let starts = std::iter::successors(Some(first), move |at| at.checked_add(step).filter(|next| *next <= last));
    starts.filter_map(move |at| IpNetwork::new(address(base, at), size).ok())
}

/// Docker's default pools of networks that span nodes: 10.0.0/24 ... 10.255.255/24.
pub(crate) fn global_pools() -> impl Iterator<Item = IpNetwork> {
    IpNetwork::new(Ipv4Addr::new(10, 0, 0, 0).into(), 8).into_iter().flat_map(|base| pieces(base, 24))
}

/// A unique local /64 (RFC 4193 3.1): fd, 40 bits of the network's random id, subnet 0.
pub(crate) fn unique_local(id: &str) -> IpNetwork {
    let random = u64::from_str_radix(id.get(..10).unwrap_or_default(), 16).unwrap_or_default();
    let network = Ipv6Addr::from_bits((0xfd << 120) | (u128::from(random) << 80));
    IpNetwork::V6(ipnetwork::Ipv6Network::new_checked(network, 64).unwrap_or_else(|| network.into()))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn address(like: IpNetwork, number: u128) -> IpAddr {
    match like {
        IpNetwork::V4(_) => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpNetwork::V6(_) => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_round_and_ends() {
        let range: IpNetwork = "10.0.0.0/29".parse().unwrap();
        let mut used: BTreeSet<IpAddr> = BTreeSet::from(["10.0.0.1".parse().unwrap()]);
        let mut cursor = None;
        for expected in 2..=6 {
            cursor = next_free(range, None, cursor, &used);
            assert_eq!(cursor, Some(Ipv4Addr::new(10, 0, 0, expected).into()));
            used.extend(cursor);
        }
        assert_eq!(next_free(range, None, cursor, &used), None);
        used.remove(&"10.0.0.3".parse().unwrap());
        assert_eq!(next_free(range, None, cursor, &used), Some("10.0.0.3".parse().unwrap()));
    }

    #[test]
    fn leaves_a_part_to_others() {
        let range: IpNetwork = "10.0.0.0/28".parse().unwrap();
        let except = Some("10.0.0.4/30".parse().unwrap());
        let mut used = BTreeSet::new();
        while let Some(next) = next_free(range, except, None, &used) {
            used.insert(next);
        }
        let last: Vec<u8> = used.iter().map(|ip| if let IpAddr::V4(ip) = ip { ip.octets()[3] } else { 0 }).collect();
        assert_eq!(last, [1, 2, 3, 8, 9, 10, 11, 12, 13, 14]);
        assert_eq!(next_free(range, Some(range), None, &BTreeSet::new()), None, "all of it");
        assert_eq!(upper_quarter("10.9.0.0/24".parse().unwrap()), Some("10.9.0.192/26".parse().unwrap()));
        assert_eq!(host_range("10.9.0.192/26".parse().unwrap(), "10.9.0.0/24".parse().unwrap()), Some(("10.9.0.192".parse().unwrap(), "10.9.0.254".parse().unwrap())));
        assert_eq!(host_range("10.9.0.3/32".parse().unwrap(), "10.9.0.0/30".parse().unwrap()), None, "the broadcast address alone");
    }

    /// Nothing is kept for an address that nobody has: a network of a million addresses (or 2^64) is as small as one
    /// of 250, saved and in memory, which is what is saved.
    #[test]
    fn a_large_pool_takes_no_room() {
        use crate::{EndpointKind, Journal, Model, api::{EndpointCreate, NetworkCreate, SandboxCreate}};
        let saved = |subnet: &str| {
            let mut model = Model::default();
            let id = |number: u32| format!("{number:064x}");
            model.create_network(&NetworkCreate { name: "net".into(), subnets: vec![subnet.parse().unwrap()], ..NetworkCreate::default() }, id(0)).unwrap();
            for number in (1..=200).map(|number| 2 * number) {
                model.create_sandbox(&SandboxCreate { name: Some(format!("s{number:03}")), ..SandboxCreate::default() }, id(number)).unwrap();
                model.create_endpoint(&id(number), &EndpointCreate { network: "net".into(), ..EndpointCreate::default() }, id(number + 1), EndpointKind::Tap).unwrap();
            }
            Journal::begin(&model).unwrap().1.len()
        };
        let small = saved("10.0.0.0/24");
        assert_eq!(saved("10.0.0.0/12"), small);
        assert!(saved("fd00::/64") < small);
        // All but the last used, from wherever: the way round is by what is used.
        let range: IpNetwork = "10.0.0.0/12".parse().unwrap();
        let mut used: BTreeSet<IpAddr> = (1..1000).map(|at| address(range, number(range.network()) + at)).collect();
        used.insert("10.15.255.254".parse().unwrap());
        assert_eq!(next_free(range, None, Some("10.15.255.253".parse().unwrap()), &used), Some("10.0.3.232".parse().unwrap()));
    }

    #[test]
    fn edges() {
        assert!(!is_usable("10.0.0.0/24".parse().unwrap(), "10.0.0.255".parse().unwrap()));
        assert!(is_usable("10.0.0.0/31".parse().unwrap(), "10.0.0.1".parse().unwrap()));
        assert!(!is_usable("fd00::/64".parse().unwrap(), "fd00::".parse().unwrap()));
        assert!(overlap("10.0.0.0/8".parse().unwrap(), "10.9.0.0/24".parse().unwrap()));
        assert_eq!(default_pools().count(), 31);
        assert_eq!(unique_local("0123456789abcdef"), "fd01:2345:6789::/64".parse().unwrap());
        let huge: IpNetwork = "fd00::/64".parse().unwrap();
        assert_eq!(next_free(huge, None, None, &BTreeSet::new()), Some("fd00::1".parse().unwrap()));
    }
}
