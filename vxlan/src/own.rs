//! A frame that may be written to.

use packet::{Frame, Pool};

use crate::drop::DropReason;

/// `frame` itself when no other handle reads its bytes and `headroom` bytes are free before it; else a copy.
///
/// # Errors
/// `no_buffer`.
pub(crate) fn own(frame: Frame, headroom: usize, pool: &Pool) -> Result<Frame, DropReason> {
    if frame.is_unique() && frame.headroom() >= headroom {
        return Ok(frame);
    }
    let mut copy = pool.copy_of(frame.bytes()).ok_or(DropReason::NoBuffer)?;
    copy.offload = frame.offload;
    Ok(copy)
}
