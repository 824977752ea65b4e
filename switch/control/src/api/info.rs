//! The daemon as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::EndpointKind;

/// `GET /v1/info`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Info {
    /// Of the program.
    pub version: String,
    /// Of the daemon; a rootless one's user and mount namespace are found by it.
    pub pid: i32,
    /// Without root.
    pub rootless: bool,
    /// `io_uring` or `epoll`.
    pub io: String,
    /// Port kind chosen by default, and why.
    pub kind: EndpointKind,
    /// Why.
    pub kind_reason: String,
    /// Where pins and logs are.
    pub run_dir: String,
    /// Where the state file is.
    #[serde(default)]
    pub state_dir: String,
    /// The socket that answers.
    #[serde(default)]
    pub socket: String,
}

/// `GET /v1/stats`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stats {
    /// Networks.
    pub bridges: usize,
    /// Ports.
    pub ports: usize,
    /// Stations known.
    pub fdb_entries: usize,
    /// Frames in.
    pub rx_frames: u64,
    /// Frames out.
    pub tx_frames: u64,
    /// Drops by reason.
    pub drops: BTreeMap<String, u64>,
    /// Buffers in use: small, large.
    pub buffers: [usize; 2],
}

/// `POST /v1/trace`; answers with the steps, a string each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// `SANDBOX:IFNAME`, a sandbox with one port, `host`, or `uplink`.
    pub port: String,
    /// As `tcp 172.17.0.2:4000 > 1.1.1.1:80 ttl 64 len 100 df`.
    pub packet: String,
}
