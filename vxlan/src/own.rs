//! A frame that may be written to.

use packet::{Frame, Pool};

use crate::drop::DropReason;

/// `frame` itself when no other handle reads its bytes and so many are free before and behind it; else a copy.
///
/// # Errors
/// `no_buffer`.
#[inline]
pub(crate) fn own(frame: Frame, headroom: usize, tailroom: usize, pool: &Pool) -> Result<Frame, DropReason> {
    let is_ours = frame.is_unique() && frame.headroom() >= headroom && frame.capacity() >= frame.len() + tailroom;
    if is_ours { Ok(frame) } else { copied(&frame, tailroom, pool) }
}

#[cold]
fn copied(frame: &Frame, tailroom: usize, pool: &Pool) -> Result<Frame, DropReason> {
    let mut copy = pool.take_for(frame.len() + tailroom).ok_or(DropReason::NoBuffer)?;
    copy.set_len(frame.len());
    copy.bytes_mut().copy_from_slice(frame.bytes());
    copy.offload = frame.offload;
    Ok(copy)
}
