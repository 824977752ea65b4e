//! Changing a network that is there: what is asked is checked as for a new one, and then against who is in it.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    api::{EndpointCreate, NetworkCreate},
    driver,
    error::{Code, ControlError, Result},
    ipam,
    model::{Endpoint, Model, Network},
};

/// Fields of [`NetworkCreate`] that can change while somebody is in the network.
const LIVE: &[&str] = &[
    "subnets", "gateways", "ip-range", "aux-addresses", "own-addresses", "dhcp", "dhcp-range", "ra", "mtu", "ipv6", "masquerade", "nat", "nat-source", "nat-prefix",
    "host-binding", "ifname-prefix", "isolated-default", "storm", "ageing-s", "names", "dns", "labels", "options", "attachable",
];

/// A value that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Of what.
    pub key: String,
    /// What it was.
    pub before: Value,
    /// What it is to be.
    pub after: Value,
}

impl fmt::Display for Difference {
    /// As `mtu: 1500 -> 1400`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Value| match value {
            Value::Null => "-".into(),
            Value::String(text) => text.clone(),
            Value::Array(all) if all.iter().all(Value::is_string) => all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
            other => other.to_string(),
        };
        write!(f, "{}: {} -> {}", self.key, shown(&self.before), shown(&self.after))
    }
}

/// A member's endpoint before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberEdit {
    /// Id of its sandbox.
    pub sandbox: String,
    /// As it was.
    pub before: Endpoint,
    /// As it is to be.
    pub after: Endpoint,
}

/// What a change of a network means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkEdit {
    /// As it was.
    pub before: Network,
    /// As it is to be.
    pub after: Network,
    /// Who is in it.
    pub members: Vec<MemberEdit>,
}

impl NetworkEdit {
    /// What is not as it was, in the words of [`NetworkCreate`].
    #[must_use]
    pub fn differences(&self) -> Vec<Difference> {
        differences(&self.before.request(), &self.after.request())
    }

    /// Back to what was.
    #[must_use]
    pub fn reversed(self) -> Self {
        let members = self.members.into_iter().map(|MemberEdit { sandbox, before, after }| MemberEdit { sandbox, before: after, after: before });
        Self { before: self.after, after: self.before, members: members.collect() }
    }
}

/// Fields in which two values differ.
pub(crate) fn differences(before: &impl Serialize, after: &impl Serialize) -> Vec<Difference> {
    let fields = |value| if let Value::Object(fields) = value { fields } else { Map::new() };
    let (mut before, mut after) = (fields(serde_json::json!(before)), fields(serde_json::json!(after)));
    let mut keys: Vec<String> = before.keys().chain(after.keys()).cloned().collect();
    keys.sort();
    keys.dedup();
    let mut value = |key: &str| (before.remove(key).unwrap_or_default(), after.remove(key).unwrap_or_default());
    let all = keys.into_iter().map(|key| {
        let (before, after) = value(&key);
        Difference { key, before, after }
    });
    all.filter(|difference| difference.before != difference.after).collect()
}

