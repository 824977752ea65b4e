//! A frame's way, told instead of gone: the same questions to the same stages, and nothing changes.

use packet::{Frame, Instant, Mac, NetworkId, PortId, describe};

use super::{GATEWAY, Origin, Switch};
use crate::{
    attachment::Separation,
    bridge::Forwarding,
    drop::DropReason,
    fdb::{self, PortSlot},
    gateway::{Heard, Services},
    header::{Header, mac_of},
};

/// What became of a frame that was only told of.
#[derive(Debug)]
pub enum Told {
    /// It ended: delivered, answered, or dropped for the reason that was told.
    Ended,
    /// Its gateway hands it out, for an uplink to carry.
    Outside(NetworkId, Frame),
}

impl Switch {
    /// Tells the way of a frame that came in on `port`, a step a line.
    pub fn explain(&self, port: PortId, frame: Frame, now: Instant, steps: &mut Vec<String>) -> Told {
        match self.explain_ingress(port, frame, now, steps) {
            Ok(told) => told,
            Err(reason) => {
                steps.push(format!("drop: {} ({})", reason.name(), reason.describe()));
                Told::Ended
            }
        }
    }

    /// The same for a frame that a gateway, or an uplink behind it, puts into a network.
    pub fn explain_injected(&self, network: NetworkId, frame: Frame, now: Instant, steps: &mut Vec<String>) {
        let (Some(header), Some(bridge)) = (Header::new(frame.bytes()), self.bridges.get(network.index(), network.generation())) else {
            return steps.push("drop: there is no such network any more".into());
        };
        steps.push(format!("network {}: {}", bridge.config.name, describe(frame.bytes())));
        let decision = bridge.decide(0, header, GATEWAY, now);
        if let Err(reason) = self.explain_decision(decision, Origin::gateway(network), header, frame, steps) {
            steps.push(format!("drop: {} ({})", reason.name(), reason.describe()));
        }
    }

    fn label(&self, port: PortSlot) -> &str {
        self.ports.at(port).map_or("?", |port| port.config().name.as_str())
    }

    fn explain_ingress(&self, port: PortId, mut frame: Frame, now: Instant, steps: &mut Vec<String>) -> Result<Told, DropReason> {
        let state = self.ports.get(port.index(), port.generation()).ok_or(DropReason::PortDown)?;
        steps.push(format!("port {}: {}", state.config().name, describe(frame.bytes())));
        if !state.up {
            return Err(DropReason::PortDown);
        }
        let header = Header::new(frame.bytes()).ok_or(DropReason::Runt)?;
        if !header.is_from_station() {
            return Err(DropReason::BadSource);
        }
        if let Some(guard) = &state.guard {
            guard.check(header, frame.bytes())?;
            steps.push("guard: the source's MAC and address are this port's".into());
        }
        let membership = state.admit_vlan(&mut frame)?;
        if membership.vlan() != 0 {
            steps.push(format!("vlan: {}", membership.vlan()));
        }
        let bridge = self.bridges.at(state.bridge).ok_or(DropReason::PortDown)?;
        let known = bridge.fdb.lookup(fdb::key(membership.vlan(), header.source), now);
        steps.push(match known {
            Some(port) if port == state.slot() => format!("learn: {} is here, as known", mac_of(header.source)),
            Some(port) => format!("learn: {} moves here from {}", mac_of(header.source), self.label(port)),
            None => format!("learn: {} is new here", mac_of(header.source)),
        });
        let from = Origin { port: state.slot(), bridge: state.bridge, membership, separation: state.separation };
        let decision = bridge.decide(membership.vlan(), header, from.port, now);
        if bridge.may_be_for_gateway(header) && membership.vlan() == 0 {
            if from.separation.parts(Separation::GATEWAY) {
                if !header.is_to_group() {
                    return Err(DropReason::Isolated);
                }
                return self.explain_decision(decision, from, header, frame, steps).map(|()| Told::Ended);
            }
            let gateway = bridge.config.gateway.as_ref().ok_or(DropReason::GatewayNothing)?;
            if let Some(step) = bridge.services.balancer.as_ref().filter(|_| !header.is_to_group()).and_then(|balancer| balancer.explain(&frame, now)) {
                steps.push(step);
                return Ok(Told::Ended);
            }
            // Leases and advertisements have a state of their own, which is left alone.
            return match gateway.hear(&mut Services::default(), header, frame, now, &self.pool)? {
                Heard::NotMine(frame) | Heard::AnswerBeside(frame, _) => self.explain_decision(decision, from, header, frame, steps).map(|()| Told::Ended),
                Heard::Outside(frame) => {
                    steps.push(format!("gateway {}: takes it, {}", gateway.mac.get(), bridge.config.name));
                    Ok(Told::Outside(state.config().network, frame))
                }
                Heard::Answer(answer) => {
                    steps.push(format!("gateway {}: answers with {}", gateway.mac.get(), describe(answer.bytes())));
                    Ok(Told::Ended)
                }
            };
        }
        self.explain_decision(decision, from, header, frame, steps).map(|()| Told::Ended)
    }

    fn explain_decision(&self, decision: Forwarding, from: Origin, header: Header, frame: Frame, steps: &mut Vec<String>) -> Result<(), DropReason> {
        let destination = mac_of(header.destination);
        match decision {
            Forwarding::Drop(reason) => Err(reason),
            Forwarding::Unicast(target) => {
                steps.push(format!("fdb: {destination} is behind {}", self.label(target)));
                self.explain_egress(from, target, frame, steps)
            }
            Forwarding::Flood => {
                let targets: Vec<PortSlot> = self.flood_set(from).collect();
                let why = if destination == Mac::BROADCAST { "broadcast" } else if destination.is_group() { "multicast" } else { "unknown" };
                steps.push(format!("flood: {destination} is {why}; {} ports", targets.len()));
                if targets.is_empty() {
                    return Err(DropReason::NoOtherPort);
                }
                for target in targets {
                    if let Err(reason) = self.explain_egress(from, target, frame.share(), steps) {
                        steps.push(format!("drop at {}: {}", self.label(target), reason.name()));
                    }
                }
                Ok(())
            }
        }
    }

    fn explain_egress(&self, from: Origin, target: PortSlot, frame: Frame, steps: &mut Vec<String>) -> Result<(), DropReason> {
        let state = self.ports.at(target).filter(|state| state.up).ok_or(DropReason::EgressDown)?;
        if from.separation.parts(state.separation) {
            return Err(DropReason::Isolated);
        }
        let edit = state.egress_vlan(from.membership).ok_or(DropReason::VlanNotAllowed)?;
        let mut pieces = 0;
        let mut last = String::new();
        state.fit().fit(frame, from.membership, edit, &self.pool, |sendable| {
            pieces += 1;
            last = describe(sendable.frame().bytes());
        })?;
        steps.push(if pieces == 1 { format!("out {}: {last}", state.config().name) } else { format!("out {}: in {pieces} segments", state.config().name) });
        Ok(())
    }
}
