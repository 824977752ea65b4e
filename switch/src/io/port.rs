//! One port: a descriptor, its virtio header, its egress queue.
//!
//! Two ways of reading, chosen once: `Ring` leaves the descriptor to io_uring; `Poll` reads when mio
//! says so. Writes go the same way. A frame that the device cannot take now waits in a queue of its
//! own port, bounded by a share of the buffers still free, so that a stuck port never delays another.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use dataplane::DropReason;
use nix::{
    errno::Errno,
    sys::{
        socket::{LinkAddr, getsockname},
        uio::writev,
    },
    unistd::read,
};
use packet::{BufferClass, Checksum, Frame, Gso, Offload, Pool, VIRTIO_NET_HDR_LEN};

use crate::sys::{
    mmsg::{self, Receiver},
    ring::{ReadKind, Ring, StrippedTag},
    socket::set_qdisc_bypass,
};

/// Frames a port may have waiting at most.
const QUEUE_FRAMES: usize = 512;
/// A port's queue may hold this part of the large buffers that are free: with one stuck port half of
/// the pool stays for the others, with two a quarter, and so on (dynamic threshold, Choudhury and Hahne 1998).
const QUEUE_SHARE: usize = 2;

/// A device handed to the loop.
#[derive(Debug)]
pub(crate) enum PortDevice {
    /// A TAP, non-blocking.
    Tap {
        /// An open /dev/net/tun with its interface set.
        fd: OwnedFd,
        /// Opened with IFF_VNET_HDR and a header of ten bytes.
        vnet_hdr: bool,
    },
    /// A packet socket bound to one device, non-blocking.
    Packet {
        /// SOCK_RAW, with PACKET_AUXDATA on.
        fd: OwnedFd,
        /// PACKET_VNET_HDR is on.
        vnet_hdr: bool,
    },
}

/// How frames are read from a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadMode {
    /// By io_uring.
    Ring,
    /// When mio says so.
    Poll,
}

/// The device behind a port no longer exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost;

/// Why a frame was not sent and will not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) DropReason);

/// See the module.
#[derive(Debug)]
pub(crate) struct PortIo {
    fd: OwnedFd,
    kind: ReadKind,
    header_len: usize,
    token: u32,
    pub(crate) mode: ReadMode,
    /// Frames for sendmmsg at the end of the turn (packet sockets in poll mode).
    batch: Vec<(Frame, [u8; VIRTIO_NET_HDR_LEN])>,
    queue: VecDeque<Frame>,
    /// Waiting for mio to say that the descriptor is writable.
    pub(crate) blocked: bool,
}

impl PortIo {
    /// A port on `device`, known to the ring and to mio as `token`.
    pub(crate) fn new(device: PortDevice, token: u32, mode: ReadMode) -> Self {
        let (fd, kind, vnet_hdr) = match device {
            PortDevice::Tap { fd, vnet_hdr } => (fd, ReadKind::Tap, vnet_hdr),
            PortDevice::Packet { fd, vnet_hdr } => (fd, ReadKind::Packet, vnet_hdr),
        };
        let header_len = if vnet_hdr { VIRTIO_NET_HDR_LEN } else { 0 };
        Self { fd, kind, header_len, token, mode, batch: Vec::new(), queue: VecDeque::new(), blocked: false }
    }

    /// The descriptor, for mio.
    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// The descriptor, to borrow.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Gives the port's reads to the ring.
    pub(crate) fn arm(&self, ring: &mut Ring) {
        ring.arm_read(self.token, self.fd(), self.kind);
    }

    /// Takes them back.
    pub(crate) fn disarm(&self, ring: &mut Ring) {
        ring.cancel_read(self.token, self.kind);
    }

