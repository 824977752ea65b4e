//! The pure model under random operations, beside a naive one. A restart is its journal read again; to die is to
//! leave the journal's last line torn. SPEC rows: C1, C3, N4 (the part that has no devices).

use control::{
    Code, ControlError, EndpointKind, Journal, Model, Published, decode,
    api::{EndpointCreate, NetworkCreate, SandboxCreate},
    publish,
};
use sim::Random;
use weft_tests::{
    naive::{Op, Outcome},
    operations::{World, compare},
};

/// Seeds to run, or the one of WEFT_MODEL_SEED.
const SEEDS: u64 = 1000;

#[test]
fn a_thousand_seeds_of_random_operations_beside_a_naive_model() {
    let one = std::env::var("WEFT_MODEL_SEED").ok().and_then(|text| text.parse().ok());
    let seeds = one.map_or(0..SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        compare(seed, &mut Pure::new(), &format!("WEFT_MODEL_SEED={seed} cargo test -p weft-tests --test sim model"));
    }
}

/// What a daemon keeps, without what it does.
struct Pure {
    model: Model,
    journal: Journal,
    file: Vec<u8>,
    ids: u64,
}

impl Pure {
    fn new() -> Self {
        let mut model = Model::default();
        model.create_network(&NetworkCreate { name: "bridge".into(), ..NetworkCreate::default() }, format!("{:064x}", 0)).expect("the default network");
        let (journal, file) = Journal::begin(&model).expect("JSON");
        Self { model, journal, file, ids: 1 }
    }

    /// Spread as random ones are, and as repeatable as the rest.
    fn id(&mut self) -> String {
        self.ids += 1;
        format!("{:016x}", self.ids.wrapping_mul(0x9e37_79b9_7f4a_7c15)).repeat(4)
    }

    fn attempt(&mut self, op: &Op) -> Result<Model, ControlError> {
        let mut model = self.model.clone();
        match op {
            Op::CreateNetwork(name, subnet, internal) => {
                let request = NetworkCreate { name: name.clone(), subnets: vec![subnet.to_string().parse().expect("a subnet")], internal: *internal, ..NetworkCreate::default() };
                model.create_network(&request, self.id())?;
            }
            Op::RemoveNetwork(name) => drop(model.remove_network(name)?),
            Op::Prune => {
                let used = self.model.networks_in_use();
                for network in self.model.networks.values().filter(|network| network.name != "bridge" && !used.contains(network.id.as_str())) {
                    model.remove_network(&network.id)?;
                }
            }
            Op::CreateSandbox(name, networks, ports) => {
                let id = model.create_sandbox(&SandboxCreate { name: Some(name.clone()), ..SandboxCreate::default() }, self.id())?;
                for (network, ip) in networks {
                    model.create_endpoint(&id, &EndpointCreate { network: network.clone(), ip: *ip, ..EndpointCreate::default() }, self.id(), EndpointKind::Tap)?;
                }
                for port in ports {
                    publish_one(&mut model, name, &port.to_string())?;
                }
            }
            Op::RemoveSandbox(name) => {
                let id = model.sandbox(name)?.id.clone();
                model.sandboxes.remove(&id);
            }
            Op::Connect(network, sandbox, ip) => {
                let id = model.sandbox(sandbox)?.id.clone();
                model.create_endpoint(&id, &EndpointCreate { network: network.clone(), ip: *ip, ..EndpointCreate::default() }, self.id(), EndpointKind::Tap)?;
            }
            Op::Disconnect(network, sandbox) => {
                let (network, sandbox) = (model.network(network)?.id.clone(), model.sandbox(sandbox)?.clone());
                let endpoint = sandbox.endpoints.iter().find(|endpoint| endpoint.network == network);
                let endpoint = endpoint.ok_or_else(|| ControlError::new(Code::NotFound, &sandbox.name, "not connected"))?;
                model.remove_endpoint(&sandbox.id, &endpoint.id);
            }
            Op::Publish(sandbox, port) => publish_one(&mut model, sandbox, &port.to_string())?,
            Op::Unpublish(sandbox, port) => drop(model.unpublish(sandbox, &[port.to_string()])?),
        }
        Ok(model)
    }

