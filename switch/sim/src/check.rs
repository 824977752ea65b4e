//! What must hold after every frame, whatever the scenario.

use dataplane::{Outbox, PortView};
use packet::{PortId, checksum};

/// Checks one frame's way through one switch.
///
/// # Panics
/// When an invariant is broken; the message holds the seed and the time, which repeat the run.
pub(crate) fn frame_went_one_way(context: &str, ingress: PortId, before: &PortView, after: &PortView, all: &[PortView], out: &Outbox) {
    let dropped = after.counters.drops.total() - before.counters.drops.total();
    let queued = out.frames.len();
    assert!(
        (queued > 0) != (dropped > 0) && dropped <= 1,
        "{context}: a frame from {ingress} was queued {queued} times and dropped {dropped} times"
    );
    for (port, sendable) in &out.frames {
        assert!(*port != ingress, "{context}: {ingress} got its own frame back");
        let Some(target) = all.iter().find(|view| view.id == *port) else { panic!("{context}: queued to {port}, which is not there") };
        assert!(target.config.up, "{context}: queued to {port}, which is down");
        assert_eq!(target.config.network, after.config.network, "{context}: crossed to another network");
        let (one, other) = (&after.config, &target.config);
        assert!(!(one.isolated && other.isolated), "{context}: {ingress} and {port} are isolated");
        assert!(one.horizon.is_none() || one.horizon != other.horizon, "{context}: crossed a horizon group");
        let frame = sendable.frame();
        if frame.offload.is_none() {
            assert!(checksum::verify(frame.bytes()), "{context}: a wrong checksum leaves by {port}");
        }
    }
}
