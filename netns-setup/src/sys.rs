//! ioctls that no crate wraps: tun(4), namespaces(7).
#![allow(unsafe_code, reason = "system-call edge; every block says why it holds")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use nix::libc;

nix::ioctl_read_bad!(tun_get_iff, nix::request_code_read!(b'T', 210, size_of::<libc::c_uint>()), libc::ifreq);
nix::ioctl_write_int_bad!(tun_set_persist, nix::request_code_write!(b'T', 203, size_of::<libc::c_int>()));
nix::ioctl_write_int_bad!(tun_set_offload, nix::request_code_write!(b'T', 208, size_of::<libc::c_uint>()));
nix::ioctl_write_ptr_bad!(tun_set_vnet_hdr_sz, nix::request_code_write!(b'T', 216, size_of::<libc::c_int>()), libc::c_int);
nix::ioctl_write_ptr_bad!(tun_set_carrier, nix::request_code_write!(b'T', 226, size_of::<libc::c_int>()), libc::c_int);
nix::ioctl_none_bad!(ns_get_nstype, nix::request_code_none!(0xb7, 3));

fn ifreq(name: &str) -> libc::ifreq {
    // SAFETY: ifreq is plain data for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from.cast_signed();
    }
    request
}

/// TUNSETIFF: makes the interface, or attaches to it.
pub(crate) fn set_iff(fd: BorrowedFd<'_>, name: &str, flags: i32) -> io::Result<()> {
    let mut request = ifreq(name);
    #[expect(clippy::cast_possible_truncation, reason = "all TUN flags are below 2^16")]
    let flags = flags as i16;
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: the kernel reads and writes one ifreq at the address, which is valid for the call.
    unsafe { libc_ioctl(fd, nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()), &raw mut request)? };
    Ok(())
}

/// # Safety
/// `argument` must be what the request expects.
unsafe fn libc_ioctl<T>(fd: BorrowedFd<'_>, request: libc::Ioctl, argument: *mut T) -> io::Result<i32> {
    // SAFETY: promised by the caller.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// TUNGETIFF: the interface's name as it is now, wherever it was moved.
pub(crate) fn get_iff(fd: BorrowedFd<'_>) -> io::Result<String> {
    let mut request = ifreq("");
    // SAFETY: the kernel writes one ifreq at the address.
    unsafe { tun_get_iff(fd.as_raw_fd(), &raw mut request)? };
    let name: Vec<u8> = request.ifr_name.iter().map(|c| c.cast_unsigned()).take_while(|&byte| byte != 0).collect();
    Ok(String::from_utf8_lossy(&name).into_owned())
}

/// TUNSETVNETHDRSZ and TUNSETOFFLOAD.
pub(crate) fn set_offload(fd: BorrowedFd<'_>, header_len: Option<i32>, mask: i32) -> io::Result<()> {
    if let Some(length) = header_len {
        // SAFETY: the kernel reads one int.
        unsafe { tun_set_vnet_hdr_sz(fd.as_raw_fd(), &raw const length)? };
    }
    // SAFETY: the argument is passed by value.
    unsafe { tun_set_offload(fd.as_raw_fd(), mask)? };
    Ok(())
}

/// TUNSETPERSIST.
pub(crate) fn set_persist(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    // SAFETY: the argument is passed by value.
    unsafe { tun_set_persist(fd.as_raw_fd(), i32::from(on))? };
    Ok(())
}

/// TUNSETCARRIER.
pub(crate) fn set_carrier(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let on = i32::from(on);
    // SAFETY: the kernel reads one int.
    unsafe { tun_set_carrier(fd.as_raw_fd(), &raw const on)? };
    Ok(())
}

/// NS_GET_NSTYPE: the CLONE_NEW* flag of a namespace descriptor.
pub(crate) fn namespace_type(fd: BorrowedFd<'_>) -> io::Result<i32> {
    // SAFETY: no argument.
    Ok(unsafe { ns_get_nstype(fd.as_raw_fd())? })
}

/// A packet socket bound to an interface (packet(7)).
pub(crate) fn packet_socket(index: u32) -> io::Result<OwnedFd> {
    // Protocol 0 until bound: otherwise frames of every interface arrive in between.
    // SAFETY: plain arguments; the descriptor is owned at once.
    let fd = unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: zero is valid for sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET.cast_unsigned().try_into().unwrap_or(0);
    address.sll_protocol = libc::ETH_P_ALL.cast_unsigned().try_into().map_or(0, u16::to_be);
    address.sll_ifindex = index.cast_signed();
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
    // Options first, so that the first frame already obeys them.
    for (option, needed) in [(libc::PACKET_AUXDATA, true), (PACKET_IGNORE_OUTGOING, true), (libc::PACKET_QDISC_BYPASS, false)] {
        let result = set_int(fd.as_fd(), libc::SOL_PACKET, option, 1);
        if needed {
            result?;
        }
    }
    for (forced, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        if set_int(fd.as_fd(), libc::SOL_SOCKET, forced, 4 << 20).is_err() {
            set_int(fd.as_fd(), libc::SOL_SOCKET, plain, 4 << 20)?;
        }
    }
    // SAFETY: the address is valid for its length.
    if unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fd)
}