impl Network {
    /// The request that would make it as it is.
    #[must_use]
    pub fn request(&self) -> NetworkCreate {
        let overlay = self.overlay.as_ref();
        NetworkCreate {
            name: self.name.clone(),
            driver: Some(self.driver.clone()),
            subnets: self.pools.iter().map(|pool| pool.subnet).collect(),
            gateways: self.pools.iter().map(|pool| pool.gateway).collect(),
            ip_range: self.pools.iter().find(|pool| pool.range != pool.subnet).map(|pool| pool.range),
            aux_addresses: self.aux_addresses.clone(),
            own_addresses: self.own_addresses.clone(),
            internal: self.internal,
            dhcp: self.dhcp_range.is_some(),
            dhcp_range: self.dhcp_range,
            ra: self.ra,
            mtu: Some(self.mtu),
            l2: self.l2,
            no_ipam: self.pools.is_empty(),
            ipv6: self.pools.iter().any(|pool| pool.subnet.is_ipv6()),
            // Its subnets say it.
            no_ipv4: false,
            masquerade: Some(self.masquerade),
            nat: self.nat,
            nat_source: self.nat_source.clone(),
            nat_prefix: self.nat_prefix,
            host_binding: self.host_binding,
            ifname_prefix: self.ifname_prefix.clone(),
            isolated_default: self.isolated_default,
            storm: self.storm,
            ageing_s: Some(self.ageing_s),
            names: Some(self.names),
            dns: self.dns.clone(),
            global: self.is_global().then_some(true),
            vni: overlay.map(|overlay| overlay.vni),
            // Those of a shared network are what the store says.
            peers: overlay.filter(|overlay| !overlay.global).map(|overlay| overlay.peers.clone()).unwrap_or_default(),
            learning: overlay.map(|overlay| overlay.learning),
            strict: overlay.map(|overlay| overlay.strict),
            vxlan_port: overlay.and_then(|overlay| overlay.port),
            ttl: overlay.and_then(|overlay| overlay.ttl),
            group: overlay.and_then(|overlay| overlay.group),
            encrypted: overlay.is_some_and(|overlay| overlay.encrypted),
            key_file: overlay.and_then(|overlay| overlay.key_file.clone()),
            parent: self.lan.as_ref().and_then(|lan| lan.parent.clone()),
            host_addresses: self.lan.as_ref().map(|lan| lan.host.clone()).unwrap_or_default(),
            rekey_s: overlay.and_then(|overlay| overlay.rekey_s),
            labels: self.labels.clone(),
            options: self.options.clone(),
            attachable: self.attachable,
            ingress: self.ingress,
            // What its configuration said is in the fields above.
            config_from: None,
        }
    }

    /// The same, with a patch (RFC 7396) of [`NetworkCreate`]'s fields. What belongs to a subnet goes with it.
    ///
    /// # Errors
    /// When a field is unknown or its value makes no sense.
    pub fn patched(&self, patch: &Value) -> Result<NetworkCreate> {
        let invalid = |message: String| ControlError::new(Code::Invalid, &self.name, message);
        let Value::Object(patch) = patch else { return Err(invalid("want an object with the fields to change".into())) };
        let mut fields = serde_json::json!(self.request());
        if let Some(Value::Object(options)) = patch.get("options") {
            driver::check_patch(self, options)?;
        }
        for (key, value) in patch {
            let key = match key.as_str() {
                "subnet" => "subnets",
                "gateway" => "gateways",
                other => other,
            };
            merge(&mut fields[key], value);
        }
        if let Value::Object(fields) = &mut fields {
            fields.retain(|_, value| !value.is_null());
        }
        let mut request: NetworkCreate = serde_json::from_value(fields).map_err(|error| invalid(format!("network {}: {error}", self.name)))?;
        let said = |keys: &[&str]| keys.iter().any(|key| patch.contains_key(*key));
        let subnets = request.subnets.clone();
        let inside = |address: &IpAddr| subnets.iter().any(|subnet| ipam::is_usable(*subnet, *address));
        if !said(&["gateway", "gateways"]) {
            request.gateways.retain(inside);
        }
        if !said(&["ip-range"]) {
            request.ip_range = request.ip_range.filter(|range| subnets.iter().any(|subnet| subnet.contains(range.network()) && subnet.contains(range.broadcast())));
        }
        if !said(&["own-addresses"]) {
            let gateways = request.gateways.clone();
            request.own_addresses.retain(|address| inside(address) && !gateways.contains(address));
        }
        if !said(&["dhcp-range"]) && (said(&["dhcp"]) || !request.dhcp_range.is_some_and(|range| subnets.iter().any(|subnet| subnet.contains(range.network()) && subnet.contains(range.broadcast())))) {
            request.dhcp_range = None;
        }
        if !said(&["ipv6"]) {
            request.ipv6 = subnets.iter().any(IpNetwork::is_ipv6);
        }
        Ok(request)
    }
}

impl Endpoint {
    /// The request that would make it as it is, in the network of that name.
    #[must_use]
    pub fn request(&self, network: &str) -> EndpointCreate {
        let ip = |v4: bool| self.addresses.iter().map(IpNetwork::ip).find(|ip| ip.is_ipv4() == v4);
        EndpointCreate {
            network: network.into(),
            ip: ip(true).and_then(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None }),
            ip6: ip(false).and_then(|ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None }),
            mac: Some(self.mac.clone()),
            ifname: Some(self.ifname.clone()),
            kind: Some(self.kind),
            mtu: Some(self.mtu),
            vlan: self.vlan.clone(),
            isolated: self.isolated,
            horizon: self.horizon,
            guard: Some(self.guard),
            aliases: self.aliases.clone(),
            link: self.link.clone(),
            link_local: self.link_local.clone(),
            gw_priority: self.gw_priority,
            sysctls: self.sysctls.clone(),
            options: BTreeMap::new(),
            vips: self.vips.clone(),
        }
    }
}

