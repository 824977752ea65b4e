//! The limit of TAPs in latency: two of them, read and written in a loop that never sleeps (Documentation/networking/tuntap.rst).
//! No switch on TAPs can be quicker, however it waits.
#![allow(unsafe_code, reason = "ioctl of the TUN device")]

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read as _, Write as _},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt as _},
};

/// Short name.
pub const NAME: &str = "probe-tap-busy";

/// A super-frame and its `struct virtio_net_hdr`.
const ROOM: usize = 65_536 + 64;

/// Makes both devices in this namespace, and forwards between them until it is killed.
///
/// # Errors
/// When a device cannot be made.
pub fn forward(devices: [&str; 2]) -> io::Result<()> {
    let [mut one, mut two] = [open(devices[0])?, open(devices[1])?];
    let mut room = vec![0; ROOM];
    loop {
        pass(&mut one, &mut two, &mut room)?;
        pass(&mut two, &mut one, &mut room)?;
    }
}

/// A device that is down has nothing to give, and what it refuses is lost.
fn pass(from: &mut File, to: &mut File, room: &mut [u8]) -> io::Result<()> {
    match from.read(room) {
        Ok(length) => drop(to.write(&room[..length])),
        Err(error)
            if error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::EIO) => {
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

fn open(name: &str) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    // SAFETY: a zeroed request is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags =
        i16::try_from(libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR).unwrap_or_default();
    // SAFETY: TUNSETIFF reads and writes one ifreq.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    // SAFETY: TUNSETOFFLOAD takes its flags by value.
    let offloads = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            libc::TUNSETOFFLOAD,
            libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6,
        )
    };
    if made < 0 || offloads < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(file)
    }
}
