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
            // Of a service without a replica here.
            let whose = |entry: &Value| if entry["sandbox"] == "" { format!("{} (mesh)", text(&entry["service"])) } else { text(&entry["sandbox"]) };
            let rows: Vec<_> = all.iter().map(|entry| vec![whose(entry), text(&entry["host"]), inside(entry), text(&entry["protocol"]), text(&entry["hits"])]).collect();
            table(&["SANDBOX", "HOST", "TO", "PROTOCOL", "HITS"], &rows);
        }
    }
    Ok(0)
}

/// Where a published port leads, if it does.
fn inside(entry: &Value) -> String {
    let inside = text(&entry["inside"]);
    entry["refused"].as_str().map_or(inside.clone(), |why| format!("{inside} (not answered here: {why})"))
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
    let (published, leaving) = (publishes(None, place)?, place.client.get("/v1/nat")?);
    if as_json {
        print_json(&json!({ "dnat": published, "snat": leaving }));
        return Ok(0);
    }
    let counters = |entry: &Value| ["hits", "packets", "bytes"].map(|key| count(&entry[key]));
    let mut rows = Vec::new();
    for entry in &published {
        let (host, inside) = (text(&entry["host"]), inside(entry));
        let (address, port) = host.rsplit_once(':').unwrap_or((&host, ""));
        let [hits, packets, bytes] = counters(entry);
        rows.push(vec![hits, packets, bytes, "DNAT".into(), text(&entry["protocol"]), "anywhere".into(), address.into(), format!("dpt:{port} to:{inside}")]);
    }
    for rule in leaving.as_array().into_iter().flatten() {
        let to: Vec<_> = rule["to"].as_array().into_iter().flatten().map(text).collect();
        let to = if to.is_empty() { String::new() } else { format!("to:{} ", to.join(",")) };
        let [hits, packets, bytes] = counters(rule);
        let what = format!("{to}network {} {}", text(&rule["network"]), text(&rule["preset"]));
        rows.push(vec![hits, packets, bytes, text(&rule["target"]), "all".into(), text(&rule["source"]), "anywhere".into(), what]);
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
    all.as_array().into_iter().flatten().for_each(|flow| print(&flow_line(flow)));
    Ok(0)
}

/// As `conntrack -L` has it: what whoever opened it sends, then what he gets back.
fn flow_line(flow: &Value) -> String {
    // Host sockets have no end of their own to show: what the sandbox sees stands for it.
    let [inside, outside, external] = ["inside", "outside", "external"].map(|key| text(if flow[key].is_null() { &flow["inside"] } else { &flow[key] }));
    let counters = |side: usize| {
        let packets = flow["packets"][side].as_u64().map_or_else(String::new, |count| format!(" packets={count}"));
        format!("{packets} bytes={}", text(&flow[["tx_bytes", "rx_bytes"][side]]))
    };
    let is_tcp = flow["protocol"] == json!("tcp");
    let is_icmp = flow["protocol"] == json!("icmp");
    let way = |from: &str, to: &str, side: usize| {
        let ((source, sport), (destination, dport)) = (end(from), end(to));
        let ports = if is_icmp { format!("id={}", if sport == "0" { dport } else { sport }) } else { format!("sport={sport} dport={dport}") };
        format!("src={source} dst={destination} {ports}{}", counters(side))
    };
    let is_inbound = flow["direction"] == json!("in");
    let (original, reply) = if is_inbound { (way(&outside, &external, 1), way(&inside, &outside, 0)) } else { (way(&inside, &outside, 0), way(&outside, &external, 1)) };
    let state = text(&flow["state"]);
    let (tcp, unreplied, assured) = match state.as_str() {
        "UNREPLIED" => ("", " [UNREPLIED]", ""),
        "ASSURED" => ("", "", " [ASSURED]"),
        tcp if is_tcp => (tcp, "", ""),
        _ => ("", "", ""),
    };
    let expires = text(&flow["expires_s"]);
    let words = [&text(&flow["protocol"]), &expires, tcp, &original].map(str::to_owned).into_iter().filter(|word| !word.is_empty());
    format!("{}{unreplied} {reply}{assured} net={} dir={}", words.collect::<Vec<_>>().join(" "), text(&flow["network"]), text(&flow["direction"]))
}

/// Address and port of `10.0.0.1:80` or `[fd00::1]:80`.
fn end(text: &str) -> (&str, &str) {
    let (ip, port) = text.rsplit_once(':').unwrap_or((text, ""));
    (ip.trim_start_matches('[').trim_end_matches(']'), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_shown_from_the_side_that_opened_them() {
        let mut flow = json!({ "network": "lab", "protocol": "tcp", "inside": "10.0.0.2:4000", "outside": "192.0.2.1:80", "external": "192.0.2.9:4000", "state": "ESTABLISHED", "direction": "out", "expires_s": 7400, "packets": [3, 2], "tx_bytes": 300, "rx_bytes": 200 });
        assert_eq!(flow_line(&flow), "tcp 7400 ESTABLISHED src=10.0.0.2 dst=192.0.2.1 sport=4000 dport=80 packets=3 bytes=300 src=192.0.2.1 dst=192.0.2.9 sport=80 dport=4000 packets=2 bytes=200 net=lab dir=out");
        flow["direction"] = json!("in");
        assert_eq!(flow_line(&flow), "tcp 7400 ESTABLISHED src=192.0.2.1 dst=192.0.2.9 sport=80 dport=4000 packets=2 bytes=200 src=10.0.0.2 dst=192.0.2.1 sport=4000 dport=80 packets=3 bytes=300 net=lab dir=in");
        let echo = json!({ "network": "lab", "protocol": "icmp", "inside": "[fd00::2]:7", "outside": "[2001:db8::1]:0", "state": "UNREPLIED", "direction": "out", "tx_bytes": 64, "rx_bytes": 0 });
        assert_eq!(flow_line(&echo), "icmp src=fd00::2 dst=2001:db8::1 id=7 bytes=64 [UNREPLIED] src=2001:db8::1 dst=fd00::2 id=7 bytes=0 net=lab dir=out");
    }
}
