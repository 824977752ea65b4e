//! `weft up compose.yml`.

use std::process::{Child, Stdio};

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use weft_tests::{
    lab::Lab,
    ns::signal,
    run::{Ran, eventually, run},
    runner::{Need, test},
};

const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("ping"), Need::Tool("python3"), Need::Tool("curl"), Need::Tool("redis-server"), Need::Tool("redis-cli")];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("compose::web_and_redis", NEEDS, web_and_redis),
        test("compose::the_example_checks_itself", NEEDS, checks_itself),
        test("compose::modes_ports_and_order", NEEDS, modes),
        test("compose::refusals_leave_nothing", NEEDS, refusals),
    ]
}

/// A running `weft up`, ended by Ctrl-C when dropped.
struct Up<'a> {
    lab: &'a Lab,
    child: Child,
}

impl<'a> Up<'a> {
    #[track_caller]
    fn start(lab: &'a Lab, file: &str, count: usize) -> Self {
        let child = lab.weft_command().args(["up", file]).stdout(Stdio::null()).spawn().expect("weft up");
        let mut up = Self { lab, child };
        eventually("it is up", || {
            assert!(up.child.try_wait().expect("wait").is_none(), "weft up has ended");
            up.weft(&["ps", "-q"]).stdout.lines().count() == count
        });
        up
    }

    /// The command runs under nsenter, which becomes it: the pid is the switch's.
    fn directory(&self) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("weft-up-{}", self.child.id()))
    }

    fn weft(&self, words: &[&str]) -> Ran {
        let host = format!("unix://{}/api.sock", self.directory().display());
        run(self.lab.weft_command().args(["-H", &host]).args(words))
    }

    #[track_caller]
    fn within(&self, service: &str, script: &str) -> String {
        self.weft(&["exec", service, "sh", "-c", script]).ok()
    }

    fn interrupt(&mut self) -> bool {
        signal(&self.child, Signal::SIGINT);
        self.child.wait().is_ok_and(|status| status.success())
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.interrupt();
    }
}

fn example() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/compose.yml").into()
}

fn web_and_redis() {
    let lab = Lab::without_daemon();
    let mut up = Up::start(&lab, &example(), 3);
    // Published, and by its alias on the other network the store is found.
    let fetch = || lab.host.run("curl -s -m 5 http://127.0.0.1:8000/").stdout;
    eventually("the page is served", || fetch().contains("visit "));
    let page = fetch();
    assert!(page.contains("says www"), "{page}");
    assert_eq!(up.within("web", "redis-cli -h redis incr visits").trim().parse::<u32>().expect("a number"), page.split([' ', ',']).nth(1).expect("a count").parse::<u32>().expect("a number") + 1);
    // Names, aliases, static addresses, extra_hosts.
    assert!(up.within("web", "getent ahostsv4 store").starts_with("10.91.0.79 "));
    assert!(up.within("web", "ip -4 addr").contains("10.91.0.80/24"));
    assert!(up.within("web", "getent hosts printer").starts_with("192.0.2.9 "));
    assert_eq!(up.within("client", "curl -s -m 5 http://shop:8000/ | cut -d' ' -f1").trim(), "visit");
    // Networks are apart: the client is not in the store's.
    assert!(up.weft(&["exec", "client", "getent", "hosts", "store"]).fails().is_empty());
    assert!(up.weft(&["exec", "client", "ping", "-c", "1", "-W", "1", "10.91.0.79"]).code != Some(0));
    let directory = up.directory();
    assert!(up.interrupt(), "a clean end");
    assert!(!directory.exists() && lab.host.run("curl -s -m 2 http://127.0.0.1:8000/").code != Some(0), "nothing is left");
}

fn checks_itself() {
    let lab = Lab::without_daemon();
    drop(lab.footprint());
    let before = lab.footprint();
    let said = lab.weft(&format!("up {} --check", example())).ok();
    assert!(said.contains("network shop_back 10.91.0.0/24") && said.contains("check passed") && said.contains("1 published ports fetched"), "{said}");
    assert_eq!(before, lab.footprint());
}

const MODES: &str = r#"
name: modes
services:
  side: {command: sleep infinity, network_mode: "service:app"}
  app:
    command: python3 -m http.server 80
    container_name: main
    links: ["back:database"]
    ports: [{target: 80, published: 8088, host_ip: 127.0.0.1}]
    networks:
      one: {priority: 1}
      two: {gw_priority: 1, interface_name: wan0, mac_address: "02:00:00:00:00:42", ipv6_address: "fd42::5"}
  back: {command: sleep infinity, networks: [one], dns: 9.9.9.9, dns_search: [x.test]}
  alone: {command: sleep infinity, network_mode: none}
  outer: {command: sleep infinity, network_mode: host}
networks:
  one: {driver_opts: {com.docker.network.driver.mtu: 1400}}
  two: {enable_ipv6: true, ipam: {config: [{subnet: 10.42.0.0/24}, {subnet: "fd42::/64"}]}}
"#;

fn modes() {
    let lab = Lab::without_daemon();
    let file = lab.dir().join("compose.yaml");
    std::fs::write(&file, MODES).expect("a file");
    let up = Up::start(&lab, &file.to_string_lossy(), 5);
    let links = up.within("main", "ip link; ip route");
    assert!(links.contains("wan0") && links.contains("02:00:00:00:00:42") && links.contains("mtu 1400") && links.contains("default via 10.42.0.1 dev wan0"), "{links}");
    assert!(up.within("main", "ip -6 addr show wan0").contains("fd42::5/64"));
    // The key is a name too, links are for the one who has them, and a sidecar sees the same.
    up.within("back", "ping -c 1 -W 2 app");
    up.within("main", "ping -c 1 -W 2 database");
    assert_eq!(up.weft(&["exec", "back", "getent", "hosts", "database"]).code, Some(2));
    assert_eq!(up.within("side", "ip link show wan0"), up.within("main", "ip link show wan0"));
    assert!(up.within("back", "cat /etc/resolv.conf").contains("search x.test"));
    assert!(!up.within("alone", "ip link").contains("eth0"));
    assert!(up.within("outer", "ip link") == lab.host.ip("link").ok());
    eventually("it is published on that address", || lab.host.run("curl -s -m 2 http://127.0.0.1:8088/").code == Some(0));
}

fn refusals() {
    let lab = Lab::without_daemon();
    let file = lab.dir().join("compose.yml");
    for (text, parts) in [
        ("services: {web: {command: x, volumes: [/a]}}", ["compose.yml", "services.web.volumes"]),
        ("services: {web: {image: nginx, command: x}}", ["services.web.image", "image store"]),
        ("services: {web: {command: x, networks: [out]}}\nnetworks: {out: {external: true}}", ["out", "external"]),
        ("services: {web: {command: /no/such/program}}", ["service web", "/no/such/program"]),
        ("services: {a: {command: sleep 9, networks: {n: {ipv4_address: 10.1.0.9}}}}\nnetworks: {n: {ipam: {config: [{subnet: 10.2.0.0/24}]}}}", ["service a", "10.1.0.9"]),
        ("services:\n\tweb: {}", ["compose.yml", "line 2"]),
    ] {
        std::fs::write(&file, text).expect("a file");
        let error = lab.weft(&format!("up {}", file.display())).fails();
        assert!(parts.iter().all(|part| error.contains(part)), "{text}\n{error}");
    }
    assert!(!lab.host.ip("link").ok().contains("eth0"));
}
