//! Services.

use std::collections::BTreeMap;

use super::{
    Result, Service,
    network::{DEFAULT, Declared},
    read::Node,
};
use crate::{
    api::EndpointCreate,
    endpoint_options,
    container::{Config, Container, HostConfig, Nothing, PortBinding, RestartPolicy},
    publish::{self, PublishRequest},
};

const KEYS: &[&str] = &[
    "image", "command", "entrypoint", "environment", "working_dir", "hostname", "container_name", "labels", "restart", "tty", "stdin_open", "networks", "network_mode", "mac_address", "ports", "expose", "dns", "dns_search",
    "dns_opt", "extra_hosts", "links", "depends_on",
];

/// A service, and what it says of others by their keys.
pub(super) struct Read {
    pub(super) service: Service,
    /// Keys of its networks.
    pub(super) networks: Vec<String>,
    /// Keys of services that start before it.
    pub(super) after: Vec<String>,
}

pub(super) fn read(key: &str, node: &Node<'_>, directory: &str, services: &[String]) -> Result<Read> {
    node.only(KEYS)?;
    let mut container = Container { config: config(node, directory)?, host: host(node)?, ..Container::default() };
    let mut after = after(node)?;
    let mode = mode(node, &mut container, &mut after)?;
    let links = links(node, &mut after)?;
    if let Some(unknown) = after.iter().find(|other| !services.contains(other) || *other == key) {
        return Err(format!("services.{key}: it waits for {unknown:?}, which is no other service"));
    }
    let name = node.text("container_name")?.unwrap_or_else(|| key.to_owned());
    let mut networks = Vec::new();
    if mode.is_none() {
        container.networks = endpoints(node)?;
        networks = container.networks.iter().map(|endpoint| endpoint.network.clone()).collect();
        for endpoint in container.networks.iter_mut().filter(|_| name != key) {
            endpoint.aliases.push(key.to_owned());
        }
        if let (Some(mac), Some(first)) = (node.text("mac_address")?, container.networks.first_mut()) {
            first.mac.get_or_insert(mac);
        }
    } else if let Some(unfit) = ["networks", "mac_address"].iter().find(|key| !node.get(key).is_null()) {
        return Err(node.get(unfit).wrong("a service with network_mode is in no network of its own"));
    }
    if let Some(mode) = mode {
        container.host.network_mode = mode;
    }
    if container.command().is_empty() {
        return Err(node.wrong("no command: there are no images that would have one"));
    }
    Ok(Read { service: Service { key: key.into(), name, container, links }, networks, after })
}

impl Service {
    /// The networks' names for their keys.
    pub(super) fn name_networks(&mut self, declared: &[Declared]) {
        let name = |key: &str| declared.iter().find(|network| network.key == key).map_or_else(|| key.to_owned(), |network| network.request.name.clone());
        for endpoint in &mut self.container.networks {
            endpoint.network = name(&endpoint.network);
        }
        if let Some(first) = self.container.networks.first() {
            self.container.host.network_mode.clone_from(&first.network);
        }
    }

    /// The containers' names for the services' keys.
    pub(super) fn name_services(&mut self, names: &[(String, String)]) {
        let name = |key: &str| names.iter().find(|(other, _)| other == key).map_or_else(|| key.to_owned(), |(_, name)| name.clone());
        let mode = &mut self.container.host.network_mode;
        if let Some(key) = mode.strip_prefix("service:") {
            *mode = format!("container:{}", name(key));
        }
        for link in &mut self.links {
            let (key, alias) = link.split_once(':').unwrap_or((link.as_str(), link.as_str()));
            *link = format!("{}:{alias}", name(key));
        }
    }
}

