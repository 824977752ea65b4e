//! An io_uring with a ring of provided buffers, behind a safe face.
//!
//! Reads are multishot: one request per port, and each completion names the pooled buffer that the
//! kernel filled. Writes own their frame until they complete. TAP writes finish within the system
//! call that submits them, so a turn's writes cost one call.
//!
//! What the kernel may touch at any time, and therefore must not move or be freed before the ring
//! is gone: the buffer ring, the buffers it lists (`BufferRing::frames`), and the write slots in use.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    ptr,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use nix::sys::eventfd::{EfdFlags, EventFd};
use packet::{BufferClass, Frame, HEADROOM, Pool, VIRTIO_NET_HDR_LEN};

/// Where in a buffer the kernel starts to write: such that the IP header of a frame behind a virtio
/// header, or behind a recvmsg preamble and a virtio header, is on an eight-byte boundary.
const START: usize = HEADROOM - 72;
/// `struct io_uring_recvmsg_out` (io_uring_prep_recvmsg_multishot(3)): four u32.
const RECVMSG_OUT: usize = 16;
/// Room for one `struct tpacket_auxdata` control message: CMSG_SPACE(20).
const CONTROL: usize = 40;
const BUFFER_GROUP: u16 = 0;
const NO_BUFFER: u16 = u16::MAX;

const KIND_READ: u64 = 1;
const KIND_WRITE: u64 = 2;
const KIND_CANCEL: u64 = 3;

/// Sizes of a ring; powers of two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingConfig {
    /// Submission queue entries: writes in flight at most.
    pub(crate) entries: u16,
    /// Buffers offered to the kernel.
    pub(crate) buffers: u16,
}

impl Default for RingConfig {
    fn default() -> Self {
        // More buffers hold longer bursts; fewer stay in the cache: 64 measured best.
        Self { entries: 512, buffers: 64 }
    }
}

/// Something the kernel finished.
#[derive(Debug)]
pub(crate) enum Completion {
    /// A frame arrived.
    Read {
        /// As given to [`Ring::arm_read`].
        token: u32,
        /// Starts with the virtio header, if the port has one.
        frame: Frame,
        /// For packet sockets: the VLAN tag that the kernel took off.
        tag: Option<StrippedTag>,
        /// False when the read must be armed again.
        armed: bool,
    },
    /// A read ended without a frame.
    ReadEnded {
        /// As given to [`Ring::arm_read`].
        token: u32,
        /// Zero at end of file.
        errno: i32,
    },
    /// The device refused a frame. Frames that it took are not reported.
    Refused {
        /// As given to [`Ring::write`].
        token: u32,
        /// Given back.
        frame: Frame,
        /// Why, as write(2).
        errno: i32,
    },
}

/// A VLAN tag that the kernel moved from the frame to the control message (packet(7), PACKET_AUXDATA).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StrippedTag {
    /// 0x8100 or 0x88a8.
    pub(crate) tpid: u16,
    /// Priority, DEI and VLAN id.
    pub(crate) tci: u16,
}

/// How a port's frames come out of its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadKind {
    /// read(2) of virtio header and frame, or of a bare frame.
    Tap,
    /// recvmsg(2) with PACKET_AUXDATA.
    Packet,
}

struct WriteSlot {
    frame: Option<Frame>,
    token: u32,
    header: [u8; VIRTIO_NET_HDR_LEN],
    vectors: [libc::iovec; 2],
}

/// See the module.
pub(crate) struct Ring {
    // Dropped first: from then on the kernel touches nothing below.
    ring: IoUring,
    /// Signalled when there is work and nobody is looking. (With deferred task work the ring's own
    /// descriptor does not become readable.)
    doorbell: EventFd,
    buffers: BufferRing,
    slots: Box<[WriteSlot]>,
    free_slots: Vec<u32>,
    message: Box<libc::msghdr>,
    queued: u32,
    /// Completions taken off the ring while making room for writes.
    backlog: VecDeque<Completion>,
    pool: Pool,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ring({} writes in flight, {} queued)", self.slots.len() - self.free_slots.len(), self.queued)
    }
}

