//! One TCP flow: this end is the far host to the sandbox; a host socket is the sandbox to the far host.
//!
//! There is no queue here. What the sandbox sends goes into the host socket's buffer at once, and only
//! what that took is acknowledged; the window we advertise is the room left in it. What the host
//! receives stays in its socket, is peeked at into super-frames for the sandbox, and is taken off
//! when the sandbox acknowledges it; what is lost on the way is peeked at again.
//!
//! ```text
//! out:  sandbox SYN -> Connecting -host connected-> SynReceived -ACK-> Open
//! in:   host accept -> SynSent -SYN,ACK-> Open
//! Open: FIN of the sandbox -> shutdown of the socket; end of the socket's stream -> FIN to the sandbox;
//!       both, and ours acknowledged -> gone
//! ```
//! A reset from either side ends both. RFC 9293 is followed in what a peer can see; the segment size, window scaling
//! (RFC 7323) and selective acknowledgements (RFC 2018) are negotiated, timestamps are not offered.
//!
//! `receive.rs` is the half from the sandbox: only what comes ahead of a hole is kept (`held.rs`), and told. `send.rs` is
//! the half to it: what is lost is known by what overtook it (`scoreboard.rs`), at the end of a flight by a probe, and
//! after that by the clock (`rtt.rs`).

mod held;
mod receive;
mod rtt;
mod scoreboard;
mod segment;
mod send;

use packet::{Duration, Frame, Instant, Pool};

use super::{
    sockets::{SocketId, Sockets},
    write::{self, Path, TcpHeader},
};
pub(crate) use held::Budget;
use held::Held;
use rtt::Rtt;
use scoreboard::Scoreboard;
pub(crate) use segment::{ACK, RST, SYN, Segment, refuse};
use segment::option;

/// Our window scale: windows of up to 8 MiB, in steps of 128 bytes.
const SCALE: u8 = 7;
/// Retransmissions after which a flow is given up (RFC 9293 3.8.3 R2: at least 100 s).
const RETRIES: u8 = 10;
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
    /// Whom it was for would not have it, or is silent; another may.
    Declined,
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
    /// What came ahead of a hole.
    held: Option<Box<Held>>,
    /// First byte that the sandbox has not acknowledged.
    snd_una: u32,
    /// Next byte that was never sent.
    snd_nxt: u32,
    snd_wnd: u32,
    snd_scale: u8,
    scaling: bool,
    /// Selective acknowledgements are used.
    sack: bool,
    /// Payload of a segment to the sandbox, bytes.
    mss: u16,
    /// The sandbox's FIN was passed on.
    inside_done: bool,
    /// The end of the host's stream was seen.
    host_done: bool,
    /// Number of our FIN, once it was sent.
    fin_at: Option<u32>,
    /// The host may have more to read.
    readable: bool,
    board: Scoreboard,
    /// Most that may be on its way, and what it grows to fast (RFC 5681), bytes.
    cwnd: u32,
    ssthresh: u32,
    duplicate_acks: u8,
    /// Losses up to here are of one event (RFC 6582 3.2).
    recover: Option<u32>,
    rtt: Rtt,
    /// How often the end of this flight was tried again.
    probes: u8,
    retries: u8,
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
    /// For what comes ahead of holes.
    pub(crate) budget: &'a mut Budget,
    pub(crate) out: &'a mut Vec<Frame>,
}

