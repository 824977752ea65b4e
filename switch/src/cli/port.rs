//! `weft attach`, `detach`, `port`, `link`, `fdb`, `bridge`, `stats`.

use serde_json::{Value, json};
use weft_control::{ControlError, NetnsTarget};

use super::{
    End, Place,
    args::{AttachArguments, BridgeAction, DetachArguments, FdbAction, FdbShowArguments, LinkAction, PortAction},
    invalid,
    netns::target,
    print, print_json,
    spec::{endpoint_request, trunk, vlan_words},
    table::{table, text},
};
use crate::client::escape;

fn attach_target(word: Option<&str>, on_host: bool, dev: Option<&str>) -> Result<NetnsTarget, ControlError> {
    match (word, on_host, dev) {
        (_, _, Some(device)) => Ok(NetnsTarget::Device(device.into())),
        (_, true, _) => Ok(NetnsTarget::Host),
        (Some(word), ..) => Ok(target(word)),
        (None, false, None) => Err(invalid("", "what should it be? a sandbox, a namespace, --host-port or --dev DEVICE")),
    }
}

pub(super) fn attach(arguments: &AttachArguments, place: &Place) -> End {
    let target = attach_target(arguments.target.as_deref(), arguments.on_host, arguments.dev.as_deref())?;
    let endpoint = endpoint_request(&arguments.network, &arguments.endpoint)?;
    let request = json!({ "target": target, "endpoint": endpoint });
    if arguments.dry_run {
        print_json(&place.client.post("/v1/attach?dry-run=true", &request)?);
        return Ok(0);
    }
    let sandbox = place.client.post("/v1/attach", &request)?;
    let attached = sandbox["endpoints"].as_array().and_then(|endpoints| endpoints.last()).cloned().unwrap_or_default();
    let addresses: Vec<_> = attached["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    print(format!("{}:{} {}", sandbox["name"].as_str().unwrap_or_default(), attached["ifname"].as_str().unwrap_or_default(), addresses.join(" ")).trim_end());
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

pub(super) fn link(action: &LinkAction, place: &Place) -> End {
    let LinkAction::Set { port, change } = action;
    place.client.patch(&format!("/v1/ports/{}", escape(port)), &patch(change)?)?;
    Ok(0)
}

/// What `link set PORT ...` asks for; several changes in one line are one request.
fn patch(words: &[String]) -> Result<Value, ControlError> {
    let mut patch = serde_json::Map::new();
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| invalid(word, format!("{word}: to what?")).hint(CHANGES));
        let (key, value) = match word {
            "up" | "down" => ("up", json!(word == "up")),
            "mtu" => ("mtu", json!(number(value()?, "an MTU")?)),
            "isolated" | "guard" => match value()? {
                "on" => (word, json!(true)),
                "off" => (word, json!(false)),
                other => return Err(invalid(other, format!("{word} {other}: want on or off"))),
            },
            "vlan" => match value()? {
                "none" => ("vlan", Value::Null),
                id => ("vlan", json!({ "access": number(id, "a VLAN id")? })),
            },
            "trunk" => ("vlan", json!(trunk(value()?)?)),
            "horizon" => match value()? {
                "none" => ("horizon", Value::Null),
                group => ("horizon", json!(number(group, "a group")?)),
            },
            other => return Err(invalid(other, format!("cannot set {other:?}")).hint(CHANGES)),
        };
        patch.insert(key.into(), value);
    }
    Ok(Value::Object(patch))
}

const CHANGES: &str = "there are up, down, mtu N, isolated on|off, guard on|off, vlan N|none, trunk 10,20[,native=1], horizon N|none";

fn number(word: &str, what: &str) -> Result<u32, ControlError> {
    word.parse().map_err(|_| invalid(word, format!("{word:?} is not {what}")))
}

pub(super) fn fdb(action: &FdbAction, place: &Place) -> End {
    match action {
        FdbAction::Show(arguments) => show_fdb(arguments, place),
        FdbAction::Add { mac, network, port, vlan } => {
            place.client.post("/v1/fdb", &json!({ "mac": mac, "network": network, "port": port, "vlan": vlan_words(vlan)? }))?;
            Ok(0)
        }
        FdbAction::Del { mac, network, vlan } => {
            place.client.delete("/v1/fdb", Some(&json!({ "mac": mac, "network": network, "vlan": vlan_words(vlan)? })))?;
            Ok(0)
        }
    }
}

/// Which stations to show: `[NETWORK | br NETWORK] [dev PORT] [vlan N]`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stations {
    network: Option<String>,
    port: Option<String>,
    vlan: Option<u16>,
}

impl Stations {
    fn parse(words: &[String]) -> Result<Self, ControlError> {
        let mut this = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().cloned().ok_or_else(|| invalid(word, format!("{word}: which?")));
            match word.as_str() {
                "br" | "master" => this.network = Some(value()?),
                "dev" | "brport" => this.port = Some(value()?),
                "vlan" => this.vlan = vlan_words(&[word.clone(), value()?])?,
                _ if this.network.is_none() => this.network = Some(word.clone()),
                other => return Err(invalid(other, format!("{other:?} is one word too many")).hint("want [NETWORK] [dev PORT] [vlan N]")),
            }
        }
        Ok(this)
    }

    fn takes(&self, entry: &Value) -> bool {
        self.port.as_ref().is_none_or(|port| entry["ifname"] == json!(port)) && self.vlan.is_none_or(|vlan| entry["vlan"] == json!(vlan))
    }
}

