//! Beside others who speak VXLAN: Open vSwitch with its userspace datapath, and kernels that meet through us.

use std::{fs, path::PathBuf};

use weft_tests::{ns::Ns, run::eventually};

use super::{Fabric, Node, checksum_errors, sniff, traffic};

/// Open vSwitch on a node, its datapath in user space: `br-phy` holds the underlay's device and address, `br0` the tunnel.
struct Ovs<'a> {
    host: &'a Ns,
    directory: PathBuf,
}

impl<'a> Ovs<'a> {
    fn start(node: &'a Node, remote: &str) -> Self {
        let this = Self { host: &node.lab.host, directory: node.lab.dir().join("ovs") };
        fs::create_dir_all(&this.directory).expect("a directory");
        let (dir, own) = (this.directory.display(), node.underlay());
        this.host
            .sh(&format!(
                "export OVS_RUNDIR={dir} OVS_LOGDIR={dir} OVS_DBDIR={dir} OVS_SYSCONFDIR={dir} && ethtool -K eth0 tx off >/dev/null \
                 && ovsdb-tool create {dir}/conf.db /usr/share/openvswitch/vswitch.ovsschema \
                 && ovsdb-server {dir}/conf.db --remote=punix:{dir}/db.sock --unixctl={dir}/ovsdb.ctl --no-chdir --pidfile={dir}/db.pid --detach --log-file={dir}/db.log >/dev/null 2>&1 \
                 && ovs-vsctl --db=unix:{dir}/db.sock --no-wait init \
                 && ovs-vswitchd unix:{dir}/db.sock --unixctl={dir}/vsw.ctl --no-chdir --pidfile={dir}/vsw.pid --detach --log-file={dir}/vsw.log >/dev/null 2>&1"
            ))
            .ok();
        this.vsctl("add-br br-phy -- set bridge br-phy datapath_type=netdev -- add-port br-phy eth0");
        this.host.sh(&format!("ip addr flush dev eth0 && ip addr add {own}/24 dev br-phy && ip link set br-phy up")).ok();
        this.vsctl(&format!(
            "add-br br0 -- set bridge br0 datapath_type=netdev -- add-port br0 tp -- set interface tp type=internal \
             -- add-port br0 vx -- set interface vx type=vxlan options:remote_ip={remote} options:key=4096"
        ));
        eventually("the underlay is up again", || this.host.pings(remote));
        this
    }

    fn vsctl(&self, line: &str) {
        let dir = self.directory.display();
        self.host.sh(&format!("ovs-vsctl --timeout=10 --db=unix:{dir}/db.sock {line}")).ok();
    }

    /// A station behind it.
    fn station(&self, node: &Node, last: u8) -> Ns {
        let ns = node.lab.ns(&format!("o{last}"));
        eventually("its device is there", || self.host.ip("link show tp").code == Some(0));
        self.host.ip(&format!("link set tp netns {} name eth0", ns.name)).ok();
        ns.sh(&format!("ip link set eth0 mtu 1450 up && ethtool -K eth0 tx off >/dev/null; ip addr add 10.0.0.{last}/24 dev eth0 && ip addr add fd0a::{last}/64 dev eth0 nodad")).ok();
        ns
    }
}

impl Drop for Ovs<'_> {
    fn drop(&mut self) {
        for name in ["vsw.pid", "db.pid"] {
            let pid = fs::read_to_string(self.directory.join(name)).ok().and_then(|text| text.trim().parse().ok());
            if let Some(pid) = pid {
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).ok();
            }
        }
    }
}

/// Broadcast, and groups of IPv6.
fn groups(from: &Ns, to: &Ns, last: u8) {
    to.sh("echo 0 > /proc/sys/net/ipv4/icmp_echo_ignore_broadcasts").ok();
    let broadcast = from.run("ping -b -c 3 -i 0.2 -W 2 10.0.0.255").stdout;
    assert!(broadcast.contains(&format!("from 10.0.0.{last}")), "{broadcast}");
    assert!(from.run("ping -c 2 -i 0.2 -W 2 ff02::1%eth0").stdout.matches("from fe80").count() > 2, "both answered");
}