/// RFC 7396; objects of ours are flat, so one level of keys is all there is.
fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                match value {
                    Value::Null => drop(target.remove(key)),
                    value => drop(target.insert(key.clone(), value.clone())),
                }
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

impl Model {
    /// Makes a network what `request` says; subnets that it leaves out stay. Gives what that means for those in it.
    ///
    /// # Errors
    /// When the request makes no sense, or cannot be met while those who are in the network are.
    pub fn edit_network(&mut self, reference: &str, request: &NetworkCreate) -> Result<NetworkEdit> {
        let before = self.network(reference)?.clone();
        if request.name != before.name {
            return Err(refused(&before, "name", "a network keeps its name"));
        }
        if request.driver.as_deref().unwrap_or("bridge") != before.driver {
            return Err(refused(&before, "driver", "make another network"));
        }
        let mut request = request.clone();
        if request.subnets.is_empty() && !request.no_ipam {
            before.keep_addresses(&mut request);
        }
        if let Some(overlay) = &before.overlay {
            request.vni = request.vni.or(Some(overlay.vni));
        }
        if let Some(lan) = before.lan.as_ref().filter(|lan| lan.parent == request.parent) {
            // What the device said when it was made.
            request.host_addresses.clone_from(&lan.host);
            request.mtu = request.mtu.or(Some(before.mtu));
        }
        if before.is_global() {
            (request.global, request.mtu) = (request.global.or(Some(true)), request.mtu.or(Some(before.mtu)));
        }
        // As if it were new, where the old one never was.
        let mut without = self.clone();
        without.networks.remove(&before.id);
        without.defaults.options.clear();
        let id = without.create_network(&request, before.id.clone())?;
        let mut after = without.networks.remove(&id).ok_or_else(|| refused(&before, "id", "it is gone"))?;
        after.created_ns = before.created_ns;
        after.keep_vips(&before)?;
        if let (Some(after), Some(before)) = (&mut after.overlay, &before.overlay) {
            after.stations.clone_from(&before.stations);
            if before.global {
                after.peers.clone_from(&before.peers);
                after.neighbours.clone_from(&before.neighbours);
            }
        }
        for pool in &mut after.pools {
            let old = before.pools.iter().find(|old| old.subnet.is_ipv4() == pool.subnet.is_ipv4());
            pool.cursor = old.and_then(|old| old.cursor).filter(|cursor| pool.range.contains(*cursor));
        }
        driver::refresh(&mut after);
        let edit = NetworkEdit { members: self.member_edits(&before, &after)?, before, after };
        if let Some(difference) = edit.differences().first().filter(|_| edit.before.is_global()) {
            return Err(refused(&edit.before, &difference.key, "it is the cluster's, and the same on all nodes: make another network"));
        }
        if let Some(difference) = edit.differences().iter().find(|difference| !edit.members.is_empty() && !LIVE.contains(&difference.key.as_str())) {
            let mut names: Vec<_> = self.members(&edit.before.id).map(|(sandbox, _)| sandbox.name.clone()).collect();
            names.sort();
            let hint = if difference.key == "peers" { "use `weft vxlan peer`" } else { "disconnect them first" };
            return Err(refused(&edit.before, &difference.key, &format!("not while {} is in it", names.join(", "))).hint(hint));
        }
        for member in &edit.members {
            let endpoints = self.sandboxes.get_mut(&member.sandbox).map(|sandbox| &mut sandbox.endpoints);
            if let Some(stored) = endpoints.into_iter().flatten().find(|endpoint| endpoint.id == member.after.id) {
                stored.clone_from(&member.after);
            }
        }
        if self.routes.iter().any(|(one, other)| *one == edit.after.id || *other == edit.after.id) && (edit.after.internal || edit.after.pools.is_empty()) {
            return Err(refused(&edit.before, "internal", "a route leads to it: see `weft network route`"));
        }
        self.networks.insert(edit.after.id.clone(), edit.after.clone());
        Ok(edit)
    }

