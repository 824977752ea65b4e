//! The half from the sandbox to the host.

use std::io;

use packet::Duration;

use super::{Context, SCALE, Tcp, Verdict, held, push, segment::{ACK, FIN, Segment, before}};
use crate::proxy::{SocketId, sockets::Sockets, write::TcpHeader};

/// A window below this is looked at again by the clock: the host does not tell when room grows.
const SMALL_WINDOW: u32 = 32 * 1024;
const WINDOW_LOOK: Duration = Duration::from_millis(5);

/// Offers bytes to the host's socket: how many it took, which may be none at present.
fn offer<S: Sockets>(sockets: &mut S, socket: SocketId, bytes: &[u8]) -> io::Result<usize> {
    match sockets.tcp_send(socket, bytes) {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
        answer => answer,
    }
}

impl Tcp {
    /// Payload, or the end of the stream.
    pub(super) fn received<S: Sockets>(&mut self, segment: &Segment, cx: &mut Context<S>) -> Verdict {
        let old = self.rcv_nxt.wrapping_sub(segment.seq);
        let has_content = !segment.payload.is_empty() || segment.flags & FIN != 0;
        if !has_content {
            // A keep-alive asks for an answer.
            self.owes_ack |= old == 1;
            return Verdict::Keep;
        }
        if before(self.rcv_nxt, segment.seq) {
            self.ahead(segment, cx);
            return Verdict::Keep;
        }
        self.owes_ack = true;
        let Some(fresh) = segment.payload.get(old as usize..).filter(|fresh| !self.inside_done && (!fresh.is_empty() || segment.flags & FIN != 0)) else {
            self.twice(segment, cx);
            return Verdict::Keep;
        };
        let mut taken = 0;
        if !fresh.is_empty() {
            let Ok(count) = offer(cx.sockets, self.socket, fresh) else { return self.break_off(cx) };
            taken = count;
            self.rcv_nxt = self.rcv_nxt.wrapping_add(u32::try_from(taken).unwrap_or(0));
        }
        if taken < fresh.len() {
            return Verdict::Keep;
        }
        if segment.flags & FIN != 0 {
            self.end_of_stream(cx);
        }
        self.deliver(cx)
    }

    fn end_of_stream<S: Sockets>(&mut self, cx: &mut Context<S>) {
        self.rcv_nxt = self.rcv_nxt.wrapping_add(1);
        self.inside_done = true;
        cx.sockets.tcp_shutdown(self.socket);
        self.release(cx.budget);
    }

    /// A segment behind a hole is kept, and told at once: so the sandbox learns what to send again (RFC 5681 3.2).
    fn ahead<S: Sockets>(&mut self, segment: &Segment, cx: &mut Context<S>) {
        // What the window did not allow is not worth the memory.
        let room = if self.inside_done || before(self.rcv_edge, segment.seq) { 0 } else { self.rcv_edge.wrapping_sub(segment.seq) };
        let payload = &segment.payload[..segment.payload.len().min(room as usize)];
        let end = segment.seq.wrapping_add(u32::try_from(payload.len()).unwrap_or(0));
        let mut duplicate = None;
        if room > 0 {
            let held = self.held.get_or_insert_default();
            duplicate = held.covers(segment.seq, end).then_some((segment.seq, end));
            let is_kept = held.insert(self.rcv_nxt, segment.seq, payload, cx.budget);
            if is_kept && segment.flags & FIN != 0 && payload.len() == segment.payload.len() {
                held.end_at(end);
            }
            if held.is_empty() {
                self.held = None;
            }
        }
        self.acknowledge_and_tell(duplicate, cx);
    }

    /// A segment of which all was there before (RFC 2883).
    fn twice<S: Sockets>(&mut self, segment: &Segment, cx: &mut Context<S>) {
        if !segment.payload.is_empty() {
            let end = segment.seq.wrapping_add(u32::try_from(segment.payload.len()).unwrap_or(0));
            self.acknowledge_and_tell(Some((segment.seq, end)), cx);
        }
    }

    /// Gives the host what is no longer behind a hole.
    fn deliver<S: Sockets>(&mut self, cx: &mut Context<S>) -> Verdict {
        while let Some(held) = &mut self.held {
            held.release(self.rcv_nxt, cx.budget);
            if held.is_empty() {
                self.held = None;
            } else if held.ends_at(self.rcv_nxt) {
                self.end_of_stream(cx);
            } else if let Some(bytes) = held.front(self.rcv_nxt) {
                match offer(cx.sockets, self.socket, bytes) {
                    Ok(0) => break,
                    Ok(taken) => self.rcv_nxt = self.rcv_nxt.wrapping_add(u32::try_from(taken).unwrap_or(0)),
                    Err(_) => return self.break_off(cx),
                }
                self.owes_ack = true;
            } else {
                break;
            }
        }
        Verdict::Keep
    }

    /// Whether something waits behind a hole, or for room in the host's socket.
    pub(crate) const fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// The host's socket has room again.
    pub(crate) fn writable<S: Sockets>(&mut self, cx: &mut Context<S>) -> Verdict {
        let verdict = self.deliver(cx);
        if verdict == Verdict::Keep && self.is_over() {
            self.acknowledge(cx);
            return Verdict::Done;
        }
        verdict
    }

    /// The window to advertise, scaled; never one that takes back what was promised.
    pub(super) fn window<S: Sockets>(&mut self, cx: &mut Context<S>) -> u16 {
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

    /// By the clock: a window that was small may have grown.
    pub(super) fn look_at_room<S: Sockets>(&mut self, cx: &mut Context<S>) -> Verdict {
        self.look = None;
        if let verdict @ (Verdict::Done | Verdict::Broken) = self.writable(cx) {
            return verdict;
        }
        if u32::try_from(cx.sockets.tcp_room(self.socket)).unwrap_or(u32::MAX) >= SMALL_WINDOW {
            self.acknowledge(cx);
        } else {
            self.look = Some(cx.now + WINDOW_LOOK);
        }
        Verdict::Keep
    }

    pub(crate) fn acknowledge<S: Sockets>(&mut self, cx: &mut Context<S>) {
        self.acknowledge_and_tell(None, cx);
    }

    fn acknowledge_and_tell<S: Sockets>(&mut self, duplicate: Option<(u32, u32)>, cx: &mut Context<S>) {
        self.owes_ack = false;
        let window = self.window(cx);
        let header = TcpHeader { seq: self.snd_nxt, ack: self.rcv_nxt, flags: ACK, window, options: &[], mss: u16::MAX };
        if self.sack && (self.held.is_some() || duplicate.is_some()) {
            let mut options = [0; held::MOST_OPTIONS];
            let length = held::write_sack(self.held.as_deref(), duplicate, &mut options);
            push(cx, TcpHeader { options: &options[..length], ..header }, &[]);
        } else {
            push(cx, header, &[]);
        }
    }
}