impl Ring {
    /// Sets up the ring and registers its buffers. Must be used only by the thread that made it.
    ///
    /// # Errors
    /// When the kernel lacks or forbids io_uring, multishot reads or provided buffers.
    pub(crate) fn new(pool: &Pool, config: RingConfig) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(u32::from(config.entries) * 8)
            .build(u32::from(config.entries))?;
        let mut probe = io_uring::Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::ReadMulti::CODE) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "no multishot read (needs Linux 6.7)"));
        }
        let doorbell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        ring.submitter().register_eventfd(doorbell.as_fd().as_raw_fd())?;
        let buffers = BufferRing::register(&ring, pool, config.buffers)?;
        let slots: Box<[WriteSlot]> = (0..config.entries)
            .map(|_| WriteSlot {
                frame: None,
                token: 0,
                header: [0; VIRTIO_NET_HDR_LEN],
                vectors: [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; 2],
            })
            .collect();
        // SAFETY: msghdr is plain data for which zero is valid.
        let mut message: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        message.msg_controllen = CONTROL;
        let free_slots = (0..u32::from(config.entries)).rev().collect();
        Ok(Self { ring, doorbell, buffers, slots, free_slots, message, queued: 0, backlog: VecDeque::new(), pool: pool.clone() })
    }

    /// Starts (or starts again) the multishot read of a port.
    pub(crate) fn arm_read(&mut self, token: u32, fd: RawFd, kind: ReadKind) {
        let entry = match kind {
            ReadKind::Tap => opcode::ReadMulti::new(types::Fd(fd), 0, BUFFER_GROUP).build(),
            ReadKind::Packet => {
                opcode::RecvMsgMulti::new(types::Fd(fd), ptr::from_ref(self.message.as_ref()), BUFFER_GROUP).build()
            }
        };
        let kind_bit = match kind {
            ReadKind::Tap => 0,
            ReadKind::Packet => 1 << 32,
        };
        self.push(&entry.user_data(KIND_READ << 56 | kind_bit | u64::from(token)));
    }

    /// Ends the read of a port; completions already under way still come.
    pub(crate) fn cancel_read(&mut self, token: u32, kind: ReadKind) {
        let kind_bit = match kind {
            ReadKind::Tap => 0,
            ReadKind::Packet => 1 << 32,
        };
        let entry = opcode::AsyncCancel::new(KIND_READ << 56 | kind_bit | u64::from(token)).build();
        self.push(&entry.user_data(KIND_CANCEL << 56));
    }

    /// Queues a write of `header` (empty or a virtio header) and the frame. Gives the frame back when
    /// the kernel holds on to all write slots.
    pub(crate) fn write(&mut self, token: u32, fd: RawFd, header: &[u8], mut frame: Frame) -> Result<(), Frame> {
        if self.free_slots.is_empty() {
            self.make_room();
        }
        let Some(index) = self.free_slots.pop() else { return Err(frame) };
        let slot = &mut self.slots[index as usize];
        let no_wait = libc::RWF_NOWAIT;
        let fd = types::Fd(fd);
        let contiguous = frame.with_header_mut(header.len()).map(|bytes| {
            bytes[..header.len()].copy_from_slice(header);
            (bytes.as_ptr(), bytes.len())
        });
        let entry = match contiguous {
            Some((start, length)) => opcode::Write::new(fd, start, len32(length)).rw_flags(no_wait).build(),
            None => {
                slot.header[..header.len()].copy_from_slice(header);
                let bytes = frame.bytes();
                slot.vectors = [
                    libc::iovec { iov_base: slot.header.as_mut_ptr().cast(), iov_len: header.len() },
                    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() },
                ];
                opcode::Writev::new(fd, slot.vectors.as_ptr(), 2).rw_flags(no_wait).build()
            }
        };
        slot.frame = Some(frame);
        slot.token = token;
        self.push(&entry.user_data(KIND_WRITE << 56 | u64::from(index)));
        Ok(())
    }

    /// Submits what is queued and lets the kernel finish what it can, without waiting.
    ///
    /// # Errors
    /// Only what io_uring_enter(2) cannot mean as "try later".
    pub(crate) fn enter(&mut self) -> io::Result<()> {
        const GETEVENTS: u32 = 1;
        self.ring.submission().sync();
        // SAFETY: no argument is passed; entries queued refer to memory that `self` keeps.
        let result = unsafe { self.ring.submitter().enter::<libc::sigset_t>(self.queued, 0, GETEVENTS, None) };
        match result {
            Ok(taken) => {
                self.queued = self.queued.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX));
                Ok(())
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EBUSY | libc::EINTR) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// True when [`enter`](Self::enter) would find something to do: entries to submit, or work that
    /// the kernel left for this thread.
    pub(crate) fn must_enter(&mut self) -> bool {
        self.queued > 0 || self.ring.submission().taskrun()
    }

    /// True when [`enter`](Self::enter) or [`next`](Self::next) would find something to do. Reads
    /// shared memory only: no system call.
    pub(crate) fn has_work(&mut self) -> bool {
        self.must_enter() || !self.backlog.is_empty() || !self.ring.completion().is_empty()
    }

    /// Whether new work signals the descriptor; off while the loop is awake, since a signal costs.
    /// After switching it on, ask [`has_work`](Self::has_work) once more before sleeping.
    pub(crate) fn ring_the_bell(&mut self, on: bool) {
        let completions = self.ring.completion();
        if on { completions.enable_eventfd() } else { completions.disable_eventfd() }
    }

    /// True when entries are waiting for [`enter`](Self::enter).
    pub(crate) fn has_queued(&self) -> bool {
        self.queued > 0
    }

    /// The next thing that the kernel finished.
    pub(crate) fn next(&mut self) -> Option<Completion> {
        self.backlog.pop_front().or_else(|| self.next_from_kernel())
    }

    fn next_from_kernel(&mut self) -> Option<Completion> {
        loop {
            let entry = self.ring.completion().next()?;
            let (result, flags, data) = (entry.result(), entry.flags(), entry.user_data());
            match data >> 56 {
                KIND_READ => return Some(self.finish_read(result, flags, data)),
                KIND_WRITE => {
                    #[expect(clippy::cast_possible_truncation, reason = "slot indexes are below 2^16")]
                    let index = data as u32;
                    let slot = &mut self.slots[index as usize];
                    let (token, frame) = (slot.token, slot.frame.take());
                    self.free_slots.push(index);
                    if result < 0
                        && let Some(frame) = frame
                    {
                        return Some(Completion::Refused { token, frame, errno: -result });
                    }
                }
                _ => {}
            }
        }
    }

    /// Submits, and takes finished writes off the ring; what else finished waits in the backlog.
    fn make_room(&mut self) {
        if self.enter().is_ok() {
            while let Some(completion) = self.next_from_kernel() {
                self.backlog.push_back(completion);
            }
        }
    }

    fn finish_read(&mut self, result: i32, flags: u32, data: u64) -> Completion {
        #[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are the token")]
        let token = data as u32;
        let armed = cqueue::more(flags);
        let Some(id) = cqueue::buffer_select(flags) else {
            return Completion::ReadEnded { token, errno: (-result).max(0) };
        };
        let filled = usize::try_from(result).unwrap_or(0);
        let Some(frame) = self.buffers.take(id, &self.pool) else {
            return Completion::ReadEnded { token, errno: libc::ENOBUFS };
        };
        let (frame, tag) = if data & 1 << 32 == 0 { (place(frame, 0, filled), None) } else { place_message(frame, filled) };
        Completion::Read { token, frame, tag, armed }
    }

    /// Offers buffers in place of those that could not be replaced while the pool was empty.
    pub(crate) fn refill(&mut self) {
        self.buffers.refill(&self.pool);
    }

    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: the memory that the entry refers to is kept in `self` until it completes.
            let pushed = unsafe { self.ring.submission().push(entry) };
            if pushed.is_ok() {
                self.queued += 1;
                return;
            }
            // Full: the kernel takes all entries unless it is out of memory, which passes.
            if self.enter().is_err() {
                return;
            }
        }
    }
}

