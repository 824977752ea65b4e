//! Datagrams of the underlay into frames.

use std::net::SocketAddr;

use packet::{Coalescer, Frame, Instant, Offload, Parsed, Pool, Vni};

use crate::{
    drop::DropReason,
    ecn,
    header::{self, HEADER_LEN},
    vtep::Vtep,
};

/// Frames a buffer of UDP_GRO can hold are joined in a window of so many.
pub(crate) const WINDOW_FRAMES: usize = 64;

/// What the outer headers said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Source address and port.
    pub from: SocketAddr,
    /// Congestion field (RFC 6040), the low two bits of the traffic class; 0 when the shell does not know.
    pub ecn: u8,
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
        let vni = match header::parse(datagram.bytes()) {
            Ok(vni) => vni,
            Err(reason) => {
                self.count(None, reason);
                return Err(reason);
            }
        };
        let frame = self.open(vni, outer, datagram, judge, now);
        if let Err(reason) = frame {
            self.count(Some(vni), reason);
        }
        frame.map(|frame| (vni, frame))
    }

    fn open(
        &mut self,
        vni: Vni,
        outer: Outer,
        mut frame: Frame,
        judge: impl Fn(Vni, &Parsed, &[u8]) -> Result<(), DropReason>,
        now: Instant,
    ) -> Result<Frame, DropReason> {
        let network = self.networks.get_mut(&vni).ok_or(DropReason::UnknownVni)?;
        let remote = network.sender(outer.from, self.config.port)?;
        frame.pull(HEADER_LEN);
        frame.offload = Offload::NONE;
        let parsed = Parsed::new(frame.bytes()).ok_or(DropReason::InnerRunt)?;
        let station = network.admit(&parsed)?;
        judge(vni, &parsed, frame.bytes())?;
        let frame = ecn::mark(frame, outer.ecn, &self.pool)?;
        network.learn(station, remote, now);
        self.may_age |= network.remotes.learned_len() > 0;
        network.counters.frames_in += 1;
        network.counters.bytes_in += frame.len() as u64;
        Ok(frame)
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
        let mut vni_before = None;
        for start in (0..datagrams.len()).step_by(segment) {
            let mut datagram = datagrams.share();
            datagram.set_bounds(datagrams.headroom() + start, segment.min(datagrams.len() - start));
            let Ok((vni, frame)) = self.decap(outer, datagram, &judge, now) else { continue };
            // The coalescer knows flows, but not that two VNIs may have the same.
            if let Some(before) = vni_before.replace(vni).filter(|before| *before != vni) {
                release(&mut self.coalescer, before, &self.pool, out);
            }
            out.extend(self.coalescer.push(frame, &self.pool).map(|frame| (vni, compact(frame, &self.pool))));
        }
        drop(datagrams);
        if let Some(vni) = vni_before {
            release(&mut self.coalescer, vni, &self.pool, out);
        }
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
