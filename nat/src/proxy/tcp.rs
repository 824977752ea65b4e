//! One TCP flow: this end is the far host to the sandbox; a host socket is the sandbox to the far host.
//!
//! There is no queue here. What the sandbox sends goes into the host socket's buffer at once, and only
//! what that took is acknowledged; the window we advertise is the room left in it. What the host
//! receives stays in its socket, is peeked at into super-frames for the sandbox, and is taken off
//! when the sandbox acknowledges it. Loss between us and the sandbox means to peek again from the
//! start (go back N): the way is short, and loses next to nothing.
//!
//! ```text
//! out:  sandbox SYN -> Connecting -host connected-> SynReceived -ACK-> Open
//! in:   host accept -> SynSent -SYN,ACK-> Open
//! Open: FIN of the sandbox -> shutdown of the socket; end of the socket's stream -> FIN to the sandbox;
//!       both, and ours acknowledged -> gone
//! ```
//! A reset from either side ends both. RFC 9293 is followed in what a peer can see; window scaling and
//! the segment size are negotiated (RFC 7323), timestamps and SACK are not offered.

use std::io;

use packet::{Duration, Frame, Instant, Pool};

use super::{
    sockets::{SocketId, Sockets},
    write::{self, Path, TcpHeader},
};

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
const PSH: u8 = 8;
pub(crate) const ACK: u8 = 16;

/// Our window scale: windows of up to 8 MiB, in steps of 128 bytes.
const SCALE: u8 = 7;
/// Most that is on its way to a sandbox: enough for any round trip on one machine, and small enough
/// to stay in the cache.
const MOST_IN_FLIGHT: u32 = 512 * 1024;
/// Super-frames for one flow before another has its turn.
const BURST: usize = 8;
/// Payload of a super-frame at most, before it is cut down to whole segments.
const SUPER: usize = 64_000;
const RTO_FIRST: Duration = Duration::from_millis(200);
const RTO_MOST: Duration = Duration::from_secs(60);
/// Retransmissions after which a flow is given up (RFC 9293 3.8.3 R2: at least 100 s).
const RETRIES: u8 = 10;
/// A window below this is looked at again by the clock: the host does not tell when room grows.
const SMALL_WINDOW: u32 = 32 * 1024;
const WINDOW_LOOK: Duration = Duration::from_millis(5);
/// RFC 5382 REQ-5: established connections that are idle live 2 h 4 min at least.
const IDLE: Duration = Duration::from_secs(7440);
const PARTIAL: Duration = Duration::from_secs(240);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The host is connecting; the sandbox's SYN is unanswered.
    Connecting,
    /// Our SYN-ACK is on its way to the sandbox.
    SynReceived,
    /// Our SYN is on its way to the sandbox.
    SynSent,
    /// Both ends are connected.
    Open,
}

/// What a flow wants after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Keep,
    /// Gone, in peace.
    Done,
    /// Broken: the host's peer is to be reset.
    Broken,
}

