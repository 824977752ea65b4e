//! Namespaces and views from inside. SPEC rows: N1, N5, N6, N7, N8, X2.

use libtest_mimic::Trial;
use weft_tests::{
    lab::Lab,
    run::{eventually, run},
    runner::{Need, test},
};

const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("ip")];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("netns::n1_views_agree_with_iproute2", NEEDS, n1_views),
        test("netns::n5_named_namespaces_are_ip_netns_ones", NEEDS, n5_names),
        test("netns::n6_n8_exec_and_loopback", NEEDS, n6_exec),
        test("netns::n7_identify_pids_and_events", NEEDS, n7_identify),
        test("netns::n7_ids", NEEDS, n7_ids),
        test("netns::x2_what_a_sandbox_has_of_its_own", NEEDS, x2_own),
    ]
}

/// As README.md says: the network, and mounts and the host's name for its own /etc; nothing else that containers are made of.
fn x2_own() {
    let lab = Lab::start();
    lab.weft("network create net --subnet 10.9.0.0/24").ok();
    let inside = run(lab.weft_command().args(["run", "--rm", "--net", "net", "--", "sh", "-c", "cd /proc/self/ns; for kind in net mnt uts pid user ipc cgroup; do echo $kind $(readlink $kind); done"]));
    let ours = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace").display().to_string();
    let own: Vec<_> = inside.ok().lines().filter_map(|line| line.split_once(' ')).map(|(kind, id)| (kind.to_owned(), id != ours(kind))).collect();
    let expected = [("net", true), ("mnt", true), ("uts", true), ("pid", false), ("user", false), ("ipc", false), ("cgroup", false)];
    assert_eq!(own, expected.map(|(kind, is_own)| (kind.to_owned(), is_own)));
}

fn n1_views() {
    let lab = Lab::start();
    let one = lab.ns("ns1");
    lab.weft("network create net --subnet 10.9.0.0/24").ok();
    lab.weft(&format!("attach net {} --ifname eth0", one.path())).ok();
    let theirs: serde_json::Value = serde_json::from_str(&one.ip("-j addr").ok()).expect("JSON");
    let ours = lab.weft(&format!("ip a -n {} --json", one.path())).json();
    let names = |value: &serde_json::Value, key: &str| value.as_array().expect("list").iter().map(|link| link[key].clone()).collect::<Vec<_>>();
    assert_eq!(names(&ours, "name"), names(&theirs, "ifname"));
    assert_eq!(names(&ours, "mtu"), names(&theirs, "mtu"));
    assert_eq!(names(&ours, "mac"), names(&theirs, "address"));
    assert_eq!(names(&ours, "index"), names(&theirs, "ifindex"));
    let port = lab.weft("port ls --json").json();
    assert_eq!(port[0]["mac"], ours[1]["mac"], "inspect and the interface agree");
    let text = lab.weft(&format!("ip a -n {}", one.path())).ok();
    assert!(text.contains("eth0: <") && text.contains("inet 10.9.0.2/24"), "{text}");
    assert!(lab.weft(&format!("ip route -n {}", one.path())).ok().contains("10.9.0.0/24 dev eth0"));
}

fn n5_names() {
    let lab = Lab::without_daemon();
    let name = format!("{}n5", lab.host.name);
    lab.weft(&format!("netns add {name}")).ok();
    assert!(lab.weft("netns ls").ok().lines().any(|line| line == name));
    assert!(lab.host.ip("netns list").ok().lines().any(|line| line.split(' ').next() == Some(&name)), "`ip netns` sees it");
    assert!(lab.weft(&format!("netns add {name}")).fails().contains(&name), "the name is taken");
    lab.host.ip(&format!("netns exec {name} true")).ok();
    lab.weft(&format!("netns del {name}")).ok();
    assert!(!lab.host.ip("netns list").ok().contains(&name));
    assert!(lab.weft(&format!("netns del {name}")).fails().contains(&name));
    for bad in ["../x", "a/b", ".."] {
        lab.weft(&format!("netns add {bad}")).fails();
    }
}

fn n6_exec() {
    let lab = Lab::start();
    let one = lab.ns("ns1");
    let seen = lab.weft(&format!("exec {} ip -o link", one.name)).ok();
    assert_eq!(seen.lines().count(), 1, "only lo:\n{seen}");
    lab.weft(&format!("exec {} ping -c 1 127.0.0.1", one.name)).ok();
    one.ip("link set lo down").ok();
    lab.weft(&format!("exec {} ping -c 1 -W 1 127.0.0.1", one.name)).fails();
    assert_eq!(lab.weft(&format!("exec {} sh -c exit\t7", one.name)).code, Some(0), "`exit` alone");
    assert_eq!(lab.weft_args(&["exec", &one.name, "sh", "-c", "exit 7"]).code, Some(7));
    assert_eq!(lab.weft(&format!("exec {} no-such-program", one.name)).code, Some(127));
    assert!(lab.weft("exec nowhere true").fails().contains("nowhere"));
}

fn n7_identify() {
    let lab = Lab::start();
    let one = lab.ns("ns1");
    let sleeper = one.spawn("sleep 100");
    let pid = sleeper.0.id().to_string();
    eventually("it is inside", || lab.weft(&format!("netns identify {pid}")).stdout.trim() == one.name);
    assert!(lab.weft(&format!("netns pids {}", one.name)).ok().lines().any(|line| line == pid));
    let log = lab.dir().join("events");
    let mut events = lab.weft_command().arg("events").stdout(std::fs::File::create(&log).expect("file")).spawn().expect("events");
    lab.weft("network create net --subnet 10.9.0.0/24").ok();
    eventually("events are seen", || {
        // The listener may have come late: make noise until it hears.
        lab.weft(&format!("attach net {} --ifname eth0", one.path())).ok();
        lab.weft(&format!("detach net {}", one.path())).ok();
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.contains("port attach") && text.contains("port detach")
    });
    drop(events.kill());
    drop(events.wait());
}

fn n7_ids() {
    let lab = Lab::start();
    let (one, two) = (lab.ns("ns1"), lab.ns("ns2"));
    lab.weft(&format!("netns set {} 42", one.name)).ok();
    lab.weft(&format!("netns set {} auto", two.name)).ok();
    let ours = lab.weft("netns list-id").ok();
    assert!(ours.contains(&format!("nsid 42 (iproute2 netns name: {})", one.name)) && ours.contains(&two.name), "{ours}");
    let theirs = lab.host.run("ip netns list-id").ok();
    assert!(theirs.contains("nsid 42") && theirs.lines().count() == ours.lines().count(), "{theirs}\n{ours}");
    lab.weft(&format!("netns set {} 43", one.name)).fails();
    assert!(lab.weft(&format!("netns set {} -7", one.name)).fails().contains("-7"));
}
