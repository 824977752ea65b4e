//! Docker's daemon.json. Each key is used, named in a notice as meaningless here, or refused; none is passed over.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::DaemonFile;

const NO_RULES: &str = "weft changes no rules and no forwarding of the host, whatever it says";
const NO_IMAGES: &str = "weft has no images, and so no registries and no storage drivers";
const NO_RUNTIME: &str = "weft starts processes itself: there are no runtimes, plugins or log drivers to choose";

/// Without effect, and harmless so.
const MEANINGLESS: &[(&str, &str)] = &[
    ("iptables", NO_RULES),
    ("ip6tables", NO_RULES),
    ("ip-forward", NO_RULES),
    ("ip-forward-no-drop", NO_RULES),
    ("firewall-backend", NO_RULES),
    ("userland-proxy", "published ports are always carried by weft itself"),
    ("userland-proxy-path", "published ports are always carried by weft itself"),
    ("live-restore", "sandboxes always outlive the daemon"),
    ("registry-mirrors", NO_IMAGES),
    ("insecure-registries", NO_IMAGES),
    ("allow-nondistributable-artifacts", NO_IMAGES),
    ("storage-driver", NO_IMAGES),
    ("storage-opts", NO_IMAGES),
    ("max-concurrent-downloads", NO_IMAGES),
    ("max-concurrent-uploads", NO_IMAGES),
    ("max-download-attempts", NO_IMAGES),
    ("builder", NO_IMAGES),
    ("features", NO_IMAGES),
    ("log-driver", NO_RUNTIME),
    ("log-opts", NO_RUNTIME),
    ("log-format", NO_RUNTIME),
    ("exec-opts", NO_RUNTIME),
    ("runtimes", NO_RUNTIME),
    ("default-runtime", NO_RUNTIME),
    ("init", NO_RUNTIME),
    ("containerd", NO_RUNTIME),
    ("containerd-namespace", NO_RUNTIME),
    ("containerd-plugin-namespace", NO_RUNTIME),
    ("shutdown-timeout", NO_RUNTIME),
    ("experimental", "there are no experiments to allow"),
    ("metrics-addr", "see `weft stats` and GET /v1/stats"),
];

/// Would leave somebody less protected, or their files elsewhere, than they think.
const REFUSED: &[(&str, &str)] = &[
    ("data-root", "use --state-dir"),
    ("exec-root", "use --state-dir"),
    ("graph", "use --state-dir"),
    ("pidfile", "the one who starts weft knows its pid"),
    ("group", "the socket is its owner's alone (mode 0600)"),
    ("userns-remap", "use --rootless"),
    ("seccomp-profile", "weft does not keep programs apart from the host"),
    ("selinux-enabled", "weft does not keep programs apart from the host"),
    ("no-new-privileges", "weft does not keep programs apart from the host"),
    ("default-ulimits", "weft sets no limits"),
    ("cgroup-parent", "weft sets no limits"),
    ("authorization-plugins", "use TLS with tlsverify"),
    ("bip6", "use fixed-cidr-v6 and default-gateway-v6"),
    ("swarm-default-advertise-addr", "weft has no swarm"),
    ("node-generic-resources", "weft has no swarm"),
];

