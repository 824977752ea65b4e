//! Commands in a sandbox. They belong to nobody but init and outlive the daemon.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    unistd::{chdir, pivot_root, sethostname, setsid},
};

use crate::{
    error::{Context, Result},
    netns::Netns,
    sys,
};

/// A file or directory of the host that the command sees in another place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// On the host.
    pub from: PathBuf,
    /// For the command; there must be something to hide.
    pub to: PathBuf,
    /// It can be read only.
    pub read_only: bool,
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
    /// In a session of its own, so that signals of the caller's terminal do not reach it.
    pub detached: bool,
    /// Files in this directory are bound over those of the same name in /etc, as `ip netns exec` does
    /// with [`etc_of`] a name.
    pub etc: Option<PathBuf>,
    /// Other files of the host in other places.
    pub binds: Vec<Bind>,
    /// The environment has nothing but what is said here.
    pub clear_environment: bool,
    /// Where it starts.
    pub directory: Option<PathBuf>,
    /// Its root directory, instead of the caller's.
    pub root: Option<PathBuf>,
    /// Standard input is a terminal, to be its controlling one; wants `detached`.
    pub terminal: bool,
    /// Stays in the caller's network namespace: entering that again wants privilege that a rootless
    /// daemon does not have.
    pub stays: bool,
    /// Joins the mount and host name namespaces of this process, instead of making its own.
    pub beside: Option<i32>,
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
    spawn_on(netns, host, spec, None)
}

/// As [`spawn`], with standard streams that the caller has opened: input, output, error output.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_with(netns: &Netns, spec: &CommandSpec, streams: [OwnedFd; 3]) -> Result<Child> {
    spawn_on(netns, None, spec, Some(streams))
}

fn spawn_on(netns: &Netns, host: Option<i32>, spec: &CommandSpec, streams: Option<[OwnedFd; 3]>) -> Result<Child> {
    let Some((program, arguments)) = spec.command.split_first() else {
        return Err(crate::SetupError::invalid("start a command", "no command given"));
    };
    let mut command = Command::new(program);
    if spec.clear_environment {
        command.env_clear();
    }
    command.args(arguments).envs(spec.environment.iter().map(|(key, value)| (key, value)));
    if let Some([input, output, errors]) = streams {
        command.stdin(input).stdout(output).stderr(errors);
    }
    let entry = Entry::new(netns, host, spec)?;
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
    let entry = Entry { detached: false, ..Entry::new(netns, host, spec)? };
    entry.enter().context(|| "enter the sandbox".into())?;
    let error = Command::new(program).args(arguments).envs(spec.environment.iter().map(|(key, value)| (key, value))).exec();
    Err(crate::SetupError::new(format!("run {program}"), error))
}

/// What the child does before it becomes the command.
struct Entry {
    host: Option<(OwnedFd, OwnedFd)>,
    /// Mount and host name namespaces to join.
    beside: Option<(OwnedFd, OwnedFd)>,
    /// None: the caller's.
    netns: Option<OwnedFd>,
    hostname: Option<String>,
    binds: Vec<Bind>,
    detached: bool,
    terminal: bool,
    root: Option<Root>,
    directory: Option<PathBuf>,
}

/// A root directory and the places in it that the kernel's file systems go to.
struct Root {
    path: PathBuf,
    proc: PathBuf,
    sys: PathBuf,
    dev: PathBuf,
}

impl Entry {
    /// Opens and copies all that [`Entry::enter`] needs.
    fn new(netns: &Netns, host: Option<i32>, spec: &CommandSpec) -> Result<Self> {
        Ok(Self {
            host: host.map(|pid| open_pair(pid, ["user", "mnt"])).transpose()?,
            beside: spec.beside.map(|pid| open_pair(pid, ["mnt", "uts"])).transpose()?,
            netns: (!spec.stays).then(|| netns.as_fd().try_clone_to_owned()).transpose().context(|| "duplicate the namespace".into())?,
            hostname: spec.hostname.clone(),
            binds: all_binds(spec),
            detached: spec.detached,
            terminal: spec.terminal,
            root: spec.root.as_ref().map(|path| Root { proc: path.join("proc"), sys: path.join("sys"), dev: path.join("dev"), path: path.clone() }),
            directory: spec.directory.clone(),
        })
    }

    fn enter(&self) -> io::Result<()> {
        if let Some((user, mounts)) = &self.host {
            setns(user, CloneFlags::CLONE_NEWUSER)?;
            setns(mounts, CloneFlags::CLONE_NEWNS)?;
        }
        if let Some(netns) = &self.netns {
            setns(netns, CloneFlags::CLONE_NEWNET)?;
        }
        match &self.beside {
            Some((mounts, names)) => {
                setns(mounts, CloneFlags::CLONE_NEWNS)?;
                setns(names, CloneFlags::CLONE_NEWUTS)?;
            }
            None => self.make_mounts()?,
        }
        if let Some(name) = &self.hostname {
            unshare(CloneFlags::CLONE_NEWUTS)?;
            sethostname(name)?;
        }
        if let Some(directory) = &self.directory {
            chdir(directory.as_path())?;
        }
        if self.detached {
            setsid()?;
        }
        if self.terminal {
            sys::own_terminal()?;
        }
        Ok(())
    }

