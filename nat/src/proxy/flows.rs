//! TCP flows, from SYN to end.

use std::{hash::BuildHasher, io};

use packet::{Instant, Mac, checksum::protocol};

use super::{
    Flow, Key, MOST_FLOWS, MOST_OF_ONE, Output, Owner, Proxy, Ready, Sockets, Transport, mtu_of,
    tcp::{self, Context, Segment, State, Tcp, Verdict},
    write::Path,
};

impl Proxy {
    pub(super) fn end_flows<S: Sockets>(&mut self, sockets: &mut S, ends: impl Fn(&Key) -> bool) {
        for at in 0..self.flows.len() {
            if self.flows[at].as_ref().is_some_and(|flow| ends(&flow.key)) {
                self.remove(at, true, sockets);
            }
        }
    }

    pub(super) fn tcp<S: Sockets>(&mut self, key: Key, mac: Mac, segment: &Segment, now: Instant, sockets: &mut S, out: &mut Output) {
        if let Some(&at) = self.index.get(&key) {
            if let Some(flow) = self.flows[at].as_mut() {
                flow.rx_bytes += segment.payload.len() as u64;
            }
            self.with_flow(at, now, sockets, out, |tcp, cx| tcp.segment(segment, cx));
            self.owe(at);
            return;
        }
        if segment.flags & (tcp::SYN | tcp::ACK | tcp::RST) != tcp::SYN {
            self.refuse(&key, mac, segment, out);
            return;
        }
        if self.index.len() >= MOST_FLOWS || self.counts.get(&(key.network, key.inside.ip())).is_some_and(|count| *count >= MOST_OF_ONE) {
            self.stats.full += 1;
            self.refuse(&key, mac, segment, out);
            return;
        }
        let Some(peer) = self.route(&key, Transport::Tcp) else {
            self.refuse(&key, mac, segment, out);
            return;
        };
        match sockets.tcp_connect(peer) {
            Ok(socket) => {
                self.count_opened(&key, peer);
                let tcp = Tcp::outbound(socket, segment, self.isn(&key, now), now);
                let at = self.insert(Flow { key, mac, via: None, rx_bytes: 0, tx_bytes: 0, tcp, noted: None });
                self.owners.insert(socket, Owner::Flow(at));
                self.outcome(at, now, sockets, out);
            }
            Err(error) => self.failed(&key, mac, segment.seq, &error, out),
        }
    }

    /// Asks how the host's connection went, and tells the sandbox once it is known.
    fn outcome<S: Sockets>(&mut self, at: usize, now: Instant, sockets: &mut S, out: &mut Output) {
        let Some(flow) = self.flows[at].as_ref() else { return };
        let (key, mac) = (flow.key, flow.mac);
        match sockets.tcp_outcome(flow.tcp.socket) {
            None => {}
            Some(Ok(())) => self.with_flow(at, now, sockets, out, |tcp, cx| {
                tcp.connected(cx);
                Verdict::Keep
            }),
            Some(Err(error)) => {
                let seq = flow.tcp.first_number();
                self.remove(at, false, sockets);
                self.failed(&key, mac, seq, &error, out);
            }
        }
    }

    /// The host could not connect: refused is a reset, unreachable is said by ICMP.
    fn failed(&mut self, key: &Key, mac: Mac, seq: u32, error: &io::Error, out: &mut Output) {
        let code = match error.kind() {
            io::ErrorKind::NetworkUnreachable => 0,
            io::ErrorKind::HostUnreachable | io::ErrorKind::TimedOut => 1,
            io::ErrorKind::PermissionDenied => 13,
            _ => {
                self.refuse(key, mac, &Segment::syn(seq), out);
                return;
            }
        };
        let mut quoted = [0; 8];
        quoted[..2].copy_from_slice(&key.inside.port().to_be_bytes());
        quoted[2..4].copy_from_slice(&key.outside.port().to_be_bytes());
        quoted[4..].copy_from_slice(&seq.to_be_bytes());
        self.unreachable(key, mac, protocol::TCP, code, 0, &quoted, out);
    }

    fn refuse(&mut self, key: &Key, mac: Mac, segment: &Segment, out: &mut Output) {
        let Some(path) = self.path(key, mac) else { return };
        let mut frames = Vec::new();
        tcp::refuse(&self.pool, &path, segment, &mut frames);
        out.extend(frames.into_iter().map(|frame| (key.network, frame)));
    }

