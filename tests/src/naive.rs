//! What networks and sandboxes should do, in plain lists and loops: the daemon and its model are compared with this,
//! step by step, under random operations. It shares nothing with them but the words of errors.

use std::net::Ipv4Addr;

use sim::Random;

/// One thing asked for.
#[derive(Clone, Debug)]
pub enum Op {
    /// `network create`: name, subnet (as text, too), internal.
    CreateNetwork(String, Subnet, bool),
    /// `network rm`.
    RemoveNetwork(String),
    /// `network prune`.
    Prune,
    /// `run`: name, networks with addresses asked for, published ports.
    CreateSandbox(String, Vec<(String, Option<Ipv4Addr>)>, Vec<Port>),
    /// `rm`.
    RemoveSandbox(String),
    /// `network connect`: network, sandbox, address.
    Connect(String, String, Option<Ipv4Addr>),
    /// `network disconnect`: network, sandbox.
    Disconnect(String, String),
    /// `publish add`.
    Publish(String, Port),
    /// `publish rm`.
    Unpublish(String, Port),
}

/// Network address and prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet(pub u32, pub u8);

impl Subnet {
    fn size(self) -> u32 {
        1 << (32 - self.1)
    }

    fn has(self, address: u32) -> bool {
        address >= self.0 && address < self.0 + self.size()
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.0), self.1)
    }
}

/// A published port: of the host, inside, by UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port(pub u16, pub u16, pub bool);

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}/{}", self.0, self.1, if self.2 { "udp" } else { "tcp" })
    }
}

#[derive(Clone, Debug)]
struct Network {
    name: String,
    subnet: Subnet,
    internal: bool,
    last: u32,
}

#[derive(Clone, Debug)]
struct Sandbox {
    name: String,
    /// Network, interface, address.
    members: Vec<(String, String, u32)>,
    ports: Vec<Port>,
}

/// Everything there is.
#[derive(Clone, Debug)]
pub struct Naive {
    networks: Vec<Network>,
    sandboxes: Vec<Sandbox>,
}

/// What happened: nothing to say, or the code of a refusal.
pub type Outcome = Result<(), String>;

fn refused(code: &str) -> Outcome {
    Err(code.into())
}

impl Default for Naive {
    /// As a daemon starts: with the default network.
    fn default() -> Self {
        let bridge = Network { name: "bridge".into(), subnet: Subnet(0xac11_0000, 16), internal: false, last: 0 };
        Self { networks: vec![bridge], sandboxes: vec![] }
    }
}

impl Naive {
    /// Does it, or refuses and changes nothing.
    ///
    /// # Errors
    /// The refusal's code.
    pub fn step(&mut self, op: &Op) -> Outcome {
        let mut next = self.clone();
        next.apply(op)?;
        *self = next;
        Ok(())
    }

