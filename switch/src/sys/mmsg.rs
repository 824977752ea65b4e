//! Batches of frames through a packet socket: recvmmsg(2) and sendmmsg(2) with PACKET_AUXDATA.

use std::{
    io,
    mem::{MaybeUninit, zeroed},
    os::fd::RawFd,
    ptr,
};

use packet::{BufferClass, Frame, HEADROOM, Pool, VIRTIO_NET_HDR_LEN};

use super::ring::StrippedTag;

/// Frames per system call.
pub(crate) const BATCH: usize = 32;
/// Room for one `struct tpacket_auxdata` control message: CMSG_SPACE(20).
const CONTROL: usize = 40;
const START: usize = HEADROOM - VIRTIO_NET_HDR_LEN;

/// Finds the VLAN tag in control messages (packet(7), PACKET_AUXDATA). Layout of
/// `struct tpacket_auxdata`: status u32, len u32, snaplen u32, mac u16, net u16, vlan_tci u16, vlan_tpid u16.
pub(crate) fn stripped_tag(control: &[u8]) -> Option<StrippedTag> {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    let word = |at: usize| Some(i32::from_ne_bytes(*control.get(at..at + 4)?.first_chunk()?));
    if word(8)? != libc::SOL_PACKET || word(12)? != libc::PACKET_AUXDATA {
        return None;
    }
    let data = control.get(HEADER..)?;
    let status = u32::from_ne_bytes(*data.first_chunk()?);
    let half = |at: usize| Some(u16::from_ne_bytes(*data.get(at..at + 2)?.first_chunk()?));
    if status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let tpid = if status & libc::TP_STATUS_VLAN_TPID_VALID == 0 { 0x8100 } else { half(18)? };
    Some(StrippedTag { tpid, tci: half(16)? })
}

/// Reusable arrays for recvmmsg.
pub(crate) struct Receiver {
    headers: Box<[libc::mmsghdr; BATCH]>,
    vectors: Box<[libc::iovec; BATCH]>,
    control: Box<[[u64; CONTROL / 8]; BATCH]>,
    frames: [Option<Frame>; BATCH],
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Receiver")
    }
}

impl Receiver {
    /// Empty arrays.
    pub(crate) fn new() -> Self {
        // SAFETY: mmsghdr and iovec are plain data for which zero is valid.
        let (headers, vectors) = unsafe { (Box::new(zeroed()), Box::new(zeroed())) };
        Self { headers, vectors, control: Box::new([[0; CONTROL / 8]; BATCH]), frames: [const { None }; BATCH] }
    }

    /// Receives up to a batch; each frame starts with its virtio header, if the port has one.
    ///
    /// # Errors
    /// As recvmmsg(2); would-block when there is nothing.
    pub(crate) fn receive(
        &mut self,
        fd: RawFd,
        pool: &Pool,
        mut each: impl FnMut(Frame, Option<StrippedTag>),
    ) -> io::Result<usize> {
        let mut offered = 0;
        for (index, slot) in self.frames.iter_mut().enumerate() {
            if slot.is_none() {
                *slot = pool.take(BufferClass::Large);
            }
            let Some(frame) = slot else { break };
            let storage = &mut frame.storage_mut()[START..];
            self.vectors[index] = libc::iovec { iov_base: storage.as_mut_ptr().cast(), iov_len: storage.len() };
            let header = &mut self.headers[index].msg_hdr;
            header.msg_iov = &raw mut self.vectors[index];
            header.msg_iovlen = 1;
            header.msg_control = self.control[index].as_mut_ptr().cast();
            header.msg_controllen = CONTROL;
            offered = index + 1;
        }
        if offered == 0 {
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        }
        // SAFETY: the first `offered` headers point at vectors, buffers and control space that `self`
        // owns, unshared, for the length of the call.
        let received = unsafe {
            libc::recvmmsg(fd, self.headers.as_mut_ptr(), len32(offered), libc::MSG_DONTWAIT, ptr::null_mut())
        };
        let Ok(received) = usize::try_from(received) else { return Err(io::Error::last_os_error()) };
        for index in 0..received {
            let length = self.headers[index].msg_len as usize;
            let tag = control_tag(&self.control[index], self.headers[index].msg_hdr.msg_controllen);
            if let Some(mut frame) = self.frames[index].take() {
                frame.set_bounds(START, length);
                each(frame, tag);
            }
        }
        Ok(received)
    }
}

fn control_tag(control: &[u64; CONTROL / 8], length: usize) -> Option<StrippedTag> {
    let mut bytes = [0; CONTROL];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(control) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    stripped_tag(bytes.get(..length)?)
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
