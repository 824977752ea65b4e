//! Random operations on a real daemon beside a naive model, with restarts and kill -9 in the middle of one. The same
//! run in virtual time is `tests/sim/model.rs`. SPEC rows: C1, C3, N4.

use std::{collections::BTreeSet, time::Duration};

use libtest_mimic::Trial;
use serde_json::{Value, json};
use sim::Random;
use weft_tests::{
    lab::Lab,
    naive::{Op, Outcome, Port},
    operations::{World, compare},
    runner::{Need, test},
};

const NEEDS: &[Need] = &[Need::Root, Need::Tun];

/// A seed is a test: twenty, or as many as WEFT_MODEL_SEEDS says.
pub(crate) fn tests() -> Vec<Trial> {
    let count = std::env::var("WEFT_MODEL_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    (0..count).map(|seed| test(&format!("model::random_operations_seed_{seed}"), NEEDS, move || run(seed))).collect()
}

fn run(seed: u64) {
    let repeat = format!("WEFT_MODEL_SEEDS={} cargo test -p weft-tests --test e2e -- --exact model::random_operations_seed_{seed}", 20.max(seed + 1));
    compare(seed, &mut Live { lab: Lab::start(), ballast: 0 }, &repeat);
}

/// A daemon as a world.
pub(crate) struct Live {
    pub(crate) lab: Lab,
    /// Bytes of label on each network, to make the state file grow.
    pub(crate) ballast: usize,
}

impl Live {
    /// `None` when the daemon died before it answered.
    pub(crate) fn ask(&self, op: &Op) -> Option<Outcome> {
        let endpoint = |network: &String, ip: &Option<std::net::Ipv4Addr>| json!({ "network": network, "ip": ip });
        let words = |ports: &[Port]| ports.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (method, path, body) = match op {
            Op::CreateNetwork(name, subnet, internal) => ("POST", "/v1/networks".into(), json!({ "name": name, "subnets": [subnet.to_string()], "internal": internal, "labels": { "ballast": "x".repeat(self.ballast) } })),
            Op::RemoveNetwork(name) => ("DELETE", format!("/v1/networks/{name}"), Value::Null),
            Op::Prune => ("POST", "/v1/networks/prune".into(), Value::Null),
            Op::CreateSandbox(name, networks, ports) => {
                let endpoints: Vec<_> = networks.iter().map(|(network, ip)| endpoint(network, ip)).collect();
                ("POST", "/v1/sandboxes".into(), json!({ "name": name, "endpoints": endpoints, "publish": words(ports) }))
            }
            Op::RemoveSandbox(name) => ("DELETE", format!("/v1/sandboxes/{name}"), Value::Null),
            Op::Connect(network, sandbox, ip) => ("POST", format!("/v1/networks/{network}/connect"), json!({ "sandbox": sandbox, "endpoint": { "ip": ip } })),
            Op::Disconnect(network, sandbox) => ("POST", format!("/v1/networks/{network}/disconnect"), json!({ "sandbox": sandbox })),
            Op::Publish(sandbox, port) => ("POST", format!("/v1/sandboxes/{sandbox}/publish"), json!({ "publish": words(&[*port]) })),
            Op::Unpublish(sandbox, port) => ("DELETE", format!("/v1/sandboxes/{sandbox}/publish"), json!({ "publish": words(&[*port]) })),
        };
        let (status, answer) = self.lab.request(method, &path, &body).ok()?;
        Some(if status < 300 { Ok(()) } else { Err(answer["code"].as_str().unwrap_or_default().to_owned()) })
    }
}

impl World for Live {
    fn step(&mut self, op: &Op) -> Outcome {
        self.ask(op).expect("the daemon answers")
    }

    fn view(&mut self) -> Vec<String> {
        let lab = &self.lab;
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let host = |value: &Value| text(value).split('/').next().unwrap_or_default().to_owned();
        let mut lines = Vec::new();
        for network in lab.api("/v1/networks").as_array().expect("networks") {
            lines.push(format!("network {} {} internal={}", text(&network["name"]), text(&network["pools"][0]["subnet"]), network["internal"]));
        }
        let sandboxes = lab.api("/v1/sandboxes");
        let sandboxes = sandboxes.as_array().expect("sandboxes");
        for sandbox in sandboxes {
            let name = text(&sandbox["name"]);
            lines.push(format!("sandbox {name}"));
            for endpoint in sandbox["endpoints"].as_array().expect("endpoints") {
                lines.push(format!("endpoint {name}:{} {} {}", text(&endpoint["ifname"]), text(&endpoint["network_name"]), host(&endpoint["addresses"][0])));
            }
            for port in sandbox["publishes"].as_array().expect("ports") {
                lines.push(format!("published {name} {}:{}/{}", port["host_port"], port["port"], text(&port["protocol"])));
            }
        }
        // One line for both families of a listener.
        let publishes = lab.api("/v1/publishes");
        let listening = publishes.as_array().expect("listeners").iter().map(|listener| {
            let host = text(&listener["host"]);
            let port = host.rsplit(':').next().unwrap_or_default();
            format!("listening {port}/{} {} {}", text(&listener["protocol"]), text(&listener["sandbox"]), text(&listener["inside"]))
        });
        lines.extend(listening.collect::<BTreeSet<_>>());
        lines.sort();
        // The data plane has what the model has, and the file system no namespace more.
        let named = |lines: &[String]| lines.iter().filter_map(|line| Some(line.strip_prefix("endpoint ")?.split(' ').next()?.to_owned())).collect::<BTreeSet<_>>();
        let ports: BTreeSet<_> = lab.api("/v1/ports").as_array().expect("ports").iter().map(|port| text(&port["name"])).collect();
        assert_eq!(ports, named(&lines), "ports of the data plane");
        let pins = std::fs::read_dir(lab.state_dir().join("netns")).map_or(0, Iterator::count);
        assert_eq!(pins, sandboxes.len(), "namespaces that are pinned");
        lines
    }

    fn restart(&mut self) {
        self.lab.stop_daemon();
        self.lab.start_daemon();
    }

    fn die_in(&mut self, op: &Op, random: &mut Random) -> Option<Outcome> {
        let (pid, wait) = (self.lab.daemon_pid(), Duration::from_micros(random.below(20_000)));
        let killer = std::thread::spawn(move || {
            std::thread::sleep(wait);
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid).expect("pid")), nix::sys::signal::Signal::SIGKILL).ok();
        });
        let outcome = self.ask(op);
        killer.join().expect("killer");
        self.lab.kill_daemon();
        self.lab.start_daemon();
        outcome
    }
}
