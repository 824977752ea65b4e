//! How endpoints are to be: `weft attach`, `detach`, `port`, `link`.

use std::net::{Ipv4Addr, Ipv6Addr};

use clap::{Args, Subcommand};
use weft_control::EndpointKind;

/// How an endpoint is to be.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct EndpointArguments {
    /// IPv4 address
    #[arg(long)]
    pub(crate) ip: Option<Ipv4Addr>,
    /// IPv6 address
    #[arg(long)]
    pub(crate) ip6: Option<Ipv6Addr>,
    /// Ethernet address
    #[arg(long, alias = "mac-address")]
    pub(crate) mac: Option<String>,
    /// Name inside
    #[arg(long)]
    pub(crate) ifname: Option<String>,
    /// tap or veth
    #[arg(long, value_parser = parse_kind)]
    pub(crate) kind: Option<EndpointKind>,
    /// Largest packet, bytes
    #[arg(long)]
    pub(crate) mtu: Option<u32>,
    /// Untagged member of this VLAN
    #[arg(long, conflicts_with = "trunk")]
    pub(crate) vlan: Option<u16>,
    /// Tagged member of VLANs: 10,20[,native=1] or all
    #[arg(long)]
    pub(crate) trunk: Option<String>,
    /// Talks only to ports that are not isolated
    #[arg(long)]
    pub(crate) isolated: bool,
    /// Ports of one group never talk to one another
    #[arg(long)]
    pub(crate) horizon: Option<u32>,
    /// Let it use any source address
    #[arg(long, conflicts_with = "guard")]
    pub(crate) no_guard: bool,
    /// Only its own source addresses
    #[arg(long)]
    pub(crate) guard: bool,
    /// Further name
    #[arg(long)]
    pub(crate) alias: Vec<String>,
    /// The aliases are services: each leads to one virtual address, whose connections are balanced
    #[arg(long)]
    pub(crate) vip: bool,
}

fn parse_kind(text: &str) -> Result<EndpointKind, String> {
    match text {
        "tap" => Ok(EndpointKind::Tap),
        "veth" => Ok(EndpointKind::Veth),
        other => Err(format!("{other:?} is neither tap nor veth")),
    }
}

#[derive(Debug, Args)]
pub(crate) struct AttachArguments {
    /// Say what would be made, as JSON, and make nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    pub(crate) network: String,
    /// Sandbox, namespace name, path or pid
    #[arg(required_unless_present_any = ["on_host", "dev"], conflicts_with_all = ["on_host", "dev"])]
    pub(crate) target: Option<String>,
    /// The host itself joins, with an interface of its own (also `--host`)
    #[arg(id = "on_host", long = "host-port", alias = "self")]
    pub(crate) on_host: bool,
    /// A device of the host joins
    #[arg(long, conflicts_with = "on_host")]
    pub(crate) dev: Option<String>,
    #[command(flatten)]
    pub(crate) endpoint: EndpointArguments,
}

#[derive(Debug, Args)]
pub(crate) struct DetachArguments {
    /// A port, or a network followed by what leaves it
    pub(crate) port_or_network: String,
    pub(crate) target: Option<String>,
    #[arg(id = "on_host", long = "host-port", alias = "self")]
    pub(crate) on_host: bool,
    #[arg(long)]
    pub(crate) dev: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PortAction {
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
pub(crate) enum LinkAction {
    /// PORT up | down | mtu N | isolated on|off
    Set {
        port: String,
        #[arg(required = true)]
        change: Vec<String>,
    },
}