    fn apply(&mut self, op: &Op) -> Outcome {
        match op {
            Op::CreateNetwork(name, subnet, internal) => {
                for network in &self.networks {
                    if network.name == *name {
                        return refused("exists");
                    }
                }
                for network in &self.networks {
                    if network.subnet.has(subnet.0) || subnet.has(network.subnet.0) {
                        return refused("conflict");
                    }
                }
                self.networks.push(Network { name: name.clone(), subnet: *subnet, internal: *internal, last: 0 });
            }
            Op::RemoveNetwork(name) => {
                if name == "bridge" {
                    return refused("conflict");
                }
                let at = self.network(name)?;
                if self.is_used(name) {
                    return refused("conflict");
                }
                self.networks.remove(at);
            }
            Op::Prune => {
                let mut kept = vec![];
                for network in self.networks.clone() {
                    if network.name == "bridge" || self.is_used(&network.name) {
                        kept.push(network);
                    }
                }
                self.networks = kept;
            }
            Op::CreateSandbox(name, networks, ports) => {
                for sandbox in &self.sandboxes {
                    if sandbox.name == *name {
                        return refused("exists");
                    }
                }
                self.sandboxes.push(Sandbox { name: name.clone(), members: vec![], ports: vec![] });
                for (network, address) in networks {
                    self.connect(network, name, *address)?;
                }
                for port in ports {
                    self.publish(name, *port)?;
                }
            }
            Op::RemoveSandbox(name) => {
                let at = self.sandbox(name)?;
                self.sandboxes.remove(at);
            }
            Op::Connect(network, sandbox, address) => return self.connect(network, sandbox, *address),
            Op::Disconnect(network, sandbox) => {
                self.network(network)?;
                let at = self.sandbox(sandbox)?;
                for (number, member) in self.sandboxes[at].members.iter().enumerate() {
                    if member.0 == *network {
                        self.sandboxes[at].members.remove(number);
                        return Ok(());
                    }
                }
                return refused("not_found");
            }
            Op::Publish(sandbox, port) => return self.publish(sandbox, *port),
            Op::Unpublish(sandbox, port) => {
                let at = self.sandbox(sandbox)?;
                for (number, other) in self.sandboxes[at].ports.iter().enumerate() {
                    if other == port {
                        self.sandboxes[at].ports.remove(number);
                        return Ok(());
                    }
                }
                return refused("not_found");
            }
        }
        Ok(())
    }

    fn network(&self, name: &str) -> Result<usize, String> {
        for (at, network) in self.networks.iter().enumerate() {
            if network.name == name {
                return Ok(at);
            }
        }
        Err("not_found".into())
    }

    fn sandbox(&self, name: &str) -> Result<usize, String> {
        for (at, sandbox) in self.sandboxes.iter().enumerate() {
            if sandbox.name == name {
                return Ok(at);
            }
        }
        Err("not_found".into())
    }

    fn is_used(&self, network: &str) -> bool {
        self.sandboxes.iter().any(|sandbox| sandbox.members.iter().any(|member| member.0 == network))
    }

    fn connect(&mut self, network: &str, sandbox: &str, asked: Option<Ipv4Addr>) -> Outcome {
        // Whoever is to be connected is looked for first.
        let (at, to) = (self.sandbox(sandbox)?, self.network(network)?);
        for member in &self.sandboxes[at].members {
            if member.0 == network {
                return refused("exists");
            }
        }
        let Network { subnet, last, .. } = self.networks[to];
        let (gateway, broadcast) = (subnet.0 + 1, subnet.0 + subnet.size() - 1);
        let mut used = vec![subnet.0, gateway, broadcast];
        for other in &self.sandboxes {
            for member in &other.members {
                if member.0 == network {
                    used.push(member.2);
                }
            }
        }
        let address = match asked.map(u32::from) {
            Some(address) if !subnet.has(address) || address == subnet.0 || address == broadcast => return refused("invalid"),
            Some(address) if used.contains(&address) => return refused("conflict"),
            Some(address) => address,
            None => {
                // The next after the one handed out last, and from the beginning when there is none.
                let mut address = last.max(gateway);
                let mut tries = 0;
                loop {
                    address = if address >= broadcast { subnet.0 } else { address + 1 };
                    if !used.contains(&address) {
                        break address;
                    }
                    tries += 1;
                    if tries > subnet.size() {
                        return refused("exhausted");
                    }
                }
            }
        };
        self.networks[to].last = address;
        let mut number = 0;
        while self.sandboxes[at].members.iter().any(|member| member.1 == format!("eth{number}")) {
            number += 1;
        }
        self.sandboxes[at].members.push((network.into(), format!("eth{number}"), address));
        Ok(())
    }

    fn publish(&mut self, sandbox: &str, port: Port) -> Outcome {
        let at = self.sandbox(sandbox)?;
        if self.way_out(&self.sandboxes[at]).is_none() {
            return refused("invalid");
        }
        for other in &self.sandboxes {
            for taken in &other.ports {
                if (taken.0, taken.2) == (port.0, port.2) {
                    return refused("conflict");
                }
            }
        }
        self.sandboxes[at].ports.push(port);
        Ok(())
    }

