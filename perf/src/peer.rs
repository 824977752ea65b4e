//! What is measured: each peer joins namespaces A and B by a switch, and is taken down again.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{busy, forward::Way};

/// A kind of switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Kernel bridge with veth pairs: the baseline of every ratio.
    KernelBridge,
    /// Open vSwitch, userspace datapath, internal TAP ports, TSO on.
    Ovs,
    /// vde_switch with TAPs.
    Vde,
    /// weft with TAP ports.
    WeftTap,
    /// weft with veth ports.
    WeftVeth,
    /// Packet sockets forwarded into each other: a limit, no switch.
    Probe(Way),
    /// TAPs forwarded into each other without a pause: a limit, no switch.
    Busy,
}

impl Kind {
    /// All, the baseline first.
    pub const ALL: [Self; 5] = [Self::KernelBridge, Self::WeftTap, Self::WeftVeth, Self::Ovs, Self::Vde];

    /// What is measured only when it is named.
    pub const PROBES: [Self; 4] = [Self::Probe(Way::ALL[0]), Self::Probe(Way::ALL[1]), Self::Probe(Way::ALL[2]), Self::Busy];

    /// Short name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::KernelBridge => "kbridge",
            Self::Ovs => "ovs-tso",
            Self::Vde => "vde",
            Self::WeftTap => "weft-tap",
            Self::WeftVeth => "weft-veth",
            Self::Probe(way) => way.name(),
            Self::Busy => busy::NAME,
        }
    }

    /// What must be installed, and the Debian package that has it.
    #[must_use]
    pub const fn needs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Ovs => &[("ovs-vswitchd", "openvswitch-switch"), ("ovsdb-server", "openvswitch-switch")],
            Self::Vde => &[("vde_switch", "vde2")],
            Self::KernelBridge | Self::WeftTap | Self::WeftVeth | Self::Probe(_) | Self::Busy => &[("ip", "iproute2")],
        }
    }
}

/// A peer that is up. Dropping it takes everything down.
#[derive(Debug)]
pub struct Peer {
    /// Client namespace.
    pub a: String,
    /// Server namespace.
    pub b: String,
    side: String,
    directory: PathBuf,
    daemons: Vec<Child>,
    /// Processes whose CPU time and memory count.
    pub pids: Vec<u32>,
}

/// Address of the server.
pub const SERVER: &str = "10.77.0.12";
const CLIENT: &str = "10.77.0.11";

fn sh(script: &str) -> Result<(), String> {
    let output = Command::new("sh").args(["-ec", script]).output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(format!("{script}\n{}", String::from_utf8_lossy(&output.stderr))) }
}

impl Peer {
    /// Sets a peer up.
    ///
    /// # Errors
    /// With the command that failed.
    pub fn up(kind: Kind, weft: &str, options: &str) -> Result<Self, String> {
        let prefix = format!("p{}", std::process::id());
        let directory = std::env::temp_dir().join(format!("weft-perf-{prefix}"));
        std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        let mut peer = Self { a: format!("{prefix}a"), b: format!("{prefix}b"), side: format!("{prefix}s"), directory, daemons: Vec::new(), pids: Vec::new() };
        for ns in [&peer.a, &peer.b, &peer.side] {
            sh(&format!("ip netns add {ns}; ip -n {ns} link set lo up"))?;
        }
        match kind {
            Kind::KernelBridge => peer.kernel_bridge()?,
            Kind::Ovs => peer.ovs()?,
            Kind::Vde => peer.vde()?,
            Kind::WeftTap => peer.weft(weft, "tap", options)?,
            Kind::WeftVeth => peer.weft(weft, "veth", options)?,
            Kind::Probe(way) => peer.probe(way)?,
            Kind::Busy => peer.busy()?,
        }
        let (a, limit) = (peer.a.clone(), Instant::now());
        while sh(&format!("ip netns exec {a} ping -c 1 -W 1 {SERVER} >/dev/null")).is_err() {
            if limit.elapsed() > Duration::from_secs(10) {
                return Err(format!("{} does not ping through {}", peer.a, kind.name()));
            }
        }
        Ok(peer)
    }

