//! What is to be, as a whole: the way there from what is, with the least change.
//!
//! Networks and sandboxes that weft made are compared. Namespaces and devices that others attached, and containers made
//! in Docker's way, are left alone, and with them the networks that they are in. So are a cluster's networks, which are all
//! nodes': a file may make one, but its silence takes none away. What leads out of them comes and goes by itself.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    api::{EndpointCreate, NetworkCreate, SandboxCreate},
    cluster::WAY_OUT,
    config::{DEFAULT_NETWORK, DefaultNetwork},
    edit::Difference,
    error::{Code, ControlError, Result},
    model::{Endpoint, EndpointKind, Model, NetnsTarget, Network, Sandbox},
    names::NameOptions,
    publish::{self, PublishRequest, Published},
};

/// `POST /v1/config`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Desired {
    /// As it is when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_network: Option<DefaultNetwork>,
    /// All that there are to be, but for the default one; as they are when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<NetworkCreate>>,
    /// All that there are to be; as they are when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandboxes: Option<Vec<SandboxCreate>>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// By name.
    RemoveSandbox(String),
    /// Sandbox, and ports as `publish rm` takes them.
    Unpublish(String, Vec<String>),
    /// Sandbox and network.
    Disconnect(String, String),
    /// There is to be none.
    RemoveDefaultNetwork,
    /// By name.
    RemoveNetwork(String),
    /// A network that is there.
    EditNetwork(NetworkCreate, Vec<Difference>),
    /// A network.
    CreateNetwork(NetworkCreate),
    /// Sandbox and endpoint.
    Connect(String, EndpointCreate),
    /// Sandbox, and ports as `publish add` takes them.
    Publish(String, Vec<String>),
    /// What a sandbox was told about names.
    Names(String, NameOptions),
    /// A sandbox.
    CreateSandbox(SandboxCreate),
}

/// A step, to be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// `+`, `-` or `~`.
    pub sign: char,
    /// What.
    pub text: String,
}

impl Step {
    /// For people.
    #[must_use]
    pub fn line(&self) -> Line {
        let (sign, text) = match self {
            Self::RemoveSandbox(name) => ('-', format!("sandbox {name}")),
            Self::Unpublish(name, ports) => ('~', format!("sandbox {name}: no longer publishes {}", ports.join(" "))),
            Self::Disconnect(name, network) => ('~', format!("sandbox {name}: leaves network {network}")),
            Self::RemoveDefaultNetwork => ('-', format!("network {DEFAULT_NETWORK}")),
            Self::RemoveNetwork(name) => ('-', format!("network {name}")),
            Self::EditNetwork(request, changes) => ('~', format!("network {}: {}", request.name, changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))),
            Self::CreateNetwork(request) => ('+', format!("network {}", request.name)),
            Self::Connect(name, endpoint) => ('~', format!("sandbox {name}: joins network {}", endpoint.network)),
            Self::Publish(name, ports) => ('~', format!("sandbox {name}: publishes {}", ports.join(" "))),
            Self::Names(name, _) => ('~', format!("sandbox {name}: what it is told about names")),
            Self::CreateSandbox(request) => ('+', format!("sandbox {}", request.name.as_deref().unwrap_or_default())),
        };
        Line { sign, text }
    }
}

impl Model {
    /// The steps from what is to what is desired, in the order in which they are possible.
    ///
    /// # Errors
    /// Naming what contradicts itself, or cannot change while it runs.
    pub fn plan(&self, desired: &Desired) -> Result<Vec<Step>> {
        let mut steps = self.plan_sandboxes_away(desired)?;
        let mut after = self.clone();
        for sandbox in steps.iter().filter_map(|step| if let Step::RemoveSandbox(name) = step { Some(name) } else { None }) {
            after.drop_sandbox(sandbox);
        }
        let (leaving, joining) = self.plan_members(desired)?;
        for (sandbox, network) in leaving.iter().filter_map(|step| if let Step::Disconnect(sandbox, network) = step { Some((sandbox, network)) } else { None }) {
            let (sandbox, network) = (after.sandbox(sandbox)?.id.clone(), after.network(network)?.id.clone());
            if let Some(sandbox) = after.sandboxes.get_mut(&sandbox) {
                sandbox.endpoints.retain(|endpoint| endpoint.network != network);
            }
        }
        steps.extend(leaving);
        steps.extend(after.plan_networks(desired)?);
        steps.extend(joining);
        let new = |request: &&SandboxCreate| self.sandbox_named(request).is_none();
        steps.extend(desired.sandboxes.iter().flatten().filter(new).cloned().map(Step::CreateSandbox));
        self.clone().rehearse(&steps)?;
        Ok(steps)
    }

