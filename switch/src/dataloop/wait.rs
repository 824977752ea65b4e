//! Waiting: until a descriptor, the ring or a request has something, or a time has come.

use std::{
    io, thread,
    time::{Duration, Instant as StdInstant},
};

use mio::Token;

use super::{Loop, RING, SPIN_MAX, SPIN_MAX_TUNNELS, TURNS_BETWEEN_POLLS, WAKER};
use crate::{io::ReadMode, sys::ring::Ring};

impl Loop {
    pub(super) fn wait(&mut self) {
        if self.has_work() || self.spin_until_work() {
            self.look_at_polled();
            return;
        }
        self.turns_unpolled = 0;
        let deadlines = [self.switch.poll_timeout().map(|(at, _)| at), self.uplink.poll_timeout(), self.tunnels.poll_timeout()];
        let timeout = deadlines.into_iter().flatten().min().map(|at| at.since(self.now()));
        if let Some(ring) = &mut self.ring {
            ring.ring_the_bell(true);
            if ring.has_work() {
                ring.ring_the_bell(false);
                return;
            }
        }
        let retry = (!self.rearm.is_empty() || !self.lost.is_empty()).then_some(Duration::from_millis(1));
        self.poll_now([timeout, retry].into_iter().flatten().min());
        if let Some(ring) = &mut self.ring {
            ring.ring_the_bell(false);
        }
    }

    /// Descriptors that the ring does not read: polled ports, and ports that are blocked. A busy ring
    /// must not make them wait for ever, nor pay for them in each turn.
    fn look_at_polled(&mut self) {
        self.turns_unpolled += 1;
        if self.ring.is_none() || self.has_sockets() || self.turns_unpolled >= TURNS_BETWEEN_POLLS {
            self.turns_unpolled = 0;
            self.poll_now(Some(Duration::ZERO));
        }
    }

    fn has_sockets(&self) -> bool {
        !self.uplink.is_idle() || !self.tunnels.is_idle()
    }

    fn has_work(&mut self) -> bool {
        !self.ready.is_empty() || !self.outside.is_empty() || self.uplink.has_work() || self.tunnels.has_work() || !self.requests.is_empty() || self.ring.as_mut().is_some_and(Ring::has_work)
    }

    /// Spins for the adaptive while. A success doubles the next spin, a failure halves it; each
    /// wake-up from sleep starts it anew at a small value. The CPU is offered once to those whom this
    /// turn's frames woke, who may be waiting for it.
    fn spin_until_work(&mut self) -> bool {
        let longest = if self.tunnels.is_idle() { SPIN_MAX } else { SPIN_MAX_TUNNELS };
        if self.spin.is_zero() {
            self.spin = if self.may_spin { longest / 8 } else { Duration::ZERO };
            return false;
        }
        thread::yield_now();
        let began = StdInstant::now();
        loop {
            for _ in 0..16 {
                if self.has_work() {
                    self.spin = (self.spin * 2).min(longest);
                    return true;
                }
                std::hint::spin_loop();
            }
            if self.polled_ports > 0 || self.has_sockets() {
                self.poll_now(Some(Duration::ZERO));
            }
            if began.elapsed() >= self.spin {
                self.spin = if self.spin < Duration::from_micros(2) { Duration::ZERO } else { self.spin / 2 };
                return self.has_work();
            }
        }
    }

    fn poll_now(&mut self, timeout: Option<Duration>) {
        if let Err(error) = self.poll.poll(&mut self.events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            tracing::error!(%error, "epoll failed");
            thread::sleep(Duration::from_millis(10));
        }
        let mut unblocked = Vec::new();
        for event in &self.events {
            match event.token() {
                WAKER | RING => {}
                _ if self.tunnels.note(event) || self.uplink.note(event) => {}
                Token(slot) => {
                    if event.is_writable() {
                        unblocked.push(slot);
                    }
                    let polled = self.ports.get(slot).and_then(Option::as_ref).is_some_and(|(_, io)| io.mode == ReadMode::Poll);
                    if polled && (event.is_readable() || event.is_error()) && !self.ready.contains(&slot) {
                        self.ready.push_back(slot);
                    }
                }
            }
        }
        for slot in unblocked {
            self.unblock(slot);
        }
    }
}