    fn saved(&self, model: &Model) -> (Journal, Vec<u8>) {
        self.journal.change(model).expect("JSON")
    }

    /// As a daemon starts: from the file, which it then writes anew.
    fn start(&mut self) {
        self.model = decode(&self.file).expect("what was written");
        (self.journal, self.file) = Journal::begin(&self.model).expect("JSON");
    }
}

/// Listeners are the host's part: here they are free whenever the model says so.
fn publish_one(model: &mut Model, sandbox: &str, spec: &str) -> Result<(), ControlError> {
    let sandbox = model.sandbox(sandbox)?.clone();
    if model.publishing_endpoint(&sandbox).is_none() {
        return Err(ControlError::new(Code::Invalid, spec, "no way out"));
    }
    for request in publish::parse(spec)? {
        let host_port = request.host_ports.map(|(first, _)| first).expect("operations name it");
        let own = sandbox.publishes.iter().any(|own| (own.host_port, own.protocol) == (host_port, request.protocol));
        if own || model.is_published(&sandbox.id, request.host_ip, host_port, request.protocol) {
            return Err(ControlError::new(Code::Conflict, spec, "already allocated"));
        }
        let published = Published { host_ip: request.host_ip, host_port, port: request.port, protocol: request.protocol };
        model.sandboxes.get_mut(&sandbox.id).expect("it is there").publishes.push(published);
    }
    Ok(())
}

fn code(error: &ControlError) -> String {
    serde_json::to_value(error.code).ok().and_then(|code| code.as_str().map(str::to_owned)).unwrap_or_default()
}

impl World for Pure {
    fn step(&mut self, op: &Op) -> Outcome {
        let model = self.attempt(op).map_err(|error| code(&error))?;
        let (journal, bytes) = if self.journal.is_long() { Journal::begin(&model).expect("JSON") } else { self.saved(&model) };
        if self.journal.is_long() {
            self.file.clear();
        }
        self.file.extend(bytes);
        (self.model, self.journal) = (model, journal);
        assert_eq!(self.file.len(), self.journal.length());
        Ok(())
    }

    fn view(&mut self) -> Vec<String> {
        let (model, mut lines) = (&self.model, Vec::new());
        for network in model.networks.values() {
            lines.push(format!("network {} {} internal={}", network.name, network.pools[0].subnet, network.internal));
        }
        for sandbox in model.sandboxes.values() {
            lines.push(format!("sandbox {}", sandbox.name));
            for endpoint in &sandbox.endpoints {
                lines.push(format!("endpoint {} {} {}", control::port_name(sandbox, endpoint), model.networks[&endpoint.network].name, endpoint.addresses[0].ip()));
            }
            for port in &sandbox.publishes {
                lines.push(format!("published {} {}:{}/{}", sandbox.name, port.host_port, port.port, port.protocol));
                if let Some(endpoint) = model.publishing_endpoint(sandbox) {
                    lines.push(format!("listening {}/{} {} {}:{}", port.host_port, port.protocol, sandbox.name, endpoint.addresses[0].ip(), port.port));
                }
            }
        }
        lines.sort();
        lines
    }

    fn restart(&mut self) {
        self.start();
    }

    fn die_in(&mut self, op: &Op, random: &mut Random) -> Option<Outcome> {
        let attempted = self.attempt(op);
        let outcome = match attempted {
            Err(error) => Some(Err(code(&error))),
            Ok(model) => {
                let (_, bytes) = self.saved(&model);
                let written = usize::try_from(random.below(bytes.len() as u64 + 1)).expect("small");
                self.file.extend(&bytes[..written]);
                None
            }
        };
        self.start();
        outcome
    }
}
