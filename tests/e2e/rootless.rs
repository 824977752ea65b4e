//! As an ordinary user, made up for the test: no root, no /dev/net/tun (mode 0600), and with one.

use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use crate::uplink::WHO;
use weft_tests::{
    lab::{Lab, install_weft},
    ns::{Background, signal},
    run::{Ran, eventually, run},
    runner::{Need, test},
};

const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("ping"), Need::Tool("unshare")];
const UID: u32 = 61_234;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("rootless::up_check_without_tun", NEEDS, || up_check(false)),
        test("rootless::up_check_with_tun_0666", NEEDS, || up_check(true)),
        test("rootless::daemon_run_exec_and_restart", NEEDS, daemon_restart),
        test("rootless::out_in_and_ping", &[Need::Root, Need::Tun, Need::Tool("ping"), Need::Tool("curl"), Need::Tool("python3")], ways),
    ]
}

pub(crate) struct User {
    pub(crate) home: std::path::PathBuf,
    tun: bool,
    /// The namespace that plays the host; the real one when missing.
    pub(crate) host: Option<String>,
}

impl User {
    pub(crate) fn new(name: &str, tun: bool) -> Self {
        let home = std::env::temp_dir().join(format!("weft-user-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&home).expect("home");
        nix::unistd::chown(&home, Some(UID.into()), Some(UID.into())).expect("chown");
        install_weft(&home.join("weft"));
        std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/quickstart.toml"), home.join("quickstart.toml")).expect("copy");
        Self { home, tun, host: None }
    }

    /// `weft` as that user. With `tun`, /dev/net/tun is a 0666 node in a mount namespace of the command's own.
    pub(crate) fn weft(&self, arguments: &[&str]) -> Command {
        let mut command = if self.tun {
            let node = self.home.join("tun");
            let mut command = Command::new("unshare");
            command.args(["-m", "sh", "-c", "N=$0; U=$1; W=$2; shift 2; test -e $N || mknod $N c 10 200; chmod 0666 $N; mount --bind $N /dev/net/tun; exec setpriv --reuid $U --regid $U --clear-groups $W \"$@\""]);
            command.arg(node).arg(UID.to_string()).arg(self.home.join("weft"));
            command
        } else if let Some(host) = &self.host {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={host}")).args(["setpriv", "--reuid", &UID.to_string(), "--regid", &UID.to_string(), "--clear-groups"]).arg(self.home.join("weft"));
            command
        } else {
            let mut command = Command::new(self.home.join("weft"));
            command.uid(UID).gid(UID);
            command
        };
        command.args(arguments).env("HOME", &self.home).env("XDG_RUNTIME_DIR", self.home.join("run")).env("XDG_STATE_HOME", self.home.join("state")).env("TMPDIR", &self.home);
        command.current_dir(&self.home);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        run(&mut self.weft(arguments))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.home));
    }
}

fn up_check(tun: bool) {
    let user = User::new(if tun { "tun" } else { "veth" }, tun);
    let said = user.run(&["up", "quickstart.toml", "--check"]).ok();
    assert!(said.contains("rootless") && said.contains("check passed"), "{said}");
    assert!(said.contains(if tun { "(tap)" } else { "(veth)" }), "{said}");
    let doctor = user.run(&["doctor", "--json"]).stdout;
    assert!(doctor.contains(if tun { "\"port_kind\":\"tap\"" } else { "\"port_kind\":\"veth\"" }), "{doctor}");
}

/// D1 without root: names are answered, and the files of /etc are the sandbox's own.
fn by_name(user: &User) {
    let host = std::fs::read_to_string("/etc/hosts").expect("hosts");
    user.run(&["exec", "a", "ping", "-c", "1", "-W", "2", "b"]).ok();
    assert!(user.run(&["exec", "a", "getent", "hosts", "B.lab"]).ok().starts_with("10.9.0.12 "));
    assert!(user.run(&["exec", "a", "cat", "/etc/hosts"]).ok().contains("10.9.0.11\ta"));
    let said = user.run(&["run", "--net", "lab", "--hostname", "box", "--add-host", "x:1.2.3.4", "--", "sh", "-c", "hostname; cat /etc/hostname; getent hosts x; cat /etc/resolv.conf"]).ok();
    assert!(said.starts_with("box\nbox\n1.2.3.4") && said.contains("nameserver 10.9.0.1"), "{said}");
    assert_eq!(host, std::fs::read_to_string("/etc/hosts").expect("hosts"));
}

