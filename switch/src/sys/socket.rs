//! What sockets can do and socket2 does not offer: peeking at an offset, the room in a send buffer,
//! discarding, the error queue.

use std::{
    io,
    mem::{MaybeUninit, zeroed},
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    ptr,
};

use nat::proxy::NetworkError;
use socket2::{SockAddr, Socket};

/// socket(7): an array of nine u32, of which these are the send buffer's size and fill.
const SO_MEMINFO: i32 = 55;
const MEMINFO_SNDBUF: usize = 3;
const MEMINFO_WMEM_QUEUED: usize = 5;

pub(super) fn set(socket: &impl AsRawFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the value is an int that outlives the call.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), 4) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether a packet socket's frames pass by the queueing discipline of the device (packet(7)), and with it the
/// kernel's segmentation in software.
///
/// # Errors
/// As setsockopt(2).
pub(crate) fn set_qdisc_bypass(socket: &impl AsRawFd, on: bool) -> io::Result<()> {
    set(socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, on.into())
}

/// The next peek starts that many bytes behind the first that was not taken off, and moves on by what
/// it saw.
///
/// # Errors
/// When the kernel cannot do it for TCP (before Linux 6.9).
pub(crate) fn set_peek_offset(socket: &Socket, offset: i32) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF, offset)
}

/// A send buffer of that size, beyond the system's limit where we may.
pub(crate) fn force_send_buffer(socket: &Socket, bytes: usize) {
    set(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, i32::try_from(bytes).unwrap_or(i32::MAX)).ok();
}

/// The same for receiving, beyond the system's limit where we may and up to it elsewhere.
pub(crate) fn force_receive_buffer(socket: &Socket, bytes: usize) {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    if set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).is_err() {
        set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes).ok();
    }
}

/// What the system knows of the path that a connected socket's datagrams take, bytes (ip(7), IP_MTU).
pub(crate) fn path_mtu(socket: &Socket, ipv6: bool) -> Option<u16> {
    let (level, option) = if ipv6 { (libc::IPPROTO_IPV6, libc::IPV6_MTU) } else { (libc::IPPROTO_IP, libc::IP_MTU) };
    let (mut mtu, mut length) = (0_i32, 4_u32);
    // SAFETY: the value is an int, as long as told.
    let done = unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut mtu).cast(), &raw mut length) };
    // A jumbogram's is above what a datagram can fill.
    if done < 0 { None } else { u16::try_from(mtu.min(65_535)).ok() }
}

/// ICMP errors about datagrams are kept for [`next_error`].
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn report_errors(socket: &Socket, ipv6: bool) -> io::Result<()> {
    if ipv6 { set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1) } else { set(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1) }
}

/// Bytes that send(2) would take now. An eighth is kept back for what the kernel needs beside them.
pub(crate) fn send_room(socket: &Socket) -> usize {
    let mut info = [0_u32; 9];
    let mut length = u32::try_from(size_of_val(&info)).unwrap_or_default();
    // SAFETY: the array is as long as told.
    let done = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_MEMINFO, info.as_mut_ptr().cast(), &raw mut length) };
    if done < 0 {
        return 0;
    }
    let free = info[MEMINFO_SNDBUF].saturating_sub(info[MEMINFO_WMEM_QUEUED]) as usize;
    free - free / 8
}

/// Looks at what came in, without taking it off; the first bytes go to `skip`. Zero is the end of the
/// stream.
///
/// # Errors
/// As recv(2); would-block also when nothing lies behind what is skipped.
pub(crate) fn peek(socket: &Socket, skip: &mut [u8], into: &mut [u8]) -> io::Result<usize> {
    let mut vectors = [
        libc::iovec { iov_base: skip.as_mut_ptr().cast(), iov_len: skip.len() },
        libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() },
    ];
    // SAFETY: msghdr is plain data for which zero is valid.
    let mut message: libc::msghdr = unsafe { zeroed() };
    (message.msg_iov, message.msg_iovlen) = (vectors.as_mut_ptr(), 2);
    // SAFETY: both buffers outlive the call and are ours alone.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_PEEK | libc::MSG_DONTWAIT) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    if skip.is_empty() || count == 0 {
        return Ok(count);
    }
    match count.saturating_sub(skip.len()) {
        // Behind the skipped bytes there is nothing yet, or the end: only a hung-up socket tells.
        0 if !is_at_end(socket) => Err(io::ErrorKind::WouldBlock.into()),
        behind => Ok(behind),
    }
}

fn is_at_end(socket: &Socket) -> bool {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: one entry, and no waiting.
    unsafe { libc::poll(&raw mut poll, 1, 0) > 0 && poll.revents & libc::POLLRDHUP != 0 }
}

