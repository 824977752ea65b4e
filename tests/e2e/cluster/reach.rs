//! How nodes reach each other and the store: TLS and passwords, IPv6, and without root.

use std::{fs, path::Path, process::Stdio, thread, time::Duration};

use weft_tests::{
    ns::Background,
    run::{Ran, eventually, run, words},
};

use super::{
    Cluster, LEASE, name,
    super::{rootless::User, store::security::make_certificates, vxlan::Fabric},
};

impl Cluster {
    /// Nodes with one member on the first; nobody else runs yet.
    fn with_member(nodes: usize, flags: &str) -> Self {
        let fabric = Fabric::new(nodes, 0, "");
        let lab = &fabric.nodes[0].lab;
        let store = lab.host.spawn(&format!("etcd --name only --data-dir {} {flags}", lab.dir().join("etcd").display()));
        Self { stores: vec![Some(store)], fabric }
    }

    /// A network of all, a sandbox on each node, and everybody reaches everybody.
    fn share(&self, create: &str) {
        let nodes = self.fabric.nodes.len();
        eventually("all know all", || (0..nodes).all(|node| self.node_names(node).len() == nodes));
        self.weft(nodes - 1, &format!("network create -d overlay {create} net")).ok();
        eventually("shared", || (0..nodes).all(|node| self.has(node, "net")));
        (0..nodes).for_each(|node| drop(self.sleeper(node, &format!("s{node}"), "net").ok()));
        self.all_talk();
    }

    fn all_talk(&self) {
        let nodes = self.fabric.nodes.len();
        for (from, to) in (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))) {
            eventually("they talk", || self.pings(from, &format!("s{from}"), &format!("s{to}")));
        }
    }
}

/// `etcds://` with a certificate and a password, from the daemon's own options and from Docker's; who lacks one says which.
pub(super) fn tls_and_users() {
    let directory = std::env::temp_dir().join(format!("weft-cluster-tls-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory");
    make_certificates(&directory, "192.168.88.211");
    let file = |name: &str| directory.join(name).display().to_string();
    for (name, text) in [("right", "pass word\n"), ("wrong", "guess\n")] {
        fs::write(directory.join(name), text).expect("a file");
    }
    let flags = format!(
        "--listen-client-urls https://192.168.88.211:2379 --advertise-client-urls https://192.168.88.211:2379 --cert-file {} --key-file {} --trusted-ca-file {} --client-cert-auth",
        file("member.pem"), file("member.key"), file("ca.pem")
    );
    let mut cluster = Cluster::with_member(2, &flags);
    let etcdctl = |cluster: &Cluster, arguments: &[&str]| -> Ran {
        let mut command = cluster.fabric.nodes[0].lab.host.command("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", "https://192.168.88.211:2379", "--cacert", &file("ca.pem"), "--cert", &file("node.pem"), "--key", &file("node.key")]);
        run(command.args(arguments))
    };
    eventually("etcd is healthy", || etcdctl(&cluster, &["endpoint", "health"]).code == Some(0));
    for arguments in [
        &["user", "add", "root:secret"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "weft:pass word"],
        &["role", "add", "weft"],
        &["role", "grant-permission", "weft", "--prefix=true", "readwrite", "/docker/network/v1.0/"],
        &["user", "grant-role", "weft", "weft"],
        &["auth", "enable"],
    ] {
        etcdctl(&cluster, arguments).ok();
    }
    // An etcd with users takes no certificate that names one.
    let options = |index: usize, certificate: &str, password: &str| {
        let cert = if certificate.is_empty() { String::new() } else { format!("--cluster-cert {} --cluster-key {}", file(&format!("{certificate}.pem")), file(&format!("{certificate}.key"))) };
        format!("--cluster-store etcds://192.168.88.211:2379 --cluster-advertise 192.168.88.21{} --node {} --cluster-ca {} {cert} --cluster-user weft --cluster-password-file {} {LEASE}", index + 1, name(index), file("ca.pem"), file(password))
    };
    cluster.fabric.nodes[0].lab.start_daemon_with(&options(0, "unnamed", "right"));
    // One that is not let in works alone, and says why.
    for (line, why) in [
        (options(1, "unnamed", "wrong"), "authentication failed"),
        (options(1, "node", "right"), "common name"),
        (options(1, "", "right"), "ertificate"),
        (options(1, "unnamed", "right").replace("ca.pem", "other.pem"), "ssuer"),
        (format!("--cluster-store etcd://192.168.88.211:2379 --cluster-advertise 192.168.88.212 --node docker-node2 {LEASE}"), "SendRequest"),
    ] {
        let lab = &mut cluster.fabric.nodes[1].lab;
        lab.start_daemon_with(&line);
        eventually("it says why", || lab.weft("doctor").stdout.lines().any(|line| line.contains("cannot be used") && line.contains(why)));
        assert!(lab.log().contains(why) && !lab.log().contains("pass word"), "{}", lab.log());
        assert!(lab.weft("network create -d overlay x").fails().contains("cannot be used"));
        lab.kill_daemon();
    }
    cluster.fabric.nodes[1].lab.start_daemon_with(&options(1, "unnamed", "right"));
    cluster.share("-o encrypted");
    // Tokens do not outlive the member, and the connection is made anew.
    cluster.stores[0] = None;
    eventually("the store is missed", || cluster.log(1).contains("store cannot be used"));
    cluster.stores[0] = Some(cluster.fabric.nodes[0].lab.host.spawn(&format!("etcd --name only --data-dir {} {flags}", cluster.fabric.nodes[0].lab.dir().join("etcd").display())));
    eventually("sharing goes on", || cluster.sleeper(1, "later", "net").code == Some(0));
    eventually("it is reached", || cluster.pings(0, "s0", "later"));
    drop(cluster);
    drop(fs::remove_dir_all(&directory));
}

