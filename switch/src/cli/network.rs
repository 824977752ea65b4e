//! `weft network ...`, in Docker's words.

use std::{collections::BTreeMap, net::IpAddr};

use serde_json::{Value, json};
use weft_control::api::NetworkCreate;

use super::{
    End, Place, args::{NetworkAction, NetworkCreateArguments}, invalid, port::endpoint_request, print, print_json, table::table, unavailable,
};
use crate::client::escape;

pub(super) fn run(action: NetworkAction, place: &Place) -> End {
    match action {
        NetworkAction::Create(arguments) => create(arguments, place),
        NetworkAction::Ls { quiet, json } => ls(quiet, json, place),
        NetworkAction::Inspect { networks, json: _ } => {
            let views: Result<Vec<_>, _> = networks.iter().map(|network| place.client.get(&format!("/v1/networks/{}", escape(network)))).collect();
            print_json(&json!(views?));
            Ok(0)
        }
        NetworkAction::Rm { networks } => each(&networks, |network| place.client.delete(&format!("/v1/networks/{}", escape(network)), None)),
        NetworkAction::Connect { network, sandbox, endpoint } => {
            let mut endpoint = json!(endpoint_request(&network, &endpoint)?);
            if let Value::Object(fields) = &mut endpoint {
                fields.remove("network");
            }
            place.client.post(&format!("/v1/networks/{}/connect", escape(&network)), &json!({ "sandbox": sandbox, "endpoint": endpoint }))?;
            Ok(0)
        }
        NetworkAction::Disconnect { network, sandbox } => {
            place.client.post(&format!("/v1/networks/{}/disconnect", escape(&network)), &json!({ "sandbox": sandbox }))?;
            Ok(0)
        }
    }
}

fn create(arguments: NetworkCreateArguments, place: &Place) -> End {
    let no_ipam = match arguments.ipam_driver.as_deref() {
        None | Some("default") => false,
        Some("null") => true,
        Some(other) => return Err(invalid(other, format!("IPAM driver {other:?} not found: there are `default` and `null`"))),
    };
    let aux_addresses = pairs(&arguments.aux_address)?
        .into_iter()
        .map(|(label, address)| match address.parse::<IpAddr>() {
            Ok(parsed) => Ok((label, parsed)),
            Err(_) => Err(invalid(&address, format!("--aux-address {label}={address}: {address:?} is not an IP address"))),
        })
        .collect::<Result<_, _>>()?;
    let request = NetworkCreate {
        name: arguments.name,
        driver: arguments.driver,
        subnets: arguments.subnet,
        gateways: arguments.gateway,
        ip_range: arguments.ip_range,
        aux_addresses,
        internal: arguments.internal,
        mtu: arguments.mtu,
        l2: arguments.l2,
        no_ipam,
        ageing_s: arguments.ageing,
        labels: pairs(&arguments.label)?,
    };
    let network = place.client.post("/v1/networks", &json!(request))?;
    print(network["id"].as_str().unwrap_or_default());
    Ok(0)
}

/// KEY=VALUE words.
pub(super) fn pairs(words: &[String]) -> Result<BTreeMap<String, String>, weft_control::ControlError> {
    let split = |word: &String| match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(invalid(word, format!("{word:?}: want KEY=VALUE"))),
    };
    words.iter().map(split).collect()
}

fn ls(quiet: bool, as_json: bool, place: &Place) -> End {
    let mut networks = place.client.get("/v1/networks")?.as_array().cloned().unwrap_or_default();
    // Modes that every sandbox can have without a network of ours.
    for (name, driver) in [("host", "host"), ("none", "null")] {
        networks.push(json!({ "id": name, "name": name, "driver": driver }));
    }
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

pub(super) fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

/// Does all, tells what failed, goes on.
pub(super) fn each(names: &[String], work: impl Fn(&String) -> Result<Value, weft_control::ControlError>) -> End {
    let mut failures = Vec::new();
    for name in names {
        match work(name) {
            Ok(_) => print(name),
            Err(error) => failures.push(error),
        }
    }
    match failures.len() {
        0 => Ok(0),
        1 => Err(failures.remove(0)),
        _ => Err(unavailable(failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))),
    }
}
