//! What strangers may send to Docker's API: answered with Docker's status and message, and nothing half made.
//! SPEC rows: O1, O3, O4, O7, C12.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use libtest_mimic::Trial;
use serde_json::{Value, json};
use weft_tests::{run::eventually, runner::test};

use crate::client::{Docker, NEEDS};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("docker_abuse::requests", NEEDS, abuse),
        test("docker_abuse::every_field_of_every_wrong_type", NEEDS, types),
        test("docker_abuse::names", NEEDS, names),
        test("docker_abuse::races_have_one_winner", NEEDS, crowds),
        test("docker_abuse::a_thousand_clients", NEEDS, thousand),
        test("docker_abuse::a_network_that_comes_and_goes", NEEDS, churn),
        test("docker_abuse::full_pools_and_dead_containers", NEEDS, full),
    ]
}

fn abuse() {
    let docker = Docker::start();
    let deep = format!("{}{}", "{\"a\":".repeat(100_000), "1");
    let huge = vec![b' '; 3 << 20];
    for (method, path, body, status) in [
        ("POST", "/v1.41/networks/create", &b"{"[..], 400),
        ("POST", "/v1.41/networks/create", b"[]", 400),
        ("POST", "/v1.41/networks/create", b"\xff\xfe", 400),
        ("POST", "/v1.41/networks/create", br#"{"Name":1}"#, 400),
        ("POST", "/v1.41/networks/create", br#"{"Name":""}"#, 400),
        ("POST", "/v1.41/networks/create", br#"{"Name":"x","Internal":"yes"}"#, 400),
        ("POST", "/v1.41/networks/create", br#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.0.0.0/99"}]}}"#, 400),
        ("POST", "/v1.41/networks/create", br#"{"Name":"x","IPAM":{"Config":[{"Gateway":"10.0.0.1"}]}}"#, 400),
        ("POST", "/v1.41/networks/create", br#"{"Name":"x","Surprise":true}"#, 400),
        ("POST", "/v1.41/networks/create", deep.as_bytes(), 400),
        ("POST", "/v1.41/networks/create", &huge, 413),
        ("POST", "/v1.41/containers/create", br#"{"Image":"host","Cmd":["true"],"HostConfig":{"PortBindings":{"x":[{}]}}}"#, 400),
        ("POST", "/v1.41/containers/create", br#"{"Image":"host","Cmd":[1]}"#, 400),
        ("POST", "/v1.41/containers/create", br#"{"Image":"host"}"#, 400),
        ("POST", "/v1.41/containers/create", br#"{"Image":"../../etc","Cmd":["true"]}"#, 404),
        ("POST", "/v1.41/containers/create?name=a%2Fb", br#"{"Image":"host","Cmd":["true"]}"#, 400),
        ("POST", "/v1.41/containers/create", br#"{"Image":"host","Cmd":["true"],"Volumes":{"/data":{}}}"#, 400),
        ("POST", "/v1.41/networks/nope/connect", br#"{"Container":"x"}"#, 404),
        ("POST", "/v1.41/exec/nope/start", b"{}", 404),
        ("GET", "/v1.41/containers/nope/json", b"", 404),
        ("GET", "/v1.41/networks?filters=%7B", b"", 400),
        ("GET", "/v1.41/networks?filters=%7B%22what%22%3A%5B%22x%22%5D%7D", b"", 400),
        ("GET", "/v1.99/networks", b"", 400),
        ("GET", "/v1.41/volumes", b"", 501),
        ("GET", "/v1.41/no/such/thing", b"", 404),
        ("DELETE", "/v1.41/networks/bridge", b"", 403),
        ("DELETE", "/networks/host", b"", 403),
        ("PUT", "/networks", b"", 405),
        ("GET", "/networks", b"", 200),
        ("GET", "/_ping", b"", 200),
        ("HEAD", "/_ping", b"", 200),
    ] {
        let (seen, answer) = docker.api(method, path, body);
        assert_eq!(seen, status, "{method} {path} {}: {answer}", String::from_utf8_lossy(&body[..body.len().min(80)]));
        assert!(status < 400 || status == 413 || answer["message"].is_string(), "{path}: {answer}");
    }
    assert_eq!(docker.api("GET", "/networks", b"").1.as_array().map(Vec::len), Some(3), "nothing is half made");
    assert_eq!(docker.api("GET", "/containers/json?all=1", b"").1, json!([]));
    // Half a request, and one a byte at a time, hold nobody up.
    let mut half = docker.socket();
    half.write_all(b"POST /v1.41/networks/create HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{").expect("half a request");
    let mut slow = docker.socket();
    for byte in b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" {
        slow.write_all(&[*byte]).expect("a byte");
        assert_eq!(docker.api("GET", "/_ping", b"").0, 200);
    }
    let mut answer = String::new();
    slow.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.to_lowercase().contains("api-version: 1.48"), "{answer}");
    drop(half);
    // An attached client that goes away leaves the container alone.
    docker.run("run -di --name c host cat").ok();
    let mut attached = docker.socket();
    attached.write_all(b"POST /containers/c/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n").expect("a request");
    let mut head = [0; 12];
    attached.read_exact(&mut head).expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 101");
    drop(attached);
    assert_eq!(docker.format("c", "{{.State.Running}}"), "true");
    docker.run("rm -f c").ok();
    docker.run("run --rm host true").ok();
}

fn crowds() {
    let docker = Docker::start();
    let tally = |method: &str, path: &str, body: &str| {
        let mut seen: Vec<u16> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..200).map(|_| scope.spawn(|| docker.api(method, path, body.as_bytes()).0)).collect();
            clients.into_iter().map(|client| client.join().expect("an answer")).collect()
        });
        seen.sort_unstable();
        (seen.iter().filter(|status| **status < 300).count(), seen.iter().filter(|status| **status == 409).count(), seen)
    };
    let (won, lost, seen) = tally("POST", "/v1.41/networks/create", r#"{"Name":"race","CheckDuplicate":true}"#);
    assert_eq!((won, lost), (1, 199), "{seen:?}");
    let (won, lost, seen) = tally("POST", "/v1.41/containers/create?name=race", r#"{"Image":"host","Cmd":["sleep","1000"],"HostConfig":{"NetworkMode":"race"}}"#);
    assert_eq!((won, lost), (1, 199), "{seen:?}");
    let (won, _, seen) = tally("POST", "/v1.41/containers/race/start", "");
    assert_eq!((won, seen.iter().filter(|status| **status == 304).count()), (1, 199), "{seen:?}");
    let (won, _, seen) = tally("GET", "/v1.41/containers/race/json", "");
    assert_eq!(won, 200, "{seen:?}");
    assert_eq!(docker.run("network ls -q").ok().lines().count(), 4);
    docker.run("rm -f race").ok();
    docker.run("network rm race").ok();
}

/// No answer is a fault of ours, and what is refused leaves nothing.
fn types() {
    let docker = Docker::start();
    docker.run("run -d --name c host sleep 1000").ok();
    docker.run("network create base").ok();
    let state = || (docker.api("GET", "/networks", b"").1.as_array().map(Vec::len), docker.api("GET", "/containers/json?all=1", b"").1.as_array().map(Vec::len), docker.0.weft("port ls").ok().lines().filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect::<Vec<_>>());
    let before = state();
    let wrong = [json!(null), json!(true), json!(-1), json!(1e300), json!("x"), json!("\u{0}"), json!("../../x"), json!("🦀".repeat(100)), json!([]), json!([1]), json!([[]]), json!({}), json!({ "x": 1 }), json!({ "": null })];
    let network = json!({ "Name": "x", "CheckDuplicate": true, "Driver": "bridge", "Scope": "local", "Internal": false, "Attachable": false, "Ingress": false, "ConfigOnly": false, "ConfigFrom": { "Network": "" }, "EnableIPv4": true,
        "EnableIPv6": false, "IPAM": { "Driver": "default", "Options": {}, "Config": [{ "Subnet": "10.90.0.0/24", "IPRange": "10.90.0.0/25", "Gateway": "10.90.0.1", "AuxiliaryAddresses": { "a": "10.90.0.9" } }] },
        "Options": { "com.docker.network.driver.mtu": "1400" }, "Labels": { "a": "b" } });
    let container = json!({ "Image": "host", "Hostname": "h", "Cmd": ["true"], "Entrypoint": [], "Env": ["A=b"], "ExposedPorts": { "80/tcp": {} }, "Tty": false, "OpenStdin": false, "StdinOnce": false, "WorkingDir": "/", "Labels": {}, "Volumes": {}, "MacAddress": "",
        "HostConfig": { "NetworkMode": "base", "PortBindings": { "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "8099" }] }, "PublishAllPorts": false, "AutoRemove": false, "ExtraHosts": ["a:1.1.1.1"], "Dns": ["1.1.1.1"], "DnsSearch": ["x"],
            "DnsOptions": ["ndots:1"], "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 }, "ConsoleSize": [1, 1], "Links": [], "Binds": [], "Mounts": [], "LogConfig": { "Type": "", "Config": {} } },
        "NetworkingConfig": { "EndpointsConfig": { "base": { "IPAMConfig": { "IPv4Address": "172.18.0.9", "IPv6Address": "", "LinkLocalIPs": [] }, "Aliases": ["a"], "Links": [], "MacAddress": "", "DriverOpts": {}, "GwPriority": 0 } } } });
    let connect = json!({ "Container": "c", "EndpointConfig": container["NetworkingConfig"]["EndpointsConfig"]["base"].clone() });
    let exec = json!({ "AttachStdin": false, "AttachStdout": true, "Tty": false, "Cmd": ["true"], "Env": [], "WorkingDir": "/", "ConsoleSize": [1, 1] });
    for (path, good, undo) in [("/networks/create", network, "network rm x"), ("/containers/create?name=x", container, "rm x"), ("/networks/base/connect", connect, "network disconnect base c"), ("/containers/c/exec", exec, "ps")] {
        let mut tried = 0;
        for at in places(&good) {
            for value in &wrong {
                let mut body = good.clone();
                *body.pointer_mut(&at).expect("a place") = value.clone();
                let (status, answer) = docker.api("POST", path, body.to_string().as_bytes());
                assert!((200..500).contains(&status), "{path} {at}={value}: {status} {answer}");
                if status < 300 {
                    docker.run(undo);
                    if let Some(name) = body["Name"].as_str() {
                        docker.args(&["network", "rm", name]);
                    }
                } else {
                    assert!(answer["message"].as_str().is_some_and(|message| !message.is_empty()), "{path} {at}={value}: {answer}");
                }
                tried += 1;
            }
        }
        assert!(tried > 90, "{path}: {tried}");
        assert_eq!(state(), before, "{path}");
    }
    docker.run("rm -f c").ok();
}

/// JSON pointers to all values within.
fn places(value: &Value) -> Vec<String> {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.replace('~', "~0").replace('/', "~1"), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    inner.into_iter().flat_map(|(key, value)| std::iter::once(format!("/{key}")).chain(places(value).into_iter().map(move |rest| format!("/{key}{rest}")))).collect()
}

/// Names that are paths, nothing, too long or of no alphabet.
fn names() {
    let docker = Docker::start();
    let long = "a".repeat(300);
    let bad = ["..", ".", "../../etc/passwd", "/", "a/b", "a b", "a\0b", "\n", "ü", "网络", "-x", "_x", "\u{202e}x", "a;b", long.as_str()];
    let escape = |name: &str| name.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    for name in bad {
        let (status, answer) = docker.api("POST", "/networks/create", json!({ "Name": name }).to_string().as_bytes());
        assert_eq!(status, 400, "{name:?}: {answer}");
        assert!(answer["message"].as_str().is_some_and(|message| message.contains("invalid network name")), "{answer}");
        // A leading slash is Docker's own way of naming containers, and no name is one to make up.
        if !matches!(name, "/") {
            let (status, answer) = docker.api("POST", &format!("/containers/create?name={}", escape(name)), br#"{"Image":"host","Cmd":["true"]}"#);
            assert_eq!(status, 400, "{name:?}: {answer}");
        }
        for (method, path, body) in [
            ("GET", format!("/networks/{}", escape(name)), json!({})),
            ("DELETE", format!("/networks/{}", escape(name)), json!({})),
            ("POST", format!("/networks/{}/connect", escape(name)), json!({ "Container": "x" })),
            ("POST", "/networks/bridge/connect".into(), json!({ "Container": name })),
            ("POST", "/networks/bridge/disconnect".into(), json!({ "Container": name })),
            ("GET", format!("/containers/{}/json", escape(name)), json!({})),
            ("DELETE", format!("/containers/{}?force=1", escape(name)), json!({})),
            ("POST", format!("/containers/{}/start", escape(name)), json!({})),
            ("POST", format!("/exec/{}/start", escape(name)), json!({})),
        ] {
            let (status, answer) = docker.api(method, &path, body.to_string().as_bytes());
            assert!((400..500).contains(&status), "{method} {path}: {status} {answer}");
        }
        for (field, value) in [("Hostname", json!(name)), ("HostConfig", json!({ "NetworkMode": name })), ("HostConfig", json!({ "Links": [format!("{name}:x")] })), ("HostConfig", json!({ "Binds": [format!("{name}:/no/such/place")] }))] {
            let mut body = json!({ "Image": "host", "Cmd": ["true"] });
            body[field] = value;
            let (status, answer) = docker.api("POST", "/containers/create?name=x", body.to_string().as_bytes());
            // That a network is there is asked when it starts.
            if status == 201 {
                let (status, answer) = docker.api("POST", "/containers/x/start", b"");
                // These two are no name of ours, and of a host they may be.
                let is_host = field == "Hostname" && matches!(name, "-x" | "_x");
                assert!(if is_host { status == 204 } else { (400..500).contains(&status) }, "{name:?} {field}: {status} {answer}");
                docker.run("rm -f x").ok();
            } else {
                assert!((400..500).contains(&status), "{name:?} {field}: {status} {answer}");
            }
        }
    }
    assert_eq!(docker.api("GET", "/networks", b"").1.as_array().map(Vec::len), Some(3));
    assert_eq!(docker.api("GET", "/containers/json?all=1", b"").1, json!([]));
    for filters in ["[]", "1", "{", r#"{"label":[1]}"#, r#"{"label":1}"#, r#"{"name":[["a"]]}"#, r#"{"dangling":["perhaps"]}"#, r#"{"type":["x"]}"#, r#"{"\u0000":["x"]}"#] {
        // A type of events is any word.
        for path in ["/networks", "/containers/json", "/events"].into_iter().filter(|path| *path != "/events" || !filters.contains("type")) {
            let (status, answer) = docker.api("GET", &format!("{path}?filters={}", escape(filters)), b"");
            assert_eq!(status, 400, "{path} {filters}: {answer}");
        }
    }
    for query in ["/containers/json?limit=x", "/containers/nobody/logs?stdout=1&since=yesterday", "/containers/nobody/wait?condition=never", "/events?since=x", "/containers/nobody/resize?h=a&w=1"] {
        assert!((400..500).contains(&docker.api(if query.contains("wait") || query.contains("resize") { "POST" } else { "GET" }, query, b"").0), "{query}");
    }
    assert!(docker.run("network ls --format {{.Nothing}}").fails().contains("Nothing"));
}

/// A thousand at once, of which a third never say what they want.
fn thousand() {
    let docker = Docker::start();
    docker.run("run -d --name a host sleep 1000").ok();
    docker.run("run -d --name b host sleep 1000").ok();
    let idle: Vec<UnixStream> = (0..333)
        .map(|number| {
            let mut socket = docker.socket();
            let half: &[u8] = [&b""[..], b"POST /networks/create HTT", b"POST /v1.41/networks/create HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"][number % 3];
            socket.write_all(half).expect("half a request");
            socket
        })
        .collect();
    let asked: Vec<u16> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..1000)
            .map(|number| {
                let docker = &docker;
                std::thread::Builder::new()
                    .stack_size(256 << 10)
                    .spawn_scoped(scope, move || match number % 4 {
                        0 => docker.api("GET", "/networks", b"").0,
                        1 => docker.api("GET", "/containers/a/json", b"").0,
                        2 => docker.api("POST", "/networks/create", json!({ "Name": format!("n{number}"), "IPAM": { "Driver": "null" } }).to_string().as_bytes()).0,
                        _ => docker.api("POST", "/networks/nope/connect", b"{}").0,
                    })
                    .expect("a thread")
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("an answer")).collect()
    });
    let count = |status: u16| asked.iter().filter(|seen| **seen == status).count();
    assert_eq!((count(200), count(201), count(404)), (500, 250, 250), "{asked:?}");
    docker.run("exec a ping -c 1 -W 2 b").ok();
    assert_eq!(docker.api("GET", "/networks", b"").1.as_array().map(Vec::len), Some(253));
    drop(idle);
    assert_eq!(docker.run("network prune -f").ok().lines().filter(|line| line.starts_with('n')).count(), 250);
    docker.run("rm -f a b").ok();
}

/// A network is removed and made again while containers join and leave it.
fn churn() {
    let docker = Docker::start();
    let containers = ["a", "b", "c", "d"];
    for name in containers {
        docker.run(&format!("run -d --name {name} host sleep 1000")).ok();
    }
    std::thread::scope(|scope| {
        for name in containers {
            let docker = &docker;
            scope.spawn(move || {
                for _ in 0..40 {
                    let body = json!({ "Container": name }).to_string();
                    for verb in ["connect", "disconnect"] {
                        let (status, answer) = docker.api("POST", &format!("/networks/lab/{verb}"), body.as_bytes());
                        assert!(matches!(status, 200 | 403 | 404), "{verb}: {status} {answer}");
                    }
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..40 {
                let (status, answer) = docker.api("POST", "/networks/create", br#"{"Name":"lab"}"#);
                assert!(matches!(status, 201 | 409), "{status} {answer}");
                let (status, answer) = docker.api("DELETE", "/networks/lab", b"");
                assert!(matches!(status, 204 | 403), "{status} {answer}");
                assert!(status == 204 || answer["message"].as_str().is_some_and(|message| message.contains("has active endpoints")), "{answer}");
            }
        });
    });
    for name in containers {
        drop(docker.run(&format!("network disconnect lab {name}")));
        assert_eq!(docker.run(&format!("exec {name} ls /sys/class/net")).ok().split_whitespace().collect::<Vec<_>>(), ["eth0", "lo"], "nothing of it is left");
    }
    drop(docker.run("network rm lab"));
    assert_eq!(docker.0.weft("port ls --json").json().as_array().map(Vec::len), Some(4));
    assert_eq!(docker.run("network ls -q").ok().lines().count(), 3);
    docker.run("rm -f a b c d").ok();
}

fn full() {
    let docker = Docker::start();
    docker.run("network create --subnet 10.9.0.0/30 tiny").ok();
    docker.run("run -d --name one --network tiny host sleep 1000").ok();
    let none_left = "no available addresses on this network's address pools: tiny";
    assert!(docker.run("run -d --name two --network tiny host sleep 1000").fails().contains(none_left));
    assert_eq!(docker.format("two", "{{.State.Status}}"), "created");
    docker.run("run -d --name three host sleep 1000").ok();
    assert!(docker.run("network connect tiny three").fails().contains(none_left));
    assert_eq!(docker.run("exec three ls /sys/class/net").ok().split_whitespace().collect::<Vec<_>>(), ["eth0", "lo"]);
    // The address of one that ended is the next one's.
    docker.run("kill one").ok();
    docker.run("wait one").ok();
    docker.run("start two").ok();
    assert!(docker.run("start one").fails().contains(none_left));
    // All of the predefined pools.
    let made = (0..64).take_while(|number| docker.run(&format!("network create p{number}")).code == Some(0)).count();
    assert!((20..64).contains(&made), "{made}");
    let (status, answer) = docker.api("POST", "/networks/create", br#"{"Name":"more"}"#);
    assert!(status == 500 && answer["message"].as_str().is_some_and(|message| message.contains("all predefined address pools have been fully subnetted")), "{status} {answer}");
    docker.run("network prune -f").ok();
    // Joins of one that is dead, gone, or dies meanwhile.
    docker.run("network create lab").ok();
    docker.run("kill three").ok();
    docker.run("wait three").ok();
    docker.run("network connect lab three").ok();
    docker.run("start three").ok();
    assert!(docker.run("exec three ip -o -4 addr").ok().contains("eth1"));
    assert!(docker.run("network connect lab nobody").fails().contains("No such container: nobody"));
    docker.run("network disconnect lab three").ok();
    let pid = docker.format("three", "{{.State.Pid}}");
    docker.0.host.run(&format!("kill -9 {pid}")).ok();
    let (status, answer) = docker.api("POST", "/networks/lab/connect", br#"{"Container":"three"}"#);
    assert!(status < 500, "{status} {answer}");
    eventually("it has ended", || docker.format("three", "{{.State.Status}}") == "exited");
    docker.run("rm -f one two three").ok();
    docker.run("network rm lab").ok();
    assert!(docker.0.weft("port ls --json").json().as_array().is_some_and(Vec::is_empty));
}
