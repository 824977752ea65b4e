//! The daemon's file in Docker's words, its listeners, and changes while it runs. SPEC rows: J1 to J4, V6.

use libtest_mimic::Trial;
use weft_tests::{
    lab::Lab,
    ns::Background,
    run::{Ran, eventually, run, words},
    runner::{Need, test},
};

use crate::names::fake;

const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("ping"), Need::Tool("curl")];
const DNS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("ping"), Need::Tool("python3"), Need::Tool("dig")];
const DOCKER: &[Need] = &[Need::Root, Need::Tun, Need::Tool("docker"), Need::Tool("curl"), Need::Tool("openssl")];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("config::j1_daemon_json_as_seen_from_inside", DNS, j1),
        test("config::j2_the_sample_contradicts_itself", NEEDS, j2),
        test("config::j3_v6_listeners", DOCKER, listeners),
        test("config::j3_tls", DOCKER, tls),
        test("config::j4_each_key_is_used_or_named", NEEDS, j4),
        test("config::network_edit_reaches_everybody", NEEDS, edit),
        test("config::diff_and_apply", NEEDS, apply),
        test("config::apply_is_all_or_nothing", NEEDS, all_or_nothing),
    ]
}

/// A lab whose daemon was started with that file.
#[track_caller]
fn with_file(text: &str) -> Lab {
    let mut lab = Lab::without_daemon();
    let file = write(&lab, "daemon.json", text);
    lab.start_daemon_with(&format!("--config {file}"));
    lab
}

#[track_caller]
fn write(lab: &Lab, name: &str, text: &str) -> String {
    let path = lab.dir().join(name);
    std::fs::write(&path, text).expect("a file");
    path.to_string_lossy().into_owned()
}

#[track_caller]
fn sleeper(lab: &Lab, name: &str, options: &str) {
    lab.weft(&format!("run -d --name {name} {options} -- sleep 1000")).ok();
}

#[track_caller]
fn within(lab: &Lab, name: &str, script: &str) -> String {
    lab.weft_args(&["exec", name, "sh", "-c", script]).ok()
}

fn j1() {
    // J1, J4: what the file says of the default network is what a sandbox finds.
    let mut lab = Lab::without_daemon();
    lab.host.ip("addr add 10.20.1.2/32 dev lo").ok();
    let (_server, asked) = fake(&lab, "10.20.1.2");
    let file = write(
        &lab,
        "daemon.json",
        r#"{"bip":"192.168.1.5/24","fixed-cidr":"192.168.1.0/25","default-gateway":"192.168.1.254","mtu":1400,"dns":["10.20.1.2"],
            "dns-search":["corp.test"],"dns-opts":["timeout:3"],"ip":"127.0.0.1","icc":false,"labels":["site=lab"],
            "default-address-pools":[{"base":"10.77.0.0/16","size":24}],"default-network-opts":{"bridge":{"com.docker.network.driver.mtu":"1300"}}}"#,
    );
    lab.start_daemon_with(&format!("--config {file}"));
    sleeper(&lab, "a", "-p 8080:80");
    sleeper(&lab, "b", "");
    let seen = within(&lab, "a", "ip -4 route; ip -4 addr show eth0; cat /etc/resolv.conf");
    for part in ["default via 192.168.1.254 dev eth0", "mtu 1400", "/24 brd 192.168.1.255", "search corp.test", "timeout:3"] {
        assert!(seen.contains(part), "{part}: {seen}");
    }
    // The pool is the lower half; the gateway answers under both addresses.
    let addresses = lab.weft("inspect a b").ok();
    assert!(addresses.contains("192.168.1.1/24") && addresses.contains("192.168.1.2/24"), "{addresses}");
    within(&lab, "a", "ping -c 1 -W 2 192.168.1.254 && ping -c 1 -W 2 192.168.1.5");
    assert!(within(&lab, "a", "dig +short one.example.org").contains("10.20.1.2"), "the resolver asks the daemon's server");
    assert!(std::fs::read_to_string(asked).expect("what was asked").starts_with("one"));
    assert_eq!(lab.weft("exec a ping -c 1 -W 1 192.168.1.2").code, Some(1), "icc");
    assert!(lab.weft("publish ls").ok().contains("127.0.0.1:8080"), "ip");
    // Networks that say nothing get their subnet and MTU from the defaults.
    lab.weft("network create more").ok();
    let more = lab.weft("network inspect more").ok();
    assert!(more.contains("10.77.0.0/24") && more.contains("\"mtu\": 1300"), "{more}");
    // A restart with a changed file changes the default network, and who is in it.
    write(&lab, "daemon.json", r#"{"bip":"192.168.0.5/16","mtu":1450}"#);
    lab.stop_daemon();
    lab.start_daemon();
    let seen = within(&lab, "a", "ip -4 route; ip -4 addr show eth0; ping -c 1 -W 2 192.168.0.5");
    assert!(seen.contains("default via 192.168.0.5") && seen.contains("mtu 1450") && seen.contains("/16 brd"), "{seen}");
}

