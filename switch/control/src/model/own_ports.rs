//! Ports that are a network's own: to a device of the host, or to other nodes. No sandbox is behind them.

use super::{Model, Network};
use crate::error::{Code, ControlError};

impl Network {
    /// The device of the host, or `DEVICE.VLAN`, that it is to have a port on.
    #[must_use]
    pub fn parent(&self) -> Option<&str> {
        self.lan.as_ref().filter(|_| !self.internal)?.parent.as_deref()
    }

    /// What that port is called.
    #[must_use]
    pub fn parent_port(&self) -> Option<String> {
        self.parent().map(|parent| format!("{}:{parent}", self.name))
    }

    /// What the port of its tunnel to other nodes is called.
    #[must_use]
    pub fn tunnel_port(&self) -> Option<String> {
        self.overlay.as_ref().map(|_| format!("vxlan:{}", self.name))
    }
}

impl Model {
    /// Why a port that is a network's own is not to be had as one of a sandbox.
    pub(crate) fn own_port(&self, name: &str) -> Option<ControlError> {
        let refused = |network: &Network, what: &str, hint: String| {
            let message = format!("{name} is the {what} of network {} itself: only ports of sandboxes are changed and traced", network.name);
            ControlError::new(Code::Invalid, name, message).hint(format!("{hint}; `weft capture {name}` shows what passes"))
        };
        self.networks.values().find_map(|network| {
            if network.parent_port().as_deref() == Some(name) {
                return Some(refused(network, "port to the LAN", "change the device on the host, with `ip link`".into()));
            }
            let is_tunnel = network.tunnel_port().as_deref() == Some(name);
            is_tunnel.then(|| refused(network, "tunnel", format!("`weft vxlan show {}` tells whom it leads to, `weft vxlan peer` changes that", network.name)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::NetworkCreate;

    #[test]
    fn a_network_s_own_port_is_told_from_one_that_is_not_there() {
        let mut model = Model::default();
        let lan = |name: &str, internal| NetworkCreate { name: name.into(), driver: Some("lan".into()), parent: Some("eth1".into()), internal, ..NetworkCreate::default() };
        let wide = NetworkCreate { name: "wide".into(), driver: Some("overlay".into()), ..NetworkCreate::default() };
        for (number, request) in [lan("lan1", false), lan("alone", true), wide].iter().enumerate() {
            model.create_network(request, format!("{number:064}")).unwrap();
        }
        for (name, of, hint) in [("lan1:eth1", "network lan1 itself", "`ip link`"), ("vxlan:wide", "network wide itself", "`weft vxlan show wide`")] {
            let error = model.port(name).unwrap_err();
            assert!(error.code == Code::Invalid && error.message.contains(of) && error.hint.as_ref().is_some_and(|text| text.contains(hint)), "{error}");
        }
        for name in ["lan1:eth2", "alone:eth1", "vxlan:lan1"] {
            assert_eq!(model.port(name).unwrap_err().code, Code::NotFound, "{name}");
        }
    }
}
