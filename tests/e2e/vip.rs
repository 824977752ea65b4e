//! A service's name leads to one virtual address, whose connections are balanced. SPEC row: C13.

use std::collections::BTreeMap;

use libtest_mimic::Trial;
use serde_json::Value;
use weft_tests::{
    lab::Lab,
    ns::Ns,
    run::{Ran, eventually},
    runner::{Need, test},
};

use crate::uplink::{ASK, ECHO};

const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("curl"), Need::Tool("python3"), Need::Tool("dig"), Need::Tool("ping")];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("vip::c13_twenty_curls_hit_both_and_killing_one_loses_none", NEEDS, curls),
        test("vip::c13_on_a_packet_uplink_and_on_an_internal_network", NEEDS, everywhere),
        test("vip::the_client_s_address_is_kept_and_the_service_reaches_itself", NEEDS, client),
        test("vip::datagrams_with_fragments", NEEDS, datagrams),
        test("vip::who_leaves_ends_and_nobody_left_is_told", NEEDS, leaving),
        test("vip::kill_9_and_restart", NEEDS, restart),
        test("vip::iperf3_through_it", &[Need::Root, Need::Tun, Need::Tool("iperf3")], iperf),
        test("vip::from_a_network_that_is_routed_to", NEEDS, routed),
        test("vip::on_an_overlay_each_node_serves_its_own", NEEDS, overlay),
        test("vip::by_docker", &[Need::Root, Need::Tun, Need::Tool("docker"), Need::Tool("curl"), Need::Tool("python3")], docker),
        test("vip::bad_words_and_full_pools_are_told", NEEDS, refusals),
    ]
}

/// Answers with its own name, the client's address and the client's port.
const NAME: &str = "import socket,sys\ns=socket.socket(socket.AF_INET6)\ns.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)\ns.bind(('::',80))\ns.listen(64)\nwhile True:\n c,a=s.accept()\n try:\n  c.recv(1000)\n  b=(sys.argv[1]+'|'+a[0].replace('::ffff:','')).encode()\n  c.sendall(b'HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n'%len(b)+b)\n except OSError: pass\n c.close()\n";

fn lab_with(options: &str, words: &str) -> Lab {
    let lab = Lab::with_options(options);
    lab.weft(&format!("network create net --subnet 10.9.0.0/24 --subnet fd09::/64 {words}")).ok();
    lab
}

fn lab() -> Lab {
    lab_with("", "")
}

fn within(lab: &Lab, sandbox: &str, line: &str) -> Ran {
    lab.weft_args(&["exec", sandbox, "sh", "-c", line])
}

fn sleeper(lab: &Lab, name: &str, network: &str) {
    lab.weft(&format!("run -d --name {name} --net {network} -- sleep 1000")).ok();
}

fn listens(lab: &Lab, sandbox: &str) {
    eventually("its server listens", || within(lab, sandbox, "ss -Hlun; ss -Hltn").stdout.contains(":80 "));
}

fn web(lab: &Lab, name: &str) {
    lab.weft_args(&["run", "-d", "--name", name, "--net", "net", "--network-alias", "web", "--vip", "--", "python3", "-c", NAME, name]).ok();
    listens(lab, name);
}

/// Who answers so many curls, and how often; `from` must be what they say the client is.
fn hits(lab: &Lab, client: &str, url: &str, count: usize, from: &str) -> BTreeMap<String, usize> {
    let said = within(lab, client, &format!("for i in $(seq {count}); do curl -sS -m 10 {url} || exit 1; echo; done")).ok();
    let mut hits = BTreeMap::new();
    for line in said.lines() {
        let (name, seen) = line.split_once('|').unwrap_or_else(|| panic!("{said}"));
        assert_eq!(seen, from, "{said}");
        *hits.entry(name.to_owned()).or_default() += 1;
    }
    hits
}

/// Told at once: curl's 7, where silence would be 28.
fn is_refused(lab: &Lab, client: &str, url: &str) -> bool {
    within(lab, client, &format!("curl -s -m 5 {url}; echo $?")).ok().trim() == "7"
}