    /// Does all that is only a matter of the model, so that what must fail does so before anything is done.
    fn rehearse(mut self, steps: &[Step]) -> Result<()> {
        let mut number = 0_u128;
        let mut id = || {
            number += 1;
            format!("{number:064x}")
        };
        for step in steps {
            match step {
                Step::RemoveSandbox(name) => self.drop_sandbox(name),
                Step::Disconnect(sandbox, network) => {
                    let (sandbox, network) = (self.sandbox(sandbox)?.id.clone(), self.network(network)?.id.clone());
                    if let Some(sandbox) = self.sandboxes.get_mut(&sandbox) {
                        sandbox.endpoints.retain(|endpoint| endpoint.network != network);
                    }
                }
                Step::RemoveDefaultNetwork => {
                    let id = self.network(DEFAULT_NETWORK)?.id.clone();
                    if let Some((sandbox, _)) = self.members(&id).next() {
                        return Err(ControlError::new(Code::Conflict, DEFAULT_NETWORK, format!("the default network cannot go: {} is in it", sandbox.name)));
                    }
                    self.networks.remove(&id);
                }
                Step::RemoveNetwork(name) => drop(self.remove_network(name)?),
                Step::EditNetwork(request, _) => drop(self.edit_network(&request.name, request)?),
                Step::CreateNetwork(request) => drop(self.create_network(request, id())?),
                Step::Connect(sandbox, endpoint) => {
                    let sandbox = self.sandbox(sandbox)?.id.clone();
                    self.create_endpoint(&sandbox, endpoint, id(), EndpointKind::Tap)?;
                }
                Step::CreateSandbox(request) => {
                    let sandbox = self.create_sandbox(request, id())?;
                    for endpoint in &request.endpoints {
                        self.create_endpoint(&sandbox, endpoint, id(), EndpointKind::Tap)?;
                    }
                }
                Step::Publish(..) | Step::Unpublish(..) | Step::Names(..) => {}
            }
        }
        Ok(())
    }

    fn drop_sandbox(&mut self, name: &str) {
        let id = self.sandboxes.values().find(|sandbox| sandbox.name == name).map(|sandbox| sandbox.id.clone());
        id.and_then(|id| self.sandboxes.remove(&id));
    }

    fn sandbox_named(&self, request: &SandboxCreate) -> Option<&Sandbox> {
        self.sandboxes.values().find(|sandbox| Some(&sandbox.name) == request.name.as_ref())
    }

    fn plan_sandboxes_away(&self, desired: &Desired) -> Result<Vec<Step>> {
        let Some(wanted) = &desired.sandboxes else { return Ok(Vec::new()) };
        let mut names = BTreeSet::new();
        for request in wanted {
            let name = request.name.as_ref().ok_or_else(|| ControlError::new(Code::Invalid, "sandbox", "a sandbox of a configuration needs a name"))?;
            if !names.insert(name) {
                return Err(ControlError::new(Code::Invalid, name, format!("sandbox {name} is there twice")));
            }
        }
        Ok(self.sandboxes.values().filter(|sandbox| is_made(sandbox) && !names.contains(&sandbox.name)).map(|sandbox| Step::RemoveSandbox(sandbox.name.clone())).collect())
    }

