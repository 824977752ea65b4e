//! What is translated, balanced and lent: `weft publish`, `nat`, `vip`, `dhcp`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum PublishAction {
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
pub(crate) enum NatAction {
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
pub(crate) enum VipAction {
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
pub(crate) enum DhcpAction {
    /// What is lent, to whom and how long; and what is kept for stations
    Leases {
        network: String,
        #[arg(long)]
        json: bool,
    },
}
