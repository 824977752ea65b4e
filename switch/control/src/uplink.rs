//! How networks reach the outside: by the host's sockets, or packet by packet through a device.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnetwork::IpNetwork;

use crate::error::{Code, ControlError, Result};

/// `--uplink`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UplinkSpec {
    /// Flows are carried by host sockets.
    #[default]
    Sockets,
    /// A TAP in the host's namespace, made by us.
    Tap(PacketSpec),
    /// A device of the host, through a packet socket.
    Device(PacketSpec),
}

/// The link of a packet uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketSpec {
    /// Name of the device.
    pub name: String,
    /// Our addresses there, with their subnets; at most one of each family.
    pub addresses: Vec<IpNetwork>,
    /// Next hop by family. On a TAP that is the host itself, which gets that address.
    pub gateways: Vec<IpAddr>,
    /// Largest packet, bytes.
    pub mtu: u16,
}

/// The link of a TAP that was given no addresses: of the block for benchmarks and labs (RFC 2544).
const TAP_ADDRESS: &str = "198.18.255.2/30";
const WANT: &str = "want sockets, tap:NAME[,addr=A/LEN][,gw=A] or dev:NAME,addr=A/LEN[,gw=A][,mtu=N]; addr and gw once for IPv4 and once for IPv6";

impl UplinkSpec {
    /// The link, when there is one.
    #[must_use]
    pub const fn packet(&self) -> Option<&PacketSpec> {
        match self {
            Self::Sockets => None,
            Self::Tap(spec) | Self::Device(spec) => Some(spec),
        }
    }
}

impl fmt::Display for UplinkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, spec) = match self {
            Self::Sockets => return f.write_str("sockets"),
            Self::Tap(spec) => ("tap", spec),
            Self::Device(spec) => ("dev", spec),
        };
        write!(f, "{kind}:{}", spec.name)?;
        spec.addresses.iter().try_for_each(|address| write!(f, ",addr={address}"))?;
        spec.gateways.iter().try_for_each(|gateway| write!(f, ",gw={gateway}"))
    }
}

impl FromStr for UplinkSpec {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self> {
        if text == "sockets" {
            return Ok(Self::Sockets);
        }
        let bad = |part: &str, what: &str| ControlError::new(Code::Invalid, text, format!("--uplink {text}: {what}: {part:?}")).hint(WANT);
        let (kind, rest) = text.split_once(':').ok_or_else(|| bad(text, "no such uplink"))?;
        let mut parts = rest.split(',');
        let name = parts.next().unwrap_or_default();
        if name == "lo" {
            return Err(bad(name, "nothing but the host itself is behind it"));
        }
        if name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) {
            return Err(bad(name, "not the name of a device (1 to 15 characters)"));
        }
        let mut spec = PacketSpec { name: name.into(), addresses: Vec::new(), gateways: Vec::new(), mtu: 1500 };
        for part in parts {
            match part.split_once('=') {
                Some(("addr", value)) => spec.addresses.push(value.parse().map_err(|_| bad(value, "not an address with its prefix length"))?),
                Some(("gw", value)) => spec.gateways.push(value.parse().map_err(|_| bad(value, "not an address"))?),
                Some(("mtu", value)) => spec.mtu = value.parse().ok().filter(|mtu| (576..=65_521).contains(mtu)).ok_or_else(|| bad(value, "not an MTU from 576 to 65521"))?,
                // `tap:NAME,A/LEN` is short for addr=.
                None if part.contains('/') => spec.addresses.push(part.parse().map_err(|_| bad(part, "not an address with its prefix length"))?),
                _ => return Err(bad(part, "not an option")),
            }
        }
        let is_tap = match kind {
            "tap" => true,
            "dev" => false,
            _ => return Err(bad(kind, "no such kind of uplink")),
        };
        if spec.addresses.is_empty() {
            if !is_tap {
                return Err(bad(name, "an address of our own is missing (addr=)"));
            }
            spec.addresses.extend(TAP_ADDRESS.parse::<IpNetwork>().ok());
        }
        for is_ipv4 in [true, false] {
            let own: Vec<_> = spec.addresses.iter().filter(|address| address.is_ipv4() == is_ipv4).copied().collect();
            let gateway: Vec<_> = spec.gateways.iter().filter(|gateway| gateway.is_ipv4() == is_ipv4).copied().collect();
            if own.len() > 1 || gateway.len() > 1 {
                return Err(bad(rest, "more than one address or gateway of a family"));
            }
            let (Some(own), gateway) = (own.first(), gateway.first()) else {
                if let Some(gateway) = gateway.first() {
                    return Err(bad(&gateway.to_string(), "a gateway of a family without an address"));
                }
                continue;
            };
            let is_host_s = own.ip().is_loopback() || own.ip().is_multicast() || own.ip().is_unspecified() || (own.is_ipv4() && own.prefix() < 31 && own.ip() == own.broadcast());
            if is_host_s {
                return Err(bad(&own.to_string(), "no address that a host can have on a link"));
            }
            if own.ip() == own.network() && own.prefix() < if own.is_ipv4() { 31 } else { 127 } {
                return Err(bad(&own.to_string(), "that is the subnet, not a host in it"));
            }
            match gateway {
                Some(gateway) if !own.contains(*gateway) || *gateway == own.ip() => return Err(bad(&gateway.to_string(), "not another host of the link")),
                Some(_) => {}
                // The host's end of a TAP is the other address of the link.
                None if is_tap => spec.gateways.push(other_host(*own).ok_or_else(|| bad(&own.to_string(), "no room for the host on the link"))?),
                None => {}
            }
        }
        Ok(if is_tap { Self::Tap(spec) } else { Self::Device(spec) })
    }
}

