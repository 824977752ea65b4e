//! Without root: a user namespace of our own, in which we may make network namespaces.
//!
//! The process stays in the host's network namespace, so that its sockets are the user's.

use std::{fs, os::fd::OwnedFd, path::Path};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    unistd::{getegid, geteuid, pause},
};

use crate::{
    error::{Context, Result},
    sys,
};

/// Enters a new user and mount namespace as its root. The process must have one thread.
///
/// # Errors
/// When user namespaces are not allowed.
pub fn enter_user_namespace() -> Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).context(|| "create a user namespace".into())?;
    // user_namespaces(7): setgroups must be denied before an unprivileged process writes gid_map.
    for (file, text) in [("setgroups", "deny".into()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))] {
        fs::write(format!("/proc/self/{file}"), text).context(|| format!("write /proc/self/{file}"))?;
    }
    let none = None::<&Path>;
    mount(none, Path::new("/"), none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none).context(|| "make mounts private".into())
}

/// Joins the user and mount namespace of a process of ours. The process must have one thread.
///
/// # Errors
/// When it is gone or not ours.
pub fn join_user_namespace(pid: i32) -> Result<()> {
    let open = |kind: &str| fs::File::open(format!("/proc/{pid}/ns/{kind}")).map(OwnedFd::from);
    let user = open("user").context(|| format!("open the user namespace of {pid}"))?;
    let mounts = open("mnt").context(|| format!("open the mount namespace of {pid}"))?;
    setns(user, CloneFlags::CLONE_NEWUSER).context(|| format!("join the user namespace of {pid}"))?;
    setns(mounts, CloneFlags::CLONE_NEWNS).context(|| format!("join the mount namespace of {pid}"))
}

/// Forks a process that does nothing but hold the namespaces, so that a daemon that was killed
/// finds them again. The process must have one thread.
///
/// # Errors
/// When fork fails.
pub fn spawn_keeper() -> Result<i32> {
    match sys::fork_single_threaded().context(|| "fork the keeper".into())? {
        Some(pid) => Ok(pid),
        None => {
            // Out of the caller's session and directory; named so that `ps` says what it is.
            nix::unistd::setsid().ok();
            nix::unistd::chdir("/").ok();
            nix::sys::prctl::set_name(c"weft-keeper").ok();
            for fd in 0..3 {
                nix::unistd::close(fd).ok();
            }
            loop {
                pause();
            }
        }
    }
}