pub(super) fn open_vswitch() {
    let fabric = Fabric::new(2, 1, "");
    let [one, two] = &fabric.nodes[..] else { panic!("two nodes") };
    one.overlay(&format!("--vni 4096 --peer {} -o ttl=33", two.underlay()));
    // It wants outer checksums finished, and between namespaces no device does that.
    one.lab.host.sh("ethtool -K eth0 tx off >/dev/null").ok();
    let ovs = Ovs::start(two, &one.underlay());
    let (a, b) = (one.station(18), ovs.station(two, 34));
    traffic(&a, &b, 34);
    traffic(&b, &a, 18);
    groups(&a, &b, 34);
    groups(&b, &a, 18);
    assert_eq!(checksum_errors(&a) + checksum_errors(&b), 0);
    // All sums right, inside and outside.
    let (file, sniffer) = sniff(one, 0);
    {
        let _server = b.iperf_server();
        for options in ["-b 20M", "-b 20M -R", "-u -b 4M -l 1000", "-u -b 4M -l 4000"] {
            a.iperf("10.0.0.34", options);
            a.iperf("fd0a::34", options);
        }
    }
    assert!(a.pings("10.0.0.34"));
    let check = "-o ip.check_checksum:TRUE -o udp.check_checksum:TRUE -o tcp.check_checksum:TRUE";
    let read = |options: &str| one.lab.host.sh(&format!("tshark -r {} {check} {options} 2>/dev/null", file.display())).stdout;
    let ours = "vxlan && ip.src==192.168.88.211";
    eventually("the capture has the last datagrams", || !read(&format!("-Y '{ours} && icmp.type==8'")).is_empty());
    drop(sniffer);
    for (what, fields) in [("IP", "ip.checksum.status"), ("UDP", "udp.checksum.status"), ("TCP", "tcp.checksum.status"), ("ICMP", "icmp.checksum.status")] {
        let statuses = read(&format!("-Y '{ours}' -T fields -e {fields}"));
        // 0 is bad, 1 is good.
        assert!(statuses.contains('1') && !statuses.contains('0'), "{what}: {} lines", statuses.lines().count());
    }
    let outer = read(&format!("-Y '{ours}' -T fields -E occurrence=f -e ip.ttl -e ip.flags.df"));
    let mut kinds: Vec<_> = outer.lines().map(|line| line.replace("True", "1")).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, ["33\t1"]);
}

/// What comes out of a tunnel does not go into another of the same network (split horizon), so kernels that meet through
/// us are in two: a bridge of somebody else's joins these.
pub(super) fn kernels_through_us() {
    let fabric = Fabric::new(3, 1, "");
    let [one, two, three] = &fabric.nodes[..] else { panic!("three nodes") };
    one.overlay(&format!("--vni 4096 --peer {} --peer {}", two.underlay(), three.underlay()));
    let peer = |node: &Node, vni: u32, last: u8| node.kernel_at(vni, &format!("local {} remote {}", node.underlay(), one.underlay()), last);
    let b = peer(two, 4096, 34);
    let a = one.station(18);
    eventually("the first ping", || a.run("ping -c 1 -W 1 10.0.0.34").code == Some(0));
    let same = peer(three, 4096, 35);
    assert!(a.pings("10.0.0.35"));
    assert!(b.cannot_ping("10.0.0.35"), "we relay for nobody");
    drop(same);
    three.lab.host.sh("ip link del vxlan0; ip link del br0").ok();
    one.lab.weft(&format!("network create -d overlay other --subnet 10.1.0.0/24 --vni 5000 --peer {}", three.underlay())).ok();
    let c = peer(three, 5000, 50);
    let joint = one.lab.ns("joint");
    one.lab.weft(&format!("attach net {} --ifname e0", joint.path())).ok();
    one.lab.weft(&format!("attach other {} --ifname e1", joint.path())).ok();
    joint.sh("ip addr flush dev e0; ip addr flush dev e1; ip link add br0 mtu 1450 type bridge && ip link set e0 master br0 && ip link set e1 master br0 && ip link set br0 up").ok();
    traffic(&b, &c, 50);
    traffic(&c, &b, 34);
    groups(&b, &c, 50);
    assert!(a.pings("10.0.0.50") && a.pings("10.0.0.34"));
    assert_eq!(checksum_errors(&b) + checksum_errors(&c), 0);
}
