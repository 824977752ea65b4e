//! From the devices into the switch.

use nix::errno::Errno;
use packet::{Frame, Instant, PortId};

use super::{Loop, READ_BUDGET, RING_BUDGET};
use crate::sys::ring::{Completion, Ring, StrippedTag};

impl Loop {
    pub(super) fn read_ring(&mut self, now: Instant) {
        if self.ring.is_none() {
            return;
        }
        let mut handled = 0;
        // Reaps what is there; new arrivals wait for the next turn, when writes have gone out.
        if self.ring.as_mut().is_some_and(Ring::must_enter) {
            self.enter_ring();
        }
        while handled < RING_BUDGET * 4 {
            let Some(completion) = self.ring.as_mut().and_then(Ring::next) else { break };
            handled += 1;
            match completion {
                Completion::Read { token, frame, tag, armed } => {
                    let slot = token as usize;
                    if !armed {
                        self.rearm.push(slot);
                    }
                    self.ingress(slot, frame, tag, now);
                }
                Completion::ReadEnded { token, errno } => self.read_ended(token as usize, errno),
                Completion::Refused { token, frame, errno } => self.refused(token as usize, frame, errno),
            }
            if handled % RING_BUDGET == 0 {
                self.drain();
                self.enter_ring();
            }
        }
        self.drain();
        self.arm_again();
    }

    pub(super) fn enter_ring(&mut self) {
        if let Some(ring) = &mut self.ring
            && let Err(error) = ring.enter()
        {
            tracing::error!(%error, "io_uring_enter failed");
        }
    }

    fn read_ended(&mut self, slot: usize, errno: i32) {
        let Some((port, io)) = self.ports.get(slot).and_then(Option::as_ref) else { return };
        match Errno::from_raw(errno) {
            // Cancelled because the port was closed; a new port in this slot has a read of its own.
            Errno::ECANCELED => {}
            Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR | Errno::ENOMEM => self.rearm.push(slot),
            _ if io.is_lost() => {
                let port = *port;
                self.device_gone(port);
            }
            // The device went down (ENETDOWN); it may come up again.
            _ => self.rearm.push(slot),
        }
    }

    fn arm_again(&mut self) {
        if self.rearm.is_empty() {
            return;
        }
        let Some(ring) = &mut self.ring else { return };
        ring.refill();
        self.rearm.sort_unstable();
        self.rearm.dedup();
        for slot in self.rearm.drain(..) {
            if let Some((_, io)) = self.ports.get(slot).and_then(Option::as_ref) {
                io.arm(ring);
            }
        }
    }

    pub(super) fn read_polled(&mut self, now: Instant) {
        for _ in 0..self.ready.len() {
            let Some(slot) = self.ready.pop_front() else { break };
            let Some((port, io)) = self.ports.get(slot).and_then(Option::as_ref) else { continue };
            let port = *port;
            let (switch, outbox) = (&mut self.switch, &mut self.outbox);
            let result = io.read(READ_BUDGET, &self.pool, &mut self.receiver, |frame, tag| match io.admit(frame, tag) {
                Ok(frame) => switch.ingress(port, frame, now, outbox),
                Err(reason) => switch.ingress_error(port, reason),
            });
            match result {
                Ok(true) => self.ready.push_back(slot),
                Ok(false) => {}
                Err(_) => self.device_gone(port),
            }
            self.drain();
        }
    }

    fn ingress(&mut self, slot: usize, frame: Frame, tag: Option<StrippedTag>, now: Instant) {
        let Some((port, io)) = self.ports.get(slot).and_then(Option::as_ref) else { return };
        match io.admit(frame, tag) {
            Ok(frame) => self.switch.ingress(*port, frame, now, &mut self.outbox),
            Err(reason) => self.switch.ingress_error(*port, reason),
        }
    }

    fn device_gone(&mut self, port: PortId) {
        tracing::debug!(%port, "device gone");
        self.close(port);
        self.lost.push(port);
    }
}
