//! The same way of a frame with captures running: what passes each port is recorded.

use packet::{Frame, Instant, NetworkId, PortId};

use super::{Origin, Switch, fit};
use crate::{
    capture::{self, Sighting},
    drop::DropReason,
    outbox::{Direction, Outbox},
    vlan::TagEdit,
};

impl Switch {
    /// [`ingress`](Self::ingress), recorded at its port before what it led to.
    #[cold]
    pub(super) fn ingress_watched(&mut self, port: PortId, mut frame: Frame, now: Instant, out: &mut Outbox) {
        let network = self.network_of(port);
        let seen = frame.share();
        let first = out.captures.len();
        let result = self.steer(port, &mut frame, now, out).and_then(|course| self.follow(course, frame, now, out));
        if let Some(network) = network {
            let egress = out.captures.len();
            let sighting = Sighting { port, network, direction: Direction::Ingress, at: now, dropped: result.err() };
            capture::record(&self.captures, sighting, &seen, &self.pool, out);
            let ingress = out.captures.len() - egress;
            out.captures[first..].rotate_right(ingress);
        }
        if let Err(reason) = result {
            self.ingress_error(port, reason);
        }
    }

    /// Fits, queues and records a frame at its egress port.
    #[cold]
    pub(super) fn emit_watched(&mut self, from: Origin, target: u32, frame: Frame, edit: TagEdit, now: Instant, out: &mut Outbox) -> Result<(), DropReason> {
        let Some(frame) = self.back_from_vip(from, target, frame, now)? else { return Ok(()) };
        let Some(state) = self.ports.at_mut(target) else { return Err(DropReason::EgressDown) };
        let (captures, pool, whole) = (&self.captures, &self.pool, frame.share());
        let sighting = Sighting { port: state.id, network: state.config().network, direction: Direction::Egress, at: now, dropped: None };
        let result = fit(state, from, frame, edit, pool, |state, sendable| {
            let leaving = sendable.frame().share();
            let queued = state.queue(sendable, out).is_ok();
            let dropped = if queued { None } else { Some(DropReason::EgressFull) };
            capture::record(captures, Sighting { dropped, ..sighting }, &leaving, pool, out);
            queued
        });
        if let Err(reason) = result
            && reason != DropReason::EgressFull
        {
            capture::record(captures, Sighting { dropped: Some(reason), ..sighting }, &whole, pool, out);
        }
        result
    }

    fn network_of(&self, port: PortId) -> Option<NetworkId> {
        Some(self.ports.get(port.index(), port.generation())?.config().network)
    }
}
