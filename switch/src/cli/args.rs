//! The grammar. Words are Docker's and iproute2's where they have one.

use std::{net::{IpAddr, Ipv4Addr, Ipv6Addr}, path::PathBuf};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use ipnetwork::IpNetwork;
use weft_control::{EndpointKind, L2, NatPreset, overlay::Remote};

use crate::dataloop::IoBackend;

/// A userspace virtual switch: networks for sandboxes, with no kernel bridge and no footprint on the host.
#[derive(Debug, Parser)]
#[command(name = "weft", version, infer_subcommands = true, after_help = "First steps:\n  weft up examples/quickstart.toml     a switch with two sandboxes, until Ctrl-C\n  weft doctor                          what this machine allows\n  weft daemon &                        a switch that stays\n  weft run --net NETWORK -- COMMAND    a command on a network")]
pub(super) struct Arguments {
    /// Socket of the daemon, unix:///path (else WEFT_HOST); of `weft daemon` where it listens, also tcp://ADDRESS:PORT, repeatable
    #[arg(short = 'H', long, global = true)]
    pub(super) host: Vec<String>,
    /// Keep socket, state and pins in this directory
    #[arg(long, global = true, env = "WEFT_STATE_DIR")]
    pub(super) state_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) noun: Noun,
}

#[derive(Debug, Subcommand)]
pub(super) enum Noun {
    /// Run the switch in the foreground
    Daemon(DaemonArguments),
    /// Start a switch with networks and sandboxes from a file; Ctrl-C removes everything
    Up(UpArguments),
    /// Networks
    #[command(visible_alias = "net")]
    Network {
        #[command(subcommand)]
        action: NetworkAction,
    },
    /// Make a running daemon what a file says
    Config {
        #[command(subcommand)]
        action: super::config::ConfigAction,
    },
    /// Nodes of the cluster
    Node {
        #[command(subcommand)]
        action: NodeAction,
    },
    /// Run a command in a new sandbox
    #[command(disable_help_flag = true)]
    Run(RunArguments),
    /// Run a command in a sandbox or namespace
    Exec(ExecArguments),
    /// List sandboxes
    Ps(PsArguments),
    /// Show sandboxes or networks as JSON
    Inspect {
        #[arg(required = true)]
        names: Vec<String>,
        /// Always on: the output is JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove sandboxes
    Rm {
        #[arg(required = true)]
        names: Vec<String>,
        /// Also running ones
        #[arg(short, long)]
        force: bool,
    },
    /// Output of a detached command
    Logs { name: String },
    /// Put a namespace, the host or a device into a network
    Attach(Box<AttachArguments>),
    /// Tell the way of a packet through the switch, each decision a line, without sending it
    Trace {
        /// SANDBOX:IFNAME, a sandbox, host (what reaches the host) or uplink (an uplink of packets)
        port: String,
        /// As 'tcp 172.17.0.2:4000 > 1.1.1.1:80 ttl 64 len 100 df'
        packet: String,
        #[arg(long)]
        json: bool,
    },
    /// Take it out again: PORT, or NETWORK and what is in it
    Detach(DetachArguments),
    /// Ports
    Port {
        #[command(subcommand)]
        action: PortAction,
    },
    /// Change ports
    Link {
        #[command(subcommand)]
        action: LinkAction,
    },
    /// Ports of sandboxes that the host listens for
    Publish {
        #[command(subcommand)]
        action: PublishAction,
    },
    /// Translation: rules and flows
    Nat {
        #[command(subcommand)]
        action: NatAction,
    },
    /// Services with a virtual address: endpoints and connections
    Vip {
        #[command(subcommand)]
        action: VipAction,
    },
    /// Addresses that a network's gateway lends
    Dhcp {
        #[command(subcommand)]
        action: DhcpAction,
    },
    /// Overlay networks: the nodes they span
    Vxlan {
        #[command(subcommand)]
        action: VxlanAction,
    },
    /// Named namespaces, as `ip netns` knows them
    Netns {
        #[command(subcommand)]
        action: NetnsAction,
    },
    /// The forwarding database
    Fdb {
        #[command(subcommand)]
        action: FdbAction,
    },
    /// Bridges, as brctl shows them
    Bridge {
        #[command(subcommand)]
        action: BridgeAction,
    },
    /// The same
    #[command(hide = true)]
    Brctl {
        #[command(subcommand)]
        action: BridgeAction,
    },
    /// Counters: totals, or by port
    Stats {
        /// [show] [NETWORK]
        words: Vec<String>,
        #[arg(long)]
        json: bool,
    },
    /// What happens, line by line
    Events {
        /// Also flows as they come and go, as `conntrack -E`
        #[arg(long)]
        flows: bool,
        #[arg(long)]
        json: bool,
    },
    /// Copy frames to a pcapng file, or show them
    Capture(CaptureArguments),
    /// Links, addresses and routes as seen inside a sandbox
    Ip(IpArguments),
    /// What this machine allows, and what to do about the rest
    Doctor {
        #[arg(long)]
        json: bool,
    },
    /// Print shell completions
    Completions { shell: clap_complete::Shell },
    /// Write manual pages, one for each command, into a directory (as `/usr/local/share/man/man1`)
    Man { directory: PathBuf },
}

/// Whose a network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Scope {
    Local,
    Global,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Io {
    /// io_uring where the kernel allows it
    #[default]
    Auto,
    /// io_uring or nothing
    Uring,
    /// read, write, recvmmsg, sendmmsg
    Epoll,
}

impl From<Io> for IoBackend {
    fn from(io: Io) -> Self {
        match io {
            Io::Auto => Self::Auto,
            Io::Uring => Self::Uring,
            Io::Epoll => Self::Epoll,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct DaemonArguments {
    /// How ports are read; auto unless the file says otherwise
    #[arg(long, value_enum)]
    pub(super) io: Option<Io>,
    /// In a user namespace of its own, even as root
    #[arg(long)]
    pub(super) rootless: bool,
    /// sockets (the default: flows are carried by the host's own sockets), or packets through
    /// tap:NAME[,addr=A/LEN][,gw=A] or dev:NAME,addr=A/LEN[,gw=A][,mtu=N]
    #[arg(long)]
    pub(super) uplink: Option<String>,
    /// Server for names that are not of sandboxes, where neither they nor their network has one; the host's by default
    #[arg(long)]
    pub(super) dns: Vec<IpAddr>,
    /// Certificates for tcp://
    #[command(flatten)]
    pub(super) tls: super::daemon::TlsArguments,
    /// UDP port at which the nodes of overlay networks reach each other; 4789 unless the file says otherwise
    #[arg(long)]
    pub(super) vxlan_port: Option<u16>,
    #[command(flatten)]
    pub(super) cluster: ClusterArguments,
    /// TOML with [daemon], [default-network], [cluster] and [[network]], or Docker's daemon.json; a key must not be given here too
    #[arg(long)]
    pub(super) config: Option<PathBuf>,
    /// error, warn, info, debug or trace; or as tracing's filters, `info,weft=debug`
    #[arg(long, env = "WEFT_LOG")]
    pub(super) log: Option<String>,
}

/// How this node shares networks with others.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub(super) struct ClusterArguments {
    /// Share overlay networks with other nodes through this store: etcd://HOST[:PORT][,HOST[:PORT]...], etcds:// for TLS
    #[arg(long)]
    pub(super) cluster_store: Option<String>,
    /// Where the other nodes reach this one: IP[:PORT], the port being its API's
    #[arg(long)]
    pub(super) cluster_advertise: Option<String>,
    /// Name of this node, unique in the cluster; the host's name unless said otherwise
    #[arg(long)]
    pub(super) node: Option<String>,
    /// What a node has is free when it was not heard of for so long [default: 15s]
    #[arg(long)]
    pub(super) cluster_lease: Option<String>,
    /// Path of everything in the store [default: docker/network/v1.0]
    #[arg(long)]
    pub(super) cluster_prefix: Option<String>,
    /// Certificates (PEM) of whoever vouches for the store
    #[arg(long)]
    pub(super) cluster_ca: Option<PathBuf>,
    /// Our certificate (PEM) for the store
    #[arg(long)]
    pub(super) cluster_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long)]
    pub(super) cluster_key: Option<PathBuf>,
    /// A user of the store
    #[arg(long)]
    pub(super) cluster_user: Option<String>,
    /// A file with that user's password
    #[arg(long)]
    pub(super) cluster_password_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum NodeAction {
    /// List them; the one that was asked has a star
    #[command(alias = "list")]
    Ls {
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct UpArguments {
    /// TOML as examples/quickstart.toml, or a compose file (.yml, .yaml)
    pub(super) file: PathBuf,
    /// Prove that it works, then end: 0 when it does, 1 with what failed
    #[arg(long)]
    pub(super) check: bool,
    /// With --check: give up after this many seconds
    #[arg(long, default_value = "60", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) timeout: u64,
}

#[derive(Debug, Subcommand)]
pub(super) enum NetworkAction {
    /// Make a network
    Create(NetworkCreateArguments),
    /// List networks
    #[command(alias = "list")]
    Ls {
        /// Only ids
        #[arg(short, long)]
        quiet: bool,
        /// name=, id=, driver=, label=KEY[=VALUE]; all must hold
        #[arg(short, long)]
        filter: Vec<String>,
        #[arg(long)]
        json: bool,
    },
    /// Show networks as JSON
    Inspect {
        #[arg(required = true)]
        networks: Vec<String>,
        #[arg(long)]
        json: bool,
    },
    /// Remove the networks that nobody is in
    Prune {
        /// As Docker's; nobody is asked
        #[arg(short, long)]
        force: bool,
    },
    /// Remove networks
    #[command(alias = "remove")]
    Rm {
        #[arg(required = true)]
        networks: Vec<String>,
    },
    /// Put a sandbox into a further network
    Connect {
        network: String,
        sandbox: String,
        #[command(flatten)]
        endpoint: EndpointArguments,
    },
    /// Take a sandbox out of a network
    Disconnect { network: String, sandbox: String },
    /// Change a network while it is used
    Edit(Box<super::edit::NetworkEditArguments>),
    /// Networks that reach each other through the router; without one they are apart
    Route {
        #[command(subcommand)]
        action: RouteAction,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum RouteAction {
    /// Let two networks reach each other
    Add { network: String, other: String },
    /// Part them again
    Rm { network: String, other: String },
    /// List the pairs
    Ls {
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct NetworkCreateArguments {
    /// Say what would be made, as JSON, and make nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    pub(super) name: String,
    /// Address pool, CIDR; one per family
    #[arg(long)]
    pub(super) subnet: Vec<IpNetwork>,
    /// Reserved for the network itself; the first address by default
    #[arg(long)]
    pub(super) gateway: Vec<IpAddr>,
    /// Part of the subnet that is handed out
    #[arg(long)]
    pub(super) ip_range: Option<IpNetwork>,
    /// LABEL=ADDRESS, never handed out
    #[arg(long)]
    pub(super) aux_address: Vec<String>,
    /// Largest packet, bytes
    #[arg(long)]
    pub(super) mtu: Option<u32>,
    /// bridge, transparent or hub
    #[arg(long, value_parser = parse_l2, default_value = "bridge")]
    pub(super) l2: L2,
    /// With IPv6; a private /64 unless --subnet gives one
    #[arg(long)]
    pub(super) ipv6: bool,
    /// Of a cluster: the network of the routing mesh
    #[arg(long)]
    pub(super) ingress: bool,
    /// As Docker's; every network is
    #[arg(long)]
    pub(super) attachable: bool,
    /// No default route
    #[arg(long)]
    pub(super) internal: bool,
    /// On an uplink of packets: full-cone, restricted, port-restricted, symmetric or cgnat
    #[arg(long, value_parser = parse_nat)]
    pub(super) nat: Option<NatPreset>,
    /// On an uplink of packets: leave under this address instead of the uplink's; repeat it for a pool
    #[arg(long)]
    pub(super) nat_source: Vec<IpAddr>,
    /// On an uplink of packets: the IPv6 subnet is seen as this prefix outside (RFC 6296)
    #[arg(long)]
    pub(super) nat_prefix: Option<ipnetwork::Ipv6Network>,
    /// The gateway is a DHCP server: sandboxes get their own address, others one of --dhcp-range
    #[arg(long)]
    pub(super) dhcp: bool,
    /// Part of the IPv4 subnet that only DHCP hands out; the upper quarter by default
    #[arg(long, requires = "dhcp")]
    pub(super) dhcp_range: Option<IpNetwork>,
    /// The gateway sends IPv6 router advertisements
    #[arg(long)]
    pub(super) ra: bool,
    /// Server for names that are not of sandboxes; the host's by default
    #[arg(long)]
    pub(super) dns: Vec<IpAddr>,
    /// KEY=VALUE
    #[arg(long)]
    pub(super) label: Vec<String>,
    /// bridge, overlay, or lan (also called macvlan and ipvlan): stations of the LAN behind -o parent=DEVICE[.VLAN]
    #[arg(short, long)]
    pub(super) driver: Option<String>,
    /// Of an overlay: its number on the wire; the first free one from 4096 by default
    #[arg(long)]
    pub(super) vni: Option<u32>,
    /// Of this node, or of all nodes of the cluster; in a cluster overlays are global unless they name their peers
    #[arg(long, value_enum)]
    pub(super) scope: Option<Scope>,
    /// Of an overlay: another node, IP or IP:PORT
    #[arg(long)]
    pub(super) peer: Vec<Remote>,
    /// KEY=VALUE; Docker's, and of overlays learning, strict, port, ttl, group, encrypted, weft.key-file and weft.rekey; of lans parent
    #[arg(short, long)]
    pub(super) opt: Vec<String>,
    /// `null`: no addresses
    #[arg(long)]
    pub(super) ipam_driver: Option<String>,
    /// Idle time of learned addresses, seconds
    #[arg(long)]
    pub(super) ageing: Option<u32>,
}

fn parse_l2(text: &str) -> Result<L2, String> {
    match text {
        "bridge" => Ok(L2::Bridge),
        "transparent" => Ok(L2::Transparent),
        "hub" => Ok(L2::Hub),
        other => Err(format!("{other:?} is none of bridge, transparent, hub")),
    }
}

pub(super) fn parse_nat(text: &str) -> Result<NatPreset, String> {
    let all = [NatPreset::FullCone, NatPreset::Restricted, NatPreset::PortRestricted, NatPreset::Symmetric, NatPreset::Cgnat];
    all.into_iter().find(|preset| preset.name() == text).ok_or_else(|| format!("{text:?} is none of {}", all.map(NatPreset::name).join(", ")))
}

fn parse_kind(text: &str) -> Result<EndpointKind, String> {
    match text {
        "tap" => Ok(EndpointKind::Tap),
        "veth" => Ok(EndpointKind::Veth),
        other => Err(format!("{other:?} is neither tap nor veth")),
    }
}

/// How an endpoint is to be.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct EndpointArguments {
    /// IPv4 address
    #[arg(long)]
    pub(super) ip: Option<Ipv4Addr>,
    /// IPv6 address
    #[arg(long)]
    pub(super) ip6: Option<Ipv6Addr>,
    /// Ethernet address
    #[arg(long, alias = "mac-address")]
    pub(super) mac: Option<String>,
    /// Name inside
    #[arg(long)]
    pub(super) ifname: Option<String>,
    /// tap or veth
    #[arg(long, value_parser = parse_kind)]
    pub(super) kind: Option<EndpointKind>,
    /// Largest packet, bytes
    #[arg(long)]
    pub(super) mtu: Option<u32>,
    /// Untagged member of this VLAN
    #[arg(long, conflicts_with = "trunk")]
    pub(super) vlan: Option<u16>,
    /// Tagged member of VLANs: 10,20[,native=1] or all
    #[arg(long)]
    pub(super) trunk: Option<String>,
    /// Talks only to ports that are not isolated
    #[arg(long)]
    pub(super) isolated: bool,
    /// Ports of one group never talk to one another
    #[arg(long)]
    pub(super) horizon: Option<u32>,
    /// Let it use any source address
    #[arg(long, conflicts_with = "guard")]
    pub(super) no_guard: bool,
    /// Only its own source addresses
    #[arg(long)]
    pub(super) guard: bool,
    /// Further name
    #[arg(long)]
    pub(super) alias: Vec<String>,
    /// The aliases are services: each leads to one virtual address, whose connections are balanced
    #[arg(long)]
    pub(super) vip: bool,
}

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// Say what would be made, as JSON, and make nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// As Docker's; the streams are always those of the caller
    #[arg(short, hide = true)]
    interactive: bool,
    /// As Docker's; the terminal is always that of the caller
    #[arg(short, hide = true)]
    tty: bool,
    /// In the background
    #[arg(short, long)]
    pub(super) detach: bool,
    /// Remove when it ends (always so: a sandbox ends with its process)
    #[arg(long)]
    pub(super) rm: bool,
    /// Name of the sandbox; made up when missing
    #[arg(long)]
    pub(super) name: Option<String>,
    /// none, host, or (repeatable) NETWORK[:ip=..,ip6=..,mac=..,ifname=..,mtu=..,vlan=..,kind=tap|veth,isolated,alias=..,vip=..]
    #[arg(long = "net", alias = "network", value_name = "SPEC")]
    pub(super) networks: Vec<String>,
    /// IPv4 address in the first network
    #[arg(long)]
    pub(super) ip: Option<Ipv4Addr>,
    /// IPv6 address in the first network
    #[arg(long)]
    pub(super) ip6: Option<Ipv6Addr>,
    /// Ethernet address in the first network
    #[arg(long, alias = "mac-address")]
    pub(super) mac: Option<String>,
    /// [IP:][HOST[-END]]:PORT[-END][/tcp|udp], repeatable
    #[arg(short, long)]
    pub(super) publish: Vec<String>,
    /// A port that the command listens on, PORT[-END][/tcp|udp]; published by -P
    #[arg(long)]
    pub(super) expose: Vec<String>,
    /// Publish all --expose ports on ports of the host that are free
    #[arg(short = 'P', long)]
    pub(super) publish_all: bool,
    /// Host name inside
    #[arg(short = 'h', long)]
    pub(super) hostname: Option<String>,
    /// Server for names that are not of sandboxes; the network's, or the host's, by default
    #[arg(long)]
    pub(super) dns: Vec<IpAddr>,
    /// Domain tried behind a name; `.` for none
    #[arg(long)]
    pub(super) dns_search: Vec<String>,
    /// Option of resolv.conf(5), such as ndots:1
    #[arg(long, alias = "dns-opt")]
    pub(super) dns_option: Vec<String>,
    /// NAME:IP or NAME:host-gateway, a line of its /etc/hosts
    #[arg(long)]
    pub(super) add_host: Vec<String>,
    /// NAME[:ALIAS], a sandbox by a name that only this one knows
    #[arg(long)]
    pub(super) link: Vec<String>,
    /// Further name in the first network
    #[arg(long, visible_alias = "network-alias")]
    pub(super) alias: Vec<String>,
    /// These names are services: each leads to one virtual address, whose connections are balanced
    #[arg(long)]
    pub(super) vip: bool,
    /// KEY=VALUE, or KEY with its value here
    #[arg(short, long)]
    pub(super) env: Vec<String>,
    /// Program and arguments
    #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
    pub(super) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct ExecArguments {
    /// As Docker's; the streams are always those of the caller
    #[arg(short, hide = true)]
    interactive: bool,
    /// As Docker's; the terminal is always that of the caller
    #[arg(short, hide = true)]
    tty: bool,
    /// Sandbox, namespace name, path or pid
    pub(super) sandbox: String,
    #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
    pub(super) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct PsArguments {
    /// Also those that are only attached
    #[arg(short, long)]
    pub(super) all: bool,
    /// Only ids
    #[arg(short, long)]
    pub(super) quiet: bool,
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct AttachArguments {
    /// Say what would be made, as JSON, and make nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    pub(super) network: String,
    /// Sandbox, namespace name, path or pid
    #[arg(required_unless_present_any = ["on_host", "dev"], conflicts_with_all = ["on_host", "dev"])]
    pub(super) target: Option<String>,
    /// The host itself joins, with an interface of its own (also `--host`)
    #[arg(id = "on_host", long = "host-port", alias = "self")]
    pub(super) on_host: bool,
    /// A device of the host joins
    #[arg(long, conflicts_with = "on_host")]
    pub(super) dev: Option<String>,
    #[command(flatten)]
    pub(super) endpoint: EndpointArguments,
}

#[derive(Debug, Args)]
pub(super) struct DetachArguments {
    /// A port, or a network followed by what leaves it
    pub(super) port_or_network: String,
    pub(super) target: Option<String>,
    #[arg(id = "on_host", long = "host-port", alias = "self")]
    pub(super) on_host: bool,
    #[arg(long)]
    pub(super) dev: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum PortAction {
    /// List ports
    #[command(alias = "show", alias = "list")]
    Ls {
        network: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// Move the device behind a port to another namespace; the port stays
    Move {
        port: String,
        /// Sandbox, namespace name, path or pid
        target: String,
        #[arg(long)]
        ifname: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum LinkAction {
    /// PORT up | down | mtu N | isolated on|off
    Set {
        port: String,
        #[arg(required = true)]
        change: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum NetnsAction {
    /// Make a namespace with lo up
    Add { name: String },
    /// Take names away
    #[command(alias = "delete")]
    Del {
        names: Vec<String>,
        #[arg(long)]
        all: bool,
    },
    /// List names
    #[command(alias = "list")]
    Ls {
        #[arg(long)]
        json: bool,
    },
    /// Names of the namespace that a process is in
    Identify {
        /// This process when missing
        pid: Option<i32>,
    },
    /// Processes in a namespace
    Pids { name: String },
    /// Give a namespace an id by which this one knows it: NAME ID|auto
    Set { name: String, id: String },
    /// Namespaces that this one knows by id
    ListId,
    /// Print names as they come and go
    Monitor,
    /// Run a command inside
    Exec {
        name: String,
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum FdbAction {
    /// Stations, as `bridge fdb` shows them
    #[command(alias = "list", alias = "ls")]
    Show(FdbShowArguments),
    /// Add a static station: MAC NETWORK PORT [vlan N]
    #[command(alias = "append", alias = "replace")]
    Add {
        mac: String,
        network: String,
        port: String,
        /// vlan N
        vlan: Vec<String>,
    },
    /// Remove a station: MAC NETWORK [vlan N]
    #[command(alias = "delete")]
    Del {
        mac: String,
        network: String,
        /// vlan N
        vlan: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct FdbShowArguments {
    /// [NETWORK | br NETWORK] [dev PORT] [vlan N]
    pub(super) words: Vec<String>,
    #[arg(short, long)]
    pub(super) json: bool,
    /// Also seconds since last seen
    #[arg(short, long)]
    pub(super) statistics: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum BridgeAction {
    /// Bridges with their ports
    Show {
        #[arg(short, long)]
        json: bool,
    },
    /// The forwarding database, as `weft fdb`
    Fdb {
        #[command(subcommand)]
        action: Option<FdbAction>,
    },
    /// Stations of a network, as `brctl showmacs`
    #[command(hide = true)]
    Showmacs { network: String },
}

#[derive(Debug, Args)]
pub(super) struct CaptureArguments {
    /// Network, port, sandbox with one port, or all
    #[arg(default_value = "all")]
    pub(super) target: String,
    /// pcapng file, or - for standard output; without it frames are shown
    #[arg(short, long, value_name = "FILE")]
    pub(super) write: Option<PathBuf>,
    /// Super-frames whole instead of as the wire would see them
    #[arg(long)]
    pub(super) whole: bool,
    /// Only these frames, as tcpdump says it: 'tcp port 80 and not host 10.0.0.2' (a part of pcap-filter(7))
    #[arg(short, long, num_args = 1.., value_name = "EXPRESSION")]
    pub(super) filter: Vec<String>,
    /// End after this many frames
    #[arg(short, long)]
    pub(super) count: Option<usize>,
}

#[derive(Debug, Args)]
pub(super) struct IpArguments {
    /// addr (a), link (l) or route (r)
    pub(super) object: String,
    /// [show] [[dev] INTERFACE]
    pub(super) words: Vec<String>,
    /// Sandbox, namespace name, path or pid; the host by default
    #[arg(short)]
    pub(super) namespace: Option<String>,
    #[arg(long, short = 'j')]
    pub(super) json: bool,
    /// Only IPv4
    #[arg(short = '4', conflicts_with = "six")]
    pub(super) four: bool,
    /// Only IPv6
    #[arg(short = '6')]
    pub(super) six: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum PublishAction {
    /// SANDBOX [IP:][HOST[-END]]:PORT[-END][/tcp|udp] ...
    Add {
        sandbox: String,
        #[arg(required = true)]
        specs: Vec<String>,
    },
    /// SANDBOX and what was given to `add`, or the sandbox's port alone
    #[command(alias = "remove")]
    Rm {
        sandbox: String,
        #[arg(required = true)]
        specs: Vec<String>,
    },
    /// Published ports
    #[command(alias = "list")]
    Ls {
        sandbox: Option<String>,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum NatAction {
    /// Rules with what they met, in the shape of `iptables -t nat -vnL`
    Show {
        #[arg(long)]
        json: bool,
    },
    /// Flows, in the shape of `conntrack -L`
    Flows {
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum DhcpAction {
    /// What is lent, to whom and how long; and what is kept for stations
    Leases {
        network: String,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum VxlanAction {
    /// Other nodes of a network
    Peer {
        #[command(subcommand)]
        action: VxlanPeerAction,
    },
    /// Stations that are behind a node, whatever is learned
    Fdb {
        #[command(subcommand)]
        action: VxlanFdbAction,
    },
    /// Changes the keys of an encrypted overlay
    ///
    /// Of a shared network of a cluster: makes a new key, and all nodes go over to it without loss, in two leases
    /// (`--cluster-lease`). Of another network: reads its key file again.
    ///
    /// A line is `[EPOCH] KEY`, the key in 64 hexadecimal digits. The first line is sent with, a second one accepted too.
    /// To change keys without loss: add the new one, with another epoch, as second line and rekey all nodes; make it
    /// the first and rekey all; take the old one out and rekey all.
    Rekey { network: String },
    /// Overlays with their counters, drops and remote stations
    #[command(alias = "list", alias = "ls")]
    Show {
        network: Option<String>,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum VipAction {
    /// Services, their virtual addresses and who answers
    #[command(alias = "list", alias = "show")]
    Ls {
        /// Only those of this network
        network: Option<String>,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum VxlanPeerAction {
    /// NETWORK IP[:PORT] ...
    Add {
        network: String,
        #[arg(required = true)]
        peers: Vec<Remote>,
    },
    /// NETWORK IP[:PORT] ...
    #[command(alias = "remove", alias = "del")]
    Rm {
        network: String,
        #[arg(required = true)]
        peers: Vec<Remote>,
    },
    /// Nodes that floods go to
    #[command(alias = "list", alias = "show")]
    Ls {
        network: String,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum VxlanFdbAction {
    /// MAC NETWORK IP[:PORT]
    #[command(alias = "add", alias = "replace")]
    Append { mac: String, network: String, node: Remote },
    /// MAC NETWORK
    #[command(alias = "delete", alias = "rm")]
    Del {
        mac: String,
        network: String,
        /// The node may be named again
        node: Option<Remote>,
    },
}