    /// What becomes of those who are in a network.
    fn member_edits(&self, before: &Network, after: &Network) -> Result<Vec<MemberEdit>> {
        let mut edits = Vec::new();
        let mut members: Vec<_> = self.members(&before.id).collect();
        members.sort_by_key(|(sandbox, _)| &sandbox.name);
        for (sandbox, old) in members {
            let mut new = old.clone();
            for address in &mut new.addresses {
                let ip = address.ip();
                let conflict = |why: String| ControlError::new(Code::Conflict, ip.to_string(), format!("network {}: {} has {ip}, {why}", before.name, sandbox.name));
                let Some(pool) = after.pools.iter().find(|pool| ipam::is_usable(pool.subnet, ip)) else {
                    return Err(conflict("which no subnet would hold any longer".into()).hint("choose subnets that hold it, or disconnect it first"));
                };
                if pool.gateway == ip || after.own_addresses.contains(&ip) || after.aux_addresses.values().any(|aux| *aux == ip) {
                    return Err(conflict("which is to be the network's own".into()));
                }
                if let Some(range) = after.dhcp_range.filter(|range| range.contains(ip) && before.dhcp_range != Some(*range)) {
                    return Err(conflict(format!("which is in {range}, for DHCP to hand out")).hint("give another dhcp-range"));
                }
                *address = IpNetwork::new(ip, pool.subnet.prefix()).unwrap_or(*address);
            }
            if !old.gateways.is_empty() {
                new.gateways = after.pools.iter().filter(|pool| new.addresses.iter().any(|own| pool.subnet.contains(own.ip()))).map(|pool| pool.gateway).collect();
            }
            if old.mtu == before.mtu {
                new.mtu = after.mtu;
            }
            if old.isolated == before.isolated_default {
                new.isolated = after.isolated_default;
            }
            if old.storm == before.storm {
                new.storm = after.storm;
            }
            edits.push(MemberEdit { sandbox: sandbox.id.clone(), before: old.clone(), after: new });
        }
        Ok(edits)
    }
}

impl Network {
    /// Subnets, and what the request does not say about addresses in them, as they are.
    pub(crate) fn keep_addresses(&self, request: &mut NetworkCreate) {
        let now = self.request();
        let ipv6 = request.ipv6 || request.gateways.iter().any(IpAddr::is_ipv6);
        request.subnets = now.subnets.into_iter().filter(|subnet| subnet.is_ipv4() || ipv6).collect();
        if request.gateways.is_empty() {
            request.gateways = now.gateways.into_iter().filter(|gateway| request.subnets.iter().any(|subnet| subnet.contains(*gateway))).collect();
        }
        if request.dhcp && request.dhcp_range.is_none() {
            request.dhcp_range = now.dhcp_range;
        }
    }
}

