//! `weft attach`, `detach`, `port`, `link`, `fdb`, `bridge`, `stats`.

use serde_json::{Value, json};
use weft_control::{ControlError, NetnsTarget, Vlan, api::EndpointCreate};

use super::{
    End, Place,
    args::{AttachArguments, BridgeAction, DetachArguments, EndpointArguments, FdbAction, LinkAction, PortAction},
    invalid,
    netns::target,
    print, print_json,
    table::table,
};
use crate::client::escape;

/// The API's form of endpoint options.
pub(super) fn endpoint_request(network: &str, arguments: &EndpointArguments) -> Result<EndpointCreate, ControlError> {
    let vlan = match (&arguments.vlan, &arguments.trunk) {
        (Some(id), _) => Some(Vlan::Access(*id)),
        (None, Some(text)) => Some(trunk(text)?),
        (None, None) => None,
    };
    Ok(EndpointCreate {
        network: network.into(),
        ip: arguments.ip,
        ip6: arguments.ip6,
        mac: arguments.mac.clone(),
        ifname: arguments.ifname.clone(),
        kind: arguments.kind,
        mtu: arguments.mtu,
        vlan,
        isolated: arguments.isolated,
        horizon: arguments.horizon,
        guard: match (arguments.guard, arguments.no_guard) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
        aliases: arguments.alias.clone(),
    })
}

/// 10,20[,native=1], or all.
fn trunk(text: &str) -> Result<Vlan, ControlError> {
    let (mut allowed, mut native) = (Vec::new(), None);
    for part in text.split(',').filter(|part| *part != "all") {
        let number = |digits: &str| digits.parse::<u16>().map_err(|_| invalid(text, format!("--trunk {text}: {digits:?} is not a VLAN id")));
        match part.strip_prefix("native=") {
            Some(digits) => native = Some(number(digits)?),
            None => allowed.push(number(part)?),
        }
    }
    Ok(Vlan::Trunk { allowed, native })
}

fn attach_target(word: Option<&str>, on_host: bool, dev: Option<&str>) -> Result<NetnsTarget, ControlError> {
    match (word, on_host, dev) {
        (_, _, Some(device)) => Ok(NetnsTarget::Device(device.into())),
        (_, true, _) => Ok(NetnsTarget::Host),
        (Some(word), ..) => Ok(target(word)),
        (None, false, None) => Err(invalid("", "what should it be? a sandbox, a namespace, --host-port or --dev DEVICE")),
    }
}