    fn make_mounts(&self) -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&Path>;
        // What is mounted in here stays in here; what others mount is still seen.
        mount(none, Path::new("/"), none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)?;
        for Bind { from, to, read_only } in &self.binds {
            mount(Some(from.as_path()), to.as_path(), none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
            if *read_only {
                mount(none, to.as_path(), none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)?;
            }
        }
        if let Some(root) = &self.root {
            return root.enter();
        }
        // /sys shows the devices of the namespace it was mounted in. Not fatal where it is locked.
        let is_other = self.netns.is_some();
        if is_other && (umount2("/sys", MntFlags::MNT_DETACH).is_ok() || self.host.is_none()) {
            mount(Some(Path::new("sysfs")), Path::new("/sys"), Some(Path::new("sysfs")), MsFlags::empty(), none).ok();
        }
        Ok(())
    }
}

impl Root {
    /// pivot_root(2) wants a mount point; "." over "." hides the old root beneath the new one.
    fn enter(&self) -> io::Result<()> {
        let none = None::<&Path>;
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(self.path.as_path()), self.path.as_path(), none, bind, none)?;
        // A directory without them is served too, and a user namespace may refuse some.
        mount(Some(Path::new("/proc")), self.proc.as_path(), none, bind, none).ok();
        mount(Some(Path::new("/dev")), self.dev.as_path(), none, bind, none).ok();
        mount(Some(Path::new("sysfs")), self.sys.as_path(), Some(Path::new("sysfs")), MsFlags::empty(), none).ok();
        chdir(self.path.as_path())?;
        pivot_root(".", ".")?;
        umount2(".", MntFlags::MNT_DETACH)?;
        chdir("/")?;
        Ok(())
    }
}

fn open_pair(pid: i32, kinds: [&str; 2]) -> Result<(OwnedFd, OwnedFd)> {
    let open = |kind: &str| {
        let path = format!("/proc/{pid}/ns/{kind}");
        File::open(&path).map(OwnedFd::from).context(|| format!("open {path}"))
    };
    Ok((open(kinds[0])?, open(kinds[1])?))
}

/// Where `ip netns exec` has the files of a named namespace.
#[must_use]
pub fn etc_of(name: &str) -> PathBuf {
    Path::new("/etc/netns").join(name)
}

/// Those of /etc, and the others, as seen before the root is changed.
fn all_binds(spec: &CommandSpec) -> Vec<Bind> {
    let root = spec.root.as_deref().unwrap_or(Path::new("/"));
    let entries = spec.etc.as_deref().and_then(|etc| std::fs::read_dir(etc).ok()).into_iter().flatten().flatten();
    let etc = entries.map(|entry| Bind { to: root.join("etc").join(entry.file_name()), from: entry.path(), read_only: false }).filter(|bind| bind.to.exists());
    let others = spec.binds.iter().map(|bind| Bind { to: root.join(bind.to.strip_prefix("/").unwrap_or(&bind.to)), ..bind.clone() });
    etc.chain(others).collect()
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
    stat_field(pid, 19)
}

/// Whether that process still runs: one that has ended may wait a while for its parent to take notice.
#[must_use]
pub fn is_running(pid: i32, start: u64) -> bool {
    start_time(pid) == Some(start) && !is_ending(pid)
}

/// Whether a process has ended, or is about to be a zombie: it is in no namespaces then.
#[must_use]
pub fn is_ending(pid: i32) -> bool {
    // Of others' processes nothing may be seen.
    let has_left = || std::fs::metadata(format!("/proc/{pid}/ns/mnt")).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    stat_field(pid, 0).is_none_or(|state: char| matches!(state, 'Z' | 'X')) || has_left()
}

/// Processes of a session (proc(5), stat field 6): what a command that was detached has left behind.
#[must_use]
pub fn of_session(session: i32) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| stat_field(*pid, 3) == Some(session)).collect()
}

/// A field of /proc/PID/stat, counted from behind the command name.
fn stat_field<T: std::str::FromStr>(pid: i32, at: usize) -> Option<T> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold blanks and brackets: count from the last bracket.
    stat.rsplit_once(')')?.1.split_whitespace().nth(at)?.parse().ok()
}

/// Sets the size of a terminal (ioctl_tty(2)).
///
/// # Errors
/// When it is none.
pub fn resize(terminal: impl AsFd, height: u16, width: u16) -> Result<()> {
    sys::set_window_size(terminal.as_fd(), height, width).context(|| "resize a terminal".into())
}