fn both(count: usize) -> BTreeMap<String, usize> {
    BTreeMap::from([("w1".into(), count), ("w2".into(), count)])
}

fn vips(lab: &Lab) -> Value {
    lab.weft("vip ls --json").json()
}

fn address(lab: &Lab, family: usize) -> String {
    vips(lab)[0]["addresses"][family].as_str().expect("an address").to_owned()
}

/// C13: 20 curls hit both; of a loop of curls none fails while one endpoint is killed.
fn curls() {
    let lab = lab();
    web(&lab, "w1");
    web(&lab, "w2");
    sleeper(&lab, "c", "net");
    let address = address(&lab, 0);
    assert_eq!(within(&lab, "c", "dig +short web").ok().trim(), address);
    assert_eq!(within(&lab, "c", "dig +short web.net AAAA").ok().trim(), vips(&lab)[0]["addresses"][1]);
    assert_eq!(within(&lab, "c", &format!("dig +short -x {address}")).ok().trim(), "web.net.");
    assert_eq!(hits(&lab, "c", "-4 http://web/", 20, "10.9.0.5"), both(10));
    assert_eq!(hits(&lab, "c", "-6 http://web/", 20, "fd09::5"), both(10));
    // The gateway answers pings.
    within(&lab, "c", &format!("ping -c 1 -W 2 {address} && ping -6 -c 1 -W 2 web")).ok();
    let shown = lab.weft("vip ls").ok();
    assert!(shown.contains("web") && shown.contains(&address) && shown.contains("w2"), "{shown}");
    assert_eq!(lab.weft("network inspect net").json()[0]["vips"]["web"][0], *address);
    assert!(vips(&lab)[0]["endpoints"].as_array().expect("endpoints").iter().all(|endpoint| endpoint["total"] == 10), "{}", vips(&lab));

    let line = "for i in $(seq 200); do curl -4 -sS -m 10 http://web/ || echo lost $?; echo; done";
    let mut command = lab.weft_command();
    command.args(["exec", "c", "sh", "-c", line]).stdout(std::process::Stdio::piped());
    let looping = command.spawn().expect("weft");
    eventually("the loop is on its way", || vips(&lab)[0]["endpoints"][0]["total"].as_u64().is_some_and(|total| total > 30));
    // Its process dies: nobody tells us but the kernel.
    let pid = lab.weft("inspect w1").json()[0]["process"]["pid"].as_u64().expect("a process");
    weft_tests::run::run(std::process::Command::new("kill").args(["-9", &pid.to_string()])).ok();
    let said = looping.wait_with_output().expect("the loop");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let answers: Vec<_> = said.lines().filter(|line| !line.is_empty()).collect();
    // The one that was open when it died may have ended with it (curl's 52 and 56); no new one is refused or waits in vain.
    let lost: Vec<_> = answers.iter().filter(|line| line.starts_with("lost")).collect();
    assert!(lost.len() <= 1 && lost.iter().all(|line| matches!(**line, "lost 52" | "lost 56")), "{said}");
    assert!(answers.len() == 200 && answers.iter().filter(|line| line.starts_with("w2|")).count() > 100, "{said}");
    assert_eq!(hits(&lab, "c", "-4 http://web/", 4, "10.9.0.5"), BTreeMap::from([("w2".into(), 4)]));
    assert_eq!(vips(&lab)[0]["addresses"][0], *address);
    lab.weft("rm -f w2").ok();
    assert_eq!(vips(&lab), serde_json::json!([]), "given back with the last");
    assert!(within(&lab, "c", "dig web").ok().contains("NXDOMAIN"));
}

fn everywhere() {
    let host = "--uplink tap:up0,addr=192.0.2.9/24";
    for (options, words) in [(host, ""), ("", "--internal")] {
        let lab = lab_with(options, words);
        web(&lab, "w1");
        web(&lab, "w2");
        sleeper(&lab, "c", "net");
        assert_eq!(hits(&lab, "c", "-4 http://web/", 6, "10.9.0.5"), both(3), "{options}{words}");
        assert_eq!(hits(&lab, "c", "-6 http://web/", 6, "fd09::5"), both(3), "{options}{words}");
    }
}

