//! Translation: rules and flows.

use serde::{Deserialize, Serialize};

/// An entry of `GET /v1/nat`: how a subnet leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatRule {
    /// The network.
    pub network: String,
    /// Its subnet.
    pub source: String,
    /// In the words of iptables: MASQUERADE, SNAT, NETMAP (RFC 6296), or RETURN (not translated); and HAIRPIN, for what
    /// MASQUERADE or SNAT translate that comes back in at an external address.
    pub target: String,
    /// The addresses of SNAT, the prefix of NETMAP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// Mapping and filtering, where ports are translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Connections that it made, where ports are translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hits: Option<u64>,
    /// Packets both ways, where connections are translated packet by packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
    /// Bytes both ways, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// An entry of `GET /v1/flows`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowInfo {
    /// The sandbox's network.
    pub network: String,
    /// tcp, udp or icmp.
    pub protocol: String,
    /// The sandbox's end; of icmp, the identifier is in the port's place.
    pub inside: String,
    /// The other end, as the sandbox sees it.
    pub outside: String,
    /// What the sandbox's end is called outside, where packets are translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<String>,
    /// As conntrack names it.
    pub state: String,
    /// `out` when the sandbox opened it, `in` when outside did.
    pub direction: String,
    /// Seconds that it lives on without a packet, where packets are translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_s: Option<u64>,
    /// From the sandbox and to it, where packets are translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<[u64; 2]>,
    /// From the sandbox, bytes of payload.
    pub tx_bytes: u64,
    /// To the sandbox, bytes.
    pub rx_bytes: u64,
}

/// Name of an IP protocol, or its number.
#[must_use]
pub fn protocol_name(number: u8) -> String {
    match number {
        6 => "tcp".into(),
        17 => "udp".into(),
        1 | 58 => "icmp".into(),
        other => other.to_string(),
    }
}
