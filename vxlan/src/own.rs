//! A frame that may be written to.

use packet::{Frame, Pool};

use crate::drop::DropReason;

/// Leaves `frame` as it is when no other handle reads its bytes and so many are free before and behind it; else makes
/// it a copy.
///
/// # Errors
/// `no_buffer`.
#[inline(always)]
#[expect(clippy::inline_always, reason = "on every frame's way; counted")]
pub(crate) fn own(frame: &mut Frame, headroom: usize, tailroom: usize, pool: &Pool) -> Result<(), DropReason> {
    let is_ours = frame.is_unique() && frame.headroom() >= headroom && frame.capacity() >= frame.len() + tailroom;
    if is_ours { Ok(()) } else { copy(frame, tailroom, pool) }
}

#[cold]
fn copy(frame: &mut Frame, tailroom: usize, pool: &Pool) -> Result<(), DropReason> {
    let mut copy = pool.take_for(frame.len() + tailroom).ok_or(DropReason::NoBuffer)?;
    copy.set_len(frame.len());
    copy.bytes_mut().copy_from_slice(frame.bytes());
    copy.offload = frame.offload;
    *frame = copy;
    Ok(())
}
