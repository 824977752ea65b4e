//! The stock `docker` command against weft's socket. SPEC rows: C3 to C7, C11, C12, O1 to O4, O6, O9 to O11, O13, P5, P6.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use libtest_mimic::Trial;
use serde_json::{Value, json};
use weft_tests::{
    lab::{Lab, install_weft},
    ns::Background,
    run::{eventually, run, words},
    runner::test,
};

use crate::client::{Docker, NEEDS};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("docker::c3_o1_o2_o4_networks", NEEDS, networks),
        test("docker::o10_inspect_has_docker_s_shape", NEEDS, shape),
        test("docker::c4_o11_first_addresses", NEEDS, addresses),
        test("docker::c5_c6_c7_modes", NEEDS, modes),
        test("docker::c11_c12_connect", NEEDS, connect),
        test("docker::o3_o8_o9_o13_refusals", NEEDS, refusals),
        test("docker::p5_p6_publishing", NEEDS, publishing),
        test("docker::run_returns_the_command_s_code", NEEDS, codes),
        test("docker::streams_are_whole", NEEDS, streams),
        test("docker::terminals", NEEDS, terminals),
        test("docker::life_of_a_container", NEEDS, life),
        test("docker::restart_policies", NEEDS, policies),
        test("docker::without_root", NEEDS, without_root),
        test("docker::a_root_directory_as_image", NEEDS, root_directory),
        test("docker::daemon_restart", NEEDS, daemon_restart),
        test("docker::events", NEEDS, events),
        test("docker::no_image_store", NEEDS, no_images),
        test("docker::sandboxes_of_weft_run_are_shown", NEEDS, native),
    ]
}

fn networks() {
    let docker = Docker::start();
    let rows = |docker: &Docker| -> Vec<Vec<String>> {
        docker.run("network ls").ok().lines().skip(1).map(|line| line.split_whitespace().skip(1).map(str::to_owned).collect()).collect()
    };
    assert_eq!(rows(&docker), [["bridge", "bridge", "local"], ["host", "host", "local"], ["none", "null", "local"]]);
    let id = docker.run("network create zookeeper_network --subnet=172.18.0.0/16").ok();
    assert_eq!(id.trim().len(), 64);
    docker.run("network create second --label env=test").ok();
    assert_eq!(docker.args(&["network", "inspect", "second", "--format", "{{(index .IPAM.Config 0).Subnet}} {{.Labels.env}}"]).ok().trim(), "172.19.0.0/16 test");
    docker.run("network create -d bridge --subnet 172.26.0.0/16 --gateway 172.26.0.1 --ip-range 172.26.5.0/24 --aux-address me=172.26.5.0 mybr0").ok();
    docker.run("run -d --name user --network mybr0 host sleep 1000").ok();
    assert!(docker.format("user", "{{.NetworkSettings.Networks.mybr0.IPAddress}}").starts_with("172.26.5."));
    docker.run("exec user ping -c 1 -W 2 172.26.0.1").ok();
    for (filter, wanted) in [("name=zoo", "zookeeper_network"), ("label=env=test", "second"), ("driver=null", "none"), ("type=builtin", "bridge host none"), ("dangling=true", "second zookeeper_network")] {
        let names = docker.args(&["network", "ls", "--filter", filter, "--format", "{{.Name}}"]).ok();
        assert_eq!(names.split_whitespace().collect::<Vec<_>>().join(" "), wanted, "{filter}");
    }
    assert!(docker.run("network rm mybr0").fails().contains("has active endpoints"));
    for name in ["bridge", "host", "none"] {
        assert!(docker.run(&format!("network rm {name}")).fails().contains("is a pre-defined network and cannot be removed"));
    }
    assert_eq!(docker.run("network rm second").ok().trim(), "second");
    let pruned = docker.run("network prune -f").ok();
    assert!(pruned.contains("zookeeper_network") && !pruned.contains("mybr0"), "{pruned}");
    docker.run("network inspect zookeeper_network").fails();
    for command in ["create", "ls", "inspect", "rm", "prune", "connect", "disconnect"] {
        docker.run(&format!("network {command} --help")).ok();
    }
    docker.run("rm -f user").ok();
}

