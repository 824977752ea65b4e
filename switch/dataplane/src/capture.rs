//! Which frames are copied to captures, and in which form.

use packet::{CaptureId, Frame, Gso, Instant, NetworkId, Pool, PortId, SegmentError, checksum, segment};

use crate::{
    command::{CaptureConfig, CaptureScope},
    drop::DropReason,
    outbox::{CaptureRecord, Direction, Outbox},
    slots::Slots,
};

/// A frame on its way by a port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sighting {
    pub(crate) port: PortId,
    pub(crate) network: NetworkId,
    pub(crate) direction: Direction,
    pub(crate) at: Instant,
    pub(crate) dropped: Option<DropReason>,
}

/// Copies `frame` to each capture that looks there.
pub(crate) fn record(captures: &Slots<CaptureConfig>, sighting: Sighting, frame: &Frame, pool: &Pool, out: &mut Outbox) {
    for (index, generation, config) in captures.iter() {
        let looks = match config.scope {
            CaptureScope::All => true,
            CaptureScope::Network(network) => network == sighting.network,
            CaptureScope::Port(port) => port == sighting.port,
        };
        if !looks || config.filter.as_ref().is_some_and(|filter| !filter.matches(frame.bytes())) {
            continue;
        }
        let id = CaptureId::new(index, generation);
        let mut push = |frame: Frame| {
            out.capture(CaptureRecord {
                capture: id,
                port: sighting.port,
                direction: sighting.direction,
                at: sighting.at,
                dropped: sighting.dropped,
                frame,
            });
        };
        if config.whole || frame.offload.is_none() {
            push(frame.share());
        } else if frame.offload.gso != Gso::None {
            match segment(frame, pool, &mut push) {
                Ok(()) => {}
                Err(SegmentError::Malformed) => push(frame.share()),
                Err(SegmentError::NoBuffer) => out.captures_missed += 1,
            }
        } else {
            let mut copy = frame.share();
            if copy.make_unique() {
                checksum::complete(&mut copy);
            }
            push(copy);
        }
    }
}
