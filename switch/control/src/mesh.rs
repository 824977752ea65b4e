//! The routing mesh: ports of services that every node of a cluster answers, whichever node has a replica.
//!
//! A replica is a sandbox in the cluster's ingress network that publishes a port without naming an address of the host. Its
//! service is the first one it joined with `--vip`, else its first alias there, else itself; all that say the same serve
//! together. Which service has a port is a claim in the store (`cluster/mesh.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Code, ControlError, Result},
    model::{Endpoint, Model, Network, Sandbox},
    publish::{Protocol, PublishRequest, Published},
};

/// Ports to choose from when none is named, as Docker's services have them.
const DYNAMIC: (u16, u16) = (30_000, 32_767);

/// What a replica serves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MeshPort {
    /// The service.
    pub service: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port of all nodes.
    pub port: u16,
    /// The port of the replica.
    pub target: u16,
}

impl MeshPort {
    /// What the cluster is asked for.
    #[must_use]
    pub fn claim(&self) -> MeshClaim {
        MeshClaim { protocol: self.protocol, port: self.port, service: self.service.clone() }
    }
}

/// Whose a port of all nodes is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MeshClaim {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
    /// The service.
    pub service: String,
}

impl MeshClaim {
    /// The port, as `tcp/8080`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}/{}", self.protocol, self.port)
    }
}

/// Who has a port of all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshService {
    /// Its name.
    pub name: String,
    /// Who answers, in an order that all nodes have.
    pub replicas: Vec<MeshReplica>,
}

/// Who answers for a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MeshReplica {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its address on the link.
    pub mac: String,
    /// Its port.
    pub target: u16,
    /// Its sandbox.
    pub sandbox: String,
    /// The node that it is on, if that is another.
    pub node: Option<String>,
}

fn taken(port: u16, service: &MeshService) -> ControlError {
    ControlError::new(Code::Conflict, port.to_string(), format!("port '{port}' is already in use by service '{}' as an ingress port", service.name))
        .hint(format!("choose another port, or let the sandbox join that service with --network-alias {}", service.name))
}

/// Services by port.
pub type MeshServices = BTreeMap<(Protocol, u16), MeshService>;

/// The service that has a port which is not that of `port`.
fn other_service<'a>(services: &'a MeshServices, port: &MeshPort) -> Option<&'a MeshService> {
    services.get(&(port.protocol, port.port)).filter(|service| service.name != port.service)
}

impl Model {
    /// The network of the mesh, if there is one.
    #[must_use]
    pub fn mesh_network(&self) -> Option<&Network> {
        self.networks.values().find(|network| network.is_mesh())
    }

    /// Whether ports that are published without an address of the host are those of all nodes.
    #[must_use]
    pub fn is_meshed(&self, endpoint: &Endpoint) -> bool {
        self.networks.get(&endpoint.network).is_some_and(|network| network.is_mesh() && network.host_binding.is_none())
    }

    /// What an endpoint serves in the mesh.
    #[must_use]
    pub fn mesh_ports(&self, sandbox: &Sandbox, endpoint: &Endpoint) -> BTreeSet<MeshPort> {
        if !self.is_meshed(endpoint) || self.publishing_endpoint(sandbox).is_none_or(|own| own.id != endpoint.id) {
            return BTreeSet::new();
        }
        let service = service_of(sandbox, endpoint);
        let meshed = sandbox.publishes.iter().filter(|published| published.host_ip.is_none());
        meshed.map(|published| MeshPort { service: service.clone(), protocol: published.protocol, port: published.host_port, target: published.port }).collect()
    }