/// Reads the file's text.
///
/// # Errors
/// Naming the key.
pub(super) fn parse(text: &str) -> Result<DaemonFile, String> {
    let Value::Object(keys) = serde_json::from_str(text).map_err(|error| error.to_string())? else { return Err("want a JSON object, as Docker's daemon.json".into()) };
    let mut file = DaemonFile::default();
    let mut network = Map::new();
    for (key, value) in keys {
        let (daemon, cluster) = (&mut file.daemon, &mut file.cluster);
        match key.as_str() {
            "bridge" | "bip" | "fixed-cidr" | "fixed-cidr-v6" | "default-gateway" | "default-gateway-v6" | "ipv6" | "mtu" | "icc" | "ip-masq" | "ip" => {
                network.insert(key, value);
            }
            "hosts" => daemon.hosts = take(&key, value)?,
            "tls" => daemon.tls = take(&key, value)?,
            "tlsverify" => daemon.tlsverify = take(&key, value)?,
            "tlscacert" => daemon.tlscacert = Some(take(&key, value)?),
            "tlscert" => daemon.tlscert = Some(take(&key, value)?),
            "tlskey" => daemon.tlskey = Some(take(&key, value)?),
            "debug" => daemon.debug = take(&key, value)?,
            "log-level" => daemon.log_level = Some(take(&key, value)?),
            "labels" => daemon.labels = take(&key, value)?,
            "dns" => daemon.dns = take(&key, value)?,
            "dns-search" => daemon.dns_search = take(&key, value)?,
            "dns-opts" => daemon.dns_opts = take(&key, value)?,
            "default-address-pools" => daemon.default_address_pools = take(&key, value)?,
            "default-network-opts" => daemon.default_network_opts = take(&key, value)?,
            "cluster-store" => cluster.store = Some(take(&key, value)?),
            "cluster-advertise" => cluster.advertise = Some(take(&key, value)?),
            "cluster-store-opts" => cluster.store_opts = take(&key, value)?,
            name => match (why(MEANINGLESS, name), why(REFUSED, name)) {
                (Some(why), _) => file.notices.push(format!("{name}: without effect: {why}")),
                (_, Some(why)) => return Err(format!("the key {name:?} of Docker's is not supported: {why}")),
                _ => return Err(format!("unknown key {name:?}")),
            },
        }
    }
    if !network.is_empty() {
        // One key at a time, so that an error names it.
        for (key, value) in &network {
            let alone: Map<_, _> = [(key.clone(), value.clone())].into_iter().collect();
            take::<super::DefaultNetwork>(key, alone.into())?;
        }
        file.default_network = Some(take("default network", network.into())?);
    }
    Ok(file)
}

fn take<T: DeserializeOwned>(key: &str, value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| format!("{key}: {error}"))
}

fn why(list: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    list.iter().find(|(key, _)| *key == name).map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_used_named_or_refused() {
        // J4.
        let file = parse(
            r#"{"hosts":["tcp://0.0.0.0:2375","unix:///var/run/docker.sock"],"dns":["10.20.1.2"],"dns-search":["x.test"],"dns-opts":["ndots:2"],
            "ipv6":true,"fixed-cidr-v6":"fd00:1::/64","ip":"127.0.0.1","bridge":"docker0","icc":false,"ip-masq":false,"mtu":1400,"userland-proxy":false,"iptables":false,
            "default-address-pools":[{"base":"10.10.0.0/16","size":24}],"default-network-opts":{"bridge":{"com.docker.network.driver.mtu":"1300"}},
            "debug":true,"log-level":"warn","labels":["a=b"],"cluster-store":"etcd://192.0.2.1:2379","cluster-advertise":"192.0.2.1:2375","cluster-store-opts":{"kv.path":"x"},
            "tls":true,"tlsverify":true,"tlscacert":"/ca","tlscert":"/cert","tlskey":"/key"}"#,
        )
        .unwrap();
        let network = file.default_network.unwrap();
        assert_eq!((network.ipv6, network.icc, network.ip_masq, network.mtu, network.ip), (true, Some(false), Some(false), Some(1400), Some("127.0.0.1".parse().unwrap())));
        assert_eq!((file.daemon.hosts.len(), file.daemon.debug, file.daemon.tlsverify, file.daemon.default_address_pools[0].size), (2, true, true, 24));
        assert_eq!((file.cluster.store.as_deref(), file.cluster.store_opts.len()), (Some("etcd://192.0.2.1:2379"), 1));
        assert_eq!(file.notices.len(), 2, "{:?}", file.notices);
        for (text, parts) in [
            (r#"{"bipp":"x"}"#, ["unknown", "bipp"]),
            (r#"{"data-root":"/x"}"#, ["data-root", "--state-dir"]),
            (r#"{"mtu":"big"}"#, ["mtu", "big"]),
            (r#"{"bip":"10.0.0.300/8"}"#, ["bip", "invalid"]),
            (r#"{"default-address-pools":[{"base":"10.0.0.0/8","bits":3}]}"#, ["default-address-pools", "bits"]),
            (r#"["x"]"#, ["object", "daemon.json"]),
            ("{", ["EOF", "line 1"]),
        ] {
            let error = parse(text).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
    }
}