    /// Takes off the virtio header and puts a VLAN tag back that the kernel took off.
    ///
    /// # Errors
    /// The drop reason when header and frame contradict each other.
    pub(crate) fn admit(&self, mut frame: Frame, tag: Option<StrippedTag>) -> Result<Frame, DropReason> {
        if self.header_len > 0 {
            if frame.len() < self.header_len {
                return Err(DropReason::Runt);
            }
            let length = frame.len() - self.header_len;
            frame.offload =
                Offload::from_virtio(&frame.bytes()[..self.header_len], length).map_err(|_| DropReason::BadOffload)?;
            frame.pull(self.header_len);
        }
        if let Some(tag) = tag
            && !frame.push_tag(tag.tpid, tag.tci)
        {
            return Err(DropReason::Runt);
        }
        Ok(frame)
    }

    /// Reads up to `budget` frames in poll mode. `Ok(true)` when more may be waiting.
    ///
    /// # Errors
    /// When the device is gone.
    pub(crate) fn read(
        &self,
        budget: usize,
        pool: &Pool,
        receiver: &mut Receiver,
        mut each: impl FnMut(Frame, Option<StrippedTag>),
    ) -> Result<bool, Lost> {
        let mut count = 0;
        while count < budget {
            let result = match self.kind {
                ReadKind::Packet => receiver.receive(self.as_fd(), pool, &mut each).map_err(|error| errno_of(&error)),
                ReadKind::Tap => self.read_one(pool).map(|frame| {
                    each(frame, None);
                    1
                }),
            };
            match result {
                Ok(0) => return Err(Lost),
                Ok(received) => count += received,
                Err(Errno::EAGAIN) => return Ok(false),
                Err(Errno::EINTR) => {}
                // The pool is empty: what is in flight comes back, and the port stays ready.
                Err(Errno::ENOBUFS) => return Ok(true),
                Err(_) if self.is_lost() => return Err(Lost),
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    fn read_one(&self, pool: &Pool) -> Result<Frame, Errno> {
        let mut frame = pool.take(BufferClass::Large).ok_or(Errno::ENOBUFS)?;
        let head = frame.headroom() - self.header_len;
        let length = read(&self.fd, &mut frame.storage_mut()[head..])?;
        frame.set_bounds(head, length);
        Ok(frame)
    }

    /// True when the device behind the descriptor no longer exists. (A packet socket loses its
    /// interface index, packet(7); a TAP answers EBADFD.)
    pub(crate) fn is_lost(&self) -> bool {
        match self.kind {
            ReadKind::Tap => read(&self.fd, &mut []) == Err(Errno::EBADFD),
            ReadKind::Packet => getsockname::<LinkAddr>(self.fd()).is_ok_and(|at| at.ifindex() == usize::MAX || at.ifindex() > i32::MAX as usize),
        }
    }

    /// Sends a frame, or queues it behind those that wait.
    ///
    /// # Errors
    /// When it was dropped instead.
    pub(crate) fn send(&mut self, frame: Frame, ring: Option<&mut Ring>, pool: &Pool) -> Result<(), Refused> {
        if !self.queue.is_empty() || self.blocked {
            return self.enqueue(frame, pool);
        }
        let header = self.header(&frame);
        match (self.mode, ring) {
            (ReadMode::Ring, Some(ring)) => {
                let fd = self.fd();
                match ring.write(self.token, fd, &header[..self.header_len], frame) {
                    Ok(()) => Ok(()),
                    Err(frame) => self.enqueue(frame, pool),
                }
            }
            _ if self.kind == ReadKind::Packet => {
                self.batch.push((frame, header));
                if self.batch.len() >= mmsg::BATCH { self.flush_batch(pool) } else { Ok(()) }
            }
            _ => match self.write_now(&frame, &header) {
                Ok(()) => Ok(()),
                Err(errno) => self.handle_refusal(frame, errno, pool),
            },
        }
    }

    fn write_now(&self, frame: &Frame, header: &[u8]) -> Result<(), Errno> {
        loop {
            let parts = [IoSlice::new(&header[..self.header_len]), IoSlice::new(frame.bytes())];
            match writev(&self.fd, &parts) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Sends what `send` collected for one system call.
    ///
    /// # Errors
    /// The last reason for which a frame was dropped instead.
    pub(crate) fn flush_batch(&mut self, pool: &Pool) -> Result<(), Refused> {
        let mut outcome = Ok(());
        let mut batch = std::mem::take(&mut self.batch);
        while !batch.is_empty() {
            match mmsg::send(self.fd(), &batch, self.header_len) {
                Ok(sent) => drop(batch.drain(..sent.max(1))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    for (frame, _) in batch.drain(..) {
                        outcome = self.enqueue(frame, pool).and(outcome);
                    }
                }
                Err(error) => {
                    let (frame, _) = batch.remove(0);
                    outcome = self.handle_refusal(frame, errno_of(&error), pool).and(outcome);
                }
            }
        }
        self.batch = batch;
        outcome
    }

    /// The device refused a frame: keeps it for later if that may help.
    ///
    /// # Errors
    /// When it was dropped instead.
    pub(crate) fn handle_refusal(&mut self, frame: Frame, errno: Errno, pool: &Pool) -> Result<(), Refused> {
        match errno {
            Errno::EAGAIN => {
                self.blocked = true;
                self.enqueue(frame, pool)
            }
            Errno::ENOBUFS if self.kind == ReadKind::Packet && frame.offload.gso != Gso::None && self.write_segmented(&frame) => Ok(()),
            // The peer's backlog is full: the frame is lost as on a wire, later ones may get through.
            Errno::ENOBUFS | Errno::ENOMEM => Err(Refused(DropReason::EgressFull)),
            _ => Err(Refused(DropReason::WriteFailed)),
        }
    }

    /// Past the queueing discipline, a device that does not segment refuses super-frames as a full one refuses
    /// frames. By way of it the kernel segments for the device, so that way is kept if it helps.
    fn write_segmented(&self, frame: &Frame) -> bool {
        let went = set_qdisc_bypass(&self.fd, false).is_ok() && self.write_now(frame, &self.header(frame)).is_ok();
        if !went {
            set_qdisc_bypass(&self.fd, true).ok();
        }
        went
    }

    fn enqueue(&mut self, frame: Frame, pool: &Pool) -> Result<(), Refused> {
        let limit = QUEUE_FRAMES.min(pool.large_available() / QUEUE_SHARE);
        if self.queue.len() >= limit {
            return Err(Refused(DropReason::EgressFull));
        }
        self.queue.push_back(frame);
        Ok(())
    }

    /// The descriptor can take frames again. Frames are written one by one, so that order holds when
    /// it blocks anew. Answers how many were dropped.
    pub(crate) fn unblock(&mut self) -> u64 {
        self.blocked = false;
        let mut failed = 0;
        while let Some(frame) = self.queue.pop_front() {
            let header = self.header(&frame);
            match self.write_now(&frame, &header) {
                Ok(()) => {}
                Err(Errno::EAGAIN) => {
                    self.queue.push_front(frame);
                    self.blocked = true;
                    break;
                }
                Err(_) => failed += 1,
            }
        }
        failed
    }

    fn header(&self, frame: &Frame) -> [u8; VIRTIO_NET_HDR_LEN] {
        if self.header_len == 0 || frame.offload.is_none() {
            return [0; VIRTIO_NET_HDR_LEN];
        }
        frame.offload.to_virtio(header_hint(frame))
    }
}

/// Length of all headers of a super-frame, as a hint on how much the kernel should keep linear.
fn header_hint(frame: &Frame) -> u16 {
    let Checksum::Partial { start, .. } = frame.offload.checksum else { return 0 };
    match frame.offload.gso {
        Gso::None => 0,
        Gso::Udp { .. } => start + 8,
        Gso::Tcp4 { .. } | Gso::Tcp6 { .. } => {
            let offset = frame.bytes().get(usize::from(start) + 12).map_or(0x50, |byte| byte & 0xf0);
            start + u16::from(offset >> 4) * 4
        }
    }
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}
