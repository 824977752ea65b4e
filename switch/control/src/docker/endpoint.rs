//! What was said of a container's membership in a network.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{bad, conflict, read, refuse_others};
use crate::{api::EndpointCreate, endpoint_options, error::Result};

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct EndpointConfig {
    #[serde(rename = "IPAMConfig")]
    ipam: IpamConfig,
    aliases: Vec<String>,
    links: Vec<String>,
    mac_address: String,
    driver_opts: BTreeMap<String, String>,
    gw_priority: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct IpamConfig {
    #[serde(rename = "IPv4Address")]
    v4: String,
    #[serde(rename = "IPv6Address")]
    v6: String,
    #[serde(rename = "LinkLocalIPs")]
    link_local: Vec<String>,
}

/// What of an endpoint's JSON is an answer only; clients send it back as it was.
const FIELDS: &[&str] = &[
    "IPAMConfig", "Aliases", "Links", "MacAddress", "DriverOpts", "GwPriority", "NetworkID", "EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "IPv6Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "DNSNames",
];

/// An `EndpointConfig` as ours.
///
/// # Errors
/// Naming the field that has no sense or no effect.
pub fn endpoint_request(network: &str, config: Value) -> Result<EndpointCreate> {
    let config = if config.is_null() { json!({}) } else { config };
    refuse_others("EndpointConfig.", &config, FIELDS)?;
    let config: EndpointConfig = read(config)?;
    let mut endpoint = EndpointCreate {
        network: network.into(),
        aliases: config.aliases,
        mac: Some(config.mac_address).filter(|mac| !mac.is_empty()),
        link: config.links.iter().map(|text| text.parse()).collect::<Result<_>>()?,
        gw_priority: i32::try_from(config.gw_priority).map_err(|_| bad(format!("invalid GwPriority {}: want 32 bits", config.gw_priority)))?,
        ..EndpointCreate::default()
    };
    if !config.ipam.v4.is_empty() {
        endpoint.ip = Some(config.ipam.v4.parse().map_err(|_| bad(format!("invalid IPv4 address: {}", config.ipam.v4)))?);
    }
    if !config.ipam.v6.is_empty() {
        endpoint.ip6 = Some(config.ipam.v6.parse().map_err(|_| bad(format!("invalid IPv6 address: {}", config.ipam.v6)))?);
    }
    endpoint.link_local = config.ipam.link_local.iter().map(|text| endpoint_options::link_local(text)).collect::<Result<_>>()?;
    endpoint_options::apply(&mut endpoint, config.driver_opts)?;
    Ok(endpoint)
}

/// The networks of a new container: its mode's, and others by name.
pub(super) fn wanted(mode: &str, mut configs: BTreeMap<String, Value>) -> Result<Vec<EndpointCreate>> {
    if matches!(mode, "host" | "none") || mode.starts_with("container:") {
        // There is no endpoint that any of it could be about.
        refuse_others("EndpointConfig.", &configs.remove(mode).unwrap_or_default(), &[])?;
        return match configs.first_key_value() {
            Some((name, _)) => Err(conflict(format!("conflicting options: network mode {mode} and network {name}"))),
            None => Ok(Vec::new()),
        };
    }
    let first = configs.remove(mode).or_else(|| (mode == "bridge").then(|| configs.remove("default")).flatten()).unwrap_or(Value::Null);
    let rest = configs.into_iter().map(|(name, config)| endpoint_request(&name, config));
    std::iter::once(endpoint_request(mode, first)).chain(rest).collect()
}

/// `POST /networks/{id}/connect`.
///
/// # Errors
/// When it is something else.
pub fn membership(network: &str, body: Value) -> Result<(String, EndpointCreate)> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct Membership {
        container: String,
        endpoint_config: Value,
    }
    refuse_others("", &body, &["Container", "EndpointConfig"])?;
    let Membership { container, endpoint_config } = read(body)?;
    Ok((container, endpoint_request(network, endpoint_config)?))
}

/// `POST /networks/{id}/disconnect`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Leave {
    /// Name or id.
    pub container: String,
}

impl Leave {
    /// # Errors
    /// When it is something else.
    pub fn parse(body: Value) -> Result<Self> {
        refuse_others("", &body, &["Container", "Force"])?;
        read(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint_options::{IFNAME, MAC, SYSCTLS};

    #[test]
    fn all_of_an_endpoint_is_taken_or_refused() {
        let config = json!({
            "IPAMConfig": { "IPv4Address": "10.0.0.7", "IPv6Address": "fd00::7", "LinkLocalIPs": ["169.254.7.7", "fe80::7"] }, "Aliases": ["a"], "Links": ["redis:cache"], "GwPriority": -3,
            "DriverOpts": { IFNAME: "lan0", SYSCTLS: "net.ipv4.conf.IFNAME.log_martians=1", MAC: "02:00:00:00:00:07" }, "DNSNames": ["x"],
        });
        let seen = endpoint_request("lab", config).unwrap();
        assert_eq!((seen.network.as_str(), seen.ip.unwrap().to_string(), seen.ip6.unwrap().to_string(), seen.link_local.len()), ("lab", "10.0.0.7".into(), "fd00::7".into(), 2));
        assert_eq!((seen.ifname.as_deref(), seen.mac.as_deref(), seen.gw_priority, seen.sysctls.len(), seen.link[0].alias.as_str()), (Some("lan0"), Some("02:00:00:00:00:07"), -3, 1, "cache"));
        for (config, culprit) in [
            (json!({ "IPAMConfig": { "LinkLocalIPs": ["10.0.0.1"] } }), "10.0.0.1"),
            (json!({ "GwPriority": 1_u64 << 40 }), "GwPriority"),
            (json!({ "Links": [":x"] }), "--link"),
            (json!({ "DriverOpts": { "x": "y" } }), "option x"),
            (json!({ "DriverOpts": { SYSCTLS: "kernel.hostname=x" } }), "kernel.hostname"),
            (json!({ "Surprise": true }), "Surprise"),
        ] {
            let error = endpoint_request("lab", config).unwrap_err();
            assert!(error.message.contains(culprit), "{error}");
        }
    }
}
