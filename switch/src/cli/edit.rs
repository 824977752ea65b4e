//! `weft network edit`: a network changes while it is used.

use std::net::IpAddr;

use clap::Args;
use ipnetwork::IpNetwork;
use serde_json::{Map, Value, json};
use weft_control::{ControlError, NatPreset, edit::Difference};

use super::{End, Place, args::parse_nat, invalid, print, print_json, spec::pairs};
use crate::client::escape;

/// What is not named stays.
#[derive(Debug, Args)]
pub(super) struct NetworkEditArguments {
    network: String,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[arg(long)]
    json: bool,
    /// In place of the subnet of its family, or beside that of the other; those who are in the network must fit
    #[arg(long)]
    subnet: Vec<IpNetwork>,
    /// In place of the gateway of its family
    #[arg(long)]
    gateway: Vec<IpAddr>,
    /// Part of the subnet that is handed out from now on; `none` for all of it
    #[arg(long, value_name = "CIDR|none")]
    ip_range: Option<String>,
    /// LABEL=ADDRESS, no longer handed out
    #[arg(long)]
    aux_address: Vec<String>,
    /// Largest packet, bytes; also of the interfaces inside that have the network's
    #[arg(long)]
    mtu: Option<u32>,
    /// Whether its sandboxes talk to one another
    #[arg(long, value_parser = on_off, value_name = "on|off")]
    icc: Option<bool>,
    /// Whether they may open flows to the outside
    #[arg(long, value_parser = on_off, value_name = "on|off")]
    masquerade: Option<bool>,
    /// Whether they know each other by name
    #[arg(long, value_parser = on_off, value_name = "on|off")]
    names: Option<bool>,
    /// DHCP
    #[arg(long, value_parser = on_off, value_name = "on|off")]
    dhcp: Option<bool>,
    /// Part of the IPv4 subnet that only DHCP hands out
    #[arg(long)]
    dhcp_range: Option<IpNetwork>,
    /// Router advertisements
    #[arg(long, value_parser = on_off, value_name = "on|off")]
    ra: Option<bool>,
    /// No way out; only while nobody is in it
    #[arg(long, value_parser = on_off, value_name = "on|off")]
    internal: Option<bool>,
    /// On an uplink of packets: a preset
    #[arg(long, value_parser = parse_nat)]
    nat: Option<NatPreset>,
    /// Servers for other names, in place of those before; `none` for the host's
    #[arg(long)]
    dns: Vec<String>,
    /// Where ports are published from now on; `none` for everywhere
    #[arg(long, value_name = "IP|none")]
    host_binding: Option<String>,
    /// Flooded frames a second that each port may cause; `off` for no limit
    #[arg(long, value_name = "N|off")]
    storm: Option<String>,
    /// Idle time of learned addresses, seconds
    #[arg(long)]
    ageing: Option<u32>,
    /// What new interfaces inside are called, with a number behind
    #[arg(long)]
    ifname_prefix: Option<String>,
    /// KEY=VALUE
    #[arg(long)]
    label: Vec<String>,
    /// KEY
    #[arg(long)]
    label_rm: Vec<String>,
}

fn on_off(text: &str) -> Result<bool, String> {
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        other => Err(format!("{other:?} is neither on nor off")),
    }
}

pub(super) fn run(arguments: &NetworkEditArguments, place: &Place) -> End {
    let path = format!("/v1/networks/{}", escape(&arguments.network));
    let network: weft_control::Network = serde_json::from_value(place.client.get(&path)?).map_err(super::unavailable)?;
    let patch = patch(arguments, &network)?;
    if patch.is_empty() {
        return Err(invalid(&arguments.network, "nothing to change was named").hint("see `weft network edit --help`"));
    }
    let answer = place.client.patch(&format!("{path}?dry-run={}", arguments.dry_run), &Value::Object(patch))?;
    if arguments.json {
        print_json(&answer);
        return Ok(0);
    }
    let changes: Vec<Difference> = serde_json::from_value(answer["changes"].clone()).map_err(super::unavailable)?;
    changes.iter().for_each(|change| print(&change.to_string()));
    Ok(0)
}

