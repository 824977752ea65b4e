//! Limit probes of packet sockets: two devices forwarded into each other and nothing else, in each way that the kernel has to
//! hand frames over (packet(7), Documentation/networking/packet_mmap.rst). They tell what a switch could gain from one.
#![allow(unsafe_code, reason = "rings that are shared with the kernel, and structures that it fills")]

use std::{
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Frames of one system call.
const BATCH: usize = 32;
/// `struct virtio_net_hdr`, before each frame.
const VIRTIO: usize = 10;
/// Room for a super-frame and the ring's own header, in whole pages.
const SLOT: usize = 17 << 12;
const SLOTS: usize = 256;
const BLOCK: usize = 1 << 20;
const BLOCKS: usize = 16;
/// Milliseconds after which a block that is not full is handed over: the least that there is.
const RETIRE: u32 = 1;

/// How frames are received. All are sent by sendmmsg(2) with PACKET_QDISC_BYPASS, from where they were received to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// recvmmsg(2).
    Sockets,
    /// TPACKET_V2: a ring of slots, one frame each.
    Slots,
    /// TPACKET_V3: a ring of blocks, handed over when full or after a time.
    Blocks,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sockets, Self::Slots, Self::Blocks];

    /// Short name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sockets => "probe-recvmmsg",
            Self::Slots => "probe-tpacket2",
            Self::Blocks => "probe-tpacket3",
        }
    }
}

/// Forwards between two devices of this namespace until it is killed.
///
/// # Errors
/// When the kernel lacks the way.
pub fn forward(way: Way, devices: [&str; 2]) -> io::Result<()> {
    let mut ends = [End::open(devices[0], way)?, End::open(devices[1], way)?];
    loop {
        let mut polled = ends.each_ref().map(|end| PollFd::new(end.fd.as_fd(), PollFlags::POLLIN));
        poll(&mut polled, PollTimeout::NONE)?;
        let ready = polled.map(|one| one.any().unwrap_or(false));
        let [one, two] = &mut ends;
        if ready[0] {
            one.pass_to(&two.fd)?;
        }
        if ready[1] {
            two.pass_to(&one.fd)?;
        }
    }
}

struct End {
    fd: OwnedFd,
    frames: Frames,
}

enum Frames {
    Sockets(Vec<Vec<u8>>),
    Slots(Ring, usize),
    Blocks(Ring, usize),
}

impl End {
    fn open(device: &str, way: Way) -> io::Result<Self> {
        // SAFETY: plain system call; the descriptor is new and ours.
        let fd = unsafe { OwnedFd::from_raw_fd(answer(libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, 0))?) };
        for option in [libc::PACKET_VNET_HDR, libc::PACKET_QDISC_BYPASS, libc::PACKET_IGNORE_OUTGOING] {
            set(fd.as_fd(), libc::SOL_PACKET, option, &1_i32)?;
        }
        set(fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &(8_i32 << 20))?;
        let frames = match way {
            Way::Sockets => Frames::Sockets(vec![vec![0; SLOT]; BATCH]),
            Way::Slots => {
                set(fd.as_fd(), libc::SOL_PACKET, libc::PACKET_VERSION, &libc::tpacket_versions::TPACKET_V2)?;
                let [size, count] = [SLOT, SLOTS].map(small);
                set(fd.as_fd(), libc::SOL_PACKET, libc::PACKET_RX_RING, &libc::tpacket_req { tp_block_size: size, tp_block_nr: count, tp_frame_size: size, tp_frame_nr: count })?;
                Frames::Slots(Ring::map(fd.as_fd(), SLOT * SLOTS)?, 0)
            }
            Way::Blocks => {
                set(fd.as_fd(), libc::SOL_PACKET, libc::PACKET_VERSION, &libc::tpacket_versions::TPACKET_V3)?;
                let request = libc::tpacket_req3 {
                    tp_block_size: small(BLOCK),
                    tp_block_nr: small(BLOCKS),
                    tp_frame_size: 2048,
                    tp_frame_nr: small(BLOCK / 2048 * BLOCKS),
                    tp_retire_blk_tov: RETIRE,
                    tp_sizeof_priv: 0,
                    tp_feature_req_word: 0,
                };
                set(fd.as_fd(), libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
                Frames::Blocks(Ring::map(fd.as_fd(), BLOCK * BLOCKS)?, 0)
            }
        };
        let index = nix::net::if_::if_nametoindex(device)?;
        // SAFETY: a zeroed sockaddr_ll is a valid one.
        let mut address: libc::sockaddr_ll = unsafe { MaybeUninit::zeroed().assume_init() };
        address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
        address.sll_protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or_default().to_be();
        address.sll_ifindex = i32::try_from(index).unwrap_or_default();
        // SAFETY: the address is of the length that is given.
        answer(unsafe { libc::bind(fd.as_raw_fd(), ptr::from_ref(&address).cast(), small(size_of::<libc::sockaddr_ll>())) })?;
        Ok(Self { fd, frames })
    }

