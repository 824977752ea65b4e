//! `weft config`: from what is to what is desired, step by step; a step that fails takes those before it back.

use serde_json::json;
use weft_control::{
    ControlError, Result, Sandbox,
    config::DEFAULT_NETWORK,
    desired::{Desired, Line, Step},
    edit::Difference,
    names::NameOptions,
};

use super::runtime::{Inner, Runtime};

impl Runtime {
    /// What is to be done to reach `desired`; unless `dry` it is done.
    pub(crate) fn configure(&self, desired: &Desired, dry: bool) -> Result<Vec<Line>> {
        let steps = self.lock().model.plan(desired)?;
        let lines = steps.iter().map(Step::line).collect();
        if dry {
            return Ok(lines);
        }
        let mut undo = Vec::new();
        for step in &steps {
            match self.take(step) {
                Ok(back) => undo.push(back.ok_or(step)),
                Err(error) => return Err(self.take_back(undo, step, error)),
            }
        }
        self.lock().event("config apply", json!({ "steps": steps.len() }));
        Ok(lines)
    }

    /// Takes a step; gives the one back, if there is one.
    fn take(&self, step: &Step) -> Result<Option<Step>> {
        Ok(match step {
            Step::CreateSandbox(request) => {
                let sandbox = self.create_sandbox(request)?;
                Some(Step::RemoveSandbox(sandbox.name))
            }
            step => self.lock().take(step)?,
        })
    }

    /// The error, with what could not be taken back.
    fn take_back(&self, undo: Vec<std::result::Result<Step, &Step>>, failed: &Step, error: ControlError) -> ControlError {
        let mut left = Vec::new();
        for back in undo.into_iter().rev() {
            match back {
                Ok(back) => left.extend(self.take(&back).err().map(|error| format!("{} {}: {}", back.line().sign, back.line().text, error.message))),
                Err(step) => left.push(format!("{} {} is done and stays so", step.line().sign, step.line().text)),
            }
        }
        let beside = if left.is_empty() { "everything is as it was".into() } else { format!("all else is as it was, but:\n  {}", left.join("\n  ")) };
        ControlError { message: format!("{} {}: {}\n{beside}", failed.line().sign, failed.line().text, error.message), ..error }
    }
}

impl Inner {
    fn take(&mut self, step: &Step) -> Result<Option<Step>> {
        Ok(match step {
            Step::RemoveSandbox(name) => {
                self.remove_sandbox(name, true)?;
                None
            }
            Step::Unpublish(name, ports) => {
                self.remove_publish(name, ports)?;
                Some(Step::Publish(name.clone(), ports.clone()))
            }
            Step::Publish(name, ports) => {
                let made = self.add_publish(name, ports)?;
                let ports = made.iter().map(|published| format!("{}:{}/{}", published.host_port, published.port, published.protocol));
                Some(Step::Unpublish(name.clone(), ports.collect()))
            }
            Step::Disconnect(name, network) => {
                let id = self.model.network(network)?.id.clone();
                let before = self.model.sandbox(name)?.endpoints.iter().find(|endpoint| endpoint.network == id).map(|endpoint| endpoint.request(network));
                self.disconnect(name, network)?;
                before.map(|endpoint| Step::Connect(name.clone(), endpoint))
            }
            Step::Connect(name, endpoint) => {
                self.connect(name, endpoint)?;
                // Ports that led to an endpoint that went lead to the one that came.
                self.republish_of(name)?;
                Some(Step::Disconnect(name.clone(), endpoint.network.clone()))
            }
            Step::RemoveDefaultNetwork => {
                let request = self.model.network(DEFAULT_NETWORK)?.request();
                self.remove_default_network()?;
                Some(Step::CreateNetwork(request))
            }
            Step::RemoveNetwork(name) => Some(Step::CreateNetwork(self.remove_network(name)?.request())),
            Step::CreateNetwork(request) => Some(Step::RemoveNetwork(self.create_network(request)?.name)),
            Step::EditNetwork(request, _) => Some(Step::EditNetwork(self.edit_network(&request.name, request)?.before.request(), Vec::<Difference>::new())),
            Step::Names(name, names) => Some(Step::Names(name.clone(), self.set_names(name, names.clone())?)),
            Step::CreateSandbox(_) => None,
        })
    }

    /// Tells a sandbox other things about names; gives what it was told before.
    fn set_names(&mut self, name: &str, names: NameOptions) -> Result<NameOptions> {
        let mut model = self.model.clone();
        let id = model.sandbox(name)?.id.clone();
        let before = model.sandboxes.get_mut(&id).map(|sandbox| std::mem::replace(&mut sandbox.names, names)).unwrap_or_default();
        Self::check_names(model.sandbox(&id)?)?;
        self.commit(model)?;
        Ok(before)
    }

    fn republish_of(&mut self, name: &str) -> Result<()> {
        let sandbox: Sandbox = self.model.sandbox(name)?.clone();
        self.unpublish_all(&sandbox.id);
        self.republish(&sandbox);
        Ok(())
    }
}