pub(super) fn attach(arguments: AttachArguments, place: &Place) -> End {
    let target = attach_target(arguments.target.as_deref(), arguments.on_host, arguments.dev.as_deref())?;
    let endpoint = endpoint_request(&arguments.network, &arguments.endpoint)?;
    let sandbox = place.client.post("/v1/attach", &json!({ "target": target, "endpoint": endpoint }))?;
    let attached = sandbox["endpoints"].as_array().and_then(|endpoints| endpoints.last()).cloned().unwrap_or_default();
    let addresses: Vec<_> = attached["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    print(&format!("{}:{} {}", sandbox["name"].as_str().unwrap_or_default(), attached["ifname"].as_str().unwrap_or_default(), addresses.join(" ")).trim_end().to_owned());
    Ok(0)
}

pub(super) fn detach(arguments: &DetachArguments, place: &Place) -> End {
    let lone = arguments.target.is_none() && !arguments.on_host && arguments.dev.is_none();
    let request = if lone {
        json!({ "port": arguments.port_or_network })
    } else {
        let target = attach_target(arguments.target.as_deref(), arguments.on_host, arguments.dev.as_deref())?;
        json!({ "network": arguments.port_or_network, "target": target })
    };
    place.client.post("/v1/detach", &request)?;
    Ok(0)
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

pub(super) fn run(action: PortAction, place: &Place) -> End {
    match action {
        PortAction::Ls { network, json } => {
            let ports = ports(network.as_deref(), place)?;
            if json {
                print_json(&json!(ports));
                return Ok(0);
            }
            let rows: Vec<_> = ports
                .iter()
                .map(|port| {
                    let addresses: Vec<_> = port["addresses"].as_array().into_iter().flatten().map(text).collect();
                    let state = if port["up"] == json!(true) { "up" } else { "down" };
                    vec![text(&port["name"]), text(&port["network"]), text(&port["kind"]), state.into(), text(&port["mtu"]), text(&port["mac"]), addresses.join(",")]
                })
                .collect();
            table(&["PORT", "NETWORK", "KIND", "STATE", "MTU", "MAC", "ADDRESSES"], &rows);
        }
        PortAction::Move { port, target: to, ifname } => {
            place.client.post(&format!("/v1/ports/{}/move", escape(&port)), &json!({ "target": target(&to), "ifname": ifname }))?;
        }
    }
    Ok(0)
}

fn ports(network: Option<&str>, place: &Place) -> Result<Vec<Value>, ControlError> {
    let ports = place.client.get("/v1/ports")?.as_array().cloned().unwrap_or_default();
    let Some(network) = network else { return Ok(ports) };
    let name = place.client.get(&format!("/v1/networks/{}", escape(network)))?["name"].clone();
    Ok(ports.into_iter().filter(|port| port["network"] == name).collect())
}

pub(super) fn link(action: LinkAction, place: &Place) -> End {
    let LinkAction::Set { port, change } = action;
    let words: Vec<&str> = change.iter().map(String::as_str).collect();
    let patch = match words.as_slice() {
        ["up"] => json!({ "up": true }),
        ["down"] => json!({ "up": false }),
        ["isolated", switch @ ("on" | "off")] => json!({ "isolated": *switch == "on" }),
        ["mtu", number] => match number.parse::<u32>() {
            Ok(mtu) => json!({ "mtu": mtu }),
            Err(_) => return Err(invalid(number, format!("{number:?} is not an MTU"))),
        },
        other => return Err(invalid(&other.join(" "), format!("cannot set {:?}", other.join(" "))).hint("there are up, down, mtu N, isolated on|off")),
    };
    place.client.patch(&format!("/v1/ports/{}", escape(&port)), &patch)?;
    Ok(0)
}

pub(super) fn fdb(action: FdbAction, place: &Place) -> End {
    match action {
        FdbAction::Show { network, json } => show_fdb(network.as_deref(), json, place),
        FdbAction::Add { mac, network, port, vlan } => {
            place.client.post("/v1/fdb", &json!({ "mac": mac, "network": network, "port": port, "vlan": vlan_word(&vlan)? }))?;
            Ok(0)
        }
        FdbAction::Del { mac, network, vlan } => {
            place.client.delete("/v1/fdb", Some(&json!({ "mac": mac, "network": network, "vlan": vlan_word(&vlan)? })))?;
            Ok(0)
        }
    }
}

fn vlan_word(words: &[String]) -> Result<Option<u16>, ControlError> {
    match words {
        [] => Ok(None),
        [key, id] if key == "vlan" => id.parse().map(Some).map_err(|_| invalid(id, format!("{id:?} is not a VLAN id"))),
        other => Err(invalid(&other.join(" "), format!("{:?}: want `vlan N`", other.join(" ")))),
    }
}

fn show_fdb(network: Option<&str>, as_json: bool, place: &Place) -> End {
    let query = network.map_or_else(String::new, |network| format!("?network={}", escape(network)));
    let entries = place.client.get(&format!("/v1/fdb{query}"))?;
    if as_json {
        print_json(&entries);
        return Ok(0);
    }
    for entry in entries.as_array().into_iter().flatten() {
        let vlan = entry["vlan"].as_u64().map_or_else(String::new, |id| format!(" vlan {id}"));
        print(format!("{} dev {}{vlan} master {} {}", text(&entry["mac"]), text(&entry["ifname"]), text(&entry["master"]), text(&entry["state"])).trim_end());
    }
    Ok(0)
}

pub(super) fn bridge(action: BridgeAction, place: &Place) -> End {
    match action {
        BridgeAction::Fdb { network, json } => show_fdb(network.as_deref(), json, place),
        BridgeAction::Show { json } => {
            let bridges = place.client.get("/v1/bridges")?;
            if json {
                print_json(&bridges);
                return Ok(0);
            }
            print("bridge name\tbridge id\t\tSTP enabled\tinterfaces");
            for bridge in bridges.as_array().into_iter().flatten() {
                let interfaces: Vec<_> = bridge["interfaces"].as_array().into_iter().flatten().map(text).collect();
                print(&format!("{}\t\t{}\tno\t\t{}", text(&bridge["name"]), text(&bridge["id"]), interfaces.join("\n\t\t\t\t\t\t\t")));
            }
            Ok(0)
        }
    }
}

pub(super) fn stats(network: Option<&str>, as_json: bool, place: &Place) -> End {
    let (stats, ports) = (place.client.get("/v1/stats")?, ports(network, place)?);
    if as_json {
        print_json(&json!({ "total": stats, "ports": ports }));
        return Ok(0);
    }
    let rows: Vec<_> = ports
        .iter()
        .map(|port| {
            let drops: Vec<_> = port["drops"].as_object().into_iter().flatten().map(|(reason, count)| format!("{reason}={count}")).collect();
            vec![text(&port["name"]), text(&port["rx_frames"]), text(&port["rx_bytes"]), text(&port["tx_frames"]), text(&port["tx_bytes"]), drops.join(" ")]
        })
        .collect();
    table(&["PORT", "RX FRAMES", "RX BYTES", "TX FRAMES", "TX BYTES", "DROPS"], &rows);
    let drops: Vec<_> = stats["drops"].as_object().into_iter().flatten().map(|(reason, count)| format!("{reason}={count}")).collect();
    print(&format!("total: {} in, {} out, {} stations, drops: {}", text(&stats["rx_frames"]), text(&stats["tx_frames"]), text(&stats["fdb_entries"]), if drops.is_empty() { "none".into() } else { drops.join(" ") }));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trunk_words() {
        assert_eq!(trunk("10,20,native=1").unwrap(), Vlan::Trunk { allowed: vec![10, 20], native: Some(1) });
        assert_eq!(trunk("all").unwrap(), Vlan::Trunk { allowed: vec![], native: None });
        assert!(trunk("10,x").unwrap_err().message.contains("\"x\""));
    }
}
