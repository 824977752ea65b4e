//! Fits a frame to the port it leaves by: VLAN tag, MTU, segments, checksum. Only a fitted frame
//! can be queued, so a super-frame cannot leak to a wire.

use packet::{Checksum, ETHERNET_LEN, EthernetView, Frame, Gso, Parsed, Pool, SegmentError, TAG_LEN, checksum, ethertype, longest_segment, segment};

use crate::{
    drop::DropReason,
    outbox::Sendable,
    port::Capabilities,
    vlan::{Membership, TagEdit},
};

/// What fitting needs to know of the port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fit {
    pub(crate) mtu: usize,
    pub(crate) capabilities: Capabilities,
}

impl Fit {
    pub(crate) fn new(mtu: u32, capabilities: Capabilities) -> Self {
        Self { mtu: mtu as usize, capabilities }
    }

    /// Fits `frame` and gives the result, or its segments, to `sink`.
    ///
    /// # Errors
    /// The reason to drop it; segments given so far stand.
    #[inline]
    pub(crate) fn fit(
        self,
        mut frame: Frame,
        membership: Membership,
        edit: TagEdit,
        pool: &Pool,
        mut sink: impl FnMut(Sendable),
    ) -> Result<(), DropReason> {
        if edit != TagEdit::Keep {
            if !frame.make_unique() {
                return Err(DropReason::NoBuffer);
            }
            membership.apply(edit, &mut frame);
        }
        if frame.len() > self.mtu + ETHERNET_LEN {
            self.check_length(&frame)?;
        }
        if frame.offload.is_none() || self.takes(&frame) {
            sink(Sendable::new(frame));
            return Ok(());
        }
        self.finish(frame, pool, sink)
    }

    /// What counts against the MTU is the packet; of a super-frame, its longest segment's. Up to two
    /// tags are not part of it (IEEE 802.3: the envelope frame).
    pub(crate) fn check_length(self, frame: &Frame) -> Result<(), DropReason> {
        let length = match frame.offload.gso {
            Gso::None => frame.len(),
            Gso::Tcp4 { .. } | Gso::Tcp6 { .. } | Gso::Udp { .. } => longest_segment(frame).ok_or(DropReason::CannotSegment)?,
        };
        if length > self.mtu + l2_len(frame.bytes()) { Err(DropReason::TooBig) } else { Ok(()) }
    }

    fn takes(self, frame: &Frame) -> bool {
        let has = self.capabilities;
        let gso = match frame.offload.gso {
            Gso::None => true,
            Gso::Tcp4 { .. } => has.tso4,
            Gso::Tcp6 { .. } => has.tso6,
            Gso::Udp { .. } => has.uso,
        };
        gso && (has.checksum || frame.offload.checksum == Checksum::Complete)
    }

    fn finish(self, mut frame: Frame, pool: &Pool, mut sink: impl FnMut(Sendable)) -> Result<(), DropReason> {
        if frame.offload.gso != Gso::None {
            return segment(&frame, pool, |segment| sink(Sendable::new(segment))).map_err(|error| match error {
                SegmentError::Malformed => DropReason::CannotSegment,
                SegmentError::NoBuffer => DropReason::NoBuffer,
            });
        }
        if !frame.make_unique() {
            return Err(DropReason::NoBuffer);
        }
        checksum::complete(&mut frame);
        sink(Sendable::new(frame));
        Ok(())
    }
}

/// Length of the Ethernet header with its tags, bytes.
fn l2_len(bytes: &[u8]) -> usize {
    match EthernetView::new(bytes) {
        Some(view) if matches!(view.ethertype, ethertype::CTAG | ethertype::STAG) => {
            Parsed::new(bytes).map_or(ETHERNET_LEN + TAG_LEN, |parsed| parsed.l3_offset)
        }
        _ => ETHERNET_LEN,
    }
}
