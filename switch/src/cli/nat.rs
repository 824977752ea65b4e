//! `weft publish`, `weft nat`, `weft vip` and `weft trace`.

use serde_json::{Value, json};
use weft_control::ControlError;

use super::{
    End, Place,
    args::{NatAction, PublishAction, VipAction},
    print, print_json,
    table::{table, text},
};
use crate::client::escape;

pub(super) fn publish(action: PublishAction, place: &Place) -> End {
    match action {
        PublishAction::Add { sandbox, specs } => {
            let made = place.client.post(&format!("/v1/sandboxes/{}/publish", escape(&sandbox)), &json!({ "publish": specs }))?;
            made.as_array().into_iter().flatten().for_each(|published| print(&published_line(published)));
        }
        PublishAction::Rm { sandbox, specs } => {
            place.client.delete(&format!("/v1/sandboxes/{}/publish", escape(&sandbox)), Some(&json!({ "publish": specs })))?;
        }
        PublishAction::Ls { sandbox, json } => {
            let all = publishes(sandbox.as_deref(), place)?;
            if json {
                print_json(&json!(all));
                return Ok(0);
            }
            let rows: Vec<_> = all.iter().map(|entry| ["sandbox", "host", "inside", "protocol", "hits"].map(|key| text(&entry[key])).to_vec()).collect();
            table(&["SANDBOX", "HOST", "TO", "PROTOCOL", "HITS"], &rows);
        }
    }
    Ok(0)
}

/// `80/tcp -> 0.0.0.0:8080`, as `docker port` has it.
fn published_line(published: &Value) -> String {
    let host = published["host_ip"].as_str().unwrap_or("0.0.0.0");
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    format!("{}/{} -> {host}:{}", text(&published["port"]), text(&published["protocol"]), text(&published["host_port"]))
}

fn publishes(sandbox: Option<&str>, place: &Place) -> Result<Vec<Value>, ControlError> {
    let all = place.client.get("/v1/publishes")?.as_array().cloned().unwrap_or_default();
    let Some(reference) = sandbox else { return Ok(all) };
    let name = place.client.get(&format!("/v1/sandboxes/{}", escape(reference)))?["name"].clone();
    Ok(all.into_iter().filter(|entry| entry["sandbox"] == name).collect())
}

pub(super) fn trace(port: &str, packet: &str, as_json: bool, place: &Place) -> End {
    let steps = place.client.post("/v1/trace", &json!({ "port": port, "packet": packet }))?;
    if as_json {
        print_json(&steps);
    } else {
        steps.as_array().into_iter().flatten().enumerate().for_each(|(at, step)| print(&format!("{:>2}  {}", at + 1, text(step))));
    }
    Ok(0)
}

pub(super) fn vip(action: &VipAction, place: &Place) -> End {
    let VipAction::Ls { network, json } = action;
    let mut all = place.client.get("/v1/vips")?.as_array().cloned().unwrap_or_default();
    if let Some(reference) = network {
        let name = place.client.get(&format!("/v1/networks/{}", escape(reference)))?["name"].clone();
        all.retain(|vip| vip["network"] == name);
    }
    if *json {
        print_json(&all.into());
        return Ok(0);
    }
    let mut rows = Vec::new();
    for vip in &all {
        let addresses: Vec<_> = vip["addresses"].as_array().into_iter().flatten().map(text).collect();
        let service = [text(&vip["network"]), text(&vip["name"]), addresses.join(",")];
        let endpoints = vip["endpoints"].as_array().filter(|endpoints| !endpoints.is_empty());
        if endpoints.is_none() {
            rows.push(service.iter().cloned().chain(["-", "", "", ""].map(str::to_owned)).collect());
        }
        for endpoint in endpoints.into_iter().flatten() {
            let cells = ["sandbox", "address", "connections", "total"].map(|key| text(&endpoint[key]));
            rows.push(service.iter().cloned().chain(cells).collect());
        }
    }
    table(&["NETWORK", "SERVICE", "VIP", "SANDBOX", "ENDPOINT", "CONNECTIONS", "TOTAL"], &rows);
    Ok(0)
}

pub(super) fn nat(action: &NatAction, place: &Place) -> End {
    match action {
        NatAction::Show { json } => show(*json, place),
        NatAction::Flows { json } => flows(*json, place),
    }
}

fn show(as_json: bool, place: &Place) -> End {
    let (published, networks) = (publishes(None, place)?, place.client.get("/v1/networks")?);
    if as_json {
        print_json(&json!({ "dnat": published, "networks": networks }));
        return Ok(0);
    }
    let mut rows = Vec::new();
    for entry in &published {
        let (host, inside) = (text(&entry["host"]), text(&entry["inside"]));
        let (address, port) = host.rsplit_once(':').unwrap_or((&host, ""));
        rows.push(vec![text(&entry["hits"]), count(&entry["packets"]), count(&entry["bytes"]), "DNAT".into(), text(&entry["protocol"]), "anywhere".into(), address.into(), format!("dpt:{port} to:{inside}")]);
    }
    for network in networks.as_array().into_iter().flatten().filter(|network| network["masquerade"] == json!(true) && network["internal"] != json!(true)) {
        for pool in network["pools"].as_array().into_iter().flatten() {
            rows.push(vec!["-".into(), "-".into(), "-".into(), "MASQUERADE".into(), "all".into(), text(&pool["subnet"]), "anywhere".into(), format!("network {}", text(&network["name"]))]);
        }
    }
    table(&["HITS", "PKTS", "BYTES", "TARGET", "PROT", "SOURCE", "DESTINATION", ""], &rows);
    Ok(0)
}

/// A counter that not every uplink has.
fn count(value: &Value) -> String {
    if value.is_null() { "-".into() } else { text(value) }
}

fn flows(as_json: bool, place: &Place) -> End {
    let all = place.client.get("/v1/flows")?;
    if as_json {
        print_json(&all);
        return Ok(0);
    }
    for flow in all.as_array().into_iter().flatten() {
        let [inside, outside, external] = ["inside", "outside", "external"].map(|key| {
            // Host sockets have no end of their own to show: what the sandbox sees stands for it.
            let end = text(if flow[key].is_null() { &flow["inside"] } else { &flow[key] });
            end.rsplit_once(':').map_or_else(|| (end.clone(), String::new()), |(ip, port)| (ip.to_owned(), port.to_owned()))
        });
        print(&format!(
            "{:<5}{} src={} dst={} sport={} dport={} bytes={} src={} dst={} sport={} dport={} bytes={} net={}",
            text(&flow["protocol"]), text(&flow["state"]), inside.0, outside.0, inside.1, outside.1, text(&flow["tx_bytes"]), outside.0, external.0, outside.1, external.1, text(&flow["rx_bytes"]), text(&flow["network"]),
        ));
    }
    Ok(0)
}