fn refused(network: &Network, key: &str, why: &str) -> ControlError {
    ControlError::new(Code::Conflict, &network.name, format!("network {}: {key} cannot be changed: {why}", network.name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        EndpointKind, NetnsTarget,
        api::SandboxCreate,
    };

    fn world() -> Model {
        let mut model = Model::default();
        let request = NetworkCreate { name: "lab".into(), subnets: vec!["10.9.0.0/24".parse().unwrap()], ..NetworkCreate::default() };
        model.create_network(&request, "1".repeat(64)).unwrap();
        let id = model.create_sandbox(&SandboxCreate { name: Some("a".into()), netns: NetnsTarget::New, ..SandboxCreate::default() }, "2".repeat(64)).unwrap();
        model.create_endpoint(&id, &EndpointCreate { network: "lab".into(), ip: Some("10.9.0.7".parse().unwrap()), ..EndpointCreate::default() }, "3".repeat(64), EndpointKind::Tap).unwrap();
        model
    }

    fn edit(model: &mut Model, patch: Value) -> Result<NetworkEdit> {
        let request = model.network("lab")?.patched(&patch)?;
        model.edit_network("lab", &request)
    }

    #[test]
    fn members_follow() {
        let mut model = world();
        let before = model.clone();
        assert_eq!(edit(&mut model, json!({})).unwrap().differences(), []);
        assert_eq!(model, before, "nothing asked, nothing changed");
        let done = edit(&mut model, json!({ "subnets": ["10.9.0.0/16"], "mtu": 1400, "gateways": ["10.9.9.1"], "isolated-default": true, "labels": { "env": "x" } })).unwrap();
        let keys: Vec<_> = done.differences().into_iter().map(|difference| difference.key).collect();
        assert_eq!(keys, ["gateways", "isolated-default", "labels", "mtu", "subnets"]);
        let endpoint = &model.sandbox("a").unwrap().endpoints[0];
        assert_eq!((endpoint.addresses[0].to_string(), endpoint.mtu, endpoint.isolated), ("10.9.0.7/16".into(), 1400, true));
        assert_eq!(endpoint.gateways, ["10.9.9.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(done.clone().reversed().reversed(), done);
        // A second family; who is there keeps to the one it has.
        edit(&mut model, json!({ "subnets": ["10.9.0.0/16", "fd09::/64"] })).unwrap();
        assert_eq!((model.network("lab").unwrap().pools.len(), model.sandbox("a").unwrap().endpoints[0].addresses.len()), (2, 1));
        assert_eq!(edit(&mut model, json!({ "labels": { "env": null, "b": "c" } })).unwrap().after.labels.keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name_and_changes_nothing() {
        let mut model = world();
        let before = model.clone();
        for (patch, parts) in [
            (json!({ "subnets": ["10.8.0.0/24"] }), ["a has 10.9.0.7", "subnet"]),
            (json!({ "gateways": ["10.9.0.7"] }), ["10.9.0.7", "own"]),
            (json!({ "aux-addresses": { "x": "10.9.0.7" } }), ["10.9.0.7", "own"]),
            (json!({ "dhcp": true, "dhcp-range": "10.9.0.0/28" }), ["10.9.0.7", "DHCP"]),
            (json!({ "name": "other" }), ["name", "lab"]),
            (json!({ "driver": "overlay" }), ["driver", "lab"]),
            (json!({ "internal": true }), ["internal", "a is in it"]),
            (json!({ "l2": "hub" }), ["l2", "a is in it"]),
            (json!({ "mtu": 20 }), ["20", "68"]),
            (json!({ "mtoo": 20 }), ["mtoo", "unknown"]),
            (json!({ "gateways": ["10.7.0.1"] }), ["10.7.0.1", "10.9.0.0/24"]),
            (json!([1]), ["object", "fields"]),
        ] {
            let error = edit(&mut model, patch.clone()).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{patch}: {error}");
            assert_eq!(model, before);
        }
        // Where nobody is, what a network is may change.
        model.sandboxes.clear();
        let done = edit(&mut model, json!({ "internal": true, "subnets": ["10.8.0.0/24"] })).unwrap();
        assert_eq!((done.after.pools[0].gateway.to_string(), done.after.internal), ("10.8.0.1".into(), true));
    }

    #[test]
    fn differences_are_shown() {
        let shown = |before, after| Difference { key: "k".into(), before, after }.to_string();
        assert_eq!(shown(json!(["10.0.0.0/24"]), json!(["10.0.0.0/16", "fd00::/64"])), "k: 10.0.0.0/24 -> 10.0.0.0/16 fd00::/64");
        assert_eq!(shown(Value::Null, json!(5)), "k: - -> 5");
    }

    #[test]
    fn options_show_what_is() {
        let mut model = world();
        let id = model.networks.keys().next().unwrap().clone();
        if let Some(network) = model.networks.get_mut(&id) {
            network.options.insert("com.docker.network.driver.mtu".into(), "1500".into());
        }
        let done = edit(&mut model, json!({ "mtu": 1300 })).unwrap();
        assert_eq!(done.after.options["com.docker.network.driver.mtu"], "1300");
        // They do not change it themselves: that is said.
        let error = edit(&mut model, json!({ "options": { "com.docker.network.driver.mtu": "1200" } })).unwrap_err().to_string();
        assert!(error.contains("com.docker.network.driver.mtu") && error.contains("change mtu instead"), "{error}");
        edit(&mut model, json!({ "mtu": 1200, "options": { "com.docker.network.driver.mtu": "1300" } })).unwrap();
        assert_eq!(edit(&mut model, json!({ "options": { "com.docker.network.driver.mtu": null } })).unwrap().after.options.len(), 0);
    }
}