    /// Ports of all nodes, with who answers for them: nobody while all replicas are down. Where two services came to one port (one
    /// while the other's node could not be heard), it is that one's which has the claim; all nodes see the same.
    #[must_use]
    pub fn mesh_services(&self) -> MeshServices {
        let Some(network) = self.mesh_network() else { return BTreeMap::new() };
        let ends = |addresses: &[IpNetwork]| addresses.iter().map(IpNetwork::ip).collect::<Vec<_>>();
        let here = self.members(&network.id).map(|(sandbox, endpoint)| {
            let replica = MeshReplica { addresses: ends(&endpoint.addresses), mac: endpoint.mac.clone(), target: 0, sandbox: sandbox.name.clone(), node: None };
            (self.mesh_ports(sandbox, endpoint), endpoint.up, replica)
        });
        let elsewhere = self.remote_members(&network.id).map(|(_, endpoint)| {
            let replica = MeshReplica { addresses: ends(&endpoint.addresses), mac: endpoint.mac.clone(), target: 0, sandbox: endpoint.name.clone(), node: Some(endpoint.node.clone()) };
            (endpoint.mesh.clone(), endpoint.up, replica)
        });
        // Who has no claim counts where nobody has one.
        let rank = |port: &MeshPort| (self.elsewhere.mesh.get(&port.claim().id()) != Some(&port.claim()), port.service.clone());
        let mut services = BTreeMap::<_, ((bool, String), MeshService)>::new();
        for (ports, is_up, replica) in here.chain(elsewhere) {
            for port in ports {
                let rank = rank(&port);
                let new = || (rank.clone(), MeshService { name: port.service.clone(), replicas: Vec::new() });
                let (held, service) = services.entry((port.protocol, port.port)).or_insert_with(new);
                if rank < *held {
                    (*held, *service) = new();
                }
                if is_up && service.name == port.service {
                    service.replicas.push(MeshReplica { target: port.target, ..replica.clone() });
                }
            }
        }
        services.into_iter().map(|(port, (_, mut service))| {
            service.replicas.sort();
            (port, service)
        }).collect()
    }

    /// Sandboxes here whose port another service took while this node could not be heard: with that service.
    #[must_use]
    pub fn mesh_latecomers(&self, services: &MeshServices) -> BTreeMap<(String, MeshPort), String> {
        let Some(network) = self.mesh_network() else { return BTreeMap::new() };
        let here = self.members(&network.id).flat_map(|(sandbox, endpoint)| self.mesh_ports(sandbox, endpoint).into_iter().map(|port| (sandbox.name.clone(), port)));
        here.filter_map(|(sandbox, port)| other_service(services, &port).map(|other| other.name.clone()).map(|other| ((sandbox, port), other))).collect()
    }

    /// The port of all nodes for what a sandbox is to publish by `endpoint`.
    ///
    /// # Errors
    /// When another service has it, or all.
    pub fn choose_mesh_port(&self, sandbox: &Sandbox, endpoint: &Endpoint, request: &PublishRequest) -> Result<u16> {
        let services = self.mesh_services();
        let own = service_of(sandbox, endpoint);
        let fellow = services.iter().find(|((protocol, _), service)| *protocol == request.protocol && service.name == own && service.replicas.iter().any(|replica| replica.target == request.port));
        if let (None, Some(((_, port), _))) = (request.host_ports, fellow) {
            return Ok(*port);
        }
        let (first, last) = request.host_ports.unwrap_or(DYNAMIC);
        let mut why = None;
        for port in first..=last {
            match self.check_mesh_port(sandbox, &own, &services, (request.protocol, port)) {
                Ok(()) => return Ok(port),
                Err(error) => why = why.or(Some(error)),
            }
        }
        Err(why.unwrap_or_else(|| ControlError::new(Code::Exhausted, &own, "no port is left for services")))
    }

    fn check_mesh_port(&self, sandbox: &Sandbox, own: &str, services: &MeshServices, (protocol, port): (Protocol, u16)) -> Result<()> {
        if let Some(service) = services.get(&(protocol, port)).filter(|service| service.name != own) {
            return Err(taken(port, service));
        }
        let is_same = |published: &&Published| published.protocol == protocol && published.host_port == port;
        let alone = |other: &&Sandbox| other.id != sandbox.id && other.publishes.iter().filter(is_same).any(|published| published.host_ip.is_some() || !self.publishing_endpoint(other).is_some_and(|endpoint| self.is_meshed(endpoint)));
        let same = sandbox.publishes.iter().filter(is_same).count();
        if same > 0 || self.sandboxes.values().any(|other| alone(&other)) {
            return Err(ControlError::new(Code::Conflict, port.to_string(), format!("Bind for 0.0.0.0:{port} failed: port is already allocated")).hint("choose another host port, or `weft publish rm` what has it"));
        }
        Ok(())
    }

    /// What a sandbox publishes by the mesh is still its service's, after others were heard.
    ///
    /// # Errors
    /// When another service came first.
    pub fn check_mesh(&self, sandbox: &Sandbox, endpoint: &Endpoint) -> Result<()> {
        let services = self.mesh_services();
        let other = self.mesh_ports(sandbox, endpoint).into_iter().find_map(|port| other_service(&services, &port).map(|service| taken(port.port, service)));
        other.map_or(Ok(()), Err)
    }
}

