//! Datagrams of the underlay into frames.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use packet::{Coalescer, Frame, Instant, Offload, Parsed, Pool, Vni};

use crate::{
    drop::DropReason,
    ecn,
    header::{self, HEADER_LEN},
    own::own,
    vtep::Vtep,
};

/// Frames a buffer of UDP_GRO can hold are joined in a window of so many.
pub(crate) const WINDOW_FRAMES: usize = 64;

/// What the outer headers said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Source address and port.
    pub from: SocketAddr,
    /// Destination address, on which the key of an encrypted datagram depends; unspecified when the shell does not know.
    pub to: IpAddr,
    /// Congestion field (RFC 6040), the low two bits of the traffic class; 0 when the shell does not know.
    pub ecn: u8,
}

/// Where in a buffer an inner frame is that may be believed: it is of a remote that may speak, and was opened if need be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uncovered {
    vni: Vni,
    remote: SocketAddr,
    start: usize,
    length: usize,
}

impl Vtep {
    /// Takes the payload of one datagram, VXLAN header first; gives the inner frame and its VNI. `judge` knows the stations
    /// on this side, and refuses frames that speak for one of them.
    ///
    /// # Errors
    /// Why it was dropped, counted.
    pub fn decap(
        &mut self,
        outer: Outer,
        datagram: Frame,
        judge: impl Fn(Vni, &Parsed, &[u8]) -> Result<(), DropReason>,
        now: Instant,
    ) -> Result<(Vni, Frame), DropReason> {
        let mut datagram = self.openable(datagram)?;
        let whole = 0..datagram.len();
        let uncovered = self.uncover(outer, &mut datagram, whole, now)?;
        let frame = self.take(uncovered, outer, datagram, judge, now)?;
        Ok((uncovered.vni, frame))
    }

    /// Takes a buffer that UDP_GRO filled with datagrams of one sender, `segment` bytes each but the last, which may be shorter.
    /// Puts the inner frames into `out`, those that follow each other in one flow as super-frames. Drops are counted.
    pub fn decap_many(
        &mut self,
        outer: Outer,
        datagrams: Frame,
        segment: usize,
        judge: impl Fn(Vni, &Parsed, &[u8]) -> Result<(), DropReason>,
        now: Instant,
        out: &mut Vec<(Vni, Frame)>,
    ) {
        if segment == 0 || segment >= datagrams.len() {
            out.extend(self.decap(outer, datagrams, judge, now));
            return;
        }
        let Ok(mut datagrams) = self.openable(datagrams) else { return };
        // First all are opened, in place; then each is a frame of its own in the buffer they share.
        let mut uncovered = std::mem::take(&mut self.uncovered);
        for start in (0..datagrams.len()).step_by(segment) {
            let range = start..(start + segment).min(datagrams.len());
            uncovered.extend(self.uncover(outer, &mut datagrams, range, now));
        }
        let mut vni_before = None;
        for inner in uncovered.drain(..) {
            let Ok(frame) = self.take(inner, outer, datagrams.share(), &judge, now) else { continue };
            // The coalescer knows flows, but not that two VNIs may have the same.
            if let Some(before) = vni_before.replace(inner.vni).filter(|before| *before != inner.vni) {
                release(&mut self.coalescer, before, &self.pool, out);
            }
            out.extend(self.coalescer.push(frame, &self.pool).map(|frame| (inner.vni, compact(frame, &self.pool))));
        }
        self.uncovered = uncovered;
        drop(datagrams);
        if let Some(vni) = vni_before {
            release(&mut self.coalescer, vni, &self.pool, out);
        }
    }

    /// What is encrypted is opened in place, which wants a buffer of our own.
    fn openable(&mut self, mut datagrams: Frame) -> Result<Frame, DropReason> {
        if !header::is_sealed(datagrams.bytes()) {
            return Ok(datagrams);
        }
        own(&mut datagrams, 0, 0, &self.pool).inspect_err(|reason| self.count(None, *reason))?;
        Ok(datagrams)
    }