/// The first host of a subnet that is not `own`.
fn other_host(own: IpNetwork) -> Option<IpAddr> {
    let mut hosts = own.iter().filter(|ip| own.prefix() >= if own.is_ipv4() { 31 } else { 127 } || *ip != own.network());
    hosts.find(|ip| *ip != own.ip() && (!own.is_ipv4() || own.prefix() >= 31 || *ip != own.broadcast()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_defaults() {
        assert_eq!("sockets".parse::<UplinkSpec>().unwrap(), UplinkSpec::Sockets);
        for (text, full) in [
            ("tap:weft0", "tap:weft0,addr=198.18.255.2/30,gw=198.18.255.1"),
            ("tap:weft0,10.1.0.2/24", "tap:weft0,addr=10.1.0.2/24,gw=10.1.0.1"),
            ("dev:eth1,addr=192.168.1.9/24,gw=192.168.1.1,addr=2001:db8::9/64", "dev:eth1,addr=192.168.1.9/24,addr=2001:db8::9/64,gw=192.168.1.1"),
        ] {
            assert_eq!(text.parse::<UplinkSpec>().unwrap().to_string(), full);
        }
    }

    #[test]
    fn each_error_names_its_part() {
        for (text, part) in [
            ("user", "user"),
            ("tap:", "\"\""),
            ("veth:x", "veth"),
            ("dev:eth1", "addr="),
            ("dev:lo,addr=1.2.3.4/24", "lo"),
            ("dev:eth1,addr=127.0.0.1/8", "127.0.0.1/8"),
            ("dev:eth1,addr=1.2.3.255/24", "1.2.3.255/24"),
            ("dev:eth1,addr=1.2.3.4/33", "1.2.3.4/33"),
            ("dev:eth1,addr=1.2.3.0/24", "1.2.3.0/24"),
            ("dev:eth1,addr=1.2.3.4/24,gw=1.2.4.1", "1.2.4.1"),
            ("dev:eth1,addr=1.2.3.4/24,gw=fe80::1", "fe80::1"),
            ("dev:eth1,addr=1.2.3.4/24,color=red", "color=red"),
            ("dev:eth1,addr=1.2.3.4/24,mtu=9", "9"),
            ("dev:eth1,addr=1.2.3.4/24,addr=1.2.3.5/24", "more than one"),
        ] {
            let error = text.parse::<UplinkSpec>().unwrap_err();
            assert!(error.message.contains(part), "{text}: {}", error.message);
        }
    }
}