fn service_of(sandbox: &Sandbox, endpoint: &Endpoint) -> String {
    let alias = endpoint.aliases.iter().find(|alias| !alias.eq_ignore_ascii_case(&sandbox.name));
    endpoint.vips.first().or(alias).unwrap_or(&sandbox.name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        EndpointKind,
        api::{EndpointCreate, NetworkCreate, SandboxCreate},
        publish,
    };

    fn id(number: u32) -> String {
        format!("{number:064x}")
    }

    fn model() -> Model {
        let mut model = Model::default();
        let request = NetworkCreate { name: "mesh".into(), driver: Some("overlay".into()), global: Some(true), ingress: true, ..NetworkCreate::default() };
        model.create_network(&request, id(1)).unwrap();
        model
    }

    /// A sandbox that publishes by the mesh, as the daemon does it.
    fn start(model: &mut Model, number: u32, name: &str, alias: Option<&str>, specs: &[&str]) -> Result<Vec<u16>> {
        let mut changed = model.clone();
        let own = changed.create_sandbox(&SandboxCreate { name: Some(name.into()), ..SandboxCreate::default() }, id(number))?;
        let request = EndpointCreate { network: "mesh".into(), aliases: alias.into_iter().map(str::to_owned).collect(), ..EndpointCreate::default() };
        let endpoint = changed.create_endpoint(&own, &request, id(number + 1000), EndpointKind::Tap)?;
        for spec in specs {
            for request in publish::parse(spec)? {
                let host_port = changed.choose_mesh_port(&changed.sandboxes[&own], &endpoint, &request)?;
                let published = Published { host_ip: None, host_port, port: request.port, protocol: request.protocol };
                changed.sandboxes.get_mut(&own).unwrap().publishes.push(published);
            }
        }
        let ports = changed.sandboxes[&own].publishes.iter().map(|published| published.host_port).collect();
        *model = changed;
        Ok(ports)
    }

    #[test]
    fn x5_replicas_of_one_service_share_a_port() {
        let mut model = model();
        start(&mut model, 10, "w1", Some("web"), &["8080:80"]).unwrap();
        start(&mut model, 11, "w2", Some("web"), &["8080:80"]).unwrap();
        start(&mut model, 12, "alone", None, &["9000:90/udp"]).unwrap();
        let services = model.mesh_services();
        let web = &services[&(Protocol::Tcp, 8080)];
        assert_eq!((web.name.as_str(), web.replicas.len(), services.len()), ("web", 2, 2));
        assert_eq!(services[&(Protocol::Udp, 9000)].name, "alone");
        // They leave by the mesh's gateway, and need no other way out.
        let sandbox = model.sandbox("w1").unwrap();
        assert!(!sandbox.endpoints[0].gateways.is_empty() && !model.lacks_way_out(&sandbox.id));
    }

    #[test]
    fn x5_who_came_late_is_known() {
        let mut model = model();
        start(&mut model, 10, "w1", Some("web"), &["8080:80"]).unwrap();
        assert!(model.mesh_latecomers(&model.mesh_services()).is_empty());
        start(&mut model, 11, "a1", Some("api"), &["8081:80"]).unwrap();
        // As of two nodes that chose at once.
        let late = model.sandbox("w1").unwrap().id.clone();
        model.sandboxes.get_mut(&late).unwrap().publishes[0].host_port = 8081;
        let all = model.mesh_latecomers(&model.mesh_services());
        assert_eq!(all.iter().map(|((sandbox, port), other)| (sandbox.as_str(), port.port, other.as_str())).collect::<Vec<_>>(), [("w1", 8081, "api")]);
    }

    #[test]
    fn x5_a_port_is_of_one_service() {
        let mut model = model();
        start(&mut model, 10, "w1", Some("web"), &["8080:80"]).unwrap();
        let error = start(&mut model, 11, "other", None, &["8080:80"]).unwrap_err();
        assert!(error.code == Code::Conflict && error.message == "port '8080' is already in use by service 'web' as an ingress port", "{error}");
        assert!(start(&mut model, 11, "x", None, &["7000:80", "7000:81"]).unwrap_err().message.contains("7000"));
        // A free one of a range; and of all, which a fellow shares.
        assert_eq!(start(&mut model, 11, "y", None, &["8080-8081:80"]).unwrap(), [8081]);
        assert_eq!(start(&mut model, 12, "z1", Some("z"), &["80"]).unwrap(), [30_000]);
        assert_eq!(start(&mut model, 13, "z2", Some("z"), &["80", "81"]).unwrap(), [30_000, 30_001]);
    }
}