fn client() {
    let lab = lab();
    web(&lab, "w1");
    // One that asks the service it is: the virtual address is its client.
    let address = address(&lab, 0);
    assert_eq!(hits(&lab, "w1", "-4 http://web/", 4, &address), BTreeMap::from([("w1".into(), 4)]));
    web(&lab, "w2");
    let said = within(&lab, "w1", "for i in 1 2 3 4; do curl -4 -sS -m 10 http://web/; echo; done").ok();
    assert_eq!((said.matches(&format!("w1|{address}")).count(), said.matches("w2|10.9.0.2").count()), (2, 2), "{said}");
    // By its own name and address, as ever.
    assert_eq!(hits(&lab, "w1", "-4 http://w2/", 2, "10.9.0.2"), BTreeMap::from([("w2".into(), 2)]));
    assert!(lab.weft_args(&["trace", "w1", &format!("tcp 10.9.0.2:4000 > {address}:80")]).ok().contains("a new connection gets the next of"));
}

/// Larger than a packet both ways, more than one from one socket, and an endpoint without a server.
fn datagrams() {
    let lab = lab();
    for name in ["w1", "w2"] {
        lab.weft_args(&["run", "-d", "--name", name, "--net", "net", "--network-alias", "web", "--vip", "--", "python3", "-c", ECHO, "80"]).ok();
        listens(&lab, name);
    }
    sleeper(&lab, "c", "net");
    for (to, own) in [(address(&lab, 0), "10.9.0.5"), (address(&lab, 1), "fd09::5")] {
        for size in ["10", "5000", "60000"] {
            let said = lab.weft_args(&["exec", "c", "python3", "-c", ASK, &to, "80", size]).ok();
            assert_eq!(said.trim(), format!("{own} {size}"));
        }
        // A port that nobody has: the error comes back translated, and is believed.
        let said = lab.weft_args(&["exec", "c", "python3", "-c", ASK, &to, "81", "10"]).ok();
        assert_eq!(said.trim(), "ConnectionRefusedError");
    }
}