/// A segment from a sandbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) mss: Option<u16>,
    pub(crate) scale: Option<u8>,
    pub(crate) payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// From a TCP header and what follows it; `None` when it lies about its length.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.first_chunk::<20>()?;
        let offset = usize::from(header[12] >> 4) * 4;
        if offset < 20 {
            return None;
        }
        let (options, payload) = (bytes.get(20..offset)?, &bytes[offset..]);
        let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let mut this = Self { seq: word(4), ack: word(8), flags: header[13], window: u16::from_be_bytes([header[14], header[15]]), mss: None, scale: None, payload };
        if this.flags & SYN != 0 {
            this.read_options(options);
        }
        Some(this)
    }

    fn read_options(&mut self, mut options: &[u8]) {
        while let [kind, rest @ ..] = options {
            match (kind, rest) {
                (0, _) => return,
                (1, _) => options = rest,
                (_, [length, ..]) if *length >= 2 && options.len() >= usize::from(*length) => {
                    match (kind, &options[2..usize::from(*length)]) {
                        (2, [high, low]) => self.mss = Some(u16::from_be_bytes([*high, *low])),
                        (3, [scale]) => self.scale = Some((*scale).min(14)),
                        _ => {}
                    }
                    options = &options[usize::from(*length)..];
                }
                _ => return,
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Tcp {
    pub(crate) state: State,
    pub(crate) socket: SocketId,
    /// Next byte expected from the sandbox.
    rcv_nxt: u32,
    /// Right edge of the window that the sandbox was told.
    rcv_edge: u32,
    /// First byte that the sandbox has not acknowledged.
    snd_una: u32,
    /// Next byte to the sandbox.
    snd_nxt: u32,
    /// Next byte that was never sent: ahead of `snd_nxt` after going back.
    snd_max: u32,
    snd_wnd: u32,
    snd_scale: u8,
    scaling: bool,
    /// Payload of a segment to the sandbox, bytes.
    mss: u16,
    /// The sandbox's FIN was passed on.
    inside_done: bool,
    /// The end of the host's stream was seen.
    host_done: bool,
    fin_sent: bool,
    /// Number of our FIN, once it was sent.
    fin_at: Option<u32>,
    /// The host may have more to read.
    readable: bool,
    duplicate_acks: u8,
    /// All up to here was sent again: duplicate acknowledgements before it are of that, and mean nothing (RFC
    /// 6582 section 3.2).
    recover: Option<u32>,
    retries: u8,
    rto: Duration,
    /// When to send again, or probe.
    retransmit: Option<Instant>,
    /// When to look at the host's room again.
    look: Option<Instant>,
    pub(crate) last: Instant,
    /// An acknowledgement is owed at the end of the burst.
    pub(crate) owes_ack: bool,
}

/// What a flow needs to act.
pub(crate) struct Context<'a, S> {
    pub(crate) sockets: &'a mut S,
    pub(crate) pool: &'a Pool,
    pub(crate) path: Path,
    /// Of the link to the sandbox, bytes.
    pub(crate) mtu: u16,
    pub(crate) now: Instant,
    pub(crate) out: &'a mut Vec<Frame>,
}

impl<S> Context<'_, S> {
    /// Payload of a segment that fits the link, bytes: without an IP and a TCP header.
    fn mss(&self) -> u16 {
        self.mtu - if self.path.to.is_ipv4() { 40 } else { 60 }
    }
}

fn before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) >= 0x8000_0000
}

impl Tcp {
    /// A sandbox asks for a connection that the host now makes.
    pub(crate) fn outbound(socket: SocketId, syn: &Segment, isn: u32, now: Instant) -> Self {
        let mut this = Self::new(State::Connecting, socket, isn, now);
        this.take_syn(syn);
        this
    }

    /// The host accepted a connection that the sandbox is now asked for.
    pub(crate) fn inbound(socket: SocketId, isn: u32, now: Instant) -> Self {
        Self::new(State::SynSent, socket, isn, now)
    }

    fn new(state: State, socket: SocketId, isn: u32, now: Instant) -> Self {
        Self {
            state,
            socket,
            rcv_nxt: 0,
            rcv_edge: 0,
            snd_una: isn,
            snd_nxt: isn,
            snd_max: isn,
            snd_wnd: 0,
            snd_scale: 0,
            scaling: false,
            mss: 536,
            inside_done: false,
            host_done: false,
            fin_sent: false,
            fin_at: None,
            readable: false,
            duplicate_acks: 0,
            recover: None,
            retries: 0,
            rto: RTO_FIRST,
            retransmit: None,
            look: None,
            last: now,
            owes_ack: false,
        }
    }

    fn take_syn(&mut self, syn: &Segment) {
        self.rcv_nxt = syn.seq.wrapping_add(1);
        self.rcv_edge = self.rcv_nxt;
        self.mss = syn.mss.unwrap_or(536).max(64);
        self.scaling = syn.scale.is_some();
        self.snd_scale = syn.scale.unwrap_or(0);
        self.snd_wnd = u32::from(syn.window);
    }