    /// Passes on what is there, a batch or a block at most.
    fn pass_to(&mut self, to: &OwnedFd) -> io::Result<()> {
        let mut batch = Sending::new(to);
        match &mut self.frames {
            Frames::Sockets(buffers) => {
                let lengths = receive(&self.fd, buffers)?;
                for (buffer, length) in buffers.iter().zip(lengths) {
                    batch.add(buffer.as_ptr(), length);
                }
                batch.send();
            }
            Frames::Slots(ring, next) => {
                let first = *next;
                while *next - first < BATCH {
                    let slot = ring.at(*next % SLOTS * SLOT);
                    if !taken(slot) {
                        break;
                    }
                    // SAFETY: the slot is ours until its status is given back, and starts with this header.
                    let header = unsafe { &*slot.cast::<libc::tpacket2_hdr>() };
                    batch.add(slot.wrapping_add(usize::from(header.tp_mac) - VIRTIO), header.tp_snaplen as usize + VIRTIO);
                    *next += 1;
                }
                batch.send();
                (first..*next).for_each(|index| give_back(ring.at(index % SLOTS * SLOT)));
            }
            Frames::Blocks(ring, next) => {
                let block = ring.at(*next % BLOCKS * BLOCK);
                // The header of a block: version and offset (u32 each), then its status.
                let status = block.wrapping_add(8);
                if !taken(status) {
                    return Ok(());
                }
                // SAFETY: the block is ours until its status is given back, and starts with this header.
                let header = unsafe { (*block.cast::<libc::tpacket_block_desc>()).hdr.bh1 };
                let mut frame = block.wrapping_add(header.offset_to_first_pkt as usize);
                for _ in 0..header.num_pkts {
                    // SAFETY: the kernel wrote that many of these headers, each with the distance to its next.
                    let head = unsafe { &*frame.cast::<libc::tpacket3_hdr>() };
                    batch.add(frame.wrapping_add(usize::from(head.tp_mac) - VIRTIO), head.tp_snaplen as usize + VIRTIO);
                    frame = frame.wrapping_add(head.tp_next_offset as usize);
                }
                batch.send();
                give_back(status);
                *next += 1;
            }
        }
        Ok(())
    }
}

/// A ring that the kernel fills; unmapped with the process.
struct Ring(*mut u8);

impl Ring {
    fn map(fd: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        // SAFETY: a new mapping of a length that the kernel checks against the ring's.
        let at = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self(at.cast())) }
    }

    fn at(&self, offset: usize) -> *mut u8 {
        self.0.wrapping_add(offset)
    }
}

fn status(at: *mut u8) -> &'static AtomicU32 {
    // SAFETY: an aligned u32 in a mapping that is never taken down; both sides touch it atomically.
    unsafe { AtomicU32::from_ptr(at.cast()) }
}

fn taken(at: *mut u8) -> bool {
    status(at).load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
}

fn give_back(at: *mut u8) {
    status(at).store(libc::TP_STATUS_KERNEL, Ordering::Release);
}

/// Frames on their way, virtio headers first. What the device refuses is lost.
struct Sending<'a> {
    to: &'a OwnedFd,
    vectors: [libc::iovec; BATCH],
    count: usize,
}

impl<'a> Sending<'a> {
    fn new(to: &'a OwnedFd) -> Self {
        Self { to, vectors: [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH], count: 0 }
    }

    fn add(&mut self, at: *const u8, length: usize) {
        if self.count == BATCH {
            self.send();
        }
        self.vectors[self.count] = libc::iovec { iov_base: at.cast_mut().cast(), iov_len: length };
        self.count += 1;
    }

    fn send(&mut self) {
        let mut headers = headers(&mut self.vectors);
        // SAFETY: the first `count` headers point at vectors of frames that stay until this returns.
        unsafe { libc::sendmmsg(self.to.as_raw_fd(), headers.as_mut_ptr(), small(self.count), libc::MSG_DONTWAIT) };
        self.count = 0;
    }
}

/// One message for each vector.
fn headers(vectors: &mut [libc::iovec; BATCH]) -> [libc::mmsghdr; BATCH] {
    // SAFETY: zeroed headers are valid ones.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
    for (header, vector) in headers.iter_mut().zip(vectors) {
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
    }
    headers
}

/// Lengths of what came, one frame in each buffer.
fn receive(fd: &OwnedFd, buffers: &mut [Vec<u8>]) -> io::Result<impl Iterator<Item = usize> + use<>> {
    let mut vectors = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
    for (vector, buffer) in vectors.iter_mut().zip(buffers) {
        *vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    }
    let mut headers = headers(&mut vectors);
    // SAFETY: each header points at one vector, and that at a buffer of its length.
    let count = unsafe { libc::recvmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), small(BATCH), libc::MSG_DONTWAIT, ptr::null_mut()) };
    let count = match answer(count) {
        Ok(count) => usize::try_from(count).unwrap_or_default(),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(error) => return Err(error),
    };
    Ok(headers.into_iter().take(count).map(|header| header.msg_len as usize))
}

fn set<T>(fd: BorrowedFd<'_>, level: i32, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: the value is of the length that is given.
    answer(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, ptr::from_ref(value).cast(), small(size_of::<T>())) }).map(drop)
}

fn answer(code: i32) -> io::Result<i32> {
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(code) }
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