impl AsRawFd for Ring {
    /// Becomes readable when there is work, while [`Ring::ring_the_bell`] says so.
    fn as_raw_fd(&self) -> RawFd {
        self.doorbell.as_fd().as_raw_fd()
    }
}

/// A frame that the kernel wrote `filled` bytes for, `skip` of which come before it. The virtio
/// header stays in the frame: the port knows whether there is one.
fn place(mut frame: Frame, skip: usize, filled: usize) -> Frame {
    frame.set_bounds(START + skip, filled.saturating_sub(skip));
    frame
}

/// The same for a multishot recvmsg: preamble, control messages, payload.
fn place_message(mut frame: Frame, filled: usize) -> (Frame, Option<StrippedTag>) {
    frame.set_bounds(START, filled);
    let bytes = frame.bytes();
    let tag = bytes.get(RECVMSG_OUT..RECVMSG_OUT + CONTROL).and_then(|control| {
        let length = usize::try_from(u32::from_ne_bytes(*bytes.get(4..8)?.first_chunk()?)).ok()?;
        super::mmsg::stripped_tag(super::batch::Control::new(control.get(..length)?))
    });
    (place(frame, RECVMSG_OUT + CONTROL, filled), tag)
}

fn len32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// The provided buffers: a ring in shared memory whose entries point into pooled frames.
struct BufferRing {
    entries: *mut types::BufRingEntry,
    layout: std::alloc::Layout,
    mask: u16,
    tail: u16,
    frames: Box<[Option<Frame>]>,
    /// Ids whose frame could not be replaced.
    empty: Vec<u16>,
}