fn show_fdb(arguments: &FdbShowArguments, place: &Place) -> End {
    let stations = Stations::parse(&arguments.words)?;
    let query = stations.network.as_ref().map_or_else(String::new, |network| format!("?network={}", escape(network)));
    let mut entries = place.client.get(&format!("/v1/fdb{query}"))?.as_array().cloned().unwrap_or_default();
    entries.retain(|entry| stations.takes(entry));
    if arguments.json {
        print_json(&json!(entries));
    } else {
        entries.iter().for_each(|entry| print(&fdb_line(entry, arguments.statistics)));
    }
    Ok(0)
}

/// `MAC dev PORT [vlan N] [used S] master NETWORK [STATE]`, as `bridge fdb` has it.
fn fdb_line(entry: &Value, statistics: bool) -> String {
    let vlan = entry["vlan"].as_u64().map_or_else(String::new, |id| format!(" vlan {id}"));
    let used = if statistics { format!(" used {}", text(&entry["used"])) } else { String::new() };
    let line = format!("{} dev {}{vlan}{used} master {} {}", text(&entry["mac"]), text(&entry["ifname"]), text(&entry["master"]), text(&entry["state"]));
    line.trim_end().to_owned()
}

pub(super) fn bridge(action: BridgeAction, place: &Place) -> End {
    match action {
        BridgeAction::Fdb { action: Some(action) } => fdb(&action, place),
        BridgeAction::Fdb { action: None } => show_fdb(&FdbShowArguments { words: Vec::new(), json: false, statistics: false }, place),
        BridgeAction::Showmacs { network } => show_fdb(&FdbShowArguments { words: vec![network], json: false, statistics: true }, place),
        BridgeAction::Show { json } => {
            let bridges = place.client.get("/v1/bridges")?;
            if json {
                print_json(&bridges);
            } else {
                print("bridge name\tbridge id\t\tSTP enabled\tinterfaces");
                bridges.as_array().into_iter().flatten().flat_map(brctl_lines).for_each(|line| print(&line));
            }
            Ok(0)
        }
    }
}

/// brctl's columns: a line for the bridge with its first port, a line for each further one.
fn brctl_lines(bridge: &Value) -> Vec<String> {
    let ports: Vec<_> = bridge["interfaces"].as_array().into_iter().flatten().map(text).collect();
    let stp = if bridge["stp"] == json!(true) { "yes" } else { "no" };
    let first = format!("{}\t\t{}\t{stp}\t\t{}", text(&bridge["name"]), text(&bridge["id"]), ports.first().map_or("", String::as_str));
    std::iter::once(first.trim_end().to_owned()).chain(ports.iter().skip(1).map(|port| format!("\t\t\t\t\t\t\t{port}"))).collect()
}

pub(super) fn stats(words: &[String], as_json: bool, place: &Place) -> End {
    let network = match words {
        [] => None,
        [show] if show == "show" => None,
        [network] => Some(network.as_str()),
        [show, network] if show == "show" => Some(network.as_str()),
        other => return Err(invalid(&other.join(" "), format!("stats {}: want [show] [NETWORK]", other.join(" ")))),
    };
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

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn changes_of_a_port() {
        assert_eq!(patch(&words("down")).unwrap(), json!({ "up": false }));
        assert_eq!(patch(&words("up mtu 1400 isolated on")).unwrap(), json!({ "up": true, "mtu": 1400, "isolated": true }));
        assert_eq!(patch(&words("vlan 7")).unwrap(), json!({ "vlan": { "access": 7 } }));
        assert_eq!(patch(&words("vlan none horizon none guard off")).unwrap(), json!({ "vlan": null, "horizon": null, "guard": false }));
        assert_eq!(patch(&words("trunk 1,2")).unwrap(), json!({ "vlan": { "trunk": { "allowed": [1, 2], "native": null } } }));
        for line in ["mtu", "mtu big", "isolated maybe", "sideways", "vlan x"] {
            assert!(patch(&words(line)).is_err(), "{line}");
        }
    }

    #[test]
    fn stations_to_show() {
        let asked = Stations::parse(&words("br lab dev web:eth0 vlan 7")).unwrap();
        assert_eq!(asked, Stations { network: Some("lab".into()), port: Some("web:eth0".into()), vlan: Some(7) });
        assert!(asked.takes(&json!({ "ifname": "web:eth0", "vlan": 7 })) && !asked.takes(&json!({ "ifname": "web:eth0" })));
        assert_eq!(Stations::parse(&words("lab")).unwrap().network.as_deref(), Some("lab"));
        assert!(Stations::parse(&words("lab other")).is_err() && Stations::parse(&words("dev")).is_err());
    }

    #[test]
    fn shapes_of_bridge_and_brctl() {
        let entry = json!({ "mac": "02:00:00:00:00:01", "ifname": "web:eth0", "vlan": 7, "master": "lab", "state": "permanent", "used": 3 });
        assert_eq!(fdb_line(&entry, false), "02:00:00:00:00:01 dev web:eth0 vlan 7 master lab permanent");
        assert_eq!(fdb_line(&json!({ "mac": "m", "ifname": "p", "master": "n", "state": "", "used": 3 }), true), "m dev p used 3 master n");
        let bridge = json!({ "name": "lab", "id": "8000.0242", "stp": false, "interfaces": ["a:eth0", "b:eth0"] });
        assert_eq!(brctl_lines(&bridge), ["lab\t\t8000.0242\tno\t\ta:eth0", "\t\t\t\t\t\t\tb:eth0"]);
        assert_eq!(brctl_lines(&json!({ "name": "x", "id": "8000.1", "interfaces": [] })), ["x\t\t8000.1\tno"]);
    }
}
