//! What the switch put into the outbox goes to devices, tunnels, captures and control.

use dataplane::{Command, DropReason};
use mio::{Interest, Token, unix::SourceFd};
use nix::errno::Errno;
use packet::{Frame, Instant, PortId};

use super::{Loop, LoopEvent, OUTSIDE_AT_ONCE, OUTSIDE_BACKLOG, OUTSIDE_TIME};
use crate::{io::ReadMode, sys::ring::Ring};

impl Loop {
    /// Hands what the switch produced to the ports, captures and control.
    pub(super) fn drain(&mut self) {
        let mut frames = std::mem::take(&mut self.outbox.frames);
        for (port, sendable) in frames.drain(..) {
            self.transmit(port, sendable.into_frame());
        }
        self.outbox.frames = frames;
        if !self.tunnels.is_idle() {
            let now = self.now();
            self.tunnels.flush(&mut self.switch, &mut self.outbox, now);
        }
        self.outside.extend(self.outbox.outside.drain(..));
        if !self.outbox.captures.is_empty() {
            self.write_captures();
        }
        for event in self.outbox.events.drain(..) {
            // Control may be slow; the data plane never waits for it.
            drop(self.control.try_send(LoopEvent::Switch(event)));
        }
    }

    /// Gives the uplink what gateways took for the outside. It does much for each frame, so it has some time of
    /// a turn: what is switched does not wait for the rest.
    pub(super) fn hand_out(&mut self, now: Instant) {
        if self.outside.is_empty() {
            return;
        }
        let end = self.now() + OUTSIDE_TIME;
        let mut count = 0;
        while self.outside.len() > OUTSIDE_BACKLOG || count % OUTSIDE_AT_ONCE != 0 || self.now() < end {
            let Some((network, frame)) = self.outside.pop_front() else { break };
            self.uplink.take(network, frame, now);
            count += 1;
        }
    }

    fn transmit(&mut self, port: PortId, frame: Frame) {
        let slot = port.index();
        let Some(Some((owner, io))) = self.ports.get_mut(slot) else {
            let now = self.now();
            let Some(frame) = self.uplink.take_meshed(port, frame, now) else { return };
            if !self.tunnels.take(port, frame, now) {
                self.switch.egress_error(port, DropReason::WriteFailed, 1);
            }
            return;
        };
        if *owner != port {
            return;
        }
        let was_blocked = io.blocked;
        let batched = io.mode == ReadMode::Poll;
        let result = io.send(frame, self.ring.as_mut(), &self.pool);
        let newly_blocked = io.blocked && !was_blocked;
        if let Err(refused) = result {
            self.switch.egress_error(port, refused.0, 1);
        }
        if batched && self.dirty.last() != Some(&slot) {
            self.dirty.push(slot);
        }
        if newly_blocked {
            self.watch_writable(slot);
        }
    }

    pub(super) fn refused(&mut self, slot: usize, frame: Frame, errno: i32) {
        let Some((port, io)) = self.ports.get_mut(slot).and_then(Option::as_mut) else { return };
        let (port, was_blocked) = (*port, io.blocked);
        let result = io.handle_refusal(frame, Errno::from_raw(errno), &self.pool);
        let newly_blocked = io.blocked && !was_blocked;
        if let Err(refused) = result {
            self.switch.egress_error(port, refused.0, 1);
        }
        if newly_blocked {
            self.watch_writable(slot);
        }
    }

    /// mio tells when the descriptor takes frames again. Not asked for before, since a packet socket
    /// reports it with every frame sent.
    fn watch_writable(&mut self, slot: usize) {
        let Some((port, io)) = self.ports.get(slot).and_then(Option::as_ref) else { return };
        let (registry, fd, token) = (self.poll.registry(), io.fd(), Token(slot));
        let result = match io.mode {
            ReadMode::Ring => registry.register(&mut SourceFd(&fd), token, Interest::WRITABLE),
            ReadMode::Poll => registry.reregister(&mut SourceFd(&fd), token, Interest::READABLE | Interest::WRITABLE),
        };
        if let Err(error) = result {
            tracing::warn!(%port, %error, "cannot watch a blocked port");
        }
    }

    pub(super) fn unblock(&mut self, slot: usize) {
        let Some((port, io)) = self.ports.get_mut(slot).and_then(Option::as_mut) else { return };
        if !io.blocked {
            return;
        }
        let failed = io.unblock();
        if failed > 0 {
            self.switch.egress_error(*port, DropReason::WriteFailed, failed);
        }
        if !io.blocked {
            let (registry, fd) = (self.poll.registry(), io.fd());
            drop(match io.mode {
                ReadMode::Ring => registry.deregister(&mut SourceFd(&fd)),
                ReadMode::Poll => registry.reregister(&mut SourceFd(&fd), Token(slot), Interest::READABLE),
            });
        }
    }

    pub(super) fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for slot in dirty.drain(..) {
            let Some((port, io)) = self.ports.get_mut(slot).and_then(Option::as_mut) else { continue };
            let (port, was_blocked) = (*port, io.blocked);
            let result = io.flush_batch(&self.pool);
            let newly_blocked = io.blocked && !was_blocked;
            if let Err(refused) = result {
                self.switch.egress_error(port, refused.0, 1);
            }
            if newly_blocked {
                self.watch_writable(slot);
            }
        }
        self.dirty = dirty;
        if self.ring.as_ref().is_some_and(Ring::has_queued) {
            self.enter_ring();
        }
    }

    fn write_captures(&mut self) {
        let now = self.now();
        let mut ended = Vec::new();
        for record in self.outbox.captures.drain(..) {
            let Some(writer) = self.captures.iter_mut().find(|writer| writer.id() == record.capture) else { continue };
            if !writer.has_interface(record.port) {
                let name = self.names.get(record.port.index()).map_or("?", String::as_str);
                writer.add_interface(record.port, name);
            }
            let comment = self.uplink.comment(&record.frame, now);
            if !writer.write(&record, comment) && !ended.contains(&record.capture) {
                ended.push(record.capture);
            }
        }
        for capture in ended {
            self.captures.retain(|writer| writer.id() != capture);
            drop(self.switch.apply(Command::StopCapture(capture), now, &mut self.outbox));
        }
    }
}