fn config(node: &Node<'_>, directory: &str) -> Result<Config> {
    let words = |key: &str| -> Result<Vec<String>> {
        let at = node.get(key);
        match at.value.as_str() {
            Some(line) => shlex::split(line).ok_or_else(|| at.wrong("a quotation mark or backslash has no end")),
            None => node.texts(key),
        }
    };
    let image = match node.text("image")?.as_deref() {
        None | Some("host" | "host:latest") => "host".to_owned(),
        Some(path) if path.starts_with('/') || path.starts_with("rootfs/") => path.to_owned(),
        Some(path) if path.starts_with("./") || path.starts_with("../") => format!("{directory}/{path}"),
        Some(other) => return Err(node.get("image").wrong(&format!("{other:?}: weft has no image store: say host (this host's files), or a directory with a root file system, as /path or ./path"))),
    };
    let mut exposed = BTreeMap::new();
    for port in node.items("expose")? {
        let text = port.scalar()?.unwrap_or_default();
        for request in publish::parse(&text).map_err(|error| port.wrong(&error.message))? {
            if request.host_ports.is_some() {
                return Err(port.wrong("expose has no port of the host: see ports"));
            }
            exposed.insert(format!("{}/{}", request.port, request.protocol), Nothing {});
        }
    }
    Ok(Config {
        hostname: node.text("hostname")?.unwrap_or_default(),
        exposed_ports: exposed,
        tty: node.flag("tty")?,
        open_stdin: node.flag("stdin_open")?,
        // A variable without a value is not set: there is no environment that it could come from.
        env: node.pairs("environment", &['='])?.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", value?))).collect(),
        cmd: words("command")?,
        image,
        working_dir: node.text("working_dir")?.unwrap_or_default(),
        entrypoint: words("entrypoint")?,
        labels: node.pairs("labels", &['='])?.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect(),
        ..Config::default()
    })
}

fn host(node: &Node<'_>) -> Result<HostConfig> {
    let hosts = node.pairs("extra_hosts", &['=', ':'])?;
    let restart = node.text("restart")?.unwrap_or_default();
    let (policy, most) = restart.split_once(':').unwrap_or((&restart, "0"));
    if !matches!(policy, "" | "no" | "always" | "unless-stopped" | "on-failure") {
        return Err(node.get("restart").wrong(&format!("{restart:?}: there are no, always, unless-stopped and on-failure[:N]")));
    }
    let dns = node.texts("dns")?;
    if let Some(bad) = dns.iter().find(|server| server.parse::<std::net::IpAddr>().is_err()) {
        return Err(node.get("dns").wrong(&format!("{bad:?} is not an address")));
    }
    Ok(HostConfig {
        port_bindings: ports(node)?,
        extra_hosts: hosts
            .into_iter()
            .map(|(name, address)| Ok(format!("{name}:{}", address.ok_or_else(|| node.get("extra_hosts").wrong(&format!("{name:?} has no address")))?.trim_matches(['[', ']']))))
            .collect::<Result<_>>()?,
        dns,
        dns_search: node.texts("dns_search")?,
        dns_options: node.texts("dns_opt")?,
        restart_policy: RestartPolicy { name: policy.into(), maximum_retry_count: most.parse().map_err(|_| node.get("restart").wrong(&format!("{most:?} is not a number")))? },
        ..HostConfig::default()
    })
}

/// Short (`8080:80`) or long (`target: 80`).
fn ports(node: &Node<'_>) -> Result<BTreeMap<String, Vec<PortBinding>>> {
    let mut bindings: BTreeMap<String, Vec<PortBinding>> = BTreeMap::new();
    for port in node.items("ports")? {
        let spec = if port.value.is_object() { long_port(&port)? } else { port.scalar()?.unwrap_or_default() };
        for PublishRequest { host_ip, host_ports, port, protocol } in publish::parse(&spec).map_err(|error| port.wrong(&error.to_string()))? {
            let host_port = match host_ports {
                None => String::new(),
                Some((first, last)) if first == last => first.to_string(),
                Some((first, last)) => format!("{first}-{last}"),
            };
            bindings.entry(format!("{port}/{protocol}")).or_default().push(PortBinding { host_ip: host_ip.map(|ip| ip.to_string()).unwrap_or_default(), host_port });
        }
    }
    Ok(bindings)
}

fn long_port(node: &Node<'_>) -> Result<String> {
    node.only(&["target", "published", "host_ip", "protocol", "mode", "name", "app_protocol"])?;
    let Some(target) = node.text("target")? else { return Err(node.wrong("a port needs its target")) };
    if let Some(mode) = node.text("mode")?.filter(|mode| !matches!(mode.as_str(), "host" | "ingress")) {
        return Err(node.get("mode").wrong(&format!("{mode:?}: there are host and ingress")));
    }
    let ip = node.text("host_ip")?.map(|ip| if ip.contains(':') && !ip.starts_with('[') { format!("[{ip}]:") } else { format!("{ip}:") });
    let published = node.text("published")?.map(|port| format!("{port}:"));
    let protocol = node.text("protocol")?.map(|protocol| format!("/{protocol}")).unwrap_or_default();
    Ok(match (ip, published) {
        (Some(ip), published) => format!("{ip}{}{target}{protocol}", published.unwrap_or_else(|| ":".into())),
        (None, published) => format!("{}{target}{protocol}", published.unwrap_or_default()),
    })
}

