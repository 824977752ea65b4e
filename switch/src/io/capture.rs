//! From capture records to pcapng blocks, and to whoever asked for them. A reader that is slow
//! loses frames, which are counted; the data plane never waits.

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use dataplane::{CaptureRecord, Direction};
use packet::{CaptureId, PortId, pcapng};

/// pcapng blocks, whole.
pub(crate) type CaptureBytes = Vec<u8>;

/// Blocks that may wait for the reader.
const BACKLOG: usize = 4096;

/// One running capture.
#[derive(Debug)]
pub(crate) struct CaptureWriter {
    id: CaptureId,
    epoch_ns: u64,
    /// Position is the pcapng interface id.
    interfaces: Vec<PortId>,
    sender: Sender<CaptureBytes>,
    lost: u64,
}

impl CaptureWriter {
    /// A capture whose section header is already with the reader.
    pub(crate) fn start(id: CaptureId, epoch_ns: u64) -> (Self, Receiver<CaptureBytes>) {
        let (sender, receiver) = bounded(BACKLOG);
        let mut block = Vec::new();
        pcapng::section_header(&mut block);
        drop(sender.try_send(block));
        (Self { id, epoch_ns, interfaces: Vec::new(), sender, lost: 0 }, receiver)
    }

    pub(crate) fn id(&self) -> CaptureId {
        self.id
    }

    pub(crate) fn has_interface(&self, port: PortId) -> bool {
        self.interfaces.contains(&port)
    }

    /// Describes a port; ports that come later are described before their first frame.
    pub(crate) fn add_interface(&mut self, port: PortId, name: &str) {
        let mut block = Vec::new();
        pcapng::interface(&mut block, name);
        // Without its description no frame of the port could be read: wait for the reader's place.
        if self.sender.try_send(block).is_ok() {
            self.interfaces.push(port);
        }
    }

    /// Writes one frame, with what is known of it. False when nobody reads any more.
    pub(crate) fn write(&mut self, record: &CaptureRecord, known: Option<String>) -> bool {
        let Some(interface) = self.interfaces.iter().position(|&port| port == record.port) else { return true };
        let inbound = record.direction == Direction::Ingress;
        let dropped = record.dropped.map(|reason| format!("dropped: {}", reason.name()));
        let lost = (self.lost > 0).then(|| format!("{} frames before this one were not captured: the reader is slow", self.lost));
        let comments: Vec<String> = [dropped, known, lost].into_iter().flatten().collect();
        let comment = (!comments.is_empty()).then(|| comments.join("; "));
        let mut block = Vec::with_capacity(record.frame.len() + 96);
        let interface = u32::try_from(interface).unwrap_or(u32::MAX);
        let at = self.epoch_ns.saturating_add(record.at.as_nanos());
        pcapng::packet(&mut block, interface, at, inbound, comment.as_deref(), record.frame.bytes());
        match self.sender.try_send(block) {
            Ok(()) => {
                self.lost = 0;
                true
            }
            Err(TrySendError::Full(_)) => {
                self.lost += 1;
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }
}
