//! Bodies from strangers to Docker's API: each is a request or an error; a request is carried out whole on the
//! model, or leaves it as it was; and what the model then is can be saved and read again.

use weft_control::{
    Container, EndpointKind, Model,
    api::{NetworkCreate, SandboxCreate},
    docker::{self, Filters, Leave, NetworkRequest},
    volume::Bind,
};

/// A network `lab` of both families, and a sandbox `web`.
fn model() -> Model {
    let mut model = Model::default();
    let request = NetworkCreate { name: "lab".into(), subnets: ["10.9.0.0/24", "fd09::/64"].map(|subnet| subnet.parse().expect("a subnet")).into(), ..NetworkCreate::default() };
    model.create_network(&request, "1".repeat(64)).expect("a network");
    model.create_sandbox(&SandboxCreate { name: Some("web".into()), ..SandboxCreate::default() }, web()).expect("a sandbox");
    model
}

fn web() -> String {
    "2".repeat(64)
}

/// What a request is, and its body.
pub fn docker(data: &[u8]) {
    let Some((&kind, body)) = data.split_first() else { return };
    match kind {
        b'n' => network(body),
        b'c' => container(body),
        b'j' => join(body),
        b'l' => {
            if let Ok(Ok(leave)) = docker::value(body).map(Leave::parse) {
                assert!(leave.container.len() <= body.len() * 3);
            }
        }
        _ => {
            let known = ["name", "label", "label!", "dangling"];
            if let Ok(filters) = Filters::parse(std::str::from_utf8(body).ok(), &known) {
                let _ = (filters.flag("dangling"), filters.labels(&[("a".into(), "b".into())].into()), filters.any("name", |word| word.is_empty()));
            }
        }
    }
}

fn network(body: &[u8]) {
    let Ok(Ok(request)) = docker::value(body).map(docker::network_request) else { return };
    let (before, mut after) = (model(), model());
    let done = match request {
        NetworkRequest::Network(request) => after.create_network(&request, "3".repeat(64)).map(drop),
        NetworkRequest::Config(request) => after.create_config(request, "3".repeat(64), 1),
    };
    settled(done.is_ok(), &before, &after);
}

fn container(body: &[u8]) {
    let Ok(Ok(container)) = docker::value(body).map(docker::definition) else { return };
    assert!(!container.command().is_empty() && container.publish().is_ok() && container.host.log_config.bound().is_ok());
    assert!(container.host.binds.iter().all(|bind| bind.parse::<Bind>().is_ok()) && container.host.mounts.is_empty());
    let saved = serde_json::to_string(&container).expect("JSON");
    assert_eq!(serde_json::from_str::<Container>(&saved).expect("as it was"), container);
    for (number, endpoint) in container.networks.iter().enumerate().take(8) {
        let (before, mut after) = (model(), model());
        let done = after.create_endpoint(&web(), endpoint, format!("{number:064x}"), EndpointKind::Tap);
        settled(done.is_ok(), &before, &after);
    }
}

fn join(body: &[u8]) {
    let Ok(Ok((_, endpoint))) = docker::value(body).map(|value| docker::membership("lab", value)) else { return };
    let (before, mut after) = (model(), model());
    let done = after.create_endpoint(&web(), &endpoint, "4".repeat(64), EndpointKind::Tap);
    settled(done.is_ok(), &before, &after);
}

fn settled(is_done: bool, before: &Model, after: &Model) {
    assert_eq!(is_done, before != after, "all or nothing");
    let saved = serde_json::to_string(after).expect("JSON");
    assert_eq!(&serde_json::from_str::<Model>(&saved).expect("as it was"), after);
}