/// A mode other than networks, as Docker's `NetworkMode`; services by their keys.
fn mode(node: &Node<'_>, container: &mut Container, after: &mut Vec<String>) -> Result<Option<String>> {
    let Some(mode) = node.text("network_mode")? else { return Ok(None) };
    let at = node.get("network_mode");
    let joined = match mode.as_str() {
        "none" | "host" => None,
        "bridge" => return Err(at.wrong("name the network under networks: `bridge` is {name: bridge, external: true} at the top")),
        mode => match mode.split_once(':') {
            Some(("service", other)) => {
                after.push(other.into());
                Some(other)
            }
            Some(("container", other)) => Some(other),
            _ => return Err(at.wrong(&format!("{mode:?}: there are none, host, service:NAME and container:NAME"))),
        },
    };
    let unfit = [
        ("ports", !container.host.port_bindings.is_empty()),
        ("hostname", joined.is_some() && !container.config.hostname.is_empty()),
        ("extra_hosts", mode != "none" && !container.host.extra_hosts.is_empty()),
        ("dns", mode != "none" && !container.host.dns.is_empty()),
    ];
    match unfit.iter().find(|(_, said)| *said) {
        Some((key, _)) => Err(node.get(key).wrong(&format!("makes no sense with network_mode: {mode}"))),
        None => Ok(Some(mode)),
    }
}

/// Keys of the services that it waits for. There are no health checks to wait for.
fn after(node: &Node<'_>) -> Result<Vec<String>> {
    let at = node.get("depends_on");
    if !at.value.is_object() {
        return node.texts("depends_on");
    }
    let mut keys = Vec::new();
    for (key, how) in node.map("depends_on")? {
        how.only(&["condition", "restart", "required"])?;
        if let Some(other) = how.text("condition")?.filter(|condition| condition != "service_started") {
            return Err(how.get("condition").wrong(&format!("{other:?}: only service_started is known: there are no health checks")));
        }
        keys.push(key);
    }
    Ok(keys)
}

fn links(node: &Node<'_>, after: &mut Vec<String>) -> Result<Vec<String>> {
    let links = node.texts("links")?;
    after.extend(links.iter().map(|link| link.split(':').next().unwrap_or_default().to_owned()));
    Ok(links)
}

/// The service's networks by key. The first has the way out: that with the highest gw_priority, then priority.
fn endpoints(node: &Node<'_>) -> Result<Vec<EndpointCreate>> {
    let at = node.get("networks");
    if at.is_null() {
        return Ok(vec![EndpointCreate { network: DEFAULT.into(), ..EndpointCreate::default() }]);
    }
    if !at.value.is_object() {
        return Ok(node.texts("networks")?.into_iter().map(|network| EndpointCreate { network, ..EndpointCreate::default() }).collect());
    }
    let mut ranked = Vec::new();
    for (key, how) in node.map("networks")? {
        how.only(&["aliases", "ipv4_address", "ipv6_address", "mac_address", "gw_priority", "interface_name", "driver_opts", "link_local_ips", "priority"])?;
        let rank: (i64, i64) = (how.parsed("gw_priority", "a number")?.unwrap_or(0), how.parsed("priority", "a number")?.unwrap_or(0));
        let mut endpoint = EndpointCreate {
            network: key,
            ip: how.parsed("ipv4_address", "an IPv4 address")?,
            ip6: how.parsed("ipv6_address", "an IPv6 address")?,
            aliases: how.texts("aliases")?,
            gw_priority: i32::try_from(rank.0).map_err(|_| how.get("gw_priority").wrong("want 32 bits"))?,
            ..EndpointCreate::default()
        };
        for address in how.items("link_local_ips")? {
            let text = address.scalar()?.unwrap_or_default();
            endpoint.link_local.push(endpoint_options::link_local(&text).map_err(|error| address.wrong(&error.to_string()))?);
        }
        let options = how.pairs("driver_opts", &['='])?.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect();
        endpoint_options::apply(&mut endpoint, options).map_err(|error| how.get("driver_opts").wrong(&error.to_string()))?;
        // Keys of their own go before options.
        endpoint.mac = how.text("mac_address")?.or(endpoint.mac);
        endpoint.ifname = how.text("interface_name")?.or(endpoint.ifname);
        ranked.push((rank, endpoint));
    }
    ranked.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
    Ok(ranked.into_iter().map(|(_, endpoint)| endpoint).collect())
}
