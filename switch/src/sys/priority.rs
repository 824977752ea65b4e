//! The data plane goes before those it serves: a frame that waits for a time slice is late. Other work may wait.

/// Time slice that the data-plane thread asks for, nanoseconds: a thread that wakes up with a short
/// slice preempts those with longer ones (EEVDF since Linux 6.12, `sched_runtime` of sched_setattr(2)).
/// It is a matter of when, not of how much: the share of the CPU stays fair, and no privilege is needed.
const SLICE_NS: u64 = 100_000;

/// Asks for quick wake-ups of the calling thread. On kernels that do not know it nothing changes.
pub(crate) fn raise() {
    set(libc::SCHED_OTHER, SLICE_NS);
}

/// Lets the calling thread run only while nobody else wants its processor (SCHED_IDLE, sched(7)).
pub(crate) fn lower() {
    set(libc::SCHED_IDLE, 0);
}

fn set(policy: libc::c_int, slice: u64) {
    // SAFETY: sched_attr is plain data for which zero is valid.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    attributes.size = u32::try_from(size_of::<libc::sched_attr>()).unwrap_or_default();
    attributes.sched_policy = policy.cast_unsigned();
    attributes.sched_runtime = slice;
    // SAFETY: the structure outlives the call; 0 is the calling thread, and there are no flags.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}
