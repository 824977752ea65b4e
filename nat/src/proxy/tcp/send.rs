//! The half from the host to the sandbox.
//!
//! The way is short and seldom loses anything, so a flow begins with all the window it may have. From the first loss
//! on it is reduced and grows as RFC 5681 says, but never below the initial window of RFC 6928: what is lost there is
//! lost by chance, and fewer segments than that leave nothing that could overtake a lost one.

use std::io;

use packet::Instant;

use super::{Context, RETRIES, State, Tcp, Verdict, push, segment::{ACK, FIN, PSH, Segment, before}};
use crate::proxy::{sockets::Sockets, write::{self, TcpHeader}};

/// Most that is on its way to a sandbox: enough for any round trip on one machine, and small enough
/// to stay in the cache.
pub(super) const MOST_IN_FLIGHT: u32 = 512 * 1024;
/// Segments that may be on their way whatever is lost.
const LEAST_SEGMENTS: u32 = 10;
/// Super-frames for one flow before another has its turn.
const BURST: usize = 8;
/// Payload of a super-frame at most, before it is cut down to whole segments.
const SUPER: usize = 64_000;
/// Tries of a flight's end before the timeout. RFC 8985 has one; here they take milliseconds, and the timeout 200.
const PROBES: u8 = 3;
/// Duplicate acknowledgements that mean a loss (RFC 5681 3.2).
const DUPLICATES: u8 = 3;

impl Tcp {
    pub(super) fn in_flight(&self) -> u32 {
        self.snd_nxt.wrapping_sub(self.snd_una)
    }

    /// Bytes that the congestion window leaves.
    fn spare(&self) -> u32 {
        let pipe = if self.board.is_empty() { self.in_flight() } else { self.board.pipe() };
        self.cwnd.saturating_sub(pipe)
    }

    /// New bytes that may leave now. Silly windows are avoided (RFC 9293 3.8.6.2.1): whole segments, or nothing in flight.
    fn room(&self, spare: u32, mss: u32) -> u32 {
        let room = self.snd_wnd.min(MOST_IN_FLIGHT).saturating_sub(self.in_flight()).min(spare);
        if room >= mss {
            room - room % mss
        } else if self.in_flight() > 0 {
            0
        } else {
            room
        }
    }

    /// True when there is more to send to the sandbox, and it may be sent.
    pub(crate) fn wants_turn(&self) -> bool {
        if self.state != State::Open {
            return false;
        }
        let (spare, mss) = (self.spare(), u32::from(self.mss));
        match self.board.next_lost() {
            Some((from, to)) => spare >= mss.min(to.wrapping_sub(from)),
            None => self.readable && self.fin_at.is_none() && self.room(spare, mss) > 0,
        }
    }

    /// Sends what was lost, and what the host has and the sandbox has room for.
    pub(crate) fn pump<S: Sockets>(&mut self, cx: &mut Context<S>) -> Verdict {
        if self.readable || !self.board.is_empty() { self.send(0, cx) } else { Verdict::Keep }
    }

    /// The same, of lost bytes `least` even when the congestion window is full.
    fn send<S: Sockets>(&mut self, least: u32, cx: &mut Context<S>) -> Verdict {
        let mss = self.mss.min(cx.mss());
        let whole = u32::try_from(SUPER).unwrap_or(0) / u32::from(mss) * u32::from(mss);
        let mut least = least;
        for _ in 0..BURST {
            let sent = match self.board.next_lost() {
                Some((from, to)) => self.send_again(from, to, self.spare().max(least), whole, mss, cx),
                None => self.send_new(self.room(self.spare(), mss.into()).min(whole), mss, cx),
            };
            match sent {
                Ok(true) => least = 0,
                Ok(false) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.break_off(cx),
            }
        }
        if self.host_done && self.fin_at.is_none() {
            self.send_fin(self.snd_nxt, cx);
            self.fin_at = Some(self.snd_nxt);
            self.advance(1, cx.now);
        }
        if self.readable && self.in_flight() == 0 && self.room(self.spare(), mss.into()) == 0 {
            // A closed window: probed by the clock (RFC 9293 3.8.6.1).
            self.arm_if_idle(cx.now);
        }
        Verdict::Keep
    }