    /// Networks; `self` is without the sandboxes that go.
    fn plan_networks(mut self, desired: &Desired) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        if let Some(default) = &desired.default_network {
            match (default.is_none(), self.network(DEFAULT_NETWORK).is_ok()) {
                (true, true) => steps.push(Step::RemoveDefaultNetwork),
                (true, false) => {}
                (false, true) => steps.extend(self.plan_edit(&default.request()?)?),
                (false, false) => steps.push(Step::CreateNetwork(default.request()?)),
            }
        }
        let Some(wanted) = &desired.networks else { return Ok(steps) };
        let mut names = BTreeSet::from([DEFAULT_NETWORK]);
        if let Some(twice) = wanted.iter().find(|request| !names.insert(&request.name)) {
            return Err(ControlError::new(Code::Invalid, &twice.name, format!("network {} is there twice, or is the default one, which has [default-network]", twice.name)));
        }
        let is_ours = |network: &&Network| !network.is_global() && network.name != WAY_OUT;
        let is_gone = |network: &&Network| is_ours(network) && !names.contains(network.name.as_str()) && self.members(&network.id).next().is_none();
        let gone: Vec<String> = self.networks.values().filter(is_gone).map(|network| network.name.clone()).collect();
        self.networks = self.networks.iter().filter(|(_, network)| !gone.contains(&network.name)).map(|(id, network)| (id.clone(), network.clone())).collect();
        // Those that go make room for those that come.
        steps.splice(0..0, gone.into_iter().map(Step::RemoveNetwork));
        for request in wanted {
            match self.network(&request.name) {
                Ok(_) => steps.extend(self.plan_edit(request)?),
                Err(_) => steps.push(Step::CreateNetwork(request.clone())),
            }
        }
        Ok(steps)
    }

    fn plan_edit(&mut self, request: &NetworkCreate) -> Result<Option<Step>> {
        let changes = self.edit_network(&request.name, request)?.differences();
        Ok((!changes.is_empty()).then(|| Step::EditNetwork(request.clone(), changes)))
    }

    /// What sandboxes that stay leave, and what they join.
    fn plan_members(&self, desired: &Desired) -> Result<(Vec<Step>, Vec<Step>)> {
        let (mut leaving, mut joining) = (Vec::new(), Vec::new());
        for request in desired.sandboxes.iter().flatten() {
            let Some(sandbox) = self.sandbox_named(request) else { continue };
            let name = &sandbox.name;
            if !is_made(sandbox) {
                return Err(ControlError::new(Code::Conflict, name, format!("{name} was not made by a configuration: it is attached, or a container")).hint("give the sandbox another name"));
            }
            check_unchanged(sandbox, request)?;
            for endpoint in &sandbox.endpoints {
                let network = self.networks.get(&endpoint.network).map_or(endpoint.network.as_str(), |network| network.name.as_str());
                let wanted = request.endpoints.iter().find(|wanted| wanted.network == network);
                if wanted.is_none() && self.is_way_out(sandbox, endpoint) {
                    continue;
                }
                if wanted.is_none_or(|wanted| !fits(endpoint, wanted)) {
                    leaving.push(Step::Disconnect(name.clone(), network.into()));
                    joining.extend(wanted.map(|wanted| Step::Connect(name.clone(), wanted.clone())));
                }
            }
            let is_in = |wanted: &&EndpointCreate| sandbox.endpoints.iter().any(|endpoint| self.networks.get(&endpoint.network).is_some_and(|network| network.name == wanted.network));
            joining.extend(request.endpoints.iter().filter(|wanted| !is_in(wanted)).map(|wanted| Step::Connect(name.clone(), wanted.clone())));
            let (gone, new) = ports(sandbox, request)?;
            leaving.extend((!gone.is_empty()).then(|| Step::Unpublish(name.clone(), gone)));
            joining.extend((!new.is_empty()).then(|| Step::Publish(name.clone(), new)));
            let names = NameOptions::of(request)?;
            joining.extend((names != sandbox.names).then(|| Step::Names(name.clone(), names)));
        }
        Ok((leaving, joining))
    }
}

/// A sandbox of ours that runs a command.
fn is_made(sandbox: &Sandbox) -> bool {
    sandbox.netns == NetnsTarget::New && sandbox.container.is_none()
}

/// What only a new process can have.
fn check_unchanged(sandbox: &Sandbox, request: &SandboxCreate) -> Result<()> {
    let hostname = request.hostname.as_ref().or(request.name.as_ref());
    let changed = [
        ("command", sandbox.command != request.command),
        ("env", sandbox.env != request.env),
        ("hostname", hostname.is_some_and(|name| name.len() <= 64) && sandbox.hostname.as_ref() != hostname),
    ];
    match changed.iter().find(|(_, changed)| *changed) {
        Some((what, _)) => Err(ControlError::new(Code::Conflict, &sandbox.name, format!("sandbox {}: {what} cannot change while it runs", sandbox.name))
            .hint(format!("`weft rm -f {}` ends it, and applying starts it anew", sandbox.name))),
        None => Ok(()),
    }
}

/// Whether an endpoint is as it would be made.
fn fits(endpoint: &Endpoint, wanted: &EndpointCreate) -> bool {
    let has = |ip: std::net::IpAddr| endpoint.addresses.iter().any(|own| own.ip() == ip);
    wanted.ip.is_none_or(|ip| has(ip.into()))
        && wanted.ip6.is_none_or(|ip| has(ip.into()))
        && wanted.mac.as_ref().is_none_or(|mac| mac.eq_ignore_ascii_case(&endpoint.mac))
        && wanted.ifname.as_ref().is_none_or(|name| *name == endpoint.ifname)
        && wanted.kind.is_none_or(|kind| kind == endpoint.kind)
        && wanted.mtu.is_none_or(|mtu| mtu == endpoint.mtu)
        && wanted.guard.unwrap_or(true) == endpoint.guard
        && (!wanted.isolated || endpoint.isolated)
        && (&wanted.vlan, wanted.horizon, &wanted.aliases) == (&endpoint.vlan, endpoint.horizon, &endpoint.aliases)
}

