//! `weft network ...`, in Docker's words.

use std::net::IpAddr;

use serde_json::{Value, json};
use weft_control::{ControlError, api::NetworkCreate};

use super::{
    End, Place,
    args::{NetworkAction, NetworkCreateArguments, RouteAction},
    complain, invalid, print, print_json,
    spec::{endpoint_request, pairs},
    table::table,
};
use crate::client::escape;

/// Docker's driver options that mean something here.
const MTU_OPTION: &str = "com.docker.network.driver.mtu";
const ICC_OPTION: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE_OPTION: &str = "com.docker.network.bridge.enable_ip_masquerade";
const BINDING_OPTION: &str = "com.docker.network.bridge.host_binding_ipv4";
/// Ours: whether the network's sandboxes know each other by name.
const NAMES_OPTION: &str = "com.weft.names";
/// Docker's lists one VNI for each subnet; a network here has one.
const VNI_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";
const IFNAME_OPTION: &str = "com.docker.network.container_iface_prefix";

pub(super) fn run(action: NetworkAction, place: &Place) -> End {
    match action {
        NetworkAction::Create(arguments) => create(arguments, place),
        NetworkAction::Ls { quiet, filter, json } => ls(quiet, &filter, json, place),
        NetworkAction::Inspect { networks, json: _ } => {
            let views: Result<Vec<_>, _> = networks.iter().map(|network| place.client.get(&format!("/v1/networks/{}", escape(network)))).collect();
            print_json(&json!(views?));
            Ok(0)
        }
        NetworkAction::Prune { force: _ } => {
            let pruned = place.client.post("/v1/networks/prune", &json!({}))?;
            let names: Vec<_> = pruned["NetworksDeleted"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            if !names.is_empty() {
                print("Deleted Networks:");
                names.iter().for_each(|name| print(name));
            }
            Ok(0)
        }
        NetworkAction::Rm { networks } => each(&networks, |network| place.client.delete(&format!("/v1/networks/{}", escape(network)), None), print),
        NetworkAction::Connect { network, sandbox, endpoint } => {
            let mut endpoint = json!(endpoint_request(&network, &endpoint)?);
            if let Value::Object(fields) = &mut endpoint {
                fields.remove("network");
            }
            membership("connect", &network, &sandbox, &json!({ "sandbox": sandbox, "endpoint": endpoint }), place)
        }
        NetworkAction::Route { action } => route(&action, place),
        NetworkAction::Disconnect { network, sandbox } => membership("disconnect", &network, &sandbox, &json!({ "sandbox": sandbox }), place),
    }
}

fn route(action: &RouteAction, place: &Place) -> End {
    let pair = |one: &str, other: &str| json!({ "networks": [one, other] });
    match action {
        RouteAction::Add { network, other } => drop(place.client.post("/v1/routes", &pair(network, other))?),
        RouteAction::Rm { network, other } => drop(place.client.delete("/v1/routes", Some(&pair(network, other)))?),
        RouteAction::Ls { json: as_json } => {
            let all = place.client.get("/v1/routes")?;
            if *as_json {
                print_json(&all);
                return Ok(0);
            }
            let name = |pair: &Value, at: usize| pair["networks"][at].as_str().unwrap_or_default().to_owned();
            let rows: Vec<_> = all.as_array().into_iter().flatten().map(|pair| vec![name(pair, 0), name(pair, 1)]).collect();
            table(&["NETWORK", "NETWORK"], &rows);
        }
    }
    Ok(0)
}

/// The two arguments are easily swapped: then say what was meant, and do nothing.
fn membership(verb: &str, network: &str, sandbox: &str, request: &Value, place: &Place) -> End {
    let is = |kind: &str, name: &str| place.client.get(&format!("/v1/{kind}/{}", escape(name))).is_ok();
    match place.client.post(&format!("/v1/networks/{}/{verb}", escape(network)), request) {
        Ok(_) => Ok(0),
        Err(error) if !is("networks", network) && is("networks", sandbox) && is("sandboxes", network) => {
            Err(ControlError { hint: Some(format!("did you mean `weft network {verb} {sandbox} {network}`?")), ..error })
        }
        Err(error) => Err(error),
    }
}

fn create(arguments: NetworkCreateArguments, place: &Place) -> End {
    if arguments.dry_run {
        print_json(&place.client.post("/v1/networks?dry-run=true", &json!(create_request(arguments)?))?);
        return Ok(0);
    }
    let network = place.client.post("/v1/networks", &json!(create_request(arguments)?))?;
    print(network["id"].as_str().unwrap_or_default());
    Ok(0)
}

fn create_request(arguments: NetworkCreateArguments) -> Result<NetworkCreate, ControlError> {
    let no_ipam = match arguments.ipam_driver.as_deref() {
        None | Some("default") => false,
        Some("null") => true,
        Some(other) => return Err(invalid(other, format!("IPAM driver {other:?} not found")).hint("there are `default` and `null`")),
    };
    let aux_addresses = pairs(&arguments.aux_address)?
        .into_iter()
        .map(|(label, address)| match address.parse::<IpAddr>() {
            Ok(parsed) => Ok((label, parsed)),
            Err(_) => Err(invalid(&address, format!("--aux-address {label}={address}: {address:?} is not an IP address"))),
        })
        .collect::<Result<_, _>>()?;
    let options = DriverOptions::parse(&arguments.opt)?;
    Ok(NetworkCreate {
        name: arguments.name,
        driver: arguments.driver,
        subnets: arguments.subnet,
        gateways: arguments.gateway,
        ip_range: arguments.ip_range,
        aux_addresses,
        internal: arguments.internal,
        dhcp: arguments.dhcp,
        dhcp_range: arguments.dhcp_range,
        ra: arguments.ra,
        names: options.names,
        dns: arguments.dns,
        mtu: arguments.mtu.or(options.mtu),
        l2: arguments.l2,
        no_ipam,
        ipv6: arguments.ipv6,
        masquerade: options.masquerade,
        nat: arguments.nat,
        nat_prefix: arguments.nat_prefix,
        host_binding: options.host_binding,
        ifname_prefix: options.ifname_prefix,
        isolated_default: options.icc == Some(false),
        ageing_s: arguments.ageing,
        vni: arguments.vni.or(options.vni),
        peers: arguments.peer,
        learning: options.learning,
        strict: options.strict,
        vxlan_port: options.vxlan_port,
        ttl: options.ttl,
        group: options.group,
        labels: pairs(&arguments.label)?,
        ..NetworkCreate::default()
    })
}

/// What `-o` said.
#[derive(Debug, Default, PartialEq, Eq)]
struct DriverOptions {
    mtu: Option<u32>,
    icc: Option<bool>,
    masquerade: Option<bool>,
    host_binding: Option<IpAddr>,
    ifname_prefix: Option<String>,
    names: Option<bool>,
    vni: Option<u32>,
    learning: Option<bool>,
    strict: Option<bool>,
    vxlan_port: Option<u16>,
    ttl: Option<u8>,
    group: Option<IpAddr>,
}

impl DriverOptions {
    /// An option without effect is refused, never ignored.
    fn parse(words: &[String]) -> Result<Self, ControlError> {
        let mut options = Self::default();
        for (key, value) in pairs(words)? {
            let bad = |what: &str| invalid(&value, format!("-o {key}={value}: {value:?} is not {what}"));
            match key.as_str() {
                MTU_OPTION => options.mtu = Some(value.parse().map_err(|_| bad("an MTU"))?),
                ICC_OPTION => options.icc = Some(value.parse().map_err(|_| bad("true or false"))?),
                MASQUERADE_OPTION => options.masquerade = Some(value.parse().map_err(|_| bad("true or false"))?),
                BINDING_OPTION => options.host_binding = Some(value.parse().map_err(|_| bad("an address"))?),
                NAMES_OPTION => options.names = Some(value.parse().map_err(|_| bad("true or false"))?),
                IFNAME_OPTION => options.ifname_prefix = Some(value),
                VNI_OPTION => options.vni = Some(value.parse().map_err(|_| bad("one VNI"))?),
                "learning" => options.learning = Some(value.parse().map_err(|_| bad("true or false"))?),
                "strict" => options.strict = Some(value.parse().map_err(|_| bad("true or false"))?),
                "port" => options.vxlan_port = Some(value.parse().map_err(|_| bad("a UDP port"))?),
                "ttl" => options.ttl = Some(value.parse().map_err(|_| bad("a number from 1 to 255"))?),
                "group" => options.group = Some(value.parse().map_err(|_| bad("an address"))?),
                _ => {
                    return Err(invalid(&key, format!("option {key} is not supported"))
                        .hint(format!("there are {MTU_OPTION}, {ICC_OPTION}, {MASQUERADE_OPTION}, {BINDING_OPTION}, {IFNAME_OPTION}, {NAMES_OPTION}; for overlays {VNI_OPTION}, learning, strict, port, ttl, group; see also --mtu, --l2, --internal, --ageing")));
                }
            }
        }
        Ok(options)
    }
}

fn ls(quiet: bool, filters: &[String], as_json: bool, place: &Place) -> End {
    let filters = filters.iter().map(|word| Filter::parse(word)).collect::<Result<Vec<_>, _>>()?;
    let mut networks = place.client.get("/v1/networks")?.as_array().cloned().unwrap_or_default();
    // Modes that every sandbox can have without a network of ours.
    for (name, driver) in [("host", "host"), ("none", "null")] {
        networks.push(json!({ "id": name, "name": name, "driver": driver }));
    }
    networks.retain(|network| filters.iter().all(|filter| filter.takes(network)));
    networks.sort_by_key(|network| network["name"].as_str().unwrap_or_default().to_owned());
    let text = |network: &Value, key: &str| network[key].as_str().unwrap_or_default().to_owned();
    if as_json {
        print_json(&json!(networks));
    } else if quiet {
        networks.iter().for_each(|network| print(&short(&text(network, "id"))));
    } else {
        let rows: Vec<_> =
            networks.iter().map(|network| vec![short(&text(network, "id")), text(network, "name"), text(network, "driver"), "local".into()]).collect();
        table(&["NETWORK ID", "NAME", "DRIVER", "SCOPE"], &rows);
    }
    Ok(0)
}

/// A condition on a listed network, as `docker network ls --filter` has them.
#[derive(Debug, PartialEq, Eq)]
enum Filter {
    /// Part of the name, or start of the id, or all of the driver.
    Text(&'static str, String),
    Label(String, Option<String>),
}

impl Filter {
    fn parse(word: &str) -> Result<Self, ControlError> {
        match word.split_once('=') {
            Some(("name", text)) => Ok(Self::Text("name", text.into())),
            Some(("id", text)) => Ok(Self::Text("id", text.into())),
            Some(("driver", text)) => Ok(Self::Text("driver", text.into())),
            Some(("label", label)) => {
                let (key, value) = label.split_once('=').map_or((label, None), |(key, value)| (key, Some(value.to_owned())));
                Ok(Self::Label(key.into(), value))
            }
            _ => Err(invalid(word, format!("--filter {word}: no such filter")).hint("there are name=, id=, driver=, label=KEY[=VALUE]")),
        }
    }

    fn takes(&self, network: &Value) -> bool {
        match self {
            Self::Text(key, text) => {
                let seen = network[*key].as_str().unwrap_or_default();
                match *key {
                    "name" => seen.contains(text.as_str()),
                    "id" => seen.starts_with(text.as_str()),
                    _ => seen == text,
                }
            }
            Self::Label(key, value) => {
                let seen = network["labels"][key].as_str();
                seen.is_some() && value.as_deref().is_none_or(|value| seen == Some(value))
            }
        }
    }
}

pub(super) fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

/// Does all, tells what failed, goes on.
pub(super) fn each(names: &[String], work: impl Fn(&String) -> Result<Value, ControlError>, done: impl Fn(&str)) -> End {
    let mut code = 0;
    for name in names {
        match work(name) {
            Ok(_) => done(name),
            Err(error) => {
                complain(&error);
                code = 1;
            }
        }
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let network = json!({ "name": "my-lab", "id": "abc123", "driver": "bridge", "labels": { "env": "test" } });
        let takes = |word: &str| Filter::parse(word).unwrap().takes(&network);
        assert!(takes("name=lab") && takes("id=abc") && takes("driver=bridge") && takes("label=env") && takes("label=env=test"));
        assert!(!takes("name=x") && !takes("id=bc") && !takes("driver=brid") && !takes("label=other") && !takes("label=env=prod"));
        assert!(Filter::parse("what=1").is_err() && Filter::parse("name").is_err());
    }

    #[test]
    fn driver_options_are_used_or_refused() {
        let parse = |word: &str| DriverOptions::parse(&[word.to_owned()]);
        assert_eq!(parse(&format!("{MTU_OPTION}=1400")).unwrap().mtu, Some(1400));
        assert_eq!(parse(&format!("{ICC_OPTION}=false")).unwrap().icc, Some(false));
        assert_eq!(parse(&format!("{BINDING_OPTION}=127.0.0.1")).unwrap().host_binding, Some([127, 0, 0, 1].into()));
        assert_eq!(parse(&format!("{NAMES_OPTION}=false")).unwrap().names, Some(false));
        assert_eq!(parse(&format!("{VNI_OPTION}=4096")).unwrap().vni, Some(4096));
        assert!(parse(&format!("{VNI_OPTION}=4096,4097")).unwrap_err().message.contains("4096,4097"));
        let overlay = ["learning=false", "strict=true", "port=8472", "ttl=9", "group=239.1.1.1"].map(String::from);
        let overlay = DriverOptions::parse(&overlay).unwrap();
        assert_eq!((overlay.learning, overlay.strict, overlay.vxlan_port, overlay.ttl, overlay.group), (Some(false), Some(true), Some(8472), Some(9), Some([239, 1, 1, 1].into())));
        assert!(parse("encrypted=true").unwrap_err().message.contains("encrypted"));
        assert_eq!(DriverOptions::parse(&[]).unwrap(), DriverOptions::default());
        assert!(parse(&format!("{MTU_OPTION}=big")).unwrap_err().message.contains("big"));
        assert!(parse(&format!("{ICC_OPTION}=perhaps")).unwrap_err().message.contains("perhaps"));
        assert!(parse("com.docker.network.bridge.name=br9").unwrap_err().message.contains("bridge.name"));
    }
}
