//! What one turn of the switch produced, for the shell to carry out.

use packet::{CaptureId, Frame, Instant, NetworkId, PortId};

use crate::{
    command::Event,
    drop::DropReason,
    hint::rarely,
    limits::{OUTBOX_CAPTURES, OUTBOX_EVENTS, OUTBOX_OUTSIDE},
};

/// A frame that was fitted to the port it leaves by: cut, finished and within the MTU as needed.
/// Made only by the egress stage, so that a super-frame cannot leak to a wire.
#[derive(Debug)]
pub struct Sendable(Frame);

impl Sendable {
    pub(crate) fn new(frame: Frame) -> Self {
        Self(frame)
    }

    /// The frame, to write.
    #[must_use]
    pub fn into_frame(self) -> Frame {
        self.0
    }

    /// The frame, to look at.
    #[must_use]
    pub fn frame(&self) -> &Frame {
        &self.0
    }
}

/// Into or out of the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Received on the port.
    Ingress,
    /// Leaving by the port.
    Egress,
}

/// A frame to copy to a capture.
#[derive(Debug)]
pub struct CaptureRecord {
    /// The capture it is for.
    pub capture: CaptureId,
    /// The port it was seen on.
    pub port: PortId,
    /// Which way it went.
    pub direction: Direction,
    /// When.
    pub at: Instant,
    /// Set when the frame went no further.
    pub dropped: Option<DropReason>,
    /// The frame, shared; a super-frame unless the capture asked for wire size.
    pub frame: Frame,
}

/// Outputs of a turn. Bounded: at [`frame_capacity`](Self::new) further frames are refused, and the
/// switch counts them as [`DropReason::EgressFull`]; capture records and events beyond their bounds are
/// only counted.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Frames to write, in order.
    pub frames: Vec<(PortId, Sendable)>,
    /// Frames to copy to captures.
    pub captures: Vec<CaptureRecord>,
    /// Frames for the uplink: a gateway took them, and checked what a router checks.
    pub outside: Vec<(NetworkId, Frame)>,
    /// What control should know.
    pub events: Vec<Event>,
    /// Capture records there was no room for, ever.
    pub captures_missed: u64,
    /// Events there was no room for, ever.
    pub events_missed: u64,
    frame_capacity: usize,
}

impl Outbox {
    /// An outbox for at most this many frames between two drains.
    #[must_use]
    pub fn new(frame_capacity: usize) -> Self {
        Self { frames: Vec::with_capacity(frame_capacity.min(4096)), frame_capacity, ..Self::default() }
    }

    /// Queues a frame, if there is room; else it is gone.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "on every frame's way; counted")]
    pub(crate) fn push(&mut self, port: PortId, frame: Sendable) -> Result<(), DropReason> {
        if self.frames.len() >= self.frame_capacity {
            return Err(rarely(DropReason::EgressFull));
        }
        self.frames.push((port, frame));
        Ok(())
    }

    /// Queues a frame for the uplink, if there is room.
    #[inline]
    pub(crate) fn push_outside(&mut self, network: NetworkId, frame: Frame) -> Result<(), DropReason> {
        if self.outside.len() >= OUTBOX_OUTSIDE {
            return Err(rarely(DropReason::NoUplink));
        }
        self.outside.push((network, frame));
        Ok(())
    }

    /// Tells control something, if there is room.
    pub(crate) fn tell(&mut self, event: Event) {
        if self.events.len() < OUTBOX_EVENTS {
            self.events.push(event);
        } else {
            self.events_missed += 1;
        }
    }

    /// Queues a frame for a capture, if there is room.
    pub(crate) fn capture(&mut self, record: CaptureRecord) {
        if self.captures.len() < OUTBOX_CAPTURES {
            self.captures.push(record);
        } else {
            self.captures_missed += 1;
        }
    }

    /// True when nothing is left to carry out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.outside.is_empty() && self.captures.is_empty() && self.events.is_empty()
    }
}
