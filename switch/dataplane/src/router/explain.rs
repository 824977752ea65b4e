//! What would become of a packet, told step by step.

use nat::Translated;
use packet::{Frame, Instant, NetworkId, ip_destination};

use super::{Router, RouterOutput, fit};

impl Router {
    /// What would become of a frame that a gateway took, a step a line: frames with the networks that they
    /// would be put into, or the frame itself, when it is the user-mode uplink's. Nothing changes.
    pub fn explain(&mut self, from: NetworkId, frame: Frame, now: Instant, steps: &mut Vec<String>) -> Result<RouterOutput, Frame> {
        let Some(destination) = ip_destination(frame.bytes()) else { return Err(frame) };
        let is_uplink = self.uplink.as_ref().is_some_and(|uplink| uplink.network == from);
        if !is_uplink && let Some(to) = self.routed_to(from, destination) {
            steps.push("route: the two networks reach each other".into());
            return Ok(self.explain_hop(to, frame, now, steps).into_iter().collect());
        }
        let own = self.links.get(&from).is_some_and(|link| link.addresses.iter().any(|own| own.ip() == destination));
        if !is_uplink && (own || !self.leaving.contains(&from)) {
            return Err(frame);
        }
        let mut translated = Vec::new();
        match self.nat.rehearse((!is_uplink).then_some(from), frame, now, &mut translated) {
            Err(refused) => {
                steps.push(format!("nat: drop: {}: {}", refused.reason.name(), refused.reason.describe()));
                Ok(Vec::new())
            }
            Ok(met) => {
                let mut out = Vec::new();
                for Translated { to, frame } in translated {
                    let how = match (is_uplink, to) {
                        (true, _) => "DNAT",
                        (false, None) => "SNAT",
                        (false, Some(_)) => "SNAT, then DNAT (hairpin)",
                    };
                    let state = if met == nat::Rehearsed::NewConnection { "a new connection" } else { "a connection that is there" };
                    steps.push(format!("nat: {state}; {how}: {}", packet::describe(frame.bytes())));
                    let Some(to) = to.or(self.uplink.as_ref().map(|uplink| uplink.network)) else { continue };
                    out.extend(self.explain_hop(to, frame, now, steps));
                }
                Ok(out)
            }
        }
    }

    fn explain_hop(&self, to: NetworkId, mut frame: Frame, now: Instant, steps: &mut Vec<String>) -> Option<(NetworkId, Frame)> {
        let destination = ip_destination(frame.bytes())?;
        let link = self.link(to)?;
        if !frame.make_unique() || !fit::use_hop(&mut frame) {
            steps.push("drop: ttl_expired: its hops are used up; the sender is told".into());
            return None;
        }
        let mtu = self.mtu_towards(to, link, destination);
        if !fit::fits(&frame, mtu) {
            let in_fragments = fit::may_be_fragmented(&frame);
            steps.push(format!("mtu {mtu}: {}", if in_fragments { "it goes in fragments" } else { "drop: too_big: longer than the link takes; the sender is told" }));
            if !in_fragments {
                return None;
            }
        }
        let Some(next_hop) = self.next_hop(to, destination) else {
            steps.push(format!("drop: no_route: the uplink has no gateway towards {destination}"));
            return None;
        };
        if self.vips.contains(&(to, next_hop)) {
            steps.push(format!("vip {next_hop}: the gateway of that network leads it to an endpoint"));
            return None;
        }
        let Some(mac) = self.neighbours.known((to, next_hop), now) else {
            steps.push(format!("neighbour: {next_hop} is not known; it would be asked for, and the packet wait"));
            return None;
        };
        steps.push(format!("neighbour: {next_hop} is at {mac}"));
        let bytes = frame.bytes_mut();
        bytes[..6].copy_from_slice(&mac.0);
        bytes[6..12].copy_from_slice(&link.mac.get().0);
        Some((to, frame))
    }
}