    /// As conntrack calls it.
    pub(crate) const fn name(&self) -> &'static str {
        match self.state {
            State::Connecting | State::SynSent => "SYN_SENT",
            State::SynReceived => "SYN_RECV",
            State::Open if self.inside_done && self.fin_sent => "LAST_ACK",
            State::Open if self.inside_done => "CLOSE_WAIT",
            State::Open if self.fin_sent => "FIN_WAIT",
            State::Open => "ESTABLISHED",
        }
    }

    pub(crate) const fn is_half_open(&self) -> bool {
        !matches!(self.state, State::Open)
    }

    /// Number of the SYN that opened it.
    pub(crate) const fn first_number(&self) -> u32 {
        self.rcv_nxt.wrapping_sub(1)
    }

    /// When this flow wants to hear from the clock.
    pub(crate) fn deadline(&self) -> Instant {
        let end = self.end_of_life();
        [self.retransmit, self.look].into_iter().flatten().fold(end, Instant::min)
    }

    /// When it is given up unless something happens.
    fn end_of_life(&self) -> Instant {
        self.last + if self.is_half_open() || self.inside_done || self.fin_sent { PARTIAL } else { IDLE }
    }

    // ---- from the host ----

    /// The host's connection was made: now the sandbox's SYN is answered.
    pub(crate) fn connected<S: Sockets>(&mut self, cx: &mut Context<S>) {
        self.state = State::SynReceived;
        self.send_syn(cx);
    }

    /// Sends, or sends again, a SYN or SYN-ACK.
    pub(crate) fn send_syn<S: Sockets>(&mut self, cx: &mut Context<S>) {
        let [high, low] = cx.mss().to_be_bytes();
        let offers_scale = self.state == State::SynSent || self.scaling;
        let options = [2, 4, high, low, 1, 3, 3, SCALE];
        let flags = if self.state == State::SynSent { SYN } else { SYN | ACK };
        // The window of a SYN is not scaled (RFC 7323 2.2).
        let window = u16::try_from(cx.sockets.tcp_room(self.socket)).unwrap_or(u16::MAX);
        self.rcv_edge = self.rcv_nxt.wrapping_add(u32::from(window));
        let header = TcpHeader { seq: self.snd_una, ack: self.rcv_nxt, flags, window, options: if offers_scale { &options } else { &options[..4] }, mss: u16::MAX };
        push(cx, header, &[]);
        self.snd_nxt = self.snd_una;
        self.advance(1);
        self.arm(cx.now);
    }

    fn advance(&mut self, count: u32) {
        self.snd_nxt = self.snd_nxt.wrapping_add(count);
        if before(self.snd_max, self.snd_nxt) {
            self.snd_max = self.snd_nxt;
        }
    }

    /// The host has something to read.
    pub(crate) fn readable<S: Sockets>(&mut self, cx: &mut Context<S>) -> Verdict {
        self.readable = true;
        if self.state == State::Open { self.pump(cx) } else { Verdict::Keep }
    }

    /// True when there is more to send to the sandbox and room in its window.
    pub(crate) fn wants_turn(&self) -> bool {
        self.state == State::Open && self.readable && self.room() > 0
    }

    fn room(&self) -> u32 {
        self.snd_wnd.min(MOST_IN_FLIGHT).saturating_sub(self.in_flight())
    }

    fn in_flight(&self) -> u32 {
        self.snd_nxt.wrapping_sub(self.snd_una)
    }

    /// Sends what the host has and the sandbox has room for.
    pub(crate) fn pump<S: Sockets>(&mut self, cx: &mut Context<S>) -> Verdict {
        let mss = self.mss.min(cx.mss());
        let whole = SUPER / usize::from(mss) * usize::from(mss);
        for _ in 0..BURST {
            if !self.readable || self.fin_sent {
                break;
            }
            let room = self.room() as usize;
            // Silly window avoidance (RFC 9293 3.8.6.2.1): a full segment, or nothing in flight.
            if room == 0 || (room < usize::from(mss) && self.in_flight() > 0) {
                break;
            }
            let limit = room.min(whole);
            let (sockets, socket) = (&mut *cx.sockets, self.socket);
            match write::with_payload(cx.pool, limit, |into| sockets.tcp_peek(socket, into)) {
                Ok(Some((_, 0))) => {
                    self.readable = false;
                    self.host_done = true;
                }
                Ok(Some((mut frame, length))) => {
                    let flags = if length < limit { ACK | PSH } else { ACK };
                    let header = TcpHeader { seq: self.snd_nxt, ack: self.rcv_nxt, flags, window: self.window(cx), options: &[], mss };
                    write::tcp(&mut frame, &cx.path, header);
                    cx.out.push(frame);
                    self.advance(u32::try_from(length).unwrap_or(0));
                    self.owes_ack = false;
                    self.arm_if_idle(cx.now);
                    self.last = cx.now;
                }
                Ok(None) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.break_off(cx),
            }
        }
        if self.host_done && !self.fin_sent {
            let header = TcpHeader { seq: self.snd_nxt, ack: self.rcv_nxt, flags: ACK | FIN, window: self.window(cx), options: &[], mss };
            push(cx, header, &[]);
            self.fin_at = Some(self.snd_nxt);
            self.advance(1);
            self.fin_sent = true;
            self.owes_ack = false;
            self.arm_if_idle(cx.now);
        }
        if self.readable && self.room() == 0 && self.in_flight() == 0 {
            // A closed window: probed by the clock (RFC 9293 3.8.6.1).
            self.arm_if_idle(cx.now);
        }
        Verdict::Keep
    }

    /// The host's connection broke: so does the sandbox's.
    pub(crate) fn break_off<S: Sockets>(&mut self, cx: &mut Context<S>) -> Verdict {
        let flags = if self.state == State::SynSent { RST } else { RST | ACK };
        push(cx, TcpHeader { seq: self.snd_nxt, ack: self.rcv_nxt, flags, window: 0, options: &[], mss: u16::MAX }, &[]);
        Verdict::Broken
    }

    // ---- from the sandbox ----

    pub(crate) fn segment<S: Sockets>(&mut self, segment: &Segment, cx: &mut Context<S>) -> Verdict {
        self.last = cx.now;
        match self.state {
            State::Connecting if segment.flags & RST != 0 => return Verdict::Broken,
            State::Connecting => return Verdict::Keep,
            State::SynSent => return self.answer_to_syn(segment, cx),
            State::SynReceived | State::Open => {}
        }
        if segment.flags & RST != 0 {
            // Only the exact number is believed (RFC 5961 3.2); others are answered with an ACK.
            if segment.seq == self.rcv_nxt {
                return Verdict::Broken;
            }
            self.owes_ack = true;
            return Verdict::Keep;
        }
        if segment.flags & SYN != 0 {
            if self.state == State::SynReceived && segment.seq.wrapping_add(1) == self.rcv_nxt {
                self.send_syn(cx);
            } else {
                self.owes_ack = true;
            }
            return Verdict::Keep;
        }
        if segment.flags & ACK == 0 {
            return Verdict::Keep;
        }
        match self.acknowledged(segment, cx) {
            Verdict::Keep => {}
            other => return other,
        }
        match self.received(segment, cx) {
            Verdict::Keep => {}
            other => return other,
        }
        if self.inside_done && self.fin_sent && self.snd_una == self.snd_nxt {
            self.acknowledge(cx);
            return Verdict::Done;
        }
        if self.state == State::Open { self.pump(cx) } else { Verdict::Keep }
    }

    fn answer_to_syn<S: Sockets>(&mut self, segment: &Segment, cx: &mut Context<S>) -> Verdict {
        let acks_ours = segment.flags & ACK != 0 && segment.ack == self.snd_nxt;
        match (segment.flags & RST != 0, segment.flags & SYN != 0) {
            (true, _) if acks_ours => Verdict::Broken,
            (false, true) if acks_ours => {
                self.take_syn(segment);
                self.snd_una = self.snd_nxt;
                self.opened();
                self.acknowledge(cx);
                self.readable = true;
                self.pump(cx)
            }
            _ => Verdict::Keep,
        }
    }

    fn opened(&mut self) {
        self.state = State::Open;
        self.retransmit = None;
        self.retries = 0;
        self.rto = RTO_FIRST;
    }

    fn acknowledged<S: Sockets>(&mut self, segment: &Segment, cx: &mut Context<S>) -> Verdict {
        let count = segment.ack.wrapping_sub(self.snd_una);
        if before(self.snd_max, segment.ack) {
            // It acknowledges what was never sent.
            self.owes_ack = true;
            return Verdict::Keep;
        }
        if self.state == State::SynReceived {
            if count != 1 {
                return Verdict::Keep;
            }
            self.snd_una = segment.ack;
            self.snd_wnd = u32::from(segment.window) << self.snd_scale;
            self.opened();
            self.readable = true;
            return Verdict::Keep;
        }
        let window = u32::from(segment.window) << self.snd_scale;
        if count == 0 {
            let is_duplicate = segment.payload.is_empty() && window == self.snd_wnd && self.in_flight() > 0 && segment.flags & FIN == 0;
            self.duplicate_acks = if is_duplicate { self.duplicate_acks.saturating_add(1) } else { 0 };
            self.snd_wnd = window;
            return if self.duplicate_acks == 3 && self.recover.is_none() { self.go_back(cx) } else { Verdict::Keep };
        }
        if before(segment.ack, self.snd_una) {
            return Verdict::Keep;
        }
        let covers_fin = self.fin_at.is_some_and(|at| segment.ack == at.wrapping_add(1));
        cx.sockets.tcp_discard(self.socket, (count - u32::from(covers_fin)) as usize);
        if before(self.snd_nxt, segment.ack) {
            // We went back, and what was sent before got through after all.
            self.snd_nxt = segment.ack;
            self.fin_sent = covers_fin;
            self.host_done |= covers_fin;
        }
        self.snd_una = segment.ack;
        self.snd_wnd = window;
        self.duplicate_acks = 0;
        self.recover = self.recover.filter(|recover| before(segment.ack, *recover));
        self.retries = 0;
        self.rto = RTO_FIRST;
        self.retransmit = None;
        if self.in_flight() > 0 {
            self.arm(cx.now);
        }
        Verdict::Keep
    }

    fn received<S: Sockets>(&mut self, segment: &Segment, cx: &mut Context<S>) -> Verdict {
        let old = self.rcv_nxt.wrapping_sub(segment.seq);
        let has_content = !segment.payload.is_empty() || segment.flags & FIN != 0;
        if !has_content {
            // A keep-alive asks for an answer.
            self.owes_ack |= old == 1;
            return Verdict::Keep;
        }
        self.owes_ack = true;
        if before(self.rcv_nxt, segment.seq) {
            // One for each: three make the sandbox send again at once (RFC 5681 section 3.2).
            self.acknowledge(cx);
            return Verdict::Keep;
        }
        if old as usize > segment.payload.len() || self.inside_done {
            return Verdict::Keep;
        }
        let fresh = &segment.payload[old as usize..];
        let mut taken = 0;
        if !fresh.is_empty() {
            taken = match cx.sockets.tcp_send(self.socket, fresh) {
                Ok(taken) => taken,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
                Err(_) => return self.break_off(cx),
            };
            self.rcv_nxt = self.rcv_nxt.wrapping_add(u32::try_from(taken).unwrap_or(0));
        }
        if segment.flags & FIN != 0 && taken == fresh.len() {
            self.rcv_nxt = self.rcv_nxt.wrapping_add(1);
            self.inside_done = true;
            cx.sockets.tcp_shutdown(self.socket);
        }
        Verdict::Keep
    }

    /// The window to advertise, scaled; never one that takes back what was promised.
    fn window<S: Sockets>(&mut self, cx: &mut Context<S>) -> u16 {
        let room = u32::try_from(cx.sockets.tcp_room(self.socket)).unwrap_or(u32::MAX).min(u32::from(u16::MAX) << SCALE);
        let mut edge = self.rcv_nxt.wrapping_add(room);
        if before(edge, self.rcv_edge) {
            edge = self.rcv_edge;
        }
        let window = edge.wrapping_sub(self.rcv_nxt);
        self.look = (window < SMALL_WINDOW && !self.inside_done).then(|| cx.now + WINDOW_LOOK);
        let shift = if self.scaling { SCALE } else { 0 };
        let told = (window >> shift).min(u32::from(u16::MAX));
        self.rcv_edge = self.rcv_nxt.wrapping_add(told << shift);
        u16::try_from(told).unwrap_or(u16::MAX)
    }

    pub(crate) fn acknowledge<S: Sockets>(&mut self, cx: &mut Context<S>) {
        self.owes_ack = false;
        let window = self.window(cx);
        push(cx, TcpHeader { seq: self.snd_nxt, ack: self.rcv_nxt, flags: ACK, window, options: &[], mss: u16::MAX }, &[]);
    }

    // ---- from the clock ----

    pub(crate) fn timeout<S: Sockets>(&mut self, cx: &mut Context<S>) -> Verdict {
        let now = cx.now;
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.look) {
            self.look = None;
            let room = u32::try_from(cx.sockets.tcp_room(self.socket)).unwrap_or(u32::MAX);
            if room >= SMALL_WINDOW {
                self.acknowledge(cx);
            } else {
                self.look = Some(cx.now + WINDOW_LOOK);
            }
        }
        if is_due(self.retransmit) {
            self.retries += 1;
            if self.retries > RETRIES {
                return self.break_off(cx);
            }
            self.rto = (self.rto * 2).min(RTO_MOST);
            match self.state {
                State::SynSent | State::SynReceived => self.send_syn(cx),
                State::Connecting => {}
                State::Open if self.in_flight() > 0 => return self.go_back(cx),
                State::Open => return self.probe(cx),
            }
        }
        if self.end_of_life() <= cx.now {
            return self.break_off(cx);
        }
        Verdict::Keep
    }

    /// Sends again from the first byte that is not acknowledged.
    fn go_back<S: Sockets>(&mut self, cx: &mut Context<S>) -> Verdict {
        cx.sockets.tcp_rewind(self.socket);
        self.recover = Some(self.snd_max);
        self.snd_nxt = self.snd_una;
        self.fin_sent = false;
        self.host_done = false;
        self.readable = true;
        self.duplicate_acks = 0;
        self.retransmit = None;
        let verdict = self.pump(cx);
        self.arm_if_idle(cx.now);
        verdict
    }

    /// One byte into a closed window, which the sandbox answers with its window.
    fn probe<S: Sockets>(&mut self, cx: &mut Context<S>) -> Verdict {
        if self.room() > 0 {
            self.retransmit = None;
            return self.pump(cx);
        }
        let header = TcpHeader { seq: self.snd_una.wrapping_sub(1), ack: self.rcv_nxt, flags: ACK, window: self.window(cx), options: &[], mss: u16::MAX };
        push(cx, header, &[]);
        // A sandbox that answers is alive, however long it keeps its window closed.
        self.retries = 0;
        self.arm(cx.now);
        Verdict::Keep
    }

    fn arm(&mut self, now: Instant) {
        self.retransmit = Some(now + self.rto);
    }

    fn arm_if_idle(&mut self, now: Instant) {
        if self.retransmit.is_none() {
            self.arm(now);
        }
    }
}

