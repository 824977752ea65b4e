//! What the compiler cannot know of a frame's way: which branches the many take. It lays their way out straight,
//! and inlines on it what it otherwise takes for too rarely called.

use crate::drop::DropReason;

#[cold]
const fn rare() {}

/// A condition that few frames meet.
#[inline(always)]
#[expect(clippy::inline_always, reason = "no code of its own")]
pub(crate) const fn unlikely(condition: bool) -> bool {
    if condition {
        rare();
    }
    condition
}

/// A reason for which few frames are dropped.
#[cold]
#[inline(never)]
pub(crate) const fn rarely(reason: DropReason) -> DropReason {
    reason
}
