//! What this machine allows, and what to do about the rest.

use netns_setup::detect::{self, Finding};
use serde_json::{Value, json};
use weft_control::api::Check;

use crate::{client::Client, dataloop::IoBackend, cli::{network::parent_problem, print}};

/// Prints findings; true when ports can be made, and all of the cluster answers.
pub(crate) fn run(client: &Client, as_json: bool) -> bool {
    let mut findings = in_child();
    findings.push(io_uring());
    let daemon = client.get("/v1/info");
    let detail = match &daemon {
        Ok(info) => format!("answers on {} (pid {}, {})", client.socket().display(), info["pid"], info["io"].as_str().unwrap_or("?")),
        Err(error) => error.message.clone(),
    };
    findings.push(Finding { name: "daemon", ok: daemon.is_ok(), detail, fix: Some("start one with `weft daemon &`").filter(|_| daemon.is_err()) });
    let checks = client.get("/v1/cluster/checks").unwrap_or_default();
    let checks: Vec<Check> = serde_json::from_value(checks).unwrap_or_default();
    let parents = lan_parents(&client.get("/v1/networks").unwrap_or_default());
    let (kind, why) = detect::choose_kind();
    let kind = format!("{kind:?}").to_lowercase();
    if as_json {
        print(&json!({ "findings": findings, "cluster": checks, "parents": parents, "port_kind": kind, "because": why }).to_string());
    } else {
        for finding in &findings {
            print(&format!("{} {:<20} {}", if finding.ok { "ok     " } else { "missing" }, finding.name, finding.detail));
            if let Some(fix) = finding.fix {
                print(&format!("        {:<20} -> {fix}", ""));
            }
        }
        for check in checks.iter().chain(&parents) {
            print(&format!("{} {}", if check.ok { "ok     " } else { "missing" }, check.text));
            if let Some(hint) = &check.hint {
                print(&format!("        -> {hint}"));
            }
        }
        print(&format!("ports are {kind} by default: {why}"));
    }
    let works = |name: &str| findings.iter().any(|finding| finding.name == name && finding.ok);
    (works("network namespaces") || works("user namespaces")) && checks.iter().chain(&parents).all(|check| check.ok)
}

/// Whether the devices of lan networks serve.
fn lan_parents(networks: &Value) -> Vec<Check> {
    let on_devices = networks.as_array().into_iter().flatten().filter(|network| network["internal"] != json!(true));
    let check = |network: &Value| {
        let parent = network["lan"]["parent"].as_str()?;
        Some(match parent_problem(network) {
            Some(problem) => Check { ok: false, text: format!("{} (parent {parent})", problem.message), hint: problem.hint },
            None => Check { ok: true, text: format!("network {}: parent {parent} serves", network["name"].as_str().unwrap_or_default()), hint: None },
        })
    };
    on_devices.filter_map(check).collect()
}

/// An ordinary user's namespaces are tried as the rootless daemon would: inside a user namespace.
fn in_child() -> Vec<Finding> {
    if !nix::unistd::geteuid().is_root() && netns_setup::user::enter_user_namespace().is_err() {
        tracing::debug!("no user namespace");
    }
    detect::detect()
}

fn io_uring() -> Finding {
    let (sender, _receiver) = tokio::sync::mpsc::channel(1);
    let config = crate::dataloop::LoopConfig { io: IoBackend::Uring, ..Default::default() };
    match crate::dataloop::DataPlane::start(config, sender) {
        Ok((dataplane, thread)) => {
            dataplane.shutdown();
            drop(thread.join());
            Finding { name: "io_uring", ok: true, detail: "multishot reads with provided buffers".into(), fix: None }
        }
        Err(error) => Finding { name: "io_uring", ok: false, detail: error.to_string(), fix: Some("the switch uses epoll instead: nothing to do") },
    }
}
