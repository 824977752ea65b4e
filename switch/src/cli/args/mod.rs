//! The grammar. Words are Docker's and iproute2's where they have one.

mod bridge;
mod daemon;
mod endpoint;
mod nat;
mod netns;
mod network;
mod sandbox;
mod vxlan;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub(super) use self::{
    bridge::{BridgeAction, CaptureArguments, FdbAction, FdbShowArguments},
    daemon::{DaemonArguments, Io, NodeAction, UpArguments},
    endpoint::{AttachArguments, DetachArguments, EndpointArguments, LinkAction, PortAction},
    nat::{DhcpAction, NatAction, PublishAction, VipAction},
    netns::{IpArguments, NetnsAction},
    network::{NetworkAction, NetworkCreateArguments, RouteAction, Scope, parse_nat},
    sandbox::{ExecArguments, PsArguments, RunArguments},
    vxlan::{VxlanAction, VxlanFdbAction, VxlanPeerAction},
};

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