    /// The inner frame of the datagram at `range`.
    fn uncover(&mut self, outer: Outer, datagrams: &mut Frame, range: Range<usize>, now: Instant) -> Result<Uncovered, DropReason> {
        let vni = header::parse(&datagrams.bytes()[range.clone()]).inspect_err(|reason| self.count(None, *reason))?;
        let inner = self.open(vni, outer, datagrams, range.clone(), now);
        let (remote, inner) = inner.inspect_err(|reason| self.count(Some(vni), *reason))?;
        Ok(Uncovered { vni, remote, start: range.start + inner.start, length: inner.len() })
    }

    /// Who sent it, and where in it the inner frame is.
    fn open(&mut self, vni: Vni, outer: Outer, datagrams: &mut Frame, range: Range<usize>, now: Instant) -> Result<(SocketAddr, Range<usize>), DropReason> {
        let network = self.networks.get_mut(&vni).ok_or(DropReason::UnknownVni)?;
        let remote = network.sender(outer.from, self.config.port)?;
        let is_sealed = header::is_sealed(&datagrams.bytes()[range.clone()]);
        match (network.config.encrypted, is_sealed, &mut network.crypt) {
            (false, false, _) => Ok((remote, HEADER_LEN..range.len())),
            (false, true, _) => Err(DropReason::Sealed),
            (true, false, _) => Err(DropReason::ClearText),
            (true, true, None) => Err(DropReason::NoKey),
            // Of a train with a clear first one, which no node of ours sends.
            (true, true, Some(_)) if !datagrams.is_unique() => Err(DropReason::NoBuffer),
            (true, true, Some(crypt)) => Ok((remote, crypt.opening.open(outer.to.to_canonical(), &mut datagrams.bytes_mut()[range], now)?)),
        }
    }

    /// The inner frame out of the buffer, if it may enter the network.
    fn take(
        &mut self,
        inner: Uncovered,
        outer: Outer,
        frame: Frame,
        judge: impl Fn(Vni, &Parsed, &[u8]) -> Result<(), DropReason>,
        now: Instant,
    ) -> Result<Frame, DropReason> {
        self.admit(inner, outer, frame, judge, now).inspect_err(|reason| self.count(Some(inner.vni), *reason))
    }

    fn admit(
        &mut self,
        inner: Uncovered,
        outer: Outer,
        mut frame: Frame,
        judge: impl Fn(Vni, &Parsed, &[u8]) -> Result<(), DropReason>,
        now: Instant,
    ) -> Result<Frame, DropReason> {
        let network = self.networks.get_mut(&inner.vni).ok_or(DropReason::UnknownVni)?;
        frame.set_bounds(frame.headroom() + inner.start, inner.length);
        frame.offload = Offload::NONE;
        let parsed = Parsed::new(frame.bytes());
        let Some(parsed) = &parsed else { return Err(DropReason::InnerRunt) };
        let station = network.admit(parsed.ethernet.source, parsed.tags)?;
        judge(inner.vni, parsed, frame.bytes())?;
        ecn::mark(&mut frame, outer.ecn, &self.pool)?;
        network.learn(station, inner.remote, now);
        self.may_age |= network.remotes.learned_len() > 0;
        network.counters.frames_in += 1;
        network.counters.bytes_in += frame.len() as u64;
        Ok(frame)
    }
}

fn release(coalescer: &mut Coalescer, vni: Vni, pool: &Pool, out: &mut Vec<(Vni, Frame)>) {
    coalescer.drain(|frame| out.push((vni, compact(frame, pool))));
}

/// A frame that was not joined still shares the large buffer. A copy frees that, and can be written to; without a buffer for the
/// copy it stays as it is.
fn compact(frame: Frame, pool: &Pool) -> Frame {
    if frame.is_unique() {
        return frame;
    }
    let Some(mut copy) = pool.copy_of(frame.bytes()) else { return frame };
    copy.offload = frame.offload;
    copy
}
