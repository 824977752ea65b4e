//! `weft bridge`, `fdb`, `capture`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum BridgeAction {
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

#[derive(Debug, Subcommand)]
pub(crate) enum FdbAction {
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
pub(crate) struct FdbShowArguments {
    /// [NETWORK | br NETWORK] [dev PORT] [vlan N]
    pub(crate) words: Vec<String>,
    #[arg(short, long)]
    pub(crate) json: bool,
    /// Also seconds since last seen
    #[arg(short, long)]
    pub(crate) statistics: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CaptureArguments {
    /// Network, port, sandbox with one port, or all
    #[arg(default_value = "all")]
    pub(crate) target: String,
    /// pcapng file, or - for standard output; without it frames are shown
    #[arg(short, long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
    /// Super-frames whole instead of as the wire would see them
    #[arg(long)]
    pub(crate) whole: bool,
    /// Only these frames, as tcpdump says it: 'tcp port 80 and not host 10.0.0.2' (a part of pcap-filter(7))
    #[arg(short, long, num_args = 1.., value_name = "EXPRESSION")]
    pub(crate) filter: Vec<String>,
    /// End after this many frames
    #[arg(short, long)]
    pub(crate) count: Option<usize>,
}