/// A JSON merge patch (RFC 7396) of what was named.
fn patch(arguments: &NetworkEditArguments, network: &weft_control::Network) -> Result<Map<String, Value>, ControlError> {
    let mut patch = Map::new();
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            patch.insert(key.into(), value);
        }
    };
    let request = network.request();
    let subnets = by_family(&request.subnets, &arguments.subnet, IpNetwork::is_ipv4)?;
    // Gateways that no longer fit are left to be chosen anew.
    let fitting: Vec<_> = request.gateways.into_iter().filter(|gateway| subnets.iter().any(|subnet| subnet.contains(*gateway))).collect();
    let gateways = by_family(&fitting, &arguments.gateway, IpAddr::is_ipv4)?;
    set("subnets", (!arguments.subnet.is_empty()).then(|| json!(subnets)));
    set("gateways", (!arguments.gateway.is_empty()).then(|| json!(gateways)));
    set("ip-range", arguments.ip_range.as_deref().map(|word| word_or_null(word, "none")));
    set("mtu", arguments.mtu.map(|mtu| json!(mtu)));
    set("isolated-default", arguments.icc.map(|on| json!(!on)));
    set("masquerade", arguments.masquerade.map(|on| json!(on)));
    set("names", arguments.names.map(|on| json!(on)));
    set("dhcp", arguments.dhcp.map(|on| json!(on)));
    set("dhcp-range", arguments.dhcp_range.map(|range| json!(range)));
    set("ra", arguments.ra.map(|on| json!(on)));
    set("internal", arguments.internal.map(|on| json!(on)));
    set("nat", arguments.nat.map(|nat| json!(nat)));
    set("dns", (!arguments.dns.is_empty()).then(|| json!(arguments.dns.iter().filter(|server| *server != "none").collect::<Vec<_>>())));
    set("host-binding", arguments.host_binding.as_deref().map(|word| word_or_null(word, "none")));
    set("ageing-s", arguments.ageing.map(|ageing| json!(ageing)));
    set("ifname-prefix", arguments.ifname_prefix.as_ref().map(|prefix| json!(prefix)));
    if let Some(word) = arguments.storm.as_deref() {
        let rate = |word: &str| word.parse::<u32>().map_err(|_| invalid(word, format!("--storm {word}: want frames a second, or off")));
        set("storm", Some(if word == "off" { Value::Null } else { json!({ "frames-per-second": rate(word)? }) }));
    }
    if !arguments.aux_address.is_empty() {
        set("aux-addresses", Some(json!(pairs(&arguments.aux_address)?)));
    }
    let mut labels: Map<_, _> = pairs(&arguments.label)?.into_iter().map(|(key, value)| (key, json!(value))).collect();
    labels.extend(arguments.label_rm.iter().map(|key| (key.clone(), Value::Null)));
    set("labels", (!labels.is_empty()).then(|| labels.into()));
    Ok(patch)
}

fn word_or_null(word: &str, null: &str) -> Value {
    if word == null { Value::Null } else { json!(word) }
}

/// What was, but for the families that are named anew.
fn by_family<T: Copy + ToString>(before: &[T], named: &[T], is_v4: impl Fn(&T) -> bool) -> Result<Vec<T>, ControlError> {
    let mut all: Vec<T> = before.iter().filter(|old| !named.iter().any(|new| is_v4(new) == is_v4(old))).copied().collect();
    for new in named {
        if named.iter().filter(|other| is_v4(other) == is_v4(new)).count() > 1 {
            return Err(invalid(&new.to_string(), "one of each family: IPv4 and IPv6"));
        }
        all.push(*new);
    }
    all.sort_by_key(|one| !is_v4(one));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_apart() {
        let net = |text: &str| text.parse::<IpNetwork>().unwrap();
        let merged = by_family(&[net("10.0.0.0/24"), net("fd00::/64")], &[net("10.0.0.0/16")], IpNetwork::is_ipv4).unwrap();
        assert_eq!(merged, [net("10.0.0.0/16"), net("fd00::/64")]);
        assert_eq!(by_family(&[net("10.0.0.0/24")], &[net("fd00::/64")], IpNetwork::is_ipv4).unwrap().len(), 2);
        assert!(by_family(&[], &[net("10.0.0.0/24"), net("10.1.0.0/24")], IpNetwork::is_ipv4).is_err());
    }
}