/// An underlay of IPv6 alone: nodes, members (`[::1]` among them), tunnels, and what doctor says of them.
pub(super) fn ipv6() {
    let mut cluster = Cluster::with_member(2, "--listen-client-urls http://[fd88::1]:2379,http://[::1]:2379,http://127.0.0.1:2379 --advertise-client-urls http://[fd88::1]:2379");
    for index in 0..2 {
        cluster.fabric.nodes[index].lab.host.sh("ip -4 addr flush dev eth0").ok();
        let members = if index == 0 { "[::1]:2379,[fd88::1]:2379" } else { "[fd88::2]:2379,[fd88::1]:2379" };
        cluster.fabric.nodes[index].lab.start_daemon_with(&format!("--cluster-store etcd://{members} --cluster-advertise fd88::{} --node {} {LEASE}", index + 1, name(index)));
    }
    cluster.share("");
    assert!(cluster.weft(0, "exec s0 ip link show eth0").ok().contains("mtu 1430"));
    assert!(cluster.weft(0, "exec s0 ping -c 2 -i 0.1 -W 2 -M do -s 1402 s1").ok().contains(" 0% packet loss"));
    let list = cluster.weft(0, "node ls").ok();
    assert!(list.contains("fd88::1") && list.contains("fd88::2"), "{list}");
    let doctor = cluster.weft(0, "doctor").stdout;
    for line in ["KV [::1]:2379 answers", "KV [fd88::1]:2379 answers", "VTEP peer docker-node2 fd88::2 answers (udp 4789)"] {
        assert!(doctor.contains(line), "{line}: {doctor}");
    }
    // The member beside the second node does not run: it is told of, and the other is used.
    assert!(cluster.weft(1, "doctor").stdout.contains("KV [fd88::2]:2379 unreachable (tcp 2379): refused"));
    cluster.weft(0, "network create -d overlay -o encrypted sealed").ok();
    eventually("shared", || cluster.has(1, "sealed"));
    (0..2).for_each(|node| drop(cluster.sleeper(node, &format!("e{node}"), "sealed").ok()));
    eventually("they talk", || cluster.pings(0, "e0", "e1") && cluster.pings(1, "e1", "e0"));
    assert!(cluster.weft(1, "exec e1 ip link show eth0").ok().contains("mtu 1394"));
    cluster.fabric.nodes[1].lab.kill_daemon();
    eventually("it is missed", || cluster.node_names(0).len() == 1);
    cluster.fabric.nodes[1].lab.start_daemon();
    cluster.all_talk();
}

/// A user's daemon is a node like any: its underlay is UDP sockets of the host, which need no right.
pub(super) fn rootless() {
    let mut cluster = Cluster::with_member(2, "--listen-client-urls http://192.168.88.211:2379,http://127.0.0.1:2379 --advertise-client-urls http://192.168.88.211:2379");
    let options = |index: usize| format!("--cluster-store etcd://192.168.88.211:2379 --cluster-advertise 192.168.88.21{} --node {} {LEASE}", index + 1, name(index));
    cluster.fabric.nodes[0].lab.start_daemon_with(&options(0));
    let mut user = User::new("cluster", false);
    user.host = Some(cluster.fabric.nodes[1].lab.host.path());
    let start = |user: &User| {
        let log = fs::OpenOptions::new().create(true).append(true).open(user.home.join("log")).expect("a log");
        let daemon = user.weft(&["daemon"]).args(words(&options(1))).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("a daemon");
        eventually("it answers", || user.run(&["network", "ls"]).code == Some(0));
        Background(daemon)
    };
    let daemon = start(&user);
    let log = |user: &User| fs::read_to_string(Path::new(&user.home).join("log")).unwrap_or_default();
    eventually("both know both", || cluster.node_names(0).len() == 2);
    for (network, create) in [("net", ""), ("sealed", "-o encrypted")] {
        let line = format!("network create -d overlay {create} {network}");
        user.run(&words(&line)).ok();
        eventually("shared", || cluster.has(0, network));
        let (here, there) = (format!("root-{network}"), format!("user-{network}"));
        cluster.sleeper(0, &here, network).ok();
        user.run(&["run", "-d", "--name", &there, "--net", network, "--", "sleep", "3600"]).ok();
        eventually("they talk", || cluster.pings(0, &here, &there) && user.run(&["exec", &there, "ping", "-c", "1", "-W", "1", &here]).code == Some(0));
    }
    // Killed and back, with its sandboxes.
    drop(daemon);
    thread::sleep(Duration::from_millis(100));
    let daemon = start(&user);
    eventually("they talk again", || cluster.pings(0, "root-sealed", "user-sealed") && user.run(&["exec", "user-net", "ping", "-c", "1", "-W", "1", "root-net"]).code == Some(0));
    assert!(log(&user).contains("joined the cluster as docker-node2"), "{}", log(&user));
    user.run(&["rm", "-f", "user-net", "user-sealed"]).ok();
    // One that is killed leaves a keeper of its user namespace for its successor.
    daemon.end();
    eventually("it is missed", || cluster.node_names(0).len() == 1);
}