    /// A super-frame of new bytes, `limit` at most; false when there is nothing to send, or nothing may be.
    fn send_new<S: Sockets>(&mut self, limit: u32, mss: u16, cx: &mut Context<S>) -> io::Result<bool> {
        if limit == 0 || !self.readable || self.fin_at.is_some() {
            return Ok(false);
        }
        match self.send_data(self.snd_nxt, limit, mss, cx) {
            Ok(Some(0)) => {
                self.readable = false;
                self.host_done = true;
                Ok(false)
            }
            Ok(Some(length)) => {
                self.advance(length, cx.now);
                self.rtt.sent(self.snd_nxt, cx.now);
                self.last = cx.now;
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// A super-frame of the lost bytes `from..to`, as far as `spare` allows.
    fn send_again<S: Sockets>(&mut self, from: u32, to: u32, spare: u32, whole: u32, mss: u16, cx: &mut Context<S>) -> io::Result<bool> {
        let count = if self.fin_at == Some(from) {
            self.send_fin(from, cx);
            1
        } else {
            let end = self.fin_at.filter(|fin| before(*fin, to)).unwrap_or(to);
            let lost = end.wrapping_sub(from);
            let limit = if lost <= spare { lost } else { spare - spare % u32::from(mss) }.min(whole);
            if limit == 0 {
                return Ok(false);
            }
            match self.send_data(from, limit, mss, cx) {
                Ok(Some(count)) if count > 0 => count,
                Ok(_) => return Ok(false),
                // It was there before.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        };
        self.board.send_again(from, count, self.snd_nxt);
        self.rtt.sent_again();
        self.arm_if_idle(cx.now);
        Ok(true)
    }

    /// Sends what the host has from `from` on, `limit` bytes at most; how many it was, and `None` without a buffer.
    fn send_data<S: Sockets>(&mut self, from: u32, limit: u32, mss: u16, cx: &mut Context<S>) -> io::Result<Option<u32>> {
        let (limit, behind) = (limit as usize, from.wrapping_sub(self.snd_una) as usize);
        let (sockets, socket) = (&mut *cx.sockets, self.socket);
        let Some((mut frame, length)) = write::with_payload(cx.pool, limit, |into| sockets.tcp_peek(socket, behind, into))? else { return Ok(None) };
        if length > 0 {
            let flags = if length < limit { ACK | PSH } else { ACK };
            let header = TcpHeader { seq: from, ack: self.rcv_nxt, flags, window: self.window(cx), options: &[], mss };
            write::tcp(&mut frame, &cx.path, header);
            cx.out.push(frame);
            // What came ahead of a hole is told by an acknowledgement of its own.
            self.owes_ack &= self.held.is_some();
        }
        Ok(u32::try_from(length).ok())
    }

    fn send_fin<S: Sockets>(&mut self, seq: u32, cx: &mut Context<S>) {
        let header = TcpHeader { seq, ack: self.rcv_nxt, flags: ACK | FIN, window: self.window(cx), options: &[], mss: u16::MAX };
        push(cx, header, &[]);
        self.owes_ack &= self.held.is_some();
    }

    /// New numbers were used.
    fn advance(&mut self, count: u32, now: Instant) {
        self.snd_nxt = self.snd_nxt.wrapping_add(count);
        self.board.extend(self.snd_nxt);
        self.arm_if_idle(now);
    }

    // ---- acknowledgements ----

    pub(super) fn acknowledged<S: Sockets>(&mut self, segment: &Segment, cx: &mut Context<S>) -> Verdict {
        let count = segment.ack.wrapping_sub(self.snd_una);
        if before(self.snd_nxt, segment.ack) {
            // It acknowledges what was never sent.
            self.owes_ack = true;
            return Verdict::Keep;
        }
        if self.state == State::SynReceived {
            if count != 1 {
                return Verdict::Keep;
            }
            self.snd_wnd = u32::from(segment.window) << self.snd_scale;
            self.opened(segment.ack, cx.now);
            self.readable = true;
            return Verdict::Keep;
        }
        if before(segment.ack, self.snd_una) {
            return Verdict::Keep;
        }
        let window = u32::from(segment.window) << self.snd_scale;
        let had_window = std::mem::replace(&mut self.snd_wnd, window);
        if count > 0 {
            self.take_off(count, segment.ack, cx);
        }
        let mut is_news = false;
        if self.sack && segment.has_blocks() {
            self.board.begin(self.snd_una, self.snd_nxt);
            for (from, to) in segment.blocks() {
                is_news |= self.board.arrive(from, to);
            }
        }
        if count > 0 {
            self.duplicate_acks = 0;
        } else {
            let is_plain = segment.payload.is_empty() && window == had_window && self.in_flight() > 0 && segment.flags & FIN == 0;
            let is_duplicate = if self.sack { is_news } else { is_plain };
            self.duplicate_acks = if is_duplicate { self.duplicate_acks.saturating_add(1) } else { 0 };
        }
        // Most of the time there is nothing to find.
        let is_usual = self.board.is_empty() && self.duplicate_acks < DUPLICATES && self.recover.is_none();
        let verdict = if is_usual { Verdict::Keep } else { self.find_losses(count > 0, cx) };
        if count > 0 || is_news {
            self.retries = 0;
            self.probes = 0;
            self.retransmit = None;
            if self.in_flight() > 0 {
                self.arm_if_idle(cx.now);
            }
        } else if window > had_window && self.in_flight() == 0 {
            // What waited was a probe of the window.
            self.rtt.answered();
            self.retransmit = None;
        }
        verdict
    }

    /// `count` bytes more are acknowledged, up to `ack`.
    fn take_off<S: Sockets>(&mut self, count: u32, ack: u32, cx: &mut Context<S>) {
        let covers_fin = self.fin_at.is_some_and(|at| ack == at.wrapping_add(1));
        cx.sockets.tcp_discard(self.socket, (count - u32::from(covers_fin)) as usize);
        self.snd_una = ack;
        self.board.acknowledge(ack);
        self.rtt.acknowledged(ack, cx.now);
        self.recover = self.recover.filter(|recover| before(ack, *recover));
        if self.cwnd < MOST_IN_FLIGHT {
            let grown = if self.cwnd < self.ssthresh {
                count
            } else if self.recover.is_none() {
                u32::try_from(u64::from(self.mss) * u64::from(count) / u64::from(self.cwnd)).unwrap_or(0).max(1)
            } else {
                0
            };
            self.cwnd = (self.cwnd + grown).min(MOST_IN_FLIGHT);
        }
    }

    /// What an acknowledgement says about losses; the first of them is sent again at once.
    fn find_losses<S: Sockets>(&mut self, has_advanced: bool, cx: &mut Context<S>) -> Verdict {
        let mss = u32::from(self.mss.min(cx.mss()));
        if self.sack {
            // Until something is known to be lost, packets may have changed places.
            if self.recover.is_some() || self.probes > 0 || self.duplicate_acks >= DUPLICATES || self.board.arrived() > 2 * mss {
                self.board.lose_overtaken();
            }
        } else if if self.recover.is_some() { has_advanced } else { self.duplicate_acks == DUPLICATES } {
            // RFC 6582 3.2: an acknowledgement of a part tells the next loss.
            self.board.begin(self.snd_una, self.snd_nxt);
            self.board.lose_first(mss);
        }
        if self.board.next_lost().is_none() {
            return Verdict::Keep;
        }
        if self.recover.is_none() {
            self.reduce(mss);
            self.cwnd = self.ssthresh;
            return self.send(mss, cx);
        }
        if self.sack { Verdict::Keep } else { self.send(mss, cx) }
    }

    fn reduce(&mut self, mss: u32) {
        self.ssthresh = (self.cwnd.min(self.in_flight()) / 2).max(LEAST_SEGMENTS * mss).min(MOST_IN_FLIGHT);
        self.recover = Some(self.snd_nxt);
    }

    // ---- from the clock ----

    /// Nothing was heard for as long as an answer takes.
    pub(super) fn unanswered<S: Sockets>(&mut self, cx: &mut Context<S>) -> Verdict {
        self.retransmit = None;
        let mss = u32::from(self.mss.min(cx.mss()));
        if self.may_probe() {
            // The end of the flight may be lost: its last segment makes the sandbox tell (RFC 8985 7).
            self.probes += 1;
            self.board.begin(self.snd_una, self.snd_nxt);
            self.board.lose_last(mss);
            let verdict = self.send(mss, cx);
            self.arm_if_idle(cx.now);
            return verdict;
        }
        self.retries += 1;
        if self.retries > RETRIES {
            return self.break_off(cx);
        }
        self.rtt.back_off();
        match self.state {
            State::SynSent | State::SynReceived => self.send_syn(cx),
            State::Connecting => {}
            State::Open if self.in_flight() > 0 => {
                self.reduce(mss);
                self.cwnd = LEAST_SEGMENTS * mss;
                self.duplicate_acks = 0;
                self.probes = PROBES;
                self.board.begin(self.snd_una, self.snd_nxt);
                self.board.lose_all();
                let verdict = self.send(mss, cx);
                self.arm_if_idle(cx.now);
                return verdict;
            }
            State::Open => return self.probe_window(cx),
        }
        Verdict::Keep
    }

    /// Whether the end of the flight is worth another try before the timeout; a single segment's acknowledgement may
    /// be delayed for as long (RFC 9293 3.8.6.3).
    fn may_probe(&self) -> bool {
        self.sack && self.probes < PROBES && self.state == State::Open && self.in_flight() > u32::from(self.mss)
    }

    /// A number that is acknowledged already, which the sandbox answers with its window.
    fn probe_window<S: Sockets>(&mut self, cx: &mut Context<S>) -> Verdict {
        if self.room(self.spare(), self.mss.into()) > 0 {
            return self.pump(cx);
        }
        let header = TcpHeader { seq: self.snd_una.wrapping_sub(1), ack: self.rcv_nxt, flags: ACK, window: self.window(cx), options: &[], mss: u16::MAX };
        push(cx, header, &[]);
        // A sandbox that answers is alive, however long it keeps its window closed.
        self.retries = 0;
        self.arm_if_idle(cx.now);
        Verdict::Keep
    }

    fn arm_if_idle(&mut self, now: Instant) {
        if self.retransmit.is_none() {
            let wait = if self.may_probe() { (self.rtt.probe() * (1 << self.probes)).min(self.rtt.timeout()) } else { self.rtt.timeout() };
            self.retransmit = Some(now + wait);
        }
    }
}