/// The file of the article, as it stands there.
const SAMPLE: &str = r#"{
"bip": "192.168.1.5/24",
"fixed-cidr": "10.20.0.0/16",
"fixed-cidr-v6": "2001:db8::/64",
"mtu": 1500,
"default-gateway": "10.20.1.1",
"default-gateway-v6": "2001:db8:abcd::89",
"dns": ["10.20.1.2","10.20.1.3"]
}
"#;

fn j2() {
    // J2: refused, with both keys of each contradiction and what to do; without bip it is sound.
    let lab = Lab::without_daemon();
    let file = write(&lab, "daemon.json", SAMPLE);
    let error = lab.weft(&format!("daemon --config {file}")).fails();
    for keys in [["fixed-cidr 10.20.0.0/16", "bip 192.168.1.5/24", "leave bip out"], ["default-gateway 10.20.1.1", "bip 192.168.1.5/24", "choose one inside"]] {
        assert!(error.lines().any(|line| keys.iter().all(|key| line.contains(key))), "{error}");
    }
    assert!(error.contains("daemon.json") && !lab.state_dir().join("state.json").exists(), "{error}");
    let lab = with_file(&SAMPLE.replace("\"bip\": \"192.168.1.5/24\",\n", ""));
    let seen = lab.weft("run -- ip -4 route").ok();
    assert!(seen.contains("default via 10.20.1.1") && seen.contains("10.20.0.0/16"), "{seen}");
    assert!(lab.log().contains("fixed-cidr-v6: without effect"), "{}", lab.log());
}

