//! The end of a process that we watch.

use std::{io, time::Duration};

use netns_setup::process;
use nix::{
    errno::Errno,
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::Pid,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Between two attempts to watch one, when there are no descriptors for it.
const AGAIN: Duration = Duration::from_millis(200);

/// Waits until a process ends; gives its exit code as a shell has it, if it was ours.
pub(super) async fn end_of(pid: i32) -> Option<i32> {
    while let Err(error) = watch(pid).await {
        if error.raw_os_error() == Some(Errno::ESRCH as i32) {
            break;
        }
        tracing::debug!(pid, %error, "cannot watch a process");
        tokio::time::sleep(AGAIN).await;
    }
    reap(pid)
}

#[expect(deprecated, reason = "sound here: the descriptor is owned, unshared, and closed only with the AsyncFd")]
async fn watch(pid: i32) -> io::Result<()> {
    let pidfd = process::watch(pid).map_err(|error| error.cause)?;
    AsyncFd::with_interest(pidfd, Interest::READABLE)?.readable().await.map(drop)
}

/// A child of ours stays a zombie until it is waited for; others' children are not ours to wait for.
fn reap(pid: i32) -> Option<i32> {
    match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, code)) => Some(code),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as i32),
        _ => None,
    }
}
