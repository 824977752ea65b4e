//! Where sandboxes are, by name and by network, so that nobody has to look at all of them.
//!
//! It is brought up to date by what changed since it was last looked at. Whoever finds it behind looks at all: a
//! change of the model need not know of it.

use imbl::{OrdMap, OrdSet, ordmap::DiffItem};

use super::Sandbox;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    /// What it tells of.
    of: OrdMap<String, Sandbox>,
    by_name: OrdMap<String, String>,
    by_network: OrdMap<String, OrdSet<String>>,
}

/// It says nothing that is not in what it is of.
impl PartialEq for Index {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Index {}

impl Index {
    pub(crate) fn refresh(&mut self, sandboxes: &OrdMap<String, Sandbox>) {
        let before = std::mem::replace(&mut self.of, sandboxes.clone());
        for item in before.diff(sandboxes) {
            match item {
                DiffItem::Add(_, new) => self.add(new),
                DiffItem::Remove(_, old) => self.remove(old),
                DiffItem::Update { old: (_, old), new: (_, new) } => {
                    self.remove(old);
                    self.add(new);
                }
            }
        }
    }

    fn add(&mut self, sandbox: &Sandbox) {
        self.by_name.insert(sandbox.name.clone(), sandbox.id.clone());
        for endpoint in &sandbox.endpoints {
            self.by_network.entry(endpoint.network.clone()).or_default().insert(sandbox.id.clone());
        }
    }

    fn remove(&mut self, sandbox: &Sandbox) {
        // Somebody else may have its name by now.
        if self.by_name.get(&sandbox.name) == Some(&sandbox.id) {
            self.by_name.remove(&sandbox.name);
        }
        for endpoint in &sandbox.endpoints {
            if let Some(members) = self.by_network.get_mut(&endpoint.network) {
                members.remove(&sandbox.id);
                if members.is_empty() {
                    self.by_network.remove(&endpoint.network);
                }
            }
        }
    }

    fn is_of(&self, sandboxes: &OrdMap<String, Sandbox>) -> bool {
        self.of.ptr_eq(sandboxes)
    }

    /// The sandbox of that name.
    pub(crate) fn named<'a>(&self, sandboxes: &'a OrdMap<String, Sandbox>, name: &str) -> Option<&'a Sandbox> {
        if self.is_of(sandboxes) {
            return self.by_name.get(name).and_then(|id| sandboxes.get(id));
        }
        sandboxes.values().find(|sandbox| sandbox.name == name)
    }

    /// The sandboxes that are in that network, by id; when it is behind, all.
    pub(crate) fn around<'a>(&'a self, sandboxes: &'a OrdMap<String, Sandbox>, network: &str) -> Box<dyn Iterator<Item = &'a Sandbox> + 'a> {
        if self.is_of(sandboxes) {
            let members = self.by_network.get(network).into_iter().flatten();
            return Box::new(members.filter_map(|id| sandboxes.get(id)));
        }
        Box::new(sandboxes.values())
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        EndpointKind, Model,
        api::{EndpointCreate, NetworkCreate, SandboxCreate},
    };

    #[test]
    fn it_says_what_a_look_at_all_says() {
        let mut model = Model::default();
        let id = |number: u32| format!("{number:064x}");
        for number in 0..3 {
            model.create_network(&NetworkCreate { name: format!("n{number}"), ..NetworkCreate::default() }, id(number)).unwrap();
        }
        let compare = |model: &Model| {
            let mut fresh = model.clone();
            fresh.refresh();
            let mut behind = model.clone();
            behind.index = super::Index { of: OrdMap::unit(String::new(), model.sandboxes.values().next().unwrap().clone()), ..super::Index::default() };
            for network in model.networks.keys() {
                let members = |model: &Model| model.members(network).map(|(sandbox, endpoint)| (sandbox.name.clone(), endpoint.id.clone())).collect::<Vec<_>>();
                assert_eq!(members(&fresh), members(&behind));
            }
            for number in 0..40 {
                let named = |model: &Model| model.sandbox(&format!("s{number}")).map(|sandbox| sandbox.id.clone()).ok();
                assert_eq!(named(&fresh), named(&behind));
            }
        };
        use imbl::OrdMap;
        for number in 10..40 {
            model.create_sandbox(&SandboxCreate { name: Some(format!("s{number}")), ..SandboxCreate::default() }, id(number)).unwrap();
            for network in 0..number % 3 {
                model.create_endpoint(&id(number), &EndpointCreate { network: format!("n{network}"), ..EndpointCreate::default() }, id(number * 100 + network), EndpointKind::Tap).unwrap();
            }
            compare(&model);
        }
        for number in (10..40).step_by(4) {
            model.sandboxes.remove(&id(number));
            model.rename_sandbox(&id(number + 1), &format!("s{number}")).unwrap();
            let first = model.sandboxes[&id(number + 1)].endpoints.first().map(|endpoint| endpoint.id.clone());
            first.map(|endpoint| model.remove_endpoint(&id(number + 1), &endpoint));
            compare(&model);
        }
    }
}