/// Linux 4.20; not in libc.
const PACKET_IGNORE_OUTGOING: i32 = 23;

/// PACKET_VNET_HDR.
pub(crate) fn set_vnet_hdr(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_int(fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)
}

/// PACKET_ADD_MEMBERSHIP with PACKET_MR_PROMISC.
pub(crate) fn set_promiscuous(fd: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    // SAFETY: zero is valid for packet_mreq.
    let mut request: libc::packet_mreq = unsafe { std::mem::zeroed() };
    request.mr_ifindex = index.cast_signed();
    request.mr_type = libc::PACKET_MR_PROMISC.try_into().unwrap_or(1);
    set_option(fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)
}

fn set_int(fd: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    set_option(fd, level, option, &value)
}

fn set_option<T>(fd: BorrowedFd<'_>, level: i32, option: i32, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: the kernel reads `length` bytes at `value`.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has the child do `work` between fork and exec.
///
/// # Safety
/// `work` may only make system calls: no allocation, no lock (fork(2), signal-safety(7)).
pub(crate) unsafe fn before_exec(command: &mut std::process::Command, work: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
    use std::os::unix::process::CommandExt;
    // SAFETY: promised by the caller.
    unsafe { command.pre_exec(work) };
}

/// fork(2). Zero in the child.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn fork_single_threaded() -> io::Result<Option<i32>> {
    // SAFETY: the caller is single-threaded, so the child's copy of every lock is free.
    match unsafe { nix::unistd::fork()? } {
        nix::unistd::ForkResult::Parent { child } => Ok(Some(child.as_raw())),
        nix::unistd::ForkResult::Child => Ok(None),
    }
}

/// pidfd_open(2): becomes readable when the process ends.
///
/// # Errors
/// When there is no such process.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain arguments; the descriptor is owned at once.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)))
    }
}

/// A duplicate that owns itself, of a descriptor whose holder only lends it raw.
pub(crate) fn duplicate(holder: &impl AsRawFd) -> io::Result<OwnedFd> {
    // SAFETY: the holder keeps the descriptor open while we look at it.
    unsafe { BorrowedFd::borrow_raw(holder.as_raw_fd()) }.try_clone_to_owned()
}

/// TIOCSCTTY on standard input: signals of its keys go to this session.
pub(crate) fn own_terminal() -> io::Result<()> {
    // SAFETY: the argument is passed by value.
    if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// TIOCSWINSZ.
pub(crate) fn set_window_size(terminal: BorrowedFd<'_>, height: u16, width: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel reads one winsize.
    if unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