fn daemon_restart() {
    let user = User::new("daemon", false);
    let start = || {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(user.home.join("log")).expect("log");
        let child = user.weft(&["daemon"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("daemon");
        eventually("the daemon answers", || user.run(&["network", "ls"]).code == Some(0));
        child
    };
    let mut daemon = start();
    user.run(&["network", "create", "lab", "--subnet", "10.9.0.0/24"]).ok();
    // O3: the host's devices are not an ordinary user's to open.
    let said = user.run(&["network", "create", "-d", "lan", "-o", "parent=eth0", "lan1"]).fails();
    assert!(said.contains("a rootless daemon cannot open the host's devices") && said.contains("CAP_NET_RAW"), "{said}");
    user.run(&["run", "-d", "--name", "a", "--net", "lab:ip=10.9.0.11", "--", "sleep", "1000"]).ok();
    user.run(&["run", "-d", "--name", "b", "--net", "lab:ip=10.9.0.12", "--", "sleep", "1000"]).ok();
    user.run(&["exec", "a", "ping", "-c", "2", "-i", "0.2", "-W", "2", "10.9.0.12"]).ok();
    let foreground = user.run(&["run", "--net", "lab", "--", "ping", "-c", "1", "-W", "2", "10.9.0.11"]);
    assert!(foreground.stdout.contains(" 0% packet loss"), "{foreground:?}");
    by_name(&user);
    daemon.kill().expect("kill");
    daemon.wait().expect("wait");
    let mut daemon = start();
    by_name(&user);
    user.run(&["exec", "a", "ping", "-c", "2", "-i", "0.2", "-W", "2", "10.9.0.12"]).ok();
    user.run(&["rm", "-f", "a", "b"]).ok();
    signal(&daemon, Signal::SIGTERM);
    assert!(daemon.wait().expect("wait").success());
    assert!(!user.home.join("run/weft/keeper").exists(), "the keeper is dismissed");
}

/// The way out and the way in, for a user who may nothing, on a host with a LAN.
fn ways() {
    let lab = Lab::without_daemon();
    let lan = lab.ns("lan");
    lan.sh(&format!(
        "ip link add eth0 type veth peer name lan0 netns {0} && ip addr add 192.168.88.2/24 dev eth0 && ip link set eth0 up && ip -n {0} addr add 192.168.88.1/24 dev lan0 && ip -n {0} link set lan0 up && ip -n {0} link set lo up",
        lab.host.name
    ))
    .ok();
    lab.host.sh("sysctl -qw net.ipv4.ping_group_range='1 0'").ok();
    eventually("the LAN is up", || lab.host.sh("ip -6 addr show dev lan0 scope link").stdout.contains("fe80") && !lab.host.sh("ip -6 addr show dev lan0").stdout.contains("tentative"));
    let before = lab.footprint();
    let mut user = User::new("ways", false);
    user.host = Some(lab.host.path());
    let log = std::fs::File::create(user.home.join("log")).expect("log");
    let mut daemon = user.weft(&["daemon"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("daemon");
    eventually("the daemon answers", || user.run(&["network", "ls"]).code == Some(0));
    user.run(&["network", "create", "lab", "--subnet", "10.9.0.0/24"]).ok();
    user.run(&["run", "-d", "--name", "web", "--net", "lab", "-p", "8080:80", "--", "python3", "-c", WHO, "80"]).ok();
    eventually("the sandbox's server listens", || user.run(&["exec", "web", "ss", "-Hltn"]).stdout.contains(":80 "));
    assert_eq!(lan.run("curl -s -m 5 --local-port 23456 http://192.168.88.1:8080/").ok(), "192.168.88.2|23456", "the client's own address and port");
    let server = Background(lan.command("python3").args(["-c", WHO, "81"]).spawn().expect("python3"));
    eventually("the LAN's server listens", || lan.sh("ss -Hltn").stdout.contains(":81 "));
    assert!(user.run(&["exec", "web", "curl", "-s", "-m", "5", "http://192.168.88.2:81/"]).ok().starts_with("192.168.88.1|"));
    let refused = user.run(&["publish", "add", "web", "88:80"]);
    assert!(refused.code != Some(0) && refused.stderr.contains("ip_unprivileged_port_start"), "{}", refused.stderr);
    let ping = ["exec", "web", "ping", "-c", "1", "-W", "2", "192.168.88.2"];
    let told = user.run(&ping);
    assert!(told.code != Some(0) && told.stdout.contains("filtered") || told.stdout.contains("prohibited"), "neither ping nor raw sockets: {}", told.stdout);
    lab.host.sh(&format!("sysctl -qw net.ipv4.ping_group_range='{UID} {UID}'")).ok();
    user.run(&ping).ok();
    user.run(&["rm", "-f", "web"]).ok();
    signal(&daemon, Signal::SIGTERM);
    assert!(daemon.wait().expect("wait").success());
    drop(server);
    lab.host.sh("sysctl -qw net.ipv4.ping_group_range='1 0'").ok();
    assert_eq!(before, lab.footprint(), "the host is as it was");
}