    fn addresses(&self) -> Result<(), String> {
        let (a, b) = (&self.a, &self.b);
        sh(&format!("ip -n {a} addr add {CLIENT}/24 dev eth0; ip -n {b} addr add {SERVER}/24 dev eth0; ip -n {a} link set eth0 up; ip -n {b} link set eth0 up"))
    }

    /// A veth pair of each end, `va` and `vb` on our side.
    fn veths(&self) -> Result<(), String> {
        let (a, b, s) = (&self.a, &self.b, &self.side);
        sh(&format!("ip link add eth0 netns {a} type veth peer name va netns {s}; ip link add eth0 netns {b} type veth peer name vb netns {s}"))
    }

    fn kernel_bridge(&self) -> Result<(), String> {
        let s = &self.side;
        self.veths()?;
        sh(&format!(
            "ip -n {s} link add br0 type bridge stp_state 0 forward_delay 0; ip -n {s} link set va master br0 up; ip -n {s} link set vb master br0 up; ip -n {s} link set br0 up"
        ))?;
        self.addresses()
    }

    fn probe(&mut self, way: Way) -> Result<(), String> {
        self.veths()?;
        sh(&format!("ip -n {0} link set va up; ip -n {0} link set vb up", self.side))?;
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        self.spawn(&own.to_string_lossy(), &["gen", "forward", way.name(), "va", "vb"], true)?;
        self.addresses()
    }

