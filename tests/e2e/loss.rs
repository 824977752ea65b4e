//! Files that arrive whole over a link that loses packets: out, in and hairpin, on both uplinks. SPEC rows: P3, P9, P10.

use std::time::Instant;

use libtest_mimic::Trial;
use weft_tests::{
    lab::Lab,
    ns::{Background, Ns},
    run::{Ran, eventually},
    runner::{Need, test},
};

pub(crate) fn tests() -> Vec<Trial> {
    let needs = &[Need::Root, Need::Tun, Need::Tool("openssl"), Need::Tool("curl"), Need::Tool("python3"), Need::Tool("nft"), Need::Tool("ethtool")];
    vec![
        test("loss::bulk_arrives_whole_on_host_sockets", needs, || bulk("")),
        test("loss::bulk_arrives_whole_on_an_uplink_of_packets", needs, || bulk("--uplink dev:lan0,addr=192.168.88.1/24")),
    ]
}

/// Size of the file: small here; `WEFT_LOSS_MIB=1024` is a gibibyte.
fn size() -> u64 {
    std::env::var("WEFT_LOSS_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(24) << 20
}

struct World {
    lab: Lab,
    lan: Ns,
    /// The file's directory, and its sum.
    directory: String,
    sum: String,
    _server: Background,
}

/// A LAN and a sandbox `c`, which both serve the file. All that `c` sends or receives is cut to the MTU, so
/// that what is lost is a packet, never 64 KiB.
fn world(options: &str) -> World {
    const PLAIN: &str = "tso off gso off gro off";
    let mut lab = Lab::without_daemon();
    let lan = lab.ns("lan");
    lan.sh(&format!("ip link add eth0 type veth peer name lan0 netns {0} && ip addr add 192.168.88.2/24 dev eth0 && ip link set eth0 up && ip -n {0} link set lan0 up", lab.host.name)).ok();
    if options.is_empty() {
        lab.host.sh("ip addr add 192.168.88.1/24 dev lan0").ok();
    }
    lab.start_daemon_with(options);
    let directory = lab.dir().join("files");
    std::fs::create_dir(&directory).expect("a directory");
    let directory = directory.display().to_string();
    lab.host.sh(&format!("openssl rand -out {directory}/big {}", size())).ok();
    let sum = digest(&lab.host.sh(&format!("sha256sum {directory}/big")).ok());
    lab.weft("network create net --subnet 172.30.0.0/16").ok();
    lab.weft_args(&["run", "-d", "--name", "c", "--net", "net:kind=veth", "-p", "8080:80", "--", "python3", "-m", "http.server", "80", "--directory", &directory]).ok();
    let switch = lab.state_dir().join("switch.netns");
    lab.host.sh(&format!("for dev in $(nsenter --net={0} ip -o link | grep -o 'wv[0-9a-f]*' | sort -u); do nsenter --net={0} ethtool -K $dev {PLAIN}; done", switch.display())).ok();
    lab.weft_args(&["exec", "c", "sh", "-c", &format!("ethtool -K eth0 {PLAIN}; ip link set eth0 gso_max_segs 1")]).ok();
    let server = lan.command("python3").args(["-m", "http.server", "80", "--directory", &directory]).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn();
    let world = World { lab, lan, directory, sum, _server: Background(server.expect("python3")) };
    eventually("both serve", || world.lan.sh("ss -Hltn").stdout.contains(":80 ") && world.inside("ss -Hltn").stdout.contains(":80 "));
    world
}

impl World {
    fn inside(&self, line: &str) -> Ran {
        self.lab.weft_args(&["exec", "c", "sh", "-c", line])
    }

    /// Packets that the sandbox loses, of a hundred, each way. What it sends is lost behind its TCP, which is told of a
    /// drop in its own host and would only wait: it goes to a station that is not there.
    fn lose(&self, percent: u32) {
        let rules = format!(
            "flush ruleset
            add table inet loss
            add chain inet loss input {{ type filter hook input priority 0; }}
            add rule inet loss input iifname eth0 numgen random mod 100 < {percent} counter drop
            add table netdev loss
            add chain netdev loss output {{ type filter hook egress device eth0 priority 0; }}
            add rule netdev loss output ether type ip numgen random mod 100 < {percent} counter ether daddr set 02:00:00:00:00:99"
        );
        self.inside(&format!("echo '{rules}' | nft -f -")).ok();
    }

    /// How many it lost since.
    fn lost(&self) -> u64 {
        let rules = self.inside("nft list ruleset").ok();
        rules.split("counter packets ").skip(1).filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok()).sum()
    }
}

fn digest(text: &str) -> String {
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn bulk(options: &str) {
    let world = world(options);
    for percent in [0, 1, 5] {
        world.lose(percent);
        let fetch = |url: &str| format!("curl -sS -m 1800 http://{url}/big | sha256sum");
        let mut before = 0;
        for (way, fetched) in [
            ("out", &(|| world.inside(&fetch("192.168.88.2"))) as &dyn Fn() -> Ran),
            ("in", &|| world.lan.sh(&fetch("192.168.88.1:8080"))),
            ("hairpin", &|| world.inside(&fetch("192.168.88.1:8080"))),
        ] {
            let began = Instant::now();
            assert_eq!(digest(&fetched().ok()), world.sum, "{way}, {percent} % lost, {}", world.directory);
            let (seconds, lost) = (began.elapsed().as_secs_f64(), world.lost() - before);
            before += lost;
            eprintln!("{}, {way}, {percent} % of packets lost: {} MiB in {seconds:.1} s, {lost} packets lost", if options.is_empty() { "host sockets" } else { "packets" }, size() >> 20);
            // Were whole super-frames lost, it would be a fraction of this.
            assert!(lost >= size() / 1448 * u64::from(percent) / 200, "{lost} packets are too few for {percent} %");
        }
    }
}
