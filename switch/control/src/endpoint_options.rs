//! What of an endpoint is said in words of Docker's, wherever: driver options, link-local addresses.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use crate::{
    api::{EndpointCreate, VIP_OPTION, vips_of},
    error::{Code, ControlError, Result},
    sysctl,
};

pub(crate) const IFNAME: &str = "com.docker.network.endpoint.ifname";
pub(crate) const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
pub(crate) const MAC: &str = "com.docker.network.endpoint.macaddress";

/// Puts driver options into a request, which keeps them to be shown.
///
/// # Errors
/// Naming the option that has no sense or no effect.
pub(crate) fn apply(endpoint: &mut EndpointCreate, options: BTreeMap<String, String>) -> Result<()> {
    for (key, value) in &options {
        match key.as_str() {
            IFNAME => endpoint.ifname = Some(value.clone()),
            SYSCTLS => endpoint.sysctls = sysctl::parse(value)?,
            MAC => endpoint.mac = Some(value.clone()),
            VIP_OPTION => endpoint.vips = vips_of(value).collect(),
            _ => return Err(ControlError::new(Code::Invalid, key, format!("endpoint option {key} is not supported: there are {IFNAME}, {SYSCTLS}, {MAC}, {VIP_OPTION}"))),
        }
    }
    endpoint.options = options;
    Ok(())
}

/// 169.254.0.0/16 (RFC 3927) or fe80::/10.
///
/// # Errors
/// When it is another address, or none.
pub(crate) fn link_local(text: &str) -> Result<IpAddr> {
    let is_link_local = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_link_local() && *ip != Ipv4Addr::new(169, 254, 255, 255),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    text.parse().ok().filter(is_link_local).ok_or_else(|| ControlError::new(Code::Invalid, text, format!("invalid link-local IP address: {text}")))
}