/// A segment with a short payload.
fn push<S>(cx: &mut Context<S>, header: TcpHeader, payload: &[u8]) {
    let made = write::with_payload(cx.pool, payload.len(), |into| {
        into.copy_from_slice(payload);
        Ok::<_, ()>(payload.len())
    });
    // Without a buffer it is lost, as on any wire.
    if let Ok(Some((mut frame, _))) = made {
        write::tcp(&mut frame, &cx.path, header);
        cx.out.push(frame);
    }
}

/// The reset that answers a segment of no flow (RFC 9293 3.10.7.1).
pub(crate) fn refuse(pool: &Pool, path: &Path, segment: &Segment, out: &mut Vec<Frame>) {
    if segment.flags & RST != 0 {
        return;
    }
    let length = u32::try_from(segment.payload.len()).unwrap_or(0) + u32::from(segment.flags & SYN != 0) + u32::from(segment.flags & FIN != 0);
    let (seq, ack, flags) = if segment.flags & ACK != 0 { (segment.ack, 0, RST) } else { (0, segment.seq.wrapping_add(length), RST | ACK) };
    let Ok(Some((mut frame, _))) = write::with_payload(pool, 0, |_| Ok::<_, ()>(0)) else { return };
    write::tcp(&mut frame, path, TcpHeader { seq, ack, flags, window: 0, options: &[], mss: u16::MAX });
    out.push(frame);
}
