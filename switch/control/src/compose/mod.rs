//! Compose files: the part of them that is about networks and processes. docs/compose.md lists what is understood.
//!
//! A service becomes a container in Docker's sense, run from this host's files or a root directory: there are no
//! images. What is not understood is refused by its path in the file, but for `x-...`, which Compose ignores too.

mod interpolate;
mod network;
mod read;
mod service;

use std::collections::BTreeSet;

use serde_json::Value;

use self::read::Node;
use crate::{api::NetworkCreate, container::Container};

/// A service, ready to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Of the service, in the file.
    pub key: String,
    /// Of its container.
    pub name: String,
    /// What is run, and on which networks.
    pub container: Container,
    /// Services by names that only this one knows: NAME[:ALIAS].
    pub links: Vec<String>,
}

/// A whole file.
#[derive(Clone, Debug, Default)]
pub struct Project {
    /// Its name, the beginning of its networks'.
    pub name: String,
    /// To be made, in this order.
    pub networks: Vec<NetworkCreate>,
    /// That must be there.
    pub external: Vec<String>,
    /// To be started, in this order: whoever is depended on comes first.
    pub services: Vec<Service>,
}

/// What a file is read with.
#[expect(missing_debug_implementations, reason = "holds a function")]
pub struct Surroundings<'a> {
    /// The project's name where the file has none.
    pub name: &'a str,
    /// Where relative paths begin.
    pub directory: &'a str,
    /// Variables.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

type Result<T> = std::result::Result<T, String>;

impl Project {
    /// Reads a file's text.
    ///
    /// # Errors
    /// With the path in the file of what is wrong or not understood, or line and column where it is no YAML.
    pub fn parse(text: &str, around: &Surroundings<'_>) -> Result<Self> {
        let mut value: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        interpolate::all(&mut value, "", around.variable)?;
        let file = Node::root(&value);
        file.only(&["name", "version", "services", "networks"])?;
        let name = file.text("name")?.unwrap_or_else(|| around.name.to_owned());
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte)) {
            return Err(format!("name: {name:?}: want lower case letters, digits, - and _"));
        }
        let mut declared = Vec::new();
        for (key, node) in file.map("networks")? {
            declared.push(network::read(&name, &key, &node)?);
        }
        let keys: Vec<String> = file.map("services")?.into_iter().map(|(key, _)| key).collect();
        if keys.is_empty() {
            return Err("services: there are none".into());
        }
        let mut read = Vec::new();
        for (key, node) in file.map("services")? {
            read.push(service::read(&key, &node, around.directory, &keys)?);
        }
        // Compose's network for those who name none is there only if somebody is in it.
        let used: BTreeSet<&String> = read.iter().flat_map(|service| &service.networks).collect();
        if used.contains(&network::DEFAULT.to_owned()) && !declared.iter().any(|network| network.key == network::DEFAULT) {
            declared.push(network::implicit(&name));
        }
        for service in &read {
            if let Some(unknown) = service.networks.iter().find(|key| !declared.iter().any(|network| network.key == **key)) {
                return Err(format!("services.{}.networks: {unknown:?} is not under the top-level networks", service.service.key));
            }
        }
        let services = in_order(read, &declared)?;
        let (external, made): (Vec<_>, Vec<_>) = declared.into_iter().partition(|network| network.external);
        Ok(Self { name, networks: made.into_iter().map(|network| network.request).collect(), external: external.into_iter().map(|network| network.request.name).collect(), services })
    }
}

/// Whoever is depended on comes first; else the order of the file.
fn in_order(mut waiting: Vec<service::Read>, declared: &[network::Declared]) -> Result<Vec<Service>> {
    let names: Vec<(String, String)> = waiting.iter().map(|read| (read.service.key.clone(), read.service.name.clone())).collect();
    let mut done: Vec<Service> = Vec::new();
    while !waiting.is_empty() {
        let ready = waiting.iter().position(|read| read.after.iter().all(|key| done.iter().any(|service| service.key == *key)));
        let Some(ready) = ready else {
            let keys: Vec<_> = waiting.iter().map(|read| read.service.key.as_str()).collect();
            return Err(format!("services {} depend on each other", keys.join(", ")));
        };
        let mut service = waiting.remove(ready).service;
        service.name_networks(declared);
        service.name_services(&names);
        done.push(service);
    }
    let mut seen = BTreeSet::new();
    match done.iter().find(|service| !seen.insert(&service.name)) {
        Some(service) => Err(format!("services.{}: the name {:?} is used twice", service.key, service.name)),
        None => Ok(done),
    }
}

#[cfg(test)]
mod tests;
