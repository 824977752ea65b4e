//! `weft vxlan`.

use clap::Subcommand;
use weft_control::overlay::Remote;

#[derive(Debug, Subcommand)]
pub(crate) enum VxlanAction {
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
pub(crate) enum VxlanPeerAction {
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
pub(crate) enum VxlanFdbAction {
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
