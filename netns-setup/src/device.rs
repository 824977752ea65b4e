//! TAP devices and packet sockets, opened in the namespace of the calling thread.

use std::{
    fs::OpenOptions,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    libc,
};

use crate::{
    error::{Context, Result},
    link::Links,
    sys,
};

const TUN_F_CSUM: i32 = 0x01;
const TUN_F_TSO4: i32 = 0x02;
const TUN_F_TSO6: i32 = 0x04;
const TUN_F_TSO_ECN: i32 = 0x08;
const TUN_F_USO4: i32 = 0x20;
const TUN_F_USO6: i32 = 0x40;

/// What a TAP can do, as the kernel granted it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapFeatures {
    /// Frames come and go behind a virtio header of ten bytes.
    pub vnet_hdr: bool,
    /// Checksum and TCP segmentation offloads are on.
    pub tso: bool,
    /// UDP segmentation offload is on (Linux 6.2).
    pub uso: bool,
}

/// What a packet socket can do, as the kernel granted it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketFeatures {
    /// Frames come and go behind a virtio header of ten bytes, with every offload.
    pub vnet_hdr: bool,
}

/// The switch's end of a port.
#[derive(Debug)]
pub enum PortFd {
    /// An open TAP, non-blocking.
    Tap(OwnedFd, TapFeatures),
    /// A packet socket bound to one device, non-blocking.
    Packet(OwnedFd, PacketFeatures),
}

/// Opens the TAP `name` with offloads, making it when it is not there; falls back to a plain one
/// where the kernel refuses the virtio header. `%d` in the name lets the kernel choose a number.
pub(crate) fn open_tap(name: &str, persistent: bool) -> Result<(OwnedFd, TapFeatures)> {
    let (fd, features) = match open_offload_tap(name) {
        Ok(opened) => opened,
        Err(error) if error.errno() == Some(libc::EINVAL) => (open_plain_tap(name)?, TapFeatures::default()),
        Err(error) => return Err(error),
    };
    sys::set_persist(fd.as_fd(), persistent).context(|| format!("set the persistence of TAP {name}"))?;
    Ok((fd, features))
}

fn open_offload_tap(name: &str) -> Result<(OwnedFd, TapFeatures)> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open("/dev/net/tun");
    let fd: OwnedFd = file.context(|| "open /dev/net/tun".into())?.into();
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    sys::set_iff(fd.as_fd(), name, flags).context(|| format!("create TAP {name}"))?;
    let tso = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    // The mask belongs to the device and outlives us: it is set anew at each attach.
    let uso = sys::set_offload(fd.as_fd(), Some(10), tso | TUN_F_USO4 | TUN_F_USO6).is_ok();
    if !uso {
        sys::set_offload(fd.as_fd(), Some(10), tso).context(|| format!("set the offloads of TAP {name}"))?;
    }
    Ok((fd, TapFeatures { vnet_hdr: true, tso: true, uso }))
}

/// Without the virtio header there must be no offloads: super-frames would come undescribed.
fn open_plain_tap(name: &str) -> Result<OwnedFd> {
    let tap = tun_tap::Iface::without_packet_info(name, tun_tap::Mode::Tap).context(|| format!("create plain TAP {name}"))?;
    let fd = sys::duplicate(&tap).context(|| format!("take the descriptor of TAP {name}"))?;
    fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context(|| format!("make TAP {name} non-blocking"))?;
    sys::set_offload(fd.as_fd(), None, 0).context(|| format!("clear the offloads of TAP {name}"))?;
    Ok(fd)
}

/// Opens a packet socket on device `name` of this thread's namespace.
pub(crate) fn open_packet(name: &str, promiscuous: bool) -> Result<(OwnedFd, PacketFeatures)> {
    let index = Links::open()?.index_of(name)?;
    let fd = sys::packet_socket(index).context(|| format!("open a packet socket on {name}"))?;
    if promiscuous {
        sys::set_promiscuous(fd.as_fd(), index).context(|| format!("make {name} promiscuous"))?;
    }
    let vnet_hdr = sys::set_vnet_hdr(fd.as_fd()).is_ok();
    Ok((fd, PacketFeatures { vnet_hdr }))
}

/// The name that a TAP has now, in whatever namespace it is.
///
/// # Errors
/// When the device is gone.
pub fn tap_name(fd: BorrowedFd<'_>) -> Result<String> {
    sys::get_iff(fd).context(|| "ask a TAP for its name".into())
}

/// Gives a TAP carrier, or takes it (Linux 5.0).
///
/// # Errors
/// When the device is gone, or the kernel is older.
pub fn set_carrier(fd: BorrowedFd<'_>, on: bool) -> Result<()> {
    sys::set_carrier(fd, on).context(|| "set the carrier of a TAP".into())
}