/// Takes bytes off without copying them (tcp(7), MSG_TRUNC).
pub(crate) fn discard(socket: &Socket, mut count: usize) {
    while count > 0 {
        // SAFETY: with MSG_TRUNC nothing is written.
        let done = unsafe { libc::recv(socket.as_raw_fd(), ptr::null_mut(), count, libc::MSG_TRUNC | libc::MSG_DONTWAIT) };
        match usize::try_from(done) {
            Ok(done @ 1..) => count = count.saturating_sub(done),
            _ => return,
        }
    }
}

/// Sends datagrams of `size` bytes, which lie one behind the other, with one call.
///
/// # Errors
/// As sendmsg(2); also when the kernel or the device cannot segment.
pub(crate) fn send_segments(socket: &Socket, to: &SockAddr, bytes: &[u8], size: usize) -> io::Result<()> {
    // One control message: cmsghdr (16 bytes), u16, padding.
    let mut control = [0_u64; 3];
    let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: msghdr is plain data for which zero is valid.
    let mut message: libc::msghdr = unsafe { zeroed() };
    (message.msg_name, message.msg_namelen) = (to.as_ptr().cast_mut().cast(), to.len());
    (message.msg_iov, message.msg_iovlen) = (&raw mut vector, 1);
    (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), size_of_val(&control));
    let header = libc::cmsghdr { cmsg_len: 18, cmsg_level: libc::SOL_UDP, cmsg_type: libc::UDP_SEGMENT };
    let size = u16::try_from(size).map_err(io::Error::other)?;
    // SAFETY: the control buffer is aligned and has room for the header and two bytes behind it.
    unsafe {
        control.as_mut_ptr().cast::<libc::cmsghdr>().write(header);
        control.as_mut_ptr().cast::<u8>().add(16).cast::<u16>().write(size);
    }
    // SAFETY: all that the message points at outlives the call, which only reads it.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The same bytes, for calls that would write them uninitialised too.
pub(crate) fn as_uninit(bytes: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    // SAFETY: the same layout; the calls that get it only write initialised bytes.
    unsafe { &mut *(ptr::from_mut(bytes) as *mut [MaybeUninit<u8>]) }
}

/// The next ICMP error that waits (ip(7), IP_RECVERR): `sock_extended_err` in a control message, and the
/// datagram's destination as name.
pub(crate) fn next_error(socket: &Socket) -> Option<NetworkError> {
    loop {
        let (mut control, mut rest) = ([0_u64; 64], [0_u8; 64]);
        let mut vector = libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() };
        // SAFETY: plain data for which zero is valid.
        let (mut message, mut name): (libc::msghdr, libc::sockaddr_storage) = unsafe { (zeroed(), zeroed()) };
        (message.msg_iov, message.msg_iovlen) = (&raw mut vector, 1);
        (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), size_of_val(&control));
        message.msg_name = (&raw mut name).cast();
        message.msg_namelen = u32::try_from(size_of_val(&name)).ok()?;
        // SAFETY: all that the message points at outlives the call.
        let done = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
        if done < 0 {
            return None;
        }
        let to = address_of(&name, message.msg_namelen)?;
        // cmsghdr: length u64, level i32, type i32; then errno u32, origin u8, type u8, code u8, pad, info u32.
        let bytes: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut at = 0;
        while at + 32 <= message.msg_controllen {
            let length = usize::try_from(u64::from_ne_bytes(*bytes.get(at..at + 8)?.first_chunk()?)).ok()?;
            let kind = (i32::from_ne_bytes(*bytes.get(at + 8..)?.first_chunk()?), i32::from_ne_bytes(*bytes.get(at + 12..)?.first_chunk()?));
            let is_error = kind == (libc::IPPROTO_IP, libc::IP_RECVERR) || kind == (libc::IPPROTO_IPV6, libc::IPV6_RECVERR);
            // Origins 2 and 3: ICMP and ICMPv6; others are our own host's, and were returned by the call.
            if is_error && matches!(bytes[at + 20], 2 | 3) {
                let mtu = u32::from_ne_bytes(*bytes.get(at + 24..)?.first_chunk()?);
                // SO_EE_OFFENDER: a socket address behind the error.
                let offender = bytes.get(at + 32..at + length).and_then(|address| match u16::from_ne_bytes([*address.first()?, *address.get(1)?]) {
                    2 => Some(IpAddr::from(*address.get(4..8)?.first_chunk::<4>()?)),
                    10 => Some(IpAddr::from(*address.get(8..24)?.first_chunk::<16>()?)),
                    _ => None,
                });
                return Some(NetworkError { to, from: offender, kind: bytes[at + 21], code: bytes[at + 22], mtu });
            }
            at += length.max(16).next_multiple_of(8);
        }
    }
}

/// An address that the kernel wrote.
pub(super) fn address_of(name: &libc::sockaddr_storage, length: u32) -> Option<SocketAddr> {
    // SAFETY: the kernel wrote an address of that length.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, len| {
            ptr::copy_nonoverlapping(ptr::from_ref(name).cast::<u8>(), storage.cast::<u8>(), size_of::<libc::sockaddr_storage>());
            *len = length;
            Ok(())
        })
    }
    .ok()?;
    address.as_socket()
}
