//! What a sandbox is, and how one is defined and renamed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Endpoint, Model, check_object_name, invalid};
use crate::{
    api::{EndpointCreate, SandboxCreate},
    container::{Container, Phase},
    error::{Code, ControlError, Result},
    names::{NameOptions, options::check_host},
    publish::Published,
};

/// Whose network namespace a sandbox is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetnsTarget {
    /// A new one, ours.
    #[default]
    New,
    /// The host's.
    Host,
    /// By `ip netns` name.
    Name(String),
    /// Of a process.
    Pid(i32),
    /// By path.
    Path(String),
    /// No namespace: a device of the host joins.
    Device(String),
}

/// A process of a sandbox; pid and start time name one process while the machine is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Clock ticks since boot.
    pub start: u64,
}

/// A sandbox: a network namespace, ours or another's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// 64 hex digits.
    pub id: String,
    /// Unique name.
    pub name: String,
    /// Whose namespace.
    pub netns: NetnsTarget,
    /// Device and inode of the namespace, once known: a name or pid may come to mean another.
    pub identity: Option<(u64, u64)>,
    /// What it was asked to run.
    pub command: Vec<String>,
    /// Added to the environment.
    pub env: BTreeMap<String, String>,
    /// Host name inside.
    pub hostname: Option<String>,
    /// Remove when the process ends.
    pub auto_remove: bool,
    /// Its process, while it runs.
    pub process: Option<Process>,
    /// Its networks.
    pub endpoints: Vec<Endpoint>,
    /// Its published ports.
    #[serde(default)]
    pub publishes: Vec<Published>,
    /// What it was told about names.
    #[serde(default)]
    pub names: NameOptions,
    /// Nanoseconds since 1970.
    #[serde(default)]
    pub created_ns: u64,
    /// What it is in Docker's way, if it was made so; then it stays when its process ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
}

impl Sandbox {
    /// Whether the namespace is ours to make and remove.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.netns == NetnsTarget::New
    }

    /// What its process writes is kept: weft started that.
    #[must_use]
    pub fn is_logged(&self) -> bool {
        self.container.is_some() || !self.command.is_empty()
    }

    /// Its name was chosen; others are called after what they are on this machine.
    #[must_use]
    pub fn has_name(&self) -> bool {
        matches!(self.netns, NetnsTarget::New | NetnsTarget::Name(_))
    }

    /// Defined, but without a process, and so without namespace, endpoints and ports.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.container.as_ref().is_some_and(|container| container.phase != Phase::Running)
    }
}

impl Model {
    /// Makes a sandbox without endpoints; gives its id.
    ///
    /// # Errors
    /// When the name is taken or a value makes no sense.
    pub fn create_sandbox(&mut self, request: &SandboxCreate, id: String) -> Result<String> {
        let name = request.name.clone().unwrap_or_else(|| id[..12].to_owned());
        // Devices and foreign namespaces are named after what they are.
        if request.netns == NetnsTarget::New {
            check_object_name("sandbox", &name)?;
        }
        self.refresh();
        if self.index.named(&self.sandboxes, &name).is_some() {
            return Err(ControlError::new(Code::Exists, &name, format!("the name {name:?} is already in use by another sandbox")).hint("remove it (`weft rm`), or choose another name"));
        }
        if let Some(hostname) = &request.hostname {
            check_host("--hostname", hostname)?;
            if hostname.len() > 64 {
                return Err(invalid(hostname, "a host name has 1 to 64 bytes"));
            }
        }
        let names = self.name_options(request)?;
        // A namespace of ours has a host name of its own; a longer name than the kernel takes is not it.
        let own = || if name.len() <= 64 { name.clone() } else { id[..12].to_owned() };
        let hostname = request.hostname.clone().or_else(|| (request.netns == NetnsTarget::New).then(own));
        self.sandboxes.insert(
            id.clone(),
            Sandbox {
                id: id.clone(),
                name,
                netns: request.netns.clone(),
                identity: None,
                command: request.command.clone(),
                env: request.env.clone(),
                hostname,
                auto_remove: request.auto_remove,
                process: None,
                endpoints: Vec::new(),
                publishes: Vec::new(),
                names,
                created_ns: 0,
                container: None,
            },
        );
        Ok(id)
    }

    /// Gives a sandbox another name.
    ///
    /// # Errors
    /// When it is taken or makes no sense.
    pub fn rename_sandbox(&mut self, reference: &str, name: &str) -> Result<()> {
        check_object_name("sandbox", name)?;
        if self.sandboxes.values().any(|sandbox| sandbox.name == name) {
            return Err(ControlError::new(Code::Exists, name, format!("the name {name:?} is already in use by another sandbox")));
        }
        let sandbox = self.sandbox(reference)?;
        self.check_not_a_vip(sandbox, name)?;
        let id = sandbox.id.clone();
        for network in sandbox.endpoints.iter().filter_map(|endpoint| self.networks.get(&endpoint.network)) {
            self.check_endpoint_name(network, name)?;
        }
        if let Some(sandbox) = self.sandboxes.get_mut(&id) {
            name.clone_into(&mut sandbox.name);
        }
        Ok(())
    }

    fn name_options(&self, request: &SandboxCreate) -> Result<NameOptions> {
        let options = NameOptions::of(request)?;
        self.check_dns(&options.dns)?;
        if request.netns != NetnsTarget::New && options != NameOptions::default() {
            return Err(invalid(request.name.as_deref().unwrap_or_default(), "--dns, --add-host and --link are for sandboxes with a namespace of their own: this one has the /etc of another"));
        }
        for link in &options.link {
            let other = self.sandbox(&link.sandbox)?;
            let shares = |endpoint: &EndpointCreate| self.network(&endpoint.network).is_ok_and(|network| other.endpoints.iter().any(|own| own.network == network.id));
            if !request.endpoints.iter().any(shares) {
                return Err(invalid(&link.sandbox, format!("--link {}: it is in no network of this sandbox", link.sandbox)).hint("put both into one network with --net"));
            }
        }
        Ok(options)
    }
}
