//! `weft network`.

use std::net::IpAddr;

use clap::{Args, Subcommand, ValueEnum};
use ipnetwork::IpNetwork;
use weft_control::{L2, NatPreset, overlay::Remote};

use super::EndpointArguments;

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkAction {
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
    Edit(Box<crate::cli::edit::NetworkEditArguments>),
    /// Networks that reach each other through the router; without one they are apart
    Route {
        #[command(subcommand)]
        action: RouteAction,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RouteAction {
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
pub(crate) struct NetworkCreateArguments {
    /// Say what would be made, as JSON, and make nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    pub(crate) name: String,
    /// Address pool, CIDR; one per family
    #[arg(long)]
    pub(crate) subnet: Vec<IpNetwork>,
    /// Reserved for the network itself; the first address by default
    #[arg(long)]
    pub(crate) gateway: Vec<IpAddr>,
    /// Part of the subnet that is handed out
    #[arg(long)]
    pub(crate) ip_range: Option<IpNetwork>,
    /// LABEL=ADDRESS, never handed out
    #[arg(long)]
    pub(crate) aux_address: Vec<String>,
    /// Largest packet, bytes
    #[arg(long)]
    pub(crate) mtu: Option<u32>,
    /// bridge, transparent or hub
    #[arg(long, value_parser = parse_l2, default_value = "bridge")]
    pub(crate) l2: L2,
    /// --ipv4=false: without IPv4; wants --ipv6, or a subnet of it
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false", hide_default_value = true, hide_possible_values = true)]
    pub(crate) ipv4: bool,
    /// With IPv6; a private /64 unless --subnet gives one
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// Of a cluster: the network of the routing mesh
    #[arg(long)]
    pub(crate) ingress: bool,
    /// As Docker's; every network is
    #[arg(long)]
    pub(crate) attachable: bool,
    /// No default route
    #[arg(long)]
    pub(crate) internal: bool,
    /// On an uplink of packets: full-cone, restricted, port-restricted, symmetric or cgnat
    #[arg(long, value_parser = parse_nat)]
    pub(crate) nat: Option<NatPreset>,
    /// On an uplink of packets: leave under this address instead of the uplink's; repeat it for a pool
    #[arg(long)]
    pub(crate) nat_source: Vec<IpAddr>,
    /// On an uplink of packets: the IPv6 subnet is seen as this prefix outside (RFC 6296)
    #[arg(long)]
    pub(crate) nat_prefix: Option<ipnetwork::Ipv6Network>,
    /// The gateway is a DHCP server: sandboxes get their own address, others one of --dhcp-range
    #[arg(long)]
    pub(crate) dhcp: bool,
    /// Part of the IPv4 subnet that only DHCP hands out; the upper quarter by default
    #[arg(long, requires = "dhcp")]
    pub(crate) dhcp_range: Option<IpNetwork>,
    /// The gateway sends IPv6 router advertisements
    #[arg(long)]
    pub(crate) ra: bool,
    /// Server for names that are not of sandboxes; the host's by default
    #[arg(long)]
    pub(crate) dns: Vec<IpAddr>,
    /// KEY=VALUE
    #[arg(long)]
    pub(crate) label: Vec<String>,
    /// bridge, overlay, or lan (also called macvlan and ipvlan): stations of the LAN behind -o parent=DEVICE[.VLAN]
    #[arg(short, long)]
    pub(crate) driver: Option<String>,
    /// Of an overlay: its number on the wire; the first free one from 4096 by default
    #[arg(long)]
    pub(crate) vni: Option<u32>,
    /// Of this node, or of all nodes of the cluster; in a cluster overlays are global unless they name their peers
    #[arg(long, value_enum)]
    pub(crate) scope: Option<Scope>,
    /// Of an overlay: another node, IP or IP:PORT
    #[arg(long)]
    pub(crate) peer: Vec<Remote>,
    /// KEY=VALUE; Docker's, and of overlays learning, strict, port, ttl, group, encrypted, weft.key-file and weft.rekey; of lans parent
    #[arg(short, long)]
    pub(crate) opt: Vec<String>,
    /// `null`: no addresses
    #[arg(long)]
    pub(crate) ipam_driver: Option<String>,
    /// Idle time of learned addresses, seconds
    #[arg(long)]
    pub(crate) ageing: Option<u32>,
}

/// Whose a network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scope {
    Local,
    Global,
}

fn parse_l2(text: &str) -> Result<L2, String> {
    match text {
        "bridge" => Ok(L2::Bridge),
        "transparent" => Ok(L2::Transparent),
        "hub" => Ok(L2::Hub),
        other => Err(format!("{other:?} is none of bridge, transparent, hub")),
    }
}

pub(crate) fn parse_nat(text: &str) -> Result<NatPreset, String> {
    let all = [NatPreset::FullCone, NatPreset::Restricted, NatPreset::PortRestricted, NatPreset::Symmetric, NatPreset::Cgnat];
    all.into_iter().find(|preset| preset.name() == text).ok_or_else(|| format!("{text:?} is none of {}", all.map(NatPreset::name).join(", ")))
}