/// Ports that are published and not wanted, and the other way round.
fn ports(sandbox: &Sandbox, request: &SandboxCreate) -> Result<(Vec<String>, Vec<String>)> {
    let mut left = sandbox.publishes.clone();
    let mut missing = Vec::new();
    for spec in &request.publish {
        for wanted in publish::parse(spec)? {
            let is_it = |published: &Published| {
                (published.host_ip, published.port, published.protocol) == (wanted.host_ip, wanted.port, wanted.protocol)
                    && wanted.host_ports.is_none_or(|(first, last)| (first..=last).contains(&published.host_port))
            };
            match left.iter().position(is_it) {
                Some(at) => drop(left.swap_remove(at)),
                None => missing.push(wanted.to_string()),
            }
        }
    }
    let shown = |Published { host_ip, host_port, port, protocol }: &Published| PublishRequest { host_ip: *host_ip, host_ports: Some((*host_port, *host_port)), port: *port, protocol: *protocol }.to_string();
    Ok((left.iter().map(shown).collect(), missing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpFile;

    const FILE: &str = "[[network]]\nname = \"lab\"\nsubnet = \"10.9.0.0/24\"\n[[sandbox]]\nname = \"a\"\nendpoint = [{ network = \"lab\", ip = \"10.9.0.5\" }]\ncommand = [\"sleep\", \"9\"]\npublish = [\"8080:80\", \"53/udp\"]\n";

    fn desired(text: &str) -> Desired {
        UpFile::parse(text).unwrap().desired()
    }

    /// As if the file had been applied to nothing.
    fn model() -> Model {
        let mut model = Model::default();
        model.create_network(&NetworkCreate { name: "bridge".into(), ..NetworkCreate::default() }, "0".repeat(64)).unwrap();
        let wanted = desired(FILE);
        for network in wanted.networks.unwrap() {
            model.create_network(&network, "1".repeat(64)).unwrap();
        }
        for sandbox in wanted.sandboxes.unwrap() {
            let id = model.create_sandbox(&sandbox, "2".repeat(64)).unwrap();
            for endpoint in &sandbox.endpoints {
                model.create_endpoint(&id, endpoint, "3".repeat(64), EndpointKind::Tap).unwrap();
            }
            let stored = model.sandboxes.get_mut(&id).unwrap();
            stored.publishes = [(8080, 80, publish::Protocol::Tcp), (40_000, 53, publish::Protocol::Udp)].map(|(host_port, port, protocol)| Published { host_ip: None, host_port, port, protocol }).into();
        }
        model
    }

    fn lines(text: &str) -> Vec<String> {
        model().plan(&desired(text)).unwrap().iter().map(|step| format!("{} {}", step.line().sign, step.line().text)).collect()
    }

    #[test]
    fn the_same_is_no_change() {
        assert_eq!(model().plan(&desired(FILE)).unwrap(), []);
        assert_eq!(model().plan(&Desired::default()).unwrap(), [], "what is not said stays");
    }

    #[test]
    fn the_least_change() {
        assert_eq!(lines(&FILE.replace("10.9.0.0/24\"", "10.9.0.0/16\"\nmtu = 1400")), ["~ network lab: mtu: 1500 -> 1400, subnets: 10.9.0.0/24 -> 10.9.0.0/16"]);
        assert_eq!(lines(&FILE.replace("\"53/udp\"", "\"81:81\"")), ["~ sandbox a: no longer publishes 40000:53/udp", "~ sandbox a: publishes 81:81/tcp"]);
        assert_eq!(lines(&FILE.replace("10.9.0.5", "10.9.0.6")), ["~ sandbox a: leaves network lab", "~ sandbox a: joins network lab"]);
        assert_eq!(lines(&format!("{FILE}dns = [\"9.9.9.9\"]\n")), ["~ sandbox a: what it is told about names"]);
        assert_eq!(lines(&format!("{FILE}[[network]]\nname = \"more\"\n[[sandbox]]\nname = \"b\"\nendpoint = [{{ network = \"more\" }}]\ncommand = [\"x\"]\n")), ["+ network more", "+ sandbox b"]);
        assert_eq!(lines(""), ["- sandbox a", "- network lab"]);
        assert_eq!(lines(&format!("{FILE}[default-network]\nmtu = 1300\n")), ["~ network bridge: mtu: 1500 -> 1300"]);
        assert_eq!(lines(&format!("{FILE}[default-network]\nbridge = \"none\"\n")), ["- network bridge"]);
        // Into another network: out of the one that goes, into the one that comes.
        assert_eq!(lines(&FILE.replace("\"lab\"", "\"new\"")), ["~ sandbox a: leaves network lab", "- network lab", "+ network new", "~ sandbox a: joins network new"]);
    }

    #[test]
    fn what_others_made_is_left_alone() {
        let mut model = model();
        let id = model.create_sandbox(&SandboxCreate { name: Some("mine".into()), netns: NetnsTarget::Name("mine".into()), ..SandboxCreate::default() }, "4".repeat(64)).unwrap();
        model.create_endpoint(&id, &EndpointCreate { network: "lab".into(), ..EndpointCreate::default() }, "5".repeat(64), EndpointKind::Tap).unwrap();
        let steps = model.plan(&desired("")).unwrap();
        assert_eq!(steps, [Step::RemoveSandbox("a".into())], "its network stays with it");
        let error = model.plan(&desired(&FILE.replace("name = \"a\"", "name = \"mine\""))).unwrap_err();
        assert!(error.message.contains("mine"));
    }

    /// A shared network is other nodes' too, which may be in it; and its members' way out comes and goes with it.
    #[test]
    fn a_cluster_s_networks_stay_unless_a_file_names_them() {
        let file = format!("{FILE}[[network]]\nname = \"wide\"\ndriver = \"overlay\"\n").replace("}]", "}, { network = \"wide\" }]").replace("subnet =", "internal = true\nsubnet =");
        let mut model = Model::default();
        let wide = NetworkCreate { name: "wide".into(), driver: Some("overlay".into()), global: Some(true), ..NetworkCreate::default() };
        let others = NetworkCreate { name: "others".into(), ..wide.clone() };
        let wanted = desired(&file);
        for (number, network) in [wide, others, NetworkCreate { name: WAY_OUT.into(), isolated_default: true, ..NetworkCreate::default() }].iter().chain(&wanted.networks.as_ref().unwrap()[..1]).enumerate() {
            model.create_network(network, format!("{number:064}")).unwrap();
        }
        let mut sandbox = wanted.sandboxes.clone().unwrap().remove(0);
        sandbox.publish.clear();
        let id = model.create_sandbox(&sandbox, "a".repeat(64)).unwrap();
        for (number, endpoint) in sandbox.endpoints.iter().chain([&EndpointCreate { network: WAY_OUT.into(), ..EndpointCreate::default() }]).enumerate() {
            model.create_endpoint(&id, endpoint, format!("b{number:063}"), EndpointKind::Tap).unwrap();
        }
        let wanted = Desired { sandboxes: Some(vec![sandbox]), ..wanted };
        assert_eq!(model.plan(&wanted).unwrap(), [], "neither of what others made, nor of what comes by itself");
        let texts: Vec<_> = model.plan(&desired("")).unwrap().iter().map(|step| step.line().text).collect();
        assert_eq!(texts, ["sandbox a", "network lab"]);
    }

    #[test]
    fn what_cannot_change_is_refused_by_name() {
        for (text, parts) in [
            (FILE.replace("\"9\"", "\"10\""), ["sandbox a", "command"]),
            (format!("{FILE}env = {{ A = \"b\" }}\n"), ["sandbox a", "env"]),
            (format!("{FILE}hostname = \"h\"\n"), ["sandbox a", "hostname"]),
            (FILE.replace("10.9.0.0/24", "10.8.0.0/24"), ["10.9.0.5", "subnet"]),
            (FILE.replace("subnet =", "internal = true\nsubnet ="), ["internal", "a is in it"]),
            (format!("{FILE}[[network]]\nname = \"bridge\"\n"), ["bridge", "default-network"]),
            (format!("{FILE}[[network]]\nname = \"x\"\nsubnet = \"10.9.0.0/16\"\n"), ["10.9.0.0/16", "overlaps"]),
            (format!("{FILE}[[sandbox]]\nname = \"b\"\nendpoint = [{{ network = \"lab\", ip = \"10.9.0.5\" }}]\n"), ["10.9.0.5", "in use"]),
        ] {
            let error = model().plan(&desired(&text)).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