/// What the seeds print for `docker network inspect bridge`, with a member.
const GOLDEN: &str = r#"{"Name":"bridge","Id":"dacb","Created":"2018-10-28T11:05:07.769121664+08:00","Scope":"local","Driver":"bridge","EnableIPv6":false,
"IPAM":{"Driver":"default","Options":null,"Config":[{"Subnet":"172.17.0.0/16","Gateway":"172.17.0.1"}]},"Internal":false,"Attachable":false,"Ingress":false,
"ConfigFrom":{"Network":""},"ConfigOnly":false,"Containers":{"ID":{"Name":"t1","EndpointID":"ab","MacAddress":"02:42:ac:11:00:02","IPv4Address":"172.17.0.2/16","IPv6Address":""}},
"Options":{"com.docker.network.bridge.default_bridge":"true","com.docker.network.bridge.enable_icc":"true","com.docker.network.bridge.enable_ip_masquerade":"true",
"com.docker.network.bridge.host_binding_ipv4":"0.0.0.0","com.docker.network.bridge.name":"docker0","com.docker.network.driver.mtu":"1500"},"Labels":{}}"#;

fn shape() {
    let docker = Docker::start();
    let id = docker.run("run -d --name t1 host sleep 1000").ok();
    let mut golden: Value = serde_json::from_str(GOLDEN).expect("JSON");
    let member = golden["Containers"]["ID"].take();
    golden["Containers"] = json!({ id.trim(): member });
    let seen = docker.run("network inspect bridge").json();
    same_shape("bridge", &golden, &seen[0]);
    let order: Vec<&str> = seen[0].as_object().expect("an object").keys().map(String::as_str).filter(|key| *key != "EnableIPv4").collect();
    assert_eq!(order, golden.as_object().expect("an object").keys().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(seen[0]["Containers"][id.trim()]["IPv4Address"], "172.17.0.2/16");
    assert_eq!(seen[0]["Containers"][id.trim()]["MacAddress"], "02:42:ac:11:00:02");
    docker.run("rm -f t1").ok();
}

/// All keys of `wanted` are in `seen`, with values of the same type.
fn same_shape(path: &str, wanted: &Value, seen: &Value) {
    assert_eq!(std::mem::discriminant(wanted), std::mem::discriminant(seen), "{path}: {wanted} or {seen}");
    match (wanted, seen) {
        (Value::Object(wanted), Value::Object(seen)) => wanted.iter().for_each(|(key, value)| same_shape(&format!("{path}.{key}"), value, seen.get(key).unwrap_or_else(|| panic!("{path}: no {key}")))),
        (Value::Array(wanted), Value::Array(seen)) => wanted.iter().zip(seen).for_each(|(one, other)| same_shape(path, one, other)),
        _ => {}
    }
}

fn addresses() {
    let docker = Docker::start();
    docker.run("run -d --name a host sleep 1000").ok();
    docker.run("run -d --name b -h bee --add-host www.baidu.com:1.1.1.1 host sleep 1000").ok();
    assert_eq!(docker.format("a", "{{.NetworkSettings.IPAddress}}"), "172.17.0.2");
    assert_eq!(docker.format("b", "{{.NetworkSettings.IPAddress}} {{.Config.Hostname}} {{.HostConfig.ExtraHosts}}"), "172.17.0.3 bee [www.baidu.com:1.1.1.1]");
    docker.run("exec a ping -c 1 -W 2 172.17.0.3").ok();
    docker.run("exec b ping -c 1 -W 2 172.17.0.1").ok();
    assert_eq!(docker.run("exec b hostname").ok().trim(), "bee");
    docker.run("network create --subnet 10.5.0.0/24 lab").ok();
    docker.run("run -d --name c --network lab --ip 10.5.0.77 --mac-address 02:00:00:00:00:77 --network-alias sea host sleep 1000").ok();
    let seen = docker.format("c", "{{with .NetworkSettings.Networks.lab}}{{.IPAddress}}/{{.IPPrefixLen}} {{.MacAddress}} {{.Gateway}} {{.Aliases}}{{end}}");
    assert!(seen.starts_with("10.5.0.77/24 02:00:00:00:00:77 10.5.0.1 [sea"), "{seen}");
    assert!(docker.run("exec c ip -o addr show eth0").ok().contains("10.5.0.77/24"));
    for name in ["c", "sea"] {
        docker.run(&format!("run --rm --network lab host ping -c 1 -W 2 {name}")).ok();
    }
    assert!(docker.run("exec b getent hosts www.baidu.com").ok().starts_with("1.1.1.1"));
    docker.run("run --network lab --ip 10.5.0.77 --name taken host true").fails();
    docker.run("rm -f a b c taken").ok();
}

fn modes() {
    let docker = Docker::start();
    let host = docker.0.host.run("readlink /proc/self/ns/net").ok();
    assert_eq!(docker.run("run --rm --network host host readlink /proc/self/ns/net").ok(), host);
    docker.run("run -d --name tomcat-host --network host host sleep 1000").ok();
    let member = docker.args(&["network", "inspect", "host", "--format", "{{range .Containers}}{{.Name}}[{{.MacAddress}}{{.IPv4Address}}]{{end}}"]).ok();
    assert_eq!(member.trim(), "tomcat-host[]");
    assert_eq!(docker.run("run --rm --network none host ls /sys/class/net").ok().trim(), "lo");
    docker.run("run -d --name tomcat-none --network none host sleep 1000").ok();
    assert!(docker.run("network inspect none").ok().contains("tomcat-none"));
    docker.run("run -d --name b1 host sleep 1000").ok();
    let of_b1 = docker.run("exec b1 readlink /proc/self/ns/net").ok();
    assert_eq!(docker.run("run --rm --network container:b1 host readlink /proc/self/ns/net").ok(), of_b1);
    assert!(docker.run("run --rm --network container:nobody host true").fails().contains("No such container: nobody"));
    assert!(docker.run("network connect bridge tomcat-host").fails().contains("host"));
    assert!(docker.run("network connect bridge tomcat-none").fails().contains("none"));
    docker.run("rm -f tomcat-host tomcat-none b1").ok();
}

fn connect() {
    let docker = Docker::start();
    docker.run("network create zookeeper_network").ok();
    docker.server("tomcat_ip_8080", 8080, "");
    docker.run("run -d --name zookeeper_tomcat_net --network zookeeper_network host sleep 1000").ok();
    docker.run("exec zookeeper_tomcat_net ping -c 1 -W 1 172.17.0.2").fails();
    // Both seeds have the arguments the wrong way round.
    let swapped = docker.run("network connect tomcat_ip_8080 zookeeper_network").fails();
    assert!(swapped.contains("docker network connect zookeeper_network tomcat_ip_8080"), "{swapped}");
    assert!(docker.run("network connect zookeeper_tomcat_net tomcat_ip_8080").fails().contains("network zookeeper_tomcat_net not found"));
    docker.run("network connect zookeeper_network tomcat_ip_8080").ok();
    assert!(docker.run("exec tomcat_ip_8080 ip -o link").ok().contains("eth1"));
    docker.run("exec zookeeper_tomcat_net curl -s -m 5 http://172.18.0.3:8080/").ok();
    assert!(docker.run("network connect zookeeper_network tomcat_ip_8080").fails().contains("already exists in network"));
    docker.run("network disconnect zookeeper_network tomcat_ip_8080").ok();
    assert!(!docker.run("exec tomcat_ip_8080 ip -o link").ok().contains("eth1"));
    assert!(docker.run("network disconnect zookeeper_network tomcat_ip_8080").fails().contains("is not connected"));
    // One at rest is connected when it starts.
    docker.run("create --name later host sleep 1000").ok();
    docker.run("network connect --ip 172.18.0.99 zookeeper_network later").ok();
    docker.run("start later").ok();
    assert!(docker.run("exec later ip -o -4 addr").ok().contains("172.18.0.99"));
    docker.run("rm -f later tomcat_ip_8080 zookeeper_tomcat_net").ok();
}

fn refusals() {
    let docker = Docker::start();
    for (line, part) in [
        ("network create -d foo x", "plugin \"foo\" not found"),
        ("network create -o com.docker.network.bridge.name=br9 x", "com.docker.network.bridge.name"),
        ("network create --ipam-driver foo x", "plugin \"foo\" not found"),
        ("network create --ingress x", "an ingress network is an overlay"),
        ("network create -d host x", "only one instance of \"host\" network is allowed"),
        ("network create -d null x", "only one instance of \"null\" network is allowed"),
        ("network create --scope swarm x", "scope"),
        ("network create --subnet 172.17.5.0/24 x", "overlaps"),
        ("network create --subnet 10.0.0.0/24 --gateway 10.1.0.1 x", "10.1.0.1"),
        ("network create bridge", "already exists"),
        ("network create host", "already exists"),
        ("network create a/b", "invalid network name"),
        ("run --network bridged host true", "network bridged not found"),
        ("run -d --net my-overlay --name redis host true", "network my-overlay not found"),
        ("run -v /no/such/source:/tmp host true", "bind source path does not exist: /no/such/source"),
        ("run -v /tmp:/no/such/target host true", "/no/such/target does not exist"),
        ("run -v data:/data host true", "no volumes"),
        ("run --log-opt max-file=3 host true", "max-file"),
        ("run --link nobody host true", "could not get container for nobody"),
        ("run -m 64m host true", "HostConfig.Memory"),
        ("run -u nobody host true", "User"),
        ("run --tmpfs /tmp host true", "HostConfig.Tmpfs"),
        ("run -w /no/such/place host true", "chdir to cwd (\"/no/such/place\"): no such file or directory"),
        ("run --log-driver none host true", "HostConfig.LogConfig"),
        ("run --restart sometimes host true", "sometimes"),
        ("run --rm --restart always host true", "restart"),
        ("run --ip 10.0.0.1 --network none host true", "EndpointConfig.IPAMConfig"),
        ("run host", "no command specified"),
    ] {
        let said = docker.run(line).fails();
        assert!(said.contains(part), "{line}: {said}");
    }
    // Slips of the seeds end in the client's own words, and never in a network.
    for line in ["run --network bridged - -dns 8.8.8.8 host true", "run -net my-overlay host true", "network create"] {
        docker.run(line).fails();
    }
    assert_eq!(docker.run("network ls -q").ok().lines().count(), 3);
    assert!(docker.run("inspect nobody").fails().to_lowercase().contains("no such object"));
    for line in ["start nobody", "stop nobody", "logs nobody", "exec nobody true", "rm nobody", "kill nobody", "port nobody"] {
        assert!(docker.run(line).fails().contains("No such container: nobody"), "{line}");
    }
    assert!(docker.run("volume ls").fails().contains("weft does not serve /volumes"));
    let options = "-o com.docker.network.driver.mtu=1400 -o com.docker.network.bridge.enable_icc=false -o com.docker.network.bridge.host_binding_ipv4=127.0.0.1";
    docker.run(&format!("network create --internal --attachable {options} opts")).ok();
    let seen = docker.run("network inspect opts").json();
    assert_eq!((&seen[0]["Internal"], &seen[0]["Attachable"], &seen[0]["Options"]["com.docker.network.driver.mtu"]), (&json!(true), &json!(true), &json!("1400")));
    assert!(docker.run("run --rm --network opts host ip link show eth0").ok().contains("mtu 1400"));
    // Docker 28: without IPv4, or with nothing left.
    assert!(docker.run("network create --ipv4=false nothing").fails().contains("IPv4 or IPv6 must be enabled"));
    assert!(docker.run("network create --ipv4=false --ipv6 --subnet 10.66.0.0/24 both").fails().contains("10.66.0.0/24 is of IPv4"));
    docker.run("network create --ipv4=false --ipv6 six").ok();
    let seen = docker.run("network inspect six").json();
    assert_eq!((&seen[0]["EnableIPv4"], &seen[0]["EnableIPv6"], seen[0]["IPAM"]["Config"].as_array().map(Vec::len)), (&json!(false), &json!(true), Some(1)));
    assert_eq!(docker.args(&["run", "--rm", "--network", "six", "host", "sh", "-c", "ip -o -4 addr show eth0 | wc -l; ip -o -6 addr show eth0 scope global | wc -l"]).ok(), "0\n1\n");
    assert_eq!(docker.0.weft("network create --ipv4=false --ipv6 own --dry-run").json()["pools"].as_array().map(Vec::len), Some(1));
}

fn publishing() {
    let docker = Docker::start();
    docker.server("tomcat8080", 8080, "-p 8888:8080");
    assert!(docker.run("ps").ok().contains("0.0.0.0:8888->8080/tcp"));
    let ports = docker.run("port tomcat8080").ok();
    assert!(ports.contains("8080/tcp -> 0.0.0.0:8888") && ports.contains("::"), "{ports}");
    for url in ["http://127.0.0.1:8888/", "http://[::1]:8888/"] {
        assert!(docker.curl(url).contains("<!DOCTYPE"), "{url}");
    }
    let conflict = docker.run("run -d --name other -p 8888:80 host sleep 1000");
    assert_eq!(conflict.code, Some(125));
    assert!(conflict.fails().contains("Bind for 0.0.0.0:8888 failed: port is already allocated"));
    assert_eq!(docker.format("other", "{{.State.Status}}"), "created");
    docker.run("rm -f tomcat8080").ok();
    assert!(docker.curl("http://127.0.0.1:8888/").is_empty());
    docker.run("start other").ok();
    docker.server("t1", 80, "-p 80");
    docker.server("t2", 80, "-P --expose 80 --expose 81");
    for name in ["t1", "t2"] {
        let ports = docker.run(&format!("port {name} 80")).ok();
        let port = ports.lines().next().and_then(|line| line.rsplit_once(':')).map(|(_, port)| port.to_owned()).expect("a port");
        assert!(docker.curl(&format!("http://127.0.0.1:{port}/")).contains("<!DOCTYPE"), "{ports}");
    }
    assert!(docker.run("port t2").ok().contains("81/tcp -> 0.0.0.0:"));
    docker.server("local", 80, "-p 127.0.0.1:5555:80");
    assert_eq!(docker.run("port local").ok().trim(), "80/tcp -> 127.0.0.1:5555");
    assert!(docker.run("run -p 80:80/sctp host true").fails().contains("SCTP"));
    docker.run("rm -f other t1 t2 local").ok();
}

fn codes() {
    let docker = Docker::start();
    assert_eq!(docker.run("run --rm host echo hi").ok(), "hi\n");
    for (command, code) in [(&["sh", "-c", "exit 7"][..], 7), (&["true"], 0), (&["sh", "-c", "kill -9 $$"], 137), (&["no-such-program"], 127), (&["/no/such/program"], 127), (&["/etc"], 126)] {
        let ran = docker.args(&[&["run", "--rm", "host"], command].concat());
        assert_eq!(ran.code, Some(code), "{ran:?}");
    }
    assert_eq!(docker.run("run --rm --network nope host true").code, Some(125));
    assert_eq!(docker.run("run --rm --no-such-flag host true").code, Some(125));
    let env = docker.run("run --rm -e A=1 -e B=two -w /tmp --entrypoint sh host -c env;pwd").ok();
    assert!(env.contains("A=1\n") && env.contains("B=two\n") && env.ends_with("/tmp\n"), "{env}");
    assert!(!env.contains("DOCKER_HOST"), "nothing of the daemon's environment: {env}");
    assert_eq!(docker.run("ps -aq").ok(), "", "--rm leaves none, not even those that did not start");
    docker.run("run -d --name x host sleep 1000").ok();
    assert_eq!(docker.args(&["exec", "x", "sh", "-c", "exit 9"]).code, Some(9));
    assert_eq!(docker.run("exec x no-such-program").code, Some(127));
    docker.run("rm -f x").ok();
}

fn streams() {
    let docker = Docker::start();
    let split = docker.args(&["run", "--rm", "host", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((split.stdout.as_str(), split.stderr.as_str()), ("out\n", "err\n"));
    docker.run("run -d --name c host sleep 1000").ok();
    // Bytes of every value, more than all buffers hold, by way of a slow reader too.
    for line in ["docker run --rm -i host cat < $F", "docker exec -i c cat < $F", "docker run --rm host cat $F | (sleep 1; cat)", "docker exec c cat $F | (sleep 1; cat)"] {
        let file = docker.0.dir().join("bytes");
        let ran = docker.sh(&format!("F={}; head -c 3000000 /dev/urandom > $F; {line} | cmp - $F && echo same", file.display()));
        assert_eq!(ran.stdout, "same\n", "{line}: {ran:?}");
    }
    docker.args(&["run", "-d", "--name", "counts", "host", "sh", "-c", "for i in 1 2 3 4 5; do echo line $i; sleep 0.3; done; echo end >&2"]).ok();
    let followed = docker.run("logs -f counts");
    assert_eq!((followed.stdout.as_str(), followed.stderr.as_str()), ("line 1\nline 2\nline 3\nline 4\nline 5\n", "end\n"));
    assert_eq!(docker.run("logs --tail 2 counts").stdout, "line 5\n");
    let stamped = docker.run("logs -t --tail 1 counts").stderr;
    assert!(stamped.ends_with("Z end\n") && stamped.starts_with("20"), "{stamped}");
    docker.run("rm -f c counts").ok();
}

fn terminals() {
    let docker = Docker::start();
    let typed = docker.sh("script -qec 'docker run -it --rm host sh -c \"test -t 0 && test -t 1 && echo terminal; exit 3\"' /dev/null < /dev/null");
    assert_eq!(typed.code, Some(3), "{typed:?}");
    assert!(typed.stdout.contains("terminal"), "{typed:?}");
    docker.run("run -dit --name t host sh").ok();
    let inside = docker.sh("script -qec 'docker exec -it t sh -c \"tty; exit 4\"' /dev/null < /dev/null");
    assert_eq!(inside.code, Some(4), "{inside:?}");
    assert!(inside.stdout.contains("/dev/pts/"), "{inside:?}");
    // A shell on a terminal: what is typed is done, and its size is the client's.
    let python = r##"
import os, pty, sys, fcntl, termios, struct
pid, fd = pty.fork()
if pid == 0:
    os.execvp("docker", ["docker", "run", "-it", "--rm", "host", "sh"])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
os.kill(pid, 28)
seen = b""
def until(word):
    global seen
    while word not in seen:
        seen += os.read(fd, 4096)
until(b"# ")
os.write(fd, b"until test \"$(stty size)\" = '33 111'; do sleep 0.1; done; echo $((6*7))\n")
until(b"42")
os.write(fd, b"exit 5\n")
try:
    while os.read(fd, 4096): pass
except OSError:
    pass
print("sized")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"##;
    let path = docker.0.dir().join("terminal.py");
    std::fs::write(&path, python).expect("a script");
    let ran = docker.sh(&format!("timeout 60 python3 {}", path.display()));
    assert_eq!((ran.code, ran.stdout.trim()), (Some(5), "sized"), "{ran:?}");
    // Ctrl-P Ctrl-Q leaves it running.
    let python = python.replace("--rm", "--name=left").replace("exit 5\\n", "\\x10\\x11");
    std::fs::write(&path, python).expect("a script");
    let ran = docker.sh(&format!("timeout 60 python3 {}", path.display()));
    assert_eq!((ran.code, ran.stdout.trim()), (Some(0), "sized"), "{ran:?}");
    assert_eq!(docker.format("left", "{{.State.Running}}"), "true");
    docker.run("rm -f t left").ok();
}

fn life() {
    let docker = Docker::start();
    let id = docker.run("create --name web --label tier=front host sh -c").ok();
    docker.run("rm web").ok();
    assert_eq!(id.trim().len(), 64);
    docker.args(&["create", "--name", "web", "--label", "tier=front", "host", "sh", "-c", "echo started; sleep 1000"]).ok();
    assert_eq!(docker.format("web", "{{.State.Status}} {{.State.Running}} {{.Path}}"), "created false sh");
    assert!(docker.run("exec web true").fails().contains("is not running"));
    assert!(docker.run("kill web").fails().contains("is not running"));
    docker.run("start web").ok();
    docker.run("start web").ok();
    let address = docker.format("web", "{{.NetworkSettings.IPAddress}}");
    assert!(address.starts_with("172.17.0."));
    assert!(docker.run("rm web").fails().contains("container is running"));
    assert!(docker.run("top web").ok().contains("sleep 1000"));
    docker.run("rename web site").ok();
    eventually("it has begun", || docker.run("logs site").stdout == "started\n");
    assert!(docker.run("ps --format {{.Names}}").ok().contains("site"));
    docker.run("stop site").ok();
    assert_eq!(docker.format("site", "{{.State.Status}} {{.State.ExitCode}} {{.NetworkSettings.IPAddress}}."), "exited 143 .");
    assert!(docker.run("ps -a --filter status=exited").ok().contains("Exited (143)"));
    assert!(!docker.run("ps").ok().contains("site"));
    assert!(!docker.0.weft("port ls").ok().contains("site"));
    assert_eq!(docker.run("logs site").ok(), "started\n");
    assert_eq!(docker.run("wait site").ok().trim(), "143");
    docker.run("restart site").ok();
    eventually("both starts are in the log", || docker.run("logs site").stdout == "started\nstarted\n");
    let waiting = docker.command(&["wait", "site"]).stdout(Stdio::piped()).spawn().expect("docker wait");
    std::thread::sleep(Duration::from_millis(500));
    docker.run("kill -s KILL site").ok();
    assert_eq!(String::from_utf8_lossy(&waiting.wait_with_output().expect("an end").stdout).trim(), "137");
    // One that does not listen to SIGTERM is killed when its time is up.
    docker.args(&["run", "-d", "--name", "deaf", "host", "sh", "-c", "trap '' TERM; echo deaf; while true; do sleep 0.1; done"]).ok();
    eventually("it is deaf", || docker.run("logs deaf").stdout == "deaf\n");
    docker.run("stop -t 1 deaf").ok();
    assert_eq!(docker.format("deaf", "{{.State.ExitCode}}"), "137");
    // What it leaves in the background ends with it.
    docker.args(&["run", "--rm", "host", "sh", "-c", "sleep 4321 & echo gone"]).ok();
    eventually("nothing is left", || !run(Command::new("pgrep").args(["-f", "^sleep 4321"])).stdout.contains(|c: char| c.is_ascii_digit()));
    docker.run("run -d --name up host sleep 1000").ok();
    assert!(docker.run("run -d --name up host true").fails().contains("The container name \"/up\" is already in use"));
    docker.run("container prune -f").ok();
    assert_eq!(docker.run("ps -a --format {{.Names}}").ok().trim(), "up");
    docker.run("rm -f up").ok();
    assert_eq!(docker.run("ps -aq").ok(), "");
    assert!(std::fs::read_dir(docker.0.state_dir().join("logs")).expect("logs").next().is_none(), "logs go with their containers");
    assert!(std::fs::read_dir(docker.0.state_dir().join("netns")).expect("pins").next().is_none(), "so do namespaces");
}

fn policies() {
    let mut docker = Docker::start();
    docker.args(&["run", "-d", "--name", "fails", "--restart", "on-failure:2", "host", "sh", "-c", "echo try; exit 3"]).ok();
    eventually("it was tried three times", || docker.run("logs fails").stdout == "try\ntry\ntry\n");
    eventually("it has ended", || docker.format("fails", "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}") == "exited 2 3");
    docker.run("run -d --name stays --restart unless-stopped -p 8080:80 host python3 -m http.server 80").ok();
    let pid = docker.format("stays", "{{.State.Pid}}");
    docker.0.host.run(&format!("kill -9 {pid}")).ok();
    eventually("it serves again", || docker.curl("http://127.0.0.1:8080/").contains("<!DOCTYPE"));
    let pid = docker.format("stays", "{{.State.Pid}}");
    docker.0.kill_daemon();
    docker.0.host.run(&format!("kill -9 {pid}")).ok();
    docker.0.start_daemon();
    eventually("it serves again", || docker.curl("http://127.0.0.1:8080/").contains("<!DOCTYPE"));
    docker.run("stop stays").ok();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(docker.format("stays", "{{.State.Status}}"), "exited");
    docker.run("rm -f stays fails").ok();
}

/// The daemon in a user namespace, of a user who is nobody here.
fn without_root() {
    let mut lab = Lab::without_daemon();
    let user = "61235";
    let weft = lab.dir().join("weft");
    install_weft(&weft);
    let state = lab.state_dir();
    lab.host.sh(&format!("chmod 755 {0}; mkdir {1}; chown {user}:{user} {1}", lab.dir().display(), state.display())).ok();
    let line = format!("--reuid {user} --regid {user} --clear-groups {} --state-dir {} daemon", weft.display(), state.display());
    lab.adopt(lab.host.command("setpriv").args(words(&line)).stderr(Stdio::null()).spawn().expect("a daemon"));
    eventually("the daemon answers", || lab.weft("network ls").code == Some(0));
    let docker = Docker(lab);
    docker.run("network create lab").ok();
    assert_eq!(docker.run("run --rm --network lab host id -u").ok(), "0\n", "root of its own user namespace");
    docker.run("run --rm --network host host true").ok();
    docker.server("web", 80, "--network lab -p 8080:80");
    assert!(docker.curl("http://127.0.0.1:8080/").contains("<!DOCTYPE"));
    docker.run("rm -f web").ok();
}

fn root_directory() {
    let docker = Docker::start();
    let root = docker.0.dir().join("root");
    let made = docker.sh(&format!(
        "mkdir -p {root}/proc {root}/sys {root}/dev; for p in /bin/sh /bin/cat /bin/ls; do cp -L --parents $p $(ldd $p | grep -o '/[^ )]*') {root}; done; echo mine > {root}/mark",
        root = root.display()
    ));
    made.ok();
    let image = format!("rootfs{}", root.display());
    assert_eq!(docker.args(&["run", "--rm", &image, "cat", "/mark"]).ok(), "mine\n");
    assert_eq!(docker.args(&["run", "--rm", &image, "ls", "/sys/class/net"]).ok().split_whitespace().collect::<Vec<_>>(), ["eth0", "lo"]);
    docker.args(&["run", "-d", "--name", "in", &image, "sh", "-c", "read never < /dev/zero"]).ok();
    assert_eq!(docker.run("exec in cat /mark").ok(), "mine\n");
    docker.run("rm -f in").ok();
    assert!(root.join("mark").exists());
    assert!(std::fs::read_dir(root.join("proc")).expect("proc").next().is_none(), "nothing is mounted outside");
    assert!(docker.args(&["run", "--rm", "rootfs/no/such/place", "true"]).fails().contains("no image store"));
}

fn daemon_restart() {
    let mut docker = Docker::start();
    docker.server("web", 80, "-p 8080:80");
    docker.args(&["run", "-d", "--name", "talks", "host", "sh", "-c", "i=0; while true; do echo $i; i=$((i+1)); sleep 0.05; done"]).ok();
    assert_eq!(docker.sh("timeout 80 docker logs -f --until $(($(date +%s)+1)) talks > /dev/null").code, Some(0), "it is followed to a time");
    docker.run("create --name waits --network none host true").ok();
    docker.args(&["run", "--name", "done", "host", "sh", "-c", "echo last words; exit 6"]);
    for kill in [true, false] {
        if kill { docker.0.kill_daemon() } else { docker.0.stop_daemon() };
        std::thread::sleep(Duration::from_millis(300));
        docker.0.start_daemon();
        assert!(docker.curl("http://127.0.0.1:8080/").contains("<!DOCTYPE"));
        assert_eq!(docker.format("waits", "{{.State.Status}}"), "created");
        assert_eq!(docker.format("done", "{{.State.Status}} {{.State.ExitCode}}"), "exited 6");
        assert_eq!(docker.run("logs done").ok(), "last words\n");
        docker.run("exec web true").ok();
    }
    // Nothing of what was said meanwhile is missing.
    docker.run("stop talks").ok();
    let said = docker.run("logs talks").ok();
    let wanted: Vec<String> = (0..said.lines().count()).map(|number| number.to_string()).collect();
    assert!(wanted.len() > 10 && said.lines().eq(wanted.iter().map(String::as_str)), "{said}");
    let pid = docker.format("web", "{{.State.Pid}}");
    docker.0.kill_daemon();
    docker.0.host.run(&format!("kill -9 {pid}")).ok();
    docker.0.start_daemon();
    eventually("the end of web is seen", || docker.format("web", "{{.State.Status}} {{.State.ExitCode}}") == "exited 255");
    docker.run("start web").ok();
    eventually("it serves again", || docker.curl("http://127.0.0.1:8080/").contains("<!DOCTYPE"));
    docker.run("rm -f web talks waits done").ok();
}

fn events() {
    let docker = Docker::start();
    let heard = docker.0.dir().join("events");
    let output = std::fs::File::create(&heard).expect("a file");
    let _follower = Background(docker.command(&["events", "--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"]).stdout(output).spawn().expect("docker events"));
    let seen = || std::fs::read_to_string(&heard).expect("events");
    eventually("somebody listens", || {
        docker.run("create --name mark host true").ok();
        docker.run("rm mark").ok();
        seen().contains("container destroy mark")
    });
    docker.run("network create lab").ok();
    docker.run("run --name c --network lab host true").ok();
    docker.run("rm c").ok();
    docker.run("network rm lab").ok();
    std::thread::sleep(Duration::from_millis(1100));
    let until = docker.sh("date +%s").ok();
    // With an end alone it is all that is kept.
    for since in [&["--since", "1"][..], &[]] {
        let past = docker.args(&[&["events", "--until", until.trim(), "--filter", "type=network", "--format", "{{.Action}}"], since].concat()).ok();
        assert_eq!(past, "create\nconnect\ndisconnect\ndestroy\n");
    }
    let wanted = ["network create lab", "container create c", "container start c", "container die c", "container destroy c", "network destroy lab"];
    eventually("the last is heard", || seen().contains("network destroy lab"));
    let seen = seen();
    let found: Vec<&str> = seen.lines().filter(|line| wanted.contains(line)).collect();
    assert_eq!(found, wanted, "{seen}");
}

fn no_images() {
    let docker = Docker::start();
    assert!(docker.run("images").ok().contains("host"));
    docker.run("image inspect host").ok();
    for line in ["run --rm nginx", "run -d --name t -it -p 80 nginx:1.14-alpine", "pull nginx"] {
        let said = docker.run(line).fails();
        assert!(said.contains("no image store") && said.contains("`host`"), "{line}: {said}");
    }
    assert_eq!(docker.run("ps -aq").ok(), "");
    let (status, body) = docker.api("POST", "/v1.41/containers/create", br#"{"Image":"nginx","Cmd":["true"]}"#);
    assert_eq!(status, 404);
    assert!(body["message"].as_str().is_some_and(|message| message.starts_with("No such image: nginx")), "{body}");
    assert_eq!(docker.api("POST", "/v1.41/build", b"").0, 501);
    docker.run("version").ok();
    docker.run("info").ok();
}

fn native() {
    let docker = Docker::start();
    docker.0.weft("run -d --name mine -p 8081:80 -- sh -c sleep${IFS}1000").ok();
    assert!(docker.run("ps").ok().contains("0.0.0.0:8081->80/tcp"));
    assert_eq!(docker.format("mine", "{{.NetworkSettings.IPAddress}} {{.State.Running}}"), "172.17.0.2 true");
    assert_eq!(docker.run("exec mine echo in").ok(), "in\n");
    docker.run("run -d --name theirs host sleep 1000").ok();
    assert!(docker.0.weft("ps").ok().contains("theirs"));
    docker.run("rm -f mine").ok();
    docker.run("stop theirs").ok();
    assert!(!docker.0.weft("ps").ok().contains("theirs"));
    assert!(docker.0.weft("ps -a").ok().contains("exited (143)"));
    docker.0.weft("rm theirs").ok();
    assert_eq!(docker.run("ps -aq").ok(), "");
}