    fn path(&self, key: &Key, mac: Mac) -> Option<Path> {
        let network = self.networks.get(&key.network)?;
        Some(Path { from_mac: network.gateway_mac, to_mac: mac, from: key.outside, to: key.inside })
    }

    /// RFC 6528: a number that outsiders cannot guess, and that grows with time (4 us a step).
    pub(super) fn isn(&self, key: &Key, now: Instant) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "thirty-two bits are wanted")]
        let (hash, clock) = (self.isn_key.hash_one(key) as u32, (now.as_nanos() / 4000) as u32);
        hash.wrapping_add(clock)
    }

    pub(super) fn flow_ready<S: Sockets>(&mut self, at: usize, ready: Ready, now: Instant, sockets: &mut S, out: &mut Output) {
        let Some(flow) = self.flows[at].as_ref() else { return };
        if flow.tcp.state == State::Connecting {
            self.outcome(at, now, sockets, out);
            return;
        }
        if ready.error && flow.tcp.is_half_open() {
            // The client is gone before the sandbox answered.
            self.with_flow(at, now, sockets, out, Tcp::break_off);
            return;
        }
        if ready.write && flow.tcp.is_holding() {
            self.with_flow(at, now, sockets, out, Tcp::writable);
        }
        if ready.read || ready.error {
            self.with_flow(at, now, sockets, out, Tcp::readable);
        }
        self.owe(at);
    }

    pub(super) fn insert(&mut self, flow: Flow) -> usize {
        let key = flow.key;
        self.watch.tell(|| key.event(protocol::TCP, true));
        let at = self.free.pop().unwrap_or_else(|| {
            self.flows.push(None);
            self.flows.len() - 1
        });
        let flow = self.flows[at].insert(flow);
        self.timers.note(at, &mut flow.noted, flow.tcp.deadline());
        self.index.insert(key, at);
        *self.counts.entry((key.network, key.inside.ip())).or_default() += 1;
        at
    }

    pub(super) fn remove<S: Sockets>(&mut self, at: usize, reset: bool, sockets: &mut S) {
        if let Some(flow) = self.forget(at) {
            sockets.close(flow.tcp.socket, reset);
        }
    }

    pub(super) fn forget(&mut self, at: usize) -> Option<Flow> {
        let mut flow = self.flows[at].take()?;
        self.timers.forget(at, &mut flow.noted);
        flow.tcp.release(&mut self.budget);
        self.index.remove(&flow.key);
        self.watch.tell(|| flow.key.event(protocol::TCP, false));
        let inside = (flow.key.network, flow.key.inside.ip());
        if let Some(count) = self.counts.get_mut(&inside) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&inside);
            }
        }
        self.owners.remove(&flow.tcp.socket);
        self.free.push(at);
        Some(flow)
    }

    pub(super) fn with_flow<S: Sockets>(&mut self, at: usize, now: Instant, sockets: &mut S, out: &mut Output, work: impl FnOnce(&mut Tcp, &mut Context<S>) -> Verdict) {
        let Some(flow) = self.flows[at].as_mut() else { return };
        let Some(network) = self.networks.get(&flow.key.network) else { return };
        let path = Path { from_mac: network.gateway_mac, to_mac: flow.mac, from: flow.key.outside, to: flow.key.inside };
        let mut frames = std::mem::take(&mut self.scratch);
        let mtu = mtu_of(&self.mtus, network, &flow.key);
        let verdict = work(&mut flow.tcp, &mut Context { sockets, pool: &self.pool, path, mtu, now, budget: &mut self.budget, out: &mut frames });
        flow.tx_bytes += frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
        self.timers.note(at, &mut flow.noted, flow.tcp.deadline());
        let network = flow.key.network;
        out.extend(frames.drain(..).map(|frame| (network, frame)));
        self.scratch = frames;
        match verdict {
            Verdict::Keep => {}
            Verdict::Done => self.remove(at, false, sockets),
            Verdict::Broken => self.remove(at, true, sockets),
            Verdict::Declined if self.try_next(at, now, sockets, out) => {}
            Verdict::Declined => self.remove(at, true, sockets),
        }
    }

    /// Remembers a flow for the end of the turn.
    pub(super) fn owe(&mut self, at: usize) {
        if self.flows[at].as_ref().is_some_and(|flow| flow.tcp.owes_ack || flow.tcp.wants_turn()) && self.pending.last() != Some(&at) {
            self.pending.push(at);
        }
    }
}
