//! `weft daemon`, `up`, `node`.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use crate::dataloop::IoBackend;

#[derive(Clone, Copy, Debug, Default, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Io {
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
pub(crate) struct DaemonArguments {
    /// How ports are read; auto unless the file says otherwise
    #[arg(long, value_enum)]
    pub(crate) io: Option<Io>,
    /// In a user namespace of its own, even as root
    #[arg(long)]
    pub(crate) rootless: bool,
    /// sockets (the default: flows are carried by the host's own sockets), or packets through
    /// tap:NAME[,addr=A/LEN][,gw=A] or dev:NAME,addr=A/LEN[,gw=A][,mtu=N]
    #[arg(long)]
    pub(crate) uplink: Option<String>,
    /// Server for names that are not of sandboxes, where neither they nor their network has one; the host's by default
    #[arg(long)]
    pub(crate) dns: Vec<IpAddr>,
    /// Certificates for tcp://
    #[command(flatten)]
    pub(crate) tls: crate::cli::daemon::TlsArguments,
    /// UDP port at which the nodes of overlay networks reach each other; 4789 unless the file says otherwise
    #[arg(long)]
    pub(crate) vxlan_port: Option<u16>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
    /// TOML with [daemon], [default-network], [cluster] and [[network]], or Docker's daemon.json; a key must not be given here too
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// error, warn, info, debug or trace; or as tracing's filters, `info,weft=debug`
    #[arg(long, env = "WEFT_LOG")]
    pub(crate) log: Option<String>,
}

/// How this node shares networks with others.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArguments {
    /// Share overlay networks with other nodes through this store: etcd://HOST[:PORT][,HOST[:PORT]...], etcds:// for TLS
    #[arg(long)]
    pub(crate) cluster_store: Option<String>,
    /// Where the other nodes reach this one: IP[:PORT], the port being its API's
    #[arg(long)]
    pub(crate) cluster_advertise: Option<String>,
    /// Name of this node, unique in the cluster; the host's name unless said otherwise
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// What a node has is free when it was not heard of for so long [default: 15s]
    #[arg(long)]
    pub(crate) cluster_lease: Option<String>,
    /// Path of everything in the store [default: docker/network/v1.0]
    #[arg(long)]
    pub(crate) cluster_prefix: Option<String>,
    /// Certificates (PEM) of whoever vouches for the store
    #[arg(long)]
    pub(crate) cluster_ca: Option<PathBuf>,
    /// Our certificate (PEM) for the store
    #[arg(long)]
    pub(crate) cluster_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long)]
    pub(crate) cluster_key: Option<PathBuf>,
    /// A user of the store
    #[arg(long)]
    pub(crate) cluster_user: Option<String>,
    /// A file with that user's password
    #[arg(long)]
    pub(crate) cluster_password_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeAction {
    /// List them; the one that was asked has a star
    #[command(alias = "list")]
    Ls {
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct UpArguments {
    /// TOML as examples/quickstart.toml, or a compose file (.yml, .yaml)
    #[arg(required_unless_present = "clear")]
    pub(crate) file: Option<PathBuf>,
    /// Remove what one that was killed had in this directory; the next `weft up` does it by itself
    #[arg(long, value_name = "DIRECTORY", hide = true, conflicts_with = "file")]
    pub(crate) clear: Option<PathBuf>,
    /// Prove that it works, then end: 0 when it does, 1 with what failed
    #[arg(long)]
    pub(crate) check: bool,
    /// With --check: give up after this many seconds
    #[arg(long, default_value = "60", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
}
