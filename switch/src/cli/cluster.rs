//! `--cluster-...` of the daemon, and `weft node`.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde_json::json;
use weft_control::{
    ControlError,
    cluster::{Keys, PREFIX},
    config::ClusterSection,
    store::{StoreConfig, StoreOptions},
};

use super::{
    End, Place,
    args::NodeAction,
    invalid, print_json,
    table::{table, text},
    unavailable,
};
use crate::control::ClusterConfig;

const LEASE: Duration = Duration::from_secs(15);
/// Below this a short pause of a store would end it; etcd grants no less either.
const LEASE_LEAST: Duration = Duration::from_secs(2);

/// Nothing unless a store is named.
pub(super) fn config(section: &ClusterSection) -> Result<Option<ClusterConfig>, ControlError> {
    let section = with_store_opts(section)?;
    let Some(store) = &section.store else {
        return match &section.advertise {
            Some(advertise) => Err(invalid(advertise, "cluster-advertise without cluster-store: there is no cluster to tell").hint("give --cluster-store etcd://HOST:PORT, or leave it out")),
            None => Ok(None),
        };
    };
    let advertise = section.advertise.as_ref().ok_or_else(|| invalid(store, "cluster-store without cluster-advertise: the other nodes must know where this one is").hint("give --cluster-advertise an address of this machine that they reach"))?;
    let (advertise, api_port) = address(advertise)?;
    let lease = section.lease.as_ref().map_or(Ok(LEASE), |text| seconds(text))?;
    if lease < LEASE_LEAST {
        return Err(invalid(&format!("{lease:?}"), format!("cluster-lease {lease:?}: want at least {LEASE_LEAST:?}")));
    }
    let node = match &section.node {
        Some(node) => node.clone(),
        None => nix::unistd::gethostname().map_err(unavailable)?.to_string_lossy().into_owned(),
    };
    let legal = (1..=128).contains(&node.len()) && node.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) && !node.starts_with('.');
    if !legal {
        return Err(invalid(&node, format!("node name {node:?}: want letters, digits, `_`, `.` and `-`")).hint("give one with --node"));
    }
    let keys = Keys::new(section.prefix.as_deref().unwrap_or(PREFIX))?;
    let ClusterSection { ca, cert, key, user, password_file, .. } = section.clone();
    let store = StoreConfig::new(store.parse()?, StoreOptions { ca, cert, key, user, password_file })?;
    Ok(Some(ClusterConfig { store, node, advertise, api_port, lease, keys }))
}

/// Docker's `cluster-store-opts` in our words.
fn with_store_opts(section: &ClusterSection) -> Result<ClusterSection, ControlError> {
    let mut section = section.clone();
    for (key, value) in std::mem::take(&mut section.store_opts) {
        match key.as_str() {
            "kv.cacertfile" => section.ca = Some(value.into()),
            "kv.certfile" => section.cert = Some(value.into()),
            "kv.keyfile" => section.key = Some(value.into()),
            "kv.path" => section.prefix = Some(value),
            "discovery.ttl" => section.lease = Some(value),
            _ => return Err(invalid(&key, format!("cluster-store-opts {key}: there are kv.cacertfile, kv.certfile, kv.keyfile, kv.path and discovery.ttl"))),
        }
    }
    Ok(section)
}

/// IP or IP:PORT, as Docker has it.
fn address(text: &str) -> Result<(IpAddr, Option<u16>), ControlError> {
    let (ip, port) = match (text.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
        (Ok(ip), _) => (ip, None),
        (_, Ok(at)) => (at.ip(), Some(at.port())),
        _ => return Err(invalid(text, format!("--cluster-advertise {text}: want IP or IP:PORT, [IP]:PORT for IPv6"))),
    };
    if ip.is_unspecified() || ip.is_multicast() || port == Some(0) {
        return Err(invalid(text, format!("--cluster-advertise {text}: no node can be reached there")));
    }
    Ok((ip, port))
}

fn seconds(text: &str) -> Result<Duration, ControlError> {
    let number = text.strip_suffix('s').unwrap_or(text);
    number.parse().map(Duration::from_secs).map_err(|_| invalid(text, format!("--cluster-lease {text}: want seconds, such as 15s")))
}

pub(super) fn node(action: &NodeAction, place: &Place) -> End {
    let NodeAction::Ls { json: as_json } = action;
    let nodes = place.client.get("/v1/nodes")?;
    if *as_json {
        print_json(&nodes);
        return Ok(0);
    }
    let since = |node: &serde_json::Value| {
        let at = Duration::from_nanos(node["since_ns"].as_u64().unwrap_or_default());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        ago(now.saturating_sub(at))
    };
    let rows: Vec<_> = nodes
        .as_array()
        .into_iter()
        .flatten()
        .map(|node| vec![if node["own"] == json!(true) { format!("{} *", text(&node["name"])) } else { text(&node["name"]) }, text(&node["ip"]), since(node)])
        .collect();
    table(&["NAME", "ADDRESS", "SINCE"], &rows);
    Ok(0)
}

fn ago(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_or_refused() {
        let good = || ClusterSection { store: Some("etcd://192.168.88.212:2379".into()), advertise: Some("192.168.88.212:2375".into()), node: Some("n1".into()), lease: Some("7s".into()), ..ClusterSection::default() };
        let read = config(&good()).unwrap().unwrap();
        assert_eq!((read.node.as_str(), read.advertise, read.api_port, read.lease.as_secs()), ("n1", [192, 168, 88, 212].into(), Some(2375), 7));
        assert!(config(&ClusterSection::default()).unwrap().is_none());
        let opts = [("discovery.ttl", "20"), ("kv.path", "my/cluster")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let read = config(&ClusterSection { store_opts: opts.into(), ..good() }).unwrap().unwrap();
        assert_eq!((read.lease.as_secs(), read.keys.all().as_str()), (20, "/my/cluster/"));
        for (section, why) in [
            (ClusterSection { store: None, ..good() }, "without cluster-store"),
            (ClusterSection { advertise: None, ..good() }, "without cluster-advertise"),
            (ClusterSection { advertise: Some("0.0.0.0".into()), ..good() }, "0.0.0.0"),
            (ClusterSection { advertise: Some("eth0:1".into()), ..good() }, "eth0:1"),
            (ClusterSection { lease: Some("1s".into()), ..good() }, "at least"),
            (ClusterSection { lease: Some("soon".into()), ..good() }, "soon"),
            (ClusterSection { store: Some("zk://x".into()), ..good() }, "zk"),
            (ClusterSection { node: Some("a/b".into()), ..good() }, "a/b"),
            (ClusterSection { prefix: Some("/".into()), ..good() }, "--cluster-prefix"),
            (ClusterSection { store_opts: [("kv.other".to_owned(), String::new())].into(), ..good() }, "kv.other"),
        ] {
            let error = config(&section).unwrap_err();
            assert!(error.message.contains(why), "{error}");
        }
    }
}
