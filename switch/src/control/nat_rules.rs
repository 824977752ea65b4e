//! How networks leave, as rules with counters (SPEC P8).

use nat::{Traffic, TrafficView};
use weft_control::{NatPreset, Network, Pool, Result, api::NatRule};

use super::runtime::Inner;
use crate::uplink::UplinkState;

impl Inner {
    /// A rule for each subnet that may leave, and one for what of it comes back in at an external address.
    pub(crate) fn nat_rules(&self) -> Result<Vec<NatRule>> {
        let state = self.uplink_state()?;
        let leaving = self.model.networks.values().filter(|network| !network.internal && network.lan.is_none());
        Ok(leaving.flat_map(|network| network.pools.iter().flat_map(|pool| {
            let rule = self.nat_rule(network, pool, &state);
            let hairpin = self.hairpin_rule(&rule, network, pool, &state);
            [Some(rule), hairpin].into_iter().flatten()
        })).collect())
    }

    /// Of connections that are translated packet by packet: sockets of the host do not know where theirs go.
    fn hairpin_rule(&self, rule: &NatRule, network: &Network, pool: &Pool, state: &UplinkState) -> Option<NatRule> {
        let traffic = rule.packets.map(|_| self.translated(network, pool, true, state))?;
        Some(NatRule { target: "HAIRPIN".into(), hits: Some(traffic.connections), packets: Some(traffic.packets), bytes: Some(traffic.bytes), ..rule.clone() })
    }

    fn translated(&self, network: &Network, pool: &Pool, is_hairpin: bool, state: &UplinkState) -> Traffic {
        let bridge = self.bridges.get(&network.id).copied();
        let is_its = |view: &&TrafficView| Some(view.network) == bridge && view.is_ipv4 == pool.subnet.is_ipv4() && view.is_hairpin == is_hairpin;
        state.traffic.iter().find(is_its).map(|view| view.traffic).unwrap_or_default()
    }

    fn nat_rule(&self, network: &Network, pool: &Pool, state: &UplinkState) -> NatRule {
        let by_packets = self.uplink.is_some();
        let is_ipv4 = pool.subnet.is_ipv4();
        let prefix = network.nat_prefix.filter(|_| !is_ipv4 && by_packets);
        let (target, to) = match (network.masquerade, prefix) {
            (_, Some(prefix)) => ("NETMAP", vec![prefix.to_string()]),
            (false, None) => ("RETURN", Vec::new()),
            (true, None) => {
                let pool: Vec<_> = network.nat_source.iter().filter(|ip| ip.is_ipv4() == is_ipv4 && by_packets).map(ToString::to_string).collect();
                (if pool.is_empty() { "MASQUERADE" } else { "SNAT" }, pool)
            }
        };
        let is_translated = matches!(target, "MASQUERADE" | "SNAT");
        let bridge = self.bridges.get(&network.id);
        let of = |id| Some(id) == bridge;
        let traffic = self.translated(network, pool, false, state);
        let opened = state.opened.iter().find(|((id, v4), _)| of(id) && *v4 == is_ipv4).map_or(0, |(_, count)| *count);
        // What sockets of the host do, and the default of packets.
        let preset = network.nat.filter(|_| by_packets).unwrap_or(NatPreset::PortRestricted);
        NatRule {
            network: network.name.clone(),
            source: pool.subnet.to_string(),
            target: target.into(),
            to,
            preset: is_translated.then(|| preset.name().to_owned()),
            hits: is_translated.then_some(if by_packets { traffic.connections } else { opened }),
            packets: (is_translated && by_packets).then_some(traffic.packets),
            bytes: (is_translated && by_packets).then_some(traffic.bytes),
        }
    }
}
