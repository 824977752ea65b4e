//! The data plane goes before those it serves: a frame that waits for a time slice is late.

/// Nice value of the data-plane thread, where the system allows it.
const NICE: i32 = -15;

/// Raises the priority of the calling thread (setpriority(2)). Without the privilege nothing changes.
pub(crate) fn raise() {
    // SAFETY: plain arguments; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}
