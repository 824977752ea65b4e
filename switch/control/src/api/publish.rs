//! Published ports, and services with a virtual address.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::publish::Protocol;

/// `POST` and `DELETE /v1/sandboxes/{id}/publish`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishEdit {
    /// Ports, in the words of `docker run -p`.
    pub publish: Vec<String>,
}

/// An entry of `GET /v1/publishes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishInfo {
    /// Whose port it is; empty for a service of the routing mesh that has no replica on this node.
    pub sandbox: String,
    /// The service, for a port of the routing mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Where the host listens, or would.
    pub host: String,
    /// Why it does not, for a port of the routing mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Where it leads.
    pub inside: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Connections, or datagrams, that came in.
    pub hits: u64,
    /// Packets both ways, where packets are translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
    /// Bytes both ways, where packets are translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// An entry of `GET /v1/vips`: a service with a virtual address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipInfo {
    /// Its network.
    pub network: String,
    /// Its name there.
    pub name: String,
    /// Its addresses, one a family.
    pub addresses: Vec<IpAddr>,
    /// Who answers, by address.
    pub endpoints: Vec<VipEndpoint>,
}

/// Who answers for a virtual address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipEndpoint {
    /// Its sandbox; empty for one on another node.
    pub sandbox: String,
    /// Its own address.
    pub address: IpAddr,
    /// Connections that are open.
    pub connections: usize,
    /// Connections that it was given since it is part of the service.
    pub total: u64,
}