impl BufferRing {
    fn register(ring: &IoUring, pool: &Pool, count: u16) -> io::Result<Self> {
        let size = usize::from(count) * size_of::<types::BufRingEntry>();
        let layout = std::alloc::Layout::from_size_align(size, 4096).map_err(io::Error::other)?;
        // SAFETY: the layout has a size above zero; the result is checked.
        let entries = unsafe { std::alloc::alloc_zeroed(layout) }.cast::<types::BufRingEntry>();
        if entries.is_null() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let frames = (0..count).map(|_| None).collect();
        let mut this = Self { entries, layout, mask: count - 1, tail: 0, frames, empty: (0..count).rev().collect() };
        // SAFETY: `entries` is page-aligned, large enough for `count`, and lives as long as the ring
        // (fields of `Ring` are dropped in order, the ring first).
        unsafe { ring.submitter().register_buf_ring_with_flags(entries as u64, count, BUFFER_GROUP, 0)? };
        this.refill(pool);
        Ok(this)
    }

    /// The frame behind `id`, which gets a new one from the pool.
    fn take(&mut self, id: u16, pool: &Pool) -> Option<Frame> {
        let frame = self.frames.get_mut(usize::from(id))?.take();
        match pool.take(BufferClass::Large) {
            Some(fresh) => {
                self.offer(id, fresh);
                self.publish();
            }
            None => self.empty.push(id),
        }
        frame
    }

    fn refill(&mut self, pool: &Pool) {
        if self.empty.is_empty() {
            return;
        }
        while let Some(id) = self.empty.pop() {
            let Some(frame) = pool.take(BufferClass::Large) else {
                self.empty.push(id);
                break;
            };
            self.offer(id, frame);
        }
        self.publish();
    }

    fn offer(&mut self, id: u16, mut frame: Frame) {
        debug_assert!(id != NO_BUFFER);
        let storage = &mut frame.storage_mut()[START..];
        // SAFETY: the masked index is inside the ring; the kernel reads an entry only after the tail
        // passed it, which `publish` does.
        let entry = unsafe { &mut *self.entries.add(usize::from(self.tail & self.mask)) };
        entry.set_addr(storage.as_mut_ptr() as u64);
        entry.set_len(len32(storage.len()));
        entry.set_bid(id);
        self.frames[usize::from(id)] = Some(frame);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the tail is an aligned u16 inside the ring's first entry, shared with the kernel.
        let tail = unsafe { &*types::BufRingEntry::tail(self.entries).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; the io_uring was dropped before, so nobody reads it.
        unsafe { std::alloc::dealloc(self.entries.cast(), self.layout) };
    }
}