fn listeners() {
    // J3, V6: a unix socket alone unless told; several when told, with a loud warning.
    let mut lab = Lab::start();
    assert!(!lab.host.sh("ss -Hltn").stdout.contains(":2375"));
    lab.stop_daemon();
    let (state, second) = (lab.state_dir().join("api.sock"), lab.dir().join("docker.sock"));
    let hosts = format!("-H tcp://0.0.0.0:2375 -H unix://{} -H unix://{}", state.display(), second.display());
    lab.start_daemon_with(&hosts);
    assert_eq!(lab.host.run("curl -s http://127.0.0.1:2375/_ping").ok(), "OK");
    for socket in [&state, &second] {
        assert_eq!(lab.host.run(&format!("curl -s --unix-socket {} http://weft/_ping", socket.display())).ok(), "OK");
    }
    let docker = run(lab.host.command("docker").env("DOCKER_CONFIG", lab.dir()).args(words("-H tcp://127.0.0.1:2375 network ls"))).ok();
    assert!(docker.contains("bridge"), "{docker}");
    // Streams that take the connection over go by TCP too.
    let said = run(lab.host.command("docker").env("DOCKER_CONFIG", lab.dir()).args(words("-H tcp://127.0.0.1:2375 run --rm host echo over tcp"))).ok();
    assert_eq!(said, "over tcp\n");
    assert!(lab.log().contains("WHOEVER REACHES tcp://0.0.0.0:2375"), "{}", lab.log());
    // A caller whose host is gone is missed.
    let held = run(lab.host.command("bash").args(["-c", "exec 3<>/dev/tcp/127.0.0.1/2375 && sleep 0.3 && ss -Hton state established '( sport = :2375 )'"])).ok();
    assert!(held.contains("timer:(keepalive"), "{held}");
    lab.stop_daemon();
    assert!(!state.exists() && !second.exists(), "the sockets are gone");
    // The same from the file.
    let file = write(&lab, "daemon.json", &format!(r#"{{"hosts":["tcp://0.0.0.0:2375","unix://{}"]}}"#, state.display()));
    lab.start_daemon_with(&format!("--config {file}"));
    assert_eq!(lab.host.run("curl -s http://127.0.0.1:2375/_ping").ok(), "OK");
    lab.stop_daemon();
    // Not from both, as in Docker; and only what there is.
    let error = lab.weft(&format!("daemon --config {file} -H unix://{}", state.display())).fails();
    assert!(error.contains("the following directives are specified both as a flag and in the configuration file: hosts"), "{error}");
    for (host, part) in [("fd://", "systemd"), ("tcp://127.0.0.1:x", "port"), ("ftp://a", "tcp://ADDRESS:PORT")] {
        assert!(lab.weft(&format!("daemon -H {host}")).fails().contains(part), "{host}");
    }
    // One that cannot be bound: none is.
    let _taken = Background(lab.host.command("python3").args(["-m", "http.server", "2375"]).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().expect("python3"));
    eventually("the port is taken", || lab.host.sh("ss -Hltn").stdout.contains(":2375"));
    let error = lab.weft(&format!("daemon {hosts}")).fails();
    assert!(error.contains("tcp://0.0.0.0:2375") && !second.exists(), "{error}");
}

const CERTIFICATES: &str = r#"set -e
new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $1-key.pem -out $1.csr -subj /CN=$1 2>/dev/null
  printf "$2" >$1.ext; openssl x509 -req -in $1.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -out $1.pem -extfile $1.ext 2>/dev/null; }
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca-key.pem -out ca.pem -subj /CN=ca -days 2 2>/dev/null
new server "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth"
new client "extendedKeyUsage=clientAuth"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout stranger-key.pem -out stranger.pem -subj /CN=stranger -days 2 2>/dev/null
"#;

fn tls() {
    // J3: the docker command's own TLS flags, and nobody without a certificate.
    let mut lab = Lab::without_daemon();
    lab.host.sh(&format!("cd {}; {CERTIFICATES}", lab.dir().display())).ok();
    let directory = lab.dir().to_owned();
    let pem = |name: &str| directory.join(format!("{name}.pem")).display().to_string();
    let hosts = format!("-H unix://{} -H tcp://127.0.0.1:2376", lab.state_dir().join("api.sock").display());
    let server = format!("--tlscert {} --tlskey {}", pem("server"), pem("server-key"));
    let verify = format!("{hosts} --tlsverify --tlscacert {} {server}", pem("ca"));
    let docker = |who: &str, ca: &str| -> Ran {
        let flags = format!("-H tcp://127.0.0.1:2376 --tlsverify --tlscacert {} --tlscert {} --tlskey {} network ls", pem(ca), pem(who), pem(&format!("{who}-key")));
        run(lab.host.command("docker").env("DOCKER_CONFIG", lab.dir()).args(words(&flags)))
    };
    let curl = |lab: &Lab, options: &str| lab.host.run(&format!("curl -s -m 5 --cacert {} {options} https://127.0.0.1:2376/_ping", pem("ca")));
    let client = format!("--cert {} --key {}", pem("client"), pem("client-key"));
    // Whoever says nothing holds up nobody.
    let daemon = lab.weft_command().arg("daemon").args(words(&verify)).stderr(std::process::Stdio::null()).spawn().expect("weft daemon");
    let daemon = Background(daemon);
    eventually("it answers", || curl(&lab, &client).stdout == "OK");
    let _mute = Background(lab.host.command("python3").args(["-c", "import socket,time; s=socket.create_connection(('127.0.0.1',2376)); time.sleep(60)"]).spawn().expect("python3"));
    assert!(docker("client", "ca").ok().contains("bridge"));
    docker("stranger", "ca").fails();
    docker("client", "stranger").fails();
    assert_ne!(curl(&lab, "").stdout, "OK", "without a certificate");
    assert_ne!(lab.host.run("curl -s -m 5 http://127.0.0.1:2376/_ping").stdout, "OK", "without TLS");
    drop(daemon);
    // Encrypted, but open.
    lab.start_daemon_with(&format!("{hosts} --tls {server}"));
    assert_eq!(curl(&lab, "").ok(), "OK");
    assert!(lab.log().contains("asks nobody who he is"), "{}", lab.log());
    lab.stop_daemon();
    for (options, part) in [
        (format!("{hosts} --tls"), "tlscert"),
        (format!("{hosts} --tlsverify {server}"), "tlscacert"),
        (format!("--tls {server}"), "tcp://"),
        (format!("{hosts} --tls --tlscert {} --tlskey {}", pem("server"), pem("client-key")), "server.pem"),
        (format!("{hosts} --tls --tlscert /no/such --tlskey {}", pem("server-key")), "/no/such"),
    ] {
        let error = lab.weft(&format!("daemon {options}")).fails();
        assert!(error.contains(part), "{options}: {error}");
    }
}

fn j4() {
    // J4: a key is used, named as meaningless, or refused by name; never passed over.
    let lab = Lab::without_daemon();
    for (text, parts) in [
        (r#"{"bipp":"10.0.0.1/8"}"#, ["daemon.json", "bipp"]),
        (r#"{"bridge":"br0"}"#, ["bridge br0", "--dev br0"]),
        (r#"{"data-root":"/x"}"#, ["data-root", "--state-dir"]),
        (r#"{"ipv6":true,"fixed-cidr-v6":"2001:db8::/64","default-gateway-v6":"2001:db8:abcd::89"}"#, ["default-gateway-v6", "fixed-cidr-v6"]),
        (r#"{"default-address-pools":[{"base":"10.0.0.0/24","size":16}]}"#, ["default-address-pools", "10.0.0.0/24"]),
        (r#"{"default-network-opts":{"bridge":{"what":"1"}}}"#, ["default-network-opts", "what"]),
        (r#"{"log-level":"chatty"}"#, ["log-level", "chatty"]),
        (r#"{"labels":["nokey"]}"#, ["labels", "nokey"]),
        (r#"{"mtu":"big"}"#, ["mtu", "daemon.json"]),
        ("{", ["daemon.json", "line 1"]),
    ] {
        let file = write(&lab, "daemon.json", text);
        let error = lab.weft(&format!("daemon --config {file}")).fails();
        assert!(parts.iter().all(|part| error.contains(part)), "{text}\n{error}");
    }
    let mut lab = with_file(r#"{"iptables":false,"userland-proxy":false,"log-driver":"json-file","bridge":"none","debug":true}"#);
    for key in ["iptables", "userland-proxy", "log-driver"] {
        assert!(lab.log().contains(&format!("{key}: without effect")), "{key}: {}", lab.log());
    }
    assert!(!lab.weft("network ls").ok().contains("bridge"), "bridge: none");
    // The same keys in TOML; and IPv6.
    lab.stop_daemon();
    let file = write(&lab, "weft.toml", "[default-network]\nbip = \"172.30.0.1/16\"\nipv6 = true\nfixed-cidr-v6 = \"fd30::/64\"\nip-masq = false\n");
    lab.start_daemon_with(&format!("--config {file}"));
    let seen = lab.weft("run -- ip addr show eth0").ok();
    assert!(seen.contains("172.30.0.2/16") && seen.contains("fd30::2/64"), "{seen}");
    assert_eq!(lab.weft("network inspect bridge").json()[0]["masquerade"], false);
}

fn edit() {
    let mut lab = Lab::start();
    lab.weft("network create lab --subnet 10.9.0.0/24 --label tier=one").ok();
    sleeper(&lab, "a", "--net lab");
    sleeper(&lab, "b", "--net lab");
    let said = lab.weft("network edit lab --subnet 10.9.0.0/16 --gateway 10.9.255.254 --mtu 1400 --label env=x --label-rm tier --dry-run").ok();
    assert!(said.contains("mtu: 1500 -> 1400") && said.contains("10.9.0.0/24 -> 10.9.0.0/16"), "{said}");
    assert!(within(&lab, "a", "ip link show eth0").contains("mtu 1500"), "nothing has changed yet");
    lab.weft("network edit lab --subnet 10.9.0.0/16 --gateway 10.9.255.254 --mtu 1400 --label env=x --label-rm tier").ok();
    let seen = within(&lab, "a", "ip addr show eth0; ip route; cat /etc/resolv.conf");
    for part in ["mtu 1400", "10.9.0.2/16", "default via 10.9.255.254", "nameserver 10.9.255.254"] {
        assert!(seen.contains(part), "{part}: {seen}");
    }
    within(&lab, "a", "ping -c 1 -W 2 10.9.255.254 && ping -c 1 -W 2 b && ping -c 1 -W 2 -M do -s 1372 b");
    assert_ne!(lab.weft("exec a ping -c 1 -W 1 10.9.0.1").code, Some(0), "the old gateway is gone");
    // Who comes later gets the same, from all of the larger pool.
    lab.weft("run -d --name far --net lab:ip=10.9.200.1 -- sleep 1000").ok();
    within(&lab, "far", "ping -c 1 -W 2 a");
    assert_eq!(lab.weft("network inspect lab").json()[0]["labels"], serde_json::json!({ "env": "x" }));
    // A second family, and isolation.
    lab.weft("network edit lab --subnet fd09::/64 --icc off").ok();
    assert_ne!(lab.weft("exec a ping -c 1 -W 1 10.9.0.3").code, Some(0), "icc");
    lab.weft("network edit lab --icc on").ok();
    assert!(lab.weft("run --net lab -- ip -6 addr show eth0").ok().contains("fd09::"));
    for (line, parts) in [
        ("--subnet 10.8.0.0/24", ["10.9.0.2", "subnet"]),
        ("--gateway 10.9.0.2", ["10.9.0.2", "own"]),
        ("--internal on", ["internal", "a, b"]),
        ("--mtu 20", ["20", "68"]),
        ("--gateway 10.7.0.1", ["10.7.0.1", "10.9.0.0/16"]),
        ("", ["nothing", "--help"]),
    ] {
        let error = lab.weft(&format!("network edit lab {line}")).fails();
        assert!(parts.iter().all(|part| error.contains(part)), "{line}: {error}");
    }
    // It is what it was before the refusals, also after a restart.
    lab.stop_daemon();
    lab.start_daemon();
    within(&lab, "a", "ping -c 1 -W 2 far && ping -c 1 -W 2 10.9.255.254 && ip link show eth0 | grep 'mtu 1400'");
    // Where nobody is, anything may change.
    lab.weft("network create empty --subnet 10.50.0.0/24").ok();
    lab.weft("network edit empty --internal on --subnet 10.51.0.0/24").ok();
    assert!(!lab.weft("run --net empty -- ip route").ok().contains("default"));
}

const WANTED: &str = r#"
[default-network]
mtu = 1450

[[network]]
name = "lab"
subnet = "10.9.0.0/24"

[[sandbox]]
name = "a"
endpoint = [{ network = "lab", ip = "10.9.0.5" }]
command = ["sleep", "1000"]

[[sandbox]]
name = "b"
endpoint = [{ network = "lab" }]
command = ["sleep", "1000"]
publish = ["8081:80"]
"#;

fn apply() {
    let mut lab = Lab::start();
    // Somebody else's, which stays, with its network.
    let other = lab.ns("o");
    lab.weft("network create theirs --subnet 10.60.0.0/24").ok();
    lab.weft(&format!("attach theirs {}", other.path())).ok();
    lab.weft("network create old --subnet 10.61.0.0/24").ok();
    sleeper(&lab, "old", "--net old");
    let file = write(&lab, "want.toml", WANTED);
    let diff = |file: &str| lab.weft(&format!("config diff {file}"));
    let said = diff(&file);
    assert_eq!(said.code, Some(1), "{said:?}");
    for line in ["- sandbox old", "- network old", "~ network bridge: mtu: 1500 -> 1450", "+ network lab", "+ sandbox a", "+ sandbox b"] {
        assert!(said.stdout.lines().any(|seen| seen == line), "{line}: {}", said.stdout);
    }
    assert!(lab.weft("network ls").ok().contains("old"), "a diff changes nothing");
    lab.weft(&format!("config apply {file}")).ok();
    assert_eq!((diff(&file).code, diff(&file).stdout.as_str()), (Some(0), ""));
    within(&lab, "b", "ping -c 1 -W 2 10.9.0.5");
    let networks = lab.weft("network ls").ok();
    assert!(!networks.contains("old") && networks.contains("theirs"), "{networks}");
    // A change of networks, ports and names leaves the processes alone.
    let pid = || lab.weft("inspect a b").json().as_array().expect("two").iter().map(|one| one["process"].clone()).collect::<Vec<_>>();
    let before = pid();
    let changed = WANTED.replace("10.9.0.0/24\"", "10.9.0.0/16\"\nmtu = 1300").replace("8081:80", "8082:80").replace("ip = \"10.9.0.5\"", "ip = \"10.9.7.7\"");
    let file = write(&lab, "want.toml", &format!("{changed}add_host = [\"up:1.2.3.4\"]\n[[network]]\nname = \"more\"\ninternal = true\n"));
    let said = lab.weft(&format!("config apply {file}")).ok();
    assert!(said.contains("~ network lab: mtu: 1500 -> 1300, subnets: 10.9.0.0/24 -> 10.9.0.0/16") && said.contains("+ network more"), "{said}");
    assert_eq!((pid(), diff(&file).code), (before, Some(0)));
    assert!(lab.weft("publish ls").ok().contains(":8082"));
    assert!(within(&lab, "b", "ip link show eth0; getent hosts up; ping -c 1 -W 2 10.9.7.7").contains("mtu 1300"));
    lab.stop_daemon();
    lab.start_daemon();
    assert_eq!(lab.weft(&format!("config diff {file}")).code, Some(0), "also after a restart");
    // A daemon's file has no sandboxes to say: what there is stays, but for the default network.
    let daemon = write(&lab, "daemon.json", r#"{"mtu":1400,"debug":true}"#);
    let said = lab.weft(&format!("config apply {daemon}"));
    assert_eq!(said.stdout, "~ network bridge: mtu: 1450 -> 1400\n", "{said:?}");
}

fn all_or_nothing() {
    let lab = Lab::start();
    let file = write(&lab, "want.toml", WANTED);
    lab.weft(&format!("config apply {file}")).ok();
    let state = || (lab.weft("network ls").ok(), lab.weft("ps").ok(), lab.weft("publish ls").ok(), within(&lab, "a", "ip -4 addr; ip -4 route"));
    let before = state();
    for (text, parts) in [
        // Refused before anything is done.
        (WANTED.replace("\"1000\"]\n\n", "\"2000\"]\n\n"), vec!["sandbox a", "command", "weft rm -f a"]),
        (WANTED.replace("10.9.0.0/24", "10.8.0.0/24"), vec!["10.9.0.5"]),
        (format!("{WANTED}[[network]]\nname = \"x\"\nsubnet = \"10.9.0.0/25\"\n"), vec!["10.9.0.0/25", "overlaps"]),
        (format!("{WANTED}[[sandbox]]\nname = \"c\"\nendpoint = [{{ network = \"nope\" }}]\n"), vec!["nope", "want.toml"]),
        (format!("{WANTED}what = 1\n"), vec!["what", "line"]),
        // Found when it is done: what was done before is taken back.
        (format!("{}[[sandbox]]\nname = \"c\"\ncommand = [\"/no/such/program\"]\nendpoint = [{{ network = \"lab\" }}]\n", WANTED.replace("10.9.0.0/24\"", "10.9.0.0/16\"\nmtu = 1300").replace("8081", "8083")), vec!["sandbox c", "/no/such/program", "as it was"]),
    ] {
        let file = write(&lab, "want.toml", &text);
        let error = lab.weft(&format!("config apply {file}")).fails();
        assert!(parts.iter().all(|part| error.contains(part)), "{text}\n{error}");
        assert_eq!(state(), before, "{text}");
    }
    assert_eq!(lab.weft("config diff /no/such/file").code, Some(2));
}
