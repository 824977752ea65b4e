//! Batches of frames through a packet socket: recvmmsg(2) and sendmmsg(2) with PACKET_AUXDATA.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{BorrowedFd, RawFd},
};

use packet::{Frame, HEADROOM, Pool, VIRTIO_NET_HDR_LEN};

use super::{
    batch::{Batch, Control},
    ring::StrippedTag,
};

/// Frames per system call.
pub(crate) const BATCH: usize = 32;
/// Room for one `struct tpacket_auxdata` control message: CMSG_SPACE(20).
const CONTROL: usize = 40;
const START: usize = HEADROOM - VIRTIO_NET_HDR_LEN;

/// Finds the VLAN tag in control messages (packet(7), PACKET_AUXDATA). Layout of
/// `struct tpacket_auxdata`: status u32, len u32, snaplen u32, mac u16, net u16, vlan_tci u16, vlan_tpid u16.
pub(super) fn stripped_tag(mut control: Control<'_>) -> Option<StrippedTag> {
    let (_, _, data) = control.find(|(level, kind, _)| (*level, *kind) == (libc::SOL_PACKET, libc::PACKET_AUXDATA))?;
    let status = u32::from_ne_bytes(*data.first_chunk()?);
    let half = |at: usize| Some(u16::from_ne_bytes(*data.get(at..at + 2)?.first_chunk()?));
    if status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let tpid = if status & libc::TP_STATUS_VLAN_TPID_VALID == 0 { 0x8100 } else { half(18)? };
    Some(StrippedTag { tpid, tci: half(16)? })
}

/// Receives from packet sockets.
#[derive(Debug)]
pub(crate) struct Receiver(Batch<BATCH, CONTROL>);

impl Receiver {
    /// Empty arrays.
    pub(crate) fn new() -> Self {
        Self(Batch::new(START, false))
    }

    /// Receives up to a batch, and answers how many; each frame starts with its virtio header, if the port has one.
    ///
    /// # Errors
    /// As recvmmsg(2); would-block when there is nothing.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>, pool: &Pool, mut each: impl FnMut(Frame, Option<StrippedTag>)) -> io::Result<usize> {
        self.0.receive(socket, pool, |message| each(message.frame, stripped_tag(message.control))).map(|(count, _)| count)
    }
}

/// Sends `frames` with their virtio headers; answers how many the device took.
///
/// # Errors
/// As sendmmsg(2), about the first frame.
pub(crate) fn send(fd: RawFd, frames: &[(Frame, [u8; VIRTIO_NET_HDR_LEN])], header_len: usize) -> io::Result<usize> {
    let mut headers: [MaybeUninit<libc::mmsghdr>; BATCH] = [const { MaybeUninit::zeroed() }; BATCH];
    let mut vectors: [MaybeUninit<[libc::iovec; 2]>; BATCH] = [const { MaybeUninit::zeroed() }; BATCH];
    let count = frames.len().min(BATCH);
    for (index, (frame, virtio)) in frames.iter().take(count).enumerate() {
        let bytes = frame.bytes();
        let pair = vectors[index].write([
            libc::iovec { iov_base: virtio.as_ptr().cast_mut().cast(), iov_len: header_len },
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() },
        ]);
        // SAFETY: a zeroed mmsghdr is a valid one.
        let header = unsafe { headers[index].assume_init_mut() };
        header.msg_hdr.msg_iov = pair.as_mut_ptr();
        header.msg_hdr.msg_iovlen = 2;
    }
    // SAFETY: the first `count` headers are set, and all they point at outlives the call.
    let sent = unsafe { libc::sendmmsg(fd, headers.as_mut_ptr().cast(), len32(count), libc::MSG_DONTWAIT) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn len32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
