//! Every capacity and lifetime of the data plane that is not protocol law.

use packet::Duration;

/// Slots an FDB starts with; it doubles as needed up to its capacity.
pub(crate) const FDB_FIRST_SLOTS: usize = 64;
/// Slots looked at for an entry to evict.
pub(crate) const FDB_EVICT_WINDOW: usize = 64;
/// Slots looked at in one ageing step, so that a step is short whatever the size of the table.
pub(crate) const FDB_SWEEP_SLOTS: usize = 4096;
/// Ageing steps through a table happen this many times in one ageing time. Idle entries are not
/// used after the ageing time whether swept or not.
pub(crate) const FDB_SWEEPS: u32 = 8;
/// Events of one kind from one port or network, at most one in this while.
pub(crate) const EVENT_INTERVAL: Duration = Duration::from_secs(1);
/// Captures running at once.
pub(crate) const MAX_CAPTURES: usize = 64;
/// Events between two drains of an outbox: a MAC flood learns an address with each frame.
pub(crate) const OUTBOX_EVENTS: usize = 1024;
/// Capture records between two drains of an outbox. They hold buffers of the pool.
pub(crate) const OUTBOX_CAPTURES: usize = 16_384;
/// Frames for the uplink between two drains of an outbox.
pub(crate) const OUTBOX_OUTSIDE: usize = 4096;
/// DHCP leases of one network. One that has ended makes room for a new one.
pub(crate) const DHCP_LEASES: usize = 16_384;
/// Addresses looked at for one that was never leased, in one step.
pub(crate) const DHCP_STEPS: usize = 1024;