    fn busy(&mut self) -> Result<(), String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        self.spawn(&own.to_string_lossy(), &["gen", "busy", "va", "vb"], true)?;
        let (a, b, s) = (&self.a, &self.b, &self.side);
        sh(&format!(
            "for i in 1 2 3 4 5 6 7 8 9 10; do ip -n {s} link show vb >/dev/null 2>&1 && break; sleep 0.2; done
             ip -n {s} link set va netns {a} name eth0; ip -n {s} link set vb netns {b} name eth0"
        ))?;
        self.addresses()
    }

    fn spawn(&mut self, program: &str, arguments: &[&str], counted: bool) -> Result<(), String> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.side)).arg(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let dir = &self.directory;
        command.env("OVS_RUNDIR", dir).env("OVS_LOGDIR", dir).env("OVS_DBDIR", dir).env("OVS_SYSCONFDIR", dir);
        let child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
        if counted {
            self.pids.push(child.id());
        }
        self.daemons.push(child);
        Ok(())
    }

    fn ovs(&mut self) -> Result<(), String> {
        let dir = self.directory.display().to_string();
        sh(&format!("ovsdb-tool create {dir}/conf.db /usr/share/openvswitch/vswitch.ovsschema"))?;
        self.spawn("ovsdb-server", &[&format!("{dir}/conf.db"), &format!("--remote=punix:{dir}/db.sock"), &format!("--unixctl={dir}/db.ctl")], false)?;
        let vsctl = format!("ovs-vsctl --timeout=10 --db=unix:{dir}/db.sock");
        sh(&format!("for i in 1 2 3 4 5 6 7 8 9 10; do test -S {dir}/db.sock && break; sleep 0.2; done; {vsctl} --no-wait init -- set Open_vSwitch . other_config:userspace-tso-enable=true"))?;
        self.spawn("ovs-vswitchd", &[&format!("unix:{dir}/db.sock"), &format!("--unixctl={dir}/vsw.ctl")], true)?;
        let (a, b, s) = (&self.a, &self.b, &self.side);
        sh(&format!(
            "{vsctl} add-br br0 -- set bridge br0 datapath_type=netdev -- add-port br0 tpA -- set interface tpA type=internal -- add-port br0 tpB -- set interface tpB type=internal
             sleep 0.5; ip -n {s} link set tpA netns {a} name eth0; ip -n {s} link set tpB netns {b} name eth0"
        ))?;
        self.addresses()
    }

    /// vde_switch ends with its console, so it goes to the background by itself.
    fn vde(&mut self) -> Result<(), String> {
        let (dir, a, b, s) = (self.directory.display().to_string(), &self.a, &self.b, &self.side);
        sh(&format!(
            "nsenter --net=/run/netns/{s} vde_switch -s {dir}/vde.ctl -M {dir}/vde.mgmt -tap tpA -tap tpB -d -p {dir}/vde.pid
             for i in 1 2 3 4 5 6 7 8 9 10; do test -s {dir}/vde.pid && break; sleep 0.2; done; sleep 0.3
             ip -n {s} link set tpA netns {a} name eth0; ip -n {s} link set tpB netns {b} name eth0"
        ))?;
        let pid = std::fs::read_to_string(format!("{dir}/vde.pid")).map_err(|error| error.to_string())?;
        self.pids.extend(pid.trim().parse::<u32>().ok());
        self.addresses()
    }

    fn weft(&mut self, weft: &str, kind: &str, options: &str) -> Result<(), String> {
        let dir = self.directory.display().to_string();
        let mut arguments = vec!["--state-dir", &dir, "daemon"];
        arguments.extend(options.split_whitespace());
        self.spawn(weft, &arguments, true)?;
        let (a, b, s) = (&self.a, &self.b, &self.side);
        let weft = format!("nsenter --net=/run/netns/{s} {weft} --state-dir {dir}");
        sh(&format!("for i in 1 2 3 4 5 6 7 8 9 10; do {weft} network ls >/dev/null 2>&1 && break; sleep 0.2; done; {weft} network create perf --subnet 10.77.0.0/24 >/dev/null"))?;
        for (ns, ip) in [(a, CLIENT), (b, SERVER)] {
            sh(&format!("{weft} attach perf /run/netns/{ns} --ifname eth0 --kind {kind} --ip {ip} >/dev/null"))?;
        }
        Ok(())
    }

    /// Adds `count` quiet ports (weft only), for the idle row.
    ///
    /// # Errors
    /// With the command that failed.
    pub fn add_quiet_ports(&self, weft: &str, count: u32) -> Result<(), String> {
        let weft = format!("nsenter --net=/run/netns/{} {weft} --state-dir {}", self.side, self.directory.display());
        for number in 0..count {
            sh(&format!("{weft} run -d --name q{number} --net perf -- sleep 600 >/dev/null"))?;
        }
        Ok(())
    }

    /// Removes them.
    ///
    /// # Errors
    /// With the command that failed.
    pub fn remove_quiet_ports(&self, weft: &str, count: u32) -> Result<(), String> {
        let names: Vec<String> = (0..count).map(|number| format!("q{number}")).collect();
        sh(&format!("nsenter --net=/run/netns/{} {weft} --state-dir {} rm -f {} >/dev/null", self.side, self.directory.display(), names.join(" ")))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for child in self.daemons.iter_mut().rev() {
            if let Ok(pid) = i32::try_from(child.id()) {
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).ok();
            }
            let limit = Instant::now();
            while child.try_wait().is_ok_and(|status| status.is_none()) {
                if limit.elapsed() > Duration::from_secs(3) {
                    child.kill().ok();
                    child.wait().ok();
                    break;
                }
                sleep(Duration::from_millis(20));
            }
        }
        // Those that went to the background are no children of ours.
        for pid in self.pids.iter().filter_map(|&pid| i32::try_from(pid).ok()) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).ok();
        }
        for ns in [&self.a, &self.b, &self.side] {
            sh(&format!("ip netns del {ns}")).ok();
        }
        // A weft daemon leaves pins for its successor; here there is none.
        sh(&format!("umount {0}/switch.netns 2>/dev/null; true", self.directory.display())).ok();
        std::fs::remove_dir_all(&self.directory).ok();
        sleep(Duration::from_millis(300));
    }
}
