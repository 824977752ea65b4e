//! Reusable arrays for recvmmsg(2): up to a batch of messages into pooled buffers, with their control messages and,
//! where wanted, who sent them.

use std::{
    io,
    mem::{size_of, zeroed},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use packet::{BufferClass, Frame, Pool};

/// Bytes of a control message's header.
pub(super) const HEADER: usize = size_of::<libc::cmsghdr>();
/// Room for any address.
#[expect(clippy::cast_possible_truncation, reason = "128")]
const NAME: libc::socklen_t = size_of::<libc::sockaddr_storage>() as libc::socklen_t;

/// A message as it came.
pub(super) struct Message<'a> {
    pub(super) frame: Frame,
    pub(super) control: Control<'a>,
    /// Who sent it, and how long that address is; of length 0 unless wanted.
    pub(super) name: (&'a libc::sockaddr_storage, libc::socklen_t),
}

/// Aligned as control messages need it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Space<const ROOM: usize>([u8; ROOM]);

/// Room for `COUNT` messages with `ROOM` bytes of control messages each.
pub(super) struct Batch<const COUNT: usize, const ROOM: usize> {
    headers: Box<[libc::mmsghdr; COUNT]>,
    vectors: Box<[libc::iovec; COUNT]>,
    names: Box<[libc::sockaddr_storage; COUNT]>,
    control: Box<[Space<ROOM>; COUNT]>,
    frames: [Option<Frame>; COUNT],
    /// Where in a buffer the kernel writes.
    start: usize,
    wants_names: bool,
}

impl<const COUNT: usize, const ROOM: usize> std::fmt::Debug for Batch<COUNT, ROOM> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Batch")
    }
}

impl<const COUNT: usize, const ROOM: usize> Batch<COUNT, ROOM> {
    /// Messages begin at `start` of their buffers.
    pub(super) fn new(start: usize, wants_names: bool) -> Self {
        // SAFETY: plain data for which zero is valid.
        let (headers, vectors, names) = unsafe { (Box::new(zeroed()), Box::new(zeroed()), Box::new(zeroed())) };
        Self { headers, vectors, names, control: Box::new([Space([0; ROOM]); COUNT]), frames: [const { None }; COUNT], start, wants_names }
    }

    /// Receives up to a batch: how many, and whether more may wait.
    ///
    /// # Errors
    /// As recvmmsg(2); would-block when there is nothing, no buffer space when the pool is empty.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>, pool: &Pool, mut each: impl FnMut(Message<'_>)) -> io::Result<(usize, bool)> {
        let offered = self.offer(pool);
        if offered == 0 {
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        }
        let count = u32::try_from(offered).unwrap_or_default();
        // SAFETY: the first `offered` headers point at names, vectors, buffers and control space that `self`
        // owns, unshared, for the length of the call.
        let received = unsafe { libc::recvmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), count, libc::MSG_DONTWAIT, ptr::null_mut()) };
        let Ok(received) = usize::try_from(received) else { return Err(io::Error::last_os_error()) };
        for index in 0..received {
            let (header, length) = (&self.headers[index].msg_hdr, self.headers[index].msg_len as usize);
            let Some(mut frame) = self.frames[index].take() else { continue };
            frame.set_bounds(self.start, length);
            let control = Control::new(self.control[index].0.get(..header.msg_controllen).unwrap_or_default());
            each(Message { frame, control, name: (&self.names[index], header.msg_namelen) });
        }
        Ok((received, received == offered))
    }

    fn offer(&mut self, pool: &Pool) -> usize {
        for index in 0..COUNT {
            let frame = match &mut self.frames[index] {
                Some(frame) => frame,
                none => match pool.take(BufferClass::Large) {
                    Some(frame) => none.insert(frame),
                    None => return index,
                },
            };
            let storage = &mut frame.storage_mut()[self.start..];
            self.vectors[index] = libc::iovec { iov_base: storage.as_mut_ptr().cast(), iov_len: storage.len() };
            let header = &mut self.headers[index].msg_hdr;
            if self.wants_names {
                (header.msg_name, header.msg_namelen) = ((&raw mut self.names[index]).cast(), NAME);
            }
            (header.msg_iov, header.msg_iovlen) = (&raw mut self.vectors[index], 1);
            (header.msg_control, header.msg_controllen) = (self.control[index].0.as_mut_ptr().cast(), ROOM);
        }
        COUNT
    }
}

/// Control messages, one behind the other (cmsg(3)): level, type, and data (behind which comes what follows).
pub(super) struct Control<'a>(&'a [u8]);

impl<'a> Control<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Control<'a> {
    type Item = (i32, i32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let data = self.0.get(HEADER..)?;
        let word = |at: usize| Some(i32::from_ne_bytes(*self.0.get(at..)?.first_chunk()?));
        // The length is a size_t, and small.
        let (length, level, kind) = (usize::try_from(word(0)?).ok()?, word(8)?, word(12)?);
        self.0 = self.0.get(length.max(HEADER).next_multiple_of(8)..).unwrap_or_default();
        Some((level, kind, data))
    }
}