impl<S> Context<'_, S> {
    /// Payload of a segment that fits the link, bytes: without an IP and a TCP header.
    fn mss(&self) -> u16 {
        self.mtu - if self.path.to.is_ipv4() { 40 } else { 60 }
    }
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
            held: None,
            snd_una: isn,
            snd_nxt: isn,
            snd_wnd: 0,
            snd_scale: 0,
            scaling: false,
            sack: false,
            mss: 536,
            inside_done: false,
            host_done: false,
            fin_at: None,
            readable: false,
            board: Scoreboard::default(),
            cwnd: send::MOST_IN_FLIGHT,
            ssthresh: send::MOST_IN_FLIGHT,
            duplicate_acks: 0,
            recover: None,
            rtt: Rtt::default(),
            probes: 0,
            retries: 0,
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
        self.sack = syn.sack_permitted;
        self.snd_scale = syn.scale.unwrap_or(0);
        self.snd_wnd = u32::from(syn.window);
    }

    /// As conntrack calls it.
    pub(crate) const fn name(&self) -> &'static str {
        match self.state {
            State::Connecting | State::SynSent => "SYN_SENT",
            State::SynReceived => "SYN_RECV",
            State::Open if self.inside_done && self.fin_at.is_some() => "LAST_ACK",
            State::Open if self.inside_done => "CLOSE_WAIT",
            State::Open if self.fin_at.is_some() => "FIN_WAIT",
            State::Open => "ESTABLISHED",
        }
    }

    pub(crate) const fn is_half_open(&self) -> bool {
        !matches!(self.state, State::Open)
    }

    /// Nobody has answered our SYN, though it was sent again.
    pub(crate) const fn is_unanswered(&self) -> bool {
        matches!(self.state, State::SynSent) && self.retries > 0
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
        self.last + if self.is_half_open() || self.inside_done || self.fin_at.is_some() { PARTIAL } else { IDLE }
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
        let is_ours = self.state == State::SynSent;
        let mut options = [option::NOP; 12];
        options[..4].copy_from_slice(&[option::MSS, 4, high, low]);
        if is_ours || self.scaling {
            options[5..8].copy_from_slice(&[option::SCALE, 3, SCALE]);
        }
        if is_ours || self.sack {
            options[10..].copy_from_slice(&[option::SACK_PERMITTED, 2]);
        }
        let flags = if is_ours { SYN } else { SYN | ACK };
        // The window of a SYN is not scaled (RFC 7323 2.2).
        let window = u16::try_from(cx.sockets.tcp_room(self.socket)).unwrap_or(u16::MAX);
        self.rcv_edge = self.rcv_nxt.wrapping_add(u32::from(window));
        push(cx, TcpHeader { seq: self.snd_una, ack: self.rcv_nxt, flags, window, options: &options, mss: u16::MAX }, &[]);
        if self.in_flight() > 0 {
            self.rtt.sent_again();
        } else {
            self.snd_nxt = self.snd_una.wrapping_add(1);
            self.rtt.sent(self.snd_nxt, cx.now);
        }
        self.retransmit = Some(cx.now + self.rtt.timeout());
    }

    /// The host has something to read.
    pub(crate) fn readable<S: Sockets>(&mut self, cx: &mut Context<S>) -> Verdict {
        self.readable = true;
        if self.state == State::Open { self.pump(cx) } else { Verdict::Keep }
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
        if self.is_over() {
            self.acknowledge(cx);
            return Verdict::Done;
        }
        if self.state == State::Open { self.pump(cx) } else { Verdict::Keep }
    }

    /// Both streams ended, and the sandbox knows.
    fn is_over(&self) -> bool {
        self.inside_done && self.fin_at.is_some() && self.in_flight() == 0
    }

    fn answer_to_syn<S: Sockets>(&mut self, segment: &Segment, cx: &mut Context<S>) -> Verdict {
        let acks_ours = segment.flags & ACK != 0 && segment.ack == self.snd_nxt;
        match (segment.flags & RST != 0, segment.flags & SYN != 0) {
            (true, _) if acks_ours => Verdict::Declined,
            (false, true) if acks_ours => {
                self.take_syn(segment);
                self.opened(segment.ack, cx.now);
                self.acknowledge(cx);
                self.readable = true;
                self.pump(cx)
            }
            _ => Verdict::Keep,
        }
    }

    /// The sandbox acknowledged our SYN.
    fn opened(&mut self, ack: u32, now: Instant) {
        self.state = State::Open;
        self.snd_una = ack;
        self.retransmit = None;
        self.retries = 0;
        self.rtt.acknowledged(ack, now);
    }

    // ---- from the clock ----

    pub(crate) fn timeout<S: Sockets>(&mut self, cx: &mut Context<S>) -> Verdict {
        let now = cx.now;
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.look)
            && let verdict @ (Verdict::Done | Verdict::Broken) = self.look_at_room(cx)
        {
            return verdict;
        }
        if is_due(self.retransmit)
            && let verdict @ (Verdict::Done | Verdict::Broken) = self.unanswered(cx)
        {
            return verdict;
        }
        if self.end_of_life() <= now {
            return self.break_off(cx);
        }
        Verdict::Keep
    }

    /// The flow is over: what it held is free.
    pub(crate) fn release(&mut self, budget: &mut Budget) {
        budget.held -= self.held.take().map_or(0, |held| held.cost());
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
