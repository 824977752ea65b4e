//! Raw frames on an interface inside a namespace: a packet socket (packet(7)).
#![expect(unsafe_code, reason = "packet sockets have no safe interface that gives VLAN tags back")]

use std::{
    io,
    mem::zeroed,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use netns_setup::{Netns, link::Links};

use crate::ns::Ns;

/// A packet socket on one interface. Frames sent by it are not received by it.
#[derive(Debug)]
pub struct Wire {
    fd: OwnedFd,
    vnet_hdr: bool,
}

const VNET_HDR: usize = 10;

impl Wire {
    /// On `ifname` in `ns`. With `vnet_hdr` frames start with a `virtio_net_hdr`, both ways.
    ///
    /// # Panics
    /// When there is no such interface.
    #[must_use]
    #[track_caller]
    pub fn new(ns: &Ns, ifname: &str, vnet_hdr: bool) -> Self {
        let netns = Netns::open_path(ns.path()).expect("the namespace opens");
        let fd = netns.run(|| Ok((Links::open()?.index_of(ifname)?, packet_socket()))).expect("a packet socket");
        let (index, fd) = (fd.0, fd.1.expect("a packet socket"));
        let this = Self { fd, vnet_hdr };
        this.set(libc::PACKET_AUXDATA, 1);
        this.set(libc::PACKET_IGNORE_OUTGOING, 1);
        if vnet_hdr {
            this.set(libc::PACKET_VNET_HDR, 1);
        }
        // SAFETY: sockaddr_ll is plain data for which zero is valid.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).expect("a small number");
        address.sll_protocol = u16::try_from(libc::ETH_P_ALL).expect("a small number").to_be();
        address.sll_ifindex = i32::try_from(index).expect("a small number");
        let length = u32::try_from(size_of::<libc::sockaddr_ll>()).expect("a small number");
        // SAFETY: the address is as long as told.
        let bound = unsafe { libc::bind(this.fd.as_raw_fd(), (&raw const address).cast(), length) };
        assert_eq!(bound, 0, "bind: {}", io::Error::last_os_error());
        this
    }

    fn set(&self, option: i32, value: i32) {
        self.set_at(libc::SOL_PACKET, option, value);
    }

    fn set_at(&self, level: i32, option: i32, value: i32) {
        // SAFETY: the value is an int that outlives the call.
        let done = unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, option, (&raw const value).cast(), 4) };
        assert_eq!(done, 0, "setsockopt {option}: {}", io::Error::last_os_error());
    }

    /// Room for frames that wait to be read, bytes.
    pub fn set_buffer(&self, bytes: i32) {
        self.set_at(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes);
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// As send(2): the kernel refuses frames that are too short, too long, or contradict their header.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // SAFETY: the buffer is as long as told.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next frame, with a VLAN tag that the kernel took off put back; `None` when nothing came
    /// within 200 ms.
    #[must_use]
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry.
        if unsafe { libc::poll(&raw mut poll, 1, 200) } <= 0 {
            return None;
        }
        let (mut bytes, mut control) = (vec![0_u8; 70_000], [0_u64; 8]);
        let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: msghdr is plain data for which zero is valid.
        let mut message: libc::msghdr = unsafe { zeroed() };
        (message.msg_iov, message.msg_iovlen) = (&raw mut vector, 1);
        (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), 64);
        // SAFETY: all that the message points at outlives the call.
        let length = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, 0) };
        bytes.truncate(usize::try_from(length).ok()?);
        let at = if self.vnet_hdr { VNET_HDR } else { 0 } + 12;
        if let Some(tag) = stripped_tag(&control)
            && bytes.len() >= at
        {
            bytes.splice(at..at, tag);
        }
        Some(bytes)
    }
}

fn packet_socket() -> io::Result<OwnedFd> {
    // SAFETY: plain arguments; the descriptor is new and ours.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    // SAFETY: as above.
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(fd) }) }
}

/// TPID and TCI from the first control message, if that is a `tpacket_auxdata` with a tag.
fn stripped_tag(control: &[u64; 8]) -> Option<[u8; 4]> {
    let bytes: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let half = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let is_auxdata = word(8).cast_signed() == libc::SOL_PACKET && word(12).cast_signed() == libc::PACKET_AUXDATA;
    let status = word(16);
    if !is_auxdata || status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let tpid = if status & libc::TP_STATUS_VLAN_TPID_VALID == 0 { 0x8100 } else { half(34) };
    let [[a, b], [c, d]] = [tpid.to_be_bytes(), half(32).to_be_bytes()];
    Some([a, b, c, d])
}
