//! `weft vxlan`: the nodes that overlay networks span.

use serde_json::{Value, json};

use super::{
    End, Place,
    args::{VxlanAction, VxlanFdbAction, VxlanPeerAction},
    print, print_json,
    table::{table, text},
};
use crate::client::escape;

pub(super) fn run(action: VxlanAction, place: &Place) -> End {
    match action {
        VxlanAction::Peer { action } => peer(action, place),
        VxlanAction::Fdb { action } => fdb(&action, place),
        VxlanAction::Rekey { network } => {
            let done = place.client.post(&format!("/v1/networks/{}/keys", escape(&network)), &json!({}))?;
            print(&format!("{network}: {}", encryption(&done)));
            Ok(0)
        }
        VxlanAction::Show { network, json } => show(network.as_deref(), json, place),
    }
}

fn peer(action: VxlanPeerAction, place: &Place) -> End {
    let path = |network: &str| format!("/v1/networks/{}/peers", escape(network));
    match action {
        VxlanPeerAction::Add { network, peers } => {
            for peer in peers {
                place.client.post(&path(&network), &json!({ "peer": peer }))?;
            }
        }
        VxlanPeerAction::Rm { network, peers } => {
            for peer in peers {
                place.client.delete(&path(&network), Some(&json!({ "peer": peer })))?;
            }
        }
        VxlanPeerAction::Ls { network, json } => {
            let overlays = overlays(Some(&network), place)?;
            let peers = overlays["networks"][0]["peers"].clone();
            if json {
                print_json(&peers);
            } else {
                peers.as_array().into_iter().flatten().for_each(|peer| print(&text(peer)));
            }
        }
    }
    Ok(0)
}

fn fdb(action: &VxlanFdbAction, place: &Place) -> End {
    let path = |network: &str| format!("/v1/networks/{}/stations", escape(network));
    match action {
        VxlanFdbAction::Append { mac, network, node } => place.client.post(&path(network), &json!({ "mac": mac, "node": node }))?,
        VxlanFdbAction::Del { mac, network, .. } => place.client.delete(&path(network), Some(&json!({ "mac": mac })))?,
    };
    Ok(0)
}

fn overlays(network: Option<&str>, place: &Place) -> Result<Value, weft_control::ControlError> {
    place.client.get(&network.map_or_else(|| "/v1/overlays".to_owned(), |network| format!("/v1/overlays?network={}", escape(network))))
}

/// How an overlay encrypts, in words.
fn encryption(info: &Value) -> String {
    let accepted: Vec<_> = info["accepted"].as_array().into_iter().flatten().map(text).collect();
    let state = match info["epoch"].as_u64() {
        Some(epoch) => format!("encrypted, epoch {epoch}, accepts {}", accepted.join(" and ")),
        None => "encrypted, no keys: nothing passes".to_owned(),
    };
    match info["problem"].as_str() {
        Some(problem) => format!("{state} ({problem})"),
        None => state,
    }
}

fn show(network: Option<&str>, as_json: bool, place: &Place) -> End {
    let overlays = overlays(network, place)?;
    if as_json {
        print_json(&overlays);
        return Ok(0);
    }
    for overlay in overlays["networks"].as_array().into_iter().flatten() {
        let flag = |key: &str, off: &str| if overlay[key] == true { format!(" {key}") } else { off.to_owned() };
        let group = overlay["group"].as_str().map(|group| format!(" group {group}")).unwrap_or_default();
        let (learning, strict) = (flag("learning", " nolearning"), flag("strict", ""));
        print(&format!("{}: vni {} port {} mtu {}{learning}{strict}{group}", text(&overlay["network"]), text(&overlay["vni"]), text(&overlay["port"]), text(&overlay["mtu"])));
        if overlay["encryption"].is_object() {
            print(&format!("  {}, {} sessions heard", encryption(&overlay["encryption"]), text(&overlay["encryption"]["sessions"])));
        }
        let list = |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(" ");
        print(&format!("  peers: {}", list(&overlay["peers"])));
        print(&format!("  counters: {}", pairs(&overlay["counters"])));
        print(&format!("  drops: {}", pairs(&overlay["drops"])));
        let remotes: Vec<_> = overlay["remotes"].as_array().into_iter().flatten().map(|remote| ["mac", "node", "kind", "idle"].map(|key| text(&remote[key])).to_vec()).collect();
        if !remotes.is_empty() {
            table(&["STATION", "NODE", "KIND", "IDLE"], &remotes);
        }
    }
    print(&format!("drops of all: {}", pairs(&overlays["drops"])));
    Ok(0)
}

/// `name=count` of what is not zero.
fn pairs(counts: &Value) -> String {
    let pairs = counts.as_object().into_iter().flatten().filter(|(_, count)| **count != 0);
    pairs.map(|(name, count)| format!("{name}={count}")).collect::<Vec<_>>().join(" ")
}