    /// The address that the sandbox's ports lead to.
    fn way_out(&self, sandbox: &Sandbox) -> Option<Ipv4Addr> {
        for (name, _, address) in &sandbox.members {
            for network in &self.networks {
                if network.name == *name && !network.internal {
                    return Some((*address).into());
                }
            }
        }
        None
    }

    /// All that can be seen, a line each, sorted. `listening` is what somebody outside finds open.
    #[must_use]
    pub fn view(&self) -> Vec<String> {
        let mut lines = vec![];
        for network in &self.networks {
            lines.push(format!("network {} {} internal={}", network.name, network.subnet, network.internal));
        }
        for sandbox in &self.sandboxes {
            lines.push(format!("sandbox {}", sandbox.name));
            for (network, ifname, address) in &sandbox.members {
                lines.push(format!("endpoint {}:{ifname} {network} {}", sandbox.name, Ipv4Addr::from(*address)));
            }
            for port in &sandbox.ports {
                lines.push(format!("published {} {port}", sandbox.name));
                if let Some(address) = self.way_out(sandbox) {
                    lines.push(format!("listening {}/{} {} {address}:{}", port.0, if port.2 { "udp" } else { "tcp" }, sandbox.name, port.1));
                }
            }
        }
        lines.sort();
        lines
    }

    /// Something to do next: mostly what can be done, sometimes what cannot.
    pub fn next_op(&self, random: &mut Random) -> Op {
        let pick = |random: &mut Random, count: u64| random.below(count);
        let network = |random: &mut Random| if random.below(8) == 0 { "bridge".to_owned() } else { format!("n{}", random.below(6)) };
        let sandbox = |random: &mut Random| format!("s{}", random.below(8));
        let port = |random: &mut Random| Port(8000 + small(random, 5), 80 + small(random, 2), random.below(3) == 0);
        let address = |random: &mut Random, name: &str| match self.network(name) {
            Ok(at) if random.below(4) == 0 => Some(Ipv4Addr::from(self.networks[at].subnet.0 + u32::from(small(random, 9)))),
            _ if random.below(40) == 0 => Some(Ipv4Addr::new(203, 0, 113, 7)),
            _ => None,
        };
        match pick(random, 100) {
            0..20 => {
                let subnets = [(0x0a01_0000, 24), (0x0a02_0000, 24), (0x0a03_0000, 29), (0x0a03_0008, 29), (0x0a04_0000, 30), (0x0a01_0080, 25), (0x0a00_0000, 8), (0xac11_0000, 24)];
                let (base, prefix) = subnets[usize::from(small(random, 8))];
                Op::CreateNetwork(network(random), Subnet(base, prefix), random.below(4) == 0)
            }
            20..27 => Op::RemoveNetwork(network(random)),
            27..30 => Op::Prune,
            30..52 => {
                let mut networks = vec![];
                for _ in 0..random.below(3) {
                    let name = network(random);
                    let asked = address(random, &name);
                    networks.push((name, asked));
                }
                let ports = (0..random.below(8).saturating_sub(5)).map(|_| port(random)).collect();
                Op::CreateSandbox(sandbox(random), networks, ports)
            }
            52..60 => Op::RemoveSandbox(sandbox(random)),
            60..75 => {
                let name = network(random);
                let asked = address(random, &name);
                Op::Connect(name, sandbox(random), asked)
            }
            75..84 => Op::Disconnect(network(random), sandbox(random)),
            84..95 => Op::Publish(sandbox(random), port(random)),
            _ => match self.sandboxes.iter().flat_map(|sandbox| sandbox.ports.iter().map(|port| (sandbox.name.clone(), *port))).next() {
                Some((name, port)) if random.below(3) > 0 => Op::Unpublish(name, port),
                _ => Op::Unpublish(sandbox(random), port(random)),
            },
        }
    }
}

fn small(random: &mut Random, below: u64) -> u16 {
    u16::try_from(random.below(below)).unwrap_or_default()
}
