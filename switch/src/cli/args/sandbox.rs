//! `weft run`, `exec`, `ps`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::{ArgAction, Args};

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Say what would be made, as JSON, and make nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
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
    pub(crate) detach: bool,
    /// Remove when it ends (always so: a sandbox ends with its process)
    #[arg(long)]
    pub(crate) rm: bool,
    /// Name of the sandbox; made up when missing
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// none, host, or (repeatable) NETWORK[:ip=..,ip6=..,mac=..,ifname=..,mtu=..,vlan=..,kind=tap|veth,isolated,alias=..,vip=..]
    #[arg(long = "net", alias = "network", value_name = "SPEC")]
    pub(crate) networks: Vec<String>,
    /// IPv4 address in the first network
    #[arg(long)]
    pub(crate) ip: Option<Ipv4Addr>,
    /// IPv6 address in the first network
    #[arg(long)]
    pub(crate) ip6: Option<Ipv6Addr>,
    /// Ethernet address in the first network
    #[arg(long, alias = "mac-address")]
    pub(crate) mac: Option<String>,
    /// [IP:][HOST[-END]]:PORT[-END][/tcp|udp], repeatable
    #[arg(short, long)]
    pub(crate) publish: Vec<String>,
    /// A port that the command listens on, PORT[-END][/tcp|udp]; published by -P
    #[arg(long)]
    pub(crate) expose: Vec<String>,
    /// Publish all --expose ports on ports of the host that are free
    #[arg(short = 'P', long)]
    pub(crate) publish_all: bool,
    /// Host name inside
    #[arg(short = 'h', long)]
    pub(crate) hostname: Option<String>,
    /// Server for names that are not of sandboxes; the network's, or the host's, by default
    #[arg(long)]
    pub(crate) dns: Vec<IpAddr>,
    /// Domain tried behind a name; `.` for none
    #[arg(long)]
    pub(crate) dns_search: Vec<String>,
    /// Option of resolv.conf(5), such as ndots:1
    #[arg(long, alias = "dns-opt")]
    pub(crate) dns_option: Vec<String>,
    /// NAME:IP or NAME:host-gateway, a line of its /etc/hosts
    #[arg(long)]
    pub(crate) add_host: Vec<String>,
    /// NAME[:ALIAS], a sandbox by a name that only this one knows
    #[arg(long)]
    pub(crate) link: Vec<String>,
    /// Further name in the first network
    #[arg(long, visible_alias = "network-alias")]
    pub(crate) alias: Vec<String>,
    /// These names are services: each leads to one virtual address, whose connections are balanced
    #[arg(long)]
    pub(crate) vip: bool,
    /// KEY=VALUE, or KEY with its value here
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    /// Program and arguments
    #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArguments {
    /// As Docker's; the streams are always those of the caller
    #[arg(short, hide = true)]
    interactive: bool,
    /// As Docker's; the terminal is always that of the caller
    #[arg(short, hide = true)]
    tty: bool,
    /// Sandbox, namespace name, path or pid
    pub(crate) sandbox: String,
    #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PsArguments {
    /// Also those that are only attached
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[arg(long)]
    pub(crate) json: bool,
}
