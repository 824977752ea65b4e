//! `weft netns`, `ip`.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum NetnsAction {
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

#[derive(Debug, Args)]
pub(crate) struct IpArguments {
    /// addr (a), link (l) or route (r)
    pub(crate) object: String,
    /// [show] [[dev] INTERFACE]
    pub(crate) words: Vec<String>,
    /// Sandbox, namespace name, path or pid; the host by default
    #[arg(short)]
    pub(crate) namespace: Option<String>,
    #[arg(long, short = 'j')]
    pub(crate) json: bool,
    /// Only IPv4
    #[arg(short = '4', conflicts_with = "six")]
    pub(crate) four: bool,
    /// Only IPv6
    #[arg(short = '6')]
    pub(crate) six: bool,
}
