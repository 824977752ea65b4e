//! Commands in a sandbox. They belong to nobody but init and outlive the daemon.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::{AsFd, OwnedFd},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    unistd::{sethostname, setsid},
};

use crate::{
    error::{Context, Result},
    netns::Netns,
    sys,
};

/// Where standard streams go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Streams {
    /// Those of the caller.
    #[default]
    Inherit,
    /// Input from nowhere, output appended to a file.
    Log(PathBuf),
}

/// A command to start in a sandbox.
#[derive(Clone, Debug, Default)]
pub struct CommandSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Added to the environment.
    pub environment: Vec<(String, String)>,
    /// Host name, in a UTS namespace of its own.
    pub hostname: Option<String>,
    /// Standard streams.
    pub streams: Streams,
    /// In a session of its own, so that signals of the caller's terminal do not reach it.
    pub detached: bool,
    /// Files in this directory are bound over those of the same name in /etc, as `ip netns exec` does
    /// with [`etc_of`] a name.
    pub etc: Option<PathBuf>,
}

/// Starts the command inside `netns`, with a mount namespace of its own in which /sys shows the
/// devices of that network namespace.
///
/// # Errors
/// When the program is not found or the kernel refuses.
pub fn spawn(netns: &Netns, spec: &CommandSpec) -> Result<Child> {
    spawn_in(netns, None, spec)
}

/// The same, first joining the user and mount namespace of process `host` (a rootless daemon).
///
/// # Errors
/// As [`spawn`].
pub fn spawn_in(netns: &Netns, host: Option<i32>, spec: &CommandSpec) -> Result<Child> {
    let Some((program, arguments)) = spec.command.split_first() else {
        return Err(crate::SetupError::invalid("start a command", "no command given"));
    };
    let mut command = Command::new(program);
    command.args(arguments).envs(spec.environment.iter().map(|(key, value)| (key, value)));
    if let Streams::Log(path) = &spec.streams {
        let log = OpenOptions::new().create(true).append(true).open(path).context(|| format!("open log {}", path.display()))?;
        let copy = log.try_clone().context(|| "duplicate the log".into())?;
        command.stdin(Stdio::null()).stdout(log).stderr(copy);
    }
    let entry = Entry {
        host: host.map(open_host).transpose()?,
        netns: netns.as_fd().try_clone_to_owned().context(|| "duplicate the namespace".into())?,
        hostname: spec.hostname.clone(),
        binds: spec.etc.as_deref().map(etc_binds).unwrap_or_default(),
        detached: spec.detached,
    };
    // SAFETY: `Entry::enter` makes system calls on data prepared here, and allocates nothing.
    #[expect(unsafe_code, reason = "the contract of pre_exec is kept")]
    unsafe {
        sys::before_exec(&mut command, move || entry.enter());
    }
    command.spawn().context(|| format!("start {program}"))
}

/// Replaces this process by the command inside `netns`.
///
/// # Errors
/// When it cannot; on success it does not return.
pub fn exec(netns: &Netns, host: Option<i32>, spec: &CommandSpec) -> Result<std::convert::Infallible> {
    let Some((program, arguments)) = spec.command.split_first() else {
        return Err(crate::SetupError::invalid("run a command", "no command given"));
    };
    let entry = Entry {
        host: host.map(open_host).transpose()?,
        netns: netns.as_fd().try_clone_to_owned().context(|| "duplicate the namespace".into())?,
        hostname: spec.hostname.clone(),
        binds: spec.etc.as_deref().map(etc_binds).unwrap_or_default(),
        detached: false,
    };
    entry.enter().context(|| "enter the sandbox".into())?;
    let error = Command::new(program).args(arguments).envs(spec.environment.iter().map(|(key, value)| (key, value))).exec();
    Err(crate::SetupError::new(format!("run {program}"), error))
}

/// What the child does before it becomes the command.
struct Entry {
    host: Option<(OwnedFd, OwnedFd)>,
    netns: OwnedFd,
    hostname: Option<String>,
    binds: Vec<(PathBuf, PathBuf)>,
    detached: bool,
}

impl Entry {
    fn enter(&self) -> io::Result<()> {
        if let Some((user, mounts)) = &self.host {
            setns(user, CloneFlags::CLONE_NEWUSER)?;
            setns(mounts, CloneFlags::CLONE_NEWNS)?;
        }
        setns(&self.netns, CloneFlags::CLONE_NEWNET)?;
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&Path>;
        // What is mounted in here stays in here; what others mount is still seen.
        mount(none, Path::new("/"), none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)?;
        // /sys shows the devices of the namespace it was mounted in. Not fatal where it is locked.
        if umount2("/sys", MntFlags::MNT_DETACH).is_ok() || self.host.is_none() {
            mount(Some(Path::new("sysfs")), Path::new("/sys"), Some(Path::new("sysfs")), MsFlags::empty(), none).ok();
        }
        for (from, to) in &self.binds {
            mount(Some(from.as_path()), to.as_path(), none, MsFlags::MS_BIND, none)?;
        }
        if let Some(name) = &self.hostname {
            unshare(CloneFlags::CLONE_NEWUTS)?;
            sethostname(name)?;
        }
        if self.detached {
            setsid()?;
        }
        Ok(())
    }
}

fn open_host(pid: i32) -> Result<(OwnedFd, OwnedFd)> {
    let open = |kind: &str| {
        let path = format!("/proc/{pid}/ns/{kind}");
        File::open(&path).map(OwnedFd::from).context(|| format!("open {path}"))
    };
    Ok((open("user")?, open("mnt")?))
}

/// Where `ip netns exec` has the files of a named namespace.
#[must_use]
pub fn etc_of(name: &str) -> PathBuf {
    Path::new("/etc/netns").join(name)
}

fn etc_binds(directory: &Path) -> Vec<(PathBuf, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let pairs = entries.flatten().map(|entry| (entry.path(), Path::new("/etc").join(entry.file_name())));
    pairs.filter(|(_, to)| to.exists()).collect()
}

/// Watches a process: the descriptor becomes readable when it ends (pidfd_open(2)).
///
/// # Errors
/// When there is no such process.
pub fn watch(pid: i32) -> Result<OwnedFd> {
    sys::pidfd_open(pid).context(|| format!("watch process {pid}"))
}

/// When a process started, in clock ticks since boot (proc(5), stat field 22): with the pid it
/// names one process for as long as the machine is up.
#[must_use]
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold blanks and brackets: count from the last bracket.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}
