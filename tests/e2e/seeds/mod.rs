//! Five texts about Docker's networks, walked through with the stock client: each command of theirs that is
//! about networks, in their order, and what they say comes of it. Where they run an image (tomcat, nginx,
//! busybox, redis), the walk runs the same program of Debian in the image `host`; tomcat is Python's server.
//! Commands that the texts give without arguments or as pictures are spelt out.

mod s0;
mod s1;
mod s2;
mod s3;
mod s4;

use libtest_mimic::Trial;
use weft_tests::{
    lab::Lab,
    ns::Ns,
    run::{Ran, eventually},
    runner::{Need, test},
};

use crate::client::{Docker, NEEDS};

const NGINX: &[Need] = &[Need::Root, Need::Tun, Need::Tool("docker"), Need::Tool("ping"), Need::Tool("curl"), Need::Tool("nginx")];
const REDIS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("docker"), Need::Tool("ping"), Need::Tool("curl"), Need::Tool("nginx"), Need::Tool("redis-server"), Need::Tool("python3")];
const BUSYBOX: &[Need] = &[Need::Root, Need::Tun, Need::Tool("docker"), Need::Tool("ping"), Need::Tool("curl"), Need::Tool("nginx"), Need::Tool("busybox")];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("seeds::s0_interfaces_and_namespaces", NEEDS, s0::interfaces),
        test("seeds::s0_containers", NEEDS, s0::containers),
        test("seeds::s1_modes_and_help", NEEDS, s1::walk),
        test("seeds::s1_three_containers_and_two_networks", NEEDS, s1::model),
        test("seeds::s2_ports_none_and_host", NGINX, s2::ports),
        test("seeds::s2_redis_and_an_application", REDIS, s2::application),
        test("seeds::s3_networks_by_hand", NEEDS, s3::by_hand),
        test("seeds::s3_containers", BUSYBOX, s3::containers),
        test("seeds::s4_from_outside_and_to_the_outside", NGINX, s4::walk),
    ]
}

/// The machine of the texts: `eth0` with 192.168.88.212 on a LAN, and on that LAN the author's PC.
struct Walk {
    docker: Docker,
    pc: Ns,
}

impl Walk {
    #[track_caller]
    fn start() -> Self {
        let mut lab = Lab::without_daemon();
        let pc = lab.ns("pc");
        let host = &lab.host.name;
        pc.sh(&format!(
            "ip link add lan type veth peer name eth0 netns {host}; ip link set lan up; ip addr add 192.168.88.10/24 dev lan; \
             ip -n {host} link set eth0 up; ip -n {host} addr add 192.168.88.212/24 dev eth0"
        ))
        .ok();
        lab.start_daemon();
        Self { docker: Docker(lab), pc }
    }

    /// A command line of the texts: `docker ...` by the stock client, all else in the machine's namespace.
    #[track_caller]
    fn run(&self, line: &str) -> Ran {
        match line.strip_prefix("docker ") {
            Some(line) => self.docker.run(line),
            None => self.docker.0.host.sh(line),
        }
    }

    #[track_caller]
    fn weft(&self, line: &str) -> Ran {
        self.docker.0.weft(line)
    }

    /// In a container.
    #[track_caller]
    fn inside(&self, container: &str, script: &str) -> Ran {
        self.docker.args(&["exec", container, "sh", "-c", script])
    }

    /// `docker run -d --name NAME WORDS tomcat`.
    #[track_caller]
    fn tomcat(&self, name: &str, words: &str) {
        self.docker.server(name, 8080, words);
    }

    /// `docker run -d --name NAME WORDS nginx`: one process, so that nothing is left behind.
    #[track_caller]
    fn nginx(&self, name: &str, words: &str) {
        self.try_nginx(name, words).ok();
        eventually("nginx listens", || self.inside(name, "ss -Hltn").stdout.contains(":80 "));
    }

    fn try_nginx(&self, name: &str, words: &str) -> Ran {
        let at = self.docker.0.dir().display();
        let config = format!(
            "daemon off; master_process off; error_log stderr; pid {at}/{name}.pid; events {{}}\n\
             http {{ access_log off; client_body_temp_path {at}/{name}.b; proxy_temp_path {at}/{name}.p; fastcgi_temp_path {at}/{name}.f; uwsgi_temp_path {at}/{name}.u; scgi_temp_path {at}/{name}.s;\n\
             server {{ listen 80; listen [::]:80; root /usr/share/nginx/html; }} }}\n"
        );
        let file = self.docker.0.dir().join(format!("{name}.conf"));
        std::fs::write(&file, config).expect("a file");
        self.docker.run(&format!("run -d --name {name} {words} host nginx -c {}", file.display()))
    }

    fn ip_of(&self, container: &str) -> String {
        self.docker.format(container, "{{.NetworkSettings.IPAddress}}")
    }

    /// `curl` on the machine.
    fn curl(&self, url: &str) -> Ran {
        self.run(&format!("curl -sS -m 5 {url}"))
    }

    /// Rows of a table, without its head, split at blanks.
    #[track_caller]
    fn rows(&self, line: &str) -> Vec<Vec<String>> {
        self.run(line).ok().lines().skip(1).map(|row| row.split_whitespace().map(str::to_owned).collect()).collect()
    }
}

/// What Debian's nginx serves.
const PAGE: &str = "Welcome to nginx!";
/// What Python's server serves for a directory.
const LISTING: &str = "<!DOCTYPE";
