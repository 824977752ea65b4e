//! `weft network ...`, in Docker's words.

use std::net::IpAddr;

use serde_json::{Value, json};
use weft_control::{ControlError, DriverOptions, api::NetworkCreate};

use super::{
    End, Place,
    args::{NetworkAction, NetworkCreateArguments, RouteAction, Scope},
    complain, invalid, print, print_json,
    spec::{endpoint_request, options, pairs},
    table::table,
};
use crate::client::escape;

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
        NetworkAction::Edit(arguments) => super::edit::run(&arguments, place),
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
    let options = options(&arguments.opt)?;
    let mut request = NetworkCreate {
        name: arguments.name,
        driver: arguments.driver,
        subnets: arguments.subnet,
        gateways: arguments.gateway,
        ip_range: arguments.ip_range,
        aux_addresses,
        internal: arguments.internal,
        attachable: arguments.attachable,
        ingress: arguments.ingress,
        dhcp: arguments.dhcp,
        dhcp_range: arguments.dhcp_range,
        ra: arguments.ra,
        dns: arguments.dns,
        mtu: arguments.mtu,
        l2: arguments.l2,
        no_ipam,
        ipv6: arguments.ipv6,
        no_ipv4: !arguments.ipv4,
        nat: arguments.nat,
        nat_source: arguments.nat_source,
        nat_prefix: arguments.nat_prefix,
        ageing_s: arguments.ageing,
        vni: arguments.vni,
        peers: arguments.peer,
        global: arguments.scope.map(|scope| scope == Scope::Global),
        labels: pairs(&arguments.label)?,
        ..NetworkCreate::default()
    };
    DriverOptions::parse(&options)?.apply(&mut request);
    request.options = options;
    Ok(request)
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
            networks.iter().map(|network| vec![short(&text(network, "id")), text(network, "name"), text(network, "driver"), scope(network).into()]).collect();
        table(&["NETWORK ID", "NAME", "DRIVER", "SCOPE"], &rows);
        networks.iter().filter_map(parent_problem).for_each(|problem| complain(&problem));
    }
    Ok(0)
}

/// What is wrong with the device of a lan network.
pub(crate) fn parent_problem(network: &Value) -> Option<ControlError> {
    let problem: ControlError = serde_json::from_value(network["lan"]["problem"].clone()).ok()?;
    Some(ControlError { message: format!("network {}: {}", network["name"].as_str().unwrap_or_default(), problem.message), ..problem })
}

fn scope(network: &Value) -> &'static str {
    if network["overlay"]["global"] == json!(true) { "global" } else { "local" }
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
}