fn leaving() {
    let lab = lab();
    web(&lab, "w1");
    web(&lab, "w2");
    sleeper(&lab, "c", "net");
    lab.weft("network disconnect net w1").ok();
    assert_eq!(hits(&lab, "c", "-4 http://web/", 4, "10.9.0.5"), BTreeMap::from([("w2".into(), 4)]));
    lab.weft("network connect net w1 --alias web --vip").ok();
    assert_eq!(hits(&lab, "c", "-4 http://web/", 4, "10.9.0.5"), both(2));
    // Held connections: each is of one endpoint, and ends when that goes.
    let hold = "import socket,sys\nall=[socket.create_connection((sys.argv[1],80)) for _ in range(4)]\nprint('open',flush=True)\nsys.stdin.readline()\nfor s in all:\n try:\n  s.send(b'x'); print(s.recv(100)[-20:].split(b'\\n')[-1][:2].decode())\n except OSError as e: print(type(e).__name__)\n";
    let address = address(&lab, 0);
    let mut command = lab.weft_command();
    command.args(["exec", "c", "python3", "-c", hold, &address]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut holding = command.spawn().expect("weft");
    let open = |vips: &Value| vips[0]["endpoints"].as_array().into_iter().flatten().map(|endpoint| endpoint["connections"].as_u64().unwrap_or(0)).sum::<u64>();
    eventually("four are open", || open(&vips(&lab)) >= 4);
    lab.weft("network disconnect net w1").ok();
    drop(holding.stdin.take());
    let said = holding.wait_with_output().expect("python3");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert_eq!((said.matches("ConnectionResetError").count(), said.matches("w2").count()), (2, 2), "{said}");
    // Down is as gone; with nobody left the client is told at once.
    lab.weft("link set w2:eth0 down").ok();
    assert_eq!(vips(&lab)[0]["endpoints"], serde_json::json!([]));
    assert!(is_refused(&lab, "c", "-4 http://web/"));
    let said = lab.weft_args(&["exec", "c", "python3", "-c", ASK, &address, "80", "10"]).ok();
    assert_eq!(said.trim(), "ConnectionRefusedError", "port unreachable");
    lab.weft("link set w2:eth0 up").ok();
    assert_eq!(hits(&lab, "c", "-4 http://web/", 2, "10.9.0.5"), BTreeMap::from([("w2".into(), 2)]));
}

fn restart() {
    let mut lab = lab();
    web(&lab, "w1");
    web(&lab, "w2");
    sleeper(&lab, "c", "net");
    let before = vips(&lab)[0]["addresses"].clone();
    assert_eq!(hits(&lab, "c", "-4 http://web/", 4, "10.9.0.5"), both(2));
    lab.kill_daemon();
    lab.start_daemon();
    assert_eq!(vips(&lab)[0]["addresses"], before);
    assert_eq!(hits(&lab, "c", "-4 http://web/", 4, "10.9.0.5"), both(2));
    web(&lab, "w3");
    assert_eq!(vips(&lab)[0]["addresses"], before);
}

fn iperf() {
    let lab = lab();
    lab.weft("run -d --name server --net net --network-alias speed --vip -- iperf3 -s").ok();
    eventually("iperf3 listens", || within(&lab, "server", "ss -Hltn").stdout.contains(":5201 "));
    sleeper(&lab, "c", "net");
    for words in ["-c speed", "-c speed -R", "-6 -c speed", "-u -b 50M -c speed"] {
        let report = within(&lab, "c", &format!("for n in 1 2 3 4 5; do out=$(iperf3 -J -t 1 {words}) && break; sleep 0.5; done; echo \"$out\"")).json();
        let sum = if words.starts_with("-u") { &report["end"]["sum"] } else { &report["end"]["sum_received"] };
        eprintln!("iperf3 {words}: {:.2} Gbit/s", sum["bits_per_second"].as_f64().unwrap_or(0.0) / 1e9);
        assert!(sum["bytes"].as_u64().is_some_and(|bytes| bytes > 1_000_000), "{words}: {report}");
    }
}

fn routed() {
    let lab = lab();
    lab.weft("network create other --subnet 10.8.0.0/24 --subnet fd08::/64").ok();
    lab.weft("network route add net other").ok();
    web(&lab, "w1");
    web(&lab, "w2");
    sleeper(&lab, "far", "other");
    for (family, own) in [(0, "10.8.0.2"), (1, "fd08::2")] {
        let to = address(&lab, family);
        let url = if family == 1 { format!("http://[{to}]/") } else { format!("http://{to}/") };
        assert_eq!(hits(&lab, "far", &url, 6, own), both(3));
        within(&lab, "far", &format!("ping -c 1 -W 2 {to}")).ok();
    }
    lab.weft("rm -f w1").ok();
    lab.weft("link set w2:eth0 down").ok();
    assert!(is_refused(&lab, "far", &format!("http://{}/", address(&lab, 0))));
}

/// Two nodes that know nothing of each other's services: each has its own, on a network that they share.
fn overlay() {
    let labs = [Lab::without_daemon(), Lab::without_daemon()];
    let wire = labs[0].ns("wire");
    wire.sh("ip link add br0 type bridge && ip link set br0 up").ok();
    let mut nodes = Vec::new();
    for (number, mut lab) in (1..).zip(labs) {
        node(&wire, &lab.host, number);
        lab.start_daemon();
        lab.weft(&format!("network create -d overlay net --subnet 10.9.0.0/24 --ip-range 10.9.0.{}/28 --peer 192.168.88.1 --peer 192.168.88.2", number * 16)).ok();
        nodes.push(lab);
    }
    web(&nodes[0], "w1");
    web(&nodes[1], "w2");
    sleeper(&nodes[0], "c", "net");
    let vip = address(&nodes[0], 0);
    // The other node's client goes by its own gateway, and so to its own node's service.
    assert_ne!(vip, address(&nodes[1], 0));
    assert_eq!(hits(&nodes[0], "c", "-4 http://web/", 3, "10.9.0.19"), BTreeMap::from([("w1".into(), 3)]));
    // Unbalanced talk with the other node is as ever.
    eventually("the overlay carries", || within(&nodes[0], "c", "curl -sS -m 5 http://10.9.0.33/").stdout.starts_with("w2|10.9.0.19"));
}

fn node(wire: &Ns, host: &Ns, number: u8) {
    let wire = &wire.name;
    host.sh(&format!("ip link add eth0 type veth peer name n{number} netns {wire} && ip addr add 192.168.88.{number}/24 dev eth0 && ip link set eth0 up && ip -n {wire} link set n{number} master br0 up")).ok();
}

/// As `docker run --network name=NET,driver-opt=weft.vip=NAME` asks for it.
fn docker() {
    let lab = lab();
    let docker = |arguments: &[&str]| {
        let mut command = lab.host.command("docker");
        command.env("DOCKER_HOST", format!("unix://{}", lab.state_dir().join("api.sock").display())).env("DOCKER_CONFIG", lab.dir()).args(arguments);
        weft_tests::run::run(&mut command)
    };
    for name in ["w1", "w2"] {
        docker(&["run", "-d", "--name", name, "--network", "name=net,driver-opt=weft.vip=web", "host", "python3", "-c", NAME, name]).ok();
        listens(&lab, name);
    }
    sleeper(&lab, "c", "net");
    assert_eq!(hits(&lab, "c", "-4 http://web/", 6, "10.9.0.5"), both(3));
    docker(&["stop", "-t", "0", "w1"]).ok();
    assert_eq!(hits(&lab, "c", "-4 http://web/", 2, "10.9.0.5"), BTreeMap::from([("w2".into(), 2)]));
    docker(&["start", "w1"]).ok();
    listens(&lab, "w1");
    assert_eq!(hits(&lab, "c", "-4 http://web/", 6, "10.9.0.5"), both(3));
    let shown = docker(&["inspect", "--format", "{{json (index .NetworkSettings.Networks \"net\").DriverOpts}}", "w1"]).ok();
    assert_eq!(shown.trim(), r#"{"weft.vip":"web"}"#);
}

fn refusals() {
    let lab = lab();
    let run = |words: &str| lab.weft(&format!("run -d {words} -- sleep 1000"));
    run("--name a --net net --network-alias web --vip").ok();
    for (words, culprit) in [
        ("--name b --net net --vip", "which service"),
        ("--name b --net none --vip", "need a network"),
        ("--name web --net net", "service with a virtual address"),
        ("--name b --net net --network-alias web", "service with a virtual address"),
        ("--name b --net net --network-alias a --vip", "name of sandbox a"),
        ("--name b --net net --network-alias b --vip", "own name"),
    ] {
        let error = run(words).fails();
        assert!(error.contains(culprit), "{words}: {error}");
    }
    assert_eq!(vips(&lab).as_array().map(Vec::len), Some(1));
    lab.weft("network create small --subnet 10.7.0.0/29").ok();
    for (name, service) in [("s1", "one"), ("s2", "two")] {
        run(&format!("--name {name} --net small --network-alias {service} --vip")).ok();
    }
    let error = run("--name s3 --net small --network-alias three --vip").fails();
    assert!(error.contains("no free address for the virtual address of three"), "{error}");
    assert!(lab.weft("ps --json").json().as_array().expect("list").iter().all(|sandbox| sandbox["name"] != "s3"), "nothing half-made");
    run("--name s3 --net small --network-alias two --vip").ok();
    // A station that comes from outside cannot have it either.
    let error = lab.weft(&format!("run -d --net net --ip {} -- sleep 1", address(&lab, 0))).fails();
    assert!(error.contains("virtual address of service web"), "{error}");
}
