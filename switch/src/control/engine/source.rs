//! The reading end of what a process writes.

use std::{
    fs::OpenOptions,
    io,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::Path,
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::{net::unix::pipe, sync::watch};

/// Most that is still read once the process has ended.
const LAST_WORDS: usize = 1 << 20;

/// A pipe, a FIFO or a terminal.
pub(super) struct Source {
    from: pipe::Receiver,
    /// Whether the process has ended: what it has started in the background may hold its output open, and
    /// nobody waits for that.
    stopped: watch::Receiver<bool>,
    left: usize,
}

impl Source {
    /// Of a pipe or terminal.
    pub(super) fn new(from: OwnedFd, stop: &watch::Sender<bool>) -> io::Result<Self> {
        Ok(Self { from: pipe::Receiver::from_owned_fd_unchecked(nonblocking(from)?)?, stopped: stop.subscribe(), left: LAST_WORDS })
    }

    /// Of a FIFO.
    pub(super) fn open(path: &Path, stop: &watch::Sender<bool>) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
        Self::new(file.into(), stop)
    }

    pub(super) fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    /// The next of it, as many bytes; none when nobody writes any more, or the process has ended and all that
    /// was there then is read.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        while self.left > 0 {
            let is_stopped = self.is_stopped();
            // At the end the pipe itself is asked: the runtime may not have heard yet that something is in it.
            let read = if is_stopped { nix::unistd::read(&self.from, buffer).map_err(io::Error::from) } else { self.from.try_read(buffer) };
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !is_stopped => tokio::select! {
                    ready = self.from.readable() => ready.ok()?,
                    changed = self.stopped.changed() => changed.ok()?,
                },
                // Of a terminal the end is an error.
                Ok(0) | Err(_) => return None,
                Ok(length) => {
                    if is_stopped {
                        self.left = self.left.saturating_sub(length);
                    }
                    return Some(length);
                }
            }
        }
        None
    }
}

/// For the runtime to wait for.
pub(super) fn nonblocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(fd)
}
